"""The rows about the stores: one append beside its floor, reads, durabilities, packing; a store of many runs.

Each store is asked in a process of its own. A server is started for its rows and ended after them; it keeps
its data in the system's temporary folder, where its own user can reach it. A store whose server is not
installed is left out, and said so.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.table import Bar, Row
from bench.worker import WorkerError, Workers

BESIDE = ("floor", "sifaka")
STORES = ("memory", "sqlite", "redis", "postgres")
DURABLE = STORES[1:]
MODES = ("step", "iteration", "exit")
CODECS = ("none", "level 1", "level 3", "level 9", "1 + 16 kB", "1 + 64 kB", "3 + 64 kB", "draft before")
WRITERS = 100
SCALE_TIMEOUT_S = 900.0
_KINDS = {
    "all": "whole chains",
    "draft": "texts",
    "critique": "critiques",
    "document": "documents",
    "short": "the rest",
}
_MODULES = {"redis": "redis", "postgres": "psycopg"}


class StoreEffort(NamedTuple):
    """How much is run: rounds, appends a round and writer, chains a mode, repeats, runs in a large store."""

    rounds: int
    appends: int
    writer_appends: int
    reads: int
    mode_chains: int
    packing_repeats: int
    pages: int
    chains: int
    other_chains: int


FULL = StoreEffort(15, 60, 20, 60, 5, 15, 40, 100_000, 10_000)
QUICK = StoreEffort(5, 30, 8, 15, 2, 4, 10, 3_000, 3_000)


class StoreRows:
    """These rows of one benchmark run; ``report`` shows, keeps and fails for it."""

    def __init__(self, report: Any, effort: StoreEffort, large: tuple[str, ...]) -> None:
        self._report = report
        self._workers: Workers = report.workers
        self._effort = effort
        self._large = large

    def _ask(self, store: str, do: str, /, **arguments: Any) -> Any:
        """One measurement in the store's process; None where it failed, which is told."""
        try:
            return self._workers.ask(f"store {store}", do, timeout_s=SCALE_TIMEOUT_S, **arguments)
        except WorkerError as error:
            self._report.fail(store, do, error)
            return None

    @contextmanager
    def _at(self, store: str) -> Generator[str | None]:
        """Where the store is, once it is there; None, and a line that says so, where it cannot be."""
        if store in _MODULES and not _has(store):
            print(f"! {store}: not run, its server or its library is not installed", flush=True)
            yield None
            return
        from bench.stores import server_of

        server = server_of(store)
        if server is None:
            folder: Path = self._report.folder()
            yield str(folder / "sifaka.db")
        else:
            with server as running:
                yield running.url
        self._workers.stop(f"store {store}")

    # -- stores -----------------------------------------------------------------------------------

    def stores(self) -> None:
        """All that is asked of every store, while its server runs; then the tables."""
        lone: list[Row] = []
        shared: list[Row] = []
        modes: list[Row] = []
        load = Row("store_load", "load the last state, 3 iterations", "ms", columns=STORES)
        claim = Row("store_claim", "claim a run and give it back", "ms", columns=STORES)
        for store in STORES:
            with self._at(store) as where:
                if where is None:
                    continue
                if store in DURABLE:
                    lone += self._lone(store, where)
                    shared += self._shared(store, where)
                    modes += self._modes(store, where)
                found = self._ask(store, "appends:reads", store=store, where=where, times=self._effort.reads)
                for row, name in ((load, "load"), (claim, "claim")):
                    for seconds in found[name] if found else ():
                        row.add_round({store: seconds * 1e3}, floor=None)
        self._report.show(*lone, *shared)
        self._report.show(load, claim)
        self._report.show(*modes)
        self._packing()

    def _lone(self, store: str, where: str) -> list[Row]:
        row = Row(f"append_{store}", f"one append, {store}", "us", Bar(1.3, of_floor=True), columns=BESIDE)
        awaited = Row(f"append_{store}_awaited", "  awaited on an event loop", "us", columns=BESIDE)
        frame = Row(f"append_{store}_frame", "  of it making the frame", "us", columns=BESIDE)
        effort = self._effort
        found = self._ask(
            store, "appends:lone", store=store, where=where, rounds=effort.rounds, appends=effort.appends
        )
        for seen in found or ():
            row.add_round({name: seen[name] * 1e6 for name in BESIDE})
            awaited.add_round({"floor": seen["floor"] * 1e6, "sifaka": seen["awaited"] * 1e6})
            frame.add_round({"sifaka": seen["frame"] * 1e6}, floor=None)
        return [row, frame, awaited]

    def _shared(self, store: str, where: str) -> list[Row]:
        found = self._ask(
            store,
            "appends:writers",
            store=store,
            where=where,
            rounds=self._effort.rounds,
            count=WRITERS,
            appends=self._effort.writer_appends,
        )
        way = found["way"] if found else "?"
        label = f"an append, {WRITERS} writers, {store}"
        row = Row(f"append_{store}_{WRITERS}", label, "us", Bar(2, of_floor=True), columns=BESIDE)
        ready = Row(
            f"append_{store}_{WRITERS}_ready", f"  floor: {way}, bytes ready-made", "us", columns=BESIDE
        )
        commits = Row(f"append_{store}_{WRITERS}_a_commit", "  appends a commit", "", columns=BESIDE)
        for seen in found["rounds"] if found else ():
            row.add_round({name: seen[name] * 1e6 for name in BESIDE})
            ready.add_round({"floor": seen["ready"] * 1e6, "sifaka": seen["sifaka"] * 1e6})
        if found:
            commits.add_round({"sifaka": found["appends_a_commit"]}, floor=None)
        return [row, ready, commits]

    def _modes(self, store: str, where: str) -> list[Row]:
        units = {"seconds": ("ms", 1e3), "commits": ("", 1), "kept": ("kB", 1e-3), "written": ("kB", 1e-3)}
        labels = {
            "seconds": f"a chain of 3 iterations, {store}",
            "commits": "  commits",
            "kept": "  kept",
            "written": "  written to the disk for it",
        }
        rows = {
            name: Row(f"mode_{store}_{name}", labels[name], unit, columns=MODES)
            for name, (unit, _) in units.items()
        }
        found = self._ask(
            store,
            "durabilities:modes",
            store=store,
            where=where,
            rounds=self._effort.rounds,
            chains=self._effort.mode_chains,
            iterations=3,
        )
        for seen in found or ():
            for name, (_, scale) in units.items():
                rows[name].add_round({mode: seen[mode][name] * scale for mode in MODES}, floor="step")
        return list(rows.values())

    def _packing(self) -> None:
        """By kind of frame: what is left of the raw bytes. For whole chains: what packing costs."""
        found = self._ask("packing", "packing:measure", repeats=self._effort.packing_repeats)
        if found is None:
            return
        rows = [
            Row(f"packed_{kind}", f"packed English, of raw: {name}", "%", columns=CODECS)
            for kind, name in _KINDS.items()
        ]
        pack = Row("pack_us", "  to pack, us a kB (whole chains)", "us", columns=CODECS)
        unpack = Row("unpack_us", "  to unpack, us a kB (whole chains)", "us", columns=CODECS)
        for row, kind in zip(rows, _KINDS, strict=True):
            row.add_round({codec: 100 * by[kind][0] for codec, by in found.items() if kind in by}, floor=None)
        for row, at in ((pack, 1), (unpack, 2)):
            seen = {
                codec: by["all"][at] * 1e9 for codec, by in found.items() if "all" in by and codec != "none"
            }
            row.add_round({codec: value for codec, value in seen.items() if math.isfinite(value)}, floor=None)
        self._workers.stop("store packing")
        self._report.show(*rows, pack, unpack)

    # -- scale ------------------------------------------------------------------------------------

    def scale(self) -> None:
        """A store of a million records in 100,000 runs (of fewer where it is not named by ``--stores``)."""
        # Of a smaller store the bars would say nothing.
        is_full = self._effort.chains >= FULL.chains
        judged = tuple(store for store in DURABLE if store in self._large and is_full)

        def row(key: str, label: str, unit: str, bar: Bar | None = None) -> Row:
            return Row(f"scale_{key}", label, unit, bar, columns=DURABLE, judged=judged)

        count, fill = row("records", "records in the store", ""), row("fill", "  filling it", "s")
        listed = {
            "newest": row("newest", "list 50 of its runs: the newest", "ms", Bar(50)),
            "status": row("status", "  of one status", "ms", Bar(50)),
            "group": row("group", "  of one group", "ms", Bar(50)),
            "middle": row("middle", "  from the middle on", "ms", Bar(50)),
            "middle_status": row("middle_status", "  of one status, from the middle on", "ms", Bar(50)),
        }
        worst = row("slowest", "  the slowest of all these pages", "ms")
        stats = row("stats", "get_storage_stats", "ms")
        stats_grown = row("stats_grown", "  memory it takes at the most", "MB", Bar(100))
        clean = row("clean", "cleanup_old_checkpoints of half the runs", "s")
        clean_grown = row("clean_grown", "  memory it takes at the most", "MB", Bar(100))
        for store in DURABLE:
            chains = self._effort.chains if store in self._large else self._effort.other_chains
            with self._at(store) as where:
                if where is None:
                    continue
                seconds = self._fresh(store, "fill", where, chains)
                if seconds is None:
                    continue
                count.add_round({store: 10 * chains}, floor=None)
                fill.add_round({store: seconds}, floor=None)
                pages = self._fresh(store, "pages", where, chains, times=self._effort.pages)
                for name, values in (pages or {}).items():
                    for value in values:
                        listed[name].add_round({store: value * 1e3}, floor=None)
                if pages:
                    worst.add_round({store: 1e3 * max(map(max, pages.values()))}, floor=None)
                measured = (("stats", stats, stats_grown, 1e3), ("clean_up", clean, clean_grown, 1))
                for do, took, grown, scale in measured:
                    seen = self._fresh(store, do, where, chains)
                    if seen:
                        took.add_round({store: seen["seconds"] * scale}, floor=None)
                        grown.add_round({store: seen["grown"] / 1e6}, floor=None)
        self._report.show(count, fill, *listed.values(), worst, stats, stats_grown, clean, clean_grown)

    def _fresh(self, store: str, do: str, where: str, chains: int, **arguments: Any) -> Any:
        """A measurement in a process that has done nothing before."""
        self._workers.stop(f"store {store}")
        return self._ask(store, f"scale:{do}", store=store, where=where, chains=chains, **arguments)


def _has(store: str) -> bool:
    """Whether the store's client library and its server are installed."""
    if importlib.util.find_spec(_MODULES[store]) is None:
        return False
    from sifaka.testing.servers import postgres_program, redis_program

    return (redis_program if store == "redis" else postgres_program)() is not None
