"""Which action comes first, how sure that is, and why: posteriors, costs, suggestions, rules, exploration."""

from __future__ import annotations

from math import comb, inf

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sifaka.errors import ModelError, UsageError
from sifaka.faults import KINDS, classify
from sifaka.log.records import OPERATIONS, Position
from sifaka.recovery import RecoveryAction, RecoveryStrategy, Rule
from sifaka.recovery.actions import SKIPPABLE, action_key, move
from sifaka.recovery.calibration import calibrate, isotonic
from sifaka.recovery.candidates import candidates
from sifaka.recovery.costs import index_usd, work_of
from sifaka.recovery.counts import HALF_LIFE_S, MEMORY_HERE, VALUES_MAX, Outcome, Row, add_all, value_key
from sifaka.recovery.counts import elsewhere as as_elsewhere
from sifaka.recovery.knowledge import IGNORANCE, Knowledge, Tuning, kernel, similar_counts
from sifaka.recovery.posterior import Beta, Count, after_failures, posterior, probability_below
from sifaka.recovery.priors import APPLIES_WHEN, PRIORS, SKIP_LOSS
from sifaka.recovery.ranking import Situation, rank, ranking
from sifaka.recovery.rules import checked_rules
from sifaka.recovery.sizes import length_asked_for, sizes_in
from sifaka.storage.similarity import Case, Match

S = RecoveryStrategy
RETRY, SKIP, MODIFY = "retry_current_step", "skip_to_next_step", "modify_parameters"


def at(kind="timeout", operation="criticism", iteration=1, message="it failed", **more):
    options = more.pop("options", {})
    fault = classify(ModelError(message, kind=kind, retry_after_s=more.pop("retry_after_s", None)))
    return Situation(fault, Position(operation, iteration), "part", options, **more)


def known(here=(), elsewhere=(), step="criticism", now=0.0, **more):
    """Knowledge from (action, worked, tried) triples: of this context, and of others at this step."""
    mine, wide = {}, {}
    for action, worked, tried in here:
        for n in range(tried):
            one = Outcome(action, n < worked, now)
            wide = add_all(wide, [as_elsewhere(one, mine, HALF_LIFE_S)], HALF_LIFE_S, inf)
            mine = add_all(mine, [one], HALF_LIFE_S, inf)
    for action, worked, tried in elsewhere:  # each of another context
        wide = add_all(wide, [Outcome(action, n < worked, now) for n in range(tried)], HALF_LIFE_S, inf)
    return Knowledge(here=mine, steps={step: wide}, step=step, now=now, **more)


def find(actions, strategy, *names):
    return next(
        one for one in actions if one.strategy.value == strategy and set(names) <= set(one.parameters)
    )


def every_situation():
    options = {"timeout_s": 5.0, "temperature": 0.7, "max_tokens": 1024, "model": "m", "may_relax": True}
    for kind in KINDS:
        for operation in OPERATIONS[:-1]:
            for iteration in (0, 2):
                yield at(
                    kind,
                    operation,
                    iteration,
                    options=options,
                    prompt_chars=1000,
                    together=3,
                    fallbacks=("n",),
                    calls=5,
                    spent_usd=0.05,
                    active_s=30.0,
                )


# The posterior -----------------------------------------------------------------------------

counts = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: Count(max(pair), min(pair)))
priors = st.floats(0.01, 0.99)


