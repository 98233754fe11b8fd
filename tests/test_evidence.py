"""What a store learns of recoveries: counts that all share and that outlive the texts, and similar cases."""

from __future__ import annotations

import asyncio

import pytest

import doubles
from doubles import Critic, Model, chain_of, no_key, strategies
from sifaka.errors import ChainError, FencedError, OwnedError, StorageError
from sifaka.faults import classify
from sifaka.log.records import Opened, Position, Recovery
from sifaka.recovery import RecoveryManager
from sifaka.recovery.counts import decode_steps
from sifaka.recovery.evidence import Attempt, Evidence
from sifaka.recovery.ranking import PRIORS, Situation, rank
from sifaka.storage.base import Cell
from sifaka.storage.cached import CachedStorage
from sifaka.storage.cells import SharedCells
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.similarity import Case, Similarity, SimilarityError
from sifaka.storage.similarity.embedded import EmbeddedSimilarity
from sifaka.testing import FakeClock

storage = doubles.storage


def timeouts(fails, then="a text"):
    """A model that times out so often, and then answers."""
    return Model(*([TimeoutError("no answer from 10.0.0.1")] * fails), then)


def table(store, kind="timeout"):
    """Operation to action to (tried, worked), by how many attempts at the same fault had failed before."""
    (cell,) = store.storage.cells([f"evidence/2/{kind}"])
    steps = decode_steps(cell.value) if cell.value else {}
    return {
        step: {
            action: [(row.tried_ever, row.worked_ever) for row in depths] for action, depths in rows.items()
        }
        for step, rows in steps.items()
    }


def at(kind_of=None, **more):
    return Situation(
        classify(kind_of or TimeoutError("no answer")), Position("generation", 0), "model", {}, **more
    )


def retry(actions):
    return next(one for one in actions if one.strategy.value == "retry_current_step")


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_a_run_counts_what_came_of_its_actions(storage, driver):
    chain = chain_of(timeouts(2), storage, clock=FakeClock())
    if driver == "sync":
        chain.run_with_recovery()
    else:
        asyncio.run(chain.arun_with_recovery())
    # The first attempt failed, the one after it worked.
    assert table(chain._storage) == {"generation": {"retry_current_step": [(1, 0), (1, 1)]}}
    assert strategies(doubles.log(storage, chain.chain_id)) == ["retry_current_step"] * 2


def test_the_counts_move_the_confidence_and_are_told(storage):
    before = retry(RecoveryManager(storage).analyze_failure(None, TimeoutError("no answer")))
    assert "no history yet" in before.evidence
    for _ in range(6):
        chain_of(timeouts(1), storage, clock=FakeClock()).run_with_recovery()
    with pytest.raises(ChainError) as caught:
        chain_of(timeouts(1), storage, clock=FakeClock()).run()
    now = retry(caught.value.suggestions)
    assert now.confidence > before.confidence
    assert "worked 6 of 6 for timeout at generation" in now.evidence
    prior = PRIORS["timeout"][0].confidence
    assert now.confidence == pytest.approx((4 * prior + 6) / 10, abs=1e-3)


def test_failures_count_too(storage):
    chain = chain_of(timeouts(9), storage).with_options(limits={"attempts_per_step": 3})
    with pytest.raises(ChainError):
        chain.run_with_recovery()
    attempts = table(chain._storage)["generation"]["retry_current_step"]
    assert [worked for _, worked in attempts] == [0] * len(attempts)
    assert sum(tried for tried, _ in attempts) >= 2


def test_counts_outlive_the_runs_they_came_from(storage):
    clock = FakeClock()
    chain = chain_of(timeouts(1), storage, clock=clock)
    chain.run_with_recovery()
    counted = table(chain._storage)
    assert counted
    chain._storage.storage.clock = FakeClock(clock.time() + 40 * 86_400)
    assert RecoveryManager(storage).cleanup_old_checkpoints(max_age_days=30) > 0
    assert chain._storage.get_chains() == []
    assert table(chain._storage) == counted


def test_two_processes_share_the_counts_and_lose_none(tmp_path):
    import subprocess
    import sys

    script = """
import sys
from sifaka.recovery.evidence import Attempt, Evidence
from sifaka.log.records import Opened, Position, Recovery
from sifaka.storage.cells import SharedCells
from sifaka.storage.sqlite import SQLiteStorage
evidence = Evidence(SharedCells(SQLiteStorage(sys.argv[1])))
recovery = Recovery(1.0, "generation", 0, "m", "retry_current_step", "", Position("generation"), {}, error_kind="timeout")
for n in range(50):
    assert evidence.learn("a", [Attempt(n, recovery, "", "", True)]) == ""
"""
    path = str(tmp_path / "store.db")
    running = [subprocess.Popen([sys.executable, "-c", script, path]) for _ in range(2)]
    assert [one.wait() for one in running] == [0, 0]
    assert table(CachedCheckpointStorage(doubles_sqlite(path))) == {
        "generation": {"retry_current_step": [(100, 100)]}
    }


def doubles_sqlite(path):
    from sifaka.storage.sqlite import SQLiteStorage

    return SQLiteStorage(path)


class Down(Similarity):
    """A search whose server is gone."""

    def keep(self, cases):
        raise SimilarityError("the server is away")

    def nearest(self, case, limit=10):
        raise SimilarityError("the server is away")

    def forget(self, chain_ids):
        raise SimilarityError("the server is away")

    def count(self):
        return 0


