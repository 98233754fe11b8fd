"""Finding documents by the nearness of their vectors, kept in Milvus (floor 2).

The vectors are the user's own: a function that embeds texts is given, and any model may be behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sifaka.errors import PartError
from sifaka.faults import classify
from sifaka.milvus import MilvusLink
from sifaka.thought import Document

__all__ = ["Embed", "VectorRetriever"]

Embed = Callable[[list[str]], Sequence[Sequence[float]]]
"""Texts to their vectors: one for each text, in their order, of finite numbers, always as many."""

BATCH = 100
"""Documents a call, both to the embedding function and to Milvus."""
SETUP_TIMES = 10
"""Making and loading a collection may take so many times as long as a call."""
DOCUMENT_BYTES_MAX = 65_535
"""What Milvus keeps in one field."""
_ID_CHARS = 32


class VectorRetriever:
    """The ``top_k`` documents of a Milvus collection whose vectors are nearest to the query's.

    ``uri`` is a server, ``"http://host:19530"`` (with ``token``), or a milvus-lite folder ``"./docs.db"``,
    which belongs to one process at a time and not to a MilvusStorage as well. ``embed`` turns a list of texts
    into as many vectors. The collection is made by the first :meth:`add`; one that has other fields, or
    vectors of another length, is refused. Documents are found by cosine similarity, which is their score
    (-1 to 1), exactly, and at once after they were added. ``timeout_s`` bounds each request, ten times as
    much making the collection. Texts are stored as they are, unencrypted.

    Raises PartError for what makes no sense, MissingExtraError, ConnectionError where Milvus cannot be
    reached, and RuntimeError for what else it refuses.
    """

    def __init__(
        self,
        uri: str,
        embed: Embed,
        collection_name: str = "sifaka_documents",
        top_k: int = 5,
        *,
        token: str = "",
        timeout_s: float = 10.0,
        name: str = "vector",
    ) -> None:
        if not callable(embed):
            raise PartError(f"embed={embed!r}; it is a function from a list of texts to a list of vectors")
        if top_k < 1:
            raise PartError(f"top_k={top_k}; it is 1 or more")
        self.name = name
        self.collection_name = collection_name
        self.top_k = top_k
        self._embed = embed
        self._timeout_s = timeout_s
        self._link = MilvusLink(
            uri,
            token,
            timeout_s,
            what="VectorRetriever",
            prepare=self._forget,
            failed=_failure,
            wrong=PartError,
        )
        self._ready_for = 0
        """The length of the collection's vectors, once it is known to be ours."""

    def _forget(self, _client: object) -> None:
        """Over a new connection nothing is known of the collection yet."""
        self._ready_for = 0

    def close(self) -> None:
        """Close the connection. A milvus-lite folder that nobody here uses any more becomes free."""
        self._link.close()

    # Writing -------------------------------------------------------------------------------

    def add(self, documents: Iterable[str | Document]) -> int:
        """Keep the documents and return how many; one with the id of an older one takes its place.

        A document without an id has its text for one. After a failure some may be kept: adding all again is
        right.
        """
        if isinstance(documents, str):
            raise PartError("documents is a list of texts or Documents, not one text")
        listed = [one if isinstance(one, Document) else Document(one) for one in documents]
        for batch in _batches(listed):
            vectors = self._vectors([one.text for one in batch])
            rows = [_row(one, vector) for one, vector in zip(batch, vectors, strict=True)]
            with self._link.use() as client:
                self._prepare(client, len(vectors[0]), make=True)
                client.upsert(self.collection_name, rows, timeout=self._timeout_s)
        return len(listed)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the documents with these ids; those without one, by their text.

        They are not found any more at once; Milvus removes them from its files when it next compacts.
        """
        keys = [_key(one) for one in ids]
        with self._link.use() as client:
            if client.has_collection(self.collection_name, timeout=self._timeout_s):
                for batch in _batches(keys):
                    client.delete(self.collection_name, ids=batch, timeout=self._timeout_s)

    # Reading -------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many documents there are."""
        with self._link.use() as client:
            if not self._prepare(client, 0, make=False):
                return 0
            told = client.query(
                self.collection_name,
                filter="",
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
            return int(told[0]["count(*)"])

    def retrieve(self, query: str) -> list[Document]:
        """The documents nearest to ``query``, each with its cosine similarity."""
        if not query.strip():
            return []
        (vector,) = self._vectors([query])
        with self._link.use() as client:
            if not self._prepare(client, len(vector), make=False):
                return []
            answers = client.search(
                self.collection_name,
                data=[vector],
                anns_field="vector",
                limit=self.top_k,
                output_fields=["document"],
                search_params={"metric_type": "IP"},
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
            hits = [(float(hit["distance"]), hit["entity"]["document"]) for hit in answers[0]]
        found = [_found(payload, score) for score, payload in hits]
        return sorted(found, key=lambda one: (-(one.score or 0.0), one.id, one.text))

    # The collection ------------------------------------------------------------------------

    def _prepare(self, client: Any, length: int, *, make: bool) -> bool:
        """Whether the collection is there and loaded; ``length`` 0 asks for none. Raises PartError."""
        if not client.has_collection(self.collection_name, timeout=self._timeout_s):
            self._ready_for = 0
            if not make:
                return False
            self._create(client, length)
        if not self._ready_for:
            self._ready_for = self._check(client)
            client.load_collection(self.collection_name, timeout=self._timeout_s * SETUP_TIMES)
        if length and length != self._ready_for:
            raise PartError(
                f"embed gives vectors of {length} numbers, the collection {self.collection_name!r} has "
                f"{self._ready_for}: give the function it was made with, or another collection_name"
            )
        return True

    def _create(self, client: Any, length: int) -> None:
        from pymilvus import DataType

        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_ID_CHARS)
        schema.add_field("document", DataType.VARCHAR, max_length=DOCUMENT_BYTES_MAX)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=length)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        client.create_collection(
            self.collection_name,
            schema=schema,
            index_params=index,
            consistency_level="Strong",
            timeout=self._timeout_s * SETUP_TIMES,
        )

    def _check(self, client: Any) -> int:
        """The length of the collection's vectors. Raises PartError for a collection that is not ours."""
        told = client.describe_collection(self.collection_name, timeout=self._timeout_s)
        fields = {field["name"]: field["params"] for field in told["fields"]}
        if set(fields) != {"id", "document", "vector"}:
            raise PartError(
                f"the collection {self.collection_name!r} of Milvus at {self._link.name} has the fields "
                f"{', '.join(sorted(fields))}: it was made by another program. Give another collection_name"
            )
        return int(fields["vector"]["dim"])

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        answer = list(self._embed(texts))
        if len(answer) != len(texts):
            raise PartError(f"embed returned {len(answer)} vectors for {len(texts)} texts")
        vectors = [_normal(one) for one in answer]
        if len({len(one) for one in vectors}) > 1:
            raise PartError("embed returned vectors of different lengths")
        return vectors


