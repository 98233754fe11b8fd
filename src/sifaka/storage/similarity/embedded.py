"""Nearest faults without a server: vectors in SQLite, compared all with all by numpy (floor 3).

One matrix in memory holds the vectors; what other processes have changed is read when SQLite says that
there is something. Ten thousand cases are 27 MB in memory and searched in some milliseconds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sifaka.errors import MissingExtraError
from sifaka.locks import LibraryLock
from sifaka.storage.database_file import (
    close_dropped,
    drop_cursors,
    leave_to_parent,
    make_private,
    transaction,
)
from sifaka.storage.similarity import (
    Case,
    EmbeddingFunction,
    Match,
    Similarity,
    SimilarityError,
    decode,
    encode,
)
from sifaka.storage.similarity.measure import Measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EmbeddedSimilarity"]

SCHEMA_VERSION = 1
BUSY_S = 1.0
"""How long a call waits for another process's write, in seconds."""

_SCHEMA = """
CREATE TABLE cases (
    no INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, chain TEXT NOT NULL,
    payload BLOB NOT NULL, vector BLOB NOT NULL
) STRICT;
CREATE INDEX cases_by_chain ON cases (chain);
CREATE TABLE measure (name TEXT NOT NULL, dimensions INTEGER NOT NULL) STRICT;
"""
# Replacing gives a new number: who has read up to the old one sees that there is something new.
_ADD = "INSERT OR REPLACE INTO cases (id, chain, payload, vector) VALUES (?, ?, ?, ?)"
_BOUND = "DELETE FROM cases WHERE no <= (SELECT no FROM cases ORDER BY no DESC LIMIT 1 OFFSET ?)"


