"""Providers that are left alone for a while, and models that stand in for others."""

from __future__ import annotations

import asyncio

import pytest

import doubles
from doubles import chain_of, log, of
from sifaka.errors import ChainError, ModelError
from sifaka.log.records import Faulted, Recovery, Result
from sifaka.parts import Request
from sifaka.recovery import RecoveryAction, RecoveryManager, RecoveryStrategy
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.testing.clock import FakeClock
from sifaka.thought import CriticFeedback
from sifaka.views.story import story_of


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
def storage(request, tmp_path, clock):
    """A store of each kind, by the same clock as the chains."""
    store = (
        InMemoryStorage(clock=clock)
        if request.param == "memory"
        else SQLiteStorage(tmp_path / "r.db", clock=clock)
    )
    yield store
    store.close()


@pytest.fixture(params=["run_with_recovery", "arun_with_recovery"])
def recover(request):
    """Runs a chain with recovery, in this thread or in an event loop."""
    if request.param == "run_with_recovery":
        return lambda chain: chain.run_with_recovery()
    return lambda chain: asyncio.run(chain.arun_with_recovery())


class Provided(doubles.Model):
    """A scripted model at a provider, which can be down until a time."""

    def __init__(self, *steps, name="acme:large", clock=None, down_until=0.0):
        super().__init__(*steps, name=name)
        self.provider = name.partition(":")[0]
        self.clock = clock
        self.down_until = down_until

    def generate(self, prompt, **options):
        if self.clock is not None and self.clock.time() < self.down_until:
            self.prompts.append(prompt)
            raise overloaded()
        return super().generate(prompt, **options)


class Choice:
    """A choice among models, as FallbackModel is one."""

    name = "choice"

    def __init__(self, *models):
        self.models = models

    def generate(self, prompt):
        raise AssertionError("the engine asks the models themselves")


def overloaded():
    return ModelError("overloaded", kind="overloaded", status=529)


def bad_key():
    return ModelError("bad key", kind="auth", status=401)


# A provider that is down -------------------------------------------------------------------


def test_a_provider_that_fails_over_and_over_is_left_alone_and_then_asked_again(storage, recover, clock):
    model = Provided(clock=clock, down_until=clock.time() + 600.0)
    chain = chain_of(model, storage, chain_id="r", clock=clock)
    chain.with_options(limits={"attempts_per_step": 50, "actions": 50}, value_usd=1e6)
    assert recover(chain).text
    waits = [one for one in of(Recovery, log(storage, "r")) if one.chosen_by == "breaker"]
    assert waits
    assert all(not one.counts for one in waits)
    assert model.calls < 30


def test_what_one_run_learned_of_a_provider_holds_up_another(storage, clock):
    down = Provided(clock=clock, down_until=clock.time() + 10_000.0)
    for number in range(5):
        with pytest.raises(ChainError):
            chain_of(down, storage, chain_id=f"r{number}", clock=clock).run()
    before, began = down.calls, clock.time()
    other = chain_of(Provided(), storage, chain_id="other", clock=clock)
    assert other.run_with_recovery().text
    assert clock.time() - began >= 30.0
    assert down.calls == before


def test_a_plain_run_is_held_up_by_nothing(storage, clock):
    down = Provided(clock=clock, down_until=clock.time() + 10_000.0)
    for number in range(6):
        with pytest.raises(ChainError):
            chain_of(down, storage, chain_id=f"r{number}", clock=clock).run()
    assert down.calls == 6
    began = clock.time()
    assert chain_of(Provided(), storage, chain_id="other", clock=clock).run().text
    assert clock.time() == began


def test_a_provider_that_never_answers_again_does_not_hold_a_run_for_ever(storage, recover, clock):
    model = Provided(clock=clock, down_until=clock.time() + 1e9)
    chain = chain_of(model, storage, chain_id="r", clock=clock)
    chain.with_options(limits={"attempts_per_step": 10_000, "actions": 10_000}, value_usd=1e6)
    began = clock.time()
    with pytest.raises(ChainError, match="waited"):
        recover(chain)
    assert clock.time() - began <= 2 * 3600.0


