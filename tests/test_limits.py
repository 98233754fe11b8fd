"""How often, how long and for how much a run may try; all of it outlives the process."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

import doubles
from doubles import (
    Asking,
    Critic,
    Died,
    Model,
    Retriever,
    Validator,
    busy,
    causes,
    chain_of,
    died,
    entry,
    log,
    of,
    priced,
    strategies,
    wanting,
)
from sifaka.errors import ChainError, ModelError
from sifaka.faults.table import KINDS
from sifaka.log.records import Closed, Faulted, Intent, Opened, Recovery
from sifaka.recovery import RecoveryStrategy
from sifaka.recovery.limits import Limits
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.clock import FakeClock

storage = doubles.storage
S = RecoveryStrategy


def test_the_defaults_are_the_written_ones():
    assert Limits() == Limits(attempts_per_step=3, actions=8, full_restarts=2, deaths=10, waits_s=3600.0)


# Attempts ----------------------------------------------------------------------------------


def test_a_step_is_attempted_three_times(storage):
    model = Model(*[busy()] * 9)
    chain = chain_of(model, storage, chain_id="r")
    with pytest.raises(ChainError, match="attempted 3 times"):
        chain.run_with_recovery()
    assert model.calls == 3
    assert [one.attempt for one in of(Faulted, log(storage, "r"))] == [1, 2, 3]
    assert [one.attempt for one in of(Intent, log(storage, "r"))] == [1, 2, 3]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_number_of_attempts_can_be_set(most):
    model = Model(*[busy()] * 9)
    with pytest.raises(ChainError):
        chain_of(model).with_options(limits={"attempts_per_step": most}).run_with_recovery()
    assert model.calls == most


def test_each_step_has_attempts_of_its_own(storage):
    model = Model(busy(), busy(), "text 0", busy(), busy(), "text 1")
    assert chain_of(model, storage, critics=[wanting(1)]).run_with_recovery().text == "text 1"


def interrupted(chain):
    """Runs a chain whose model is interrupted in the middle of a call."""
    with pytest.raises(KeyboardInterrupt):
        chain.run_with_recovery()


def test_attempts_outlive_an_interruption(storage):
    interrupted(chain_of(Model(busy(), busy(), KeyboardInterrupt), storage, chain_id="r"))
    model = Model(busy(), busy())
    with pytest.raises(ChainError, match="attempted 3 times"):
        chain_of(model, storage, chain_id="r").run_with_recovery()
    assert model.calls == 1


def test_attempts_outlive_a_death(storage):
    model = Model(busy(), busy(), lambda _: doubles.die(storage, "r"))
    with pytest.raises(Died):
        chain_of(model, storage, chain_id="r").run_with_recovery()
    model = Model(busy(), busy())
    with pytest.raises(ChainError, match="attempted 3 times"):
        chain_of(model, storage, chain_id="r").run_with_recovery()
    assert model.calls == 1


# Actions and restarts ----------------------------------------------------------------------


def test_a_run_takes_eight_actions(storage):
    model = Model(*[one for number in range(9) for one in (busy(), f"text {number}")])
    chain = chain_of(model, storage, chain_id="r", critics=[wanting(20)], max_improvement_iterations=12)
    with pytest.raises(ChainError, match="8 recovery actions"):
        chain.run_with_recovery()
    assert len(strategies(log(storage, "r"))) == 8


def test_actions_outlive_a_death_and_an_interruption(storage):
    def go(model):
        chain = chain_of(model, storage, chain_id="r", critics=[wanting(20)], max_improvement_iterations=12)
        return chain.with_options(limits={"actions": 3}).run_with_recovery()

    with pytest.raises(Died):
        go(Model(busy(), "0", busy(), "1", lambda _: doubles.die(storage, "r")))
    with pytest.raises(KeyboardInterrupt):
        go(Model("2", busy(), "3", KeyboardInterrupt))
    with pytest.raises(ChainError, match="3 recovery actions"):
        go(Model("4", busy(), "5"))


def test_restarts_are_limited_and_outlive_the_process(storage):
    def go(model):
        found = [Retriever("find")]
        chain = chain_of(model, storage, chain_id="r", critics=[wanting(9)], retrievers=found)
        chain.with_options(limits={"attempts_per_step": 1, "actions": 99, "full_restarts": 2})
        return chain.run_with_recovery()

    always = [ConnectionError("reset")] * 9
    with pytest.raises(KeyboardInterrupt):
        go(Model(always[0], KeyboardInterrupt))
    assert strategies(log(storage, "r")) == ["full_restart"]
    with pytest.raises(ChainError, match="restarted 2 times"):
        go(Model(*always))
    assert strategies(log(storage, "r")) == ["full_restart"] * 2


# Waiting -----------------------------------------------------------------------------------


def test_a_wait_that_the_provider_states_is_no_attempt(storage):
    clock = FakeClock()
    model = Model(*[busy(10.0)] * 12)
    chain = chain_of(model, storage, chain_id="r", clock=clock)
    assert chain.run_with_recovery().text == "text 12"
    assert sum(clock.slept) == pytest.approx(120.0, abs=5.0)
    assert [one.counts for one in of(Recovery, log(storage, "r"))] == [False] * 12


def test_a_backoff_of_our_own_is_an_attempt():
    clock = FakeClock()
    model = Model(busy(), busy())
    chain_of(model, clock=clock).run_with_recovery()
    assert 0 < sum(clock.slept) <= 3.0


@pytest.mark.parametrize("turn", [False, True], ids=["first", "second"])
def test_a_stated_wait_is_no_attempt_for_any_of_the_parts_that_ask_for_one(turn):
    async def steady(thought):
        rounds["steady"] += 1
        if rounds["steady"] <= 4:
            raise busy(5.0)
        return {"needs_improvement": False, "message": ""}

    async def longer(thought):
        rounds["longer"] += 1
        if rounds["longer"] <= 7:
            raise busy(5.0 if rounds["longer"] <= 6 else None)
        return {"needs_improvement": False, "message": ""}

    rounds = {"steady": 0, "longer": 0}
    critics = [longer, steady] if turn else [steady, longer]
    chain = chain_of(Model(), critics=critics)
    assert asyncio.run(chain.arun_with_recovery()).text == "text 0"
    assert rounds == {"steady": 5, "longer": 8}
    assert [one.skipped for one in chain.get_thought().critic_feedback] == [False, False]


def test_waits_are_limited_in_sum_and_outlive_the_process(storage):
    def go(model):
        chain = chain_of(model, storage, chain_id="r").with_options(limits={"waits_s": 100.0})
        return chain.run_with_recovery()

    with pytest.raises(KeyboardInterrupt):
        go(Model(busy(40.0), busy(40.0), KeyboardInterrupt))
    model = Model(busy(40.0))
    with pytest.raises(ChainError, match=r"has waited 8\d s"):
        go(model)
    assert model.calls == 1


def test_a_wait_of_more_than_five_minutes_is_no_wait():
    clock = FakeClock()
    model = Model(busy(301.0))
    with pytest.raises(ChainError) as caught:
        chain_of(model, clock=clock).run_with_recovery()
    assert caught.value.fault.kind == "quota_exhausted"
    assert clock.slept == []


@pytest.mark.parametrize("wait", [0.0, 0.001])
def test_a_stated_wait_of_next_to_nothing_makes_no_loop(wait):
    model = Model(*[busy(wait)] * 300)
    with pytest.raises(ChainError):
        chain_of(model).run_with_recovery()


# No loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["retrieval", "generation", "validation", "criticism"])
def test_whatever_fails_for_ever_ends_soon(kind, where):
    calls = count()

    def fails(*_):
        assert next(calls) < 60
        raise ModelError("it failed", kind=kind)

    parts = {
        "retrieval": {"retrievers": [fails]},
        "generation": {},
        "validation": {"validators": [fails]},
        "criticism": {"critics": [fails]},
    }[where]
    model = Model(*[fails] * 99) if where == "generation" else Model()
    chain = chain_of(model, **parts).with_options(timeout_s=5.0, temperature=1.0, critique_final=True)
    try:
        thought = chain.run_with_recovery()
    except ChainError:
        assert entry(chain._storage, chain.chain_id).status == "failed"
    else:
        assert thought.text
    assert model.calls <= 30
    tried = strategies(log(chain._storage, chain.chain_id))
    # A skip ends its part: it needs no allowance, and there are only so many parts.
    assert len([one for one in tried if one != "skip_to_next_step"]) <= 8


# Deaths ------------------------------------------------------------------------------------


def die_again(storage, times, **options):
    for _ in range(times):
        chain = chain_of(Model(lambda _: doubles.die(storage, "r")), storage, chain_id="r", **options)
        died(chain.with_options(limits={"deaths": 3}))


def test_deaths_at_one_position_are_limited(storage):
    die_again(storage, 3)
    model = Model()
    chain = chain_of(model, storage, chain_id="r").with_options(limits={"deaths": 3})
    with pytest.raises(ChainError, match="died 3 times at generation"):
        chain.run_with_recovery()
    assert model.calls == 0
    assert entry(storage, "r").status == "failed"
    assert len(of(Opened, log(storage, "r"))) == 4


def test_deaths_are_not_counted_as_attempts(storage):
    die_again(storage, 2)
    model = Model(busy(), busy())
    assert chain_of(model, storage, chain_id="r").run_with_recovery().text == "text 2"


def test_deaths_at_several_positions_are_not_added_up(storage):
    for _ in range(4):
        model = Model("text", lambda _: doubles.die(storage, "r"))
        chain = chain_of(
            model, storage, chain_id="r", critics=[wanting(9)], max_improvement_iterations=6
        ).with_options(limits={"deaths": 2})
        died(chain)
    assert causes(log(storage, "r")) == ["new", "death", "death", "death"]


def test_an_interruption_is_no_death(storage):
    for _ in range(4):
        chain = chain_of(Model(KeyboardInterrupt), storage, chain_id="r")
        with pytest.raises(KeyboardInterrupt):
            chain.with_options(limits={"deaths": 2}).run()
    assert chain_of(Model(), storage, chain_id="r").run().text == "text 0"


def test_a_cheap_part_that_kills_its_process_is_counted_too(storage):
    class Deadly(Validator):
        pure = True

        def validate(self, thought):
            doubles.die(storage, "r")

    class Broken(Validator):
        pure = True

        def validate(self, thought):
            raise KeyError("x")

    def chain(part):
        found = chain_of(Model(), storage, chain_id="r", validators=[part("v")])
        return found.with_options(limits={"deaths": 3})

    with pytest.raises(ChainError):
        chain(Broken).run()
    for _ in range(3):
        died(chain(Deadly))
    with pytest.raises(ChainError, match="died"):
        chain(Deadly).run()


# A new allowance ---------------------------------------------------------------------------


def test_an_explicit_new_call_on_a_failed_run_opens_a_new_recorded_allowance(storage):
    model = Model(*[busy()] * 6)
    chain = chain_of(model, storage, chain_id="r")
    for calls in (3, 6):
        with pytest.raises(ChainError):
            chain.run_with_recovery()
        assert model.calls == calls
    assert chain.run_with_recovery().text == "text 6"
    assert causes(log(storage, "r")) == ["new", "retry", "retry"]
    assert [one.status for one in of(Closed, log(storage, "r"))] == ["failed", "failed", "done"]


def test_a_new_allowance_after_too_many_deaths(storage):
    die_again(storage, 3)
    chain = chain_of(Model(), storage, chain_id="r").with_options(limits={"deaths": 3})
    with pytest.raises(ChainError):
        chain.run()
    die_again(storage, 2)
    assert chain.run().text == "text 0"


def test_a_new_allowance_counts_waits_anew_and_money_on(storage):
    model = Model(priced("0"), busy(40.0), busy(40.0), priced("1"), priced("2"))
    chain = chain_of(model, storage, chain_id="r", critics=[wanting(9)], budget=2.0)
    chain.with_options(limits={"waits_s": 50.0})
    with pytest.raises(ChainError, match="waited"):
        chain.run_with_recovery()
    with pytest.raises(ChainError, match=r"budget of \$2"):
        chain.run_with_recovery()
    assert model.calls == 4


# Money -------------------------------------------------------------------------------------


def test_no_call_is_made_that_the_money_does_not_cover(storage):
    model = Model(priced("0", 0.4), priced("1", 0.4), price_max=0.5)
    chain = chain_of(model, storage, chain_id="r", critics=[wanting(9)], budget=1.0)
    with pytest.raises(ChainError, match="budget") as caught:
        chain.run()
    assert model.calls == 2
    assert caught.value.thought.cost == pytest.approx(0.8)
    assert caught.value.fault is None
    assert entry(storage, "r").status == "failed"
    assert "budget" in entry(storage, "r").reason


def test_money_never_resets_by_itself(storage):
    model = Model(priced("0"), price_max=1.0)
    chain = chain_of(model, storage, chain_id="r", critics=[wanting(9)], budget=1.0)
    for _ in range(3):
        with pytest.raises(ChainError, match="budget"):
            chain.run_with_recovery()
    other = chain_of(model, storage, chain_id="r", critics=[wanting(9)], budget=1.0)
    with pytest.raises(ChainError, match="budget"):
        other.resume()
    assert model.calls == 1


def test_more_money_lets_it_go_on(storage):
    model = Model(priced("0"), priced("1"), price_max=1.0)
    chain = chain_of(model, storage, chain_id="r", critics=[wanting(1)], budget=1.1)
    with pytest.raises(ChainError):
        chain.run()
    thought = chain.with_options(budget=2.1).run()
    assert (thought.text, thought.cost) == ("1", 2.0)


def test_a_doubtful_call_counts_with_its_highest_price(storage):
    for _ in range(2):
        model = Model(lambda _: doubles.die(storage, "r"), price_max=0.4)
        died(chain_of(model, storage, chain_id="r", budget=1.0))
    model = Model(price_max=0.4)
    with pytest.raises(ChainError, match=r"\$0\.8000 are spent") as caught:
        chain_of(model, storage, chain_id="r", budget=1.0).run()
    assert model.calls == 0
    assert [one.price_max_usd for one in caught.value.thought.in_doubt] == [0.4, 0.4]
    assert chain_of(model, storage, chain_id="r", budget=1.21).run().text == "text 0"


def test_doubts_count_still_after_many_iterations(storage):
    def chain(model):
        return chain_of(
            model,
            storage,
            chain_id="r",
            critics=[wanting(9)],
            max_improvement_iterations=9,
            budget=2.05,
        )

    died(chain(Model(lambda _: doubles.die(storage, "r"), price_max=1.0)))
    prices = [priced(str(one), 0.1) for one in range(9)]
    with pytest.raises(KeyboardInterrupt):
        chain(Model(*prices[:5], KeyboardInterrupt, price_max=0.1)).run()
    with pytest.raises(ChainError, match=r"\$1\.6000 are spent"):
        chain(Model(*prices, price_max=0.5)).run()


def test_calls_that_run_together_do_not_overdraw(storage):
    asked = Model(priced("fine", 0.6), priced("fine", 0.6), name="asked", price_max=0.6)
    model = Model(priced("text", 0.0), price_max=0.0)
    critics = [Asking("a", ["why"], asked), Asking("b", ["why"], asked)]
    chain = chain_of(model, storage, critics=critics, budget=1.0)
    with pytest.raises(ChainError, match="budget") as caught:
        chain.run()
    assert asked.calls == 1
    assert caught.value.thought.cost <= 1.0


def test_what_runs_together_is_waited_for_when_the_money_ends(storage):
    asked = Model(priced("fine", 0.5), name="asked", price_max=0.5)
    poor = Model(name="poor", price_max=0.6)
    chain = chain_of(
        Model(priced("text", 0.0), price_max=0.0),
        storage,
        chain_id="r",
        critics=[Asking("a", ["why"], asked), Asking("b", ["why"], poor)],
        budget=0.55,
    )
    with pytest.raises(ChainError, match="budget"):
        chain.run()
    assert (asked.calls, poor.calls) == (1, 0)
    thought = chain.with_options(budget=2.0).run()
    assert (asked.calls, poor.calls) == (1, 1)
    assert len(thought.critic_feedback) == 2


@pytest.mark.parametrize("price_max", [1.0, None])
def test_what_is_free_may_still_run_when_the_money_is_spent_to_the_last_cent(price_max):
    model = Model(priced("text", 1.0), price_max=price_max)
    thought = chain_of(model, validators=[Validator("v")], critics=[Critic("c")], budget=1.0).run()
    assert (thought.passed, thought.cost) == (True, 1.0)


def test_an_unknown_price_is_never_counted_as_nothing_known():
    thought = chain_of(Model("a"), budget=1.0).run()
    assert (thought.cost, thought.cost_unknown_calls) == (0.0, 1)


def test_a_budget_of_nothing_allows_what_is_free():
    assert chain_of(Model(priced("free", 0.0), price_max=0.0), budget=0.0).run().text == "free"
    with pytest.raises(ChainError, match="budget"):
        chain_of(Model(price_max=0.01), budget=0.0).run()


# Tokens and seconds ------------------------------------------------------------------------


def test_tokens_are_limited_over_all_lives(storage):
    def chain(model):
        return chain_of(model, storage, chain_id="r", critics=[wanting(9)], budget={"tokens": 250})

    with pytest.raises(KeyboardInterrupt):
        chain(Model(priced("0", 0.0, 100), priced("1", 0.0, 100), KeyboardInterrupt)).run()
    model = Model(priced("2", 0.0, 100))
    for _ in range(2):
        with pytest.raises(ChainError, match="250 tokens"):
            chain(model).run_with_recovery()
    assert model.calls == 1


def test_seconds_are_those_a_run_is_alive(storage):
    clock = FakeClock()

    def takes(seconds, answer):
        def work(prompt):
            clock.advance(seconds)
            if isinstance(answer, type):
                raise answer
            return answer

        return work

    def chain(*work):
        return chain_of(
            Model(*work),
            storage,
            chain_id="r",
            critics=[wanting(9)],
            max_improvement_iterations=20,
            budget={"seconds": 100.0},
            clock=clock,
        )

    with pytest.raises(KeyboardInterrupt):
        chain(*[takes(10.0, "text")] * 4, takes(0.0, KeyboardInterrupt)).run()
    clock.advance(1000.0)
    with pytest.raises(ChainError, match="time budget of 100 s"):
        chain(*[takes(10.0, "text")] * 9).run()
    assert len([one for one in log(storage, "r") if getattr(one, "text", None)]) == 10


def test_no_wait_goes_past_the_time_budget():
    clock = FakeClock()
    model = Model(busy(60.0))
    with pytest.raises(ChainError, match="time budget"):
        chain_of(model, clock=clock, budget={"seconds": 30.0}).run_with_recovery()
    assert clock.slept == []
    assert model.calls == 1


def test_a_living_owner_of_long_ago_is_a_death_too():
    store = InMemoryStorage(clock=FakeClock())
    died(chain_of(Model(lambda _: doubles.die(store, "r")), store, chain_id="r"))
    found = store.entry("r")
    store.claim("r", found.token, doubles.elsewhere(), store.now() + 10.0)
    store.clock.advance(11.0)
    assert chain_of(Model(), store, chain_id="r").run().text == "text 0"
    assert causes(log(store, "r")) == ["new", "death"]
