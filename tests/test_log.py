"""The log's bytes: every record comes back equal, and every damage is found and named."""

from __future__ import annotations

import struct
import sys
from typing import Any
from zlib import crc32

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sifaka.errors import DamagedRecordError, DataError, FormatError, UnstorableError
from sifaka.faults import KINDS, Fault
from sifaka.log import codec
from sifaka.log.codec import decode, encode, link_of
from sifaka.log.records import (
    OPERATIONS,
    STATUSES,
    STEPS,
    Best,
    Changed,
    Closed,
    Faulted,
    Handle,
    Intent,
    Opened,
    OpenRecovery,
    Outcome,
    Partial,
    PlannedPart,
    Position,
    Reached,
    Record,
    Recovery,
    Result,
    Summary,
    Totals,
)
from sifaka.parts import Usage
from sifaka.thought import CriticFeedback, Document, DoubtfulCall, ValidationResult

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
number = st.floats(allow_nan=False)
count = st.integers(min_value=-(2**63), max_value=2**63 - 1)
json_like: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | count | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
free = st.dictionaries(text, json_like, max_size=3)
texts = st.lists(text, max_size=3).map(tuple)
operation = st.sampled_from(OPERATIONS)
money = st.none() | number

position = st.builds(Position, operation, count, st.booleans())
document = st.builds(Document, text, text, money, free)
verdict = st.builds(ValidationResult, st.booleans(), text, money, texts, texts, text, st.booleans())
feedback = st.builds(CriticFeedback, st.booleans(), text, texts, texts, money, text, st.booleans(), free)
doubt = st.builds(DoubtfulCall, text, count, text, text, money, count)
parts = st.lists(st.builds(PlannedPart, text, text, text), max_size=3).map(tuple)
totals = st.builds(Totals, number, count, count, count, count)
fault = st.builds(
    Fault,
    kind=st.sampled_from(KINDS),
    transient=st.booleans(),
    retry_after_s=money,
    billed=text,
    signature=text,
    error_class=text,
    message=text,
    causes=texts,
    status=st.none() | count,
)
recovery = st.builds(
    Recovery,
    number,
    operation,
    count,
    text,
    text,
    text,
    position,
    free,
    texts,
    st.booleans(),
    number,
    number,
    number,
    st.booleans(),
    text,
    text,
    text,
    text,
)
open_recovery = st.builds(OpenRecovery, count, recovery, totals)
summary = st.builds(
    Summary,
    totals,
    number,
    free,
    st.lists(count, max_size=3).map(tuple),
    st.lists(doubt, max_size=2).map(tuple),
    st.none() | st.builds(Best, count, count, count, number),
    count,
    count,
    count,
    count,
    number,
    st.none() | st.builds(Changed, text, st.none() | text, parts, free),
    st.none() | open_recovery,
)
record: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        Opened,
        number,
        text,
        st.none() | text,
        st.none() | text,
        st.none() | parts,
        st.none() | free,
        count,
        text,
        st.lists(count, max_size=3).map(tuple),
        st.none() | st.tuples(text, count),
    ),
    st.builds(Intent, number, operation, count, text, count, count, text, text, money, st.none() | free),
    st.builds(Handle, number, count, text),
    st.builds(Partial, number, count, text),
    st.builds(
        Result,
        number,
        count,
        operation,
        count,
        text,
        number,
        st.none() | text,
        st.none() | st.lists(document, max_size=3).map(tuple),
        st.none() | verdict,
        st.none() | feedback,
        st.none() | st.builds(Usage, count, count),
        money,
        text,
        text,
        text,
        texts,
    ),
    st.builds(Faulted, number, count, operation, count, text, fault, count, number),
    recovery,
    st.builds(Outcome, number, count, st.booleans(), number, number),
    st.builds(Reached, number, st.sampled_from(STEPS), count, position, number, st.none() | summary),
    st.builds(Closed, number, st.sampled_from(STATUSES), text, count, st.booleans()),
)

AT: dict[str, Any] = {"chain_id": "a chain", "first": 7, "token": 3}


def frame_of(*records: Record, prev: int = 0) -> bytes:
    return encode(records, **AT, prev=prev)


SMALL = frame_of(Partial(1.0, 2, "a partial text"), Closed(2.0, "done"), prev=99)
LARGE = frame_of(Partial(1.0, 2, "what the model has said so far, " * 40))


@given(st.lists(record, min_size=1, max_size=4))
def test_any_record_comes_back_equal(records: list[Record]) -> None:
    assert decode(encode(records, **AT, prev=5), **AT, prev=5) == records


def test_every_kind_of_record_is_tried() -> None:
    kinds = set(Record.__args__)  # type: ignore[attr-defined]
    assert len(kinds) == 10
    tags = {kind.__struct_config__.tag for kind in kinds}
    assert tags == set(range(1, 11))


