"""How hard a text is to read, by published formulas (floor 2).

All of them look at the length of sentences and of words, and at nothing else: they rank texts of one kind,
and say nothing of whether a text makes sense.

- Flesch reading ease, about 0 (very hard) to 100 (very easy): R. Flesch, "A new readability yardstick",
  Journal of Applied Psychology 32 (1948). For other languages its weights were fitted anew: German, Amstad
  (1978); French, Kandel and Moles (1958); Spanish, Fernández Huerta (1959); Italian, Franchina and Vacca
  (1986); Dutch, Douma (1960); Russian, Oborneva (2006).
- Flesch-Kincaid grade, years of American school: Kincaid, Fishburne, Rogers and Chissom, "Derivation of new
  readability formulas", Naval Technical Training Command, Research Branch Report 8-75 (1975). English only.
- LIX, about 20 (very easy) to 60 (very hard), for any language with spaces: C. H. Björnsson, "Läsbarhet"
  (1968).

Syllables are counted where pyphen's patterns would break the word. In English they miss about one in ten.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from sifaka.errors import PartError
from sifaka.thought import ValidationResult
from sifaka.validators.base import TextValidator, missing, verdict
from sifaka.validators.measures import sentences

__all__ = ["Formula", "ReadabilityValidator"]

Formula = Literal["flesch_reading_ease", "flesch_kincaid_grade", "lix"]


class _Weights(NamedTuple):
    """``base - sentence * words per sentence - syllable * syllables per word``."""

    base: float
    sentence: float
    syllable: float


_EASE = {
    "en": _Weights(206.835, 1.015, 84.6),
    "de": _Weights(180.0, 1.0, 58.5),
    "es": _Weights(206.84, 1.02, 60.0),
    "fr": _Weights(207.0, 1.015, 73.6),
    "it": _Weights(217.0, 1.3, 60.0),
    "nl": _Weights(206.84, 0.93, 77.0),
    "ru": _Weights(206.835, 1.3, 60.1),
}
_GRADE = {"en": _Weights(-15.59, -0.39, -11.8)}
_STEP = {"flesch_reading_ease": 10.0, "flesch_kincaid_grade": 1.0, "lix": 10.0}
"""What each formula's author calls one step harder: the score halves for each that is too much."""
_LONG_WORD = 6
_SYLLABLES_FROM_PATTERNS_MAX = 60  # no word is longer: it is no word, and the patterns would take long
_VOWELS = frozenset(
    "aeiouy\u00e6\u00f8\u0153" + "\u0430\u0435\u0438\u043e\u0443\u044b\u044d\u044e\u044f\u0456\u0454"
)
"""Latin, then Cyrillic ones, without their accents."""


class ReadabilityValidator(TextValidator):
    """Passes texts whose value by ``formula`` is from ``minimum`` to ``maximum`` (None: any).

    ``formula`` is ``"flesch_reading_ease"`` (high is easy), ``"flesch_kincaid_grade"`` or ``"lix"`` (low is
    easy). ``language`` is a code like ``"en"`` or ``"de_AT"``, one that has weights for the formula. The
    score is 1, and half of it for each step (10 points, one school year) that is missing.
    """

    def __init__(
        self,
        formula: Formula = "flesch_reading_ease",
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        language: str = "en",
        name: str = "readability",
    ) -> None:
        if formula not in _STEP:
            raise PartError(f"formula={formula!r}; it is one of {', '.join(_STEP)}")
        if minimum is None and maximum is None:
            raise PartError("ReadabilityValidator needs a minimum or a maximum")
        if minimum is not None and maximum is not None and not minimum <= maximum:
            raise PartError(f"minimum={minimum}, maximum={maximum}: no text can be between them")
        self.name = name
        self.formula: Formula = formula
        self.minimum = minimum
        self.maximum = maximum
        self.language = language
        self._weights = None if formula == "lix" else _weights(formula, language)
        self._patterns = None if formula == "lix" else _patterns(language)

    def measure(self, text: str) -> float | None:
        """The formula's value for ``text``; None where it has no words."""
        found = _words(text)
        if not found:
            return None
        length = len(found) / max(sentences(text), 1)
        if self._weights is None:
            return length + 100 * sum(len(word) > _LONG_WORD for word in found) / len(found)
        base, sentence, syllable = self._weights
        return base - sentence * length - syllable * _syllables(found, self._patterns) / len(found)

    def check(self, text: str) -> ValidationResult:
        """The verdict on ``text``."""
        value = self.measure(text)
        if value is None:
            message = "the text has no words that a readability formula can count"
            return verdict(False, message, score=0.0, fix="write sentences of words")
        name = self.formula.replace("_", " ")
        low = self.minimum is not None and value < self.minimum
        high = self.maximum is not None and value > self.maximum
        if not low and not high:
            return verdict(True, f"{name} {value:.1f}")
        bound = float((self.minimum if low else self.maximum) or 0.0)
        too_hard = low if self.formula == "flesch_reading_ease" else high
        return verdict(
            False,
            f"the text is too {'hard' if too_hard else 'easy'} to read: {name} {value:.1f}, "
            f"{'at least' if low else 'at most'} {bound:g} is asked for",
            score=0.5 ** (abs(value - bound) / _STEP[self.formula]),
            fix="use shorter sentences and shorter words"
            if too_hard
            else "use longer sentences and more precise words",
        )


def _weights(formula: Formula, language: str) -> _Weights:
    known = _EASE if formula == "flesch_reading_ease" else _GRADE
    weights = known.get(_base(language))
    if weights is None:
        raise PartError(
            f"language={language!r}: {formula} was fitted for {', '.join(sorted(known))}; "
            'for other languages take formula="lix"'
        )
    return weights


def _base(language: str) -> str:
    return language.replace("-", "_").partition("_")[0].lower()


def _patterns(language: str) -> Any:
    try:
        from pyphen import Pyphen, language_fallback
    except ImportError as error:
        raise missing("ReadabilityValidator") from error
    # American patterns break words nearer to their syllables than British ones do.
    known = language_fallback("en_US" if language == "en" else language)
    return Pyphen(lang=known, left=1, right=1)


def _words(text: str) -> list[str]:
    import re
    from unicodedata import normalize

    return re.findall(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*", normalize("NFC", text))


def _syllables(found: list[str], patterns: Any) -> int:
    from collections import Counter

    return sum(times * _syllables_of(word, patterns) for word, times in Counter(found).items())


def _syllables_of(word: str, patterns: Any) -> int:
    if len(word) > _SYLLABLES_FROM_PATTERNS_MAX:
        return len(word) // 3
    ends: list[int] = [*patterns.positions(word), len(word)]
    pieces = [word[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return max(1, sum(map(_has_vowel, pieces)))


def _has_vowel(piece: str) -> bool:
    """Patterns also break off single consonants, which a reader does not."""
    from unicodedata import normalize

    return not _VOWELS.isdisjoint(normalize("NFD", piece.lower()))
