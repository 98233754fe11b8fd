"""What a store is: the few hooks a backend implements, and the values they pass (floor 3).

A backend keeps opaque, checksummed frames, one *entry* a run, and small shared *cells*; it never decodes
any of them. What is the same for all (encoding, group commit, leases, folding) is built on these hooks by
``journal`` and ``checkpoints``. Hooks are synchronous and thread-safe; a wrapper has the same hooks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import msgspec

from sifaka.clock import Clock, SystemClock
from sifaka.errors import StorageError
from sifaka.log.records import Status

__all__ = [
    "CHAIN_ID_CHARS_MAX",
    "DURABILITIES",
    "Cell",
    "Change",
    "Durability",
    "Entry",
    "Query",
    "Renewal",
    "Row",
    "Storage",
    "Write",
    "paged_rows",
]

CHAIN_ID_CHARS_MAX = 200
_TOP = 2**62
"""Beyond any record's number."""

Durability = Literal["none", "process", "server", "power"]
"""What an acknowledged append survives: nothing, the death of our process, of the store's server, or
of the machine's power supply. Each includes the ones before it."""
DURABILITIES: tuple[Durability, ...] = get_args(Durability)
"""The classes, weakest first."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One append as it is stored: records ``first`` to ``last`` of a run in one frame.

    ``token`` is the writer's fencing token, ``at`` the time of the last record (unix seconds),
    ``checkpoints`` how many of the records are checkpoints, ``raw`` the bytes before compression.
    """

    chain_id: str
    first: int
    last: int
    token: int
    at: float
    checkpoints: int
    frame: bytes
    raw: int = 0


class Change(msgspec.Struct, frozen=True, gc=False):
    """What an append changes in its run's entry.

    ``until`` is when a wait ends (unix seconds, 0: none), ``group`` the signature of the failure,
    ``release`` gives the lease back.
    """

    status: Status
    at: float
    reason: str = ""
    group: str = ""
    until: float = 0.0
    release: bool = False

    def applied_to(self, entry: Entry) -> Entry:
        """The entry as it is after the append that this belongs to."""
        changed = msgspec.structs.replace(
            entry,
            status=self.status,
            reason=self.reason,
            group=self.group,
            until=self.until,
            updated_at=self.at,
        )
        return msgspec.structs.replace(changed, owner=b"", lease_until=0.0) if self.release else changed


class Write(msgspec.Struct, frozen=True, gc=False):
    """One compare-and-append.

    Refused unless the run's last record is ``row.first - 1`` and its token is ``row.token``. A write that
    ``opens`` creates the run's entry as it is given, and is refused where there is one already or the row
    does not follow ``opens.last`` (-1 for a new run; a copy may begin its part of a log elsewhere).
    """

    row: Row
    change: Change | None = None
    opens: Entry | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A run as the store lists it. ``last`` is its last record's number, -1 for none.

    ``owner`` is the encoded identity of who holds the lease (empty: nobody), ``lease_until`` when it
    ends by the store's clock (unix seconds).
    """

    chain_id: str
    token: int = 1
    owner: bytes = b""
    lease_until: float = 0.0
    status: Status = "running"
    reason: str = ""
    group: str = ""
    label: str = ""
    until: float = 0.0
    opened_at: float = 0.0
    updated_at: float = 0.0
    last: int = -1


class Renewal(msgspec.Struct, frozen=True, gc=False):
    """A lease renewed until ``until`` by the store's clock, or given back (``owner`` empty)."""

    chain_id: str
    token: int
    owner: bytes = b""
    until: float = 0.0


class Cell(msgspec.Struct, frozen=True, gc=False):
    """A small value that all processes of a store share; ``version`` counts its writes (0: none yet)."""

    value: bytes = b""
    version: int = 0


class Query(msgspec.Struct, frozen=True, gc=False):
    """Which entries to list, newest first; None: any. ``after`` continues behind a listed entry."""

    statuses: tuple[Status, ...] | None = None
    group: str | None = None
    label: str | None = None
    updated_before: float | None = None
    updated_since: float | None = None
    after: Entry | None = None
    limit: int = 50


