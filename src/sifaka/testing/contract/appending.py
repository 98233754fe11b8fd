"""Compare-and-append: what is accepted, what is refused, and what a refusal changes (floor 8)."""

from __future__ import annotations

from sifaka.storage.base import Change, Entry, Write
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import (
    START,
    at_once,
    entry_of,
    opening,
    put,
    renamed,
    row,
    row_after,
    shown,
    started,
)

__all__ = ["appending"]

appending = Theme("appending")


@appending.check
def what_was_appended_is_read_back_by_whoever_opens_the_store(store: Opener) -> None:
    """Rows come back in their order and with every field, to the bit, from any handle."""
    rows = [
        row("a", 0, checkpoints=0, at=0.0, raw=0),
        row("a", 1, 3, at=1_700_000_000.123456, frame=bytes(range(256)) * 3, checkpoints=3),
        row("a", 4, at=1e-9, raw=2**40),
    ]
    put(store(), Write(rows[0], None, opening("a").opens))
    put(store(), Write(rows[1]))
    put(store(), Write(rows[2]))
    expect_equal(list(store().rows("a")), rows, "rows are read as they were written")


@appending.check
def an_entry_is_kept_as_it_was_opened(store: Opener) -> None:
    """An opening write creates the entry as given; its last record is the row's."""
    write = opening(
        "a", token=5, owner=b"\0\xff", lease_until=START + 0.125, status="waiting", reason="a reason",
        group="a group", label="a label", until=START + 7.5, opened_at=START - 1, updated_at=START + 1e-6,
    )  # fmt: skip
    put(store(), write)
    expect(write.opens is not None, "an opening has an entry")
    wanted = renamed(write.opens or Entry("a"), last=0)
    expect_equal(store().entry("a"), wanted, "the entry is the one given, with the row's last record")


@appending.check
def an_append_at_the_wrong_place_is_refused(store: Opener) -> None:
    """A row is accepted only where it follows the run's last record; a refusal changes nothing."""
    storage = store()
    started(storage, rows=3)
    before = shown(storage, "a")
    for first in (0, 1, 2, 4, 5, 1_000):
        accepted = storage.write([Write(row("a", first), Change("failed", START + 9))])
        expect_equal(accepted, [False], f"a row at {first} after record 2 is refused")
        accepted = storage.write([Write(row("a", first, first + 2))])
        expect_equal(accepted, [False], f"a row of three at {first} after record 2 is refused")
    expect_equal(shown(storage, "a"), before, "a refused append changes nothing")
    put(storage, Write(row("a", 3)))


@appending.check
def nothing_is_appended_to_a_run_that_was_never_opened(store: Opener) -> None:
    """Without an entry, only a write that opens is accepted."""
    storage = store()
    for first in (0, 1):
        expect_equal(storage.write([Write(row("a", first))]), [False], "there is no such run")
    expect_equal(shown(storage, "a"), [(None, [])], "a refused append leaves no trace")


@appending.check
def a_run_is_opened_once(store: Opener) -> None:
    """A write that opens is refused where the run is there already, wherever its row would go."""
    storage = store()
    put(storage, opening("a", label="first"))
    before = shown(storage, "a")
    again = (opening("a", label="second"), opening("a", first=1), opening("a", first=1, token=2))
    for write in again:
        expect_equal(store().write([write]), [False], "a run is opened once")
    expect_equal(shown(storage, "a"), before, "a refused opening changes nothing")


@appending.check
def an_opening_must_fit_its_own_entry(store: Opener) -> None:
    """A row that does not follow ``opens.last``, or is under another token, opens nothing."""
    storage = store()
    opens = opening("a", first=4, token=2).opens
    for odd in (row("a", 0, token=2), row("a", 5, token=2), row("a", 3, token=2), row("a", 4, token=1)):
        expect_equal(storage.write([Write(odd, None, opens)]), [False], "the row does not fit the entry")
    expect_equal(shown(storage, "a"), [(None, [])], "a refused opening leaves no trace")


@appending.check
def a_log_may_begin_at_another_place(store: Opener) -> None:
    """A run opened with ``last`` 41 begins with record 42, and goes on behind it."""
    storage = store()
    put(storage, opening("a", first=42), opening("b", first=1_000_000))
    put(storage, Write(row("a", 43, 44)))
    found = [(one.first, one.last) for one in store().rows("a")]
    expect_equal(found, [(42, 42), (43, 44)], "the rows stand where they were put")
    lasts = [entry_of(storage, name).last for name in "ab"]
    expect_equal(lasts, [44, 1_000_000], "last is the last row's last record")
    for first in (0, 41, 44):
        expect_equal(storage.write([Write(row("a", first))]), [False], "the log goes on at its end only")


@appending.check
def a_change_is_made_with_its_append(store: Opener) -> None:
    """Status, reason, group, until and time of change are set in the same commit; the rest stays."""
    storage = store()
    before = started(storage, label="a label")
    change = Change("waiting", START + 5.5, "a reason", "a group", START + 99.75)
    put(storage, Write(row("a", 1), change))
    entry = entry_of(store(), "a")
    told = (entry.status, entry.updated_at, entry.reason, entry.group, entry.until)
    expect_equal(told, ("waiting", START + 5.5, "a reason", "a group", START + 99.75), "the change is made")
    kept = (entry.owner, entry.lease_until, entry.label, entry.opened_at, entry.token)
    was = (before.owner, before.lease_until, before.label, before.opened_at, before.token)
    expect_equal(kept, was, "a change without release leaves the rest as it was")
    put(storage, Write(row("a", 2), Change("running", START + 6)))
    entry = entry_of(store(), "a")
    again = (entry.status, entry.updated_at, entry.reason, entry.group, entry.until)
    expect_equal(again, ("running", START + 6, "", "", 0.0), "a later change replaces all that it may say")


