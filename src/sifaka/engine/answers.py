"""What parts return, made into what records hold; a wrong type is a clear error (floor 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sifaka.errors import PartError
from sifaka.parts import Reply
from sifaka.thought import CriticFeedback, Document, ValidationResult

__all__ = ["documents_of", "feedback_of", "reply_of", "verdict_of"]


def reply_of(value: object, model: str, not_applied: tuple[str, ...]) -> Reply:
    """A model's answer as a Reply that names the model. Raises PartError."""
    if isinstance(value, str):
        return Reply(_storable(value), model=model, not_applied=not_applied)
    if not isinstance(value, Reply):
        raise PartError(f"the model {model} returned {_kind(value)}; a model returns a str or a sifaka Reply")
    left_out = value.not_applied + not_applied
    named = value.model or model
    if left_out != value.not_applied or named != value.model or not _is_storable(value.text):
        return msgspec.structs.replace(value, text=_storable(value.text), model=named, not_applied=left_out)
    return value


def verdict_of(value: object, validator: str) -> ValidationResult:
    """A validator's verdict, under its name; a bool is the shortest one. Raises PartError."""
    if isinstance(value, bool):
        return ValidationResult(value, validator=validator)
    if not isinstance(value, ValidationResult):
        raise PartError(
            f"the validator {validator} returned {_kind(value)}; a validator returns a "
            "ValidationResult or a bool"
        )
    return msgspec.structs.replace(
        value,
        validator=validator,
        issues=tuple(value.issues),
        suggestions=tuple(value.suggestions),
    )


def feedback_of(value: object, critic: str) -> CriticFeedback:
    """A critic's feedback, under its name; a dict of its fields will do. Raises PartError."""
    if isinstance(value, Mapping):
        fields: dict[str, Any] = {str(name): one for name, one in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        known = set(CriticFeedback.__struct_fields__) - {"metadata"}
        extra = {name: one for name, one in fields.items() if name not in known}
        plain = {name: one for name, one in fields.items() if name in known}
        metadata = extra.pop("metadata", {})
        try:
            value = msgspec.convert({**plain, "metadata": {**metadata, **extra}}, CriticFeedback)
        except (msgspec.ValidationError, TypeError) as error:
            raise PartError(
                f"the critic {critic} returned a dict that is no feedback: {error}. It needs "
                '"needs_improvement" (bool) and "message" (str), and may have "issues", '
                '"suggestions" (lists of str) and "confidence" (0 to 1)'
            ) from error
    if not isinstance(value, CriticFeedback):
        raise PartError(
            f"the critic {critic} returned {_kind(value)}; a critic returns a CriticFeedback or a dict"
        )
    return msgspec.structs.replace(
        value,
        critic=critic,
        issues=tuple(value.issues),
        suggestions=tuple(value.suggestions),
    )


def documents_of(value: object, retriever: str) -> tuple[Document, ...]:
    """A retriever's documents, best first. Raises PartError."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise PartError(
            f"the retriever {retriever} returned {_kind(value)}; a retriever returns a list of str or "
            "Document"
        )
    found: list[Document] = []
    for one in value:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(one, str):
            found.append(Document(one))
        elif isinstance(one, Document):
            found.append(one)
        else:
            raise PartError(
                f"the retriever {retriever} returned {_kind(one)} among its documents; it returns str or "  # pyright: ignore[reportUnknownArgumentType]
                "Document"
            )
    return tuple(found)


def _kind(value: object) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _is_storable(text: str) -> bool:
    return text.isascii() or text == _storable(text)


def _storable(text: str) -> str:
    """``text`` with lone surrogates, which no encoding can hold, made visible as U+FFFD.

    The text was paid for: one bad character must not lose it.
    """
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode() if _has_surrogate(text) else text


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
