"""A server on the bare socket, for what happens below HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

Behaviour = Callable[[socket.socket, bytes], None]


def read_request(connection: socket.socket) -> bytes:
    """Return one whole request: head and, by its Content-Length, body."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        if not (piece := connection.recv(65_536)):
            return heard
        heard += piece
    head, _, body = heard.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length and (piece := connection.recv(65_536)):
        heard += piece
        body += piece
    return heard


def answer(body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Return an answer's bytes."""
    head = [
        b"HTTP/1.1 " + status,
        b"Content-Length: " + str(len(body)).encode(),
        *headers,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


class Listener:
    """Takes connections; hears each request, then behaves as told.

    `heard` holds every request, byte for byte; `connections` counts the clients.
    """

    def __init__(
        self,
        behave: Behaviour = lambda line, _: line.sendall(answer()),
        *,
        wrap: Callable[[socket.socket], socket.socket] = lambda line: line,
    ) -> None:
        self.heard: list[bytes] = []
        self.connections = 0
        self._behave = behave
        self._wrap = wrap
        self._open: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(
                    target=self._serve, args=(connection,), daemon=True
                ).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the client was faster
            line = self._wrap(connection)
            while request := read_request(line):
                self.heard.append(request)
                self._behave(line, request)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A thread in accept() is not woken by close() alone.
        for each in (self._socket, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._thread.join(5)
