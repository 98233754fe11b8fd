"""The ready-made parts, what users' own parts may return, and what is said of what they may not."""

from __future__ import annotations

import functools
from unittest.mock import Mock

import pytest

import doubles
from doubles import Asking, Critic, Model, Retriever, Validator, chain_of, log, of
from sifaka.critics import SelfRefineCritic
from sifaka.errors import ChainError, PartError, SifakaError, UsageError
from sifaka.log.records import Intent, Result
from sifaka.parts import Critic as CriticProtocol
from sifaka.parts import Model as ModelProtocol
from sifaka.parts import Reply, Request, Usage
from sifaka.parts import Retriever as RetrieverProtocol
from sifaka.parts import Validator as ValidatorProtocol
from sifaka.retrievers import InMemoryRetriever
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.thought import CriticFeedback, Document, Thought, ValidationResult
from sifaka.validators import LengthValidator, RegexValidator

storage = doubles.storage


def judged(validator, text):
    return validator.validate(Thought("Write.", text=text))


# Length ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "text", "passed"),
    [
        ((3, 5), "abc", True),
        ((3, 5), "abcde", True),
        ((3, 5), "ab", False),
        ((3, 5), "abcdef", False),
        ((0, None), "a" * 10_000, True),
        ((), "a", True),
        ((), " \n", False),
        ((2, 2, "words"), "two words", True),
        ((2, 2, "words"), "now three words", False),
        ((2, 3, "sentences"), "One. Two!", True),
        ((2, 3, "sentences"), "One.", False),
        ((1, 1, "sentences"), 'He said: "Is it?!"', True),
        ((1, 1, "sentences"), "no stop at the end", True),
        ((0, 3), "äöü", True),
    ],
)
def test_length(limits, text, passed):
    assert judged(LengthValidator(*limits), text).passed is passed


def test_length_says_how_much_is_missing_or_too_much():
    short = judged(LengthValidator(min_length=10), "abcd")
    assert (short.score, short.passed) == (0.4, False)
    assert "4" in short.message
    assert "10" in short.message
    assert "6" in short.suggestions[0]
    long = judged(LengthValidator(max_length=2, unit="words"), "a b c d")
    assert (long.score, long.passed) == (0.5, False)
    assert "2 words" in long.suggestions[0]
    assert judged(LengthValidator(1, 9), "abc").score == 1.0


@pytest.mark.parametrize(
    "arguments",
    [{"unit": "pages"}, {"min_length": -1}, {"min_length": 5, "max_length": 4}, {"max_length": 0}],
)
def test_a_length_no_text_can_have_is_refused(arguments):
    with pytest.raises(PartError, match=next(iter(arguments))):
        LengthValidator(**arguments)


# Patterns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text", "passed", "score"),
    [
        ({"required_patterns": ["lemur"]}, "a lemur leaps", True, 1.0),
        ({"required_patterns": ["lemur"]}, "a Lemur leaps", False, 0.0),
        ({"required_patterns": ["(?i)lemur"]}, "a Lemur leaps", True, 1.0),
        ({"required_patterns": ["a", "z"]}, "abc", False, 0.5),
        ({"forbidden_patterns": [r"\bTODO\b"]}, "a TODO here", False, 0.0),
        ({"forbidden_patterns": [r"\bTODO\b"]}, "TODOS", True, 1.0),
        ({"required_patterns": ["a"], "forbidden_patterns": ["b"]}, "ab", False, 0.5),
        ({"forbidden_patterns": ["x"]}, "  ", False, 0.0),
    ],
)
def test_patterns(arguments, text, passed, score):
    found = judged(RegexValidator(**arguments), text)
    assert (found.passed, found.score) == (passed, score)
    assert bool(found.issues) is not passed


