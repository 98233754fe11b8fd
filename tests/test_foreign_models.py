"""Models of other frameworks go straight into a chain: known by their classes, never imported to find out."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import infer_model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel

from sifaka.chain import Chain
from sifaka.errors import ChainError, ModelSpecError, PartError
from sifaka.log.records import Intent, Recovery, Result
from sifaka.models import create_model, loop
from sifaka.models.foreign import adapt_model
from sifaka.parts import Model, Usage
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.urls import open_storage
from sifaka.testing import ProviderDouble
from sifaka.testing.provider import Answer, Refuse


def adapted(model: object) -> Any:
    found = adapt_model(model)
    assert found is not None
    assert isinstance(found, Model)
    return found


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Any:
    with ProviderDouble(Answer("Lemurs leap.")) as one:
        for name, value in one.environ().items():
            monkeypatch.setenv(name, value)
        yield one


@contextmanager
def opened(spec: str) -> Iterator[Any]:
    """A user's own model, whose connections are closed in the end, in the loop they were opened in."""
    model = infer_model(spec)
    loop.run(model.__aenter__())
    try:
        yield model
    finally:
        loop.run(model.__aexit__(None, None, None))


class Ours:
    def generate(self, prompt: str) -> str:
        return prompt


@pytest.mark.parametrize("model", [Ours(), str.upper, "local:smollm2", FunctionModel, Agent, None, 7])
def test_what_needs_no_adapting_or_is_no_model_is_left_alone(model: object) -> None:
    assert adapt_model(model) is None


def test_a_model_of_ours_is_left_alone(double: ProviderDouble) -> None:
    assert adapt_model(create_model("openai-chat:gpt-4o")) is None


