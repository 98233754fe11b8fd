"""Forking a log: the records a new run shares with an old one (floor 2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from sifaka.log.records import Intent, Opened, Reached, Record
from sifaka.log.state import fold

__all__ = ["fork_point", "forked"]


def fork_point(
    records: Iterable[Record],
    before: int | None = None,
    step: str | None = None,
    iteration: int | None = None,
) -> list[Record]:
    """The records up to the newest checkpoint that fits; empty where none does."""
    kept: list[Record] = []
    end = 0
    for record in records:
        if before is not None and len(kept) >= before:
            break
        kept.append(record)
        if isinstance(record, Reached) and _fits(record, step, iteration):
            end = len(kept)
    return kept[:end]


def _fits(reached: Reached, step: str | None, iteration: int | None) -> bool:
    fits_step = step is None or reached.step == step
    # A run that is over has nowhere to go on to.
    goes_on = reached.step != "complete" and not reached.trimmed
    return goes_on and fits_step and (iteration is None or reached.iteration == iteration)


def forked(records: Sequence[Record], opened: Opened, lost: Sequence[Intent] = ()) -> list[Record]:
    """``records`` as the beginning of the run that ``opened`` opens under its own plan and settings.

    ``lost`` are calls whose results cannot be read any more: they are in doubt, with those under way.
    """
    chain_id = opened.chain_id
    shared = [*records, *lost]
    own: list[Record] = [
        msgspec.structs.replace(one, chain_id=chain_id) if isinstance(one, Opened) else one for one in shared
    ]
    state = fold(chain_id, own)
    doubts = tuple(state.open_intents)
    return [*own, msgspec.structs.replace(opened, life=state.life + 1, cause="fork", doubts=doubts)]
