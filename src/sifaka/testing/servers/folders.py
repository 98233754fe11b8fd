"""Temporary folders that a server's own user can reach and that nothing leaves behind (floor 8).

All folders of one test process lie in one, which a guard removes when that process ends, however it ends.
They lie on a real disk, not in ``/dev/shm``: there a sync costs nothing, and what tests and benchmarks say
about durability would be said about nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import stat
import subprocess
import sys
import tempfile

__all__ = ["GUARD", "is_reachable", "new_folder"]

GUARD = (sys.executable, "-I", "-S", os.path.join(os.path.dirname(__file__), "guard.py"))


def new_folder(name: str) -> str:
    """A fresh folder, readable by its owner alone; it is removed when this process ends."""
    return tempfile.mkdtemp(prefix=f"{name}-", dir=_root(os.getpid()))


def is_reachable(folder: str) -> bool:
    """Whether any user may pass through ``folder`` and all folders above it."""
    folder = os.path.realpath(folder)
    may_pass = bool(os.stat(folder).st_mode & stat.S_IXOTH)
    return may_pass and (folder == os.sep or is_reachable(os.path.dirname(folder)))


@functools.cache
def _root(_pid: int) -> str:
    # By process: a forked child must not use a folder that goes when its parent does.
    place = tempfile.gettempdir()
    root = tempfile.mkdtemp(prefix="sifaka-servers-", dir=place if is_reachable(place) else "/tmp")  # noqa: S108 - mkdtemp's name cannot be foreseen
    os.chmod(root, 0o711)  # noqa: S103 - others, as the user postgres, may pass through and see nothing
    janitor = subprocess.Popen(  # noqa: S603 - the kit's own file
        [*GUARD, json.dumps({"remove": root})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert janitor.stdout is not None  # noqa: S101 - for the type checkers: it was asked for
    janitor.stdout.readline()
    janitor.stdout.close()
    atexit.register(_leave, janitor, os.getpid())
    return root


def _leave(janitor: subprocess.Popen[bytes], owner: int) -> None:
    # It is told, and not only left alone: a forked copy of this process may hold its input open.
    if os.getpid() == owner:
        with contextlib.suppress(BrokenPipeError):
            janitor.communicate(b"leave")
