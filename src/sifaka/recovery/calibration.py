"""Whether confidences hold: reliability, calibration error, Brier score, and a map to mend them (floor 4).

Confidences are compared with what came of the actions. Ten bins of equal mass (adaptive expected calibration
error: Nguyen and O'Connor 2015), since confidences crowd together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

import msgspec

__all__ = ["Bin", "Calibration", "calibrate", "isotonic"]

BINS = 10


class Bin(msgspec.Struct, frozen=True):
    """Confidences next to each other: their mean, the share that worked, how many they are."""

    confidence: float
    worked: float
    count: int


class Calibration(msgspec.Struct, frozen=True):
    """How well confidences hold. ``ece``: the mean distance of confidence and share, 0 is best.

    ``brier`` is the mean squared distance of confidence and outcome; ``bins`` make the reliability diagram.
    """

    count: int
    ece: float
    brier: float
    bins: tuple[Bin, ...]


def calibrate(pairs: Sequence[tuple[float, bool]], bins: int = BINS) -> Calibration:
    """The calibration of (confidence, worked) pairs."""
    ordered = sorted(pairs)
    count = len(ordered)
    parts = [ordered[place * count // bins : (place + 1) * count // bins] for place in range(bins)]
    found = tuple(_bin(part) for part in parts if part)
    ece = sum(one.count * abs(one.confidence - one.worked) for one in found)
    brier = sum((confidence - worked) ** 2 for confidence, worked in ordered)
    return Calibration(count, ece / count if count else 0.0, brier / count if count else 0.0, found)


def _bin(pairs: Sequence[tuple[float, bool]]) -> Bin:
    count = len(pairs)
    return Bin(sum(one for one, _ in pairs) / count, sum(worked for _, worked in pairs) / count, count)


def isotonic(pairs: Sequence[tuple[float, bool]]) -> Callable[[float], float]:
    """A rising map from confidence to share, by pooling adjacent violators (Ayer et al. 1955)."""
    pools: list[list[float]] = []  # sum of outcomes, count, lowest confidence
    for confidence, worked in sorted(pairs):
        pools.append([float(worked), 1.0, confidence])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            worked_there, count, _ = pools.pop()
            pools[-1][0] += worked_there
            pools[-1][1] += count
    starts = [pool[2] for pool in pools]
    shares = [pool[0] / pool[1] for pool in pools]

    def mapped(confidence: float) -> float:
        return shares[max(0, bisect_right(starts, confidence) - 1)] if shares else confidence

    return mapped
