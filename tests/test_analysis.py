"""What a store's runs teach people: what failed and helped, where time and money went, what to change."""

from __future__ import annotations

import asyncio

import pytest

import doubles
from doubles import Asking, Barrier, Critic, Model, Validator, busy, chain_of, no_key, priced
from sifaka.errors import ChainError, DamagedRecordError, StorageError
from sifaka.log.records import Intent, Opened, Result
from sifaka.recovery import RecoveryAction, RecoveryManager, RecoveryStrategy
from sifaka.recovery.analysis import analyse
from sifaka.recovery.calibration import Bin, calibrate, isotonic
from sifaka.recovery.configuration import suggest_configuration
from sifaka.recovery.digest import ActionSeen, Digest, FaultSeen, Spent, TextSeen, digest
from sifaka.storage.base import Query
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing import FakeClock

storage = doubles.storage


@pytest.fixture
def clock():
    return FakeClock()


def timeout():
    return TimeoutError("no answer")


def taking(clock, seconds, value):
    """A step of a script that takes so long; ``value`` is returned, or raised."""

    def step(*_):
        clock.advance(seconds)
        if isinstance(value, BaseException):
            raise value
        return value

    return step


def by_name(found):
    return {one.name: one for one in found}


def correlations(analysis):
    return {one.between: one for one in analysis.correlations}


def advice(store, word):
    """The one suggestion whose reason has this word."""
    (found,) = [one for one in RecoveryManager(store).suggest_configuration() if word in one.why]
    return found


# What helped -------------------------------------------------------------------------------


def test_success_is_counted_by_strategy_and_kind_of_fault(storage):
    for _ in range(3):
        chain_of(Model(timeout(), "text"), storage).run_with_recovery()
    chain_of(Model(busy(), busy(), "text"), storage).run_with_recovery()
    found = {(one.strategy, one.kind): one for one in RecoveryManager(storage).analyze().success}
    assert {key: (one.worked, one.tried) for key, one in found.items()} == {
        ("retry_current_step", "timeout"): (3, 3),
        ("retry_current_step", "rate_limit"): (1, 2),
    }
    sure, half = found["retry_current_step", "timeout"], found["retry_current_step", "rate_limit"]
    assert 0.4 < sure.interval[0] < sure.interval[1] <= 1.0
    assert half.interval[0] < 0.5 < half.interval[1]
    assert str(sure).startswith("retry_current_step for timeout: worked 3 of 3 (100%, between ")


def test_what_was_tried_most_comes_first(storage):
    chain_of(Model(busy(), "text"), storage).run_with_recovery()
    for _ in range(2):
        chain_of(Model(timeout(), "text"), storage).run_with_recovery()
    assert [one.kind for one in RecoveryManager(storage).analyze().success] == ["timeout", "rate_limit"]


def test_an_action_whose_outcome_is_open_counts_neither_way(storage):
    chain = chain_of(Model(timeout()), storage)
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert chain.apply_recovery_action(caught.value.suggestions[0])
    analysis = RecoveryManager(storage).analyze()
    assert analysis.success == ()
    assert analysis.calibration.count == 0
    chain.run()
    (rate,) = RecoveryManager(storage).analyze().success
    assert (rate.worked, rate.tried) == (1, 1)


def test_the_mean_cost_and_time_of_an_action_are_those_of_its_outcomes(storage, clock):
    for usd, seconds in ((1.0, 2.0), (3.0, 6.0)):
        chain = chain_of(Model(no_key(), taking(clock, seconds, priced("x", usd))), storage, clock=clock)
        with pytest.raises(ChainError):
            chain.run()
        again = RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "with another key", 0.5)
        assert chain.apply_recovery_action(again)
        chain.run()
    (rate,) = RecoveryManager(storage).analyze().success
    assert rate.mean_cost_usd == pytest.approx(2.0)
    assert rate.mean_seconds == pytest.approx((2.0 + 6.0) / 2)