def paged_rows(
    select: Callable[[int, int, int], list[Row]], first: int, last: int | None, *, newest_first: bool
) -> Iterator[Row]:
    """The rows that hold any of the records ``first`` to ``last``, read a page at a time.

    ``select(first, last, limit)`` reads the next of them, in the order that is wanted.
    """
    end, limit = _TOP if last is None else last, 8
    while True:
        found = select(first, end, limit)
        yield from found
        if len(found) < limit or not found[-1].first:
            return
        if newest_first:
            end = found[-1].first - 1
        else:
            first = found[-1].last + 1
        limit = 64


class Storage(ABC):
    """A backend. Hooks raise StorageError (or its children) and nothing else for the store's faults."""

    local = True
    """True where a hook takes microseconds, so an event loop may call it itself."""
    patience_s = 0.0
    """How long appends are tried again where the store cannot be reached, in seconds."""
    url = ""
    clock: Clock = SystemClock()
    face: object = None
    """The typed face that this process shares on this store; see :mod:`sifaka.storage.urls`."""

    @property
    def durability(self) -> Durability:
        """What an acknowledged append survives."""
        return "none"

    def refusal(self, row: Row) -> StorageError | None:
        """Why this append was refused, where there is more to say than that somebody took the run over."""
        del row
        return None

    def now(self) -> float:
        """The store's own clock, in unix seconds: what leases are measured by."""
        return self.clock.time()

    @abstractmethod
    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all in one commit; False where one was refused (the others stand).

        Token and last record are compared inside the statement that writes.
        """

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        """As :meth:`write`, but None at once where that would wait for another process's commit."""
        return self.write(writes)

    @abstractmethod
    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last`` (None: to the end)."""

    @abstractmethod
    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None."""

    @abstractmethod
    def entries(self, query: Query) -> list[Entry]:
        """The entries that ``query`` selects, newest first."""

    @abstractmethod
    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""

    @abstractmethod
    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        """Renew leases, or give them back, in one commit.

        False where ``token`` is not the current one, or a lease to be renewed is no longer the owner's.
        """

    @abstractmethod
    def delete(self, entries: Sequence[Entry]) -> int:
        """Remove runs with all their records; the number of checkpoints removed.

        A run whose token is no longer that of its entry here is spared: somebody has claimed it since.
        """

    @abstractmethod
    def trim(self, row: Row) -> int | None:
        """Put ``row``, which tells what was here, in place of the rows that lie in its range.

        The number of checkpoints removed; None, and nothing changed, where ``row.token`` is not the run's
        current token or the range does not begin and end with a row. The run's last row is never replaced.
        """

    @abstractmethod
    def cells(self, names: Sequence[str]) -> list[Cell]:
        """The cells of these names, in that order."""

    @abstractmethod
    def swap(self, name: str, value: bytes, version: int) -> bool:
        """Set a cell whose version still is ``version``, as version ``version + 1``."""

    @abstractmethod
    def cell_names(self, prefix: str = "", after: str = "", limit: int = 500) -> list[str]:
        """The names of cells that begin with ``prefix`` and lie behind ``after``, by code point."""

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept.

        ``total_checkpoints``, ``storage_size_bytes`` (what the store takes up), ``raw_bytes`` and
        ``stored_bytes`` (of the records, before and after compression), ``oldest_checkpoint`` and
        ``newest_checkpoint`` (unix seconds or None: of the rows that hold checkpoints), ``chains`` (number by
        status), ``records``.
        """

    def pages(self, query: Query) -> Iterator[list[Entry]]:
        """All entries that ``query`` selects, newest first, ``query.limit`` at a time."""
        while page := self.entries(query):
            yield page
            query = msgspec.structs.replace(query, after=page[-1])

    def complaints(self) -> list[str]:
        """What in the store's settings does not keep its promises, a sentence each with the way out."""
        return []

    def compact(self) -> None:  # noqa: B027 - a store that gives space back by itself has nothing to do
        """Give the space of what was deleted back, and leave its texts in no file."""

    def reset(self) -> None:  # noqa: B027 - a store without connections has nothing to do
        """Drop connections that a failure left in an unknown state."""

    def close(self) -> None:  # noqa: B027 - as above
        """Give back what the store holds open."""