def test_patterns_may_have_names():
    validator = RegexValidator({"a year": r"\d{4}"}, {"a link": r"https?://"})
    found = judged(validator, "see http://x")
    assert "a year" in found.message
    assert "a link" in found.message
    assert "/" not in found.suggestions[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "required or a forbidden"),
        ({"required_patterns": "abc"}, r"\['abc'\]"),
        ({"required_patterns": ["("]}, "no regular expression"),
        ({"forbidden_patterns": [5]}, "no regular expression"),
    ],
)
def test_patterns_that_are_none_are_refused(arguments, said):
    with pytest.raises(PartError, match=said):
        RegexValidator(**arguments)


def test_ready_made_validators_cost_nothing_and_leave_no_intent(storage):
    chain = chain_of(Model(), storage, validators=[LengthValidator(1, 99), RegexValidator(["text"])])
    assert chain.run().passed
    records = log(storage, chain.chain_id)
    assert [one.part for one in of(Intent, records)] == ["model"]
    assert sorted(one.part for one in of(Result, records)) == ["length", "model", "regex"]


# Retrieving --------------------------------------------------------------------------------

DOCUMENTS = [
    "Lemurs live in Madagascar.",
    Document("Cats live in houses, and cats purr.", "cats", metadata={"page": 7}),
    "Ships sail.",
]


def test_the_nearest_documents_come_first_with_their_scores():
    found = InMemoryRetriever(DOCUMENTS).retrieve("Where do cats live?")
    assert [one.text[:4] for one in found] == ["Cats", "Lemu"]
    assert (found[0].id, found[0].metadata) == ("cats", {"page": 7})
    assert 1 >= found[0].score > found[1].score > 0


def test_a_rare_word_counts_for_more_than_a_common_one():
    documents = ["a common word here", "a common word there", "a rare bird", "a common thing"]
    assert InMemoryRetriever(documents).retrieve("common bird")[0].text == "a rare bird"


def test_nothing_is_found_where_no_word_is_shared():
    assert InMemoryRetriever(DOCUMENTS).retrieve("quantum chromodynamics") == []
    assert InMemoryRetriever([]).retrieve("anything") == []
    assert InMemoryRetriever(DOCUMENTS).retrieve("") == []


def test_no_more_than_top_k_are_found():
    assert len(InMemoryRetriever(["a b"] * 9, top_k=3).retrieve("a")) == 3


@pytest.mark.parametrize(("documents", "top_k"), [("one text", 5), (DOCUMENTS, 0)])
def test_a_retriever_of_nothing_sensible_is_refused(documents, top_k):
    with pytest.raises(PartError):
        InMemoryRetriever(documents, top_k)


def test_what_is_retrieved_stands_in_the_prompt():
    model = Model()
    thought = chain_of(model, retrievers=[InMemoryRetriever(DOCUMENTS)], prompt="On lemurs").run()
    assert "Lemurs live in Madagascar." in model.prompts[0]
    assert "Cats" not in model.prompts[0]
    assert thought.pre_generation_context[0].score > 0


# Self-Refine -------------------------------------------------------------------------------


def test_self_refine_asks_the_chains_own_model_until_it_is_content():
    model = Model("a draft", "- too dull: add verbs\n* too short\nand so on", "better", "No changes needed.")
    thought = chain_of(model, critics=[SelfRefineCritic()]).run()
    assert thought.text == "better"
    first = thought.history[0].critic_feedback[0]
    assert (first.critic, first.needs_improvement) == ("self-refine", True)
    assert first.issues == ("too dull: add verbs", "too short")
    assert "a draft" in model.prompts[1]
    assert "Write." in model.prompts[1]
    assert "add verbs" in model.prompts[2]
    assert not thought.critic_feedback[0].needs_improvement


def test_self_refine_may_have_a_model_and_options_of_its_own():
    other = Model("NO CHANGES NEEDED", name="other")
    model = Model()
    critic = SelfRefineCritic(other, name="strict", temperature=0.0)
    thought = chain_of(model, critics=[critic]).with_options(temperature=1.0).run()
    assert (model.calls, other.options) == (1, [{"temperature": 0.0}])
    assert thought.critic_feedback[0].critic == "strict"


