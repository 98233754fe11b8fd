"""A fault: what went wrong, in a form that can be stored, compared and told to people (floor 1).

It holds no exception and no secret. Its signature is equal for equal failures, whatever numbers,
ids and quoted values their messages carry, on every machine and in every process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TypedDict

import msgspec

from sifaka.faults.evidence import says
from sifaka.faults.redaction import redact
from sifaka.faults.table import row

__all__ = ["Fault", "describe", "signature", "told"]

_MESSAGE_CHARS_MAX = 2_000
_CAUSE_CHARS_MAX = 500
_MASKED_CHARS_MAX = 500


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """One failure. It is stored by position: new fields may only be added at the end.

    Attributes:
        kind: one of :data:`sifaka.faults.KINDS`.
        transient: whether the same call may succeed later, unchanged.
        retry_after_s: the wait the provider asks for, in seconds from when it failed, or None.
        billed: what it may have cost: ``"no"``, ``"maybe"``, ``"partly"`` or ``"yes"``.
        signature: 16 hex digits, equal for equal failures.
        error_class: the exception's class without its module; empty for a text that names none.
        message: what it said, without secrets, at most 2,000 characters.
        causes: the chain of exceptions, outermost first, as ``"Class: message"``, at most eight.
        status: the HTTP status, or None.
    """

    kind: str
    transient: bool
    retry_after_s: float | None
    billed: str
    signature: str
    error_class: str
    message: str
    causes: tuple[str, ...]
    status: int | None


class Told(TypedDict):
    """The fields of a fault that repeat what the error says of itself."""

    signature: str
    error_class: str
    message: str
    causes: tuple[str, ...]


def told(error: BaseException | str, kind: str, links: Sequence[BaseException]) -> Told:
    """What an error says of itself, without secrets. ``links`` is its chain, outermost first."""
    if isinstance(error, str):
        named = _leading_class().match(error)
        name, message = named[1] if named else "", _shown(error, _MESSAGE_CHARS_MAX)
    else:
        name, message = type(error).__name__, _shown(says(error), _MESSAGE_CHARS_MAX)
    return Told(
        signature=signature(kind, name, message),
        error_class=name,
        message=message,
        causes=tuple(f"{type(link).__name__}: {_shown(says(link), _CAUSE_CHARS_MAX)}" for link in links),
    )


def signature(kind: str, error_class: str, message: str) -> str:
    """16 hex digits of the kind, the class and the message without its changeable parts."""
    from hashlib import blake2b

    masked = message[:_MASKED_CHARS_MAX]
    for pattern, replacement in _masks():
        masked = pattern.sub(replacement, masked)
    text = "\0".join((kind, error_class, masked.strip().lower()))
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def describe(fault: Fault) -> str:
    """One plain sentence: why it failed, the HTTP status and the wait where they are known."""
    known = row(fault.kind, fault.transient)
    why = known.why[0].upper() + known.why[1:]
    facts = [f"HTTP {fault.status}"] if fault.status is not None else []
    facts += [fault.error_class] if fault.kind == "other" and fault.error_class else []
    wait = fault.retry_after_s
    asks = "" if wait is None else f"; it asks to wait {_span(wait)}"
    known_facts = f" ({', '.join(facts)})" if facts else ""
    return f"{why}{known_facts}{asks}."


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _shown(text: str, chars_max: int) -> str:
    """The beginning of a text, redacted before it is cut, so that no cut hides what a key is."""
    text = redact(text[: 10 * _MESSAGE_CHARS_MAX]).encode("utf-8", "replace").decode()
    return text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"


@cache
def _leading_class() -> re.Pattern[str]:
    return re.compile(
        r"\s*(?:\w{1,60}\.){0,6}([A-Z]\w{1,60}(?:Error|Exception|Timeout|Exceeded|Exhausted))\b"
    )


@cache
def _masks() -> tuple[tuple[re.Pattern[str], str], ...]:
    return (
        (re.compile(r"\b\w{1,10}://[^\s\"'<>)\]}]+"), "<url>"),
        # a quoted value, but not a quoted name before a colon
        (re.compile(r"(?<!\w)([\"'`])(?:(?!\1)[^\n]){0,80}\1(?!\w|\s?:)"), "<value>"),
        (re.compile(r"(?<![\w-])[\w-]*\d[\w-]*(?:[.,:]\d[\w-]*)*"), "<n>"),
        (re.compile(r"\b[0-9a-fA-F]{8,}\b"), "<n>"),
        (re.compile(r"\s+"), " "),
    )
