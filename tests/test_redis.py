"""The Redis store where it is more than any store: its server's death, its settings, its network."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hammer import Hammer, begin, cut_everywhere, opening, row, texts
from proxy import Proxy
from sifaka.errors import (
    FencedError,
    FormatError,
    MissingExtraError,
    StorageError,
    StoreUnreachableError,
    UsageError,
)
from sifaka.log.records import Partial
from sifaka.storage.base import Change, Durability, Entry, Query, Renewal, Write
from sifaka.storage.durability import DurabilityWarning
from sifaka.storage.journal import Journal
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.reading import load_whole
from sifaka.storage.redis import RedisStorage
from sifaka.storage.redis.packing import command
from sifaka.testing import FakeClock
from sifaka.testing.servers.redis import RedisServer, redis_program

pytestmark = [
    pytest.mark.skipif(redis_program() is None, reason="no Redis server is installed"),
    # From Python 3.12 on a fork beside threads is warned of; that it does no harm here is what is tested.
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]
redis = pytest.importorskip("redis")

Open = Callable[..., RedisStorage]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def quick() -> Iterator[RedisServer]:
    """A server for all tests that do not harm it; it syncs nothing."""
    with RedisServer(appendfsync="no") as server:
        yield server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of a test's own, which syncs each write."""
    with RedisServer() as one:
        yield one


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens stores, and closes them in the end."""
    made: list[RedisStorage] = []

    def build(url: str, **options: Any) -> RedisStorage:
        made.append(RedisStorage(url, **({"durability": "process"} | options)))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture
def store(quick: RedisServer, opened: Open) -> RedisStorage:
    return opened(quick.url, namespace=f"test {next(_numbers)}")


@pytest.fixture
def client(quick: RedisServer) -> Iterator[Any]:
    with redis.Redis(port=quick.port, protocol=2) as one:
        yield one


STATUSES = ("running", "waiting", "failed", "done")
IDS = ("a", "b\u00e9", "z{x}", ":", "\U0001f600", "\uffee", "run:1", "a b")
"""The last but three sort differently as UTF-16 and as bytes."""


class Twins:
    """The memory model and Redis: the same is done to both, and both must answer the same."""

    def __init__(self, model: InMemoryStorage, store: RedisStorage, seed: int) -> None:
        self.model = model
        self.store = store
        self.random = random.Random(seed)

    def both(self, hook: str, *args: Any, **options: Any) -> Any:
        expected, got = (getattr(one, hook)(*args, **options) for one in (self.model, self.store))
        if hook == "rows":
            expected, got = list(expected), list(got)
        if hook == "measure":
            assert got.pop("storage_size_bytes") >= 0
            del expected["storage_size_bytes"]
        assert got == expected, (hook, args, options)
        return expected

    def one_of(self, *values: Any) -> Any:
        return self.random.choice(values)

    def moment(self) -> float:
        return self.one_of(1.0, 2.5, self.random.random() * 10, 1e9 + self.random.random(), 0.1 + 0.2)

    def slip(self) -> int:
        """Now and then a number that is one off."""
        return self.one_of(*[0] * 9, 1)

    def a_write(self) -> Write:
        chain_id = self.one_of(*IDS)
        there = self.model.entry(chain_id)
        opens = None
        first, token = (0, 1) if there is None else (there.last + 1 + self.slip(), there.token + self.slip())
        if there is None or not self.random.randrange(10):
            first, token = self.one_of(0, 0, 5), 1
            opens = Entry(
                chain_id,
                owner=b"me",
                lease_until=self.moment(),
                label=self.one_of("", "L", "M"),
                group=self.one_of("", "g"),
                updated_at=self.moment(),
                last=first - 1 + self.slip(),
            )
        change = Change(
            self.one_of(*STATUSES),
            self.moment(),
            self.one_of("", "why"),
            self.one_of("", "g", "h"),
            self.moment(),
            release=self.one_of(True, False),
        )
        new = row(
            chain_id,
            first,
            token,
            last=first + self.random.randrange(3),
            at=self.moment(),
            checkpoints=self.one_of(0, 0, 1, 2),
            frame=self.random.randbytes(self.random.randrange(200)),
            raw=self.random.randrange(500),
        )
        return Write(new, self.one_of(None, change), opens)

    def write(self) -> None:
        self.both("write", [self.a_write() for _ in range(self.one_of(1, 1, 2, 5))])

    def list_(self) -> None:
        there = self.model.entries(Query())
        self.both(
            "entries",
            Query(
                statuses=self.one_of(None, ("running",), ("waiting", "done"), STATUSES, ()),
                group=self.one_of(None, None, "g", "h", ""),
                label=self.one_of(None, None, "L", ""),
                updated_before=self.one_of(None, None, self.moment()),
                updated_since=self.one_of(None, None, self.moment()),
                after=self.one_of(None, *there),
                limit=self.one_of(1, 2, 50),
            ),
        )

    def read(self) -> None:
        last = self.one_of(None, self.random.randrange(12))
        first = self.random.randrange(12)
        self.both("rows", self.one_of(*IDS), first, last, newest_first=self.one_of(True, False))
        self.both("entry", self.one_of(*IDS))

    def own(self) -> None:
        one, two = (self.model.entry(self.one_of(*IDS)) or Entry("none") for _ in range(2))
        owner = self.one_of(b"me", b"you")
        self.both("claim", one.chain_id, one.token + self.slip(), owner, self.moment())
        renewal = Renewal(two.chain_id, two.token + self.slip(), self.one_of(b"", b"me"), self.moment())
        self.both("renew", [renewal, Renewal(one.chain_id, one.token, owner, self.moment())])

    def remove(self) -> None:
        there = [
            msgspec.structs.replace(one, token=one.token + self.slip()) for one in self.model.entries(Query())
        ]
        self.both("delete", self.random.sample(there, min(len(there), self.one_of(0, 1, 2))))

    def trim(self) -> None:
        chain_id = self.one_of(*IDS)
        rows = list(self.model.rows(chain_id))
        there = self.model.entry(chain_id)
        if there is not None:
            at = self.random.randrange(len(rows))
            end = min(len(rows) - 1, at + self.random.randrange(4))
            new = row(
                chain_id,
                rows[at].first + self.slip(),
                there.token + self.slip(),
                last=rows[end].last + self.slip(),
                at=self.moment(),
                checkpoints=self.one_of(0, 0, 1),
                frame=b"trimmed",
            )
            self.both("trim", new)

    def share(self) -> None:
        name = self.one_of("a", "ab", "b", "\U0001f600", "\uffee")
        version = self.model.cells([name])[0].version + self.one_of(0, 0, 1, -1)
        self.both("swap", name, self.random.randbytes(9), version)
        self.both("cells", [name, "none"])
        prefix, after = self.one_of("", "a", "ab", "\U0001f600"), self.one_of("", "a", "ab", "b")
        self.both("cell_names", prefix, after, self.one_of(1, 500))

    def step(self) -> None:
        deeds = (self.write,) * 8 + (
            self.list_,
            self.list_,
            self.read,
            self.own,
            self.trim,
            self.share,
            self.remove,
        )
        self.one_of(*deeds)()
        self.both("measure")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_done_it_answers_as_the_memory_model_does(store: RedisStorage, seed: int) -> None:
    twins = Twins(InMemoryStorage(), store, seed)
    for _ in range(100):
        twins.step()
    twins.both("entries", Query(limit=1_000))
    for chain_id in IDS:
        twins.both("rows", chain_id)


# Fence -------------------------------------------------------------------------------------


def test_of_many_threads_at_one_place_one_is_accepted(quick: RedisServer, opened: Open) -> None:
    stores = [opened(quick.url, namespace="threads") for _ in range(4)]
    assert stores[0].write([opening("a")]) == [True]
    for place in range(1, 76):
        barrier, won = threading.Barrier(4), []

        def race(store: RedisStorage, place: int = place, barrier: Any = barrier, won: Any = won) -> None:
            barrier.wait()
            won += store.write([Write(row("a", place))])

        threads = [threading.Thread(target=race, args=(one,)) for one in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False, False, False, True]
    assert len(list(stores[0].rows("a"))) == 76


def _append_on(url: str, name: bytes, start: Any, out: Any) -> None:
    store = RedisStorage(url, namespace="processes", durability="process")
    start.wait()
    won = [place for place in range(1, 300) if store.write([Write(row("a", place, frame=name))]) == [True]]
    out.put((name, won))
    store.close()


def test_of_two_processes_at_one_place_one_is_accepted(quick: RedisServer, opened: Open) -> None:
    store = opened(quick.url, namespace="processes")
    store.write([opening("a")])
    context = multiprocessing.get_context("fork")
    start, out = context.Barrier(2), context.Queue()
    both = [context.Process(target=_append_on, args=(quick.url, name, start, out)) for name in (b"x", b"y")]
    for one in both:
        one.start()
    won = dict(out.get(timeout=60) for _ in both)
    for one in both:
        one.join()
    found = {name: [one.first for one in store.rows("a", 1) if one.frame == name] for name in (b"x", b"y")}
    assert won == found
    assert sorted(found[b"x"] + found[b"y"]) == list(range(1, len(found[b"x"]) + len(found[b"y"]) + 1))


def test_a_claim_under_way_fences_off_every_later_append(store: RedisStorage) -> None:
    store.write([opening("a")])
    assert store.claim("a", 1, b"you", 5.0)
    assert not store.claim("a", 1, b"me", 5.0)
    assert store.write([Write(row("a", 1)), Write(row("a", 1, 2)), Write(row("a", 2))]) == [
        False,
        True,
        False,
    ]


def test_a_fork_uses_connections_of_its_own(store: RedisStorage, client: Any) -> None:
    store.write([opening("a")])
    before = client.info("clients")["connected_clients"]
    child = os.fork()
    if not child:
        code = 1
        with suppress(BaseException):
            code = 0 if store.write([Write(row("a", 1))]) == [True] else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.write([Write(row("a", 2))]) == [True]
    assert client.info("clients")["connected_clients"] == before


def test_a_fork_does_not_wait_for_a_lock_that_another_thread_held(store: RedisStorage) -> None:
    store.write([opening("a")])
    pool = store._link.client().connection_pool
    is_held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with pool._fork_lock, pool._lock:
            is_held.set()
            let_go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os._exit(0 if store.write([Write(row("a", 1))]) == [True] else 2)
        os._exit(1)
    let_go.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# The server's death ------------------------------------------------------------------------


def test_an_append_goes_on_by_itself_when_the_server_is_back(server: RedisServer, opened: Open) -> None:
    journal = Journal(opened(server.url, durability="power"))
    lease = begin(journal)
    journal.append(lease, [Partial(2.0, 0, "before")])
    server.kill()
    back = threading.Timer(0.3, server.start)
    back.start()
    journal.append(lease, [Partial(3.0, 0, "after")])
    back.join()
    assert texts(journal.storage) == ["before", "after"]
    journal.release(lease)


def test_a_server_that_stays_away_is_an_error_after_the_patience_and_the_run_can_go_on(
    server: RedisServer, opened: Open
) -> None:
    journal = Journal(opened(server.url, patience_s=0.2))
    lease = begin(journal)
    server.kill()
    with pytest.raises(StoreUnreachableError, match=r"127\.0\.0\.1"):
        journal.append(lease, [Partial(2.0, 0, "lost")])
    server.start()
    journal.append(lease, [Partial(3.0, 0, "found")])
    assert texts(journal.storage) == ["found"]
    journal.release(lease)


def test_a_hundred_deaths_of_the_server_amid_commits_lose_nothing_acknowledged(
    server: RedisServer, opened: Open
) -> None:
    hammer = Hammer(Journal(opened(server.url, durability="power", patience_s=60.0)))
    chance, deaths, ends_at = random.Random(4), 0, time.monotonic() + 40
    while deaths < 100 and time.monotonic() < ends_at and not hammer.failures:
        hammer.advance()  # an append of this server's life got through
        time.sleep(chance.random() * 0.003)
        server.kill()
        server.start()
        deaths += 1
    hammer.stop()
    assert deaths >= 50, f"only {deaths} deaths in 40 s"
    print(f"{deaths} deaths of the server, {len(hammer.acknowledged)} appends acknowledged")
    assert texts(hammer.journal.storage) == hammer.acknowledged
    hammer.journal.release(hammer.lease)


# The network -------------------------------------------------------------------------------


def _through(proxy: Proxy, opened: Open, **options: Any) -> RedisStorage:
    return opened(f"redis://127.0.0.1:{proxy.port}/0", namespace=f"net {next(_numbers)}", **options)


def test_a_reply_that_is_cut_at_any_byte_leaves_the_append_there_once(
    quick: RedisServer, opened: Open
) -> None:
    with Proxy(quick.port) as proxy:
        storage = _through(proxy, opened, clock=FakeClock())  # its pauses take no time
        cuts = cut_everywhere(storage, proxy, proxy.cut_to_client, "received")
        assert proxy.cuts >= cuts - 1
    assert cuts >= 9  # "*1\r\n:1\r\n" and its end
    print(f"{cuts} cuts of replies")


def test_a_request_that_is_cut_at_any_byte_is_sent_again_and_stored_once(
    quick: RedisServer, opened: Open
) -> None:
    with Proxy(quick.port) as proxy:
        storage = _through(proxy, opened, clock=FakeClock())  # its pauses take no time
        cuts = cut_everywhere(storage, proxy, proxy.cut_to_server, "sent")
        assert proxy.cuts >= cuts - 1
    assert cuts >= 200
    print(f"{cuts} cuts of requests")


def test_a_write_whose_answer_is_lost_is_an_error_at_once_and_is_not_repeated(
    quick: RedisServer, opened: Open
) -> None:
    with Proxy(quick.port) as proxy:
        storage = _through(proxy, opened)
        storage.write([opening("a")])
        proxy.cut_to_client(1)
        with pytest.raises(StoreUnreachableError):
            storage.write([Write(row("a", 1))])
        assert [one.first for one in storage.rows("a")] == [0, 1]
        assert proxy.cuts == 1


def test_a_read_whose_answer_is_lost_is_asked_again(quick: RedisServer, opened: Open) -> None:
    with Proxy(quick.port) as proxy:
        storage = _through(proxy, opened)
        storage.write([opening("a")])
        for k in range(1, 30):
            proxy.cut_to_client(k)
            assert [one.first for one in storage.rows("a")] == [0]
            proxy.cut_to_client(k)
            assert storage.entries(Query())[0].chain_id == "a"
        proxy.cut_to_client(None)
        assert proxy.cuts == 58


def test_a_server_that_does_not_answer_is_an_error_after_the_timeout(
    quick: RedisServer, opened: Open
) -> None:
    with Proxy(quick.port) as proxy:
        storage = _through(proxy, opened, timeout_s=0.05)
        storage.write([opening("a")])
        proxy.freeze()
        with pytest.raises(StoreUnreachableError, match=r"[Tt]imeout"):
            storage.write([Write(row("a", 1))])
        proxy.thaw()
        storage.reset()
        assert storage.write([Write(row("a", 2))]) in ([False], [True])


def test_a_connection_that_died_while_it_was_idle_is_no_fault(store: RedisStorage, client: Any) -> None:
    store.write([opening("a")])
    for place in range(1, 31):
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert store.write([Write(row("a", place))]) == [True]
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert store.entry("a") is not None


def test_scripts_that_the_server_has_forgotten_are_sent_again(store: RedisStorage, client: Any) -> None:
    store.write([opening("a")])
    for place in range(1, 4):
        client.script_flush()
        assert store.write([Write(row("a", place))]) == [True]
        client.script_flush()
        assert store.entries(Query())[0].last == place


# Settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, "power"),
        ({"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "yes"}, "server"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "server"),
        ({"appendonly": "yes", "appendfsync": "no"}, "server"),
        ({"appendonly": "no"}, "process"),
        ({"appendonly": "no", "save": "60 1"}, "process"),
        ({"maxmemory": "100mb", "maxmemory-policy": "noeviction"}, "power"),
        ({"maxmemory": "100mb", "maxmemory-policy": "volatile-lru"}, "power"),
        ({"maxmemory": "0", "maxmemory-policy": "allkeys-lru"}, "power"),
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "none"),
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-random"}, "none"),
    ],
)
def test_each_setting_has_its_class_and_a_weaker_one_is_refused_warned_of_or_taken(
    tuned: Any, opened: Open, settings: dict[str, str], kept: Durability
) -> None:
    server, tune = tuned
    tune(settings)
    assert opened(server.url, durability=None).durability == kept
    for asked in ("none", "process", "server", "power"):
        storage = opened(server.url, durability=asked, namespace=f"asked {next(_numbers)}")
        assert storage.durability == kept
        if ("none", "process", "server", "power").index(asked) <= (
            "none",
            "process",
            "server",
            "power",
        ).index(kept):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert storage.write([opening("a")]) == [True]
            assert not [one for one in storage.complaints() if "durability" in one]
        else:
            with pytest.raises(StorageError, match=r"CONFIG SET [a-z-]+ "):
                storage.write([opening("a")])
            assert any("CONFIG SET" in one for one in storage.complaints())


@pytest.fixture(scope="module")
def _tuned_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def tuned(_tuned_server: RedisServer) -> Iterator[Any]:
    """A server whose settings are put back afterwards."""
    names = "appendonly", "appendfsync", "no-appendfsync-on-rewrite", "save", "maxmemory", "maxmemory-policy"
    with redis.Redis(port=_tuned_server.port, protocol=2, decode_responses=True) as client:
        before = {name: client.config_get(name)[name] for name in names}

        def tune(settings: dict[str, str]) -> None:
            for name, value in settings.items():
                client.config_set(name, value)

        yield _tuned_server, tune
        tune(before)


def test_who_asked_for_nothing_is_warned_once_of_a_server_that_keeps_less(tuned: Any, opened: Open) -> None:
    server, tune = tuned
    tune({"appendfsync": "everysec"})
    storage = opened(server.url, durability=None, namespace="warned")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        storage.write([opening("a")])
        storage.reset()
        storage.write([Write(row("a", 1))])
    assert [one.category for one in caught] == [DurabilityWarning]
    assert "a power cut loses" in str(caught[0].message)
    assert "CONFIG SET appendfsync always" in str(caught[0].message)


def test_a_server_that_may_evict_is_refused_unless_that_was_asked_for(tuned: Any, opened: Open) -> None:
    server, tune = tuned
    tune({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"})
    storage = opened(server.url, durability=None, namespace="evicting")
    with pytest.raises(StorageError, match="maxmemory-policy noeviction"):
        storage.write([opening("a")])
    assert opened(server.url, durability="none", namespace="evicting").write([opening("a")]) == [True]


def test_a_setting_that_changes_while_the_store_is_open_is_noticed(tuned: Any, opened: Open) -> None:
    server, tune = tuned
    clock = FakeClock()
    storage = opened(server.url, durability="power", namespace="changing", clock=clock)
    storage.write([opening("a")])
    tune({"appendfsync": "everysec"})
    clock.advance(31)
    with pytest.raises(StorageError, match="CONFIG SET appendfsync always"):
        storage.write([Write(row("a", 1))])
    tune({"appendfsync": "always"})
    clock.advance(31)
    assert storage.write([Write(row("a", 1))]) == [True]


def test_a_server_that_does_not_tell_its_settings_is_taken_at_the_least(tuned: Any, opened: Open) -> None:
    server, _ = tuned
    with redis.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", "guest", "on", ">word", "~*", "+@all", "-config")
    url = server.url.replace("redis://", "redis://guest:word@")
    storage = opened(url, durability="server", namespace="managed")
    assert storage.durability == "server"
    assert storage.write([opening("a")]) == [True]
    (said,) = opened(url, durability=None, namespace="managed").complaints()
    assert "does not tell its settings" in said


def test_a_server_that_lets_everybody_in_is_complained_of(opened: Open) -> None:
    with RedisServer(extra=("--protected-mode", "no", "--bind", "127.0.0.1", "-::1", "127.0.0.2")) as server:
        (said,) = opened(server.url).complaints()
        assert "lets everybody in" in said
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", "word")
        assert opened(server.url.replace("redis://", "redis://:word@")).complaints() == []


def test_replicas_are_complained_of(opened: Open, server: RedisServer) -> None:
    with RedisServer(extra=("--replicaof", "127.0.0.1", str(server.port))) as replica:
        with redis.Redis(port=server.port) as client:
            while not client.info("replication")["connected_slaves"]:
                time.sleep(0.01)
        assert any("replicas" in said for said in opened(server.url).complaints())
        with pytest.raises(StoreUnreachableError, match="READONLY"):
            opened(replica.url).write([opening("a")])


# Errors ------------------------------------------------------------------------------------


def test_a_wrong_password_is_said_at_once_and_is_in_no_message(tuned: Any, opened: Open) -> None:
    server, _ = tuned
    url = server.url.replace("redis://", "redis://:s3cret-canary@")
    storage = opened(url, patience_s=60.0)
    with pytest.raises(StorageError, match="password") as caught:
        Journal(storage).claim("a")
    assert not isinstance(caught.value, StoreUnreachableError)
    seen = [storage.url, repr(storage), str(caught.value), str(storage.__dict__["url"])]
    assert "canary" not in " ".join(seen)
    assert storage.url == f"redis://:***@127.0.0.1:{server.port}/0"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:canary@127.0.0.1:1/0",
        "redis://me:can/ary#canary?canary@127.0.0.1:1/0",
        "redis://:canary@canary@127.0.0.1:1/0",
        "unix:///nowhere/redis.sock?db=1&password=canary",
        "redis://me:canary@127.0.0.1:port/0",
        "redis://:canary@127.0.0.1:1/0?db=canary",
        "rediss://me:canary@127.0.0.1:1/0?ssl_password=canary&ssl_cert_reqs=none",
    ],
)
def test_no_password_is_shown_whatever_the_address(url: str, opened: Open) -> None:
    try:
        storage = opened(url, patience_s=0.0)
        assert "canary" not in storage.url.replace("db=canary", "")
        storage.entry("a")
        raise AssertionError("there is no server")
    except (UsageError, StorageError) as error:
        chain: BaseException | None = error
        while chain is not None:
            assert "canary" not in str(chain).replace("db=canary", "")
            chain = chain.__cause__


@pytest.mark.parametrize(
    "url", ["http://x", "redis:/x", "", "redis://x:0", "redis://x:99999999", "redis://x?odd=1"]
)
def test_an_address_that_is_none_is_the_callers_error(url: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        RedisStorage(url).entry("a")


@pytest.mark.parametrize("namespace", ["", "a{b}", "}", "a\nb", "x" * 101])
def test_a_namespace_that_could_leave_its_slot_is_refused(namespace: str) -> None:
    with pytest.raises(UsageError, match="namespace"):
        RedisStorage(namespace=namespace)


def test_namespace_and_durability_may_stand_in_the_address(
    quick: RedisServer, opened: Open, client: Any
) -> None:
    storage = opened(f"{quick.url}?namespace=a%20b&socket_timeout=3&durability=server", durability=None)
    assert (storage.namespace, storage.asked) == ("a b", "server")
    assert storage.write([opening("x")]) == [True]
    assert client.exists("{a b}:run:x")
    with pytest.raises(UsageError, match="durability is one of"):
        RedisStorage(f"{quick.url}?durability=always")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sifaka\[redis\]'"):
        RedisStorage().entry("a")


def test_nothing_is_loaded_and_nobody_is_asked_before_the_first_use() -> None:
    code = "import sys; from sifaka.storage.redis import RedisStorage; RedisStorage(); print('redis' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_a_full_memory_is_said_with_the_way_out_and_cleaning_up_still_works(tuned: Any, opened: Open) -> None:
    server, tune = tuned
    storage = opened(server.url, namespace="full")
    storage.write([opening("a", status="done")])
    tune({"maxmemory": "1mb", "maxmemory-policy": "noeviction"})
    with pytest.raises(StorageError, match="clean up") as caught:
        storage.write([Write(row("a", 1, frame=b"x" * 100))])
    assert not isinstance(caught.value, StoreUnreachableError)
    entry = storage.entry("a")
    assert entry is not None
    assert entry.last == 0
    storage.delete([entry])
    assert storage.entry("a") is None


def test_keys_of_somebody_else_are_a_typed_error_and_left_alone(store: RedisStorage, client: Any) -> None:
    client.set(f"{{{store.namespace}}}:run:a", "theirs")
    with pytest.raises(StorageError, match="another namespace"):
        store.write([opening("a")])
    assert client.get(f"{{{store.namespace}}}:run:a") == b"theirs"


def test_a_newer_schema_is_refused_and_left_untouched(store: RedisStorage, opened: Open, client: Any) -> None:
    store.write([opening("a")])
    client.set(f"{{{store.namespace}}}:format", 2)
    before = {key: client.dump(key) for key in client.keys(f"{{{store.namespace}}}:*")}
    fresh = opened(
        f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0", namespace=store.namespace
    )
    entry = Entry("a")
    for storage in (store, fresh):
        deeds: list[Callable[[RedisStorage], object]] = [
            lambda one: one.write([Write(row("a", 1))]),
            lambda one: one.claim("a", 1, b"x", 1.0),
            lambda one: one.renew([Renewal("a", 1)]),
            lambda one: one.delete([entry]),
            lambda one: one.trim(row("a", 0)),
            lambda one: one.swap("x", b"", 0),
            lambda one: one.entries(Query()),
        ]
        for deed in deeds:
            with pytest.raises(FormatError, match="format 2, this version of sifaka reads up to 1"):
                deed(storage)
    assert {key: client.dump(key) for key in client.keys(f"{{{store.namespace}}}:*")} == before


def test_a_server_that_is_still_loading_is_waited_for(quick: RedisServer, opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def load() -> None:
            with suppress(OSError):
                while True:
                    asking, _ = listener.accept()
                    with asking:
                        while asking.recv(65536):
                            asking.sendall(b"-LOADING Redis is loading the dataset in memory\r\n" * 20)

        threading.Thread(target=load, daemon=True).start()
        with pytest.raises(StoreUnreachableError, match="LOADING"):
            opened(f"redis://127.0.0.1:{port}/0").entry("a")


# Ids, time, listing, clean-up --------------------------------------------------------------

HOSTILE = (
    "a:b",
    "{x}",
    "*",
    "format",
    "a\r\nSET x 1",
    "'; redis.call('FLUSHALL') --",
    "]] .. redis.call('FLUSHALL') .. [[",
    "\\",
    "%s%d",
    "=",
    "-inf",
    "(1",
    "\u202e",
    "a b",
    "\U0001f600" * 200,
    "0" * 200,
    "1e309",
    "nil",
    "\x00",
    "\ud800",
)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_payload_is_nothing_but_a_text_wherever_it_stands(
    store: RedisStorage, client: Any, text: str
) -> None:
    client.set("witness", "here")
    store.write([opening("other")])
    change = Change("failed", 2.0, text, text, release=True)
    assert store.write(
        [Write(row(text, 0, frame=text.encode("utf-8", "surrogatepass")), change, Entry(text, label=text))]
    ) == [True]
    expected = Entry(text, status="failed", reason=text, group=text, label=text, updated_at=2.0, last=0)
    assert store.entry(text) == expected
    for query in (Query(group=text), Query(label=text), Query(statuses=("failed",))):
        assert store.entries(query) == [expected]
    assert store.swap(text, text.encode("utf-8", "surrogatepass"), 0)
    assert store.cell_names(text) == [text]
    assert store.cells([text])[0].version == 1
    assert store.claim(text, 1, b"\r\n\0{}'", 1.5)
    assert [one.first for one in store.rows(text)] == [0]
    assert store.delete([msgspec.structs.replace(expected, token=2)]) == 0
    assert [one.chain_id for one in store.entries(Query())] == ["other"]
    assert store.measure()["records"] == 1
    assert client.get("witness") == b"here"


def test_namespaces_on_one_server_see_nothing_of_each_other(quick: RedisServer, opened: Open) -> None:
    names = ("n", "n:run", "n:log:a", "N")
    stores = [opened(quick.url, namespace=name) for name in names]
    for n, one in enumerate(stores):
        one.write([opening("a", label=str(n))])
        one.swap("cell", b"%d" % n, 0)
    for n, one in enumerate(stores):
        assert [entry.label for entry in one.entries(Query())] == [str(n)]
        assert one.cells(["cell"])[0].value == b"%d" % n
    stores[0].delete(stores[0].entries(Query()))
    assert all(one.entry("a") is not None for one in stores[1:])


def test_all_keys_of_a_namespace_lie_in_one_slot(store: RedisStorage, client: Any) -> None:
    for text in HOSTILE:
        store.write([opening(text, label=text)])
    store.swap("cell", b"", 0)
    keys = [key for key in client.keys("*") if key.startswith(f"{{{store.namespace}}}:".encode())]
    assert len(keys) > 2 * len(HOSTILE)
    slot = redis.crc.key_slot
    assert {slot(key) for key in keys} == {slot(f"{{{store.namespace}}}".encode())}


def test_deleting_everything_leaves_no_key_but_the_format(store: RedisStorage, client: Any) -> None:
    for n in range(60):
        store.write([opening(f"run {n}", label="L", group="g")])
        store.write([Write(row(f"run {n}", 1, checkpoints=1), Change("done", 2.0, group="h"))])
    assert store.delete(store.entries(Query(limit=100))) == 60
    left = [key for key in client.keys("*") if key.startswith(f"{{{store.namespace}}}:".encode())]
    assert sorted(left) == [f"{{{store.namespace}}}:{kind}".encode() for kind in ("format", "totals")]
    assert store.measure()["storage_size_bytes"] < 1_000


def test_a_page_of_fifty_of_many_is_quick_and_pages_join(store: RedisStorage) -> None:
    for start in range(0, 20_000, 500):
        store.write(
            [
                opening(f"run {n}", updated_at=float(n // 1_000), label="rare" if n % 2_000 == 0 else "")
                for n in range(start, start + 500)
            ]
        )
    seconds = []
    query, seen = Query(), []
    for _ in range(60):  # most of them begin amid a thousand runs of the same time
        begin_at = time.perf_counter()
        page = store.entries(query)
        seconds.append(time.perf_counter() - begin_at)
        seen += page
        query = Query(after=page[-1])
    assert sorted(seconds)[30] < 0.050
    assert [(one.updated_at, one.chain_id) for one in seen] == sorted(
        ((float(n // 1_000), f"run {n}") for n in range(20_000)), reverse=True
    )[:3_000]
    assert len(store.entries(Query(label="rare"))) == 10
    assert len(store.entries(Query(group="", label="rare", updated_before=10.0))) == 5
    gone = msgspec.structs.replace(seen[70], chain_id="run 19500 gone")
    assert store.entries(Query(after=gone, limit=1))[0].chain_id == "run 19500"


def test_a_selection_that_hardly_anything_fits_is_found_in_steps(store: RedisStorage, client: Any) -> None:
    for start in range(0, 5_000, 500):
        store.write(
            [
                opening(f"run {n}", group="g", updated_at=float(n), label="L")
                for n in range(start, start + 500)
            ]
        )
    store.write([opening("the one", group="g", label="L", updated_at=-1.0, status="failed")])
    assert [one.chain_id for one in store.entries(Query(group="g", updated_before=0.0))] == ["the one"]
    # No index tells runs without a group apart: all are looked at.
    store.write([opening("ungrouped", label="L", updated_at=-2.0)])
    assert [one.chain_id for one in store.entries(Query(group=""))] == ["ungrouped"]
    before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert len(store.entries(Query(limit=10_000))) == 5_002
    assert (
        client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 6
    )  # others are served in between


def test_rows_of_a_long_run_are_read_in_pages_from_either_end(store: RedisStorage) -> None:
    store.write([opening("a")])
    store.write([Write(row("a", n)) for n in range(1, 200)])
    assert [one.first for one in store.rows("a")] == list(range(200))
    assert [one.first for one in store.rows("a", newest_first=True)] == list(range(199, -1, -1))
    assert [one.first for one in store.rows("a", 50, 150)] == list(range(50, 151))
    assert [one.first for one in store.rows("a", 50, 150, newest_first=True)] == list(range(150, 49, -1))


def test_times_come_back_to_the_bit(store: RedisStorage) -> None:
    times = [0.1 + 0.2, 1.7976931348623157e308, 5e-324, 1_700_000_000.123456, 1 / 3, -1 / 3]
    for n, at in enumerate(times):
        opens = Entry(f"run {n}", lease_until=at, until=at, opened_at=at, updated_at=at)
        store.write([Write(row(f"run {n}", 0, at=at, checkpoints=1), None, opens)])
        entry = store.entry(f"run {n}")
        assert entry is not None
        assert (entry.lease_until, entry.until, entry.opened_at, entry.updated_at) == (at, at, at, at)
        assert [one.at for one in store.rows(f"run {n}")] == [at]
        assert entry in store.entries(Query(updated_since=at))
        assert entry not in store.entries(Query(updated_before=at))
    measured = store.measure()
    assert (measured["oldest_checkpoint"], measured["newest_checkpoint"]) == (min(times), max(times))


def test_leases_go_by_the_servers_clock(quick: RedisServer, opened: Open, client: Any) -> None:
    storage = opened(quick.url, namespace="clock")
    seconds, micros = client.time()
    before = seconds + micros / 1e6
    now = storage.now()
    seconds, micros = client.time()
    assert before - 0.05 < now < seconds + micros / 1e6 + 0.05
    asked = client.info("commandstats")["cmdstat_time"]["calls"]
    assert storage.now() <= storage.now()
    assert client.info("commandstats")["cmdstat_time"]["calls"] == asked


def test_a_wrong_clock_of_this_machine_does_not_matter(
    quick: RedisServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = opened(quick.url, namespace="clock")
    honest = time.time()
    monkeypatch.setattr(time, "time", lambda: 12.0)
    assert abs(storage.now() - honest) < 5


def test_a_clock_that_is_given_is_the_stores_clock(quick: RedisServer, opened: Open) -> None:
    clock = FakeClock(1_000.0)
    storage = opened(quick.url, namespace="clock", clock=clock)
    storage.entry("a")
    assert storage.now() == 1_000.0
    clock.advance(77)
    assert storage.now() == 1_077.0


def test_time_goes_on_while_the_server_is_away(server: RedisServer, opened: Open) -> None:
    storage = opened(server.url)
    with pytest.raises(StoreUnreachableError):
        opened(f"redis://127.0.0.1:{_closed_port()}/0").now()
    now = storage.now()
    server.kill()
    storage.reset()
    assert now <= storage.now() < now + 20


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_deleted_texts_are_in_no_file_after_compaction(opened: Open, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", extra=("--save", "3600 1")) as server:
        storage = opened(server.url)
        storage.write([Write(row("a", 0, frame=b"canary of the deleted run"), None, Entry("a"))])
        storage.write([opening("b")])
        with redis.Redis(port=server.port) as client:
            client.save()
        assert _files_with(tmp_path, b"canary")
        storage.delete([Entry("a")])
        storage.compact()
        assert not _files_with(tmp_path, b"canary")
        server.kill()
        server.start()
        assert storage.entry("b") is not None


def test_a_compaction_waits_for_one_that_began_before_the_deletion(opened: Open, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis", extra=("--save", "3600 1")) as server:
        storage = opened(server.url)
        storage.write([Write(row("a", 0, frame=b"canary of the deleted run"), None, Entry("a"))])
        with redis.Redis(port=server.port) as client:
            client.config_set("rdb-key-save-delay", 20_000)  # microseconds a key: a long one
            client.bgrewriteaof()
            storage.delete([Entry("a")])
            client.config_set("rdb-key-save-delay", 0)
        storage.compact()
        assert not _files_with(tmp_path, b"canary")


def _files_with(folder: Path, text: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_the_size_is_about_what_the_server_takes_up(server: RedisServer, opened: Open) -> None:
    storage = opened(server.url)
    with redis.Redis(port=server.port) as client:
        before = client.info("memory")["used_memory"]
        for n in range(300):
            storage.write([opening(f"run {n}", label="L")])
            storage.write([Write(row(f"run {n}", k, frame=os.urandom(300))) for k in range(1, 1 + n % 30)])
        grown = client.info("memory")["used_memory"] - before
    assert 0.6 * grown < storage.measure()["storage_size_bytes"] < 1.6 * grown


def test_a_fenced_writer_learns_it_through_the_journal(store: RedisStorage) -> None:
    journal = Journal(store)
    lease = begin(journal)
    store.claim("a", 1, b"you", store.now() + 60)
    with pytest.raises(FencedError):
        journal.append(lease, [Partial(2.0, 0, "late")])
    assert load_whole(store, "a").state.next_seq == 1


def test_a_paused_server_is_only_slow(server: RedisServer, opened: Open) -> None:
    storage = opened(server.url, timeout_s=10.0)
    storage.write([opening("a")])
    os.kill(server.pid, signal.SIGSTOP)
    on = threading.Timer(0.2, os.kill, (server.pid, signal.SIGCONT))
    on.start()
    assert storage.write([Write(row("a", 1))]) == [True]
    on.join()


@pytest.mark.parametrize(
    "parts",
    [[b"PING"], [b"SET", b"", b"\r\n$5"], [b"X", *[b"a" * n for n in range(200)]], [b"A", b"b" * 9_000]],
)
def test_a_command_travels_as_the_library_would_send_it(parts: list[bytes]) -> None:
    from redis.connection import Connection

    assert command(parts) == b"".join(Connection().pack_command(*parts))


def test_the_totals_are_exact_after_long_runs_are_trimmed_and_deleted(
    store: RedisStorage, client: Any
) -> None:
    for name, count in (("long", 400), ("kept", 3)):
        store.write([opening(name)])
        for n in range(1, count):
            assert store.write([Write(row(name, n, checkpoints=n % 2))]) == [True]
    assert store.trim(row("long", 1, last=300)) == 150
    kept = [one for name in ("long", "kept") for one in store.rows(name)]
    told = store.measure()
    assert told["records"] == sum(one.last - one.first + 1 for one in kept)
    assert told["total_checkpoints"] == sum(one.checkpoints for one in kept)
    assert told["stored_bytes"] == sum(len(one.frame) for one in kept)
    assert told["raw_bytes"] == sum(one.raw for one in kept)
    entry = store.entry("long")
    assert entry is not None
    assert store.delete([entry]) == sum(one.checkpoints for one in kept if one.chain_id == "long")
    assert store.measure()["records"] == 3
    assert store.measure()["stored_bytes"] == sum(len(one.frame) for one in store.rows("kept"))