@pytest.mark.parametrize(
    ("a", "b", "x"), [(3, 5, 0.3), (20, 2, 0.9), (1, 1, 0.4), (40, 60, 0.5), (2, 30, 0.01)]
)
def test_the_beta_distribution_is_the_binomials_tail(a, b, x):
    n = a + b - 1
    tail = sum(comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
    assert probability_below(x, a, b) == pytest.approx(tail, abs=1e-12)


@given(st.floats(0.05, 300), st.floats(0.05, 300))
def test_the_interval_holds_nine_tenths(a, b):
    low, high = Beta(a, b).interval()
    assert 0 <= low <= high <= 1
    held = probability_below(min(1, high + 2e-4), a, b) - probability_below(max(0, low - 2e-4), a, b)
    assert held >= 0.9 - 1e-6
    if high - low > 1e-3:  # else that is as exact as it gets
        assert probability_below(high - 2e-4, a, b) - probability_below(low + 2e-4, a, b) <= 0.9 + 1e-6


@given(priors, counts, counts)
def test_more_successes_are_never_trusted_less(prior, here, step):
    def mean(count):
        return posterior([prior], [[step], [count]]).mean

    more = Count(here.tried + 1, here.worked + 1)
    worse = Count(here.tried + 1, here.worked)
    assert mean(worse) < mean(here) < mean(more)


@given(priors, st.integers(1, 40))
def test_exact_counts_outweigh_similar_cases(prior, seen):
    """As many exact failures as similar successes leave less than the prior, and the other way round."""
    similar = similar_counts(
        [Match(Case("x", "", "", action=RETRY, success=True), 1.0)] * seen, 0.0, Tuning()
    )[RETRY].weight
    assert similar.tried <= min(8.0, seen / 2)
    contradicted = posterior([prior], [[Count(seen, 0)]], similar).mean
    assert contradicted < (similar.worked + 4 * prior) / (similar.tried + 4)
    assert contradicted < max(prior, 0.5)


def test_similar_cases_weigh_by_how_similar_and_how_old_they_are():
    assert kernel(0.5) == kernel(0.6) == 0
    assert 0 < kernel(0.7) < kernel(0.9) < kernel(1.0) == 0.5
    new, old = (
        similar_counts([Match(Case("x", "", "", action=RETRY, success=True, at=1.0), 1.0)], now, Tuning())
        for now in (1.0, 1.0 + HALF_LIFE_S)
    )
    assert old[RETRY].weight.tried == pytest.approx(new[RETRY].weight.tried / 2)
    many = [Match(Case("x", "", "", action=RETRY, success=True), 1.0)] * 100
    assert similar_counts(many, 0.0, Tuning())[RETRY].weight == (8.0, 8.0)
    open_one = Match(Case("x", "", "", action=RETRY, success=None), 1.0)
    assert similar_counts([open_one], 0.0, Tuning()) == {}


def test_a_context_never_seen_takes_over_what_the_step_has_shown():
    prior = PRIORS["timeout"][0].confidence
    alone = rank(at(), known())
    elsewhere = rank(at(), known(elsewhere=[(RETRY, 0, 60)]))
    assert find(alone, RETRY).confidence == pytest.approx(prior)
    assert find(elsewhere, RETRY).confidence < 0.1


def test_no_outcome_weighs_three_times():
    """The same five failures are at hand in three cells: here, at this step, and for the kind."""
    prior = PRIORS["timeout"][0].confidence
    found = find(rank(at(), known(here=[(RETRY, 0, 5)])), RETRY)
    assert found.confidence == pytest.approx(4 * prior / 9, abs=1e-4)


def test_failures_at_this_fault_are_evidence_of_a_bad_hour_for_all_that_ask_the_same_provider():
    fresh = find(rank(at()), RETRY).confidence
    assert find(rank(at(tried=[MODIFY])), RETRY).confidence == pytest.approx(fresh * 4 / 4.5, abs=1e-4)
    assert find(rank(at(tried=[RETRY])), RETRY).confidence == pytest.approx(fresh * 1.2 / 2.2, abs=1e-4)
    assert after_failures(0.8, 2, 2) == pytest.approx(0.8 * 1.2 / 3.2 * 4 / 5)


def test_what_later_attempts_have_shown_is_counted_apart_from_first_ones():
    rows = add_all({}, [Outcome(RETRY, True, 0.0)] * 50, HALF_LIFE_S, inf)
    rows = add_all(rows, [Outcome(RETRY, False, 0.0, depth=1)] * 50, HALF_LIFE_S, inf)
    what = Knowledge(here=rows)
    first, second, third = (what.chance(RETRY, 0.7, [True] * failures).mean for failures in (0, 1, 2))
    assert first > 0.95
    assert second < 0.1
    assert third < 0.1  # nothing was seen of it: it is no likelier than the second


@given(priors, st.lists(st.tuples(counts, counts, counts), min_size=3, max_size=3))
def test_a_posterior_is_a_probability_whatever_was_counted(prior, rungs):
    for depth in (1, 2, 3):
        found = posterior([prior] * depth, [list(rung) for rung in rungs])
        assert 0 < found.mean < 1


def test_one_busy_context_says_less_of_another_than_many_do():
    wide = {}
    for busy in (True, False):
        here, rows = {}, {}
        for _ in range(30):
            one = Outcome(RETRY, False, 0.0)
            rows = add_all(rows, [as_elsewhere(one, here, HALF_LIFE_S)], HALF_LIFE_S, inf)
            here = add_all(here, [one], HALF_LIFE_S, inf) if busy else {}
        wide[busy] = rows
    one, many = (
        find(rank(at(), Knowledge(steps={"criticism": wide[busy]})), RETRY) for busy in (True, False)
    )
    prior = PRIORS["timeout"][0].confidence
    assert prior > one.confidence > many.confidence + 0.1
    assert wide[True][RETRY][0].tried < 5
    assert wide[False][RETRY][0].tried == 30


# Counting and forgetting -------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=60), st.floats(0, 100 * 86_400))
def test_counts_lose_half_of_their_weight_in_two_weeks_and_what_was_counted_is_still_told(outcomes, later):
    rows = add_all({}, [Outcome("a", one, 0.0) for one in outcomes], HALF_LIFE_S, inf)
    for row in rows.get("a", ()):
        aged = row.now(later, HALF_LIFE_S)
        assert aged.tried == pytest.approx(len(outcomes) * 0.5 ** (later / HALF_LIFE_S))
        assert aged.worked <= aged.tried
        assert (aged.tried_ever, aged.worked_ever) == (len(outcomes), sum(outcomes))


def test_others_being_busy_forgets_nothing():
    rows = add_all({}, [Outcome("a", True, 0.0)] * 3, HALF_LIFE_S, inf)
    busy = add_all(rows, [Outcome("b", False, 0.0)] * 1000, HALF_LIFE_S, inf)
    assert busy["a"] == rows["a"]


def test_a_clock_that_was_set_back_changes_nothing():
    row = add_all({}, [Outcome("a", True, 1e9)], HALF_LIFE_S, inf)["a"][0]
    assert row.now(0.0, HALF_LIFE_S).tried == 1.0


def test_a_change_is_learned_within_some_tens_of_faults_however_long_it_was_otherwise():
    rows = add_all({}, [Outcome("a", True, 0.0)] * 5_000, HALF_LIFE_S, MEMORY_HERE)
    faults = 0
    while faults < 50:
        faults += 1
        rows = add_all(rows, [Outcome("a", False, 0.0)], HALF_LIFE_S, MEMORY_HERE)
        if rows["a"][0].worked / rows["a"][0].tried < 0.3:
            break
    assert faults < 30
    assert rows["a"][0].tried == pytest.approx(MEMORY_HERE)


def test_a_row_keeps_few_values_and_the_least_tried_makes_room():
    outcomes = [Outcome("a", True, 0.0, value=str(number)) for number in range(VALUES_MAX)] * 2
    outcomes += [Outcome("a", False, 0.0, value="new")] * 3
    row = add_all({}, outcomes, HALF_LIFE_S, inf)["a"][0]
    assert len(row.values) == VALUES_MAX
    assert row.values["new"] == (3.0, 0.0)


def test_near_values_are_one():
    assert value_key({"max_tokens": 1001}) == value_key({"max_tokens": 1004}) == '{"max_tokens":1000}'
    assert value_key({"timeout_s": 2.02}) == '{"timeout_s":2.0}'
    assert value_key({"flag": True}) == '{"flag":true}'
    assert value_key({}) == ""
    assert value_key({"x": "y" * 999}) == ""


# The order ---------------------------------------------------------------------------------


def test_the_index_is_the_worth_that_makes_an_attempt_indifferent():
    """Weitzman: with index z for certain at hand, an attempt gains p * (v - z) - c = 0."""
    for p, c, v in ((0.5, 0.1, 1.0), (0.9, 0.3, 2.0), (0.1, 0.05, 1.0)):
        z = index_usd(p, c, v)
        assert p * (v - z) - c == pytest.approx(0)


def test_a_likely_but_dear_attempt_comes_after_a_cheap_one():
    cheap = at("malformed_output", "criticism", 0, options={"usd_per_hour": 3.6}, failed_s=2.0)
    found = [one.strategy for one in rank(cheap)]
    assert found.index(S.RETRY_CURRENT_STEP) < found.index(S.SKIP_TO_NEXT_STEP)
    dear = rank(cheap._replace(failed_s=600.0))
    assert dear[0].strategy is S.SKIP_TO_NEXT_STEP


def test_of_equally_likely_attempts_the_cheaper_comes_first():
    what = known(here=[(RETRY, 200, 400), ("restart_from_generation", 200, 400)])
    found = rank(at("malformed_output", active_s=100.0, calls=10, spent_usd=1.0), what)
    order = [one.strategy.value for one in found]
    assert order.index(RETRY) < order.index("restart_from_generation")


def test_waiting_costs_what_it_is_said_to_cost():
    patient = at("rate_limit", "generation", retry_after_s=200.0, fallbacks=("n",), model="m")
    hasty = patient._replace(options={"usd_per_hour": 100.0, "value_usd": 10.0})
    assert rank(patient._replace(options={"usd_per_hour": 0.01}))[0].strategy is S.RETRY_CURRENT_STEP
    assert "models" in rank(hasty)[0].parameters
    assert find(rank(hasty), RETRY).seconds >= 200


def test_what_cannot_bring_what_it_costs_is_not_offered_and_the_reason_is_told():
    poor = at(options={"value_usd": 0.02}, failed_s=30.0)
    found = ranking(poor)
    assert S.RETRY_CURRENT_STEP not in [one.strategy for one in found.actions]
    (why,) = [one.why for one in found.not_offered if one.strategy is S.RETRY_CURRENT_STEP]
    assert "does not pay for its cost" in why


def test_the_order_is_estimated_anew_after_each_failure():
    what = known(here=[(RETRY, 19, 20), (f"{MODIFY} timeout_s", 10, 20)])
    here = at(options={"timeout_s": 5.0})
    assert rank(here, what)[0].strategy is S.RETRY_CURRENT_STEP
    rows = add_all(what.here, [Outcome(RETRY, False, 0.0, depth=1)] * 20, HALF_LIFE_S, inf)
    after = rank(here._replace(tried=(RETRY,)), what._replace(here=rows))
    assert after[0].parameters == {"timeout_s": 10.0}


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_order_does_not_depend_on_the_unit_of_money(scale):
    for here in every_situation():
        options = {**here.options, "usd_per_hour": 3.6 * scale, "value_usd": 1.0 * scale}
        scaled = here._replace(options=options, spent_usd=here.spent_usd * scale)
        base = here._replace(options={**here.options, "value_usd": 1.0})
        assert [one.key for one in rank(scaled)] == [one.key for one in rank(base)]


def test_the_same_situation_and_knowledge_give_the_same_ranking():
    for here in every_situation():
        assert rank(here._replace(seed="a")) == rank(here._replace(seed="a"))


def test_no_candidate_cannot_be_applied():
    """What is offered leads somewhere, and changes something of what failed."""
    for here in every_situation():
        for action in rank(here):
            assert move(action.strategy, here.position, ["part"]) is not None
            assert bool(action.parameters) == (action.strategy is S.MODIFY_PARAMETERS)
            if action.strategy is S.SKIP_TO_NEXT_STEP:
                assert here.position.operation in SKIPPABLE
            for name, value in action.parameters.items():
                assert here.options.get(name) != value


def test_every_action_says_all_that_is_asked_of_it():
    for here in every_situation():
        for one in rank(here):
            low, high = one.interval
            assert 0 <= low <= one.confidence <= high <= 1
            assert one.description
            assert one.evidence
            assert one.keeps
            assert one.applies_when == APPLIES_WHEN[one.strategy]
            assert one.cost_usd >= 0
            assert one.seconds > 0
            if one.strategy is not S.RETRY_CURRENT_STEP and one.strategy is not S.MODIFY_PARAMETERS:
                assert one.loses


def test_every_strategy_is_offered_or_it_is_said_why_not():
    for here in every_situation():
        found = ranking(here)
        said = {one.strategy for one in found.actions} | {one.strategy for one in found.not_offered}
        assert said == set(S)
        assert all(one.why for one in found.not_offered)


def test_counts_are_told_with_where_they_come_from():
    matches = [Match(Case("x", "", "", action=RETRY, success=n < 3), 1.0) for n in range(5)]
    what = known(
        here=[(RETRY, 18, 20)], elsewhere=[(RETRY, 2, 10)], similar=similar_counts(matches, 0, Tuning())
    )
    found = find(rank(at(), what), RETRY)
    assert "worked 18 of 20 for timeout at criticism here; 20 of 30 for timeout at criticism in all runs" in (
        found.evidence
    )
    assert "3 of 5 in similar cases" in found.evidence
    assert (found.observed[0].worked, found.observed[0].tried) == (18, 20)


def test_an_action_can_be_written_with_four_fields():
    action = RecoveryAction(S.MODIFY_PARAMETERS, "calmer", 0.8, {"temperature": 0.3})
    assert (action.interval, action.loses, action.propensity) == ((0.0, 1.0), "", 1.0)
    assert msgspec.convert(msgspec.to_builtins(action), RecoveryAction) == action
    with pytest.raises(ValueError, match="probability"):
        RecoveryAction(S.MODIFY_PARAMETERS, "calmer", 1.8)


def test_a_retry_after_a_stated_wait_is_counted_as_another_action():
    waits, guesses = at("rate_limit", retry_after_s=5.0), at("rate_limit")
    what = known(here=[(action_key(RETRY, {}, stated_wait=True), 30, 30), (RETRY, 0, 30)])
    assert find(rank(waits, what), RETRY).confidence > 0.95
    assert find(rank(guesses, what), RETRY).confidence < 0.2


# Exploration -------------------------------------------------------------------------------

EXPLORING = at(options={"timeout_s": 5.0}, failed_s=5.0)


def test_few_choices_explore_and_say_with_what_probability():
    what = known(here=[(RETRY, 3, 5)])
    firsts = [rank(EXPLORING._replace(seed=str(seed)), what)[0] for seed in range(1500)]
    explored = [one for one in firsts if one.chosen_by == "exploration"]
    assert 0 < len(explored) / len(firsts) <= 0.05 + 0.015
    assert all(0 < one.propensity <= 0.05 for one in explored)
    greedy = [one for one in firsts if one.chosen_by == "ranking"]
    assert all(one.propensity >= 0.95 for one in greedy)
    assert {one.key for one in explored} == {f"{MODIFY} timeout_s"}
    expected = sum(1 - one.propensity for one in greedy) + sum(one.propensity for one in explored)
    assert len(explored) == pytest.approx(expected, abs=3 * expected**0.5)


def test_only_what_loses_nothing_is_explored():
    for here in every_situation():
        for seed in range(20):
            first = rank(here._replace(seed=str(seed)), IGNORANCE)[:1]
            if first and first[0].chosen_by == "exploration":
                assert not first[0].loses
                assert first[0].strategy in (S.RETRY_CURRENT_STEP, S.MODIFY_PARAMETERS)


def test_nothing_is_explored_without_a_seed_or_with_a_share_of_nothing():
    assert {one.propensity for one in rank(EXPLORING)} == {1.0}
    quiet = IGNORANCE._replace(tuning=Tuning(explore=0.0))
    assert {rank(EXPLORING._replace(seed=str(n)), quiet)[0].chosen_by for n in range(200)} == {"ranking"}


# Suggestions -------------------------------------------------------------------------------

TOO_LONG = {
    "maximum context length is 8192 tokens. However, your messages resulted in 10383 tokens.": (
        8192,
        10383,
        None,
    ),
    "prompt is too long: 208,656 tokens > 200,000 maximum": (200_000, 208_656, None),
    "The input token count (132478) exceeds the maximum number of tokens allowed (131072).": (
        131072,
        132478,
        None,
    ),
    "maximum context length is 4097 tokens, however you requested 4500 tokens "
    "(3500 in your prompt; 1000 for the completion).": (4097, 4500, 1000),
    "Request too large for m: Limit 30000, Requested 41000.": (30000, 41000, None),
    "Input is too long for requested model.": (None, None, None),
    "limit 9000 of your tier; the maximum context length is 4096 tokens, got 5000": (4096, 5000, None),
}


@pytest.mark.parametrize("message", TOO_LONG)
def test_sizes_are_read_from_what_the_provider_says(message):
    assert sizes_in(message) == TOO_LONG[message]


def test_the_context_is_cut_by_as_much_as_is_too_much():
    message = "prompt is too long: 12000 tokens > 10000 maximum"
    here = at("context_length", "generation", message=message, prompt_chars=40_000)
    action = rank(here)[0]
    # 12,000 less nine tenths of 10,000 tokens, of four characters each
    assert action.parameters == {"max_context_chars": 40_000 - 3_000 * 4}
    assert "12,000 of 40,000 characters" in action.loses.replace("the ", "")
    little = rank(here._replace(prompt_chars=4_000))[0]
    assert little.parameters == {"max_context_chars": 0}


def test_where_there_is_nothing_to_cut_it_is_said():
    found = ranking(at("context_length", "generation"))
    assert found.actions == []
    (why,) = {one.why for one in found.not_offered if "cut" in one.why}
    assert "the prompt itself has to be shorter" in why


def test_the_room_for_the_answer_is_cut_where_that_is_what_does_not_fit():
    message = "maximum context length is 4097 tokens, however you requested 4500 tokens (3500 in your prompt; 1000 for the completion)."
    here = at("context_length", "generation", message=message, options={"max_tokens": 1000})
    assert rank(here)[0].parameters == {"max_tokens": 597}


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("truncated", {"options": {"max_tokens": 300}}, {"max_tokens": 600}),
        ("truncated", {}, {"max_tokens": 1024}),
        ("rate_limit", {"together": 4}, {"batch_size": 2}),
        ("rate_limit", {"together": 4, "options": {"batch_size": 3}}, {"batch_size": 1}),
        ("timeout", {"options": {"timeout_s": 10.0}}, {"timeout_s": 20.0}),
        ("timeout", {"options": {"max_tokens": 2000}}, {"max_tokens": 1000}),
        ("timeout", {"prompt_chars": 500}, {"max_context_chars": 250}),
        ("out_of_memory", {"prompt_chars": 500}, {"batch_size": 1, "max_context_chars": 250}),
        ("malformed_output", {"options": {"temperature": 0.8}}, {"temperature": 0.4}),
        ("truncated", {"options": {"may_relax": True}}, {"allow_partial_results": True}),
        (
            "validation_failed",
            {"options": {"may_relax": True}, "together": 3, "operation": "validation"},
            {"validation_strictness": 0.667},
        ),
        ("overloaded", {"model": "m", "fallbacks": ("m", "n", "o")}, {"models": {"m": "n"}}),
        ("quota_exhausted", {"model": "m", "fallbacks": ("n",)}, {"models": {"m": "n"}}),
        ("context_length", {"model": "m", "fallbacks": ("n",)}, {"models": {"m": "n"}}),
    ],
)
def test_what_is_set_fits_the_fault(kind, more, expected):
    assert expected in [one.parameters for one in rank(at(kind, **more))]


