"""The six strategies: as functions from position to position, and as what they do to a real run."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

import doubles
from doubles import (
    Critic,
    Model,
    Retriever,
    Validator,
    busy,
    chain_of,
    log,
    no_key,
    of,
    priced,
    strategies,
    wanting,
)
from sifaka.errors import ChainError, ModelError, SifakaError, UsageError
from sifaka.faults import classify
from sifaka.log.records import Faulted, Intent, Outcome, Position, Recovery, Result
from sifaka.log.state import State
from sifaka.parts import Reply
from sifaka.recovery import RecoveryAction, RecoveryManager, RecoveryStrategy, Rule
from sifaka.recovery.actions import SKIPPABLE, Move, move
from sifaka.recovery.limits import Budget, Limits, refusal, with_wait
from sifaka.recovery.ranking import PRIORS, Situation, rank
from sifaka.storage.memory import InMemoryStorage
from sifaka.thought import Document

storage = doubles.storage
S = RecoveryStrategy


def action(strategy, **parameters):
    return RecoveryAction(strategy, "by hand", 0.5, parameters)


# As functions ------------------------------------------------------------------------------

AT = Position("criticism", 2)

MOVES = {
    S.RETRY_CURRENT_STEP: Move(AT),
    S.MODIFY_PARAMETERS: Move(AT),
    S.SKIP_TO_NEXT_STEP: Move(AT, skips=("a", "b")),
    S.RESTART_ITERATION: Move(Position("generation", 2), sets_aside=True),
    S.RESTART_FROM_GENERATION: Move(Position("generation", 2, afresh=True), sets_aside=True),
    S.FULL_RESTART: Move(Position("retrieval", 0, afresh=True), sets_aside=True),
}


@pytest.mark.parametrize("strategy", S)
def test_a_strategy_is_a_function_from_position_to_position(strategy):
    assert move(strategy, AT, ["a", "b"]) == MOVES[strategy]
    assert move(strategy, AT, ["a", "b"]) == move(strategy, AT, ["a", "b"])


def test_the_first_iteration_begins_again_with_retrieval():
    assert move(S.RESTART_ITERATION, Position("validation", 0), []).to == Position("retrieval", 0)


def test_only_a_generation_cannot_be_skipped():
    assert {"retrieval", "validation", "critic_retrieval", "criticism"} == SKIPPABLE
    assert move(S.SKIP_TO_NEXT_STEP, Position("generation", 1), ["model"]) is None
    for operation in SKIPPABLE:
        assert move(S.SKIP_TO_NEXT_STEP, Position(operation, 1), ["a"]).skips == ("a",)


# In real runs ------------------------------------------------------------------------------


def stopped(storage, *, fault=None, critic_fails=None, validators=(), **options):
    """A run that stopped at the criticism of its second text."""
    model = Model(*[priced(f"text {number}") for number in range(9)])
    find = Retriever("find", ["first find"], ["second find"])
    critic = Critic("c", "more", critic_fails or KeyError("x"))
    chain = chain_of(
        model,
        storage,
        chain_id="r",
        validators=[Validator("v", True, True), *validators],
        critics=[critic, Critic("other", "more")],
        retrievers=[find],
        **options,
    )
    with pytest.raises(ChainError):
        chain.run()
    assert (model.calls, find.calls) == (2, 1)
    return chain, model, find, critic


def test_retry_calls_only_what_failed_again(storage):
    chain, model, find, critic = stopped(storage)
    assert chain.apply_recovery_action(action(S.RETRY_CURRENT_STEP))
    thought = chain.run()
    assert (thought.text, thought.iteration) == ("text 1", 1)
    assert (model.calls, find.calls, critic.calls) == (2, 1, 3)
    assert [one.part for one in of(Intent, log(storage, "r")) if one.iteration == 1].count("other") == 1


def test_skip_goes_on_without_what_failed(storage):
    chain, model, _, critic = stopped(storage)
    assert chain.apply_recovery_action(action(S.SKIP_TO_NEXT_STEP))
    thought = chain.run()
    assert (model.calls, critic.calls) == (2, 2)
    assert [(one.critic, one.skipped) for one in thought.critic_feedback] == [("c", True), ("other", False)]
    (event,) = of(Recovery, log(storage, "r"))
    assert event.skips == ("c",)
    checkpoint = [one for one in chain.get_checkpoint_history() if one.current_step == "criticism"][-1]
    assert [one.skipped for one in checkpoint.thought.critic_feedback] == [True, False]


def test_restart_iteration_writes_this_iterations_text_again_from_the_same_draft(storage):
    chain, model, find, critic = stopped(storage)
    assert chain.apply_recovery_action(action(S.RESTART_ITERATION))
    thought = chain.run()
    assert (thought.text, thought.iteration, [one.text for one in thought.history]) == (
        "text 2",
        1,
        ["text 0"],
    )
    assert (model.calls, find.calls, critic.calls) == (3, 1, 3)
    assert model.prompts[2] == model.prompts[1]
    assert thought.parent_id == thought.history[0].id


def test_restart_from_generation_writes_the_text_afresh(storage):
    chain, model, find, _ = stopped(storage)
    assert chain.apply_recovery_action(action(S.RESTART_FROM_GENERATION))
    thought = chain.run()
    assert (thought.text, thought.iteration, [one.text for one in thought.history]) == (
        "text 2",
        1,
        ["text 0"],
    )
    assert find.calls == 1
    assert model.prompts[2] == model.prompts[0]
    assert (thought.parent_id, thought.model_prompt) == (None, model.prompts[2])


def test_the_iteration_after_a_text_written_afresh_improves_on_that_text(storage):
    chain, model, _, _ = stopped(storage)
    chain.with_options(on_plan_change="accept").improve_with(wanting(2, "third"))
    chain.apply_recovery_action(action(S.RESTART_FROM_GENERATION))
    thought = chain.run()
    assert (thought.iteration, thought.text) == (2, "text 3")
    assert "text 2" in model.prompts[3]


def test_full_restart_begins_anew_and_what_was_paid_stays_counted(storage):
    chain, model, find, _ = stopped(storage)
    assert chain.apply_recovery_action(action(S.FULL_RESTART))
    thought = chain.run()
    assert (thought.text, thought.iteration, thought.history) == ("text 2", 0, ())
    assert find.calls == 2
    assert "second find" in model.prompts[2]
    assert thought.cost == 3.0
    assert [one.text for one in thought.pre_generation_context] == ["second find"]


def test_modify_parameters_tries_again_with_other_settings(storage):
    chain, model, _, critic = stopped(storage)
    assert chain.apply_recovery_action(action(S.MODIFY_PARAMETERS, temperature=0.1))
    thought = chain.run()
    assert (thought.text, model.calls, critic.calls) == ("text 1", 2, 3)
    assert chain.get_checkpoint_history()[-1].metadata["parameters"] == {"temperature": 0.1}


@pytest.mark.parametrize("strategy", S)
def test_every_action_is_recorded_with_its_outcome(storage, strategy):
    chain, *_ = stopped(storage)
    assert chain.apply_recovery_action(action(strategy))
    chain.run()
    records = log(storage, "r")
    (event,) = of(Recovery, records)
    assert (event.strategy, event.chosen_by, event.operation, event.iteration, event.part) == (
        strategy.value,
        "user",
        "criticism",
        1,
        "c",
    )
    assert (event.error_kind, event.error_class) == ("other", "KeyError")
    (outcome,) = of(Outcome, records)
    assert outcome.success
    assert records[outcome.recovery] == event
    (told,) = RecoveryManager(storage).get_recovery_history("r")
    assert (told["action"], told["success"]) == (strategy.value, True)


@pytest.mark.parametrize("strategy", [S.RESTART_ITERATION, S.RESTART_FROM_GENERATION, S.FULL_RESTART])
def test_what_a_restart_costs_is_in_its_outcome(storage, strategy):
    chain, *_ = stopped(storage)
    chain.apply_recovery_action(action(strategy))
    chain.run()
    assert RecoveryManager(storage).get_recovery_history("r")[0]["cost"] == 1.0


def test_an_action_that_did_not_help_is_recorded_as_such(storage):
    chain, *_ = stopped(storage)
    chain.apply_recovery_action(action(S.RETRY_CURRENT_STEP))
    chain.with_options(on_plan_change="accept")
    broken = chain_of(
        Model(),
        storage,
        chain_id="r",
        validators=[Validator("v")],
        critics=[Critic("c", KeyError("x")), Critic("other")],
        retrievers=[Retriever("find")],
    )
    with pytest.raises(ChainError):
        broken.run()
    assert RecoveryManager(storage).get_recovery_history("r")[0]["success"] is False


def test_history_after_restarts_holds_what_led_to_the_result(storage):
    chain, *_ = stopped(storage)
    chain.apply_recovery_action(action(S.RESTART_ITERATION))
    chain.with_options(on_plan_change="accept").improve_with(wanting(3, "third"))
    thought = chain.run()
    assert [one.text for one in (*thought.history, thought)] == ["text 0", "text 2", "text 3", "text 4"]
    assert [one.parent_id for one in thought.history][1:] == [one.id for one in thought.history][:-1]


# Parameters --------------------------------------------------------------------------------


def modified(storage, chain, **parameters):
    """Stops a run in its first call, then goes on with these parameters set."""
    with pytest.raises(ChainError):
        chain.run()
    assert chain.apply_recovery_action(action(S.MODIFY_PARAMETERS, **parameters))
    thought = chain.run()
    recorded = of(Recovery, log(storage, chain.chain_id))[-1].parameters
    assert recorded == parameters
    assert RecoveryManager(storage).get_recovery_history(chain.chain_id)[-1]["parameters"] == parameters
    return thought


@pytest.mark.parametrize("name", ["temperature", "max_tokens", "top_p"])
def test_a_models_option_reaches_the_next_call_and_is_recorded(storage, name):
    value = {"temperature": 0.25, "max_tokens": 7, "top_p": 0.5}[name]
    model = Model(KeyError("x"))
    modified(storage, chain_of(model, storage, chain_id="r"), **{name: value})
    assert model.options == [{}, {name: value}]
    assert [one.options for one in of(Intent, log(storage, "r"))] == [None, {name: value}]


def test_it_reaches_all_later_calls_too(storage):
    model = Model(KeyError("x"))
    chain = chain_of(model, storage, critics=[wanting(2), doubles.Asking("a", ["why"])])
    modified(storage, chain, temperature=0.25)
    assert model.calls == 7
    assert model.options[1:] == [{"temperature": 0.25}] * 6


def test_it_overlays_what_the_chain_had_set(storage):
    model = Model(KeyError("x"))
    chain = chain_of(model, storage).with_options(temperature=0.9, max_tokens=9)
    modified(storage, chain, temperature=0.25)
    assert model.options[1] == {"temperature": 0.25, "max_tokens": 9}


def test_of_two_actions_the_later_ones_parameters_hold(storage):
    model = Model(KeyError("x"))
    chain = chain_of(model, storage, chain_id="r")
    with pytest.raises(ChainError):
        chain.run()
    chain.apply_recovery_action(action(S.MODIFY_PARAMETERS, temperature=0.25, max_tokens=7))
    chain.apply_recovery_action(action(S.MODIFY_PARAMETERS, temperature=0.5))
    chain.run()
    assert model.options[1] == {"temperature": 0.5, "max_tokens": 7}


def test_a_parameter_leaks_into_no_other_run(storage):
    model = Model(KeyError("x"))
    chain = chain_of(model, storage)
    modified(storage, chain, temperature=0.25, batch_size=1)
    chain.with_prompt("Something else.").run()
    chain_of(model, storage).run()
    assert model.options == [{}, {"temperature": 0.25}, {}, {}]
    assert chain.get_checkpoint_history()[-1].metadata["parameters"] == {}


def test_a_parameter_is_still_set_after_a_resume(storage):
    model = Model(KeyError("x"), "text", KeyError("y"))
    chain = chain_of(model, storage, chain_id="r", critics=[wanting(4)], max_improvement_iterations=4)
    with pytest.raises(ChainError):
        modified(storage, chain, temperature=0.25)
    last = Model()
    chain_of(last, storage, chain_id="r", critics=[wanting(4)], max_improvement_iterations=4).run()
    assert last.options == [{"temperature": 0.25}] * 4


def test_a_timeout_bounds_the_next_call(storage):
    never = doubles.Event()

    def model(prompt):
        if not calls:
            calls.append(prompt)
            raise KeyError("x")
        never.wait()
        return "late"

    calls = []
    chain = chain_of(model, storage, chain_id="r")
    with pytest.raises(ChainError) as caught:
        modified(storage, chain, timeout_s=0.02)
    never.set()
    assert caught.value.fault.kind == "timeout"


def test_a_timeout_is_handed_to_a_model_that_takes_one(storage):
    seen = []

    def model(prompt, timeout_s=None):
        seen.append(timeout_s)
        if len(seen) == 1:
            raise KeyError("x")
        return "text"

    modified(storage, chain_of(model, storage), timeout_s=9.0)
    assert seen == [None, 9.0]


@pytest.mark.parametrize(
    ("parameters", "kept", "left_out"),
    [
        ({"max_documents": 1}, ["alpha beta"], ["gamma", "epsilon"]),
        ({"max_documents": 0}, [], ["Context", "alpha"]),
        ({"max_context_chars": 16}, ["[1] alpha beta", "[2] gamma"], ["delta", "epsilon"]),
        ({"max_context_chars": 10}, ["alpha beta"], ["gamma"]),
        ({"max_context_chars": 0}, [], ["Context"]),
    ],
)
def test_documents_are_left_out_of_the_next_prompt(storage, parameters, kept, left_out):
    model = Model(KeyError("x"))
    find = Retriever("find", ["alpha beta", "gamma delta", "epsilon"])
    thought = modified(storage, chain_of(model, storage, retrievers=[find]), **parameters)
    assert "epsilon" in model.prompts[0]
    for piece in kept:
        assert piece in model.prompts[1]
    for piece in left_out:
        assert piece not in model.prompts[1]
    assert thought.model_prompt == model.prompts[1]
    assert len(thought.pre_generation_context) == 3


def test_a_context_that_has_no_spaces_is_cut_and_not_dropped():
    model = Model()
    chain_of(model, retrievers=[Retriever("find", ["倫理学の基礎について"])]).with_options(
        max_context_chars=5
    ).run()
    assert "倫理学" in model.prompts[0]


def test_batch_size_bounds_how_many_parts_run_together(storage):
    running, most = [], []
    both = doubles.Barrier(2)

    def judge(thought):
        running.append(1)
        most.append(len(running))
        if together:
            both.wait()
        running.pop()
        return True

    together = True
    model = Model("text", KeyError("x"))
    chain = chain_of(model, storage, validators=[judge, judge], critics=[wanting(1)])
    with pytest.raises(ChainError):
        chain.run()
    assert max(most) == 2
    together = False
    chain.apply_recovery_action(action(S.MODIFY_PARAMETERS, batch_size=1))
    most.clear()
    chain.run()
    assert max(most) == 1


@pytest.mark.parametrize(
    ("strictness", "passing", "improvements"),
    [(1.0, 3, 1), (0.5, 2, 0), (0.5, 1, 1), (0.67, 2, 1), (0.66, 2, 0), (0.0, 0, 0)],
)
def test_validation_strictness_is_the_share_that_must_pass(storage, strictness, passing, improvements):
    verdicts = [Validator(f"v{one}", *[one < passing] * 9) for one in range(4 if strictness == 1.0 else 3)]
    chain = chain_of(
        Model(KeyError("x")), storage, validators=verdicts, max_improvement_iterations=1, chain_id="r"
    )
    modified(storage, chain, validation_strictness=strictness)
    generated = [one for one in of(Result, log(storage, "r")) if one.text is not None]
    assert len(generated) == improvements + 1


def test_partial_results_are_kept_where_that_is_set(storage):
    model = Model(Reply("cut", finish_reason="length"), Reply("cut again", finish_reason="length"))
    thought = modified(storage, chain_of(model, storage), allow_partial_results=True)
    assert thought.text == "cut again"


def test_the_model_is_another_one_from_the_next_call_on(storage, monkeypatch):
    made = []

    def create_model(spec):
        made.append(spec)
        return other

    other, model = Model("other 0", name="other"), Model(KeyError("x"))
    monkeypatch.setattr("sifaka.models.base.create_model", create_model)
    chain = chain_of(model, storage, chain_id="r", critics=[doubles.Asking("a", ["why"])])
    thought = modified(storage, chain, model="local:other")
    assert thought.text == "other 0"
    assert (model.calls, other.calls, set(made)) == (1, 2, {"local:other"})
    assert [one.model for one in of(Intent, log(storage, "r"))] == ["scripted", "other", "other"]
    chain.with_prompt("Something else.").run()
    assert model.calls == 3


def test_options_that_a_model_cannot_take_are_recorded_as_not_applied(storage):
    fails = []

    def model(prompt):
        return doubles.fail_once(fails, KeyError("x"), "text")

    modified(storage, chain_of(model, storage, chain_id="r"), temperature=0.25)
    assert of(Result, log(storage, "r"))[0].not_applied == ("temperature",)


BAD = [
    {"temperature": "hot"},
    {"max_tokens": -5},
    {"batch_size": 0},
    {"max_documents": "three"},
    {"validation_strictness": "low"},
    {"timeout_s": "soon"},
    {"max_improvement_iterations": None},
    {"allow_partial_results": "yes"},
    {"temperature": object()},
]


@pytest.mark.parametrize("parameters", BAD, ids=lambda one: next(iter(one)))
def test_a_parameter_that_makes_no_sense_is_refused_and_nothing_is_recorded(parameters):
    storage = InMemoryStorage()
    chain = chain_of(Model(KeyError("x")), storage, chain_id="r", validators=[Validator()])
    with pytest.raises(ChainError):
        chain.run()
    before = log(storage, "r")
    with pytest.raises(UsageError, match=next(iter(parameters))):
        chain.apply_recovery_action(action(S.MODIFY_PARAMETERS, **parameters))
    assert log(storage, "r") == before
    assert chain.run().text == "text 1"


@pytest.mark.parametrize("parameters", BAD, ids=lambda one: next(iter(one)))
def test_whatever_parameters_were_applied_the_log_can_be_read(parameters):
    storage = InMemoryStorage()
    chain = chain_of(Model(KeyError("x")), storage, chain_id="r", validators=[Validator()])
    with pytest.raises(ChainError):
        chain.run()
    for work in (lambda: chain.apply_recovery_action(action(S.MODIFY_PARAMETERS, **parameters)), chain.run):
        with suppress(SifakaError):
            work()
    assert chain.get_checkpoint_history()
    assert chain.get_thought() is not None


# What recovery chooses ---------------------------------------------------------------------


def ranked(kind, operation="criticism", iteration=1, **options):
    fault = classify(ModelError("it failed", kind=kind))
    at = Situation(fault, Position(operation, iteration), "part", options, prompt_chars=100)
    return rank(at)


@pytest.mark.parametrize("kind", PRIORS)
def test_candidates_come_best_first_with_reasons(kind):
    found = ranked(kind, timeout_s=1.0, temperature=1.0)
    assert found
    # By what they cost for what they promise, not by the promise alone: see the ranking's own tests.
    assert all(0 < one.confidence < 1 for one in found)
    assert all(one.description and one.evidence and one.applies_when for one in found)
    assert all(0 < one.confidence < 1 for one in found)


@pytest.mark.parametrize("kind", PRIORS)
def test_a_generation_is_never_to_be_skipped(kind):
    assert S.SKIP_TO_NEXT_STEP not in [one.strategy for one in ranked(kind, "generation")]


@pytest.mark.parametrize("kind", ["auth", "permission", "not_found", "invalid_request", "quota_exhausted"])
def test_nothing_retries_what_cannot_pass(kind):
    assert [one.strategy for one in ranked(kind)] == [S.SKIP_TO_NEXT_STEP]
    assert ranked(kind, "generation") == []


def test_what_was_tried_in_vain_is_trusted_less():
    fault = classify(busy())
    fresh = rank(Situation(fault, AT, "c", {}))[0]
    tried = rank(Situation(fault, AT, "c", {}, tried=[fresh.strategy.value] * 2))
    again = next(one for one in tried if one.strategy is fresh.strategy)
    assert again.confidence == pytest.approx(fresh.confidence * 1.2 / 3.2, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "options", "parameters"),
    [
        ("timeout", {"timeout_s": 10.0}, {"timeout_s": 20.0}),
        ("truncated", {"max_tokens": 100}, {"max_tokens": 200}),
        ("context_length", {"max_context_chars": 80}, {"max_context_chars": 40}),
        ("context_length", {}, {"max_context_chars": 50}),
        ("malformed_output", {"temperature": 0.8}, {"temperature": 0.4}),
        ("out_of_memory", {}, {"batch_size": 1, "max_context_chars": 50}),
    ],
)
def test_what_is_modified_fits_the_fault(kind, options, parameters):
    found = next(
        one
        for one in ranked(kind, **options)
        if one.strategy is S.MODIFY_PARAMETERS and set(one.parameters) == set(parameters)
    )
    assert found.parameters == parameters


SAVED = {
    "retry": (busy(), None, ["retry_current_step"]),
    "shorten": (
        ModelError("prompt is too long", kind="context_length"),
        {"max_context_chars": 12},
        ["modify_parameters"],
    ),
    "more room": (Reply("cut", finish_reason="length"), {"max_tokens": 1024}, ["modify_parameters"]),
}


@pytest.mark.parametrize("case", SAVED)
def test_a_run_recovers_by_itself(storage, case):
    fault, parameters, applied = SAVED[case]
    find = Retriever("find", ["x" * 12 + " " + "y" * 11])
    chain = chain_of(Model(fault), storage, chain_id="r", retrievers=[find])
    assert chain.run_with_recovery().text == "text 1"
    records = log(storage, "r")
    assert strategies(records) == applied
    assert of(Recovery, records)[0].chosen_by == "ranking"
    assert of(Recovery, records)[0].parameters == (parameters or {})
    assert of(Outcome, records)[0].success


@pytest.mark.parametrize(
    ("where", "kind"), [("retrievers", Retriever), ("validators", Validator), ("critics", Critic)]
)
def test_a_part_that_cannot_work_is_skipped(storage, where, kind):
    fails = kind("part", *[no_key()] * 9)
    chain = chain_of(Model(), storage, chain_id="r", max_improvement_iterations=0, **{where: [fails]})
    chain.with_options(critique_final=True).run_with_recovery()
    assert strategies(log(storage, "r")) == ["skip_to_next_step"]
    assert fails.calls == 1


def test_a_bad_text_is_written_afresh(storage):
    critic = Critic("c", *[ModelError("no json", kind="malformed_output")] * 4)
    chain = chain_of(Model(), storage, chain_id="r", critics=[critic])
    thought = chain.run_with_recovery()
    applied = strategies(log(storage, "r"))
    assert applied[0] == "retry_current_step"
    assert "restart_from_generation" in applied
    assert thought.text == "text 1"


def both_fail(first, second):
    """A run of two async critics, which answer in this order."""

    async def a(thought):
        calls["a"] += 1
        return first(calls["a"])

    async def b(thought):
        calls["b"] += 1
        return second(calls["b"])

    calls = {"a": 0, "b": 0}
    return chain_of(Model(), critics=[a, b]), calls


def fine():
    return {"needs_improvement": False, "message": "fine"}


def raises(error):
    raise error


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_faults_the_one_that_will_not_pass_chooses_the_action(swapped):
    def hopeless(_):
        return raises(no_key())

    def passing(call):
        return raises(busy()) if call == 1 else fine()

    chain, calls = both_fail(passing, hopeless) if swapped else both_fail(hopeless, passing)
    thought = asyncio.run(chain.arun_with_recovery())
    history = RecoveryManager(chain._storage).get_recovery_history(chain.chain_id)
    assert (history[0]["action"], history[0]["error_type"]) == ("skip_to_next_step", "auth")
    assert calls["b" if swapped else "a"] == 1
    assert sum(one.skipped for one in thought.critic_feedback) >= 1


def test_a_part_that_would_recover_is_not_skipped_with_one_that_will_not():
    chain, calls = both_fail(lambda _: raises(no_key()), lambda call: raises(busy()) if call == 1 else fine())
    thought = asyncio.run(chain.arun_with_recovery())
    assert [one.skipped for one in thought.critic_feedback] == [True, False]
    assert calls == {"a": 1, "b": 2}


def test_suggestions_speak_of_the_fault_that_is_reported():
    chain, _ = both_fail(lambda _: raises(no_key()), lambda _: raises(busy()))
    with pytest.raises(ChainError) as caught:
        asyncio.run(chain.arun())
    assert caught.value.fault.kind == "auth"
    assert [one.strategy for one in caught.value.suggestions] == [S.SKIP_TO_NEXT_STEP]


# Waiting and refusing ----------------------------------------------------------------------


def faulted(error, attempt=1):
    return Faulted(0.0, -1, "criticism", 1, "c", classify(error), attempt)


def test_a_stated_wait_is_obeyed_with_jitter_and_uses_up_nothing():
    first = ranked("rate_limit")[0]
    waits = [with_wait(first, [faulted(busy(20.0))], f"seed {one}") for one in range(50)]
    assert all(20.0 <= one.delay_s <= 20.25 for one in waits)
    assert len({one.delay_s for one in waits}) > 10
    assert not any(one.counts for one in waits)


@pytest.mark.parametrize(("attempt", "most"), [(1, 1.0), (2, 2.0), (4, 8.0), (10, 60.0)])
def test_backoff_is_full_jitter(attempt, most):
    first = ranked("rate_limit")[0]
    faults = [faulted(busy(), attempt)]
    waits = [with_wait(first, faults, f"seed {one}").delay_s for one in range(200)]
    assert max(waits) <= most
    assert min(waits) < most / 4 < most * 3 / 4 < max(waits)
    assert with_wait(first, faults, "seed 0").delay_s == waits[0]
    assert all(with_wait(first, faults, str(one)).counts for one in range(5))


def test_of_several_waits_the_longest_is_waited():
    first = ranked("rate_limit")[0]
    several = [faulted(busy(5.0)), faulted(busy(20.0)), faulted(busy(1.0))]
    found = with_wait(first, several, "seed")
    assert 20.0 <= found.delay_s <= 20.25
    assert not found.counts
    assert with_wait(first, [*several, faulted(busy())], "seed").counts


def test_what_will_not_pass_is_not_waited_for():
    assert with_wait(ranked("rate_limit")[0], [faulted(no_key())], "seed").delay_s == 0.0
    for strategy in (S.SKIP_TO_NEXT_STEP, S.RESTART_ITERATION, S.FULL_RESTART):
        assert with_wait(action(strategy), [faulted(busy(20.0))], "seed").delay_s == 0.0


def refused(strategy, **state):
    found = State("r")
    for name, value in state.items():
        setattr(found, name, value)
    return refusal(action(strategy), found, "c", Limits(), Budget(), 0.0)


def test_what_is_refused():
    assert refused(S.RETRY_CURRENT_STEP) is None
    assert "3 times" in refused(S.RETRY_CURRENT_STEP, attempts={"c": 3})
    assert "3 times" in refused(S.MODIFY_PARAMETERS, attempts={"c": 3})
    assert refused(S.RETRY_CURRENT_STEP, attempts={"other": 3}) is None
    assert refused(S.SKIP_TO_NEXT_STEP, attempts={"c": 3}) is None
    assert "8 recovery actions" in refused(S.RETRY_CURRENT_STEP, actions=8)
    assert refused(S.SKIP_TO_NEXT_STEP, actions=8) is None  # a skip ends its part
    assert "2 times" in refused(S.FULL_RESTART, restarts=2)
    assert refused(S.RESTART_ITERATION, restarts=2) is None
    assert "waited" in refused(S.RETRY_CURRENT_STEP, waited_s=3600.1)


def test_the_documents_of_a_prompt_are_what_a_shorter_context_halves():
    chain = chain_of(Model(), retrievers=[Retriever("find", [Document("x" * 60), Document("y" * 40)])])
    chain.run()
    error = ModelError("too long", kind="context_length")
    manager = RecoveryManager(chain._storage)
    found = manager.analyze_failure(chain.get_checkpoint_history()[-1], error)
    assert found[0].parameters == {"max_context_chars": 50}
    assert manager.analyze_failure(None, busy())[0].strategy is S.RETRY_CURRENT_STEP


# Rules of one's own ------------------------------------------------------------------------


def test_a_chain_recovers_by_a_rule_of_its_own(storage):
    temperatures = []

    def model(prompt, temperature=0.9):
        temperatures.append(temperature)
        if temperature > 0.5:
            raise ModelError("no JSON", kind="malformed_output")
        return "{}"

    cold = Rule("malformed_output", S.MODIFY_PARAMETERS, 0.99, {"temperature": 0.1}, why="ours")
    chain = chain_of(model, storage, chain_id="r").recover_with(cold)
    assert chain.run_with_recovery().text == "{}"
    assert temperatures == [0.9, 0.1]
    assert of(Recovery, log(storage, "r"))[0].parameters == {"temperature": 0.1}


def test_a_rule_without_confidence_takes_an_action_away(storage):
    never = Rule("rate_limit", S.RETRY_CURRENT_STEP, 0.0, why="we never wait")
    model = Model(doubles.busy())
    with pytest.raises(ChainError) as caught:
        chain_of(model, storage).recover_with(never).run_with_recovery()
    assert model.calls == 1
    assert S.RETRY_CURRENT_STEP not in [one.strategy for one in caught.value.suggestions]


def test_a_ranking_of_ones_own_decides_the_order(storage):
    ours = []

    def last_first(situation, actions):
        ours.extend(actions)
        return list(reversed(actions))

    chain = chain_of(Model(ModelError("?", kind="timeout")), storage, chain_id="r").recover_with(
        order=last_first
    )
    assert chain.with_options(timeout_s=9.0).run_with_recovery().text
    taken = of(Recovery, log(storage, "r"))[0]
    assert len(ours) >= 2
    assert (taken.description, taken.parameters) == (ours[-1].description, ours[-1].parameters)
    assert taken.description != ours[0].description


def test_an_order_that_leads_nowhere_ends_in_a_clear_error(storage):
    def skip(situation, actions):
        return [RecoveryAction(S.SKIP_TO_NEXT_STEP, "skip the text", 0.5)]

    chain = chain_of(Model(ModelError("?", kind="timeout")), storage).recover_with(order=skip)
    with pytest.raises(ChainError, match="leads nowhere"):
        chain.run_with_recovery()


def test_what_is_no_rule_is_refused():
    with pytest.raises(UsageError):
        chain_of(Model()).recover_with(Rule("no such kind", S.RETRY_CURRENT_STEP, 0.5))
