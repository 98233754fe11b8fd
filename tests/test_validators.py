"""The ready-made validators: what they pass, what they say of what they don't, and how they compose."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import doubles
from doubles import Model, chain_of, log, of
from sifaka.engine.plan import bind_part
from sifaka.errors import ChainError, MissingExtraError, ModelError, PartError
from sifaka.log.records import Intent, Result
from sifaka.parts import Reply, Request
from sifaka.thought import Thought, ValidationResult
from sifaka.validators import (
    CallableValidator,
    ClassifierValidator,
    ContentValidator,
    FormatValidator,
    JSONValidator,
    JudgeValidator,
    LanguageValidator,
    LengthValidator,
    MarkdownValidator,
    ReadabilityValidator,
    RegexValidator,
    TextValidator,
)
from sifaka.validators.base import verdict
from sifaka.validators.measures import characters, is_blank, sentences, words
from sifaka.validators.searching import found_in, steps_max

storage = doubles.storage


def judged(validator, text):
    return validator.validate(Thought("Write.", text=text))


def asked(validator, text, *replies):
    """The verdict of a validator that asks, and the requests it made."""
    asking, requests = judged(validator, text), []
    try:
        request = next(asking)
        for reply in replies:
            requests.append(request)
            request = asking.send(reply if isinstance(reply, Reply) else Reply(reply))
    except StopIteration as stop:
        return stop.value, requests
    raise AssertionError("it asks for more replies than there are")


class Spam:
    """A classifier as scikit-learn's are."""

    classes_ = ("ham", "spam")

    def predict_proba(self, texts):
        return [[0.2, 0.8] if "win" in text else [0.9, 0.1] for text in texts]


class Sure:
    def predict(self, texts):
        return ["rude" if "!" in text else "polite" for text in texts]


def every_text_validator():
    """One of each that needs the text alone."""
    return [
        LengthValidator(1, 50),
        LengthValidator(1, 5, "words"),
        LengthValidator(1, 5, "sentences"),
        RegexValidator(["a"], [r"b+$"]),
        ContentValidator(["cat"], ["dog"]),
        JSONValidator({"type": "object"}),
        FormatValidator(tomllib.loads, "TOML"),
        MarkdownValidator(["Summary"], ["list", "link"]),
        ReadabilityValidator(minimum=50),
        ReadabilityValidator("lix", maximum=40),
        LanguageValidator("en"),
        ClassifierValidator(Spam(), "ham"),
        CallableValidator(lambda thought: len(thought.text) < 50),
        LengthValidator(1, 9) & RegexValidator(["a"]),
        LengthValidator(1, 9) | RegexValidator(["a"]),
    ]


# What holds for all ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", " \n\t", "\u200b\ufeff", "\u00a0\u3000", "\x00\x07", "\u200e\u200f\u2066"]
)
def test_a_text_in_which_nothing_can_be_seen_fails_and_says_so(text):
    for validator in every_text_validator():
        found = judged(validator, text)
        assert (found.passed, found.score, found.message) == (False, 0.0, "the text is empty"), validator.name
        assert found.issues
        assert found.suggestions
    found, requests = asked(JudgeValidator("It is good."), text)
    assert (found.passed, found.message, requests) == (False, "the text is empty", [])


@pytest.fixture(scope="module")
def validators():
    return every_text_validator()


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.characters(), max_size=60)
    | st.text("ab cat{}[]\"':,.!?\n#`-*|> \u0301\ud800\u202e漢字", max_size=60)
)
def test_any_text_gets_a_whole_verdict(validators, text):
    for validator in validators:
        found = judged(validator, text)
        assert isinstance(found, ValidationResult)
        assert 0 <= found.score <= 1
        assert found.passed or found.issues
        assert found.passed or found.message
        assert found == judged(validator, text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "." * 1_000_000,
        "a." + " " * 1_000_000 + "b",
        "\n" * 500_000 + "a" + "\n" * 500_000,
        "漢字。" * 330_000,
        "שלום עולם. " * 90_000,
        "[" * 1_000_000,
        "`" * 1_000_000,
        "cat cat " * 125_000,
        "e\u0301" * 500_000,
    ],
    ids=["word", "dots", "spaces", "lines", "han", "hebrew", "brackets", "ticks", "words", "combining"],
)
def test_a_text_of_a_megabyte_takes_no_more_than_its_length(validators, text):
    for validator in validators:
        began = time.process_time()
        judged(validator, text)
        assert time.process_time() - began < 5, validator.name


