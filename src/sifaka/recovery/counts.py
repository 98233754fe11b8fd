"""Outcomes counted by context, discounted by age: what one shared cell holds, as pure values (floor 4).

A row is one action in one context after so many failures at the same fault. Its counts lose half of their
weight in :data:`HALF_LIFE_S`, each row by itself and only with time: a row nobody adds to must not be
forgotten faster because others are busy. And no row remembers more than so many outcomes, so that a context
whose behaviour changes is learned anew within some tens of faults, however long it was otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sifaka.recovery.posterior import DEPTHS, Count

__all__ = [
    "CONTEXTS_MAX",
    "HALF_LIFE_S",
    "NO_ROWS",
    "Outcome",
    "Row",
    "Rows",
    "add_all",
    "count_of",
    "decode_contexts",
    "decode_steps",
    "elsewhere",
    "encode",
    "from_old",
    "total",
    "value_key",
]

HALF_LIFE_S = 7 * 86_400.0
"""A week: models, prompts and quotas change by the week; a provider's bad hour is over in hours."""
MEMORY_HERE = 20.0
"""How many outcomes a row of the nearest context remembers at most."""
MEMORY_WIDE = 400.0
"""How many a row of the broader contexts does: they change only as many contexts do."""
VALUES_MAX = 8
"""How many different values of an action's parameters are counted apart."""
CONTEXTS_MAX = 64
"""How many contexts one cell holds; the one that was used least lately makes room."""


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One action's outcomes after so many failures.

    ``tried``, ``worked``, ``cost_usd`` and ``seconds`` are sums discounted up to ``at`` (unix seconds);
    ``tried_ever`` and ``worked_ever`` are plain counts, for people. ``values`` counts by what was set;
    ``worked_usd`` and ``worked_s`` are what those that worked took of the sums.
    """

    tried: float = 0.0
    worked: float = 0.0
    at: float = 0.0
    tried_ever: int = 0
    worked_ever: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    values: dict[str, tuple[float, float]] = {}
    worked_usd: float = 0.0
    worked_s: float = 0.0

    def now(self, now: float, half_life_s: float) -> Row:
        """The row as it is worth at ``now``."""
        keep = 0.5 ** (max(0.0, now - self.at) / half_life_s) if self.tried else 1.0
        return self._scaled(keep, max(now, self.at))

    def _scaled(self, keep: float, at: float) -> Row:
        if keep >= 1:
            return msgspec.structs.replace(self, at=at)
        return Row(
            self.tried * keep,
            self.worked * keep,
            at,
            self.tried_ever,
            self.worked_ever,
            self.cost_usd * keep,
            self.seconds * keep,
            {value: (tried * keep, worked * keep) for value, (tried, worked) in self.values.items()},
            self.worked_usd * keep,
            self.worked_s * keep,
        )

    def plus(self, one: Outcome, half_life_s: float, memory: float) -> Row:
        """The row with one more outcome."""
        row = self.now(one.at, half_life_s)
        row = Row(
            row.tried + one.weight,
            row.worked + one.weight * one.success,
            row.at,
            row.tried_ever + 1,
            row.worked_ever + one.success,
            row.cost_usd + one.weight * one.cost_usd,
            row.seconds + one.weight * one.seconds,
            _counted(row.values, one) if one.value else row.values,
            row.worked_usd + one.weight * one.cost_usd * one.success,
            row.worked_s + one.weight * one.seconds * one.success,
        )
        return row._scaled(memory / row.tried, row.at) if row.tried > memory else row


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What came of one action, by its key; ``depth`` is how many failed before it at the same fault.

    ``storm`` says that its provider had a bad hour. ``weight`` is less than 1 where it repeats what its
    context has shown before.
    """

    action: str
    success: bool
    at: float
    depth: int = 0
    storm: bool = False
    value: str = ""
    cost_usd: float = 0.0
    seconds: float = 0.0
    weight: float = 1.0

    @property
    def column(self) -> int:
        """Its place among its action's rows."""
        return min(self.depth, DEPTHS - 1) + DEPTHS * self.storm


