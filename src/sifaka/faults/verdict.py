"""From evidence to a fault: the first that speaks decides, what follows may only narrow (floor 1).

Evidence is heard in a fixed order: our own errors and the classes of the exception chain, the
provider's codes and reasons, the HTTP status, finish reasons and the raw reply, and phrases only
last. Many of these are broad ("a bad request", "a server error"): later evidence may turn a broad
kind into one that :data:`NARROWER` lists for it, and nothing else. Phrases have one right less than
codes: they never make a fault look more curable than it was. A hopeless call that is taken for
a passing trouble is paid again and again; the opposite mistake costs one question.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec

from sifaka.errors import ChainError, ModelError
from sifaka.faults.evidence import LINKS_MAX, Evidence, attribute, chain, gather
from sifaka.faults.fault import Fault, told
from sifaka.faults.limits import billed, weigh_limits
from sifaka.faults.names import (
    class_verdict,
    code_verdict,
    finish_verdict,
    is_identifier,
    last_resort,
    number_verdict,
    saying_verdict,
    status_verdict,
)
from sifaka.faults.phrases import phrase_verdicts, plain, wrong_setting
from sifaka.faults.table import KINDS, Verdict
from sifaka.faults.waits import answered_at, header_wait_s, refill_wait_s, text_wait_s

__all__ = ["NARROWER", "classify"]

_SPECIFIC = frozenset(
    {
        "auth",
        "content_filter",
        "context_length",
        "invalid_request",
        "not_found",
        "out_of_memory",
        "permission",
        "quota_exhausted",
    }
)
_PASSING = frozenset({"overloaded", "rate_limit", "timeout"})

NARROWER: Mapping[str, frozenset[str]] = {
    "connection": _SPECIFIC | _PASSING | {"server_error", "truncated"},
    "server_error": _SPECIFIC | _PASSING | {"malformed_output", "truncated"},
    "invalid_request": _PASSING | _SPECIFIC - {"invalid_request"} | {"malformed_output", "truncated"},
    "context_length": frozenset({"rate_limit"}),
    "permission": frozenset({"auth", "content_filter", "quota_exhausted", "rate_limit"}),
    "auth": frozenset({"quota_exhausted"}),
    "rate_limit": frozenset({"overloaded", "quota_exhausted"}),
    "validation_failed": frozenset({"empty_output", "malformed_output", "truncated"}),
    "malformed_output": frozenset({"content_filter", "empty_output", "truncated"}),
    "empty_output": frozenset({"content_filter", "truncated"}),
}
"""What a broad kind may turn out to be when later evidence is heard; it holds no circle."""

# What a code says of something that was asked for, not of what happened.
_REFUSALS = ("invalid", "unsupported", "not supported", "unknown", "missing", "bad", "illegal", "malformed")

# Kinds where the time that a provider states means something.
_WAITING = _PASSING | {"connection", "quota_exhausted", "server_error"}


def classify(
    error: BaseException | str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    now: float | None = None,
) -> Fault:
    """What went wrong, from an exception or a bare text, and what is known of its response.

    ``body`` is the provider's answer, parsed or as text; ``now`` the Unix time in seconds, for
    waits that are stated as a date (default: the system's clock). Never raises; what cannot be
    recognised is of kind ``other``.
    """
    if isinstance(error, ChainError) and error.fault is not None:
        return error.fault
    if isinstance(error, BaseExceptionGroup):
        return _of_group(cast("BaseExceptionGroup[BaseException]", error), now)
    found = gather(error, status, headers, body)
    text = plain("\n".join([*(type(link).__name__ for link in found.links), found.raw]))
    verdict = _judge(found, text)
    own = _own_kind(found)
    if own is not None and own != verdict.kind:
        verdict = Verdict(own)
    wait = _wait_s(found, verdict.kind, time.time() if now is None else now)
    verdict = weigh_limits(verdict, found, text, wait)
    transient = verdict.hopeful and found.headers.get("x-should-retry", "").lower() != "false"
    return Fault(
        kind=verdict.kind,
        transient=transient,
        retry_after_s=wait,
        billed=verdict.billed or billed(verdict.kind, transient, found),
        status=next(iter(found.statuses), None),
        **told(error or found.raw.strip(), verdict.kind, found.links),
    )


def _of_group(group: BaseExceptionGroup[BaseException], now: float | None) -> Fault:
    """The fault of several at once: as curable as the most curable of them, else one that is known."""
    faults = [classify(each, now=now) for each in group.exceptions[:LINKS_MAX]]
    known = [fault for fault in faults if fault.kind != "other"] or faults
    chosen = next((fault for fault in known if fault.transient), known[0])
    return msgspec.structs.replace(chosen, **told(group, chosen.kind, tuple(chain(group))))


def _judge(found: Evidence, text: str) -> Verdict:
    verdict: Verdict | None = None
    for each in _firm(found):
        verdict = _heard(verdict, each)
    for each in _some(map(saying_verdict, found.sayings)):
        verdict = _heard_say(verdict, each)
    verdict = verdict or next(_some(map(number_verdict, found.numbers)), None)
    for each in _some(map(class_verdict, found.classes)):
        verdict = _heard_say(verdict, each)
    if wrong_setting(text):
        verdict = _heard_say(verdict, Verdict("invalid_request"))
    for each in _phrases(found, text):
        narrowed = _heard_say(verdict, each)
        if narrowed.kind == each.kind:
            return narrowed
        verdict = narrowed
    return verdict or Verdict("other")


def _own_kind(found: Evidence) -> str | None:
    """The kind that an error of our own carries: whoever raised it knew."""
    kinds = (link.kind for link in found.links if isinstance(link, ModelError))
    return next((kind for kind in kinds if kind in KINDS), None)


def _heard_say(so_far: Verdict | None, said: Verdict) -> Verdict:
    """The verdict after hearsay, which never makes a fault look more curable than it was."""
    if so_far is not None and said.hopeful and not so_far.hopeful:
        return so_far
    return _heard(so_far, said)


def _heard(so_far: Verdict | None, said: Verdict) -> Verdict:
    """The verdict after one more piece of evidence."""
    if so_far is None or said.kind in NARROWER.get(so_far.kind, ()):
        return said
    if said.kind == so_far.kind:
        return Verdict(
            so_far.kind,
            said.transient if so_far.transient is None else so_far.transient,
            said.billed if so_far.billed is None else so_far.billed,
        )
    return so_far


def _firm(found: Evidence) -> Iterator[Verdict]:
    """Classes, codes, statuses and finish reasons, in the order in which they count."""
    for link in found.links:
        yield from _of_link(link)
    yield from _some([class_verdict(*found.leading)])
    yield from _some(map(code_verdict, found.codes))
    yield from _some(map(_of_strange_code, found.codes))
    yield from _said_to_last(found)
    yield from _some(map(status_verdict, found.statuses))
    yield from _some(map(finish_verdict, found.finishes))


def _of_strange_code(code: str) -> Verdict | None:
    """What an unlisted code tells by its words, as ``endpoint_tpm_rate_limited`` does."""
    if code_verdict(code) is not None or not is_identifier(code):
        return None
    words = plain(code)
    verdict = next(phrase_verdicts(words), None)
    refused = any(word in words for word in _REFUSALS)  # unsupported_timeout is no timeout
    return None if verdict is not None and verdict.hopeful and refused else verdict


def _said_to_last(found: Evidence) -> Iterator[Verdict]:
    """What is lasting in messages of a word or two and in the last clause of a line.

    Nothing passing: ``Unknown parameter: timeout`` is no timeout.
    """
    sayings = _some(map(saying_verdict, (*found.sayings, found.last_clause)))
    return (verdict for verdict in sayings if not verdict.hopeful)


def _phrases(found: Evidence, text: str) -> Iterator[Verdict]:
    yield from phrase_verdicts(text)
    if found.empty_reply:
        yield Verdict("empty_output")
    yield from _some(last_resort(type(link).__name__) for link in found.links)


def _some(verdicts: Iterable[Verdict | None]) -> Iterator[Verdict]:
    return (verdict for verdict in verdicts if verdict is not None)


def _of_link(link: BaseException) -> Iterator[Verdict]:
    if isinstance(link, ModelError) and link.kind in KINDS:
        yield Verdict(str(link.kind))
        return  # its class says less
    for cls in type(link).__mro__:
        if verdict := class_verdict(cls.__name__, str(cls.__module__)):
            yield verdict
            break
    yield from _of_document(link)


def _of_document(link: BaseException) -> Iterator[Verdict]:
    """A JSON error that holds its document: whether that was empty, or ends where it fails."""
    doc, pos = attribute(link, "doc"), attribute(link, "pos")
    if not isinstance(doc, str) or not isinstance(pos, int):
        return
    if not doc.strip():
        yield Verdict("empty_output")
    elif pos >= len(doc.rstrip()):
        yield Verdict("truncated")


def _wait_s(found: Evidence, kind: str, now: float) -> float | None:
    """The wait the provider states, in seconds: by its headers, else its body or its sentence."""
    if kind not in _WAITING:
        return None
    if found.wait_s is not None:
        return found.wait_s
    now = answered_at(found.headers, now)
    wait = header_wait_s(found.headers, now)
    if wait is None:
        wait = text_wait_s(found.raw)
    if wait is None and kind == "rate_limit":
        wait = refill_wait_s(found.headers, now)
    return wait
