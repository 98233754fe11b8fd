"""A store that may go away, and a local journal that takes its place until it is back (floor 3).

While the primary is away, writes go on in the journal, run by run, and the run goes on. When it is back,
the journal's rows are handed over (:mod:`~sifaka.storage.fallback.handover`) before the primary takes a run's
next write. Where that cannot be done without merging two histories, the run halts
(:mod:`~sifaka.storage.fallback.splits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from sifaka.clock import Clock
from sifaka.errors import SplitHistoryError, StorageError, StoreUnreachableError, UsageError
from sifaka.storage.base import Cell, Durability, Entry, Query, Renewal, Row, Storage, Write
from sifaka.storage.fallback.leasing import Leasing
from sifaka.storage.fallback.routing import Routing
from sifaka.storage.fallback.splits import under_new_id
from sifaka.storage.fallback.standby import Standby
from sifaka.storage.wrapper import StorageWrapper

__all__ = ["FallbackStorage", "SplitHistoryError"]

_T = TypeVar("_T")

STAND_IN = "away/"
"""The journal's cells that stand in for the primary's while that is away."""


class FallbackStorage(StorageWrapper):
    """``primary`` with a local journal to fall back on; to be chosen knowingly, for its guarantee is weaker.

    Away is a primary that raises StoreUnreachableError. (Any other error is an answer: what it refuses now,
    it would refuse later as well.) From then on, until a probe finds it back (at most one every ``probe_s``
    seconds, made by whoever calls next):

    * Writes go to ``fallback``, a storage or an address like ``sqlite:///journal.db``. They are as durable
      as this machine's disk, and **seen by this machine's processes only**. ``durability`` is the weaker of
      the two.
    * A run begun now lies wholly in the journal; another process that uses it can take the run up. One whose
      beginning is in the primary is gone on with by its owner only: who else asks for it is told to wait.
    * A name that nobody here has met counts as new, for it cannot be looked up. Should the primary have a run
      of that name, it is begun a second time here, and found out when the primary is back.
    * Leases cannot be renewed in the primary: elsewhere an owner may be taken over whose run goes on here.
    * Listings show the journal's runs. Cells (breakers, evidence) are the journal's own, and are not brought
      over. Nothing is deleted.

    When the primary is back, the journal's runs are handed over in order, verbatim and verified, and deleted
    from the journal. Where the primary's log has grown meanwhile, was claimed by somebody else or has lost
    records, the run halts with SplitHistoryError, which names both heads and what may have been paid twice;
    the ways out are :meth:`keep_primary`, :meth:`keep_journal_as` and :meth:`move_over`. Other runs go on.
    """

    def __init__(
        self,
        primary: Storage,
        fallback: Storage | str,
        *,
        probe_s: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(primary)
        self.primary = primary
        self.fallback = _journal(fallback)
        self.probe_s = probe_s
        self.clock = clock or primary.clock
        self.patience_s = 0.0  # the journal has it
        self._standby = Standby(primary, self.fallback, probe_s, self.clock)
        self._routing = Routing(self._standby)
        self._leasing = Leasing(self._standby)

    @property
    def durability(self) -> Durability:
        """What an append survives that is acknowledged now: while the primary is away, the weaker of both."""
        return self._standby.durability

    def move_over(self) -> list[str]:
        """Hand over now what the journal holds, also runs that have halted; the names of those that stay.

        Raises StoreUnreachableError.
        """
        return self._standby.move_over()

    # Ways out of a split -------------------------------------------------------------------

    def keep_primary(self, chain_id: str) -> int:
        """Drop the journal's part of a run that has halted; the number of records dropped.

        The run goes on from where the primary's log ends. Raises UsageError for a run that has not halted.
        """
        with self._standby.lock:
            entry = self._split_entry(chain_id)
            rows = list(self.fallback.rows(chain_id))
            self.fallback.delete([entry])
            self._standby.splits.record(chain_id, None)
            self._standby.halted.discard(chain_id)
            self.fallback.compact()
            return sum(row.last - row.first + 1 for row in rows)

    def keep_journal_as(self, chain_id: str, new_id: str) -> int:
        """Make a run of its own of what both stores share and the journal's part; its number of records.

        The journal's part is dropped then, and ``chain_id`` goes on from where the primary's log ends. It may
        be interrupted and made again. Raises UsageError for a run that has not halted or a name that is
        another run's, DamagedRecordError where the primary has lost what came before the journal's part.
        """
        with self._standby.lock:
            entry = self._split_entry(chain_id)
            tail = list(self.fallback.rows(chain_id))
            head = list(self.primary.rows(chain_id, 0, tail[0].first - 1)) if tail[0].first else []
            rows = list(under_new_id([*head, *tail], new_id))
            self._standby.handover.write_copy(msgspec.structs.replace(entry, chain_id=new_id), rows)
            self.keep_primary(chain_id)
            return rows[-1].last + 1

    def _split_entry(self, chain_id: str) -> Entry:
        entry = self.fallback.entry(chain_id)
        if entry is None or self._standby.splits.find(chain_id) is None:
            raise UsageError(f"the history of run {chain_id!r} is not split: there is nothing to choose")
        return entry

    def refusal(self, row: Row) -> StorageError | None:
        """A run that has halted says so."""
        split = self._standby.splits.find(row.chain_id)
        return super().refusal(row) if split is None else SplitHistoryError(**msgspec.structs.asdict(split))

    # Writing -------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all, each to the store that has its run now; False where one was refused.

        Raises SplitHistoryError where all are of runs that have halted.
        """
        return self._routing.write(writes)

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        """As :meth:`write`, but None at once where there is more to do than a local append."""
        return self._routing.try_write(writes)

    # Leases --------------------------------------------------------------------------------

    def now(self) -> float:
        """The primary's clock, in unix seconds; while it is away, this machine's, as it differed from it."""
        return self._leasing.now()

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None. Raises StoreUnreachableError where that cannot be known."""
        return self._leasing.entry(chain_id)

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        return self._leasing.claim(chain_id, token, owner, until)

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        """Renew leases, or give them back, each where its run is now.

        Raises StoreUnreachableError where one of them is the primary's, which is away.
        """
        return self._leasing.renew(renewals)

    # Reading -------------------------------------------------------------------------------

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last``.

        While the primary is away, reading what it alone has raises StoreUnreachableError.
        """
        standby = self._standby
        entry = standby.in_journal(chain_id, is_there=standby.is_there())
        if entry is None:
            if not standby.is_there():
                raise standby.unreachable(chain_id, "its records are in the primary")
            yield from self._rows_there(chain_id, first, last, newest_first=newest_first)
            return
        ours = list(self.fallback.rows(chain_id, first, last))
        split_at = self._leasing.first_here(chain_id)
        end = split_at - 1 if last is None else min(last, split_at - 1)
        if first > end:
            yield from reversed(ours) if newest_first else ours
            return
        if newest_first:
            yield from reversed(ours)
        if not standby.is_there():
            raise standby.unreachable(chain_id, "only its newest records are in the fallback journal")
        yield from self._rows_there(chain_id, first, end, newest_first=newest_first)
        if not newest_first:
            yield from ours

    def _rows_there(
        self, chain_id: str, first: int, last: int | None, *, newest_first: bool
    ) -> Iterator[Row]:
        try:
            yield from self.primary.rows(chain_id, first, last, newest_first=newest_first)
        except StoreUnreachableError as error:
            self._standby.leave(error)
            raise

    def entries(self, query: Query) -> list[Entry]:
        """The entries that ``query`` selects, newest first; while the primary is away, the journal's."""
        return self._ask(
            lambda: self.primary.entries(query),
            lambda: [self._leasing.as_told(entry) for entry in self.fallback.entries(query)],
        )

    # Removing ------------------------------------------------------------------------------

    def delete(self, entries: Sequence[Entry]) -> int:
        """Remove runs with all their records; the number of checkpoints removed.

        A run that is in the journal is spared, and all are while the primary is away, which raises
        StoreUnreachableError.
        """
        left = [entry for entry in entries if not self._keeps(entry.chain_id)]
        removed = self._there(lambda: self.primary.delete(left))
        for entry in left:
            self._leasing.forget(entry.chain_id)
        return removed

    def trim(self, row: Row) -> int | None:
        """Put ``row`` in place of the rows in its range; None also for a run that is in the journal."""
        return None if self._keeps(row.chain_id) else self._there(lambda: self.primary.trim(row))

    def _keeps(self, chain_id: str) -> bool:
        """Whether the journal has a part of the run, also after it was tried to hand it over."""
        try:
            return self._standby.in_journal(chain_id, is_there=self._standby.is_there()) is not None
        except SplitHistoryError:
            return True

    def _there(self, work: Callable[[], _T]) -> _T:
        """The primary's answer, which nothing can stand in for."""
        if not self._standby.is_there() and self._standby.away is not None:
            raise self._standby.away
        try:
            return work()
        except StoreUnreachableError as error:
            self._standby.leave(error)
            raise

    # Cells ---------------------------------------------------------------------------------

    def cells(self, names: Sequence[str]) -> list[Cell]:
        """The cells of these names; while the primary is away, the journal's own."""
        own = [STAND_IN + name for name in names]
        return self._ask(lambda: self.primary.cells(names), lambda: self.fallback.cells(own))

    def swap(self, name: str, value: bytes, version: int) -> bool:
        """Set a cell whose version still is ``version``."""
        return self._ask(
            lambda: self.primary.swap(name, value, version),
            lambda: self.fallback.swap(STAND_IN + name, value, version),
        )

    def cell_names(self, prefix: str = "", after: str = "", limit: int = 500) -> list[str]:
        """The names of cells that begin with ``prefix`` and lie behind ``after``."""

        def own() -> list[str]:
            behind = STAND_IN + after if after else ""
            found = self.fallback.cell_names(STAND_IN + prefix, behind, limit)
            return [name.removeprefix(STAND_IN) for name in found]

        return self._ask(lambda: self.primary.cell_names(prefix, after, limit), own)

    # Keeping -------------------------------------------------------------------------------

    def measure(self) -> dict[str, Any]:
        """What the primary keeps (while it is away: the journal), and how the fallback stands.

        ``fallback`` has ``away``, ``since`` (unix seconds, or None), ``pending_runs`` and
        ``pending_records`` in the journal, and ``split_runs``, the names of those that have halted.
        """
        kept = self._ask(self.primary.measure, self.fallback.measure)
        ours = self.fallback.measure()
        standby = self._standby
        away = standby.away is not None
        return kept | {
            "fallback": {
                "away": away,
                "since": standby.since if away else None,
                "pending_runs": sum(ours["chains"].values()),
                "pending_records": ours["records"],
                "split_runs": [split.chain_id for split in standby.splits.all()],
            }
        }

    def complaints(self) -> list[str]:
        """What in both stores does not keep their promises, and what waits in the journal."""
        standby = self._standby
        found = [*self._ask(self.primary.complaints, list[str]), *self.fallback.complaints()]
        if standby.away is not None:
            found.append(f"{standby.away}; runs go on in {self.fallback.url} (durability: {self.durability})")
        splits = {split.chain_id: split for split in standby.splits.all()}
        waiting = [one.chain_id for one in standby.journaled() if one.chain_id not in splits]
        if waiting:
            found.append(f"{len(waiting)} runs wait in {self.fallback.url} to be handed over to {self.url}")
        return [
            *found,
            *(str(SplitHistoryError(**msgspec.structs.asdict(split))) for split in splits.values()),
        ]

    def compact(self) -> None:
        """Give the space of what was deleted back, in both stores."""
        self._ask(self.primary.compact, lambda: None)
        self.fallback.compact()

    def reset(self) -> None:
        """Drop connections that a failure left in an unknown state."""
        self.primary.reset()
        self.fallback.reset()

    def close(self) -> None:
        """Give back what both stores hold open."""
        self.primary.close()
        self.fallback.close()

    def _ask(self, there: Callable[[], _T], here: Callable[[], _T]) -> _T:
        """The primary's answer; the journal's while that is away."""
        return self._standby.ask(there, here)


def _journal(fallback: Storage | str) -> Storage:
    if isinstance(fallback, Storage):
        return fallback
    scheme, _, path = fallback.partition(":///")
    if scheme != "sqlite" or not path:
        raise UsageError(f"a fallback journal is a storage or sqlite:///journal.db, not {fallback!r}")
    from sifaka.storage.sqlite import SQLiteStorage

    return SQLiteStorage(path)
