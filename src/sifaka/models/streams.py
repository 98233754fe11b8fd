"""A streamed call: what is known of it is told as it comes, and a cut one is never taken for whole (floor 2).

The provider's id for the answer is in the first event, before any text. A stream counts as complete only when
the provider said why it ended; some libraries take the mere end of the bytes for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sifaka.errors import ModelError
from sifaka.models.asking import Ask
from sifaka.parts import Heard

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model as Backend

__all__ = ["CutStreamError", "Ear", "is_complete", "listen", "mark", "new_part"]


class CutStreamError(ModelError):
    """A stream ended without its last event: its text is not complete. ``partial`` is what came of it."""

    def __init__(self, name: str, heard: Heard) -> None:
        super().__init__(
            f"the stream ended before it was complete, after {len(heard.text)} characters of {name}"
        )
        self.partial = heard.text
        self.handle = heard.handle


class Ear:
    """Hears an answer grow, and tells who wants to know. ``last`` is what is known so far.

    Args:
        hear: is told at the first event, and whenever the text has grown.
        so_far: the text that stands before what is heard.
    """

    def __init__(self, hear: Callable[[Heard], None], so_far: str = "") -> None:
        self.last = Heard("", so_far)
        self._hear = hear
        self._so_far = so_far
        self._texts: dict[int, str] = {}

    def first(self, handle: str) -> None:
        """Take the provider's id for the call."""
        self._tell(Heard(handle, self._so_far))

    def event(self, event: Any) -> None:
        """Take the text of an event of pydantic-ai's, if it has one."""
        if event.event_kind == "part_start" and event.part.part_kind == "text":
            text = event.part.content
        elif event.event_kind == "part_delta" and event.delta.part_delta_kind == "text":
            text = self._texts.get(event.index, "") + event.delta.content_delta
        else:
            return
        if text != self._texts.get(event.index, ""):
            self._texts[event.index] = text
            whole = "".join(self._texts[place] for place in sorted(self._texts))
            self._tell(Heard(self.last.handle, self._so_far + new_part(whole, self._so_far)))

    def _tell(self, heard: Heard) -> None:
        self.last = heard
        self._hear(heard)


def new_part(text: str, so_far: str) -> str:
    """The text without the white space that was cut from the end of what it goes on from."""
    space = so_far[len(so_far.rstrip()) :]
    common = 0
    while common < min(len(space), len(text)) and text[common] == space[common]:
        common += 1
    return text[common:]


async def listen(backend: Backend, ask: Ask, ear: Ear) -> ModelResponse:
    """The whole response of a streamed call.

    Raises:
        CutStreamError: the stream ended, without an error but also without its last event.
        Exception: what pydantic-ai raised.
    """
    from pydantic_ai.direct import model_request_stream

    async with model_request_stream(
        backend,
        ask.messages,
        model_settings=ask.settings,
        model_request_parameters=ask.parameters,
    ) as stream:
        ear.first(await _first_id(stream))
        async for event in stream:
            ear.event(event)
        response = stream.get()
    if response.state != "suspended" and not is_complete(response):
        raise CutStreamError(backend.model_name, ear.last)
    return response


def mark(error: Exception, heard: Heard) -> None:
    """Leave what was heard with the error that ended it, as ``partial`` and ``handle``."""
    from contextlib import suppress

    told: Any = error
    with suppress(AttributeError):  # an exception may have a fixed set of attributes
        told.partial, told.handle = heard.text, heard.handle


async def _first_id(stream: Any) -> str:
    """The provider's id for the answer, from the first event, which pydantic-ai reads ahead of its own."""
    if stream.provider_response_id:
        return str(stream.provider_response_id)
    peek = getattr(getattr(stream, "_response", None), "peek", None)
    if peek is None:
        return ""
    first = await peek()
    holders = [first, *(getattr(first, name, None) for name in ("message", "response", "data"))]
    found = (getattr(one, name, None) for one in holders for name in ("id", "response_id"))
    return next((name for name in found if isinstance(name, str) and name), "")


def is_complete(response: ModelResponse) -> bool:
    """Whether the provider said why it ended; a normalised reason alone may be the library's own guess."""
    details = response.provider_details or {}
    return any(details.get(name) for name in ("finish_reason", "refusal", "block_reason"))