def test_waiting_for_a_provider_is_no_attempt(storage, clock):
    down = Provided(clock=clock, down_until=clock.time() + 10_000.0)
    for number in range(5):
        with pytest.raises(ChainError):
            chain_of(down, storage, chain_id=f"r{number}", clock=clock).run()
    chain = chain_of(Provided(), storage, chain_id="other", clock=clock)
    chain.with_options(limits={"attempts_per_step": 1, "actions": 0})
    assert chain.run_with_recovery().text


def test_a_model_without_a_provider_is_never_held_up(storage, clock):
    for number in range(8):
        with pytest.raises(ChainError):
            chain_of(doubles.Model(overloaded()), storage, chain_id=f"r{number}", clock=clock).run()
    began = clock.time()
    assert chain_of(doubles.Model(), storage, chain_id="other", clock=clock).run_with_recovery().text
    assert clock.time() == began


# Models that stand in ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [overloaded, bad_key])
@pytest.mark.parametrize("method", ["run", "run_with_recovery"])
def test_another_model_answers_where_the_first_cannot(storage, method, error):
    first, second = Provided(*[error() for _ in range(9)]), Provided("theirs", name="other:model")
    chain = chain_of(Choice(first, second), storage, chain_id="r")
    assert getattr(chain, method)().text == "theirs"
    switches = [one for one in of(Recovery, log(storage, "r")) if "models" in one.parameters]
    assert [one.parameters["models"] for one in switches] == [{"acme:large": "other:model"}]
    assert of(Result, log(storage, "r"))[0].model == "other:model"


def test_a_run_that_switched_stays_with_its_model_after_a_death(storage):
    first, second = Provided(*[bad_key() for _ in range(9)]), Provided(KeyboardInterrupt, name="other:model")
    chain = chain_of(Choice(first, second), storage, chain_id="r")
    with pytest.raises(KeyboardInterrupt):
        chain.run()
    calls = first.calls
    assert chain.run().text == "text 1"
    assert first.calls == calls


def test_when_all_models_fail_the_run_fails_and_names_the_last_fault(storage):
    first, second = Provided(*[bad_key()] * 9), Provided(*[bad_key()] * 9, name="other:model")
    chain = chain_of(Choice(first, second), storage, chain_id="r")
    with pytest.raises(ChainError, match="auth"):
        chain.run_with_recovery()
    assert (first.calls, second.calls) == (1, 1)


def test_a_provider_that_is_left_alone_is_passed_over_at_once(storage, clock):
    down = Provided(clock=clock, down_until=clock.time() + 10_000.0)
    for number in range(5):
        with pytest.raises(ChainError):
            chain_of(down, storage, chain_id=f"r{number}", clock=clock).run()
    before, began = down.calls, clock.time()
    chain = chain_of(Choice(down, Provided("theirs", name="other:model")), storage, chain_id="c", clock=clock)
    assert chain.run().text == "theirs"
    assert down.calls == before
    assert clock.time() == began
    assert [one.chosen_by for one in of(Recovery, log(storage, "c"))] == ["breaker"]
    assert not of(Faulted, log(storage, "c"))


def test_a_critic_with_a_choice_of_its_own_switches_for_itself_alone(storage):
    first, second = Provided(*[bad_key()] * 9), Provided("fine", name="other:model")

    class Own:
        name = "own"
        model = Choice(first, second)

        def critique(self, thought):
            reply = yield Request("criticise", model=self.model)
            return CriticFeedback(needs_improvement=False, message=reply.text)

    chain = chain_of(Provided("mine", name="acme:small"), storage, critics=[Own()], chain_id="r")
    thought = chain.run()
    assert thought.text == "mine"
    assert thought.critic_feedback[0].message == "fine"


def test_models_that_stand_in_for_each_other_end_nowhere_but_at_the_last_one(storage):
    one, two = Provided("one", name="a:one"), Provided("two", name="b:two")
    chain = chain_of(Choice(one, two), storage, chain_id="r")
    for models in ({"c:three": "a:one"}, {"a:one": "b:two"}, {"b:two": "a:one"}):
        switch = RecoveryAction(RecoveryStrategy.MODIFY_PARAMETERS, "switch", 0.5, {"models": models})
        assert chain.apply_recovery_action(switch)
    assert chain.run().text == "one"


