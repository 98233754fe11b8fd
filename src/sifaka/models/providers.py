"""Any provider pydantic-ai knows, as a model of ours; one attempt is one request (floor 2).

Errors come out as the provider's library raised them, with their chain, status and headers: what
they mean is decided by :mod:`sifaka.faults`. Only the deadline ``timeout_s`` is enforced here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sifaka.errors import ModelError
from sifaka.models import connect, known, loop, pricing
from sifaka.models.options import check_settings, settle, with_aliases
from sifaka.parts import Reply, Usage

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model as Backend

__all__ = ["ProviderModel", "open_provider"]

_CONNECTION = frozenset({"base_url", "api_key"})

_SETTINGS = {
    "extra_body": "extra_body",
    "extra_headers": "extra_headers",
    "frequency_penalty": "frequency_penalty",
    "logit_bias": "logit_bias",
    "max_tokens": "max_tokens",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop": "stop_sequences",
    "temperature": "temperature",
    "thinking": "thinking",
    "top_k": "top_k",
    "top_p": "top_p",
}
"""Our options and pydantic-ai's settings of the same meaning."""

_ANTHROPIC_MAX_TOKENS = 16_384  # an answer longer than this has to be streamed
_ANTHROPIC_MAX_TOKENS_OLD = 4_096  # what the models before Claude 3.5 can write

_FRAME_TOKENS = 64
"""Allowance for what a provider puts around the prompts: roles, separators, its own sentences."""


