"""The command line, and the demo: on the real model, killed for real, and told as it was."""

from __future__ import annotations

import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

import doubles
from doubles import Asking, Critic, Model, Validator, chain_of, died, log, priced
from sifaka.cli import main
from sifaka.cli.demo.command import Account, last_page
from sifaka.cli.demo.follow import follower
from sifaka.cli.demo.picture import draw
from sifaka.cli.demo.watch import Reaper, Site, WriterError, live
from sifaka.cli.demo.writer import CHAIN_ID, build, documents
from sifaka.cli.exits import code_of
from sifaka.cli.pages import run_page
from sifaka.cli.screen import console_for, paper, safe, say_error, typed
from sifaka.cli.show import look
from sifaka.errors import (
    ChainError,
    DamagedRecordError,
    FormatError,
    OwnedError,
    SifakaError,
    StoreUnreachableError,
    UnknownChainError,
)
from sifaka.log.records import Opened, Result
from sifaka.log.state import fold
from sifaka.storage.memory import InMemoryStorage
from sifaka.storage.sqlite import SQLiteStorage
from sifaka.thought import Document, Thought
from sifaka.views import Moment, Paid, Timeline, story_of
from test_views import told_run

HOSTILE = [
    "\x1b]0;owned\x07",
    "\x1b[2J\x1b[31mred",
    "\x9b31mC1",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\u202eright to left",
    "\u2066isolated\u2069",
    "back\x08\x08\x08space",
    "over\rwritten",
    "\x7f\x00\x07",
    "line\u2028separator\x85next",
    "\ufeffzero\u200bwidth",
    "\U000e0041tag",
    "[bold red]markup[/bold red] [link=http://evil.example]x[/link] [/]",
    ":bomb: :warning:",
]
SGR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def of_the_usual_width(monkeypatch):
    """Who runs these tests may have a narrow terminal."""
    monkeypatch.setenv("COLUMNS", "100")


def columns_of(page, width=100):
    """A page as plain lines."""
    console = Console(width=width, markup=False, highlight=False, emoji=False, color_system=None)
    with console.capture() as capture:
        console.print(page)
    return [line.rstrip() for line in capture.get().splitlines()]


def words_of(lines):
    """What lines say, however they are wrapped."""
    return " ".join(" ".join(lines).replace("┃", " ").split())


def page_of(records, *, status=None, width=100, **more):
    story = story_of(records)
    return columns_of(run_page(story.timeline(), story.summary(status), **more), width)


def stored(tmp_path, chain_id="r", **parts):
    """The address of a store with a run in it."""
    path = tmp_path / "runs.db"
    chain_of(parts.pop("model", Model()), SQLiteStorage(path), chain_id=chain_id, **parts).run_with_recovery()
    return f"sqlite:///{path}"


# Verbs and exit codes ----------------------------------------------------------------------


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"sifaka \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["show", "--help"], ["demo", "--help"]])
def test_help_ends_in_examples(capsys, arguments):
    assert main(arguments) == 0
    said = capsys.readouterr().out
    _, _, examples = said.partition("Examples:")
    assert "  sifaka " in examples or "sifaka show" in examples
    assert "╭" not in examples


@pytest.mark.parametrize(
    "arguments", [["shw"], ["show"], ["show", "r", "--store", "memory://", "--bla"], ["demo", "--seed", "x"]]
)
def test_what_is_typed_wrong_ends_with_2_and_says_why(capsys, arguments):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "sifaka --help" in err


def test_a_store_that_is_not_there_ends_with_3_and_is_not_created_by_looking(tmp_path, capsys):
    assert main(["show", "r", "--store", f"sqlite:///{tmp_path}/none.db"]) == 3
    assert list(tmp_path.iterdir()) == []
    assert "none.db" in capsys.readouterr().err


def test_a_file_that_is_no_store_ends_with_3(tmp_path, capsys):
    path = tmp_path / "text.db"
    path.write_text("this is a letter, and no store at all" * 50)
    assert main(["show", "r", "--store", f"sqlite:///{path}"]) == 3
    assert "no sifaka store" in capsys.readouterr().err


def test_a_run_that_is_not_there_ends_with_2(tmp_path, capsys):
    assert main(["show", "other", "--store", stored(tmp_path)]) == 2
    assert "'other'" in capsys.readouterr().err


