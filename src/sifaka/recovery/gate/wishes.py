"""What takes the agreement of all processes: a probe, places in a schedule, retry tokens (floor 4).

Each is a change of the shared value that is wanted until somebody in this process has made it. Places and
tokens are taken some at a time, the more the sooner the last ones were gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from sifaka.locks import ProcessLock
from sifaka.recovery.gate import breaker, pace, retries
from sifaka.recovery.gate.breaker import Claimed
from sifaka.recovery.gate.shared import ProviderLimits, Settings, replaced

__all__ = ["Places", "Probe", "Stock", "Taking", "Tokens"]


class Stock:
    """Times that this process has taken and not given out yet. To be used under a lock."""

    def __init__(self, size_max: int, keep_s: float) -> None:
        self.times: deque[float] = deque()
        self.epoch = 0.0
        self.size = 1
        self.full_until = 0.0
        """No time can be had before this (unix seconds)."""
        self._size_max = size_max
        self._keep_s = keep_s
        self._filled_at = 0.0

    def next(self, epoch: float, now: float) -> float | None:
        """The next time; those of another schedule, or long gone, are of no use."""
        if epoch != self.epoch:
            self.times.clear()
        while self.times and self.times[0] < now - self._keep_s:
            self.times.popleft()
        return self.times.popleft() if self.times else None

    def fill(self, times: list[float], epoch: float, now: float) -> None:
        """Next time more are taken where the last ones were soon gone, fewer where they lasted."""
        lasted_s = now - self._filled_at
        if lasted_s < 1.0:
            self.size = min(self._size_max, 2 * self.size)
        elif lasted_s > 2.0:
            self.size = max(1, self.size // 2)
        self.times = deque(times)
        self.epoch, self._filled_at = epoch, now
        self.full_until = 0.0 if times else now + 1.0


class Probe:
    """The wish to make the one call of a half-open breaker. The view tells who got it."""

    def __init__(self, model: str, token: str, limits: Settings, is_open: Callable[[], bool]) -> None:
        self._model = model
        self._token = token
        self._limits = limits
        self.is_open = is_open

    def change(self, known: ProviderLimits, now: float) -> ProviderLimits:
        """Claim it, where nobody else has."""
        model = known.model(self._model)
        state = breaker.step(model.breaker, Claimed(self._token), now, self._limits.breaker)
        return replaced(known, self._model, msgspec.structs.replace(model, breaker=state))

    def settle(self) -> None:
        """Nothing is left to do."""


class Taking:
    """The wish to have some times in stock; ``why`` says to people what is waited for."""

    def __init__(self, stock: Stock, why: str, limits: Settings, lock: ProcessLock) -> None:
        self.stock = stock
        self.why = why
        self._limits = limits
        self._lock = lock
        self._found: tuple[list[float], float, float] = ([], 0.0, 0.0)

    def is_open(self) -> bool:
        """Whether the stock is still empty."""
        return not self.stock.times

    def change(self, known: ProviderLimits, now: float) -> ProviderLimits:
        """Take some."""
        raise NotImplementedError

    def settle(self) -> None:
        """Put what was taken into the stock."""
        with self._lock:
            self.stock.fill(*self._found)


class Places(Taking):
    """Places in a model's schedule after a pause. Missed ones are of no use: storms are made of them."""

    def __init__(self, model: str, stock: Stock, why: str, limits: Settings, lock: ProcessLock) -> None:
        super().__init__(stock, why, limits, lock)
        self._model = model

    def change(self, known: ProviderLimits, now: float) -> ProviderLimits:
        """Take the next places."""
        model = known.model(self._model)
        schedule, times = pace.reserve(model.pace, self.stock.size, now, self._limits.pace)
        self._found = (times, model.pace.start, now)
        return replaced(known, self._model, msgspec.structs.replace(model, pace=schedule))


class Tokens(Taking):
    """Tokens of the provider's retry budget."""

    def change(self, known: ProviderLimits, now: float) -> ProviderLimits:
        """Take the next tokens."""
        budget, times = retries.take(known.retries, self.stock.size, now, self._limits.retries)
        self._found = (times, 0.0, now)
        return msgspec.structs.replace(known, retries=budget)
