"""The user's document on the stores it recommends: Redis keeps, Milvus finds similar faults.

A chain with a validator and a critic runs in a process of its own, which is killed in the middle of a call;
a new process goes on, and recovers with what the first one learned. Started as a program, this file is one
such process: it is told in JSON what to do, and answers in JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.milvus import MilvusStorage
from sifaka.storage.redis import RedisStorage
from sifaka.testing import Answer, Hang, ProviderDouble, Refuse
from sifaka.testing.provider import Received
from sifaka.testing.servers import MilvusServer
from test_seed import BLOCKS, Document

pytestmark = pytest.mark.slow

BUSY = Refuse(529)
TEXT = Answer(text="Ethics of AI, in a sentence or two.")
WISH = Answer(text="- It names no one who answers for a system: name who.")
BETTER = Answer(text="Ethics of AI: who answers for a system, and to whom.")
CONTENT = Answer(text="NO CHANGES NEEDED")
KILL = "kill"
"""The process that asks dies in this call."""


# The process --------------------------------------------------------------------------------


class DocumentOnServers(Document):
    """The document's blocks; its storage backend has a persistence and a search too."""

    def __init__(self, redis: str, milvus: Mapping[str, Any]) -> None:
        super().__init__()
        self.names |= {"persistence": RedisStorage(redis), "search": MilvusStorage(**milvus)}
        tiers = "memory_storage=memory_storage, persistence=persistence, search=search"
        self.run("# Create storage backend", {"memory_storage=memory_storage": tiers})
        self.store: CachedCheckpointStorage = self.names["checkpoint_storage"]
        if (timeout_s := milvus.get("timeout_s")) is not None:  # of a server that is slow, beside other tests
            assert self.store.search is not None
            self.store.search.limit_s = 1.5 * timeout_s

    def run(self, containing: str, instead: Mapping[str, str] | None = None) -> str:
        (block,) = [one for one in BLOCKS if containing in one]
        for old, new in (instead or {}).items():
            assert old in block
            block = block.replace(old, new)
        printed = StringIO()
        with redirect_stdout(printed), warnings.catch_warnings(action="ignore"):
            exec(compile(block, "seed.txt", "exec"), self.names)
        return printed.getvalue()


def run(document: DocumentOnServers, chain_id: str | None = None) -> dict[str, Any]:
    """The document's run, or in its place one that is gone on with; and all that looks back on it."""
    instead = {"chain.run_with_recovery()": f"chain.resume({chain_id!r})"} if chain_id else None
    document.run("# Create chain with checkpoint storage", instead)
    names = document.names
    document.run("# Create recovery manager")
    names["chain_id"] = names["chain"].chain_id
    blocks = ("# Get checkpoint history", "# Analyze recovery patterns", "# Cleanup old checkpoints")
    said = [document.run(block) for block in blocks]
    stats = names["storage_stats"]
    return {
        "text": names["result"].text,
        "passed": names["result"].passed,
        "chain_id": names["chain_id"],
        "said": "".join(said),
        "history": [_shown(event) for event in names["recovery_history"]],
        "stats": {name: stats[name] for name in ("total_checkpoints", "chains", "durability")},
    }


def _shown(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in ("action", "error_type", "step", "success", "evidence")}


def delete(document: DocumentOnServers, chain_id: str) -> dict[str, Any]:
    """One run is deleted, and with it its cases."""
    cases = document.names["search"]
    before = cases.count()
    removed = document.store.delete_chain(chain_id)
    return {"removed": removed, "before": before, "after": cases.count()}


WORK = {"run": run, "delete": delete}


