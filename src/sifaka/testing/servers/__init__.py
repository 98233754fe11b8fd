"""Real servers for tests and benchmarks, on free loopback ports with folders of their own (floor 8).

Each is a context manager; they can be stopped, killed and restarted with their data, and none outlives the
process that started it, however that one ends. Nothing is downloaded: :func:`missing` names what to install.
"""

from __future__ import annotations

from sifaka.testing.servers.base import Server
from sifaka.testing.servers.milvus import MilvusServer
from sifaka.testing.servers.postgres import PostgresServer, postgres_program
from sifaka.testing.servers.redis import RedisServer, redis_program

__all__ = ["MilvusServer", "PostgresServer", "RedisServer", "Server", "missing"]


def missing() -> list[str]:
    """The Debian packages of the servers that are not installed, for ``apt-get install``; often none."""
    absent: list[str] = []
    if redis_program() is None:
        absent.append("redis-server")
    if postgres_program("postgres") is None or postgres_program("initdb") is None:
        absent.append("postgresql")
    return absent
