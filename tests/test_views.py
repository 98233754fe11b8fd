"""What people are told of a run is what its log says: timelines, summaries, and the shorter story."""

from __future__ import annotations

import random

import msgspec
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
    chain_of,
    died,
    log,
    no_key,
    of,
    priced,
)
from sifaka.errors import ChainError, DamagedRecordError, FencedError
from sifaka.faults import classify
from sifaka.log.records import (
    Closed,
    Faulted,
    Handle,
    Intent,
    Opened,
    Outcome,
    PlannedPart,
    Position,
    Reached,
    Recovery,
    Result,
)
from sifaka.log.state import fold
from sifaka.parts import Reply, Usage
from sifaka.recovery import RecoveryAction, RecoveryStrategy
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.clock import FakeClock
from sifaka.thought import CriticFeedback, Document, ValidationResult
from sifaka.views import Paid, RunSummary, Timeline, brief, story_of
from sifaka.views.words import count, deed_says, paid_says, seconds_says, usd

PARTS = (
    PlannedPart("model_retriever", "library"),
    PlannedPart("validator", "length"),
    PlannedPart("validator", "form"),
    PlannedPart("critic", "refine"),
)
SETTINGS = {"model": "a:model", "max_improvement_iterations": 2}
CUT = classify("the text was cut off at the limit of its tokens; raise max_tokens")
START = Position("retrieval", 0)


def intent(at, operation, part, *, iteration=0, n=0, attempt=1, price=0.01):
    return Intent(at, operation, iteration, part, n, attempt, "digest", "a:model", price)


def written(at, number, text, *, iteration=0, finish="stop"):
    usage = Usage(10, 5)
    return Result(
        at,
        number,
        "generation",
        iteration,
        "model",
        2.0,
        text=text,
        usage=usage,
        price_usd=0.001,
        finish_reason=finish,
    )


def told_run():
    """A run as its records have it: a text that is cut off, a death in a critic's call, and a good end."""
    to = {"generation": Position("generation", 0), "validation": Position("validation", 0)}
    action = Recovery(
        104.0,
        "generation",
        0,
        "model",
        "modify_parameters",
        "set max_tokens=20: more room lets the text end",
        to["generation"],
        {"max_tokens": 20},
        confidence=0.75,
        delay_s=0.5,
        until=104.5,
        evidence="a prior of 75%",
        error_kind=CUT.kind,
    )
    return [
        Opened(100.0, "told", "Write.", None, PARTS, SETTINGS),
        Reached(100.0, "initialization", 0, START),
        Reached(100.0, "pre_retrieval", 0, START),
        Intent(100.0, "retrieval", 0, "library", 0, 1, ""),
        Result(
            101.0, 3, "retrieval", 0, "library", 1.0, documents=(Document("one", "a"), Document("two", "b"))
        ),
        Reached(101.0, "pre_retrieval", 0, to["generation"], 1.0),
        intent(102.0, "generation", "model"),
        written(104.0, 6, "one two", finish="length"),
        Faulted(104.0, -1, "generation", 0, "model", CUT),
        action,
        intent(104.5, "generation", "model", attempt=2),
        written(107.0, 10, "one two three."),
        Outcome(107.0, 9, success=True, cost_usd=0.001, seconds=3.0),
        Reached(107.0, "generation", 0, to["validation"], 6.0),
        Result(
            107.0,
            -1,
            "validation",
            0,
            "length",
            verdict=ValidationResult(True, "3 words", validator="length"),
        ),
        Result(
            107.0,
            -1,
            "validation",
            0,
            "form",
            verdict=ValidationResult(False, "has no\nlist", validator="form"),
        ),
        Reached(107.0, "validation", 0, Position("criticism", 0), 0.0),
        intent(108.0, "criticism", "refine"),
        Handle(108.2, 17, "provider's id"),
        # here the process dies
        Opened(120.0, "told", life=2, cause="death", doubts=(17,)),
        intent(120.5, "criticism", "refine"),
        Result(
            123.0, 20, "criticism", 0, "refine", 2.5, text="add a list", usage=Usage(7, 3), price_usd=None
        ),
        Result(
            123.0, -1, "criticism", 0, "refine", feedback=CriticFeedback(True, "add a list", critic="refine")
        ),
        Reached(123.0, "criticism", 0, Position("generation", 1), 3.0),
        intent(123.0, "generation", "model", iteration=1),
        written(126.0, 24, "four!", iteration=1),
        Reached(126.0, "generation", 1, Position("validation", 1), 3.0),
        Result(126.0, -1, "validation", 1, "length", verdict=ValidationResult(True, validator="length")),
        Result(126.0, -1, "validation", 1, "form", verdict=ValidationResult(True, validator="form")),
        Reached(126.0, "validation", 1, Position("complete", 1), 0.0),
        Reached(126.0, "complete", 1, Position("complete", 1), 0.0),
        Closed(126.0, "done", "", 25, passed=True),
    ]


