"""What tests put in place of a model, a part, a process that dies, and the time."""

from __future__ import annotations

import threading
from itertools import count

import msgspec
import pytest

from sifaka.chain import Chain
from sifaka.errors import ModelError
from sifaka.log.records import Opened, Recovery
from sifaka.parts import Reply, Request, Usage
from sifaka.storage.leases import decode, myself
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.urls import open_storage
from sifaka.testing.clock import FakeClock
from sifaka.testing.provider import ProviderDouble
from sifaka.thought import CriticFeedback, ValidationResult

__all__ = [
    "Asking",
    "AsyncModel",
    "Barrier",
    "Critic",
    "Died",
    "Event",
    "Lives",
    "Model",
    "Retriever",
    "Validator",
    "busy",
    "causes",
    "chain_of",
    "connected",
    "dead_owner",
    "die",
    "died",
    "elsewhere",
    "entry",
    "fail_once",
    "kinds",
    "log",
    "no_key",
    "of",
    "owner_with",
    "priced",
    "storage",
    "strategies",
    "timed_storage",
    "wanting",
]


@pytest.fixture(params=["memory", "sqlite"])
def storage(request, tmp_path):
    """A store of each kind; a module that takes it says ``storage = doubles.storage``."""
    store = InMemoryStorage() if request.param == "memory" else SQLiteStorage(tmp_path / "runs.db")
    yield store
    store.close()


def fail_once(fails, error, value):
    """Raises at the first call that shares the list ``fails``, then returns ``value``."""
    if not fails:
        fails.append(error)
        raise error
    return value


class Barrier:
    """Lets ``parties`` calls that run together go on together; they time out where they don't."""

    def __init__(self, parties):
        self._barrier = threading.Barrier(parties, timeout=10)

    def wait(self):
        return self._barrier.wait()


class Event:
    """An event that a test never waits long for."""

    def __init__(self):
        self._event = threading.Event()

    def wait(self):
        self._event.wait(10)

    def wait_s(self, seconds):
        return self._event.wait(seconds)

    def set(self):
        self._event.set()


@pytest.fixture(params=["memory", "sqlite"])
def timed_storage(request, tmp_path):
    """A store of each kind whose own clock stands still."""
    clock = FakeClock()
    if request.param == "memory":
        store = InMemoryStorage(clock=clock)
    else:
        store = SQLiteStorage(tmp_path / "timed.db", clock=clock)
    yield store
    store.close()


@pytest.fixture
def connected(monkeypatch):
    """Starts provider doubles and points the providers' libraries at them."""
    started = []

    def start(*script, **more):
        double = ProviderDouble(*script, **more).__enter__()
        started.append(double)
        for name, value in double.environ().items():
            monkeypatch.setenv(name, value)
        return double

    yield start
    for double in started:
        double.close()


# Faults and answers ------------------------------------------------------------------------


def busy(retry_after_s=None):
    """A provider that asks to come back later."""
    return ModelError("too many requests", kind="rate_limit", retry_after_s=retry_after_s)


def no_key():
    """A fault that never passes by itself."""
    return ModelError("bad key", kind="auth", status=401)


def priced(text, usd=1.0, tokens=0, **more):
    """A reply that costs something."""
    return Reply(text, usage=Usage(0, tokens), price_usd=usd, **more)


class Died(BaseException):
    """The process is gone in the middle of what it did."""


class Script:
    """What happens at each call: a value is returned, an exception raised, a callable called.

    What comes after the end of the script is ``then``, called with the number of the call from 0.
    """

    def __init__(self, steps, then):
        self._steps = list(steps)
        self._then = then
        self._lock = threading.Lock()
        self._numbers = count()

    def next(self, *args):
        with self._lock:
            number = next(self._numbers)
        step = self._steps[number] if number < len(self._steps) else self._then(number)
        if isinstance(step, type) and issubclass(step, BaseException):
            raise step
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            step = step(*args)
        return step


class Model:
    """A model that follows a script and remembers what it was asked."""

    def __init__(self, *steps, name="scripted", price_max=None):
        self.name = name
        self.prompts = []
        self.options = []
        self._script = Script(steps, lambda number: f"text {number}")
        if price_max is not None:
            self.price_max_usd = lambda prompt, options: price_max

    @property
    def calls(self):
        return len(self.prompts)

    def generate(self, prompt, **options):
        self.prompts.append(prompt)
        self.options.append(options)
        return self._script.next(prompt)


class AsyncModel(Model):
    """The same with async calls only."""

    async def generate(self, prompt, **options):
        return Model.generate(self, prompt, **options)


