"""Runs a contestant and measures it: the same clock, counts and checks for all.

Every run is checked: the last draft must come back and each of the paid steps must have been made.
Before a clock starts, texts exist, code has been run once, garbage is collected and the disk has been
told to write what it still holds, so that nobody pays for the one before. Bytes are what
chains add to files that already hold some: an empty store's own size is told apart.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypedDict

from bench.contestant import Contestant, kind_of
from bench.files import commits_of, databases, settled_bytes
from bench.floor import append_and_sync
from bench.watch import LoopWatch
from bench.workload import ChainParts, draft, steps_of

_WARM_UP = 1_000_000  # chain numbers of runs that are not timed
_WARM_CHAINS = 2


class Measure(TypedDict):
    """One measurement; seconds and bytes. What could not be seen is None."""

    step_s: float
    chains: int
    steps: int
    bytes_a_chain: float
    bytes_empty: float
    commits: int | None
    blocked_s: float | None


def one_chain(name: str, folder: str, iterations: int, chains: int) -> Measure:
    """Chains alone, one after another in one open store: seconds a step, bytes and commits a chain."""
    with _opened(name, folder) as (contestant, runner, where):
        _one_by_one(contestant, runner, _parts(range(_WARM_CHAINS), 3, warm=True))
        commits = None
        if iterations <= 3:
            commits = commits_of(
                where,
                lambda: _one_by_one(contestant, runner, _parts([9], iterations, warm=True)),
            )
        before = settled_bytes(where)
        seconds = _one_by_one(contestant, runner, _parts(range(chains), iterations))
        added = settled_bytes(where) - before
    warm = _WARM_CHAINS + (commits is not None)
    return Measure(
        step_s=seconds / (chains * steps_of(iterations)),
        chains=chains,
        steps=steps_of(iterations),
        bytes_a_chain=added / chains,
        bytes_empty=before - warm * added / chains if iterations == 3 else float("nan"),
        commits=commits,
        blocked_s=None,
    )


def at_once(name: str, folder: str, iterations: int, chains: int, *, count: bool = False) -> Measure:
    """Chains all at once in one process: seconds a step, and how long the event loop was blocked.

    ``count``: count the commits instead of timing (the log is then kept from being reset).
    """
    with _opened(name, folder) as (contestant, runner, where):
        _together(contestant, runner, _parts(range(10), iterations, warm=True))
        before = settled_bytes(where)
        parts = _parts(range(chains), iterations)
        seconds, blocked, commits = 0.0, None, None
        if count:
            commits = commits_of(where, lambda: _together(contestant, runner, parts))
        else:
            seconds, blocked = _together(contestant, runner, parts)
        added = settled_bytes(where) - before
    return Measure(
        step_s=seconds / (chains * steps_of(iterations)),
        chains=chains,
        steps=steps_of(iterations),
        bytes_a_chain=added / chains,
        bytes_empty=float("nan"),
        commits=commits,
        blocked_s=blocked,
    )


def load_last(name: str, folder: str, iterations: int, times: int) -> list[float]:
    """Seconds to read the last state of chain 0, which `one_chain` left in this folder."""
    return _load(name, folder, iterations, times, whole=False)


def load_all(name: str, folder: str, iterations: int, times: int) -> list[float]:
    """Seconds to read the whole history of chain 0."""
    return _load(name, folder, iterations, times, whole=True)


def append_floor(folder: str, iterations: int) -> float:
    return append_and_sync(Path(folder), ChainParts(0, iterations))


def scripts_of(name: str, folder: str) -> dict[str, str]:
    """What `startup.py` runs for this contestant."""
    del folder  # nothing runs here
    kind: Any = kind_of(name)
    return {"import": kind.import_statement, "first_commit": kind.first_commit_script}


def waiting_chain_bytes(name: str, folder: str) -> float | None:
    ask = getattr(kind_of(name)(), "waiting_chain_bytes", None)
    return None if ask is None else float(ask(Path(folder)))


def idle_loop(seconds: float) -> float:
    """The largest lateness of an event loop that has nothing to do: the machine's own noise."""

    async def idle() -> float:
        async with LoopWatch() as watch:
            await asyncio.sleep(seconds)
        return watch.latest_s

    return asyncio.run(idle())


