"""A library that stands between a process and its files, and does to its calls what a test says (floor 8).

``library()`` compiles ``shim.c``. A ``Shim`` watches one folder: start any process (python, redis-server,
postgres) with ``shim.environment()`` added to its environment, then arm the shim, read its counts or have
it record a trace, from this process or any other, while that process runs. Linux only.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from enum import IntEnum, IntFlag
from functools import cache
from pathlib import Path
from weakref import finalize

__all__ = ["ALL_OPS", "ENTRY", "FOREVER", "Mode", "Op", "Shim", "library"]

SOURCE = Path(__file__).with_name("shim.c")
FOREVER = 2**64 - 1
ENTRY = struct.Struct("<IHBxIIq")
"""What stands before path and data in a trace: total length, path length, op, process, data length, offset."""


class Mode(IntEnum):
    """What is done to the calls that count."""

    OFF = 0
    COUNT = 1
    KILL_BEFORE = 2
    KILL_AFTER = 3
    KILL_HALFWAY = 4
    """As KILL_BEFORE, but of a write the first half is made."""
    FAIL = 5


class Op(IntFlag):
    """The kinds of call."""

    OPEN = 1
    WRITE = 2
    TRUNCATE = 4
    SYNC = 8
    RENAME = 16
    UNLINK = 32
    CLOSE = 64
    ALLOCATE = 128
    READ = 256


ALL_OPS = Op.OPEN | Op.WRITE | Op.TRUNCATE | Op.SYNC | Op.RENAME | Op.UNLINK | Op.ALLOCATE
"""What changes files: everything but reading and closing."""

_FIELDS = (
    "mode",
    "first",
    "last",
    "ops",
    "error",
    "cut",
    "also",
    "tracing",
    "count",
    "hits",
    "kind",
)
_AT = {name: 8 * place for place, name in enumerate(_FIELDS)}
_U64 = struct.Struct("<Q")


@cache
def library() -> Path:
    """The compiled library, one a process. Fails with what to install where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError(
            "these tests need a C compiler: install gcc (on Debian: apt install build-essential)"
        )
    folder = tempfile.mkdtemp(prefix="sifaka-shim-")
    finalize(library, shutil.rmtree, folder, ignore_errors=True)
    target = Path(folder, "shim.so")
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(target), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{SOURCE} does not compile: {done.stderr}")
    return target


class Shim:
    """One watched folder. ``scratch`` holds the control file and the trace, and is outside of it."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = folder.resolve()
        self.control = scratch / "control"
        self.trace = scratch / "trace"
        if not self.control.exists():
            self.control.write_bytes(bytes(4096))
            self.trace.touch()
        with self.control.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 4096)
        self._marks = os.open(self.trace, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._close = finalize(self, os.close, self._marks)

    @classmethod
    def inherited(cls) -> Shim:
        """The shim that this process was started below."""
        return cls(Path(os.environ["SIFAKA_SHIM_FOLDER"]), Path(os.environ["SIFAKA_SHIM_CONTROL"]).parent)

    def environment(self) -> dict[str, str]:
        """What the watched process's environment must hold from its start."""
        if sys.platform != "linux":
            raise RuntimeError("LD_PRELOAD is Linux's")
        return {
            "LD_PRELOAD": str(library()),
            "SIFAKA_SHIM_FOLDER": str(self.folder),
            "SIFAKA_SHIM_CONTROL": str(self.control),
            "SIFAKA_SHIM_TRACE": str(self.trace),
        }

    def get(self, field: str) -> int:
        """A field of the control page: ``count``, ``hits``, …"""
        return int(_U64.unpack_from(self._page, _AT[field])[0])

    def set(self, field: str, value: int) -> None:
        """Set one field; it counts from the next call on."""
        _U64.pack_into(self._page, _AT[field], value)

    def arm(
        self,
        mode: Mode,
        first: int = 1,
        last: int | None = None,
        *,
        ops: Op = ALL_OPS,
        error: int = errno.EIO,
        cut: bool = False,
        also: int = 0,
    ) -> None:
        """Count calls of the kinds ``ops`` from now on, and hit number ``first`` to ``last`` (None: only it).

        ``error`` is what a failing call fails with (a sync always with EIO; 0: none fails), ``cut`` makes
        half of the first write that is hit, and lets it succeed; ``also`` is a process killed beside.
        """
        self.disarm()
        values = {
            "first": first,
            "last": first if last is None else last,
            "ops": int(ops),
            "error": error,
            "cut": int(cut),
            "also": also,
            "count": 0,
            "hits": 0,
        }
        for field, value in values.items():
            self.set(field, value)
        self.set("mode", mode)

    def disarm(self) -> None:
        """Let every call through; the counts stay readable."""
        self.set("mode", Mode.OFF)

    def tracing(self, on: bool) -> None:
        """Record calls, or stop recording them."""
        self.set("tracing", int(on))

    def mark(self, text: str) -> None:
        """Put a marker into the trace, as what an acknowledgement leaves: any process may."""
        name = text.encode()
        os.write(
            self._marks, ENTRY.pack(ENTRY.size + len(name), len(name), ord("M"), os.getpid(), 0, 0) + name
        )

    def clear(self) -> None:
        """Empty the trace."""
        os.truncate(self.trace, 0)
