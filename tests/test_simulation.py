"""The simulator: virtual time, the same for the same seed; its weather, its failures, and its oracle."""

from __future__ import annotations

import doctest
import math
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from sifaka.chain import Chain
from sifaka.errors import ChainError
from sifaka.faults import classify
from sifaka.log.records import Faulted, Partial, Recovery
from sifaka.parts import Heard, Reply
from sifaka.recovery.evidence import Evidence
from sifaka.storage.cells import SharedCells
from sifaka.testing.simulation import (
    ANTHROPIC,
    OPENAI,
    Incidents,
    Outages,
    SimulatedProvider,
    Simulation,
    TokenBucket,
    VirtualClock,
    driver,
    failure,
)
from sifaka.testing.simulation.causes import CAUSES, PLACES, PROVIDER
from sifaka.testing.simulation.failures import KINDS_RAISED
from sifaka.testing.simulation.offers import offered
from sifaka.testing.simulation.oracle import STOP, Node
from sifaka.testing.simulation.world import World, WorldSettings

HOUR_S = 3600.0


def chains(simulation, count=30, fails=0.3):
    """Chains on a provider that fails often, three started at a time."""
    provider = SimulatedProvider("p", simulation.clock, seed=simulation.seed, good_failure=fails)
    begin = simulation.clock.time()
    for number in range(count):
        chain = Chain(provider.model(), "Write.", chain_id=f"c{number}", clock=simulation.clock)
        simulation.at(begin + number // 3, lambda chain=chain: simulation.start(chain))
    return provider


def played(seed):
    simulation = Simulation(seed=seed)
    chains(simulation)
    simulation.run()
    return simulation


# Virtual time --------------------------------------------------------------------------------


def test_the_example_in_the_documentation_is_true():
    assert doctest.run_docstring_examples(driver.Simulation, {}, name="Simulation") is None
    found = doctest.DocTestRunner(verbose=False)
    for one in doctest.DocTestFinder().find(driver.Simulation, "Simulation"):
        found.run(one)
    assert found.tries >= 6
    assert found.failures == 0


def test_a_part_that_sleeps_an_hour_takes_an_hour_of_virtual_time_and_none_of_ours():
    simulation = Simulation()

    def model(prompt):
        simulation.clock.sleep(HOUR_S)
        return "a text"

    run = simulation.start(Chain(model, "Write.", clock=simulation.clock))
    assert not run.is_over
    simulation.run()
    assert run.thought.text == "a text"
    assert run.ended_at - run.began_at == HOUR_S


def test_runs_go_on_side_by_side_while_others_wait():
    simulation = Simulation()

    async def model(prompt):
        await simulation.clock.asleep(10.0)
        return "a text"

    for number in range(100):
        simulation.start(Chain(model, "Write.", chain_id=f"c{number}", clock=simulation.clock))
    simulation.run()
    assert simulation.clock.monotonic() == 10.0
    assert all(run.thought.text == "a text" for run in simulation.runs.values())


def test_parts_of_one_run_work_together():
    simulation = Simulation()

    def critic(name, seconds):
        def critique(thought):
            simulation.clock.sleep(seconds)
            return {"needs_improvement": False, "message": name}

        critique.__name__ = name
        return critique

    chain = Chain(lambda prompt: "a text", "Write.", clock=simulation.clock)
    chain.improve_with(critic("slow", 30.0)).improve_with(critic("quick", 5.0))
    run = simulation.start(chain)
    simulation.run()
    assert run.ended_at - run.began_at == 30.0
    assert {one.critic for one in run.thought.critic_feedback} == {"slow", "quick"}


def test_a_call_that_takes_longer_than_its_limit_is_a_timeout_at_the_limit():
    simulation = Simulation()

    def model(prompt):
        simulation.clock.sleep(100.0)
        return "too late"

    run = simulation.start(
        Chain(model, "Write.", clock=simulation.clock).with_options(timeout_s=7.0), recover=False
    )
    simulation.run()
    assert isinstance(run.error, ChainError)
    assert run.error.fault.kind == "timeout"
    assert run.ended_at - run.began_at == 7.0


def test_an_async_part_that_waits_for_something_real_is_told_that_it_cannot():
    import asyncio

    simulation = Simulation()

    async def model(prompt):
        await asyncio.sleep(0)
        return "a text"

    run = simulation.start(Chain(model, "Write.", clock=simulation.clock), recover=False)
    simulation.run()
    assert "clock.asleep()" in str(run.error)


def test_what_is_heard_of_a_streamed_call_is_recorded_at_its_time():
    simulation = Simulation()
    seen = []

    class Streaming:
        name = "p:streaming"
        accepts = ("hear",)

        def generate(self, prompt, hear=None):
            for text in ("one", "one two", "one two three"):
                simulation.clock.sleep(1.0)
                if hear is not None:
                    hear(Heard("h1", text))
            return Reply("one two three")

    simulation = Simulation(watch=lambda run, records: seen.extend(records))
    chain = Chain(Streaming(), "Write.", clock=simulation.clock).with_options(stream=True)
    begin = simulation.clock.time()
    run = simulation.start(chain)
    simulation.run()
    assert run.thought.text == "one two three"
    assert [one.at - begin for one in seen if isinstance(one, Partial)][:2] == [1.0, 2.0]


# The same each time --------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_trace_and_another_seed_another():
    one, again, other = played(3), played(3), played(4)
    assert one.trace == again.trace
    assert one.effects == again.effects > 100
    assert other.trace != one.trace


def test_a_run_whose_process_is_killed_goes_on_elsewhere_and_says_what_is_in_doubt():
    simulation = Simulation()

    def model(prompt):
        simulation.clock.sleep(10.0)
        return "a text"

    chain = Chain(model, "Write.", chain_id="c", clock=simulation.clock)
    run = simulation.start(chain)
    simulation.run(until=simulation.clock.time() + 4.0)
    simulation.kill(run)
    again = simulation.start(chain)
    simulation.run()
    assert run.thought is None
    assert again.engine.state.life == 2
    assert again.thought.text == "a text"
    assert len(again.thought.in_doubt) == 1


def test_a_run_that_its_process_has_lost_writes_nothing_more():
    simulation = Simulation()

    def model(prompt):
        simulation.clock.sleep(10.0)
        return "a text"

    chain = Chain(model, "Write.", chain_id="c", clock=simulation.clock)
    run = simulation.start(chain)
    simulation.kill(run)
    before = simulation.storage.storage.entry("c").last
    simulation.run()
    assert simulation.storage.storage.entry("c").last == before


# The world -----------------------------------------------------------------------------------


def test_every_failure_is_recognised_for_what_it_is():
    assert {kind: classify(failure(kind, 5.0)).kind for kind in KINDS_RAISED} == {
        kind: kind for kind in KINDS_RAISED
    }


def test_a_rate_limit_states_when_to_come_back():
    assert classify(failure("rate_limit", 7.2)).retry_after_s == 8.0


@pytest.mark.parametrize("climate", [OPENAI, ANTHROPIC])
def test_incidents_last_and_come_as_they_were_measured(climate):
    start = 1_000_000.0
    incidents = Incidents(climate, seed=1, start=start)
    times = incidents.bad_times(start + 8_000 * 24 * HOUR_S)
    assert median((end - begin) / 60 for begin, end in times) == pytest.approx(math.exp(climate.mu), rel=0.1)
    gaps = [(begin - end) / HOUR_S for (_, end), (begin, _) in pairwise(times)]
    assert sum(gaps) / len(gaps) == pytest.approx(66 * math.gamma(1 + 1 / 0.72), rel=0.12)
    for begin, end in times[:50]:
        assert incidents.is_bad(begin)
        assert incidents.is_bad((begin + end) / 2)
        assert not incidents.is_bad(end)
        assert not incidents.is_bad(begin - 1e-3)


def test_whoever_waits_as_stated_gets_through_and_whoever_comes_earlier_does_not():
    bucket = TokenBucket(0.5, 2)
    assert [bucket.take(0.0), bucket.take(0.0)] == [0.0, 0.0]
    wait = bucket.take(0.0)
    assert wait == 2.0
    assert bucket.take(1.0) == pytest.approx(1.0)
    assert bucket.take(1.9) == pytest.approx(0.1)
    assert bucket.take(2.0) == 0.0
    assert bucket.take(2.0) == 2.0


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (1.0, 0), (math.nan, 1)])
def test_a_bucket_that_lets_nothing_through_is_refused(rate, burst):
    with pytest.raises(ValueError, match="rate_per_s"):
        TokenBucket(rate, burst)


