"""What a power cut may do to the servers' stores: nothing to what was acknowledged, by the settings they state.

The server runs below the shim, which records what it writes and syncs; each cut's files are given to a new
server, which has to find every append that was acknowledged before the cut.

Two things are known of Redis, whose file has no checksums. After some cuts it refuses to start, because the
file's length reached the disk and the last write did not: ``redis-check-aof --fix`` takes the zeros behind
the last whole command away, and nothing else is missing. After others the last append, which nobody was told
of, is there with a hole in it: our checksum finds and names it, and a fork goes on from the record before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from powercut import Call, Cut, cuts, put, read_trace
from shim import Shim, library
from shim.victim import record
from sifaka.errors import DamagedRecordError, SifakaError, StoreUnreachableError
from sifaka.log.records import Record
from sifaka.storage.base import Storage
from sifaka.storage.journal import Journal
from sifaka.storage.postgres import PostgresStorage
from sifaka.storage.reading import read
from sifaka.storage.redis import RedisStorage
from sifaka.testing.servers import PostgresServer, RedisServer
from sifaka.testing.servers.folders import new_folder
from sifaka.testing.servers.postgres import postgres_program
from soak import scaled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the shim is loaded by LD_PRELOAD, which is Linux's"),
]

RUNS = ("a", "b")
APPENDS = 30
SIZE = 200


def write_runs(storage: Storage, shim: Shim, halfway: Callable[[], object], size: int) -> None:
    """Two runs in turn; each acknowledgement is marked in the trace."""
    journal = Journal(storage)
    leases = [journal.claim(run) for run in RUNS]
    for n in range(APPENDS):
        if n == APPENDS // 2:
            halfway()
        for lease in leases:
            journal.append(lease, [record(lease.chain_id, n, size)])
            shim.mark(f"{lease.chain_id}:{n}")


class Found(NamedTuple):
    """What a server had after a cut: acknowledged appends that are missing, and unacknowledged ones damaged."""

    missing: int
    damaged: int
    mended: bool = False


def find(storage: Storage, marks: frozenset[str], size: int) -> Found:
    """Compare what is there with what was acknowledged; nothing else than what was appended is there."""
    told = Counter(mark.partition(":")[0] for mark in marks)
    missing = damaged = 0
    for run in RUNS:
        stored: list[Record] = []
        try:
            stored.extend(read(storage, run) if storage.entry(run) else ())
        except DamagedRecordError as error:
            assert error.first == error.last == len(stored) == told[run], "an acknowledged append is damaged"
            damaged += 1
        assert stored == [record(run, n, size) for n in range(len(stored))], "other records than appended"
        assert len(stored) + damaged <= told[run] + 1
        missing += max(0, told[run] - len(stored))
    return Found(missing, damaged)


def broken(restart: Callable[[Traced, Cut], Found], traced: Traced, count: int) -> int:
    """How many cuts of a careless server's trace the test notices: by what is missing, or worse."""
    noticed = 0
    for cut in traced.cuts(count):
        try:
            noticed += restart(traced, cut).missing > 0
        except (AssertionError, SifakaError, subprocess.CalledProcessError):
            noticed += 1
    return noticed


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by path."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def folders_of(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in folder.rglob("*") if path.is_dir()]


# Redis --------------------------------------------------------------------------------------


class Traced:
    """A trace of a server, and what was there before."""

    def __init__(self, folder: Path, base: dict[str, bytes], calls: list[Call], size: int) -> None:
        self.size = size
        self.folder = folder
        self.base = base
        self.calls = calls
        self.folders = folders_of(folder)
        self.marks = 0
        """Appends that were acknowledged before the cuts so far."""

    def cuts(self, count: int) -> Iterator[Cut]:
        for cut in cuts(self.calls, count, 7, base=self.base, file_sync_keeps_name=True):
            self.marks += len(cut.marks)
            yield cut

    def put(self, cut: Cut, target: Path) -> None:
        for folder in self.folders:
            (target / folder).mkdir(parents=True, exist_ok=True)
        put(cut.files, self.folder, target)


