"""Running the parts of one operation together, each call with its intent and its result (floor 5).

A part is a task. A plain part is one call; an asking part is a generator that yields requests, and is
sent the replies already in the log before any new call is made. When one part fails, the others are
waited for, so that none of what they cost is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import msgspec

from sifaka.engine.answers import documents_of, feedback_of, reply_of, request_of, verdict_of
from sifaka.engine.effects import Call, Done, Effect, Perform
from sifaka.engine.life import Life
from sifaka.engine.plan import BoundModel, BoundPart, digest_of, price_of
from sifaka.errors import ModelError, PartError, UsageError
from sifaka.faults import Fault, classify
from sifaka.log.records import Faulted, Intent, Operation, Result
from sifaka.parts import Reply, Request
from sifaka.recovery.limits import Budget

__all__ = ["Failure", "Stopped", "Task", "run_together"]

_NO_OPTIONS: dict[str, Any] = {}


class Failure(Exception):  # noqa: N818 - it carries faults between two floors of the engine, no user sees it
    """Parts of an operation failed: one record each, and the exceptions behind them."""

    def __init__(self, faults: Sequence[tuple[Faulted, BaseException]]) -> None:
        super().__init__()
        self.faults = tuple(faults)


class Stopped(Exception):  # noqa: N818 - as above
    """A limit of the caller's ended the run."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Task:
    """One part at work: its next request, or the one call that it is."""

    __slots__ = ("attempt", "digest", "generator", "intent", "model", "n", "not_applied", "part")

    def __init__(self, part: BoundPart) -> None:
        self.part = part
        self.generator: Generator[Request, Reply, Any] | None = None
        self.n = 0
        self.attempt = 1
        self.intent = -1
        self.digest = ""
        self.model: BoundModel | None = None
        self.not_applied: tuple[str, ...] = ()


