"""What many runs teach people: what fails, what helps, where time and money go (floor 4).

Pure functions of the runs' digests. They read whole logs, so they cost as much as there is to read; a ranking
never waits for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sifaka.recovery.calibration import Calibration, calibrate
from sifaka.recovery.digest import Digest, Spent, merged
from sifaka.recovery.posterior import Beta

__all__ = [
    "Analysis",
    "Bottleneck",
    "Correlation",
    "ErrorCount",
    "SuccessRate",
    "analyse",
]


class SuccessRate(msgspec.Struct, frozen=True):
    """How often a strategy worked against a kind of fault; the interval holds the true rate with 0.9."""

    strategy: str
    kind: str
    worked: int
    tried: int
    interval: tuple[float, float]
    mean_cost_usd: float
    mean_seconds: float

    def __str__(self) -> str:
        low, high = self.interval
        rate = f"{self.worked / self.tried:.0%}, between {low:.0%} and {high:.0%}"
        return f"{self.strategy} for {self.kind}: worked {self.worked} of {self.tried} ({rate})"


class ErrorCount(msgspec.Struct, frozen=True):
    """How often a kind of fault happened at a step; ``share`` is that of all calls made there."""

    kind: str
    step: str
    count: int
    share: float
    runs: int


class Bottleneck(msgspec.Struct, frozen=True):
    """Where time and money went: a step, or a model. What ran together counts once in its seconds."""

    of: str
    name: str
    seconds: float
    cost_usd: float
    calls: int
    share_of_time: float
    share_of_cost: float

    def __str__(self) -> str:
        return (
            f"{self.of} {self.name}: {self.seconds:.2f} s ({self.share_of_time:.0%} of the time), "
            f"${self.cost_usd:.4f} ({self.share_of_cost:.0%} of the cost), {self.calls} calls"
        )


class Correlation(msgspec.Struct, frozen=True):
    """How two quantities go together, by ranks (Spearman): -1 to 1, over ``count`` texts; None: unknown."""

    between: str
    value: float | None
    count: int


class Analysis(msgspec.Struct, frozen=True):
    """What the runs of a store teach. ``unread`` are runs whose logs are damaged: they are left out."""

    runs: int
    unread: tuple[str, ...]
    success: tuple[SuccessRate, ...]
    errors: tuple[ErrorCount, ...]
    steps: tuple[Bottleneck, ...]
    models: tuple[Bottleneck, ...]
    correlations: tuple[Correlation, ...]
    calibration: Calibration


def analyse(digests: Sequence[Digest], unread: Sequence[str] = ()) -> Analysis:
    """The analysis of these runs, each list with the most important first."""
    actions = [action for one in digests for action in one.actions if action.success is not None]
    pairs = [(action.confidence, bool(action.success)) for action in actions if action.confidence]
    return Analysis(
        len(digests),
        tuple(unread),
        _success(digests),
        _errors(digests),
        _bottlenecks("step", merged(digests, lambda one: one.steps)),
        _bottlenecks("model", merged(digests, lambda one: one.models)),
        _correlations(digests),
        calibrate(pairs),
    )


def _success(digests: Sequence[Digest]) -> tuple[SuccessRate, ...]:
    groups: dict[tuple[str, str], list[Any]] = {}
    for one in digests:
        for action in one.actions:
            if action.success is not None:
                groups.setdefault((action.strategy, action.kind), []).append(action)
    rates: list[SuccessRate] = []
    for (strategy, kind), actions in groups.items():
        tried, worked = len(actions), sum(action.success for action in actions)
        low, high = Beta(worked + 0.5, tried - worked + 0.5).interval()  # Jeffreys' prior
        cost = sum(action.cost_usd for action in actions) / tried
        seconds = sum(action.seconds for action in actions) / tried
        rates.append(SuccessRate(strategy, kind, worked, tried, (low, high), cost, seconds))
    return tuple(sorted(rates, key=lambda rate: (-rate.tried, rate.strategy, rate.kind)))


def _errors(digests: Sequence[Digest]) -> tuple[ErrorCount, ...]:
    seen: Counter[tuple[str, str]] = Counter()
    runs: Counter[tuple[str, str]] = Counter()
    failed: Counter[str] = Counter()
    for one in digests:
        here = [(fault.kind, fault.operation) for fault in one.faults]
        seen.update(here)
        runs.update(set(here))
        failed.update(fault.operation for fault in one.faults)
    answered = merged(digests, lambda one: one.steps)
    found: list[ErrorCount] = []
    for (kind, step), count in seen.most_common():
        calls = failed[step] + (answered[step].calls if step in answered else 0)
        found.append(ErrorCount(kind, step, count, count / calls, runs[kind, step]))
    return tuple(found)


def _bottlenecks(of: str, spent: dict[str, Spent]) -> tuple[Bottleneck, ...]:
    seconds = sum(one.seconds for one in spent.values())
    cost = sum(one.cost_usd for one in spent.values())
    found = [
        Bottleneck(
            of, name, one.seconds, one.cost_usd, one.calls, _of(one.seconds, seconds), _of(one.cost_usd, cost)
        )
        for name, one in spent.items()
        if one.seconds or one.cost_usd or one.calls
    ]
    return tuple(sorted(found, key=lambda one: (-one.seconds, -one.cost_usd, one.name)))


def _of(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _correlations(digests: Sequence[Digest]) -> tuple[Correlation, ...]:
    texts = [(one, text) for one in digests for text in one.texts]
    lengths = [float(text.chars) for _, text in texts]
    iterations = [float(text.iteration) for _, text in texts]
    faults = [float(_faults_at(one, text.iteration)) for one, text in texts]
    seconds = [text.seconds for _, text in texts]
    return (
        _correlation("length of the text and faults in its iteration", lengths, faults),
        _correlation("iteration and faults in it", iterations, faults),
        _correlation("length of the text and seconds it took", lengths, seconds),
        _correlation("iteration and length of its text", iterations, lengths),
    )


def _faults_at(one: Digest, iteration: int) -> int:
    return sum(fault.iteration == iteration for fault in one.faults)


def _correlation(between: str, some: Sequence[float], others: Sequence[float]) -> Correlation:
    value: float | None = None
    if len(set(some)) > 1 and len(set(others)) > 1 and len(some) > 2:
        from statistics import correlation

        value = correlation(_ranks(some), _ranks(others))
    return Correlation(between, value, len(some))


def _ranks(values: Sequence[float]) -> list[float]:
    """Each value's rank; equal values share the mean of theirs."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    rank: Callable[[float], float] = {value: sum(at) / len(at) for value, at in places.items()}.__getitem__
    return [rank(value) for value in values]
