"""The double's sockets: reads a request, asks what to send, writes it in one go (floor 8)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl

from sifaka.testing.provider.wire import Sending

__all__ = ["Raw", "Server"]


class Raw(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Server(ThreadingHTTPServer):
    """A thread a connection; all end with the server.

    Args:
        answer: what to send for a request.
        wait: blocks a connection that hangs until the double is closed.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[Raw], Sending], wait: Callable[[], object]) -> None:
        self.answer = answer
        self.wait = wait
        self.accepted = 0
        self.open: set[socket.socket] = set()
        self.change = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Note a connection that was opened."""
        accepted, address = super().get_request()
        with self.change:
            self.accepted += 1
            self.open.add(accepted)
        return accepted, address

    def close_request(self, request: Any) -> None:
        """Note a connection that was closed."""
        super().close_request(request)
        with self.change:
            self.open.discard(request)
            self.change.notify_all()

    def server_close(self) -> None:
        """Break all connections."""
        super().server_close()
        with self.change:
            for accepted in self.open:
                _break(accepted)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the game: say nothing."""


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, and writes each reply."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self._do()

    def do_GET(self) -> None:
        self._do()

    def do_DELETE(self) -> None:
        self._do()

    def _do(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:  # its sender died over it: no provider would act on half a request
            self.close_connection = True
            return
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        server = cast("Server", self.server)
        sending = server.answer(Raw(self.command, path, dict(parse_qsl(query)), headers, body))
        if sending.data:
            self.wfile.write(sending.data)
        if sending.then == "wait":
            server.wait()
        elif sending.then == "break":
            _break(self.connection)
        if sending.then != "keep":
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class calls it so)
        """Say nothing."""


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was quicker
        connection.shutdown(socket.SHUT_RDWR)
