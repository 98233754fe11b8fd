"""Labelled error texts: one JSON object a line, read from a file.

Fields: ``message`` and ``label`` (the kind); ``exception_type``, ``status``, ``headers``, ``provider``
and ``retry_after_s`` (the stated wait in seconds) may be missing or null. ``transient`` overrides what
the kind's row in the table says; rows with ``doubtful`` true are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from sifaka.faults import row

SAMPLE = Path(__file__).with_name("sample.jsonl")


class Case(msgspec.Struct):
    """One labelled text."""

    message: str
    label: str
    provider: str | None = None
    exception_type: str | None = None
    status: int | None = None
    headers: dict[str, str] | None = None
    retry_after_s: float | None = None
    transient: bool | None = None
    doubtful: bool = False

    @property
    def text(self) -> str:
        """The text as a log shows it: the class, where one is known, then the message."""
        kind, message = self.exception_type, self.message
        return f"{kind}: {message}" if kind and not message.startswith(kind) else message

    def exception(self) -> BaseException | None:
        """An exception of a class of that name and module that says the message, or None."""
        if not self.exception_type:
            return None
        module, _, name = self.exception_type.rpartition(".")
        known: dict[str, Any] = {"__module__": module or "somewhere"}
        return type(name, (Exception,), known)(self.message)

    @property
    def may_pass(self) -> bool:
        """Whether the same call may succeed later; a truncated text can be either, so it may."""
        if self.transient is not None:
            return self.transient
        return self.label == "truncated" or row(self.label).transient


def load(path: Path) -> list[Case]:
    """The cases of a file that are clear. Raises OSError and msgspec.MsgspecError."""
    lines = path.read_bytes().splitlines()
    cases = [msgspec.json.decode(line, type=Case) for line in lines if line.strip()]
    return [case for case in cases if not case.doubtful]
