"""The verb ``demo``: three lives of one run, what is seen of them, and one screen at the end (floor 9)."""

from __future__ import annotations

import os
import random
import tempfile
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import Console, Group, RenderableType
from rich.text import Text

from sifaka.cli.demo.follow import follower
from sifaka.cli.demo.picture import draw
from sifaka.cli.demo.watch import Reaper, Site, live
from sifaka.cli.demo.writer import CHAIN_ID, MODEL
from sifaka.cli.exits import FAILED, FINE, INTERRUPTED
from sifaka.cli.pages import Fact, run_page
from sifaka.cli.screen import console_for, put, shown, typed
from sifaka.cli.show import look
from sifaka.errors import UsageError
from sifaka.models.base import create_model
from sifaka.views import RunSummary, Timeline
from sifaka.views.words import count

__all__ = ["Account", "demo", "last_page", "verb"]

EXAMPLES = """\
Examples:
  sifaka demo
  sifaka demo --seed 7
  sifaka demo --svg demo.svg
"""

verb = App(name="demo", help_format="plaintext", help_epilogue=EXAMPLES)


class Account(msgspec.Struct, frozen=True):
    """Calls of the model, as the demo counts them itself, outside the log.

    ``killed`` says which call the first life died in; it is empty where it ended before.
    ``made`` are in its ledger; ``answered`` and ``doubtful`` are what the log says; ``again`` were made when
    the finished run was run once more; ``same`` says that it returned the same text.
    """

    killed: str
    made: int
    answered: int
    doubtful: int
    again: int
    same: bool


@verb.default
def demo(
    *,
    seed: int | None = None,
    svg: Annotated[str | None, Parameter(name="--svg")] = None,
) -> int:
    """Write a text on a real local model, be killed half-way, and resume.

    A child process writes about AI ethics from five documents. It is killed with SIGKILL at a moment drawn by
    lot, while a call is in flight; a second one goes on from the log. Nothing is scripted.

    Args:
        seed: Draw by this number. When it dies still depends on how fast the machine is.
        svg: Write the last screen to this file, too, as a picture.
    """
    create_model(MODEL)  # what is missing is said before anything is made
    if svg is not None and not os.access(os.path.dirname(svg) or ".", os.W_OK):
        raise UsageError(f"--svg {svg}: there is no folder of that name that can be written to")
    console = console_for()
    site = Site(tempfile.mkdtemp(prefix="sifaka-demo-"), seed)
    console.print(Text.assemble("The run is kept in ", shown(site.folder, "bold")), soft_wrap=True)
    try:
        account = _lives(site, console)
    except KeyboardInterrupt:
        console.print(_after_interrupt(site), soft_wrap=True)
        return INTERRUPTED
    timeline, summary = look(site.url, CHAIN_ID)
    page = last_page(timeline, summary, account)
    put(console, page)
    console.print(_again_command(site), soft_wrap=True)
    if svg is not None:
        draw(Group(page, _again_command(site)), svg)
    return FINE if summary.status == "done" else FAILED


def _lives(site: Site, console: Console) -> Account:
    """A life to be killed, a second that resumes, a third that finds the run done."""
    chance = random.SystemRandom() if site.seed is None else random.Random(site.seed)  # noqa: S311 - a lot
    reaper, third = Reaper(chance), None
    with follower(console) as follow:
        live(site, 1, follow, reaper)
        killed = site.story.timeline().status == "running"
        if killed:
            follow.announce("killed with SIGKILL; a second process starts")
            live(site, 2, follow)
        made, summary = site.calls_made(), site.story.summary()
        if summary.status == "done":
            follow.announce("run once more: is there anything left to pay?")
            third = live(site, 3, follow)
    return Account(
        killed=reaper.says if killed else "",
        made=made,
        answered=summary.totals.model_calls,
        doubtful=sum(bool(doubt.model) for doubt in summary.doubts),
        again=site.calls_made() - made,
        same=third is not None and third.text == summary.text,
    )


def last_page(timeline: Timeline, summary: RunSummary, account: Account) -> RenderableType:
    """The last screen: the run as anybody can look at it, and what the demo saw for itself."""
    return run_page(timeline, summary, first=[_death_fact(account)], more=_ledger_facts(account))


def _death_fact(account: Account) -> Fact:
    if account.killed:
        return "Killed", [shown(f"with SIGKILL, {account.killed}")]
    early = "the run was over before it could be killed: it had one life, and nothing was resumed"
    return "Killed", [Text(early, "yellow")]


def _ledger_facts(account: Account) -> list[Fact]:
    """What the demo counted for itself, beside what the log says."""
    found: list[Fact] = [("Ledger", [_ledger(account)])]
    if account.same:
        again = Text(f"run a third time: {count(account.again, 'call')}, the same text")
        found.append(("Once more", [again]))
    return found


def _ledger(account: Account) -> Text:
    """The calls that were made against those that the log tells of."""
    told = account.answered + account.doubtful
    text = Text(
        f"the model was called {count(account.made, 'time')}; the log has "
        f"{count(account.answered, 'answer')} and {count(account.doubtful, 'call')} in doubt: "
    )
    if account.made > told:
        return text.append(f"{account.made - told} unaccounted for", "bold red")
    unsent = told - account.made
    return text.append(f"it adds up ({unsent} in doubt was never sent)" if unsent else "it adds up", "green")


def _again_command(site: Site) -> Text:
    command = typed("show", CHAIN_ID, "--store", site.url)
    return Text.assemble("\nLook again: ", shown(command, "bold"))


def _after_interrupt(site: Site) -> Text:
    said = "\nInterrupted. The writing process is gone; what it had recorded is kept."
    return Text.assemble(said, _again_command(site))
