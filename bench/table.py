"""The printed table: a line for each row, a column for each contestant, the bar and whether it is met.

Rows of one group may have columns of their own (stores, modes, codecs instead of contestants); a table's
header is printed again where its columns change.
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

COLUMNS = ("floor", "langgraph sync", "langgraph delta", "langgraph exit", "dbos", "sifaka")
_LABEL = 47
_CELL = 16
_NONE = "—"


class Bar(NamedTuple):
    """At most ``limit``: of the row's unit, or of the floor when ``of_floor``."""

    limit: float
    of_floor: bool = False

    def to_text(self, unit: str) -> str:
        return f"<= {self.limit:g} {'x floor' if self.of_floor else unit}".rstrip()


class Row:
    """One line: per contestant the values seen (already in ``unit``) and, per round, the ratio to the floor.

    ``judged`` are the columns that the bar is for: it is met where all of them meet it.
    """

    def __init__(
        self,
        key: str,
        label: str,
        unit: str,
        bar: Bar | None = None,
        *,
        columns: tuple[str, ...] = COLUMNS,
        judged: tuple[str, ...] = ("sifaka",),
    ) -> None:
        self.key = key
        self.label = label
        self.unit = unit
        self.bar = bar
        self.columns = columns
        self.judged = judged
        self.values: dict[str, list[float]] = {}
        self.ratios: dict[str, list[float]] = {}
        self.notes: dict[str, str] = {}

    def add_round(self, seen: dict[str, float | None], floor: str | None = "floor") -> None:
        """What one round saw; None is left out. Ratios are taken within the round."""
        known = {name: value for name, value in seen.items() if value is not None}
        for name, value in known.items():
            self.values.setdefault(name, []).append(value)
            if floor in known and known[floor] > 0:
                self.ratios.setdefault(name, []).append(value / known[floor])

    def value(self, name: str) -> float | None:
        return median(self.values[name]) if name in self.values else None

    def ratio(self, name: str) -> float | None:
        return median(self.ratios[name]) if name in self.ratios else None

    def verdict(self, name: str) -> bool | None:
        """Whether ``name`` meets the bar; None without a bar or a value."""
        if self.bar is None:
            return None
        seen = self.ratio(name) if self.bar.of_floor else self.value(name)
        return None if seen is None else seen <= self.bar.limit

    def is_met(self) -> bool | None:
        """Whether all who are judged meet the bar; None where nobody is, or was measured."""
        verdicts = [self.verdict(name) for name in self.judged]
        known = [verdict for verdict in verdicts if verdict is not None]
        return all(known) if known else None

    def to_dict(self) -> dict[str, object]:
        return {
            "label": self.label,
            "unit": self.unit,
            "bar": self.bar and self.bar._asdict(),
            "contestants": {
                name: {
                    "median": self.value(name),
                    "ratio_to_floor": self.ratio(name),
                    "values": values,
                    "ratios": self.ratios.get(name, []),
                    "note": self.notes.get(name, ""),
                }
                for name, values in self.values.items()
            },
            "judged": self.judged,
            "meets_bar": self.is_met(),
        }

    def to_line(self) -> str:
        cells = "".join(self._cell(name).rjust(_CELL) for name in self.columns)
        label = f"{self.label}, {self.unit}" if self.unit else self.label
        met = {True: "met", False: "MISSED", None: _NONE}[self.is_met()]
        bar = f"   {self.bar.to_text(self.unit)}: {met}" if self.bar else ""
        return f"{label:<{_LABEL}}{cells}{bar}"

    def _cell(self, name: str) -> str:
        value = self.value(name)
        if value is None:
            return self.notes.get(name, _NONE)
        ratio = self.ratio(name) if name != "floor" else None
        text = (number(value) if self.unit else f"{value:,.0f}") + (
            f" {ratio:.2f}x" if ratio is not None else ""
        )
        note = self.notes.get(name)
        return f"{text} {note}" if note else text


def number(value: float) -> str:
    """Three figures or more, with thousands marked."""
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}"


def header(columns: tuple[str, ...], *, barred: bool) -> str:
    titles = "".join(name.rjust(_CELL) for name in columns)
    line = f"{'':<{_LABEL}}{titles}" + "   bar for sifaka" * barred
    return f"{line}\n{'-' * len(line)}"
