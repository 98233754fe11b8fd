"""A LangChain ``Runnable`` as a model of ours: a chat model, a language model, a chain (floor 2).

A chat model gets the system prompt and the prompt as two messages, and with the call those options it has a
field for. Anything else gets the prompt: a chain has its own prompts and settings. LangChain is not imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from sifaka.errors import PartError
from sifaka.models import loop, pricing
from sifaka.parts import Reply, Usage

__all__ = ["RunnableModel"]

_KINDS = {"BaseChatModel": "chat", "BaseLLM": "text"}
_OPTIONS = frozenset(
    {
        *("frequency_penalty", "logit_bias", "max_tokens", "presence_penalty", "seed"),
        *("temperature", "top_k", "top_p"),
    }
)
"""Options of the same name and meaning that a model takes with a call, where it has a field for it."""

_FINISHED = {
    "content_filter": ("content_filter", "refusal", "safety"),
    "length": ("length", "max_tokens"),
    "stop": ("stop", "end_turn", "stop_sequence"),
}
_BINDINGS_MAX = 16


class RunnableModel:
    """A LangChain runnable as a model; ``runnable`` is the original.

    Its answer is a text, a message, or anything that can be written as JSON. Set ``max_retries=0`` on a chat
    model: its library repeats requests otherwise, unseen.
    """

    def __init__(self, runnable: Any) -> None:
        self.runnable = runnable
        self._model, kind = _language_model(runnable)
        self._is_chat = kind == "chat"
        self.provider = _text(self._model, "_llm_type") if kind else ""
        self.name = _name_of(runnable, self._model, self.provider)
        self.accepts = _accepted(self._model, kind)

    def __repr__(self) -> str:
        return f"adapt_model({self.name!r})"

    def generate(self, prompt: str, **options: Any) -> Reply:
        """The runnable's answer; blocks. Raises PartError for an answer that is none, and what it raised."""
        given, kwargs, left = self._call(prompt, options)
        if _is_async_only(self.runnable):
            return self._reply(loop.run(self.runnable.ainvoke(given, **kwargs)), left)
        return self._reply(self.runnable.invoke(given, **kwargs), left)

    async def agenerate(self, prompt: str, **options: Any) -> Reply:
        """As :meth:`generate`, without blocking the event loop."""
        given, kwargs, left = self._call(prompt, options)
        return self._reply(await self.runnable.ainvoke(given, **kwargs), left)

    def _call(self, prompt: str, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
        wanted = {name: one for name, one in options.items() if one is not None}
        kwargs = {name: one for name, one in wanted.items() if name in self.accepts}
        left = tuple(sorted(wanted.keys() - kwargs.keys()))
        system = kwargs.pop("system_prompt", None)
        if isinstance(kwargs.get("stop"), str):
            kwargs["stop"] = [kwargs["stop"]]
        given: Any = [("system", system), ("human", prompt)] if system else prompt
        return given, kwargs, left

    def _reply(self, answer: Any, not_applied: tuple[str, ...]) -> Reply:
        told = _mapping(getattr(answer, "response_metadata", None))
        usage = _usage(answer)
        model = str(told.get("model_name") or told.get("model") or "")
        return Reply(
            text=self._text_of(answer),
            usage=usage,
            price_usd=pricing.price_of_usage(usage, model, told.get("model_provider")),
            finish_reason=_finish_reason(told),
            request_id=_request_id(answer, told),
            model=f"{self.provider}:{model}" if model and self.provider else self.name,
            not_applied=not_applied,
        )

    def _text_of(self, answer: Any) -> str:
        content = getattr(answer, "content", answer)
        if isinstance(content, str):
            return content
        if isinstance(content, list) and content is not answer:
            return "".join(_texts(cast("Iterable[Any]", content)))
        return _json(answer, self.name)


def _language_model(runnable: Any) -> tuple[Any, str]:
    """The language model that ``runnable`` is, beneath what binds arguments to it, and its kind; else ''."""
    found = runnable
    for _ in range(_BINDINGS_MAX):
        bases = [
            base.__name__ for base in type(found).__mro__ if base.__module__.startswith("langchain_core.")
        ]
        kind = next((_KINDS[name] for name in bases if name in _KINDS), "")
        if kind:
            return found, kind
        if "RunnableBindingBase" not in bases:
            break
        found = found.bound
    return runnable, ""


def _accepted(model: Any, kind: str) -> frozenset[str]:
    if not kind:
        return frozenset()
    fields: dict[str, Any] = getattr(cast("Any", type(model)), "model_fields", {})
    aliases = {getattr(one, "alias", None) for one in fields.values()}
    names = _OPTIONS & {*fields, *aliases} | {"stop"}
    return names | {"system_prompt"} if kind == "chat" else names


def _name_of(runnable: Any, model: Any, provider: str) -> str:
    """``kind:model`` for a language model; else the runnable's own name, or its class's."""
    if provider:
        called = _text(model, "model_name") or _text(model, "model") or _text(model, "model_id")
        return f"{provider}:{called}" if called else provider
    return _text(runnable, "name") or type(runnable).__name__


def _is_async_only(runnable: Any) -> bool:
    """A RunnableLambda of a coroutine function: it has no other, and refuses to be invoked."""
    return callable(getattr(runnable, "afunc", None)) and not hasattr(runnable, "func")


# Its answer --------------------------------------------------------------------------------


def _texts(blocks: Iterable[Any]) -> Iterable[str]:
    """The texts among a message's blocks."""
    for block in blocks:
        if isinstance(block, str):
            yield block
        elif isinstance(block, Mapping):
            text: Any = cast("Mapping[str, Any]", block).get("text")
            if isinstance(text, str):
                yield text


def _json(answer: Any, who: str) -> str:
    dump = getattr(answer, "model_dump_json", None)
    if callable(dump):
        return str(dump())
    import json

    try:
        if answer is not None:
            return json.dumps(answer, ensure_ascii=False)
    except (TypeError, ValueError):
        pass
    kind = "nothing (None)" if answer is None else f"a {type(answer).__name__}"
    raise PartError(
        f"{who} returned {kind}; a model returns a text, a message or what can be written as JSON"
    )


def _usage(answer: Any) -> Usage | None:
    told = _mapping(getattr(answer, "usage_metadata", None))
    counts = [told.get(name) for name in ("input_tokens", "output_tokens")]
    if not any(isinstance(count, int) for count in counts):
        return None
    read, written = (count if isinstance(count, int) else 0 for count in counts)
    return Usage(read, written)


def _finish_reason(told: Mapping[str, Any]) -> str:
    said = str(told.get("finish_reason") or told.get("stop_reason") or told.get("done_reason") or "")
    return next((ours for ours, theirs in _FINISHED.items() if said.lower() in theirs), said)


def _request_id(answer: Any, told: Mapping[str, Any]) -> str:
    """The provider's own id; LangChain gives messages ids of its own, which nobody else knows."""
    own = _text(answer, "id")
    return str(told.get("id") or ("" if own.startswith(("run-", "lc_run-", "lc_")) else own))


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(of: object, name: str) -> str:
    found = getattr(of, name, None)
    return found if isinstance(found, str) else ""
