"""A run on its way into a store: its rows are written under our own lease, or compared (floor 3)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from os import urandom

import msgspec

from sifaka.errors import StorageError, UsageError
from sifaka.log.codec import encode, is_trimmed, link_of, raw_bytes
from sifaka.storage.base import Change, Entry, Renewal, Row, Storage, Write
from sifaka.storage.leases import LEASE_S, decode, is_dead, myself
from sifaka.storage.reading import decode_row

__all__ = ["encode_again", "is_running", "pour", "same"]

ROWS_A_WRITE = 500
"""How many of a run's rows are written in one commit, at most."""
BYTES_A_WRITE = 4 * 1024 * 1024
"""How many bytes are written in one commit, at most, unless one row alone has more."""
COPYING = "copy-"
"""How the claim of an owner begins that only copies: what it leaves behind, the next copy goes on with."""


def is_running(storage: Storage, entry: Entry) -> bool:
    """Whether a living owner holds the run."""
    return bool(entry.owner) and entry.lease_until > storage.now() and not is_dead(entry.owner)


def encode_again(row: Row, token: int, prev: int, *, compress: bool = True) -> Row:
    """The same records under another token and link.

    What the row behind has to link to is another checksum then, unless the row is a trimmed one.

    Raises DamagedRecordError.
    """
    records = decode_row(row, None)
    frame = encode(
        records,
        chain_id=row.chain_id,
        first=row.first,
        token=token,
        prev=prev,
        link=link_of(row.frame) if is_trimmed(row.frame) else None,
        compress=compress,
    )
    return msgspec.structs.replace(row, token=token, frame=frame, raw=raw_bytes(frame))


def same(row: Row, other: Row) -> bool:
    """Whether two rows hold the same records, however they were encoded."""
    if (row.first, row.last, row.at, row.checkpoints) != (
        other.first,
        other.last,
        other.at,
        other.checkpoints,
    ):
        return False
    return row.frame == other.frame or decode_row(row, None) == decode_row(other, None)


def pour(target: Storage, entry: Entry, rows: Iterable[Row], *, only_look: bool = False) -> int:
    """Write a run's rows into ``target`` under our own lease, and in the end its entry; the rows written.

    Rows that are there already (an earlier copy was interrupted) are compared instead. ``only_look`` writes
    nothing: it finds out whether there is anything against it. Raises UsageError, and changes nothing, where
    the target's run is another one or is being run. A run that could not be written whole is taken away
    again, if the target still lets us.
    """
    pouring = _Pouring(target, entry, only_look=only_look)
    try:
        for row in rows:
            pouring.add(row)
        pouring.finish()
    except BaseException:
        pouring.leave()
        raise
    return pouring.written


class _Pouring:
    """One run on its way into a store. Its last row brings the entry's status: it is whole then."""

    def __init__(self, target: Storage, entry: Entry, *, only_look: bool) -> None:
        self._target = target
        self._entry = entry
        self._only_look = only_look
        self._me = myself(COPYING + urandom(4).hex())
        there = target.entry(entry.chain_id)
        if there is not None and is_running(target, there) and not _copies(there.owner):
            raise UsageError(f"run {entry.chain_id!r} is being run in {target.url}: stop it, or leave it out")
        self._is_ours = False
        """True once this copy has begun the run in the target."""
        self._is_held = there is not None and bool(there.owner) and _copies(there.owner)
        self._token = there.token if there else 0
        self._old = iter(target.rows(entry.chain_id)) if there else iter(())
        self._end: Row | None = None
        """The newest row of the target's that was compared, where its frame is another one than ours."""
        self._waiting: list[Row] = []
        self._at = -1
        self.written = 0

    def add(self, row: Row) -> None:
        """Compare the next row, or write it soon."""
        self._at = row.last
        old = next(self._old, None)
        if old is not None:
            if not same(row, old):
                raise self._differs(row.first)
            self._end = old if old.frame != row.frame else None
        elif not self._only_look:
            self._append(row)

    def _append(self, row: Row) -> None:
        if self._end is not None:  # encoded by another version: what follows must link to what is there
            row = encode_again(row, row.token, link_of(self._end.frame))
            self._end = row
        if self._waiting and not self._fits(row):
            self._flush(None)
        self._waiting.append(row)

    def _fits(self, row: Row) -> bool:
        size = sum(len(one.frame) for one in self._waiting) + len(row.frame)
        one_token = self._waiting[-1].token == row.token
        return one_token and size <= BYTES_A_WRITE and len(self._waiting) < ROWS_A_WRITE

    def finish(self) -> None:
        """Write what waits, with what the entry says."""
        if next(self._old, None) is not None:
            raise self._differs(self._at + 1)
        if self._only_look:
            return
        entry = self._entry
        if self._waiting:
            self._flush(
                Change(entry.status, entry.updated_at, entry.reason, entry.group, entry.until, release=True)
            )
        self._raise_token(entry.token)  # it may have been claimed, and nothing written since
        if self._is_held:
            self._target.renew([Renewal(entry.chain_id, self._token)])

    def _flush(self, change: Change | None) -> None:
        rows, self._waiting = self._waiting, []
        entry, target = self._entry, self._target
        opens = None
        if not self._token:
            until = target.now() + LEASE_S
            opens = msgspec.structs.replace(
                entry,
                token=rows[0].token,
                owner=self._me,
                lease_until=until,
                status="running",
                last=rows[0].first - 1,
            )
            self._token, self._is_ours, self._is_held = rows[0].token, True, True
        self._raise_token(rows[0].token)
        if self._token > rows[0].token:
            raise UsageError(f"run {entry.chain_id!r} was claimed in {target.url}: copy it under another id")
        writes = [Write(row) for row in rows]
        writes[0] = msgspec.structs.replace(writes[0], opens=opens)
        writes[-1] = msgspec.structs.replace(writes[-1], change=change)
        if not all(target.write(writes)):
            raise StorageError(
                f"records of run {entry.chain_id!r} were refused by {target.url}: copy it again"
            )
        self.written += len(rows)
        self._is_held &= change is None

    def _raise_token(self, token: int) -> None:
        """Claim the run until its token is ``token``: a row is written under its writer's own."""
        while self._token < token:
            until = self._target.now() + LEASE_S
            if not self._target.claim(self._entry.chain_id, self._token, self._me, until):
                raise UsageError(f"run {self._entry.chain_id!r} was claimed in {self._target.url} meanwhile")
            self._token, self._is_held = self._token + 1, True

    def leave(self) -> None:
        """Take away what was begun, or give back what was there: as well as the target lets us."""
        chain_id = self._entry.chain_id
        with suppress(StorageError):
            there = self._target.entry(chain_id)  # a claim may have counted whose answer was lost
            if there is None or there.owner != self._me:
                return
            if self._is_ours:
                self._target.delete([there])
            else:
                self._target.renew([Renewal(chain_id, there.token)])

    def _differs(self, seq: int) -> UsageError:
        return UsageError(
            f"run {self._entry.chain_id!r} is another one in {self._target.url}, from record {seq} on: "
            "nothing was changed. Delete it there, or leave it out"
        )


def _copies(owner: bytes) -> bool:
    return decode(owner).claim.startswith(COPYING)
