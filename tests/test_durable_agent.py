"""A pydantic-ai agent on our log: killed at every recorded point, nothing is lost and nothing is paid in silence.

Run as a script, this file is the process that runs the agent in children of its own and has them killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.exceptions import ModelHTTPError, UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import infer_model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.toolsets import DynamicToolset, FunctionToolset

from sifaka.errors import ChainError, FencedError, OwnedError, PlanChangedError, UsageError
from sifaka.integrations.pydantic_ai import DurableAgent
from sifaka.integrations.pydantic_ai import run as run_module
from sifaka.log.records import Closed, Faulted, Intent, Opened, Record, Result
from sifaka.log.state import State, fold
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.urls import open_storage
from sifaka.testing import ProviderDouble
from sifaka.testing.provider import Answer, Behaviour, Cut, Raw, Received, Refuse
from sifaka.testing.storage import FaultyStorage
from sifaka.views import story_of

CHAIN_ID = "order-7"
PROMPT = "What does order 7 come to?"
PROVIDERS = {"openai": "openai-chat:gpt-4o", "anthropic": "anthropic:claude-sonnet-4-6"}


# The victim: an agent of three requests and three tool calls, two of them side by side -----------------


class Deadly(WrapperModel):
    """Dies before a request is sent, or when its answer is there and not yet recorded."""

    def __init__(self, wrapped: Any, die: dict[str, int]) -> None:
        super().__init__(wrapped)
        self._die = die
        self._requests = 0

    async def request(self, *args: Any, **more: Any) -> ModelResponse:
        self._requests += 1
        _die_at(self._die, "call", self._requests)
        response = await super().request(*args, **more)
        _die_at(self._die, "billed", self._requests)
        return response


def _die_at(die: dict[str, int], where: str, number: int) -> None:
    if die.get(where) == number:
        os.kill(os.getpid(), signal.SIGKILL)


def victim_agent(command: dict[str, Any]) -> Agent[None, str]:
    die = command["die"]
    model = Deadly(infer_model(PROVIDERS[command["provider"]]), die)
    agent = Agent(
        model, name="accountant", instructions="Answer with the sum.", model_settings={"max_tokens": 500}
    )
    calls = Counter[str]()

    def used(tool: str, what: str) -> None:
        calls["tools"] += 1
        _die_at(die, "tool", calls["tools"])
        with Path(command["tools"]).open("a", encoding="utf-8") as ledger:
            ledger.write(f"{tool} {what}\n")
        _die_at(die, "tool done", calls["tools"])

    @agent.tool_plain
    async def price(item: str) -> float:
        """The price of an item."""
        used("price", item)
        return {"tea": 3.5, "cake": 4.0}[item]

    @agent.tool_plain
    def charge(sum_usd: float) -> str:
        """Charge the customer."""
        used("charge", str(sum_usd))
        return f"charged {sum_usd}"

    return agent


def victim_run(command: dict[str, Any]) -> dict[str, Any]:
    die = command["die"]
    inner = SQLiteStorage(command["store"])
    storage = FaultyStorage(inner, lambda number, when: _die_at(die, when, number))
    agent = DurableAgent(victim_agent(command), checkpoint_storage=CachedCheckpointStorage(storage))
    try:
        result = asyncio.run(agent.run(PROMPT, chain_id=CHAIN_ID))
    except BaseException:
        return {"error": traceback.format_exc()}
    return {"output": result.output, "requests": result.usage.requests, "writes": storage.writes}


def serve() -> None:
    """Fork a child for each command, one JSON line each, and tell how it ended."""
    for name in PROVIDERS.values():
        os.environ.setdefault("OPENAI_API_KEY", "test")
        os.environ.setdefault("ANTHROPIC_API_KEY", "test")
        infer_model(name)  # imported once, here
    for line in sys.stdin:
        command = json.loads(line)
        answer, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.environ.update(command["environ"])
            os.write(write, json.dumps(victim_run(command)).encode())
            os._exit(0)
        os.close(write)
        _, status = os.waitpid(pid, 0)
        with os.fdopen(answer, "rb") as file:
            said = file.read()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"killed": killed, **(json.loads(said) if said else {})}), flush=True)


# Its provider --------------------------------------------------------------------------------------------


def _openai(*calls: tuple[str, str, dict[str, Any]]) -> Raw:
    made = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for id_, name, arguments in calls
    ]
    message = {"role": "assistant", "content": None, "tool_calls": made}
    body = {
        "id": f"chatcmpl-{calls[0][0]}",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49},
    }
    return Raw(json.dumps(body), headers={"content-type": "application/json"})


def _anthropic(*calls: tuple[str, str, dict[str, Any]]) -> Raw:
    body = {
        "id": f"msg_{calls[0][0]}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": [{"type": "tool_use", "id": one[0], "name": one[1], "input": one[2]} for one in calls],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 40, "output_tokens": 9},
    }
    return Raw(json.dumps(body), headers={"content-type": "application/json"})


def provider(received: Received) -> Behaviour:
    """Asks for two prices, then for the charge, and then says what it came to."""
    said = json.dumps(received.body["messages"])
    results = said.count('"role": "tool"') + said.count('"type": "tool_result"')
    make = _anthropic if "messages" in received.path else _openai
    if results == 0:
        return make(("c1", "price", {"item": "tea"}), ("c2", "price", {"item": "cake"}))
    if results == 2:
        return make(("c3", "charge", {"sum_usd": 7.5}))
    return Answer("It comes to 7.5 dollars.")


class Victims:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, folder: Path, double: ProviderDouble, name: str = "openai", **die: int) -> dict[str, Any]:
        command = {
            "store": str(folder / "store.db"),
            "tools": str(folder / "tools"),
            "environ": double.environ(),
            "provider": name,
            "die": {where.replace("_", " "): number for where, number in die.items()},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        done: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in done, done["error"]
        return done


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Victims(process)
        process.kill()


def records_of(folder: Path) -> list[Record]:
    storage = SQLiteStorage(folder / "store.db")
    try:
        face = CachedCheckpointStorage(storage)
        return [] if storage.entry(CHAIN_ID) is None else list(face.records(CHAIN_ID))
    finally:
        storage.close()


def tools_used(folder: Path) -> int:
    ledger = folder / "tools"
    return len(ledger.read_text().splitlines()) if ledger.exists() else 0


def results(records: list[Record], *, of_tools: bool) -> int:
    return sum(
        isinstance(one, Result) and one.intent >= 0 and (one.documents is not None) == of_tools
        for one in records
    )


def check_complete(folder: Path, double: ProviderDouble, before: list[Record]) -> State:
    """What must be true of the log, the bills and the tools after the run has been resumed to its end."""
    records = records_of(folder)
    assert records[: len(before)] == before, "something that was durable is gone"
    assert isinstance(records[-1], Closed)
    assert records[-1].status == "done"
    assert results(records, of_tools=False) == 3, "a request that was answered has been made again"
    assert results(records, of_tools=True) == 3, "a tool call that was answered has been made again"
    state = fold(CHAIN_ID, records)
    reported = Counter("model" if one.part == "model" else "tool" for one in state.doubts.values())
    assert double.billed <= 3 + reported["model"], "paid twice without a word"
    assert tools_used(folder) <= 3 + reported["tool"], "a tool was used twice without a word"
    assert state.best_draft().text == "It comes to 7.5 dollars."
    story_of(records).summary("done")
    return state


APPENDS = 5
"""How many appends a run makes at least: with each intent, and at its end."""


@pytest.mark.parametrize("name", list(PROVIDERS))
def test_each_request_and_tool_call_is_paid_once_and_recorded_with_its_price(
    victims: Victims, tmp_path: Path, name: str
) -> None:
    with ProviderDouble(provider) as double:
        done = victims.run(tmp_path, double, name)
        assert done["output"] == "It comes to 7.5 dollars."
        assert done["requests"] == 3
        assert done["writes"] >= APPENDS
        state = check_complete(tmp_path, double, [])
        assert (double.billed, tools_used(tmp_path), len(state.doubts)) == (3, 3, 0)
    records = records_of(tmp_path)
    requests = [one for one in records if isinstance(one, Result) and one.intent >= 0 and one.text]
    assert all(one.price_usd and one.usage and one.request_id and one.seconds > 0 for one in requests)
    intents = [one for one in records if isinstance(one, Intent) and one.part == "model"]
    assert [one.n for one in intents] == [0, 1, 2]
    assert all((one.price_max_usd or 0) > 0 for one in intents)
    assert state.totals.cost_usd == pytest.approx(sum(one.price_usd or 0 for one in requests))


def test_a_run_that_is_done_is_answered_from_its_log(victims: Victims, tmp_path: Path) -> None:
    with ProviderDouble(provider) as double:
        victims.run(tmp_path, double)
        before = records_of(tmp_path)
        again = victims.run(tmp_path, double)
        assert again["output"] == "It comes to 7.5 dollars."
        assert again["requests"] == 3
        assert (double.billed, tools_used(tmp_path)) == (3, 3)
        assert records_of(tmp_path) == before


POINTS = [
    *({when: n} for n in range(1, 8) for when in ("before", "after")),
    *({where: n} for n in (1, 2, 3) for where in ("call", "billed", "tool", "tool_done")),
]


@pytest.mark.parametrize("die", POINTS, ids=str)
def test_killed_at_any_point_it_goes_on_and_pays_for_nothing_twice_in_silence(
    victims: Victims, tmp_path: Path, die: dict[str, int]
) -> None:
    with ProviderDouble(provider) as double:
        killed = victims.run(tmp_path, double, **die)["killed"]
        before = records_of(tmp_path)
        assert killed or die.get("before", 0) > APPENDS or die.get("after", 0) > APPENDS
        assert victims.run(tmp_path, double)["output"] == "It comes to 7.5 dollars."
        state = check_complete(tmp_path, double, before)
        assert len(state.doubts) <= 2  # the calls that were out: two tools side by side at most
        if die.get("billed"):
            assert len(state.doubts) == 1
            assert double.billed == 4


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_with_an_answer_from_anthropic_in_hand_it_reports_that_one_call(
    victims: Victims, tmp_path: Path, number: int
) -> None:
    with ProviderDouble(provider) as double:
        assert victims.run(tmp_path, double, "anthropic", billed=number)["killed"]
        before = records_of(tmp_path)
        victims.run(tmp_path, double, "anthropic")
        (doubt,) = check_complete(tmp_path, double, before).doubts.values()
        assert double.billed == 4
        assert doubt.model == PROVIDERS["anthropic"]
        assert (doubt.price_max_usd or 0) > 0


def test_killed_again_and_again_it_still_loses_nothing(victims: Victims, tmp_path: Path) -> None:
    draw = random.Random(7)
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        with ProviderDouble(provider) as double:
            for _ in range(3):
                victims.run(folder, double, **draw.choice(POINTS))
            before = records_of(folder)
            victims.run(folder, double)
            check_complete(folder, double, before)


# In one process ------------------------------------------------------------------------------------------


def asking(*steps: tuple[ToolCallPart, ...], answer: str = "done") -> FunctionModel:
    """A model that asks for these tool calls, one group a request, and then answers; it counts requests."""

    def ask(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        turn = sum(isinstance(one, ModelResponse) for one in messages)
        model.requests += 1
        return ModelResponse(parts=list(steps[turn]) if turn < len(steps) else [TextPart(answer)])

    model = FunctionModel(ask)
    model.requests = 0
    return model


def requests_of(model: FunctionModel) -> int:
    made: int = model.requests
    return made


def wants(name: str, id_: str = "c1", **arguments: Any) -> tuple[ToolCallPart, ...]:
    return (ToolCallPart(name, arguments, tool_call_id=id_),)


@pytest.fixture
def memory() -> InMemoryStorage:
    return InMemoryStorage()


def log(memory: InMemoryStorage, chain_id: str = "r") -> list[Record]:
    return list(open_storage(memory).records(chain_id))


def kinds(records: list[Record]) -> list[str]:
    return [type(one).__name__ for one in records]


def rows(memory: InMemoryStorage) -> list[list[str]]:
    """The kinds of the records of each append."""
    records = log(memory)
    return [kinds(records[row.first : row.last + 1]) for row in memory.rows("r")]


def go(agent: DurableAgent[Any, Any], prompt: Any = "Go", **more: Any) -> Any:
    return asyncio.run(agent.run(prompt, chain_id="r", **more))


async def cut_short(agent: DurableAgent[Any, Any], reached: asyncio.Event, **more: Any) -> None:
    """Begin the run, and cancel it when ``reached`` is set: the call under way is in doubt then."""
    task = asyncio.create_task(agent.run("Go", chain_id="r", **more))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_result_and_the_next_intent_travel_in_one_append(
    memory: InMemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "LINGER_S", 60.0)
    agent = Agent(asking(wants("look"), wants("look", "c2")))
    agent.tool_plain(name="look")(lambda: "seen")
    result = go(DurableAgent(agent, checkpoint_storage=memory))
    assert result.output == "done"
    assert rows(memory) == [
        ["Opened", "Reached", "Reached", "Reached", "Intent"],
        *[["Result", "Intent"]] * 4,
        ["Result", "Result", "Reached", "Reached", "Closed"],
    ]


def test_what_one_tool_returned_is_saved_while_another_is_still_at_work(
    memory: InMemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "LINGER_S", 60.0)
    agent = Agent(asking((*wants("quick", "a"), *wants("slow", "b"))))
    seen: list[int] = []

    @agent.tool_plain
    async def quick() -> str:
        return "at once"

    @agent.tool_plain
    async def slow() -> str:
        for _ in range(2000):
            await asyncio.sleep(0.001)
            seen[:] = [one.intent for one in log(memory) if isinstance(one, Result) and one.part == "quick"]
            if seen:
                break
        return "later"

    go(DurableAgent(agent, checkpoint_storage=memory))
    assert len(seen) == 1
    assert ["Result", "Intent", "Intent"] in rows(memory)  # both were intended in one append


def test_a_result_is_saved_though_no_other_call_follows_for_long(memory: InMemoryStorage) -> None:
    agent = Agent(asking(answer="text"))
    seen: list[str] = []

    @agent.output_validator
    async def take_long(output: str) -> str:
        for _ in range(2000):
            await asyncio.sleep(0.001)
            seen[:] = kinds(log(memory))
            if "Result" in seen:
                break
        return output

    go(DurableAgent(agent, checkpoint_storage=memory))
    assert "Result" in seen
    assert "Closed" not in seen


def waiting_tool(model: FunctionModel, **how: Any) -> tuple[Agent[None, str], asyncio.Event, list[str]]:
    """An agent with a tool that works until it is cancelled, the first time, and the calls it got."""
    agent = Agent(model)
    reached, calls = asyncio.Event(), []

    @agent.tool_plain(**how)
    async def charge() -> str:
        calls.append("charge")
        if len(calls) == 1:
            reached.set()
            await asyncio.Event().wait()
        return "charged"

    return agent, reached, calls


def test_a_call_that_was_cut_off_is_repeated_and_reported(memory: InMemoryStorage) -> None:
    async def main() -> None:
        model = asking(wants("charge"))
        agent, reached, calls = waiting_tool(model)
        durable = DurableAgent(agent, checkpoint_storage=memory)
        await cut_short(durable, reached)
        chain = open_storage(memory).get_chain("r")
        assert chain is not None
        assert chain.status == "interrupted"
        assert (await durable.run("Go", chain_id="r")).output == "done"
        assert (requests_of(model), len(calls)) == (2, 2)

    asyncio.run(main())
    (doubt,) = fold("r", log(memory)).doubts.values()
    assert doubt.part == "charge"
    repeats = [one for one in log(memory) if isinstance(one, Intent) and one.part == "charge"]
    assert [(one.n, one.attempt) for one in repeats] == [(0, 1), (0, 2)]
    told = story_of(log(memory)).summary("done")
    assert [(one.part, one.repeated) for one in told.doubts] == [("charge", True)]


@pytest.mark.parametrize("by_tool", [False, True])
def test_a_call_in_doubt_stops_the_run_once_where_that_was_asked_for(
    memory: InMemoryStorage, *, by_tool: bool
) -> None:
    async def main() -> None:
        model = asking(wants("charge"))
        how = {"metadata": {"sifaka": {"on_doubt": "stop"}}} if by_tool else {}
        agent, reached, calls = waiting_tool(model, **how)
        doubt = "repeat" if by_tool else "stop"
        durable = DurableAgent(agent, checkpoint_storage=memory, on_doubt=doubt)
        await cut_short(durable, reached)
        with pytest.raises(ChainError, match="on_doubt is 'stop'"):
            await durable.run("Go", chain_id="r")
        assert len(calls) == 1
        assert isinstance(log(memory)[-1], Closed)
        assert (await durable.run("Go", chain_id="r")).output == "done"  # asked again, it is repeated
        assert (requests_of(model), len(calls)) == (2, 2)

    asyncio.run(main())


def test_an_agent_with_other_tools_instructions_or_prompt_is_another_plan(memory: InMemoryStorage) -> None:
    async def main() -> None:
        agent, reached, _ = waiting_tool(asking(wants("charge")))
        await cut_short(DurableAgent(agent, checkpoint_storage=memory), reached)
        before = log(memory)

        other = Agent(asking(wants("charge")))
        other.tool_plain(name="refund")(lambda: "refunded")
        with pytest.raises(PlanChangedError, match="without tool charge; with tool refund"):
            await DurableAgent(other, checkpoint_storage=memory).run("Go", chain_id="r")
        told = Agent(asking(wants("charge")), instructions="Be brief.")
        told.tool_plain(name="charge")(lambda: "charged")
        with pytest.raises(PlanChangedError, match="system prompt is another one"):
            await DurableAgent(told, checkpoint_storage=memory).run("Go", chain_id="r")
        with pytest.raises(PlanChangedError, match="the prompt was 'Go'"):
            await DurableAgent(agent, checkpoint_storage=memory).run("Stop", chain_id="r")
        named = Agent(asking(wants("charge")), name="another")
        named.tool_plain(name="charge")(lambda: "charged")
        with pytest.raises(PlanChangedError, match="without agent agent; with agent another"):
            await DurableAgent(named, checkpoint_storage=memory).run("Go", chain_id="r")
        assert log(memory) == before

        accepted = DurableAgent(told, checkpoint_storage=memory, on_plan_change="accept")
        assert (await accepted.run("Go", chain_id="r")).output == "done"

    asyncio.run(main())


def test_what_a_process_makes_up_anew_does_not_repeat_a_call(memory: InMemoryStorage) -> None:
    async def main() -> None:
        model = asking(wants("charge"))
        agent, reached, calls = waiting_tool(model)
        agent.instructions(lambda: f"It is {random.random()}.")
        agent.system_prompt(dynamic=True)(lambda: f"You are number {random.random()}.")
        durable = DurableAgent(agent, checkpoint_storage=memory)
        await cut_short(durable, reached)
        assert (await durable.run("Go", chain_id="r")).output == "done"
        assert (requests_of(model), len(calls)) == (2, 2)

    asyncio.run(main())


def test_a_refused_request_is_sent_once_recorded_and_made_again_when_asked(
    memory: InMemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> str:
        async with infer_model("openai-chat:gpt-4o") as model:
            durable = DurableAgent(Agent(model), checkpoint_storage=memory)
            with pytest.raises(ModelHTTPError):
                await durable.run("Go", chain_id="r")
            assert len(double.requests) == 1
            (fault,) = [one for one in log(memory) if isinstance(one, Faulted)]
            assert (fault.fault.kind, fault.fault.status, fault.part) == ("server_error", 500, "model")
            closed = log(memory)[-1]
            assert isinstance(closed, Closed)
            assert closed.status == "failed"
            assert "server_error at model" in closed.reason
            return (await durable.run("Go", chain_id="r")).output

    script = [Refuse(500, message="broken"), Answer("well again")]
    with ProviderDouble(script) as double:
        for name, value in double.environ().items():
            monkeypatch.setenv(name, value)
        assert asyncio.run(main()) == "well again"
        opened = [one for one in log(memory) if isinstance(one, Opened)]
        assert [one.cause for one in opened] == ["new", "retry"]
        attempts = [(one.n, one.attempt) for one in log(memory) if isinstance(one, Intent)]
        assert attempts == [(0, 1), (0, 2)]
        assert double.billed == 1


def test_a_tool_that_fails_is_a_fault_and_its_price_is_in_doubt(memory: InMemoryStorage) -> None:
    model = asking(wants("charge"))
    agent, calls = Agent(model), []

    @agent.tool_plain
    def charge() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionRefusedError("the till is jammed")
        return "charged"

    durable = DurableAgent(agent, checkpoint_storage=memory)
    with pytest.raises(ConnectionRefusedError, match="jammed"):
        go(durable)
    (fault,) = [one for one in log(memory) if isinstance(one, Faulted)]
    assert (fault.part, fault.fault.billed) == ("charge", "maybe")
    assert go(durable).output == "done"
    assert (requests_of(model), len(calls)) == (2, 2)
    assert len(fold("r", log(memory)).doubts) == 1


class Order(BaseModel):
    number: int
    items: list[str]


def test_tools_that_ask_for_a_retry_and_structured_values_replay_as_they_were(
    memory: InMemoryStorage,
) -> None:
    steps = (wants("find", "a", number=6), wants("find", "b", number=7))

    def ask(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turn = sum(isinstance(one, ModelResponse) for one in messages)
        if turn < len(steps):
            return ModelResponse(parts=list(steps[turn]))
        tool = info.output_tools[0].name
        return ModelResponse(parts=[ToolCallPart(tool, {"number": 7, "items": ["tea"]}, tool_call_id="z")])

    agent = Agent(FunctionModel(ask), output_type=Order)
    calls: list[int] = []

    @agent.tool_plain
    def find(number: int) -> Order:
        calls.append(number)
        if number != 7:
            raise ModelRetry("there is no order 6")
        return Order(number=7, items=["tea"])

    durable = DurableAgent(agent, checkpoint_storage=memory)
    first = go(durable)
    again = go(durable)
    assert first.output == again.output == Order(number=7, items=["tea"])
    assert calls == [6, 7]
    said = [[part.content for part in one.parts if part.part_kind != "text"] for one in _asked(first)]
    assert said == [[part.content for part in one.parts if part.part_kind != "text"] for one in _asked(again)]
    assert fold("r", log(memory)).best_draft().text == '{"number":7,"items":["tea"]}'


def _asked(result: Any) -> list[Any]:
    return [one for one in result.all_messages() if one.kind == "request"]


def test_a_run_has_one_owner(memory: InMemoryStorage) -> None:
    journal = open_storage(memory).journal
    lease = journal.claim("r")
    journal.append(lease, [Opened(1.0, "r", "Go", None, (), {})])
    durable = DurableAgent(Agent(asking()), checkpoint_storage=memory)
    with pytest.raises(OwnedError):
        go(durable)
    assert len(log(memory)) == 1


def test_an_owner_that_lost_its_run_writes_nothing_more(memory: InMemoryStorage) -> None:
    agent = Agent(asking(wants("steal")))

    @agent.tool_plain
    def steal() -> str:
        entry = memory.entry("r")
        assert entry is not None
        assert memory.claim("r", entry.token, b"another", memory.now() + 60)
        return "stolen"

    with pytest.raises(FencedError):
        go(DurableAgent(agent, checkpoint_storage=memory))
    assert kinds(log(memory))[-1] == "Intent"


def test_a_budget_ends_the_run_before_the_call_it_does_not_cover(memory: InMemoryStorage) -> None:
    model = asking(wants("look"), wants("look", "c2"))
    agent = Agent(model)
    agent.tool_plain(name="look")(lambda: "seen")
    durable = DurableAgent(agent, checkpoint_storage=memory, budget={"tokens": 10})
    with pytest.raises(ChainError, match="budget of 10 tokens is used up"):
        go(durable)
    assert requests_of(model) == 1
    closed = log(memory)[-1]
    assert isinstance(closed, Closed)
    assert closed.status == "failed"


def test_a_run_that_dies_too_often_is_given_up(memory: InMemoryStorage) -> None:
    journal = open_storage(memory).journal

    async def main() -> None:
        agent, reached, _ = waiting_tool(asking(wants("charge")))
        durable = DurableAgent(agent, checkpoint_storage=memory, limits={"deaths": 1})
        await cut_short(durable, reached)
        entry = memory.entry("r")
        assert entry is not None
        assert memory.claim("r", entry.token, b"dead", memory.now() - 60)  # it died with its lease in hand
        with pytest.raises(ChainError, match="its process died 1 time"):
            await durable.run("Go", chain_id="r")

    asyncio.run(main())
    assert journal.storage is memory


def test_a_tool_can_be_left_out_of_the_log(memory: InMemoryStorage) -> None:
    agent = Agent(asking(wants("now")))
    calls: list[int] = []

    @agent.tool_plain(metadata={"sifaka": False})
    def now() -> int:
        calls.append(1)
        return 12

    durable = DurableAgent(agent, checkpoint_storage=memory)
    go(durable)
    go(durable)
    assert len(calls) == 2
    assert not [one for one in log(memory) if isinstance(one, Intent) and one.part == "now"]

    odd = Agent(asking(wants("odd")))
    odd.tool_plain(name="odd", metadata={"sifaka": {"on_doubt": "perhaps"}})(lambda: 1)
    with pytest.raises(UserError, match="perhaps"):
        go(DurableAgent(odd))


def test_tools_that_come_with_a_run_are_refused_for_they_would_not_be_recorded(
    memory: InMemoryStorage,
) -> None:
    durable = DurableAgent(Agent(asking(wants("late"))), checkpoint_storage=memory)
    late: FunctionToolset[None] = FunctionToolset([lambda: 1], id="late")
    with pytest.raises(UserError, match="toolsets"):
        go(durable, toolsets=[late])
    assert memory.entry("r") is None


def test_a_run_that_is_done_answers_no_other_agent(memory: InMemoryStorage) -> None:
    go(DurableAgent(Agent(asking()), checkpoint_storage=memory))
    model = asking()
    changed = DurableAgent(Agent(model), checkpoint_storage=memory)
    before = [ModelResponse(parts=[TextPart("earlier")])]
    with pytest.raises(UsageError, match="is done, and its log has no answer"):
        go(changed, message_history=before)
    assert requests_of(model) == 0


def streaming() -> tuple[Agent[None, str], list[int]]:
    calls: list[int] = []

    async def stream(messages: list[ModelMessage], _info: AgentInfo) -> Any:
        calls.append(len(messages))
        if len(messages) == 1:
            yield {0: DeltaToolCall(name="look", json_args="{}", tool_call_id="c1")}
        else:
            yield "one "
            yield "two"

    agent = Agent(FunctionModel(stream_function=stream))
    agent.tool_plain(name="look")(lambda: "seen")
    return agent, calls


def test_streamed_requests_are_recorded_whole_and_replayed(memory: InMemoryStorage) -> None:
    async def main() -> None:
        agent, calls = streaming()
        durable = DurableAgent(agent, checkpoint_storage=memory)
        for _ in range(2):
            async with durable.run_stream("Go", run_id="r") as result:
                assert "".join([one async for one in result.stream_text(delta=True)]) == "one two"
        assert calls == [1, 3]
        async with durable.run_stream_events("Go", run_id="other") as events:
            names = [type(one).__name__ async for one in events]
        assert "FunctionToolResultEvent" in names
        assert names[-1] == "AgentRunResultEvent"

    asyncio.run(main())
    assert fold("r", log(memory)).best_draft().text == "one two"
    assert isinstance(log(memory, "other")[-1], Closed)


def test_a_stream_of_a_real_library_is_recorded_whole_with_its_price(
    memory: InMemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> str:
        async with infer_model("anthropic:claude-sonnet-4-6") as model:
            durable = DurableAgent(Agent(model), checkpoint_storage=memory)
            async with durable.run_stream("Go", run_id="r") as result:
                return await result.get_output()

    with ProviderDouble(Answer("Lemurs leap far.")) as double:
        for name, value in double.environ().items():
            monkeypatch.setenv(name, value)
        assert asyncio.run(main()) == "Lemurs leap far."
        assert asyncio.run(main()) == "Lemurs leap far."
        assert double.billed == 1
    (result,) = [one for one in log(memory) if isinstance(one, Result) and one.intent >= 0]
    assert (result.price_usd or 0) > 0
    assert result.finish_reason == "stop"


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("spec", list(PROVIDERS.values()))
def test_a_stream_that_is_cut_is_never_taken_for_whole(
    memory: InMemoryStorage, monkeypatch: pytest.MonkeyPatch, spec: str, *, clean: bool
) -> None:
    text = "one two three four five six seven eight nine ten"

    async def main() -> str:
        async with infer_model(spec) as model:
            durable = DurableAgent(Agent(model), checkpoint_storage=memory)

            async def listen(_ctx: Any, events: Any) -> None:
                async for _ in events:
                    pass

            for _ in range(2):
                with suppress(Exception):
                    return (await durable.run("Go", chain_id="r", event_stream_handler=listen)).output
            return ""

    script = [Cut(after_bytes=1500, answer=Answer(text), clean=clean), Answer(text)]
    with ProviderDouble(script) as double:
        for name, value in double.environ().items():
            monkeypatch.setenv(name, value)
        assert asyncio.run(main()) == text
        assert double.billed == 2
    (fault,) = [one for one in log(memory) if isinstance(one, Faulted)]
    assert fault.part == "model"
    assert len(fold("r", log(memory)).doubts) == 1


def test_fixed_and_dynamic_toolsets_are_recorded(memory: InMemoryStorage) -> None:
    made: list[str] = []

    def there() -> str:
        made.append("there")
        return "there"

    def here() -> str:
        made.append("here")
        return "here"

    fixed: FunctionToolset[None] = FunctionToolset([here], id="fixed")
    found = DynamicToolset(lambda _ctx: FunctionToolset([there]), id="found")
    model = FallbackModel(asking(wants("here"), wants("there", "c2")), asking())
    agent = Agent(model, toolsets=[fixed, found])
    durable = DurableAgent(agent, checkpoint_storage=memory)
    assert go(durable).output == go(durable).output == "done"
    assert made == ["here", "there"]
    intents = [one.part for one in log(memory) if isinstance(one, Intent)]
    assert intents == ["model", "here", "model", "there", "model"]


def test_an_agent_within_a_tool_can_be_durable_under_a_name_of_its_own(memory: InMemoryStorage) -> None:
    inner_model, outer_model = asking(answer="inner"), asking(wants("ask"))
    inner = DurableAgent(Agent(inner_model, name="inner"), checkpoint_storage=memory)
    outer = Agent(outer_model, name="outer")
    asked: list[int] = []

    @outer.tool
    async def ask(ctx: RunContext[None]) -> str:
        output = (await inner.run("Go", chain_id=f"{ctx.run_id}/inner")).output
        asked.append(1)
        if len(asked) == 1:
            raise ConnectionError("lost")
        return str(output)

    durable = DurableAgent(outer, checkpoint_storage=memory)
    with pytest.raises(ConnectionError):
        go(durable)
    assert go(durable).output == "done"
    assert (requests_of(inner_model), requests_of(outer_model)) == (1, 2)
    assert isinstance(log(memory, "r/inner")[-1], Closed)


def test_a_run_that_is_left_early_is_interrupted_and_goes_on(memory: InMemoryStorage) -> None:
    async def main() -> None:
        model = asking(wants("look"))
        agent = Agent(model)
        agent.tool_plain(name="look")(lambda: "seen")
        durable = DurableAgent(agent, checkpoint_storage=memory)
        async with durable.iter("Go", chain_id="r") as run:
            async for _ in run:
                if requests_of(model):
                    break
        chain = open_storage(memory).get_chain("r")
        assert chain is not None
        assert chain.status == "interrupted"
        assert (await durable.run("Go", chain_id="r")).output == "done"
        assert requests_of(model) == 2

    asyncio.run(main())


def test_every_beginning_of_such_a_log_can_be_shown(memory: InMemoryStorage) -> None:
    async def main() -> None:
        agent, reached, _ = waiting_tool(asking(wants("charge"), wants("charge", "c2")))
        durable = DurableAgent(agent, checkpoint_storage=memory)
        await cut_short(durable, reached)
        await durable.run("Go", chain_id="r")

    asyncio.run(main())
    records = log(memory)
    for end in range(1, len(records) + 1):
        story = story_of(records[:end])
        assert story.timeline().chain_id == "r"
        assert story.summary().prompt == "Go"
    told = [one.says for one in story_of(records).timeline().moments]
    assert any("charge was called and no answer was recorded" in one for one in told)
    thought = open_storage(memory).load("r").state.best_draft()
    assert (thought.text, thought.passed) == ("done", True)


def test_a_run_without_an_event_loop_writes_the_same_log(memory: InMemoryStorage) -> None:
    other = InMemoryStorage()
    for storage in (memory, other):
        agent = Agent(asking(wants("look")))
        agent.tool_plain(name="look")(lambda: "seen")
        durable = DurableAgent(agent, checkpoint_storage=storage)
        if storage is memory:
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            try:
                assert durable.run_sync("Go", chain_id="r").output == "done"
            finally:
                asyncio.set_event_loop(None)
                loop.close()
        else:
            go(durable)
    assert kinds(log(memory)) == kinds(log(other))


def test_pictures_in_a_prompt_are_told_by_their_digest(memory: InMemoryStorage) -> None:
    from pydantic_ai import BinaryContent

    prompt = ["What is this?", BinaryContent(b"\x89PNG", media_type="image/png")]
    durable = DurableAgent(Agent(asking()), checkpoint_storage=memory)
    result = go(durable, prompt)
    again = go(durable, prompt)
    assert again.output == result.output == "done"
    opened = log(memory)[0]
    assert isinstance(opened, Opened)
    assert (opened.prompt or "").startswith("What is this?\n[BinaryContent ")
    assert isinstance(_asked(again)[0].parts[0], UserPromptPart)


if __name__ == "__main__":
    serve()
