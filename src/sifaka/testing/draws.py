"""What the agreement machine draws: appends, openings and queries over a few runs, texts and times (floor 8).

The pool is small on purpose: operations meet, and repeat each other.
"""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from sifaka.log.records import STATUSES
from sifaka.storage.base import Change, Entry, Query

__all__ = ["CELLS", "DAY_S", "IDS", "Move", "batches", "chain_ids", "offs", "openings", "owners", "queries"]

IDS = ("a", "a:b", "b", "\u00e4 {}")
TEXTS = ("", "one", "t\u00fc\0'")
OWNERS = (b"one", b"two\0", b"\xff")
CELLS = ("c", "c%", "d")
DAY_S = 86_400.0

chain_ids = st.sampled_from(IDS)
texts = st.sampled_from(TEXTS)
owners = st.sampled_from(OWNERS)
statuses = st.sampled_from(STATUSES)
offs = st.sampled_from((0, 0, 0, 0, 1, -1))
"""How far from the right place, token or version: mostly not at all."""


class Move(msgspec.Struct, frozen=True):
    """An append, as far as it can be said before it is known how long the run is."""

    chain_id: str
    place: int
    token: int
    records: int
    checkpoints: int
    change: Change | None


changes = st.builds(
    Change,
    statuses,
    st.integers(0, 3).map(float),
    texts,
    texts,
    st.sampled_from((0.0, 0.5)),
    st.booleans(),
)
moves = st.builds(
    Move, chain_ids, offs, offs, st.integers(1, 3), st.integers(0, 2), st.none() | changes
)  # fmt: skip
batches = st.lists(moves, min_size=1, max_size=3, unique_by=lambda move: move.chain_id)
openings = st.builds(
    Entry, chain_ids, st.integers(1, 2), owners, st.just(60.0), statuses, texts, texts, texts,
    st.just(0.0), st.just(0.0), st.integers(0, 3).map(float), st.sampled_from((-1, -1, 6)),
)  # fmt: skip
times = st.none() | st.sampled_from((0.0, 1.0, 2.5, DAY_S + 2))
queries = st.builds(
    Query, st.none() | st.lists(statuses, max_size=3, unique=True).map(tuple), st.none() | texts,
    st.none() | texts, times, times, limit=st.integers(1, 4),
)  # fmt: skip
