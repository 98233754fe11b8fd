"""The leases this process holds, and the thread that renews them (floor 3)."""

from __future__ import annotations

import os
import threading
import time

from sifaka.log.codec import link_of
from sifaka.storage.base import Renewal, Row, Storage

__all__ = ["Keeper", "Lease"]


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
        "was_used",
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
        self.was_used = False
        """True once an append was tried, whatever came of it: the run may be in the store."""

    def begin_at(self, seq: int, prev: int) -> None:
        """The log's next record is number ``seq``, its last row's checksum ``prev``."""
        self.next_seq = self.first_seq = seq
        self.prev = prev

    def advance(self, row: Row) -> None:
        """The log holds ``row``."""
        self.next_seq = row.last + 1
        self.prev = link_of(row.frame)


class Keeper:
    """Renews the leases that are held on one store, each at a third of its length."""

    def __init__(self, storage: Storage, lease_s: float) -> None:
        self.storage = storage
        self.lease_s = lease_s
        self._held: dict[Lease, None] = {}

    def hold(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        rounds = _rounds()
        self._held[lease] = None
        rounds.join(self)

    def drop(self, lease: Lease) -> bool:
        """Renew it no more; False where it was not held."""
        return self._held.pop(lease, False) is None

    def forget(self) -> None:
        """Hold nothing: this process is a fork, the leases are its parent's."""
        self._held = {}

    @property
    def is_idle(self) -> bool:
        """True while nothing is held."""
        return not self._held

    def renew(self) -> None:
        """Renew what is held, in one commit; a lease that somebody took over is marked lost and let go."""
        # The first append of a new run, under way, opens it with a lease of its own.
        leases = [lease for lease in list(self._held) if lease.next_seq]
        if not leases:
            return
        try:
            now = self.storage.now()
            until = now + self.lease_s
            kept = self.storage.renew([Renewal(one.chain_id, one.token, one.owner, until) for one in leases])
        except Exception:  # noqa: BLE001 - the store is away: tried again at the next turn,
            return  # and the appends will tell; this thread has other stores to serve
        for lease, was_kept in zip(leases, kept, strict=True):
            if was_kept:
                lease.renewed_at = now
            else:
                lease.lost = True
                self.drop(lease)


class _Rounds:
    """The one thread of this process that goes round its keepers, while any of them holds a lease."""

    def __init__(self) -> None:
        self.keepers: dict[Keeper, float] = {}
        self._lock = threading.Lock()
        self._more = threading.Event()
        self._thread: threading.Thread | None = None

    def join(self, keeper: Keeper) -> None:
        """Visit this keeper from now on, until it holds nothing."""
        with self._lock:
            if keeper in self.keepers:
                return
            self.keepers[keeper] = time.monotonic() + keeper.lease_s / 3
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sifaka-leases", daemon=True)
                self._thread.start()
        self._more.set()  # it may have to be visited before the one that is waited for

    def _run(self) -> None:
        while True:
            with self._lock:
                self.keepers = {one: due for one, due in self.keepers.items() if not one.is_idle}
                if not self.keepers:
                    self._thread = None
                    return
                keeper, due = min(self.keepers.items(), key=lambda one: one[1])
            self._more.wait(max(0.0, due - time.monotonic()))
            self._more.clear()
            if time.monotonic() >= due:
                keeper.renew()
                with self._lock:
                    self.keepers[keeper] = time.monotonic() + keeper.lease_s / 3


_of_process: dict[int, _Rounds] = {}


def _rounds() -> _Rounds:
    """This process's own: a fork keeps neither the thread nor the leases of its parent."""
    pid = os.getpid()
    rounds = _of_process.get(pid)
    if rounds is None:
        for parents in _of_process.values():
            for keeper in parents.keepers:
                keeper.forget()
        _of_process.clear()
        rounds = _of_process[pid] = _Rounds()
    return rounds
