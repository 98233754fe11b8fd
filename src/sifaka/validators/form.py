"""Whether a text is of a format that a parser knows (floor 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sifaka.errors import PartError
from sifaka.thought import ValidationResult
from sifaka.validators.base import TextValidator, failed, verdict
from sifaka.validators.shape import shape_of

__all__ = ["FormatValidator"]


class FormatValidator(TextValidator):
    """Passes texts that ``parse`` takes: any function of the text that raises ValueError for a wrong one.

    ``FormatValidator(tomllib.loads, "TOML")`` is a whole validator. A ``parse`` that judges instead of
    parsing returns False for a wrong text, or a ValidationResult; all else that it returns is a pass.
    ``errors`` are the exceptions that mean "not of this format"; any other is a fault of the part. An
    empty text never passes.
    """

    def __init__(
        self,
        parse: Callable[[str], Any],
        format_name: str = "",
        *,
        errors: type[Exception] | tuple[type[Exception], ...] = ValueError,
        name: str = "",
    ) -> None:
        if not callable(parse):
            raise PartError(f"parse={parse!r}; it is a function that takes a text")
        if shape_of(parse) != "plain":
            raise PartError(
                "parse is a plain function: give an async one, or a generator, to the chain as it is"
            )
        self.format_name = format_name or getattr(parse, "__name__", "") or type(parse).__name__
        self.name = name or f"format {self.format_name}"
        self._parse: Callable[[str], Any] = parse
        self._errors = errors

    def check(self, text: str) -> ValidationResult:
        """The verdict on ``text``."""
        try:
            found = self._parse(text)
        except self._errors as error:
            why = str(error).partition("\n")[0][:200] or type(error).__name__
            return failed(
                [f"the text is not {self.format_name}: {why}"],
                [f"write {self.format_name} and nothing around it"],
                score=0.0,
            )
        if isinstance(found, ValidationResult):
            return found
        wrong = f"the text is not {self.format_name}"
        return verdict(found is not False, wrong if found is False else f"it is {self.format_name}")
