"""Which phrases a text must hold, and which it must not (floor 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sifaka.errors import PartError
from sifaka.thought import ValidationResult
from sifaka.validators.base import TextValidator, failed, verdict
from sifaka.validators.measures import is_blank, is_spaceless

__all__ = ["ContentValidator"]

_PLAIN = {
    **dict.fromkeys((0x2018, 0x2019, 0x02BC, 0xFF07), "'"),
    **dict.fromkeys((0x2010, 0x2011), "-"),
    **dict.fromkeys((0x00AD, 0x200B, 0x2060, 0xFEFF)),
}
"""Marks that look alike are one; those that cannot be seen are none."""


class ContentValidator(TextValidator):
    """Passes texts that hold each ``required`` phrase and none that is ``prohibited``.

    ``whole_words``: "cat" is not found in "catalogue" (in scripts that put no spaces between words it is).
    ``case_sensitive=False`` compares by Unicode's case folding ("Straße" is "STRASSE"). Whatever the
    setting, any white space matches any other, and curly apostrophes and soft hyphens make no difference.
    The score is the share of phrases that are as they should be. An empty text never passes.
    """

    def __init__(
        self,
        required: Iterable[str] = (),
        prohibited: Iterable[str] = (),
        *,
        whole_words: bool = True,
        case_sensitive: bool = False,
        name: str = "content",
    ) -> None:
        self.name = name
        self.required = _phrases("required", required)
        self.prohibited = _phrases("prohibited", prohibited)
        self.whole_words = whole_words
        self.case_sensitive = case_sensitive
        if not self.required and not self.prohibited:
            raise PartError("ContentValidator needs a required or a prohibited phrase")
        both = sorted(set(map(self._folded, self.required)) & set(map(self._folded, self.prohibited)))
        if both:
            raise PartError(f"required and prohibited both have {', '.join(both)}: no text can pass")

    def check(self, text: str) -> ValidationResult:
        """The verdict on ``text``."""
        folded = self._folded(text)
        absent = [phrase for phrase in self.required if not self._holds(folded, phrase)]
        present = [phrase for phrase in self.prohibited if self._holds(folded, phrase)]
        if not absent and not present:
            return verdict(True, "every phrase is as it should be")
        return failed(
            [f'does not mention "{one}"' for one in absent]
            + [f'says "{one}", which is not allowed' for one in present],
            [f'mention "{one}"' for one in absent] + [f'do not say "{one}"' for one in present],
            score=1 - (len(absent) + len(present)) / (len(self.required) + len(self.prohibited)),
        )

    def _folded(self, text: str) -> str:
        from unicodedata import normalize

        plain = " ".join(normalize("NFC", text).translate(_PLAIN).split())
        return plain if self.case_sensitive else normalize("NFC", plain.casefold())

    def _holds(self, folded: str, phrase: str) -> bool:
        wanted = self._folded(phrase)
        places = _places(folded, wanted)
        if not self.whole_words:
            return any(True for _ in places)
        return any(_is_whole(folded, place, place + len(wanted)) for place in places)


def _phrases(argument: str, phrases: Iterable[str]) -> tuple[str, ...]:
    if isinstance(phrases, str):
        raise PartError(f"write {argument}=[{phrases!r}]: it is a list of phrases")
    listed = tuple(phrases)
    for one in listed:
        if not isinstance(one, str) or is_blank(one):
            raise PartError(f"{argument} has {one!r}; a phrase is a text with something to see in it")
    return listed


def _places(text: str, phrase: str) -> Iterator[int]:
    place = text.find(phrase)
    while place >= 0:
        yield place
        place = text.find(phrase, place + 1)


def _is_whole(text: str, begin: int, end: int) -> bool:
    return not _joined(text[begin - 1 : begin], text[begin]) and not _joined(
        text[end : end + 1], text[end - 1]
    )


def _joined(outside: str, inside: str) -> bool:
    """Whether the character beside a phrase belongs to the same word as the phrase's own."""
    if not outside or not (_in_word(outside) and _in_word(inside)):
        return False
    return not (is_spaceless(outside) or is_spaceless(inside))


def _in_word(character: str) -> bool:
    from unicodedata import category

    return character.isalnum() or character == "_" or category(character).startswith("M")
