"""A life of an agent's run: it begins, ends and is recorded as a chain's; its calls are its own (floor 9).

pydantic-ai decides what is called next. The whole run is one text under way, as a chain's generation is; each
call has a number within its part.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator
from typing import Any

from msgspec.structs import replace

from sifaka.engine.effects import Effect
from sifaka.engine.run import Engine
from sifaka.faults import classify
from sifaka.integrations.pydantic_ai.calls import Call
from sifaka.log.records import Faulted, Intent, Position, Record, Result
from sifaka.recovery.limits import overdue
from sifaka.storage.base import Change

__all__ = ["AgentLife", "Recorded"]

Key = tuple[str, str]


class Recorded:
    """The log's calls by what they ask: answers, and those that were made and not answered."""

    def __init__(self) -> None:
        self._intents: dict[int, Intent] = {}
        self._answers: defaultdict[Key, deque[Result]] = defaultdict(deque)
        self._left: defaultdict[Key, deque[Intent]] = defaultdict(deque)
        self._numbers: defaultdict[str, int] = defaultdict(int)

    def apply(self, seq: int, record: Record) -> None:
        """Take the next record of the log."""
        if isinstance(record, Intent):
            self._intents[seq] = record
            key = (record.part, record.digest)
            left = [one for one in self._left[key] if one.n != record.n]  # it is made again
            self._left[key] = deque([*left, record])
            self._numbers[record.part] = max(self._numbers[record.part], record.n + 1)
        elif isinstance(record, Result) and record.intent in self._intents:
            intent = self._intents.pop(record.intent)
            key = (intent.part, intent.digest)
            self._left[key].remove(intent)
            self._answers[key].append(record)

    def answer(self, key: Key) -> Result | None:
        """The next recorded answer to such a call, once."""
        answers = self._answers.get(key)
        return answers.popleft() if answers else None

    def place(self, call: Call) -> tuple[int, int]:
        """A new call's number within its part, and which attempt at it this is."""
        left = self._left.get(call.key)
        if left:
            before = left.popleft()
            return before.n, before.attempt + 1
        number = self._numbers[call.part]
        self._numbers[call.part] = number + 1
        return number, 1

    def give_back(self, intent: Intent) -> None:
        """A call was made and failed: it may be made again."""
        self._left[intent.part, intent.digest].append(intent)


class AgentLife(Engine):
    """What an agent's calls come to in the log."""

    _failure: BaseException | None = None
    """The error that was recorded last."""

    def begin(self) -> Generator[Effect, Any, None]:
        """Open this life. Raises PlanChangedError, and ChainError where a doubt or deaths stop it."""
        closed = self.state.closed
        if closed is not None and closed.status == "done":
            self._check_plan()
            return
        yield from self._begin(decided=False)
        if self.state.position.operation == "retrieval":
            self._reach("retrieval", Position("generation", 0))

    def refusal(self, price_max_usd: float | None) -> str | None:
        """Why the next call must not be made, or None."""
        now = self.clock.time()
        return overdue(self.limits, self.state, now) or self.budget.exhausted(self.state, now, price_max_usd)

    def end(self, reason: str) -> Generator[Effect, Any, None]:
        """Stop here. Raises ChainError."""
        yield from self._end(reason)

    def intend(self, call: Call, n: int, attempt: int) -> tuple[int, Intent]:
        """Say that a call is about to be made; the record's number, and it."""
        intent = Intent(
            at=self.clock.time(),
            operation="generation",
            iteration=self.state.iteration,
            part=call.part,
            n=n,
            attempt=attempt,
            digest=call.digest,
            model=call.model,
            price_max_usd=call.price_max_usd,
            options=call.options,
        )
        return self.emit(intent), intent

    def answer(self, seq: int, part: str, seconds: float, **fields: Any) -> Result:
        """Record what a call returned; the record."""
        now, iteration = self.clock.time(), self.state.iteration
        record = Result(now, seq, "generation", iteration, part, seconds, **fields)
        self.emit(record)
        return record

    def fault(self, seq: int, intent: Intent, error: BaseException, seconds: float) -> None:
        """Record how a call failed. What was paid before it failed is told by pydantic-ai's errors alone."""
        self._failure = error
        found = classify(error)
        told = intent.model and type(error).__module__.startswith("pydantic_ai.")
        if found.billed == "no" and not told:
            found = replace(found, billed="maybe")
        self.emit(
            Faulted(
                at=self.clock.time(),
                intent=seq,
                operation=intent.operation,
                iteration=intent.iteration,
                part=intent.part,
                fault=found,
                attempt=intent.attempt,
                seconds=seconds,
            )
        )

    def complete(self, output: str) -> Generator[Effect, Any, None]:
        """The run is done, with this output as its text."""
        self.answer(-1, "agent", 0.0, text=output)
        self._reach("generation", Position("complete", self.state.iteration))
        yield from self._complete()

    def leave(self, error: BaseException) -> Generator[Effect, Any, None]:
        """Save what is known: ``error`` ends this life."""
        if isinstance(error, GeneratorExit):
            yield from self.pause()
        elif error is self._failure and self.state.fault is not None:
            fault = self.state.fault.fault
            why = f"{fault.kind} at {self.state.fault.part}: {fault.message or fault.error_class}"
            yield from self._stop("failed", why, fault.signature)
        else:
            yield from self._leave(error)

    def pause(self) -> Generator[Effect, Any, None]:
        """Save what is known, and give the run back: it was left before it was done."""
        self.change = Change("interrupted", self.clock.time(), release=True)
        yield from self.flush(force=True)
