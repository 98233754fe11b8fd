"""The shared limits between real processes on real servers: they agree, and one alone makes the probe."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from sifaka.recovery.gate import CELLS, Gate
from sifaka.recovery.gate.shared import decoded
from sifaka.storage.cells import SharedCells
from sifaka.storage.redis import RedisStorage
from sifaka.storage.urls import open_storage
from sifaka.testing import FakeClock

pytestmark = pytest.mark.slow

MODEL = "acme:large"
START = 1_700_000_000.0
PROCESS = """
import json, sys
from sifaka.clock import SystemClock
from sifaka.faults import Fault
from sifaka.recovery.gate import Gate
from sifaka.storage.cells import SharedCells
from sifaka.testing import FakeClock

url, start = sys.argv[1], float(sys.argv[2])
clock = FakeClock(start) if start else SystemClock()
if url.startswith("redis"):
    from sifaka.storage.redis import RedisStorage as Store
else:
    from sifaka.storage.postgres import PostgresStorage as Store
store = Store(url, clock=clock) if start else Store(url)
gate, model = Gate(SharedCells(store), clock), "acme:large"
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    what, *given = json.loads(line)
    answer = None
    if what == "advance":
        clock.advance(given[0])
    elif what == "ask":
        answer = gate.admit(model, retry=given[1], who=given[0])
    elif what == "race":
        answer = [gate.admit(model, retry=False, who=f"{given[0]} {n}") for n in range(given[1])]
    elif what == "fail":
        kind, wait, times, who = given
        fault = Fault(kind, True, wait, "no", "0" * 16, "", "", (), None)
        for _ in range(times):
            gate.report(model, fault, who=who)
    elif what == "answer":
        for _ in range(given[0]):
            gate.report(model, None, who=given[1])
    elif what == "until refused":
        began, asked = clock.monotonic(), 0
        while (gate.peek(model) or gate.admit(model, retry=False, who="me")).go:
            asked += 1
        answer = clock.monotonic() - began
    print(json.dumps(answer), flush=True)
"""


class Process:
    """A process with a gate; ``start``: its clock stands still from then on, until it is advanced."""

    def __init__(self, url, start=START):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, url, str(start)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *command):
        print(json.dumps(command), file=self.process.stdin, flush=True)

    def hear(self):
        return json.loads(self.process.stdout.readline())

    def do(self, *command):
        self.tell(*command)
        return self.hear()

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=["redis", "postgres"])
def url(request):
    url = request.getfixturevalue(f"{request.param}_url")
    store = open_storage(url).storage
    store.measure()  # it is there, before several processes come at once
    yield url
    store.close()


@pytest.fixture
def processes(url):
    """Makes so many processes on one server, and ends them."""
    begun = []

    def make(number, start=START):
        new = [Process(url, start) for _ in range(number)]
        begun.extend(new)
        assert [one.hear() for one in new] == ["ready"] * number
        return new

    yield make
    for one in begun:
        one.kill()


def all_do(them, *command):
    """All at the same time; their answers."""
    for one in them:
        one.tell(*command)
    return [one.hear() for one in them]


def shared(url):
    (cell,) = open_storage(url).storage.cells([CELLS + "acme"])
    return decoded(cell.value)


def test_failures_of_all_add_up_and_all_wait_for_the_same(processes, url):
    them = processes(5)
    assert all(go for go, *_ in all_do(them, "ask", "first", False))
    all_do(them, "fail", "server_error", None, 1, "first")
    assert shared(url).model("large").breaker.until == START + 30
    all_do(them, "advance", 1.01)
    found = all_do(them, "ask", "first", False)
    assert [go for go, *_ in found] == [False] * 5
    assert all(START + 30 <= until <= START + 40 for _, until, *_ in found)


def test_exactly_one_of_all_processes_probes_and_all_hear_what_came_of_it(processes):
    them = processes(4)
    them[0].do("fail", "timeout", None, 5, "x")
    left = 30.0
    for pause in (60.0, 120.0, 240.0, 300.0):
        all_do(them, "advance", left + 0.01)
        for n, one in enumerate(them):
            one.tell("race", f"process {n}", 25)
        found = [one.hear() for one in them]
        went = [(n, k) for n, answers in enumerate(found) for k, (go, *_) in enumerate(answers) if go]
        assert len(went) == 1
        n, k = went[0]
        assert found[n][k][3] is True
        them[n].do("fail", "timeout", None, 1, f"process {n} {k}")
        all_do(them, "advance", 1.01)
        assert not any(go for go, *_ in all_do(them, "ask", "x", False))
        left = pause - 1.01


def test_a_probe_that_died_with_its_process_goes_to_another_one(processes):
    first, *others = processes(3)
    first.do("fail", "overloaded", None, 5, "x")
    for one in (first, *others):
        one.do("advance", 31.0)
    assert first.do("ask", "x", False)[3] is True
    first.kill()
    assert not any(go for go, *_ in all_do(others, "ask", "y", False))
    all_do(others, "advance", 61.0)
    assert sum(go for go, *_ in all_do(others, "ask", "y", False)) == 1


def test_places_of_all_processes_are_given_out_once(processes):
    them = processes(4)
    them[0].do("fail", "rate_limit", 10.0, 1, "x")
    all_do(them, "advance", 1.01)
    for n, one in enumerate(them):
        one.tell("race", f"process {n}", 100)
    until = sorted(until for one in them for _, until, *_ in one.hear())
    assert min(until) >= START + 10
    assert len(set(until)) == 400
    within = [
        sum(second <= at < second + 1 for at in until) for second in range(int(until[0]), int(until[-1]))
    ]
    assert max(within) <= 32  # 1 a second, growing by 1 a second: 400 in 28 s
    assert until[-1] - until[0] < 40


def test_no_call_is_lost_where_all_count_at_once(processes, url):
    them = processes(4)
    for _ in range(5):
        all_do(them, "answer", 100, "x")
        all_do(them, "advance", 1.01)
    all_do(them, "ask", "x", False)
    assert sum(calls for _, calls in shared(url).retries.slots) == 2_000
    assert sum(calls for _, calls, _ in shared(url).model("large").breaker.slots) == 2_000


def test_the_others_know_within_about_a_second_by_the_clock_on_the_wall(processes):
    one, *others = processes(4, start=0.0)
    for other in others:
        other.tell("until refused")
    began = time.perf_counter()
    one.do("fail", "connection", None, 5, "x")
    assert all(seconds < 60 for seconds in (other.hear() for other in others))
    assert time.perf_counter() - began < 4  # a second, and some on a busy machine


def test_without_its_server_it_goes_on_and_comes_back(redis_server, redis_url):
    clock = FakeClock(START)
    store = RedisStorage(redis_url, clock=clock, timeout_s=1.0, patience_s=0.0)
    gate = Gate(SharedCells(store), clock)
    try:
        assert gate.admit(MODEL, retry=False, who="a").go
        redis_server.kill()
        clock.advance(1.01)
        found = gate.admit(MODEL, retry=False, who="a")
        assert found.go
        assert gate.trouble(MODEL)
        assert gate.trouble(MODEL) in found.reason
        redis_server.start()
        redis_server.wait()
        clock.advance(5.01)
        assert gate.admit(MODEL, retry=False, who="a").reason == ""
    finally:
        store.close()
