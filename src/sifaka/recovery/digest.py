"""What one run's log comes to for analysis: its faults, actions, parts, time and money (floor 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import msgspec

from sifaka.log.records import (
    Closed,
    Faulted,
    Intent,
    Opened,
    Operation,
    Outcome,
    Reached,
    Record,
    Recovery,
    Result,
)

__all__ = ["ActionSeen", "Digest", "FaultSeen", "PartSeen", "Spent", "TextSeen", "digest", "merged"]


class Spent(msgspec.Struct):
    """Time and money: seconds of the clock, and US dollars."""

    seconds: float = 0.0
    cost_usd: float = 0.0
    calls: int = 0


class FaultSeen(msgspec.Struct, frozen=True):
    """A fault: ``chars`` is how long the newest text was, ``together`` how many calls were out beside it."""

    kind: str
    operation: str
    iteration: int
    part: str
    chars: int
    together: int


class ActionSeen(msgspec.Struct, frozen=True):
    """A recovery action and what came of it; ``success`` is None while that is open."""

    kind: str
    strategy: str
    parameters: dict[str, Any]
    operation: str
    confidence: float
    success: bool | None = None
    cost_usd: float = 0.0
    seconds: float = 0.0


class PartSeen(msgspec.Struct):
    """A validator or critic: how often it judged, and how often it was the only one that asked for more.

    ``asked`` is how often it asked for another text at all.
    """

    operation: str
    judged: int = 0
    asked: int = 0
    alone: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0


class TextSeen(msgspec.Struct, frozen=True):
    """One text: its length in characters, how long its call took (seconds), and the limits it was under."""

    iteration: int
    chars: int
    seconds: float
    max_tokens: int | None
    timeout_s: float | None


class Digest(msgspec.Struct):
    """All that a run comes to. ``best`` is the iteration of the text it returns, -1 for none."""

    chain_id: str
    settings: dict[str, Any] = {}
    status: str = "running"
    iterations: int = 0
    best: int = -1
    faults: list[FaultSeen] = []
    actions: list[ActionSeen] = []
    texts: list[TextSeen] = []
    parts: dict[str, PartSeen] = {}
    steps: dict[str, Spent] = {}
    models: dict[str, Spent] = {}

    @property
    def spent(self) -> Spent:
        """All of it."""
        every = self.steps.values()
        return Spent(
            sum(one.seconds for one in every),
            sum(one.cost_usd for one in every),
            sum(one.calls for one in every),
        )


def digest(chain_id: str, records: Iterable[Record]) -> Digest:
    """Fold a run's log."""
    folding = _Folding(chain_id)
    for seq, record in enumerate(records):
        folding.apply(seq, record)
    return folding.found


