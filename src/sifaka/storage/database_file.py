"""What each SQLite file of ours needs: private from the first moment, changed all or nothing (floor 3)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress

__all__ = ["make_private", "transaction"]


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
