"""The contestants: ours, ours with something left out, and four that others use or would write first.

All decide in the same engine with the same limits, and are offered the same actions. Only what they believe, and what
they prefer, is their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.recovery.candidates import Candidate, candidates
from sifaka.recovery.costs import index_usd, work_of
from sifaka.recovery.counts import Row
from sifaka.recovery.evidence import Attempt, Evidence
from sifaka.recovery.knowledge import Tuning
from sifaka.recovery.situation import Situation
from sifaka.storage.cells import SharedCells
from sifaka.testing.simulation import Simulation
from sifaka.testing.simulation.playing import Policy
from sifaka.testing.simulation.world import World

__all__ = ["ABLATIONS", "CONTESTANTS", "ORACLE", "OURS", "SIMILAR", "Contestant", "Maker"]

_S = RecoveryStrategy
Maker = Callable[[Simulation, World], Policy]
FOREVER_S = 1e12


# Ours ----------------------------------------------------------------------------------------


def ours(*, similar: bool = False, tuning: Tuning | None = None) -> Maker:
    """The library's own, as a chain uses it on a plain store, or on one that finds similar cases."""

    def make(simulation: Simulation, world: World) -> Policy:
        cells = SharedCells(simulation.storage.storage)
        search: Any = AtOnce() if similar else None
        return Evidence(cells, search, tuning=tuning or Tuning())

    return make


class AtOnce:
    """Similar cases without the guard's thread and time limit, which depend on the machine's load."""

    def __init__(self) -> None:
        from sifaka.storage.similarity.embedded import EmbeddedSimilarity

        self._similarity = EmbeddedSimilarity()

    def nearest(self, case: Any, limit: int) -> Any:
        from sifaka.storage.similarity.guarded import Found

        return Found(self._similarity.nearest(case, limit), "")

    def add(self, cases: Any) -> str:
        self._similarity.add(cases)
        return ""


# Others' -------------------------------------------------------------------------------------


class Constants:
    """Fixed confidences in the order in which the original description lists its strategies.

    It names no numbers but one (0.8, for a changed parameter), and says which errors call for other parameters:
    for those the change comes first. What has failed is offered again.
    """

    ORDER = (
        (_S.RETRY_CURRENT_STEP, 0.8),
        (_S.SKIP_TO_NEXT_STEP, 0.7),
        (_S.RESTART_ITERATION, 0.6),
        (_S.RESTART_FROM_GENERATION, 0.5),
        (_S.MODIFY_PARAMETERS, 0.4),
        (_S.FULL_RESTART, 0.3),
    )
    MODIFIED_FIRST = ("timeout", "out_of_memory", "context_length", "truncated", "malformed_output")

    def rank(self, at: Situation) -> list[RecoveryAction]:
        chances = dict(self.ORDER)
        if at.fault.kind in self.MODIFIED_FIRST:
            chances[_S.MODIFY_PARAMETERS] = 0.85
        found, _ = candidates(at)
        offered = [_action(one, chances[one.strategy]) for one in found]
        return sorted(offered, key=lambda one: -one.confidence)

    def learn(self, chain_id: str, attempts: Iterable[Attempt]) -> None:
        """Its confidences are constants."""


class Tenacity:
    """Retry whatever it was, with the waits of tenacity's exponential backoff, until the limit; then give up."""

    def __init__(self) -> None:
        from tenacity import RetryCallState, wait_exponential

        self._wait = wait_exponential(multiplier=1, max=60)
        self._state: Any = RetryCallState

    def rank(self, at: Situation) -> list[RecoveryAction]:
        state = self._state(retry_object=None, fn=None, args=(), kwargs={})
        state.attempt_number = len(at.tried) + 1
        wait = float(self._wait(state))
        return [RecoveryAction(_S.RETRY_CURRENT_STEP, "try again", 0.8, delay_s=wait)]

    def learn(self, chain_id: str, attempts: Iterable[Attempt]) -> None:
        """It learns nothing."""


class RetryThenRestart:
    """Retry as often as the limit allows, then write the text again, then begin the whole run again."""

    def rank(self, at: Situation) -> list[RecoveryAction]:
        again = _S.RESTART_ITERATION if at.position.operation == "generation" else _S.RESTART_FROM_GENERATION
        order = (_S.RETRY_CURRENT_STEP, again, _S.FULL_RESTART)
        return [RecoveryAction(one, one.value, 0.5) for one in order]

    def learn(self, chain_id: str, attempts: Iterable[Attempt]) -> None:
        """It learns nothing."""


class FlatBeta:
    """Counts by context and action alone, each from an even prior; ordered by the same index of the same costs."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], tuple[int, int]] = {}

    def rank(self, at: Situation) -> list[RecoveryAction]:
        found, _ = candidates(at)
        weighed: list[tuple[float, RecoveryAction]] = []
        for one in found:
            tried, worked = self._counts.get((*self._where(at), one.key), (0, 0))
            chance = (worked + 1) / (tried + 2)
            cost = work_of(one.strategy, at, switches=False, seen=Row())
            worth = at.value_usd * (1 - one.loss)
            index = index_usd(chance, cost.total_usd(at.usd_per_s), worth)
            if index >= 0:
                weighed.append((index, _action(one, chance)))
        weighed.sort(key=lambda pair: -pair[0])
        return [action for _, action in weighed]

    @staticmethod
    def _where(at: Situation) -> tuple[str, ...]:
        return at.label, at.fault.kind, at.position.operation, at.asked_model

    def learn(self, chain_id: str, attempts: Iterable[Attempt]) -> None:
        for one in attempts:
            recovery = one.recovery
            key = " ".join([recovery.strategy, *sorted(recovery.parameters)])
            where = (one.label, recovery.error_kind, recovery.operation, one.model, key)
            tried, worked = self._counts.get(where, (0, 0))
            self._counts[where] = (tried + 1, worked + one.success)


def _action(one: Candidate, chance: float) -> RecoveryAction:
    return RecoveryAction(one.strategy, one.why, min(1.0, chance), parameters=one.parameters)


class Contestant(NamedTuple):
    """Who plays, under which name."""

    name: str
    make: Maker


def _plain(kind: Callable[[], Any]) -> Maker:
    return lambda simulation, world: kind()


ORACLE = "oracle"
OURS = "sifaka"

CONTESTANTS = (
    Contestant(ORACLE, lambda simulation, world: world.oracle_policy()),
    Contestant(OURS, ours()),
    Contestant("constants", _plain(Constants)),
    Contestant("always retry (tenacity)", _plain(Tenacity)),
    Contestant("retry, then restart", _plain(RetryThenRestart)),
    Contestant("flat Beta", _plain(FlatBeta)),
)

_REMEMBER = {"half_life_s": FOREVER_S, "memory_here": math.inf, "memory_wide": math.inf}

ABLATIONS = (
    Contestant("without the ladder", ours(tuning=Tuning(ladder=False))),
    Contestant("without forgetting", ours(tuning=Tuning(**_REMEMBER))),
    Contestant("without depths", ours(tuning=Tuning(depths=False))),
    Contestant("without exploration", ours(tuning=Tuning(explore=0.0))),
)

SIMILAR = Contestant("with similar cases", ours(similar=True))
"""Dear to play: a search among all cases at each fault. It plays in the first few seeds alone."""
