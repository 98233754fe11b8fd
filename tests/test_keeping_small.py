"""What a clean-up promises: what goes, what stays, and that nobody who goes on misses what went."""

from __future__ import annotations

import time

import msgspec
import pytest

import doubles
import kept_runs
from kept_runs import (
    KINDS,
    Interrupted,
    Scorer,
    Teller,
    Writer,
    a_chain,
    done,
    failed,
    interrupted,
    mark,
    records,
    resumed,
    rows,
    shown,
    texts,
    wild,
)
from sifaka.chain import Chain
from sifaka.errors import UsageError
from sifaka.log import trimming
from sifaka.log.records import Result
from sifaka.log.trimming import without_text
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.recovery.manager import RecoveryManager
from sifaka.storage.base import Query
from sifaka.storage.checking import check
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.leases import myself
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.retention import clean_up
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.wrapper import StorageWrapper
from sifaka.testing.clock import FakeClock
from sifaka.views import story_of

DAY = 86_400.0
storage = doubles.storage
opener = kept_runs.opener


def clean(store, max_age_days=None, **more):
    return CachedCheckpointStorage(store).cleanup_old_checkpoints(max_age_days, **more)


def names(store):
    return sorted(entry.chain_id for entry in store.entries(Query(limit=500)))


def checkpoints(store, chain_id):
    return CachedCheckpointStorage(store).get_checkpoints(chain_id)


def image(store):
    """All that a store shows of its runs."""
    found = {}
    for entry in store.entries(Query(limit=500)):
        found[entry.chain_id] = (entry, rows(store, entry.chain_id))
    return found


# By age and status -------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def timed(request, tmp_path):
    clock = FakeClock()
    store = (
        InMemoryStorage(clock=clock)
        if request.param == "memory"
        else SQLiteStorage(tmp_path / "a.db", clock=clock)
    )
    yield store
    store.close()


def test_runs_that_ended_go_by_age_and_their_checkpoints_are_counted(timed):
    clock = timed.clock
    done(timed, "old", iterations=1, clock=clock)
    failed(timed, "old failed", at=3, clock=clock)
    count = len(checkpoints(timed, "old")) + len(checkpoints(timed, "old failed"))
    clock.advance(31 * DAY)
    done(timed, "new", iterations=1, clock=clock)
    clock.advance(1.0)
    assert clean(timed, 30) == count
    assert names(timed) == ["new"]
    assert clean(timed, 30) == 0
    count = len(checkpoints(timed, "new"))
    assert clean(timed, 0) == count > 0
    assert names(timed) == []


def test_a_status_limits_what_goes(timed):
    done(timed, "done", iterations=1, clock=timed.clock)
    failed(timed, "failed", at=3, clock=timed.clock)
    timed.clock.advance(DAY)
    clean(timed, 0.5, statuses=("failed",))
    assert names(timed) == ["done"]
    for status in ("running", "waiting", "interrupted"):
        with pytest.raises(UsageError, match="never cleaned up"):
            clean(timed, 0, statuses=("done", status))
    for odd in (-1, float("nan")):
        with pytest.raises(ValueError, match="max_age_days"):
            clean(timed, odd)
    with pytest.raises(ValueError, match="keep"):
        clean(timed, keep=-1)


def test_a_run_that_goes_on_is_never_touched(timed):
    clock = timed.clock
    interrupted(timed, "interrupted", clock=clock)
    chain = a_chain(timed, "action", clock=clock)
    chain.run()
    a = CachedCheckpointStorage(timed)
    lease = a.journal.claim("owned")
    a.journal.append(lease, [doubles.Opened(clock.time(), "owned", "Write.", parts=(), settings={})])
    before = {name: one for name, one in image(timed).items() if name != "action"}
    clock.advance(1000 * DAY)
    clean(timed, 0, keep=0)
    assert image(timed) == before
    a.journal.release(lease)


