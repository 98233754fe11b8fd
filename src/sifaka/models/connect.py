"""From a provider's name to a connected pydantic-ai model that sends each request once (floor 2).

Retrying is the engine's work, where every attempt is a record. The providers' own libraries retry
by default, without a word: here that is turned off, for each of them in the way it offers.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary, finalize

from sifaka.errors import MissingKeyError, ModelSpecError
from sifaka.models import known, loop

if TYPE_CHECKING:
    from pydantic_ai.models import Model as Backend
    from pydantic_ai.providers import Provider

__all__ = ["MAX_RETRIES", "connect", "retry_settings", "send_once"]

MAX_RETRIES = 0

_Key = tuple[Any, ...]


class _Clients:
    """The models in use in this process, shared by spec; the last few outlive their users."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.alive: WeakValueDictionary[_Key, Backend] = WeakValueDictionary()
        self.recent: deque[Backend] = deque(maxlen=8)


_clients = _Clients()
_left_behind: list[Backend] = []


def _after_fork_in_child() -> None:
    # The clients' connections are the parent's too, and to close one here would end it there. So
    # they are kept, unused, and the child opens its own.
    global _clients  # noqa: PLW0603 (the state is the process's)
    _left_behind.extend(_clients.alive.values())
    _clients = _Clients()


os.register_at_fork(after_in_child=_after_fork_in_child)


def connect(spec: str, provider: str, name: str, *, base_url: str | None, api_key: str | None) -> Backend:
    """The model of a spec: one client a process, as long as the environment stays the same.

    Raises:
        ModelSpecError: or one of its kinds, as :func:`sifaka.models.base.create_model` says.
    """
    # Keys and addresses come from environment variables whose names only the libraries know.
    environment = hash(frozenset(os.environ.items()))
    key = (provider, name, base_url, api_key, environment)
    with _clients.lock:
        backend = _clients.alive.get(key)
        if backend is None:
            backend = _open(spec, provider, name, base_url, api_key)
            _clients.alive[key] = backend
        if not any(backend is one for one in _clients.recent):
            _clients.recent.append(backend)
        return backend


def retry_settings(backend: Backend) -> dict[str, int]:
    """The call settings that forbid a retry, for a client that takes them with each call."""
    if hasattr(_client(backend), "max_retries") or "max_retries" in backend.unsupported_settings:
        return {}
    return {"max_retries": MAX_RETRIES}


def _open(spec: str, provider: str, name: str, base_url: str | None, api_key: str | None) -> Backend:
    try:
        from pydantic_ai.models import infer_model
        from pydantic_ai.providers import infer_provider_class
    except ImportError as error:
        raise known.without_pydantic_ai(spec, provider) from error
    try:
        factory: Any = infer_provider_class(provider)
    except ImportError as error:
        raise known.missing_library(spec, provider, error) from error
    except ValueError as error:
        raise known.unknown_provider(spec, provider, name) from error
    try:
        opened = _provider(provider, factory, base_url, api_key)
        wire = _protocol(provider, base_url)
        backend = infer_model(f"{wire}:{name}", provider_factory=lambda _: opened)
    except ImportError as error:
        raise known.missing_library(spec, provider, error) from error
    except Exception as error:
        raise _not_opened(spec, error) from error
    send_once(backend)
    finalize(backend, loop.later, lambda: _close(opened)).atexit = False
    return backend


def _provider(provider: str, factory: Any, base_url: str | None, api_key: str | None) -> Provider[Any]:
    if provider.startswith("gateway/"):
        from pydantic_ai.providers import infer_provider

        return infer_provider(provider)
    if provider == "bedrock":
        given: dict[str, Any] = {"bedrock_client": _bedrock_client(base_url, api_key)}
    else:
        address = "azure_endpoint" if provider == "azure" else "base_url"
        given = {address: base_url, "api_key": api_key}
    opened: Provider[Any] = factory(**{k: v for k, v in given.items() if v is not None})
    return opened


def _protocol(provider: str, base_url: str | None) -> str:
    """``openai`` means Responses at OpenAI itself, and Chat Completions at a compatible server.

    The Responses interface serves all of OpenAI's models; Chat Completions is what other servers
    share. ``openai-responses`` and ``openai-chat`` leave no choice.
    """
    address = base_url or os.environ.get("OPENAI_BASE_URL")
    if provider != "openai" or not address:
        return provider
    host = urlsplit(address).hostname or ""
    return "openai" if host.endswith("openai.com") else "openai-chat"


def _not_opened(spec: str, error: Exception) -> ModelSpecError:
    """What is missing, by the environment variables that the library's own message names."""
    names = list(dict.fromkeys(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", str(error))))
    if names:
        others = f" (or {', '.join(names[1:])})" if names[1:] else ""
        return MissingKeyError(
            f"{spec!r} needs the environment variable {names[0]}{others}; "
            f"type: export {names[0]}={_setting(names[0])}",
            spec,
        )
    if "Credential" in type(error).__name__:
        return MissingKeyError(f"{spec!r} needs credentials: {error}", spec)
    return ModelSpecError(f"{spec!r} cannot be opened: {error}", spec)


def _setting(variable: str) -> str:
    """What goes behind the variable's name, and the setting that says the same."""
    for endings, setting in ((("_KEY", "_TOKEN"), "api_key"), (("_URL", "_ENDPOINT"), "base_url")):
        if variable.endswith(endings):
            return f"…  (or pass {setting}= to create_model)"
    return "…"


def _client(backend: Backend) -> Any:
    return getattr(backend, "client", None)


def send_once(backend: Backend) -> None:
    """Tell the model's library to send each request once: attempts are counted, and recorded, by who asks."""
    client = _client(backend)
    if hasattr(client, "max_retries"):  # Anthropic's, OpenAI's and Groq's libraries
        client.max_retries = MAX_RETRIES
    if backend.system.startswith("google"):
        _answer_once(client.aio.models)


def _answer_once(models: Any) -> None:
    """Keep Google's library from asking on, in requests of its own, when an answer is very long."""
    from google.genai.types import GenerateContentConfig

    if "automatic_continuation" not in GenerateContentConfig.model_fields:
        return
    ask = models.generate_content
    if getattr(ask, "__name__", "") == "ask_once":
        return  # it has been told already

    async def ask_once(*, config: Any, **more: Any) -> Any:
        return await ask(config={**config, "automatic_continuation": False}, **more)

    models.generate_content = ask_once


def _bedrock_client(base_url: str | None, api_key: str | None) -> Any:
    """Bedrock's client, as pydantic-ai builds it, but with one attempt instead of five."""
    from importlib import import_module

    if api_key is not None:
        raise ValueError("set AWS_BEARER_TOKEN_BEDROCK, there is no api_key for this provider")
    session: Any = import_module("boto3").Session()  # its libraries have no types
    if session.region_name is None:
        raise ValueError("set AWS_DEFAULT_REGION")
    config = import_module("botocore.config").Config(
        retries={"total_max_attempts": MAX_RETRIES + 1, "mode": "standard"},
        read_timeout=float(os.environ.get("AWS_READ_TIMEOUT", "300")),
        connect_timeout=float(os.environ.get("AWS_CONNECT_TIMEOUT", "60")),
    )
    client = session.client("bedrock-runtime", config=config, endpoint_url=base_url)
    if not os.environ.get("AWS_BEARER_TOKEN_BEDROCK") and session.get_credentials() is None:
        raise ValueError("set AWS_BEARER_TOKEN_BEDROCK or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return client


async def _close(opened: Provider[Any]) -> None:
    async with opened:
        pass  # leaving it closes the connections
