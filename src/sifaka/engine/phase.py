"""Running the parts of one operation together, each call with its intent and its result (floor 5).

A part is a task. A plain part is one call; an asking part is a generator that yields requests, and is
sent the replies already in the log before any new call is made. When one part fails, the others are
waited for, so that none of what they cost is lost. Where all that is left has to wait, the phase ends and is
entered again when it is time: a call that is still open is then looked up, not made again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from sifaka.engine.answers import documents_of, feedback_of, reply_of, requests_of, verdict_of
from sifaka.engine.effects import Admit, Call, Done, Effect, Perform, Report, Told
from sifaka.engine.life import Asked, Life
from sifaka.engine.plan import BoundModel, BoundPart, digest_of, price_of
from sifaka.errors import ModelError, PartError
from sifaka.faults import Fault, classify
from sifaka.log.records import Faulted, Handle, Intent, Operation, Partial, Recovery, Result
from sifaka.parts import Heard, Pending, Reply, Request
from sifaka.recovery.actions import RecoveryStrategy
from sifaka.recovery.limits import Budget, as_quota, overdue, seconds_left

if TYPE_CHECKING:
    from sifaka.recovery.gate import Admission

__all__ = ["Failure", "Held", "Stopped", "run_together"]

_NO_OPTIONS: dict[str, Any] = {}
_ALL = 1_000_000
LOOKS_MAX = 10
"""So often a look-up that fails is tried; then what became of the call is not known."""


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


class Held(Exception):  # noqa: N818 - as above
    """All that is left has to wait: for a provider that is left alone, or for an answer it works on."""

    def __init__(self, until: float, reason: str, part: str, *, by_gate: bool) -> None:
        super().__init__(reason)
        self.until = until
        self.reason = reason
        self.part = part
        self.by_gate = by_gate


class Task:
    """One part at work: the one call that it is, or the requests it made last and their replies."""

    __slots__ = ("attempt", "failed", "generator", "left", "many", "n", "part", "replies")

    def __init__(self, part: BoundPart, attempt: int) -> None:
        self.part = part
        self.attempt = attempt
        self.generator: Generator[Any, Any, Any] | None = None
        self.n = 0
        """How many requests came before the last ones."""
        self.replies: list[Reply | None] = []
        self.left = 0
        self.many = False
        self.failed = False


class Ask:
    """One call that a task needs: to a model (``request``), or of the part itself."""

    __slots__ = (
        "digest",
        "heard",
        "intent",
        "looks_up",
        "lost",
        "model",
        "n",
        "not_applied",
        "options",
        "request",
        "spliced",
        "task",
    )

    def __init__(self, task: Task, n: int, request: Request | None = None) -> None:
        self.task = task
        self.n = n
        self.request = request
        self.digest = ""
        self.options: dict[str, Any] = {}
        self.intent = -1
        self.model: BoundModel | None = None
        self.not_applied: tuple[str, ...] = ()
        self.spliced = ""
        """The text of a cut call that this one goes on from."""
        self.heard: Heard | None = None
        self.looks_up = False
        self.lost: Done | None = None
        """How the call ended whose answer was lost, and is looked up at once."""


class _Phase:
    """The tasks of one operation, the calls they need, and the calls that are out."""

    def __init__(self, life: Life, operation: Operation, argument: Any) -> None:
        self.life = life
        self.operation: Operation = operation
        self.iteration = life.state.position.iteration
        self.argument = argument
        self.ready: deque[Ask] = deque()
        self.out: dict[int, Ask] = {}
        self.paid_out = 0
        """How many of them may have to be paid: before these are waited for, what is known is saved."""
        self.held: list[Held] = []
        self.faults: list[tuple[Faulted, BaseException]] = []
        self.reports: list[Report] = []
        self.stopped: str | None = None

    def run(self, parts: Sequence[BoundPart]) -> Generator[Effect, Any, None]:
        life = self.life
        waiting = deque(parts)
        together = int(life.state.options.get("batch_size") or _ALL)
        while True:
            start: list[Call] = []
            while len(self.out) < together and self.stopped is None and (self.ready or waiting):
                if self.ready:
                    start += yield from self._start(self.ready.popleft())
                else:
                    part = waiting.popleft()
                    self._begin(Task(part, life.state.attempts.get(part.name, 0) + 1))
            if not self.out:
                break
            yield from self._wait_for(start)
        if self.stopped is not None:
            raise Stopped(self.stopped)
        if self.faults:
            raise Failure(self.faults)
        if self.held:
            raise min(self.held, key=lambda one: one.until)

    def _wait_for(self, start: list[Call]) -> Generator[Effect, Any, None]:
        """Start these calls, and take up the next thing that is told of any of those that are out."""
        if self.paid_out:
            yield from self.life.flush()
        told: Done | Told = yield Perform(start)
        if isinstance(told, Told):
            if told.key in self.out:
                self._hear(self.out[told.key], told.heard)
            return
        ask = self.out.pop(told.key)
        self.paid_out -= ask.intent >= 0
        self._settle(ask, told)
        reports, self.reports = self.reports, []
        yield from reports

    # One task ------------------------------------------------------------------------------

    def _begin(self, task: Task) -> None:
        part = task.part
        if not part.asks:
            self.ready.append(Ask(task, 0))
            return
        try:
            task.generator = part.function(self.argument)
        except Exception as error:  # noqa: BLE001 - whatever a part raises is a fault
            self._fault(task, error, 0.0)
            return
        self._step(task, next)

    def _step(self, task: Task, advance: Callable[[Any], object]) -> None:
        """Let an asking part go on until it needs calls that the log has no answers to, or returns."""
        while True:
            try:
                asked = advance(task.generator)
                task.many = isinstance(asked, list | tuple)
                requests = requests_of(asked, task.part.name)
                known = [self._known(task, n, one) for n, one in enumerate(requests, task.n)]
            except StopIteration as stop:
                self._finish(task, stop.value, 0.0)
                return
            except Exception as error:  # noqa: BLE001 - as above
                self._fault(task, error, 0.0)
                return
            task.replies = [one if isinstance(one, Reply) else None for one in known]
            asks = [one for one in known if isinstance(one, Ask)]
            task.left = len(asks)
            if asks:
                self.ready.extend(asks)
                return
            advance = self._sender(task)

    def _sender(self, task: Task) -> Callable[[Any], object]:
        """What sends a part the replies to its last requests, all of which are there."""
        replies, task.n = task.replies, task.n + len(task.replies)
        answer: Any = replies if task.many else replies[0]
        return lambda generator: generator.send(answer)

    def _known(self, task: Task, n: int, request: Request) -> Reply | Ask:
        """The recorded reply to ``request``, or the call that it needs. Raises UsageError for a bad model."""
        ask = Ask(task, n, request)
        self.life.model_for(request.model)
        ask.options = self.life.model_options(request.options)
        ask.digest = digest_of((request.prompt, request.system_prompt, ask.options))
        known = self.life.state.replies.get((task.part.name, n))
        return _reply_from(known[1]) if known is not None and known[0] == ask.digest else ask

    # One call ------------------------------------------------------------------------------

    def _start(self, ask: Ask) -> Generator[Effect, Any, list[Call]]:
        """The call that ``ask`` needs; none where it has to wait, or the budget forbids it."""
        if ask.request is None:
            return self._call_part(ask)
        found = self._open_call(ask)
        if found is not None:
            return [found]
        asked = yield from self._choose(ask, ask.request)
        if asked is None:
            return []
        calls = self._call_model(ask, ask.request, asked.model)
        if not calls and asked.model.provider:
            yield Report(asked.model.name, ask.task.part.name, made=False)
        return calls

    def _call_part(self, ask: Ask) -> list[Call]:
        part, life = ask.task.part, self.life
        if part.pure:
            key = life.next_key()
        else:
            if self._broke(0.0):
                return []
            key = ask.intent = self._intend(ask, "", None)
            self.paid_out += 1
        self.out[key] = ask
        return [
            Call(
                key=key,
                function=part.function,
                args=(self.argument,),
                kwargs=_NO_OPTIONS,
                coroutine=part.coroutine,
                inline=part.pure and not part.coroutine,
                timeout_s=life.state.options.get("timeout_s"),
            )
        ]

    def _choose(self, ask: Ask, request: Request) -> Generator[Effect, Any, Asked | None]:
        """The model to ask now; None where all that could be asked are to be left alone for a while."""
        life, part = self.life, ask.task.part.name
        held: list[Held] = []
        while True:
            asked = life.model_for(request.model)
            name = asked.model.name
            admission: Admission | None = None
            if asked.model.provider and (life.want.recover or asked.others or held):
                admission = yield Admit(name, part, ask.task.attempt > 1)
            if admission is None or admission.go:
                life.asked[part] = asked
                return asked
            held.append(Held(admission.until, admission.reason, part, by_gate=True))
            if not asked.others:
                self.held.append(min(held, key=lambda one: one.until))
                return None
            life.emit(self._switch(ask, name, asked.others[0], admission.reason))

    def _switch(self, ask: Ask, name: str, other: str, reason: str) -> Recovery:
        state = self.life.state
        return Recovery(
            at=self.life.clock.time(),
            operation=self.operation,
            iteration=self.iteration,
            part=ask.task.part.name,
            strategy=RecoveryStrategy.MODIFY_PARAMETERS.value,
            description=f"ask {other} instead of {name}: {reason}",
            to=state.position,
            parameters={"models": {name: other}},
            counts=False,
            chosen_by="breaker",
        )

    def _call_model(self, ask: Ask, request: Request, model: BoundModel) -> list[Call]:
        state = self.life.state
        prompt, kwargs, ask.not_applied = _fitted(model, request, ask.options)
        timeout_s = state.options.get("timeout_s")
        if timeout_s is not None and model.takes("timeout_s"):
            kwargs["timeout_s"], timeout_s = timeout_s, None
        price = price_of(model, prompt, kwargs)
        if self._broke(price):
            return []
        if model.takes("call_id"):
            kwargs["call_id"] = f"{state.chain_id}:{state.next_seq}"
        cut = state.cut.get((ask.task.part.name, ask.n))
        if cut is not None and cut[0] == ask.digest and model.takes("continue_from"):
            kwargs["continue_from"] = ask.spliced = cut[1]
        ask.intent = self._intend(ask, model.name, price)
        ask.model = model
        return [self._model_call(ask, model.generate, model.agenerate, (prompt,), kwargs, timeout_s)]

    def _open_call(self, ask: Ask) -> Call | None:
        """A call that asks what became of the call for ``ask`` that is still open, where there is one."""
        life, part = self.life, ask.task.part.name
        for seq, intent in life.state.open_intents.items():
            if seq in self.out or (intent.part, intent.n, intent.digest) != (part, ask.n, ask.digest):
                continue
            model = life.settler(seq, intent)
            if model is not None and model.look_up is not None:
                ask.intent, ask.model, ask.looks_up = seq, model, True
                told = (life.state.handles.get(seq, ""), f"{life.state.chain_id}:{seq}")
                limit = life.state.options.get("timeout_s")
                return self._model_call(ask, model.look_up, model.alook_up, told, {}, limit)
        return None

    def _model_call(
        self,
        ask: Ask,
        function: Callable[..., Any],
        async_function: Callable[..., Any] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout_s: float | None,
    ) -> Call:
        model = cast("BoundModel", ask.model)
        use_async = async_function is not None and self.life.want.asynchronous
        self.out[ask.intent] = ask
        self.paid_out += 1
        return Call(
            key=ask.intent,
            function=async_function if async_function is not None and use_async else function,
            args=args,
            kwargs=kwargs,
            coroutine=use_async or (model.coroutine and not ask.looks_up),
            timeout_s=timeout_s,
            hears=self.life.hears_s if model.takes("hear") and not ask.looks_up else None,
        )

    def _broke(self, price_max_usd: float | None) -> bool:
        """True where the budget forbids the call: nothing new is started, what is out is waited for."""
        life = self.life
        budget: Budget = life.budget
        now = life.clock.time()
        self.stopped = overdue(life.limits, life.state, now) or budget.exhausted(
            life.state, now, price_max_usd
        )
        return self.stopped is not None

    def _intend(self, ask: Ask, model: str, price: float | None) -> int:
        life = self.life
        return life.emit(
            Intent(
                life.clock.time(),
                self.operation,
                self.iteration,
                ask.task.part.name,
                ask.n,
                ask.task.attempt,
                ask.digest,
                model,
                price,
                ask.options or None,
            )
        )

    # What is told of it --------------------------------------------------------------------

    def _hear(self, ask: Ask, heard: Heard) -> None:
        """Record what is new: the provider's id for the call, and the piece by which its text has grown."""
        life, state, seq = self.life, self.life.state, ask.intent
        if heard.handle and state.handles.get(seq) != heard.handle:
            life.emit(Handle(life.clock.time(), seq, heard.handle))
        old, text = state.heard.get(seq, ""), heard.text
        if text and text != old:
            start = len(old) if text.startswith(old) else 0
            life.emit(Partial(life.clock.time(), seq, text[start:], start))

    def _settle(self, ask: Ask, done: Done) -> None:
        if done.error is not None and not isinstance(done.error, Exception):
            raise done.error  # Ctrl-C and the like end the run, they are no fault of the part's
        if ask.looks_up and self._looked_up(ask, done):
            return
        if done.error is not None:
            if done.heard is not None:
                self._hear(ask, done.heard)
            if self._can_be_found(ask, done.error):
                ask.lost = done
                self.ready.append(ask)
                return
            self._fault(ask.task, done.error, done.seconds, ask=ask)
        elif ask.request is None:
            self._finish(ask.task, done.value, done.seconds, ask.intent)
        elif isinstance(done.value, Pending):
            self._wait_later(ask, done.value)
        else:
            self._answer(ask, cast("BoundModel", ask.model), done)
        if ask.request is not None:
            self._go_on(ask.task)

    def _can_be_found(self, ask: Ask, error: Exception) -> bool:
        """Whether a call that may be paid failed, and its model can find out what became of it."""
        if ask.model is None or ask.looks_up or ask.lost is not None:
            return False
        can = ask.model.can_settle(self.life.state.handles.get(ask.intent))
        return can and _classified(error).billed in ("maybe", "partly")

    def _looked_up(self, ask: Ask, done: Done) -> bool:
        """What a look-up told; False where it is an answer like any other."""
        life, seq = self.life, ask.intent
        looks = life.looks[seq] = life.looks.get(seq, 0) + 1
        if done.error is not None and looks < LOOKS_MAX:
            fault = _classified(done.error)
            wait_s = fault.retry_after_s or min(60.0, 2.0**looks)
            reason = f"{ask.task.part.name}: the look-up failed ({fault.kind}) and is tried again"
            self.held.append(Held(life.clock.time() + wait_s, reason, ask.task.part.name, by_gate=False))
            return True
        if done.error is None and done.value is not None:
            life.looks.pop(seq)
            return False
        if ask.lost is not None and ask.lost.error is not None:
            self._fault(ask.task, ask.lost.error, ask.lost.seconds, ask=ask)
            self._go_on(ask.task)
            return True
        lost = ModelError("the provider does not know what became of the call", kind="connection")
        record = self._faulted(ask.task, ask.intent, lost, done.seconds, billed="maybe")
        life.emit(record)
        if life.want.on_doubt == "stop":
            self.stopped = "1 call is in doubt, and on_doubt is 'stop'"
            return True
        ask.intent, ask.model, ask.looks_up = -1, None, False
        ask.task.attempt += 1
        self.ready.append(ask)
        return True

    def _wait_later(self, ask: Ask, pending: Pending) -> None:
        """The answer is being worked on: the call stays open, and is looked up when the time has come."""
        model = cast("BoundModel", ask.model)
        name = model.name
        self._hear(ask, Heard(pending.handle))
        if not model.can_settle(self.life.state.handles.get(ask.intent)):
            # Or it would be asked, and paid, again and again.
            said = "without a handle" if model.look_up else "and has no look_up(handle, call_id)"
            error = PartError(f"the model {name} returned Pending {said}: its answer could never be had")
            self._fault(ask.task, error, 0.0, ask=ask, billed="maybe")
            return
        self._report(ask, None)
        until = self.life.clock.time() + max(0.0, pending.again_s)
        reason = f"{ask.task.part.name}: {name} is working on the answer"
        self.held.append(Held(until, reason, ask.task.part.name, by_gate=False))
        ask.task.left += 1  # it is answered in none of this phase's turns

    def _answer(self, ask: Ask, model: BoundModel, done: Done) -> None:
        try:
            reply = reply_of(done.value, model.name, ask.not_applied)
        except PartError as error:
            self._fault(ask.task, error, done.seconds, ask=ask, billed="yes")
            return
        if ask.spliced:
            reply = msgspec.structs.replace(reply, text=ask.spliced + reply.text)
        self._report(ask, None)
        self._record(
            ask.task,
            done.seconds,
            intent=ask.intent,
            text=reply.text,
            usage=reply.usage,
            price_usd=reply.price_usd,
            model=reply.model,
            finish_reason=reply.finish_reason,
            request_id=reply.request_id,
            not_applied=reply.not_applied,
            spliced=len(ask.spliced),
        )
        ask.task.replies[ask.n - ask.task.n] = reply

    def _go_on(self, task: Task) -> None:
        """One of the task's calls is over: when all are, the part goes on, or ends if one has failed."""
        task.left -= 1
        if task.left:
            return
        if not task.failed:
            self._step(task, self._sender(task))
        elif task.generator is not None:
            task.generator.close()

    def _report(self, ask: Ask, fault: Fault | None) -> None:
        if ask.model is not None and ask.model.provider:
            self.reports.append(Report(ask.model.name, ask.task.part.name, fault))

    def _finish(self, task: Task, value: object, seconds: float, intent: int = -1) -> None:
        """Record what the part made of it."""
        name = task.part.name
        try:
            if self.operation == "generation":
                self._judge_text(value)
            elif self.operation == "validation":
                self._record(task, seconds, intent=intent, verdict=verdict_of(value, name))
            elif self.operation == "criticism":
                self._record(task, seconds, intent=intent, feedback=feedback_of(value, name))
            else:
                self._record(task, seconds, intent=intent, documents=documents_of(value, name))
        except Exception as error:  # noqa: BLE001 - a lazy answer may fail while it is looked at
            self._fault(task, error, seconds, intent=intent, billed="yes" if intent >= 0 else None)

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

    def _record(self, task: Task, seconds: float, *, intent: int, **fields: Any) -> None:
        life = self.life
        life.emit(
            Result(
                at=life.clock.time(),
                intent=intent,
                operation=self.operation,
                iteration=self.iteration,
                part=task.part.name,
                seconds=seconds,
                **fields,
            )
        )

    def _fault(
        self,
        task: Task,
        error: BaseException,
        seconds: float,
        *,
        ask: Ask | None = None,
        intent: int = -1,
        billed: str | None = None,
    ) -> None:
        record = self._faulted(task, intent if ask is None else ask.intent, error, seconds, billed=billed)
        if ask is not None:
            self._report(ask, record.fault)
        life = self.life
        # A wait that is too long for this run alone is nothing the others have to know.
        left_s = seconds_left(life.limits, life.state, life.clock.time())
        record = msgspec.structs.replace(record, fault=as_quota(record.fault, left_s))
        life.emit(record)
        self.faults.append((record, error))
        task.failed = True

    def _faulted(
        self, task: Task, intent: int, error: BaseException, seconds: float, *, billed: str | None
    ) -> Faulted:
        fault = _classified(error)
        if billed is not None:
            fault = msgspec.structs.replace(fault, billed=billed)
        elif intent >= 0 and fault.billed == "no" and not _says_what_was_billed(error):
            # A user's function that fails for reasons of its own may have called, and paid, before.
            fault = msgspec.structs.replace(fault, billed="maybe")
        return Faulted(
            at=self.life.clock.time(),
            intent=intent,
            operation=self.operation,
            iteration=self.iteration,
            part=task.part.name,
            fault=fault,
            attempt=task.attempt,
            seconds=seconds,
            asked=max(1, len(task.replies)),
        )


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
    """Run ``parts`` together and record what they return. Raises Failure, Held, Stopped."""
    yield from _Phase(life, operation, argument).run(parts)
