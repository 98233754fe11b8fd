"""Whether a primary is there, what its fallback journal holds, and the way back (floor 3).

The state behind a :class:`~sifaka.storage.fallback.FallbackStorage`: which runs are held here, which of them
have their newest rows in the journal, which have halted. Nothing here runs by itself: who calls finds out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import msgspec

from sifaka.clock import Clock
from sifaka.errors import SplitHistoryError, StorageError, StoreUnreachableError
from sifaka.locks import ProcessLock
from sifaka.storage.base import DURABILITIES, Durability, Entry, Query, Renewal, Storage, Write
from sifaka.storage.fallback.handover import Handover
from sifaka.storage.fallback.splits import Split, Splits
from sifaka.storage.leases import LEASE_S, is_dead, myself

__all__ = ["Standby"]

_T = TypeVar("_T")

PAGE = 500
PROBE = "fallback/probe"
"""The cell that is read to find out whether the primary is back; it is never set."""


class Standby:
    """A primary and its journal. Whoever changes what the journal holds has ``lock``."""

    def __init__(self, primary: Storage, journal: Storage, probe_s: float, clock: Clock) -> None:
        self.primary = primary
        self.journal = journal
        self.handover = Handover(primary, journal)
        self.splits = Splits(journal)
        self.lock = ProcessLock()
        self.held: dict[str, Entry] = {}
        """The runs whose writers are here, as far as it is known."""
        self.here: set[str] = set()
        """Those of them whose rows go to the journal."""
        self.halted: set[str] = set()
        self.away: StoreUnreachableError | None = None
        self.since = 0.0
        """When the primary was found to be away, in unix seconds."""
        self._clock = clock
        self._probe_s = probe_s
        self._probe_at = 0.0
        self._was_swept = False
        self._pid = os.getpid()

    @property
    def durability(self) -> Durability:
        """What an append survives that is acknowledged now."""
        stores = [self.primary] if self.away is None else [self.primary, self.journal]
        return min([one.durability for one in stores], key=DURABILITIES.index)

    @property
    def is_calm(self) -> bool:
        """Whether all there is to do is to ask the primary."""
        return self.away is None and self._was_swept and not self.here and not self.halted

    # Away and back -------------------------------------------------------------------------

    def is_there(self) -> bool:
        """Whether to ask the primary; at its time, one call finds out whether it is back."""
        if self._pid != os.getpid():  # a fork: the leases are its parent's
            self._pid, self.held, self.here = os.getpid(), {}, set()
        if self.away is None and self._was_swept:
            return True
        with self.lock:
            if self.away is None and self._was_swept:
                return True
            if self.away is not None:
                if self._clock.monotonic() < self._probe_at:
                    return False
                self._probe_at = self._clock.monotonic() + self._probe_s
            return self._come_back()

    def _come_back(self) -> bool:
        """Hand over what the journal holds, before anything else is asked of the primary."""
        try:
            if self.away is not None:
                self.primary.reset()
            if self.away is not None or self.journal.entries(Query(limit=1)):
                self.primary.cells([PROBE])  # before any run is claimed to be handed over
            self.halted |= {split.chain_id for split in self.splits.all()}
            self._bring_all()
        except StoreUnreachableError as error:
            self.leave(error)
            return False
        finally:
            self._was_swept = True
        if self.away is not None:
            seconds = self._clock.time() - self.since
            self.away = None
            _log(
                "the store %s is back after %.0f s; the fallback journal was handed over",
                self.primary.url,
                seconds,
            )
        return True

    def leave(self, error: StoreUnreachableError) -> None:
        """The primary is away; the first to notice says so, once an outage."""
        with self.lock:
            was_away, self.away = self.away is not None, error
            if was_away:
                return
            self.since = self._clock.time()
            self._probe_at = self._clock.monotonic() + self._probe_s
            _log(
                "%s. Runs go on in the fallback journal %s, which only this machine sees (durability: %s). "
                "Those that are taken up elsewhere meanwhile will halt",
                error,
                self.journal.url,
                self.durability,
            )

    def unreachable(self, chain_id: str, why: str) -> StoreUnreachableError:
        """The error for what only the primary could do."""
        error = StoreUnreachableError(self.primary.url, f"run {chain_id!r} has to wait for it: {why}")
        error.__cause__ = self.away
        return error

    def ask(self, there: Callable[[], _T], here: Callable[[], _T]) -> _T:
        """The primary's answer; the journal's while that is away."""
        if self.is_there():
            try:
                return there()
            except StoreUnreachableError as error:
                self.leave(error)
        return here()

    # Handing over --------------------------------------------------------------------------

    def move_over(self) -> list[str]:
        """Hand over now what the journal holds, also runs that have halted; the names of those that stay.

        Raises StoreUnreachableError.
        """
        with self.lock:
            for split in self.splits.all():
                self.splits.record(split.chain_id, None)
                self.halted.discard(split.chain_id)
            self._probe_at = self._clock.monotonic()
            if not self.is_there() and self.away is not None:
                raise self.away
            self._bring_all()
            return [entry.chain_id for entry in self.journaled()]

    def journaled(self) -> list[Entry]:
        """Every run of which the journal has a part."""
        found: list[Entry] = []
        query = Query(limit=PAGE)
        while page := self.journal.entries(query):
            found += page
            query = msgspec.structs.replace(query, after=page[-1])
        return found

    def _bring_all(self) -> None:
        found = self.journaled()
        for entry in found:
            self._bring(entry)
        if found and not self.journal.entries(Query(limit=1)):
            self.journal.compact()

    def _bring(self, entry: Entry) -> bool:
        """Hand one run over, if nobody else is at it; whether it has left the journal."""
        chain_id = entry.chain_id
        if self.splits.find(chain_id) is not None:
            return False
        before = None if self._writes(entry) else entry.owner
        if before is not None:
            taken = self._take(entry)
            if taken is None:
                return False
            entry = taken
        try:
            split = self.handover.hand_over(entry, before)
        except StorageError:
            if before is not None:  # so that it can be taken up here
                self.journal.renew([Renewal(chain_id, entry.token)])
            raise
        if split is not None:
            self._halt(entry, split)
            return False
        self.journal.delete([entry])
        self.here.discard(chain_id)
        return True

    def _writes(self, entry: Entry) -> bool:
        """Whether the run's living writer is this object's: nobody else appends to it in the journal."""
        held = self.held.get(entry.chain_id)
        return held is not None and held.token == entry.token and entry.chain_id in self.here

    def _take(self, entry: Entry) -> Entry | None:
        """Claim a run whose writer is gone, or has given it back: two who come at once do not both go on."""
        now = self.journal.now()
        if entry.owner and entry.lease_until > now and not is_dead(entry.owner):
            return None
        me = myself(os.urandom(4).hex())
        if not self.journal.claim(entry.chain_id, entry.token, me, now + LEASE_S):
            return None
        return self.journal.entry(entry.chain_id)

    def _halt(self, entry: Entry, split: Split) -> None:
        self.splits.record(entry.chain_id, split)
        self.halted.add(entry.chain_id)
        self.held.pop(entry.chain_id, None)
        self.here.discard(entry.chain_id)
        _log("%s", SplitHistoryError(**msgspec.structs.asdict(split)))

    def in_journal(self, chain_id: str, *, is_there: bool) -> Entry | None:
        """The run as the journal has it, after it was tried to hand it over. Raises SplitHistoryError."""
        with self.lock:
            entry = self.journal.entry(chain_id)
            if entry is None:
                self.halted.discard(chain_id)  # somebody else has decided
                return None
            if is_there:
                try:
                    self._bring(entry)
                except StoreUnreachableError as error:
                    self.leave(error)
                entry = self.journal.entry(chain_id)
            split = None if entry is None else self.splits.find(chain_id)
            if split is not None:
                self.halted.add(chain_id)
                raise SplitHistoryError(**msgspec.structs.asdict(split))
            return entry

    def note(self, write: Write, *, accepted: bool) -> None:
        """Keep in step what is known of a run that is held here: the journal may have to open it."""
        chain_id, change = write.row.chain_id, write.change
        entry = write.opens or self.held.get(chain_id)
        if entry is None:
            return
        if not accepted or (change is not None and change.release):
            self.held.pop(chain_id, None)
            self.here.discard(chain_id)
            return
        changed = entry if change is None else change.applied_to(entry)
        self.held[chain_id] = msgspec.structs.replace(changed, last=write.row.last)


def _log(message: str, *args: object) -> None:
    import logging  # here, not above: it is among what makes an import slow

    logging.getLogger("sifaka.storage").warning(message, *args)
