"""English prose as people write it: the documentation that Python carries with it, topics and docstrings.

The made-up sentences of `workload.py` are about as compressible as English on the whole, but no dictionary
can be trained on them honestly: they share one vocabulary. Here the sources are divided: a dictionary is
trained on some of them and tried on the others, and no sentence is in both. It is all about programming, so
it favours a dictionary as runs about one subject do, not as runs about anything would.

A draft is a few kB of one source; each revision exchanges some of its sentences.
"""

from __future__ import annotations

import ast
import random
import re
import sysconfig
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

DRAFT_CHARS = 4_000
CRITIQUE_CHARS = 800
DOCUMENT_CHARS = 2_000
REVISED_SHARE = 0.2
_SOURCE_CHARS_MIN = 3_000
_SENTENCE_CHARS = (30, 500)


@cache
def sources(part: int, parts: int = 2) -> tuple[tuple[str, ...], ...]:
    """Every ``parts``-th source from number ``part`` on, each as its sentences in order, none told twice."""
    return tuple(tuple(one) for one in _all_sources()[part::parts])


@cache
def _all_sources() -> list[list[str]]:
    seen: set[str] = set()
    found: list[list[str]] = []
    for text in _texts():
        mine = [one for one in _sentences(text) if one not in seen and not seen.add(one)]
        if sum(map(len, mine)) >= _SOURCE_CHARS_MIN:
            found.append(mine)
    return found


def _texts() -> Iterator[str]:
    """The topics of ``help()``, and all docstrings of each module of the standard library that has many."""
    yield from (topics[name] for name in sorted(topics))
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:
            continue
        nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docs = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, nodes)]
        yield "\n\n".join(docs)


def _sentences(text: str) -> Iterator[str]:
    least, most = _SENTENCE_CHARS
    for paragraph in re.split(r"\n\s*\n", text):
        plain = " ".join(textwrap.dedent(paragraph).split())
        for sentence in re.split(r"(?<=[.:!?]) +(?=[A-Z*\"])", plain):
            letters = sum(one.isalpha() or one == " " for one in sentence)
            if least < len(sentence) < most and letters > 0.88 * len(sentence) and sentence[-1] in ".:!?":
                yield sentence


class Writer:
    """Writes the texts of one chain about one topic; the same for the same number."""

    def __init__(self, number: int, *, part: int) -> None:
        self._rng = random.Random(f"prose/{part}/{number}")
        self._topic = sources(part)[number % len(sources(part))]
        self._draft = self._passage(DRAFT_CHARS)

    def _passage(self, chars: int) -> list[str]:
        at = self._rng.randrange(len(self._topic))
        chosen: list[str] = []
        while sum(map(len, chosen)) < chars:
            chosen.append(self._topic[at % len(self._topic)])
            at += 1
        return chosen

    def draft(self) -> str:
        """The draft as it stands now; the next one has some other sentences in it."""
        text = self._paragraphs(self._draft)
        for place in range(len(self._draft)):
            if self._rng.random() < REVISED_SHARE:
                self._draft[place] = self._rng.choice(self._topic)
        return text

    def critique(self) -> str:
        return " ".join(self._passage(CRITIQUE_CHARS))

    def document(self) -> str:
        return self._paragraphs(self._passage(DOCUMENT_CHARS))

    @staticmethod
    def _paragraphs(chosen: list[str]) -> str:
        return "\n\n".join(" ".join(chosen[at : at + 5]) for at in range(0, len(chosen), 5))
