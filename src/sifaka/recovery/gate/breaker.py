"""A circuit breaker as a table: a state, an event and the time give the next state (floor 4).

Closed, it counts; open, nobody calls; half-open, one caller does, and what comes of that decides. A state is
a value of a few numbers that processes exchange: it knows no clock, no store and no thread.

=========  ======================================  ======================================================
closed     ``Counted``                             open, where it failed 5 times in a row or half of 10 calls
open       ``Counted``, ``Claimed``                stays as it is: those calls were made before
half-open  ``Claimed``                             the claimant's, where it is nobody's (or was for too long)
half-open  ``Probed`` "answered"                   closed
half-open  ``Probed`` "failed", by who claimed it  open, twice as long as before
half-open  ``Probed`` "neutral", by who claimed it half-open, nobody's
=========  ======================================  ======================================================
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from sifaka.faults import Fault

__all__ = [
    "Breaker",
    "BreakerSettings",
    "Claimed",
    "Counted",
    "Event",
    "Outcome",
    "Phase",
    "Probed",
    "calls_per_s",
    "outcome",
    "phase",
    "step",
]

Outcome = Literal["answered", "failed", "neutral"]
Phase = Literal["closed", "open", "half_open"]

SLOT_S = 5.0
"""Calls are counted by so many seconds."""
RECENT_SLOTS = 3
"""So many of them tell how many calls are made just now."""
TOO_FAR_S = 60.0
"""An opening that ends this much later than any can is none of ours, but a clock that was set back."""


class BreakerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When it opens and for how long; times in seconds.

    The shares and numbers are those that resilience4j and Envoy start with, or near them.
    """

    window_s: float = 60.0
    calls: int = 10
    share: float = 0.5
    in_a_row: int = 5
    open_s: float = 30.0
    open_max_s: float = 300.0
    probe_s: float = 60.0


class Breaker(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The state. Times are unix seconds; stored by position: new fields may only be added at the end.

    Attributes:
        slots: (number of the slot, calls, failures) of the last minute, oldest first.
        streak: how many calls in a row have failed.
        until: when an opening ends and the half-open time begins; 0 while closed.
        span_s: how long the last opening was to last.
        closed_at: when it was closed last.
        probe: who makes the one call of the half-open time, or "".
        probe_until: when that call goes to somebody else, if nothing was heard of it.
    """

    slots: tuple[tuple[int, int, int], ...] = ()
    streak: int = 0
    until: float = 0.0
    span_s: float = 0.0
    closed_at: float = 0.0
    probe: str = ""
    probe_until: float = 0.0


class Counted(NamedTuple):
    """Calls were made: how many were answered, how many failed, and how many failed since the last answer."""

    answered: int
    failed: int
    since_answer: int


class Claimed(NamedTuple):
    """``who`` would make the one call of the half-open time. The name is used for one call only."""

    who: str


class Probed(NamedTuple):
    """What came of that call."""

    who: str
    outcome: Outcome


Event = Counted | Claimed | Probed

_FAILED = frozenset(("overloaded", "server_error", "timeout", "connection", "truncated"))
_ANSWERED = frozenset(
    ("malformed_output", "empty_output", "truncated", "content_filter", "validation_failed", "context_length")
)


def outcome(fault: Fault | None) -> Outcome:
    """What a call says of the model's health. A text that is no good was an answer all the same.

    A rate limit with a stated wait is a provider that works and says when: it raises the common floor and is
    no failure. One that states nothing is counted, for nothing else would tell the others. A key that is not
    accepted, or a request that is refused, is the caller's own and says nothing.
    """
    if fault is None:
        return "answered"
    if fault.transient and fault.kind in _FAILED:
        return "failed"
    if fault.transient and fault.kind == "rate_limit":
        return "failed" if fault.retry_after_s is None else "neutral"
    return "answered" if fault.kind in _ANSWERED else "neutral"


def phase(state: Breaker, now: float, settings: BreakerSettings) -> Phase:
    """Closed, open or half-open."""
    until = _sane(state, now, settings).until
    if not until:
        return "closed"
    return "open" if now < until else "half_open"


def step(state: Breaker, event: Event, now: float, settings: BreakerSettings) -> Breaker:
    """The state after ``event``, at ``now`` (unix seconds)."""
    state = _sane(state, now, settings)
    match event:
        case Counted():
            return state if state.until else _counted(state, event, now, settings)
        case Claimed(who):
            return _claimed(state, who, now, settings)
        case Probed(who, found):
            return _probed(state, who, found, now, settings)


def calls_per_s(state: Breaker, now: float) -> float:
    """How many calls a second were answered or failed of late."""
    first = int(now // SLOT_S) - RECENT_SLOTS + 1
    return sum(calls for slot, calls, _ in state.slots if slot >= first) / max(1.0, now - first * SLOT_S)


def _sane(state: Breaker, now: float, settings: BreakerSettings) -> Breaker:
    most_s = settings.open_max_s + TOO_FAR_S
    return state if 0.0 <= state.until <= now + most_s else Breaker()


def _counted(state: Breaker, event: Counted, now: float, settings: BreakerSettings) -> Breaker:
    here = int(now // SLOT_S)
    first = here - int(settings.window_s // SLOT_S) + 1
    slots = {slot: (calls, failed) for slot, calls, failed in state.slots if first <= slot <= here}
    calls, failed = slots.get(here, (0, 0))
    slots[here] = (calls + event.answered + event.failed, failed + event.failed)
    streak = event.since_answer if event.answered else state.streak + event.failed
    calls = sum(one[0] for one in slots.values())
    failed = sum(one[1] for one in slots.values())
    often = calls >= settings.calls and failed >= settings.share * calls
    if event.failed and (often or streak >= settings.in_a_row):  # no answer opens it, nor time that passes
        return _opened(state, now, settings)
    known = tuple((slot, *counts) for slot, counts in sorted(slots.items()))
    return msgspec.structs.replace(state, slots=known, streak=streak)


def _opened(state: Breaker, now: float, settings: BreakerSettings) -> Breaker:
    """Open: twice as long as the last time where that has not held for as much as a minute."""
    again = bool(state.span_s) and 0.0 <= now - state.closed_at < settings.window_s
    span_s = min(settings.open_max_s, 2 * state.span_s) if again else settings.open_s
    return Breaker(until=now + span_s, span_s=span_s, closed_at=state.closed_at)


def _claimed(state: Breaker, who: str, now: float, settings: BreakerSettings) -> Breaker:
    if not state.until or now < state.until:
        return state
    held_s = state.probe_until - now if state.probe else 0.0
    if 0.0 < held_s <= settings.probe_s + TOO_FAR_S:
        return state
    return msgspec.structs.replace(state, probe=who, probe_until=now + settings.probe_s)


def _probed(state: Breaker, who: str, found: Outcome, now: float, settings: BreakerSettings) -> Breaker:
    """An answer closes it, also one that came late; for the rest only the present claimant counts."""
    if not state.until:
        return state
    if found == "answered":
        return Breaker(span_s=state.span_s, closed_at=now)
    if state.probe != who:
        return state
    if found == "neutral":
        return msgspec.structs.replace(state, probe="", probe_until=0.0)
    span_s = min(settings.open_max_s, 2 * max(state.span_s, settings.open_s / 2))
    return Breaker(until=now + span_s, span_s=span_s, closed_at=state.closed_at)
