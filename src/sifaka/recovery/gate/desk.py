"""Who may call a provider's models now, and who comes back when (floor 4).

It decides on what this process knows, and asks for agreement only where it takes one: for the one call of a
half-open breaker, for places in a schedule, for retry tokens. Places and tokens are taken some at a time and
promised to callers by name, so that a thousand who wait cost a few changes of the cell and come back one
after another, each at its own time.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from sifaka.recovery.gate import breaker, pace
from sifaka.recovery.gate.exchange import Exchange, Wish
from sifaka.recovery.gate.shared import Settings
from sifaka.recovery.gate.wishes import Places, Probe, Stock, Taking, Tokens

__all__ = ["Admission", "Desk"]

SPREAD_S = 10.0
"""Who waits for an opening to end comes back within so many seconds after it."""
PROBE_WAIT_S = 2.0
"""Who waits for somebody's probe asks again after this, or up to three times as long."""
CROWD_WAIT_S = 30.0
"""Who can be told no time yet, because so many wait, asks again after this, or up to twice as long."""
PLACES_MAX = 64
PLACE_KEPT_S = 1.0
TOKENS_MAX = 8
TOKEN_KEPT_S = 10.0
"""How many places and tokens are taken at once at most, and how long after its time one is still of use."""
PROMISES = 4_096
"""Beyond so many, promises that nobody came for are looked for and forgotten."""
GOLDEN = 0.6180339887498949
"""Its multiples' fractions are spread evenly, however many there are."""


class Admission(NamedTuple):
    """Whether a call may be made now; if not, when to ask again (``until``, unix seconds) and why.

    ``probe``: the one call by which everybody finds out whether the model answers again.
    """

    go: bool
    until: float = 0.0
    reason: str = ""
    probe: bool = False


