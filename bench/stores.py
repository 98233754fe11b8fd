"""The stores that are measured beside each other: where each lives, and what a hand-written log costs there.

A floor keeps the same bytes as durably as the store beside it, in a table or in lists by chain, with nothing
else: no fence, no lease, no listing, no sums. Each has one durable append, and several ways to share a commit
between many; the fastest of these on the machine is the one that counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from sifaka.storage.base import Renewal, Storage, Write
from sifaka.storage.wrapper import StorageWrapper

DURABLE = ("sqlite", "redis", "postgres")
STORES = ("memory", *DURABLE)

Item = tuple[int, int, bytes]
"""Chain, number in the chain, content."""
_KEY_BITS = 24


class Floor(Protocol):
    """A log by hand. ``many`` has the ways to append a list of items durably, by name."""

    many: dict[str, Callable[[Sequence[Item]], object]]

    def one(self, item: Item) -> object:
        """Append one item, durably."""

    def kept(self) -> tuple[int, int]:
        """How many items are there, and their bytes: to see that nothing was left out."""

    def close(self) -> None: ...


def server_of(store: str) -> AbstractContextManager[Any] | None:
    """A server for ``store``, to be entered; None for a store without one. Data in the temporary folder."""
    from sifaka.testing.servers import PostgresServer, RedisServer

    kinds: dict[str, Callable[[], Any]] = {"redis": RedisServer, "postgres": PostgresServer}
    return kinds[store]() if store in kinds else None


def open_store(store: str, where: str) -> Storage:
    """The store in the file or on the server ``where``."""
    if store == "memory":
        from sifaka.storage.memory import InMemoryStorage

        return InMemoryStorage()
    if store == "redis":
        from sifaka.storage.redis import RedisStorage

        return RedisStorage(where, durability="power")
    if store == "postgres":
        from sifaka.storage.postgres import PostgresStorage

        return PostgresStorage(where, durability="power")
    from sifaka.storage.sqlite import SQLiteStorage

    return SQLiteStorage(where)


def open_floor(store: str, where: str) -> Floor:
    """A fresh floor of that kind, beside the store."""
    kinds: dict[str, Callable[[str], Floor]] = {
        "sqlite": SqliteFloor,
        "redis": RedisFloor,
        "postgres": PostgresFloor,
    }
    return kinds[store](where)


class SqliteFloor:
    """As `floor.py` has it: WAL, ``synchronous=FULL``, one row an append, chain and number in one key."""

    _INSERT = "INSERT INTO steps VALUES (?, 'append', ?)"

    def __init__(self, where: str) -> None:
        path = Path(where).with_name("floor.db")
        self._con = con = sqlite3.connect(path, isolation_level=None)
        con.execute("PRAGMA journal_mode=WAL")
        con.execute("PRAGMA synchronous=FULL")
        con.execute("DROP TABLE IF EXISTS steps")
        con.execute("CREATE TABLE steps (key INTEGER PRIMARY KEY, name TEXT, content BLOB)")
        self.many = {f"{size} a commit": _in_groups(size, self._group) for size in (64, 100)}

    def one(self, item: Item) -> object:
        return self._con.execute(self._INSERT, _keyed(item))

    def _group(self, items: Sequence[Item]) -> None:
        con = self._con
        con.execute("BEGIN IMMEDIATE")
        con.executemany(self._INSERT, map(_keyed, items))
        con.execute("COMMIT")

    def kept(self) -> tuple[int, int]:
        return self._con.execute("SELECT count(*), coalesce(sum(length(content)), 0) FROM steps").fetchone()

    def close(self) -> None:
        self._con.close()


class RedisFloor:
    """A list a chain, RPUSH on one connection; a group in MULTI, or as a bare pipeline.

    With ``appendfsync always`` the server syncs before it answers. It does so once for all that it has read
    by then: a whole MULTI, or as much of a pipeline as fits into its buffer (16 kB).
    """

    def __init__(self, where: str) -> None:
        from redis import Redis

        self._client = client = Redis.from_url(where, single_connection_client=True, protocol=2)
        _check("appendfsync", client.config_get("appendfsync").get("appendfsync"), "always")
        _check("appendonly", client.config_get("appendonly").get("appendonly"), "yes")
        for key in client.scan_iter("floor:*"):
            client.delete(key)
        self.many = {
            "MULTI of 64": _in_groups(64, self._multi),
            "MULTI of 100": _in_groups(100, self._multi),
            "pipeline of 100": _in_groups(100, self._pipeline),
        }

    def one(self, item: Item) -> object:
        return self._client.rpush(f"floor:{item[0]}", item[2])

    def _multi(self, items: Sequence[Item]) -> None:
        self._push(self._client.pipeline(transaction=True), items)

    def _pipeline(self, items: Sequence[Item]) -> None:
        self._push(self._client.pipeline(transaction=False), items)

    def _push(self, pipe: Any, items: Sequence[Item]) -> None:
        for chain, _, content in items:
            pipe.rpush(f"floor:{chain}", content)
        pipe.execute()

    def kept(self) -> tuple[int, int]:
        found = [self._client.lrange(key, 0, -1) for key in self._client.scan_iter("floor:*")]
        return sum(map(len, found)), sum(len(content) for contents in found for content in contents)

    def close(self) -> None:
        self._client.close()


class PostgresFloor:
    """A table with one integer key, a prepared INSERT in autocommit; a group as one INSERT of arrays or rows."""

    _INSERT = "INSERT INTO floor VALUES (%b, %b)"
    _ARRAYS = "INSERT INTO floor SELECT * FROM unnest(%b::bigint[], %b::bytea[])"

    def __init__(self, where: str) -> None:
        import psycopg
        from psycopg.types.numeric import Int8BinaryDumper

        self._con = con = psycopg.connect(where, autocommit=True)
        con.adapters.register_dumper(int, Int8BinaryDumper)  # one type, so one prepared statement
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            _check(name, con.execute(f"SHOW {name}").fetchone()[0], "on")
        con.execute("DROP TABLE IF EXISTS floor")
        con.execute("CREATE TABLE floor (key bigint PRIMARY KEY, content bytea NOT NULL)")
        self._cursor = con.cursor()
        self.many = {
            "arrays of 64": _in_groups(64, self._arrays),
            "arrays of 100": _in_groups(100, self._arrays),
            "100 rows of VALUES": _in_groups(100, self._values),
        }

    def one(self, item: Item) -> object:
        return self._cursor.execute(self._INSERT, _keyed(item), prepare=True)

    def _arrays(self, items: Sequence[Item]) -> None:
        columns = tuple(map(list, zip(*map(_keyed, items), strict=True)))
        self._cursor.execute(self._ARRAYS, columns, prepare=True)

    def _values(self, items: Sequence[Item]) -> None:
        statement = "INSERT INTO floor VALUES " + ", ".join(["(%b, %b)"] * len(items))
        self._cursor.execute(statement, [value for item in items for value in _keyed(item)], prepare=True)

    def kept(self) -> tuple[int, int]:
        statement = "SELECT count(*), coalesce(sum(octet_length(content)), 0)::bigint FROM floor"
        return self._con.execute(statement).fetchone()

    def close(self) -> None:
        self._con.close()


def _keyed(item: Item) -> tuple[int, bytes]:
    return item[0] << _KEY_BITS | item[1], item[2]


def _in_groups(size: int, append: Callable[[Sequence[Item]], object]) -> Callable[[Sequence[Item]], None]:
    def all_of(items: Sequence[Item]) -> None:
        for start in range(0, len(items), size):
            append(items[start : start + size])

    return all_of


def _check(name: str, found: object, wanted: str) -> None:
    if found != wanted:
        raise AssertionError(f"the floor's server has {name} = {found}, not {wanted}: it is not as durable")


class Counted(StorageWrapper):
    """Counts what commits: ``appends`` those of appends alone, ``commits`` all."""

    appends = commits = 0

    def write(self, writes: Sequence[Write]) -> list[bool]:
        self._count()
        return self.inner.write(writes)

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        done = self.inner.try_write(writes)
        if done is not None:
            self._count()
        return done

    def _count(self) -> None:
        self.appends += 1
        self.commits += 1

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        self.commits += 1
        return self.inner.claim(chain_id, token, owner, until)

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        self.commits += 1
        return self.inner.renew(renewals)
