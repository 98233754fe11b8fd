"""Calls that take long: their text is saved as it comes, a cut one is gone on from, an open one looked up."""

from __future__ import annotations

import asyncio

import pytest

import doubles
from doubles import Asking, Died, Event, chain_of, died, kinds, log, of
from sifaka.errors import ChainError, ModelError, UnknownModelError
from sifaka.log.records import Closed, Faulted, Handle, Intent, Opened, Partial, Result
from sifaka.parts import Heard, Pending, Reply, Request
from sifaka.recovery import RecoveryAction, RecoveryStrategy
from sifaka.testing.clock import FakeClock
from sifaka.thought import CriticFeedback

storage = doubles.storage


@pytest.fixture(params=["run", "arun"])
def go(request):
    """Runs a chain, in this thread or in an event loop."""
    if request.param == "run":
        return lambda chain: chain.run()
    return lambda chain: asyncio.run(chain.arun())


def until(condition):
    """Waits for what another thread is about to do."""
    event = Event()
    for _ in range(2_000):
        if condition():
            return
        event.wait_s(0.005)
    raise AssertionError("it never came")


class Streaming:
    """A model that tells of each piece of its answer; ``at`` may fail, or die, in the middle."""

    name = "stream"

    def __init__(self, clock, *pieces, at=None, continues=False):
        self.accepts = {"hear", "call_id", *(["continue_from"] if continues else [])}
        self.clock = clock
        self.pieces = pieces
        self.at = at
        self.given = []

    def generate(self, prompt, hear=None, **options):
        self.given.append(options)
        text = ""
        for number, piece in enumerate(self.pieces):
            text += piece
            if hear is not None:
                self.clock.advance(1.0)
                hear(Heard("answer-7", text))
            if self.at is not None:
                self.at(number)
        return Reply(text, finish_reason="stop")


def cut(number):
    if number == 1:
        raise ModelError("the stream was cut", kind="connection")


def test_the_text_of_a_stream_is_saved_as_it_comes(storage, go):
    clock = FakeClock()
    chain = chain_of(Streaming(clock, "One. ", "Two. ", "Three."), storage, chain_id="r", clock=clock)
    assert go(chain.with_options(stream=True)).text == "One. Two. Three."
    records = log(storage, "r")
    assert [one.provider_id for one in of(Handle, records)] == ["answer-7"]
    saved = [one.text for one in of(Partial, records)]
    assert "".join(saved) == "One. Two. Three."[: len("".join(saved))]
    assert saved[0].startswith("One. ")


def test_what_is_saved_of_a_stream_grows_with_its_text_and_not_with_its_square(storage):
    clock = FakeClock()
    pieces = [f"piece {number} " for number in range(40)]

    def wait(number):
        until(lambda: len(of(Partial, log(storage, "r"))) > number)

    model = Streaming(clock, *pieces, at=wait)
    chain = chain_of(model, storage, chain_id="r", clock=clock).with_options(stream=True)
    text = chain.run().text
    saved = [one.text for one in of(Partial, log(storage, "r"))]
    assert len(saved) == 40
    assert sum(map(len, saved)) == len(text)


def test_a_stream_that_is_heard_too_often_is_saved_at_most_so_often(storage):
    clock = FakeClock()
    pieces = ["word "] * 50
    model = Streaming(clock, *pieces)
    chain = chain_of(model, storage, chain_id="r", clock=clock)
    chain.with_options(stream=True, partial_every_s=10.0).run()
    # Its handle comes with the first piece; then every tenth of the pieces, which take a second each.
    assert 2 <= len(of(Partial, log(storage, "r"))) <= 6


def test_a_run_that_streams_nothing_hears_nothing(storage, go):
    clock = FakeClock()
    go(chain_of(Streaming(clock, "All."), storage, chain_id="r", clock=clock))
    assert not of(Partial, log(storage, "r"))
    assert not of(Handle, log(storage, "r"))


def test_stream_streams_without_being_told_to(storage):
    clock = FakeClock()
    chain = chain_of(Streaming(clock, "All."), storage, chain_id="r", clock=clock)
    assert "Partial" in kinds(chain.stream())


