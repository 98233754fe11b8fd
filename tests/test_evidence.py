"""What a store learns of recoveries: counts that all share and that outlive the texts, and similar cases."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

import doubles
from doubles import Critic, Model, chain_of, no_key, strategies
from sifaka.errors import ChainError, FencedError, ModelError, OwnedError, StorageError
from sifaka.faults import classify
from sifaka.log.records import Opened, Position, Recovery
from sifaka.recovery import RecoveryAction, RecoveryManager, RecoveryStrategy, Rule
from sifaka.recovery.counts import CONTEXTS_MAX, decode_contexts, decode_steps
from sifaka.recovery.evidence import BUCKETS, Attempt, Evidence
from sifaka.recovery.ranking import PRIORS, Situation, rank
from sifaka.recovery.weather import Weather
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
    assert now.interval[1] - now.interval[0] < before.interval[1] - before.interval[0]


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
    depths = table(CachedCheckpointStorage(doubles_sqlite(path)))["generation"]["retry_current_step"]
    assert [sum(column) for column in zip(*depths, strict=True)] == [100, 100]


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


# Cells -------------------------------------------------------------------------------------


def attempt(strategy="retry_current_step", success=True, kind="timeout", operation="generation", **more):
    recovery = Recovery(
        1.0,
        operation,
        0,
        "model",
        strategy,
        "",
        Position(operation),
        more.pop("parameters", {}),
        error_kind=kind,
        counts=more.pop("counts", True),
    )
    return Attempt(0, recovery, "no answer", more.pop("model", "m"), success, **more)


class Counting(InMemoryStorage):
    """Counts the round trips for cells."""

    def __init__(self, **more):
        super().__init__(**more)
        self.trips = []

    def cells(self, names):
        self.trips.append(list(names))
        return super().cells(names)


def test_a_ranking_reads_its_cells_in_one_round_trip_and_few_of_them():
    store = Counting()
    Evidence(SharedCells(store)).rank(at())
    (names,) = store.trips
    assert len(names) <= 4


def test_reading_costs_the_same_after_many_outcomes_in_many_contexts():
    """What is read is bounded: rows are sums, and contexts share a fixed number of cells of bounded size."""
    store = InMemoryStorage(clock=FakeClock())
    evidence = Evidence(SharedCells(store))
    for number in range(6_000):
        evidence.learn("a", [attempt(model=f"m{number}", label=f"l{number % 7}", depth=number % 4)])
    names = store.cell_names("evidence/", limit=10_000)
    assert len(names) <= BUCKETS + 1 + 6_000  # a weather cell a provider; here each model is its own
    near = [name for name in names if name.startswith("evidence/2/timeout/")]
    assert len(near) <= BUCKETS
    contexts = [decode_contexts(cell.value) for cell in store.cells(near)]
    assert max(map(len, contexts)) <= CONTEXTS_MAX
    assert max(len(cell.value) for cell in store.cells(near)) < 64_000
    (wide,) = store.cells(["evidence/2/timeout"])
    assert len(wide.value) < 2_000


def test_the_context_that_was_counted_in_least_lately_makes_room(monkeypatch):
    monkeypatch.setattr("sifaka.recovery.evidence.BUCKETS", 1)
    clock = FakeClock()
    evidence = Evidence(SharedCells(InMemoryStorage(clock=clock)))
    for number in range(CONTEXTS_MAX + 5):
        evidence.learn("a", [attempt(model=f"m{number}")])
        clock.advance(1.0)
    here = [bool(evidence.knowledge(at(model=f"m{number}")).here) for number in range(CONTEXTS_MAX + 5)]
    assert here == [False] * 5 + [True] * CONTEXTS_MAX


def test_counts_that_an_earlier_version_left_are_read_and_taken_over():
    store = InMemoryStorage()
    old = msgspec.msgpack.encode({"generation": {"retry_current_step": (20, 1)}})
    store.swap("evidence/timeout", old, 0)
    evidence = Evidence(SharedCells(store, stale_s=0.0))
    before = retry(evidence.rank(at()))
    assert "worked 1 of 20 for timeout at generation in all runs" in before.evidence
    assert before.confidence < 0.3
    evidence.learn("a", [attempt(success=True)])
    assert "2 of 21 for timeout at generation in all runs" in retry(evidence.rank(at())).evidence
    assert store.cells(["evidence/timeout"])[0].value == old


def test_a_cell_that_holds_rubbish_is_told_and_holds_nothing_up():
    store = InMemoryStorage()
    store.swap("evidence/2/timeout", b"rubbish", 0)
    evidence = Evidence(SharedCells(store))
    assert "the history cannot be read" in retry(evidence.rank(at())).evidence
    assert evidence.learn("a", [attempt()])


def test_contexts_are_told_apart_by_label_step_and_model():
    evidence = Evidence(SharedCells(InMemoryStorage(), stale_s=0.0))
    evidence.learn("a", [attempt(success=False, model="m", label="l") for _ in range(20)])
    here = at(model="m")._replace(options={"label": "l"})
    elsewhere = [at(model="n"), at(model="m"), here._replace(position=Position("criticism", 0))]
    nearest = retry(evidence.rank(here)).confidence + 0.1
    assert all(nearest < retry(evidence.rank(other)).confidence for other in elsewhere)


def test_a_stated_wait_is_counted_apart_and_is_no_similar_case():
    search = EmbeddedSimilarity()
    store = CachedCheckpointStorage(CachedStorage(InMemoryStorage(), search=search))
    Evidence(store.cells, store.search).learn("a", [attempt(kind="rate_limit", counts=False)])
    assert list(table(store, "rate_limit")["generation"]) == ["retry_current_step after the stated wait"]
    assert search.count() == 0


# Bad hours ---------------------------------------------------------------------------------


def test_many_more_faults_than_usual_are_a_bad_hour_and_it_passes():
    weather = Weather()
    now = 0.0
    for _ in range(60):  # two months of two faults a day
        now += 43_200.0
        assert not weather.is_bad(now)
        weather = weather.plus(now)
    for _ in range(3):
        now += 120.0
        weather = weather.plus(now)
    assert weather.is_bad(now)
    assert not weather.is_bad(now, own=3)
    assert not weather.is_bad(now + 3 * 3600)


def test_a_busy_provider_has_no_bad_hour_only_for_being_busy():
    weather, now = Weather(), 0.0
    for _ in range(5_000):
        now += 300.0
        weather = weather.plus(now)
    assert weather.short > 4
    assert not weather.is_bad(now)


def test_what_is_tried_in_a_bad_hour_is_counted_apart():
    clock = FakeClock()
    evidence = Evidence(SharedCells(InMemoryStorage(clock=clock), stale_s=0.0))
    for _ in range(30):
        clock.advance(86_400.0)
        evidence.learn("a", [attempt(success=True, model="p:m")])
    assert not evidence.knowledge(at(model="p:m")).storm
    good = retry(evidence.rank(at(model="p:m"))).confidence
    for number in range(8):
        clock.advance(60.0)
        evidence.learn("a", [attempt(success=False, model=f"p:{number}")])
    assert evidence.knowledge(at(model="p:m")).storm
    assert not evidence.knowledge(at(model="q:m")).storm
    bad = retry(evidence.rank(at(model="p:m")))
    assert bad.confidence < good - 0.2
    assert "in a bad hour of its provider" in bad.evidence
    clock.advance(6 * 3600.0)
    assert retry(evidence.rank(at(model="p:m"))).confidence == pytest.approx(good, abs=0.05)


# Outcomes by hand, and what has worked ------------------------------------------------------


def test_an_outcome_can_be_recorded_by_hand():
    manager = RecoveryManager(InMemoryStorage())
    error = TimeoutError("no answer")
    action = retry(manager.analyze_failure(None, error))
    for _ in range(4):
        assert manager.record_outcome(None, error, action, False, cost=0.5, seconds=90.0) == ""
    manager.checkpoint_storage.cells.stale_s = 0.0
    again = retry(RecoveryManager(manager.checkpoint_storage).analyze_failure(None, error))
    assert again.confidence < action.confidence
    assert "worked 0 of 4" in again.evidence
    assert again.cost_usd > 0
    assert again.seconds > action.seconds


def test_a_text_that_fails_the_same_validator_again_has_not_worked(storage):
    def picky(thought):
        if not calls:
            calls.append(thought)
            raise ModelError("too short", kind="validation_failed")
        return False

    calls = []
    chain = chain_of(Model(), storage, chain_id="r", validators=[picky], max_improvement_iterations=0)
    chain.run_with_recovery()
    (told,) = RecoveryManager(storage).get_recovery_history("r")
    assert told["action"] == "restart_from_generation"
    assert told["success"] is False
    assert table(chain._storage, "validation_failed")["validation"]["restart_from_generation"] == [(1, 0)]


def test_a_validator_that_answers_after_a_retry_has_been_mended_whatever_it_says(storage):
    def slow(thought):
        if not calls:
            calls.append(thought)
            raise TimeoutError("no answer")
        return False

    calls = []
    chain = chain_of(Model(), storage, chain_id="r", validators=[slow], max_improvement_iterations=0)
    chain.run_with_recovery()
    assert RecoveryManager(storage).get_recovery_history("r")[0]["success"] is True


def test_reasons_are_given_for_what_is_not_offered(storage):
    chain = chain_of(Model("x"), storage, critics=[Critic("c", no_key())])
    with pytest.raises(ChainError) as caught:
        chain.run()
    manager = RecoveryManager(storage)
    last = chain.get_checkpoint_history()[-1]
    reasons = {one.strategy.value: one.why for one in manager.not_offered(last, caught.value)}
    assert "would fail again" in reasons["retry_current_step"]
    assert "skip_to_next_step" not in reasons
    assert [one.strategy.value for one in manager.analyze_failure(last, caught.value)] == [
        "skip_to_next_step"
    ]


def test_an_analysis_of_a_run_in_the_store_knows_its_settings_and_its_part(storage):
    critic = Critic("c", *[TimeoutError("x")] * 9)
    chain = chain_of(Model("x"), storage, critics=[critic, Critic("d")]).with_options(timeout_s=7.0)
    with pytest.raises(ChainError) as caught:
        chain.run()
    found = RecoveryManager(storage).analyze_failure(chain.get_checkpoint_history()[-1], caught.value)
    assert {"timeout_s": 14.0} in [one.parameters for one in found]
    assert "go on without c" in " ".join(one.description for one in found)
    assert all(one.delay_s > 0 for one in found if one.strategy.value == "retry_current_step")


def test_rules_and_an_order_of_ones_own_are_used_by_the_manager():
    rule = Rule("timeout", RecoveryStrategy.MODIFY_PARAMETERS, 0.9, {"top_p": 0.5})

    def reversed_order(here, actions):
        assert here.fault.kind == "timeout"
        return actions[::-1]

    manager = RecoveryManager(InMemoryStorage(), rules=[rule])
    found = manager.analyze_failure(None, TimeoutError("x"))
    assert {"top_p": 0.5} in [one.parameters for one in found]
    turned = RecoveryManager(InMemoryStorage(), rules=[rule], order=reversed_order)
    assert turned.analyze_failure(None, TimeoutError("x")) == found[::-1]


def test_only_first_attempts_make_the_weather():
    """Three attempts at one fault are no bad hour for others."""
    evidence = Evidence(SharedCells(InMemoryStorage(clock=FakeClock()), stale_s=0.0))
    evidence.learn("a", [attempt(success=False, model="p:m", depth=depth) for depth in range(4)])
    assert not evidence.knowledge(at(model="p:m")).storm


def test_an_outcome_by_hand_counts_after_how_many_failures_it_came(storage):
    chain = chain_of(timeouts(9), storage, chain_id="r").with_options(limits={"attempts_per_step": 2})
    with pytest.raises(ChainError) as caught:
        chain.run_with_recovery()
    manager = RecoveryManager(storage)
    last = chain.get_checkpoint_history()[-1]
    action = RecoveryAction(RecoveryStrategy.MODIFY_PARAMETERS, "by hand", 0.5, {"top_p": 0.5})
    before = len(doubles.strategies(doubles.log(storage, "r")))
    assert before
    manager.record_outcome(last, caught.value, action, True)
    depths = table(chain._storage)["generation"]["modify_parameters top_p"]
    assert [tried for tried, _ in depths] == [0] * before + [1]
