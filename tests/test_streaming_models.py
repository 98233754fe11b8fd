"""Streamed, background, stored and deferred calls, over a real socket and through the providers' own libraries."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

import doubles
from sifaka.errors import MissingKeyError, ModelError, ModelSpecError
from sifaka.faults import classify
from sifaka.models import FallbackModel, create_model
from sifaka.parts import Heard, Pending, Reply, Usage
from sifaka.testing.provider import Answer, Cut, Hang, Overload, Raw, Refuse

CLAUDE = "anthropic:claude-sonnet-4-6"
HAIKU = "anthropic:claude-haiku-4-5"  # goes on from the beginning of an answer
CHAT = "openai-chat:gpt-4o"
RESPONSES = "openai-responses:gpt-4o"
SPECS = {CLAUDE: "msg", CHAT: "chatcmpl", RESPONSES: "resp"}
WORDS = "Indris sing at dawn, together."


connected = doubles.connected


def failure(call):
    """The error of a call, and the fault it is."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - what it is gets asserted
        call()
    return raised.value, classify(raised.value)


def settled(model, found, call_id=""):
    """Look up until there is an answer; it and the number of look-ups."""
    times = 0
    while isinstance(found, Pending):
        found = model.look_up(found.handle, call_id)
        times += 1
    return found, times


# ---- streaming


@pytest.mark.parametrize("spec", SPECS)
def test_a_streamed_call_tells_its_id_first_and_then_the_text_as_it_grows(connected, spec):
    double = connected(Answer(WORDS))
    heard: list[Heard] = []
    model = create_model(spec)
    assert "hear" in model.accepts
    reply = model.generate("Hello", hear=heard.append)
    name = f"{SPECS[spec]}_000001"
    assert heard[0] == Heard(name, "")
    assert [one.text for one in heard[1:]] == [
        "Indris ",
        "Indris sing ",
        "Indris sing at ",
        "Indris sing at dawn, ",
        WORDS,
    ]
    assert {one.handle for one in heard} == {name} == {reply.request_id}
    assert double.requests[0].body["stream"] is True


COMPATIBLE = {
    "ollama:llama3": "/v1",
    "azure:gpt-4o": "/openai/v1",
    "groq:llama-3.1-8b-instant": "",
    "mistral:mistral-large-latest": "",
}


@pytest.mark.parametrize("spec", COMPATIBLE)
def test_other_providers_streams_are_heard_and_a_cut_one_is_told(connected, spec):
    double = connected(
        lambda got: Cut(700, Answer(WORDS), clean=True) if got.prompt == "cut" else Answer(WORDS)
    )
    model = create_model(spec, base_url=double.url + COMPATIBLE[spec], api_key="k")
    heard: list[Heard] = []
    reply = model.generate("Hello", hear=heard.append)
    assert (reply.text, reply.finish_reason) == (WORDS, "stop") == (heard[-1].text, "stop")
    assert heard[0] == Heard("chatcmpl_000001", "")
    error, fault = failure(lambda: model.generate("cut", hear=heard.append))
    assert (fault.kind, fault.transient) == ("truncated", True)
    assert error.handle == "chatcmpl_000002"


def gemini(*texts, reason=None):
    chunks = [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0} for text in texts]
    if reason:
        chunks[-1]["finishReason"] = reason
    told = [{"candidates": [one], "modelVersion": "gemini-2.5-pro", "responseId": "gem_1"} for one in chunks]
    body = "".join(f"data: {json.dumps(one)}\n\n" for one in told)
    return Refuse(200, headers={"content-type": "text/event-stream"}, body=body)


