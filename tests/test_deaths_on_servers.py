"""Runs that die, race and wake too late, on every backend: their logs and the ledger stay true."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sifaka.log.records import Closed, Intent, Opened, Record, Result
from sifaka.log.state import State, fold
from sifaka.storage.base import Storage
from sifaka.storage.journal import Journal
from sifaka.storage.reading import read
from sifaka.storage.urls import open_storage
from soak import scaled
from test_death import APPENDS, doubts, paid_results, points
from victim import ITERATIONS

BACKENDS = ("sqlite", "redis", "postgres")
SERVERS = ("redis", "postgres")
PAID = 4 * ITERATIONS
"""Calls that a run pays for."""


class Process:
    """A victim's process: it is told a command a line, and answers each with a line."""

    def __init__(self, *arguments: str) -> None:
        script = str(Path(__file__).with_name("victim.py"))
        self.process = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def tell(self, command: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)  # with the children that stopped themselves
        self.process.communicate()


class Run:
    """One run in a store: what is stored of it, and what it was billed."""

    def __init__(self, address: str, name: str, folder: Path) -> None:
        self.name = name
        self.ledger = folder / name
        self._address = address

    def command(self, driver: str = "sync", **more: Any) -> dict[str, Any]:
        known = {"store": self._address, "chain_id": self.name, "ledger": str(self.ledger)}
        return {**known, "driver": driver, **more}

    @property
    def storage(self) -> Storage:
        return open_storage(self._address).storage

    def records(self) -> list[Record]:
        return [] if self.storage.entry(self.name) is None else list(read(self.storage, self.name))

    def billed(self) -> int:
        return len(self.ledger.read_text().splitlines()) if self.ledger.exists() else 0

    def check_dead(self, before: list[Record]) -> None:
        """Between two lives: what was billed is recorded, has been reported, or will be."""
        state = fold(self.name, before) if before else State(self.name)
        assert self.billed() <= paid_results(before) + doubts(state) + len(state.open_intents)

    def check_done(self, before: Sequence[Record] = ()) -> State:
        """After the last life: nothing durable is gone, and nothing was paid twice without a word."""
        records = self.records()
        assert records[: len(before)] == list(before), "something that was durable is gone"
        state = fold(self.name, records)
        assert isinstance(records[-1], Closed)
        assert records[-1].status == "done"
        answered = [one.intent for one in records if isinstance(one, Result) and one.intent >= 0]
        assert len(answered) == len(set(answered)), "one call has two results"
        results, reported = paid_results(records), doubts(state)
        assert results == PAID, "a call that was answered has been made again"
        assert self.billed() <= results + reported, "paid twice without a word"
        intents = sum(isinstance(one, Intent) and one.operation != "retrieval" for one in records)
        assert intents == results + reported
        return state


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty store of the backend that the test names."""
    backend: str = request.param
    url = (
        f"sqlite:///{tmp_path}/store.db" if backend == "sqlite" else request.getfixturevalue(f"{backend}_url")
    )
    open_storage(url).storage.measure()  # it is there: what races, races for runs
    yield url
    open_storage(url).storage.close()


@pytest.fixture
def runs(address: str, tmp_path: Path) -> Iterator[Run]:
    return (Run(address, f"run {n}", tmp_path) for n in itertools.count())


@pytest.fixture(scope="module")
def victims() -> Iterator[Process]:
    process = Process()
    yield process
    process.close()


def live(victims: Process, run: Run, driver: str = "sync", **more: Any) -> dict[str, Any]:
    """One life of a run, in a child."""
    victims.tell(run.command(driver, **more))
    done = victims.answer()
    assert "error" not in done, done["error"]
    return done


# Death --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("address", SERVERS, indirect=True)
@pytest.mark.parametrize("driver", ["sync", "async"])
def test_a_death_at_any_append_or_call_loses_nothing_and_pays_nothing_twice_in_silence(
    victims: Process, runs: Iterator[Run], driver: str
) -> None:
    dead = 0
    for run, die in zip(runs, points(), strict=False):
        dead += live(victims, run, driver, die=die)["killed"]
        before = run.records()
        run.check_dead(before)
        second = live(victims, run, driver)
        assert not second["killed"]
        state = run.check_done(before)
        assert second["in_doubt"] == len(state.doubts) <= 2, die
        ledger = run.billed()
        third = live(victims, run, driver)
        assert (third["calls"], third["text"]) == (0, second["text"])
        assert run.billed() == ledger, "a run that was done has been paid again"
    assert dead == len(points())
    print(f"deaths, {driver}: {dead} of {len(points())} points")


def seconds_of_a_life(victims: Process, run: Run) -> float:
    start = time.monotonic()
    live(victims, run)
    return time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize("address", SERVERS, indirect=True)
def test_deaths_at_any_moment_and_again_in_the_recovery_lose_nothing_either(
    victims: Process, runs: Iterator[Run]
) -> None:
    """At no particular point: between a request to the server and its answer, too."""
    chosen, pairs, ended = random.Random(20261125), scaled(60), Counter[bool]()
    life_s = min(seconds_of_a_life(victims, run) for run in itertools.islice(runs, 5))
    for run in itertools.islice(runs, pairs):
        for _ in range(2):
            within_s, driver = chosen.uniform(0.1, 1.0) * life_s, chosen.choice(["sync", "async"])
            ended[live(victims, run, driver, kill_within_s=within_s)["killed"]] += 1
            run.check_dead(run.records())
        before = run.records()
        assert not live(victims, run, chosen.choice(["sync", "async"]))["killed"]
        run.check_done(before)
    assert ended[True] > pairs // 2
    print(f"deaths at any moment: {ended[True]} in {pairs} runs")


@pytest.mark.parametrize("address", BACKENDS, indirect=True)
def test_a_dead_owner_is_taken_over_at_once_and_a_living_one_is_not(
    victims: Process, runs: Iterator[Run]
) -> None:
    run = next(runs)
    stopped = live(victims, run, die={"stop after": 5})["stopped"]
    before = run.records()
    victims.tell(run.command())
    assert victims.answer()["class"] == "OwnedError"
    assert run.records() == before

    os.kill(stopped, signal.SIGKILL)
    victims.tell({"go_on": stopped})
    assert victims.answer() == {"killed": True}
    entry = run.storage.entry(run.name)
    assert entry is not None
    assert entry.lease_until > run.storage.now() + 30, "no lease that had ended by itself"
    done = live(victims, run)  # it does not wait, so at once or not at all
    assert done["in_doubt"] <= 2
    run.check_done(before)


# Races --------------------------------------------------------------------------------------

AHEAD_S = 0.003
"""How long before its start a race is announced, so that all racers have heard of it."""


@pytest.fixture(scope="module")
def racers() -> Iterator[list[Process]]:
    found = [Process("race") for _ in range(8)]
    yield found
    for one in found:
        one.close()


def race(racers: Sequence[Process], run: Run) -> list[dict[str, Any]]:
    """All run one run from the same moment on."""
    command = run.command(at=time.monotonic() + AHEAD_S)
    for one in racers:
        one.tell(command)
    return [one.answer() for one in racers]


def check_race(run: Run, before: list[Record], results: Sequence[dict[str, Any]]) -> str:
    """One had it; a text for what the others met."""
    failed = [one["class"] for one in results if "error" in one]
    assert set(failed) <= {"OwnedError", "FencedError"}, [one.get("error") for one in results]
    winners = [one for one in results if one.get("calls", 0) > 0]
    assert len(winners) <= 1, "two had it"
    state = run.check_done(before)
    assert len(state.doubts) <= 2, "more calls in doubt than the first owner had in flight"
    opened = sum(isinstance(one, Opened) for one in run.records()[len(before) :])
    assert opened == 1, "more than one took it over"
    texts = {one["text"] for one in results if "error" not in one}
    assert len(texts) == 1
    return Counter(failed).most_common(1)[0][0] if failed else "none failed"


@pytest.mark.slow
@pytest.mark.parametrize("address", BACKENDS, indirect=True)
def test_of_processes_that_race_for_a_run_one_has_it_and_no_call_is_repeated_unreported(
    victims: Process, racers: list[Process], runs: Iterator[Run]
) -> None:
    chosen, races = random.Random(20261126), scaled(300)
    met: Counter[str] = Counter()
    for number, run in enumerate(itertools.islice(runs, races)):
        if number % 2:  # every other one is a dead process's run, the rest are new
            assert live(victims, run, die={"after": chosen.randrange(1, APPENDS)})["killed"]
        before = run.records()
        results = race(racers[: chosen.randrange(2, 9)], run)
        met[check_race(run, before, results)] += 1
        met["lost"] += sum("error" in one for one in results)
    assert met["lost"] > races, "hardly a race"
    print(f"races: {races}, of which most losers met: {dict(met)}")


# Pauses -------------------------------------------------------------------------------------

PAUSES = [{when: n} for n in range(1, APPENDS + 1) for when in ("stop before", "stop after")][:-1]
"""Before and after each append; after the last one the run is done, and nobody takes it over."""


def pause_all(victims: Process, runs: Iterator[Run]) -> list[tuple[Run, dict[str, int], int]]:
    """A run for each point, whose owner's process stands still there; their leases end together."""
    chosen, paused = random.Random(20261127), []
    for run, die in zip(runs, PAUSES, strict=False):
        driver = chosen.choice(["sync", "async"])
        paused.append((run, die, live(victims, run, driver, die=die, lease_s=0.3)["stopped"]))
    return paused


