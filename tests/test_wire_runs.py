"""Whole runs against a provider that misbehaves in every way it can, through the providers' own libraries.

A run ends done or with a reason; one attempt is one request; what the provider billed is what the log knows of.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from sifaka.chain import Chain
from sifaka.critics import NCriticsCritic, SelfRefineCritic
from sifaka.errors import ChainError, UsageError
from sifaka.log.records import Closed, Faulted, Intent, Opened, Partial, Record, Recovery, Result
from sifaka.models import FallbackModel, RetiredModelWarning, create_model
from sifaka.parts import Pending, Request
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing import FakeClock
from sifaka.testing.provider import (
    Answer,
    Behaviour,
    Bill,
    Cut,
    Hang,
    Overload,
    ProviderDouble,
    Raw,
    Received,
    Refuse,
    Throttle,
)
from sifaka.thought import CriticFeedback, Thought, ValidationResult
from soak import scaled
from wire_double import SECOND, TEXTS, answer_to

CLAUDE = "anthropic:claude-haiku-4-5"  # goes on from the beginning of an answer
CHAT = "openai-chat:gpt-4o"
RESPONSES = "openai-responses:gpt-4o"
SPECS = (CLAUDE, CHAT, RESPONSES)
CALLS = 5
PROMPT = "Write of lemurs"
_PER_TOKEN = {"claude-haiku-4-5": (1e-6, 5e-6), "gpt-4o": (2.5e-6, 10e-6)}
"""Dollars, by the providers' own pages."""

Script = Callable[[Received], Behaviour]

_KEYS = itertools.count()
"""A double may get the port of an earlier one: its clients, and their broken connections, are not its own."""


@pytest.fixture
def connected() -> Iterator[Callable[..., ProviderDouble]]:
    """Starts doubles, which end with the test."""
    started: list[ProviderDouble] = []

    def start(script: Any, **more: Any) -> ProviderDouble:
        started.append(ProviderDouble(script, **more).__enter__())
        return started[-1]

    yield start
    for double in started:
        double.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> CachedCheckpointStorage:
    return CachedCheckpointStorage(InMemoryStorage(clock=clock))


@pytest.fixture(params=["run_with_recovery", "arun_with_recovery"])
def go(request: pytest.FixtureRequest) -> Callable[[Chain], Thought]:
    """Runs a chain with recovery, in this thread or in an event loop."""
    if request.param == "run_with_recovery":
        return Chain.run_with_recovery
    return lambda chain: asyncio.run(chain.arun_with_recovery())


class Second:
    name = "second"
    pure = True

    def validate(self, thought: Thought) -> ValidationResult:
        return ValidationResult(thought.iteration == 1, "write it again")


def at(wrong: Mapping[int, Behaviour | Script]) -> Script:
    """Answer as a good model does, but misbehave at the requests of these numbers."""

    def script(received: Received) -> Behaviour:
        behaviour = wrong.get(received.number, answer_to)
        return behaviour(received) if callable(behaviour) else behaviour

    return script


def model_at(double: ProviderDouble, spec: str, **settings: Any) -> Any:
    base_url = double.url if spec.startswith("anthropic") else f"{double.url}/v1"
    return create_model(
        spec, **{"base_url": base_url, "api_key": f"test-{next(_KEYS)}", "max_tokens": 1000, **settings}
    )


def whole_chain(model: object, store: CachedCheckpointStorage, clock: FakeClock, **options: Any) -> Chain:
    """Generate, validate, two critics of which one asks twice at a time, improve, validate."""
    chain = Chain(model, PROMPT, checkpoint_storage=store, chain_id="r", clock=clock)
    chain.with_options(max_improvement_iterations=1, value_usd=1e6, **options)
    perspectives = {"length": "whether it is long enough.", "facts": "whether it is true."}
    critics = SelfRefineCritic(), NCriticsCritic(perspectives=perspectives)
    return chain.validate_with(Second()).improve_with(*critics)


def one_text(model: object, store: CachedCheckpointStorage, clock: FakeClock, **options: Any) -> Chain:
    """A chain that makes one call."""
    chain = Chain(model, PROMPT, checkpoint_storage=store, chain_id="r", clock=clock)
    return chain.with_options(max_improvement_iterations=0, value_usd=1e6, **options)


def log(store: CachedCheckpointStorage) -> list[Record]:
    return list(store.records("r"))


def of(kind: type[Any], records: list[Record]) -> list[Any]:
    return [one for one in records if isinstance(one, kind)]


