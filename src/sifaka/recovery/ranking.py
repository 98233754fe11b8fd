"""Which action first: candidates for a fault, best first (floor 4).

Each candidate's chance is its posterior in this context; its cost is its calls, its seconds and the work it
has done again. They come in the order that costs least until one works; those that cost more than they can
bring are left out. After each failure all is estimated anew. Nothing here reads or writes: the same situation
and knowledge give the same ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.recovery.candidates import Candidate, NotOffered, candidates
from sifaka.recovery.costs import Cost, index_usd, work_of
from sifaka.recovery.exploration import explored
from sifaka.recovery.knowledge import IGNORANCE, Knowledge
from sifaka.recovery.learned import with_learned_value
from sifaka.recovery.posterior import Beta
from sifaka.recovery.priors import APPLIES_WHEN, PRIORS
from sifaka.recovery.rules import Rule
from sifaka.recovery.situation import Situation

__all__ = ["PRIORS", "Ranking", "Situation", "rank", "ranking"]

_S = RecoveryStrategy


class Ranking(NamedTuple):
    """The actions that may help, best first; and what is not offered, with the reasons."""

    actions: list[RecoveryAction]
    not_offered: list[NotOffered]


class _Weighed(NamedTuple):
    """A candidate with its chance, its cost, and what its success is worth."""

    candidate: Candidate
    chance: Beta
    cost: Cost
    cost_usd: float
    worth_usd: float

    def index_at(self, probability: float) -> float:
        """Weitzman's index, were that its chance."""
        return index_usd(probability, self.cost_usd, self.worth_usd)


def rank(at: Situation, known: Knowledge = IGNORANCE, rules: Sequence[Rule] = ()) -> list[RecoveryAction]:
    """The actions that may help, best first; empty where only a person can help."""
    return ranking(at, known, rules).actions


def ranking(at: Situation, known: Knowledge = IGNORANCE, rules: Sequence[Rule] = ()) -> Ranking:
    """As :func:`rank`, with what is not offered and why."""
    known = known._replace(step=at.position.operation)
    found, refused = candidates(at, rules)
    weighed = sorted((_weigh(one, at, known) for one in found), key=_order)
    # Giving up ends all learning: it takes that even the upper end of the interval does not pay.
    worthy = [one for one in weighed if one.index_at(one.chance.interval()[1]) >= 0]
    refused += [NotOffered(one.candidate.strategy, _not_worth(one)) for one in weighed if one not in worthy]
    first, propensity = _explored(worthy, known.tuning.explore, at.seed)
    actions = [_action(one, at, known) for one in worthy]
    if first:
        actions.insert(0, actions.pop(first))
    if actions and propensity < 1:
        by = "exploration" if first else "ranking"
        actions[0] = _replaced(actions[0], chosen_by=by, propensity=propensity)
    return Ranking(actions, refused)


def _order(one: _Weighed) -> tuple[float, float]:
    return -one.index_at(one.chance.mean), -one.chance.mean


def _weigh(candidate: Candidate, at: Situation, known: Knowledge) -> _Weighed:
    chance = known.chance(candidate.key, candidate.prior, _own(candidate, at), candidate.prior_in_bad_hour)
    candidate, count = with_learned_value(candidate, at, known.values(candidate.key), chance.mean)
    if count.tried and len(known.values(candidate.key)) > 1:
        # Values differ: what was counted for this one weighs more than what was for all.
        strength = known.tuning.strength
        chance = Beta(
            count.worked + strength * chance.mean, count.tried - count.worked + strength * (1 - chance.mean)
        )
    cost = work_of(
        candidate.strategy,
        at,
        switches=candidate.switches,
        parameters=candidate.parameters,
        seen=known.seen(candidate.key),
        chance=chance.mean,
    )
    worth = at.value_usd * (1 - candidate.loss)
    return _Weighed(candidate, chance, cost, cost.total_usd(at.usd_per_s), worth)


