"""A story in fewer lines, with nothing left out that changes how it is read (floor 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from sifaka.views.models import Moment, Paid

__all__ = ["brief"]


def brief(moments: Iterable[Moment]) -> list[Moment]:
    """The same moments, with those that belong together made one.

    The verdicts on one text are one moment; a fault is one with the action that answered it, its wait and
    its outcome. What was paid is still there, once.
    """
    short: list[Moment] = []
    verdicts: list[Moment] = []
    for moment in moments:
        if verdicts and not _beside(verdicts[-1], moment):
            short.append(_together(verdicts))
            verdicts = []
        if moment.kind == "verdict":
            verdicts.append(moment)
        elif moment.kind == "outcome":
            _conclude(short, moment)
        elif moment.kind == "recovery" and short and short[-1].kind == "fault":
            short[-1] = _answered(short[-1], moment)
        elif moment.kind != "wait":  # the action says how long it waits
            short.append(moment)
    return [*short, _together(verdicts)] if verdicts else short


def _beside(one: Moment, other: Moment) -> bool:
    return other.kind == "verdict" and (one.life, one.iteration) == (other.life, other.iteration)


def _together(verdicts: Sequence[Moment]) -> Moment:
    """The verdicts on one text: what failed and why, then what passed."""
    if len(verdicts) == 1:
        return verdicts[0]
    failed = [one for one in verdicts if one.status == "failed"]
    passed = [one.part for one in verdicts if one.status != "failed"]
    says = [one.says for one in failed] + ([f"{_names(passed)} passed"] if passed else [])
    paid = [one.paid for one in verdicts if one.paid is not None]
    return replace(
        verdicts[0],
        at=verdicts[-1].at,
        says="; ".join(says),
        status="failed" if failed else "ok",
        detail="\n".join(one.detail for one in verdicts if one.detail),
        part=", ".join(one.part for one in verdicts),
        seconds=sum(one.seconds or 0.0 for one in verdicts),
        paid=sum(paid, Paid()) if paid else None,
    )


def _names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _answered(fault: Moment, action: Moment) -> Moment:
    """A fault with the action that was taken; it turns out as the action does."""
    says = f"{fault.code.replace('_', ' ')}: {action.says}"
    return replace(fault, says=says, status="open", detail=fault.says, about=action.seq)


def _conclude(short: list[Moment], outcome: Moment) -> None:
    """Tell what came of an action where its fault is told; an action alone has it in its status."""
    for place in range(len(short) - 1, -1, -1):
        found = short[place]
        if found.kind == "fault" and found.about == outcome.about:
            came = "that worked" if outcome.status == "ok" else "that did not help"
            short[place] = replace(found, says=f"{found.says}; {came}", status=outcome.status)
            return
