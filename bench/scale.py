"""A store with many runs: filled through its own hooks, then listed, counted and cleaned up.

The filling and each measurement have a process of their own, so that the memory one needs is not hidden in
what another has held. A run has ten records in three rows. Of ten runs eight are done, one has failed (in one
of 50 groups), the others go on, wait or were cancelled; they were changed last at even intervals over 60 days,
so a clean-up by 30 days takes half of those that have ended.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from bench.stores import open_store
from bench.watch import peak_bytes, resident_bytes
from bench.workload import english
from sifaka.faults import Fault
from sifaka.log.codec import encode, link_of, raw_bytes
from sifaka.log.records import Closed, Faulted, Intent, Opened, Position, Reached, Record, Result, Status
from sifaka.storage.base import Change, Entry, Query, Row, Write
from sifaka.storage.checkpoints import CachedCheckpointStorage

RUNS_A_COMMIT = 500
RECORDS = 10
SPAN_S = 60 * 86_400.0
AGE_DAYS = 30
PAGE = 50
GROUPS = 50
TEXTS = 200
ENDED: tuple[Status, ...] = ("done", "failed", "cancelled")
_STATUSES: tuple[Status, ...] = (
    "done", "done", "failed", "done", "done", "running", "done", "done", "done", "done",
    "done", "done", "failed", "done", "done", "waiting", "done", "cancelled", "done", "done",
)  # fmt: skip
_FAULT = Fault("timeout", True, None, "maybe", "0" * 16, "TimeoutError", "it took too long", (), None)


def fill(store: str, where: str, chains: int) -> float:
    """Put ``chains`` runs of ten records into the store; the seconds it took."""
    storage = open_store(store, where)
    texts = [english(f"scale/{n}", 300) for n in range(TEXTS)]
    begun = time.perf_counter()
    now, runs = time.time(), iter(range(chains))
    while numbers := list(islice(runs, RUNS_A_COMMIT)):
        made = [_writes(n, now - SPAN_S * (1 - (n + 0.5) / chains), texts[n % TEXTS]) for n in numbers]
        for writes in zip(*made, strict=True):  # a run's rows in separate commits: each needs the one before
            if not all(storage.write(writes)):
                raise AssertionError("an append was refused")
    seconds = time.perf_counter() - begun
    storage.close()
    return seconds


def _writes(number: int, at: float, text: str) -> list[Write]:
    chain_id, status = f"{number * 0x9E37_79B9_7F4A_7C15 % 2**64:016x}", _STATUSES[number % len(_STATUSES)]
    group = f"failure {number // 20 % GROUPS}" if status == "failed" else ""
    opens = Entry(chain_id, status="running", label=f"label {number % 7}", opened_at=at, updated_at=at)
    rows = list(_rows(chain_id, _records(chain_id, at, text, status)))
    change = Change(status, at, "", group, at + 60 if status == "waiting" else 0.0, release=True)
    return [Write(rows[0], None, opens), Write(rows[1]), Write(rows[2], change)]


def _records(chain_id: str, at: float, text: str, status: Status) -> Iterator[list[Record]]:
    """Ten records in three rows: the start, a first text, and how the run goes on or ends."""
    first = Intent(at, "generation", 0, "model", 1, 1, "0" * 16, "m:1")
    yield [Opened(at, chain_id, text[:80], None, (), {}), _reached("initialization", at), first]
    yield [
        Result(at, 2, "generation", 0, "model", 1.0, text),
        _reached("generation", at),
        _reached("validation", at),
        Intent(at, "criticism", 0, "clarity", 1, 1, "1" * 16, "m:1"),
    ]
    if status == "failed":
        yield [
            Faulted(at, 6, "criticism", 0, "clarity", _FAULT),
            _reached("pre_criticism", at),
            Closed(at, "failed", "timeout", 3),
        ]
    else:
        yield [
            Result(at, 6, "validation", 0, "clarity", 1.0, text[:100]),
            _reached("criticism", at),
            Closed(at, status, "", 3, passed=True) if status in ENDED else _reached("complete", at),
        ]


def _reached(step: Any, at: float) -> Reached:
    return Reached(at, step, 0, Position("generation", 0), 0.5)


def _rows(chain_id: str, appends: Iterator[list[Record]]) -> Iterator[Row]:
    first = prev = 0
    for records in appends:
        frame = encode(records, chain_id=chain_id, first=first, token=1, prev=prev)
        last, prev = first + len(records) - 1, link_of(frame)
        checkpoints = sum(isinstance(one, Reached) for one in records)
        yield Row(chain_id, first, last, 1, records[-1].at, checkpoints, frame, raw_bytes(frame))
        first = last + 1


def pages(store: str, where: str, chains: int, times: int) -> dict[str, list[float]]:
    """Seconds to list a page of 50 runs: the newest, of one status, of one group, from the middle on."""
    face = CachedCheckpointStorage(open_store(store, where))
    middle = face.get_chains(Query(updated_before=time.time() - SPAN_S / 2, limit=1))[0]
    queries = {
        "newest": Query(limit=PAGE),
        "status": Query(statuses=("failed",), limit=PAGE),
        "group": Query(group="failure 7", limit=PAGE),
        "middle": Query(after=middle, limit=PAGE),
        "middle_status": Query(statuses=("failed",), after=middle, limit=PAGE),
    }
    seen: dict[str, list[float]] = {name: [] for name in queries}
    for _ in range(times + 1):
        for name, query in queries.items():
            begun = time.perf_counter()
            found = face.get_chains(query)
            seen[name].append(time.perf_counter() - begun)
            _check_page(found, query, chains)
    face.storage.close()
    return {name: values[1:] for name, values in seen.items()}  # the first prepares the statement


def _check_page(found: Sequence[Entry], query: Query, chains: int) -> None:
    times = [one.updated_at for one in found]
    of_group = chains // 20 * 2 // GROUPS if query.group else PAGE
    good = (
        len(found) == min(PAGE, of_group),
        times == sorted(times, reverse=True),
        all(query.group in {None, one.group} for one in found),
        query.statuses is None or all(one.status in query.statuses for one in found),
        query.after is None or times[0] <= query.after.updated_at,
    )
    if not all(good):
        raise AssertionError(f"{query} listed what it should not: {good}, {len(found)} runs")


def stats(store: str, where: str, chains: int) -> dict[str, float]:
    """`get_storage_stats`: seconds, and bytes by which the process grew meanwhile at the most."""
    face, found = _face(store, where), {}

    def work() -> None:
        found.update(face.get_storage_stats())

    seen = _grown(work)
    counts = (found["records"], sum(found["chains"].values()))
    if counts != (chains * RECORDS, chains):
        raise AssertionError(f"{counts} records and runs were counted in a store of {chains} runs")
    face.storage.close()
    return seen


def clean_up(store: str, where: str, chains: int) -> dict[str, float]:
    """`cleanup_old_checkpoints` of half the runs that ended: as above, with the share of runs removed."""
    face = _face(store, where)
    before = face.storage.measure()["chains"]
    seen = _grown(lambda: face.cleanup_old_checkpoints(max_age_days=AGE_DAYS))
    after = face.storage.measure()
    left = after["chains"]
    for status, count in before.items():
        wanted = count / 2 if status in ENDED else count
        if abs(left.get(status, 0) - wanted) > 0.01 * count + 1:
            raise AssertionError(f"of {count} runs that are {status}, {left.get(status, 0)} are left")
    if after["records"] != sum(left.values()) * RECORDS:
        raise AssertionError(f"{after['records']} records are left of {sum(left.values())} runs")
    face.storage.close()
    return seen | {"removed": 1 - sum(left.values()) / chains}


def _face(store: str, where: str) -> CachedCheckpointStorage:
    """An open store, whose code has been loaded."""
    face = CachedCheckpointStorage(open_store(store, where))
    face.load(face.get_chains(Query(limit=1))[0].chain_id)
    return face


def _grown(work: Callable[[], object]) -> dict[str, float]:
    """The peak since the process began over what it holds now: never less than what the work took."""
    gc.collect()
    before, begun = resident_bytes(), time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - begun, "grown": max(0, peak_bytes() - before)}
