"""A provider on this machine: a real HTTP server with a script and a billing ledger (floor 8).

::

    with ProviderDouble([Refuse(429), Answer("Lemurs leap.")]) as double:
        environment.update(double.environ())
        ...
        assert len(double.requests) == 2
        assert double.billed == 1

It speaks Anthropic Messages, OpenAI Chat Completions and OpenAI Responses, not streamed. It cannot
tell that it is a test that calls it: requests come over a socket, through the providers' libraries.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from sifaka.testing.formats import UNKNOWN, Format, Said, format_of
from sifaka.testing.script import (
    Answer,
    Behaviour,
    Bill,
    Cut,
    Hang,
    Received,
    Refuse,
    Script,
    as_function,
)

__all__ = [
    "Answer",
    "Behaviour",
    "Bill",
    "Cut",
    "Hang",
    "ProviderDouble",
    "Received",
    "Refuse",
    "Script",
]


_ANSWER = Answer()


class ProviderDouble:
    """A provider's end of the wire, to be used as a context manager.

    Args:
        script: how it behaves; see :data:`Script`.
        ledger: a file that gets one JSON line for each billed call, *before* its reply is sent. It
            outlives this process, and can be shared. Without one the ledger is kept in memory.
    """

    def __init__(self, script: Script = _ANSWER, *, ledger: str | os.PathLike[str] = "") -> None:
        self.requests: list[Received] = []
        self._script = as_function(script)
        self._ledger_path = Path(ledger) if ledger else None
        self._bills: list[Bill] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

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
        if self._ledger_path is None:
            with self._lock:
                return list(self._bills)
        if not self._ledger_path.exists():
            return []
        return msgspec.json.Decoder(Bill).decode_lines(self._ledger_path.read_bytes())

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

    def receive(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Received:
        """Note a request; for the server's own threads."""
        with self._lock:
            received = Received(len(self.requests) + 1, path, headers, body)
            self.requests.append(received)
        return received

    def behaviour(self, received: Received) -> Behaviour:
        """What the script says to a request; for the server's own threads."""
        return self._script(received)

    def bill(self, bill: Bill) -> None:
        """Charge for a call; for the server's own threads."""
        with self._lock:
            self._bills.append(bill)
        if self._ledger_path is not None:
            # One write of one line, appended: processes that share the file cannot mix their lines.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            file = os.open(self._ledger_path, flags, 0o600)
            try:
                os.write(file, msgspec.json.encode(bill) + b"\n")
            finally:
                os.close(file)

    def wait_for_closing(self) -> None:
        """Block until :meth:`close`; for the server's own threads."""
        self._closing.wait()


class _Server(ThreadingHTTPServer):
    """The sockets. A thread a connection; all end with the server."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, double: ProviderDouble) -> None:
        self.double = double
        self.accepted = 0
        self.open: set[socket.socket] = set()
        self.change = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted, address = super().get_request()
        with self.change:
            self.accepted += 1
            self.open.add(accepted)
        return accepted, address

    def close_request(self, request: Any) -> None:
        super().close_request(request)
        with self.change:
            self.open.discard(request)
            self.change.notify_all()

    def server_close(self) -> None:
        super().server_close()
        with self.change:
            for accepted in self.open:
                _break(accepted)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the game: say nothing."""


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, lets the script decide, writes each reply in one go."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def double(self) -> ProviderDouble:
        return cast("_Server", self.server).double

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        raw = self.rfile.read(length)
        try:
            body = msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.MsgspecError:
            body = {}
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = self.double.receive(self.path.partition("?")[0], headers, body)
        self._behave(received, self.double.behaviour(received))

    def _behave(self, received: Received, behaviour: Behaviour) -> None:
        form = format_of(received.path)
        match behaviour:
            case Refuse():
                self._send(self._refusal(form, behaviour))
            case Hang():
                if behaviour.billed:
                    self._charged(form, received, Answer(text=""))
                self.double.wait_for_closing()
                self.close_connection = True
            case Answer() | Cut() if form is UNKNOWN:
                unknown = Refuse(404, message=f"the double has no {received.path}")
                self._send(self._refusal(form, unknown))
            case Answer() | Cut() if received.body.get("stream"):
                self._send(self._refusal(form, Refuse(400, message="the double does not stream")))
            case Answer():
                self._send(self._charged(form, received, behaviour))
            case Cut():
                reply = self._charged(form, received, behaviour.answer)
                self._send(reply[: behaviour.after_bytes])
                _break(self.connection)
                self.close_connection = True

    def _charged(self, form: Format, received: Received, answer: Answer) -> bytes:
        """The reply; it is billed before anybody can read it."""
        said = Said(
            number=received.number,
            model=answer.model or received.model,
            text=answer.text,
            finish_reason=answer.finish_reason,
            input_tokens=_tokens(answer.input_tokens, msgspec.json.encode(received.body)),
            output_tokens=_tokens(answer.output_tokens, answer.text.encode()),
        )
        self.double.bill(
            Bill(
                number=said.number,
                id=form.id(said.number),
                path=received.path,
                model=said.model,
                input_tokens=said.input_tokens,
                output_tokens=said.output_tokens,
                time=time.time(),
            )
        )
        headers = {form.request_id_header: f"req_{said.number:06d}"}
        return self._reply(200, headers, msgspec.json.encode(form.answer(said)))

    def _refusal(self, form: Format, refuse: Refuse) -> bytes:
        body: Any = refuse.body
        if body is None:
            body = form.refusal(refuse.status, refuse.message)
        if isinstance(body, str):
            body = body.encode()
        if not isinstance(body, bytes):
            body = msgspec.json.encode(body)
        return self._reply(refuse.status, refuse.headers, body)

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> bytes:
        reason = self.responses.get(status, ("",))[0]  # 529 is no registered status
        fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{k}: {v}" for k, v in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _send(self, reply: bytes) -> None:
        # Head and body in one write: in two, the second waits for the client's delayed answer.
        self.wfile.write(reply)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class calls it so)
        """Say nothing."""


def _tokens(given: int | None, data: bytes) -> int:
    return -(-len(data) // 4) if given is None else given


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was quicker
        connection.shutdown(socket.SHUT_RDWR)
