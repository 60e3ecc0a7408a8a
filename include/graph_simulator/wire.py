"""One connection as seen from the server's end: answers, and ways to break it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from email.utils import formatdate
from http.client import responses
from typing import Final

from graph_simulator.answers import Answer

# How soon a silent server notices that the client has gone.
_LOOK_EVERY_SECONDS: Final = 0.02
# SO_LINGER on, zero seconds: close() sends a reset and throws away what is unsent.
_RESET: Final = struct.pack("ii", 1, 0)


class Wire:
    """The write side of one connection. `open` turns False when it is to be closed."""

    def __init__(self, connection: socket.socket, stopping: threading.Event) -> None:
        self._socket = connection
        self._stopping = stopping
        self.open = True

    def send(
        self, answer: Answer, *, length: int | None = None, seconds: float = 0.0
    ) -> None:
        """Send an answer in one piece, or byte by byte, `seconds` apart.

        `length` is what Content-Length claims, if not the truth.
        """
        declared = len(answer.body) if length is None else length
        content = head(answer, f"content-length: {declared}") + answer.body
        if not seconds:
            self._write(content)
            return
        for byte in content:
            if not self.open:
                return
            self._write(bytes([byte]))
            self.wait(seconds)

    def send_raw(self, content: bytes) -> None:
        """Send bytes as they are."""
        self._write(content)

    def wait(self, seconds: float) -> None:
        """Do nothing for a while; end early if the client or the server goes."""
        deadline = time.monotonic() + seconds
        while self.open and (left := deadline - time.monotonic()) > 0:
            if self._stopping.wait(min(left, _LOOK_EVERY_SECONDS)) or self._gone():
                self.open = False

    def hang_up(self) -> None:
        """End the connection after what was sent."""
        self.open = False

    def reset(self) -> None:
        """Break the connection: the client sees a reset, not an end."""
        self.open = False
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()

    def _write(self, content: bytes) -> None:
        try:
            self._socket.sendall(content)
        except OSError:
            self.open = False

    def _gone(self) -> bool:
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


def head(answer: Answer, framing: str) -> bytes:
    """Return the status line and the headers, `framing` among them."""
    reason = responses.get(answer.status, "")
    lines = [
        f"HTTP/1.1 {answer.status} {reason}",
        f"date: {formatdate(usegmt=True)}",
        framing,
        *(f"{name}: {value}" for name, value in answer.headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
