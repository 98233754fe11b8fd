"""The program that the demo runs, kills and runs again: one chain on the local model (floor 9).

It is what anybody would write, but for one thing: it notes each call of its model in a file of its own, a
ledger outside the log, so that the demo can hold one against the other.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, cast

import msgspec

from sifaka import (
    Chain,
    ChainError,
    Document,
    InMemoryRetriever,
    LengthValidator,
    RegexValidator,
    SelfRefineCritic,
    create_model,
)
from sifaka.parts import Model, Reply

__all__ = ["CHAIN_ID", "MODEL", "PROMPT", "Said", "build", "documents", "main"]

MODEL = "local:smollm2"
CHAIN_ID = "ai-ethics"
PROMPT = "Write 40 to 90 words about AI ethics: what people need from machines that decide about them."
SYSTEM_PROMPT = (
    "You write short, clear texts in plain English. You answer with one paragraph and nothing else."
)
OPTIONS: dict[str, Any] = {
    "max_tokens": 56,  # too few for some answers: they are cut off, and recovery has to make room
    "temperature": 0.5,
    "frequency_penalty": 0.5,
    "stop": ["\n\n"],
    "limits": {"attempts_per_step": 4},
}
FAILED = 1


class Said(msgspec.Struct, frozen=True):
    """What a writer says when it is done: the text, and the model calls that this process made."""

    text: str
    passed: bool
    calls: int


class Ledger:
    """The model, with a line in a file for each call that is about to be made."""

    def __init__(self, model: Any, path: str) -> None:
        self.name: str = model.name
        self.accepts: frozenset[str] = model.accepts
        self.calls = 0
        self._model: Model = model
        self._price_max_usd = model.price_max_usd
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def generate(self, prompt: str, **options: Any) -> Reply:
        """The model's answer."""
        self.calls += 1
        os.write(self._file, f"process {os.getpid()} asks {self.name}\n".encode())
        return cast("Reply", self._model.generate(prompt, **options))

    def price_max_usd(self, prompt: str, options: Mapping[str, Any]) -> float | None:
        """The most a call can cost."""
        return cast("float | None", self._price_max_usd(prompt, options))


def documents() -> list[Document]:
    """The documents that come with the demo."""
    folder = files("sifaka.cli.demo") / "documents"
    found = sorted(folder.iterdir(), key=lambda one: one.name)
    return [
        Document(" ".join(one.read_text(encoding="utf-8").split()), id=one.name.removesuffix(".txt"))
        for one in found
        if one.name.endswith(".txt")
    ]


def build(model: object, store: str, seed: int | None = None) -> Chain:
    """The chain: two documents, a text, two validators, a critic, and at most two improvements."""
    form = RegexValidator(
        required_patterns={
            "people or humans": r"(?i)\b(?:people|persons?|humans?)\b",
            "a full stop at its end": r"[.!?][\"')\u201d\u2019]*\s*$",
        },
        forbidden_patterns={
            "a list": r"(?m)^\s*(?:[-*\u2022#]|\d+[.)])\s",
            "a number in brackets": r"\[\d",
        },
        name="form",
    )
    return (
        Chain(model, PROMPT, checkpoint_storage=store, chain_id=CHAIN_ID, max_improvement_iterations=2)
        .with_system_prompt(SYSTEM_PROMPT)
        .with_options(**OPTIONS, seed=seed)
        .with_model_retrievers([InMemoryRetriever(documents(), top_k=2, name="library")])
        .validate_with(LengthValidator(40, 90, unit="words"), form)
        .improve_with(SelfRefineCritic(max_tokens=48))
    )


def _end_with_the_watcher() -> None:
    """A writer whose watcher is gone stops: nobody would see it."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(FAILED)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    """Run the chain to its end, or go on where it stopped; says a :class:`Said` as JSON."""
    store, ledger, seed = sys.argv[1:4]
    _end_with_the_watcher()
    model = Ledger(create_model(MODEL), ledger)
    try:
        thought = build(model, store, int(seed) if seed else None).run_with_recovery()
    except ChainError as error:
        print(error, file=sys.stderr)
        return FAILED
    said = Said(thought.text, thought.passed, model.calls)
    sys.stdout.buffer.write(msgspec.json.encode(said))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