class _Phase:
    """The tasks of one operation, and the calls that are out."""

    def __init__(self, life: Life, operation: Operation, argument: Any) -> None:
        self.life = life
        self.operation: Operation = operation
        self.iteration = life.state.position.iteration
        self.argument = argument
        self.out: dict[int, Task] = {}
        self.paid_out = 0
        """How many of them may have to be paid: before these are waited for, what is known is saved."""
        self.start: list[Call] = []
        self.faults: list[tuple[Faulted, BaseException]] = []
        self.stopped: str | None = None

    def run(self, parts: Sequence[BoundPart]) -> Generator[Effect, Any, None]:
        life = self.life
        waiting = deque(parts)
        together = max(1, int(life.state.options.get("batch_size") or len(parts)))
        while True:
            while waiting and len(self.out) < together and self.stopped is None:
                self._begin(Task(waiting.popleft()))
            if not self.out:
                break
            start, self.start = self.start, []
            if self.paid_out:
                yield from life.flush()
            done: Done = yield Perform(start)
            task = self.out.pop(done.key)
            self.paid_out -= task.intent >= 0
            self._settle(task, done)
        if self.stopped is not None:
            raise Stopped(self.stopped)
        if self.faults:
            raise Failure(self.faults)

    # One task ------------------------------------------------------------------------------

    def _begin(self, task: Task) -> None:
        part = task.part
        task.attempt = self.life.state.attempts.get(part.name, 0) + 1
        if not part.asks:
            self._call_part(task)
            return
        try:
            task.generator = part.function(self.argument)
        except Exception as error:  # noqa: BLE001 - whatever a part raises is a fault
            self._fault(task, error, 0.0)
            return
        self._step(task, next)

    def _call_part(self, task: Task) -> None:
        part, life = task.part, self.life
        if part.pure:
            key = life.next_key()
        else:
            if self._broke(task, 0.0):
                return
            key = task.intent = self._intend(task, "", "", None, None)
            self.paid_out += 1
        self.out[key] = task
        self.start.append(
            Call(
                key=key,
                function=part.function,
                args=(self.argument,),
                kwargs=_NO_OPTIONS,
                coroutine=part.coroutine,
                inline=part.pure and not part.coroutine,
                timeout_s=life.state.options.get("timeout_s"),
            )
        )

    def _step(self, task: Task, advance: Callable[[Any], object]) -> None:
        """Let an asking part go on until it needs a call that the log has no answer to, or returns."""
        while True:
            try:
                request = request_of(advance(task.generator), task.part.name)
            except StopIteration as stop:
                self._finish(task, stop.value, 0.0)
                return
            except Exception as error:  # noqa: BLE001 - as above
                self._fault(task, error, 0.0)
                return
            try:
                answered = self._ask(task, request)
            except UsageError as error:  # a model of its own that is none
                self._fault(task, error, 0.0)
                return
            if answered is None:
                return
            reply, task.n = answered, task.n + 1
            advance = _sender(reply)

    def _ask(self, task: Task, request: Request) -> Reply | None:
        """The recorded reply to ``request``, or None when a call for it was started (or refused)."""
        life, state = self.life, self.life.state
        model = life.model_for(request.model)
        options = life.model_options(request.options)
        task.digest = digest_of((request.prompt, request.system_prompt, options))
        known = state.replies.get((task.part.name, task.n))
        if known is not None and known[0] == task.digest:
            return _reply_from(known[1])
        prompt, kwargs, task.not_applied = _fitted(model, request, options)
        timeout_s = state.options.get("timeout_s")
        if timeout_s is not None and model.accepts is not None and "timeout_s" in model.accepts:
            kwargs["timeout_s"], timeout_s = timeout_s, None
        price = price_of(model, prompt, kwargs)
        if self._broke(task, price):
            return None
        key = task.intent = self._intend(task, task.digest, model.name, price, options or None)
        task.model = model
        self.out[key] = task
        self.paid_out += 1
        use_async = model.agenerate is not None and life.want.asynchronous
        function = model.agenerate if use_async and model.agenerate else model.generate
        self.start.append(
            Call(
                key=key,
                function=function,
                args=(prompt,),
                kwargs=kwargs,
                coroutine=use_async or model.coroutine,
                timeout_s=timeout_s,
            )
        )
        return None

    def _broke(self, task: Task, price_max_usd: float | None) -> bool:
        """True where the budget forbids the call: nothing new is started, what is out is waited for."""
        life = self.life
        budget: Budget = life.budget
        why = budget.exhausted(life.state, life.clock.time(), price_max_usd)
        if why is None:
            return False
        if task.generator is not None:
            task.generator.close()
        self.stopped = why
        return True

    def _intend(
        self,
        task: Task,
        digest: str,
        model: str,
        price: float | None,
        options: dict[str, Any] | None,
    ) -> int:
        life = self.life
        return life.emit(
            Intent(
                life.clock.time(),
                self.operation,
                self.iteration,
                task.part.name,
                task.n,
                task.attempt,
                digest,
                model,
                price,
                options,
            )
        )

    def _settle(self, task: Task, done: Done) -> None:
        if done.error is not None:
            if not isinstance(done.error, Exception):
                raise done.error  # Ctrl-C and the like end the run, they are no fault of the part's
            if task.generator is not None:
                task.generator.close()
            self._fault(task, done.error, done.seconds)
        elif task.model is None:
            self._finish(task, done.value, done.seconds)
        else:
            self._answer(task, task.model, done)

    def _answer(self, task: Task, model: BoundModel, done: Done) -> None:
        try:
            reply = reply_of(done.value, model.name, task.not_applied)
        except PartError as error:
            self._fault(task, error, done.seconds, billed="yes")
            return
        self._record(
            task,
            done.seconds,
            text=reply.text,
            usage=reply.usage,
            price_usd=reply.price_usd,
            model=reply.model,
            finish_reason=reply.finish_reason,
            request_id=reply.request_id,
            not_applied=reply.not_applied,
        )
        task.n += 1
        task.intent, task.model = -1, None
        self._step(task, _sender(reply))

    def _finish(self, task: Task, value: object, seconds: float) -> None:
        """Record what the part made of it."""
        name = task.part.name
        try:
            if self.operation == "generation":
                self._judge_text(value)
            elif self.operation == "validation":
                self._record(task, seconds, verdict=verdict_of(value, name))
            elif self.operation == "criticism":
                self._record(task, seconds, feedback=feedback_of(value, name))
            else:
                self._record(task, seconds, documents=documents_of(value, name))
        except Exception as error:  # noqa: BLE001 - a lazy answer may fail while it is looked at
            self._fault(task, error, seconds, billed="yes" if task.intent >= 0 else None)

    def _judge_text(self, value: object) -> None:
        """A text that is none, or was cut off, is recorded and paid, and a fault all the same."""
        if not isinstance(value, Reply):
            return
        reason = value.finish_reason
        if reason == "content_filter":
            raise ModelError("the provider withheld the text", kind=reason, finish_reason=reason)
        if not value.text.strip():
            raise ModelError("the model returned an empty text", kind="empty_output")
        if reason == "length" and not self.life.state.options.get("allow_partial_results"):
            raise ModelError(
                "the text was cut off at the limit of its tokens; raise max_tokens, or set "
                "allow_partial_results to keep such texts",
                kind="truncated",
                finish_reason=reason,
            )

    def _record(self, task: Task, seconds: float, **fields: Any) -> None:
        life = self.life
        life.emit(
            Result(
                at=life.clock.time(),
                intent=task.intent,
                operation=self.operation,
                iteration=self.iteration,
                part=task.part.name,
                seconds=seconds,
                **fields,
            )
        )

    def _fault(self, task: Task, error: BaseException, seconds: float, *, billed: str | None = None) -> None:
        life = self.life
        fault = _classified(error)
        if billed is not None:
            fault = msgspec.structs.replace(fault, billed=billed)
        elif task.intent >= 0 and fault.billed == "no" and not _says_what_was_billed(error):
            # A user's function that fails for reasons of its own may have called, and paid, before.
            fault = msgspec.structs.replace(fault, billed="maybe")
        record = Faulted(
            at=life.clock.time(),
            intent=task.intent,
            operation=self.operation,
            iteration=self.iteration,
            part=task.part.name,
            fault=fault,
            attempt=task.attempt,
            seconds=seconds,
        )
        life.emit(record)
        self.faults.append((record, error))


