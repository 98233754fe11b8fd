"""Reading rows: ranges, either direction, and reading while others write (floor 8)."""

from __future__ import annotations

from itertools import islice

from sifaka.storage.base import Row, Write
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import opening, put, row, row_after, started

__all__ = ["reading"]

reading = Theme("reading")

LENGTHS = (1, 3, 1, 1, 4, 2, 1, 5, 1, 1, 2, 1)


def _log(store: Opener, first: int = 0) -> list[Row]:
    """A run of rows of different lengths."""
    storage = store()
    put(storage, opening("a", first=first))
    for length in LENGTHS[1:]:
        put(storage, Write(row_after(storage, records=length)))
    return list(storage.rows("a"))


@reading.check
def rows_are_found_by_the_records_they_hold(store: Opener) -> None:
    """For every range of record numbers, in both directions, exactly the rows that hold any of it."""
    _log(store)
    storage = store()
    rows: list[Row] = []
    first = 0
    for length in LENGTHS:
        rows.append(row("a", first, first + length - 1))
        first += length
    for start in range(first + 2):
        for end in (None, *range(start - 1, first + 2, 3)):
            wanted = [one for one in rows if one.last >= start and (end is None or one.first <= end)]
            promise = f"records {start} to {end} are in these rows"
            expect_equal(list(storage.rows("a", start, end)), wanted, promise)
            found = list(storage.rows("a", start, end, newest_first=True))
            expect_equal(found, wanted[::-1], f"{promise}, newest first")


@reading.check
def a_log_that_begins_elsewhere_is_read_by_its_own_numbers(store: Opener) -> None:
    """Ranges of a run that was opened at record 100 count from 100."""
    rows = _log(store, 100)
    storage = store()
    expect_equal(list(storage.rows("a", 0, 99)), [], "there is nothing before the first record")
    expect_equal(list(storage.rows("a")), rows, "reading from 0 gives all")
    expect_equal(list(storage.rows("a", 102, 102)), rows[1:2], "record 102 is in the second row")
    expect_equal(list(storage.rows("a", newest_first=True)), rows[::-1], "newest first gives all")


@reading.check
def the_newest_row_can_be_read_alone(store: Opener) -> None:
    """Newest first begins with the last row, also where a log is long."""
    storage = store()
    started(storage, rows=150)
    newest = next(iter(storage.rows("a", newest_first=True)))
    expect_equal((newest.first, newest.last), (149, 149), "the last row comes first")
    two = [one.first for one in islice(storage.rows("a", newest_first=True), 2)]
    expect_equal(two, [149, 148], "the row before it comes next")


@reading.check
def a_run_that_is_not_there_has_no_rows(store: Opener) -> None:
    """Reading what does not exist gives nothing, and is no error."""
    storage = store()
    started(storage)
    expect_equal(list(storage.rows("b")), [], "an unknown run has no rows")
    expect_equal(list(storage.rows("b", 3, 7, newest_first=True)), [], "an unknown run has no rows")
    expect_equal(list(storage.rows("")), [], "an empty name is an unknown run")
    expect_equal(storage.entry("b"), None, "an unknown run has no entry")


@reading.check
def rows_are_of_the_run_that_was_asked_for(store: Opener) -> None:
    """Runs whose ids begin alike do not see each other's rows."""
    storage = store()
    ids = ["a", "a ", "aa", "a:0", "A", "a\u0301", "\u00e1"]
    put(storage, *(opening(name) for name in ids))
    put(storage, *(Write(row(name, 1, 2)) for name in ids))
    for name in ids:
        wanted = [row(name, 0), row(name, 1, 2)]
        expect_equal(list(storage.rows(name)), wanted, f"{name!r} has its own rows only")


@reading.check
def a_reader_half_way_keeps_nobody_from_writing(store: Opener) -> None:
    """While somebody reads, the same handle and others append; the reader gets all that was there."""
    storage, other = store(), store()
    started(storage, rows=40)
    reader = iter(storage.rows("a"))
    read = [next(reader).first]
    put(other, opening("b"))
    put(storage, Write(row("a", 40)))
    put(other, Write(row("a", 41)))
    read += [one.first for one in reader]
    expect_equal(read[:40], list(range(40)), "a reader gets what was there when it began, in order")
    expect(read in (list(range(n)) for n in (40, 41, 42)), "what came meanwhile is in order, too", read=read)


@reading.check
def what_one_handle_wrote_another_sees_at_once(store: Opener) -> None:
    """Two handles on one store, writing by turns, never read anything old."""
    handles = [store(), store()]
    started(handles[0])
    for n in range(1, 12):
        put(handles[n % 2], Write(row("a", n)))
        for storage in handles:
            entry = storage.entry("a")
            expect_equal(entry.last if entry else None, n, "an entry tells the newest record at once")
            last = next(iter(storage.rows("a", newest_first=True)))
            expect_equal(last.first, n, "the newest row is read at once")
