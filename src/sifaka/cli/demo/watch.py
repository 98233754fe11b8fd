"""A writer as its watcher sees it: a process, its log in the store, and its ledger (floor 9).

The watcher knows no more than anybody could: it reads the store while the writer writes to it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import islice

import msgspec

from sifaka.cli.demo.writer import CHAIN_ID, Said
from sifaka.errors import SifakaError
from sifaka.storage.urls import open_storage
from sifaka.views import Moment, Story, Timeline

__all__ = ["Reaper", "Site", "WriterError", "live"]

POLL_S = 0.05
ERROR_LINES = 12


class WriterError(SifakaError):
    """A writer ended otherwise than a run ends."""


class Site:
    """Where it all happens: a folder with the store, the ledger, and what each life said."""

    def __init__(self, folder: str, seed: int | None = None) -> None:
        self.folder = folder
        self.seed = seed
        self.url = f"sqlite:///{os.path.join(folder, 'runs.db')}"
        self.ledger = os.path.join(folder, "calls.txt")
        self.store = open_storage(self.url)
        self.story = Story()

    def calls_made(self) -> int:
        """How many calls of the model were made, as the ledger has it."""
        try:
            with open(self.ledger, "rb") as file:
                return file.read().count(b"\n")
        except FileNotFoundError:
            return 0

    def read(self) -> bool:
        """Fold in what the log has new; True where there was any."""
        entry = self.store.storage.entry(CHAIN_ID)
        known = self.story.state.next_seq
        if entry is None or entry.last < known:
            return False
        for record in islice(self.store.records(CHAIN_ID), known, None):
            self.story.apply(record)
        return True

    def path(self, name: str) -> str:
        """A file in the folder."""
        return os.path.join(self.folder, name)


class Reaper:
    """Chooses by lot when to kill: which call, and how far into it.

    Only a model call that is truly out counts, and only after a text and a verdict on it, or a feedback, were
    recorded. Which of these calls it hits, and when, is drawn; whether the run gets that far is not known.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._calls_left = chance.randrange(3)
        self._seen: int = -1
        self._seen_at = 0.0
        self._strike_at = 0.0
        self.says = ""
        """What was killed, and how far into it; empty before."""

    def is_time(self, timeline: Timeline, calls_made: int, now: float) -> bool:
        """Whether to kill the writer now (``now`` in seconds of a clock that never goes back)."""
        flying = next((call for call in timeline.calls if call.model), None)
        if flying is None or not _has_something_to_lose(timeline) or calls_made <= _answered(timeline):
            return False
        if flying.seq != self._seen:
            self._seen = flying.seq
            self._calls_left -= 1
            self._seen_at = now
            self._strike_at = now + self._chance.uniform(0.1, 0.9) * _usual_s(timeline)
        if self._calls_left >= 0 or now < self._strike_at:
            return False
        self.says = f"{now - self._seen_at:.1f} s into a call: {flying.says}"
        return True


def _has_something_to_lose(timeline: Timeline) -> bool:
    kinds = {moment.kind for moment in timeline.moments}
    return "text" in kinds and not kinds.isdisjoint({"verdict", "feedback"})


def _model_calls(timeline: Timeline) -> list[Moment]:
    return [one for one in timeline.moments if one.paid is not None and one.paid.model_calls]


def _answered(timeline: Timeline) -> int:
    return len(_model_calls(timeline))


def _usual_s(timeline: Timeline) -> float:
    """How long this model's calls have taken so far, on average."""
    seconds = [one.seconds or 0.0 for one in _model_calls(timeline)]
    return sum(seconds) / len(seconds)


# One life ----------------------------------------------------------------------------------


def live(
    site: Site, number: int, on_look: Callable[[Timeline], None], reaper: Reaper | None = None
) -> Said | None:
    """Let a writer live; ``on_look`` is called at each look at its log.

    Returns what the writer said at its end; None where ``reaper`` killed it, or its run failed. Raises
    WriterError where it came to another end.
    """
    with _writer(site, number) as writer:
        while writer.poll() is None:
            site.read()
            timeline = site.story.timeline()
            on_look(timeline)
            if reaper is not None and reaper.is_time(timeline, site.calls_made(), time.monotonic()):
                writer.kill()
                break
            time.sleep(POLL_S)
        said, _ = writer.communicate()
    site.read()
    timeline = site.story.timeline()
    on_look(timeline)
    if writer.returncode == 0:
        return msgspec.json.decode(said, type=Said)
    killed = reaper is not None and writer.returncode == -signal.SIGKILL
    if not killed and timeline.status != "failed":
        raise WriterError(f"the writing process ended with {writer.returncode}:\n{_last_words(site, number)}")
    return None


@contextmanager
def _writer(site: Site, number: int) -> Generator[subprocess.Popen[bytes]]:
    """The process of a life; it is gone afterwards, whatever happens."""
    # -P: no module of the current folder takes the place of one of ours.
    program = [sys.executable, "-P", "-m", "sifaka.cli.demo.writer"]
    seed = "" if site.seed is None else str(site.seed)
    with open(_errors(site, number), "wb") as errors:
        writer = subprocess.Popen(  # noqa: S603 - our own program
            [*program, site.url, site.ledger, seed],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the watcher, who then ends the writer
        )
    try:
        yield writer
    finally:
        writer.kill()
        writer.communicate()


def _errors(site: Site, number: int) -> str:
    return site.path(f"life-{number}.err")


def _last_words(site: Site, number: int) -> str:
    with open(_errors(site, number), encoding="utf-8", errors="replace") as file:
        return "\n".join(file.read().splitlines()[-ERROR_LINES:])
