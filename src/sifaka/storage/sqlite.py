"""The store in one SQLite file: WAL, ``synchronous=FULL``, one row an append (floor 3).

Rows are appended to one table in the order of their commits, so a group commit of many runs touches
few pages; a narrow index finds a run's rows. Compare-and-append is one INSERT whose condition reads the
run's token and last record inside the statement that writes.

What survives: an acknowledged append survives a power cut ("power"), because each commit is synced.
Prompts and texts are stored in plain text, readable by the file's owner only (mode 0600).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from sifaka.clock import Clock, SystemClock
from sifaka.errors import FormatError, StorageError, StoreUnreachableError
from sifaka.storage.base import Entry, Query, Row, Storage, Write
from sifaka.storage.locks import LibraryLock

__all__ = ["SQLiteStorage"]

_T = TypeVar("_T")

SCHEMA_VERSION = 1
BUSY_S = 20.0
"""How long a commit waits for another process's commit, in seconds."""

_SCHEMA = """
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
"""

_APPEND = """
INSERT INTO log (chain, last, first, token, at, checkpoints, frame)
SELECT no, ?, ?, token, ?, ?, ? FROM chains
WHERE id = ? AND token = ? AND (SELECT max(last) FROM log WHERE chain = no) = ?
"""
_OPEN = """
INSERT INTO chains (id, token, owner, lease_until, status, reason, grp, label, until, opened_at,
                    updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_FIRST = """
INSERT INTO log (chain, last, first, token, at, checkpoints, frame)
SELECT no, ?, ?, token, ?, ?, ? FROM chains WHERE id = ?
"""
_CHANGE = (
    "UPDATE chains SET status = ?, reason = ?, grp = ?, until = ?, updated_at = ?, "
    "owner = iif(?, x'', owner), lease_until = iif(?, 0.0, lease_until) WHERE id = ? AND token = ?"
)
_ENTRY = """
SELECT id, token, owner, lease_until, status, reason, grp, label, until, opened_at, updated_at,
       coalesce((SELECT max(last) FROM log WHERE chain = no), -1) FROM chains
