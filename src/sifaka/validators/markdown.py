"""Whether a text is Markdown with the headings and the elements that were asked for (floor 2).

Every text is Markdown of some kind, so what can be wrong is what it lacks: it is parsed by CommonMark's
rules (with tables), and its parts are looked at, not its lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from sifaka.errors import PartError
from sifaka.thought import ValidationResult
from sifaka.validators.base import TextValidator, failed, missing, verdict
from sifaka.validators.measures import is_blank

__all__ = ["MarkdownValidator"]

_ELEMENTS = {
    "code": ("fence", "code_block"),
    "heading": ("heading_open",),
    "image": ("image",),
    "link": ("link_open",),
    "list": ("bullet_list_open", "ordered_list_open"),
    "numbered list": ("ordered_list_open",),
    "quote": ("blockquote_open",),
    "table": ("table_open",),
}
"""What can be asked for, and the tokens that show it."""


_INLINE = frozenset({"image", "link"})
_INLINE_CHARS_MAX = 5_000


class _Heading(NamedTuple):
    level: int
    title: str


class MarkdownValidator(TextValidator):
    """Passes Markdown that has each of ``required_headings`` and ``required_elements``.

    A heading is written with its level, ``"## Summary"``, or without, ``"Summary"``: any level. Case and
    emphasis do not matter. ``in_order=True``: they come in the order given. Elements are ``code``,
    ``heading``, ``image``, ``link``, ``list``, ``numbered list``, ``quote`` and ``table``. A code block that
    is opened and never closed is an issue always: it is how a cut-off text ends. The score is the share of
    requirements that are met.
    """

    def __init__(
        self,
        required_headings: Iterable[str] = (),
        required_elements: Iterable[str] = (),
        *,
        in_order: bool = False,
        name: str = "markdown",
    ) -> None:
        self.name = name
        self.required_headings = _listed("required_headings", required_headings)
        self.required_elements = _listed("required_elements", required_elements)
        self.in_order = in_order
        unknown = [one for one in self.required_elements if one not in _ELEMENTS]
        if unknown:
            raise PartError(f"required_elements has {unknown[0]!r}; it can have {', '.join(_ELEMENTS)}")
        self._headings = [_heading(one) for one in self.required_headings]
        self._blocks, self._inline = _parsers()

    def check(self, text: str) -> ValidationResult:
        """The verdict on ``text``."""
        links: dict[str, Any] = {}
        tokens = self._blocks.parse(text, links)
        found = [
            _Heading(int(token.tag[1:]), _folded(_words_of(self._within(tokens[place + 1], links))))
            for place, token in enumerate(tokens[:-1])
            if token.type == "heading_open"
        ]
        issues = [f'there is no heading "{one}"' for one in self._absent(found)]
        fixes = [f'write a section with the heading "{one}"' for one in self._absent(found)]
        if self.in_order and not issues and not _in_order(self._headings, found):
            issues.append("the headings are not in the order asked for")
            fixes.append(f"order the sections like this: {', '.join(self.required_headings)}")
        for element in self.required_elements:
            if not any(kind in _ELEMENTS[element] for kind in self._kinds(tokens, links, element)):
                issues.append(f"there is no {element}")
                fixes.append(f"add a {element}")
        if _is_open(tokens, text):
            issues.append("a code block is opened and never closed")
            fixes.append("close the code block with ```")
        if not issues:
            return verdict(True, "the Markdown has all that was asked for")
        asked = len(self.required_headings) + len(self.required_elements) + self.in_order + 1
        return failed(issues, fixes, score=1 - len(issues) / asked)

    def _absent(self, found: Sequence[_Heading]) -> list[str]:
        return [
            written
            for written, wanted in zip(self.required_headings, self._headings, strict=True)
            if not any(_matches(one, wanted) for one in found)
        ]

    def _within(self, token: Any, links: dict[str, Any]) -> list[Any]:
        """The tokens within a block; none for one so long that it is no prose, and would take too long."""
        if token.type != "inline" or len(token.content) > _INLINE_CHARS_MAX:
            return []
        return list(self._inline.parseInline(token.content, links)[0].children or ())

    def _kinds(self, tokens: Sequence[Any], links: dict[str, Any], element: str) -> Iterator[str]:
        for token in tokens:
            yield token.type
            if element in _INLINE:
                yield from (one.type for one in self._within(token, links))


def _listed(argument: str, given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise PartError(f"write {argument}=[{given!r}]: it is a list")
    listed = tuple(given)
    if not all(isinstance(one, str) and not is_blank(one.lstrip("# ")) for one in listed):
        raise PartError(f"{argument}={list(listed)!r}; each is a text with something to see in it")
    return listed


def _parsers() -> tuple[Any, Any]:
    """One for a text's blocks, and one for what stands within a block."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise missing("MarkdownValidator") from error
    blocks: Any = MarkdownIt("commonmark").enable("table")
    blocks.core.ruler.enableOnly(["normalize", "block"])
    return blocks, MarkdownIt("commonmark")


def _heading(written: str) -> _Heading:
    """A heading as it was asked for; level 0 is any."""
    bare = written.strip()
    title = bare.lstrip("#")
    level = len(bare) - len(title)
    if level > 6 or (level and not title.startswith((" ", "\t"))):
        raise PartError(f'{written!r} is no heading; write "## Title", with one to six #, or "Title"')
    return _Heading(level, _folded(title))


def _folded(title: str) -> str:
    return " ".join(title.casefold().split()).strip(" :")


def _matches(found: _Heading, wanted: _Heading) -> bool:
    return found.title == wanted.title and wanted.level in {0, found.level}


def _in_order(wanted: Sequence[_Heading], found: Sequence[_Heading]) -> bool:
    left = iter(found)
    return all(any(_matches(one, heading) for one in left) for heading in wanted)


def _words_of(tokens: Iterable[Any]) -> str:
    """What a reader sees of a heading: its words without emphasis, links and code marks."""
    return "".join(
        " " if one.type in {"softbreak", "hardbreak"} else one.content
        for one in tokens
        if one.type in {"text", "code_inline", "softbreak", "hardbreak", "image"}
    )


def _is_open(tokens: Sequence[Any], text: str) -> bool:
    """Whether the last code block has no end; its mark and its content tell, whatever it is nested in."""
    fences = [token for token in tokens if token.type == "fence"]
    if not fences:
        return False
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    begin, end = cast("tuple[int, int]", tuple(fences[-1].map))
    last = lines[end - 1].strip(" \t>") if end - 1 > begin else ""
    mark: str = fences[-1].markup
    return not (len(last) >= len(mark) and set(last) == {mark[0]})
