"""What every store promises, on each of them: compare-and-append, leases, order, listing, clean-up."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sifaka import locks
from sifaka.chain import Chain
from sifaka.errors import (
    ChainIdError,
    DamagedRecordError,
    FencedError,
    FormatError,
    OwnedError,
    StorageError,
    StoreUnreachableError,
    UnknownChainError,
)
from sifaka.locks import LibraryLock
from sifaka.log.records import Opened, Partial, Record
from sifaka.storage import held
from sifaka.storage.base import Change, Query, Renewal, Storage, Write
from sifaka.storage.cached import CachedStorage
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.journal import Journal, Lease, check_chain_id
from sifaka.storage.leases import Owner, decode, is_dead, myself
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.reading import load_whole, read
from sifaka.storage.similarity.embedded import EmbeddedSimilarity
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.urls import open_storage
from sifaka.storage.wrapper import StorageWrapper
from sifaka.testing import FakeClock, FaultyStorage

Make = Callable[[], Storage]


@pytest.fixture(params=["memory", "sqlite", "cached", "faulty"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Opens the store under test; a second time it is the same one, opened again."""
    clock = FakeClock()
    memory = InMemoryStorage(clock=clock)
    opened: list[Storage] = []

    def sqlite() -> Storage:
        opened.append(SQLiteStorage(tmp_path / "store.db", clock=clock))
        return opened[-1]

    yield {
        "memory": lambda: memory,
        "sqlite": sqlite,
        "cached": lambda: CachedStorage(memory),
        "faulty": lambda: FaultyStorage(sqlite(), lambda _number, _when: None),
    }[request.param]
    for one in opened:
        one.close()


def opening(chain_id: str) -> list[Record]:
    return [Opened(1.0, chain_id, "a prompt", parts=(), settings={})]


def started(journal: Journal, chain_id: str = "a") -> Lease:
    lease = journal.claim(chain_id)
    journal.append(lease, opening(chain_id))
    return lease


def take_over(journal: Journal, chain_id: str = "a") -> Lease:
    """As if the owner were dead: a lease under the next token, at the log's end."""
    entry = journal.storage.entry(chain_id)
    assert entry is not None
    assert journal.storage.claim(chain_id, entry.token, myself(), journal.storage.now() + 60)
    lease = Lease(chain_id, entry.token + 1, myself(), journal.storage.now())
    loaded = load_whole(journal.storage, chain_id)
    lease.next_seq, lease.prev = loaded.state.next_seq, loaded.prev
    return lease


def test_what_was_appended_is_read_in_order_by_whoever_opens_the_store(make: Make) -> None:
    journal = Journal(make())
    lease = started(journal)
    more: list[Record] = [Partial(float(n), 0, f"text {n}") for n in range(2, 12)]
    for one in more[:5]:
        journal.append(lease, [one])
    journal.append(lease, more[5:])
    assert list(read(make(), "a")) == opening("a") + more
    assert list(read(make(), "a", last=3)) == (opening("a") + more)[:4]


def test_an_append_under_an_old_token_is_refused_and_changes_nothing(make: Make) -> None:
    journal = Journal(make())
    old = started(journal)
    new = take_over(journal)
    with pytest.raises(FencedError, match="token 1 is no longer the current one"):
        journal.append(old, [Partial(2.0, 0, "late")])
    journal.append(new, [Partial(3.0, 0, "mine")])
    assert list(read(make(), "a")) == [*opening("a"), Partial(3.0, 0, "mine")]


def test_an_append_at_the_wrong_place_is_refused(make: Make) -> None:
    journal = Journal(make())
    lease = started(journal)
    for place in (0, 2, 5):
        lease.next_seq = place
        lease.is_new = False
        with pytest.raises(FencedError):
            journal.append(lease, [Partial(2.0, 0, "x")])
    assert list(read(make(), "a")) == opening("a")


@given(st.lists(st.tuples(st.sampled_from(["append", "claim"]), st.integers(0, 1)), max_size=25))
@settings(max_examples=60)
def test_of_two_interleaved_writers_never_both_succeed(moves: list[tuple[str, int]]) -> None:
    storage = InMemoryStorage()
    journal = Journal(storage)
    leases: list[Lease] = [started(journal)] * 2
    owner, written = 0, 0
    leases[1] = Lease("a", 0, b"", 0.0)
    for number, (move, who) in enumerate(moves):
        if move == "claim":
            leases[who], owner = take_over(journal), who
            continue
        try:
            journal.append(leases[who], [Partial(float(number), 0, str(who))])
        except FencedError:
            assert who != owner
        else:
            assert who == owner
            written += 1
    assert len(list(read(storage, "a"))) == 1 + written


