"""What a dying process, a power cut, a failing disk and damage may do to a SQLite store, and what never."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from powercut import Call, Machine, cuts, put, read_trace, without_syncs
from shim import ALL_OPS, Mode, Op, Shim
from shim.victim import APPENDS, record, take_over, write_chain
from sifaka.errors import (
    DamagedRecordError,
    DataError,
    FormatError,
    SifakaError,
)
from sifaka.log.codec import FORMAT, decode, link_of
from sifaka.log.records import Record
from sifaka.storage.base import Query, Row
from sifaka.storage.journal import Journal
from sifaka.storage.reading import read
from sifaka.storage.sqlite import SQLiteStorage
from soak import scaled

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the shim is loaded by LD_PRELOAD, which is Linux's"
)

TESTS = Path(__file__).parent
THEME_S = 40.0
"""What a theme may take, times SIFAKA_SOAK; a machine too slow for its count says how far it came."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of this test's own, in memory where that can be had."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="sifaka-", dir=fast) as name:
        yield Path(name)


def python_path() -> str:
    """The tests' folder before what this process was started with."""
    return os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))


class Victims:
    """The fork server below the shim."""

    def __init__(self, root: Path) -> None:
        self.folder, scratch = root / "watched", root / "scratch"
        self.folder.mkdir()
        scratch.mkdir()
        self.shim = Shim(self.folder, scratch)
        environment = {**os.environ, **self.shim.environment(), "PYTHONPATH": python_path()}
        self.process = subprocess.Popen(
            [sys.executable, TESTS / "shim" / "victim.py"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, work: str, store: Path, **command: Any) -> tuple[str, list[str]]:
        """How a child ended (done, killed, failed) and what it told, as acknowledgements."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"work": work, "store": str(store), **command}), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        assert answer["ended"] != "failed", "\n".join(answer["told"])
        return answer["ended"], answer["told"]

    def trace(self, work: str, **command: Any) -> list[Call]:
        """The calls of a whole child, with a marker behind each acknowledgement."""
        self.shim.clear()
        self.run(work, self.folder / "store.db", trace=True, **command)
        calls = read_trace(self.shim.trace)
        self.empty()
        return calls

    def count(self, work: str, store: Path) -> int:
        self.run(work, store, mode=Mode.COUNT, k=1)
        return self.shim.get("count")

    def empty(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def victims(folder: Path) -> Iterator[Victims]:
    found = Victims(folder)
    yield found
    found.close()


def acknowledged(told: Sequence[str]) -> Counter[str]:
    """How many appends of each run were acknowledged."""
    return Counter(one.partition(":")[0] for one in told)


def check(
    storage: SQLiteStorage, told: Counter[str], size: int = 200, chains: Sequence[str] = ("a",)
) -> list[str]:
    """What is wrong with a store after an accident; nothing, if every promise was kept."""
    wrong: list[str] = []
    for chain_id in chains:
        stored = list(read(storage, chain_id)) if storage.entry(chain_id) else []
        if stored != [record(chain_id, n, size) for n in range(len(stored))]:
            wrong.append(f"{chain_id}: other records than were appended")
        if not told[chain_id] <= len(stored) <= told[chain_id] + 1:
            wrong.append(f"{chain_id}: {len(stored)} records, {told[chain_id]} were acknowledged")
    return wrong


class Until:
    """Ends a theme's loop in time, and says how far it came."""

    def __init__(self, theme: str) -> None:
        self._theme = theme
        self._end = time.monotonic() + scaled(int(THEME_S))
        self.count = 0

    def over(self) -> bool:
        self.count += 1
        return time.monotonic() > self._end

    def say(self, planned: int) -> None:
        print(f"{self._theme}: {self.count:,} of {planned:,}")


# Death --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Mode.KILL_BEFORE, Mode.KILL_HALFWAY, Mode.KILL_AFTER])
def test_death_at_every_call_on_a_file_loses_nothing_that_was_acknowledged(
    victims: Victims, mode: Mode
) -> None:
    store = victims.folder / "store.db"
    points = victims.count("chain", store)
    assert points > 6 * APPENDS
    for k in range(1, points + 1):
        victims.empty()
        ended, told = victims.run("chain", store, mode=mode, k=k)
        assert ended == "killed", k
        storage = SQLiteStorage(store)
        assert check(storage, acknowledged(told)) == [], k
        take_over(storage, APPENDS + 1)
        assert check(storage, Counter(a=APPENDS + 1)) == [], k
        storage.close()
    print(f"death {mode.name.lower()}: {points:,} of {points:,} calls")


@pytest.mark.slow
def test_death_again_during_the_recovery_loses_nothing_either(victims: Victims) -> None:
    store = victims.folder / "store.db"
    points, rng, pairs = victims.count("chain", store), random.Random(1), scaled(600)
    again = 0
    for _ in range(pairs):
        victims.empty()
        mode = rng.choice((Mode.KILL_BEFORE, Mode.KILL_HALFWAY, Mode.KILL_AFTER))
        first, second = rng.randrange(points) + 1, rng.choice((10, 30, 60))
        _, told = victims.run("chain", store, mode=mode, k=first)
        ended, more = victims.run("recovery", store, mode=mode, k=rng.randrange(second) + 1)
        again += ended == "killed"
        storage = SQLiteStorage(store)
        stored = len(list(read(storage, "a"))) if storage.entry("a") else 0
        known = max([int(one.partition(":")[2]) + 1 for one in (*told, *more)], default=0)
        # Both deaths may leave one append each that was made and not acknowledged.
        assert known <= stored <= known + 2, (mode, first)
        assert check(storage, Counter(a=stored)) == [], (mode, first)
        take_over(storage, stored + 1)
        storage.close()
    assert again > pairs // 3
    print(f"death in recovery: {pairs:,} pairs, {again:,} of them died twice")


# Power cuts ---------------------------------------------------------------------------------

LONE: dict[str, Any] = {"work": "chain"}
LONG: dict[str, Any] = {"work": "chain", "size": 9000, "appends": 100}
GROUP: dict[str, Any] = {"work": "group", "appends": 12, "chains": ["a", "b", "c", "d", "e"]}
FAILING: dict[str, Any] = {"work": "failing_syncs", "appends": 30}


def lost(victims: Victims, folder: Path, calls: list[Call], count: int, command: dict[str, Any]) -> list[str]:
    """What ``count`` power cuts broke: nothing, if every promise was kept."""
    found, seed = folder / "found", 7
    wrong: list[str] = []
    until = Until(f"power cuts, {command['work']} of {len(calls):,} calls")
    for cut in cuts(calls, count, seed):
        shutil.rmtree(found, ignore_errors=True)
        found.mkdir()
        put(cut.files, victims.folder, found)
        storage = SQLiteStorage(found / "store.db")
        told = acknowledged([one for one in cut.marks if ":" in one])
        try:
            broken = check(storage, told, command.get("size", 200), command.get("chains", ["a"]))
        except SifakaError as error:
            broken = [repr(error)]
        wrong += [f"after {cut.calls} calls: {one}" for one in broken]
        storage.close()
        if until.over():
            break
    until.say(count)
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "count"),
    [(LONE, 4000), (GROUP, 3000), (LONG, 2000), (FAILING, 1500)],
    ids=["lone appends", "group commits", "with WAL checkpoints", "with failing syncs"],
)
def test_a_power_cut_loses_nothing_that_was_acknowledged(
    victims: Victims, folder: Path, command: dict[str, Any], count: int
) -> None:
    calls = victims.trace(**command)
    assert sum(call.op == "M" for call in calls) >= APPENDS
    assert lost(victims, folder, calls, scaled(count), command) == []


