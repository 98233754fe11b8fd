"""Ready-made retrievers, each loaded when first used, and those of other frameworks (floor 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sifaka.lazy import names_of

if TYPE_CHECKING:
    from sifaka.retrievers.bm25 import BM25Retriever
    from sifaka.retrievers.foreign import adapt_retriever, documents_from
    from sifaka.retrievers.memory import InMemoryRetriever
    from sifaka.retrievers.vector import VectorRetriever

_HOME = {
    "BM25Retriever": ".bm25",
    "InMemoryRetriever": ".memory",
    "VectorRetriever": ".vector",
    "adapt_retriever": ".foreign",
    "documents_from": ".foreign",
}

__all__ = ["BM25Retriever", "InMemoryRetriever", "VectorRetriever", "adapt_retriever", "documents_from"]

__getattr__ = names_of(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
