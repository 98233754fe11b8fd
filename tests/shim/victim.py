"""A process that writes to SQLite stores below the shim, and has children that die in it (floor 8).

It is started with the shim preloaded and reads one JSON command a line. A command's work is done in a
child of its own, which tells through a pipe what was acknowledged; the child may be killed at any call.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from shim import FOREVER, Mode, Op, Shim
from sifaka.errors import StorageError
from sifaka.log.records import Opened, Partial, Record
from sifaka.storage.base import Change
from sifaka.storage.journal import Journal, Lease
from sifaka.storage.reading import load_whole, read
from sifaka.storage.sqlite import SQLiteStorage

APPENDS = 20


def record(chain_id: str, n: int, size: int = 200) -> Record:
    """Number ``n`` of a run; the same in every process."""
    if n == 0:
        return Opened(1.0, chain_id, "a prompt")
    noise = random.Random(f"{chain_id} {n}").randbytes(size // 2).hex()
    return Partial(float(n), 0, f"text {n} of {chain_id}: {noise}")


def change(n: int) -> Change | None:
    """Some appends change the run's entry too."""
    return Change("running", float(n), reason="on", group="g") if n % 5 == 4 else None


def write_chain(
    journal: Journal, told: Any, chain_id: str = "a", size: int = 200, appends: int = APPENDS
) -> None:
    lease = journal.claim(chain_id)
    for n in range(appends):
        journal.append(lease, [record(chain_id, n, size)], change(n))
        told(f"{chain_id}:{n}")


def go_on(journal: Journal, lease: Lease, appends: int, told: Any) -> None:
    """Append where the log of a claimed run ends, until it has ``appends`` records."""
    chain_id = lease.chain_id
    if not lease.is_new:
        loaded = load_whole(journal.storage, chain_id)
        lease.begin_at(loaded.state.next_seq, loaded.prev)
    for n in range(lease.next_seq, appends):
        journal.append(lease, [record(chain_id, n)], change(n))
        told(f"{chain_id}:{n}")


def take_over(storage: SQLiteStorage, appends: int, told: Any = str) -> None:
    """Claim the run "a", whose owner is dead or gave it back, and go on with it."""
    journal = Journal(storage)
    lease = journal.claim("a")
    go_on(journal, lease, appends, told)
    journal.release(lease)


# Work ---------------------------------------------------------------------------------------


def chain(storage: SQLiteStorage, told: Any, command: dict[str, Any]) -> None:
    """A lone run, one append after the other."""
    write_chain(
        Journal(storage), told, size=command.get("size", 200), appends=command.get("appends", APPENDS)
    )
    storage.close()


def recovery(storage: SQLiteStorage, told: Any, command: dict[str, Any]) -> None:
    """What a process does that finds the run of a dead one."""
    entry = storage.entry("a")
    take_over(storage, 3 + (entry.last if entry else -1), told)
    storage.close()


def group(storage: SQLiteStorage, told: Any, command: dict[str, Any]) -> None:
    """Several runs on one event loop, whose appends share commits."""
    journal = Journal(storage)

    async def one(chain_id: str) -> None:
        lease = await journal.aclaim(chain_id)
        for n in range(command["appends"]):
            await journal.aappend(lease, [record(chain_id, n)], change(n))
            told(f"{chain_id}:{n}")

    async def several() -> None:
        await asyncio.gather(*(one(chain_id) for chain_id in command["chains"]))

    asyncio.run(several())


def failing_syncs(storage: SQLiteStorage, told: Any, command: dict[str, Any]) -> None:
    """A lone run on a disk whose every seventh sync fails; each failure is followed by another try."""
    shim, journal, tries = Shim.inherited(), Journal(storage), 0
    shim.arm(Mode.FAIL, 7, FOREVER, ops=Op.SYNC)
    while True:
        tries += 1
        lease = None
        try:
            lease = journal.claim("a")
            go_on(journal, lease, command["appends"], told)
        except StorageError:
            if lease is not None:
                journal.release(lease)
            shim.arm(Mode.FAIL, 7, ops=Op.SYNC)
        else:
            break
    shim.disarm()
    assert tries > 2


