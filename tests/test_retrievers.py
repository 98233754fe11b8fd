"""The ready-made retrievers: what they find, in files too, and those of other frameworks by their shape."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
from types import SimpleNamespace
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import doubles
from doubles import Model, chain_of
from sifaka.engine.answers import documents_of
from sifaka.engine.plan import bind_part
from sifaka.errors import MissingExtraError, PartError
from sifaka.faults import classify
from sifaka.retrievers import (
    BM25Retriever,
    InMemoryRetriever,
    VectorRetriever,
    adapt_retriever,
    documents_from,
)
from sifaka.retrievers.files import cut
from sifaka.retrievers.tokens import terms
from sifaka.storage.milvus import MilvusStorage
from sifaka.thought import Document

storage = doubles.storage

TEXTS = [
    "The lemur leaps from tree to tree.",
    "A bear sleeps in winter.",
    "Lemurs eat fruit. A lemur sleeps in the tree.",
    "Ein Bär schläft.",
    "狐猴住在马达加斯加的森林里",
]


def texts(found):
    return [one.text for one in found]


# BM25 --------------------------------------------------------------------------------------


def test_the_documents_that_share_the_rarest_words_come_first():
    retriever = BM25Retriever(TEXTS)
    assert texts(retriever.retrieve("Which lemur leaps?")) == [TEXTS[0], TEXTS[2]]
    assert texts(retriever.retrieve("BÄR")) == [TEXTS[3]]
    assert texts(retriever.retrieve("a\u0308r ba\u0308r")) == [TEXTS[3]]
    assert texts(retriever.retrieve("森林")) == [TEXTS[4]]
    assert texts(
        retriever.retrieve(
            "sleeps",
        )
    ) == [TEXTS[1], TEXTS[2]]
    assert len(retriever) == 5


def test_scores_are_bm25s():
    found = BM25Retriever(["one lemur", "two lemurs and bears", "three bears"]).retrieve("lemur bears")
    # Lucene's idf is log(1 + (N - n + 0.5) / (n + 0.5)); tf is f / (f + k1 * (1 - b + b * length / mean)).
    mean = (2 + 4 + 2) / 3
    idf = {1: math.log(1 + (3 - 1 + 0.5) / 1.5), 2: math.log(1 + (3 - 2 + 0.5) / 2.5)}
    expected = [
        ("one lemur", idf[1] / (1 + 1.5 * (0.25 + 0.75 * 2 / mean))),
        ("three bears", idf[2] / (1 + 1.5 * (0.25 + 0.75 * 2 / mean))),
        ("two lemurs and bears", idf[2] / (1 + 1.5 * (0.25 + 0.75 * 4 / mean))),
    ]
    assert [(one.text, one.score) for one in found] == [
        (text, pytest.approx(score, abs=1e-4)) for text, score in expected
    ]


def test_bm25_keeps_what_a_document_has_and_returns_no_more_than_was_asked_for():
    documents = [Document(f"lemur {n}", f"id{n}", metadata={"n": n}) for n in range(9)]
    found = BM25Retriever(documents, top_k=3).retrieve("lemur")
    assert [(one.id, one.metadata) for one in found] == [(f"id{n}", {"n": n}) for n in range(3)]
    assert all(one.score > 0 for one in found)


@pytest.mark.parametrize("query", ["", "  ", "?!", "zebra", "\ud800"])
def test_a_query_that_shares_no_word_finds_nothing(query):
    assert BM25Retriever(TEXTS).retrieve(query) == []


@pytest.mark.parametrize("documents", [[], [""], ["", " ?"]])
def test_nothing_is_found_among_nothing(documents):
    assert BM25Retriever(documents).retrieve("lemur") == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab \u0301狐猴\ud800.", max_size=8), max_size=6), st.text("ab \u0301狐猴.", max_size=8)
)
def test_what_is_found_shares_a_term_and_comes_best_first(documents, query):
    found = BM25Retriever(documents, top_k=3).retrieve(query)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(set(terms(one.text)) & set(terms(query)) for one in found)
    sharing = [one for one in documents if set(terms(one)) & set(terms(query))]
    assert len(found) == min(3, len(sharing))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"documents": "one text"}, "not one text"),
        ({"documents": [5]}, "5"),
        ({"documents": [], "top_k": 0}, "top_k"),
        ({"documents": [], "k1": -1}, "k1"),
        ({"documents": [], "b": 2}, "b=2"),
    ],
)
def test_bm25_without_sense_is_refused(arguments, said):
    with pytest.raises(PartError, match=said):
        BM25Retriever(**arguments)


def test_without_bm25s_the_message_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sifaka\[retrievers\]'"):
        BM25Retriever(["a"])


def test_bm25_works_in_a_chain(storage):
    model = Model("ok")
    chain = chain_of(model, storage, retrievers=[BM25Retriever(TEXTS)], prompt="Where leaps a lemur?")
    assert chain.run().pre_generation_context[0].text == TEXTS[0]
    assert TEXTS[0] in model.prompts[0]


# Files -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Files of several kinds, some of them in folders."""
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "b.md").write_text("# Bears\n\nBears sleep.", encoding="utf-8")
    (tmp_path / "a.txt").write_text("Lemurs leap.\n\n" + "Fruit is eaten. " * 200, encoding="utf-8")
    (tmp_path / "sub" / "c.rst").write_text("Zebras run.", encoding="utf-8")
    (tmp_path / "sub" / "d.py").write_text("zebra = 1", encoding="utf-8")
    (tmp_path / ".hidden" / "e.txt").write_text("Zebras hide.", encoding="utf-8")
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    return tmp_path


