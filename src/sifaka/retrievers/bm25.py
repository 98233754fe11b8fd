"""Finding documents by the words they share with the query, by BM25 (floor 2).

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", in the variant of
Lucene, computed by the library bm25s (Lù 2024, arXiv 2407.03618).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from sifaka.errors import MissingExtraError, PartError
from sifaka.retrievers.files import CHUNK_CHARS, SUFFIXES, read_files
from sifaka.retrievers.tokens import terms
from sifaka.thought import Document

__all__ = ["BM25Retriever"]


class BM25Retriever:
    """The ``top_k`` of ``documents`` that share the rarest words with the query, best first.

    ``k1`` says how much more a word counts that comes again, ``b`` (0 to 1) how much a document's length is
    held against it. Common words weigh little by themselves, so that none is left out in any language. A
    document's score is BM25's: 0 or more, without an upper end. Those that share no word are not returned.
    The index is built at once, in memory.
    """

    def __init__(
        self,
        documents: Iterable[str | Document],
        top_k: int = 5,
        *,
        k1: float = 1.5,
        b: float = 0.75,
        name: str = "bm25",
    ) -> None:
        if isinstance(documents, str):
            raise PartError("documents is a list of texts or Documents, not one text; see also from_files()")
        if top_k < 1:
            raise PartError(f"top_k={top_k}; it is 1 or more")
        if not k1 >= 0 or not 0 <= b <= 1:
            raise PartError(f"k1={k1}, b={b}; k1 is 0 or more, b is from 0 to 1")
        self.name = name
        self.top_k = top_k
        self.k1 = k1
        self.b = b
        self._documents = [_document(one) for one in documents]
        self._index = _index([terms(one.text) for one in self._documents], k1, b)

    @classmethod
    def from_files(
        cls,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        top_k: int = 5,
        *,
        chunk_chars: int | None = CHUNK_CHARS,
        suffixes: Sequence[str] = SUFFIXES,
        encoding: str = "utf-8",
        k1: float = 1.5,
        b: float = 0.75,
        name: str = "bm25",
    ) -> BM25Retriever:
        """A retriever over files, and over all files below folders that end with one of ``suffixes``.

        A file is cut into documents of at most ``chunk_chars`` characters (None: it is one), between
        paragraphs where it can be. Raises PartError for a path that is none and a file that is no text.
        """
        documents = read_files(paths, chunk_chars=chunk_chars, suffixes=suffixes, encoding=encoding)
        return cls(documents, top_k, k1=k1, b=b, name=name)

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self._documents)

    def retrieve(self, query: str) -> list[Document]:
        """The documents that fit ``query`` best, each with its score."""
        if self._index is None:
            return []
        known: dict[str, int] = self._index.vocab_dict
        asked = [known[term] for term in dict.fromkeys(terms(query)) if term in known]
        if not asked:
            return []
        scores: list[float] = self._index.get_scores_from_ids(asked).tolist()
        best = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: self.top_k]
        return [_scored(self._documents[place], scores[place]) for place in best if scores[place] > 0]


def _document(one: object) -> Document:
    if isinstance(one, Document):
        return one
    if isinstance(one, str):
        return Document(one)
    raise PartError(f"documents has {one!r}; each is a text or a Document")


def _scored(found: Document, score: float) -> Document:
    return Document(found.text, found.id, round(score, 4), found.metadata)


def _index(corpus: list[list[str]], k1: float, b: float) -> Any:
    """The index, None where there is nothing to find."""
    try:
        from bm25s import BM25
    except ImportError as error:
        raise MissingExtraError("BM25Retriever needs: pip install 'sifaka[retrievers]'") from error
    if not any(corpus):
        return None
    index: Any = BM25(k1=k1, b=b, method="lucene", backend="numpy")
    index.index(corpus, show_progress=False)
    return index