class Desk:
    """The decisions about one provider. Safe between threads; raises nothing."""

    def __init__(self, provider: str, exchange: Exchange, limits: Settings, gate_id: str) -> None:
        self.exchange = exchange
        self._provider = provider
        self.limits = limits
        self._gate_id = gate_id
        self._claims = 0
        self._probes: dict[tuple[str, str], str] = {}
        self._stocks: dict[str, Stock] = {}
        self._tokens_stock = Stock(TOKENS_MAX, TOKEN_KEPT_S)
        self._promises: dict[tuple[str, str], tuple[float, float]] = {}
        self._promises_max = PROMISES
        self._turns: dict[str, tuple[float, int]] = {}

    def admit(self, model: str, who: str, *, retry: bool) -> Admission:
        """Go, or come back."""
        exchange = self.exchange
        exchange.refresh()
        with exchange.lock:
            self._claims += 1
            token = f"{who}#{self._gate_id}.{os.getpid()}.{self._claims}"
        for _ in range(4):
            with exchange.lock:
                found = self._decide(model, who, token, retry=retry)
            if isinstance(found, Admission):
                return found
            exchange.grant(found)
        return self._later("", PROBE_WAIT_S, f"others were quicker each time to call {self.named(model)}")

    def glance(self, model: str) -> Admission | None:
        """The answer where it takes no agreement and no name: it is open, or somebody's probe is out."""
        with self.exchange.lock:
            return self._closed_door(model)

    def is_quiet(self, model: str) -> bool:
        """Whether any first call may go. The lock is held."""
        now, known = self.exchange.now(), self.exchange.view.model(model)
        closed = breaker.phase(known.breaker, now, self.limits.breaker) == "closed"
        return closed and not pace.holds(known.pace, now, self.limits.pace)

    def probe_of(self, model: str, who: str) -> str | None:
        """The claim under which ``who`` has made its call, if it was the probe; it is used up."""
        with self.exchange.lock:
            return self._probes.pop((model, who), None)

    # Deciding ------------------------------------------------------------------------------

    def _decide(self, model: str, who: str, token: str, *, retry: bool) -> Admission | Wish:
        now, known = self.exchange.now(), self.exchange.view.model(model)
        state = known.breaker
        if breaker.phase(state, now, self.limits.breaker) == "half_open" and state.probe == token:
            self._probes[model, who] = token
            return Admission(
                True, reason=f"this call finds out whether {self.named(model)} answers", probe=True
            )
        shut = self._closed_door(model)
        if shut is not None:
            return shut
        if breaker.phase(state, now, self.limits.breaker) == "half_open":
            return Probe(model, token, self.limits, lambda: self.glance(model) is None)
        if pace.holds(known.pace, now, self.limits.pace):
            return self._place(f"place:{model}", self._places(model), who, known.pace.start, now)
        if retry:
            return self._place("token", self._tokens(), who, 0.0, now)
        return self.go()

    def _closed_door(self, model: str) -> Admission | None:
        """The wait for an opening to end, or for the probe that another one makes."""
        now, known = self.exchange.now(), self.exchange.view.model(model)
        state = known.breaker
        found = breaker.phase(state, now, self.limits.breaker)
        if found == "closed":
            return None
        floor = known.pace.start if pace.holds(known.pace, now, self.limits.pace) else 0.0
        at = max(state.until, floor)
        if now < at:
            why = f"{self.named(model)} has failed too often; it is tried again in {at - now:.0f} s"
            return self._back(self._spread(model, at, SPREAD_S), why)
        if state.probe and now < state.probe_until:
            why = f"one call is finding out whether {self.named(model)} answers again"
            return self._later(f"probe:{model}", PROBE_WAIT_S, why)
        return None

    def _places(self, model: str) -> Places:
        why = f"calls to {self.named(model)} are let go one after another, after a pause"
        stock = self._stocks.setdefault(model, Stock(PLACES_MAX, PLACE_KEPT_S))
        return Places(model, stock, why, self.limits, self.exchange.lock)

    def _tokens(self) -> Tokens:
        why = f"the retry budget of {self._provider} is used up just now"
        return Tokens(self._tokens_stock, why, self.limits, self.exchange.lock)

    def _place(self, key: str, wish: Taking, who: str, epoch: float, now: float) -> Admission | Wish:
        """Go at the time that was promised, or else at the next one."""
        at, promised = self._promises.get((key, who), (0.0, -1.0))
        if promised != epoch:
            found = wish.stock.next(epoch, now)
            if found is None and now < wish.stock.full_until:
                why = f"{wish.why}; too many wait to say when this one can go"
                return self._later(f"crowd:{key}", CROWD_WAIT_S, why)
            if found is None:
                return wish
            at = found
        if at <= now:
            self._promises.pop((key, who), None)
            return self.go()
        self._promise(key, who, at, epoch, now)
        return self._back(at, f"{wish.why}; this one's turn is in {at - now:.0f} s")

    def _promise(self, key: str, who: str, at: float, epoch: float, now: float) -> None:
        if len(self._promises) >= self._promises_max:
            alive = {one: known for one, known in self._promises.items() if known[0] > now - CROWD_WAIT_S}
            self._promises, self._promises_max = alive, max(PROMISES, 2 * len(alive))
        self._promises[key, who] = (at, epoch)

    # Answers -------------------------------------------------------------------------------

    def named(self, model: str) -> str:
        """The model's full name; the provider's for none."""
        return f"{self._provider}:{model}" if model else self._provider

    def go(self) -> Admission:
        """A call may be made; where that is by this process's knowledge alone, it says so."""
        trouble = self.exchange.trouble
        return Admission(True, reason=f"by what this process knows: {trouble}" if trouble else "")

    def _later(self, key: str, least_s: float, why: str) -> Admission:
        now = self.exchange.now()
        return self._back(now + least_s * (1 + 2 * self._fraction(key, 0.0)), why)

    def _back(self, at: float, why: str) -> Admission:
        exchange = self.exchange
        alone = f" (as far as this process knows: {exchange.trouble})" if exchange.trouble else ""
        return Admission(False, at - exchange.ahead_s, why + alone)

    def _spread(self, key: str, at: float, width_s: float) -> float:
        """``at`` for the first who asks, for the others evenly spread behind it."""
        return at + width_s * self._fraction(key, at)

    def _fraction(self, key: str, at: float) -> float:
        known, n = self._turns.get(key, (at, 0))
        n = n if known == at else 0
        self._turns[key] = (at, n + 1)
        return n * GOLDEN % 1.0