def _normal(vector: Iterable[Any]) -> list[float]:
    """The vector at length 1, so that inner products are cosines. Raises PartError for one that has none."""
    from math import hypot, isfinite

    numbers = [float(one) for one in vector]
    length = hypot(*numbers)
    if not isfinite(length) or not length:
        raise PartError("embed returned a vector that is all zero, empty, or not of finite numbers")
    return [one / length for one in numbers]


def _row(document: Document, vector: list[float]) -> dict[str, Any]:
    import msgspec

    try:
        payload = msgspec.json.encode(document)
    except (TypeError, ValueError) as error:
        raise PartError(f"the document {document.id!r} holds what cannot be stored: {error}") from error
    if len(payload) > DOCUMENT_BYTES_MAX:
        raise PartError(
            f"the document {document.id!r} has {len(payload)} bytes, at most {DOCUMENT_BYTES_MAX} can be "
            "stored: cut it into smaller ones"
        )
    return {"id": _key(document.id or document.text), "document": payload.decode(), "vector": vector}


def _found(payload: str, score: float) -> Document:
    import msgspec

    document = msgspec.json.decode(payload, type=Document)
    return msgspec.structs.replace(document, score=round(min(max(score, -1.0), 1.0), 4))


def _key(id_: str) -> str:
    """An id as a key of a fixed length that is safe in every expression."""
    from hashlib import blake2b

    return blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=_ID_CHARS // 2).hexdigest()


def _batches(items: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), BATCH):
        yield list(items[start : start + BATCH])


def _failure(message: str, error: Exception) -> Exception:
    return ConnectionError(message) if classify(error).transient else RuntimeError(message)
