"""The two figures, each as PNG and SVG: how far forecasts can be believed, and how regret grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from bench.recovery.scores import Pair, bins_of
from bench.recovery.season import STRIDE

__all__ = ["draw_regret", "draw_reliability"]

FORMATS = ("png", "svg")
COLOURS = ("#1b6ca8", "#c0392b", "#7f8c8d", "#8e44ad", "#d68910", "#148f77")


def draw_reliability(shown: Mapping[str, Sequence[Pair]], folder: Path) -> list[Path]:
    """Foretold against come true, in ten bins of equal mass, for each of the policies shown."""
    figure, axes = _begin("foretold", "came true")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    for colour, (name, pairs) in zip(COLOURS, shown.items(), strict=False):
        bins = bins_of(pairs)
        axes.plot(
            [one.confidence for one in bins], [one.worked for one in bins], "o-", color=colour, label=name
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    return _save(figure, axes, folder / "recovery-reliability")


def draw_regret(curves: Mapping[str, Sequence[Sequence[float]]], folder: Path) -> list[Path]:
    """What choices have cost beyond the oracle's so far: the median over the seeds."""
    figure, axes = _begin("faults met", "regret so far, US dollars (log scale)")
    for colour, (name, seeds) in zip(COLOURS, curves.items(), strict=False):
        middle = [median(points) for points in zip(*seeds, strict=True)]
        axes.plot([n * STRIDE for n in range(1, len(middle))], middle[1:], color=colour, label=name)
    axes.set_xlim(left=0)
    axes.set_yscale("log")  # some cost twenty times as much as others
    return _save(figure, axes, folder / "recovery-regret")


def _begin(x: str, y: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure, axes, path: Path) -> list[Path]:
    axes.legend(frameon=False)
    made: list[Path] = []
    for form in FORMATS:
        file = path.with_suffix(f".{form}")
        figure.savefig(file, dpi=150, metadata={"Date": None} if form == "svg" else None)
        made.append(file)
    return made
