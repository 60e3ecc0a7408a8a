"""Who is told of alerts: a real mail server and a real web server on this machine."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_string, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self


@dataclass
class Web:
    """A web server that takes what is posted, or does not."""

    status: int = 200
    location: str | None = None
    silent: bool = False
    """It reads, and never answers."""
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    opened: int = 0
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def bodies(self) -> list[Any]:
        """What came."""
        return [body for _, _, body in self.requests]

    @contextmanager
    def open(self) -> Iterator[Self]:
        """Listen."""
        web = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                web.opened += 1
                super().setup()

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                web.requests.append((self.path, dict(self.headers), body))
                if web.silent:
                    web.released.wait(60)
                    return
                self.send_response(web.status)
                if web.location:
                    self.send_header("Location", web.location)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()


@dataclass
class Letter:
    """One mail."""

    sender: str
    to: list[str]
    subject: str
    html: str


@dataclass
class MailServer:
    """A mail server that takes letters, or refuses them."""

    refuses: bool = False
    letters: list[Letter] = field(default_factory=list)
    opened: int = 0
    port: int = 0
    KNOWN: ClassVar = {"EHLO": "250 here", "HELO": "250 here", "RSET": "250 ok"}

    @contextmanager
    def open(self) -> Iterator[Self]:
        """Listen."""
        mail = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                mail.opened += 1
                self.say("220 here")
                sender, to = "", []
                while line := self.rfile.readline().decode().strip():
                    verb = line.partition(" ")[0].upper()
                    address = line.partition("<")[2].partition(">")[0]
                    if verb == "MAIL":
                        sender, to = address, []
                        self.say("250 ok")
                    elif verb == "RCPT" and mail.refuses:
                        self.say(f"550 nobody is called {address} here")
                    elif verb == "RCPT":
                        to.append(address)
                        self.say("250 ok")
                    elif verb == "DATA":
                        self.say("354 go on")
                        mail.letters.append(_letter(sender, to, self.text()))
                        self.say("250 ok")
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say(mail.KNOWN.get(verb, "502 unknown"))

            def say(self, line: str) -> None:
                self.wfile.write(f"{line}\r\n".encode())

            def text(self) -> str:
                lines = []
                while (line := self.rfile.readline().decode()) != ".\r\n":
                    lines.append(line.removeprefix("."))
                return "".join(lines)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def _letter(sender: str, to: list[str], text: str) -> Letter:
    parsed = message_from_string(text, policy=policy.default)
    body: Any = parsed.get_body(("html",))
    return Letter(sender, to, str(parsed["Subject"]), body.get_content())
