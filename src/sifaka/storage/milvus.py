"""Nearest faults in Milvus: a server's collection, or a milvus-lite folder (floor 3).

Ids go into expressions and keys as hashes in hex, so that no id can be an expression. What comes back is
believed only where it agrees with itself: the payload decodes, its ids are those of its row, and its score
is the one that its text gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

from sifaka.milvus import MilvusLink
from sifaka.storage.similarity.cases import (
    PAYLOAD_BYTES_MAX,
    Case,
    EmbeddingFunction,
    Match,
    Similarity,
    SimilarityError,
    decode,
    encode,
)
from sifaka.storage.similarity.measure import Measure

__all__ = ["MilvusStorage"]

BATCH = 200
"""Cases a call, and runs an expression: about 1 MB."""
SETUP_TIMES = 10
"""Making and loading a collection may take so many times as long as a call."""
SCORE_TOLERANCE = 1e-3
_HEX = "0123456789abcdef"
_ID_CHARS = 32


class MilvusStorage(Similarity):
    """Cases in the Milvus at ``uri``: ``"http://host:19530"``, or a milvus-lite folder ``"./cases.db"``.

    It is opened at the first call, and again after a failure. The collection is made where it is missing; one
    with other fields, another dimension or another kind of embedding is refused. ``timeout_s`` bounds each
    request, ten times as much making the collection. What was added is found at once (consistency "Strong").

    A milvus-lite folder belongs to one process at a time, which serves it on a loopback port without a
    password; the folder is made readable by its owner only. :meth:`forget` writes it anew, without the
    texts. A server stops finding them at once, and removes them from its files when it next compacts and
    collects garbage, by its own settings.
    """

    def __init__(
        self,
        uri: str,
        collection_name: str = "sifaka_cases",
        embedding_function: EmbeddingFunction | None = None,
        token: str = "",
        timeout_s: float = 2.0,
    ) -> None:
        self.collection_name = collection_name
        self.timeout_s = timeout_s
        self.measure = Measure(embedding_function)
        self._link = MilvusLink(
            uri,
            token,
            timeout_s,
            what="MilvusStorage",
            prepare=self._open,
            failed=lambda message, _: SimilarityError(message),
        )
        self._lies_lock = Lock()

    def close(self) -> None:
        """Close the connection. A milvus-lite folder that nobody here uses any more becomes free."""
        self._link.close()

    def _open(self, client: Any) -> None:
        """Make the collection where it is missing, see that it is ours, and load it."""
        dimensions = self.measure.dimensions
        if self._link.lite:
            self._finish_rewriting(client)
        if not client.has_collection(self.collection_name, timeout=self.timeout_s):
            self._create(client, self.collection_name, dimensions)
        self._check(client, dimensions)
        client.load_collection(self.collection_name, timeout=self.timeout_s * SETUP_TIMES)

    # The collection ------------------------------------------------------------------------

    def _fields(self, dimensions: int) -> dict[str, dict[str, Any]]:
        """The fields by name. The vector's says what it was measured by: milvus-lite keeps no description."""
        return {
            "id": {"max_length": _ID_CHARS},
            "chain": {"max_length": _ID_CHARS},
            "payload": {"max_length": PAYLOAD_BYTES_MAX},
            self.measure.name: {"dim": dimensions},
        }

    def _create(self, client: Any, name: str, dimensions: int) -> None:
        from pymilvus import DataType

        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        for field, sizes in self._fields(dimensions).items():
            kind = DataType.FLOAT_VECTOR if "dim" in sizes else DataType.VARCHAR
            schema.add_field(field, kind, is_primary=field == "id", **sizes)
        index = client.prepare_index_params()
        index.add_index(self.measure.name, index_type="FLAT", metric_type="IP")
        client.create_collection(
            name,
            schema=schema,
            index_params=index,
            consistency_level="Strong",
            timeout=self.timeout_s * SETUP_TIMES,
        )

    def _check(self, client: Any, dimensions: int) -> None:
        told = client.describe_collection(self.collection_name, timeout=self.timeout_s)
        found = {
            field["name"]: {
                key: int(field["params"][key]) for key in ("max_length", "dim") if key in field["params"]
            }
            for field in told["fields"]
        }
        if found != self._fields(dimensions):
            raise SimilarityError(
                f"the collection {self.collection_name!r} of Milvus at {self._link.name} has the fields "
                f"{found}, not {self._fields(dimensions)}: it was made with another embedding_function, "
                "or by another program. Give the old function, or another collection_name"
            )

    # Writing -------------------------------------------------------------------------------

    def keep(self, cases: Sequence[Case]) -> None:
        """Keep the cases, in batches: after a failure some may be kept, and adding all again is right."""
        rows = [self._row(case) for case in cases]
        with self._link.use() as client:
            self._upsert(client, self.collection_name, rows)

    def _row(self, case: Case) -> dict[str, Any]:
        return {
            "id": _hex(case.case_id),
            "chain": _hex(case.chain_id),
            "payload": encode(case).decode(),
            self.measure.name: self.measure.vector(case),
        }

    def _upsert(self, client: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for batch in _batches(rows):
            client.upsert(name, batch, timeout=self.timeout_s)

    def forget(self, chain_ids: Iterable[str]) -> None:
        """Remove the cases of these runs; see the class for when their texts are gone from its files."""
        with self._link.use() as client:
            for batch in _batches([_hex(chain_id) for chain_id in chain_ids]):
                chains = ", ".join(f'"{chain}"' for chain in batch)
                client.delete(self.collection_name, filter=f"chain in [{chains}]", timeout=self.timeout_s)
            if self._link.lite:
                self._rewrite(client)

    def _rewrite(self, client: Any) -> None:
        """Copy what is left to a new collection, which then takes the old one's place.

        milvus-lite only marks rows as deleted, and may keep their texts in its files for ever.
        """
        other = f"{self.collection_name}_kept"
        self._create(client, other, self.measure.dimensions)
        for digit in _HEX:
            rows = client.query(
                self.collection_name,
                filter=f'id like "{digit}%"',
                output_fields=list(self._fields(0)),
                timeout=self.timeout_s * SETUP_TIMES,
            )
            self._upsert(client, other, [dict(row) for row in rows])
        client.flush(other, timeout=self.timeout_s * SETUP_TIMES)
        client.drop_collection(self.collection_name, timeout=self.timeout_s)
        self._finish_rewriting(client)
        client.load_collection(self.collection_name, timeout=self.timeout_s)

    def _finish_rewriting(self, client: Any) -> None:
        """The copy is whole once the old collection is gone; before that it is worth nothing."""
        other = f"{self.collection_name}_kept"
        if not client.has_collection(other, timeout=self.timeout_s):
            return
        if client.has_collection(self.collection_name, timeout=self.timeout_s):
            client.drop_collection(other, timeout=self.timeout_s)
        else:
            client.rename_collection(other, self.collection_name, timeout=self.timeout_s)

    # Reading -------------------------------------------------------------------------------

    def count(self) -> int:
        """How many cases are kept."""
        with self._link.use() as client:
            told = client.query(
                self.collection_name,
                filter="",
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self.timeout_s,
            )
            return int(told[0]["count(*)"])

    def nearest(self, case: Case, limit: int = 10) -> list[Match]:
        """The most similar cases, best first, of what Milvus answered and could be true."""
        vector = self.measure.vector(case)
        with self._link.use() as client:
            answers = client.search(
                self.collection_name,
                data=[vector],
                anns_field=self.measure.name,
                limit=limit + 1,  # the case itself may be among them
                output_fields=["chain", "payload"],
                search_params={"metric_type": "IP"},
                consistency_level="Strong",
                timeout=self.timeout_s,
            )
            hits = list(answers[0])
        matches = [match for match in self._believed(case, hits) if match.case.case_id != case.case_id]
        return sorted(matches, key=lambda match: -match.similarity)[:limit]

    def _believed(self, asked: Case, hits: Iterable[Any]) -> Iterator[Match]:
        """The hits that can be true, each case once."""
        seen: set[str] = set()
        for hit in hits:
            match = self._match(asked, hit)
            if match is None or match.case.case_id in seen:
                with self._lies_lock:
                    self.lies += 1
            else:
                seen.add(match.case.case_id)
                yield match

    def _match(self, asked: Case, hit: Any) -> Match | None:
        try:
            id_, score, entity = hit["id"], float(hit["distance"]), hit["entity"]
            case, chain = decode(entity["payload"]), entity["chain"]
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        if case is None or id_ != _hex(case.case_id) or chain != _hex(case.chain_id):
            return None
        low, high = self.measure.bounds(asked, case)
        if not low - SCORE_TOLERANCE <= score <= high + SCORE_TOLERANCE:  # also false for NaN
            return None
        return Match(case, min(max(score, 0.0), 1.0))


def _hex(id_: str) -> str:
    """An id as a key that is safe in every expression."""
    from hashlib import blake2b

    return blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=_ID_CHARS // 2).hexdigest()


def _batches(items: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), BATCH):
        yield list(items[start : start + BATCH])