def test_no_framework_is_imported_to_find_out() -> None:
    code = (
        "import sys; from sifaka.chain import Chain\n"
        "assert Chain(lambda prompt: 'text', 'Write').run().text == 'text'\n"
        "assert not {'pydantic_ai', 'langchain_core', 'sifaka.models.providers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# pydantic-ai's models ------------------------------------------------------------------------------------


def echo(seen: list[tuple[list[ModelMessage], AgentInfo]]) -> FunctionModel:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append((messages, info))
        return ModelResponse(parts=[TextPart("Lemurs leap.")])

    return FunctionModel(answer, model_name="echo")


def test_a_pydantic_ai_model_is_asked_as_the_providers_are() -> None:
    seen: list[tuple[list[ModelMessage], AgentInfo]] = []
    model = adapted(echo(seen))
    reply = model.generate("Write", system_prompt="Be brief.", temperature=0.2, stop="END")
    assert (model.name, model.provider) == ("function:echo", "function")
    assert (reply.text, reply.model, reply.not_applied) == ("Lemurs leap.", "function:echo", ())
    assert reply.usage.input_tokens > 0
    assert reply.price_usd is None
    (messages, info) = seen[0]
    assert messages[0].instructions == "Be brief."
    assert (info.model_settings or {})["temperature"] == 0.2
    assert (info.model_settings or {})["stop_sequences"] == ["END"]
    assert asyncio.run(model.agenerate("Write")).text == "Lemurs leap."
    assert "hear" not in model.accepts  # its streams do not say why they end
    assert adapted(TestModel(custom_output_text="test")).generate("Write").text == "test"


def test_a_chain_runs_on_a_pydantic_ai_model() -> None:
    thought = Chain(echo([]), "Write").with_options(temperature=0.2, stream=True).run()
    assert thought.text == "Lemurs leap."


def test_a_provider_s_model_goes_over_the_wire_with_usage_price_and_options(double: ProviderDouble) -> None:
    storage = InMemoryStorage()
    with opened("openai-chat:gpt-4o") as model:
        chain = Chain(model, "Write", checkpoint_storage=storage, chain_id="r")
        assert chain.with_options(temperature=0.3).run().text == "Lemurs leap."
    assert double.requests[0].body["temperature"] == 0.3
    records = list(open_storage(storage).records("r"))
    (intent,) = [one for one in records if isinstance(one, Intent)]
    (result,) = [one for one in records if isinstance(one, Result)]
    assert intent.model == "openai:gpt-4o"
    assert (intent.price_max_usd or 0) > (result.price_usd or 0) > 0
    assert result.usage is not None
    assert result.request_id
    assert result.finish_reason == "stop"


def test_a_stream_of_a_provider_s_model_is_saved_as_it_comes(double: ProviderDouble) -> None:
    heard: list[str] = []
    with opened("openai-chat:gpt-4o") as plain:
        model = adapted(WrapperModel(plain))
        assert "hear" in model.accepts
        assert model.generate("Write", hear=lambda one: heard.append(one.text)).text == "Lemurs leap."
    assert len(heard) > 2


@pytest.mark.parametrize("dressed", ["plain", "wrapped", "agent"])
def test_a_refused_request_is_sent_once_whatever_is_around_the_model(
    monkeypatch: pytest.MonkeyPatch, dressed: str
) -> None:
    with ProviderDouble(Refuse(500)) as broken:
        for name, value in broken.environ().items():
            monkeypatch.setenv(name, value)
        with opened("openai-chat:gpt-4o") as plain:
            made = {
                "plain": plain,
                "wrapped": WrapperModel(plain),
                "agent": Agent(plain),
            }
            with pytest.raises(ModelHTTPError):
                adapted(made[dressed]).generate("Write")
        assert len(broken.requests) == 1


def test_a_choice_among_models_is_made_by_the_chain_and_each_switch_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = InMemoryStorage()
    with ProviderDouble(Refuse(503)) as broken:
        for name, value in broken.environ().items():
            monkeypatch.setenv(name, value)
        with opened("openai-chat:gpt-4o") as plain:
            choice = FallbackModel(plain, echo([]))
            assert (
                Chain(choice, "Write", checkpoint_storage=storage, chain_id="r").run().text == "Lemurs leap."
            )
            assert adapted(Agent(choice)).accepts == frozenset({"system_prompt"})
        assert len(broken.requests) == 1
    records = list(open_storage(storage).records("r"))
    assert [one.model for one in records if isinstance(one, Intent)] == ["openai:gpt-4o", "function:echo"]
    assert any(isinstance(one, Recovery) for one in records)


# pydantic-ai's agents ------------------------------------------------------------------------------------


class Leap(BaseModel):
    metres: int


def test_an_agent_s_whole_run_is_one_call() -> None:
    def answer(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("measure", {}, tool_call_id="c")])
        return ModelResponse(parts=[TextPart("Seven metres.")])

    agent = Agent(FunctionModel(answer, model_name="m"), name="measurer")
    agent.tool_plain(name="measure")(lambda: 7)
    model = adapted(agent)
    reply = model.generate("How far?")
    assert model.name == "agent:measurer@function:m"
    assert (reply.text, reply.model) == ("Seven metres.", "function:m")
    assert reply.usage.input_tokens > 100  # of both requests
    assert Chain(agent, "How far?").run().text == "Seven metres."
    assert asyncio.run(Chain(agent, "How far?").arun()).text == "Seven metres."


def test_an_agent_gets_options_as_settings_and_the_system_prompt_beside_its_own() -> None:
    seen: list[tuple[list[ModelMessage], AgentInfo]] = []
    model = adapted(Agent(echo(seen), instructions="Own.", model_settings={"max_tokens": 9, "top_p": 0.5}))
    reply = model.generate("Write", system_prompt="Yours.", temperature=0.1, json_schema={}, top_p=None)
    assert reply.not_applied == ("json_schema",)
    messages, info = seen[0]
    assert messages[0].instructions == "Own.\n\nYours."
    settings = info.model_settings or {}
    assert {name: settings[name] for name in ("max_tokens", "top_p", "temperature")} == {
        "max_tokens": 9,
        "top_p": 0.5,
        "temperature": 0.1,
    }


def test_an_agent_s_structured_output_becomes_json() -> None:
    agent = Agent(TestModel(custom_output_args={"metres": 7}), output_type=Leap)
    assert adapted(agent).generate("How far?").text == '{"metres":7}'


