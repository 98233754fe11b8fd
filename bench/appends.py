"""One durable append on each store beside its floor, alone and with many writers, block by block in turns.

An append is what the engine appends after a call: its result, a text of 1 to 2 kB, and the next call's intent.
The store makes the frame itself (msgpack, zstd, checksum) within the clock. Its floor is handed the very same
frames ready-made; with many writers it is measured also packing the same bodies with the same codec, as
whoever writes a group commit by hand would have to.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import zstandard

from bench.stores import Counted, Floor, Item, open_floor, open_store
from bench.subject import chain_of
from bench.workload import ChainParts, english
from sifaka.log.codec import ZSTD_LEVEL, encode
from sifaka.log.records import Intent, Opened, Record, Result
from sifaka.parts import Usage
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.journal import Journal, Lease

POOL = 200
"""Different appends; more would only be more text to hold."""
HEADER_BYTES = 16
_names = itertools.count()


def appends_of(count: int = POOL) -> list[list[Record]]:
    """What a run appends after each of ``count`` calls."""
    made: list[list[Record]] = []
    for n in range(count):
        text = english(f"append/{n}", 1_000 + 1_000 * (n % 11) // 10)
        usage = Usage(400 + n, 250)
        result = Result(
            1.8e9 + n,
            2 * n,
            "criticism",
            n // 4,
            "clarity",
            1.25,
            text,
            usage=usage,
            price_usd=0.002,
            model="m:1",
        )
        intent = Intent(1.8e9 + n, "criticism", n // 4, "evidence", 1, 1, f"{n:016x}", "m:1", 0.01)
        made.append([result, intent])
    return made


def lone(store: str, where: str, rounds: int, appends: int) -> list[dict[str, float]]:
    """Seconds an append, one after another: the floor's, the store's, and the store's awaited.

    ``frame`` is what making the frames alone takes: a part of the store's time that the floor does not have.
    """
    pool = appends_of()
    floor, storage = open_floor(store, where), _durable(store, where)
    journal, before = Journal(storage), storage.measure()
    items = _items(pool, [0], appends)
    seen: list[dict[str, float]] = []
    with asyncio.Runner() as runner:
        contestants: dict[str, Callable[[int], float]] = {
            "floor": lambda number: _floor_alone(floor, items, number),
            "sifaka": lambda _: _alone(journal, pool, appends),
            "awaited": lambda _: runner.run(_many(journal, pool, 1, appends)),
            "frame": lambda _: _frames_alone(pool, appends),
        }
        for number in range(-1, rounds):
            round_ = _in_turn(contestants, number)
            if number >= 0:  # the first makes connections and byte code, prepares statements
                seen.append({name: s / appends for name, s in round_.items()})
    _check_kept(floor, storage, before, items, (rounds + 1) * appends)
    floor.close()
    storage.close()
    return seen


def writers(store: str, where: str, rounds: int, count: int, appends: int) -> dict[str, Any]:
    """Seconds an append with ``count`` writers at once, beside group commits by hand; appends a commit.

    ``ready``: the floor whose bytes are ready-made. ``way`` is how the floor shares its commits best.
    """
    pool = appends_of()
    floor, storage = open_floor(store, where), Counted(_durable(store, where))
    journal, before = Journal(storage), storage.measure()
    items = _items(pool, range(count), appends)
    bodies = _items(pool, range(count), appends, packed=False)
    numbers = itertools.count(1)
    way = _best_way(floor, items, numbers)
    seen: list[dict[str, float]] = []
    per_commit: list[float] = []
    with asyncio.Runner() as runner:
        contestants: dict[str, Callable[[int], float]] = {
            "floor": lambda _: _floor_packing(floor, way, bodies, next(numbers)),
            "ready": lambda _: _floor_group(floor, way, items, next(numbers)),
            "sifaka": lambda _: runner.run(_many(journal, pool, count, appends, storage)),
        }
        for number in range(-1, rounds):
            round_ = _in_turn(contestants, number)
            if number >= 0:
                seen.append({name: s / len(items) for name, s in round_.items()})
                per_commit.append(len(items) / storage.appends)
    _check_kept(floor, storage, before, items, (next(numbers) - 1) * len(items))
    floor.close()
    storage.close()
    return {"rounds": seen, "way": way, "appends_a_commit": median(per_commit)}


def reads(store: str, where: str, times: int) -> dict[str, list[float]]:
    """Seconds to load a finished chain's last state, and to claim a run and give it back, on an open store."""
    store_ = CachedCheckpointStorage(open_store(store, where))
    parts = ChainParts(0, 3)
    chain_id = f"read-{os.getpid()}"
    chain_of(store_, parts, chain_id=chain_id).run()
    lease = _opened(store_.journal, appends_of(1))
    store_.journal.release(lease)
    seen: dict[str, list[float]] = {"load": [], "claim": []}
    for _ in range(times + 1):
        begun = time.perf_counter()
        state = store_.load(chain_id).state
        seen["load"].append(time.perf_counter() - begun)
        if state.thought().text != parts.last_draft:
            raise AssertionError(f"{store} read back another state than was written")
        begun = time.perf_counter()
        store_.journal.release(store_.journal.claim(lease.chain_id))
        seen["claim"].append(time.perf_counter() - begun)
    store_.storage.close()
    return {name: values[1:] for name, values in seen.items()}