def test_a_nan_comes_back() -> None:
    (back,) = decode(frame_of(Outcome(1.0, 0, success=True, cost_usd=float("nan"))), **AT)
    assert isinstance(back, Outcome)
    assert back.cost_usd != back.cost_usd


def test_large_bodies_are_compressed_and_small_ones_are_not() -> None:
    assert LARGE[1] == 1
    assert len(LARGE) < 400
    assert SMALL[1] == 0


@pytest.mark.parametrize("frame", [SMALL, LARGE], ids=["small", "large"])
def test_every_flipped_bit_is_found_and_named(frame: bytes) -> None:
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedRecordError, match="records 7 to"):
            decode(bytes(damaged), **AT)


@pytest.mark.parametrize("frame", [SMALL, LARGE], ids=["small", "large"])
def test_every_torn_tail_is_found(frame: bytes) -> None:
    for length in range(len(frame)):
        with pytest.raises(DamagedRecordError):
            decode(frame[:length], **AT)
    with pytest.raises(DamagedRecordError):
        decode(frame + b"\0", **AT)


@pytest.mark.parametrize("place", [{"chain_id": "another"}, {"first": 8}, {"token": 4}, {"prev": 1}], ids=str)
def test_a_frame_that_was_moved_is_found(place: dict[str, Any]) -> None:
    with pytest.raises(DamagedRecordError):
        decode(SMALL, **{**AT, **place})


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_at_all_give_the_typed_error(data: bytes) -> None:
    with pytest.raises(DataError):
        decode(data, **AT)


@given(st.binary(max_size=60), st.integers(0, 1))
@settings(max_examples=300)
def test_any_body_under_a_right_checksum_gives_records_or_the_typed_error(body: bytes, flags: int) -> None:
    try:
        records = decode(forged(body, flags=flags, raw=len(body)), **AT)
    except DamagedRecordError:
        return
    assert all(type(one) in Record.__args__ for one in records)  # type: ignore[attr-defined]


def forged(body: bytes, *, version: int = 1, flags: int = 0, records: int = 1, raw: int = 0) -> bytes:
    """A frame with a right checksum, as somebody who knows the format could write it."""
    head = struct.pack("<BBHII", version, flags, records, raw, 0)
    place = crc32(AT["chain_id"].encode(), crc32(struct.pack("<QQ", AT["first"], AT["token"])))
    return head + crc32(body, crc32(head, place)).to_bytes(4, "little") + body


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(FormatError, match="format 9, this version of sifaka reads up to 2"):
        decode(forged(b"?", version=9), **AT)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zstandard.compress(bytes(10_000_000))
    with pytest.raises(DamagedRecordError, match="length is wrong"):
        decode(forged(bomb, flags=1, raw=100), **AT)
    monkeypatch.setattr(codec, "BODY_BYTES_MAX", 1_000_000)
    with pytest.raises(DamagedRecordError, match="claims 10,000,000 bytes"):
        decode(forged(bomb, flags=1, raw=10_000_000), **AT)


def test_a_body_that_is_too_large_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "BODY_BYTES_MAX", 1_000)
    with pytest.raises(UnstorableError, match="the limit is 1,000"):
        frame_of(Partial(1.0, 1, "x" * 1_001))


def deep(levels: int) -> Any:
    inner: Any = 0
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2} and object, 2**64, "\ud800", {"k": "\udfff"}, deep(100_000), {"a": {object(): 1}}],
    ids=["object", "type", "integer", "surrogate", "inner-surrogate", "deep", "key"],
)
def test_what_no_record_can_hold_is_one_typed_error(value: Any) -> None:
    opened = Opened(1.0, "a chain", settings={"value": value})
    with pytest.raises(UnstorableError, match="record 7 of run 'a chain' cannot be stored"):
        frame_of(opened)


def test_a_deeply_nested_body_is_damage_and_no_crash() -> None:
    body = b"\x91" * (sys.getrecursionlimit() * 10) + b"\xc0"
    with pytest.raises(DamagedRecordError):
        decode(forged(body, raw=len(body)), **AT)


def test_what_imitates_our_own_records_comes_back_as_plain_data() -> None:
    imitation = msgspec.to_builtins(Closed(2.0, "done"))
    (back,) = decode(frame_of(Opened(1.0, "a chain", settings={"x": imitation, "type": 10})), **AT)
    assert isinstance(back, Opened)
    assert back.settings == {"x": [10, 2.0, "done", "", -1, False], "type": 10}


def test_frames_are_linked() -> None:
    first = frame_of(Partial(1.0, 1, "one"))
    second = encode([Partial(2.0, 1, "two")], chain_id="a chain", first=8, token=3, prev=link_of(first))
    place: dict[str, Any] = {"chain_id": "a chain", "first": 8, "token": 3}
    assert decode(second, **place, prev=link_of(first))
    with pytest.raises(DamagedRecordError, match="does not follow the record before it"):
        decode(second, **place, prev=link_of(LARGE))