def test_a_cut_stream_leaves_its_text_to_be_seen_and_its_call_in_doubt(storage, go):
    clock = FakeClock()
    model = Streaming(clock, "One. ", "Two. ", "Three.", at=cut)
    chain = chain_of(model, storage, chain_id="r", clock=clock).with_options(stream=True)
    with pytest.raises(ChainError) as caught:
        go(chain)
    assert caught.value.thought.text == "One. Two. "
    assert caught.value.thought.metadata == {"partial": True}
    assert [one.part for one in caught.value.thought.in_doubt] == ["model"]


def test_a_cut_stream_is_gone_on_from_and_the_text_marked_as_spliced(storage, go):
    clock = FakeClock()
    model = Streaming(clock, "One. ", "Two. ", "Three.", at=cut, continues=True)
    chain = chain_of(model, storage, chain_id="r", clock=clock).with_options(stream=True)
    with pytest.raises(ChainError):
        go(chain)
    model.pieces, model.at = ("Three.",), None
    assert go(chain).text == "One. Two. Three."
    assert model.given[-1]["continue_from"] == "One. Two. "
    assert [one.spliced for one in of(Result, log(storage, "r"))] == [len("One. Two. ")]


def test_a_model_that_cannot_go_on_from_a_cut_text_writes_it_anew(storage, go):
    clock = FakeClock()
    model = Streaming(clock, "One. ", "Two. ", at=cut)
    chain = chain_of(model, storage, chain_id="r", clock=clock).with_options(stream=True)
    with pytest.raises(ChainError):
        go(chain)
    model.pieces, model.at = ("Anew.",), None
    assert go(chain).text == "Anew."
    assert "continue_from" not in model.given[-1]
    assert of(Result, log(storage, "r"))[0].spliced == 0


def test_after_a_death_in_the_middle_of_a_stream_its_text_is_there_and_gone_on_from(storage):
    clock = FakeClock()

    def perish(number):
        if number == 1:
            until(lambda: len(of(Partial, log(storage, "r"))) == 2)
            doubles.die(storage, "r")

    model = Streaming(clock, "One. ", "Two. ", "Three.", at=perish, continues=True)
    chain = chain_of(model, storage, chain_id="r", clock=clock).with_options(stream=True)
    died(chain)
    assert chain.get_thought().text == "One. Two. "
    model.pieces, model.at = ("Three.",), None
    thought = chain.run()
    assert thought.text == "One. Two. Three."
    assert len(thought.in_doubt) == 1


# Looking up --------------------------------------------------------------------------------


class Background:
    """A model whose answers are worked on, and can be had later: its provider keeps them."""

    name = "background"

    def __init__(self, *looks, pending=True):
        self.accepts = {"call_id"}
        self.looks = list(looks)
        self.asked = []
        self.looked = []
        self.pending = pending

    def generate(self, prompt, call_id):
        self.asked.append(call_id)
        return Pending("job-1", 5.0) if self.pending else Reply(f"text {len(self.asked)}", price_usd=0.5)

    def look_up(self, handle, call_id):
        self.looked.append((handle, call_id))
        found = self.looks.pop(0) if self.looks else Reply("from afar", price_usd=1.0)
        if isinstance(found, BaseException):
            raise found
        return found() if callable(found) else found


def test_an_answer_that_is_pending_is_waited_for_and_looked_up(storage, go):
    clock = FakeClock()
    model = Background(Pending("job-1", 7.0))
    chain = chain_of(model, storage, chain_id="r", clock=clock)
    start = clock.time()
    thought = go(chain)
    assert thought.text == "from afar"
    assert thought.cost == 1.0
    assert not thought.in_doubt
    assert len(model.asked) == 1
    assert model.looked == [("job-1", model.asked[0])] * 2
    assert clock.time() - start >= 12.0
    assert [one.provider_id for one in of(Handle, log(storage, "r"))] == ["job-1"]
    assert len(of(Intent, log(storage, "r"))) == 1


