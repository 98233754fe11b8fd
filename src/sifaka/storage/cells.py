"""A store's shared cells as their users see them: read a little stale, changed by compare-and-set (floor 3).

Reading costs nothing while what was read is younger than a second; changing reads afresh. Neither is ever
on an append's path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sifaka.errors import StorageError
from sifaka.storage.base import Storage

__all__ = ["SharedCells"]

STALE_S = 1.0
"""How old an answer may be, in seconds."""
NAMES_MAX = 1_000
"""So many cells are remembered; then all are read anew."""
TRIES = 50
"""How often a change is tried again because another process was quicker."""


class SharedCells:
    """The cells of one store. Safe to share between threads. Raises StorageError."""

    def __init__(self, storage: Storage, *, stale_s: float = STALE_S) -> None:
        self.storage = storage
        self.stale_s = stale_s
        self._known: dict[str, tuple[float, bytes]] = {}

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The cells' values (empty: not set), in one round trip at most."""
        now = self.storage.clock.monotonic()
        known = self._known
        fresh = {name: known[name][1] for name in names if name in known and now < known[name][0]}
        missing = [name for name in names if name not in fresh]
        if missing:
            found = self.storage.cells(missing)
            for name, cell in zip(missing, found, strict=True):
                fresh[name] = self._remember(name, cell.value)
        return [fresh[name] for name in names]

    def _remember(self, name: str, value: bytes) -> bytes:
        if len(self._known) >= NAMES_MAX:
            self._known = {}
        self._known[name] = (self.storage.clock.monotonic() + self.stale_s, value)
        return value

    def change(self, name: str, function: Callable[[bytes], bytes]) -> bytes:
        """Set a cell to ``function`` of its value, whoever else changes it meanwhile; the new value.

        Nothing is written where the value stays as it is.

        Where the acknowledgement of a change is lost it may be made twice: what is counted here may be
        counted twice then, and never gets lost.
        """
        for _ in range(TRIES):
            (cell,) = self.storage.cells([name])
            value = function(cell.value)
            if value == cell.value or self.storage.swap(name, value, cell.version):
                return self._remember(name, value)
        raise StorageError(f"the shared cell {name!r} was changed by others {TRIES} times in a row")
