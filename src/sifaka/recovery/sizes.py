"""What a provider's message says of sizes: the limit, and how much was asked for (floor 4).

A table of phrases, each with what its number means. Where a phrase is not known nothing is guessed.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

__all__ = ["Sizes", "TextLength", "length_asked_for", "sizes_in"]

_NUMBER = r"(\d{1,3}(?:[,_]\d{3})+|\d+)(k?)\b"

_LIMIT = (
    rf"(?:maximum|max)(?: \w+){{0,3}} (?:is|of|allowed|supported is|:|=)?\s*\(?{_NUMBER}",
    rf"> {_NUMBER} maximum",
    rf"maxlength: {_NUMBER}",
    rf"{_NUMBER} (?:maximum|tokens? maximum|token limit)",
    rf"\blimit(?: of| is|:| =)? ?\(?{_NUMBER}",
    rf"(?:context (?:window|length|size)|window|n_ctx)(?: of| is|:| =| \()? ?\(?{_NUMBER}",
    rf"(?:at most|up to|no more than) {_NUMBER}",
)
_ASKED = (
    rf"total of(?: at least)? {_NUMBER}",
    rf"(?:resulted in|requested:?|actual:?|got|contains?(?: at least)?) {_NUMBER}",
    rf"(?:too long|too large): ?{_NUMBER}",
    rf"token count \(?(?:is )?{_NUMBER}",
    rf"{_NUMBER} tokens >",
    rf"prompt is {_NUMBER} tokens",
)
_INPUT = (
    rf"{_NUMBER} (?:tokens )?in (?:the|your) (?:messages|prompt|input)",
    rf"(?:prompt|messages|input)(?: \w+)? contains?(?: at least)? {_NUMBER}",
)
_OUTPUT = (
    rf"{_NUMBER} (?:tokens )?(?:in|for) (?:the|your) (?:completion|output)",
    rf"{_NUMBER} output tokens",
    rf"max_(?:completion_|output_|new_)?tokens[\"'`]?[:= ]+{_NUMBER}",
)


class Sizes(NamedTuple):
    """Sizes in the provider's unit, mostly tokens; None where they are not stated.

    ``limit`` is what is allowed, ``asked`` all that was asked for, of which ``output`` for the answer.
    """

    limit: int | None = None
    asked: int | None = None
    output: int | None = None

    @property
    def share(self) -> float | None:
        """What share of what was asked for would be allowed, below 1; None where that is not known."""
        if not self.limit or not self.asked or self.asked <= self.limit:
            return None
        return self.limit / self.asked


def sizes_in(message: str) -> Sizes:
    """The sizes that a message states."""
    text = message.lower()
    limit = min(_found(text, _LIMIT), default=None)
    output = max(_found(text, _OUTPUT), default=None)
    asked = max(_found(text, _ASKED), default=None)
    if output is not None:
        asked = max([asked or 0, *(size + output for size in _found(text, _INPUT))])
    return Sizes(limit, asked or None, output)


def _found(text: str, phrases: tuple[str, ...]) -> list[int]:
    found: list[int] = []
    for phrase in phrases:
        for match in _compiled(phrase).finditer(text):
            number, kilo = match.group(1, 2)
            found.append(int(re.sub(r"[,_]", "", number)) * (1000 if kilo else 1))
    return [size for size in found if size >= 2]


@cache
def _compiled(phrase: str) -> re.Pattern[str]:
    return re.compile(phrase)


class TextLength(NamedTuple):
    """How long a text is to be: "at least" or "at most" ``number`` characters or words."""

    bound: str
    number: int
    unit: str

    @property
    def tokens(self) -> int:
        """About as many tokens: four characters, or three quarters of a word, make one."""
        return round(self.number * 4 / 3) if self.unit == "words" else round(self.number / 4)


def length_asked_for(message: str) -> TextLength | None:
    """What a verdict or a validation error asks of a text's length; None where it asks nothing of it."""
    found = _length().search(message.lower())
    if found is None:
        return None
    bound = (
        "at most" if found[1] in ("at most", "no more than", "maximum", "max", "fewer than") else "at least"
    )
    return TextLength(bound, int(found[2].replace(",", "")), found[3])


@cache
def _length() -> re.Pattern[str]:
    bounds = "at least|at most|no more than|more than|fewer than|minimum|maximum|min|max"
    return re.compile(rf"\b({bounds})(?: length)?(?: of| is|:)? (\d[\d,]*) (characters|words)\b")
