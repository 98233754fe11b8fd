"""Tiers: what is written is durable first, what the memory says is true, and a search may be down."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sifaka.chain import Chain
from sifaka.clock import Clock
from sifaka.errors import StorageError
from sifaka.log.records import Opened, Partial, Record
from sifaka.storage.base import Change, Entry, Renewal, Row, Storage, Write
from sifaka.storage.cached import CachedStorage
from sifaka.storage.journal import Journal
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.similarity import Case, Match, Similarity, SimilarityError
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.wrapper import StorageWrapper
from sifaka.testing import FakeClock, FaultyStorage
from sifaka.testing.contract import CONTRACT, Check


class Counting(StorageWrapper):
    """Lists the hooks that are called on it."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.calls: list[str] = []
        self.on_written: Callable[[], object] = lambda: None
        self.on_read: Callable[[], object] = lambda: None
        self.on_removal: Callable[[], object] = lambda: None
        self.on_renewal: Callable[[], object] = lambda: None

    def write(self, writes: Sequence[Write]) -> list[bool]:
        self.calls.append("write")
        done = super().write(writes)
        self.on_written()
        return done

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        self.calls.append("rows")
        found = super().rows(chain_id, first, last, newest_first=newest_first)
        self.on_read()
        return found

    def entry(self, chain_id: str) -> Entry | None:
        self.calls.append("entry")
        return super().entry(chain_id)

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        self.calls.append("renew")
        done = super().renew(renewals)
        self.on_renewal()
        return done

    def delete(self, entries: Sequence[Entry]) -> int:
        self.on_removal()
        return super().delete(entries)

    def trim(self, row: Row) -> int | None:
        self.on_removal()
        return super().trim(row)

    def reads(self) -> list[str]:
        reads = [call for call in self.calls if call in ("rows", "entry")]
        self.calls.clear()
        return reads


class Search(Similarity):
    """A search that can be down."""

    def __init__(self) -> None:
        self.down = False
        self.forgotten: list[str] = []

    def forget(self, chain_ids: Any) -> None:
        if self.down:
            raise SimilarityError("it is down")
        self.forgotten.extend(chain_ids)

    def keep(self, cases: Sequence[Case]) -> None:
        raise NotImplementedError

    def nearest(self, case: Case, limit: int = 10) -> list[Match]:
        raise NotImplementedError

    def count(self) -> int:
        return 0


def a_text(_prompt: str) -> str:
    return "a text"


def another(_prompt: str) -> str:
    return "another"


def opening(chain_id: str) -> list[Record]:
    return [Opened(1.0, chain_id, "a prompt", parts=(), settings={})]


def text(n: int) -> list[Record]:
    return [Partial(float(n), 0, f"text {n}")]


def tiers(**more: Any) -> tuple[CachedStorage, Counting]:
    persistence = Counting(InMemoryStorage(clock=FakeClock()))
    return CachedStorage(persistence=persistence, **more), persistence


def row(n: int, token: int = 1, chain_id: str = "a") -> Row:
    return Row(chain_id, n, n, token, float(n), 0, b"%d of %d" % (n, token))


def opens(until: float = 2e9, chain_id: str = "a") -> Write:
    return Write(row(0, chain_id=chain_id), None, Entry(chain_id, 1, b"me", until, opened_at=1.0))


# The contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory only", "over SQLite", "over memory", "two objects"])
@pytest.mark.parametrize("check", CONTRACT, ids=str)
def test_tiers_keep_the_contract(check: Check, kind: str, tmp_path: Path) -> None:
    memory: list[InMemoryStorage] = []
    shared: list[CachedStorage] = []
    opened: list[SQLiteStorage] = []

    def store(clock: Clock | None = None, /) -> Storage:
        if kind in ("memory only", "over memory") and not memory:
            memory.append(InMemoryStorage(clock=clock))
        if kind == "memory only":
            return CachedStorage(memory[0])
        if kind == "over memory":
            return CachedStorage(persistence=memory[0])
        if kind == "two objects" or not shared:
            opened.append(SQLiteStorage(tmp_path / "store.db", clock=clock))
            shared.append(CachedStorage(persistence=opened[-1]))
        return shared[-1]

    check(store)
    for one in opened:
        one.close()


# Reads hit memory --------------------------------------------------------------------------


