"""Whether a text is written in the language that was asked for (floor 2).

Told by py3langid: 139 languages from one file of 5 MB that it ships, offline, the same answer every time,
0.1 ms a paragraph. lingua is better at single words, but needs 100 MB on disk and over 1 GB of memory;
langdetect draws at random, and is sure of itself also where it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, cast

from sifaka.errors import PartError
from sifaka.thought import ValidationResult
from sifaka.validators.base import TextValidator, missing, verdict

__all__ = ["LanguageValidator"]

_ALIASES = {"nb": "no", "iw": "he", "in": "id", "fil": "tl"}
_SHORT_CHARS = 20


class LanguageValidator(TextValidator):
    """Passes texts in one of ``languages``: ISO 639 codes such as ``"en"``, or one such code.

    It is the likeliest language that counts, and at least ``min_probability`` of it (both languages of a
    pair that is asked for count together). A few words can be of several languages: ``among`` names those
    that come into question at all, and makes short texts much surer. The score is the probability of the
    languages asked for. Loading the model takes about half a second, once a process. An empty text never
    passes.
    """

    def __init__(
        self,
        languages: str | Iterable[str],
        *,
        among: Iterable[str] | None = None,
        min_probability: float = 0.0,
        name: str = "language",
    ) -> None:
        self.name = name
        known = frozenset(cast("list[str]", _model().labels))
        self.languages = _codes("languages", [languages] if isinstance(languages, str) else languages, known)
        if isinstance(among, str):
            raise PartError(f"write among=[{among!r}]: it is a list of codes")
        self.among = () if among is None else _codes("among", among, known)
        self.min_probability = min_probability
        outside = [one for one in self.languages if self.among and one not in self.among]
        if outside:
            raise PartError(f"languages has {outside[0]!r}, which is not among {', '.join(self.among)}")
        if not 0 <= min_probability <= 1:
            raise PartError(f"min_probability={min_probability}; it is a probability, from 0 to 1")

    def check(self, text: str) -> ValidationResult:
        """The verdict on ``text``."""
        chances = self._chances(text)
        wanted = sum(chances.get(one, 0.0) for one in self.languages)
        likeliest = max(chances, key=lambda one: (chances[one], one))
        asked = " or ".join(self.languages)
        if likeliest not in self.languages:
            return verdict(
                False,
                f"the text is most likely {likeliest} ({chances[likeliest]:.0%}), not {asked} ({wanted:.0%})"
                + ("; it is too short to be sure" if len(text.strip()) < _SHORT_CHARS else ""),
                score=wanted,
                fix=f"write in {asked}",
            )
        if wanted < self.min_probability:
            message = f"the text is {asked} with {wanted:.0%}; {self.min_probability:.0%} is asked for"
            return verdict(False, message, score=wanted, fix=f"write more, and only in {asked}")
        return verdict(True, f"the text is {likeliest} ({chances[likeliest]:.0%})", score=wanted)

    def _chances(self, text: str) -> dict[str, float]:
        ranked: dict[str, float] = dict(_model().rank(text))
        if not self.among:
            return ranked
        chosen = {one: ranked[one] for one in self.among}
        total = sum(chosen.values())
        if not total:  # all so unlikely that nothing is left of them
            return dict.fromkeys(chosen, 1 / len(chosen))
        return {one: chance / total for one, chance in chosen.items()}


@cache
def _model() -> Any:
    try:
        from py3langid import langid
    except ImportError as error:
        raise missing("LanguageValidator") from error
    kind: Any = langid.LanguageIdentifier
    return kind.from_model_file(langid.MODEL_FILE, norm_probs=True)


def _codes(argument: str, given: Iterable[str], known: frozenset[str]) -> tuple[str, ...]:
    codes = tuple(dict.fromkeys(_code(argument, one, known) for one in given))
    if not codes:
        raise PartError(f"{argument} is empty; it has codes such as 'en'")
    return codes


def _code(argument: str, given: object, known: frozenset[str]) -> str:
    plain = given.strip().lower() if isinstance(given, str) else ""
    code = _ALIASES.get(plain, plain)
    code = code if code in known else code.replace("_", "-").partition("-")[0]
    if code not in known:
        raise PartError(f"{argument} has {given!r}; it can have {', '.join(sorted(known))}")
    return code
