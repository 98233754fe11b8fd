"""Stores that released versions wrote load, show what they showed, and go on; newer ones stay untouched."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
from pathlib import Path
from zlib import crc32

import pytest

from sifaka.errors import FormatError
from sifaka.log.codec import FORMAT
from sifaka.log.records import Intent, Result
from sifaka.storage.archive import archive, import_archive
from sifaka.storage.base import Query
from sifaka.storage.checking import check
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.moving import copy
from sifaka.storage.reading import read
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.sqlite.opening import SCHEMA_VERSION

FOLDERS = sorted(path.parent for path in (Path(__file__).parent / "released").glob("*/store.db"))


class Released:
    """A copy of a released version's store, with the chains that made it and what it is to show."""

    def __init__(self, folder, to):
        self.path = to / "store.db"
        shutil.copy(folder / "store.db", self.path)
        self.expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        spec = importlib.util.spec_from_file_location("released_runs", folder / "runs.py")
        assert spec is not None
        assert spec.loader is not None
        self.runs = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.runs)
        self.store = SQLiteStorage(self.path, create=False)

    def records(self, name):
        return list(read(self.store, name))

    def chain(self, name, model, store=None):
        return self.runs.chain_of(self.store if store is None else store, name, model)


@pytest.fixture(params=FOLDERS, ids=[folder.name for folder in FOLDERS])
def released(request, tmp_path):
    one = Released(request.param, tmp_path)
    yield one
    one.store.close()


def raw(path):
    """The file's tables as they are, read by another program."""
    file = sqlite3.connect(path)
    found = [file.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in ("chains", "log")]
    file.close()
    return found


def plain(value):
    """As JSON has it."""
    return json.loads(json.dumps(value))


def paid(some):
    """The model's answers that a log holds."""
    return [one for one in some if isinstance(one, Result) and one.text is not None and one.intent >= 0]


def test_stores_of_released_versions_are_kept():
    assert "0.1.0" in [folder.name for folder in FOLDERS]
    for folder in FOLDERS:
        assert (folder / "store.db").stat().st_size < 200_000
        assert (folder / "runs.py").exists()


def test_every_run_shows_what_it_showed(released):
    assert {entry.chain_id for entry in released.store.entries(Query())} == set(released.expected)
    for name, expected in released.expected.items():
        found = plain(released.runs.seen(released.store, name))
        for key, value in expected.items():
            assert found[key] == value, (name, key)
    assert list(check(released.store)) == []


def test_the_runs_are_of_every_kind(released):
    expected = released.expected
    assert {one["status"] for one in expected.values()} == {"done", "failed", "interrupted"}
    assert expected["interrupted"]["open_calls"]
    assert sum(bool(one["recovery"]) for one in expected.values()) > 2
    assert any(one["documents"] for one in expected.values())
    assert max(one["iteration"] for one in expected.values()) > 0


def test_the_records_are_not_rewritten_by_opening_the_store(released):
    before = raw(released.path)
    assert released.store.measure()["raw_bytes"] > 0
    after = raw(released.path)
    assert [row[:7] for row in after[1]] == [row[:7] for row in before[1]]
    assert after[0] == before[0]


@pytest.mark.parametrize("name", ["failed", "interrupted", "waiting", "fork, not begun"])
def test_a_run_that_was_not_done_goes_on_to_its_end_and_pays_nothing_again(released, name):
    kept = paid(released.records(name))
    whole = released.runs.Model()
    want = released.chain(name, whole, InMemoryStorage()).run()
    model = released.runs.Model()
    thought = released.chain(name, model).run_with_recovery()
    assert thought.text == want.text
    assert thought.passed == want.passed
    assert len(model.prompts) == len(whole.prompts) - len(kept) > 0
    assert model.prompts == whole.prompts[len(kept) :]
    answered = paid(released.records(name))
    assert len(answered) == len(whole.prompts)
    assert thought.cost == pytest.approx(0.01 * (len(model.prompts) + (0 if "fork" in name else len(kept))))
    doubts = [[one.operation, one.iteration, one.part] for one in thought.in_doubt]
    assert doubts == released.expected[name]["open_calls"]
    assert list(check(released.store)) == []


def test_a_run_that_was_done_is_given_without_a_call(released):
    for name, expected in released.expected.items():
        if expected["status"] == "done":
            model = released.runs.Model()
            assert released.chain(name, model).run().text == expected["text"]
            assert model.prompts == []


