"""Settings that many runs suggest, as data with their reasons: one pure rule each (floor 4).

A rule speaks only where enough was seen; a change it suggests can be handed to ``with_options``, or says
which part to leave out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from sifaka.recovery.digest import Digest, PartSeen

__all__ = ["Suggested", "suggest_configuration"]

RUNS_MIN = 5
"""So many runs, or judgements, or faults, are little enough to be chance; fewer suggest nothing."""
OFTEN = 0.2
"""A fault in more than this share of runs is worth a setting."""


class Suggested(msgspec.Struct, frozen=True):
    """A change of the configuration: ``options`` for ``with_options``, or a part to go ``without``.

    ``seen`` is how many observations it rests on, ``saves_share`` the share of all cost that it would save
    (of all time, where nothing was paid), where that is known.
    """

    why: str
    options: dict[str, Any] = {}
    without: str = ""
    seen: int = 0
    saves_share: float = 0.0

    def __str__(self) -> str:
        return self.why


Advice = Callable[[Sequence[Digest]], Iterator[Suggested]]


def suggest_configuration(digests: Sequence[Digest]) -> list[Suggested]:
    """What these runs suggest, the greatest saving first."""
    found = [one for rule in _RULES for one in rule(digests)]
    return sorted(found, key=lambda one: (-one.saves_share, -one.seen))


# Rules ---------------------------------------------------------------------------------------


def _idle_parts(digests: Sequence[Digest]) -> Iterator[Suggested]:
    """A critic that never changed the outcome; a validator is left alone, since passing is what it is for."""
    parts: dict[str, list[tuple[PartSeen, Digest]]] = {}
    for one in digests:
        for name, part in one.parts.items():
            if part.operation == "criticism" and part.judged:
                parts.setdefault(name, []).append((part, one))
    for name, seen in parts.items():
        judged, asked = sum(part.judged for part, _ in seen), sum(part.asked for part, _ in seen)
        if judged < RUNS_MIN or any(part.alone for part, _ in seen):
            continue
        share, of = _share(seen)
        why = "never asked for another text" if not asked else "never asked for one when nobody else did"
        told = f"{name} has never changed the outcome and costs {share:.0%} of the {of}"
        yield Suggested(
            f"{told}: in {judged} judgements it {why}", without=name, seen=judged, saves_share=share
        )


def _share(seen: Sequence[tuple[PartSeen, Digest]]) -> tuple[float, str]:
    """A part's share of the money of its runs; of their time, where nothing was paid."""
    cost = sum(digest.spent.cost_usd for _, digest in seen)
    if cost:
        return sum(part.cost_usd for part, _ in seen) / cost, "cost"
    seconds = sum(digest.spent.seconds for _, digest in seen)
    return (sum(part.seconds for part, _ in seen) / seconds if seconds else 0.0), "time"


def _vain_iterations(digests: Sequence[Digest]) -> Iterator[Suggested]:
    """Improvements after which no text was ever the best."""
    done = [one for one in digests if one.status == "done" and one.best >= 0]
    last, best = max((one.iterations for one in done), default=0), max((one.best for one in done), default=0)
    beyond = [one for one in done if one.iterations > best]
    if last > best and len(beyond) >= RUNS_MIN:
        texts = sum(one.iterations - best for one in beyond)
        every = sum(one.iterations + 1 for one in done)
        why = f"no text after improvement {best} was ever the best, in {len(beyond)} runs that wrote some"
        options = {"max_improvement_iterations": best}
        yield Suggested(why, options, seen=len(beyond), saves_share=texts / every)


def _room_for_answers(digests: Sequence[Digest]) -> Iterator[Suggested]:
    """Answers are cut off often: the room that has worked."""
    worked = [
        int(action.parameters["max_tokens"])
        for one in digests
        for action in one.actions
        if action.success and action.kind == "truncated" and "max_tokens" in action.parameters
    ]
    times, runs = _frequency(digests, "truncated")
    if runs and worked:
        room = Counter(worked).most_common(1)[0][0]
        why = f"{times} answers in {runs} runs were cut off, and {room:,} tokens have been room enough"
        yield Suggested(why, {"max_tokens": room}, seen=times)


def _context(digests: Sequence[Digest]) -> Iterator[Suggested]:
    """Prompts are too long often: what has fitted."""
    fitted = [
        int(action.parameters["max_context_chars"])
        for one in digests
        for action in one.actions
        if action.success and action.kind == "context_length" and "max_context_chars" in action.parameters
    ]
    times, runs = _frequency(digests, "context_length")
    if runs and fitted:
        room = min(fitted)
        why = (
            f"{times} prompts in {runs} runs were too long, and {room:,} characters of documents have fitted"
        )
        yield Suggested(why, {"max_context_chars": room}, seen=times)


def _concurrency(digests: Sequence[Digest]) -> Iterator[Suggested]:
    """Rate limits that are met when several calls are out at once."""
    times, runs = _frequency(digests, "rate_limit")
    limited = [fault for one in digests for fault in one.faults if fault.kind == "rate_limit"]
    together = [fault for fault in limited if fault.together]
    if runs and len(together) > len(limited) / 2:
        most = max(1, (max(fault.together for fault in together) + 1) // 2)
        why = f"{len(together)} of {times} rate limits were met while several calls were out"
        yield Suggested(why, {"batch_size": most}, seen=times)


def _patience(digests: Sequence[Digest]) -> Iterator[Suggested]:
    """Time limits that slow but good answers do not keep."""
    times, runs = _frequency(digests, "timeout")
    limits = [text.timeout_s for one in digests for text in one.texts if text.timeout_s]
    slow = sorted(text.seconds for one in digests for text in one.texts)
    if runs and limits and slow:
        usual = slow[int(0.95 * (len(slow) - 1))]
        limit = max(limits)
        if usual > limit / 2:
            slowest = f"one good answer in twenty takes {usual:.1f} s"
            why = f"{times} calls took longer than {limit:g} s, and {slowest}"
            yield Suggested(why, {"timeout_s": round(max(2 * limit, 3 * usual), 1)}, seen=times)


def _frequency(digests: Sequence[Digest], kind: str) -> tuple[int, int]:
    """How often a kind happened and in how many runs; (0, 0) where that is not often."""
    counts = [sum(fault.kind == kind for fault in one.faults) for one in digests]
    times, runs = sum(counts), sum(count > 0 for count in counts)
    return (times, runs) if times >= RUNS_MIN and runs > OFTEN * len(digests) else (times, 0)


_RULES: tuple[Advice, ...] = (
    _idle_parts,
    _vain_iterations,
    _room_for_answers,
    _context,
    _concurrency,
    _patience,
)
