"""Random operations: every store agrees with the memory model at each step, whatever happens to its handles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

import stores as all_stores
from sifaka.storage.base import Cell, Entry, Query, Renewal, Row, Write
from sifaka.storage.memory import InMemoryStorage
from sifaka.testing.agreement import Agreement, agreement
from sifaka.testing.contract import Opener
from soak import scaled
from stores import STORES, Stores

stores = all_stores.stores
EXAMPLES, STEPS = 150, 40


def run(
    machine: type[Agreement], examples: int, phases: Sequence[Phase] = (Phase.generate, Phase.shrink)
) -> None:
    """So many examples, the same ones each time."""
    how = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        derandomize=True,
        phases=phases,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=how)


@pytest.mark.slow
@pytest.mark.timeout(scaled(300))
@pytest.mark.parametrize("kind", [kind for kind in STORES if kind != "memory"])
def test_every_store_agrees_with_the_model(
    kind: str, stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    # A memory answers for what its process holds: two processes are not two handles to it.
    machine = agreement(stores.new(kind), apart=kind not in {"tiers", "tiers apart"})
    run(machine, scaled(EXAMPLES))
    with capsys.disabled():
        print(f"\n{kind} agrees with the model: {scaled(EXAMPLES)} examples, {machine.steps} steps")
    assert machine.steps > scaled(EXAMPLES) * STEPS / 4


# The machine can fail ----------------------------------------------------------------------


class RenewsForAnyone(InMemoryStorage):
    def _renew(self, one: Renewal) -> bool:
        return self._replace(one.chain_id, one.token, owner=one.owner, lease_until=one.until)


class ForgetsTheReason(InMemoryStorage):
    def _write(self, write: Write) -> bool:
        return super()._write(replace(write, change=write.change and replace(write.change, reason="")))


class CountsTrimsTwice(InMemoryStorage):
    def trim(self, row: Row) -> int | None:
        removed = super().trim(row)
        return removed and removed + 1


class SkipsAtPages(InMemoryStorage):
    def entries(self, query: Query) -> list[Entry]:
        return super().entries(query)[1 if query.after else 0 :]


class DeletesByName(InMemoryStorage):
    def delete(self, entries: Sequence[Entry]) -> int:
        return super().delete([self._entries.get(one.chain_id, one) for one in entries])


class SwapsAhead(InMemoryStorage):
    def swap(self, name: str, value: bytes, version: int) -> bool:
        return super().swap(name, value, min(version, self._cells.get(name, Cell()).version))


class MeasuresTrimmed(InMemoryStorage):
    def measure(self) -> dict[str, Any]:
        return super().measure() | {"newest_checkpoint": None}


class LosesOnReset(InMemoryStorage):
    def reset(self) -> None:
        self._cells.clear()


class KeepsItsEntries(InMemoryStorage):
    """Shares rows and cells with other handles, and never hears of what those did to entries."""

    def __init__(self, inner: InMemoryStorage) -> None:
        super().__init__()
        self._rows, self._cells = inner._rows, inner._cells


FAULTS = (
    RenewsForAnyone,
    ForgetsTheReason,
    CountsTrimsTwice,
    SkipsAtPages,
    DeletesByName,
    SwapsAhead,
    MeasuresTrimmed,
    LosesOnReset,
)


@pytest.mark.parametrize("faulty", FAULTS, ids=lambda one: one.__name__)
@pytest.mark.slow
def test_the_machine_finds_a_planted_fault(faulty: type[InMemoryStorage]) -> None:
    def new_store() -> Opener:
        storage = faulty()
        return lambda clock=None: storage

    with pytest.raises(AssertionError):
        run(agreement(new_store), 5 * EXAMPLES, [Phase.generate])  # it ends at the first that fails


def test_the_machine_finds_a_handle_that_does_not_see_what_the_other_one_wrote() -> None:
    def new_store() -> Opener:
        shared = InMemoryStorage()
        return lambda clock=None: KeepsItsEntries(shared)

    with pytest.raises(AssertionError):
        run(agreement(new_store), 5 * EXAMPLES, [Phase.generate])  # it ends at the first that fails
