"""What a story keeps account of beside its moments: lives, calls in doubt, faults (floor 5)."""

from __future__ import annotations

from msgspec.structs import replace

from sifaka.log.records import Faulted, Intent, Outcome, Recovery
from sifaka.thought import DoubtfulCall
from sifaka.views import words
from sifaka.views.models import Doubt, FaultStory, Life, Paid

__all__ = ["DoubtAccount", "FaultAccount", "LifeAccount"]


class LifeAccount:
    """One life under way: what it has paid, on top of what was ``kept`` from those before."""

    def __init__(self, number: int, cause: str, began_at: float, kept: Paid) -> None:
        self.number = number
        self.cause = cause
        self.began_at = began_at
        self.last_at = began_at
        self.end = ""
        self.paid = Paid()
        self.kept = kept

    def pay(self, paid: Paid) -> None:
        """A call was answered."""
        self.paid += paid
        self.kept += paid

    def view(self) -> Life:
        """The life as a value."""
        return Life(
            number=self.number,
            cause=self.cause,
            end=self.end,
            began_at=self.began_at,
            last_at=self.last_at,
            paid=self.paid,
            kept=self.kept,
            says=words.life_says(self.number, self.end, self.paid),
        )


class DoubtAccount:
    """One call in doubt, of which ``life``, why, and whether it was made again."""

    def __init__(self, call: DoubtfulCall, life: int, cause: str) -> None:
        self.call = call
        self.life = life
        self.cause = cause
        self.repeated = False

    def see(self, intent: Intent) -> None:
        """A call is about to be made: this one again?"""
        call = self.call
        here = (intent.operation, intent.iteration, intent.part)
        self.repeated |= here == (call.operation, call.iteration, call.part)

    def view(self) -> Doubt:
        """The doubt as a value."""
        call = self.call
        return Doubt(
            seq=call.seq,
            life=self.life,
            operation=call.operation,
            iteration=call.iteration,
            part=call.part,
            model=call.model,
            price_max_usd=call.price_max_usd,
            cause=self.cause,
            repeated=self.repeated,
            says=words.doubt_says(call, repeated=self.repeated),
        )


class FaultAccount:
    """The faults of a run, each with the action that answered it and what came of that."""

    def __init__(self) -> None:
        self.stories: list[FaultStory] = []
        self._unanswered: list[int] = []
        self._answered_by: dict[int, list[int]] = {}

    def add(self, seq: int, record: Faulted, life: int) -> None:
        """Something failed."""
        fault = record.fault
        self._unanswered.append(len(self.stories))
        self.stories.append(
            FaultStory(
                seq=seq,
                at=record.at,
                life=life,
                operation=record.operation,
                iteration=record.iteration,
                part=record.part,
                attempt=record.attempt,
                kind=fault.kind,
                error_class=fault.error_class,
                signature=fault.signature,
                says=words.cause_says(fault),
                message=fault.message,
            )
        )

    def answer(self, seq: int, record: Recovery) -> None:
        """An action is taken, for all that failed since the last one: parts that ran together."""
        for place in self._unanswered:
            self.stories[place] = replace(
                self.stories[place],
                strategy=record.strategy,
                action=words.deed_says(record),
                why=record.description,
                confidence=record.confidence,
                evidence=record.evidence,
                chosen_by=record.chosen_by,
                delay_s=record.delay_s,
            )
        self._answered_by[seq], self._unanswered = self._unanswered, []

    def conclude(self, record: Outcome) -> None:
        """It is known what came of an action."""
        for place in self._answered_by.get(record.recovery, ()):
            self.stories[place] = replace(self.stories[place], success=record.success)

    def go_on(self) -> None:
        """A step was reached: what failed before it is past, answered or not."""
        self._unanswered = []
