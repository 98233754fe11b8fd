"""Performing what the engine yields: one synchronous driver, one asynchronous (floor 6).

Both are loops over seven effects and decide nothing. Each tells which records have become durable, as
they do, which is what ``stream`` shows; the engine's result is theirs.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread, get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

from sifaka.clock import Clock
from sifaka.engine.effects import (
    Admit,
    Append,
    Call,
    Consult,
    Done,
    Effect,
    Learn,
    Perform,
    Report,
    Sleep,
    Told,
)
from sifaka.errors import FencedError
from sifaka.log.records import Record
from sifaka.parts import Heard
from sifaka.recovery.evidence import Evidence
from sifaka.storage.journal import Journal, Lease

if TYPE_CHECKING:
    import asyncio

    from sifaka.recovery.gate import Admission, Gate

__all__ = ["Advice", "adrive", "drive"]

WAITED_S = 0.001
"""A call that took longer than this has given way to others: its run waits for its turn to go on."""


class Advice(NamedTuple):
    """What a store's history and its shared limits say: who answers the engine's questions."""

    evidence: Evidence
    open_gate: Callable[[], Gate]

    def on(
        self, effect: Consult | Learn | Admit | Report, chain_id: str
    ) -> tuple[Admission | None, Callable[[], Any] | None]:
        """The answer; or what has it, where the store may have to be asked."""
        if isinstance(effect, Consult):
            return None, partial(self.evidence.rank, effect.situation)
        if isinstance(effect, Learn):
            return None, partial(self.evidence.learn, chain_id, effect.attempts)
        gate, who = self.open_gate(), f"{chain_id}:{effect.part}"
        if isinstance(effect, Report):
            if effect.made:
                due = gate.note(effect.model, effect.fault, who=who)
            else:
                due = gate.withdraw(effect.model, who=who)
            return None, partial(gate.sync, effect.model) if due else None
        known = None if effect.retry else gate.peek(effect.model)
        if known is not None:
            return known, None
        return None, partial(gate.admit, effect.model, retry=effect.retry, who=who)


# Synchronous -------------------------------------------------------------------------------


def drive(
    engine: Generator[Effect, Any, Any],
    journal: Journal,
    lease: Lease,
    clock: Clock,
    advice: Advice,
) -> Generator[list[Record], None, Any]:
    """Perform an engine's effects in this thread; yields the records made durable, returns its result."""
    calls = _Threads(clock)
    answer: Any = None
    thrown: BaseException | None = None
    try:
        while True:
            try:
                effect = engine.send(answer) if thrown is None else engine.throw(thrown)
            except StopIteration as stop:
                return stop.value
            answer = thrown = None
            try:
                if isinstance(effect, Append):
                    journal.append(lease, effect.records, effect.change)
                elif isinstance(effect, Perform):
                    _check_lease(lease)
                    answer = calls.perform(effect.calls)
                elif isinstance(effect, Sleep):
                    clock.sleep(max(0.0, effect.until - clock.time()))
                else:
                    answer, ask = advice.on(effect, lease.chain_id)
                    answer = answer if ask is None else ask()
            except BaseException as error:  # noqa: BLE001 - Ctrl-C: the engine saves what it has first
                thrown = error
                continue
            if isinstance(effect, Append):
                yield effect.records
    finally:
        engine.close()


def _check_lease(lease: Lease) -> None:
    """A run that was taken over pays for no more calls, whenever it would have noticed by itself."""
    if lease.lost:
        raise FencedError(lease.chain_id, lease.token, lease.next_seq)