def trace_redis(scratch: Path, appendfsync: str, size: int = SIZE) -> Traced:
    """Two runs in a Redis, which rewrites its file halfway."""
    import redis

    with RedisServer(appendfsync=appendfsync) as server:
        shim = Shim(Path(server.folder), scratch)
        server.env = shim.environment()
        server.restart()
        base = files_of(shim.folder)
        storage = RedisStorage(server.url, durability="server")
        storage.entry("it connects")
        shim.tracing(True)
        with redis.Redis.from_url(server.url) as client:
            write_runs(storage, shim, client.bgrewriteaof, size)
            while client.info("persistence")["aof_rewrite_in_progress"]:
                pass  # it answers when it has gone on
        shim.tracing(False)
        storage.close()
        return Traced(shim.folder, base, read_trace(shim.trace), size)


def mend(folder: Path) -> None:
    """What the operator does when Redis does not start because of the end of its file."""
    for part in folder.glob("*.incr.aof"):
        subprocess.run(
            ["redis-check-aof", "--fix", str(part)], input="y\n", text=True, capture_output=True, check=True
        )


def restart_redis(traced: Traced, cut: Cut) -> Found:
    """What a Redis on the cut's files has, and whether it had to be mended."""
    folder = Path(new_folder("redis"))
    traced.put(cut, folder)
    server, mended = RedisServer(folder), False
    try:
        try:
            server.start()
        except StoreUnreachableError as error:
            assert "Bad file format reading the append only file" in str(error)
            mend(folder / "appendonlydir")
            server.start()
            mended = True
        storage = RedisStorage(server.url)
        found = find(storage, cut.marks, traced.size)
        storage.close()
    finally:
        server.close()
        shutil.rmtree(folder)
    return found._replace(mended=mended)


@pytest.mark.parametrize("size", [SIZE, 3000], ids=["short records", "long records"])
def test_redis_with_always_keeps_every_acknowledged_append_through_a_power_cut(
    tmp_path: Path, size: int
) -> None:
    traced = trace_redis(tmp_path, "always", size)
    assert sum(call.op == "E" for call in traced.calls) >= len(RUNS) * APPENDS, "it does not sync each append"
    found = [restart_redis(traced, cut) for cut in traced.cuts(scaled(120))]
    assert sum(one.missing for one in found) == 0
    mended, damaged = sum(one.mended for one in found), sum(one.damaged for one in found)
    print(
        f"redis, always: {len(found)} power cuts, 0 of {traced.marks:,} acknowledged appends lost; {mended} times "
        f"redis-check-aof was needed, {damaged} times the unacknowledged last append was found damaged"
    )


def test_the_power_cuts_find_what_redis_with_everysec_loses(tmp_path: Path) -> None:
    noticed = broken(restart_redis, trace_redis(tmp_path, "everysec"), 12)
    print(f"redis, everysec: {noticed} of 12 power cuts lost acknowledged appends")
    assert noticed


SLOW_DISK = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int fd) { usleep(400000); return syscall(SYS_fdatasync, fd); }
"""
"""A disk whose syncs take long: what happens between a sync's begin and end happens every time."""