# The timeline ------------------------------------------------------------------------------


def test_a_timeline_tells_what_happened_in_order():
    timeline = story_of(told_run()).timeline()
    assert [(one.kind, one.life, one.status, one.says) for one in timeline.moments] == [
        ("started", 1, "", "a:model writes with 1 retriever, 2 validators, 1 critic"),
        ("documents", 1, "", "library found 2 documents: a, b"),
        ("text", 1, "failed", "first text: 2 words, cut off at the limit of its tokens"),
        ("fault", 1, "failed", "The answer reached its length limit before it was complete"),
        ("recovery", 1, "ok", "asked again with max_tokens=20 after 0.5 s"),
        ("wait", 1, "", "waits 0.5 s before it goes on"),
        ("text", 1, "ok", "first text: 3 words"),
        ("outcome", 1, "ok", "that worked: the writing of the first text was completed"),
        ("verdict", 1, "ok", "length passed: 3 words"),
        ("verdict", 1, "failed", "form failed: has no list"),
        ("death", 1, "failed", "the process of life 1 died; all that it had recorded was kept"),
        (
            "doubt",
            1,
            "open",
            "refine asked a:model and no answer was recorded: it may have been paid, $0.0100 at most",
        ),
        ("resumed", 2, "", "a new process took over at the criticism of the first text"),
        ("feedback", 2, "", "refine asks for changes: add a list"),
        ("text", 2, "ok", "improvement 1: 1 word"),
        ("verdict", 2, "ok", "length passed"),
        ("verdict", 2, "ok", "form passed"),
        ("closed", 2, "ok", "done: the best text passes both validators"),
    ]
    assert (timeline.chain_id, timeline.prompt, timeline.status) == ("told", "Write.", "done")
    assert (timeline.began_at, timeline.last_at, timeline.life) == (100.0, 126.0, 2)
    assert timeline.calls == ()


def test_a_moment_says_where_it_stands_and_what_it_came_to():
    timeline = story_of(told_run()).timeline()
    by_kind = {one.kind: one for one in timeline.moments}
    feedback, death, doubt = by_kind["feedback"], by_kind["death"], by_kind["doubt"]
    assert (feedback.at, feedback.step, feedback.operation, feedback.part) == (
        123.0,
        "validation",
        "criticism",
        "refine",
    )
    assert (feedback.seconds, feedback.model, feedback.detail) == (2.5, "", "add a list")
    assert feedback.paid == Paid(1, 1, 7, 3, 2.5, 0.0, 1)
    assert death.at == 108.2, "when the dead process was last heard of"
    assert (doubt.at, doubt.about, doubt.price_max_usd) == (120.0, 17, 0.01)
    assert by_kind["wait"].until == 104.5
    assert (by_kind["fault"].code, by_kind["recovery"].code) == ("truncated", "modify_parameters")
    assert [one.seq for one in timeline.moments] == sorted(one.seq for one in timeline.moments)


def test_a_call_in_flight_is_seen_and_is_nothing_that_happened():
    timeline = story_of(told_run()[:7]).timeline()
    (call,) = timeline.calls
    assert (call.kind, call.status, call.says) == ("call", "open", "a:model is writing the first text")
    assert (call.at, call.price_max_usd) == (102.0, 0.01)
    assert "call" not in {one.kind for one in timeline.moments}
    assert timeline.status == "running"


