"""Which patterns a text must hold, and which it must not (floor 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from sifaka.errors import PartError
from sifaka.thought import Thought, ValidationResult

__all__ = ["RegexValidator"]


class RegexValidator:
    """Passes texts in which each required pattern is found and no forbidden one.

    Patterns are regular expressions of :mod:`re`, searched anywhere and case-sensitively (``(?i)`` at
    the start ignores case); a mapping gives them names to be called by. The score is the share of
    patterns that are as they should be. An empty text never passes.
    """

    pure = True

    def __init__(
        self,
        required_patterns: Iterable[str] | Mapping[str, str] = (),
        forbidden_patterns: Iterable[str] | Mapping[str, str] = (),
        *,
        name: str = "regex",
    ) -> None:
        self.name = name
        self.required_patterns = _named(required_patterns)
        self.forbidden_patterns = _named(forbidden_patterns)
        if not self.required_patterns and not self.forbidden_patterns:
            raise PartError("RegexValidator needs a required or a forbidden pattern")
        for _, pattern in self.required_patterns + self.forbidden_patterns:
            _check(pattern)

    def validate(self, thought: Thought) -> ValidationResult:
        """The verdict on the thought's text."""
        import re

        text = thought.text
        if not text.strip():
            return ValidationResult(
                False, "the text is empty", 0.0, ("the text is empty",), ("write a text",)
            )
        missing = [name for name, one in self.required_patterns if not re.search(one, text)]
        found = [name for name, one in self.forbidden_patterns if re.search(one, text)]
        issues = [f"does not have {name}" for name in missing]
        issues += [f"has {name}, which is not allowed" for name in found]
        total = len(self.required_patterns) + len(self.forbidden_patterns)
        return ValidationResult(
            passed=not issues,
            message="; ".join(issues) or "every pattern is as it should be",
            score=round(1 - len(issues) / total, 4),
            issues=tuple(issues),
            suggestions=tuple([f"add {name}" for name in missing] + [f"take out {name}" for name in found]),
        )


def _named(patterns: Iterable[str] | Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if isinstance(patterns, str):
        raise PartError(f"write [{patterns!r}]: patterns are a list, or a mapping from name to pattern")
    if isinstance(patterns, Mapping):
        return tuple(cast("Mapping[str, str]", patterns).items())
    return tuple((f"/{pattern}/", pattern) for pattern in patterns)


def _check(pattern: str) -> None:
    import re

    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise PartError(f"{pattern!r} is no regular expression: {error}") from error
