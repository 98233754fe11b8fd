"""Runs that parts leave, that fail for odd reasons, or that come back under another clock."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sifaka.chain import Chain
from sifaka.errors import ChainError, FencedError, UsageError
from sifaka.log.records import Opened, Recovery
from sifaka.recovery import RecoveryAction, RecoveryStrategy
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing import FakeClock
from sifaka.thought import Thought


def billed_and_reported(answer: Any) -> tuple[int, int]:
    """How often a model was called that first fails so, and how often the run says it was."""
    calls = 0

    def model(_prompt: str) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            return "a text"
        if isinstance(answer, BaseException):
            raise answer
        return answer

    chain = Chain(model, "p")
    with pytest.raises(ChainError):
        chain.run()
    thought = chain.run()
    state = chain._storage.load(chain.chain_id).state
    return calls, state.totals.calls + len(thought.in_doubt)


@pytest.mark.parametrize(
    "answer",
    [
        b"bytes",
        None,
        {"text": "a dict"},
        FileNotFoundError("its own log file"),
        PermissionError("its own cache"),
        ConnectionRefusedError("its own metrics server"),
        RuntimeError("invalid api key"),
        ExceptionGroup("several", [ValueError("one"), TimeoutError()]),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_a_call_that_may_have_been_paid_is_never_unreported_whatever_it_fails_with(answer: Any) -> None:
    calls, reported = billed_and_reported(answer)
    assert calls == 2
    assert reported == 2


class Text(str):
    """What libraries return for text."""

    __slots__ = ()


def test_a_text_of_another_make_is_a_text() -> None:
    thought = Chain(lambda _: Text("a text"), "p").run()
    assert thought.text == "a text"
    assert type(thought.text) is str


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_part_that_leaves_the_program_fails_its_run(*, asynchronous: bool) -> None:
    def leaves(_thought: Thought) -> None:
        raise SystemExit(3)

    store = CachedCheckpointStorage(InMemoryStorage())
    chain = Chain(lambda _: "paid", "p", checkpoint_storage=store, chain_id="r").improve_with(leaves)
    with pytest.raises(SystemExit):
        asyncio.run(chain.arun()) if asynchronous else chain.run()
    entry = store.get_chain("r")
    assert entry is not None
    assert (entry.status, entry.reason, entry.owner) == ("failed", "ended by SystemExit: 3", b"")
    thought = chain.get_thought()
    assert thought is not None
    assert thought.text == "paid"


def test_a_wait_does_not_grow_when_the_clock_is_set_back() -> None:
    store = CachedCheckpointStorage(InMemoryStorage())
    now, before = FakeClock(2_000_000.0), FakeClock(1_000_000.0)
    chain = Chain(lambda _: "a text", "p", checkpoint_storage=store, chain_id="r", clock=now)
    chain.apply_recovery_action(
        RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "later", 0.5, delay_s=5.0)
    )
    again = Chain(lambda _: "a text", "p", checkpoint_storage=store, chain_id="r", clock=before)
    assert again.run().text == "a text"
    assert sum(before.slept) == 5.0
    assert [one.delay_s for one in store.records("r") if isinstance(one, Recovery)] == [5.0]


def test_an_async_part_may_run_a_chain_of_its_own() -> None:
    async def inner(_prompt: str) -> str:
        await asyncio.sleep(0)
        return "an inner text"

    async def outer(_prompt: str) -> str:
        return Chain(inner, "inside").run().text

    assert Chain(outer, "outside").run().text == "an inner text"


def test_a_run_that_was_taken_over_pays_for_no_more_calls(tmp_path: Path) -> None:
    store = CachedCheckpointStorage(InMemoryStorage())
    calls = 0

    def model(_prompt: str) -> str:
        nonlocal calls
        calls += 1
        entry = store.storage.entry("r")
        assert entry is not None
        store.storage.claim("r", entry.token, b"somebody else", store.storage.now() + 60)
        store.journal.renew_leases()
        return "a text"

    chain = Chain(model, "p", checkpoint_storage=store, chain_id="r", durability="exit")
    chain.improve_with(lambda _: {"needs_improvement": True, "message": "more"})
    with pytest.raises(FencedError):
        chain.run()
    assert calls == 1
    assert sum(isinstance(one, Opened) for one in store.records("r")) <= 1


@pytest.mark.parametrize("name", ["max_improvement_iteration", "timout_s", "temprature"])
def test_a_misspelt_option_is_named(name: str) -> None:
    with pytest.raises(UsageError, match="did you mean"):
        Chain(lambda _: "a text", "p").with_options(**{name: 1})
