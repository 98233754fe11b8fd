"""Options: what they are, what they do, and what is said of those that make no sense."""

from __future__ import annotations

import pytest

import doubles
from doubles import Critic, Model, Validator, busy, chain_of, log, of, wanting
from sifaka.chain import Chain
from sifaka.errors import ChainError, SifakaError, StoreUnreachableError, UsageError
from sifaka.log.records import Intent, Opened, Result
from sifaka.recovery import RecoveryAction, RecoveryManager, RecoveryStrategy
from sifaka.recovery.limits import Budget
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.clock import FakeClock

storage = doubles.storage
timed_storage = doubles.timed_storage


# What they do ------------------------------------------------------------------------------


def test_the_constructors_options_can_be_set_later():
    chain = chain_of(Model(), critics=[wanting(9)])
    chain.with_options(max_improvement_iterations=1, always_apply_critics=True, budget=5.0)
    assert chain.run().iteration == 1


def test_options_reach_every_call_of_a_model_as_keywords():
    model = Model()
    chain = chain_of(model, critics=[wanting(1), doubles.Asking("a", ["why"])])
    chain.with_options(temperature=0.5, stop=["END"], seed=7).run()
    assert model.options == [{"temperature": 0.5, "stop": ["END"], "seed": 7}] * 4


def test_a_chains_own_options_do_not_reach_the_model():
    model = Model()
    chain = chain_of(model, budget=9.0, durability="iteration", on_doubt="stop")
    chain.with_options(
        critique_final=True,
        allow_partial_results=True,
        validation_strictness=0.5,
        max_documents=3,
        max_context_chars=99,
        batch_size=2,
        limits={"actions": 3},
        on_plan_change="accept",
    ).run()
    assert model.options == [{}]


def test_options_are_recorded(storage):
    chain = chain_of(Model(), storage, budget={"usd": 3, "tokens": 500}).with_options(
        temperature=0.5, batch_size=2
    )
    chain.run()
    (opened,) = of(Opened, log(storage, chain.chain_id))
    assert opened.settings["temperature"] == 0.5
    assert opened.settings["batch_size"] == 2
    assert opened.settings["budget"] == {"usd": 3, "tokens": 500}
    assert opened.settings["model"] == "scripted"


def test_options_set_later_hold_from_the_next_run_on(storage):
    model = Model("0", busy())
    chain = chain_of(model, storage, chain_id="r", critics=[wanting(1)])
    with pytest.raises(ChainError):
        chain.run()
    chain.with_options(temperature=0.5).run()
    assert model.options == [{}, {}, {"temperature": 0.5}]


def test_options_that_a_model_cannot_take_are_recorded_as_not_applied(storage):
    def model(prompt, max_tokens=None):
        return "text"

    chain = chain_of(model, storage, chain_id="r", critics=[doubles.Asking("a", ["why"])])
    chain.with_options(temperature=0.5, max_tokens=5, frequency_penalty=1.0).run()
    records = log(storage, "r")
    results = [one for one in of(Result, records) if one.text is not None]
    assert [one.not_applied for one in results] == [("temperature", "frequency_penalty")] * 2
    asked = [one.options for one in of(Intent, records)]
    assert asked == [{"temperature": 0.5, "max_tokens": 5, "frequency_penalty": 1.0}] * 2


def test_a_model_says_itself_which_options_it_takes():
    class Choosy(Model):
        accepts = frozenset({"temperature"})

    model = Choosy()
    chain_of(model).with_options(temperature=0.5, top_p=0.1).run()
    assert model.options == [{"temperature": 0.5}]


# Taking back -------------------------------------------------------------------------------

DEFAULTS = [
    "allow_partial_results",
    "always_apply_critics",
    "batch_size",
    "budget",
    "critique_final",
    "durability",
    "limits",
    "max_context_chars",
    "max_documents",
    "max_improvement_iterations",
    "max_tokens",
    "on_doubt",
    "on_plan_change",
    "temperature",
    "timeout_s",
    "validation_strictness",
]


@pytest.mark.parametrize("name", DEFAULTS)
def test_none_takes_an_option_back(name):
    model, critic = Model(), Critic("c", then="more")
    chain = chain_of(model, validators=[Validator()], critics=[critic]).with_options(**{name: None})
    thought = chain.run()
    assert (thought.iteration, model.calls, critic.calls) == (3, 4, 3)
    assert model.options == [{}] * 4


@pytest.mark.parametrize("name", ["durability", "on_doubt", "budget", "max_improvement_iterations"])
def test_the_constructor_takes_none_for_the_default(name):
    assert chain_of(Model(), critics=[wanting(1)], **{name: None}).run().text == "text 1"


def test_a_budget_that_is_taken_back_is_gone():
    chain = chain_of(Model(doubles.priced("0", 5.0)), critics=[wanting(1)], budget=1.0)
    with pytest.raises(ChainError, match="budget"):
        chain.run()
    assert chain.with_options(budget=None).run().text == "text 1"