@pytest.mark.parametrize("kind", KINDS)
def test_quality_is_given_up_only_where_the_user_allows_it(kind):
    for operation in OPERATIONS[:-1]:
        found = ranking(at(kind, operation, together=3))
        for one in found.actions:
            assert not {"allow_partial_results", "validation_strictness"} & set(one.parameters)


@pytest.mark.parametrize("kind", ["invalid_request", "content_filter", "validation_failed"])
def test_a_prompt_that_is_at_fault_is_not_sent_to_another_model(kind):
    assert not any("models" in one.parameters for one in rank(at(kind, model="m", fallbacks=("n",))))


def test_another_model_needs_no_wait():
    here = at("overloaded", model="m", fallbacks=("n",), failed_s=1.0)
    found = rank(here)
    assert find(found, MODIFY, "models").seconds < find(found, RETRY).seconds


def test_a_retired_model_is_replaced_by_todays_nearest():
    pytest.importorskip("pydantic_ai")
    from sifaka.models.known import nearest_model

    near = nearest_model("anthropic", "claude-3-sonnet-20240229")
    here = at(
        "not_found",
        "generation",
        message="model: claude-3-sonnet-20240229",
        model="anthropic:claude-3-sonnet-20240229",
    )
    assert near is not None
    assert {"model": near} in [one.parameters for one in rank(here)]
    other = here._replace(fault=classify(ModelError("no such file", kind="not_found")))
    assert not any("model" in one.parameters for one in rank(other))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("the text must have at least 400 words", ("at least", 400, "words")),
        ("No more than 1,200 characters are allowed", ("at most", 1200, "characters")),
        ("minimum length of 50 characters", ("at least", 50, "characters")),
        ("it is too dull", None),
    ],
)
def test_a_verdict_is_read_for_the_length_it_asks_for(message, expected):
    assert length_asked_for(message) == expected


