"""The command line: what a person types; it asks and shows, and decides nothing (floor 9).

Each verb is a module of its own, named in :data:`sifaka.cli.verbs.VERBS`. The libraries that draw come with
the extra ``cli``; without them :func:`main` says how to install it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_NEEDED = ("cyclopts", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; ``arguments`` are those of the process by default. Returns the exit code."""
    from importlib.util import find_spec

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"sifaka: the command line needs {' and '.join(missing)}. Install it with: "
            "pip install 'sifaka[cli]'",
            file=sys.stderr,
        )
        return 2
    from sifaka.cli.run import run

    return run(sys.argv[1:] if arguments is None else arguments)
