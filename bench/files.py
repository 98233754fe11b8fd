"""What can be read from a store's SQLite files themselves: their bytes, and the commits made.

Commits are counted in the write-ahead log, not taken from what a contestant says of itself.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any


def databases(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.db"))


def settled_bytes(folder: Path) -> int:
    """The folder's bytes after every write-ahead log has been worked in and emptied."""
    for path in databases(folder):
        con = sqlite3.connect(path, timeout=30)
        busy = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        con.close()
        if busy:
            raise AssertionError(f"{path.name} is still busy: its log could not be emptied")
    return sum(f.stat().st_size for f in folder.iterdir() if not f.name.endswith("-shm"))


def commits_of(folder: Path, run: Callable[[], Any]) -> int | None:
    """Commits that ``run`` makes, counted in the write-ahead logs; None where there are no such logs.

    A reader that stays in its transaction keeps the logs from being reset meanwhile.
    """
    settled_bytes(folder)
    with ExitStack() as stack:
        for path in databases(folder):
            reader = sqlite3.connect(path, isolation_level=None)
            stack.callback(reader.close)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
        run()
        logs = [log for log in folder.glob("*.db-wal") if log.stat().st_size]
        return sum(map(_commit_frames, logs)) if logs else None


def _commit_frames(log: Path) -> int:
    """Frames that end a transaction: those that state the database's size after it.

    Source: "The Write-Ahead Log" in SQLite's file format, sections 4.1 and 4.2.
    """
    data = log.read_bytes()
    page_size = struct.unpack_from(">I", data, 8)[0]
    salt = data[16:24]
    commits = 0
    for at in range(32, len(data) - page_size - 23, 24 + page_size):
        if data[at + 8 : at + 16] != salt:
            break
        commits += struct.unpack_from(">I", data, at + 4)[0] != 0
    return commits
