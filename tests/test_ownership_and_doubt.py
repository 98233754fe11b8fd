"""Who may go on with a run, and what becomes of calls whose answer was never recorded."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

import doubles
from doubles import (
    Asking,
    Critic,
    Died,
    Model,
    busy,
    causes,
    chain_of,
    dead_owner,
    died,
    elsewhere,
    entry,
    log,
    of,
    priced,
    wanting,
)
from sifaka.errors import ChainError, FencedError, ModelError, OwnedError, UnknownChainError
from sifaka.log.records import Intent, Opened, Result
from sifaka.recovery import RecoveryAction, RecoveryStrategy
from sifaka.storage.leases import LEASE_S, decode, is_dead, myself
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.urls import open_storage
from sifaka.testing.clock import FakeClock

storage = doubles.storage
timed_storage = doubles.timed_storage
RETRY = RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5)


def take_over(store, owner):
    """Makes ``owner`` the owner of run r."""
    found = store.entry("r")
    assert store.claim("r", found.token, owner, store.now() + LEASE_S)


def held(store, owner):
    """A run that has begun, and is held by ``owner``."""
    with pytest.raises(KeyboardInterrupt):
        chain_of(Model(KeyboardInterrupt), store, chain_id="r").run()
    take_over(store, owner)


# Owners ------------------------------------------------------------------------------------


def test_an_identity_tells_host_process_start_and_boot():
    me = decode(myself())
    assert me.host == os.uname().nodename
    assert me.pid == os.getpid()
    assert me.started
    assert me.boot
    assert not is_dead(myself())


@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({"started": "never"}, True),
        ({"boot": "another"}, True),
        ({"host": "another", "started": "never"}, False),
        ({"namespace": "another", "started": "never"}, False),
        ({"boot": "", "started": "never"}, False),
    ],
    ids=["another process of that id", "another boot", "another host", "another namespace", "unknown boot"],
)
def test_death_is_only_believed_where_it_is_certain(change, dead):
    assert is_dead(doubles.owner_with(**change)) is dead


def test_the_number_of_a_process_that_is_gone_is_a_dead_owner():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_dead(doubles.owner_with(pid=child.pid))


def test_an_owner_that_is_dead_on_this_host_is_taken_over_at_once(storage):
    died(chain_of(Model(lambda _: doubles.die(storage, "r")), storage, chain_id="r"))
    assert storage.entry("r").lease_until > storage.now()
    assert chain_of(Model(), storage, chain_id="r").run().text == "text 0"
    assert causes(log(storage, "r")) == ["new", "death"]


CHILD = """
import os, signal, sys
from sifaka.chain import Chain

