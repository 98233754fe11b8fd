"""Deleting runs and trimming their logs: what goes, what is counted, what stays (floor 8)."""

from __future__ import annotations

from sifaka.storage.base import Query, Row, Write
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import START, entry_of, names, opening, put, renamed, row, shown, started

__all__ = ["removing"]

removing = Theme("removing")


def _trimmed(first: int, last: int, token: int = 1, **fields: object) -> Row:
    known: dict[str, object] = {"checkpoints": 0, "frame": b"what was here", "raw": 13}
    return row("a", first, last, token, **(known | fields))


@removing.check
def a_deleted_run_is_gone_and_the_others_stay(store: Opener) -> None:
    """Entry and rows go; the number of checkpoints that went is the answer."""
    storage = store()
    for name in ("a", "b", "a:b", "aa"):
        started(storage, name, rows=4)
    kept = shown(storage, "b", "a:b", "aa")
    expect_equal(storage.delete([entry_of(storage, "a")]), 4, "a deletion counts checkpoints")
    expect_equal(shown(store(), "a"), [(None, [])], "nothing is left of a deleted run")
    expect_equal(shown(store(), "b", "a:b", "aa"), kept, "other runs stay as they are")
    expect_equal(names(storage.entries(Query())), ["b", "aa", "a:b"], "a deleted run is not listed")
    expect_equal(names(storage.entries(Query(statuses=("running",)))), ["b", "aa", "a:b"], "by status, too")


@removing.check
def a_deletion_counts_checkpoints_not_rows(store: Opener) -> None:
    """Rows may hold none or several checkpoints."""
    storage = store()
    put(storage, opening("a"))
    put(storage, Write(row("a", 1, 9, checkpoints=5)))
    put(storage, Write(row("a", 10, checkpoints=0)))
    put(storage, opening("b"))
    removed = storage.delete([entry_of(storage, "a"), entry_of(storage, "b")])
    expect_equal(removed, 7, "the checkpoints of all runs are counted together")


@removing.check
def deleting_what_is_not_there_is_no_error(store: Opener) -> None:
    """A run that is gone already, twice in the list or never was, counts nothing."""
    storage = store()
    entry = started(storage, rows=2)
    expect_equal(storage.delete([]), 0, "nothing to delete is no error")
    expect_equal(storage.delete([renamed(entry, chain_id="b")]), 0, "a run that never was counts nothing")
    expect_equal(storage.delete([entry, entry]), 2, "a run is deleted once")
    expect_equal(storage.delete([entry]), 0, "a run that is gone counts nothing")


@removing.check
def a_deletion_spares_runs_with_another_token(store: Opener) -> None:
    """Of a list of entries those are deleted whose token is still current."""
    storage = store()
    put(storage, *(opening(name) for name in "abc"))
    listed = storage.entries(Query())
    expect(storage.claim("b", 1, b"new", START + 90), "a run can be claimed under its token")
    expect_equal(storage.delete(listed), 2, "the runs that nobody has claimed since are deleted")
    expect_equal(names(storage.entries(Query())), ["b"], "the run that was claimed is spared")
    expect_equal(len(list(storage.rows("b"))), 1, "with its rows")
    expect_equal(storage.delete([entry_of(storage, "b")]), 1, "it goes by its current token")


@removing.check
def only_the_token_of_an_entry_matters_to_its_deletion(store: Opener) -> None:
    """An entry that was listed before the run's last appends still deletes it."""
    storage = store()
    listed = started(storage)
    put(storage, Write(row("a", 1)))
    expect_equal(storage.delete([listed]), 2, "a run is deleted with all it holds by now")
    expect_equal(shown(storage, "a"), [(None, [])], "nothing is left of a deleted run")


@removing.check
def many_runs_are_deleted_at_once(store: Opener) -> None:
    """Hundreds of entries in one call."""
    storage = store()
    put(storage, *(opening(f"run {n:03}") for n in range(230)))
    listed = storage.entries(Query(limit=500))
    expect_equal(storage.delete(listed[:220]), 220, "every one of them is deleted and counted")
    expect_equal(storage.entries(Query(limit=500)), listed[220:], "those that were not named stay")


@removing.check
def compacting_loses_nothing(store: Opener) -> None:
    """After deletions the space is given back; what is kept is as it was."""
    storage = store()
    put(storage, *(opening(f"run {n}") for n in range(20)))
    expect(storage.swap("a cell", b"a value", 0), "a new cell can be set")
    storage.delete(storage.entries(Query(limit=10)))
    left = names(storage.entries(Query()))
    before = shown(storage, *left)
    storage.compact()
    expect_equal(shown(storage, *left), before, "what was not deleted stays as it is")
    expect_equal(shown(store(), *left), before, "whoever opens the store sees the same")
    expect_equal(storage.cells(["a cell"])[0].value, b"a value", "cells stay, too")
    put(storage, Write(row(left[0], 1)))