def price(bill: Bill) -> float:
    per_input, per_output = _PER_TOKEN[bill.model]
    dollars = bill.input_tokens * per_input + bill.output_tokens * per_output
    return dollars / 2 if bill.batch else dollars


def check_balance(double: ProviderDouble, store: CachedCheckpointStorage, thought: Thought) -> None:
    """The provider's ledger against the log: requests, bills and money."""
    records = log(store)
    assert len(double.requests) == len(of(Intent, records)), "one attempt is one request"
    bills = {one.id: one for one in double.ledger}
    answers = [one for one in of(Result, records) if one.text is not None]
    recorded = [one.request_id for one in answers]
    assert len(set(recorded)) == len(recorded), "an answer was counted twice"
    assert set(recorded) <= set(bills)
    unknown = len(bills) - len(recorded)
    assert unknown <= len(thought.in_doubt) + thought.cost_unknown_calls, "paid without a word"
    assert thought.cost == pytest.approx(sum(price(bills[one]) for one in recorded))


def ended(go: Callable[[Chain], Thought], chain: Chain) -> tuple[Thought, str]:
    """The thought that a run ends with, and why it stopped; no reason where it is done."""
    try:
        return go(chain), ""
    except ChainError as error:
        assert error.thought is not None
        return error.thought, error.reason


# Each misbehaviour, somewhere in a chain ------------------------------------------------------

LENGTH = Answer("Indris sing at", finish_reason="length", input_tokens=100, output_tokens=3)
FILTERED = Answer("Indris", finish_reason="content_filter", input_tokens=100, output_tokens=1)

PASSING: dict[str, Behaviour | Script] = {
    "500": Refuse(500),
    "503": Refuse(503),
    "429": Refuse(429, headers={"retry-after": "7"}),
    "overload": Overload(),
    "overload-in-stream": lambda received: Overload(after_pieces=2, answer=answer_to(received)),
    "cut-before-a-byte": lambda received: Cut(0, answer_to(received)),
    "cut-in-the-head": lambda received: Cut(25, answer_to(received)),
    "cut-in-the-body": lambda received: Cut(260, answer_to(received)),
    "cut-late": lambda received: (
        Cut(1500, answer_to(received)) if received.body.get("stream") else Refuse(502)
    ),
    "bad-json": Raw('{"id": "x", "cont'),
    "nothing": Raw(b""),
    "length": LENGTH,
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("wrong", PASSING)
@pytest.mark.parametrize("spec", SPECS)
def test_a_run_gets_over_what_passes_and_the_ledger_balances(
    connected: Callable[..., ProviderDouble],
    store: CachedCheckpointStorage,
    clock: FakeClock,
    spec: str,
    wrong: str,
    stream: bool,
) -> None:
    # At the first text, at one of three calls that are out together, and at the improvement.
    double = connected(at({1: PASSING[wrong], 4: PASSING[wrong], 8: PASSING[wrong]}))
    chain = whole_chain(model_at(double, spec), store, clock, stream=stream or None)
    thought = chain.run_with_recovery()
    assert thought.text == SECOND
    check_balance(double, store, thought)
    closed = of(Closed, log(store))[-1]
    assert closed.status == "done"
    assert len(double.requests) > CALLS
    said = {one.text for one in of(Result, log(store)) if one.text is not None}
    # A critic's answer that ended for its length is read for what it is worth: it is no text of the run's.
    assert said == TEXTS if wrong != "length" else said >= {SECOND, LENGTH.text}


@pytest.mark.parametrize("wrong", ["429", "cut-in-the-body", "overload-in-stream"])
@pytest.mark.parametrize("spec", SPECS)
def test_an_async_run_gets_over_it_too(
    connected: Callable[..., ProviderDouble],
    store: CachedCheckpointStorage,
    clock: FakeClock,
    spec: str,
    wrong: str,
) -> None:
    double = connected(at({2: PASSING[wrong], 3: PASSING[wrong]}))
    chain = whole_chain(model_at(double, spec), store, clock, stream=True)
    thought = asyncio.run(chain.arun_with_recovery())
    assert thought.text == SECOND
    check_balance(double, store, thought)


@pytest.mark.parametrize("billed", [False, True], ids=["unbilled", "billed"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_call_that_hangs_is_given_up_after_its_time_and_is_in_doubt(
    connected: Callable[..., ProviderDouble],
    store: CachedCheckpointStorage,
    clock: FakeClock,
    go: Callable[[Chain], Thought],
    spec: str,
    billed: bool,
) -> None:
    double = connected(at({3: Hang(billed=billed)}))
    thought = go(whole_chain(model_at(double, spec), store, clock, timeout_s=0.5))
    assert thought.text == SECOND
    check_balance(double, store, thought)
    assert len(thought.in_doubt) == 1
    assert [one.fault.kind for one in of(Faulted, log(store))] == ["timeout"]


@pytest.mark.parametrize("spec", SPECS)
def test_a_stream_that_falls_silent_is_given_up_and_what_came_of_it_is_kept(
    connected: Callable[..., ProviderDouble],
    store: CachedCheckpointStorage,
    clock: FakeClock,
    spec: str,
) -> None:
    double = connected(at({1: Hang(after_pieces=3, answer=Answer("Indris sing at dawn and sleep at noon."))}))
    thought = whole_chain(
        model_at(double, spec), store, clock, stream=True, timeout_s=0.5
    ).run_with_recovery()
    check_balance(double, store, thought)
    assert thought.text == SECOND
    first = next(one for one in of(Result, log(store)) if one.text is not None)
    assert first.text == "Indris sing at dawn and sleep at noon."
    assert bool(first.spliced) == (spec == CLAUDE)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Refuse(401), "auth"),
        (Refuse(403), "permission"),
        (Refuse(400, message="messages: something is wrong with them"), "invalid_request"),
        (FILTERED, "content_filter"),
    ],
)
@pytest.mark.parametrize("spec", SPECS)
def test_what_does_not_pass_ends_the_run_with_its_reason_and_not_with_many_requests(
    connected: Callable[..., ProviderDouble],
    store: CachedCheckpointStorage,
    clock: FakeClock,
    go: Callable[[Chain], Thought],
    spec: str,
    behaviour: Behaviour,
    kind: str,
) -> None:
    double = connected(behaviour)
    thought, reason = ended(go, whole_chain(model_at(double, spec), store, clock))
    assert kind in reason
    assert len(double.requests) <= 6
    check_balance(double, store, thought)
    closed = of(Closed, log(store))[-1]
    assert (closed.status, closed.reason) == ("failed", reason)


