"""Forking a log: the records a new run shares with an old one (floor 2)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sifaka.errors import DamagedRecordError
from sifaka.log.records import Opened, Reached, Record
from sifaka.log.state import fold

__all__ = ["fork_point", "forked"]


def fork_point(
    records: Iterable[Record],
    before: int | None = None,
    step: str | None = None,
    iteration: int | None = None,
) -> list[Record]:
    """The records up to the newest checkpoint that fits; empty where none does.

    Damage ends the search where the caller named it (``before``), and is an error elsewhere.
    """
    kept: list[Record] = []
    end = 0
    try:
        for record in records:
            if before is not None and len(kept) >= before:
                break
            kept.append(record)
            if isinstance(record, Reached) and _fits(record, step, iteration):
                end = len(kept)
    except DamagedRecordError as error:
        if before is None or error.first > before:
            raise
    return kept[:end]


def _fits(reached: Reached, step: str | None, iteration: int | None) -> bool:
    fits_step = step is None or reached.step == step
    # A run that is over has nowhere to go on to.
    goes_on = reached.step != "complete"
    return goes_on and fits_step and (iteration is None or reached.iteration == iteration)


def forked(records: list[Record], opened: Opened) -> list[Record]:
    """``records`` as the beginning of the run that ``opened`` opens under its own plan and settings."""
    chain_id = opened.chain_id
    own: list[Record] = [
        msgspec.structs.replace(one, chain_id=chain_id) if isinstance(one, Opened) else one for one in records
    ]
    life = fold(chain_id, own).life + 1
    return [*own, msgspec.structs.replace(opened, life=life, cause="fork")]
