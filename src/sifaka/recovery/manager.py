"""The recovery manager: reads a store's history, and says what can be done about a failure (floor 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec

from sifaka.errors import ChainError, DamagedRecordError
from sifaka.faults import Fault, classify
from sifaka.log.checkpoint import ChainCheckpoint
from sifaka.log.records import Operation, Outcome, Position, Record, Recovery
from sifaka.recovery.actions import RecoveryAction
from sifaka.recovery.candidates import NotOffered
from sifaka.recovery.costs import expected_wait_s
from sifaka.recovery.evidence import Attempt, Evidence
from sifaka.recovery.knowledge import Tuning
from sifaka.recovery.ranking import Ranking
from sifaka.recovery.rules import Order, Rule
from sifaka.recovery.situation import Situation, situation_of
from sifaka.storage.base import Query, Storage
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.urls import open_storage

if TYPE_CHECKING:
    from sifaka.recovery.analysis import Analysis
    from sifaka.recovery.configuration import Suggested
    from sifaka.recovery.digest import Digest

__all__ = ["RecoveryManager", "recovery_history"]

_DEFAULT = Tuning()
RUNS_MAX = 1_000
"""How many runs an analysis reads, the newest first, unless it is told otherwise."""


class RecoveryManager:
    """What a store's runs teach about recovery.

    ``checkpoint_storage`` is a storage object or a URL; ``rules`` are actions of your own, ``order`` is a
    ranking of your own, ``tuning`` the numbers of the estimate. Raises UsageError for rules that are none.
    """

    def __init__(
        self,
        checkpoint_storage: CachedCheckpointStorage | Storage | str,
        *,
        rules: Sequence[Rule] = (),
        order: Order | None = None,
        tuning: Tuning = _DEFAULT,
    ) -> None:
        self.checkpoint_storage = open_storage(checkpoint_storage)
        store = self.checkpoint_storage
        self._evidence = Evidence(store.cells, store.search, rules=rules, order=order, tuning=tuning)

    # Before --------------------------------------------------------------------------------

    def analyze_failure(
        self, checkpoint: ChainCheckpoint | None, error: BaseException
    ) -> list[RecoveryAction]:
        """The actions that may help after ``error`` at ``checkpoint`` (None: at the start), best first.

        They come in the order that costs least until the step completes: not by confidence alone.
        """
        return self._ranking(checkpoint, error).actions

    def not_offered(self, checkpoint: ChainCheckpoint | None, error: BaseException) -> list[NotOffered]:
        """The strategies that :meth:`analyze_failure` leaves out there, each with the reason."""
        return self._ranking(checkpoint, error).not_offered

    def _ranking(self, checkpoint: ChainCheckpoint | None, error: BaseException) -> Ranking:
        at = self._situation(checkpoint, _fault_of(error))
        found = self._evidence.ranking(at)
        return found._replace(actions=[_with_wait(action, at) for action in found.actions])

    def _situation(self, checkpoint: ChainCheckpoint | None, fault: Fault) -> Situation:
        """Where the run stands, as far as the checkpoint and, if it is in this store, its log tell."""
        if checkpoint is None:
            return Situation(fault, Position("retrieval", 0), "", {})
        at = self._of_log(checkpoint, fault) or Situation(
            fault,
            Position("retrieval", 0),
            "",
            checkpoint.metadata.get("parameters", {}),
            chain_id=checkpoint.chain_id,
            calls=checkpoint.performance_data.get("calls", 0),
            spent_usd=checkpoint.performance_data.get("cost_usd", 0.0),
        )
        position = Position(cast("Operation", checkpoint.recovery_point), checkpoint.iteration)
        if (at.position.operation, at.position.iteration) == (position.operation, position.iteration):
            return at
        thought = checkpoint.thought
        return at._replace(
            position=position,
            part="",
            tried=(),
            prompt_chars=sum(len(document.text) for document in thought.pre_generation_context),
            documents=len(thought.pre_generation_context),
            verdicts=len(thought.validation_results),
            feedback=len(thought.critic_feedback),
            has_text=bool(thought.text),
        )

    def _of_log(self, checkpoint: ChainCheckpoint, fault: Fault) -> Situation | None:
        store = self.checkpoint_storage
        if store.storage.entry(checkpoint.chain_id) is None:
            return None
        try:
            state = store.load(checkpoint.chain_id).state
        except DamagedRecordError:
            return None
        failed = state.fault
        at = situation_of(state, fault, failed.part if failed is not None else "")
        return at if failed is None else at._replace(failed_s=failed.seconds)

    # After ---------------------------------------------------------------------------------

    def record_outcome(
        self,
        checkpoint: ChainCheckpoint | None,
        error: BaseException,
        action: RecoveryAction,
        success: bool,
        cost: float | None = None,
        seconds: float | None = None,
    ) -> str:
        """Count what came of an action that was taken outside of a chain: a chain counts its own.

        ``cost`` is in US dollars; None: as was expected. Returns what could not be stored, or "".
        """
        fault = _fault_of(error)
        at = self._situation(checkpoint, fault)
        recovery = Recovery(
            at=self.checkpoint_storage.storage.clock.time(),
            operation=at.position.operation,
            iteration=at.position.iteration,
            part=at.part,
            strategy=action.strategy.value,
            description=action.description,
            to=at.position,
            parameters=action.parameters,
            confidence=action.confidence,
            delay_s=action.delay_s,
            counts=not at.waits_as_stated,
            chosen_by="user",
            error_kind=fault.kind,
            error_class=fault.error_class,
        )
        attempt = Attempt(
            -1,
            recovery,
            fault.message,
            at.asked_model,
            bool(success),
            at.label,
            len(at.tried),
            action.cost_usd if cost is None else cost,
            max(0.0, action.seconds - action.delay_s) if seconds is None else seconds,
        )
        return self._evidence.learn(at.chain_id or "outside", [attempt])

    # Looking back --------------------------------------------------------------------------

    def get_recovery_history(self, chain_id: str) -> list[dict[str, Any]]:
        """The recovery actions of a run, oldest first; empty for a run that is not there.

        Each is a dict of ``action``, ``error_type``, ``error_class``, ``timestamp``, ``step``,
        ``iteration``, ``part``, ``confidence``, ``success`` (None while open), ``cost`` (US dollars),
        ``seconds``, ``parameters``, ``delay_s``, ``chosen_by``, ``propensity`` and ``evidence``.
        """
        if self.checkpoint_storage.storage.entry(chain_id) is None:
            return []
        return recovery_history(self.checkpoint_storage.records(chain_id))

    def analyze(self, query: Query | None = None, *, runs_max: int = RUNS_MAX) -> Analysis:
        """What the newest ``runs_max`` runs teach: what failed, what helped, where time and money went.

        ``query`` selects among them. It reads their whole logs; damaged ones are named and left out.
        """
        from sifaka.recovery.analysis import analyse

        unread: list[str] = []
        return analyse(list(self._digests(query, runs_max, unread)), unread)

    def suggest_configuration(
        self, query: Query | None = None, *, runs_max: int = RUNS_MAX
    ) -> list[Suggested]:
        """Settings that the newest ``runs_max`` runs suggest, with reasons, the greatest saving first."""
        from sifaka.recovery.configuration import suggest_configuration

        return suggest_configuration(list(self._digests(query, runs_max, [])))

    def _digests(self, query: Query | None, runs_max: int, unread: list[str]) -> Iterator[Digest]:
        from itertools import islice

        from sifaka.recovery.digest import digest

        store = self.checkpoint_storage
        entries = (entry for page in store.storage.pages(query or Query(limit=500)) for entry in page)
        for entry in islice(entries, runs_max):
            try:
                yield digest(entry.chain_id, store.records(entry.chain_id))
            except DamagedRecordError:
                unread.append(entry.chain_id)

    def cleanup_old_checkpoints(self, max_age_days: float | None = 30, **more: Any) -> int:
        """As :meth:`CachedCheckpointStorage.cleanup_old_checkpoints`, which see. What was counted stays."""
        return self.checkpoint_storage.cleanup_old_checkpoints(max_age_days, **more)


def _fault_of(error: BaseException) -> Fault:
    if isinstance(error, ChainError):
        if error.fault is not None:
            return error.fault
        return classify(error.__cause__ or error)
    return classify(error)


def _with_wait(action: RecoveryAction, at: Situation) -> RecoveryAction:
    """The action with the wait that a run would keep before it: the stated one, or the mean backoff."""
    if {"model", "models"} & action.parameters.keys():  # another model need not be waited for
        return action
    wait_s = expected_wait_s(action.strategy, at)
    return msgspec.structs.replace(action, delay_s=action.delay_s or round(wait_s, 3))


def recovery_history(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The recovery actions in a log, with what came of each."""
    events: dict[int, dict[str, Any]] = {}
    for seq, record in enumerate(records):
        if isinstance(record, Recovery) and record.chosen_by == "breaker" and record.delay_s:
            continue  # a wait for a provider that is left alone, on the way of an attempt: it is no action
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
                "propensity": record.propensity,
                "evidence": record.evidence,
            }
        elif isinstance(record, Outcome) and record.recovery in events:
            events[record.recovery].update(
                success=record.success, cost=record.cost_usd, seconds=record.seconds
            )
    return list(events.values())
