"""Every critic on the embedded model of 135 million parameters: its prompts come to valid, structured feedback.

Of sense nothing is promised; the model is tiny. Its answers keep the form by grammar, or by repair.
"""

from __future__ import annotations

import pytest

from sifaka.chain import Chain
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
from sifaka.models import create_model
from sifaka.parts import Reply, Request
from sifaka.thought import CriticFeedback, Document, Thought, ValidationResult
from sifaka.validators import JudgeValidator

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1200)]

PROMPT = "Write two sentences about tea that mention a cup."
FAILED = ValidationResult(False, "the word 'cup' is missing", validator="words")
THOUGHT = Thought(
    prompt=PROMPT,
    text="Tea is made from leaves {of} a bush. It is drunk all over the world, and was first drunk in China.",
    pre_generation_context=(
        Document("Tea is a drink made from the leaves of a bush that comes from China."),
        Document("Lemurs live in Madagascar."),
    ),
)
CRITICS = {
    "prompt": lambda: PromptCritic("Asked: {prompt}\n\nWritten: {text}\n\nWhat is missing?"),
    "reflexion": ReflexionCritic,
    "self-refine": SelfRefineCritic,
    "constitutional": ConstitutionalCritic,
    "n-critics": NCriticsCritic,
    "self-rag": SelfRAGCritic,
    "self-consistency": SelfConsistencyCritic,
    "meta-rewarding": MetaRewardingCritic,
}
ITS_OWN = {
    "reflexion": {"reflection"},
    "constitutional": {"broken"},
    "n-critics": {"members"},
    "self-rag": {"documents", "relevant", "usefulness", "score", "support"},
    "self-consistency": {"votes"},
    "meta-rewarding": {"score", "scores", "won"},
}


@pytest.fixture(scope="module")
def model():
    return create_model("local:smollm2", temperature=0, max_tokens=500)


def asked(model, part, thought, of="critique", **over):
    """What the part returns, with every request answered by the model as the engine would have it."""
    asking, sent = getattr(part, of)(thought), None
    while True:
        try:
            wanted = asking.send(sent)
        except StopIteration as stop:
            return stop.value
        many = [wanted] if isinstance(wanted, Request) else wanted
        replies: list[Reply] = [model.generate(one.prompt, **{**one.options, **over}) for one in many]
        sent = replies[0] if isinstance(wanted, Request) else replies


@pytest.mark.parametrize("kind", CRITICS)
def test_every_critic_comes_to_valid_feedback(model, kind):
    failed = kind == "reflexion"
    thought = Thought(
        prompt=THOUGHT.prompt,
        text=THOUGHT.text,
        pre_generation_context=THOUGHT.pre_generation_context,
        validation_results=(FAILED,) if failed else (),
    )
    feedback = asked(model, CRITICS[kind](), thought)
    assert isinstance(feedback, CriticFeedback)
    assert feedback.message
    assert feedback.confidence is None or 0 <= feedback.confidence <= 1
    assert ITS_OWN.get(kind, set()) <= feedback.metadata.keys()
    assert feedback.metadata.get("unread", 0) == 0
    assert all(feedback.issues)
    assert all(feedback.suggestions)


def test_the_judging_validator_comes_to_a_verdict_too(model):
    verdict = asked(model, JudgeValidator(["It is about tea.", "It mentions a cup."]), THOUGHT, of="validate")
    assert isinstance(verdict, ValidationResult)
    assert verdict.message
    assert 0 <= verdict.score <= 1


def test_without_validators_the_model_evaluates_itself(model):
    feedback = asked(model, ReflexionCritic(), THOUGHT)
    assert feedback.needs_improvement is ("reflection" in feedback.metadata)


def test_grammar_needs_no_repair(model):
    feedback = asked(model, PromptCritic("Asked: {prompt}\n\nWritten: {text}\n\nJudge it."), THOUGHT)
    assert "repaired" not in feedback.metadata


def test_an_answer_that_is_cut_off_is_repaired_or_a_clear_fault(model):
    from sifaka.errors import ModelError

    kinds = []
    for max_tokens in (3, 30, 60):
        try:
            feedback = asked(model, CRITICS["prompt"](), THOUGHT, max_tokens=max_tokens)
        except ModelError as error:
            kinds.append(error.kind)
        else:
            kinds.append("repaired" if feedback.metadata.get("repaired") else "whole")
    assert kinds[0] == "truncated"
    assert set(kinds) <= {"truncated", "repaired", "whole"}


@pytest.mark.parametrize("kind", ["constitutional", "meta-rewarding", "self-rag", "reflexion"])
def test_a_critic_of_several_calls_runs_in_a_chain_on_the_real_model(kind):
    chain = (
        Chain("local:smollm2", PROMPT, max_improvement_iterations=1)
        .with_options(temperature=0, max_tokens=300, allow_partial_results=True)
        .with_critic_retrievers([lambda query: ["Tea is drunk from a cup."]])
        .improve_with(CRITICS[kind]())
    )
    thought = chain.run()
    first = thought.history[0] if thought.history else thought
    assert thought.text
    assert first.critic_feedback[0].critic == chain_name(kind)


def chain_name(kind):
    return CRITICS[kind]().name