@removing.check
def a_trim_puts_one_row_in_place_of_many(store: Opener) -> None:
    """The rows in the range go, the new one stands there, and the checkpoints that went are counted."""
    storage = store()
    started(storage, rows=8)
    before = list(storage.rows("a"))
    expect_equal(storage.trim(_trimmed(2, 5)), 4, "a trim counts the checkpoints that went")
    wanted = [*before[:2], _trimmed(2, 5), *before[6:]]
    expect_equal(list(store().rows("a")), wanted, "one row stands in place of those in its range")
    expect_equal(list(storage.rows("a", newest_first=True)), wanted[::-1], "from the other end, too")
    expect_equal(list(storage.rows("a", 4, 4)), wanted[2:3], "its records are found in it")
    expect_equal(entry_of(storage, "a").last, 7, "the log's end stays where it is")
    put(storage, Write(row("a", 8)))


@removing.check
def a_trim_counts_what_its_row_still_holds(store: Opener) -> None:
    """Checkpoints that the new row tells of have not gone."""
    storage = store()
    started(storage, rows=6)
    expect_equal(storage.trim(_trimmed(0, 3, checkpoints=1)), 3, "one of four checkpoints is still there")
    expect_equal(storage.delete([entry_of(storage, "a")]), 3, "the rest is counted when it goes")


@removing.check
def a_trimmed_row_can_be_trimmed_again(store: Opener) -> None:
    """Alone, or as part of a longer range; nothing more is counted twice."""
    storage = store()
    started(storage, rows=8)
    expect_equal(storage.trim(_trimmed(1, 2)), 2, "two checkpoints went")
    expect_equal(storage.trim(_trimmed(1, 2, frame=b"less")), 0, "a row can be replaced by another")
    expect_equal(storage.trim(_trimmed(0, 4)), 3, "only those that were still there are counted")
    found = [(one.first, one.last) for one in storage.rows("a")]
    expect_equal(found, [(0, 4), (5, 5), (6, 6), (7, 7)], "the rows follow one another")


@removing.check
def the_last_row_is_never_trimmed(store: Opener) -> None:
    """What the log's end is known by stays."""
    storage = store()
    started(storage, rows=3)
    before = shown(storage, "a")
    for first, last in ((2, 2), (1, 2), (0, 2)):
        expect_equal(storage.trim(_trimmed(first, last)), None, "the run's last row is never replaced")
    expect_equal(shown(storage, "a"), before, "a refused trim changes nothing")


@removing.check
def a_trim_must_begin_and_end_with_a_row(store: Opener) -> None:
    """A range that cuts a row in two, or that holds none, is refused and changes nothing."""
    storage = store()
    put(storage, opening("a", first=10))
    for first, last in ((11, 13), (14, 14), (15, 19), (20, 20)):
        put(storage, Write(row("a", first, last)))
    before = shown(storage, "a")
    for first, last in ((10, 12), (11, 12), (12, 13), (12, 12), (13, 14), (11, 16), (0, 10), (9, 13)):
        expect_equal(storage.trim(_trimmed(first, last)), None, f"{first} to {last} cuts a row or holds none")
    for first, last in ((0, 5), (20, 30), (30, 40), (15, 25)):
        expect_equal(storage.trim(_trimmed(first, last)), None, f"{first} to {last} is not what is there")
    expect_equal(storage.trim(row("b", 0, 1)), None, "there is no such run")
    expect_equal(shown(storage, "a", "b"), [*before, (None, [])], "a refused trim changes nothing")
    expect_equal(storage.trim(_trimmed(11, 19)), 3, "a range that begins and ends with a row is trimmed")


@removing.check
def a_trim_is_fenced(store: Opener) -> None:
    """Only under the run's current token; rows written under older ones can be trimmed all the same."""
    storage = store()
    started(storage, rows=3)
    expect(storage.claim("a", 1, b"new", START + 90), "a run can be claimed under its token")
    put(storage, Write(row("a", 3, token=2)))
    before = shown(storage, "a")
    for token in (0, 1, 3):
        expect_equal(storage.trim(_trimmed(0, 1, token)), None, f"{token} is not the current token")
    expect_equal(shown(storage, "a"), before, "a refused trim changes nothing")
    expect_equal(storage.trim(_trimmed(0, 1, 2)), 2, "the current token trims what older ones wrote")


@removing.check
def a_trim_is_of_one_run(store: Opener) -> None:
    """Other runs keep their rows of the same numbers."""
    storage = store()
    for name in ("a", "b", "a:b"):
        started(storage, name, rows=4)
    kept = shown(storage, "b", "a:b")
    expect_equal(storage.trim(_trimmed(0, 2)), 3, "three checkpoints went")
    expect_equal(shown(storage, "b", "a:b"), kept, "other runs stay as they are")
