"""One run of an agent under its lease: each call is intended, made, and recorded (floor 9).

A result and the next intent travel in one append. Calls that run together share it where they can, and what
one of them returned is saved while the others are still out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Literal

from sifaka.clock import Clock
from sifaka.engine.effects import Append, Effect
from sifaka.engine.life import Intention
from sifaka.engine.plan import BoundModel, Plan
from sifaka.errors import ChainError, FencedError, StorageError, UsageError
from sifaka.integrations.pydantic_ai import calls
from sifaka.integrations.pydantic_ai.life import AgentLife, Recorded
from sifaka.log.codec import link_of
from sifaka.log.records import Intent, PlannedPart
from sifaka.log.state import State
from sifaka.models.adapted import text_of
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.journal import Lease
from sifaka.storage.reading import read_rows

__all__ = ["LINGER_S", "DurableRun", "Wish"]

LINGER_S = 0.05
"""A result waits so long for the next intent to travel with; then it is saved alone."""

Doubt = Literal["repeat", "stop"]


class AgentPlan(Plan, frozen=True):
    """What a run of an agent is made of: the agent, and its tools."""

    members: tuple[PlannedPart, ...] = ()

    def parts(self) -> tuple[PlannedPart, ...]:
        """The plan as it is recorded."""
        return self.members


class Wish:
    """What the caller wants of a run, beside the agent itself."""

    def __init__(
        self, prompt: str, settings: dict[str, Any], *, on_doubt: str, accept_plan_change: bool
    ) -> None:
        self.prompt = prompt
        self.settings = settings
        self.on_doubt = on_doubt
        self.accept_plan_change = accept_plan_change


class DurableRun:
    """A run from its claim to its release; used in one event loop."""

    def __init__(
        self, chain_id: str, agent_name: str, wish: Wish, storage: CachedCheckpointStorage, clock: Clock
    ) -> None:
        self.chain_id = chain_id
        self.agent_name = agent_name
        self._wish = wish
        self._storage = storage
        self._clock = clock
        self._journal = storage.journal
        self._state = State(chain_id)
        self._recorded = Recorded()
        self._lease: Lease | None = None
        self._life: AgentLife | None = None
        self._doubtful: set[tuple[str, str]] = set()
        self._out = 0
        """Calls that are under way."""
        self._turn = asyncio.Lock()
        self._saving: set[asyncio.Future[None]] = set()
        self._later: asyncio.TimerHandle | None = None

    # Claiming ------------------------------------------------------------------------------

    async def claim(self, wait_s: float) -> None:
        """Take the run, and read what its log has. Raises OwnedError for a living owner's."""
        lease = self._lease = await self._journal.aclaim(self.chain_id, wait_s=wait_s)
        if not lease.is_new:
            await self._journal.off_loop(self._read, lease)

    def _read(self, lease: Lease) -> None:
        prev = 0
        for row, records in read_rows(self._storage.storage, self.chain_id):
            prev = link_of(row.frame)
            for seq, record in enumerate(records, row.first):
                self._state.apply(record)
                self._recorded.apply(seq, record)
        lease.begin_at(self._state.next_seq, prev)

    async def release(self) -> None:
        """Give the run back, unless its last append did."""
        if self._later is not None:
            self._later.cancel()
        if self._saving:
            await asyncio.wait(self._saving)
        if self._lease is not None:
            await self._journal.off_loop(self._journal.release, self._lease)

    @property
    def is_done(self) -> bool:
        """Whether the log has the whole run: nothing is written any more."""
        closed = self._state.closed
        return closed is not None and closed.status == "done"

    # Calls ---------------------------------------------------------------------------------

    async def perform(
        self, operation: calls.Operation, params: Any, body: Callable[[], Awaitable[Any]], on_doubt: Doubt
    ) -> Any:
        """What a call returns: from the log, or by making it. Raises what it fails with."""
        call = calls.call_of(operation, params, self.agent_name)
        life = await self._opened(call, params)
        known = self._recorded.answer(call.key)
        if known is not None:
            return calls.read_answer(operation, known)
        await self._check(life, call, on_doubt)
        seq, intent = life.intend(call, *self._recorded.place(call))
        self._out += 1
        try:
            await self._save()
            self._check_lease()
            return await self._make(life, operation, params, body, seq, intent)
        finally:
            self._out -= 1

    async def _check(self, life: AgentLife, call: calls.Call, on_doubt: Doubt) -> None:
        """Refuse a call that must not be made. Raises ChainError, UsageError."""
        if self.is_done:
            raise UsageError(
                f"the run {self.chain_id!r} is done, and its log has no answer to a call of {call.part} that "
                "the agent makes now: it is not the agent that ran, or decides by more than its messages"
            )
        why = life.refusal(call.price_max_usd)
        if call.key in self._doubtful and on_doubt == "stop":
            why = f"1 call of {call.part} is in doubt, and its on_doubt is 'stop'"
        if why is not None:
            await self._drive(life.end(why))

    async def _make(
        self,
        life: AgentLife,
        operation: calls.Operation,
        params: Any,
        body: Callable[[], Awaitable[Any]],
        seq: int,
        intent: Intent,
    ) -> Any:
        start = self._clock.monotonic()
        try:
            value = await body()
            fields = calls.answered(operation, params, value)
        except Exception as error:
            life.fault(seq, intent, error, self._clock.monotonic() - start)
            self._recorded.give_back(intent)
            await self._save()
            raise
        answer = life.answer(seq, intent.part, self._clock.monotonic() - start, **fields)
        if self._out > 1:
            await self._save()
        else:
            self._save_later()
        return calls.read_answer(operation, answer)  # as every later process will read it

    # The life ------------------------------------------------------------------------------

    async def _opened(self, call: calls.Call, params: Any) -> AgentLife:
        """This life, begun with its first call: only then are the agent's tools and instructions known."""
        async with self._turn:
            if self._life is None:
                self._doubtful = {(one.part, one.digest) for one in self._state.open_intents.values()}
                plan, want = self._plan(call, params), self._intention(call, params)
                life = AgentLife(self._state, plan, want, self._clock)
                await self._append(life.begin())
                self._life = life
        return self._life

    def _plan(self, call: calls.Call, params: Any) -> AgentPlan:
        model = BoundModel(call.model or "agent", _never, True, None, None, None)
        return AgentPlan(model, members=calls.parts_of(self.agent_name, params))

    def _intention(self, call: calls.Call, params: Any) -> Intention:
        wish, lease = self._wish, self._lease
        return Intention(
            prompt=wish.prompt,
            system_prompt=calls.instructions_of(params),
            settings={**wish.settings, "model": call.model},
            asynchronous=True,
            on_doubt=wish.on_doubt,
            accept_plan_change=wish.accept_plan_change,
            died=lease is not None and lease.took_over,
        )

    async def finish(self, output: object, *, ended: bool) -> None:
        """End this life: with the run's output, or before it was done."""
        life = self._life
        if life is None or self.is_done:
            return
        output_text = text_of(output, self.agent_name) if ended else ""
        await self._drive(life.complete(output_text) if ended else life.pause())

    async def leave(self, error: BaseException) -> None:
        """Record that ``error`` ended this life, where that is not recorded yet."""
        life, closed = self._life, self._state.closed
        ended = closed is not None and self._state.next_seq > 0 and isinstance(error, ChainError)
        if life is None or self.is_done or ended or isinstance(error, StorageError):
            return
        with suppress(StorageError):  # what ended the run matters more than that it cannot be told
            await self._drive(life.leave(error))

    # Saving --------------------------------------------------------------------------------

    async def _save(self) -> None:
        """Make durable what waits; calls that start in the same turn of the loop share the append."""
        await asyncio.sleep(0)
        life = self._life
        if life is not None:
            await self._drive(life.flush(force=True))

    def _save_later(self) -> None:
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(LINGER_S, self._save_alone)

    def _save_alone(self) -> None:
        if self._life is not None:
            self._start(self._life.flush(force=True))

    async def _drive(self, steps: Generator[Effect, Any, None]) -> None:
        """Append in turn; who waits for it may be cancelled, the append is not: others' records are in it."""
        await asyncio.shield(self._start(steps))

    def _start(self, steps: Generator[Effect, Any, None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(self._in_turn(steps))
        self._saving.add(task)
        task.add_done_callback(self._saved)
        return task

    def _saved(self, task: asyncio.Future[None]) -> None:
        self._saving.discard(task)
        if not task.cancelled():
            task.exception()  # who waits for it is told; the next append fails likewise

    async def _in_turn(self, steps: Generator[Effect, Any, None]) -> None:
        async with self._turn:
            await self._append(steps)

    async def _append(self, steps: Generator[Effect, Any, None]) -> None:
        lease = self._lease
        for effect in steps:
            if isinstance(effect, Append) and lease is not None:
                await self._journal.aappend(lease, effect.records, effect.change)

    def _check_lease(self) -> None:
        """A run that was taken over pays for no more calls."""
        lease = self._lease
        if lease is not None and lease.lost:
            raise FencedError(lease.chain_id, lease.token, lease.next_seq)


def _never(_prompt: str, **_options: Any) -> str:
    raise AssertionError("an agent's models are asked by pydantic-ai")
