"""Whole processes from start to a goal: an import done, a first durable commit made."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

BARE = "pass"


def import_s(statement: str, folder: Path) -> float:
    """Seconds of a whole process that does this one thing and ends."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], cwd=folder, check=True)
    return time.perf_counter() - begun


def first_commit_s(script: str, folder: Path) -> float:
    """Seconds from before the process exists until it says that its first commit is durable."""
    begun = time.monotonic_ns()
    said = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return (int(said.split()[-1]) - begun) / 1e9
