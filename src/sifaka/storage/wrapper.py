"""A storage around another: forwards every hook, so that it overrides just what it changes (floor 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sifaka.storage.base import Entry, Query, Row, Storage, Write

__all__ = ["StorageWrapper"]


class StorageWrapper(Storage):
    """Behaves as ``inner`` does, and states its durability."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.durability = inner.durability
        self.local = inner.local
        self.url = inner.url
        self.clock = inner.clock

    def now(self) -> float:
        """The store's own clock, in unix seconds."""
        return self.inner.now()

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all in one commit; False where one was refused."""
        return self.inner.write(writes)

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        """As :meth:`write`, but None at once where that would wait for another process's commit."""
        return self.inner.try_write(writes)

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last``."""
        return self.inner.rows(chain_id, first, last, newest_first=newest_first)

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None."""
        return self.inner.entry(chain_id)

    def entries(self, query: Query) -> list[Entry]:
        """The entries that ``query`` selects, newest first."""
        return self.inner.entries(query)

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        return self.inner.claim(chain_id, token, owner, until)

    def lease(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Renew the lease, or give it back, if ``token`` holds."""
        return self.inner.lease(chain_id, token, owner, until)

    def delete(self, chain_ids: Sequence[str]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""
        return self.inner.delete(chain_ids)

    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept."""
        return self.inner.measure()

    def reset(self) -> None:
        """Drop connections that a failure left in an unknown state."""
        self.inner.reset()

    def close(self) -> None:
        """Give back what the store holds open."""
        self.inner.close()