def test_an_agent_goes_over_the_wire_and_adds_up_its_price(double: ProviderDouble) -> None:
    with opened("anthropic:claude-sonnet-4-6") as plain:
        model = adapted(Agent(plain, name="writer", model_settings={"max_tokens": 9}))
        reply = model.generate("Write", max_tokens=50)
        model.generate("Write", temperature=0.5)
    assert (model.name, model.provider) == ("agent:writer@anthropic:claude-sonnet-4-6", "anthropic")
    assert [one.body["max_tokens"] for one in double.requests] == [50, 9]  # its own holds where none is given
    assert reply.price_usd > 0
    assert reply.finish_reason == "stop"
    assert reply.request_id


def test_an_agent_may_name_its_model_by_a_spec_or_choose_it_as_it_runs() -> None:
    assert adapted(Agent("test")).generate("Write").text == "success (no tool calls)"
    model = adapted(Agent())
    assert (model.accepts, model.provider) == (frozenset({"system_prompt"}), "")


def test_an_agent_whose_model_cannot_be_opened_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelSpecError, match="OPENAI_API_KEY"):
        Chain(Agent("openai-chat:gpt-4o", defer_model_check=True), "Write")


# LangChain's runnables, in shapes faithful to langchain-core 1.8 -----------------------------------------


def of(module: str) -> Any:
    def place(cls: type) -> type:
        cls.__module__ = module
        return cls

    return place


@of("langchain_core.runnables.base")
class Runnable:
    name: str | None = None

    def invoke(self, given: Any, config: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def ainvoke(self, given: Any, config: Any = None, **kwargs: Any) -> Any:
        return self.invoke(given, config, **kwargs)


@of("langchain_core.language_models.chat_models")
class BaseChatModel(Runnable):
    model_fields: ClassVar[dict[str, Any]] = {"name": None, "cache": None}

    def generate(self, messages: list[list[Any]], stop: Any = None) -> Any:
        raise AssertionError("LangChain's generate is none of ours")


@of("langchain_core.language_models.llms")
class BaseLLM(Runnable):
    model_fields: ClassVar[dict[str, Any]] = {"name": None}
    _llm_type = "fake-llm"

    def generate(self, prompts: list[str], stop: Any = None) -> Any:
        raise AssertionError("LangChain's generate is none of ours")

    def invoke(self, given: Any, config: Any = None, **kwargs: Any) -> str:
        return f"{given}{kwargs.get('stop')}"


@of("langchain_core.messages.ai")
class AIMessage:
    def __init__(self, content: Any, usage: Any = None, **metadata: Any) -> None:
        self.content = content
        self.usage_metadata = usage
        self.response_metadata = metadata
        self.id = "lc_run--0199"


@of("langchain_openai.chat_models.base")
class ChatOpenAI(BaseChatModel):
    model_fields: ClassVar[dict[str, Any]] = {
        **BaseChatModel.model_fields,
        **dict.fromkeys(("temperature", "top_p", "seed", "max_tokens", "model_name")),
    }
    _llm_type = "openai-chat"
    model_name = "gpt-4o"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[Any, dict[str, Any]]] = []

    def invoke(self, given: Any, config: Any = None, **kwargs: Any) -> Any:
        self.calls.append((given, kwargs))
        return self.answers.pop(0)


@of("langchain_core.runnables.base")
class RunnableBindingBase(Runnable):
    def __init__(self, bound: Any) -> None:
        self.bound = bound

    def invoke(self, given: Any, config: Any = None, **kwargs: Any) -> Any:
        return self.bound.invoke(given, config, **kwargs)


@of("langchain_core.runnables.base")
class RunnableSequence(Runnable):
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def invoke(self, given: Any, config: Any = None, **kwargs: Any) -> Any:
        assert not kwargs
        return self.answer(given)


@of("langchain_core.runnables.base")
class RunnableLambda(Runnable):
    def __init__(self, afunc: Any) -> None:
        self.afunc = afunc
        self.name = afunc.__name__

    def invoke(self, given: Any, config: Any = None, **kwargs: Any) -> Any:
        raise TypeError("Cannot invoke a coroutine function synchronously.")

    async def ainvoke(self, given: Any, config: Any = None, **kwargs: Any) -> Any:
        return await self.afunc(given)


USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}