@appending.check
def a_plain_append_leaves_the_entry_alone(store: Opener) -> None:
    """Without a change only ``last`` moves: the time of change is of changes, not of appends."""
    storage = store()
    before = started(storage, status="waiting", reason="r", group="g", label="l", until=START + 3)
    put(storage, Write(row("a", 1, 5)))
    after = entry_of(storage, "a")
    expect_equal(after.last, 5, "last is the row's last record")
    told = (after.status, after.reason, after.group, after.label, after.until, after.updated_at)
    was = (before.status, before.reason, before.group, before.label, before.until, before.updated_at)
    expect_equal(told, was, "an append without a change changes nothing else")


@appending.check
def a_change_gives_the_lease_back_where_it_says_so(store: Opener) -> None:
    """``release`` empties the owner and its lease, and leaves the token; so does an opening's change."""
    storage = store()
    started(storage)
    put(storage, Write(row("a", 1), Change("done", START + 1, release=True)))
    put(storage, opening("b", change=Change("failed", START + 2, "at once", release=True)))
    for name, status in (("a", "done"), ("b", "failed")):
        entry = entry_of(storage, name)
        told = (entry.status, entry.owner, entry.lease_until, entry.token)
        expect_equal(told, (status, b"", 0.0, 1), f"the lease of {name!r} was given back with the change")


@appending.check
def a_batch_refuses_only_what_is_wrong_in_it(store: Opener) -> None:
    """Of many writes in one commit each stands or falls by itself, answered in their order."""
    storage = store()
    names = [f"run {n}" for n in range(60)]
    put(storage, *(opening(name) for name in names))
    batch: list[Write] = []
    for n, name in enumerate(names):
        change = Change("waiting", START + n, f"reason {n}") if n % 2 else None
        odd = {0: row(name, 3), 1: row(name, 1, token=2), 2: row(f"no {name}", 1)}.get(n % 5)
        batch.append(Write(odd or row(name, 1, 1 + n % 3), change))
    batch += [opening("new"), opening("run 0")]
    accepted = storage.write(batch)
    wanted = [n % 5 > 2 for n in range(60)] + [True, False]
    expect_equal(accepted, wanted, "each write of a batch is accepted or refused by itself")
    for n, name in enumerate(names):
        entry = entry_of(storage, name)
        last = 1 + n % 3 if wanted[n] else 0
        reason = f"reason {n}" if wanted[n] and n % 2 else ""
        expect_equal((entry.last, entry.reason), (last, reason), f"what was accepted of {name!r} stands")
        expect_equal(len(list(storage.rows(name))), 1 + wanted[n], f"the rows of {name!r} are all there")
    expect_equal(entry_of(storage, "new").last, 0, "a run was opened amid the batch")


@appending.check
def of_two_writes_to_one_place_in_a_batch_one_stands(store: Opener) -> None:
    """A place is filled once, also within one commit."""
    storage = store()
    started(storage)
    rows = [row("a", 1, frame=b"one"), row("a", 1, frame=b"two")]
    accepted = storage.write([Write(rows[0]), Write(rows[1], Change("waiting", START + 1))])
    expect_equal(sorted(accepted), [False, True], "exactly one write to a place is accepted")
    stored = list(storage.rows("a", 1))
    expect_equal(stored, [rows[accepted.index(True)]], "the one that was accepted is stored")
    status = "running" if accepted[0] else "waiting"
    expect_equal(entry_of(storage, "a").status, status, "a refused write brings no change")
    accepted = storage.write([opening("b", label="one"), opening("b", label="two")])
    expect_equal(sorted(accepted), [False, True], "exactly one write opens a run")
    label = ("one", "two")[accepted.index(True)]
    expect_equal(entry_of(storage, "b").label, label, "the entry is of the write that was accepted")


@appending.check
def nothing_to_write_is_no_error(store: Opener) -> None:
    """An empty batch is answered with an empty list."""
    storage = store()
    expect_equal(storage.write([]), [], "nothing was asked for, nothing was refused")
    expect_equal(at_once(storage, []), [], "nothing was asked for, nothing was refused")


@appending.check
def try_write_does_what_write_does(store: Opener) -> None:
    """``try_write`` gives the same answers, or None, and then it has done nothing."""
    storage = store()
    expect_equal(at_once(storage, [opening("a"), opening("b")]), [True, True], "openings are accepted")
    writes = [Write(row("a", 1), Change("waiting", START + 1, "why")), Write(row("b", 3))]
    expect_equal(at_once(storage, writes), [True, False], "each write is accepted or refused by itself")
    entry = entry_of(store(), "a")
    told = (entry.last, entry.status, entry.reason)
    expect_equal(told, (1, "waiting", "why"), "what was accepted is stored")
    expect_equal(entry_of(store(), "b").last, 0, "what was refused is not")


@appending.check
def a_long_log_is_all_there(store: Opener) -> None:
    """Hundreds of rows, of several records each, are read back whole, from either end."""
    storage = store()
    started(storage)
    rows = [row("a", 1 + 3 * n, 3 + 3 * n) for n in range(300)]
    for one in rows[:20]:
        put(storage, Write(one))
    for one in rows[20:]:
        expect_equal(storage.write([Write(one)]), [True], "a long log goes on")
    expect_equal(list(storage.rows("a", 1)), rows, "all rows are there, in order")
    expect_equal(list(storage.rows("a", 1, newest_first=True)), rows[::-1], "and from the other end")
    expect_equal(row_after(storage).first, 901, "the next record's number is known")
