"""What a store's history says of a recovery: counts of what worked, and similar cases (floor 4).

Counts are kept in the store's shared cells, so that all processes share them and they outlive the texts they
came from. A kind of fault has one cell for all its steps, and for its contexts (chain label, step, model) a
fixed number of cells that contexts share: a ranking reads two cells in one round trip, at a thousand outcomes
as at a million. A process that dies between an outcome and its count loses the count: evidence, not
bookkeeping. Similar cases are a hint beside the counts, and never hold a recovery up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from sifaka.errors import StorageError
from sifaka.log.records import Recovery
from sifaka.recovery.actions import RecoveryAction, action_key
from sifaka.recovery.counts import (
    CONTEXTS_MAX,
    NO_ROWS,
    Outcome,
    Rows,
    add_all,
    decode_contexts,
    decode_steps,
    elsewhere,
    encode,
    from_old,
    total,
    value_key,
)
from sifaka.recovery.knowledge import Knowledge, Similar, Tuning, similar_counts
from sifaka.recovery.ranking import Ranking, ranking
from sifaka.recovery.rules import Order, Rule, checked_rules
from sifaka.recovery.situation import Situation
from sifaka.recovery.weather import WEATHER_KINDS, decode_weather, encode_weather, provider_of
from sifaka.storage.cells import SharedCells
from sifaka.storage.similarity import Case
from sifaka.storage.similarity.guarded import GuardedSimilarity

__all__ = ["Attempt", "Evidence"]

SIMILAR_MAX = 10
"""How many similar cases are asked for."""
BUCKETS = 64
"""How many cells the contexts of one kind share."""
CONTEXT_CHARS_MAX = 200

_DEFAULT = Tuning()


class Attempt(NamedTuple):
    """A recovery action, the fault it was for, and whether it worked.

    ``depth`` is how many attempts at the same fault had failed before, ``cost_usd`` and ``seconds`` what this
    one took, its wait left out.
    """

    seq: int
    recovery: Recovery
    text: str
    model: str
    success: bool
    label: str = ""
    depth: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0


class Evidence:
    """The evidence of one store: ranks with it, and learns from outcomes. Raises nothing for the store.

    Where counts or similar cases cannot be read, the ranking goes on with what is left and says so. ``rules``
    and ``order`` are the user's own.
    """

    def __init__(
        self,
        cells: SharedCells,
        search: GuardedSimilarity | None = None,
        *,
        rules: Sequence[Rule] = (),
        order: Order | None = None,
        tuning: Tuning = _DEFAULT,
    ) -> None:
        self._cells = cells
        self._search = search
        self._rules = checked_rules(rules)
        self._order = order
        self._tuning = tuning

    def rank(self, at: Situation) -> list[RecoveryAction]:
        """The actions that may help, best first, by counts, similar cases and prior."""
        return self.ranking(at).actions

    def ranking(self, at: Situation) -> Ranking:
        """As :meth:`rank`, with what is not offered and why."""
        found = ranking(at, self.knowledge(at), self._rules)
        if self._order is None:
            return found
        return found._replace(actions=list(self._order(at, tuple(found.actions))))

    def knowledge(self, at: Situation) -> Knowledge:
        """What is known of actions in this situation."""
        now = self._cells.storage.clock.time()
        note, here, steps = "", NO_ROWS, dict[str, Rows]()
        kind, context = at.fault.kind, _context(at.position.operation, at.asked_model, at.label)
        provider = provider_of(at.asked_model)
        names = [_kind_cell(kind), _context_cell(kind, context), _old_cell(kind), _weather_cell(provider)]
        storm = False
        try:
            wide, near, old, weather = self._cells.read(names)
            storm = self._is_storm(kind, weather, now, len(at.tried))
            steps = _steps_of(wide, old, now)
            here = decode_contexts(near).get(context, NO_ROWS) if near else NO_ROWS
        except (StorageError, msgspec.MsgspecError) as error:
            note = f"the history cannot be read: {error}"
        similar, missing = self._similar(at, now)
        notes = "; ".join(one for one in (note, missing) if one)
        return Knowledge(here, steps, similar, at.position.operation, now, notes, storm, self._tuning)

    def _similar(self, at: Situation, now: float) -> tuple[dict[str, Similar], str]:
        if self._search is None or not self._tuning.similar_max:
            return {}, ""
        fault = at.fault
        case = Case(
            case_id="",
            chain_id=at.chain_id,
            text=fault.message,
            kind=fault.kind,
            step=at.position.operation,
            iteration=at.position.iteration,
            part=at.part,
            model=at.asked_model,
        )
        found = self._search.nearest(case, SIMILAR_MAX)
        return similar_counts(found.matches, now, self._tuning), found.note

    # Learning ------------------------------------------------------------------------------

    def learn(self, chain_id: str, attempts: Iterable[Attempt]) -> str:
        """Count what came of these attempts; what could not be stored, in a sentence, or ""."""
        notes: list[str] = []
        now = self._cells.storage.clock.time()
        for attempt in attempts:
            try:
                self._count(attempt, now)
            except (StorageError, msgspec.MsgspecError) as error:
                notes.append(str(error))
            if self._search is not None and attempt.recovery.counts:
                notes.append(self._search.add([_case(chain_id, attempt, now)]))
        return "; ".join(note for note in dict.fromkeys(notes) if note)

    def _count(self, attempt: Attempt, now: float) -> None:
        recovery, tuning = attempt.recovery, self._tuning
        kind, half_life_s = recovery.error_kind or "other", tuning.half_life_s
        storm = self._see_weather(kind, provider_of(attempt.model), attempt.depth, now)
        outcome = _outcome(attempt, now, storm=storm)
        context = _context(recovery.operation, attempt.model, attempt.label)
        (old,) = self._cells.read([_old_cell(kind)])
        news = [outcome]

        def in_context(value: bytes) -> bytes:
            contexts = decode_contexts(value) if value else {}
            rows = contexts.get(context, NO_ROWS)
            news[0] = elsewhere(outcome, rows, half_life_s)
            counted = add_all(rows, [outcome], half_life_s, tuning.memory_here)
            return encode(_with_room({**contexts, context: counted}, context))

        def at_step(value: bytes) -> bytes:
            steps = _steps_of(value, old, now)
            rows = steps.get(recovery.operation, NO_ROWS)
            steps[recovery.operation] = add_all(rows, news, half_life_s, tuning.memory_wide)
            return encode(steps)

        self._cells.change(_context_cell(kind, context), in_context)
        self._cells.change(_kind_cell(kind), at_step)

    def _see_weather(self, kind: str, provider: str, depth: int, now: float) -> bool:
        """Whether the provider has a bad hour; the fault counts for who comes next."""
        cell = _weather_cell(provider)
        if kind not in WEATHER_KINDS:
            return False
        (value,) = self._cells.read([cell])
        storm = self._is_storm(kind, value, now, depth)
        if not depth:
            self._cells.change(cell, lambda value: encode_weather(decode_weather(value).plus(now)))
        return storm

    def _is_storm(self, kind: str, weather: bytes, now: float, own: int) -> bool:
        if kind not in WEATHER_KINDS or not self._tuning.weather:
            return False
        return decode_weather(weather).is_bad(now, min(own, 1))


def _outcome(attempt: Attempt, now: float, *, storm: bool) -> Outcome:
    recovery = attempt.recovery
    stated = bool(recovery.waits_for) or not recovery.counts
    return Outcome(
        action_key(recovery.strategy, recovery.parameters, stated_wait=stated),
        attempt.success,
        now,
        attempt.depth,
        storm,
        value_key(recovery.parameters),
        attempt.cost_usd,
        attempt.seconds,
    )


def _steps_of(value: bytes, old: bytes, now: float) -> dict[str, Rows]:
    """The counts of all steps; as an earlier version left them, where this one has counted nothing yet."""
    if value:
        return decode_steps(value)
    return from_old(old, now) if old else {}


def _with_room(contexts: dict[str, Rows], kept: str) -> dict[str, Rows]:
    """At most so many contexts: the one that was counted in least lately goes."""
    while len(contexts) > CONTEXTS_MAX:
        others = (name for name in contexts if name != kept)
        del contexts[min(others, key=lambda name: _last_used(contexts[name]))]
    return contexts


def _last_used(rows: Rows) -> float:
    return max((total(depths).at for depths in rows.values()), default=0.0)


def _context(step: str, model: str, label: str) -> str:
    return f"{step}|{model}|{label}"[:CONTEXT_CHARS_MAX]


def _context_cell(kind: str, context: str) -> str:
    return f"{_kind_cell(kind)}/{crc32(context.encode('utf-8', 'replace')) % BUCKETS:02x}"


def _kind_cell(kind: str) -> str:
    return f"evidence/2/{kind or 'other'}"


def _weather_cell(provider: str) -> str:
    return f"evidence/2/weather/{provider[:CONTEXT_CHARS_MAX]}"


def _old_cell(kind: str) -> str:
    """Where version 0.1 counted, by step and strategy alone."""
    return f"evidence/{kind or 'other'}"


def _case(chain_id: str, attempt: Attempt, now: float) -> Case:
    recovery = attempt.recovery
    return Case(
        case_id=f"{chain_id}:{attempt.seq}",
        chain_id=chain_id,
        text=attempt.text,
        kind=recovery.error_kind,
        step=recovery.operation,
        iteration=recovery.iteration,
        part=recovery.part,
        model=attempt.model,
        action=recovery.strategy,
        parameters=recovery.parameters,
        success=attempt.success,
        at=now,
    )