def test_self_refine_takes_texts_with_braces():
    model = Model("{not a field} {0} {}", "NO CHANGES NEEDED")
    chain_of(model, critics=[SelfRefineCritic()], prompt="Use {braces}").run()
    assert "{not a field} {0} {}" in model.prompts[1]
    assert "Use {braces}" in model.prompts[1]


def test_an_empty_feedback_is_a_fault_and_asked_for_again():
    model = Model("a draft", "  ", "NO CHANGES NEEDED")
    chain = chain_of(model, critics=[SelfRefineCritic()])
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert caught.value.fault.kind == "empty_output"
    assert chain.run().text == "a draft"
    assert model.calls == 3


def test_a_feedback_prompt_that_cannot_be_filled_is_refused():
    with pytest.raises(PartError, match="feedback_prompt"):
        SelfRefineCritic(feedback_prompt="What of {title}?")
    critic = SelfRefineCritic(feedback_prompt="Judge {text}. Say {stop}.", stop_words="FINE")
    model = Model("draft", "It is fine.")
    assert not chain_of(model, critics=[critic]).run().critic_feedback[0].needs_improvement
    assert model.prompts[1] == "Judge draft. Say FINE."


def test_a_model_of_its_own_that_cannot_be_opened_is_said_before_any_call(storage):
    model = Model()
    chain = chain_of(model, storage, chain_id="r", critics=[SelfRefineCritic("no-such-provider:x")])
    with pytest.raises(UsageError, match="no-such-provider"):
        chain.run()
    assert model.calls == 0
    assert storage.entry("r") is None


def test_the_protocols_describe_the_parts():
    assert isinstance(LengthValidator(), ValidatorProtocol)
    assert isinstance(SelfRefineCritic(), CriticProtocol)
    assert isinstance(InMemoryRetriever([]), RetrieverProtocol)
    assert isinstance(Model(), ModelProtocol)


# What users may return ---------------------------------------------------------------------


def test_a_model_may_return_a_text_or_a_reply():
    reply = Reply("text", Usage(10, 5), 0.25, "stop", "id-1", "a-model-name")
    assert chain_of(lambda _: reply).run().cost == 0.25
    assert chain_of(lambda _: "text").run().cost_unknown_calls == 1


def test_what_a_reply_says_is_recorded(storage):
    reply = Reply("text", Usage(10, 5), 0.25, "stop", "id-1", "a-model-name", ("top_k",))
    chain = chain_of(lambda _: reply, storage).with_options(seed=1)
    chain.run()
    (result,) = of(Result, log(storage, chain.chain_id))
    assert (result.usage, result.price_usd, result.request_id, result.model) == (
        Usage(10, 5),
        0.25,
        "id-1",
        "a-model-name",
    )
    assert set(result.not_applied) == {"top_k", "seed"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (True, ValidationResult(True)),
        (False, ValidationResult(False)),
        (ValidationResult(True, "good", 0.5), ValidationResult(True, "good", 0.5)),
        (
            ValidationResult(False, issues=["a"], suggestions=["b"]),
            ValidationResult(False, "", None, ("a",), ("b",)),
        ),
        (ValidationResult(True, validator="another name"), ValidationResult(True)),
    ],
)
def test_a_validator_may_return(answer, expected):
    def validator(thought):
        return answer

    chain = chain_of(Model(), validators=[validator], max_improvement_iterations=0)
    (found,) = chain.run().validation_results
    assert (found.passed, found.message, found.score, found.issues, found.suggestions) == (
        expected.passed,
        expected.message,
        expected.score,
        expected.issues,
        expected.suggestions,
    )
    assert found.validator == "validator"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CriticFeedback(True, "m", ("i",), ("s",), 0.5), (True, "m", ("i",), ("s",), 0.5, {})),
        ({"needs_improvement": False, "message": "m"}, (False, "m", (), (), None, {})),
        (
            {
                "needs_improvement": True,
                "message": "m",
                "issues": ["i"],
                "suggestions": ["s"],
                "confidence": 1,
            },
            (True, "m", ("i",), ("s",), 1, {}),
        ),
        ({"needs_improvement": False, "message": "m", "tone": 3}, (False, "m", (), (), None, {"tone": 3})),
        (
            {"needs_improvement": False, "message": "m", "metadata": {"a": 1}, "b": 2},
            (False, "m", (), (), None, {"a": 1, "b": 2}),
        ),
    ],
)
def test_a_critic_may_return(answer, expected):
    chain = chain_of(Model(), critics=[lambda _: answer], max_improvement_iterations=0)
    (found,) = chain.with_options(critique_final=True).run().critic_feedback
    assert (
        found.needs_improvement,
        found.message,
        found.issues,
        found.suggestions,
        found.confidence,
        found.metadata,
    ) == expected


