"""Moving house: runs from one store into another, verified record by record (floor 3).

A copy that was interrupted is taken up where it stopped when it is made again. A run that is being run, that
cannot be read, or that is another one in the target, is left behind and named; the others are copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import msgspec

from sifaka.errors import DamagedRecordError, DataError, StorageError, UnknownChainError, UsageError
from sifaka.log.records import STATUSES
from sifaka.storage.base import Entry, Query, Row, Storage
from sifaka.storage.leases import LEASE_S
from sifaka.storage.pouring import encode_again, is_running, pour, same
from sifaka.storage.reading import read_rows

__all__ = ["Moved", "copy", "is_running", "runs"]

PAGE = 500


class Moved(msgspec.Struct, frozen=True):
    """What came of a copy: numbers of runs, records and cells; the runs that were left behind, and why."""

    runs: int
    records: int
    cells: int
    left: dict[str, str]


def copy(source: Storage, target: Storage, chain_ids: Iterable[str] | None = None) -> Moved:
    """Copy runs (None: all, with the shared cells) from ``source`` to ``target``, and verify each record.

    Whatever stops it, what was copied before stays, and the same copy may be made again. Raises UsageError
    for a chain id that the source does not have, StorageError where the target does not hold what it was
    given.
    """
    left: dict[str, str] = {}
    count = records = 0
    for entry in _listed(source, chain_ids):
        try:
            records += _copy_run(source, target, entry)
        except (DataError, UsageError) as error:
            left[entry.chain_id] = str(error)
        else:
            left.pop(entry.chain_id, None)
            count += 1
    return Moved(count, records, _copy_cells(source, target) if chain_ids is None else 0, left)


def _copy_run(source: Storage, target: Storage, entry: Entry) -> int:
    chain_id = entry.chain_id
    if is_running(source, entry):
        raise UsageError(f"run {chain_id!r} is being run: copy it when it has stopped")
    rows = [row for row, _ in read_rows(source, chain_id)]  # all of them are read before one is written
    if rows[-1].last < entry.last:
        raise DamagedRecordError(chain_id, rows[-1].last + 1, entry.last, "they are missing")
    if rows[-1].last > entry.last:
        raise UsageError(f"run {chain_id!r} went on meanwhile: copy it when it has stopped")
    steady = _steady(rows)
    pour(target, entry, steady)
    _verify(steady, target, entry)
    return rows[-1].last + 1


def _listed(source: Storage, chain_ids: Iterable[str] | None) -> Iterator[Entry]:
    """As :func:`runs`, and in the end those that changed their status, and so their page, meanwhile."""
    since = source.now() - LEASE_S  # writers' clocks may differ a little from the store's
    seen: set[tuple[str, float]] = set()
    for entry in runs(source, chain_ids):
        if entry.updated_at >= since:
            seen.add((entry.chain_id, entry.updated_at))
        yield entry
    if chain_ids is None:
        for entry in chain.from_iterable(source.pages(Query(updated_since=since, limit=PAGE))):
            if (entry.chain_id, entry.updated_at) not in seen:
                yield entry


def runs(storage: Storage, chain_ids: Iterable[str] | None = None) -> Iterator[Entry]:
    """The entries of these runs (None: all); UnknownChainError for a name that is none."""
    if chain_ids is not None:
        for chain_id in chain_ids:
            entry = storage.entry(chain_id)
            if entry is None:
                raise UnknownChainError(chain_id)
            yield entry
        return
    # By status and time: a page never moves under our feet but by runs that go on just now.
    for status in STATUSES:
        yield from chain.from_iterable(storage.pages(Query(statuses=(status,), limit=PAGE)))


# Rows --------------------------------------------------------------------------------------


def _steady(rows: Sequence[Row]) -> list[Row]:
    """The rows under tokens that never fall.

    A trimmed row has the token it was trimmed under, which may be newer than those of the rows behind it:
    it gets theirs. What it links to, and what links to it, stays.
    """
    found: list[Row] = []
    for row in reversed(rows):
        token = min(row.token, found[-1].token) if found else row.token
        found.append(row if token == row.token else encode_again(row, token, _prev(row)))
    return found[::-1]


def _prev(row: Row) -> int:
    """What a row's frame links to: it stands in the header, before the frame's own checksum."""
    return int.from_bytes(row.frame[8:12], "little")


# Verifying ---------------------------------------------------------------------------------


def _verify(rows: Sequence[Row], target: Storage, entry: Entry) -> None:
    """Read the copy back: every record of it, decoded and compared, and what the entry says."""
    why = f"run {entry.chain_id!r} is not in {target.url} as it was written there"
    try:
        copied = [row for row, _ in read_rows(target, entry.chain_id)]
        sound = len(copied) == len(rows) and all(map(same, rows, copied))
    except (DataError, UnknownChainError) as error:
        raise StorageError(f"{why}: {error}") from error
    there = target.entry(entry.chain_id)
    if not sound or there is None or _told(there) != _told(entry):
        raise StorageError(f"{why}: do not trust that store")


def _told(entry: Entry) -> Entry:
    """The entry, but for what is each store's own."""
    return msgspec.structs.replace(entry, token=0, owner=b"", lease_until=0.0)


# Cells -------------------------------------------------------------------------------------


def _copy_cells(source: Storage, target: Storage) -> int:
    """Cells that the target does not have yet; what it has learned itself stays."""
    count, after = 0, ""
    while names := source.cell_names(after=after, limit=PAGE):
        count += _copy_some(source, target, names)
        after = names[-1]
    return count


def _copy_some(source: Storage, target: Storage, names: Sequence[str]) -> int:
    cells = zip(names, source.cells(names), target.cells(names), strict=True)
    new = {name: cell for name, cell, there in cells if cell.version and not there.version}
    swapped = [name for name, cell in new.items() if target.swap(name, cell.value, 0)]
    for name, there in zip(swapped, target.cells(swapped), strict=True):
        if there.version == 1 and there.value != new[name].value:
            raise StorageError(f"cell {name!r} is not in {target.url} as it was written there")
        if not there.version:
            raise StorageError(f"cell {name!r} was written to {target.url} and is not there")
    return len(swapped)
