"""Runs die by SIGKILL at every point of a call over the wire, and the provider's ledger agrees with their logs.

The provider is a double that writes each bill to a file before it replies; the calls go through the
providers' own libraries. A call that was billed is a result in the log or is reported in doubt, and nothing
that the log has is paid again. Where the provider keeps answers, a billed call is found and not repeated.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import wire_victim
from sifaka.log.records import Closed, Handle, Intent, Partial, Record, Result
from sifaka.log.state import State, fold
from sifaka.storage.reading import read
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.testing.provider import Bill
from soak import scaled
from wire_double import SECOND, TEXTS, KillingDouble
from wire_victim import CHAIN_ID, VARIANTS

CALLS = 5
"""A first text, a critic's question, another one's two together, and an improved text."""
TOGETHER = 3
"""So many of them can be out at one time."""

_PER_TOKEN = {"claude-haiku-4-5": (1e-6, 5e-6), "gpt-4o": (2.5e-6, 10e-6)}
"""Dollars, by the providers' own pages."""

DRIVERS = ("sync", "async")


class Victims:
    """The fork server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, folder: Path, variant: str, driver: str, url: str, **die: int) -> dict[str, Any]:
        command = {
            "store": str(folder / "store.db"),
            "variant": variant,
            "driver": driver,
            "url": url,
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
    script = wire_victim.__file__
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Victims(process)
        process.kill()


def records_of(folder: Path) -> list[Record]:
    if not (folder / "store.db").exists():
        return []
    storage = SQLiteStorage(folder / "store.db")
    try:
        return [] if storage.entry(CHAIN_ID) is None else list(read(storage, CHAIN_ID))
    finally:
        storage.close()


def texts_of(records: list[Record]) -> list[Result]:
    """The answers of models."""
    return [one for one in records if isinstance(one, Result) and one.text is not None]


def price(bill: Bill) -> float:
    per_input, per_output = _PER_TOKEN[bill.model]
    dollars = bill.input_tokens * per_input + bill.output_tokens * per_output
    return dollars / 2 if bill.batch else dollars


def check_complete(
    double: KillingDouble, before: list[Record], after: list[Record], *, deaths: int = 1
) -> State:
    """What must be true of a log after its run has been resumed to the end."""
    assert after[: len(before)] == before, "something that was durable is gone"
    state = fold(CHAIN_ID, after)
    assert isinstance(after[-1], Closed)
    assert after[-1].status == "done"
    assert state.open_intents == {}, "a call is open, and nobody says so"
    results, bills = texts_of(after), double.ledger
    assert len(results) == CALLS, "a call that was answered has been made again"
    assert {one.text for one in results} == TEXTS, "a text is not whole"
    recorded, billed = [one.request_id for one in results], [one.id for one in bills]
    assert len(set(recorded)) == CALLS, "an answer was counted twice"
    assert set(recorded) <= set(billed)
    assert len(set(billed)) == len(billed)
    lost = set(billed) - set(recorded)
    assert len(lost) <= len(state.doubts), "paid twice without a word"
    assert len(state.doubts) <= deaths * TOGETHER, "more calls in doubt than were out"
    intents = [one for one in after if isinstance(one, Intent)]
    assert len(intents) == CALLS + len(state.doubts)
    assert len(double.requests) <= len(intents), "a request that no record tells of"
    paid = sum(price(one) for one in bills if one.id in recorded)
    assert state.totals.cost_usd == pytest.approx(paid)
    return state


def check_settled(variant: str, double: KillingDouble, before: list[Record], after: list[Record]) -> None:
    """That what the provider knows of was found there, and not paid a second time."""
    recorded = {one.request_id for one in texts_of(after)}
    lost = {one.id for one in double.ledger} - recorded
    if variant.startswith("chat-store") or variant.endswith("deferred"):
        assert not lost, "a call that can be searched for by its name was paid twice"
    if variant.startswith(("background", "responses-store")):
        heard = {one.provider_id for one in before if isinstance(one, Handle)}
        assert not lost & heard, "a call whose id was known was paid twice"


def at_work(variant: str) -> int:
    """How often a look-up finds the answer still being worked on."""
    return int(variant.startswith("background") or variant.endswith("deferred"))


class Provider(KillingDouble):
    """A double with the folder of the run that asks it."""

    def __init__(self, folder: Path, variant: str) -> None:
        super().__init__(folder / "ledger", look_ups=at_work(variant))
        self.folder = folder
        self.seen = self._saved

    def _saved(self) -> bool:
        """Whether the caller has saved what it was sent: the call's id, and the pieces of its text."""
        records = records_of(self.folder)
        state = fold(CHAIN_ID, records)
        heard = {one.intent for one in records if isinstance(one, Handle)} & set(state.open_intents)
        said = {one.intent for one in records if isinstance(one, Partial)} & set(state.open_intents)
        return bool(said if self.die.get("k", 0) > 5 else heard)


def die_and_resume(
    victims: Victims, folder: Path, variant: str, driver: str, *deaths: dict[str, int]
) -> tuple[int, State]:
    """Kill a run at each point in turn, resume it to the end, and check it; how often it was killed."""
    folder.mkdir(exist_ok=True)
    killed = 0
    with Provider(folder, variant) as provider:
        for die in deaths:
            provider.aim(die)
            killed += victims.run(folder, variant, driver, provider.url, **die)["killed"]
            assert not provider.unsaved, "the caller did not save what it was sent"
        before = records_of(folder)
        provider.aim({})
        done = victims.run(folder, variant, driver, provider.url)
        assert not done["killed"]
        assert done["text"] == SECOND
        after = records_of(folder)
        state = check_complete(provider, before, after, deaths=len(deaths))
        assert done["in_doubt"] == len(state.doubts)
        check_settled(variant, provider, before, after)
    return killed, state


