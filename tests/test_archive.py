"""What archives promise: what was written comes back equal; what is not whole, or not ours, changes nothing."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import zstandard

import doubles
import kept_runs
from kept_runs import (
    KINDS,
    Interrupted,
    a_chain,
    done,
    every_kind_of_run,
    failed,
    rows,
    shown,
)
from sifaka.errors import ArchiveError, FormatError, StorageError, UsageError
from sifaka.log.codec import encode
from sifaka.log.records import Opened, Partial
from sifaka.parts import Reply, Usage
from sifaka.storage.archive import archive, import_archive, read_archive
from sifaka.storage.base import Entry, Query, Row
from sifaka.storage.checking import check
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.leases import myself
from sifaka.storage.memory import InMemoryStorage

storage = doubles.storage
opener = kept_runs.opener
ROOT = Path(__file__).parents[1]


def delete_all(store):
    store.delete(store.entries(Query(limit=500)))
    assert store.entries(Query()) == []


@pytest.fixture
def small(tmp_path):
    """A small archive of two runs, and the bytes of it."""
    store = InMemoryStorage()
    failed(store, "a", at=2, iterations=1, asks=False, words=3)
    done(store, "b", iterations=0, asks=False)
    path, _ = archive(store, tmp_path / "kept")
    return Path(path)


# There and back ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_every_kind_come_back_with_equal_records(opener, kind, tmp_path):
    store = opener(kind)
    every_kind_of_run(store)
    before = shown(store)
    path, written = archive(store, tmp_path / "kept")
    assert sorted(entry.chain_id for entry in written) == sorted(before)
    delete_all(store)
    assert sorted(import_archive(store, path)) == sorted(before)
    assert shown(store) == before
    assert list(check(store)) == []
    assert sorted(import_archive(store, path)) == sorted(before)
    assert shown(store) == before


@pytest.mark.parametrize(("kind", "other"), [("memory", "sqlite"), ("sqlite", "memory")])
def test_what_was_imported_elsewhere_goes_on_as_it_would_have_here(opener, kind, other, tmp_path):
    store, target = opener(kind), opener(other)
    every_kind_of_run(store)
    path, _ = archive(store, tmp_path)
    import_archive(target, path)
    for name in ("failed", "interrupted", "trimmed, failed"):
        thoughts = [a_chain(one, name).run() for one in (store, target)]
        assert thoughts[0].text == thoughts[1].text
        assert thoughts[0].cost == thoughts[1].cost
        assert thoughts[0].in_doubt == thoughts[1].in_doubt
    assert list(check(target)) == []
    assert thoughts[0].text


def test_an_import_into_the_store_it_came_from_changes_nothing(storage, tmp_path):
    every_kind_of_run(storage)
    before = [rows(storage, entry.chain_id) for entry in storage.entries(Query(limit=500))]
    path, written = archive(storage, tmp_path)
    assert len(import_archive(storage, path)) == len(written) == len(before)
    assert [rows(storage, entry.chain_id) for entry in storage.entries(Query(limit=500))] == before


def test_only_the_runs_that_were_asked_for_are_written(storage, tmp_path):
    done(storage, "a", iterations=1)
    done(storage, "b", iterations=1)
    path, _ = archive(storage, tmp_path, [storage.entry("b")])
    assert {entry.chain_id for entry, _ in read_archive(path)} == {"b"}


def test_runs_that_are_being_run_or_are_damaged_or_went_on_are_left_out(tmp_path):
    store = InMemoryStorage()
    for name in ("good", "bad", "running", "longer"):
        failed(store, name, at=4, iterations=3)
    store.claim("running", 1, myself(), store.now() + 60)
    store._rows["bad"].pop(3)
    listed = store.entries(Query())
    a_chain(store, "longer", iterations=3).run()
    _, written = archive(store, tmp_path, listed)
    assert [entry.chain_id for entry in written] == ["good"]


def test_an_interrupted_import_is_finished_by_the_same_import(tmp_path):
    store = InMemoryStorage()
    every_kind_of_run(store)
    path, _ = archive(store, tmp_path)
    wanted = shown(store)
    counting = Interrupted(InMemoryStorage())
    import_archive(counting, path)
    for at in range(counting.calls):
        for when in ("before", "after"):
            target = InMemoryStorage()
            with pytest.raises(StorageError):
                import_archive(Interrupted(target, at, when), path)
            assert list(check(target)) == []
            import_archive(target, path)
            assert shown(target) == wanted, (at, when)
    assert counting.calls > 20


def test_another_run_of_the_same_id_is_refused_and_nothing_changes(storage, tmp_path):
    source = InMemoryStorage()
    for name in ("a", "b", "c"):
        done(source, name, iterations=2)
    path, _ = archive(source, tmp_path)
    a_chain(storage, "b", iterations=2, model=kept_runs.Writer(words=7)).run()
    before = shown(storage)
    with pytest.raises(UsageError, match=r"'b' is another one .*nothing was changed"):
        import_archive(storage, path)
    assert shown(storage) == before


def test_a_run_that_went_on_or_is_being_run_is_not_overwritten(storage, tmp_path):
    failed(storage, "a", at=6)
    path, _ = archive(storage, tmp_path)
    a_chain(storage, "a").run()
    before = shown(storage)
    with pytest.raises(UsageError, match="another one"):
        import_archive(storage, path)
    assert shown(storage) == before
    other = InMemoryStorage()
    import_archive(other, path)
    other.claim("a", other.entry("a").token, myself(), other.now() + 60)
    with pytest.raises(UsageError, match="being run"):
        import_archive(other, path)


# The file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177, 0o777])
def test_archives_are_readable_by_their_owner_only_under_any_umask(tmp_path, umask):
    store = InMemoryStorage()
    done(store, iterations=1)
    old = os.umask(umask)
    try:
        path, _ = archive(store, tmp_path / "kept")
        again, _ = archive(store, tmp_path / "kept")
    finally:
        os.umask(old)
    assert path != again
    for one in (path, again):
        assert stat.S_IMODE(os.stat(one).st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a\\b", "~root", "con", "%2e%2e%2f", "-rf"]
)
def test_a_chain_id_never_reaches_a_path(tmp_path, name):
    store = InMemoryStorage()
    done(store, name, iterations=0)
    path, _ = archive(store, tmp_path / "kept")
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]
    assert re.fullmatch(r"[0-9TZ-]{20}-[0-9a-f]{8}\.sifaka", Path(path).name)
    other = InMemoryStorage()
    assert import_archive(other, path) == [name]
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]


def test_where_there_is_nothing_to_keep_there_is_no_file(storage, tmp_path):
    assert archive(storage, tmp_path / "kept") == (None, [])
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_store_that_fails_meanwhile_leaves_no_file(tmp_path):
    store = InMemoryStorage()
    done(store, "a", iterations=1)
    done(store, "b", iterations=1)
    counting = Interrupted(store)
    archive(counting, tmp_path / "whole")
    for at in range(counting.calls):
        with pytest.raises(StorageError, match="interrupted"):
            archive(Interrupted(store, at), tmp_path / "kept")
    assert counting.calls > 3
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_process_that_dies_in_the_middle_leaves_no_archive_and_has_deleted_nothing(tmp_path):
    script = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from kept_runs import done
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.storage.wrapper import StorageWrapper

class Dies(StorageWrapper):
    def rows(self, chain_id, *args, **more):
        if chain_id == "a":
            os._exit(7)
        return super().rows(chain_id, *args, **more)

store = SQLiteStorage({str(tmp_path / "runs.db")!r})
for name in ("a", "b"):
    done(store, name, iterations=2)
CachedCheckpointStorage(Dies(store)).cleanup_old_checkpoints(0, archive={str(tmp_path / "kept")!r})
"""
    ran = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert ran.returncode == 7
    left = [one.name for one in (tmp_path / "kept").iterdir()]
    assert [name.endswith(".sifaka.part") for name in left] == [True]
    from sifaka.storage.sqlite import SQLiteStorage

    store = SQLiteStorage(tmp_path / "runs.db")
    assert len(store.entries(Query())) == 2
    assert list(check(store)) == []
    assert CachedCheckpointStorage(store).cleanup_old_checkpoints(0, archive=tmp_path / "kept") > 0
    (path,) = (tmp_path / "kept").glob("*.sifaka")
    assert sorted(import_archive(store, path)) == ["a", "b"]
    store.close()


