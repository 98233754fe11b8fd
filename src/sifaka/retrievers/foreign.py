"""Retrievers of other frameworks, known by their methods, without importing the frameworks (floor 2).

- LangChain: ``invoke(query)``, ``ainvoke``, or the older ``get_relevant_documents``; it answers with objects
  that have ``page_content`` and ``metadata``.
- LlamaIndex: ``retrieve(query)``, ``aretrieve``; it answers with nodes that have a ``score``, and a ``node``
  with ``get_content()``, ``node_id`` and ``metadata``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

from sifaka.errors import PartError
from sifaka.thought import Document

__all__ = ["AsyncForeignRetriever", "ForeignRetriever", "adapt_retriever", "documents_from"]

_METHODS = ("retrieve", "invoke", "get_relevant_documents")
_ASYNC_METHODS = ("aretrieve", "ainvoke", "aget_relevant_documents")
_COROUTINE, _GENERATOR = 0x80, 0x20


class ForeignRetriever:
    """Another framework's retriever as one of ours; ``retriever`` is the original."""

    def __init__(self, retriever: object, method: Callable[[str], Any], name: str) -> None:
        self.name = name
        self.retriever = retriever
        self._method = method

    def retrieve(self, query: str) -> list[Document]:
        """The documents, best first. Raises PartError for an answer that is none."""
        return documents_from(self._method(query), self.name)


class AsyncForeignRetriever:
    """As :class:`ForeignRetriever`, for one that can only be awaited."""

    def __init__(self, retriever: object, method: Callable[[str], Awaitable[Any]], name: str) -> None:
        self.name = name
        self.retriever = retriever
        self._method = method

    async def retrieve(self, query: str) -> list[Document]:
        """The documents, best first. Raises PartError for an answer that is none."""
        return documents_from(await self._method(query), self.name)


def adapt_retriever(retriever: object) -> ForeignRetriever | AsyncForeignRetriever | None:
    """``retriever`` with a ``retrieve`` that returns our documents; None for one that needs no adapting.

    That is one of ours (with ``retrieve`` and none of the other methods), a plain callable, or something that
    is no retriever at all. The synchronous method is taken where there are both.
    """
    if isinstance(retriever, type | ForeignRetriever | AsyncForeignRetriever):
        return None
    methods = {attribute: _method(retriever, attribute) for attribute in (*_METHODS, *_ASYNC_METHODS)}
    own = methods["retrieve"]
    if not any(method for method in methods.values() if method is not own) or _flags(own) & _GENERATOR:
        return None
    attribute, method = next((name, one) for name, one in methods.items() if one is not None)
    if attribute in _ASYNC_METHODS or _flags(method) & _COROUTINE:
        return AsyncForeignRetriever(retriever, method, _name_of(retriever))
    return ForeignRetriever(retriever, method, _name_of(retriever))


def _method(retriever: object, attribute: str) -> Any:
    method = getattr(retriever, attribute, None)
    return method if callable(method) else None


def _flags(method: Any) -> int:
    """What a method's code says of it: whether it is a coroutine's, or a generator's."""
    code = getattr(getattr(method, "__func__", method), "__code__", None)
    flags: int = getattr(code, "co_flags", 0)
    return flags


def _name_of(retriever: object) -> str:
    """Its own name where it has one. LangChain's are often None: then its class's."""
    name = getattr(retriever, "name", None)
    return name if isinstance(name, str) and name else type(retriever).__name__


def documents_from(value: Any, retriever: str = "") -> list[Document]:
    """A retriever's answer as Documents: texts, Documents, LangChain's documents, LlamaIndex's nodes.

    ``retriever`` is who answered, for the error. Raises PartError for anything else.
    """
    who = f"the retriever {retriever}" if retriever else "a retriever"
    answer: object = value
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise PartError(f"{who} returned {_kind(answer)}; it returns a list of documents")
    return [_document(one, who) for one in cast("Iterable[object]", value)]


def _document(one: object, who: str) -> Document:
    if isinstance(one, Document):
        return one
    if isinstance(one, str):
        return Document(one)
    text = getattr(one, "page_content", None)
    if isinstance(text, str):
        return _of_langchain(one, text)
    node: Any = getattr(one, "node", one)
    content = getattr(node, "get_content", None)
    if callable(content):
        return _of_llama_index(one, node, str(content()))
    raise PartError(f"{who} returned {_kind(one)} among its documents; {_KNOWN}")


_KNOWN = "known are str, Document, LangChain's objects with page_content and LlamaIndex's with get_content()"


def _of_langchain(one: object, text: str) -> Document:
    metadata = _metadata(getattr(one, "metadata", None))
    score = _number(metadata.get("relevance_score", metadata.get("score")))
    id_ = getattr(one, "id", None) or metadata.get("id") or ""
    return Document(text, str(id_), score, metadata)


def _of_llama_index(one: object, node: Any, text: str) -> Document:
    id_ = getattr(node, "node_id", None) or getattr(node, "id_", None) or ""
    score = _number(getattr(one, "score", None))
    return Document(text, str(id_), score, _metadata(getattr(node, "metadata", None)))


def _number(value: object) -> float | None:
    """A score as a float (numpy's and torch's become one), None for what is no number."""
    if value is None or isinstance(value, str | bytes | bool):
        return None
    try:
        number = float(cast("Any", value))
    except (TypeError, ValueError):
        return None
    return number if number == number and abs(number) != float("inf") else None  # noqa: PLR0124 - only NaN differs


def _metadata(value: object) -> dict[str, Any]:
    """Metadata that a record can hold: plain values as they are, anything else as its text."""
    if not isinstance(value, Mapping):
        return {}
    given = cast("Mapping[object, object]", value)
    return {str(name): _plain(one) for name, one in given.items()}


def _plain(value: object, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth < 8 and isinstance(value, Mapping):
        given = cast("Mapping[object, object]", value)
        return {str(name): _plain(one, depth + 1) for name, one in given.items()}
    if depth < 8 and isinstance(value, list | tuple):
        return [_plain(one, depth + 1) for one in cast("Iterable[object]", value)]
    return str(value)


def _kind(value: object) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"