def test_a_provider_that_never_recovers_ends_the_run_with_a_reason(
    connected: Callable[..., ProviderDouble], store: CachedCheckpointStorage, clock: FakeClock
) -> None:
    double = connected(lambda received: answer_to(received) if received.number == 1 else Refuse(500))
    thought, reason = ended(Chain.run_with_recovery, whole_chain(model_at(double, CHAT), store, clock))
    assert "server_error" in reason
    assert thought.text == "Indris sing at dawn and sleep at noon."  # the best draft is with the error
    check_balance(double, store, thought)


@pytest.mark.parametrize("spec", SPECS)
def test_calls_that_one_critic_makes_together_fail_together_as_one_attempt(
    connected: Callable[..., ProviderDouble], store: CachedCheckpointStorage, clock: FakeClock, spec: str
) -> None:
    double = connected(at({number: Refuse(500) for number in range(2, 6)}))
    chain = Chain(model_at(double, spec), PROMPT, checkpoint_storage=store, chain_id="r", clock=clock)
    chain.with_options(max_improvement_iterations=1, value_usd=1e6)
    thought = chain.validate_with(Second()).improve_with(NCriticsCritic()).run_with_recovery()
    assert thought.text == SECOND
    assert len(double.requests) == 1 + 4 + 4 + 1, "a blip made more than one critic start again"
    assert {one.strategy for one in of(Recovery, log(store))} == {"retry_current_step"}
    check_balance(double, store, thought)


# A stream that is cut at every byte -----------------------------------------------------------

SHORT = Answer("Indris sing.", input_tokens=10, output_tokens=4)


def rest_of(received: Received) -> Answer:
    """The short text, or what is left of it."""
    last = (received.body.get("messages") or [{}])[-1]
    begun = last["content"][0]["text"] if last.get("role") == "assistant" else ""
    return Answer(SHORT.text.removeprefix(begun), input_tokens=10, output_tokens=4)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("spec", SPECS)
