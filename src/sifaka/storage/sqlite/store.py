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
from sifaka.errors import StorageError, StoreUnreachableError, UnstorableError
from sifaka.locks import LibraryLock
from sifaka.storage.base import Cell, Durability, Entry, Query, Renewal, Row, Storage, Write, paged_rows
from sifaka.storage.database_file import close_dropped, drop_cursors, leave_to_parent, transaction
from sifaka.storage.sqlite.opening import (
    BUSY_S,
    BusyError,
    explain,
    file_size,
    identity,
    is_broken,
    is_busy,
    make_room,
    open_file,
)
from sifaka.storage.sqlite.statements import (
    ENTRY,
    ROWS,
    ROWS_NEWEST_FIRST,
    append,
    as_entry,
    as_row,
    conditions,
    delete_one,
    renew,
    trim,
    write_all,
)

__all__ = ["SQLiteStorage"]

_T = TypeVar("_T")

RUNS_A_DELETE = 50
"""How many runs are deleted in one commit: others write between two of them."""
FREE_SHARE = 0.25
"""The share of free pages from which a file is worth shrinking."""
ROOM_LOOK_COMMITS = 16
"""At the fourth of so many commits the write-ahead log is looked at, and given its full size."""


class SQLiteStorage(Storage):
    """A store in the file ``path``, whose folder must exist.

    A missing file is created only with ``create`` (the default). Several processes and threads may use
    one file at once.
    """

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
        self._commits = 0
        self._file = (0, 0)
        if os.path.basename(self.path) == ":memory:":
            raise StoreUnreachableError("sqlite:///:memory:", "for a store in memory write memory://")

    @property
    def durability(self) -> Durability:
        """An acknowledged append survives a power cut: each commit is synced."""
        return "power"

    # Connecting ----------------------------------------------------------------------------

    @contextmanager
    def _use(self) -> Generator[sqlite3.Connection]:
        """The connection, for one thread at a time; SQLite's errors become ours."""
        with self._lock:
            try:
                yield self._connected()
            except UnicodeEncodeError as error:
                raise UnstorableError(f"{self.url} cannot hold lone surrogates: {error}") from error
            except (sqlite3.Error, UnicodeDecodeError) as error:  # it cannot decode some of its own messages
                drop_cursors(error)
                if is_broken(error):
                    self.reset()
                kind = BusyError if is_busy(error) else StorageError
                raise kind(explain(self.url, error)) from error

    def _connected(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is None or self._pid != os.getpid():
            if connection is not None:
                leave_to_parent(connection)
            self._connection = connection = open_file(self.path, self.url, create=self._create)
            self._pid, self._commits = os.getpid(), 0
            self._file = identity(self.path)
        return connection

    def _check_file(self) -> None:
        """A file that was deleted or moved is noticed before a run is begun in what nobody can open."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                if self._file == identity(self.path):
                    return
                self.reset()
                raise StoreUnreachableError(self.url, "the file was moved or deleted while it was open")

    def reset(self) -> None:
        """Close the connection: after a failed sync it is never trusted again."""
        with self._lock:
            connection, self._connection = self._connection, None
            close_dropped(connection, self._lock, is_ours=self._pid == os.getpid())

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        self.reset()

    def __del__(self, getpid: Callable[[], int] = os.getpid, close: Any = close_dropped) -> None:
        # Bound above: as the interpreter ends, the module's own names may be gone.
        connection: sqlite3.Connection | None = self.__dict__.get("_connection")
        if connection is not None:
            close(connection, self._lock, is_ours=self._pid == getpid())

    # Hooks ---------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all in one commit; False where one was refused."""
        return self._patiently(lambda: self._write(writes))

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        """As :meth:`write`, but None at once where another process is committing."""
        try:
            return self._write(writes)
        except BusyError:
            return None

    def _write(self, writes: Sequence[Write]) -> list[bool]:
        with self._use() as connection:
            self._commits += 1
            if self._commits % ROOM_LOOK_COMMITS == 4:
                make_room(connection, self.path)
            if len(writes) == 1 and writes[0].change is None and writes[0].opens is None:
                return [append(connection, writes[0].row)]
            with transaction(connection):
                return write_all(connection, writes)

    def _patiently(self, work: Callable[[], _T]) -> _T:
        """``work``, tried again while another process's commit is in the way; others go on meanwhile."""
        give_up_at, pause_s = time.monotonic() + BUSY_S, 0.001
        while True:
            try:
                return work()
            except BusyError:
                if time.monotonic() > give_up_at:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.05)

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last``.

        They are read a page at a time: an open cursor would keep this connection from writing as soon as
        another process has committed.
        """
        statement = ROWS_NEWEST_FIRST if newest_first else ROWS

        def select(start: int, end: int, limit: int) -> list[Row]:
            where = {"id": chain_id, "first": start, "end": end, "page": limit}
            with self._use() as connection:
                found = connection.execute(statement, where).fetchall()
            return [as_row(chain_id, one) for one in found]

        return paged_rows(select, first, last, newest_first=newest_first)

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None."""
        self._check_file()
        with self._use() as connection:
            found = connection.execute(ENTRY + "WHERE id = ?", (chain_id,)).fetchone()
        return None if found is None else as_entry(found)

    def entries(self, query: Query) -> list[Entry]:
        """The entries that ``query`` selects, newest first."""
        where, values = conditions(query)
        with self._use() as connection:
            found = connection.execute(
                f"{ENTRY} {where} ORDER BY updated_at DESC, id DESC LIMIT ?",
                (*values, query.limit),
            ).fetchall()
        return [as_entry(one) for one in found]

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        return self._update(
            "UPDATE chains SET token = token + 1, owner = ?, lease_until = ? WHERE id = ? AND token = ?",
            (owner, until, chain_id, token),
        )

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        """Renew leases, or give them back, in one commit."""

        def once() -> list[bool]:
            with self._use() as connection, transaction(connection):
                return [renew(connection, one) for one in renewals]

        return self._patiently(once)

    def _update(self, statement: str, values: tuple[Any, ...]) -> bool:
        def once() -> bool:
            with self._use() as connection:
                return connection.execute(statement, values).rowcount == 1

        return self._patiently(once)

    def delete(self, entries: Sequence[Entry]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""
        pieces = (entries[at : at + RUNS_A_DELETE] for at in range(0, len(entries), RUNS_A_DELETE))
        return sum(self._patiently(partial(self._delete, piece)) for piece in pieces)

    def _delete(self, entries: Sequence[Entry]) -> int:
        with self._use() as connection, transaction(connection):
            return sum(delete_one(connection, one) for one in entries)

    def trim(self, row: Row) -> int | None:
        """Put ``row`` in place of the rows in its range; the number of checkpoints removed."""

        def once() -> int | None:
            with self._use() as connection, transaction(connection):
                return trim(connection, row)

        return self._patiently(once)

    def cells(self, names: Sequence[str]) -> list[Cell]:
        """The cells of these names, in that order."""
        statement = "SELECT value, version FROM cells WHERE name = ?"
        with self._use() as connection:
            found = [connection.execute(statement, (name,)).fetchone() for name in names]
        return [Cell(*(one or ())) for one in found]

    def swap(self, name: str, value: bytes, version: int) -> bool:
        """Set a cell whose version still is ``version``."""
        if version:
            statement = "UPDATE cells SET value = ?, version = version + 1 WHERE name = ? AND version = ?"
            return self._update(statement, (value, name, version))
        statement = "INSERT INTO cells (value, name, version) VALUES (?, ?, 1) ON CONFLICT DO NOTHING"
        return self._update(statement, (value, name))

    def cell_names(self, prefix: str = "", after: str = "", limit: int = 500) -> list[str]:
        """The names of cells that begin with ``prefix`` and lie behind ``after``."""
        with self._use() as connection:
            found = connection.execute(
                "SELECT name FROM cells WHERE name >= ? AND name > ? AND substr(name, 1, ?) = ? "
                "ORDER BY name LIMIT ?",
                (prefix, after, len(prefix), prefix, limit),
            ).fetchall()
        return [name for (name,) in found]

    def compact(self) -> None:
        """Shrink the file where much of it is free, and empty the write-ahead log.

        Deleted texts are overwritten in the file as they are deleted; what the log still holds of them is
        cut off here, unless another process reads the store just now.
        """
        self._patiently(self._compact)

    def _compact(self) -> None:
        with self._use() as connection:
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if free > pages * FREE_SHARE:
                connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept, the write-ahead log included."""
        with self._use() as connection:
            count, records, oldest, newest, raw, stored = connection.execute(
                "SELECT coalesce(sum(checkpoints), 0), coalesce(sum(last - first + 1), 0), "
                "min(at) FILTER (WHERE checkpoints), max(at) FILTER (WHERE checkpoints), "
                "coalesce(sum(raw), 0), coalesce(sum(length(frame)), 0) FROM log"
            ).fetchone()
            chains = dict(
                connection.execute("SELECT status, count(*) FROM chains GROUP BY status").fetchall()
            )
        return {
            "total_checkpoints": count,
            "records": records,
            "storage_size_bytes": sum(file_size(self.path + end) for end in ("", "-wal")),
            "raw_bytes": raw,
            "stored_bytes": stored,
            "oldest_checkpoint": oldest,
            "newest_checkpoint": newest,
            "chains": chains,
        }

    def complaints(self) -> list[str]:
        """Damage in the file's own structures (all of it is read), its mode, who else may read it."""
        with self._use() as connection:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            broken = [text for (text,) in connection.execute("PRAGMA integrity_check(10)") if text != "ok"]
        found = [f"{self.url} is damaged ({text}): copy its runs into a new store" for text in broken]
        if mode != "wal":
            found.append(f"{self.url} is in journal mode {mode!r}: run PRAGMA journal_mode=WAL on it")
        for end in ("", "-wal", "-shm"):
            path = self.path + end
            if os.path.exists(path) and os.stat(path).st_mode & 0o077:
                found.append(f"others may read {path}, which holds prompts and texts: chmod 600 it")
        return found