def test_on_plan_change_can_be_refused_again(storage):
    chain = chain_of(Model(busy()), storage, chain_id="r")
    with pytest.raises(ChainError):
        chain.run()
    other = chain_of(Model(), storage, chain_id="r", critics=[Critic()])
    other.with_options(on_plan_change="accept").with_options(on_plan_change="refuse")
    with pytest.raises(UsageError, match="plan"):
        other.run()


# What makes no sense -----------------------------------------------------------------------

BAD = [
    ("max_improvement_iterations", -1, "0 or more"),
    ("max_improvement_iterations", 1.5, "whole number"),
    ("max_improvement_iterations", True, "whole number"),
    ("max_improvement_iterations", "3", "whole number"),
    ("always_apply_critics", "yes", "True or False"),
    ("always_apply_critics", 1, "True or False"),
    ("critique_final", 0, "True or False"),
    ("allow_partial_results", "no", "True or False"),
    ("validation_strictness", 1.1, "0 to 1"),
    ("validation_strictness", -0.1, "0 to 1"),
    ("validation_strictness", "half", "0 to 1"),
    ("validation_strictness", float("nan"), "0 to 1"),
    ("max_documents", -1, "0 or more"),
    ("max_context_chars", 1.5, "whole number"),
    ("batch_size", 0, "1 or more"),
    ("max_tokens", 0, "1 or more"),
    ("max_tokens", "many", "whole number"),
    ("temperature", -0.1, "number"),
    ("temperature", "hot", "number"),
    ("temperature", float("nan"), "number"),
    ("temperature", float("inf"), "number"),
    ("timeout_s", 0, "number"),
    ("timeout_s", -5, "number"),
    ("timeout_s", "10", "number"),
    ("timeout_s", float("inf"), "number"),
    ("durability", "sometimes", "'step', 'iteration', 'exit'"),
    ("durability", {"generation": "often"}, "'step', 'iteration', 'exit'"),
    ("durability", {"dreaming": "step"}, "generation"),
    ("durability", 1, "'step', 'iteration', 'exit'"),
    ("on_doubt", "ask", "'repeat', 'stop'"),
    ("on_plan_change", "maybe", "'refuse', 'accept'"),
    ("budget", -1, "dollars"),
    ("budget", "five", "dollars"),
    ("budget", True, "dollars"),
    ("budget", float("nan"), "dollars"),
    ("budget", {"eur": 5}, '"usd", "tokens", "seconds"'),
    ("budget", {"tokens": 1.5}, '"usd", "tokens", "seconds"'),
    ("budget", {"usd": -1}, "negative"),
    ("limits", {"attempts": 5}, "attempts_per_step"),
    ("limits", {"actions": "many"}, "actions"),
    ("limits", {"actions": -1}, "actions"),
    ("limits", {"waits_s": -1.0}, "waits_s"),
    ("limits", 5, "dict"),
    ("model", "local:smollm2", "with_model"),
    ("label", 5, "label"),
    ("seed", object(), "seed"),
]


@pytest.mark.parametrize(("name", "value", "said"), BAD, ids=[f"{one[0]} {n}" for n, one in enumerate(BAD)])
def test_an_option_that_makes_no_sense_is_refused_and_what_may_be_written_is_said(name, value, said):
    model = Model()
    chain = chain_of(model)
    with pytest.raises(UsageError, match=said) as caught:
        chain.with_options(**{name: value})
    assert name in str(caught.value)
    assert chain.run().text == "text 0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_improvement_iterations", -1),
        ("always_apply_critics", "yes"),
        ("durability", "sometimes"),
        ("on_doubt", "ask"),
        ("budget", "five"),
        ("chain_id", ""),
        ("chain_id", 5),
        ("checkpoint_storage", 5),
        ("prompt", " "),
        ("prompt", 5),
    ],
)
def test_the_constructor_refuses_what_makes_no_sense(name, value):
    with pytest.raises(UsageError, match=name.replace("_", "[_ ]").replace("checkpoint[_ ]", "")):
        Chain(Model(), **{name: value})


@pytest.mark.parametrize("system_prompt", [5, b"bytes", ["Be brief."]])
def test_a_system_prompt_that_is_no_text_is_refused(system_prompt):
    with pytest.raises(UsageError, match="system prompt"):
        chain_of(Model()).with_system_prompt(system_prompt)


@pytest.mark.parametrize("url", ["runs.db", "sqlite://", "sqlite:///", "mysql://x/y", ""])
def test_a_store_that_cannot_be_opened_says_what_can(url):
    with pytest.raises(StoreUnreachableError, match="sqlite:///"):
        Chain(Model(), checkpoint_storage=url)


def test_a_folder_that_is_missing_is_said():
    chain = chain_of(Model(), "sqlite:////no/such/folder/runs.db")
    with pytest.raises(StoreUnreachableError, match="mkdir -p /no/such/folder"):
        chain.run()