def test_the_memory_only_form_keeps_everything_in_the_memory_storage() -> None:
    memory = InMemoryStorage()
    chain = Chain(a_text, prompt="a prompt", checkpoint_storage=CachedStorage(memory_storage=memory))
    chain.run()
    entry = memory.entry(chain.chain_id)
    assert entry is not None
    assert entry.status == "done"
    assert chain.get_checkpoint_history()


def test_what_a_holder_has_written_is_read_without_touching_the_persistence() -> None:
    storage, persistence = tiers()
    journal = Journal(storage)
    lease = journal.claim("a")
    journal.append(lease, opening("a"))
    for n in range(1, 30):
        journal.append(lease, text(n))
    persistence.reads()
    assert [one.first for one in storage.rows("a")] == list(range(30))
    assert [one.first for one in storage.rows("a", 20, newest_first=True)] == list(range(29, 19, -1))
    entry = storage.entry("a")
    assert persistence.reads() == []
    assert list(storage.rows("a")) == list(persistence.inner.rows("a"))
    assert entry == persistence.inner.entry("a")


def test_a_run_that_is_taken_up_is_read_from_the_persistence_once() -> None:
    storage, persistence = tiers()
    for n in range(100):
        assert persistence.write([opens() if n == 0 else Write(row(n))]) == [True]
    storage.now()
    for token in (1, 2):
        assert storage.claim("a", token, b"me", 2e9)
    assert storage.write([Write(row(100, 3))]) == [True]
    persistence.reads()
    assert len(list(storage.rows("a", 60))) == 41
    assert persistence.reads() == ["entry", "rows"]
    assert storage.write([Write(row(101, 3), Change("failed", 5.0, "why"))]) == [True]
    assert len(list(storage.rows("a", 60))) == 42
    assert storage.entry("a") == persistence.inner.entry("a")
    assert persistence.reads() == []


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("last", [None, 5, 40, 150])
@pytest.mark.parametrize("first", [0, 30, 45, 120])
def test_rows_that_memory_and_persistence_share_come_in_one_order(
    first: int, last: int | None, newest_first: bool
) -> None:
    storage, persistence = tiers()
    assert persistence.write([opens(), *(Write(row(n)) for n in range(1, 120))]) == [True] * 120
    storage.now()
    assert storage.claim("a", 1, b"me", 2e9)
    list(storage.rows("a"))
    persistence.reads()
    found = list(storage.rows("a", first, last, newest_first=newest_first))
    assert found == list(persistence.inner.rows("a", first, last, newest_first=newest_first))


def test_rows_behind_a_trimmed_one_are_kept_in_memory_and_it_is_not() -> None:
    storage, persistence = tiers()
    assert persistence.write([opens(), *(Write(row(n)) for n in range(1, 9))]) == [True] * 9
    storage.now()
    assert storage.claim("a", 1, b"me", 2e9)
    assert storage.trim(Row("a", 2, 4, 2, 4.0, 0, b"trimmed")) is not None
    assert storage.claim("a", 2, b"me", 2e9)
    assert list(storage.rows("a")) == list(persistence.inner.rows("a"))
    persistence.reads()
    assert list(storage.rows("a", 5)) == list(persistence.inner.rows("a", 5))
    assert persistence.reads() == []
    assert list(storage.rows("a")) == list(persistence.inner.rows("a"))


# What the memory must not say --------------------------------------------------------------


def test_a_refused_write_is_in_no_tier_and_the_run_is_asked_for_again() -> None:
    storage, persistence = tiers()
    storage.now()
    assert storage.write([opens()]) == [True]
    assert persistence.inner.claim("a", 1, b"they", 2e9)
    assert persistence.inner.write([Write(row(1, 2))]) == [True]
    assert storage.write([Write(row(1))]) == [False]
    assert [(one.first, one.token) for one in storage.rows("a")] == [(0, 1), (1, 2)]
    assert storage.entry("a") == persistence.inner.entry("a")


def test_another_objects_appends_are_seen_once_the_run_is_given_back() -> None:
    persistence = InMemoryStorage(clock=FakeClock())
    one, two = CachedStorage(persistence=persistence), CachedStorage(persistence=persistence)
    one.now()
    assert one.write([opens()]) == [True]
    assert one.renew([Renewal("a", 1)]) == [True]
    assert two.claim("a", 1, b"two", 2e9)
    assert two.write([Write(row(1, 2))]) == [True]
    for storage in (one, two):
        assert [found.first for found in storage.rows("a")] == [0, 1]
        assert storage.entry("a") == persistence.entry("a")


