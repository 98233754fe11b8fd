"""What a model answered, read as the form it was asked for: strictly first, then ever more kindly (floor 2).

The order: the whole answer as JSON; JSON in a fenced block; a JSON object within prose (the last one that
fits: what comes before is thinking aloud); then JSON that has to be repaired. What was repaired says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

import msgspec

from sifaka.errors import ModelError
from sifaka.parts import Reply

__all__ = ["read"]

_Form = TypeVar("_Form", bound=msgspec.Struct)

_OBJECTS_TRIED_MAX = 50
_REPAIRED_CHARS_MAX = 20_000  # repairing is slow, and nobody's judgement is longer


def read(reply: Reply, form: type[_Form], who: str) -> tuple[_Form, bool]:
    """The answer as a ``form``, and whether it had to be repaired. ``who`` asked, for the error.

    Raises ModelError of kind ``empty_output``, ``content_filter``, ``truncated`` (it was cut off where
    nothing can be made of it) or ``malformed_output``.
    """
    text = reply.text.strip()
    if not text:
        raise _unreadable(reply, who)
    for data in _sound(text):
        found = _strictly(data, form)
        if found is not None:
            return found, False
    for data in (*_sound(text), *_repaired(text)):
        found = _kindly(data, form)
        if found is not None:
            return found, True
    raise _unreadable(reply, who)


def _sound(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in ``text``, the likeliest first."""
    for candidate in (text, *_fenced(text)):
        try:
            data = msgspec.json.decode(candidate)
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(data, dict):
            yield cast("dict[str, Any]", data)
    yield from reversed(_within(text))


def _fenced(text: str) -> list[str]:
    import re

    return re.findall(r"```[a-zA-Z]*\s*\n?(.*?)```", text, flags=re.DOTALL)[::-1]


def _within(text: str) -> list[dict[str, Any]]:
    """The outermost JSON objects that stand in prose, in its order."""
    from json import JSONDecoder

    decode, found = JSONDecoder().raw_decode, list[dict[str, Any]]()
    at = text.find("{")
    for _ in range(_OBJECTS_TRIED_MAX):
        if at < 0:
            break
        try:
            data, end = decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found.append(data)
        at = text.find("{", end)
    return found


def _repaired(text: str) -> Iterator[dict[str, Any]]:
    """What can be made of JSON that is none: quotes, commas and braces are put where they miss."""
    begin = text.find("{")
    if begin < 0:
        return
    try:
        from json_repair import loads
    except ImportError:  # it is a dependency; without it, broken JSON stays broken
        return
    try:
        data: object = loads(text[begin : begin + _REPAIRED_CHARS_MAX])
    except (ValueError, RecursionError, IndexError, KeyError, TypeError):
        return
    for one in data if isinstance(data, list) else [data]:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(one, dict):
            yield cast("dict[str, Any]", one)


def _strictly(data: object, form: type[_Form]) -> _Form | None:
    try:
        return msgspec.convert(data, form)
    except msgspec.ValidationError:
        return None


def _kindly(data: Mapping[str, Any], form: type[_Form]) -> _Form | None:
    """As :func:`_strictly`, but "true" will do for a bool, "0.5" for a number, one text for a list.

    What is still no good is left out where the form can do without it.
    """
    mended: dict[str, Any] = {}
    for field in msgspec.structs.fields(form):
        value = data.get(field.name)
        plain = _as_texts(value) if field.default == () else _as_plain(value)
        try:
            mended[field.name] = msgspec.convert(plain, field.type, strict=False)
        except msgspec.ValidationError:
            if field.required:
                return None
    return form(**mended)


def _as_texts(value: object) -> list[str]:
    many = cast("list[object]", value) if isinstance(value, list) else [value]
    return [text for text in map(_as_text, many) if text]


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return ": ".join(str(one) for one in cast("dict[str, object]", value).values())
    return "" if value is None else str(value).strip()


def _as_plain(value: object) -> object:
    if isinstance(value, str):
        word = value.strip()
        return {"yes": True, "no": False}.get(word.casefold(), word)
    if isinstance(value, list | dict):
        return "; ".join(_as_texts(cast("object", value)))
    return value


def _unreadable(reply: Reply, who: str) -> ModelError:
    text, reason = reply.text.strip(), reply.finish_reason
    if reason == "content_filter":
        return ModelError(f"{who}: the provider withheld the answer", kind=reason, finish_reason=reason)
    if reason == "length":
        message = f"{who}: the answer was cut off before it said enough; give it more max_tokens"
        return ModelError(message, kind="truncated", finish_reason=reason)
    if not text:
        return ModelError(f"{who} got no feedback from the model", kind="empty_output")
    return ModelError(
        f"{who}: the answer is not JSON of the form that was asked for: {text[:80]!r}",
        kind="malformed_output",
    )
