"""What is seen while a run goes on: a growing page in a terminal, plain lines elsewhere (floor 9)."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from sifaka.cli.pages import Moments, moment_line
from sifaka.cli.screen import shown
from sifaka.views import Timeline, brief

__all__ = ["Follower", "follower"]

FRAMES_PER_S = 10
ROOM = 8
"""Lines of a terminal that the moments leave for the rest."""


class Follower(Protocol):
    """Shows a run as it stands whenever it is called, and what its watcher does about it."""

    def __call__(self, timeline: Timeline) -> None:
        """Show the run."""
        ...

    def announce(self, says: str) -> None:
        """Show what the watcher does, until the run itself goes on."""
        ...


@contextmanager
def follower(console: Console) -> Generator[Follower]:
    """A function that shows a run as it stands now, to be called whenever one looks at it."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as screen:
        yield _Page(console, screen)


class _Lines:
    """Each moment as a line, once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0

    def __call__(self, timeline: Timeline) -> None:
        for moment in timeline.moments[self._shown :]:
            self._console.print(Text(moment_line(moment, timeline.began_at)), soft_wrap=True)
        self._shown = len(timeline.moments)

    def announce(self, says: str) -> None:
        """A line of its own."""
        self._console.print(Text(f"{'':18}{says}"), soft_wrap=True)


class _Page:
    """The moments so far, the call in flight, and how far the run is."""

    def __init__(self, console: Console, screen: Live) -> None:
        self._console = console
        self._screen = screen
        self._spinner = Spinner("dots", style="yellow")
        self._drawn_at = 0.0
        self._news = "the first process starts"
        self._news_at = time.time()

    def announce(self, says: str) -> None:
        """What is being done, until a call is in flight that began later."""
        self._news, self._news_at = says, time.time()

    def __call__(self, timeline: Timeline) -> None:
        now = time.monotonic()
        if now - self._drawn_at < 1 / FRAMES_PER_S:
            return
        self._drawn_at = now
        moments = brief(timeline.moments)
        rest = max(0, len(moments) - (self._console.height - ROOM))
        shown_now = Moments(moments[rest:], timeline.began_at, rest=rest)
        self._screen.update(Group(shown_now, Text(), self._progress(timeline)), refresh=True)

    def _progress(self, timeline: Timeline) -> Table:
        doing, since = self._news, self._news_at
        if timeline.calls and timeline.calls[-1].at > since:
            call = timeline.calls[-1]
            doing, since = call.says, call.at
        self._spinner.update(text=shown(doing))
        table = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=timeline.steps_max, completed=timeline.steps_done, width=30)
        table.add_row(bar, self._spinner, Text(f"{max(0.0, time.time() - since):.1f} s", "dim"))
        return table
