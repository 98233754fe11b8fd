"""Connections to a Postgres server: dead ones are noticed, threads share them, forks keep off (floor 3).

A model may think for minutes while a server restarts or a firewall forgets a connection. So a connection
that nobody uses is looked at before it is used again: bytes that wait on an idle connection mean that the
server has said good-bye. That look is one ``poll``, not a round trip. psycopg_pool would need threads of its
own for the same, and hides why a connection fails; here the thread that needs a connection opens it.

This module imports psycopg: it is loaded with the first :class:`~sifaka.storage.postgres.PostgresStorage`.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha1
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper

from sifaka.errors import StoreUnreachableError
from sifaka.storage.postgres.arrays import register

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

__all__ = ["Link", "Links", "open_link"]


class Link(psycopg.Connection[Any]):
    """A connection whose every wait ends: after ``limit_s`` seconds it counts as lost."""

    limit_s = 10.0
    born = 0
    """The generation of its pool; see :meth:`Links.forget`."""

    @cached_property
    def known(self) -> set[str]:
        """The statements that this connection has carried out and that may come again."""
        return set()

    @cached_property
    def names(self) -> dict[str, bytes]:
        """The statements that :meth:`run` has prepared, each with its name."""
        return {}

    def run(self, statement: str, values: Sequence[int | float | str | bytes | None]) -> int:
        """How many rows a statement changed; it is prepared, and its values go to libpq as they are typed.

        A cursor takes longer for many values than the server does. Each value must have the type of its
        parameter: nothing is converted.
        """
        name = self.names.get(statement)
        if name is None:
            # One name means one statement, also in a session that a pooler has passed on from somebody else.
            name = b"sifaka_" + sha1(statement.encode(), usedforsecurity=False).hexdigest().encode()
            parts = statement.split("%b")
            text = "".join(f"{part}${place}" for place, part in enumerate(parts[:-1], 1)) + parts[-1]
            self.pgconn.send_prepare(name, text.encode())
            self._answer()
            self.names[statement] = name
        packed = [None if value is None else _PACKED[type(value)](value) for value in values]
        self.pgconn.send_query_prepared(name, packed, [Format.BINARY] * len(packed), Format.BINARY)
        return self._answer().command_tuples or 0

    def _answer(self) -> PGresult:
        # A server that ends amid a statement gives two: why it ends, and that it is gone.
        results: list[PGresult] = self.wait(execute(self.pgconn))
        for result in results:
            if result.status != ExecStatus.COMMAND_OK:
                raise error_from_result(result, self.info.encoding)
        return results[-1]

    @cached_property
    def steady(self) -> psycopg.Cursor[Any]:
        """A cursor for statements that return no rows; to make one anew takes longer than to use it."""
        return self.cursor()

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg's own, but never for ever: a frozen server acknowledges packets and says nothing."""
        return super().wait(gen, interval, self.limit_s if timeout is None else timeout)

    def seems_dead(self) -> bool:
        """Whether something waits to be read though nothing was asked, or the socket is gone."""
        if self.closed:
            return True
        looker = select.poll()
        looker.register(self.pgconn.socket, select.POLLIN)
        return bool(looker.poll(0))


_PACKED: dict[type, Callable[[Any], bytes]] = {
    int: struct.Struct(">q").pack,
    float: struct.Struct(">d").pack,
    str: str.encode,
    bytes: bytes,
}


def open_link(parameters: dict[str, Any], *, prepare: bool, limit_s: float) -> Link:
    """A new connection in autocommit mode, sending every integer as int8.

    By its own choice psycopg types an integer by its size, and would prepare a statement once for each
    mix of sizes.
    """
    link = Link.connect("", autocommit=True, prepare_threshold=2 if prepare else None, **parameters)
    link.limit_s = limit_s
    link.adapters.register_dumper(int, Int8BinaryDumper)
    register(link)
    return link


class Links:
    """At most ``size`` connections for the threads of one process, used newest first.

    ``connect`` opens one. Those that stay idle when the storage object goes are closed, also at exit, but
    never by the child of a fork: closing would end the parent's session with a message of its own.
    """

    def __init__(self, connect: Callable[[], Link], size: int, url: str, timeout_s: float) -> None:
        self.pid = os.getpid()
        self._connect = connect
        self._idle: list[Link] = []
        self._room = threading.Semaphore(size)
        self._url = url
        self._timeout_s = timeout_s
        self._generation = 0
        self.close_idle = weakref.finalize(self, _close_all, self._idle, self.pid)

    @contextmanager
    def use(self) -> Generator[Link]:
        """A connection for one thread; one that comes back in an unknown state is closed."""
        if not self._room.acquire(timeout=self._timeout_s):
            raise StoreUnreachableError(self._url, "all connections are busy; raise pool_size")
        try:
            link = self._taken()
            try:
                yield link
            finally:
                self._give_back(link)
        finally:
            self._room.release()

    def _taken(self) -> Link:
        while self._idle:
            try:
                link = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if link.born == self._generation and not link.seems_dead():
                return link
            link.close()
        link = self._connect()
        link.born = self._generation
        return link

    def _give_back(self, link: Link) -> None:
        well = not link.closed and link.pgconn.transaction_status == TransactionStatus.IDLE
        if well and link.born == self._generation:
            self._idle.append(link)
        else:
            link.close()

    def forget(self) -> None:
        """Use none of the present connections again; those in use are closed as they come back."""
        self._generation += 1
        _close_all(self._idle, self.pid)


def _close_all(links: list[Link], pid: int, getpid: Callable[[], int] = os.getpid) -> None:
    while links and getpid() == pid:
        links.pop().close()