# What failed -------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_faults_are_counted_by_kind_and_step_with_their_share_of_the_calls(storage, driver):
    chain_of(Model("fine"), storage).run()
    chain = chain_of(Model(timeout(), timeout(), "text"), storage, critics=[Critic("c", timeout())])
    if driver == "sync":
        chain.run_with_recovery()
    else:
        asyncio.run(chain.arun_with_recovery())
    found = {(one.kind, one.step): one for one in RecoveryManager(storage).analyze().errors}
    assert set(found) == {("timeout", "generation"), ("timeout", "criticism")}
    writing, judging = found["timeout", "generation"], found["timeout", "criticism"]
    assert (writing.count, writing.runs, writing.share) == (2, 1, 2 / 4)
    assert (judging.count, judging.runs, judging.share) == (1, 1, 1 / 2)


def test_the_commonest_fault_comes_first_and_runs_are_counted_once(storage):
    chain_of(Model(busy(), "text"), storage).run_with_recovery()
    for _ in range(2):
        chain_of(Model(timeout(), timeout(), "text"), storage).run_with_recovery()
    assert [(one.kind, one.count, one.runs) for one in RecoveryManager(storage).analyze().errors] == [
        ("timeout", 4, 2),
        ("rate_limit", 1, 1),
    ]


# Where time and money went -----------------------------------------------------------------


def test_time_and_money_go_to_the_steps_they_were_spent_in(storage, clock):
    model = Model(taking(clock, 6.0, priced("text", 0.5)))
    judge = Model(taking(clock, 2.0, priced("fine", 1.5)), name="judge")
    critic = Asking("c", ("one",), model=judge)
    chain_of(model, storage, critics=[critic], clock=clock).run()
    analysis = RecoveryManager(storage).analyze()
    assert [one.name for one in analysis.steps[:2]] == ["generation", "criticism"]
    steps = by_name(analysis.steps)
    assert (steps["generation"].seconds, steps["criticism"].seconds) == pytest.approx((6.0, 2.0))
    assert (steps["generation"].share_of_time, steps["generation"].share_of_cost) == pytest.approx(
        (0.75, 0.25)
    )
    models = by_name(analysis.models)
    assert models["scripted"].cost_usd == pytest.approx(0.5)
    assert (models["judge"].seconds, models["judge"].cost_usd) == pytest.approx((2.0, 1.5))
    assert str(steps["generation"]) == (
        "step generation: 6.00 s (75% of the time), $0.5000 (25% of the cost), 1 calls"
    )


def test_critics_that_ask_together_are_not_counted_twice(storage, clock):
    meeting = Barrier(2)

    def together(_):
        first = meeting.wait() == 0
        if first:
            clock.advance(10.0)
        meeting.wait()
        return priced("fine")

    judge = Model(together, together, name="judge")
    critics = [Asking(name, ("one",), model=judge) for name in ("a", "b")]
    chain_of(Model("text"), storage, critics=critics, clock=clock).run()
    analysis = RecoveryManager(storage).analyze()
    steps, models = by_name(analysis.steps), by_name(analysis.models)
    assert steps["criticism"].seconds == pytest.approx(10.0)
    assert models["judge"].seconds == pytest.approx(10.0)
    assert (models["judge"].calls, models["judge"].cost_usd) == (2, pytest.approx(2.0))


def test_a_call_that_failed_took_its_time_too(storage, clock):
    model = Model(taking(clock, 30.0, timeout()), taking(clock, 5.0, "text"))
    chain_of(model, storage, clock=clock).run_with_recovery()
    scripted = by_name(RecoveryManager(storage).analyze().models)["scripted"]
    assert scripted.seconds == pytest.approx(35.0)
    assert scripted.calls == 2


def test_the_time_between_two_lives_belongs_to_no_step(storage, clock):
    chain = chain_of(Model(no_key(), taking(clock, 3.0, "text")), storage, clock=clock)
    with pytest.raises(ChainError):
        chain.run()
    clock.advance(5_000.0)
    chain.run()
    steps = by_name(RecoveryManager(storage).analyze().steps)
    assert sum(one.seconds for one in steps.values()) == pytest.approx(3.0)


def test_a_wait_for_a_fault_to_pass_counts_for_the_step_that_waits(storage, clock):
    chain_of(Model(busy(40.0), "text"), storage, clock=clock).run_with_recovery()
    generation = by_name(RecoveryManager(storage).analyze().steps)["generation"]
    assert generation.seconds == pytest.approx(sum(clock.slept))
    assert generation.seconds >= 40.0


