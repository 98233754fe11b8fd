"""Columns of values as the server's arrays, packed in one go (floor 3).

psycopg packs a list value by value, which for a batch of a hundred appends takes longer than the server needs
to write them.

This module imports psycopg: it is loaded with the first :class:`~sifaka.storage.postgres.PostgresStorage`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from psycopg.adapt import Dumper
from psycopg.pq import Format

from sifaka.storage.postgres.values import Bools, Bytes, Floats, Integers, Texts

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["register"]

_HEAD = struct.Struct(">iiiii")
_LENGTH = struct.Struct(">i")


def _head(kind: int, count: int) -> bytes:
    """Of an array of one dimension without nulls, whose first index is 1."""
    return _HEAD.pack(1, 0, kind, count, 1)


class _Fixed(Dumper):
    """Values of one size, as ``code`` of the module struct packs them."""

    format = Format.BINARY
    kind = 0
    code = ""

    def dump(self, obj: Sequence[Any]) -> bytes:
        parts = [struct.calcsize(self.code)] * (2 * len(obj))
        parts[1::2] = obj
        return _head(self.kind, len(obj)) + struct.pack(">" + f"i{self.code}" * len(obj), *parts)


class _Integers(_Fixed):
    oid, kind, code = 1016, 20, "q"


class _Floats(_Fixed):
    oid, kind, code = 1022, 701, "d"


class _Bools(_Fixed):
    oid, kind, code = 1000, 16, "?"


class _Bytes(Dumper):
    format = Format.BINARY
    oid, kind = 1001, 17

    def dump(self, obj: Sequence[Any]) -> bytes:
        return self._joined(obj)

    def _joined(self, values: Sequence[bytes]) -> bytes:
        pack = _LENGTH.pack
        return _head(self.kind, len(values)) + b"".join(
            [part for value in values for part in (pack(len(value)), value)]
        )


class _Texts(_Bytes):
    oid, kind = 1009, 25

    def dump(self, obj: Sequence[Any]) -> bytes:
        return self._joined([text.encode() for text in obj])


def register(connection: Connection[Any]) -> None:
    """Have the connection send the columns of :mod:`sifaka.storage.postgres.values` so."""
    for column, dumper in (
        (Integers, _Integers),
        (Floats, _Floats),
        (Bools, _Bools),
        (Bytes, _Bytes),
        (Texts, _Texts),
    ):
        connection.adapters.register_dumper(column, dumper)
