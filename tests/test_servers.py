"""What the kit's servers promise: they are real, keep their data over a kill, and outlive nobody."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis

from sifaka.errors import StoreUnreachableError, UsageError
from sifaka.testing.servers import MilvusServer, PostgresServer, RedisServer, Server, base, folders, missing

Make = Callable[[], Server]
both = pytest.mark.parametrize("make", [RedisServer, PostgresServer], ids=["redis", "postgres"])
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def processes(mark: str) -> list[int]:
    """All living processes whose command line, or whose data folder, names ``mark``."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path("/proc", name, "cmdline").read_bytes().decode(errors="replace")
            where = os.readlink(f"/proc/{name}/cwd")
        except OSError:
            continue
        if mark in command or mark in where:
            found.append(int(name))
    return found


def listening(port: int) -> list[str]:
    """The addresses, as the kernel's tables have them, that listen on a port here."""
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()
    ]
    return [
        where[1].split(":")[0] for where in lines if where[1].endswith(f":{port:04X}") and where[3] == "0A"
    ]


def segments(creator: int) -> int:
    """How many pieces of System V shared memory a process made that are still there."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()
    creators = [line.split()[lines[0].split().index("cpid")] for line in lines[1:]]
    return creators.count(str(creator))


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def ask(server: Server) -> None:
    """Talk to it as a client would."""
    if isinstance(server, RedisServer):
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    else:
        psycopg.connect(server.url).close()


@both
def test_a_started_server_answers_its_client_and_a_closed_one_is_gone_with_its_folder(make: Make):
    with make() as server:
        ask(server)
        assert server.running
        assert server.pid > 0
        assert os.path.isdir(server.folder)
    assert not server.running
    assert not os.path.exists(server.folder)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


@linux
@both
def test_a_server_listens_on_loopback_alone(make: Make):
    with make() as server:
        assert listening(server.port) == ["0100007F"]


@pytest.mark.parametrize("end", ["kill", "stop", "restart"])
def test_redis_keeps_acknowledged_writes_and_its_port(end: str):
    with RedisServer() as server:
        port, pid = server.port, server.pid
        with redis.Redis.from_url(server.url) as client:
            client.set("word", "kept")
        getattr(server, end)()
        server.start()
        assert (server.port, server.pid != pid) == (port, True)
        with redis.Redis.from_url(server.url) as client:
            assert client.get("word") == b"kept"


def test_redis_without_its_log_forgets_all_when_killed():
    with RedisServer(appendonly=False) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("word", "lost")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("word") is None


@pytest.mark.parametrize("end", ["kill", "stop", "restart"])
def test_postgres_keeps_commits_and_its_port(end: str):
    with PostgresServer() as server:
        port, pid = server.port, server.pid
        with psycopg.connect(server.url) as client:
            client.execute("CREATE TABLE words (word text)")
            client.execute("INSERT INTO words VALUES ('kept')")
        getattr(server, end)()
        server.start()
        assert (server.port, server.pid != pid) == (port, True)
        with psycopg.connect(server.url) as client:
            assert client.execute("SELECT word FROM words").fetchall() == [("kept",)]


def test_settings_reach_redis_and_a_durable_log_is_the_default():
    with (
        RedisServer(appendfsync="everysec", extra=("--maxmemory", "5mb")) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.config_get("appendfsync", "maxmemory") == {
            "appendfsync": "everysec",
            "maxmemory": "5242880",
        }
    durable = {"appendfsync": "always", "appendonly": "yes", "save": ""}
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get(*durable) == durable


def test_settings_reach_postgres_and_durable_commits_are_the_default():
    with PostgresServer(settings={"work_mem": "5MB"}) as server, psycopg.connect(server.url) as client:
        shown = [
            client.execute(f"SHOW {name}").fetchone() for name in ("work_mem", "fsync", "synchronous_commit")
        ]
        assert shown == [("5MB",), ("on",), ("on",)]


@linux
@both
def test_after_a_kill_no_process_of_the_server_is_left(make: Make):
    with make() as server:
        clients = [psycopg.connect(server.url) for _ in range(3)] if make is PostgresServer else []
        assert server.pid in processes(server.folder)
        assert segments(server.pid) == (1 if clients else 0)
        pid = server.pid
        server.kill()
        assert processes(server.folder) == []
        assert segments(pid) == 0
        for client in clients:
            client.close()


def test_a_killed_backend_breaks_connections_and_postgres_goes_on():
    with PostgresServer() as server:
        victim, other = psycopg.connect(server.url), psycopg.connect(server.url)
        pid = server.pid
        server.kill_backend(victim.info.backend_pid)
        server.wait()
        for broken in victim, other:
            with pytest.raises(psycopg.OperationalError):
                broken.execute("SELECT 1")
            broken.close()
        ask(server)
        assert server.pid == pid


@linux
def test_only_a_backend_of_this_server_is_killed():
    with PostgresServer() as server, pytest.raises(UsageError, match="no backend"):
        server.kill_backend(os.getpid())


@both
def test_a_server_that_dies_by_itself_is_seen_and_can_be_started_again(make: Make):
    with make() as server:
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not server.running)
        with pytest.raises(UsageError, match="does not run"):
            _ = server.pid
        server.start()
        ask(server)


def test_a_stopped_process_answers_nobody_until_it_is_continued():
    with RedisServer() as server:
        server.signal(signal.SIGSTOP)
        with (
            redis.Redis.from_url(server.url, socket_timeout=0.1, retry=None) as client,
            pytest.raises(redis.TimeoutError),
        ):
            client.ping()
        server.signal(signal.SIGCONT)
        server.wait()


@linux
@both
def test_extra_environment_reaches_the_server(make: Make):
    server = make()
    server.env["LD_PRELOAD"] = "/no/such/shim.so"  # the loader tells of it, and goes on
    with server:
        assert "/no/such/shim.so" in Path(server.folder, "server.log").read_text()


def test_a_port_that_somebody_took_is_given_up_for_another(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        offered = [taken.getsockname()[1], free.getsockname()[1]]
        free.close()
        ports = iter(offered)
        monkeypatch.setattr(base, "_free_port", lambda: next(ports))
        with RedisServer() as server:
            assert server.port == offered[1]
            ask(server)


def test_another_server_on_the_port_is_not_taken_for_ours(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(base, "_free_port", lambda: redis_server.port)
    with pytest.raises(StoreUnreachableError, match="already in use"), RedisServer():
        pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RedisServer(extra=("--no-such-setting", "1")), "Bad directive"),
        (lambda: PostgresServer(settings={"no_such_setting": "1"}), "unrecognized configuration parameter"),
    ],
    ids=["redis", "postgres"],
)
def test_a_server_that_cannot_start_says_why_in_its_own_words(make: Make, said: str):
    server = make()
    with pytest.raises(StoreUnreachableError, match=said), server:
        pass
    assert not os.path.exists(server.folder)


def test_a_server_too_slow_to_answer_is_killed_and_the_error_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(RedisServer, "is_ready", lambda _self: False)
    monkeypatch.setattr(RedisServer, "start_s_max", 0.1)
    server = RedisServer()
    with (
        pytest.raises(
            StoreUnreachableError, match=re.compile("no answer within 0 s.*Ready to accept", re.DOTALL)
        ),
        server,
    ):
        pass
    assert not server.running


def test_a_folder_of_the_users_own_is_kept(tmp_path: Path):
    with RedisServer(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as client:
        client.set("word", "kept")
    with RedisServer(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as client:
        assert client.get("word") == b"kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run Postgres as another user")
def test_postgres_started_by_root_runs_as_another_user_and_says_when_that_one_cannot_reach_the_folder(
    postgres_server: PostgresServer, tmp_path: Path
):
    assert os.stat(f"/proc/{postgres_server.pid}").st_uid != 0
    tmp_path.chmod(0o700)
    with pytest.raises(UsageError, match="cannot pass"), PostgresServer(tmp_path / "below"):
        pass


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    assert missing() == []
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("glob.glob", lambda _pattern: [])
    assert missing() == ["redis-server", "postgresql"]
    with pytest.raises(UsageError, match="apt-get install redis-server"), RedisServer():
        pass


OWNER = """
import json, os, signal, sys, threading
from sifaka.testing.servers import PostgresServer, RedisServer
servers = [RedisServer(), PostgresServer()]
starters = [threading.Thread(target=server.start) for server in servers]
for starter in starters: starter.start()
for starter in starters: starter.join()
said = [[server.folder, server.pid, server.port] for server in servers]
passing = os.fork()
if passing == 0:
    sys.exit()