class EmbeddedSimilarity(Similarity):
    """Cases in memory (``path`` None), or in a file that several processes and threads may share.

    The file is the caller's alone (mode 0600); its folder must exist. At most ``limit`` cases are kept:
    those that were added or replaced longest ago give way, and ``dropped`` counts them. Needs numpy:
    MissingExtraError says how to get it. A power cut may lose the last cases added, never the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        limit: int = 10_000,
        embedding_function: EmbeddingFunction | None = None,
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")
        _numpy()
        self.path = None if path is None else os.path.abspath(path)
        self.limit = limit
        self.dropped = 0
        self.measure = Measure(embedding_function)
        self._dimensions = self.measure.dimensions  # before the lock: it may call the embedding function
        self._lock = LibraryLock()
        self._pid = 0
        self._connection: sqlite3.Connection | None = None
        self._seen = -1
        self._numbers: NDArray[np.int64]
        self._vectors: NDArray[np.float32]
        with self._use():
            pass

    # Connecting ----------------------------------------------------------------------------

    @contextmanager
    def _use(self) -> Generator[sqlite3.Connection]:
        """The connection, for one thread at a time; SQLite's errors become ours."""
        with self._lock:
            try:
                yield self._connected()
            except sqlite3.Error as error:
                drop_cursors(error)
                raise SimilarityError(f"the cases in {self.path or 'memory'}: {error}") from error

    def _connected(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is not None and not self._is_ours():
            leave_to_parent(connection)
            connection = None
        if connection is None:
            connection = self._open()
            self._connection, self._pid = connection, os.getpid()
            self._start_over()
        return connection

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            try:
                make_private(self.path)
            except OSError as error:
                raise SimilarityError(
                    f"the cases in {self.path} cannot be opened: {error.strerror}"
                ) from error
        connection = sqlite3.connect(
            self.path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            with transaction(connection):
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables, or see that they are ours and hold vectors of this measure."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        mine = (self.measure.name, self._dimensions)
        if version > SCHEMA_VERSION:
            raise SimilarityError(f"{self.path} has format {version}; install a newer sifaka")
        if not version:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO measure VALUES (?, ?)", mine)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION:d}")
        theirs = connection.execute("SELECT name, dimensions FROM measure").fetchone()
        if theirs != mine:
            raise SimilarityError(
                f"the cases in {self.path} were measured by {theirs}, this object measures by {mine}; "
                "give it the old embedding_function, or a new file"
            )

    def close(self) -> None:
        """Close the file; cases in memory are gone."""
        with self._lock:
            connection, self._connection = self._connection, None
            close_dropped(connection, self._lock, is_ours=self._is_ours())

    def _is_ours(self, getpid: Callable[[], int] = os.getpid) -> bool:
        """Whether the connection is this process's: one in memory is, also after a fork."""
        return self.path is None or self._pid == getpid()

    def __del__(self, close: Any = close_dropped) -> None:
        # Bound above: as the interpreter ends, the module's own names may be gone.
        connection: sqlite3.Connection | None = self.__dict__.get("_connection")
        if connection is not None:
            close(connection, self._lock, is_ours=self._is_ours())

    # Writing -------------------------------------------------------------------------------

    def keep(self, cases: Sequence[Case]) -> None:
        """Keep the cases in one transaction, and no more than ``limit`` in all."""
        rows = [(case.case_id, case.chain_id, encode(case), self._packed(case)) for case in cases]
        with self._use() as connection, transaction(connection):
            connection.executemany(_ADD, rows)
            self.dropped += connection.execute(_BOUND, (self.limit,)).rowcount

    def _packed(self, case: Case) -> bytes:
        return bytes(_numpy().asarray(self.measure.vector(case), dtype="<f4").tobytes())

    def forget(self, chain_ids: Iterable[str]) -> None:
        """Remove the cases of these runs; their texts are overwritten, and in no file any more.

        Raises SimilarityError where another process's reading kept that from being done: call it again.
        """
        with self._use() as connection:
            with transaction(connection):
                connection.executemany("DELETE FROM cases WHERE chain = ?", [(id_,) for id_ in chain_ids])
            # The write-ahead log still has the old pages until it is emptied.
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise SimilarityError(
                f"the cases are removed, but their texts are still in {self.path}-wal: "
                "another process was reading. Call forget() again"
            )

    # Reading -------------------------------------------------------------------------------

    def count(self) -> int:
        """How many cases are kept, by all processes together."""
        with self._use() as connection:
            return int(connection.execute("SELECT count(*) FROM cases").fetchone()[0])

    def nearest(self, case: Case, limit: int = 10) -> list[Match]:
        """The most similar cases, whichever process added them."""
        vector = _numpy().asarray(self.measure.vector(case), dtype="<f4")
        with self._use() as connection, transaction(connection, "BEGIN"):  # one state of the file
            self._look_again(connection)
            found: list[Match] = []
            for candidate in self._by_similarity(connection, vector):
                if len(found) >= limit:
                    break
                if candidate.case.case_id != case.case_id:
                    found.append(candidate)
        return found

    def _by_similarity(self, connection: sqlite3.Connection, vector: NDArray[np.float32]) -> Iterator[Match]:
        """All cases, best first (the newest first among equals), read one by one."""
        similarities = self._vectors @ vector
        for index in _numpy().lexsort((-self._numbers, -similarities)):
            row = connection.execute(
                "SELECT id, payload FROM cases WHERE no = ?", (int(self._numbers[index]),)
            ).fetchone()
            if row is None:  # another process has removed it since we looked
                continue
            case = decode(row[1])
            if case is None or case.case_id != row[0]:
                self.lies += 1
                continue
            yield Match(case, min(max(float(similarities[index]), 0.0), 1.0))

    def _start_over(self) -> None:
        np = _numpy()
        self._seen = -1
        self._numbers = np.empty(0, dtype=np.int64)
        self._vectors = np.empty((0, self._dimensions), dtype=np.float32)

    def _look_again(self, connection: sqlite3.Connection) -> None:
        """Read what has changed since the last look: by other processes, or by this one."""
        # data_version counts the others' commits, total_changes ours
        seen = hash((connection.execute("PRAGMA data_version").fetchone()[0], connection.total_changes))
        if seen == self._seen:
            return
        np = _numpy()
        newest = int(self._numbers[-1]) if len(self._numbers) else 0
        rows: list[Any] = connection.execute("SELECT no FROM cases ORDER BY no").fetchall()
        kept = np.isin(self._numbers, np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)))
        fresh = list(
            self._sound(
                connection.execute("SELECT no, vector FROM cases WHERE no > ? ORDER BY no", (newest,))
            )
        )
        numbers = np.asarray([no for no, _ in fresh], dtype=np.int64)
        vectors = np.asarray([vector for _, vector in fresh], dtype=np.float32)
        self._numbers = np.concatenate([self._numbers[kept], numbers])
        self._vectors = np.concatenate([self._vectors[kept], vectors.reshape(-1, self._dimensions)])
        self._seen = seen

    def _sound(self, rows: Iterable[Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The rows whose vector can be one."""
        np = _numpy()
        for no, blob in rows:
            vector = np.frombuffer(blob, dtype="<f4") if len(blob) == 4 * self._dimensions else None
            if vector is None or not 0 < float(vector @ vector) < 1.001:
                self.lies += 1
            else:
                yield no, vector


def _numpy() -> Any:
    try:
        import numpy as np
    except ImportError as error:
        raise MissingExtraError("similar cases need: pip install 'sifaka[similarity]'") from error
    return np
