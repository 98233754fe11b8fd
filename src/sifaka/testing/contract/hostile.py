"""Hostile data: ids that look like something else, payloads in every text, huge and odd frames (floor 8)."""

from __future__ import annotations

from sifaka.errors import SifakaError
from sifaka.storage.base import Cell, Change, Query, Storage, Write
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import START, entry_of, names, opening, put, row, shown, started

__all__ = ["PAYLOADS", "hostile"]

hostile = Theme("hostile data")

PAYLOADS = (
    "'; DROP TABLE log; --", '"; DROP TABLE chains; --', "' OR '1'='1", "1); DELETE FROM chains; --", "'",
    "?", "\\", "NULL", "null", "None", "0", "-1", "true", "%s", "%(id)s", "$1", ":id", "{}", "{0}", "{a}b",
    "{{a}}", "*", "a*", "[a-z]", "%", "_", "\\x00", "..", "../../etc/passwd", "/", "a/b", "a:b", ":", "::",
    "a:", ":a", "sifaka", "sifaka:cells", "sifaka:{a}:rows", "cells", "log", "chains", "rows", "entry",
    "__proto__", "KEYS *", "FLUSHALL", "$7 FLUSHDB", "return redis.call('flushall')", "'||pg_sleep(9)||'",
    "COPY log TO PROGRAM 'id'", " ", "  a  ", "\u00e4\u20ac", "\U0001f600", "e\u0301", "\u00e9",
    "\u05d0\u05d1", "\ufeffa", "\uffff", "\U0010ffff", "x" * 200, "\U0001f600" * 200,
)  # fmt: skip
"""Texts that some store might take for something else. Journals refuse a few of them as ids, stores don't."""

TEXTS = (
    *PAYLOADS, "a\nb", "a\r\nb", "\t", "\x1b[31mred", "a\0b", "\0", "\1", "\1\1", "\0\1\0", "\x7f", "\u2028",
    "x" * 20_000,
)  # fmt: skip
"""Payloads, and control characters: a reason may hold what a provider answered."""


@hostile.check
def ids_that_look_like_something_else_are_just_ids(store: Opener) -> None:
    """Every id is its own run: opened, appended to, claimed, listed, and deleted alone."""
    storage = store()
    put(storage, *(opening(name) for name in PAYLOADS))
    put(storage, *(Write(row(name, 1)) for name in PAYLOADS))
    for name in PAYLOADS:
        expect_equal(list(storage.rows(name)), [row(name, 0), row(name, 1)], f"{name!r} has its own rows")
    listed = names(storage.entries(Query(limit=500)))
    expect_equal(listed, sorted(PAYLOADS, reverse=True), "every id is listed as it is")
    for name in PAYLOADS[::2]:
        expect(storage.claim(name, 1, b"new", START), "a run can be claimed under its token", name=name)
    for name in PAYLOADS[::2]:
        expect_equal(storage.delete([entry_of(storage, name)]), 2, f"{name!r} is deleted alone")
    left = names(storage.entries(Query(limit=500)))
    expect_equal(left, sorted(PAYLOADS[1::2], reverse=True), "the others are all there")
    expect_equal({entry_of(storage, name).last for name in left}, {1}, "with all their records")


@hostile.check
def payloads_in_texts_are_just_texts(store: Opener) -> None:
    """Reason, group and label come back to the character, and are filters for themselves only."""
    storage = store()
    for n, text in enumerate(TEXTS):
        put(storage, opening(f"run {n}", label=text, updated_at=START + n))
    for n, text in enumerate(TEXTS):
        put(storage, Write(row(f"run {n}", 1), Change("failed", START + n, f"why: {text}", text)))
    for n, text in enumerate(TEXTS):
        entry = entry_of(store(), f"run {n}")
        expect_equal((entry.reason, entry.group, entry.label), (f"why: {text}", text, text), "texts are kept")
        by_group = names(storage.entries(Query(group=text)))
        expect_equal(by_group, [f"run {n}"], f"the group {text[:40]!r} is the group of one run")
        by_label = names(storage.entries(Query(label=text)))
        expect_equal(by_label, [f"run {n}"], f"the label {text[:40]!r} is the label of one run")