def test_another_model_has_attempts_of_its_own(storage, clock):
    first = Provided(*[overloaded()] * 9)
    second = Provided(overloaded(), overloaded(), "theirs", name="other:model")
    chain = chain_of(Choice(first, second), storage, chain_id="r", clock=clock)
    assert chain.with_options(value_usd=1e6).run_with_recovery().text == "theirs"
    assert first.calls + second.calls > 3  # so many attempts a step has
    assert second.calls == 3


def test_waits_for_a_provider_are_not_in_the_history_of_actions(storage, clock):
    down = Provided(clock=clock, down_until=clock.time() + 100.0)
    for number in range(5):
        with pytest.raises(ChainError):
            chain_of(down, storage, chain_id=f"r{number}", clock=clock).run()
    chain_of(down, storage, chain_id="held", clock=clock).run_with_recovery()
    actions = [one for one in of(Recovery, log(storage, "held")) if one.chosen_by != "breaker"]
    history = RecoveryManager(storage).get_recovery_history("held")
    assert actions
    assert len(history) == len(actions) < len(of(Recovery, log(storage, "held")))
    assert all(one["success"] is not None for one in history)


def test_a_store_that_cannot_share_limits_stops_no_run():
    from sifaka.errors import StorageError

    class NoCells(InMemoryStorage):
        def cells(self, names):
            raise StorageError("no cells today")

        def swap(self, name, value, version):
            raise StorageError("no cells today")

    assert chain_of(Provided(), NoCells()).run_with_recovery().text


def test_a_probe_that_the_budget_forbids_is_left_to_others(storage, clock):
    down = Provided(clock=clock, down_until=clock.time() + 29.0)
    for number in range(5):
        with pytest.raises(ChainError):
            chain_of(down, storage, chain_id=f"r{number}", clock=clock).run()
    clock.advance(60.0)
    poor = chain_of(Provided(), storage, chain_id="poor", clock=clock, budget={"tokens": 0})
    with pytest.raises(ChainError, match="budget"):
        poor.run_with_recovery()
    began = clock.time()
    assert chain_of(Provided(), storage, chain_id="other", clock=clock).run_with_recovery().text
    assert clock.time() - began < 30.0


def test_a_stated_wait_beyond_five_minutes_is_no_pause(storage, clock):
    model = Provided(doubles.busy(86_400.0))
    chain = chain_of(model, storage, chain_id="r", clock=clock)
    with pytest.raises(ChainError):
        chain.run_with_recovery()
    assert of(Faulted, log(storage, "r"))[0].fault.kind == "quota_exhausted"
    assert model.calls == 1


def test_after_its_deadline_a_run_makes_no_more_calls(storage, clock):
    def slow(prompt):
        clock.advance(100.0)
        return "text"

    chain = chain_of(slow, storage, chain_id="r", clock=clock, critics=[doubles.wanting(3)])
    chain.with_options(limits={"deadline_s": 150.0})
    with pytest.raises(ChainError, match=r"deadline|time"):
        chain.run()
    assert clock.time() - FakeClock().time() <= 200.0


def test_what_a_switch_and_a_wait_for_a_provider_look_like(storage, clock):
    down = Provided(clock=clock, down_until=clock.time() + 100.0)
    for number in range(5):
        with pytest.raises(ChainError):
            chain_of(down, storage, chain_id=f"r{number}", clock=clock).run()
    other = Provided("theirs", name="other:model")
    chain_of(Choice(down, other), storage, chain_id="switched", clock=clock).run()
    chain_of(down, storage, chain_id="held", clock=clock).run_with_recovery()
    said = {name: [one.says for one in story_of(log(storage, name)).moments] for name in ("switched", "held")}
    assert any("asked other:model instead of acme:large" in one for one in said["switched"])
    assert any(one.startswith("left alone for") and "acme:large" in one for one in said["held"])


def test_a_switch_to_another_model_waits_for_nobody(storage, clock):
    first, second = Provided(*[overloaded()] * 9), Provided("theirs", name="other:model")
    began = clock.time()
    assert chain_of(Choice(first, second), storage, chain_id="r", clock=clock).run().text == "theirs"
    assert clock.time() == began
