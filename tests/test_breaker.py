"""The tables behind the shared limits: breaker, pace after a pause, retry budget. Values in, values out."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifaka.faults import KINDS, Fault, classify
from sifaka.recovery.gate import breaker, pace, retries
from sifaka.recovery.gate.breaker import (
    Breaker,
    BreakerSettings,
    Claimed,
    Counted,
    Probed,
    outcome,
    phase,
    step,
)
from sifaka.recovery.gate.pace import Pace, PaceSettings
from sifaka.recovery.gate.retries import RetryBudget, RetrySettings
from sifaka.recovery.gate.shared import ProviderLimits, Settings, Tally, decoded, encoded, merged, rejoined

B, P, R = BreakerSettings(), PaceSettings(), RetrySettings()
NOW = 1_700_000_000.0
ANSWER, FAILURE = Counted(1, 0, 0), Counted(0, 1, 1)


def after(state, events, now=NOW, every=0.0):
    """The state after these events, so many seconds apart."""
    for n, event in enumerate(events):
        state = step(state, event, now + n * every, B)
    return state


def opened(now=NOW):
    return after(Breaker(), [FAILURE] * 5, now)


def fault(kind, *, transient=True, wait=None):
    return Fault(kind, transient, wait, "no", "0" * 16, "", "", (), None)


# Opening -----------------------------------------------------------------------------------


def test_the_numbers_are_the_written_ones():
    assert BreakerSettings(60.0, 10, 0.5, 5, 30.0, 300.0) == msgspec.structs.replace(B)
    assert (R.share, R.window_s, R.least_per_min) == (0.1, 120.0, 3.0)


def test_five_failures_in_a_row_open_it_and_four_do_not():
    assert phase(after(Breaker(), [FAILURE] * 4), NOW, B) == "closed"
    assert opened().until == NOW + 30


def test_an_answer_in_between_begins_the_row_anew():
    assert phase(after(Breaker(), [FAILURE] * 4 + [ANSWER] + [FAILURE] * 4), NOW, B) == "closed"


def test_half_of_ten_calls_open_it_and_half_of_nine_do_not():
    mixed = [FAILURE, ANSWER] * 5
    assert phase(after(Breaker(), mixed[:-1]), NOW, B) == "closed"
    assert phase(after(Breaker(), mixed), NOW, B) == "closed"  # the tenth was an answer: it opens nothing
    assert phase(after(Breaker(), [ANSWER, *mixed[:-1]]), NOW, B) == "open"
    assert phase(after(Breaker(), [ANSWER, ANSWER, *mixed[:-1]]), NOW, B) == "closed"  # 5 of 11


def test_less_than_half_never_opens_it():
    assert phase(after(Breaker(), [ANSWER, ANSWER, FAILURE] * 200, every=0.1), NOW + 60, B) == "closed"


def test_what_is_older_than_a_minute_counts_no_more():
    state = after(Breaker(), [FAILURE, FAILURE, ANSWER] * 3)
    assert phase(step(state, FAILURE, NOW + 20, B), NOW + 20, B) == "open"
    assert phase(step(state, FAILURE, NOW + 66, B), NOW + 66, B) == "closed"


def test_what_was_on_its_way_when_it_opened_changes_nothing():
    state = opened()
    assert after(state, [ANSWER, FAILURE] * 50, NOW + 1) == state


# Probing -----------------------------------------------------------------------------------


def test_only_one_may_probe_and_only_once_the_time_is_over():
    state = opened()
    assert step(state, Claimed("a"), NOW + 29.9, B) == state
    claimed = step(state, Claimed("a"), NOW + 30, B)
    assert claimed.probe == "a"
    assert step(claimed, Claimed("b"), NOW + 31, B) == claimed


def test_a_probe_that_nobody_hears_of_goes_to_another_one():
    claimed = step(opened(), Claimed("a"), NOW + 30, B)
    assert step(claimed, Claimed("b"), NOW + 30 + B.probe_s - 0.1, B).probe == "a"
    assert step(claimed, Claimed("b"), NOW + 30 + B.probe_s, B).probe == "b"


def test_an_answered_probe_closes_it():
    claimed = step(opened(), Claimed("a"), NOW + 30, B)
    closed = step(claimed, Probed("a", "answered"), NOW + 31, B)
    assert phase(closed, NOW + 31, B) == "closed"
    assert (closed.streak, closed.slots) == (0, ())


def test_openings_double_up_to_five_minutes():
    state, now, spans = opened(), NOW, []
    for n in range(6):
        spans.append(state.until - now)
        now = state.until
        state = after(state, [Claimed(str(n)), Probed(str(n), "failed")], now)
    assert spans == [30, 60, 120, 240, 300, 300]


def test_an_opening_soon_after_an_answer_is_longer_and_a_minute_later_it_is_not():
    closed = after(opened(), [Claimed("a"), Probed("a", "answered")], NOW + 30)
    assert after(closed, [FAILURE] * 5, NOW + 40).span_s == 60
    assert after(closed, [FAILURE] * 5, NOW + 91).span_s == 30


def test_a_probe_that_tells_nothing_is_given_back():
    claimed = step(opened(), Claimed("a"), NOW + 30, B)
    free = step(claimed, Probed("a", "neutral"), NOW + 31, B)
    assert phase(free, NOW + 31, B) == "half_open"
    assert step(free, Claimed("b"), NOW + 31, B).probe == "b"


def test_a_late_answer_closes_it_and_a_late_failure_is_not_the_present_probes():
    lost = after(opened(), [Claimed("a"), Claimed("b")], NOW + 30, every=B.probe_s)
    assert lost.probe == "b"
    late = NOW + 31 + B.probe_s
    assert step(lost, Probed("a", "failed"), late, B) == lost
    assert phase(step(lost, Probed("a", "answered"), late, B), late, B) == "closed"


def test_a_clock_that_was_set_back_does_not_shut_a_model_for_years():
    state = opened(NOW + 1e8)
    assert phase(state, NOW, B) == "closed"
    assert step(state, ANSWER, NOW, B).until == 0


events = st.lists(
    st.one_of(
        st.builds(Counted, st.integers(0, 9), st.just(0), st.just(0)),
        st.integers(1, 9).flatmap(
            lambda failed: st.builds(Counted, st.integers(0, 9), st.just(failed), st.integers(0, failed))
        ),
        st.builds(Claimed, st.sampled_from("abc")),
        st.builds(Probed, st.sampled_from("abc"), st.sampled_from(("answered", "failed", "neutral"))),
    ).flatmap(lambda one: st.tuples(st.sampled_from((0.0, 0.3, 7.0, 31.0, 61.0, 301.0)), st.just(one))),
    max_size=60,
)


@given(events)
def test_whatever_happens_one_probe_is_out_at_most_and_no_opening_is_outside_its_bounds(steps):
    state, now, out = Breaker(), NOW, ""
    for passed, event in steps:
        now += passed
        before, was = state, phase(state, now, B)
        state = step(state, event, now, B)
        assert step(state, Counted(0, 0, 0), now, B).until == state.until  # looking changes nothing
        is_now = phase(state, now, B)
        if state.until > now:
            assert B.open_s <= state.span_s <= B.open_max_s
            assert state.until - now <= B.open_max_s
        if was == "open":
            assert is_now == "open" or isinstance(event, Probed)
        if was == "half_open" and is_now != was:
            assert isinstance(event, Probed)
        if isinstance(event, Claimed) and state.probe != before.probe:
            assert was == "half_open"
            assert not before.probe or now >= before.probe_until
        out = state.probe if is_now == "half_open" else ""
        assert not out or state.probe_until > state.until
        assert len(state.slots) <= B.window_s / breaker.SLOT_S


@given(st.lists(st.sampled_from((True, True, False)), min_size=1, max_size=60))
def test_calls_handed_in_together_or_one_by_one_come_to_the_same(answers):
    """As long as nothing opens: a process that hands in a second's calls together distorts nothing."""
    state, together = Breaker(), Tally()
    for answered in answers:
        one = Tally(1, int(answered), int(not answered), int(not answered))
        state = step(state, Counted(*one[1:4]), NOW, B)
        if state.until:
            return
        together = together.plus(one)
    at_once = step(Breaker(), Counted(*together[1:4]), NOW, B)
    half = together.failed >= together.calls / 2  # of these, one by one, the last was an answer
    assert at_once == state or (half and at_once.until)


