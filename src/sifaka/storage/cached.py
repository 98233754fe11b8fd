"""A store in tiers: a memory that answers, a persistence that keeps, a search that suggests (floor 3).

A write counts when the persistence has it; the memory takes it in afterwards, and answers only for runs that
this process holds (see :mod:`sifaka.storage.tier`). Everything else is the persistence's business, so that
several processes, each with a memory of its own, may share one persistence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import msgspec

from sifaka.errors import StorageError
from sifaka.locks import ProcessLock
from sifaka.storage.base import Entry, Renewal, Row, Storage, Write
from sifaka.storage.cells import SharedCells
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.similarity import Similarity
from sifaka.storage.tier import FILL_ROWS, Tier
from sifaka.storage.wrapper import StorageWrapper

__all__ = ["CachedStorage"]

UNFORGOTTEN = "search/unforgotten"
"""The cell with the runs that were deleted while the search could not be told."""
UNFORGOTTEN_MAX = 50_000
"""So many of them are remembered; then deleting waits for the search."""
_ids = msgspec.msgpack.Decoder(list[str])


class CachedStorage(StorageWrapper):
    """The tiers of a store as one.

    Without ``persistence`` everything is in ``memory_storage``, as durable as that is. With it, writes are
    durable there before they count, and reads of the runs that this process holds come from
    ``memory_storage`` (a new InMemoryStorage by default, to be given to no one else): at most ``keep``
    runs, the least recently used one dropped first. Should a process elsewhere claim a run although the
    lease here has not ended, reads here show the run as it was until the next append or renewal is refused.

    ``search`` finds similar faults. A run that is deleted is forgotten there first; where that fails, it is
    remembered in a shared cell, told by :meth:`complaints`, and tried again at the next deletion.
    """

    def __init__(
        self,
        memory_storage: Storage | None = None,
        persistence: Storage | None = None,
        search: Similarity | None = None,
        *,
        keep: int = 1_000,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}; the memory keeps 1 run or more")
        clock = None if persistence is None else persistence.clock
        self.memory_storage = InMemoryStorage(clock=clock) if memory_storage is None else memory_storage
        self.persistence = persistence
        self.search = search
        super().__init__(self.memory_storage if persistence is None else persistence)
        self._tier = None if persistence is None else Tier(self.memory_storage, self.clock, keep)
        self._debts = ProcessLock()

    # Writing -------------------------------------------------------------------------------

    def now(self) -> float:
        """The persistence's own clock, in unix seconds."""
        tier = self._tier
        if tier is None:
            return self.inner.now()
        began = tier.before()
        now = self.inner.now()
        tier.saw(began, now)
        return now

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all in the persistence, and then in memory; False where one was refused."""
        tier = self._tier
        if tier is None:
            return self.inner.write(writes)
        batch = tier.begin(writes)
        try:
            accepted = self.inner.write(writes)
        except BaseException:
            tier.end(batch, writes)
            raise
        tier.end(batch, writes, accepted)
        return accepted

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        """As :meth:`write`, but None at once where the persistence would have to wait."""
        tier = self._tier
        if tier is None:
            return self.inner.try_write(writes)
        batch = tier.begin(writes)
        try:
            accepted = self.inner.try_write(writes)
        except BaseException:
            tier.end(batch, writes)
            raise
        if accepted is None:
            tier.untouched(batch)
        else:
            tier.end(batch, writes, accepted)
        return accepted

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        tier = self._tier
        if tier is None:
            return self.inner.claim(chain_id, token, owner, until)
        tier.forget([chain_id])
        granted = self.inner.claim(chain_id, token, owner, until)
        if granted and owner:
            tier.hold(chain_id, token + 1, until)
        return granted

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        """Renew leases, or give them back, in one commit."""
        tier = self._tier
        if tier is None:
            return self.inner.renew(renewals)
        batch = tier.begin_renewing(renewals)
        try:
            granted = self.inner.renew(renewals)
        except BaseException:
            tier.end_renewing(batch, renewals)
            raise
        tier.end_renewing(batch, renewals, granted)
        return granted

    # Reading -------------------------------------------------------------------------------

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None."""
        tier = self._tier
        found = None if tier is None else tier.entry(chain_id)
        return self.inner.entry(chain_id) if found is None else found

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last``."""
        tier = self._tier
        found = None
        if tier is not None:
            self._fill(tier, chain_id)
            found = tier.rows(chain_id, first, last)
        if found is None:
            return self.inner.rows(chain_id, first, last, newest_first=newest_first)
        oldest, newer = found
        if first >= oldest:
            return iter(newer[::-1] if newest_first else newer)
        end = oldest - 1 if last is None else min(last, oldest - 1)
        older = self.inner.rows(chain_id, first, end, newest_first=newest_first)
        return chain(reversed(newer), older) if newest_first else chain(older, newer)

    def _fill(self, tier: Tier, chain_id: str) -> None:
        """Take a run that is held into memory when it is first read."""
        wanted = tier.wants(chain_id)
        if wanted is not None:
            entry = self.inner.entry(chain_id)
            newest = list(islice(self.inner.rows(chain_id, newest_first=True), FILL_ROWS))
            tier.fill(wanted, entry, newest)

    # Removing ------------------------------------------------------------------------------

    def delete(self, entries: Sequence[Entry]) -> int:
        """Remove runs with all their records, also from the search; the number of checkpoints removed."""
        chain_ids = [entry.chain_id for entry in entries]
        if self.search is not None:
            self._forget_in_search(self.search, chain_ids)
        self._forget(chain_ids)
        try:
            return self.inner.delete(entries)
        finally:
            self._forget(chain_ids)

    def trim(self, row: Row) -> int | None:
        """Put ``row`` in place of the rows in its range; the number of checkpoints removed."""
        self._forget([row.chain_id])
        try:
            return self.inner.trim(row)
        finally:
            self._forget([row.chain_id])

    def _forget(self, chain_ids: Sequence[str]) -> None:
        """Before a removal, so that nobody is told what goes; after it, for those who read meanwhile."""
        if self._tier is not None:
            self._tier.forget(chain_ids)

    def _forget_in_search(self, search: Similarity, chain_ids: Sequence[str]) -> None:
        """Before the run goes: whatever dies in between, its texts are nowhere when it is gone.

        A run that turns out to be spared loses suggestions at the most.
        """

        def still_owed(value: bytes) -> bytes:
            owed = _ids.decode(value) if value else []
            left = _unforgotten(search, [*dict.fromkeys([*owed, *chain_ids])])
            return value if left == owed else msgspec.msgpack.encode(left)

        with self._debts:
            SharedCells(self.inner).change(UNFORGOTTEN, still_owed)

    # Keeping -------------------------------------------------------------------------------

    def complaints(self) -> list[str]:
        """What in the tiers does not keep its promises."""
        found = self.inner.complaints()
        cell = self.inner.cells([UNFORGOTTEN])[0] if self.search is not None else None
        if cell is not None and cell.value and (owed := _ids.decode(cell.value)):
            found.append(
                f"{len(owed)} deleted runs could not be forgotten in the search, which may still suggest "
                "their faults: bring it back; the next deletion tells it"
            )
        return found

    def reset(self) -> None:
        """Drop connections that a failure left in an unknown state, and what the memory holds."""
        if self._tier is not None:
            self._tier.forget_all()
        self.inner.reset()

    def close(self) -> None:
        """Give back what the tiers hold open."""
        if self._tier is not None:
            self._tier.forget_all()
        if self.search is not None:
            self.search.close()
        self.inner.close()


def _unforgotten(search: Similarity, chain_ids: Sequence[str]) -> Sequence[str]:
    """What is left to forget. Raises StorageError where that would be too much to remember."""
    try:
        search.forget(chain_ids)
    except Exception as error:  # whatever ails the search, a deletion does not depend on it
        if len(chain_ids) > UNFORGOTTEN_MAX:
            raise StorageError(
                f"{len(chain_ids):,} deleted runs could not be forgotten in the search: nothing more is "
                "deleted. Bring the search back, then delete again"
            ) from error
        return chain_ids
    return []
