"""What may help against which fault, and how likely, where no history speaks: one table (floor 4).

The probabilities are our judgement, not measurements; each is worth four observations and gives way to
what a store's own runs show. What cannot help is not in the table: nothing retries a bad key.
"""

from __future__ import annotations

from typing import NamedTuple

from sifaka.log.records import Operation
from sifaka.recovery import suggestions as suggest
from sifaka.recovery.actions import RecoveryStrategy
from sifaka.recovery.suggestions import Suggest

__all__ = ["APPLIES_WHEN", "PRIORS", "SKIP_LOSS", "Prior", "rows_for"]

_S = RecoveryStrategy


class Prior(NamedTuple):
    """One line of the table: how likely a strategy helps, and why we think so.

    ``settings`` finds what to set; its reason is said where it has one. ``transient`` keeps a line for faults
    that pass by themselves (True) or don't (False). ``in_bad_hour`` is the probability while the provider has
    a bad hour, where that is another: of its calls then fail 20 to 60 in a hundred, and 1 or 2 otherwise.
    """

    strategy: RecoveryStrategy
    confidence: float
    why: str
    settings: Suggest | None = None
    transient: bool | None = None
    in_bad_hour: float | None = None


_TRANSIENT = "such failures usually pass by themselves"
_RETRY = Prior(_S.RETRY_CURRENT_STEP, 0.85, _TRANSIENT, transient=True, in_bad_hour=0.6)
_SKIP = Prior(_S.SKIP_TO_NEXT_STEP, 0.97, "the run can do without this part, at some loss")
_RESTART = Prior(_S.FULL_RESTART, 0.2, "when all else has failed")
_RESTART_LATER = Prior(
    _S.FULL_RESTART, 0.5, "by the time it gets there again it may have passed", transient=True
)


def _set(
    confidence: float, settings: Suggest, transient: bool | None = None, in_bad_hour: float | None = None
) -> Prior:
    return Prior(_S.MODIFY_PARAMETERS, confidence, "", settings, transient, in_bad_hour)


def _other_model(confidence: float) -> Prior:
    return _set(confidence, suggest.another_model)


_FITTING = (_set(0.8, suggest.less_context), _set(0.75, suggest.less_answer))
_AGAIN = (_RETRY, _SKIP, _other_model(0.8), _RESTART_LATER)

PRIORS: dict[str, tuple[Prior, ...]] = {
    "rate_limit": (
        Prior(_S.RETRY_CURRENT_STEP, 0.9, "waiting cures it", transient=True),
        _set(0.8, suggest.fewer_at_once, transient=True),
        _set(0.7, suggest.less_context, transient=False),
        _set(0.7, suggest.less_answer, transient=False),
        _SKIP,
        _other_model(0.9),
    ),
    "overloaded": (_RETRY, _SKIP, _other_model(0.85)),
    "server_error": _AGAIN,
    "timeout": (
        # In a good hour it is rather the limit that is too short.
        Prior(_S.RETRY_CURRENT_STEP, 0.5, _TRANSIENT, transient=True, in_bad_hour=0.6),
        _set(0.7, suggest.longer_timeout, in_bad_hour=0.6),
        _set(0.55, suggest.smaller_work, in_bad_hour=0.6),
        _SKIP,
        _other_model(0.8),
        _RESTART_LATER,
    ),
    "connection": _AGAIN,
    "context_length": (*_FITTING, _SKIP, _set(0.5, suggest.larger_window)),
    "truncated": (
        Prior(_S.RETRY_CURRENT_STEP, 0.75, "a stream seldom breaks off twice", transient=True),
        _set(0.75, suggest.more_tokens, transient=False),
        Prior(_S.RETRY_CURRENT_STEP, 0.25, "another try may be shorter", transient=False),
        _set(0.95, suggest.partial_results),
        _SKIP,
    ),
    "malformed_output": (
        Prior(_S.RETRY_CURRENT_STEP, 0.6, "the next answer is often well formed"),
        _set(0.6, suggest.calmer),
        Prior(_S.RESTART_FROM_GENERATION, 0.35, "another text may be easier to judge"),
        _SKIP,
        _other_model(0.6),
    ),
    "empty_output": (
        Prior(_S.RETRY_CURRENT_STEP, 0.6, "the next answer is seldom empty again"),
        Prior(_S.RESTART_FROM_GENERATION, 0.3, "another text may be easier to judge"),
        _SKIP,
        _other_model(0.7),
    ),
    "content_filter": (
        Prior(_S.RESTART_FROM_GENERATION, 0.35, "a text written afresh may pass the filter"),
        _SKIP,
    ),
    "out_of_memory": (_set(0.6, suggest.smaller_batch), _SKIP, _other_model(0.5)),
    "validation_failed": (
        Prior(_S.RESTART_FROM_GENERATION, 0.5, "a new text may satisfy the check"),
        Prior(_S.RESTART_ITERATION, 0.45, "the same draft, improved anew, may satisfy the check"),
        _set(0.5, suggest.text_as_asked),
        _set(0.6, suggest.relaxed_validation),
        _SKIP,
        _RESTART,
    ),
    "quota_exhausted": (_SKIP, _other_model(0.9)),
    "auth": (_SKIP, _other_model(0.9)),
    "permission": (_SKIP, _other_model(0.85)),
    "not_found": (_SKIP, _set(0.8, suggest.nearest_model_of_today), _other_model(0.9)),
    "invalid_request": (_SKIP,),
    "other": (
        Prior(_S.RETRY_CURRENT_STEP, 0.4, "its cause is unknown; a second try tells more"),
        Prior(_S.RESTART_ITERATION, 0.3, "it may have to do with this iteration's text"),
        Prior(_S.RESTART_FROM_GENERATION, 0.3, "it may have to do with this text"),
        Prior(_S.SKIP_TO_NEXT_STEP, 0.9, "the run can do without this part, at some loss"),
        _RESTART,
    ),
}
"""Fault kind to candidates. A prompt that is refused as it stands is not sent to another model either."""

SKIP_LOSS: dict[Operation, float] = {
    "retrieval": 0.15,
    "validation": 0.3,
    "critic_retrieval": 0.05,
    "criticism": 0.1,
}
"""The share of a result's value that a skipped part gives up: our judgement."""

APPLIES_WHEN = {
    _S.RETRY_CURRENT_STEP: "the cause is temporary: a network, a rate limit, a bad minute",
    _S.SKIP_TO_NEXT_STEP: "the failing part is not essential to the result",
    _S.RESTART_ITERATION: "a critic or validator trips over this iteration's text",
    _S.RESTART_FROM_GENERATION: "the text itself is what cannot be validated or criticised",
    _S.MODIFY_PARAMETERS: "a setting is what makes it fail: room, time, context, model",
    _S.FULL_RESTART: "nothing else is left that could help",
}


def rows_for(kind: str) -> tuple[Prior, ...]:
    """The lines for a kind of fault."""
    return PRIORS.get(kind, PRIORS["other"])
