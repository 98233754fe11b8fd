"""Similar faults: found by text and place, kept and forgotten alike in memory, in a file and in Milvus."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import socket
import stat
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from sifaka.errors import MissingExtraError, StorageError, UsageError
from sifaka.storage.milvus import MilvusStorage
from sifaka.storage.similarity import Case, Similarity, SimilarityError, decode, encode, storable
from sifaka.storage.similarity.embedded import EmbeddedSimilarity
from sifaka.storage.similarity.guarded import GuardedSimilarity
from sifaka.storage.similarity.measure import WEIGHTS, Measure, ngrams
from sifaka.testing.clock import FakeClock

TOO_LONG = "This model's maximum context length is 8192 tokens, however you requested 9000 tokens"
TOO_FAST = "Rate limit reached for requests per minute. Please try again in 20s."
REFUSED = "Connection refused by host api.example.com"

HOSTILE = [
    '"] or chain != "',
    "' or 1=1 --",
    "a\\",
    '\\"',
    "{id}",
    "{chain_id}",
    'x" or id like "%',
    "%",
    "_",
    "a\nb",
    "nul\x00nul",
    "../../etc/passwd",
    "'; DROP TABLE cases; --",
    "\u202egnirts",
    "🦊" * 50,
    "count(*)",
    "run:1:2",
    "é",
    "e\u0301",
    "not null and true",
]


def case(text: str = TOO_LONG, case_id: str = "run:1", **more) -> Case:
    more.setdefault("chain_id", case_id.rpartition(":")[0])
    defaults = {"kind": "context_length", "step": "generation", "part": "writer", "model": "openai:gpt-4o"}
    return Case(case_id=case_id, text=text, **(defaults | more))


@pytest.fixture(scope="session")
def lite_path(tmp_path_factory):
    return tmp_path_factory.mktemp("lite") / "cases.db"


@pytest.fixture(params=["memory", "file", "lite", pytest.param("server", marks=pytest.mark.slow)])
def store(request, tmp_path, lite_path):
    """Each implementation, empty."""
    if request.param == "memory":
        made: Similarity = EmbeddedSimilarity()
    elif request.param == "file":
        made = EmbeddedSimilarity(tmp_path / "cases.sqlite")
    elif request.param == "lite":
        made = MilvusStorage(str(lite_path), f"c{uuid4().hex}")
    else:
        try:
            server = request.getfixturevalue("milvus_server")
        except pytest.FixtureLookupError:
            pytest.skip("there is no Milvus server here")
        made = MilvusStorage(server.url, f"c{uuid4().hex}", timeout_s=20.0)
    yield made
    made.close()


# One contract for all ---------------------------------------------------------------------------


def test_the_nearest_case_is_the_one_with_the_most_alike_text_and_place(store):
    store.add(
        [
            case(TOO_LONG.replace("8192", "4096"), "a:1"),
            case(TOO_FAST, "b:1", kind="rate_limit"),
            case(REFUSED, "c:1", kind="connection", step="retrieval", part="search", model=""),
        ]
    )
    found = store.nearest(case(case_id="now:1"))
    assert [match.case.case_id for match in found] == ["a:1", "b:1", "c:1"]
    assert found[0].similarity == pytest.approx(1.0, abs=1e-4)
    assert 0 <= found[2].similarity < found[1].similarity < 0.6


def test_every_field_comes_back_as_it_was_given(store):
    given = case(
        action="modify_parameters",
        parameters={"max_tokens": 10, "nested": {"a": [1, 2.5, None, True, "x"]}},
        success=True,
        at=1_700_000_000.25,
        iteration=3,
    )
    store.add([given])
    assert [match.case for match in store.nearest(case(case_id="now:1"))] == [given]


def test_what_was_done_plays_no_part_in_being_similar(store):
    store.add([case(case_id="a:1", action="full_restart", success=False, parameters={"x": 1}, at=5.0)])
    (found,) = store.nearest(case(case_id="now:1", action="retry_current_step", success=True))
    assert found.similarity == pytest.approx(1.0, abs=1e-4)


def test_adding_a_case_again_replaces_it(store):
    store.add([case(case_id="a:1", success=None), case(TOO_FAST, "b:1", kind="rate_limit")])
    store.add([case(case_id="a:1", success=True)])
    assert store.count() == 2
    assert store.nearest(case(case_id="now:1"))[0].case.success is True


def test_in_one_call_the_last_of_two_cases_with_one_id_stands(store):
    store.add([case(case_id="a:1", success=None), case(case_id="a:1", success=False)])
    assert [match.case.success for match in store.nearest(case(case_id="now:1"))] == [False]


def test_a_case_is_never_its_own_match(store):
    store.add([case(case_id="a:1"), case(case_id="a:2")])
    assert [match.case.case_id for match in store.nearest(case(case_id="a:1"))] == ["a:2"]


def test_no_more_than_the_limit_are_found_and_those_the_best(store):
    store.add([case(f"{TOO_LONG} {'x' * n}", f"a:{n}") for n in range(8)])
    found = store.nearest(case(case_id="a:0"), limit=3)
    assert [match.case.case_id for match in found] == ["a:1", "a:2", "a:3"]


def test_nothing_is_found_where_nothing_is_kept(store):
    store.add([])
    assert store.nearest(case()) == []
    assert store.count() == 0


def test_forgetting_takes_the_cases_of_those_runs_and_no_others(store):
    store.add([case(case_id=f"{run}:{n}") for run in ("a", "b", "c") for n in range(3)])
    store.forget(["a", "c", "was never there"])
    store.forget([])
    assert store.count() == 3
    assert {match.case.chain_id for match in store.nearest(case(case_id="now:1"))} == {"b"}


def test_after_forgetting_cases_can_be_added_again(store):
    store.add([case(case_id="a:1")])
    store.forget(["a"])
    store.add([case(case_id="a:1", success=True), case(case_id="b:1")])
    assert store.count() == 2


def test_hostile_ids_are_only_ids(store):
    store.add([case(case_id=f"{payload}:1", chain_id=payload) for payload in HOSTILE])
    store.add([case(case_id="innocent:1")])
    assert store.count() == len(HOSTILE) + 1
    found = {match.case.chain_id for match in store.nearest(case(case_id="now:1"), limit=100)}
    assert found == {*HOSTILE, "innocent"}
    gone, kept = HOSTILE[::2], HOSTILE[1::2]
    store.forget(gone)
    found = {match.case.chain_id for match in store.nearest(case(case_id="now:1"), limit=100)}
    assert found == {*kept, "innocent"}
    store.forget(kept)
    assert [m.case.case_id for m in store.nearest(case(case_id="now:1"))] == ["innocent:1"]


def test_hostile_texts_and_names_are_only_texts(store):
    given = [
        case(text, f"r{n}:1", part=text, model=f"x:{text}", step=text, action=text, parameters={"x": text})
        for n, text in enumerate(HOSTILE)
    ]
    store.add(given)
    for one in given:
        best = store.nearest(msgspec.structs.replace(one, case_id="now:1"), limit=1)[0]
        assert best.case == one
        assert best.similarity == pytest.approx(1.0, abs=1e-3)
    assert store.lies == 0


def test_lone_surrogates_and_endless_texts_are_stored_in_a_form_that_can_be(store):
    store.add([case("broken \ud800 " + "long " * 100_000, "a:1")])
    (found,) = store.nearest(case(case_id="now:1"))
    assert found.case.text.startswith("broken ? long")
    assert len(found.case.text) == 2_000


SECRETS = [
    ("sk-CANARYcanary0123456789", "text"),
    ("Bearer CANARY0123456789abcdef", "text"),
    ("https://user:CANARYpassword@host/", "model"),
    ("api_key=CANARY0123456789", "part"),
]


def test_secrets_are_redacted_before_anything_is_stored(store):
    for n, (secret, field) in enumerate(SECRETS):
        store.add([case(case_id=f"a{n}:1", **{"text": "plain", field: f"said {secret} here"})])
    store.add([case("plain", "b:1", parameters={"api_key": "CANARY-value", "list": ["sk-CANARY0123456789"]})])
    found = store.nearest(case("plain", "now:1"), limit=10)
    assert len(found) == len(SECRETS) + 1
    assert b"CANARY" not in msgspec.json.encode(found)
    assert sum(b"[secret]" in msgspec.json.encode(match) for match in found) == len(SECRETS) + 1


def test_what_cannot_be_stored_is_refused_by_name_and_nothing_else_is_lost(store):
    for parameters in ({"x": object()}, {"x": "y" * 40_000}):
        with pytest.raises(SimilarityError, match="a:1"):
            store.add([case(case_id="a:1", parameters=parameters)])
    store.add([case(case_id="b:1")])
    assert store.count() == 1


def test_many_threads_may_add_and_ask_at_once(store):
    failures: list[BaseException] = []

    def work(me: int) -> None:
        try:
            for n in range(5):
                store.add([case(case_id=f"t{me}:{n}")])
                assert store.nearest(case(case_id="now:1"), limit=1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.count() == 20


# The measure ------------------------------------------------------------------------------------


def similarity(one: Case, other: Case) -> float:
    measure = Measure()
    return (
        math.sumprod(measure.vector(one), measure.vector(other))
        if hasattr(math, "sumprod")
        else sum(x * y for x, y in zip(measure.vector(one), measure.vector(other), strict=True))
    )


def test_a_whole_case_is_as_similar_to_itself_as_can_be():
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    assert similarity(case(), case()) == pytest.approx(1)
    assert similarity(case(""), case("")) == pytest.approx(1)


def test_numbers_in_a_text_and_its_spacing_change_nothing():
    assert ngrams("limit 8192,\n retry in 20s") == ngrams("LIMIT 17, retry in 3s")


@pytest.mark.parametrize(
    ("change", "weight"),
    [
        ({"kind": "timeout"}, WEIGHTS["kind"]),
        ({"step": "retrieval"}, WEIGHTS["step"]),
        ({"part": "critic"}, WEIGHTS["part"]),
        ({"model": "openai:gpt-5"}, WEIGHTS["model"]),
        ({"model": "anthropic:claude"}, WEIGHTS["model"] + WEIGHTS["provider"]),
    ],
)
def test_each_part_of_the_place_counts_what_it_weighs(change, weight):
    assert similarity(case(), case(**change)) == pytest.approx(1 - weight, abs=weight / 2 + 1e-9)


def test_near_iterations_are_more_alike_than_far_ones():
    by_distance = [similarity(case(iteration=2), case(iteration=n)) for n in (2, 3, 5, 20)]
    assert by_distance == sorted(by_distance, reverse=True)
    assert len(set(by_distance)) == 4
    assert similarity(case(iteration=10**9), case(iteration=-5)) > 0.98


@pytest.mark.parametrize("kind", ["", "other"])
def test_a_kind_that_is_not_known_is_like_no_other(kind):
    assert similarity(case(kind=kind), case(kind=kind)) == pytest.approx(1 - WEIGHTS["kind"])


def test_all_kinds_are_told_apart():
    from sifaka.faults import KINDS

    for one in KINDS:
        for other in KINDS:
            if one != other:
                assert similarity(case(kind=one), case(kind=other)) < 1 - 0.4 * WEIGHTS["kind"]


def test_the_kind_decides_before_the_text_and_the_place_do():
    alike = similarity(
        case(TOO_LONG), case("input is too long for this model", step="x", part="y", model="z:z")
    )
    unlike = similarity(case(TOO_LONG), case("overloaded, please retry", kind="overloaded"))
    assert alike > unlike


VECTOR_1 = 4171279318


def test_vectors_are_the_same_in_every_process_and_version():
    digest = zlib.crc32(",".join(f"{x:.6f}" for x in Measure().vector(case(iteration=1))).encode())
    code = (
        "import zlib; from sifaka.storage.similarity.measure import Measure; from sifaka.storage.similarity import Case\n"
        f"c = Case('run:1', 'run', {TOO_LONG!r}, 'context_length', 'generation', 1, 'writer', 'openai:gpt-4o')\n"
        "print(zlib.crc32(','.join(f'{x:.6f}' for x in Measure().vector(c)).encode()))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(other.stdout) == digest == VECTOR_1, "a change of the measure needs a new name for it"


# A user's embedding -----------------------------------------------------------------------------


def by_length(text: str) -> list[float]:
    return [1.0, len(text) / 10, float(text.count("a"))]


@pytest.fixture(params=["file", "lite"])
def embedding_store(request, tmp_path, lite_path):
    """What opens one and the same store with an embedding function."""
    name = f"c{uuid4().hex}"
    opened: list[Similarity] = []

    def open_(function):
        if request.param == "file":
            opened.append(EmbeddedSimilarity(tmp_path / "cases.sqlite", embedding_function=function))
        else:
            opened.append(MilvusStorage(str(lite_path), name, embedding_function=function))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def test_an_embedding_function_of_any_dimension_takes_the_place_of_the_n_grams(embedding_store):
    store = embedding_store(by_length)
    store.add([case("b" * 10, "short:1"), case("b" * 200, "long:1"), case("a" * 10, "other:1")])
    found = store.nearest(case("c" * 10, "now:1"))
    assert [match.case.chain_id for match in found] == ["short", "long", "other"]
    assert found[0].similarity == pytest.approx(1.0, abs=1e-4)
    assert store.lies == 0


@pytest.mark.parametrize("function", [None, lambda text: [1.0, 2.0]])
def test_vectors_of_another_measure_are_refused_not_mixed(embedding_store, function):
    embedding_store(by_length).add([case()])
    with pytest.raises(SimilarityError, match="embedding_function"):
        embedding_store(function).nearest(case())


def failing(text: str) -> list[float]:
    raise RuntimeError("sk-CANARYcanary0123456789")


@pytest.mark.parametrize(
    "function",
    [
        failing,
        lambda text: [math.nan, 1.0],
        lambda text: [math.inf, 1.0],
        lambda text: [0.0, 0.0],
        lambda text: [],
        lambda text: ["x"],
        lambda text: None,
        lambda text: [1.0] * len(text),
    ],
)
def test_an_embedding_function_that_fails_is_a_similarity_error(function):
    with pytest.raises(SimilarityError, match="embedding function") as caught:
        EmbeddedSimilarity(embedding_function=function).add([case("one"), case("two three", "b:1")])
    assert "CANARY" not in str(caught.value)


# The embedded store -----------------------------------------------------------------------------


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_file_is_its_owners_alone_under_any_umask(tmp_path):
    umask = os.umask(0)
    try:
        store = EmbeddedSimilarity(tmp_path / "cases.sqlite")
        store.add([case()])
    finally:
        os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    store.close()
    assert set(modes) >= {"cases.sqlite", "cases.sqlite-wal"}
    assert set(modes.values()) == {0o600}


def test_a_file_keeps_its_cases_when_it_is_opened_again(tmp_path):
    first = EmbeddedSimilarity(tmp_path / "cases.sqlite")
    first.add([case(case_id="a:1")])
    first.close()
    second = EmbeddedSimilarity(tmp_path / "cases.sqlite")
    assert [match.case.case_id for match in second.nearest(case(case_id="now:1"))] == ["a:1"]
    second.close()


def test_forgotten_texts_are_in_no_file_any_more_while_it_is_open_and_after(tmp_path):
    store = EmbeddedSimilarity(tmp_path / "cases.sqlite")
    store.add(
        [
            case(f"CANARY number {'x' * n}", f"secret:{n}", parameters={"big": "CANARY" * 900})
            for n in range(40)
        ]
    )
    store.add([case(f"harmless {n}", f"kept:{n}") for n in range(40)])
    store.add([case("CANARY again", "secret:1")])  # what was replaced leaves a trace as well
    assert b"CANARY" in everything_in(tmp_path)
    store.forget(["secret"])
    assert b"CANARY" not in everything_in(tmp_path)
    assert b"harmless" in everything_in(tmp_path)
    store.close()
    assert b"CANARY" not in everything_in(tmp_path)


def test_forgetting_that_a_reader_keeps_from_overwriting_the_texts_says_so(tmp_path):
    import sqlite3

    store = EmbeddedSimilarity(tmp_path / "cases.sqlite")
    store.add([case("CANARY", "secret:1")])
    reader = sqlite3.connect(tmp_path / "cases.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM cases").fetchone()
    with pytest.raises(SimilarityError, match=r"forget\(\) again"):
        store.forget(["secret"])
    reader.close()
    store.forget(["secret"])
    assert b"CANARY" not in everything_in(tmp_path)
    store.close()


def test_the_newest_cases_are_kept_and_the_dropped_counted():
    store = EmbeddedSimilarity(limit=3)
    store.add([case(case_id=f"a:{n}") for n in range(3)])
    store.add([case(case_id="a:0", success=True)])  # replaced: the newest now
    store.add([case(case_id="a:3")])
    found = {match.case.case_id for match in store.nearest(case(case_id="now:1"))}
    assert found == {"a:2", "a:0", "a:3"}
    assert (store.count(), store.dropped) == (3, 1)
    store.add([case(case_id=f"b:{n}") for n in range(10)])
    assert (store.count(), store.dropped) == (3, 11)
    store.close()


def test_among_equally_similar_cases_the_newest_comes_first():
    store = EmbeddedSimilarity()
    store.add([case(case_id=f"a:{n}") for n in range(5)])
    assert [match.case.case_id for match in store.nearest(case(case_id="now:1"), limit=2)] == ["a:4", "a:3"]
    store.close()


def add_one(path: Path, run: str) -> None:
    store = EmbeddedSimilarity(path)
    store.add([case(case_id=f"{run}:1", success=True)])
    store.close()


def test_what_another_process_adds_replaces_and_forgets_is_seen(tmp_path):
    path = tmp_path / "cases.sqlite"
    store, other = EmbeddedSimilarity(path), EmbeddedSimilarity(path)
    store.add([case(case_id="mine:1", success=None)])
    assert len(store.nearest(case(case_id="now:1"))) == 1
    spawn = multiprocessing.get_context("spawn")
    for run in ("mine", "theirs"):
        process = spawn.Process(target=add_one, args=(path, run))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert [(m.case.chain_id, m.case.success) for m in store.nearest(case(case_id="now:1"))] == [
        ("theirs", True),
        ("mine", True),
    ]
    other.forget(["theirs"])
    assert [match.case.chain_id for match in store.nearest(case(case_id="now:1"))] == ["mine"]
    store.close()
    other.close()


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # pytest's own threads
def test_a_forked_child_uses_a_connection_of_its_own(tmp_path):
    store = EmbeddedSimilarity(tmp_path / "cases.sqlite")
    store.add([case(case_id="parent:1")])
    pid = os.fork()
    if not pid:
        try:
            store.add([case(case_id="child:1")])
            os._exit(len(store.nearest(case(case_id="now:1"))))
        except BaseException:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert len(store.nearest(case(case_id="now:1"))) == 2
    store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE cases SET payload = x'00' WHERE id = 'bad:1'",
        "UPDATE cases SET payload = (SELECT payload FROM cases WHERE id = 'good:1') WHERE id = 'bad:1'",
        "UPDATE cases SET payload = '{\"case_id\": 1}' WHERE id = 'bad:1'",
        "UPDATE cases SET vector = x'00' WHERE id = 'bad:1'",
        "UPDATE cases SET vector = zeroblob(length(vector)) WHERE id = 'bad:1'",
        "UPDATE cases SET vector = CAST(x'0000c07f' || substr(vector, 5) AS BLOB) WHERE id = 'bad:1'",
        "UPDATE cases SET vector = CAST(x'0000807f' || substr(vector, 5) AS BLOB) WHERE id = 'bad:1'",
    ],
)
def test_a_row_that_cannot_be_true_is_left_out_and_counted(tmp_path, damage):
    import sqlite3

    path = tmp_path / "cases.sqlite"
    with_bad = EmbeddedSimilarity(path)
    with_bad.add([case(case_id="good:1"), case(case_id="bad:1")])
    with_bad.close()
    file = sqlite3.connect(path)
    file.execute(damage.replace("payload = '{", "payload = CAST('{").replace("}'", "}' AS BLOB)"))
    file.commit()
    file.close()
    store = EmbeddedSimilarity(path)
    assert [match.case.case_id for match in store.nearest(case(case_id="now:1"))] == ["good:1"]
    assert store.lies == 1
    store.close()


def test_a_file_that_is_none_or_newer_or_elsewhere_is_refused(tmp_path):
    import sqlite3

    (tmp_path / "text").write_text("this is no database, by any means " * 40)
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    for name, why in (
        ("text", "not a database"),
        ("newer", "newer sifaka"),
        ("no/such/folder", "No such file"),
    ):
        with pytest.raises(SimilarityError, match=why):
            EmbeddedSimilarity(tmp_path / name)


def test_without_numpy_the_message_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sifaka\[similarity\]'"):
        EmbeddedSimilarity()


def test_importing_the_stores_loads_no_heavy_library():
    code = (
        "import sys, sifaka.storage.similarity.embedded, sifaka.storage.milvus, sifaka.storage.similarity.guarded\n"
        "print([name for name in ('numpy', 'pymilvus', 'milvus_lite', 'grpc', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_stored_decodes_to_a_case_or_to_nothing():
    good = encode(storable(case(parameters={"a": 1})))
    assert decode(good) == case(parameters={"a": 1})
    for place in range(0, len(good) * 8, 5):
        mutated = bytearray(good)
        mutated[place // 8] ^= 1 << place % 8
        assert isinstance(decode(bytes(mutated)), Case | None)
    for bad in (b"", b"null", b"[]", b"{}", b'{"case_id":1}', b"[" * 100_000, good[:-1]):
        assert decode(bad) is None


# Milvus -----------------------------------------------------------------------------------------


def test_a_lite_folder_is_its_owners_alone_and_keeps_its_cases(tmp_path):
    path = tmp_path / "own.db"
    path.mkdir(mode=0o755)
    first = MilvusStorage(str(path))
    first.add([case(case_id="a:1"), case(TOO_FAST, "b:1", kind="rate_limit")])
    first.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    second = MilvusStorage(str(path))
    assert [match.case.case_id for match in second.nearest(case(case_id="now:1"))] == ["a:1", "b:1"]
    second.close()


def texts_in_lite(path: Path) -> str:
    """All that the folder holds: its bytes as they are, and the rows of its compressed files."""
    from pyarrow import ipc, parquet

    raw = everything_in(path).decode("latin-1")
    tables = [parquet.read_table(file) for file in path.rglob("*.parquet")]
    for file in path.rglob("*.arrow"):
        with ipc.open_stream(file) as stream:
            tables.append(stream.read_all())
    return raw + "".join(str(table.to_pylist()) for table in tables)


def test_forgotten_texts_are_in_no_file_of_a_lite_folder(tmp_path):
    path = tmp_path / "own.db"
    store = MilvusStorage(str(path))
    store.add([case("CANARY", f"secret:{n}") for n in range(3)])
    store.close()  # some are in its data files, some in its write-ahead log
    store.add([case("CANARY", f"secret:{n}") for n in range(3, 6)])
    store.add([case("harmless", f"kept:{n}") for n in range(30)])
    assert "CANARY" in texts_in_lite(path)
    store.forget(["secret"])
    assert "CANARY" not in texts_in_lite(path)
    store.close()
    assert "CANARY" not in texts_in_lite(path)
    assert "harmless" in texts_in_lite(path)
    assert store.count() == 30
    store.close()


@pytest.mark.parametrize("died", ["while copying", "before renaming"])
def test_a_death_while_forgetting_loses_no_other_case(tmp_path, died):
    store = MilvusStorage(str(tmp_path / "own.db"))
    store.add([case(case_id="kept:1"), case(case_id="gone:1")])

    def die(*_args, **_more):
        raise KeyboardInterrupt

    with store._link.use() as client:
        name = "flush" if died == "while copying" else "rename_collection"
        setattr(client, name, die)
    with pytest.raises(KeyboardInterrupt):
        store.forget(["gone"])
    store.close()
    assert [match.case.case_id for match in store.nearest(case(case_id="now:1"))] == ["kept:1"]
    store.forget(["gone"])
    assert store.count() == 1
    store.close()


def test_a_lite_folder_in_another_process_hands_is_a_similarity_error(tmp_path):
    path = str(tmp_path / "own.db")
    store = MilvusStorage(path)
    store.add([case()])
    code = (
        "import sys; from sifaka.storage.milvus import MilvusStorage\n"
        "from sifaka.storage.similarity import SimilarityError\n"
        "try: print(MilvusStorage(sys.argv[1]).count())\n"
        "except SimilarityError as error: print('refused')"
    )
    command = [sys.executable, "-c", code, path]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "refused"
    store.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "1"


def test_a_collection_of_another_program_is_refused_and_left_alone(lite_path):
    import pymilvus

    name = f"c{uuid4().hex}"
    MilvusStorage(str(lite_path), name).close()
    client = pymilvus.MilvusClient(str(lite_path))
    client.create_collection(name, dimension=8)
    with pytest.raises(SimilarityError, match=name):
        MilvusStorage(str(lite_path), name).add([case()])
    assert client.has_collection(name)
    client.close()


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("call", ["add", "nearest", "forget", "count"])
def test_a_server_that_is_down_is_a_similarity_error(call):
    store = MilvusStorage(f"http://user:CANARY@127.0.0.1:{closed_port()}", timeout_s=0.5)
    arguments = {"add": ([case()],), "nearest": (case(),), "forget": (["run"],), "count": ()}[call]
    with pytest.raises(SimilarityError, match=r"127\.0\.0\.1") as caught:
        getattr(store, call)(*arguments)
    assert isinstance(caught.value, StorageError)
    assert "CANARY" not in str(caught.value)
    store.close()


def test_an_address_that_is_none_is_the_callers_error():
    with pytest.raises(UsageError, match=r"cases\.sqlite"):
        MilvusStorage("cases.sqlite")


def test_without_pymilvus_the_message_has_the_command(monkeypatch):
    monkeypatch.setattr("sifaka.milvus.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sifaka\[milvus\]'"):
        MilvusStorage("cases.db")


class LyingClient:
    """A Milvus of our own: it holds rows as it was given them, and answers what a test tells it."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.answer = None
        self.failing: Exception | None = None
        self.closed = 0

    def has_collection(self, name, **_more):
        return True

    def describe_collection(self, name, **_more):
        fields = MilvusStorage("http://nowhere")._fields(Measure().dimensions)
        return {"fields": [{"name": field, "params": sizes} for field, sizes in fields.items()]}

    def load_collection(self, name, **_more):
        pass

    def upsert(self, name, rows, **_more):
        if self.failing:
            raise self.failing
        self.rows += rows

    def search(self, name, data, **_more):
        if self.failing:
            raise self.failing
        hits = [
            {
                "id": row["id"],
                "distance": sum(x * y for x, y in zip(row["ngrams_1"], data[0], strict=True)),
                "entity": {"chain": row["chain"], "payload": row["payload"]},
            }
            for row in self.rows
        ]
        return [self.answer(hits) if self.answer else hits]

    def close(self):
        self.closed += 1


