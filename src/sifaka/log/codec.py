"""Records to bytes and back: one checksummed, compressed frame an append (floor 2).

A frame is a 16-byte header and a body. The header (little-endian) holds format version, flags
(1: zstd, 2: trimmed), number of records, raw length of the body, checksum of the frame before it, and
checksum. The checksum (CRC-32) covers chain id, sequence number, fencing token, header and stored body, so
a frame that was moved, spliced or edited is found; the link to the frame before finds a missing one.
The body is a msgpack array of records. A trimmed frame stands for frames whose texts were cleaned up: four
bytes between header and body hold what the frame behind it links to. It is an unkeyed checksum: it finds
damage, not a forger.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from zlib import crc32

import msgspec
import zstandard

from sifaka.errors import DamagedRecordError, FormatError, UnstorableError
from sifaka.log.records import Record

__all__ = [
    "BODY_BYTES_MAX",
    "FORMAT",
    "decode",
    "encode",
    "is_trimmed",
    "link_of",
    "raw_bytes",
]

FORMAT = 2
"""The newest format this version reads. A frame says the oldest one that has all it uses."""
BODY_BYTES_MAX = 256 * 1024 * 1024
"""The largest body, before compression, that is written or read."""
COMPRESS_FROM_BYTES = 300
"""Smaller bodies are stored as they are: zstd's own header would eat what it saves."""
ZSTD_LEVEL = 1
"""On English of 1 to 10 kB level 3 saves nothing more and takes a quarter longer: see docs/adr."""
_ZSTD, _TRIMMED = 1, 2

_HEADER = struct.Struct("<BBHIII")
_PLACE = struct.Struct("<QQ")
_LINK = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Record])


class _Zstd(threading.local):
    """zstd contexts: one a thread, since a shared one corrupts what two threads compress at once."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_zstd = _Zstd()


def encode(
    records: Sequence[Record],
    *,
    chain_id: str,
    first: int,
    token: int,
    prev: int,
    link: int | None = None,
    compress: bool = True,
) -> bytes:
    """One frame for ``records``, of which the first is number ``first`` of its chain.

    ``token`` is the writer's fencing token, ``prev`` what the frame before is linked by (0 at the start).
    ``link`` is given for a trimmed frame: what the frame behind it links to. Raises UnstorableError for a
    value no record can hold.
    """
    try:
        body = _encoder.encode(records)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnstorableError(
            f"record {first} of run {chain_id!r} cannot be stored: {error or type(error).__name__}. "
            "Only text without lone surrogates, numbers up to 64 bits, lists and dicts can be"
        ) from error
    raw = len(body)
    if raw > BODY_BYTES_MAX:
        raise UnstorableError(
            f"record {first} of run {chain_id!r} has {raw:,} bytes, the limit is {BODY_BYTES_MAX:,}"
        )
    version, flags = 1, 0
    if compress and raw >= COMPRESS_FROM_BYTES:
        packed = _zstd.compress(body)
        if len(packed) < raw:
            body, flags = packed, _ZSTD
    if link is not None:
        version, flags, body = 2, flags | _TRIMMED, _LINK.pack(link) + body
    head = _HEADER.pack(version, flags, len(records), raw, prev, 0)[:12]
    crc = crc32(body, crc32(head, _seed(chain_id, first, token)))
    return head + crc.to_bytes(4, "little") + body


def decode(frame: bytes, *, chain_id: str, first: int, token: int, prev: int | None = None) -> list[Record]:
    """The records of a frame. ``prev`` is the checksum of the frame before it; None: not looked at.

    Raises DamagedRecordError, naming the records, or FormatError for a newer format.
    """

    def damaged(why: str, count: int = 1) -> DamagedRecordError:
        return DamagedRecordError(chain_id, first, first + max(count, 1) - 1, why)

    if len(frame) < _HEADER.size:
        raise damaged(f"{len(frame)} bytes are shorter than a header")
    version, flags, count, raw, link, crc = _HEADER.unpack_from(frame)
    if crc32(frame[16:], crc32(frame[:12], _seed(chain_id, first, token))) != crc:
        raise damaged("its checksum is wrong")
    if version > FORMAT:
        raise FormatError(f"record {first} of run {chain_id!r}", version, FORMAT)
    if prev is not None and link != prev:
        raise damaged("it does not follow the record before it", count)
    if raw > BODY_BYTES_MAX:
        raise damaged(f"it claims {raw:,} bytes", count)
    body = frame[16 + _LINK.size :] if flags & _TRIMMED else frame[16:]
    try:
        body = _unpack(body, raw) if flags & _ZSTD else body
        records = _decoder.decode(body)
    except (zstandard.ZstdError, msgspec.DecodeError, ValueError, RecursionError) as error:
        raise damaged(f"it cannot be decoded: {error}", count) from error
    if len(records) != count or len(body) != raw:
        raise damaged("its length is wrong", count)
    return records


def _unpack(body: bytes, raw: int) -> bytes:
    # The size comes from our own checked header: a bomb is refused before it is unpacked.
    if zstandard.frame_content_size(body) != raw:
        raise ValueError("its length is wrong")
    return _zstd.decompress(body)


def _seed(chain_id: str, first: int, token: int) -> int:
    return crc32(chain_id.encode(), crc32(_PLACE.pack(first, token)))


def is_trimmed(frame: bytes) -> bool:
    """Whether a frame stands for others, whose texts were cleaned up."""
    return len(frame) > _HEADER.size and bool(frame[1] & _TRIMMED)


def link_of(frame: bytes) -> int:
    """What the next frame links to: the checksum of this one, or of the last one that it stands for."""
    at = _HEADER.size if is_trimmed(frame) else 12
    return int.from_bytes(frame[at : at + 4], "little")


def raw_bytes(frame: bytes) -> int:
    """How many bytes a frame's body has before compression, as its header says; 0 for no frame at all."""
    return int(_HEADER.unpack_from(frame)[3]) if len(frame) >= _HEADER.size else 0