@hostile.check
def payloads_in_cells_are_just_names_and_values(store: Opener) -> None:
    """Cell names are text, values are bytes, whatever they look like."""
    storage = store()
    for text in PAYLOADS:
        expect(storage.swap(text, text.encode(), 0), "a new cell can be set", name=text)
    for text in PAYLOADS:
        expect_equal(storage.cells([text]), [Cell(text.encode(), 1)], f"the cell {text!r} holds its value")
    expect_equal(storage.cell_names(), sorted(PAYLOADS), "every name is listed as it is")
    for text in PAYLOADS:
        wanted = sorted(name for name in PAYLOADS if name.startswith(text))
        expect_equal(storage.cell_names(text), wanted, f"{text!r} as a prefix is just text")


@hostile.check
def payloads_as_owners_are_just_bytes(store: Opener) -> None:
    """Owners are compared as bytes."""
    storage = store()
    token = started(storage).token
    for text in (*PAYLOADS, "\0", "\0\0", "a\0", "a"):
        owner = text.encode()
        expect(storage.claim("a", token, owner, START), "a run can be claimed under its token", owner=owner)
        token += 1
        expect_equal(entry_of(storage, "a").owner, owner, "the owner is who claimed")


@hostile.check
def frames_are_opaque(store: Opener) -> None:
    """Bytes of any kind and length come back to the bit: NULs, all bytes, a line break, megabytes."""
    storage = store()
    frames = [b"\0", b"\0" * 9, bytes(range(256)), b"\r\n", b"\\x00", b"'", b"%s", b"\xff\xfe", b"x" * 70_000]
    frames += [text.encode() for text in PAYLOADS]
    frames += [bytes(n * n % 251 for n in range(997)) * 4_200]
    started(storage)
    for n, frame in enumerate(frames, 1):
        put(storage, Write(row("a", n, frame=frame, raw=len(frame))))
    found = [one.frame for one in store().rows("a", 1)]
    expect_equal([len(one) for one in found], [len(one) for one in frames], "frames keep their length")
    differ = [n for n, (one, other) in enumerate(zip(found, frames, strict=True)) if one != other]
    expect_equal(differ, [], "frames come back to the bit")


@hostile.check
def numbers_and_times_are_kept_exactly(store: Opener) -> None:
    """Large record numbers, tokens and sizes; times to the last bit of a float."""
    storage = store()
    first, token = 2**40, 2**40 + 7
    times = (START + 0.1 + 0.2, 1 / 3, 2.0**33 + 2.0**-19, 0.0)
    put(storage, opening("a", first=first, token=token, opened_at=times[0], updated_at=times[1],
                         until=times[2], lease_until=times[2]))  # fmt: skip
    rows = [row("a", first + n, token=token, at=at, raw=2**40) for n, at in enumerate(times, 1)]
    for one in rows:
        put(storage, Write(one))
    expect_equal(list(store().rows("a", first + 1)), rows, "rows keep their numbers and times")
    entry = entry_of(storage, "a")
    told = (entry.opened_at, entry.updated_at, entry.until, entry.lease_until, entry.token, entry.last)
    wanted = (*times[:3], times[2], token, first + 4)
    expect_equal(told, wanted, "entries keep their numbers and times")


@hostile.check
def text_that_no_encoding_holds_is_kept_or_refused(store: Opener) -> None:
    """Lone surrogates come back as they are or are refused with one of sifaka's errors: no third outcome."""
    storage = store()
    started(storage, "other")
    kept = shown(storage, "other")
    odd = "half of a character: \ud83d"
    if _accepts(storage, opening("a", label=odd)):
        expect_equal(entry_of(storage, "a").label, odd, "what was accepted is kept")
    else:
        expect_equal(shown(storage, "a"), [(None, [])], "what was refused left nothing")
        started(storage)
    before = shown(storage, "a")
    if _accepts(storage, Write(row("a", 1), Change("failed", START + 1, odd))):
        expect_equal(entry_of(storage, "a").reason, odd, "what was accepted is kept")
    else:
        expect_equal(shown(storage, "a"), before, "what was refused left nothing")
    put(storage, Write(row("other", 1)))
    expect_equal(shown(storage, "other")[0][1][:1], kept[0][1], "other runs go on")


def _accepts(storage: Storage, write: Write) -> bool:
    try:
        return storage.write([write])[0]
    except SifakaError:
        storage.reset()
        return False