_CLIENTS = frozenset(
    (
        *("anthropic", "botocore", "google", "groq", "mistralai", "openai", "pydantic_ai", "sifaka"),
        *("httpcore", "httpcore2", "httpx", "httpx2"),
    )
)
"""Libraries whose errors tell of the call itself: what they say of its price can be believed."""


def _says_what_was_billed(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _CLIENTS


def _classified(error: BaseException) -> Fault:
    try:
        return classify(error)
    except Exception as failure:  # noqa: BLE001 - an error so odd that nothing can be read from it
        return classify(f"{type(error).__name__} (could not be examined: {type(failure).__name__})")


def _sender(reply: Reply) -> Callable[[Any], Request]:
    return lambda generator: generator.send(reply)


def _reply_from(result: Result) -> Reply:
    return Reply(
        text=result.text or "",
        usage=result.usage,
        price_usd=result.price_usd,
        finish_reason=result.finish_reason,
        request_id=result.request_id,
        model=result.model,
        not_applied=result.not_applied,
    )


def _fitted(
    model: BoundModel, request: Request, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """The prompt and keywords a model is called with, and the options it cannot take.

    A model that knows no system prompt gets it in front of the prompt: it must not get lost.
    """
    prompt, system = request.prompt, request.system_prompt
    kwargs, not_applied = model.fit(options)
    if system is not None:
        if model.accepts is None or "system_prompt" in model.accepts:
            kwargs["system_prompt"] = system
        else:
            prompt = f"{system}\n\n{prompt}"
    return prompt, kwargs, not_applied


def run_together(
    life: Life, operation: Operation, parts: Sequence[BoundPart], argument: Any
) -> Generator[Effect, Any, None]:
    """Run ``parts`` together and record what they return. Raises Failure, Stopped."""
    yield from _Phase(life, operation, argument).run(parts)
