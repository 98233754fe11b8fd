"""Every store keeps the contract that is shipped, and the contract can be broken: planted faults are found."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import stores as all_stores
from sifaka.clock import Clock
from sifaka.storage.base import Cell, Entry, Query, Renewal, Row, Storage, Write
from sifaka.storage.cached import CachedStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.contract import CONTRACT, Check, Opener, exercise
from sifaka.testing.contract.runs import started
from stores import STORES, Stores

stores = all_stores.stores


@pytest.mark.parametrize("check", CONTRACT, ids=str)
@pytest.mark.parametrize("kind", STORES)
def test_every_store_keeps_the_contract(kind: str, check: Check, stores: Stores) -> None:
    check(stores.new(kind)())


def test_the_memory_of_the_tiers_answers_in_these_checks(stores: Stores) -> None:
    storage = stores.new("tiers")()()
    assert isinstance(storage, CachedStorage)
    started(storage, rows=3)
    assert len(list(storage.rows("a"))) == 3
    assert len(list(storage.memory_storage.rows("a"))) == 3


# The suite can fail ------------------------------------------------------------------------


class FenceIgnored(InMemoryStorage):
    """Appends under any token."""

    def _write(self, write: Write) -> bool:
        entry = self._entries.get(write.row.chain_id)
        if entry is not None:
            write = replace(write, row=replace(write.row, token=entry.token))
        return super()._write(write)


class PlaceIgnored(InMemoryStorage):
    """Appends wherever the row says."""

    def _write(self, write: Write) -> bool:
        entry = self._entries.get(write.row.chain_id)
        if entry is not None:
            self._entries[entry.chain_id] = replace(entry, last=write.row.first - 1)
        return super()._write(write)


class OpensAgain(InMemoryStorage):
    """Opens a run that is there already."""

    def _write(self, write: Write) -> bool:
        if write.opens is not None:
            self._entries.pop(write.row.chain_id, None)
        return super()._write(write)


class LostMember(InMemoryStorage):
    """Acknowledges the last of a large batch, and forgets it."""

    def write(self, writes: Sequence[Write]) -> list[bool]:
        return [*super().write(writes[:-1]), True] if len(writes) > 10 else super().write(writes)


class HalfRefused(InMemoryStorage):
    """Brings the change of an append that it refuses."""

    def _write(self, write: Write) -> bool:
        done = super()._write(write)
        entry = self._entries.get(write.row.chain_id)
        if not done and entry is not None and write.change is not None:
            self._entries[entry.chain_id] = replace(entry, status=write.change.status)
        return done


class KeepsTheLease(InMemoryStorage):
    """Forgets that an append gives the lease back."""

    def _write(self, write: Write) -> bool:
        change = write.change and replace(write.change, release=False)
        return super()._write(replace(write, change=change))


class OwnerIgnored(InMemoryStorage):
    """Renews for anybody who knows the token."""

    def _renew(self, one: Renewal) -> bool:
        return self._replace(one.chain_id, one.token, owner=one.owner, lease_until=one.until)


class ClaimsAlways(InMemoryStorage):
    """Lets anybody claim, whatever token they know."""

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        entry = self._entries.get(chain_id)
        return entry is not None and super().claim(chain_id, entry.token, owner, until)


class DeletesAlways(InMemoryStorage):
    """Deletes runs that somebody has claimed since."""

    def delete(self, entries: Sequence[Entry]) -> int:
        return super().delete([self._entries.get(one.chain_id, one) for one in entries])


class LeavesRows(InMemoryStorage):
    """Deletes entries, and leaves the rows."""

    def delete(self, entries: Sequence[Entry]) -> int:
        rows = {name: list(found) for name, found in self._rows.items()}
        removed = super().delete(entries)
        self._rows.update(rows)
        return removed


class TrimsTheEnd(InMemoryStorage):
    """Replaces a run's last row, too."""

    def trim(self, row: Row) -> int | None:
        rows = self._rows.get(row.chain_id, [])
        sentinel = replace(row, first=10**6, last=10**6)
        rows.append(sentinel)
        try:
            return super().trim(row)
        finally:
            rows.remove(sentinel)