def test_progress_goes_up_to_the_most_that_a_run_can_do():
    steps = [story_of(told_run()[:n]).timeline().steps_done for n in range(1, len(told_run()) + 1)]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert story_of(told_run()).timeline().steps_max == 1 + 4 * 3
    whole = chain_of(
        Model(), validators=[Validator("v", *[False] * 9)], critics=[Critic(then="more")], chain_id="p"
    )
    store = whole._storage.storage
    whole.with_options(max_improvement_iterations=2).run()
    done = story_of(log(store, "p")).timeline()
    assert done.steps_done == done.steps_max


def test_a_log_that_nothing_opens_is_damaged():
    with pytest.raises(DamagedRecordError):
        story_of(told_run()[1:])


# The summary -------------------------------------------------------------------------------


def test_a_summary_says_how_a_run_stands():
    summary = story_of(told_run()).summary()
    assert summary.says == "done: the best text passes both validators; it died once on the way"
    assert (summary.status, summary.judged, summary.passed) == ("done", True, True)
    assert (summary.text, summary.iteration, summary.model) == ("four!", 1, "a:model")
    assert [(one.validator, one.passed) for one in summary.checks] == [("length", True), ("form", True)]
    assert summary.totals == Paid(5, 4, 37, 18, 9.5, 0.003, 1)


def test_a_summary_tells_what_each_life_paid_and_what_was_kept():
    first, second = story_of(told_run()).summary().lives
    assert (first.number, first.cause, first.end, first.last_at) == (1, "new", "death", 108.2)
    assert first.paid == first.kept == Paid(3, 2, 20, 10, 5.0, 0.002, 0)
    assert first.says == "all that life 1 had paid when it died: 2 model calls, 30 tokens, 5.0 s, $0.0020"
    assert (second.number, second.cause, second.end) == (2, "death", "done")
    assert second.paid == Paid(2, 2, 17, 8, 4.5, 0.001, 1)
    assert second.kept == first.paid + second.paid


def test_a_summary_tells_what_is_in_doubt_and_whether_it_was_made_again():
    before, after = story_of(told_run()[:20]).summary(), story_of(told_run()).summary()
    (old,), (new,) = before.doubts, after.doubts
    assert (old.life, old.operation, old.part, old.model, old.cause) == (
        1,
        "criticism",
        "refine",
        "a:model",
        "death",
    )
    assert (old.repeated, new.repeated) == (False, True)
    assert new.says == old.says + ", and was made again"
    assert (after.doubt_usd_max, after.doubts_unpriced) == (0.01, 0)


def test_calls_of_an_interrupted_run_are_in_doubt_before_anybody_resumes_it():
    story = story_of(told_run()[:19])
    assert story.summary().doubts == story.summary("running").doubts == ()
    (doubt,) = story.summary("interrupted").doubts
    assert (doubt.seq, doubt.cause, doubt.part) == (17, "interrupted", "refine")
    assert story.summary("interrupted").says == "interrupted at the criticism of the first text"


def test_a_summary_tells_why_there_were_faults_and_what_was_done():
    (fault,) = story_of(told_run()).summary().faults
    assert (fault.kind, fault.life, fault.operation, fault.attempt) == ("truncated", 1, "generation", 1)
    assert fault.says == "The answer reached its length limit before it was complete"
    assert (fault.strategy, fault.action) == (
        "modify_parameters",
        "asked again with max_tokens=20 after 0.5 s",
    )
    assert (fault.confidence, fault.evidence, fault.chosen_by) == (0.75, "a prior of 75%", "ranking")
    assert fault.success is True
    (cause,) = story_of(told_run()).summary().causes
    assert (cause.kind, cause.times) == ("truncated", 1)
    assert cause.done == ("asked again with max_tokens=20 after 0.5 s: that worked",)


def test_an_action_is_open_until_its_outcome_is_known():
    (fault,) = story_of(told_run()[:10]).summary().faults
    assert fault.success is None
    assert story_of(told_run()[:10]).summary().causes[0].done[0].endswith("its outcome is open")
    assert [one.status for one in story_of(told_run()[:10]).moments if one.kind == "recovery"] == ["open"]


def test_a_text_without_its_verdicts_is_not_judged_yet():
    summary = story_of(told_run()[:15]).summary()
    assert (summary.text, summary.judged) == ("one two three.", False)


# Real logs ---------------------------------------------------------------------------------