def test_a_run_can_be_forked_at_each_of_its_checkpoints(released):
    some = CachedCheckpointStorage(released.store).get_checkpoints("done")
    for number, point in enumerate(some[:-1]):
        seq = int(point.checkpoint_id.rpartition(":")[2])
        fork = released.chain("done", released.runs.Model()).fork(before=seq + 1, new_id=f"new fork {number}")
        assert fork.run().text
    assert len(some) > 10


def test_a_run_can_be_copied_archived_and_cleaned_up(released, tmp_path):
    other = InMemoryStorage()
    assert copy(released.store, other).left == {}
    path, written = archive(released.store, tmp_path / "kept")
    assert len(written) == len(released.expected)
    assert import_archive(other, path)  # the same runs are there already
    again = InMemoryStorage()
    import_archive(again, path)
    for name in released.expected:
        assert list(read(other, name)) == list(read(again, name)) == released.records(name)
    face = CachedCheckpointStorage(released.store)
    assert face.cleanup_old_checkpoints(None, keep=4) > 0
    for name in ("done", "resumed", "fork"):
        model = released.runs.Model()
        assert released.chain(name, model).run().text == released.expected[name]["text"]
    assert list(check(released.store)) == []
    assert face.cleanup_old_checkpoints(30) > 0
    assert {entry.status for entry in released.store.entries(Query())} <= {
        "running",
        "waiting",
        "interrupted",
    }


# Newer than this version -------------------------------------------------------------------


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, SCHEMA_VERSION + 2, 99])
def test_a_store_of_a_newer_schema_is_refused_and_its_file_stays_untouched(released, version):
    released.store.measure()
    released.store.close()
    file = sqlite3.connect(released.path)
    file.execute(f"PRAGMA user_version = {version}")
    file.close()
    before = released.path.read_bytes()
    store = SQLiteStorage(released.path)
    for look in (
        lambda: store.entries(Query()),
        lambda: released.chain("failed", released.runs.Model(), store).run(),
        lambda: CachedCheckpointStorage(store).cleanup_old_checkpoints(0),
    ):
        with pytest.raises(FormatError, match=f"format {version}, this version of sifaka reads up to"):
            look()
    store.close()
    assert released.path.read_bytes() == before


@pytest.mark.parametrize("version", [FORMAT + 1, 9, 255])
def test_a_record_of_a_newer_format_is_refused_and_stays_as_it_is(released, version):
    """The checksum is right: only its version says that nobody here can read it."""
    released.store.measure()
    released.store.close()
    file = sqlite3.connect(released.path)
    (number, chain_token) = file.execute("SELECT no, token FROM chains WHERE id = 'failed'").fetchone()
    last, first, token, frame = file.execute(
        "SELECT last, first, token, frame FROM log WHERE chain = ? ORDER BY last DESC LIMIT 1", (number,)
    ).fetchone()
    seed = crc32(b"failed", crc32(first.to_bytes(8, "little") + token.to_bytes(8, "little")))
    crc = crc32(frame[16:], crc32(bytes([version]) + frame[1:12], seed))
    newer = bytes([version]) + frame[1:12] + crc.to_bytes(4, "little") + frame[16:]
    file.execute("UPDATE log SET frame = ? WHERE chain = ? AND last = ?", (newer, number, last))
    file.commit()
    file.close()
    log = raw(released.path)[1]
    model = released.runs.Model()
    with pytest.raises(FormatError, match=f"format {version}"):
        released.chain("failed", model).run()
    assert model.prompts == []
    face = CachedCheckpointStorage(released.store)
    assert face.cleanup_old_checkpoints(None, keep=0, statuses=("failed",)) == 0
    (damage,) = check(released.store)
    assert f"format {version}" in damage.why
    moved = copy(released.store, InMemoryStorage())
    assert list(moved.left) == ["failed"]
    assert raw(released.path)[1] == log
    assert chain_token
    for name in ("done", "interrupted"):  # the others are as usable as ever
        assert released.chain(name, released.runs.Model()).run().text


def test_every_record_of_the_first_version_is_of_format_1(released):
    frames = [
        row.frame for entry in released.store.entries(Query()) for row in released.store.rows(entry.chain_id)
    ]
    assert {frame[0] for frame in frames} == {1}
    assert any(isinstance(one, Intent) for one in released.records("done"))