class _Threads:
    """Calls of one run: one alone in the caller's thread, several in threads of their own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done: SimpleQueue[Done | Told] = SimpleQueue()
        self._out: dict[int, float | None] = {}
        self._limits: dict[int, float] = {}

    def perform(self, calls: list[Call]) -> Done | Told:
        alone = len(calls) == 1 and not self._out
        if alone and calls[0].timeout_s is None and calls[0].hears is None:
            return _call(calls[0], self._clock)
        for call in calls:
            limit = call.timeout_s
            self._out[call.key] = None if limit is None else self._clock.monotonic() + limit
            self._limits[call.key] = limit or 0.0
            _workers.submit(partial(self._work, call))
        return self._next()

    def _work(self, call: Call) -> None:
        self._done.put(_call(call, self._clock, self._done.put))

    def _next(self) -> Done | Told:
        """The next answer, or the first call whose time is up: what it still answers is not heard."""
        from queue import Empty

        while True:
            ends = [(end, key) for key, end in self._out.items() if end is not None]
            try:
                wait = max(0.0, min(ends)[0] - self._clock.monotonic()) if ends else None
                done = self._done.get(timeout=wait)
            except Empty:
                _, key = min(ends)
                del self._out[key]
                return Done(key, None, TimeoutError("no answer within timeout_s"), self._limits.pop(key))
            if done.key not in self._out:
                continue
            if isinstance(done, Done):
                del self._out[done.key]
            return done


class _Ear:
    """Listens to a streamed call: tells what it hears, but not more often than was asked for."""

    def __init__(self, call: Call, clock: Clock, tell: Callable[[Told], None]) -> None:
        self._key = call.key
        self._every_s = call.hears or 0.0
        self._clock = clock
        self._tell = tell
        self._next = clock.monotonic() + self._every_s
        self._handle: str = ""
        self.heard: Heard | None = None

    def __call__(self, heard: Heard) -> None:
        self.heard = heard
        now = self._clock.monotonic()
        if now >= self._next or heard.handle != self._handle:
            self._next, self._handle = now + self._every_s, heard.handle
            self._tell(Told(self._key, heard))


def _ear(call: Call, clock: Clock, tell: Callable[[Told], None] | None) -> tuple[_Ear | None, dict[str, Any]]:
    """Who listens to a call, and the keywords that it is made with."""
    if call.hears is None or tell is None:
        return None, call.kwargs
    ear = _Ear(call, clock, tell)
    return ear, {**call.kwargs, "hear": ear}


def _call(call: Call, clock: Clock, tell: Callable[[Told], None] | None = None) -> Done:
    start = clock.monotonic()
    ear, kwargs = _ear(call, clock, tell)
    value, failure = None, None
    try:
        value = call.function(*call.args, **kwargs)
        if hasattr(value, "__await__"):
            value = _background.wait_for(value)
    except BaseException as error:  # noqa: BLE001 - the engine decides; a thread must not swallow it
        value, failure = None, error
    return Done(call.key, value, failure, clock.monotonic() - start, None if ear is None else ear.heard)


class _Workers:
    """Daemon threads that are kept for the next call: one that hangs holds up nobody's exit."""

    def __init__(self) -> None:
        self._idle: deque[SimpleQueue[Callable[[], None]]] = deque()

    def submit(self, work: Callable[[], None]) -> None:
        try:
            queue = self._idle.pop()
        except IndexError:
            queue = SimpleQueue[Callable[[], None]]()
            Thread(target=self._run, args=(queue,), name="sifaka-call", daemon=True).start()
        queue.put(work)

    def _run(self, queue: SimpleQueue[Callable[[], None]]) -> None:
        while True:
            queue.get()()
            self._idle.append(queue)


class _Background:
    """An event loop in a thread of its own, for async parts of synchronous runs.

    One for the process, so that clients which are bound to a loop keep their connections; it also
    serves runs started inside somebody's running loop, as in a notebook.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._inner: _Background | None = None

    def wait_for(self, awaitable: Awaitable[Any]) -> Any:
        import asyncio

        if self._thread is not None and get_ident() == self._thread.ident:
            # An async part runs a chain of its own: the loop cannot wait for itself, another one can.
            if self._inner is None:
                self._inner = _Background()
            return self._inner.wait_for(awaitable)
        future = asyncio.run_coroutine_threadsafe(_outcome(awaitable), self._running())
        try:
            value, error = future.result()
        except BaseException:  # Ctrl-C while waiting: the part is not left running behind our back
            future.cancel()
            raise
        if error is not None:
            raise error
        return value

    def _running(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                run = self._loop.run_forever
                self._thread = Thread(target=run, name="sifaka-async-parts", daemon=True)
                self._thread.start()
            return self._loop


async def _outcome(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What came of it. A SystemExit let through here would end the loop, and hang who waits for it."""
    import asyncio

    try:
        return await awaitable, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
        return None, error


_workers = _Workers()
_background = _Background()


def _after_fork() -> None:
    """A child has none of its parent's threads."""
    global _workers, _background
    _workers, _background = _Workers(), _Background()


os.register_at_fork(after_in_child=_after_fork)


# Asynchronous ------------------------------------------------------------------------------


