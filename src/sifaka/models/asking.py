"""What is sent for one call: the options a model takes, and the request in pydantic-ai's words (floor 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from sifaka.models import connect

if TYPE_CHECKING:
    from pydantic_ai.models import Model as Backend

__all__ = ["Ask", "accepted", "make_ask", "max_tokens"]

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


class Ask(msgspec.Struct):
    """One call: its messages, settings and parameters, as pydantic-ai takes them."""

    messages: list[Any]
    settings: Any  # a dict of pydantic-ai's settings
    parameters: Any


def make_ask(backend: Backend, prompt: str, applied: Mapping[str, Any], so_far: str = "") -> Ask:
    """The call for a prompt and the options that apply; ``so_far`` is the answer's beginning."""
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart
    from pydantic_ai.models import ModelRequestParameters

    messages: list[Any] = [
        ModelRequest(parts=[UserPromptPart(prompt)], instructions=applied.get("system_prompt"))
    ]
    if so_far:
        messages.append(ModelResponse(parts=[TextPart(so_far)]))
    return Ask(
        messages,
        _model_settings(backend, applied),
        _parameters(applied.get("json_schema")) or ModelRequestParameters(),
    )


def accepted(backend: Backend, thinking: Any = None) -> frozenset[str]:
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


def max_tokens(backend: Backend, applied: Mapping[str, Any]) -> int | None:
    """The limit that is sent; None where the provider's own holds."""
    given: int | None = applied.get("max_tokens")
    if given is not None or backend.system != "anthropic" or "thinking" in applied:
        return given
    most: Any = backend.profile.get("anthropic_max_output_tokens")
    return min(int(most or _ANTHROPIC_MAX_TOKENS_OLD), _ANTHROPIC_MAX_TOKENS)


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


def _model_settings(backend: Backend, applied: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        theirs: applied[ours] for ours, theirs in _SETTINGS.items() if ours in applied
    }
    if isinstance(settings.get("stop_sequences"), str):
        settings["stop_sequences"] = [settings["stop_sequences"]]
    limit = max_tokens(backend, applied)
    if limit is not None:
        settings["max_tokens"] = limit
    # The library's own clock is for a single wait and has a default of minutes; ours is the limit.
    if "timeout_s" in applied and "timeout" not in backend.unsupported_settings:
        settings["timeout"] = applied["timeout_s"]
    return {**settings, **connect.retry_settings(backend)}


def _parameters(json_schema: Any) -> Any:
    if json_schema is None:
        return None
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition

    return ModelRequestParameters(
        output_mode="native",
        output_object=OutputObjectDefinition(json_schema=dict(json_schema), name="answer"),
    )
