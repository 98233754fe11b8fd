"""Listing runs: order, ties, paging, and every combination of filters against the memory model (floor 8)."""

from __future__ import annotations

from itertools import product

import msgspec

from sifaka.log.records import STATUSES, Status
from sifaka.storage.base import Change, Entry, Query, Storage, Write
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import START, names, opening, put, row, started

__all__ = ["listing"]

listing = Theme("listing")

NAMES = ("run", "Run", "run 10", "run 9", "\u00e4", "z", "\U0001f600", "\uffee", "a:b", "_", "~", "0")

RUNS_MAX = 100
"""More runs than any check here opens."""


def _pages(storage: Storage, query: Query) -> list[Entry]:
    """All that ``query`` selects, page by page."""
    found: list[Entry] = []
    while page := storage.entries(query):
        found += page
        expect(len(found) <= RUNS_MAX, "paging comes to an end", query=query)
        query = msgspec.structs.replace(query, after=page[-1])
    return found


def _many() -> list[Write]:
    """Runs of all statuses, some of which changed at the same moment."""
    writes: list[Write] = []
    for n in range(36):
        name = f"{NAMES[n % len(NAMES)]} {n // len(NAMES)}"
        group = ("", "first group", "second")[n % 3]
        label = ("", "a label", "\u00fc")[n // 3 % 3]
        status = STATUSES[n * 5 % len(STATUSES)]
        write = opening(name, status=status, group=group, label=label, updated_at=START + n * 7 % 5)
        writes.append(write)
    return writes


@listing.check
def runs_are_listed_by_their_last_change_newest_first(store: Opener) -> None:
    """The order is that of ``updated_at``, down to the microsecond, whatever the order of writing."""
    storage = store()
    times = (3.0, 1.0, 5.0, 2.000001, 2.0, 0.0, -50.0)
    put(storage, *(opening(f"run {n}", updated_at=START + at) for n, at in enumerate(times)))
    found = names(store().entries(Query()))
    wanted = [f"run {n}" for n in (2, 0, 3, 4, 1, 5, 6)]
    expect_equal(found, wanted, "runs are listed by the time of their last change, newest first")


@listing.check
def a_change_moves_a_run_to_its_new_place(store: Opener) -> None:
    """A run that changed is listed under its new time, status and group, and nowhere else."""
    storage = store()
    put(storage, *(opening(name, updated_at=START + n, group="old") for n, name in enumerate("abc")))
    put(storage, Write(row("a", 1), Change("failed", START + 9, group="new")))
    expect_equal(names(storage.entries(Query())), ["a", "c", "b"], "the change's time counts")
    told = {
        "running": names(storage.entries(Query(statuses=("running",)))),
        "failed": names(storage.entries(Query(statuses=("failed",)))),
        "old": names(storage.entries(Query(group="old"))),
        "new": names(storage.entries(Query(group="new"))),
    }
    wanted = {"running": ["c", "b"], "failed": ["a"], "old": ["c", "b"], "new": ["a"]}
    expect_equal(told, wanted, "a run is listed under what it is now, and nothing it was")


@listing.check
def ties_are_listed_by_id_downwards(store: Opener) -> None:
    """Runs that changed at one moment are ordered by id, by code point, so that pages have an order."""
    storage = store()
    put(storage, *(opening(name) for name in NAMES))
    wanted = sorted(NAMES, reverse=True)
    expect_equal(names(storage.entries(Query())), wanted, "ties are broken by id, the highest first")
    expect_equal(names(_pages(storage, Query(limit=1))), wanted, "ties keep their order page by page")
    expect_equal(names(_pages(storage, Query(limit=5))), wanted, "ties keep their order page by page")


@listing.check
def entries_are_listed_whole(store: Opener) -> None:
    """A listed entry is the same as the entry that is asked for by its id."""
    storage = store()
    put(storage, *_many())
    put(storage, Write(row("run 0", 1, 4), Change("waiting", START + 3, "r", "g", START + 8)))
    for entry in storage.entries(Query(limit=100)):
        expect_equal(entry, storage.entry(entry.chain_id), "a listed entry is the run's entry")


@listing.check
def every_combination_of_filters_selects_what_the_model_does(store: Opener) -> None:
    """Statuses, group, label and both times, in every combination, page by page."""
    storage, model = store(), InMemoryStorage()
    put(storage, *_many())
    model.write(_many())
    statuses: tuple[tuple[Status, ...] | None, ...] = (None, (), ("running",), ("failed", "done"), STATUSES)
    times = (None, START + 2, START + 3.5)
    groups, labels = (None, "", "first group", "absent"), (None, "", "\u00fc")
    for chosen in product(statuses, groups, labels, times, times):
        query = Query(*chosen, limit=50)
        wanted = model.entries(query)
        expect_equal(storage.entries(query), wanted, f"{query} selects what it says")
    for status, group in product(statuses, groups):
        query = Query(status, group, limit=3)
        wanted = model.entries(msgspec.structs.replace(query, limit=100))
        expect_equal(_pages(storage, query), wanted, f"the pages of {query} are all of it, in order")


@listing.check
def a_page_holds_as_many_as_it_may(store: Opener) -> None:
    """``limit`` counts what was selected, not what was looked at."""
    storage = store()
    put(storage, *_many())
    for limit in (1, 2, 7, 35, 36, 37, 500):
        count = len(storage.entries(Query(limit=limit)))
        expect_equal(count, min(limit, 36), f"a page of {limit} is full as long as there are more")
    count = len(storage.entries(Query(group="second", limit=10)))
    expect_equal(count, 10, "a page of a group is full as long as there are more")


@listing.check
def paging_goes_on_behind_a_run_that_is_gone(store: Opener) -> None:
    """``after`` is a place, not a run: it holds where its run was deleted or has changed since."""
    storage = store()
    put(storage, *(opening(f"run {n}", updated_at=START + n) for n in range(9)))
    page = storage.entries(Query(limit=3))
    storage.delete(page[2:])
    second = storage.entries(Query(limit=3, after=page[2]))
    expect_equal(names(second), ["run 5", "run 4", "run 3"], "the page after a deleted run is the next one")
    put(storage, Write(row("run 3", 1), Change("done", START + 50)))
    third = names(storage.entries(Query(limit=3, after=second[2])))
    expect_equal(third, ["run 2", "run 1", "run 0"], "the page after a run that moved is the next one")
    nowhere = Entry("not there", updated_at=START + 1.5)
    found = names(storage.entries(Query(after=nowhere)))
    expect_equal(found, ["run 1", "run 0"], "an entry that never was is a place, too")


@listing.check
def an_empty_store_lists_nothing(store: Opener) -> None:
    """No runs, no entries; filters that nothing meets select nothing."""
    storage = store()
    expect_equal(storage.entries(Query()), [], "an empty store lists nothing")
    started(storage, group="g", label="l")
    for query in (
        Query(group="G"),
        Query(label="l "),
        Query(statuses=("done",)),
        Query(updated_before=START),
    ):
        expect_equal(storage.entries(query), [], f"nothing meets {query}")
