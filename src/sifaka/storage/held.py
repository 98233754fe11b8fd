"""The leases this process holds, and the thread that renews them (floor 3)."""

from __future__ import annotations

import os
import threading

from sifaka.errors import StorageError
from sifaka.log.codec import checksum_of
from sifaka.storage.base import Row, Storage

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


class Keeper:
    """Renews the leases held, from one thread that lives only while there are any."""

    def __init__(self, storage: Storage, lease_s: float) -> None:
        self._storage = storage
        self._lease_s = lease_s
        self._held: dict[Lease, None] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._pid = 0

    def hold(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        if self._pid != os.getpid():  # a fork keeps neither the thread nor the leases, but a lock as it was
            self._held, self._thread, self._pid = {}, None, os.getpid()
            self._lock, self._wake = threading.Lock(), threading.Event()
        with self._lock:
            self._held[lease] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sifaka-leases", daemon=True)
                self._thread.start()

    def drop(self, lease: Lease) -> bool:
        """Renew it no more; False where it was not held."""
        with self._lock:
            return self._held.pop(lease, False) is None

    def _run(self) -> None:
        while True:
            self._wake.wait(self._lease_s / 3)
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
            self.renew()

    def renew(self) -> None:
        """Renew what is held; a lease that somebody took over is marked lost and let go."""
        storage, lease_s = self._storage, self._lease_s
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
