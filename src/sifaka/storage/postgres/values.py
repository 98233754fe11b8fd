"""What goes into the Postgres store's statements, and what comes out of them (floor 3).

Postgres texts cannot hold the character NUL. :func:`outgoing` writes it as the pair U+0001 U+0001, and
U+0001 itself as U+0001 U+0002: reversible, and the order by code point stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sifaka.storage.base import Change, Entry, Query, Renewal, Row, Write
from sifaka.storage.postgres.statements import APPEND, APPEND_PLAIN, ENTRY, OPEN, RENEW

__all__ = [
    "Bools",
    "Bytes",
    "Floats",
    "Integers",
    "Step",
    "Texts",
    "entry_of",
    "incoming",
    "listing",
    "lone",
    "outgoing",
    "renewing",
    "replacing",
    "row_of",
    "turns",
    "upper_bound",
    "writing",
]


class Step(NamedTuple):
    """A statement, its values, and by what it tells of each change in it, by the change's place.

    That is the run's id (as it is stored), or the change's number in the statement.
    """

    statement: str
    values: tuple[Any, ...]
    keys: dict[int, str] | dict[int, int]


class Integers(list[int]):
    """An array of the server's type bigint; the classes below likewise of theirs."""


class Floats(list[float]):
    """float8."""


class Texts(list[str]):
    """text."""


class Bytes(list[bytes]):
    """bytea."""


class Bools(list[bool]):
    """bool."""


_ROW = (Texts, Integers, Integers, Integers, Floats, Integers, Integers, Integers)
_CHANGE = (Bools, Texts, Texts, Texts, Floats, Floats, Bools)
_ENTRY = (Texts, Integers, Bytes, Floats, Texts, Texts, Texts, Texts, Floats, Floats, Floats)
_FIRST = (Integers, Integers, Floats, Integers, Integers, Bytes)
_RENEWAL = (Texts, Integers, Bytes, Floats)

_ESCAPED = re.compile("[\0\1]")
_PAIR = re.compile("\1([\1\2])")


def outgoing(text: str) -> str:
    """``text`` as the server can hold it."""
    if "\0" in text or "\1" in text:
        return _ESCAPED.sub(lambda found: "\1\1" if found[0] == "\0" else "\1\2", text)
    return text


def incoming(text: str) -> str:
    """The text that :func:`outgoing` was given."""
    if "\1" in text:
        return _PAIR.sub(lambda found: "\0" if found[1] == "\1" else "\1", text)
    return text


def upper_bound(prefix: str) -> str:
    """The first text behind all that begin with ``prefix``; "" where there is none."""
    head = prefix.rstrip("\U0010ffff")
    if not head:
        return ""
    code = ord(head[-1]) + 1
    return head[:-1] + chr(0xE000 if code == 0xD800 else code)  # surrogates are no characters


def entry_of(found: Sequence[Any]) -> Entry:
    """The entry in a row of the server's."""
    chain_id, token, owner, lease_until, status, reason, group, label, *rest = found
    texts = (incoming(reason), incoming(group), incoming(label))
    return Entry(incoming(chain_id), token, owner, lease_until, status, *texts, *rest)


def row_of(chain_id: str, found: Sequence[Any]) -> Row:
    """The row of a log in a row of the server's."""
    return Row(chain_id, *found)


def turns(ids: Sequence[str]) -> list[list[int]]:
    """The places of ``ids``, in rounds that hold each id at most once, in the order of ids.

    A statement changes a row once, so what an old and a new owner write at the same moment takes two. As a
    rule the order of ids is the order of locks, and two batches that meet wait in one direction; where the
    server chooses another, one of the two is refused as a deadlock, and carried out again.
    """
    seen: dict[str, int] = {}
    found: list[list[int]] = []
    for place, chain_id in enumerate(ids):
        turn = seen.get(chain_id, 0)
        seen[chain_id] = turn + 1
        if turn == len(found):
            found.append([])
        found[turn].append(place)
    for places in found:
        places.sort(key=ids.__getitem__)
    return found


def writing(writes: Sequence[Write]) -> list[Step]:
    """The statements that carry out ``writes``; a lone one as a rule."""
    rounds = turns([write.row.chain_id for write in writes])
    return [step for places in rounds for step in _round(writes, places)]


def _round(writes: Sequence[Write], places: Sequence[int]) -> Iterator[Step]:
    """One round's statements: appends to runs that are there, and runs that begin."""
    follow = [place for place in places if writes[place].opens is None]
    begin = [place for place in places if _begins(writes[place])]
    if follow:
        yield _appending([writes[place] for place in follow], follow)
    if begin:
        keys = {place: outgoing(writes[place].row.chain_id) for place in begin}
        yield Step(OPEN, _columns((*_ENTRY, *_FIRST), (_open_values(writes[place]) for place in begin)), keys)


def _appending(writes: Sequence[Write], places: Sequence[int]) -> Step:
    if all(write.change is None for write in writes):
        statement, columns = APPEND_PLAIN, _columns(_ROW, map(_row_values, writes))
    else:
        statement, columns = APPEND, _columns((*_ROW, *_CHANGE), map(_append_values, writes))
    frames = Bytes(write.row.frame for write in writes)
    return Step(statement, (*columns, frames), {place: number for number, place in enumerate(places, 1)})