def test_a_provider_fails_more_in_its_bad_times_and_bills_what_it_answers():
    clock = VirtualClock()
    begin = clock.time()
    provider = SimulatedProvider("p", clock, weather=Outages([(begin + 1e6, begin + 1e9)]), good_failure=0.02)
    model = provider.model()
    paid = 0.0
    for _ in range(1_000):
        try:
            paid += model.generate("Write.").price_usd
        except Exception as error:
            assert classify(error).kind in {"overloaded", "server_error", "timeout", "connection"}
        clock.sleep(2_000.0)
    good = [one for one in provider.arrivals if one.time < begin + 1e6]
    bad = [one for one in provider.arrivals if one.time >= begin + 1e6]
    assert sum(bool(one.kind) for one in good) / len(good) == pytest.approx(0.02, abs=0.02)
    assert sum(bool(one.kind) for one in bad) / len(bad) == pytest.approx(0.4, abs=0.08)
    assert paid > 1
    assert provider.billed_usd == pytest.approx(paid)


# The oracle ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    return World(5, WorldSettings(episodes=900, new_contexts=40))


def ours(simulation, world):
    return Evidence(SharedCells(simulation.storage.storage))


def test_the_oracle_costs_what_it_expects_and_regrets_nothing(world):
    seen = [world.play(lambda simulation, world: world.oracle_policy())]
    assert sum(seen[0].cost_usd) == pytest.approx(sum(seen[0].value_usd), rel=0.12)
    assert sum(seen[0].regret_usd) < 1e-9


