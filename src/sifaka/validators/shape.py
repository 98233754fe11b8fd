"""What a callable does when it is called, read from its code, and what it may return (floor 2)."""

from __future__ import annotations

from typing import Any, Literal, cast

from sifaka.errors import PartError
from sifaka.thought import ValidationResult

__all__ = ["Shape", "settled", "shape_of"]

Shape = Literal["plain", "asks", "awaits"]

_COROUTINE, _GENERATOR = 0x80, 0x20


def shape_of(function: object) -> Shape:
    """Whether a callable returns its verdict, asks models for it (a generator), or is awaited for it."""
    from functools import partial

    bare: Any = function
    while isinstance(bare, partial):
        bare = cast("Any", bare).func
    code: Any = getattr(getattr(bare, "__func__", bare), "__code__", None)
    if code is None:
        kind = cast("Any", type(bare))
        code = getattr(getattr(kind, "__call__", None), "__code__", None)  # noqa: B004 - its code is wanted
    flags: int = getattr(code, "co_flags", 0)
    return "awaits" if flags & _COROUTINE else "asks" if flags & _GENERATOR else "plain"


def settled(value: object, name: str) -> ValidationResult:
    """What a validator returned, as a verdict: a bool is the shortest one. Raises PartError."""
    if isinstance(value, bool):
        return ValidationResult(value)
    if not isinstance(value, ValidationResult):
        raise PartError(
            f"the validator {name} returned {type(value).__name__}; it returns a ValidationResult or a bool"
        )
    return value
