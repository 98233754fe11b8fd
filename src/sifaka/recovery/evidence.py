"""What a store's history says of a recovery: counts of what worked, and similar cases (floor 4).

Counts are kept by fault kind and operation in the store's shared cells, so that all processes share them and
they outlive the texts they came from. A process that dies between an outcome and its count loses the count:
evidence, not bookkeeping. Similar cases are a hint beside the counts, and never hold a recovery up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from sifaka.errors import StorageError
from sifaka.log.records import Recovery
from sifaka.recovery.actions import RecoveryAction
from sifaka.recovery.ranking import Counts, Situation, rank
from sifaka.storage.cells import SharedCells
from sifaka.storage.similarity import Case, Match
from sifaka.storage.similarity.guarded import GuardedSimilarity

__all__ = ["Attempt", "Evidence"]

SIMILAR_FROM = 0.6
"""Cases less similar than this are not called similar."""
SIMILAR_MAX = 10

Table = dict[str, dict[str, tuple[int, int]]]
"""Operation to strategy to (tried, worked)."""
_tables = msgspec.msgpack.Decoder(Table)


class Attempt(NamedTuple):
    """A recovery action, the fault it was for, and whether it worked."""

    seq: int
    recovery: Recovery
    text: str
    model: str
    success: bool


class Evidence:
    """The evidence of one store: ranks with it, and learns from outcomes. Raises nothing for the store.

    Where counts or similar cases cannot be read, the ranking goes on with what is left and says so.
    """

    def __init__(self, cells: SharedCells, search: GuardedSimilarity | None = None) -> None:
        self._cells = cells
        self._search = search

    def rank(self, at: Situation) -> list[RecoveryAction]:
        """The actions that may help, best first, by counts, similar cases and prior."""
        counts, note = self._counts(at)
        similar, missing = self._similar(at)
        notes = "; ".join(one for one in (note, missing) if one)
        return rank(at._replace(counts=counts, similar=similar, note=notes))

    def _counts(self, at: Situation) -> tuple[Counts, str]:
        try:
            (value,) = self._cells.read([_cell(at.fault.kind)])
            table = _tables.decode(value) if value else {}
        except (StorageError, msgspec.DecodeError) as error:
            return {}, f"the history cannot be read: {error}"
        return table.get(at.position.operation, {}), ""

    def _similar(self, at: Situation) -> tuple[Counts, str]:
        if self._search is None:
            return {}, ""
        fault = at.fault
        case = Case(
            case_id="",
            chain_id=at.chain_id,
            text=fault.message,
            kind=fault.kind,
            step=at.position.operation,
            iteration=at.position.iteration,
            part=at.part,
            model=str(at.options.get("model", "")),
        )
        found = self._search.nearest(case, SIMILAR_MAX)
        return _tally(found.matches), found.note

    def learn(self, chain_id: str, attempts: Iterable[Attempt]) -> str:
        """Count what came of these attempts; what could not be stored, in a sentence, or ""."""
        notes: list[str] = []
        for attempt in attempts:
            try:
                self._count(attempt)
            except (StorageError, msgspec.DecodeError) as error:
                notes.append(str(error))
            if self._search is not None:
                notes.append(self._search.add([_case(chain_id, attempt)]))
        return "; ".join(note for note in dict.fromkeys(notes) if note)

    def _count(self, attempt: Attempt) -> None:
        recovery, success = attempt.recovery, attempt.success

        def counted(value: bytes) -> bytes:
            table = _tables.decode(value) if value else {}
            row = table.setdefault(recovery.operation, {})
            tried, worked = row.get(recovery.strategy, (0, 0))
            row[recovery.strategy] = (tried + 1, worked + success)
            return msgspec.msgpack.encode(table)

        self._cells.change(_cell(recovery.error_kind), counted)


def _cell(kind: str) -> str:
    return f"evidence/{kind or 'other'}"


def _case(chain_id: str, attempt: Attempt) -> Case:
    recovery = attempt.recovery
    return Case(
        case_id=f"{chain_id}:{attempt.seq}",
        chain_id=chain_id,
        text=attempt.text,
        kind=recovery.error_kind,
        step=recovery.operation,
        iteration=recovery.iteration,
        part=recovery.part,
        model=attempt.model,
        action=recovery.strategy,
        parameters=recovery.parameters,
        success=attempt.success,
        at=recovery.at,
    )


def _tally(matches: Sequence[Match]) -> Counts:
    counts: dict[str, tuple[int, int]] = {}
    for match in matches:
        case = match.case
        if match.similarity >= SIMILAR_FROM and case.action and case.success is not None:
            tried, worked = counts.get(case.action, (0, 0))
            counts[case.action] = (tried + 1, worked + case.success)
    return counts
