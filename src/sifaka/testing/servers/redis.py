"""A real Redis or Valkey (floor 8)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from sifaka.errors import UsageError
from sifaka.testing.servers.base import Server, find

__all__ = ["RedisServer", "redis_program"]


def redis_program() -> str | None:
    """The installed server, or None."""
    return find("redis-server", "valkey-server")


class RedisServer(Server):
    """Redis on loopback, without snapshots; by default each write is on disk before it is acknowledged.

    ``extra`` are further arguments, such as ``("--maxmemory", "4mb")``; they stay over restarts.
    """

    name = "redis"

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        appendonly: bool = True,
        appendfsync: str = "always",
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__(folder)
        self._appendonly = "yes" if appendonly else "no"
        self._appendfsync = appendfsync
        self._extra = tuple(extra)

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """All settings are arguments. Raises UsageError when no server is installed."""
        program = redis_program()
        if program is None:
            raise UsageError("no Redis server is installed: apt-get install redis-server")
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "daemonize": "no",
            "dir": self.folder,
            "save": "",
            "appendonly": self._appendonly,
            "appendfsync": self._appendfsync,
        }
        return [
            program,
            *(part for key, value in settings.items() for part in (f"--{key}", value)),
            *self._extra,
        ]

    def is_ready(self) -> bool:
        """Ask for its process id, and whether it has loaded its data."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as asking:
                asking.sendall(b"INFO\r\nQUIT\r\n")
                said = asking.makefile("rb").read().decode(errors="replace").split()
        except OSError:
            return False
        return f"process_id:{self._pid}" in said and "loading:0" in said