def test_a_text_gets_the_room_that_a_verdict_asks_for():
    here = at(
        "validation_failed",
        "validation",
        message="at least 300 words are needed",
        options={"max_tokens": 200},
    )
    assert {"max_tokens": 600} in [one.parameters for one in rank(here)]
    roomy = here._replace(options={"max_tokens": 2000})
    assert not any("max_tokens" in one.parameters for one in rank(roomy))


def test_the_value_that_has_worked_is_taken_instead():
    key = f"{MODIFY} max_tokens"
    outcomes = [Outcome(key, False, 0.0, value='{"max_tokens":1000}')] * 6
    outcomes += [Outcome(key, True, 0.0, value='{"max_tokens":4100}')] * 6
    what = Knowledge(here=add_all({}, outcomes, HALF_LIFE_S, inf))
    here = at("truncated", "generation", options={"max_tokens": 512})
    action = find(rank(here, what), MODIFY)
    assert action.parameters == {"max_tokens": 4100}
    assert "has worked 6 of 6" in action.description
    assert action.confidence > find(rank(here, Knowledge()), MODIFY).confidence
    # Where more is set already, less room is no remedy, whatever it was for others.
    roomy = rank(here._replace(options={"max_tokens": 8000}), what)
    assert find(roomy, MODIFY).parameters == {"max_tokens": 16000}


