"""What is damaged is found, named and contained; what can be saved of it is, and the way out works."""

from __future__ import annotations

import re
import sqlite3

import msgspec
import pytest

from kept_runs import Writer, a_chain, clean_up, done, failed, interrupted, records, rows, wild
from sifaka.errors import DamagedRecordError, StorageError, StoreUnreachableError, UsageError
from sifaka.log.records import Faulted, Intent, Opened, Partial, Reached, Result
from sifaka.storage.checking import check, salvage
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.wrapper import StorageWrapper


class MemoryEdits:
    """A store in memory, and rows put there past its hooks."""

    sees_the_end = True

    def __init__(self, _folder):
        self.store = InMemoryStorage()

    def drop(self, chain_id, place):
        self.store._rows[chain_id].pop(place)

    def put(self, chain_id, place, frame):
        some = self.store._rows[chain_id]
        some[place] = msgspec.structs.replace(some[place], frame=frame)

    def put_all(self, chain_id, found):
        self.store._rows[chain_id] = [msgspec.structs.replace(row, chain_id=chain_id) for row in found]

    def close(self):
        """Nothing to close."""


class SQLiteEdits:
    """A store in a file, and the file edited by a program that knows nothing of it."""

    sees_the_end = False
    """Where a log ends is known from its rows alone: an end that is cut off leaves no trace."""

    def __init__(self, folder):
        self.path = folder / "runs.db"
        self.store = SQLiteStorage(self.path)

    def _edit(self, chain_id, statement, *values):
        with sqlite3.connect(self.path) as file:
            (number,) = file.execute("SELECT no FROM chains WHERE id = ?", (chain_id,)).fetchone()
            assert file.execute(statement, (*values, number)).rowcount > 0
        file.close()

    def drop(self, chain_id, place):
        row = rows(self.store, chain_id)[place]
        self._edit(chain_id, "DELETE FROM log WHERE last = ? AND chain = ?", row.last)

    def put(self, chain_id, place, frame):
        row = rows(self.store, chain_id)[place]
        self._edit(chain_id, "UPDATE log SET frame = ? WHERE last = ? AND chain = ?", frame, row.last)

    def put_all(self, chain_id, found):
        self._edit(chain_id, "DELETE FROM log WHERE chain = ?")
        with sqlite3.connect(self.path) as file:
            (number,) = file.execute("SELECT no FROM chains WHERE id = ?", (chain_id,)).fetchone()
            for row in found:
                values = (number, row.last, row.first, row.token, row.at, row.checkpoints, row.frame, row.raw)
                file.execute(
                    "INSERT INTO log (chain, last, first, token, at, checkpoints, frame, raw) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    values,
                )
        file.close()

    def close(self):
        self.store.close()


@pytest.fixture(params=[MemoryEdits, SQLiteEdits], ids=["memory", "sqlite"])
def edits(request, tmp_path):
    one = request.param(tmp_path)
    for name in ("a", "b"):
        failed(one.store, name, at=6, iterations=4)
    yield one
    one.close()


def flipped(frame, place, bit):
    return frame[:place] + bytes([frame[place] ^ 1 << bit]) + frame[place + 1 :]


def newest_checkpoint(some):
    found = [seq for seq, one in enumerate(some) if isinstance(one, Reached)]
    return found[-1] if found else -1


def found(edits):
    """What a check says of run "a"; the other run is sound."""
    damages = list(check(edits.store))
    assert {one.chain_id for one in damages} <= {"a"}
    assert len(damages) < 2
    return damages[0] if damages else None


def restore(edits, before):
    edits.put_all("a", before)
    assert found(edits) is None


# Found and named ---------------------------------------------------------------------------


def test_a_sound_store_has_no_damage(edits):
    assert list(check(edits.store)) == []