def test_nothing_heavy_is_loaded_before_it_is_needed():
    code = (
        "import sys, sifaka.validators as v\n"
        "before = set(sys.modules)\n"
        "v.LengthValidator, v.RegexValidator, v.JudgeValidator('x'), v.ComposedValidator, v.ContentValidator\n"
        "v.JSONValidator, v.MarkdownValidator, v.ReadabilityValidator, v.LanguageValidator, v.ClassifierValidator\n"
        "heavy = 'pydantic jsonschema markdown_it pyphen py3langid numpy json_repair subprocess asyncio'\n"
        "print(sorted(set(heavy.split()) & set(sys.modules)), 'sifaka.validators.length' in before)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["[]", "False"]


@pytest.mark.parametrize(
    ("library", "make"),
    [
        ("jsonschema.validators", lambda: JSONValidator({})),
        ("pydantic", lambda: JSONValidator(int)),
        ("markdown_it", MarkdownValidator),
        ("pyphen", lambda: ReadabilityValidator(minimum=1)),
    ],
)
def test_a_missing_library_is_named_with_the_command(monkeypatch, library, make):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sifaka\[validators\]'"):
        make()


def test_an_own_validator_needs_a_check_alone():
    class NoShouting(TextValidator):
        name = "no shouting"

        def check(self, text):
            return verdict(not text.isupper(), "it is all capitals", fix="write small letters")

    assert judged(NoShouting(), "Hello").passed
    assert judged(NoShouting(), "HELLO").suggestions == ("write small letters",)
    assert judged(NoShouting(), " ").message == "the text is empty"
    assert (NoShouting() & LengthValidator()).name == "no shouting & length"


# Measures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("one two", 2),
        ("well-known words don't split", 4),
        ("— a dash is none", 4),
        ("狐猴跳", 3),
        ("ひらがな", 4),
        ("Tokyo 東京 tower", 4),
        ("한국어 문장", 2),
        ("שלום עולם", 2),
        ("مرحبا بالعالم", 2),
        ("3.14 and 10%", 3),
        ("👍 👍", 0),
        ("e\u0301te\u0301", 1),
        ("नमस्ते दुनिया", 2),
    ],
)
def test_words_are_counted_in_every_script(text, count):
    assert words(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three?", 3),
        ('He said: "Is it?!" She left.', 2),
        ("Pi is 3.14 on example.com. Good.", 2),
        ("Dr. Smith met Mrs. Jones.", 1),
        ("Some animals, e.g. lemurs, jump.", 1),
        ("Wait... what? Yes.", 2),
        ("Wait... What? Yes.", 3),
        ("A heading\n\nAnd a text. And more", 3),
        ("hard\nwrapped\nlines.", 1),
        ("我来。你走\uff01好吗\uff1f", 3),
        ("मैं आया। तुम गए।", 2),
        ("هل أنت هنا؟ نعم.", 2),
        ("Really?! Yes…", 2),
        ("(He left.) [She stayed.]", 2),
        ("...", 0),
        ("😀. 😀.", 0),
    ],
)
def test_sentences_end_with_the_stops_of_their_script(text, count):
    assert sentences(text) == count


def test_a_character_is_the_same_however_it_is_encoded():
    assert characters("été") == characters("e\u0301te\u0301") == 3
    assert judged(LengthValidator(3, 3), "e\u0301te\u0301").passed


def test_what_is_rare_is_not_taken_for_nothing():
    assert not is_blank("\ue000")  # a picture in somebody's font
    assert not is_blank("\u0378")  # not in this Unicode, perhaps in the next
    assert not is_blank("\u200b.\u200b")


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_measures_of_a_part_are_no_larger_than_of_the_whole(text):
    for measure in (words, sentences):
        assert 0 <= measure(text) <= measure(text + ".\n\nOne more.") <= len(text) + 5


# Patterns that may never end ---------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", [r"^(a+)+$", r"^(a|aa)+$", r"^(a|a?)+$", r"^(.*a){25}$", r"a?" * 40 + "a" * 40]
)
def test_a_pattern_that_would_take_for_ever_is_stopped_and_is_no_pass(pattern):
    began = time.monotonic()
    for validator in (RegexValidator([pattern], timeout_s=0.5), RegexValidator((), [pattern], timeout_s=0.5)):
        found = judged(validator, "a" * 39 + "!")
        if not found.passed and "too long" in found.message:
            assert found.score == 0
            break
    else:
        pytest.fail("it was decided: choose a harder one")
    assert time.monotonic() - began < 20


def test_a_slow_pattern_that_can_be_decided_is_decided():
    assert judged(RegexValidator([r"^(a+)+$"], timeout_s=30), "a" * 30).passed
    assert judged(RegexValidator([r"(\w+\s?)+end"], timeout_s=30), "\ud800 the end").passed


def test_the_patterns_before_and_beside_a_slow_one_keep_their_answers():
    slow = r"^(a+)+$"
    assert found_in(["b", r"(!)+", slow, "a"], "a" * 40 + "!", 1.0) == [False, True, None, True]


@pytest.mark.parametrize(
    ("pattern", "length", "here"),
    [
        (r"\d{4}", 1_000_000, True),
        (r"\bTODO\b", 1_000_000, True),
        (r"\s+$", 1_000, True),
        (r"\s+$", 1_000_000, False),
        (r"(a+)+", 10, False),
        (r"[*+(]{2}", 1_000_000, True),
        (r"\(\*\)\+", 1_000_000, True),
        (r".*.*=.*", 20, True),
        (r".*.*=.*", 2_000, False),
    ],
)
def test_only_what_can_take_long_is_searched_for_in_another_process(pattern, length, here):
    assert (steps_max(pattern, length) <= 10_000_000) is here