# What counts -------------------------------------------------------------------------------


def test_only_what_the_provider_is_to_blame_for_opens_it():
    failed = {kind for kind in KINDS if outcome(fault(kind)) == "failed"}
    assert failed == {"overloaded", "server_error", "timeout", "connection", "truncated", "rate_limit"}
    assert {outcome(fault(kind, transient=False)) for kind in KINDS} == {"answered", "neutral"}


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        ("invalid x-api-key", 401, "neutral"),
        ("The response was filtered: content_filter", 400, "answered"),
        ("maximum context length is 8192 tokens", 400, "answered"),
        ("Overloaded", 529, "failed"),
        ("internal server error", 500, "failed"),
        ("Rate limit reached, please try again in 20s", 429, "neutral"),
        ("Rate limit reached", 429, "failed"),
    ],
)
def test_errors_as_providers_write_them(error, status, expected):
    assert outcome(classify(error, status=status)) == expected


# The pace after a pause --------------------------------------------------------------------


def times_of(schedule, now, callers):
    schedule, times = pace.reserve(schedule, callers, now, P)
    return times


def per_second(times):
    counts = {}
    for at in times:
        counts[int(at)] = counts.get(int(at), 0) + 1
    return counts


def test_nobody_goes_before_a_stated_wait_is_over_and_then_one_after_another():
    schedule = pace.after_wait(Pace(), NOW + 20, NOW, 0.0, P)
    times = times_of(schedule, NOW, 1_000)
    assert times[0] == NOW + 20
    counts = list(per_second(times).values())
    assert max(counts) <= 46  # 1 a second at first, 1 more each second: 1,000 in 44 s
    assert all(later - earlier <= 2 for earlier, later in itertools.pairwise(counts))