def open_provider(provider: str, name: str, settings: Mapping[str, Any]) -> ProviderModel:
    """The model of ``provider:name``. Raises what :func:`sifaka.models.base.create_model` says."""
    spec = f"{provider}:{name}"
    if not name:
        raise known.no_provider(provider)
    check_settings(spec, settings, _CONNECTION)
    model = ProviderModel(spec, settings)
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

    ``name`` is the spec. ``accepts`` has the names of the options it can take; others are named in
    ``Reply.not_applied``. It may be used from any thread, event loop and forked child; pickled, it
    takes its settings along, an ``api_key`` among them.
    """

    def __init__(self, spec: str, settings: Mapping[str, Any]) -> None:
        self.name = spec
        self._provider, _, self._model_name = spec.partition(":")
        self._settings = dict(settings)
        self._defaults = {k: v for k, v in settings.items() if k not in _CONNECTION}
        self._bound = self._connected()
        self.accepts = with_aliases(_accepted(self._bound[1]))

    def __repr__(self) -> str:
        return f"create_model({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ProviderModel, (self.name, self._settings)

    def generate(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        **more: Any,
    ) -> Reply:
        """The model's answer; blocks, also where an event loop runs in the calling thread.

        ``timeout_s`` is for the whole call, in seconds. Claude models need a ``max_tokens``: 16,384
        where none is given, and 4,096 for old models.

        Raises:
            ModelError: of kind ``timeout``, when ``timeout_s`` is over.
            Exception: what pydantic-ai or the provider's library raised.
        """
        given = {
            "system_prompt": system_prompt,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "timeout_s": timeout_s,
            **more,
        }
        return loop.run(self._ask(prompt, given))

    async def agenerate(self, prompt: str, **options: Any) -> Reply:
        """As :meth:`generate`, without blocking the event loop; cancelling it drops the request."""
        return await loop.arun(self._ask(prompt, options))

    def price_max_usd(self, prompt: str, options: Mapping[str, Any]) -> float | None:
        """The most a call with these options can cost, in US dollars; None where it is unknown.

        A token is at least one byte of the prompts. The answer is bounded by ``max_tokens``, else
        by all that the model can hold.
        """
        backend = self._backend()
        applied, _ = settle(self._defaults, options, self.accepts)
        read = [prompt, applied.get("system_prompt") or "", str(applied.get("json_schema") or "")]
        input_tokens = sum(len(text.encode("utf-8", "replace")) for text in read) + _FRAME_TOKENS
        output_tokens = _max_tokens(backend, applied) or pricing.context_window(backend)
        if output_tokens is None or "extra_body" in applied:
            return None
        return pricing.price_max_usd(backend, input_tokens, output_tokens)

    async def _ask(self, prompt: str, given: Mapping[str, Any]) -> Reply:
        import asyncio

        from pydantic_ai.direct import model_request
        from pydantic_ai.messages import ModelRequest, UserPromptPart

        backend = self._backend()
        accepts = _accepted(backend, given.get("thinking", self._defaults.get("thinking")))
        applied, not_applied = settle(self._defaults, given, accepts)
        timeout_s = applied.get("timeout_s")
        request = ModelRequest(parts=[UserPromptPart(prompt)], instructions=applied.get("system_prompt"))
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                response = await model_request(
                    backend,
                    [request],
                    model_settings=_model_settings(backend, applied),
                    model_request_parameters=_parameters(applied.get("json_schema")),
                )
        except TimeoutError as error:
            if not deadline.expired():
                raise
            message = f"{self.name} did not answer within {timeout_s:g} s; raise timeout_s"
            raise ModelError(message, kind="timeout") from error
        return self._reply(response, backend, not_applied)

    def _reply(self, response: ModelResponse, backend: Backend, not_applied: tuple[str, ...]) -> Reply:
        usage = response.usage
        return Reply(
            text=response.text or "",
            usage=Usage(usage.input_tokens, usage.output_tokens) if usage.has_values() else None,
            price_usd=pricing.price_usd(response, backend),
            finish_reason=response.finish_reason or _raw_finish_reason(response),
            request_id=response.provider_response_id or "",
            model=f"{self._provider}:{response.model_name or self._model_name}",
            not_applied=not_applied,
        )

    def _backend(self) -> Backend:
        if self._bound[0] != os.getpid():
            self._bound = self._connected()
        return self._bound[1]

    def _connected(self) -> tuple[int, Backend]:
        backend = connect.connect(
            self.name,
            self._provider,
            self._model_name,
            base_url=self._settings.get("base_url"),
            api_key=self._settings.get("api_key"),
        )
        return os.getpid(), backend


def _accepted(backend: Backend, thinking: Any = None) -> frozenset[str]:
    """The options the model can take, by what pydantic-ai knows of its class and its name."""
    refused = {*backend.unsupported_settings, *_refused_by_profile(backend.profile, thinking)}
    names = {ours for ours, theirs in _SETTINGS.items() if theirs not in refused}
    names |= {"system_prompt", "timeout_s"}
    profile = backend.profile
    if profile.get("supports_json_schema_output"):
        names.add("json_schema")
    if not (profile.get("supports_thinking") or profile.get("thinking_always_enabled")):
        names.discard("thinking")
    if backend.system == "bedrock" and not profile.get("bedrock_top_k_variant"):
        names.discard("top_k")
    return frozenset(names)


def _refused_by_profile(profile: Mapping[str, Any], thinking: Any) -> tuple[str, ...]:
    refused: tuple[str, ...] = tuple(profile.get("openai_unsupported_model_settings", ()))
    if profile.get("anthropic_disallows_sampling_settings") or profile.get(
        "bedrock_disallows_sampling_settings"
    ):
        refused += ("temperature", "top_p", "top_k")
    if _reasons(profile, thinking):
        from pydantic_ai.profiles.openai import SAMPLING_PARAMS

        refused += SAMPLING_PARAMS
    return refused


def _reasons(profile: Mapping[str, Any], thinking: Any) -> bool:
    """Whether an OpenAI model reasons in this call; then it takes no sampling options."""
    if not profile.get("openai_supports_reasoning"):
        return False
    efforts = profile.get("openai_reasoning_efforts")
    by_flag = profile.get("openai_supports_reasoning_effort_none", False)
    can_stop = by_flag if efforts is None else "none" in efforts
    if not can_stop or (thinking is False and profile.get("thinking_always_enabled")):
        return True
    if thinking is None:
        return bool(profile.get("thinking_enabled_by_default"))
    return thinking is not False


def _model_settings(backend: Backend, applied: Mapping[str, Any]) -> Any:
    settings: dict[str, Any] = {
        theirs: applied[ours] for ours, theirs in _SETTINGS.items() if ours in applied
    }
    if isinstance(settings.get("stop_sequences"), str):
        settings["stop_sequences"] = [settings["stop_sequences"]]
    max_tokens = _max_tokens(backend, applied)
    if max_tokens is not None:
        settings["max_tokens"] = max_tokens
    # The library's own clock is for a single wait and has a default of minutes; ours is the limit.
    if "timeout_s" in applied and "timeout" not in backend.unsupported_settings:
        settings["timeout"] = applied["timeout_s"]
    return {**settings, **connect.retry_settings(backend)}


def _max_tokens(backend: Backend, applied: Mapping[str, Any]) -> int | None:
    """The limit that is sent; None where the provider's own holds."""
    given: int | None = applied.get("max_tokens")
    if given is not None or backend.system != "anthropic" or "thinking" in applied:
        return given
    most: Any = backend.profile.get("anthropic_max_output_tokens")
    return min(int(most or _ANTHROPIC_MAX_TOKENS_OLD), _ANTHROPIC_MAX_TOKENS)


def _parameters(json_schema: Any) -> Any:
    if json_schema is None:
        return None
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition

    return ModelRequestParameters(
        output_mode="native",
        output_object=OutputObjectDefinition(json_schema=dict(json_schema), name="answer"),
    )


def _raw_finish_reason(response: ModelResponse) -> str:
    return str((response.provider_details or {}).get("finish_reason", ""))
