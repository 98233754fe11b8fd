"""What an attempt costs, and in which order attempts cost least: Weitzman's index (floor 4).

An attempt costs its calls, its seconds (each worth some US dollars), and the work it has done again. Of
attempts that succeed with probability p, cost c and give a result worth v, the one with the highest index
v - c/p comes first, and none is made whose index is below zero (Weitzman, "Optimal search for the best
alternative", Econometrica 47, 1979). Equal v makes that an order by falling p/c.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sifaka.recovery.actions import RecoveryStrategy
from sifaka.recovery.counts import Row
from sifaka.recovery.limits import backoff_s
from sifaka.recovery.posterior import STRENGTH
from sifaka.recovery.situation import Situation

__all__ = ["Cost", "expected_wait_s", "index_usd", "work_of"]

_S = RecoveryStrategy

SECONDS_MIN = 1.0
"""A call is thought to take so long at least: none is so quick that trying costs nothing."""
SECONDS_UNKNOWN = 5.0
"""How long a call is thought to take where nothing is known."""
CALLS_AN_ITERATION = 3
"""How many calls an iteration is thought to take where nothing is known: a text, a verdict, a criticism."""


NOTHING_SET: Mapping[str, Any] = MappingProxyType({})
NOT_SEEN = Row()


class Cost(NamedTuple):
    """What an attempt is expected to cost; ``wait_s`` is the part of ``seconds`` that is waited first."""

    usd: float
    seconds: float
    wait_s: float = 0.0

    def total_usd(self, usd_per_s: float) -> float:
        """Money and time together, in US dollars."""
        return self.usd + self.seconds * usd_per_s


def index_usd(probability: float, cost_usd: float, worth_usd: float) -> float:
    """Weitzman's index of an attempt, in US dollars: what it would have to be worth to do without it."""
    return worth_usd - cost_usd / max(probability, 1e-6)


def work_of(
    strategy: RecoveryStrategy,
    at: Situation,
    *,
    switches: bool = False,
    parameters: Mapping[str, Any] = NOTHING_SET,
    seen: Row = NOT_SEEN,
    chance: float = 0.5,
) -> Cost:
    """The expected cost of an attempt: what such attempts took; where few did, what this run's calls took.

    An attempt that fails may take far longer than one that works, so its ``chance`` counts. ``switches`` says
    that another model is asked, ``parameters`` are what is set, ``seen`` is what was counted of such
    attempts.
    """
    again_usd, again_s = _done_again(strategy, at)
    works_s, fails_s = _seconds_of_a_call(strategy, at, parameters)
    call_usd = at.spent_usd / at.calls if at.calls and strategy is not _S.SKIP_TO_NEXT_STEP else 0.0
    usd = again_usd + call_usd
    failed = seen.tried - seen.worked
    seen_usd, seen_s = seen.cost_usd - seen.worked_usd, seen.seconds - seen.worked_s
    works = _blended((usd, again_s + works_s), (seen.worked_usd, seen.worked_s), seen.worked)
    fails = _blended((usd, again_s + fails_s), (seen_usd, seen_s), failed)
    usd, seconds = (chance * one + (1 - chance) * other for one, other in zip(works, fails, strict=True))
    wait_s = 0.0 if switches else expected_wait_s(strategy, at)
    return Cost(usd, seconds + wait_s, wait_s)


def _blended(guess: tuple[float, float], seen: tuple[float, float], count: float) -> tuple[float, float]:
    """Means of what was seen, with the guess for as much as a prior is worth."""
    usd, seconds = (
        (one * STRENGTH + other) / (STRENGTH + count) for one, other in zip(guess, seen, strict=True)
    )
    return usd, seconds


def _seconds_of_a_call(
    strategy: RecoveryStrategy, at: Situation, parameters: Mapping[str, Any]
) -> tuple[float, float]:
    """How long a call takes where it works, and where it fails, by what this run has seen."""
    if strategy is _S.SKIP_TO_NEXT_STEP:
        return SECONDS_MIN, SECONDS_MIN
    works = _worked_s(at) / at.calls if at.calls else at.failed_s or SECONDS_UNKNOWN
    fails = at.failed_s or works
    if at.fault.kind == "timeout":
        fails = float(parameters.get("timeout_s", fails))  # it fails when that is over
    return max(SECONDS_MIN, works), max(SECONDS_MIN, fails)


def _worked_s(at: Situation) -> float:
    """How long the run has worked, what failed at this step left out."""
    return max(0.0, at.active_s - at.failed_s * (1 + len(at.tried)))


def _done_again(strategy: RecoveryStrategy, at: Situation) -> tuple[float, float]:
    """The work that is done again before the step is tried: US dollars and seconds."""
    iterations = at.position.iteration + 1
    share = {
        _S.RESTART_ITERATION: 1 / iterations,
        _S.RESTART_FROM_GENERATION: 1 / iterations,
        _S.FULL_RESTART: 1.0,
    }.get(strategy, 0.0)
    least_s = max(at.calls, CALLS_AN_ITERATION * iterations) * SECONDS_MIN
    return at.spent_usd * share, max(_worked_s(at), least_s) * share


class _Mean:
    """In place of a generator: the mean of what it would draw."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def expected_wait_s(strategy: RecoveryStrategy, at: Situation) -> float:
    """How long is waited before such an attempt, in seconds: as the provider states, else on average."""
    if not at.fault.transient or strategy not in (_S.RETRY_CURRENT_STEP, _S.MODIFY_PARAMETERS):
        return 0.0
    return backoff_s(at.fault, len(at.tried) + 1, _Mean())
