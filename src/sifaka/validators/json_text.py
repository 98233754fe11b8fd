"""Whether a text is JSON, and of the form that was asked for (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from sifaka.errors import PartError
from sifaka.thought import ValidationResult
from sifaka.validators.base import TextValidator, failed, missing, verdict

__all__ = ["JSONValidator"]

PROBLEMS_TOLD_MAX = 10
_Check = Callable[[str, Any], list[str]]


class JSONValidator(TextValidator):
    """Passes texts that are one JSON value, which keeps to ``schema`` if there is one.

    ``schema`` is a JSON schema (a mapping; its ``$schema`` names the draft, 2020-12 if it has none), or a
    pydantic model, or any type pydantic can read. References lead within the schema; nothing is fetched.
    ``format`` in a schema is a remark, as its standard says, and not checked. ``fenced=True`` lets the value
    stand in a Markdown code block. NaN and Infinity are no JSON. The score is 0 for no JSON, else
    1 / (1 + the number of problems).
    """

    def __init__(
        self, schema: Mapping[str, Any] | type[Any] | None = None, *, fenced: bool = False, name: str = "json"
    ) -> None:
        self.name = name
        self.fenced = fenced
        self.schema_text = _described(schema)
        self._problems: _Check | None = _check_of(schema)

    def check(self, text: str) -> ValidationResult:
        """The verdict on ``text``."""
        bare = _unfenced(text) if self.fenced else text
        try:
            value = _parsed(bare)
        except (ValueError, RecursionError) as error:
            return _no_json(text, error, fenced=self.fenced)
        problems = self._problems(bare, value) if self._problems else []
        if not problems:
            return verdict(True, "it is JSON" + (" of the form asked for" if self._problems else ""))
        told = problems[:PROBLEMS_TOLD_MAX]
        fixes = [f"mend this: {one}" for one in told]
        return failed(told, fixes, score=1 / (1 + len(problems)), more=len(problems) - len(told))


def _no_json(text: str, error: Exception, *, fenced: bool) -> ValidationResult:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    fix = "answer with one JSON value and nothing around it"
    if not fenced and text.lstrip().startswith("```"):
        fix = "take away the code block around the JSON"
    return verdict(False, f"the text is not JSON: {why}", score=0.0, fix=fix)


def _parsed(text: str) -> Any:
    import json

    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _unfenced(text: str) -> str:
    lines = text.strip().splitlines()
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return text


def _described(schema: object) -> str:
    """The schema as a text, so that the part's fingerprint changes with it."""
    if isinstance(schema, Mapping):
        import json

        return json.dumps(schema, sort_keys=True, default=str)
    return "" if schema is None else getattr(schema, "__qualname__", repr(schema))


def _check_of(schema: object) -> _Check | None:
    if schema is None:
        return None
    if isinstance(schema, Mapping):
        return _by_schema(cast("Mapping[str, Any]", schema))
    if isinstance(schema, str | bytes | int | list):
        raise PartError(f"schema={schema!r}; it is a JSON schema as a mapping, or a pydantic model")
    return _by_type(schema)


# By a JSON schema ------------------------------------------------------------------------------


def _by_schema(schema: Mapping[str, Any]) -> _Check:
    try:
        from jsonschema.validators import validator_for
        from jsonschema_specifications import REGISTRY
    except ImportError as error:
        raise missing("a JSON schema") from error
    from jsonschema import Draft202012Validator, SchemaError

    kind = validator_for(dict(schema), default=Draft202012Validator)
    try:
        kind.check_schema(dict(schema))
    except SchemaError as error:
        raise PartError(f"schema is no JSON schema: {error.message} (at {error.json_path})") from error
    # A registry of its own: without one, a reference to another place would be fetched from there.
    checker = kind(dict(schema), registry=REGISTRY)

    def problems(_text: str, value: Any) -> list[str]:
        from referencing.exceptions import Unresolvable

        try:
            errors = sorted(checker.iter_errors(value), key=lambda one: list(map(str, one.absolute_path)))
        except Unresolvable as error:
            raise PartError(f"the schema refers to {error}, which it does not hold") from error
        except RecursionError:
            return ["it is nested too deeply to be checked"]
        return [f"{one.json_path}: {_short(one.message)}" for one in errors]

    return problems


def _short(message: str, chars_max: int = 200) -> str:
    """A message that repeats the value it complains about may be as long as the text."""
    return (
        message
        if len(message) <= chars_max
        else f"{message[: chars_max // 2]} … {message[-chars_max // 2 :]}"
    )


# By a pydantic model ---------------------------------------------------------------------------


def _by_type(kind: Any) -> _Check:
    try:
        from pydantic import TypeAdapter, ValidationError
        from pydantic.errors import PydanticUserError
    except ImportError as error:
        raise missing("a pydantic model") from error
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
    except PydanticUserError as error:
        raise PartError(f"schema={kind!r} is nothing pydantic can read: {error}") from error

    def problems(text: str, _value: Any) -> list[str]:
        try:
            adapter.validate_json(text.encode("utf-8", "replace"))
        except ValidationError as error:
            return [_one(cast("Mapping[str, Any]", one)) for one in error.errors(include_url=False)]
        return []

    return problems


def _one(problem: Mapping[str, Any]) -> str:
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"])
    return f"${where}: {_short(str(problem['msg']))}"
