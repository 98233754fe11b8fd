"""A storage around another: forwards every hook, so that it overrides just what it changes (floor 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sifaka.errors import StorageError
from sifaka.storage.base import Cell, Durability, Entry, Query, Renewal, Row, Storage, Write

__all__ = ["StorageWrapper"]


class StorageWrapper(Storage):
    """Behaves as ``inner`` does, and states its durability."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.local = inner.local
        self.patience_s = inner.patience_s
        self.url = inner.url
        self.clock = inner.clock

    @property
    def durability(self) -> Durability:
        """What an acknowledged append survives in ``inner``, as it says now."""
        return self.inner.durability

    def refusal(self, row: Row) -> StorageError | None:
        """Why this append was refused, where there is more to say."""
        return self.inner.refusal(row)

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

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        """Renew leases, or give them back, in one commit."""
        return self.inner.renew(renewals)

    def delete(self, entries: Sequence[Entry]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""
        return self.inner.delete(entries)

    def trim(self, row: Row) -> int | None:
        """Put ``row`` in place of the rows in its range; the number of checkpoints removed."""
        return self.inner.trim(row)

    def cells(self, names: Sequence[str]) -> list[Cell]:
        """The cells of these names, in that order."""
        return self.inner.cells(names)

    def swap(self, name: str, value: bytes, version: int) -> bool:
        """Set a cell whose version still is ``version``."""
        return self.inner.swap(name, value, version)

    def cell_names(self, prefix: str = "", after: str = "", limit: int = 500) -> list[str]:
        """The names of cells that begin with ``prefix`` and lie behind ``after``."""
        return self.inner.cell_names(prefix, after, limit)

    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept."""
        return self.inner.measure()

    def complaints(self) -> list[str]:
        """What in the store's settings does not keep its promises."""
        return self.inner.complaints()

    def compact(self) -> None:
        """Give the space of what was deleted back."""
        self.inner.compact()

    def reset(self) -> None:
        """Drop connections that a failure left in an unknown state."""
        self.inner.reset()

    def close(self) -> None:
        """Give back what the store holds open."""
        self.inner.close()
