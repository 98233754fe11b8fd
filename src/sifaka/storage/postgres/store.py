"""The store on a Postgres server: one round trip and one commit an append, for many machines (floor 3).

Compare-and-append is one statement: an UPDATE of the run's entry compares token and last record, waits for
whoever writes the same entry, compares again, and what it returns is inserted into the log. A batch travels
as arrays in the same statement.

What survives: an acknowledged append survives a power cut ("power") with the server's ``fsync``,
``full_page_writes`` and ``synchronous_commit`` on, which is looked at on each connection. Prompts and texts
are stored in plain text, readable by whoever may read the tables, and are for a while in the server's
write-ahead log also after they were deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sifaka.clock import Clock, SystemClock
from sifaka.errors import MissingExtraError, UsageError
from sifaka.storage.base import Cell, Durability, Entry, Query, Renewal, Row, Storage, Write, paged_rows
from sifaka.storage.durability import as_durability
from sifaka.storage.postgres import statements as say
from sifaka.storage.postgres.values import (
    Step,
    entry_of,
    incoming,
    listing,
    lone,
    outgoing,
    renewing,
    replacing,
    row_of,
    upper_bound,
    writing,
)

if TYPE_CHECKING:
    from sifaka.storage.postgres.connections import Link

__all__ = ["PostgresStorage"]

RUNS_A_DELETE = 100
"""Runs that are deleted in one transaction."""
REWRITE_BYTES_MAX = 64 * 2**20
"""Up to this size :meth:`PostgresStorage.compact` rewrites a table, which locks it for under a second."""


class PostgresStorage(Storage):
    """A store in the schema ``schema`` of the database at ``url`` (``postgresql://user@host/database``).

    ``url`` is a libpq URL; ``?schema=…&durability=…`` in it are ours. What is missing is created, unless
    ``create`` is false. ``durability`` is what has to be kept: where the server's settings don't, opening
    is refused; where nothing is asked for, a DurabilityWarning tells. Until the first connection the
    attribute ``durability`` says what is asked for, after it what is kept.

    ``timeout_s`` bounds each statement and each connecting, in seconds; ``patience_s`` is how long appends
    are tried again while the server is away. At most ``pool_size`` connections are opened. Statements are
    prepared, unless ``prepare`` is false; behind a pooler that does not know prepared statements the store
    notices and goes on without.

    A process that was forked opens connections of its own. Raises MissingExtraError, UsageError.
    """

    local = False

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        durability: Durability | None = None,
        create: bool = True,
        clock: Clock | None = None,
        timeout_s: float = 5.0,
        patience_s: float = 20.0,
        pool_size: int = 4,
        prepare: bool = True,
    ) -> None:
        try:
            from sifaka.storage.postgres.address import Address
            from sifaka.storage.postgres.sessions import Sessions
        except ImportError as error:
            raise MissingExtraError(
                f"the Postgres store needs psycopg ({error}): pip install 'sifaka[postgres]'", "postgresql"
            ) from error
        address = Address(url)
        named = durability or address.options.get("durability")
        asked = as_durability(named) if named else None
        self.url = address.shown
        self.schema = schema or address.options.get("schema", "sifaka")
        if not re.fullmatch("[a-z_][a-z0-9_]{0,62}", self.schema):
            raise UsageError(f"a schema's name is of a-z, 0-9 and _, up to 63, not {self.schema!r}")
        self._durability: Durability = asked or "power"
        self.clock = clock or SystemClock()
        self.patience_s = patience_s
        self._servers_clock = isinstance(self.clock, SystemClock)
        self._sessions = Sessions(
            address,
            self.schema,
            asked=asked,
            create=create,
            timeout_s=timeout_s,
            size=pool_size,
            prepare=prepare,
            told=self._keep,
        )

    @property
    def durability(self) -> Durability:
        """What an acknowledged append survives: by the server's settings, once it was reached."""
        return self._durability

    def _keep(self, durability: Durability) -> None:
        self._durability = durability

    def now(self) -> float:
        """The server's clock, in unix seconds, without a round trip.

        It is looked at with each new connection and about every 30 s, and reckoned on from there with this
        machine's monotonic clock, so that the wall clocks of the machines that share the store do not
        matter. A clock that was given (a FakeClock) takes the server's place altogether, so that leases end
        as it is advanced.
        """
        return self._sessions.server_time() if self._servers_clock else self.clock.time()

    def reset(self) -> None:
        """Use none of the present connections again."""
        self._sessions.forget()

    def close(self) -> None:
        """Close the idle connections; the next use opens new ones."""
        self._sessions.forget()

    # Appending -----------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all in one commit; False where one was refused."""
        if len(writes) == 1 and writes[0].opens is None and writes[0].change is None:
            return [self._sessions.append(say.APPEND_ONE, lone(writes[0].row)) == 1]
        return self._carry_out(writing(writes), len(writes))

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        """Renew leases, or give them back, in one commit."""
        return self._carry_out(renewing(renewals), len(renewals))

    def _carry_out(self, steps: Sequence[Step], count: int) -> list[bool]:
        """What became of each of ``count`` changes: True where a step says that it was made."""
        done = [False] * count
        if steps:
            answers = self._sessions.change(lambda link: self._send(link, steps))
            for step, accepted in zip(steps, answers, strict=True):
                for place, key in step.keys.items():
                    done[place] = (key,) in accepted
        return done

    def _send(self, link: Link, steps: Sequence[Step]) -> list[set[tuple[Any, ...]]]:
        """The ids that each step changed. Several steps are one transaction, and one round trip."""
        sessions = self._sessions
        if len(steps) == 1:
            return [set(sessions.all(link, steps[0].statement, steps[0].values))]
        with link.pipeline(), link.transaction():
            cursors = [link.execute(sessions.said(one.statement), one.values, binary=True) for one in steps]
        return [set(cursor.fetchall()) for cursor in cursors]

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        return self._sessions.alter(say.CLAIM, (owner, float(until), outgoing(chain_id), token)) == 1

    # Reading -------------------------------------------------------------------------------

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last``, read a page at a time."""
        key = outgoing(chain_id)
        statement = say.ROWS_NEWEST_FIRST if newest_first else say.ROWS

        def select(start: int, end: int, limit: int) -> list[Row]:
            found = self._sessions.select(statement, (key, start, end, key, end, end, limit))
            return [row_of(chain_id, one) for one in found]

        return paged_rows(select, first, last, newest_first=newest_first)

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None."""
        found = self._sessions.select(say.ONE_ENTRY, (outgoing(chain_id),))
        return entry_of(found[0]) if found else None

    def entries(self, query: Query) -> list[Entry]:
        """The entries that ``query`` selects, newest first."""
        if query.statuses is not None and not query.statuses:
            return []
        statement, values = listing(query)
        return [entry_of(one) for one in self._sessions.select(statement, values)]

    # Clean-up ------------------------------------------------------------------------------

    def delete(self, entries: Sequence[Entry]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""
        ordered = sorted(entries, key=lambda entry: entry.chain_id)
        parts = [ordered[start : start + RUNS_A_DELETE] for start in range(0, len(ordered), RUNS_A_DELETE)]
        change = partial(self._sessions.change, at_leisure=True)
        return sum(change(partial(self._delete, entries=part)) for part in parts)

    def _delete(self, link: Link, entries: Sequence[Entry]) -> int:
        ids, tokens = [outgoing(one.chain_id) for one in entries], [one.token for one in entries]
        with link.transaction():
            gone = [no for (no,) in self._sessions.all(link, say.FORGET, (ids, tokens))]
            # A statement of its own: it sees what was appended while the first one waited for a lock.
            return int(self._sessions.one(link, say.FORGET_ROWS, (gone,))[0]) if gone else 0

    def trim(self, row: Row) -> int | None:
        """Put ``row`` in place of the rows in its range; the number of checkpoints removed."""
        return self._sessions.change(lambda link: self._trim(link, row))

    def _trim(self, link: Link, row: Row) -> int | None:
        sessions, key = self._sessions, outgoing(row.chain_id)
        with link.transaction():
            held = sessions.all(link, say.HELD, (key, row.token, row.last))
            if not held:
                return None
            where = (held[0][0], row.first, row.first, row.last)
            first, last, checkpoints, raw, stored = sessions.one(link, say.COVERED, where)
            if (first, last) != (row.first, row.last):
                return None
            link.execute(sessions.said(say.UNCOVER), where)
            less = (row.checkpoints - checkpoints, row.raw - raw, len(row.frame) - stored)
            link.execute(sessions.said(say.REPLACE), replacing(where[0], row, less))
            link.execute(sessions.said(say.RECOUNT), (where[0], where[0]))
            return int(checkpoints) - row.checkpoints

    def compact(self) -> None:
        """Give the space of what was deleted back to the server, beside running chains.

        Tables of up to 64 MiB are rewritten where nobody is in the way, so that deleted texts are in no
        file of theirs; in larger ones the space is used again, and texts go as it is. The server's
        write-ahead log and its archives keep texts for as long as they are set to.
        """
        import psycopg

        with self._sessions.use_at_leisure() as link:
            for table in ("chains", "log", "cells"):
                name = f"{{s}}.{table}"
                link.execute(self._sessions.said(f"VACUUM {name}"))
                (size,) = self._sessions.one(link, f"SELECT pg_table_size('{name}')")
                if size <= REWRITE_BYTES_MAX:
                    link.execute("SET lock_timeout = '500ms'")
                    try:
                        link.execute(self._sessions.said(f"VACUUM FULL {name}"))
                    except psycopg.errors.LockNotAvailable:
                        continue  # somebody reads or writes just now; the next clean-up comes

    # Cells and figures ---------------------------------------------------------------------

    def cells(self, names: Sequence[str]) -> list[Cell]:
        """The cells of these names, in that order."""
        keys = [outgoing(name) for name in names]
        found = self._sessions.select(say.CELLS, (keys,)) if keys else []
        known = {name: Cell(value, version) for name, value, version in found}
        return [known.get(key, Cell()) for key in keys]

    def swap(self, name: str, value: bytes, version: int) -> bool:
        """Set a cell whose version still is ``version``."""
        key = outgoing(name)
        if version == 0:
            return self._sessions.alter(say.SWAP_FIRST, (key, value)) == 1
        return self._sessions.alter(say.SWAP, (value, key, version)) == 1

    def cell_names(self, prefix: str = "", after: str = "", limit: int = 500) -> list[str]:
        """The names of cells that begin with ``prefix`` and lie behind ``after``."""
        low, bound = outgoing(prefix), outgoing(upper_bound(prefix))
        values = (low, outgoing(after), bound, bound, limit)
        found = self._sessions.select(say.CELL_NAMES, values)
        return [incoming(name) for (name,) in found]

    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept, from counters that each append carries on."""
        with self._sessions.use_at_leisure() as link:
            found = self._sessions.all(link, say.MEASURE)
            (size,) = self._sessions.one(link, say.SIZE)
        oldest = [one[6] for one in found if one[6] is not None]
        newest = [one[7] for one in found if one[7] is not None]
        return {
            "total_checkpoints": sum(one[2] for one in found),
            "records": sum(one[3] for one in found),
            "storage_size_bytes": int(size),
            "stored_bytes": sum(one[5] for one in found),
            "raw_bytes": sum(one[4] for one in found),
            "oldest_checkpoint": min(oldest, default=None),
            "newest_checkpoint": max(newest, default=None),
            "chains": {one[0]: one[1] for one in found},
        }

    def complaints(self) -> list[str]:
        """What in the server's settings does not keep the promises, a sentence each with the way out."""
        with self._sessions.use():
            return list(self._sessions.complaints)
