"""Appends that wait at the same moment share one commit, in threads as on an event loop (floor 3)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, proxy

from sifaka.errors import FencedError, StorageError, StoreUnreachableError
from sifaka.locks import ProcessLock
from sifaka.storage.base import Storage, Write
from sifaka.storage.held import Lease

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Committer", "Pending"]

_T = TypeVar("_T")

RUNS_A_TICK = 16
"""Runs that go on in one tick of an event loop: about 2 ms of work."""
ROWS_A_COMMIT = 64
"""Appends that are committed together at the most on the event loop: about 1 ms of work."""
ROWS_A_ROUND_TRIP = 256
"""Appends that are committed together at the most in a thread, where a round trip costs more than a row."""
SLOW_COMMIT_S = 0.005
"""Commits that take longer than this on average leave the event loop for a thread."""
THREADS = 4
"""Threads for a store that is not local. Its own, so that busy parts of a program do not hold it up."""
LATENCIES = 1_024
"""So many of the newest commits are kept to tell how long one takes."""
PAUSE_S_MAX = 1.0
"""The longest pause before a store that could not be reached is tried again."""


class Pending:
    """An append on its way: done, refused or failed."""

    __slots__ = ("done", "error", "future", "lease", "write")

    def __init__(self, lease: Lease, write: Write) -> None:
        self.lease = lease
        self.write = write
        self.done = False
        self.error: BaseException | None = None
        self.future: asyncio.Future[None] | None = None

    def settle(self, error: BaseException | None) -> None:
        """It is durable (None), was refused, or failed."""
        self.error = error
        self.done = True
        if error is None:
            self.lease.advance(self.write.row)


class Committer:
    """Commits for a store; safe to share between threads and event loops."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._queue: deque[Pending] = deque()
        self._lock = ProcessLock()
        self._pid = os.getpid()
        self._loops: WeakKeyDictionary[Any, _LoopTurns] = WeakKeyDictionary()
        self._threads: ThreadPoolExecutor | None = None
        self._threads_pid = 0
        self.latencies_s: deque[float] = deque(maxlen=LATENCIES)
        """Seconds that the newest commits of this process took."""

    def put(self, pending: Pending) -> None:
        """Commit an append at once, with what other threads have put meanwhile."""
        if self._pid != os.getpid():  # what waited when this process was forked is its parent's
            self._pid, self._queue = os.getpid(), deque()
        self._queue.append(pending)
        with self._lock:
            if not pending.done:
                self.commit([self._queue.popleft() for _ in range(len(self._queue))])

    async def aput(self, pending: Pending) -> None:
        """Commit an append with what this event loop's other runs append."""
        await self._turns().put(pending)

    async def turn(self) -> None:
        """Wait for this run's turn on the event loop, after it has waited for something else."""
        wait = self._turns().turn()
        if wait is not None:
            await wait

    def _turns(self) -> _LoopTurns:
        import asyncio

        loop = asyncio.get_running_loop()
        turns = self._loops.get(loop)
        if turns is None:
            turns = self._loops[loop] = _LoopTurns(self, loop)
        return turns

    async def in_thread(self, work: Callable[..., _T], *args: Any) -> _T:
        """The result of ``work``, done in one of the store's own threads."""
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(self.threads(), partial(work, *args))

    def threads(self) -> ThreadPoolExecutor:
        """The store's own threads; a fork starts anew."""
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._threads is None or self._threads_pid != os.getpid():
                self._threads_pid = os.getpid()
                self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sifaka-store")
            return self._threads

    def commit(self, batch: Sequence[Pending], *, patient: bool = True) -> bool:
        """Write a batch and settle all in it; False, and nothing done, where it would have to wait.

        Not being ``patient`` is for event loops: another process may be writing to the store just now.
        """
        start = self.storage.clock.monotonic()
        try:
            if not self._commit(batch, patient=patient):
                return False
        except StorageError as error:
            self._settle_after_failure(batch, error)
        except Exception as error:  # noqa: BLE001 - a hook's mistake must not leave anybody waiting
            failure = StorageError(f"the store failed: {error!r}")
            failure.__cause__ = error
            self._settle_after_failure(batch, failure)
        except BaseException:  # Ctrl-C in mid-commit, for one
            self._settle_after_failure(batch, StorageError("the commit was interrupted"))
            raise
        else:
            self.latencies_s.append(self.storage.clock.monotonic() - start)
        return True

    def _commit(self, batch: Sequence[Pending], *, patient: bool) -> bool:
        writes = [pending.write for pending in batch]
        try:
            accepted = self.storage.write(writes) if patient else self.storage.try_write(writes)
        except StoreUnreachableError as error:
            if self.storage.patience_s and not patient:
                return False
            self._persist(batch, error)
            return True
        if accepted is None:
            return False
        for pending, yes in zip(batch, accepted, strict=True):
            pending.settle(None if yes else self._refused(pending))
        return True

    def _persist(self, batch: Sequence[Pending], error: StoreUnreachableError) -> None:
        """Try again while the store's patience lasts; what has arrived all the same is not sent again."""
        clock = self.storage.clock
        give_up_at, pause_s = clock.monotonic() + self.storage.patience_s, 0.05
        while clock.monotonic() < give_up_at:
            clock.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
            try:
                self.storage.reset()
                left = [pending for pending in batch if not self._has_arrived(pending)]
                accepted = self.storage.write([pending.write for pending in left])
            except StoreUnreachableError as again:
                error = again
                continue
            for pending, yes in zip(left, accepted, strict=True):
                # An attempt that was believed lost may have been carried out only now.
                if yes or self._has_arrived(pending):
                    pending.settle(None)
                else:
                    pending.settle(self._refused(pending))
            return
        raise error

    def _has_arrived(self, pending: Pending) -> bool:
        """Whether the append is in the store; it is settled then."""
        row = pending.write.row
        if not pending.done:
            stored = next(self.storage.rows(row.chain_id, row.first, row.last), None)
            if stored is not None and stored.frame == row.frame:
                pending.settle(None)
        return pending.done

    def _refused(self, pending: Pending) -> StorageError:
        row = pending.write.row
        return self.storage.refusal(row) or FencedError(row.chain_id, row.token, row.first)

    def _settle_after_failure(self, batch: Sequence[Pending], error: StorageError) -> None:
        """The commit failed, or only its acknowledgement was lost: look before saying which."""
        try:
            self.storage.reset()
            for pending in batch:
                if not self._has_arrived(pending):
                    pending.settle(error)
        except StorageError:
            for pending in batch:
                if not pending.done:
                    pending.settle(error)


