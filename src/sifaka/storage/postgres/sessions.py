"""Sessions with a Postgres server: bounded in time, checked for what they keep, tried again (floor 3).

Each new connection costs one round trip beyond the handshake: it bounds the session's statements, reads the
settings that durability rests on and the server's clock. The first one also makes the tables where they are
missing. Everything that leaves here is one of sifaka's errors.

This module imports psycopg: it is loaded with the first :class:`~sifaka.storage.postgres.PostgresStorage`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from os import getpid
from typing import Any, TypeVar, cast

import psycopg

from sifaka.errors import FormatError, StorageError, StoreUnreachableError
from sifaka.locks import ProcessLock
from sifaka.storage.base import Durability
from sifaka.storage.durability import refuse_weaker, warn_of_weaker
from sifaka.storage.postgres import statements as say
from sifaka.storage.postgres.address import Address
from sifaka.storage.postgres.connections import Link, Links, open_link
from sifaka.storage.postgres.errors import explain, is_conflict, is_forgotten

__all__ = ["Sessions"]

_T = TypeVar("_T")

DEADLINE_SLACK_S = 2.0
"""The server's own limit on a statement is to fire first; our wait ends so much later, in seconds."""
LEISURE_S = 600.0
"""How long a statement over everything may take (clean-up, sizes), in seconds."""
CLOCK_LOOK_S = 30.0
"""After so many seconds the server's clock is looked at again, with the next use of a connection."""
CONFLICTS_MAX = 20
"""So often a change is tried again that was in another transaction's way."""
_LOOPBACK = ("localhost", "127.", "::1", "/")