def test_of_several_models_that_may_be_used_the_one_that_works_is():
    key = f"{MODIFY} models"
    outcomes = [Outcome(key, False, 0.0, value='{"models":{"m":"n"}}')] * 6
    outcomes += [Outcome(key, True, 0.0, value='{"models":{"m":"o"}}')] * 6
    what = Knowledge(here=add_all({}, outcomes, HALF_LIFE_S, inf))
    here = at("overloaded", "generation", model="m", fallbacks=("n", "o"))
    assert find(rank(here, what), MODIFY).parameters == {"models": {"m": "o"}}
    gone = rank(here._replace(fallbacks=("n",)), what)
    assert find(gone, MODIFY).parameters == {"models": {"m": "n"}}


# Rules of one's own ------------------------------------------------------------------------


def test_a_rule_is_one_more_line_of_the_table():
    rule = Rule(
        "timeout", S.MODIFY_PARAMETERS, 0.99, {"top_p": 0.5}, "we know this provider", step="criticism"
    )
    action = find(rank(at(), IGNORANCE, [rule]), MODIFY, "top_p")
    assert action.confidence == pytest.approx(0.99)
    assert "we know this provider" in action.description
    assert rank(at(), IGNORANCE, [rule])[0] == action
    for elsewhere in (at("overloaded"), at(operation="validation")):
        assert not any("top_p" in one.parameters for one in rank(elsewhere, IGNORANCE, [rule]))