def check_late(victims: Process, run: Run, pid: int) -> None:
    """The paused owner wakes, learns that the run is somebody else's, and has written nothing."""
    before = run.records()
    victims.tell({"go_on": pid})
    late = victims.answer()
    assert late["class"] == "FencedError", late
    assert run.records() == before, "a late answer was written"


@pytest.mark.parametrize("address", BACKENDS, indirect=True)
def test_an_owner_that_wakes_at_any_append_after_another_has_ended_the_run_can_write_nothing(
    victims: Process, runs: Iterator[Run]
) -> None:
    paused = pause_all(victims, runs)
    for run, _, pid in paused:
        before = run.records()
        more: dict[str, Any] = {"wait": 30} if before else {}  # before its first append there is no lease
        live(victims, run, **more)
        check_late(victims, run, pid)
        run.check_done(before)
    print(f"paused owners: {len(paused)} woke after the end, and wrote nothing")


@pytest.mark.parametrize("address", BACKENDS, indirect=True)
def test_an_owner_that_wakes_at_any_append_after_another_has_claimed_the_run_can_write_nothing(
    victims: Process, runs: Iterator[Run]
) -> None:
    """The log is still as the owner left it: the token alone tells."""
    first, *paused = pause_all(victims, runs)
    for run, _, pid in paused:
        journal, before = Journal(run.storage), run.records()
        lease = journal.claim(run.name, wait_s=30)
        check_late(victims, run, pid)
        journal.release(lease)
        live(victims, run)
        run.check_done(before)
    live(victims, first[0])  # nothing was there to be claimed
    check_late(victims, first[0], first[2])
    print(f"paused owners: {len(paused)} woke after a claim, and wrote nothing")
