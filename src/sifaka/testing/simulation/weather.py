"""When a provider has a bad hour, and what it lets through: hidden states and token buckets (floor 8).

Incidents come in bursts and last long: a two-state semi-Markov process with lognormal durations and Weibull
gaps, whose figures others have measured on status pages. A rate limit is a real token bucket: whoever waits
as long as it says gets through if nobody else was quicker, and whoever comes earlier does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, Protocol

__all__ = ["ANTHROPIC", "OPENAI", "Climate", "Incidents", "Outages", "TokenBucket", "Weather"]


class Climate(NamedTuple):
    """How long incidents last and how often they come: ``mu`` and ``sigma`` of ln(minutes), gaps in hours."""

    mu: float = 4.40
    sigma: float = 1.09
    gap_shape: float = 0.72
    gap_scale_h: float = 66.0

    def compressed(self, times: float) -> Climate:
        """The same with gaps that are shorter by ``times``, for experiments of some days."""
        return self._replace(gap_scale_h=self.gap_scale_h / times)


OPENAI = Climate(4.40, 1.09)
"""Median 84 minutes."""
ANTHROPIC = Climate(3.79, 1.24)
"""Median 41 minutes, with a longer tail."""


class Weather(Protocol):
    """Tells whether a provider is having a bad time."""

    def is_bad(self, time: float) -> bool:
        """Whether it is, at ``time`` (unix seconds)."""
        ...


class Incidents:
    """Good and bad times in turn from ``start`` (unix seconds) on, drawn as they are asked for."""

    def __init__(self, climate: Climate, *, seed: object, start: float) -> None:
        self._climate = climate
        self._random = Random(f"incidents {seed}")  # noqa: S311 - a simulation, no secret
        self._changes: list[float] = [start]
        """Good from the first on, bad from the second, and so on."""

    def is_bad(self, time: float) -> bool:
        """Whether ``time`` (unix seconds) lies in an incident."""
        from bisect import bisect_right

        while self._changes[-1] <= time:
            self._changes.append(self._changes[-1] + self._length_s())
        return bisect_right(self._changes, time) % 2 == 0

    def bad_times(self, until: float) -> list[tuple[float, float]]:
        """The incidents that begin before ``until``, as (begin, end) in unix seconds, the last one cut."""
        self.is_bad(until)
        ends = iter(self._changes[1:])
        return [(begin, min(end, until)) for begin, end in zip(ends, ends, strict=False) if begin < until]

    def _length_s(self) -> float:
        climate = self._climate
        if len(self._changes) % 2:
            return 3600 * self._random.weibullvariate(climate.gap_scale_h, climate.gap_shape)
        return 60 * self._random.lognormvariate(climate.mu, climate.sigma)


class Outages:
    """Bad times that are given, as (begin, end) in unix seconds."""

    def __init__(self, times: Sequence[tuple[float, float]]) -> None:
        self.times = tuple(times)

    def is_bad(self, time: float) -> bool:
        """Whether ``time`` lies in one of them."""
        return any(begin <= time < end for begin, end in self.times)


class TokenBucket:
    """``rate_per_s`` calls a second, and ``burst`` at once after a pause."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        if not (rate_per_s > 0 and burst >= 1):
            raise ValueError(
                f"rate_per_s={rate_per_s}, burst={burst}; the one is above 0, the other 1 or more"
            )
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._tokens = burst
        self._at = 0.0

    def take(self, time: float) -> float:
        """0.0 where a call gets through at ``time``; else in how many seconds one would."""
        self._tokens = min(self.burst, self._tokens + max(0.0, time - self._at) * self.rate_per_s)
        self._at = max(self._at, time)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate_per_s
