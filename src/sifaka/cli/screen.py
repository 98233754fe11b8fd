"""The terminal: consoles, and the one gate that every text passes on its way there (floor 9).

What a model, a document or a store's file says may be hostile: no control or escape code reaches the
terminal, nothing can turn the order of its letters, and rich's markup is never interpreted.
"""

from __future__ import annotations

import codecs
import os
import shlex
import shutil
import sys
from io import StringIO
from typing import IO

from rich.console import Console, RenderableType
from rich.text import Text

__all__ = ["WIDTH", "console_for", "paper", "put", "safe", "say_error", "shown", "typed"]

WIDTH = 100
"""Columns of what we print: at most so many in a terminal, exactly so many elsewhere."""


_PLAIN = {
    "✓": "+",
    "✗": "x",
    "·": "-",
    "▶": ">",
    "↻": "~",
    "■": "=",
    "┃": "|",
    "━": "=",
    "→": ">",
    "…": "...",
}
"""What stands for our signs in a stream that cannot take them."""


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """The error handler of streams with few characters: a plain sign, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(one, "?") for one in error.object[error.start : error.end]), error.end


codecs.register_error("sifaka-plain", _plainly)


def console_for(stream: IO[str] | None = None) -> Console:
    """The console for a stream, standard output by default.

    Colours only in a terminal and without NO_COLOR; a character that the stream cannot take is replaced.
    """
    stream = sys.stdout if stream is None else stream
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="sifaka-plain")
    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    wanted = WIDTH if "COLUMNS" not in os.environ and not console.is_terminal else console.width
    console.width = min(wanted, WIDTH)
    return console


def put(console: Console, page: RenderableType) -> None:
    """Print a page; elsewhere than in a terminal, without the spaces that fill its lines."""
    if console.is_terminal:
        console.print(page)
        return
    with console.capture() as capture:
        console.print(page)
    for line in capture.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def paper(width: int = WIDTH) -> Console:
    """A console that keeps what it is given, in full colour, and shows nothing."""
    return Console(
        file=StringIO(),
        record=True,
        width=width,
        markup=False,
        highlight=False,
        emoji=False,
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
        legacy_windows=False,
        _environ={},
    )


def safe(text: str) -> str:
    """``text`` with spaces for whatever only looks like one, and U+FFFD for all that is not to be seen.

    Line breaks stay. Escape and control codes, marks that turn the order of letters, invisible
    characters and halves of surrogates are what Python calls not printable.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}"
        for one in text
    )


def shown(text: str, style: str = "") -> Text:
    """``text`` on one line, made safe, in a style: what every rendering is made of."""
    return Text(" ".join(safe(text).split()), style)


def say_error(message: str) -> None:
    """An error, on standard error."""
    console = console_for(sys.stderr)
    console.print(Text("error: ", "bold red") + Text(safe(message)), soft_wrap=True)


def typed(*arguments: str) -> str:
    """The command line that calls us with ``arguments``, as it can be typed here."""
    return " ".join([_ourselves(), *map(shlex.quote, arguments)])


def _ourselves() -> str:
    """How this process was called: by name where the name is ours, else by path or module."""
    called = sys.argv[0]
    if os.path.basename(called) != "sifaka":
        return "python -m sifaka"
    known = shutil.which("sifaka")
    if known is not None and os.path.exists(called) and os.path.samefile(known, called):
        return "sifaka"
    near = os.path.relpath(called)
    return shlex.quote(called if near.startswith("..") else near)
