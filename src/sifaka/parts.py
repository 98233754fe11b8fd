"""What a user plugs in: protocols of the four parts, and what passes between them and the engine (floor 1).

A part is *one opaque call* when it is a plain method or callable. It is a *generator* when it needs
model calls of its own: it yields a :class:`Request` and is sent the :class:`Reply`, so that each of
its calls is recorded, priced and never repeated once answered::

    def critique(self, thought):
        reply = yield Request(f"Criticise: {thought.text}")
        return CriticFeedback(needs_improvement=True, message=reply.text)

A list of requests is made together, and answered by the list of their replies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from sifaka.thought import CriticFeedback, Document, Thought, ValidationResult

__all__ = [
    "Asking",
    "Critic",
    "Heard",
    "Model",
    "Pending",
    "Reply",
    "Request",
    "Retriever",
    "Usage",
    "Validator",
]


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True, gc=False):
    """Tokens of one call, as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a model answered.

    ``price_usd`` is None where it is unknown, never 0 for unknown. ``finish_reason`` is ``"stop"``,
    ``"length"``, ``"content_filter"`` or the provider's own word. ``not_applied`` names the options
    the model could not take.
    """

    text: str
    usage: Usage | None = None
    price_usd: float | None = None
    finish_reason: str = ""
    request_id: str = ""
    model: str = ""
    not_applied: tuple[str, ...] = ()


class Request(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A model call a part asks for. ``model`` is a bound model of the part's own, None for the chain's.

    ``options`` (``temperature``, ``max_tokens``, ``json_schema``, …) go to the model as keywords.
    """

    prompt: str
    system_prompt: str | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    model: Any = None


class Heard(msgspec.Struct, frozen=True, gc=False):
    """What is known of a call under way: the provider's id for it, and the whole text so far."""

    handle: str = ""
    text: str = ""


class Pending(msgspec.Struct, frozen=True, gc=False):
    """A model's answer that is not there yet: look it up by ``handle``, after ``again_s`` seconds."""

    handle: str
    again_s: float = 1.0


Asking = Generator[
    Request | Sequence[Request],
    Any,
    CriticFeedback | ValidationResult | Sequence[str | Document],
]
"""A part that asks models: yields a request and is sent its reply, or a list and is sent theirs, in order;
returns what a plain part returns."""


@runtime_checkable
class Model(Protocol):
    """Turns a prompt into a text.

    Optional beside it: ``agenerate`` (async), ``name`` (``"provider:model"``), ``provider`` (what its
    failures are counted for), ``accepts`` (names of the options it takes) and
    ``price_max_usd(prompt, options) -> float | None`` (the most a call can cost, before it is made).

    Three names in ``accepts`` are the engine's to give, not the user's: ``hear``, a function that is called
    with a :class:`Heard` while the answer streams in, from any thread; ``call_id``, a name for the call that
    no other has; ``continue_from``, the text so far of a call that was cut, which the model goes on from,
    answering with the rest alone.

    Where an answer can be had later, ``generate`` may return :class:`Pending`, and
    ``look_up(handle, call_id) -> Reply | Pending | None`` finds what became of a call; None is no proof
    that it was never made. ``models`` makes it a choice among models: the engine asks the first that answers.
    ``as_deferred()`` gives its twin that asks in batches; ``sibling(spec)`` another model with its settings.
    """

    def generate(
        self, prompt: str, **options: Any
    ) -> str | Reply | Pending | Awaitable[str | Reply | Pending]:
        """The model's answer; ``options`` are ``system_prompt``, ``temperature`` and so on."""
        ...


@runtime_checkable
class Retriever(Protocol):
    """Finds documents for a query."""

    def retrieve(self, query: str) -> Sequence[str | Document] | Awaitable[Sequence[str | Document]]:
        """The documents, best first."""
        ...


@runtime_checkable
class Validator(Protocol):
    """Judges a thought's text. ``pure = True`` says that it costs nothing and calls nobody."""

    @property
    def name(self) -> str:
        """Unique within the chain."""
        ...

    def validate(self, thought: Thought) -> ValidationResult | Asking | Awaitable[ValidationResult]:
        """The verdict."""
        ...


@runtime_checkable
class Critic(Protocol):
    """Says what would make a thought's text better."""

    @property
    def name(self) -> str:
        """Unique within the chain."""
        ...

    def critique(
        self, thought: Thought
    ) -> CriticFeedback | dict[str, Any] | Asking | Awaitable[CriticFeedback | dict[str, Any]]:
        """The feedback."""
        ...
