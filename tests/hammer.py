"""What the tests of servers share: plain rows and runs, a writer that never rests, a connection cut anywhere."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from proxy import Proxy
from sifaka.log.records import Opened, Partial
from sifaka.storage.base import Entry, Row, Storage, Write
from sifaka.storage.journal import Journal, Lease
from sifaka.storage.reading import read


def row(chain_id: str, first: int, token: int = 1, **fields: Any) -> Row:
    known: dict[str, Any] = {"at": 1.0 + first, "checkpoints": 0, "frame": b"frame %d" % first, "raw": 20}
    return Row(chain_id, first, fields.pop("last", first), token, **(known | fields))


def opening(chain_id: str, **fields: Any) -> Write:
    known: dict[str, Any] = {"owner": b"me", "updated_at": 1.0}
    return Write(row(chain_id, 0), None, Entry(chain_id, **(known | fields)))


def begin(journal: Journal, chain_id: str = "a") -> Lease:
    lease = journal.claim(chain_id)
    journal.append(lease, [Opened(1.0, chain_id, "a prompt", parts=(), settings={})])
    return lease


def texts(storage: Storage, chain_id: str = "a") -> list[str]:
    return [one.text for one in read(storage, chain_id) if isinstance(one, Partial)]


class Hammer:
    """A thread that appends as fast as it can, and notes what was acknowledged."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.lease = begin(journal)
        self.acknowledged: list[str] = []
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                self.journal.append(self.lease, [Partial(float(number), 0, f"text {number}")])
                self.acknowledged.append(f"text {number}")
        except BaseException as error:
            self.failures.append(error)

    def advance(self) -> None:
        """Wait for one more append to be acknowledged."""
        seen = len(self.acknowledged)
        while len(self.acknowledged) == seen and not self.failures:
            time.sleep(0.0005)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self.failures, self.failures


def cut_everywhere(storage: Storage, proxy: Proxy, cut: Callable[[int | None], None], way: str) -> int:
    """An append, cut after every byte of one direction, and once more uncut; how many there were."""
    journal = Journal(storage)
    lease = begin(journal)
    sent = [f"same size {k:04d}" for k in range(4)]
    for text in sent:  # by now statements are prepared, and scripts known
        journal.append(lease, [Partial(2.0, 0, text)])
    setattr(proxy, way, 0)
    sent.append("same size 0004")
    journal.append(lease, [Partial(3.0, 0, sent[-1])])
    size = int(getattr(proxy, way))
    for k in range(size + 1):
        sent.append(f"same size {len(sent):04d}")
        cut(k)
        journal.append(lease, [Partial(4.0 + k, 0, sent[-1])])
        cut(None)
    assert texts(storage) == sent
    entry = storage.entry("a")
    assert entry is not None
    assert entry.last == len(sent)
    assert storage.measure()["records"] == len(sent) + 1
    journal.release(lease)
    return size + 1