def test_one_bad_option_changes_none():
    chain = chain_of(Model(), critics=[wanting(9)])
    with pytest.raises(UsageError):
        chain.with_options(max_improvement_iterations=1, batch_size=0)
    assert chain.run().iteration == 3


def test_a_chain_without_a_model_says_what_to_type():
    with pytest.raises(UsageError, match="with_model"):
        Chain(prompt="Write.").run()


WRONG_ACTIONS = {
    "a name": "retry_current_step",
    "nothing": None,
    "a strategy that is a text": RecoveryAction("retry_current_step", "again", 0.5),
    "no description": RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, None, 0.5),
    "no parameters": RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5, None),
    "a delay that is a text": RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5, delay_s="5"),
    "a delay that is negative": RecoveryAction(
        RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5, delay_s=-5.0
    ),
    "evidence that is none": RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5, evidence=None),
}


@pytest.mark.parametrize("case", WRONG_ACTIONS)
def test_an_action_that_is_none_is_refused_and_nothing_is_recorded(case):
    store = InMemoryStorage()
    chain = chain_of(Model(busy()), store, chain_id="r")
    with pytest.raises(ChainError):
        chain.run()
    before = log(store, "r")
    with pytest.raises((UsageError, ValueError)):
        chain.apply_recovery_action(WRONG_ACTIONS[case])
    assert log(store, "r") == before
    assert chain.run().text == "text 1"


def test_a_stated_delay_of_an_action_is_waited(storage):
    clock = FakeClock()
    chain = chain_of(Model(busy()), storage, clock=clock)
    with pytest.raises(ChainError):
        chain.run()
    action = RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "later", 0.5, delay_s=30.0)
    chain.apply_recovery_action(action)
    assert clock.slept == []
    assert chain.run().text == "text 1"
    assert clock.slept == [30.0]


# Budgets as values -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        (None, Budget()),
        (5, Budget(usd=5.0)),
        (0, Budget(usd=0.0)),
        (2.5, Budget(usd=2.5)),
        ({"usd": 1, "seconds": 60}, Budget(usd=1, seconds=60)),
        (Budget(tokens=9), Budget(tokens=9)),
    ],
)
def test_how_a_budget_may_be_written(written, budget):
    assert Budget.of(written) == budget
    chain_of(Model(), budget=written)


# Cleaning up -------------------------------------------------------------------------------


def test_cleaning_up_counts_the_checkpoints_of_old_runs_that_ended(timed_storage):
    store = timed_storage
    old = chain_of(Model(), store, clock=store.clock)
    old.run()
    with pytest.raises(ChainError):
        chain_of(Model(KeyError("x")), store, chain_id="failed", clock=store.clock).run()
    with pytest.raises(KeyboardInterrupt):
        chain_of(Model(KeyboardInterrupt), store, chain_id="interrupted", clock=store.clock).run()
    store.clock.advance(31 * 86_400)
    young = chain_of(Model(), store, clock=store.clock)
    young.run()
    removed = len(old.get_checkpoint_history()) + 3
    manager = RecoveryManager(store)
    assert manager.cleanup_old_checkpoints(max_age_days=60) == 0
    assert manager.cleanup_old_checkpoints() == removed
    assert manager.cleanup_old_checkpoints() == 0
    assert store.entry(old.chain_id) is None
    assert store.entry("failed") is None
    assert store.entry("interrupted") is not None
    assert len(young.get_checkpoint_history()) == CachedCheckpointStorage(store).get_storage_stats()[
        "total_checkpoints"
    ] - len(chain_of(Model(), store, chain_id="interrupted").get_checkpoint_history())


def test_cleaning_up_with_a_negative_age_is_refused(storage):
    with pytest.raises((ValueError, SifakaError), match="negative"):
        RecoveryManager(storage).cleanup_old_checkpoints(-1)


# The fake clock ----------------------------------------------------------------------------


def test_the_fake_clock_stands_still_until_told():
    clock = FakeClock(start=100.0)
    assert (clock.time(), clock.time(), clock.monotonic()) == (100.0, 100.0, 0.0)
    clock.advance(5.0)
    assert (clock.time(), clock.monotonic(), clock.slept) == (105.0, 5.0, [])


def test_sleeping_on_the_fake_clock_is_recorded_and_over_at_once():
    import asyncio

    clock = FakeClock(start=0.0)
    clock.sleep(3600.0)
    asyncio.run(clock.asleep(60.0))
    assert (clock.time(), clock.slept) == (3660.0, [3600.0, 60.0])
    for go_back in (clock.advance, clock.sleep):
        with pytest.raises(ValueError, match="0 or more"):
            go_back(-1.0)
    assert clock.time() == 3660.0


def test_the_fake_clock_may_be_shared_by_threads():
    import threading

    clock = FakeClock(start=0.0)

    def work():
        for _ in range(200):
            clock.sleep(0.5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.time() == sum(clock.slept) == 800.0


def test_the_fake_clock_is_in_the_test_kit():
    from sifaka import testing

    assert testing.FakeClock is FakeClock
