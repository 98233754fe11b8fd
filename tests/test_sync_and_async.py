"""One engine for both worlds: sync and async runs do, write and survive the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import msgspec
import pytest

import doubles
from doubles import (
    Asking,
    AsyncModel,
    Critic,
    Died,
    Model,
    Retriever,
    Validator,
    busy,
    causes,
    chain_of,
    died,
    entry,
    log,
    no_key,
    of,
    priced,
    strategies,
    wanting,
)
from sifaka.errors import ChainError, OwnedError
from sifaka.log.records import Intent, Opened, Reached, Result
from sifaka.parts import Request
from sifaka.storage.urls import open_storage
from sifaka.testing.clock import FakeClock
from sifaka.thought import CriticFeedback, ValidationResult

storage = doubles.storage

LONG_S = 10
"""No test takes this long: it is when one that hangs is ended."""


def run_async(work):
    """Runs a coroutine in a loop of its own, and ends it where it hangs."""
    return asyncio.run(asyncio.wait_for(work, LONG_S))


def both_ways(make):
    """What a sync and an async run of two equal chains return (or raise), and their logs."""
    ends = []
    for way in ("run_with_recovery", "arun_with_recovery"):
        chain = make()
        try:
            end = run_async(chain.arun_with_recovery()) if way.startswith("a") else chain.run_with_recovery()
        except ChainError as error:
            end = error.reason
        ends.append((end, list(open_storage(chain._storage).records(chain.chain_id))))
    return ends


def told(record):
    """What a record says, without times and the numbers of other records."""
    what = (getattr(record, name, None) for name in ("operation", "iteration", "part", "n", "attempt"))
    said = (getattr(record, name, None) for name in ("text", "verdict", "feedback", "documents", "digest"))
    return repr((type(record).__name__, *what, *said))


def steps(records):
    """What was said between each two steps, in any order."""
    groups = [[]]
    for record in records:
        if isinstance(record, Reached):
            groups += [[f"{record.step} {record.iteration} {record.to}"], []]
        else:
            groups[-1].append(told(record))
    return [sorted(group) for group in groups]


# The same log ------------------------------------------------------------------------------


def plain_parts():
    return chain_of(
        Model(priced("0"), priced("1")),
        chain_id="r",
        validators=[Validator("v", False)],
        critics=[Critic("c", "more")],
        retrievers=[Retriever()],
    )


def failing_parts():
    return chain_of(
        Model(busy(2.0), priced("0"), priced("1", finish_reason="length"), priced("2")),
        chain_id="r",
        validators=[Validator("v", KeyError("x"), False)],
        critics=[Critic("c", no_key(), "more", TimeoutError())],
    )


def exhausted():
    return chain_of(Model(*[busy()] * 9), chain_id="r")


def over_budget():
    return chain_of(Model(priced("0")), chain_id="r", critics=[wanting(3)], budget=1.0)


@pytest.mark.parametrize("make", [plain_parts, failing_parts, exhausted, over_budget])
def test_sync_and_async_write_the_same_log(make):
    (end, records), (other_end, other_records) = both_ways(make)
    assert end == other_end
    assert [msgspec.structs.replace(one, at=0.0) for one in records] == [
        msgspec.structs.replace(one, at=0.0) for one in other_records
    ]


def test_the_logs_agree_up_to_the_order_of_parts_that_run_together():
    def make():
        return chain_of(
            Model(*[priced(f"text {one}") for one in range(2)]),
            chain_id="r",
            validators=[Validator("v1"), Validator("v2", False)],
            critics=[Critic("c1", "more"), Critic("c2"), Critic("c3", "a little")],
            retrievers=[Retriever("r1"), Retriever("r2")],
        )

    (end, records), (other_end, other_records) = both_ways(make)
    for one, other in zip([*end.history, end], [*other_end.history, other_end], strict=True):
        assert (one.text, one.model_prompt) == (other.text, other.model_prompt)
        assert one.validation_results == other.validation_results
        assert one.critic_feedback == other.critic_feedback
    assert steps(records) == steps(other_records)


def test_what_one_began_the_other_goes_on_with(storage):
    def chain(model):
        return chain_of(model, storage, chain_id="r", critics=[Asking("a"), wanting(1)])

    with pytest.raises(KeyboardInterrupt):
        chain(Model("0", "answer", KeyboardInterrupt)).with_options(batch_size=1).run()
    model = Model()
    thought = run_async(chain(model).arun())
    assert model.prompts[0] == "asking second: 0".replace("asking", "a")
    assert (thought.history[0].text, thought.iteration) == ("0", 1)
    assert chain(Model()).run() == thought


# Any part in any run -----------------------------------------------------------------------


async def async_model(prompt):
    await asyncio.sleep(0)
    return "text"


async def async_validator(thought):
    await asyncio.sleep(0)
    return True


async def async_critic(thought):
    await asyncio.sleep(0)
    return {"needs_improvement": False, "message": "fine"}


async def async_retriever(query):
    await asyncio.sleep(0)
    return ["found"]


class AsyncMethods:
    def __init__(self, name):
        self.name = name

    async def validate(self, thought):
        return ValidationResult(True)

    async def critique(self, thought):
        return CriticFeedback(False)

    async def retrieve(self, query):
        return ["found"]


class Hidden:
    """Returns a coroutine from a plain function, as wrappers do."""

    __name__ = "hidden"

    def __init__(self, function):
        self._function = function

    def __call__(self, argument):
        return self._function(argument)


ASYNC_CHAINS = {
    "functions": lambda: chain_of(
        async_model, validators=[async_validator], critics=[async_critic], retrievers=[async_retriever]
    ),
    "methods": lambda: chain_of(
        AsyncModel("text"),
        validators=[AsyncMethods("v")],
        critics=[AsyncMethods("c")],
        retrievers=[AsyncMethods("r")],
    ),
    "hidden": lambda: chain_of(
        Hidden(async_model), validators=[Hidden(async_validator)], critics=[Hidden(async_critic)]
    ),
    "several": lambda: chain_of(
        async_model, validators=[async_validator] * 3, critics=[async_critic, Critic("sync"), async_critic]
    ),
}
SYNC_CHAINS = {
    "functions": lambda: chain_of(
        lambda _: "text", validators=[lambda _: True], retrievers=[lambda _: ["found"]]
    ),
    "several": lambda: chain_of(
        Model("text"), validators=[Validator("a"), Validator("b")], critics=[Critic("a"), Asking("b")]
    ),
}


@pytest.mark.parametrize("kind", ASYNC_CHAINS)
def test_async_parts_work_in_a_sync_run(kind):
    thought = ASYNC_CHAINS[kind]().run()
    assert (thought.text, thought.passed) == ("text", True)


@pytest.mark.parametrize("kind", ASYNC_CHAINS)
def test_async_parts_work_in_an_async_run(kind):
    thought = run_async(ASYNC_CHAINS[kind]().arun())
    assert (thought.text, thought.passed) == ("text", True)


@pytest.mark.parametrize("kind", SYNC_CHAINS)
def test_sync_parts_work_in_an_async_run(kind):
    thought = run_async(SYNC_CHAINS[kind]().arun())
    assert (thought.text, thought.passed) == ("text", True)


@pytest.mark.parametrize("kind", [*ASYNC_CHAINS, *SYNC_CHAINS])
def test_run_works_inside_a_running_event_loop(kind):
    make = ASYNC_CHAINS.get(kind) or SYNC_CHAINS[kind]

    async def notebook():
        return make().run()

    assert run_async(notebook()).text == "text"


def test_async_parts_of_sync_runs_share_one_loop():
    loops = []

    async def model(prompt):
        loops.append(asyncio.get_running_loop())
        return "text"

    chain_of(model, critics=[wanting(1)]).run()
    chain_of(model).run()
    assert len(loops) == 3
    assert len(set(map(id, loops))) == 1


def test_an_async_run_uses_agenerate_and_a_sync_run_generate():
    class Two:
        def generate(self, prompt):
            return "sync"

        async def agenerate(self, prompt):
            return "async"

    assert chain_of(Two()).run().text == "sync"
    assert run_async(chain_of(Two()).arun()).text == "async"


def test_a_sync_part_does_not_hold_up_the_event_loop():
    turned = doubles.Event()

    def model(prompt):
        assert turned.wait_s(LONG_S)
        return "text"

    async def both():
        run = asyncio.ensure_future(chain_of(model).arun())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        turned.set()
        return await run

    assert run_async(both()).text == "text"


# Parts run together ------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["validators", "critics", "retrievers"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_parts_run_together(where, way):
    together = doubles.Barrier(3)
    answers = {"validators": True, "critics": CriticFeedback(False), "retrievers": ["found"]}

    def part(_):
        together.wait()
        return answers[where]

    chain = chain_of(Model(), **{where: [part] * 3})
    thought = chain.run() if way == "sync" else run_async(chain.arun())
    assert thought.text == "text 0"


def test_async_parts_run_together():
    async def run():
        together = asyncio.Barrier(3)

        async def part(_):
            await together.wait()
            return True

        return await chain_of(Model(), validators=[part] * 3).arun()

    assert run_async(run()).passed


def test_critics_that_ask_run_together():
    together = doubles.Barrier(2)

    def model(prompt):
        together.wait()
        return "fine"

    asked = Model(*[model] * 4)
    critics = [Asking("a", model=asked), Asking("b", model=asked)]
    assert chain_of(Model(), critics=critics).run().text == "text 0"
    assert asked.calls == 4


def test_verdicts_and_feedback_stand_in_the_order_of_their_parts():
    async def run():
        last = asyncio.Event()

        async def slow(thought):
            await last.wait()
            return {"needs_improvement": False, "message": "slow"}

        async def quick(thought):
            last.set()
            return {"needs_improvement": False, "message": "quick"}

        return await chain_of(Model(), critics=[slow, quick]).arun()

    assert [one.message for one in run_async(run()).critic_feedback] == ["slow", "quick"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_fault_among_parts_loses_no_result_of_the_others(storage, way):
    parts = [Critic("a", "more"), Critic("bad", KeyError("x")), Critic("b", "much more"), Asking("c")]
    chain = chain_of(Model(), storage, chain_id="r", critics=parts)
    with pytest.raises(ChainError) as caught:
        chain.run() if way == "sync" else run_async(chain.arun())
    assert [one.critic for one in caught.value.thought.critic_feedback] == ["a", "b", "c"]
    before = [one.calls for one in parts[:3]]
    thought = chain.run() if way == "sync" else run_async(chain.arun())
    assert len(thought.history[0].critic_feedback) == 4
    assert before == [1, 1, 1]
    asked = [one for one in of(Intent, log(storage, "r")) if one.iteration == 0]
    assert sorted(one.part for one in asked) == ["a", "b", "bad", "bad", "c", "c", "model"]


def test_a_death_among_parts_loses_no_result_of_the_others(storage):
    others = threading.Semaphore(0)

    class Quick(Critic):
        def critique(self, thought):
            found = super().critique(thought)
            others.release()
            return found

    class Deadly(Critic):
        def critique(self, thought):
            for _ in range(2):
                others.acquire(timeout=LONG_S)
            give_up_at = time.monotonic() + LONG_S
            while len(of(Result, log(storage, "r"))) < 3:  # the text, and what the others said
                assert time.monotonic() < give_up_at
            doubles.die(storage, "r")

    critics = [Quick("a", "more"), Deadly("dead"), Quick("b", "more")]
    died(chain_of(Model(), storage, chain_id="r", critics=critics))
    again = [Critic("a"), Critic("dead"), Critic("b")]
    thought = chain_of(Model(), storage, chain_id="r", critics=again).run()
    assert [one.calls for one in again] == [1, 2, 1]
    assert [one.message for one in thought.history[0].critic_feedback] == ["more", "fine", "more"]
    assert [one.part for one in thought.in_doubt] == ["dead"]


# Parts that ask ----------------------------------------------------------------------------


def test_each_call_of_a_part_that_asks_has_an_intent_and_a_result(storage):
    chain = chain_of(
        Model(priced("text", 1.0), priced("one", 0.1), priced("two", 0.2)), storage, critics=[Asking("a")]
    )
    thought = chain.run()
    assert thought.critic_feedback[0].message == "one / two"
    assert thought.cost == pytest.approx(1.3)
    records = log(storage, chain.chain_id)
    asked = [(seq, one) for seq, one in enumerate(records) if isinstance(one, Intent) and one.part == "a"]
    assert [(one.n, one.model) for _, one in asked] == [(0, "scripted"), (1, "scripted")]
    answered = {one.intent: one for one in of(Result, records) if one.part == "a" and one.intent >= 0}
    assert [answered[seq].text for seq, _ in asked] == ["one", "two"]
    assert [answered[seq].price_usd for seq, _ in asked] == [0.1, 0.2]


@pytest.mark.parametrize("questions", [("q0", "q1", "q2"), ("q0", "q1")])
def test_after_a_death_only_the_call_in_flight_is_repeated(storage, questions):
    for at in range(len(questions)):
        chain_id = f"dies at {at}"
        answers = [f"answer {one}" for one in range(at)]
        model = Model("text", *answers, lambda _, name=chain_id: doubles.die(storage, name))
        died(chain_of(model, storage, chain_id=chain_id, critics=[Asking("a", questions)]))
        again = Model(*[f"again {one}" for one in range(at, len(questions))])
        thought = chain_of(again, storage, chain_id=chain_id, critics=[Asking("a", questions)]).run()
        assert again.prompts == [f"a {question}: text" for question in questions[at:]]
        expected = [*answers, *[f"again {one}" for one in range(at, len(questions))]]
        assert thought.critic_feedback[0].message == " / ".join(expected)
        assert [(one.part, one.operation) for one in thought.in_doubt] == [("a", "criticism")]


def test_a_fault_inside_a_part_that_asks_repeats_only_that_call(storage):
    model = Model("text", "one", busy(1.0), "two")
    thought = chain_of(model, storage, critics=[Asking("a")]).run_with_recovery()
    assert thought.critic_feedback[0].message == "one / two"
    assert model.calls == 4


def test_a_part_that_asks_something_else_after_a_death_is_not_given_the_old_answer(storage):
    model = Model("text", "old", lambda _: doubles.die(storage, "r"))
    died(chain_of(model, storage, chain_id="r", critics=[Asking("a", ["this", "that"])]))
    model = Model("new", "two")
    thought = chain_of(model, storage, chain_id="r", critics=[Asking("a", ["other", "that"])]).run()
    assert thought.critic_feedback[0].message == "new / two"


def test_a_part_that_can_make_nothing_of_a_reply_asks_for_another():
    def critic(thought):
        reply = yield Request("Answer with a number.")
        return CriticFeedback(False, str(int(reply.text)))

    model = Model("text", "not one", "42")
    thought = chain_of(model, critics=[critic]).run_with_recovery()
    assert thought.critic_feedback[0].message == "42"


def test_a_part_that_asks_may_ask_nothing():
    def critic(thought):
        if thought.text == "never":
            yield Request("?")
        return CriticFeedback(False, "no question")

    model = Model()
    assert chain_of(model, critics=[critic]).run().critic_feedback[0].message == "no question"
    assert model.calls == 1


def test_validators_and_retrievers_may_ask_too():
    def validator(thought):
        reply = yield Request(f"Is it good? {thought.text}")
        return reply.text == "yes"

    def retriever(query):
        reply = yield Request(f"Which words? {query}")
        return [f"document on {reply.text}"]

    model = Model("lemurs", "text", "yes")
    thought = chain_of(model, validators=[validator], retrievers=[retriever]).run()
    assert thought.passed
    assert [one.text for one in thought.pre_generation_context] == ["document on lemurs"]


def test_a_part_that_asks_may_set_options_of_its_own(storage):
    def critic(thought):
        reply = yield Request("Why?", "You are strict.", {"temperature": 0.0, "max_tokens": 5})
        return CriticFeedback(False, reply.text)

    model = Model()
    chain = chain_of(model, storage, critics=[critic]).with_options(temperature=0.9, top_p=0.5)
    chain.with_system_prompt("You are kind.").run()
    assert model.options == [
        {"temperature": 0.9, "top_p": 0.5, "system_prompt": "You are kind."},
        {"temperature": 0.0, "max_tokens": 5, "top_p": 0.5, "system_prompt": "You are strict."},
    ]


# Ctrl-C and cancelling ---------------------------------------------------------------------


@pytest.mark.parametrize("where", ["model", "critic", "together"])
def test_ctrl_c_gives_the_lease_back_and_is_no_fault(storage, where):
    critics = {
        "critic": [Critic("c", KeyboardInterrupt)],
        "together": [Critic("a"), Critic("c", KeyboardInterrupt)],
    }.get(where, [])
    model = Model(KeyboardInterrupt) if where == "model" else Model()
    with pytest.raises(KeyboardInterrupt):
        chain_of(model, storage, chain_id="r", critics=critics).run_with_recovery()
    assert not storage.entry("r").owner
    assert entry(storage, "r").status == "interrupted"
    again = [type(one)(one.name) for one in critics]
    thought = chain_of(Model(), storage, chain_id="r", critics=again).run()
    assert thought.text == "text 0"
    assert causes(log(storage, "r")) == ["new", "continue"]


@pytest.mark.parametrize("count", [1, 2])
def test_cancelling_gives_the_lease_back(storage, count):
    async def run():
        reached = asyncio.Event()

        async def slow(_):
            reached.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(1)

        cancelled = []
        chain = chain_of(Model(), storage, chain_id="r", validators=[slow] * count)
        task = asyncio.ensure_future(chain.arun())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert len(cancelled) == count

    run_async(run())
    assert not storage.entry("r").owner
    assert entry(storage, "r").status == "interrupted"
    assert [one.text for one in of(Result, log(storage, "r"))] == ["text 0"]


def test_a_part_that_outlives_its_cancelled_run_harms_nobody(storage, monkeypatch):
    never, over, unhandled = doubles.Event(), threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)

    def model(prompt):
        started.set()
        never.wait()
        over.set()
        return "late"

    started = threading.Event()

    async def run():
        task = asyncio.ensure_future(chain_of(model, storage, chain_id="r").arun())
        await asyncio.to_thread(started.wait, LONG_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(run())
    assert not storage.entry("r").owner
    never.set()
    assert over.wait(LONG_S)
    for thread in threading.enumerate():
        if thread.name == "sifaka-call":
            thread.join(0.05)  # an unhandled exception ends it
    assert unhandled == []


@pytest.mark.parametrize("several", [False, True])
def test_a_part_that_was_cancelled_from_within_is_a_fault_and_no_hang(storage, several):
    async def cancelled(thought):
        inner = asyncio.ensure_future(asyncio.sleep(LONG_S))
        inner.cancel()
        await inner

    critics = [cancelled, Critic("c")] if several else [cancelled]
    chain = chain_of(Model(), storage, chain_id="r", critics=critics)
    with pytest.raises(ChainError):
        asyncio.run(asyncio.wait_for(chain.arun(), 1.0))
    assert entry(storage, "r").status == "failed"


@pytest.mark.parametrize("several", [False, True])
def test_whatever_a_part_raises_an_async_run_ends_with_it(storage, several):
    async def deadly(thought):
        raise Died

    chain = chain_of(Model(), storage, critics=[deadly, Critic("c")] if several else [deadly])
    with pytest.raises(Died):
        asyncio.run(asyncio.wait_for(chain.arun(), 1.0))
    assert not storage.entry(chain.chain_id).owner


ENDING = """
import sys
from sifaka.chain import Chain

