"""What a run does from its prompt to its result, and what is kept when it stops on the way."""

from __future__ import annotations

import asyncio
import random

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
    kinds,
    log,
    no_key,
    of,
    priced,
    wanting,
)
from sifaka.errors import ChainError
from sifaka.log.records import Closed, Faulted, Intent, Opened, Reached, Result
from sifaka.parts import Reply
from sifaka.recovery import RecoveryAction, RecoveryStrategy
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.reading import load, load_whole
from sifaka.testing.clock import FakeClock
from sifaka.thought import ValidationResult

storage = doubles.storage

RETRY = RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5)
SKIP = RecoveryAction(RecoveryStrategy.SKIP_TO_NEXT_STEP, "without it", 0.5)


def verdict(passed, score=None):
    return ValidationResult(passed, "a message", score)


# Iterations --------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_there_are_at_most_n_improvements_after_the_first_text(limit):
    model, validator = Model(), Validator("v", *[False] * 9)
    thought = chain_of(model, validators=[validator], max_improvement_iterations=limit).run()
    assert model.calls == validator.calls == limit + 1
    assert (thought.iteration, thought.passed, len(thought.history)) == (limit, False, limit)


def test_a_failed_verdict_leads_to_the_next_iteration_and_never_raises():
    model, validator = Model(), Validator("v", False, False, True)
    thought = chain_of(model, validators=[validator]).run()
    assert (thought.text, thought.passed, model.calls) == ("text 2", True, 3)


def test_a_run_ends_when_all_pass_and_no_critic_asks_for_more():
    model, critic = Model(), Critic("c", "more", None)
    thought = chain_of(model, validators=[Validator()], critics=[critic]).run()
    assert (thought.text, model.calls, critic.calls) == ("text 1", 2, 2)


def test_one_critic_that_asks_for_more_is_enough():
    thought = chain_of(Model(), critics=[Critic("content"), Critic("not", "more")]).run()
    assert thought.iteration == 1


def test_a_failed_verdict_is_enough_when_the_critics_are_content():
    thought = chain_of(Model(), validators=[Validator("v", False)], critics=[Critic()]).run()
    assert thought.iteration == 1


def test_without_parts_the_first_text_is_the_result():
    model = Model()
    thought = chain_of(model).run()
    assert (thought.text, thought.passed, model.calls) == ("text 0", True, 1)


# Criticism ---------------------------------------------------------------------------------


def test_feedback_nobody_can_use_is_not_paid_for():
    critic = Critic("c", then="more")
    thought = chain_of(Model(), critics=[critic], max_improvement_iterations=2).run()
    assert (critic.calls, thought.iteration, thought.critic_feedback) == (2, 2, ())


def test_critique_final_asks_for_it():
    critic = Critic("c", then="more")
    chain = chain_of(Model(), critics=[critic], max_improvement_iterations=1)
    thought = chain.with_options(critique_final=True).run()
    assert (critic.calls, thought.iteration) == (2, 1)
    assert [one.message for one in thought.critic_feedback] == ["more"]


def test_critics_speak_only_after_a_failed_validation_where_that_is_asked():
    critic = Critic("c", "more", "more")
    chain = chain_of(
        Model(), validators=[Validator("v", False, True)], critics=[critic], always_apply_critics=False
    )
    thought = chain.run()
    assert (critic.calls, thought.iteration) == (1, 1)


def test_critics_speak_of_a_passed_text_too_by_default():
    critic = Critic("c", "more")
    assert chain_of(Model(), validators=[Validator()], critics=[critic]).run().iteration == 1


def test_documents_for_critics_are_looked_for_where_criticism_follows():
    find = Retriever("for critics")
    chain = chain_of(Model(), critics=[Critic("c", then="more")], max_improvement_iterations=1)
    chain.with_critic_retrievers([find]).run()
    assert find.queries == ["text 0"]


def test_a_critic_sees_text_verdicts_and_documents():
    critic = Critic("c")
    chain = chain_of(
        Model(), validators=[Validator("v", False)], critics=[critic], retrievers=[Retriever("before")]
    )
    chain.with_critic_retrievers([Retriever("after")]).run()
    (seen, _) = critic.thoughts
    assert (seen.text, seen.iteration) == ("text 0", 0)
    assert [one.passed for one in seen.validation_results] == [False]
    assert [one.text for one in seen.retrieved_documents] == ["before document", "after document"]


# The best text -----------------------------------------------------------------------------


