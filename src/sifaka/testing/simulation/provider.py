"""A provider that has good and bad hours, a rate limit, prices and a ledger, in virtual time (floor 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from sifaka.parts import Reply, Usage
from sifaka.testing.simulation.clock import VirtualClock
from sifaka.testing.simulation.failures import failure
from sifaka.testing.simulation.weather import TokenBucket, Weather

__all__ = ["Arrival", "SimulatedModel", "SimulatedProvider"]

_MIX = (("overloaded", 0.4), ("server_error", 0.25), ("timeout", 0.2), ("connection", 0.15))
"""What its failures look like: our judgement."""


class Arrival(NamedTuple):
    """A call that arrived: when (unix seconds), and the kind of fault it got, "" for an answer."""

    time: float
    kind: str


class SimulatedProvider:
    """The other end of many calls.

    ``good_failure`` and ``bad_failure`` are the shares of calls that fail in good and in bad times,
    ``latency_s`` the median of a lognormal latency, ``usd_per_million`` the prices of input and output
    tokens. ``arrivals`` is its ledger: every call that reached it.
    """

    def __init__(
        self,
        name: str,
        clock: VirtualClock,
        *,
        seed: object = 0,
        weather: Weather | None = None,
        bucket: TokenBucket | None = None,
        good_failure: float = 0.01,
        bad_failure: float = 0.4,
        latency_s: float = 4.0,
        usd_per_million: tuple[float, float] = (3.0, 15.0),
    ) -> None:
        self.name = name
        self.clock = clock
        self.arrivals: list[Arrival] = []
        self.billed_usd = 0.0
        self._weather = weather
        self._bucket = bucket
        self._shares = (good_failure, bad_failure)
        self._latency_s = latency_s
        self._prices = usd_per_million
        self._random = Random(f"provider {name} {seed}")  # noqa: S311 - a simulation, no secret

    def model(self, name: str = "one") -> SimulatedModel:
        """One of its models."""
        return SimulatedModel(self, name)

    def answer(self, prompt: str, options: Mapping[str, Any]) -> Reply:
        """Take a call, and the time it takes. Raises what a client would."""
        now, draw = self.clock.time(), self._random
        wait = self._bucket.take(now) if self._bucket is not None else 0.0
        kind, size = "", 1.0
        if wait:
            kind, size = "rate_limit", wait
        elif draw.random() < self._shares[self.is_bad(now)]:
            kind = _drawn(draw, _MIX)
        self.arrivals.append(Arrival(now, kind))
        if kind:
            self.clock.sleep(60.0 if kind == "timeout" else draw.uniform(0.05, 0.5))
            raise failure(kind, size)
        self.clock.sleep(self._latency_s * draw.lognormvariate(0.0, 0.5))
        tokens = min(400, int(options.get("max_tokens", 400)))
        usage = Usage(len(prompt) // 4 + 1, tokens)
        price = (usage.input_tokens * self._prices[0] + tokens * self._prices[1]) / 1e6
        self.billed_usd += price
        return Reply("A text of some length. " * 3, usage, price, "stop", model=self.name)

    def is_bad(self, time: float) -> bool:
        """Whether it has a bad time at ``time`` (unix seconds)."""
        return self._weather is not None and self._weather.is_bad(time)


class SimulatedModel:
    """A model of a :class:`SimulatedProvider`, for a chain."""

    accepts = ("system_prompt", "temperature", "max_tokens")

    def __init__(self, provider: SimulatedProvider, name: str) -> None:
        self._provider = provider
        self.name = f"{provider.name}:{name}"
        self.provider = provider.name

    def generate(self, prompt: str, **options: Any) -> Reply:
        """An answer, after its time. Raises what the provider's client would."""
        return self._provider.answer(prompt, options)


def _drawn(random: Random, mix: Sequence[tuple[str, float]]) -> str:
    names = [name for name, _ in mix]
    return random.choices(names, [weight for _, weight in mix])[0]
