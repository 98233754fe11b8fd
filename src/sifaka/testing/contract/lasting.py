"""Handles: closing, opening again, resetting in the middle, and a fork (floor 8)."""

from __future__ import annotations

import os
import signal
import warnings

from sifaka.storage.base import Cell, Query, Storage, Write
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import names, opening, put, row, shown, started

__all__ = ["lasting"]

lasting = Theme("handles")

CHILD_S = 30
"""How long the child of a fork may take, in seconds."""


def _filled(store: Opener) -> Storage:
    storage = store()
    started(storage, "a", rows=5, label="kept")
    started(storage, "b", rows=2)
    expect(storage.swap("a cell", b"a value", 0), "a new cell can be set")
    return storage


@lasting.check
def what_was_written_is_there_when_the_store_is_opened_again(store: Opener) -> None:
    """Closing loses nothing: runs, rows and cells are as they were."""
    storage = _filled(store)
    before = shown(storage, "a", "b")
    listed = storage.entries(Query())
    storage.close()
    again = store()
    expect_equal(shown(again, "a", "b"), before, "runs and rows are as they were")
    expect_equal(again.entries(Query()), listed, "the list is as it was")
    expect_equal(again.cells(["a cell"]), [Cell(b"a value", 1)], "cells are as they were")
    put(again, Write(row("a", 5)))


@lasting.check
def closing_twice_is_no_error(store: Opener) -> None:
    """A handle may be closed any number of times, used or not."""
    store().close()
    storage = _filled(store)
    storage.close()
    storage.close()
    expect_equal(names(store().entries(Query())), ["b", "a"], "the store is still there")


@lasting.check
def closing_one_handle_leaves_the_others_open(store: Opener) -> None:
    """Handles of one store in one process know nothing of each other."""
    storage = _filled(store)
    other = store()
    before = shown(other, "a", "b")
    storage.close()
    expect_equal(shown(other, "a", "b"), before, "another handle reads on")
    put(other, Write(row("a", 5)))


@lasting.check
def a_reset_in_the_middle_loses_nothing(store: Opener) -> None:
    """Connections may be dropped at any time; the handle goes on."""
    storage = _filled(store)
    for place in range(5, 12):
        before = shown(storage, "a", "b")
        storage.reset()
        if place % 2:
            storage.reset()
        expect_equal(shown(storage, "a", "b"), before, "what was acknowledged is there after a reset")
        put(storage, Write(row("a", place)))
    expect(storage.swap("a cell", b"another", 1), "a cell is as it was after a reset")


@lasting.check
def a_handle_that_was_just_opened_can_do_anything_first(store: Opener) -> None:
    """No call has to come before another one."""
    store().reset()
    store().compact()
    expect_equal(store().complaints(), store().complaints(), "complaints can be asked for at once")
    expect_equal(store().renew([]), [], "nothing to renew is no error")
    expect_equal(store().claim("a", 1, b"me", 1.0), False, "a run that is not there cannot be claimed")
    expect_equal(store().trim(row("a", 0)), None, "a run that is not there cannot be trimmed")
    expect_equal(list(store().rows("a")), [], "a run that is not there has no rows")
    expect(store().swap("a", b"", 0), "a new cell can be set")
    put(store(), opening("a"))


@lasting.check
def a_handle_can_be_used_on_both_sides_of_a_fork(store: Opener) -> None:
    """The child of a fork uses the handle it was born with; the parent's goes on undisturbed."""
    storage = _filled(store)
    before = shown(storage, "a", "b")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that threads are running is the point
        pid = os.fork()
    if pid == 0:
        # A child that hangs is killed, and seen. A handler in Python would never be run by one.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_S)
        os._exit(_in_child(storage, before))
    _, status = os.waitpid(pid, 0)
    expect_equal(os.waitstatus_to_exitcode(status), 0, "the child of a fork reads and writes")
    expect_equal(shown(storage, "a", "b"), before, "the parent reads on")
    put(storage, Write(row("a", 5)), opening("parent"))


def _in_child(storage: Storage, before: object) -> int:
    try:
        expect_equal(shown(storage, "a", "b"), before, "the child reads what was there")
        put(storage, opening("child"), opening("another child"))
    except BaseException:  # noqa: BLE001 - the parent sees the exit code
        return 1
    return 0