BEST = {
    "most validators passed": ([(True, False), (True, True), (False, False)], None, "text 1"),
    "then the highest mean score": (
        [
            (verdict(False, 0.2), verdict(False, 0.4)),
            (verdict(False, 0.9), verdict(False, 0.3)),
            (False, False),
        ],
        None,
        "text 1",
    ),
    "then the latest": ([(True, False), (False, True), (True, False)], None, "text 2"),
    "passed before score": (
        [
            (verdict(True, 0.1), verdict(False, 0.1)),
            (verdict(False, 0.9), verdict(False, 0.9)),
            (False, False),
        ],
        None,
        "text 0",
    ),
    "a verdict without a score counts 1 or 0": (
        [(verdict(False, 0.9), False), (False, False), (False, False)],
        None,
        "text 0",
    ),
}


@pytest.mark.parametrize("case", BEST)
def test_the_result_is_the_best_text(storage, case):
    rounds, _, best = BEST[case]
    first, second = zip(*rounds, strict=True)
    chain = chain_of(
        Model(),
        storage,
        validators=[Validator("a", *first), Validator("b", *second)],
        critics=[Critic("c", then="more")],
        max_improvement_iterations=2,
        chain_id="r",
    )
    thought = chain.run()
    assert thought.text == best
    assert thought.iteration == int(best[-1])
    again = chain_of(Model(), storage, validators=[Validator("a"), Validator("b")], critics=[Critic("c")])
    assert again.resume("r") == thought
    assert of(Closed, log(storage, "r"))[-1].best == int(thought.id.split(":")[1])


def test_the_result_carries_what_the_whole_run_cost():
    chain = chain_of(
        Model(priced("good", 1.0), priced("worse", 0.5), Reply("worst")),
        validators=[Validator("v", verdict(False, 0.9), False, False)],
        max_improvement_iterations=2,
    )
    thought = chain.run()
    assert (thought.text, thought.cost, thought.cost_unknown_calls) == ("good", 1.5, 1)


def test_a_text_that_was_not_judged_is_no_result():
    chain = chain_of(Model(), validators=[Validator("v", verdict(False, 0.1), KeyError("x"))])
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert caught.value.thought.text == "text 0"


def test_a_best_text_that_was_set_aside_is_still_the_best_after_a_resume(storage):
    def parts(passes=(True,)):
        return {
            "validators": [Validator("v", *passes, *[False] * 9)],
            "critics": [wanting(9)],
            "max_improvement_iterations": 3,
        }

    chain = chain_of(Model("best", KeyError("x")), storage, chain_id="r", **parts())
    with pytest.raises(ChainError):
        chain.run()
    again = chain_of(Model(), storage, chain_id="r", **parts(()))
    again.apply_recovery_action(RecoveryAction(RecoveryStrategy.FULL_RESTART, "all anew", 0.5))
    thought = again.run()
    assert (thought.text, thought.passed) == ("best", True)
    assert chain_of(Model(), storage, chain_id="r", **parts()).run() == thought


# What the model is asked -------------------------------------------------------------------


def test_the_next_prompt_holds_the_draft_the_verdicts_and_the_feedback():
    model = Model("a draft")
    chain = chain_of(
        model,
        validators=[
            Validator("content", True),
            Validator("strict", ValidationResult(False, "too dull", 0.1, ("no verbs",), ("add verbs",))),
        ],
        critics=[
            Critic("picky", {"needs_improvement": True, "message": "be bold", "suggestions": ["shout"]}),
            Critic("pleased", {"needs_improvement": False, "message": "lovely"}),
        ],
        retrievers=[Retriever("r", ["a fact"])],
    )
    chain.run()
    first, second = model.prompts
    assert first.startswith("Write.")
    assert "a fact" in first
    for piece in ("Write.", "a fact", "a draft", "too dull", "no verbs", "add verbs", "be bold", "shout"):
        assert piece in second
    assert "lovely" not in second
    assert "content" not in second


def test_model_prompt_is_what_was_sent_and_is_the_same_after_a_resume(storage):
    model = Model()
    parts = {"critics": [wanting(3)], "retrievers": [Retriever()]}
    thought = chain_of(model, storage, chain_id="r", **parts).run()
    sent = [one.model_prompt for one in (*thought.history, thought)]
    assert sent == model.prompts
    again = chain_of(Model(), storage, chain_id="r", **parts).run()
    assert [one.model_prompt for one in (*again.history, again)] == model.prompts


def test_a_system_prompt_goes_in_front_of_the_prompt_where_a_model_knows_none():
    prompts = []

    def model(prompt):
        prompts.append(prompt)
        return "text"

    chain_of(model).with_system_prompt("Be brief.").run()
    assert prompts == ["Be brief.\n\nWrite."]


