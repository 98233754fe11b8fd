"""HTTP replies as bytes: a whole one, and a stream whose every event is a chunk (floor 8).

A reply is made in full before its first byte is sent, so that it can be billed first, cut at any byte, and
written together with its head in one go: in two, the second waits for the client's delayed answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

import msgspec

from sifaka.testing.provider.formats import Event

__all__ = ["Sending", "Stream", "body_of", "whole"]


class Sending(NamedTuple):
    """What to write, and what to do then: ``keep`` the connection, ``break`` it, or ``wait``."""

    data: bytes
    then: str = "keep"


def body_of(given: Any) -> bytes:
    """Bytes and texts as they are, all else as JSON."""
    if isinstance(given, str):
        return given.encode()
    return given if isinstance(given, bytes) else msgspec.json.encode(given)


def whole(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """A reply whose length is stated in its head."""
    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    return _head(status, fields) + body


class Stream:
    """A streamed reply: its head, then a chunk for each event, then the empty chunk that ends it."""

    end = b"0\r\n\r\n"

    def __init__(self, headers: Mapping[str, str], events: Sequence[Event]) -> None:
        fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **headers}
        self.head = _head(200, fields)
        self.events = list(events)
        self.chunks = [_chunk(event) for event in self.events]

    @property
    def data(self) -> bytes:
        """All of it."""
        return self.head + b"".join(self.chunks) + self.end

    def until_piece(self, pieces: int) -> bytes:
        """The head and what comes before the piece after so many, without an end."""
        return self.head + b"".join(self.chunks[: self._events_until(pieces)])

    def tokens_until_piece(self, pieces: int) -> int:
        """The tokens of so many pieces."""
        return sum(event.tokens for event in self.events[: self._events_until(pieces)])

    def tokens_before(self, byte: int) -> int:
        """The tokens of the pieces that were begun before a byte of the reply."""
        begun = len(self.head)
        tokens = 0
        for event, chunk in zip(self.events, self.chunks, strict=True):
            if begun >= byte:
                break
            tokens += event.tokens
            begun += len(chunk)
        return tokens

    def _events_until(self, pieces: int) -> int:
        places = [place for place, event in enumerate(self.events) if event.tokens]
        if pieces < 1:
            return places[0] if places else len(self.events)
        return places[min(pieces, len(places)) - 1] + 1 if places else len(self.events)


def _chunk(event: Event) -> bytes:
    data = event.data if isinstance(event.data, str) else msgspec.json.encode(event.data).decode()
    named = f"event: {event.name}\n" if event.name else ""
    text = f"{named}data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    reason = BaseHTTPRequestHandler.responses.get(status, ("",))[0]  # 529 is no registered status
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