async def leaves(prompt):
    sys.exit(3)

async def works(prompt):
    return "text"

try:
    Chain(leaves, "Write.").run()
except SystemExit:
    print(Chain(works, "Write.").run().text, flush=True)
"""


def test_an_async_part_that_ends_its_process_does_not_hang_a_sync_run():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENDING],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.stdout == "text\n"


def test_ctrl_c_ends_the_async_part_of_a_sync_run(monkeypatch):
    """The interrupt comes while the caller's thread waits for the part."""
    from concurrent.futures import Future

    started, cancelled = threading.Event(), threading.Event()

    async def slow(prompt):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupted(self, timeout=None):
        assert started.wait(LONG_S)
        raise KeyboardInterrupt

    chain = chain_of(slow)
    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chain.run()
    monkeypatch.undo()
    assert cancelled.wait(1.0)


def test_streams_yield_the_records_as_they_become_durable(storage):
    chain = chain_of(Model(), storage, chain_id="r", critics=[wanting(1)])
    stream, seen = chain.stream(), []
    while True:
        try:
            seen.append(next(stream))
        except StopIteration as stop:
            thought = stop.value
            break
        assert seen == log(storage, "r")[: len(seen)]
    assert (thought.text, seen) == ("text 1", log(storage, "r"))
    assert isinstance(seen[0], Opened)


