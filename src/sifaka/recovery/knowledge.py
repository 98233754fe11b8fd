"""What is known of actions against one kind of fault, from the nearest context to the broadest (floor 4).

The ladder: this chain's label, step and model; the step; the kind; the prior table. Similar cases are
weighted by how similar and how old they are, and only ever count as a few observations of the prior.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from sifaka.recovery.actions import Observed, action_key
from sifaka.recovery.counts import HALF_LIFE_S, MEMORY_HERE, MEMORY_WIDE, NO_ROWS, Row, Rows, count_of, total
from sifaka.recovery.posterior import DEPTHS, NO_COUNT, STRENGTH, Beta, Count, after_failures, posterior
from sifaka.storage.similarity import Match

__all__ = ["IGNORANCE", "Knowledge", "Similar", "Tuning", "kernel", "similar_counts"]

SIMILAR_FROM = 0.6
"""Cases less similar than this are not called similar."""


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of the estimate. The defaults were measured; the others are for measuring.

    ``strength`` is m, ``half_life_s`` how fast counts lose weight (seconds), ``memory_here`` and
    ``memory_wide`` how many outcomes a row remembers, ``similar_max`` what similar cases count for at most.
    Without ``ladder`` it is a flat Beta; without ``depths`` later attempts are counted with first ones.
    Without ``weather`` bad hours are counted with good ones. ``explore`` is the share of choices that may
    explore.
    """

    strength: float = STRENGTH
    half_life_s: float = HALF_LIFE_S
    memory_here: float = MEMORY_HERE
    memory_wide: float = MEMORY_WIDE
    similar_max: float = 8.0
    ladder: bool = True
    depths: bool = True
    weather: bool = True
    explore: float = 0.05


class Similar(NamedTuple):
    """What came of an action in similar cases: so many ``worked`` of those ``tried``, weighing ``weight``."""

    weight: Count = NO_COUNT
    worked: int = 0
    tried: int = 0

    def plus(self, weight: float, *, success: bool) -> Similar:
        """With one more case."""
        both = self.weight + Count(weight, weight * success)
        return Similar(both, self.worked + success, self.tried + 1)

    def capped(self, most: float) -> Similar:
        """Weighing at most so much."""
        tried, worked = self.weight
        return self if tried <= most else self._replace(weight=Count(most, worked * most / tried))


NOT_SEEN = Similar()
NO_COUNTS = [NO_COUNT] * (2 * DEPTHS)


NO_STEPS: Mapping[str, Rows] = MappingProxyType({})
NONE_SIMILAR: Mapping[str, Similar] = MappingProxyType({})


class Knowledge(NamedTuple):
    """What a store knows of actions: ``here`` in the nearest context, ``steps`` in all steps of this kind.

    ``storm`` says that the provider has a bad hour now.
    """

    here: Rows = NO_ROWS
    steps: Mapping[str, Rows] = NO_STEPS
    similar: Mapping[str, Similar] = NONE_SIMILAR
    step: str = ""
    now: float = 0.0
    note: str = ""
    storm: bool = False
    tuning: Tuning = Tuning()

    def chance(self, action: str, prior: float, tried: Sequence[bool], in_storm: float | None = None) -> Beta:
        """How likely ``action`` works now, after attempts in vain: ``tried`` says which were its own.

        ``prior`` is the table's probability, ``in_storm`` that in a bad hour, where it is another.
        """
        similar = self.similar.get(action, NOT_SEEN).weight
        rungs, strength = self._rungs(action), self.tuning.strength
        failures = len(tried)
        if not self.tuning.depths:
            pooled = [[reduce(add, rung)] for rung in rungs]
            found = posterior([prior], pooled, similar, strength)
            mean = after_failures(found.mean, sum(tried), failures - sum(tried), strength)
            return Beta(mean * (found.a + found.b), (1 - mean) * (found.a + found.b))
        cuts = [*range(min(failures, DEPTHS - 1)), failures]
        priors = [after_failures(prior, sum(tried[:cut]), cut - sum(tried[:cut]), strength) for cut in cuts]
        if self.storm:  # what is known of good hours, moved by what bad ones change
            change = 1.0 if in_storm is None else in_storm / prior
            priors = [prior, *(min(1.0, one * change) for one in priors)]
            rungs = [[rung[0], *rung[DEPTHS:]] for rung in rungs]
        return posterior(priors, rungs, similar, strength)

    def _rungs(self, action: str) -> list[list[Count]]:
        half_life_s = self.tuning.half_life_s
        here = count_of(self.here, action, self.now, half_life_s)
        if not self.tuning.ladder:
            return [here]
        steps = {
            step: count_of(rows, action, self.now, half_life_s)
            for step, rows in self.steps.items()
            if action in rows
        }
        at_step = steps.pop(self.step, NO_COUNTS)
        elsewhere = [reduce(add, counts) for counts in zip(*steps.values(), strict=True)] or NO_COUNTS
        # Each rung counts what the narrower ones don't: one outcome must not weigh three times.
        others = [step.without(own.worth_elsewhere) for step, own in zip(at_step, here, strict=True)]
        return [elsewhere, others, here]

    def seen(self, action: str) -> Row:
        """What attempts have cost: here, or where nothing is known here, at this step anywhere."""
        here = self.here.get(action, ())
        rows = here or self.steps.get(self.step, NO_ROWS).get(action, ())
        return total(row.now(self.now, self.tuning.half_life_s) for row in rows)

    def values(self, action: str) -> dict[str, Count]:
        """What was counted here for each value that was set, by its key."""
        found: dict[str, Count] = {}
        for row in self.here.get(action, ()):
            for key, count in row.now(self.now, self.tuning.half_life_s).values.items():
                found[key] = found.get(key, NO_COUNT) + Count(*count)
        return found

    def observed(self, action: str, kind: str) -> tuple[Observed, ...]:
        """What was counted, in words, nearest first."""
        anywhere = (rows.get(action, ()) for rows in self.steps.values())
        places = (
            (f"for {kind} at {self.step} here", self.here.get(action, ())),
            (f"for {kind} at {self.step} in all runs", self.steps.get(self.step, NO_ROWS).get(action, ())),
            (f"for {kind} anywhere", tuple(row for rows in anywhere for row in rows)),
        )
        found: list[Observed] = []
        for where, rows in places:
            row = total(rows)
            # A broader context that holds no more than the nearer one says nothing new.
            if row.tried_ever and (not found or row.tried_ever > found[-1].tried):
                found.append(Observed(where, row.worked_ever, row.tried_ever))
        similar = self.similar.get(action)
        if similar is not None:
            found.append(Observed("in similar cases", similar.worked, similar.tried))
        return tuple(found)


IGNORANCE = Knowledge()
"""Nothing is known but the table."""


def kernel(similarity: float) -> float:
    """What a case of that similarity counts, beside one that was counted exactly: never more than a half."""
    return 0.5 * max(0.0, (min(similarity, 1.0) - SIMILAR_FROM) / (1 - SIMILAR_FROM))


def similar_counts(matches: Iterable[Match], now: float, tuning: Tuning) -> dict[str, Similar]:
    """What similar cases say of each action, by its key."""
    found: dict[str, Similar] = {}
    for match in matches:
        case = match.case
        if not case.action or case.success is None:
            continue
        age = 0.5 ** (max(0.0, now - case.at) / tuning.half_life_s) if case.at else 1.0
        weight = kernel(match.similarity) * age
        if weight > 0:
            key = action_key(case.action, case.parameters)
            found[key] = found.get(key, NOT_SEEN).plus(weight, success=case.success)
    return {key: similar.capped(tuning.similar_max) for key, similar in found.items()}
