"""The providers' wire formats, as the provider double writes them (floor 8).

A format turns an answer or a refusal into a body. Where a request goes decides its format.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

__all__ = ["UNKNOWN", "Format", "Said", "format_of"]


class Said(NamedTuple):
    """What an answer's body is made of."""

    number: int
    model: str
    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int


class Format:
    """One provider's way to answer and to refuse."""

    id_prefix = "call"
    request_id_header = "request-id"

    def id(self, number: int) -> str:
        """The response's id."""
        return f"{self.id_prefix}_{number:06d}"

    def answer(self, said: Said) -> dict[str, Any]:
        """The body of an answer."""
        raise NotImplementedError

    def refusal(self, status: int, message: str) -> dict[str, Any]:
        """The body of an error."""
        kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def prompt(self, body: dict[str, Any]) -> str:
        """The last message of a request, as one text."""
        messages: list[dict[str, Any]] = body.get("messages") or [{}]
        return _text(messages[-1].get("content"))


class _AnthropicMessages(Format):
    id_prefix = "msg"

    def answer(self, said: Said) -> dict[str, Any]:
        reasons = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
        return {
            "id": self.id(said.number),
            "type": "message",
            "role": "assistant",
            "model": said.model,
            "content": [{"type": "text", "text": said.text}],
            "stop_reason": reasons.get(said.finish_reason, said.finish_reason),
            "stop_sequence": None,
            "usage": {"input_tokens": said.input_tokens, "output_tokens": said.output_tokens},
        }

    def refusal(self, status: int, message: str) -> dict[str, Any]:
        return {"type": "error", **super().refusal(status, message)}


class _OpenAIChat(Format):
    id_prefix = "chatcmpl"
    request_id_header = "x-request-id"

    def answer(self, said: Said) -> dict[str, Any]:
        message = {"role": "assistant", "content": said.text, "refusal": None}
        return {
            "id": self.id(said.number),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": said.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": said.finish_reason,
                    "logprobs": None,
                }
            ],
            "usage": {
                "prompt_tokens": said.input_tokens,
                "completion_tokens": said.output_tokens,
                "total_tokens": said.input_tokens + said.output_tokens,
            },
        }


class _OpenAIResponses(Format):
    id_prefix = "resp"
    request_id_header = "x-request-id"

    def answer(self, said: Said) -> dict[str, Any]:
        reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
        reason = reasons.get(said.finish_reason)
        status = "incomplete" if reason else "completed"
        content: dict[str, Any] = {
            "type": "output_text",
            "text": said.text,
            "annotations": [],
        }
        message: dict[str, Any] = {
            "type": "message",
            "id": f"msg_{said.number:06d}",
            "role": "assistant",
            "status": status,
            "content": [content],
        }
        return {
            "id": self.id(said.number),
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": said.model,
            "output": [message],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": said.input_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": said.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": said.input_tokens + said.output_tokens,
            },
        }

    def prompt(self, body: dict[str, Any]) -> str:
        given: Any = body.get("input")
        return _text(given if isinstance(given, str) or not given else given[-1].get("content"))


def _text(content: Any) -> str:
    """A message's content, which is a text or a list of parts with a text in each."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


_ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}

_BY_END = {
    "/messages": _AnthropicMessages(),
    "/chat/completions": _OpenAIChat(),
    "/responses": _OpenAIResponses(),
}

UNKNOWN = Format()
"""For any other path: it can refuse, but has no answer."""


def format_of(path: str) -> Format:
    """The format of what is posted to ``path``, whatever comes before its end."""
    return next((form for end, form in _BY_END.items() if path.endswith(end)), UNKNOWN)