def test_async_streams_yield_the_same(storage):
    async def collect(chain):
        return [record async for record in chain.astream()]

    chain = chain_of(Model(), storage, chain_id="r", critics=[wanting(1)])
    assert run_async(collect(chain)) == log(storage, "r")
    assert chain.get_thought().text == "text 1"


def test_an_async_stream_that_is_left_gives_the_lease_back(storage):
    async def look(chain):
        stream = chain.astream()
        async for _ in stream:
            break
        await stream.aclose()

    run_async(look(chain_of(Model(), storage, chain_id="r")))
    assert not storage.entry("r").owner
    assert chain_of(Model(), storage, chain_id="r").run().text == "text 0"


@pytest.mark.parametrize("when", ["at once", "in a call", "in a cheap part"])
def test_an_async_stream_may_be_left_at_any_time_and_what_was_paid_is_kept(storage, when):
    class Hanging(Validator):
        async def validate(self, thought):
            reached.set()
            await asyncio.Event().wait()

    class Cheap(Hanging):
        pure = True

    async def leave():
        part = Cheap("v") if when == "in a cheap part" else Hanging("v")
        stream = chain_of(AsyncModel("paid"), storage, chain_id="r", validators=[part]).astream()
        await anext(stream)
        if when != "at once":
            await reached.wait()
        await asyncio.wait_for(stream.aclose(), 2.0)

    reached = asyncio.Event()
    run_async(leave())
    assert not storage.entry("r").owner
    if when != "at once":
        assert [one.text for one in of(Result, log(storage, "r"))] == ["paid"]