def _parts(chains: Any, iterations: int, *, warm: bool = False) -> list[ChainParts]:
    return [ChainParts(_WARM_UP * warm + chain, iterations) for chain in chains]


@contextmanager
def _opened(name: str, folder: str) -> Iterator[tuple[Contestant, asyncio.Runner, Path]]:
    where = Path(folder)
    contestant = kind_of(name)()
    with asyncio.Runner() as runner:
        _drive(runner, contestant.open, where)
        try:
            yield contestant, runner, where
        finally:
            _drive(runner, contestant.close)


def _drive(runner: asyncio.Runner, function: Callable[..., Any], *args: Any) -> Any:
    """Call a plain function with no loop running, a coroutine function inside one."""
    if inspect.iscoroutinefunction(function):
        return runner.run(function(*args))
    return function(*args)


def _one_by_one(contestant: Contestant, runner: asyncio.Runner, parts: list[ChainParts]) -> float:
    def plain() -> tuple[list[str], float]:
        begun = time.perf_counter()
        drafts = [contestant.run_one(each) for each in parts]
        return drafts, time.perf_counter() - begun

    async def awaited() -> tuple[list[str], float]:
        begun = time.perf_counter()
        drafts = [await contestant.run_one(each) for each in parts]
        return drafts, time.perf_counter() - begun

    _quiet()
    is_async = inspect.iscoroutinefunction(contestant.run_one)
    drafts, seconds = runner.run(awaited()) if is_async else plain()
    _check(parts, drafts)
    return seconds


def _together(
    contestant: Contestant, runner: asyncio.Runner, parts: list[ChainParts]
) -> tuple[float, float | None]:
    async def awaited() -> tuple[list[str], float, float]:
        async with LoopWatch() as watch:
            begun = time.perf_counter()
            drafts = await contestant.run_many(parts)
            seconds = time.perf_counter() - begun
        return drafts, seconds, watch.latest_s

    _quiet()
    if inspect.iscoroutinefunction(contestant.run_many):
        drafts, seconds, blocked = runner.run(awaited())
    else:
        begun = time.perf_counter()
        drafts = contestant.run_many(parts)
        seconds, blocked = time.perf_counter() - begun, None
    _check(parts, drafts)
    return seconds, blocked


def _load(name: str, folder: str, iterations: int, times: int, *, whole: bool) -> list[float]:
    where = Path(folder)
    expected: Any = [draft(0, i) for i in range(iterations)] if whole else draft(0, iterations - 1)
    seconds: list[float] = []
    with ExitStack() as stack, asyncio.Runner() as runner:
        for path in databases(where):
            # Held open throughout: else each reader would be the last to leave and clear the log.
            keeper = sqlite3.connect(path)
            stack.callback(keeper.close)
            keeper.execute("SELECT count(*) FROM sqlite_master").fetchall()
        for _ in range(times + 1):
            contestant = kind_of(name)()
            read = contestant.load_all if whole else contestant.load_last
            begun = time.perf_counter()
            found = _drive(runner, read, where, 0, iterations)
            seconds.append(time.perf_counter() - begun)
            if found != expected:
                raise AssertionError(f"{name} read back another state than was written")
    return seconds[1:]  # the first pays for imports


def _quiet() -> None:
    """What lives by now (modules, texts) is left out of later collections: it is nobody's chains."""
    gc.collect()
    gc.freeze()
    os.sync()


def _check(parts: list[ChainParts], drafts: list[str]) -> None:
    for each, found in zip(parts, drafts, strict=True):
        if found != each.last_draft:
            raise AssertionError(f"chain {each.chain} ended with another draft than its last")
        if each.calls != steps_of(each.iterations):
            raise AssertionError(f"chain {each.chain} made {each.calls} of {steps_of(each.iterations)} steps")
