"""Which action first: candidates for a fault, best first (floor 4).

Where no history speaks, confidence comes from the table below: written-down priors, each with its
reason. What was tried at this very step counts at once: p = (worked + m * prior) / (tried + m), the
posterior mean of a Beta-Bernoulli model with a prior worth m = 4 observations. So do the store's counts for
this kind of fault at this operation, and half of what similar cases say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sifaka.faults import Fault
from sifaka.log.records import Position
from sifaka.recovery.actions import SKIPPABLE, RecoveryAction, RecoveryStrategy

__all__ = ["PRIORS", "PRIOR_STRENGTH", "Counts", "Prior", "Situation", "rank"]

PRIOR_STRENGTH = 4.0
"""How many observations the prior is worth (m)."""

SIMILAR_WEIGHT = 0.5
"""What a similar case counts, beside one of the same kind at the same operation."""

Counts = Mapping[str, tuple[int, int]]
"""Strategy to (tried, worked)."""
NOTHING: Counts = MappingProxyType({})
"""No counts."""

_S = RecoveryStrategy


class Situation(NamedTuple):
    """What a ranking looks at: the fault, where, with which settings, and what was tried there.

    ``counts`` is what the store knows of this kind of fault at this operation, ``similar`` what came of
    similar cases, ``note`` why either may be missing.
    """

    fault: Fault
    position: Position
    part: str
    options: Mapping[str, Any]
    tried: Sequence[str] = ()
    prompt_chars: int = 0
    chain_id: str = ""
    counts: Counts = NOTHING
    similar: Counts = NOTHING
    note: str = ""


class Prior(NamedTuple):
    """One line of the table: how likely a strategy helps, and why we think so."""

    strategy: RecoveryStrategy
    confidence: float
    why: str
    parameters: Callable[[Situation], dict[str, Any] | None] | None = None
    """The settings that go with it; None from it where nothing can be set."""


def _longer_timeout(at: Situation) -> dict[str, Any] | None:
    limit = at.options.get("timeout_s")
    return None if limit is None else {"timeout_s": float(limit) * 2}


def _more_tokens(at: Situation) -> dict[str, Any]:
    return {"max_tokens": min(int(at.options.get("max_tokens") or 512) * 2, 32_768)}


def _less_context(at: Situation) -> dict[str, Any] | None:
    room = at.options.get("max_context_chars") or at.prompt_chars
    return {"max_context_chars": int(room) // 2} if room >= 2 else None


def _smaller_batch(at: Situation) -> dict[str, Any]:
    return {"batch_size": 1, **(_less_context(at) or {})}


def _calmer(at: Situation) -> dict[str, Any] | None:
    temperature = at.options.get("temperature")
    return {"temperature": round(float(temperature) / 2, 3)} if temperature else None


_TRANSIENT = "such failures usually pass by themselves"
_RETRY = Prior(_S.RETRY_CURRENT_STEP, 0.75, _TRANSIENT)
_SKIP = Prior(_S.SKIP_TO_NEXT_STEP, 0.35, "the run can do without this part, at some loss")
_SKIP_SURE = Prior(_S.SKIP_TO_NEXT_STEP, 0.5, "this part will go on failing; the run can do without it")
_RESTART = Prior(_S.FULL_RESTART, 0.1, "when all else has failed")

PRIORS: dict[str, tuple[Prior, ...]] = {
    "rate_limit": (
        Prior(_S.RETRY_CURRENT_STEP, 0.9, "waiting as long as the provider says cures it"),
        _SKIP,
    ),
    "overloaded": (_RETRY, _SKIP),
    "server_error": (_RETRY, _SKIP, _RESTART),
    "timeout": (
        Prior(_S.RETRY_CURRENT_STEP, 0.7, _TRANSIENT),
        Prior(_S.MODIFY_PARAMETERS, 0.5, "a longer limit lets slow answers arrive", _longer_timeout),
        _SKIP,
        _RESTART,
    ),
    "connection": (_RETRY, _SKIP, _RESTART),
    "context_length": (
        Prior(_S.MODIFY_PARAMETERS, 0.8, "a shorter context fits the model", _less_context),
        _SKIP,
    ),
    "truncated": (
        Prior(_S.MODIFY_PARAMETERS, 0.75, "more room lets the text end", _more_tokens),
        Prior(_S.RETRY_CURRENT_STEP, 0.25, "another try may be shorter"),
        _SKIP,
    ),
    "malformed_output": (
        Prior(_S.RETRY_CURRENT_STEP, 0.6, "the next answer is often well formed"),
        Prior(_S.MODIFY_PARAMETERS, 0.5, "a lower temperature keeps to the form", _calmer),
        Prior(_S.RESTART_FROM_GENERATION, 0.35, "another text may be easier to judge"),
        _SKIP,
    ),
    "empty_output": (
        Prior(_S.RETRY_CURRENT_STEP, 0.6, "the next answer is seldom empty again"),
        Prior(_S.RESTART_FROM_GENERATION, 0.3, "another text may be easier to judge"),
        _SKIP,
    ),
    "content_filter": (
        Prior(_S.RESTART_FROM_GENERATION, 0.35, "a text written afresh may pass the filter"),
        _SKIP_SURE,
    ),
    "out_of_memory": (
        Prior(_S.MODIFY_PARAMETERS, 0.6, "smaller pieces need less memory", _smaller_batch),
        _SKIP,
    ),
    "validation_failed": (
        Prior(_S.RESTART_FROM_GENERATION, 0.5, "a new text may satisfy the check"),
        Prior(_S.RESTART_ITERATION, 0.45, "the same draft, improved anew, may satisfy the check"),
        _SKIP,
        _RESTART,
    ),
    "quota_exhausted": (_SKIP_SURE,),
    "auth": (_SKIP_SURE,),
    "permission": (_SKIP_SURE,),
    "not_found": (_SKIP_SURE,),
    "invalid_request": (_SKIP_SURE,),
    "other": (
        Prior(_S.RETRY_CURRENT_STEP, 0.4, "its cause is unknown; a second try tells more"),
        Prior(_S.RESTART_ITERATION, 0.25, "it may have to do with this iteration's text"),
        Prior(_S.RESTART_FROM_GENERATION, 0.22, "it may have to do with this text"),
        Prior(_S.SKIP_TO_NEXT_STEP, 0.2, "the run can do without this part, at some loss"),
        _RESTART,
    ),
}
"""Fault kind to candidates. What cannot help is not in it: nothing retries a bad key."""

APPLIES_WHEN = {
    _S.RETRY_CURRENT_STEP: "the cause is temporary: a network, a rate limit, a bad minute",
    _S.SKIP_TO_NEXT_STEP: "the failing part is not essential to the result",
    _S.RESTART_ITERATION: "a critic or validator trips over this iteration's text",
    _S.RESTART_FROM_GENERATION: "the text itself is what cannot be validated or criticised",
    _S.MODIFY_PARAMETERS: "a setting is what makes it fail: room, time, context, model",
    _S.FULL_RESTART: "nothing else is left that could help",
}


def rank(at: Situation) -> list[RecoveryAction]:
    """The actions that may help, best first; empty where only a person can help."""
    return sorted(_candidates(at), key=lambda action: -action.confidence)


def _candidates(at: Situation) -> Iterator[RecoveryAction]:
    in_generation = at.position.operation == "generation"
    for prior in PRIORS.get(at.fault.kind, PRIORS["other"]):
        parameters = prior.parameters(at) if prior.parameters else {}
        if parameters is None or _pointless(prior.strategy, at, in_generation=in_generation):
            continue
        tried = sum(name == prior.strategy.value for name in at.tried)
        yield RecoveryAction(
            strategy=prior.strategy,
            description=_describe(prior, at, parameters),
            confidence=round(_confidence(prior, at, tried), 4),
            parameters=parameters,
            applies_when=APPLIES_WHEN[prior.strategy],
            evidence=_evidence(prior, at, tried),
        )


def _pointless(strategy: RecoveryStrategy, at: Situation, *, in_generation: bool) -> bool:
    if strategy is _S.SKIP_TO_NEXT_STEP:
        return at.position.operation not in SKIPPABLE
    # Where the text is what failed, restarting its generation is the retry itself.
    return in_generation and strategy is _S.RESTART_FROM_GENERATION and not at.position.iteration


def _confidence(prior: Prior, at: Situation, tried_here: int) -> float:
    tried, worked = at.counts.get(prior.strategy.value, (0, 0))
    like, like_worked = at.similar.get(prior.strategy.value, (0, 0))
    successes = PRIOR_STRENGTH * prior.confidence + worked + SIMILAR_WEIGHT * like_worked
    return successes / (PRIOR_STRENGTH + tried + SIMILAR_WEIGHT * like + tried_here)


def _evidence(prior: Prior, at: Situation, tried_here: int) -> str:
    """The counts behind a confidence, in words."""
    name, said = prior.strategy.value, list[str]()
    for counts, where in ((at.counts, f"for {at.fault.kind} at {at.position.operation}"), (at.similar, "")):
        tried, worked = counts.get(name, (0, 0))
        if tried:
            said.append(f"worked {worked} of {tried} {where or 'in similar cases'}")
    history = ", ".join(said) or "no history yet"
    here = f"; tried {tried_here} times at this step without success" if tried_here else ""
    note = f" ({at.note})" if at.note else ""
    return f"{history}, a prior of {prior.confidence:.0%}: {prior.why}{here}{note}"


def _describe(prior: Prior, at: Situation, parameters: Mapping[str, Any]) -> str:
    what = at.part or at.position.operation
    if prior.strategy is _S.MODIFY_PARAMETERS:
        settings = ", ".join(f"{name}={value}" for name, value in parameters.items())
        return f"set {settings} and try {what} again: {prior.why}"
    words = {
        _S.RETRY_CURRENT_STEP: f"try {what} again",
        _S.SKIP_TO_NEXT_STEP: f"go on without {what}",
        _S.RESTART_ITERATION: f"begin iteration {at.position.iteration} again",
        _S.RESTART_FROM_GENERATION: "write the text afresh",
        _S.FULL_RESTART: "begin the whole run again",
    }
    return f"{words[prior.strategy]}: {prior.why}"