def model(prompt):
    print("called", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

Chain(model, "Write.", checkpoint_storage=sys.argv[1], chain_id="r").run()
"""


def test_a_killed_process_is_taken_over_at_once_and_its_call_is_in_doubt(tmp_path):
    url = f"sqlite:///{tmp_path}/runs.db"
    done = subprocess.run([sys.executable, "-c", CHILD, url], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "called\n")
    store = SQLiteStorage(tmp_path / "runs.db")
    assert entry(store, "r").status == "interrupted"

    def model(prompt):
        return "text"

    thought = chain_of(model, store, chain_id="r").run()
    assert thought.text == "text"
    assert [(one.operation, one.part) for one in thought.in_doubt] == [("generation", "model")]
    store.close()


def test_an_owner_that_lives_keeps_its_run_and_the_error_says_who_and_until_when(storage):
    held(storage, myself())
    model = Model()
    with pytest.raises(OwnedError) as caught:
        chain_of(model, storage, chain_id="r").run()
    error = caught.value
    assert f"process {os.getpid()} on {os.uname().nodename}" in str(error)
    assert "lease ends in" in str(error)
    assert "wait=" in str(error)
    assert error.until == pytest.approx(storage.now() + LEASE_S, abs=5)
    assert error.owner
    assert model.calls == 0


def test_another_chain_of_this_process_cannot_run_the_same_run_at_once(storage):
    other = Model()

    def model(prompt):
        with pytest.raises(OwnedError):
            chain_of(other, storage, chain_id="r").run()
        with pytest.raises(OwnedError):
            chain_of(other, storage, chain_id="r").resume()
        return "text"

    assert chain_of(model, storage, chain_id="r").run().text == "text"
    assert other.calls == 0


def test_an_owner_on_another_host_is_taken_over_when_its_lease_ends(timed_storage):
    store = timed_storage
    held(store, elsewhere())
    chain = chain_of(Model(), store, chain_id="r")
    store.clock.advance(LEASE_S - 1)
    with pytest.raises(OwnedError, match="another-host"):
        chain.run()
    store.clock.advance(2)
    assert chain.run().text == "text 0"
    assert causes(log(store, "r")) == ["new", "death"]


def test_wait_waits_for_a_living_owner(timed_storage):
    store = timed_storage
    held(store, elsewhere())
    chain = chain_of(Model(), store, chain_id="r")
    with pytest.raises(OwnedError):
        chain.resume(wait=30)
    assert sum(store.clock.slept) == pytest.approx(30)
    assert chain.resume(wait=60).text == "text 0"
    assert LEASE_S <= sum(store.clock.slept) <= LEASE_S + 1


def test_wait_waits_without_blocking_an_event_loop(timed_storage):
    store = timed_storage
    held(store, elsewhere())
    blocking = []
    store.clock.sleep = lambda seconds: blocking.append(seconds) or store.clock.advance(seconds)
    chain = chain_of(Model(), store, chain_id="r")
    for action in (None, RETRY):
        with pytest.raises(OwnedError):
            asyncio.run(chain.aresume(wait=10, action=action))
    assert blocking == []
    assert asyncio.run(chain.aresume(wait=90, action=RETRY)).text == "text 0"


def test_a_stream_can_wait_too(timed_storage):
    store = timed_storage
    held(store, elsewhere())
    assert list(chain_of(Model(), store, chain_id="r").stream(wait=90))
    assert entry(store, "r").status == "done"


def test_leases_are_measured_by_the_stores_clock(timed_storage):
    store = timed_storage
    fast = FakeClock(start=store.now() + 1_000_000)
    held(store, elsewhere())
    with pytest.raises(OwnedError):
        chain_of(Model(), store, chain_id="r", clock=fast).run()


def test_a_lease_is_renewed_while_a_call_is_in_flight(timed_storage):
    store = timed_storage

    def model(prompt):
        store.clock.advance(LEASE_S * 0.9)
        open_storage(store).journal._keeper.renew()
        store.clock.advance(LEASE_S * 0.9)
        seen.append(store.entry("r").lease_until - store.now())
        return "text"

    seen = []
    assert chain_of(model, store, chain_id="r").run().text == "text"
    assert seen == [pytest.approx(LEASE_S * 0.1)]


def test_a_thousand_small_runs_leave_no_threads_behind():
    for _ in range(40):
        chain_of(Model()).run()  # each with a memory of its own
    keepers = [one for one in threading.enumerate() if one.name == "sifaka-leases"]
    assert len(keepers) < 20


@pytest.mark.parametrize("end", ["done", "fault", "interrupt", "stream left", "usage"])
def test_the_lease_is_given_back_whatever_the_end(storage, end):
    steps = {"fault": KeyError("x"), "interrupt": KeyboardInterrupt}
    chain = chain_of(Model(steps.get(end, "text")), storage, chain_id="r")
    if end == "stream left":
        stream = chain.stream()
        next(stream)
        stream.close()
    elif end == "usage":
        with pytest.raises(KeyboardInterrupt):
            chain_of(Model(KeyboardInterrupt), storage, chain_id="r").run()
        with pytest.raises(Exception, match="plan"):
            chain_of(Model(), storage, chain_id="r", critics=[Critic()]).run()
    elif end == "done":
        chain.run()
    else:
        with pytest.raises((ChainError, KeyboardInterrupt)):
            chain.run()
    assert not storage.entry("r").owner
    assert not open_storage(storage).journal._keeper._held
    assert chain_of(Model(), storage, chain_id="r").run().text.startswith("text")


# Fences ------------------------------------------------------------------------------------


def test_a_late_answer_of_a_fenced_owner_is_refused(storage):
    def slow(prompt):
        take_over(storage, dead_owner())
        return priced("late")

    with pytest.raises(FencedError) as caught:
        chain_of(slow, storage, chain_id="r").run()
    assert caught.value.chain_id == "r"
    assert "somebody else" in str(caught.value)
    assert of(Result, log(storage, "r")) == []
    thought = chain_of(Model(), storage, chain_id="r").run()
    assert (thought.text, len(thought.in_doubt)) == ("text 0", 1)


def test_a_fenced_owner_does_not_take_the_lease_from_the_new_one(storage):
    def slow(prompt):
        take_over(storage, myself())
        return "late"

    with pytest.raises(FencedError):
        chain_of(slow, storage, chain_id="r").run()
    assert storage.entry("r").owner == myself()
    with pytest.raises(OwnedError):
        chain_of(Model(), storage, chain_id="r").run()


def test_a_lease_that_was_lost_is_renewed_no_more(storage):
    keeper = open_storage(storage).journal._keeper

    def slow(prompt):
        (lease,) = keeper._held
        take_over(storage, elsewhere())
        until = storage.entry("r").lease_until
        keeper.renew()
        assert (lease.lost, list(keeper._held)) == (True, [])
        assert storage.entry("r").lease_until == until
        return "late"

    with pytest.raises(FencedError):
        chain_of(slow, storage, chain_id="r").run()


def test_a_fenced_owner_recovers_nothing(storage):
    def slow(prompt):
        take_over(storage, myself())
        raise busy()

    with pytest.raises(FencedError):
        chain_of(slow, storage, chain_id="r").run_with_recovery()


def test_a_takeover_during_a_call_is_counted_as_in_doubt(storage):
    new = []

    def slow(prompt):
        take_over(storage, dead_owner())
        new.append(chain_of(Model("new"), storage, chain_id="r").run())
        return "late"

    with pytest.raises(FencedError):
        chain_of(slow, storage, chain_id="r").run()
    assert (new[0].text, len(new[0].in_doubt)) == ("new", 1)
    assert chain_of(Model(), storage, chain_id="r").run().text == "new"


def test_of_two_that_begin_one_run_at_once_one_is_refused_before_it_calls(storage):
    first, second = Model("first"), Model("second")
    chain = chain_of(first, storage, chain_id="r")
    journal = open_storage(storage).journal
    early = journal.claim("r")
    assert chain.run().text == "first"
    other = chain_of(second, storage, chain_id="r")
    engine = other._engine(other._state(early), early)
    from sifaka.drivers import drive

    with pytest.raises(FencedError):
        list(drive(engine.run(), journal, early, other._clock, other._advice))
    journal.release(early)
    assert second.calls == 0
    assert chain.run().text == "first"


# Doubt -------------------------------------------------------------------------------------


def in_doubt(storage, *texts, **options):
    """A run that died in a model call, after these texts."""
    model = Model(*texts, lambda _: doubles.die(storage, "r"), price_max=options.pop("price_max", None))
    died(chain_of(model, storage, chain_id="r", **options))


def test_a_doubtful_call_is_repeated_and_listed_with_its_highest_price(storage):
    in_doubt(storage, price_max=0.25)
    thought = chain_of(Model(price_max=0.5), storage, chain_id="r").run()
    (doubt,) = thought.in_doubt
    assert (doubt.operation, doubt.iteration, doubt.part, doubt.model, doubt.price_max_usd) == (
        "generation",
        0,
        "model",
        "scripted",
        0.25,
    )
    assert of(Opened, log(storage, "r"))[1].doubts == (doubt.seq,)
    assert isinstance(log(storage, "r")[doubt.seq], Intent)
    assert thought.cost == 0.0


def test_an_unknown_highest_price_is_none(storage):
    in_doubt(storage)
    assert chain_of(Model(), storage, chain_id="r").run().in_doubt[0].price_max_usd is None


def test_each_doubt_is_listed_once_and_stays_listed(storage):
    in_doubt(storage)
    in_doubt(storage)
    chain = chain_of(Model(KeyError("x")), storage, chain_id="r")
    with pytest.raises(ChainError) as caught:
        chain.run()
    assert len(caught.value.thought.in_doubt) == 3
    thought = chain_of(Model(), storage, chain_id="r", critics=[]).run()
    assert len({one.seq for one in thought.in_doubt}) == len(thought.in_doubt) == 3
    assert chain_of(Model(), storage, chain_id="r").run().in_doubt == thought.in_doubt


def test_doubts_are_still_listed_after_many_iterations(storage):
    critics = [wanting(5)]
    in_doubt(storage, critics=critics, max_improvement_iterations=5)
    with pytest.raises(KeyboardInterrupt):
        chain_of(
            Model("0", "1", "2", "3", KeyboardInterrupt),
            storage,
            chain_id="r",
            critics=critics,
            max_improvement_iterations=5,
        ).run()
    chain = chain_of(Model(), storage, chain_id="r", critics=critics, max_improvement_iterations=5)
    thought = chain.run()
    assert [(one.iteration, one.operation) for one in thought.in_doubt] == [
        (0, "generation"),
        (4, "generation"),
    ]


def test_a_call_that_was_answered_is_in_no_doubt(storage):
    in_doubt(storage, "text", critics=[wanting(1)])
    model = Model()
    thought = chain_of(model, storage, chain_id="r", critics=[wanting(1)]).run()
    assert [(one.part, one.iteration) for one in thought.in_doubt] == [("model", 1)]
    assert (thought.history[0].text, model.calls) == ("text", 1)


def test_on_doubt_stop_makes_no_call(storage):
    in_doubt(storage, price_max=0.25)
    model = Model()
    chain = chain_of(model, storage, chain_id="r", on_doubt="stop")
    with pytest.raises(ChainError, match="doubt") as caught:
        chain.run_with_recovery()
    assert model.calls == 0
    assert [one.price_max_usd for one in caught.value.thought.in_doubt] == [0.25]
    assert entry(storage, "r").status == "failed"
    assert "doubt" in entry(storage, "r").reason


def test_an_explicit_new_call_after_a_stop_for_doubt_goes_on(storage):
    in_doubt(storage)
    chain = chain_of(Model(), storage, chain_id="r", on_doubt="stop")
    with pytest.raises(ChainError):
        chain.run()
    thought = chain.run()
    assert (thought.text, len(thought.in_doubt)) == ("text 0", 1)


def test_on_doubt_stop_does_not_mind_a_run_without_doubts(storage):
    with pytest.raises(ChainError):
        chain_of(Model(ModelError("bad key", kind="auth")), storage, chain_id="r", on_doubt="stop").run()
    assert chain_of(Model(), storage, chain_id="r", on_doubt="stop").run().text == "text 0"


def test_an_action_can_be_recorded_on_a_run_in_doubt_whatever_the_policy(storage):
    in_doubt(storage)
    model = Model()
    chain = chain_of(model, storage, chain_id="r", on_doubt="stop")
    assert chain.apply_recovery_action(RETRY) is True
    assert model.calls == 0


@pytest.mark.parametrize(
    ("error", "doubtful"),
    [
        (TimeoutError(), True),
        (ConnectionResetError("reset by peer"), True),
        (ModelError("bad gateway", kind="server_error", status=500), True),
        (busy(), False),
        (ModelError("bad key", kind="auth", status=401), False),
        (ModelError("overloaded", kind="overloaded", status=529), False),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, BaseException) else str(one),
)
def test_a_failed_call_that_may_have_been_paid_is_in_doubt(storage, error, doubtful):
    chain = chain_of(Model(error, price_max=0.25), storage, chain_id="r")
    with pytest.raises(ChainError) as caught:
        chain.run()
    prices = [one.price_max_usd for one in caught.value.thought.in_doubt]
    assert prices == ([0.25] if doubtful else [])
    assert len(chain.run().in_doubt) == doubtful


@pytest.mark.parametrize("kind", ["malformed_output", "content_filter", "validation_failed", "truncated"])
def test_a_failed_call_that_was_paid_is_never_unreported(storage, kind):
    model = Model(ModelError("it answered, but", kind=kind), price_max=0.25)
    chain = chain_of(model, storage, chain_id="r")
    with pytest.raises(ChainError) as caught:
        chain.run()
    thought = caught.value.thought
    assert len(thought.in_doubt) + thought.cost_unknown_calls == 1


def test_on_doubt_stop_repeats_no_call_that_may_have_been_paid_within_a_life_either(storage):
    model = Model(TimeoutError())
    chain = chain_of(model, storage, chain_id="r", on_doubt="stop")
    with pytest.raises(ChainError) as caught:
        chain.run_with_recovery()
    assert model.calls == 1
    assert len(caught.value.thought.in_doubt) == 1
    assert chain.run_with_recovery().text == "text 1"


def test_the_doubtful_calls_of_parts_that_ran_together_are_all_listed(storage):
    both, dead = doubles.Barrier(2), doubles.Event()

    def die(prompt):
        both.wait()
        if prompt.startswith("a"):
            try:
                doubles.die(storage, "r")
            finally:
                dead.set()
        dead.wait()
        raise Died

    asked = Model(die, die, name="asked", price_max=0.1)
    critics = [Asking("a", ["why"], asked), Asking("b", ["why"], asked)]
    died(chain_of(Model(), storage, chain_id="r", critics=critics))
    critics = [Asking("a", ["why"]), Asking("b", ["why"])]
    thought = chain_of(Model(), storage, chain_id="r", critics=critics).run()
    assert sorted(one.part for one in thought.in_doubt) == ["a", "b"]
    assert [one.price_max_usd for one in thought.in_doubt] == [0.1, 0.1]


def test_a_run_that_nobody_began_cannot_be_waited_for(storage):
    with pytest.raises(UnknownChainError):
        chain_of(Model(), storage).resume("r", wait=5)