def call(at, seq, *, model="m", until=None, iteration=0, part="p"):
    """A call of a model that goes out at ``at``: its intent, or its result where ``until`` is given."""
    if until is None:
        return Intent(at, "criticism", iteration, part, 1, 1, "", model)
    return Result(until, seq, "criticism", iteration, part, seconds=until - at, text="x", model=model)


def seconds_of(*records):
    return digest("a", [Opened(0.0, "a", "p", parts=(), settings={}), *records]).models["m"].seconds


def test_calls_of_a_model_that_overlap_count_the_time_they_share_once():
    assert seconds_of(call(0.0, 1), call(2.0, 2), call(0.0, 1, until=4.0), call(2.0, 2, until=9.0)) == 9.0
    assert seconds_of(call(0.0, 1), call(0.0, 1, until=4.0), call(6.0, 3), call(6.0, 3, until=9.0)) == 7.0


def test_a_call_that_lasts_longer_than_a_later_one_counts_from_its_beginning():
    assert seconds_of(call(0.0, 1), call(2.0, 2), call(2.0, 2, until=4.0), call(0.0, 1, until=10.0)) == 10.0


# How quantities go together ----------------------------------------------------------------


def digest_of(texts, faults=()):
    """A run with texts of (iteration, characters, seconds), and faults in these iterations."""
    return Digest(
        "a",
        texts=[TextSeen(iteration, chars, seconds, None, None) for iteration, chars, seconds in texts],
        faults=[FaultSeen("timeout", "criticism", one, "c", 0, 0) for one in faults],
    )


def test_longer_texts_that_fail_more_often_go_together_and_the_other_way_round():
    found = correlations(analyse([digest_of([(0, 10, 9.0), (1, 200, 4.0), (2, 3_000, 1.0)], [1, 2, 2])]))
    rising = found["length of the text and faults in its iteration"]
    assert (rising.value, rising.count) == (pytest.approx(1.0), 3)
    assert found["iteration and faults in it"].value == pytest.approx(1.0)
    assert found["length of the text and seconds it took"].value == pytest.approx(-1.0)


def test_equal_values_share_their_rank():
    found = correlations(analyse([digest_of([(0, 10, 1.0), (1, 10, 2.0), (2, 30, 3.0)])]))
    # Ranks 0.5, 0.5, 2 against 0, 1, 2.
    assert found["iteration and length of its text"].value == pytest.approx(0.8660254)


def test_too_few_texts_or_texts_all_alike_tell_nothing():
    few = correlations(analyse([digest_of([(0, 10, 1.0), (1, 20, 2.0)])]))
    alike = correlations(analyse([digest_of([(0, 10, 1.0), (1, 10, 1.0), (2, 10, 1.0)])]))
    assert [one.value for one in few.values()] == [None] * 4
    assert alike["length of the text and seconds it took"].value is None
    assert {one.count for one in few.values()} == {2}


def test_real_runs_show_how_length_and_iteration_go_with_faults(storage, clock):
    texts = [taking(clock, 1.0 + number, "x" * (10 * 2**number)) for number in range(4)]
    critic = Critic("c", "more", "more", "more", timeout(), None)
    chain = chain_of(Model(*texts), storage, critics=[critic], clock=clock, max_improvement_iterations=4)
    chain.run_with_recovery()
    found = correlations(RecoveryManager(storage).analyze())
    assert {one.count for one in found.values()} == {4}
    assert found["iteration and length of its text"].value == pytest.approx(1.0)
    assert found["length of the text and seconds it took"].value == pytest.approx(1.0)
    assert found["iteration and faults in it"].value == pytest.approx(0.7745967)  # only the last one failed


# What to change ----------------------------------------------------------------------------


def judged_by(store, *critics, runs=5, validators=(), **options):
    for _ in range(runs):
        model = Model(then_priced(), then_priced(), then_priced())
        chain_of(model, store, critics=critics, validators=validators, **options).run()


def then_priced():
    return priced("text", 3.0)


def test_a_critic_that_never_changed_the_outcome_is_named_with_what_it_costs(storage):
    judge = Model(*[priced("fine", 1.0) for _ in range(5)], name="judge")
    judged_by(storage, Asking("idle", ("one",), model=judge))
    found = advice(storage, "idle")
    assert found.why == (
        "idle has never changed the outcome and costs 25% of the cost: "
        "in 5 judgements it never asked for another text"
    )
    assert (found.without, found.seen, found.saves_share) == ("idle", 5, pytest.approx(0.25))
    assert str(found) == found.why


