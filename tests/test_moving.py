"""What a copy promises: equal rows, entries and cells between any two stores, or a name and a reason."""

from __future__ import annotations

import msgspec
import pytest

import kept_runs
from kept_runs import (
    KINDS,
    Interrupted,
    Writer,
    a_chain,
    done,
    every_kind_of_run,
    failed,
    interrupted,
    resumed,
    rows,
    shown,
    whole,
)
from sifaka.errors import OwnedError, StorageError, UnknownChainError
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.storage.base import Cell, Query
from sifaka.storage.checking import check
from sifaka.storage.leases import myself
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.moving import copy
from sifaka.storage.wrapper import StorageWrapper
from sifaka.testing.clock import FakeClock

opener = kept_runs.opener


def tokens_never_fall(store):
    return all(
        [row.token for row in rows(store, one.chain_id)]
        == sorted(row.token for row in rows(store, one.chain_id))
        for one in store.entries(Query(limit=500))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_to_another_kind_of_store_and_back_is_what_it_was(opener, kind):
    here, there, back = InMemoryStorage(), opener(kind), InMemoryStorage()
    every_kind_of_run(here)
    moved = copy(here, there)
    assert moved.left == {}
    assert moved.runs == len(here.entries(Query(limit=500)))
    assert moved.records == sum(entry.last + 1 for entry in here.entries(Query(limit=500)))
    assert moved.cells == len(here.cell_names()) > 1
    assert shown(there) == shown(here)
    assert copy(there, back).left == {}
    assert whole(back) == whole(there)
    assert tokens_never_fall(back)
    untouched = {name for name in whole(here)[0] if "trimmed" not in name}
    for name in untouched:  # rows that were not trimmed are copied to the byte
        assert whole(back)[0][name] == whole(here)[0][name]
    assert len(untouched) > 4
    assert list(check(there)) == list(check(back)) == []
    for name in ("failed", "interrupted", "trimmed, failed"):
        thoughts = [a_chain(store, name).run() for store in (here, there)]
        assert thoughts[0].text == thoughts[1].text
        assert thoughts[0].in_doubt == thoughts[1].in_doubt


@pytest.mark.parametrize("kind", ["sqlite"])
def test_every_row_comes_back_to_the_byte_where_nothing_was_trimmed(opener, kind):
    here, there, back = InMemoryStorage(), opener(kind), InMemoryStorage()
    done(here, "done", iterations=3)
    resumed(here, "resumed")
    failed(here, "failed")
    interrupted(here, "interrupted")
    here.swap("cell", b"value", 0)
    copy(here, there)
    copy(there, back)
    assert whole(back) == whole(there) == whole(here)


def test_copying_twice_changes_nothing(opener):
    here, there = InMemoryStorage(), opener("sqlite")
    every_kind_of_run(here)
    first = copy(here, there)
    before = whole(there)
    again = copy(here, there)
    assert (again.runs, again.records, again.left) == (first.runs, first.records, {})
    assert again.cells == 0
    assert whole(there) == before


def test_a_copy_interrupted_at_any_call_comes_to_the_same_when_it_is_made_again():
    here, wanted = InMemoryStorage(), InMemoryStorage()
    every_kind_of_run(here)
    source, target = Interrupted(here), Interrupted(wanted)
    copy(source, target)
    assert source.calls > 20 < target.calls
    for at in range(max(source.calls, target.calls)):
        for when in ("before", "after"):
            for error in (StorageError, KeyboardInterrupt):
                for of_target in (True, False):
                    if at >= (target if of_target else source).calls:
                        continue
                    there = InMemoryStorage()
                    broken = Interrupted(there if of_target else here, at, when, error)
                    with pytest.raises(error, match="interrupted"):
                        copy(here, broken) if of_target else copy(broken, there)
                    assert list(check(there)) == []
                    found, full = shown(there), shown(wanted)
                    assert found == {name: full[name] for name in found}  # no half of a run
                    again = copy(here, there)
                    assert again.left == {}, (at, when, error, of_target)
                    assert whole(there) == whole(wanted), (at, when, error, of_target)
                    assert not any(entry.owner for entry in there.entries(Query(limit=500)))


def test_a_copy_whose_process_died_is_taken_up_by_the_next(monkeypatch):
    """Nothing was given back or taken away: as if at each call the process had died."""
    from sifaka.storage import pouring

    here, wanted = InMemoryStorage(), InMemoryStorage()
    every_kind_of_run(here)
    monkeypatch.setattr(pouring, "BYTES_A_WRITE", 600)  # a few rows a commit
    counting = Interrupted(wanted)
    copy(here, counting)
    halves = 0
    for at in range(counting.calls):
        there = InMemoryStorage()
        with monkeypatch.context() as patch:
            patch.setattr(pouring._Pouring, "leave", lambda self: None)
            with pytest.raises(KeyboardInterrupt):
                copy(here, Interrupted(there, at, "after", KeyboardInterrupt))
        halves += any(entry.owner for entry in there.entries(Query(limit=500)))
        assert copy(here, there).left == {}
        assert whole(there) == whole(wanted)
    assert halves > 20


def test_a_run_that_is_half_copied_cannot_be_run_in_the_target(monkeypatch):
    from sifaka.storage import pouring

    monkeypatch.setattr(pouring, "BYTES_A_WRITE", 600)
    here, refused = InMemoryStorage(), []

    class Eager(StorageWrapper):
        """Somebody tries to run it after each commit."""

        def write(self, writes):
            done_so_far = super().write(writes)
            if writes[-1].change is None:
                with pytest.raises(OwnedError):
                    a_chain(self.inner, "failed").run()
                refused.append(1)
            return done_so_far

    failed(here)
    target = InMemoryStorage()
    assert copy(here, Eager(target)).left == {}
    assert len(refused) > 3
    assert shown(target) == shown(here)


def test_runs_that_go_on_are_left_and_named(opener):
    here, there = opener("sqlite"), InMemoryStorage()
    failed(here, "failed")
    failed(here, "running")
    here.claim("running", 1, myself(), here.now() + 60)
    moved = copy(here, there)
    assert list(moved.left) == ["running"]
    assert "being run" in moved.left["running"]
    assert there.entry("running") is None
    assert moved.runs == 1


def test_a_run_whose_status_changes_while_others_are_copied_is_not_missed():
    class Acted(StorageWrapper):
        """Somebody applies an action to a failed run: it is on a page now that was read already."""

        def entries(self, query):
            if query.statuses == ("failed",) and self.inner.entry("moves").status == "failed":
                chain = a_chain(self.inner, "moves", clock=FakeClock(self.now()))
                chain.apply_recovery_action(RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5))
            return super().entries(query)

    here, there = InMemoryStorage(), InMemoryStorage()
    failed(here, "moves")
    failed(here, "stays")
    copy(Acted(here), there)
    assert shown(there) == shown(here)