def work(what: str, redis: str, milvus: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    document = DocumentOnServers(redis, milvus)
    done = WORK[what](document, **more)
    document.store.storage.close()
    return done


# The tests ----------------------------------------------------------------------------------


class Theatre:
    """A provider with a script, and the processes that ask it."""

    def __init__(self, redis: str) -> None:
        self.redis = redis
        self.script: list[Answer | Refuse | str] = []
        self.provider = ProviderDouble(self._behave)
        self._process: subprocess.Popen[str] | None = None

    def _behave(self, _request: Received) -> Answer | Refuse | Hang:
        says = self.script.pop(0)
        if isinstance(says, str):
            assert self._process is not None
            os.kill(self._process.pid, signal.SIGKILL)
            return Hang()
        return says

    def live(self, what: str, milvus: Mapping[str, Any], *script: Answer | Refuse | str, **more: Any) -> Any:
        """What a new process says, for which the provider plays this script; None if it was killed."""
        self.script = list(script)
        command = json.dumps({"what": what, "redis": self.redis, "milvus": milvus, **more})
        self._process = subprocess.Popen(
            [sys.executable, __file__, command],
            env={**os.environ, **self.provider.environ()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said, complaint = self._process.communicate(timeout=120)
        assert self.script == [], f"calls that were not made: {self.script}; {complaint}"
        if self._process.returncode == -signal.SIGKILL:
            return None
        assert self._process.returncode == 0, complaint
        return json.loads(said)


@pytest.fixture
def theatre(redis_url: str) -> Iterator[Theatre]:
    found = Theatre(redis_url)
    with found.provider:
        yield found


def chains_of(redis: str) -> dict[str, str]:
    """The status of each run that is stored, by its id."""
    storage = RedisStorage(redis)
    found: dict[str, str] = {
        one.chain_id: one.status for one in CachedCheckpointStorage(storage).get_chains()
    }
    storage.close()
    return found


def killed_and_resumed(theatre: Theatre, milvus: Mapping[str, Any]) -> str:
    """A run that met faults, died in a call, and was gone on with: its id."""
    assert theatre.live("run", milvus, BUSY, TEXT, BUSY, WISH, KILL) is None
    ((chain_id, status),) = chains_of(theatre.redis).items()
    assert status == "interrupted"
    billed = theatre.provider.billed
    done = theatre.live("run", milvus, BUSY, BETTER, CONTENT, chain_id=chain_id)
    assert theatre.provider.billed == billed + 2, "what the first process was answered is paid once"
    assert (done["chain_id"], done["text"], done["passed"]) == (chain_id, BETTER.text, True)
    check_looking_back(done)
    return chain_id


def check_looking_back(done: dict[str, Any]) -> None:
    history = done["history"]
    assert [(one["action"], one["error_type"], one["step"], one["success"]) for one in history] == [
        ("retry_current_step", "overloaded", "generation", True),
        ("retry_current_step", "overloaded", "criticism", True),
        ("retry_current_step", "overloaded", "generation", True),
    ]
    first, _, last = (one["evidence"] for one in history)
    assert "no history yet" in first
    assert "worked 1 of 1 for overloaded at generation" in last, "counted by the process that was killed"
    assert "2 of 2 in similar cases" in last, "found by the process that came after it"
    said = done["said"]
    assert "Total recovery attempts: 3" in said
    assert "('retry_current_step', 3)" in said
    assert "('overloaded', 3)" in said
    assert "Cleaned up 0 old checkpoints" in said
    assert f"Chain executed {done['stats']['total_checkpoints']} steps:" in said
    assert done["stats"]["chains"] == {"done": 1}
    assert done["stats"]["durability"] == "power"


def check_without_milvus(theatre: Theatre, milvus: Mapping[str, Any]) -> None:
    """Recovery goes on by exact counts, and says so."""
    done = theatre.live("run", milvus, BUSY, TEXT, CONTENT)
    assert done["passed"]
    (event,) = done["history"]
    assert event["success"]
    assert "worked 2 of 2 for overloaded at generation" in event["evidence"]
    assert "similar cases are not available" in event["evidence"]
    assert "in similar cases" not in event["evidence"]


def check_forgetting(theatre: Theatre, milvus: Mapping[str, Any], chain_id: str) -> None:
    done = theatre.live("delete", milvus, chain_id=chain_id)
    assert done["removed"] > 0
    assert (done["before"], done["after"]) == (3, 0)
    assert chain_id not in chains_of(theatre.redis)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_document_on_redis_with_a_milvus_lite_folder(theatre: Theatre, tmp_path: Path) -> None:
    milvus = {"uri": str(tmp_path / "cases.db"), "collection_name": "seed"}
    chain_id = killed_and_resumed(theatre, milvus)
    check_without_milvus(theatre, {**milvus, "uri": f"http://127.0.0.1:{closed_port()}"})
    check_forgetting(theatre, milvus, chain_id)


def test_the_document_on_redis_with_a_milvus_server(theatre: Theatre, milvus_server: MilvusServer) -> None:
    known = {"uri": milvus_server.url, "collection_name": f"c{uuid4().hex}"}
    milvus = {**known, "timeout_s": 20.0}
    chain_id = killed_and_resumed(theatre, milvus)
    milvus_server.kill()
    try:
        check_without_milvus(theatre, known)
    finally:
        milvus_server.start()
    check_forgetting(theatre, milvus, chain_id)


if __name__ == "__main__":
    print(json.dumps(work(**json.loads(sys.argv[1]))))