def test_a_run_that_somebody_claims_between_listing_and_deletion_is_spared(storage):
    class Claimed(StorageWrapper):
        """Somebody resumes the failed run as soon as it was listed."""

        def entries(self, query):
            found = super().entries(query)
            for entry in found:
                self.inner.claim(entry.chain_id, entry.token, myself("resume"), time.time() + 60)
            return found

    failed(storage, at=21)
    before = rows(storage, "failed")
    assert clean_up(Claimed(storage), max_age_days=0) == 0
    assert rows(storage, "failed") == before
    assert clean_up(Claimed(storage), max_age_days=None, keep=1) == 0
    assert rows(storage, "failed") == before


def test_a_run_that_is_claimed_between_reading_and_trimming_is_spared(storage):
    class Claimed(StorageWrapper):
        def trim(self, row):
            self.inner.claim(row.chain_id, row.token, myself("resume"), time.time() + 60)
            return super().trim(row)

    failed(storage, at=21)
    before = rows(storage, "failed")
    assert clean_up(Claimed(storage), max_age_days=None, keep=1) == 0
    assert rows(storage, "failed") == before


def test_a_damaged_run_keeps_no_other_from_being_cleaned_up():
    store = InMemoryStorage()
    for name in ("a", "b", "c"):
        done(store, name, iterations=8)
    bad = store._rows["b"][3]
    store._rows["b"][3] = msgspec.structs.replace(bad, frame=bad.frame[:-1] + bytes([bad.frame[-1] ^ 1]))
    before = rows(store, "b")
    assert clean(store, keep=5) > 0
    assert rows(store, "b") == before
    assert len(checkpoints(store, "a")) < 20 > len(checkpoints(store, "c"))


def test_a_run_deleted_while_the_clean_up_reads_it_is_no_error(storage):
    class Deleted(StorageWrapper):
        def rows(self, chain_id, first=0, last=None, *, newest_first=False):
            self.inner.delete([self.inner.entry(chain_id)] if self.inner.entry(chain_id) else [])
            return super().rows(chain_id, first, last, newest_first=newest_first)

    done(storage)
    assert clean_up(Deleted(storage), max_age_days=None, keep=1) == 0


# Interruptions -----------------------------------------------------------------------------


def several(store, clock=None):
    clock = clock or FakeClock()
    done(store, "a", iterations=8, clock=clock)
    resumed(store, "b", clock=clock)
    failed(store, "c", at=20, clock=clock)
    done(store, "d", iterations=6, clock=clock)
    interrupted(store, "e", clock=clock)


def without_owner(shown):
    """But for owners: a claim's name is random."""
    return {
        name: (msgspec.structs.replace(entry, owner=b"", lease_until=0.0), some)
        for name, (entry, some) in shown.items()
    }


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("options", [{"keep": 6}, {"max_age_days": 0}, {"max_age_days": 10, "keep": 3}])
def test_a_clean_up_interrupted_at_any_call_comes_to_the_same_when_repeated(when, options):
    options = {"max_age_days": None} | options
    whole = InMemoryStorage()
    several(whole)
    counting = Interrupted(whole)
    assert clean_up(counting, **options) > 0
    wanted = without_owner(image(whole))
    assert counting.calls > 3
    for at in range(counting.calls):
        store = InMemoryStorage()
        several(store)
        with pytest.raises(Exception, match="interrupted"):
            clean_up(Interrupted(store, at, when), **options)
        assert list(check(store)) == []
        clean_up(store, **options)
        assert without_owner(image(store)) == wanted, at
        assert clean_up(store, **options) == 0