def test_a_rules_outcomes_are_counted_like_any_others():
    rule = Rule("timeout", S.MODIFY_PARAMETERS, 0.99, {"top_p": 0.5})
    failed = known(here=[(f"{MODIFY} top_p", 0, 30)])
    assert find(rank(at(), failed, [rule]), MODIFY, "top_p").confidence < 0.2


def test_a_rule_takes_the_place_of_a_line_or_takes_it_out():
    sure = Rule("any", S.RETRY_CURRENT_STEP, 0.2, why="never here")
    assert find(rank(at(), IGNORANCE, [sure]), RETRY).confidence == pytest.approx(0.2)
    out = ranking(at(), IGNORANCE, [sure._replace(confidence=0.0)])
    assert S.RETRY_CURRENT_STEP not in [one.strategy for one in out.actions]
    assert "never here" in [one.why for one in out.not_offered]


def test_a_rule_may_look_at_the_situation():
    rule = Rule(
        "any",
        S.MODIFY_PARAMETERS,
        0.9,
        lambda here: {"seed": here.position.iteration} if here.position.iteration else None,
        when=lambda here: here.part == "part",
    )
    assert {"seed": 1} in [one.parameters for one in rank(at(), IGNORANCE, [rule])]
    nothing = ranking(at(iteration=0), IGNORANCE, [rule])
    assert any("nothing to set" in one.why for one in nothing.not_offered)
    assert {"seed": 1} not in [one.parameters for one in rank(at()._replace(part="x"), IGNORANCE, [rule])]


