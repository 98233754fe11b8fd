"""Calls through a provider's batches: about half the price, for those who can wait (floor 2).

What is asked within a moment goes out as one batch, whatever chain it comes from. A call is known by its
batch's id and its own name inside; where the batch's id was lost, the recent batches are searched for the
name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextvars import Context
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sifaka.errors import ModelError
from sifaka.models.asking import Ask
from sifaka.models.streams import Ear
from sifaka.parts import Pending

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model as Backend
    from pydantic_ai.models.batch import Batch, BatchResult, EncodedBatchRequest

__all__ = ["Batches"]

WINDOW_S = 0.2
"""How long the first call of a batch waits for others, in seconds."""

_POLL_S = 60.0
_RECENT_S = 25 * 3600.0  # a batch ends within a day
_SEARCHED = 20
_SOMEWHERE = "?"
_KEPT = 8


class Batches:
    """Anthropic's, OpenAI's and Google's batches. ``poll_s`` is the time between look-ups, in seconds."""

    accepts = frozenset({"call_id"})

    def __init__(self, poll_s: float | None) -> None:
        self._poll_s = _POLL_S if poll_s is None else poll_s
        self._results: dict[str, dict[str, BatchResult]] = {}

    def taken(self, names: frozenset[str]) -> frozenset[str]:
        """All but the time limit and the headers: a batch has one of each for all of its calls."""
        return names - {"timeout_s", "extra_headers"}

    async def send(
        self, backend: Backend, ask: Ask, ear: Ear | None, call_id: str
    ) -> ModelResponse | Pending:
        """Always Pending; its handle is ``batch/name``."""
        name = _name_of(call_id)
        batch = await _together(backend, await backend.batch_encode(_request(ask, name)))
        handle = f"{batch.id}/{name}"
        if ear is not None:
            ear.first(handle)
        return Pending(handle, self._poll_s)

    def later(self, handle: str) -> Pending | None:
        """A batch that was made goes on."""
        return Pending(handle, self._poll_s) if handle else None

    async def look_up(
        self, backend: Backend, handle: str, call_id: str, ask: Ask
    ) -> ModelResponse | Pending | None:
        """By the handle, else by the call's name among the batches of the last day.

        Raises:
            ModelError: of kind ``overloaded``, when the batch expired before the call was made.
            Exception: what the call failed with inside the batch.
        """
        batch_id, _, name = handle.rpartition("/")
        name = name or (_name_of(call_id) if call_id else "")
        if not name:
            return None
        if batch_id and batch_id != _SOMEWHERE:
            return await self._in_batch(backend, batch_id, name, ask)
        return await self._anywhere(backend, name, ask)

    async def _anywhere(self, backend: Backend, name: str, ask: Ask) -> ModelResponse | Pending | None:
        at_work = False
        async for batch_id in _recent(backend):
            found = await self._in_batch(backend, batch_id, name, ask)
            if isinstance(found, Pending):
                at_work = True  # what is in it is not told before it has ended
            elif found is not None:
                return found
        return Pending(f"{_SOMEWHERE}/{name}", self._poll_s) if at_work else None

    async def _in_batch(
        self, backend: Backend, batch_id: str, name: str, ask: Ask
    ) -> ModelResponse | Pending | None:
        results = self._results.get(batch_id)
        if results is None:
            batch = await _status(backend, batch_id, ask)
            if batch is None:
                return None
            if batch.status != "ended":
                return Pending(f"{batch_id}/{name}", self._poll_s)
            results = {one.custom_id: one for one in await backend.batch_results(batch)}
            self._remember(batch_id, results)
        found = results.get(name)
        return None if found is None else _decoded(backend, found, _request(ask, name))

    def _remember(self, batch_id: str, results: dict[str, BatchResult]) -> None:
        """A batch's results are fetched once for all of its calls."""
        self._results[batch_id] = results
        while len(self._results) > _KEPT:
            del self._results[next(iter(self._results))]


def _decoded(backend: Backend, result: BatchResult, request: Any) -> ModelResponse:
    if result.status == "expired":
        raise ModelError(
            "the batch expired before the model came to the call; it was not billed", kind="overloaded"
        )
    if result.status == "canceled":
        raise ModelError("the batch was cancelled before the model came to the call", kind="other")
    return backend.batch_decode(result, request)


