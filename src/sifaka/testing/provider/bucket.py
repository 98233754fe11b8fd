"""A rate limit that is a real token bucket: the stated wait cures it, an early retry does not (floor 8)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from sifaka.clock import Clock, SystemClock
from sifaka.testing.provider.formats import format_of
from sifaka.testing.provider.script import Answer, Behaviour, Received, Refuse, Script, as_function

__all__ = ["Throttle"]

_ANSWER = Answer()


class Throttle:
    """A script that lets requests through to another one at a steady rate, and refuses the rest with a 429.

    Refusals and answers alike carry the provider's rate limit headers. An early retry costs nothing, and
    gets nothing.

    Args:
        script: how the requests that pass are answered.
        per_second: how many requests the bucket regains in a second.
        burst: how many it holds when it is full, which it is at the start.
        clock: whose time fills it; pass :class:`sifaka.testing.FakeClock` for time that stands still.
    """

    def __init__(
        self, script: Script = _ANSWER, *, per_second: float = 1.0, burst: int = 1, clock: Clock | None = None
    ) -> None:
        self.refused = 0
        self._script: Callable[[Received], Behaviour] = as_function(script)
        self._per_second = per_second
        self._burst = burst
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._held = float(burst)
        self._since = self._clock.monotonic()

    def __call__(self, received: Received) -> Behaviour:
        """What happens to the request."""
        passes, headers = self._take(received)
        if not passes:
            return Refuse(429, headers=headers, message="Rate limit reached for requests per second")
        behaviour = self._script(received)
        if isinstance(behaviour, Answer):
            return msgspec.structs.replace(behaviour, headers={**headers, **behaviour.headers})
        return behaviour

    def _take(self, received: Received) -> tuple[bool, dict[str, str]]:
        with self._lock:
            now = self._clock.monotonic()
            self._held = min(self._burst, self._held + (now - self._since) * self._per_second)
            self._since = now
            # What the clock adds up to may fall short of a whole one by a rounding error.
            passes = self._held >= 1 - 1e-9
            self._held -= passes
            self.refused += not passes
            left = int(self._held + 1e-9)
            wait_s = max(0.0, (1 - self._held) / self._per_second)
            full = (self._burst - self._held) / self._per_second
        until = datetime.fromtimestamp(self._clock.time(), UTC) + timedelta(seconds=full)
        told = 0 if not passes else left
        headers = format_of(received.path).limits(self._burst, told, wait_s, until.isoformat())
        if passes:
            headers = {name: value for name, value in headers.items() if not name.startswith("retry-after")}
        return passes, headers
