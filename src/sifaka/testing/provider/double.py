"""A provider on this machine: a real HTTP server with a script and a billing ledger (floor 8)."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any, Self

import msgspec

from sifaka.testing.provider.desk import Desk
from sifaka.testing.provider.formats import UNKNOWN, format_of
from sifaka.testing.provider.ledger import Ledger
from sifaka.testing.provider.script import Answer, Behaviour, Bill, Received, Refuse, Script, as_function
from sifaka.testing.provider.server import Raw, Server
from sifaka.testing.provider.wire import Sending

__all__ = ["ProviderDouble"]

_ANSWER = Answer()
_CALLS = ("/messages", "/chat/completions", "/responses")


class ProviderDouble:
    """A provider's end of the wire, to be used as a context manager.

    Args:
        script: how it behaves when a model is called; see :data:`Script`.
        ledger: a file that gets one JSON line for each billed call, *before* its reply is sent. It
            outlives this process, and can be shared. Without one the ledger is kept in memory.
        others: how it behaves when it is asked for anything else: a look-up, a file, a batch. An
            :class:`Answer` does what was asked, whatever its text.

    Attributes:
        requests: the model calls, oldest first, those inside batches among them.
        others: everything else that was asked.
    """

    def __init__(
        self, script: Script = _ANSWER, *, ledger: str | os.PathLike[str] = "", others: Script = _ANSWER
    ) -> None:
        self.requests: list[Received] = []
        self.others: list[Received] = []
        self._script = as_function(script)
        self._others_script = as_function(others)
        self._ledger = Ledger(ledger)
        self._desk = Desk(self._ledger, self._inside)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = Server(self._answer, self._closing.wait)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def ledger(self) -> list[Bill]:
        """What was billed, oldest first; read from the ledger's file where there is one."""
        return self._ledger.bills()

    @property
    def billed(self) -> int:
        """How many calls were billed."""
        return len(self.ledger)

    @property
    def connections(self) -> int:
        """How many connections were opened so far."""
        return self._server.accepted

    def wait_until_unconnected(self, timeout_s: float) -> bool:
        """Wait until every connection is closed again; False when ``timeout_s`` seconds are over."""
        with self._server.change:
            return self._server.change.wait_for(lambda: not self._server.open, timeout_s)

    def environ(self) -> dict[str, str]:
        """The environment variables that lead the providers' libraries here."""
        return {
            "ANTHROPIC_API_KEY": "test",
            "ANTHROPIC_BASE_URL": self.url,
            "NO_PROXY": "127.0.0.1",
            "OPENAI_API_KEY": "test",
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "no_proxy": "127.0.0.1",
        }

    def close(self) -> None:
        """Stop serving, end what hangs, and close all connections."""
        self._closing.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _answer(self, raw: Raw) -> Sending:
        is_call = raw.method == "POST" and raw.path.endswith(_CALLS)
        if is_call or (raw.method == "POST" and format_of(raw.path) is UNKNOWN and not _is_other(raw.path)):
            received = self._note(self.requests, raw)
            behaviour = self._script(received)
            if not is_call and not isinstance(behaviour, Refuse):
                behaviour = Refuse(404, message=f"the double has no {raw.path}")
            return self._desk.call(received, behaviour)
        received = self._note(self.others, raw)
        return self._desk.other(received, self._others_script(received), raw.body, self.url)

    def _note(self, into: list[Received], raw: Raw) -> Received:
        try:
            body = msgspec.json.decode(raw.body, type=dict[str, Any])
        except msgspec.MsgspecError:
            body = {}
        with self._lock:
            received = Received(len(into) + 1, raw.path, raw.headers, body, raw.method, raw.query)
            into.append(received)
        return received

    def _inside(
        self, outer: Received, path: str, body: dict[str, Any], custom_id: str
    ) -> tuple[Received, Behaviour]:
        """A call inside a batch: a request like any other, with the batch's headers."""
        with self._lock:
            received = Received(
                len(self.requests) + 1, path, outer.headers, body, "POST", custom_id=custom_id
            )
            self.requests.append(received)
        return received, self._script(received)


def _is_other(path: str) -> bool:
    return path.endswith(("/files", "/batches", "/cancel"))
