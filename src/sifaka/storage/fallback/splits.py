"""Two stores with different continuations of one run: found, told, and never merged (floor 3).

The facts are kept in a cell of the fallback journal, so that every process that uses it is told the same
until somebody has decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from sifaka.errors import DamagedRecordError, DataError
from sifaka.log.codec import decode, encode, link_of, raw_bytes
from sifaka.log.records import Opened, Result
from sifaka.storage.base import Entry, Row, Storage
from sifaka.storage.cells import SharedCells

__all__ = ["Split", "Splits", "split_of", "under_new_id"]

PREFIX = "split/"
PAGE = 500
_FREE = frozenset(("retrieval", "critic_retrieval", "complete"))
_encoder = msgspec.msgpack.Encoder()


class Split(msgspec.Struct, frozen=True):
    """Where the two heads are. ``why`` is half a sentence about the primary.

    The journal has records ``journal_first`` to ``journal_last``; the primary ends at ``primary_last`` (-1:
    it has no such run) under ``primary_token``. ``repeats`` results of paid calls are in both since the
    split, of ``repeats_usd`` US dollars as far as prices are known.
    """

    chain_id: str
    why: str
    primary_last: int
    primary_token: int
    journal_first: int
    journal_last: int
    repeats: int = 0
    repeats_usd: float = 0.0


class Splits:
    """The splits that are recorded in a journal."""

    def __init__(self, journal: Storage) -> None:
        self._journal = journal

    def find(self, chain_id: str) -> Split | None:
        """What is recorded about a run."""
        cell = self._journal.cells([PREFIX + chain_id])[0]
        return msgspec.msgpack.decode(cell.value, type=Split) if cell.value else None

    def all(self) -> list[Split]:
        """Every split that nobody has decided yet."""
        found: list[Split] = []
        after = ""
        while names := self._journal.cell_names(PREFIX, after, PAGE):
            cells = self._journal.cells(names)
            found += [msgspec.msgpack.decode(cell.value, type=Split) for cell in cells if cell.value]
            after = names[-1]
        return found

    def record(self, chain_id: str, split: Split | None) -> None:
        """Record a split, or (None) that it is none any more."""
        value = b"" if split is None else _encoder.encode(split)
        SharedCells(self._journal).change(PREFIX + chain_id, lambda _: value)


def split_of(
    why: str, there: Entry | None, primary: Sequence[Row], journal: Sequence[Row], same: int
) -> Split:
    """The facts. ``same`` of the journal's rows are in the primary; ``primary`` are its rows behind those."""
    repeats, usd = _repeats(primary, journal[same:])
    return Split(
        chain_id=journal[0].chain_id,
        why=why,
        primary_last=there.last if there else -1,
        primary_token=there.token if there else 0,
        journal_first=journal[0].first,
        journal_last=journal[-1].last,
        repeats=repeats,
        repeats_usd=usd,
    )


def under_new_id(rows: Iterable[Row], new_id: str) -> Iterator[Row]:
    """The same records as the log of another run, whose only token is 1.

    Raises DamagedRecordError where a row is damaged, or does not follow the one before it.
    """
    expected = prev = own_prev = 0
    for row in rows:
        if row.first != expected:
            raise DamagedRecordError(row.chain_id, expected, max(expected, row.first - 1), "they are missing")
        records = decode(row.frame, chain_id=row.chain_id, first=row.first, token=row.token, prev=prev)
        own = [replace(one, chain_id=new_id) if isinstance(one, Opened) else one for one in records]
        frame = encode(own, chain_id=new_id, first=row.first, token=1, prev=own_prev)
        yield replace(row, chain_id=new_id, token=1, frame=frame, raw=raw_bytes(frame))
        expected, prev, own_prev = row.last + 1, link_of(row.frame), link_of(frame)


def _repeats(primary: Iterable[Row], journal: Iterable[Row]) -> tuple[int, float]:
    """How many calls for the same place in the run were answered in both, and what the journal's cost."""
    others = Counter(_place(one) for one in _results(primary))
    count, usd = 0, 0.0
    for one in _results(journal):
        if others[_place(one)]:
            others[_place(one)] -= 1
            count += 1
            usd += one.price_usd or 0.0
    return count, usd


def _place(result: Result) -> tuple[str, int, str]:
    return result.operation, result.iteration, result.part


def _results(rows: Iterable[Row]) -> list[Result]:
    found: list[Result] = []
    for row in rows:
        try:
            records = decode(row.frame, chain_id=row.chain_id, first=row.first, token=row.token)
        except DataError:
            continue  # a damaged row is no reason to say nothing of the others
        found += [one for one in records if isinstance(one, Result) and _was_paid(one)]
    return found


def _was_paid(result: Result) -> bool:
    return result.intent >= 0 and result.operation not in _FREE