def test_after_a_death_a_pending_call_is_looked_up_and_not_made_again(storage, go):
    model = Background(lambda: doubles.die(storage, "r"))
    chain = chain_of(model, storage, chain_id="r")
    with pytest.raises(Died):
        go(chain)
    thought = go(chain)
    assert thought.text == "from afar"
    assert len(model.asked) == 1
    assert not thought.in_doubt
    assert thought.cost == 1.0


def test_a_call_that_was_answered_to_a_dead_process_is_settled_by_its_name(storage, go):
    """Where the provider keeps our name for a call, not even its own id is needed."""

    def perish(prompt, call_id):
        model.asked.append(call_id)
        doubles.die(storage, "r")

    model = Background(pending=False)
    chain = chain_of(model, storage, chain_id="r")
    kept, model.generate = model.generate, perish
    chain.with_model(model)
    with pytest.raises(Died):
        go(chain)
    model.generate = kept
    thought = go(chain.with_model(model))
    assert thought.text == "from afar"
    assert model.looked == [("", model.asked[0])]
    assert not thought.in_doubt


def test_a_call_nobody_knows_of_is_in_doubt_and_made_again(storage, go):
    model = Background(lambda: doubles.die(storage, "r"), None)
    chain = chain_of(model, storage, chain_id="r")
    with pytest.raises(Died):
        go(chain)
    model.pending = False
    thought = go(chain)
    assert thought.text == "text 2"
    assert len(thought.in_doubt) == 1
    assert len(of(Faulted, log(storage, "r"))) == 1
    assert len(set(model.asked)) == 2


def test_a_call_nobody_knows_of_stops_a_run_that_is_to_stop_in_doubt(storage, go):
    model = Background(lambda: doubles.die(storage, "r"), None)
    chain = chain_of(model, storage, chain_id="r", on_doubt="stop")
    with pytest.raises(Died):
        go(chain)
    with pytest.raises(ChainError, match="in doubt"):
        go(chain)
    assert len(model.asked) == 1


def test_a_look_up_that_fails_for_a_while_loses_nothing(storage, go):
    troubles = [ModelError("no route", kind="connection")] * 3
    model = Background(*troubles)
    thought = go(chain_of(model, storage, chain_id="r"))
    assert thought.text == "from afar"
    assert len(model.asked) == 1
    assert not of(Faulted, log(storage, "r"))


def test_a_look_up_that_fails_for_good_leaves_the_call_in_doubt(storage, go):
    model = Background(*[ModelError("no route", kind="connection")] * 10)
    chain = chain_of(model, storage, chain_id="r", on_doubt="stop")
    with pytest.raises(ChainError) as caught:
        go(chain)
    assert len(caught.value.thought.in_doubt) == 1
    assert len(model.looked) == 10


def test_a_run_that_waits_for_an_answer_says_so(storage):
    seen = []

    class Clock(FakeClock):
        def sleep(self, seconds):
            seen.append(doubles.entry(storage, "r"))
            super().sleep(seconds)

    chain_of(Background(), storage, chain_id="r", clock=Clock()).run()
    assert [one.status for one in seen] == ["waiting"]
    assert "background is working on the answer" in seen[0].reason


def test_an_open_call_left_behind_by_a_restart_is_in_doubt(storage):
    model = Background(lambda: doubles.die(storage, "r"))
    chain = chain_of(model, storage, chain_id="r")
    died(chain)
    assert chain.apply_recovery_action(RecoveryAction(RecoveryStrategy.FULL_RESTART, "again", 0.5))
    model.pending = False
    thought = chain.run()
    assert thought.text == "text 2"
    assert len(thought.in_doubt) == 1


# Several at once ---------------------------------------------------------------------------


class Panel:
    """A critic that puts its questions together, and one more afterwards."""

    name = "panel"

    def __init__(self, *questions):
        self.questions = questions

    def critique(self, thought):
        replies = yield [Request(one) for one in self.questions]
        last = yield Request("sum up")
        said = " / ".join(reply.text for reply in (*replies, last))
        return CriticFeedback(needs_improvement=False, message=said)