# Damage ------------------------------------------------------------------------------------


def refused(path, data):
    """That this is no archive; nothing is written."""
    path.write_bytes(data)
    target = InMemoryStorage()
    with pytest.raises((ArchiveError, FormatError)):
        import_archive(target, path)
    assert target.entries(Query()) == []


def test_every_flipped_bit_is_found(small, tmp_path):
    data = small.read_bytes()
    path = tmp_path / "flipped"
    for place in range(len(data)):
        for bit in range(8):
            refused(path, data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
    print(f"{len(data) * 8} flipped bits found")
    assert len(data) > 500


def test_every_truncation_and_every_addition_is_found(small, tmp_path):
    data = small.read_bytes()
    for end in range(len(data)):
        refused(tmp_path / "cut", data[:end])
    for more in (b"\0", b"\n", data, data[-32:]):
        refused(tmp_path / "long", data + more)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, b"SQLite format 3\0" + b"\0" * 500, b"sifaka archive 1\n", b"PK\3\4" * 20]
)
def test_a_foreign_or_an_empty_file_is_no_archive(tmp_path, data):
    refused(tmp_path / "foreign", data)


def test_a_path_that_is_no_file_is_no_archive(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ArchiveError):
            import_archive(InMemoryStorage(), path)


def test_a_newer_format_is_named_as_such(small, tmp_path):
    data = small.read_bytes()
    newer = tmp_path / "newer"
    newer.write_bytes(data.replace(b"archive 1", b"archive 12"))
    with pytest.raises(FormatError, match="format 12"):
        import_archive(InMemoryStorage(), newer)
    refused(newer, data.replace(b"archive 1", b"archive 0"))


