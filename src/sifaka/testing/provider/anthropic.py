"""Anthropic's Messages, whole and streamed (floor 8)."""

from __future__ import annotations

from typing import Any

from sifaka.testing.provider.formats import Event, Format, Said, pieces, register

__all__ = ["MESSAGES"]

_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


class _Messages(Format):
    id_prefix = "msg"

    def answer(self, said: Said) -> dict[str, Any]:
        return {
            **self._empty(said),
            "content": [{"type": "text", "text": said.text}],
            "stop_reason": _REASONS.get(said.finish_reason, said.finish_reason),
            "usage": {"input_tokens": said.input_tokens, "output_tokens": said.output_tokens},
        }

    def events(self, said: Said) -> list[Event]:
        opened = {**self._empty(said), "usage": {"input_tokens": said.input_tokens, "output_tokens": 1}}
        block: dict[str, Any] = {"type": "text", "text": ""}
        reason = _REASONS.get(said.finish_reason, said.finish_reason)
        return [
            _event("message_start", message=opened),
            _event("content_block_start", index=0, content_block=block),
            _event("ping"),
            *(
                _event("content_block_delta", tokens, index=0, delta={"type": "text_delta", "text": text})
                for text, tokens in pieces(said)
            ),
            _event("content_block_stop", index=0),
            _event(
                "message_delta",
                delta={"stop_reason": reason, "stop_sequence": None},
                usage={"output_tokens": said.output_tokens},
            ),
            _event("message_stop"),
        ]

    def failed(self, message: str) -> Event:
        return _event("error", error={"type": "overloaded_error", "message": message})

    def refusal(self, status: int, message: str) -> dict[str, Any]:
        return {"type": "error", **super().refusal(status, message)}

    def limits(self, most: int, left: int, wait_s: float, full: str) -> dict[str, str]:
        told = {"limit": str(most), "remaining": str(left), "reset": full}
        headers = {f"anthropic-ratelimit-requests-{name}": value for name, value in told.items()}
        return {**headers, **({"retry-after": str(_whole(wait_s))} if left < 1 else {})}

    def _empty(self, said: Said) -> dict[str, Any]:
        return {
            "id": self.id(said.number),
            "type": "message",
            "role": "assistant",
            "model": said.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }


def _event(kind: str, tokens: int = 0, **more: Any) -> Event:
    return Event({"type": kind, **more}, kind, tokens)


def _whole(seconds: float) -> int:
    return max(1, -int(-seconds // 1))


MESSAGES = _Messages()
register("/messages", MESSAGES)
