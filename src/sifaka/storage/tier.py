"""What the memory of a tiered store may answer: the runs that this process holds, and nothing else (floor 3).

Nobody else writes to a run while its lease is held here, so its log ends where our own last accepted write
ended. Only then does the memory answer. Whatever leaves a doubt (a refused or failed write, two writes at
once, a lease that has ended or was given back, a fork) drops the run: the persistence answers again.

The memory holds a run's newest rows without a gap, back to a certain one; older ones are the persistence's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from sifaka.clock import Clock
from sifaka.errors import StorageError
from sifaka.locks import ProcessLock
from sifaka.storage.base import Entry, Renewal, Row, Storage, Write

__all__ = ["FILL_ROWS", "Held", "Tier"]

_T = TypeVar("_T")

FILL_ROWS = 64
"""So many of a run's newest rows are taken into memory when a run that is held is first read."""
CLAIMS_MAX = 64
"""A run that changed hands more often within those rows is kept in memory from a later row on."""


class Held:
    """One run as it is held here: its token, and when its lease ends by the persistence's clock."""

    __slots__ = ("changes", "doubtful", "first", "renewing", "token", "until", "writing")

    def __init__(self, token: int, until: float) -> None:
        self.token = token
        self.until = until
        self.first: int | None = None
        """The oldest record that the memory holds; None while it holds nothing of the run."""
        self.writing = 0
        self.renewing = 0
        self.changes = 0
        self.doubtful = False


