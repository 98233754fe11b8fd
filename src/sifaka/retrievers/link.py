"""A connection to a Milvus: opened when needed, given up when it fails, opened again (floor 2).

A milvus-lite folder is served by this process itself, and is free for others once nobody here uses it. The
forked child of a process opens a connection of its own.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, cast

from sifaka.errors import MissingExtraError, PartError, SifakaError
from sifaka.faults import classify, redact

__all__ = ["Link"]

_lite_uses: Counter[str] = Counter()


class Link:
    """One client, for one thread at a time.

    ``name`` is the address without secrets. Raises PartError for an address that is none, and
    MissingExtraError; what fails later is a ConnectionError where it may pass, else a RuntimeError.
    """

    def __init__(self, uri: str, token: str, timeout_s: float) -> None:
        self.lite = "://" not in uri and not uri.startswith("unix:")
        if self.lite and not uri.endswith(".db"):
            raise PartError(f"a Milvus is at http://host:port, or in a folder named *.db, not at {uri!r}")
        needed = ("pymilvus", "milvus_lite") if self.lite else ("pymilvus",)
        if any(find_spec(library) is None for library in needed):
            raise MissingExtraError("VectorRetriever needs: pip install 'sifaka[milvus]'")
        self.name = redact(uri)
        self._uri = os.path.abspath(uri) if self.lite else uri
        self._token = token
        self._timeout_s = timeout_s
        self._lock = threading.RLock()
        self._client: Any = None
        self._pid = os.getpid()

    @contextmanager
    def use(self) -> Generator[Any]:
        """The client. Any failure that is not ours ends the connection."""
        self._after_fork()
        with self._lock:
            try:
                if self._client is None:
                    self._client = self._connect()
                yield self._client
            except SifakaError:
                raise
            except Exception as error:
                self._disconnect()
                kind = ConnectionError if classify(error).transient else RuntimeError
                raise kind(f"Milvus at {self.name}: {_line(error)}") from error

    def _after_fork(self) -> None:
        """The lock may be in the hand of a thread that is not here, and the client is the parent's."""
        if self._pid != os.getpid():
            self._pid, self._lock, self._client = os.getpid(), threading.RLock(), None
            _lite_uses.clear()

    def _connect(self) -> Any:
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
        """Close the connection, and a folder that no retriever of this process uses any more."""
        self._after_fork()
        with self._lock:
            had = self._client is not None
            self._disconnect()
            if self.lite and had and not _lite_uses[self._uri]:
                from milvus_lite import server_manager

                cast("Any", server_manager).server_manager_instance.release_server(self._uri)


def _line(error: Exception) -> str:
    """The first line of what an error says, without secrets."""
    return redact(str(error).strip().partition("\n")[0][:300]) or type(error).__name__
