"""Nearest faults by text and context: what a case is, how alike two are, where they are kept (floor 3)."""

from sifaka.storage.similarity.cases import (
    TEXT_CHARS_MAX,
    Case,
    EmbeddingFunction,
    Match,
    Similarity,
    SimilarityError,
    decode,
    encode,
    storable,
)

__all__ = [
    "TEXT_CHARS_MAX",
    "Case",
    "EmbeddingFunction",
    "Match",
    "Similarity",
    "SimilarityError",
    "decode",
    "encode",
    "storable",
]
