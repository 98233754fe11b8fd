"""A Hypothesis machine in which a store must agree with the memory model, step by step (floor 8).

Whatever is asked of the store is asked of the model, and every answer and everything that can be seen is
compared. Two handles are open; one writes, the other one looks, and they change places at every step.
Hypothesis is needed for this module alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sifaka.errors import StorageError
from sifaka.storage.base import DURABILITIES, Change, Entry, Query, Renewal, Row, Storage, Write
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.retention import clean_up
from sifaka.storage.wrapper import StorageWrapper
from sifaka.testing.clock import FakeClock
from sifaka.testing.contract.checks import Opener, expect, expect_equal
from sifaka.testing.contract.measuring import measured
from sifaka.testing.draws import CELLS, DAY_S, IDS, Move, batches, chain_ids, offs, openings, owners, queries
from sifaka.testing.storage import FaultyStorage

__all__ = ["Agreement", "agreement"]


class Agreement(RuleBasedStateMachine):
    """The machine; :func:`agreement` gives it a store. Times in its draws count from the clock's start."""

    apart = True
    """Whether there are two handles at a time."""
    steps = 0
    """How many steps all machines of the class have made."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.start = self.clock.time()
        self.model = InMemoryStorage(clock=self.clock)
        self.store: Opener = self.new_store()
        self.handles: list[Storage] = []
        self.lost: list[Storage] = []
        self.seen: list[Entry] = []
        self.touched: set[str] = set()
        self.open_handle()
        self.open_handle()

    @classmethod
    def new_store(cls) -> Opener:
        """The opener of an empty store."""
        raise NotImplementedError

    def open_handle(self) -> None:
        """One more handle; where they can't be apart, it is the one that is open already."""
        shared = self.handles and not self.apart
        self.handles.insert(0, self.handles[0] if shared else self.store(self.clock))

    def drop_handle(self) -> Storage:
        """The handle that writes now, which is in use no more."""
        dropped = self.handles.pop(0)
        if not self.apart:
            self.handles.clear()
        return dropped

    def teardown(self) -> None:
        """Close all that was opened, also what a crash has left open."""
        for storage in (*self.handles, *self.lost):
            storage.close()

    @property
    def storage(self) -> Storage:
        """The handle that writes now."""
        return self.handles[0]

    def both(self, hook: str, *given: Any) -> Any:
        """The answer that model and store must give alike."""
        wanted = getattr(self.model, hook)(*given)
        expect_equal(getattr(self.storage, hook)(*given), wanted, f"{hook}{given!r} is answered alike")
        return wanted

    def token(self, chain_id: str) -> int:
        """The run's token, 1 where there is no such run."""
        entry = self.model.entry(chain_id)
        return entry.token if entry else 1

    def row(self, move: Move) -> Row:
        """The row that a move means now."""
        entry = self.model.entry(move.chain_id) or Entry(move.chain_id)
        first = max(0, entry.last + 1 + move.place)
        last, token = first + move.records - 1, entry.token + move.token
        frame = f"{move.chain_id} {first} {last} {token} \0".encode() * move.records
        at = self.clock.time() + move.checkpoints
        return Row(move.chain_id, first, last, token, at, move.checkpoints, frame, 99)

    def writes(self, moves: Sequence[Move]) -> list[Write]:
        """What moves mean now."""
        self.touched.update(move.chain_id for move in moves)
        return [Write(self.row(move), self.dated(move.change)) for move in moves]

    def dated(self, change: Change | None) -> Change | None:
        """The change at a time of the clock's."""
        if change is None:
            return None
        return msgspec.structs.replace(change, at=self.clock.time() + change.at)

    # Writing -------------------------------------------------------------------------------

    @initialize(entries=st.lists(openings, min_size=1, max_size=3, unique_by=lambda one: one.chain_id))
    def begin(self, entries: list[Entry]) -> None:
        """Open runs in an empty store."""
        self.open_runs(entries, 0)

    @rule(entries=st.lists(openings, min_size=1, max_size=2, unique_by=lambda one: one.chain_id), place=offs)
    def open_runs(self, entries: list[Entry], place: int) -> None:
        """Open runs, some of which are there already, perhaps with a row that does not fit."""
        now, writes = self.clock.time(), list[Write]()
        for entry in entries:
            at = now + entry.updated_at
            first = max(0, entry.last + 1 + place)
            row = Row(entry.chain_id, first, first + 1, entry.token, at, 1, b"opening \0", 9)
            opens = msgspec.structs.replace(entry, opened_at=at, updated_at=at, lease_until=now + 60)
            writes.append(Write(row, None, opens))
        self.touched.update(entry.chain_id for entry in entries)
        self.both("write", writes)

    @rule(moves=batches)
    def append(self, moves: list[Move]) -> None:
        """Append, here and there under a wrong token or at a wrong place."""
        self.both("write", self.writes(moves))

    @rule(moves=batches)
    def append_at_once(self, moves: list[Move]) -> None:
        """As an event loop does it, which lets a thread write where it would have to wait."""
        writes = self.writes(moves)
        accepted = self.storage.try_write(writes)
        found = self.storage.write(writes) if accepted is None else accepted
        expect_equal(found, self.model.write(writes), f"{writes!r} is answered alike")

    @rule(moves=batches, stored=st.booleans())
    def fail_to_append(self, moves: list[Move], stored: bool) -> None:
        """A write that fails before anything happened, or whose acknowledgement is lost."""
        writes = self.writes(moves)

        def fail(_number: int, when: str) -> None:
            if when == ("after" if stored else "before"):
                raise StorageError("the connection is gone")

        try:
            FaultyStorage(self.storage, fail).write(writes)
        except StorageError:
            self.storage.reset()
        if stored:
            self.model.write(writes)

    # Owning --------------------------------------------------------------------------------

    @rule(chain_id=chain_ids, off=offs, owner=owners)
    def claim(self, chain_id: str, off: int, owner: bytes) -> None:
        """Claim a run, also from its owner."""
        self.both("claim", chain_id, self.token(chain_id) + off, owner, self.clock.time() + 60)

    @rule(chain_ids=st.lists(chain_ids, max_size=3, unique=True), off=offs, owner=owners | st.just(b""))
    def renew(self, chain_ids: list[str], off: int, owner: bytes) -> None:
        """Renew leases, or give them back."""
        until = self.clock.time() + 90 if owner else 0.0
        self.both("renew", [Renewal(one, self.token(one) + off, owner, until) for one in chain_ids])

    # Removing ------------------------------------------------------------------------------

    @rule()
    def look(self) -> None:
        """Remember the entries as they are now: later they are old."""
        self.seen = self.both("entries", Query())

    @rule(pick=st.integers(0, 7))
    def delete(self, pick: int) -> None:
        """Delete runs by entries that were seen earlier."""
        chosen = [entry for n, entry in enumerate(self.seen) if pick >> n & 1]
        self.touched.update(entry.chain_id for entry in chosen)
        self.both("delete", chosen)

    @rule(chain_id=chain_ids, start=st.integers(0, 2), count=st.integers(1, 4), off=offs, cut=offs)
    def trim(self, chain_id: str, start: int, count: int, off: int, cut: int) -> None:
        """Replace some rows by one, here and there of a range that no rows have."""
        covered = list(self.model.rows(chain_id))[start : start + count]
        if covered:
            token, last = self.token(chain_id) + off, covered[-1].last + cut
            row = Row(chain_id, covered[0].first, last, token, covered[-1].at, 0, b"trimmed", 7)
            self.touched.add(chain_id)
            self.both("trim", row)

    @rule(days=st.sampled_from((0.0, 1.0, 30.0)))
    def clean(self, days: float) -> None:
        """Remove what ended long ago."""
        wanted = clean_up(self.model, max_age_days=days)
        found = clean_up(_Timed(self.storage, self.clock), max_age_days=days)
        self.touched.update(IDS)
        expect_equal(found, wanted, f"a clean-up of {days} days removes the same")

    # Cells ---------------------------------------------------------------------------------

    @rule(name=st.sampled_from(CELLS), value=st.sampled_from((b"", b"v", b"\0w")), off=offs)
    def swap(self, name: str, value: bytes, off: int) -> None:
        """Set a cell, here and there with a wrong version."""
        (cell,) = self.model.cells([name])
        self.both("swap", name, value, max(0, cell.version + off))

    # Looking -------------------------------------------------------------------------------

    @rule(query=queries)
    def list_pages(self, query: Query) -> None:
        """A query's pages, to the last one."""
        before, since = query.updated_before, query.updated_since
        query = msgspec.structs.replace(
            query,
            updated_before=None if before is None else self.start + before,
            updated_since=None if since is None else self.start + since,
        )
        while page := self.both("entries", query):  # the model's paging ends, so this does
            query = msgspec.structs.replace(query, after=page[-1])

    @rule(
        chain_id=chain_ids, first=st.integers(0, 9), more=st.none() | st.integers(-1, 9), newest=st.booleans()
    )
    def read(self, chain_id: str, first: int, more: int | None, newest: bool) -> None:
        """Some of a run's rows."""
        last = None if more is None else first + more
        wanted = list(self.model.rows(chain_id, first, last, newest_first=newest))
        found = list(self.storage.rows(chain_id, first, last, newest_first=newest))
        expect_equal(found, wanted, f"rows of {chain_id!r} from {first} to {last}, newest first: {newest}")

    @rule(
        prefix=st.sampled_from(("", "c", "c%")), after=st.sampled_from(("", *CELLS)), limit=st.integers(1, 3)
    )
    def list_cells(self, prefix: str, after: str, limit: int) -> None:
        """Names of cells."""
        self.both("cell_names", prefix, after, limit)

    @rule()
    def look_at_everything(self) -> None:
        """All that a store can tell, by a handle that knows nothing yet."""
        storage = self.store(self.clock)
        try:
            for chain_id in IDS:
                self.same_run(storage, chain_id)
            expect_equal(measured(storage), measured(self.model), "the measure is alike")
            expect(storage.durability in DURABILITIES, "durability is a class", durability=storage.durability)
        finally:
            storage.close()

    # What happens to handles ---------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.25, 61.0, DAY_S, 31 * DAY_S)))
    def wait(self, seconds: float) -> None:
        """Time goes on."""
        self.clock.advance(seconds)

    @rule()
    def reopen(self) -> None:
        """Close a handle, and open another."""
        self.drop_handle().close()
        while len(self.handles) < 2:
            self.open_handle()

    @rule()
    def crash(self) -> None:
        """The process is gone without having closed anything; another one opens the store."""
        self.lost.append(self.drop_handle())
        while len(self.handles) < 2:
            self.open_handle()

    @rule()
    def reset(self) -> None:
        """Drop connections."""
        self.storage.reset()

    # What holds after every step -----------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        """Entries, cells, and the rows of the runs that a step has touched, as the other handle sees them."""
        type(self).steps += 1
        self.handles.reverse()
        self.both("entries", Query())
        self.both("cells", CELLS)
        for chain_id in sorted(self.touched):
            self.same_run(self.storage, chain_id)
        self.touched.clear()

    def same_run(self, storage: Storage, chain_id: str) -> None:
        """One run's entry and rows."""
        expect_equal(storage.entry(chain_id), self.model.entry(chain_id), f"the entry of {chain_id!r}")
        wanted = list(self.model.rows(chain_id))
        expect_equal(list(storage.rows(chain_id)), wanted, f"the rows of {chain_id!r}")


class _Timed(StorageWrapper):
    """The store by the machine's time, also where it goes by its server's; it gives no space back.

    Compacting may take a store a tenth of a second, and the contract asks for it.
    """

    def __init__(self, inner: Storage, clock: FakeClock) -> None:
        super().__init__(inner)
        self.clock = clock

    def now(self) -> float:
        return self.clock.time()

    def compact(self) -> None:
        pass


def agreement(new_store: Callable[[], Opener], *, apart: bool = True) -> type[Agreement]:
    """A machine for the store that each call of ``new_store`` makes, empty; run it with Hypothesis.

    With ``apart`` false the machine uses one handle at a time: for a store whose handles may show runs
    that they hold as they last were.

    ``TestMyStore = agreement(new_store).TestCase`` is a test; so is a call of Hypothesis'
    ``run_state_machine_as_test``.
    """

    class StoreAgreement(Agreement):
        """The machine of one store."""

        @classmethod
        def new_store(cls) -> Opener:
            return new_store()

    StoreAgreement.apart = apart
    return StoreAgreement
