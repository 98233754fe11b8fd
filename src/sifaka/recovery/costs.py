"""What an attempt costs, and in which order attempts cost least: Weitzman's index (floor 4).

An attempt costs its calls, its seconds (each worth some US dollars), and the work it has done again. Of
attempts that succeed with probability p, cost c and give a result worth v, the one with the highest index
v - c/p comes first, and none is made whose index is below zero (Weitzman, "Optimal search for the best
alternative", Econometrica 47, 1979). Equal v makes that an order by falling p/c.
"""

from __future__ import annotations

from typing import NamedTuple

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


def work_of(strategy: RecoveryStrategy, at: Situation, *, switches: bool, seen: Row) -> Cost:
    """The expected cost of an attempt: what such attempts took; where few did, what this run's calls took.

    ``switches`` says that another model is asked, for which nobody has to wait. ``seen`` is what was counted.
    """
    usd, seconds = _of_this_run(strategy, at)
    usd = (usd * STRENGTH + seen.cost_usd) / (STRENGTH + seen.tried)
    seconds = (seconds * STRENGTH + seen.seconds) / (STRENGTH + seen.tried)
    wait_s = 0.0 if switches else expected_wait_s(strategy, at)
    return Cost(usd, seconds + wait_s, wait_s)


def _of_this_run(strategy: RecoveryStrategy, at: Situation) -> tuple[float, float]:
    """US dollars and seconds, by this run's own averages: of a call, of an iteration, or of all so far."""
    if strategy is _S.SKIP_TO_NEXT_STEP:
        return 0.0, SECONDS_MIN
    call_usd = at.spent_usd / at.calls if at.calls else 0.0
    known_s = at.failed_s or (at.active_s / at.calls if at.calls else SECONDS_UNKNOWN)
    call_s = max(SECONDS_MIN, known_s)
    iterations = at.position.iteration + 1
    redone = {
        _S.RESTART_ITERATION: 1 / iterations,
        _S.RESTART_FROM_GENERATION: 1 / iterations,
        _S.FULL_RESTART: 1.0,
    }.get(strategy, 0.0)
    all_s = max(at.active_s, max(at.calls, CALLS_AN_ITERATION * iterations) * SECONDS_MIN)
    return call_usd + at.spent_usd * redone, call_s + all_s * redone


class _Mean:
    """In place of a generator: the mean of what it would draw."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def expected_wait_s(strategy: RecoveryStrategy, at: Situation) -> float:
    """How long is waited before such an attempt, in seconds: as the provider states, else on average."""
    if not at.fault.transient or strategy not in (_S.RETRY_CURRENT_STEP, _S.MODIFY_PARAMETERS):
        return 0.0
    return backoff_s(at.fault, len(at.tried) + 1, _Mean())
