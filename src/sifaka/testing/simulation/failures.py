"""What real clients raise: a status, headers, a body and a sentence, for each kind of fault (floor 8).

They carry no kind: the real classifier has to find it, as it does with a provider's own errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import ceil

from sifaka.parts import Reply

__all__ = ["KINDS_RAISED", "ProviderStatusError", "failure", "reply_that_fails"]


class ProviderStatusError(Exception):
    """An answer that is none, as the providers' clients raise it."""

    def __init__(
        self, message: str, status_code: int, code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.headers = dict(headers or {})
        self.body = {"error": {"type": code, "message": message}} if code else None


def _rate_limit(wait_s: float) -> Exception:
    after = {"retry-after": f"{ceil(wait_s)}"}
    return ProviderStatusError(
        f"Rate limit reached. Try again in {ceil(wait_s)}s.", 429, "rate_limit_error", after
    )


def _overloaded(_: float) -> Exception:
    return ProviderStatusError("The service is overloaded at the moment.", 529, "overloaded_error")


def _server_error(_: float) -> Exception:
    return ProviderStatusError("Internal server error.", 500, "api_error")


def _connection(_: float) -> Exception:
    return ConnectionResetError(104, "Connection reset by peer")


def _timeout(_: float) -> Exception:
    return TimeoutError("The request timed out while the answer was awaited.")


def _context_length(over: float) -> Exception:
    asked = round(8192 * max(over, 1.05))
    said = (
        f"This model's maximum context length is 8192 tokens. However, your messages came to {asked} tokens."
    )
    return ProviderStatusError(said, 400, "context_length_exceeded")


def _content_filter(_: float) -> Exception:
    said = "The answer was withheld by the content management policy."
    return ProviderStatusError(said, 400, "content_filter")


def _auth(_: float) -> Exception:
    return ProviderStatusError("The API key was not accepted.", 401, "authentication_error")


def _out_of_memory(_: float) -> Exception:
    return RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _malformed(_: float) -> Exception:
    text = 'Here is the verdict: {"needs_improvement": yes}'
    try:
        json.loads(text)
    except ValueError as error:
        return error
    raise AssertionError(text)


def _empty(_: float) -> Exception:
    try:
        json.loads("")
    except ValueError as error:
        return error
    raise AssertionError


def _truncated(_: float) -> Exception:
    text = '{"needs_improvement": true, "message": "the second para'
    try:
        json.loads(text)
    except ValueError as error:
        return error
    raise AssertionError(text)


def _validation(_: float) -> Exception:
    from sifaka.errors import ModelError

    return ModelError("the text could not be judged: a heading is missing", kind="validation_failed")


def _other(_: float) -> Exception:
    return KeyError("score")


_RAISED: dict[str, Callable[[float], Exception]] = {
    "rate_limit": _rate_limit,
    "overloaded": _overloaded,
    "server_error": _server_error,
    "connection": _connection,
    "timeout": _timeout,
    "context_length": _context_length,
    "content_filter": _content_filter,
    "auth": _auth,
    "out_of_memory": _out_of_memory,
    "malformed_output": _malformed,
    "empty_output": _empty,
    "truncated": _truncated,
    "validation_failed": _validation,
    "other": _other,
}
KINDS_RAISED = tuple(_RAISED)
"""The kinds there are exceptions for."""


def failure(kind: str, size: float = 1.0) -> Exception:
    """An exception of that kind. ``size``: seconds that a rate limit states; how often too long a text is."""
    return _RAISED[kind](size)


def reply_that_fails(kind: str, reply: Reply) -> Reply | None:
    """The reply by which a model's own text shows such a fault; None where it is an exception instead."""
    import msgspec

    if kind == "truncated":
        return msgspec.structs.replace(reply, finish_reason="length")
    if kind == "empty_output":
        return msgspec.structs.replace(reply, text=" ")
    if kind == "content_filter":
        return msgspec.structs.replace(reply, finish_reason="content_filter")
    return None
