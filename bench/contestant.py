"""What a contestant must be able to do, and who the contestants are.

A contestant only runs chains and reads them back. The clock, the counting of commits and bytes,
the watch on the event loop and the check that no step was left out are in `measure.py`, the same
for all. Sifaka joins by one file, `bench/subject.py`, with a class `Subject` (see `Contestant`);
without that file its column shows a dash.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bench.workload import ChainParts

SUBJECT = "sifaka"


class Contestant(Protocol):
    """Runs chains in a folder that is its own; every method may be a plain function or a coroutine function.

    One object lives as long as one measurement: `open`, then chains, then `close`. Its SQLite files
    lie in `folder` under names that end in `.db`. It runs `parts` to the end, calling each part once a
    step (the validator passes the last draft only, the critics are asked about that one too), with each
    step durable before the next is called, and returns the last draft as the chain's result has it.
    """

    def open(self, folder: Path) -> None:
        """Make or open the store in `folder`, ready for chains. Not timed."""

    def run_one(self, parts: ChainParts) -> str:
        """Run one chain alone and return its last draft. Timed."""

    def run_many(self, parts: Sequence[ChainParts]) -> list[str]:
        """Run these chains at once in this process and return their last drafts, in order. Timed."""

    def close(self) -> None:
        """Close the store and stop whatever was started. Not timed."""

    def load_last(self, folder: Path, chain: int, iterations: int) -> str:
        """Read a finished chain's last state on a fresh connection and return its draft. Timed.

        Opening that connection is part of it. `open` has not been called on this object.
        """

    def load_all(self, folder: Path, chain: int, iterations: int) -> list[str]:
        """Read the whole history, verified where the format can be, and return all drafts. Timed."""

    import_statement: str
    """What a user types first."""

    first_commit_script: str
    """A program that, given a folder as argv[1], makes a new run's first durable commit there and
    then prints time.monotonic_ns()."""

    # Sifaka alone is asked, in a process that has run nothing else (watch.resident_bytes helps):
    #   def waiting_chain_bytes(self, folder: Path) -> float
    #       memory that a waiting chain takes beyond its own text, in bytes


_KNOWN = {
    "floor": "bench.floor:Floor",
    "floor zlib": "bench.floor:FloorZlib",
    "floor zstd": "bench.floor:FloorZstd",
    "langgraph sync": "bench.peer_langgraph:LangGraphSync",
    "langgraph delta": "bench.peer_langgraph:LangGraphDelta",
    "langgraph exit": "bench.peer_langgraph:LangGraphExit",
    "dbos": "bench.peer_dbos:Dbos",
    SUBJECT: "bench.subject:Subject",
}

# What a contestant cannot run without; looked for, not imported.
_NEEDS = {
    "floor zstd": "zstandard",
    "langgraph sync": "langgraph.checkpoint.sqlite",
    "langgraph delta": "langgraph.checkpoint.sqlite",
    "langgraph exit": "langgraph.checkpoint.sqlite",
    "dbos": "dbos",
    SUBJECT: "bench.subject",
}

# One process each: what one imports and starts must not slow down another.
PROCESS_OF = {name: name.split(" ", maxsplit=1)[0] for name in _KNOWN}


def is_here(name: str) -> bool:
    """Whether this contestant's packages are installed (for sifaka: whether its adapter exists)."""
    module = _NEEDS.get(name)
    if module is None:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def kind_of(name: str) -> type[Contestant]:
    module, _, attribute = _KNOWN[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
