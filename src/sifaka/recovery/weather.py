"""Whether a provider is having a bad hour, from how its calls have failed lately in all runs (floor 4).

Incidents last an hour or so, and while one lasts other things help than otherwise: waiting, not longer
limits. Faults are counted twice per provider, with a short memory and with a long one; where the short one
holds many more than the long one would have in so short a time, the hour is bad, and what is tried in it is
counted apart. One cell a provider, shared by all processes.
"""

from __future__ import annotations

import msgspec

__all__ = ["WEATHER_KINDS", "Weather", "decode_weather", "encode_weather", "provider_of"]

WEATHER_KINDS = frozenset(("connection", "overloaded", "rate_limit", "server_error", "timeout"))
"""Faults that a provider's bad hour causes."""

SHORT_S = 20 * 60.0
"""Half-life of the short memory: a third of a usual incident, whose median is about an hour."""
LONG_S = 7 * 86_400.0
"""Half-life of the long one."""
FAULTS_MIN = 1.5
"""About two faults of other runs: one alone is no bad hour."""
TIMES_MORE = 3.0
"""So many times more than usual."""


class Weather(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A provider's faults, discounted up to ``at`` (unix seconds) with a short and a long half-life."""

    short: float = 0.0
    long: float = 0.0
    at: float = 0.0

    def now(self, now: float) -> Weather:
        """As it is worth at ``now``."""
        age = max(0.0, now - self.at)
        return Weather(
            self.short * 0.5 ** (age / SHORT_S), self.long * 0.5 ** (age / LONG_S), max(now, self.at)
        )

    def plus(self, now: float) -> Weather:
        """With one more fault."""
        then = self.now(now)
        return Weather(then.short + 1, then.long + 1, then.at)

    def is_bad(self, now: float, own: int = 0) -> bool:
        """Whether the hour is bad; ``own`` of the faults are those of the run that asks."""
        then = self.now(now)
        lately, usual = then.short - own, then.long * SHORT_S / LONG_S
        return lately >= FAULTS_MIN and lately > TIMES_MORE * usual


_decoder = msgspec.msgpack.Decoder(Weather)


def decode_weather(value: bytes) -> Weather:
    """From a cell; nothing is known of an empty one. Raises ``msgspec.DecodeError``."""
    return _decoder.decode(value) if value else Weather()


def encode_weather(weather: Weather) -> bytes:
    """For a cell."""
    return msgspec.msgpack.encode(weather)


def provider_of(model: str) -> str:
    """The provider in a model's spec, or the model's name where it names none."""
    return model.partition(":")[0]