class Tier:
    """The memory of a tiered store; at most ``keep`` runs."""

    def __init__(self, memory: Storage, clock: Clock, keep: int) -> None:
        self.memory = memory
        self.keep = keep
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._lock = ProcessLock()
        self._pid = os.getpid()
        self._seen: tuple[float, float, float] | None = None

    # The persistence's time ----------------------------------------------------------------

    def before(self) -> tuple[float, float]:
        """When a look at the persistence's clock began."""
        return self._clock.monotonic(), self._clock.time()

    def saw(self, began: tuple[float, float], now: float) -> None:
        """The persistence's clock said ``now``, unix seconds."""
        self._seen = (*began, now)

    def _latest_now(self) -> float:
        """No less than what the persistence's clock says now, unless our own clocks go slower than it.

        A machine that slept has a monotonic clock that did not go on, one that was set back a wall clock.
        """
        if self._seen is None:
            return float("inf")
        monotonic, wall, now = self._seen
        return now + max(self._clock.monotonic() - monotonic, self._clock.time() - wall)

    # Holding -------------------------------------------------------------------------------

    def hold(self, chain_id: str, token: int, until: float) -> None:
        """A claim was granted."""
        with self._lock:
            old = self._of().get(chain_id)
            self._drop(chain_id)
            if old is None or old.token < token:  # else two claims crossed: whose is newer is not known
                self._add(chain_id, Held(token, until))

    def forget(self, chain_ids: Iterable[str]) -> None:
        """The memory answers for these runs no more."""
        with self._lock:
            for chain_id in chain_ids:
                self._drop(chain_id)

    def forget_all(self) -> None:
        """The memory answers for nothing more."""
        self.forget(list(self._of()))

    def begin_renewing(self, renewals: Sequence[Renewal]) -> dict[str, Held]:
        """Renewals are on their way: until they have ended, the persistence answers for their runs."""
        with self._lock:
            runs = self._of()
            batch = {one.chain_id: runs[one.chain_id] for one in renewals if one.chain_id in runs}
            for held in batch.values():
                held.renewing += 1
                held.changes += 1
                held.doubtful |= held.renewing > 1
            return batch

    def end_renewing(
        self, batch: dict[str, Held], renewals: Sequence[Renewal], granted: Sequence[bool] | None = None
    ) -> None:
        """The renewals have ended: ``granted`` as told; None where that is not known."""
        with self._lock:
            for held in batch.values():
                held.renewing -= 1
            for one, yes in zip(renewals, granted or [False] * len(renewals), strict=True):
                known = batch.get(one.chain_id)
                if known is None or not (yes and one.owner and self._prolong(known, one)):
                    self._drop(one.chain_id)

    def _prolong(self, held: Held, one: Renewal) -> bool:
        if held.token != one.token or not self._may_put(one.chain_id, held):
            return False
        held.until = one.until
        return held.first is None or self._in_memory(self.memory.renew, [one]) == [True]

    def _of(self) -> dict[str, Held]:
        if self._pid != os.getpid():  # a fork: the leases are its parent's
            self._pid, self._held = os.getpid(), {}
        return self._held

    def _add(self, chain_id: str, held: Held) -> None:
        runs = self._of()
        runs[chain_id] = held
        while len(runs) > self.keep:
            self._drop(next(iter(runs)))

    def _drop(self, chain_id: str) -> None:
        held = self._of().pop(chain_id, None)
        if held is not None:
            self._erase(chain_id)

    # Writing -------------------------------------------------------------------------------

    def begin(self, writes: Sequence[Write]) -> dict[str, Held]:
        """Writes are on their way: until they have ended, the persistence answers for their runs."""
        batch: dict[str, Held] = {}
        with self._lock:
            for write in writes:
                row = write.row
                if row.chain_id in batch:
                    continue
                held = self._of().get(row.chain_id)
                if held is None:
                    held = Held(row.token, 0.0)
                    self._add(row.chain_id, held)
                held.writing += 1
                held.changes += 1
                batch[row.chain_id] = held
        return batch

    def end(
        self, batch: dict[str, Held], writes: Sequence[Write], accepted: Sequence[bool] | None = None
    ) -> None:
        """The writes have ended: ``accepted`` as told; None where that is not known."""
        with self._lock:
            ours = {name for name, held in batch.items() if self._may_put(name, held)}
            for write, yes in zip(writes, accepted or [False] * len(writes), strict=True):
                name = write.row.chain_id
                if name in ours and not (yes and self._put(batch[name], write)):
                    ours.remove(name)
            for name, held in batch.items():
                held.writing -= 1
                if name not in ours:
                    held.doubtful = True
                    self._drop(name)

    def untouched(self, batch: dict[str, Held]) -> None:
        """The writes were not made at all."""
        with self._lock:
            for held in batch.values():
                held.writing -= 1

    def _may_put(self, chain_id: str, held: Held) -> bool:
        return self._of().get(chain_id) is held and not held.doubtful

    def _put(self, held: Held, write: Write) -> bool:
        """Put an accepted write into memory; False where the run is better forgotten."""
        row = write.row
        if row.token != held.token or (write.change is not None and write.change.release):
            return False
        if write.opens is not None:
            self._erase(row.chain_id)
            held.until = write.opens.lease_until
        elif held.first is None:
            return True  # the first read takes it in
        if self._in_memory(self.memory.write, [write]) != [True]:
            return False
        if write.opens is not None:
            held.first = row.first
        return True

    # Reading -------------------------------------------------------------------------------

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, where the memory may answer."""
        with self._lock:
            if self._answers(chain_id) is None:
                return None
            return self.memory.entry(chain_id)

    def rows(self, chain_id: str, first: int, last: int | None) -> tuple[int, list[Row]] | None:
        """The oldest record that is in memory, and the rows there; None where the memory may not answer."""
        with self._lock:
            oldest = self._answers(chain_id)
            if oldest is None:
                return None
            return oldest, list(self.memory.rows(chain_id, max(first, oldest), last))

    def wants(self, chain_id: str) -> tuple[Held, int] | None:
        """A run that is held and not in memory yet, and which of its states is to be taken in."""
        with self._lock:
            held = self._of().get(chain_id)
            if held is None or held.first is not None or not self._is_quiet(held):
                return None
            return held, held.changes

    def fill(self, wanted: tuple[Held, int], entry: Entry | None, newest: Sequence[Row]) -> None:
        """Take in a run as the persistence told it (``newest`` first), unless something happened since."""
        held, changes = wanted
        if entry is None or not newest or newest[0].last != entry.last or entry.token != held.token:
            return
        rows = _sequel(newest, held.token)
        with self._lock:
            if self._of().get(entry.chain_id) is not held or held.changes != changes or not rows:
                return
            self._erase(entry.chain_id)
            if self._in_memory(self._take_in, entry, rows):
                held.first = rows[0].first
            else:
                self._erase(entry.chain_id)

    def _take_in(self, entry: Entry, rows: Sequence[Row]) -> bool:
        token = rows[0].token
        opens = msgspec.structs.replace(entry, token=token, last=rows[0].first - 1)
        for row in rows:
            while token < row.token:
                self.memory.claim(row.chain_id, token, entry.owner, entry.lease_until)
                token += 1
            if self.memory.write([Write(row, opens=opens if row is rows[0] else None)]) != [True]:
                return False
        while token < entry.token:
            self.memory.claim(entry.chain_id, token, entry.owner, entry.lease_until)
            token += 1
        return self.memory.entry(entry.chain_id) == entry

    def _answers(self, chain_id: str) -> int | None:
        """The oldest record in memory of a run for which the memory may answer."""
        held = self._of().get(chain_id)
        if held is None or held.first is None or not self._is_quiet(held):
            return None
        runs = self._of()
        runs[chain_id] = runs.pop(chain_id)  # the most recently used one is the last
        return held.first

    def _is_quiet(self, held: Held) -> bool:
        return not (held.writing or held.renewing or held.doubtful) and held.until > self._latest_now()

    # The memory ----------------------------------------------------------------------------

    def _erase(self, chain_id: str) -> None:
        def erase() -> None:
            entry = self.memory.entry(chain_id)
            if entry is not None:
                self.memory.delete([entry])

        self._in_memory(erase)

    @staticmethod
    def _in_memory(work: Callable[..., _T], *args: Any) -> _T | None:
        """The memory's answer; None where it fails, which must not fail what the persistence has done."""
        try:
            return work(*args)
        except StorageError:
            return None


def _sequel(newest: Sequence[Row], token: int) -> list[Row]:
    """The rows, oldest first, back to where the memory could not take them in one after another.

    A trimmed row bears a newer token than those behind it.
    """
    rows = list(newest[:1])
    for row in newest[1:]:
        behind = rows[-1]
        if row.last != behind.first - 1 or row.token > behind.token or token - row.token > CLAIMS_MAX:
            break
        rows.append(row)
    return rows[::-1]
