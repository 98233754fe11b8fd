"""Small runs to put into a store: rows, openings and what a store shows of them (floor 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sifaka.storage.base import Change, Entry, Row, Storage, Write
from sifaka.testing.contract.checks import expect, expect_equal

__all__ = [
    "OWNER",
    "START",
    "entry_of",
    "names",
    "opening",
    "put",
    "renamed",
    "row",
    "row_after",
    "shown",
    "started",
]

OWNER = b"owner one"
START = 1_700_000_000.25
"""When the runs of the contract begin, in unix seconds."""


def row(chain_id: str, first: int, last: int | None = None, token: int = 1, **fields: Any) -> Row:
    """A row of records ``first`` to ``last`` (None: one record) with a frame of its own."""
    last = first if last is None else last
    known: dict[str, Any] = {
        "at": START + last,
        "checkpoints": 1,
        "frame": f"{chain_id} {first} to {last} under {token}".encode(),
        "raw": 100 + last,
    }
    return Row(chain_id, first, last, token, **(known | fields))


def opening(chain_id: str, *, first: int = 0, change: Change | None = None, **fields: Any) -> Write:
    """A write that opens a run with its record ``first``; ``fields`` are its entry's."""
    known: dict[str, Any] = {
        "owner": OWNER,
        "lease_until": START + 60,
        "opened_at": START,
        "updated_at": START,
        "last": first - 1,
    }
    entry = Entry(chain_id, **(known | fields))
    return Write(row(chain_id, first, token=entry.token), change, entry)


def put(storage: Storage, *writes: Write) -> None:
    """Write, and expect that all is accepted."""
    accepted = storage.write(writes)
    expect_equal(accepted, [True] * len(writes), "a write at its place under the current token is accepted")


def at_once(storage: Storage, writes: Sequence[Write]) -> list[bool]:
    """The answers of ``try_write``; where that would wait it has done nothing, and ``write`` does it."""
    before = shown(storage, *(write.row.chain_id for write in writes))
    accepted = storage.try_write(writes)
    if accepted is None:
        after = shown(storage, *(write.row.chain_id for write in writes))
        expect_equal(after, before, "try_write does nothing where it would have to wait")
        return storage.write(writes)
    return accepted


def started(storage: Storage, chain_id: str = "a", rows: int = 1, **fields: Any) -> Entry:
    """Open a run of so many rows, a record each; its entry as the store shows it."""
    put(storage, opening(chain_id, **fields))
    for _ in range(1, rows):
        put(storage, Write(row_after(storage, chain_id)))
    return entry_of(storage, chain_id)


def row_after(storage: Storage, chain_id: str = "a", records: int = 1, **fields: Any) -> Row:
    """The row that may follow now, under the current token."""
    entry = entry_of(storage, chain_id)
    known: dict[str, Any] = {"token": entry.token}
    return row(chain_id, entry.last + 1, entry.last + records, **(known | fields))


def entry_of(storage: Storage, chain_id: str) -> Entry:
    """The entry of a run that must be there."""
    entry = storage.entry(chain_id)
    expect(entry is not None, "a run that was opened has an entry", chain_id=chain_id)
    return entry or Entry(chain_id)


def shown(storage: Storage, *chain_ids: str) -> list[tuple[Entry | None, list[Row]]]:
    """All that a store shows of these runs, to compare before with after."""
    return [(storage.entry(one), list(storage.rows(one))) for one in chain_ids]


def names(entries: Sequence[Entry]) -> list[str]:
    """The runs' ids, in order."""
    return [entry.chain_id for entry in entries]


def renamed(entry: Entry, **fields: Any) -> Entry:
    """The entry with other fields."""
    return msgspec.structs.replace(entry, **fields)
