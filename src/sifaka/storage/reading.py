"""Reading a log back: verified records, the state a resume starts from, the whole history (floor 3).

A state is loaded backwards: to the beginning of the iteration before the one under way, where a
summary stands for all that came earlier. So loading costs the same at iteration 3 and at iteration
3,000; the older thoughts are read when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from sifaka.errors import DamagedRecordError, UnknownChainError
from sifaka.log.codec import decode, link_of
from sifaka.log.records import Opened, Reached, Record, Result
from sifaka.log.state import State
from sifaka.storage.base import Row, Storage

__all__ = ["Loaded", "decode_row", "load", "load_whole", "read", "read_rows"]

SUMMARIES = 2
"""How many iteration starts a load goes back: the draft to improve on is in the iteration before."""


class Loaded:
    """A state, and the checksum of its last row: what the next append links to."""

    __slots__ = ("prev", "state")

    def __init__(self, state: State, prev: int) -> None:
        self.state = state
        self.prev = prev


def read(storage: Storage, chain_id: str, last: int | None = None) -> Iterator[Record]:
    """The records of a run from its first to ``last`` (None: all), each row's checksum and link checked.

    Raises UnknownChainError, and DamagedRecordError at the first damaged or missing record.
    """
    for row, records in read_rows(storage, chain_id, last):
        keep = len(records) if last is None else last - row.first + 1
        yield from records[:keep]


def read_rows(storage: Storage, chain_id: str, last: int | None = None) -> Iterator[tuple[Row, list[Record]]]:
    """As :func:`read`, row by row: each with its records."""
    expected, prev = 0, 0
    for row in storage.rows(chain_id, 0, last):
        if row.first != expected:
            raise _missing(chain_id, expected, row.first)
        yield row, decode_row(row, prev)
        expected, prev = row.last + 1, link_of(row.frame)
    if not expected:
        raise UnknownChainError(chain_id)


def decode_row(row: Row, prev: int | None) -> list[Record]:
    """A row's records; ``prev`` is what it must link to (None: not looked at). Raises DamagedRecordError."""
    records = decode(row.frame, chain_id=row.chain_id, first=row.first, token=row.token, prev=prev)
    if len(records) != row.last - row.first + 1:
        raise DamagedRecordError(row.chain_id, row.first, row.last, "its length is wrong")
    return records


def _missing(chain_id: str, first: int, found: int) -> DamagedRecordError:
    return DamagedRecordError(chain_id, first, max(first, found - 1), "they are missing")


def load_whole(storage: Storage, chain_id: str, last: int | None = None) -> Loaded:
    """The state with its whole history in memory, every record verified."""
    state, prev = State(chain_id), 0
    for row, records in read_rows(storage, chain_id, last):
        prev = link_of(row.frame)
        for record in records:
            if last is None or state.next_seq <= last:
                state.apply(record)
    return Loaded(state, prev)


def load(storage: Storage, chain_id: str) -> Loaded:
    """The state at the end of the log; earlier iterations are read when first asked for.

    Raises UnknownChainError, DamagedRecordError.
    """
    tail = _tail(storage, chain_id)
    prev = link_of(tail[0][0].frame)
    tail.reverse()
    state = State(chain_id)
    start = _start(state, storage, tail)
    for row, records in tail:
        for seq, record in enumerate(records, row.first):
            if seq >= start:
                state.apply(record)
    if start:
        _make_lazy(state, storage)
    return Loaded(state, prev)


def _tail(storage: Storage, chain_id: str) -> list[tuple[Row, list[Record]]]:
    """The newest rows, newest first, back to the second-last summary or the beginning."""
    tail: list[tuple[Row, list[Record]]] = []
    newer: Row | None = None
    summaries = 0
    for row in storage.rows(chain_id, newest_first=True):
        if newer is not None:
            if row.last != newer.first - 1:
                raise _missing(chain_id, row.last + 1, newer.first)
            tail.append((newer, decode_row(newer, link_of(row.frame))))
            summaries += _summaries(tail[-1][1])
            if summaries >= SUMMARIES:
                return tail
        newer = row
    if newer is None:
        raise UnknownChainError(chain_id)
    if newer.first:
        raise _missing(chain_id, 0, newer.first)
    tail.append((newer, decode_row(newer, 0)))
    return tail


def _summaries(records: list[Record]) -> int:
    return sum(isinstance(one, Reached) and one.summary is not None for one in records)


def _start(state: State, storage: Storage, tail: list[tuple[Row, list[Record]]]) -> int:
    """Prepare ``state`` to fold ``tail``; the number of the first record to fold."""
    oldest, records = tail[0]
    if oldest.first == 0:
        return 0
    first = next(storage.rows(state.chain_id, 0, 0), None)
    if first is None or first.first:
        raise _missing(state.chain_id, 0, first.first if first else 1)
    opened = decode_row(first, 0)[0]
    if not isinstance(opened, Opened):
        raise DamagedRecordError(state.chain_id, 0, 0, "it does not open the run")
    state.apply(opened)
    for seq, record in enumerate(records, oldest.first):
        if isinstance(record, Reached) and record.summary is not None:
            state.resume_from(record.summary, record.at, seq, record.to)
            _restore_documents(state, storage)
            return seq + 1
    raise AssertionError("a tail that does not begin the log begins with a summary")


def _restore_documents(state: State, storage: Storage) -> None:
    for seq in state.documents_at:
        for row in storage.rows(state.chain_id, seq, seq):
            found = decode_row(row, None)[seq - row.first]
            if isinstance(found, Result):
                state.documents[found.part] = found.documents or ()


def _make_lazy(state: State, storage: Storage) -> None:
    """What the partial fold could not know whole (thoughts and their own prompts) is read on demand."""
    chain_id, last = state.chain_id, state.next_seq - 1

    @cache
    def whole() -> State:
        return load_whole(storage, chain_id, last).state

    state.whole = whole
    state.history_is_whole = False
    state.best_thought = None
