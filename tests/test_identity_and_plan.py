"""Which run a chain goes on with, under which plan, and how a run is forked."""

from __future__ import annotations

import pytest

import doubles
from doubles import Critic, Model, Retriever, Validator, causes, chain_of, died, log, of, priced, wanting
from sifaka.chain import Chain
from sifaka.errors import (
    ChainError,
    ChainIdError,
    DamagedRecordError,
    MissingPromptError,
    PlanChangedError,
    UnknownChainError,
    UsageError,
)
from sifaka.log.records import Opened
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.validators import LengthValidator

storage = doubles.storage


def failed(storage, chain_id="r", *answers, **parts):
    """A run that has failed in its first generation."""
    chain = chain_of(Model(*answers, KeyError("x")), storage, chain_id=chain_id, **parts)
    with pytest.raises(ChainError):
        chain.run()
    return chain


# One run a chain ---------------------------------------------------------------------------


def test_a_chain_has_one_run_until_its_prompt_changes(storage):
    model = Model()
    chain = chain_of(model, storage)
    first, again = chain.run(), chain.run()
    assert again == first
    assert model.calls == 1
    before = chain.chain_id
    assert chain.with_prompt("Write.").chain_id == before
    chain.with_prompt("Write more.")
    assert chain.chain_id != before
    assert chain.run().text == "text 1"
    assert CachedCheckpointStorage(storage).get_storage_stats()["chains"] == {"done": 2}


def test_a_prompt_given_before_the_first_run_leaves_the_name_as_it_is(storage):
    chain = Chain(Model(), checkpoint_storage=storage, chain_id="mine")
    assert chain.with_prompt("One.").with_prompt("Two.").chain_id == "mine"
    assert chain.run().chain_id == "mine"


def test_a_chain_id_names_the_run_and_a_done_one_is_returned_without_a_call(storage):
    done = chain_of(Model(), storage, chain_id="mine").run()
    model = Model()
    assert chain_of(model, storage, chain_id="mine").run() == done
    assert chain_of(model, storage, chain_id="mine").run_with_recovery() == done
    assert chain_of(model, storage).resume("mine") == done
    assert model.calls == 0


def test_another_prompt_is_another_run_also_where_a_done_one_was_returned(storage):
    chain_of(Model(), storage, chain_id="mine").run()
    chain = chain_of(Model("other"), storage, chain_id="mine")
    chain.run()
    thought = chain.with_prompt("Write more.").run()
    assert (thought.text, thought.chain_id != "mine") == ("other", True)


def test_nothing_is_written_to_a_run_that_is_done(storage):
    chain = chain_of(Model(), storage, chain_id="mine")
    chain.run()
    before = log(storage, "mine"), storage.entry("mine")
    chain_of(Model(), storage, chain_id="mine").run()
    assert (log(storage, "mine"), storage.entry("mine")) == before


def test_a_run_that_stopped_is_continued_by_its_name(storage):
    failed(storage, "mine", critics=[Critic()])
    model = Model("second")
    thought = chain_of(model, storage, chain_id="mine", critics=[Critic()]).run()
    assert (thought.text, thought.chain_id) == ("second", "mine")
    assert causes(log(storage, "mine")) == ["new", "retry"]


@pytest.mark.parametrize(
    "chain_id",
    ["", "x" * 201, "a\nb", "a\x00b", "a\x7fb", "\ud800"],
    ids=["empty", "too long", "newline", "null", "delete", "surrogate"],
)
def test_a_bad_chain_id_is_refused(chain_id):
    with pytest.raises(ChainIdError, match=r"chain.id"):
        Chain(Model(), "Write.", chain_id=chain_id)
    with pytest.raises(ChainIdError):
        chain_of(Model()).resume(chain_id)


@pytest.mark.parametrize("chain_id", ["x" * 200, "ö/ä:日本 語", "' OR 1=1 --"])
def test_any_printable_chain_id_will_do(storage, chain_id):
    chain_of(Model(), storage, chain_id=chain_id).run()
    assert chain_of(Model("other"), storage, chain_id=chain_id).run().text == "text 0"


def test_a_run_that_is_not_there_cannot_be_resumed(storage):
    with pytest.raises(UnknownChainError, match="nobody"):
        chain_of(Model(), storage).resume("nobody")
    with pytest.raises(UnknownChainError):
        chain_of(Model(), storage).fork("nobody")
    with pytest.raises(UnknownChainError):
        chain_of(Model(), storage).resume()


# Prompts -----------------------------------------------------------------------------------