os.waitpid(passing, 0)
lasting = os.fork()
if lasting == 0:
    signal.pause()
print(json.dumps({"servers": said, "lasting": lasting}), flush=True)
sys.stdin.readline()
"""


@linux
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, None], ids=["killed", "interrupted", "ended"])
def test_servers_and_folders_go_with_the_process_that_started_them(how: signal.Signals | None):
    # They were started in threads that are over at once; one forked copy of their owner has ended in the
    # ordinary way, another one lives on. None of this may end the servers early, or keep them.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", OWNER], **pipes) as owner:
        said = json.loads(owner.stdout.readline())
        try:
            for folder, pid, port in said["servers"]:
                assert pid in processes(folder)
                socket.create_connection(("127.0.0.1", port)).close()
            end(owner, how)
            for folder, _, _ in said["servers"]:
                until(lambda folder=folder: processes(folder) == [])
                until(lambda folder=folder: not os.path.exists(os.path.dirname(folder)))
        finally:
            os.kill(said["lasting"], signal.SIGKILL)
            owner.kill()


def end(process: subprocess.Popen[bytes], how: signal.Signals | None) -> None:
    if how is not None:
        process.send_signal(how)
        assert process.wait(20) == -how
    else:
        assert process.stdin is not None
        process.stdin.write(b"end\n")
        process.stdin.flush()
        assert process.wait(20) == 0


@linux
@both
def test_a_server_dies_with_its_guard(make: Make):
    with make() as server:
        assert server._guard is not None
        pid = server.pid
        server._guard.kill()
        until(lambda: processes(server.folder) == [] and not os.path.exists(f"/proc/{pid}"))
        server.start()
        ask(server)


def test_the_fixtures_give_each_test_an_empty_namespace(redis_url: str, postgres_url: str):
    emptied(redis_url, postgres_url)


def test_the_fixtures_give_each_test_an_empty_namespace_again(redis_url: str, postgres_url: str):
    emptied(redis_url, postgres_url)


def emptied(redis_url: str, postgres_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("word", "mine")
    with psycopg.connect(postgres_url) as session:
        session.execute("CREATE TABLE words (word text)")


def test_folders_for_servers_can_be_passed_by_every_user_and_read_by_none():
    folder = folders.new_folder("any")
    assert folders.is_reachable(os.path.dirname(folder))
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert os.stat(os.path.dirname(folder)).st_mode & 0o777 == 0o711


@pytest.mark.slow
def test_milvus_answers_its_client_from_a_network_of_its_own(milvus_server: MilvusServer):
    from pymilvus import MilvusClient

    client = MilvusClient(uri=milvus_server.url)
    client.create_collection("answers", dimension=4, consistency_level="Strong", metric_type="L2")
    client.insert("answers", [{"id": number, "vector": [float(number)] * 4} for number in range(5)])
    found = client.search("answers", data=[[3.1] * 4], limit=2)
    client.close()
    assert [hit["id"] for hit in found[0]] == [3, 4]
    assert listening(milvus_server.port) == ["0100007F"]
    assert listening(19530) == listening(9091) == []
    assert os.listdir(f"/proc/{milvus_server.pid}/root/run") == ["milvus"]


@pytest.mark.slow
def test_milvus_keeps_its_collections_over_a_kill(milvus_server: MilvusServer):
    from pymilvus import MilvusClient

    client = MilvusClient(uri=milvus_server.url)
    client.create_collection("kept", dimension=4)
    client.close()
    milvus_server.kill()
    assert processes(milvus_server.folder) == []
    milvus_server.start()
    client = MilvusClient(uri=milvus_server.url)
    assert "kept" in client.list_collections()
    client.close()


@pytest.mark.slow
def test_two_milvus_servers_do_not_meet(milvus_server: MilvusServer):
    from pymilvus import MilvusClient

    with MilvusServer() as other:
        first, second = (MilvusClient(uri=server.url) for server in (milvus_server, other))
        second.create_collection("only_here", dimension=4)
        assert ("only_here" in first.list_collections(), second.list_collections()) == (False, ["only_here"])
        first.close()
        second.close()
