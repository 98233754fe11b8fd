"""The third driver: thousands of runs in one thread and in virtual time, the same each time (floor 8).

An event queue performs what engines yield, on a real store, with the real evidence and the real shared
limits. Who goes first of those whose time is the same is drawn from the seed, so other seeds give other
interleavings and the same seed gives the same trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, cast
from zlib import crc32

from sifaka.chain import Chain
from sifaka.drivers import Advice
from sifaka.engine.effects import Append, Effect, Perform, Sleep
from sifaka.engine.run import Engine
from sifaka.errors import FencedError
from sifaka.log.records import Record
from sifaka.recovery.evidence import Evidence
from sifaka.recovery.gate import Gate
from sifaka.storage.base import Renewal, Storage
from sifaka.storage.cells import SharedCells
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.journal import Lease
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.simulation.calls import Calls
from sifaka.testing.simulation.clock import VirtualClock
from sifaka.thought import Thought

__all__ = ["Run", "Simulation", "Watcher"]

LEASE_S = 1e9
"""Leases are renewed by a thread and the machine's clock; in virtual time they simply last."""

Watcher = Callable[["Run", list[Record]], None]
"""Called with the records that have become durable, as they do."""


class Run:
    """One life of a run in a simulation: its engine, and what became of it.

    ``began_at`` and ``ended_at`` are unix seconds (``ended_at`` None while it runs); ``thought`` is its
    result, ``error`` what it ended with.
    """

    def __init__(self, engine: Engine, lease: Lease, advice: Advice, began_at: float) -> None:
        self.engine = engine
        self.lease = lease
        self.advice = advice
        self.chain_id = lease.chain_id
        self.began_at = began_at
        self.ended_at: float | None = None
        self.thought: Thought | None = None
        self.error: BaseException | None = None
        self.effects = engine.run()
        self.calls: Calls
        self.waits_for_call = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.ended_at is not None


