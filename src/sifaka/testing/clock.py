"""A clock that stands still until it is told to go on, so that no test waits (floor 8)."""

from __future__ import annotations

import threading

__all__ = ["FakeClock"]


class FakeClock:
    """Time that passes only by :meth:`advance` and by sleeping, which returns at once.

    ``start`` is the wall time it begins at, in seconds since the Unix epoch; ``slept`` lists the
    seconds of every sleep, in order. It may be shared between threads and event loops.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self._passed = 0.0
        self._slept: list[float] = []
        self._lock = threading.Lock()

    @property
    def slept(self) -> list[float]:
        """What was slept so far, in seconds, one entry a sleep."""
        with self._lock:
            return list(self._slept)

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        with self._lock:
            return self._start + self._passed

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        with self._lock:
            return self._passed

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass. Raises ValueError for a negative number: time never goes back."""
        with self._lock:
            self._go_on(seconds)

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass at once, and record them. Raises ValueError for a negative number."""
        self._sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """As :meth:`sleep`; other tasks of the event loop get a turn."""
        import asyncio

        self._sleep(seconds)
        await asyncio.sleep(0)

    def _sleep(self, seconds: float) -> None:
        with self._lock:
            self._go_on(seconds)
            self._slept.append(seconds)

    def _go_on(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"time goes on by 0 or more seconds, not by {seconds}")
        self._passed += seconds