class Validator:
    """A validator that follows a script; passes when it is over."""

    def __init__(self, name="validator", *steps):
        self.name = name
        self.thoughts = []
        self._script = Script(steps, lambda number: True)

    @property
    def calls(self):
        return len(self.thoughts)

    def validate(self, thought):
        self.thoughts.append(thought)
        step = self._script.next(thought)
        return ValidationResult(step) if isinstance(step, bool) else step


class Critic:
    """A critic that follows a script and counts its calls; a text means "improve, because"."""

    def __init__(self, name="critic", *steps, then=None):
        self.name = name
        self.thoughts = []
        self._script = Script(steps, lambda number: then)

    @property
    def calls(self):
        return len(self.thoughts)

    def critique(self, thought):
        self.thoughts.append(thought)
        step = self._script.next(thought)
        if step is None:
            return CriticFeedback(False, "fine")
        return CriticFeedback(True, step) if isinstance(step, str) else step


def wanting(iterations, name="critic"):
    """A critic that is content with text number ``iterations``; it can be shared between runs."""

    def critic(thought):
        return CriticFeedback(thought.iteration < iterations, "more")

    critic.__name__ = name
    return critic


class Asking:
    """A critic that asks its model several questions; the answers make its message."""

    def __init__(self, name="asking", questions=("first", "second"), model=None, improve=False):
        self.name = name
        self.questions = questions
        self.model = model
        self.improve = improve

    def critique(self, thought):
        answers = []
        for question in self.questions:
            reply = yield Request(f"{self.name} {question}: {thought.text}", model=self.model)
            answers.append(reply.text)
        return CriticFeedback(self.improve, " / ".join(answers))


class Retriever:
    """A retriever that follows a script; afterwards it finds one document."""

    def __init__(self, name="retriever", *steps):
        self.name = name
        self.queries = []
        self._script = Script(steps, lambda number: [f"{name} document"])

    @property
    def calls(self):
        return len(self.queries)

    def retrieve(self, query):
        self.queries.append(query)
        return self._script.next(query)


# Chains and their logs ---------------------------------------------------------------------


def chain_of(model, storage=None, *, validators=(), critics=(), retrievers=(), prompt="Write.", **options):
    """A chain with these parts, on a clock that stands still."""
    options.setdefault("clock", FakeClock())
    chain = Chain(model, prompt, checkpoint_storage=storage, **options)
    return chain.validate_with(*validators).improve_with(*critics).with_model_retrievers(retrievers)


def log(storage, chain_id):
    """The records of a run."""
    return list(open_storage(storage).records(chain_id))


def of(kind, records):
    """The records of one kind."""
    return [record for record in records if isinstance(record, kind)]


def kinds(records):
    """The kinds of the records, by name."""
    return [type(record).__name__ for record in records]


def strategies(records):
    """The strategies that were applied, oldest first."""
    return [record.strategy for record in of(Recovery, records)]


def causes(records):
    """Why each life of a run began."""
    return [record.cause for record in of(Opened, records)]


# Owners ------------------------------------------------------------------------------------


def owner_with(**changes):
    """This process's identity, changed."""
    return msgspec.msgpack.encode(msgspec.structs.replace(decode(myself()), **changes))


def dead_owner():
    """The identity of a process of this machine that is certainly gone: ours, started at another time."""
    return owner_with(started="never")


def elsewhere():
    """The identity of a process nothing can be known of."""
    return owner_with(host="another-host", boot="another-boot")


def entry(storage, chain_id):
    """What the store lists of a run, as of now."""
    return next(one for one in open_storage(storage).get_chains() if one.chain_id == chain_id)


def die(storage, chain_id):
    """Ends the run as the death of its process would: no more appends, and nobody gives the lease back."""
    found = storage.entry(chain_id)
    if found is not None:
        assert storage.claim(chain_id, found.token, dead_owner(), storage.now() + 60.0)
    raise Died


class Lives:
    """Counts the calls of a run over all its lives; its process dies in call number ``at``."""

    def __init__(self, storage, chain_id, at):
        self.storage = storage
        self.chain_id = chain_id
        self.deaths = 0
        self._at = at
        self._calls = count()
        self._lock = threading.Lock()

    def function(self, function):
        def work(*args, **kwargs):
            with self._lock:
                number = next(self._calls)
            if number == self._at:
                self.deaths += 1
                die(self.storage, self.chain_id)
            return function(*args, **kwargs)

        work.__name__ = getattr(function, "__name__", "work")
        return work

    def wrap(self, model):
        model.generate = self.function(model.generate)
        return model

    def part(self, part, method, instead=None):
        setattr(part, method, self.function(instead or getattr(part, method)))
        return part


def died(chain):
    """Runs a chain until its process dies."""
    with pytest.raises(Died):
        chain.run()
