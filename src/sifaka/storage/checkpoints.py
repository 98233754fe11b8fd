"""A store's typed face: runs, states and checkpoints instead of rows (floor 3)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sifaka.errors import UnknownChainError, UsageError
from sifaka.log.checkpoint import ChainCheckpoint, checkpoints
from sifaka.log.records import Record, Status
from sifaka.storage.base import Entry, Query, Storage
from sifaka.storage.cells import SharedCells
from sifaka.storage.checking import Salvage, salvage
from sifaka.storage.journal import Journal, owned
from sifaka.storage.leases import LEASE_S
from sifaka.storage.moving import is_running
from sifaka.storage.reading import Loaded, load, load_whole, read
from sifaka.storage.retention import ENDED, clean_up
from sifaka.storage.similarity.guarded import GuardedSimilarity

__all__ = ["CachedCheckpointStorage"]

PAGE = 500
"""How many runs are looked at together."""


class CachedCheckpointStorage:
    """Checkpoints in a storage object: what a chain and a RecoveryManager work on.

    ``CachedCheckpointStorage(CachedStorage(memory_storage=InMemoryStorage()))`` is the form with tiers;
    any storage object will do. ``lease_s`` is how long a run is owned unless that is renewed (seconds).
    """

    def __init__(self, storage: Storage, *, lease_s: float = LEASE_S) -> None:
        if not isinstance(storage, Storage):
            raise UsageError(
                f"{storage!r} is no storage object; for an address write open_storage(address), or give the "
                "address to the chain itself"
            )
        self.storage = storage
        self.journal = Journal(storage, lease_s=lease_s)
        self.cells = SharedCells(storage)
        self.companions: dict[object, Any] = {}
        """What others keep one of for each store: it lives as long as the store."""
        search = getattr(storage, "search", None)
        self.search = None if search is None else GuardedSimilarity(search, clock=storage.clock)
        """Finds similar faults, where the storage has a tier that can."""

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
        if is_running(self.storage, entry):
            return entry
        return msgspec.structs.replace(entry, status="interrupted")

    def get_storage_stats(self) -> dict[str, Any]:
        """How much is stored, how old it is, and what it would survive.

        ``total_checkpoints``, ``storage_size_bytes``, ``oldest_checkpoint`` and ``newest_checkpoint``
        (datetimes, or None), ``chains`` (number by status), ``records``, ``raw_bytes`` and ``stored_bytes``
        (the records before and after compression), ``write_latency_p50_s`` and ``write_latency_p99_s``
        (seconds, of this process's newest commits; None without any), ``durability``, ``url``.
        """
        stats = self.storage.measure()
        for name in ("oldest_checkpoint", "newest_checkpoint"):
            if stats[name] is not None:
                stats[name] = datetime.fromtimestamp(stats[name], UTC)
        self._count_interrupted(stats["chains"])
        p50, p99 = self.journal.write_latencies_s()
        return stats | {
            "durability": self.storage.durability,
            "url": self.storage.url,
            "write_latency_p50_s": p50,
            "write_latency_p99_s": p99,
        }

    def _count_interrupted(self, chains: dict[str, int]) -> None:
        """Move runs whose owner is gone from where they stopped to where they belong."""
        for page in self.storage.pages(Query(statuses=("running", "waiting"), limit=PAGE)):
            for entry in page:
                if self._as_of_now(entry).status == "interrupted":
                    chains["interrupted"] = chains.get("interrupted", 0) + 1
                    chains[entry.status] -= 1
        for status in [status for status, count in chains.items() if not count]:
            del chains[status]

    def cleanup_old_checkpoints(
        self,
        max_age_days: float | None = 30,
        *,
        keep: int | None = None,
        statuses: Sequence[Status] = ENDED,
        archive: str | os.PathLike[str] | None = None,
    ) -> int:
        """Remove runs that ended more than ``max_age_days`` days ago; the number of checkpoints removed.

        Ended are done, failed and cancelled ones; ``statuses`` takes some of these. None as an age removes
        none. ``keep`` takes the texts of older iterations away from the runs that stay, so that the newest
        ``keep`` checkpoints of each remain, its result, and all that is counted. ``archive`` is a folder:
        what is removed is written into a file there first (see :mod:`sifaka.storage.archive`), but for
        damaged runs, which stay. A run that goes on is never touched. It may be interrupted and repeated.
        Raises UsageError, ValueError.
        """
        from sifaka.storage.archive import archive as write_archive

        def into(page: Sequence[Entry]) -> Sequence[Entry]:
            return page if archive is None else write_archive(self.storage, archive, page)[1]

        keeper = None if archive is None else into
        return clean_up(self.storage, max_age_days=max_age_days, keep=keep, statuses=statuses, archive=keeper)

    def delete_chain(self, chain_id: str) -> int:
        """Remove one run that nobody is running, whatever its status; the checkpoints removed.

        Raises UnknownChainError, OwnedError.
        """
        storage = self.storage
        entry = storage.entry(chain_id)
        if entry is None:
            raise UnknownChainError(chain_id)
        if is_running(storage, entry):
            raise owned(entry, storage.now())
        removed = storage.delete([entry])
        storage.compact()
        return removed

    def salvage(self, chain_id: str) -> Salvage:
        """What can be saved of a run, damaged or not. Raises UnknownChainError."""
        return salvage(self.storage, chain_id)