def test_a_time_that_is_none_is_refused():
    with pytest.raises(PartError, match="timeout_s"):
        RegexValidator(["a"], timeout_s=0)


# Content -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text", "passed"),
    [
        ({"required": ["cat"]}, "A cat sat.", True),
        ({"required": ["cat"]}, "A Cat.", True),
        ({"required": ["cat"]}, "A catalogue.", False),
        ({"required": ["cat"], "whole_words": False}, "A catalogue.", True),
        ({"required": ["cat"], "case_sensitive": True}, "A Cat.", False),
        ({"required": ["a a"]}, "ba a a", True),
        ({"required": ["data protection"]}, "data\n  protection", True),
        ({"required": ["don't"]}, "They don\u2019t.", True),
        ({"required": ["STRASSE"]}, "Die Straße.", True),
        ({"required": ["café"]}, "cafe\u0301 au lait", True),
        ({"required": ["cafe"]}, "cafe\u0301", False),
        ({"required": ["क"]}, "कि", False),
        ({"required": ["猫"]}, "我的猫很可爱", True),
        ({"required": ["C++"]}, "I like C++.", True),
        ({"required": ["privacy"]}, "pri\u00advacy", True),
        ({"prohibited": ["secret"]}, "No secrets.", True),
        ({"prohibited": ["secret"]}, "A SECRET.", False),
        ({"prohibited": ["שלום"]}, "אמר שלום לה", False),
        ({"prohibited": ["I"], "case_sensitive": True}, "in it", True),
        ({"required": ["(x|y)"]}, "the set (x|y)", True),
    ],
)
def test_content(arguments, text, passed):
    found = judged(ContentValidator(**arguments), text)
    assert found.passed is passed
    assert found.score == float(passed)


def test_content_names_every_phrase_that_is_not_as_it_should_be():
    found = judged(ContentValidator(["cat", "dog"], ["ox", "cow"]), "A cat and an ox.")
    assert found.score == 0.5
    assert found.issues == ('does not mention "dog"', 'says "ox", which is not allowed')
    assert found.suggestions == ('mention "dog"', 'do not say "ox"')


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "required or a prohibited"),
        ({"required": "cat"}, r"\['cat'\]"),
        ({"prohibited": [" "]}, "something to see"),
        ({"required": [5]}, "something to see"),
        ({"required": ["Cat"], "prohibited": ["cat"]}, "no text can pass"),
    ],
)
def test_phrases_that_are_none_are_refused(arguments, said):
    with pytest.raises(PartError, match=said):
        ContentValidator(**arguments)


# Formats -----------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


class Person(pydantic.BaseModel):
    name: str
    age: int = 0


@pytest.mark.parametrize("schema", [SCHEMA, Person], ids=["schema", "model"])
@pytest.mark.parametrize(
    ("text", "passed", "said"),
    [
        ('{"name": "Ann", "age": 3}', True, ""),
        ('{"name": "Ann", "age": "old"}', False, "$.age"),
        ('{"age": 3}', False, "name"),
        ("[1]", False, "$"),
        ("{'name': 'Ann'}", False, "not JSON"),
        ('{"name": "Ann"} and more', False, "not JSON"),
        ('{"name": NaN}', False, "NaN"),
        ("[" * 100_000, False, "not JSON"),
        ('```json\n{"name": "Ann"}\n```', False, "not JSON"),
    ],
)
def test_json_keeps_to_its_schema(schema, text, passed, said):
    found = judged(JSONValidator(schema), text)
    assert found.passed is passed
    assert said in found.message


def test_json_without_a_schema_is_any_json():
    assert judged(JSONValidator(), "5").passed
    assert judged(JSONValidator(), "five").score == 0
    assert "code block" in judged(JSONValidator(), "```\n5\n```").suggestions[0]
    assert judged(JSONValidator(fenced=True), "```json\n5\n```").passed
    assert judged(JSONValidator(fenced=True), "5").passed
    assert not judged(JSONValidator(fenced=True), "Here:\n```json\n5\n```").passed


def test_every_problem_of_the_json_is_told_up_to_a_limit():
    found = judged(JSONValidator({"items": {"type": "string"}}), json.dumps(list(range(25))))
    assert len(found.issues) == 11
    assert found.issues[-1] == "and 15 more"
    assert found.score == round(1 / 26, 4)
    long = judged(JSONValidator({"type": "string"}), json.dumps(["x" * 100_000]))
    assert len(long.message) < 400


