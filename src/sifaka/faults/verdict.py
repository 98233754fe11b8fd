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
from sifaka.faults.names import (
    class_verdict,
    code_verdict,
    finish_verdict,
    is_hard_quota,
    last_resort,
    status_verdict,
)
from sifaka.faults.phrases import hard_quota, per_minute, phrase_verdicts, plain, too_big
from sifaka.faults.table import KINDS, Verdict, row
from sifaka.faults.waits import QUOTA_WAIT_S, header_wait_s, refill_wait_s, text_wait_s

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
    verdict = _weigh_limits(verdict, found, text, wait)
    transient = verdict.hopeful and found.headers.get("x-should-retry", "").lower() != "false"
    return Fault(
        kind=verdict.kind,
        transient=transient,
        retry_after_s=wait,
        billed=verdict.billed or _billed(verdict.kind, transient, found),
        status=next(iter(found.statuses), None),
        **told(error or found.raw.strip(), verdict.kind, found.links),
    )


def _of_group(group: BaseExceptionGroup[BaseException], now: float | None) -> Fault:
    """The fault of several failures at once: as curable as the most curable of them."""
    faults = [classify(each, now=now) for each in group.exceptions[:LINKS_MAX]]
    chosen = next((fault for fault in faults if fault.transient), faults[0])
    return msgspec.structs.replace(chosen, **told(group, chosen.kind, tuple(chain(group))))


def _judge(found: Evidence, text: str) -> Verdict:
    verdict: Verdict | None = None
    for each in _firm(found):
        verdict = _heard(verdict, each)
    for each in _some(map(class_verdict, found.classes)):
        verdict = _heard_say(verdict, each)
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
    yield from _some(map(code_verdict, found.codes))
    yield from _some(map(status_verdict, found.statuses))
    yield from _some(map(finish_verdict, found.finishes))


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
    wait = header_wait_s(found.headers, now)
    if wait is None:
        wait = text_wait_s(found.raw)
    if wait is None and kind == "rate_limit":
        wait = refill_wait_s(found.headers, now)
    return wait


def _weigh_limits(verdict: Verdict, found: Evidence, text: str, wait: float | None) -> Verdict:
    """A limit is a rate if a short wait cures it, a quota if only a long one or money does."""
    long = wait is not None and wait > QUOTA_WAIT_S
    if verdict.kind == "rate_limit":
        if long:
            return Verdict("quota_exhausted")
        return Verdict("rate_limit", transient=False) if too_big(text) else verdict
    if verdict.kind == "quota_exhausted" and not _is_hard(found, text):
        short = wait is not None and not long
        return Verdict("rate_limit") if short or per_minute(text) else verdict
    return verdict


def _is_hard(found: Evidence, text: str) -> bool:
    names = (*(type(link).__name__ for link in found.links), *found.codes, *found.classes)
    return 402 in found.statuses or any(map(is_hard_quota, names)) or hard_quota(text)


def _billed(kind: str, transient: bool, found: Evidence) -> str:
    """What the call cost where the verdict itself does not say; see :data:`BILLED`."""
    status = next(iter(found.statuses), 0)
    answered = kind in ("truncated", "malformed_output", "empty_output", "validation_failed")
    refused = (400 <= status < 500 and kind != "timeout") or status in (503, 529)
    if found.unsent:
        return "no"
    if (found.in_stream or 200 <= status < 300) and not answered:
        return "yes" if kind == "content_filter" else "partly"
    return "no" if refused else row(kind, transient).billed