@pytest.fixture
def liar(monkeypatch):
    client = LyingClient()
    store = MilvusStorage("http://nowhere")
    opened = []
    monkeypatch.setattr(store._link, "connect", lambda: opened.append(1) or client)
    store.opened = opened
    store.add([case(case_id="good:1"), case(case_id="bad:1", text="another text")])
    return store, client


def changed(**fields):
    def answer(hits):
        return [hits[0], hits[1] | fields]

    return answer


def with_payload(payload):
    return lambda hits: [hits[0], hits[1] | {"entity": hits[1]["entity"] | {"payload": payload}}]


LIES = {
    "not a number": changed(distance=math.nan),
    "endless": changed(distance=math.inf),
    "too similar": changed(distance=7.0),
    "more similar than its text says": changed(distance=0.999),
    "negative": changed(distance=-0.5),
    "no number": changed(distance="very"),
    "another id": changed(id="0" * 32),
    "no id": lambda hits: [hits[0], {"distance": 0.5, "entity": hits[1]["entity"]}],
    "no entity": changed(entity=None),
    "another run's": lambda hits: [hits[0], hits[1] | {"entity": hits[1]["entity"] | {"chain": "0" * 32}}],
    "no case": with_payload("{}"),
    "cut": with_payload('{"case_id":"bad:1"'),
    "bytes": with_payload(b"\xff\xfe"),
    "number": with_payload(5),
    "another case's": lambda hits: [hits[0], hits[1] | {"entity": hits[0]["entity"]}],
    "another text under the same id": with_payload(
        json.dumps({"case_id": "bad:1", "chain_id": "bad", "text": "x"})
    ),
    "twice the same": lambda hits: [hits[0], hits[0]],
    "nonsense": lambda hits: [hits[0], None],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_milvus_that_lies_is_not_believed(liar, lie):
    store, client = liar
    assert {match.case.case_id for match in store.nearest(case(case_id="now:1"))} == {"good:1", "bad:1"}
    assert store.lies == 0
    client.answer = LIES[lie]
    assert [match.case.case_id for match in store.nearest(case(case_id="now:1"))] == ["good:1"]
    assert store.lies == 1


@pytest.mark.parametrize("answer", [None, 5, {}])
def test_an_answer_of_another_shape_is_a_similarity_error(liar, answer):
    store, client = liar
    client.search = lambda name, **_more: answer
    with pytest.raises(SimilarityError):
        store.nearest(case())


def test_a_lost_connection_is_opened_again_at_the_next_call(liar):
    store, client = liar
    client.failing = ConnectionResetError("peer closed, Authorization: Bearer CANARY0123456789abcdef")
    with pytest.raises(SimilarityError, match="peer closed") as caught:
        store.nearest(case())
    assert "CANARY" not in str(caught.value)
    assert (client.closed, len(store.opened)) == (1, 1)
    client.failing = None
    assert store.nearest(case(case_id="now:1"))
    assert len(store.opened) == 2


# The guard --------------------------------------------------------------------------------------


class Shaky(Similarity):
    """A store that works, fails or hangs as told, and counts how often it is asked."""

    def __init__(self) -> None:
        self.inner = EmbeddedSimilarity()
        self.error: Exception | None = None
        self.hangs_until: threading.Event | None = None
        self.refuses = ""
        self.asked = 0

    def _ask(self) -> None:
        self.asked += 1
        if self.hangs_until:
            self.hangs_until.wait()
        if self.error:
            raise self.error

    def keep(self, cases):
        self._ask()
        if any(one.text == self.refuses for one in cases):
            raise SimilarityError("one of these cannot be stored")
        self.inner.keep(cases)

    def nearest(self, case, limit=10):
        self._ask()
        return self.inner.nearest(case, limit)

    def forget(self, chain_ids):
        self._ask()
        self.inner.forget(chain_ids)

    def count(self):
        return self.inner.count()

    def close(self):
        self.inner.close()


@pytest.fixture
def shaky():
    store = Shaky()
    yield store
    store.close()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def guard(shaky, clock):
    return GuardedSimilarity(shaky, clock=clock, limit_s=20.0, pause_s=30.0, waiting_max=5)


def test_a_working_store_is_found_in_without_a_note(guard):
    assert guard.add([case(case_id="a:1")]) == ""
    found = guard.nearest(case(case_id="now:1"))
    assert ([match.case.case_id for match in found.matches], found.note) == (["a:1"], "")
    assert guard.waiting == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SimilarityError("Milvus is down"), "Milvus is down"),
        (RuntimeError("sk-CANARYcanary012345"), "RuntimeError"),
    ],
)
def test_a_failure_is_a_note_and_no_error(guard, shaky, error, told):
    shaky.error = error
    found = guard.nearest(case())
    assert found == ([], f"similar cases are not available: {told}")
    assert guard.add([case()]) == found.note