def test_a_reference_within_a_schema_is_followed_and_none_beyond_it(monkeypatch):
    inner = {"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}
    assert judged(JSONValidator(inner), "[1]").passed
    assert not judged(JSONValidator(inner), '["a"]').passed

    def fetched(*_args, **_more):
        pytest.fail("a schema was fetched")

    monkeypatch.setattr("urllib.request.urlopen", fetched)
    outer = JSONValidator({"$ref": "https://example.com/other.json"})
    with pytest.raises(PartError, match=r"example\.com"):
        judged(outer, "[1]")


@pytest.mark.parametrize("schema", [{"type": "strin"}, "name", 5, object()])
def test_a_schema_that_is_none_is_refused(schema):
    with pytest.raises(PartError, match="schema"):
        JSONValidator(schema)


def test_a_parser_is_a_format():
    toml = FormatValidator(tomllib.loads, "TOML")
    assert judged(toml, "a = 1").passed
    found = judged(toml, "a = ")
    assert (found.passed, found.score) == (False, 0.0)
    assert "TOML" in found.issues[0]
    assert toml.name == "format TOML"
    assert not judged(FormatValidator(str.isupper, "capitals"), "Abc").passed
    own = FormatValidator(lambda text: ValidationResult(False, "no", 0.3), "mine")
    assert judged(own, "x").score == 0.3
    with pytest.raises(ZeroDivisionError):
        judged(FormatValidator(lambda text: 1 / 0, "mine"), "x")
    assert not judged(FormatValidator(lambda text: 1 / 0, "mine", errors=ZeroDivisionError), "x").passed


async def parse(text):
    return text


@pytest.mark.parametrize("given_", ["TOML", None, parse])
def test_a_parser_that_is_none_is_refused(given_):
    with pytest.raises(PartError, match="parse"):
        FormatValidator(given_)


MARKDOWN = """\
# The *Lemur*

Intro with a [link](https://example.com).

## Facts :

- one
- two

> ```
> code
> ```
"""


@pytest.mark.parametrize(
    ("arguments", "text", "passed", "said"),
    [
        ({"required_headings": ["the lemur", "## Facts"]}, MARKDOWN, True, ""),
        ({"required_headings": ["# Facts"]}, MARKDOWN, False, '"# Facts"'),
        ({"required_headings": ["Facts", "The Lemur"]}, MARKDOWN, True, ""),
        ({"required_headings": ["Facts", "The Lemur"], "in_order": True}, MARKDOWN, False, "order"),
        ({"required_headings": ["The Lemur", "Facts"], "in_order": True}, MARKDOWN, True, ""),
        ({"required_headings": ["Not here"]}, "```\n# Not here\n```", False, "Not here"),
        ({"required_headings": ["Under"]}, "Under\n=====", True, ""),
        ({"required_elements": ["list", "link", "quote", "code", "heading"]}, MARKDOWN, True, ""),
        ({"required_elements": ["table"]}, MARKDOWN, False, "table"),
        ({"required_elements": ["table"]}, "|a|\n|-|\n|b|", True, ""),
        ({"required_elements": ["image"]}, "![x](y.png)", True, ""),
        ({"required_elements": ["numbered list"]}, "- a", False, "numbered list"),
        ({}, "plain", True, ""),
        ({}, "```python\nprint(1)", False, "never closed"),
        ({}, "```python", False, "never closed"),
        ({}, "```python\nprint(1)\n```", True, ""),
        ({}, "~~~\na\n```\n~~~", True, ""),
        ({}, "~~~\na\n```", False, "never closed"),
        ({}, "````\n```\n```\n````", True, ""),
        ({}, "- ```\n  a\n  ```", True, ""),
    ],
)
def test_markdown(arguments, text, passed, said):
    found = judged(MarkdownValidator(**arguments), text)
    assert found.passed is passed
    assert said in found.message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"required_headings": "Facts"}, "is a list"),
        ({"required_headings": ["#Facts"]}, "no heading"),
        ({"required_headings": ["####### Facts"]}, "no heading"),
        ({"required_headings": ["## "]}, "something to see"),
        ({"required_elements": ["tables"]}, "can have code"),
    ],
)
def test_markdown_that_cannot_be_asked_for_is_refused(arguments, said):
    with pytest.raises(PartError, match=said):
        MarkdownValidator(**arguments)


# Readability -------------------------------------------------------------------------------

EASY = "The cat sat on the mat. The dog ran to the cat. They had fun."
HARD = (
    "Notwithstanding considerable methodological heterogeneity, contemporary epidemiological investigations "
    "demonstrate statistically significant associations between socioeconomic deprivation and cardiovascular "
    "multimorbidity, necessitating comprehensive interdisciplinary interventions."
)


def test_the_formulas_are_the_published_ones():
    # 14 words of one syllable in 3 sentences: ease 206.835 - 1.015 * 14/3 - 84.6, grade 0.39 * 14/3 + 11.8 - 15.59.
    text = "The cat sat on the mat. The dog ran to the cat. Fun came."
    assert ReadabilityValidator(minimum=0).measure(text) == pytest.approx(206.835 - 1.015 * 14 / 3 - 84.6)
    grade = ReadabilityValidator("flesch_kincaid_grade", maximum=5)
    assert grade.measure(text) == pytest.approx(0.39 * 14 / 3 + 11.8 - 15.59)
    lix = ReadabilityValidator("lix", maximum=5)
    assert lix.measure("The longest words count here.") == pytest.approx(5 + 100 * 1 / 5)
    german = ReadabilityValidator(minimum=0, language="de")
    assert german.measure("Das Haus ist rot.") == pytest.approx(180 - 4 - 58.5)