def test_what_an_interrupted_clean_up_leaves_can_be_resumed_and_forked(monkeypatch):
    """A run is trimmed in several pieces: between any two of them it is as usable as before or after."""
    monkeypatch.setattr(trimming, "RECORDS_A_ROW", 25)
    twin = InMemoryStorage()
    failed(twin, "run", at=19)
    every = {point.checkpoint_id: bare(point) for point in checkpoints(twin, "run")}
    want = result(a_chain(twin, "run").run())
    counting = InMemoryStorage()
    failed(counting, "run", at=19)
    counting = Interrupted(counting)
    clean_up(counting, max_age_days=None, keep=5)
    forks, wanted = 0, {}
    for at in range(counting.calls):
        store = InMemoryStorage()
        failed(store, "run", at=19)
        with pytest.raises(Exception, match="interrupted"):
            clean_up(Interrupted(store, at), max_age_days=None, keep=5)
        left = checkpoints(store, "run")
        assert [bare(point) for point in left] == [every[point.checkpoint_id] for point in left]
        for point in left[:: 3 if len(left) == len(every) else 1]:
            before = int(point.checkpoint_id.rpartition(":")[2]) + 1
            name = f"fork {before}"
            if name not in wanted:
                wanted[name] = result(a_chain(twin, "run").fork(before=before, new_id=name).run())
            found = a_chain(store, "run").fork(before=before, new_id=name).run()
            assert result(found) == wanted[name], (at, before)
            forks += 1
        assert result(a_chain(store, "run").run()) == want
    assert counting.calls > 6
    assert forks > 50


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_up_does_the_same_on_every_store(opener, kind):
    store, model = opener(kind), InMemoryStorage()
    clock = FakeClock()
    for one in (store, model):
        several(one, clock)
    assert shown(store) == shown(model)
    assert clean(store, keep=5) == clean(model, keep=5) > 30
    assert shown(store) == shown(model)
    assert clean(store, keep=5) == 0
    assert list(check(store)) == []
    assert store.measure()["total_checkpoints"] == model.measure()["total_checkpoints"]
    assert store.measure()["raw_bytes"] == model.measure()["raw_bytes"]
    counts = [clean(one, 0, statuses=("failed",)) for one in (store, model)]
    assert counts[0] == counts[1] > 0
    assert shown(store) == shown(model)


# What stays of a trimmed run ---------------------------------------------------------------


def shape(moment):
    """A moment, but for the words that were cleaned up."""
    return (
        moment.kind,
        moment.seq,
        moment.life,
        moment.step,
        moment.operation,
        moment.iteration,
        moment.part,
        moment.status,
        moment.model,
        moment.paid,
        moment.seconds,
    )


def result(thought):
    return (
        thought.text,
        thought.validation_results,
        thought.critic_feedback,
        thought.cost,
        thought.cost_unknown_calls,
        thought.in_doubt,
        thought.iteration,
        thought.passed,
        thought.model_prompt,
        thought.pre_generation_context,
        thought.post_generation_context,
    )


def bare(checkpoint):
    """A checkpoint, but for the thoughts of earlier iterations."""
    return msgspec.structs.replace(
        checkpoint, thought=msgspec.structs.replace(checkpoint.thought, history=())
    )


def ids(points):
    return [point.checkpoint_id for point in points]


def twins(seed, keep):
    """Two equal stores with one run each; the second was cleaned up."""
    one, other = InMemoryStorage(), InMemoryStorage()
    for store in (one, other):
        wild(store, "run", seed)
    assert records(one, "run") == records(other, "run")
    return one, other, clean(other, keep=keep)


SEEDS = range(40)
KEEPS = (0, 1, 6, 20)


def test_what_a_trimmed_run_shows_and_counts_is_what_its_twin_shows_and_counts():
    trimmed = 0
    for seed in SEEDS:
        for keep in KEEPS:
            one, other, removed = twins(seed, keep)
            trimmed += removed > 0
            before, after = checkpoints(one, "run"), checkpoints(other, "run")
            assert len(before) - len(after) == removed
            assert len(after) >= min(keep, len(before))
            newest = {point.checkpoint_id: bare(point) for point in before}
            assert [bare(point) for point in after] == [newest[point.checkpoint_id] for point in after], seed
            kept = min(keep, len(before))
            assert ids(before[len(before) - kept :]) == ids(after[len(after) - kept :])
            thoughts = [a_chain(store, "run").get_thought() for store in (one, other)]
            assert result(thoughts[0]) == result(thoughts[1]), (seed, keep)
            histories = [RecoveryManager(store).get_recovery_history("run") for store in (one, other)]
            assert histories[0] == histories[1]
            stories = [story_of(records(store, "run")) for store in (one, other)]
            assert stories[0].summary() == stories[1].summary()
            moments = [[shape(one) for one in story.timeline().moments] for story in stories]
            assert moments[0] == moments[1]
            assert stories[0].state.totals == stories[1].state.totals
            assert list(check(other)) == []
            assert clean(other, keep=keep) == 0
    assert trimmed > 60


