"""The servers that tests share: one of each for a test process, started when the first test asks for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from sifaka.testing.servers import MilvusServer, PostgresServer, RedisServer, Server
from sifaka.testing.servers.milvus import milvus_platform

_NUMBERS = itertools.count()
_REDIS_DATABASES = 16


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[MilvusServer]:
    if not milvus_platform():
        pytest.skip("the package with the Milvus server is made for Linux on x86-64 alone")
    with MilvusServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty database: its number is not used again for fifteen tests, so that a late writer harms nobody."""
    import redis

    alive(redis_server)
    url = f"redis://127.0.0.1:{redis_server.port}/{next(_NUMBERS) % _REDIS_DATABASES}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A new database, dropped afterwards together with the connections that a test left open."""
    import psycopg

    alive(postgres_server)
    name = f"test_{next(_NUMBERS)}"
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield postgres_server.url_of(name)
    alive(postgres_server)
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def alive(server: Server) -> None:
    """A test may have killed it, or one of its backends."""
    server.start()
    server.wait()


_SERVERS = {"redis_server", "postgres_server", "milvus_server", "redis_url", "postgres_url"}
_LONG = {
    "archive",
    "fallback",
    "death",
    "double",
    "foreign_models",
    "keeping_small",
    "models",
    "deaths_over_the_wire",
    "durable_agent",
    "servers",
    "simulation",
    "storm",
    "streaming_models",
    "wire_runs",
    "sqlite_faults",
    "deaths_on_servers",
    "power_on_servers",
    "redis",
    "postgres",
    "similarity",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a server, or deaths by the hundred, is slow: `make quick` goes without."""
    for item in items:
        kinds = getattr(getattr(item, "callspec", None), "params", {}).values()
        asks = _SERVERS & set(getattr(item, "fixturenames", ())) or {"redis", "postgres", "lite"} & {
            kind for kind in kinds if isinstance(kind, str)
        }
        if asks or item.path.stem.removeprefix("test_") in _LONG:
            item.add_marker("slow")
