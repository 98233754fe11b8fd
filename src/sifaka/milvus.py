"""The connection to a Milvus: opened when needed, given up when it fails, opened again (floor 1).

A milvus-lite folder is served by this process itself; it is free for others once nobody here uses it,
whatever is kept there. A forked child opens a connection of its own.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, cast

from sifaka.errors import MissingExtraError, SifakaError, UsageError
from sifaka.faults import redact
from sifaka.locks import ProcessLock

__all__ = ["MilvusLink"]

_lite_lock = ProcessLock()
"""Writing a collection anew must not meet any other use of the folder."""
_lite_uses: Counter[str] = Counter()


class MilvusLink:
    """One client at a time, for one thread at a time; ``prepare`` makes a new one ready.

    ``lite`` tells a folder from a server, ``name`` is the address without secrets, ``what`` who needs it.
    ``failed`` makes the error that is raised of a message and of what the client raised. Raises ``wrong`` for
    an address that is none, and MissingExtraError.
    """

    def __init__(
        self,
        uri: str,
        token: str,
        timeout_s: float,
        *,
        what: str,
        prepare: Callable[[Any], None],
        failed: Callable[[str, Exception], Exception],
        wrong: type[UsageError] = UsageError,
    ) -> None:
        self.lite = "://" not in uri and not uri.startswith("unix:")
        if self.lite and not uri.endswith(".db"):
            raise wrong(f"a Milvus is at http://host:port, or in a folder named *.db, not at {uri!r}")
        needed = ("pymilvus", "milvus_lite") if self.lite else ("pymilvus",)
        if any(find_spec(library) is None for library in needed):
            raise MissingExtraError(f"{what} needs: pip install 'sifaka[milvus]'")
        self.name = redact(uri)
        self._uri = os.path.abspath(uri) if self.lite else uri
        self._token = token
        self._timeout_s = timeout_s
        self._prepare = prepare
        self._failed = failed
        self._lock = _lite_lock if self.lite else ProcessLock()
        self._client: Any = None
        self._pid = 0

    @contextmanager
    def use(self) -> Generator[Any]:
        """The client, made ready; any failure of it becomes ours, and ends the connection."""
        with self._lock:
            try:
                yield self._connected()
            except Exception as error:
                self._disconnect()
                if isinstance(error, SifakaError):
                    raise
                raise self._failed(f"Milvus at {self.name}: {_line(error)}", error) from error

    def _connected(self) -> Any:
        if self._pid != os.getpid():
            self._client, self._pid = None, os.getpid()  # before a fork it was its parent's
        if self._client is None:
            self._client = self.connect()
            try:
                self._prepare(self._client)
            except BaseException:  # one that is not ready must not be taken for one that is
                self._disconnect()
                raise
        return self._client

    def connect(self) -> Any:
        """A new client; the other end of all that is sent."""
        import pymilvus

        if self.lite:
            with suppress(FileExistsError):
                os.mkdir(self._uri, mode=0o700)
            os.chmod(self._uri, 0o700)  # also where somebody else has made it
        client: Any = pymilvus.MilvusClient(
            uri=self._uri, token=self._token, timeout=self._timeout_s, dedicated=True
        )
        if self.lite:
            _lite_uses[self._uri] += 1
        return client

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with suppress(Exception):  # it may be given up because it failed
            client.close()
        if self.lite:
            _lite_uses[self._uri] -= 1

    def close(self) -> None:
        """Close the connection, and a folder that nobody in this process uses any more."""
        with self._lock:
            if self._pid == os.getpid():
                self._disconnect()
                if self.lite and not _lite_uses[self._uri]:
                    _release_lite(self._uri)


def _line(error: Exception) -> str:
    """The first line of what an error says, without secrets."""
    return redact(str(error).strip().partition("\n")[0][:300]) or type(error).__name__


def _release_lite(path: str) -> None:
    """End the server that this process has for a milvus-lite folder, so that another may open it."""
    from milvus_lite import server_manager

    cast("Any", server_manager).server_manager_instance.release_server(path)
