"""What a store says of itself: counts, sizes, durability, time, complaints (floor 8)."""

from __future__ import annotations

from typing import Any

from sifaka.storage.base import DURABILITIES, Change, Query, Storage, Write
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.clock import FakeClock
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import START, entry_of, opening, put, row, started

__all__ = ["SAME", "measured", "measuring"]

measuring = Theme("measuring")

SAME = ("total_checkpoints", "records", "raw_bytes", "oldest_checkpoint", "newest_checkpoint", "chains")
"""What every store measures alike; how many bytes it takes up is its own affair."""


def measured(storage: Storage) -> dict[str, Any]:
    """What every store measures alike."""
    found = storage.measure()
    missing = {*SAME, "storage_size_bytes", "stored_bytes"} - found.keys()
    expect(not missing, "a measure has all its names", missing=missing)
    sizes = [found[name] for name in ("storage_size_bytes", "stored_bytes", "raw_bytes")]
    expect(all(type(size) is int and size >= 0 for size in sizes), "sizes are numbers of bytes", sizes=sizes)
    return {name: found[name] for name in SAME}


@measuring.check
def an_empty_store_measures_nothing(store: Opener) -> None:
    """Zeros, and None for times that nobody can know."""
    wanted: dict[str, Any] = {
        "total_checkpoints": 0,
        "records": 0,
        "raw_bytes": 0,
        "oldest_checkpoint": None,
        "newest_checkpoint": None,
        "chains": {},
    }
    storage = store()
    expect_equal(measured(storage), wanted, "an empty store holds nothing")
    expect_equal(storage.measure()["stored_bytes"], 0, "no records take no bytes")


@measuring.check
def counts_and_sizes_follow_what_is_kept(store: Opener) -> None:
    """After openings, appends, changes, trims and deletions the measure is the model's."""
    storage, model = store(), InMemoryStorage()
    frame = bytes(range(256)) * 8
    for one in (storage, model):
        for n, name in enumerate(("a", "b", "c", "d")):
            put(one, opening(name, status=("running", "done")[n % 2]))
            put(one, Write(row(name, 1, 3, at=START + 60 * n, frame=frame, raw=5_000, checkpoints=n)))
            put(one, Write(row(name, 4, at=START + 999, checkpoints=0)))
        put(one, Write(row("a", 5), Change("failed", START + 1)))
    expect_equal(measured(storage), measured(model), "the measure is that of what is kept")
    expect(storage.measure()["stored_bytes"] > 0, "records take up bytes")
    for one in (storage, model):
        one.trim(row("b", 0, 3, checkpoints=0, raw=7))
        one.delete([entry_of(one, "c")])
    expect_equal(measured(storage), measured(model), "what was removed is measured no more")
    for one in (storage, model):
        one.delete(one.entries(Query()))
    expect_equal(measured(store()), measured(model), "what was removed is measured no more")


@measuring.check
def times_are_those_of_rows_that_hold_checkpoints(store: Opener) -> None:
    """The oldest and newest checkpoint, not the oldest and newest record."""
    storage = store()
    put(storage, opening("a"))
    put(storage, Write(row("a", 1, at=START - 500, checkpoints=0)))
    put(storage, Write(row("a", 2, at=START + 7.5, checkpoints=2)))
    put(storage, Write(row("a", 3, at=START + 500, checkpoints=0)))
    found = measured(storage)
    times = (found["oldest_checkpoint"], found["newest_checkpoint"])
    expect_equal(times, (START, START + 7.5), "times are those of checkpoints")


@measuring.check
def a_store_says_what_it_survives(store: Opener) -> None:
    """Durability is one of the classes, patience is seconds, the address is text."""
    storage = store()
    expect(storage.durability in DURABILITIES, "a durability is a class", durability=storage.durability)
    expect(storage.patience_s >= 0, "patience is 0 or more seconds", patience_s=storage.patience_s)
    told = (type(storage.url), type(storage.local))
    expect_equal(told, (str, bool), "the address is text, local is True or False")
    sentences = storage.complaints()
    expect(
        all(isinstance(one, str) and one for one in sentences), "complaints are sentences", found=sentences
    )


@measuring.check
def time_goes_on_by_the_given_clock_or_the_server_s(store: Opener) -> None:
    """``now()`` is in unix seconds, and goes on with the given clock unless the store has its own."""
    clock = FakeClock(START)
    storage = store(clock)
    started(storage)
    before = storage.now()
    clock.advance(1_000)
    passed = storage.now() - before
    expect(passed >= 1_000 or 0 <= passed < 60, "time goes on, and never back", passed=passed)
    expect(before > 1_600_000_000, "time is in unix seconds", now=before)
