"""The sockets: HTTP/1.1 with keep-alive, one thread a connection.

No body, no token and no query string is ever logged; a log line is the method, the
path, the status and how many events came.
"""

from __future__ import annotations

import logging
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from traceback import extract_tb
from types import TracebackType
from typing import Any, Final, Self

from graph_simulator import admin, answers, sabotage
from graph_simulator.access import Doorkeeper, Token
from graph_simulator.faults import Faults
from graph_simulator.graph import Graph, edge_of, read_request
from graph_simulator.journal import Journal
from graph_simulator.records import Counts, Received
from graph_simulator.store import Store
from graph_simulator.switches import Profile, Switches
from graph_simulator.wire import Wire

_log = logging.getLogger("graph_simulator")
# [choice] Meta names no limit; this one keeps a broken client from filling the memory.
_MAX_BODY_BYTES: Final = 64_000_000
# Versions, ids and the names of edges; anything else may hold what must not be logged.
_loggable = re.compile(
    r"/v\d{1,3}\.\d{1,2}/(?:\d{1,20}(?:/events)?|dataset_quality|debug_token)/?"
).fullmatch


class Simulator:
    """A Graph API on a local port, as a context manager.

    Without `tokens` every well-shaped token is good; without `datasets` every
    well-shaped id exists. `now` returns Unix seconds and decides windows only.
    `profile` goes before the one in `switches`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        profile: Profile | None = None,
        switches: Switches | None = None,
        tokens: Iterable[Token | str] = (),
        datasets: Iterable[str] = (),
        record: Path | None = None,
        keep_events: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        switches = switches or Switches()
        if profile is not None:
            switches = replace(switches, profile=profile)
        self.faults = Faults()
        self._server = _Server((host, port), _Handler, bind_and_activate=False)
        self._server.bind()
        journal = Journal(record) if record else None
        self._store = Store(switches, journal=journal, keep_events=keep_events)
        self.graph = Graph(
            switches=switches,
            doorkeeper=Doorkeeper(tokens, datasets),
            store=self._store,
            now=now,
        )
        self._server.graph = self.graph
        self._server.faults = self.faults
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    def start(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop answering, and break every connection that is still open."""
        if self._server.stopping.is_set():
            return
        self._server.stopping.set()
        if self._thread.is_alive():  # else shutdown() would wait for ever
            self._server.shutdown()
        self._server.server_close()
        self._server.break_connections()
        # Last: what comes now could not be answered any more.
        self._store.close()

    def counts(self, dataset: str) -> Counts:
        """Return a dataset's numbers: arrived, received, de-duplicated, processed."""
        return self._store.counts(dataset)

    def received(
        self, dataset: str | None = None, event_name: str | None = None
    ) -> list[Received]:
        """Return the events that Meta took, in the order of their first arrival."""
        return [e for e in self.arrived(dataset, event_name) if e.processed]

    def arrived(
        self, dataset: str | None = None, event_name: str | None = None
    ) -> list[Received]:
        """Return the events that came at all: refused and lost ones too."""
        return list(self._store.arrived(dataset, event_name))

    def events(self, dataset: str) -> list[dict[str, Any]]:
        """Return the events that Meta took, whole; needs `keep_events`."""
        return self._store.events(dataset)

    def stats(self) -> dict[str, object]:
        """Return every number there is."""
        return admin.stats(self.graph, self.faults)

    def reset(self) -> None:
        """Forget what came in. Armed faults stay armed."""
        self.graph.reset()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    graph: Graph
    faults: Faults

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    def bind(self) -> None:
        """Take the port, or leave nothing open."""
        try:
            self.server_bind()
            self.server_activate()
        except OSError:
            self.server_close()
            raise

    def server_bind(self) -> None:
        # HTTPServer would look its own name up in the DNS.
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        """Wake every thread that waits for a client."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A fault of ours. Its message might quote the request, so it is left out.
        kind, _, trace = sys.exc_info()
        frame = extract_tb(trace)[-1]
        _log.error(
            "A request could not be answered: %s in %s, line %s.",
            kind.__name__ if kind else "fault",
            Path(frame.filename).name,
            frame.lineno,
        )


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 1 << 16

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing: the standard line quotes the request."""

    def _serve(self) -> None:
        self._wire = Wire(self.connection, self.server.stopping)
        if self.path.startswith(admin.PREFIX):
            self._serve_operator()
        else:
            self._serve_graph()
        if not self._wire.open:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  http.server's names

    def _serve_operator(self) -> None:
        body = self._read_body()
        if body is not None:
            client = str(self.client_address[0])
            server = self.server
            self._wire.send(
                admin.handle(
                    server.graph, server.faults, self.command, self.path, body, client
                )
            )

    def _serve_graph(self) -> None:
        path = self.path.partition("?")[0]
        visit = self.server.faults.visit(edge_of(path))
        early = visit.early()
        if early is not None:
            sabotage.strike_early(early, self._wire, self.rfile)
            self._tell(path, early.kind, 0)
            return
        body = self._read_body()
        if body is None:
            return
        graph = self.server.graph
        request = read_request(
            self.command,
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            body,
            accept_gzip=graph.switches.accept_gzip,
            sieve=graph.sieve,
        )
        event_ids = request.event_ids if visit.looks_inside() else ()
        # A client that goes meanwhile takes nothing back: the body had left it.
        self._wire.wait(visit.delay(event_ids))
        if self.server.stopping.is_set():
            return
        fault = visit.late(event_ids)
        status = sabotage.respond(fault, self._wire, graph, request, visit)
        self._tell(path, fault.kind if fault else str(status), request.size)

    def _read_body(self) -> bytes | None:
        """Return the whole body, or answer and return None."""
        length = self.headers.get("content-length", "0")
        if "transfer-encoding" in self.headers or not length.isdecimal():
            self._turn_away(411)
            return None
        if int(length) > _MAX_BODY_BYTES:
            self._turn_away(413)
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            # The client broke off: there was no request.
            self._wire.hang_up()
            return None
        return body

    def _turn_away(self, status: int) -> None:
        self._wire.send(answers.page(status))
        self._wire.hang_up()

    def _tell(self, path: str, outcome: str, events: int) -> None:
        shown = path if _loggable(path) else "(unknown path)"
        _log.info("%s %s %s %d events", self.command, shown, outcome, events)
