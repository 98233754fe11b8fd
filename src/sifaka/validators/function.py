"""A callable as a validator with a name, that composes and says what it needs (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

from sifaka.errors import PartError
from sifaka.parts import Request
from sifaka.thought import Thought, ValidationResult
from sifaka.validators.base import EMPTY, ReadyValidator, failed
from sifaka.validators.measures import is_blank
from sifaka.validators.shape import settled, shape_of

__all__ = ["CallableValidator"]


class CallableValidator(ReadyValidator):
    """Asks ``function(thought)``, which returns a bool, a list of what is wrong, or a ValidationResult.

    It may be async, or a generator that yields Requests. ``pure=True`` says that it costs nothing and calls
    nobody. The chain takes callables as they are, too; this gives them a name, lets them say what is wrong in
    a list (its score is 1 / (1 + how many)), and lets ``function_a & function_b`` compose. It is not asked
    about an empty text, which never passes.
    """

    validate: Callable[[Thought], Any]

    def __init__(self, function: Callable[[Thought], Any], *, pure: bool = False, name: str = "") -> None:
        if isinstance(function, type) or not callable(function):
            raise PartError(
                f"{function!r} is no function; it takes a thought and returns a bool or a verdict"
            )
        self.name = name or getattr(function, "__name__", "") or type(function).__name__
        self.pure = pure
        self._function = function
        ways = {"plain": self._judge, "asks": self._ask, "awaits": self._await}
        self.validate = ways[shape_of(function)]
        if pure and self.validate != self._judge:
            raise PartError(f"{self.name} asks a model or is async: it is not pure")

    def _judge(self, thought: Thought) -> ValidationResult:
        return EMPTY if is_blank(thought.text) else self._settled(self._function(thought))

    def _ask(self, thought: Thought) -> Generator[Request, Any, ValidationResult]:
        if is_blank(thought.text):
            return EMPTY
        value = cast("object", (yield from self._function(thought)))
        return self._settled(value)

    async def _await(self, thought: Thought) -> ValidationResult:
        return EMPTY if is_blank(thought.text) else self._settled(await self._function(thought))

    def _settled(self, value: object) -> ValidationResult:
        if isinstance(value, list | tuple):
            issues = cast("Sequence[object]", value)
            if not all(isinstance(one, str) for one in issues):
                raise PartError(f"{self.name} returned {value!r}; a list says in texts what is wrong")
            told = [str(one) for one in issues]
            return failed(told, score=1 / (1 + len(told))) if told else ValidationResult(True, score=1.0)
        found = settled(value, self.name)
        if isinstance(value, bool):
            said = () if value else (f"{self.name} says no",)
            return ValidationResult(value, "".join(said), float(value), said)
        return found
