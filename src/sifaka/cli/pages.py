"""A run as a page for the terminal: layout and colour of the view models, nothing more (floor 9)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from sifaka.cli.screen import WIDTH, safe, shown
from sifaka.views import Moment, RunSummary, Timeline, brief
from sifaka.views.words import count, iteration_name, paid_says, usd

__all__ = ["Cut", "Moments", "facts", "heading", "moment_line", "run_page", "summary_facts", "text_facts"]

Fact = tuple[str, Sequence[RenderableType]]
"""A label, and the lines beside it."""

_FIXED_COLUMNS = 4
"""Columns of the timeline before those of numbers."""
TEXT_LINES = 4
"""How much of a run's text a page shows."""

_LIFE_STYLES = ("cyan", "magenta", "blue", "green")
_STYLES = {"ok": "green", "failed": "red", "open": "yellow", "": "blue"}
_GLYPHS = {"ok": "✓", "failed": "✗", "open": "?", "": "·"}
_KIND_GLYPHS = {"started": "▶", "resumed": "▶", "fault": "↻", "recovery": "↻", "wait": "↻", "closed": "■"}
_LABELS = {"recovery": "action", "documents": "retrieval", "closed": "end"}
_ONE_LINE = frozenset({"feedback", "reply", "documents"})
"""What quotes others at length is cut to a line; everything else is wrapped."""


class Cut:
    """A text on at most ``lines_max`` lines, wrapped; an ellipsis tells what was left out."""

    def __init__(self, text: Text, lines_max: int) -> None:
        self._text = text
        self._lines_max = lines_max

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines that fit."""
        lines = self._text.wrap(console, options.max_width)
        shortened = len(lines) > self._lines_max
        for number, line in enumerate(lines[: self._lines_max], 1):
            line.rstrip()
            if shortened and number == self._lines_max:
                line.truncate(options.max_width - 1)
                line.rstrip()
                line.append("…")
            yield line


class Barred:
    """A page with a bar at its left edge, as long as it is."""

    def __init__(self, page: RenderableType, style: str) -> None:
        self._page = page
        self._bar = Text("┃ ", style, end="")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The page's lines, each behind its piece of the bar."""
        for line in console.render_lines(self._page, options.update(width=options.max_width - 2)):
            yield self._bar
            yield from line
            yield Segment.line()


# The timeline ------------------------------------------------------------------------------


class Moments:
    """Moments, one a line, life by life; ``rest`` of earlier ones are only counted."""

    def __init__(self, moments: Sequence[Moment], began_at: float, *, rest: int = 0) -> None:
        self._moments = moments
        self._began_at = began_at
        self._rest = rest
        self._priced = any(one.paid is not None and one.paid.cost_usd for one in moments)

    def __rich__(self) -> Group:
        """A table a life, with a rule where one died."""
        rest = [Text(f"  {count(self._rest, 'earlier moment')}", "dim")] if self._rest else []
        return Group(*rest, *self._lives())

    def _lives(self) -> Iterator[RenderableType]:
        told = 0
        for (life, died), some in groupby(self._moments, lambda one: (one.life, one.kind == "death")):
            group = list(some)
            if died:
                says = shown(f"✗ {group[0].says}", "bold red")
                yield Rule(says, style="red", characters="━")
                continue
            table = self._table()
            if life != told:
                self._head(table, group[0])
                told = life
            for moment in group:
                self._row(table, moment)
            yield Barred(table, _life_style(life))

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1, 0, 0), expand=True)
        table.add_column(width=6, justify="right")
        table.add_column(width=1)
        table.add_column(width=10)
        table.add_column(ratio=1, overflow="fold")
        table.add_column(width=7, justify="right")
        table.add_column(width=6, justify="right")
        if self._priced:
            table.add_column(width=8, justify="right")
        return table

    def _head(self, table: Table, moment: Moment) -> None:
        style = _life_style(moment.life)
        at = time.strftime("%H:%M:%S", time.localtime(moment.at))
        heads = ["seconds", "tokens", "price"] if moment.life == 1 else []
        units = [Text(one, "dim") for one in heads[: len(table.columns) - _FIXED_COLUMNS]]
        table.add_row(Text(f"life {moment.life}", f"bold {style}"), "", Text(at, "dim"), "", *units)

    def _row(self, table: Table, moment: Moment) -> None:
        glyph = _KIND_GLYPHS.get(moment.kind, _GLYPHS[moment.status])
        says = shown(moment.says)
        cells: list[RenderableType] = [
            Text(f"{moment.at - self._began_at:.1f}", "dim"),
            Text(glyph, _STYLES[moment.status]),
            Text(_LABELS.get(moment.kind, moment.kind), _label_style(moment)),
            Cut(says, 1) if moment.kind in _ONE_LINE else says,
            Text(_seconds(moment), "dim"),
            Text(f"{moment.paid.tokens:,}" if moment.paid and moment.paid.tokens else "", "dim"),
        ]
        if self._priced:
            cells.append(Text(_price(moment), "dim"))
        table.add_row(*cells)


