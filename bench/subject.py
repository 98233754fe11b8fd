"""Sifaka as a contestant: the chain written as its users write it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from bench.watch import resident_bytes
from bench.workload import CRITICS, ChainParts
from sifaka.chain import Chain
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.thought import CriticFeedback, Thought, ValidationResult

WAITING = 2_000
"""How many chains wait at once when the memory of one is measured."""


class _Validator:
    """Judges without calling anybody, so its verdict rides along with its phase."""

    name = "sources"
    pure = True

    def __init__(self, parts: ChainParts) -> None:
        self._parts = parts

    def validate(self, thought: Thought) -> ValidationResult:
        return ValidationResult(*self._parts.validate(thought.text))


class _Critic:
    def __init__(self, parts: ChainParts, number: int) -> None:
        self.name = CRITICS[number]
        self._ask = parts.critique
        self._number = number

    def critique(self, thought: Thought) -> CriticFeedback:
        return CriticFeedback(needs_improvement=False, message=self._ask(self._number, thought.text))


class _AsyncCritic(_Critic):
    async def critique(self, thought: Thought) -> CriticFeedback:
        return super().critique(thought)


def chain_of(
    store: CachedCheckpointStorage,
    parts: ChainParts,
    *,
    together: bool = False,
    chain_id: str | None = None,
    durability: Literal["step", "iteration", "exit"] = "step",
) -> Chain:
    """The chain that all run, on ``store``; ``chain_id`` names it, else its number does."""
    model: Callable[..., str | Awaitable[str]] = parts.agenerate if together else parts.generate
    retriever: Callable[..., Any] = parts.aretrieve if together else parts.retrieve
    critic = _AsyncCritic if together else _Critic
    return (
        Chain(
            model=model,
            prompt=parts.prompt,
            checkpoint_storage=store,
            max_improvement_iterations=parts.iterations - 1,
            chain_id=chain_id or _name(parts.chain),
            durability=durability,
        )
        .with_options(critique_final=True)
        .with_model_retrievers([retriever])
        .validate_with(_Validator(parts))
        .improve_with(*(critic(parts, number) for number in range(len(CRITICS))))
    )


def _name(chain: int) -> str:
    return f"chain-{chain}"


def _store(folder: Path) -> CachedCheckpointStorage:
    return CachedCheckpointStorage(SQLiteStorage(folder / "sifaka.db"))


class Subject:
    import_statement = "from sifaka.chain import Chain"
    first_commit_script = """
import sys, time
from sifaka.chain import Chain

def model(prompt):
    print(time.monotonic_ns(), flush=True)  # the run's start and this call's intent are durable by now
    return "a text"

Chain(model, "p", checkpoint_storage=f"sqlite:///{sys.argv[1]}/first.db").run()
"""

    def open(self, folder: Path) -> None:
        self._store = _store(folder)
        self._store.storage.measure()  # opens the file, as the others have theirs open

    def run_one(self, parts: ChainParts) -> str:
        return chain_of(self._store, parts).run().text

    async def run_many(self, parts: Sequence[ChainParts]) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[Thought]] = []
            for number, one in enumerate(parts):
                if number % 32 == 0:
                    await asyncio.sleep(0)  # making chains is the caller's work: it lets others go on
                tasks.append(group.create_task(chain_of(self._store, one, together=True).arun()))
        return [task.result().text for task in tasks]

    def close(self) -> None:
        self._store.storage.close()

    def load_last(self, folder: Path, chain: int, iterations: int) -> str:
        store = _store(folder)
        text = store.load(_name(chain)).state.thought().text
        store.storage.close()
        return text

    def load_all(self, folder: Path, chain: int, iterations: int) -> list[str]:
        store = _store(folder)
        state = store.load_whole(_name(chain)).state
        store.storage.close()
        return [thought.text for thought in [*state.history, state.thought()]]

    def waiting_chain_bytes(self, folder: Path) -> float:
        return asyncio.run(self._waiting(folder))

    async def _waiting(self, folder: Path) -> float:
        """Chains that all wait for their first answer; the only text of theirs is a prompt of a letter."""
        self.open(folder)
        gate = asyncio.Event()
        called = 0

        async def model(_prompt: str) -> str:
            nonlocal called
            called += 1
            await gate.wait()
            return "a text"

        async def wait_for(count: int) -> list[asyncio.Task[Thought]]:
            wanted = called + count
            chains = [Chain(model, "p", checkpoint_storage=self._store) for _ in range(count)]
            tasks = [asyncio.create_task(chain.arun()) for chain in chains]
            while called < wanted:  # noqa: ASYNC110 - the model cannot tell who of them was the last
                await asyncio.sleep(0.01)
            gc.collect()
            return tasks

        first = await wait_for(100)
        before = resident_bytes()
        more = await wait_for(WAITING)
        after = resident_bytes()
        gate.set()
        await asyncio.gather(*first, *more)
        self.close()
        return (after - before) / WAITING
