"""How likely an action works: counts shrunk towards what broader contexts say (floor 4).

A Beta-Bernoulli posterior at each rung of a ladder of contexts: p = (worked + m p_parent) / (tried + m), from
the prior table down to the context at hand. Attempts at one fault share a hidden state (the provider is
having a bad hour), so what comes after one failure, and after two, is counted apart: its parent is the rung's
own estimate for one failure less, moved by as much, in log-odds, as the broader rung moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "DEPTHS",
    "NO_COUNT",
    "STRENGTH",
    "Beta",
    "Count",
    "after_failures",
    "posterior",
    "probability_below",
]

STRENGTH = 4.0
"""m: how many observations the parent is worth. Few, since contexts differ much from one another."""

DEPTHS = 3
"""Attempts are counted by how many failed at the same fault before: none, one, two or more."""

TASK_STRENGTH = 1.2
"""How many failures of its own a chance at one task is worth: tasks are mostly hopeless or easy.

Success at a task is Beta-distributed with a + b of about 1.2: that is what it comes to where one try works in
69 of 100 tasks, and four in a row do in 46 (tau-bench, 2024).
"""

OTHERS_WEIGHT = 0.5
"""What another action's failure at this fault says of this one, beside an outcome of its own elsewhere."""

ALIKE = 0.2
"""How alike the outcomes of one context are: the intra-class correlation 1 / (m + 1) of a Beta-binomial.

Twenty outcomes of one context say less of another than one of each of twenty: n of them are worth
n / (1 + (n - 1) rho), five at most (Kish's design effect).
"""

_EDGE = 1e-3
"""Probabilities are kept so far from 0 and 1: no count makes anything certain."""


class Count(NamedTuple):
    """Outcomes, discounted by age: that many tried, of which so many worked."""

    tried: float = 0.0
    worked: float = 0.0

    def __add__(self, other: object) -> Count:
        if not isinstance(other, Count):
            return NotImplemented
        return Count(self.tried + other.tried, self.worked + other.worked)

    @property
    def worth_elsewhere(self) -> Count:
        """What so many outcomes of one context are worth for another one."""
        worth = 1 / (1 + max(0.0, self.tried - 1) * ALIKE)
        return Count(self.tried * worth, self.worked * worth)

    def without(self, part: Count) -> Count:
        """The counts that ``part``, which is among them, leaves."""
        tried = max(0.0, self.tried - part.tried)
        return Count(tried, min(tried, max(0.0, self.worked - part.worked)))


NO_COUNT = Count()
"""Nothing was seen."""


class Beta(NamedTuple):
    """A Beta distribution of a probability."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        """Its mean: the estimate."""
        return self.a / (self.a + self.b)

    def interval(self, mass: float = 0.9) -> tuple[float, float]:
        """The equal-tailed interval that holds ``mass`` of it."""
        tail = (1 - mass) / 2
        return _quantile(tail, self.a, self.b), _quantile(1 - tail, self.a, self.b)


def after_failures(prior: float, own: int, others: int, strength: float = STRENGTH) -> float:
    """``prior`` after so many failures at the same fault, by this action and by other ones."""
    return prior * TASK_STRENGTH / (TASK_STRENGTH + own) * strength / (strength + OTHERS_WEIGHT * others)


def posterior(
    priors: Sequence[float],
    rungs: Sequence[Sequence[Count]],
    similar: Count = NO_COUNT,
    strength: float = STRENGTH,
) -> Beta:
    """The posterior in the last rung's context after ``len(priors) - 1`` failures.

    ``priors[d]`` is the table's probability after ``d`` failures; ``rungs[r][d]`` what was counted there, the
    broadest rung first. ``similar`` are pseudo-counts of the last rung's prior.
    """
    broader = list(priors)
    found = Beta(strength * broader[-1], strength * (1 - broader[-1]))
    for place, rung in enumerate(rungs):
        last = place == len(rungs) - 1
        here: list[float] = []
        for depth, parent in enumerate(broader):
            if depth:
                parent = _moved(here[-1], broader[depth - 1], parent)  # noqa: PLW2901 - it is the same quantity
            found = _updated(parent, rung[depth], similar if last and not depth else NO_COUNT, strength)
            here.append(found.mean)
        broader = here
    return found


def _updated(parent: float, count: Count, similar: Count, strength: float) -> Beta:
    worked = count.worked + similar.worked
    failed = count.tried + similar.tried - worked
    return Beta(worked + strength * parent, failed + strength * (1 - parent))


def _moved(start: float, before: float, after: float) -> float:
    """``start``, moved by as much as it is from ``before`` to ``after``, in log-odds."""
    odds = _odds(start) * _odds(after) / _odds(before)
    return odds / (1 + odds)


def _odds(probability: float) -> float:
    inside = min(1 - _EDGE, max(_EDGE, probability))
    return inside / (1 - inside)


# The Beta distribution -----------------------------------------------------------------------


def probability_below(x: float, a: float, b: float) -> float:
    """P(X <= x) for X of Beta(a, b): the regularised incomplete beta function, to about 1e-12.

    By its continued fraction (DLMF 8.17.22), which converges quickly below the mean; above it the
    symmetry I_x(a, b) = 1 - I_(1-x)(b, a) is used.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - probability_below(1 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + _log_gammas(a, b) - math.log(a)
    return math.exp(log_front) / _fraction(x, a, b)


@lru_cache(1024)
def _log_gammas(a: float, b: float) -> float:
    return math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)), by Lentz's method."""
    tiny = 1e-300
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1, 500):
        half = step // 2
        if step % 2:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        d = 1 / (1 + term * d or tiny)
        c = 1 + term / c or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-13:
            break
    return value


@lru_cache(4096)
def _quantile(probability: float, a: float, b: float) -> float:
    """The x with P(X <= x) = ``probability``, to about 1e-4: Newton's steps, kept between two bounds."""
    low, high, x = 0.0, 1.0, a / (a + b)
    for _ in range(60):
        missing = probability_below(x, a, b) - probability
        low, high = (low, x) if missing > 0 else (x, high)
        density = math.exp((a - 1) * math.log(x) + (b - 1) * math.log1p(-x) + _log_gammas(a, b))
        step = x - missing / density if density > 0 else -1.0
        new = step if low < step < high else (low + high) / 2
        if abs(new - x) < 1e-5 or high - low < 1e-5:
            return new
        x = min(1 - 1e-12, max(1e-12, new))
    return x