def test_questions_put_together_run_together_and_are_answered_in_order(storage, go):
    barrier = doubles.Barrier(3)

    def model(prompt):
        if prompt in {"a", "b", "c"}:
            barrier.wait()
        return f"<{prompt}>"

    chain = chain_of(model, storage, critics=[Panel("a", "b", "c")])
    assert go(chain).critic_feedback[0].message == "<a> / <b> / <c> / <sum up>"


def test_of_questions_put_together_only_the_failed_one_is_put_again(storage, go):
    asked, fails = [], []

    def model(prompt):
        asked.append(prompt)
        return doubles.fail_once(fails, doubles.busy(), prompt) if prompt == "b" else prompt

    chain = chain_of(model, storage, critics=[Panel("a", "b", "c")])
    with pytest.raises(ChainError):
        go(chain)
    assert go(chain).critic_feedback[0].message == "a / b / c / sum up"
    assert sorted(asked[1:]) == ["a", "b", "b", "c", "sum up"]


@pytest.mark.parametrize(("batch_size", "most_together"), [(None, 3), (2, 2), (1, 1)])
def test_batch_size_bounds_how_many_of_them_run_together(storage, batch_size, most_together):
    running, most = set(), []

    async def model(prompt):
        running.add(prompt)
        for _ in range(20):  # all that may begin beside it do so meanwhile
            await asyncio.sleep(0)
        most.append(len(running))
        running.remove(prompt)
        return prompt

    chain = chain_of(model, storage, critics=[Panel("a", "b", "c")]).with_options(batch_size=batch_size)
    assert asyncio.run(chain.arun()).critic_feedback[0].message == "a / b / c / sum up"
    assert max(most) == most_together


@pytest.mark.parametrize("asked", [[], ["not a request"], [Request("one"), None]])
def test_a_list_that_is_none_of_requests_is_a_fault_of_the_part(storage, asked):
    class Odd:
        name = "odd"

        def critique(self, thought):
            yield asked
            return CriticFeedback(needs_improvement=False)

    with pytest.raises(ChainError, match="odd yielded"):
        chain_of(lambda prompt: "text", storage, critics=[Odd()]).run()


def test_a_part_that_makes_nothing_of_its_last_replies_asks_all_of_them_again(storage):
    """Which of the answers was useless is not known: asked again, all can be other ones."""
    asked = []

    class Picky(Panel):
        def critique(self, thought):
            replies = yield [Request("a"), Request("b")]
            if replies[0].text != replies[1].text:
                raise ModelError("they disagree", kind="malformed_output")
            return CriticFeedback(needs_improvement=False, message="agreed")

    def model(prompt):
        asked.append(prompt)
        return prompt if len(asked) <= 3 else "same"

    chain = chain_of(model, storage, critics=[Picky()])
    with pytest.raises(ChainError):
        chain.run()
    assert chain.run().critic_feedback[0].message == "agreed"
    assert sorted(asked[1:]) == ["a", "a", "b", "b"]


def test_a_crash_among_parts_that_ask_loses_none_of_what_the_others_paid(storage, go):
    first, second = Asking("one"), Asking("two", questions=("x",))
    fails = []

    def model(prompt):
        return doubles.fail_once(fails, doubles.busy(), "late") if "two x" in prompt else prompt[:9]

    chain = chain_of(model, storage, critics=[first, second])
    with pytest.raises(ChainError):
        go(chain)
    before = len(of(Intent, log(storage, chain.chain_id)))
    assert go(chain).critic_feedback[1].message == "late"
    after = log(storage, chain.chain_id)
    assert len(of(Intent, after)) == before + 1
    assert of(Closed, after)[-1].status == "done"
    assert len(of(Opened, after)) == 2


@pytest.mark.parametrize("attribute", ["model", "meta_model", "models"])
def test_a_model_of_a_parts_own_that_cannot_be_opened_is_said_before_any_call(attribute):
    model = doubles.Model()
    critic = Asking("own")
    setattr(critic, attribute, ("nowhere:x",) if attribute == "models" else "nowhere:x")
    with pytest.raises(UnknownModelError):
        chain_of(model, critics=[critic]).run()
    assert not model.calls