def test_a_system_prompt_is_passed_to_a_model_that_knows_one():
    model = Model()
    thought = chain_of(model).with_system_prompt("Be brief.").run()
    assert model.options == [{"system_prompt": "Be brief."}]
    assert (thought.model_prompt, thought.system_prompt) == ("Write.", "Be brief.")


def test_documents_stand_in_the_order_of_their_retrievers_whoever_answers_first():
    async def run():
        quick_is_done = asyncio.Event()

        async def slow(query):
            await quick_is_done.wait()
            return ["first"]

        async def quick(query):
            quick_is_done.set()
            return ["second"]

        model = Model()
        return await chain_of(model, retrievers=[slow, quick]).arun(), model

    thought, model = asyncio.run(run())
    assert [one.text for one in thought.pre_generation_context] == ["first", "second"]
    assert model.prompts[0].index("first") < model.prompts[0].index("second")


def test_retrievers_are_asked_once_with_the_prompt():
    find = Retriever()
    chain_of(Model(), critics=[wanting(2)], retrievers=[find]).run()
    assert find.queries == ["Write."]


# History -----------------------------------------------------------------------------------


def test_history_has_the_earlier_thoughts_oldest_first_each_improving_on_the_one_before():
    thought = chain_of(Model(), critics=[wanting(3)]).run()
    line = [*thought.history, thought]
    assert [one.text for one in line] == ["text 0", "text 1", "text 2", "text 3"]
    assert [one.iteration for one in line] == [0, 1, 2, 3]
    assert [one.parent_id for one in line] == [None, *(one.id for one in line[:-1])]
    assert len({one.id for one in line}) == 4


# Stopping ----------------------------------------------------------------------------------


def test_a_plain_run_raises_at_the_first_fault_with_all_that_helps(storage):
    model = Model("draft", busy(3.0))
    chain = chain_of(model, storage, chain_id="r", validators=[Validator("v", False)])
    with pytest.raises(ChainError) as caught:
        chain.run()
    error = caught.value
    assert error.chain_id == "r"
    assert error.thought.text == "draft"
    assert (error.fault.kind, error.fault.retry_after_s) == ("rate_limit", 3.0)
    assert error.suggestions[0].strategy is RecoveryStrategy.RETRY_CURRENT_STEP
    assert type(error.__cause__) is type(busy())
    assert "resume" in str(error)
    assert model.calls == 2
    assert entry(storage, "r").status == "failed"
    assert "rate_limit" in entry(storage, "r").reason
    assert not entry(storage, "r").owner


def test_what_was_paid_before_a_fault_is_kept_and_not_asked_for_again(storage):
    critics = [Critic("good", "more"), Critic("bad", KeyError("x"))]
    chain = chain_of(Model(), storage, chain_id="r", critics=critics)
    with pytest.raises(ChainError):
        chain.run()
    thought = chain.run()
    assert thought.iteration == 1
    assert [one.calls for one in critics] == [2, 3]


def test_a_run_with_recovery_raises_when_nothing_is_left_that_helps(storage):
    model = Model(no_key())
    chain = chain_of(model, storage, chain_id="r")
    with pytest.raises(ChainError, match="nothing is left") as caught:
        chain.run_with_recovery()
    assert caught.value.suggestions == ()
    assert model.calls == 1
    assert chain.run_with_recovery().text == "text 1"


def test_suggestions_are_those_of_the_error(storage):
    chain = chain_of(Model("text", busy()), storage, validators=[Validator("v", False)])
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert tuple(chain.get_recovery_suggestions(caught.value)) == caught.value.suggestions


def test_suggestions_for_any_other_exception_come_from_where_the_run_stands(storage):
    chain = chain_of(Model(), storage)
    assert chain.get_recovery_suggestions(busy())[0].strategy is RecoveryStrategy.RETRY_CURRENT_STEP
    assert chain.get_recovery_suggestions(no_key())


def test_an_error_that_nothing_helps_has_no_suggestions(storage):
    chain = chain_of(Model(no_key()), storage)
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert chain.get_recovery_suggestions(caught.value) == []


def test_a_limit_of_the_callers_is_no_fault_to_retry(storage):
    chain = chain_of(Model(priced("a"), priced("b")), storage, critics=[wanting(3)], budget=1.0)
    with pytest.raises(ChainError, match="budget") as caught:
        chain.run_with_recovery()
    assert caught.value.fault is None
    assert caught.value.thought.text == "a"
    retries = [one for one in chain.get_recovery_suggestions(caught.value) if one.strategy is RETRY.strategy]
    assert retries == []


