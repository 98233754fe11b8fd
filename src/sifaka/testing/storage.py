"""A store that fails where it is told to (floor 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from sifaka.storage.base import Storage, Write
from sifaka.storage.wrapper import StorageWrapper

__all__ = ["FaultyStorage"]


class FaultyStorage(StorageWrapper):
    """Calls ``on_write(number, when)`` before and after each write; numbers count from 1.

    What it raises is raised by the write: before it nothing was stored; after it everything was, and
    only the acknowledgement is lost. It may also end the process.
    """

    def __init__(self, inner: Storage, on_write: Callable[[int, Literal["before", "after"]], object]) -> None:
        super().__init__(inner)
        self.writes = 0
        self._on_write = on_write

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        """As :meth:`write`: the fault is the same."""
        return self.write(writes)

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all, with the fault before or after."""
        self.writes += 1
        number = self.writes
        self._on_write(number, "before")
        done = super().write(writes)
        self._on_write(number, "after")
        return done
