"""Similar cases for who cannot wait: an answer within a bound, or a note why there is none (floor 3).

Recovery asks for similar cases in the middle of a fault, when a server that is down must cost little and
break nothing. So no call here raises or lasts; after a failure the store is left alone for a while, and what
was to be stored waits its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any, NamedTuple

from sifaka.clock import Clock, SystemClock
from sifaka.errors import SifakaError
from sifaka.faults import redact
from sifaka.locks import ProcessLock
from sifaka.storage.similarity import Case, Match, Similarity, SimilarityError, storable

__all__ = ["Found", "GuardedSimilarity"]

OVERDUE_MAX = 3
"""Calls that have not come back; with so many, no further one is made."""
TRIES_MAX = 3
"""How often a working store may refuse a case before it is given up."""


class Found(NamedTuple):
    """What was found, best first; ``note`` says in a sentence what was wrong, and is empty otherwise."""

    matches: list[Match]
    note: str


class GuardedSimilarity:
    """A similarity whose failures are notes. It may be shared between threads.

    A call takes at most ``limit_s`` seconds; it blocks so long, so an event loop calls it in a thread.
    After a failure nothing is asked for ``pause_s`` seconds by ``clock``, then one call tries again. Up to
    ``waiting_max`` cases wait to be stored in memory; ``dropped`` counts those given up, the oldest first.
    """

    def __init__(
        self,
        similarity: Similarity,
        *,
        clock: Clock | None = None,
        limit_s: float = 2.5,
        pause_s: float = 30.0,
        waiting_max: int = 1_000,
    ) -> None:
        self.similarity = similarity
        self.limit_s = limit_s
        self.pause_s = pause_s
        self.waiting_max = waiting_max
        self.dropped = 0
        self._clock = clock or SystemClock()
        self._lock = ProcessLock()
        self._waiting: dict[str, Case] = {}
        self._tries: dict[str, int] = {}
        self._overdue: list[Thread] = []
        self._paused_until = 0.0
        self._why = ""

    @property
    def waiting(self) -> int:
        """How many cases wait to be stored."""
        return len(self._waiting)

    def nearest(self, case: Case, limit: int = 10) -> Found:
        """The most similar cases, after those that waited were stored. Never raises."""
        lies = self.similarity.lies
        found, note = self._bounded(lambda: self._flush_and_look(case, limit))
        if found is None:
            return Found([], note)
        lies = self.similarity.lies - lies
        return Found(found, f"similar cases: {lies} could not be true and were left out" if lies > 0 else "")

    def add(self, cases: Iterable[Case]) -> str:
        """Store the cases, or keep them waiting; why they wait, or "". Never raises for the store."""
        for case in cases:
            self._queue(case)
        _, note = self._bounded(self._flush)
        return note

    def forget(self, chain_ids: Iterable[str]) -> None:
        """Remove the cases of these runs, waiting ones too.

        Raises SimilarityError: who cleans up has to know what is still there.
        """
        gone = set(chain_ids)
        with self._lock:
            for case_id in [id_ for id_, case in self._waiting.items() if case.chain_id in gone]:
                self._remove(case_id)
        self.similarity.forget(sorted(gone))

    def close(self) -> None:
        """Close the store; cases that wait are lost with the process."""
        self.similarity.close()

    # Waiting cases -------------------------------------------------------------------------

    def _queue(self, case: Case) -> None:
        try:
            case = storable(case)
        except SimilarityError:  # it could never be stored
            self.dropped += 1
            return
        with self._lock:
            self._remove(case.case_id)
            self._waiting[case.case_id] = case
            if len(self._waiting) > self.waiting_max:
                self._remove(next(iter(self._waiting)))
                self.dropped += 1

    def _remove(self, case_id: str) -> None:
        self._waiting.pop(case_id, None)
        self._tries.pop(case_id, None)

    def _flush(self) -> None:
        with self._lock:
            cases = list(self._waiting.values())
        if cases:
            self.similarity.keep(cases)
        with self._lock:
            for case in cases:
                if self._waiting.get(case.case_id) is case:  # not replaced meanwhile
                    self._remove(case.case_id)

    def _flush_and_look(self, case: Case, limit: int) -> list[Match]:
        """Look even where what waits cannot be stored: it may be at fault, and not the store."""
        refused: list[str] = []
        try:
            self._flush()
        except SimilarityError:
            refused = list(self._waiting)
        found = self.similarity.nearest(case, limit)
        with self._lock:
            for case_id in refused:
                self._count_refusal(case_id)
        return found

    def _count_refusal(self, case_id: str) -> None:
        self._tries[case_id] = self._tries.get(case_id, 0) + 1
        if self._tries[case_id] >= TRIES_MAX:
            self._remove(case_id)
            self.dropped += 1

    # Bounds --------------------------------------------------------------------------------

    def _bounded(self, work: Callable[[], Any]) -> tuple[Any, str]:
        """What ``work`` gives and "", or None and why there is nothing."""
        if not self._may_try():
            return None, self._why
        call = _Call(work)
        call.start()
        call.join(self.limit_s)
        if call.is_alive():
            with self._lock:
                self._overdue.append(call)
            return None, self._pause(f"no answer within {self.limit_s:g} s")
        if call.error is not None:
            return None, self._pause(_told(call.error))
        with self._lock:
            self._paused_until, self._why = 0.0, ""
        return call.result, ""

    def _may_try(self) -> bool:
        """Not within a pause; the first that comes after one tries, while the pause goes on for others."""
        with self._lock:
            self._overdue = [call for call in self._overdue if call.is_alive()]
            if not self._why:
                return True
            if self._clock.monotonic() < self._paused_until or len(self._overdue) >= OVERDUE_MAX:
                return False
            self._paused_until = self._clock.monotonic() + self.pause_s
            return True

    def _pause(self, why: str) -> str:
        with self._lock:
            self._paused_until = self._clock.monotonic() + self.pause_s
            self._why = f"similar cases are not available: {why}"
            return self._why


class _Call(Thread):
    """One call in a thread of its own, since a call that hangs cannot be ended from outside."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="sifaka-similarity", daemon=True)
        self._work = work
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Do the work; any failure of it is the caller's note."""
        try:
            self.result = self._work()
        except Exception as error:  # noqa: BLE001 - a recovery must not fail on a suggestion
            self.error = error


def _told(error: Exception) -> str:
    """An error in one line: ours as they are, others by their class alone."""
    return redact(str(error).partition("\n")[0]) if isinstance(error, SifakaError) else type(error).__name__