def test_after_a_failure_a_dead_store_is_left_alone_for_the_pause(guard, shaky, clock):
    shaky.error = SimilarityError("down")
    guard.nearest(case())
    assert shaky.asked == 1
    clock.advance(29.9)
    assert guard.nearest(case()).note == "similar cases are not available: down"
    guard.add([case()])
    assert shaky.asked == 1
    clock.advance(0.2)
    shaky.error = None
    found = guard.nearest(case(case_id="now:1"))
    assert [match.case.case_id for match in found.matches] == [
        "run:1"
    ]  # stored now, before it was looked for
    assert found.note == ""
    asked = shaky.asked
    guard.nearest(case())
    assert shaky.asked > asked


def test_a_failed_second_try_begins_another_pause(guard, shaky, clock):
    shaky.error = SimilarityError("down")
    guard.nearest(case())
    clock.advance(31)
    guard.nearest(case())
    clock.advance(29)
    guard.nearest(case())
    assert shaky.asked == 2


def test_after_the_pause_one_call_tries_and_the_others_do_not_wait_for_it(guard, shaky, clock):
    shaky.error = SimilarityError("down")
    guard.nearest(case())
    clock.advance(31)
    shaky.error, shaky.hangs_until = None, threading.Event()
    first = threading.Thread(target=guard.nearest, args=(case(),))
    first.start()
    while shaky.asked < 2:
        pass
    assert guard.nearest(case()).note == "similar cases are not available: down"
    assert shaky.asked == 2
    shaky.hangs_until.set()
    first.join()
    shaky.hangs_until = None
    assert guard.nearest(case()).note == ""


