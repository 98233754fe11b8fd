"""A process of its own for each contestant, asked by lines of JSON: what one imports slows no other.

Child: ``python -m bench.worker`` reads ``{"do": name, "with": {…}}`` and answers ``{"done": value}``
or ``{"failed": traceback}``; the name is a function of `measure`, or ``module:function`` of another one here.
Parent: `Workers` starts them when first asked and stops them at the end.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ROOT = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """A measurement failed in its process; the message is what it said."""


class Workers:
    """The processes, by label. ``with Workers() as workers: workers.ask("dbos", "one_chain", …)``."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._running: dict[str, subprocess.Popen[str]] = {}

    def ask(self, label: str, do: str, /, *, timeout_s: float | None = None, **arguments: Any) -> Any:
        limit_s = timeout_s or self._timeout_s
        worker = self._running.get(label)
        if worker is None:
            worker = self._running[label] = subprocess.Popen(
                [sys.executable, "-m", "bench.worker"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        worker.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
        worker.stdin.flush()
        if not select.select([worker.stdout], [], [], limit_s)[0]:
            self.stop(label)
            raise WorkerError(f"{do} took more than {limit_s:.0f} s")
        line = worker.stdout.readline()
        if not line:
            self.stop(label)
            raise WorkerError(f"{do} ended its process with code {worker.returncode}")
        answer = json.loads(line)
        if "failed" in answer:
            raise WorkerError(answer["failed"])
        return answer["done"]

    def stop(self, label: str) -> None:
        worker = self._running.pop(label, None)
        if worker is not None:
            worker.kill()
            worker.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for label in list(self._running):
            self.stop(label)


def _work(do: str) -> Callable[..., Any]:
    module, _, function = do.rpartition(":")
    return getattr(importlib.import_module(f"bench.{module or 'measure'}"), function)


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a contestant prints must not be taken for an answer
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"done": _work(asked["do"])(**asked["with"])}
        except Exception:  # noqa: BLE001  it is handed on to the parent as it is
            answer = {"failed": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
