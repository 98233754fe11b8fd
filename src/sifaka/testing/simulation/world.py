"""A simulated world of faults: contexts, weather, episodes; and policies that play in it (floor 8).

Everything is drawn from one seed, before any policy plays: what is met when, and all dice. So policies are
compared on the same episodes, and the difference is theirs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from sifaka.testing.simulation.causes import PROVIDER
from sifaka.testing.simulation.contexts import Context, Spread, drawn_contexts, drawn_regime
from sifaka.testing.simulation.episodes import Episode
from sifaka.testing.simulation.offers import offered
from sifaka.testing.simulation.oracle import Node, Oracle, Worth
from sifaka.testing.simulation.weather import ANTHROPIC, OPENAI, Incidents

if TYPE_CHECKING:
    from sifaka.testing.simulation.driver import Simulation, Watcher
    from sifaka.testing.simulation.playing import Played, Policy

__all__ = ["World", "WorldSettings"]

START = 1_700_000_000.0
DAY_S = 86_400.0


class WorldSettings(NamedTuple):
    """What a world is made of. Some contexts met often, ``changing``, behave otherwise from the middle on."""

    episodes: int = 3_000
    days: float = 30.0
    contexts: int = 40
    new_contexts: int = 150
    new_share: float = 0.1
    changing: int = 8
    compressed: float = 3.0
    spread: Spread = Spread()
    worth: Worth = Worth()


_USUAL = WorldSettings()


class World:
    """A world of faults, drawn from a seed. It may be played again and again."""

    def __init__(self, seed: int, settings: WorldSettings = _USUAL) -> None:
        self.seed = seed
        self.settings = settings
        random = Random(f"world {seed}")  # noqa: S311 - a simulation, no secret
        self._end = START + settings.days * DAY_S
        self.middle = START + settings.days * DAY_S / 2
        self._weather = {
            name: Incidents(climate.compressed(settings.compressed), seed=f"{seed} {name}", start=START)
            for name, climate in (("ada", OPENAI), ("bel", ANTHROPIC), ("cyn", OPENAI))
        }
        self._bad = {name: _Times(one.bad_times(self._end)) for name, one in self._weather.items()}
        self.contexts = self._changing(
            drawn_contexts(
                random, known=settings.contexts, new=settings.new_contexts, spread=settings.spread
            ),
            random,
        )
        self._oracles: dict[tuple[int, bool, bool], Oracle] = {}
        self.episodes = self._drawn_episodes(random)

    # Drawing -------------------------------------------------------------------------------

    def _changing(self, contexts: Sequence[Context], random: Random) -> list[Context]:
        """The contexts, with another regime for the second half where the best action can change."""
        able = [one for one in contexts if not one.is_new and self._can_change(one)]
        chosen = sorted(able, key=lambda one: -one.weight)[: self.settings.changing]
        return [self._changed(one, random) if one in chosen else one for one in contexts]

    def _can_change(self, context: Context) -> bool:
        return len(offered(context.step, context.kind)) > 1 and set(context.regime.shares) != {PROVIDER}

    def _changed(self, context: Context, random: Random) -> Context:
        """Another regime under which another action comes first; the most different of some."""
        best = self._oracle_for(context, later=False, bad=False).best(Node())[:1]
        for _ in range(30):
            later = drawn_regime(context.kind, random, {}, Spread(0.0, 1.6))
            changed = context._replace(later=later)
            if self._oracle_for(changed, later=True, bad=False).best(Node())[:1] != best:
                return changed
        return context

    def _drawn_episodes(self, random: Random) -> list[Episode]:
        settings = self.settings
        known = [place for place, one in enumerate(self.contexts) if not one.is_new]
        new = [place for place, one in enumerate(self.contexts) if one.is_new]
        weights = [self.contexts[place].weight for place in known]
        drawn: list[tuple[float, int, str]] = []
        for _ in range(settings.episodes):
            is_new = bool(new) and random.random() < settings.new_share
            place = random.choice(new) if is_new else random.choices(known, weights)[0]
            drawn.append(self._when_and_why(place, random))
        drawn.sort()
        return [self._episode(number, *one) for number, one in enumerate(drawn)]

    def _when_and_why(self, place: int, random: Random) -> tuple[float, int, str]:
        """When a context meets its fault, and for which cause."""
        context, regime = self.contexts[place], self.contexts[place].regime
        if context.later is not None and random.random() < 0.5:
            regime = context.later
        cause = random.choices(list(regime.shares), list(regime.shares.values()))[0]
        bad = random.random() < self._bad_shares(context)[cause != PROVIDER]
        begin, end = START, self._end
        if regime is context.later:
            begin = self.middle
        elif context.later is not None:
            end = self.middle
        for _ in range(1_000):
            at = self._bad[context.provider].at(random.random()) if bad else random.uniform(begin, end)
            if begin <= at <= end and self._weather[context.provider].is_bad(at) == bad:
                return at, place, cause
        return random.uniform(begin, end), place, cause

    def _bad_shares(self, context: Context) -> tuple[float, float]:
        """How many of a context's faults fall into bad times: those the provider causes, and the others."""
        share = self._bad[context.provider].total / (self._end - START)
        bad, good = share * context.bad, (1 - share) * context.good
        return bad / (bad + good), share

    def _episode(self, number: int, at: float, place: int, cause: str) -> Episode:
        context = self.contexts[place]
        weather = self._weather[context.provider]
        later = context.later is not None and at >= self.middle
        oracle = self._oracle(place, later=later, bad=weather.is_bad(at))
        return Episode(f"{self.seed}/{number}", at, context, oracle.regime, cause, oracle, weather)

    def _oracle(self, place: int, *, later: bool, bad: bool) -> Oracle:
        key = (place, later, bad)
        if key not in self._oracles:
            self._oracles[key] = self._oracle_for(self.contexts[place], later=later, bad=bad)
        return self._oracles[key]

    def _oracle_for(self, context: Context, *, later: bool, bad: bool) -> Oracle:
        regime = context.later if later and context.later is not None else context.regime
        shares = self._bad_shares(context)
        return Oracle(context, regime, bad=bad, bad_shares=shares, worth=self.settings.worth)

    # Playing -------------------------------------------------------------------------------

    def play(self, policy: Callable[[Simulation, World], Policy], *, also: Watcher | None = None) -> Played:
        """Let a policy decide in all episodes, each a real run. ``also`` sees their records."""
        from sifaka.testing.simulation.playing import play

        return play(self, policy, also)

    def oracle_policy(self) -> Policy:
        """The policy that does as the oracle says."""
        from sifaka.testing.simulation.playing import OraclePolicy

        return OraclePolicy({one.name: one for one in self.episodes})


class _Times:
    """Bad times, to draw a moment of them from."""

    def __init__(self, times: Sequence[tuple[float, float]]) -> None:
        self._begins = [begin for begin, _ in times]
        self._sums = [0.0]
        for begin, end in times:
            self._sums.append(self._sums[-1] + end - begin)
        self.total = self._sums[-1]

    def at(self, share: float) -> float:
        """The moment when ``share`` of all bad time has passed."""
        if not self._begins:
            return START
        passed = share * self.total
        place = min(bisect_right(self._sums, passed) - 1, len(self._begins) - 1)
        return self._begins[place] + passed - self._sums[place]
