"""What the ready-made validators share: composing, the empty text, and a verdict in one line (floor 2).

A validator of your own that derives from :class:`TextValidator` writes only ``check(text)``, and composes
like the others::

    class NoShouting(TextValidator):
        name = "no shouting"

        def check(self, text):
            return verdict(not text.isupper(), "the text is all capitals", fix="write it in lower case")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sifaka.errors import MissingExtraError
from sifaka.thought import Thought, ValidationResult
from sifaka.validators.measures import is_blank

if TYPE_CHECKING:
    from sifaka.validators.compose import ComposedValidator

__all__ = ["EMPTY", "ReadyValidator", "TextValidator", "failed", "missing", "verdict"]

EMPTY = ValidationResult(False, "the text is empty", 0.0, ("the text is empty",), ("write a text",))
"""The verdict on a text in which there is nothing to see."""


class ReadyValidator:
    """A validator that composes: ``a & b`` passes where both do, ``a | b`` where one does.

    The other side may be any validator, or a callable that takes a thought. A subclass has a ``name`` and
    ``validate(thought)``, as every validator.
    """

    name: str
    pure: bool = False
    """True: it costs nothing and calls nobody, so that it needs no record before it is asked."""

    def __and__(self, other: object) -> ComposedValidator:
        return _composed("&", self, other)

    def __rand__(self, other: object) -> ComposedValidator:
        return _composed("&", other, self)

    def __or__(self, other: object) -> ComposedValidator:
        return _composed("|", self, other)

    def __ror__(self, other: object) -> ComposedValidator:
        return _composed("|", other, self)


class TextValidator(ReadyValidator):
    """A validator that needs the text alone, costs nothing and calls nobody. An empty text never passes."""

    pure = True

    def validate(self, thought: Thought) -> ValidationResult:
        """The verdict on the thought's text."""
        return EMPTY if is_blank(thought.text) else self.check(thought.text)

    def check(self, text: str) -> ValidationResult:
        """The verdict on a text in which there is something to see."""
        raise NotImplementedError


def _composed(sign: str, left: object, right: object) -> ComposedValidator:
    from sifaka.validators.compose import compose

    return compose(sign, left, right)


def verdict(
    passed: bool,
    message: str = "",
    *,
    score: float | None = None,
    fix: str = "",
) -> ValidationResult:
    """A verdict with one issue at most: ``message``, where it failed. The score is 1 or 0 if not given."""
    exact = float(passed) if score is None else round(min(max(score, 0.0), 1.0), 4)
    if passed:
        return ValidationResult(True, message, exact)
    return ValidationResult(False, message, exact, (message,), (fix,) if fix else ())


def failed(
    issues: Sequence[str], suggestions: Sequence[str] = (), *, score: float, more: int = 0
) -> ValidationResult:
    """A failure with its issues; ``more`` of them were found and are only counted."""
    told = (*issues, f"and {more} more") if more else tuple(issues)
    return ValidationResult(
        False, "; ".join(told), round(min(max(score, 0.0), 1.0), 4), told, tuple(suggestions)
    )


def missing(what: str) -> MissingExtraError:
    """The error for a library that is not installed."""
    return MissingExtraError(f"{what} needs: pip install 'sifaka[validators]'")
