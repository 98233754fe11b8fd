"""Locks that a fork leaves usable, and a fork that leaves libraries usable (floor 3)."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

__all__ = ["LibraryLock", "ProcessLock"]

FORK_WAITS_S = 5.0
"""How long a fork waits for a call into a library to end, at most."""


class ProcessLock:
    """A re-entrant lock, as a context manager; the child of a fork has one of its own.

    Without that it would have a copy of the lock as it was, perhaps for ever in another thread's hand.
    """

    __slots__ = ("__weakref__", "_pid", "lock")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.lock = threading.RLock()

    def __enter__(self) -> None:
        if self._pid != os.getpid():
            self._pid, self.lock = os.getpid(), threading.RLock()
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


class LibraryLock(ProcessLock):
    """Guards calls into a library that has locks of its own, as SQLite has: no fork comes amid one.

    Who holds it must not wait for any other lock.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        _guards.add(self)


_guards: WeakSet[LibraryLock] = WeakSet()
_held: list[Any] = []


def _before_fork() -> None:
    locks = [guard.lock for guard in _guards]
    _held.extend(lock for lock in locks if lock.acquire(timeout=FORK_WAITS_S))


def _in_parent() -> None:
    while _held:
        _held.pop().release()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_held.clear)