def test_a_chain_without_a_prompt_says_so_and_stores_nothing(storage):
    model = Model()
    chain = Chain(model, checkpoint_storage=storage)
    for run in (chain.run, chain.run_with_recovery):
        with pytest.raises(MissingPromptError, match="with_prompt"):
            run()
    assert model.calls == 0
    assert storage.entry(chain.chain_id) is None


def test_a_chain_keeps_its_name_when_its_missing_prompt_is_mended(storage):
    chain = Chain(Model(), checkpoint_storage=storage, chain_id="mine")
    with pytest.raises(MissingPromptError):
        chain.run()
    assert chain.with_prompt("Write.").run().chain_id == "mine"


@pytest.mark.parametrize("prompt", ["", "  \n", None, 5])
def test_a_blank_prompt_is_refused(prompt):
    with pytest.raises(UsageError, match="prompt"):
        Chain(Model()).with_prompt(prompt)


def test_a_run_is_resumed_without_its_prompt_being_given_again(storage):
    failed(storage)
    model = Model("second")
    thought = Chain(model, checkpoint_storage=storage, chain_id="r").resume()
    assert (thought.prompt, thought.text) == ("Write.", "second")
    assert model.prompts == ["Write."]


# Another plan ------------------------------------------------------------------------------


def parts(*validators, critics=(), retrievers=()):
    return {
        "validators": [Validator(name) for name in validators],
        "critics": [Critic(name) for name in critics],
        "retrievers": [Retriever(name) for name in retrievers],
    }


