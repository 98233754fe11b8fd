"""What the cheapest policy would do that knows the world, but not its dice (floor 8).

It knows whether the provider has a bad time, each cause's share and each lever's chances in this context, and
what has failed so far at this fault; it does not know the task's own luck, nor the future. Its value is a
recursion over what may be tried: each branch costs its expected money and time, and failing costs the
result's worth.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

from sifaka.recovery.limits import Limits
from sifaka.recovery.priors import SKIP_LOSS
from sifaka.testing.simulation.causes import (
    AFRESH,
    AGAIN,
    FULL,
    LOSSES,
    MODIFIERS,
    PROVIDER,
    SKIP,
    TASK_STRENGTH,
)
from sifaka.testing.simulation.contexts import Context, Regime
from sifaka.testing.simulation.offers import offered

__all__ = ["STOP", "Node", "Oracle", "Worth"]

STOP = "stop"
_SLOW = ("rate_limit", "overloaded", "server_error")


class Worth(NamedTuple):
    """What a second counts, and what a result is worth, in US dollars."""

    usd_per_s: float = 0.001
    value_usd: float = 1.0


class Node(NamedTuple):
    """What is known at a decision: how often each lever has failed, and what is in force."""

    failed: tuple[tuple[str, int], ...] = ()
    in_force: str = ""
    attempts: int = 1
    """Failed attempts since the text was begun; retries are refused beyond a limit."""
    actions: int = 0
    fulls: int = 0
    paid: tuple[str, ...] = ()
    """Levers whose loss is given up already."""

    def base(self, lever: str) -> str:
        """The lever that decides over an attempt: what is in force, where all is merely begun again."""
        return self.in_force or "retry" if lever in (AGAIN, FULL) else lever

    def after(self, lever: str) -> Node:
        """The node when one more attempt with this lever has failed."""
        counts, base = dict(self.failed), self.base(lever)
        counts[base] = counts.get(base, 0) + 1
        failed, actions = tuple(sorted(counts.items())), self.actions + 1
        if lever in (AFRESH, AGAIN, FULL):
            return Node(failed, self.in_force, 1, actions, self.fulls + (lever == FULL), self.paid)
        in_force = lever if lever in MODIFIERS else self.in_force
        paid = tuple(sorted({*self.paid, lever})) if lever in LOSSES else self.paid
        return Node(failed, in_force, self.attempts + 1, actions, self.fulls, paid)


class Oracle:
    """The cheapest policy for one regime of a context, in a good or a bad time of its provider."""

    def __init__(
        self, context: Context, regime: Regime, *, bad: bool, bad_shares: tuple[float, float], worth: Worth
    ) -> None:
        self.context = context
        self.regime = regime
        self.worth = worth
        self._fails = context.bad if bad else context.good
        of_provider, of_others = bad_shares if bad else (1 - bad_shares[0], 1 - bad_shares[1])
        self._weights = {
            name: share * (of_provider if name == PROVIDER else of_others)
            for name, share in regime.shares.items()
        }
        self._limits = Limits()
        self._offered = offered(context.step, context.kind)
        self._values: dict[Node, float] = {}

    # Chances -------------------------------------------------------------------------------

    def chance(self, node: Node, lever: str) -> float:
        """How likely the next attempt with this lever succeeds."""
        weights = {name: share * self._likelihood(name, node) for name, share in self._weights.items()}
        total = sum(weights.values())
        if not total:
            return 0.0
        base = node.base(lever)
        failed = dict(node.failed).get(base, 0)
        return sum(weight * self._chance_of(name, base, failed) for name, weight in weights.items()) / total

    def _chance_of(self, cause: str, lever: str, failed: int) -> float:
        if cause == PROVIDER:
            return 1 - self._fails
        mean = self.regime.cures[cause].get(lever, 0.0)
        if lever == AFRESH or self.context.kind == "rate_limit":
            return mean
        return TASK_STRENGTH * mean / (TASK_STRENGTH + failed)

    def _likelihood(self, cause: str, node: Node) -> float:
        return math.prod(
            1 - self._chance_of(cause, lever, before)
            for lever, failed in node.failed
            for before in range(failed)
        )

    # Costs ---------------------------------------------------------------------------------

    @cached_property
    def _rewriting(self) -> float:
        """What writing the text again costs before the step that failed can be tried."""
        context = self.context
        if context.step in ("generation", "retrieval"):
            return 0.0
        return context.usd + self.worth.usd_per_s * mean_seconds(context.seconds)

    def cost(self, node: Node, lever: str, chance: float) -> float:
        """What an attempt with this lever costs on average, its wait included, in US dollars."""
        context, per_s = self.context, self.worth.usd_per_s
        works = context.usd * (context.step != "retrieval") + per_s * mean_seconds(context.seconds)
        usd, seconds = cost_of_failing(context, "timeout" in (node.in_force, lever))
        total = chance * works + (1 - chance) * (usd + per_s * seconds)
        if lever in (AFRESH, AGAIN, FULL):
            return total + (self._rewriting if lever == AFRESH else 0.0)
        loss = LOSSES.get(lever, 0.0) if lever not in node.paid else 0.0
        return total + per_s * self._wait_s(node) + loss * self.worth.value_usd

    def _wait_s(self, node: Node) -> float:
        """The mean of what is waited before an attempt, as the engine draws it."""
        kind = self.context.kind
        base, cap = (1.0, 60.0) if kind in _SLOW else (0.5, 8.0)
        jitter: float = min(cap, base * 2 ** (node.attempts - 1)) / 2
        if kind == "rate_limit":
            return STATED_WAIT_S + jitter / 4
        passing = kind in (*_SLOW, "timeout", "connection", "malformed_output", "empty_output")
        return jitter if passing else 0.0

    # Decisions -----------------------------------------------------------------------------

    def choices(self, node: Node) -> list[str]:
        """What may be tried here, within the limits; giving up among it."""
        return [STOP, *(lever for lever in self._offered if self._is_allowed(lever, node))]

    def _is_allowed(self, lever: str, node: Node) -> bool:
        """Whether the limits let it be tried. A retry keeps what is in force: it goes by that name then."""
        if lever == SKIP:
            return True
        if node.actions >= self._limits.actions:
            return False
        if lever in (AFRESH, AGAIN):
            return True
        if lever == FULL:
            return node.fulls < self._limits.full_restarts
        return node.attempts < self._limits.attempts_per_step and not (lever == "retry" and node.in_force)

    def price(self, node: Node, choice: str) -> float:
        """The expected cost of this choice, and of the cheapest course after it, in US dollars."""
        if choice == STOP:
            return self.worth.value_usd
        if choice == SKIP:
            return self.worth.value_usd * SKIP_LOSS[self.context.step]  # type: ignore[index]
        chance = self.chance(node, choice)
        return self.cost(node, choice, chance) + (1 - chance) * self.value(node.after(choice))

    def value(self, node: Node) -> float:
        """The expected cost of the cheapest course from here, in US dollars."""
        known = self._values.get(node)
        if known is None:
            known = self._values[node] = min(self.price(node, one) for one in self.choices(node))
        return known

    def best(self, node: Node) -> list[str]:
        """The choices, the cheapest first; those that cost more than giving up are left out."""
        priced = sorted((self.price(node, one), one) for one in self.choices(node))
        names = [name for _, name in priced]
        return names[: names.index(STOP)]


STATED_WAIT_S = 12.0
"""What a rate limit asks to wait, on average."""
TIMEOUT_S = 60.0
LATENCY_SIGMA = 0.5


def mean_seconds(median: float) -> float:
    """The mean of a lognormal latency."""
    return median * math.exp(LATENCY_SIGMA**2 / 2)


def cost_of_failing(context: Context, longer: bool) -> tuple[float, float]:
    """What an attempt that fails costs: US dollars and seconds, on average."""
    match context.kind:
        case "timeout":
            return context.usd / 2, TIMEOUT_S * (2 if longer else 1)
        case "rate_limit" | "overloaded" | "connection" | "server_error" | "auth" | "context_length":
            return 0.0, 0.3
        case "out_of_memory":
            return 0.0, 2.0
        case _:
            usd = 0.0 if context.step == "retrieval" else context.usd
            return usd, mean_seconds(context.seconds)
