"""The prompts a run sends for its own text, as pure functions of what its log holds (floor 2).

They are not stored: a thought's ``model_prompt`` is rebuilt from the same values, so a log grows with
what was produced and not with what was repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sifaka.thought import CriticFeedback, Document, Thought, ValidationResult

__all__ = ["context_of", "feedback_lines", "generation_prompt"]


def context_of(documents: Sequence[Document], parameters: Mapping[str, Any]) -> tuple[Document, ...]:
    """The documents that ``max_documents`` and ``max_context_chars`` leave, best first.

    The document that crosses the limit is cut at a word; those after it are left out.
    """
    kept = documents[: parameters.get("max_documents", len(documents))]
    room = parameters.get("max_context_chars")
    if room is None:
        return tuple(kept)
    cut: list[Document] = []
    for document in kept:
        if len(document.text) > room:
            whole = document.text[:room]
            text = whole.rpartition(" ")[0] or whole  # a text without spaces is cut where it must be
            if text:
                cut.append(Document(text, document.id, document.score, document.metadata))
            break
        cut.append(document)
        room -= len(document.text)
    return tuple(cut)


def feedback_lines(verdicts: Sequence[ValidationResult], feedback: Sequence[CriticFeedback]) -> list[str]:
    """What failed verdicts and unsatisfied critics said, one line each: the next draft's orders."""
    lines: list[str] = []
    for verdict in verdicts:
        if not verdict.passed and not verdict.skipped:
            said = [verdict.message, *verdict.issues, *verdict.suggestions]
            lines.append(f"- {verdict.validator}: {_joined(said)}")
    for one in feedback:
        if one.needs_improvement and not one.skipped:
            said = [one.message, *one.issues, *one.suggestions]
            lines.append(f"- {one.critic}: {_joined(said)}")
    return lines


def _joined(said: Sequence[str]) -> str:
    """The texts, without those that another one before them holds already."""
    kept: list[str] = []
    for text in (one.strip() for one in said):
        if text and not any(text in earlier for earlier in kept):
            kept.append(text)
    return "; ".join(kept)


def generation_prompt(
    prompt: str,
    documents: Sequence[Document],
    draft: Thought | None,
    parameters: Mapping[str, Any],
) -> str:
    """The whole prompt for the next text: the task, the context, and what was said of the draft.

    ``draft`` is the thought to improve on, None for a first text.
    """
    blocks = [prompt]
    context = context_of(documents, parameters)
    if context:
        numbered = (f"[{i}] {document.text}" for i, document in enumerate(context, 1))
        blocks.append("Context to draw on:\n" + "\n\n".join(numbered))
    if draft is not None:
        blocks.append(f"An earlier draft:\n{draft.text}")
        lines = feedback_lines(draft.validation_results, draft.critic_feedback)
        if lines:
            blocks.append("What has to change:\n" + "\n".join(lines))
        blocks.append("Write the improved text. Answer with the text alone.")
    return "\n\n".join(blocks)