Rows = dict[str, tuple[Row, ...]]
"""Action to its rows: by how many failures came before it, in good hours; then the same in bad ones."""
NO_ROWS: Rows = {}

_steps = msgspec.msgpack.Decoder(dict[str, Rows])
_old = msgspec.msgpack.Decoder(dict[str, dict[str, tuple[int, int]]])
_encoder = msgspec.msgpack.Encoder()

decode_steps = _steps.decode
"""Operation (or context) to rows. Raises ``msgspec.DecodeError``."""
decode_contexts = _steps.decode


def encode(tables: Mapping[str, Rows]) -> bytes:
    """The rows as bytes."""
    return _encoder.encode(tables)


def from_old(value: bytes, now: float) -> dict[str, Rows]:
    """Counts as version 0.1 kept them: by operation and strategy (tried, worked), of unknown age."""
    return {
        step: {
            action: (
                Row(
                    min(tried, MEMORY_WIDE),
                    worked * min(1.0, MEMORY_WIDE / max(tried, 1)),
                    now,
                    tried,
                    worked,
                ),
            )
            for action, (tried, worked) in rows.items()
        }
        for step, rows in _old.decode(value).items()
    }


def add_all(rows: Rows, outcomes: Iterable[Outcome], half_life_s: float, memory: float) -> Rows:
    """The rows with these outcomes added."""
    found = dict(rows)
    for one in outcomes:
        columns = list(found.get(one.action, ()))
        columns += [Row()] * (one.column + 1 - len(columns))
        columns[one.column] = columns[one.column].plus(one, half_life_s, memory)
        found[one.action] = tuple(columns)
    return found


def elsewhere(one: Outcome, here: Rows, half_life_s: float) -> Outcome:
    """The outcome as broader contexts count it, after those that its own has shown before."""
    columns = here.get(one.action, ())
    tried = columns[one.column].now(one.at, half_life_s).tried if one.column < len(columns) else 0.0
    worth = Count(tried + 1).worth_elsewhere.tried - Count(tried).worth_elsewhere.tried
    return msgspec.structs.replace(one, value="", weight=worth)


def count_of(rows: Rows, action: str, now: float, half_life_s: float) -> list[Count]:
    """An action's discounted counts, by how many failures came before, in good hours and in bad ones."""
    found = [row.now(now, half_life_s) for row in rows.get(action, ())]
    counts = [Count(row.tried, row.worked) for row in found]
    return counts + [Count()] * (2 * DEPTHS - len(counts))


def total(rows: Iterable[Row]) -> Row:
    """Rows as one: what does not depend on how many failures came before."""
    found = list(rows)
    return Row(
        sum(row.tried for row in found),
        sum(row.worked for row in found),
        max((row.at for row in found), default=0.0),
        sum(row.tried_ever for row in found),
        sum(row.worked_ever for row in found),
        sum(row.cost_usd for row in found),
        sum(row.seconds for row in found),
        {},
        sum(row.worked_usd for row in found),
        sum(row.worked_s for row in found),
    )


def _counted(values: Mapping[str, tuple[float, float]], one: Outcome) -> dict[str, tuple[float, float]]:
    tried, worked = values.get(one.value, (0.0, 0.0))
    found = {**values, one.value: (tried + 1, worked + one.success)}
    if len(found) > VALUES_MAX:
        least = min((name for name in found if name != one.value), key=lambda name: found[name][0])
        del found[least]
    return found


def value_key(parameters: Mapping[str, Any]) -> str:
    """What was set, as a key to count by: numbers to two digits, so that near values are one."""
    if not parameters:
        return ""
    rounded = {name: _rounded(value) for name, value in sorted(parameters.items())}
    key = msgspec.json.encode(rounded).decode()
    return key if len(key) <= 200 else ""


def _rounded(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return type(value)(float(f"{value:.2g}"))