def test_the_power_cuts_find_a_store_that_syncs_too_little(victims: Victims, folder: Path) -> None:
    careless = victims.trace(**LONE, plant="synchronous=NORMAL")
    assert any("were acknowledged" in one for one in lost(victims, folder, careless, 400, LONE))
    unsynced = without_syncs(victims.trace(**LONE))
    assert lost(victims, folder, unsynced, 100, LONE)


def outcomes(*calls: tuple[str, str, int, bytes]) -> set[tuple[tuple[str, bytes], ...]]:
    """All ways in which 300 power cuts behind some calls left the files."""
    machine = Machine({"/d/old": b"old"})
    for op, path, offset, data in calls:
        machine.apply(Call(op, path, 1, offset, data))
    rng = random.Random(0)
    return {tuple(sorted(machine.cut(rng).items())) for _ in range(300)}


def test_a_simulated_power_cut_keeps_what_was_synced_and_nothing_else_for_sure() -> None:
    new, sync, ended = ("W", "/d/old", 0, b"new"), ("S", "/d/old", 0, b""), ("E", "/d/old", 0, b"")
    kept, lost_ = (("/d/old", b"new"),), (("/d/old", b"old"),)
    assert outcomes(new) == {kept, lost_}
    assert outcomes(new, sync, ended) == {kept}
    assert outcomes(sync, new, ended) == {kept, lost_}, "written while a sync was under way"
    assert outcomes(new, sync, ("F", "/d/old", 0, b""), sync, ended) == {kept, lost_}, "a failed sync"
    rename = ("R", "/d/old", 0, b"/d/name")
    assert outcomes(rename) == {lost_, (("/d/name", b"old"),)}
    assert outcomes(rename, ("S", "/d", 0, b""), ("E", "/d", 0, b"")) == {(("/d/name", b"old"),)}
    torn = {dict(one)["/d/old"] for one in outcomes(("W", "/d/old", 0, b"x" * 1024))}
    assert {b"old", b"x" * 1024, b"x" * 512, b"old" + bytes(509) + b"x" * 512} <= torn