async def adrive(
    engine: Generator[Effect, Any, Any],
    journal: Journal,
    lease: Lease,
    clock: Clock,
    advice: Advice,
    seen: Callable[[list[Record]], Awaitable[None]] | None = None,
) -> Any:
    """As :func:`drive`, in the running event loop; ``seen`` is awaited with the records made durable."""
    calls = _Tasks(clock, journal)
    answer: Any = None
    thrown: BaseException | None = None
    try:
        while True:
            try:
                effect = engine.send(answer) if thrown is None else engine.throw(thrown)
            except StopIteration as stop:
                return stop.value
            answer = thrown = None
            try:
                if isinstance(effect, Append):
                    await journal.aappend(lease, effect.records, effect.change)
                    if seen is not None:
                        await seen(effect.records)
                elif isinstance(effect, Perform):
                    _check_lease(lease)
                    answer = await calls.perform(effect.calls)
                elif isinstance(effect, Sleep):
                    await clock.asleep(max(0.0, effect.until - clock.time()))
                else:
                    answer, ask = advice.on(effect, lease.chain_id)
                    answer = answer if ask is None else await journal.in_thread(ask)
            except BaseException as error:  # noqa: BLE001 - cancelled: the engine saves what it has first
                thrown = error
    finally:
        calls.cancel()
        engine.close()


class _Tasks:
    """Calls of one run: one alone in the run's own task, several in tasks beside it."""

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self._clock = clock
        self._journal = journal
        self._out: set[asyncio.Task[Done]] = set()
        self._done: deque[Done | Told] = deque()
        self._woken: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    async def perform(self, calls: list[Call]) -> Done | Told:
        if len(calls) == 1 and not self._out and not self._done and calls[0].hears is None:
            return await self._in_turn(await self._call(calls[0]))
        import asyncio

        self._loop = loop = asyncio.get_running_loop()
        for call in calls:
            task = loop.create_task(self._call(call))
            self._out.add(task)
            task.add_done_callback(self._finished)
        while not self._done:
            self._woken = loop.create_future()
            await self._woken
        return await self._in_turn(self._done.popleft())

    async def _in_turn(self, done: Done | Told) -> Done | Told:
        """The answer, when it is this run's turn: many that waited may have been answered together."""
        if isinstance(done, Told) or done.seconds > WAITED_S:
            await self._journal.turn()
        return done

    def _finished(self, task: asyncio.Task[Done]) -> None:
        self._out.discard(task)
        if not task.cancelled():
            self._tell(task.result())

    def _tell(self, told: Done | Told) -> None:
        self._done.append(told)
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _tell_from_thread(self, told: Told) -> None:
        with suppress(RuntimeError):  # the loop is closed by now: nobody listens any more
            self._loop.call_soon_threadsafe(self._tell, told)

    async def _call(self, call: Call) -> Done:
        clock = self._clock
        start = clock.monotonic()
        ear, kwargs = _ear(call, clock, self._tell_from_thread)
        value, failure = None, None
        try:
            if call.inline:
                value = call.function(*call.args, **kwargs)
            elif call.timeout_s is not None:
                import asyncio

                value = await asyncio.wait_for(_value_of(call, kwargs), call.timeout_s)
            else:
                value = await _value_of(call, kwargs)
        except BaseException as error:  # noqa: BLE001 - whatever a part raises, the engine decides
            failure = _unless_cancelled(error)
        return Done(call.key, value, failure, clock.monotonic() - start, None if ear is None else ear.heard)

    def cancel(self) -> None:
        for task in self._out:
            task.cancel()


def _unless_cancelled(error: BaseException) -> BaseException:
    """The error; raised again where it is this task that is being cancelled.

    A part may also be cancelled from within, by a library of its own: that is its failure, not our end.
    """
    import asyncio

    if not isinstance(error, asyncio.CancelledError):
        return error
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise error
    failure = RuntimeError("the part was cancelled from within")
    failure.__cause__ = error
    return failure


async def _value_of(call: Call, kwargs: dict[str, Any]) -> Any:
    """The part's answer; one that is not async works in a thread, so that the loop stays free."""
    if call.coroutine:
        return await call.function(*call.args, **kwargs)
    import asyncio

    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Done] = loop.create_future()

    def work() -> None:
        try:
            done = Done(call.key, call.function(*call.args, **kwargs), None, 0.0)
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is awaited
            done = Done(call.key, None, error, 0.0)
        with suppress(RuntimeError):  # the loop is closed by now: nobody waits for the answer
            loop.call_soon_threadsafe(settle, done)

    def settle(done: Done) -> None:
        if not answer.done():
            answer.set_result(done)

    _workers.submit(work)
    done = await answer
    if done.error is not None:
        raise done.error
    value = done.value
    return await value if hasattr(value, "__await__") else value