def test_a_store_that_hangs_costs_no_more_than_the_limit(shaky, clock):
    guard = GuardedSimilarity(shaky, clock=clock, limit_s=0.02)
    shaky.hangs_until = threading.Event()
    for _ in range(6):
        assert guard.nearest(case()) == ([], "similar cases are not available: no answer within 0.02 s")
        clock.advance(31)
    assert shaky.asked == 3  # threads that hang are not piled up for ever
    shaky.hangs_until.set()
    for call in guard._overdue:
        call.join()
    assert guard.nearest(case()).note == ""


def test_waiting_cases_are_bounded_the_oldest_give_way_and_are_counted(guard, shaky, clock):
    shaky.error = SimilarityError("down")
    for n in range(8):
        guard.add([case(case_id=f"a:{n}")])
    assert (guard.waiting, guard.dropped) == (5, 3)
    shaky.error = None
    clock.advance(31)
    assert guard.add([]) == ""
    assert (guard.waiting, shaky.count()) == (0, 5)
    assert {match.case.case_id for match in guard.nearest(case(case_id="now:1")).matches} == {
        f"a:{n}" for n in range(3, 8)
    }


def test_a_waiting_case_whose_outcome_becomes_known_is_stored_with_it(guard, shaky, clock):
    shaky.error = SimilarityError("down")
    guard.add([case(case_id="a:1", success=None)])
    guard.add([case(case_id="a:1", success=True)])
    shaky.error = None
    clock.advance(31)
    assert [match.case.success for match in guard.nearest(case(case_id="now:1")).matches] == [True]


