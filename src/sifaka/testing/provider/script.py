"""What a provider double is told to do, and what it notes (floor 8).

A script is made of seven behaviours: answer, refuse, be overloaded, hang, cut off, send raw bytes, and
throttle by a token bucket. All of them are values, except the bucket, which has to remember.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sifaka.testing.provider.formats import format_of

__all__ = [
    "CALL_KEY",
    "Answer",
    "Behaviour",
    "Bill",
    "Cut",
    "Hang",
    "Overload",
    "Raw",
    "Received",
    "Refuse",
    "Script",
    "as_function",
]

CALL_KEY = "sifaka_call"
"""The metadata key under which a request says which call of its sender it is."""


class Answer(msgspec.Struct, frozen=True):
    """Answer with a text, and bill it; streamed where the request asks for it, a piece a word.

    ``finish_reason`` is ``"stop"``, ``"length"``, ``"content_filter"`` or a provider's own word;
    ``model`` the name the reply bears, by default the one asked for. Tokens are counted as one for
    four bytes where they are not given. ``look_ups`` says how many look-ups of a background response or
    of a batch still find it at work.
    """

    text: str = "Lemurs leap."
    finish_reason: str = "stop"
    input_tokens: int | None = None
    output_tokens: int | None = None
    model: str | None = None
    look_ups: int = 0
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class Refuse(msgspec.Struct, frozen=True):
    """Answer with an error status, and bill nothing.

    ``body`` is sent as it is; without one, the format's usual error body is made from ``message``.
    """

    status: int
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    body: str | bytes | dict[str, Any] | None = None
    message: str = "refused by the script"


class Overload(msgspec.Struct, frozen=True):
    """Be overloaded: at once, with ``status`` and no bill, or inside a stream that began with a 200.

    With ``after_pieces`` a streamed reply sends that many pieces of the answer, bills them, and ends
    with the format's error event. A request that is not streamed gets the status in any case.
    """

    status: int = 529
    after_pieces: int | None = None
    answer: Answer = Answer()
    message: str = "Overloaded"


class Hang(msgspec.Struct, frozen=True):
    """Take the request and fall silent; ``billed`` says whether the work is charged.

    With ``after_pieces`` a streamed reply first sends its head and that many pieces of the answer,
    which are billed.
    """

    billed: bool = False
    after_pieces: int | None = None
    answer: Answer = Answer()


class Cut(msgspec.Struct, frozen=True):
    """Send the first ``after_bytes`` bytes of the reply, billed before that, and break the connection.

    The bytes are counted from the first one of the status line. A whole answer is billed in full, and
    a stream by the pieces that were begun, unless it works in the background, where it goes on.
    ``clean`` ends a stream as if it were complete, but without what was to follow.
    """

    after_bytes: int
    answer: Answer = Answer()
    clean: bool = False


class Raw(msgspec.Struct, frozen=True):
    """Send these bytes as the body, as they are, and bill a call: bad JSON, or nothing at all."""

    body: str | bytes = b""
    status: int = 200
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    billed: bool = True


Behaviour = Answer | Refuse | Overload | Hang | Cut | Raw


class Received(msgspec.Struct, frozen=True):
    """One request, as it arrived. ``number`` counts from 1; header names are lower-case.

    ``custom_id`` is set for a call that came inside a batch; ``query`` has a look-up's parameters.
    """

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    method: str = "POST"
    query: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    custom_id: str = ""

    @property
    def model(self) -> str:
        """The model that was asked for."""
        return str(self.body.get("model", ""))

    @property
    def prompt(self) -> str:
        """The last message, as one text."""
        return format_of(self.path).prompt(self.body)

    @property
    def call_id(self) -> str:
        """The sender's id of the call, from a batch or from the request's metadata; else empty."""
        metadata = self.body.get("metadata")
        named = metadata.get(CALL_KEY) if isinstance(metadata, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - anything may be sent
        return self.custom_id or (named if isinstance(named, str) else "")


class Bill(msgspec.Struct, frozen=True):
    """One line of the ledger: a call that was charged. ``time`` is in seconds since 1970.

    ``call_id`` is the sender's own id of the call where it gave one; ``batch`` says that the price is a
    batch's.
    """

    number: int
    id: str
    path: str
    model: str
    input_tokens: int
    output_tokens: int
    time: float
    call_id: str = ""
    batch: bool = False


Script = Behaviour | Sequence[Behaviour] | Callable[[Received], Behaviour]
"""One behaviour for all requests; or several in turn, the last of which goes on; or a function."""


def as_function(script: Script) -> Callable[[Received], Behaviour]:
    """The script, whatever its form, as a function of the request."""
    if isinstance(script, Answer | Refuse | Overload | Hang | Cut | Raw):
        return lambda _: script
    if callable(script):
        return script
    turns = tuple(script)
    return lambda received: turns[min(received.number, len(turns)) - 1]