def test_a_folder_is_read_with_what_is_below_it(folder):
    retriever = BM25Retriever.from_files(folder)
    (found,) = retriever.retrieve("zebras")
    path = str(folder / "sub" / "c.rst")
    assert found.id == f"{path}#0"
    assert found.metadata == {"path": path, "begin": 0, "end": 11}
    assert texts(retriever.retrieve("bears"))[0] == "# Bears\n\nBears sleep."
    assert texts(BM25Retriever.from_files(folder, suffixes=[".py"]).retrieve("zebra")) == ["zebra = 1"]


def test_files_are_read_whatever_they_are_called_and_in_the_order_given(folder):
    retriever = BM25Retriever.from_files([folder / "sub" / "d.py", str(folder / "b.md")], chunk_chars=None)
    assert len(retriever) == 2
    assert texts(retriever.retrieve("zebra")) == ["zebra = 1"]


def test_a_long_file_is_cut_and_each_piece_says_where_it_was(folder):
    text = (folder / "a.txt").read_text(encoding="utf-8")
    retriever = BM25Retriever.from_files(folder / "a.txt", top_k=100, chunk_chars=300)
    found = retriever.retrieve("lemurs fruit")
    assert len(found) == len(retriever) > 5
    for one in found:
        assert len(one.text) <= 300
        assert text[one.metadata["begin"] : one.metadata["end"]].strip() == one.text
    assert len({one.id for one in found}) == len(found)


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"ab\xff")
    for paths, arguments, said in [
        (tmp_path / "none.txt", {}, "no file or folder"),
        (tmp_path, {}, "at byte 2"),
        (tmp_path, {"encoding": "utf-99"}, "utf-99"),
        (tmp_path, {"chunk_chars": 0}, "chunk_chars"),
        (tmp_path, {"suffixes": ".txt"}, "is a list"),
    ]:
        with pytest.raises(PartError, match=said):
            BM25Retriever.from_files(paths, **arguments)
    assert len(BM25Retriever.from_files(tmp_path, encoding="latin-1")) == 1


@given(st.text("ab.\n 。", max_size=200), st.integers(1, 50))
def test_the_pieces_are_the_text_and_none_is_too_long(text, most):
    pieces = cut(text, most)
    assert "".join(pieces) == text
    assert all(len(piece) <= most for piece in pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One two.\n\nThree four five.", ["One two.\n\n", "Three four five."]),
        ("One two. Three four five.", ["One two. ", "Three four five."]),
        ("one two three four five", ["one two three ", "four five"]),
        ("onetwothreefourfive!!", ["onetwothreefourf", "ive!!"]),
        ("a. bbbbbbbb ccccccccc", ["a. bbbbbbbb ", "ccccccccc"]),
    ],
)
def test_a_text_is_cut_where_a_reader_would_pause(text, pieces):
    assert cut(text, 16) == pieces


# Vectors -----------------------------------------------------------------------------------

WORDS = ["lemur", "bear", "tree", "fruit", "sleep", "leap"]


