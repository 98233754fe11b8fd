"""Opening a store's file: private, in WAL mode, brought up to this version's schema (floor 3)."""

from __future__ import annotations

import os
import sqlite3
import time
from urllib.parse import quote

from sifaka.errors import FormatError, StorageError, StoreUnreachableError
from sifaka.log.codec import raw_bytes
from sifaka.storage.database_file import make_private, transaction

__all__ = [
    "BUSY_S",
    "BusyError",
    "explain",
    "file_size",
    "identity",
    "is_broken",
    "is_busy",
    "make_room",
    "open_file",
]

SCHEMA_VERSION = 2
BUSY_S = 20.0
"""How long a commit waits for another process's commit, in seconds."""
WAL_PAGES = 256
"""The write-ahead log is checkpointed at this many pages, and then used again from its beginning."""

_STEPS = (
    """
CREATE TABLE chains (
    no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, token INTEGER NOT NULL, owner BLOB NOT NULL,
    lease_until REAL NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, grp TEXT NOT NULL,
    label TEXT NOT NULL, until REAL NOT NULL, opened_at REAL NOT NULL, updated_at REAL NOT NULL
) STRICT;
CREATE INDEX chains_by_time ON chains (updated_at, id);
CREATE INDEX chains_by_status ON chains (status, updated_at, id);
CREATE TABLE log (
    chain INTEGER NOT NULL, last INTEGER NOT NULL, first INTEGER NOT NULL, token INTEGER NOT NULL,
    at REAL NOT NULL, checkpoints INTEGER NOT NULL, frame BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX log_by_chain ON log (chain, last);
""",
    """
ALTER TABLE log ADD COLUMN raw INTEGER NOT NULL DEFAULT 0;
UPDATE log SET raw = raw_bytes(frame);
CREATE TABLE cells (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX chains_by_group ON chains (grp, updated_at, id) WHERE grp != '';
CREATE INDEX chains_by_label ON chains (label, updated_at, id) WHERE label != ''
""",
)
"""The schema, as the steps that lead from each version to the next: an older store is brought up to date."""


class BusyError(StorageError):
    """Another process is committing: the same may be tried again."""


def is_busy(error: Exception) -> bool:
    """Whether another process is in the way."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_broken(error: Exception) -> bool:
    """Whether the connection that met ``error`` must not be used again: it may see an old state."""
    return _code(error) in _BROKEN


def _code(error: Exception) -> int:
    # Extended codes (a stale snapshot, a recovery under way) have the plain one in their low byte.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


_BROKEN = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,
}


def open_file(path: str, url: str, *, create: bool) -> sqlite3.Connection:
    """A connection to the store at ``path``; many processes may be making it at this moment.

    Raises StoreUnreachableError, FormatError.
    """
    give_up_at = time.monotonic() + BUSY_S
    while True:
        try:
            return _open(path, url, create=create)
        except StoreUnreachableError as error:
            cause = error.__cause__
            busy = isinstance(cause, sqlite3.Error) and is_busy(cause)
            if not busy or time.monotonic() > give_up_at:
                raise
        time.sleep(0.01)


def _open(path: str, url: str, *, create: bool) -> sqlite3.Connection:
    try:
        if create:
            make_private(path)
        address = f"file:{quote(path)}?mode=rw"
        connection = sqlite3.connect(
            address, uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise StoreUnreachableError(url, f"{error}. {_hint(path)}") from error
    try:
        _prepare(connection, url, create=create)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        connection.close()
        raise StoreUnreachableError(url, explain(url, error)) from error
    except (FormatError, StoreUnreachableError):
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, url: str, *, create: bool) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise FormatError(f"the store {url}", version, SCHEMA_VERSION)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON").fetchone()  # deleted texts are overwritten
    connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
    if version == SCHEMA_VERSION:
        return
    if not version and not create:
        raise StoreUnreachableError(url, "the file holds no sifaka store")
    connection.create_function("raw_bytes", 1, raw_bytes, deterministic=True)
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    with transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in _STEPS[version:]:  # none where somebody else has done it meanwhile
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _hint(path: str) -> str:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return f"Its folder is missing: mkdir -p {folder}"
    return "Check the path and its permissions"


def explain(url: str, error: Exception) -> str:
    """What an error of SQLite's means, and what can be done about it."""
    text = str(error)
    advice = {
        "locked": f"another process held its lock for over {BUSY_S:.0f} s",
        "full": "the disk is full: free some space, then resume",
        "readonly": "the file or its folder is read-only",
        "not a database": "the file is no sifaka store",
    }
    said = next((why for word, why in advice.items() if word in text), "check disk and file")
    return f"the store {url} failed: {text} ({said})"


def make_room(connection: sqlite3.Connection, path: str) -> None:
    """Give the write-ahead log its full size at once, so that no commit has to sync its growth.

    Where a file grows, each sync has to write the file system's journal too, which makes commits up
    to twice as dear. A transaction that spills and is rolled back leaves its pages behind the log's
    end, where the next commits overwrite them: SQLite's own locks and checksums guard it.
    """
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    if file_size(path + "-wal") >= WAL_PAGES * page_bytes:
        return
    (cache,) = connection.execute("PRAGMA cache_size").fetchone()
    connection.execute("PRAGMA cache_size=10")
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "INSERT INTO log VALUES (-1, 0, 0, 0, 0.0, 0, zeroblob(?), 0)", (WAL_PAGES * page_bytes,)
        )
    except sqlite3.Error:
        pass  # no room on the disk, or somebody writes just now: the appends themselves will tell
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute(f"PRAGMA cache_size={cache:d}")


def file_size(path: str) -> int:
    """Bytes of the file at ``path``; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def identity(path: str) -> tuple[int, int]:
    """Which file is at ``path`` now: device and inode."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino
