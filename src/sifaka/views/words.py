"""Plain sentences for what the log's records mean (floor 5).

Each function takes values out of records and says them; none knows of a medium. A sentence begins in
lower case unless a name does, and has no full stop at its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sifaka.faults import Fault, describe
from sifaka.log.records import Closed, Intent, Opened, PlannedPart, Recovery, Result
from sifaka.log.state import State
from sifaka.thought import CriticFeedback, Document, DoubtfulCall, ValidationResult
from sifaka.views.models import Paid

__all__ = [
    "call_says",
    "cause_says",
    "closed_says",
    "deed_says",
    "documents_says",
    "doubt_says",
    "feedback_says",
    "iteration_name",
    "life_says",
    "one_line",
    "paid_says",
    "reply_says",
    "resumed_says",
    "started_says",
    "text_says",
    "usd",
    "verdict_says",
    "wait_says",
    "where",
]


# Numbers -----------------------------------------------------------------------------------


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 call", "2 calls"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def usd(price: float) -> str:
    """A price in US dollars, to a hundredth of a cent."""
    return "$0" if price == 0 else f"${price:.4f}"


def seconds_says(seconds: float) -> str:
    """A duration: "0.4 s", "95 s", "4 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def paid_says(paid: Paid) -> str:
    """What calls came to: "3 model calls, 1,204 tokens, 6.2 s, $0.0031"."""
    calls = count(paid.model_calls, "model call") if paid.model_calls else count(paid.calls, "call")
    unknown = f", and {count(paid.unpriced_calls, 'call')} of unknown price" if paid.unpriced_calls else ""
    facts = [calls, count(paid.tokens, "token"), seconds_says(paid.seconds), usd(paid.cost_usd)]
    return ", ".join(facts) + unknown


def one_line(text: str) -> str:
    """A text with its line breaks and runs of spaces made one space each."""
    return " ".join(text.split())


# Places ------------------------------------------------------------------------------------


def iteration_name(iteration: int) -> str:
    """What people call an iteration's text: "first text", "improvement 1"."""
    return f"improvement {iteration}" if iteration else "first text"


def _the(iteration: int) -> str:
    """An iteration's text within a sentence: "the first text", "improvement 1"."""
    return iteration_name(iteration) if iteration else "the first text"


def where(operation: str, iteration: int) -> str:
    """What was being done: "the criticism of improvement 1"."""
    of = _the(iteration)
    places: dict[str, str] = {
        "retrieval": "the retrieval",
        "generation": f"the writing of {of}",
        "validation": f"the validation of {of}",
        "critic_retrieval": f"the retrieval for the criticism of {of}",
        "criticism": f"the criticism of {of}",
    }
    return places.get(operation, "its end")


# Beginnings and ends -----------------------------------------------------------------------


def _plan_says(parts: Sequence[PlannedPart], settings: Mapping[str, Any]) -> str:
    names = {
        "model_retriever": "retriever",
        "critic_retriever": "retriever for critics",
        "validator": "validator",
        "critic": "critic",
    }
    kinds = [part.kind for part in parts]
    counted = [count(kinds.count(kind), name) for kind, name in names.items() if kind in kinds]
    with_parts = f" with {', '.join(counted)}" if counted else ""
    return f"{settings.get('model', 'a model')} writes{with_parts}"


def started_says(record: Opened) -> str:
    """How a run begins."""
    return _plan_says(record.parts or (), record.settings or {})


def resumed_says(record: Opened, state: State) -> str:
    """How a later life begins."""
    at = where(state.position.operation, state.position.iteration)
    if record.cause == "fork" and record.parent is not None:
        return f"begun as a fork of {record.parent[0]!r}, from record {record.parent[1]} on"
    if record.cause == "retry":
        return f"tried again with a new allowance, at {at}"
    by = "a new process took over" if record.cause == "death" else "taken up again"
    return f"{by} at {at}"


def closed_says(record: Closed, passed: int, validators: int) -> str:
    """How a run ended; ``passed`` of ``validators`` validators passed its best text."""
    if record.status != "done":
        return f"{record.status}: {record.reason}" if record.reason else record.status
    if not validators:
        return "done"
    every = {1: "its validator", 2: "both validators"}.get(validators, f"all {validators} validators")
    if passed == validators:
        return f"done: the best text passes {every}"
    return f"done: the best text passes {passed} of {count(validators, 'validator')}"


def life_says(number: int, end: str, paid: Paid) -> str:
    """What a life paid, and what became of it."""
    came_to = paid_says(paid)
    if end == "death":
        return f"all that life {number} had paid when it died: {came_to}"
    return f"life {number}: {came_to}" + (f"; {end}" if end else "")


# Answers -----------------------------------------------------------------------------------


def documents_says(part: str, documents: Sequence[Document], *, skipped: bool) -> str:
    """What a retriever found."""
    if skipped:
        return f"{part} was skipped by a recovery action"
    if not documents:
        return f"{part} found nothing"
    names = ", ".join(one.id for one in documents if one.id)
    return f"{part} found {count(len(documents), 'document')}" + (f": {names}" if names else "")


