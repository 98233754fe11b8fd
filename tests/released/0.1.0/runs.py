"""The runs of store.db: how they were made with version 0.1.0, and the parts that go on with them.

Only public names are used, so that every later version can build the same chains. To write the store anew,
with that version's sources on the path: ``python runs.py folder``.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path

from sifaka.chain import Chain
from sifaka.errors import ChainError, ModelError
from sifaka.parts import Reply, Request, Usage
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.testing import FakeClock
from sifaka.thought import CriticFeedback, Document, ValidationResult

PROMPTS = {
    "done": "Write of the tide.",
    "failed": "Write of the wind.",
    "interrupted": "Write of the rain.",
    "waiting": "Write of the snow.",
    "resumed": "Write of the fog.",
    "fork": "Write of the tide.",
    "fork, not begun": "Write of the tide.",
}


class Died(BaseException):
    """The process is gone in the middle of a call."""


class Model:
    """Answers by what it is asked alone; ``steps`` are what happens instead at calls of these numbers."""

    name = "released-model"

    def __init__(self, steps=None):
        self.prompts = []
        self.steps = steps or {}

    def price_max_usd(self, prompt, options):
        return 0.02

    def generate(self, prompt, **options):
        self.prompts.append(prompt)
        step = self.steps.get(len(self.prompts))
        if step is not None:
            raise step() if callable(step) else step
        word = sha256(prompt.encode()).hexdigest()
        words = " ".join(word[n : n + 5] for n in range(0, 60, 5))
        return Reply(f"{words} " * 3, usage=Usage(len(prompt.split()), 36), price_usd=0.01)


class Marks:
    """A validator that gives marks, and passes good ones only."""

    def __init__(self, name, passes):
        self.name = name
        self._passes = passes

    def validate(self, thought):
        mark = int(sha256((self.name + thought.text).encode()).hexdigest()[:4], 16) / 0x10000
        return ValidationResult(mark < self._passes, f"a mark of {mark:.3f}", score=mark, issues=("plain",))


class Asks:
    """A critic that asks the model twice."""

    name = "asks"

    def critique(self, thought):
        first = yield Request(f"What is wrong with: {thought.text[:40]}?")
        second = yield Request(f"What would mend: {first.text[:40]}?")
        return CriticFeedback(True, second.text[:40], suggestions=(first.text[:10],), confidence=0.75)


class Tells:
    """A critic, one plain call."""

    name = "tells"

    def critique(self, thought):
        return CriticFeedback(True, f"more of it than in text {thought.iteration}")


class Finds:
    """A retriever."""

    def __init__(self, name):
        self.name = name

    def retrieve(self, query):
        return [
            Document(f"{self.name} on {query[:20]}, {n}", id=f"{self.name}-{n}", score=1 / n) for n in (1, 2)
        ]


def chain_of(storage, name, model, clock=None):
    """The chain of one of the runs."""
    chain = Chain(
        model,
        PROMPTS[name],
        checkpoint_storage=storage,
        chain_id=name,
        max_improvement_iterations=3,
        clock=clock or FakeClock(),
    ).with_options(temperature=0.5, batch_size=1)
    chain.with_model_retrievers([Finds("library")]).with_critic_retrievers([Finds("archive")])
    return chain.validate_with(Marks("length", 0.3), Marks("style", 0.7)).improve_with(Tells(), Asks())


def busy(seconds=None):
    return ModelError("too many requests", kind="rate_limit", status=429, retry_after_s=seconds)


def no_key():
    return ModelError("bad key", kind="auth", status=401)


def write_all(storage, clock):
    """Every run of the store, in the state that its name says."""
    chain_of(storage, "done", Model({5: busy(2.0)}), clock).run_with_recovery()
    refuse(chain_of(storage, "failed", Model({6: no_key()}), clock).run)
    dies(storage, "interrupted", clock, Model({7: lambda: die(storage, "interrupted", clock)}))
    clock.dies = lambda: die(storage, "waiting", clock)
    dies(storage, "waiting", clock, Model({3: busy(200.0)}))
    clock.dies = None
    refuse(chain_of(storage, "resumed", Model({4: no_key()}), clock).run)
    chain = chain_of(storage, "resumed", Model({3: busy()}), clock)
    chain.apply_recovery_action(RecoveryAction(RecoveryStrategy.RESTART_ITERATION, "by hand", 0.5))
    chain.run_with_recovery()
    chain = chain_of(storage, "done", Model(), clock)
    chain.fork(new_id="fork", iteration=1).run()
    chain.fork(new_id="fork, not begun", iteration=2)


def refuse(run):
    try:
        run()
    except ChainError:
        return
    raise AssertionError("it should have failed")


def dies(storage, name, clock, model):
    try:
        chain_of(storage, name, model, clock).run_with_recovery()
    except Died:
        return
    raise AssertionError("it should have died")


def die(storage, name, clock):
    """As if the process were gone: somebody else's lease has run out, and nothing more is written."""
    import msgspec

    from sifaka.storage.leases import Owner

    owner = msgspec.msgpack.encode(Owner("a-machine-of-then", 4711, "100", "", ""))
    assert storage.claim(name, storage.entry(name).token, owner, clock.time() + 60)
    return Died()


class Clock(FakeClock):
    """Each look at it takes a moment; a wait may be the end of a process."""

    dies = None

    def sleep(self, seconds):
        if self.dies is not None:
            raise self.dies()
        super().sleep(seconds)


def seen(storage, name):
    """What a reader of the store sees of a run, as JSON has it."""
    from sifaka.recovery import RecoveryManager
    from sifaka.storage.urls import open_storage
    from sifaka.views import story_of

    face = open_storage(storage)
    chain = chain_of(storage, name, Model())
    thought, points = chain.get_thought(), chain.get_checkpoint_history()
    state = story_of(face.records(name)).state
    history = RecoveryManager(storage).get_recovery_history(name)
    keys = (
        "action",
        "error_type",
        "error_class",
        "step",
        "iteration",
        "part",
        "success",
        "cost",
        "chosen_by",
    )
    return {
        "status": face.get_chain(name).status,
        "text": thought.text,
        "iteration": thought.iteration,
        "passed": thought.passed,
        "cost": thought.cost,
        "in_doubt": [[one.operation, one.iteration, one.part, one.price_max_usd] for one in thought.in_doubt],
        "verdicts": [
            [one.validator, one.passed, one.score, one.message] for one in thought.validation_results
        ],
        "feedback": [[one.critic, one.needs_improvement, one.message] for one in thought.critic_feedback],
        "documents": [[one.id, one.text, one.score] for one in thought.retrieved_documents],
        "model_prompt": thought.model_prompt,
        "history": [one.text for one in thought.history],
        "totals": [getattr(state.totals, field) for field in state.totals.__struct_fields__],
        "open_calls": [[one.operation, one.iteration, one.part] for one in state.open_intents.values()],
        "records": state.next_seq,
        "checkpoints": [
            [one.current_step, one.iteration, one.recovery_point, one.thought.text] for one in points
        ],
        "recovery": [[one[key] for key in keys] for one in history],
    }


def main(folder):
    """Write store.db and expected.json."""
    import sqlite3

    from sifaka.storage.sqlite import SQLiteStorage

    path = Path(folder) / "store.db"
    clock = Clock()
    storage = SQLiteStorage(path, clock=clock)
    write_all(storage, clock)
    clock.advance(3600)
    expected = {name: seen(storage, name) for name in PROMPTS}
    storage.close()
    file = sqlite3.connect(path)
    file.execute("VACUUM")
    file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    file.close()
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (Path(folder) / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
