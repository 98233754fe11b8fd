"""A store in tiers; for now one tier, the memory (floor 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sifaka.storage.base import Entry, Query, Row, Storage, Write

__all__ = ["CachedStorage"]


class CachedStorage(Storage):
    """The tiers of a store as one. Reads and writes go to ``memory_storage``, whose durability it has."""

    def __init__(self, memory_storage: Storage) -> None:
        self.memory_storage = memory_storage
        self.durability = memory_storage.durability
        self.local = memory_storage.local
        self.url = memory_storage.url
        self.clock = memory_storage.clock

    def now(self) -> float:
        """The store's own clock, in unix seconds."""
        return self.memory_storage.now()

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all in one commit; False where one was refused."""
        return self.memory_storage.write(writes)

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last``."""
        return self.memory_storage.rows(chain_id, first, last, newest_first=newest_first)

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None."""
        return self.memory_storage.entry(chain_id)

    def entries(self, query: Query) -> list[Entry]:
        """The entries that ``query`` selects, newest first."""
        return self.memory_storage.entries(query)

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        return self.memory_storage.claim(chain_id, token, owner, until)

    def lease(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Renew the lease, or give it back, if ``token`` holds."""
        return self.memory_storage.lease(chain_id, token, owner, until)

    def delete(self, chain_ids: Sequence[str]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""
        return self.memory_storage.delete(chain_ids)

    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept."""
        return self.memory_storage.measure()

    def reset(self) -> None:
        """Drop connections that a failure left in an unknown state."""
        self.memory_storage.reset()

    def close(self) -> None:
        """Give back what the store holds open."""
        self.memory_storage.close()
