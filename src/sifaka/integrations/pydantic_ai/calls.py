"""One call of an agent as the log knows it: what tells it from others, its answer as records (floor 9).

A request is known by what its messages say, but for times, run ids and instructions that are made up anew by
each process; a tool call by the id that the model gave it. So a process that begins again asks for the same
calls in the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from pydantic_ai.durable_exec import (
    DurableOperation,
    DynamicToolsetCallToolParams,
    JournalOperationNamer,
    ModelCompactMessagesId,
    ModelRequestId,
    ModelRequestParams,
    ToolsetCallToolParams,
    ToolsetValidateToolArgumentsId,
)
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelRequest, ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.tools import RunContext
from pydantic_core import from_json, to_json

from sifaka.engine.plan import digest_of
from sifaka.log.records import PlannedPart, Result
from sifaka.models import asking, pricing
from sifaka.models.adapted import innermost, is_served
from sifaka.models.streams import CutStreamError, is_complete
from sifaka.parts import Heard, Usage
from sifaka.thought import Document

__all__ = ["Call", "answered", "call_of", "instructions_of", "is_request", "parts_of", "read_answer"]

Operation = DurableOperation[Any, Any, Any]

MODEL = "model"
"""The part that a run's requests are calls of."""

_OWN_TO_A_PROCESS = frozenset({"conversation_id", "instructions", "metadata", "run_id", "state", "timestamp"})


class Call(NamedTuple):
    """A call that is wanted: the part, what tells it from the part's others, and what its intent says."""

    part: str
    digest: str
    model: str = ""
    price_max_usd: float | None = None
    options: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What it is looked up by in the log."""
        return self.part, self.digest


def is_request(operation: Operation) -> bool:
    """Whether a model is asked, and answers with a response."""
    return isinstance(operation.operation_id, ModelRequestId | ModelCompactMessagesId)


def call_of(operation: Operation, params: Any, agent_name: str) -> Call:
    """The call that an operation with these parameters is."""
    if isinstance(params, ModelRequestParams):
        return _request(params)
    if isinstance(params, ToolsetCallToolParams | DynamicToolsetCallToolParams):
        return _tool_call(operation, params)
    context = getattr(params, "run_context", None) or getattr(params, "ctx", None)
    part = _name_of(operation, agent_name)
    return Call(part, digest_of((part, getattr(context, "run_step", 0))))


def _name_of(operation: Operation, agent_name: str) -> str:
    if is_request(operation):
        return MODEL
    try:
        name = JournalOperationNamer(agent_name).operation_name(operation.operation_id)
    except AssertionError:  # a kind of operation that is newer than pydantic-ai's own names
        return type(operation.operation_id).__name__
    return name.removeprefix(f"{agent_name}__")


def _request(params: ModelRequestParams) -> Call:
    said = _lasting(ModelMessagesTypeAdapter.dump_python(params.messages, mode="json"))
    model = params.run_context.model
    settings: Mapping[str, Any] = params.model_settings or {}
    return Call(
        MODEL,
        digest_of((params.model_id, said)),
        f"{model.system}:{model.model_name}",
        _price_max_usd(params, settings),
        {name: value for name, value in settings.items() if isinstance(value, int | float | str)} or None,
    )


def _lasting(value: Any) -> Any:
    """What a message says, without what each process makes up anew."""
    if isinstance(value, list):
        return [_lasting(one) for one in value]  # pyright: ignore[reportUnknownVariableType] - it is JSON
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    computed = fields.get("part_kind") == "system-prompt" and fields.get("dynamic_ref")
    left = _OWN_TO_A_PROCESS | {"content"} if computed else _OWN_TO_A_PROCESS
    return {name: _lasting(one) for name, one in fields.items() if name not in left}


def _price_max_usd(params: ModelRequestParams, settings: Mapping[str, Any]) -> float | None:
    """The most a request can cost, in US dollars: a token is at least one byte of what is sent."""
    backend = _backend(params.run_context)
    if backend is None or "extra_body" in settings:
        return None
    sent = len(ModelMessagesTypeAdapter.dump_json(params.messages))
    sent += len(to_json(params.model_request_parameters, serialize_unknown=True))
    limits = {"max_tokens": settings["max_tokens"]} if settings.get("max_tokens") else {}
    written = asking.max_tokens(backend, limits) or pricing.context_window(backend)
    return None if written is None else pricing.price_max_usd(backend, sent, written)


def _backend(context: RunContext[Any]) -> Model | None:
    """The model that sends the run's requests; None where it may be one of several."""
    found = list(innermost(context.model))
    return found[0] if len(found) == 1 else None