def test_a_trimmed_run_that_failed_resumes_to_what_its_twin_comes_to():
    went_on = 0
    for seed in SEEDS:
        for keep in (0, 7):
            one, other, removed = twins(seed, keep)
            status = one.entry("run").status
            more = {"iterations": 6 + seed % 9}
            results = [a_chain(store, "run", **more).run_with_recovery() for store in (one, other)]
            assert result(results[0]) == result(results[1]), (seed, keep)
            assert [without_text(one) for one in records(one, "run")][-9:] == [
                without_text(one) for one in records(other, "run")
            ][-9:]
            went_on += status == "failed" and removed > 0
            assert list(check(other)) == []
    assert went_on > 10


@pytest.mark.parametrize("strategy", list(RecoveryStrategy))
def test_any_recovery_action_on_a_trimmed_run_leads_where_its_twin_gets(strategy):
    action = RecoveryAction(strategy, "by hand", 0.5)
    for at in (20, 21, 22):
        stores = InMemoryStorage(), InMemoryStorage()
        for store in stores:
            failed(store, "run", at=at)
        assert clean(stores[1], keep=0) > 10
        found = []
        for store in stores:
            chain = a_chain(store, "run")
            if chain.apply_recovery_action(action):
                found.append(result(chain.run()))
        assert len(found) in (0, 2)
        assert found[:1] == found[1:]


def test_a_fork_begins_at_every_checkpoint_that_stayed_and_comes_to_what_the_twins_fork_comes_to():
    forks = 0
    for seed in (3, 4, 9, 14, 22, 33):
        one, other, removed = twins(seed, 5)
        for point in checkpoints(other, "run"):
            if point.current_step == "complete":
                continue
            before = int(point.checkpoint_id.rpartition(":")[2]) + 1
            # The same model leads to the run's own best text, others perhaps to no better one than it had.
            for words in (40, 2, 3):
                found = []
                for store in (one, other):
                    chain = a_chain(store, "run", iterations=6 + seed % 9, model=Writer(words=words))
                    found.append(result(chain.fork(before=before, new_id=f"{before} {words}").run()))
                assert found[0] == found[1], (seed, before, words)
            forks += removed > 0
    assert forks > 20


def test_a_fork_from_a_checkpoint_whose_texts_are_gone_is_refused(storage):
    done(storage, iterations=10)
    before = checkpoints(storage, "done")
    assert clean(storage, keep=5) > 0
    left = {point.checkpoint_id for point in checkpoints(storage, "done")}
    gone = [point for point in before if point.checkpoint_id not in left]
    assert len(gone) > 10
    for point in gone:
        seq = int(point.checkpoint_id.rpartition(":")[2])
        chain = a_chain(storage, "done", iterations=10)
        with pytest.raises(UsageError, match="no checkpoint"):
            chain.fork(before=seq + 1, iteration=point.iteration, step=point.current_step)


def test_a_run_is_trimmed_again_when_it_has_gone_on(storage):
    failed(storage, "run", at=20, iterations=16)
    clean(storage, keep=4)
    first = texts(records(storage, "run"))
    twin = InMemoryStorage()
    failed(twin, "run", at=20, iterations=16)
    want = a_chain(twin, "run", iterations=16).run()
    assert result(a_chain(storage, "run", iterations=16).run()) == result(want)
    assert clean(storage, keep=4) > 0
    assert len(texts(records(storage, "run"))) < 2 * len(first)
    assert result(a_chain(storage, "run", iterations=16).run()) == result(want)
    assert clean(storage, keep=4) == 0
    assert clean(storage, keep=1) >= 0
    assert list(check(storage)) == []


