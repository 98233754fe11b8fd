"""The engine: from a position in the log to the end of the run, yielding what it wants done (floor 5).

It does no input or output. First run, resume, resume after an action and a fork are this one path
from different states; plain runs and runs with recovery differ in :meth:`Engine._fail` alone.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sifaka.clock import Clock
from sifaka.engine.effects import Consult, Effect, Sleep
from sifaka.engine.life import Intention, Life
from sifaka.engine.phase import Failure, Held, Stopped, run_together
from sifaka.engine.plan import BoundPart, Plan
from sifaka.engine.steps import OPERATION_TABLE, after_criticism, after_validation
from sifaka.errors import (
    ChainError,
    MissingPromptError,
    PlanChangedError,
    StorageError,
    UsageError,
)
from sifaka.log.prompts import generation_prompt
from sifaka.log.records import (
    OPERATIONS,
    Closed,
    Faulted,
    Opened,
    Operation,
    Outcome,
    Position,
    Reached,
    Recovery,
    Result,
    Status,
)
from sifaka.log.state import State
from sifaka.parts import Reply, Request
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy, move
from sifaka.recovery.evidence import Attempt
from sifaka.recovery.limits import refusal, stated_waits, with_wait
from sifaka.recovery.situation import Situation, situation_of
from sifaka.storage.base import Change
from sifaka.thought import CriticFeedback, Thought, ValidationResult

__all__ = ["Engine", "situation"]


class Engine(Life):
    """One life of a run. Drive :meth:`run` or :meth:`apply` with a driver, once."""

    def __init__(self, state: State, plan: Plan, want: Intention, clock: Clock) -> None:
        super().__init__(state, plan, want, clock)
        self._model_part = BoundPart("model", "model", self._generate, asks=True)
        self._fault_text = ""
        self._asked_for: tuple[str, int] | None = None

    # A life --------------------------------------------------------------------------------

    def run(self, action: RecoveryAction | None = None) -> Generator[Effect, Any, Thought]:
        """Begin this life, apply ``action``, and go on to the end. Returns the best thought.

        Raises ChainError; UsageError before anything is stored; and what a failed append raises. What
        else is thrown in (Ctrl-C, a cancellation) ends this life when what is known has been saved.
        """
        try:
            return (yield from self._live(action))
        except (GeneratorExit, StorageError, UsageError, ChainError):
            raise
        except BaseException as error:
            with suppress(StorageError):  # what ended the run matters more than that it cannot be told
                yield from self._leave(error)
            raise

    def _leave(self, error: BaseException) -> Generator[Effect, Any, None]:
        """Save what is known: ``error`` ends this life from outside, or a part has left the program."""
        if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "CancelledError":
            self.change = Change("interrupted", self.clock.time(), release=True)
            yield from self.flush(force=True)
        else:
            yield from self._stop("failed", f"ended by {type(error).__name__}: {error}")

    def _live(self, action: RecoveryAction | None) -> Generator[Effect, Any, Thought]:
        if action is not None and not self._can_apply(action):
            raise UsageError(
                f"{action.strategy.value} cannot be applied to run {self.state.chain_id!r}: it is done, or "
                "stands at a step that cannot be skipped"
            )
        closed = self.state.closed
        if closed is not None and closed.status == "done":
            self._check_plan()
            return self.state.best_draft()
        parts = self._unfinished()
        yield from self._begin(decided=action is not None)
        if action is not None:
            self._recover_with(action, parts, "user", None)
        yield from self._finish_wait()
        while self.state.position.operation != "complete":
            try:
                yield from self._operate(self.state.position.operation)
            except Failure as failure:
                yield from self._fail(failure)
            except Held as held:
                yield from self._hold(held)
            except Stopped as stopped:
                yield from self._stop("failed", stopped.reason)
                raise self._error(stopped.reason, None, None) from None
        return (yield from self._complete())

    def apply(self, action: RecoveryAction) -> Generator[Effect, Any, bool]:
        """Begin this life, record ``action``, and stop there: the next run goes on from it.

        Returns False, with nothing recorded, where the run is done or the action cannot be applied.
        """
        if not self._can_apply(action):
            return False
        parts = self._unfinished()
        yield from self._begin(decided=True, only_record=True)
        self._recover_with(action, parts, "user", None)
        self.change = Change("interrupted", self.clock.time(), release=True)
        yield from self.flush(force=True)
        return True

    def _can_apply(self, action: RecoveryAction) -> bool:
        """False where the run is done, or the strategy leads nowhere. Raises ModelSpecError, PartError."""
        closed = self.state.closed
        if closed is not None and closed.status == "done":
            return False
        self.model_for(
            self.chosen(action.parameters.get("model"))
        )  # one that cannot be opened is refused now
        return move(action.strategy, self.state.position, self._unfinished()) is not None

    def _unfinished(self) -> tuple[str, ...]:
        """The parts of the operation under way that failed, or else all that are not done."""
        state, operation = self.state, self.state.position.operation
        parts: tuple[BoundPart, ...] = getattr(self.plan, OPERATION_TABLE[operation].parts, ())
        missing = [part.name for part in parts if part.name not in self._results(operation)]
        failed = [name for name in missing if name in state.attempts]
        return tuple(failed or missing)

    # Beginning -----------------------------------------------------------------------------

    def _begin(self, *, decided: bool, only_record: bool = False) -> Generator[Effect, Any, None]:
        """Open this life. ``decided``: the caller has chosen an action, so doubts do not stop it.

        ``only_record``: nothing will be called, so nothing has to stop it, and it need not be durable yet.
        """
        state, want, now = self.state, self.want, self.clock.time()
        self.open_models()  # one that cannot be opened is said before anything is stored
        if not state.next_seq:
            if want.prompt is None:
                raise MissingPromptError(
                    'the chain has no prompt: call with_prompt("...") or Chain(prompt="...") first'
                )
            self.emit(
                Opened(
                    now,
                    state.chain_id,
                    want.prompt,
                    want.system_prompt,
                    self.plan.parts(),
                    want.settings,
                )
            )
            start = Position("retrieval", 0)
            self.emit(Reached(now, "initialization", 0, start))
            self.emit(Reached(self.clock.time(), "pre_retrieval", 0, start))
            return
        opened = self._reopened(now)
        doubts = opened.doubts
        deaths = state.deaths
        self.emit(opened)
        self.change = Change("running", now)
        if only_record:
            return
        if want.on_doubt == "stop" and doubts and not decided:
            calls = "1 call is" if len(doubts) == 1 else f"{len(doubts)} calls are"
            yield from self._end(f"{calls} in doubt, and on_doubt is 'stop'")
        if opened.cause == "death" and deaths + 1 >= self.limits.deaths:
            yield from self._end(
                f"its process died {deaths + 1} times at {state.position.operation} of iteration "
                f"{state.position.iteration}"
            )
        # Before any call, also a free one: a part that kills its process must not do so unseen.
        yield from self.flush(force=True)

    def _reopened(self, now: float) -> Opened:
        state, want = self.state, self.want
        self._check_plan()
        parts = self.plan.parts()
        asked = (want.prompt, want.system_prompt)
        prompts_differ = want.prompt is not None and asked != (state.prompt, state.system_prompt)
        cause = "death" if want.died else "continue"
        if state.closed is not None:
            cause = "retry"
        return Opened(
            now,
            state.chain_id,
            want.prompt if prompts_differ else None,
            want.system_prompt if prompts_differ else None,
            parts if parts != state.parts else None,
            want.settings if want.settings != state.settings else None,
            life=state.life + 1,
            cause=cause,
            doubts=tuple(seq for seq, one in state.open_intents.items() if self.settler(seq, one) is None),
        )

    def _check_plan(self) -> None:
        """Raises PlanChangedError where this chain's plan is not the log's, unless that was accepted."""
        changes = self._differences()
        if changes and not self.want.accept_plan_change:
            raise PlanChangedError(self.state.chain_id, changes)

    def _differences(self) -> list[str]:
        """Prompts, and parts by kind, name and order; a chain without a prompt takes the log's."""
        state, prompt = self.state, self.want.prompt
        found: list[str] = []
        if prompt is not None and prompt != state.prompt:
            found.append(f"the prompt was {_short(state.prompt)} and is now {_short(prompt)}")
        if prompt is not None and self.want.system_prompt != state.system_prompt:
            found.append("the system prompt is another one")
        before = [(part.kind, part.name) for part in state.parts]
        now = [(part.kind, part.name) for part in self.plan.parts()]
        if before != now:
            gone = [f"{kind} {name}" for kind, name in before if (kind, name) not in now]
            new = [f"{kind} {name}" for kind, name in now if (kind, name) not in before]
            found += [f"without {one}" for one in gone] + [f"with {one}" for one in new]
            if not gone and not new:
                found.append("its parts are in another order")
        return found

    def _finish_wait(self) -> Generator[Effect, Any, None]:
        """A wait that the last life did not see the end of goes on to the time it was set to."""
        recovery = self.state.recovery
        now = self.clock.time()
        if recovery is not None and recovery.record.until > now:
            # Never longer than it was to be: the clock may have been set back meanwhile.
            until = min(recovery.record.until, now + recovery.record.delay_s)
            yield from self._wait(until, recovery.record.description)

    def _wait(self, until: float, reason: str) -> Generator[Effect, Any, None]:
        self.change = Change("waiting", self.clock.time(), reason, until=until)
        yield from self.flush(force=True)
        yield Sleep(until, reason)
        self.change = Change("running", self.clock.time())

    def _hold(self, held: Held) -> Generator[Effect, Any, None]:
        """Wait until the operation can go on. For a provider that is left alone, only so long."""
        now = self.clock.time()
        if not held.by_gate:
            yield from self._wait(held.until, held.reason)
            return
        action = RecoveryAction(
            RecoveryStrategy.RETRY_CURRENT_STEP,
            held.reason,
            1.0,
            delay_s=max(0.001, held.until - now),
            counts=False,
        )
        why = refusal(action, self.state, (held.part,), self.limits, self.budget, now)
        if why is not None:
            yield from self._end(f"{held.reason}, and {why}")
        recovery = self._recover_with(action, (held.part,), "breaker", None)
        yield from self._wait(recovery.until, recovery.description)

    # Operations ----------------------------------------------------------------------------

    def _operate(self, operation: Operation) -> Generator[Effect, Any, None]:
        state = self.state
        if operation == "generation":
            if not state.text_is_whole:
                yield from run_together(self, operation, (self._model_part,), None)
            to = Position("validation", state.position.iteration)
        else:
            rule = OPERATION_TABLE[operation]
            parts: tuple[BoundPart, ...] = getattr(self.plan, rule.parts)
            if parts:
                yield from self._run_parts(operation, parts)
            if operation == "validation":
                to = after_validation(state, critics=bool(self.plan.critics))
            elif operation == "criticism":
                to = after_criticism(state)
            else:
                to = Position(rule.then or "complete", state.position.iteration)
        self._reach(operation, to)

    def _run_parts(self, operation: Operation, parts: tuple[BoundPart, ...]) -> Generator[Effect, Any, None]:
        done = self._results(operation)
        left = [part for part in parts if part.name not in done]
        for part in left:
            if part.name in self.state.skipped:
                self._skip(operation, part)
        left = [part for part in left if part.name not in self.state.skipped]
        if left:
            yield from run_together(self, operation, left, self._argument(operation))

    def _results(self, operation: Operation) -> Mapping[str, Any]:
        """What parts have returned in this operation, by their names."""
        name = OPERATION_TABLE[operation].results
        return getattr(self.state, name) if name else {}

    def _argument(self, operation: Operation) -> Any:
        """What parts are called with: retrievers with a query, the others with the thought."""
        if operation == "retrieval":
            return self.state.prompt
        if operation == "critic_retrieval":
            return self.state.text
        return self.state.thought()

    def _skip(self, operation: Operation, part: BoundPart) -> None:
        """A skipped part leaves a mark of its own; a skipped validator has not passed."""
        why = "skipped by a recovery action"
        found: dict[str, Any] = {"documents": ()}
        if operation == "validation":
            found = {"verdict": ValidationResult(False, why, validator=part.name, skipped=True)}
        elif operation == "criticism":
            found = {"feedback": CriticFeedback(False, why, critic=part.name, skipped=True)}
        iteration = self.state.position.iteration
        self.emit(Result(self.clock.time(), -1, operation, iteration, part.name, **found))

    def _generate(self, _argument: object) -> Generator[Request, Reply, Reply]:
        """The chain's own text, as an asking part like any other."""
        state = self.state
        prompt = generation_prompt(state.prompt, state.all_documents, state.draft, state.options)
        state.asked_prompt = prompt
        return (yield Request(prompt, state.system_prompt))

    def _reach(self, operation: Operation, to: Position) -> None:
        state, now = self.state, self.clock.time()
        self._conclude_if_past(operation)
        step, at = OPERATION_TABLE[operation].reaches, state.position
        summary = None
        if to.operation == "generation" and to.iteration > at.iteration:
            if step == "validation":  # the fold ranks the text as it reads this record
                state.rank_text()
            summary = state.summary()
        self.emit(Reached(now, step, at.iteration, to, max(0.0, now - state.step_at), summary))

    def _complete(self) -> Generator[Effect, Any, Thought]:
        state, now = self.state, self.clock.time()
        at = state.position
        self._conclude(success=True)
        self.emit(Reached(now, "complete", at.iteration, at, max(0.0, now - state.step_at)))
        thought = state.best_draft()
        best = state.best.seq if state.best is not None else state.text_seq
        self.emit(Closed(now, "done", "", best, thought.passed))
        self.change = Change("done", now, release=True)
        yield from self.flush(force=True)
        return thought

    # Failing -------------------------------------------------------------------------------

    def _fail(self, failure: Failure) -> Generator[Effect, Any, None]:
        """The one place where plain runs and runs with recovery differ."""
        self._conclude(success=False)
        # A fault that will not pass by itself decides: retrying the others would be in vain.
        faults = sorted(failure.faults, key=lambda one: one[0].fault.transient)
        record, error = faults[0]
        actions: list[RecoveryAction] = yield Consult(self._situation(record))
        # Another model that the user has named is no recovery: a plain run asks it too.
        usable = [one for one in actions if self.want.recover or set(one.parameters) == {"models"}]
        if not usable and not self.want.recover:
            yield from self._give_up(record, error, _why(record), actions)
        if self.want.on_doubt == "stop" and any(one.intent in self.state.doubts for one, _ in faults):
            doubt = f"{_why(record)}; it may have been paid, and on_doubt is 'stop'"
            yield from self._give_up(record, error, doubt, actions)
        alike = [one for one, _ in faults if one.fault.transient == record.fault.transient]
        parts = tuple(one.part for one in alike)
        refused: list[str] = []
        seed = f"{self.state.chain_id}:{self.state.next_seq}"
        for suggested in usable:
            action = with_wait(suggested, alike, seed)
            why = refusal(action, self.state, parts, self.limits, self.budget, self.clock.time())
            if move(action.strategy, self.state.position, parts) is None:
                why = "it leads nowhere from here"
            if why is None:
                yield from self._recover(action, parts, record, stated_waits(action, alike))
                return
            refused.append(f"{action.strategy.value}: {why}")
        tried = f" ({'; '.join(dict.fromkeys(refused))})" if refused else ""
        yield from self._give_up(record, error, f"{_why(record)}, and nothing is left to try{tried}", actions)

    def _recover(
        self,
        action: RecoveryAction,
        parts: tuple[str, ...],
        record: Faulted,
        waits_for: tuple[str, ...],
    ) -> Generator[Effect, Any, None]:
        recovery = self._recover_with(action, parts, action.chosen_by, record, waits_for)
        if recovery.delay_s > 0:
            yield from self._wait(recovery.until, recovery.description)

    def _recover_with(
        self,
        action: RecoveryAction,
        parts: tuple[str, ...],
        by: str,
        record: Faulted | None,
        waits_for: tuple[str, ...] = (),
    ) -> Recovery:
        state, now = self.state, self.clock.time()
        at = state.position
        moved = move(action.strategy, at, parts)
        if moved is None:
            raise AssertionError(f"{action.strategy} cannot be applied at {at.operation}")
        fault = record or state.fault
        recovery = Recovery(
            at=now,
            operation=at.operation,
            iteration=at.iteration,
            part=record.part if record else (parts[0] if parts else ""),
            strategy=action.strategy.value,
            description=action.description,
            to=moved.to,
            parameters=action.parameters,
            skips=moved.skips,
            sets_aside=moved.sets_aside,
            confidence=action.confidence,
            delay_s=action.delay_s,
            until=now + action.delay_s if action.delay_s else 0.0,
            counts=action.counts,
            chosen_by=by,
            evidence=action.evidence,
            error_kind=fault.fault.kind if fault else "",
            error_class=fault.fault.error_class if fault else "",
            waits_for=waits_for,
            propensity=action.propensity,
        )
        # The model and how many attempts failed before: by the outcome both may be others.
        self._asked_for = (self._model_of(recovery.part), len(state.tried))
        self.emit(recovery)
        self._fault_text = fault.fault.message if fault else ""
        return recovery

    def _conclude(self, *, success: bool) -> None:
        """Record what came of the action that was tried last, if there is one."""
        state, now = self.state, self.clock.time()
        if state.recovery is None:
            return
        seq, record = state.recovery.seq, state.recovery.record
        cost, seconds = state.totals.cost_usd - state.recovery.totals.cost_usd, max(0.0, now - record.at)
        if record.error_kind and record.chosen_by != "breaker":  # leaving a provider alone is no attempt
            # An earlier life may have begun the attempt: then the log's own fault tells.
            text = self._fault_text or (state.fault.fault.message if state.fault else "")
            model, depth = self._asked_for or (self._model_of(record.part), max(0, len(state.tried) - 1))
            label, worked_s = str(state.options.get("label") or ""), max(0.0, seconds - record.delay_s)
            self._lessons.append(Attempt(seq, record, text, model, success, label, depth, cost, worked_s))
        self.emit(Outcome(now, seq, success, cost, seconds))

    def _conclude_if_past(self, operation: Operation) -> None:
        """An action has worked when the step it was for, or one beyond it, completes.

        A text that then fails the same validator again shows that it has not.
        """
        recovery = self.state.recovery
        if recovery is not None:
            here = (self.state.position.iteration, OPERATIONS.index(operation))
            if here >= (recovery.record.iteration, OPERATIONS.index(recovery.record.operation)):
                self._conclude(success=not self._fails_again(recovery.record))

    def _fails_again(self, record: Recovery) -> bool:
        verdict = self.state.verdicts.get(record.part) if record.error_kind == "validation_failed" else None
        return verdict is not None and not verdict.passed and not verdict.skipped

    def _model_of(self, part: str) -> str:
        """The model that the part's last call went to, as outcomes are counted by it."""
        asked = self.asked.get(part)
        return asked.model.name if asked is not None else str(self.state.options.get("model") or "")

    def _situation(self, record: Faulted) -> Situation:
        asked = self.asked.get(record.part)
        others = asked.others if asked is not None else ()
        return situation(
            self.state, record, now=self.clock.time(), model=self._model_of(record.part), fallbacks=others
        )

    def _give_up(
        self, record: Faulted, error: BaseException, reason: str, actions: list[RecoveryAction]
    ) -> Generator[Effect, Any, None]:
        yield from self._stop("failed", reason, record.fault.signature)
        raise self._error(reason, record, actions) from error

    def _end(self, reason: str) -> Generator[Effect, Any, None]:
        yield from self._stop("failed", reason)
        raise self._error(reason, None, None)

    def _stop(self, status: Status, reason: str, group: str = "") -> Generator[Effect, Any, None]:
        now = self.clock.time()
        self.emit(Closed(now, status, reason))
        self.change = Change(status, now, reason, group, release=True)
        yield from self.flush(force=True)

    def _error(self, reason: str, record: Faulted | None, actions: list[RecoveryAction] | None) -> ChainError:
        state = self.state
        return ChainError(
            state.chain_id,
            reason,
            thought=state.best_draft(),
            fault=record.fault if record else None,
            suggestions=actions or (),
        )


def situation(
    state: State, record: Faulted, *, now: float = 0.0, model: str = "", fallbacks: Sequence[str] = ()
) -> Situation:
    """What a ranking has to know after the fault that ``record`` tells of, at ``now`` (unix seconds).

    ``model`` is the one that was asked, ``fallbacks`` those that may be asked instead.
    """
    found = situation_of(state, record.fault, record.part, now)
    return found._replace(
        model=model, fallbacks=fallbacks, failed_s=record.seconds, seed=f"{state.chain_id}:{state.next_seq}"
    )


def _why(record: Faulted) -> str:
    fault = record.fault
    said = fault.message or fault.error_class
    return f"{fault.kind} at {record.operation} ({record.part}, attempt {record.attempt}): {said}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