@pytest.mark.parametrize(
    "answer",
    [["a", "b"], ("a", "b"), [Document("a"), "b"], []],
    ids=["list", "tuple", "mixed", "empty"],
)
def test_a_retriever_may_return(answer):
    thought = chain_of(Model(), retrievers=[lambda _: answer]).run()
    assert [one.text for one in thought.pre_generation_context] == ["a", "b"][: len(answer)]


def test_options_follow_a_decorated_model():
    def traced(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    @traced
    def model(prompt):
        return "text"

    assert chain_of(model).with_options(temperature=0.5).run().text == "text"


def test_options_follow_partials_methods_and_callable_objects():
    class Callable:
        def __call__(self, prompt, temperature=None):
            return f"{temperature}"

    class Object:
        def generate(self, prompt, *, temperature=None):
            return f"{temperature}"

        @staticmethod
        def write(prompt, temperature=None):
            return f"{temperature}"

        def ask(self, prompt, temperature=None):
            return f"{temperature}"

    def with_client(client, prompt, temperature=None):
        return f"{temperature}"

    models = [
        Callable(),
        Object(),
        Object.write,
        Object().ask,
        functools.partial(with_client, "a client"),
    ]
    for model in models:
        assert chain_of(model).with_options(temperature=0.5, other=1).run().text == "0.5"


def test_a_mock_will_do_for_a_part():
    validator = Mock(return_value=True, spec=[])
    assert chain_of(Model(), validators=[validator]).run().passed
    critic = Mock()
    critic.critique.return_value = {"needs_improvement": False, "message": "fine"}
    assert chain_of(Model(), critics=[critic]).run().critic_feedback[0].message == "fine"


# What they may not return ------------------------------------------------------------------


def refused(chain):
    """What a run says of an answer of a wrong type; its log stays sound."""
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert isinstance(caught.value.__cause__, PartError)
    assert chain.get_checkpoint_history()
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(None, "nothing"), (5, "a int"), (b"text", "bytes"), (["text"], "a list"), ({"text": "x"}, "dict")],
)
def test_a_model_may_not_return(answer, said):
    told = refused(chain_of(lambda _: answer))
    assert said in told
    assert "returns a str" in told


WRONG_REPLIES = {
    "no text": Reply(None),
    "usage is a dict": Reply("text", usage={"input_tokens": 5}),
    "tokens are a text": Reply("text", usage=Usage("many", 1)),
    "price is a text": Reply("text", price_usd="0.5"),
    "no finish reason": Reply("text", finish_reason=None),
    "request id is a number": Reply("text", request_id=5),
    "model is a number": Reply("text", model=5),
}


@pytest.mark.parametrize("case", WRONG_REPLIES)
def test_a_reply_with_wrong_types_is_refused(case):
    model = Model(WRONG_REPLIES[case])
    chain = chain_of(model)
    assert "scripted" in refused(chain)
    assert chain.run().text == "text 1"


@pytest.mark.parametrize(
    ("answer", "said"), [(None, "nothing"), ("yes", "a str"), (1, "a int"), ({"passed": True}, "a dict")]
)
def test_a_validator_may_not_return(answer, said):
    told = refused(chain_of(Model(), validators=[Validator("strict", answer)]))
    assert said in told
    assert "validator strict" in told


