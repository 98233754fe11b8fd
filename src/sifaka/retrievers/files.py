"""Files and folders as documents of a readable size (floor 2).

A file is cut where a reader would pause: between paragraphs, else between sentences or lines, else between
words. Nothing is lost and nothing is there twice: the pieces of a file, put together, are the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from sifaka.errors import PartError
from sifaka.thought import Document

__all__ = ["CHUNK_CHARS", "SUFFIXES", "cut", "read_files"]

CHUNK_CHARS = 1_500
"""About a page of a paperback: a few paragraphs that belong together."""
SUFFIXES = (".txt", ".md", ".rst")

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def read_files(
    paths: Paths, *, chunk_chars: int | None, suffixes: Sequence[str], encoding: str
) -> list[Document]:
    """The documents in ``paths``: files, and folders with all files below them that end with a suffix.

    A document's id is its path and number, ``"guide.md#2"``; its metadata has ``path``, and ``begin`` and
    ``end``, the characters of the file that it holds. Raises PartError for a path that is none, or a file
    that is no text of this encoding.
    """
    if chunk_chars is not None and chunk_chars < 1:
        raise PartError(f"chunk_chars={chunk_chars}; it is 1 or more, or None for whole files")
    if isinstance(suffixes, str):
        raise PartError(f"write suffixes=[{suffixes!r}]: it is a list of endings")
    documents: list[Document] = []
    for path in _files(paths, tuple(suffixes)):
        documents += _documents(path, _text(path, encoding), chunk_chars)
    return documents


def _files(paths: Paths, suffixes: tuple[str, ...]) -> Iterator[str]:
    for one in [paths] if isinstance(paths, str | os.PathLike) else paths:
        path = os.fspath(one)
        if os.path.isdir(path):
            yield from _below(path, suffixes)
        elif os.path.exists(path):
            yield path
        else:
            raise PartError(f"there is no file or folder {path!r}")


def _below(folder: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """The files below a folder in a fixed order, hidden ones left out; links to folders are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(suffixes) and not name.startswith("."):
                yield os.path.join(place, name)


def _text(path: str, encoding: str) -> str:
    try:
        with open(path, encoding=encoding) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise PartError(f"{path!r} is no text in {encoding}: {error.reason} at byte {error.start}") from error
    except (OSError, LookupError) as error:
        raise PartError(f"{path!r} cannot be read: {error}") from error


def _documents(path: str, text: str, chunk_chars: int | None) -> Iterator[Document]:
    begin = 0
    pieces = [text] if chunk_chars is None else cut(text, chunk_chars)
    for number, piece in enumerate(pieces):
        end = begin + len(piece)
        if piece.strip():
            where = {"path": path, "begin": begin, "end": end}
            yield Document(piece.strip(), f"{path}#{number}", metadata=where)
        begin = end


def cut(text: str, chars_max: int) -> list[str]:
    """``text`` in pieces of at most ``chars_max`` characters, each as long as the pauses in it allow."""
    pieces: list[str] = []
    begin = 0
    while len(text) - begin > chars_max:
        end = _pause(text, begin, begin + chars_max)
        pieces.append(text[begin:end])
        begin = end
    return [*pieces, text[begin:]]


def _pause(text: str, begin: int, end: int) -> int:
    """The last good place to cut: after an empty line, a sentence, a line, a word, or anywhere."""
    for mark in ("\n\n", ". ", "\u3002", "\n", " "):
        place = text.rfind(mark, begin, end)
        # A pause in the first quarter would leave a scrap; a lesser pause further on is better.
        if place + len(mark) - begin > (end - begin) // 4 and place >= 0:
            return place + len(mark)
    return end