def _request(ask: Ask, name: str) -> Any:
    from pydantic_ai.models.batch import BatchRequest

    # A batch has no time limit and no retry of its own for each call.
    settings: Any = {key: one for key, one in ask.settings.items() if key not in ("timeout", "max_retries")}
    return BatchRequest(
        custom_id=name,
        messages=ask.messages,
        model_settings=settings,
        model_request_parameters=_with_instructions(ask),
    )


def _with_instructions(ask: Ask) -> Any:
    """The parameters, with the system prompt where the models read it."""
    from dataclasses import replace

    from pydantic_ai.messages import InstructionPart

    told = ask.messages[0].instructions
    return (
        replace(ask.parameters, instruction_parts=[InstructionPart(content=told)]) if told else ask.parameters
    )


def _name_of(call_id: str) -> str:
    """A call's name as batches allow it: letters, digits, ``_`` and ``-``, at most 64."""
    if not call_id:
        from uuid import uuid4

        return uuid4().hex
    if re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call_id):
        return call_id
    from hashlib import blake2b

    return blake2b(call_id.encode("utf-8", "replace"), digest_size=16).hexdigest()


async def _status(backend: Backend, batch_id: str, ask: Ask) -> Batch | None:
    from datetime import UTC, datetime

    from pydantic_ai.exceptions import ModelHTTPError
    from pydantic_ai.models.batch import Batch

    encoded = await backend.batch_encode(_request(ask, "group"))
    known = Batch(
        id=batch_id,
        model_name=backend.model_name,
        provider_name=backend.system,
        group=encoded.group,
        status="in_progress",
        created_at=datetime.fromtimestamp(0, UTC),
        request_count=0,
    )
    try:
        return await backend.batch_status(known)
    except ModelHTTPError as error:
        if error.status_code == 404:
            return None
        raise


async def _recent(backend: Any) -> AsyncIterator[str]:
    """The ids of the last batches of the account, newest first; none where the provider cannot list them."""
    from time import time

    kind = type(backend).__name__
    if kind == "AnthropicModel":
        page = await backend.client.beta.messages.batches.list(limit=_SEARCHED)
    elif kind == "OpenAIResponsesModel":
        page = await backend.client.batches.list(limit=_SEARCHED)
    else:
        return
    for batch in page.data:
        made = batch.created_at
        if time() - (made if isinstance(made, int | float) else made.timestamp()) < _RECENT_S:
            yield batch.id


# ---- one batch for all that is asked within a moment


class _Window:
    """The calls of a batch that is not sent yet."""

    def __init__(self) -> None:
        self.requests: list[EncodedBatchRequest] = []
        self.bytes = 0
        self.sent = False
        self.made: asyncio.Future[Batch] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.Task[None] | None = None

    def has_room(self, backend: Backend, request: EncodedBatchRequest) -> bool:
        most, most_bytes = backend.batch_max_requests, backend.batch_max_bytes
        return (
            not self.sent
            and (most is None or len(self.requests) < most)
            and (most_bytes is None or self.bytes + backend.batch_request_size(request) <= most_bytes)
            and all(one.custom_id != request.custom_id for one in self.requests)
        )


_Windows = dict[tuple[int, str], _Window]
_windows: WeakKeyDictionary[asyncio.AbstractEventLoop, _Windows] = WeakKeyDictionary()
"""The open windows of each loop: there is one loop a process, and a forked child has another."""


async def _together(backend: Backend, request: EncodedBatchRequest) -> Batch:
    """Join the open window, or open one; the batch that it became. All in one thread: no lock is needed."""
    windows = _windows.setdefault(asyncio.get_running_loop(), {})
    key = (id(backend), request.group)
    window = windows.get(key)
    if window is None or not window.has_room(backend, request):
        window = windows[key] = _Window()
        # Not in the context of the call that happens to be the first: the batch is everybody's.
        window.timer = asyncio.create_task(_send_later(backend, windows, key, window), context=Context())
    window.requests.append(request)
    window.bytes += backend.batch_request_size(request)
    try:
        return await asyncio.shield(window.made)
    except asyncio.CancelledError:
        if not window.sent:
            window.requests.remove(request)
        raise


async def _send_later(backend: Backend, windows: _Windows, key: tuple[int, str], window: _Window) -> None:
    await asyncio.sleep(WINDOW_S)
    window.sent = True
    if windows.get(key) is window:
        del windows[key]
    if not window.requests:
        window.made.cancel()
        return
    try:
        window.made.set_result(await backend.batch_create(window.requests))
    except Exception as error:  # noqa: BLE001 - it is raised in each of the calls that wait
        window.made.set_exception(error)
        window.made.exception()  # asked for, in case that all who waited have gone