def test_a_damaged_record_ends_with_4(tmp_path, capsys):
    url = stored(tmp_path)
    storage = SQLiteStorage(tmp_path / "runs.db")
    with storage._use() as connection:
        connection.execute("UPDATE log SET frame = zeroblob(length(frame)) WHERE first = 0")
    storage.close()
    assert main(["show", "r", "--store", url]) == 4
    assert "damaged" in capsys.readouterr().err


def test_each_kind_of_error_has_a_code_of_its_own():
    chain_error = ChainError("r", "it failed", thought=Thought("p"), fault=None)
    codes = [
        (chain_error, 1),
        (SifakaError("something"), 1),
        (UnknownChainError("r"), 2),
        (StoreUnreachableError("url", "why"), 3),
        (DamagedRecordError("r", 0, 0, "why"), 4),
        (FormatError("it", 9, 1), 4),
        (OwnedError("r", "somebody", 1.0, 1.0), 5),
    ]
    assert [(error, code_of(error)) for error, _ in codes] == codes


def test_without_the_extra_the_message_has_the_command_that_installs_it(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "rich" else object())
    assert main(["demo"]) == 2
    assert "pip install 'sifaka[cli]'" in capsys.readouterr().err


def test_the_module_is_the_command_too():
    done = subprocess.run(
        [sys.executable, "-m", "sifaka", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("sifaka ")


def test_the_store_may_come_from_the_environment(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SIFAKA_STORE", stored(tmp_path))
    assert main(["show", "r"]) == 0
    assert capsys.readouterr().out.startswith("r  done")


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    show = f"{sys.executable} -m sifaka show r --store {stored(tmp_path)} --full"
    done = subprocess.run(["sh", "-c", f"{show} | head -1"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("r  done")
    assert done.stderr == ""


def test_a_command_to_copy_can_be_typed_where_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/sifaka/__main__.py"])
    assert typed("show", "a b") == "python -m sifaka show 'a b'"
    program = tmp_path / "bin" / "sifaka"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert typed("show") == "bin/sifaka show"
    monkeypatch.setenv("PATH", str(program.parent))
    assert typed("show") == "sifaka show"


# What is seen of a run ---------------------------------------------------------------------


def test_a_page_tells_a_stranger_what_happened():
    lines = page_of(told_run())
    page = words_of(lines)
    for fact in (
        "told done: the best text passes both validators; it died once on the way",
        "0.0 ▶ started a:model writes with 1 retriever, 2 validators, 1 critic",
        "4.0 ✗ text first text: 2 words, cut off at the limit of its",
        "4.0 ↻ fault truncated: asked again with max_tokens=20 after 0.5 s;",
        "7.0 ✗ verdict form failed: has no list; length passed",
        "✗ the process of life 1 died; all that it had recorded was kept",
        "20.0 ▶ resumed a new process took over at the criticism of the first",
        "23.0 · feedback refine asks for changes: add a list 2.5 10 unknown",
        "26.0 ■ end done: the best text passes both validators",
        "Kept all that life 1 had paid when it died: 2 model calls, 30 tokens, 5.0 s, $0.0020",
        "In doubt refine asked a:model and no answer was recorded: it may have been paid, $0.0100 at most, and",
        "at most, and was made again",
        "Faults The answer reached its length limit before it was complete → asked again with max_tokens=20",
        "→ asked again with max_tokens=20 after 0.5 s: that worked",
        "Paid 4 model calls, 55 tokens, 9.5 s, $0.0030, and 1 call of unknown price, in 2 lives",
        "Text improvement 1, 1 word, passed four!",
    ):
        assert fact in page, fact
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 45


def test_the_order_on_the_page_is_the_order_of_events():
    page = "\n".join(page_of(told_run()))
    order = [
        "started",
        "first text: 2",
        "fault",
        "first text: 3",
        "verdict",
        "died;",
        "doubt",
        "life 2",
        "resumed",
    ]
    places = [page.index(word, page.index("life 1")) for word in order]
    assert places == sorted(places)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_page_keeps_to_its_width(width):
    assert max(map(len, page_of(told_run(), width=width))) <= width


def test_a_full_page_leaves_nothing_out():
    lines = page_of(told_run(), full=True)
    assert sum("outcome" in line for line in lines) == 1
    assert sum(" wait " in line for line in lines) == 1
    assert sum("verdict" in line for line in lines) == 4


def test_a_long_text_is_cut_to_a_few_lines_and_says_so():
    records = [
        msgspec.structs.replace(one, text="word " * 400) if is_last_text(one) else one for one in told_run()
    ]
    lines = page_of(records)
    assert len(lines) <= 45
    assert lines[-1].endswith("…")
    assert "…" not in "\n".join(page_of(records, full=True)[-6:])


def is_last_text(record):
    return isinstance(record, Result) and record.operation == "generation" and record.iteration == 1


def test_a_run_that_failed_says_so(tmp_path, capsys):
    store = InMemoryStorage()
    with pytest.raises(ChainError):
        chain_of(Model(doubles.no_key()), store, chain_id="r").run_with_recovery()
    page = "\n".join(page_of(log(store, "r")))
    assert "r  failed: auth at generation" in page
    assert "→ nothing was done" in page


def test_a_running_run_shows_its_call_in_flight():
    assert any("? call" in line for line in page_of(told_run()[:7], status="running"))
    assert not any("? call" in line for line in page_of(told_run()[:7], status="interrupted"))
    assert any("In doubt" in line for line in page_of(told_run()[:7], status="interrupted"))


def test_looking_says_interrupted_where_the_owner_is_gone(tmp_path):
    storage = SQLiteStorage(tmp_path / "runs.db")
    died(chain_of(Model(lambda _: doubles.die(storage, "r")), storage, chain_id="r"))
    _, summary = look(f"sqlite:///{tmp_path}/runs.db", "r")
    assert summary.status == "interrupted"
    assert len(summary.doubts) == 1


# What is hostile ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_what_cannot_be_seen_is_not_let_through(text):
    made = safe(text)
    assert all(one.isprintable() or one == "\n" for one in made)
    assert [one for one in made if one.isalnum()] == [
        one for one in text if one.isalnum() and one.isprintable()
    ]


def hostile_records(text):
    """A run in which everything that can be a text is this one."""

    def poisoned(value):
        if isinstance(value, str):
            return text if value not in KEPT else value
        if isinstance(value, tuple):
            return tuple(poisoned(one) for one in value)
        if isinstance(value, dict):
            return {name if name in KEPT else text: poisoned(one) for name, one in value.items()}
        if isinstance(value, msgspec.Struct):
            fields = msgspec.structs.asdict(value)
            return msgspec.structs.replace(value, **{name: poisoned(one) for name, one in fields.items()})
        return value

    return [poisoned(one) for one in told_run()]


# What the log's own vocabulary is: decoding yields nothing else there, or a text that is looked up.
KEPT = {
    *("retrieval", "generation", "validation", "criticism", "complete", "new", "death", "done", "validator"),
    *("max_improvement_iterations", "truncated", "modify_parameters", "no", "maybe", "yes", "partly"),
}


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("full", [False, True])
def test_no_text_of_a_log_reaches_the_terminal_as_a_command(text, full):
    story = story_of(hostile_records(text))
    sheet = paper()
    sheet.print(run_page(story.timeline(), story.summary(), full=full))
    sent = sheet.file.getvalue()
    left = SGR.sub("", sent)
    assert "\x1b" not in left
    assert all(one.isprintable() or one == "\n" for one in left)
    if text.startswith(("[", ":")):
        assert text.split()[0] in left, "markup is text like any other"


def test_hostile_texts_of_a_real_run_are_harmless_in_a_real_terminal(tmp_path):
    payload = "".join(HOSTILE)
    url = hostile_store(tmp_path, payload)
    sent = in_terminal([sys.executable, "-m", "sifaka", "show", "hostile", "--store", url])
    left = SGR.sub("", sent)
    assert "\x1b" in sent, "this is a terminal: there are colours"
    assert "\x1b" not in left
    assert "\x9b" not in left
    assert all(one.isprintable() or one in "\r\n" for one in left)
    assert "[bold red]" in left


def hostile_store(tmp_path, payload):
    """A store with a run whose prompt, document, text, feedback and fault are hostile."""
    path = tmp_path / "runs.db"
    chain = chain_of(
        Model(KeyError(payload), *[priced(payload, 0.1)] * 9),
        SQLiteStorage(path),
        prompt=payload,
        critics=[Asking("asking", ("how is it?",))],
        validators=[Validator("v", doubles.ValidationResult(False, payload, issues=(payload,)))],
        retrievers=[doubles.Retriever("shelf", [Document(payload, id=payload)])],
        chain_id="hostile",
        max_improvement_iterations=1,
    )
    chain.run_with_recovery()
    return f"sqlite:///{path}"


def in_terminal(command, **environment):
    """What a command sends to a terminal of 100 columns."""
    parent, child = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    env = {**inherited, "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=env)
    os.close(child)
    sent = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # Linux says so where the other end is closed
            break
        if not piece:
            break
        sent += piece
    os.close(parent)
    assert process.wait() == 0
    return sent.decode()


def test_no_color_is_honoured_in_a_terminal(tmp_path):
    show = [sys.executable, "-m", "sifaka", "show", "r", "--store", stored(tmp_path)]
    coloured = re.compile(r"\x1b\[[0-9;]*3\d")
    assert coloured.search(in_terminal(show))
    assert not coloured.search(in_terminal(show, NO_COLOR="1"))


def test_elsewhere_than_in_a_terminal_there_are_plain_lines(tmp_path, capsys):
    assert main(["show", "r", "--store", stored(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert all(line == line.rstrip() for line in said.splitlines())


def test_a_stream_with_few_characters_gets_plain_signs(tmp_path):
    show = [
        sys.executable,
        "-m",
        "sifaka",
        "show",
        "r",
        "--store",
        stored(tmp_path, model=Model("naïve ✓ text")),
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(show, capture_output=True, env=environment, check=True)
    said = done.stdout.decode("ascii")
    assert "| " in said
    assert "na?ve + text" in said


def test_an_error_is_made_safe_too(capsys):
    say_error("no run named \x1b[2J")
    assert capsys.readouterr().err == "error: no run named \N{REPLACEMENT CHARACTER}[2J\n"


# The picture -------------------------------------------------------------------------------


def test_the_picture_needs_nothing_from_anywhere(tmp_path):
    story = story_of(told_run())
    path = tmp_path / "page.svg"
    draw(run_page(story.timeline(), story.summary()), str(path))
    picture = path.read_text()
    links = re.findall(r"\w+://[^\s\"'<>)]+", picture)
    assert set(links) == {"http://www.w3.org/2000/svg"}, "the name of the format, which nobody fetches"
    assert "@font-face" not in picture
    assert "url(#" in picture
    assert "<script" not in picture
    assert "done:&#160;the&#160;best" in picture


def test_a_hostile_text_stays_text_in_the_picture(tmp_path):
    records = hostile_records('</text><script>alert("x")</script>&lt;')
    story = story_of(records)
    path = tmp_path / "page.svg"
    draw(run_page(story.timeline(), story.summary()), str(path))
    assert "<script" not in path.read_text()


# The demo's parts --------------------------------------------------------------------------


def timeline_with(*kinds, flying=None, answers=1):
    """A timeline with moments of these kinds and, perhaps, a call in flight."""
    paid = Paid(1, 1, 1, 1, 2.0)
    moments = [
        Moment(seq=n, at=0.0, kind="text", says="a text", seconds=2.0, paid=paid) for n in range(answers)
    ]
    moments += [Moment(seq=9, at=0.0, kind=kind, says=kind) for kind in kinds]
    calls = () if flying is None else (Moment(seq=flying, at=0.0, kind="call", says="it writes", model="m"),)
    return Timeline(
        chain_id="r",
        prompt="p",
        status="running",
        began_at=0.0,
        last_at=0.0,
        life=1,
        operation="criticism",
        iteration=0,
        steps_done=1,
        steps_max=9,
        moments=tuple(moments) if answers else (),
        calls=calls,
    )


class Lot:
    """A lot that is known: which call, and how far into it."""

    def __init__(self, calls, share):
        self.calls = calls
        self.share = share

    def randrange(self, _end):
        return self.calls

    def uniform(self, _low, _high):
        return self.share


def test_the_reaper_strikes_in_the_call_and_at_the_moment_that_were_drawn():
    reaper = Reaper(Lot(1, 0.5))
    first, second = (timeline_with("verdict", flying=number) for number in (10, 20))
    assert not reaper.is_time(first, 2, now=100.0)
    assert not reaper.is_time(first, 2, now=200.0), "the first such call was not drawn"
    assert not reaper.is_time(second, 2, now=300.0)
    assert not reaper.is_time(second, 2, now=300.9)
    assert reaper.is_time(second, 2, now=301.0)
    assert reaper.says == "1.0 s into a call: it writes"


@pytest.mark.parametrize(
    ("timeline", "calls_made"),
    [
        (timeline_with("verdict"), 2),  # no call is in flight
        (timeline_with("verdict", flying=10), 1),  # it is not out yet: the ledger does not have it
        (timeline_with(flying=10), 2),  # a text, and nothing that was said of it
        (timeline_with("verdict", flying=10, answers=0), 1),  # no text
    ],
)
def test_the_reaper_does_not_strike_where_there_is_nothing_to_show(timeline, calls_made):
    reaper = Reaper(Lot(0, 0.0))
    assert not reaper.is_time(timeline, calls_made, now=1e9)
    assert reaper.says == ""


def test_a_watcher_reads_what_is_new_and_each_record_once(tmp_path):
    site = Site(str(tmp_path))
    assert not site.read(), "there is no run yet"
    assert site.calls_made() == 0
    seen = []
    critic = Critic("critic", "more", None)
    model = Model(lambda _: seen.append(site.read()) or "text", lambda _: seen.append(site.read()) or "text")
    chain_of(model, site.store, critics=[critic], chain_id=CHAIN_ID).run()
    assert seen == [True, True]
    assert site.read()
    assert not site.read()
    assert site.story.timeline() == story_of(log(site.store, CHAIN_ID)).timeline()


def test_a_watcher_misses_no_record_that_comes_alone(tmp_path):
    site = Site(str(tmp_path))
    journal = site.store.journal
    lease = journal.claim(CHAIN_ID)
    for number, record in enumerate(told_run()[:3], 1):
        journal.append(lease, [record])
        assert site.read()
        assert site.story.state.next_seq == number
    journal.release(lease)


def test_the_documents_come_with_the_package():
    found = documents()
    assert [one.id for one in found] == ["accountability", "fairness", "oversight", "privacy", "transparency"]
    for one in found:
        assert 80 <= len(one.text.split()) <= 150
        assert one.text == " ".join(one.text.split())


def test_the_demos_chain_asks_for_what_its_documents_speak_of(tmp_path):
    chain = build(Model("People need privacy and fairness."), f"sqlite:///{tmp_path}/runs.db")
    chain.with_options(max_improvement_iterations=0)
    thought = chain.run()
    assert len(thought.pre_generation_context) == 2
    assert [one.validator for one in thought.validation_results] == ["length", "form"]


def account(**changes):
    told = {
        "killed": "1.0 s into a call: it writes",
        "made": 5,
        "answered": 4,
        "doubtful": 1,
        "again": 0,
        "same": True,
    }
    return Account(**{**told, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Killed with SIGKILL, 1.0 s into a call: it writes"),
        ({}, "the model was called 5 times; the log has 4 answers and 1 call in doubt: it adds up"),
        ({}, "Once more run a third time: 0 calls, the same text"),
        ({"again": 2}, "run a third time: 2 calls"),
        ({"made": 6}, "1 unaccounted for"),
        ({"made": 4}, "it adds up (1 in doubt was never sent)"),
        (
            {"killed": ""},
            "the run was over before it could be killed: it had one life, and nothing was resumed",
        ),
    ],
)
def test_the_last_screen_says_what_the_demo_saw_be_it_good_or_bad(changes, said):
    story = story_of(told_run())
    lines = columns_of(last_page(story.timeline(), story.summary(), account(**changes)))
    assert said in words_of(lines)
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100


@pytest.mark.model
def test_a_picture_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main(["demo", "--svg", str(tmp_path / "nowhere" / "page.svg")]) == 2
    assert list(tmp_path.iterdir()) == []
    assert "nowhere" in capsys.readouterr().err


def test_a_third_run_that_gave_another_text_is_not_called_the_same():
    story = story_of(told_run())
    page = columns_of(last_page(story.timeline(), story.summary(), account(same=False)))
    assert "the same text" not in "\n".join(page)


def test_what_goes_on_is_told_once_a_line_where_nothing_can_be_drawn(capsys):
    with follower(console_for()) as follow:
        for number in (6, 12, 19, 32):
            follow(story_of(told_run()[:number]).timeline())
        follow.announce("killed")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(story_of(told_run()).moments) + 1
    assert lines[2].split(None, 5)[2:] == [
        "life",
        "1",
        "text",
        "first text: 2 words, cut off at the limit of its tokens",
    ]
    assert lines[-1].strip() == "killed"


# The demo itself ---------------------------------------------------------------------------

real = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(600)]


@pytest.fixture
def folder(tmp_path):
    """A folder for one demo, and nothing left of it afterwards."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def marked(test):
    for mark in real:
        test = mark(test)
    return test


@marked
def test_nothing_that_was_recorded_before_the_death_is_lost_or_paid_again(folder):
    site = Site(str(folder))
    assert live(site, 1, lambda _: None, Reaper(Lot(0, 0.3))) is None
    before = log(site.store.storage, CHAIN_ID)
    called = site.calls_made()
    state = fold(CHAIN_ID, before)
    assert state.closed is None, "it was killed before its end"
    assert any(isinstance(one, Result) and one.text for one in before)
    assert len(state.open_intents) == 1

    said = live(site, 2, lambda _: None)
    after = log(site.store.storage, CHAIN_ID)
    assert after[: len(before)] == before
    assert [one.cause for one in after if isinstance(one, Opened)] == ["new", "death"]
    answered = [one.intent for one in after if isinstance(one, Result) and one.intent >= 0]
    assert len(answered) == len(set(answered))
    summary = site.story.summary()
    assert site.calls_made() == called + said.calls == summary.totals.model_calls + len(summary.doubts)
    assert len(summary.doubts) == 1
    assert said.text == summary.text

    again = live(site, 3, lambda _: None)
    assert again.calls == 0
    assert again.text == said.text
    assert log(site.store.storage, CHAIN_ID) == after


def demo_command(*arguments):
    return [sys.executable, "-m", "sifaka", "demo", *arguments]


@marked
def test_the_demo_from_beginning_to_end(folder):
    picture = folder / "demo.svg"
    environment = {**os.environ, "TMPDIR": str(folder)}
    started = time.monotonic()
    done = subprocess.run(
        demo_command("--svg", str(picture)), capture_output=True, text=True, env=environment, check=False
    )
    print(done.stdout, f"{time.monotonic() - started:.1f} s")
    assert done.stderr == ""
    assert done.returncode == 0
    assert "it adds up" in done.stdout
    assert "run a third time: 0 calls, the same text" in done.stdout
    (place,) = folder.glob("sifaka-demo-*")
    records = log(SQLiteStorage(place / "runs.db"), CHAIN_ID)
    ledger = (place / "calls.txt").read_text().splitlines()
    story = story_of(records)
    summary = story.summary()
    assert len(ledger) <= summary.totals.model_calls + len(summary.doubts)
    if "the run was over before it could be killed" not in done.stdout:
        assert [one.cause for one in records if isinstance(one, Opened)] == ["new", "death"]
        assert len({line.split()[1] for line in ledger}) == 2, "two processes called the model"
        assert "✗ the process of life 1 died" in done.stdout
    lines = columns_of(run_page(story.timeline(), story.summary()))
    for line in lines[4:]:
        assert line in done.stdout
    assert f"show ai-ethics --store sqlite:///{place}/runs.db" in done.stdout
    assert picture.read_text().startswith("<svg")


def writer_of(place):
    """The process id of the writer that called the model last."""
    return int((place / "calls.txt").read_text().split()[-3])


def wait_for_a_call(folder):
    """The demo's folder, when its writer has called the model; within a minute."""
    for _ in range(600):
        ledgers = list(folder.glob("sifaka-demo-*/calls.txt"))
        if ledgers and ledgers[0].read_text():
            return ledgers[0].parent
        time.sleep(0.1)
    raise AssertionError("no call was made")


def is_gone(pid):
    """Whether a process is gone within ten seconds."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


@marked
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_writer_ends_with_its_watcher(folder, number, code):
    environment = {**os.environ, "TMPDIR": str(folder)}
    demo = subprocess.Popen(
        demo_command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    place = wait_for_a_call(folder)
    writer = writer_of(place)
    demo.send_signal(number)
    said, errors = demo.communicate(timeout=60)
    assert demo.returncode == code
    assert is_gone(writer)
    assert errors == ""
    if number == signal.SIGINT:
        assert f"sifaka show ai-ethics --store sqlite:///{place}/runs.db" in said


def test_a_writer_that_cannot_write_is_told_with_its_last_words(folder):
    site = Site(str(folder))
    site.ledger = str(folder / "nowhere" / "calls.txt")
    with pytest.raises(WriterError, match=r"calls\.txt"):
        live(site, 1, lambda _: None)


def test_a_lot_with_a_seed_is_drawn_again():
    drawn = [Reaper(random.Random(7))._calls_left for _ in range(3)]
    assert len(set(drawn)) == 1
