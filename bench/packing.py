"""What compressing the log's frames saves and costs: zstd levels, with and without a trained dictionary.

The bodies are those of whole chains of English prose, each packed on its own, as the codec does. The
dictionary is trained on the same kinds of bodies from other sources. "draft before" packs each draft against
the chain's one before it: what it saves is what frames that do not stand alone could save at the most.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import zstandard
from zstandard import ZstdCompressionDict, ZstdCompressor, ZstdDecompressor

from bench.prose import Writer
from sifaka.log.codec import encode
from sifaka.log.records import Intent, Opened, Position, Reached, Record, Result
from sifaka.parts import Usage
from sifaka.thought import CriticFeedback, Document, ValidationResult

CHAINS = 60
TRAINING_CHAINS = 150
ITERATIONS = 3
DICTIONARIES = {"16 kB": 16_384, "64 kB": 65_536}
_MODEL = "anthropic:claude-sonnet-4-5"


class Body(NamedTuple):
    """A frame's body before compression, of a chain; ``kind`` is what the frame is mostly made of."""

    chain: int
    kind: str
    content: bytes


KINDS = ("draft", "critique", "document", "short")


@cache
def bodies(part: int, chains: int) -> tuple[Body, ...]:
    return tuple(body for n in range(chains) for body in _Run(n, part).bodies())


class _Run:
    """The appends of one run as the engine makes them: a result, and with it the next intent."""

    def __init__(self, number: int, part: int) -> None:
        self._number = number
        self._writer = Writer(number, part=part)
        self._rng = random.Random(f"packing/{part}/{number}")
        self._at = 1.8e9 + 3e5 * self._rng.random()
        self._chain_id = f"{self._rng.getrandbits(64):016x}"

    def bodies(self) -> list[Body]:
        return [
            Body(
                self._number,
                kind,
                encode(records, chain_id="", first=0, token=1, prev=0, compress=False)[16:],
            )
            for kind, records in self._appends()
        ]

    def _appends(self) -> Iterator[tuple[str, list[Record]]]:
        opened = Opened(
            self._now(), self._chain_id, self._writer.critique()[:200], None, (), {"durability": "step"}
        )
        yield "short", [opened, self._intent("retrieval", 0, "search")]
        found = tuple(Document(self._writer.document()) for _ in range(3))
        retrieved = Result(self._now(), 1, "retrieval", 0, "search", self._seconds(), documents=found)
        yield (
            "document",
            [retrieved, self._reached("pre_retrieval", 0), self._intent("generation", 0, "model")],
        )
        for i in range(ITERATIONS):
            yield (
                "draft",
                [
                    self._result("generation", i, "model", text=self._writer.draft()),
                    self._reached("generation", i),
                    Result(
                        self._now(), -1, "validation", i, "length", verdict=ValidationResult(passed=i == 2)
                    ),
                    self._intent("criticism", i, "clarity"),
                ],
            )
            for name in ("clarity", "evidence"):
                said = CriticFeedback(needs_improvement=True, message=self._writer.critique())
                result = self._result("criticism", i, name, feedback=said)
                yield "critique", [result, self._intent("criticism", i, "evidence")]
            yield "short", [self._reached("criticism", i), self._intent("generation", i + 1, "model")]

    def _now(self) -> float:
        self._at += self._seconds()
        return self._at

    def _seconds(self) -> float:
        return 8 * self._rng.random()

    def _intent(self, operation: Any, iteration: int, part: str) -> Intent:
        digest = f"{self._rng.getrandbits(64):016x}"
        return Intent(self._now(), operation, iteration, part, 1, 1, digest, _MODEL, self._rng.random() / 50)

    def _reached(self, step: Any, iteration: int) -> Reached:
        return Reached(self._now(), step, iteration, Position("criticism", iteration), self._seconds())

    def _result(self, operation: Any, iteration: int, part: str, **said: Any) -> Result:
        rng = self._rng
        return Result(
            self._now(),
            rng.randrange(3, 40),
            operation,
            iteration,
            part,
            self._seconds(),
            usage=Usage(rng.randrange(500, 3_000), rng.randrange(100, 1_200)),
            price_usd=rng.random() / 50,
            model=_MODEL,
            finish_reason="stop",
            request_id=f"req_{rng.getrandbits(96):024x}",
            **said,
        )