def test_the_traces_hold_what_they_are_for(victims: Victims) -> None:
    long = victims.trace(**LONG)
    syncs = [call.path.rpartition("store.db")[2] for call in long if call.op == "E"]
    assert "" in syncs[10:-5], "no WAL checkpoint in the middle"
    group = victims.trace(**GROUP)
    marks = sum(call.op == "M" for call in group)
    assert marks == 60
    assert sum(call.op == "E" for call in group) < marks, "no group commits"
    failing = victims.trace(**FAILING)
    assert sum(call.op == "F" for call in failing) >= 2


# Faults of the disk -------------------------------------------------------------------------

WRITES = Op.OPEN | Op.WRITE | Op.TRUNCATE | Op.ALLOCATE | Op.SYNC
FAULTS: dict[str, dict[str, Any]] = {
    "disk full for good": {"ops": WRITES, "error": errno.ENOSPC, "lasting": True, "cut": False},
    "disk full, half a write": {"ops": Op.WRITE, "error": errno.ENOSPC, "lasting": True, "cut": True},
    "one EIO": {"ops": ALL_OPS, "error": errno.EIO, "lasting": False, "cut": False},
    "one short write": {"ops": Op.WRITE, "error": 0, "lasting": False, "cut": True},
    "one EIO while reading": {"ops": Op.READ, "error": errno.EIO, "lasting": False, "cut": False},
    "read-only from now on": {"ops": ALL_OPS, "error": errno.EROFS, "lasting": True, "cut": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_disk_at_any_call_is_one_typed_error_and_the_run_goes_on(
    victims: Victims, fault: str
) -> None:
    how = {**FAULTS[fault], "ops": int(FAULTS[fault]["ops"])}
    store = victims.folder / "store.db"
    victims.shim.set("ops", how["ops"])
    _, told = victims.run("faults", store, calls=[1_000_000], **how)
    points = victims.shim.get("count")
    _, told = victims.run("faults", store, calls=list(range(1, points + 1)), **how)
    said = dict(json.loads(one) for one in told)
    assert len(said) == points
    outcomes = Counter(one.split(":")[0].partition(" ")[2] for one in said.values())
    print(f"{fault}: {points:,} calls, {dict(outcomes)}")
    escaped = {k: one for k, one in said.items() if one.startswith("Traceback")}
    assert not escaped, f"{len(escaped)} of {points}: {next(iter(escaped.items()))}"
    assert all(int(one.split()[0]) for one in said.values()), "a fault that was not made"
    assert set(outcomes) <= {"StorageError", "StoreUnreachableError", "NoneType"}
    if how["error"] == errno.ENOSPC:
        assert sum("free some space" in one for one in said.values()) > points // 2
    masked = [k for k, one in said.items() if "cannot rollback" in one]
    assert not masked, f"the error hides its cause at {len(masked)} calls: {said[masked[0]]}"


def test_a_read_only_file_or_folder_and_a_missing_folder_say_what_to_do(victims: Victims) -> None:
    store = victims.folder / "store.db"
    victims.run("chain", store)
    ended, told = victims.run("read_only", store, error=errno.EROFS)
    assert ended == "done"
    assert "StoreUnreachableError" in told[0]
    assert "Read-only file system" in told[0]
    assert "Check the path and its permissions" in told[0]
    _, told = victims.run("read_only", victims.folder / "new.db", error=errno.EACCES)
    assert "Permission denied" in told[0]
    assert "Check the path and its permissions" in told[0]
    _, told = victims.run("read_only", victims.folder / "missing" / "new.db", error=errno.EACCES)
    assert f"mkdir -p {victims.folder / 'missing'}" in told[0]
    _, told = victims.run("read_only_files_beside", store, error=errno.EACCES)
    assert "StorageError" in told[0] or "StoreUnreachableError" in told[0], told
    assert check(SQLiteStorage(store), Counter(a=APPENDS)) == []


# Damage -------------------------------------------------------------------------------------


def whole_store(folder: Path, *, closed: bool = True) -> tuple[Path, list[Record]]:
    """A store of one run as a clean end, or a death, leaves it."""
    made = folder / "made"
    made.mkdir()
    storage = SQLiteStorage(made / "store.db")
    write_chain(Journal(storage), str)
    if closed:
        storage.close()
    else:
        shutil.copytree(made, folder / "dead")
        storage.close()
        made = folder / "dead"
    return made / "store.db", [record("a", n) for n in range(APPENDS)]


def look(path: Path) -> tuple[str, str]:
    """What a reader of a damaged store meets: what kind of thing, and its words."""
    storage = SQLiteStorage(path, create=False)
    try:
        listed = [entry.chain_id for entry in storage.entries(Query())]
        found = list(read(storage, "a")) if storage.entry("a") else []
    except DataError as error:
        return "damage named", str(error)
    except SifakaError as error:
        return "store error", str(error)
    except Exception as error:  # the promise is that there is none
        return "ESCAPED", repr(error)
    finally:
        storage.close()
    whole = [record("a", n) for n in range(APPENDS)]
    if found == whole:
        return ("whole" if listed == ["a"] else "not listed"), ""
    return ("a beginning" if found == whole[: len(found)] else "GARBAGE"), f"{len(found)} records"


FRAME = 24 + 4096
"""A frame of SQLite's write-ahead log: a header and a page."""


def committed_bytes(log: bytes) -> int:
    """Where the last commit in a write-ahead log ends: its frames have the log's salt and a size."""
    salt, end = log[16:24], 0
    for at in range(32, len(log) - FRAME + 1, FRAME):
        if log[at + 8 : at + 16] == salt and log[at + 4 : at + 8] != bytes(4):
            end = at + FRAME
    return end


@pytest.mark.slow
def test_a_torn_write_ahead_log_gives_a_beginning_or_a_typed_error(folder: Path) -> None:
    made, _ = whole_store(folder, closed=False)
    main, log, torn = made.read_bytes(), Path(f"{made}-wal").read_bytes(), folder / "torn.db"
    seen: Counter[str] = Counter()
    used = committed_bytes(log)
    step = max(1, round(used / scaled(12_000)))
    edges = [at + by for at in range(32, used, FRAME) for by in (-1, 0, 1, 24)]
    lengths = sorted({*range(0, used, step), *range(used - 2, used + 3), *edges})
    before = 0
    for length in lengths:
        torn.write_bytes(main)
        Path(f"{torn}-wal").write_bytes(log[:length])
        kind, said = look(torn)
        seen[kind] += 1
        assert kind in {"whole", "a beginning", "store error"}, (length, kind, said)
        if kind == "a beginning":
            assert int(said.split()[0]) >= before, "less is read from more"
            before = int(said.split()[0])
        for left in folder.glob("torn.db*"):
            left.unlink()
    assert seen["a beginning"]
    print(f"torn WAL: {len(lengths):,} of {used:,} lengths, {dict(seen)}")


def test_a_torn_main_file_is_a_typed_error_or_a_beginning(folder: Path) -> None:
    made, _ = whole_store(folder)
    main, torn, seen = made.read_bytes(), folder / "torn.db", Counter[str]()
    lengths = [
        *range(0, len(main), max(1, round(len(main) / scaled(8000)))),
        *range(len(main) - 4096, len(main)),
    ]
    for length in lengths:
        torn.write_bytes(main[:length])
        kind, said = look(torn)
        seen[kind] += 1
        # The last bytes of the last page may be unused: nothing is lost with them then.
        assert kind in {"store error", "damage named", "a beginning", "whole"}, (length, kind, said)
        assert kind != "a beginning" or said == "0 records", (length, said)
    print(f"torn main file: {len(lengths):,} of {len(main):,} lengths, {dict(seen)}")


def is_intact(path: Path) -> bool:
    """Whether SQLite itself finds nothing wrong with a file."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
        except sqlite3.Error:
            return False


@pytest.mark.slow
def test_a_flipped_bit_in_the_file_is_found_or_harmless(folder: Path) -> None:
    made, _ = whole_store(folder)
    main, flipped, rng = made.read_bytes(), folder / "flipped.db", random.Random(3)
    used = [at for at, byte in enumerate(main) if byte]
    every = [8 * at + bit for at in used for bit in range(8)] + [8 * at for at in range(len(main))]
    flips = rng.sample(every, min(len(every), scaled(30_000)))
    seen: Counter[str] = Counter()
    bad: list[tuple[int, str, str]] = []
    until = Until("flipped bits of the file")
    for bit in flips:
        image = bytearray(main)
        image[bit // 8] ^= 1 << bit % 8
        flipped.write_bytes(image)
        kind, said = look(flipped)
        seen[kind] += 1
        # A damaged index hides rows from a reader. SQLite has no checksum for it, but its own check sees it.
        hidden = kind in {"a beginning", "not listed"}
        if kind in {"ESCAPED", "GARBAGE"} or (hidden and is_intact(flipped)):
            bad.append((bit, kind, said))
        for left in folder.glob("flipped.db*"):
            left.unlink()
        if until.over():
            break
    until.say(len(flips))
    print(f"  of {8 * len(main):,} bits, {8 * len(used):,} of them in use: {dict(seen)}")
    assert not bad, f"{len(bad)}: {bad[:5]}"
    assert seen["damage named"]
    assert seen["store error"]


def test_a_damaged_owner_is_a_typed_error_or_somebody_who_may_be_waited_for(folder: Path) -> None:
    made, _ = whole_store(folder)
    storage = SQLiteStorage(made)
    entry = storage.entry("a")
    assert entry is not None
    wrong: Counter[str] = Counter()
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        for bit in range(8 * len(entry.owner)):
            owner = bytearray(entry.owner)
            owner[bit // 8] ^= 1 << bit % 8
            connection.execute("UPDATE chains SET owner = ?, token = 1", (bytes(owner),))
            journal = Journal(storage)
            try:
                journal.release(journal.claim("a"))
            except SifakaError:
                continue
            except Exception as error:
                wrong[type(error).__name__] += 1
    storage.close()
    assert not wrong, wrong


def frames(folder: Path) -> list[tuple[Row, list[Record], int]]:
    """The rows of two runs, with what is in them and what they link to."""
    storage = SQLiteStorage(folder / "frames.db")
    found: list[tuple[Row, list[Record], int]] = []
    for chain_id, size in (("a", 200), ("b", 2000)):
        write_chain(Journal(storage), str, chain_id, size)
        prev = 0
        for row in storage.rows(chain_id):
            found.append(
                (row, decode(row.frame, chain_id=chain_id, first=row.first, token=1, prev=prev), prev)
            )
            prev = link_of(row.frame)
    storage.close()
    return found


def refused(frame: bytes, row: Row, prev: int, records: list[Record] | None) -> str:
    """How a frame at a row's place was taken: what went wrong, or nothing."""
    try:
        found = decode(frame, chain_id=row.chain_id, first=row.first, token=row.token, prev=prev)
    except DamagedRecordError as error:
        named = error.chain_id == row.chain_id and error.first == row.first
        return "" if named else f"another record is named: {error}"
    except FormatError as error:
        return "" if error.found > FORMAT else repr(error)
    except Exception as error:
        return repr(error)
    return "" if found == records else "GARBAGE"


def test_every_flipped_bit_of_a_frame_is_found(folder: Path) -> None:
    count = 0
    for row, _, prev in frames(folder):
        for bit in range(8 * len(row.frame)):
            frame = bytearray(row.frame)
            frame[bit // 8] ^= 1 << bit % 8
            assert refused(bytes(frame), row, prev, None) == "", (row.chain_id, row.first, bit)
            count += 1
    print(f"flipped bits of frames: {count:,} of {count:,}")


def mutated(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A frame with some damage: flips, a cut, zeros, a splice, a doubled or missing piece."""
    data = bytearray(frame)
    at, to = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    match rng.randrange(7):
        case 0:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[at:]
        case 2:
            data[at:to] = bytes(to - at)
        case 3:
            other = rng.choice(others)
            data[at:] = other[at:]
        case 4:
            data[at:at] = data[at:to]
        case 5:
            del data[at:to]
        case _:
            data[at:to] = rng.randbytes(to - at)
    return bytes(data)


@pytest.mark.slow
def test_no_mutated_moved_or_spliced_frame_is_taken_for_a_record(folder: Path) -> None:
    made, rng, planned = frames(folder), random.Random(5), scaled(500_000)
    others = [row.frame for row, _, _ in made]
    until = Until("mutated frames")
    moved = 0
    while until.count < planned and not until.over():
        row, records, prev = rng.choice(made)
        if rng.random() < 0.1:
            frame = rng.choice(others)  # whole and sound, but of another place
            moved += frame != row.frame
        else:
            frame = mutated(row.frame, others, rng)
        sound = records if frame == row.frame else None
        assert refused(frame, row, prev, sound) == "", (row.chain_id, row.first, frame)
    until.say(planned)
    assert moved
