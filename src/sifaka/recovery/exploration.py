"""A small share of choices learns more: Thompson sampling among what loses nothing (floor 4).

With probability ``share`` the first action is a challenger: one that comes first, instead of the best known,
under chances drawn from the posteriors (top-two Thompson sampling: Russo 2016). Where no draw in so many
makes another come first there is nothing to learn, and nothing is explored. The draw is seeded by run and
record, so the same run at the same record decides the same; and the probability of what was chosen is kept,
so that other rankings can be evaluated on what this one did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sifaka.recovery.posterior import Beta

__all__ = ["explored"]

DRAWS = 64
"""How many times chances are drawn: what comes first in none of them is no challenger."""


def explored(
    chances: Sequence[Beta],
    harmless: Sequence[int],
    indexes: Callable[[Sequence[float]], Sequence[float]],
    share: float,
    seed: str,
) -> tuple[int, float]:
    """Which candidate comes first, and with what probability it does.

    The candidates come in the order of their index; ``harmless`` says which of them may come first instead of
    the first one, by their places. ``indexes`` gives the candidates' indexes for their chances.
    """
    arms = sorted({0, *harmless})
    if not seed or not share or len(arms) < 2:
        return 0, 1.0
    from random import Random

    random = Random(seed)  # noqa: S311 - a reproducible choice, no secret
    explores = random.random() < share
    means = [chance.mean for chance in chances]

    def drawn() -> int:
        sample = list(means)
        for place in arms:
            sample[place] = random.betavariate(*chances[place])
        found = indexes(sample)
        return max(arms, key=lambda place: found[place])

    challengers = [place for place in (drawn() for _ in range(DRAWS)) if place]
    if not challengers:
        return 0, 1.0
    if not explores:
        return 0, 1 - share
    return challengers[0], round(share * challengers.count(challengers[0]) / len(challengers), 4)
