"""What the double does with a request: bills, keeps, and makes the bytes of the reply (floor 8).

Nothing here writes to a socket. The order is always the same: the script decides, the bill is in the ledger,
what is to be kept is kept, and only then are there bytes to send.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from sifaka.testing.provider.batches import MessageBatches, ResponseBatches, Result
from sifaka.testing.provider.formats import UNKNOWN, Format, Said, format_of
from sifaka.testing.provider.kept import Asked, Completions, Responses, Streamed
from sifaka.testing.provider.ledger import Ledger
from sifaka.testing.provider.openai import CHAT, RESPONSES
from sifaka.testing.provider.script import (
    Answer,
    Behaviour,
    Bill,
    Cut,
    Hang,
    Overload,
    Raw,
    Received,
    Refuse,
)
from sifaka.testing.provider.wire import Sending, Stream, body_of, whole

__all__ = ["Desk", "Inside"]

_EMPTY = Answer(text="")


Inside = Callable[[Received, str, dict[str, Any], str], tuple[Received, Behaviour]]
"""Gives a call inside a batch its number and its behaviour: the batch's request, path, body and custom id."""


class Desk:
    """Answers model calls, and everything else a provider's interface has."""

    def __init__(self, ledger: Ledger, inside: Inside) -> None:
        self._ledger = ledger
        self._inside = inside
        self._responses = Responses()
        self._completions = Completions()
        batches = MessageBatches(self._batched), ResponseBatches(self._batched)
        self._rooms = (self._responses, self._completions, *batches)

    # ---- model calls

    def call(self, received: Received, behaviour: Behaviour) -> Sending:
        """The reply to a model call."""
        form = format_of(received.path)
        match behaviour:
            case Refuse():
                return Sending(_refusal(form, behaviour))
            case Overload():
                return self._overloaded(form, received, behaviour)
            case Raw():
                if behaviour.billed:
                    self._bill(form, _said(received, _EMPTY), received)
                return Sending(whole(behaviour.status, behaviour.headers, body_of(behaviour.body)))
            case Hang():
                return self._silent(form, received, behaviour)
            case Cut():
                return self._cut(form, received, behaviour)
            case Answer():
                said = _said(received, behaviour)
                if not _streamed(received):
                    return Sending(self._whole(form, received, behaviour, said))
                stream = _stream(form, said, behaviour)
                self._bill(form, said, received)
                self._keep(form, said, behaviour)
                return Sending(stream.data)

    def _overloaded(self, form: Format, received: Received, overload: Overload) -> Sending:
        if overload.after_pieces is None or not _streamed(received):
            return Sending(_refusal(form, Refuse(overload.status, message=overload.message)))
        said = _said(received, overload.answer)
        stream = _stream(form, said, overload.answer)
        self._bill(form, said, received, stream.tokens_until_piece(overload.after_pieces))
        end = Stream({}, [form.failed(overload.message)])
        return Sending(stream.until_piece(overload.after_pieces) + end.chunks[0] + end.end)

    def _silent(self, form: Format, received: Received, hang: Hang) -> Sending:
        said = _said(received, hang.answer if hang.after_pieces is not None else _EMPTY)
        if hang.after_pieces is not None and _streamed(received):
            stream = _stream(form, said, hang.answer)
            self._bill(form, said, received, stream.tokens_until_piece(hang.after_pieces))
            self._keep(form, said, hang.answer)
            return Sending(stream.until_piece(hang.after_pieces), "wait")
        if hang.billed:
            said = _said(received, hang.answer if _kept(form, received) else _EMPTY)
            self._bill(form, said, received)
            self._keep(form, said, hang.answer)
        return Sending(b"", "wait")

    def _cut(self, form: Format, received: Received, cut: Cut) -> Sending:
        then = "keep" if cut.clean and _streamed(received) else "break"
        said = _said(received, cut.answer)
        if not _streamed(received):
            return Sending(self._whole(form, received, cut.answer, said)[: cut.after_bytes], then)
        stream = _stream(form, said, cut.answer)
        goes_on = bool(received.body.get("background"))
        tokens = said.output_tokens if goes_on else stream.tokens_before(cut.after_bytes)
        self._bill(form, said, received, tokens)
        if goes_on:
            self._keep(form, said, cut.answer)
        data = stream.data[: cut.after_bytes]
        return Sending(_ended(stream, cut.after_bytes) if cut.clean else data, then)

    def _whole(self, form: Format, received: Received, answer: Answer, said: Said) -> bytes:
        """The reply; it is billed and kept before anybody can read it."""
        self._bill(form, said, received)
        self._keep(form, said, answer)
        body = form.answer(said)
        if form is RESPONSES and received.body.get("background"):
            body = RESPONSES.at_work(said, "queued")
        return whole(200, {**_request_id(form, said), **answer.headers}, msgspec.json.encode(body))

    def _keep(self, form: Format, said: Said, answer: Answer) -> None:
        if form is RESPONSES and (said.request.get("background") or said.request.get("store", True)):
            self._responses.keep(said, answer.look_ups)
        if form is CHAT and said.request.get("store"):
            self._completions.keep(CHAT.answer(said))

    def _bill(
        self,
        form: Format,
        said: Said,
        received: Received,
        output_tokens: int | None = None,
        batch: bool = False,
    ) -> None:
        self._ledger.add(
            Bill(
                number=said.number,
                id=form.id(said.number),
                path=received.path,
                model=said.model,
                input_tokens=said.input_tokens,
                output_tokens=said.output_tokens if output_tokens is None else output_tokens,
                time=time.time(),
                call_id=received.call_id,
                batch=batch,
            )
        )

    # ---- everything else

    def other(self, received: Received, behaviour: Behaviour, raw: bytes, url: str) -> Sending:
        """The reply to a look-up, or to what has to do with files and batches."""
        form = format_of(received.path)
        match behaviour:
            case Refuse():
                return Sending(_refusal(form, behaviour))
            case Overload():
                return Sending(_refusal(form, Refuse(behaviour.status, message=behaviour.message)))
            case Raw():
                return Sending(whole(behaviour.status, behaviour.headers, body_of(behaviour.body)))
            case Hang():
                if behaviour.billed:  # it was done, but nobody hears of it
                    self._found(form, received, raw, url)
                return Sending(b"", "wait")
            case Cut():
                return Sending(self._found(form, received, raw, url)[: behaviour.after_bytes], "break")
            case Answer():
                return Sending(self._found(form, received, raw, url))

    def _found(self, form: Format, received: Received, raw: bytes, url: str) -> bytes:
        asked = Asked(received, raw, url)
        found = next((one for room in self._rooms if (one := room.ask(asked)) is not None), None)
        if found is None:
            return _refusal(form, Refuse(404, message=f"the double has no {received.method} {received.path}"))
        status, body = found
        headers = {form.request_id_header: f"req_other_{received.number:06d}"}
        if isinstance(body, Streamed):
            return Stream(headers, body.events).data
        return whole(status, headers, body_of(body))

    def _batched(self, outer: Received, path: str, body: dict[str, Any], custom_id: str) -> Result:
        """One call inside a batch, worked off and billed."""
        received, behaviour = self._inside(outer, path, body, custom_id)
        form = format_of(path)
        if isinstance(behaviour, Refuse | Overload | Raw):
            status = behaviour.status
            text = "bad output" if isinstance(behaviour, Raw) else behaviour.message
            return Result(custom_id, 500 if status == 200 else status, form.refusal(status, text))
        answer = behaviour if isinstance(behaviour, Answer) else behaviour.answer
        said = _said(received, answer)
        self._bill(form, said, received, batch=True)
        return Result(custom_id, 200, form.answer(said), answer.look_ups)