class _LoopTurns:
    """One event loop's runs, a bounded number of which goes on in each of its ticks.

    A thousand answers may arrive at the same moment. Without turns the loop would serve all of them
    before anything else, and nobody would be heard for a tenth of a second. What they append is committed
    together, when all who could go on have gone on, or enough has come together.
    """

    def __init__(self, committer: Committer, loop: asyncio.AbstractEventLoop) -> None:
        self._committer = committer
        # The map of loops is weak: what it holds must be, too.
        self._loop: asyncio.AbstractEventLoop = proxy(loop)
        self._appends: deque[Pending] = deque()
        self._arrivals: deque[asyncio.Future[None]] = deque()
        self._admitted = 0
        self._scheduled = False
        self._committing = False
        self._mean_s = 0.0

    def put(self, pending: Pending) -> Awaitable[None]:
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
        if waiting >= self._most() or (waiting and not self._arrivals):
            self._commit_some()
        while self._arrivals and self._admitted < RUNS_A_TICK:
            arrival = self._arrivals.popleft()
            if not arrival.done():  # its run may have been cancelled meanwhile
                arrival.set_result(None)
                self._admitted += 1
        if self._admitted or self._arrivals or (self._appends and not self._committing):
            self._schedule()

    def _most(self) -> int:
        return ROWS_A_COMMIT if self._committer.storage.local else ROWS_A_ROUND_TRIP

    def _commit_some(self) -> None:
        if self._committing:
            return
        appends = self._appends
        batch = [appends.popleft() for _ in range(min(len(appends), self._most()))]
        inline = self._committer.storage.local and self._mean_s < SLOW_COMMIT_S
        try:
            done = inline and self._commit(batch, patient=False)
        except BaseException:
            self._arrive(batch)  # they are settled: nobody is left waiting
            raise
        if done:
            self._arrive(batch)
            return
        # In the thread nobody waits for the loop, so a slow disk delays appends and nothing else.
        self._committing = True
        work = self._loop.run_in_executor(self._committer.threads(), self._commit, batch)
        work.add_done_callback(partial(self._committed, batch))

    def _commit(self, batch: Sequence[Pending], *, patient: bool = True) -> bool:
        clock = self._committer.storage.clock
        start = clock.monotonic()
        try:
            return self._committer.commit(batch, patient=patient)
        finally:
            self._mean_s += (clock.monotonic() - start - self._mean_s) / 16

    def _committed(self, batch: Sequence[Pending], _work: asyncio.Future[bool]) -> None:
        self._committing = False
        self._arrive(batch)
        self._schedule()

    def _arrive(self, batch: Sequence[Pending]) -> None:
        """Those whose appends are durable go on in their turn."""
        self._arrivals.extend(pending.future for pending in batch if pending.future is not None)
