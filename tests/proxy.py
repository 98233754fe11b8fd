"""A TCP proxy that cuts a connection after a given byte: what a network may do to a client of a store."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from types import TracebackType
from typing import Self

__all__ = ["Proxy"]

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes between clients of :attr:`port` and a server on loopback, byte for byte.

    ``cut_to_server`` and ``cut_to_client`` arm a cut: after so many further bytes in that direction, over
    all connections, both ends of the connection are reset. ``freeze`` passes nothing on and keeps all open.
    ``sent`` and ``received`` count what was passed on to and from the server since they were last set.
    """

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self._target = (target_host, target_port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.sent = 0
        self.received = 0
        self.cuts = 0
        self._left: dict[str, int | None] = {"server": None, "client": None}
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut_to_server(self, after: int | None) -> None:
        """Cut after ``after`` more bytes from a client have reached the server; None: not at all."""
        self._left["server"] = after

    def cut_to_client(self, after: int | None) -> None:
        """Cut after ``after`` more bytes from the server have reached a client; None: not at all."""
        self._left["client"] = after

    def cut_now(self) -> None:
        """Reset all connections."""
        with self._lock:
            sockets = list(self._sockets)
        for one in sockets:
            _reset(one)

    def freeze(self) -> None:
        """Pass nothing on until :meth:`thaw`; nobody is told."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Go on with what was held."""
        self._flowing.set()

    def close(self) -> None:
        """Stop listening, and reset all connections."""
        self._closed = True
        self.thaw()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_now()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One thread a connection: so the order of bytes and cuts is the order in which they came."""
        try:
            server = socket.create_connection(self._target)
        except OSError:
            _reset(client)
            client.close()
            return
        pair = (client, server)
        with self._lock:
            self._sockets.update(pair)
        try:
            for one in pair:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pump(client, server)
        except OSError:
            pass
        finally:
            with self._lock:
                self._sockets.difference_update(pair)
            for one in pair:
                _reset(one)
                one.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, (server, "server"))
            ready.register(server, selectors.EVENT_READ, (client, "client"))
            while not self._closed:
                for key, _ in ready.select():
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    data = source.recv(65536)
                    self._flowing.wait()
                    if not data or not self._pass(data, *key.data):
                        return

    def _pass(self, data: bytes, sink: socket.socket, towards: str) -> bool:
        """Pass data on as far as it may go; False where the connection is cut."""
        left = self._left[towards]
        part = data if left is None or left > len(data) else data[:left]
        # Counted first: who has the answer may look at the counters at once.
        if towards == "server":
            self.sent += len(part)
        else:
            self.received += len(part)
        sink.sendall(part)
        if left is None:
            return True
        self._left[towards] = left - len(part)
        if left > len(data):
            return True
        self._left[towards] = None
        self.cuts += 1
        return False


def _reset(one: socket.socket) -> None:
    """End a connection as a dead machine's successor would: by RST, without a good-bye."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