def test_googles_streams_are_heard_and_a_cut_one_is_told(connected, monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    double = connected([gemini("Indris ", "sing.", reason="STOP"), gemini("Indris ")])
    model = create_model("google:gemini-2.5-pro", base_url=double.url)
    heard: list[Heard] = []
    reply = model.generate("Hello", hear=heard.append)
    assert (reply.text, reply.finish_reason) == ("Indris sing.", "stop")
    assert heard == [Heard("gem_1", ""), Heard("gem_1", "Indris "), Heard("gem_1", "Indris sing.")]
    error, fault = failure(lambda: model.generate("Hello", hear=heard.append))
    assert (fault.kind, error.partial) == ("truncated", "Indris ")


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_a_streamed_reply_is_the_same_as_a_whole_one(connected, spec, reason):
    connected(Answer(WORDS, finish_reason=reason, input_tokens=1000, output_tokens=100))
    model = create_model(spec)
    whole = model.generate("Hello")
    streamed = model.generate("Hello", hear=lambda _: None)
    assert whole.usage == Usage(1000, 100)
    assert whole.price_usd is not None
    assert whole.finish_reason == reason
    assert msgspec.structs.replace(streamed, request_id=whole.request_id) == whole


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_one_streamed_attempt_is_one_request(connected, spec, status):
    double = connected(Refuse(status, headers={"retry-after": "0"}))
    error, _ = failure(lambda: create_model(spec).generate("Hello", hear=lambda _: None))
    assert error.status_code == status
    assert len(double.requests) == 1


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("clean", [False, True], ids=["broken", "ended"])
def test_a_stream_cut_at_any_byte_is_never_taken_for_whole(connected, spec, clean):
    double = connected(lambda got: Cut(int(got.prompt), Answer(WORDS, output_tokens=50), clean=clean))
    model = create_model(spec)
    byte, outcomes = 0, set()
    while True:
        heard: list[Heard] = []
        try:
            reply = model.generate(str(byte), hear=heard.append)
        except Exception as error:
            fault = classify(error)
            text = heard[-1].text if heard else ""
            assert fault.kind in {"truncated", "connection"}, (byte, error)
            assert fault.transient
            assert WORDS.startswith(text)
            assert error.partial == text
            assert error.handle == (heard[-1].handle if heard else "")
            outcomes.add(text)
        else:
            assert reply.text == WORDS
            # Chat's count of tokens comes after its end: cut off between them, it is not known.
            assert reply.usage == Usage(reply.usage.input_tokens, 50) if reply.usage else spec == CHAT
            break
        byte += 37
    assert byte > 1000
    assert len(outcomes) >= 5
    assert double.billed == len(double.requests) == byte // 37 + 1


@pytest.mark.parametrize("spec", SPECS)
def test_a_stream_is_billed_by_what_was_sent(connected, spec):
    parts = {0: "", 2: "Indris sing ", 9: WORDS}
    double = connected([Hang(after_pieces=n, answer=Answer(WORDS, output_tokens=50)) for n in parts])
    model = create_model(spec)

    def leave_at(text):
        def hear(heard):
            if heard.text == text:
                raise KeyError(text)

        return hear

    for text in parts.values():
        with pytest.raises(KeyError):
            model.generate("Hello", hear=leave_at(text))
    sent = [bill.output_tokens for bill in double.ledger]
    assert sent[0] == 0 < sent[1] < sent[2] == 50


@pytest.mark.parametrize("spec", SPECS)
def test_a_provider_that_is_overloaded_inside_a_stream_is_told_as_such_with_the_text_so_far(connected, spec):
    connected(Overload(after_pieces=2, answer=Answer(WORDS)))
    error, fault = failure(lambda: create_model(spec).generate("Hello", hear=lambda _: None))
    assert (fault.kind, fault.transient, fault.billed) == ("overloaded", True, "partly")
    assert error.partial == "Indris sing "


@pytest.mark.parametrize("spec", SPECS)
def test_a_stream_that_falls_silent_is_left_after_timeout_s_with_the_text_so_far(connected, spec):
    connected(Hang(after_pieces=1, answer=Answer(WORDS)))
    error, fault = failure(lambda: create_model(spec).generate("Hello", hear=lambda _: None, timeout_s=1.5))
    assert fault.kind == "timeout"
    assert (error.partial, error.handle) == ("Indris ", f"{SPECS[spec]}_000001")


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("body", ["", '{"id": "', "event: x\ndata: {no json}\n\n"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_that_is_nothing_or_no_json_is_a_fault(connected, spec, body, streamed):
    double = connected(Raw(body, headers={"content-type": "text/event-stream"} if streamed else {}))
    more = {"hear": lambda _: None} if streamed else {}
    _, fault = failure(lambda: create_model(spec).generate("Hello", **more))
    assert fault.kind in {"malformed_output", "empty_output", "truncated"}
    assert double.billed == 1


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "behaviour",
    [Cut(1000), Overload(after_pieces=2), Hang(after_pieces=1), Raw("x")],
    ids=lambda one: type(one).__name__,
)
def test_a_call_that_fails_leaves_no_half_read_stream_behind(connected, spec, behaviour):
    import gc

    connected(behaviour)
    model = create_model(spec)
    gc.collect()
    failure(lambda: model.generate("Hello", hear=lambda _: None, timeout_s=0.5))
    kinds = [one for one in gc.get_objects() if type(one).__name__ == "async_generator"]
    assert [one.__qualname__ for one in kinds if one.ag_frame is not None] == []


def test_who_listens_can_end_the_call(connected):
    connected(Answer(WORDS))

    def hear(heard: Heard) -> None:
        if heard.text:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        create_model(CLAUDE).generate("Hello", hear=hear)


def test_a_streamed_call_can_be_awaited(connected):
    connected(Answer(WORDS))
    heard: list[Heard] = []
    reply = asyncio.run(create_model(CLAUDE).agenerate("Hello", hear=heard.append))
    assert (reply.text, heard[-1].text) == (WORDS, WORDS)


# ---- going on from a beginning


@pytest.mark.parametrize(
    ("spec", "can"),
    [
        (HAIKU, True),
        ("anthropic:claude-opus-4-5", True),
        (CLAUDE, False),
        ("anthropic:claude-opus-5", False),
        (CHAT, False),
        (RESPONSES, False),
    ],
)
def test_only_models_that_go_on_from_a_beginning_say_so(monkeypatch, spec, can):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert ("continue_from" in create_model(spec).accepts) is can


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cut_answer_is_gone_on_from_and_only_the_new_part_is_returned(connected, streamed):
    double = connected(Answer(" dawn, together."))
    heard: list[Heard] = []
    more = {"hear": heard.append} if streamed else {}
    reply = create_model(HAIKU).generate("What do they do?", continue_from="Indris sing at ", **more)
    assert "Indris sing at " + reply.text == "Indris sing at dawn, together."
    last = double.requests[0].body["messages"][-1]
    assert last["role"] == "assistant"
    assert last["content"][0]["text"] == "Indris sing at"  # Anthropic refuses white space at the end
    if streamed:
        assert heard[0].text == "Indris sing at "


def test_the_beginning_counts_in_the_highest_price(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    model = create_model(HAIKU)
    more = model.price_max_usd("x", {"max_tokens": 9, "continue_from": "y" * 1000})
    assert more - model.price_max_usd("x", {"max_tokens": 9}) == pytest.approx(1000 * 1 / 1e6)


# ---- background responses


def test_a_background_call_is_pending_and_settled_by_its_id(connected):
    double = connected(Answer(WORDS, look_ups=2, input_tokens=1000, output_tokens=100))
    model = create_model(RESPONSES, background=True, poll_s=0.5)
    found = model.generate("Hello")
    assert found == Pending("resp_000001", 0.5)
    reply, times = settled(model, found)
    assert (reply.text, reply.usage, reply.finish_reason) == (WORDS, Usage(1000, 100), "stop")
    assert reply.price_usd == pytest.approx((1000 * 2.5 + 100 * 10) / 1e6)
    assert times == 3
    body = double.requests[0].body
    assert (body["background"], body["store"]) == (True, True)
    assert (len(double.requests), len(double.others), double.billed) == (1, 3, 1)


@pytest.mark.parametrize("poll_s", [0.0, 7])
def test_the_time_between_look_ups_is_the_users(connected, poll_s):
    connected()
    assert create_model(RESPONSES, background=True, poll_s=poll_s).generate("Hello").again_s == poll_s


def test_a_background_stream_that_is_cut_becomes_a_look_up(connected):
    double = connected(lambda got: Cut(int(got.prompt), Answer(WORDS)))
    model = create_model(RESPONSES, background=True)
    waited = 0
    for byte in range(0, 4500, 150):
        heard: list[Heard] = []
        try:
            found = model.generate(str(byte), hear=heard.append)
        except Exception as error:
            assert not heard  # nobody knows its id
            assert classify(error).kind in {"connection", "truncated"}
            continue
        assert found == Pending(heard[0].handle, 2.0) or found.text == WORDS
        waited += isinstance(found, Pending)
        assert settled(model, found)[0].text == WORDS
    assert waited > 10
    # An attempt over a connection that has just been cut may reach nobody.
    assert 25 <= double.billed == len(double.requests) <= 30


def test_a_background_stream_that_falls_silent_becomes_a_look_up(connected):
    connected(Hang(after_pieces=1, answer=Answer(WORDS)))
    model = create_model(RESPONSES, background=True)
    found = model.generate("Hello", hear=lambda _: None, timeout_s=1.5)
    assert settled(model, found)[0].text == WORDS


def test_a_background_call_that_the_provider_does_not_know_is_none(connected):
    connected()
    model = create_model(RESPONSES, background=True)
    assert model.look_up("resp_000009") is None
    assert model.look_up("", "some-call") is None


def test_a_background_call_that_was_cancelled_at_the_provider_is_no_answer(connected):
    import urllib.request

    double = connected(Answer(look_ups=5))
    model = create_model(RESPONSES, background=True)
    found = model.generate("Hello")
    cancel = urllib.request.Request(f"{double.url}/v1/responses/{found.handle}/cancel", method="POST")
    urllib.request.urlopen(cancel).close()
    with pytest.raises(ModelError, match="cancelled"):
        model.look_up(found.handle)


def test_a_look_up_is_one_request_whatever_comes(connected):
    double = connected(others=Refuse(503))
    model = create_model(RESPONSES, background=True)
    found = model.generate("Hello")
    _, fault = failure(lambda: model.look_up(found.handle))
    assert fault.kind in {"overloaded", "server_error"}
    assert len(double.others) == 1


def test_a_look_up_can_be_awaited_and_made_by_another_process(connected):
    connected(Answer(WORDS))
    model = create_model(RESPONSES, background=True)
    found = model.generate("Hello")
    other = pickle.loads(pickle.dumps(model))
    assert asyncio.run(other.alook_up(found.handle)).text == WORDS


# ---- stored completions


def test_a_stored_completion_whose_reply_was_lost_is_found_by_the_calls_name(connected):
    double = connected(Cut(0, Answer(WORDS)))
    model = create_model(CHAT, store=True)
    assert "call_id" in model.accepts
    failure(lambda: model.generate("Hello", call_id="chain-7:3"))
    reply = model.look_up("", "chain-7:3")
    assert (reply.text, reply.request_id) == (WORDS, "chatcmpl_000001")
    assert reply.price_usd is not None
    assert double.requests[0].call_id == double.ledger[0].call_id == "chain-7:3"
    assert double.billed == 1


def test_a_stored_completion_is_found_by_its_id(connected):
    connected(Answer(WORDS))
    model = create_model(CHAT, store=True)
    name = model.generate("Hello").request_id
    assert model.look_up(name).text == WORDS
    assert model.look_up("chatcmpl_000009", "nobody") is None


def test_nothing_is_stored_or_looked_up_unless_the_user_asks(connected):
    double = connected()
    for spec in SPECS:
        model = create_model(spec)
        assert not hasattr(model, "look_up")
        assert "call_id" not in model.accepts
        model.generate("Hello")
        assert not {"store", "background", "metadata"} & double.requests[-1].body.keys()


# ---- deferred calls


def together(model, prompts):
    with ThreadPoolExecutor(len(prompts)) as pool:
        calls = [pool.submit(model.generate, one, call_id=f"call:{one}") for one in prompts]
        return {one: call.result() for one, call in zip(prompts, calls, strict=True)}


DEFERRED = pytest.mark.parametrize("spec", [CLAUDE, RESPONSES])


@DEFERRED
def test_deferred_calls_of_a_moment_go_out_as_one_batch_at_half_the_price(connected, spec):
    double = connected(lambda got: Answer(f"about {got.prompt}", look_ups=1, output_tokens=100))
    model, plain = create_model(spec, deferred=True), create_model(spec)
    found = together(model, ["a", "b", "c"])
    assert len({one.handle.partition("/")[0] for one in found.values()}) == 1
    assert len([one for one in double.others if one.path.endswith("/batches")]) == 1
    for prompt, pending in found.items():
        reply, _ = settled(model, pending)
        assert reply.text == f"about {prompt}"
        usual = plain.generate(prompt)
        assert usual.usage.output_tokens == reply.usage.output_tokens == 100
        assert reply.price_usd == pytest.approx(usual.price_usd / 2, rel=0.01)
    limit = {"max_tokens": 500}
    assert model.price_max_usd("x", limit) == pytest.approx(plain.price_max_usd("x", limit) / 2)
    assert [bill.batch for bill in double.ledger] == [True] * 3 + [False] * 3


@DEFERRED
def test_a_deferred_call_is_settled_by_another_process(connected, spec):
    connected(Answer(WORDS))
    handle = create_model(spec, deferred=True).generate("Hello", call_id="c", system_prompt="Be kind.").handle
    reply = create_model(spec, deferred=True).look_up(handle, "c")
    assert reply.text == WORDS


@DEFERRED
def test_a_batch_whose_making_was_not_answered_is_searched_by_the_calls_name(connected, spec):
    lose = lambda got: Cut(0) if got.path.endswith("/batches") and got.method == "POST" else Answer()  # noqa: E731
    double = connected(Answer(WORDS, look_ups=1), others=lose)
    model = create_model(spec, deferred=True)
    failure(lambda: model.generate("Hello", call_id="call:1"))
    found = model.look_up("", "call:1")
    assert isinstance(found, Pending)  # a batch is at work, and may hold it
    assert settled(model, found, "call:1")[0].text == WORDS
    assert model.look_up("", "call:2") is None
    assert double.billed == 1


@DEFERRED
def test_what_a_call_failed_with_inside_a_batch_is_raised_for_it_alone(connected, spec):
    connected(lambda got: Refuse(400, message="prompt is too long") if got.prompt == "bad" else Answer(WORDS))
    model = create_model(spec, deferred=True)
    found = together(model, ["bad", "good"])
    assert settled(model, found["good"])[0].text == WORDS
    _, fault = failure(lambda: settled(model, found["bad"]))
    assert fault.kind in {"context_length", "invalid_request"}


@DEFERRED
def test_a_batch_that_is_refused_fails_each_of_its_calls_and_bills_none(connected, spec):
    double = connected(others=Refuse(429))
    model = create_model(spec, deferred=True)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(model.generate, "Hello", call_id=name) for name in "ab"]
    assert [classify(call.exception()).kind for call in calls] == ["rate_limit", "rate_limit"]
    assert len(double.others) == 1
    assert double.billed == 0


def test_a_call_that_is_cancelled_before_its_batch_is_sent_is_not_sent(connected):
    double = connected(Answer(WORDS))
    model = create_model(CLAUDE, deferred=True)

    async def both() -> Pending:
        gone = asyncio.ensure_future(model.agenerate("gone", call_id="gone"))
        stays = asyncio.ensure_future(model.agenerate("stays", call_id="stays"))
        await asyncio.sleep(0.05)
        gone.cancel()
        return await stays

    assert settled(model, asyncio.run(both()))[0].text == WORDS
    assert [one.prompt for one in double.requests] == ["stays"]


def test_one_name_twice_in_a_moment_makes_two_batches(connected):
    double = connected()
    model = create_model(CLAUDE, deferred=True)
    with ThreadPoolExecutor(2) as pool:
        found = [call.result() for call in [pool.submit(model.generate, "x", call_id="one") for _ in "ab"]]
    assert len({one.handle for one in found}) == 2
    assert double.billed == 2


def test_a_deferred_call_takes_neither_a_time_limit_nor_headers_and_is_not_streamed(connected):
    connected()
    model = create_model(CLAUDE, deferred=True)
    assert not {"timeout_s", "timeout", "extra_headers", "hear", "continue_from"} & model.accepts
    assert isinstance(model.generate("Hello", timeout_s=3), Pending)


# ---- Google's interactions


def interaction(status, **more):
    return {"id": "int_1", "object": "interaction", "model": "gemini-2.5-pro", "status": status, **more}


def test_googles_interactions_are_looked_up_by_their_id(connected, monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    done = interaction(
        "completed",
        steps=[{"type": "model_output", "content": [{"type": "text", "text": WORDS}]}],
        usage={"total_input_tokens": 1000, "total_output_tokens": 90, "total_thought_tokens": 10},
    )
    found = [Raw(json.dumps(interaction("in_progress"))), Raw(json.dumps(done)), Refuse(404)]
    double = connected(Refuse(200, body=interaction("queued")), others=found)
    model = create_model("google:gemini-2.5-pro", base_url=double.url, background=True)
    pending = model.generate("Hello", system_prompt="Be kind.", max_tokens=50, top_k=3)
    assert pending == Pending("int_1", 2.0)
    body = double.requests[0].body
    assert (body["background"], body["store"], body["input"]) == (True, True, "Hello")
    assert body["system_instruction"] == "Be kind."
    assert body["generation_config"] == {"max_output_tokens": 50}
    reply, times = settled(model, pending)
    assert (reply.text, reply.usage, reply.finish_reason, times) == (WORDS, Usage(1000, 100), "stop", 2)
    assert reply.price_usd == pytest.approx((1000 * 1.25 + 100 * 10) / 1e6)
    assert model.look_up("int_1") is None


def test_an_interaction_that_failed_is_no_answer_and_each_attempt_is_one_request(connected, monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    double = connected(Refuse(503), others=Raw(json.dumps(interaction("failed"))))
    model = create_model("google:gemini-2.5-pro", base_url=double.url, background=True)
    _, fault = failure(lambda: model.generate("Hello"))
    assert fault.status == 503
    assert len(double.requests) == 1
    with pytest.raises(ModelError, match="failed"):
        model.look_up("int_1")


# ---- modes that are not there


@pytest.mark.parametrize(
    ("spec", "mode", "say"),
    [
        (CLAUDE, {"background": True}, "no background mode; OpenAI has one"),
        (CLAUDE, {"store": True}, "no store mode"),
        (CHAT, {"background": True}, "openai-responses:"),
        (CHAT, {"deferred": True}, "no deferred mode; Anthropic"),
        (RESPONSES, {"deferred": True, "background": True}, "leave background and store out"),
    ],
)
def test_a_mode_that_the_provider_has_not_is_an_error_that_says_who_has_it(monkeypatch, spec, mode, say):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(ModelSpecError, match=say):
        create_model(spec, **mode)


def test_each_model_names_its_provider(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert create_model(CLAUDE).provider == "anthropic"


# ---- several models


def test_the_next_model_answers_where_the_first_cannot(connected):
    double = connected(lambda got: Overload() if got.path.endswith("/messages") else Answer(WORDS))
    model = FallbackModel(CLAUDE, CHAT)
    reply = model.generate("Hello", temperature=0.1)
    assert (reply.text, reply.model) == (WORDS, CHAT)
    assert [got.path for got in double.requests] == ["/v1/messages", "/v1/chat/completions"]
    assert asyncio.run(model.agenerate("Hello")).text == WORDS


def test_what_no_switch_can_cure_is_raised_at_once(connected):
    double = connected(Refuse(400))
    with pytest.raises(Exception, match="400"):
        FallbackModel(CLAUDE, CHAT).generate("Hello")
    assert len(double.requests) == 1


def test_when_all_fail_the_last_ones_error_is_raised_with_the_others_behind_it(connected):
    connected(lambda got: Overload() if got.path.endswith("/messages") else Refuse(500))
    error, _ = failure(lambda: FallbackModel(CLAUDE, CHAT).generate("Hello"))
    assert error.status_code == 500


def test_the_models_are_opened_when_they_are_first_asked_for(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    model = FallbackModel(CLAUDE, CHAT, temperature=0.3)
    assert model.name == f"fallback({CLAUDE}, {CHAT})"
    with pytest.raises(MissingKeyError, match="ANTHROPIC_API_KEY"):
        _ = model.models
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert [one.name for one in model.models] == [CLAUDE, CHAT]
    assert model.models[0] is model.models[0]


def test_a_fallback_takes_callables_and_asks_its_dearest_price(connected):
    connected(Refuse(500))
    model = FallbackModel(CHAT, lambda prompt: f"said {prompt}")
    assert model.generate("Hello", temperature=1) == "said Hello"
    assert model.price_max_usd("x", {"max_tokens": 9}) is None  # who knows what a callable costs
    both = FallbackModel(CLAUDE, CHAT)
    limit = {"max_tokens": 1000}
    assert both.price_max_usd("x", limit) == max(one.price_max_usd("x", limit) for one in both.models)
    assert {"top_k", "seed"} <= both.accepts  # Claude takes the one, GPT the other


def test_a_fallback_travels_to_another_process_and_needs_a_model(connected):
    connected(Answer(WORDS))
    model = pickle.loads(pickle.dumps(FallbackModel(CLAUDE, CHAT, max_tokens=9)))
    assert isinstance(model.generate("Hello"), Reply)
    with pytest.raises(ModelSpecError, match="needs models"):
        FallbackModel()


# ---- the local model


@pytest.mark.model
@pytest.mark.slow
def test_the_local_model_is_heard_as_it_writes_and_goes_on_from_a_beginning():
    model = create_model("local:smollm2", temperature=0, max_tokens=24)
    heard: list[Heard] = []
    whole = model.generate("Write one sentence about lemurs.", hear=heard.append)
    assert heard[-1].text == whole.text
    assert len(heard) > 5
    assert {"hear", "continue_from"} <= model.accepts
    part = heard[len(heard) // 2].text
    again: list[Heard] = []
    rest = model.generate("Write one sentence about lemurs.", continue_from=part, hear=again.append)
    assert rest.text
    assert not rest.text.startswith(part)
    assert again[-1].text == part + rest.text
    assert whole.text.startswith(part + rest.text[:10])  # at temperature 0 it takes up the thread


def test_streams_of_many_threads_do_not_mix(connected):
    connected(lambda got: Answer(f"{got.prompt} and {got.prompt}"))
    model = create_model(CHAT)
    heard: dict[int, list[str]] = {n: [] for n in range(12)}
    calls = [
        threading.Thread(
            target=model.generate, args=(str(n),), kwargs={"hear": lambda one, n=n: heard[n].append(one.text)}
        )
        for n in heard
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert {n: texts[-1] for n, texts in heard.items()} == {n: f"{n} and {n}" for n in heard}
