"""What all processes of a store know of one provider: breakers, paces and the retry budget (floor 4).

It is one small value in a shared cell. Processes hand in *tallies* of what they saw, and :func:`merged` is
the pure function that adds them. A value that cannot be read is begun anew: it is worth some minutes at most.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from sifaka.recovery.gate import breaker, pace, retries
from sifaka.recovery.gate.breaker import Breaker, BreakerSettings, Counted, Probed
from sifaka.recovery.gate.pace import Pace, PaceSettings
from sifaka.recovery.gate.retries import RetryBudget, RetrySettings

__all__ = [
    "ModelLimits",
    "ProviderLimits",
    "Settings",
    "Tally",
    "decoded",
    "encoded",
    "merged",
    "rejoined",
    "replaced",
]

IDLE_S = 3600.0
"""A model that nobody has called for so long is forgotten."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of the three shared limits."""

    breaker: BreakerSettings = BreakerSettings()
    pace: PaceSettings = PaceSettings()
    retries: RetrySettings = RetrySettings()


class ModelLimits(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of one model; ``used``: when it was called last (unix seconds)."""

    breaker: Breaker = Breaker()
    pace: Pace = Pace()
    used: float = 0.0


class ProviderLimits(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of a provider: its models by name, and its retry budget."""

    models: dict[str, ModelLimits] = {}
    retries: RetryBudget = RetryBudget()

    def model(self, name: str) -> ModelLimits:
        """What is known of one of its models."""
        return self.models.get(name) or _UNKNOWN


class Tally(NamedTuple):
    """What one process saw of one model since it told the others last.

    ``wait_until`` is the latest stated wait (unix seconds), ``probes`` what came of half-open calls.
    """

    calls: int = 0
    answered: int = 0
    failed: int = 0
    since_answer: int = 0
    wait_until: float = 0.0
    probes: tuple[Probed, ...] = ()

    def plus(self, later: Tally) -> Tally:
        """Both, in this order."""
        return Tally(
            self.calls + later.calls,
            self.answered + later.answered,
            self.failed + later.failed,
            later.since_answer if later.answered else self.since_answer + later.failed,
            max(self.wait_until, later.wait_until),
            self.probes + later.probes,
        )


_UNKNOWN = ModelLimits()
_decoder = msgspec.msgpack.Decoder(ProviderLimits)
encoded = msgspec.msgpack.Encoder().encode


def decoded(value: bytes) -> ProviderLimits:
    """The value of a cell; of one that is empty or cannot be read: nothing is known."""
    try:
        return _decoder.decode(value) if value else ProviderLimits()
    except (msgspec.DecodeError, ValueError):
        return ProviderLimits()


def merged(known: ProviderLimits, name: str, tally: Tally, now: float, settings: Settings) -> ProviderLimits:
    """What is known once ``tally``, of the model ``name``, is added at ``now`` (unix seconds)."""
    old = known.model(name)
    state, schedule = old.breaker, old.pace
    if tally.answered or tally.failed:
        counted = Counted(tally.answered, tally.failed, tally.since_answer)
        state = breaker.step(state, counted, now, settings.breaker)
    for probed in tally.probes:
        was_closed = not state.until
        state = breaker.step(state, probed, now, settings.breaker)
        if not (was_closed or state.until):
            schedule = pace.after_break(schedule, now, settings.pace)
    if tally.wait_until:
        recent = breaker.calls_per_s(state, now)
        schedule = pace.after_wait(schedule, tally.wait_until, now, recent, settings.pace)
    known = replaced(known, name, ModelLimits(state, schedule, now))
    budget = retries.calls_made(known.retries, tally.calls, now, settings.retries)
    return msgspec.structs.replace(known, retries=budget)


def replaced(known: ProviderLimits, name: str, model: ModelLimits) -> ProviderLimits:
    """The same with another knowledge of one model."""
    alive = {one: limits for one, limits in known.models.items() if model.used - limits.used < IDLE_S}
    return msgspec.structs.replace(known, models={**alive, name: model})


def rejoined(known: ProviderLimits, own: ProviderLimits) -> ProviderLimits:
    """What the others know, with what this process found out on its own: the later news count."""
    for name, mine in own.models.items():
        theirs = known.model(name)
        state = mine.breaker if _changed_at(mine.breaker) > _changed_at(theirs.breaker) else theirs.breaker
        schedule = mine.pace if mine.pace.start > theirs.pace.start else theirs.pace
        used = max(mine.used, theirs.used)
        known = msgspec.structs.replace(
            known, models={**known.models, name: ModelLimits(state, schedule, used)}
        )
    return known


def _changed_at(state: Breaker) -> float:
    """When it was opened or closed last."""
    return state.until - state.span_s if state.until else state.closed_at
