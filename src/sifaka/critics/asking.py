"""What the critics share: a name, a model, options, how they ask, and how they read (floor 2)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from sifaka.critics.reading import read
from sifaka.critics.template import checked, documents_block, filled, places_of, verdicts_block
from sifaka.errors import ModelError
from sifaka.parts import Reply, Request
from sifaka.thought import CriticFeedback, Thought

__all__ = ["PLACES", "AskingCritic", "Questions", "readable"]

_Form = TypeVar("_Form", bound=msgspec.Struct)

PLACES = ("prompt", "text", "verdicts", "documents", "form")
"""What every prompt of these critics may hold in braces."""

Questions = Generator[Request | Sequence[Request], Any, CriticFeedback]
"""What ``critique`` is: it yields requests, is sent replies, and returns the feedback."""


class AskingCritic:
    """A critic that asks ``model`` (None: the chain's own), with ``options`` over the chain's."""

    def __init__(self, model: object, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.model = model
        self._options = dict(options)

    def template(self, argument: str, template: str, *more: str, needed: Sequence[str] = ("text",)) -> str:
        """``template``, checked, with ``{form}`` at its end where it has none. Raises PartError."""
        checked(argument, template, (*PLACES, *more), needed)
        return template if "form" in places_of(template) else f"{template.rstrip()}\n\n{{form}}"

    def request(
        self, template: str, thought: Thought, form: str, schema: Mapping[str, Any], **values: object
    ) -> Request:
        """The question of ``template`` about ``thought``, to be answered by ``schema``."""
        places = {
            "prompt": thought.prompt,
            "text": thought.text,
            "form": form,
            "verdicts": verdicts_block(thought) if "{verdicts}" in template else "",
            "documents": documents_block(thought) if "{documents}" in template else "",
            **values,
        }
        options = {**self._options, "json_schema": dict(schema)}
        return Request(filled(template, places), options=options, model=self.model)

    def read(self, reply: Reply, form: type[_Form]) -> tuple[_Form, bool]:
        """The answer, and whether it had to be repaired. Raises ModelError."""
        return read(reply, form, self.name)


def readable(
    critic: AskingCritic, replies: object, form: type[_Form]
) -> tuple[list[tuple[int, _Form]], dict[str, Any]]:
    """Those of many answers that can be read, each with its number, and what has to be said of the others.

    Raises the first one's ModelError where none can be read.
    """
    good: list[tuple[int, _Form]] = []
    bad: list[ModelError] = []
    repaired = False
    for number, reply in enumerate(cast("Iterable[Reply]", replies)):
        try:
            answer, mended = critic.read(reply, form)
        except ModelError as error:
            bad.append(error)
        else:
            good.append((number, answer))
            repaired |= mended
    if not good:
        raise bad[0]
    said: dict[str, Any] = {"repaired": True} if repaired else {}
    return good, {**said, "unread": len(bad)} if bad else said
