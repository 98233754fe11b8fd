"""The Postgres store where it is more than any store: its server's death, its settings, its network."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hammer import Hammer, begin, cut_everywhere, opening, row, texts
from proxy import Proxy
from sifaka.errors import (
    FormatError,
    MissingExtraError,
    StorageError,
    StoreUnreachableError,
    UnstorableError,
    UsageError,
)
from sifaka.log.records import Partial
from sifaka.storage.base import Change, Durability, Entry, Query, Renewal, Write
from sifaka.storage.durability import DurabilityWarning
from sifaka.storage.journal import Journal
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.postgres import PostgresStorage
from sifaka.storage.postgres.errors import is_conflict
from sifaka.storage.postgres.values import Bools, Bytes, Floats, Integers, Texts
from sifaka.testing import FakeClock
from sifaka.testing.servers import PostgresServer, missing

pytestmark = pytest.mark.skipif("postgresql" in missing(), reason="no Postgres server is installed")
psycopg = pytest.importorskip("psycopg")

Open = Callable[..., PostgresStorage]
Ask = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens stores, and closes them in the end."""
    made: list[PostgresStorage] = []

    def build(url: str, **options: Any) -> PostgresStorage:
        made.append(PostgresStorage(url, **options))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture
def store(postgres_url: str, opened: Open) -> PostgresStorage:
    return opened(postgres_url)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of a test's own."""
    with PostgresServer() as one:
        yield one


