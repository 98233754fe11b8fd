"""Any provider pydantic-ai knows, as a model of ours; one attempt is one request (floor 2).

Errors come out as the provider's library raised them, with their chain, status and headers: what
they mean is decided by :mod:`sifaka.faults`. Only the deadline ``timeout_s`` is enforced here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from sifaka.errors import ModelError
from sifaka.models import asking, connect, keeping, known, loop, pricing, streams
from sifaka.models.options import ENGINE, check_settings, settle, with_aliases
from sifaka.parts import Heard, Pending, Reply, Usage

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model as Backend

__all__ = ["KeptModel", "ProviderModel", "open_provider"]

_CONNECTION = frozenset({"base_url", "api_key"})
_KEEPING = frozenset({"background", "store", "deferred", "poll_s"})

_FRAME_TOKENS = 64
"""Allowance for what a provider puts around the prompts: roles, separators, its own sentences."""

_NO_PREFILL = (4, 6)
"""From this version on, Claude models refuse a conversation that ends with the assistant's own words."""


def open_provider(provider: str, name: str, settings: Mapping[str, Any]) -> ProviderModel:
    """The model of ``provider:name``. Raises what :func:`sifaka.models.base.create_model` says."""
    spec = f"{provider}:{name}"
    if not name:
        raise known.no_provider(provider)
    check_settings(spec, settings, _CONNECTION | _KEEPING)
    kept = any(settings.get(one) for one in ("background", "store", "deferred"))
    model = KeptModel(spec, settings) if kept else ProviderModel(spec, settings)
    if not known.served_today(provider, name):
        _warn_retired(provider, name)
    return model


def _warn_retired(provider: str, name: str) -> None:
    from sifaka.models.base import RetiredModelWarning

    nearest = known.nearest_model(provider, name)
    instead = f" Nearest today: '{nearest}'." if nearest else ""
    warnings.warn(
        f"{provider} is not known to serve {name!r} today: it may be retired, misspelt, or newer "
        f"than the installed pydantic-ai.{instead} The name is sent as it is",
        RetiredModelWarning,
        stacklevel=4,  # the line that calls create_model
    )