def embed(texts):
    """How often each known word comes up, and a little of all, so that no vector is zero."""
    return [[text.casefold().count(word) + 0.01 for word in WORDS] for text in texts]


@pytest.fixture(scope="session")
def lite_path(tmp_path_factory):
    pytest.importorskip("milvus_lite")
    return tmp_path_factory.mktemp("vectors") / "docs.db"


@pytest.fixture(params=["lite", pytest.param("server", marks=pytest.mark.slow)])
def vectors(request, lite_path):
    """An empty collection of documents."""
    uri = str(lite_path)
    if request.param == "server":
        uri = request.getfixturevalue("milvus_server").url
    made = VectorRetriever(uri, embed, f"c{uuid4().hex}", timeout_s=20.0)
    yield made
    made.close()


def test_the_nearest_documents_are_found_at_once(vectors):
    assert vectors.retrieve("lemur") == []
    assert len(vectors) == 0
    assert vectors.add(TEXTS[:3]) == 3
    assert texts(vectors.retrieve("a lemur that leaps in a tree"))[0] == TEXTS[0]
    best = vectors.retrieve("bear sleep")[0]
    assert best.text == TEXTS[1]
    left, right = embed(["bear sleep"])[0], embed([TEXTS[1]])[0]
    cosine = math.sumprod(left, right) if hasattr(math, "sumprod") else sum(map(float.__mul__, left, right))
    assert best.score == pytest.approx(cosine / math.hypot(*left) / math.hypot(*right), abs=1e-3)
    assert vectors.retrieve(" ") == []


def test_a_document_keeps_all_it_has_and_an_id_is_there_once(vectors):
    first = Document("lemur", "a'\" or 1", metadata={"n": 1, "tags": ["x"]})
    vectors.add([first, Document("bear", "b")])
    vectors.add([Document("lemur lemur", "a'\" or 1", metadata={"n": 2})])
    assert len(vectors) == 2
    best = vectors.retrieve("lemur")[0]
    assert (best.text, best.id, best.metadata) == ("lemur lemur", "a'\" or 1", {"n": 2})
    vectors.remove(["a'\" or 1"])
    assert texts(vectors.retrieve("lemur")) == ["bear"]
    vectors.add(["tree"])
    vectors.remove(["tree"])
    assert len(vectors) == 1


def test_many_documents_go_in_batches_and_no_more_than_top_k_come_out(vectors):
    asked = []

    def counted(texts):
        asked.append(len(texts))
        return embed(texts)

    vectors._embed = counted
    vectors.add([Document(f"lemur {n}", str(n)) for n in range(230)])
    assert asked == [100, 100, 30]
    assert len(vectors) == 230
    assert len(vectors.retrieve("lemur")) == 5


def test_a_lite_folder_keeps_its_documents_and_is_free_after_close(tmp_path):
    pytest.importorskip("milvus_lite")
    path = tmp_path / "own.db"
    first = VectorRetriever(str(path), embed)
    first.add(["lemur"])
    code = (
        "import sys; from sifaka.retrievers import VectorRetriever\n"
        "try: print(len(VectorRetriever(sys.argv[1], lambda texts: [[1.0]])))\n"
        "except (ConnectionError, RuntimeError): print('refused')"
    )
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "refused"
    second = VectorRetriever(str(path), embed)
    assert len(second) == 1
    first.close()
    assert len(second) == 1  # the folder is still in use
    second.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "1"
    assert path.stat().st_mode & 0o777 == 0o700


def test_another_embedding_or_collection_is_refused(lite_path):
    name = f"c{uuid4().hex}"
    one = VectorRetriever(str(lite_path), embed, name)
    one.add(["lemur"])
    other = VectorRetriever(str(lite_path), lambda texts: [[1.0, 2.0]] * len(texts), name)
    with pytest.raises(PartError, match="vectors of 2 numbers"):
        other.retrieve("lemur")
    with pytest.raises(PartError, match="vectors of 2 numbers"):
        other.add(["lemur"])
    assert len(one) == 1
    import pymilvus

    client = pymilvus.MilvusClient(str(lite_path))
    client.create_collection(f"{name}x", dimension=6)
    with pytest.raises(PartError, match="another program"):
        VectorRetriever(str(lite_path), embed, f"{name}x").retrieve("lemur")
    client.close()
    one.close()
    other.close()


