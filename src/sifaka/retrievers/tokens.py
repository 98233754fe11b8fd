"""A text as the terms it is found by (floor 2)."""

from __future__ import annotations

__all__ = ["terms"]

_SPACELESS = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U000323af"
)
"""Han, Hiragana and Katakana: no spaces show where a word ends, so pairs of characters are the terms."""


def terms(text: str) -> list[str]:
    """The words of ``text``, their case and composition left aside; of scripts without spaces, the pairs."""
    import re
    from unicodedata import normalize

    found: list[str] = []
    for run in re.finditer(f"[{_SPACELESS}]+|[^\\W{_SPACELESS}]+", normalize("NFKC", text).casefold()):
        term = run[0]
        if len(term) > 1 and re.match(f"[{_SPACELESS}]", term):
            found += [term[place : place + 2] for place in range(len(term) - 1)]
        else:
            found.append(term)
    return found
