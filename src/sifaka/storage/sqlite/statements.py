"""SQLite as a store speaks it: constant statements, and what each of them needs (floor 3)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sifaka.errors import DamagedRecordError, StorageError
from sifaka.log.records import STATUSES
from sifaka.storage.base import Entry, Query, Renewal, Row, Write

__all__ = [
    "ENTRY",
    "ROWS",
    "ROWS_NEWEST_FIRST",
    "append",
    "as_entry",
    "as_row",
    "conditions",
    "delete_one",
    "renew",
    "trim",
    "write_all",
]

_APPEND = """
INSERT INTO log (chain, last, first, token, at, checkpoints, frame, raw)
SELECT no, ?, ?, token, ?, ?, ?, ? FROM chains
WHERE id = ? AND token = ? AND (SELECT max(last) FROM log WHERE chain = no) = ?
"""
_OPEN = """
INSERT INTO chains (id, token, owner, lease_until, status, reason, grp, label, until, opened_at,
                    updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_FIRST = """
INSERT INTO log (chain, last, first, token, at, checkpoints, frame, raw)
SELECT no, ?, ?, token, ?, ?, ?, ? FROM chains WHERE id = ?
"""
_CHANGE = (
    "UPDATE chains SET status = ?, reason = ?, grp = ?, until = ?, updated_at = ?, "
    "owner = iif(?, x'', owner), lease_until = iif(?, 0.0, lease_until) WHERE id = ? AND token = ?"
)
ENTRY = """
SELECT id, token, owner, lease_until, status, reason, grp, label, until, opened_at, updated_at,
       coalesce((SELECT max(last) FROM log WHERE chain = no), -1) FROM chains
"""
ROWS = """
SELECT first, last, token, at, checkpoints, frame, raw FROM log
WHERE chain = (SELECT no FROM chains WHERE id = :id) AND last >= :first AND last <= coalesce((
    SELECT min(last) FROM log WHERE chain = (SELECT no FROM chains WHERE id = :id) AND last >= :end
), :end) AND first <= :end ORDER BY last LIMIT :page
"""
ROWS_NEWEST_FIRST = ROWS.replace("ORDER BY last", "ORDER BY last DESC")


def write_all(connection: sqlite3.Connection, writes: Sequence[Write]) -> list[bool]:
    """All writes; the plain appends in one statement run many times, unless one of them is refused."""
    plain = [write.row for write in writes if write.change is None and write.opens is None]
    if len(plain) > 1:
        connection.execute("SAVEPOINT plain")
        accepted = connection.executemany(_APPEND, map(_values, plain)).rowcount
        if accepted == len(plain):
            connection.execute("RELEASE plain")
            return [
                (write.change is None and write.opens is None) or _write_one(connection, write)
                for write in writes
            ]
        connection.execute("ROLLBACK TO plain")
        connection.execute("RELEASE plain")
    return [_write_one(connection, write) for write in writes]


def append(connection: sqlite3.Connection, row: Row) -> bool:
    """Compare and append; False where it was refused."""
    return connection.execute(_APPEND, _values(row)).rowcount == 1


def _values(row: Row) -> tuple[Any, ...]:
    return (
        row.last,
        row.first,
        row.at,
        row.checkpoints,
        row.frame,
        row.raw,
        row.chain_id,
        row.token,
        row.first - 1,
    )


def _write_one(connection: sqlite3.Connection, write: Write) -> bool:
    row, change = write.row, write.change
    if write.opens is not None:
        if not _open_entry(connection, write.opens, row):
            return False
    elif not append(connection, row):
        return False
    if change is not None:
        release = change.release
        connection.execute(
            _CHANGE,
            (
                change.status,
                change.reason,
                change.group,
                change.until,
                change.at,
                release,
                release,
                row.chain_id,
                row.token,
            ),
        )
    return True


def _open_entry(connection: sqlite3.Connection, entry: Entry, row: Row) -> bool:
    if (entry.token, entry.last) != (row.token, row.first - 1):
        return False
    opened = connection.execute(
        _OPEN,
        (
            entry.chain_id,
            entry.token,
            entry.owner,
            entry.lease_until,
            entry.status,
            entry.reason,
            entry.group,
            entry.label,
            entry.until,
            entry.opened_at,
            entry.updated_at,
        ),
    )
    if opened.rowcount != 1:
        return False
    values = (row.last, row.first, row.at, row.checkpoints, row.frame, row.raw, row.chain_id)
    connection.execute(_FIRST, values)
    return True


def renew(connection: sqlite3.Connection, one: Renewal) -> bool:
    """Renew a lease, or give it back; False where it is no longer the owner's."""
    renewed = connection.execute(
        "UPDATE chains SET owner = ?, lease_until = ? WHERE id = ? AND token = ? AND (? = x'' OR owner = ?)",
        (one.owner, one.until, one.chain_id, one.token, one.owner, one.owner),
    )
    return renewed.rowcount == 1


def delete_one(connection: sqlite3.Connection, entry: Entry) -> int:
    """Delete a run whose token still is the entry's; its checkpoints."""
    found = _number(connection, entry.chain_id, entry.token)
    if found is None:
        return 0
    (removed,) = connection.execute(
        "SELECT coalesce(sum(checkpoints), 0) FROM log WHERE chain = ?", (found,)
    ).fetchone()
    connection.execute("DELETE FROM log WHERE chain = ?", (found,))
    connection.execute("DELETE FROM chains WHERE no = ?", (found,))
    return int(removed)


def _number(connection: sqlite3.Connection, chain_id: str, token: int) -> int | None:
    """The number of a run in the tables; None where there is none of that token."""
    where = (chain_id, token)
    found = connection.execute("SELECT no FROM chains WHERE id = ? AND token = ?", where).fetchone()
    return None if found is None else int(found[0])


def trim(connection: sqlite3.Connection, row: Row) -> int | None:
    """Put ``row`` in place of the rows in its range; None where it does not fit there."""
    number = _number(connection, row.chain_id, row.token)
    covered = (number, row.first, row.last)
    first, last, checkpoints, newest = connection.execute(
        "SELECT min(first), max(last), sum(checkpoints), (SELECT max(last) FROM log WHERE chain = ?1) "
        "FROM log WHERE chain = ?1 AND last >= ?2 AND first <= ?3",
        covered,
    ).fetchone()
    if (first, last) != (row.first, row.last) or last == newest:
        return None
    connection.execute("DELETE FROM log WHERE chain = ? AND last >= ? AND first <= ?", covered)
    values = (row.last, row.first, row.at, row.checkpoints, row.frame, row.raw, row.chain_id)
    connection.execute(_FIRST, values)
    return int(checkpoints) - row.checkpoints


_ROW_TYPES = (int, int, int, float, int, bytes, int)
_ENTRY_TYPES = (str, int, bytes, float, str, str, str, str, float, float, float, int)


def as_row(chain_id: str, values: tuple[Any, ...]) -> Row:
    """A row of the log; its columns are compared with their types, since a page may be damaged."""
    if tuple(map(type, values)) != _ROW_TYPES:
        first = values[0] if isinstance(values[0], int) else 0
        raise DamagedRecordError(chain_id, first, first, "its row holds values of another type")
    return Row(chain_id, *values)


def as_entry(values: tuple[Any, ...]) -> Entry:
    """An entry, compared likewise."""
    if tuple(map(type, values)) != _ENTRY_TYPES or values[4] not in STATUSES:
        raise StorageError(f"the entry of run {values[0]!r} is damaged: copy the other runs into a new store")
    return Entry(*values)


def conditions(query: Query) -> tuple[str, list[Any]]:
    """The constant conditions that ``query`` needs, and the values they are given."""
    parts: list[str] = []
    values: list[Any] = []
    if query.statuses is not None:
        parts.append(f"status IN ({', '.join('?' * len(query.statuses))})")
        values.extend(query.statuses)
    conditions = (
        # SQLite uses a partial index only where its condition is said again.
        ("grp = ? AND grp != ''" if query.group else "grp = ?", query.group),
        ("label = ? AND label != ''" if query.label else "label = ?", query.label),
        ("updated_at < ?", query.updated_before),
        ("updated_at >= ?", query.updated_since),
    )
    for condition, value in conditions:
        if value is not None:
            parts.append(condition)
            values.append(value)
    if query.after is not None:
        parts.append("(updated_at, id) < (?, ?)")
        values.extend((query.after.updated_at, query.after.chain_id))
    return ("WHERE " + " AND ".join(parts)) if parts else "", values
