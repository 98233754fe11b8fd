"""The options of a model call: their names, their defaults, and who can take which (floor 2).

One vocabulary serves every model. What a model can't take is never dropped in silence: it is named
in ``Reply.not_applied``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sifaka.errors import ModelSpecError

__all__ = ["ALIASES", "ENGINE", "OPTIONS", "check_settings", "settle", "with_aliases"]

OPTIONS = frozenset(
    {
        "extra_body",  # what a provider's own request has beyond all this
        "extra_headers",
        "frequency_penalty",
        "json_schema",  # the answer is JSON of this schema
        "logit_bias",
        "max_tokens",
        "presence_penalty",
        "seed",
        "stop",  # a text, or several, at which the model stops
        "system_prompt",
        "temperature",
        "thinking",  # True, False or an effort: "low", "medium", "high"
        "timeout_s",  # the whole call, in seconds
        "top_k",
        "top_p",
    }
)
"""Every option some model takes."""

ENGINE = ("hear", "call_id", "continue_from")
"""What the engine gives with a call, beside the user's options."""

ALIASES = {"stop_sequences": "stop", "timeout": "timeout_s"}
"""Other libraries' names for the same things."""


def with_aliases(names: Iterable[str]) -> frozenset[str]:
    """The names with their aliases: what a model's ``accepts`` says."""
    known = frozenset(names)
    return known | {alias for alias, name in ALIASES.items() if name in known}


def check_settings(spec: str, settings: Mapping[str, Any], beside: frozenset[str]) -> None:
    """Refuse a setting that is no option of any model and not one of ``beside``: a misspelling."""
    known = OPTIONS | ALIASES.keys() | beside
    for name in settings:
        if name in known:
            continue
        import difflib

        near = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it can be {', '.join(sorted(known))}"
        raise ModelSpecError(f"{spec!r} has no setting {name!r}; {hint}", spec)


def settle(
    defaults: Mapping[str, Any], given: Mapping[str, Any], accepts: frozenset[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options that hold for one call, and the names of those the model can't take.

    None means not set. What the call gives goes before the model's defaults.
    """
    merged: dict[str, Any] = {}
    for source in (defaults, given):
        for name, value in source.items():
            if value is not None:
                merged[ALIASES.get(name, name)] = value
    applied = {name: value for name, value in merged.items() if name in accepts}
    return applied, tuple(sorted(merged.keys() - applied.keys()))