def test_nobody_is_cheaper_than_the_oracle(world):
    oracle = world.play(lambda simulation, world: world.oracle_policy())
    other = world.play(ours)
    assert sum(other.cost_usd) > sum(oracle.cost_usd)
    assert sum(other.regret_usd) > 0
    measured = sum(other.cost_usd) - sum(oracle.cost_usd)
    assert measured == pytest.approx(sum(other.regret_usd), abs=0.12 * sum(oracle.cost_usd))


def test_a_policy_that_plays_again_meets_the_same_and_does_the_same(world):
    assert world.play(ours) == world.play(ours)


def test_all_policies_meet_the_same_faults(world):
    def first_faults(policy):
        found = {}

        def watch(run, records):
            for one in records:
                if isinstance(one, Faulted):
                    found.setdefault(run.chain_id, (one.at, one.fault.kind, one.operation))

        world.play(policy, also=watch)
        return found

    assert first_faults(ours) == first_faults(lambda simulation, world: world.oracle_policy())


def test_every_kind_of_fault_is_met_and_recognised_in_the_real_engine():
    kinds = {(one.context.step, one.context.kind) for seed in range(6) for one in World(seed).episodes}
    assert kinds == {(step, kind) for step, kinds in PLACES.items() for kind in kinds}


def test_faults_are_classified_by_the_engine_as_the_world_meant_them(world):
    wrong = []

    def watch(run, records):
        kind = names[run.chain_id].context.kind
        wrong.extend(one.fault for one in records if isinstance(one, Faulted) and one.fault.kind != kind)

    names = {one.name: one for one in world.episodes}
    world.play(ours, also=watch)
    assert wrong == []


def test_the_oracle_chooses_only_what_the_library_offers(world):
    chosen = []

    def watch(run, records):
        episode = names[run.chain_id]
        where = (episode.context.step, episode.context.kind)
        chosen.extend((where, episode.lever) for one in records if isinstance(one, Recovery))

    names = {one.name: one for one in world.episodes}
    world.play(lambda simulation, world: world.oracle_policy(), also=watch)
    assert len(chosen) > 900
    assert [(where, lever) for where, lever in chosen if lever not in offered(*where)] == []


def test_a_lever_that_has_failed_is_worth_less_and_another_cause_more(world):
    oracle = next(
        one.oracle
        for one in world.episodes
        if one.context.kind == "malformed_output" and one.context.step == "criticism"
    )
    start = Node()
    chances = [oracle.chance(start, "retry")]
    node = start
    for _ in range(3):
        node = node.after("retry")
        chances.append(oracle.chance(node, "retry"))
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] < chances[0] / 2


def test_the_cheapest_course_is_the_cheapest_of_its_choices(world):
    for oracle in {id(one.oracle): one.oracle for one in world.episodes}.values():
        prices = [oracle.price(Node(), one) for one in oracle.choices(Node())]
        assert oracle.value(Node()) == min(prices) <= oracle.price(Node(), STOP)


def test_some_contexts_change_in_the_middle_so_that_something_else_is_best(world):
    changed = [one for one in world.contexts if one.later is not None]
    assert len(changed) >= 4
    by_half = {}
    for episode in world.episodes:
        if episode.context.later is not None and not episode.oracle._weights.get(PROVIDER):
            later = episode.at >= world.middle
            by_half.setdefault(id(episode.context), {})[later] = episode.oracle.best(Node())[:1]
    both = [half for half in by_half.values() if len(half) == 2]
    assert sum(half[False] != half[True] for half in both) >= len(both) / 2


def test_the_table_of_causes_covers_every_kind_that_is_met():
    assert {kind for kinds in PLACES.values() for kind in kinds} <= set(CAUSES)


# Scores --------------------------------------------------------------------------------------


@pytest.fixture
def scores(monkeypatch):
    """The benchmark's own arithmetic, which is no part of the library."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    return import_module("bench.recovery.scores")


def test_equal_forecasts_that_are_right_on_average_are_calibrated_whatever_their_order(scores):
    ece = scores.ece
    pairs = [(0.8, n % 5 != 0) for n in range(1_000)]
    assert ece(pairs) == pytest.approx(0.0)
    assert ece(sorted(pairs)) == pytest.approx(0.0)
    assert ece([(0.8, False)] * 100) == pytest.approx(0.8)


def test_the_interval_of_a_median_is_the_binomial_one(scores):
    assert scores.interval_of_median(list(range(1, 21))) == (10.5, 6, 15)