def test_a_chat_model_gets_two_messages_and_the_options_it_has_fields_for() -> None:
    chat = ChatOpenAI(
        AIMessage(
            [{"type": "text", "text": "Lemurs "}, {"type": "image"}, "leap."],
            USAGE,
            model_name="gpt-4o-2024-08-06",
            model_provider="openai",
            finish_reason="length",
            id="chatcmpl-1",
        )
    )
    model = adapted(chat)
    reply = model.generate("Write", system_prompt="Be brief.", temperature=0.1, stop="END", top_k=3)
    assert (model.name, model.provider) == ("openai-chat:gpt-4o", "openai-chat")
    assert chat.calls == [
        ([("system", "Be brief."), ("human", "Write")], {"temperature": 0.1, "stop": ["END"]})
    ]
    assert reply.text == "Lemurs leap."
    assert reply.usage == Usage(1000, 100)
    assert reply.price_usd == pytest.approx(0.0035)
    assert (reply.finish_reason, reply.request_id) == ("length", "chatcmpl-1")
    assert reply.model == "openai-chat:gpt-4o-2024-08-06"
    assert reply.not_applied == ("top_k",)


@pytest.mark.parametrize(("said", "meant"), [("end_turn", "stop"), ("max_tokens", "length"), ("odd", "odd")])
def test_reasons_to_stop_are_told_in_our_words(said: str, meant: str) -> None:
    reply = adapted(ChatOpenAI(AIMessage("text", stop_reason=said))).generate("Write")
    assert reply.finish_reason == meant
    assert (reply.usage, reply.price_usd, reply.request_id) == (None, None, "")  # unknown is never 0


def test_a_bound_chat_model_is_still_one() -> None:
    chat = ChatOpenAI(AIMessage("text"))
    model = adapted(RunnableBindingBase(RunnableBindingBase(chat)))
    model.generate("Write", system_prompt="Be brief.")
    assert model.name == "openai-chat:gpt-4o"
    assert chat.calls[0][0] == [("system", "Be brief."), ("human", "Write")]


def test_a_language_model_gets_one_text() -> None:
    model = adapted(BaseLLM())
    assert model.generate("Write", stop="x").text == "Write['x']"
    assert "system_prompt" not in model.accepts
    thought = Chain(BaseLLM(), "Write").with_system_prompt("Be brief.").run()
    assert thought.text.startswith("Be brief.")


def test_a_chain_of_theirs_gets_the_prompt_and_no_options() -> None:
    sequence = RunnableSequence(lambda given: f"about {given}")
    model = adapted(sequence)
    assert (model.accepts, model.name, model.provider) == (frozenset(), "RunnableSequence", "")
    storage = InMemoryStorage()
    chain = Chain(sequence, "lemurs", checkpoint_storage=storage, chain_id="r").with_options(temperature=1.0)
    assert chain.run().text == "about lemurs"
    results = [one for one in open_storage(storage).records("r") if isinstance(one, Result)]
    assert results[0].not_applied == ("temperature",)
    assert asyncio.run(model.agenerate("lemurs")).text == "about lemurs"


def test_an_answer_that_is_no_text_becomes_json_or_is_refused() -> None:
    assert adapted(RunnableSequence(lambda _: {"a": [1]})).generate("x").text == '{"a": [1]}'
    assert adapted(RunnableSequence(lambda _: Leap(metres=7))).generate("x").text == '{"metres":7}'
    with pytest.raises(PartError, match="nothing"):
        adapted(RunnableSequence(lambda _: None)).generate("x")
    with pytest.raises(PartError, match="object"):
        adapted(RunnableSequence(lambda _: object())).generate("x")


def test_a_runnable_that_can_only_be_awaited_is_awaited() -> None:
    async def shout(text: str) -> str:
        return text.upper()

    model = adapted(RunnableLambda(shout))
    assert model.name == "shout"
    assert model.generate("leap").text == "LEAP"
    assert asyncio.run(model.agenerate("leap")).text == "LEAP"


def test_what_a_runnable_raises_ends_the_chain_as_a_fault() -> None:
    def fail(_: Any) -> str:
        raise TimeoutError("no answer")

    with pytest.raises(ChainError) as caught:
        Chain(RunnableSequence(fail), "Write").run()
    assert caught.value.fault is not None
    assert caught.value.fault.kind == "timeout"


def test_the_page_about_integrations_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs/integrations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "integrations.md", "exec"), names)
    assert (tmp_path / "runs.db").exists()
