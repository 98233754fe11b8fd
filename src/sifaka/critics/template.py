"""Prompts with places to fill: checked when a critic is made, filled when it asks (floor 2).

Only the template is read for braces; what is filled in stands as it is, braces and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sifaka.errors import PartError
from sifaka.thought import Thought

__all__ = ["checked", "documents_block", "filled", "places_of", "verdicts_block"]


def checked(argument: str, template: str, places: Sequence[str], needed: Sequence[str] = ()) -> str:
    """``template``, if it can be filled: only ``places`` in braces, all of ``needed`` among them.

    Raises PartError, which names ``argument``.
    """
    try:
        found = places_of(template)
    except ValueError as error:
        raise _refused(argument, str(error), places) from error
    for place in found:
        if place not in places:
            raise _refused(argument, f"{{{place}}} cannot be filled", places)
    for place in needed:
        if place not in found:
            raise _refused(argument, f"{{{place}}} is missing", places)
    return template


def filled(template: str, values: Mapping[str, object]) -> str:
    """The prompt; ``values`` may hold more than the template has places for."""
    return template.format_map(values)


def verdicts_block(thought: Thought) -> str:
    """What the validators said of the text, one line each."""
    lines: list[str] = []
    for one in thought.validation_results:
        said = "; ".join(dict.fromkeys(text for text in (one.message, *one.issues) if text))
        outcome = "passed" if one.passed else "skipped" if one.skipped else "failed"
        lines.append(f"- {one.validator or 'a check'} {outcome}{f': {said}' if said else ''}")
    return "\n".join(lines) or "(none)"


def documents_block(thought: Thought) -> str:
    """The documents found for the text, numbered from 1."""
    found = thought.retrieved_documents
    return "\n\n".join(f"[{i}] {document.text}" for i, document in enumerate(found, 1)) or "(none)"


def places_of(template: str) -> set[str]:
    """The names in single braces. Raises ValueError for a brace that stands alone."""
    from string import Formatter

    places: set[str] = set()
    for _, place, form, conversion in Formatter().parse(template):
        if place is None:
            continue
        if form or conversion:
            raise ValueError(f"{{{place}}} has a format of its own")
        places.add(place)
    return places


def _refused(argument: str, why: str, places: Sequence[str]) -> PartError:
    listed = " ".join(f"{{{place}}}" for place in places)
    return PartError(f"{argument}: {why}; it may hold {listed}, and any other brace is written twice")
