"""The form of a judgement: a JSON schema for models that take one, words for all, and a type (floor 2).

The reasons come before the verdict, so that a model has named what is wrong before it decides. Texts
and lists have a limit: a small model that repeats itself would go on to the end of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sifaka.thought import CriticFeedback

__all__ = [
    "FORM",
    "SCHEMA",
    "TEXT",
    "TEXTS",
    "Judgement",
    "distinct",
    "feedback_of",
    "object_schema",
    "sure",
]

TEXT: dict[str, Any] = {"type": "string", "maxLength": 300}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT, "maxItems": 3}


def object_schema(**properties: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object that has all of ``properties`` and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMA = object_schema(
    issues=TEXTS,
    suggestions=TEXTS,
    needs_improvement={"type": "boolean"},
    message=TEXT,
    confidence={"type": "number"},
)

FORM = """\
Answer with a JSON object and nothing else. Its fields:
- "issues": a list of at most three texts; each names one problem. Empty if there is none.
- "suggestions": a list of at most three texts; each says how to mend one problem.
- "needs_improvement": true if the text has to change, else false.
- "message": a text; your judgement in one sentence.
- "confidence": a number from 0 to 1; how sure you are."""


class Judgement(msgspec.Struct, frozen=True):
    """A model's judgement, as it was asked for by :data:`SCHEMA` and :data:`FORM`."""

    needs_improvement: bool
    message: str = ""
    issues: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    confidence: float | None = None


def feedback_of(judgement: Judgement, *, repaired: bool) -> CriticFeedback:
    """One judgement as feedback."""
    said = judgement.message.strip() or "; ".join(judgement.issues)
    unsaid = "it needs improvement" if judgement.needs_improvement else "it needs no change"
    return CriticFeedback(
        needs_improvement=judgement.needs_improvement,
        message=said or unsaid,
        issues=distinct(judgement.issues),
        suggestions=distinct(judgement.suggestions),
        confidence=sure(judgement.confidence),
        metadata={"repaired": True} if repaired else {},
    )


def sure(confidence: float | None) -> float | None:
    """A confidence, if it is a number from 0 to 1: any other is a slip of the model's, and says nothing."""
    return confidence if confidence is not None and 0 <= confidence <= 1 else None


def distinct(texts: Sequence[str], limit: int | None = None) -> tuple[str, ...]:
    """The texts that say something, each once whatever its case, at most ``limit`` of them."""
    first: dict[str, str] = {}
    for text in map(str.strip, texts):
        if text:
            first.setdefault(text.casefold(), text)
    return tuple(first.values())[:limit]