def _own(candidate: Candidate, at: Situation) -> list[bool]:
    """Of the attempts at this fault, which were this candidate's own."""
    # Settings that no action has changed yet were not among what was tried.
    new = candidate.strategy is _S.MODIFY_PARAMETERS and not at.applied.issuperset(candidate.parameters)
    return [one == candidate.strategy.value and not new for one in at.tried]


def _explored(worthy: Sequence[_Weighed], share: float, seed: str) -> tuple[int, float]:
    def indexes(chances: Sequence[float]) -> list[float]:
        return [one.index_at(chance) for one, chance in zip(worthy, chances, strict=True)]

    harmless = [place for place, one in enumerate(worthy) if one.candidate.is_harmless]
    return explored([one.chance for one in worthy], harmless, indexes, share, seed)


# In words ------------------------------------------------------------------------------------


def _action(one: _Weighed, at: Situation, known: Knowledge) -> RecoveryAction:
    candidate = one.candidate
    low, high = one.chance.interval()
    observed = known.observed(candidate.key, at.fault.kind)
    return RecoveryAction(
        strategy=candidate.strategy,
        description=_describe(candidate, at),
        confidence=round(one.chance.mean, 4),
        parameters=candidate.parameters,
        applies_when=APPLIES_WHEN[candidate.strategy],
        evidence=_evidence(candidate, at, known),
        interval=(round(low, 4), round(high, 4)),
        observed=observed,
        cost_usd=round(one.cost.usd, 6),
        seconds=round(one.cost.seconds, 3),
        keeps=_keeps(candidate.strategy, at),
        loses=candidate.loses,
    )


def _replaced(action: RecoveryAction, *, chosen_by: str, propensity: float) -> RecoveryAction:
    from msgspec.structs import replace

    return replace(action, chosen_by=chosen_by, propensity=propensity)


def _evidence(candidate: Candidate, at: Situation, known: Knowledge) -> str:
    """The counts behind a confidence, in words."""
    observed = "; ".join(str(one) for one in known.observed(candidate.key, at.fault.kind))
    history = f"worked {observed}" if observed else "no history yet"
    own = sum(_own(candidate, at))
    here = f"; tried {own} times at this step without success" if own else ""
    others = len(at.tried) - own
    here += f"; {others} other attempts at it failed" if others else ""
    note = f" ({known.note})" if known.note else ""
    prior = candidate.prior_in_bad_hour if known.storm else candidate.prior
    hour = ", in a bad hour of its provider" if known.storm else ""
    return f"{history}; a prior of {prior:.0%}{hour}: {candidate.why}{here}{note}"


def _describe(candidate: Candidate, at: Situation) -> str:
    what = at.what
    if candidate.strategy is _S.MODIFY_PARAMETERS:
        if "models" in candidate.parameters:
            return f"{candidate.why}, for {what}"
        settings = ", ".join(f"{name}={value}" for name, value in candidate.parameters.items())
        return f"set {settings} and try {what} again: {candidate.why}"
    words = {
        _S.RETRY_CURRENT_STEP: f"try {what} again",
        _S.SKIP_TO_NEXT_STEP: f"go on without {what}",
        _S.RESTART_ITERATION: f"begin iteration {at.position.iteration} again",
        _S.RESTART_FROM_GENERATION: "write the text afresh",
        _S.FULL_RESTART: "begin the whole run again",
    }
    return f"{words[candidate.strategy]}: {candidate.why}"


def _keeps(strategy: RecoveryStrategy, at: Situation) -> str:
    if strategy is _S.FULL_RESTART:
        return "nothing; what was paid stays counted"
    if strategy in (_S.RESTART_ITERATION, _S.RESTART_FROM_GENERATION):
        return "the documents and the earlier iterations" if at.position.iteration else "the documents"
    return "all that was done so far"


def _not_worth(one: _Weighed) -> str:
    return (
        f"its chance of {one.chance.mean:.0%} does not pay for its cost of ${one.cost.usd:.4f} and "
        f"{one.cost.seconds:.0f} s"
    )