def slow_disk(folder: Path) -> str:
    source, target = folder / "slow.c", folder / "slow.so"
    source.write_text(SLOW_DISK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return str(target)


def write_until(storage: RedisStorage, *, syncing: bool, most: int = 100_000) -> int:
    """Append until the server syncs in the background, and ten times more; the number acknowledged."""
    import redis

    journal, more, n = Journal(storage), 10, 0
    lease = journal.claim("a")
    with redis.Redis.from_url(storage.url) as client:
        while more and n < most:
            is_syncing = bool(client.info("persistence")["aof_pending_bio_fsync"])
            more -= is_syncing or not syncing
            journal.append(lease, [record("a", n, SIZE)])
            n += 1
    return n


@pytest.mark.parametrize("appendfsync", ["always", "no"])
def test_redis_that_writes_before_it_answers_loses_nothing_when_it_is_killed(appendfsync: str) -> None:
    with RedisServer(appendfsync=appendfsync) as server:
        for kill in range(scaled(20)):
            storage = RedisStorage(server.url, namespace=f"kill {kill}", durability="server")
            acknowledged = write_until(storage, syncing=False)
            server.kill()
            server.start()
            assert len(list(read(storage, "a"))) == acknowledged
            storage.close()
    print(f"redis, {appendfsync}: 0 appends lost in {scaled(20)} deaths of the server")


def test_redis_with_everysec_loses_what_it_acknowledged_during_a_sync_when_it_is_killed(
    tmp_path: Path,
) -> None:
    """Known: while a sync is under way it answers first and writes afterwards, for up to two seconds."""
    with RedisServer(appendfsync="everysec") as server:
        server.env = {"LD_PRELOAD": slow_disk(tmp_path)}
        server.restart()
        storage = RedisStorage(server.url, durability="process")
        acknowledged = write_until(storage, syncing=True)
        server.kill()
        server.env = {}
        server.start()
        left = len(list(read(storage, "a")))
        storage.close()
    print(f"redis, everysec: {acknowledged - left} of {acknowledged} appends lost by the death of the server")
    assert acknowledged - 11 <= left < acknowledged, "what came before the sync is there"


# Postgres -----------------------------------------------------------------------------------

SETTINGS = {"wal_sync_method": "fdatasync", "autovacuum": "off", "full_page_writes": "on"}


class SmallPostgres(PostgresServer):
    """A Postgres whose log has segments of 1 MiB, so that its files can be copied quickly."""

    def prepare(self) -> None:
        """Make the data where there are none."""
        if not (Path(self.folder) / "data").exists():
            initdb = postgres_program("initdb")
            assert initdb is not None
            self._as_server(
                [initdb, "--wal-segsize=1", "--username=sifaka", "--auth=trust", "--no-sync", "--locale=C"]
                + ["--encoding=UTF8", "-D", f"{self.folder}/data"]
            )
        super().prepare()

    def _as_server(self, command: list[str]) -> None:
        user, group = self.user or (None, None)
        if user is not None and group is not None:
            os.chown(self.folder, user, group)
        extra: list[int] | None = None if user is None else []
        subprocess.run(
            command, user=user, group=group, extra_groups=extra, cwd="/", check=True, capture_output=True
        )


def shim_for_all(folder: Path) -> Shim:
    """A shim that also a server may use which runs as another user."""
    scratch = Path(new_folder("scratch"))
    scratch.chmod(0o711)
    library().parent.chmod(0o711)
    library().chmod(0o755)
    shim = Shim(folder, scratch)
    shim.control.chmod(0o666)
    shim.trace.chmod(0o666)
    return shim


def trace_postgres(settings: dict[str, str], size: int = SIZE) -> Traced:
    """Two runs in a Postgres, with a checkpoint halfway; what was there before a clean shutdown has left."""
    import psycopg

    with SmallPostgres(settings={**SETTINGS, **settings}) as server:
        storage = PostgresStorage(server.url, durability="none")
        storage.entry("it makes its tables")
        storage.close()
        server.stop()
        shim = shim_for_all(Path(server.folder) / "data")
        base = files_of(shim.folder)
        server.env = shim.environment()
        shim.tracing(True)
        server.start()
        with psycopg.connect(server.url, autocommit=True) as client:
            write_runs(storage, shim, lambda: client.execute("CHECKPOINT"), size)
        shim.tracing(False)
        storage.close()
        return Traced(shim.folder, base, read_trace(shim.trace), size)


def restart_postgres(traced: Traced, cut: Cut) -> Found:
    """What a Postgres on the cut's files has."""
    server = SmallPostgres(settings=SETTINGS)
    data = Path(server.folder) / "data"
    try:
        traced.put(cut, data)
        own(server, data)
        server.start()
        storage = PostgresStorage(server.url)
        found = find(storage, cut.marks, traced.size)
        storage.close()
    finally:
        server.close()
    return found


def own(server: SmallPostgres, data: Path) -> None:
    """As a machine finds its files when it comes up again: no process of before is there."""
    (data / "postmaster.pid").unlink(missing_ok=True)
    data.chmod(0o700)
    if server.user is not None:
        for path in (data, *data.rglob("*")):
            os.chown(path, *server.user)


def test_postgres_keeps_every_acknowledged_append_through_a_power_cut() -> None:
    traced = trace_postgres({})
    assert sum(call.op == "E" for call in traced.calls) >= len(RUNS) * APPENDS, "it does not sync each append"
    found = [restart_postgres(traced, cut) for cut in traced.cuts(scaled(15))]
    assert [one for one in found if one != Found(0, 0)] == []
    print(f"postgres: {len(found)} power cuts, 0 of {traced.marks:,} acknowledged appends lost")


def test_the_power_cuts_find_what_postgres_without_fsync_loses() -> None:
    noticed = broken(restart_postgres, trace_postgres({"fsync": "off"}), 10)
    print(f"postgres, fsync=off: {noticed} of 10 power cuts lost acknowledged appends, or all")
    assert noticed
