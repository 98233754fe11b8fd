"""The retry budget: how many of a provider's calls may be repeats (floor 4).

A token bucket that fills with the calls that are made: a tenth of those of the last two minutes, and three
a minute at least. Tokens may be promised ahead of time, each with the second it is expected at, so that those
who wait do not all come at once. A state is a value that processes exchange.
"""

from __future__ import annotations

import msgspec

__all__ = ["RetryBudget", "RetrySettings", "calls_made", "per_s", "take"]

SLOT_S = 10.0
"""Calls are counted by so many seconds."""


class RetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``share`` of the calls of ``window_s`` seconds, ``least_per_min`` at least (Google SRE; Finagle: .2).

    So much as ``burst_s`` seconds bring may be taken at once, and promises reach ``ahead_s`` seconds.
    """

    share: float = 0.1
    window_s: float = 120.0
    least_per_min: float = 3.0
    burst_s: float = 10.0
    ahead_s: float = 60.0


class RetryBudget(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """(number of the slot, calls) of the last two minutes; the tokens that were there at ``at`` (unix s).

    Fewer than none: so many are promised.
    """

    slots: tuple[tuple[int, int], ...] = ()
    tokens: float = 0.0
    at: float = 0.0


def calls_made(budget: RetryBudget, calls: int, now: float, settings: RetrySettings) -> RetryBudget:
    """The budget after so many more calls, first ones and repeats."""
    budget = _filled(budget, now, settings)
    here = int(now // SLOT_S)
    slots = dict(budget.slots)
    slots[here] = slots.get(here, 0) + calls
    return msgspec.structs.replace(budget, slots=tuple(sorted(slots.items())))


def per_s(budget: RetryBudget, now: float, settings: RetrySettings) -> float:
    """How many tokens come in a second just now."""
    calls = sum(calls for _, calls in _recent(budget, now, settings))
    return max(settings.least_per_min / 60, settings.share * calls / settings.window_s)


def take(
    budget: RetryBudget, wanted: int, now: float, settings: RetrySettings
) -> tuple[RetryBudget, list[float]]:
    """Take up to ``wanted`` tokens, and when each may be used (unix seconds).

    Fewer, or none, where they would only come later than a promise may reach.
    """
    budget = _filled(budget, now, settings)
    rate = per_s(budget, now, settings)
    times = [now + max(0.0, n - budget.tokens) / rate for n in range(1, wanted + 1)]
    times = [at for at in times if at <= now + settings.ahead_s]
    return msgspec.structs.replace(budget, tokens=budget.tokens - len(times)), times


def _filled(budget: RetryBudget, now: float, settings: RetrySettings) -> RetryBudget:
    rate = per_s(budget, now, settings)
    most, least = max(settings.least_per_min, rate * settings.burst_s), -rate * settings.ahead_s
    passed = max(0.0, now - budget.at)  # a clock that was set back brings nothing, and takes nothing
    tokens = max(least, min(most, budget.tokens + passed * rate))
    return RetryBudget(_recent(budget, now, settings), tokens, now)


def _recent(budget: RetryBudget, now: float, settings: RetrySettings) -> tuple[tuple[int, int], ...]:
    here = int(now // SLOT_S)
    first = here - int(settings.window_s // SLOT_S) + 1
    return tuple(one for one in budget.slots if first <= one[0] <= here)
