"""Where the rows of each run go: to the primary, or to the journal that stands in for it (floor 3)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from sifaka.errors import SplitHistoryError, StorageError, StoreUnreachableError
from sifaka.storage.base import Write
from sifaka.storage.fallback.standby import Standby
from sifaka.storage.leases import LEASE_S

__all__ = ["Routing"]

ROUNDS = 4
"""So often a write is routed anew while its primary comes and goes under it."""


class Routing:
    """The writes of a store with a fallback."""

    def __init__(self, standby: Standby) -> None:
        self._standby = standby

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all, each to the store that has its run now; False where one was refused.

        Raises SplitHistoryError where all are of runs that have halted.
        """
        answers: list[bool | None] = [None] * len(writes)
        for _ in range(ROUNDS):
            self._write_there(writes, answers)
            self._write_here(writes, answers)
            told = [answer for answer in answers if answer is not None]
            if len(told) == len(writes):
                return told
        raise StorageError(f"the store {self._standby.primary.url} comes and goes: append again")

    def try_write(self, writes: Sequence[Write]) -> list[bool] | None:
        """As :meth:`write`, but None at once where there is more to do than a local append."""
        if not self._standby.is_calm:
            return None
        try:
            accepted = self._standby.primary.try_write(writes)
        except StoreUnreachableError as error:
            self._standby.leave(error)
            return None
        for write, yes in zip(writes, accepted or (), strict=accepted is not None):
            self._standby.note(write, accepted=yes)
        return accepted

    def _write_there(self, writes: Sequence[Write], answers: list[bool | None]) -> None:
        if not self._standby.is_there():
            return
        left = [index for index, answer in enumerate(answers) if answer is None]
        for chain_id in {writes[index].row.chain_id for index in left} & self._standby.here:
            with suppress(SplitHistoryError):
                self._standby.in_journal(chain_id, is_there=True)
        with self._standby.lock:
            elsewhere = self._standby.here | self._standby.halted
        left = [index for index in left if writes[index].row.chain_id not in elsewhere]
        if not left or self._standby.away is not None:
            return
        try:
            accepted = self._standby.primary.write([writes[index] for index in left])
        except StoreUnreachableError as error:
            self._standby.leave(error)
            return
        for index, yes in zip(left, accepted, strict=True):
            answers[index] = yes
            self._standby.note(writes[index], accepted=yes)

    def _write_here(self, writes: Sequence[Write], answers: list[bool | None]) -> None:
        standby = self._standby
        with standby.lock:
            left = [index for index, answer in enumerate(answers) if answer is None]
            self._check_halted([writes[index] for index in left], of=len(writes))
            into: dict[int, Write] = {}
            for index in left:
                chain_id = writes[index].row.chain_id
                if chain_id in standby.halted:
                    answers[index] = False
                elif standby.away is not None or chain_id in standby.here:
                    into[index] = self._as_journaled(writes[index])
            if into:
                accepted = self._standby.journal.write(list(into.values()))
                for (index, write), yes in zip(into.items(), accepted, strict=True):
                    answers[index] = self._was_journaled(write, accepted=yes)

    def _check_halted(self, writes: Sequence[Write], of: int) -> None:
        """A refusal can't say why; an error can, where it tells nothing wrong of other runs' writes."""
        if len(writes) == of and all(write.row.chain_id in self._standby.halted for write in writes):
            for write in writes:
                split = self._standby.splits.find(write.row.chain_id)
                if split is not None:
                    raise SplitHistoryError(**msgspec.structs.asdict(split))

    def _as_journaled(self, write: Write) -> Write:
        """The write as the journal takes it: its first row of a run opens the run there."""
        row = write.row
        if row.chain_id in self._standby.here:
            return msgspec.structs.replace(write, opens=None)
        entry = write.opens or self._standby.held.get(row.chain_id)
        if entry is None or entry.token != row.token:
            raise self._standby.unreachable(row.chain_id, "it was not claimed here")
        until = self._standby.journal.now() + LEASE_S
        opens = msgspec.structs.replace(entry, lease_until=until, last=row.first - 1)
        return msgspec.structs.replace(write, opens=opens)

    def _was_journaled(self, write: Write, *, accepted: bool) -> bool:
        chain_id = write.row.chain_id
        if accepted:
            self._standby.here.add(chain_id)
            self._standby.note(write, accepted=True)
            return True
        # Who has handed the run over in our place has claimed it: the primary would refuse this as well.
        self._standby.here.discard(chain_id)
        self._standby.held.pop(chain_id, None)
        return False
