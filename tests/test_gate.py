"""The gate before every call: what it answers, what it costs, what it does without its store, and a storm."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections import Counter

import msgspec
import pytest

from sifaka.errors import StorageError
from sifaka.faults import Fault
from sifaka.log.records import Opened
from sifaka.log.state import State
from sifaka.recovery import RecoveryAction, RecoveryStrategy
from sifaka.recovery.gate import CELLS, Admission, Gate, GateSettings
from sifaka.recovery.gate.shared import decoded
from sifaka.recovery.limits import Budget, Limits, as_quota, overdue, refusal, seconds_left
from sifaka.storage.cells import SharedCells
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.wrapper import StorageWrapper
from sifaka.testing import FakeClock

MODEL = "acme:large"


def fault(kind="server_error", *, transient=True, wait=None):
    return Fault(kind, transient, wait, "no", "0" * 16, "", "", (), None)


class Watched(StorageWrapper):
    """Counts the round trips for cells, and fails while it is told to."""

    def __init__(self, inner):
        super().__init__(inner)
        self.reads = self.swaps = 0
        self.down = False

    def cells(self, names):
        self.reads += 1
        self._check()
        return super().cells(names)

    def swap(self, name, value, version):
        self.swaps += 1
        self._check()
        return super().swap(name, value, version)

    def _check(self):
        if self.down:
            raise StorageError("the disk is gone")


class World:
    """A store, a clock, and as many processes as are asked for."""

    def __init__(self):
        self.clock = FakeClock()
        self.store = Watched(InMemoryStorage(clock=self.clock))
        self.store.clock = self.clock

    def gate(self, **settings):
        settings = GateSettings(**settings) if settings else None
        return Gate(SharedCells(self.store), self.clock, settings=settings)

    def shared(self, provider="acme"):
        (cell,) = self.store.inner.cells([CELLS + provider])
        return decoded(cell.value)

    def pass_to(self, until):
        self.clock.advance(max(0.0, until - self.clock.time()))


@pytest.fixture
def world():
    return World()


def ask(gate, who="a", *, retry=False, model=MODEL):
    return gate.admit(model, retry=retry, who=who)


def fail(gate, times=5, kind="server_error", who="a", **more):
    for _ in range(times):
        gate.report(MODEL, fault(kind, **more), who=who)


# Going and waiting -------------------------------------------------------------------------


def test_where_nothing_is_known_a_call_may_go(world):
    gate = world.gate()
    assert gate.peek(MODEL) is None
    assert ask(gate) == Admission(True)
    assert gate.peek(MODEL) == Admission(True)


def test_after_five_failures_in_a_row_nobody_calls_for_half_a_minute(world):
    gate, start = world.gate(), world.clock.time()
    fail(gate, 4)
    assert ask(gate).go
    fail(gate, 1)
    found = [ask(gate, str(n)) for n in range(9)]
    assert not any(one.go for one in found)
    assert found[0].until == start + 30
    assert all(start + 30 <= one.until <= start + 40 for one in found)
    assert len({one.until for one in found}) == 9
    assert found[0].reason == f"{MODEL} has failed too often; it is tried again in 30 s"
    assert gate.peek(MODEL).go is False


def test_other_models_of_the_provider_are_not_held_up(world):
    gate = world.gate()
    fail(gate)
    assert not ask(gate).go
    assert ask(gate, model="acme:small").go
    assert ask(gate, model="other:large").go


@pytest.mark.parametrize(
    "kind", ["auth", "content_filter", "invalid_request", "not_found", "quota_exhausted"]
)
def test_what_is_the_callers_own_fault_opens_nothing(world, kind):
    gate = world.gate()
    fail(gate, 50, kind, transient=False)
    assert ask(gate).go
    assert gate.peek(MODEL).go


def test_one_probe_goes_and_its_answer_lets_the_others_follow_one_after_another(world):
    gate = world.gate()
    fail(gate)
    world.clock.advance(30)
    probe = ask(gate, "first")
    assert (probe.go, probe.probe) == (True, True)
    others = [ask(gate, str(n)) for n in range(20)]
    assert not any(one.go for one in others)
    assert not any(one.until < world.clock.time() + 2 for one in others)
    assert gate.peek(MODEL).go is False
    gate.report(MODEL, None, who="first")
    times = [world.clock.time() if one.go else one.until for one in (ask(gate, str(n)) for n in range(20))]
    assert times == sorted(times)
    assert 4 < times[-1] - times[0] < 8  # 20 places at 1 a second and growing
    world.pass_to(times[7])
    assert ask(gate, "7").go
    assert not ask(gate, "19").go
    assert ask(gate, "19").until == times[19]  # a promise stays what it was


def test_a_probe_that_fails_doubles_the_pause(world):
    gate = world.gate()
    fail(gate)
    for pause in (60, 120, 240, 300, 300):
        world.pass_to(ask(gate, "a").until)
        assert ask(gate, "a").probe
        now = world.clock.time()
        gate.report(MODEL, fault("timeout"), who="a")
        assert ask(gate, "a").until == now + pause


def test_a_probe_whose_owner_died_goes_to_another_process(world):
    dead, other = world.gate(), world.gate()
    fail(dead)
    world.clock.advance(30)
    assert ask(dead, "a").probe
    world.clock.advance(59)
    assert not ask(other, "a").go
    world.clock.advance(2)
    assert ask(other, "a").probe


def test_a_claim_is_the_callers_own_and_its_second_call_is_no_probe(world):
    gate = world.gate()
    fail(gate)
    world.clock.advance(30)
    assert ask(gate, "a").probe
    assert not ask(gate, "a").go
    assert not ask(world.gate(), "a").go


def test_a_probe_that_is_not_made_after_all_is_given_back(world):
    gate = world.gate()
    fail(gate)
    world.clock.advance(30)
    assert ask(gate, "a").probe
    assert not gate.withdraw(MODEL, who="b")
    assert gate.withdraw(MODEL, who="a")
    gate.sync(MODEL)
    assert ask(world.gate(), "c").probe


def test_only_the_probe_itself_is_told_as_one(world):
    gate = world.gate()
    fail(gate)
    world.clock.advance(30)
    assert ask(gate, "a").probe
    gate.report(MODEL, None, who="a")
    before = world.store.swaps
    for _ in range(100):
        gate.report(MODEL, None, who="a")
    assert world.store.swaps == before


def test_a_stated_wait_is_everybodys_and_is_no_failure(world):
    gate, other, start = world.gate(), world.gate(), world.clock.time()
    assert ask(other).go
    fail(gate, 20, "rate_limit", wait=20.0)
    world.clock.advance(1.01)
    for one in (gate, other):
        found = [ask(one, f"{id(one)}{n}") for n in range(3)]
        assert not any(a.go for a in found)
        assert all(a.until >= start + 20 for a in found)
    assert world.shared().model("large").breaker.until == 0
    world.clock.advance(20 - 1.01 - 0.001)
    assert not ask(gate, "late").go


def test_rate_limits_that_state_no_wait_count_as_failures(world):
    gate = world.gate()
    fail(gate, 5, "rate_limit")
    assert not ask(gate).go


@pytest.mark.parametrize("wait", [300.5, 86_400.0])
def test_a_wait_above_five_minutes_holds_nobody_up(world, wait):
    gate = world.gate()
    fail(gate, 1, "rate_limit", wait=wait)
    assert ask(gate).go


def test_no_probe_is_made_before_a_stated_wait_is_over(world):
    gate, start = world.gate(), world.clock.time()
    fail(gate, 5, "overloaded", wait=90.0)
    world.clock.advance(40)
    found = ask(gate)
    assert not found.go
    assert found.until >= start + 90


# Retries -----------------------------------------------------------------------------------


def test_retries_without_a_token_wait_until_one_is_expected_each_at_its_own_time(world):
    gate, start = world.gate(), world.clock.time()
    for _ in range(1_200):
        gate.report(MODEL, None, who="a")
    world.clock.advance(1)
    found = [ask(gate, str(n), retry=True) for n in range(40)]
    waits = [one.until - start - 1 for one in found if not one.go]
    assert sum(one.go for one in found) == 3
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(len(waits), abs=2)  # a tenth of 1,200 in 120 s: one a second
    assert "retry budget of acme" in next(one.reason for one in found if not one.go)
    world.pass_to(found[20].until)
    assert ask(gate, "20", retry=True).go
    assert not ask(gate, "39", retry=True).go


def test_first_calls_need_no_token(world):
    gate = world.gate()
    while ask(gate, str(world.store.swaps), retry=True).go:
        pass
    assert all(ask(gate, f"first {n}").go for n in range(50))


def test_who_can_be_promised_no_token_asks_again_and_is_never_refused_for_good(world):
    gate, left, asked = world.gate(), {str(n) for n in range(20)}, 0
    start = world.clock.time()
    due = [(start, one) for one in sorted(left)]
    heapq.heapify(due)
    while due:
        at, who = heapq.heappop(due)
        world.pass_to(at)
        asked += 1
        found = ask(gate, who, retry=True)
        if not found.go:
            assert found.until > world.clock.time()
            heapq.heappush(due, (found.until, who))
    passed = world.clock.time() - start
    assert (20 - 3) / passed * 60 <= 3.001  # three a minute, after the three that were there
    assert passed < 900
    assert asked < 300


# Several processes -------------------------------------------------------------------------


def test_what_one_process_finds_out_the_others_know_within_about_a_second(world):
    one, other = world.gate(), world.gate()
    assert ask(other).go
    fail(one)
    assert other.peek(MODEL).go  # not yet
    world.clock.advance(1.01)
    assert other.peek(MODEL) is None
    assert not ask(other).go


def test_failures_of_several_processes_add_up(world):
    gates = [world.gate() for _ in range(5)]
    for gate in gates:
        fail(gate, 1)
    assert world.shared().model("large").breaker.until
    assert not ask(world.gate()).go


def test_answers_of_one_process_end_the_row_of_another(world):
    one, other = world.gate(), world.gate()
    fail(one, 4)
    assert ask(other).go
    other.report(MODEL, None, who="b")
    world.clock.advance(0.2)
    fail(one, 1)
    assert ask(one).go


def test_of_many_processes_that_race_for_the_probe_one_gets_it(world):
    first = world.gate()
    fail(first)
    world.clock.advance(31)
    gates, found, begin = [world.gate() for _ in range(8)], [], threading.Barrier(16)

    def race(n):
        begin.wait()
        found.append(ask(gates[n % 8], f"w{n}"))

    threads = [threading.Thread(target=race, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.probe for one in found) == 1
    assert sum(one.go for one in found) == 1


def test_places_of_several_processes_do_not_overlap(world):
    gates = [world.gate() for _ in range(4)]
    fail(gates[0], 1, "rate_limit", wait=10.0)
    world.clock.advance(1.01)
    until = [ask(gate, f"{n}").until for n in range(50) for gate in gates]
    assert len(set(until)) == 200
    assert max(Counter(int(at) for at in until).values()) <= 25


# What it costs -----------------------------------------------------------------------------


def test_a_peek_asks_nobody(world):
    gate = world.gate()
    ask(gate)
    before = world.store.reads
    assert all(gate.peek(MODEL).go for _ in range(1_000))
    assert world.store.reads == before


def test_a_peek_takes_less_than_five_microseconds():
    from timeit import repeat

    from sifaka.clock import SystemClock

    gate = Gate(SharedCells(InMemoryStorage()), SystemClock(), settings=None)
    ask(gate)

    def peeks():
        for _ in range(1_000):
            gate.peek(MODEL)

    ask(gate)
    assert min(repeat(peeks, number=1, repeat=20)) / 1_000 < 5e-6


def test_a_thousand_calls_in_a_second_change_the_cell_once_or_twice(world):
    gate = world.gate()
    for n in range(10_000):
        if gate.peek(MODEL) is None:
            ask(gate, str(n))
        gate.report(MODEL, None, who=str(n))
        world.clock.advance(0.001)
    assert world.store.swaps <= 12
    assert world.store.reads <= 25
    world.clock.advance(1)
    ask(gate)
    assert sum(calls for _, calls in world.shared().retries.slots) == 10_000


def test_a_thousand_failures_at_once_change_the_cell_a_few_times(world):
    gate = world.gate()
    ask(gate)
    for n in range(1_000):
        gate.report(MODEL, fault(), who=str(n))
    assert world.shared().model("large").breaker.until
    assert world.store.swaps <= 3


def test_some_failures_among_many_answers_change_it_ten_times_a_second_at_most(world):
    gate = world.gate()
    for n in range(2_000):
        gate.report(MODEL, fault() if n % 5 == 0 else None, who=str(n))
        world.clock.advance(0.005)
    assert ask(gate).go
    assert world.store.swaps <= 110


def test_a_thousand_that_wait_change_the_cell_a_few_times(world):
    gate = world.gate()
    fail(gate, 1, "rate_limit", wait=60.0)
    before = world.store.swaps
    assert not any(ask(gate, str(n)).go for n in range(1_000))
    assert world.store.swaps - before <= 25


def test_who_fails_while_another_thread_tells_leaves_it_to_that_one(world):
    gate, other = world.gate(), threading.Event()
    ask(gate)
    swap, inside = world.store.swap, []

    def slow(name, value, version):
        if not inside:
            inside.append(True)
            thread = threading.Thread(target=lambda: [fail(gate, 1, who="b") for _ in range(9)])
            thread.start()
            thread.join(10)  # it does not wait for this thread's exchange
            assert not thread.is_alive()
            other.set()
        return swap(name, value, version)

    world.store.swap = slow
    fail(gate, 1)
    assert other.is_set()
    assert world.shared().model("large").breaker.until  # all ten were handed in, by this thread


def test_what_another_thread_has_seen_to_is_not_asked_for_again(world):
    class Seen:
        def is_open(self):
            return False

        def change(self, known, now):
            raise AssertionError("it was made all the same")

        settle = change

    gate = world.gate()
    ask(gate)
    before = world.store.reads, world.store.swaps
    gate._desk(MODEL)[0].exchange.grant(Seen())
    assert (world.store.reads, world.store.swaps) == before


def test_many_threads_that_wait_for_places_share_what_one_of_them_took(world):
    gate = world.gate()
    fail(gate, 1, "rate_limit", wait=60.0)
    before, begin, until = world.store.swaps, threading.Barrier(32), []

    def wait(n):
        begin.wait()
        until.append(ask(gate, str(n)).until)

    threads = [threading.Thread(target=wait, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(until)) == 32
    assert world.store.swaps - before <= 6  # 2 + 4 + 8 + 16 + 32 places, at most


# Without the store -------------------------------------------------------------------------


def test_without_its_store_it_goes_on_with_what_it_knows_and_says_so(world):
    gate = world.gate()
    world.store.down = True
    found = ask(gate)
    assert found.go
    assert "the disk is gone" in found.reason
    assert "the disk is gone" in gate.trouble(MODEL)
    assert "the disk is gone" in gate.peek(MODEL).reason
    fail(gate)
    found = ask(gate)
    assert not found.go
    assert "as far as this process knows: the disk is gone" in found.reason
    world.clock.advance(31)
    assert ask(gate).probe
    gate.report(MODEL, None, who="a")
    assert ask(gate, "b").go
    assert ask(gate, "b", retry=True).until > world.clock.time()  # a place, one after another


def test_a_store_that_is_away_is_asked_every_few_seconds_alone(world):
    gate = world.gate()
    world.store.down = True
    for n in range(1_000):
        ask(gate, str(n))
        gate.report(MODEL, fault() if n % 10 == 0 else None, who=str(n))
        world.clock.advance(0.02)
    assert world.store.reads <= 6


def test_what_it_found_out_meanwhile_is_told_when_the_store_is_back(world):
    gate, other = world.gate(), world.gate()
    ask(other)
    world.store.down = True
    fail(gate)
    world.store.down = False
    world.clock.advance(5.01)
    assert not ask(gate).go
    assert gate.trouble(MODEL) == ""
    assert not ask(other).go


def test_what_the_others_found_out_meanwhile_is_not_undone(world):
    gate, cut_off = world.gate(), Watched(world.store.inner)
    cut_off.clock = world.clock
    alone = Gate(SharedCells(cut_off), world.clock)
    cut_off.down = True
    assert ask(alone).go
    for _ in range(5):
        gate.report("acme:small", fault(), who="a")
    fail(gate)
    cut_off.down = False
    world.clock.advance(5.01)
    assert not ask(alone).go
    assert not ask(alone, model="acme:small").go
    assert world.shared().model("small").breaker.until


def test_a_store_that_fails_while_a_probe_is_claimed_stops_nobody(world):
    gate = world.gate()
    fail(gate)
    world.clock.advance(31)
    world.store.down = True
    assert ask(gate).probe
    assert not ask(gate, "b").go


def test_a_cell_full_of_nonsense_is_begun_anew(world):
    for version, value in enumerate((b"\xff\x00nonsense", b"\x93\x01\x02\x03")):
        assert world.store.inner.swap(CELLS + "acme", value, 2 * version)
        gate = world.gate()
        assert ask(gate).go
        fail(gate, 1)
    assert world.shared().model("large").breaker.streak == 1


def test_a_lost_acknowledgement_makes_no_second_probe(world):
    gate = world.gate()
    fail(gate)
    world.clock.advance(31)
    swap, lost = world.store.swap, []

    def loses(name, value, version):
        done = swap(name, value, version)
        if not lost:
            lost.append(True)
            return False  # it was written, and the other end is told that it was not
        return done

    world.store.swap = loses
    assert ask(gate).probe
    assert not ask(world.gate(), "b").go


# A run's own deadline ----------------------------------------------------------------------


def opened(at):
    state = State("r")
    state.apply(Opened(at, "r", "a prompt", parts=(), settings={}))
    return state


def retry_in(seconds):
    return RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5, delay_s=seconds)


def refused(action, state, now, **limits):
    return refusal(action, state, ("model",), Limits(**limits), Budget(), now)


def test_the_deadline_counts_from_the_runs_first_opening_through_all_its_lives():
    state = opened(1_000.0)
    state.apply(Opened(1_050.0, "r", None, parts=None, settings=None, life=1, cause="death"))
    limits = Limits(deadline_s=60.0)
    assert seconds_left(limits, state, 1_059.0) == 1.0
    assert overdue(limits, state, 1_059.9) is None
    assert overdue(limits, state, 1_060.0) == "the deadline of 60 s after the run was opened is past"
    assert seconds_left(Limits(), state, 9e9) is None
    assert overdue(Limits(), state, 9e9) is None
    assert seconds_left(limits, State("new"), 9e9) == 60.0


def test_no_wait_passes_the_deadline_also_one_that_is_no_attempt():
    state = opened(1_000.0)
    for counts in (True, False):
        action = msgspec.structs.replace(retry_in(10.0), counts=counts)
        assert refused(action, state, 1_049.0, deadline_s=60.0) is None
        assert refused(action, state, 1_050.0, deadline_s=60.0) == "waiting 10 s would pass the deadline"
        assert "is past" in refused(action, state, 1_060.0, deadline_s=60.0)
        assert refused(action, state, 9_999.0) is None


@pytest.mark.parametrize(
    ("wait", "left", "kind"),
    [
        (300.0, None, "overloaded"),
        (300.1, None, "quota_exhausted"),
        (20.0, 20.5, "overloaded"),
        (20.0, 20.0, "quota_exhausted"),
        (None, 0.0, "overloaded"),
    ],
)
def test_a_stated_wait_that_is_too_long_is_an_exhausted_quota(wait, left, kind):
    given = fault("overloaded", wait=wait)
    found = as_quota(given, left)
    assert (found.kind, found.transient) == (kind, kind == "overloaded")
    assert (found.signature == given.signature) is (kind == "overloaded")
    assert as_quota(fault("auth", transient=False, wait=999.0), 0.0).kind == "auth"


# A storm -----------------------------------------------------------------------------------


class Storm:
    """Callers in virtual time, in some processes, at a provider that is dead for a while.

    Each makes ``calls`` calls: one takes about two seconds, the next follows after about eight. A failed one
    is tried again after a random delay. ``made`` are the times of calls, ``failed`` those that failed.
    """

    def __init__(self, callers, processes, calls, dead, seed=1):
        self.world = World()
        self.begin = self.world.clock.time()
        self.dead = dead
        self.random = random.Random(seed)
        self.gates = [self.world.gate() for _ in range(processes)]
        self.left = dict.fromkeys(range(callers), calls)
        self.made, self.failed, self.probes, self.asked = [], [], 0, 0
        self.waits = Counter()
        self.events, self.order = [], itertools.count()
        for caller in self.left:
            self.later(self.random.uniform(0, 10), self.ask, caller, False)

    def later(self, seconds, what, *given):
        heapq.heappush(self.events, (self.now + seconds, next(self.order), what, given))

    @property
    def now(self):
        return self.world.clock.time() - self.begin

    def run(self, until=7_200.0):
        while self.events and self.now < until:
            at, _, what, given = heapq.heappop(self.events)
            self.world.clock.advance(max(0.0, at - self.now))
            what(*given)
        return self

    def is_dead(self):
        return self.dead[0] <= self.now < self.dead[1]

    def ask(self, caller, retry):
        gate, who = self.gates[caller % len(self.gates)], f"run {caller}"
        self.asked += 1
        found = (None if retry else gate.peek(MODEL)) or gate.admit(MODEL, retry=retry, who=who)
        if not found.go:
            self.waits[caller] += 1
            self.later(max(0.001, found.until - self.world.clock.time()), self.ask, caller, retry)
            return
        self.probes += found.probe
        self.made.append(self.now)
        seconds = self.random.uniform(1, 3)
        self.later(seconds, self.answer, caller, self.is_dead())

    def answer(self, caller, failed):
        failed = failed or self.is_dead()
        self.gates[caller % len(self.gates)].report(MODEL, fault() if failed else None, who=f"run {caller}")
        if failed:
            self.failed.append(self.now)
            self.later(self.random.uniform(0, 1), self.ask, caller, True)
            return
        self.left[caller] -= 1
        if self.left[caller]:
            self.later(self.random.uniform(6, 10), self.ask, caller, False)

    def per_second(self, start, end):
        return Counter(int(at) for at in self.made if start <= at < end)


@pytest.mark.parametrize(("processes", "seed"), [(1, 1), (8, 2)])
def test_a_thousand_callers_meet_an_outage_of_ten_minutes(processes, seed):
    storm = Storm(1_000, processes, calls=40, dead=(120.0, 720.0), seed=seed).run()
    assert not any(storm.left.values()), "all end"
    steady = storm.per_second(60, 120)
    during = [at for at in storm.made if 120 <= at < 720]
    in_flight = sum(117 <= at < 120 for at in storm.made)
    # Until the first failures are heard, a second or so, calls go on; then only the probes do.
    first = sum(120 <= at < 124 for at in during)
    assert first <= 4 * max(steady.values())
    assert len(during) - first <= storm.probes <= 8
    assert len(storm.failed) <= in_flight + len(during)
    back = next(at for at in storm.made if at >= 720)
    assert back - 720 <= 305 + 10
    after = storm.per_second(back, back + 600)
    seconds = [after.get(int(back) + n, 0) for n in range(120)]
    growth = [sum(seconds[n : n + 5]) / 5 for n in range(0, 60, 5)]
    summary = {
        "calls while dead": len(during),
        "of them probes or later": len(during) - first,
        "steady calls/s": max(steady.values()),
        "max calls/s after": max(after.values()),
        "calls/s by 5 s after": growth,
        "asked": storm.asked,
        "most waits of one": max(storm.waits.values()),
        "reads": storm.world.store.reads,
        "swaps": storm.world.store.swaps,
        "seconds": round(storm.now),
    }
    print(summary)
    assert max(after.values()) <= 1.3 * max(steady.values()), summary
    assert max(seconds[:10]) <= 15 * processes**0.5, summary
    assert storm.world.store.swaps / storm.now <= 4 * processes, summary


def test_a_thousand_callers_that_all_start_amid_an_outage_all_end():
    storm = Storm(1_000, 4, calls=3, dead=(0.0, 600.0), seed=3).run()
    assert not any(storm.left.values())
    assert storm.now < 1_200
    late = [at for at in storm.made if 5 <= at < 600]
    assert len(late) <= storm.probes <= 8


def test_a_provider_that_fails_now_and_then_gets_few_repeats_and_everybody_ends():
    class Flaky(Storm):
        def is_dead(self):
            return self.random.random() < 0.15

    storm = Flaky(300, 4, calls=20, dead=(0, 0), seed=4).run()
    assert not any(storm.left.values())
    assert len(storm.made) <= 300 * 20 * 1.6
