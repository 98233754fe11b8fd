"""Recovery actions as data: each strategy is a pure function from position to position (floor 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec

from sifaka.log.records import Operation, Position

__all__ = [
    "SKIPPABLE",
    "Move",
    "Observed",
    "RecoveryAction",
    "RecoveryStrategy",
    "action_key",
    "move",
]

SKIPPABLE: frozenset[Operation] = frozenset(("retrieval", "validation", "critic_retrieval", "criticism"))
"""Operations a part of which may be skipped; a text is never skipped."""


class RecoveryStrategy(Enum):
    """The six ways to go on."""

    RETRY_CURRENT_STEP = "retry_current_step"
    SKIP_TO_NEXT_STEP = "skip_to_next_step"
    RESTART_ITERATION = "restart_iteration"
    RESTART_FROM_GENERATION = "restart_from_generation"
    MODIFY_PARAMETERS = "modify_parameters"
    FULL_RESTART = "full_restart"


class Observed(msgspec.Struct, frozen=True):
    """What was seen of an action: it ``worked`` so often of so many times ``tried``; ``where``, in words."""

    where: str
    worked: int
    tried: int

    def __str__(self) -> str:
        return f"{self.worked} of {self.tried} {self.where}".rstrip()


class RecoveryAction(msgspec.Struct, frozen=True):
    """A strategy with what it sets: apply it with ``Chain.apply_recovery_action``.

    Attributes:
        strategy: which of the six ways.
        description: what would be done and why, in plain words.
        confidence: the estimated probability, 0 to 1, that the failed step then completes.
        parameters: settings that overlay the run's from then on.
        delay_s: what is waited first (seconds).
        applies_when: when this strategy typically helps, in words.
        evidence: what the confidence rests on, in words.
        counts: False where it only waits as the provider stated: such a wait uses up no allowance.
        interval: between which two values that probability lies, with probability 0.9.
        observed: how often it was seen to work, nearest context first.
        cost_usd: what the attempt is expected to cost (US dollars), work paid again included.
        seconds: how long it is expected to take, the delay included.
        keeps: the work that stays, in words.
        loses: the work or quality that is given up, in words; empty where nothing is.
        chosen_by: "ranking", or "exploration" where it comes first only so that more is learned of it.
        propensity: the probability with which it came first, for evaluating other rankings off-line.
    """

    strategy: RecoveryStrategy
    description: str
    confidence: float
    parameters: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    delay_s: float = 0.0
    applies_when: str = ""
    evidence: str = ""
    counts: bool = True
    interval: tuple[float, float] = (0.0, 1.0)
    observed: tuple[Observed, ...] = ()
    cost_usd: float = 0.0
    seconds: float = 0.0
    keeps: str = ""
    loses: str = ""
    chosen_by: str = "ranking"
    propensity: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence is {self.confidence}; it is a probability from 0 to 1")

    @property
    def key(self) -> str:
        """What its outcomes are counted under: the strategy and the names of what it sets."""
        return action_key(self.strategy.value, self.parameters)


def action_key(strategy: str, parameters: Mapping[str, Any], *, stated_wait: bool = False) -> str:
    """The name that outcomes of such actions are counted under.

    A retry after a wait that the provider stated is another action than a retry at a guess.
    """
    words = [strategy, *sorted(parameters)]
    return " ".join([*words, "after the stated wait"] if stated_wait else words)


class Move(msgspec.Struct, frozen=True):
    """Where a run goes on: ``sets_aside`` drops what the position and later ones had made."""

    to: Position
    sets_aside: bool = False
    skips: tuple[str, ...] = ()


def _stay(at: Position, _parts: Sequence[str]) -> Move:
    return Move(at)


def _skip(at: Position, parts: Sequence[str]) -> Move:
    return Move(at, skips=tuple(parts))


def _restart_iteration(at: Position, _parts: Sequence[str]) -> Move:
    start: Operation = "generation" if at.iteration else "retrieval"
    return Move(Position(start, at.iteration), sets_aside=True)


def _restart_from_generation(at: Position, _parts: Sequence[str]) -> Move:
    return Move(Position("generation", at.iteration, afresh=True), sets_aside=True)


def _full_restart(_at: Position, _parts: Sequence[str]) -> Move:
    return Move(Position("retrieval", 0, afresh=True), sets_aside=True)


_MOVES: dict[RecoveryStrategy, Callable[[Position, Sequence[str]], Move]] = {
    RecoveryStrategy.RETRY_CURRENT_STEP: _stay,
    RecoveryStrategy.SKIP_TO_NEXT_STEP: _skip,
    RecoveryStrategy.RESTART_ITERATION: _restart_iteration,
    RecoveryStrategy.RESTART_FROM_GENERATION: _restart_from_generation,
    RecoveryStrategy.MODIFY_PARAMETERS: _stay,
    RecoveryStrategy.FULL_RESTART: _full_restart,
}


def move(strategy: RecoveryStrategy, at: Position, parts: Sequence[str]) -> Move | None:
    """Where ``strategy`` leads from ``at``, where ``parts`` failed; None where it cannot be applied.

    * retry, modify: the same operation; what its other parts had answered is kept.
    * skip: the same operation without ``parts``; impossible for a generation.
    * restart_iteration: this iteration's text, verdicts and feedback are set aside; it begins again
      from the same draft (iteration 0: from retrieval).
    * restart_from_generation: the same, but the text is written afresh from the prompt and the
      documents that were retrieved, not from the earlier draft.
    * full_restart: everything is set aside, the documents too; what was paid stays counted.
    """
    if strategy is RecoveryStrategy.SKIP_TO_NEXT_STEP and at.operation not in SKIPPABLE:
        return None
    return _MOVES[strategy](at, parts)