def test_a_flipped_bit_in_any_record_is_named_with_the_newest_sound_checkpoint(edits):
    before, sound = rows(edits.store, "a"), records(edits.store, "a")
    flips = 0
    for place, row in enumerate(before):
        for byte in {0, 1, 3, 7, 11, 15, 16, 20, len(row.frame) // 2, len(row.frame) - 1}:
            edits.put("a", place, flipped(row.frame, byte, byte % 8))
            damage = found(edits)
            assert (damage.first, damage.last) == (row.first, row.last)
            assert damage.sound_checkpoint == newest_checkpoint(sound[: row.first])
            flips += 1
        edits.put("a", place, row.frame)
    assert found(edits) is None
    assert flips > 150


def test_a_record_that_was_cut_off_or_emptied_is_named(edits):
    before = rows(edits.store, "a")
    for place in (0, 4, len(before) - 1):
        for frame in (b"", before[place].frame[:8], before[place].frame[:-1], before[place].frame + b"\0"):
            edits.put("a", place, frame)
            assert (found(edits).first, found(edits).last) == (before[place].first, before[place].last)
        edits.put("a", place, before[place].frame)


def test_a_missing_record_is_named(edits):
    before, sound = rows(edits.store, "a"), records(edits.store, "a")
    for place, row in enumerate(before[:-1]):
        edits.drop("a", place)
        damage = found(edits)
        assert (damage.first, damage.last, damage.why) == (row.first, row.last, "they are missing")
        assert damage.sound_checkpoint == newest_checkpoint(sound[: row.first])
        restore(edits, before)


def test_a_missing_end_is_named_where_the_store_counts_records_apart_from_its_rows(edits):
    before = rows(edits.store, "a")
    edits.drop("a", len(before) - 1)
    damage = found(edits)
    if edits.sees_the_end:
        assert (damage.first, damage.last) == (before[-1].first, before[-1].last)
    else:
        assert damage is None  # the run's end cannot be told from one that was never written


def test_a_run_without_any_record_is_named(edits):
    edits.put_all("a", [])
    damage = found(edits)
    assert (damage.first, damage.why, damage.sound_checkpoint) == (0, "they are missing", -1)


def test_rows_of_another_run_are_named(edits):
    mine, others = rows(edits.store, "a"), rows(edits.store, "b")
    assert len(mine) == len(others)
    for place, row in enumerate(mine):
        edits.put("a", place, others[place].frame)
        assert found(edits).first == row.first
        edits.put("a", place, row.frame)
    edits.put_all("a", others)
    assert (found(edits).first, found(edits).sound_checkpoint) == (0, -1)


def test_rows_in_another_order_are_named(edits):
    mine = rows(edits.store, "a")
    for place in range(len(mine) - 1):
        edits.put("a", place, mine[place + 1].frame)
        edits.put("a", place + 1, mine[place].frame)
        assert found(edits).first == mine[place].first
        restore(edits, mine)


def test_a_row_of_a_twin_with_the_same_name_and_place_is_named(edits):
    """Everything about it is right but what it follows."""
    twin = InMemoryStorage()
    failed(twin, "a", at=6, iterations=4, words=41)
    mine, others = rows(edits.store, "a"), rows(twin, "a")
    differ = next(place for place in range(len(mine)) if mine[place].frame != others[place].frame)
    edits.put("a", differ + 1, others[differ + 1].frame)
    assert "does not follow" in found(edits).why


def test_a_record_of_a_newer_format_is_named_as_such(edits):
    row = rows(edits.store, "a")[2]
    edits.put("a", 2, newer(row, 9))
    damage = found(edits)
    assert "format 9" in damage.why
    assert (damage.first, damage.last) == (row.first, edits.store.entry("a").last)


def newer(row, version):
    """The row's frame, as a later version might write it: with a checksum that is right."""
    from zlib import crc32

    from sifaka.log.codec import _seed

    head = bytes([version]) + row.frame[1:12]
    crc = crc32(row.frame[16:], crc32(head, _seed(row.chain_id, row.first, row.token)))
    return head + crc.to_bytes(4, "little") + row.frame[16:]


def test_only_the_runs_that_were_asked_for_are_checked(edits):
    edits.drop("a", 2)
    assert list(check(edits.store, ["b"])) == []
    assert [one.chain_id for one in check(edits.store, ["b", "a"])] == ["a"]
    with pytest.raises(UsageError, match="nobody"):
        list(check(edits.store, ["nobody"]))


def test_a_store_that_fails_on_one_run_is_checked_for_the_others():
    class Fails(StorageWrapper):
        error: type[Exception] = StorageError

        def rows(self, chain_id, *args, **more):
            if chain_id == "a":
                raise self.error("disk image is malformed", *["again"] * (self.error is not StorageError))
            return super().rows(chain_id, *args, **more)

    store = Fails(InMemoryStorage())
    for name in ("a", "b", "c"):
        done(store.inner, name, iterations=0)
    store.inner._rows["c"].pop(0)
    assert sorted((one.chain_id, one.first) for one in check(store)) == [("a", 0), ("c", 0)]
    store.error = StoreUnreachableError
    with pytest.raises(StoreUnreachableError):
        list(check(store))


def test_a_clean_up_at_the_same_time_is_no_damage():
    class Trimmed(StorageWrapper):
        """Rows are put together while they are read, as another process might."""

        def rows(self, chain_id, first=0, last=None, *, newest_first=False):
            before = list(super().rows(chain_id, first, last, newest_first=newest_first))
            if clean_up(self.inner, keep=2) == 0:
                return iter(before)
            after = list(super().rows(chain_id, first, last, newest_first=newest_first))
            return iter(before[:9] + [row for row in after if row.last > before[8].last])

    store = InMemoryStorage()
    done(store, iterations=10)
    assert list(check(Trimmed(store))) == []


def test_a_run_deleted_at_the_same_time_is_no_damage():
    class Deleted(StorageWrapper):
        def rows(self, chain_id, *args, **more):
            self.inner.delete([one] if (one := self.inner.entry(chain_id)) else [])
            return super().rows(chain_id, *args, **more)

    store = InMemoryStorage()
    done(store, iterations=0)
    assert list(check(Deleted(store))) == []


# Contained ---------------------------------------------------------------------------------


def test_other_runs_go_on_unharmed(edits):
    edits.put("a", 3, b"rubbish")
    face = CachedCheckpointStorage(edits.store)
    assert {entry.chain_id for entry in face.get_chains()} == {"a", "b"}
    assert face.get_storage_stats()["total_checkpoints"] > 0
    twin = InMemoryStorage()
    failed(twin, "b", at=6, iterations=4)
    want = a_chain(twin, "b", iterations=4).run()
    assert a_chain(edits.store, "b", iterations=4).run().text == want.text
    assert face.cleanup_old_checkpoints(None, keep=1) > 0
    assert rows(edits.store, "a")[3].frame == b"rubbish"  # left in place


def test_a_damaged_run_says_what_to_do_and_that_works(edits):
    failed(edits.store, "c", at=4, iterations=4)  # so short that a resume reads all of it
    before, sound = rows(edits.store, "c"), records(edits.store, "c")
    forks = 0
    for place, row in enumerate(before):
        if place == 0 or place % 2:
            edits.put("c", place, flipped(row.frame, len(row.frame) - 1, 0))
        elif place < len(before) - 1:
            edits.drop("c", place)
        else:
            continue
        with pytest.raises(DamagedRecordError, match=rf"fork\(before={row.first}\)") as raised:
            a_chain(edits.store, "c", iterations=4).run()
        assert raised.value.chain_id == "c"
        chain = a_chain(edits.store, "c", iterations=4)
        if newest_checkpoint(sound[: row.first]) < 0:
            with pytest.raises(UsageError, match="no checkpoint"):
                chain.fork(before=raised.value.first)
        else:
            fork = chain.fork(before=raised.value.first, new_id=f"fork {place}")
            assert fork.run().text
            forks += 1
        edits.put_all("c", before)
    assert forks > 10
    assert list(check(edits.store)) == []


def test_damage_in_what_a_resume_does_not_read_stops_nobody_who_does_not_need_it():
    """A long run's older iterations: the run goes on to what its twin comes to, or names the damage."""
    twin = InMemoryStorage()
    failed(twin, "long", at=20)
    size = len(rows(twin, "long"))
    want = a_chain(twin, "long").run()
    outcomes = set()
    for place in range(size):
        store = InMemoryStorage()
        failed(store, "long", at=20)
        row = store._rows["long"][place]
        store._rows["long"][place] = msgspec.structs.replace(row, frame=flipped(row.frame, 20, 3))
        try:
            thought = a_chain(store, "long").run()
        except DamagedRecordError as error:
            named = error.first
            outcomes.add("named")
        else:
            assert (thought.text, thought.cost) == (want.text, want.cost)
            named = row.first
            outcomes.add("went on")
        assert named == row.first
        assert [one.first for one in check(store)] == [row.first]
    assert "named" in outcomes


# Saved -------------------------------------------------------------------------------------


def calls_behind(some, seq):
    """The calls of a log that were made from record ``seq`` on."""
    return [(at, one) for at, one in enumerate(some) if at >= seq and isinstance(one, Intent)]


def test_all_sound_records_are_saved_and_the_calls_behind_them_are_told(edits):
    before, sound = rows(edits.store, "a"), records(edits.store, "a")
    told = 0
    for place, row in enumerate(before[:-1]):
        edits.put("a", place, flipped(row.frame, len(row.frame) - 1, 0))
        saved = salvage(edits.store, "a")
        assert saved.sound == sound[: row.first]
        free = {one.intent for one in sound if isinstance(one, Faulted) and one.fault.billed == "no"}
        readable = [one for at, one in calls_behind(sound, row.last + 1) if at not in free]
        assert [one for one in saved.lost if one in readable] == readable
        answered = {one.intent for one in sound[row.last + 1 :] if isinstance(one, Result)}
        inside = [one for at, one in calls_behind(sound, row.first) if at <= row.last and at in answered]
        known = [(one.operation, one.iteration, one.part) for one in saved.lost]
        assert all((one.operation, one.iteration, one.part) in known for one in inside)
        assert sum(one.part == "(damaged)" for one in saved.lost) == 1
        told += len(saved.lost)
        edits.put("a", place, row.frame)
    assert told > 100
    assert salvage(edits.store, "a").lost == []
    assert salvage(edits.store, "a").sound == sound


def test_a_gap_is_told_like_a_damaged_record(edits):
    before = rows(edits.store, "a")
    edits.put("a", 9, flipped(before[9].frame, 20, 0))
    edits.drop("a", 5)
    saved = salvage(edits.store, "a")
    assert len(saved.sound) == before[5].first
    assert sum(one.part == "(damaged)" for one in saved.lost) == 2


def test_the_price_that_was_paid_behind_the_damage_is_told():
    store = InMemoryStorage()
    done(store, iterations=2)
    some = records(store, "done")
    paid = [seq for seq, one in enumerate(some) if isinstance(one, Result) and one.price_usd]
    store._rows["done"].pop(1)
    lost = [one for one in salvage(store, "done").lost if one.price_max_usd]
    assert len(lost) == len(paid)


def test_a_call_under_way_before_the_damage_is_told_once():
    """It is open in the sound records, and so in doubt already: it is not among the lost ones too."""
    store = InMemoryStorage()
    done(store, iterations=2)
    for place, row in enumerate(rows(store, "done")[:-1]):
        frame = row.frame
        store._rows["done"][place] = msgspec.structs.replace(row, frame=flipped(frame, 18, 1))
        saved = salvage(store, "done")
        opened = [one for one in saved.sound if isinstance(one, Intent)]
        assert not [one for one in saved.lost if one in opened]
        store._rows["done"][place] = row


def test_of_calls_made_together_none_is_told_twice():
    """Two were under way; the answer of one is damaged, the other's lies behind the damage."""
    store = InMemoryStorage()
    journal = CachedCheckpointStorage(store).journal
    lease = journal.claim("a")
    intents = [Intent(1.0, "criticism", 0, name, 0, 1, "") for name in ("one", "two")]
    answers = [Result(2.0, 2 + n, "criticism", 0, name, text="x") for n, name in enumerate(("one", "two"))]
    opened = Opened(1.0, "a", "Write.", parts=(), settings={})
    for some in ([opened, Partial(1.0, 0, "")], intents, answers[:1], answers[1:]):
        journal.append(lease, some)
    journal.release(lease)
    row = store._rows["a"][2]
    store._rows["a"][2] = msgspec.structs.replace(row, frame=b"")
    saved = salvage(store, "a")
    assert saved.sound[2:] == intents
    assert [one.part for one in saved.lost] == ["(damaged)"]


def test_the_fork_of_a_damaged_run_reports_what_may_be_paid_twice():
    store = InMemoryStorage()
    done(store, iterations=3)
    row = rows(store, "done")[10]
    store._rows["done"][10] = msgspec.structs.replace(row, frame=row.frame[:-1])
    saved = salvage(store, "done")
    fork = a_chain(store, "done", iterations=3).fork(before=row.first, new_id="fork")
    thought = fork.run()
    assert len(thought.in_doubt) >= len(saved.lost) > 5


def test_an_interrupted_run_that_is_damaged_can_be_forked():
    store = InMemoryStorage()
    interrupted(store)
    size = len(rows(store, "interrupted"))
    row = rows(store, "interrupted")[size - 2]
    store._rows["interrupted"][size - 2] = msgspec.structs.replace(row, frame=b"")
    chain = a_chain(store, "interrupted")
    with pytest.raises(DamagedRecordError):
        chain.run()
    assert chain.fork(before=row.first, new_id="fork").run().text


def drafts(prompts):
    """What the prompts quote as the draft to improve."""
    return [
        prompt.partition("An earlier draft:\n")[2] for prompt in prompts if "An earlier draft:\n" in prompt
    ]


def test_a_fork_out_of_a_trimmed_and_damaged_run_never_goes_on_from_texts_that_are_gone():
    """Wherever the damage is: it begins where all that it needs is left, and its lost calls are in doubt."""
    places = earlier = quoted = 0
    for seed in (2, 4, 9, 14, 19, 22):
        whole = InMemoryStorage()
        wild(whole, "a", seed)
        clean_up(whole, keep=6)
        for place in range(1, len(whole._rows["a"])):
            store = InMemoryStorage()
            store._entries, store._rows = dict(whole._entries), {"a": list(whole._rows["a"])}
            row = store._rows["a"][place]
            store._rows["a"][place] = msgspec.structs.replace(row, frame=flipped(row.frame, 20, 0))
            model = Writer()
            fork = a_chain(store, "a", model=model, iterations=6 + seed % 9).fork(
                before=row.first, new_id="fork"
            )
            sound = len(salvage(store, "a").sound)
            earlier += sound < row.first
            if place > len(whole._rows["a"]) - 6:  # all that is needed from there on was kept
                assert sound == row.first
            places += 1
            thought = fork.run()
            found = drafts(model.prompts)
            assert all(re.match(r"word[0-9a-f]{12} ", one) for one in found), (seed, place)
            quoted += len(found)
            assert thought.text
            assert thought.in_doubt
    assert places > 100
    assert 0 < earlier < places
    assert quoted > 300
