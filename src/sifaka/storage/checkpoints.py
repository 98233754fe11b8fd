"""A store's typed face: runs, states and checkpoints instead of rows (floor 3)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from sifaka.log.checkpoint import ChainCheckpoint, checkpoints
from sifaka.log.records import Record
from sifaka.storage.base import Entry, Query, Storage
from sifaka.storage.journal import Journal
from sifaka.storage.leases import LEASE_S, is_dead
from sifaka.storage.reading import Loaded, load, load_whole, read

__all__ = ["CachedCheckpointStorage"]

DAY_S = 86_400.0
PAGE = 500
"""How many runs a clean-up looks at together."""


class CachedCheckpointStorage:
    """Checkpoints in a storage object: what a chain and a RecoveryManager work on.

    ``CachedCheckpointStorage(CachedStorage(memory_storage=InMemoryStorage()))`` is the form with tiers;
    any storage object will do. ``lease_s`` is how long a run is owned unless that is renewed (seconds).
    """

    def __init__(self, storage: Storage, *, lease_s: float = LEASE_S) -> None:
        self.storage = storage
        self.journal = Journal(storage, lease_s=lease_s)

    def records(self, chain_id: str) -> Iterator[Record]:
        """The run's records, oldest first, verified. Raises UnknownChainError, DamagedRecordError."""
        return read(self.storage, chain_id)

    def load(self, chain_id: str) -> Loaded:
        """The run's state; its older history is read when asked for."""
        return load(self.storage, chain_id)

    def load_whole(self, chain_id: str) -> Loaded:
        """The run's state with its whole history, every record verified."""
        return load_whole(self.storage, chain_id)

    def get_checkpoints(self, chain_id: str) -> list[ChainCheckpoint]:
        """The run's checkpoints, oldest first; empty for a run that is not there."""
        if self.storage.entry(chain_id) is None:
            return []
        return list(checkpoints(chain_id, self.records(chain_id)))

    def get_chains(self, query: Query | None = None) -> list[Entry]:
        """The runs that ``query`` selects, newest first, each with the status it has now."""
        found = self.storage.entries(query or Query())
        return [self._as_of_now(entry) for entry in found]

    def get_chain(self, chain_id: str) -> Entry | None:
        """One run, with the status it has now; None where the store has no such run."""
        entry = self.storage.entry(chain_id)
        return None if entry is None else self._as_of_now(entry)

    def _as_of_now(self, entry: Entry) -> Entry:
        """A run whose owner is gone is *interrupted*, whatever its last record says."""
        if entry.status not in ("running", "waiting"):
            return entry
        if entry.owner and entry.lease_until > self.storage.now() and not is_dead(entry.owner):
            return entry
        return msgspec.structs.replace(entry, status="interrupted")

    def get_storage_stats(self) -> dict[str, Any]:
        """How much is stored, how old it is, and what it would survive.

        ``total_checkpoints``, ``storage_size_bytes``, ``oldest_checkpoint`` and ``newest_checkpoint``
        (datetimes, or None), ``chains`` (number by status), ``records``, ``durability``, ``url``.
        """
        stats = self.storage.measure()
        for name in ("oldest_checkpoint", "newest_checkpoint"):
            if stats[name] is not None:
                stats[name] = datetime.fromtimestamp(stats[name], UTC)
        self._count_interrupted(stats["chains"])
        return stats | {"durability": self.storage.durability, "url": self.storage.url}

    def _count_interrupted(self, chains: dict[str, int]) -> None:
        """Move runs whose owner is gone from where they stopped to where they belong."""
        query = Query(statuses=("running", "waiting"), limit=PAGE)
        while found := self.storage.entries(query):
            for entry in found:
                if self._as_of_now(entry).status == "interrupted":
                    chains["interrupted"] = chains.get("interrupted", 0) + 1
                    chains[entry.status] -= 1
            query = msgspec.structs.replace(query, after=found[-1])
        for status in [status for status, count in chains.items() if not count]:
            del chains[status]

    def cleanup_old_checkpoints(self, max_age_days: float = 30) -> int:
        """Remove runs that ended more than ``max_age_days`` days ago; the number of checkpoints removed.

        Ended are done, failed and cancelled ones. It may be interrupted and repeated.
        """
        if max_age_days < 0:
            raise ValueError(f"max_age_days is {max_age_days}; it must not be negative")
        before = self.storage.now() - max_age_days * DAY_S
        old = Query(statuses=("done", "failed", "cancelled"), updated_before=before, limit=PAGE)
        removed = 0
        while found := self.storage.entries(old):
            removed += self.storage.delete([entry.chain_id for entry in found])
        return removed