class ProviderModel:
    """A model at a provider. Made by :func:`sifaka.models.base.create_model`.

    ``name`` is the spec and ``provider`` its first part. ``accepts`` has the names of the options it can
    take; others are named in ``Reply.not_applied``. It may be used from any thread, event loop and forked
    child; pickled, it takes its settings along, an ``api_key`` among them.
    """

    def __init__(self, spec: str, settings: Mapping[str, Any]) -> None:
        self.name = spec
        self.provider, _, self._model_name = spec.partition(":")
        self._settings = dict(settings)
        self._defaults = {k: v for k, v in settings.items() if k not in _CONNECTION | _KEEPING}
        self._bound = self._connected()
        self._keeper = keeping.keeper_of(
            spec,
            self._bound[1],
            background=bool(settings.get("background")),
            store=bool(settings.get("store")),
            deferred=self.deferred,
            poll_s=settings.get("poll_s"),
        )
        self.accepts = self._taken(None) | self._engines()

    def __repr__(self) -> str:
        return f"create_model({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self._settings)

    @property
    def deferred(self) -> bool:
        """Whether its calls go through the provider's batches."""
        return bool(self._settings.get("deferred"))

    def as_deferred(self) -> ProviderModel:
        """This model, with its calls through the provider's batches. Raises ModelSpecError."""
        return self if self.deferred else KeptModel(self.name, {**self._settings, "deferred": True})

    def sibling(self, spec: str) -> ProviderModel:
        """Another model of this provider, with the settings of this one. Raises ModelSpecError."""
        return type(self)(spec, self._settings)

    def generate(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        **more: Any,
    ) -> Reply | Pending:
        """The model's answer; blocks, also where an event loop runs in the calling thread.

        ``timeout_s`` is for the whole call, in seconds. Claude models need a ``max_tokens``: 16,384
        where none is given, and 4,096 for old models. ``more`` are other options, and what a chain gives:
        ``hear`` makes it a streamed call. In background and deferred mode it may return Pending.

        Raises:
            ModelError: of kind ``timeout``, when ``timeout_s`` is over; of kind ``truncated``, when a
                stream ended without its last event.
            Exception: what pydantic-ai or the provider's library raised; from a streamed call with what
                was heard as its ``partial``.
        """
        given = {
            "system_prompt": system_prompt,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "timeout_s": timeout_s,
            **more,
        }
        return loop.run(self._ask(prompt, given))

    async def agenerate(self, prompt: str, **options: Any) -> Reply | Pending:
        """As :meth:`generate`, without blocking the event loop; cancelling it drops the request."""
        return await loop.arun(self._ask(prompt, options))

    def price_max_usd(self, prompt: str, options: Mapping[str, Any]) -> float | None:
        """The most a call with these options can cost, in US dollars; None where it is unknown.

        A token is at least one byte of the prompts. The answer is bounded by ``max_tokens``, else
        by all that the model can hold.
        """
        backend = self._backend()
        applied, _ = settle(self._defaults, options, self.accepts)
        read = [prompt, *(str(applied.get(name) or "") for name in ("system_prompt", "continue_from"))]
        read.append(str(applied.get("json_schema") or ""))
        input_tokens = sum(len(text.encode("utf-8", "replace")) for text in read) + _FRAME_TOKENS
        output_tokens = asking.max_tokens(backend, applied) or pricing.context_window(backend)
        if output_tokens is None or "extra_body" in applied:
            return None
        return pricing.price_max_usd(backend, input_tokens, output_tokens, batch=self.deferred)

    async def _ask(self, prompt: str, given: Mapping[str, Any]) -> Reply | Pending:
        backend = self._backend()
        theirs = {name: value for name, value in given.items() if name in ENGINE and name in self.accepts}
        given = {name: value for name, value in given.items() if name not in theirs}
        taken = self._taken(given.get("thinking", self._defaults.get("thinking")))
        applied, not_applied = settle(self._defaults, given, taken)
        so_far: str = theirs.get("continue_from") or ""
        ask = asking.make_ask(backend, prompt, applied, so_far.rstrip())
        hear: Callable[[Heard], None] | None = theirs.get("hear")
        ear = None if hear is None else streams.Ear(hear, so_far)
        sent = self._send(backend, ask, ear, theirs.get("call_id") or "")
        try:
            response = await self._in_time(applied.get("timeout_s"), sent)
        except Exception as error:
            if ear is None:
                raise
            later = None if self._keeper is None else self._keeper.later(ear.last.handle)
            if later is not None and _is_cut(error):
                return later
            streams.mark(error, ear.last)
            raise
        if isinstance(response, Pending):
            return response
        return self._reply(response, backend, not_applied, so_far)

    async def _send(
        self, backend: Backend, ask: asking.Ask, ear: streams.Ear | None, call_id: str
    ) -> ModelResponse | Pending:
        if self._keeper is not None:
            return await self._keeper.send(backend, ask, ear, call_id)
        if ear is not None:
            return await streams.listen(backend, ask, ear)
        return await keeping.request(backend, ask)

    async def _in_time(self, timeout_s: float | None, work: Any) -> Any:
        import asyncio

        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                return await work
        except TimeoutError as error:
            if not deadline.expired():
                raise
            message = f"{self.name} did not answer within {timeout_s:g} s; raise timeout_s"
            raise ModelError(message, kind="timeout") from error

    def _reply(
        self, response: ModelResponse, backend: Backend, not_applied: tuple[str, ...], so_far: str = ""
    ) -> Reply:
        usage = response.usage
        return Reply(
            text=streams.new_part(response.text or "", so_far),
            usage=Usage(usage.input_tokens, usage.output_tokens) if usage.has_values() else None,
            price_usd=pricing.price_usd(response, backend),
            finish_reason=response.finish_reason or _raw_finish_reason(response),
            request_id=response.provider_response_id or "",
            model=f"{self.provider}:{response.model_name or self._model_name}",
            not_applied=not_applied,
        )

    def _taken(self, thinking: Any) -> frozenset[str]:
        """The user's options that apply."""
        names = asking.accepted(self._backend(), thinking)
        return with_aliases(names if self._keeper is None else self._keeper.taken(names))

    def _engines(self) -> frozenset[str]:
        """What the engine may give."""
        names: frozenset[str] = frozenset() if self.deferred else frozenset({"hear"})
        if self._keeper is not None:
            return names | self._keeper.accepts
        goes_on = _goes_on(self._bound[1]) and not self._defaults.get("thinking")
        return names | {"continue_from"} if goes_on else names

    def _backend(self) -> Backend:
        if self._bound[0] != os.getpid():
            self._bound = self._connected()
        return self._bound[1]

    def _connected(self) -> tuple[int, Backend]:
        backend = connect.connect(
            self.name,
            self.provider,
            self._model_name,
            base_url=self._settings.get("base_url"),
            api_key=self._settings.get("api_key"),
        )
        return os.getpid(), backend


class KeptModel(ProviderModel):
    """A model whose answers the provider keeps, so that a call whose answer was lost can be looked up."""

    def look_up(self, handle: str, call_id: str = "") -> Reply | Pending | None:
        """What became of a call, by the provider's id for it or by the name it was given; blocks.

        Returns:
            the answer; Pending, when it is not there yet; None, when the provider does not know of the
            call. That is no proof: it may still be on its way.

        Raises:
            Exception: what the call itself failed with, or the look-up.
        """
        return loop.run(self._look_up(handle, call_id))

    async def alook_up(self, handle: str, call_id: str = "") -> Reply | Pending | None:
        """As :meth:`look_up`, without blocking the event loop."""
        return await loop.arun(self._look_up(handle, call_id))

    async def _look_up(self, handle: str, call_id: str) -> Reply | Pending | None:
        backend = self._backend()
        applied, _ = settle(self._defaults, {}, self._taken(self._defaults.get("thinking")))
        ask = asking.make_ask(backend, "", applied)
        keeper = cast("keeping.Keeper", self._keeper)
        found = await self._in_time(applied.get("timeout_s"), keeper.look_up(backend, handle, call_id, ask))
        if found is None or isinstance(found, Pending):
            return found
        return self._reply(found, backend, ())


def _goes_on(backend: Backend) -> bool:
    """Whether the model goes on from an answer's beginning: Claude models before 4.6 do."""
    if backend.system != "anthropic":
        return False
    version = known.version_of(backend.model_name)
    return bool(version) and version < _NO_PREFILL


def _is_cut(error: Exception) -> bool:
    from sifaka.faults import classify

    return classify(error).kind in ("connection", "timeout", "truncated")


def _raw_finish_reason(response: ModelResponse) -> str:
    return str((response.provider_details or {}).get("finish_reason", ""))