class CutsRows(InMemoryStorage):
    """Trims ranges that cut a row in two."""

    def trim(self, row: Row) -> int | None:
        held = [
            one for one in self._rows.get(row.chain_id, []) if row.first <= one.last and one.first <= row.last
        ]
        return super().trim(replace(row, first=held[0].first, last=held[-1].last)) if held else None


class TiesReversed(InMemoryStorage):
    """Lists runs of one moment in another order."""

    def entries(self, query: Query) -> list[Entry]:
        return sorted(super().entries(query), key=lambda one: (-one.updated_at, one.chain_id))


class LabelIgnored(InMemoryStorage):
    """Lists runs of any label."""

    def entries(self, query: Query) -> list[Entry]:
        return super().entries(replace(query, label=None))


class OnePage(InMemoryStorage):
    """Gives the first page again and again."""

    def entries(self, query: Query) -> list[Entry]:
        return super().entries(replace(query, after=None))


class LimitFirst(InMemoryStorage):
    """Limits what it looks at, and filters afterwards."""

    def entries(self, query: Query) -> list[Entry]:
        wanted = super().entries(replace(query, limit=1_000))
        looked_at = super().entries(Query(limit=query.limit, after=query.after))
        return [entry for entry in wanted if entry in looked_at]


class OneDirection(InMemoryStorage):
    """Reads oldest first, always."""

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        return super().rows(chain_id, first, last)


class VersionIgnored(InMemoryStorage):
    """Sets a cell for whoever comes."""

    def swap(self, name: str, value: bytes, version: int) -> bool:
        return super().swap(name, value, self._cells.get(name, Cell()).version)


class Wildcards(InMemoryStorage):
    """Takes a prefix for a pattern."""

    def cell_names(self, prefix: str = "", after: str = "", limit: int = 500) -> list[str]:
        return [name for name in super().cell_names("", after, 10**6) if fnmatchcase(name, prefix + "*")][
            :limit
        ]


class CountsForever(InMemoryStorage):
    """Measures what is gone."""

    gone = 0

    def delete(self, entries: Sequence[Entry]) -> int:
        removed = super().delete(entries)
        self.gone += removed
        return removed

    def measure(self) -> dict[str, Any]:
        found = super().measure()
        return found | {"total_checkpoints": found["total_checkpoints"] + self.gone}


class EndsAtNul(InMemoryStorage):
    """Takes frames for text that ends at a NUL."""

    def _write(self, write: Write) -> bool:
        return super()._write(replace(write, row=replace(write.row, frame=write.row.frame.split(b"\0")[0])))


class Folds(InMemoryStorage):
    """Takes texts that look alike for the same."""

    def _write(self, write: Write) -> bool:
        if write.change is not None:
            write = replace(write, change=replace(write.change, reason=write.change.reason.strip("\0")))
        return super()._write(write)


class LooksThenLeaps(InMemoryStorage):
    """Compares and swaps in two steps, between which others come."""

    def swap(self, name: str, value: bytes, version: int) -> bool:
        if self._cells.get(name, Cell()).version != version:
            return False
        time.sleep(0.0005)
        self._cells[name] = Cell(value, version + 1)
        return True


class TwoWinners(InMemoryStorage):
    """Looks whether a run is free, and takes it a little later."""

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        entry = self._entries.get(chain_id)
        if entry is None or entry.token != token:
            return False
        time.sleep(0.0005)
        self._entries[chain_id] = replace(entry, token=token + 1, owner=owner, lease_until=until)
        return True


class ResetForgets(InMemoryStorage):
    """Loses what was written last when its connections are dropped."""

    def reset(self) -> None:
        for name, rows in self._rows.items():
            self._entries[name] = replace(self._entries[name], last=rows[-1].first - 1)
            rows.pop()


class CloseForgets(InMemoryStorage):
    """Has its cells in the handle, not in the store."""

    def close(self) -> None:
        self._cells.clear()


