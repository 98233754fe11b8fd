"""The calls of one simulated run: made at once, answered when their time has come (floor 8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from sifaka.engine.effects import Call, Done, Told
from sifaka.parts import Heard
from sifaka.testing.simulation.clock import Pause, VirtualClock

__all__ = ["Calls", "Schedule"]


class Schedule(Protocol):
    """Where something is put that is to happen later."""

    @property
    def clock(self) -> VirtualClock:
        """The time there."""
        ...

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Let ``action`` happen at ``time`` (unix seconds)."""
        ...


class Calls:
    """Calls of one run. ``arrived`` is called when there is something to tell of one of them."""

    def __init__(self, schedule: Schedule, arrived: Callable[[], None]) -> None:
        self._schedule = schedule
        self._arrived = arrived
        self._out: set[int] = set()
        self._news: deque[Done | Told] = deque()

    def start(self, calls: list[Call]) -> None:
        """Make these calls."""
        for call in calls:
            self._out.add(call.key)
            _Flight(self._schedule, call, self._tell).take_off()

    def news(self) -> Done | Told | None:
        """The next thing that there is to tell, if there is one."""
        return self._news.popleft() if self._news else None

    def close(self) -> None:
        """Whatever is still out is not heard any more."""
        self._out.clear()
        self._news.clear()

    def _tell(self, told: Done | Told) -> None:
        if told.key not in self._out:  # its time was up before, or its run is over
            return
        if isinstance(told, Done):
            self._out.discard(told.key)
        self._news.append(told)
        self._arrived()


class _Flight:
    """One call under way."""

    def __init__(self, schedule: Schedule, call: Call, tell: Callable[[Done | Told], None]) -> None:
        self._schedule = schedule
        self._clock = schedule.clock
        self._call = call
        self._tell = tell
        self._began = schedule.clock.time()
        self._heard: Heard | None = None
        self._tell_from = self._began + (call.hears or 0.0)

    def take_off(self) -> None:
        """Make the call: a plain part answers now for a later time, an async one goes to its first wait."""
        call = self._call
        kwargs = call.kwargs if call.hears is None else {**call.kwargs, "hear": self._hear}
        if call.timeout_s is not None:
            self._schedule.at(self._began + call.timeout_s, self._time_is_up)
        value, error, took = self._at_work(lambda: call.function(*call.args, **kwargs))
        if error is None and hasattr(value, "__await__"):
            self._later(took, partial(self._go_on, value.__await__()))
        else:
            self._later(took, partial(self._land, value, error))

    def _at_work(self, work: Callable[[], Any]) -> tuple[Any, BaseException | None, float]:
        """What ``work`` returned or raised, and the seconds that it slept."""
        self._clock.begin_call()
        value, error = None, None
        try:
            value = work()
        except BaseException as raised:  # noqa: BLE001 - the engine decides what it means
            error = raised
        return value, error, self._clock.end_call()

    def _go_on(self, coroutine: Any) -> None:
        """Let an async part work until it waits again, or is done."""
        waits, error, took = self._at_work(lambda: coroutine.send(None))
        if isinstance(error, StopIteration):
            self._later(took, partial(self._land, error.value, None))
        elif error is not None:
            self._later(took, partial(self._land, None, error))
        elif isinstance(waits, Pause):
            self._later(took + waits.seconds, partial(self._go_on, coroutine))
        else:
            coroutine.close()
            strange = TypeError(
                f"a simulated part waited for {waits!r}: in virtual time it can wait for clock.asleep() alone"
            )
            self._land(None, strange)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        if seconds > 0:
            self._schedule.at(self._clock.time() + seconds, action)
        else:
            action()

    def _land(self, value: Any, error: BaseException | None) -> None:
        seconds = self._clock.time() - self._began
        self._tell(Done(self._call.key, value, error, seconds, self._heard))

    def _time_is_up(self) -> None:
        limit = self._call.timeout_s or 0.0
        error = TimeoutError("no answer within timeout_s")
        self._tell(Done(self._call.key, None, error, limit, self._heard))

    def _hear(self, heard: Heard) -> None:
        """Told at the virtual time at which it is heard, but not more often than was asked for."""
        now = self._clock.time()
        new_handle = self._heard is None or heard.handle != self._heard.handle
        self._heard = heard
        if now >= self._tell_from or new_handle:
            self._tell_from = now + (self._call.hears or 0.0)
            told = Told(self._call.key, heard)
            self._schedule.at(now, partial(self._tell, told))
