"""What parts return and ask, made into what records hold; a wrong type is a clear error (floor 5).

A value is judged by writing and reading it as a record would: what comes back is of the right types,
and what cannot be stored is found before anything depends on it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from math import isfinite
from typing import Any, TypeVar, cast

import msgspec

from sifaka.errors import PartError
from sifaka.parts import Reply, Request
from sifaka.retrievers.foreign import documents_from
from sifaka.thought import CriticFeedback, Document, ValidationResult

__all__ = ["documents_of", "feedback_of", "reply_of", "requests_of", "verdict_of"]

_T = TypeVar("_T")
_encode = msgspec.msgpack.Encoder().encode


@cache
def _decoder(kind: Hashable) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(cast("Any", kind))


def _sound(value: object, kind: type[_T], who: str) -> _T:
    """``value`` as a sound ``kind``. Raises PartError, which says what is wrong with it."""
    try:
        return cast("_T", _decoder(cast("Hashable", kind)).decode(_encode(value)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise PartError(f"{who} returned a {name} that no record can hold: {error}") from error


def _with_text(value: _T, field: str, who: str) -> _T:
    """As :func:`_sound`, for a value whose one large text only has to be a text: it is not copied."""
    text: object = getattr(value, field)
    if not isinstance(text, str):
        raise PartError(f"{who} returned a {type(value).__name__} whose {field} is {_kind(text)}")
    bare = _sound(msgspec.structs.replace(value, **{field: ""}), type(value), who)  # type: ignore[type-var]
    return msgspec.structs.replace(bare, **{field: _visible(text)})  # type: ignore[type-var]


def reply_of(value: object, model: str, not_applied: tuple[str, ...]) -> Reply:
    """A model's answer as a Reply that names the model. Raises PartError."""
    if isinstance(value, str):
        return Reply(_visible(value), model=model, not_applied=not_applied)
    if not isinstance(value, Reply):
        raise PartError(f"the model {model} returned {_kind(value)}; a model returns a str or a sifaka Reply")
    reply = _with_text(value, "text", f"the model {model}")
    return msgspec.structs.replace(
        reply, model=reply.model or model, not_applied=reply.not_applied + not_applied
    )


def requests_of(value: object, part: str) -> list[Request]:
    """What an asking part yielded, if it is a request, or requests, that can be made. Raises PartError."""
    if isinstance(value, list | tuple):
        several = cast("Sequence[object]", value)
        if not several:
            raise PartError(f"{part} yielded an empty list; an asking part yields Requests")
        return [_request_of(one, part) for one in several]
    return [_request_of(value, part)]


def _request_of(value: object, part: str) -> Request:
    if not isinstance(value, Request):
        raise PartError(f"{part} yielded {_kind(value)}; an asking part yields Requests")
    bare = msgspec.structs.replace(value, model=None)
    return msgspec.structs.replace(_with_text(bare, "prompt", part), model=value.model)


def verdict_of(value: object, validator: str) -> ValidationResult:
    """A validator's verdict, under its name; a bool is the shortest one. Raises PartError."""
    if isinstance(value, bool):
        return ValidationResult(value, validator=validator)
    who = f"the validator {validator}"
    if not isinstance(value, ValidationResult):
        raise PartError(f"{who} returned {_kind(value)}; it returns a ValidationResult or a bool")
    verdict = _sound(value, ValidationResult, who)
    if verdict.score is not None and not isfinite(verdict.score):
        raise PartError(f"{who} returned the score {verdict.score}; a score is a number from 0 to 1")
    return msgspec.structs.replace(verdict, validator=validator)


def feedback_of(value: object, critic: str) -> CriticFeedback:
    """A critic's feedback, under its name; a dict of its fields will do. Raises PartError."""
    who = f"the critic {critic}"
    if isinstance(value, Mapping):
        value = _from_fields({str(name): one for name, one in value.items()}, who)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if not isinstance(value, CriticFeedback):
        raise PartError(f"{who} returned {_kind(value)}; it returns a CriticFeedback or a dict")
    return msgspec.structs.replace(_sound(value, CriticFeedback, who), critic=critic)


def _from_fields(fields: dict[str, Any], who: str) -> CriticFeedback:
    """Feedback from a dict; what is no field of it is kept in its metadata."""
    known = set(CriticFeedback.__struct_fields__) - {"metadata"}
    plain = {name: one for name, one in fields.items() if name in known}
    extra = {name: one for name, one in fields.items() if name not in known}
    try:
        metadata = {**extra.pop("metadata", {}), **extra}
        return msgspec.convert({**plain, "metadata": metadata}, CriticFeedback)
    except (msgspec.ValidationError, TypeError) as error:
        raise PartError(
            f"{who} returned a dict that is no feedback: {error}. It needs "
            '"needs_improvement" (bool) and "message" (str), and may have "issues", "suggestions" '
            '(lists of str) and "confidence" (0 to 1)'
        ) from error


def documents_of(value: object, retriever: str) -> tuple[Document, ...]:
    """A retriever's documents, best first; other frameworks' are made ours. Raises PartError."""
    who = f"the retriever {retriever}"
    return tuple(_with_text(one, "text", who) for one in documents_from(value, retriever))


def _kind(value: object) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _visible(text: str) -> str:
    """``text`` with lone surrogates, which no encoding can hold, made visible as U+FFFD.

    A text was paid for, or found: one bad character must not lose it. A subclass becomes a plain str.
    """
    text = str.__str__(text)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