def test_a_rule_that_leads_nowhere_is_not_offered():
    rule = Rule("any", S.SKIP_TO_NEXT_STEP, 0.9)
    found = ranking(at(operation="generation"), IGNORANCE, [rule])
    assert S.SKIP_TO_NEXT_STEP not in [one.strategy for one in found.actions]


@pytest.mark.parametrize(
    "rule",
    [
        Rule("tiredness", S.RETRY_CURRENT_STEP, 0.5),
        Rule("timeout", "retry", 0.5),
        Rule("timeout", S.RETRY_CURRENT_STEP, 1.5),
        Rule("timeout", S.RETRY_CURRENT_STEP, 0.5, loss=-1),
        Rule("timeout", S.RETRY_CURRENT_STEP, 0.5, step="dinner"),
        "a rule",
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule):
    with pytest.raises(UsageError):
        checked_rules([rule])


# Tables ------------------------------------------------------------------------------------


def test_the_table_has_every_kind_and_a_reason_on_every_line():
    assert set(PRIORS) == set(KINDS)
    for lines in PRIORS.values():
        assert all(0 < one.confidence < 1 for one in lines)
        assert all(one.why or one.settings for one in lines)
    assert set(SKIP_LOSS) == SKIPPABLE
    assert set(APPLIES_WHEN) == set(S)


@pytest.mark.parametrize(
    "kind", ["auth", "permission", "not_found", "invalid_request", "quota_exhausted", "context_length"]
)
def test_nothing_retries_what_cannot_pass(kind):
    for operation in OPERATIONS[:-1]:
        offered, refused = candidates(at(kind, operation))
        assert S.RETRY_CURRENT_STEP not in [one.strategy for one in offered]
        (why,) = [one.why for one in refused if one.strategy is S.RETRY_CURRENT_STEP]
        assert "would fail again" in why


# Calibration -------------------------------------------------------------------------------


def test_confidences_that_hold_have_no_calibration_error():
    held = [(0.2, n < 2) for n in range(10)] + [(0.8, n < 8) for n in range(10)]
    found = calibrate(held, bins=2)
    assert found.ece == pytest.approx(0)
    assert found.brier == pytest.approx(0.16)
    assert [(one.confidence, one.worked, one.count) for one in found.bins] == [
        (pytest.approx(0.2), 0.2, 10),
        (pytest.approx(0.8), 0.8, 10),
    ]
    assert calibrate([(0.9, False)] * 10).ece == pytest.approx(0.9)
    assert calibrate([]).count == 0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_the_isotonic_map_rises_and_mends_what_it_was_made_from(pairs):
    mapped = isotonic(pairs)
    steps = [mapped(x / 50) for x in range(51)]
    assert steps == sorted(steps)
    once = list(dict(pairs).items())
    mended = [(isotonic(once)(confidence), worked) for confidence, worked in once]
    assert calibrate(mended, 1).ece == pytest.approx(0, abs=1e-9)


def test_an_old_row_without_values_can_still_be_read():
    """A row is an array: fields may be added at its end only."""
    old = msgspec.msgpack.encode([2.0, 1.0, 5.0, 2, 1])
    assert msgspec.msgpack.decode(old, type=Row) == Row(2.0, 1.0, 5.0, 2, 1)


def test_a_restart_that_does_nothing_again_but_what_failed_is_no_restart():
    """It would be a retry without its wait, and without its limit."""
    for strategy, operation, iteration, documents in (
        (S.FULL_RESTART, "retrieval", 0, 0),
        (S.FULL_RESTART, "generation", 0, 0),
        (S.RESTART_FROM_GENERATION, "generation", 0, 3),
        (S.RESTART_ITERATION, "generation", 2, 3),
        (S.RESTART_ITERATION, "retrieval", 0, 0),
    ):
        for kind in ("timeout", "other", "malformed_output"):
            found = ranking(at(kind, operation, iteration, documents=documents))
            assert strategy not in [one.strategy for one in found.actions]
            assert strategy in [one.strategy for one in found.not_offered]
    worth_it = rank(at("timeout", "generation", 0, documents=3))
    assert S.FULL_RESTART in [one.strategy for one in worth_it]


def test_only_what_throws_nothing_away_is_harmless():
    here = at("timeout", options={"timeout_s": 5.0, "model": "m"}, prompt_chars=900, fallbacks=("n",))
    harmless = {(one.strategy, *one.parameters) for one in candidates(here)[0] if one.is_harmless}
    assert harmless == {(S.RETRY_CURRENT_STEP,), (S.MODIFY_PARAMETERS, "timeout_s")}


def test_an_attempt_costs_what_such_attempts_took_where_they_worked_and_where_they_failed():
    seen = add_all(
        {},
        [Outcome(RETRY, True, 0.0, cost_usd=0.1, seconds=2.0)] * 50
        + [Outcome(RETRY, False, 0.0, cost_usd=0.5, seconds=80.0)] * 50,
        HALF_LIFE_S,
        inf,
    )[RETRY][0]
    here = at("malformed_output", calls=1, active_s=1.0)
    sure, vain = (work_of(S.RETRY_CURRENT_STEP, here, seen=seen, chance=chance) for chance in (1.0, 0.0))
    assert (sure.usd, vain.usd) == (pytest.approx(0.1, abs=0.02), pytest.approx(0.5, abs=0.05))
    assert vain.seconds - sure.seconds == pytest.approx(78.0, abs=8.0)


def test_a_longer_limit_that_is_missed_too_takes_longer():
    here = at(options={"timeout_s": 60.0}, failed_s=60.0, calls=4, active_s=100.0)
    shorter, longer = (
        work_of(S.MODIFY_PARAMETERS, here, parameters=parameters, chance=0.0)
        for parameters in ({"max_tokens": 500}, {"timeout_s": 120.0})
    )
    assert longer.seconds - shorter.seconds == pytest.approx(60.0)
    assert work_of(S.MODIFY_PARAMETERS, here, chance=1.0).seconds < 30


def test_similar_cases_move_a_context_of_which_nothing_is_known():
    matches = [Match(Case("x", "", "", action=RETRY, success=True), 1.0)] * 8
    similar = similar_counts(matches, 0.0, Tuning())
    assert (
        find(rank(at(), known(similar=similar)), RETRY).confidence > find(rank(at()), RETRY).confidence + 0.1
    )
    later = at(tried=(RETRY,))
    assert find(rank(later, known(similar=similar)), RETRY).confidence > find(rank(later), RETRY).confidence