def test_only_the_runs_that_were_asked_for_are_copied_without_cells():
    here, there = InMemoryStorage(), InMemoryStorage()
    every_kind_of_run(here)
    moved = copy(here, there, ["fork", "done"])
    assert (moved.runs, moved.cells) == (2, 0)
    assert {entry.chain_id for entry in there.entries(Query())} == {"fork", "done"}
    with pytest.raises(UnknownChainError, match="'nobody'"):
        copy(here, there, ["nobody"])


def test_a_run_of_the_same_id_with_another_history_is_refused_and_the_others_are_copied(opener):
    here, there = InMemoryStorage(), opener("sqlite")
    for name in ("a", "b", "c"):
        done(here, name, iterations=2)
    a_chain(there, "b", iterations=2, model=Writer(words=7)).run()
    before = shown(there)["b"]
    moved = copy(here, there)
    assert list(moved.left) == ["b"]
    assert "another one" in moved.left["b"]
    assert "nothing was changed" in moved.left["b"]
    assert shown(there)["b"] == before
    assert shown(there)["a"] == shown(here)["a"]
    assert shown(there)["c"] == shown(here)["c"]


def test_a_run_that_went_on_in_the_target_is_refused():
    here, there = InMemoryStorage(), InMemoryStorage()
    failed(here, "a")
    copy(here, there)
    a_chain(there, "a").run()
    before = whole(there)
    assert "another one" in copy(here, there).left["a"]
    assert whole(there) == before


def test_a_run_that_is_being_run_in_the_target_is_refused():
    here, there = InMemoryStorage(), InMemoryStorage()
    failed(here, "a")
    copy(here, there)
    there.claim("a", 1, myself(), there.now() + 60)
    before = whole(there)
    assert "being run" in copy(here, there).left["a"]
    assert whole(there) == before


def test_what_was_added_since_the_last_copy_is_added_by_the_next(opener):
    here, there = InMemoryStorage(), opener("sqlite")
    failed(here, "a")
    copy(here, there)
    a_chain(here, "a").run()
    assert copy(here, there).left == {}
    assert shown(there) == shown(here)
    assert list(check(there)) == []