def text_says(record: Result) -> str:
    """What a model wrote."""
    if record.text == "" and record.usage is not None and record.usage.output_tokens:
        return f"{iteration_name(record.iteration)}: its text was cleaned up"
    words = count(len((record.text or "").split()), "word")
    spliced = ", spliced onto what was heard of a call that was cut" if record.spliced else ""
    ended = {"length": ", cut off at the limit of its tokens", "content_filter": ", withheld by a filter"}
    return f"{iteration_name(record.iteration)}: {words}{ended.get(record.finish_reason, '')}{spliced}"


def verdict_says(verdict: ValidationResult, part: str) -> str:
    """What a validator found."""
    found = "was skipped" if verdict.skipped else "passed" if verdict.passed else "failed"
    return f"{part} {found}" + (f": {one_line(verdict.message)}" if verdict.message else "")


def reply_says(record: Result) -> str:
    """A model answered a question of a validator's or a critic's."""
    words = count(len((record.text or "").split()), "word")
    return f"{record.part} was answered by {record.model or 'its model'}: {words}"


def feedback_says(feedback: CriticFeedback, part: str) -> str:
    """What a critic asks for."""
    if feedback.skipped:
        return f"{part} was skipped: {one_line(feedback.message)}"
    found = "asks for changes" if feedback.needs_improvement else "asks for no change"
    return f"{part} {found}" + (f": {one_line(feedback.message)}" if feedback.message else "")


# Calls in flight and in doubt --------------------------------------------------------------


def call_says(record: Intent) -> str:
    """A call in flight."""
    if record.operation == "generation" and record.part == "model":
        return f"{record.model or 'the model'} is writing {_the(record.iteration)}"
    if record.model:
        return f"{record.part} is waiting for {record.model}"
    return f"{record.part} is at work on {where(record.operation, record.iteration)}"


def doubt_says(doubt: DoubtfulCall, *, repeated: bool) -> str:
    """A call in doubt."""
    if doubt.operation == "generation" and doubt.part == "model":
        what = f"{doubt.model or 'the model'} was asked for {_the(doubt.iteration)}"
    elif doubt.model:
        what = f"{doubt.part} asked {doubt.model}"
    else:
        what = f"{doubt.part} was called"
    most = doubt.price_max_usd
    if most is None:
        price = "it may have been paid, at an unknown price"
    else:
        price = f"it may have been paid, {usd(most)} at most" if most else "it was free of charge"
    again = ", and was made again" if repeated else ""
    return f"{what} and no answer was recorded: {price}{again}"


# Faults and what is done -------------------------------------------------------------------


def cause_says(fault: Fault) -> str:
    """Why something failed."""
    return describe(fault).removesuffix(".")


def deed_says(record: Recovery) -> str:
    """What a recovery action did, shortly."""
    if record.chosen_by == "breaker" and record.delay_s:
        return f"left alone for {seconds_says(record.delay_s)}: {record.description}"
    subject = record.part or record.operation
    models = record.parameters.get("models")
    if isinstance(models, dict):
        return _switch_says(record, cast("dict[str, str]", models))
    values = ", ".join(f"{name}={value}" for name, value in record.parameters.items())
    deeds = {
        "retry_current_step": "asked again",
        "skip_to_next_step": f"went on without {', '.join(record.skips) or subject}",
        "restart_iteration": f"began again at {where(record.to.operation, record.to.iteration)}",
        "restart_from_generation": f"wrote {_the(record.to.iteration)} afresh",
        "modify_parameters": "asked again",
        "full_restart": "began the whole run again",
    }
    deed = deeds.get(record.strategy, record.strategy)
    set_to = f" with {values}" if values else ""
    waited = f" after {seconds_says(record.delay_s)}" if record.delay_s else ""
    by = "by hand: " if record.chosen_by == "user" else ""
    return f"{by}{deed}{set_to}{waited}"


def _switch_says(record: Recovery, models: dict[str, str]) -> str:
    """Which models stand in for which."""
    asked = " and ".join(f"{other} instead of {one}" for one, other in models.items())
    why = f": {record.description.partition(': ')[2]}" if record.chosen_by == "breaker" else ""
    return f"asked {asked}{why}"


def success_says(success: bool | None) -> str:
    """What came of an action."""
    if success is None:
        return "its outcome is open"
    return "that worked" if success else "that did not help"


def outcome_says(operation: str, iteration: int, *, success: bool) -> str:
    """What came of an action, and for what."""
    at = where(operation, iteration)
    return f"{success_says(success)}: {at} {'was completed' if success else 'failed again'}"


def wait_says(record: Recovery) -> str:
    """A wait that a recovery action asks for."""
    return f"waits {seconds_says(record.delay_s)} before it goes on"
