"""A pydantic-ai agent whose runs are kept in the log (floor 9)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal
from zlib import crc32

from pydantic_ai.agent import AbstractAgent, AgentRun, WrapperAgent
from pydantic_ai.output import OutputDataT
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import AgentDepsT
from pydantic_core import to_json

from sifaka.clock import Clock, SystemClock
from sifaka.engine.options import DEFAULTS, check_option, one_of
from sifaka.engine.plan import new_chain_id
from sifaka.integrations.pydantic_ai.capability import SifakaDurability
from sifaka.integrations.pydantic_ai.run import DurableRun, Wish
from sifaka.storage.base import Storage
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.journal import check_chain_id
from sifaka.storage.urls import open_storage

__all__ = ["DurableAgent"]


class DurableAgent(WrapperAgent[AgentDepsT, OutputDataT]):
    """An agent whose every request and tool call is recorded before it is made, and when it is answered.

    Use it as the agent itself. A run has a name, its ``chain_id``: the same call with the same name goes on
    where the run stopped, and returns the result of one that is done without a call. Requests that streamed
    are recorded whole.

    Args:
        agent: the agent; its name, its tools and its fixed instructions are the run's plan.
        checkpoint_storage: a storage object or URL; None keeps runs in memory, for this object alone.
        on_doubt: what to do about a call that was made and whose answer was never recorded: "repeat" it (it
            is reported), or "stop" once. A tool can say so for itself, by ``metadata={"sifaka": {"on_doubt":
            "stop"}}``; with ``{"sifaka": False}`` it is left out of the log, and called by each process.
        on_plan_change: "refuse" to go on with a run of another agent, or "accept".
        budget: the most a run may use: US dollars, or a dict of "usd", "tokens", "seconds".
        limits: how often a run may die, and its deadline: fields of :class:`sifaka.recovery.limits.Limits`.
        wait: how many seconds to wait for a living owner of the run.
        clock: where the time comes from.

    Raises:
        UsageError: an option that is none.
    """

    def __init__(
        self,
        agent: AbstractAgent[AgentDepsT, OutputDataT],
        *,
        checkpoint_storage: CachedCheckpointStorage | Storage | str | None = None,
        on_doubt: Literal["repeat", "stop"] = "repeat",
        on_plan_change: Literal["refuse", "accept"] = "refuse",
        budget: float | Mapping[str, float] | None = None,
        limits: Mapping[str, Any] | None = None,
        wait: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(agent)
        self._fixed_name = agent.name or "agent"
        self._storage = open_storage(checkpoint_storage)
        self._clock = clock or SystemClock()
        self._wait_s = wait
        self._accepts = one_of("on_plan_change", on_plan_change, ("refuse", "accept")) == "accept"
        given = {"on_doubt": on_doubt, "budget": budget, "limits": limits, "max_improvement_iterations": 0}
        checked = {name: check_option(name, value) for name, value in given.items() if value is not None}
        self._settings: dict[str, Any] = {**DEFAULTS, **checked}

    @property
    def name(self) -> str | None:
        """The agent's name as it was when it was wrapped: the plan has it, so it must not change."""
        return self._fixed_name

    @name.setter
    def name(self, value: str | None) -> None:
        self._fixed_name = self.wrapped.name = value or "agent"

    async def run(  # type: ignore[override]  # all of pydantic-ai's arguments, and one more
        self, *args: Any, chain_id: str | None = None, **options: Any
    ) -> AgentRunResult[OutputDataT]:
        """As the agent's own, with ``chain_id`` as the run's name; it is pydantic-ai's ``run_id``.

        Raises:
            PlanChangedError: the log is of a run of another agent, or of another prompt.
            OwnedError: another process is at it.
            ChainError: a doubt, a budget or a limit stops it.
            Exception: what the agent raises; it is recorded, and the same call again goes on from there.
        """
        return await super().run(*args, **_named(options, chain_id))

    def run_sync(  # type: ignore[override]  # as above
        self, *args: Any, chain_id: str | None = None, **options: Any
    ) -> AgentRunResult[OutputDataT]:
        """As :meth:`run`, where no event loop runs."""
        return super().run_sync(*args, **_named(options, chain_id))

    @asynccontextmanager
    async def iter(
        self, *args: Any, chain_id: str | None = None, **options: Any
    ) -> AsyncGenerator[AgentRun[AgentDepsT, Any]]:
        """As the agent's own, with ``chain_id`` as the run's name; one that is left early is interrupted."""
        named = _named(options, chain_id)
        name = check_chain_id(new_chain_id() if named.get("run_id") is None else named["run_id"])
        run = self._run(name, args[0] if args else named.get("user_prompt"))
        capabilities = [*(named.pop("capabilities", None) or ()), SifakaDurability[AgentDepsT](run)]
        named["run_id"] = name
        try:
            await run.claim(self._wait_s)
            async with self.wrapped.iter(*args, capabilities=capabilities, **named) as agent_run:
                yield agent_run
            result = agent_run.result
            await run.finish(None if result is None else result.output, ended=result is not None)
        except BaseException as error:
            await run.leave(error)
            raise
        finally:
            await run.release()

    def _run(self, chain_id: str, prompt: Any) -> DurableRun:
        wish = Wish(
            _prompt_text(prompt),
            self._settings,
            on_doubt=self._settings["on_doubt"],
            accept_plan_change=self._accepts,
        )
        return DurableRun(chain_id, self._fixed_name, wish, self._storage, self._clock)


def _named(options: dict[str, Any], chain_id: str | None) -> dict[str, Any]:
    """The options with the run's name. The agent's is settled: no variable of ours must become it."""
    named = {"infer_name": False, **options}
    if chain_id is not None:
        named["run_id"] = check_chain_id(chain_id)
    return named


def _prompt_text(prompt: Any) -> str:
    """What was asked, as the log shows it: pictures and files by their digest."""
    if prompt is None or isinstance(prompt, str):
        return prompt or ""
    return "\n".join(one if isinstance(one, str) else _content_text(one) for one in prompt)


def _content_text(content: object) -> str:
    data = to_json(content, serialize_unknown=True, bytes_mode="base64")
    return f"[{type(content).__name__} {crc32(data):08x}]"
