"""What the engine asks of a driver: seven effects, as values (floor 5).

The engine yields an effect and is sent its answer: None for an :class:`Append`, a :class:`Learn`, a
:class:`Report` or a :class:`Sleep`, a :class:`Told` or a :class:`Done` for a :class:`Perform`, an
:class:`~sifaka.recovery.gate.Admission` for an :class:`Admit`, the ranked actions for a :class:`Consult`. A
failed append is thrown into the engine and ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sifaka.faults import Fault
from sifaka.log.records import Record
from sifaka.parts import Heard
from sifaka.recovery.evidence import Attempt
from sifaka.recovery.ranking import Situation
from sifaka.storage.base import Change

__all__ = [
    "Admit",
    "Append",
    "Call",
    "Consult",
    "Done",
    "Effect",
    "Learn",
    "Perform",
    "Report",
    "Sleep",
    "Told",
]


class Append(msgspec.Struct, frozen=True, gc=False):
    """Make these records durable, in one commit."""

    records: list[Record]
    change: Change | None = None


class Call(msgspec.Struct, frozen=True, gc=False):
    """Call a user's part. ``key`` names the call in :class:`Done`.

    ``coroutine`` says that the function is an async one; ``inline`` that it is quick and harmless, to
    be called at once; ``timeout_s`` bounds it. A call that ``hears`` is given the keyword ``hear``, and what
    it hears is told at most once in ``hears`` seconds.
    """

    key: int
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    coroutine: bool = False
    inline: bool = False
    timeout_s: float | None = None
    hears: float | None = None


class Perform(msgspec.Struct, frozen=True, gc=False):
    """Start these calls beside those under way, and wait until any one is done, or has something to tell."""

    calls: list[Call]


class Done(msgspec.Struct, frozen=True, gc=False):
    """A call's value, or the exception it raised; how long it took, in seconds; what was heard last of it."""

    key: int
    value: Any
    error: BaseException | None
    seconds: float
    heard: Heard | None = None


class Told(msgspec.Struct, frozen=True, gc=False):
    """What is known of a call that is still under way."""

    key: int
    heard: Heard


class Admit(msgspec.Struct, frozen=True, gc=False):
    """May this model be called now, by ``part``? ``retry``: it has failed here before."""

    model: str
    part: str
    retry: bool


class Report(msgspec.Struct, frozen=True, gc=False):
    """A call of this model by ``part`` was answered (``fault`` is None), failed, or was never ``made``."""

    model: str
    part: str
    fault: Fault | None = None
    made: bool = True


class Sleep(msgspec.Struct, frozen=True, gc=False):
    """Wait until ``until`` (unix seconds); ``reason`` is for people."""

    until: float
    reason: str


class Consult(msgspec.Struct, frozen=True, gc=False):
    """Rank the actions that may help here, by what the store's history says."""

    situation: Situation


class Learn(msgspec.Struct, frozen=True, gc=False):
    """Remember what came of these attempts; their outcomes are durable."""

    attempts: list[Attempt]


Effect = Append | Perform | Sleep | Consult | Learn | Admit | Report
