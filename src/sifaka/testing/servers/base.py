"""A real server in a process of its own, on a free loopback port, that can be killed and restarted (floor 8).

A kind of server says its command, its address and how to ask whether it is ready; starting, waiting, killing
and the end of everything are here. Port and data stay over restarts.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from sifaka.errors import StoreUnreachableError, UsageError
from sifaka.testing.servers.folders import GUARD, new_folder

__all__ = ["Server", "find"]

_PORTS_TRIED_MAX = 5
_LOG_TAIL_BYTES = 2000


class Server(ABC):
    """One server. As a context manager it is started on entry, and killed and removed on exit.

    ``folder`` holds its data and its log; by default it is a new temporary one that goes with
    :meth:`close`. ``env`` is extra environment for the next start, such as ``LD_PRELOAD``.
    """

    name: str
    start_s_max: float = 30.0
    stop_s_max: float = 20.0
    _stop_signal = signal.SIGTERM

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._own = folder is None
        self.folder = os.path.abspath(folder) if folder is not None else new_folder(self.name)
        self.env: dict[str, str] = {}
        self._port = 0
        self._pid = 0
        self._owner = 0
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1, from the first start on."""
        if not self._port:
            raise UsageError(f"the {self.name} server was never started: call start() first")
        return self._port

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for a client."""

    @property
    def pid(self) -> int:
        """The id of the server's main process. Raises UsageError while it does not run."""
        if not self.running:
            raise UsageError(f"the {self.name} server does not run: call start() first")
        return self._pid

    @property
    def running(self) -> bool:
        """Whether the server's main process lives."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def log(self) -> str:
        """The end of what the server said."""
        try:
            with open(self._log_path, "rb") as file:
                file.seek(max(0, os.path.getsize(self._log_path) - _LOG_TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def start(self) -> None:
        """Start and return when it answers. Raises StoreUnreachableError with the end of its log."""
        if self.running:
            return
        self._gone(30)  # what is left of one that died by itself
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self.prepare()
        if self._port:
            self._launch()
            self.wait()
            return
        for tries_left in reversed(range(_PORTS_TRIED_MAX)):
            self._port = _free_port()
            try:
                self._launch()
                self.wait()
            except StoreUnreachableError:
                taken, self._port = "already in use" in self.log, 0
                if not taken or not tries_left:
                    raise
            else:
                return

    def wait(self) -> None:
        """Return when the server answers. Raises StoreUnreachableError when it ended or is too slow."""
        end = time.monotonic() + self.start_s_max
        while not (self.running and self.is_ready()):
            ended, late = not self.running, time.monotonic() > end
            if ended or late:
                why = "the server ended" if ended else f"no answer within {self.start_s_max:.0f} s"
                url = self.url
                self.kill()
                raise StoreUnreachableError(url, f"{why}; its log ends: {self.log}")
            time.sleep(0.005)

    def stop(self) -> None:
        """End the server as an administrator would; kill it when that takes too long (``stop_s_max``)."""
        self.signal(self._stop_signal)
        try:
            self._gone(self.stop_s_max)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole server; on return none of its processes is left."""
        self.signal(signal.SIGKILL)
        self._gone(30)

    def restart(self) -> None:
        """Stop and start again, with the same port and data."""
        self.stop()
        self.start()

    def signal(self, number: int) -> None:
        """Send a signal, such as SIGSTOP, to the server's main process; nothing if it does not run."""
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # the server, and with it its guard, ended by itself
                self._guard.stdin.write(b"%d\n" % number)

    def close(self) -> None:
        """Kill the server and, when the folder was the kit's own, remove it."""
        import shutil

        self.kill()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether *this* server, not another on the same port, answers now."""

    def prepare(self) -> None:
        """Put into the folder what has to be there before a start; by default nothing."""
        return

    @property
    def user(self) -> tuple[int, int] | None:
        """User and group to run as, or None for our own."""
        return None

    @property
    def environment(self) -> Mapping[str, str]:
        """What the server needs beside our own environment and :attr:`env`."""
        return {}

    @property
    def inside(self) -> int:
        """Its port in a network namespace of its own; 0 when it needs none."""
        return 0

    @property
    def _log_path(self) -> str:
        return os.path.join(self.folder, "server.log")

    def _launch(self) -> None:
        user, group = self.user or (None, None)
        spec = {
            "command": self.command(),
            "env": {**os.environ, **self.environment, **self.env},
            "user": user,
            "group": group,
            "folder": self.folder,
            "port": self._port,
            "inside": self.inside,
        }
        with open(self._log_path, "wb") as log:
            self._guard = subprocess.Popen(  # noqa: S603 - the kit's own file
                [*GUARD, json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,  # a signal for a server that is gone must not wait in a buffer
                start_new_session=True,  # Ctrl-C is for the tests; what they leave is ended in order
            )
        assert self._guard.stdout is not None  # noqa: S101 - for the type checkers: it was asked for
        self._pid = int(self._guard.stdout.readline() or 0)
        self._guard.stdout.close()
        self._owner = os.getpid()
        atexit.register(self._end)  # before the end of the folders, which were made earlier

    def _end(self) -> None:
        if os.getpid() == self._owner:  # not in a forked copy, which only inherited this
            self.kill()

    def _gone(self, seconds: float) -> None:
        """Wait for the guard, which is the last to leave."""
        if self._guard is None:
            return
        self._guard.wait(seconds)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard = None
        atexit.unregister(self._end)


def find(*programs: str, folders: tuple[str, ...] = ()) -> str | None:
    """The path of the first of these programs that is installed, on PATH or in ``folders``."""
    import shutil

    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])
    return next((found for program in programs if (found := shutil.which(program, path=path))), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
