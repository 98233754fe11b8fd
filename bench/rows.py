"""The rows, in groups that can be run apart: who is measured for each, how often, and in what order.

Each round measures every contestant once, beginning with another one each time; a ratio to the floor is
taken within its round and the median of the ratios is printed, so that a machine that slows down for a
while slows both sides of a ratio.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench import startup, store_rows
from bench.contestant import PROCESS_OF, SUBJECT, is_here
from bench.table import COLUMNS, Bar, Row, header
from bench.worker import WorkerError, Workers
from bench.workload import chain_steps, steps_of

PEERS = ("langgraph sync", "langgraph delta", "langgraph exit", "dbos")
ITERATIONS = 3
LONG = 100
VERY_LONG = 1_000


class Effort(NamedTuple):
    """How much is run: rounds of each kind, chains in a row alone, chains at once."""

    alone_rounds: int
    alone_chains: int
    together_rounds: int
    peer_together_rounds: int
    load_rounds: int
    start_rounds: int
    stores: store_rows.StoreEffort
    large: tuple[str, ...] = ("sqlite",)
    """The stores that are filled with a million records."""


FULL = Effort(15, 20, 7, 5, 7, 9, store_rows.FULL)
QUICK = Effort(5, 8, 3, 1, 3, 3, store_rows.QUICK)


class Rows:
    """One benchmark run: asks the workers, prints each row when it is known, keeps all for the file."""

    def __init__(self, workers: Workers, data: Path, effort: Effort) -> None:
        self.workers = workers
        self.data = data
        self.effort = effort
        self.rows: list[Row] = []
        self.errors: list[str] = []
        self._folders = 0
        self._columns: tuple[str, ...] = ()
        self._here = {name for name in PROCESS_OF if is_here(name)}
        self._failed: set[tuple[str, str]] = set()

    # -- asking -------------------------------------------------------------------------------

    def folder(self) -> Path:
        self._folders += 1
        path = self.data / str(self._folders)
        path.mkdir()
        return path

    def ask(self, name: str, do: str, *, keep: Path | None = None, **arguments: Any) -> Any:
        """One measurement of one contestant in its own process; None if it is not here or fails.

        What failed once is not asked again, is told at the end, and makes the exit code 1.
        """
        if name not in self._here or (name, do) in self._failed:
            return None
        folder = keep or self.folder()
        try:
            return self.workers.ask(PROCESS_OF[name], do, name=name, folder=str(folder), **arguments)
        except WorkerError as error:
            self.fail(name, do, error)
            return None
        finally:
            if keep is None:
                shutil.rmtree(folder)

    def fail(self, name: str, do: str, error: Exception) -> None:
        self._failed.add((name, do))
        self.errors.append(f"{name}, {do}: {error}")
        print(f"! {name}: {do} failed: {str(error).strip().splitlines()[-1]}", flush=True)

    def show(self, *rows: Row) -> None:
        for row in rows:
            for name in {name for name, _ in self._failed} - set(row.values):
                row.notes[name] = "failed"
            self.rows.append(row)
            if row.columns != self._columns:
                print(
                    ("\n" if self._columns else "") + header(row.columns, barred=any(one.bar for one in rows))
                )
                self._columns = row.columns
            print(row.to_line(), flush=True)

    # -- groups of rows ---------------------------------------------------------------------------

    def alone(self) -> None:
        step = Row("step", "a durable step, one chain", "us", Bar(1.2, of_floor=True))
        commits = Row("commits", f"commits a chain of {steps_of(ITERATIONS)} paid steps", "")
        size = Row("bytes_3", "bytes a chain, 3 iterations", "kB", Bar(0.85, of_floor=True))
        raw = Row("bytes_3_raw", "  raw SQLite rows of that content", "kB")
        empty = Row("bytes_empty", "  an empty store besides", "kB")
        for names in _turns(COLUMNS, self.effort.alone_rounds):
            seen = {
                name: self.ask(name, "one_chain", iterations=ITERATIONS, chains=self.effort.alone_chains)
                for name in names
            }
            step.add_round(_field(seen, "step_s", 1e6))
            commits.add_round(_field(seen, "commits"), floor=None)
            sizes = _field(seen, "bytes_a_chain", 1e-3)
            raw.add_round({"floor": sizes["floor"]})
            size.add_round({**sizes, "floor": content_kb(ITERATIONS)})
            empty.add_round(_field(seen, "bytes_empty", 1e-3), floor=None)
        if "langgraph exit" in step.values:
            step.notes["langgraph exit"] = "*"
        self.show(step, commits, size, raw, empty)

    def together(self) -> None:
        self._together(100, self.effort.together_rounds, self.effort.peer_together_rounds)
        self._together(1_000, max(2, self.effort.together_rounds - 2), 0)

    def _together(self, chains: int, rounds: int, peer_rounds: int) -> None:
        step = Row(
            f"step_{chains}",
            f"a durable step, {chains:,} chains at once",
            "us",
            Bar(2, of_floor=True),
        )
        zlib = Row(f"step_{chains}_zlib", "  beside the floor with zlib", "us")
        commits = Row(f"commits_{chains}", f"  commits, all {chains:,} together", "")
        blocked = Row(f"blocked_{chains}", "  event loop blocked at most", "ms", Bar(10))
        own = ("floor zstd", "floor zlib", SUBJECT)
        for number, names in enumerate(_turns((*own, *PEERS), rounds)):
            seen = {
                name: self.ask(name, "at_once", iterations=ITERATIONS, chains=chains)
                for name in names
                if name in own or number < peer_rounds
            }
            zlib_floor = seen.pop("floor zlib")
            seen["floor"] = seen.pop("floor zstd")
            step.add_round(_field(seen, "step_s", 1e6))
            zlib.add_round(_field({"floor": zlib_floor, SUBJECT: seen.get(SUBJECT)}, "step_s", 1e6))
            blocked.add_round(_field(seen, "blocked_s", 1e3), floor=None)
        counted = {
            title: self.ask(name, "at_once", iterations=ITERATIONS, chains=chains, count=True)
            for title, name in (("floor", "floor zstd"), (SUBJECT, SUBJECT))
        }
        commits.add_round(_field(counted, "commits"), floor=None)
        if "langgraph exit" in step.values:
            step.notes["langgraph exit"] = "*"
        if not peer_rounds:
            step.notes = dict.fromkeys(PEERS, "not run")
        self.show(step, zlib, commits, blocked)

    def long(self) -> None:
        size = Row("bytes_100", "bytes a chain, 100 iterations", "kB", Bar(0.85, of_floor=True))
        raw = Row("bytes_100_raw", "  raw SQLite rows of that content", "kB")
        early = Row("growth_100", "  each of the iterations 4 to 100 adds", "kB")
        late = Row("growth_1000", "  each of the iterations 101 to 1,000 adds", "kB")
        growth = Row("growth", "  the later ones beside the earlier ones", "x", Bar(1.05))
        short = {name: self._written(name, ITERATIONS)[1] for name in COLUMNS}
        hundred = {name: self._written(name, LONG) for name in COLUMNS}
        thousand = {name: self._written(name, VERY_LONG) for name in ("floor", SUBJECT)}
        bytes_100 = {name: kept[1] for name, kept in hundred.items()}
        bytes_1000 = {name: kept[1] for name, kept in thousand.items()}
        sizes = {n: b and b / 1e3 for n, b in bytes_100.items()}
        raw.add_round({"floor": sizes["floor"]})
        size.add_round({**sizes, "floor": content_kb(LONG)})
        first = {n: _slope(short[n], b, LONG - ITERATIONS) for n, b in bytes_100.items()}
        then = {n: _slope(bytes_100[n], b, VERY_LONG - LONG) for n, b in bytes_1000.items()}
        early.add_round(first, floor=None)
        late.add_round(then, floor=None)
        growth.add_round({n: s and first[n] and s / first[n] for n, s in then.items()}, floor=None)
        self.show(size, raw, early, late, growth)

        last = Row("load_100", "load the last state, 100 iterations", "ms", Bar(0.5))
        last_1000 = Row("load_1000", "load the last state, 1,000 iterations", "ms", Bar(0.5))
        flat = Row("load_flat", "  1,000 beside 100", "x")
        whole = Row("history_100", "load the whole history, 100 iterations", "ms", Bar(5))
        for names in _turns(COLUMNS, self.effort.load_rounds):
            seen = {n: self._loaded(n, "load_last", hundred, LONG) for n in names}
            far = {n: self._loaded(n, "load_last", thousand, VERY_LONG) for n in ("floor", SUBJECT)}
            last.add_round(seen)
            last_1000.add_round(far)
            flat.add_round({n: f and seen[n] and f / seen[n] for n, f in far.items()}, floor=None)
            whole.add_round({n: self._loaded(n, "load_all", hundred, LONG) for n in names})
        self.show(last, last_1000, flat, whole)

    def _written(self, name: str, iterations: int) -> tuple[Path, float | None]:
        folder = self.folder()
        seen = self.ask(name, "one_chain", keep=folder, iterations=iterations, chains=1)
        return folder, seen and seen["bytes_a_chain"]

    def _loaded(
        self, name: str, do: str, kept: dict[str, tuple[Path, float | None]], iterations: int
    ) -> float | None:
        folder, size = kept[name]
        if size is None:
            return None
        seen = self.ask(name, do, keep=folder, iterations=iterations, times=5)
        return seen and median(seen) * 1e3

    def start(self) -> None:
        imports = Row("import", "import, over bare Python", "ms", Bar(50))
        first = Row("first_commit", "process start to first durable commit", "ms", Bar(60))
        scripts = {n: self.ask(n, "scripts_of") for n in ("floor", "langgraph sync", "dbos", SUBJECT)}
        names_here = tuple(name for name, script in scripts.items() if script)
        scratch = self.folder()
        for name in names_here:  # once untimed, so that byte code is there
            self._start(name, startup.import_s, scripts[name]["import"], scratch)
        for names in _turns(names_here, self.effort.start_rounds):
            bare_ms = startup.import_s(startup.BARE, scratch) * 1e3
            whole = {n: self._start(n, startup.import_s, scripts[n]["import"], scratch) for n in names}
            imports.add_round({n: ms and ms - bare_ms for n, ms in whole.items()}, floor=None)
            first.add_round(
                {
                    n: self._start(n, startup.first_commit_s, scripts[n]["first_commit"], self.folder())
                    for n in names
                },
                floor=None,
            )
        self.show(imports, first)

    def _start(self, name: str, run: Callable[[str, Path], float], script: str, folder: Path) -> float | None:
        if (name, run.__name__) in self._failed:
            return None
        try:
            return run(script, folder) * 1e3
        except (subprocess.SubprocessError, ValueError, IndexError) as error:
            self.fail(name, run.__name__, error)
            return None

    def memory(self) -> None:
        row = Row("waiting", "memory of a waiting chain beyond its text", "kB", Bar(20))
        self.workers.stop(PROCESS_OF[SUBJECT])  # a fresh process: nothing held from before
        held = self.ask(SUBJECT, "waiting_chain_bytes")
        row.add_round({SUBJECT: held and held / 1e3}, floor=None)
        self.show(row)

    def stores(self) -> None:
        self._of_stores().stores()

    def scale(self) -> None:
        self._of_stores().scale()

    def _of_stores(self) -> store_rows.StoreRows:
        return store_rows.StoreRows(self, self.effort.stores, self.effort.large)

    def disk(self) -> None:
        row = Row("append", "the disk: append + fdatasync of a step", "us")
        for _ in range(self.effort.alone_rounds):
            folder = self.folder()
            seconds = self.workers.ask("floor", "append_floor", folder=str(folder), iterations=ITERATIONS)
            row.add_round({"floor": seconds * 1e6}, floor=None)
        self.show(row)


def _turns(names: tuple[str, ...], rounds: int) -> Iterator[tuple[str, ...]]:
    """The names once a round, each round beginning with another."""
    for number in range(rounds):
        at = number % len(names)
        yield names[at:] + names[:at]


def _field(seen: dict[str, Any], field: str, scale: float = 1) -> dict[str, float | None]:
    return {
        name: None if one is None or one[field] is None else one[field] * scale for name, one in seen.items()
    }


def content_kb(iterations: int) -> float:
    return sum(len(content) for _, content in chain_steps(0, iterations)) / 1e3


def _slope(fewer: float | None, more: float | None, iterations: int) -> float | None:
    return None if fewer is None or more is None else (more - fewer) / iterations / 1e3


GROUPS: dict[str, Callable[[Rows], None]] = {
    "alone": Rows.alone,
    "together": Rows.together,
    "long": Rows.long,
    "start": Rows.start,
    "memory": Rows.memory,
    "disk": Rows.disk,
    "stores": Rows.stores,
    "scale": Rows.scale,
}
