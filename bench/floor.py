"""The floor: what the same durability costs when written by hand on bare SQLite, with no library.

Alone, each step is one raw commit of its plain content: nobody who commits step by step can be much
faster. At once, one commit carries a step of each chain, compressed: nobody who shares commits can
share them better. WAL, ``synchronous=FULL``. The integer key packs chain and step; it spares the
second tree that a (chain, step) key would need. Of page sizes from 4 to 64 kB, 4 kB is the fastest.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.workload import STEPS_PER_ITERATION, ChainParts, steps_of

_STEPS_MAX = 1 << 16
_INSERT = "INSERT INTO steps VALUES (?, ?, ?)"


def _identity(content: bytes) -> bytes:
    return content


def _connect(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "floor.db", isolation_level=None)


class Floor:
    """Plain content, one commit a step."""

    import_statement = "import sqlite3"
    first_commit_script = """
import sqlite3, sys, time
con = sqlite3.connect(sys.argv[1] + "/first.db", isolation_level=None)
con.execute("PRAGMA journal_mode=WAL")
con.execute("PRAGMA synchronous=FULL")
con.execute("CREATE TABLE steps (key INTEGER PRIMARY KEY, name TEXT, content BLOB)")
con.execute("INSERT INTO steps VALUES (0, 'opened', ?)", (b"prompt",))
print(time.monotonic_ns())
"""

    def __init__(self) -> None:
        self._con: sqlite3.Connection | None = None
        self._encode: Callable[[bytes], bytes] = _identity
        self._decode: Callable[[bytes], bytes] = _identity

    def open(self, folder: Path) -> None:
        self._con = con = _connect(folder)
        con.execute("PRAGMA journal_mode=WAL")
        con.execute("PRAGMA synchronous=FULL")
        con.execute("CREATE TABLE IF NOT EXISTS steps (key INTEGER PRIMARY KEY, name TEXT, content BLOB)")

    def run_one(self, parts: ChainParts) -> str:
        con, encode, first = self._con, self._encode, parts.chain * _STEPS_MAX
        for number, (name, content) in enumerate(parts.steps()):
            con.execute(_INSERT, (first + number, name, encode(content)))
        return parts.last_draft

    def run_many(self, parts: Sequence[ChainParts]) -> list[str]:
        con, encode = self._con, self._encode
        firsts = [p.chain * _STEPS_MAX for p in parts]
        for number, steps in enumerate(zip(*(p.steps() for p in parts), strict=True)):
            con.execute("BEGIN IMMEDIATE")
            con.executemany(
                _INSERT,
                [
                    (first + number, name, encode(content))
                    for first, (name, content) in zip(firsts, steps, strict=True)
                ],
            )
            con.execute("COMMIT")
        return [p.last_draft for p in parts]

    def close(self) -> None:
        if self._con is not None:
            self._con.close()

    def load_last(self, folder: Path, chain: int, iterations: int) -> str:
        """The documents and the last iteration: what a resume needs first."""
        first = chain * _STEPS_MAX
        last = first + steps_of(iterations) - STEPS_PER_ITERATION
        con = _connect(folder)
        rows = con.execute(
            "SELECT content FROM steps WHERE key = ? OR key BETWEEN ? AND ? ORDER BY key",
            (first, last, first + _STEPS_MAX - 1),
        ).fetchall()
        con.close()
        return [self._decode(content) for (content,) in rows][1].decode()

    def load_all(self, folder: Path, chain: int, _iterations: int) -> list[str]:
        first = chain * _STEPS_MAX
        con = _connect(folder)
        rows = con.execute(
            "SELECT name, content FROM steps WHERE key BETWEEN ? AND ? ORDER BY key",
            (first, first + _STEPS_MAX - 1),
        ).fetchall()
        con.close()
        texts = [(name, self._decode(content).decode()) for name, content in rows]
        return [text for name, text in texts if name == "generation"]


class FloorZlib(Floor):
    """Each content through zlib at its default level."""

    def __init__(self) -> None:
        super().__init__()
        self._encode = zlib.compress
        self._decode = zlib.decompress


class FloorZstd(Floor):
    """Each content through zstd level 1, the codec sifaka uses."""

    def __init__(self) -> None:
        import zstandard

        super().__init__()
        self._encode = zstandard.ZstdCompressor(level=1).compress
        self._decode = zstandard.ZstdDecompressor().decompress


def append_and_sync(folder: Path, parts: ChainParts) -> float:
    """Seconds a step when each is appended to a plain file and fdatasync'd: the disk's own floor."""
    sync = getattr(os, "fdatasync", os.fsync)
    steps = [content for _, content in parts.steps()]
    file = os.open(folder / "append.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    begun = time.perf_counter()
    for content in steps:
        os.write(file, content)
        sync(file)
    seconds = time.perf_counter() - begun
    os.close(file)
    return seconds / len(steps)