def test_the_shared_past_of_a_fork_is_trimmed_too(storage):
    failed(storage, "run", at=25, iterations=14, words=400)
    chain = a_chain(storage, "run", iterations=14, model=Writer(words=400)).fork(new_id="fork")
    want = result(chain.run())
    size = sum(len(row.frame) for row in rows(storage, "fork"))
    assert clean(storage, keep=3) > 0
    assert sum(len(row.frame) for row in rows(storage, "fork")) < size / 2
    assert result(a_chain(storage, "fork", iterations=14, model=Writer(words=400)).run()) == want


def test_a_clean_up_shrinks_what_is_stored(storage):
    done(storage, iterations=30, model=Writer(words=400))
    before = storage.measure()
    assert clean(storage, keep=5) > 0
    after = storage.measure()
    assert after["raw_bytes"] < before["raw_bytes"] / 2
    assert after["stored_bytes"] < before["stored_bytes"] / 2
    assert after["records"] == before["records"]
    assert after["total_checkpoints"] == len(checkpoints(storage, "done"))
    assert after["total_checkpoints"] < before["total_checkpoints"]


def test_a_run_saved_at_its_exit_only_is_whole_or_not_trimmed(storage):
    for durability in ("exit", "iteration"):
        want = done(storage, durability, iterations=12, durability=durability)
        clean(storage, keep=3)
        assert result(a_chain(storage, durability, iterations=12).run()) == result(want)
    assert list(check(storage)) == []


def test_a_run_of_300_iterations_is_trimmed_in_little_time_and_goes_on(tmp_path):
    store, twin = SQLiteStorage(tmp_path / "long.db"), InMemoryStorage()
    for one in (store, twin):
        failed(one, "run", at=600, iterations=310)
    start = time.process_time()
    removed = clean(store, keep=20)
    taken = time.process_time() - start
    assert removed > 1000
    assert taken < 5
    assert len(checkpoints(store, "run")) >= 20
    start = time.process_time()
    CachedCheckpointStorage(store).load("run")
    assert time.process_time() - start < 0.1  # the tail alone is read
    assert result(a_chain(store, "run", iterations=310).run()) == result(
        a_chain(twin, "run", iterations=310).run()
    )
    store.close()


def test_the_tail_that_a_resume_reads_stays_small(storage, monkeypatch):
    """A load of a trimmed run reads rows near the end, not what was put together."""
    chain = Chain(
        Writer(), "Write.", checkpoint_storage=storage, chain_id="run", max_improvement_iterations=40
    )
    chain.validate_with(Scorer()).improve_with(Teller()).run()
    monkeypatch.setattr(trimming, "RECORDS_A_ROW", 40)
    assert clean(storage, keep=2) > 100
    read = []

    class Seen(StorageWrapper):
        def rows(self, chain_id, first=0, last=None, *, newest_first=False):
            for row in super().rows(chain_id, first, last, newest_first=newest_first):
                read.append(row)
                yield row

    CachedCheckpointStorage(Seen(storage)).load("run")
    assert sum(row.last - row.first + 1 for row in read) < 120
    assert sum(row.last - row.first + 1 for row in rows(storage, "run")) > 400


def test_a_text_that_a_restart_set_aside_is_trimmed(storage):
    """It is of the same iteration as one that stays, and yet nobody needs it."""
    failed(storage, "run", at=2)
    for _ in range(3):
        chain = a_chain(storage, "run", iterations=1)
        chain.apply_recovery_action(RecoveryAction(RecoveryStrategy.RESTART_FROM_GENERATION, "again", 0.5))
        kept_runs.failing(storage, "run", 2, words=3, iterations=1)
    chain = a_chain(storage, "run", iterations=3, model=Writer(words=7))
    chain.apply_recovery_action(RecoveryAction(RecoveryStrategy.FULL_RESTART, "again", 0.5))
    chain.run()
    aside = [one.text for one in records(storage, "run") if is_text(one)][:4]
    assert clean(storage, keep=1) > 0
    left = [one.text for one in records(storage, "run") if is_text(one)]
    assert left[:4].count("") >= 3  # one of them may be the best
    assert all(aside)
    assert any(left)


def is_text(record):
    return isinstance(record, Result) and record.operation == "generation"


