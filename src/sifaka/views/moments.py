"""Each record as the moment that people see: what it is, what it says, how it turned out (floor 5).

These functions know one record and where in a run it stands; what takes more than one record is the story's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sifaka.log.records import Closed, Faulted, Intent, Opened, Outcome, Recovery, Result
from sifaka.log.state import State
from sifaka.thought import DoubtfulCall
from sifaka.views import words
from sifaka.views.models import Kind, Moment, Outlook, Paid

__all__ = [
    "Place",
    "action",
    "answer",
    "beginning",
    "call",
    "death",
    "doubt",
    "end",
    "fault",
    "outcome",
    "paid_by",
    "wait",
]


class Place(NamedTuple):
    """Where a record stands: its number, the life that wrote it, the step that was reached before it."""

    seq: int
    life: int
    step: str


def _moment(kind: Kind, says: str, place: Place, of: Any, **more: Any) -> Moment:
    """A moment at ``place``, with the operation, iteration and part of ``of``."""
    part: str = getattr(of, "part", "")
    return Moment(
        kind=kind,
        says=says,
        seq=place.seq,
        life=place.life,
        step=place.step,
        operation=of.operation,
        iteration=of.iteration,
        part=part,
        **more,
    )


def beginning(record: Opened, place: Place, state: State) -> Moment:
    """A life begins, the run's first or a later one."""
    new = record.cause == "new"
    return _moment(
        "started" if new else "resumed",
        words.started_says(record) if new else words.resumed_says(record, state),
        place,
        state.position,
        at=record.at,
        detail=state.prompt if new else "",
        model=str(state.settings.get("model", "")),
        code=record.cause,
    )


def death(place: Place, state: State) -> Moment:
    """A process died: when it recorded last is all that is known."""
    says = f"the process of life {place.life} died; all that it had recorded was kept"
    return _moment("death", says, place, state.position, at=state.last_at, status="failed", code="death")


def call(record: Intent, place: Place) -> Moment:
    """A call is in flight."""
    return _moment(
        "call",
        words.call_says(record),
        place,
        record,
        at=record.at,
        status="open",
        model=record.model,
        price_max_usd=record.price_max_usd,
    )


def doubt(of: DoubtfulCall, place: Place, at: float, cause: str) -> Moment:
    """A call is in doubt, from ``at`` on."""
    return _moment(
        "doubt",
        words.doubt_says(of, repeated=False),
        place,
        of,
        at=at,
        status="open",
        model=of.model,
        code=cause,
        about=of.seq,
        price_max_usd=of.price_max_usd,
    )


def answer(record: Result, place: Place, *, skipped: bool, paid: Paid | None) -> Moment:
    """A call, or a part, answered."""
    kind, says, status, detail = _told(record, skipped=skipped)
    return _moment(
        kind,
        says,
        place,
        record,
        at=record.at,
        status=status,
        detail=detail,
        model=record.model,
        seconds=record.seconds,
        paid=paid,
    )


def _told(record: Result, *, skipped: bool) -> tuple[Kind, str, Outlook, str]:
    if record.text is not None:
        if record.operation == "generation":
            return "text", words.text_says(record), "ok", record.text
        return "reply", words.reply_says(record), "ok", record.text
    if record.verdict is not None:
        verdict = record.verdict
        status: Outlook = "ok" if verdict.passed else "failed"
        return "verdict", words.verdict_says(verdict, record.part), status, verdict.message
    if record.feedback is not None:
        feedback = record.feedback
        status = "" if feedback.needs_improvement else "ok"
        return "feedback", words.feedback_says(feedback, record.part), status, feedback.message
    documents = record.documents or ()
    texts = "\n\n".join(one.text for one in documents)
    return "documents", words.documents_says(record.part, documents, skipped=skipped), "", texts


def paid_by(record: Result) -> Paid:
    """What one recorded answer came to."""
    usage = record.usage
    of_model = record.text is not None
    return Paid(
        calls=1,
        model_calls=int(of_model),
        input_tokens=usage.input_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        seconds=record.seconds,
        cost_usd=record.price_usd or 0.0,
        unpriced_calls=int(of_model and record.price_usd is None),
    )


def fault(record: Faulted, place: Place) -> Moment:
    """Something failed."""
    return _moment(
        "fault",
        words.cause_says(record.fault),
        place,
        record,
        at=record.at,
        status="failed",
        detail=record.fault.message,
        code=record.fault.kind,
        about=record.intent,
        seconds=record.seconds or None,
    )


def action(record: Recovery, place: Place) -> Moment:
    """A recovery action is taken."""
    return _moment(
        "recovery",
        words.deed_says(record),
        place,
        record,
        at=record.at,
        status="open",
        detail=record.description,
        code=record.strategy,
    )


def wait(record: Recovery, place: Place) -> Moment:
    """A recovery action asks for a wait."""
    return _moment(
        "wait",
        words.wait_says(record),
        place,
        record,
        at=record.at,
        seconds=record.delay_s,
        until=record.until,
        about=place.seq,
    )


def outcome(record: Outcome, place: Place, of: Moment) -> Moment:
    """It is known what came of the action ``of``."""
    return _moment(
        "outcome",
        words.outcome_says(of.operation, of.iteration, success=record.success),
        place,
        of,
        at=record.at,
        status="ok" if record.success else "failed",
        code=of.code,
        about=record.recovery,
        seconds=record.seconds,
    )


def end(record: Closed, place: Place, state: State) -> Moment:
    """The run, or this allowance of it, is over."""
    passed = state.best.passed if state.best else 0
    return _moment(
        "closed",
        words.closed_says(record, passed, state.planned_validators),
        place,
        state.position,
        at=record.at,
        status="ok" if record.status == "done" and record.passed else "failed",
        detail=record.reason,
        code=record.status,
    )