WRONG_VERDICTS = {
    "passed is a text": ValidationResult("yes"),
    "passed is None": ValidationResult(None),
    "no message": ValidationResult(True, None),
    "score is a text": ValidationResult(True, "m", "0.5"),
    "score is no number": ValidationResult(True, "m", float("nan")),
    "issues are a text": ValidationResult(True, issues="one issue"),
    "an issue is a number": ValidationResult(True, issues=[5]),
    "no issues": ValidationResult(True, issues=None),
    "a suggestion is None": ValidationResult(True, suggestions=[None]),
}


@pytest.mark.parametrize("case", WRONG_VERDICTS)
def test_a_verdict_with_wrong_types_is_refused_and_nothing_paid_is_lost(case):
    model, other = Model(), Validator("other")
    chain = chain_of(model, validators=[other, Validator("strict", WRONG_VERDICTS[case])])
    assert "strict" in refused(chain)
    assert chain.run().text == "text 0"
    assert (model.calls, other.calls) == (1, 1)


WRONG_FEEDBACK = {
    "a text": "improve it",
    "a bool": True,
    "a tuple": ("improve",),
    "an empty dict": {},
    "a dict without a decision": {"message": "m"},
    "a decision that is a text, in a dict": {"needs_improvement": "yes", "message": "m"},
    "a message that is a number, in a dict": {"needs_improvement": True, "message": 5},
    "issues that are a text, in a dict": {"needs_improvement": True, "message": "m", "issues": "one"},
    "metadata that is none, in a dict": {"needs_improvement": True, "message": "m", "metadata": 5},
    "a confidence that is a text, in a dict": {"needs_improvement": True, "message": "m", "confidence": "x"},
    "a value no record can hold, in a dict": {"needs_improvement": True, "message": "m", "x": object()},
    "a decision that is a text": CriticFeedback("yes", "m"),
    "no message": CriticFeedback(True, None),
    "issues that are a text": CriticFeedback(True, "m", issues="one"),
    "a value no record can hold": CriticFeedback(True, "m", metadata={"x": object()}),
    "metadata that is none": CriticFeedback(True, "m", metadata=None),
    "a confidence that is a text": CriticFeedback(True, "m", confidence="high"),
}


@pytest.mark.parametrize("case", WRONG_FEEDBACK)
def test_a_critic_may_not_return_and_nothing_paid_is_lost(case):
    model, other, answers = Model(), Critic("other"), [WRONG_FEEDBACK[case], CriticFeedback(False)]

    def strict(thought):
        return answers.pop(0)

    chain = chain_of(model, critics=[other, strict])
    assert "strict" in refused(chain)
    assert chain.run().text == "text 0"
    assert (model.calls, other.calls) == (1, 1)


WRONG_DOCUMENTS = {
    "nothing": None,
    "one text": "one text",
    "a number": 5,
    "a list of numbers": [5],
    "a list of nothing": [None],
    "a dict": {"a": 1},
    "no text": [Document(None)],
    "an id that is a number": [Document("a", id=5)],
    "a score that is a text": [Document("a", score="high")],
    "a value no record can hold": [Document("a", metadata={"file": object()})],
    "no metadata": [Document("a", metadata=None)],
}


@pytest.mark.parametrize("case", WRONG_DOCUMENTS)
def test_a_retriever_may_not_return(case):
    chain = chain_of(Model(), retrievers=[Retriever("finder", WRONG_DOCUMENTS[case])])
    assert "finder" in refused(chain)
    assert chain.run().text == "text 0"


WRONG_REQUESTS = {
    "a text": "a prompt",
    "nothing": None,
    "no prompt": Request(None),
    "options that are none": Request("p", options=5),
    "a model that is none": Request("p", model=5),
    "an option no record can hold": Request("p", options={"stop": object()}),
}


@pytest.mark.parametrize("case", WRONG_REQUESTS)
def test_a_part_may_not_ask_and_nothing_paid_is_lost(case):
    asks = [WRONG_REQUESTS[case], Request("Is it good?")]

    def asking(thought):
        yield asks.pop(0)
        return CriticFeedback(False)

    model = Model()
    chain = chain_of(model, critics=[asking])
    assert "asking" in refused(chain)
    assert chain.run().text == "text 0"
    assert model.calls == 2