# Statuses ----------------------------------------------------------------------------------


def test_a_run_is_running_while_it_calls_and_done_at_the_end(storage):
    seen = []

    def model(prompt):
        seen.append(entry(storage, "r").status)
        return "text"

    chain_of(model, storage, chain_id="r").run()
    assert (seen, entry(storage, "r").status) == (["running"], "done")


def test_a_run_that_did_not_pass_is_done_all_the_same(storage):
    chain = chain_of(Model(), storage, validators=[Validator("v", False)], max_improvement_iterations=0)
    assert not chain.run().passed
    assert entry(storage, chain.chain_id).status == "done"
    assert of(Closed, log(storage, chain.chain_id))[-1].passed is False


def test_a_run_that_waits_says_until_when_and_for_what(storage):
    seen = []

    class Watched(FakeClock):
        def sleep(self, seconds):
            seen.append(entry(storage, "r"))
            super().sleep(seconds)

    clock = Watched()
    chain_of(Model(busy(20.0)), storage, chain_id="r", clock=clock).run_with_recovery()
    (waiting,) = seen
    assert waiting.status == "waiting"
    assert clock.time() - 2.0 <= waiting.until <= clock.time()
    assert waiting.reason
    assert entry(storage, "r").status == "done"
    assert clock.slept == [pytest.approx(20.0, abs=2.0)]


def test_a_wait_is_over_when_the_run_goes_on(storage):
    seen = []

    def model(prompt):
        seen.append(entry(storage, "r").status)
        if len(seen) == 1:
            raise busy(20.0)
        return "text"

    chain_of(model, storage, chain_id="r").run_with_recovery()
    assert seen == ["running", "running"]


def test_a_wait_that_was_broken_off_goes_on_to_its_end(storage):
    clock = FakeClock()

    class Broken(FakeClock):
        def sleep(self, seconds):
            raise Died

    with pytest.raises(Died):
        chain_of(Model(busy(50.0)), storage, chain_id="r", clock=Broken()).run_with_recovery()
    clock.advance(20.0)
    model = Model()
    chain_of(model, storage, chain_id="r", clock=clock).run()
    assert clock.slept == [pytest.approx(30.0, abs=2.0)]


def test_a_run_whose_owner_is_gone_is_interrupted(storage):
    died(chain_of(Model(lambda _: doubles.die(storage, "r")), storage, chain_id="r"))
    assert entry(storage, "r").status == "interrupted"
    assert chain_of(Model(), storage, chain_id="r").run().text == "text 0"


# Skipping ----------------------------------------------------------------------------------


def test_a_skipped_validator_has_not_passed():
    chain = chain_of(
        Model(), validators=[Validator("ok"), Validator("bad", *[no_key()] * 9)], max_improvement_iterations=1
    )
    thought = chain.run_with_recovery()
    assert not thought.passed
    (ok, bad) = thought.validation_results
    assert (ok.passed, ok.skipped, bad.passed, bad.skipped) == (True, False, False, True)


def test_a_skipped_validator_says_nothing_in_the_next_prompt():
    model = Model()
    chain = chain_of(model, validators=[Validator("bad", no_key())], max_improvement_iterations=1)
    chain.run_with_recovery()
    assert "bad" not in model.prompts[1]
    assert "skipped" not in model.prompts[1]


def test_a_skipped_critic_asks_for_nothing():
    chain = chain_of(Model(), critics=[Critic("bad", no_key()), Critic("good", "more")])
    thought = chain.run_with_recovery()
    first = thought.history[0]
    assert [(one.critic, one.skipped) for one in first.critic_feedback] == [("bad", True), ("good", False)]
    assert thought.iteration == 1
    assert [one.skipped for one in thought.critic_feedback] == [False, False]


def test_a_skipped_retrieval_leaves_the_others_documents():
    model = Model()
    thought = chain_of(model, retrievers=[Retriever("bad", no_key()), Retriever("good")]).run_with_recovery()
    assert [one.text for one in thought.pre_generation_context] == ["good document"]


def test_a_generation_cannot_be_skipped(storage):
    chain = chain_of(Model(no_key()), storage, chain_id="r")
    with pytest.raises(ChainError):
        chain.run()
    before = log(storage, "r")
    assert chain.apply_recovery_action(SKIP) is False
    assert log(storage, "r") == before


# Applying an action ------------------------------------------------------------------------