def test_faults_of_parts_that_ran_together_share_the_action_that_answers_them():
    store = InMemoryStorage()
    critics = [Critic("one", busy(), None), Critic("two", busy(), None), Critic("three")]
    chain_of(Model(), store, critics=critics, chain_id="r").run_with_recovery()
    summary = story_of(log(store, "r")).summary()
    assert sorted((one.part, one.success) for one in summary.faults) == [("one", True), ("two", True)]
    (cause,) = summary.causes
    assert cause.times == 2
    assert all(one.startswith("asked again after ") for one in cause.done)


def test_a_fault_that_nothing_could_be_done_about():
    store = InMemoryStorage()
    with pytest.raises(ChainError):
        chain_of(Model(no_key()), store, chain_id="r").run_with_recovery()
    story = story_of(log(store, "r"))
    summary = story.summary()
    (fault,) = summary.faults
    assert (fault.kind, fault.action, fault.success) == ("auth", "", None)
    assert summary.causes[0].done == ("nothing was done",)
    assert summary.status == "failed"
    assert summary.says.startswith("failed: auth at generation")
    assert story.moments[-1].status == "failed"


def test_a_skipped_part_is_told_as_skipped():
    store = InMemoryStorage()
    chain = chain_of(Model(), store, validators=[Validator("v", no_key())], chain_id="r")
    chain.with_options(max_improvement_iterations=0).run_with_recovery()
    story = story_of(log(store, "r"))
    (verdict,) = [one for one in story.moments if one.kind == "verdict"]
    assert verdict.says.startswith("v was skipped")
    assert verdict.status == "failed"
    assert story.summary().faults[0].action == "went on without v"
    assert not story.summary().passed


def test_an_action_of_the_users_is_told_as_theirs():
    store = InMemoryStorage()
    chain = chain_of(Model(no_key()), store, chain_id="r")
    with pytest.raises(ChainError):
        chain.run()
    assert chain.apply_recovery_action(
        RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "the key is set", 0.9)
    )
    chain.run()
    summary = story_of(log(store, "r")).summary()
    (fault,) = summary.faults
    assert (fault.chosen_by, fault.action, fault.success) == ("user", "by hand: asked again", True)
    assert [life.end for life in summary.lives] == ["failed", "interrupted", "done"]


def test_each_answered_call_is_one_moment_also_where_a_critic_asks_twice():
    store = InMemoryStorage()
    model = Model(*[priced(f"text {n}", 0.5, 3) for n in range(3)])
    chain = chain_of(model, store, critics=[Asking("asking")], chain_id="r")
    chain.run()
    paid = [one for one in story_of(log(store, "r")).moments if one.paid]
    assert [(one.kind, one.paid.cost_usd) for one in paid] == [
        ("text", 0.5),
        ("reply", 0.5),
        ("feedback", 0.5),
    ]
    assert paid[-1].says == "asking asks for no change: text 1 / text 2"


def test_a_fork_pays_nothing_for_what_it_shares():
    store = InMemoryStorage()
    chain = chain_of(Model(priced("text", 0.5)), store, validators=[Validator("v")], chain_id="source")
    chain.run()
    fork = chain.fork(step="generation", new_id="fork")
    fork.run()
    story = story_of(log(store, "fork"))
    timeline, summary = story.timeline(), story.summary()
    assert timeline.moments[timeline.shared].says.startswith("begun as a fork of 'source'")
    assert [one.kind for one in timeline.moments[: timeline.shared]] == ["started", "text"]
    assert summary.totals == Paid(calls=1), "the validator's, not the text's"
    assert [life.cause for life in summary.lives] == ["fork", "continue"]
    assert summary.text == "text"


def test_an_unknown_price_is_never_nothing():
    store = InMemoryStorage()
    chain_of(Model("text"), store, chain_id="r").run()
    totals = story_of(log(store, "r")).summary().totals
    assert totals.unpriced_calls == 1
    assert paid_says(totals).endswith("and 1 call of unknown price")


def test_what_a_dead_process_left_is_told():
    store = InMemoryStorage()
    died(chain_of(Model(lambda _: doubles.die(store, "r"), name="m"), store, chain_id="r"))
    chain_of(Model("text", name="m"), store, chain_id="r").run()
    summary = story_of(log(store, "r")).summary()
    assert [life.end for life in summary.deaths] == ["death"]
    assert summary.doubts[0].says == (
        "m was asked for the first text and no answer was recorded: it may have been paid, at an unknown price, "
        "and was made again"
    )
    assert summary.doubts_unpriced == 1


