"""Rows, entries and questions as the Redis scripts take and give them (floor 3).

Numbers travel as text, which both ends read to the same bits. Texts are UTF-8; a lone surrogate, which no id
holds but a question may ask for, is kept apart from everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sifaka.log.records import Status
from sifaka.storage.base import Change, Entry, Query, Row, Write
from sifaka.storage.redis.scripts import HEADER

__all__ = [
    "command",
    "cursor",
    "number",
    "pack_query",
    "pack_row",
    "pack_write",
    "raw",
    "read_entry",
    "read_row",
    "text",
]


def raw(value: str) -> bytes:
    """A text's bytes; they sort as its code points do."""
    return value.encode("utf-8", "surrogatepass")


def text(value: bytes) -> str:
    """The text that :func:`raw` made bytes of."""
    return value.decode("utf-8", "surrogatepass")


def command(parts: Sequence[bytes]) -> bytes:
    """A command as it travels. The library's own packing takes several times as long for many small parts."""
    return b"".join([b"*%d\r\n" % len(parts), *[b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]])


def pack_row(row: Row) -> bytes:
    """A row as a member of its run's sorted set."""
    return HEADER.pack(row.first, row.last, row.token, row.at, row.checkpoints, row.raw) + row.frame


def read_row(chain_id: str, member: bytes) -> Row:
    """The row that :func:`pack_row` packed."""
    first, last, token, at, checkpoints, raw_size = HEADER.unpack_from(member)
    return Row(chain_id, first, last, token, at, checkpoints, member[HEADER.size :], raw_size)


def pack_write(write: Write) -> list[bytes]:
    """One compare-and-append: what to compare, the row, and what to set in the run's entry."""
    row, change, opens = write.row, write.change, write.opens
    place = b"%d" % row.token, b"%d" % (row.first - 1), b"%d" % row.last
    given = [raw(row.chain_id), pack_row(row), *place]
    if opens is None and change is None:
        return [*given, b"0", b"0"]
    fields = {} if opens is None else _pack_entry(opens)
    if change is not None:
        fields |= _pack_change(change)
    pairs = (part for name, value in fields.items() for part in (name.encode(), value))
    return [*given, b"0" if opens is None else b"1", b"%d" % len(fields), *pairs]


def _pack_change(change: Change) -> dict[str, bytes]:
    fields = {
        "status": raw(change.status),
        "reason": raw(change.reason),
        "group": raw(change.group),
        "until": number(change.until),
        "updated_at": number(change.at),
    }
    return fields | {"owner": b"", "lease_until": b"0.0"} if change.release else fields


def _pack_entry(entry: Entry) -> dict[str, bytes]:
    return {
        "token": number(entry.token),
        "owner": entry.owner,
        "lease_until": number(entry.lease_until),
        "status": raw(entry.status),
        "reason": raw(entry.reason),
        "group": raw(entry.group),
        "label": raw(entry.label),
        "until": number(entry.until),
        "opened_at": number(entry.opened_at),
        "updated_at": number(entry.updated_at),
        "last": number(entry.last),
    }


def read_entry(chain_id: str, fields: Sequence[bytes]) -> Entry:
    """The entry whose fields are in the order of ``ENTRY_FIELDS``."""
    token, owner, lease_until, status, reason, group, label, until, opened_at, updated_at, last = fields
    return Entry(
        chain_id,
        int(token),
        owner,
        float(lease_until),
        cast("Status", text(status)),
        text(reason),
        text(group),
        text(label),
        float(until),
        float(opened_at),
        float(updated_at),
        int(last),
    )


def pack_query(query: Query, after: tuple[bytes, bytes] | None, limit: int, budget: int) -> list[bytes]:
    """A listing's next step: behind ``after`` (time and id), ``limit`` entries, ``budget`` looked at."""
    before, since = query.updated_before, query.updated_since
    wanted = (
        None if query.group is None else raw(query.group),
        None if query.label is None else raw(query.label),
        None if before is None else number(before),
        None if since is None else number(since),
        *(after or (None, None)),
    )
    statuses = () if query.statuses is None else (b"statuses", *map(raw, query.statuses))
    return [*(b"" if one is None else b"=" + one for one in wanted), b"%d" % limit, b"%d" % budget, *statuses]


def cursor(entry: Entry) -> tuple[bytes, bytes]:
    """Where a listing goes on behind ``entry``."""
    return number(entry.updated_at), raw(entry.chain_id)


def number(value: float) -> bytes:
    """The shortest text that reads as the same number."""
    return repr(value).encode()
