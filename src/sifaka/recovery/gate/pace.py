"""When callers are let go after a pause, so that the load after it is no storm (floor 4).

Nobody calls before ``start``; from then on the calls a second grow steadily from ``rate``. The n-th caller's
time follows from that by a formula, so that processes share a schedule by sharing one number: how many
places are taken. A pace is over when it has lasted a minute and nobody waits any more.
"""

from __future__ import annotations

from math import ceil, sqrt

import msgspec

__all__ = ["Pace", "PaceSettings", "after_break", "after_wait", "holds", "reserve"]

TOO_FAR_S = 60.0
"""A start this much later than any stated wait is none of ours, but a clock that was set back."""
GRAIN = 2.0
"""Waits end at whole parts of a second, so many a second: calls that failed together wait together."""
SAME_S = 1.0
"""A wait stated this soon after the last one ended belongs to calls that were made before."""

RATE_MAX = 1e6


class PaceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How fast the calls come back: ``first_per_s`` calls a second, growing by ``more_per_s`` a second.

    A faster pace grows in proportion, so that it is twice as fast after ``double_s`` seconds. After a stated
    wait it begins with ``kept`` of what was called before. Times in seconds.
    """

    first_per_s: float = 1.0
    more_per_s: float = 1.0
    double_s: float = 30.0
    kept: float = 0.5
    lasts_s: float = 60.0
    wait_max_s: float = 300.0


class Pace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The schedule: its start (unix seconds, 0: none), calls a second then, and how many places are taken."""

    start: float = 0.0
    rate: float = 0.0
    taken: float = 0.0


def after_break(pace: Pace, now: float, settings: PaceSettings) -> Pace:
    """The model answers again: few at first, and nobody before a stated wait is over."""
    return Pace(max(now, _sane(pace, now, settings).start), settings.first_per_s)


def after_wait(pace: Pace, until: float, now: float, calls_per_s: float, settings: PaceSettings) -> Pace:
    """Nobody calls before ``until``, as a provider asks; never earlier than what holds already."""
    until = ceil(until * GRAIN) / GRAIN
    if not now < until <= now + settings.wait_max_s + 1 / GRAIN:
        return pace
    pace = _sane(pace, now, settings)
    if until <= pace.start:
        return pace
    if pace.start and now < pace.start + SAME_S:
        return Pace(until, pace.rate)
    return Pace(until, max(settings.first_per_s, settings.kept * calls_per_s))


def holds(pace: Pace, now: float, settings: PaceSettings) -> bool:
    """Whether a call needs a place in the schedule."""
    pace = _sane(pace, now, settings)
    passed = now - pace.start
    return pace.start > 0 and (passed < settings.lasts_s or pace.taken > _released(pace, passed, settings))


def reserve(pace: Pace, places: int, now: float, settings: PaceSettings) -> tuple[Pace, list[float]]:
    """Take up to ``places``, and when their calls may be made (unix seconds).

    Fewer, or none, where so many wait that it would take longer than a provider may ask for.
    """
    passed = max(0.0, now - pace.start)
    first = max(pace.taken, _released(pace, passed, settings))
    times = [pace.start + _passed(pace, first + n, settings) for n in range(places)]
    latest = max(now, pace.start) + settings.wait_max_s
    times = [max(now, at) for at in times if at <= latest]
    return Pace(pace.start, pace.rate, first + len(times)), times


def _sane(pace: Pace, now: float, settings: PaceSettings) -> Pace:
    if not (0.0 <= pace.start <= now + settings.wait_max_s + TOO_FAR_S and 0.0 <= pace.rate < RATE_MAX):
        return Pace()
    most_s = max(0.0, now - pace.start) + settings.wait_max_s + TOO_FAR_S
    return pace if pace.taken <= _released(pace, most_s, settings) else Pace()


def _growth(pace: Pace, settings: PaceSettings) -> float:
    return max(settings.more_per_s, pace.rate / settings.double_s)


def _released(pace: Pace, passed: float, settings: PaceSettings) -> float:
    """How many calls the schedule lets go in its first ``passed`` seconds."""
    return pace.rate * passed + _growth(pace, settings) * passed * passed / 2


def _passed(pace: Pace, places: float, settings: PaceSettings) -> float:
    """The other way round: after how many seconds so many have been let go."""
    growth = _growth(pace, settings)
    return (sqrt(pace.rate * pace.rate + 2 * growth * places) - pace.rate) / growth
