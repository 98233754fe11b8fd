"""The providers' wire formats, as the provider double writes them (floor 8).

A format turns an answer or a refusal into a body, and an answer into the events of a stream. Where a
request goes decides its format.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

__all__ = ["UNKNOWN", "Event", "Format", "Said", "format_of", "pieces", "register"]


class Said(NamedTuple):
    """What an answer's body is made of; ``request`` is the body of the call."""

    number: int
    model: str
    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    request: dict[str, Any]
    created: int


class Event(NamedTuple):
    """One event of a stream. ``tokens`` are those of the answer's that it carries."""

    data: Any
    name: str = ""
    tokens: int = 0


class Format:
    """One provider's way to answer and to refuse."""

    id_prefix = "call"
    request_id_header = "request-id"

    def id(self, number: int) -> str:
        """The response's id."""
        return f"{self.id_prefix}_{number:06d}"

    def answer(self, said: Said) -> dict[str, Any]:
        """The body of an answer."""
        raise NotImplementedError

    def events(self, said: Said) -> list[Event]:
        """A streamed answer, from its first event to its last."""
        raise NotImplementedError

    def failed(self, message: str) -> Event:
        """The event that says, inside a stream, that the provider is overloaded."""
        raise NotImplementedError

    def refusal(self, status: int, message: str) -> dict[str, Any]:
        """The body of an error."""
        kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def limits(self, most: int, left: int, wait_s: float, full: str) -> dict[str, str]:
        """The headers that tell of a limit on requests.

        ``left`` of ``most`` may be sent at once; the next after ``wait_s`` seconds; ``full`` says, as an
        RFC 3339 time, when all of them may be sent again.
        """
        del most, left, wait_s, full
        return {}

    def prompt(self, body: dict[str, Any]) -> str:
        """The last message of the user, as one text."""
        messages: list[dict[str, Any]] = body.get("messages") or [{}]
        asked = [one for one in messages if one.get("role") == "user"] or messages
        return text_of(asked[-1].get("content"))


def pieces(said: Said) -> list[tuple[str, int]]:
    """The answer in pieces of a word, each with the tokens it stands for."""
    words: list[str] = re.findall(r"\S+\s*|\s+", said.text)
    whole = len(said.text) or 1
    found: list[tuple[str, int]] = []
    chars = counted = 0
    for word in words:
        chars += len(word)
        by_now = -(-said.output_tokens * chars // whole)
        found.append((word, by_now - counted))
        counted = by_now
    return found


def text_of(content: Any) -> str:
    """A message's content, which is a text or a list of parts with a text in each."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


_ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}

UNKNOWN = Format()
"""For any other path: it can refuse, but has no answer."""

_BY_END: dict[str, Format] = {}


def register(end: str, form: Format) -> None:
    """Answer what is posted to paths of that end in that format."""
    _BY_END[end] = form


def format_of(path: str) -> Format:
    """The format of what goes to ``path``, whatever comes before its end; of look-ups and batches too."""
    for end, form in _BY_END.items():
        if path.endswith(end) or f"{end}/" in path:
            return form
    return UNKNOWN