def _durable(store: str, where: str) -> Any:
    storage = open_store(store, where)
    storage.measure()  # it connects
    if storage.durability != "power":
        raise AssertionError(f"the store {store} keeps {storage.durability!r}, its floor keeps 'power'")
    return storage


def _in_turn(contestants: dict[str, Callable[[int], float]], number: int) -> dict[str, float]:
    """Each once, another one first in each round."""
    names = list(contestants)
    at = number % len(names)
    seen: dict[str, float] = {}
    for name in names[at:] + names[:at]:
        gc.collect()
        seen[name] = contestants[name](number)
    return seen


def _items(
    pool: list[list[Record]], chains: Sequence[int], appends: int, *, packed: bool = True
) -> list[Item]:
    """What the store will write, as frames or (for whoever packs them himself) as their bodies; turn by turn."""
    frames = [
        encode(records, chain_id="append", first=2 * n + 1, token=1, prev=0, compress=packed)
        for n, records in enumerate(pool)
    ]
    cut = 0 if packed else HEADER_BYTES
    return [
        (chain, n, frames[(7 * chain + n) % len(frames)][cut:]) for n in range(appends) for chain in chains
    ]


def _numbered(items: Sequence[Item], number: int) -> list[Item]:
    """The same for chains that are not there yet."""
    first = (number + 1) * 1_000
    return [(first + chain, n, content) for chain, n, content in items]


def _floor_alone(floor: Floor, items: Sequence[Item], number: int) -> float:
    mine, one = _numbered(items, number), floor.one
    begun = time.perf_counter()
    for item in mine:
        one(item)
    return time.perf_counter() - begun


def _frames_alone(pool: list[list[Record]], appends: int) -> float:
    mine = [pool[n % len(pool)] for n in range(appends)]
    begun = time.perf_counter()
    for records in mine:
        encode(records, chain_id="append", first=1, token=1, prev=0)
    return time.perf_counter() - begun


def _floor_group(floor: Floor, way: str, items: Sequence[Item], number: int) -> float:
    mine, many = _numbered(items, number), floor.many[way]
    begun = time.perf_counter()
    many(mine)
    return time.perf_counter() - begun


def _floor_packing(floor: Floor, way: str, bodies: Sequence[Item], number: int) -> float:
    """As sifaka does, but for the header: the frame's own 16 bytes are put before it all the same."""
    mine, many = _numbered(bodies, number), floor.many[way]
    compress, header = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress, bytes(HEADER_BYTES)
    begun = time.perf_counter()
    many([(chain, n, header + compress(body)) for chain, n, body in mine])
    return time.perf_counter() - begun


def _best_way(floor: Floor, items: Sequence[Item], numbers: Any) -> str:
    seen = {way: [_floor_group(floor, way, items, next(numbers)) for _ in range(4)] for way in floor.many}
    return min(seen, key=lambda way: median(seen[way][1:]))


def _opened(journal: Journal, pool: list[list[Record]]) -> Lease:
    """A new run with its first append made."""
    lease = journal.claim(f"append-{os.getpid()}-{next(_names)}")
    journal.append(lease, [Opened(1.8e9, lease.chain_id, "p", None, (), {}), pool[0][1]])
    return lease


def _alone(journal: Journal, pool: list[list[Record]], appends: int) -> float:
    lease = _opened(journal, pool)
    mine, append = [pool[n % len(pool)] for n in range(appends)], journal.append
    begun = time.perf_counter()
    for records in mine:
        append(lease, records)
    seconds = time.perf_counter() - begun
    journal.release(lease)
    return seconds


async def _many(
    journal: Journal, pool: list[list[Record]], count: int, appends: int, counted: Counted | None = None
) -> float:
    """``count`` tasks of one event loop, each appending to a run of its own."""
    leases = [_opened(journal, pool) for _ in range(count)]
    if counted is not None:
        counted.appends = 0

    async def write(chain: int, lease: Lease) -> None:
        for n in range(appends):
            await journal.aappend(lease, pool[(7 * chain + n) % len(pool)])

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for chain, lease in enumerate(leases):
            group.create_task(write(chain, lease))
    seconds = time.perf_counter() - begun
    commits = 0 if counted is None else counted.appends
    for lease in leases:
        journal.release(lease)
    if counted is not None:
        counted.appends = commits
    return seconds


def _check_kept(
    floor: Floor, storage: Any, before: dict[str, Any], items: Sequence[Item], count: int
) -> None:
    """Both kept every append, and as many bytes an append (a run's small first one makes some difference)."""
    kept, kept_bytes = floor.kept()
    if kept != count:
        raise AssertionError(f"the floor kept {kept} of {count} appends")
    given = sum(len(content) for *_, content in items) / len(items)
    after = storage.measure()
    stored, records = (after[name] - before[name] for name in ("stored_bytes", "records"))
    for who, size in (("floor", kept_bytes / kept), ("store", 2 * stored / records)):
        if abs(size - given) > 0.1 * given:
            raise AssertionError(f"the {who} kept {size:.0f} bytes an append, given were {given:.0f}")
