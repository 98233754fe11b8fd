"""From a spec, ``"provider:model"``, to a model; what is missing is said before any call (floor 2).

A missing library, a missing key and an unknown provider are errors that say what to type. Nothing
ever becomes a stand-in silently.
"""

from __future__ import annotations

from typing import Any

from sifaka.errors import ModelSpecError
from sifaka.parts import Model

__all__ = ["RetiredModelWarning", "create_model"]


class RetiredModelWarning(UserWarning):
    """A model name its provider is not known to serve today: retired, misspelt or very new.

    The message names the nearest one of today. The name is sent as it is all the same.
    """


def create_model(
    spec: str,
    *,
    background: bool = False,
    store: bool = False,
    deferred: bool = False,
    poll_s: float | None = None,
    **settings: Any,
) -> Model:
    """Open the model that ``spec`` names.

    Args:
        spec: ``"local:smollm2"`` (the embedded model), ``"local:/path/to/file.gguf"``, or
            ``"provider:model"`` with any provider pydantic-ai knows: ``anthropic``, ``openai``,
            ``openai-responses``, ``openai-chat``, ``google``, ``mistral``, ``groq``, ``bedrock``,
            ``azure``, ``ollama``, …
        background: the provider works on when the connection is lost, and *keeps the answer* for a
            while: a call whose answer was lost is looked up instead of repeated. OpenAI's Responses, and
            Google's Interactions.
        store: the provider *keeps the answer*, so that it can be looked up. OpenAI's Responses and Chat
            Completions.
        deferred: calls go through the provider's batches, at about half the price; an answer can take
            up to a day. Anthropic, OpenAI's Responses, Google.
        poll_s: seconds between look-ups of an answer that is not there yet; 2 in the background, 60 for
            deferred calls.
        settings: options that hold for each call which does not set them itself: ``system_prompt``,
            ``temperature``, ``max_tokens``, ``timeout_s`` (seconds), ``seed``, ``stop``, … Beside
            them ``base_url`` and ``api_key`` say where a provider is; ``context_tokens`` how many
            tokens a local model can hold, and ``threads`` on how many processors it computes.

    Returns:
        A model with ``generate``, ``agenerate``, ``name``, ``provider``, ``accepts`` and
        ``price_max_usd``; with ``look_up`` and ``alook_up`` where answers are kept. The first provider
        model of a process takes about a second, for the libraries it loads.

    Raises:
        UnknownModelError: no such provider, or no provider in the spec; near misses are named.
        MissingExtraError: a library is not installed; the message has the command.
        MissingKeyError: a credential is not set; the message names the environment variable.
        ModelSpecError: the spec or a setting makes no sense.

    Warns:
        RetiredModelWarning: the provider is not known to serve a model of this name today.
    """
    # A spec often comes from a configuration file, where it can be anything.
    if not isinstance(spec, str) or not spec.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ModelSpecError(
            f"a model spec is a text like 'local:smollm2' or 'provider:model', not {spec!r}",
            str(spec),
        )
    provider, colon, name = spec.strip().partition(":")
    modes = {"background": background, "store": store, "deferred": deferred, "poll_s": poll_s}
    settings |= {mode: value for mode, value in modes.items() if value is not None and value is not False}
    if provider == "local" and colon:
        from sifaka.models.local import open_local

        return open_local(name, settings)

    from sifaka.models.providers import open_provider

    return open_provider(provider, name, settings)
