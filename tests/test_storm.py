"""A thousand chains in an outage: few calls to the dead provider, an end for each, no storm after it; and no loops."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sifaka.chain import Chain
from sifaka.errors import ChainError
from sifaka.log.records import Faulted, Recovery
from sifaka.parts import Request
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy, move
from sifaka.recovery.gate import GateSettings
from sifaka.testing.simulation import (
    Outages,
    SimulatedProvider,
    Simulation,
    TokenBucket,
    failure,
)
from sifaka.testing.simulation.failures import KINDS_RAISED
from sifaka.thought import CriticFeedback, ValidationResult

CHAINS = 1_000
PROCESSES = 8
OUTAGE_S = 600.0
SETTINGS = GateSettings()


class Storm:
    """A thousand chains, 3 started each second; their provider is dead from the first minute to the eleventh."""

    def __init__(self, seed, *, gated=True, attempts=3):
        self.simulation = simulation = Simulation(seed=seed, processes=PROCESSES)
        self.begin = begin = simulation.clock.time()
        self.out = (begin + 60, begin + 60 + OUTAGE_S)
        self.provider = SimulatedProvider(
            "p", simulation.clock, seed=seed, weather=Outages([self.out]), bad_failure=1.0, good_failure=0.0
        )
        self.steps = Counter()
        for number in range(CHAINS):
            model = self.provider.model()
            if not gated:
                model.provider = ""
            chain = Chain(model, "Write.", chain_id=f"c{number}", clock=simulation.clock)
            chain.with_options(limits={"attempts_per_step": attempts, "actions": 10 * attempts})
            simulation.at(begin + number / 3, lambda chain=chain: simulation.start(chain))
        simulation.run()
        self.runs = list(simulation.runs.values())

    def in_outage(self):
        return [one.time for one in self.provider.arrivals if self.out[0] <= one.time < self.out[1]]

    def after(self):
        """Seconds since the first answer after the outage, of all calls since then."""
        times = [one.time for one in self.provider.arrivals if one.time >= self.out[1]]
        return [time - times[0] for time in times]


@cache
def storm(seed):
    return Storm(seed)


SEEDS = (1, 2, 3)


def probes_in(seconds):
    """How many probes a breaker makes in so long an outage: its openings double up to their longest."""
    span, passed, probes = SETTINGS.breaker.open_s, 0.0, 0
    while passed + span < seconds:
        passed += span
        span = min(SETTINGS.breaker.open_max_s, 2 * span)
        probes += 1
    return probes


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_to_a_dead_provider_stay_within_the_retry_budget_and_the_probes(seed):
    calls = storm(seed).in_outage()
    # Each process may see for itself that it fails five times in a row before they have told each other.
    noticing = PROCESSES * SETTINGS.breaker.in_a_row
    retries = SETTINGS.retries.least_per_min * SETTINGS.retries.window_s / 60 + SETTINGS.retries.share * len(
        calls
    )
    assert len(calls) <= noticing + retries + probes_in(OUTAGE_S)
    noticed = [time for time in calls if time > storm(seed).out[0] + 30]
    assert len(noticed) <= probes_in(OUTAGE_S)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_chain_ends_and_nearly_all_end_done(seed):
    runs = storm(seed).runs
    assert len(runs) == CHAINS
    assert storm(seed).simulation.unfinished == []
    failed = [run.error for run in runs if run.error is not None]
    assert len(failed) <= CHAINS // 100
    assert all(isinstance(error, ChainError) and error.reason for error in failed)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_load_after_an_outage_grows_steadily_and_is_no_storm(seed):
    after = storm(seed).after()
    assert len(after) > CHAINS / 2
    pace = SETTINGS.pace
    new_per_s = 3.0
    for count, passed in enumerate(after, 1):
        let_go = pace.first_per_s * passed + pace.more_per_s * passed**2 / 2
        assert count <= let_go + new_per_s * passed + PROCESSES * 2


@pytest.mark.parametrize("seed", SEEDS)
def test_the_chains_that_waited_are_through_soon_after_the_outage(seed):
    last = max(run.ended_at for run in storm(seed).runs)
    assert last <= storm(seed).out[1] + SETTINGS.breaker.open_max_s + 180


def test_without_the_gate_the_same_outage_is_a_storm():
    wild = Storm(1, gated=False, attempts=30)
    assert len(wild.in_outage()) > 10 * len(storm(1).in_outage())


def test_chains_end_with_a_reason_where_a_provider_never_comes_back():
    simulation = Simulation(processes=2)
    begin = simulation.clock.time()
    provider = SimulatedProvider(
        "p", simulation.clock, weather=Outages([(begin, begin + 1e9)]), bad_failure=1.0
    )
    for number in range(100):
        simulation.start(Chain(provider.model(), "Write.", chain_id=f"c{number}", clock=simulation.clock))
    simulation.run()
    assert all(isinstance(run.error, ChainError) for run in simulation.runs.values())
    assert len(provider.arrivals) <= 100 + probes_in(2 * 3600)  # all of them begin at the same moment
    assert simulation.clock.time() - begin <= 2 * 3600


def test_a_thousand_chains_at_a_rate_limit_do_not_hammer_it():
    simulation = Simulation(processes=PROCESSES)
    provider = SimulatedProvider(
        "p", simulation.clock, bucket=TokenBucket(5.0, 20.0), good_failure=0.0, latency_s=2.0
    )
    begin = simulation.clock.time()
    for number in range(CHAINS):
        chain = Chain(provider.model(), "Write.", chain_id=f"c{number}", clock=simulation.clock)
        simulation.at(begin + number / 50, lambda chain=chain: simulation.start(chain))
    simulation.run()
    refused = sum(one.kind == "rate_limit" for one in provider.arrivals)
    done = sum(run.thought is not None for run in simulation.runs.values())
    assert simulation.unfinished == []
    assert done >= 0.99 * CHAINS
    assert refused <= 2 * CHAINS


# No recovery loops ---------------------------------------------------------------------------

CALL_S = 30.0
"""The longest a call of these chains takes."""
STEPS = ("retrieval", "generation", "validation", "criticism")


class Doomed:
    """A chain one step of which always fails in the same way, with as many parts as wanted."""

    def __init__(self, simulation, step, kind, size, parts):
        self.simulation, self.step, self.kind, self.size, self.parts = simulation, step, kind, size, parts
        self.calls = 0

    def fails_at(self, step):
        self.calls += 1
        self.simulation.clock.sleep(0.5)
        if step == self.step:
            raise failure(self.kind, self.size)

    def chain(self, **options):
        def model(prompt, temperature=0.8, max_tokens=1024, system_prompt=None):
            self.fails_at("criticism" if prompt == "Criticise." else "generation")
            return "a text"

        def retrieve(query):
            self.fails_at("retrieval")
            return ["a document " * 100]

        def validate(thought):
            self.fails_at("validation")
            return ValidationResult(True)

        def critique(thought):
            yield Request("Criticise.")
            return CriticFeedback(True, "more")

        chain = Chain(
            model, "Write.", chain_id="doomed", clock=self.simulation.clock, max_improvement_iterations=1
        )
        chain.with_model_retrievers([retrieve])
        for _ in range(self.parts):
            chain.validate_with(validate).improve_with(critique)
        return chain.with_options(temperature=0.8, max_tokens=1024, timeout_s=CALL_S, **options)


limits = st.fixed_dictionaries(
    {
        "attempts_per_step": st.integers(1, 5),
        "actions": st.integers(0, 10),
        "full_restarts": st.integers(0, 3),
        "stated_waits": st.integers(0, 20),
        "waits_s": st.floats(0, 2_000),
        "deadline_s": st.none() | st.floats(1, 500),
    }
)
strategies = st.sampled_from(RecoveryStrategy)
parameters = st.sampled_from([{}, {"max_tokens": 2048}, {"temperature": 0.1}, {"max_context_chars": 50}])
actions = st.builds(
    RecoveryAction,
    strategies,
    st.just("whatever"),
    st.floats(0, 1),
    parameters=parameters,
    delay_s=st.sampled_from([0.0, 0.0, 1.0, 100.0]),
    counts=st.sampled_from([True, True, False]),
)


class Adversary:
    """A policy that offers what it likes, the same again and again, and learns nothing."""

    def __init__(self, offers):
        self.offers = offers

    def rank(self, at):
        return [one for one in self.offers if move(one.strategy, at.position, (at.part,)) is not None]

    def learn(self, chain_id, attempts):
        pass


def run_doomed(step, kind, size, parts, allowed, evidence=None):
    seen = []
    simulation = Simulation(evidence=evidence, watch=lambda run, records: seen.extend(records))
    doomed = Doomed(simulation, step, kind, size, parts)
    run = simulation.start(doomed.chain(limits=allowed))
    simulation.run()
    assert run.is_over
    return run, doomed, seen


def assert_within(run, doomed, seen, allowed):
    """What was tried is within the limits, and the run has ended for a reason."""
    recoveries = [one for one in seen if isinstance(one, Recovery)]
    counted = [one for one in recoveries if one.counts]
    waits = [one for one in recoveries if not one.counts]
    # A part is skipped once in an iteration at the most, or once more where a restart has set that aside.
    rounds = 2 * (1 + sum(one.sets_aside for one in counted))
    skips = Counter((name, one.operation) for one in counted for name in one.skips)
    assert max(skips.values(), default=0) <= rounds
    assert sum(not one.skips for one in counted) <= allowed["actions"]
    assert len(waits) <= allowed["stated_waits"]
    assert sum(one.strategy == "full_restart" for one in counted) <= allowed["full_restarts"]
    assert sum(one.delay_s for one in recoveries) <= allowed["waits_s"] + 1e-6
    if allowed.get("deadline_s") is not None:  # what is out at the deadline is waited for
        assert run.ended_at - run.began_at <= allowed["deadline_s"] + CALL_S
    # Each action begins the chain's calls again at the most: it has at most 2 iterations of each part.
    most_calls = (len(recoveries) + 1) * 2 * (2 + 2 * doomed.parts)
    assert doomed.calls <= most_calls
    if run.error is not None:
        assert isinstance(run.error, ChainError)
        assert run.error.reason
    else:
        assert run.thought is not None
        assert doomed.step != "generation"
        # The step was left out: skipped, or passed over on the way to a text.
        passed_over = {"skip_to_next_step", "restart_from_generation"}
        assert passed_over & {one.strategy for one in recoveries}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", KINDS_RAISED)
def test_a_step_that_always_fails_ends_the_run_within_the_limits(step, kind):
    allowed = {
        "attempts_per_step": 3,
        "actions": 8,
        "full_restarts": 2,
        "stated_waits": 100,
        "waits_s": 3600.0,
    }
    run, doomed, seen = run_doomed(step, kind, 5.0, 1, allowed)
    assert any(isinstance(one, Faulted) and one.fault.kind == kind for one in seen)
    assert_within(run, doomed, seen, allowed)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(STEPS), st.sampled_from(KINDS_RAISED), st.floats(0.1, 400), st.integers(1, 3), limits)
def test_no_world_that_always_fails_makes_a_loop(step, kind, size, parts, allowed):
    run, doomed, seen = run_doomed(step, kind, size, parts, allowed)
    assert_within(run, doomed, seen, allowed)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(STEPS),
    st.sampled_from(KINDS_RAISED),
    st.integers(1, 3),
    limits,
    st.lists(actions, max_size=4),
)
def test_no_ranking_however_foolish_makes_a_loop(step, kind, parts, allowed, offers):
    run, doomed, seen = run_doomed(step, kind, 5.0, parts, allowed, Adversary(offers))
    assert_within(run, doomed, seen, allowed)
