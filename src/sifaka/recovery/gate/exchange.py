"""What one process knows of a provider, and how it exchanges that with the others (floor 4).

Successes are gathered and handed in about once a second, failures at once unless one was just handed in; who
comes while an exchange is under way leaves it to that one. Reading is free while what was read is younger
than a second. A store that fails is left alone for some seconds: meanwhile what this process knows counts.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from sifaka.clock import Clock
from sifaka.errors import DataError, SifakaError, StorageError
from sifaka.locks import ProcessLock
from sifaka.recovery.gate.shared import ProviderLimits, Settings, Tally, decoded, encoded, merged, rejoined
from sifaka.storage.cells import SharedCells

__all__ = ["Exchange", "ExchangeSettings", "Wish"]

_FAILURES = (StorageError, DataError)


class Wish(Protocol):
    """A change that one process alone may make: a probe is claimed, places or tokens are taken."""

    def is_open(self) -> bool:
        """Whether it is still wanted."""
        ...

    def change(self, known: ProviderLimits, now: float) -> ProviderLimits:
        """The change, at a time of the store's clock. Only the last one that is asked for counts."""
        ...

    def settle(self) -> None:
        """It has been made."""
        ...


class ExchangeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often, in seconds: what was read is good for ``stale_s``, successes wait for ``merge_s`` at most.

    Failures wait for ``failures_s``; a store that failed is left alone for ``away_s``.
    """

    stale_s: float = 1.0
    merge_s: float = 1.0
    failures_s: float = 0.1
    away_s: float = 5.0


class Exchange:
    """One provider's limits as this process knows them. Safe between threads; raises nothing of the store's.

    ``view`` is what is known, with all that this process has seen itself; ``trouble`` says why the store
    could not be asked the last time, or "". Times in ``view`` are the store's (:meth:`now`).
    """

    def __init__(
        self, cell: str, cells: SharedCells, clock: Clock, limits: Settings, often: ExchangeSettings
    ) -> None:
        self.view = ProviderLimits()
        self.trouble = ""
        self.ahead_s = 0.0
        """How much the store's clock is ahead of this process's."""
        self.lock = ProcessLock()
        self._cell = cell
        self._cells = cells
        self._clock = clock
        self._limits = limits
        self._often = often
        self._turn = ProcessLock()
        self._unsent: dict[str, Tally] = {}
        self._unseen: dict[str, Tally] = {}
        self._fresh_until = self._told_at = self._away_until = float("-inf")
        self._urgent = False

    def now(self) -> float:
        """The store's clock, in unix seconds, without asking it."""
        return self._clock.time() + self.ahead_s

    @property
    def fresh_until(self) -> float:
        """How long the view needs no reading, by the monotonic clock; also while the store is left alone."""
        return max(self._fresh_until, self._away_until)

    # What this process sees ----------------------------------------------------------------

    def saw(self, model: str, tally: Tally, *, weighty: bool) -> bool:
        """Add what was seen. True where the others should be told now, by :meth:`tell`.

        A plain success (not ``weighty``) changes nothing that is decided, and is only counted.
        """
        with self.lock:
            for tallies in (self._unsent, self._unseen):
                tallies[model] = tallies.get(model, Tally()).plus(tally)
            before = self.view.model(model)
            if weighty or before.breaker.streak:
                self._see()
            after = self.view.model(model)
            moved = (before.breaker.until, before.pace.start) != (after.breaker.until, after.pace.start)
            if moved or tally.probes:
                self._urgent = True
            wait_s = self._often.failures_s if weighty or before.breaker.streak else self._often.merge_s
            monotonic = self._clock.monotonic()
            return monotonic >= self._away_until and (self._urgent or monotonic >= self._told_at + wait_s)

    def _see(self) -> None:
        """Bring what was counted into the view."""
        unseen, self._unseen = self._unseen, {}
        self.view = self._with(self.view, unseen, self.now())

    def _with(self, known: ProviderLimits, tallies: dict[str, Tally], now: float) -> ProviderLimits:
        for model, tally in tallies.items():
            known = merged(known, model, tally, now, self._limits)
        return known

    # Exchanging ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """See to it that the view is no more than about a second old.

        Who comes while another thread is at it goes on with what is known, once anything is.
        """
        known = self._fresh_until > 0 or bool(self.trouble)
        if self._clock.monotonic() < self.fresh_until or not self._turn.take(wait=not known):
            return
        try:
            if self._clock.monotonic() < self.fresh_until:
                return
            if self._unsent or self.trouble:
                self._exchange(None)
            else:
                self._read()
        finally:
            self._turn.give_back()

    def tell(self) -> None:
        """Hand in what was seen, unless another thread is at it: that one goes on until nothing is urgent."""
        while self._clock.monotonic() >= self._away_until and self._turn.take(wait=False):
            try:
                if self._unsent:
                    self._exchange(None)
            finally:
                self._turn.give_back()
            if not self._urgent:
                return

    def grant(self, wish: Wish) -> None:
        """Make a change that has to be agreed on; while the store is away, it is made in the view alone."""
        with self._turn:
            if not wish.is_open():
                return  # while this thread waited another one has seen to it
            if self._clock.monotonic() < self._away_until:
                self._alone(wish)
            else:
                self._exchange(wish)
            wish.settle()
        if self._urgent:
            self.tell()

    def _read(self) -> None:
        try:
            self._set_clock()
            (value,) = self._cells.read([self._cell])
        except _FAILURES as error:
            self._leave_alone(error)
        else:
            self._adopt(value)

    def _exchange(self, wish: Wish | None) -> None:
        with self.lock:
            self._see()
            sent, self._unsent = self._unsent, {}
            self._urgent = False
            own = self.view if self.trouble else None

        def altered(value: bytes) -> bytes:
            known, now = decoded(value), self.now()
            if own is not None:
                known = rejoined(known, own)
            known = self._with(known, sent, now)
            return encoded(known if wish is None else wish.change(known, now))

        try:
            self._set_clock()
            value = self._cells.change(self._cell, altered)
        except _FAILURES as error:
            self._leave_alone(error)
            if wish is not None:
                self._alone(wish)
        else:
            self._told_at = self._clock.monotonic()
            self._adopt(value)

    def _set_clock(self) -> None:
        self.ahead_s = round(self._cells.storage.now() - self._clock.time(), 3)

    def _adopt(self, value: bytes) -> None:
        with self.lock:
            self._fresh_until = self._clock.monotonic() + self._often.stale_s
            self._unseen = {}
            self.trouble = ""
            self.view = self._with(decoded(value), self._unsent, self.now())

    def _alone(self, wish: Wish) -> None:
        with self.lock:
            self._see()
            self.view = wish.change(self.view, self.now())

    def _leave_alone(self, error: SifakaError) -> None:
        """What was to be handed in stays in the view; by the time the store is back it is old."""
        with self.lock:
            self.trouble = str(error) or type(error).__name__
            self._away_until = self._clock.monotonic() + self._often.away_s