def test_an_outcome_that_becomes_known_while_its_case_is_being_stored_is_not_lost(guard, shaky, clock):
    keep = shaky.keep

    def keep_slowly(cases):
        keep(cases)
        shaky.keep = keep
        guard._queue(case(case_id="a:1", success=True))

    shaky.keep = keep_slowly
    guard.add([case(case_id="a:1", success=None)])
    assert guard.waiting == 1
    assert [match.case.success for match in guard.nearest(case(case_id="now:1")).matches] == [True]


def test_a_case_that_can_never_be_stored_is_dropped_at_once(guard, shaky):
    assert guard.add([case(parameters={"x": object()}), case(case_id="b:1")]) == ""
    assert (guard.dropped, shaky.count()) == (1, 1)


def test_a_case_that_a_working_store_refuses_is_given_up_and_hides_nothing(guard, shaky, clock):
    guard.add([case(case_id="a:1")])
    shaky.refuses = "poison"
    guard.add([case("poison", "b:1")])
    for _ in range(3):
        clock.advance(31)
        found = guard.nearest(case(case_id="now:1"))
        assert ([match.case.case_id for match in found.matches], found.note) == (["a:1"], "")
    assert (guard.waiting, guard.dropped) == (0, 1)


def test_secrets_of_waiting_cases_are_redacted_before_they_wait(guard, shaky):
    shaky.error = SimilarityError("down")
    guard.add([case("sk-CANARYcanary0123456789")])
    assert "CANARY" not in str(guard._waiting)


def test_forgetting_reaches_waiting_cases_and_fails_aloud(guard, shaky, clock):
    shaky.error = SimilarityError("down")
    guard.add([case(case_id="a:1"), case(case_id="b:1")])
    with pytest.raises(SimilarityError):
        guard.forget(["a"])
    assert guard.waiting == 1
    shaky.error = None
    clock.advance(31)
    assert [match.case.case_id for match in guard.nearest(case(case_id="now:1")).matches] == ["b:1"]


def test_lies_are_told_in_the_note(liar, clock):
    store, client = liar
    guard = GuardedSimilarity(store, clock=clock)
    client.answer = LIES["too similar"]
    found = guard.nearest(case(case_id="now:1"))
    assert len(found.matches) == 1
    assert found.note == "similar cases: 1 could not be true and were left out"


def test_a_dead_milvus_is_a_note_through_the_guard(clock):
    guard = GuardedSimilarity(MilvusStorage(f"http://127.0.0.1:{closed_port()}", timeout_s=0.5), clock=clock)
    found = guard.nearest(case())
    assert found.matches == []
    assert found.note.startswith("similar cases are not available: Milvus at http://127.0.0.1")
    guard.close()
