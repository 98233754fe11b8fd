"""Locks that a fork leaves usable, and a fork that leaves libraries usable (floor 0)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from threading import get_ident

__all__ = ["LibraryLock", "ProcessLock"]

FORK_WAITS_S = 5.0
"""How long a fork waits for calls into libraries to end, at most."""
POLL_S = 0.0005


class ProcessLock:
    """A re-entrant lock, as a context manager; the child of a fork has one of its own.

    Without that it would have a copy of the lock as it was, perhaps for ever in another thread's hand.
    """

    __slots__ = ("_pid", "lock")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.lock = threading.RLock()

    def take(self, *, wait: bool) -> bool:
        """Take it, to be given back by :meth:`give_back`; False where somebody has it and nobody waits."""
        if self._pid != os.getpid():
            self._renew()
        return self.lock.acquire(blocking=wait)

    def give_back(self) -> None:
        """As leaving it."""
        self.lock.release()

    # Bound here, as below: when the interpreter ends, the module's own names may be gone.
    def __enter__(self, getpid: Callable[[], int] = os.getpid) -> None:
        if self._pid != getpid():
            self._renew()
        self.lock.acquire()

    def _renew(self) -> None:
        with _fork.gate:  # of two threads that come at once one makes it
            if self._pid != os.getpid():
                self.lock = threading.RLock()
                self._pid = os.getpid()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


class _Fork:
    """A gate that a fork shuts, and the threads that are inside a library: it waits until none is.

    The gate is re-entrant, and who is inside already passes freely: the garbage collector may close a store
    amid any step. It is one gate for all locks, and they need not be known to it: a store is made, or dropped
    with its lock, at any moment.
    """

    def __init__(self) -> None:
        self.gate = threading.RLock()
        self._inside: dict[int, int] = {}

    def enter(self, ident: Callable[[], int] = get_ident) -> None:
        """This thread goes into a library; while a fork is under way, it waits."""
        thread, inside = ident(), self._inside
        if depth := inside.get(thread):
            inside[thread] = depth + 1
            return
        with self.gate:
            inside[thread] = 1

    def leave(self, ident: Callable[[], int] = get_ident) -> None:
        """This thread comes out again."""
        thread, inside = ident(), self._inside
        depth = inside[thread] - 1
        if depth:
            inside[thread] = depth
        else:
            del inside[thread]

    def begin(self) -> None:
        """Shut the gate and wait for those inside; after 5 s the fork takes place all the same."""
        self.gate.acquire()
        give_up_at = time.monotonic() + FORK_WAITS_S
        while any(one != get_ident() for one in list(self._inside)) and time.monotonic() < give_up_at:
            time.sleep(POLL_S)

    def end(self) -> None:
        """Open the gate."""
        self.gate.release()

    def begin_anew(self) -> None:
        """In the child there are no other threads."""
        me = get_ident()
        self.gate = threading.RLock()
        self._inside = {me: self._inside[me]} if me in self._inside else {}


_fork = _Fork()


class LibraryLock(ProcessLock):
    """Guards calls into a library that has locks of its own, as SQLite has: no fork comes amid one.

    A fork lets no new call begin, under whichever lock, and waits for those that have begun. So who holds
    one must not wait for any other lock.
    """

    __slots__ = ()

    def __enter__(self, getpid: Callable[[], int] = os.getpid, fork: _Fork = _fork) -> None:
        fork.enter()
        try:
            super().__enter__(getpid)
        except BaseException:  # Ctrl-C while it waits
            fork.leave()
            raise

    def __exit__(self, *_: object, fork: _Fork = _fork) -> None:
        super().__exit__()
        fork.leave()


os.register_at_fork(before=_fork.begin, after_in_parent=_fork.end, after_in_child=_fork.begin_anew)