# Forgery: the checksum is right, what it covers is not --------------------------------------


def forged(path, *items, tail=b"", raw=None, **options):
    """A file as a stranger might make one: these msgpack items, with a checksum that is right."""
    body = b""
    for item in items:
        one = item if isinstance(item, bytes) else msgspec.msgpack.encode(item)
        body += len(one).to_bytes(4, "little") + one
    packed = zstandard.ZstdCompressor(**options).compress(body if raw is None else raw)
    data = b"sifaka archive 1\n" + packed + tail
    path.write_bytes(data + sha256(data).digest())
    return path


def entry(chain_id="a", **more):
    return Entry(chain_id, **({"status": "done", "last": 1} | more))


def row(chain_id="a", first=0, count=2, prev=0, **more):
    some = [Opened(1.0, chain_id, "Write."), Partial(1.0, 0, "text"), Partial(1.0, 0, "more")][:count]
    frame = encode(some, chain_id=chain_id, first=first, token=more.get("token", 1), prev=prev)
    return Row(**({"chain_id": chain_id, "first": first, "last": first + count - 1, "token": 1, "at": 1.0,
                   "checkpoints": 0, "frame": frame} | more))  # fmt: skip


def run(one):
    return ["run", one]


def line(one):
    return ["row", one]


END = ["end", 1, 1]


def test_a_forged_archive_that_is_as_it_must_be_is_read(tmp_path):
    path = forged(tmp_path / "x", run(entry()), line(row()), END)
    assert import_archive(InMemoryStorage(), path) == ["a"]