@pytest.mark.parametrize(
    ("language", "word", "syllables"),
    [
        ("en", "information", 4),
        ("en", "people", 2),
        ("en", "the", 1),
        ("de", "Abend", 2),
        ("de", "Museum", 3),
    ],
)
def test_syllables_are_counted(language, word, syllables):
    validator = ReadabilityValidator(minimum=0, language=language)
    base, sentence, weight = validator._weights
    assert validator.measure(f"{word}.") == pytest.approx(base - sentence - weight * syllables)


@pytest.mark.parametrize("formula", ["flesch_reading_ease", "flesch_kincaid_grade", "lix"])
def test_hard_texts_are_told_from_easy_ones(formula):
    measure = ReadabilityValidator(formula, minimum=-1000).measure
    harder = measure(HARD) - measure(EASY)
    assert harder < -50 if formula == "flesch_reading_ease" else harder > 10


def test_a_text_that_is_too_hard_or_too_easy_is_told_what_to_do():
    hard = judged(ReadabilityValidator(minimum=60), HARD)
    assert "too hard" in hard.message
    assert "shorter" in hard.suggestions[0]
    easy = judged(ReadabilityValidator("flesch_kincaid_grade", minimum=9), EASY)
    assert "too easy" in easy.message
    assert hard.score < easy.score < 1
    assert judged(ReadabilityValidator("lix", maximum=40), EASY).score == 1
    assert not judged(ReadabilityValidator(minimum=0), "12 34 👍").passed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "minimum or a maximum"),
        ({"formula": "fog", "minimum": 1}, "formula"),
        ({"minimum": 5, "maximum": 4}, "between"),
        ({"minimum": float("nan"), "maximum": 4}, "between"),
        ({"minimum": 1, "language": "sv"}, "lix"),
        ({"formula": "flesch_kincaid_grade", "minimum": 1, "language": "de"}, "fitted for en"),
    ],
)
def test_a_readability_no_formula_gives_is_refused(arguments, said):
    with pytest.raises(PartError, match=said):
        ReadabilityValidator(**arguments)


# Language ----------------------------------------------------------------------------------

LEMURS = {
    "en": "The lemur jumps from one tree to the next and looks for ripe fruit.",
    "de": "Der Lemur springt von einem Baum zum nächsten und sucht reife Früchte.",
    "fr": "Le lémurien saute d'un arbre à l'autre et cherche des fruits mûrs.",
    "ja": "キツネザルは木から木へ飛び移り、熟した果物を探す。",
    "ar": "يقفز الليمور من شجرة إلى أخرى ويبحث عن ثمار ناضجة.",
    "ru": "Лемур прыгает между деревьями и ищет спелые плоды.",
}


@pytest.mark.parametrize("language", LEMURS)
def test_a_text_passes_in_its_own_language_alone(language):
    for code, text in LEMURS.items():
        found = judged(LanguageValidator(language), text)
        assert found.passed is (code == language)
        assert (found.score > 0.5) is found.passed
    assert f"likely {code}" in found.message or found.passed


def test_several_languages_may_be_asked_for_and_others_left_out():
    both = LanguageValidator(["en", "de"])
    assert judged(both, LEMURS["en"]).passed
    assert judged(both, LEMURS["de"]).passed
    assert not judged(both, LEMURS["fr"]).passed
    short = "Hello there"
    assert not judged(LanguageValidator("en", min_probability=0.9), short).passed
    assert judged(LanguageValidator("en", among=["en", "de", "fr"], min_probability=0.9), short).passed
    assert LanguageValidator("nb").languages == ("no",)
    assert LanguageValidator("pt-BR").languages == ("pt",)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"languages": "english"}, "'english'; it can have"),
        ({"languages": []}, "empty"),
        ({"languages": [5]}, "5"),
        ({"languages": "en", "among": ["de", "fr"]}, "not among de, fr"),
        ({"languages": "en", "among": "en"}, "is a list"),
        ({"languages": "en", "min_probability": 2}, "min_probability"),
    ],
)
def test_a_language_that_is_none_is_refused(arguments, said):
    with pytest.raises(PartError, match=said):
        LanguageValidator(**arguments)


# Classifiers -------------------------------------------------------------------------------


def test_a_classifier_passes_its_wanted_classes():
    ham = ClassifierValidator(Spam(), "ham", threshold=0.7)
    assert (judged(ham, "hello").passed, judged(ham, "hello").score) == (True, 0.9)
    found = judged(ham, "you win")
    assert (found.passed, found.score) == (False, 0.2)
    assert "spam (80%)" in found.message
    assert judged(ClassifierValidator(Spam(), ["ham", "spam"], threshold=1.0), "you win").passed
    polite = ClassifierValidator(Sure(), "polite")
    assert (judged(polite, "please").passed, judged(polite, "go!").passed) == (True, False)


def test_a_real_classifiers_numbers_are_understood():
    numpy = pytest.importorskip("numpy")

    class Numbers:
        classes_ = numpy.array([0, 1])

        def predict_proba(self, texts):
            return numpy.array([[0.25, 0.75]] * len(texts), dtype=numpy.float32)

    found = judged(ClassifierValidator(Numbers(), 1), "x")
    assert (found.passed, found.score) == (True, 0.75)
    msgspec.msgpack.encode(found)
    asked_for = bind_part("validator", ClassifierValidator(Numbers(), numpy.int64(1)), ())
    assert asked_for.fingerprint == bind_part("validator", ClassifierValidator(Numbers(), 1), ()).fingerprint


