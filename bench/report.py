"""One benchmark run from end to end: the machine's line, the table as it fills, the file of all values."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.contestant import SUBJECT, is_here
from bench.rows import GROUPS, ITERATIONS, Effort, Rows, content_kb
from bench.worker import Workers
from bench.workload import steps_of

OUT = Path(__file__).resolve().parent / "out"


def run(groups: list[str], effort: Effort, data_parent: Path | None) -> int:
    """Run these groups, print the table, write the file; the exit code tells of failures only."""
    OUT.mkdir(exist_ok=True)
    begun = time.perf_counter()
    data = Path(tempfile.mkdtemp(prefix="data-", dir=data_parent or OUT))
    try:
        with Workers(timeout_s=180) as workers:
            report = Rows(workers, data, effort)
            machine = _machine(data, workers.ask("floor", "idle_loop", seconds=0.5))
            print(_machine_line(machine))
            print(
                f"one chain of {ITERATIONS} iterations: {steps_of(ITERATIONS)} paid steps, "
                f"{content_kb(ITERATIONS):.1f} kB of content; each cell: median, then its ratio to the floor\n"
            )
            for group in groups:
                GROUPS[group](report)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    seconds = time.perf_counter() - begun
    print("\n* saved once at the end of a chain, so not durable: what a crash loses is paid again")
    print("  bytes: the floor is the plain content itself, with no rows, keys or pages around it")
    print("  at once: the floor shares its commits and compresses with zstd level 1, as sifaka does")
    if {"stores", "scale"} & set(groups):
        _explain_stores()
    if not is_here(SUBJECT):
        print("  sifaka: not run, there is no bench/subject.py")
    written = _write(machine, report, seconds)
    print(f"  {seconds:.0f} s; every value: {written}")
    for error in report.errors:
        print(f"\nFAILED {error}", file=sys.stderr)
    return 1 if report.errors else 0


def _explain_stores() -> None:
    """How to read the tables of the stores."""
    print(
        "  one append: a result of 1 to 2 kB of text and the next intent; the floor gets the same frame ready-made"
    )
    print(
        "  100 writers: the floor commits 64 or 100 at a time, whichever is faster, and packs what it is given"
    )
    print(
        "  servers: Redis with appendfsync always, Postgres with fsync and synchronous_commit on, on loopback"
    )
    print('  durability: ratios are to "step"; the parts answer at once, so the time is that of saving alone')
    print(
        "  packed: zstd level, + a dictionary of that size trained on other sources; the rest: frames below 300 bytes"
    )
    print(
        "  memory: the peak of a fresh process over what it held before; bars only for the stores of --stores"
    )


def _machine(data: Path, idle_s: float) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "filesystem": _filesystem(data),
        "load_average": os.getloadavg()[0],
        "idle_loop_late_ms": idle_s * 1e3,
    }


def _machine_line(machine: dict[str, Any]) -> str:
    warning = ""
    if machine["filesystem"] in {"tmpfs", "ramfs"}:
        warning = "\nWARNING: the data folder is in memory, where a commit costs nothing: use --data"
    return (
        f"{machine['cores']} cores {machine['processor']}, Python {machine['python']}, "
        f"SQLite {machine['sqlite']}, {machine['filesystem']}, "
        f"load {machine['load_average']:.1f}, an idle event loop is late by up to "
        f"{machine['idle_loop_late_ms']:.1f} ms{warning}"
    )


def _filesystem(path: Path) -> str:
    """The type of the mount that holds ``path``; "?" where the system has no /proc/mounts."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "?"
    holding = [m for m in mounts if path.resolve().is_relative_to(m[0])]
    return max(holding, key=lambda mount: len(mount[0]), default=["", "?"])[1]


def _write(machine: dict[str, Any], report: Rows, seconds: float) -> Path:
    content = {
        "machine": machine,
        "seconds": seconds,
        "effort": report.effort._asdict(),
        "rows": {row.key: row.to_dict() for row in report.rows},
        "errors": report.errors,
    }
    path = OUT / f"bench-{machine['time'].replace(':', '').replace('+0000', 'Z')}.json"
    text = json.dumps(content, indent=1, default=str)
    path.write_text(text)
    (OUT / "latest.json").write_text(text)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