# Deleted texts -----------------------------------------------------------------------------


def every_byte(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


@pytest.mark.parametrize("options", [{"keep": 4}, {"max_age_days": 0}])
def test_a_text_that_was_cleaned_up_is_in_no_file_of_the_store(tmp_path, options):
    store = SQLiteStorage(tmp_path / "runs.db")
    for n in range(6):
        # Incompressible words, and frames that are too short to be compressed, are there to be found.
        a_chain(store, f"run {n}", iterations=8, asks=False, clock=FakeClock(), model=Short()).run()
    every = {text for n in range(6) for text in texts(records(store, f"run {n}"))}
    found = every_byte(tmp_path)
    assert sum(text.encode() in found for text in every) > 0.8 * len(every)
    clean(store, **({"max_age_days": None} | options))
    left = {text for entry in store.entries(Query()) for text in texts(records(store, entry.chain_id))}
    gone = every - left
    assert len(gone) > len(every) / 3
    found = every_byte(tmp_path)
    assert [text for text in gone if text.encode() in found] == []
    store.close()
    found = every_byte(tmp_path)
    assert [text for text in gone if text.encode() in found] == []


class Short:
    """Writes little, so that nothing is compressed."""

    name = "writer"

    def generate(self, prompt, **options):
        return mark(prompt)


def test_texts_are_gone_from_the_files_also_when_the_first_clean_up_was_interrupted_at_its_end(tmp_path):
    store = SQLiteStorage(tmp_path / "runs.db")
    done(store, iterations=8, asks=False, model=Short())
    every = set(texts(records(store, "done")))
    counting = Interrupted(store)
    clean_up(counting, max_age_days=None, keep=50)
    with pytest.raises(Exception, match="interrupted"):
        clean_up(Interrupted(store, calls_before_compact(store)), max_age_days=None, keep=4)
    assert clean(store, keep=4) == 0
    gone = every - set(texts(records(store, "done")))
    found = every_byte(tmp_path)
    assert gone
    assert [text for text in gone if text.encode() in found] == []
    store.close()


def calls_before_compact(store):
    """The number of the call that compacts, found on a copy of the store in memory."""
    from sifaka.storage.moving import copy

    twin = InMemoryStorage()
    copy(store, twin)
    counting = Interrupted(twin)
    clean_up(counting, max_age_days=None, keep=4)
    return counting.calls - 1


# Archives ----------------------------------------------------------------------------------


def test_what_goes_is_archived_first_and_what_cannot_be_archived_stays(storage, tmp_path):
    from sifaka.storage.archive import import_archive

    done(storage, "a")
    done(storage, "b")
    want = records(storage, "a")
    assert clean(storage, 0, archive=tmp_path / "kept") > 0
    assert names(storage) == []
    (path,) = (tmp_path / "kept").iterdir()
    assert sorted(import_archive(storage, path)) == ["a", "b"]
    assert records(storage, "a") == want


def test_what_is_trimmed_is_archived_whole_first_and_once(storage, tmp_path):
    from sifaka.storage.archive import import_archive

    done(storage, "long", iterations=10)
    done(storage, "short", iterations=0)
    want = records(storage, "long")
    assert clean(storage, keep=5, archive=tmp_path / "kept") > 0
    assert clean(storage, keep=5, archive=tmp_path / "kept") == 0
    (path,) = (tmp_path / "kept").iterdir()
    other = InMemoryStorage()
    assert import_archive(other, path) == ["long"]
    assert records(other, "long") == want


def test_nothing_is_deleted_when_the_archive_cannot_be_written(storage, tmp_path):
    done(storage)
    (tmp_path / "file").write_text("in the way")
    before = image(storage)
    with pytest.raises(Exception, match="no archive can be written"):
        clean(storage, 0, archive=tmp_path / "file")
    assert image(storage) == before


def test_a_clean_up_with_nothing_to_do_writes_no_archive(storage, tmp_path):
    interrupted(storage)
    assert clean(storage, 0, keep=0, archive=tmp_path / "kept") == 0
    assert not (tmp_path / "kept").exists()
