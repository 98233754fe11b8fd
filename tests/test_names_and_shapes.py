"""The names and shapes that users write down: they must not change by accident."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest

import doubles
from doubles import AsyncModel, Critic, Model, Retriever, Validator, chain_of, died, log, of, priced
from sifaka.chain import Chain
from sifaka.errors import ChainError
from sifaka.faults import classify
from sifaka.log.checkpoint import ChainCheckpoint
from sifaka.log.records import STATUSES, STEPS, Intent, Reached, Result, Status
from sifaka.recovery import RecoveryAction, RecoveryManager, RecoveryStrategy
from sifaka.storage.cached import CachedStorage
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.clock import FakeClock
from sifaka.thought import CriticFeedback, Document, Thought, ValidationResult

storage = doubles.storage


# The chain ---------------------------------------------------------------------------------


def test_the_constructor_takes_two_positions_and_the_rest_by_keyword():
    found = inspect.signature(Chain.__init__).parameters
    defaults = {name: one.default for name, one in found.items() if name != "self"}
    assert defaults == {
        "model": None,
        "prompt": None,
        "checkpoint_storage": None,
        "max_improvement_iterations": 3,
        "always_apply_critics": True,
        "chain_id": None,
        "durability": "step",
        "on_doubt": "repeat",
        "budget": None,
        "clock": None,
    }
    keywords = [name for name, one in found.items() if one.kind is one.KEYWORD_ONLY]
    assert keywords == list(defaults)[2:]


def test_what_configures_a_chain_changes_it_and_returns_it():
    chain = Chain()
    assert chain.with_model(Model()) is chain
    assert chain.with_prompt("Write.") is chain
    assert chain.with_system_prompt("Be brief.") is chain
    assert chain.with_model_retrievers([Retriever()]) is chain
    assert chain.with_critic_retrievers([Retriever()]) is chain
    assert chain.validate_with(Validator()) is chain
    assert chain.improve_with(Critic()) is chain
    assert chain.with_options(temperature=0.5) is chain
    assert chain.run().text == "text 0"


@pytest.mark.parametrize(
    "name",
    ["run", "arun", "run_with_recovery", "arun_with_recovery", "stream", "astream", "resume"],
)
def test_the_ways_to_run_a_chain(name):
    assert callable(getattr(Chain, name))


def test_a_chain_says_its_id():
    assert Chain(chain_id="mine").chain_id == "mine"
    assert Chain().chain_id != Chain().chain_id


def test_everyday_names_are_importable_from_the_package():
    import sifaka

    assert sifaka.Chain is Chain
    assert sifaka.RecoveryStrategy is RecoveryStrategy


# Stores ------------------------------------------------------------------------------------


def test_a_url_is_opened_once_and_shared(tmp_path):
    url = f"sqlite:///{tmp_path}/runs.db"
    first = chain_of(Model(), url, chain_id="shared")
    first.run()
    model = Model()
    assert chain_of(model, url, chain_id="shared").run().text == "text 0"
    assert model.calls == 0
    assert RecoveryManager(url).checkpoint_storage is first._storage


def test_a_relative_and_an_absolute_path_name_one_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chain_of(Model(), "sqlite:///runs.db", chain_id="r").run()
    assert (tmp_path / "runs.db").exists()
    again = chain_of(Model("other"), f"sqlite:///{tmp_path}/runs.db", chain_id="r")
    assert again.run().text == "text 0"


def test_the_memory_url_is_one_store_a_process():
    chain = chain_of(Model(), "memory://", chain_id="in-the-process's-memory")
    chain.run()
    again = chain_of(Model("other"), "memory://", chain_id="in-the-process's-memory")
    assert again.run().text == "text 0"


def test_without_a_store_a_chain_remembers_for_itself_alone():
    chain_of(Model(), chain_id="same").run()
    assert chain_of(Model("other"), chain_id="same").run().text == "other"


def test_the_tiered_form_of_a_store_is_a_store():
    tiers = CachedCheckpointStorage(CachedStorage(memory_storage=InMemoryStorage()))
    chain = chain_of(Model(), tiers)
    chain.run()
    assert tiers.get_storage_stats()["chains"] == {"done": 1}


# Models ------------------------------------------------------------------------------------


class OnlyAsync:
    async def agenerate(self, prompt):
        return f"async {prompt}"


def plain(prompt):
    return f"plain {prompt}"


async def asynchronous(prompt):
    return f"coroutine {prompt}"


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Model(), "text 0"),
        (AsyncModel(), "text 0"),
        (OnlyAsync(), "async Write."),
        (plain, "plain Write."),
        (asynchronous, "coroutine Write."),
        (lambda prompt: prompt.upper(), "WRITE."),
    ],
    ids=["generate", "async generate", "agenerate", "callable", "async callable", "lambda"],
)
def test_a_model_is_any_of_these(model, text):
    assert chain_of(model).run().text == text


def test_options_reach_a_model_as_the_keywords_it_accepts(storage):
    seen = []

    def model(prompt, temperature=None):
        seen.append(temperature)
        return "text"

    chain = chain_of(model, storage).with_options(temperature=0.3, top_p=0.9)
    chain.run()
    assert seen == [0.3]
    assert of(Result, log(storage, chain.chain_id))[0].not_applied == ("top_p",)
    assert of(Intent, log(storage, chain.chain_id))[0].options == {"temperature": 0.3, "top_p": 0.9}


# Parts -------------------------------------------------------------------------------------


class Nameless:
    def validate(self, thought):
        return True

    def critique(self, thought):
        return {"needs_improvement": False, "message": ""}

    def retrieve(self, query):
        return []


def test_missing_names_are_made_from_the_class_and_unique_in_the_chain(storage):
    chain = chain_of(
        Model(),
        storage,
        validators=[Nameless(), Nameless()],
        critics=[Nameless()],
        retrievers=[Nameless()],
    )
    thought = chain.run()
    names = [one.validator for one in thought.validation_results]
    names += [one.critic for one in thought.critic_feedback]
    names += [one.part for one in of(Result, log(storage, chain.chain_id)) if one.operation == "retrieval"]
    assert len(set(names)) == 4
    assert all(name.startswith("Nameless") for name in names)


def test_callables_serve_as_parts():
    def long_enough(thought):
        return len(thought.text) > 3

    def content(thought):
        return {"needs_improvement": False, "message": "good"}

    def find(query):
        return ["a document"]

    thought = chain_of(Model(), validators=[long_enough], critics=[content], retrievers=[find]).run()
    assert thought.validation_results == (ValidationResult(True, validator="long_enough"),)
    assert thought.critic_feedback == (CriticFeedback(False, "good", critic="content"),)
    assert thought.pre_generation_context == (Document("a document"),)


def test_two_parts_of_one_name_are_told_apart():
    thought = chain_of(Model(), validators=[Validator("same"), Validator("same")]).run()
    assert len({one.validator for one in thought.validation_results}) == 2


def test_a_part_may_be_called_model():
    thought = chain_of(Model(), critics=[Critic("model", "more")]).run()
    assert (thought.text, thought.iteration) == ("text 1", 1)


def test_the_shapes_of_verdicts_and_feedback():
    assert ValidationResult(True) == ValidationResult(
        passed=True, message="", score=None, issues=(), suggestions=()
    )
    assert CriticFeedback(True, "why").issues == ()
    assert CriticFeedback(needs_improvement=True, message="why", suggestions=("a",), confidence=0.5)


# Recovery ----------------------------------------------------------------------------------


def test_the_six_strategies():
    assert {one.name: one.value for one in RecoveryStrategy} == {
        "RETRY_CURRENT_STEP": "retry_current_step",
        "SKIP_TO_NEXT_STEP": "skip_to_next_step",
        "RESTART_ITERATION": "restart_iteration",
        "RESTART_FROM_GENERATION": "restart_from_generation",
        "MODIFY_PARAMETERS": "modify_parameters",
        "FULL_RESTART": "full_restart",
    }


def test_a_recovery_action_needs_three_values_and_takes_parameters_as_the_fourth():
    action = RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5)
    assert (action.parameters, isinstance(action.applies_when, str)) == ({}, True)
    strategy = RecoveryStrategy.MODIFY_PARAMETERS
    action = RecoveryAction(
        strategy=strategy, description="cooler", confidence=0.5, parameters={"temperature": 0.1}
    )
    assert action.parameters == {"temperature": 0.1}
    with pytest.raises(ValueError, match="from 0 to 1"):
        RecoveryAction(strategy, "too sure", 1.5)


def test_a_fault_says_kind_temper_and_wait():
    fault = classify("slow down", status=429, headers={"retry-after": "7"}, body=None)
    assert (fault.kind, fault.transient, fault.retry_after_s) == ("rate_limit", True, 7.0)


def test_the_recovery_history_is_dicts(storage):
    model = Model("first", doubles.busy(2.0), "second")
    chain = chain_of(model, storage, critics=[Critic("critic", "more")])
    chain.run_with_recovery()
    (event,) = RecoveryManager(storage).get_recovery_history(chain.chain_id)
    assert event["action"] == "retry_current_step"
    assert event["error_type"] == "rate_limit"
    assert event["error_class"] == "ModelError"
    assert isinstance(event["timestamp"], datetime)
    assert (event["step"], event["iteration"], event["part"]) == ("generation", 1, "model")
    assert 0 < event["confidence"] <= 1
    assert event["success"] is True
    assert event["cost"] == 0.0
    assert event["seconds"] >= 2.0


def test_the_success_of_an_action_is_none_while_it_is_open(storage):
    chain = chain_of(Model(KeyError("x")), storage)
    with pytest.raises(ChainError):
        chain.run()
    action = RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5)
    assert chain.apply_recovery_action(action) is True
    manager = RecoveryManager(storage)
    assert [one["success"] for one in manager.get_recovery_history(chain.chain_id)] == [None]
    chain.run()
    assert [one["success"] for one in manager.get_recovery_history(chain.chain_id)] == [True]


def test_no_action_stays_open_when_its_run_is_done(storage):
    class Failing(Critic):
        def critique(self, thought):
            raise doubles.no_key()

    validator = Validator("validator", False)
    chain = chain_of(
        Model(), storage, validators=[validator], critics=[Failing()], always_apply_critics=False
    )
    with pytest.raises(ChainError):
        chain.run()
    chain.apply_recovery_action(RecoveryAction(RecoveryStrategy.RESTART_FROM_GENERATION, "afresh", 0.5))
    assert chain.run().passed
    (event,) = RecoveryManager(storage).get_recovery_history(chain.chain_id)
    assert event["success"] is True


def test_the_history_of_a_run_that_is_not_there_is_empty(storage):
    assert RecoveryManager(storage).get_recovery_history("nobody") == []


# Checkpoints -------------------------------------------------------------------------------


def test_a_checkpoint_has_these_eleven_fields():
    assert set(ChainCheckpoint.__struct_fields__) == {
        "checkpoint_id",
        "chain_id",
        "timestamp",
        "current_step",
        "iteration",
        "thought",
        "performance_data",
        "recovery_point",
        "completed_validators",
        "completed_critics",
        "metadata",
    }


def test_checkpoints_stand_before_and_after_each_operation_in_the_order_of_time(storage):
    chain = chain_of(
        Model(),
        storage,
        validators=[Validator("v")],
        critics=[Critic("c", "more")],
        retrievers=[Retriever()],
    )
    chain.with_critic_retrievers([Retriever("for critics")])
    chain.run()
    history = chain.get_checkpoint_history()
    seen = [(one.current_step, one.iteration, one.recovery_point) for one in history]
    assert seen == [
        ("initialization", 0, "retrieval"),
        ("pre_retrieval", 0, "retrieval"),
        ("pre_retrieval", 0, "generation"),
        ("generation", 0, "validation"),
        ("validation", 0, "critic_retrieval"),
        ("pre_criticism", 0, "criticism"),
        ("criticism", 0, "generation"),
        ("generation", 1, "validation"),
        ("validation", 1, "critic_retrieval"),
        ("pre_criticism", 1, "criticism"),
        ("criticism", 1, "complete"),
        ("complete", 1, "complete"),
    ]
    assert [one.timestamp for one in history] == sorted(one.timestamp for one in history)
    assert {one.current_step for one in history} == set(STEPS)
    assert len({one.checkpoint_id for one in history}) == len(history)


def test_a_checkpoint_shows_the_thought_as_it_was(storage):
    chain = chain_of(Model(), storage, validators=[Validator("v")], critics=[Critic("c", "more")])
    chain.run()
    by_step = {(one.current_step, one.iteration): one for one in chain.get_checkpoint_history()}
    assert by_step["initialization", 0].thought.text == ""
    first = by_step["generation", 0]
    assert (first.thought.text, first.completed_validators, first.completed_critics) == ("text 0", [], [])
    last = by_step["criticism", 0]
    assert (last.thought.text, last.completed_validators, last.completed_critics) == ("text 0", ["v"], ["c"])
    assert by_step["generation", 1].thought.parent_id == last.thought.id


def test_total_time_is_of_that_step_alone():
    clock = FakeClock()

    def takes(seconds, value):
        def work(_):
            clock.advance(seconds)
            return value

        return work

    chain = chain_of(takes(5.0, "text"), clock=clock)
    chain.validate_with(takes(2.0, True)).with_model_retrievers([takes(3.0, [])])
    chain.run()
    spent = {
        (one.current_step, one.recovery_point): one.performance_data["total_time"]
        for one in chain.get_checkpoint_history()
    }
    assert spent["pre_retrieval", "generation"] == pytest.approx(3.0)
    assert spent["generation", "validation"] == pytest.approx(5.0)
    assert spent["validation", "complete"] == pytest.approx(2.0)
    assert spent["complete", "complete"] == pytest.approx(0.0)


def test_parts_that_run_together_are_counted_once():
    clock = FakeClock()
    both = doubles.Barrier(2)

    def slow(thought):
        if both.wait() == 0:
            clock.advance(4.0)
        both.wait()
        return True

    chain = chain_of(Model(), validators=[slow, slow], clock=clock)
    chain.run()
    (validation,) = [one for one in chain.get_checkpoint_history() if one.current_step == "validation"]
    assert validation.performance_data["total_time"] == pytest.approx(4.0)


def test_bottlenecks_are_sentences_costliest_first():
    clock = FakeClock()

    def model(prompt):
        clock.advance(8.0)
        return priced("text", 0.5)

    def validator(thought):
        clock.advance(2.0)
        return True

    chain = chain_of(model, validators=[validator], clock=clock)
    chain.run()
    found = chain.get_performance_bottlenecks()
    assert [one.split(":")[0] for one in found] == ["generation", "validation"]
    assert "8.00 s" in found[0]
    assert "80%" in found[0]
    assert "$0.5000" in found[0]


def test_bottlenecks_of_a_run_that_went_back_charge_each_operation_its_own():
    clock = FakeClock()

    def model(prompt):
        clock.advance(10.0)
        return "text"

    def critic(thought):
        clock.advance(1.0)
        return doubles.fail_once(fails, ValueError("no"), {"needs_improvement": False, "message": ""})

    fails = []
    chain = chain_of(model, critics=[critic], clock=clock)
    with pytest.raises(ChainError):
        chain.run()
    chain.apply_recovery_action(RecoveryAction(RecoveryStrategy.RESTART_FROM_GENERATION, "afresh", 0.5))
    chain.run()
    found = chain.get_performance_bottlenecks()
    assert found[0].startswith("generation: 20.00 s")
    assert found[1].startswith("criticism: 2.00 s")


def test_bottlenecks_and_checkpoints_of_a_chain_that_never_ran_are_empty(storage):
    chain = chain_of(Model(), storage)
    assert chain.get_performance_bottlenecks() == []
    assert chain.get_checkpoint_history() == []
    assert chain.get_thought() is None


def test_storage_stats(storage):
    chain = chain_of(Model(), storage)
    chain.run()
    with pytest.raises(ChainError):
        chain_of(Model(KeyError("x")), storage).run()
    stats = CachedCheckpointStorage(storage).get_storage_stats()
    assert stats["chains"] == {"done": 1, "failed": 1}
    assert stats["total_checkpoints"] == len(chain.get_checkpoint_history()) + 3
    assert stats["storage_size_bytes"] > 0
    assert stats["oldest_checkpoint"] <= stats["newest_checkpoint"]
    assert stats["durability"] == storage.durability


def test_storage_stats_count_a_run_whose_owner_is_gone_as_interrupted(storage):
    died(chain_of(Model(lambda _: doubles.die(storage, "gone")), storage, chain_id="gone"))
    assert CachedCheckpointStorage(storage).get_storage_stats()["chains"] == {"interrupted": 1}


def test_statuses_are_a_closed_set():
    assert set(STATUSES) == {"running", "waiting", "interrupted", "failed", "cancelled", "done"}
    assert get_args(Status) == STATUSES


# Thoughts ----------------------------------------------------------------------------------


def many_sided():
    chain = chain_of(
        Model(priced("ein Übermaß", 0.25), priced("zwei", None), "drei"),
        validators=[Validator("v", ValidationResult(False, "short", 0.2, ("i",), ("s",)), False)],
        critics=[Critic("c", {"needs_improvement": True, "message": "more", "style": "dry"})],
        retrievers=[Retriever("r", [Document("doc", "d1", 0.5, {"page": 3}), "bare"])],
    )
    chain.with_system_prompt("Be brief.").with_critic_retrievers([Retriever("later")])
    return chain.run()


def test_a_thought_survives_its_dict_and_json():
    thought = many_sided()
    assert len(thought.history) == 2
    assert Thought.from_dict(thought.to_dict()) == thought
    assert Thought.from_dict(json.loads(json.dumps(thought.to_dict()))) == thought


def test_a_thought_can_be_sent_to_another_process():
    thought = many_sided()
    assert pickle.loads(pickle.dumps(thought)) == thought
    assert copy.deepcopy(thought) == thought


def test_a_thought_is_frozen():
    with pytest.raises(AttributeError):
        many_sided().text = "other"


def test_a_thought_has_all_that_was_asked_found_and_said():
    thought = many_sided()
    assert (thought.prompt, thought.system_prompt) == ("Write.", "Be brief.")
    first = thought.history[0]
    assert first.text == "ein Übermaß"
    assert "[1] doc" in first.model_prompt
    assert first.pre_generation_context == (Document("doc", "d1", 0.5, {"page": 3}), Document("bare"))
    assert first.post_generation_context == (Document("later document"),)
    assert first.retrieved_documents == first.pre_generation_context + first.post_generation_context
    assert first.critic_feedback[0].metadata == {"style": "dry"}
    assert first.timestamp.tzinfo is UTC
    assert (thought.cost, thought.cost_unknown_calls) == (0.25, 2)
    assert thought.chain_id
    assert thought.id.startswith(thought.chain_id)
    assert thought.metadata == {}


def test_earlier_thoughts_leave_their_own_history_out():
    thought = chain_of(Model(), critics=[Critic(then="more")], max_improvement_iterations=12).run()
    assert len(thought.history) == 12
    assert all(len(one.history) == 0 for one in thought.history)


def test_a_thought_as_a_dict_grows_with_its_history_and_not_faster():
    def size(iterations):
        chain = chain_of(
            Model(), critics=[Critic(then="more")], max_improvement_iterations=iterations, chain_id="r"
        )
        return len(msgspec.json.encode(chain.run().to_dict()))

    assert size(10) < 3 * size(5)


def test_the_log_says_each_step_with_its_time(storage):
    chain = chain_of(Model(), storage)
    chain.run()
    assert [one.step for one in of(Reached, log(storage, chain.chain_id))] == [
        "initialization",
        "pre_retrieval",
        "pre_retrieval",
        "generation",
        "validation",
        "complete",
    ]
