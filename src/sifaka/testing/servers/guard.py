"""The parent of one server, which outlives neither the server nor the process it works for (floor 8).

Run by its path as a process of its own, with the standard library alone. It starts the server, prints the
server's process id, and then waits for whichever comes first: a line on its standard input (the number of a
signal for the server), the end of that input, the end of the process that started it, or the end of the
server. When it leaves, every process below it is dead.

Why a process between: a death signal (``PR_SET_PDEATHSIG``) tells of the end of the *thread* that forked, so
a server started from a short-lived test thread would die with that thread; and it is not passed on to a
server's own children. This process has one thread while it forks, so there the death signal means what it
says; it adopts what its server leaves behind (``PR_SET_CHILD_SUBREAPER``); and it watches its own parent by
a process handle, which, unlike the end of a pipe, a forked copy of the parent cannot hold open.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

_PDEATHSIG, _SUBREAPER = 1, 36
_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000
_LINUX = sys.platform == "linux"
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Do what the JSON in the first argument says; see ``Server._spec`` and ``folders``."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    if "remove" in spec:
        _say(os.getpid())
        _watch(None)
        _remove(spec["remove"])
        return
    if _LINUX:
        _LIBC.prctl(_SUBREAPER, 1, 0, 0, 0)
    listener = _enclose(spec["port"], spec["folder"]) if spec["inside"] else None
    server = _start(spec)
    if listener is not None:
        threading.Thread(target=_accept, args=(listener, spec["inside"]), daemon=True).start()
    _say(server.pid)
    _watch(server)
    server.kill()
    server.wait()
    _end_all()
    _free_shared_memory(server.pid)


def _say(pid: int) -> None:
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()


def _start(spec: dict[str, Any]) -> subprocess.Popen[bytes]:
    guard = os.getpid()

    def die_with_guard() -> None:
        # After the change of user, which would clear it.
        if _LINUX:
            _LIBC.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != guard:
                os._exit(1)

    return subprocess.Popen(  # noqa: S603 - the command is the kit's own
        spec["command"],
        env=spec["env"],
        cwd=spec["folder"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=sys.stderr,
        preexec_fn=die_with_guard,  # noqa: PLW1509 - this process has one thread
        user=spec["user"],
        group=spec["group"],
        extra_groups=None if spec["user"] is None else [],
    )


def _watch(server: subprocess.Popen[bytes] | None) -> None:
    """Return when the parent or the server is gone, or the parent closed our input."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, _noted)
    with selectors.DefaultSelector() as waiting:
        waiting.register(wake, selectors.EVENT_READ)
        waiting.register(0, selectors.EVENT_READ)
        for handle in _parent_handle():
            waiting.register(handle, selectors.EVENT_READ)
        while server is None or server.poll() is None:
            ready = {key.fd for key, _ in waiting.select()}
            if wake in ready:
                os.read(wake, 4096)
            elif 0 not in ready or not _obey(server):
                return


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: that there is a handler has the number written to the wake-up pipe."""


def _parent_handle() -> list[int]:
    if sys.platform != "linux":
        return []
    parent = os.getppid()
    try:
        handle = os.pidfd_open(parent)
    except ProcessLookupError:
        sys.exit(1)
    if os.getppid() != parent:
        sys.exit(1)
    return [handle]


def _obey(server: subprocess.Popen[bytes] | None) -> bool:
    """Pass the signals named on our input on to the server; False when we are to leave."""
    said = os.read(0, 4096)
    if server is None:
        return False
    for number in said.split():
        server.send_signal(int(number))
    return bool(said)


def _end_all() -> None:
    """Kill what the server left behind until there is no child any more, so a restart meets none."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.002)


def _free_shared_memory(creator: int) -> None:
    """Remove what a killed Postgres leaves in the kernel: System V shared memory outlives all processes."""
    with contextlib.suppress(FileNotFoundError), open("/proc/sysvipc/shm", encoding="utf-8") as file:
        names = next(file).split()
        for line in file:
            segment = dict(zip(names, map(int, line.split()), strict=False))
            if (segment["cpid"], segment["nattch"]) == (creator, 0):
                _LIBC.shmctl(segment["shmid"], 0, None)  # 0: IPC_RMID


def _children() -> list[int]:
    me = os.getpid()
    return (
        [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and parent_of(int(pid)) == me]
        if _LINUX
        else []
    )


def parent_of(pid: int) -> int | None:
    """The parent of a process by the kernel's own table (Linux), or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _remove(folder: str) -> None:
    # The servers are ending at this very moment; until they have, files may come back.
    end = time.monotonic() + 10
    while os.path.exists(folder) and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def _enclose(port: int, folder: str) -> socket.socket:
    """Listen on loopback outside, then move into an empty network that only this process leads into.

    Its /tmp and /run become its own too: a fixed name there would join servers that should not meet.
    """
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    uid, gid = os.geteuid(), os.getegid()
    if _LIBC.unshare(_NEWNET | _NEWNS) != 0:  # without the right to it: as the root of a namespace of our own
        _demand(_LIBC.unshare(_NEWUSER | _NEWNET | _NEWNS))
        for name, text in ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"):
            with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
                file.write(text)
    _raise_loopback()
    _empty_places(folder)
    return listener


def _demand(returned: int) -> None:
    if returned != 0:
        sys.exit(f"no namespace for the server can be made here: {os.strerror(ctypes.get_errno())}")


def _raise_loopback() -> None:
    set_flags, up = 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
        fcntl.ioctl(inside, set_flags, struct.pack("16sH14x", b"lo", up))


def _empty_places(folder: str) -> None:
    bind, all_below, private = 0x1000, 0x4000, 0x40000
    _demand(_LIBC.mount(None, b"/", None, all_below | private, None))
    kept = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for place in b"/tmp", b"/run":
        _demand(_LIBC.mount(b"tmpfs", place, b"tmpfs", 0, b"mode=0700"))
    if not os.path.exists(folder):  # it was in one of them
        os.makedirs(folder)
        _demand(_LIBC.mount(b"/proc/self/fd/%d" % kept, folder.encode(), None, bind, None))
    os.close(kept)


def _accept(listener: socket.socket, inside: int) -> None:
    while True:
        outer, _ = listener.accept()
        inner = socket.socket()
        try:
            inner.connect(("127.0.0.1", inside))
        except OSError:
            inner.close()
            outer.close()
            continue
        for source, sink in (outer, inner), (inner, outer):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in source, sink:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