class _Folding:
    """The fold under way."""

    def __init__(self, chain_id: str) -> None:
        self.found = Digest(chain_id)
        self._operation: Operation = "retrieval"
        self._since = 0.0
        self._open: dict[int, Intent] = {}
        self._actions: dict[int, int] = {}
        self._texts: dict[int, int] = {}
        self._asking: dict[str, bool] = {}
        self._at_work: dict[str, list[tuple[float, float]]] = {}
        """When each model was at work: times that do not overlap, by their ends."""

    def apply(self, seq: int, record: Record) -> None:
        fold = self._FOLD.get(type(record))
        if fold is not None:
            fold(self, seq, record)

    def _opened(self, _seq: int, record: Opened) -> None:
        self._since = record.at  # between two lives nothing was done
        self._open = {}
        if record.settings is not None:
            self.found.settings = record.settings
        for part in record.parts or ():
            operation = {"validator": "validation", "critic": "criticism"}.get(part.kind)
            if operation:
                self.found.parts.setdefault(part.name, PartSeen(operation))

    def _intent(self, seq: int, record: Intent) -> None:
        self._open[seq] = record

    def _result(self, seq: int, record: Result) -> None:
        found, price = self.found, record.price_usd or 0.0
        intent = self._open.pop(record.intent, None)
        self._step(record.operation).cost_usd += price
        self._step(record.operation).calls += intent is not None
        if intent is not None:
            self._busy(intent, record.at, record.model or intent.model or record.part, price)
        part = found.parts.get(record.part)
        if part is not None:
            part.cost_usd += price
            part.seconds += record.seconds
        if record.text is not None and record.operation == "generation":
            options = (intent.options if intent is not None else None) or {}
            asked = options.get("max_tokens"), found.settings.get("timeout_s")
            found.texts.append(TextSeen(record.iteration, len(record.text), record.seconds, *asked))
            self._texts[seq] = record.iteration
            found.iterations = max(found.iterations, record.iteration)
        asks = _asks(record)
        if asks is not None and part is not None:
            part.judged += 1
            part.asked += asks
            self._asking[record.part] = asks

    def _faulted(self, _seq: int, record: Faulted) -> None:
        intent = self._open.pop(record.intent, None)
        chars = self.found.texts[-1].chars if self.found.texts else 0
        self.found.faults.append(
            FaultSeen(
                record.fault.kind,
                record.operation,
                record.iteration,
                record.part,
                chars,
                len(self._open),
            )
        )
        if intent is not None:
            self._busy(intent, record.at, intent.model or record.part, 0.0)

    def _busy(self, intent: Intent, until: float, model: str, price: float) -> None:
        """Count a call's time for its model; the time that another call of it took too is counted once."""
        spent = self.found.models.setdefault(model, Spent())
        times, since = self._at_work.setdefault(model, []), intent.at
        begin, counted = since, 0.0
        while times and times[-1][1] > since:  # calls end in the log's order
            earlier, ended = times.pop()
            begin, counted = min(begin, earlier), counted + ended - max(earlier, since)
        times.append((begin, until))
        spent.seconds += max(0.0, until - since - counted)
        spent.cost_usd += price
        spent.calls += 1

    def _recovery(self, seq: int, record: Recovery) -> None:
        self._count_time(record.at)
        self._operation = record.to.operation
        if record.chosen_by == "breaker":
            return
        self._actions[seq] = len(self.found.actions)
        self.found.actions.append(
            ActionSeen(
                record.error_kind,
                record.strategy,
                record.parameters,
                record.operation,
                record.confidence,
            )
        )

    def _outcome(self, _seq: int, record: Outcome) -> None:
        place = self._actions.get(record.recovery)
        if place is not None:
            self.found.actions[place] = msgspec.structs.replace(
                self.found.actions[place],
                success=record.success,
                cost_usd=record.cost_usd,
                seconds=record.seconds,
            )

    def _reached(self, _seq: int, record: Reached) -> None:
        self._count_time(record.at)
        self._operation = record.to.operation
        if record.step == "criticism" or record.to.operation in ("generation", "complete"):
            self._settle_iteration()

    def _settle_iteration(self) -> None:
        """Who of all that judged this text asked for another one, and did so alone?"""
        asking = [name for name, asks in self._asking.items() if asks]
        if len(asking) == 1:
            self.found.parts[asking[0]].alone += 1
        self._asking = {}

    def _closed(self, _seq: int, record: Closed) -> None:
        self._count_time(record.at)
        self.found.status = record.status
        self.found.best = self._texts.get(record.best, -1)

    def _count_time(self, at: float) -> None:
        self._step(self._operation).seconds += max(0.0, at - self._since)
        self._since = at

    def _step(self, operation: str) -> Spent:
        return self.found.steps.setdefault(operation, Spent())

    _FOLD: ClassVar[dict[type[Any], Callable[[Any, int, Any], None]]] = {
        Opened: _opened,
        Intent: _intent,
        Result: _result,
        Faulted: _faulted,
        Recovery: _recovery,
        Outcome: _outcome,
        Reached: _reached,
        Closed: _closed,
    }


def _asks(record: Result) -> bool | None:
    """Whether a part's answer asks for another text; None where it is no verdict and no feedback."""
    if record.verdict is not None and not record.verdict.skipped:
        return not record.verdict.passed
    if record.feedback is not None and not record.feedback.skipped:
        return record.feedback.needs_improvement
    return None


def merged(digests: Sequence[Digest], of: Callable[[Digest], dict[str, Spent]]) -> dict[str, Spent]:
    """Time and money of several runs, by what ``of`` names."""
    found: dict[str, Spent] = {}
    for one in digests:
        for name, spent in of(one).items():
            total = found.setdefault(name, Spent())
            total.seconds += spent.seconds
            total.cost_usd += spent.cost_usd
            total.calls += spent.calls
    return found
