"""How long a text may be, in characters, words or sentences (floor 2)."""

from __future__ import annotations

from typing import Literal

from sifaka.errors import PartError
from sifaka.thought import Thought, ValidationResult

__all__ = ["LengthValidator", "Unit"]

Unit = Literal["characters", "words", "sentences"]


class LengthValidator:
    """Passes texts of ``min_length`` to ``max_length`` (None: any) of ``unit``, both included.

    A sentence ends with ``.``, ``!`` or ``?`` and what closes it. The score falls from 1 towards 0 with
    the share of the length that is missing or too much. An empty text never passes.
    """

    pure = True

    def __init__(
        self,
        min_length: int = 0,
        max_length: int | None = None,
        unit: Unit = "characters",
        *,
        name: str = "length",
    ) -> None:
        if unit not in ("characters", "words", "sentences"):
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

    def validate(self, thought: Thought) -> ValidationResult:
        """The verdict on the thought's text."""
        if not thought.text.strip():
            return _failed("the text is empty", "write a text", 0.0)
        length, unit = _measure(thought.text, self.unit), self.unit
        if length < self.min_length:
            missing = self.min_length - length
            return _failed(
                f"the text has {length} {unit}, at least {self.min_length} are asked for",
                f"add at least {missing} {unit}",
                length / self.min_length,
            )
        if self.max_length is not None and length > self.max_length:
            return _failed(
                f"the text has {length} {unit}, at most {self.max_length} are allowed",
                f"cut at least {length - self.max_length} {unit}",
                self.max_length / length,
            )
        return ValidationResult(True, f"{length} {unit}", score=1.0)


def _failed(message: str, suggestion: str, score: float) -> ValidationResult:
    return ValidationResult(False, message, round(score, 4), (message,), (suggestion,))


def _measure(text: str, unit: Unit) -> int:
    if unit == "characters":
        return len(text)
    if unit == "words":
        return len(text.split())
    import re

    return len(re.findall(r"[^.!?]*[^\s.!?][^.!?]*(?:[.!?]+[\"')\]\u201d\u2019]*|$)", text))
