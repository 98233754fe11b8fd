"""A small share of choices learns more: Thompson sampling among what loses nothing (floor 4).

With probability ``share`` the first action is the one that comes first under chances drawn from the
posteriors (Thompson, 1933), instead of under their means. The draw is seeded by run and record, so the same
run at the same record decides the same; and the probability of what was chosen is kept, so that other
rankings can be evaluated on what this one did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sifaka.recovery.posterior import Beta

__all__ = ["explored"]

DRAWS = 64
"""How many draws the propensity is estimated from."""


def explored(
    chances: Sequence[Beta],
    harmless: Sequence[int],
    indexes: Callable[[Sequence[float]], Sequence[float]],
    share: float,
    seed: str,
) -> tuple[int, float]:
    """Which candidate comes first, and with what probability it does.

    The candidates come in the order of their index; ``harmless`` says which of them may be explored, by
    their places. ``indexes`` gives the candidates' indexes for their chances.
    """
    if not seed or not share or 0 not in harmless or len(harmless) < 2:
        return 0, 1.0
    from random import Random

    random = Random(seed)  # noqa: S311 - a reproducible choice, no secret
    explores = random.random() < share
    means = [chance.mean for chance in chances]

    def drawn() -> int:
        sample = list(means)
        for place in harmless:
            sample[place] = random.betavariate(*chances[place])
        found = indexes(sample)
        return max(harmless, key=lambda place: found[place])

    firsts = [drawn() for _ in range(DRAWS)]
    first = firsts[0] if explores else 0
    by_thompson = firsts.count(first) / DRAWS
    return first, round(share * by_thompson + (1 - share) * (first == 0), 4)