# Whatever happens --------------------------------------------------------------------------


def wild_run(seed):
    """A run in which anything fails at times, processes die, and a user applies actions."""
    dice, store, clock = random.Random(seed), InMemoryStorage(), FakeClock()
    errors = [busy(2.0), busy(), no_key(), KeyError("x"), TimeoutError(), MemoryError()]

    def risky(name, value):
        def work(_):
            clock.advance(dice.random())
            luck = dice.random()
            if luck < 0.05:
                doubles.die(store, "r")
            if luck < 0.25:
                raise dice.choice(errors)
            return value()

        work.__name__ = name
        return work

    for _ in range(40):
        chain = chain_of(
            risky(
                "m",
                lambda: Reply("text", Usage(2, 1), dice.choice([0.1, None]), dice.choice(["stop", "length"])),
            ),
            store,
            chain_id="r",
            validators=[risky("v1", lambda: dice.random() < 0.5), risky("v2", lambda: dice.random() < 0.5)],
            critics=[risky("c1", lambda: {"needs_improvement": True, "message": "more"}), Asking("c2")],
            retrievers=[risky("r1", lambda: ["one"])],
            max_improvement_iterations=3,
            clock=clock,
        )
        try:
            if dice.random() < 0.3:
                chain.apply_recovery_action(
                    RecoveryAction(dice.choice(list(RecoveryStrategy)), "by hand", 0.5)
                )
            chain.run_with_recovery()
            break
        except (ChainError, Died, FencedError):  # who has died is fenced off
            continue
    return log(store, "r")


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_a_story_adds_up_to_the_state_of_its_log(seed):
    records = wild_run(seed)
    state, story = fold("r", records), story_of(records)
    timeline, summary = story.timeline(), story.summary()
    for moments in (timeline.moments, brief(timeline.moments)):
        paid = sum((one.paid for one in moments if one.paid), Paid())
        assert paid.seconds == pytest.approx(summary.totals.seconds)
        assert (paid.calls, paid.unpriced_calls) == (state.totals.calls, state.totals.unpriced_calls)
        assert paid.cost_usd == pytest.approx(state.totals.cost_usd)
        assert paid.tokens == state.totals.input_tokens + state.totals.output_tokens
    assert sum((life.paid for life in summary.lives), Paid()).calls == state.totals.calls
    assert [one.seq for one in summary.doubts] == list(state.doubts)
    assert sum(one.kind == "doubt" for one in timeline.moments) == len(state.doubts)
    assert len(summary.faults) == len(of(Faulted, records)) == sum(one.times for one in summary.causes)
    assert len(summary.deaths) == sum(one.cause == "death" for one in of(Opened, records))
    assert len(summary.lives) == len(of(Opened, records))
    assert sum(one.kind == "recovery" for one in timeline.moments) == len(of(Recovery, records))
    assert sum(one.kind == "outcome" for one in timeline.moments) == len(of(Outcome, records))
    assert len(timeline.calls) == len(state.open_intents)


@pytest.mark.parametrize("seed", range(3))
def test_a_story_can_be_looked_at_after_every_record(seed):
    records = wild_run(seed)
    story = story_of(())
    for number, record in enumerate(records, 1):
        story.apply(record)
        timeline, summary = story.timeline(), story.summary()
        assert timeline.last_at == record.at
        assert timeline == story_of(records[:number]).timeline()
        assert msgspec.json.decode(msgspec.json.encode(timeline), type=Timeline) == timeline
        assert msgspec.json.decode(msgspec.json.encode(summary), type=RunSummary) == summary
        for one in timeline.moments:
            assert one.says.strip()
            assert "\n" not in one.says


# The shorter story -------------------------------------------------------------------------


def test_a_short_story_has_one_line_for_what_belongs_together():
    short = brief(story_of(told_run()).moments)
    assert [(one.kind, one.status, one.says) for one in short if one.kind in {"fault", "verdict"}] == [
        ("fault", "ok", "truncated: asked again with max_tokens=20 after 0.5 s; that worked"),
        ("verdict", "failed", "form failed: has no list; length passed"),
        ("verdict", "ok", "length and form passed"),
    ]
    assert {"outcome", "wait", "recovery"}.isdisjoint(one.kind for one in short)
    kept = {"started", "documents", "text", "death", "doubt", "resumed", "feedback", "closed"}
    assert kept <= {one.kind for one in short}