@pytest.mark.parametrize(
    "answer",
    [[], [[1.0], [2.0]], [[0.0, 0.0]], [[]], [[float("nan")]], [[float("inf"), 1.0]]],
)
def test_vectors_that_are_none_are_refused(lite_path, answer):
    retriever = VectorRetriever(str(lite_path), lambda texts: answer, f"c{uuid4().hex}")
    with pytest.raises(PartError, match="embed returned"):
        retriever.retrieve("lemur")
    with pytest.raises(PartError, match="embed returned"):
        retriever.add(["lemur"])


def test_a_document_that_is_too_long_is_refused_by_name(lite_path):
    retriever = VectorRetriever(str(lite_path), embed, f"c{uuid4().hex}")
    with pytest.raises(PartError, match="'big' has"):
        retriever.add([Document("x" * 70_000, "big")])
    with pytest.raises(PartError, match="'odd' holds"):
        retriever.add([Document("x", "odd", metadata={"x": object()})])
    retriever.close()


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("call", ["add", "retrieve", "remove", "len"])
def test_a_server_that_is_down_is_a_fault_that_may_pass_and_tells_no_secret(call):
    pytest.importorskip("pymilvus")
    retriever = VectorRetriever(f"http://user:CANARY@127.0.0.1:{closed_port()}", embed, timeout_s=0.5)
    calls = {
        "add": lambda: retriever.add(["x"]),
        "retrieve": lambda: retriever.retrieve("x"),
        "remove": lambda: retriever.remove(["x"]),
        "len": lambda: len(retriever),
    }
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1") as caught:
        calls[call]()
    assert "CANARY" not in str(caught.value)
    assert classify(caught.value).transient


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"uri": "docs.sqlite", "embed": embed}, r"\*\.db"),
        ({"uri": "docs.db", "embed": "model"}, "embed"),
        ({"uri": "docs.db", "embed": embed, "top_k": 0}, "top_k"),
    ],
)
def test_a_vector_retriever_without_sense_is_refused(arguments, said):
    with pytest.raises(PartError, match=said):
        VectorRetriever(**arguments)