class Broken:
    classes_ = ("a", "b")

    def __init__(self, row):
        self.row = row

    def predict_proba(self, texts):
        return self.row


@pytest.mark.parametrize("row", [[], [[0.5]], [[float("nan"), 0.5]], [[2.0, -1.0]], [[0.5, 0.5], [0.5, 0.5]]])
def test_a_classifiers_answer_that_is_none_is_a_fault(row):
    with pytest.raises(PartError, match="returned"):
        judged(ClassifierValidator(Broken(row), "a"), "x")


class Unfitted:
    def predict_proba(self, texts):
        return []


@pytest.mark.parametrize(
    ("classifier", "arguments", "said"),
    [
        (Spam, {"wanted": "ham"}, "instance"),
        (object(), {"wanted": "ham"}, "predict"),
        (Unfitted(), {"wanted": "ham"}, "fit it first"),
        (Spam(), {"wanted": "eggs"}, "'ham', 'spam'"),
        (Spam(), {"wanted": []}, "empty"),
        (Spam(), {"wanted": "ham", "threshold": 0}, "threshold"),
        (Spam(), {"wanted": "ham", "threshold": 2}, "threshold"),
    ],
)
def test_a_classifier_that_is_none_is_refused(classifier, arguments, said):
    with pytest.raises(PartError, match=said):
        ClassifierValidator(classifier, **arguments)


def test_a_classifier_is_pure_where_it_is_said_to_be():
    assert not bind_part("validator", ClassifierValidator(Spam(), "ham"), ()).pure
    assert bind_part("validator", ClassifierValidator(Spam(), "ham", pure=True), ()).pure


# The judge ---------------------------------------------------------------------------------


def opinion(**more):
    fields = {"issues": [], "suggestions": [], "score": 0.9, "message": "Fine.", "passed": True}
    return json.dumps({**fields, **more})


def test_a_judge_asks_once_and_reads_a_verdict():
    judge = JudgeValidator(["It is short.", "It names a lemur."], "other-model", temperature=0.0)
    found, (request,) = asked(judge, "A {lemur}.", opinion(score=0.8))
    assert found == ValidationResult(True, "Fine.", 0.8)
    assert request.model == "other-model"
    assert request.options["temperature"] == 0.0
    assert request.options["json_schema"]["required"][-1] == "passed"
    assert "A {lemur}." in request.prompt
    assert "- It names a lemur." in request.prompt
    assert "Write." in request.prompt


def test_a_judges_failure_has_its_issues():
    reply = opinion(passed=False, score=0.2, issues=["too long"], suggestions=["cut it"], message="No.")
    found, _ = asked(JudgeValidator("It is short."), "x", reply)
    assert found == ValidationResult(False, "No.", 0.2, ("too long",), ("cut it",))
    bare, _ = asked(JudgeValidator("It is short."), "x", opinion(passed=False, message="No."))
    assert bare.issues == ("No.",)


def test_what_a_judge_says_twice_is_told_once():
    reply = opinion(
        passed=False, issues=["Too long.", "vague", " too long. ", ""], suggestions=["cut", "cut"]
    )
    found, _ = asked(JudgeValidator("It is short."), "x", reply)
    assert (found.issues, found.suggestions) == (("Too long.", "vague"), ("cut",))


@pytest.mark.slow
@pytest.mark.model
def test_the_local_model_can_be_the_judge(storage):
    from sifaka.models.base import create_model

    judge = JudgeValidator(
        "It names an animal.", create_model("local:smollm2", max_tokens=500, temperature=0.0)
    )
    chain = chain_of(Model("Lemurs leap from tree to tree."), storage, max_improvement_iterations=0)
    (found,) = chain.validate_with(judge).run_with_recovery().validation_results
    assert 0 <= found.score <= 1
    assert found.message
    assert found.passed or found.issues
    assert "repaired" not in found.message  # the schema was kept to


@pytest.mark.parametrize(("score", "passed"), [(0.7, True), (0.69, False)])
def test_a_threshold_goes_before_the_judges_word(score, passed):
    found, _ = asked(JudgeValidator("x", threshold=0.7), "x", opinion(score=score, passed=not passed))
    assert (found.passed, found.score) == (passed, score)


@pytest.mark.parametrize(
    "text",
    [
        "```json\n" + opinion() + "\n```",
        "Let me think. " + opinion() + " Done.",
        opinion()[:-1],
        opinion().replace('"', "'"),
        opinion().replace("true", "True"),
        '{"passed": "yes", "score": 0.9, "message": "Fine."}',
        '{"passed": true, "score": 0.9, "message": "Fine.", "issues": null, "suggestions": ""}',
        '{"passed": false, "score": 0}\n' + opinion(),
    ],
)
def test_json_that_had_to_be_repaired_says_so(text):
    found, _ = asked(JudgeValidator("x"), "x", text)
    assert found.passed
    assert found.score == 0.9
    assert "Fine." in found.message
    assert "had to be repaired" in found.message


