"""A process that runs chains in children of its own, and has them killed where it is told.

Reads one JSON command a line, forks, and answers with how the child ended. The children are real
processes that die by SIGKILL; the ledger is a file that each call is written to before it answers. A child
that is to stop itself ("stop") is kept until it is told to go on. With "race" as an argument there are no
children: the process itself runs one chain after the other, each at the moment it is told.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator
from importlib import import_module
from typing import Any

from sifaka.chain import Chain
from sifaka.parts import Reply, Request
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.urls import open_storage
from sifaka.testing.storage import FaultyStorage
from sifaka.thought import CriticFeedback, Thought, ValidationResult

CHAIN_ID = "victim"
ITERATIONS = 3


class Provider:
    """Bills each call in the ledger, and dies in the call it is told to, before or after billing."""

    def __init__(self, ledger: str, die: dict[str, Any] | None) -> None:
        self.calls = 0
        self._lock = threading.Lock()
        self._file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._die = die or {}

    def answer(self, what: str) -> str:
        with self._lock:
            self.calls += 1
            number = self.calls
        self._maybe_die("call", number)
        os.write(self._file, (json.dumps({"what": what[:60]}) + "\n").encode())
        self._maybe_die("billed", number)
        if self._die.get("stop") == number:
            os.kill(os.getpid(), signal.SIGSTOP)
        return f"answer {number} of {os.getpid()}"

    def _maybe_die(self, where: str, number: int) -> None:
        if self._die.get(where) == number:
            os.kill(os.getpid(), signal.SIGKILL)


class Short:
    name = "short"
    pure = True

    def validate(self, thought: Thought) -> ValidationResult:
        return ValidationResult(thought.iteration == ITERATIONS - 1, "not yet", score=thought.iteration / 4)


class TwoCalls:
    """A critic that asks twice: each of its calls has to be recorded on its own."""

    name = "two-calls"

    def critique(self, thought: Thought) -> Generator[Request, Reply, CriticFeedback]:
        first = yield Request(f"first look at {thought.text}")
        second = yield Request(f"second look after {first.text}")
        return CriticFeedback(needs_improvement=True, message=f"{first.text}, {second.text}")


class Opaque:
    name = "opaque"

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def critique(self, thought: Thought) -> dict[str, Any]:
        return {"needs_improvement": True, "message": self._provider.answer(f"opaque {thought.text}")}


def address(store: str) -> str:
    """An address as it is; a path as that of the SQLite file there."""
    return store if "://" in store else f"sqlite:///{store}"


def open_store(command: dict[str, Any]) -> CachedCheckpointStorage:
    """This process's store of that address; one that dies or has leases of its own is another object."""
    shared = open_storage(address(command["store"]))
    die = command.get("die")
    if not die and "lease_s" not in command:
        return shared

    def on_write(number: int, when: str) -> None:
        if die and die.get(when) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        if die and die.get(f"stop {when}") == number:
            os.kill(os.getpid(), signal.SIGSTOP)

    return CachedCheckpointStorage(
        FaultyStorage(shared.storage, on_write), lease_s=command.get("lease_s", 60.0)
    )


def build(command: dict[str, Any]) -> tuple[Chain, Provider]:
    die = command.get("die")
    provider = Provider(command["ledger"], die)

    store = open_store(command)

    if command["driver"] == "async":

        async def model(prompt: str) -> str:
            return provider.answer(prompt)
    else:

        def model(prompt: str) -> str:  # type: ignore[misc]
            return provider.answer(prompt)

    chain = (
        Chain(model, "Write a line", checkpoint_storage=store, chain_id=command.get("chain_id", CHAIN_ID))
        .with_options(max_improvement_iterations=ITERATIONS - 1, critique_final=True)
        .with_model_retrievers([documents])
        .validate_with(Short())
        .improve_with(TwoCalls(), Opaque(provider))
    )
    return chain, provider


def documents(_query: str) -> list[str]:
    return ["a document"]


def run(command: dict[str, Any]) -> dict[str, Any]:
    chain, provider = build(command)
    if command.get("wait"):
        thought = chain.resume(wait=command["wait"])
    else:
        thought = asyncio.run(chain.arun()) if command["driver"] == "async" else chain.run()
    return {"calls": provider.calls, "text": thought.text, "in_doubt": len(thought.in_doubt)}


def outcome(command: dict[str, Any]) -> dict[str, Any]:
    try:
        return run(command)
    except BaseException as error:
        return {"error": traceback.format_exc(), "class": type(error).__name__}


def child(command: dict[str, Any], answer: int) -> None:
    done = outcome(command)
    os.write(answer, json.dumps(done).encode())
    os._exit(0)


class Children:
    """Forks one child a command. Those that stopped themselves wait here until they are told to go on."""

    def __init__(self) -> None:
        self._stopped: dict[int, int] = {}

    def perform(self, command: dict[str, Any]) -> dict[str, Any]:
        if "go_on" in command:
            pid = command["go_on"]
            os.kill(pid, signal.SIGCONT)
            return self._wait(pid, self._stopped.pop(pid))
        preload(command["store"])
        answer, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(answer)
            child(command, write)
        os.close(write)
        if "kill_within_s" in command:
            time.sleep(command["kill_within_s"])
            os.kill(pid, signal.SIGKILL)
        return self._wait(pid, answer)

    def _wait(self, pid: int, answer: int) -> dict[str, Any]:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            self._stopped[pid] = answer
            return {"killed": False, "stopped": pid}
        with os.fdopen(answer, "rb") as file:  # an answer is short: the pipe holds it until its child ended
            said = file.read()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return {"killed": killed, **(json.loads(said) if said else {})}


def preload(store: str) -> None:
    """Import what the store needs once, here, and not in every child."""
    if store.startswith("redis:"):
        import_module("redis")
        import_module("sifaka.storage.redis")
    elif store.startswith("postgresql:"):
        import_module("sifaka.storage.postgres.sessions")


def serve() -> None:
    children = Children()
    for line in sys.stdin:
        print(json.dumps(children.perform(json.loads(line))), flush=True)


def race() -> None:
    """Run chains here, each at its moment of the machine's monotonic clock."""
    for line in sys.stdin:
        command = json.loads(line)
        preload(command["store"])
        time.sleep(max(0.0, command["at"] - time.monotonic()))
        print(json.dumps(outcome(command)), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["race"]:
        race()
    elif len(sys.argv) > 1:
        print("ready", flush=True)
        sys.stdin.readline()  # all that race start at the same moment
        child(json.loads(sys.argv[1]), 1)
    else:
        serve()
