"""Archives: runs in one compressed, checksummed file that can be read back and imported again (floor 3).

Rows lie in it uncompressed, so that one stream finds what a run's drafts have in common. Tokens and leases
are a store's own: all of a run's rows are written under its last token. Texts lie in it in plain, readable by
the file's owner only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from secrets import token_hex

import msgspec

from sifaka.errors import DataError, StorageError, UnknownChainError
from sifaka.log.codec import link_of
from sifaka.storage.archive_file import new_file, read_archive, write_runs
from sifaka.storage.base import Entry, Row, Storage
from sifaka.storage.moving import is_running, runs
from sifaka.storage.pouring import encode_again, pour
from sifaka.storage.reading import read_rows

__all__ = ["archive", "import_archive", "read_archive"]

SUFFIX = ".sifaka"


# Writing -----------------------------------------------------------------------------------


def archive(
    storage: Storage, folder: str | os.PathLike[str], entries: Iterable[Entry] | None = None
) -> tuple[str | None, list[Entry]]:
    """Write runs (None: all) into a new file in ``folder``; its path, and the runs that are in it.

    The file is complete and synced, readable by its owner only, before it has its name. A run that is being
    run, that went on or was deleted meanwhile, or that is damaged, is left out; where none is left, there is
    no file, and the path is None. The folder is made if it is missing. What a crash leaves behind ends in
    ".part". Raises StorageError where the file cannot be written.
    """
    chosen = runs(storage) if entries is None else entries
    written: list[Entry] = []
    try:
        path = _free_name(os.fspath(folder))
        with new_file(path) as file:
            write_runs(file, _whole(storage, chosen, written))
            _expect_some(written)
    except _NothingError:
        return None, []
    except OSError as error:
        raise StorageError(f"no archive can be written to {os.fspath(folder)}: {error}") from error
    return path, written


class _NothingError(Exception):
    """There is no run to write: the file is not kept."""


def _expect_some(written: list[Entry]) -> None:
    if not written:
        raise _NothingError


def _whole(
    storage: Storage, entries: Iterable[Entry], written: list[Entry]
) -> Iterator[tuple[Entry, Iterable[Row]]]:
    """The runs that can be kept, which are added to ``written``."""
    for entry in entries:
        rows = None if is_running(storage, entry) else _rows_of(storage, entry)
        if rows is not None:
            written.append(entry)
            yield (
                msgspec.structs.replace(entry, owner=b"", lease_until=0.0),
                _again(rows, entry.token, compress=False),
            )


def _rows_of(storage: Storage, entry: Entry) -> list[Row] | None:
    """The run's rows; None where they are damaged, or not exactly those that the entry tells of."""
    try:
        rows = [row for row, _ in read_rows(storage, entry.chain_id)]
    except (DataError, UnknownChainError):
        return None
    return rows if rows[-1].last == entry.last else None


def _again(rows: Iterable[Row], token: int, *, compress: bool) -> Iterator[Row]:
    """The same records in other frames, all under one token, each linked to the one before."""
    prev = 0
    for old in rows:
        row = encode_again(old, token, prev, compress=compress)
        prev = link_of(row.frame)
        yield row


def _free_name(folder: str) -> str:
    """A name by time and chance. No part of it comes from a run, whose id may look like a path."""
    if not os.path.isdir(folder):
        os.makedirs(folder)
        os.chmod(folder, 0o700)  # whatever the umask
    return os.path.join(folder, f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}-{token_hex(4)}{SUFFIX}")


# Importing ---------------------------------------------------------------------------------


def import_archive(storage: Storage, path: str | os.PathLike[str]) -> list[str]:
    """Bring an archive's runs back into a store; their ids.

    The whole file is verified, and compared with what the store holds, before anything is written. A run
    that is there already must be the same. Raises ArchiveError, FormatError and UsageError, then nothing was
    changed; a StorageError may leave some of the runs imported: the same may be done again.
    """
    for entry, rows in _by_run(read_archive(path)):
        pour(storage, entry, rows, only_look=True)
    names: list[str] = []
    for entry, rows in _by_run(read_archive(path)):
        pour(storage, entry, _again(rows, entry.token, compress=True))
        names.append(entry.chain_id)
    return names


def _by_run(pairs: Iterator[tuple[Entry, Row]]) -> Iterator[tuple[Entry, Iterator[Row]]]:
    """Each run with its rows, one after another; the rows are read as they are asked for."""
    for entry, rows in groupby(pairs, key=itemgetter(0)):
        yield entry, map(itemgetter(1), rows)
