"""A state that is loaded from its tail is the state that the whole log comes to, after every append."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sifaka.chain import Chain
from sifaka.errors import ChainError
from sifaka.log.records import Reached
from sifaka.log.state import State
from sifaka.recovery import RecoveryAction, RecoveryStrategy
from sifaka.storage.base import Entry, Row
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.reading import load, load_whole
from sifaka.testing import FakeClock
from sifaka.thought import Thought, ValidationResult

SAME = (
    "actions", "attempts", "best", "chain_id", "closed", "critic_documents", "deaths", "documents",
    "doubts", "fault", "feedback", "last_at", "life", "next_seq", "open_intents", "parameters", "parent",
    "parts", "position", "prompt", "recovery", "replies", "restarts", "settings", "skipped", "system_prompt",
    "text", "text_is_whole", "text_seq", "totals", "tried", "verdicts", "waited_s",
)  # fmt: skip


class Store(InMemoryStorage):
    """A memory of which one run's rows can be looked at as they were after any append."""

    def cut(self, chain_id: str, rows: int) -> InMemoryStorage:
        """A store that holds the first ``rows`` rows."""
        shorter = InMemoryStorage()
        kept = list(self.rows(chain_id))[:rows]
        for row in kept:
            shorter._rows.setdefault(chain_id, []).append(row)
        shorter._entries[chain_id] = Entry(chain_id, last=kept[-1].last)
        return shorter


def check_every_prefix(store: Store, chain_id: str) -> int:
    rows: list[Row] = list(store.rows(chain_id))
    for count in range(1, len(rows) + 1):
        shorter = store.cut(chain_id, count)
        check_same(load(shorter, chain_id).state, load_whole(shorter, chain_id).state)
        assert load(shorter, chain_id).prev == load_whole(shorter, chain_id).prev
    return len(rows)


def check_same(part: State, whole: State) -> None:
    for name in SAME:
        assert getattr(part, name) == getattr(whole, name), name
    assert part.active_s(part.last_at) == pytest.approx(whole.active_s(whole.last_at))
    assert part.passed == whole.passed
    mine, theirs = part.thought(), whole.thought()
    assert mine.history == theirs.history
    assert mine == theirs
    assert part.best_draft() == whole.best_draft()


class Script:
    """What parts do, drawn by the test: verdicts, wishes, and failures."""

    def __init__(self, moves: list[int]) -> None:
        self._moves = moves
        self._next = 0

    def move(self) -> int:
        self._next += 1
        return self._moves[self._next % len(self._moves)] if self._moves else 0

    def generate(self, prompt: str, *, temperature: float = 1.0) -> str:
        move = self.move()
        if move == 7:
            raise TimeoutError
        return f"text {self._next} of {len(prompt)} at {temperature}"

    def validate(self, thought: Thought) -> ValidationResult:
        move = self.move()
        if move == 6:
            raise RuntimeError("the validator fell over")
        return ValidationResult(move % 3 == 0, f"verdict {self._next} on {len(thought.history)}", move / 10)

    def critique(self, thought: Thought) -> dict[str, Any]:
        move = self.move()
        if move == 5:
            raise ConnectionError("no route to the critic")
        return {"needs_improvement": move != 4, "message": f"feedback {self._next} on {thought.id}"}


def chain_of(store: Store, moves: list[int], iterations: int, clock: FakeClock) -> Chain:
    script = Script(moves)
    chain = Chain(
        script, "Write", checkpoint_storage=store, max_improvement_iterations=iterations, clock=clock
    )
    return (
        chain.with_model_retrievers([lambda query: [f"on {query}", "two"], lambda _: ["three"]])
        .with_critic_retrievers([lambda text: [f"about {text}"]])
        .validate_with(script)
        .improve_with(script)
        .with_options(temperature=0.5)
    )


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=30),
    st.integers(0, 5),
    st.lists(st.sampled_from(list(RecoveryStrategy)), max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_after_every_append_of_any_run(
    moves: list[int], iterations: int, actions: list[RecoveryStrategy]
) -> None:
    clock = FakeClock()
    store = Store(clock=clock)
    chain = chain_of(store, moves, iterations, clock)
    for strategy in [*actions, None]:
        if strategy is not None:
            chain.apply_recovery_action(RecoveryAction(strategy, "by hand", 0.5, {"temperature": 0.25}))
        with contextlib.suppress(ChainError):
            chain.run_with_recovery()
    check_every_prefix(store, chain.chain_id)


def test_a_long_run_is_loaded_from_its_tail() -> None:
    clock = FakeClock()
    store = Store(clock=clock)
    chain = chain_of(store, [1], 40, clock)
    chain.run()
    read = 0

    class Counting(InMemoryStorage):
        def rows(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal read
            for row in store.rows(*args, **kwargs):
                read += 1
                yield row

    loaded = load(Counting(), chain.chain_id).state
    assert loaded.iteration == 40
    assert read < 16
    assert loaded.thought().text
    few = read
    assert len(loaded.thought().history) == 40
    assert read > few * 5, "the history was read only when it was asked for"


def test_every_iteration_begins_with_a_summary() -> None:
    clock = FakeClock()
    store = Store(clock=clock)
    chain = chain_of(store, [1], 4, clock)
    found = [one for one in chain.stream() if isinstance(one, Reached) and one.summary is not None]
    assert [one.to.iteration for one in found] == [1, 2, 3, 4]