def lone(row: Row) -> tuple[Any, ...]:
    """The values of ``APPEND_ONE``."""
    at = float(row.at)
    checked_at = at if row.checkpoints else None
    counts = (row.last - row.first + 1, row.checkpoints, row.raw, len(row.frame), checked_at, checked_at)
    told = (row.last, row.first, row.token, at, row.checkpoints, row.raw, row.frame)
    return (row.last, *counts, outgoing(row.chain_id), row.token, row.first - 1, *told)


def _begins(write: Write) -> bool:
    entry, row = write.opens, write.row
    return entry is not None and (entry.token, entry.last) == (row.token, row.first - 1)


_UNCHANGED = Change("running", 0.0)


def _row_values(write: Write) -> tuple[Any, ...]:
    row = write.row
    key = outgoing(row.chain_id)
    return key, row.token, row.first, row.last, row.at, row.checkpoints, row.raw, len(row.frame)


def _append_values(write: Write) -> tuple[Any, ...]:
    change = write.change or _UNCHANGED
    return (
        *_row_values(write),
        write.change is not None,
        change.status,
        outgoing(change.reason),
        outgoing(change.group),
        change.until,
        change.at,
        change.release,
    )


def _open_values(write: Write) -> tuple[Any, ...]:
    row, entry = write.row, write.opens or Entry(write.row.chain_id)
    if write.change is not None:  # one that comes with the first append is in the entry already
        entry = write.change.applied_to(entry)
    return (
        outgoing(row.chain_id),
        entry.token,
        entry.owner,
        entry.lease_until,
        entry.status,
        outgoing(entry.reason),
        outgoing(entry.group),
        outgoing(entry.label),
        entry.until,
        entry.opened_at,
        entry.updated_at,
        row.first,
        row.last,
        row.at,
        row.checkpoints,
        row.raw,
        row.frame,
    )


def renewing(renewals: Sequence[Renewal]) -> list[Step]:
    """The statements that carry out ``renewals``; a lone one as a rule."""
    found: list[Step] = []
    for places in turns([one.chain_id for one in renewals]):
        keys = {place: outgoing(renewals[place].chain_id) for place in places}
        rows = [(keys[place], renewals[place]) for place in places]
        columns = _columns(_RENEWAL, ((key, one.token, one.owner, one.until) for key, one in rows))
        found.append(Step(RENEW, columns, keys))
    return found


def replacing(no: int, row: Row, less: tuple[int, int, int]) -> tuple[Any, ...]:
    """The values of ``REPLACE``; ``less`` is by how much the run's counters change."""
    told = (no, row.last, row.first, row.token, row.at, row.checkpoints, row.raw, row.frame)
    return (*told, *less, no)


def _columns(kinds: Sequence[type[list[Any]]], rows: Iterable[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    return tuple(kind(column) for kind, column in zip(kinds, zip(*rows, strict=True), strict=True))


_PAGE = "ORDER BY updated_at DESC, id DESC LIMIT %b"


def listing(query: Query) -> tuple[str, list[Any]]:
    """The statement for a page of entries, and its values.

    Several statuses are as many walks along the index by status, merged: one walk along the index by time
    would read all runs that are done to find the few that wait.
    """
    where, values = _conditions(query)
    statuses = list(dict.fromkeys(query.statuses or ()))
    if query.statuses is None or query.group or query.label:
        if query.statuses is not None:
            where, values = [*where, "status = ANY(%b::text[])"], [*values, statuses]
        return _select(where), [*values, query.limit]
    branch = _select(["status = %b", *where])
    if len(statuses) == 1:
        return branch, [statuses[0], *values, query.limit]
    values = [value for status in statuses for value in (status, *values, query.limit)]
    return f"{' UNION ALL '.join([f'({branch})'] * len(statuses))} {_PAGE}", [*values, query.limit]


def _select(where: Sequence[str]) -> str:
    return ENTRY + (f"WHERE {' AND '.join(where)} " if where else "") + _PAGE


def _conditions(query: Query) -> tuple[list[str], list[Any]]:
    """The constant conditions that ``query`` needs, and their values."""
    parts: list[str] = []
    values: list[Any] = []
    given: tuple[tuple[str, str | float | None], ...] = (
        ("grp = %b", query.group),
        ("label = %b", query.label),
        ("updated_at < %b", query.updated_before),
        ("updated_at >= %b", query.updated_since),
    )
    for condition, value in given:
        if value is not None:
            parts.append(condition)
            values.append(outgoing(value) if isinstance(value, str) else float(value))
    # What a partial index leaves out has to be ruled out in as many words for the planner to use it.
    parts += [f"{name} <> ''" for name, value in (("grp", query.group), ("label", query.label)) if value]
    if query.after is not None:
        parts.append("(updated_at, id) < (%b, %b)")
        values += (float(query.after.updated_at), outgoing(query.after.chain_id))
    return parts, values