@pytest.mark.parametrize("score", [85, -1, '"high"', "null"])
def test_a_score_that_is_none_is_left_out_and_said(score):
    text = opinion().replace("0.9", str(score))
    found, _ = asked(JudgeValidator("x"), "x", text)
    assert (found.passed, found.score) == (True, 1.0)
    if score != "null":
        assert "left out" in found.message
    with pytest.raises(ModelError):
        asked(JudgeValidator("x", threshold=0.5), "x", text)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(""), "empty_output"),
        (Reply("It is fine."), "malformed_output"),
        (Reply('{"score": 1}'), "malformed_output"),
        (Reply('{"passed": "perhaps"}'), "malformed_output"),
        (Reply("[" * 100_000), "malformed_output"),
        (Reply("{" * 100_000), "malformed_output"),
        (Reply('{"issues": ["a', finish_reason="length"), "truncated"),
        (Reply("", finish_reason="content_filter"), "content_filter"),
    ],
)
def test_an_answer_that_is_no_verdict_is_the_models_fault(reply, kind):
    with pytest.raises(ModelError) as caught:
        asked(JudgeValidator("x"), "x", reply)
    assert caught.value.kind == kind


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=80)
    | st.text('{}[]",: \\truefalsn0.', max_size=80).map(lambda rest: '{"passed": true' + rest)
)
def test_whatever_a_judge_answers_is_a_verdict_or_the_models_fault(text):
    try:
        found, _ = asked(JudgeValidator("x"), "x", text)
    except ModelError:
        return
    assert 0 <= found.score <= 1
    assert found.passed or found.issues


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"criteria": ""}, "criteria"),
        ({"criteria": []}, "criteria"),
        ({"criteria": ["a", " "]}, "criteria"),
        ({"criteria": "x", "threshold": 0}, "threshold"),
        ({"criteria": "x", "threshold": 7}, "threshold"),
        ({"criteria": "x", "prompt": "{txt}"}, "written"),
        ({"criteria": "x", "prompt": "Is it good?"}, "never see"),
    ],
)
def test_a_judge_without_sense_is_refused(arguments, said):
    with pytest.raises(PartError, match=said):
        JudgeValidator(**arguments)


def test_a_judges_call_is_recorded_and_a_bad_answer_asked_for_again(storage):
    model = Model("A lemur.", "no verdict", opinion(message="Good."))
    chain = chain_of(model, storage).validate_with(JudgeValidator("It names a lemur."))
    thought = chain.run_with_recovery()
    assert thought.validation_results[0].message == "Good."
    assert thought.passed
    records = log(storage, chain.chain_id)
    assert len(of(Intent, records)) == 3
    assert [one.text for one in of(Result, records) if one.part == "judge" and one.text][:2] == [
        "no verdict",
        opinion(message="Good."),
    ]


# Callables ---------------------------------------------------------------------------------


def test_a_callable_may_say_what_is_wrong_in_a_list():
    def starts_well(thought):
        return [] if thought.text.startswith("W") else ["it does not begin with W", "it should"]

    validator = CallableValidator(starts_well)
    assert validator.name == "starts_well"
    assert judged(validator, "Well.") == ValidationResult(True, score=1.0)
    found = judged(validator, "No.")
    assert (found.passed, found.score, len(found.issues)) == (False, round(1 / 3, 4), 2)
    assert judged(CallableValidator(lambda _: False, name="never"), "x").issues == ("never says no",)
    with pytest.raises(PartError, match="returned"):
        judged(CallableValidator(lambda _: "no"), "x")
    with pytest.raises(PartError, match="returned"):
        judged(CallableValidator(lambda _: [5]), "x")


def ask(thought):
    reply = yield Request(f"Is it good? {thought.text}")
    return reply.text == "yes"


async def wait(thought):
    return "a" in thought.text


def test_a_callable_keeps_its_shape():
    asking = bind_part("validator", CallableValidator(ask), ())
    waiting = bind_part("validator", CallableValidator(wait), ())
    assert (asking.asks, asking.coroutine) == (True, False)
    assert (waiting.asks, waiting.coroutine) == (False, True)
    assert asked(CallableValidator(ask), "x", "yes")[0].passed
    assert bind_part("validator", CallableValidator(lambda _: True, pure=True), ()).pure
    with pytest.raises(PartError, match="not pure"):
        CallableValidator(ask, pure=True)
    with pytest.raises(PartError, match="no function"):
        CallableValidator(int)


# Composing ---------------------------------------------------------------------------------

YES = CallableValidator(lambda _: ValidationResult(True, "good", 0.8), pure=True, name="yes")
NO = CallableValidator(lambda _: ValidationResult(False, "bad", 0.2, ("it is bad",), ("mend it",)), name="no")


@pytest.mark.parametrize(
    ("composed", "name", "passed", "score"),
    [
        (YES & NO, "yes & no", False, 0.5),
        (YES | NO, "yes | no", True, 0.8),
        (NO | NO, "no | no", False, 0.2),
        (YES & YES & NO, "yes & yes & no", False, 0.6),
        ((YES | NO) & YES, "(yes | no) & yes", True, 0.8),
        (YES & (NO | NO), "yes & (no | no)", False, 0.5),
        (NO & YES | YES, "(no & yes) | yes", True, 0.8),
        ((NO | NO) | YES, "no | no | yes", True, 0.8),
    ],
)
def test_validators_compose(composed, name, passed, score):
    found = judged(composed, "x")
    assert (composed.name, found.passed, found.score) == (name, passed, score)


