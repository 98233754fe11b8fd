"""What a provider double is told to do, and what it notes (floor 8).

A script is made of four behaviours: answer, refuse, hang, cut off. More of them can be added here
without a change to the script's shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sifaka.testing.formats import format_of

__all__ = [
    "Answer",
    "Behaviour",
    "Bill",
    "Cut",
    "Hang",
    "Received",
    "Refuse",
    "Script",
    "as_function",
]


class Answer(msgspec.Struct, frozen=True):
    """Answer with a text, and bill it.

    ``finish_reason`` is ``"stop"``, ``"length"``, ``"content_filter"`` or a provider's own word;
    ``model`` the name the reply bears, by default the one asked for. Tokens are counted as one for
    four bytes where they are not given.
    """

    text: str = "Lemurs leap."
    finish_reason: str = "stop"
    input_tokens: int | None = None
    output_tokens: int | None = None
    model: str | None = None


class Refuse(msgspec.Struct, frozen=True):
    """Answer with an error status, and bill nothing.

    ``body`` is sent as it is; without one, the format's usual error body is made from ``message``.
    """

    status: int
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    body: str | bytes | dict[str, Any] | None = None
    message: str = "refused by the script"


class Hang(msgspec.Struct, frozen=True):
    """Take the request and never answer it; ``billed`` says whether the work is charged."""

    billed: bool = False


class Cut(msgspec.Struct, frozen=True):
    """Bill the answer, send the first ``after_bytes`` bytes of the reply, and break the connection.

    The bytes are counted from the first one of the status line.
    """

    after_bytes: int
    answer: Answer = Answer()


Behaviour = Answer | Refuse | Hang | Cut


class Received(msgspec.Struct, frozen=True):
    """One request, as it arrived. ``number`` counts from 1; header names are lower-case."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def model(self) -> str:
        """The model that was asked for."""
        return str(self.body.get("model", ""))

    @property
    def prompt(self) -> str:
        """The last message, as one text."""
        return format_of(self.path).prompt(self.body)


class Bill(msgspec.Struct, frozen=True):
    """One line of the ledger: a request that was charged. ``time`` is in seconds since 1970."""

    number: int
    id: str
    path: str
    model: str
    input_tokens: int
    output_tokens: int
    time: float


Script = Behaviour | Sequence[Behaviour] | Callable[[Received], Behaviour]
"""One behaviour for all requests; or several in turn, the last of which goes on; or a function."""


def as_function(script: Script) -> Callable[[Received], Behaviour]:
    """The script, whatever its form, as a function of the request."""
    if isinstance(script, Answer | Refuse | Hang | Cut):
        return lambda _: script
    if callable(script):
        return script
    turns = tuple(script)
    return lambda received: turns[min(received.number, len(turns)) - 1]
