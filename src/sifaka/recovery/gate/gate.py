"""The gate that every call to a provider passes: may it be made now, and if not, when (floor 4).

One for a store. Behind it are a circuit breaker for each provider and model, stated waits as a common floor,
and a retry budget for each provider, shared by all processes through one cell a provider. It makes calls wait
and never fails a run; without the store it goes on with what this process knows, and says so.
"""

from __future__ import annotations

import os

import msgspec

from sifaka.clock import Clock
from sifaka.faults import Fault
from sifaka.locks import ProcessLock
from sifaka.recovery.gate.breaker import BreakerSettings, Probed, outcome
from sifaka.recovery.gate.desk import Admission, Desk
from sifaka.recovery.gate.exchange import Exchange, ExchangeSettings
from sifaka.recovery.gate.pace import PaceSettings
from sifaka.recovery.gate.retries import RetrySettings
from sifaka.recovery.gate.shared import Settings, Tally
from sifaka.storage.cells import SharedCells

__all__ = ["CELLS", "Admission", "Gate", "GateSettings"]

CELLS = "limits/"
"""What the names of these cells begin with; the provider follows."""


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All numbers of the shared limits. Processes that share a store should use the same."""

    breaker: BreakerSettings = BreakerSettings()
    pace: PaceSettings = PaceSettings()
    retries: RetrySettings = RetrySettings()
    exchange: ExchangeSettings = ExchangeSettings()


class Gate:
    """The limits of one store's processes, as one of them sees them. Safe between threads.

    ``model`` is ``"provider:name"`` everywhere, ``who`` a name for the caller that is stable while it waits
    (a run and its part, say). Nothing is raised for a store that fails.
    """

    def __init__(self, cells: SharedCells, clock: Clock, *, settings: GateSettings | None = None) -> None:
        self._cells = cells
        self._clock = clock
        self._settings = settings or GateSettings()
        self._desks: dict[str, Desk] = {}
        self._quiet: dict[str, tuple[float, Admission]] = {}
        self._monotonic = clock.monotonic
        self._lock = ProcessLock()

    def peek(self, model: str) -> Admission | None:
        """The answer for a first call by what is remembered, without asking the store; None: ``admit`` must.

        For a retry, always ask ``admit``.
        """
        known = self._quiet.get(model)
        if known is not None and self._monotonic() < known[0]:
            return known[1]
        provider, _, name = model.partition(":")
        desk = self._desks.get(provider)
        if desk is None or self._monotonic() >= desk.exchange.fresh_until:
            return None
        with desk.exchange.lock:
            return self._note_quiet(model, desk, name) or desk.glance(name)

    def admit(self, model: str, *, retry: bool, who: str) -> Admission:
        """Whether a call may be made now. It may ask the store: a few round trips, once a second or so.

        Who may go reports what came of it; who may not asks again at ``until``, under the same name.
        """
        desk, name = self._desk(model)
        found = desk.admit(name, who, retry=retry)
        with desk.exchange.lock:
            self._note_quiet(model, desk, name)
        return found

    def report(self, model: str, fault: Fault | None, *, who: str) -> None:
        """What came of one call; None: it was answered. It may ask the store, as ``admit``."""
        if self.note(model, fault, who=who):
            self.sync(model)

    def note(self, model: str, fault: Fault | None, *, who: str) -> bool:
        """As ``report``, without asking the store. True where :meth:`sync` should follow, from any thread."""
        desk, name = self._desk(model)
        found, probe = outcome(fault), desk.probe_of(name, who)
        failed = found == "failed"
        wait_until = self._stated(desk, fault)
        tally = Tally(
            calls=1,
            answered=int(found == "answered"),
            failed=int(failed),
            since_answer=int(failed),
            wait_until=wait_until,
            probes=(Probed(probe, found),) if probe else (),
        )
        due = desk.exchange.saw(name, tally, weighty=failed or bool(wait_until or probe))
        if fault is not None or probe:
            with desk.exchange.lock:
                self._note_quiet(model, desk, name)
        return due

    def withdraw(self, model: str, *, who: str) -> bool:
        """The call that was admitted is not made after all: if it was the probe, another one may make it.

        As :meth:`note`, without asking the store. True where :meth:`sync` should follow.
        """
        desk, name = self._desk(model)
        probe = desk.probe_of(name, who)
        if probe is None:
            return False
        return desk.exchange.saw(name, Tally(probes=(Probed(probe, "neutral"),)), weighty=True)

    def sync(self, model: str) -> None:
        """Tell the other processes what was noted."""
        self._desk(model)[0].exchange.tell()

    def trouble(self, model: str) -> str:
        """Why the store could not be asked about this model's provider the last time, or ""."""
        return self._desk(model)[0].exchange.trouble

    def _stated(self, desk: Desk, fault: Fault | None) -> float:
        """When the wait that the provider states ends, by the store's clock; 0: nothing to obey."""
        if fault is None or not fault.transient or not fault.retry_after_s:
            return 0.0
        if fault.retry_after_s > self._settings.pace.wait_max_s:
            return 0.0
        return desk.exchange.now() + fault.retry_after_s

    def _note_quiet(self, model: str, desk: Desk, name: str) -> Admission | None:
        """Remember whether every first call may go, for as long as that need not be asked again."""
        found = desk.go() if desk.is_quiet(name) else None
        if found is None:
            self._quiet.pop(model, None)
        else:
            self._quiet[model] = (desk.exchange.fresh_until, found)
        return found

    def _desk(self, model: str) -> tuple[Desk, str]:
        provider, _, name = model.partition(":")
        desk = self._desks.get(provider)
        if desk is None:
            with self._lock:
                desk = self._desks.get(provider) or self._open(provider)
        return desk, name

    def _open(self, provider: str) -> Desk:
        settings = self._settings
        limits = Settings(settings.breaker, settings.pace, settings.retries)
        exchange = Exchange(CELLS + provider, self._cells, self._clock, limits, settings.exchange)
        self._desks[provider] = Desk(provider, exchange, limits, os.urandom(6).hex())
        return self._desks[provider]
