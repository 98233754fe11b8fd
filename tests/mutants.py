"""Planted faults: each is put into a copy of the source, and the tests that should see it must fail.

``make mutants`` plants all, one by one; ``ARGS="fence digest"`` those whose names hold one of these words. First
the tests run on the unchanged copy, so that what fails afterwards fails because of the fault.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
STORAGE = "sifaka/storage/"
CONTRACT = "tests/test_contract.py"
FAULTS = "tests/test_sqlite_faults.py"


class Fault(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def contract(store: str, theme: str) -> tuple[str, ...]:
    return CONTRACT, "-k", f"every_store_keeps and {store} and {theme}"


PLANTED = (
    Fault(
        "sqlite: a commit is not synced",
        STORAGE + "sqlite/opening.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=NORMAL",
        (FAULTS, "-k", "power_cut_loses"),
    ),
    Fault(
        "sqlite: no fence",
        STORAGE + "sqlite/statements.py",
        "WHERE id = ? AND token = ? AND (SELECT max(last)",
        "WHERE id = ? AND token >= ? AND (SELECT max(last)",
        contract("sqlite", "fencing"),
    ),
    Fault(
        "sqlite: a record may be left out",
        STORAGE + "sqlite/statements.py",
        "FROM log WHERE chain = no) = ?\n",
        "FROM log WHERE chain = no) <= ?\n",
        contract("sqlite", "appending"),
    ),
    Fault(
        "sqlite: rows in another order",
        STORAGE + "sqlite/statements.py",
        "AND first <= :end ORDER BY last LIMIT :page",
        "AND first <= :end ORDER BY at, last DESC LIMIT :page",
        contract("sqlite", "reading"),
    ),
    Fault(
        "sqlite: deleted texts stay in the file",
        STORAGE + "sqlite/opening.py",
        "PRAGMA secure_delete=ON",
        "PRAGMA secure_delete=OFF",
        ("tests/test_keeping_small.py", "-k", "file"),
    ),
    Fault(
        "redis: no fence",
        STORAGE + "redis/scripts.py",
        "local fits = is[1] == token and is[2] == before",
        "local fits = is[1] and is[2] == before",
        contract("redis", "fencing"),
    ),
    Fault(
        "redis: appended anywhere",
        STORAGE + "redis/scripts.py",
        "local fits = is[1] == token and is[2] == before",
        "local fits = is[1] == token",
        contract("redis", "appending"),
    ),
    Fault(
        "postgres: no fence",
        STORAGE + "postgres/statements.py",
        "WHERE c.id = g.id AND c.token = g.token AND c.last = g.first - 1",
        "WHERE c.id = g.id AND c.last = g.first - 1",
        contract("postgres", "fencing"),
    ),
    Fault(
        "postgres: an append is not synced",
        STORAGE + "postgres/sessions.py",
        "SET synchronous_commit = on",
        "SET synchronous_commit = off",
        ("tests/test_postgres.py", "-k", "durab or synchronous"),
    ),
    Fault(
        "an append that has arrived is not recognised",
        STORAGE + "commits.py",
        "if stored is not None and stored.frame == row.frame:",
        "if stored is not None and stored.frame != row.frame:",
        ("tests/test_postgres.py", "tests/test_redis.py", "-k", "cut"),
    ),
    Fault(
        "a refused append counts as done",
        STORAGE + "commits.py",
        "pending.settle(None if yes else self._refused(pending))",
        "pending.settle(None)",
        ("tests/test_storage.py", "-k", "old_token"),
    ),
    Fault(
        "a lost lease is not noticed",
        STORAGE + "held.py",
        "lease.lost = True\n",
        "lease.lost = False\n",
        ("tests/test_storage.py", "-k", "lost_one_is_known"),
    ),
    Fault(
        "a living owner is taken over",
        STORAGE + "journal.py",
        "return entry.owner in self._let_go or is_dead(entry.owner)",
        "return True",
        ("tests/test_storage.py", "-k", "living_owner"),
    ),
    Fault(
        "who lost the race gives the winner's lease back",
        STORAGE + "journal.py",
        "if lease.next_seq or not lease.is_new:\n            return True",
        "if lease.next_seq or not lease.is_new or lease.was_used:\n            return True",
        ("tests/test_deaths_on_servers.py", "-k", "race and sqlite"),
    ),
    Fault(
        "checksums are not compared",
        "sifaka/log/codec.py",
        "    if crc32(frame[16:], crc32(frame[:12], _seed(chain_id, first, token))) != crc:",
        "    if crc == -1:",
        ("tests/test_log.py",),
    ),
    Fault(
        "links are not compared",
        "sifaka/log/codec.py",
        "if prev is not None and link != prev:",
        "if prev is not None and link == -1:",
        ("tests/test_log.py", "tests/test_damage.py"),
    ),
    Fault(
        "a clean-up takes runs that go on",
        STORAGE + "retention.py",
        'ENDED: tuple[Status, ...] = ("done", ',
        'ENDED: tuple[Status, ...] = ("running", "interrupted", "waiting", "done", ',
        ("tests/test_keeping_small.py", "tests/test_storage.py", "-k", "clean"),
    ),
    Fault(
        "memory: a run is deleted that was claimed meanwhile",
        STORAGE + "memory.py",
        "if found is not None and found.token == one.token:",
        "if found is not None:",
        contract("memory", "removing"),
    ),
    Fault(
        "memory: a cell is set whatever its version",
        STORAGE + "memory.py",
        "if self._cells.get(name, _NO_CELL).version != version:",
        "if self._cells.get(name, _NO_CELL).version < version:",
        contract("memory", "cells"),
    ),
    Fault(
        "sqlite: a run is deleted that was claimed meanwhile",
        STORAGE + "sqlite/statements.py",
        'found = connection.execute("SELECT no FROM chains WHERE id = ? AND token = ?", where).fetchone()',
        'found = connection.execute("SELECT no FROM chains WHERE id = ? AND token >= ?", where).fetchone()',
        contract("sqlite", "removing"),
    ),
    Fault(
        "postgres: no fence for a lone append",
        STORAGE + "postgres/statements.py",
        "    WHERE id = %b AND token = %b AND last = %b RETURNING no",
        "    WHERE id = %b AND token >= %b AND last = %b RETURNING no",
        contract("postgres", "fencing"),
    ),
    Fault(
        "tiers: the memory takes in what was refused",
        STORAGE + "tier.py",
        "if name in ours and not (yes and self._put(batch[name], write)):",
        "if name in ours and not self._put(batch[name], write):",
        ("tests/test_tiers.py",),
    ),
    Fault(
        "fallback: two histories are merged",
        STORAGE + "fallback/handover.py",
        "if len(self._got) > self._same:",
        "if False:",
        ("tests/test_fallback.py",),
    ),
    Fault(
        "a trimmed row is linked by its first",
        STORAGE + "retention.py",
        "link=link_of(last.frame),",
        "link=link_of(first.frame),",
        ("tests/test_keeping_small.py",),
    ),
    Fault(
        "a fork waits for nobody who is inside a library",
        "sifaka/locks.py",
        "        while any(one != get_ident() for one in list(self._inside)) and",
        "        while False and",
        ("tests/test_storage.py",),
    ),
    Fault(
        "a context is counted again in the wider one",
        "sifaka/recovery/knowledge.py",
        "step.without(own.worth_elsewhere)",
        "step",
        ("tests/test_ranking.py",),
    ),
    Fault(
        "recovery counts failures as successes",
        "sifaka/recovery/counts.py",
        "row.worked + one.weight * one.success",
        "row.worked + one.weight",
        ("tests/test_evidence.py",),
    ),
    Fault(
        "cells are never read afresh",
        STORAGE + "cells.py",
        "if name in known and now < known[name][0]}",
        "if name in known}",
        ("tests/test_evidence.py",),
    ),
    Fault(
        "a loser's lease frees the winner's run",
        STORAGE + "journal.py",
        "return entry.owner in self._let_go or is_dead(entry.owner)",
        "return bool(self._let_go) or is_dead(entry.owner)",
        ("tests/test_evidence.py",),
    ),
    Fault(
        "a fault is learned without its text",
        "sifaka/engine/run.py",
        'text = self._fault_text or (state.fault.fault.message if state.fault else "")',
        "text = self._fault_text",
        ("tests/test_evidence.py",),
    ),
    Fault(
        "a copy is not verified",
        STORAGE + "moving.py",
        "    _verify(steady, target, entry)",
        "    steady = steady",
        ("tests/test_moving.py",),
    ),
    Fault(
        "an archive's digest is not compared",
        STORAGE + "archive_file.py",
        "if size < len(MAGIC) or _digest(file, size) != file.read():",
        "if size < len(MAGIC):",
        ("tests/test_archive.py",),
    ),
)


class Copy:
    """The source tree in a folder of its own, which the tests import."""

    def __init__(self, folder: str) -> None:
        self.src = Path(folder) / "src"
        shutil.copytree(ROOT / "src", self.src, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(self.src),
            "SIFAKA_SOAK": "0.3",
            "PYTHONDONTWRITEBYTECODE": "1",  # no stale bytecode hides a fault
            "HYPOTHESIS_STORAGE_DIRECTORY": f"{folder}/hypothesis",
        }
        said = subprocess.run(
            [sys.executable, "-c", "import sifaka; print(sifaka.__file__)"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if not said.startswith(str(self.src)):
            sys.exit(f"the tests would import {said.strip()} and not the copy")

    def passes(self, tests: tuple[str, ...]) -> tuple[bool, str]:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(
            command, check=False, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=300
        )
        if done.returncode not in {0, 1}:
            sys.exit(f"the tests {tests} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.returncode == 0, done.stdout.strip().splitlines()[-1]

    def catches(self, fault: Fault) -> bool:
        file = self.src / fault.file
        sound = file.read_text(encoding="utf-8")
        if sound.count(fault.old) != 1:
            sys.exit(
                f"{fault.name}: {fault.file} holds {fault.old!r} {sound.count(fault.old)} times, not once"
            )
        faulty = sound.replace(fault.old, fault.new)
        compile(faulty, fault.file, "exec")  # a fault is no typing error
        file.write_text(faulty, encoding="utf-8")
        try:
            return not self.passes(fault.tests)[0]
        finally:
            file.write_text(sound, encoding="utf-8")


def main(words: list[str]) -> int:
    chosen = [one for one in PLANTED if not words or any(word in one.name for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(folder)
        for tests in dict.fromkeys(one.tests for one in chosen):
            passes, said = copy.passes(tests)
            if not passes:
                sys.exit(f"without any fault {' '.join(tests)} fails: {said}")
        survivors = 0
        for fault in chosen:
            start = time.monotonic()
            caught = copy.catches(fault)
            survivors += not caught
            print(
                f"{'caught' if caught else 'SURVIVED':9} {time.monotonic() - start:5.1f} s  {fault.name}",
                flush=True,
            )
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
