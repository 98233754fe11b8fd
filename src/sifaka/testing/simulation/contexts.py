"""The contexts of a simulated world: who meets which fault where, from which causes, at what price (floor 8).

Chances differ from context to context around what their kind has in common, so that what is learned in one
says something about another, and not all. Some contexts change in the middle, and new ones keep coming.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

from sifaka.testing.simulation.causes import CAUSES, PLACES

__all__ = ["Context", "Regime", "Spread", "drawn_contexts", "drawn_regime"]


class Spread(NamedTuple):
    """How much chances differ, in log-odds: by world and kind, and by context.

    ``alike`` says how alike contexts are in the shares of their causes: the sum of a Dirichlet's parameters.
    """

    of_kinds: float = 0.6
    of_contexts: float = 0.8
    alike: float = 3.0


class Regime(NamedTuple):
    """What holds in a context: the share of each cause, and the mean chance of each of its levers."""

    shares: Mapping[str, float]
    cures: Mapping[str, Mapping[str, float]]


class Context(NamedTuple):
    """Where faults of one kind are met.

    ``usd`` and ``seconds`` are what a call of its model costs and takes (median); ``good`` and ``bad`` the
    shares of calls that the provider fails in its good and bad times; ``weight`` how often it is met.
    """

    label: str
    provider: str
    model: str
    step: str
    kind: str
    usd: float
    seconds: float
    good: float
    bad: float
    weight: float
    regime: Regime
    later: Regime | None = None
    """What holds from the middle of the time on, where that changes."""
    is_new: bool = False
    """Met only in the second half, and seldom."""


def drawn_regime(kind: str, random: Random, shifts: Mapping[str, float], spread: Spread) -> Regime:
    """A context's own chances, moved from the table's by the world's shift of the kind and by its own."""
    cures: dict[str, dict[str, float]] = {}
    weights: dict[str, float] = {}
    for cause in CAUSES[kind]:
        weights[cause.name] = random.gammavariate(spread.alike * cause.share, 1.0)
        moved = random.gauss(0.0, spread.of_contexts)
        cures[cause.name] = {
            lever: _moved(mean, shifts.get(lever, 0.0) + moved + random.gauss(0.0, spread.of_contexts / 2))
            for lever, mean in cause.cures.items()
        }
    total = sum(weights.values())
    return Regime({name: weight / total for name, weight in weights.items()}, cures)


def _moved(mean: float, by: float) -> float:
    odds = mean / (1 - mean) * math.exp(by)
    return min(0.98, max(0.02, odds / (1 + odds)))


class _Label(NamedTuple):
    name: str
    provider: str
    model: str
    usd: float
    seconds: float
    weight: float


def drawn_contexts(random: Random, *, known: int, new: int, spread: Spread) -> list[Context]:
    """``known`` contexts that are met all the time, and ``new`` ones of labels nobody has seen."""
    shifts = {kind: _shifts(kind, random, spread) for kind in CAUSES}
    shares = {provider: random.uniform(0.2, 0.6) for provider in ("ada", "bel", "cyn")}
    labels = [_label(f"chain-{n}", random, 1 / (n + 1)) for n in range(8)]
    found: dict[tuple[str, str, str], Context] = {}
    while len(found) < known:
        label = random.choices(labels, [one.weight for one in labels])[0]
        one = _context(label, random, shifts, shares, spread)
        found.setdefault((one.label, one.step, one.kind), one)
    fresh = (_label(f"new-{n}", random, 1.0) for n in range(new))
    more = [_context(label, random, shifts, shares, spread)._replace(is_new=True) for label in fresh]
    return [*found.values(), *more]


def _shifts(kind: str, random: Random, spread: Spread) -> dict[str, float]:
    levers = {lever for cause in CAUSES[kind] for lever in cause.cures}
    return {lever: random.gauss(0.0, spread.of_kinds) for lever in sorted(levers)}


def _label(name: str, random: Random, weight: float) -> _Label:
    provider = random.choice(("ada", "bel", "cyn"))
    dear = random.random() < 0.4
    usd = random.lognormvariate(math.log(0.02 if dear else 0.004), 0.4)
    seconds = random.lognormvariate(math.log(8.0 if dear else 4.0), 0.3)
    return _Label(name, provider, f"{provider}:{'large' if dear else 'small'}", usd, seconds, weight)


def _context(
    label: _Label,
    random: Random,
    shifts: Mapping[str, Mapping[str, float]],
    shares: Mapping[str, float],
    spread: Spread,
) -> Context:
    steps = ("generation", "criticism", "validation", "retrieval")
    step = random.choices(steps, (4.0, 4.0, 2.0, 1.0))[0]
    kind = random.choices(list(PLACES[step]), list(PLACES[step].values()))[0]
    return Context(
        label=label.name,
        provider=label.provider,
        model=label.model,
        step=step,
        kind=kind,
        usd=label.usd,
        seconds=label.seconds,
        good=0.01,
        bad=shares[label.provider],
        weight=label.weight * random.lognormvariate(0.0, 0.7),
        regime=drawn_regime(kind, random, shifts[kind], spread),
    )
