"""What is read off a played world: excess cost, regret, calibration, and how soon a change is caught up with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from statistics import median
from typing import NamedTuple

__all__ = [
    "BLOCK",
    "Interval",
    "bins_of",
    "brier",
    "ece",
    "excess",
    "interval_of_median",
    "noise_of_ece",
    "pooled_interval",
]

BLOCK = 1_000
BINS = 10
Pair = tuple[float, bool]
"""What was foretold, and what came."""


class Interval(NamedTuple):
    """A figure, and between which two it lies with 95 % confidence."""

    value: float
    low: float
    high: float


def excess(costs: Sequence[float], oracle: Sequence[float]) -> float:
    """By which share the costs are above the oracle's."""
    return sum(costs) / sum(oracle) - 1


def interval_of_median(values: Sequence[float]) -> Interval:
    """The median with its distribution-free interval: two of the values themselves, by the binomial distribution."""
    ordered, n = sorted(values), len(values)
    low = 0
    below = 0.5**n
    while low + 1 < n // 2 and below + math.comb(n, low + 1) * 0.5**n <= 0.025:
        low += 1
        below += math.comb(n, low) * 0.5**n
    return Interval(median(ordered), ordered[low], ordered[n - 1 - low])


def pooled_interval(
    seeds: Sequence[list[Pair]], figure: Callable[[Sequence[Pair]], float], rounds: int = 200
) -> Interval:
    """A figure of all seeds together; its interval by drawing seeds with replacement."""
    random = Random("bootstrap")
    drawn: list[float] = []
    for _ in range(rounds):
        sample = [pair for one in random.choices(seeds, k=len(seeds)) for pair in one]
        drawn.append(figure(sample))
    drawn.sort()
    value = figure([pair for one in seeds for pair in one])
    return Interval(value, drawn[int(0.025 * rounds)], drawn[int(0.975 * rounds)])


# Calibration ---------------------------------------------------------------------------------


class Bin(NamedTuple):
    """So many forecasts of about the same confidence: their mean, and how many came true."""

    size: int
    confidence: float
    worked: float


def bins_of(pairs: Sequence[Pair], bins: int = BINS) -> list[Bin]:
    """Bins of equal mass, by rising confidence. Equal forecasts share what came of them, on both sides of an edge."""
    came: dict[float, list[bool]] = {}
    for confidence, success in pairs:
        came.setdefault(confidence, []).append(success)
    ordered = [(p, sum(came[p]) / len(came[p])) for p in sorted(came) for _ in came[p]]
    edges = [round(n * len(ordered) / bins) for n in range(bins + 1)]
    found = [ordered[a:b] for a, b in pairwise(edges) if b > a]
    return [
        Bin(len(one), sum(p for p, _ in one) / len(one), sum(share for _, share in one) / len(one))
        for one in found
    ]


def ece(pairs: Sequence[Pair]) -> float:
    """The adaptive expected calibration error: the mean gap between foretold and come true, over equal bins."""
    if not pairs:
        return math.nan
    return sum(one.size * abs(one.confidence - one.worked) for one in bins_of(pairs)) / len(pairs)


def brier(pairs: Sequence[Pair]) -> float:
    """The mean squared error of the forecasts."""
    return sum((p - came) ** 2 for p, came in pairs) / len(pairs) if pairs else math.nan


def noise_of_ece(pairs: Sequence[Pair], rounds: int = 20) -> float:
    """What the error would be if every forecast were exactly right: chance alone makes so much of it."""
    random = Random("noise")
    drawn = [ece([(p, random.random() < p) for p, _ in pairs]) for _ in range(rounds)]
    return sum(drawn) / len(drawn)
