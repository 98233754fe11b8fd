"""``sifaka show``: one run, as its log tells it (floor 9)."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from sifaka.cli.exits import FINE
from sifaka.cli.pages import run_page
from sifaka.cli.screen import console_for, put
from sifaka.errors import UnknownChainError, UsageError
from sifaka.storage.urls import open_storage
from sifaka.views import RunSummary, Timeline, story_of

__all__ = ["look", "show", "verb"]

EXAMPLES = """\
Examples:
  sifaka show my-run --store sqlite:///runs.db
  SIFAKA_STORE=sqlite:////var/lib/runs.db sifaka show my-run --full
"""

verb = App(name="show", help_format="plaintext", help_epilogue=EXAMPLES)

Flag = Annotated[bool, Parameter(negative="")]
"""A switch that is off unless it is given."""
Store = Annotated[str, Parameter(env_var="SIFAKA_STORE")]
"""A store's address, as every verb takes it."""


@verb.default
def show(chain_id: str, /, *, store: Store | None = None, full: Flag = False) -> int:
    """Show one run: what happened, what it cost, what failed and why.

    Args:
        chain_id: The run's id.
        store: The store's address, such as sqlite:///runs.db, or the variable SIFAKA_STORE.
        full: Every record that people can read, and the whole text.
    """
    if store is None:
        raise UsageError("which store? --store sqlite:///runs.db, or set SIFAKA_STORE once for all commands")
    timeline, summary = look(store, chain_id)
    put(console_for(), run_page(timeline, summary, full=full))
    return FINE


def look(url: str, chain_id: str) -> tuple[Timeline, RunSummary]:
    """A run's views; nothing is created. Raises StoreUnreachableError, UnknownChainError, DataError."""
    store = open_storage(url, create=False)
    entry = store.get_chain(chain_id)
    if entry is None:
        raise UnknownChainError(chain_id)
    story = story_of(store.records(chain_id))
    return story.timeline(), story.summary(entry.status)
