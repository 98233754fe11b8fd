"""One list of stores, for the tests that run on all of them; each is made empty, and opened again."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sifaka.clock import Clock
from sifaka.storage.base import Storage
from sifaka.storage.cached import CachedStorage
from sifaka.storage.fallback import FallbackStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.postgres import PostgresStorage
from sifaka.storage.redis import RedisStorage
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.testing import FakeClock, FaultyStorage
from sifaka.testing.contract import Opener
from sifaka.testing.servers import PostgresServer, RedisServer

__all__ = ["STORES", "Stores", "memory", "stores"]

NewStore = Callable[[], Opener]


def memory() -> Opener:
    """A store that lives in this process: all its handles are one object."""
    storage = InMemoryStorage()

    def open_store(clock: Clock | None = None) -> Storage:
        if clock is not None:
            storage.clock = clock
        return storage

    return open_store


def around(new_store: NewStore, wrap: Callable[[Storage], Storage]) -> NewStore:
    """Each handle of the inner store in a wrapper of its own."""

    def new() -> Opener:
        inner = new_store()
        return lambda clock=None: wrap(inner(clock))

    return new


class OneProcess:
    """An opener as a process has it: one handle, until that is closed."""

    def __init__(self, inner: Opener) -> None:
        self.inner = inner
        self.handle: Handle | None = None

    def __call__(self, clock: Clock | None = None) -> Storage:
        if self.handle is None or self.handle.is_closed:
            # The contract's times begin where this clock does: so leases are alive, and the memory answers.
            self.handle = Handle(persistence=self.inner(clock or FakeClock()))
            self.handle.now()  # as a journal does first: without it the memory does not know what is held
        return self.handle


class Handle(CachedStorage):
    is_closed = False

    def close(self) -> None:
        self.is_closed = True
        super().close()


class Stores:
    """Makes stores of every kind, below a folder and on the servers of this test process."""

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        self.folder = folder
        self.request = request
        self.numbers = itertools.count()
        self.has_database = False

    def new(self, kind: str) -> NewStore:
        """A maker of empty stores of that kind; what it made before is gone when it makes another."""
        return {
            "memory": memory,
            "sqlite": self.sqlite,
            "cached": around(memory, CachedStorage),
            "tiers": lambda: OneProcess(self.sqlite()),
            "tiers apart": around(self.sqlite, lambda one: CachedStorage(persistence=one)),
            "faulty": around(self.sqlite, lambda one: FaultyStorage(one, lambda _number, _when: None)),
            "fallback": self.fallback,
            "redis": self.redis,
            "postgres": self.postgres,
        }[kind]

    def sqlite(self) -> Opener:
        for old in self.folder.iterdir():
            old.unlink()
        path = self.folder / f"{next(self.numbers)}.db"
        return lambda clock=None: SQLiteStorage(path, clock=clock)

    def fallback(self) -> Opener:
        """The primary is there all the time."""
        primary = self.sqlite()
        journal = self.folder / "journal.db"
        return lambda clock=None: FallbackStorage(primary(clock), SQLiteStorage(journal, clock=clock))

    def redis(self) -> Opener:
        """A name space for each store."""
        server: RedisServer = self.request.getfixturevalue("redis_server")
        server.start()  # another test may have killed it
        server.wait()
        namespace = f"test {next(self.numbers)}"
        return lambda clock=None: RedisStorage(server.url, namespace=namespace, clock=clock)

    def postgres(self) -> Opener:
        """One schema, emptied for each store: to make one takes longer than most tests."""
        import psycopg

        server: PostgresServer = self.request.getfixturevalue("postgres_server")
        server.start()  # another test may have killed it
        server.wait()
        url = server.url_of("stores")
        if not self.has_database:
            with psycopg.connect(server.url, autocommit=True) as admin:
                admin.execute("DROP DATABASE IF EXISTS stores WITH (FORCE)")
                admin.execute("CREATE DATABASE stores TEMPLATE template0")
            PostgresStorage(url).entry("made at the first use")
            self.has_database = True
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("TRUNCATE sifaka.log, sifaka.chains, sifaka.cells")
        return lambda clock=None: PostgresStorage(url, clock=clock)


STORES = ("memory", "sqlite", "cached", "tiers", "tiers apart", "faulty", "fallback", "redis", "postgres")


@pytest.fixture(scope="module")
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """Stores of all kinds, gone at the end; files in memory where that can be had."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="sifaka-", dir=fast) as folder:
        yield Stores(Path(folder), request)