def _said(received: Received, answer: Answer) -> Said:
    return Said(
        number=received.number,
        model=answer.model or received.model,
        text=answer.text,
        finish_reason=answer.finish_reason,
        input_tokens=_tokens(answer.input_tokens, msgspec.json.encode(received.body)),
        output_tokens=_tokens(answer.output_tokens, answer.text.encode()),
        request=received.body,
        created=int(time.time()),
    )


def _stream(form: Format, said: Said, answer: Answer) -> Stream:
    return Stream({**_request_id(form, said), **answer.headers}, form.events(said))


def _streamed(received: Received) -> bool:
    return bool(received.body.get("stream")) and format_of(received.path) is not UNKNOWN


def _kept(form: Format, received: Received) -> bool:
    return form is RESPONSES and bool(received.body.get("background"))


def _ended(stream: Stream, byte: int) -> bytes:
    """The whole chunks before a byte, and an end as if they were all."""
    data = stream.head
    for chunk in stream.chunks:
        if len(data) + len(chunk) > byte:
            break
        data += chunk
    return data + stream.end


def _request_id(form: Format, said: Said) -> dict[str, str]:
    return {form.request_id_header: f"req_{said.number:06d}"}


def _refusal(form: Format, refuse: Refuse) -> bytes:
    body: Any = form.refusal(refuse.status, refuse.message) if refuse.body is None else refuse.body
    return whole(refuse.status, refuse.headers, body_of(body))


def _tokens(given: int | None, data: bytes) -> int:
    return -(-len(data) // 4) if given is None else given
