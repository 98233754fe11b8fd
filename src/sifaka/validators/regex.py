"""Which patterns a text must hold, and which it must not (floor 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from sifaka.errors import PartError
from sifaka.thought import ValidationResult
from sifaka.validators.base import TextValidator, failed, verdict
from sifaka.validators.searching import found_in

__all__ = ["RegexValidator"]

TIMEOUT_S = 2.0
"""How long the patterns of one validator may be searched for, where they could take for ever."""


class RegexValidator(TextValidator):
    """Passes texts in which each required pattern is found and no forbidden one.

    Patterns are regular expressions of :mod:`re`, searched anywhere and case-sensitively (``(?i)`` at
    the start ignores case); a mapping gives them names to be called by. The score is the share of
    patterns that are as they should be. An empty text never passes.

    A pattern that could take for ever on a text, as ``(a+)+$`` can, is searched for in a process of its
    own (about 20 ms), for ``timeout_s`` seconds at most; one that takes longer has not been met.
    """

    def __init__(
        self,
        required_patterns: Iterable[str] | Mapping[str, str] = (),
        forbidden_patterns: Iterable[str] | Mapping[str, str] = (),
        *,
        name: str = "regex",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.name = name
        self.required_patterns = _named(required_patterns)
        self.forbidden_patterns = _named(forbidden_patterns)
        if not self.required_patterns and not self.forbidden_patterns:
            raise PartError("RegexValidator needs a required or a forbidden pattern")
        for _, pattern in self.required_patterns + self.forbidden_patterns:
            _check(pattern)
        if not timeout_s > 0:
            raise PartError(f"timeout_s={timeout_s}; it is a number of seconds above 0")
        self._timeout_s = timeout_s

    def check(self, text: str) -> ValidationResult:
        """The verdict on ``text``."""
        named = self.required_patterns + self.forbidden_patterns
        found = found_in([pattern for _, pattern in named], text, self._timeout_s)
        issues: list[str] = []
        fixes: list[str] = []
        for place, (name, _) in enumerate(named):
            wrong = _wrong(name, found[place], required=place < len(self.required_patterns))
            if wrong is not None:
                issues.append(wrong[0])
                fixes.append(wrong[1])
        if not issues:
            return verdict(True, "every pattern is as it should be")
        return failed(issues, fixes, score=1 - len(issues) / len(named))


def _wrong(name: str, found: bool | None, *, required: bool) -> tuple[str, str] | None:
    """What is wrong, and what mends it; None where all is well."""
    if found is None:
        return (
            f"{name} took too long to be searched for in this text",
            f"write the pattern {name} without repeats within repeats",
        )
    if found is required:
        return None
    if required:
        return f"does not have {name}", f"add {name}"
    return f"has {name}, which is not allowed", f"take out {name}"


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
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        raise PartError(f"{pattern!r} is no regular expression: {error}") from error
