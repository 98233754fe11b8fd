"""The fold: a run's records, one after another, into its timeline and its summary (floor 5).

:class:`Story` keeps the run's :class:`sifaka.log.state.State` beside it, so that what a person is shown and
what the engine decides on are one truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from msgspec.structs import replace

from sifaka.errors import DamagedRecordError
from sifaka.log.records import (
    OPERATIONS,
    Closed,
    Faulted,
    Handle,
    Intent,
    Opened,
    Outcome,
    Partial,
    Reached,
    Record,
    Recovery,
    Result,
    Status,
)
from sifaka.log.state import State, doubtful
from sifaka.views import moments as told
from sifaka.views.accounts import DoubtAccount, FaultAccount, LifeAccount
from sifaka.views.models import Moment, Paid, RunSummary, Timeline
from sifaka.views.moments import Place
from sifaka.views.summary import summary_of

__all__ = ["Story", "story_of"]

_PER_ITERATION = OPERATIONS[1:-1]
"""The operations that each iteration repeats."""


class Story:
    """A run as people see it. Apply records in order with :meth:`apply`; look at any time."""

    def __init__(self) -> None:
        self.state = State("")
        self.moments: list[Moment] = []
        self._lives: list[LifeAccount] = []
        self._doubts: dict[int, DoubtAccount] = {}
        self._faults = FaultAccount()
        self._shared = 0
        self._step = ""
        self._action_at: dict[int, int] = {}
        """The place in ``moments`` of a recovery action, by its record."""

    # Looking -------------------------------------------------------------------------------

    def timeline(self) -> Timeline:
        """What has happened so far, and the calls that are out."""
        state, closed = self.state, self.state.closed
        return Timeline(
            chain_id=state.chain_id,
            prompt=state.prompt,
            status=closed.status if closed else "running",
            began_at=state.first_at,
            last_at=state.last_at,
            life=state.life,
            operation=state.position.operation,
            iteration=state.position.iteration,
            steps_done=self._steps_done(),
            steps_max=1 + len(_PER_ITERATION) * (self._improvements_max() + 1),
            moments=tuple(self.moments),
            calls=tuple(told.call(one, self._place(seq)) for seq, one in state.open_intents.items()),
            shared=self._shared,
        )

    def summary(self, status: Status | None = None) -> RunSummary:
        """How the run stands; ``status`` is what its store says of it now.

        Calls that were in flight when an interrupted run was last heard of are in doubt, too.
        """
        doubts = list(self._doubts.values())
        if status == "interrupted":
            calls = self.state.open_intents.items()
            doubts += [DoubtAccount(doubtful(seq, one), self.state.life, status) for seq, one in calls]
        return summary_of(self.state, self._lives, doubts, self._faults.stories, status)

    def _improvements_max(self) -> int:
        return int(self.state.options.get("max_improvement_iterations", 0))

    def _steps_done(self) -> int:
        at = self.state.position
        if at.operation == "retrieval":
            return 0
        return len(_PER_ITERATION) * at.iteration + OPERATIONS.index(at.operation)

    def _place(self, seq: int) -> Place:
        return Place(seq, self.state.life, self._step)

    # Folding -------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Fold the next record in. Raises DamagedRecordError where the first does not open the run."""
        state, seq = self.state, self.state.next_seq
        if isinstance(record, Opened):
            self._end_life(record)
        elif not self._lives:
            raise DamagedRecordError(state.chain_id, 0, 0, "it does not open the run")
        else:
            self._FOLD[type(record)](self, seq, record)
        state.apply(record)
        if len(state.doubts) > len(self._doubts):
            self._note_doubts(seq, record)
        if isinstance(record, Opened):
            self._begin_life(seq, record)
        self._lives[-1].last_at = record.at

    # Lives ---------------------------------------------------------------------------------

    def _end_life(self, record: Opened) -> None:
        state = self.state
        if not self._lives:
            state.chain_id = record.chain_id
        elif record.cause == "fork":
            self._shared = len(self.moments)
            self._lives, self._doubts, self._faults = [], {}, FaultAccount()
        elif record.cause == "death":
            self._lives[-1].end = "death"
            self.moments.append(told.death(self._place(state.next_seq), state))
        elif state.closed is None:
            self._lives[-1].end = "interrupted"

    def _begin_life(self, seq: int, record: Opened) -> None:
        kept = self._lives[-1].kept if self._lives else Paid()
        self._lives.append(LifeAccount(record.life, record.cause, record.at, kept))
        self.moments.append(told.beginning(record, self._place(seq), self.state))

    def _note_doubts(self, seq: int, record: Record) -> None:
        """Calls that ``record``, a fault or the beginning of a later life, has left in doubt."""
        life = self._lives[-1].number if self._lives else 1
        cause = record.fault.kind if isinstance(record, Faulted) else "death"
        for intent, call in self.state.doubts.items():
            if intent not in self._doubts:
                self._doubts[intent] = DoubtAccount(call, life, cause)
                self.moments.append(told.doubt(call, Place(seq, life, self._step), record.at, cause))

    # Calls ---------------------------------------------------------------------------------

    def _intent(self, _seq: int, record: Intent) -> None:
        for doubt in self._doubts.values():
            doubt.see(record)

    def _nothing(self, _seq: int, _record: Handle | Partial) -> None:
        """A call in flight has a name, or some text: nothing people wait for."""

    def _result(self, seq: int, record: Result) -> None:
        paid = None
        if record.intent in self.state.open_intents:
            paid = told.paid_by(record)
            self._lives[-1].pay(paid)
        skipped = record.part in self.state.skipped
        moment = told.answer(record, self._place(seq), skipped=skipped, paid=paid)
        last = self.moments[-1]
        if last.kind == "reply" and last.part == record.part and record.text is None:
            # What a part made of its last reply is one moment with that reply, not two.
            self.moments.pop()
            moment = replace(moment, model=last.model, seconds=last.seconds, paid=last.paid, about=last.seq)
        self.moments.append(moment)

    # Faults --------------------------------------------------------------------------------

    def _faulted(self, seq: int, record: Faulted) -> None:
        if record.intent < 0 and record.operation == "generation":
            self._spoil_text()
        self.moments.append(told.fault(record, self._place(seq)))
        self._faults.add(seq, record, self.state.life)

    def _spoil_text(self) -> None:
        """The text was answered and paid, and could not be used."""
        for place in range(len(self.moments) - 1, -1, -1):
            if self.moments[place].kind == "text":
                self.moments[place] = replace(self.moments[place], status="failed")
                return

    def _recovery(self, seq: int, record: Recovery) -> None:
        self._action_at[seq] = len(self.moments)
        self.moments.append(told.action(record, self._place(seq)))
        if record.delay_s:
            self.moments.append(told.wait(record, self._place(seq)))
        self._faults.answer(seq, record)

    def _outcome(self, seq: int, record: Outcome) -> None:
        self._faults.conclude(record)
        place = self._action_at.get(record.recovery)
        if place is None:
            return
        moment = told.outcome(record, self._place(seq), self.moments[place])
        self.moments[place] = replace(self.moments[place], status=moment.status)
        self.moments.append(moment)

    # Progress ------------------------------------------------------------------------------

    def _reached(self, _seq: int, record: Reached) -> None:
        self._step = record.step
        self._faults.go_on()

    def _closed(self, seq: int, record: Closed) -> None:
        self._lives[-1].end = record.status
        self.moments.append(told.end(record, self._place(seq), self.state))

    _FOLD: ClassVar[dict[type[Any], Callable[[Any, int, Any], None]]] = {
        Intent: _intent,
        Handle: _nothing,
        Partial: _nothing,
        Result: _result,
        Faulted: _faulted,
        Recovery: _recovery,
        Outcome: _outcome,
        Reached: _reached,
        Closed: _closed,
    }


def story_of(records: Iterable[Record]) -> Story:
    """The story of a whole log, from its first record."""
    story = Story()
    for record in records:
        story.apply(record)
    return story
