"""What the provider keeps and lets others look up: background responses and stored completions (floor 8).

Responses are kept when they are asked to be stored or work in the background; completions only when they
are asked to be stored.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import msgspec

from sifaka.testing.provider.formats import Event, Said
from sifaka.testing.provider.openai import RESPONSES
from sifaka.testing.provider.script import Received

__all__ = ["Asked", "Completions", "Found", "Responses", "Room", "Streamed", "missing", "page"]


class Streamed(NamedTuple):
    """A body that is sent as a stream of events."""

    events: list[Event]


class Asked(NamedTuple):
    """What was asked of a room: the request, its body as it came, and the server's address."""

    received: Received
    raw: bytes
    url: str


Found = tuple[int, Any]
"""A status and a body: bytes as they are, :class:`Streamed` as a stream, anything else as JSON."""


class Room:
    """A part of the provider's interface. ``routes`` are its methods and paths, and who answers them."""

    routes: ClassVar[tuple[tuple[str, str, Callable[..., Found]], ...]] = ()

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def ask(self, asked: Asked) -> Found | None:
        """The answer; None where the room has no such path."""
        for method, pattern, handler in self.routes:
            found = re.search(pattern, asked.received.path)
            if found and method == asked.received.method:
                with self.lock:
                    return handler(self, asked, *found.groups())
        return None


class _Response(msgspec.Struct):
    said: Said
    look_ups: int
    cancelled: bool = False


class Responses(Room):
    """OpenAI's responses, each found at work for as many look-ups as its answer says."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, _Response] = {}

    def keep(self, said: Said, look_ups: int) -> None:
        """Keep a response."""
        with self.lock:
            self._kept[RESPONSES.id(said.number)] = _Response(said, look_ups)

    def _one(self, asked: Asked, name: str) -> Found:
        kept = self._kept.get(name)
        query = asked.received.query
        if kept is None:
            return missing(f"Response with id '{name}' not found.")
        if kept.cancelled:
            return 200, RESPONSES.at_work(kept.said, "cancelled")
        if query.get("stream") == "true":
            after = int(query.get("starting_after", "-1"))
            left = [one for one in RESPONSES.events(kept.said) if one.data["sequence_number"] > after]
            return 200, Streamed(left)
        if kept.look_ups > 0:
            kept.look_ups -= 1
            return 200, RESPONSES.at_work(kept.said)
        return 200, RESPONSES.answer(kept.said)

    def _cancel(self, asked: Asked, name: str) -> Found:
        kept = self._kept.get(name)
        if kept is not None and kept.look_ups > 0:
            kept.cancelled = True
        return self._one(asked, name)

    routes = (
        ("GET", r"/responses/([\w-]+)$", _one),
        ("POST", r"/responses/([\w-]+)/cancel$", _cancel),
    )


class Completions(Room):
    """OpenAI's stored completions, listed by their metadata and model."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[dict[str, Any]] = []

    def keep(self, body: dict[str, Any]) -> None:
        """Keep a completion."""
        with self.lock:
            self._kept.append(body)

    def _list(self, asked: Asked) -> Found:
        query = asked.received.query
        wanted = {key[9:-1]: value for key, value in query.items() if key.startswith("metadata[")}
        rows = [
            one
            for one in self._kept
            if query.get("model") in {None, one["model"]}
            and all(one["metadata"].get(key) == value for key, value in wanted.items())
        ]
        return 200, page(rows[: int(query.get("limit", "20"))])

    def _one(self, _asked: Asked, name: str) -> Found:
        found = next((one for one in self._kept if one["id"] == name), None)
        return (200, found) if found else missing(f"No completion {name!r}.")

    routes = (
        ("GET", r"/chat/completions$", _list),
        ("GET", r"/chat/completions/([\w-]+)$", _one),
    )


def missing(message: str) -> Found:
    """That there is no such thing."""
    return 404, {"type": "error", "error": {"message": message, "type": "not_found_error", "code": None}}


def page(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as a list's only page."""
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"object": "list", "data": rows, "has_more": False, "first_id": first, "last_id": last}