class Sessions:
    """The connections of a store, for all threads; a process that was forked has connections of its own."""

    def __init__(
        self,
        address: Address,
        schema: str,
        *,
        asked: Durability | None,
        create: bool,
        timeout_s: float,
        size: int,
        prepare: bool,
        told: Callable[[Durability], None],
    ) -> None:
        self.url = address.shown
        self.complaints: list[str] = []
        self._parameters = address.parameters(timeout_s)
        self._schema = schema
        self._asked: Durability | None = asked
        self._create = create
        self._timeout_s = timeout_s
        self._size = size
        self._prepare = prepare
        self._told = told
        self._lock = ProcessLock()
        self._links: Links | None = None
        self._inherited: list[Links] = []
        self._made = False
        self._said: dict[str, str] = {}
        self._judged: Durability | None = None
        self._ahead_s: float | None = None
        self._looked_at = 0.0

    # Using -----------------------------------------------------------------------------------

    def select(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The rows that a statement reads; once more on a new connection where the first was lost."""
        return self._twice(partial(self.all, statement=statement, values=values))

    def alter(self, statement: str, values: Sequence[Any]) -> int:
        """How many rows a statement changed."""
        return self.change(lambda link: link.steady.execute(self.said(statement), values).rowcount)

    def append(self, statement: str, values: Sequence[Any]) -> int:
        """As :meth:`alter`, by the shortest way, for values that have their parameters' types."""

        def work(link: Link) -> int:
            said = self.said(statement)
            if link.prepare_threshold is None or said not in link.known:
                link.known.add(said)  # to prepare it takes a round trip more: from the second time on it pays
                return link.steady.execute(said, values).rowcount
            return link.run(said, values)

        return self.change(work)

    def change(self, work: Callable[[Link], _T], *, at_leisure: bool = False) -> _T:
        """What ``work`` changes; again where it was in another transaction's way, as nothing was written."""
        use = self.use_at_leisure if at_leisure else self.use
        for attempt in range(CONFLICTS_MAX):
            with use() as link:
                try:
                    return work(link)
                except psycopg.Error as error:
                    if is_forgotten(error):
                        self._prepare = False
                        self.forget()
                    elif not is_conflict(error):
                        raise
            time.sleep(0.002 * attempt)
        with use() as link:
            return work(link)

    def _twice(self, work: Callable[[Link], _T]) -> _T:
        try:
            with self.use() as link:
                return work(link)
        except StoreUnreachableError:
            self.forget()
        with self.use() as link:
            return work(link)

    @contextmanager
    def use(self) -> Generator[Link]:
        """A connection for this thread."""
        try:
            with self._pool().use() as link:
                if time.monotonic() - self._looked_at > CLOCK_LOOK_S:
                    self._look_at_clock(link)
                yield link
        except (psycopg.Error, UnicodeError) as error:
            raise explain(error, self.url) from error

    @contextmanager
    def use_at_leisure(self) -> Generator[Link]:
        """A connection of its own, for statements that may take minutes."""
        try:
            link = self._connect(LEISURE_S)
            try:
                yield link
            finally:
                link.close()
        except (psycopg.Error, UnicodeError) as error:
            raise explain(error, self.url) from error

    def said(self, statement: str) -> Any:
        """A statement with the store's schema in it."""
        found = self._said.get(statement)
        if found is None:
            found = self._said[statement] = statement.replace("{s}", f'"{self._schema}"')
        return found

    def one(self, link: Link, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        """The one row that a statement always returns."""
        found = link.execute(self.said(statement), values, binary=True).fetchone()
        return cast("tuple[Any, ...]", found)

    def all(self, link: Link, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that a statement returns."""
        return link.execute(self.said(statement), values, binary=True).fetchall()

    def forget(self) -> None:
        """Use none of the present connections again; those that are idle are closed."""
        links = self._links
        if links is not None and links.pid == getpid():
            links.forget()

    def server_time(self) -> float:
        """The server's clock, in unix seconds, reckoned on from when it was last looked at."""
        if self._ahead_s is None:
            self._twice(self._look_at_clock)
        return time.monotonic() + (self._ahead_s or 0.0)

    # Connecting ------------------------------------------------------------------------------

    def _pool(self) -> Links:
        links = self._links
        if links is not None and links.pid == getpid():
            return links
        with self._lock:
            links = self._links
            if links is None or links.pid != getpid():
                if links is not None:  # its sockets are the parent's: neither used nor closed here
                    self._inherited.append(links)
                links = Links(self._connect, self._size, self.url, self._timeout_s)
                self._links = links
            return links

    def _connect(self, limit_s: float | None = None) -> Link:
        limit_s = limit_s or self._timeout_s
        link = open_link(self._parameters, prepare=self._prepare, limit_s=limit_s + DEADLINE_SLACK_S)
        try:
            self._settle(link, limit_s)
            if not self._made:
                self._make(link)
                self._made = True
        except BaseException:
            link.close()
            raise
        return link

    def _settle(self, link: Link, limit_s: float) -> None:
        """Bound the session's statements, and see what its settings keep."""
        limit = f"{round(limit_s * 1000)}ms"
        before = time.monotonic()
        found = self.one(link, say.SETTINGS, (limit, limit, f"{round(2000 * limit_s)}ms"))
        fsync, full_pages, synchronous, encoding, superuser, at = found[3:]
        self._set_clock(at, before)
        if encoding != "UTF8":
            raise StorageError(f"the store {self.url} needs a database with encoding UTF8, not {encoding}")
        if not synchronous and self._asked not in ("process", "none"):
            link.execute("SET synchronous_commit = on")
            synchronous = True
        troubles = _troubles(fsync=fsync, full_pages=full_pages, synchronous=synchronous)
        self.complaints = [*(f"{cure}." for cure in troubles), *_exposures(link, superuser=superuser)]
        self._judge("power" if not troubles else "server" if synchronous else "process", troubles)

    def _judge(self, kept: Durability, troubles: list[str]) -> None:
        """Refuse what was asked for and is not kept; warn where nothing was asked for."""
        if kept == self._judged:
            return
        cure = "; ".join(troubles)
        if self._asked is None:
            warn_of_weaker(self.url, kept, cure)
        else:
            refuse_weaker(self.url, kept, self._asked, cure)
        self._judged = kept
        self._told(kept)

    def _look_at_clock(self, link: Link) -> None:
        before = time.monotonic()
        (at,) = self.one(link, "SELECT extract(epoch FROM clock_timestamp())::float8")
        self._set_clock(at, before)

    def _set_clock(self, at: float, before: float) -> None:
        self._looked_at = time.monotonic()
        self._ahead_s = at - (before + self._looked_at) / 2

    # Making the tables -----------------------------------------------------------------------

    def _make(self, link: Link) -> None:
        """Create the schema and the tables where they are missing; refuse what a newer version made."""
        version = self._version(link)
        if version is None:
            if not self._create:
                why = f"the database holds no sifaka store in a schema named {self._schema}"
                raise StoreUnreachableError(self.url, why)
            version = self._make_alone(link)
        if version > say.SCHEMA_VERSION:
            raise FormatError(f"the store {self.url}", version, say.SCHEMA_VERSION)

    def _make_alone(self, link: Link) -> int:
        """Create what is missing, one process at a time."""
        with link.transaction():
            link.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            link.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"sifaka {self._schema}",))
            version = self._version(link)
            if version is not None:  # somebody else has created it meanwhile
                return version
            # Not "IF NOT EXISTS": that needs the right to create schemas even where this one is there.
            (there,) = self.one(link, say.HAS_SCHEMA, (self._schema,))
            if not there:
                link.execute(self.said("CREATE SCHEMA {s}"))
            link.execute(self.said(say.CREATE))
            link.execute(self.said("INSERT INTO {s}.format VALUES (%b)"), (say.SCHEMA_VERSION,))
        return say.SCHEMA_VERSION

    def _version(self, link: Link) -> int | None:
        (there,) = self.one(link, say.HAS_FORMAT, (self._schema,))
        return self.one(link, "SELECT version FROM {s}.format")[0] if there else None


def _troubles(*, fsync: bool, full_pages: bool, synchronous: bool) -> list[str]:
    """What would make appends survive a power cut, a cure each."""
    said = (
        (fsync, "Set fsync = on in postgresql.conf and reload it"),
        (full_pages, "Set full_page_writes = on in postgresql.conf and reload it"),
        (synchronous, 'Open the store with durability="power", which sets synchronous_commit = on'),
    )
    return [cure for well, cure in said if not well]


def _exposures(link: Link, *, superuser: bool) -> list[str]:
    """What lets others read or change more than they should."""
    said: list[str] = []
    host = link.info.hostaddr or link.info.host
    if not link.pgconn.ssl_in_use and not host.startswith(_LOOPBACK):
        said.append(f"Texts travel to {host} unencrypted: add sslmode=verify-full to the address.")
    if superuser:
        said.append("The store is used as a superuser: create a user that owns its schema only.")
    return said
