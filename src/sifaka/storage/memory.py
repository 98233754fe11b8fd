"""The store that lives in this process: for development and tests, and the model of all others (floor 3)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from sifaka.clock import Clock, SystemClock
from sifaka.storage.base import Entry, Query, Row, Storage, Write
from sifaka.storage.locks import ProcessLock

__all__ = ["InMemoryStorage"]


class InMemoryStorage(Storage):
    """Keeps frames in dictionaries. Nothing survives the process: ``durability`` is "none"."""

    durability = "none"
    url = "memory://"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self._lock = ProcessLock()
        self._rows: dict[str, list[Row]] = {}
        self._entries: dict[str, Entry] = {}

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all; False where one was refused."""
        with self._lock:
            return [self._write(write) for write in writes]

    def _write(self, write: Write) -> bool:
        row = write.row
        entry = self._entries.get(row.chain_id)
        if entry is None and write.opens is not None:
            entry = write.opens
            self._rows[row.chain_id] = []
        elif entry is None or write.opens is not None:
            return False
        if entry.token != row.token or entry.last != row.first - 1:
            return False
        self._rows[row.chain_id].append(row)
        changes: dict[str, Any] = {"last": row.last}
        change = write.change
        if change is not None:
            changes |= {
                "status": change.status,
                "reason": change.reason,
                "group": change.group,
                "until": change.until,
                "updated_at": change.at,
            }
            if change.release:
                changes |= {"owner": b"", "lease_until": 0.0}
        self._entries[row.chain_id] = msgspec.structs.replace(entry, **changes)
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

    def lease(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Renew the lease of ``owner``, or give it back (``owner`` empty)."""
        with self._lock:
            entry = self._entries.get(chain_id)
            if entry is None or (owner and entry.owner != owner):
                return False
            return self._replace(chain_id, token, owner=owner, lease_until=until)

    def _replace(self, chain_id: str, expected: int, **changes: Any) -> bool:
        with self._lock:
            entry = self._entries.get(chain_id)
            if entry is None or entry.token != expected:
                return False
            self._entries[chain_id] = msgspec.structs.replace(entry, **changes)
            return True

    def delete(self, chain_ids: Sequence[str]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""
        with self._lock:
            removed = 0
            for chain_id in chain_ids:
                self._entries.pop(chain_id, None)
                removed += sum(row.checkpoints for row in self._rows.pop(chain_id, []))
            return removed

    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept."""
        with self._lock:
            rows = [row for rows in self._rows.values() for row in rows]
            times = [row.at for row in rows if row.checkpoints]
            chains: dict[str, int] = {}
            for entry in self._entries.values():
                chains[entry.status] = chains.get(entry.status, 0) + 1
        return {
            "total_checkpoints": sum(row.checkpoints for row in rows),
            "records": sum(row.last - row.first + 1 for row in rows),
            "storage_size_bytes": sum(len(row.frame) for row in rows),
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
