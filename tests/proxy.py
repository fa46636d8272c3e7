"""A proxy before a server, which can cut connections, say 503, or be away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"


class Proxy:
    """It listens on a port of its own, and passes all bytes between its clients and the server at `port`."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._answer: bytes | None = None
        self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections."""
        while self._open:
            _end(self._open.pop())

    @contextmanager
    def away(self) -> Iterator[None]:
        """End all connections, and end at once those that are made within the block."""
        with self._answering(b""):
            yield

    @contextmanager
    def busy(self) -> Iterator[None]:
        """End all connections, and answer 503 to those that are made within the block."""
        with self._answering(_BUSY):
            yield

    def close(self) -> None:
        _end(self._listening)
        self.cut()

    @contextmanager
    def _answering(self, answer: bytes) -> Iterator[None]:
        self._answer, self.refused = answer, 0
        self.cut()
        yield
        self._answer = None

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = self._listening.accept()
                if self._answer is None:
                    server = socket.create_connection(("127.0.0.1", self._server))
                    self._open += [client, server]
                    for source, sink in ((client, server), (server, client)):
                        threading.Thread(target=_pass, args=(source, sink), daemon=True).start()
                else:
                    with suppress(OSError):
                        client.recv(65536)
                        client.sendall(self._answer)
                    _end(client)
                    self.refused += 1


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while received := source.recv(65536):
            sink.sendall(received)
    _end(source)
    _end(sink)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
