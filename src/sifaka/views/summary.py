"""How a run stands, made of its state and of what its story kept account of (floor 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sifaka.log.records import Status
from sifaka.log.state import State
from sifaka.thought import Thought
from sifaka.views import words
from sifaka.views.accounts import DoubtAccount, LifeAccount
from sifaka.views.models import Cause, Check, Doubt, FaultStory, Life, Paid, RunSummary

__all__ = ["causes_of", "summary_of"]


def summary_of(
    state: State,
    lives: Sequence[LifeAccount],
    doubts: Iterable[DoubtAccount],
    faults: Sequence[FaultStory],
    status: Status | None,
) -> RunSummary:
    """The summary; ``status`` is the store's, None for what the log alone says."""
    closed, best = state.closed, state.best_draft()
    stands: Status = status or (closed.status if closed else "running")
    seen = tuple(life.view() for life in lives)
    doubtful = tuple(doubt.view() for doubt in doubts)
    return RunSummary(
        chain_id=state.chain_id,
        prompt=state.prompt,
        model=str(state.settings.get("model", "")),
        status=stands,
        reason=closed.reason if closed else "",
        says=_says(state, stands, seen),
        judged=bool(best.text) and len(best.validation_results) >= state.planned_validators,
        passed=closed.passed if closed else best.passed,
        text=best.text,
        iteration=best.iteration,
        checks=_checks(best),
        began_at=state.first_at,
        last_at=state.last_at,
        active_s=state.active_s(state.last_at),
        totals=seen[-1].kept if seen else Paid(),
        lives=seen,
        doubts=doubtful,
        doubt_usd_max=sum((one.price_max_usd or 0.0 for one in doubtful), 0.0),
        doubts_unpriced=_unpriced(doubtful),
        faults=tuple(faults),
        causes=causes_of(faults),
    )


def _says(state: State, status: Status, lives: Sequence[Life]) -> str:
    closed = state.closed
    if closed is not None:
        passed = state.best.passed if state.best is not None else 0
        stands = words.closed_says(closed, passed, state.planned_validators)
    else:
        stands = f"{status} at {words.where(state.position.operation, state.position.iteration)}"
    deaths = sum(life.end == "death" for life in lives)
    if not deaths:
        return stands
    return f"{stands}; it died {'once' if deaths == 1 else f'{deaths} times'} on the way"


def _checks(best: Thought) -> tuple[Check, ...]:
    return tuple(
        Check(one.validator, one.passed, words.verdict_says(one, one.validator))
        for one in best.validation_results
    )


def _unpriced(doubts: Iterable[Doubt]) -> int:
    return sum(one.price_max_usd is None for one in doubts)


def causes_of(faults: Iterable[FaultStory]) -> tuple[Cause, ...]:
    """Faults grouped by their signature, the most frequent first."""
    groups: dict[str, list[FaultStory]] = {}
    for fault in faults:
        groups.setdefault(fault.signature, []).append(fault)
    found = sorted(groups.values(), key=lambda group: -len(group))
    return tuple(_cause(group) for group in found)


def _cause(group: Sequence[FaultStory]) -> Cause:
    first = group[0]
    return Cause(
        signature=first.signature,
        kind=first.kind,
        says=first.says,
        times=len(group),
        done=tuple(_done(fault) for fault in group),
    )


def _done(fault: FaultStory) -> str:
    """What was done about one fault, and what came of it."""
    if not fault.action:
        return "nothing was done"
    return f"{fault.action}: {words.success_says(fault.success)}"
