"""A store's log as its writers use it: claim a run, append under its lease, commit together (floor 3).

Appends that wait at the same time share one commit. A lone one is committed at once, in its own
thread; those of one event loop's tick go together, a bounded number a tick, so that the loop stays
free. Where commits are slow they move to a thread of their own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from sifaka.errors import ChainIdError, FencedError, OwnedError, StorageError
from sifaka.log.codec import checksum_of, encode
from sifaka.log.records import Reached, Record
from sifaka.storage.base import CHAIN_ID_CHARS_MAX, Change, Entry, Row, Storage, Write
from sifaka.storage.leases import LEASE_S, decode, is_dead, myself

if TYPE_CHECKING:
    import asyncio

__all__ = ["Journal", "Lease", "check_chain_id"]

RUNS_A_TICK = 16
"""Runs that go on in one tick of an event loop: about 2 ms of work."""
ROWS_A_COMMIT = 64
"""Appends that are committed together at the most: about 1 ms of work."""
SLOW_COMMIT_S = 0.005
"""Commits that take longer than this on average leave the event loop for a thread."""
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


class Lease:
    """The right to append to one run: its token, and where its log stands."""

    __slots__ = (
        "chain_id",
        "first_seq",
        "is_new",
        "label",
        "lost",
        "next_seq",
        "owner",
        "prev",
        "renewed_at",
        "token",
        "took_over",
    )

    def __init__(
        self,
        chain_id: str,
        token: int,
        owner: bytes,
        renewed_at: float,
        *,
        is_new: bool = False,
        took_over: bool = False,
    ) -> None:
        self.chain_id = chain_id
        self.token = token
        self.owner = owner
        self.renewed_at = renewed_at
        self.is_new = is_new
        """True where the run has no log yet: the first append opens it."""
        self.took_over = took_over
        """True where the owner before had not given the run back: it died, or its lease ended."""
        self.next_seq = self.first_seq = 0
        """Where the log ended when the lease began, and where it ends now."""
        self.prev = 0
        self.label = ""
        self.lost = False

    def begin_at(self, seq: int, prev: int) -> None:
        """The log's next record is number ``seq``, its last row's checksum ``prev``."""
        self.next_seq = self.first_seq = seq
        self.prev = prev

    def advance(self, row: Row) -> None:
        """The log holds ``row``."""
        self.next_seq = row.last + 1
        self.prev = checksum_of(row.frame)


class _Pending:
    """An append on its way: done, refused or failed."""

    __slots__ = ("done", "error", "future", "lease", "write")

    def __init__(self, lease: Lease, write: Write) -> None:
        self.lease = lease
        self.write = write
        self.done = False
        self.error: BaseException | None = None
        self.future: asyncio.Future[None] | None = None

    def settle(self, error: BaseException | None) -> None:
        self.error = error
        self.done = True
        if error is None:
            self.lease.advance(self.write.row)


class Journal:
    """The writers' face of a store. One a storage object; safe to share between threads and loops."""

    def __init__(self, storage: Storage, *, lease_s: float = LEASE_S) -> None:
        self.storage = storage
        self.lease_s = lease_s
        self._queue: deque[_Pending] = deque()
        self._lock = threading.Lock()
        self._loops: WeakKeyDictionary[Any, _LoopTurns] = WeakKeyDictionary()
        self._keeper = _Keeper(self)

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
        storage, me = self.storage, myself()
        give_up_at = storage.now() + wait_s
        while True:
            entry, now = storage.entry(chain_id), storage.now()
            if entry is None:
                yield self._hold(Lease(chain_id, 1, me, now, is_new=True))
            elif entry.status == "done":
                yield Lease(chain_id, entry.token, b"", now)  # to be read: nothing more is written
            elif entry.owner and entry.lease_until > now and not is_dead(entry.owner):
                if now >= give_up_at:
                    owner, left = str(decode(entry.owner)), entry.lease_until - now
                    raise OwnedError(chain_id, owner, entry.lease_until, left)
                yield min(POLL_S, give_up_at - now)
            elif storage.claim(chain_id, entry.token, me, now + self.lease_s):
                taken = bool(entry.owner)
                yield self._hold(Lease(chain_id, entry.token + 1, me, now, took_over=taken))

    def _hold(self, lease: Lease) -> Lease:
        self._keeper.hold(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """Give the lease back, unless its last append did."""
        was_opened = lease.next_seq or not lease.is_new
        if self._keeper.drop(lease) and was_opened:
            self.storage.lease(lease.chain_id, lease.token, b"", 0.0)

    def renew_leases(self) -> None:
        """Renew the leases held now; a thread does so at every third of their length."""
        self._keeper.renew()

    # Appending -----------------------------------------------------------------------------

    def append(self, lease: Lease, records: Sequence[Record], change: Change | None = None) -> None:
        """Append ``records`` durably, in one commit with what other threads append just now.

        Raises FencedError when the lease was taken over, StorageError when the store failed.
        """
        pending = _Pending(lease, self._prepare(lease, records, change))
        self._queue.append(pending)
        with self._lock:
            if not pending.done:
                batch = list(self._queue)
                self._queue.clear()
                self.commit(batch)
        self._finish(pending, change)

    async def aappend(self, lease: Lease, records: Sequence[Record], change: Change | None = None) -> None:
        """As :meth:`append`, in one commit with what this event loop's other tasks append."""
        import asyncio

        turns = self._turns(asyncio.get_running_loop())
        pending = _Pending(lease, self._prepare(lease, records, change))
        await turns.put(pending)
        self._finish(pending, change)

    async def turn(self) -> None:
        """Wait for this run's turn on the event loop, after it has waited for something else."""
        import asyncio

        wait = self._turns(asyncio.get_running_loop()).turn()
        if wait is not None:
            await wait

    def _turns(self, loop: asyncio.AbstractEventLoop) -> _LoopTurns:
        turns = self._loops.get(loop)
        if turns is None:
            turns = self._loops[loop] = _LoopTurns(self, loop)
        return turns

    def _prepare(self, lease: Lease, records: Sequence[Record], change: Change | None) -> Write:
        first, at = lease.next_seq, records[-1].at
        row = Row(
            chain_id=lease.chain_id,
            first=first,
            last=first + len(records) - 1,
            token=lease.token,
            at=at,
            checkpoints=sum(type(record) is Reached for record in records),
            frame=encode(
                records,
                chain_id=lease.chain_id,
                first=first,
                token=lease.token,
                prev=lease.prev,
            ),
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

    def _finish(self, pending: _Pending, change: Change | None) -> None:
        if pending.error is not None:
            raise pending.error
        if change is not None and change.release:
            self._keeper.drop(pending.lease)

    def commit(self, batch: Sequence[_Pending]) -> None:
        """Write a batch; every pending append in it is settled, whatever happens."""
        try:
            accepted = self.storage.write([pending.write for pending in batch])
        except StorageError as error:
            self._settle_after_failure(batch, error)
            return
        except BaseException:  # Ctrl-C in mid-commit, for one
            self._settle_after_failure(batch, StorageError("the commit was interrupted"))
            raise
        for pending, yes in zip(batch, accepted, strict=True):
            pending.settle(None if yes else self._refused(pending))

    def _refused(self, pending: _Pending) -> StorageError:
        row = pending.write.row
        return FencedError(row.chain_id, row.token, row.first)

    def _settle_after_failure(self, batch: Sequence[_Pending], error: StorageError) -> None:
        """The commit failed, or only its acknowledgement was lost: look before saying which."""
        try:
            self.storage.reset()
            for pending in batch:
                row = pending.write.row
                stored = next(self.storage.rows(row.chain_id, row.first, row.last), None)
                pending.settle(None if stored == row else error)
        except StorageError:
            for pending in batch:
                if not pending.done:
                    pending.settle(error)

    async def off_loop(self, work: Callable[..., _T], *args: Any) -> _T:
        """The result of a storage call, made in a thread where the store is not a local one."""
        if self.storage.local:
            return work(*args)
        import asyncio

        return await asyncio.to_thread(work, *args)


class _LoopTurns:
    """One event loop's runs, a bounded number of which goes on in each of its ticks.

    A thousand answers may arrive at the same moment. Without turns the loop would serve all of them
    before anything else, and nobody would be heard for a tenth of a second. What they append is committed
    together, when all who could go on have gone on, or enough has come together.
    """

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop) -> None:
        self._journal = journal
        self._loop = loop
        self._appends: deque[_Pending] = deque()
        self._arrivals: deque[asyncio.Future[None]] = deque()
        self._admitted = 0
        self._scheduled = False
        self._committing = False
        self._mean_s = 0.0

    def put(self, pending: _Pending) -> Awaitable[None]:
        """Queue an append; it is durable, or failed, when the awaitable is done."""
        pending.future = self._loop.create_future()
        self._appends.append(pending)
        self._schedule()
        return pending.future

    def turn(self) -> Awaitable[None] | None:
        """None where the caller may go on at once, else what to await before it does."""
        self._schedule()
        if self._admitted < RUNS_A_TICK and not self._arrivals:
            self._admitted += 1
            return None
        arrival = self._loop.create_future()
        self._arrivals.append(arrival)
        return arrival

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._scheduled = False
        self._admitted = 0
        waiting = len(self._appends)
        if waiting >= ROWS_A_COMMIT or (waiting and not self._arrivals):
            self._commit_some()
        while self._arrivals and self._admitted < RUNS_A_TICK:
            arrival = self._arrivals.popleft()
            if not arrival.done():  # its run may have been cancelled meanwhile
                arrival.set_result(None)
                self._admitted += 1
        if self._admitted or self._arrivals or (self._appends and not self._committing):
            self._schedule()

    def _commit_some(self) -> None:
        if self._committing:
            return
        appends = self._appends
        batch = [appends.popleft() for _ in range(min(len(appends), ROWS_A_COMMIT))]
        if self._journal.storage.local and self._mean_s < SLOW_COMMIT_S:
            self._commit(batch)
            self._arrive(batch)
            return
        # In the thread nobody waits for the loop, so a slow disk delays appends and nothing else.
        self._committing = True
        work = self._loop.run_in_executor(None, self._commit, batch)
        work.add_done_callback(lambda _: self._committed(batch))

    def _commit(self, batch: Sequence[_Pending]) -> None:
        clock = self._journal.storage.clock
        start = clock.monotonic()
        try:
            self._journal.commit(batch)
        finally:
            self._mean_s += (clock.monotonic() - start - self._mean_s) / 16

    def _committed(self, batch: Sequence[_Pending]) -> None:
        self._committing = False
        self._arrive(batch)
        self._schedule()

    def _arrive(self, batch: Sequence[_Pending]) -> None:
        """Those whose appends are durable go on in their turn."""
        self._arrivals.extend(pending.future for pending in batch if pending.future is not None)


class _Keeper:
    """Renews the leases held, from one thread that lives only while there are any."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._held: dict[Lease, None] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._pid = 0

    def hold(self, lease: Lease) -> None:
        with self._lock:
            if self._pid != os.getpid():  # a fork keeps neither the thread nor the leases
                self._held, self._thread, self._pid = {}, None, os.getpid()
                self._wake = threading.Event()
            self._held[lease] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sifaka-leases", daemon=True)
                self._thread.start()

    def drop(self, lease: Lease) -> bool:
        with self._lock:
            return self._held.pop(lease, False) is None

    def _run(self) -> None:
        while True:
            self._wake.wait(self._journal.lease_s / 3)
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
            self.renew()

    def renew(self) -> None:
        """Renew what is held; a lease that somebody took over is marked lost and let go."""
        storage, lease_s = self._journal.storage, self._journal.lease_s
        for lease in list(self._held):
            if not lease.next_seq:
                continue  # its first append, under way, opens the run with a lease
            now = storage.now()
            try:
                kept = storage.lease(lease.chain_id, lease.token, lease.owner, now + lease_s)
            except StorageError:
                continue  # the store is away: tried again at the next turn, appends will tell
            if kept:
                lease.renewed_at = now
            else:
                lease.lost = True
                self.drop(lease)
