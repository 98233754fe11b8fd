"""How much a namespace holds, and what it takes up in the Redis server (floor 3).

Counts are kept by the scripts that write, so that nothing has to be gone through. The memory is an estimate:
the shared keys and up to 32 runs are measured, the other runs are taken to be like those.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from sifaka.log.records import STATUSES
from sifaka.storage.redis.link import Link
from sifaka.storage.redis.packing import raw
from sifaka.storage.redis.scripts import TOTALS

__all__ = ["measure"]

SAMPLES = 16
"""How many of the newest and of the oldest runs are measured to tell how much all take up."""
_SHARED = (b"format", b"totals", b"cells", b"cells:names", b"time", b"cp:first", b"cp:last")


def measure(link: Link, prefix: bytes) -> dict[str, Any]:
    """The counts and sizes that ``Storage.measure`` promises, of the keys that begin with ``prefix``."""
    totals, oldest, newest, *counts = link.look(partial(_ask_totals, prefix))
    records, checkpoints, raw_bytes, stored = TOTALS.unpack(totals or bytes(TOTALS.size))
    return {
        "total_checkpoints": checkpoints,
        "records": records,
        "storage_size_bytes": link.look(partial(_memory, prefix, sum(counts))),
        "raw_bytes": raw_bytes,
        "stored_bytes": stored,
        "oldest_checkpoint": oldest[0][1] if oldest else None,
        "newest_checkpoint": newest[0][1] if newest else None,
        "chains": {status: count for status, count in zip(STATUSES, counts, strict=True) if count},
    }


def _ask_totals(prefix: bytes, client: Any) -> Any:
    pipe = client.pipeline(transaction=True)  # as one: the numbers belong together
    pipe.get(prefix + b"totals")
    pipe.zrange(prefix + b"cp:first", 0, 0, withscores=True)
    pipe.zrange(prefix + b"cp:last", -1, -1, withscores=True)
    for status in STATUSES:
        pipe.zcard(prefix + b"status:" + raw(status))
    return pipe.execute()


def _memory(prefix: bytes, runs: int, client: Any) -> int:
    """Bytes of the server's memory, about: all runs are taken to be like those looked at."""
    pipe = client.pipeline(transaction=False)
    pipe.zrange(prefix + b"time", 0, SAMPLES - 1)
    pipe.zrevrange(prefix + b"time", 0, SAMPLES - 1)
    for kind in (*_SHARED, *(b"status:" + raw(status) for status in STATUSES)):
        pipe.memory_usage(prefix + kind)
    oldest, newest, *shared = pipe.execute()
    sampled = {*oldest, *newest}
    for chain_id in sampled:
        pipe.memory_usage(prefix + b"run:" + chain_id)
        pipe.memory_usage(prefix + b"log:" + chain_id)
    return _sum(shared) + _sum(pipe.execute()) * runs // max(1, len(sampled))


def _sum(numbers: Iterable[Any]) -> int:
    """What is not there any more (None) counts nothing."""
    return sum(int(one or 0) for one in numbers)
