"""Who owns a run: the identity of an owner, and whether it is provably dead (floor 3).

An identity names machine boot, process namespace, process id and that process's start time, so that a
recycled process id, a reboot or another container is never taken for the owner.
"""

from __future__ import annotations

import os
from functools import lru_cache

import msgspec

__all__ = ["LEASE_S", "Owner", "decode", "is_dead", "myself"]

_LINUX = os.path.isdir("/proc/self")
LEASE_S = 60.0
"""How long a lease lasts unless it is renewed, in seconds; it is renewed at a third of that."""


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """An owner. ``boot`` and ``namespace`` are empty where the system does not tell them.

    ``claim`` tells one claim of a process from its others.
    """

    host: str
    pid: int
    started: str
    boot: str
    namespace: str
    claim: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def myself(claim: str = "") -> bytes:
    """This process's identity, encoded."""
    me = _identity(os.getpid())
    return msgspec.msgpack.encode(msgspec.structs.replace(me, claim=claim) if claim else me)


@lru_cache(maxsize=1)
def _identity(pid: int) -> Owner:
    return Owner(os.uname().nodename, pid, _started(pid) or "", _boot(), _namespace())


def is_dead(owner: bytes) -> bool:
    """True when the owner certainly is no more; False whenever that cannot be known.

    Certain is: the same machine and namespace, and another boot, no such process, or a process that
    started at another time.
    """
    them = decode(owner)
    me = _identity(os.getpid())
    if them.host != me.host or not them.boot or them.namespace != me.namespace:
        return False
    if them.boot != me.boot:
        return True
    started = _started(them.pid)
    return started is None or them.started not in {"", started}


def decode(owner: bytes) -> Owner:
    """The identity that :func:`myself` encoded; of one that is damaged nothing is known."""
    try:
        return msgspec.msgpack.decode(owner, type=Owner)
    except (msgspec.DecodeError, ValueError):
        return Owner("(unknown)", 0, "", "", "")


def _started(pid: int) -> str | None:
    """When a process started, in a form that only has to be equal to itself; None: no such process.

    A zombie has no one who could write any more: it counts as gone.
    """
    if _LINUX:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    return _ask(["ps", "-o", "lstart=", "-p", str(pid)]) or None


@lru_cache(maxsize=1)
def _boot() -> str:
    if _LINUX:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    return _ask(["sysctl", "-n", "kern.boottime"])


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _ask(command: list[str]) -> str:
    import subprocess

    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - constant commands
    return done.stdout.strip()