def test_waits_that_belong_together_do_not_slow_it_down_again():
    schedule = pace.after_wait(Pace(), NOW + 10, NOW, 80.0, P)
    assert schedule.rate == 40
    again = pace.after_wait(schedule, NOW + 12.1, NOW + 1, 20.0, P)
    assert (again.start, again.rate) == (NOW + 12.5, 40)
    assert pace.after_wait(again, NOW + 11, NOW + 2, 80.0, P) == again
    assert pace.after_wait(again, NOW + 30, NOW + 20, 60.0, P).rate == 30


def test_a_wait_above_five_minutes_is_no_pause():
    assert pace.after_wait(Pace(), NOW + 302, NOW, 0.0, P) == Pace()
    assert pace.after_wait(Pace(), NOW + 300, NOW, 0.0, P) != Pace()


def test_it_is_over_after_a_minute_unless_callers_still_wait():
    schedule = pace.after_break(Pace(), NOW, P)
    assert pace.holds(schedule, NOW + 59, P)
    assert not pace.holds(schedule, NOW + 60, P)
    crowded, times = pace.reserve(schedule, 5_000, NOW, P)
    assert times[-1] > NOW + 90
    assert pace.holds(crowded, times[-1] - 0.1, P)
    assert not pace.holds(crowded, times[-1] + 1, P)


def test_an_answer_does_not_end_a_stated_wait():
    waiting = pace.after_wait(Pace(), NOW + 100, NOW, 0.0, P)
    assert pace.after_break(waiting, NOW + 30, P).start == NOW + 100


@given(st.floats(0, 500), st.lists(st.tuples(st.floats(0, 20), st.integers(1, 64)), min_size=1, max_size=30))
def test_places_are_given_once_in_order_and_never_faster_than_the_schedule(rate, asked):
    schedule, now, times = pace.after_wait(Pace(), NOW + 5, NOW, rate, P), NOW, []
    for passed, places in asked:
        now += passed
        schedule, found = pace.reserve(schedule, places, now, P)
        assert all(at >= max(now, NOW + 5) for at in found)
        times += found
    assert times == sorted(times)
    growth = max(P.more_per_s, schedule.rate / P.double_s)
    for second, count in per_second(times).items():
        passed = second + 1 - schedule.start
        assert count <= schedule.rate + growth * passed + 2