def test_a_run_given_back_by_its_last_append_is_the_persistences() -> None:
    storage, persistence = tiers()
    storage.now()
    assert storage.write([opens()]) == [True]
    assert storage.write([Write(row(1), Change("done", 3.0, release=True))]) == [True]
    persistence.reads()
    list(storage.rows("a"))
    assert persistence.reads() == ["rows"]


def test_the_memory_is_silent_once_the_lease_has_ended() -> None:
    clock = FakeClock()
    persistence = InMemoryStorage(clock=clock)
    storage = CachedStorage(persistence=persistence)
    assert storage.write([opens(until=storage.now() + 60)]) == [True]
    clock.advance(61)
    assert persistence.claim("a", 1, b"they", clock.time() + 60)
    assert persistence.write([Write(row(1, 2))]) == [True]
    assert [one.first for one in storage.rows("a")] == [0, 1]
    assert storage.entry("a") == persistence.entry("a")


def test_a_renewed_lease_lets_the_memory_answer_on() -> None:
    clock = FakeClock()
    persistence = Counting(InMemoryStorage(clock=clock))
    storage = CachedStorage(persistence=persistence)
    assert storage.write([opens(until=storage.now() + 60)]) == [True]
    clock.advance(50)
    assert storage.renew([Renewal("a", 1, b"me", storage.now() + 60)]) == [True]
    clock.advance(50)
    entry = storage.entry("a")
    assert persistence.reads() == []
    assert entry == persistence.inner.entry("a")


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_write_that_failed_the_persistence_is_asked(when: str, reset: bool) -> None:
    def fail(number: int, at: str) -> None:
        if (number, at) == (2, when):
            raise StorageError("the connection broke")

    persistence = InMemoryStorage(clock=FakeClock())
    storage = CachedStorage(persistence=FaultyStorage(persistence, fail))
    storage.now()
    assert storage.write([opens()]) == [True]
    with pytest.raises(StorageError):
        storage.write([Write(row(1))])
    if reset:
        storage.reset()
    stored = when == "after"
    assert len(list(storage.rows("a"))) == 1 + stored
    assert storage.write([Write(row(1 + stored))]) == [True]
    assert storage.renew([Renewal("a", 1, b"me", 2e9)]) == [True]
    assert list(storage.rows("a")) == list(persistence.rows("a"))


def test_who_reads_between_the_persistences_commit_and_the_memorys_sees_the_commit() -> None:
    storage, persistence = tiers()
    storage.now()
    assert storage.write([opens()]) == [True]
    seen: list[list[int]] = []

    def look() -> None:
        reader = threading.Thread(target=lambda: seen.append([one.first for one in storage.rows("a")]))
        reader.start()
        reader.join(10)

    persistence.on_written = look
    assert storage.write([Write(row(1))]) == [True]
    assert seen == [[0, 1]]


def test_two_writes_of_one_run_at_once_leave_no_wrong_memory() -> None:
    storage, persistence = tiers()
    storage.now()
    assert storage.write([opens()]) == [True]
    inner = threading.Thread(target=lambda: storage.write([Write(row(2))]))

    def second() -> None:
        persistence.on_written = lambda: None
        inner.start()
        inner.join(10)

    persistence.on_written = second
    assert storage.write([Write(row(1))]) == [True]
    assert storage.renew([Renewal("a", 1, b"me", 2e9)]) == [True]
    assert [one.first for one in storage.rows("a")] == [0, 1, 2]


def test_a_run_that_grew_while_it_was_taken_in_is_not_taken_in_as_it_was() -> None:
    storage, persistence = tiers()
    assert persistence.write([opens()]) == [True]
    storage.now()
    assert storage.claim("a", 1, b"me", 2e9)

    def grow() -> None:
        persistence.on_read = lambda: None
        assert storage.write([Write(row(1, 2))]) == [True]

    persistence.on_read = grow
    list(storage.rows("a"))
    assert [one.first for one in storage.rows("a")] == [0, 1]


