"""What ``durability="step"``, ``"iteration"`` and ``"exit"`` cost: one and the same chain in each mode, in turns.

The parts answer at once, so the seconds are the price of saving alone. Commits are the store's own: appends,
claims and leases given back. Kept bytes are the frames that stay; written bytes are what went to the disk for
them: the process's own writes (SQLite), the append-only file's growth (Redis), the write-ahead log's (Postgres).
"""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from bench.stores import Counted, open_store
from bench.subject import chain_of
from bench.workload import ChainParts, steps_of
from sifaka.storage.checkpoints import CachedCheckpointStorage

Mode = Literal["step", "iteration", "exit"]
MODES: tuple[Mode, ...] = get_args(Mode)
_numbers = itertools.count()


def modes(
    store: str, where: str, rounds: int, chains: int, iterations: int
) -> list[dict[str, dict[str, float]]]:
    """For each round and mode: seconds, commits, kept and written bytes a chain."""
    counted = Counted(open_store(store, where))
    face = CachedCheckpointStorage(counted)
    written = _written_by(store, where)
    seen: list[dict[str, dict[str, float]]] = []
    for number in range(-1, rounds):
        at = number % len(MODES)
        round_ = {
            mode: _run(face, counted, written, mode, chains, iterations) for mode in MODES[at:] + MODES[:at]
        }
        if number >= 0:
            seen.append(round_)
    counted.close()
    return seen


def _run(
    face: CachedCheckpointStorage,
    counted: Counted,
    written: Callable[[], int],
    mode: Mode,
    chains: int,
    iterations: int,
) -> dict[str, float]:
    parts = [ChainParts(n, iterations) for n in range(chains)]
    made = [
        chain_of(face, one, chain_id=f"{mode}-{os.getpid()}-{next(_numbers)}", durability=mode)
        for one in parts
    ]
    kept, wrote = counted.measure()["stored_bytes"], written()
    counted.commits = 0
    gc.collect()
    begun = time.perf_counter()
    drafts = [chain.run().text for chain in made]
    seconds = time.perf_counter() - begun
    commits, wrote = counted.commits, written() - wrote
    if drafts != [one.last_draft for one in parts] or any(one.calls != steps_of(iterations) for one in parts):
        raise AssertionError(f"a chain with durability {mode!r} did not run to its end")
    return {
        "seconds": seconds / chains,
        "commits": commits / chains,
        "kept": (counted.measure()["stored_bytes"] - kept) / chains,
        "written": wrote / chains,
    }


def _written_by(store: str, where: str) -> Callable[[], int]:
    """Tells how many bytes the store has written so far."""
    if store == "redis":
        from redis import Redis

        client = Redis.from_url(where)
        return lambda: int(client.info("persistence")["aof_current_size"])
    if store == "postgres":
        import psycopg

        con: Any = psycopg.connect(where, autocommit=True)
        asked = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
        return lambda: con.execute(asked).fetchone()[0]
    return _written_here


def _written_here() -> int:
    """All that this process has passed to write(2) and its kin; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))
