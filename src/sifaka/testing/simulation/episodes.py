"""Runs that meet a fault in a simulated world, and what they cost from there to their end (floor 8).

An episode is a real run of a chain whose parts are the world's: one of them fails for a hidden cause, with an
exception as real clients raise it, and goes on failing or not as the world's dice say. The dice are the
episode's own, so that every policy meets the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from random import Random
from typing import Any

from sifaka.log.records import Closed, Record, Recovery
from sifaka.parts import Reply, Request, Usage
from sifaka.recovery.actions import RecoveryStrategy
from sifaka.recovery.priors import SKIP_LOSS
from sifaka.testing.simulation.causes import (
    AFRESH,
    LOSSES,
    MODIFIERS,
    PROVIDER,
    SKIP,
    TASK_STRENGTH,
    lever_of,
)
from sifaka.testing.simulation.clock import VirtualClock
from sifaka.testing.simulation.contexts import Context, Regime
from sifaka.testing.simulation.failures import failure, reply_that_fails
from sifaka.testing.simulation.oracle import (
    LATENCY_SIGMA,
    STATED_WAIT_S,
    STOP,
    TIMEOUT_S,
    Node,
    Oracle,
)
from sifaka.testing.simulation.weather import Weather
from sifaka.thought import CriticFeedback, Document, Thought, ValidationResult

__all__ = ["Episode"]

_DOCUMENT = "What is known of the matter, at some length. " * 270
_NONE: tuple[str, ...] = ()


class Episode:
    """One run that meets a fault of ``context`` at ``at`` (unix seconds), for the hidden ``cause``.

    ``usd``, ``seconds`` and ``losses_usd`` are what it cost from the first fault on; ``regret_usd`` by how
    much the choices made were dearer than the oracle's, by its own reckoning.
    """

    def __init__(
        self,
        name: str,
        at: float,
        context: Context,
        regime: Regime,
        cause: str,
        oracle: Oracle,
        weather: Weather,
    ) -> None:
        self.name = name
        self.at = at
        self.context = context
        self.regime = regime
        self.cause = cause
        self.oracle = oracle
        self.weather = weather

    def begin(self, clock: VirtualClock) -> None:
        """Throw the same dice again."""
        self.clock = clock
        self._dice = _Dice(self.name)
        self.lever = ""
        self.in_force = ""
        self.node = Node()
        self.tries = 0
        self.failed_at: float | None = None
        self.not_before = 0.0
        self.usd = self.seconds = self.losses_usd = self.regret_usd = 0.0
        self.value_usd = 0.0
        self.regrets: list[float] = []
        self.done = False

    # What policies and their judge see --------------------------------------------------------

    def watch(self, records: list[Record]) -> None:
        """Take notice of the actions that the run decides on, and of its end."""
        for record in records:
            if isinstance(record, Recovery) and record.chosen_by != "breaker":
                self._decided(record)
            elif isinstance(record, Closed):
                self._ended(record)

    def _decided(self, record: Recovery) -> None:
        chosen = _lever_of(record, self.context.kind, self.in_force)
        self._judge(chosen)
        self.lever = chosen
        if chosen == SKIP:
            self.losses_usd += SKIP_LOSS[record.operation] * self.oracle.worth.value_usd
            return
        if chosen in LOSSES and chosen not in self.node.paid:
            self.losses_usd += LOSSES[chosen] * self.oracle.worth.value_usd
        if chosen in MODIFIERS:
            self.in_force = chosen

    def _judge(self, chosen: str) -> None:
        """How much dearer the choice is than the cheapest one."""
        oracle = self.oracle
        if not self.value_usd:
            self.value_usd = oracle.value(self.node)
        regret = max(0.0, oracle.price(self.node, chosen) - oracle.value(self.node))
        self.regrets.append(regret)
        self.regret_usd += regret

    def _ended(self, record: Closed) -> None:
        self.done = record.status == "done"
        if not self.done:
            self._judge(STOP)
            self.losses_usd += self.oracle.worth.value_usd
        self.seconds = self.clock.time() - (self.failed_at or self.clock.time())

    @property
    def cost_usd(self) -> float:
        """Money, time and what was lost, in US dollars."""
        return self.usd + self.oracle.worth.usd_per_s * self.seconds + self.losses_usd

    # The chain's parts ---------------------------------------------------------------------

    def retrieve(self, _query: str) -> list[Document]:
        """Documents, enough to be too many."""
        if self.context.step == "retrieval":
            self._attempt(usd=0.0)
        return [Document(_DOCUMENT)]

    def generate(self, prompt: str, **options: Any) -> Reply:
        """The text, or a critic's answer."""
        del options
        asked_by_critic = prompt.startswith("Criticise")
        step = self.context.step
        if (asked_by_critic and step == "criticism") or (not asked_by_critic and step == "generation"):
            return self._attempt(usd=self.context.usd)
        # What follows a retrieval follows it whatever was decided: it is left out of the cost.
        return self._answer(0.0, timed=False) if step == "retrieval" else self._answer(self.context.usd)

    def validate(self, _thought: Thought) -> ValidationResult:
        """The verdict: it passes, once it can be had."""
        if self.context.step == "validation":
            self._attempt(usd=self.context.usd)
        return ValidationResult(True)

    def critique(self, _thought: Thought) -> Generator[Request, Reply, CriticFeedback]:
        """The feedback, read from a model's answer."""
        reply = yield Request("Criticise this text.")
        if reply.finish_reason.startswith("fails:"):
            raise failure(reply.finish_reason.removeprefix("fails:"))
        return CriticFeedback(False, "no complaints")

    # Attempts ------------------------------------------------------------------------------

    def _attempt(self, usd: float) -> Reply:
        """One attempt at the step that fails: its reply, or the exception that shows why not."""
        works = self._works()
        self.tries += 1
        if works:
            return self._answer(usd)
        if self.failed_at is not None and self.lever:
            self.node = self.node.after(self.lever)
        kind = self.context.kind
        try:
            self._fail(kind, usd)
            reply = Reply("A text.", Usage(500, 100), usd, "stop", model=self.context.model)
            if self.context.step == "generation":
                shown = reply_that_fails(kind, reply)
                if shown is not None:
                    return shown
            elif self.context.step == "criticism" and kind in _IN_THE_TEXT:
                return Reply("A text.", reply.usage, usd, f"fails:{kind}", model=self.context.model)
            size = 1.3 if kind == "context_length" else self.not_before - self.clock.time()
            raise failure(kind, max(size, 1.0))
        finally:
            if self.failed_at is None:
                self.failed_at = self.clock.time()
                self.usd = (
                    0.0  # what the run cost before, and what the first failure did, every policy has paid
                )

    def _works(self) -> bool:
        """Whether this attempt succeeds. The first one is the fault itself."""
        if self.failed_at is None:
            return False
        now = self.clock.time()
        if self.context.kind == "rate_limit" and now < self.not_before:
            return False
        if self.cause == PROVIDER:
            fails = self.context.bad if self.weather.is_bad(now) else self.context.good
            return self._dice.throw(f"provider {self.tries}") >= fails
        lever = self.node.base(self.lever)
        failed = dict(self.node.failed).get(lever, 0)
        chance = self.regime.cures[self.cause].get(lever, 0.0)
        if not (lever == AFRESH or self.context.kind == "rate_limit"):
            chance = self._dice.task_chance(lever, chance)
        return self._dice.throw(f"{lever} {failed}") < chance

    def _fail(self, kind: str, usd: float) -> None:
        match kind:
            case "timeout":
                self._spend(usd / 2, TIMEOUT_S * (2 if self.in_force == "timeout" else 1))
            case "rate_limit":
                self._spend(0.0, 0.3)
                self.not_before = self.clock.time() + STATED_WAIT_S * self._dice.spread(f"wait {self.tries}")
            case "overloaded" | "connection" | "server_error" | "auth" | "context_length":
                self._spend(0.0, 0.3)
            case "out_of_memory":
                self._spend(0.0, 2.0)
            case _:
                self._spend(usd, self._latency_s())

    def _answer(self, usd: float, *, timed: bool = True) -> Reply:
        self._spend(usd, self._latency_s() if timed else 0.0)
        return Reply("A text of some length.", Usage(500, 100), usd, "stop", model=self.context.model)

    def _latency_s(self) -> float:
        return self.context.seconds * self._dice.latency(f"latency {self.tries}")

    def _spend(self, usd: float, seconds: float) -> None:
        self.usd += usd
        self.clock.sleep(seconds)


_IN_THE_TEXT = ("malformed_output", "empty_output", "truncated", "validation_failed", "other")


def _lever_of(record: Recovery, kind: str, in_force: str) -> str:
    strategy = RecoveryStrategy(record.strategy)
    return lever_of(strategy, record.parameters, record.operation, kind, in_force)


class _Dice:
    """An episode's dice: each throw has a name, and comes out the same whenever it is made."""

    def __init__(self, name: str) -> None:
        self._name = name

    def throw(self, name: str) -> float:
        """A number from 0 to 1."""
        return self._of(name).random()

    def task_chance(self, lever: str, mean: float) -> float:
        """This task's own chance with a lever."""
        if not 0 < mean < 1:
            return mean
        return self._of(f"task {lever}").betavariate(TASK_STRENGTH * mean, TASK_STRENGTH * (1 - mean))

    def latency(self, name: str) -> float:
        """A factor of the median latency."""
        return math.exp(self._of(name).gauss(0.0, LATENCY_SIGMA))

    def spread(self, name: str) -> float:
        """A factor of mean 1."""
        return self._of(name).uniform(0.5, 1.5)

    def _of(self, name: str) -> Random:
        return Random(f"{self._name} {name}")  # noqa: S311 - a simulation, no secret
