"""Why attempts fail in the simulated world, and what cures it: one table of hidden causes (floor 8).

A fault of one kind may have several causes, and nobody sees which. Each cause has levers that may cure it,
with the mean of the chance that one does. A task's own chance is drawn from a Beta distribution around that
mean, and stays: tasks are mostly hopeless or easy, and seldom a fair coin. What the provider itself causes is
cured by its good times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sifaka.recovery.actions import RecoveryStrategy

__all__ = [
    "AFRESH",
    "AGAIN",
    "CAUSES",
    "FULL",
    "LOSSES",
    "MODIFIERS",
    "PLACES",
    "PROVIDER",
    "SKIP",
    "TASK_STRENGTH",
    "Cause",
    "lever_of",
]

TASK_STRENGTH = 1.2
"""a + b of the Beta distribution of a task's own chance."""

PROVIDER = "provider"
"""The cause that comes and goes with the provider's good and bad times."""


class Cause(NamedTuple):
    """A hidden cause: its usual share among the causes of its kind, and the mean chance of each lever."""

    name: str
    share: float
    cures: Mapping[str, float]


MODIFIERS = ("timeout", "smaller", "context", "tokens", "calmer", "batch")
"""Levers that are set, and stay."""
AFRESH, AGAIN, FULL = "restart", "again", "full"
"""Another text for who reads it; or, where the text itself (or less) is what failed, the same attempt once
more after everything was set aside, by a restart of the iteration or of the run."""
SKIP = "skip"


def _cause(name: str, share: float, **cures: float) -> Cause:
    return Cause(name, share, cures)


CAUSES: dict[str, tuple[Cause, ...]] = {
    "rate_limit": (_cause("crowd", 1.0, retry=0.97),),
    "overloaded": (_cause(PROVIDER, 1.0),),
    "connection": (_cause(PROVIDER, 0.9), _cause("broken network", 0.1, retry=0.05)),
    "server_error": (_cause(PROVIDER, 0.7), _cause("poisonous request", 0.3, retry=0.08, restart=0.6)),
    "timeout": (
        _cause(PROVIDER, 0.5),
        _cause("too long for the limit", 0.5, retry=0.12, timeout=0.9, smaller=0.7),
    ),
    "context_length": (
        _cause("too many documents", 0.85, context=0.92),
        _cause("long prompt", 0.15, context=0.1),
    ),
    "truncated": (
        _cause("too little room", 0.65, tokens=0.88, retry=0.08, restart=0.2),
        _cause("rambling", 0.35, retry=0.6, tokens=0.4, restart=0.6),
    ),
    "malformed_output": (
        _cause("sloppy", 0.6, retry=0.7, calmer=0.85, restart=0.6),
        _cause("an odd text", 0.25, retry=0.12, calmer=0.3, restart=0.75),
        _cause("not able to", 0.15, retry=0.03, calmer=0.1, restart=0.05),
    ),
    "empty_output": (
        _cause("a hiccup", 0.75, retry=0.9, restart=0.85),
        _cause("an odd text", 0.25, retry=0.1, restart=0.7),
    ),
    "content_filter": (_cause("this text", 0.7, restart=0.7), _cause("the subject", 0.3, restart=0.05)),
    "validation_failed": (
        _cause("this text", 0.6, restart=0.65),
        _cause("a fault in the check", 0.4, restart=0.03),
    ),
    "other": (
        _cause("a hiccup", 0.5, retry=0.85, restart=0.8),
        _cause("a fault in the part", 0.5, retry=0.02, restart=0.1),
    ),
    "out_of_memory": (_cause("too large", 0.8, batch=0.85), _cause("too small a machine", 0.2, batch=0.05)),
    "auth": (_cause("a bad key", 1.0),),
}
"""Our judgement, since nobody has published such a mix; every world moves each figure its own way."""

PLACES: dict[str, Mapping[str, float]] = {
    "generation": {
        "rate_limit": 3, "overloaded": 3, "server_error": 2, "timeout": 3, "connection": 1,
        "context_length": 2, "truncated": 3, "empty_output": 1,
    },
    "criticism": {
        "malformed_output": 5, "empty_output": 1, "rate_limit": 1, "overloaded": 2, "timeout": 2,
        "server_error": 1, "truncated": 1, "content_filter": 1, "other": 2, "auth": 0.5,
    },
    "validation": {"validation_failed": 4, "malformed_output": 2, "timeout": 1, "other": 1.5, "connection":
    1}, "retrieval": {"timeout": 2, "connection": 2, "other": 1, "server_error": 1, "out_of_memory": 0.5},
}  # fmt: skip
"""How often which kind is met where."""

LOSSES: Mapping[str, float] = {"context": 0.03, "smaller": 0.02}
"""Shares of a result's value that a lever gives up."""

_BY_PARAMETER = {
    "batch_size": "batch",
    "max_context_chars": "context",
    "max_tokens": "tokens",
    "temperature": "calmer",
    "timeout_s": "timeout",
}


def lever_of(
    strategy: RecoveryStrategy, parameters: Iterable[str], operation: str, kind: str, set_before: str = ""
) -> str:
    """The lever that decides over the attempt after an action for a fault of ``kind``; "skip" for none.

    ``parameters`` are the names of what it sets, ``set_before`` is the lever that an earlier action has set.
    """
    if strategy is RecoveryStrategy.SKIP_TO_NEXT_STEP:
        return SKIP
    if strategy is RecoveryStrategy.RETRY_CURRENT_STEP:
        return set_before or "retry"
    if strategy is not RecoveryStrategy.MODIFY_PARAMETERS:
        if operation not in ("generation", "retrieval"):
            return AFRESH
        return FULL if strategy is RecoveryStrategy.FULL_RESTART else AGAIN
    names = set(parameters)
    if kind == "timeout" and "timeout_s" not in names:
        return "smaller"
    found = (lever for name, lever in _BY_PARAMETER.items() if name in names)
    return next(found, set_before or "retry")
