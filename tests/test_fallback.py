"""The primary goes away and comes back: runs go on, nothing is lost or doubled, and no histories merge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sifaka.chain import Chain
from sifaka.clock import Clock
from sifaka.errors import StorageError, StoreUnreachableError, UsageError
from sifaka.log.codec import encode, link_of
from sifaka.log.records import Closed, Opened, Partial, Record, Result
from sifaka.storage.base import Cell, Change, Entry, Query, Renewal, Row, Storage, Write
from sifaka.storage.fallback import FallbackStorage, SplitHistoryError, handover, standby
from sifaka.storage.journal import Journal
from sifaka.storage.leases import Owner, decode, myself
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.reading import load_whole, read
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.wrapper import StorageWrapper
from sifaka.testing import FakeClock, FaultyStorage
from sifaka.testing.contract import CONTRACT, Check
from sifaka.thought import CriticFeedback, Thought

_T = TypeVar("_T")

LEASE_S = 60.0


class Died(BaseException):
    """The process is gone in the middle of what it did."""


class Switch(StorageWrapper):
    """A store that is away when it is told to be, and that a process may die at any call of.

    ``lose`` carries the next write out and goes away before it is acknowledged.
    """

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.away = False
        self.lose = False
        self.calls = 0
        self.asked: list[str] = []
        self.on_call: Callable[[int, str], object] = lambda _number, _when: None

    def _call(self, name: str, work: Callable[[], _T]) -> _T:
        self.asked.append(name)
        if self.away:
            raise StoreUnreachableError(self.url, "the cable is cut")
        self.calls += 1
        number = self.calls
        self.on_call(number, "before")
        done = work()
        self.on_call(number, "after")
        return done

    def now(self) -> float:
        return self._call("now", self.inner.now)

    def write(self, writes: Sequence[Write]) -> list[bool]:
        done = self._call("write", lambda: self.inner.write(writes))
        if self.lose:
            self.lose, self.away = False, True
            raise StoreUnreachableError(self.url, "the answer was lost")
        return done

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        return self.write(writes)

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        return self._call("rows", lambda: self.inner.rows(chain_id, first, last, newest_first=newest_first))

    def entry(self, chain_id: str) -> Entry | None:
        return self._call("entry", lambda: self.inner.entry(chain_id))

    def entries(self, query: Query) -> list[Entry]:
        return self._call("entries", lambda: self.inner.entries(query))

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        return self._call("claim", lambda: self.inner.claim(chain_id, token, owner, until))

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        return self._call("renew", lambda: self.inner.renew(renewals))

    def delete(self, entries: Sequence[Entry]) -> int:
        return self._call("delete", lambda: self.inner.delete(entries))

    def trim(self, row: Row) -> int | None:
        return self._call("trim", lambda: self.inner.trim(row))

    def cells(self, names: Sequence[str]) -> list[Cell]:
        return self._call("cells", lambda: self.inner.cells(names))

    def swap(self, name: str, value: bytes, version: int) -> bool:
        return self._call("swap", lambda: self.inner.swap(name, value, version))

    def cell_names(self, prefix: str = "", after: str = "", limit: int = 500) -> list[str]:
        return self._call("cell_names", lambda: self.inner.cell_names(prefix, after, limit))

    def measure(self) -> dict[str, Any]:
        return self._call("measure", self.inner.measure)

    def complaints(self) -> list[str]:
        return self._call("complaints", self.inner.complaints)


class World:
    """A primary and a journal that last, and the processes that use them."""

    def __init__(self, primary: Storage, journal: Storage, clock: FakeClock) -> None:
        self.primary = primary
        self.journal = journal
        self.clock = clock
        self.switch = Switch(primary)
        self.storage = FallbackStorage(self.switch, journal)

    def restart(self) -> FallbackStorage:
        """Another process, to which the primary is as far as to the first."""
        away = self.switch.away
        self.switch = Switch(self.primary)
        self.switch.away = away
        self.storage = FallbackStorage(self.switch, self.journal)
        return self.storage

    def cut(self) -> None:
        self.switch.away = True

    def mend(self) -> None:
        """The primary is back, and it is time for a probe."""
        self.switch.away = False
        self.clock.advance(2)

    def is_empty(self) -> bool:
        return self.journal.entries(Query()) == []


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    clock = FakeClock()
    journal = SQLiteStorage(tmp_path / "journal.db", clock=clock)
    primary: Storage = InMemoryStorage(clock=clock)
    if request.param == "sqlite":
        primary = SQLiteStorage(tmp_path / "primary.db", clock=clock)
    yield World(primary, journal, clock)
    primary.close()
    journal.close()


def dead(number: int = 0) -> bytes:
    """A process of this machine that is certainly gone."""
    me = decode(myself())
    return msgspec.msgpack.encode(msgspec.structs.replace(me, started=f"never {number}", claim=str(number)))


def stranger(name: str = "them") -> bytes:
    """A process of another machine, of which nothing can be known."""
    return msgspec.msgpack.encode(Owner("another-host", 7, "1", "another-boot", "", name))


class Writer:
    """Appends to one run through a storage, as its owner."""

    def __init__(self, storage: Storage, chain_id: str = "a", owner: bytes | None = None) -> None:
        self.storage = storage
        self.chain_id = chain_id
        self.owner = dead() if owner is None else owner
        self.token = 1
        self.next = self.prev = 0

    def claim(self) -> bool:
        """Take the run up at its end; False where somebody else was quicker."""
        entry = self.storage.entry(self.chain_id)
        if entry is None:
            return True
        if not self.storage.claim(self.chain_id, entry.token, self.owner, self.storage.now() + LEASE_S):
            return False
        rows = list(self.storage.rows(self.chain_id))
        self.token, self.next, self.prev = entry.token + 1, rows[-1].last + 1, link_of(rows[-1].frame)
        return True

    def append(self, text: str, change: Change | None = None) -> bool:
        storage, seq = self.storage, self.next
        at = storage.clock.time()
        record: Record = Partial(at, 0, text) if seq else Opened(at, self.chain_id, text, settings={})
        where: dict[str, Any] = {"chain_id": self.chain_id, "first": seq, "token": self.token}
        row = Row(last=seq, at=at, checkpoints=0, frame=encode([record], prev=self.prev, **where), **where)
        opens = None
        if not seq:
            opens = Entry(
                self.chain_id, 1, self.owner, storage.now() + LEASE_S, label="l", opened_at=at, updated_at=at
            )
        accepted = storage.write([Write(row, change, opens)])[0]
        if accepted:
            self.next, self.prev = seq + 1, link_of(row.frame)
        return accepted


def texts(storage: Storage, chain_id: str = "a") -> list[str]:
    """What the run says, every record and link verified."""
    found: list[str] = []
    for record in read(storage, chain_id):
        if isinstance(record, Opened):
            found.append(record.prompt or "")
        elif isinstance(record, Partial):
            found.append(record.text)
    return found


def a_run_across(world: World, *, before: int = 3, during: int = 3, lose: bool = False) -> Writer:
    """A run of ``before`` records in the primary and ``during`` behind them, which are in the journal."""
    writer = Writer(world.storage)
    for n in range(before):
        assert writer.append(f"there {n}")
    if lose:
        world.switch.lose = True
    else:
        world.cut()
    for n in range(during):
        assert writer.append(f"here {n}")
    return writer


def across(before: int = 3, during: int = 3) -> list[str]:
    return [f"there {n}" for n in range(before)] + [f"here {n}" for n in range(during)]


# Calm weather ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite", "two objects"])
@pytest.mark.parametrize("check", CONTRACT, ids=str)
def test_in_calm_weather_it_keeps_the_contract(check: Check, kind: str, tmp_path: Path) -> None:
    opened: list[Storage] = []
    shared: list[FallbackStorage] = []

    def store(clock: Clock | None = None, /) -> Storage:
        if kind == "two objects" or not shared:
            journal = SQLiteStorage(tmp_path / "journal.db", clock=clock)
            primary: Storage = InMemoryStorage(clock=clock)
            if kind != "memory":
                primary = SQLiteStorage(tmp_path / "primary.db", clock=clock)
            opened.extend((journal, primary))
            shared.append(FallbackStorage(primary, journal, clock=clock))
        return shared[-1]

    check(store)
    for one in opened:
        one.close()


def test_in_calm_weather_an_append_asks_the_primary_alone(world: World) -> None:
    journal = Switch(world.journal)
    writer = Writer(FallbackStorage(world.primary, journal))
    writer.append("first")
    journal.asked.clear()
    assert writer.append("second")
    assert journal.asked == []


# Away and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("lose", [False, True])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_run_goes_on_while_the_primary_is_away_and_is_whole_there_afterwards(
    world: World, before: int, lose: bool
) -> None:
    writer = a_run_across(world, before=before, lose=lose)
    world.mend()
    assert writer.append("back", Change("failed", 9.0, "why", "group", 10.0))
    assert texts(world.primary) == [*across(before), "back"]
    assert world.is_empty()
    entry = world.primary.entry("a")
    assert entry is not None
    assert (entry.token, entry.owner, entry.label) == (1, writer.owner, "l")
    assert (entry.status, entry.reason, entry.group, entry.until, entry.last) == (
        "failed", "why", "group", 10.0, before + 3,
    )  # fmt: skip


def test_what_changed_in_the_entry_during_the_outage_is_brought_over(world: World) -> None:
    writer = a_run_across(world)
    assert writer.append("last", Change("done", 9.0, "because", release=True))
    world.mend()
    assert world.storage.move_over() == []
    entry = world.primary.entry("a")
    assert entry is not None
    assert (entry.status, entry.reason, entry.updated_at, entry.owner) == ("done", "because", 9.0, b"")
    assert entry.token == 2, "a late append of the old writer would not be refused"


def test_the_writers_lease_in_the_primary_begins_anew(world: World) -> None:
    writer = a_run_across(world)
    world.clock.advance(300)
    world.mend()
    assert writer.append("back")
    entry = world.primary.entry("a")
    assert entry is not None
    assert entry.lease_until > world.clock.time() + 30


def test_a_warning_is_given_once_an_outage_and_states_the_guarantee(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "sifaka.storage"):
        writer = a_run_across(world)
        world.clock.advance(2)
        assert writer.append("after a probe that failed")
    assert len(caplog.records) == 1
    assert "which only this machine sees (durability: " in caplog.text
    world.mend()
    world.storage.move_over()
    assert "back after" in caplog.records[1].getMessage()
    caplog.clear()
    world.cut()
    Writer(world.storage, "b").append("here")
    assert len(caplog.records) == 1


def test_while_it_is_away_the_primary_is_probed_once_a_probe_time(world: World) -> None:
    writer = a_run_across(world)
    world.switch.asked.clear()
    for _ in range(5):
        writer.append("more")
    assert world.switch.asked == []
    world.clock.advance(1.0)
    for _ in range(5):
        writer.append("more")
    assert world.switch.asked == ["cells"]


def test_the_numbers_say_how_the_fallback_stands(world: World) -> None:
    calm = world.storage.measure()["fallback"]
    assert calm == {
        "away": False, "since": None, "pending_runs": 0, "pending_records": 0, "split_runs": [],
    }  # fmt: skip
    durability = world.storage.durability
    assert durability == world.primary.durability
    a_run_across(world)
    found = world.storage.measure()["fallback"]
    assert found == {
        "away": True, "since": world.clock.time(), "pending_runs": 1, "pending_records": 3, "split_runs": [],
    }  # fmt: skip
    assert any("1 runs wait in" in one for one in world.storage.complaints())
    world.mend()
    world.storage.move_over()
    assert world.storage.measure()["fallback"] == calm


def test_durability_is_the_weaker_ones_while_the_primary_is_away(tmp_path: Path) -> None:
    clock = FakeClock()
    primary = SQLiteStorage(tmp_path / "primary.db", clock=clock)
    world = World(primary, InMemoryStorage(clock=clock), clock)
    seen = [world.storage.durability]
    a_run_across(world)
    seen.append(world.storage.durability)
    world.mend()
    world.storage.move_over()
    assert [*seen, world.storage.durability] == ["power", "none", "power"]
    primary.close()


def test_an_error_that_is_an_answer_is_passed_on(world: World) -> None:
    def full(_number: int, _when: str) -> None:
        raise StorageError("the disk is full")

    world.storage.move_over()
    world.switch.on_call = full
    with pytest.raises(StorageError, match="the disk is full"):
        Writer(world.storage).append("first")
    assert world.is_empty()


def test_a_journal_is_opened_by_its_address(tmp_path: Path) -> None:
    storage = FallbackStorage(InMemoryStorage(), f"sqlite:///{tmp_path}/journal.db")
    assert isinstance(storage.fallback, SQLiteStorage)
    storage.close()
    with pytest.raises(UsageError, match="redis"):
        FallbackStorage(InMemoryStorage(), "redis://here")


def test_cells_of_the_journal_stand_in_for_the_primarys(world: World) -> None:
    storage = world.storage
    assert storage.swap("breaker", b"closed", 0)
    world.cut()
    assert storage.cells(["breaker"]) == [Cell()]
    assert storage.swap("breaker", b"open", 0)
    assert storage.cells(["breaker"]) == [Cell(b"open", 1)]
    assert storage.cell_names() == storage.cell_names("b") == ["breaker"]
    assert storage.cell_names(after="breaker") == []
    world.mend()
    assert storage.cells(["breaker"]) == [Cell(b"closed", 1)]


# While it is away --------------------------------------------------------------------------


def test_a_run_that_lies_wholly_in_the_journal_is_taken_up_by_another_process(world: World) -> None:
    world.cut()
    a_run_across(world, before=0)
    second = Writer(world.restart(), owner=dead(2))
    assert second.claim()
    assert second.append("second life")
    world.mend()
    assert second.append("back")
    assert texts(world.primary) == [*across(0), "second life", "back"]
    entry = world.primary.entry("a")
    assert entry is not None
    assert (entry.token, entry.owner) == (2, second.owner)
    assert world.is_empty()


def test_a_run_that_began_in_the_primary_waits_for_it(world: World) -> None:
    a_run_across(world)
    storage = world.restart()
    with pytest.raises(StoreUnreachableError, match=r"run 'a' has to wait.*only its newest records"):
        Writer(storage).claim()
    for ask in (lambda: list(storage.rows("a")), lambda: storage.claim("a", 1, dead(2), 1.0)):
        with pytest.raises(StoreUnreachableError, match="only its newest records"):
            ask()
    assert len(list(storage.rows("a", 3))) == 3
    newest = storage.rows("a", newest_first=True)
    assert [next(newest).first for _ in range(3)] == [5, 4, 3]
    with pytest.raises(StoreUnreachableError, match="only its newest records"):
        next(newest)
    world.mend()
    writer = Writer(storage, owner=dead(2))
    assert writer.claim()
    assert writer.append("second life")
    assert texts(world.primary) == [*across(), "second life"]


def test_a_run_that_is_known_to_be_the_primarys_is_not_begun_a_second_time(world: World) -> None:
    assert Writer(world.primary).append("theirs")
    assert world.storage.entry("a") is not None
    world.cut()
    with pytest.raises(StoreUnreachableError, match="run 'a' has to wait"):
        world.storage.entry("a")
    with pytest.raises(StoreUnreachableError, match="run 'b' has to wait"):
        next(world.storage.rows("b"))
    assert world.storage.entry("b") is None


def test_a_lease_is_renewed_and_given_back_where_its_run_is(world: World) -> None:
    writer = a_run_across(world)
    storage = world.storage
    until = storage.now() + 500
    assert storage.renew([Renewal("a", 1, writer.owner, until)]) == [True]
    found = world.journal.entry("a")
    assert found is not None
    assert found.lease_until == until
    assert storage.renew([Renewal("a", 7, writer.owner, until)]) == [False]
    assert storage.renew([Renewal("a", 1)]) == [True]
    world.mend()
    assert storage.move_over() == []


def test_a_lease_that_is_the_primarys_cannot_be_renewed_and_is_not_called_lost(world: World) -> None:
    idle = Writer(world.storage, "idle")
    idle.append("there")
    a_run_across(world)
    renewals = [Renewal(one, 1, dead(), world.clock.time() + 60) for one in ("a", "idle")]
    with pytest.raises(StoreUnreachableError):
        world.storage.renew(renewals)
    world.mend()
    assert world.storage.renew(renewals) == [True, True]
    assert idle.append("still there")


def test_nothing_is_deleted_while_it_is_away_and_nothing_that_the_journal_has_a_part_of(world: World) -> None:
    a_run_across(world)
    entry = world.journal.entry("a")
    assert entry is not None
    with pytest.raises(StoreUnreachableError):
        world.storage.delete([entry])
    assert texts(world.primary) == across(3, 0)
    assert [one.chain_id for one in world.storage.entries(Query())] == ["a"]


def test_an_old_owners_append_is_refused_also_in_the_journal(world: World) -> None:
    world.cut()
    old = a_run_across(world, before=0)
    assert Writer(world.restart(), owner=dead(2)).claim()
    first = old.storage
    assert isinstance(first, FallbackStorage)
    world.mend()
    assert world.storage.move_over() == []
    switch = first.primary
    assert isinstance(switch, Switch)
    switch.away = False
    assert not old.append("late")
    assert texts(world.primary) == across(0)


def test_a_live_owners_run_is_left_to_it_by_other_processes(world: World) -> None:
    writer = a_run_across(world)
    writer.owner = stranger("of this journal")
    entry = world.journal.entry("a")
    assert entry is not None
    first, storage = world.storage, FallbackStorage(world.primary, world.journal)
    assert world.journal.claim("a", entry.token, stranger(), world.clock.time() + LEASE_S)
    assert storage.move_over() == ["a"]
    assert first.entry("a") is not None
    assert [one.first for one in storage.rows("a")] == list(range(6)), "both parts, in order"
    world.clock.advance(LEASE_S + 1)
    assert storage.move_over() == []
    assert texts(world.primary) == across()


def test_two_processes_of_a_machine_hand_a_run_over_once(world: World) -> None:
    a_run_across(world)
    world.mend()
    one, journal = FallbackStorage(world.primary, world.journal), Switch(world.journal)
    two = FallbackStorage(world.primary, journal)

    def at_once(_number: int, when: str) -> None:
        """When the second one claims it, the first one has just done so."""
        if journal.asked[-1] == "claim" and when == "before":
            assert one.move_over() == []

    journal.on_call = at_once
    assert two.move_over() == []
    assert texts(world.primary) == across()


# Deaths ------------------------------------------------------------------------------------


def die_at(number: int, when: str) -> Callable[[int, str], None]:
    def die(called: int, at: str) -> None:
        if (called, at) == (number, when):
            raise Died

    return die


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("which", ["primary", "journal"])
@pytest.mark.parametrize("kind", ["tail", "whole", "second life", "lost answer", "done"])
def test_a_death_at_any_call_of_the_handover_loses_nothing_and_doubles_nothing(
    kind: str, which: str, when: str
) -> None:
    number = 0
    while True:
        number += 1
        clock = FakeClock()
        world = World(InMemoryStorage(clock=clock), InMemoryStorage(clock=clock), clock)
        expected = begin(world, kind)
        world.mend()
        storage = world.restart()
        journal = Switch(world.journal)
        storage = FallbackStorage(world.switch, journal)
        doomed = world.switch if which == "primary" else journal
        doomed.on_call = die_at(number, when)
        try:
            storage.move_over()
        except Died:
            # The next process dies at the same place, the third one does not.
            clock.advance(LEASE_S + 1)
            again = Switch(world.primary)
            again.on_call = die_at(number, when)
            try:
                FallbackStorage(again, world.journal).move_over()
            except Died:
                clock.advance(LEASE_S + 1)
        else:
            assert number > 5
            return
        assert FallbackStorage(world.primary, world.journal).move_over() == [], (number, kind)
        assert texts(world.primary) == expected, number
        entry = world.primary.entry("a")
        assert entry is not None
        assert entry.owner == b""
        assert entry.status == ("done" if kind == "done" else "running")
        writer = Writer(world.restart(), owner=dead(9))
        assert writer.claim()
        assert writer.append("goes on")


def begin(world: World, kind: str) -> list[str]:
    """A run that waits in the journal; what it says."""
    if kind == "tail":
        a_run_across(world)
        return across()
    writer = a_run_across(world, before=0, lose=kind == "lost answer")
    if kind == "second life":
        for number in (2, 3):
            writer = Writer(world.restart(), owner=dead(number))
            assert writer.claim()
        assert writer.append("second life")
        return [*across(0), "second life"]
    if kind == "done":
        assert writer.append("done", Change("done", 9.0, release=True))
        return [*across(0), "done"]
    return across(0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_primary_may_go_away_again_at_any_call_of_the_handover(when: str) -> None:
    number = 0
    while True:
        number += 1
        clock = FakeClock()
        world = World(InMemoryStorage(clock=clock), InMemoryStorage(clock=clock), clock)
        writer = a_run_across(world, before=1)
        world.mend()
        start = world.switch.calls

        def cut(called: int, at: str, at_call: int = start + number, world: World = world) -> None:
            if (called, at) == (at_call, when):
                world.cut()
                raise StoreUnreachableError("primary", "the cable is cut again")

        world.switch.on_call = cut
        assert writer.append("during")
        world.switch.on_call = lambda _number, _when: None
        was_cut = world.switch.away
        world.mend()
        assert writer.append("back")
        assert texts(world.primary) == [*across(1), "during", "back"], number
        assert world.is_empty()
        if not was_cut:
            assert number > 5
            return


def test_a_run_whose_handover_was_cut_off_can_be_taken_up_at_once(world: World) -> None:
    a_run_across(world, before=0)
    world.mend()
    storage = world.restart()

    def cut(_number: int, _when: str) -> None:
        if world.switch.asked[-1] == "write":
            world.cut()
            raise StoreUnreachableError("primary", "the cable is cut again")

    world.switch.on_call = cut
    with pytest.raises(StoreUnreachableError):
        storage.move_over()
    entry = world.journal.entry("a")
    assert entry is not None
    assert entry.owner == b""
    writer = Writer(world.restart(), owner=dead(2))
    assert writer.claim()
    assert writer.append("second life")
    world.mend()
    assert world.storage.move_over() == []
    assert texts(world.primary) == [*across(0), "second life"]


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_who_took_the_run_over_after_its_last_row_was_brought_keeps_it(world: World, deaths: int) -> None:
    a_run_across(world, during=1, lose=True)
    them = Writer(world.primary, owner=stranger())
    assert them.claim()
    world.mend()
    for _ in range(deaths):
        world.restart()
        world.switch.on_call = die_at(4, "before")
        with pytest.raises(Died):
            world.storage.move_over()
        world.clock.advance(LEASE_S + 1)
    assert world.restart().move_over() == []
    entry = world.primary.entry("a")
    assert entry is not None
    assert (entry.owner, entry.token) == (them.owner, 2)
    assert them.append("theirs")
    assert texts(world.primary) == [*across(3, 1), "theirs"]


# Histories that have split -----------------------------------------------------------------


def grown(world: World) -> None:
    """Somebody took the run over in the primary and went on with it."""
    them = Writer(world.primary, owner=stranger())
    assert them.claim()
    assert them.append("theirs")


def taken_over(world: World) -> None:
    assert world.primary.claim("a", 1, stranger(), world.clock.time() + LEASE_S)


def shrunk(world: World) -> None:
    """The primary was restored from an older backup."""
    rows = list(world.primary.rows("a"))
    entry = world.primary.entry("a")
    assert entry is not None
    world.primary.delete([entry])
    opened = msgspec.structs.replace(entry, last=-1)
    assert world.primary.write([Write(rows[0], None, opened), Write(rows[1])]) == [True, True]


def lost(world: World) -> None:
    entry = world.primary.entry("a")
    assert entry is not None
    world.primary.delete([entry])


def replaced(world: World) -> None:
    """Another run of the same name, as long, has taken its place."""
    lost(world)
    them = Writer(world.primary, owner=stranger())
    for n in range(3):
        assert them.append(f"theirs {n}")


SPLITS: dict[Callable[[World], None], str] = {
    grown: "the primary has other records from 3 on",
    taken_over: "somebody else has taken the run over in the primary",
    shrunk: "the primary has lost records 2 to 2",
    lost: "the primary has lost the run",
    replaced: "the primary has another record 2",
}


@pytest.mark.parametrize("living", [True, False])
@pytest.mark.parametrize("change", SPLITS, ids=["grown", "taken over", "shrunk", "lost", "replaced"])
def test_histories_that_have_split_are_never_merged(
    world: World, change: Callable[[World], None], living: bool
) -> None:
    writer = a_run_across(world)
    change(world)
    theirs = list(world.primary.rows("a"))
    world.mend()
    if living:
        with pytest.raises(SplitHistoryError, match=SPLITS[change]) as raised:
            writer.append("back")
        entry = world.primary.entry("a")
        assert raised.value.primary_last == (-1 if entry is None else entry.last)
        assert raised.value.primary_token == (0 if entry is None else entry.token)
        assert (raised.value.journal_first, raised.value.journal_last) == (3, 5)
    else:
        world.restart()
    storage = world.storage
    asks: list[Callable[[], object]] = [
        lambda: storage.entry("a"),
        lambda: list(storage.rows("a")),
        lambda: storage.claim("a", 1, b"", 0.0),
    ]
    for ask in asks:
        with pytest.raises(SplitHistoryError, match=SPLITS[change]):
            ask()
    assert storage.renew([Renewal("a", 1, writer.owner, 1.0)]) == [False]
    assert list(world.primary.rows("a")) == theirs
    assert [row.first for row in world.journal.rows("a")] == [3, 4, 5]
    assert storage.measure()["fallback"]["split_runs"] == ["a"]
    assert any("the history of run 'a' is split" in one for one in storage.complaints())
    assert storage.move_over() == ["a"]


def test_other_runs_go_on_beside_one_that_has_halted(world: World) -> None:
    writer = a_run_across(world)
    other = Writer(world.storage, "b")
    other.append("here")
    grown(world)
    world.mend()
    assert other.append("there")
    with pytest.raises(SplitHistoryError):
        writer.append("back")
    rows = [
        Row("a", 6, 6, 1, 1.0, 0, b"a"),
        Row("b", 2, 2, 1, 1.0, 0, b"b"),
    ]
    assert world.storage.write([Write(row) for row in rows]) == [False, True]
    assert world.storage.try_write([Write(msgspec.structs.replace(rows[1], first=3, last=3))]) is None


def test_a_run_begun_here_and_there_is_found_out(world: World) -> None:
    world.cut()
    ours = Writer(world.storage)
    assert ours.append("ours")
    world.clock.advance(1e-3)
    assert Writer(world.primary, owner=stranger()).append("theirs")
    world.mend()
    with pytest.raises(SplitHistoryError, match="other records from 0 on"):
        ours.append("back")
    assert texts(world.primary) == ["theirs"]


def paid(at: float, usd: float | None, iteration: int = 0) -> Result:
    return Result(at, 1, "generation", iteration, "model", text=f"text {at}", price_usd=usd)


def test_what_may_have_been_paid_twice_is_told(world: World) -> None:
    journal = Journal(world.storage)
    lease = journal.claim("a")
    journal.append(lease, [Opened(1.0, "a", "a prompt", parts=(), settings={}), paid(1.0, 9.0)])
    world.cut()
    journal.append(lease, [paid(2.0, 0.5), paid(2.0, None, 1), paid(2.0, 4.0, 2), paid(2.0, 3.0)])
    theirs = Journal(world.primary)
    entry = world.primary.entry("a")
    assert entry is not None
    assert world.primary.renew([Renewal("a", 1)]) == [True]
    other = theirs.claim("a")
    other.begin_at(2, load_whole(world.primary, "a").prev)
    theirs.append(other, [paid(3.0, 0.6), paid(3.0, 0.6, 1), Partial(3.0, 0, "x")])
    world.mend()
    with pytest.raises(SplitHistoryError, match=r"2 results may have been paid twice \(\$0\.50\)") as raised:
        journal.append(lease, [Partial(4.0, 0, "y")])
    assert (raised.value.repeats, raised.value.repeats_usd) == (2, 0.5)


def test_the_primarys_part_may_be_kept(world: World) -> None:
    a_run_across(world)
    grown(world)
    world.mend()
    assert world.storage.move_over() == ["a"]
    assert world.storage.keep_primary("a") == 3
    assert texts(world.storage) == [*across(3, 0), "theirs"]
    assert world.storage.complaints() == []
    assert world.is_empty()
    with pytest.raises(UsageError, match="nothing to choose"):
        world.storage.keep_primary("a")
    writer = Writer(world.storage)
    assert writer.claim()
    assert writer.append("goes on")


@pytest.mark.parametrize("dies", [False, True])
def test_the_journals_part_may_become_a_run_of_its_own(world: World, dies: bool) -> None:
    a_run_across(world)
    grown(world)
    world.mend()
    assert world.storage.move_over() == ["a"]
    if dies:
        for number in range(1, 40):
            switch = Switch(world.primary)
            switch.on_call = die_at(number, "after")
            try:
                FallbackStorage(switch, world.journal).keep_journal_as("a", "mine")
            except Died:
                continue
            break
    else:
        assert world.storage.keep_journal_as("a", "mine") == 6
    storage = world.restart()
    assert texts(storage, "mine") == across()
    assert texts(storage, "a") == [*across(3, 0), "theirs"]
    first = next(iter(read(storage, "mine")))
    assert isinstance(first, Opened)
    assert first.chain_id == "mine"
    writer = Writer(storage, "mine")
    assert writer.claim()
    assert writer.append("goes on")


def test_a_name_that_is_taken_is_not_overwritten(world: World) -> None:
    a_run_across(world)
    Writer(world.primary, "b").append("another")
    grown(world)
    world.mend()
    world.storage.move_over()
    with pytest.raises(UsageError, match="another run named 'b'"):
        world.storage.keep_journal_as("a", "b")
    assert texts(world.primary, "b") == ["another"]
    assert not world.is_empty()


def test_a_primary_that_was_put_in_order_gets_the_run(world: World) -> None:
    a_run_across(world)
    rows, entry = list(world.primary.rows("a")), world.primary.entry("a")
    assert entry is not None
    shrunk(world)
    world.mend()
    assert world.storage.move_over() == ["a"]
    found = world.primary.entry("a")
    assert found is not None
    world.primary.delete([found])
    opened = msgspec.structs.replace(entry, last=-1)
    assert all(world.primary.write([Write(rows[0], None, opened), *map(Write, rows[1:])]))
    assert world.storage.move_over() == []
    assert texts(world.primary) == across()


# Whole chains ------------------------------------------------------------------------------


class Model:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def generate(self, prompt: str, **_options: Any) -> str:
        self.calls += 1
        return f"text {self.calls} on {len(prompt)} characters"


def wanting(thought: Thought) -> CriticFeedback:
    return CriticFeedback(thought.iteration < 2, "more")


def chain(storage: Storage, model: Model) -> Chain:
    made = Chain(model, "a prompt", checkpoint_storage=storage, chain_id="a", clock=FakeClock())
    return made.improve_with(wanting)


APPENDS = 7
"""How many appends the chain makes; the first test checks it."""


def through_an_outage(world: World, begin: int, end: int, *, lose: bool, driver: str) -> Model:
    """Run the chain; the primary is away from append ``begin`` to append ``end``."""
    appends: list[int] = []

    def at(number: int, when: str) -> None:
        if when == "before":
            appends.append(number)
            if number == begin:
                world.switch.lose, world.switch.away = lose, not lose
            if number == end:
                world.mend()

    model = Model()
    made = chain(FaultyStorage(world.storage, at), model)
    thought = made.run() if driver == "sync" else asyncio.run(made.arun())
    assert thought.text.startswith("text 3 ")
    assert len(appends) >= APPENDS
    return model


@pytest.mark.parametrize("driver", ["sync", "async"])
@pytest.mark.parametrize("lose", [False, True])
def test_a_chain_runs_through_an_outage_that_begins_and_ends_at_any_append(lose: bool, driver: str) -> None:
    bare = InMemoryStorage()
    chain(bare, Model()).run()
    assert len(list(bare.rows("a"))) == APPENDS
    for begin_at in range(1, APPENDS + 1):
        for end_at in range(begin_at + 1, APPENDS + 2):
            clock = FakeClock()
            world = World(InMemoryStorage(clock=clock), InMemoryStorage(clock=clock), clock)
            model = through_an_outage(world, begin_at, end_at, lose=lose, driver=driver)
            assert model.calls == 3
            world.mend()
            assert world.storage.move_over() == []
            records = list(read(world.primary, "a"))
            assert isinstance(records[-1], Closed)
            assert len(records) == len(list(read(bare, "a")))
            entry = world.primary.entry("a")
            assert entry is not None
            assert (entry.status, entry.owner) == ("done", b"")


def certainly_dead(_owner: bytes) -> bool:
    return True


class Crashing(Model):
    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def generate(self, prompt: str, **options: Any) -> str:
        if self.calls + 1 == self._at:
            raise Died
        return super().generate(prompt, **options)


@pytest.mark.parametrize("back_first", [False, True])
@pytest.mark.parametrize("began", ["there", "here"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_chain_whose_process_died_in_the_outage_is_resumed(
    world: World, monkeypatch: pytest.MonkeyPatch, began: str, at: int, back_first: bool
) -> None:
    def cut(number: int, when: str) -> None:
        if (number, when) == (1 if began == "here" else 2, "before"):
            world.cut()

    if at == 1 and began == "there":
        return  # it dies before the outage
    with pytest.raises(Died):
        chain(FaultyStorage(world.storage, cut), Crashing(at)).run()
    storage = world.restart()
    monkeypatch.setattr("sifaka.storage.journal.is_dead", certainly_dead)
    monkeypatch.setattr("sifaka.storage.fallback.standby.is_dead", certainly_dead)
    if back_first:
        world.mend()
    elif began == "there":
        with pytest.raises(StoreUnreachableError, match="run 'a' has to wait"):
            chain(storage, Model()).run()
        world.mend()
    model = Model()
    thought = chain(storage, model).run()
    assert thought.passed
    assert model.calls == 4 - at
    world.mend()
    assert storage.move_over() == []
    texts_there = [one.text for one in read(world.primary, "a") if isinstance(one, Result) and one.text]
    assert len(texts_there) == 3


def test_a_chain_that_was_taken_over_elsewhere_halts_with_both_heads_named(world: World) -> None:
    def meddle(number: int, when: str) -> None:
        if (number, when) == (3, "before"):
            world.cut()
        if (number, when) == (5, "before"):
            entry = world.primary.entry("a")
            assert entry is not None
            assert world.primary.claim("a", entry.token, stranger(), world.clock.time() + LEASE_S)
            world.mend()

    with pytest.raises(SplitHistoryError, match="the fallback journal holds records"):
        chain(FaultyStorage(world.storage, meddle), Model()).run()


# A model of it -----------------------------------------------------------------------------

DEAD: set[bytes] = set()


def is_dead(owner: bytes) -> bool:
    return owner in DEAD


class Weather(RuleBasedStateMachine):
    """Machine 0 has two processes and a journal, machine 1 a process without one, and links break.

    Whatever happens, the primary's log is one whole history in which nothing stands twice, and what was
    acknowledged is there, in the journal, or was dropped by choice.
    """

    @initialize()
    def build(self) -> None:
        DEAD.clear()
        for module in (standby, handover):
            self.patched(module)
        self.clock = FakeClock()
        self.primary = InMemoryStorage(clock=self.clock)
        self.journal = InMemoryStorage(clock=self.clock)
        self.switches = [Switch(self.primary) for _ in range(2)]
        self.storages: list[Storage] = [FallbackStorage(one, self.journal) for one in self.switches]
        self.storages.append(self.primary)
        self.writers: dict[int, Writer] = {}
        self.count = 0
        self.kept: dict[str, int] = {}
        self.dropped: set[str] = set()

    def patched(self, module: Any) -> None:
        if not hasattr(self, "originals"):
            self.originals: list[tuple[Any, Any]] = []
        self.originals.append((module, module.is_dead))
        module.is_dead = is_dead

    def teardown(self) -> None:
        for module, original in getattr(self, "originals", []):
            module.is_dead = original

    @rule(
        action=st.sampled_from(
            ["go_on"] * 6
            + ["cut", "cut", "lose", "mend", "mend", "wait", "renew", "die", "die_in_a_handover"]
            + ["keep_primary"]
        ),
        process=st.sampled_from([0, 0, 1, 2]),
        number=st.integers(1, 12),
        flag=st.booleans(),
    )
    def step(self, action: str, process: int, number: int, flag: bool) -> None:
        """One rule: rules of their own would be left out of half of the runs, which need most of them."""
        if action == "go_on":
            self.go_on(process, 1 + number % 3, release=flag and number > 9)
        elif action in ("renew", "die"):
            getattr(self, action)(process)
        elif action == "die_in_a_handover":
            self.die_in_a_handover(process % 2, number, "after" if flag else "before")
        elif action == "mend":
            self.mend()
        elif action == "wait":
            self.clock.advance(2.0 if flag else 61.0)
        elif action == "keep_primary" and flag:
            self.keep_primary(process % 2)
        elif action in ("cut", "lose"):
            getattr(self, action)(process % 2)
        self.check()

    def go_on(self, process: int, texts: int, *, release: bool) -> None:
        """Append to the run, after claiming it where this process does not hold it."""
        try:
            if process not in self.writers and not self.claim(process):
                return
            for n in range(texts):
                if not self.append(process, release=release and n == texts - 1):
                    break
        except (StoreUnreachableError, SplitHistoryError):
            self.writers.pop(process, None)

    def claim(self, process: int) -> bool:
        """By the protocol: a run that is new, free, its owner's that died, or whose lease has ended."""
        self.count += 1
        writer = Writer(self.storages[process], owner=b"owner %d" % self.count)
        entry = writer.storage.entry("a")
        free = entry is None or not entry.owner or is_dead(entry.owner)
        has_ended = entry is not None and entry.lease_until <= writer.storage.now()
        if not (free or has_ended) or not writer.claim():
            return False
        self.writers[process] = writer
        return True

    def append(self, process: int, *, release: bool) -> bool:
        writer = self.writers[process]
        self.count += 1
        self.clock.advance(1e-3)
        text = f"{self.count}"
        change = Change("failed", self.clock.time(), release=True) if release else None
        accepted = writer.append(text, change)
        if accepted:
            self.kept[text] = writer.next - 1
        if release or not accepted:
            del self.writers[process]
        return accepted

    def cut(self, machine: int) -> None:
        self.switches[machine].away = True

    def lose(self, machine: int) -> None:
        self.switches[machine].lose = not self.switches[machine].away

    def mend(self) -> None:
        for switch in self.switches:
            switch.away = switch.lose = False
        self.clock.advance(2)

    def renew(self, process: int) -> None:
        writer = self.writers.get(process)
        if writer is not None:
            until = self.clock.time() + LEASE_S
            try:
                writer.storage.renew([Renewal("a", writer.token, writer.owner, until)])
            except StoreUnreachableError:
                return

    def die(self, process: int) -> None:
        writer = self.writers.pop(process, None)
        if writer is not None:
            DEAD.add(writer.owner)
        if process < 2:
            away = self.switches[process].away
            self.switches[process] = Switch(self.primary)
            self.switches[process].away = away
            self.storages[process] = FallbackStorage(self.switches[process], self.journal)

    def die_in_a_handover(self, process: int, number: int, when: str) -> None:
        switch, storage = self.switches[process], self.storages[process]
        assert isinstance(storage, FallbackStorage)
        switch.on_call = die_at(switch.calls + number, when)
        try:
            storage.move_over()
        except StoreUnreachableError:
            pass
        except Died:
            self.die(process)
        switch.on_call = lambda _number, _when: None

    def keep_primary(self, process: int) -> None:
        storage = self.storages[process]
        assert isinstance(storage, FallbackStorage)
        rows = list(self.journal.rows("a"))
        try:
            storage.keep_primary("a")
        except UsageError:
            return
        for row in rows:
            self.dropped |= {text for text, seq in self.kept.items() if row.first <= seq <= row.last}

    def check(self) -> None:
        there = texts(self.primary) if self.primary.entry("a") else []
        assert len(there) == len(set(there)), "something stands twice"
        here = self.said_here()
        for text, seq in self.kept.items():
            if text not in self.dropped:
                at = there[seq] if seq < len(there) else None
                assert text in (at, here.get(seq)), f"{text} is lost: {there} {here}"

    def said_here(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for row in self.journal.rows("a"):
            where = {"chain_id": "a", "first": row.first, "token": row.token}
            for record in fallback_decode(row.frame, **where):
                found[row.first] = str(record.prompt if isinstance(record, Opened) else record.text)
        return found


def fallback_decode(frame: bytes, **where: Any) -> list[Any]:
    from sifaka.log.codec import decode as decode_frame

    return list(decode_frame(frame, **where))


TestWeather = Weather.TestCase
TestWeather.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