def test_applying_records_the_action_and_calls_nothing(storage):
    model, critic = Model(), Critic("c", KeyError("x"))
    chain = chain_of(model, storage, chain_id="r", critics=[critic])
    with pytest.raises(ChainError):
        chain.run()
    before = len(log(storage, "r"))
    assert chain._apply_recovery_action(SKIP) is True
    assert (model.calls, critic.calls) == (1, 1)
    assert kinds(log(storage, "r")[before:]) == ["Opened", "Recovery"]
    assert (storage.entry("r").status, storage.entry("r").owner) == ("interrupted", b"")
    thought = chain.run()
    assert (thought.critic_feedback[0].skipped, critic.calls) == (True, 1)


def test_an_action_is_carried_out_by_the_next_process(storage):
    chain = chain_of(Model(), storage, chain_id="r", critics=[Critic("c", KeyError("x"))])
    with pytest.raises(ChainError):
        chain.run()
    other = chain_of(Model("unused"), storage, chain_id="r", critics=[Critic("c")])
    assert other.apply_recovery_action(SKIP) is True
    last = chain_of(Model("unused"), storage, chain_id="r", critics=[Critic("c")])
    assert last.run().critic_feedback[0].skipped


def test_an_action_on_a_run_that_is_done_changes_nothing(storage):
    chain = chain_of(Model(), storage, chain_id="r")
    chain.run()
    before = log(storage, "r"), entry(storage, "r")
    for strategy in RecoveryStrategy:
        assert chain.apply_recovery_action(RecoveryAction(strategy, "now", 0.5)) is False
    assert (log(storage, "r"), entry(storage, "r")) == before


def test_an_action_on_a_fresh_run_is_carried_out_when_it_runs(storage):
    model = Model()
    chain = chain_of(model, storage, chain_id="r")
    action = RecoveryAction(RecoveryStrategy.MODIFY_PARAMETERS, "cool", 0.5, {"temperature": 0.1})
    assert chain.apply_recovery_action(action) is True
    assert model.calls == 0
    chain.run()
    assert model.options == [{"temperature": 0.1}]


def test_an_action_on_an_interrupted_run_reports_the_doubt(storage):
    died(chain_of(Model(lambda _: doubles.die(storage, "r")), storage, chain_id="r"))
    chain = chain_of(Model(), storage, chain_id="r")
    assert chain.apply_recovery_action(RETRY) is True
    assert len(chain.run().in_doubt) == 1


def test_an_action_on_a_run_that_somebody_runs_is_refused(storage):
    from sifaka.errors import OwnedError

    other = chain_of(Model(), storage, chain_id="r")

    def model(prompt):
        with pytest.raises(OwnedError):
            other.apply_recovery_action(RETRY)
        return "text"

    assert chain_of(model, storage, chain_id="r").run().text == "text"


def test_resume_applies_an_action_first(storage):
    chain = chain_of(Model(), storage, chain_id="r", critics=[Critic("c", KeyError("x"))])
    with pytest.raises(ChainError):
        chain.run()
    assert chain.resume(action=SKIP).critic_feedback[0].skipped


def test_resume_says_when_an_action_cannot_be_applied(storage):
    from sifaka.errors import UsageError

    chain = chain_of(Model(no_key()), storage, chain_id="r")
    with pytest.raises(ChainError):
        chain.run()
    with pytest.raises(UsageError, match="skip_to_next_step"):
        chain.resume(action=SKIP)


# Texts that are none -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("", "empty_output"),
        (" \n", "empty_output"),
        (Reply("cut", finish_reason="length", price_usd=1.0), "truncated"),
        (Reply("", finish_reason="content_filter"), "content_filter"),
    ],
)
def test_a_text_that_is_none_is_a_fault_and_paid_all_the_same(storage, answer, kind):
    chain = chain_of(Model(answer, priced("text")), storage, chain_id="r")
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert caught.value.fault.kind == kind
    assert of(Faulted, log(storage, "r"))[0].part == "model"
    paid = getattr(answer, "price_usd", None) or 0.0
    assert chain.run().cost == paid + 1.0


def test_a_cut_text_is_kept_where_that_is_allowed():
    chain = chain_of(Model(Reply("cut", finish_reason="length"))).with_options(allow_partial_results=True)
    assert chain.run().text == "cut"


# Resuming ----------------------------------------------------------------------------------