def test_where_nothing_was_paid_its_share_is_of_the_time(storage, clock):
    for _ in range(5):
        judge = Model(taking(clock, 3.0, "fine"), name="judge")
        critic = Asking("idle", ("one",), model=judge)
        chain_of(Model(taking(clock, 1.0, "text")), storage, critics=[critic], clock=clock).run()
    assert "costs 75% of the time" in advice(storage, "idle").why


def test_a_critic_that_asked_alone_once_is_kept(storage):
    judged_by(storage, Critic("idle"))
    judged_by(storage, Critic("idle", "more"), runs=1)
    assert not [one for one in RecoveryManager(storage).suggest_configuration() if one.without]


def test_a_critic_that_only_ever_agreed_with_others_is_idle_too(storage):
    for _ in range(3):
        critics = [Critic("echo", "more"), Critic("lead", "more", "more")]
        judged_by(storage, *critics, runs=1)
    found = advice(storage, "echo")
    assert "never asked for one when nobody else did" in found.why
    assert found.without == "echo"
    assert [one.without for one in RecoveryManager(storage).suggest_configuration() if one.without] == [
        "echo"
    ]


def test_few_judgements_are_chance_and_a_passing_validator_is_left_alone(storage):
    judged_by(storage, Critic("idle"), runs=4, validators=[Validator("v")])
    assert RecoveryManager(storage).suggest_configuration() == []
    judged_by(storage, Critic("idle"), runs=1, validators=[Validator("v")])
    assert [one.without for one in RecoveryManager(storage).suggest_configuration()] == ["idle"]


def test_improvements_that_never_made_the_best_text_are_too_many():
    runs = [Digest("a", status="done", iterations=3, best=1, steps={"generation": Spent(1.0)})] * 5
    (found,) = suggest_configuration(runs)
    assert found.options == {"max_improvement_iterations": 1}
    assert (found.seen, found.saves_share) == (5, pytest.approx(10 / 20))
    assert suggest_configuration(runs[:4]) == []
    assert suggest_configuration([*runs, Digest("b", status="done", iterations=3, best=3)]) == []


def faulty(kind, *, together=0, **more):
    return Digest("a", faults=[FaultSeen(kind, "criticism", 0, "c", 0, together)], **more)


def test_rate_limits_that_several_calls_meet_together_suggest_fewer_at_once():
    (found,) = suggest_configuration([faulty("rate_limit", together=7)] * 5)
    assert (found.options, found.seen) == ({"batch_size": 4}, 5)
    assert suggest_configuration([faulty("rate_limit")] * 5) == []
    assert suggest_configuration([faulty("rate_limit", together=7)] * 5 + [Digest("b")] * 20) == []


@pytest.mark.parametrize(
    ("kind", "name", "values", "suggested"),
    [
        ("truncated", "max_tokens", (2_048, 2_048, 4_096), 2_048),
        ("context_length", "max_context_chars", (9_000, 4_000, 9_000), 4_000),
    ],
)
def test_what_has_been_room_enough_is_suggested_where_it_was_often_wanting(kind, name, values, suggested):
    def runs(success):
        return [
            faulty(kind, actions=[ActionSeen(kind, "modify_parameters", {name: one}, "x", 0.5, success)])
            for one in (*values, *values)
        ]

    (found,) = suggest_configuration(runs(success=True))
    assert (found.options, found.seen) == ({name: suggested}, 6)
    assert suggest_configuration(runs(success=False)) == []


def test_a_time_limit_that_good_answers_hardly_keep_is_raised():
    def runs(seconds):
        return [faulty("timeout", texts=[TextSeen(0, 10, seconds, None, 10.0)])] * 5

    (found,) = suggest_configuration(runs(9.0))
    assert found.options == {"timeout_s": 27.0}
    assert suggest_configuration(runs(1.0)) == []


# What confidences are worth ----------------------------------------------------------------