def test_a_stream_can_recover():
    chain = chain_of(Model(busy()))
    assert "retry_current_step" in strategies(list(chain.stream(recover=True)))
    with pytest.raises(ChainError):
        list(chain_of(Model(busy())).stream())


# Other async ways --------------------------------------------------------------------------


def test_many_async_runs_share_one_store(storage):
    async def run():
        chains = [chain_of(async_model, storage, chain_id=f"r{one}") for one in range(50)]
        return await asyncio.gather(*(chain.arun() for chain in chains))

    thoughts = run_async(run())
    assert [one.chain_id for one in thoughts] == [f"r{one}" for one in range(50)]
    assert not open_storage(storage).journal._keeper._held


def test_two_async_runs_of_one_chain_do_not_run_at_once(storage):
    async def run():
        chains = [chain_of(async_model, storage, chain_id="r") for _ in range(2)]
        return await asyncio.gather(*(chain.arun() for chain in chains), return_exceptions=True)

    ends = run_async(run())
    texts = [one.text for one in ends if not isinstance(one, BaseException)]
    assert texts == ["text"] or (texts == ["text", "text"] and len(of(Intent, log(storage, "r"))) == 1)
    assert len(of(Intent, log(storage, "r"))) == 1
    assert all(isinstance(one, OwnedError | Exception) for one in ends if isinstance(one, BaseException))