# The retry budget --------------------------------------------------------------------------


def test_three_a_minute_come_whatever_is_called():
    budget, times = retries.take(RetryBudget(), 6, NOW, R)
    assert [at - NOW for at in times] == pytest.approx([0, 0, 0, 20, 40, 60])
    assert retries.take(budget, 1, NOW, R)[1] == []  # later than may be promised
    assert retries.take(budget, 1, NOW + 60, R)[1] == pytest.approx([NOW + 80])


def test_a_tenth_of_the_calls_of_two_minutes_may_be_repeats():
    budget = retries.calls_made(RetryBudget(), 1_200, NOW, R)
    assert retries.per_s(budget, NOW, R) == pytest.approx(1.0)
    assert retries.per_s(budget, NOW + 109, R) == pytest.approx(1.0)
    assert retries.per_s(budget, NOW + 121, R) == pytest.approx(3 / 60)


@given(
    st.lists(
        st.tuples(st.sampled_from((0.1, 1.0, 9.0)), st.integers(0, 50), st.integers(0, 20)), max_size=100
    )
)
def test_repeats_stay_within_their_share_however_they_are_asked_for(steps):
    budget, now, calls, used = RetryBudget(), NOW, [], []
    for passed, made, wanted in steps:
        now += passed
        budget = retries.calls_made(budget, made, now, R)
        calls.append((now, made))
        budget, times = retries.take(budget, wanted, now, R)
        assert all(now <= at <= now + R.ahead_s for at in times)
        used += times
    for end in used:
        within = sum(end - 120 < at <= end for at in used)
        # What was promised rests on the calls made by then, so those of the time before count as well.
        made = sum(count for at, count in calls if end - 120 - R.window_s - R.ahead_s < at <= end)
        assert within <= 0.1 * made + 2 * R.least_per_min + R.least_per_min + 0.1 * made * R.burst_s / 120 + 1


def test_a_clock_that_was_set_back_neither_brings_nor_takes_tokens():
    budget, _ = retries.take(RetryBudget(), 3, NOW, R)
    assert retries.take(budget, 1, NOW - 1e6, R)[1] == pytest.approx([NOW - 1e6 + 20])


# What is shared ----------------------------------------------------------------------------


def test_what_is_shared_comes_back_as_it_was_and_nonsense_is_begun_anew():
    known = merged(ProviderLimits(), "m", Tally(5, 0, 5, 5, NOW + 20), NOW, Settings())
    assert known.model("m").breaker.until == NOW + 30
    assert decoded(encoded(known)) == known
    for nonsense in (b"", b"\xc1", b"nonsense", encoded({"a": 1}), encoded([[], 7])):
        assert decoded(nonsense) == ProviderLimits()


def test_numbers_that_no_process_would_write_hold_nobody_up():
    for bad in (math.nan, math.inf, -math.inf, 1e300):
        assert phase(Breaker(until=bad), NOW, B) == "closed"
        assert not pace.holds(Pace(bad, 1.0), NOW, P)
        assert not pace.holds(Pace(NOW, bad), NOW, P)
        assert not pace.holds(Pace(NOW, 1.0, abs(bad)), NOW, P)
        assert retries.take(RetryBudget(tokens=bad, at=bad), 9, NOW, R)[0].tokens < 9


def test_models_that_nobody_calls_any_more_are_forgotten():
    known = merged(ProviderLimits(), "old", Tally(1, 1), NOW, Settings())
    known = merged(known, "new", Tally(1, 1), NOW + 4_000, Settings())
    assert set(known.models) == {"new"}


def test_what_a_process_found_out_on_its_own_counts_where_it_is_newer():
    theirs = merged(ProviderLimits(), "m", Tally(1, 1), NOW, Settings())
    own = merged(ProviderLimits(), "m", Tally(5, 0, 5, 5), NOW + 10, Settings())
    assert rejoined(theirs, own).model("m").breaker.until == NOW + 40
    closed = ProviderLimits(
        {"m": msgspec.structs.replace(own.model("m"), breaker=Breaker(closed_at=NOW + 50))}
    )
    assert rejoined(closed, own).model("m").breaker.until == 0
