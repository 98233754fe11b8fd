"""The options of a chain as a table: what each may be, and what it is if nobody says (floor 5).

Options that are not in the table go to the model as they are, if a record can hold them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import msgspec

from sifaka.errors import UsageError
from sifaka.log.records import STEPS
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.recovery.limits import Budget, Limits

__all__ = ["DEFAULTS", "ENGINE_OPTIONS", "check_action", "check_option", "one_of"]

DURABILITIES = ("step", "iteration", "exit")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """``value`` if it is one of ``allowed``. Raises UsageError."""
    if not isinstance(value, str) or value not in allowed:
        raise UsageError(f"{name}={value!r}; it is one of {', '.join(map(repr, allowed))}")
    return value


def _number(name: str, value: object, least: float, most: float = math.inf) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    number = float(cast("float", value)) if good else math.nan
    if not (least <= number <= most and math.isfinite(number)):
        upto = f" to {most:g}" if most < math.inf else " or more"
        raise UsageError(f"{name}={value!r}; it is a number, {least:g}{upto}")
    return cast("float", value)


def _whole(name: str, value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name}={value!r}; it is a whole number, {least} or more")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}={value!r}; it is True or False")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise UsageError(f"{name}={value!r}; it is a line of text")
    return value


def _durability(name: str, value: object) -> Any:
    if isinstance(value, Mapping):
        modes = cast("Mapping[str, str]", value)
        return {
            one_of(f"a key of {name}", step, STEPS): one_of(name, mode, DURABILITIES)
            for step, mode in modes.items()
        }
    return one_of(name, value, DURABILITIES)


def _budget(_name: str, value: object) -> dict[str, Any]:
    try:
        fields = msgspec.structs.asdict(Budget.of(value))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return {field: limit for field, limit in fields.items() if limit is not None}


def _limits(name: str, value: object) -> dict[str, Any]:
    known = ", ".join(Limits.__struct_fields__)
    try:
        limits = msgspec.structs.asdict(msgspec.convert(value, Limits))
        for field, limit in limits.items():
            if limit is not None:
                _number(field, limit, 0)
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError(f"{name}={value!r}: {error}. It is a dict of {known}") from error
    return limits


_OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "allow_partial_results": _flag,
    "always_apply_critics": _flag,
    "batch_size": partial(_whole, least=1),
    "budget": _budget,
    "critique_final": _flag,
    "deferred": _flag,
    "durability": _durability,
    "label": _text,
    "limits": _limits,
    "max_context_chars": partial(_whole, least=0),
    "max_documents": partial(_whole, least=0),
    "max_improvement_iterations": partial(_whole, least=0),
    "may_relax": _flag,
    "on_doubt": partial(one_of, allowed=("repeat", "stop")),
    "partial_every_s": partial(_number, least=0.01),
    "stream": _flag,
    "timeout_s": partial(_number, least=0.001),
    "usd_per_hour": partial(_number, least=0.0),
    "validation_strictness": partial(_number, least=0.0, most=1.0),
    "value_usd": partial(_number, least=0.0),
}
"""What the engine itself reads."""

_MODEL_OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "max_tokens": partial(_whole, least=1),
    "temperature": partial(_number, least=0.0),
}
"""What every model understands."""

ENGINE_OPTIONS = frozenset(_OPTIONS) | {"model", "models"}
"""Settings that are not passed on to the model, and do not tell one request from another."""

DEFAULTS: dict[str, Any] = {
    "always_apply_critics": True,
    "critique_final": False,
    "durability": "step",
    "max_improvement_iterations": 3,
    "on_doubt": "repeat",
}
"""What holds where nothing is said."""


def check_option(name: str, value: object) -> Any:
    """``value`` as option ``name`` is recorded. Raises UsageError, which says what may be written."""
    if name == "model":
        raise UsageError("set the model with with_model(...)")
    check = _OPTIONS.get(name) or _MODEL_OPTIONS.get(name)
    if check is not None:
        return check(name, value)
    from difflib import get_close_matches  # here: only an unknown option needs it

    near = get_close_matches(name, [*_OPTIONS, *_MODEL_OPTIONS], n=1, cutoff=0.85)
    if near:
        raise UsageError(f"there is no option {name!r}; did you mean {near[0]!r}?")
    can = "numbers, texts, lists and dicts can"
    try:
        plain = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"{name}={value!r} cannot be recorded ({error}); {can}") from error
    if plain != _as_read_back(value):
        raise UsageError(f"{name}={value!r} would be recorded as {plain!r}; {can}")
    return plain


def _as_read_back(value: object) -> object:
    """``value`` with its tuples as lists: the one change a record makes that changes nothing."""
    if isinstance(value, list | tuple):
        return [_as_read_back(one) for one in cast("list[object]", value)]
    if isinstance(value, dict):
        return {name: _as_read_back(one) for name, one in cast("dict[object, object]", value).items()}
    return value


def check_action(action: object) -> RecoveryAction:
    """``action`` if it is one that can be recorded and applied. Raises UsageError."""
    if not isinstance(action, RecoveryAction) or not isinstance(action.strategy, RecoveryStrategy):
        raise UsageError(
            f"{action!r} is no recovery action: RecoveryAction(RecoveryStrategy.…, description, confidence)"
        )
    try:
        sound = msgspec.convert(msgspec.to_builtins(action), RecoveryAction)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"{action!r} is no recovery action: {error}") from error
    _number("delay_s", sound.delay_s, 0.0)
    for name, value in sound.parameters.items():
        if name != "model":
            check_option(name, value)
    return sound
