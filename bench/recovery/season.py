"""One seed: a world, all policies in it, and the figures that are kept of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from bench.recovery.policies import ABLATIONS, CONTESTANTS, ORACLE, SIMILAR
from bench.recovery.scores import BLOCK, Pair, excess
from sifaka.testing.simulation.playing import Played
from sifaka.testing.simulation.world import World, WorldSettings

__all__ = ["Figures", "Season", "play"]

STRIDE = 50
"""The regret curve has a point every so many episodes."""


class Figures(NamedTuple):
    """What is kept of one policy in one world. Shares are of the oracle's cost; ``regret`` is a curve in US dollars."""

    name: str
    first: float
    last: float
    overall: float
    expected_first: float
    expected_last: float
    paid: float
    done: float
    pairs: list[Pair]
    pairs_with_skips: list[Pair]
    unseen: list[Pair]
    regret: list[float]
    after_change: list[list[tuple[float, float]]]
    """By changed context: (regret, the oracle's value) of each fault since the change."""
    before_change: list[tuple[float, float]]
    cpu_s: float
    trace: int


class Season(NamedTuple):
    """All policies in one world."""

    seed: int
    figures: list[Figures]


def play(seed: int, episodes: int, ablate: bool, similar_to: int) -> Season:
    """Play one world with every policy; up to the seed ``similar_to``, with similar cases too."""
    world = World(seed, WorldSettings(episodes=episodes))
    players = [*CONTESTANTS, *(ABLATIONS if ablate else ()), *((SIMILAR,) if seed <= similar_to else ())]
    found: list[Figures] = []
    oracle: Played | None = None
    for one in players:
        began = time.process_time()
        played = world.play(one.make)
        if one.name == ORACLE:
            oracle = played
        if oracle is None:
            raise AssertionError("the oracle plays first")
        found.append(_figures(one.name, world, played, oracle, time.process_time() - began))
    return Season(seed, found)


def _figures(name: str, world: World, played: Played, oracle: Played, cpu_s: float) -> Figures:
    block = min(BLOCK, len(played.cost_usd) // 3)
    first, last = slice(0, block), slice(-block, None)
    forecasts = [one for one in played.forecasts if one.strategy != "skip_to_next_step"]
    return Figures(
        name=name,
        first=excess(played.cost_usd[first], oracle.cost_usd[first]),
        last=excess(played.cost_usd[last], oracle.cost_usd[last]),
        overall=excess(played.cost_usd, oracle.cost_usd),
        expected_first=sum(played.regret_usd[first]) / sum(oracle.value_usd[first]),
        expected_last=sum(played.regret_usd[last]) / sum(oracle.value_usd[last]),
        paid=excess(played.paid_usd, oracle.paid_usd),
        done=sum(played.done) / len(played.done),
        pairs=[(one.confidence, one.success) for one in forecasts],
        pairs_with_skips=[(one.confidence, one.success) for one in played.forecasts],
        unseen=[(one.confidence, one.success) for one in forecasts if not one.seen],
        regret=_curve(played.regret_usd),
        after_change=_after_change(world, played, oracle),
        before_change=_before_change(world, played, oracle),
        cpu_s=cpu_s,
        trace=played.trace,
    )


def _curve(regret: Sequence[float]) -> list[float]:
    total, found = 0.0, [0.0]
    for n, one in enumerate(regret, 1):
        total += one
        if n % STRIDE == 0:
            found.append(total)
    return found


def _after_change(world: World, played: Played, oracle: Played) -> list[list[tuple[float, float]]]:
    by_context: dict[int, list[tuple[float, float]]] = {}
    for n, episode in enumerate(world.episodes):
        if episode.context.later is not None and episode.at >= world.middle:
            by_context.setdefault(id(episode.context), []).append((played.regret_usd[n], oracle.value_usd[n]))
    return list(by_context.values())


def _before_change(world: World, played: Played, oracle: Played) -> list[tuple[float, float]]:
    """In those contexts, the last tenth of the time before the change."""
    since = world.middle - 0.1 * world.settings.days * 86_400
    return [
        (played.regret_usd[n], oracle.value_usd[n])
        for n, episode in enumerate(world.episodes)
        if episode.context.later is not None and since <= episode.at < world.middle
    ]
