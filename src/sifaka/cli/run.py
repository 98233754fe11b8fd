"""From what was typed to a verb, and from its end to an exit code (floor 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from cyclopts import App, CycloptsError

import sifaka
from sifaka.cli.exits import FINE, INTERRUPTED, USAGE, code_of
from sifaka.cli.screen import console_for, say_error
from sifaka.cli.verbs import VERBS
from sifaka.errors import SifakaError

__all__ = ["EXAMPLES", "application", "run"]

EXAMPLES = """\
Examples:
  sifaka demo
  sifaka show my-run --store sqlite:///runs.db
  sifaka show --help
"""


def application() -> App:
    """The command line as a whole; verbs are imported when they are called."""
    app = App(
        name="sifaka",
        help="Chains of language model calls that survive their own death.",
        help_format="plaintext",
        help_epilogue=EXAMPLES,
        version=f"sifaka {sifaka.__version__}",
        version_format="plaintext",
        console=console_for(),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for verb in VERBS:
        app.command(verb.home, name=verb.name, help=verb.help)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; what goes wrong is said on standard error."""
    try:
        return cast("int | None", application()(list(arguments))) or FINE
    except CycloptsError as error:
        say_error(f"{error}\nTry: sifaka --help")
        return USAGE
    except SifakaError as error:
        say_error(str(error))
        return code_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED
