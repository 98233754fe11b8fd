"""The way to a Redis server: its address, one client a process, and what its errors mean (floor 3)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

from sifaka.errors import FormatError, MissingExtraError, StorageError, StoreUnreachableError, UsageError
from sifaka.locks import ProcessLock
from sifaka.storage.redis.packing import command
from sifaka.storage.redis.scripts import FORMAT, FORMAT_ERROR, Script

__all__ = ["Address", "Link", "read_address"]

_T = TypeVar("_T")

CONNECTIONS_MAX = 1_000
"""Connections a process opens at the most: one for each thread that waits for the server just now."""
_OURS = ("namespace", "durability")
_ADVICE = {
    "OOM": "the server's memory is full: give it more (CONFIG SET maxmemory), or clean up, then resume",
    "MISCONF": "the server cannot write to its disk: free some space or mend it, then resume",
    "WRONGTYPE": "somebody else uses the same keys: choose another namespace",
    "MOVED": "the address is one node of a cluster: name the node that holds the namespace's slot",
    "NOPERM": "the user's ACL forbids it: the namespace's keys and the scripting commands are needed",
    "NOAUTH": "the server wants a password: redis://:PASSWORD@host:port/0",
    "WRONGPASS": "the user name or the password is wrong",
}
_PASSING = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "BUSY ",
    "UNBLOCKED",
)
"""Errors that a server gives while it starts, fails over or is busy: a later try may succeed."""


class Address(msgspec.Struct, frozen=True):
    """Where a server is. ``shown`` is the address without its password, ``asked`` our own parameters."""

    url: str
    shown: str
    asked: dict[str, str]
    has_password: bool


def read_address(url: str) -> Address:
    """The address that ``url`` gives. Raises UsageError; its message holds no password."""
    plain, _, query = url.partition("?")
    kept = [part for part in query.split("&") if part and part.partition("=")[0] not in _OURS]
    asked = {name: value for name, value in parse_qsl(query, keep_blank_values=True) if name in _OURS}
    stripped = "?".join(filter(None, (plain, "&".join(kept))))
    shown = _without_password(stripped)
    try:
        parts = urlsplit(stripped)
        good = re.match("(redis|rediss|unix)://", stripped) is not None and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(
            f"{shown!r} is no address of a Redis server: write redis://host:6379/0, rediss://… or unix://… "
            "(percent-encode special characters in a password)"
        )
    return Address(stripped, shown, asked, has_password=shown != stripped)


def _without_password(url: str) -> str:
    """To the last "@": a password that was not percent-encoded may hold any character."""
    plain, mark, query = url.partition("?")
    if "@" in query and "@" not in plain and not plain.startswith("unix:"):
        plain, mark, query = url, "", ""
    plain = re.sub(r"(?<=://)([^:/]*):.*@", r"\1:***@", plain)
    return plain + mark + re.sub(r"((?:^|&)[^=&]*password)=[^&]*", r"\1=***", query)


class Link:
    """One client a process, with its pool of connections; safe to share between threads.

    The library repeats nothing by itself. A connection that died while it was idle is noticed and opened
    again before anything is sent; one that dies amid a write is an error at once, since nobody can know
    whether the server has done it.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._lock = ProcessLock()
        self._client: Any = None
        self._pid = 0

    def client(self) -> Any:
        """This process's client; a fork gets one of its own."""
        if self._client is None or self._pid != os.getpid():
            with self._lock:
                if self._client is None or self._pid != os.getpid():
                    self._client, self._pid = self._open(), os.getpid()
        return self._client

    def _open(self) -> Any:
        try:
            from redis import Redis, connection
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingExtraError("the Redis store needs a library: pip install 'sifaka[redis]'") from error
        options: dict[str, Any] = {
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
            "max_connections": CONNECTIONS_MAX,
            "connection_class": connection.Connection,
        }
        try:
            options |= cast("Any", connection).parse_url(self.address.url)
        except ValueError:  # its text may hold a part of the password
            raise self._is_none() from None
        if options["connection_class"] is not connection.UnixDomainSocketConnection:
            options["socket_keepalive"] = True
        # Not to be had otherwise: bytes are bytes, an idle connection with something to read is a dead one,
        # and nothing is sent twice.
        options |= {"decode_responses": False, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
        for name in ("retry_on_error", "retry_on_timeout"):
            options.pop(name, None)
        pool = connection.ConnectionPool(**options)
        try:
            pool.make_connection()  # not connected: to see whether it takes all these options
        except TypeError:
            raise self._is_none() from None
        pool.reset()
        return Redis(connection_pool=pool)

    def _is_none(self) -> UsageError:
        return UsageError(
            f"{self.address.shown!r} is no address that the Redis library takes: look at its options"
        )

    def drop(self) -> None:
        """Close the connections that are idle; the next use opens new ones."""
        if self._client is not None and self._pid == os.getpid():
            self._client.connection_pool.disconnect(inuse_connections=False)

    # Asking --------------------------------------------------------------------------------

    def run(self, script: Script, key: bytes, args: Sequence[bytes]) -> Any:
        """What a script answers; it is sent again only where the server did not know it."""
        return self.ask(lambda client: _run(client, script, key, args))

    def run_reader(self, script: Script, key: bytes, args: Sequence[bytes]) -> Any:
        """As :meth:`run`, for a script that changes nothing."""
        return self.look(lambda client: _run(client, script, key, args))

    def ask(self, question: Callable[[Any], _T]) -> _T:
        """What ``question`` gets from the client; the library's errors become ours."""
        client = self.client()
        import redis

        try:
            return question(client)
        except (redis.RedisError, OSError) as error:
            raise self.explain(error) from error

    def look(self, question: Callable[[Any], _T]) -> _T:
        """As :meth:`ask`, for what changes nothing: asked once more where the connection was lost."""
        try:
            return self.ask(question)
        except StoreUnreachableError as error:
            if not _is_lost(error.__cause__):
                raise
        self.drop()
        return self.ask(question)

    def explain(self, error: Exception) -> StorageError | FormatError:
        """Our own error for one of the library's."""
        from redis import exceptions

        code = getattr(error, "status_code", None) or ""
        said = f"{code} {error}".strip()
        if found := re.search(rf"{FORMAT_ERROR} (\d+)", said):
            return FormatError(f"the store {self.address.shown}", int(found[1]), FORMAT)
        denied = (exceptions.AuthenticationError, exceptions.AuthorizationError)
        if isinstance(error, denied):
            advice = _ADVICE.get(code, "check the user name and the password in the address")
            return StorageError(f"the store {self.address.shown} refused us: {error} ({advice})")
        passing = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.ReadOnlyError, OSError)
        if isinstance(error, passing) or any(word in said for word in _PASSING):
            return StoreUnreachableError(self.address.shown, said)
        advice = next((why for word, why in _ADVICE.items() if word in said), "look into the server's log")
        return StorageError(f"the store {self.address.shown} failed: {said} ({advice})")


def _run(client: Any, script: Script, key: bytes, args: Sequence[bytes]) -> Any:
    from redis import exceptions

    try:
        return _send(client, (b"EVALSHA", script.sha, b"1", key, *args))
    except exceptions.NoScriptError:  # restarted or flushed: nothing was done
        return _send(client, (b"EVAL", script.text, b"1", key, *args))


def _send(client: Any, parts: Sequence[bytes]) -> Any:
    """What the server answers, by the library's connection: its client takes longer than the way there."""
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command([command(parts)])
        return connection.read_response()
    finally:
        pool.release(connection)


def _is_lost(error: BaseException | None) -> bool:
    """The connection ended, rather than that the server answered, or answered too late."""
    import redis

    return type(error) is redis.ConnectionError or isinstance(error, ConnectionError)