Point = dict[str, int]


def streams(variant: str) -> bool:
    return VARIANTS[variant][2]


def points(variant: str) -> list[Point]:
    """Every point that a run of the variant can die at."""
    waits = at_work(variant) and not streams(variant)
    writes = 68 if streams(variant) else 11 if waits else 6
    posts = {"anthropic-deferred": 3, "responses-deferred": 6}.get(variant, CALLS)
    found: list[Point] = [{when: n} for n in range(1, writes + 1) for when in ("before", "after")]
    for n in range(1, posts + 1):
        found += [{"received": n}, {"billed": n}, {"byte": n, "k": 9}, {"byte": n, "k": 200}]
        if streams(variant):
            found += [{"event": n, "k": k} for k in (1, 6, 8)]
    looks = 14 if variant.endswith("deferred") else 10 if waits else 0
    return found + [{"look": n} for n in range(1, looks + 1)]


QUICK: dict[str, list[Point]] = {
    "anthropic": [{"after": 1}, {"before": 2}, {"received": 1}, {"billed": 3}, {"byte": 5, "k": 40}],
    "anthropic-stream": [{"event": 1, "k": 1}, {"event": 1, "k": 7}, {"event": 3, "k": 7}, {"after": 40}],
    "chat": [{"billed": 1}, {"received": 3}],
    "chat-stream": [{"event": 1, "k": 6}, {"event": 2, "k": 1}],
    "responses": [{"billed": 4}],
    "responses-stream": [{"event": 5, "k": 7}],
    "chat-store": [{"billed": 1}, {"received": 2}, {"billed": 3}, {"before": 2}],
    "chat-store-stream": [{"event": 1, "k": 6}, {"billed": 2}],
    "responses-store-stream": [{"event": 1, "k": 1}, {"event": 3, "k": 7}],
    "background": [{"billed": 1}, {"before": 2}, {"after": 2}, {"billed": 3}, {"look": 2}],
    "background-stream": [{"event": 1, "k": 1}, {"event": 4, "k": 8}],
    "anthropic-deferred": [{"billed": 1}, {"received": 2}, {"billed": 2}, {"look": 2}],
    "responses-deferred": [{"billed": 2}, {"look": 3}],
}
"""One point of each kind or more, for each way to call."""


def name_of(die: Point) -> str:
    return "-".join(f"{key}{value}" for key, value in die.items())


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_runs_that_these_tests_kill_leave_nothing_open_and_pay_for_each_call_once(
    victims: Victims, tmp_path: Path, variant: str, driver: str
) -> None:
    with Provider(tmp_path, variant) as provider:
        done = victims.run(tmp_path, variant, driver, provider.url)
        state = check_complete(provider, [], records_of(tmp_path), deaths=0)
        assert len(provider.requests) == CALLS
        assert provider.billed == CALLS
        assert (done["text"], done["in_doubt"], state.doubts) == (SECOND, 0, {})
        assert victims.run(tmp_path, variant, driver, provider.url)["text"] == SECOND
        assert provider.billed == CALLS, "a run that was done has been paid again"
        last = max(point.get("after", 0) for point in points(variant))
        assert done["writes"] == pytest.approx(last, abs=last // 10), "points() has fewer, or more"


@pytest.mark.parametrize(
    ("variant", "driver", "die"),
    [
        pytest.param(variant, DRIVERS[number % 2], die, id=f"{variant}-{DRIVERS[number % 2]}-{name_of(die)}")
        for variant, some in QUICK.items()
        for number, die in enumerate(some, len(variant))
    ],
)
def test_a_death_over_the_wire_pays_nothing_twice_in_silence(
    victims: Victims, tmp_path: Path, variant: str, driver: str, die: Point
) -> None:
    killed, _ = die_and_resume(victims, tmp_path, variant, driver, die)
    assert killed == 1


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("driver", DRIVERS)
def test_deaths_at_every_point_over_the_wire(victims: Victims, tmp_path: Path, driver: str) -> None:
    every = [(variant, die) for variant in VARIANTS for die in points(variant)]
    random.Random(f"{driver} 20261124").shuffle(every)
    some = every[: scaled(20)]
    killed = 0
    for number, (variant, die) in enumerate(some):
        with reproducible(variant, driver, die):
            killed += die_and_resume(victims, tmp_path / str(number), variant, driver, die)[0]
    print(f"{killed} deaths at {len(some)} of {len(every)} points")
    assert killed >= 0.9 * len(some), "points() has points that no run reaches"


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_deaths_during_the_recovery_from_a_death_over_the_wire(victims: Victims, tmp_path: Path) -> None:
    chosen = random.Random(20261125)
    killed, pairs = 0, scaled(15)
    for number in range(pairs):
        variant, driver = chosen.choice(list(VARIANTS)), chosen.choice(DRIVERS)
        two = chosen.choices(points(variant), k=2)
        with reproducible(variant, driver, *two):
            killed += die_and_resume(victims, tmp_path / str(number), variant, driver, *two)[0]
    print(f"{killed} deaths in {pairs} pairs")
    assert killed > pairs


@contextmanager
def reproducible(variant: str, driver: str, *deaths: Point) -> Iterator[None]:
    """Name the case with what it fails with."""
    try:
        yield
    except AssertionError as error:
        error.add_note(f"{variant}, {driver}, died at {deaths}")
        raise
