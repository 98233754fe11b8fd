"""A real Postgres (floor 8)."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from sifaka.errors import UsageError
from sifaka.testing.servers.base import Server, find
from sifaka.testing.servers.folders import is_reachable, new_folder
from sifaka.testing.servers.guard import parent_of

__all__ = ["PostgresServer", "postgres_program"]


def postgres_program(name: str = "postgres") -> str | None:
    """An installed program of Postgres, of the newest version where PATH has none; or None."""
    import glob

    folders = glob.glob("/usr/lib/postgresql/*/bin")
    newest_first = sorted(folders, key=lambda folder: float(folder.split(os.sep)[-2]), reverse=True)
    return find(name, folders=tuple(newest_first))


class PostgresServer(Server):
    """Postgres on loopback; ``fsync`` and ``synchronous_commit`` are on unless ``settings`` say otherwise.

    Postgres refuses to run as root: started by root it runs as the system user ``postgres``, who then
    has to be able to reach ``folder``. Anyone on this machine can log in as ``sifaka``, without a password.
    """

    name = "postgres"
    _stop_signal = signal.SIGINT  # a fast shutdown: it does not wait for clients to leave

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder)
        self._settings = dict(settings or {})
        self._data = os.path.join(self.folder, "data")

    @property
    def url(self) -> str:
        """``postgresql://sifaka@127.0.0.1:PORT/postgres``."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The address of another database of this server."""
        return f"postgresql://sifaka@127.0.0.1:{self.port}/{database}"

    @property
    def user(self) -> tuple[int, int] | None:
        """The system user ``postgres`` when we are root."""
        return _user(os.geteuid())

    def prepare(self) -> None:
        """Copy the data of a fresh server, made once in this process, when there are none yet."""
        if self.user is not None:
            if not is_reachable(os.path.dirname(self.folder)):
                raise UsageError(
                    f"{self.folder} is no place for a Postgres started by root: the user postgres cannot "
                    "pass the folders above it. Give another folder, or none"
                )
            os.chown(self.folder, *self.user)
        if not os.path.exists(self._data):
            _run(["cp", "-R", _template(os.getpid()), self._data])

    def command(self) -> list[str]:
        """All settings are arguments."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "dynamic_shared_memory_type": "mmap",  # in the data folder: what a kill leaves goes with it
            "logging_collector": "off",
            **self._settings,
        }
        return [
            _program("postgres"),
            "-D",
            self._data,
            *(f"--{key}={value}" for key, value in settings.items()),
        ]

    def is_ready(self) -> bool:
        """Whether this very server holds the data folder, and lets a client in."""
        import psycopg

        try:
            with open(os.path.join(self._data, "postmaster.pid"), encoding="utf-8") as file:
                lines = file.read().split("\n")
            if lines[0] != str(self._pid) or lines[7].strip() != "ready":
                return False
            psycopg.connect(self.url, connect_timeout=2).close()
        except (OSError, IndexError, psycopg.OperationalError):
            return False
        return True

    def kill_backend(self, pid: int) -> None:
        """SIGKILL to one backend; the others are then ended by the server, which recovers and goes on.

        New connections are refused for a moment; :meth:`wait` returns when they no longer are. Raises
        UsageError when ``pid`` is not a process of this server.
        """
        if sys.platform == "linux" and parent_of(pid) != self.pid:
            raise UsageError(f"process {pid} is no backend of this server")
        os.kill(pid, signal.SIGKILL)
        while sys.platform == "linux" and parent_of(pid) == self.pid:
            time.sleep(0.001)  # until the postmaster has seen it


def _program(name: str) -> str:
    program = postgres_program(name)
    if program is None:
        raise UsageError("no Postgres server is installed: apt-get install postgresql")
    return program


@functools.cache
def _user(us: int) -> tuple[int, int] | None:
    import pwd

    if us != 0:
        return None
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise UsageError("Postgres refuses to run as root, and there is no user named postgres") from None
    return user.pw_uid, user.pw_gid


@functools.cache
def _template(_pid: int) -> str:
    # Making a fresh server takes about a second, copying it a tenth of that.
    folder = new_folder("postgres-template")
    if (user := _user(os.geteuid())) is not None:
        os.chown(folder, *user)
    data = os.path.join(folder, "data")
    login = ["--username=sifaka", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
    _run([_program("initdb"), *login, "-D", data])
    return data


def _run(command: list[str]) -> None:
    user, group = _user(os.geteuid()) or (None, None)
    done = subprocess.run(  # noqa: S603 - the kit's own commands
        command,
        cwd="/",
        capture_output=True,
        check=False,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
    )
    if done.returncode:
        raise UsageError(f"{command[0]} failed: {done.stderr.decode(errors='replace').strip()}")
