"""What the engine asks of a driver: three effects, as values (floor 5).

The engine yields an effect and is sent its answer: None for an :class:`Append` or a :class:`Sleep`,
a :class:`Done` for a :class:`Perform`. A failed append is thrown into the engine and ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sifaka.log.records import Record
from sifaka.storage.base import Change

__all__ = ["Append", "Call", "Done", "Effect", "Perform", "Sleep"]


class Append(msgspec.Struct, frozen=True, gc=False):
    """Make these records durable, in one commit."""

    records: list[Record]
    change: Change | None = None


class Call(msgspec.Struct, frozen=True, gc=False):
    """Call a user's part. ``key`` names the call in :class:`Done`.

    ``coroutine`` says that the function is an async one; ``inline`` that it is quick and harmless, to
    be called at once; ``timeout_s`` bounds it.
    """

    key: int
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    coroutine: bool = False
    inline: bool = False
    timeout_s: float | None = None


class Perform(msgspec.Struct, frozen=True, gc=False):
    """Start these calls beside those under way, and wait until any one is done."""

    calls: list[Call]


class Done(msgspec.Struct, frozen=True, gc=False):
    """A call's value, or the exception it raised; how long it took, in seconds."""

    key: int
    value: Any
    error: BaseException | None
    seconds: float


class Sleep(msgspec.Struct, frozen=True, gc=False):
    """Wait until ``until`` (unix seconds); ``reason`` is for people."""

    until: float
    reason: str


Effect = Append | Perform | Sleep
