"""Runs to be kept, moved and cleaned up: what they write depends on what they were asked, and on nothing else.

So a run that goes on after a clean-up or a move writes what its untouched twin writes, or a test fails.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest

from doubles import Died, die
from sifaka.chain import Chain
from sifaka.errors import ChainError, ModelError, StorageError
from sifaka.parts import Reply, Request, Usage
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.storage.base import Query, Storage
from sifaka.storage.wrapper import StorageWrapper
from sifaka.testing.clock import FakeClock
from sifaka.thought import CriticFeedback, Document, ValidationResult

__all__ = [
    "HOOKS",
    "KINDS",
    "Asker",
    "Interrupted",
    "Scorer",
    "Teller",
    "Writer",
    "a_chain",
    "done",
    "every_kind_of_run",
    "failed",
    "interrupted",
    "opener",
    "records",
    "resumed",
    "rows",
    "shown",
    "texts",
    "whole",
    "wild",
]

HOOKS = (
    "write",
    "rows",
    "entry",
    "entries",
    "claim",
    "renew",
    "delete",
    "trim",
    "cells",
    "swap",
    "cell_names",
    "compact",
)
"""The hooks that keeping, moving and checking use."""


class Interrupted(StorageWrapper):
    """Raises at hook call number ``at`` (from 0), before it or after it; counts the calls in ``calls``."""

    def __init__(self, inner: Storage, at=-1, when="before", error=StorageError):
        super().__init__(inner)
        self.calls = 0
        for name in HOOKS:
            setattr(self, name, self._hook(getattr(inner, name), at, when, error))
        self.face = None

    def _hook(self, hook, at, when, error):
        def call(*args, **kwargs):
            number, self.calls = self.calls, self.calls + 1
            if number == at and when == "before":
                raise error("interrupted")
            found = hook(*args, **kwargs)
            if number == at:
                raise error("interrupted")
            return found

        return call


def mark(text):
    """A word that only this text leads to."""
    return "word" + sha256(text.encode()).hexdigest()[:12]


class Writer:
    """A model: each text has a word of its own in it, and costs something. Fails at the calls in ``fails``."""

    name = "writer"

    def __init__(self, fails=(), words=40, price=0.25):
        self.calls = 0
        self.prompts = []
        self._fails = dict(fails)
        self._words = words
        self._price = price

    def price_max_usd(self, prompt, options):
        return 1.0

    def generate(self, prompt, **options):
        self.calls += 1
        self.prompts.append(prompt)
        if self.calls in self._fails:
            step = self._fails[self.calls]
            if callable(step):
                step()
            raise step
        filler = " ".join(f"{mark(prompt)[4:9]}{n}" for n in range(self._words))
        return Reply(f"{mark(prompt)} {filler}", usage=Usage(10, 5), price_usd=self._price)


class Scorer:
    """A validator whose score hangs on the text alone; it never passes, so that runs are as long as they may."""

    def __init__(self, name="scorer", passes=0.0):
        self.name = name
        self.calls = 0
        self._passes = passes

    def validate(self, thought):
        self.calls += 1
        score = int(sha256((self.name + thought.text).encode()).hexdigest()[:4], 16) / 0x10000
        return ValidationResult(
            score < self._passes, f"verdict {mark(thought.text + self.name)}", score=score
        )


class Teller:
    """A critic, one opaque call."""

    def __init__(self, name="teller"):
        self.name = name
        self.calls = 0

    def critique(self, thought):
        self.calls += 1
        return CriticFeedback(True, f"feedback {mark(thought.text + self.name)}", confidence=0.5)


class Asker:
    """A critic that asks the chain's model."""

    def __init__(self, name="asker"):
        self.name = name
        self.calls = 0

    def critique(self, thought):
        self.calls += 1
        reply = yield Request(f"{self.name}: what of {thought.text[:16]}?")
        return CriticFeedback(True, reply.text[:16])


class Finder:
    """A retriever."""

    def __init__(self, name):
        self.name = name
        self.calls = 0

    def retrieve(self, query):
        self.calls += 1
        return [Document(f"found {mark(self.name + query)}", id=f"{self.name}-{n}") for n in range(2)]


def a_chain(storage, chain_id, *, model=None, iterations=12, clock=None, asks=True, passes=0.0, **options):
    """A chain with every kind of part."""
    chain = Chain(
        model or Writer(),
        "Write of the sea.",
        checkpoint_storage=storage,
        chain_id=chain_id,
        max_improvement_iterations=iterations,
        clock=clock or FakeClock(),
        **options,
    )
    critics = [Teller(), Asker()] if asks else [Teller()]
    chain.with_model_retrievers([Finder("finder")]).with_critic_retrievers([Finder("reader")])
    chain.with_options(batch_size=1)  # twins must have their records in one order
    return chain.validate_with(Scorer("scorer", passes), Scorer("other", passes)).improve_with(*critics)


def done(storage, chain_id="done", **more):
    """A run to its end."""
    return a_chain(storage, chain_id, **more).run()


def failing(storage, chain_id, at, *, words=40, **more):
    """A run whose model fails at call ``at``; the chain, to go on with."""
    model = Writer({at: ModelError("bad key", kind="auth", status=401)}, words)
    chain = a_chain(storage, chain_id, model=model, **more)
    try:
        chain.run()
    except ChainError:
        return chain
    raise AssertionError("the model did not fail")


def failed(storage, chain_id="failed", at=12, **more):
    """A run that failed in the middle."""
    failing(storage, chain_id, at, **more)


