"""The store that lives in this process: for development and tests, and the model of all others (floor 3)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from sifaka.clock import Clock, SystemClock
from sifaka.locks import ProcessLock
from sifaka.storage.base import Cell, Entry, Query, Renewal, Row, Storage, Write

__all__ = ["InMemoryStorage"]

_NO_CELL = Cell()


class InMemoryStorage(Storage):
    """Keeps frames in dictionaries. Nothing survives the process: ``durability`` is "none"."""

    url = "memory://"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self._lock = ProcessLock()
        self._rows: dict[str, list[Row]] = {}
        self._entries: dict[str, Entry] = {}
        self._cells: dict[str, Cell] = {}

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all; False where one was refused."""
        with self._lock:
            return [self._write(write) for write in writes]

    def _write(self, write: Write) -> bool:
        row = write.row
        found = self._entries.get(row.chain_id)
        entry = found or write.opens
        if entry is None or (found is not None and write.opens is not None):
            return False
        if entry.token != row.token or entry.last != row.first - 1:
            return False
        self._rows.setdefault(row.chain_id, []).append(row)
        changed = entry if write.change is None else write.change.applied_to(entry)
        self._entries[row.chain_id] = msgspec.structs.replace(changed, last=row.last)
        return True

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last``."""
        with self._lock:
            rows = self._rows.get(chain_id, [])
            start = bisect_left(rows, first, key=attrgetter("last"))
            found = [row for row in rows[start:] if last is None or row.first <= last]
        return iter(found[::-1] if newest_first else found)

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None."""
        return self._entries.get(chain_id)

    def entries(self, query: Query) -> list[Entry]:
        """The entries that ``query`` selects, newest first."""
        with self._lock:
            found = [entry for entry in self._entries.values() if _selects(query, entry)]
        found.sort(key=_newest, reverse=True)
        if query.after is not None:
            found = [entry for entry in found if _newest(entry) < _newest(query.after)]
        return found[: query.limit]

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        return self._replace(chain_id, token, token=token + 1, owner=owner, lease_until=until)

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        """Renew leases, or give them back."""
        with self._lock:
            return [self._renew(one) for one in renewals]

    def _renew(self, one: Renewal) -> bool:
        entry = self._entries.get(one.chain_id)
        if entry is None or (one.owner and entry.owner != one.owner):
            return False
        return self._replace(one.chain_id, one.token, owner=one.owner, lease_until=one.until)

    def _replace(self, chain_id: str, expected: int, **changes: Any) -> bool:
        with self._lock:
            entry = self._entries.get(chain_id)
            if entry is None or entry.token != expected:
                return False
            self._entries[chain_id] = msgspec.structs.replace(entry, **changes)
            return True

    def delete(self, entries: Sequence[Entry]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""
        with self._lock:
            removed = 0
            for one in entries:
                found = self._entries.get(one.chain_id)
                if found is not None and found.token == one.token:
                    del self._entries[one.chain_id]
                    removed += sum(row.checkpoints for row in self._rows.pop(one.chain_id))
            return removed

    def trim(self, row: Row) -> int | None:
        """Put ``row`` in place of the rows in its range; the number of checkpoints removed."""
        with self._lock:
            entry = self._entries.get(row.chain_id)
            rows = self._rows.get(row.chain_id, [])
            start = bisect_left(rows, row.first, key=attrgetter("first"))
            end = bisect_left(rows, row.last + 1, key=attrgetter("first"))
            covered = rows[start:end]
            if entry is None or entry.token != row.token or end >= len(rows) or not covered:
                return None
            if (covered[0].first, covered[-1].last) != (row.first, row.last):
                return None
            rows[start:end] = [row]
            return sum(one.checkpoints for one in covered) - row.checkpoints

    def cells(self, names: Sequence[str]) -> list[Cell]:
        """The cells of these names, in that order."""
        with self._lock:
            return [self._cells.get(name, _NO_CELL) for name in names]

    def swap(self, name: str, value: bytes, version: int) -> bool:
        """Set a cell whose version still is ``version``."""
        with self._lock:
            if self._cells.get(name, _NO_CELL).version != version:
                return False
            self._cells[name] = Cell(value, version + 1)
            return True

    def cell_names(self, prefix: str = "", after: str = "", limit: int = 500) -> list[str]:
        """The names of cells that begin with ``prefix`` and lie behind ``after``."""
        with self._lock:
            return sorted(one for one in self._cells if one.startswith(prefix) and one > after)[:limit]

    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept."""
        with self._lock:
            rows = [row for rows in self._rows.values() for row in rows]
            times = [row.at for row in rows if row.checkpoints]
            stored = sum(len(row.frame) for row in rows)
            chains: dict[str, int] = {}
            for entry in self._entries.values():
                chains[entry.status] = chains.get(entry.status, 0) + 1
        return {
            "total_checkpoints": sum(row.checkpoints for row in rows),
            "records": sum(row.last - row.first + 1 for row in rows),
            "storage_size_bytes": stored,
            "stored_bytes": stored,
            "raw_bytes": sum(row.raw for row in rows),
            "oldest_checkpoint": min(times, default=None),
            "newest_checkpoint": max(times, default=None),
            "chains": chains,
        }


def _newest(entry: Entry) -> tuple[float, str]:
    return entry.updated_at, entry.chain_id


def _selects(query: Query, entry: Entry) -> bool:
    wanted = (
        (query.statuses is None or entry.status in query.statuses),
        (query.group is None or entry.group == query.group),
        (query.label is None or entry.label == query.label),
        (query.updated_before is None or entry.updated_at < query.updated_before),
        (query.updated_since is None or entry.updated_at >= query.updated_since),
    )
    return all(wanted)