class Simulation:
    """Many runs at once in virtual time, in this thread alone.

    ``storage`` is any store that lives in this process and keeps its time by ``clock``; by default memory.
    The parts of the chains tell how long they take by sleeping on :attr:`clock`. ``processes`` is how many
    processes the runs are spread over: each has a view of its own of the store's shared limits.

    Example:
        >>> from sifaka.chain import Chain
        >>> from sifaka.testing.simulation import Simulation
        >>> simulation = Simulation(seed=1)
        >>> def model(prompt):
        ...     simulation.clock.sleep(30.0)
        ...     return "a text"
        >>> run = simulation.start(Chain(model, "Write.", clock=simulation.clock))
        >>> simulation.run()
        >>> run.thought.text, run.ended_at - run.began_at
        ('a text', 30.0)
    """

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        seed: int = 0,
        clock: VirtualClock | None = None,
        processes: int = 1,
        evidence: Any = None,
        watch: Watcher | None = None,
    ) -> None:
        self.seed = seed
        self.clock = clock or VirtualClock()
        self.storage = CachedCheckpointStorage(storage or InMemoryStorage(clock=self.clock), lease_s=LEASE_S)
        self.advices = [self._advice(evidence) for _ in range(processes)]
        self.runs: dict[str, Run] = {}
        self.trace = 0
        """A checksum of all that was stored, in its order: equal for equal seeds."""
        self.effects = 0
        """How many effects were performed."""
        self._watch = watch
        self._random = Random(seed)  # noqa: S311 - it orders events, and is no secret
        self._events: list[tuple[float, float, int, Callable[[], None]]] = []
        self._numbers = count()

    def _advice(self, evidence: Any) -> Advice:
        cells = SharedCells(self.storage.storage)
        gate = Gate(cells, self.clock)
        return Advice(evidence or Evidence(cells, self.storage.search), lambda: gate)

    # Events --------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Let ``action`` happen at ``time`` (unix seconds; not before now)."""
        heappush(self._events, (time, self._random.random(), next(self._numbers), action))

    def run(self, until: float | None = None) -> None:
        """Let everything happen that is to come, or what is to come up to ``until`` (unix seconds)."""
        while self._events and (until is None or self._events[0][0] <= until):
            time, _, _, action = heappop(self._events)
            self.clock.move_to(time)
            action()
        if until is not None:
            self.clock.move_to(until)

    # Runs ----------------------------------------------------------------------------------

    def start(self, chain: Chain, *, recover: bool = True) -> Run:
        """Begin a chain's run now, or go on with it. Raises OwnedError, UsageError.

        The chain keeps its time by :attr:`clock`; what it was given as a store is not used.
        """
        door = cast("Any", chain)  # what a chain shows its own drivers
        lease = self.storage.journal.claim(chain.chain_id)
        return self.start_engine(door._engine(self.state_of(lease), lease, recover=recover), lease)

    def state_of(self, lease: Lease) -> Any:
        """The state that the log of a claimed run is in."""
        from sifaka.log.state import State

        if lease.is_new:
            return State(lease.chain_id)
        loaded = self.storage.load(lease.chain_id)
        lease.begin_at(loaded.state.next_seq, loaded.prev)
        return loaded.state

    def start_engine(self, engine: Engine, lease: Lease) -> Run:
        """Begin a life that is put together by hand: an engine, and the lease of its run."""
        advice = self.advices[len(self.runs) % len(self.advices)]
        run = Run(engine, lease, advice, self.clock.time())
        run.calls = Calls(self, partial(self._called_back, run))
        self.runs[run.chain_id] = run
        self._go_on(run, None, None)
        return run

    def kill(self, run: Run) -> None:
        """Let the process of a run die now: what it had not saved is lost, and nobody is told."""
        run.ended_at = self.clock.time()
        run.effects.close()
        run.calls.close()
        lease = run.lease
        self.storage.storage.renew([Renewal(run.chain_id, lease.token, lease.owner, self.clock.time())])

    @property
    def unfinished(self) -> Sequence[Run]:
        """The runs that have not ended."""
        return [run for run in self.runs.values() if not run.is_over]

    # Driving -------------------------------------------------------------------------------

    def _go_on(self, run: Run, answer: Any, thrown: BaseException | None) -> None:
        """Perform what a run wants done, until it has to wait or is over."""
        while not run.is_over:
            try:
                effect = run.effects.send(answer) if thrown is None else run.effects.throw(thrown)
            except StopIteration as stop:
                self._end(run, stop.value, None)
                return
            except BaseException as error:  # noqa: BLE001 - it is the run's own end, not the simulation's
                self._end(run, None, error)
                return
            self.effects += 1
            answer = thrown = None
            try:
                waits, answer = self._perform(run, effect)
            except BaseException as error:  # noqa: BLE001 - the engine saves what it has first
                thrown = error
            else:
                if waits:
                    return

    def _perform(self, run: Run, effect: Effect) -> tuple[bool, Any]:
        """Whether the run has to wait now, and the answer if not."""
        if isinstance(effect, Append):
            self.storage.journal.append(run.lease, effect.records, effect.change)
            self.trace = crc32(f"{run.chain_id} {run.lease.next_seq} {run.lease.prev}".encode(), self.trace)
            if self._watch is not None:
                self._watch(run, effect.records)
            return False, None
        if isinstance(effect, Perform):
            return self._call(run, effect)
        if isinstance(effect, Sleep):
            self.at(max(effect.until, self.clock.time()), partial(self._go_on, run, None, None))
            return True, None
        answer, ask = run.advice.on(effect, run.chain_id)
        return False, answer if ask is None else ask()

    def _call(self, run: Run, effect: Perform) -> tuple[bool, Any]:
        if run.lease.lost:
            raise FencedError(run.chain_id, run.lease.token, run.lease.next_seq)
        run.calls.start(effect.calls)
        told = run.calls.news()
        run.waits_for_call = told is None
        return told is None, told

    def _called_back(self, run: Run) -> None:
        if run.waits_for_call:
            run.waits_for_call = False
            self._go_on(run, run.calls.news(), None)

    def _end(self, run: Run, thought: Thought | None, error: BaseException | None) -> None:
        run.thought, run.error, run.ended_at = thought, error, self.clock.time()
        run.calls.close()
        self.storage.journal.release(run.lease)
