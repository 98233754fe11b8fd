"""The tables, and the file they are kept in."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.recovery.change import WINDOW, catching_up, return_interval
from bench.recovery.figures import draw_regret, draw_reliability
from bench.recovery.policies import ABLATIONS, CONTESTANTS, ORACLE, OURS, SIMILAR
from bench.recovery.scores import Interval, brier, ece, interval_of_median, noise_of_ece, pooled_interval
from bench.recovery.season import Figures, Season

__all__ = ["report"]

FOLDER = Path(__file__).parent.parent / "out"


def report(seasons: Sequence[Season], episodes: int) -> str:
    """All tables as text. Figures and numbers go to ``bench/out``."""
    FOLDER.mkdir(exist_ok=True)
    by_name: dict[str, list[Figures]] = {}
    for season in seasons:
        for one in season.figures:
            by_name.setdefault(one.name, []).append(one)
    names = [one.name for one in CONTESTANTS]
    ablated = [OURS, *(one.name for one in ABLATIONS if one.name in by_name)]
    block = min(1_000, episodes // 3)
    lines = [
        f"{len(seasons)} seeds of {episodes:,} episodes; medians over seeds with 95 % intervals",
        "excess cost over the oracle: money, seconds and lost results",
        "",
        *_costs(by_name, names, block),
        "",
        "Calibration (skips left out: they always work)",
        *_calibration(by_name, [OURS, "flat Beta", "constants"]),
        "",
        f"After a change: excess by faults since then, {WINDOW} at a time (all seeds together)",
        *_changes(by_name, [OURS, "flat Beta", *ablated[1:]]),
        "",
        *(_ablations(by_name, ablated, block) if len(ablated) > 1 else ()),
        *_similar(by_name, block),
    ]
    files = _draw(by_name, names)
    kept = FOLDER / f"recovery-{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime())}.json"
    kept.write_text(json.dumps(_numbers(by_name, seasons, episodes), indent=1))
    lines += ["", "kept in: " + ", ".join(str(one.name) for one in [*files, kept])]
    return "\n".join(lines)


def _ablations(by_name: dict[str, list[Figures]], names: Sequence[str], block: int) -> list[str]:
    return ["What each idea is worth", *_costs(by_name, names, block), *_calibration(by_name, names)]


def _similar(by_name: dict[str, list[Figures]], block: int) -> list[str]:
    """With and without similar cases, on the seeds that were played with them."""
    played = by_name.get(SIMILAR.name)
    if not played:
        return []
    both = {SIMILAR.name: played, "without, same seeds": by_name[OURS][: len(played)]}
    head = ["", f"Similar cases, {len(played)} seeds"]
    return [*head, *_costs(both, list(both), block), *_calibration(both, list(both))]


def _costs(by_name: dict[str, list[Figures]], names: Sequence[str], block: int) -> list[str]:
    head = (
        f"{'':26}{f'first {block:,}':>25}{f'last {block:,}':>25}{'first, expected':>25}{'last, expected':>25}"
    )
    lines = [head + f"{'money+time':>12}{'done':>7}{'ms/run':>8}"]
    for name in names:
        seeds = by_name[name]
        cells = [
            _percent(interval_of_median([figure(one) for one in seeds]))
            for figure in (_first, _last, _expected_first, _expected_last)
        ]
        paid = interval_of_median([one.paid for one in seeds]).value
        done = interval_of_median([one.done for one in seeds]).value
        ms = sum(one.cpu_s for one in seeds) / len(seeds) / (STEP * (len(seeds[0].regret) - 1)) * 1e3
        row = f"{name:26}" + "".join(f"{cell:>25}" for cell in cells)
        lines.append(row + f"{paid:>+12.1%}{done:>7.1%}{ms:>8.2f}")
    return lines


STEP = 50


def _first(one: Figures) -> float:
    return one.first


def _last(one: Figures) -> float:
    return one.last


def _expected_first(one: Figures) -> float:
    return one.expected_first


def _expected_last(one: Figures) -> float:
    return one.expected_last


def _percent(one: Interval) -> str:
    return f"{one.value:.1%} ({one.low:.1%}..{one.high:.1%})"


def _calibration(by_name: dict[str, list[Figures]], names: Sequence[str]) -> list[str]:
    lines = [
        f"{'':26}{'ECE':>24}{'by chance':>10}{'Brier':>8}{'ECE, unseen contexts':>26}{'by chance':>10}{'forecasts':>11}"
    ]
    for name in names:
        seeds = by_name[name]
        overall = interval_of_median([ece(one.pairs) for one in seeds])
        chance = interval_of_median([noise_of_ece(one.pairs, 4) for one in seeds]).value
        score = interval_of_median([brier(one.pairs) for one in seeds]).value
        unseen = [one.unseen for one in seeds]
        new = pooled_interval(unseen, ece)
        noise = noise_of_ece([pair for one in unseen for pair in one])
        count = sum(len(one.pairs) for one in seeds)
        lines.append(
            f"{name:26}{_plain(overall):>24}{chance:>10.3f}{score:>8.3f}{_plain(new):>26}{noise:>10.3f}{count:>11,}"
        )
    return lines


def _plain(one: Interval) -> str:
    return f"{one.value:.3f} ({one.low:.3f}..{one.high:.3f})"


def _changes(by_name: dict[str, list[Figures]], names: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for name in names:
        seeds = by_name[name]
        contexts = [context for one in seeds for context in one.after_change]
        before = [pair for one in seeds for pair in one.before_change]
        usual = sum(regret for regret, _ in before) / max(1e-9, sum(value for _, value in before))
        shares = " ".join(f"{one:>6.1%}" for one in catching_up(contexts))
        back = return_interval([one.after_change for one in seeds])
        lines.append(
            f"{name:26}before {usual:>6.1%} | {shares} | within 10 %: after {_faults(back.value)}"
            f" ({_faults(back.low)}..{_faults(back.high)}) faults"
        )
    return lines


def _faults(number: float) -> str:
    return "never" if number == float("inf") else f"{number:.0f}"


def _draw(by_name: dict[str, list[Figures]], names: Sequence[str]) -> list[Path]:
    shown = {
        name: [pair for one in by_name[name] for pair in one.pairs]
        for name in (OURS, "constants", "flat Beta")
    }
    curves = {name: [one.regret for one in by_name[name]] for name in names if name != ORACLE}
    return [*draw_reliability(shown, FOLDER), *draw_regret(curves, FOLDER)]


def _numbers(by_name: dict[str, list[Figures]], seasons: Sequence[Season], episodes: int) -> dict[str, Any]:
    figures: dict[str, Callable[[Figures], float]] = {
        "first": _first,
        "last": _last,
        "expected_first": _expected_first,
        "expected_last": _expected_last,
        "overall": lambda one: one.overall,
        "paid": lambda one: one.paid,
        "done": lambda one: one.done,
        "ece": lambda one: ece(one.pairs),
        "ece_with_skips": lambda one: ece(one.pairs_with_skips),
        "brier": lambda one: brier(one.pairs),
        "cpu_s": lambda one: one.cpu_s,
    }
    return {
        "python": platform.python_version(),
        "seeds": [season.seed for season in seasons],
        "episodes": episodes,
        "policies": {
            name: {figure: [read(one) for one in seeds] for figure, read in figures.items()}
            | {"trace": [one.trace for one in seeds]}
            for name, seeds in by_name.items()
        },
    }