def _life_style(life: int) -> str:
    return _LIFE_STYLES[(life - 1) % len(_LIFE_STYLES)]


def _label_style(moment: Moment) -> str:
    return "bold" if moment.kind in {"text", "closed", "resumed", "started"} else ""


def _seconds(moment: Moment) -> str:
    seconds = moment.seconds
    return f"{seconds:.1f}" if seconds is not None and seconds >= 0.05 else ""


def _price(moment: Moment) -> str:
    paid = moment.paid
    if paid is None or not paid.model_calls:
        return ""
    return "unknown" if paid.unpriced_calls else usd(paid.cost_usd)


def moment_line(moment: Moment, began_at: float) -> str:
    """A moment as one plain line, for where nothing can be drawn."""
    label = _LABELS.get(moment.kind, moment.kind)
    line = f"{moment.at - began_at:6.1f} s  life {moment.life}  {label:<9}  {shown(moment.says)}"
    if moment.kind not in _ONE_LINE or len(line) <= WIDTH:
        return line
    return f"{line[: WIDTH - 3].rstrip()}..."


# The summary -------------------------------------------------------------------------------


def facts(found: Iterable[Fact]) -> Table:
    """Labels with what is to be said of them."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=9, justify="right")
    table.add_column(ratio=1, overflow="fold")
    for label, lines in found:
        table.add_row(Text(label, "bold"), Group(*lines))
    return table


def heading(timeline: Timeline, summary: RunSummary) -> Group:
    """The run's name, how it stands, and what was asked."""
    good = summary.status == "done" and summary.passed
    style = "green" if good else "red" if summary.status in {"failed", "cancelled"} else "yellow"
    title = Text.assemble(shown(summary.chain_id, "bold"), "  ", shown(summary.says, style))
    return Group(title, Cut(shown(timeline.prompt, "italic dim"), 2))


def summary_facts(summary: RunSummary) -> Iterator[Fact]:
    """What was kept, what is in doubt, what failed and why, what it cost."""
    if summary.deaths:
        yield "Kept", [shown(life.says) for life in summary.deaths]
    if summary.doubts:
        yield "In doubt", [shown(one.says) for one in summary.doubts]
    if summary.causes:
        yield "Faults", list(_causes(summary))
    yield "Paid", [shown(f"{paid_says(summary.totals)}, in {count(len(summary.lives), 'life', 'lives')}")]


def _causes(summary: RunSummary) -> Iterator[Text]:
    for cause in summary.causes:
        times = f" ({cause.times} times)" if cause.times > 1 else ""
        yield Text.assemble(shown(cause.says), Text(times, "dim"))
        for done in dict.fromkeys(cause.done):
            yield Text.assemble(Text("→ ", "yellow"), shown(done))


def text_facts(summary: RunSummary, *, full: bool = False) -> Iterator[Fact]:
    """The text the run returns, and what its validators say."""
    if not summary.text.strip():
        return
    words = count(len(summary.text.split()), "word")
    passed = Text("passed", "green") if summary.passed else Text("not passed", "red")
    if not summary.judged:
        passed = Text("not judged yet", "yellow")
    head = Text.assemble(f"{iteration_name(summary.iteration)}, {words}, ", passed)
    failed = [shown(f"; {check.says}", "red") for check in summary.checks if not check.passed]
    text = Text(safe(summary.text.strip()), "italic") if full else shown(summary.text, "italic")
    yield "Text", [Text.assemble(head, *failed), text if full else Cut(text, TEXT_LINES)]


# The page ----------------------------------------------------------------------------------


def run_page(
    timeline: Timeline,
    summary: RunSummary,
    *,
    full: bool = False,
    first: Iterable[Fact] = (),
    more: Iterable[Fact] = (),
) -> Group:
    """One run on one screen; ``full`` leaves nothing out.

    ``first`` and ``more`` are facts of the caller's own, before and after those of the log.
    """
    moments = timeline.moments if full else brief(timeline.moments)
    calls = timeline.calls if summary.status in {"running", "waiting"} else ()
    return Group(
        heading(timeline, summary),
        Text(),
        Moments([*moments, *calls], timeline.began_at),
        Text(),
        facts([*first, *summary_facts(summary), *more, *text_facts(summary, full=full)]),
    )
