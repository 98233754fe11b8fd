"""The recovery manager: reads a store's history, and says what can be done about a failure (floor 4)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sifaka.errors import ChainError
from sifaka.faults import classify
from sifaka.log.checkpoint import ChainCheckpoint
from sifaka.log.records import Outcome, Position, Record, Recovery
from sifaka.recovery.actions import RecoveryAction
from sifaka.recovery.evidence import Evidence
from sifaka.recovery.ranking import Situation
from sifaka.storage.base import Storage
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.urls import open_storage

__all__ = ["RecoveryManager", "recovery_history"]


class RecoveryManager:
    """What a store's runs teach about recovery. ``checkpoint_storage`` is a storage object or a URL."""

    def __init__(self, checkpoint_storage: CachedCheckpointStorage | Storage | str) -> None:
        self.checkpoint_storage = open_storage(checkpoint_storage)
        self._evidence = Evidence(self.checkpoint_storage.cells, self.checkpoint_storage.search)

    def analyze_failure(
        self, checkpoint: ChainCheckpoint | None, error: BaseException
    ) -> list[RecoveryAction]:
        """The actions that may help after ``error`` at ``checkpoint`` (None: at the start), best first."""
        cause = error.__cause__ if isinstance(error, ChainError) else None
        at = Position("retrieval", 0)
        parameters: dict[str, Any] = {}
        if checkpoint is not None:
            iteration = checkpoint.iteration
            point = checkpoint.recovery_point
            at = Position(point, iteration)  # type: ignore[arg-type]
            parameters = checkpoint.metadata.get("parameters", {})
        documents = checkpoint.thought.pre_generation_context if checkpoint is not None else ()
        return self._evidence.rank(
            Situation(
                fault=classify(cause or error),
                position=at,
                part="",
                options=parameters,
                prompt_chars=sum(len(document.text) for document in documents),
                chain_id=checkpoint.chain_id if checkpoint is not None else "",
            )
        )

    def get_recovery_history(self, chain_id: str) -> list[dict[str, Any]]:
        """The recovery actions of a run, oldest first; empty for a run that is not there.

        Each is a dict of ``action``, ``error_type``, ``error_class``, ``timestamp``, ``step``,
        ``iteration``, ``part``, ``confidence``, ``success`` (None while open), ``cost`` (US dollars),
        ``seconds``, ``parameters``, ``delay_s``, ``chosen_by`` and ``evidence``.
        """
        if self.checkpoint_storage.storage.entry(chain_id) is None:
            return []
        return recovery_history(self.checkpoint_storage.records(chain_id))

    def cleanup_old_checkpoints(self, max_age_days: float | None = 30, **more: Any) -> int:
        """As :meth:`CachedCheckpointStorage.cleanup_old_checkpoints`, which see."""
        return self.checkpoint_storage.cleanup_old_checkpoints(max_age_days, **more)


def recovery_history(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The recovery actions in a log, with what came of each."""
    events: dict[int, dict[str, Any]] = {}
    for seq, record in enumerate(records):
        if isinstance(record, Recovery):
            events[seq] = {
                "action": record.strategy,
                "error_type": record.error_kind,
                "error_class": record.error_class,
                "timestamp": datetime.fromtimestamp(record.at, UTC),
                "step": record.operation,
                "iteration": record.iteration,
                "part": record.part,
                "confidence": record.confidence,
                "success": None,
                "cost": 0.0,
                "seconds": 0.0,
                "parameters": record.parameters,
                "delay_s": record.delay_s,
                "chosen_by": record.chosen_by,
                "evidence": record.evidence,
            }
        elif isinstance(record, Outcome) and record.recovery in events:
            events[record.recovery].update(
                success=record.success, cost=record.cost_usd, seconds=record.seconds
            )
    return list(events.values())