@pytest.fixture
def ask(postgres_url: str) -> Iterator[Ask]:
    """Runs a statement beside the store."""
    with psycopg.connect(postgres_url, autocommit=True) as link:

        def run(statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
            cursor = link.execute(statement, values or None)
            found: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
            return found

        yield run


def firsts(storage: PostgresStorage, chain_id: str = "a") -> list[int]:
    return [one.first for one in storage.rows(chain_id)]


def end_all_others(ask: Ask) -> int:
    """End all backends of this database but the one that is asked; the number of them."""
    return len(
        ask(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    )


# Fences ------------------------------------------------------------------------------------


def test_of_many_threads_at_one_place_one_is_accepted(store: PostgresStorage) -> None:
    store.write([opening("a")])
    start = threading.Barrier(8)
    accepted: list[list[bool]] = [[] for _ in range(8)]

    def race(number: int) -> None:
        for place in range(1, 41):
            start.wait()
            accepted[number] += store.write([Write(row("a", place, frame=b"by %d" % number))])

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(places) for places in zip(*accepted, strict=True)] == [1] * 40
    winners = [next(n for n in range(8) if accepted[n][place]) for place in range(40)]
    assert [one.frame for one in store.rows("a", 1)] == [b"by %d" % winner for winner in winners]


def _race(url: str, results: Any, start: Any, number: int) -> None:
    store = PostgresStorage(url)
    store.entry("a")
    start.wait()
    won = [
        place
        for place in range(1, 61)
        if store.write([Write(row("a", place, frame=b"by %d" % number))]) == [True]
    ]
    results.put((number, won))
    store.close()


def test_of_two_processes_at_one_place_one_is_accepted(store: PostgresStorage, postgres_url: str) -> None:
    store.write([opening("a")])
    context = multiprocessing.get_context("spawn")
    results, start = context.Queue(), context.Barrier(2)
    processes = [
        context.Process(target=_race, args=(postgres_url, results, start, number)) for number in range(2)
    ]
    for process in processes:
        process.start()
    won = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert sorted(won[0] + won[1]) == list(range(1, len(won[0]) + len(won[1]) + 1))
    assert [one.frame for one in store.rows("a", 1)] == [
        b"by %d" % (0 if place in won[0] else 1) for place in range(1, len(won[0]) + len(won[1]) + 1)
    ]


def _in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin ``work``; the result is for whoever calls what is returned."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()

    def result() -> Any:
        thread.join(30)
        return found[0]

    return result


def _wait_for_a_waiting_lock(ask: Ask) -> None:
    while not ask("SELECT 1 FROM pg_locks WHERE NOT granted"):
        time.sleep(0.002)


@pytest.mark.parametrize("change", [None, Change("waiting", 2.0)])
def test_an_append_that_waited_for_a_claim_is_refused(
    store: PostgresStorage, postgres_url: str, ask: Ask, change: Change | None
) -> None:
    store.write([opening("a")])
    with psycopg.connect(postgres_url) as claimer:
        claimer.execute("UPDATE sifaka.chains SET token = 2 WHERE id = 'a'")
        answer = _in_thread(lambda: store.write([Write(row("a", 1), change)]))
        _wait_for_a_waiting_lock(ask)
        claimer.commit()
    assert answer() == [False]
    assert firsts(store) == [0]
    assert store.write([Write(row("a", 1, 2), change)]) == [True]


def test_what_was_appended_while_a_deletion_waited_is_deleted_too(
    store: PostgresStorage, postgres_url: str, ask: Ask
) -> None:
    store.write([opening("a")])
    entry = store.entry("a")
    assert entry is not None
    with psycopg.connect(postgres_url) as writer:
        writer.execute("UPDATE sifaka.chains SET last = 1 WHERE id = 'a'")
        writer.execute(
            "INSERT INTO sifaka.log SELECT no, 1, 1, 1, 1.0, 3, 9, 'frame' FROM sifaka.chains WHERE id = 'a'"
        )
        removed = _in_thread(lambda: store.delete([entry]))
        _wait_for_a_waiting_lock(ask)
        writer.commit()
    assert removed() == 3
    assert ask("SELECT count(*) FROM sifaka.log") == [(0,)]


def test_an_old_and_a_new_owner_may_write_in_one_batch(store: PostgresStorage) -> None:
    store.write([opening("a")])
    store.claim("a", 1, b"new", 9.0)
    writes = [
        Write(row("a", 1, 1)),
        opening("b"),
        Write(row("a", 1, 2)),
        Write(row("b", 1), Change("done", 7.0)),
        Write(row("a", 2, 1)),
        Write(row("a", 2, 2)),
        Write(row("c", 0)),
    ]
    assert store.write(writes) == [False, True, True, True, False, True, False]
    assert [(one.first, one.token) for one in store.rows("a")] == [(0, 1), (1, 2), (2, 2)]
    assert [one.status for one in store.entries(Query())] == ["done", "running"]


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the store took each error of the server for: a conflict or not."""
    seen: list[bool] = []

    def look(error: Any) -> bool:
        seen.append(is_conflict(error))
        return seen[-1]

    monkeypatch.setattr("sifaka.storage.postgres.sessions.is_conflict", look)
    return seen


def test_two_batches_that_lock_each_other_out_are_both_carried_out(
    store: PostgresStorage, postgres_url: str, opened: Open, ask: Ask, conflicts: list[bool]
) -> None:
    """Another transaction holds b and comes for a, while the store holds a and waits for b."""
    store.write([opening("a"), opening("b")])
    # Who has waited so long looks for a deadlock, and gives way.
    fresh = opened(postgres_url + "?options=-c%20deadlock_timeout%3D300ms")
    fresh.entry("a")
    with psycopg.connect(postgres_url, options="-c deadlock_timeout=30s") as other:
        other.execute("UPDATE sifaka.chains SET label = 'x' WHERE id = 'b'")
        answer = _in_thread(lambda: fresh.write([Write(row("b", 1)), Write(row("a", 1))]))
        _wait_for_a_waiting_lock(ask)
        other.execute("UPDATE sifaka.chains SET label = 'x' WHERE id = 'a'")
        other.commit()
    assert answer() == [True, True]
    assert conflicts == [True]
    assert firsts(store, "a") == firsts(store, "b") == [0, 1]


def test_a_database_that_serializes_is_served_all_the_same(
    store: PostgresStorage, postgres_url: str, ask: Ask, conflicts: list[bool]
) -> None:
    """There a lock that was waited for is a serialization failure, and nothing was written."""
    store.write([opening("a")])
    strict = PostgresStorage(postgres_url + "?options=-c%20default_transaction_isolation%3Dserializable")
    assert strict.entry("a") is not None
    with psycopg.connect(postgres_url) as other:
        other.execute("UPDATE sifaka.chains SET label = 'x' WHERE id = 'a'")
        answer = _in_thread(lambda: strict.write([Write(row("a", 1))]))
        _wait_for_a_waiting_lock(ask)
        other.commit()
    assert answer() == [True]
    assert conflicts == [True]
    strict.close()


def test_a_fork_uses_connections_of_its_own(store: PostgresStorage, ask: Ask) -> None:
    store.write([opening("a")])
    pids = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'sifaka' AND datname = current_database()"
    )
    before = ask(pids)
    child = os.fork()
    if child == 0:
        with store._sessions.use() as link:
            own = (link.info.backend_pid,) not in before
        accepted = store.write([Write(row("a", 1))])
        store.close()
        os._exit(0 if accepted == [True] and own else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.write([Write(row("a", 2))]) == [True]
    assert ask(pids) == before


def test_nobody_who_leaves_without_closing_hears_of_it(postgres_url: str) -> None:
    program = (
        "import sys; from sifaka.storage.postgres import PostgresStorage; import threading\n"
        "assert 'psycopg_pool' not in sys.modules\n"
        "store = PostgresStorage(sys.argv[1]); store.entry('a'); print(threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program, postgres_url],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


# The server's death ------------------------------------------------------------------------


def test_a_connection_that_died_while_it_was_idle_is_no_fault(store: PostgresStorage, ask: Ask) -> None:
    store.write([opening("a")])
    for place in range(1, 16):
        assert end_all_others(ask) >= 1
        assert store.write([Write(row("a", place))]) == [True]
        assert end_all_others(ask) >= 1
        assert store.swap("cell", b"", place - 1)


def _backends(url: str) -> list[int]:
    """The process ids of the store's backends, asked of the server."""
    with psycopg.connect(url, autocommit=True) as link:
        found = link.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'sifaka'")
        return [pid for (pid,) in found.fetchall()]


def test_fifty_deaths_of_its_backend_amid_commits_lose_nothing_acknowledged(
    server: PostgresServer, opened: Open
) -> None:
    """Most are ended by an administrator, some by SIGKILL, after which the whole server recovers."""
    hammer = Hammer(Journal(opened(server.url, patience_s=60.0)))
    chance, deaths, kills, ends_at = random.Random(4), 0, 0, time.monotonic() + 40
    while deaths < 50 and time.monotonic() < ends_at and not hammer.failures:
        hammer.advance()
        found = _backends(server.url)
        time.sleep(chance.random() * 0.002)
        if not found:
            continue
        if deaths % 5:
            with psycopg.connect(server.url, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", (found[0],))
        else:
            try:
                server.kill_backend(found[0])
            except UsageError:  # it has gone already
                continue
            kills += 1
            server.wait()
        deaths += 1
    hammer.stop()
    print(
        f"{deaths} deaths of a backend, {kills} by SIGKILL; {len(hammer.acknowledged)} appends acknowledged"
    )
    assert (deaths, kills) == (50, 10)
    assert texts(opened(server.url)) == hammer.acknowledged


def test_three_deaths_of_the_postmaster_amid_commits_lose_nothing_acknowledged(
    server: PostgresServer, opened: Open
) -> None:
    hammer = Hammer(Journal(opened(server.url, patience_s=60.0)))
    chance = random.Random(5)
    for _ in range(3):
        hammer.advance()
        time.sleep(chance.random() * 0.05)
        server.kill()
        server.start()
    hammer.advance()
    hammer.stop()
    assert texts(opened(server.url)) == hammer.acknowledged


def test_an_append_goes_on_by_itself_when_the_server_is_back(server: PostgresServer, opened: Open) -> None:
    journal = Journal(opened(server.url))
    lease = begin(journal)
    server.kill()
    back = threading.Timer(0.3, server.start)
    back.start()
    journal.append(lease, [Partial(3.0, 0, "after")])
    back.join()
    assert texts(opened(server.url)) == ["after"]


def test_a_server_that_stays_away_is_an_error_after_the_patience_and_the_run_can_go_on(
    server: PostgresServer, opened: Open
) -> None:
    journal = Journal(opened(server.url, patience_s=0.2))
    lease = begin(journal)
    server.kill()
    with pytest.raises(StoreUnreachableError, match=r"127\.0\.0\.1"):
        journal.append(lease, [Partial(2.0, 0, "lost")])
    server.start()
    journal.append(lease, [Partial(3.0, 0, "found")])
    assert texts(opened(server.url)) == ["found"]


# The network -------------------------------------------------------------------------------


def _through(proxy: Proxy, url: str, opened: Open, **options: Any) -> PostgresStorage:
    database = url.rpartition("/")[2]
    return opened(f"postgresql://sifaka@127.0.0.1:{proxy.port}/{database}?sslmode=disable", **options)


def test_a_reply_that_is_cut_at_any_byte_leaves_the_append_there_once(
    postgres_server: PostgresServer, postgres_url: str, opened: Open
) -> None:
    with Proxy(postgres_server.port) as proxy:
        storage = _through(proxy, postgres_url, opened, clock=FakeClock())  # its pauses take no time
        cuts = cut_everywhere(storage, proxy, proxy.cut_to_client, "received")
        assert proxy.cuts >= cuts - 1
    assert cuts >= 30
    print(f"{cuts} cuts of replies")


def test_a_request_that_is_cut_at_any_byte_is_sent_again_and_stored_once(
    postgres_server: PostgresServer, postgres_url: str, opened: Open
) -> None:
    with Proxy(postgres_server.port) as proxy:
        storage = _through(proxy, postgres_url, opened, clock=FakeClock())
        cuts = cut_everywhere(storage, proxy, proxy.cut_to_server, "sent")
        assert proxy.cuts >= cuts - 1
    assert cuts >= 200
    print(f"{cuts} cuts of requests")


def test_a_write_whose_answer_is_lost_is_an_error_at_once_and_is_not_repeated(
    postgres_server: PostgresServer, postgres_url: str, opened: Open
) -> None:
    with Proxy(postgres_server.port) as proxy:
        storage = _through(proxy, postgres_url, opened)
        storage.write([opening("a")])
        proxy.cut_to_client(1)
        with pytest.raises(StoreUnreachableError):
            storage.write([Write(row("a", 1))])
        assert firsts(storage) == [0, 1]
        assert proxy.cuts == 1


def test_a_batch_whose_commit_is_cut_off_is_there_whole_or_not_at_all(
    postgres_server: PostgresServer, postgres_url: str, opened: Open
) -> None:
    outcomes: set[tuple[int, int]] = set()
    with Proxy(postgres_server.port) as proxy:
        storage = _through(proxy, postgres_url, opened)
        for k in range(0, 9000, 150):
            names = (f"a{k}", f"b{k}")
            storage.entry("warm")
            proxy.cut_to_server(k)
            with suppress(StoreUnreachableError):
                storage.write([opening(names[0]), opening(names[1]), Write(row(names[0], 1))])
            proxy.cut_to_server(None)
            outcomes.add((len(firsts(storage, names[0])), len(firsts(storage, names[1]))))
        assert proxy.cuts > 20
    assert outcomes == {(0, 0), (2, 1)}


def test_a_read_whose_answer_is_lost_is_asked_again(
    postgres_server: PostgresServer, postgres_url: str, opened: Open
) -> None:
    with Proxy(postgres_server.port) as proxy:
        storage = _through(proxy, postgres_url, opened)
        storage.write([opening("a")])
        for k in range(1, 30):
            proxy.cut_to_client(k)
            assert firsts(storage) == [0]
            proxy.cut_to_client(k)
            assert storage.entries(Query())[0].chain_id == "a"
        assert proxy.cuts == 58


def test_a_server_that_does_not_answer_is_an_error_after_the_timeout(
    postgres_server: PostgresServer, postgres_url: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sifaka.storage.postgres.sessions.DEADLINE_SLACK_S", 0.1)
    with Proxy(postgres_server.port) as proxy:
        storage = _through(proxy, postgres_url, opened, timeout_s=0.2)
        storage.write([opening("a")])
        proxy.freeze()
        begun = time.monotonic()
        with pytest.raises(StoreUnreachableError, match="timeout"):
            storage.write([Write(row("a", 1))])
        assert time.monotonic() - begun < 5
        proxy.thaw()
        # The request may arrive only now, or never: either way the place is taken once.
        assert storage.write([Write(row("a", 1))]) in ([True], [False])
        assert firsts(storage) == [0, 1]


def test_a_statement_that_waits_too_long_is_ended_by_the_server(
    postgres_url: str, opened: Open, ask: Ask
) -> None:
    storage = opened(postgres_url, timeout_s=0.2)
    storage.write([opening("a")])
    with psycopg.connect(postgres_url) as holder:
        holder.execute("UPDATE sifaka.chains SET label = 'x'")
        with pytest.raises(StoreUnreachableError, match="in time"):
            storage.write([Write(row("a", 1))])
    assert firsts(storage) == [0]
    assert ask("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]


def test_statements_that_a_pooler_has_forgotten_are_sent_whole(store: PostgresStorage, ask: Ask) -> None:
    store.write([opening("a")])
    for place in range(1, 6):
        assert store.write([Write(row("a", place))]) == [True]
    # As behind a pooler: the same connection, another session on the server.
    link = store._sessions._pool()._idle[-1]
    link.pgconn.exec_(b"DEALLOCATE ALL")  # psycopg would take notice of an execute()
    for place in range(6, 12):
        assert store.write([Write(row("a", place))]) == [True]
    assert ask("SELECT count(*) FROM sifaka.log") == [(12,)]


# Settings ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def careless() -> Iterator[PostgresServer]:
    """A server that syncs nothing."""
    with PostgresServer(settings={"fsync": "off"}) as one:
        yield one


@pytest.fixture(scope="module")
def torn() -> Iterator[PostgresServer]:
    """A server that keeps no whole pages."""
    with PostgresServer(settings={"full_page_writes": "off"}) as one:
        yield one


def test_a_server_in_order_keeps_power(store: PostgresStorage) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.entry("a")
    assert store.durability == "power"


@pytest.mark.parametrize(("which", "setting"), [("careless", "fsync"), ("torn", "full_page_writes")])
def test_a_server_that_may_lose_pages_is_warned_of_once_or_refused(
    which: str, setting: str, request: pytest.FixtureRequest, opened: Open
) -> None:
    url = request.getfixturevalue(which).url
    storage = opened(url)
    with pytest.warns(DurabilityWarning, match=f"{setting} = on") as told:
        storage.entry("a")
    storage.reset()
    storage.entry("a")
    assert len(told) == 1
    assert storage.durability == "server"
    assert any(setting in one for one in storage.complaints())
    with pytest.raises(StorageError, match=f"{setting} = on"):
        opened(url, durability="power").entry("a")
    contented = opened(url, durability="server")
    contented.entry("a")
    assert contented.durability == "server"


OFF = "?options=-c%20synchronous_commit%3Doff"


@pytest.mark.parametrize(
    ("asked", "kept", "setting"),
    [
        (None, "power", "on"),
        ("power", "power", "on"),
        ("server", "power", "on"),
        ("process", "process", "off"),
    ],
)
def test_commits_are_synchronous_unless_less_was_asked_for(
    asked: Durability | None, kept: Durability, setting: str, postgres_url: str, opened: Open
) -> None:
    storage = opened(postgres_url + OFF, durability=asked)
    storage.entry("a")
    assert storage.durability == kept
    with storage._sessions.use() as link:
        assert link.execute("SHOW synchronous_commit").fetchall() == [(setting,)]


@pytest.mark.parametrize("setting", ["on", "local", "remote_apply"])
def test_a_setting_that_keeps_enough_is_left_alone(setting: str, postgres_url: str, opened: Open) -> None:
    storage = opened(f"{postgres_url}?options=-c%20synchronous_commit%3D{setting}")
    with storage._sessions.use() as link:
        assert link.execute("SHOW synchronous_commit").fetchall() == [(setting,)]
    assert storage.durability == "power"


def test_a_superuser_is_complained_of(
    store: PostgresStorage, postgres_url: str, opened: Open, ask: Ask
) -> None:
    assert [one for one in store.complaints() if "superuser" in one]
    ask("DROP ROLE IF EXISTS plain")
    ask("CREATE ROLE plain LOGIN")
    ask("GRANT USAGE ON SCHEMA sifaka TO plain")
    ask("GRANT ALL ON ALL TABLES IN SCHEMA sifaka TO plain")
    plain = opened(postgres_url.replace("sifaka@", "plain@"))
    assert plain.complaints() == []
    assert plain.write([opening("a")]) == [True]
    plain.close()
    ask("DROP OWNED BY plain")
    ask("DROP ROLE plain")


def test_missing_rights_are_said_with_the_way_out(
    store: PostgresStorage, postgres_url: str, opened: Open, ask: Ask
) -> None:
    store.entry("a")
    ask("DROP ROLE IF EXISTS nobody_here")
    ask("CREATE ROLE nobody_here LOGIN")
    begun = time.monotonic()
    with pytest.raises(StorageError, match="grant this user") as caught:
        opened(postgres_url.replace("sifaka@", "nobody_here@")).entry("a")
    assert not isinstance(caught.value, StoreUnreachableError)
    assert time.monotonic() - begun < 5
    ask("DROP ROLE nobody_here")


def test_a_standby_is_refused_with_advice(store: PostgresStorage, postgres_url: str, opened: Open) -> None:
    """As a standby does, a read-only session refuses to write."""
    store.write([opening("a")])
    standby = opened(postgres_url + "?options=-c%20default_transaction_read_only%3Don")
    assert firsts(standby) == [0]
    with pytest.raises(StorageError, match="target_session_attrs"):
        standby.write([Write(row("a", 1))])


def test_a_database_in_another_encoding_is_refused(postgres_server: PostgresServer, opened: Open) -> None:
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS latin WITH (FORCE)")
        admin.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(StorageError, match="UTF8"):
        opened(postgres_server.url_of("latin")).entry("a")


# Addresses ---------------------------------------------------------------------------------


def test_a_wrong_password_is_said_at_once_and_is_in_no_message(server: PostgresServer, opened: Open) -> None:
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("CREATE ROLE strict LOGIN PASSWORD 'right'")
    access = Path(server.folder, "data", "pg_hba.conf")
    access.write_text("host all strict all scram-sha-256\n" + access.read_text())
    server.restart()
    url = server.url.replace("sifaka@", "strict:hunter2@")
    with pytest.raises(StorageError, match="refused the connection") as caught:
        opened(url).entry("a")
    assert not isinstance(caught.value, StoreUnreachableError)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=me&password=hunter2",
        "postgresql://me:hun%74er2@127.0.0.1:1/db?sslpassword=hunter2",
    ],
)
def test_no_password_is_shown_whatever_the_address(url: str, opened: Open) -> None:
    storage = opened(url, timeout_s=0.2)
    with pytest.raises(StorageError) as caught:
        storage.write([opening("a")])
    for shown in (storage.url, str(caught.value), repr(caught.value.__cause__)):
        assert "hunter2" not in shown
        assert "hun%74er2" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p%ss@host/db",
        "postgresql://me:x@p%ss@host/db",
        "host=localhost",
        "postgresql://h/db?nonsense=1",
    ],
)
def test_an_address_that_is_none_is_the_callers_error(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        PostgresStorage(url)
    assert "p%ss" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("schema", ["a-b", 'x"; drop table y; --', "", "A", "a" * 64, "a.b", "é"])
def test_a_schema_whose_name_is_not_plain_is_refused(schema: str) -> None:
    with pytest.raises(UsageError, match="schema"):
        PostgresStorage(f"postgresql://host/db?schema={schema or '%20'}")


def test_schema_and_durability_may_stand_in_the_address(postgres_url: str, opened: Open, ask: Ask) -> None:
    storage = opened(f"{postgres_url}?schema=user&durability=process&application_name=mine")
    storage.write([opening("a")])
    assert ask('SELECT id FROM "user".chains') == [("a",)]
    assert ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mine'") == [(1,)]
    with pytest.raises(UsageError, match="durability"):
        opened(f"{postgres_url}?durability=always")


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("address", "connections", "errors", "sessions"):
        monkeypatch.delitem(sys.modules, f"sifaka.storage.postgres.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sifaka\[postgres\]'"):
        PostgresStorage("postgresql://host/db")


# Making the tables -------------------------------------------------------------------------


def test_many_may_make_the_store_at_once(postgres_url: str, opened: Open) -> None:
    for schema in ("one", "two", "three"):
        stores = [opened(postgres_url, schema=schema) for _ in range(8)]
        start = threading.Barrier(8)

        def make(one: PostgresStorage, name: str, start: threading.Barrier = start) -> list[bool]:
            start.wait()
            return one.write([opening(name)])

        answers = [_in_thread(partial(make, one, f"run {n}")) for n, one in enumerate(stores)]
        assert [answer() for answer in answers] == [[True]] * 8
        assert len(stores[0].entries(Query())) == 8
        for one in stores:
            one.close()


def test_who_only_looks_makes_nothing(postgres_url: str, opened: Open, ask: Ask) -> None:
    with pytest.raises(StoreUnreachableError, match="no sifaka store"):
        opened(postgres_url, create=False).entry("a")
    assert ask("SELECT to_regnamespace('sifaka') IS NULL") == [(True,)]


def test_a_schema_made_by_an_administrator_is_enough(postgres_url: str, opened: Open, ask: Ask) -> None:
    """Who owns a schema need not have the right to make one."""
    ask("DROP ROLE IF EXISTS tenant")
    ask("CREATE ROLE tenant LOGIN")
    ask("CREATE SCHEMA sifaka AUTHORIZATION tenant")
    tenant = opened(postgres_url.replace("sifaka@", "tenant@"))
    assert tenant.write([opening("a")]) == [True]
    tenant.close()
    ask("DROP SCHEMA sifaka CASCADE")
    ask("DROP ROLE tenant")


def test_a_newer_format_is_refused_and_left_untouched(
    store: PostgresStorage, postgres_url: str, opened: Open, ask: Ask
) -> None:
    store.write([opening("a")])
    ask("UPDATE sifaka.format SET version = 99")
    with pytest.raises(FormatError, match="99"):
        opened(postgres_url).write([opening("b")])
    with pytest.raises(FormatError, match="99"):
        opened(postgres_url, create=False).entry("a")
    assert ask("SELECT id FROM sifaka.chains") == [("a",)]


def test_two_schemas_see_nothing_of_each_other(postgres_url: str, opened: Open) -> None:
    one, two = opened(postgres_url, schema="one"), opened(postgres_url, schema="two")
    assert one.write([opening("a")]) == two.write([opening("a")]) == [True]
    one.swap("cell", b"1", 0)
    entry = two.entry("a")
    assert entry is not None
    assert two.delete([entry]) == 0
    assert two.entry("a") is None
    assert two.cell_names() == []
    assert firsts(one) == [0]


# Hostile texts -----------------------------------------------------------------------------

PAYLOADS = (
    "'; DROP TABLE sifaka.chains; --",
    '"; DROP SCHEMA sifaka CASCADE; --',
    "' OR '1'='1",
    "$1",
    "%s",
    "%(id)s",
    "{s}",
    "\\'; --",
    "E'\\x00'",
    "{a,b}",
    '{"a"}',
    "NULL",
    "a\0b",
    "\0",
    "\1",
    "\1\1",
    "\0\1\2",
    "\2",
    "\U0010ffff",
    "\ud7ff\ue000",
    "%",
    "_",
    "a" * 200,
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_is_nothing_but_a_text_wherever_it_stands(store: PostgresStorage, payload: str) -> None:
    model = InMemoryStorage()
    change = Change("failed", 5.0, payload, payload)
    for one in (model, store):
        one.write([opening("other"), opening(payload, label=payload, reason=payload, group="g")])
        one.write([Write(row(payload, 1), change), Write(row(payload, 1)), Write(row(payload, 2))])
        one.claim(payload, 1, payload.encode(), 2.0)
        one.renew([Renewal(payload, 2, payload.encode(), 3.0), Renewal(payload, 9, b"", 0.0)])
        one.swap(payload, payload.encode(), 0)
        one.swap(payload + "x", b"", 0)
    assert store.entry(payload) == model.entry(payload)
    assert list(store.rows(payload)) == list(model.rows(payload))
    for query in (Query(), Query(group=payload), Query(label=payload), Query(after=model.entry(payload))):
        assert store.entries(query) == model.entries(query)
    assert store.cells([payload, "none"]) == model.cells([payload, "none"])
    for prefix, after in ((payload, ""), ("", payload), (payload, payload)):
        assert store.cell_names(prefix, after) == model.cell_names(prefix, after)
    entry = model.entry(payload)
    assert entry is not None
    assert store.delete([entry]) == model.delete([entry])
    assert [one.chain_id for one in store.entries(Query())] == ["other"]


@pytest.fixture
def worldly_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database that sorts texts as a dictionary does."""
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS worldly WITH (FORCE)")
        admin.execute(
            "CREATE DATABASE worldly TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ENCODING 'UTF8'"
        )
    yield postgres_server.url_of("worldly")
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        admin.execute("DROP DATABASE worldly WITH (FORCE)")


def test_names_sort_by_code_point_whatever_they_hold(worldly_url: str, opened: Open) -> None:
    store = opened(worldly_url)
    chance, model = random.Random(3), InMemoryStorage()
    letters = "\0\1\2aAé\uffee\U0001f600"
    names = {"".join(chance.choices(letters, k=chance.randrange(5))) for _ in range(150)}
    for name in names:
        assert store.swap(name, b"", 0)
        model.swap(name, b"", 0)
    for prefix in ("", *letters, "\0\1", "a\0"):
        for after in ("", "\1", "a", "\uffee\0"):
            assert store.cell_names(prefix, after) == model.cell_names(prefix, after)
    for one in (model, store):
        one.write([opening(name or "-", group=name, label=name) for name in names])
    assert store.entries(Query(limit=500)) == model.entries(Query(limit=500))
    middle = store.entries(Query(limit=70))[-1]
    assert store.entries(Query(after=middle, limit=500)) == model.entries(Query(after=middle, limit=500))


def test_a_text_that_is_no_unicode_is_one_typed_error(store: PostgresStorage) -> None:
    with pytest.raises(UnstorableError, match="surrogates"):
        store.write([opening("\ud800")])
    assert store.write([opening("a")]) == [True]


# Size --------------------------------------------------------------------------------------


def test_a_page_of_fifty_of_many_is_quick_and_pages_join(store: PostgresStorage, ask: Ask) -> None:
    store.entry("a")
    ask(
        "INSERT INTO sifaka.chains (id, token, owner, lease_until, status, reason, grp, label, until, opened_at,"
        " updated_at, last, records, checkpoints, raw, stored) SELECT 'run ' || n, 1, '', 0,"
        " CASE WHEN n % 10000 = 0 THEN 'waiting' ELSE 'done' END, '',"
        " CASE WHEN n % 5000 = 1 THEN 'g' ELSE '' END, CASE WHEN n % 5000 = 2 THEN 'l' ELSE '' END,"
        " 0, n, n / 3, 0, 1, 0, 0, 0 FROM generate_series(1, 100000) AS n"
    )
    ask("ANALYZE sifaka.chains")
    seen: list[str] = []
    page: list[Entry] = []
    for _ in range(20):
        page = store.entries(Query(limit=50, after=page[-1] if page else None))
        seen += [one.chain_id for one in page]
    assert seen == [one.chain_id for one in store.entries(Query(limit=1000))]
    middle = store.entries(Query(limit=50_000))[-1]
    queries = {
        "newest": (Query(), 50),
        "deep": (Query(after=middle), 50),
        "rare": (Query(statuses=("waiting", "interrupted")), 10),
        "one status": (Query(statuses=("done",), after=middle), 50),
        "group": (Query(group="g"), 20),
        "label": (Query(label="l", statuses=("done",)), 20),
        "old": (Query(updated_before=20.0), 50),
    }
    for name, (query, count) in queries.items():
        took: list[float] = []
        for _ in range(5):
            begun = time.perf_counter()
            assert len(store.entries(query)) == count, name
            took.append(time.perf_counter() - begun)
        print(f"{name}: {min(took) * 1000:.1f} ms")
        assert min(took) <= 0.05, name


def test_a_long_run_is_measured_by_its_counters_and_read_in_pages(store: PostgresStorage, ask: Ask) -> None:
    store.write([opening("a")])
    for first in range(1, 301):
        store.write([Write(row("a", first, checkpoints=first % 2, frame=b"x" * first))])
    counted = ask("SELECT sum(raw), sum(octet_length(frame)), sum(checkpoints), min(at) FILTER (WHERE checkpoints > 0)"
                  " FROM sifaka.log")  # fmt: skip
    found = store.measure()
    assert [
        (found["raw_bytes"], found["stored_bytes"], found["total_checkpoints"], found["oldest_checkpoint"])
    ] == counted
    assert firsts(store) == list(range(301))
    backwards = [one.first for one in store.rows("a", 7, 290, newest_first=True)]
    assert backwards == list(range(290, 6, -1))
    (size,) = ask("SELECT pg_total_relation_size('sifaka.log')")[0]
    assert found["storage_size_bytes"] > size


def test_an_append_touches_no_index_of_the_entries(store: PostgresStorage, ask: Ask) -> None:
    store.write([opening("a")])
    for first in range(1, 200):
        store.write([Write(row("a", first))])
    store.close()
    ask("SELECT pg_stat_force_next_flush()")
    limit = time.monotonic() + 10
    while True:
        ((updates, hot),) = ask(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'chains'"
        )
        if updates >= 199 or time.monotonic() > limit:
            break
    assert updates == 199
    assert hot >= 190


def _files_of(server: PostgresServer, database: str) -> Iterator[Path]:
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("CHECKPOINT")
        found = admin.execute("SELECT oid FROM pg_database WHERE datname = %s", (database,)).fetchall()
    yield from Path(server.folder, "data", "base", str(found[0][0])).iterdir()


def test_deleted_texts_are_in_no_table_file_after_compaction(
    store: PostgresStorage, postgres_server: PostgresServer, postgres_url: str
) -> None:
    database, canary = postgres_url.rpartition("/")[2], b"canary " * 20
    store.write([opening("keep"), Write(row("keep", 1, frame=b"kept"))])
    store.write([opening("a", reason="canary reason")])
    store.write([Write(row("a", 1, frame=canary)), Write(row("a", 2, frame=canary * 100))])

    def holders() -> int:
        return sum(
            b"canary" in one.read_bytes() for one in _files_of(postgres_server, database) if one.is_file()
        )

    assert holders() >= 2
    entry = store.entry("a")
    assert entry is not None
    store.delete([entry])
    store.compact()
    assert holders() == 0
    assert firsts(store, "keep") == [0, 1]


def test_compaction_does_not_hold_up_a_running_chain(store: PostgresStorage, postgres_url: str) -> None:
    store.write([opening("a")])
    with psycopg.connect(postgres_url) as reader:  # somebody's long transaction is in the way of a rewrite
        reader.execute("SELECT * FROM sifaka.log").fetchall()
        done = _in_thread(store.compact)
        for place in range(1, 50):
            assert store.write([Write(row("a", place))]) == [True]
        assert done() is None
    assert firsts(store) == list(range(50))


# Time --------------------------------------------------------------------------------------


def test_leases_go_by_the_servers_clock(store: PostgresStorage, ask: Ask) -> None:
    ((theirs,),) = ask("SELECT extract(epoch FROM clock_timestamp())::float8")
    assert abs(store.now() - theirs) < 1.0


def test_a_wrong_clock_of_this_machine_does_not_matter(
    store: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time()
    monkeypatch.setattr(time, "time", lambda: right + 10 * 365 * 86_400)
    assert abs(store.now() - right) < 5.0


def test_a_clock_that_is_given_is_the_stores_clock(postgres_url: str, opened: Open) -> None:
    clock = FakeClock()
    storage = opened(postgres_url, clock=clock)
    before = storage.now()
    storage.entry("a")
    clock.advance(3600.0)
    assert storage.now() == before + 3600.0


def test_asking_for_the_time_asks_nobody(server: PostgresServer, opened: Open) -> None:
    storage = opened(server.url)
    before = storage.now()
    server.kill()
    assert before <= storage.now() < before + 60


# Values on their way -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        (Integers, [0, 1, -1, 2**63 - 1, -(2**63)], "bigint"),
        (Floats, [0.0, -0.5, 1e300, float("inf")], "float8"),
        (Texts, ["", "a", "é\U0001f600", '{,}"\\'], "text"),
        (Bytes, [b"", b"\x00\xff", b"a" * 5_000], "bytea"),
        (Bools, [True, False, True], "bool"),
    ],
)
def test_a_column_arrives_as_it_was_given(
    store: PostgresStorage, column: type[list[Any]], values: list[Any], kind: str
) -> None:
    statement = f"SELECT %b::{kind}[], array_length(%b::{kind}[], 1)"
    found = store._sessions.select(statement, (column(values), column(values)))
    assert found == [(values, len(values))]


def prepared(storage: PostgresStorage) -> None:
    """Open run "a" with records 0 to 3; its next append goes by the statement's name."""
    storage.write([opening("a")])
    for place in range(1, 4):
        assert storage.write([Write(row("a", place))]) == [True]


def test_a_session_that_is_ended_amid_a_prepared_append_is_an_error_that_says_so(
    store: PostgresStorage, postgres_url: str, ask: Ask
) -> None:
    prepared(store)
    waits = "FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with psycopg.connect(postgres_url) as holder, ThreadPoolExecutor(1) as threads:
        holder.execute("UPDATE sifaka.chains SET label = 'x'")
        write = threads.submit(store.write, [Write(row("a", 4))])
        while not ask(f"SELECT pg_terminate_backend(pid) {waits}"):
            assert not write.done()
        with pytest.raises(StoreUnreachableError, match="the server ended the connection"):
            write.result(10)
    assert firsts(store) == [0, 1, 2, 3]
    assert store.write([Write(row("a", 4))]) == [True]


def test_a_prepared_append_that_is_not_answered_is_an_error_after_the_timeout(
    postgres_server: PostgresServer, postgres_url: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sifaka.storage.postgres.sessions.DEADLINE_SLACK_S", 0.1)
    with Proxy(postgres_server.port) as proxy:
        storage = _through(proxy, postgres_url, opened, timeout_s=0.2)
        prepared(storage)
        proxy.freeze()
        with pytest.raises(StoreUnreachableError, match="timeout"):
            storage.write([Write(row("a", 4))])
        proxy.thaw()
        assert storage.write([Write(row("a", 4))]) in ([True], [False])
        assert firsts(storage) == [0, 1, 2, 3, 4]


def test_a_prepared_append_is_one_round_trip(store: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(store)
    link = store._sessions._pool()._idle[-1]
    sent: list[object] = []
    wait = link.wait

    def counted(*given: Any, **named: Any) -> Any:
        sent.append(given)
        return wait(*given, **named)

    monkeypatch.setattr(link, "wait", counted)
    assert store.write([Write(row("a", 4))]) == [True]
    assert store.write([Write(row("a", 4))]) == [False]
    assert len(sent) == 2
    assert firsts(store) == [0, 1, 2, 3, 4]