def test_a_stream_that_is_cut_at_any_byte_becomes_a_whole_text(spec: str, clock: FakeClock) -> None:
    ran, spliced, step = 0, 0, max(1, 41 // scaled(1))
    for k in range(0, 100_000, step):
        wrong = {1: Cut(k, SHORT)}
        with ProviderDouble(lambda got, wrong=wrong: wrong.get(got.number) or rest_of(got)) as double:
            store = CachedCheckpointStorage(InMemoryStorage(clock=clock))
            chain = one_text(model_at(double, spec), store, clock, stream=True, partial_every_s=0.01)
            thought = chain.run_with_recovery()
            assert thought.text == SHORT.text, f"cut at byte {k}"
            check_balance(double, store, thought)
            ran += 1
            spliced += any(one.spliced for one in of(Result, log(store)))
            if len(double.requests) == 1:  # the cut came after the end
                break
            assert len(thought.in_doubt) <= 1
    print(f"{spec}: cut at {ran} bytes, gone on from {spliced} times")
    assert ran > 500 / step
    assert bool(spliced) == (spec == CLAUDE)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_background_stream_that_is_cut_at_any_byte_is_looked_up_and_paid_once(clock: FakeClock) -> None:
    found, step = 0, max(1, 41 // scaled(1))
    for k in range(0, 100_000, step):
        with ProviderDouble([Cut(k, SHORT), SHORT]) as double:
            store = CachedCheckpointStorage(InMemoryStorage(clock=clock))
            model = model_at(double, RESPONSES, background=True)
            thought = one_text(model, store, clock, stream=True).run_with_recovery()
            assert thought.text == SHORT.text
            check_balance(double, store, thought)
            found += bool(double.others)
            if double.others:  # from its first event on its id is known
                assert (double.billed, thought.in_doubt) == (1, ())
            elif len(double.requests) == 1:
                break
    print(f"looked up {found} times")
    assert found > 100 / step


@pytest.mark.parametrize("spec", SPECS)
def test_a_text_that_is_cut_over_and_over_is_whole_in_the_end(
    connected: Callable[..., ProviderDouble], store: CachedCheckpointStorage, clock: FakeClock, spec: str
) -> None:
    """Each time another call goes on from all that came before, white space and all."""

    def cutting(received: Received) -> Behaviour:
        answer = answer_to(received)
        return answer if received.number > 4 else Overload(after_pieces=2, answer=answer)

    double = connected(cutting)
    chain = one_text(model_at(double, spec), store, clock, stream=True)
    thought = chain.with_options(limits={"attempts_per_step": 9, "actions": 9}).run_with_recovery()
    assert thought.text == "Indris sing at dawn and sleep at noon."
    check_balance(double, store, thought)
    if spec == CLAUDE:
        begun = [got.body["messages"][-1]["content"][0]["text"] for got in double.requests[1:]]
        assert begun[0] == "Indris sing"
        assert len({*begun}) == len(begun) == 4
        assert begun == sorted(begun, key=len)
        assert all(thought.text.startswith(one) for one in begun)
        saved: dict[int, str] = {}
        for one in of(Partial, log(store)):
            saved[one.intent] = saved.get(one.intent, "")[: one.start] + one.text
        assert all(thought.text.startswith(text) for text in saved.values())


# A real rate limit ----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
def test_a_token_bucket_is_waited_for_as_it_says_and_costs_no_attempt(
    connected: Callable[..., ProviderDouble],
    store: CachedCheckpointStorage,
    clock: FakeClock,
    go: Callable[[Chain], Thought],
    spec: str,
) -> None:
    throttle = Throttle(answer_to, per_second=0.1, burst=1, clock=clock)
    double = connected(throttle)
    thought = go(whole_chain(model_at(double, spec), store, clock))
    assert thought.text == SECOND
    check_balance(double, store, thought)
    assert double.billed == CALLS
    assert throttle.refused <= 6
    assert clock.monotonic() >= 40.0  # five calls at one in ten seconds
    counted = [one for one in of(Recovery, log(store)) if one.counts]
    assert [one.parameters for one in counted] in ([], [{"batch_size": 1}])


# What the provider keeps -----------------------------------------------------------------------


@pytest.mark.parametrize("after_bytes", [0, 30, 250])
def test_an_answer_that_was_lost_on_the_way_is_looked_up_before_it_is_doubted(
    connected: Callable[..., ProviderDouble],
    store: CachedCheckpointStorage,
    clock: FakeClock,
    go: Callable[[Chain], Thought],
    after_bytes: int,
) -> None:
    double = connected(lambda received: Cut(after_bytes, answer_to(received)))
    thought = go(whole_chain(model_at(double, CHAT, store=True), store, clock))
    assert (thought.text, thought.in_doubt) == (SECOND, ())
    assert len(double.requests) == CALLS
    assert double.billed == CALLS
    assert not of(Faulted, log(store))
    check_balance(double, store, thought)


def test_an_answer_that_the_provider_does_not_know_of_either_is_in_doubt(
    connected: Callable[..., ProviderDouble], store: CachedCheckpointStorage, clock: FakeClock
) -> None:
    double = connected(at({1: Hang()}))
    model = model_at(double, CHAT, store=True)
    thought = whole_chain(model, store, clock, timeout_s=0.5).run_with_recovery()
    assert thought.text == SECOND
    assert [one.seq for one in thought.in_doubt] == [of(Faulted, log(store))[0].intent]
    assert [one.fault.kind for one in of(Faulted, log(store))] == ["timeout"]
    check_balance(double, store, thought)


@pytest.mark.parametrize("pending", [Pending("job-1"), Pending("")], ids=["no look-up", "no handle"])
def test_an_answer_that_can_never_be_had_is_a_fault_and_not_asked_for_for_ever(
    store: CachedCheckpointStorage, clock: FakeClock, pending: Pending
) -> None:
    class Forgetful:
        name = "forgetful"
        calls = 0

        def generate(self, prompt: str) -> Pending:
            self.calls += 1
            assert self.calls < 9
            return pending

    if not pending.handle:
        Forgetful.look_up = lambda self, handle, call_id: None
    model = Forgetful()
    with pytest.raises(ChainError, match="could never be had") as stopped:
        one_text(model, store, clock).run()
    assert (model.calls, len(stopped.value.thought.in_doubt)) == (1, 1)


def test_half_a_request_is_acted_on_by_nobody(connected: Callable[..., ProviderDouble]) -> None:
    """Its sender died over it."""
    double = connected(answer_to)
    with socket.create_connection(("127.0.0.1", int(double.url.rpartition(":")[2]))) as half:
        half.sendall(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 99\r\n\r\n{")
        half.shutdown(socket.SHUT_WR)
        assert half.recv(100) == b""
    assert (double.requests, double.billed) == ([], 0)


# Several models -------------------------------------------------------------------------------


def test_another_model_answers_while_the_first_ones_provider_is_left_alone(
    connected: Callable[..., ProviderDouble], clock: FakeClock, go: Callable[[Chain], Thought]
) -> None:
    down, up = connected(Overload()), connected(answer_to)
    store = CachedCheckpointStorage(InMemoryStorage(clock=clock))
    model = FallbackModel(model_at(down, CLAUDE), model_at(up, CHAT))
    paid = 0.0
    for number in range(6):
        chain = whole_chain(model, store, clock)
        chain._chain_id = f"r{number}"
        before = len(up.ledger)
        asked = len(down.requests)
        thought = go(chain)
        assert thought.text == SECOND
        bills = up.ledger[before:]
        assert len(bills) == CALLS
        assert thought.cost == pytest.approx(sum(map(price, bills)))
        assert thought.in_doubt == ()
        paid += thought.cost
        records = list(store.records(f"r{number}"))
        switches = [one for one in of(Recovery, records) if "models" in one.parameters]
        assert switches, "a switch leaves a record"
        assert len(of(Intent, records)) == CALLS + len(down.requests) - asked
    assert down.billed == 0
    assert any(one.chosen_by == "breaker" for one in of(Recovery, records)), "the breaker is open by now"
    assert len(down.requests) == asked, "a provider that is left alone was asked"


def test_a_switch_of_models_pays_for_no_answered_call_again(
    connected: Callable[..., ProviderDouble], store: CachedCheckpointStorage, clock: FakeClock
) -> None:
    class TwoInTurn:
        name = "two"

        def critique(self, thought: Thought) -> Any:
            first = yield Request("first question")
            second = yield Request("second question")
            return CriticFeedback(needs_improvement=False, message=f"{first.text} {second.text}")

    first = connected(lambda got: Refuse(401) if got.prompt == "second question" else Answer("one"))
    other = connected(Answer("two"))
    model = FallbackModel(model_at(first, CLAUDE), model_at(other, CHAT))
    chain = one_text(model, store, clock, critique_final=True).improve_with(TwoInTurn())
    thought = chain.run()
    assert thought.critic_feedback[0].message == "one two"
    assert [got.prompt for got in other.requests] == ["second question"]
    assert (first.billed, other.billed) == (2, 1)
    assert all(one.options is None or "models" not in one.options for one in of(Intent, log(store)))


def test_todays_nearest_model_is_asked_instead_of_a_retired_one(
    connected: Callable[..., ProviderDouble],
    store: CachedCheckpointStorage,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    go: Callable[[Chain], Thought],
) -> None:
    gone = "claude-haiku-4-5-20990101"

    def script(received: Received) -> Behaviour:
        return Refuse(404, message=f"model: {gone}") if received.model == gone else answer_to(received)

    double = connected(script)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.warns(RetiredModelWarning, match="claude-haiku"):
        model = model_at(double, f"anthropic:{gone}")  # its address and key are known to the chain alone
    with pytest.raises(ChainError, match="not_found") as stopped:
        whole_chain(model, store, clock).run()
    assert any(one.parameters.get("model", "").startswith("anthropic:") for one in stopped.value.suggestions)
    thought = go(whole_chain(model, store, clock))
    assert thought.text == SECOND
    asked = [received.model for received in double.requests]
    assert asked.count(gone) <= 2
    assert len(asked) == len(of(Intent, log(store))) == CALLS + asked.count(gone)
    assert double.billed == CALLS


# Deferred runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [CLAUDE, RESPONSES])
def test_a_deferred_run_asks_all_its_models_through_batches_at_half_the_price(
    connected: Callable[..., ProviderDouble],
    store: CachedCheckpointStorage,
    clock: FakeClock,
    go: Callable[[Chain], Thought],
    spec: str,
) -> None:
    double = connected(lambda received: answer_to(received, look_ups=2))
    critic = SelfRefineCritic(model_at(double, CLAUDE), name="with a model of its own")
    chain = whole_chain(model_at(double, spec), store, clock, deferred=True).improve_with(critic)
    thought = go(chain)
    assert thought.text == SECOND
    assert [bill.batch for bill in double.ledger] == [True] * (CALLS + 1)
    assert thought.cost == pytest.approx(sum(map(price, double.ledger)))
    assert thought.cost < 0.002
    check_balance(double, store, thought)
    assert of(Opened, log(store))[0].settings["deferred"] is True
    assert clock.slept
    assert set(clock.slept) == {60.0}, "between look-ups a minute passes"


def test_a_deferred_run_takes_the_next_model_where_one_fails(
    connected: Callable[..., ProviderDouble], store: CachedCheckpointStorage, clock: FakeClock
) -> None:
    down, up = connected(Answer(), others=Refuse(401)), connected(answer_to)
    model = FallbackModel(model_at(down, CLAUDE), model_at(up, RESPONSES))
    thought = whole_chain(model, store, clock, deferred=True).run()
    assert thought.text == SECOND
    assert [bill.batch for bill in up.ledger] == [True] * CALLS
    assert down.billed == 0


@pytest.mark.parametrize("where", ["model", "critic", "choice", "callable", "stored"])
def test_a_model_without_batches_is_refused_before_anything_is_asked(
    connected: Callable[..., ProviderDouble], store: CachedCheckpointStorage, clock: FakeClock, where: str
) -> None:
    double = connected(answer_to)
    good, chat = model_at(double, CLAUDE), model_at(double, CHAT)
    models: dict[str, object] = {
        "model": chat,
        "critic": good,
        "choice": FallbackModel(good, chat),
        "callable": lambda prompt: prompt,
        "stored": model_at(double, RESPONSES, store=True),
    }
    chain = whole_chain(models[where], store, clock, deferred=True)
    if where == "critic":
        chain.improve_with(SelfRefineCritic(chat, name="chatty"))
    with pytest.raises(UsageError, match="deferred"):
        chain.run()
    assert double.requests == []
    assert chain.get_thought() is None


def test_a_deferred_run_that_was_never_deferred_before_goes_on_with_batches(
    connected: Callable[..., ProviderDouble], store: CachedCheckpointStorage, clock: FakeClock
) -> None:
    double = connected(at({2: Refuse(401), 3: Refuse(401), 4: Refuse(401)}))
    with pytest.raises(ChainError):
        whole_chain(model_at(double, CLAUDE), store, clock).run()
    thought = whole_chain(model_at(double, CLAUDE), store, clock, deferred=True).run()
    assert thought.text == SECOND
    assert [bill.batch for bill in double.ledger] == [False] + [True] * (CALLS - 1)
    assert of(Opened, log(store))[-1].settings["deferred"] is True