def test_without_pymilvus_the_message_has_the_command(monkeypatch):
    monkeypatch.setattr("sifaka.milvus.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sifaka\[milvus\]'"):
        VectorRetriever("docs.db", embed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_opens_a_connection_of_its_own(lite_path):
    retriever = VectorRetriever(str(lite_path), embed, f"c{uuid4().hex}")
    retriever._link._pid = -1  # as a child finds it
    retriever._link._client = object()  # its parent's: it would fail
    assert len(retriever) == 0
    retriever.close()


# Other frameworks' -------------------------------------------------------------------------


class LangDocument:
    """As langchain_core's: a text, metadata, and perhaps an id."""

    def __init__(self, page_content, metadata=None, id=None):  # noqa: A002
        self.page_content = page_content
        self.metadata = metadata or {}
        self.id = id


class LangRetriever:
    """As langchain_core's BaseRetriever: a Runnable, whose name is None unless it is given one."""

    name = None

    def invoke(self, query, config=None, **kwargs):
        return [LangDocument(f"about {query}", {"source": "a.txt", "page": 3}, "7"), LangDocument("more")]

    async def ainvoke(self, query, config=None, **kwargs):
        return self.invoke(query)


class OldLangRetriever:
    def get_relevant_documents(self, query):
        return [LangDocument(query)]


class Node:
    """As llama_index's TextNode."""

    def __init__(self, text, node_id, metadata=None):
        self.node_id = node_id
        self.metadata = metadata or {}
        self._text = text

    def get_content(self, metadata_mode="none"):
        return self._text


class LlamaRetriever:
    """As llama_index's BaseRetriever."""

    def retrieve(self, query):
        nodes = [Node(f"about {query}", "n1", {"k": 1}), Node("more", "n2")]
        return [SimpleNamespace(node=nodes[0], score=0.5), SimpleNamespace(node=nodes[1], score=None)]

    async def aretrieve(self, query):
        return self.retrieve(query)


class OnlyAsync:
    name = "waits"

    async def aretrieve(self, query):
        return [SimpleNamespace(node=Node(query, "n"), score=1)]


def test_a_langchain_retriever_is_one_of_ours():
    adapted = adapt_retriever(LangRetriever())
    assert adapted.name == "LangRetriever"
    assert adapted.retrieve("x") == [
        Document("about x", "7", None, {"source": "a.txt", "page": 3}),
        Document("more"),
    ]
    assert adapt_retriever(OldLangRetriever()).retrieve("x") == [Document("x")]


def test_a_llama_index_retriever_is_one_of_ours():
    adapted = adapt_retriever(LlamaRetriever())
    assert adapted.name == "LlamaRetriever"
    assert adapted.retrieve("x") == [Document("about x", "n1", 0.5, {"k": 1}), Document("more", "n2")]


def test_a_retriever_that_can_only_be_awaited_is_awaited():
    adapted = adapt_retriever(OnlyAsync())
    assert adapted.name == "waits"
    assert bind_part("model_retriever", adapted, ()).coroutine
    assert asyncio.run(adapted.retrieve("x")) == [Document("x", "n", 1.0)]

    class Both:
        async def invoke(self, query):
            return [query]

    assert asyncio.run(adapt_retriever(Both()).retrieve("x")) == [Document("x")]


def test_what_needs_no_adapting_is_left_alone():
    class Asking:
        def retrieve(self, query):
            yield query

        def aretrieve(self, query):
            return []

    ours = [
        InMemoryRetriever(TEXTS),
        BM25Retriever(TEXTS),
        lambda query: [],
        LangRetriever,
        Asking(),
        5,
        None,
    ]
    assert [adapt_retriever(one) for one in ours] == [None] * len(ours)
    adapted = adapt_retriever(LlamaRetriever())
    assert adapt_retriever(adapted) is None


@pytest.mark.parametrize("retriever", [LangRetriever(), LlamaRetriever(), OnlyAsync()])
def test_another_frameworks_retriever_works_in_a_chain(storage, retriever):
    chain = chain_of(Model("ok"), storage, retrievers=[adapt_retriever(retriever)], prompt="lemurs")
    assert "lemurs" in chain.run().pre_generation_context[0].text


def test_odd_metadata_and_scores_become_what_a_record_can_hold():
    deep = {}
    deep["self"] = deep
    odd = LangDocument(
        "x", {"when": OnlyAsync, "set": {1}, 5: (1, 2), "deep": deep, "score": "0.5", "ok": None}
    )
    (found,) = documents_from([odd])
    msgspec.msgpack.encode(found)
    assert found.metadata["5"] == [1, 2]
    assert found.metadata["set"] == "{1}"
    assert found.score is None
    numpy = pytest.importorskip("numpy")
    nodes = [SimpleNamespace(node=Node("x", "n"), score=one) for one in (numpy.float32(0.5), float("nan"))]
    assert [one.score for one in documents_from(nodes)] == [0.5, None]
    assert documents_of(documents_from(nodes), "x")


def test_a_bare_node_and_our_own_are_documents_too():
    assert documents_from(["a", Document("b"), Node("c", "n")]) == [
        Document("a"),
        Document("b"),
        Document("c", "n"),
    ]
    assert documents_from(iter(["a"])) == [Document("a")]
    assert documents_from(()) == []


@pytest.mark.parametrize("value", [None, "text", b"x", {"a": 1}, 5, [5], [None], [{"page_content": "x"}]])
def test_an_answer_that_is_none_is_named_with_who_gave_it(value):
    with pytest.raises(PartError, match="the retriever mine returned"):
        documents_from(value, "mine")


def test_nothing_heavy_is_loaded_before_it_is_needed():
    code = (
        "import sys, sifaka.retrievers as r\n"
        "before = 'sifaka.retrievers.memory' in sys.modules\n"
        "r.BM25Retriever, r.VectorRetriever, r.InMemoryRetriever, r.adapt_retriever\n"
        "print([m for m in ('numpy', 'bm25s', 'pymilvus', 'asyncio') if m in sys.modules], before)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["[]", "False"]


def test_documents_and_similar_cases_may_share_a_lite_folder(tmp_path):
    pytest.importorskip("milvus_lite")
    path = str(tmp_path / "both.db")
    cases, documents = MilvusStorage(path), VectorRetriever(path, embed)
    documents.add(["lemur"])
    assert cases.count() == 0
    cases.close()
    assert len(documents) == 1  # it is still in use
    documents.close()
    assert len(VectorRetriever(path, embed)) == 1
