"""Several validators as one: all of them (``&``) or one of them (``|``) has to pass (floor 2).

A composed validator is one part. It asks the members that need no model first, all of them, so that every
issue is told; a model is asked only where its answer can still change the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, cast

from sifaka.errors import PartError
from sifaka.parts import Request
from sifaka.thought import Thought, ValidationResult
from sifaka.validators.base import EMPTY, ReadyValidator
from sifaka.validators.measures import is_blank
from sifaka.validators.shape import Shape, settled, shape_of

__all__ = ["ComposedValidator", "compose"]

_Told = dict[int, ValidationResult]


class _Member(NamedTuple):
    name: str
    function: Callable[[Thought], Any]
    shape: Shape
    pure: bool
    validator: object
    label: str
    """Its name within a longer one: in brackets where it is composed itself."""

    def judged(self, value: object) -> ValidationResult:
        return settled(value, self.name)


class ComposedValidator(ReadyValidator):
    """What ``a & b`` and ``a | b`` are; ``name`` may be set.

    ``&`` scores the mean of its members, one that was not asked counting 0; ``|`` the best of them. Its
    issues are those of the members that decided. It is pure where all members are, and asks models where
    one does: each request is recorded on its own. Members that are async make it async; asking and async
    members do not go together.
    """

    validate: Callable[[Thought], Any]

    def __init__(self, sign: str, members: tuple[_Member, ...]) -> None:
        self.sign = sign
        self.name = f" {sign} ".join(member.label for member in members)
        self.pure = all(member.pure for member in members)
        self.settings = tuple([_settings(member.validator) for member in members])
        self._members = members
        self._own_name = self.name
        shapes: set[Shape] = {member.shape for member in members}
        if "asks" in shapes and "awaits" in shapes:
            raise PartError(
                f"{self.name}: a validator that asks a model and an async one cannot be one part; give both "
                "to the chain, each on its own"
            )
        ways: dict[Shape, Callable[[Thought], Any]] = {
            "plain": self._judge,
            "asks": self._ask,
            "awaits": self._await,
        }
        self.validate = ways["asks" if "asks" in shapes else "awaits" if "awaits" in shapes else "plain"]

    @property
    def validators(self) -> tuple[object, ...]:
        """The members, left to right."""
        return tuple([member.validator for member in self._members])

    def members(self, sign: str) -> tuple[_Member, ...]:
        """It as part of a longer one: ``a & b & c`` has three members, unless ``a & b`` was given a name."""
        own = self.name == self._own_name
        if own and sign == self.sign:
            return self._members
        label = f"({self.name})" if own else self.name
        return (_Member(self.name, self.validate, shape_of(self.validate), self.pure, self, label),)

    # Three ways of asking ------------------------------------------------------------------

    def _judge(self, thought: Thought) -> ValidationResult:
        return EMPTY if is_blank(thought.text) else self._verdict(self._plain(thought))

    def _ask(self, thought: Thought) -> Generator[Request, Any, ValidationResult]:
        if is_blank(thought.text):
            return EMPTY
        told = self._plain(thought)
        for place, member in self._others():
            if self._decided(told):
                break
            value: object = cast("object", (yield from member.function(thought)))
            told[place] = member.judged(value)
        return self._verdict(told)

    async def _await(self, thought: Thought) -> ValidationResult:
        if is_blank(thought.text):
            return EMPTY
        told = self._plain(thought)
        for place, member in self._others():
            if self._decided(told):
                break
            told[place] = member.judged(await member.function(thought))
        return self._verdict(told)

    def _plain(self, thought: Thought) -> _Told:
        return {
            place: member.judged(member.function(thought))
            for place, member in enumerate(self._members)
            if member.shape == "plain"
        }

    def _others(self) -> Iterator[tuple[int, _Member]]:
        return ((place, one) for place, one in enumerate(self._members) if one.shape != "plain")

    # The verdict ---------------------------------------------------------------------------

    def _decided(self, told: _Told) -> bool:
        """Whether one member's verdict is already the whole's: a failure for "&", a pass for "|"."""
        return any(one.passed is (self.sign == "|") for one in told.values())

    def _verdict(self, told: _Told) -> ValidationResult:
        passed = self._decided(told) is (self.sign == "|")
        deciding = {place: one for place, one in sorted(told.items()) if one.passed is passed}
        said = [self._said(place, one) for place, one in deciding.items()]
        scores = [_score(one) for one in told.values()]
        score = max(scores) if self.sign == "|" else sum(scores) / len(self._members)
        return ValidationResult(
            passed=passed,
            message="; ".join(said),
            score=round(score, 4),
            issues=tuple([issue for one in deciding.values() for issue in one.issues]),
            suggestions=tuple([fix for one in deciding.values() for fix in one.suggestions]),
        )

    def _said(self, place: int, one: ValidationResult) -> str:
        name = self._members[place].name
        return f"{name}: {one.message}" if one.message else f"{name}: {'passed' if one.passed else 'failed'}"


def compose(sign: str, left: object, right: object) -> ComposedValidator:
    """``left & right`` or ``left | right``. Raises PartError for what is no validator."""
    return ComposedValidator(sign, (*_members(sign, left), *_members(sign, right)))


def _members(sign: str, validator: object) -> tuple[_Member, ...]:
    """The validator as a member; one of the same sign is its own members, as in ``a & b & c``."""
    if isinstance(validator, ComposedValidator):
        return validator.members(sign)
    function: Any = getattr(validator, "validate", validator)
    if isinstance(validator, type) or not callable(function):
        raise PartError(
            f"{validator!r} is no validator: it needs a method validate(thought), or to be a callable that "
            "takes a thought; pass an instance, not a class"
        )
    name = str(
        getattr(validator, "name", None) or getattr(validator, "__name__", None) or type(validator).__name__
    )
    pure = getattr(validator, "pure", False) is True
    return (_Member(name, function, shape_of(function), pure, validator, name),)


def _score(one: ValidationResult) -> float:
    return float(one.passed) if one.score is None else min(max(one.score, 0.0), 1.0)


def _settings(validator: object) -> tuple[tuple[str, Any], ...]:
    """A member's plain settings, so that the whole's fingerprint changes with them."""
    fields: dict[str, Any] = getattr(validator, "__dict__", {})
    plain = str, int, float, bool, tuple, list, type(None)
    public = sorted(name for name in fields if not name.startswith("_"))
    return tuple([(name, fields[name]) for name in public if isinstance(fields[name], plain)])
