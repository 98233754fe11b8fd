"""Ready-made retrievers (floor 2)."""

from sifaka.retrievers.memory import InMemoryRetriever

__all__ = ["InMemoryRetriever"]