PLANTED = {
    FenceIgnored: "fencing",
    PlaceIgnored: "appending",
    OpensAgain: "appending",
    LostMember: "appending",
    HalfRefused: "appending",
    KeepsTheLease: "appending",
    OwnerIgnored: "owning",
    ClaimsAlways: "owning",
    DeletesAlways: "fencing",
    LeavesRows: "removing",
    TrimsTheEnd: "removing",
    CutsRows: "removing",
    TiesReversed: "listing",
    LabelIgnored: "listing",
    OnePage: "listing",
    LimitFirst: "listing",
    OneDirection: "reading",
    VersionIgnored: "cells",
    Wildcards: "cells",
    CountsForever: "measuring",
    EndsAtNul: "hostile data",
    Folds: "hostile data",
    LooksThenLeaps: "threads",
    TwoWinners: "threads",
    ResetForgets: "handles",
    CloseForgets: "handles",
}


def shared(make: Callable[[], Storage]) -> Opener:
    """All that open the store share one object."""
    storage = make()
    return lambda clock=None: storage


@pytest.mark.parametrize("faulty", PLANTED, ids=lambda one: one.__name__)
def test_a_planted_fault_is_reported_in_its_theme(faulty: type[Storage]) -> None:
    report = exercise(lambda: shared(faulty))
    themes = {broken.theme for broken in report.broken}
    assert not report.kept
    assert PLANTED[faulty] in themes, str(report)


def test_each_theme_has_a_fault_that_it_finds() -> None:
    assert set(PLANTED.values()) == {check.theme for check in CONTRACT}


def test_a_fault_of_one_theme_is_not_found_everywhere() -> None:
    themes = {broken.theme for broken in exercise(lambda: shared(LabelIgnored)).broken}
    assert themes == {"listing", "hostile data"}


def test_a_report_counts_by_theme_and_names_what_was_broken() -> None:
    report = exercise(lambda: shared(InMemoryStorage))
    assert report.kept
    assert report.broken == ()
    assert sum(report.checks.values()) == len(CONTRACT)
    assert f"cells: {report.checks['cells']} of {report.checks['cells']} promises kept" in str(report)
    text = str(exercise(lambda: shared(VersionIgnored)))
    assert "broken: cells: Who has read an older version, or none, changes nothing." in text
    assert "an empty cell has version 0 (version=1)" in text


def test_whatever_a_store_raises_is_a_broken_promise() -> None:
    class Fails(InMemoryStorage):
        def entries(self, query: Query) -> list[Entry]:
            raise OSError("no route to host")

    report = exercise(lambda: shared(Fails), [check for check in CONTRACT if check.theme == "listing"])
    assert len(report.broken) == report.checks["listing"]
    assert all("no route to host" in broken.why for broken in report.broken)


def test_handles_are_closed_whatever_comes_of_a_check() -> None:
    closed: list[Storage] = []

    class Watched(InMemoryStorage):
        def close(self) -> None:
            closed.append(self)

    opened: list[Storage] = []

    def open_store(_clock: Clock | None = None) -> Storage:
        opened.append(Watched())
        return opened[-1]

    two_handles = next(
        check for check in CONTRACT if check.name == "what_one_handle_wrote_another_sees_at_once"
    )
    with pytest.raises(AssertionError):
        two_handles(open_store)
    assert closed == opened
    assert len(closed) == 2


def test_every_check_has_a_name_and_a_promise_of_its_own() -> None:
    assert len({str(check) for check in CONTRACT}) == len(CONTRACT)
    assert all(check.promise.endswith(".") for check in CONTRACT)


def test_the_contract_needs_neither_pytest_nor_hypothesis() -> None:
    look = "import sys, sifaka.testing.contract; print({'pytest', 'hypothesis'} & sys.modules.keys())"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_the_page_about_a_store_of_ones_own_runs() -> None:
    page = Sybil([PythonCodeBlockParser()]).parse(Path(__file__).parents[1] / "docs/own-store.md")
    examples = list(page.examples())
    assert len(examples) == page.text.count("```python") == 5
    for example in examples:
        example.evaluate()
    test = page.namespace["test_contract"]
    checks = test.pytestmark[0].args[1]
    assert checks is CONTRACT
    test(checks[0])
