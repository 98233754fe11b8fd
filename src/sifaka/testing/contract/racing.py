"""Threads at once on one handle and on several: exactly one winner, nothing lost (floor 8)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sifaka.storage.base import Query, Renewal, Storage, Write
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import OWNER, START, entry_of, opening, put, row, started

__all__ = ["racing"]

racing = Theme("threads")

THREADS = 6
ROUNDS = 12


def _at_once(work: Callable[[int], Any]) -> list[Any]:
    """The answers of threads that begin at the same moment; the first one's error is raised."""
    barrier = threading.Barrier(THREADS)
    answers: list[Any] = [None] * THREADS
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait()
            answers[number] = work(number)
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return answers


def _handles(store: Opener) -> list[Storage]:
    """A handle a thread, two of which are shared."""
    own = [store() for _ in range(THREADS - 2)]
    return [*own, own[0], own[1]]


@racing.check
def one_of_many_appends_to_a_place_wins(store: Opener) -> None:
    """Threads that write the same record at the same moment: one is accepted, and it is the one stored."""
    handles = _handles(store)
    started(handles[0])

    for place in range(1, ROUNDS + 1):
        rows = [row("a", place, frame=f"{place} by {number}".encode()) for number in range(THREADS)]

        def append(number: int, rows: list[Any] = rows) -> bool:
            return handles[number].write([Write(rows[number])])[0]

        answers = _at_once(append)
        expect_equal(answers.count(True), 1, "exactly one append to a place is accepted")
        stored = list(handles[0].rows("a", place))
        expect_equal(stored, [rows[answers.index(True)]], "the one that was accepted is stored")


@racing.check
def one_of_many_openings_wins(store: Opener) -> None:
    """Threads that open one run at the same moment: one does."""
    handles = _handles(store)
    for number in range(ROUNDS):
        name = f"run {number}"

        def begin(who: int, name: str = name) -> bool:
            return handles[who].write([opening(name, label=f"by {who}")])[0]

        answers = _at_once(begin)
        expect_equal(answers.count(True), 1, "exactly one opens a run")
        label = entry_of(handles[0], name).label
        expect_equal(label, f"by {answers.index(True)}", "the run is the winner's")
        expect_equal(len(list(handles[0].rows(name))), 1, "with one row")


@racing.check
def one_of_many_claims_wins(store: Opener) -> None:
    """Threads that claim under one token at the same moment: one owns the run."""
    handles = _handles(store)
    started(handles[0])
    for token in range(1, ROUNDS + 1):

        def claim(who: int, token: int = token) -> bool:
            return handles[who].claim("a", token, f"owner {who}".encode(), START + token)

        answers = _at_once(claim)
        expect_equal(answers.count(True), 1, "exactly one claims a run")
        entry = entry_of(handles[0], "a")
        wanted = (token + 1, f"owner {answers.index(True)}".encode())
        expect_equal((entry.token, entry.owner), wanted, "the run is the winner's")


@racing.check
def swaps_lose_no_update(store: Opener) -> None:
    """Threads that count in one cell: the sum is right, and so is the version."""
    handles = _handles(store)

    def count(who: int) -> None:
        storage = handles[who]
        for _ in range(ROUNDS):
            while True:
                (cell,) = storage.cells(["count"])
                if storage.swap("count", b"%d" % (int(cell.value or b"0") + 1), cell.version):
                    break

    _at_once(count)
    (cell,) = handles[0].cells(["count"])
    wanted = (b"%d" % (THREADS * ROUNDS), THREADS * ROUNDS)
    expect_equal((cell.value, cell.version), wanted, "every swap that was accepted counts once")


@racing.check
def appends_to_many_runs_are_all_there(store: Opener) -> None:
    """Each thread writes runs of its own; no acknowledged row is missing, none is in another's run."""
    handles = _handles(store)

    def write(who: int) -> None:
        storage = handles[who]
        put(storage, *(opening(f"{who} {n}") for n in range(3)))
        for place in range(1, ROUNDS):
            put(storage, *(Write(row(f"{who} {n}", place)) for n in range(3)))

    _at_once(write)
    for name in (f"{who} {n}" for who in range(THREADS) for n in range(3)):
        wanted = [row(name, place) for place in range(ROUNDS)]
        expect_equal(list(handles[0].rows(name)), wanted, f"all rows of {name!r} are there")
    count = len(handles[1].entries(Query(limit=100)))
    expect_equal(count, THREADS * 3, "all runs are listed")


@racing.check
def a_takeover_stops_the_owner_in_full_flight(store: Opener) -> None:
    """While the owner appends, another claims: after that nothing more comes under the old token."""
    handles = _handles(store)
    for number in range(4):
        _take_over(handles, f"run {number}", 2 + number)


def _take_over(handles: list[Storage], name: str, after: int) -> None:
    """One thread appends until it is refused; another claims once there are ``after`` records more."""
    started(handles[0], name)
    ready = threading.Event()

    def own() -> int:
        place = 1
        while place < 500 and handles[0].write([Write(row(name, place))])[0]:
            place += 1
            if place > after:
                ready.set()
        ready.set()
        return place - 1

    def take() -> int:
        ready.wait(30)
        expect(handles[1].claim(name, 1, b"thief", START + 90), "a run can be claimed under its token")
        return entry_of(handles[1], name).last

    answers = _at_once(lambda who: own() if who == 0 else take() if who == 1 else None)
    last = entry_of(handles[2], name).last
    expect_equal(answers[:2], [last, last], "after a claim nothing comes under the old token")


@racing.check
def renewals_and_appends_do_not_disturb_each_other(store: Opener) -> None:
    """Some threads renew all leases while others append: all are accepted, and both are kept."""
    handles = _handles(store)
    ids = [f"run {n}" for n in range(THREADS)]
    put(handles[0], *(opening(name) for name in ids))

    def work(who: int) -> None:
        storage = handles[who]
        for n in range(1, ROUNDS):
            if who % 2:
                renewals = [Renewal(name, 1, OWNER, START + 100 + n) for name in ids]
                expect_equal(storage.renew(renewals), [True] * THREADS, "the owner renews its leases")
            else:
                put(storage, Write(row(ids[who], n)))

    _at_once(work)
    for n, name in enumerate(ids):
        entry = entry_of(handles[0], name)
        expect_equal(entry.last, 0 if n % 2 else ROUNDS - 1, f"the appends of {name!r} are all there")
        expect_equal(entry.lease_until, START + 99 + ROUNDS, f"the lease of {name!r} is the last one's")


@racing.check
def a_run_that_is_deleted_while_it_is_written_is_whole_or_gone(store: Opener) -> None:
    """An append against a deletion: either it came first and went along, or it was refused."""
    handles = _handles(store)
    for number in range(ROUNDS):
        name = f"run {number}"
        entry = started(handles[0], name, rows=3)

        def work(who: int, name: str = name, entry: Any = entry) -> object:
            if who:
                return handles[who].delete([entry]) if who == 1 else None
            return handles[0].write([Write(row(name, 3))])

        answers = _at_once(work)
        written = answers[0] == [True]
        expect_equal(answers[1], 4 if written else 3, "a deletion counts all that was there")
        left = (handles[2].entry(name), list(handles[2].rows(name)))
        expect_equal(left, (None, []), "nothing is left of a deleted run, and nothing came after")