def _tool_call(operation: Operation, params: ToolsetCallToolParams | DynamicToolsetCallToolParams) -> Call:
    part = f"{params.name} (tool)" if params.name == MODEL else params.name
    if isinstance(operation.operation_id, ToolsetValidateToolArgumentsId):
        part += " (arguments)"
    context = params.ctx
    called = context.tool_call_id or ""
    digest = digest_of((called, context.run_step))
    return Call(part, digest, options={"tool_call_id": called} if called else None)


# The plan ----------------------------------------------------------------------------------


def parts_of(agent_name: str, params: Any) -> tuple[PlannedPart, ...]:
    """The agent and its tools, by the parameters of its first call."""
    parts = [PlannedPart("agent", agent_name)]
    if isinstance(params, ModelRequestParams):
        asked = params.model_request_parameters
        for tool in asked.function_tools:
            settings = to_json((tool.description, tool.parameters_json_schema), serialize_unknown=True)
            parts.append(PlannedPart("tool", tool.name, digest_of(settings)))
        parts += [PlannedPart("native tool", tool.unique_id) for tool in asked.native_tools]
    return tuple(parts)


def instructions_of(params: Any) -> str | None:
    """What the agent is always told: its instructions and system prompts, without those that are computed."""
    if not isinstance(params, ModelRequestParams):
        return None
    told = [one.content for one in params.model_request_parameters.instruction_parts or () if not one.dynamic]
    told += _system_prompts(params.messages)
    return "\n\n".join(told) or None


def _system_prompts(messages: Sequence[ModelMessage]) -> Iterator[str]:
    for message in messages:
        if isinstance(message, ModelRequest):
            for part in message.parts:
                if part.part_kind == "system-prompt" and not part.dynamic_ref:
                    yield part.content


# Answers -----------------------------------------------------------------------------------


def answered(operation: Operation, params: Any, value: Any) -> dict[str, Any]:
    """The fields of the record that keeps what a call returned. Raises what cannot be written as JSON."""
    if is_request(operation):
        response = cast("ModelResponse", value)
        _check_whole(operation, params, response)
        return _response(params, response)
    called = getattr(getattr(params, "ctx", None), "tool_call_id", None)
    named = {"tool_call_id": called} if called else {}
    text = to_json(operation.result_codec.dump(value)).decode()
    return {"documents": (Document(text, metadata=named),)}


def _check_whole(operation: Operation, params: Any, response: ModelResponse) -> None:
    """Some libraries take the mere end of a stream for its completion. Raises CutStreamError."""
    streamed = getattr(operation.operation_id, "streaming", False)
    if not streamed or response.state == "suspended" or is_complete(response):
        return
    model = params.run_context.model
    if is_served(model):
        raise CutStreamError(model.model_name, Heard(text=response.text or ""))


def _response(params: Any, response: ModelResponse) -> dict[str, Any]:
    usage = response.usage
    context = params.run_context
    backend = _backend(context)
    provider = response.provider_name or context.model.system
    return {
        "text": ModelMessagesTypeAdapter.dump_json([response]).decode(),
        "usage": Usage(usage.input_tokens, usage.output_tokens) if usage.has_values() else None,
        "price_usd": pricing.price_usd(response, backend),
        "model": f"{provider}:{response.model_name or context.model.model_name}",
        "finish_reason": response.finish_reason or "",
        "request_id": response.provider_response_id or "",
    }


def read_answer(operation: Operation, record: Result) -> Any:
    """What a recorded call returned."""
    if is_request(operation):
        return ModelMessagesTypeAdapter.validate_json(record.text or "")[0]
    (document,) = record.documents or (Document("null"),)
    return operation.result_codec.load(from_json(document.text))
