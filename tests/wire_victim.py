"""A process that runs chains through the providers' own libraries, in children that die where they are told.

Reads one JSON command a line, forks, and answers with how the child ended. A child tells the provider its
process id as its key, so that the provider can kill it in the middle of a reply.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

from sifaka.chain import Chain
from sifaka.clock import SystemClock
from sifaka.critics import NCriticsCritic, SelfRefineCritic
from sifaka.models import create_model
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.urls import open_storage
from sifaka.testing.provider import ProviderDouble
from sifaka.testing.storage import FaultyStorage
from sifaka.thought import Thought, ValidationResult

CHAIN_ID = "victim"
PROMPT = "Write of lemurs"
PERSPECTIVES = {"length": "whether the text is long enough.", "facts": "whether the text is true."}

CLAUDE = "anthropic:claude-haiku-4-5"
CHAT = "openai-chat:gpt-4o"
RESPONSES = "openai-responses:gpt-4o"

VARIANTS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "anthropic": (CLAUDE, {}, False),
    "anthropic-stream": (CLAUDE, {}, True),
    "chat": (CHAT, {}, False),
    "chat-stream": (CHAT, {}, True),
    "responses": (RESPONSES, {}, False),
    "responses-stream": (RESPONSES, {}, True),
    "chat-store": (CHAT, {"store": True}, False),
    "chat-store-stream": (CHAT, {"store": True}, True),
    "responses-store-stream": (RESPONSES, {"store": True}, True),
    "background": (RESPONSES, {"background": True, "poll_s": 0.0}, False),
    "background-stream": (RESPONSES, {"background": True, "poll_s": 0.0}, True),
    "anthropic-deferred": (CLAUDE, {"deferred": True, "poll_s": 0.0}, False),
    "responses-deferred": (RESPONSES, {"poll_s": 0.0}, False),  # by the chain's option
}
"""A model's spec, its settings, and whether it streams."""


class Ticking(SystemClock):
    """A second passes whenever it is asked for the time elapsed, so that each piece of a stream is saved."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def monotonic(self) -> float:
        return float(next(self._ticks))


class Second:
    """Content with the second text."""

    name = "second"
    pure = True

    def validate(self, thought: Thought) -> ValidationResult:
        return ValidationResult(thought.iteration == 1, "write it again")


def open_store(command: dict[str, Any]) -> CachedCheckpointStorage:
    shared = open_storage(f"sqlite:///{command['store']}")
    die = command.get("die") or {}

    def on_write(number: int, when: str) -> None:
        if die.get(when) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return CachedCheckpointStorage(FaultyStorage(shared.storage, on_write))


def build(command: dict[str, Any]) -> Chain:
    spec, settings, streams = VARIANTS[command["variant"]]
    base_url = command["url"] if spec == CLAUDE else f"{command['url']}/v1"
    model = create_model(spec, base_url=base_url, api_key=f"pid-{os.getpid()}", max_tokens=1000, **settings)
    chain = Chain(model, PROMPT, checkpoint_storage=open_store(command), chain_id=CHAIN_ID, clock=Ticking())
    chain.with_options(max_improvement_iterations=1, stream=streams or None)
    if command["variant"] == "responses-deferred":
        chain.with_options(deferred=True)
    critics = SelfRefineCritic(), NCriticsCritic(perspectives=PERSPECTIVES)
    return chain.validate_with(Second()).improve_with(*critics)


def run(command: dict[str, Any]) -> dict[str, Any]:
    chain = build(command)
    thought = asyncio.run(chain.arun()) if command["driver"] == "async" else chain.run()
    writes = getattr(chain._storage.storage, "writes", 0)
    return {"text": thought.text, "in_doubt": len(thought.in_doubt), "cost": thought.cost, "writes": writes}


def child(command: dict[str, Any], answer: int) -> None:
    try:
        done = run(command)
    except BaseException as error:
        done = {"error": traceback.format_exc(), "class": type(error).__name__}
    os.write(answer, json.dumps(done).encode())
    os._exit(0)


def perform(command: dict[str, Any]) -> dict[str, Any]:
    answer, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        child(command, write)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(answer, "rb") as file:  # an answer is short: the pipe holds it until its child has ended
        said = file.read()
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return {"killed": killed, **(json.loads(said) if said else {})}


def warm_up() -> None:
    """Let the libraries build their types here, once, and not in every child: that takes them seconds."""
    with ProviderDouble() as double:
        for spec, settings, streams in VARIANTS.values():
            if settings == {}:
                base_url = double.url if spec == CLAUDE else f"{double.url}/v1"
                model = create_model(spec, base_url=base_url, api_key="pid-0")
                given = {"hear": lambda _: None} if streams else {}
                model.generate("Are you there?", **given)
    import_module("pydantic_ai.models.batch")


if __name__ == "__main__":
    warm_up()
    for line in sys.stdin:
        print(json.dumps(perform(json.loads(line))), flush=True)
