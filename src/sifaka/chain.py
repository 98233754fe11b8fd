"""The chain: what a user configures and runs (floor 7)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any, Literal, Self, TypeVar, cast

from sifaka.clock import Clock, SystemClock
from sifaka.drivers import Advice, adrive, drive
from sifaka.engine.life import Intention
from sifaka.engine.options import DEFAULTS, check_action, check_option, one_of
from sifaka.engine.plan import BoundModel, BoundPart, Plan, bind_part, new_chain_id, resolve_model
from sifaka.engine.run import Engine
from sifaka.errors import (
    ChainError,
    DamagedRecordError,
    PartError,
    StorageError,
    UnknownChainError,
    UsageError,
)
from sifaka.log.checkpoint import ChainCheckpoint
from sifaka.log.fork import fork_point, forked
from sifaka.log.records import Intent, Opened, Record
from sifaka.log.state import State
from sifaka.recovery.actions import RecoveryAction
from sifaka.recovery.evidence import Evidence
from sifaka.recovery.gate import Gate
from sifaka.recovery.manager import RecoveryManager
from sifaka.recovery.rules import Order, Rule, checked_rules
from sifaka.storage.base import Change, Storage
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.journal import Lease, check_chain_id
from sifaka.storage.urls import open_storage
from sifaka.thought import Thought
from sifaka.views import bottlenecks

__all__ = ["Chain"]

Durability = Literal["step", "iteration", "exit"]
_PLAN_CHANGES = ("refuse", "accept")
_T = TypeVar("_T")
_CLOCK = SystemClock()


class Chain:
    """A model, what it is asked, and the parts that retrieve, validate and criticise for it.

    A chain object has one run until its prompt changes; then a new one. Every step of a run is saved
    in ``checkpoint_storage``; running it again goes on where it stopped.

    Args:
        model: a spec such as ``"local:smollm2"``, an object with ``generate``, or a callable.
        prompt: what to write; or later, by :meth:`with_prompt`.
        checkpoint_storage: a storage object or URL; None keeps the run in memory, for this chain alone.
        max_improvement_iterations: how many improvements may follow the first text.
        always_apply_critics: criticise also what passed validation.
        chain_id: names the run; an existing one of that name is continued, a done one returned.
        durability: when records become durable: every "step", every "iteration" or at "exit" only; or
            a mapping from step to one of these. The start of a run always is, before its first call.
            Anything but "step" may pay calls twice, unseen.
        on_doubt: what to do about a call that was sent and whose answer was never recorded:
            "repeat" it (it is reported in ``thought.in_doubt``), or "stop".
        budget: the most the run may use: US dollars, or a dict of "usd", "tokens", "seconds".
        clock: where the time comes from.
    """

    def __init__(
        self,
        model: object = None,
        prompt: str | None = None,
        *,
        checkpoint_storage: CachedCheckpointStorage | Storage | str | None = None,
        max_improvement_iterations: int = 3,
        always_apply_critics: bool = True,
        chain_id: str | None = None,
        durability: Durability | Mapping[str, Durability] = "step",
        on_doubt: Literal["repeat", "stop"] = "repeat",
        budget: float | Mapping[str, float] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock: Clock = clock or _CLOCK
        self._storage = open_storage(checkpoint_storage)
        self._chain_id = new_chain_id() if chain_id is None else check_chain_id(chain_id)
        self._began = False
        self._model: BoundModel | None = None
        self._prompt: str | None = None
        self._system_prompt: str | None = None
        self._parts: dict[str, list[BoundPart]] = {
            "model_retriever": [],
            "critic_retriever": [],
            "validator": [],
            "critic": [],
        }
        self._plan: Plan | None = None
        self._rules: tuple[Rule, ...] = ()
        self._order: Order | None = None
        self._on_plan_change = "refuse"
        self._settings: dict[str, Any] = dict(DEFAULTS)
        self.with_options(
            max_improvement_iterations=max_improvement_iterations,
            always_apply_critics=always_apply_critics,
            durability=durability,
            on_doubt=on_doubt,
            budget=budget,
        )
        if model is not None:
            self.with_model(model)
        if prompt is not None:
            self.with_prompt(prompt)

    # Configuring ---------------------------------------------------------------------------

    def with_model(self, model: object) -> Self:
        """Use this model: a spec string, an object with ``generate``, or a callable."""
        self._model = resolve_model(model)
        self._plan = None
        return self

    def with_prompt(self, prompt: str) -> Self:
        """Ask for this. A chain that has run gets a new run, under a new id."""
        if not isinstance(prompt, str) or not prompt.strip():
            raise UsageError(f"a prompt is a text that is not blank, this one is {prompt!r}")
        if prompt != self._prompt and self._began:
            self._chain_id, self._began = new_chain_id(), False
        self._prompt = prompt
        return self

    def with_system_prompt(self, system_prompt: str | None) -> Self:
        """Give the model these standing instructions; None takes them back."""
        if system_prompt is not None and not isinstance(system_prompt, str):
            raise UsageError(f"a system prompt is a text or None, this one is {system_prompt!r}")
        self._system_prompt = system_prompt
        return self

    def with_model_retrievers(self, retrievers: Iterable[object]) -> Self:
        """Retrieve documents with these before the first text is written."""
        return self._with_parts("model_retriever", retrievers)

    def with_critic_retrievers(self, retrievers: Iterable[object]) -> Self:
        """Retrieve documents with these for the critics, after each text."""
        return self._with_parts("critic_retriever", retrievers)

    def validate_with(self, *validators: object) -> Self:
        """Add validators: objects with ``name`` and ``validate(thought)``, or callables."""
        return self._with_parts("validator", validators)

    def improve_with(self, *critics: object) -> Self:
        """Add critics: objects with ``name`` and ``critique(thought)``, or callables."""
        return self._with_parts("critic", critics)

    def _with_parts(self, kind: str, parts: Iterable[object]) -> Self:
        if isinstance(parts, str) or not isinstance(parts, Iterable):
            raise PartError(f"{parts!r} is no list of {kind.replace('_', ' ')}s: put it in brackets, [...]")
        taken = ["model", *(one.name for some in self._parts.values() for one in some)]
        bound: list[BoundPart] = []
        for part in parts:
            bound.append(bind_part(kind, part, taken))
            taken.append(bound[-1].name)
        self._parts[kind] += bound
        self._plan = None
        return self

    def with_options(self, **options: Any) -> Self:
        """Set options; None takes one back.

        The chain's own: the constructor's, and ``critique_final`` (criticise the last text too),
        ``stream`` (save the text as it comes, every ``partial_every_s`` seconds), ``deferred`` (ask all
        models through their provider's batches, at about half the price: a run can take a day),
        ``value_usd`` and ``usd_per_hour`` (what the result, and an hour of waiting for it, are worth to
        you: recovery weighs its costs by them), ``may_relax`` (recovery may ask less of a text),
        ``allow_partial_results`` (keep texts that were cut off), ``validation_strictness`` (share of
        validators that must pass, 0 to 1), ``max_documents``, ``max_context_chars``, ``batch_size`` (how
        many parts run together), ``timeout_s`` (seconds a call may take), ``limits`` (a dict of
        :class:`sifaka.recovery.limits.Limits`' fields), ``on_plan_change`` ("refuse" or "accept").
        Every other (``temperature``, ``max_tokens``, …) goes to the model. Raises UsageError.
        """
        chosen = options.pop("on_plan_change", self._on_plan_change) or "refuse"
        choice = one_of("on_plan_change", chosen, _PLAN_CHANGES)
        settings = dict(self._settings)
        for name, value in options.items():
            if value is not None:
                settings[name] = check_option(name, value)
            elif name in DEFAULTS:
                settings[name] = DEFAULTS[name]
            else:
                settings.pop(name, None)
        self._settings, self._on_plan_change = settings, choice
        return self

    def recover_with(self, *rules: Rule, order: Order | None = None) -> Self:
        """Recover by rules of your own too: each is one more line of the table, or takes one of ours away.

        ``order`` is a ranking of your own: a function of the situation and of our actions, best first, to
        the same or fewer in another order. Raises UsageError for what is no rule.
        """
        self._rules = checked_rules((*self._rules, *rules))
        self._order = order or self._order
        return self

    # Running -------------------------------------------------------------------------------

    @property
    def chain_id(self) -> str:
        """The run's name in the store."""
        return self._chain_id

    def run(self) -> Thought:
        """Run to the end, or go on where the run stopped. Raises ChainError at the first fault."""
        return _result(self._run(recover=False))

    def run_with_recovery(self) -> Thought:
        """As :meth:`run`, recovering from faults. Raises ChainError when nothing is left to try."""
        return _result(self._run(recover=True))

    def resume(
        self,
        chain_id: str | None = None,
        *,
        action: RecoveryAction | None = None,
        recover: bool = True,
        wait: float = 0.0,
    ) -> Thought:
        """Go on with a run that exists, this chain's or ``chain_id``, after applying ``action`` to it.

        ``wait`` is how many seconds to wait for a living owner. Raises UnknownChainError, OwnedError,
        ChainError.
        """
        self._take_up(chain_id)
        action = None if action is None else check_action(action)
        return _result(self._run(recover=recover, wait=wait, action=action))

    def stream(self, *, recover: bool = False, wait: float = 0.0) -> Generator[Record, None, Thought]:
        """Run, and yield the log's records as they become durable; the thought is what it returns."""
        run = self._run(recover=recover, wait=wait, stream=True)
        while True:
            try:
                records = next(run)
            except StopIteration as stop:
                return cast("Thought", stop.value)
            yield from records

    def _run(
        self,
        *,
        recover: bool,
        wait: float = 0.0,
        action: RecoveryAction | None = None,
        stream: bool = False,
    ) -> Generator[list[Record], None, Thought]:
        journal = self._storage.journal
        lease = journal.claim(self._chain_id, wait_s=wait)
        try:
            engine = self._engine(self._state(lease), lease, recover=recover, stream=stream)
            with _saving_draft(engine):
                thought = yield from drive(engine.run(action), journal, lease, self._clock, self._advice)
            self._began = True
            return cast("Thought", thought)
        finally:
            self._began |= lease.next_seq > lease.first_seq
            journal.release(lease)

    async def arun(self) -> Thought:
        """As :meth:`run`, in the running event loop."""
        return await self._arun(recover=False)

    async def arun_with_recovery(self) -> Thought:
        """As :meth:`run_with_recovery`, in the running event loop."""
        return await self._arun(recover=True)

    async def aresume(
        self,
        chain_id: str | None = None,
        *,
        action: RecoveryAction | None = None,
        recover: bool = True,
        wait: float = 0.0,
    ) -> Thought:
        """As :meth:`resume`, in the running event loop."""
        await self._storage.journal.off_loop(self._take_up, chain_id)
        action = None if action is None else check_action(action)
        return await self._arun(recover=recover, wait=wait, action=action)

    async def astream(self, *, recover: bool = False, wait: float = 0.0) -> AsyncGenerator[Record, None]:
        """As :meth:`stream`, for ``async for``; the thought is then :meth:`get_thought`'s."""
        import asyncio

        # One batch at a time: a reader that is slow holds the run back, it does not fill the memory.
        batches: asyncio.Queue[list[Record] | None] = asyncio.Queue(1)
        reading = True

        async def put(records: list[Record] | None) -> None:
            if reading:
                await batches.put(records)

        async def run() -> None:
            try:
                await self._arun(recover=recover, wait=wait, seen=put, stream=True)
            finally:
                await put(None)

        task = asyncio.create_task(run())
        try:
            while (records := await batches.get()) is not None:
                for record in records:
                    yield record
            await task
        finally:
            reading = False  # what the run still saves as it ends has no reader to wait for
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _arun(
        self,
        *,
        recover: bool,
        wait: float = 0.0,
        action: RecoveryAction | None = None,
        stream: bool = False,
        seen: Callable[[list[Record]], Awaitable[None]] | None = None,
    ) -> Thought:
        journal = self._storage.journal
        lease = await journal.aclaim(self._chain_id, wait_s=wait)
        try:
            state = await journal.off_loop(self._state, lease)
            engine = self._engine(state, lease, recover=recover, asynchronous=True, stream=stream)
            run = engine.run(action)
            with _saving_draft(engine):
                thought = await adrive(run, journal, lease, self._clock, self._advice, seen)
            self._began = True
            return cast("Thought", thought)
        finally:
            self._began |= lease.next_seq > lease.first_seq
            await journal.off_loop(journal.release, lease)

    def _gate(self) -> Gate:
        """One for all chains of this process that share a store and a clock."""
        kept, key = self._storage.companions, ("gate", id(self._clock))
        gate: Gate | None = kept.get(key)
        return gate or kept.setdefault(key, Gate(self._storage.cells, self._clock))

    @property
    def _advice(self) -> Advice:
        evidence = Evidence(self._storage.cells, self._storage.search, rules=self._rules, order=self._order)
        return Advice(evidence, self._gate)

    def _state(self, lease: Lease) -> State:
        """The state the log is in, now that nobody else can write to it."""
        if lease.is_new:
            return State(lease.chain_id)
        loaded = self._storage.load(lease.chain_id)
        lease.begin_at(loaded.state.next_seq, loaded.prev)
        return loaded.state

    def _engine(
        self,
        state: State,
        lease: Lease,
        *,
        recover: bool = False,
        asynchronous: bool = False,
        stream: bool = False,
    ) -> Engine:
        if self._model is None:
            raise UsageError('the chain has no model: Chain(model="local:smollm2"), or with_model')
        if self._plan is None:
            parts = {kind: tuple(some) for kind, some in self._parts.items()}
            self._plan = Plan(
                model=self._model,
                model_retrievers=parts["model_retriever"],
                critic_retrievers=parts["critic_retriever"],
                validators=parts["validator"],
                critics=parts["critic"],
            )
        lease.label = self._settings.get("label", "")
        want = Intention(
            prompt=self._prompt,
            system_prompt=self._system_prompt,
            settings={**self._settings, "model": self._model.name},
            recover=recover,
            asynchronous=asynchronous,
            stream=stream,
            on_doubt=self._settings["on_doubt"],
            accept_plan_change=self._on_plan_change == "accept",
            died=lease.took_over,
        )
        return Engine(state, self._plan, want, self._clock)

    # Recovering ----------------------------------------------------------------------------

    def get_recovery_suggestions(self, error: BaseException) -> list[RecoveryAction]:
        """The actions that may help after ``error``, best first; a ChainError is unwrapped."""
        if isinstance(error, ChainError):
            return list(error.suggestions)
        checkpoints = self.get_checkpoint_history()
        last = checkpoints[-1] if checkpoints else None
        manager = RecoveryManager(self._storage, rules=self._rules, order=self._order)
        return manager.analyze_failure(last, error)

    def apply_recovery_action(self, action: RecoveryAction, *, wait: float = 0.0) -> bool:
        """Record ``action`` in the run's log; the next run goes on from it. Nothing is called.

        False, and nothing changed, where the run is done or the action cannot be applied where it
        stands (a generation cannot be skipped). Raises UsageError for parameters that cannot be.
        """
        action = check_action(action)
        journal = self._storage.journal
        lease = journal.claim(self._chain_id, wait_s=wait)
        try:
            engine = self._engine(self._state(lease), lease)
            applying = drive(engine.apply(action), journal, lease, self._clock, self._advice)
            return cast("bool", _result(applying))
        finally:
            self._began |= lease.next_seq > lease.first_seq
            journal.release(lease)

    _apply_recovery_action = apply_recovery_action

    def _take_up(self, chain_id: str | None) -> None:
        wanted = self._chain_id if chain_id is None else check_chain_id(chain_id)
        if self._storage.storage.entry(wanted) is None:
            raise UnknownChainError(wanted)
        self._chain_id = wanted

    def fork(
        self,
        chain_id: str | None = None,
        *,
        before: int | None = None,
        step: str | None = None,
        iteration: int | None = None,
        new_id: str | None = None,
    ) -> Chain:
        """A new run that shares the beginning of this one (or of ``chain_id``), as a chain of its own.

        It begins at the newest checkpoint that lies before record ``before``, is of that ``step`` (one
        of the seven) and of that ``iteration``, where these are given. What the first run paid is not
        counted again. Before a damaged record (``before`` is its number) it takes every sound record with
        it, and calls whose results are lost behind are in doubt. Raises UnknownChainError,
        DamagedRecordError, and UsageError where no checkpoint fits.
        """
        source = self._chain_id if chain_id is None else chain_id
        records, lost = self._shared(source, before, step, iteration)
        if not records:
            raise UsageError(
                f"run {source!r} has no checkpoint before={before} step={step} iteration={iteration}"
            )
        other = copy(self)
        other._parts = {kind: list(some) for kind, some in self._parts.items()}
        other._settings = dict(self._settings)
        other._chain_id = new_chain_id() if new_id is None else check_chain_id(new_id)
        other._began = True
        journal = self._storage.journal
        lease = journal.claim(other._chain_id)
        try:
            if not lease.is_new:
                raise UsageError(f"there is a run named {other._chain_id!r} already; choose another id")
            change = Change("interrupted", self._clock.time(), release=True)
            now = self._clock.time()
            want = self._engine(State(other._chain_id), lease).want
            opened = Opened(
                now,
                other._chain_id,
                self._prompt,
                self._system_prompt,
                None if self._plan is None else self._plan.parts(),
                want.settings,
                parent=(source, len(records)),
            )
            journal.append(lease, forked(records, opened, lost), change)
        finally:
            journal.release(lease)
        return other

    def _shared(
        self, source: str, before: int | None, step: str | None, iteration: int | None
    ) -> tuple[list[Record], list[Intent]]:
        """The records that a fork takes with it, and the calls behind them whose results are lost."""
        try:
            return fork_point(list(self._storage.records(source)), before, step, iteration), []
        except DamagedRecordError as error:
            if before is None or before > error.first:
                raise
            saved = self._storage.salvage(source)
            if (before, step, iteration) == (error.first, None, None):
                return saved.sound, saved.lost
            return fork_point(saved.sound, before, step, iteration), []

    # Looking back --------------------------------------------------------------------------

    def get_thought(self) -> Thought | None:
        """The run's best thought so far, as its log has it; None where it has no log yet."""
        if self._storage.storage.entry(self._chain_id) is None:
            return None
        return self._storage.load(self._chain_id).state.best_draft()

    def get_checkpoint_history(self) -> list[ChainCheckpoint]:
        """The run's checkpoints, oldest first."""
        return self._storage.get_checkpoints(self._chain_id)

    def get_performance_bottlenecks(self) -> list[str]:
        """Where the run's time and money went, one sentence an operation, costliest first."""
        if self._storage.storage.entry(self._chain_id) is None:
            return []
        return bottlenecks(self._storage.records(self._chain_id))


@contextmanager
def _saving_draft(engine: Engine) -> Generator[None]:
    """Let the store's errors carry the draft that the store could not take any more."""
    try:
        yield
    except StorageError as error:
        error.thought = engine.state.best_draft()
        raise


def _result(run: Generator[Any, None, _T]) -> _T:
    while True:
        try:
            next(run)
        except StopIteration as stop:
            return cast("_T", stop.value)
