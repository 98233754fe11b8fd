"""Shared cells: versions, compare-and-set, names (floor 8)."""

from __future__ import annotations

from sifaka.storage.base import Cell, Query
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import names, started

__all__ = ["sharing"]

sharing = Theme("cells")


@sharing.check
def a_cell_that_was_never_set_is_empty(store: Opener) -> None:
    """No value, version 0: there is nothing to create first."""
    storage = store()
    expect_equal(storage.cells(["a", "b"]), [Cell(), Cell()], "a cell without a value has version 0")
    expect_equal(storage.cells([]), [], "no names, no cells")
    expect_equal(storage.cell_names(), [], "a cell without a value has no name yet")


@sharing.check
def a_swap_counts_the_writes(store: Opener) -> None:
    """Each swap adds 1 to the version, and everybody sees the value."""
    storage = store()
    for version, value in enumerate((b"one", b"", b"\0\xff\0", bytes(range(256)) * 400)):
        expect(storage.swap("a", value, version), "who knows the version sets the cell", version=version)
        expect_equal(store().cells(["a"]), [Cell(value, version + 1)], "the value is the one that was set")
    expect_equal(storage.cells(["b"]), [Cell()], "another cell is another cell")


@sharing.check
def a_swap_with_another_version_is_refused(store: Opener) -> None:
    """Who has read an older version, or none, changes nothing."""
    storage = store()
    for version in (1, 2, 7):
        expect(not storage.swap("a", b"x", version), "an empty cell has version 0", version=version)
    expect_equal(storage.cells(["a"]), [Cell()], "a refused swap sets nothing")
    for version in range(3):
        expect(storage.swap("a", f"value {version}".encode(), version), "the version is known")
    for version in (0, 1, 2, 4, 5):
        expect(not storage.swap("a", b"x", version), "the cell has version 3", version=version)
    expect_equal(storage.cells(["a"]), [Cell(b"value 2", 3)], "a refused swap changes nothing")


@sharing.check
def of_two_who_read_the_same_version_one_sets_the_cell(store: Opener) -> None:
    """Two handles, one version: the second one is refused and has to read again."""
    one, two = store(), store()
    expect(one.swap("a", b"0", 0), "a new cell can be set")
    answers = [two.swap("a", b"two", 1), one.swap("a", b"one", 1)]
    expect_equal(answers, [True, False], "a version can be replaced once")
    expect_equal(one.cells(["a"]), [Cell(b"two", 2)], "the first one's value stands")


@sharing.check
def cells_are_answered_in_the_order_of_their_names(store: Opener) -> None:
    """Also where a name is asked for twice, or is not there."""
    storage = store()
    for name in "abc":
        expect(storage.swap(name, name.encode(), 0), "a new cell can be set")
    found = [cell.value for cell in storage.cells(["c", "x", "a", "c", "b"])]
    expect_equal(found, [b"c", b"", b"a", b"c", b"b"], "one answer a name, in order")


@sharing.check
def names_are_found_by_prefix_in_order(store: Opener) -> None:
    """By code point, and a prefix is just text: no character of it is a wildcard."""
    storage = store()
    all_names = [
        "a",
        "a%",
        "a%b",
        "a*",
        "a?c",
        "a[b]",
        "a_",
        "a_b",
        "ab",
        "A",
        "\u00e4",
        "\uffee",
        "\U0001f600",
    ]
    for name in all_names:
        expect(storage.swap(name, b"x", 0), "a new cell can be set", name=name)
    prefixes = (
        "",
        "a",
        "a%",
        "a_",
        "a*",
        "a?",
        "a[",
        "A",
        "b",
        "\u00e4",
        "\U0001f600",
        "a%b",
        "a%bc",
        "'",
        "\\",
    )
    for prefix in prefixes:
        wanted = sorted(name for name in all_names if name.startswith(prefix))
        expect_equal(store().cell_names(prefix), wanted, f"the names that begin with {prefix!r}")


@sharing.check
def names_come_page_by_page(store: Opener) -> None:
    """``after`` and ``limit`` walk through all names once."""
    storage = store()
    all_names = [f"{kind} {n:02}" for kind in ("breaker", "wait") for n in range(25)]
    for name in reversed(all_names):
        expect(storage.swap(name, b"x", 0), "a new cell can be set", name=name)
    for prefix, limit in (("", 7), ("wait", 4), ("breaker ", 25), ("", 500)):
        found, after = list[str](), ""
        while page := storage.cell_names(prefix, after, limit):
            expect(len(page) <= limit, "a page holds no more than it may", limit=limit, page=page)
            found += page
            after = page[-1]
            expect(len(found) <= len(all_names), "paging comes to an end", prefix=prefix, found=found)
        wanted = [name for name in all_names if name.startswith(prefix)]
        expect_equal(found, wanted, f"the pages of {limit} with {prefix!r}")
    expect_equal(storage.cell_names("wait", "breaker 99", 1), ["wait 00"], "behind a name before the prefix")
    expect_equal(storage.cell_names("wait", "x"), [], "behind the last name there is none")


@sharing.check
def cells_and_runs_do_not_meet(store: Opener) -> None:
    """A cell and a run of one name know nothing of each other; a deleted run takes no cell along."""
    storage = store()
    entry = started(storage)
    expect(storage.swap("a", b"a cell", 0), "a new cell can be set")
    expect_equal(storage.cell_names(), ["a"], "a run is no cell")
    expect_equal(names(storage.entries(Query())), ["a"], "a cell is no run")
    storage.delete([entry])
    expect_equal(storage.cells(["a"]), [Cell(b"a cell", 1)], "a cell outlives the runs")
    expect_equal(storage.entry("a"), None, "the run is gone")