def test_two_renewals_at_once_leave_no_wrong_memory() -> None:
    storage, persistence = tiers()
    storage.now()
    assert storage.write([opens()]) == [True]

    def second() -> None:
        persistence.on_renewal = lambda: None
        assert storage.renew([Renewal("a", 1, b"me", 2.2e9)]) == [True]

    persistence.on_renewal = second
    assert storage.renew([Renewal("a", 1, b"me", 2.1e9)]) == [True]
    assert storage.entry("a") == persistence.inner.entry("a")


@pytest.mark.parametrize("how", ["delete", "trim"])
def test_what_was_read_amid_a_removal_is_not_remembered(how: str) -> None:
    storage, persistence = tiers()
    storage.now()
    assert storage.write([opens(), *(Write(row(n)) for n in range(1, 6))]) == [True] * 6

    def amid() -> None:
        assert storage.write([Write(row(6))]) == [True]
        assert storage.renew([Renewal("a", 1, b"me", 2e9)]) == [True]
        assert len(list(storage.rows("a"))) == 7

    persistence.on_removal = amid
    if how == "trim":
        assert storage.trim(Row("a", 1, 3, 1, 3.0, 0, b"trimmed")) == 0
    else:
        storage.delete([Entry("a", 1)])
    assert storage.entry("a") == persistence.inner.entry("a")
    assert list(storage.rows("a")) == list(persistence.inner.rows("a"))


def test_a_deleted_run_is_in_no_tier_also_when_it_is_begun_anew() -> None:
    storage, persistence = tiers()
    storage.now()
    assert storage.write([opens(), Write(row(1))]) == [True, True]
    entry = storage.entry("a")
    assert entry is not None
    storage.delete([entry])
    assert storage.entry("a") is None
    assert list(storage.rows("a")) == []
    assert storage.memory_storage.entry("a") is None
    assert storage.write([opens()]) == [True]
    assert list(storage.rows("a")) == list(persistence.inner.rows("a"))


def test_the_memory_keeps_no_more_runs_than_it_is_told_and_drops_the_longest_unused() -> None:
    storage, persistence = tiers(keep=2)
    storage.now()
    for chain_id in "abc":
        assert storage.write([opens(chain_id=chain_id)]) == [True]
        list(storage.rows("a"))
    kept = {chain_id for chain_id in "abc" if storage.memory_storage.entry(chain_id)}
    assert kept == {"a", "c"}
    persistence.reads()
    assert len(list(storage.rows("b"))) == 1
    assert persistence.reads() == ["rows"]


def test_a_memory_that_fails_fails_no_write() -> None:
    def fail(number: int, _at: str) -> None:
        if number > 1:
            raise StorageError("no room in the memory")

    persistence = InMemoryStorage(clock=FakeClock())
    storage = CachedStorage(FaultyStorage(InMemoryStorage(), fail), persistence)
    storage.now()
    assert storage.write([opens()]) == [True]
    assert storage.write([Write(row(1))]) == [True]
    assert storage.write([Write(row(2))]) == [True]
    assert list(storage.rows("a")) == list(persistence.rows("a"))