def resumed(storage, chain_id="resumed", at=12, **more):
    """A run that failed and went on to its end: more than one token."""
    failing(storage, chain_id, at, **more)
    return failing(storage, chain_id, 9, **more).resume()


def interrupted(storage, chain_id="interrupted", at=7, **more):
    """A run whose process died in a call: that call is in doubt."""
    model = Writer({at: lambda: die(storage, chain_id)})
    try:
        a_chain(storage, chain_id, model=model, **more).run()
    except Died:
        return
    raise AssertionError("it did not die")


RESTARTS = (
    RecoveryStrategy.RESTART_ITERATION,
    RecoveryStrategy.RESTART_FROM_GENERATION,
    RecoveryStrategy.FULL_RESTART,
    RecoveryStrategy.RETRY_CURRENT_STEP,
)


def wild(storage, chain_id, seed, **more):
    """A run with failures and restarts here and there; the seed decides. It ends failed, or done."""
    more.setdefault("iterations", 6 + seed % 9)
    number = seed
    for life in range(seed % 5):
        number = (number * 1103515245 + 12345) % 2**31
        try:
            failing(storage, chain_id, 2 + number % 11, **more)
        except AssertionError:
            return
        strategy = RESTARTS[(number >> 8) % len(RESTARTS)]
        chain = a_chain(storage, chain_id, **more)
        if life % 2 == 0:
            chain.apply_recovery_action(RecoveryAction(strategy, "again", 0.5))
    if seed % 3 == 0:
        a_chain(storage, chain_id, **more).run()
    else:
        try:
            failing(storage, chain_id, 5 + number % 17, **more)
        except AssertionError:
            return


def records(storage, chain_id):
    """A run's records, verified."""
    from sifaka.storage.reading import read

    return list(read(storage, chain_id))


def rows(storage, chain_id):
    """A run's rows."""
    return list(storage.rows(chain_id))


def texts(some):
    """All words in records that only one text leads to, in order."""
    import re

    return re.findall(r"word[0-9a-f]{12}", repr(some))


KINDS = ("memory", "sqlite", "redis", "postgres")
"""The stores that runs are moved between; all of them have the same hooks."""


class Opener:
    """Opens empty stores by kind, and closes them; a server's is one a test."""

    def __init__(self, request, folder):
        self._request = request
        self._folder = folder
        self._opened = []

    def __call__(self, kind):
        from sifaka.storage.memory import InMemoryStorage
        from sifaka.storage.sqlite import SQLiteStorage
        from sifaka.storage.urls import open_storage

        if kind == "memory":
            store = InMemoryStorage()
        elif kind == "sqlite":
            store = SQLiteStorage(self._folder / f"{len(self._opened)}.db")
        else:
            store = open_storage(self._request.getfixturevalue(f"{kind}_url")).storage
        self._opened.append(store)
        return store

    def close(self):
        for store in self._opened:
            store.close()


@pytest.fixture
def opener(request, tmp_path):
    """Opens stores of each kind; a module that takes it says ``opener = kept_runs.opener``."""
    one = Opener(request, tmp_path)
    yield one
    one.close()


def every_kind_of_run(store, clock=None):
    """Done, failed, interrupted, resumed, forked and trimmed runs; some under several tokens."""
    from sifaka.storage.checkpoints import CachedCheckpointStorage

    clock = clock or FakeClock()
    done(store, "trimmed", clock=clock)
    resumed(store, "trimmed, resumed", clock=clock, at=14)
    failed(store, "trimmed, failed", clock=clock, at=14)
    a_chain(store, "trimmed, failed", clock=clock).apply_recovery_action(
        RecoveryAction(RecoveryStrategy.RETRY_CURRENT_STEP, "again", 0.5)
    )
    failing(store, "trimmed, failed", 2, clock=clock)
    a_chain(store, "trimmed", clock=clock).fork(new_id="trimmed fork", iteration=11).run()
    clean_up(store, keep=4)
    failing(store, "trimmed, failed", 4, clock=clock)  # whole records behind trimmed ones, under a new token
    done(store, "done", clock=clock, iterations=3, passes=0.5)
    failed(store, "failed", clock=clock, at=6)
    interrupted(store, "interrupted", clock=clock)
    resumed(store, "resumed ☂", clock=clock, iterations=10)
    a_chain(store, "done", clock=clock).fork(new_id="fork", iteration=1)
    store.swap("breaker/x", b"open", 0)
    store.swap("breaker/x", b"closed", 1)
    store.swap("evidence", bytes(range(256)), 0)
    assert CachedCheckpointStorage(store).get_chain("interrupted").status == "interrupted"


def clean_up(store, **options):
    """A clean-up by count alone."""
    from sifaka.storage import retention

    return retention.clean_up(store, max_age_days=None, **options)


def shown(store):
    """All records, and the entries but for what is a store's own, by chain id."""
    return {
        entry.chain_id: (
            msgspec.structs.replace(entry, owner=b"", lease_until=0.0, token=0),
            records(store, entry.chain_id),
        )
        for entry in store.entries(Query(limit=500))
    }


def whole(store):
    """All that a store holds, but for owners and leases, and the versions of its cells."""
    names = store.cell_names()
    return (
        {
            entry.chain_id: (
                msgspec.structs.replace(entry, owner=b"", lease_until=0.0),
                rows(store, entry.chain_id),
            )
            for entry in store.entries(Query(limit=500))
        },
        {name: cell.value for name, cell in zip(names, store.cells(names), strict=True)},
    )
