"""Handing a run over from the fallback journal to the primary, row by row and verbatim (floor 3).

Every step is a compare-and-append or a compare-and-claim of the primary, and is looked for before it is made:
a handover that died anywhere is made again from its beginning. It goes on only while the primary's log is a
beginning of the journal's; else the history is split, and stays so.

Who may hand over: the journal's living writer, or who has claimed the run in the journal. The primary's token
ends above that of a writer who was claimed from, so that a late append of his is refused there as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from sifaka.errors import StorageError, UsageError
from sifaka.log.codec import link_of
from sifaka.storage.base import Change, Entry, Renewal, Row, Storage, Write
from sifaka.storage.fallback.splits import Split, split_of
from sifaka.storage.leases import LEASE_S, Owner, is_dead

__all__ = ["Handover"]

ROUNDS = 4
"""So often the primary is looked at again after it refused a row that it should have taken."""
NAME = "journal/name"
"""The cell with the name that tells this journal from all others."""


def _agree(one: Row, other: Row) -> bool:
    """Whether two stores hold the same append."""
    return (one.first, one.last, one.token, one.frame) == (other.first, other.last, other.token, other.frame)


class Handover:
    """From one journal to one primary."""

    def __init__(self, primary: Storage, journal: Storage) -> None:
        self.primary = primary
        self.journal = journal
        self._name = b""

    def owner(self) -> bytes:
        """Who holds a run in the primary while it is handed over: the journal, whichever process acts for it.

        So the next process knows the claims of one that died amid a handover from a stranger's.
        """
        while not self._name:
            cell = self.journal.cells([NAME])[0]
            self._name = cell.value
            if not self._name:
                self.journal.swap(NAME, os.urandom(8).hex().encode(), cell.version)
        host = f"the fallback journal {self.journal.url}"
        return msgspec.msgpack.encode(Owner(host, 0, "", "", "", self._name.decode()))

    def hand_over(self, entry: Entry, before: bytes | None = None) -> Split | None:
        """Bring the journal's run ``entry`` into the primary; None when it is there, whole and verified.

        ``before`` is from whom the run was claimed in the journal; None where its living writer asks.
        Raises StoreUnreachableError where the primary goes away again, which leaves the run to be handed
        over later.
        """
        act = _Act(self, entry, before)
        for _ in range(ROUNDS):
            split = act.look()
            if split is not None:
                return split
            if act.write() and act.settle():
                return None
        return act.split("it refuses a row for no reason that its log shows")

    def write_copy(self, entry: Entry, rows: Sequence[Row]) -> None:
        """Write a whole run into the primary, or what an interrupted copy has left of it.

        Raises UsageError where the primary has another run of that name.
        """
        primary, chain_id = self.primary, entry.chain_id
        stored = list(primary.rows(chain_id)) if primary.entry(chain_id) else []
        if len(stored) > len(rows) or not all(map(_agree, stored, rows)):
            raise UsageError(f"there is another run named {chain_id!r} already; choose another id")
        change = Change(entry.status, entry.updated_at, entry.reason, entry.group, entry.until, release=True)
        for row in rows[len(stored) :]:
            until = primary.now() + LEASE_S
            opens = replace(entry, token=1, owner=self.owner(), lease_until=until, status="running", last=-1)
            last = change if row is rows[-1] else None
            if primary.write([Write(row, last, None if row.first else opens)]) != [True]:
                raise StorageError(f"record {row.first} of run {chain_id!r} was refused by {primary.url}")


class _Act:
    """One run's handover; ``rows`` are the journal's, ``there`` is what the primary has of the run."""

    def __init__(self, over: Handover, entry: Entry, before: bytes | None) -> None:
        self._primary = over.primary
        self._entry = entry
        self._is_writers = before is None
        self._journal_owner = over.owner()
        self._ours = {self._journal_owner, entry.owner, before or b""} - {b""}
        self._rows = list(over.journal.rows(entry.chain_id))
        if not self._rows:
            raise StorageError(f"the fallback journal lists run {entry.chain_id!r} and has no row of it")
        self._there: Entry | None = None
        self._got: list[Row] = []
        self._same = 0

    # Looking -------------------------------------------------------------------------------

    def look(self) -> Split | None:
        """How far the primary has got; the split, where it did not get there by our rows."""
        chain_id, first = self._entry.chain_id, self._rows[0].first
        self._there = self._primary.entry(chain_id)
        self._got = list(self._primary.rows(chain_id, first)) if self._there else []
        pairs = zip(self._got, self._rows, strict=False)
        self._same = next(
            (index for index, (got, row) in enumerate(pairs) if not _agree(got, row)),
            min(len(self._got), len(self._rows)),
        )
        why = self._objection()
        return self.split(why) if why else None

    def split(self, why: str) -> Split:
        """The split, for a reason that is half a sentence."""
        return split_of(why, self._there, self._got[self._same :], self._rows, self._same)

    def _objection(self) -> str:
        there = self._there
        if there is None:
            return "the primary has lost the run" if self._rows[0].first else ""
        if self._same == len(self._rows):
            return ""  # all of it is there: whatever came behind came after it
        if len(self._got) > self._same:
            return f"the primary has other records from {self._got[self._same].first} on"
        expected = self._rows[self._same].first - 1
        if there.last < expected:
            return f"the primary has lost records {there.last + 1} to {expected}"
        if not self._is_ours(there):
            return f"somebody else has taken the run over in the primary (its token is {there.token})"
        return "" if self._follows() else f"the primary has another record {expected}"

    def _is_ours(self, there: Entry) -> bool:
        """Whether the primary's token is the one the journal began with, or one that was claimed from here.

        A token is given once a run, so the first is our writer's; another run of the same name that has one
        too was told by its first row, which holds the time and so is no other run's.
        """
        base = self._rows[0].token
        known = there.owner in self._ours or (bool(there.owner) and is_dead(there.owner))
        return there.token == base or (base < there.token <= self._entry.token and known)

    def _follows(self) -> bool:
        """Whether the journal's first row links to what the primary has before it."""
        row = self._rows[0]
        if not row.first:
            return True
        before = list(self._primary.rows(row.chain_id, row.first - 1, row.first - 1))
        return bool(before) and before[-1].last == row.first - 1 and _links(row, before[-1])

    # Writing -------------------------------------------------------------------------------

    def write(self) -> bool:
        """Write what the primary does not have yet; False where it refuses."""
        token = self._there.token if self._there else 0
        for row in self._rows[self._same :]:
            opens = self._opening(row) if not token else None
            if opens is not None:
                token = opens.token
            if not self._raise_token(token, row.token):
                return False
            token = row.token
            # The last row brings the run's status: until then it is somebody's who is about to go on.
            change = self._change() if row is self._rows[-1] else None
            if self._primary.write([Write(row, change, opens)]) != [True]:
                return False
        return True

    def _opening(self, row: Row) -> Entry:
        entry = self._entry
        return Entry(
            entry.chain_id,
            row.token,
            self._holder(row.token),
            self._primary.now() + LEASE_S,
            label=entry.label,
            opened_at=entry.opened_at,
            updated_at=entry.opened_at,
        )

    def _change(self) -> Change:
        entry = self._entry
        return Change(entry.status, entry.updated_at, entry.reason, entry.group, entry.until)

    def _raise_token(self, token: int, wanted: int) -> bool:
        """Claim the run until its token is ``wanted``; a row is written under its writer's own."""
        while token < wanted:
            token += 1
            until = self._primary.now() + LEASE_S
            if not self._primary.claim(self._entry.chain_id, token - 1, self._holder(token), until):
                return False
        return token == wanted

    def _holder(self, token: int) -> bytes:
        is_writers = self._is_writers and token == self._entry.token
        return self._entry.owner if is_writers else self._journal_owner

    # Settling ------------------------------------------------------------------------------

    def settle(self) -> bool:
        """Bring token and owner in step, and read everything back; False where to look again."""
        entry, primary = self._entry, self._primary
        there = primary.entry(entry.chain_id)
        if there is None:
            return False
        # A run that nobody holds may be claimed by anybody, also by us. Somebody else who holds it has taken
        # it over since its last row was brought: it is theirs, and their token is above our writer's.
        is_behind = there.token < entry.token and (self._is_ours(there) or not there.owner)
        if is_behind and not self._raise_token(there.token, entry.token):
            return False
        primary.renew(self._renewals(primary.entry(entry.chain_id)))
        stored = list(primary.rows(entry.chain_id, self._rows[0].first, self._rows[-1].last))
        return len(stored) == len(self._rows) and all(map(_agree, stored, self._rows))

    def _renewals(self, there: Entry | None) -> list[Renewal]:
        """The writer's lease begins anew; a claim that was made to hand over is given back.

        Where somebody has claimed the run since, it is theirs.
        """
        entry = self._entry
        if there is None or there.token != entry.token:
            return []
        if self._is_writers and entry.owner:
            return [Renewal(entry.chain_id, entry.token, entry.owner, self._primary.now() + LEASE_S)]
        return [Renewal(entry.chain_id, entry.token)] if there.owner == self._journal_owner else []


def _links(row: Row, before: Row) -> bool:
    return row.frame[8:12] == link_of(before.frame).to_bytes(4, "little")
