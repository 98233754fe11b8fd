"""The steps of a run as a table: what each operation runs, and where it leads (floor 5).

::

    initialization ─► pre_retrieval ─► [retrieval] ─► [generation] ─► generation ─► [validation]
    ─► validation ─► [critic_retrieval] ─► pre_criticism ─► [criticism] ─► criticism
    ─► the next iteration's [generation], or complete

Words in brackets are operations (what is done), the others are steps (checkpoints that are reached).
"""

from __future__ import annotations

from typing import NamedTuple

from sifaka.log.records import Operation, Position, Step
from sifaka.log.state import State

__all__ = ["OPERATION_TABLE", "Rule", "after_criticism", "after_validation"]


class Rule(NamedTuple):
    """One operation: the parts it runs (a group of the plan), the step it reaches, and what follows.

    ``results`` is where the state keeps what the parts returned; ``then`` is None where the state decides.
    """

    parts: str
    results: str
    reaches: Step
    then: Operation | None


OPERATION_TABLE: dict[Operation, Rule] = {
    "retrieval": Rule("model_retrievers", "documents", "pre_retrieval", "generation"),
    "generation": Rule("", "", "generation", "validation"),
    "validation": Rule("validators", "verdicts", "validation", None),
    "critic_retrieval": Rule("critic_retrievers", "critic_documents", "pre_criticism", "criticism"),
    "criticism": Rule("critics", "feedback", "criticism", None),
    "complete": Rule("", "", "complete", None),
}


def after_validation(state: State, *, critics: bool) -> Position:
    """Criticise, improve without criticism, or end.

    Criticism runs where its feedback can still be used (or ``critique_final`` asks for it), always or
    only after a failed validation (``always_apply_critics``).
    """
    options, at = state.options, state.position
    may_improve = at.iteration < options["max_improvement_iterations"]
    passed = state.accepted
    wanted = options["always_apply_critics"] or not passed
    if critics and wanted and (may_improve or options["critique_final"]):
        return Position("critic_retrieval", at.iteration)
    return _improve_or_end(state, improve=not passed)


def after_criticism(state: State) -> Position:
    """Improve where a verdict failed or a critic asks for more, or end."""
    asked = any(one.needs_improvement for one in state.feedback.values())
    return _improve_or_end(state, improve=asked or not state.accepted)


def _improve_or_end(state: State, *, improve: bool) -> Position:
    at = state.position
    if improve and at.iteration < state.options["max_improvement_iterations"]:
        return Position("generation", at.iteration + 1)
    return Position("complete", at.iteration)
