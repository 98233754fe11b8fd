"""pydantic-ai's own seam for durable execution: every operation of an agent goes through a run (floor 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar, cast

from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    BoundDurableOperation,
    DurabilityEngineSpec,
    DurableOperation,
    DurableOperationBackend,
    conversation_id_from_run_id,
    durable_unit_scope,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model
from pydantic_ai.tools import AgentDepsT

from sifaka.integrations.pydantic_ai.run import Doubt, DurableRun
from sifaka.models.adapted import send_once

__all__ = ["CONFIG_KEY", "SifakaDurability"]

CONFIG_KEY = "sifaka"
"""The key of a tool's metadata: ``False`` leaves it out of the log, ``{"on_doubt": "stop"}`` guards it."""

ParamsT = TypeVar("ParamsT")
WireT = TypeVar("WireT")
ResultT = TypeVar("ResultT")

Config = dict[str, Doubt]
_TOOLSETS: frozenset[Literal["function", "mcp", "dynamic"]] = frozenset({"function", "mcp", "dynamic"})


class SifakaDurability(BaseDurabilityCapability[AgentDepsT]):
    """The capability that one run of an agent is given."""

    engine_spec = DurabilityEngineSpec(
        engine_name="sifaka",
        durable_unit_noun="call",
        durable_container_noun="run",
        codec=JSON_CODEC,
        toolset_lifecycles={"function": "enter-always", "mcp": "enter-always", "dynamic": "enter-never"},
        # What tools there are is asked anew by each process: it costs nothing, and servers come and go.
        journal_discovery=False,
        unsupported_runtime_toolset_kinds=_TOOLSETS,
        tool_config_key=CONFIG_KEY,
    )

    def __init__(self, run: DurableRun) -> None:
        super().__init__(name=run.agent_name)
        self._run = run

    @property
    def in_durable_context(self) -> bool:
        """Always: the capability is there for its run alone."""
        return True

    def get_durable_operation_backend(self) -> DurableOperationBackend[Any]:
        """What performs the agent's operations."""
        return _Backend(self._run)

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """The same one in each process that goes on with the run."""
        return conversation_id_from_run_id(run_id)

    def get_wrapper_model(self, model: Model) -> Model | None:
        """No wrapper; but the model's library sends each request once, for each is an attempt of its own."""
        send_once(model)
        return None


class _Backend(DurableOperationBackend[Config]):
    def __init__(self, run: DurableRun) -> None:
        self._run = run

    def bind(
        self, operation: DurableOperation[ParamsT, WireT, ResultT]
    ) -> BoundDurableOperation[ParamsT, WireT, ResultT]:
        return _Bound(operation, self._run)

    def config_for_tool(
        self,
        operation: DurableOperation[ParamsT, WireT, ResultT],
        *,
        tool: object | None,
        tool_name: str,
    ) -> Config | Literal[False]:
        del operation
        metadata: dict[str, Any] = getattr(getattr(tool, "tool_def", None), "metadata", None) or {}
        config = metadata.get(CONFIG_KEY, {})
        if config is False:
            return False
        if config in ({}, {"on_doubt": "repeat"}, {"on_doubt": "stop"}):
            return cast("Config", config)
        raise UserError(
            f"tool {tool_name!r}: its metadata[{CONFIG_KEY!r}] is False, or has on_doubt as 'repeat' or "
            f"'stop'; it is {config!r}"
        )

    def registrations(self) -> Sequence[Callable[..., object]]:
        return ()


class _Bound(BoundDurableOperation[ParamsT, WireT, ResultT], Generic[ParamsT, WireT, ResultT]):
    def __init__(self, operation: DurableOperation[ParamsT, WireT, ResultT], run: DurableRun) -> None:
        self._operation = operation
        self._run = run

    @property
    def operation(self) -> DurableOperation[ParamsT, WireT, ResultT]:
        return self._operation

    async def __call__(self, params: ParamsT, *, config: object | None = None) -> ResultT:
        operation = self._operation

        async def body() -> ResultT:
            with durable_unit_scope():
                return await operation.handler(params)

        given = cast("Config", config or {})
        result: ResultT = await self._run.perform(operation, params, body, given.get("on_doubt", "repeat"))
        return result
