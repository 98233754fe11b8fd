"""A checkpoint: the fold of a log up to a named step, in the shape its readers know (floor 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from sifaka.log.records import Reached, Record
from sifaka.log.state import State
from sifaka.thought import Thought

__all__ = ["ChainCheckpoint", "checkpoint_of", "checkpoints"]


class ChainCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run at one step.

    ``current_step`` is one of the seven named steps; ``recovery_point`` is the operation a resume goes
    on with. ``performance_data["total_time"]`` is the seconds spent in this step alone; ``cost_usd``,
    ``calls``, ``input_tokens`` and ``output_tokens`` are the run's so far.
    """

    checkpoint_id: str
    chain_id: str
    timestamp: datetime
    current_step: str
    iteration: int
    thought: Thought
    performance_data: dict[str, Any]
    recovery_point: str
    completed_validators: list[str]
    completed_critics: list[str]
    metadata: dict[str, Any]


def checkpoint_of(state: State, reached: Reached, thought: Thought) -> ChainCheckpoint:
    """The checkpoint that ``reached``, the record just folded into ``state``, stands for."""
    totals = state.totals
    return ChainCheckpoint(
        checkpoint_id=f"{state.chain_id}:{state.next_seq - 1}",
        chain_id=state.chain_id,
        timestamp=datetime.fromtimestamp(reached.at, UTC),
        current_step=reached.step,
        iteration=reached.iteration,
        thought=thought,
        performance_data={
            "total_time": reached.seconds,
            "cost_usd": totals.cost_usd,
            "calls": totals.calls,
            "input_tokens": totals.input_tokens,
            "output_tokens": totals.output_tokens,
        },
        recovery_point=reached.to.operation,
        completed_validators=[one.validator for one in thought.validation_results],
        completed_critics=[one.critic for one in thought.critic_feedback],
        metadata={"life": state.life, "parameters": dict(state.parameters)},
    )


def checkpoints(chain_id: str, records: Iterable[Record]) -> Iterator[ChainCheckpoint]:
    """Every checkpoint of a whole log, oldest first."""
    state = State(chain_id)
    for record in records:
        # A step that ends an iteration shows the iteration it ends, so look before it is left.
        before = state.thought() if isinstance(record, Reached) and not record.trimmed else None
        state.apply(record)
        if before is not None and isinstance(record, Reached):
            yield checkpoint_of(state, record, before)
