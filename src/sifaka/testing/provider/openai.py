"""OpenAI's Chat Completions and Responses, whole and streamed (floor 8)."""

from __future__ import annotations

from typing import Any

from sifaka.testing.provider.formats import Event, Format, Said, pieces, register, text_of

__all__ = ["CHAT", "RESPONSES"]


class _OpenAI(Format):
    request_id_header = "x-request-id"

    def limits(self, most: int, left: int, wait_s: float, full: str) -> dict[str, str]:
        del full
        told = {
            "x-ratelimit-limit-requests": str(most),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{wait_s:.3f}s",
        }
        return {**told, **({"retry-after-ms": str(-int(-wait_s * 1000 // 1))} if left < 1 else {})}


class _Chat(_OpenAI):
    id_prefix = "chatcmpl"

    def answer(self, said: Said) -> dict[str, Any]:
        message = {"role": "assistant", "content": said.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": said.finish_reason, "logprobs": None}
        return {
            "id": self.id(said.number),
            "object": "chat.completion",
            "created": said.created,
            "model": said.model,
            "choices": [choice],
            "usage": _chat_usage(said),
            "metadata": said.request.get("metadata") or {},
        }

    def events(self, said: Said) -> list[Event]:
        asked: dict[str, Any] = said.request.get("stream_options") or {}
        usage = [self._chunk(said, [], usage=_chat_usage(said))] if asked.get("include_usage") else []
        return [
            self._chunk(said, [_choice({"role": "assistant", "content": "", "refusal": None})]),
            *(self._chunk(said, [_choice({"content": text})], tokens) for text, tokens in pieces(said)),
            self._chunk(said, [_choice({}, said.finish_reason)]),
            *usage,
            Event("[DONE]"),
        ]

    def failed(self, message: str) -> Event:
        return Event({"error": {"message": message, "type": "server_error", "code": "overloaded_error"}})

    def _chunk(
        self, said: Said, choices: list[dict[str, Any]], tokens: int = 0, usage: dict[str, int] | None = None
    ) -> Event:
        data = {
            "id": self.id(said.number),
            "object": "chat.completion.chunk",
            "created": said.created,
            "model": said.model,
            "choices": choices,
            "usage": usage,
        }
        return Event(data, tokens=tokens)


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _chat_usage(said: Said) -> dict[str, int]:
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
    }


class _Responses(_OpenAI):
    id_prefix = "resp"

    def answer(self, said: Said) -> dict[str, Any]:
        reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
        reason = reasons.get(said.finish_reason)
        status = "incomplete" if reason else "completed"
        return {
            **self.at_work(said, status),
            "incomplete_details": {"reason": reason} if reason else None,
            "output": [_message(said, status)],
            "usage": _usage(said),
        }

    def at_work(self, said: Said, status: str = "in_progress") -> dict[str, Any]:
        """A response that is not done: ``status`` is ``in_progress``, ``queued`` or ``cancelled``."""
        return {
            "id": self.id(said.number),
            "object": "response",
            "created_at": said.created,
            "status": status,
            "background": bool(said.request.get("background")),
            "error": None,
            "incomplete_details": None,
            "metadata": said.request.get("metadata") or {},
            "model": said.model,
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
        }

    def events(self, said: Said) -> list[Event]:
        done = self.answer(said)
        item = done["output"][0]
        part = item["content"][0]
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        bare: list[Event] = [
            _event("response.created", response=self.at_work(said)),
            _event("response.in_progress", response=self.at_work(said)),
            _event(
                "response.output_item.added",
                output_index=0,
                item={**item, "status": "in_progress", "content": []},
            ),
            _event("response.content_part.added", **place, part={**part, "text": ""}),
            *(
                _event("response.output_text.delta", tokens, **place, delta=text, logprobs=[])
                for text, tokens in pieces(said)
            ),
            _event("response.output_text.done", **place, text=said.text, logprobs=[]),
            _event("response.content_part.done", **place, part=part),
            _event("response.output_item.done", output_index=0, item=item),
            _event(f"response.{done['status']}", response=done),
        ]
        return [event._replace(data={**event.data, "sequence_number": n}) for n, event in enumerate(bare)]

    def failed(self, message: str) -> Event:
        return _event("error", code="server_is_overloaded", message=message, param=None, sequence_number=99)

    def prompt(self, body: dict[str, Any]) -> str:
        given: Any = body.get("input")
        return text_of(given if isinstance(given, str) or not given else given[-1].get("content"))


def _event(kind: str, tokens: int = 0, **more: Any) -> Event:
    return Event({"type": kind, **more}, kind, tokens)


def _message(said: Said, status: str) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "output_text", "text": said.text, "annotations": []}
    return {
        "type": "message",
        "id": f"msg_{said.number:06d}",
        "role": "assistant",
        "status": status,
        "content": [content],
    }


def _usage(said: Said) -> dict[str, Any]:
    return {
        "input_tokens": said.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": said.input_tokens + said.output_tokens,
    }


CHAT = _Chat()
RESPONSES = _Responses()
register("/chat/completions", CHAT)
register("/responses", RESPONSES)