def test_a_fork_answers_for_none_of_its_parents_runs() -> None:
    storage, persistence = tiers()
    storage.now()
    assert storage.write([opens()]) == [True]
    persistence.reads()
    child = os.fork()
    if not child:
        list(storage.rows("a"))
        os._exit(0 if persistence.reads() == ["rows"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    list(storage.rows("a"))
    assert persistence.reads() == []


def test_a_chain_over_tiers_is_the_same_in_the_persistence(tmp_path: Path) -> None:
    persistence = SQLiteStorage(tmp_path / "store.db")
    storage = CachedStorage(persistence=persistence)
    chain = Chain(a_text, prompt="a prompt", checkpoint_storage=storage, chain_id="a")
    chain.run()
    assert storage.durability == "power"
    again = Chain(another, prompt="a prompt", checkpoint_storage=persistence, chain_id="a")
    assert again.run().text == "a text"
    persistence.close()


# The search --------------------------------------------------------------------------------


def test_the_search_forgets_what_is_deleted() -> None:
    search = Search()
    storage, _ = tiers(search=search)
    assert storage.write([opens()]) == [True]
    entry = storage.entry("a")
    assert entry is not None
    storage.delete([entry])
    assert search.forgotten == ["a"]
    assert storage.complaints() == []


def test_a_search_that_is_down_fails_no_deletion_and_is_told_later() -> None:
    search = Search()
    storage, persistence = tiers(search=search)
    assert storage.write([opens(chain_id="a"), opens(chain_id="b")]) == [True, True]
    first, second = (persistence.inner.entry(chain_id) for chain_id in "ab")
    assert first is not None
    assert second is not None
    search.down = True
    storage.delete([first])
    assert persistence.inner.entry("a") is None
    assert "1 deleted runs could not be forgotten" in storage.complaints()[0]
    search.down = False
    # The debt outlives the object: another one pays it.
    other = CachedStorage(persistence=persistence, search=search)
    other.delete([second])
    assert sorted(search.forgotten) == ["a", "b"]
    assert other.complaints() == []


# Agreement ---------------------------------------------------------------------------------


class Agreement(RuleBasedStateMachine):
    """Two objects share a persistence; after each step each tells what the persistence holds.

    Owners keep to the protocol: a run is claimed when it is free or its lease has ended.
    """

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.persistence = InMemoryStorage(clock=self.clock)
        self.objects = [CachedStorage(persistence=self.persistence, keep=2) for _ in range(2)]
        self.writers: dict[tuple[int, str], tuple[int, bytes]] = {}
        self.owners = 0

    runs = st.sampled_from(["a", "b", "c"])
    which = st.integers(0, 1)

    @rule(run=runs, which=which)
    def claim(self, run: str, which: int) -> None:
        storage = self.objects[which]
        self.owners += 1
        owner, until = b"%d" % self.owners, storage.now() + 60
        entry = storage.entry(run)
        if entry is None:
            write = Write(row(0, chain_id=run), None, Entry(run, 1, owner, until, opened_at=1.0))
            assert storage.write([write]) == [True]
            self.writers[which, run] = (1, owner)
        elif not entry.owner or entry.lease_until <= storage.now():
            assert storage.claim(run, entry.token, owner, until)
            self.writers[which, run] = (entry.token + 1, owner)
        self.agree()

    @rule(run=runs, which=which, count=st.integers(1, 40), release=st.booleans())
    def append(self, run: str, which: int, count: int, release: bool) -> None:
        token = self.writers.get((which, run), (0, b""))[0]
        entry = self.persistence.entry(run)
        if not token or entry is None:
            return
        change = Change("failed", self.clock.time(), release=release)
        rows = [row(entry.last + 1 + n, token, run) for n in range(count)]
        writes = [Write(one, change if one is rows[-1] else None) for one in rows]
        self.objects[which].write(writes)
        self.agree()

    @rule(run=runs, which=which, owned=st.booleans())
    def renew(self, run: str, which: int, owned: bool) -> None:
        token, owner = self.writers.get((which, run), (0, b""))
        storage = self.objects[which]
        storage.renew([Renewal(run, token, owner if owned else b"", storage.now() + 60 if owned else 0.0)])
        self.agree()

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.agree()

    @rule(run=runs, which=which)
    def remove(self, run: str, which: int) -> None:
        """Only who may have it in memory, or when nobody holds it."""
        entry = self.persistence.entry(run)
        if entry is not None and (not entry.owner or entry.lease_until <= self.clock.time()):
            self.objects[which].delete([entry])
            for one in range(2):  # a run begun anew has the same first token
                self.writers.pop((one, run), None)
        self.agree()

    @rule(run=runs, which=which, first=st.integers(0, 9), length=st.integers(1, 9))
    def trim(self, run: str, which: int, first: int, length: int) -> None:
        entry = self.persistence.entry(run)
        if entry is not None and (not entry.owner or entry.lease_until <= self.clock.time()):
            last = first + length
            self.objects[which].trim(Row(run, first, last, entry.token, 1.0, 0, b"trimmed"))
        self.agree()

    @rule(which=which)
    def reset(self, which: int) -> None:
        self.objects[which].reset()
        self.agree()

    def agree(self) -> None:
        for storage in self.objects:
            for run in "abc":
                assert storage.entry(run) == self.persistence.entry(run)
                assert list(storage.rows(run)) == list(self.persistence.rows(run))
                newest = list(storage.rows(run, 5, newest_first=True))
                assert newest == list(self.persistence.rows(run, 5, newest_first=True))


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