def test_confidences_are_compared_with_what_came_of_them():
    found = calibrate([(0.9, True), (0.9, False), (0.3, False), (0.3, False)], bins=2)
    assert found.bins == (Bin(pytest.approx(0.3), 0.0, 2), Bin(pytest.approx(0.9), 0.5, 2))
    assert found.ece == pytest.approx((0.3 + 0.4) / 2)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.09 + 0.09) / 4)
    assert (calibrate([]).count, calibrate([]).ece, calibrate([]).bins) == (0, 0.0, ())


def test_the_map_that_mends_confidences_rises_and_pools_what_does_not():
    mended = isotonic([(0.2, False), (0.4, True), (0.6, False), (0.8, True)])
    assert [mended(one) for one in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)] == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert isotonic([])(0.7) == 0.7


def test_the_calibration_of_a_store_is_that_of_its_logs(storage):
    chain_of(Model(busy(), busy(), "text"), storage, chain_id="r").run_with_recovery()
    history = RecoveryManager(storage).get_recovery_history("r")
    found = RecoveryManager(storage).analyze().calibration
    assert [one["success"] for one in history] == [False, True]
    assert found == calibrate([(one["confidence"], one["success"]) for one in history])
    assert found.count == 2


# The manager -------------------------------------------------------------------------------


def test_the_newest_runs_are_read_and_a_query_selects_among_them(storage):
    for number in range(3):
        chain_of(Model("text"), storage, chain_id=f"done{number}").run()
    with pytest.raises(ChainError):
        chain_of(Model(no_key()), storage, chain_id="failed").run()
    manager = RecoveryManager(storage)
    assert manager.analyze().runs == 4
    newest = manager.analyze(runs_max=1)
    assert (newest.runs, [one.kind for one in newest.errors]) == (1, ["auth"])
    done = manager.analyze(Query(statuses=("done",), limit=1))
    assert (done.runs, done.errors) == (3, ())


def test_a_damaged_run_is_named_and_left_out(storage, monkeypatch):
    for name in ("sound", "damaged"):
        chain_of(Model(busy(), "text"), storage, chain_id=name).run_with_recovery()
    manager = RecoveryManager(storage)
    records = manager.checkpoint_storage.records

    def damaged(chain_id):
        yield from list(records(chain_id))[:2]
        if chain_id == "damaged":
            raise DamagedRecordError(chain_id, 2, 3, "bad checksum")

    monkeypatch.setattr(manager.checkpoint_storage, "records", damaged)
    analysis = manager.analyze()
    assert (analysis.runs, analysis.unread) == (1, ("damaged",))
    assert manager.suggest_configuration() == []


def test_an_empty_store_teaches_nothing(storage):
    analysis = RecoveryManager(storage).analyze()
    assert (analysis.runs, analysis.success, analysis.errors, analysis.steps) == (0, (), (), ())
    assert RecoveryManager(storage).suggest_configuration() == []


def test_outcomes_from_outside_move_the_confidence_and_the_expected_cost(storage):
    manager = RecoveryManager(storage)

    def retry():
        found = manager.analyze_failure(None, timeout())
        return next(one for one in found if one.strategy is RecoveryStrategy.RETRY_CURRENT_STEP)

    action = retry()
    for _ in range(6):
        assert manager.record_outcome(None, timeout(), action, False, cost=0.25, seconds=4.0) == ""
    assert retry().confidence < action.confidence / 2
    manager = RecoveryManager(storage)
    assert "worked 0 of 6" in retry().evidence
    assert manager.analyze().success == ()  # no run of this store took it


def test_an_outcome_that_cannot_be_stored_is_told():
    class Full(InMemoryStorage):
        def swap(self, name, value, version):
            raise StorageError("the disk is full")

    manager = RecoveryManager(Full())
    action = manager.analyze_failure(None, timeout())[0]
    assert "the disk is full" in manager.record_outcome(None, timeout(), action, True)


def test_every_strategy_is_offered_or_it_is_said_why_not(storage):
    manager = RecoveryManager(storage)
    offered = {one.strategy for one in manager.analyze_failure(None, no_key())}
    refused = {one.strategy: one.why for one in manager.not_offered(None, no_key())}
    assert RecoveryStrategy.RETRY_CURRENT_STEP in refused
    assert offered | set(refused) == set(RecoveryStrategy)
    assert all(refused.values())