def test_a_run_that_dies_at_any_call_comes_to_the_same_end(storage):
    def parts():
        return {
            "validators": [Validator("v", False)],
            "critics": [Asking("a"), wanting(2)],
            "retrievers": [Retriever()],
        }

    whole = chain_of(Model(), storage, **parts())
    expected = whole.run()
    calls = len([one for one in of(Result, log(storage, whole.chain_id)) if one.intent >= 0])
    assert calls > 10
    for at in range(calls):
        lives = doubles.Lives(storage, f"dies at {at}", at)
        model = lives.wrap(Model())
        thought = None
        while thought is None:
            found = {
                "validators": [lives.part(Validator("v"), "validate", lambda t: t.iteration > 0)],
                "critics": [Asking("a"), lives.function(wanting(2))],
                "retrievers": [lives.part(Retriever(), "retrieve")],
            }
            chain = chain_of(model, storage, chain_id=lives.chain_id, **found).with_options(batch_size=1)
            try:
                thought = chain.run()
            except Died:
                continue
        assert lives.deaths == 1
        assert thought.text.startswith("text")
        assert (thought.iteration, thought.passed) == (expected.iteration, expected.passed)
        assert len(thought.in_doubt) == 1
        results = [one for one in of(Result, log(storage, lives.chain_id)) if one.intent >= 0]
        assert len(results) == calls
        assert len(of(Intent, log(storage, lives.chain_id))) == calls + 1


def test_a_resumed_run_has_the_same_thoughts_as_one_that_never_stopped(storage):
    parts = {
        "validators": [Validator("v", *[False] * 3)],
        "critics": [wanting(3)],
        "retrievers": [Retriever()],
    }
    clock = FakeClock()
    whole = chain_of(Model(), storage, clock=clock, chain_id="whole", **parts).run()
    stops = Model("text 0", KeyError("a"), "text 1", "text 2", KeyError("b"), "text 3")
    validator = Validator("v", *[False] * 3)
    parts["validators"] = [validator]
    chain = chain_of(stops, storage, clock=clock, chain_id="stops", **parts)
    for _ in range(2):
        with pytest.raises(ChainError):
            chain.run()
    thought = chain.run()
    for one, other in zip([*thought.history, thought], [*whole.history, whole], strict=True):
        assert (one.text, one.model_prompt, one.iteration) == (
            other.text,
            other.model_prompt,
            other.iteration,
        )
        assert one.validation_results == other.validation_results
        assert one.critic_feedback == other.critic_feedback


def same_state(one, other, now):
    """What two folds of one log must agree on."""
    assert one.thought() == other.thought()
    assert one.best_draft() == other.best_draft()
    assert tuple(one.thought().history) == tuple(other.thought().history)
    for name in (
        "actions",
        "all_documents",
        "attempts",
        "best",
        "closed",
        "critic_documents",
        "deaths",
        "doubts",
        "fault",
        "feedback",
        "iteration",
        "life",
        "next_seq",
        "open_intents",
        "options",
        "parameters",
        "parent",
        "parts",
        "passed",
        "position",
        "prompt",
        "recovery",
        "replies",
        "restarts",
        "settings",
        "skipped",
        "system_prompt",
        "text_is_whole",
        "totals",
        "tried",
        "verdicts",
        "waited_s",
    ):
        assert getattr(one, name) == getattr(other, name), name
    assert one.active_s(now) == pytest.approx(other.active_s(now))


class Suspicious(InMemoryStorage):
    """After each append, loads the run from near its end and from its beginning, and compares."""

    compared = 0

    def write(self, writes):
        done = super().write(writes)
        for write in writes:
            near, far = load(self, write.row.chain_id), load_whole(self, write.row.chain_id)
            same_state(near.state, far.state, write.row.at + 5.0)
            assert near.prev == far.prev
            self.compared += 1
        return done


def test_a_partial_load_equals_a_whole_one_after_many_iterations():
    store = Suspicious()
    clock = FakeClock()

    def model(prompt):
        clock.advance(2.0)
        return priced(f"text {len(prompt)}", 0.5, 3)

    chain = chain_of(
        model,
        store,
        validators=[Validator("v", False, True, verdict(False, 0.9))],
        critics=[Asking("a", improve=True), wanting(9)],
        retrievers=[Retriever("r1"), Retriever("r2")],
        max_improvement_iterations=8,
        clock=clock,
    )
    chain.with_system_prompt("Be brief.").with_critic_retrievers([Retriever("r3")])
    chain.run()
    assert store.compared > 50


def word(prompt):
    """A model that changes nothing of its own from life to life."""
    return f"text {len(prompt)}"


