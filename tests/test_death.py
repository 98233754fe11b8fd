"""A run dies by SIGKILL at every point there is, and its log and the ledger stay true."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sifaka.log.records import Closed, Intent, Opened, Reached, Record, Result
from sifaka.log.state import State, fold
from sifaka.storage.reading import load, load_whole, read
from sifaka.storage.sqlite import SQLiteStorage
from victim import CHAIN_ID, ITERATIONS

PAIRS = 120


class Victims:
    """The fork server, and one run's files."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, folder: Path, driver: str, die: dict[str, int] | None = None) -> dict[str, Any]:
        command = {
            "store": str(folder / "store.db"),
            "ledger": str(folder / "ledger"),
            "driver": driver,
            "die": die,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        done = json.loads(self._process.stdout.readline())
        assert "error" not in done, done["error"]
        return done


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    script = Path(__file__).with_name("victim.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Victims(process)
        process.kill()


def records_of(folder: Path) -> list[Record]:
    storage = SQLiteStorage(folder / "store.db")
    try:
        return [] if storage.entry(CHAIN_ID) is None else list(read(storage, CHAIN_ID))
    finally:
        storage.close()


def billed(folder: Path) -> int:
    ledger = folder / "ledger"
    return len(ledger.read_text().splitlines()) if ledger.exists() else 0


def paid_results(records: list[Record]) -> int:
    """Results of calls that the ledger counts: all but the retriever's."""
    return sum(
        isinstance(one, Result) and one.intent >= 0 and one.operation != "retrieval" for one in records
    )


def doubts(state: State) -> int:
    return sum(one.operation != "retrieval" for one in state.doubts.values())


def check_complete(folder: Path, before: list[Record]) -> State:
    """What must be true of a log after its run has been resumed to the end."""
    records = records_of(folder)
    assert records[: len(before)] == before, "something that was durable is gone"
    state = fold(CHAIN_ID, records)
    assert isinstance(records[-1], Closed)
    assert records[-1].status == "done"
    assert state.iteration == ITERATIONS - 1
    steps = [(one.step, one.iteration) for one in records if isinstance(one, Reached)]
    assert len(set(steps)) == 2 + 4 * ITERATIONS + 1, "a step is missing"
    answered = [one.intent for one in records if isinstance(one, Result) and one.intent >= 0]
    assert len(answered) == len(set(answered)), "one call has two results"
    results, reported = paid_results(records), doubts(state)
    assert results == 4 * ITERATIONS, "a call that was answered has been made again"
    assert billed(folder) <= results + reported, "paid twice without a word"
    intents = sum(isinstance(one, Intent) and one.operation != "retrieval" for one in records)
    assert intents == results + reported
    return state


def points() -> list[dict[str, int]]:
    appends = [{when: n} for n in range(1, APPENDS + 1) for when in ("before", "after")]
    calls = [{where: n} for n in range(1, 4 * ITERATIONS + 1) for where in ("call", "billed")]
    return appends + calls


APPENDS = 2 + 4 * ITERATIONS
"""How many appends a run makes: the first test checks it."""


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_a_run_makes_the_appends_that_these_tests_kill_at(
    victims: Victims, tmp_path: Path, driver: str
) -> None:
    done = victims.run(tmp_path, driver)
    assert not done["killed"]
    state = check_complete(tmp_path, [])
    assert state.doubts == {}
    storage = SQLiteStorage(tmp_path / "store.db")
    appends = len(list(storage.rows(CHAIN_ID)))
    assert appends == APPENDS


@pytest.mark.parametrize("driver", ["sync", "async"])
@pytest.mark.parametrize("die", points(), ids=lambda die: "-".join(map(str, *die.items())))
def test_a_death_loses_nothing_and_pays_nothing_twice_in_silence(
    victims: Victims, tmp_path: Path, driver: str, die: dict[str, int]
) -> None:
    first = victims.run(tmp_path, driver, die)
    assert first["killed"]
    before = records_of(tmp_path)
    paid = billed(tmp_path)
    assert paid <= paid_results(before) + len(fold(CHAIN_ID, before).open_intents)

    second = victims.run(tmp_path, driver)
    assert not second["killed"]
    state = check_complete(tmp_path, before)
    assert len(state.doubts) <= 2, "more calls in doubt than branches that ran together"
    assert second["in_doubt"] == len(state.doubts)

    ledger = billed(tmp_path)
    third = victims.run(tmp_path, driver)
    assert third["calls"] == 0
    assert third["text"] == second["text"]
    assert billed(tmp_path) == ledger, "a run that was done has been paid again"


@pytest.mark.slow
def test_deaths_during_the_recovery_from_a_death(victims: Victims, tmp_path: Path) -> None:
    chosen = random.Random(20261124)
    for number in range(PAIRS):
        folder = tmp_path / str(number)
        folder.mkdir()
        for _ in range(2):
            victims.run(folder, chosen.choice(["sync", "async"]), chosen.choice(points()))
        before = records_of(folder)
        assert not victims.run(folder, chosen.choice(["sync", "async"]))["killed"]
        check_complete(folder, before)
    print(f"{PAIRS} pairs of deaths")


def test_what_a_resume_loads_is_what_the_whole_log_says(victims: Victims, tmp_path: Path) -> None:
    victims.run(tmp_path, "sync", {"after": 14})
    storage = SQLiteStorage(tmp_path / "store.db")
    part, whole = load(storage, CHAIN_ID), load_whole(storage, CHAIN_ID)
    assert part.prev == whole.prev
    assert part.state.thought() == whole.state.thought()
    assert part.state.best_draft() == whole.state.best_draft()
    assert part.state.totals == whole.state.totals


class Racer:
    """One process of its own that runs the victim's chain when it is told to."""

    def __init__(self, folder: Path, **more: Any) -> None:
        files = {"store": str(folder / "store.db"), "ledger": str(folder / "ledger")}
        command = json.dumps({**files, "driver": "sync", **more})
        script = str(Path(__file__).with_name("victim.py"))
        self.process = subprocess.Popen(
            [sys.executable, script, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def start(self) -> None:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)

    def result(self) -> dict[str, Any]:
        said, _ = self.process.communicate()
        return json.loads(said)


@pytest.mark.parametrize("racers", [2, 5])
def test_of_processes_that_race_for_a_run_one_has_it(tmp_path: Path, racers: int) -> None:
    SQLiteStorage(tmp_path / "store.db").measure()  # the file is there: the race is for the run
    running = [Racer(tmp_path) for _ in range(racers)]
    for one in running:
        one.start()
    results = [one.result() for one in running]
    lost = [one for one in results if "error" in one]
    assert {one["class"] for one in lost} <= {"OwnedError", "FencedError"}
    assert sum(one.get("calls", 0) > 0 for one in results) == 1, "two had it, or none"
    state = check_complete(tmp_path, [])
    assert state.doubts == {}
    assert billed(tmp_path) == 4 * ITERATIONS


def test_an_owner_that_wakes_after_its_lease_was_taken_can_write_nothing(tmp_path: Path) -> None:
    paused = Racer(tmp_path, die={"stop": 2}, lease_s=0.4)
    paused.start()
    _, status = os.waitpid(paused.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    before = records_of(tmp_path)

    successor = Racer(tmp_path, wait=30)
    successor.start()
    assert "error" not in successor.result()
    after = records_of(tmp_path)
    assert after[: len(before)] == before

    os.kill(paused.process.pid, signal.SIGCONT)
    late = paused.result()
    assert late["class"] == "FencedError"
    assert records_of(tmp_path) == after, "a late answer was written"
    state = check_complete(tmp_path, before)
    assert len(state.doubts) >= 1, "the paused owner's call may have been repeated, and nobody says so"


def test_a_crash_loop_ends_at_the_limit(victims: Victims, tmp_path: Path) -> None:
    def crash_again_and_again() -> None:
        for _ in range(100):
            victims.run(tmp_path, "sync", {"call": 1} if billed(tmp_path) else {"call": 2})

    with pytest.raises(AssertionError, match="its process died 10 times at criticism of iteration 0"):
        crash_again_and_again()
    records = records_of(tmp_path)
    assert sum(isinstance(one, Opened) for one in records) == 11
    assert isinstance(records[-1], Closed)
    assert records[-1].status == "failed"
