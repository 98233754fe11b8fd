"""Searching by a pattern that may never end, with a limit on its time (floor 2).

A regular expression with repeats within repeats can take longer than anyone lives on a text of forty
characters, and :mod:`re` cannot be interrupted: it would stop the whole process. A search that could take
that long is made in a process of its own, which is killed when its time is up.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["found_in", "steps_max"]

STEPS_HERE_MAX = 10_000_000
"""A search of so many steps takes this process about a tenth of a second."""
_OPTIONAL_MAX = 8
"""More optional items than that can be skipped in too many ways."""

_CHILD = """\
import json, re, sys
data = json.load(sys.stdin)
for pattern in data["patterns"]:
    print(int(re.search(pattern, data["text"]) is not None), flush=True)
"""


def found_in(patterns: Sequence[str], text: str, timeout_s: float) -> list[bool | None]:
    """Whether each pattern is found in ``text``; None where that could not be told within ``timeout_s``."""
    import re

    slow = [place for place, one in enumerate(patterns) if steps_max(one, len(text)) > STEPS_HERE_MAX]
    apart = dict(zip(slow, _found_apart([patterns[place] for place in slow], text, timeout_s), strict=True))
    return [
        apart[place] if place in apart else re.search(one, text) is not None
        for place, one in enumerate(patterns)
    ]


def steps_max(pattern: str, length: int) -> float:
    """About how many steps a search can take: infinite where repeats stand within repeats.

    Each repeat side by side can begin at any place and end at any other: ``length`` to the power of their
    number, once more for where the search begins. An estimate on the safe side.
    """
    import re

    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern, flags=re.DOTALL)
    if re.search(r"\)(?:[*+]|\{)", bare) or len(re.findall(r"(?<![*+?}(])\?", bare)) > _OPTIONAL_MAX:
        return float("inf")
    repeats = len(re.findall(r"[*+]|\{\d*,\d*\}", bare))
    return float(max(length, 1)) ** (repeats + 1) if repeats < 20 else float("inf")


def _found_apart(patterns: Sequence[str], text: str, timeout_s: float) -> list[bool | None]:
    if not patterns:
        return []
    import json
    import subprocess
    import sys

    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    data = json.dumps({"patterns": list(patterns), "text": text}).encode()
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout_s, check=True)  # noqa: S603 - this interpreter, and a program of ours
        said = done.stdout
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
    answers: list[bool | None] = [line == b"1" for line in said.split()]
    # The one it was at takes too long; those after it were never asked.
    return answers + [None] * (len(patterns) - len(answers))