def faults(storage: SQLiteStorage, told: Any, command: dict[str, Any]) -> None:
    """One fault after the other, each in a store of its own, in this one process."""
    shim = Shim.inherited()
    for k in command["calls"]:
        path = Path(storage.path).with_name(f"store{k}.db")
        try:
            said = _fault(shim, path, k, command)
        except BaseException:
            said = traceback.format_exc()
        shim.disarm()
        for file in path.parent.glob(path.name + "*"):
            file.unlink()
        told(json.dumps([k, said]))


def _fault(shim: Shim, path: Path, k: int, command: dict[str, Any]) -> str:
    storage = SQLiteStorage(path)
    journal = Journal(storage)
    acknowledged: list[str] = []
    last = FOREVER if command["lasting"] else k
    shim.arm(Mode.FAIL, k, last, ops=Op(command["ops"]), error=command["error"], cut=command["cut"])
    failure, lease = None, None
    try:
        lease = journal.claim("a")
        for n in range(APPENDS):
            journal.append(lease, [record("a", n)], change(n))
            acknowledged.append(f"a:{n}")
        storage.close()
    except StorageError as error:
        failure = error
    if lease is not None:
        journal.release(lease)  # the fault may still be there
    hits = shim.get("hits")
    shim.disarm()
    stored = list(read(storage, "a")) if storage.entry("a") else []
    expected = [record("a", n) for n in range(APPENDS)]
    assert stored == expected[: len(stored)], "what is stored is not what was appended"
    assert len(acknowledged) <= len(stored) <= len(acknowledged) + 1, (len(acknowledged), len(stored))
    go_on(journal, journal.claim("a"), APPENDS, acknowledged.append)
    storage.close()
    assert list(read(SQLiteStorage(path), "a")) == expected
    return f"{hits} {type(failure).__name__}: {failure}"


def read_only(storage: SQLiteStorage, told: Any, command: dict[str, Any]) -> None:
    """Everything that would change a file is refused from the beginning."""
    Shim.inherited().arm(Mode.FAIL, 1, FOREVER, error=command["error"])
    _try(storage, told)


def read_only_files_beside(storage: SQLiteStorage, told: Any, command: dict[str, Any]) -> None:
    """The file itself may be written to, but none may be made beside it."""
    Shim.inherited().arm(Mode.FAIL, 3, FOREVER, ops=Op.OPEN, error=command["error"])
    _try(storage, told)


def _try(storage: SQLiteStorage, told: Any) -> None:
    try:
        take_over(storage, APPENDS + 1)
    except StorageError as error:
        told(f"{type(error).__name__}: {error}")


# The server ---------------------------------------------------------------------------------


def plant(name: str) -> None:
    """A fault of the storage code, which the tests must notice."""
    assert name == "synchronous=NORMAL"

    class Careless(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous=FULL", name), parameters)

    sqlite3.connect = partial(sqlite3.connect, factory=Careless)  # type: ignore[assignment] # only in this child


WORK = {
    "chain": chain,
    "recovery": recovery,
    "group": group,
    "failing_syncs": failing_syncs,
    "faults": faults,
    "read_only": read_only,
    "read_only_files_beside": read_only_files_beside,
}


def child(command: dict[str, Any], answer: int) -> None:
    shim = Shim.inherited()

    def told(what: str) -> None:
        if command.get("trace"):
            shim.mark(what)
        os.write(answer, what.encode() + b"\n")

    try:
        if "plant" in command:
            plant(command["plant"])
        storage = SQLiteStorage(command["store"])
        shim.tracing(bool(command.get("trace")))
        if "mode" in command:
            shim.arm(Mode(command["mode"]), command["k"])
        WORK[command["work"]](storage, told, command)
    except BaseException:
        os.write(answer, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


def serve() -> None:
    shim = Shim.inherited()
    for line in sys.stdin:
        command = json.loads(line)
        answer, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(answer)
            child(command, write)
        os.close(write)
        with os.fdopen(answer, encoding="utf-8") as file:
            told = file.read().splitlines()
        _, status = os.waitpid(pid, 0)
        shim.disarm()
        shim.tracing(False)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        ended = "killed" if killed else "done" if status == 0 else "failed"
        print(json.dumps({"ended": ended, "told": told}), flush=True)


if __name__ == "__main__":
    serve()
