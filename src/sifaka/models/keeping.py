"""Calls whose answers the provider keeps, so that they can be looked up; the user opts in (floor 2).

Each way is a keeper. It adds to the request what makes the provider keep the answer, and finds the answer
again: by the provider's id, or by the name that the call was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from sifaka.errors import ModelError, ModelSpecError
from sifaka.models.asking import Ask
from sifaka.models.streams import Ear, listen
from sifaka.parts import Pending

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model as Backend

__all__ = ["CALL_KEY", "BackgroundResponses", "Keeper", "StoredCompletions", "keeper_of"]

CALL_KEY = "sifaka_call"
"""The metadata key under which a call's own name is kept."""

_BACKGROUND_POLL_S = 2.0


class Keeper(Protocol):
    """One way of a provider to keep answers."""

    accepts: frozenset[str]

    def taken(self, names: frozenset[str]) -> frozenset[str]:
        """The options that apply, of those the model takes otherwise."""
        ...

    async def send(
        self, backend: Backend, ask: Ask, ear: Ear | None, call_id: str
    ) -> ModelResponse | Pending:
        """Make the call; the response, or Pending when it is not there yet."""
        ...

    def later(self, handle: str) -> Pending | None:
        """What to wait for when an answer's connection is lost; None where the answer is lost with it."""
        ...

    async def look_up(
        self, backend: Backend, handle: str, call_id: str, ask: Ask
    ) -> ModelResponse | Pending | None:
        """What became of a call; None when the provider does not know of it."""
        ...


def keeper_of(
    spec: str, backend: Backend, *, background: bool, store: bool, deferred: bool, poll_s: float | None
) -> Keeper | None:
    """The keeper that the user asked for. Raises ModelSpecError where the provider has none of that kind."""
    if not (background or store or deferred):
        return None
    if deferred and (background or store):
        raise ModelSpecError(
            f"{spec!r}: a deferred call is kept by its batch; leave background and store out", spec
        )
    if deferred:
        return _deferred(spec, backend, poll_s)
    kind = type(backend).__name__
    if kind == "OpenAIResponsesModel":
        return BackgroundResponses(background, _BACKGROUND_POLL_S if poll_s is None else poll_s)
    if background and kind == "GoogleModel" and backend.system == "google":
        from sifaka.models.interactions import Interactions

        return Interactions(_BACKGROUND_POLL_S if poll_s is None else poll_s)
    if store and not background and hasattr(backend, "client") and _is_chat(backend):
        return StoredCompletions()
    wanted = "background" if background else "store"
    raise ModelSpecError(f"{spec!r} has no {wanted} mode; {_WHO[wanted]}", spec)


_WHO = {
    "background": "OpenAI has one in Responses (openai-responses:…), Google in its Interactions",
    "store": "OpenAI has one, in Responses and in Chat Completions",
    "deferred": "Anthropic, OpenAI (openai-responses:…) and Google have one",
}


def _is_chat(backend: Backend) -> bool:
    return type(backend).__name__ == "OpenAIChatModel"


def _deferred(spec: str, backend: Backend, poll_s: float | None) -> Keeper:
    if backend.batch_max_requests is None:
        raise ModelSpecError(f"{spec!r} has no deferred mode; {_WHO['deferred']}", spec)
    from sifaka.models.deferred import Batches

    return Batches(poll_s)


class BackgroundResponses:
    """OpenAI's Responses, kept by OpenAI for 30 days, and looked up by their id.

    In the background the answer is made to the end, whoever goes away meanwhile: so a stream that is cut
    after its first event becomes a look-up, not an error.
    """

    accepts: frozenset[str] = frozenset()

    def __init__(self, background: bool, poll_s: float) -> None:
        self._settings = {"openai_store": True, **({"openai_background": True} if background else {})}
        self._background = background
        self._poll_s = poll_s

    def taken(self, names: frozenset[str]) -> frozenset[str]:
        """All of them."""
        return names

    async def send(
        self, backend: Backend, ask: Ask, ear: Ear | None, call_id: str
    ) -> ModelResponse | Pending:
        """The response, or Pending with its id."""
        del call_id
        ask.settings = {**ask.settings, **self._settings}
        return self._known(await (request(backend, ask) if ear is None else listen(backend, ask, ear)))

    def later(self, handle: str) -> Pending | None:
        """In the background the work goes on."""
        return Pending(handle, self._poll_s) if self._background and handle else None

    async def look_up(
        self, backend: Backend, handle: str, call_id: str, ask: Ask
    ) -> ModelResponse | Pending | None:
        """By the response's id alone: OpenAI has no list of responses."""
        del call_id
        if not handle:
            return None
        from pydantic_ai.exceptions import SuspendedResponseExpired
        from pydantic_ai.messages import ModelResponse

        kept = ModelResponse(
            parts=[], state="suspended", provider_name=backend.system, provider_response_id=handle
        )
        ask.messages = [*ask.messages, kept]
        try:
            return self._known(await request(backend, ask), handle)
        except SuspendedResponseExpired:
            return None

    def _known(self, response: ModelResponse, handle: str = "") -> ModelResponse | Pending:
        name = response.provider_response_id or handle
        if response.state in ("suspended", "incomplete"):
            return Pending(name, self._poll_s)
        if (response.provider_details or {}).get("finish_reason") == "cancelled":
            raise ModelError(f"the response {name} was cancelled at the provider", kind="other")
        return response


class StoredCompletions:
    """OpenAI's stored Chat Completions, looked up by their id, or by the call's name in their metadata."""

    accepts = frozenset({"call_id"})

    def taken(self, names: frozenset[str]) -> frozenset[str]:
        """All of them."""
        return names

    async def send(
        self, backend: Backend, ask: Ask, ear: Ear | None, call_id: str
    ) -> ModelResponse | Pending:
        """The response: this interface has no background."""
        body = dict(ask.settings.get("extra_body") or {})
        if call_id:
            body["metadata"] = {**(body.get("metadata") or {}), CALL_KEY: call_id}
        ask.settings = {**ask.settings, "openai_store": True, **({"extra_body": body} if body else {})}
        return await (request(backend, ask) if ear is None else listen(backend, ask, ear))

    def later(self, handle: str) -> Pending | None:
        """None: whether an answer that was cut is stored is not known."""
        del handle
        return None

    async def look_up(
        self, backend: Backend, handle: str, call_id: str, ask: Ask
    ) -> ModelResponse | Pending | None:
        """By id where it is known, else by the name."""
        from openai import NotFoundError

        del ask
        known: Any = backend
        completions = known.client.chat.completions
        if handle:
            try:
                return _completion(known, await completions.retrieve(handle))
            except NotFoundError:
                pass
        if not call_id:
            return None
        page = await completions.list(metadata={CALL_KEY: call_id}, limit=1)
        return _completion(known, page.data[0]) if page.data else None


def _completion(backend: Any, completion: Any) -> ModelResponse:
    response: ModelResponse = backend._process_response(completion)
    return response


async def request(backend: Backend, ask: Ask) -> ModelResponse:
    """One request, not streamed."""
    from pydantic_ai.direct import model_request

    return await model_request(
        backend,
        ask.messages,
        model_settings=ask.settings,
        model_request_parameters=ask.parameters,
    )
