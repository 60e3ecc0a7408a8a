"""A deadline for a whole request, by the clock on the wall.

A socket's time-out begins anew with every byte: a server that drips its answer, or sips
the body, could hold a worker for hours. Here the connection is broken off instead.

The connections are also those on which least is unknown: hardly a byte of the body waits
in the kernel, and no forerunner of an answer is taken for the answer.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from types import TracebackType
from typing import Any, Final, Self

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

__all__ = ["Deadline", "DeadlineAdapter", "Deadlines"]

_here = threading.local()


class Deadlines:
    """The deadlines of one line's requests, all equally far away when they begin.

    One thread watches them, as long as there are any: a thread for each request would
    cost as much as the request.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._running: deque[Deadline] = deque()  # the oldest first
        self._watcher: threading.Thread | None = None

    def begin(self) -> Deadline:
        """Let one request's time run."""
        with self._lock:
            deadline = Deadline(time.monotonic() + self.seconds)
            self._running.append(deadline)
            # After a fork there is one, and it does not live.
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(
                    target=self._watch, name="capi-deadlines", daemon=True
                )
                self._watcher.start()
        return deadline

    def _watch(self) -> None:
        while (seconds := self._break_off_overdue()) is not None:
            time.sleep(seconds)

    def _break_off_overdue(self) -> float | None:
        """Return in how many seconds the next may be due; None where none is left."""
        with self._lock:
            while self._running:
                oldest = self._running[0]
                left = oldest.moment - time.monotonic()
                if left > 0 and not oldest.ended:
                    return left
                self._running.popleft()
                oldest.break_off()
            self._watcher = None
            return None


class Deadline:
    """The end of one request's time, at a moment of the monotonic clock.

    The request must be this thread's and go through a `DeadlineAdapter`, which says what
    socket it is on.
    """

    def __init__(self, moment: float) -> None:
        self.moment = moment
        self.over = False
        self.ended = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        _here.deadline = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del _here.deadline
        # The socket goes back to the pool: it is the next request's now.
        with self._lock:
            self.ended = True
            self._socket = None

    def watch(self, found: socket.socket) -> None:
        """Take note of the request's socket."""
        with self._lock:
            self._socket = found
            if self.over:
                _shut(found)

    def break_off(self) -> None:
        """Break the request off, unless it has ended."""
        with self._lock:
            self.over = not self.ended
            if self._socket is not None:
                _shut(self._socket)


def _shut(found: socket.socket) -> None:
    with suppress(OSError):  # the server was faster
        # Past TLS's own goodbye, which would wait for the server's.
        socket.socket.shutdown(found, socket.SHUT_RDWR)


def _watch(connection: HTTPConnection) -> None:
    deadline: Deadline | None = getattr(_here, "deadline", None)
    if deadline is not None and connection.sock is not None:
        deadline.watch(connection.sock)


# The most bytes of a body that wait in the kernel before they are on their way. Linux else
# swallows 2.5 MB: a batch that is reset after its first byte would be in doubt, although
# hardly any of it had left.
_UNSENT_BYTES: Final = 16_384
_SOCKET_OPTIONS: Final = [
    *HTTPConnection.default_socket_options,
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES),
]
# A sane server sends one or two.
_MOST_FORERUNNERS: Final = 100


class _Answer(HTTPResponse):
    """An answer without its forerunners: 103 and the like, not 100 alone.

    http.client takes a 103 for the answer. What comes after it would then be read as the
    answer to the connection's next request, and accept another batch.
    """

    def begin(self) -> None:
        super().begin()
        for _ in range(_MOST_FORERUNNERS):
            if self.status >= 200:
                break
            self.headers = None  # type: ignore[assignment]  # begin anew
            super().begin()
        else:
            # What the kernel holds of a flood can be read long after the deadline.
            raise HTTPException("too many answers before the answer")
        # urllib3 would log what it cannot read of the head: a piece of the answer.
        self.headers.defects.clear()
        self.headers.set_payload("")


class _Http(HTTPConnection):
    response_class = _Answer

    def connect(self) -> None:
        super().connect()
        _watch(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _watch(self)
        super().request(*args, **kwargs)


class _Https(_Http, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class DeadlineAdapter(HTTPAdapter):
    """requests' adapter over connections that a `Deadline` can break off."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools."""
        super().init_poolmanager(*args, **kwargs, socket_options=_SOCKET_OPTIONS)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _HttpPool,
            "https": _HttpsPool,
        }