HOSTILE = {
    "control characters in the id": [run(entry("a\n")), line(row("a\n")), END],
    "a NUL in the id": [run(entry("a\0")), line(row("a\0")), END],
    "an empty id": [run(entry("")), line(row("")), END],
    "an id of 10 kB": [run(entry("a" * 10_000)), line(row("a" * 10_000)), END],
    "an owner": [run(entry(owner=b"me")), line(row()), END],
    "a token of 0": [run(entry(token=0)), line(row(token=0)), END],
    "a token too large to go on from": [run(entry(token=2**63 - 1)), line(row(token=2**63 - 1)), END],
    "a time that is none": [run(entry(updated_at=float("nan"))), line(row()), END],
    "a row's time that is none": [run(entry()), line(row(at=float("inf"))), END],
    "a status that is none": [run({**msgspec.to_builtins(entry()), "status": "owned"}), line(row()), END],
    "a run twice": [run(entry()), line(row()), run(entry()), line(row()), ["end", 1, 2]],
    "a run without rows": [run(entry()), ["end", 1, 0]],
    "a row without a run": [line(row()), ["end", 0, 1]],
    "a row of another run": [run(entry()), line(row("b")), END],
    "rows of another run in the frame": [run(entry()), line(row(frame=row("b").frame)), END],
    "a run that is not whole": [run(entry(last=5)), line(row()), END],
    "a row that does not follow": [run(entry(last=5)), line(row(first=4)), END],
    "a row that does not follow the one before": [
        run(entry(last=3)),
        line(row()),
        line(row(first=2, prev=5)),
        ["end", 1, 2],
    ],
    "a row that claims more records": [run(entry(last=9)), line(row(last=9)), END],
    "a row that ends before it begins": [run(entry(last=-1)), line(row(last=-1)), END],
    "checkpoints that are none": [run(entry()), line(row(checkpoints=2**40)), END],
    "a frame that is none": [run(entry()), line(row(frame=b"")), END],
    "an end that tells of more": [run(entry()), line(row()), ["end", 1, 2]],
    "no end": [run(entry()), line(row())],
    "no run at all, but rubbish": [b"\xc1"],
    "an item of another kind": [["evil", 1]],
    "an item nested deep": [b"\x91" * 100_000 + b"\xc0"],
    "an empty item": [b""],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_is_refused_though_its_checksum_is_right(tmp_path, name):
    path = forged(tmp_path / "x", *HOSTILE[name])
    refused(path, path.read_bytes())


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    import tracemalloc

    path = tmp_path / "bomb"
    zeros = bytes(64 << 20)
    claims = (2**32 - 1).to_bytes(4, "little")
    wide = zstandard.ZstdCompressionParameters(compression_level=1, window_log=27)
    bombs = [
        {"raw": claims + zeros},
        {"raw": (300 << 20).to_bytes(4, "little") + zeros},
        {"raw": zeros},
        {"raw": zeros, "compression_params": wide},
    ]
    for bomb in bombs:
        forged(path, **bomb)
        assert path.stat().st_size < 100_000
        tracemalloc.start()
        with pytest.raises(ArchiveError):
            list(read_archive(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 300 << 20
    stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    items = path.with_name("items")
    forged(items, run(entry()), line(row()), END)
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(items.read_bytes()[17:-32])
    data = b"sifaka archive 1\n" + stream.compress(plain) + stream.flush()
    path.write_bytes(data + sha256(data).digest())
    refused(path, path.read_bytes())  # it would take 128 MiB to read a hundred bytes
    frame = row().frame
    huge = frame[:4] + (2**31).to_bytes(4, "little") + frame[8:]
    forged(path, run(entry()), line(row(frame=huge)), END)
    refused(path, path.read_bytes())


def test_every_flipped_bit_under_a_right_checksum_is_refused_or_harmless(small, tmp_path):
    """No other error, and whatever is imported can be read whole."""
    data = small.read_bytes()[:-32]
    path = tmp_path / "x"
    outcomes = {True: 0, False: 0}
    for place in range(17, len(data), 3):
        for bit in range(8):
            forgery = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            path.write_bytes(forgery + sha256(forgery).digest())
            target = InMemoryStorage()
            try:
                import_archive(target, path)
            except (ArchiveError, FormatError):
                assert target.entries(Query()) == []
                outcomes[False] += 1
            else:
                assert list(check(target)) == []
                outcomes[True] += 1
    assert outcomes[False] > 1000


# How much it saves -------------------------------------------------------------------------


def english():
    """Sentences as people write them: this project's own documents."""
    text = " ".join(
        path.read_text() for path in sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md"))
    )
    plain = re.sub(r"`[^`]*`|[|#*_>\[\]]|https?://\S+", " ", text)
    return [" ".join(one.split()) for one in re.split(r"(?<=[.!?])\s", plain) if 40 < len(one) < 300]


class Reviser:
    """Each draft is the one before with a few sentences changed, as good models do it."""

    name = "reviser"

    def __init__(self, sentences, start):
        self._sentences = sentences
        self._at = start
        self._draft = sentences[start : start + 12]

    def generate(self, prompt, **options):
        for n in range(2):
            self._at += 1
            self._draft[(self._at * 5 + n) % 12] = self._sentences[self._at % len(self._sentences)]
        return Reply(" ".join(self._draft), usage=Usage(700, 300), price_usd=0.01)


def test_an_archive_of_english_drafts_is_a_fraction_of_what_the_store_holds(tmp_path):
    sentences = english()
    assert len(sentences) > 100
    store = InMemoryStorage()
    for n in range(20):
        a_chain(store, f"run {n}", model=Reviser(sentences, n * 7), iterations=4, asks=False).run()
    stored = store.measure()
    path, _ = archive(store, tmp_path)
    size = os.stat(path).st_size
    print(f"raw {stored['raw_bytes']:,}, stored {stored['stored_bytes']:,}, archived {size:,} bytes: "
          f"{stored['stored_bytes'] / size:.1f} times smaller than the store's")  # fmt: skip
    assert size < stored["stored_bytes"] / 3
