"""The embedded model, for real: it loads, answers, stops, fails and survives a fork."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading

import pytest

from sifaka.errors import ModelError
from sifaka.models import create_model
from sifaka.parts import Model

pytestmark = [pytest.mark.model, pytest.mark.slow]

PROMPT = "Write one sentence about AI ethics."
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "green", "blue"]},
        "number": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["colour", "number"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model():
    return create_model("local:smollm2", temperature=0, max_tokens=40)


def test_it_answers_with_usage_no_price_and_a_name(model):
    reply = model.generate("Say hello.", max_tokens=200)
    assert isinstance(model, Model)
    assert reply.text.strip()  # of its sense nothing is promised: the model is tiny
    assert reply.usage.input_tokens > 5
    assert reply.usage.output_tokens > 1
    assert reply.price_usd == 0.0 == model.price_max_usd("x", {})
    assert reply.finish_reason == "stop"
    assert reply.model == "local:smollm2" == model.name
    assert reply.request_id
    assert reply.not_applied == ()


def test_temperature_0_repeats_whatever_was_asked_in_between(model):
    first = model.generate(PROMPT).text
    model.generate("Write one sentence about the sea.")
    assert first
    assert model.generate(PROMPT).text == first


def test_a_seed_repeats_and_another_seed_does_not(model):
    texts = [model.generate(PROMPT, temperature=1.5, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_system_prompt_reaches_the_model(model):
    plain = model.generate(PROMPT)
    told = model.generate(PROMPT, system_prompt="You only speak French. Réponds en français.")
    assert told.text != plain.text
    assert told.usage.input_tokens != plain.usage.input_tokens


def test_a_json_schema_binds_the_answer(model):
    reply = model.generate("Choose a colour and a number.", json_schema=SCHEMA, max_tokens=80)
    answer = json.loads(reply.text)
    assert answer.keys() == {"colour", "number"}
    assert answer["colour"] in {"red", "green", "blue"}
    assert 0 <= answer["number"] <= 9


def test_an_answer_that_is_cut_off_says_length(model):
    reply = model.generate("Tell a long story.", max_tokens=5)
    assert reply.finish_reason == "length"
    assert reply.usage.output_tokens == 5


@pytest.mark.parametrize("stop", ["ethics", ["ethics", "nothing"]])
def test_a_stop_text_ends_the_answer_before_it(model, stop):
    assert "ethics" in model.generate(PROMPT).text
    reply = model.generate(PROMPT, stop=stop)
    assert "ethics" not in reply.text
    assert reply.finish_reason == "stop"


def test_a_prompt_that_does_not_fit_is_a_typed_error(model):
    small = create_model("local:smollm2", context_tokens=512)
    with pytest.raises(ModelError, match="context_tokens") as raised:
        small.generate("word " * 600)
    assert raised.value.kind == "context_length"
    assert small.generate("Hello", max_tokens=3).text


@pytest.mark.parametrize(
    "options",
    [{"json_schema": {"type": "nonsense"}}, {"temperature": "hot"}, {"system_prompt": "\ud800"}],
)
def test_a_request_it_cannot_read_is_a_typed_error(model, options):
    with pytest.raises(ModelError) as raised:
        model.generate(PROMPT, **options)
    assert raised.value.kind == "invalid_request"
    assert model.generate("Hello", max_tokens=3).text  # the model is still there


def test_timeout_s_ends_a_long_answer(model):
    with pytest.raises(ModelError, match="timeout_s") as raised:
        model.generate("Tell a very long story.", max_tokens=4000, timeout_s=0.05)
    assert raised.value.kind == "timeout"
    assert model.generate("Hello", max_tokens=3).text


def test_what_it_cannot_take_is_named(model):
    reply = model.generate("Hello", max_tokens=3, thinking=True, banana=1)
    assert reply.not_applied == ("banana", "thinking")
    assert {"seed", "json_schema", "stop", "temperature"} <= model.accepts


def test_two_threads_and_a_loop_at_once_get_their_own_answers(model):
    expected = {n: model.generate(f"Count from {n}.", max_tokens=12).text for n in range(4)}
    got: dict[int, str] = {}

    def ask(n: int) -> None:
        got[n] = model.generate(f"Count from {n}.", max_tokens=12).text

    async def ask_too() -> None:
        replies = await asyncio.gather(*(model.agenerate(f"Count from {n}.", max_tokens=12) for n in (2, 3)))
        got.update({2: replies[0].text, 3: replies[1].text})

    threads = [threading.Thread(target=ask, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    asyncio.run(ask_too())
    for thread in threads:
        thread.join()
    assert got == expected


def test_a_cancelled_answer_ends_and_leaves_the_model_free(model):
    async def cancel() -> None:
        call = asyncio.ensure_future(model.agenerate("Tell a very long story.", max_tokens=4000))
        await asyncio.sleep(0)  # it is in its thread now
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel())
    assert model.generate("Hello", max_tokens=3, timeout_s=60).text


def test_a_file_with_a_broken_inside_is_a_typed_error_at_the_first_call(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(range(256)))
    broken = create_model(f"local:{path}")
    with pytest.raises(ModelError, match="GGUF"):
        broken.generate("Hello")


def test_the_same_file_by_path_is_the_same_model(model):
    by_path = create_model(f"local:{model.path}", temperature=0, max_tokens=40)
    assert by_path.generate(PROMPT).text == model.generate(PROMPT).text


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


FORK = """
import os, sys, threading
from sifaka.models import create_model
model = create_model("local:smollm2", temperature=0, max_tokens=20)
before = model.generate("Say hello.").text
{busy}
child = os.fork()
if not child:
    sys.exit(7 if model.generate("Say hello.").text == before else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert model.generate("Say hello.").text == before
"""


@pytest.mark.parametrize(
    "busy",
    [
        "",
        "threading.Thread(target=model.generate, args=('Tell a story.',)).start()",
    ],
    ids=["idle", "answering in a thread"],
)
def test_it_works_on_both_sides_of_a_fork_and_both_exit_cleanly(busy):
    done = run(FORK.format(busy=busy))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_quiet_and_exits_cleanly_also_in_the_middle_of_an_answer():
    done = run(
        """
import threading
from sifaka.models import create_model
model = create_model("local:smollm2", max_tokens=4000)
model.generate("Hello", max_tokens=3)
threading.Thread(target=model.generate, args=("Tell a story.",), daemon=True).start()
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_interrupt_stops_an_answer():
    done = run(
        """
import signal
from sifaka.models import create_model
model = create_model("local:smollm2", max_tokens=4000)
model.generate("Hello", max_tokens=3)
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    model.generate("Tell a very long story.", json_schema={"type": "array", "minItems": 900,
                   "items": {"type": "integer"}})
except KeyboardInterrupt:
    print(len(model.generate("Hello", max_tokens=3).text) > 0)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