"""
_ROWS = """
SELECT first, last, token, at, checkpoints, frame FROM log
WHERE chain = (SELECT no FROM chains WHERE id = :id) AND last >= :first AND last <= coalesce((
    SELECT min(last) FROM log WHERE chain = (SELECT no FROM chains WHERE id = :id) AND last >= :end
), :end) ORDER BY last LIMIT :page
"""
_ROWS_NEWEST_FIRST = _ROWS.replace("ORDER BY last", "ORDER BY last DESC")
_TOP = 2**62
WAL_PAGES = 256
"""The write-ahead log is checkpointed at this many pages, and then used again from its beginning."""
ROOM_LOOK_COMMITS = 16
"""At the fourth of so many commits the write-ahead log is looked at, and given its full size."""


class SQLiteStorage(Storage):
    """A store in the file ``path``, whose folder must exist.

    A missing file is created only with ``create`` (the default). Several processes and threads may use
    one file at once.
    """

    durability = "power"

    def __init__(
        self, path: str | os.PathLike[str], *, create: bool = True, clock: Clock | None = None
    ) -> None:
        self.path = os.path.abspath(path)  # a later chdir must not lead elsewhere
        self.url = f"sqlite:///{self.path}"
        self.clock = clock or SystemClock()
        self._create = create
        self._lock = LibraryLock()
        self._pid = 0
        self._connection: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection] = []
        self._commits = 0
        self._file = (0, 0)
        if os.path.basename(self.path) == ":memory:":
            raise StoreUnreachableError("sqlite:///:memory:", "for a store in memory write memory://")

    # Connecting ----------------------------------------------------------------------------

    @contextmanager
    def _use(self) -> Generator[sqlite3.Connection]:
        """The connection, for one thread at a time; SQLite's errors become ours."""
        with self._lock:
            try:
                yield self._connected()
            except sqlite3.Error as error:
                kind = _BusyError if _is_busy(error) else StorageError
                raise kind(self._explain(error)) from error

    def _connected(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is None or self._pid != os.getpid():
            if connection is not None:
                # Opened before a fork: using or closing it here could harm the parent's locks.
                self._inherited.append(connection)
            self._connection = connection = self._patiently_open()
            self._pid, self._commits = os.getpid(), 0
            self._file = _identity(self.path)
        return connection

    def _patiently_open(self) -> sqlite3.Connection:
        """Open the file; many processes may be making the store at this moment."""
        give_up_at = time.monotonic() + BUSY_S
        while True:
            try:
                return self._open()
            except StoreUnreachableError as error:
                cause = error.__cause__
                busy = isinstance(cause, sqlite3.Error) and _is_busy(cause)
                if not busy or time.monotonic() > give_up_at:
                    raise
            time.sleep(0.01)

    def _open(self) -> sqlite3.Connection:
        try:
            self._make_private()
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnreachableError(self.url, f"{error}. {self._hint()}") from error
        try:
            self._prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            raise StoreUnreachableError(self.url, self._explain(error)) from error
        except (FormatError, StoreUnreachableError):
            connection.close()
            raise
        return connection

    def _check_file(self) -> None:
        """A file that was deleted or moved is noticed before a run is begun in what nobody can open."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                if self._file == _identity(self.path):
                    return
                self.reset()
                raise StoreUnreachableError(self.url, "the file was moved or deleted while it was open")

    def _make_private(self) -> None:
        flags = os.O_RDWR | (os.O_CREAT if self._create else 0)
        os.close(os.open(self.path, flags, 0o600))

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise FormatError(f"the store {self.url}", version, SCHEMA_VERSION)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        if version == SCHEMA_VERSION:
            return
        if not self._create:
            raise StoreUnreachableError(self.url, "the file holds no sifaka store")
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:  # nobody else has created it meanwhile
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _hint(self) -> str:
        folder = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(folder):
            return f"Its folder is missing: mkdir -p {folder}"
        return "Check the path and its permissions"

    def _explain(self, error: sqlite3.Error) -> str:
        text = str(error)
        advice = {
            "locked": f"another process held its lock for over {BUSY_S:.0f} s",
            "full": "the disk is full: free some space, then resume",
            "readonly": "the file or its folder is read-only",
            "not a database": "the file is no sifaka store",
        }
        said = next((why for word, why in advice.items() if word in text), "check disk and file")
        return f"the store {self.url} failed: {text} ({said})"

    def reset(self) -> None:
        """Close the connection: after a failed sync it is never trusted again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        self.reset()

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        # Bound above: as the interpreter ends, the module's own names may be gone.
        connection: sqlite3.Connection | None = self.__dict__.get("_connection")
        if connection is not None and self._pid == getpid():
            connection.close()

    # Hooks ---------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all in one commit; False where one was refused."""
        return self._patiently(lambda: self._write(writes))

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        """As :meth:`write`, but None at once where another process is committing."""
        try:
            return self._write(writes)
        except _BusyError:
            return None

    def _write(self, writes: Sequence[Write]) -> list[bool]:
        with self._use() as connection:
            self._commits += 1
            if self._commits % ROOM_LOOK_COMMITS == 4:
                self._make_room(connection)
            if len(writes) == 1 and writes[0].change is None and writes[0].opens is None:
                return [_append(connection, writes[0].row)]
            with _transaction(connection):
                return _write_all(connection, writes)

    def _patiently(self, work: Callable[[], _T]) -> _T:
        """``work``, tried again while another process's commit is in the way; others go on meanwhile."""
        give_up_at, pause_s = time.monotonic() + BUSY_S, 0.001
        while True:
            try:
                return work()
            except _BusyError:
                if time.monotonic() > give_up_at:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.05)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Give the write-ahead log its full size at once, so that no commit has to sync its growth.

        Where a file grows, each sync has to write the file system's journal too, which makes commits up
        to twice as dear. A transaction that spills and is rolled back leaves its pages behind the log's
        end, where the next commits overwrite them: SQLite's own locks and checksums guard it.
        """
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        if _size(self.path + "-wal") >= WAL_PAGES * page_bytes:
            return
        (cache,) = connection.execute("PRAGMA cache_size").fetchone()
        connection.execute("PRAGMA cache_size=10")
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO log VALUES (-1, 0, 0, 0, 0.0, 0, zeroblob(?))", (WAL_PAGES * page_bytes,)
            )
        except sqlite3.Error:
            pass  # no room on the disk, or somebody writes just now: the appends themselves will tell
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute(f"PRAGMA cache_size={cache:d}")

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last``.

        They are read a page at a time: an open cursor would keep this connection from writing as soon as
        another process has committed.
        """
        end, page = _TOP if last is None else last, 8
        statement = _ROWS_NEWEST_FIRST if newest_first else _ROWS
        while True:
            with self._use() as connection:
                where = {"id": chain_id, "first": first, "end": end, "page": page}
                found = connection.execute(statement, where).fetchall()
            for start, stop, token, at, checkpoints, frame in found:
                yield Row(chain_id, start, stop, token, at, checkpoints, frame)
            if len(found) < page or found[-1][0] == 0:
                return
            if newest_first:
                end = found[-1][0] - 1
            else:
                first = found[-1][1] + 1
            page = 64

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None."""
        self._check_file()
        with self._use() as connection:
            found = connection.execute(_ENTRY + "WHERE id = ?", (chain_id,)).fetchone()
        return None if found is None else Entry(*found)

    def entries(self, query: Query) -> list[Entry]:
        """The entries that ``query`` selects, newest first."""
        where, values = _where(query)
        with self._use() as connection:
            found = connection.execute(
                f"{_ENTRY} {where} ORDER BY updated_at DESC, id DESC LIMIT ?",
                (*values, query.limit),
            ).fetchall()
        return [Entry(*one) for one in found]

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        return self._update(
            "UPDATE chains SET token = token + 1, owner = ?, lease_until = ? WHERE id = ? AND token = ?",
            (owner, until, chain_id, token),
        )

    def lease(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Renew the lease of ``owner``, or give it back (``owner`` empty)."""
        return self._update(
            "UPDATE chains SET owner = ?, lease_until = ? WHERE id = ? AND token = ? "
            "AND (? = x'' OR owner = ?)",
            (owner, until, chain_id, token, owner, owner),
        )

    def _update(self, statement: str, values: tuple[Any, ...]) -> bool:
        def once() -> bool:
            with self._use() as connection:
                return connection.execute(statement, values).rowcount == 1

        return self._patiently(once)

    def delete(self, chain_ids: Sequence[str]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""
        return sum(self._patiently(partial(self._delete, chain_id)) for chain_id in chain_ids)

    def _delete(self, chain_id: str) -> int:
        with self._use() as connection, _transaction(connection):
            return _delete_one(connection, chain_id)

    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept, the write-ahead log included."""
        with self._use() as connection:
            count, records, oldest, newest = connection.execute(
                "SELECT coalesce(sum(checkpoints), 0), coalesce(sum(last - first + 1), 0), "
                "min(at) FILTER (WHERE checkpoints), max(at) FILTER (WHERE checkpoints) FROM log"
            ).fetchone()
            chains = dict(
                connection.execute("SELECT status, count(*) FROM chains GROUP BY status").fetchall()
            )
        return {
            "total_checkpoints": count,
            "records": records,
            "storage_size_bytes": sum(_size(self.path + end) for end in ("", "-wal")),
            "oldest_checkpoint": oldest,
            "newest_checkpoint": newest,
            "chains": chains,
        }


class _BusyError(StorageError):
    """Another process is committing: the same may be tried again."""


def _is_busy(error: sqlite3.Error) -> bool:
    # Extended codes (a stale snapshot, a recovery under way) have the plain one in their low byte.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _write_all(connection: sqlite3.Connection, writes: Sequence[Write]) -> list[bool]:
    """All writes; the plain appends in one statement run many times, unless one of them is refused."""
    plain = [write.row for write in writes if write.change is None and write.opens is None]
    if len(plain) > 1:
        connection.execute("SAVEPOINT plain")
        accepted = connection.executemany(_APPEND, map(_values, plain)).rowcount
        if accepted == len(plain):
            connection.execute("RELEASE plain")
            return [
                (write.change is None and write.opens is None) or _write_one(connection, write)
                for write in writes
            ]
        connection.execute("ROLLBACK TO plain")
        connection.execute("RELEASE plain")
    return [_write_one(connection, write) for write in writes]


def _append(connection: sqlite3.Connection, row: Row) -> bool:
    return connection.execute(_APPEND, _values(row)).rowcount == 1


def _values(row: Row) -> tuple[Any, ...]:
    return (
        row.last,
        row.first,
        row.at,
        row.checkpoints,
        row.frame,
        row.chain_id,
        row.token,
        row.first - 1,
    )


def _write_one(connection: sqlite3.Connection, write: Write) -> bool:
    row, change = write.row, write.change
    if write.opens is not None:
        if not _open_entry(connection, write.opens, row):
            return False
    elif not _append(connection, row):
        return False
    if change is not None:
        release = change.release
        connection.execute(
            _CHANGE,
            (
                change.status,
                change.reason,
                change.group,
                change.until,
                change.at,
                release,
                release,
                row.chain_id,
                row.token,
            ),
        )
    return True


def _open_entry(connection: sqlite3.Connection, entry: Entry, row: Row) -> bool:
    opened = connection.execute(
        _OPEN,
        (
            entry.chain_id,
            entry.token,
            entry.owner,
            entry.lease_until,
            entry.status,
            entry.reason,
            entry.group,
            entry.label,
            entry.until,
            entry.opened_at,
            entry.updated_at,
        ),
    )
    if opened.rowcount != 1:
        return False
    connection.execute(_FIRST, (row.last, row.first, row.at, row.checkpoints, row.frame, row.chain_id))
    return True


def _delete_one(connection: sqlite3.Connection, chain_id: str) -> int:
    found = connection.execute("SELECT no FROM chains WHERE id = ?", (chain_id,)).fetchone()
    if found is None:
        return 0
    (removed,) = connection.execute(
        "SELECT coalesce(sum(checkpoints), 0) FROM log WHERE chain = ?", found
    ).fetchone()
    connection.execute("DELETE FROM log WHERE chain = ?", found)
    connection.execute("DELETE FROM chains WHERE no = ?", found)
    return int(removed)


def _where(query: Query) -> tuple[str, list[Any]]:
    """The constant conditions that ``query`` needs, and the values they are given."""
    parts: list[str] = []
    values: list[Any] = []
    if query.statuses is not None:
        parts.append(f"status IN ({', '.join('?' * len(query.statuses))})")
        values.extend(query.statuses)
    conditions = (
        ("grp = ?", query.group),
        ("label = ?", query.label),
        ("updated_at < ?", query.updated_before),
        ("updated_at >= ?", query.updated_since),
    )
    for condition, value in conditions:
        if value is not None:
            parts.append(condition)
            values.append(value)
    if query.after is not None:
        parts.append("(updated_at, id) < (?, ?)")
        values.extend((query.after.updated_at, query.after.chain_id))
    return ("WHERE " + " AND ".join(parts)) if parts else "", values


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _identity(path: str) -> tuple[int, int]:
    """Which file is at ``path`` now: device and inode."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino
