"""What a store is: the few hooks a backend implements, and the values they pass (floor 3).

A backend keeps opaque, checksummed frames and one *entry* a run; it never decodes either. What is the
same for all (encoding, group commit, leases, folding) is built on these hooks by ``journal`` and
``checkpoints``. Hooks are synchronous and thread-safe; a wrapper has the same hooks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from sifaka.clock import Clock, SystemClock
from sifaka.log.records import Status

__all__ = [
    "CHAIN_ID_CHARS_MAX",
    "Change",
    "Durability",
    "Entry",
    "Query",
    "Row",
    "Storage",
    "Write",
]

CHAIN_ID_CHARS_MAX = 200

Durability = Literal["none", "process", "server", "power"]
"""What an acknowledged append survives: nothing, the death of our process, of the store's server, or
of the machine's power supply. Each includes the ones before it."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One append as it is stored: records ``first`` to ``last`` of a run in one frame.

    ``token`` is the writer's fencing token, ``at`` the time of the last record (unix seconds),
    ``checkpoints`` how many of the records are checkpoints.
    """

    chain_id: str
    first: int
    last: int
    token: int
    at: float
    checkpoints: int
    frame: bytes


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


class Write(msgspec.Struct, frozen=True, gc=False):
    """One compare-and-append.

    Refused unless the run's last record is ``row.first - 1`` and its token is ``row.token``. A write that
    ``opens`` creates the run's entry, owned, with token 1.
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


class Query(msgspec.Struct, frozen=True, gc=False):
    """Which entries to list, newest first; None: any. ``after`` continues behind a listed entry."""

    statuses: tuple[Status, ...] | None = None
    group: str | None = None
    label: str | None = None
    updated_before: float | None = None
    updated_since: float | None = None
    after: Entry | None = None
    limit: int = 50


class Storage(ABC):
    """A backend. Hooks raise StorageError (or its children) and nothing else for the store's faults."""

    durability: Durability = "none"
    local = True
    """True where a hook takes microseconds, so an event loop may call it itself."""
    url = ""
    clock: Clock = SystemClock()
    face: object = None
    """The typed face that this process shares on this store; see :mod:`sifaka.storage.urls`."""

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
    def lease(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Renew the lease of ``owner`` until ``until``, or give it back (``owner`` empty).

        False where ``token`` is not the current one, or a lease to be renewed is no longer the owner's.
        """

    @abstractmethod
    def delete(self, chain_ids: Sequence[str]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept.

        ``total_checkpoints``, ``storage_size_bytes``, ``oldest_checkpoint`` and ``newest_checkpoint`` (unix
        seconds or None), ``chains`` (number by status), ``records``.
        """

    def reset(self) -> None:  # noqa: B027 - a store without connections has nothing to do
        """Drop connections that a failure left in an unknown state."""

    def close(self) -> None:  # noqa: B027 - as above
        """Give back what the store holds open."""