def test_a_batch_refuses_only_what_is_wrong_in_it(make: Make) -> None:
    journal = Journal(make())
    leases = [started(journal, name) for name in "abc"]
    take_over(journal, "b")

    async def go() -> list[BaseException | None]:
        appends = [journal.aappend(lease, [Partial(2.0, 0, "x")]) for lease in leases]
        return await asyncio.gather(*appends, return_exceptions=True)

    done = asyncio.run(go())
    assert [type(one) for one in done] == [type(None), FencedError, type(None)]
    assert [len(list(read(make(), name))) for name in "abc"] == [2, 1, 2]


def test_threads_and_tasks_append_to_one_store_at_once(make: Make) -> None:
    journal = Journal(make())

    def write(name: str) -> None:
        lease = started(journal, name)
        for n in range(20):
            journal.append(lease, [Partial(float(n), 0, name)])

    async def awrite(name: str) -> None:
        lease = await journal.aclaim(name)
        await journal.aappend(lease, opening(name))
        for n in range(20):
            await journal.aappend(lease, [Partial(float(n), 0, name)])

    async def many() -> None:
        await asyncio.gather(*(awrite(f"task {n}") for n in range(40)))

    threads = [threading.Thread(target=write, args=(f"thread {n}",)) for n in range(6)]
    threads.append(threading.Thread(target=asyncio.run, args=(many(),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [f"thread {n}" for n in range(6)] + [f"task {n}" for n in range(40)]
    for name in names:
        records = list(read(make(), name))
        assert len(records) == 21
        assert all(isinstance(one, Partial) and one.text == name for one in records[1:])


def test_a_living_owner_is_named_with_the_end_of_its_lease(make: Make) -> None:
    journal = Journal(make())
    started(journal)
    with pytest.raises(OwnedError, match=f"process {os.getpid()} on .* ends in 60 s") as caught:
        Journal(make()).claim("a")
    assert caught.value.until == journal.storage.now() + 60


def test_waiting_for_an_owner_ends_when_its_lease_does(make: Make) -> None:
    journal = Journal(make())
    started(journal)
    clock = journal.storage.clock
    begin = clock.time()
    lease = Journal(make()).claim("a", wait_s=90)
    assert lease.token == 2
    assert lease.took_over
    assert 60 <= clock.time() - begin <= 61
    waited = asyncio.run(Journal(make()).aclaim("a", wait_s=90))
    assert waited.token == 3


def test_a_lease_that_was_given_back_is_free_at_once(make: Make) -> None:
    journal = Journal(make())
    journal.release(started(journal))
    lease = Journal(make()).claim("a")
    assert not lease.took_over
    journal.append(Journal(make()).claim("b"), opening("b"), Change("failed", 1.0, release=True))
    assert not Journal(make()).claim("b").took_over


def test_a_renewed_lease_lasts_and_a_lost_one_is_known(make: Make) -> None:
    journal = Journal(make())
    lease = started(journal)
    clock = journal.storage.clock
    clock.sleep(50)
    journal.renew_leases()
    clock.sleep(50)
    with pytest.raises(OwnedError):
        Journal(make()).claim("a")
    take_over(journal)
    journal.renew_leases()
    assert lease.lost


DEAD = "import os, sys; from sifaka.storage.leases import myself; sys.stdout.buffer.write(myself())"


def test_an_owner_is_dead_only_where_that_is_certain() -> None:
    assert not is_dead(myself())
    ended = subprocess.run([sys.executable, "-c", DEAD], capture_output=True, check=True).stdout
    assert is_dead(ended)
    mine = decode(myself())
    variants = {
        "another boot": (msgspec.structs.replace(mine, boot="another"), True),
        "its process id, used again": (msgspec.structs.replace(mine, started="1"), True),
        "another host": (msgspec.structs.replace(decode(ended), host="another"), False),
        "another container": (msgspec.structs.replace(decode(ended), namespace="pid:[1]"), False),
        "a system that does not tell": (Owner(mine.host, 2**22, "", "", mine.namespace), False),
    }
    for name, (owner, dead) in variants.items():
        assert is_dead(msgspec.msgpack.encode(owner)) == dead, name


def test_a_dead_owner_is_taken_over_at_once(make: Make) -> None:
    ended = subprocess.run([sys.executable, "-c", DEAD], capture_output=True, check=True).stdout
    storage = make()
    journal = Journal(storage)
    lease = started(journal)
    assert storage.claim("a", lease.token, ended, storage.now() + 1_000)
    assert Journal(make()).claim("a").took_over


def test_a_run_is_interrupted_when_its_owner_is_gone(make: Make) -> None:
    store = CachedCheckpointStorage(make())
    lease = started(store.journal)

    def status() -> str:
        entry = store.get_chain("a")
        assert entry is not None
        return entry.status

    assert status() == "running"
    store.storage.clock.sleep(61)
    assert status() == "interrupted"
    store.journal.renew_leases()
    assert status() == "running"
    store.journal.release(lease)
    assert status() == "interrupted"
    assert [entry.status for entry in store.get_chains()] == ["interrupted"]
    assert store.get_storage_stats()["chains"] == {"interrupted": 1}
    assert store.get_chain("b") is None


def test_deleting_a_run_leaves_the_others(make: Make) -> None:
    storage = CachedCheckpointStorage(make())
    chains = [Chain(lambda _: "a text", "p", checkpoint_storage=storage, chain_id=name) for name in "ab"]
    for chain in chains:
        chain.run()
    before = storage.get_storage_stats()
    assert before["chains"] == {"done": 2}
    removed = storage.delete_chain("a")
    after = storage.get_storage_stats()
    assert removed == len(storage.get_checkpoints("b"))
    assert after["total_checkpoints"] == before["total_checkpoints"] - removed
    assert storage.get_checkpoints("a") == []
    with pytest.raises(UnknownChainError):
        storage.load("a")


def test_cleaning_up_spares_what_is_young_or_running(make: Make) -> None:
    store = CachedCheckpointStorage(make())
    clock = store.storage.clock
    running = store.journal.claim("running")
    store.journal.append(running, [Opened(clock.time(), "running", "p")])
    Chain(lambda _: "x", "p", checkpoint_storage=store, chain_id="old", clock=clock).run()
    clock.sleep(31 * 86_400)
    Chain(lambda _: "x", "p", checkpoint_storage=store, chain_id="young", clock=clock).run()
    count = len(store.get_checkpoints("old"))
    assert store.cleanup_old_checkpoints(max_age_days=30) == count
    assert store.cleanup_old_checkpoints(max_age_days=30) == 0
    assert {entry.chain_id for entry in store.get_chains()} == {"running", "young"}
    with pytest.raises(ValueError, match="must not be negative"):
        store.cleanup_old_checkpoints(max_age_days=-1)


@pytest.mark.parametrize("chain_id", ["", "x" * 201, "a\nb", "a\0b", "\x1b[31m", "\ud800", "a\u202eb"])
def test_ids_that_are_none_are_refused(chain_id: str) -> None:
    with pytest.raises(ChainIdError):
        check_chain_id(chain_id)


def test_a_failed_write_stores_nothing_and_a_lost_acknowledgement_is_found_out(tmp_path: Path) -> None:
    fail: list[str] = []

    def on_write(_number: int, when: str) -> None:
        if fail == [when]:
            fail.clear()
            raise StorageError("the disk is gone")

    storage = FaultyStorage(SQLiteStorage(tmp_path / "store.db"), on_write)
    journal = Journal(storage)
    lease = started(journal)
    fail[:] = ["before"]
    with pytest.raises(StorageError, match="the disk is gone"):
        journal.append(lease, [Partial(2.0, 0, "never stored")])
    fail[:] = ["after"]
    journal.append(lease, [Partial(3.0, 0, "stored, though nobody said so")])
    journal.append(lease, [Partial(4.0, 0, "next")])
    assert [one.at for one in read(storage, "a")] == [1.0, 3.0, 4.0]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_text_that_the_store_can_take_no_more_is_not_lost(*, asynchronous: bool) -> None:
    def full(number: int, _when: str) -> None:
        if number > 1:
            raise StorageError("the disk is full")

    chain = Chain(lambda _: "paid", "p", checkpoint_storage=FaultyStorage(InMemoryStorage(), full))
    with pytest.raises(StorageError, match="the disk is full") as caught:
        asyncio.run(chain.arun()) if asynchronous else chain.run()
    assert caught.value.thought is not None
    assert caught.value.thought.text == "paid"


# SQLite alone -------------------------------------------------------------------------------


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        journal = Journal(SQLiteStorage(tmp_path / "store.db"))
        for n in range(6):
            started(journal, f"run {n}")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


def test_every_commit_is_synced(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "store.db")
    started(Journal(storage))
    with storage._use() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_write_ahead_log_has_its_room_and_nothing_of_it_is_read(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "store.db")
    journal = Journal(storage)
    lease = started(journal)
    for n in range(8):
        journal.append(lease, [Partial(float(n), 0, "x")])
    assert (tmp_path / "store.db-wal").stat().st_size >= 1_000_000
    assert len(list(read(SQLiteStorage(tmp_path / "store.db"), "a"))) == 9
    storage.close()
    assert (tmp_path / "store.db").stat().st_size < 100_000


def test_a_store_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachableError, match="mkdir -p"):
        SQLiteStorage(tmp_path / "missing" / "store.db").entry("a")
    with pytest.raises(StoreUnreachableError):
        SQLiteStorage(tmp_path / "new.db", create=False).entry("a")
    assert not (tmp_path / "new.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreUnreachableError, match="no sifaka store"):
        SQLiteStorage(tmp_path / "empty.db", create=False).entry("a")
    assert (tmp_path / "empty.db").stat().st_size == 0
    (tmp_path / "text.db").write_text("this is no database, but a text that is long enough to be one\n" * 9)
    with pytest.raises(StoreUnreachableError, match="no sifaka store"):
        SQLiteStorage(tmp_path / "text.db").entry("a")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE chains (a)")
    other.close()
    with pytest.raises(StoreUnreachableError):
        SQLiteStorage(tmp_path / "other.db").entry("a")
    for url in ("http://x", "sqlite://", "sqlite:///", "nothing", "file:///x"):
        with pytest.raises(StoreUnreachableError, match=r"sqlite:///relative\.db"):
            open_storage(url)


def test_a_store_of_a_newer_version_is_left_untouched(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "store.db")
    started(Journal(storage))
    with storage._use() as connection:
        connection.execute("PRAGMA user_version=99")
    storage.close()
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(FormatError, match="install a newer sifaka"):
        SQLiteStorage(tmp_path / "store.db").entry("a")
    assert (tmp_path / "store.db").read_bytes() == before


def test_a_url_is_opened_once_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = open_storage("sqlite:///store.db")
    assert open_storage(f"sqlite:///{tmp_path}/store.db") is one
    assert open_storage("memory://") is open_storage("memory://")
    assert open_storage(None) is not open_storage(None)
    storage = InMemoryStorage()
    assert open_storage(storage) is open_storage(storage)
    assert open_storage(one) is one


def damage(path: Path, where: str) -> None:
    with sqlite3.connect(path) as connection:
        if where == "bit":
            (frame,) = connection.execute("SELECT frame FROM log WHERE first > 3 LIMIT 1").fetchone()
            broken = bytes([*frame[:-1], frame[-1] ^ 1])
            connection.execute("UPDATE log SET frame = ? WHERE frame = ?", (broken, frame))
        elif where == "middle":
            connection.execute("DELETE FROM log WHERE first = (SELECT min(first) FROM log WHERE first > 3)")
        elif where == "swap":
            connection.execute("UPDATE log SET token = 7 WHERE first > 3")
    connection.close()


@pytest.mark.parametrize("where", ["bit", "middle", "swap"])
def test_damage_is_found_and_named_and_the_sound_part_goes_on(tmp_path: Path, where: str) -> None:
    path = tmp_path / "store.db"
    chain = Chain(lambda _: "a text", "p", checkpoint_storage=SQLiteStorage(path), chain_id="a")
    chain.improve_with(lambda _: {"needs_improvement": True, "message": "more"})
    chain.run()
    damage(path, where)
    store = CachedCheckpointStorage(SQLiteStorage(path))
    with pytest.raises(DamagedRecordError, match=r"fork\(before=") as caught:
        list(store.records("a"))
    first = caught.value.first
    assert first > 3
    again = Chain(lambda _: "another text", "p", checkpoint_storage=store)
    again.improve_with(lambda _: {"needs_improvement": False, "message": ""})
    fork = again.fork("a", before=first)
    assert fork.run().text in {"a text", "another text"}


# What must not happen between threads, forks and failures ------------------------------------


def test_no_append_is_acknowledged_without_being_written(make: Make) -> None:
    """Threads whose appends are committed by one another, switched as often as can be."""
    journal = Journal(make())
    names = [f"run {n}" for n in range(40)]
    failed: list[BaseException] = []

    def work(mine: list[str]) -> None:
        try:
            for name in mine:
                lease = started(journal, name)
                for n in range(5):
                    journal.append(lease, [Partial(float(n), 0, name)])
        except BaseException as error:
            failed.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(names[n::8],)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failed == []
    assert [len(list(read(make(), name))) for name in names] == [6] * len(names)


class Slow(StorageWrapper):
    """Holds the first write until it is let go, so that others have to wait behind it."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.batches: list[int] = []
        self.interrupt = False
        self.entered, self.go_on = threading.Event(), threading.Event()

    def write(self, writes: Sequence[Write]) -> list[bool]:
        self.batches.append(len(writes))
        if len(self.batches) == 4:
            self.entered.set()
            assert self.go_on.wait(10)
        if self.interrupt and len(self.batches) == 5:
            raise KeyboardInterrupt
        return super().write(writes)


@pytest.mark.parametrize("interrupt", [False, True])
def test_threads_that_wait_behind_a_commit_share_the_next(*, interrupt: bool) -> None:
    storage = Slow(InMemoryStorage())
    storage.interrupt = interrupt
    journal = Journal(storage)
    leases = [started(journal, name) for name in "abc"]
    ended: list[type[BaseException]] = []

    def append(lease: Lease) -> None:
        try:
            journal.append(lease, [Partial(2.0, 0, lease.chain_id)])
        except BaseException as error:
            ended.append(type(error))

    threads = [threading.Thread(target=append, args=(lease,)) for lease in leases]
    threads[0].start()
    assert storage.entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(journal._commits._queue) < 2:
        pass
    storage.go_on.set()
    for thread in threads:
        thread.join()
    assert storage.batches == [1, 1, 1, 1, 2]
    written = [2, 1, 1] if interrupt else [2, 2, 2]
    assert [len(list(read(storage, name))) for name in "abc"] == written
    assert set(ended) == ({KeyboardInterrupt, StorageError} if interrupt else set())


def test_another_append_in_its_place_is_not_taken_for_an_acknowledged_one() -> None:
    storage = InMemoryStorage()
    fail = [False]

    def on_write(_number: int, when: str) -> None:
        if fail[0] and when == "before":
            fail[0] = False
            thief = take_over(Journal(storage))
            Journal(storage).append(thief, [Partial(9.0, 0, "theirs")])
            raise StorageError("the connection is gone")

    journal = Journal(FaultyStorage(storage, on_write))
    lease = started(journal)
    fail[0] = True
    with pytest.raises(StorageError, match="the connection is gone"):
        journal.append(lease, [Partial(2.0, 0, "mine")])
    assert list(read(storage, "a"))[1:] == [Partial(9.0, 0, "theirs")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConnectionError])
@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_a_store_raises_nobody_is_left_waiting(error: type[BaseException], when: str) -> None:
    fail = [False]

    def on_write(_number: int, now: str) -> None:
        if fail[0] and now == when:
            fail[0] = False
            raise error

    storage = FaultyStorage(InMemoryStorage(), on_write)
    journal = Journal(storage)

    async def go() -> list[BaseException | None]:
        leases = [await journal.aclaim(name) for name in "ab"]
        for lease in leases:
            await journal.aappend(lease, opening(lease.chain_id))
        fail[0] = True
        appends = [journal.aappend(lease, [Partial(2.0, 0, "x")]) for lease in leases]
        return await asyncio.wait_for(asyncio.gather(*appends, return_exceptions=True), 5)

    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(go())
    else:
        kinds = {type(one) for one in asyncio.run(go())}
        assert kinds == ({StorageError} if when == "before" else {type(None)})
    found = [len(list(read(storage, name))) for name in "ab"]
    assert found == ([1, 1] if when == "before" else [2, 2])


def test_a_failed_commit_closes_the_connection(tmp_path: Path) -> None:
    resets: list[int] = []

    class Watched(SQLiteStorage):
        def reset(self) -> None:
            resets.append(1)
            super().reset()

    fail = [False]

    def on_write(_number: int, when: str) -> None:
        if fail[0] and when == "after":
            raise StorageError("the sync failed")

    storage = FaultyStorage(Watched(tmp_path / "store.db"), on_write)
    journal = Journal(storage)
    lease = started(journal)
    fail[0] = True
    journal.append(lease, [Partial(2.0, 0, "x")])
    assert resets == [1]


def test_the_thread_that_renews_does_so_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = threading.Event()

    class Watched(InMemoryStorage):
        def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
            if any(one.owner for one in renewals):
                renewed.set()
            return super().renew(renewals)

    journal = Journal(Watched(), lease_s=0.03)
    lease = started(journal)
    assert renewed.wait(10), "nobody renewed the lease"
    journal.release(lease)
    (keepers,) = [one for one in threading.enumerate() if one.name == "sifaka-leases"] or [None]
    if keepers is not None and not held._rounds().keepers.keys() - {journal._keeper}:
        keepers.join(10)
        assert not keepers.is_alive(), "the thread outlives the leases"


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAD], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        owner = process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody buried it
        assert is_dead(owner)


CHILD_S = 20
"""How long the child of a fork may take, in seconds: one that hangs is killed, and seen."""


def in_child(work: Callable[[], object]) -> int:
    """What became of ``work`` in the child of a fork: 0 if it returned, 1 if it raised, -14 if it hung."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # no handler in Python, which a hung child never runs
        signal.alarm(CHILD_S)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_an_unprepared_fork_uses_a_connection_of_its_own(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "store.db")
    journal = Journal(storage)
    started(journal, "parent")
    assert in_child(lambda: started(Journal(storage), "child")) == 0
    started(journal, "parent again")
    found = {entry.chain_id for entry in SQLiteStorage(tmp_path / "store.db").entries(Query())}
    assert found == {"parent", "child", "parent again"}


def test_the_child_of_a_fork_closes_no_connection_of_its_parents(tmp_path: Path) -> None:
    journal = Journal(SQLiteStorage(tmp_path / "store.db"))
    lease = started(journal)
    closed = SQLiteStorage(tmp_path / "store.db")
    opened: list[object] = [closed, SQLiteStorage(tmp_path / "b.db"), EmbeddedSimilarity(tmp_path / "c.db")]
    for n in (0, 1):
        cast("SQLiteStorage", opened[n]).entry("a")

    def count() -> int:
        folder = Path("/proc/self/fd")
        return sum(one.resolve().parent == tmp_path for one in folder.iterdir())

    def drop() -> None:
        before = count()
        closed.close()
        opened.clear()
        gc.collect()
        assert count() == before > 0

    assert in_child(drop) == 0
    journal.append(lease, [Partial(2.0, 0, "x")])


def test_a_fork_beside_threads_that_open_use_and_drop_stores_does_not_hang_its_child(tmp_path: Path) -> None:
    stop = threading.Event()

    def use(name: str) -> SQLiteStorage:
        storage = SQLiteStorage(tmp_path / name)
        storage.entries(Query(limit=1))
        return storage

    def collect() -> None:
        storage: Any = use("collected")
        storage.itself = storage
        del storage
        gc.collect(0)

    def search() -> None:
        EmbeddedSimilarity(tmp_path / "searched").count()

    def again_and_again(work: Callable[[], object]) -> None:
        while not stop.is_set():
            work()

    works = (lambda: use("dropped"), collect, search)
    threads = [threading.Thread(target=again_and_again, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        for n in range(40):
            assert in_child(lambda: use("child")) == 0, f"fork {n}"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_fork_waits_for_calls_into_a_library_and_lets_none_begin() -> None:
    inside: list[str] = []
    begun, is_second_in = threading.Event(), threading.Event()

    def go_in(name: str, then: Callable[[], object]) -> None:
        with LibraryLock():
            inside.append(name)
            then()
            inside.remove(name)

    def first() -> None:
        begun.set()
        while locks._fork.gate.acquire(blocking=False):  # until the fork is under way
            locks._fork.gate.release()
        second.start()
        is_second_in.wait(0.1)

    second = threading.Thread(target=go_in, args=("second", is_second_in.set))
    thread = threading.Thread(target=go_in, args=("first", first))
    thread.start()
    begun.wait()

    def look() -> None:
        assert not inside
        go_in("child", lambda: None)

    assert in_child(look) == 0
    thread.join()
    second.join()
    assert is_second_in.is_set()


def test_who_is_inside_a_library_may_drop_a_store_while_a_fork_waits() -> None:
    begun = threading.Event()

    def work() -> None:
        with LibraryLock():
            begun.set()
            while locks._fork.gate.acquire(blocking=False):
                locks._fork.gate.release()
            with LibraryLock():  # as the garbage collector does
                pass

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    at = time.monotonic()
    assert in_child(lambda: None) == 0
    thread.join()
    assert time.monotonic() - at < locks.FORK_WAITS_S


def test_a_fork_among_running_threads_does_not_hang_the_child(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "store.db")
    journal = Journal(storage)
    stop = threading.Event()

    def work(name: str) -> None:
        lease = started(journal, name)
        while not stop.is_set():
            journal.append(lease, [Partial(2.0, 0, name)])

    threads = [threading.Thread(target=work, args=(f"thread {n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for n in range(10):
            assert in_child(lambda n=n: started(journal, f"child {n}")) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_reader_in_the_middle_does_not_keep_its_process_from_writing(tmp_path: Path) -> None:
    mine, other = SQLiteStorage(tmp_path / "store.db"), SQLiteStorage(tmp_path / "store.db")
    journal = Journal(mine)
    lease = started(journal)
    for n in range(30):
        journal.append(lease, [Partial(float(n), 0, "x")])
    reader = mine.rows("a")
    next(reader)
    started(Journal(other), "other")
    journal.append(lease, [Partial(99.0, 0, "x")])
    assert len(list(reader)) >= 30


def test_a_store_that_another_process_writes_to_does_not_block_the_event_loop(tmp_path: Path) -> None:
    journal = Journal(SQLiteStorage(tmp_path / "store.db"))
    blocker = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)

    async def go() -> None:
        lease = await journal.aclaim("a")
        await journal.aappend(lease, opening("a"))
        blocker.execute("BEGIN IMMEDIATE")
        append = asyncio.create_task(journal.aappend(lease, [Partial(2.0, 0, "x")]))
        for _ in range(100):
            await asyncio.sleep(0)  # the loop goes round while the append waits
        assert not append.done()
        blocker.execute("ROLLBACK")
        await asyncio.wait_for(append, 10)

    asyncio.run(go())
    blocker.close()
    assert len(list(read(SQLiteStorage(tmp_path / "store.db"), "a"))) == 2


def test_a_file_that_was_deleted_or_moved_is_noticed_when_a_run_begins(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path / "store.db")
    started(Journal(storage))
    (tmp_path / "store.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(StoreUnreachableError, match="moved or deleted"):
        Journal(storage).claim("b")


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = SQLiteStorage("store.db")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    started(Journal(storage))
    assert (tmp_path / "store.db").exists()


def test_a_run_that_could_not_be_given_back_is_free_for_who_let_it_go() -> None:
    class Gone(InMemoryStorage):
        away = False

        def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
            if self.away:
                raise StorageError("the disk is full")
            return super().renew(renewals)

    storage = Gone()
    journal = Journal(storage)
    lease = started(journal)
    storage.away = True
    journal.release(lease)
    assert journal.claim("a").token == 2
    with pytest.raises(OwnedError):
        journal.claim("a")


def test_looking_at_a_missing_store_decides_nothing_for_who_comes_to_write(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/later.db"
    with pytest.raises(StoreUnreachableError):
        open_storage(url, create=False).storage.entry("a")
    assert Chain(lambda _: "a text", "p", checkpoint_storage=url).run().text == "a text"
    with pytest.raises(StoreUnreachableError, match="memory://"):
        open_storage("sqlite:///:memory:")