def test_a_short_story_says_when_an_action_did_not_help():
    records = [*told_run()[:12], Outcome(107.0, 9, success=False)]
    (fault,) = [one for one in brief(story_of(records).moments) if one.kind == "fault"]
    assert fault.status == "failed"
    assert fault.says.endswith("; that did not help")


def test_verdicts_of_two_texts_are_never_put_together():
    records = told_run()
    verdicts = [one for one in records if isinstance(one, Result) and one.verdict]
    texts = [one for one in brief(story_of([records[0], *verdicts]).moments) if one.kind == "verdict"]
    assert [one.iteration for one in texts] == [0, 1]


# Words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "changes", "says"),
    [
        ("retry_current_step", {}, "asked again"),
        ("retry_current_step", {"delay_s": 2.0}, "asked again after 2.0 s"),
        ("skip_to_next_step", {"skips": ("a", "b")}, "went on without a, b"),
        (
            "restart_iteration",
            {"to": Position("generation", 1)},
            "began again at the writing of improvement 1",
        ),
        ("restart_from_generation", {"to": Position("generation", 0)}, "wrote the first text afresh"),
        ("modify_parameters", {"parameters": {"temperature": 0.1}}, "asked again with temperature=0.1"),
        ("full_restart", {"chosen_by": "user"}, "by hand: began the whole run again"),
    ],
)
def test_each_strategy_is_said_in_plain_words(strategy, changes, says):
    plain = Recovery(0.0, "generation", 0, "model", strategy, "why", START, {})
    assert deed_says(msgspec.structs.replace(plain, **changes)) == says


def test_numbers_are_said_with_their_units():
    assert (count(1, "call"), count(1200, "call"), count(2, "life", "lives")) == (
        "1 call",
        "1,200 calls",
        "2 lives",
    )
    assert (usd(0), usd(0.00123), usd(12)) == ("$0", "$0.0012", "$12.0000")
    assert [seconds_says(one) for one in (0.04, 9.94, 61, 600)] == ["0.0 s", "9.9 s", "61 s", "10 min"]
    assert paid_says(Paid(3, 0, 0, 0, 1.0)) == "3 calls, 0 tokens, 1.0 s, $0"


def test_a_retriever_that_finds_nothing_is_told():
    store = InMemoryStorage()
    chain_of(Model(), store, retrievers=[Retriever("shelf", [])], chain_id="r").run()
    assert "shelf found nothing" in [one.says for one in story_of(log(store, "r")).moments]


def fault_at(at, kind, part="model"):
    return Faulted(at, -1, "generation", 0, part, classify(kind))


def action_at(at, strategy):
    return Recovery(at, "generation", 0, "model", strategy, "why", Position("generation", 0), {})


def test_an_action_answers_what_failed_since_the_one_before_and_nothing_else():
    records = [
        told_run()[0],
        fault_at(1.0, TimeoutError()),
        action_at(1.0, "retry_current_step"),
        fault_at(2.0, TimeoutError()),
        Outcome(2.0, 2, success=False),
        action_at(2.0, "full_restart"),
        Outcome(3.0, 5, success=True),
    ]
    faults = story_of(records).summary().faults
    assert [(one.strategy, one.success) for one in faults] == [
        ("retry_current_step", False),
        ("full_restart", True),
    ]


def test_a_fault_that_is_past_is_not_answered_later():
    records = [
        told_run()[0],
        fault_at(1.0, TimeoutError()),
        Reached(2.0, "generation", 0, Position("validation", 0)),
        fault_at(3.0, MemoryError()),
        action_at(3.0, "retry_current_step"),
    ]
    assert [one.action for one in story_of(records).summary().faults] == ["", "asked again"]


def test_the_most_frequent_cause_comes_first():
    errors = [MemoryError(), TimeoutError(), TimeoutError()]
    records = [told_run()[0], *[fault_at(float(n), error) for n, error in enumerate(errors)]]
    causes = story_of(records).summary().causes
    assert [(one.kind, one.times) for one in causes] == [("timeout", 2), ("out_of_memory", 1)]