def test_a_composed_validator_says_what_decided():
    both = judged(NO & YES & CallableValidator(lambda _: ["too long"], name="short"), "x")
    assert both.message == "no: bad; short: too long"
    assert both.issues == ("it is bad", "too long")
    assert both.suggestions == ("mend it",)
    one = judged(NO | YES, "x")
    assert (one.message, one.issues) == ("yes: good", ())
    none = judged(NO | NO, "x")
    assert none.issues == ("it is bad", "it is bad")


@given(st.lists(st.booleans(), min_size=3, max_size=3))
def test_composing_is_logic(truth):
    a, b, c = (CallableValidator(lambda _, value=value: value, name="m") for value in truth)
    p, q, r = truth
    assert judged(a & b | c, "x").passed is ((p and q) or r)
    assert judged(a & (b | c), "x").passed is (p and (q or r))
    assert judged((a | b) & c, "x").passed is ((p or q) and r)


def test_anything_that_validates_composes_from_either_side():
    class Own:
        name = "own"

        def validate(self, thought):
            return ValidationResult(True)

    def plain(thought):
        return True

    assert judged(Own() & LengthValidator(), "x").passed
    assert (plain & LengthValidator()).name == "plain & length"
    assert (LengthValidator() | plain).name == "length | plain"
    for wrong in (5, LengthValidator, "length", None):
        with pytest.raises(PartError, match="no validator"):
            LengthValidator() & wrong
        with pytest.raises(PartError, match="no validator"):
            wrong | LengthValidator()


def test_a_composed_validator_is_one_part_with_a_name_of_its_own_if_it_is_given_one():
    whole = LengthValidator() & RegexValidator(["a"])
    whole.name = "quality"
    longer = whole & YES
    assert longer.name == "quality & yes"
    assert len(longer.validators) == 2
    assert bind_part("validator", longer, ["quality & yes"]).name == "quality & yes-2"


def test_a_composed_validator_is_pure_where_all_are():
    pure, impure = LengthValidator(), CallableValidator(lambda _: True)
    assert bind_part("validator", pure & RegexValidator(["a"]), ()).pure
    assert not bind_part("validator", pure & impure, ()).pure
    assert not bind_part("validator", pure & JudgeValidator("x"), ()).pure


def test_a_members_setting_changes_the_fingerprint():
    def mark(most):
        return bind_part("validator", LengthValidator(1, most) & RegexValidator(["a"]), ()).fingerprint

    assert mark(5) == mark(5) != mark(6)
    assert mark(5)


def test_a_model_is_asked_only_where_it_can_change_the_verdict():
    judge, good = JudgeValidator("x"), opinion()
    found, requests = asked(judge & LengthValidator(max_length=2), "too long")
    assert (found.passed, requests, found.score) == (False, [], 0.125)  # a quarter, and nothing for the judge
    found, requests = asked(judge & LengthValidator(), "x", good)
    assert (found.passed, len(requests)) == (True, 1)
    found, requests = asked(judge | LengthValidator(), "x")
    assert (found.passed, requests) == (True, [])
    found, requests = asked(judge | LengthValidator(max_length=2), "too long", good)
    assert (found.passed, len(requests)) == (True, 1)
    bad = opinion(passed=False, score=0.1)
    found, requests = asked((judge | JudgeValidator("y")) & YES, "x", bad, good)
    assert (found.passed, len(requests)) == (True, 2)


def test_a_composed_judge_works_in_a_chain(storage):
    model = Model("A lemur leaps.", opinion(message="Good."))
    whole = LengthValidator(max_length=20) & JudgeValidator("It names a lemur.")
    chain = chain_of(model, storage).validate_with(whole)
    thought = chain.run()
    (found,) = thought.validation_results
    assert (found.validator, found.passed) == ("length & judge", True)
    assert found.message == "length: 14 characters; judge: Good."
    assert len(of(Intent, log(storage, chain.chain_id))) == 2


@pytest.mark.parametrize("text", ["abc", "xyz"])
def test_async_validators_compose_and_run(storage, text):
    chain = chain_of(Model(text), storage, max_improvement_iterations=0)
    thought = chain.validate_with(LengthValidator() & CallableValidator(wait)).run()
    assert thought.validation_results[0].passed is (text == "abc")


def test_what_cannot_be_one_part_says_so():
    with pytest.raises(PartError, match="each on its own"):
        JudgeValidator("x") & CallableValidator(wait)
    with pytest.raises(PartError, match="returned"):
        judged(LengthValidator() & (lambda _: wait), "x")


def test_a_fault_in_a_member_is_a_fault_of_the_part(storage):
    def broken(thought):
        raise ZeroDivisionError

    chain = chain_of(Model("x"), storage).validate_with(LengthValidator() & broken)
    with pytest.raises(ChainError, match="length & broken"):
        chain.run()
