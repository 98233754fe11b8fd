"""Trimming a log: what of it may go, and what stands for it then (floor 2).

A trimmed record is still there, under its number: who did what, when, for how much, and what came of it.
So everything that is counted survives; only texts, documents and feedback go. What stays whole is a tail of
the log, and whatever somebody who goes on from it may still need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from sifaka.log.records import Partial, Reached, Record, Recovery, Result
from sifaka.log.state import State
from sifaka.thought import CriticFeedback, Document, ValidationResult

__all__ = ["Trim", "lacks_text", "trims", "without_text"]

SUMMARIES = 2
"""A resume reads the log back to the summary before the newest one: from there on it stays whole."""
RECORDS_A_ROW = 500
"""How many records stand in one row, at most, unless they did before: a resume reads one such row."""


class Trim(msgspec.Struct, frozen=True):
    """Rows ``first`` to ``last``, by their place among a log's rows, and the records that replace them."""

    first: int
    last: int
    records: list[Record]


class _Stretch:
    """The records that write and judge one text.

    ``draft`` is the stretch whose text it improves, ``uses`` are those whose texts its checkpoints may come
    to, ``documents`` the records of what its prompts quote.
    """

    __slots__ = ("checkpoints", "documents", "draft", "uses")

    def __init__(self, draft: int | None) -> None:
        self.draft = draft
        self.checkpoints = 0
        self.uses: set[int] = set()
        self.documents: set[int] = set()


class _Survey:
    """A log as stretches: which record lies in which, and what each builds on."""

    def __init__(self, chain_id: str, records: Sequence[Record]) -> None:
        self.stretches = [_Stretch(None)]
        self.place_of: list[int] = []
        self.summaries: list[int] = []
        self.first_text = len(records)
        self._state = State(chain_id)
        for seq, record in enumerate(records):
            self._see(seq, record)
        self.stretches[-1].uses |= self._best()

    def _see(self, seq: int, record: Record) -> None:
        here, iteration = self.stretches[-1], self._state.iteration
        self.place_of.append(len(self.stretches) - 1)
        self._state.apply(record)
        if isinstance(record, Reached):
            here.checkpoints += not record.trimmed
            here.uses |= self._best()
            if record.summary is not None:
                self.summaries.append(seq)
            if record.to.iteration > iteration:
                self.stretches.append(_Stretch(len(self.stretches) - 1))
        elif isinstance(record, Recovery) and record.sets_aside:
            self.stretches.append(_Stretch(None if self._state.draft is None else here.draft))
        elif isinstance(record, Result) and record.operation == "generation":
            self.first_text = min(self.first_text, seq)
        here.documents.update(self._state.documents_at)

    def _best(self) -> set[int]:
        best = self._state.best
        return set() if best is None else {self.place_of[best.seq]}

    def whole_from(self, keep: int) -> int:
        """The stretch from which on all stays: at least ``keep`` checkpoints, and what a resume reads."""
        if len(self.summaries) < SUMMARIES:
            return 0
        read = self.place_of[self.summaries[-SUMMARIES]] + 1
        checkpoints = 0
        for place in range(len(self.stretches) - 1, 0, -1):
            checkpoints += self.stretches[place].checkpoints
            if checkpoints >= keep and place <= read:
                return place
        return 0

    def needed(self, start: int) -> set[int]:
        """The stretches before ``start`` whose texts stay: best ones and drafts of what is whole."""
        whole = self.stretches[start:]
        found = set[int]().union(*(one.uses for one in whole))
        drafts = [one.draft for one in (*whole, *(self.stretches[place] for place in found))]
        return found | {draft for draft in drafts if draft is not None}

    def documents(self, places: set[int]) -> set[int]:
        """The records of documents that these stretches quote."""
        return set[int]().union(*(self.stretches[place].documents for place in places))


def trims(chain_id: str, rows: Sequence[Sequence[Record]], keep: int) -> list[Trim]:
    """What may be done to a log so that its newest ``keep`` checkpoints, at least, stay whole; oldest first.

    ``rows`` are the records of a whole log, row by row. Whole stay, too, how the run was opened, the
    documents its prompts quote, its best text, and the draft that each of these texts improved. Trimming
    what this gave back comes to nothing.
    """
    records = list(chain.from_iterable(rows))
    survey = _Survey(chain_id, records)
    start = survey.whole_from(keep)
    if not start:
        return []
    needed, resume_at = survey.needed(start), survey.summaries[-SUMMARIES]
    documents = survey.documents({*needed, *range(start, len(survey.stretches))})

    def lean(seq: int, record: Record) -> Record:
        place = survey.place_of[seq]
        if place >= start or seq < survey.first_text:
            return record
        if isinstance(record, Reached):
            return _reached(record, with_summary=seq == resume_at)
        return record if place in needed or seq in documents else without_text(record)

    numbers = iter(range(len(records)))
    new = [[lean(next(numbers), record) for record in row] for row in rows]
    return list(_grouped(rows, new))


def _grouped(rows: Sequence[Sequence[Record]], new: Sequence[list[Record]]) -> Iterator[Trim]:
    """Rows that change and follow one another are one row from now on, unless it grows too long."""
    held: Trim | None = None
    for place in range(len(rows) - 1):  # the last row always stays
        lean = new[place]
        if lean == list(rows[place]):
            continue
        if held is not None and held.last == place - 1 and len(held.records) + len(lean) <= RECORDS_A_ROW:
            held = Trim(held.first, place, held.records + lean)
            continue
        if held is not None:
            yield held
        held = Trim(place, place, lean)
    if held is not None:
        yield held


def lacks_text(chain_id: str, records: Sequence[Record]) -> bool:
    """Whether who goes on from the end of these records would need a text that was trimmed away."""
    survey = _Survey(chain_id, records)
    last = len(survey.stretches) - 1
    needed = {last} | survey.needed(last)
    return any(
        isinstance(record, Result) and record.operation == "generation" and record.text == ""
        for place, record in zip(survey.place_of, records, strict=True)
        if place in needed
    )


# Records -----------------------------------------------------------------------------------


def without_text(record: Record) -> Record:
    """The record without what was written, found or said in it."""
    strip = _STRIP.get(type(record))
    return record if strip is None else strip(record)


def _result(record: Result) -> Result:
    documents, verdict, feedback = record.documents, record.verdict, record.feedback
    return msgspec.structs.replace(
        record,
        text=record.text and "",
        documents=documents and tuple(Document("") for _ in documents),
        verdict=verdict
        and ValidationResult(
            verdict.passed, score=verdict.score, validator=verdict.validator, skipped=verdict.skipped
        ),
        feedback=feedback
        and CriticFeedback(
            feedback.needs_improvement,
            confidence=feedback.confidence,
            critic=feedback.critic,
            skipped=feedback.skipped,
        ),
    )


def _partial(record: Partial) -> Partial:
    return msgspec.structs.replace(record, text="")


def _reached(record: Reached, *, with_summary: bool = False) -> Reached:
    return msgspec.structs.replace(record, summary=record.summary if with_summary else None, trimmed=True)


_STRIP: dict[type[Any], Callable[[Any], Any]] = {
    Result: _result,
    Partial: _partial,
    Reached: _reached,
}
