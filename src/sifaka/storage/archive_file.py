"""An archive as a file: how its items are written, read and checked (floor 3).

A line names the format. Then comes one zstd stream: length-prefixed msgpack items, a run's entry and then its
rows, and at the end a count of both. The file ends with the SHA-256 of all that is before: it finds damage,
not a forger. So whatever is read is checked as if a stranger had written it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from math import isfinite
from typing import BinaryIO

import msgspec
import zstandard

from sifaka.errors import ArchiveError, ChainIdError, DamagedRecordError, FormatError
from sifaka.log.codec import BODY_BYTES_MAX, link_of
from sifaka.log.records import Reached
from sifaka.storage.base import Entry, Row
from sifaka.storage.journal import check_chain_id
from sifaka.storage.reading import decode_row

__all__ = ["new_file", "read_archive", "write_runs"]

NAME = b"sifaka archive "
FORMAT = 1
MAGIC = NAME + b"%d\n" % FORMAT
LEVEL = 10
"""zstd's level for archives: written once, seldom read."""
WINDOW_LOG = 23
"""Texts are compared with up to 8 MiB before them; no reader has to grant more."""
LENGTH_BYTES = 4
CHUNK_BYTES = 1 << 20
ITEM_BYTES_MAX = BODY_BYTES_MAX + 4096
TOKEN_MAX = 2**53
"""The largest token that every store can count on from."""


class _End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    runs: int
    rows: int


class _Run(msgspec.Struct, frozen=True, array_like=True, tag="run"):
    entry: Entry


class _Row(msgspec.Struct, frozen=True, array_like=True, tag="row"):
    row: Row


_decoder = msgspec.msgpack.Decoder(_End | _Run | _Row)
_encode = msgspec.msgpack.Encoder().encode


# Writing -----------------------------------------------------------------------------------


@contextmanager
def new_file(path: str) -> Generator[BinaryIO]:
    """A file that has its name only when it is complete and synced; whatever the umask, it is its owner's."""
    unfinished = path + ".part"
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(unfinished, flags, 0o600), "w+b") as file:
            os.fchmod(file.fileno(), 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, path)
        _sync_folder(os.path.dirname(path) or ".")
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_runs(file: BinaryIO, runs: Iterable[tuple[Entry, Iterable[Row]]]) -> None:
    """A whole archive: each run's entry with its rows."""
    file.write(MAGIC)
    parameters = zstandard.ZstdCompressionParameters(
        compression_level=LEVEL, window_log=WINDOW_LOG, enable_ldm=True
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    with compressor.stream_writer(file, closefd=False) as stream:
        for item in _counted(runs):
            body = _encode(item)
            stream.write(len(body).to_bytes(LENGTH_BYTES, "little") + body)
    size = file.tell()
    file.seek(0)
    file.write(_digest(file, size))


def _counted(runs: Iterable[tuple[Entry, Iterable[Row]]]) -> Iterator[_Run | _Row | _End]:
    count = count_rows = 0
    for entry, rows in runs:
        count += 1
        yield _Run(entry)
        for row in rows:
            count_rows += 1
            yield _Row(row)
    yield _End(count, count_rows)


def _digest(file: BinaryIO, size: int) -> bytes:
    """The digest of the next ``size`` bytes."""
    digest = sha256()
    while size > 0 and (chunk := file.read(min(size, CHUNK_BYTES))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.digest()


# Reading -----------------------------------------------------------------------------------


def read_archive(path: str | os.PathLike[str]) -> Iterator[tuple[Entry, Row]]:
    """Each row of an archive with its run's entry, in order, checksums verified.

    The whole file is verified before the first row is given. Raises ArchiveError at the first thing that is
    wrong, and FormatError for a newer format.
    """
    try:
        with open(path, "rb") as file:
            _check_file(path, file)
            yield from _checked(path, _items(path, file))
    except OSError as error:
        raise ArchiveError(path, str(error)) from error


def _check_file(path: object, file: BinaryIO) -> None:
    """Format and digest; the file then stands behind its first line."""
    line = file.readline(len(NAME) + 20)
    if line != MAGIC:
        number = line.removeprefix(NAME).strip()
        if line.startswith(NAME) and number.isdigit() and int(number) > FORMAT:
            raise FormatError(f"the archive {path}", int(number), FORMAT)
        raise ArchiveError(path, "it is no archive of sifaka's")
    size = os.fstat(file.fileno()).st_size - sha256().digest_size
    file.seek(0)
    if size < len(MAGIC) or _digest(file, size) != file.read():
        raise ArchiveError(path, "it is damaged, or was cut off: its checksum is wrong")
    file.seek(len(MAGIC))


def _items(path: object, file: BinaryIO) -> Iterator[_Run | _Row | _End]:
    reader = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG).stream_reader(file)
    try:
        while head := reader.read(LENGTH_BYTES):
            length = int.from_bytes(head, "little")
            if len(head) < LENGTH_BYTES or length > ITEM_BYTES_MAX:
                raise ArchiveError(path, f"an item in it claims {length:,} bytes")
            item = _decoder.decode(reader.read(length))
            yield item
            if isinstance(item, _End):  # what is behind it was never written by us, and is not looked at
                return
    except (zstandard.ZstdError, msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ArchiveError(path, f"it cannot be decoded: {error}") from error


def _checked(path: object, items: Iterator[_Run | _Row | _End]) -> Iterator[tuple[Entry, Row]]:
    """The rows, if each belongs where it stands."""
    seen: set[str] = set()
    entry: Entry | None = None
    rows, before = 0, None
    for item in items:
        if isinstance(item, _Row):
            if entry is None:
                raise ArchiveError(path, "a row in it belongs to no run")
            _check_row(path, entry, before, item.row)
            rows, before = rows + 1, item.row
            yield entry, item.row
            continue
        if entry is not None and (before is None or before.last != entry.last):
            raise ArchiveError(path, f"run {entry.chain_id!r} in it is not whole")
        if isinstance(item, _End):
            if (item.runs, item.rows) != (len(seen), rows):
                raise ArchiveError(
                    path, f"it holds {len(seen)} runs and {rows} rows, its end tells of others"
                )
            return
        entry, before = item.entry, None
        _check_entry(path, entry, seen)
    raise ArchiveError(path, "its end is missing")


def _check_entry(path: object, entry: Entry, seen: set[str]) -> None:
    times = (entry.until, entry.opened_at, entry.updated_at)
    try:
        check_chain_id(entry.chain_id)
    except ChainIdError as error:
        raise ArchiveError(path, str(error)) from error
    sane = not entry.owner and 0 < entry.token <= TOKEN_MAX and all(map(isfinite, times))
    if not sane or entry.chain_id in seen:
        raise ArchiveError(path, f"what it tells of run {entry.chain_id!r} cannot be")
    seen.add(entry.chain_id)


def _check_row(path: object, entry: Entry, before: Row | None, row: Row) -> None:
    first, prev = (before.last + 1, link_of(before.frame)) if before else (0, 0)
    if (row.chain_id, row.first, row.token) != (entry.chain_id, first, entry.token) or row.last < first:
        raise ArchiveError(path, f"a row in it does not belong to run {entry.chain_id!r}")
    try:
        records = decode_row(row, prev)
    except DamagedRecordError as error:
        raise ArchiveError(path, error.why) from error
    checkpoints = sum(isinstance(one, Reached) and not one.trimmed for one in records)
    if row.checkpoints != checkpoints or not isfinite(row.at):
        raise ArchiveError(path, f"what it tells of records {row.first} to {row.last} cannot be")
