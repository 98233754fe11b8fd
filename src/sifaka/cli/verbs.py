"""The verbs of the command line, as a table: a new one is a module and a line here (floor 9)."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["VERBS", "Verb"]


class Verb(NamedTuple):
    """One verb: ``home`` is the app that runs it, imported when it is called, ``help`` its one line."""

    name: str
    home: str
    help: str


VERBS = (
    Verb(
        "demo", "sifaka.cli.demo:verb", "Write a text on a real local model, be killed half-way, and resume."
    ),
    Verb("show", "sifaka.cli.show:verb", "Show one run: what happened, what it cost, what failed and why."),
)
