"""What may stand between us and Meta and means no good: on the bare socket.

`Listener` hears a request and misbehaves; `ask` lets it hand the request on to the
simulator, whose record stays the truth. `Proxy` spoils the stream of bytes instead, by
toxiproxy's toxics. An `Authority` makes certificates to be believed, and others.
"""

from __future__ import annotations

import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.airflow.listener import read_request

from graph_simulator import Simulator

RESET = struct.pack("ii", 1, 0)


def ask(simulator: Simulator, request: bytes) -> bytes:
    """Hand a request on to the simulator; return its answer, byte for byte."""
    with socket.create_connection(("127.0.0.1", simulator.port)) as line:
        line.sendall(request)
        return read_request(line)  # an answer has the same framing


def read_head(line: socket.socket) -> bytes:
    """Return a request's head, and leave its body in the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := line.recv(1)):
        head += byte
    return head


def reset(line: socket.socket) -> None:
    """Break a connection: the other side sees a reset, not an end."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    line.close()


# --- the stream ---------------------------------------------------------------------

Toxic = Callable[[Iterable[bytes]], Iterator[bytes]]


class ResetError(Exception):
    """A toxic resets the connection."""


def clean(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Hand everything on."""
    yield from pieces


def latency(seconds: float, jitter: float = 0.0) -> Toxic:
    """Hold each piece back for a while, more or less."""
    dice = random.Random(26)

    def toxic(pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            time.sleep(seconds + dice.uniform(-jitter, jitter))
            yield piece

    return toxic


def bandwidth(bytes_a_second: int) -> Toxic:
    """Let so many bytes through in a second."""
    return slicer(max(1, bytes_a_second // 100), 0.01)


def slicer(size: int, seconds: float = 0.0) -> Toxic:
    """Cut the stream into pieces of so many bytes."""

    def toxic(pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            for start in range(0, len(piece), size):
                yield piece[start : start + size]
                time.sleep(seconds)

    return toxic


def limit_data(size: int) -> Toxic:
    """End the connection after so many bytes."""

    def toxic(pieces: Iterable[bytes]) -> Iterator[bytes]:
        left = size
        for piece in pieces:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    return toxic


def reset_peer(size: int) -> Toxic:
    """Reset the connection after so many bytes."""

    def toxic(pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield from limit_data(size)(pieces)
        raise ResetError

    return toxic


def timeout(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Let nothing through."""
    for _ in pieces:
        yield b""


def slow_close(seconds: float) -> Toxic:
    """Keep the connection for a while after its end."""

    def toxic(pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield from pieces
        time.sleep(seconds)

    return toxic


class Proxy:
    """Hands the bytes on in both directions, each through a toxic."""

    def __init__(self, port: int, *, up: Toxic = clean, down: Toxic = clean) -> None:
        self._target = port
        self._up = up
        self._down = down
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._socket]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._socket.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                for way in ((client, server, self._up), (server, client, self._down)):
                    threading.Thread(target=_pump, args=way, daemon=True).start()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self._open:
            _end(each)
            each.close()
        self._thread.join(5)


def _pump(source: socket.socket, target: socket.socket, toxic: Toxic) -> None:
    with suppress(OSError):  # one of the two was faster
        try:
            for piece in toxic(iter(lambda: source.recv(65_536), b"")):
                target.sendall(piece)
        except ResetError:
            for each in (source, target):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                each.close()
    for each in (source, target):
        _end(each)


def _end(line: socket.socket) -> None:
    with suppress(OSError):  # it has ended already
        line.shutdown(socket.SHUT_RDWR)


# --- certificates -------------------------------------------------------------------


class Authority:
    """Signs certificates for servers; `pem` is what to trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = _name("Authority of the tests")
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(self._name, self._key, self._name, self._key, ())
        self._made = 0
        self.pem = folder / "authority.pem"
        self.pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(
        self, host: str = "127.0.0.1", *, days: tuple[int, int] = (-1, 1),
        own: bool = False,
    ) -> ssl.SSLContext:  # fmt: skip
        """Return a server's context with a certificate for a host; `own`: self-signed."""
        name, key = _name(host), ec.generate_private_key(ec.SECP256R1())
        signer = (name, key) if own else (self._name, self._key)
        certificate = _certificate(name, key, *signer, (host,), days)
        self._made += 1
        path = self._folder / f"server-{self._made}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey, hosts: tuple[str, ...],
    days: tuple[int, int] = (-1, 1),
) -> x509.Certificate:  # fmt: skip
    now, public = datetime.now(UTC), key.public_key()
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(not hosts, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .add_extension(identifier(issuer_key.public_key()), False)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