def test_what_was_added_follows_also_where_an_older_version_encoded_the_beginning():
    """Other bytes, the same records: what is added links to what is there."""
    from sifaka.log.codec import link_of
    from sifaka.storage.pouring import encode_again

    here, there = InMemoryStorage(), InMemoryStorage()
    failed(here, "a")
    copy(here, there)
    prev = 0
    for place, row in enumerate(there._rows["a"]):
        there._rows["a"][place] = encode_again(row, row.token, prev, compress=False)
        prev = link_of(there._rows["a"][place].frame)
    a_chain(here, "a").run()
    assert rows(there, "a")[2].frame != rows(here, "a")[2].frame
    assert copy(here, there).left == {}
    assert shown(there) == shown(here)
    assert list(check(there)) == []


def test_a_damaged_run_is_left_and_named_and_no_half_of_it_is_copied():
    here, there = InMemoryStorage(), InMemoryStorage()
    for name in ("good", "bad", "short"):
        done(here, name, iterations=2)
    bad = here._rows["bad"][5]
    here._rows["bad"][5] = msgspec.structs.replace(bad, frame=bad.frame[:-1])
    here._rows["short"].pop()
    moved = copy(here, there)
    assert sorted(moved.left) == ["bad", "short"]
    assert "damaged" in moved.left["bad"]
    assert "missing" in moved.left["short"]
    assert [entry.chain_id for entry in there.entries(Query())] == ["good"]


def test_what_the_target_has_learned_itself_stays():
    here, there = InMemoryStorage(), InMemoryStorage()
    here.swap("both", b"here", 0)
    here.swap("new", b"here", 0)
    there.swap("both", b"there", 0)
    assert copy(here, there).cells == 1
    assert [cell.value for cell in there.cells(["both", "new"])] == [b"there", b"here"]


def test_thousands_of_cells_are_copied():
    here, there = InMemoryStorage(), InMemoryStorage()
    for n in range(1234):
        here.swap(f"cell {n}", str(n).encode(), 0)
    assert copy(here, there).cells == 1234
    assert whole(there) == whole(here)


# Verification ------------------------------------------------------------------------------


class Lying(StorageWrapper):
    """Acknowledges, and keeps something else."""

    def __init__(self, inner, lie):
        super().__init__(inner)
        self.lie = lie

    def rows(self, chain_id, first=0, last=None, *, newest_first=False):
        return iter(self.lie(list(super().rows(chain_id, first, last, newest_first=newest_first))))

    def cells(self, names):
        found = super().cells(names)
        return [Cell(b"lie", one.version) if one.version and self.lie is None else one for one in found]


def flipped(place, byte):
    def lie(some):
        if len(some) > 3:
            frame = some[place].frame
            wrong = frame[:byte] + bytes([frame[byte] ^ 1]) + frame[byte + 1 :]
            some[place] = msgspec.structs.replace(some[place], frame=wrong)
        return some

    return lie


LIES = {
    "a flipped bit in the first row": flipped(0, 30),
    "a flipped bit in the middle": flipped(3, 5),
    "a flipped bit in the last row": flipped(-1, -1),
    "a row less in the middle": lambda some: some[:2] + some[3:],
    "the last row dropped": lambda some: some[:-1],
    "the first row dropped": lambda some: some[1:],
    "no rows at all": lambda _some: [],
    "a row twice": lambda some: [*some, *some[-1:]],
}


@pytest.mark.parametrize("name", LIES)
def test_a_target_that_keeps_something_else_is_found_out(name):
    here = InMemoryStorage()
    done(here, iterations=1)
    with pytest.raises(StorageError, match="run 'done' is not in memory:// as it was written"):
        copy(here, Lying(InMemoryStorage(), LIES[name]))


def test_a_target_that_keeps_other_records_in_sound_frames_is_found_out():
    other = InMemoryStorage()
    done(other, iterations=1, model=Writer(price=0.5))

    class Swapped(StorageWrapper):
        def rows(self, chain_id, first=0, last=None, *, newest_first=False):
            return other.rows(chain_id, first, last, newest_first=newest_first)

    here = InMemoryStorage()
    done(here, iterations=1)
    with pytest.raises(StorageError, match="do not trust"):
        copy(here, Swapped(InMemoryStorage()))


def test_a_target_that_keeps_another_status_or_other_cells_is_found_out():
    class Forgets(StorageWrapper):
        def write(self, writes):
            return super().write([msgspec.structs.replace(one, change=None) for one in writes])

    here = InMemoryStorage()
    failed(here)
    with pytest.raises(StorageError, match="do not trust"):
        copy(here, Forgets(InMemoryStorage()))
    cells = InMemoryStorage()
    cells.swap("cell", b"value", 0)
    with pytest.raises(StorageError, match="cell 'cell'"):
        copy(cells, Lying(InMemoryStorage(), None))