@pytest.mark.parametrize("change", ["prompt", "system prompt", "parts", "settings"])
def test_a_partial_load_equals_a_whole_one_after_an_accepted_change(change):
    store, stops = Suspicious(), [KeyError("x"), None, None, None, None, KeyError("y")]

    def critic(thought):
        if stops and (error := stops.pop(0)) is not None:
            raise error
        return {"needs_improvement": True, "message": "more"}

    def chain(**changed):
        options = {"critics": [critic], "chain_id": "r", "max_improvement_iterations": 8} | changed
        return chain_of(word, store, **options).with_options(on_plan_change="accept")

    with pytest.raises(ChainError):
        chain().run()
    changes = {
        "prompt": {"prompt": "Sing."},
        "parts": {"critics": [critic, wanting(9, "another")]},
        "settings": {"max_improvement_iterations": 7},
    }

    def changed():
        found = chain(**changes.get(change, {}))
        return found.with_system_prompt("Be brief.") if change == "system prompt" else found

    with pytest.raises(ChainError):
        changed().run()
    last = changed().with_options(on_plan_change="refuse")
    thought = last.run()
    assert thought.prompt == ("Sing." if change == "prompt" else "Write.")
    assert thought.system_prompt == ("Be brief." if change == "system prompt" else None)


@pytest.mark.parametrize("change", ["prompt", "retriever"])
def test_model_prompt_stays_what_was_sent_when_the_plan_changes_afterwards(storage, change):
    broken = Validator("v", KeyError("x"))
    find = [Retriever("a", ["alpha"]), Retriever("b", ["beta"])]
    model = Model()
    with pytest.raises(ChainError):
        chain_of(model, storage, chain_id="r", validators=[broken], retrievers=find).run()
    options = {"prompt": "Sing.", "retrievers": find} if change == "prompt" else {"retrievers": find[:1]}
    other = chain_of(model, storage, chain_id="r", validators=[Validator("v")], **options)
    thought = other.with_options(on_plan_change="accept").run()
    assert (thought.text, model.calls) == ("text 0", 1)
    assert thought.model_prompt == model.prompts[0]
    assert chain_of(model, storage, chain_id="r", validators=[Validator("v")], **options).run() == thought


def wild_run(seed):
    """A run in which anything fails at times, processes die, and a user applies actions."""
    dice = random.Random(seed)
    store, clock = Suspicious(), FakeClock()
    chain_id = f"seed {seed}"
    errors = [busy(2.0), busy(), no_key(), KeyError("x"), TimeoutError(), MemoryError()]

    def risky(value):
        def work(_):
            clock.advance(dice.random())
            luck = dice.random()
            if luck < 0.05:
                doubles.die(store, chain_id)
            if luck < 0.25:
                raise dice.choice(errors)
            return value()

        return work

    def named(name, value):
        work = risky(value)
        work.__name__ = name
        return work

    thought = None
    for _ in range(60):
        chain = chain_of(
            named("m", lambda: priced(f"text {dice.random()}", 0.1, 2)),
            store,
            chain_id=chain_id,
            validators=[named("v1", lambda: dice.random() < 0.5), named("v2", lambda: dice.random() < 0.5)],
            critics=[named("c1", lambda: {"needs_improvement": True, "message": "more"}), Asking("c2")],
            retrievers=[named("r1", lambda: ["one"]), named("r2", lambda: ["two"])],
            max_improvement_iterations=5,
            clock=clock,
        )
        chain.with_options(batch_size=1, temperature=dice.random())
        try:
            if dice.random() < 0.3:
                action = RecoveryAction(dice.choice(list(RecoveryStrategy)), "by hand", 0.5)
                chain.apply_recovery_action(action)
            thought = chain.run_with_recovery() if dice.random() < 0.7 else chain.run()
            break
        except (ChainError, Died):
            continue
    return store, chain_id, thought, chain


@pytest.mark.parametrize("seed", range(12))
def test_a_partial_load_equals_a_whole_one_whatever_happened(seed):
    store, chain_id, thought, chain = wild_run(seed)
    assert store.compared > 3
    if thought is not None:
        assert chain.run() == thought
        assert CachedCheckpointStorage(store).load(chain_id).state.best_draft() == thought


def test_each_life_is_in_the_log(storage):
    died(chain_of(Model(lambda _: doubles.die(storage, "r")), storage, chain_id="r"))
    with pytest.raises(ChainError):
        chain_of(Model(KeyError("x")), storage, chain_id="r").run()
    chain_of(Model(), storage, chain_id="r").run()
    assert causes(log(storage, "r")) == ["new", "death", "retry"]
    assert [one.life for one in of(Opened, log(storage, "r"))] == [1, 2, 3]


# Durability --------------------------------------------------------------------------------


class Counting(InMemoryStorage):
    """Counts commits, and looks at what was durable when a model was called."""

    def __init__(self):
        super().__init__()
        self.commits = 0

    def write(self, writes):
        self.commits += 1
        return super().write(writes)


