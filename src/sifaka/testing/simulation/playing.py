"""Letting a policy play: each episode of a world as a real run, in the order of their times (floor 8).

The policy stands where the library's own evidence stands; engine, limits, log and store are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sifaka.engine.life import Intention
from sifaka.engine.plan import Plan, bind_model, bind_part
from sifaka.engine.run import Engine
from sifaka.log.records import Record
from sifaka.recovery.actions import RecoveryAction
from sifaka.recovery.evidence import Attempt
from sifaka.recovery.situation import Situation
from sifaka.testing.simulation.driver import Run, Simulation, Watcher
from sifaka.testing.simulation.episodes import Episode
from sifaka.testing.simulation.offers import OPTIONS, offer

if TYPE_CHECKING:
    from sifaka.testing.simulation.world import World

__all__ = ["Forecast", "OraclePolicy", "Played", "Policy", "play"]


class Policy(Protocol):
    """Who answers what can be done about a fault: :class:`~sifaka.recovery.evidence.Evidence`, or another."""

    def rank(self, at: Situation) -> list[RecoveryAction]:
        """The actions, best first."""
        ...

    def learn(self, chain_id: str, attempts: Iterable[Attempt]) -> object:
        """Take notice of what came of actions."""
        ...


class Forecast(NamedTuple):
    """What was foretold of an action, and whether it worked. ``seen``: the context had outcomes before."""

    episode: int
    confidence: float
    success: bool
    strategy: str
    seen: bool


class Played(NamedTuple):
    """What came of a policy in a world: one entry an episode, in their order."""

    cost_usd: list[float]
    paid_usd: list[float]
    """Of that, money and time alone."""
    regret_usd: list[float]
    value_usd: list[float]
    """What the oracle expected of each."""
    done: list[bool]
    forecasts: list[Forecast]
    trace: int


def play(world: World, policy: Callable[[Simulation, World], Policy], also: Watcher | None = None) -> Played:
    """Let a policy decide in all episodes. ``also`` is told of all records."""
    by_name = {episode.name: number for number, episode in enumerate(world.episodes)}
    judged = _Judged()

    def watch(run: Run, records: list[Record]) -> None:
        world.episodes[by_name[run.chain_id]].watch(records)
        if also is not None:
            also(run, records)

    simulation = Simulation(seed=world.seed, evidence=judged, watch=watch)
    judged.begin(policy(simulation, world), world, by_name)
    for episode in world.episodes:
        episode.begin(simulation.clock)
        simulation.at(episode.at, _starter(simulation, episode))
    simulation.run()
    left = simulation.unfinished
    if left:
        raise AssertionError(f"{len(left)} runs have not ended: {left[0].chain_id}")
    episodes = world.episodes
    return Played(
        [one.cost_usd for one in episodes],
        [one.cost_usd - one.losses_usd for one in episodes],
        [one.regret_usd for one in episodes],
        [one.value_usd for one in episodes],
        [one.done for one in episodes],
        judged.forecasts,
        simulation.trace,
    )


class _Judged:
    """A policy, and a note of all that it foretold."""

    def __init__(self) -> None:
        self.forecasts: list[Forecast] = []
        self._seen: set[tuple[str, ...]] = set()
        self._policy: Policy
        self._world: World
        self._by_name: dict[str, int]

    def begin(self, policy: Policy, world: World, by_name: dict[str, int]) -> None:
        self._policy, self._world, self._by_name = policy, world, by_name

    def rank(self, at: Situation) -> list[RecoveryAction]:
        return self._policy.rank(at)

    def learn(self, chain_id: str, attempts: Sequence[Attempt]) -> object:
        number = self._by_name[chain_id]
        context = self._world.episodes[number].context
        where = (context.label, context.kind, context.step, context.model)
        for one in attempts:
            recovery = one.recovery
            self.forecasts.append(
                Forecast(number, recovery.confidence, one.success, recovery.strategy, where in self._seen)
            )
        self._seen.add(where)
        return self._policy.learn(chain_id, attempts)


def _starter(simulation: Simulation, episode: Episode) -> Callable[[], None]:
    def start() -> None:
        lease = simulation.storage.journal.claim(episode.name)
        lease.label = episode.context.label
        engine = Engine(simulation.state_of(lease), _plan(episode), _wants(episode), simulation.clock)
        simulation.start_engine(engine, lease)

    return start


class _Model:
    accepts = ("temperature", "max_tokens")

    def __init__(self, episode: Episode) -> None:
        self.name = episode.context.model
        self.generate = episode.generate


def _plan(episode: Episode) -> Plan:
    context = episode.context
    retrieves = context.step == "retrieval" or context.kind == "context_length"
    return Plan(
        model=bind_model(_Model(episode)),
        model_retrievers=(bind_part("model_retriever", episode.retrieve, ()),) if retrieves else (),
        validators=(bind_part("validator", episode.validate, ()),) if context.step == "validation" else (),
        critics=(bind_part("critic", episode.critique, ()),) if context.step == "criticism" else (),
    )


def _wants(episode: Episode) -> Intention:
    context, worth = episode.context, episode.oracle.worth
    settings: dict[str, Any] = {
        "label": context.label,
        "model": context.model,
        "always_apply_critics": True,
        "critique_final": True,
        "max_improvement_iterations": 0,
        "on_doubt": "repeat",
        "durability": "step",
        **OPTIONS,
        "usd_per_hour": worth.usd_per_s * 3600,
        "value_usd": worth.value_usd,
    }
    if context.kind == "timeout":
        settings["timeout_s"] = 60.0
    return Intention(prompt="Write.", system_prompt=None, settings=settings, recover=True)


class OraclePolicy:
    """Offers the oracle's choices, cheapest first."""

    def __init__(self, episodes: dict[str, Episode]) -> None:
        self._episodes = episodes

    def rank(self, at: Situation) -> list[RecoveryAction]:
        """The choices that cost less than giving up."""
        episode = self._episodes[at.chain_id]
        oracle, node = episode.oracle, episode.node
        return [
            offer(lever, at, oracle.chance(node, lever) if lever != "skip" else 1.0, episode.in_force)
            for lever in oracle.best(node)
        ]

    def learn(self, chain_id: str, attempts: Iterable[Attempt]) -> None:
        """It knows already."""
        del chain_id, attempts
