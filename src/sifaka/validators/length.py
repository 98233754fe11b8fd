"""How long a text may be, in characters, words or sentences (floor 2)."""

from __future__ import annotations

from typing import Literal

from sifaka.errors import PartError
from sifaka.thought import ValidationResult
from sifaka.validators.base import TextValidator, verdict
from sifaka.validators.measures import characters, sentences, words

__all__ = ["LengthValidator", "Unit"]

Unit = Literal["characters", "words", "sentences"]

_MEASURES = {"characters": characters, "words": words, "sentences": sentences}


class LengthValidator(TextValidator):
    """Passes texts of ``min_length`` to ``max_length`` (None: any) of ``unit``, both included.

    Characters are Unicode's, composed. A word stands between spaces and has a letter or a digit; a
    Chinese or Japanese character is a word of its own. A sentence ends with a stop of its script, or an
    empty line; a stop within a word, after a title ("Dr.") or before a small letter ends none. The score
    falls from 1 towards 0 with the share of the length that is missing or too much. An empty text never
    passes.
    """

    def __init__(
        self,
        min_length: int = 0,
        max_length: int | None = None,
        unit: Unit = "characters",
        *,
        name: str = "length",
    ) -> None:
        if unit not in _MEASURES:
            raise PartError(f'unit={unit!r}; it is "characters", "words" or "sentences"')
        if min_length < 0 or (max_length is not None and max_length < max(min_length, 1)):
            raise PartError(
                f"min_length={min_length}, max_length={max_length}: no text can be that long; "
                "min_length is 0 or more, max_length at least min_length and 1"
            )
        self.name = name
        self.min_length = min_length
        self.max_length = max_length
        self.unit: Unit = unit

    def check(self, text: str) -> ValidationResult:
        """The verdict on ``text``."""
        length, unit = _MEASURES[self.unit](text), self.unit
        if length < self.min_length:
            return verdict(
                False,
                f"the text has {length} {unit}, at least {self.min_length} are asked for",
                score=length / self.min_length,
                fix=f"add at least {self.min_length - length} {unit}",
            )
        if self.max_length is not None and length > self.max_length:
            return verdict(
                False,
                f"the text has {length} {unit}, at most {self.max_length} are allowed",
                score=self.max_length / length,
                fix=f"cut at least {length - self.max_length} {unit}",
            )
        return verdict(True, f"{length} {unit}")
