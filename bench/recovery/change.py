"""How soon a change is caught up with: the excess by the number of faults since it, over all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from bench.recovery.scores import Interval

__all__ = ["WINDOW", "catching_up", "faults_to_return"]

WINDOW = 10
Faults = Sequence[tuple[float, float]]


def catching_up(contexts: Sequence[Faults], windows: int = 10) -> list[float]:
    """The excess over the oracle in each window of faults since the change."""
    found: list[float] = []
    for n in range(windows):
        pairs = [pair for one in contexts for pair in one[n * WINDOW : (n + 1) * WINDOW]]
        total = sum(value for _, value in pairs)
        found.append(sum(regret for regret, _ in pairs) / total if total else float("nan"))
    return found


def faults_to_return(contexts: Sequence[Faults], within: float = 0.10) -> float:
    """After how many faults the excess is, and stays, within ``within`` of the oracle; infinite where it never is."""
    windows = [one for one in catching_up(contexts) if one == one]
    outside = [n for n, one in enumerate(windows) if one > within]
    if not outside:
        return 0.0
    return float("inf") if outside[-1] == len(windows) - 1 else (outside[-1] + 1) * WINDOW


def return_interval(seeds: Sequence[Sequence[Faults]], rounds: int = 200) -> Interval:
    """As :func:`faults_to_return`, over all seeds, with its interval by drawing seeds with replacement."""
    random = Random("bootstrap")
    drawn = sorted(
        faults_to_return([one for seed in random.choices(seeds, k=len(seeds)) for one in seed])
        for _ in range(rounds)
    )
    value = faults_to_return([one for seed in seeds for one in seed])
    return Interval(value, drawn[int(0.025 * rounds)], drawn[int(0.975 * rounds)])