class Packed(NamedTuple):
    """What a codec made of the bodies: its share of the raw bytes, seconds a raw byte to pack and unpack."""

    share: float
    pack_s: float
    unpack_s: float


Pack = Callable[[bytes], bytes]
Unpack = Callable[[bytes], bytes]


def codecs() -> dict[str, Callable[[], tuple[Pack, Unpack]]]:
    """By name; the dictionaries are trained when first asked for."""
    return {
        "none": lambda: (_same, _same),
        **{f"level {level}": _plain(level) for level in (1, 3, 9)},
        **{f"1 + {size}": _trained(1, DICTIONARIES[size]) for size in DICTIONARIES},
        "3 + 64 kB": _trained(3, DICTIONARIES["64 kB"]),
    }


def measure(repeats: int) -> dict[str, dict[str, Packed]]:
    """By codec and kind of frame ("all" for whole chains); the best of ``repeats`` timings."""
    seen = {name: _by_kind(*make(), repeats) for name, make in codecs().items()}
    seen["draft before"] = {"draft": _against_the_draft_before()}
    return seen


def _same(content: bytes) -> bytes:
    return content


def _plain(level: int) -> Callable[[], tuple[Pack, Unpack]]:
    return lambda: (ZstdCompressor(level=level).compress, ZstdDecompressor().decompress)


def _trained(level: int, size: int) -> Callable[[], tuple[Pack, Unpack]]:
    def make() -> tuple[Pack, Unpack]:
        trained = _dictionary(size)
        trained.precompute_compress(level=level)
        return (
            ZstdCompressor(level=level, dict_data=trained).compress,
            ZstdDecompressor(dict_data=trained).decompress,
        )

    return make


def _dictionary(size: int) -> ZstdCompressionDict:
    samples = [body.content for body in bodies(1, TRAINING_CHAINS)]
    return zstandard.train_dictionary(size, samples)


def _by_kind(pack: Pack, unpack: Unpack, repeats: int) -> dict[str, Packed]:
    found = bodies(0, CHAINS)
    seen = {
        kind: _packed([one.content for one in found if one.kind == kind], pack, unpack, repeats)
        for kind in KINDS
    }
    seen["all"] = _packed([one.content for one in found], pack, unpack, repeats)
    return seen


def _packed(contents: Sequence[bytes], pack: Pack, unpack: Unpack, repeats: int) -> Packed:
    raw = sum(map(len, contents))
    packed = [pack(content) for content in contents]
    if [unpack(one) for one in packed] != list(contents):
        raise AssertionError("a body was not unpacked to what was packed")
    # As the codec does: what does not become smaller is kept as it is.
    stored = sum(min(len(one), len(content)) for one, content in zip(packed, contents, strict=True))
    return Packed(
        stored / raw, _best_s(pack, contents, repeats) / raw, _best_s(unpack, packed, repeats) / raw
    )


def _best_s(work: Callable[[bytes], bytes], contents: Sequence[bytes], repeats: int) -> float:
    gc.collect()
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        for content in contents:
            work(content)
        best = min(best, time.perf_counter() - begun)
    return best


def _against_the_draft_before() -> Packed:
    """Later drafts only: the first has none before it. Times are not told: a context a frame is made here."""
    drafts = [one for one in bodies(0, CHAINS) if one.kind == "draft"]
    raw = stored = 0
    for before, draft in itertools.pairwise(drafts):
        if before.chain == draft.chain:
            known = ZstdCompressionDict(before.content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            raw += len(draft.content)
            stored += len(ZstdCompressor(level=1, dict_data=known).compress(draft.content))
    return Packed(stored / raw, float("nan"), float("nan"))
