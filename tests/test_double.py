"""The provider double: what it does on the wire, what it bills, and what it keeps."""

from __future__ import annotations

import http.client
import json
import socket
from datetime import datetime

import pytest

import doubles
from sifaka.errors import ModelError
from sifaka.faults import classify
from sifaka.models import create_model
from sifaka.testing import FakeClock
from sifaka.testing.provider import (
    Answer,
    Cut,
    Hang,
    Overload,
    ProviderDouble,
    Raw,
    Refuse,
    Throttle,
)

CLAUDE = "anthropic:claude-sonnet-4-6"
GPT = "openai:gpt-4o"
ASKED = {
    "/v1/messages": {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
    "/v1/responses": {"model": "m", "input": "Hello"},
}


connected = doubles.connected


def ask(double, path, body=None, method="POST"):
    """One request: its status, headers and body, the latter from JSON where it is JSON."""
    client = http.client.HTTPConnection(double.url.removeprefix("http://"), timeout=60)
    client.request(method, path, None if body is None else json.dumps(body))
    response = client.getresponse()
    text = response.read().decode()
    client.close()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return (
        response.status,
        headers,
        json.loads(text)
        if response.getheader("content-type") == "application/json" and "\n" not in text
        else text,
    )


def received(double, path, body, headers=()):
    """All bytes of a reply, until the double ends the connection."""
    request = json.dumps(body).encode()
    fields = {"host": "x", "connection": "close", "content-length": len(request), **dict(headers)}
    head = "".join([f"POST {path} HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in fields.items()), "\r\n"])
    with socket.create_connection(("127.0.0.1", int(double.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(head.encode() + request)
        data = b""
        while more := client.recv(65536):
            data += more
    return data


# ---- the ledger


def test_a_bill_is_in_the_ledgers_file_before_the_client_can_see_a_byte(connected, tmp_path):
    path = tmp_path / "ledger.jsonl"
    double = connected([Cut(after_bytes=0, answer=Answer("x", input_tokens=3)), Refuse(500)], ledger=path)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            create_model(CLAUDE).generate("Hello")
    lines = path.read_text().splitlines()
    assert [json.loads(line)["input_tokens"] for line in lines] == [3]
    assert double.billed == 1


def test_two_doubles_can_keep_one_ledger(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with ProviderDouble(ledger=path) as one, ProviderDouble(ledger=path) as other:
        for double in (one, other, one):
            create_model("ollama:x", base_url=f"{double.url}/v1").generate("Hello")
        assert one.ledger == other.ledger
        assert [bill.number for bill in one.ledger] == [1, 1, 2]


@pytest.mark.parametrize("path", ASKED)
def test_a_cut_stream_is_billed_by_the_pieces_that_were_begun(path):
    words = ["one ", "two ", "three ", "four"]
    answer = Answer("".join(words), output_tokens=40)
    cut = lambda got: Cut(int(got.headers["x-cut"]), answer)  # noqa: E731
    with ProviderDouble(cut) as double:
        billed = []
        for byte in range(0, 6000, 60):
            data = received(double, path, {**ASKED[path], "stream": True}, {"x-cut": str(byte)})
            billed.append(double.ledger[-1].output_tokens)
            seen = sum(f'"{word}"'.encode() in data for word in words)
            assert seen * 10 - 2 <= billed[-1] <= (seen + 1) * 10 + 4
        assert billed == sorted(billed)
        assert len(set(billed)) == 5
        assert (billed[0], billed[-1]) == (0, 40)


def test_a_hang_can_be_billed(connected):
    double = connected(Hang(billed=True))
    with pytest.raises(ModelError):
        create_model(CLAUDE).generate("Hello", timeout_s=1.5)
    double.close()
    assert double.billed == 1


@pytest.mark.parametrize("behaviour", [Refuse(429), Overload(), Hang(), Raw("", billed=False)])
def test_what_gives_no_answer_is_not_billed(connected, behaviour):
    double = connected(behaviour)
    with pytest.raises(Exception, match=r"."):
        create_model(CLAUDE).generate("Hello", timeout_s=1.5)
    assert double.billed == 0
    assert len(double.requests) == 1


# ---- the script


def test_a_script_plays_its_turns_and_stays_at_the_last(connected):
    double = connected([Refuse(500), Answer("a"), Answer("b")])
    model = create_model(GPT)
    with pytest.raises(RuntimeError):
        model.generate("1")
    assert [model.generate(n).text for n in "234"] == ["a", "b", "b"]
    assert [r.prompt for r in double.requests] == list("1234")
    assert [r.number for r in double.requests] == [1, 2, 3, 4]


@pytest.mark.parametrize("path", ASKED)
def test_an_overload_has_the_providers_own_words(path):
    with ProviderDouble(Overload()) as double:
        status, _, body = ask(double, path, ASKED[path])
        assert status == 529
        assert classify("busy", status=status, body=body).kind == "overloaded"
    with ProviderDouble(Overload(after_pieces=1)) as double:
        status, _, text = ask(double, path, {**ASKED[path], "stream": True})
        assert status == 200
        assert "Lemurs" in text
        assert "leap" not in text.replace("Lemurs leap", "")
        assert "overloaded" in text.rpartition("data: ")[2]


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_counts_the_bytes_of_the_whole_reply(path, stream):
    body = {**ASKED[path], "stream": stream}
    for byte in (1, 17, 200, 300):
        with ProviderDouble(Cut(byte)) as double:
            data = received(double, path, body)
            assert len(data) == byte
            assert data.startswith(b"HTTP/1.1 200 OK"[:byte])


@pytest.mark.parametrize("path", ASKED)
def test_a_clean_cut_ends_like_a_complete_stream(path):
    with ProviderDouble(Cut(700, clean=True)) as double:
        data = received(double, path, {**ASKED[path], "stream": True})
    assert data.endswith(b"\r\n0\r\n\r\n")
    assert not {b"[DONE]", b"message_stop", b"response.completed"} & set(data.split())


def test_head_and_body_arrive_in_one_piece():
    with ProviderDouble(Answer("whole")) as double:
        request = json.dumps(ASKED["/v1/messages"]).encode()
        head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: {len(request)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", int(double.url.rpartition(":")[2]))) as client:
            client.sendall(head.encode() + request)
            first = client.recv(65536)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(first.partition(b"\r\n\r\n")[2])["content"][0]["text"] == "whole"


@pytest.mark.parametrize(
    ("path", "method"),
    [("/v1/other", "POST"), ("/v1/models", "GET"), ("/v1/responses/resp_9", "GET"), ("/v1/files/x", "GET")],
)
def test_what_the_double_cannot_do_it_refuses(path, method):
    with ProviderDouble() as double:
        status, _, _ = ask(double, path, {} if method == "POST" else None, method)
        assert status == 404
        assert double.billed == 0


# ---- the token bucket


@pytest.mark.parametrize("path", ASKED)
def test_the_bucket_refuses_until_the_stated_wait_is_over(path):
    clock = FakeClock()
    bucket = Throttle(Answer("fine"), per_second=0.1, burst=2, clock=clock)
    with ProviderDouble(bucket) as double:
        statuses = [ask(double, path, ASKED[path])[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        _, headers, body = ask(double, path, ASKED[path])
        fault = classify("busy", status=429, headers=headers, body=body, now=clock.time())
        assert (fault.kind, fault.transient) == ("rate_limit", True)
        assert fault.retry_after_s == pytest.approx(10, abs=0.5)
        clock.sleep(fault.retry_after_s - 2)
        assert ask(double, path, ASKED[path])[0] == 429  # too early, and of no harm
        clock.sleep(2.5)
        assert ask(double, path, ASKED[path])[0] == 200
        assert double.billed == 3
        assert bucket.refused == 3


def test_a_throttled_answer_tells_what_is_left_in_the_providers_headers():
    clock = FakeClock()
    with ProviderDouble(Throttle(per_second=1, burst=3, clock=clock)) as double:
        _, headers, _ = ask(double, "/v1/messages", ASKED["/v1/messages"])
        assert headers["anthropic-ratelimit-requests-limit"] == "3"
        assert headers["anthropic-ratelimit-requests-remaining"] == "2"
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"]).timestamp()
        assert reset - clock.time() == pytest.approx(1)
        assert "retry-after" not in headers
        _, headers, _ = ask(double, "/v1/responses", ASKED["/v1/responses"])
        assert headers["x-ratelimit-remaining-requests"] == "1"


# ---- what is kept


def test_a_background_response_is_at_work_until_it_was_looked_up_often_enough():
    with ProviderDouble(Answer("done", look_ups=2)) as double:
        body = {**ASKED["/v1/responses"], "background": True}
        _, _, made = ask(double, "/v1/responses", body)
        looked = [ask(double, f"/v1/responses/{made['id']}", method="GET")[2] for _ in range(3)]
        assert [made["status"], *(one["status"] for one in looked)] == [
            "queued",
            "in_progress",
            "in_progress",
            "completed",
        ]
        assert looked[-1]["output"][0]["content"][0]["text"] == "done"
        assert (len(double.requests), len(double.others), double.billed) == (1, 3, 1)


def test_a_stored_response_can_be_streamed_from_where_it_was_cut():
    with ProviderDouble(Answer("one two three")) as double:
        _, _, made = ask(double, "/v1/responses", ASKED["/v1/responses"])
        path = f"/v1/responses/{made['id']}?stream=true&starting_after=4"
        _, _, text = ask(double, path, method="GET")
    numbers = [json.loads(line[6:])["sequence_number"] for line in text.splitlines() if line[:5] == "data:"]
    assert numbers[0] == 5
    assert "response.completed" in text


def test_completions_are_listed_by_metadata_if_they_were_to_be_stored():
    with ProviderDouble() as double:
        for store, name in ((True, "a"), (True, "b"), (False, "a")):
            body = {**ASKED["/v1/chat/completions"], "store": store, "metadata": {"who": name}}
            ask(double, "/v1/chat/completions", body)
        _, _, page = ask(double, "/v1/chat/completions?metadata[who]=a", method="GET")
        assert [one["id"] for one in page["data"]] == ["chatcmpl_000001"]


def test_a_message_batch_is_worked_off_by_the_script_and_billed_as_a_batch():
    refuse = lambda got: Refuse(400) if got.custom_id == "bad" else Answer(got.prompt, look_ups=1)  # noqa: E731
    calls = [{"custom_id": name, "params": ASKED["/v1/messages"]} for name in ("good", "bad")]
    with ProviderDouble(refuse) as double:
        _, _, made = ask(double, "/v1/messages/batches", {"requests": calls})
        assert made["processing_status"] == "in_progress"
        place = f"/v1/messages/batches/{made['id']}"
        assert ask(double, f"{place}/results", method="GET")[0] == 404
        assert ask(double, place, method="GET")[2]["processing_status"] == "in_progress"
        ended = ask(double, place, method="GET")[2]
        assert ended["processing_status"] == "ended"
        assert (ended["request_counts"]["succeeded"], ended["request_counts"]["errored"]) == (1, 1)
        _, _, results = ask(double, f"{place}/results", method="GET")
        rows = [json.loads(line) for line in results.splitlines()]
        assert [(row["custom_id"], row["result"]["type"]) for row in rows] == [
            ("good", "succeeded"),
            ("bad", "errored"),
        ]
        bill = double.ledger[0]
        assert (double.billed, bill.call_id, bill.batch) == (1, "good", True)
        assert len(double.requests) == 2


def test_a_batch_that_is_cancelled_at_work_has_no_answers():
    with ProviderDouble(Answer(look_ups=5)) as double:
        call = {"custom_id": "one", "params": ASKED["/v1/messages"]}
        _, _, made = ask(double, "/v1/messages/batches", {"requests": [call]})
        place = f"/v1/messages/batches/{made['id']}"
        assert ask(double, f"{place}/cancel", {})[2]["processing_status"] == "ended"
        _, _, results = ask(double, f"{place}/results", method="GET")
        assert json.loads(results)["result"]["type"] == "canceled"


@pytest.mark.parametrize(
    ("others", "status"),
    [
        (Refuse(503), 503),
        (Overload(), 529),
        (Raw("{bad", headers={"content-type": "text/plain"}), 200),
        (Answer(), 404),
    ],
)
def test_look_ups_have_a_script_of_their_own(others, status):
    with ProviderDouble(Refuse(500), others=others) as double:
        assert ask(double, "/v1/responses/resp_1", method="GET")[0] == status
        assert [one.path for one in double.others] == ["/v1/responses/resp_1"]
        assert double.requests == []


def test_a_batch_whose_making_was_cut_is_there_all_the_same():
    with ProviderDouble(others=[Cut(9), Answer()]) as double:
        call = {"custom_id": "one", "params": ASKED["/v1/messages"]}
        assert len(received(double, "/v1/messages/batches", {"requests": [call]})) == 9
        _, _, page = ask(double, "/v1/messages/batches", method="GET")
        assert [one["id"] for one in page["data"]] == ["msgbatch_000001"]
        assert double.billed == 1
