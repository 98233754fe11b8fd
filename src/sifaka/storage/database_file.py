"""What each SQLite file of ours needs: private at once, changed all or nothing, safe in a fork (floor 3).

SQLite has locks of its own, for all connections of a process together: a fork amid any call would leave the
child with copies that nobody gives back. So every call is made under a LibraryLock, also those that Python
makes by itself as it drops a connection or a cursor.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from sifaka.locks import LibraryLock

__all__ = ["close_dropped", "drop_cursors", "leave_to_parent", "make_private", "transaction"]

_parents: list[sqlite3.Connection] = []


def make_private(path: str) -> None:
    """Create the file where it is missing, for its owner only. Raises OSError.

    A file that is there is not opened: closing it would drop the locks that SQLite holds on it here.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Generator[None]:
    """All or nothing, and (unless it begins otherwise) the only writer meanwhile."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled back by itself: the cause is what counts
            connection.execute("ROLLBACK")
        raise


def leave_to_parent(connection: sqlite3.Connection) -> None:
    """Keep for good what was opened before a fork: to close it could harm the parent's locks."""
    _parents.append(connection)


def close_dropped(
    connection: sqlite3.Connection | None,
    lock: LibraryLock,
    *,
    is_ours: bool,
    leave: Callable[[sqlite3.Connection], None] = leave_to_parent,
) -> None:
    """Close the connection of an object that goes; it is its parent's where the object came with a fork."""
    if connection is None:
        return
    with lock:
        if is_ours:
            connection.close()
        else:
            leave(connection)


def drop_cursors(error: BaseException) -> None:
    """Drop what the functions that ``error`` went through still hold: a cursor among it calls SQLite."""
    at = error.__traceback__
    while at is not None:
        with suppress(RuntimeError):  # one that is still running
            at.tb_frame.clear()
        at = at.tb_next
