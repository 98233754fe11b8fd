"""The form that a judge fills in, and how its answer is read: strictly, then with repairs (floor 2).

This module needs pydantic, and is loaded with a judge's first verdict.
"""

from __future__ import annotations

from typing import Any, cast

from sifaka.validators.base import missing

try:
    from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
except ImportError as error:
    raise missing("JudgeValidator") from error

__all__ = ["SCHEMA", "Opinion", "read_opinion"]

REPAIRED = "the judge's JSON had to be repaired"
_REPAIRED_CHARS_MAX = 8_000  # repairing is slow, and no verdict is longer


class Opinion(BaseModel):
    """A judge's verdict, its fields in the order in which they are asked for."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    issues: tuple[str, ...]
    suggestions: tuple[str, ...]
    score: float | None = Field(ge=0, le=1)
    message: str
    passed: bool

    @field_validator("issues", "suggestions")
    @classmethod
    def _once_each(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        """A small model likes to say the same again."""
        first: dict[str, str] = {}
        for text in filter(None, map(str.strip, texts)):
            first.setdefault(text.casefold(), text)
        return tuple(first.values())


_TEXT: dict[str, Any] = {"type": "string", "maxLength": 300}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT, "maxItems": 3}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "issues": _TEXTS,
        "suggestions": _TEXTS,
        "score": {"type": "number"},
        "message": _TEXT,
        "passed": {"type": "boolean"},
    },
    "required": ["issues", "suggestions", "score", "message", "passed"],
    "additionalProperties": False,
}
"""What the model is asked to keep to. The limits keep a small model from repeating itself for ever."""


def read_opinion(text: str) -> tuple[Opinion, tuple[str, ...]] | None:
    """The verdict in a model's answer, and notes on what had to be done to it; None where there is none."""
    try:
        return Opinion.model_validate_json(text.strip().encode("utf-8", "replace")), ()
    except ValidationError:
        pass
    for data in _objects(text):
        found = _mended(data)
        if found is not None:
            return found
    return None


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects that can be made of the answer, the last one first: before it comes thinking aloud."""
    tail = text[-_REPAIRED_CHARS_MAX:]
    begin = tail.find("{")
    if begin < 0:
        return []
    try:
        from json_repair import loads
    except ImportError as error:
        raise missing("JudgeValidator") from error
    try:
        data: object = loads(tail[begin:])
    except (ValueError, RecursionError, IndexError, KeyError, TypeError):
        return []
    found = cast("list[object]", data) if isinstance(data, list) else [data]
    return [cast("dict[str, Any]", one) for one in reversed(found) if isinstance(one, dict)]


def _mended(data: dict[str, Any]) -> tuple[Opinion, tuple[str, ...]] | None:
    """The object as a verdict: what is missing beside ``passed`` can be done without."""
    notes = [REPAIRED]
    fields = {
        "issues": _texts(data.get("issues")),
        "suggestions": _texts(data.get("suggestions")),
        "message": "; ".join(_texts(data.get("message"))),
        "passed": data.get("passed"),
        "score": data.get("score"),
    }
    for score in (fields["score"], None):
        try:
            return Opinion.model_validate({**fields, "score": score}), tuple(notes)
        except ValidationError:
            notes.append("its score was none from 0 to 1, and left out")
    return None


def _texts(value: object) -> list[str]:
    many = cast("list[object]", value) if isinstance(value, list) else [value]
    return [text for text in map(_text, many) if text]


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ": ".join(str(one) for one in cast("dict[str, object]", value).values())
    return "" if value is None else str(value).strip()