def test_waiting_in_an_async_run_lets_the_loop_turn():
    clock = FakeClock()
    clock.sleep = None  # only asleep will do
    assert run_async(chain_of(AsyncModel(busy(30.0)), clock=clock).arun_with_recovery()).text == "text 1"


def test_an_async_run_raises_what_a_sync_one_raises():
    with pytest.raises(ChainError, match="auth"):
        run_async(chain_of(Model(no_key())).arun())


def test_aresume_applies_an_action(storage):
    from sifaka.recovery import RecoveryAction, RecoveryStrategy

    chain = chain_of(Model(), storage, critics=[Critic("c", KeyError("x"))])
    with pytest.raises(ChainError):
        run_async(chain.arun())
    action = RecoveryAction(RecoveryStrategy.SKIP_TO_NEXT_STEP, "without", 0.5)
    assert run_async(chain.aresume(action=action)).critic_feedback[0].skipped


def test_a_timeout_ends_an_async_call_and_leaves_the_others():
    async def slow(thought):
        await asyncio.Event().wait()

    chain = chain_of(Model(), validators=[slow, Validator("quick")]).with_options(timeout_s=0.03)
    with pytest.raises(ChainError) as caught:
        run_async(chain.arun())
    assert caught.value.fault.kind == "timeout"
    assert [one.validator for one in caught.value.thought.validation_results] == ["quick"]


def test_a_process_that_dies_in_an_async_run_is_taken_over_too(storage):
    async def deadly(prompt):
        doubles.die(storage, "r")

    with pytest.raises(Died):
        asyncio.run(chain_of(deadly, storage, chain_id="r").arun())
    thought = run_async(chain_of(deadly, storage, chain_id="r").with_model(Model()).arun())
    assert (thought.text, len(thought.in_doubt)) == ("text 0", 1)