CHANGES = {
    "another prompt": ({"prompt": "Sing.", **parts("a", "b")}, "prompt.*'Write.'.*'Sing.'"),
    "a part less": (parts("a"), "without validator b"),
    "a part more": (parts("a", "b", "c"), "with validator c"),
    "another name": (parts("a", "z"), "without validator b.*with validator z"),
    "another order": (parts("b", "a"), "another order"),
    "another kind": (parts("a", critics=["b"]), "without validator b.*with critic b"),
    "a retriever": (parts("a", "b", retrievers=["r"]), "with model_retriever r"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_plan_is_refused_with_its_differences_and_the_ways_out(storage, change):
    failed(storage, **parts("a", "b"))
    options, said = CHANGES[change]
    model = Model()
    before = log(storage, "r")
    with pytest.raises(PlanChangedError, match=said) as caught:
        chain_of(model, storage, chain_id="r", **options).run()
    assert caught.value.differences
    for way_out in ('on_plan_change="accept"', "fork", "chain_id"):
        assert way_out in str(caught.value)
    assert model.calls == 0
    assert log(storage, "r") == before


@pytest.mark.parametrize("change", CHANGES)
def test_another_plan_is_refused_for_a_run_that_is_done_too(storage, change):
    chain_of(Model(), storage, chain_id="r", **parts("a", "b")).run()
    options, said = CHANGES[change]
    with pytest.raises(PlanChangedError, match=said):
        chain_of(Model(), storage, chain_id="r", **options).run()


def test_another_system_prompt_is_another_plan(storage):
    failed(storage)
    with pytest.raises(PlanChangedError, match="system prompt"):
        chain_of(Model(), storage, chain_id="r").with_system_prompt("Be brief.").run()


@pytest.mark.parametrize("change", CHANGES)
def test_another_plan_is_taken_where_it_is_accepted(storage, change):
    failed(storage, **parts("a", "b"))
    options, _ = CHANGES[change]
    chain = chain_of(Model("new"), storage, chain_id="r", **options).with_options(on_plan_change="accept")
    thought = chain.run()
    assert thought.text == "new"
    assert thought.prompt == options.get("prompt", "Write.")
    assert [one.validator for one in thought.validation_results] == [
        one.name for one in options["validators"]
    ]
    opened = of(Opened, log(storage, "r"))[-1]
    assert opened.prompt == options.get("prompt") or opened.parts is not None
    again = chain_of(Model(), storage, chain_id="r", **options)
    assert again.run() == thought


def test_after_a_refusal_the_run_can_be_taken_up_at_once(storage):
    failed(storage)
    with pytest.raises(PlanChangedError):
        chain_of(Model(), storage, chain_id="r", prompt="Sing.").run()
    assert chain_of(Model("second"), storage, chain_id="r").run().text == "second"


def test_after_a_refusal_the_old_plan_can_be_put_back(storage):
    failed(storage)
    chain = chain_of(Model("second"), storage, chain_id="r", prompt="Sing.")
    with pytest.raises(PlanChangedError):
        chain.run()
    assert chain.with_prompt("Write.").chain_id == "r"
    assert (chain.run().text, len(log(storage, "r")) > 5) == ("second", True)


def test_a_system_prompt_is_kept_when_new_parts_are_accepted_without_a_prompt(storage):
    chain = chain_of(Model(KeyError("x")), storage, chain_id="r").with_system_prompt("Be brief.")
    with pytest.raises(ChainError):
        chain.run()
    model = Model()
    other = Chain(model, checkpoint_storage=storage, chain_id="r").improve_with(Critic())
    thought = other.with_options(on_plan_change="accept").resume()
    assert thought.system_prompt == "Be brief."
    assert model.options[0]["system_prompt"] == "Be brief."


def replanned(storage, before, after, **options):
    """A run that stopped in its first validation or criticism, and went on with other parts."""
    with pytest.raises(ChainError):
        chain_of(Model(), storage, chain_id="r", **before, **options).run()
    other = chain_of(Model("another"), storage, chain_id="r", **after, **options)
    return other.with_options(on_plan_change="accept").run()


BROKEN = Validator("broken", *[KeyError("x")] * 9)


def test_a_removed_validator_fails_no_text_any_more(storage):
    thought = replanned(
        storage,
        {"validators": [Validator("strict", False), BROKEN]},
        {"validators": [Validator("broken")]},
    )
    assert [one.validator for one in thought.validation_results] == ["broken"]
    assert (thought.text, thought.passed, thought.iteration) == ("text 0", True, 0)


def test_a_removed_validator_passes_no_text_any_more(storage):
    thought = replanned(
        storage,
        {"validators": [Validator("easy"), Validator("strict", False), BROKEN]},
        {"validators": [Validator("strict"), Validator("broken")]},
        max_improvement_iterations=0,
    )
    assert [(one.validator, one.passed) for one in thought.validation_results] == [
        ("strict", False),
        ("broken", True),
    ]
    assert not thought.passed


def test_a_removed_validator_is_not_shown_when_it_was_the_only_one_to_speak(storage):
    thought = replanned(storage, {"validators": [Validator("gone"), BROKEN]}, {"critics": [Critic("c")]})
    assert thought.validation_results == ()


def test_a_removed_critic_asks_for_nothing_any_more(storage):
    thought = replanned(
        storage,
        {"critics": [Critic("picky", "more"), Critic("broken", KeyError("x"))]},
        {"critics": [Critic("broken")]},
    )
    assert (thought.text, thought.iteration) == ("text 0", 0)
    assert [one.critic for one in thought.critic_feedback] == ["broken"]


# Changed settings --------------------------------------------------------------------------


def settings_of(storage, chain_id="r"):
    """The settings that each life recorded."""
    return [one.settings for one in of(Opened, log(storage, chain_id)) if one.settings is not None]


def test_changed_settings_are_recorded_and_the_run_goes_on(storage):
    failed(storage)
    model = Model(name="better")
    chain = chain_of(model, storage, chain_id="r", max_improvement_iterations=1)
    chain.with_options(temperature=0.7, limits={"actions": 2})
    chain.run()
    first, second = settings_of(storage)
    assert first["model"] == "scripted"
    assert second["model"] == "better"
    assert (second["temperature"], second["max_improvement_iterations"]) == (0.7, 1)
    assert second["limits"]["actions"] == 2
    assert model.options == [{"temperature": 0.7}]


def test_unchanged_settings_are_not_recorded_again(storage):
    failed(storage)
    chain_of(Model(), storage, chain_id="r").run()
    assert len(settings_of(storage)) == 1


def test_a_changed_threshold_is_recorded_and_the_run_goes_on(storage):
    failed(storage, validators=[LengthValidator(1, 100)])
    thought = chain_of(Model("12345678"), storage, chain_id="r", validators=[LengthValidator(1, 5)]).run()
    assert not thought.history[0].passed
    recorded = [one.parts for one in of(Opened, log(storage, "r"))]
    assert recorded[1] is not None
    assert recorded[1][0].name == recorded[0][0].name
    assert recorded[1][0].fingerprint != recorded[0][0].fingerprint


def test_a_callable_is_known_by_its_name(storage):
    def make(answer):
        def long_enough(thought):
            return answer

        return long_enough

    failed(storage, validators=[make(False)])
    assert chain_of(Model(), storage, chain_id="r", validators=[make(True)]).run().passed


# Forks -------------------------------------------------------------------------------------


def paid_run(storage, **options):
    """A run of three iterations at a dollar each."""
    chain = chain_of(
        Model(priced("zero"), priced("one"), priced("two")),
        storage,
        chain_id="source",
        critics=[wanting(2)],
        **options,
    )
    chain.run()
    return chain


def test_a_fork_goes_on_from_where_it_is_told(storage):
    chain = paid_run(storage)
    before = log(storage, "source")
    chain.with_model(Model(priced("other")))
    fork = chain.fork(step="generation", iteration=1)
    assert fork.chain_id != "source"
    thought = fork.run()
    assert thought.chain_id == fork.chain_id
    assert [one.text for one in thought.history] == ["zero", "one"]
    assert thought.text == "other"
    assert log(storage, "source") == before
    assert chain.chain_id == "source"


def test_a_fork_does_not_count_what_the_first_run_paid(storage):
    chain = paid_run(storage)
    assert chain.get_thought().cost == 3.0
    chain.with_model(Model(priced("other", 0.25), priced("another", 0.25)))
    fork = chain.fork(step="criticism", iteration=0)
    thought = fork.run()
    assert (thought.text, thought.cost) == ("another", 0.5)
    assert [one.performance_data["cost_usd"] for one in fork.get_checkpoint_history()][-1] == 0.5
    stored = CachedCheckpointStorage(storage)
    assert stored.load(fork.chain_id).state.totals == stored.load_whole(fork.chain_id).state.totals


def test_a_fork_does_not_inherit_doubts(storage):
    model = Model(lambda _: doubles.die(storage, "source"))
    died(chain_of(model, storage, chain_id="source", critics=[wanting(1)]))
    chain = chain_of(Model(), storage, chain_id="source", critics=[wanting(1)])
    assert len(chain.run().in_doubt) == 1
    assert chain.fork(step="generation", iteration=0).run().in_doubt == ()


def test_a_fork_has_the_money_and_the_time_it_is_given(storage):
    clock = doubles.FakeClock()

    def slow(prompt):
        clock.advance(60.0)
        return priced("text")

    chain = chain_of(slow, storage, critics=[wanting(1)], clock=clock)
    chain.run()
    chain.with_options(budget={"usd": 1.5, "seconds": 90.0})
    assert chain.fork(step="criticism", iteration=0).run().iteration == 1


def test_a_fork_may_be_given_a_name_that_is_free(storage):
    chain = paid_run(storage)
    assert chain.fork(new_id="branch").chain_id == "branch"
    with pytest.raises(UsageError, match="branch"):
        chain.fork(new_id="branch")
    with pytest.raises(UsageError, match="source"):
        chain.fork(new_id="source")
    with pytest.raises(ChainIdError):
        chain.fork(new_id="")


def test_a_fork_of_no_checkpoint_says_so(storage):
    with pytest.raises(UsageError, match="no checkpoint"):
        paid_run(storage).fork(step="validation", iteration=9)


def test_a_fork_goes_back_before_a_record(storage):
    chain = paid_run(storage)
    cut = next(seq for seq, one in enumerate(log(storage, "source")) if getattr(one, "text", "") == "one")
    chain.with_model(Model("another one"))
    assert chain.fork(before=cut).run().history[-1].text == "another one"


def test_a_fork_is_a_way_out_of_a_changed_plan(storage):
    paid_run(storage)
    other = chain_of(Model("new"), storage, validators=[Validator("late")], critics=[wanting(2)])
    thought = other.fork("source", step="generation", iteration=2).run()
    assert thought.text == "two"
    assert [one.validator for one in thought.validation_results] == ["late"]


def test_a_fork_leads_out_of_damage(tmp_path):
    import sqlite3

    store = doubles.SQLiteStorage(tmp_path / "runs.db")
    chain = paid_run(store)
    cut = next(seq for seq, one in enumerate(log(store, "source")) if getattr(one, "text", "") == "two")
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("UPDATE log SET frame = x'00' WHERE first <= ? AND last >= ?", (cut, cut))
    connection.close()
    with pytest.raises(DamagedRecordError, match="fork") as caught:
        chain.get_checkpoint_history()
    assert caught.value.first <= cut <= caught.value.last
    chain.with_model(Model("two again"))
    assert chain.fork(before=caught.value.first).run().text == "two again"
    store.close()


def test_damage_is_named_each_time_it_is_met(tmp_path):
    import sqlite3

    store = doubles.SQLiteStorage(tmp_path / "runs.db")
    failed(store)
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("UPDATE log SET frame = x'00'")
    connection.close()
    for _ in range(2):
        with pytest.raises(DamagedRecordError):
            chain_of(Model(), store, chain_id="r").run()
    store.close()