def test_a_search_that_is_down_leaves_the_exact_counts_and_is_told():
    store = CachedCheckpointStorage(CachedStorage(InMemoryStorage(), search=Down()))
    for _ in range(3):
        chain_of(timeouts(1), store, clock=FakeClock()).run_with_recovery()
    action = retry(RecoveryManager(store).analyze_failure(None, TimeoutError("no answer")))
    assert "similar cases are not available" in action.evidence
    with pytest.raises(ChainError) as caught:
        chain_of(timeouts(1), store, clock=FakeClock()).run()
    assert "worked 3 of 3" in retry(caught.value.suggestions).evidence


def test_similar_cases_of_another_step_add_to_what_the_kind_has_counted():
    search = EmbeddedSimilarity()
    store = CachedCheckpointStorage(CachedStorage(InMemoryStorage(), search=search))
    recovery = Recovery(
        1.0,
        "generation",
        0,
        "model",
        "retry_current_step",
        "",
        Position("generation"),
        {},
        error_kind="timeout",
    )
    evidence = Evidence(store.cells, store.search)
    evidence.learn("a", [Attempt(n, recovery, "no answer from 10.0.0.1", "", True) for n in range(4)])
    assert search.count() == 4
    # Another operation: the exact counts know nothing of it, the similar cases do.
    here = Situation(classify(TimeoutError("no answer from 10.0.0.2")), Position("criticism", 0), "model", {})
    action = retry(evidence.rank(here))
    assert "4 of 4 in similar cases" in action.evidence
    prior = PRIORS["timeout"][0].confidence
    exact = rank(here, evidence.knowledge(here)._replace(similar={}))
    assert action.confidence > retry(exact).confidence > prior


def test_a_history_that_cannot_be_read_is_told_and_holds_nothing_up():
    class Broken(InMemoryStorage):
        def cells(self, names):
            raise StorageError("the disk is gone")

    evidence = Evidence(SharedCells(Broken()))
    assert "the history cannot be read" in retry(evidence.rank(at())).evidence
    recovery = Recovery(1.0, "generation", 0, "m", "retry_current_step", "", Position("generation"), {})
    assert "the disk is gone" in evidence.learn("a", [Attempt(0, recovery, "", "", True)])


def test_what_cannot_help_is_not_offered_whatever_was_counted(storage):
    chain = chain_of(Model("x"), storage, critics=[Critic("c", no_key())])
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert "retry_current_step" not in {one.strategy.value for one in caught.value.suggestions}


def test_cells_are_read_a_little_stale_and_changed_afresh():
    clock = FakeClock()
    store, asked = InMemoryStorage(clock=clock), []

    class Counting(InMemoryStorage):
        def cells(self, names):
            asked.append(list(names))
            return store.cells(names)

        def swap(self, name, value, version):
            return store.swap(name, value, version)

    cells = SharedCells(Counting(clock=clock))
    assert cells.read(["a", "b"]) == [b"", b""]
    store.swap("a", b"1", 0)
    assert cells.read(["a"]) == [b""]
    clock.advance(1.01)
    assert cells.read(["a"]) == [b"1"]
    assert cells.change("a", lambda value: value + b"2") == b"12"
    assert cells.read(["a"]) == [b"12"]
    assert store.cells(["a"]) == [Cell(b"12", 2)]
    assert asked == [["a", "b"], ["a"], ["a"]]


def test_a_change_is_made_again_when_somebody_was_quicker():
    store = InMemoryStorage()
    seen = []

    def add(value):
        if not seen:
            store.swap("a", b"theirs", 0)
        seen.append(value)
        return value + b"+mine"

    assert SharedCells(store).change("a", add) == b"theirs+mine"
    with pytest.raises(StorageError, match="changed by others"):
        SharedCells(store).change(
            "a", lambda _: store.swap("a", b"x", store.cells(["a"])[0].version) and b"y"
        )


def test_a_fault_is_learned_with_its_text_also_when_the_process_died_before_the_outcome():
    store = CachedCheckpointStorage(CachedStorage(InMemoryStorage(), search=EmbeddedSimilarity()))
    chain = chain_of(timeouts(1), store, chain_id="r")
    with pytest.raises(ChainError):
        chain.run()
    assert chain.apply_recovery_action(retry(RecoveryManager(store).analyze_failure(None, TimeoutError("x"))))
    chain_of(timeouts(0), store, chain_id="r").run_with_recovery()  # as another process would
    found = store.search.nearest(
        Case(
            case_id="",
            chain_id="",
            text="no answer from 10.0.0.9",
            kind="timeout",
            step="generation",
            part="model",
        )
    )
    assert [one.case.text for one in found.matches] == ["no answer from 10.0.0.1"]


def test_a_run_that_nobody_could_give_back_is_free_for_who_let_it_go_and_not_for_its_twin():
    class Away(InMemoryStorage):
        away = False

        def entry(self, chain_id):
            if self.away:
                raise StorageError("away")
            return super().entry(chain_id)

    storage = Away()
    ours = CachedCheckpointStorage(storage).journal
    theirs = CachedCheckpointStorage(storage).journal
    first, second = ours.claim("a"), theirs.claim("a")
    ours.append(first, [Opened(1.0, "a", "p", parts=(), settings={})])
    with pytest.raises(FencedError):
        theirs.append(second, [Opened(1.0, "a", "p", parts=(), settings={})])
    storage.away = True
    theirs.release(second)
    storage.away = False
    with pytest.raises(OwnedError):
        theirs.claim("a")
