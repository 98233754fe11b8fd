"""Checking a store: every record verified, what is damaged named, and what can be saved of it (floor 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from sifaka.errors import (
    DamagedRecordError,
    DataError,
    StorageError,
    StoreUnreachableError,
    UnknownChainError,
)
from sifaka.log.records import Faulted, Intent, Reached, Record, Result
from sifaka.log.trimming import lacks_text
from sifaka.storage.base import Entry, Row, Storage
from sifaka.storage.moving import runs
from sifaka.storage.reading import decode_row, read_rows

__all__ = ["Damage", "Salvage", "check", "salvage"]


class Damage(msgspec.Struct, frozen=True):
    """A run that cannot be read whole: which records are damaged, why, and the newest sound checkpoint.

    ``sound_checkpoint`` is a record's number, -1 where there is none before the damage. Behind ``last`` there
    may be more damage: nobody can go on from there anyway.
    """

    chain_id: str
    first: int
    last: int
    why: str
    sound_checkpoint: int = -1


class Salvage(msgspec.Struct, frozen=True):
    """What is left of a damaged run: the records before the damage, and calls that were made behind them.

    Where texts were cleaned up that are needed to go on from there, ``sound`` ends earlier: at the newest
    checkpoint that somebody can go on from.

    Whoever goes on from ``sound`` makes the ``lost`` calls again, and they may have been paid. A part of the
    name "(damaged)" stands for calls that nothing tells of any more: one for each unreadable place.
    """

    sound: list[Record]
    lost: list[Intent]


def check(storage: Storage, chain_ids: Iterable[str] | None = None) -> Iterator[Damage]:
    """Read every record of these runs (None: all), one run in memory at a time; yields what is damaged.

    A run whose entry tells of records that are not there is damaged, too. The end of a log that is missing
    together with its entry's knowledge of it cannot be seen. Raises UnknownChainError for a name in
    ``chain_ids`` that is none, StoreUnreachableError.
    """
    for entry in runs(storage, chain_ids):
        damage = _damage(storage, entry)
        if damage is not None:
            # A clean-up may have put rows together just while they were read: look again.
            now = storage.entry(entry.chain_id)
            damage = None if now is None else _damage(storage, now)
        if damage is not None:
            yield damage


def _damage(storage: Storage, entry: Entry) -> Damage | None:
    chain_id, last, checkpoint = entry.chain_id, -1, -1
    try:
        for row, records in read_rows(storage, chain_id):
            last = row.last
            whole = [seq for seq, one in enumerate(records, row.first) if _is_checkpoint(one)]
            checkpoint = whole[-1] if whole else checkpoint
    except StoreUnreachableError:
        raise
    except DamagedRecordError as error:
        end = max(error.last, _row_end(storage, chain_id, error.first))
        return Damage(chain_id, error.first, end, error.why, checkpoint)
    except (DataError, StorageError) as error:
        return Damage(chain_id, last + 1, max(entry.last, last + 1), str(error), checkpoint)
    except UnknownChainError:
        return Damage(chain_id, 0, max(entry.last, 0), "they are missing")
    if last < entry.last:
        return Damage(chain_id, last + 1, entry.last, "they are missing", checkpoint)
    return None


def _is_checkpoint(record: Record) -> bool:
    return isinstance(record, Reached) and not record.trimmed


def _row_end(storage: Storage, chain_id: str, first: int) -> int:
    """The last record of the row that begins with ``first``; -1 where there is none."""
    row = next(iter(storage.rows(chain_id, first, first)), None)
    return row.last if row is not None and row.first == first else -1


def salvage(storage: Storage, chain_id: str) -> Salvage:
    """What can be saved of a run, damaged or not. Raises UnknownChainError."""
    sound: list[Record] = []
    try:
        for _, records in read_rows(storage, chain_id):
            sound += records
    except DamagedRecordError:
        sound = _can_go_on(chain_id, sound)
        return Salvage(sound, _lost(list(storage.rows(chain_id, len(sound))), sound))
    return Salvage(sound, [])


def _can_go_on(chain_id: str, sound: list[Record]) -> list[Record]:
    """``sound``, or as much of it as ends with a checkpoint that needs no text that was cleaned up."""
    end = len(sound)
    while end and lacks_text(chain_id, sound[:end]):
        end = max((seq + 1 for seq, one in enumerate(sound[: end - 1]) if _is_checkpoint(one)), default=0)
    return sound[:end]


def _lost(rows: Sequence[Row], sound: Sequence[Record]) -> list[Intent]:
    """The calls behind the damage that may have been paid; those under way before it are not among them."""
    calls: dict[int, Intent] = {}
    holes: set[int] = set()
    expected = len(sound)
    for row in rows:
        if row.first > expected:
            holes.add(expected)
        expected = row.last + 1
        try:
            records = decode_row(row, None)
        except DamagedRecordError:
            holes.add(row.first)
            continue
        _collect(calls, enumerate(records, row.first), len(sound))
    at = rows[0].at if rows else 0.0
    unknown = [Intent(at, "generation", 0, "(damaged)", n, 1, "") for n in sorted(holes)]
    return [calls[seq] for seq in sorted(calls)] + unknown


def _collect(calls: dict[int, Intent], records: Iterable[tuple[int, Record]], behind: int) -> None:
    """Calls by their records' numbers; those whose own record is lost, from what became of them."""
    for seq, record in records:
        if seq < behind:
            continue
        if isinstance(record, Intent):
            calls[seq] = record
        elif isinstance(record, Result) and record.intent >= behind:
            calls.setdefault(record.intent, _told_by(record, record.model, record.price_usd))
        elif isinstance(record, Faulted) and record.intent >= behind:
            if record.fault.billed == "no":
                calls.pop(record.intent, None)
            else:
                calls.setdefault(record.intent, _told_by(record))


def _told_by(record: Result | Faulted, model: str = "", price_usd: float | None = None) -> Intent:
    return Intent(
        record.at, record.operation, record.iteration, record.part, 0, 1, "", model, price_max_usd=price_usd
    )
