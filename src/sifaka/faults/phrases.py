"""What people write of a failure: the last evidence of all (floor 1).

A text is first made plain: lower case, CamelCase and snake_case as words, no quotes, no web
addresses (their paths say "rate-limits" and "billing" on every occasion). Then the families of
phrases are tried in their order. They match whole words only: "generate", "runtime" and "moderate"
say nothing of a rate, a time or a moderation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from sifaka.faults.chinese import chinese_verdicts, speaks_of_money
from sifaka.faults.families import (
    FAMILIES,
    HARD_QUOTA,
    LIMIT_AND_REQUESTED,
    PER_DAY,
    PER_MINUTE,
    WRONG_SETTING,
)
from sifaka.faults.table import Verdict

__all__ = ["hard_quota", "per_minute", "phrase_verdicts", "plain", "too_big", "wrong_setting"]


def plain(text: str) -> str:
    """The text as lower-case words, without quotes, snakes, camels and web addresses."""
    for pattern, replacement in _cleaning():
        text = pattern.sub(replacement, text)
    return text.lower()


def phrase_verdicts(text: str) -> Iterator[Verdict]:
    """What the phrases of a plain text say, the most telling first."""
    yield from chinese_verdicts(text)
    yield from (verdict for verdict, phrases in FAMILIES if _compiled(*phrases).search(text))


def hard_quota(text: str) -> bool:
    """Whether a plain text speaks of money, or of a quota that no short wait refills."""
    return bool(_compiled(*HARD_QUOTA).search(text)) or speaks_of_money(text)


def per_minute(text: str) -> bool:
    """Whether a plain text speaks of a limit per minute, and of none per day."""
    return bool(_compiled(PER_MINUTE).search(text)) and not _compiled(PER_DAY).search(text)


def too_big(text: str) -> bool:
    """Whether one request asks for more than the limit that a plain text names."""
    said = _compiled(LIMIT_AND_REQUESTED).search(text)
    if said is None:
        return False
    limit, requested = (int(number.replace(",", "") or 0) for number in said.groups())
    return requested > limit


def wrong_setting(text: str) -> bool:
    """Whether a plain text says that something in the request is wrong, by its name."""
    return bool(_compiled(*WRONG_SETTING).search(text))


@cache
def _compiled(*phrases: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)")


@cache
def _cleaning() -> tuple[tuple[re.Pattern[str], str], ...]:
    return (
        (re.compile(r"\\[nrt]"), " "),
        (re.compile("[\u2018\u2019]"), "'"),
        (re.compile(r"\bhttps?://[^\s\"'<>)\]}]+"), " "),
        (re.compile(r"(?<=[a-z])(?=[A-Z])"), " "),
        (re.compile(r"(?<![A-Za-z])'|'(?![A-Za-z])|[\"`\\*]"), ""),
        (re.compile(r"[_\s]+"), " "),
    )
