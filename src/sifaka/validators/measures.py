"""How a text is measured: what can be seen in it, its characters, words and sentences (floor 2).

Scripts without spaces are counted too: a Chinese or Japanese character is a word, as in most word
processors, and their full stops end sentences without a space. Each measure takes time in proportion to
the text's length, whatever stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["characters", "is_blank", "is_spaceless", "sentences", "words"]

_SPACELESS = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U000323af"
)
"""Han, Hiragana and Katakana: scripts that put no spaces between words."""
_STOPS = (
    ".!?\u2026\u203c-\u2049\u061f\u06d4\u0589\u1362\u1367\u104a\u104b\u17d4\u17d5\u0964\u0965\u0f0d\u0f0e"
)
"""Ends of sentences that need a space, or the end of the text, behind them."""
_WIDE_STOPS = "\u3002\uff01\uff1f\uff0e\uff61"
"""Ends of sentences that need none."""
_CLOSERS = "\"'\u2019\u201d\u201c\u00bb\u203a)\\]}\u300d\u300f\u3011\uff09\uff3d*_`"
"""What may close a sentence behind its stop: quotes, brackets, marks of emphasis."""
_TITLES = frozenset(
    {
        "approx",
        "co",
        "corp",
        "dept",
        "dr",
        "est",
        "etc",
        "fig",
        "inc",
        "jr",
        "ltd",
        "mr",
        "mrs",
        "ms",
        "no",
        "prof",
    }
    | {"sr", "st", "vol", "vs"}
)
"""Abbreviations before a capital or a number, where a stop ends no sentence."""


def is_blank(text: str) -> bool:
    """Whether nothing in ``text`` can be seen: spaces, controls and marks without a width only."""
    if not text.strip():
        return True
    from unicodedata import category

    # Private and unassigned ones may have a picture in somebody's font, or in a newer Unicode.
    return not any(
        (character.isprintable() and character != " ") or category(character) in _SHOWN for character in text
    )


_SHOWN = frozenset({"Co", "Cn", "Cs"})


def characters(text: str) -> int:
    """Code points in Unicode's composed form: "é" is one, however it is encoded."""
    if text.isascii():
        return len(text)
    from unicodedata import normalize

    return len(normalize("NFC", text))


def words(text: str) -> int:
    """Runs between spaces that hold a letter or a digit; each Han or Kana character on its own."""
    import re

    tokens: Iterator[str] = (found[0] for found in re.finditer(f"[{_SPACELESS}]|[^\\s{_SPACELESS}]+", text))
    return sum(1 for token in tokens if _has_word(token))


def _has_word(token: str) -> bool:
    return token.isalnum() or any(character.isalnum() for character in token)


def is_spaceless(character: str) -> bool:
    """Whether it is of a script that puts no spaces between words."""
    import re

    return re.match(f"[{_SPACELESS}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]", character) is not None


def sentences(text: str) -> int:
    """Stretches with a letter or digit that end with a stop, an empty line or the text's end.

    A stop within a word (3.14, example.com), after a title (Dr.), or before a small letter ends nothing.
    """
    return sum(_count_in(paragraph) for paragraph in _paragraphs(text))


def _paragraphs(text: str) -> Iterator[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip():
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _count_in(paragraph: str) -> int:
    import re

    count = begin = 0
    for stop in re.finditer(f"([{_STOPS}{_WIDE_STOPS}]+)[{_CLOSERS}]*", paragraph):
        if _ends_sentence(paragraph, stop[1], stop.start(), stop.end()):
            count += _has_word(paragraph[begin : stop.start()])
            begin = stop.end()
    return count + _has_word(paragraph[begin:])


def _ends_sentence(paragraph: str, stop: str, begin: int, end: int) -> bool:
    import re

    if re.search(f"[{_WIDE_STOPS}]", stop) or end == len(paragraph):
        return True
    if not paragraph[end].isspace():
        return False
    if not set(stop) <= {".", "\u2026"}:
        return True
    following = re.compile(r"\s*[\W_]{0,8}").match(paragraph, end)
    place = following.end() if following else end
    if paragraph[place : place + 1].islower():
        return False
    word = re.search(r"(\w{1,8})$", paragraph[max(0, begin - 9) : begin])
    return word is None or word[1].casefold() not in _TITLES