def test_a_part_that_asks_may_not_return_nothing():
    def asking(thought):
        yield Request("why?")

    assert "asking" in refused(chain_of(Model(), critics=[asking]))


def test_a_text_that_no_encoding_holds_is_kept_and_its_bad_characters_are_shown(storage):
    chain = chain_of(Model("a\ud800b"), storage, chain_id="r", retrievers=[Retriever("r", ["c\ud800d"])])
    thought = chain.run()
    assert thought.text == "a\ufffdb"
    assert thought.pre_generation_context[0].text == "c\ufffdd"
    assert CachedCheckpointStorage(storage).load_whole("r").state.best_draft() == thought


@pytest.mark.parametrize(
    "parts",
    [
        {"validators": [Validator("strict", ValidationResult(True, "\ud800"))]},
        {"critics": [Critic("strict", CriticFeedback(True, "\ud800"))]},
        {"critics": [Critic("strict", {"needs_improvement": True, "message": "\ud800"})]},
    ],
    ids=["verdict", "feedback", "dict"],
)
def test_a_message_that_no_encoding_holds_costs_nothing_that_was_paid(parts):
    chain = chain_of(Model(), **parts)
    assert "strict" in refused(chain)
    thought = chain.run()
    assert [*thought.history, thought][0].text == "text 0"


def test_a_wrong_answer_is_not_asked_for_over_and_over():
    model = Model(*[None] * 20)
    with pytest.raises(ChainError):
        chain_of(model).run_with_recovery()
    assert model.calls == 1


def test_a_price_that_cannot_be_told_is_an_unknown_one():
    class Broken(Model):
        def price_max_usd(self, prompt, options):
            raise KeyError(prompt)

    assert chain_of(Broken()).run().text == "text 0"


# What is no part ---------------------------------------------------------------------------


NO_PARTS = {
    "a number as model": (lambda chain: chain.with_model(5), "no model"),
    "a class as model": (lambda chain: chain.with_model(Model), "no model"),
    "nothing as model": (lambda chain: chain.with_model(None), "no model"),
    "a number as validator": (lambda chain: chain.validate_with(5), "no validator.*validate"),
    "a class as validator": (lambda chain: chain.validate_with(LengthValidator), "instance"),
    "a list of validators": (lambda chain: chain.validate_with([LengthValidator()]), "no validator"),
    "a name as critic": (lambda chain: chain.improve_with("strict"), "offers a critic named .strict."),
    "a class as critic": (lambda chain: chain.improve_with(SelfRefineCritic), "instance"),
    "a number as retriever": (lambda chain: chain.with_model_retrievers([5]), "no model retriever.*retrieve"),
    "one retriever": (lambda chain: chain.with_model_retrievers(InMemoryRetriever([])), "list"),
    "one function as retriever": (lambda chain: chain.with_critic_retrievers(lambda query: []), "list"),
    "nothing as retrievers": (lambda chain: chain.with_model_retrievers(None), "list"),
}


@pytest.mark.parametrize("case", NO_PARTS)
def test_what_is_no_part_is_refused(case):
    configure, said = NO_PARTS[case]
    with pytest.raises(UsageError, match=said):
        configure(chain_of(Model()))


def test_a_part_that_is_refused_is_not_added():
    chain = chain_of(Model())
    with pytest.raises(SifakaError):
        chain.validate_with(Validator("good"), 5)
    assert chain.run().validation_results == ()


def test_a_part_that_asks_is_never_taken_for_a_cheap_one(storage):
    class Cheap(Asking):
        pure = True

    seen = []

    def model(prompt):
        seen.append(len(of(Intent, log(storage, "r"))))
        return "text"

    chain_of(model, storage, chain_id="r", critics=[Cheap("a")]).run()
    assert seen == [1, 2, 3]
