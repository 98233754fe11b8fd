"""One event loop in a thread of its own, for every provider call of the process (floor 2).

A provider's HTTP client keeps connections that belong to the event loop they were opened on.
Callers come from none, or from loops that end with each ``asyncio.run``: so all calls go to this
one, which lives as long as the process. It also lets a blocking call work inside a running loop.

A stream that breaks off leaves behind a chain of half-read generators. They are closed here, before the
call's error goes to the caller: whoever collected them in another thread would race with the loop.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from concurrent.futures import Future

__all__ = ["arun", "later", "run"]

T = TypeVar("T")

_JOIN_S = 2.0

_opened: ContextVar[list[AsyncGenerator[Any, Any]] | None] = ContextVar("_opened", default=None)
"""The generators that the current call has begun to read."""


class _Home:
    """The loop and its thread; a forked child has neither, and makes its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finalizer may come while it is held
        self.loop: AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None

    def started(self) -> AbstractEventLoop:
        with self.lock:
            if self.loop is None:
                import asyncio
                import atexit

                self.loop = asyncio.new_event_loop()
                self.loop.call_soon(_watch_generators)
                self.thread = threading.Thread(
                    target=self.loop.run_forever, name="sifaka-models", daemon=True
                )
                self.thread.start()
                atexit.register(self.stop)
            return self.loop

    def stop(self) -> None:
        """End the thread before the interpreter takes the modules away from under it."""
        loop, thread = self.loop, self.thread
        if loop is None or thread is None or self is not _home:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_JOIN_S)


_home = _Home()
_left_behind: list[_Home] = []
"""Parents' loops, in a forked child. They are never touched: they share their selector with the
parent, whose connections would be lost if one of them was closed here."""


def _after_fork_in_child() -> None:
    global _home  # noqa: PLW0603 (the state is the process's)
    _left_behind.append(_home)
    _home = _Home()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    import asyncio

    return asyncio.run_coroutine_threadsafe(_tidily(work), _home.started())


async def _tidily(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; the generators it began are closed when it ends, however it ends."""
    opened: list[AsyncGenerator[Any, Any]] = []
    _opened.set(opened)
    try:
        return await work
    finally:
        for generator in reversed(opened):
            with suppress(Exception):  # what it has to say of its end is not the caller's concern
                await generator.aclose()


def _watch_generators() -> None:
    """Have each generator of the loop's thread noted by the call that begins it."""
    known = sys.get_asyncgen_hooks().firstiter

    def begun(generator: AsyncGenerator[Any, Any]) -> None:
        if known is not None:
            known(generator)
        opened = _opened.get()
        if opened is not None:
            opened.append(generator)

    sys.set_asyncgen_hooks(firstiter=begun)


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; blocks the calling thread, be it inside an event loop or not."""
    future = _submit(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # of no effect unless the caller was interrupted
        raise


async def arun(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, awaited from any event loop; cancelling it cancels the work."""
    import asyncio

    return await asyncio.wrap_future(_submit(work))


def later(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run what ``make`` gives in the background, if the loop is there; for finalizers."""
    if _home.loop is not None and _home.loop.is_running():
        _submit(make())
