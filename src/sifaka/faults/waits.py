"""How long a provider asks us to wait: from headers, from the body, from the sentence (floor 1).

All waits are seconds from now, never negative. A header that only says when a budget is refilled is
read apart (:func:`refill_wait_s`): providers send it with every answer, so that it means a wait
only beside a rate limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

__all__ = ["QUOTA_WAIT_S", "answered_at", "duration_s", "header_wait_s", "refill_wait_s", "text_wait_s"]

QUOTA_WAIT_S = 300.0
"""A rate limit that asks for a longer wait than this (seconds) is a quota in all but name."""

_NUMBER = r"\d{1,12}(?:\.\d{1,12})?"
_UNIT = r"(?:milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])"
_SPAN = rf"{_NUMBER}\s?{_UNIT}(?:(?:\s|,\s|\sand\s)?{_NUMBER}\s?{_UNIT}){{0,4}}"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

# A reset is a date in seconds, or milliseconds, of the Unix epoch if it is larger than any wait.
_EPOCH_MS = 1e11
_EPOCH_S = 1e9
_SECONDS_MAX = 1e15


@cache
def _parts() -> re.Pattern[str]:
    return re.compile(rf"({_NUMBER})\s?({_UNIT})", re.IGNORECASE)


@cache
def _fields() -> re.Pattern[str]:
    """A field of a body that states a wait: seconds, milliseconds by its name, or a duration."""
    return re.compile(
        r"(?<![a-z])(?P<name>retry[_-]?delay|retry[_-]?after(?:[_-]?(?:ms|seconds|secs|s))?"
        r"|estimated[_-]time)[\"']?\s{0,2}(?:[:=]|\{\s{0,2}seconds:)\s{0,2}[\"']?"
        rf"(?P<value>{_NUMBER}(?:ms|s)?)(?![\w.])",
        re.IGNORECASE,
    )


@cache
def _sentences() -> tuple[re.Pattern[str], ...]:
    about = r"(?:~|about\s|approximately\s|another\s)?"
    return (
        re.compile(
            r"\b(?:(?:try|retry|again|available|resets?)\s(?:again\s)?(?:in|after)"
            rf"|wait(?:\sfor)?)\s{about}({_SPAN})",
            re.IGNORECASE,
        ),
        re.compile(rf"\bretry[ -]after:?\s({_NUMBER})(?![\w.:/-])", re.IGNORECASE),
    )


def answered_at(headers: Mapping[str, str], now: float) -> float:
    """When the answer was given, in Unix seconds by the clock of the server that gave it, else ``now``.

    A wait until a date or an epoch time counts from there: our clock may be wrong by more than the wait.
    """
    at = _date(headers.get("date", ""))
    return now if at is None else at


def duration_s(text: str) -> float | None:
    """``"1m47.5s"``, ``"6ms"``, ``"12 hours"`` or a bare number of seconds; None if it is none."""
    try:
        return _sound(float(text))
    except ValueError:
        parts: list[tuple[str, str]] = _parts().findall(text)
    return _sound(sum(float(number) * _unit_s(unit) for number, unit in parts)) if parts else None


def header_wait_s(headers: Mapping[str, str], now: float) -> float | None:
    """The wait that ``retry-after-ms`` or ``retry-after`` states; names of headers in lower case.

    ``now`` is the Unix time in seconds, for a ``retry-after`` that is a date.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (wait := duration_s(headers.get(name, ""))) is not None:
            return wait / 1000
    if raw := headers.get("retry-after"):
        return _moment_s(raw, now)
    return None


def refill_wait_s(headers: Mapping[str, str], now: float) -> float | None:
    """The wait until the budgets that are used up are full again, by ``…ratelimit…reset…``.

    Where no header says what remains, the longest wait that is no quota's.
    """
    waits: list[float] = []
    used_up: list[float] = []
    for name, raw in headers.items():
        if "ratelimit" not in name or "reset" not in name:
            continue
        if (wait := _moment_s(raw, now)) is None:
            continue
        left = duration_s(headers.get(name.replace("reset", "remaining"), ""))
        (used_up if left == 0 else waits).append(wait)
    return max(used_up or [wait for wait in waits if wait <= QUOTA_WAIT_S], default=None)


def text_wait_s(text: str) -> float | None:
    """The wait a body or a message states, in seconds, or None."""
    if field := _fields().search(text):
        wait = duration_s(field["value"])
        millis = field["name"].lower().endswith("ms")
        return wait / 1000 if wait is not None and millis else wait
    for sentence in _sentences():
        if said := sentence.search(text):
            return duration_s(said[1])
    return None


def _moment_s(raw: str, now: float) -> float | None:
    """Seconds until what a header says: a number, a duration, an epoch time or a date."""
    raw = raw.strip()
    number = duration_s(raw) if "-" not in raw and "," not in raw else None
    if number is None:
        at = _date(raw)
        return None if at is None else max(0.0, at - now)
    if number > _EPOCH_MS:
        number /= 1000
    return max(0.0, number - now) if number > _EPOCH_S else number


def _date(raw: str) -> float | None:
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(raw)
        except (ValueError, TypeError, OverflowError):
            continue
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return None


def _unit_s(unit: str) -> float:
    unit = unit.lower()
    return 0.001 if unit.startswith(("ms", "milli")) else _SECONDS[unit[0]]


def _sound(seconds: float) -> float | None:
    return seconds if 0 <= seconds < _SECONDS_MAX else None  # not-a-number is neither
