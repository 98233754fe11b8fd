"""Durable pydantic-ai agents: every request and every tool call is in the log (floor 9).

::

    agent = DurableAgent(Agent("anthropic:claude-sonnet-5", tools=[search]),
                         checkpoint_storage="sqlite:///runs.db")
    result = await agent.run("Where is order 7?", chain_id="order-7")

A process that dies loses the call in flight and no other: the same call again takes what was answered from
the log, pays for nothing twice, and goes on. A call that was in flight is in doubt: it is reported, and
repeated or not as ``on_doubt`` says.

It stands on pydantic-ai's public surface for durable execution: ``BaseDurabilityCapability``,
``DurableOperationBackend`` and the operations' public parameters of ``pydantic_ai.durable_exec``;
``WrapperAgent``; and the capability hook ``get_wrapper_model``.
"""

from __future__ import annotations

from sifaka.integrations.pydantic_ai.agent import DurableAgent

__all__ = ["DurableAgent"]
