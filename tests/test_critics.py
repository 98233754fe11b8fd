"""The ready-made critics: what they ask, how answers become one feedback, and what broken answers do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from doubles import Model, Validator, chain_of, die, died
from sifaka import critics
from sifaka.critics import (
    ConstitutionalCritic,
    MetaRewardingCritic,
    NCriticsCritic,
    PromptCritic,
    ReflexionCritic,
    SelfConsistencyCritic,
    SelfRAGCritic,
    SelfRefineCritic,
)
from sifaka.critics.form import SCHEMA
from sifaka.errors import ChainError, ModelError, PartError
from sifaka.log.prompts import generation_prompt
from sifaka.parts import Critic as CriticProtocol
from sifaka.parts import Reply, Request
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.thought import CriticFeedback, Document, Thought, ValidationResult

THOUGHT = Thought(prompt="Write of {tea}.", text="Coffee {0} is nice.")
ALL = (
    PromptCritic("Judge {text}."),
    ReflexionCritic(),
    SelfRefineCritic(),
    ConstitutionalCritic(),
    NCriticsCritic(),
    SelfRAGCritic(),
    SelfConsistencyCritic(),
    MetaRewardingCritic(),
)


def judgement(needs=True, message="it is of coffee", issues=("no tea",), suggestions=("add tea",), sure=0.8):
    return json.dumps(
        {
            "issues": issues,
            "suggestions": suggestions,
            "needs_improvement": needs,
            "message": message,
            "confidence": sure,
        }
    )


def drive(critic, thought, answer):
    """The feedback, and the rounds of requests. ``answer`` says what a request is answered; or is a list."""
    answers = iter(answer) if isinstance(answer, list) else None
    asking, rounds, sent = critic.critique(thought), [], None
    while True:
        try:
            wanted = asking.send(sent)
        except StopIteration as stop:
            return stop.value, rounds
        many = [wanted] if isinstance(wanted, Request) else list(wanted)
        rounds.append(many)
        replies = [as_reply(next(answers) if answers else answer(one)) for one in many]
        sent = replies[0] if isinstance(wanted, Request) else replies


def as_reply(answer):
    return answer if isinstance(answer, Reply) else Reply(answer)


def failed(*validators, text="Coffee {0} is nice.", feedback=(), history=(), iteration=0):
    return Thought(
        prompt="Write of {tea}.",
        text=text,
        validation_results=tuple(
            ValidationResult(False, f"{one} is missing", validator=one) for one in validators
        ),
        critic_feedback=feedback,
        history=history,
        iteration=iteration,
    )


def asked(critic, thought=THOUGHT):
    """The first request."""
    wanted = next(critic.critique(thought))
    return wanted if isinstance(wanted, Request) else wanted[0]


# What all have in common ------------------------------------------------------------------------


def test_all_critics_are_importable_by_name_and_loaded_when_first_used():
    assert sorted(type(one).__name__ for one in ALL) == critics.__all__
    assert set(critics.__all__) <= set(dir(critics))
    with pytest.raises(AttributeError, match="Nobody"):
        critics.Nobody  # noqa: B018
    code = "import sys, sifaka.critics; print([m for m in sys.modules if m.startswith('sifaka.critics.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("critic", ALL, ids=lambda one: one.name)
def test_a_critic_is_a_part_with_a_docstring_that_cites_its_paper(critic):
    assert isinstance(critic, CriticProtocol)
    module = sys.modules[type(critic).__module__]
    if not isinstance(critic, PromptCritic):
        assert "arXiv" in module.__doc__
        assert "Ours" in module.__doc__
    assert len({one.name for one in ALL}) == len(ALL)


@pytest.mark.parametrize("critic", ALL, ids=lambda one: one.name)
def test_braces_of_the_user_reach_the_model_as_they_are(critic):
    prompt = asked(critic).prompt
    assert "Coffee {0} is nice." in prompt


OWN = {
    "prompt": lambda **more: PromptCritic("{text}", **more),
    "reflexion": ReflexionCritic,
    "self-refine": SelfRefineCritic,
    "constitutional": ConstitutionalCritic,
    "n-critics": NCriticsCritic,
    "self-rag": SelfRAGCritic,
    "self-consistency": SelfConsistencyCritic,
    "meta-rewarding": MetaRewardingCritic,
}


@pytest.mark.parametrize("kind", OWN)
def test_a_critic_may_have_a_model_a_name_and_options_of_its_own(kind):
    model = Model()
    critic = OWN[kind](model=model, name="mine", temperature=0.25, max_tokens=99)
    request = asked(critic)
    assert (critic.name, request.model) == ("mine", model)
    assert (request.options["temperature"], request.options["max_tokens"]) == (0.25, 99)
    assert asked(OWN[kind]()).model is None


@pytest.mark.parametrize(
    "critic", [one for one in ALL if one.name != "self-refine"], ids=lambda one: one.name
)
def test_the_form_is_asked_for_in_words_and_by_schema(critic):
    request = asked(critic)
    schema = request.options["json_schema"]
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False
    for field in schema["properties"]:
        assert f'"{field}"' in request.prompt


BAD_PROMPTS = {
    "unknown": (lambda: PromptCritic("{text} {title}"), r"prompt: \{title\} cannot be filled"),
    "missing": (lambda: PromptCritic("Judge."), r"\{text\} is missing"),
    "lone brace": (lambda: PromptCritic("{text} {"), "prompt: .*written twice"),
    "attribute": (lambda: PromptCritic("{text.__class__}"), r"\{text.__class__\} cannot be filled"),
    "format": (lambda: PromptCritic("{text:>10}"), "format of its own"),
    "number": (lambda: PromptCritic("{text} {0}"), r"\{0\} cannot be filled"),
    "principle": (lambda: ConstitutionalCritic(critique_prompt="{text}"), r"critique_prompt.*\{principle\}"),
    "failure": (lambda: ReflexionCritic(reflection_prompt="{text}"), r"reflection_prompt.*\{failure\}"),
    "evaluation": (lambda: ReflexionCritic(evaluation_prompt="{txt}"), "evaluation_prompt"),
    "second": (lambda: MetaRewardingCritic(meta_prompt="{text} {first}"), r"meta_prompt.*\{second\}"),
    "document": (lambda: SelfRAGCritic(relevance_prompt="{text}"), r"relevance_prompt.*\{document\}"),
    "documents": (lambda: SelfRAGCritic(support_prompt="{text}"), r"support_prompt.*\{documents\}"),
    "use": (lambda: SelfRAGCritic(use_prompt="how?"), "use_prompt"),
    "perspectives": (lambda: NCriticsCritic(critique_prompt="{perspective}"), "critique_prompt"),
    "samples": (lambda: SelfConsistencyCritic(judgement_prompt="x"), "judgement_prompt"),
}


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_a_prompt_that_cannot_be_filled_is_refused_when_the_critic_is_made(case):
    make, message = BAD_PROMPTS[case]
    with pytest.raises(PartError, match=message):
        make()


BAD_SETTINGS = {
    "one sample": (lambda: SelfConsistencyCritic(samples=1), "samples"),
    "no temperature": (lambda: SelfConsistencyCritic(temperature=0), "temperature"),
    "one judgement": (lambda: MetaRewardingCritic(judgements=1), "judgements"),
    "a score of six": (lambda: MetaRewardingCritic(enough=6), "enough"),
    "a text of principles": (lambda: ConstitutionalCritic("be good"), "principles"),
    "no principles": (lambda: ConstitutionalCritic([]), "principles"),
    "none at once": (lambda: ConstitutionalCritic(at_once=0), "at_once"),
    "no memory": (lambda: ReflexionCritic(memory_size=-1), "memory_size"),
    "no agreement": (lambda: NCriticsCritic(agreement=0), "agreement"),
    "no members": (lambda: NCriticsCritic(perspectives={}), "no critics"),
    "a plain function": (lambda: NCriticsCritic(lambda thought: None), "no asking critic"),
    "a class": (lambda: NCriticsCritic(SelfRefineCritic), "no asking critic"),
    "no documents": (lambda: SelfRAGCritic(max_documents=0), "max_documents"),
    "half support": (lambda: SelfRAGCritic(min_support="half"), "min_support"),
    "six stars": (lambda: SelfRAGCritic(min_usefulness=6), "min_usefulness"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_setting_that_makes_no_sense_is_refused_when_the_critic_is_made(case):
    make, message = BAD_SETTINGS[case]
    with pytest.raises(PartError, match=message):
        make()


# Reading ----------------------------------------------------------------------------------------

CLEAN = judgement()
READ = {
    "plain": (CLEAN, False),
    "in space": (f"\n  {CLEAN}\n", False),
    "fenced": (f"Here you are:\n```json\n{CLEAN}\n```\nGood luck!", False),
    "in prose": (f"I think so. {CLEAN} That is all {{really}}.", False),
    "after an example": (f'Of the form {{"issues": []}} I say {CLEAN}', False),
    "after another that fits": (f"At first {judgement(needs=False)}, but then {CLEAN}", False),
    "in a list": (f"[{CLEAN}]", False),
    "single quotes": (CLEAN.replace('"', "'").replace("true", "True"), True),
    "a comma too many": (CLEAN.replace("}", ",}"), True),
    "cut off at the end": (CLEAN[:-1], True),
    "a fence never closed": (f"```json\n{CLEAN[:-1]}", True),
    "a word for a bool": (CLEAN.replace("true", '"yes"'), True),
    "a text for a list": (CLEAN.replace('["no tea"]', '"no tea"'), True),
    "objects in a list": (CLEAN.replace('["no tea"]', '[{"issue": "no tea"}]'), True),
    "a word for a number": (CLEAN.replace("0.8", '"0.8"'), True),
}


@pytest.mark.parametrize("case", READ)
def test_an_answer_is_read_and_a_repair_is_told(case):
    answer, repaired = READ[case]
    feedback, _ = drive(PromptCritic("{text}"), THOUGHT, [answer])
    expected = CriticFeedback(
        needs_improvement=True,
        message="it is of coffee",
        issues=("no tea",),
        suggestions=("add tea",),
        confidence=0.8,
        metadata={"repaired": True} if repaired else {},
    )
    assert feedback == expected


UNREADABLE = {
    "nothing": (Reply("  "), "empty_output"),
    "prose": (Reply("It is fine as it is."), "malformed_output"),
    "another form": (Reply('{"verdict": "good"}'), "malformed_output"),
    "no verdict": (Reply('{"message": "good"}'), "malformed_output"),
    "not a bool": (Reply('{"needs_improvement": "perhaps"}'), "malformed_output"),
    "braces": (Reply("{" * 5000), "malformed_output"),
    "brackets in braces": (Reply('{"a":' + "[" * 100_000), "malformed_output"),
    "many objects": (Reply('{"a":{}} ' * 5000), "malformed_output"),
    "cut off": (Reply('{"issues": ["no', finish_reason="length"), "truncated"),
    "cut off before it began": (Reply("", finish_reason="length"), "truncated"),
    "withheld": (Reply("", finish_reason="content_filter"), "content_filter"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_an_answer_that_cannot_be_read_is_a_fault_of_its_kind(case):
    answer, kind = UNREADABLE[case]
    with pytest.raises(ModelError, match="mine") as caught:
        drive(PromptCritic("{text}", name="mine"), THOUGHT, [answer])
    assert caught.value.kind == kind


def test_a_confidence_that_is_none_is_left_out():
    for odd in ("1000000", "-1", '"high"', "null"):
        feedback, _ = drive(PromptCritic("{text}"), THOUGHT, [CLEAN.replace("0.8", odd)])
        assert (feedback.confidence, feedback.needs_improvement) == (None, True)


def test_feedback_has_a_message_whatever_the_model_left_out():
    said = [
        drive(PromptCritic("{text}"), THOUGHT, [answer])[0].message
        for answer in (
            '{"needs_improvement": true, "issues": ["a", "b"]}',
            '{"needs_improvement": true}',
            '{"needs_improvement": false}',
        )
    ]
    assert said == ["a; b", "it needs improvement", "it needs no change"]


def test_an_unreadable_answer_is_asked_for_again_and_only_that_one():
    model = Model("a draft", "no JSON", judgement(needs=False))
    chain = chain_of(model, critics=[PromptCritic("{text}")])
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert caught.value.fault.kind == "malformed_output"
    assert chain.run().text == "a draft"
    assert model.calls == 3


# The prompt critic ------------------------------------------------------------------------------


def test_a_prompt_of_ones_own_may_show_the_task_the_verdicts_and_the_documents():
    thought = Thought(
        prompt="On tea",
        text="Tea.",
        pre_generation_context=(Document("Tea is a plant."),),
        post_generation_context=(Document("Cups hold tea."),),
        validation_results=(
            ValidationResult(True, "3 characters", validator="length"),
            ValidationResult(False, "no cup", issues=("no cup", "no pot"), validator="words"),
            ValidationResult(False, "not run", skipped=True, validator="style"),
        ),
    )
    critic = PromptCritic("{prompt}|{verdicts}|{documents}|{text}|{{x}}|{form}", form="JSON!")
    assert asked(critic, thought).prompt == (
        "On tea|- length passed: 3 characters\n- words failed: no cup; no pot\n- style skipped: not run|"
        "[1] Tea is a plant.\n\n[2] Cups hold tea.|Tea.|{x}|JSON!"
    )


def test_the_form_is_put_at_the_end_of_a_prompt_that_does_not_place_it():
    assert asked(PromptCritic("Judge {text}.", form="In JSON.")).prompt == (
        "Judge Coffee {0} is nice..\n\nIn JSON."
    )
    literal = asked(PromptCritic("Judge {text} by {{form}}.", form="In JSON.")).prompt
    assert literal.endswith("by {form}.\n\nIn JSON.")


def test_issues_and_suggestions_reach_the_next_prompt():
    feedback, _ = drive(PromptCritic("{text}", name="mine"), THOUGHT, [judgement()])
    draft = Thought(
        prompt="p", text="t", critic_feedback=(CriticFeedback(**{**fields(feedback), "critic": "mine"}),)
    )
    prompt = generation_prompt("p", (), draft, {})
    assert "it is of coffee" in prompt
    assert "no tea" in prompt
    assert "add tea" in prompt


def fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


# Reflexion --------------------------------------------------------------------------------------


def reflection(said="I forgot the tea", *plan):
    return json.dumps({"reflection": said, "plan": plan})


def remembered(*said, critic="reflexion"):
    return tuple(
        failed(feedback=(CriticFeedback(True, one, critic=critic, metadata={"reflection": one}),))
        for one in said
    )


def test_reflexion_costs_nothing_where_all_validators_passed():
    thought = Thought(prompt="p", text="t", validation_results=(ValidationResult(True, validator="a"),))
    feedback, rounds = drive(ReflexionCritic(), thought, [])
    assert (feedback.needs_improvement, rounds) == (False, [])


def test_reflexion_reflects_on_what_the_validators_found():
    feedback, rounds = drive(
        ReflexionCritic(), failed("tea"), [reflection("I forgot", "add tea", "add a cup")]
    )
    assert "tea is missing" in rounds[0][0].prompt
    assert "(nothing yet)" in rounds[0][0].prompt
    assert (feedback.needs_improvement, feedback.message) == (True, "I forgot")
    assert feedback.suggestions == ("add tea", "add a cup")
    assert feedback.metadata == {"reflection": "I forgot"}


def test_reflexion_takes_a_skipped_check_for_no_success():
    skipped = Thought(
        prompt="p",
        text="t",
        validation_results=(ValidationResult(False, "off", skipped=True, validator="v"),),
    )
    assert drive(ReflexionCritic(), skipped, [reflection()])[0].needs_improvement


def test_reflexion_has_the_model_evaluate_where_there_are_no_validators():
    success = '{"reason": "all is there", "success": true}'
    feedback, rounds = drive(ReflexionCritic(), THOUGHT, [success])
    assert (feedback.needs_improvement, len(rounds)) == (False, 1)
    failure = '{"reason": "no tea in it", "success": false,}'
    feedback, rounds = drive(ReflexionCritic(), THOUGHT, [failure, reflection()])
    assert "no tea in it" in rounds[1][0].prompt
    assert feedback.needs_improvement
    assert feedback.metadata["repaired"]


def test_the_memory_of_reflexion_is_bounded_its_own_and_in_order():
    thought = failed("tea", history=(*remembered("one", "two", "two", "three"), *remembered("x", critic="y")))
    assert ReflexionCritic().memory(thought) == ("one", "two", "three")
    assert ReflexionCritic(memory_size=2).memory(thought) == ("two", "three")
    assert ReflexionCritic(memory_size=0).memory(thought) == ()
    assert ReflexionCritic(name="y").memory(thought) == ("x",)


def test_what_reflexion_remembers_reaches_its_model_and_the_writer_but_is_told_once():
    thought = failed("tea", history=remembered("mind the cup"))
    feedback, rounds = drive(ReflexionCritic(), thought, [reflection("mind the pot", "add a pot")])
    assert "- mind the cup" in rounds[0][0].prompt
    assert feedback.suggestions == ("add a pot", "from an earlier attempt: mind the cup")
    again = failed("tea", history=(*thought.history, failed(feedback=(with_name(feedback),))))
    assert ReflexionCritic().memory(again) == ("mind the cup", "mind the pot")


def with_name(feedback, critic="reflexion"):
    return CriticFeedback(**{**fields(feedback), "critic": critic})


def test_the_memory_of_reflexion_survives_the_process(tmp_path):
    """The second life is another chain on the same log: it knows what the first one told itself."""
    path = tmp_path / "runs.db"
    storage = SQLiteStorage(path)
    first = Model(
        *("one", reflection("lesson A"), "two", reflection("lesson B"), "three"),
        lambda *_, **__: die(storage, "r"),
    )
    died(reflecting(first, storage))
    storage.close()
    storage = SQLiteStorage(path)
    second = Model(reflection("lesson C"), "four")
    thought = reflecting(second, storage).run()
    storage.close()
    assert thought.text == "four"
    assert "- lesson A\n- lesson B" in second.prompts[0]
    assert "lesson C" in second.prompts[1]
    assert "from an earlier attempt: lesson A" in second.prompts[1]


def reflecting(model, storage):
    never = Validator("v", *[False] * 9)
    return chain_of(model, storage, validators=[never], critics=[ReflexionCritic()], chain_id="r")


# Constitutional ---------------------------------------------------------------------------------


def by_text(**answers):
    """Answers a request by the first word of ``answers`` that its prompt holds."""
    return lambda request: next(answer for word, answer in answers.items() if word in request.prompt)


def test_each_principle_is_judged_in_a_call_of_its_own_and_all_together():
    critic = ConstitutionalCritic(["Be KIND.", "Be {SHORT}.", "Be TRUE."])
    answers = by_text(
        KIND=judgement(needs=True, issues=["rude"], suggestions=["greet"], sure=0.6),
        SHORT=judgement(needs=False, issues=["not to be told"], sure=0.1),
        TRUE=judgement(needs=True, message="false", issues=[], suggestions=["Greet", "check"], sure=0.8),
    )
    feedback, rounds = drive(critic, THOUGHT, answers)
    assert [len(one) for one in rounds] == [3]
    assert "Be {SHORT}." in rounds[0][1].prompt
    assert feedback.needs_improvement
    assert feedback.message == "these principles are not kept: Be KIND. Be TRUE."
    assert feedback.issues == ("rude", "false")
    assert feedback.suggestions == ("greet", "check")
    assert feedback.confidence == pytest.approx(0.7)
    assert feedback.metadata == {"broken": ["Be KIND.", "Be TRUE."]}


def test_a_text_that_keeps_all_principles_is_left_alone():
    feedback, rounds = drive(ConstitutionalCritic(), THOUGHT, lambda _: judgement(needs=False, sure=0.5))
    assert (feedback.needs_improvement, feedback.issues, feedback.confidence) == (False, (), 0.5)
    assert len(rounds[0]) == 5


def test_principles_can_be_taken_in_turn_the_same_at_every_resume():
    critic = ConstitutionalCritic(["a", "b", "c"], at_once=2)
    assert [critic.chosen(i) for i in range(4)] == [("a", "b"), ("c", "a"), ("b", "c"), ("a", "b")]
    assert ConstitutionalCritic(["a", "b"], at_once=9).chosen(3) == ("a", "b")


def test_a_critique_that_cannot_be_read_loses_none_of_the_others():
    feedback, _ = drive(ConstitutionalCritic(["a", "b"]), THOUGHT, ["gibberish", judgement(needs=True)])
    assert feedback.metadata == {"broken": ["b"], "unread": 1}
    with pytest.raises(ModelError, match="constitutional") as caught:
        drive(ConstitutionalCritic(["a", "b"]), THOUGHT, ["gibberish", "gibberish"])
    assert caught.value.kind == "malformed_output"


def test_one_repaired_answer_among_many_is_told():
    broken = judgement(needs=False)[:-1]
    feedback, _ = drive(ConstitutionalCritic(["a", "b"]), THOUGHT, [broken, judgement(needs=False)])
    assert feedback.metadata == {"broken": [], "repaired": True}


# N-Critics --------------------------------------------------------------------------------------


def test_the_ensemble_looks_from_several_sides_together_and_counts():
    critic = NCriticsCritic(perspectives={"a": "the ALPHA {x}.", "b": "the BETA.", "c": "the GAMMA."})
    answers = by_text(
        ALPHA=judgement(issues=["one"], suggestions=["mend one"]),
        BETA=judgement(issues=["One"], suggestions=[]),
        GAMMA=judgement(needs=False, issues=["not to be told"]),
    )
    feedback, rounds = drive(critic, THOUGHT, answers)
    assert [len(one) for one in rounds] == [3]
    assert "the ALPHA {x}." in rounds[0][0].prompt
    assert feedback.needs_improvement
    assert feedback.message == "2 of 3 critics ask for improvement: a, b"
    assert (feedback.issues, feedback.suggestions) == (("one",), ("mend one",))
    assert feedback.confidence == pytest.approx(2 / 3)
    assert feedback.metadata["members"] == {"a": True, "b": True, "c": False}


@pytest.mark.parametrize(("agreement", "needs"), [(0.5, True), (0.51, False), (1, False), (0.1, True)])
def test_the_share_that_has_to_ask_is_a_setting(agreement, needs):
    critic = NCriticsCritic(perspectives={"a": "A", "b": "B"}, agreement=agreement)
    feedback, _ = drive(critic, THOUGHT, [judgement(), judgement(needs=False)])
    assert feedback.needs_improvement is needs
    assert feedback.confidence == 0.5
    assert feedback.issues == ("no tea",)


def test_nobody_asking_is_no_improvement_whatever_the_agreement():
    critic = NCriticsCritic(perspectives={"a": "A"}, agreement=0.01)
    assert not drive(critic, THOUGHT, [judgement(needs=False)])[0].needs_improvement


def test_the_ensemble_may_be_of_several_models():
    other = Model(name="other")
    critic = NCriticsCritic(models=["local:smollm2", other, other], temperature=0.5)
    assert critic.members == ("local:smollm2", "other", "other-2")
    feedback, rounds = drive(critic, THOUGHT, lambda _: judgement())
    assert [one.model for one in rounds[0]] == ["local:smollm2", other, other]
    assert rounds[0][0].options["temperature"] == 0.5
    assert feedback.confidence == 1


def test_critics_of_any_number_of_calls_run_in_step_as_members():
    """One asks once, one twice, one for three at once: each gets its own answers."""
    members = [
        SelfRefineCritic(),
        MetaRewardingCritic(),
        ConstitutionalCritic(["Be KIND.", "Be TRUE.", "Be SHORT."]),
    ]
    answers = by_text(
        KIND=judgement(needs=False),
        TRUE=judgement(issues=["false"]),
        SHORT=judgement(needs=False),
        **{
            "Which judgement": '{"reason": "r", "better": "A"}',
            "Judge the text by points": scored(5),
            "Give feedback": "- dull",
        },
    )
    feedback, rounds = drive(NCriticsCritic(*members), THOUGHT, answers)
    assert [len(one) for one in rounds] == [1 + 2 + 3, 2]
    assert feedback.metadata["members"] == {
        "self-refine": True,
        "meta-rewarding": False,
        "constitutional": True,
    }
    assert feedback.issues == ("dull", "false")


def test_a_member_whose_answer_cannot_be_read_has_no_vote():
    critic = NCriticsCritic(perspectives={"a": "A", "b": "B", "c": "C"})
    feedback, _ = drive(critic, THOUGHT, ["gibberish", judgement(needs=False), judgement(needs=False)[:-1]])
    assert not feedback.needs_improvement
    assert feedback.confidence == 1
    assert list(feedback.metadata["unread"]) == ["a"]
    assert feedback.metadata["repaired"]
    with pytest.raises(ModelError):
        drive(critic, THOUGHT, lambda _: "gibberish")


def test_a_member_that_returns_something_else_is_said():
    class Odd:
        name = "odd"

        def critique(self, thought):
            yield Request(thought.text)
            return "fine"

    with pytest.raises(PartError, match="odd returned a str"):
        drive(NCriticsCritic(Odd()), THOUGHT, ["x"])


# Self-Consistency -------------------------------------------------------------------------------


def test_the_majority_of_the_samples_decides_and_its_share_is_the_confidence():
    critic = SelfConsistencyCritic()
    answers = [
        judgement(issues=["rare", "often"]),
        judgement(needs=False, issues=["not to be told"]),
        judgement(message="second", issues=["Often"]),
        judgement(issues=["often", "often"]),
        judgement(needs=False),
    ]
    feedback, rounds = drive(critic, THOUGHT, answers)
    assert [len(one) for one in rounds] == [5]
    assert {one.options["temperature"] for one in rounds[0]} == {0.7}
    assert feedback.needs_improvement
    assert feedback.confidence == pytest.approx(0.6)
    assert feedback.message == "3 of 5 judgements ask for improvement: it is of coffee"
    assert feedback.issues == ("often", "rare")
    assert feedback.metadata == {"votes": {"improve": 3, "keep": 2}}


def test_a_majority_for_no_change_names_no_issues():
    feedback, _ = drive(
        SelfConsistencyCritic(samples=3),
        THOUGHT,
        [judgement(needs=False), judgement(), judgement(needs=False)],
    )
    assert not feedback.needs_improvement
    assert (feedback.issues, feedback.suggestions) == ((), ())
    assert feedback.confidence == pytest.approx(2 / 3)


def test_a_tie_asks_for_improvement_and_the_unread_do_not_vote():
    answers = [judgement(), "gibberish", judgement(needs=False)]
    feedback, _ = drive(SelfConsistencyCritic(samples=3), THOUGHT, answers)
    assert (feedback.needs_improvement, feedback.confidence) == (True, 0.5)
    assert feedback.metadata == {"votes": {"improve": 1, "keep": 1}, "unread": 1}


# Meta-Rewarding ---------------------------------------------------------------------------------


def scored(score, reason="r", issues=(), suggestions=()):
    return json.dumps({"reason": reason, "issues": issues, "suggestions": suggestions, "score": score})


def better(which):
    return json.dumps({"reason": "r", "better": which})


def test_the_judgement_that_wins_in_both_orders_is_the_feedback():
    answers = [scored(5, "ALL GOOD"), scored(2, "HALF", ["no tea"], ["add tea"]), better("B"), better("A")]
    feedback, rounds = drive(MetaRewardingCritic(), THOUGHT, answers)
    assert [len(one) for one in rounds] == [2, 2]
    there, back = (one.prompt for one in rounds[1])
    assert there.index("ALL GOOD") < there.index("HALF")
    assert back.index("HALF") < back.index("ALL GOOD")
    assert "- problem: no tea" in there
    assert feedback.needs_improvement
    assert feedback.message == "2 of 5 points: HALF"
    assert (feedback.issues, feedback.suggestions, feedback.confidence) == (("no tea",), ("add tea",), 1.0)
    assert feedback.metadata == {"score": 2, "scores": [5, 2], "won": [0, 2]}


def test_a_meta_judge_that_favours_a_place_settles_nothing_and_the_stricter_judgement_stands():
    feedback, _ = drive(MetaRewardingCritic(), THOUGHT, [scored(5), scored(3), better("A"), better("A")])
    assert (feedback.metadata["won"], feedback.metadata["score"]) == ([1, 1], 3)
    assert feedback.confidence == 0.5


def test_only_the_judges_are_sampled_and_the_meta_judge_may_be_another_model():
    judge, meta = Model(), Model()
    critic = MetaRewardingCritic(judge, meta_model=meta, judgements=3)
    answers = [scored(4), scored(4), scored(4), *[better("A")] * 6]
    feedback, rounds = drive(critic, THOUGHT, answers)
    assert [len(one) for one in rounds] == [3, 6]
    assert {one.options.get("temperature") for one in rounds[0]} == {0.7}
    assert {one.options.get("temperature") for one in rounds[1]} == {None}
    assert {one.model for one in rounds[0]} == {judge}
    assert {one.model for one in rounds[1]} == {meta}
    assert not feedback.needs_improvement


def test_one_readable_judgement_needs_no_meta_judge_and_a_silent_meta_judge_loses_none():
    feedback, rounds = drive(MetaRewardingCritic(), THOUGHT, ["gibberish", scored(1)])
    assert (len(rounds), feedback.metadata) == (1, {"score": 1, "unread": 1, "scores": [1]})
    feedback, _ = drive(MetaRewardingCritic(), THOUGHT, [scored(5), scored(1), "gibberish", "gibberish"])
    assert (feedback.metadata["score"], feedback.confidence) == (1, None)
    assert "meta_unread" in feedback.metadata


def test_a_score_beyond_the_rubric_is_held_to_it():
    feedback, _ = drive(MetaRewardingCritic(), THOUGHT, [scored(9), scored(9), better("A"), better("B")])
    assert feedback.metadata["score"] == 5


# Self-RAG ---------------------------------------------------------------------------------------

RELEVANT, IRRELEVANT = '{"relevant": true}', '{"relevant": false}'


def supported(how, *unsupported):
    return json.dumps({"unsupported": unsupported, "support": how})


def useful(points, *suggestions):
    return json.dumps({"suggestions": suggestions, "usefulness": points})


def with_documents(*texts):
    return Thought(prompt="On tea.", text="Tea is blue.", pre_generation_context=tuple(map(Document, texts)))


def test_support_is_judged_by_the_relevant_documents_alone():
    thought = with_documents("ALPHA", "BETA", "GAMMA")
    answers = [RELEVANT, IRRELEVANT, RELEVANT, supported("partial", "Tea is blue."), useful(5)]
    feedback, rounds = drive(SelfRAGCritic(), thought, answers)
    assert [len(one) for one in rounds] == [3, 2]
    assert "ALPHA" in rounds[0][0].prompt
    assert "BETA" not in rounds[0][0].prompt
    assert "[1] ALPHA\n\n[2] GAMMA" in rounds[1][0].prompt
    assert feedback.needs_improvement
    assert feedback.message == (
        "2 of 3 documents relevant, the text is partly supported by them; usefulness 5 of 5"
    )
    assert feedback.issues == ("not supported by the documents: Tea is blue.",)
    assert feedback.suggestions[0].startswith("keep to what the documents say")
    assert feedback.metadata == {
        "documents": 3,
        "relevant": [1, 3],
        "support": "partial",
        "usefulness": 5,
        "score": pytest.approx(2 / 3 + 0.5 + 0.5),
    }


@pytest.mark.parametrize(
    ("support", "use", "needs"),
    [("full", 4, False), ("full", 3, True), ("partial", 5, True), ("none", 5, True)],
)
def test_lack_of_support_or_of_use_asks_for_improvement(support, use, needs):
    answers = [RELEVANT, supported(support, "x"), useful(use, "say more")]
    feedback, _ = drive(SelfRAGCritic(), with_documents("d"), answers)
    assert feedback.needs_improvement is needs
    assert ("say more" in feedback.suggestions) is (use < 4)
    assert bool(feedback.issues) is (support != "full")


def test_the_limits_of_self_rag_are_settings():
    critic = SelfRAGCritic(min_support="partial", min_usefulness=2, max_documents=1)
    feedback, rounds = drive(
        critic, with_documents("a", "b"), [RELEVANT, supported("partial", "x"), useful(2)]
    )
    assert not feedback.needs_improvement
    assert len(rounds[0]) == 1


def test_without_relevant_documents_only_usefulness_is_judged():
    feedback, rounds = drive(SelfRAGCritic(), with_documents("a"), [IRRELEVANT, useful(4)])
    assert [len(one) for one in rounds] == [1, 1]
    assert (feedback.needs_improvement, feedback.metadata["support"]) == (False, None)
    assert "none of 1 documents is relevant" in feedback.message
    feedback, rounds = drive(SelfRAGCritic(), with_documents(), [useful(1, "say more")])
    assert [len(one) for one in rounds] == [1]
    assert "no documents" in feedback.message
    assert feedback.suggestions == ("say more",)


def test_a_document_that_could_not_be_judged_stays_in():
    answers = ["gibberish", IRRELEVANT, supported("full"), useful(5)[:-1]]
    feedback, _ = drive(SelfRAGCritic(), with_documents("a", "b"), answers)
    assert feedback.metadata["relevant"] == [1]
    assert (feedback.metadata["unread"], feedback.metadata["repaired"]) == (1, True)


def test_an_unreadable_verdict_of_the_second_round_is_asked_for_again_the_first_round_is_not():
    prompts, answers = [], [supported("full"), "gibberish"]

    def model(prompt, json_schema=None):
        prompts.append(prompt)
        if json_schema is None:
            return "a text"
        if "relevant" in json_schema["properties"]:
            return RELEVANT
        return answers.pop() if "support" in json_schema["properties"] else useful(5)

    chain = chain_of(model, critics=[SelfRAGCritic()])
    chain.with_critic_retrievers([lambda query: ["a document"]])
    with pytest.raises(ChainError, match="malformed_output"):
        chain.run()
    assert chain.run().text == "a text"
    assert sum('"relevant"' in prompt for prompt in prompts) == 1
    assert answers == []


def test_documents_found_for_the_critics_count_too():
    thought = Thought(prompt="p", text="t", post_generation_context=(Document("LATE"),))
    _, rounds = drive(SelfRAGCritic(), thought, [RELEVANT, supported("full"), useful(5)])
    assert "LATE" in rounds[0][0].prompt


# In a chain -------------------------------------------------------------------------------------


class Answering:
    """A model that writes texts, and answers each form the critics ask for."""

    def __init__(self):
        self.prompts = []

    def generate(self, prompt, **options):
        self.prompts.append(prompt)
        schema = options.get("json_schema")
        return f"text {len(self.prompts)}" if schema is None else json.dumps(self.fill(schema))

    def fill(self, schema):
        return {name: self.value(one) for name, one in schema["properties"].items()}

    def value(self, one):
        if "enum" in one:
            return one["enum"][0]
        return {"boolean": True, "string": "said", "array": ["named"], "integer": 1, "number": 0.5}[
            one["type"]
        ]


CALLS = {
    "prompt-critic": 1,
    "reflexion": 1,
    "self-refine": 1,
    "constitutional": 5,
    "n-critics": 4,
    "self-rag": 3,
    "self-consistency": 5,
    "meta-rewarding": 4,
}


@pytest.mark.parametrize("critic", ALL, ids=lambda one: one.name)
def test_every_critic_runs_in_a_chain_and_each_call_is_recorded(critic):
    model = Answering()
    chain = chain_of(
        model, validators=[Validator("v", False)], critics=[critic], max_improvement_iterations=1
    )
    chain.with_critic_retrievers([lambda query: ["a document"]])
    thought = chain.run()
    draft = thought.history[0] if thought.history else thought
    feedback = draft.critic_feedback[0]
    assert feedback.critic == critic.name
    assert len(model.prompts) == 2 + CALLS[critic.name]
    if feedback.needs_improvement:
        assert feedback.message[:20] in model.prompts[-1]


def test_the_common_schema_is_what_the_common_form_describes():
    assert set(SCHEMA["properties"]) == {
        *("issues", "suggestions", "needs_improvement", "message", "confidence"),
    }


# The page ---------------------------------------------------------------------------------------


def test_the_page_about_critics_runs_in_order_and_prints_what_it_says(capsys):
    text = (Path(__file__).parents[1] / "docs/critics.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "critics.md", "exec"), names)
    promised = re.findall(r"^print\(.*\)  # (.*)$", text, flags=re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised
    assert len(promised) == 15
    assert set(critics.__all__) <= set(names)
    for name in critics.__all__:
        assert f"| `{name}` |" in text
