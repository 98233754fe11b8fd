"""The fold: one record after another into the state of a run (floor 2).

:class:`State` is what the engine decides on, what a thought and a checkpoint are made of, and what
every view shows. It is made from records alone, so a resumed run knows exactly what the first one knew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import msgspec

from sifaka.log.prompts import generation_prompt
from sifaka.log.records import (
    OPERATIONS,
    Best,
    Changed,
    Closed,
    Faulted,
    Handle,
    Intent,
    Opened,
    OpenRecovery,
    Operation,
    Outcome,
    Partial,
    PlannedPart,
    Position,
    Reached,
    Record,
    Recovery,
    Result,
    Summary,
    Totals,
)
from sifaka.thought import (
    CriticFeedback,
    Document,
    DoubtfulCall,
    History,
    Thought,
    ValidationResult,
)

__all__ = ["State", "doubtful", "fold"]

_T = TypeVar("_T")
_START = Position("retrieval", 0)


class State:
    """A run as its log tells it. Apply records in order with :meth:`apply`."""

    __slots__ = (
        "actions",
        "active_before_s",
        "asked_prompt",
        "attempts",
        "best",
        "best_thought",
        "chain_id",
        "changed",
        "closed",
        "critic_documents",
        "cut",
        "deaths",
        "documents",
        "documents_at",
        "doubts",
        "draft",
        "fault",
        "feedback",
        "first_at",
        "handles",
        "heard",
        "history_is_whole",
        "last_at",
        "life",
        "model_prompt",
        "next_seq",
        "open_intents",
        "opened_at",
        "parameters",
        "parent",
        "parts",
        "planned_validators",
        "position",
        "previous",
        "prompt",
        "recovery",
        "replies",
        "restarts",
        "settings",
        "skipped",
        "step_at",
        "system_prompt",
        "text",
        "text_at",
        "text_is_whole",
        "text_options",
        "text_seq",
        "totals",
        "tried",
        "tried_for",
        "verdicts",
        "waited_s",
        "waits",
        "whole",
    )

    def __init__(self, chain_id: str) -> None:  # noqa: PLR0915 - one line a field
        self.chain_id = chain_id
        self.next_seq = 0
        self.prompt = ""
        self.system_prompt: str | None = None
        self.parts: tuple[PlannedPart, ...] = ()
        self.settings: dict[str, Any] = {}
        self.parameters: dict[str, Any] = {}
        self.parent: tuple[str, int] | None = None
        self.life = 0
        self.first_at = self.opened_at = self.last_at = self.step_at = 0.0
        self.active_before_s = 0.0
        self.changed = False
        self.position = _START
        self.totals = Totals()
        self.closed: Closed | None = None

        self.planned_validators = 0
        self.documents: dict[str, tuple[Document, ...]] = {}
        self.documents_at: tuple[int, ...] = ()
        self.text: str | None = None
        self.text_seq = -1
        self.text_at = 0.0
        self.text_is_whole = False
        """False where the text is a draft only: cut off, or none at all."""
        self.text_options: dict[str, Any] = {}
        """The options in force when the text was asked for: its prompt is rebuilt from them."""
        self.model_prompt: str | None = None
        self.asked_prompt: str | None = None
        """The prompt of the call under way, where the engine has just built it."""
        self.verdicts: dict[str, ValidationResult] = {}
        self.critic_documents: dict[str, tuple[Document, ...]] = {}
        self.feedback: dict[str, CriticFeedback] = {}
        self.skipped: set[str] = set()
        self.draft: Thought | None = None
        """The thought this iteration improves on."""

        self.previous: Thought | None = None
        """The thought of the iteration before this one; its history are those before it."""
        self.whole: Callable[[], State] | None = None
        """Reads the whole log up to where this state was loaded, where it was not folded from it."""
        self.history_is_whole = True
        """False while the earlier thoughts have to be read with :attr:`whole`."""
        self.best: Best | None = None
        self.best_thought: Thought | None = None

        self.open_intents: dict[int, Intent] = {}
        self.handles: dict[int, str] = {}
        """The provider's ids of open intents: what became of them may be found out."""
        self.heard: dict[int, str] = {}
        """The texts so far of open intents whose answers are streamed."""
        self.cut: dict[tuple[str, int], tuple[str, str]] = {}
        """Digests and texts of calls of the operation under way that were cut, by part and call number."""
        self.replies: dict[tuple[str, int], tuple[str, Result]] = {}
        """Answered calls of the operation under way, by part and call number: never made again."""
        self.doubts: dict[int, DoubtfulCall] = {}
        self.attempts: dict[str, int] = {}
        """Failed attempts by part, in the operation under way."""
        self.tried_for = (0, 0)
        """The iteration and operation that strategies were tried for: until these are passed they count."""
        self.tried: tuple[str, ...] = ()
        """The strategies applied since the failing operation was last passed, oldest first."""
        self.actions = 0
        self.restarts = 0
        self.deaths = 0
        self.waits = 0
        """How often a wait that the provider stated was kept."""
        self.waited_s = 0.0
        self.fault: Faulted | None = None
        """What failed last in the operation under way."""
        self.recovery: OpenRecovery | None = None

    # What the engine asks ------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """The iteration under way; 0 is the first text."""
        return self.position.iteration

    @property
    def options(self) -> dict[str, Any]:
        """The settings in force: the chain's, overlaid by what recovery actions have set."""
        return {**self.settings, **self.parameters} if self.parameters else self.settings

    @property
    def all_documents(self) -> tuple[Document, ...]:
        """The documents retrieved before generation, in the order of their retrievers."""
        return self._documents(self.documents)

    @property
    def passed(self) -> bool:
        """True when there is a text, and every validator has passed it."""
        return self._share_passed(1.0)

    @property
    def accepted(self) -> bool:
        """As :attr:`passed`, by the share of validators that ``validation_strictness`` asks for."""
        return self._share_passed(self.options.get("validation_strictness", 1.0))

    def _share_passed(self, share: float) -> bool:
        planned, verdicts = self.planned_validators, self.verdicts
        if self.text is None or len(verdicts) < planned:
            return False
        return [verdict.passed for verdict in verdicts.values()].count(True) >= planned * share

    def active_s(self, now: float) -> float:
        """Seconds the run has been alive, over all its lives."""
        return self.active_before_s + max(0.0, now - self.opened_at)

    def summary(self) -> Summary:
        """All that earlier iterations come to: what a *reached* before a generation carries."""
        changed = None
        if self.changed:
            changed = Changed(self.prompt, self.system_prompt, self.parts, self.settings)
        return Summary(
            totals=self.totals,
            active_s=self.active_s(self.last_at),
            parameters=self.parameters,
            documents_at=self.documents_at,
            doubts=(*self.doubts.values(), *(doubtful(*one) for one in self.open_intents.items())),
            best=self.best,
            life=self.life,
            actions=self.actions,
            restarts=self.restarts,
            waits=self.waits,
            waited_s=self.waited_s,
            changed=changed,
            recovery=self.recovery,
            tried=self.tried,
            tried_for=self.tried_for,
        )

    def resume_from(self, summary: Summary, at: float, seq: int, to: Position) -> None:
        """Take up the fold after record ``seq``, a *reached* with a summary, unread what came before."""
        self.totals = summary.totals
        self.active_before_s = summary.active_s
        self.opened_at = self.last_at = self.step_at = at
        self.parameters = summary.parameters
        self.documents_at = summary.documents_at
        self.doubts = {doubt.seq: doubt for doubt in summary.doubts}
        self.best = summary.best
        self.life = summary.life
        self.actions = summary.actions
        self.restarts = summary.restarts
        self.waits = summary.waits
        self.waited_s = summary.waited_s
        self.recovery = summary.recovery
        self.tried, self.tried_for = summary.tried, summary.tried_for
        if summary.changed is not None:
            self.changed = True
            self.prompt = summary.changed.prompt
            self.system_prompt = summary.changed.system_prompt
            self._set_parts(summary.changed.parts)
            self.settings = summary.changed.settings
        self.position = to
        self.next_seq = seq + 1

    # Thoughts ------------------------------------------------------------------------------

    def _fix_prompt(self) -> str | None:
        """The prompt that the text was written from, put together while its parts are what they were."""
        if self.model_prompt is None and self.text is not None:
            self.model_prompt = generation_prompt(
                self.prompt, self.all_documents, self.draft, self.text_options
            )
        return self.model_prompt

    def thought(self) -> Thought:
        """The state as a thought."""
        return Thought(
            prompt=self.prompt,
            system_prompt=self.system_prompt,
            model_prompt=self._fix_prompt(),
            text=self.partial_text if self.text is None else self.text,
            pre_generation_context=self.all_documents,
            post_generation_context=self._documents(self.critic_documents),
            validation_results=self._in_order(self.verdicts),
            critic_feedback=self._in_order(self.feedback),
            history=self.history,
            iteration=self.position.iteration,
            id=f"{self.chain_id}:{max(self.text_seq, 0)}",
            parent_id=self.draft.id if self.draft is not None else None,
            chain_id=self.chain_id,
            timestamp=datetime.fromtimestamp(self.text_at or self.first_at, UTC),
            passed=self.passed,
            cost=self.totals.cost_usd,
            cost_unknown_calls=self.totals.unpriced_calls,
            in_doubt=tuple(self.doubts.values()),
            metadata={"partial": True} if self.text is None and self.partial_text else {},
        )

    @property
    def partial_text(self) -> str:
        """What is known of the text under way: that of a stream that goes on, or was cut; else empty."""
        if self.position.operation != "generation":
            return ""
        going_on = [self.heard[seq] for seq in self.open_intents if seq in self.heard]
        return going_on[-1] if going_on else next((text for _, text in self.cut.values()), "")

    def best_draft(self) -> Thought:
        """The best text so far, with what the whole run has cost and left in doubt."""
        best = self.best
        if best is None or best.seq == self.text_seq:
            return self.thought()
        found = self.best_thought
        if found is None:
            # Only a state that was loaded in part can lack it; the log has it.
            whole = self.whole() if self.whole is not None else None
            if whole is None or whole.best != best:
                raise AssertionError(f"the text of record {best.seq} is lost")
            found = whole.best_draft()
        return msgspec.structs.replace(
            found,
            cost=self.totals.cost_usd,
            cost_unknown_calls=self.totals.unpriced_calls,
            in_doubt=tuple(self.doubts.values()),
        )

    def _in_order(self, by_name: dict[str, _T]) -> tuple[_T, ...]:
        """In the plan's order, whatever the order in which parts that ran together answered."""
        if len(by_name) < 2:
            return tuple(by_name.values())
        return tuple(by_name[part.name] for part in self.parts if part.name in by_name)

    def _documents(self, by_part: dict[str, tuple[Document, ...]]) -> tuple[Document, ...]:
        """All documents, in the order of their retrievers."""
        if len(by_part) < 2:
            return next(iter(by_part.values()), ())
        planned = [part.name for part in self.parts if part.name in by_part]
        gone = [name for name in by_part if name not in planned]  # their part is, what it found is not
        return tuple([one for name in planned + gone for one in by_part[name]])

    @property
    def history(self) -> Sequence[Thought]:
        """The thoughts of the earlier iterations, oldest first."""
        if not self.history_is_whole and self.whole is not None:
            whole = self.whole
            return History(load=lambda: tuple(whole().history))
        return () if self.previous is None else History(last=self.previous)

    # The fold ------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Fold the next record in."""
        seq = self.next_seq
        self.next_seq = seq + 1
        self._FOLD[type(record)](self, seq, record)
        self.last_at = record.at

    def _opened(self, _seq: int, record: Opened) -> None:
        self.active_before_s += max(0.0, self.last_at - self.opened_at)
        self.opened_at = self.step_at = record.at
        self.life = record.life
        self.closed = None
        self._plan(record)
        if record.cause == "new":
            self.first_at = record.at
        elif record.cause == "fork":
            self.parent = record.parent
            self.totals = Totals()
            self.active_before_s = 0.0
            self.doubts = {}
            self._new_allowance()
        elif record.cause == "retry":
            self._new_allowance()
        elif record.cause == "death":
            self.deaths += 1
        for seq in record.doubts:
            intent = self.open_intents.pop(seq, None)
            if intent is not None:
                self._doubt(seq, intent)
                self._keep_cut(seq, intent)

    def _new_allowance(self) -> None:
        self.attempts = {}
        self.actions = self.restarts = self.deaths = self.waits = 0
        self.waited_s = 0.0

    def _plan(self, record: Opened) -> None:
        if record.cause != "new":
            said = (record.prompt, record.parts, record.settings)
            self.changed |= any(one is not None for one in said)
            self._fix_prompt()
        if record.prompt is not None:
            self.prompt = record.prompt
            self.system_prompt = record.system_prompt
        if record.parts is not None:
            self._set_parts(record.parts)
        if record.settings is not None:
            self._set_settings(record.settings)

    def _set_settings(self, settings: dict[str, Any]) -> None:
        """Newer settings come before what recovery actions have set for the same options."""
        if self.parameters:
            old = self.settings
            self.parameters = {
                name: value
                for name, value in self.parameters.items()
                if name not in settings or settings[name] == old.get(name)
            }
        self.settings = settings

    def _set_parts(self, parts: tuple[PlannedPart, ...]) -> None:
        self.parts = parts
        if self.changed:  # what parts have said that the plan no longer has counts for nothing
            names = {part.name for part in parts}
            self.verdicts = {name: one for name, one in self.verdicts.items() if name in names}
            self.feedback = {name: one for name, one in self.feedback.items() if name in names}
        self.planned_validators = sum(part.kind == "validator" for part in parts)

    def _doubt(self, seq: int, intent: Intent) -> None:
        self.doubts[seq] = doubtful(seq, intent)

    def _keep_cut(self, seq: int, intent: Intent) -> None:
        """What was heard of a call that ended without its answer is what another may go on from."""
        self.handles.pop(seq, None)
        text = self.heard.pop(seq, "")
        if text:
            self.cut[intent.part, intent.n] = (intent.digest, text)

    def _intent(self, seq: int, record: Intent) -> None:
        self.open_intents[seq] = record

    def _handle(self, _seq: int, record: Handle) -> None:
        self.handles[record.intent] = record.provider_id

    def _partial(self, _seq: int, record: Partial) -> None:
        self.heard[record.intent] = self.heard.get(record.intent, "")[: record.start] + record.text

    def _result(self, seq: int, record: Result) -> None:
        part = record.part
        intent = self.open_intents.pop(record.intent, None)
        if intent is not None:
            self._pay(record)
            self.deaths = 0
            self.handles.pop(record.intent, None)
            self.heard.pop(record.intent, None)
            if self.cut:
                self.cut.pop((part, intent.n), None)
            self.replies[part, intent.n] = (intent.digest, record)
        if record.text is not None:
            if record.operation == "generation":
                self.text, self.text_seq, self.text_at = record.text, seq, record.at
                self.text_options = self.options
                self.model_prompt, self.asked_prompt = self.asked_prompt, None
                self.text_is_whole = True
        elif record.verdict is not None:
            self.verdicts[part] = record.verdict
        elif record.feedback is not None:
            self.feedback[part] = record.feedback
        elif record.operation == "retrieval":
            self.documents[part] = record.documents or ()
            self.documents_at += (seq,)
        else:
            self.critic_documents[part] = record.documents or ()

    def _pay(self, record: Result) -> None:
        old = self.totals
        price, usage = record.price_usd, record.usage
        self.totals = Totals(
            old.cost_usd + (price or 0.0),
            old.unpriced_calls + (price is None and record.text is not None),
            old.calls + 1,
            old.input_tokens + (usage.input_tokens if usage else 0),
            old.output_tokens + (usage.output_tokens if usage else 0),
        )

    def _faulted(self, _seq: int, record: Faulted) -> None:
        intent = self.open_intents.pop(record.intent, None)
        if intent is None:
            # The part could make nothing of its last replies: these have to be asked for again.
            numbers = sorted(n for part, n in self.replies if part == record.part)
            for number in numbers[-record.asked :]:
                del self.replies[record.part, number]
        elif record.fault.billed in ("maybe", "partly"):
            self._doubt(record.intent, intent)
            self._keep_cut(record.intent, intent)
        elif record.fault.billed == "yes":
            self._pay(
                Result(record.at, record.intent, record.operation, record.iteration, record.part, text="")
            )
        if record.operation == "generation":
            self.text_is_whole = False
        # Calls that a part made together and that failed together are one attempt.
        self.attempts[record.part] = max(self.attempts.get(record.part, 0), record.attempt)
        self.fault = record

    def _recovery(self, seq: int, record: Recovery) -> None:
        if record.counts:
            self.tried += (record.strategy,)
            self.tried_for = (record.iteration, OPERATIONS.index(record.operation))
            self.actions += 1
        else:
            self.waits += 1
        for part in set(record.waits_for):
            self.attempts[part] -= 1
        self.waited_s += record.delay_s
        self.restarts += record.strategy == "full_restart"
        if record.parameters:
            self.parameters = _overlaid(self.parameters, record.parameters)
            if "models" in record.parameters:
                self.attempts = {}
        self.skipped.update(record.skips)
        if record.sets_aside:
            self.step_at = record.at
            self._go_back(record.to)
        if record.chosen_by != "breaker" or self.recovery is None:  # a wait on the way is no new attempt
            self.recovery = OpenRecovery(seq, record, self.totals)

    def _outcome(self, _seq: int, _record: Outcome) -> None:
        self.recovery = None

    def _reached(self, _seq: int, record: Reached) -> None:
        self.step_at = record.at
        at = self.position
        if self.tried and (at.iteration, OPERATIONS.index(at.operation)) >= self.tried_for:
            self.tried = ()
        if record.step == "validation":
            self.rank_text()
        if record.to != self.position:
            self._go_on(record.to)

    def rank_text(self) -> None:
        """See whether this iteration's text is the best so far, now that its verdicts are in."""
        verdicts = self.verdicts.values()
        scores = [float(one.passed) if one.score is None else one.score for one in verdicts]
        found = Best(
            seq=self.text_seq,
            iteration=self.position.iteration,
            passed=sum(one.passed for one in verdicts),
            mean_score=sum(scores) / len(scores) if scores else 0.0,
        )
        old = self.best
        if old is None or (found.passed, found.mean_score) >= (old.passed, old.mean_score):
            self.best, self.best_thought = found, None

    def _closed(self, _seq: int, record: Closed) -> None:
        self.closed = record

    # Moving --------------------------------------------------------------------------------

    def _go_on(self, to: Position) -> None:
        """To the next operation: what only the one left behind needed is forgotten."""
        self._leave_calls()
        self.attempts = {}
        self.fault = None
        if to.iteration > self.position.iteration:
            self.draft = self.previous = self._leave_text()
            self.history_is_whole = True
            self._forget_from("generation")
        self.position = to

    def _go_back(self, to: Position) -> None:
        """To an earlier operation: what it and the later ones had made is set aside."""
        self._leave_text()
        self._forget_from(to.operation)
        self._leave_calls()
        self.attempts = {}
        if to.afresh:
            self.draft = None
        if to.iteration < self.position.iteration:
            self.previous, self.history_is_whole = None, True
        self.position = to

    def _leave_calls(self) -> None:
        """Of the operation left behind nothing is asked for again; calls still out are in doubt."""
        for seq, intent in self.open_intents.items():
            self._doubt(seq, intent)
        self.open_intents, self.handles, self.heard = {}, {}, {}
        self.replies, self.cut = {}, {}

    def _leave_text(self) -> Thought:
        thought = self.thought()
        if self.best is not None and self.best.seq == self.text_seq:
            self.best_thought = thought
        return thought

    def _forget_from(self, operation: Operation) -> None:
        start = OPERATIONS.index(operation)
        if start <= _RETRIEVAL:
            self.documents, self.documents_at = {}, ()
        if start <= _GENERATION:
            self.text, self.text_seq, self.text_at, self.model_prompt = None, -1, 0.0, None
            self.text_is_whole = False
        if start <= _VALIDATION:
            self.verdicts = {}
        if start <= _CRITIC_RETRIEVAL:
            self.critic_documents = {}
        if start <= _CRITICISM:
            self.feedback = {}
        self.skipped = set()

    _FOLD: ClassVar[dict[type[Any], Callable[[Any, int, Any], None]]] = {
        Opened: _opened,
        Intent: _intent,
        Handle: _handle,
        Partial: _partial,
        Result: _result,
        Faulted: _faulted,
        Recovery: _recovery,
        Outcome: _outcome,
        Reached: _reached,
        Closed: _closed,
    }


_RETRIEVAL, _GENERATION, _VALIDATION, _CRITIC_RETRIEVAL, _CRITICISM = range(5)


def doubtful(seq: int, intent: Intent) -> DoubtfulCall:
    """An open call as one that is in doubt."""
    return DoubtfulCall(
        operation=intent.operation,
        iteration=intent.iteration,
        part=intent.part,
        model=intent.model,
        price_max_usd=intent.price_max_usd,
        seq=seq,
    )


def _overlaid(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Newer parameters over older ones; ``models`` says which model stands in for which, and adds up."""
    both = {**old, **new}
    if "models" in old and "models" in new:
        instead: dict[str, str] = {**old["models"], **new["models"]}
        for chosen in new["models"].values():
            instead.pop(chosen, None)  # or two that stand in for each other would go round in circles
        both["models"] = instead
    return both


def fold(chain_id: str, records: Iterable[Record]) -> State:
    """The state that a whole log, from its first record, comes to."""
    state = State(chain_id)
    for record in records:
        state.apply(record)
    return state
