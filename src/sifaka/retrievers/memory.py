"""Finding documents in memory by the words they share with the query (floor 2)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from sifaka.errors import PartError
from sifaka.thought import Document

__all__ = ["InMemoryRetriever"]


class InMemoryRetriever:
    """The ``top_k`` of ``documents`` that share the rarest words with the query, best first.

    A document's score is the cosine of the two texts' TF-IDF vectors, with tf = 1 + log(count) and
    idf = log(1 + N / n) (Salton and Buckley 1988). Those that share no word are not returned.
    """

    def __init__(self, documents: Iterable[str | Document], top_k: int = 5, *, name: str = "memory") -> None:
        if isinstance(documents, str):
            raise PartError("documents is a list of texts or Documents, not one text")
        if top_k < 1:
            raise PartError(f"top_k={top_k}; it is 1 or more")
        self.name = name
        self.top_k = top_k
        self._documents = [one if isinstance(one, Document) else Document(one) for one in documents]
        counts = [Counter(_words(one.text)) for one in self._documents]
        spread = Counter(word for one in counts for word in one)
        self._rarity = {word: math.log(1 + len(counts) / found) for word, found in spread.items()}
        self._vectors = [self._vector(one) for one in counts]

    def retrieve(self, query: str) -> list[Document]:
        """The documents nearest to ``query``, each with its score (0 to 1)."""
        wanted = self._vector(Counter(_words(query)))
        scored = [
            (sum(weight * vector.get(word, 0.0) for word, weight in wanted.items()), place)
            for place, vector in enumerate(self._vectors)
        ]
        best = sorted(scored, key=lambda one: (-one[0], one[1]))[: self.top_k]
        return [self._scored(place, score) for score, place in best if score > 0]

    def _scored(self, place: int, score: float) -> Document:
        found = self._documents[place]
        return Document(found.text, found.id, round(score, 4), found.metadata)

    def _vector(self, counts: Counter[str]) -> dict[str, float]:
        weights = {
            word: (1 + math.log(count)) * self._rarity[word]
            for word, count in counts.items()
            if word in self._rarity
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {word: weight / length for word, weight in weights.items()} if length else {}


def _words(text: str) -> list[str]:
    import re

    return re.findall(r"\w+", text.casefold())