def counted(durability):
    store = Counting()
    seen = []

    def model(prompt):
        seen.append(len(store._rows.get("r", [])))
        return "text"

    def critic(thought):
        seen.append(len(store._rows.get("r", [])))
        return {"needs_improvement": thought.iteration < 2, "message": "more"}

    chain = chain_of(model, store, chain_id="r", critics=[critic], durability=durability)
    return store, seen, chain


def test_durability_step_commits_before_each_call_and_at_the_end():
    store, seen, chain = counted("step")
    chain.run()
    assert seen == [1, 2, 3, 4, 5, 6]
    assert store.commits == 7


def test_durability_iteration_commits_once_an_iteration_and_at_the_end():
    store, seen, chain = counted("iteration")
    chain.run()
    assert seen == [1, 1, 2, 2, 3, 3]
    assert store.commits == 4


def test_durability_exit_commits_the_start_and_the_end():
    store, seen, chain = counted("exit")
    thought = chain.run()
    assert seen == [1] * 6
    assert store.commits == 2
    assert chain.run() == thought


def test_durability_can_be_chosen_by_step():
    _, seen, chain = counted({"criticism": "exit"})
    chain.run()
    assert seen == [1, 1, 2, 2, 3, 3]


def test_durability_speaks_of_the_named_steps():
    _, _, chain = counted({"pre_criticism": "exit", "validation": "iteration"})
    assert chain.run().iteration == 2


@pytest.mark.parametrize("durability", ["step", "iteration", "exit"])
def test_a_fault_is_durable_in_every_mode(durability):
    store = Counting()
    chain = chain_of(Model("text", KeyError("x")), store, critics=[wanting(1)], durability=durability)
    with pytest.raises(ChainError):
        chain.run()
    assert [one.text for one in of(Result, log(store, chain.chain_id)) if one.text] == ["text"]
    assert chain.run().history[0].text == "text"


@pytest.mark.parametrize("durability", ["step", "iteration", "exit"])
def test_ctrl_c_keeps_what_was_paid_in_every_mode(durability):
    store = Counting()
    model = Model("paid", KeyboardInterrupt)
    chain = chain_of(model, store, chain_id="r", critics=[wanting(1)], durability=durability)
    with pytest.raises(KeyboardInterrupt):
        chain.run()
    assert [one.text for one in of(Result, log(store, "r")) if one.text] == ["paid"]


def test_ctrl_c_in_a_cheap_part_keeps_the_text_that_was_paid():
    store = Counting()

    class Pure(Validator):
        pure = True

    model = Model("paid")
    chain = chain_of(model, store, chain_id="r", validators=[Pure("v", KeyboardInterrupt)])
    with pytest.raises(KeyboardInterrupt):
        chain.run()
    thought = chain.run()
    assert (model.calls, thought.text, thought.in_doubt) == (1, "paid", ())


def test_a_generation_is_reached_once(storage):
    chain = chain_of(Model(), storage, critics=[wanting(1)])
    chain.run()
    reached = [(one.step, one.iteration) for one in of(Reached, log(storage, chain.chain_id))]
    assert reached.count(("generation", 0)) == reached.count(("generation", 1)) == 1


# Timeouts ----------------------------------------------------------------------------------


def test_a_call_that_takes_too_long_is_a_fault_and_in_doubt(storage):
    never = doubles.Event()

    def model(prompt):
        never.wait()
        return "late"

    chain = chain_of(model, storage, chain_id="r").with_options(timeout_s=0.02)
    with pytest.raises(ChainError) as caught:
        chain.run()
    never.set()
    assert caught.value.fault.kind == "timeout"
    assert len(caught.value.thought.in_doubt) == 1
    assert chain.with_model(Model("second")).run().text == "second"


def test_a_part_that_takes_too_long_leaves_the_others_results():
    never = doubles.Event()

    def slow(thought):
        never.wait()
        return True

    quick = Validator("quick")
    chain = chain_of(Model(), validators=[slow, quick]).with_options(timeout_s=0.05)
    with pytest.raises(ChainError) as caught:
        chain.run()
    never.set()
    assert [one.validator for one in caught.value.thought.validation_results] == ["quick"]
    assert caught.value.fault.kind == "timeout"


def test_a_model_that_takes_a_timeout_is_given_it():
    seen = []

    def model(prompt, timeout_s=None):
        seen.append(timeout_s)
        return "text"

    chain_of(model).with_options(timeout_s=7.0).run()
    assert seen == [7.0]
