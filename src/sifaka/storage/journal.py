"""A store's log as its writers use it: claim a run, append under its lease, give it back (floor 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import urandom
from typing import Any, TypeVar

from sifaka.errors import ChainIdError, OwnedError, StorageError, StoreUnreachableError
from sifaka.log.codec import encode, raw_bytes
from sifaka.log.records import Reached, Record
from sifaka.storage.base import CHAIN_ID_CHARS_MAX, Change, Entry, Renewal, Row, Storage, Write
from sifaka.storage.commits import Committer, Pending
from sifaka.storage.held import Keeper, Lease
from sifaka.storage.leases import LEASE_S, decode, is_dead, myself

__all__ = ["Journal", "Lease", "check_chain_id", "owned"]

POLL_S = 0.25
"""How often a claim that waits looks again."""

_T = TypeVar("_T")


def check_chain_id(chain_id: str) -> str:
    """The id itself. Raises ChainIdError if it is empty, over-long, or holds control characters."""
    if not isinstance(chain_id, str) or not 0 < len(chain_id) <= CHAIN_ID_CHARS_MAX:
        raise ChainIdError(f"a chain id is a text of 1 to {CHAIN_ID_CHARS_MAX} characters, not {chain_id!r}")
    if not chain_id.isprintable():  # also refuses lone surrogates, which no store can hold
        raise ChainIdError(f"the chain id {chain_id!r} holds control or unprintable characters")
    return chain_id


def owned(entry: Entry, now: float) -> OwnedError:
    """The error that names a run's living owner; ``now`` is by the store's clock."""
    return OwnedError(entry.chain_id, str(decode(entry.owner)), entry.lease_until, entry.lease_until - now)


class Journal:
    """The writers' face of a store. One a storage object; safe to share between threads and loops."""

    def __init__(self, storage: Storage, *, lease_s: float = LEASE_S) -> None:
        self.storage = storage
        self.lease_s = lease_s
        self._commits = Committer(storage)
        self._keeper = Keeper(storage, lease_s)
        self._let_go: set[bytes] = set()

    # Claiming ------------------------------------------------------------------------------

    def claim(self, chain_id: str, *, wait_s: float = 0.0) -> Lease:
        """The lease of a run, new or taken over; its place in the log is not known yet.

        A run whose owner gave it back, is provably dead, or let its lease end is taken over. Raises
        OwnedError for a living owner's, after waiting ``wait_s`` seconds for it.
        """
        for got in self._claiming(chain_id, wait_s):
            if isinstance(got, Lease):
                return got
            self.storage.clock.sleep(got)
        raise AssertionError("claiming ends with a lease or an error")

    async def aclaim(self, chain_id: str, *, wait_s: float = 0.0) -> Lease:
        """As :meth:`claim`, without blocking the event loop."""
        await self.turn()
        claiming = self._claiming(chain_id, wait_s)
        while not isinstance(got := await self.off_loop(claiming.__next__), Lease):
            await self.storage.clock.asleep(got)
        return got

    def _claiming(self, chain_id: str, wait_s: float) -> Iterator[float | Lease]:
        """Yields seconds to wait before looking again, and at last the lease."""
        check_chain_id(chain_id)
        storage, me = self.storage, myself(urandom(4).hex())
        give_up_at = storage.now() + wait_s
        while True:
            entry, now = storage.entry(chain_id), storage.now()
            if entry is None:
                yield self._hold(Lease(chain_id, 1, me, now, is_new=True))
            elif entry.status == "done":
                yield Lease(chain_id, entry.token, b"", now)  # to be read: nothing more is written
            elif entry.owner and entry.lease_until > now and not self._is_free(entry):
                if now >= give_up_at:
                    raise owned(entry, now)
                yield min(POLL_S, give_up_at - now)
            elif self._take(entry, me, now + self.lease_s):
                taken = bool(entry.owner)
                yield self._hold(Lease(chain_id, entry.token + 1, me, now, took_over=taken))

    def _take(self, entry: Entry, me: bytes, until: float) -> bool:
        """Claim the run that ``entry`` tells of; an acknowledgement that was lost is looked for."""
        try:
            return self.storage.claim(entry.chain_id, entry.token, me, until)
        except StoreUnreachableError:
            found = self.storage.entry(entry.chain_id)
            if found is None or found.owner != me:
                raise
            return True

    def _is_free(self, entry: Entry) -> bool:
        """Its owner is dead; or it is this process, which let the run go when the store could not be told."""
        return entry.owner in self._let_go or is_dead(entry.owner)

    def _hold(self, lease: Lease) -> Lease:
        self._keeper.hold(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """Give the lease back, unless its last append did."""
        if not self._keeper.drop(lease):
            return
        try:
            if self._is_ours(lease):
                self.storage.renew([Renewal(lease.chain_id, lease.token)])
        except StorageError:  # what ended the run is the caller's news; the lease ends by itself
            self._let_go.add(lease.owner)

    def _is_ours(self, lease: Lease) -> bool:
        """Whether the run is in the store under this lease: of two that open it, both count on token 1."""
        if lease.next_seq or not lease.is_new:
            return True
        entry = self.storage.entry(lease.chain_id) if lease.was_used else None
        return entry is not None and entry.owner == lease.owner

    def renew_leases(self) -> None:
        """Renew the leases held now; a thread does so at every third of their length."""
        self._keeper.renew()

    # Appending -----------------------------------------------------------------------------

    def append(self, lease: Lease, records: Sequence[Record], change: Change | None = None) -> None:
        """Append ``records`` durably, in one commit with what other threads append just now.

        Raises FencedError when the lease was taken over, StorageError when the store failed.
        """
        pending = Pending(lease, self._prepare(lease, records, change))
        self._commits.put(pending)
        self._finish(pending, change)

    async def aappend(self, lease: Lease, records: Sequence[Record], change: Change | None = None) -> None:
        """As :meth:`append`, in one commit with what this event loop's other tasks append."""
        pending = Pending(lease, self._prepare(lease, records, change))
        await self._commits.aput(pending)
        self._finish(pending, change)

    async def turn(self) -> None:
        """Wait for this run's turn on the event loop, after it has waited for something else."""
        await self._commits.turn()

    def _prepare(self, lease: Lease, records: Sequence[Record], change: Change | None) -> Write:
        lease.was_used = True
        first, at = lease.next_seq, records[-1].at
        frame = encode(
            records,
            chain_id=lease.chain_id,
            first=first,
            token=lease.token,
            prev=lease.prev,
        )
        row = Row(
            chain_id=lease.chain_id,
            first=first,
            last=first + len(records) - 1,
            token=lease.token,
            at=at,
            checkpoints=sum(type(record) is Reached for record in records),
            frame=frame,
            raw=raw_bytes(frame),
        )
        if not lease.is_new or first:
            return Write(row, change)
        until = lease.renewed_at + self.lease_s
        entry = Entry(
            lease.chain_id,
            lease.token,
            lease.owner,
            until,
            label=lease.label,
            opened_at=at,
            updated_at=at,
        )
        return Write(row, change, entry)

    def _finish(self, pending: Pending, change: Change | None) -> None:
        if not pending.done:
            raise AssertionError("an append was given back that nobody has committed")
        if pending.error is not None:
            raise pending.error
        if change is not None and change.release:
            self._keeper.drop(pending.lease)

    def write_latencies_s(self) -> tuple[float | None, float | None]:
        """Median and 99th percentile of this process's newest commits, in seconds; None without any."""
        taken = sorted(self._commits.latencies_s)
        if not taken:
            return None, None
        return taken[len(taken) // 2], taken[len(taken) * 99 // 100]

    async def off_loop(self, work: Callable[..., _T], *args: Any) -> _T:
        """The result of a storage call, made in a thread where the store is not a local one."""
        return work(*args) if self.storage.local else await self.in_thread(work, *args)

    async def in_thread(self, work: Callable[..., _T], *args: Any) -> _T:
        """The result of ``work``, done in one of the store's own threads."""
        return await self._commits.in_thread(work, *args)
