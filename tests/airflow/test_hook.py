"""The line to Meta: what leaves this machine, and what a broken world does to it."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.airflow.listener import Listener, answer

from capi_airflow.hook import MetaCapiHook
from capi_airflow.transport import Destination, Line
from graph_simulator import Fault, FaultKind, Simulator
from meta_capi import spec
from meta_capi.errors import ConfigurationError, NoAnswerError
from meta_capi.verdict import Accepted, Stopped, read

DATASET = "1234567890123456"
TOKEN = "EAABcanaryOfTheHook0123456789"
SHORT = 0.4  # a deadline in seconds that a test can wait for
BUSY = 4.0  # what a busy machine may add to it; the faults last longer
BODY = json.dumps({
    "data": [{
        "event_name": "Purchase", "event_time": int(time.time()) - 60, "event_id": "o",
        "action_source": "physical_store", "user_data": {"em": ["ab" * 32]},
        "custom_data": {"value": 12.5, "currency": "EUR", "order_id": "o-1"},
    }]
}).encode()  # fmt: skip
LARGE = b"x" * 20_000_000  # more than the kernel's buffers between two sockets take


def destination(url: str, **changes: Any) -> Destination:
    """Return a sound local destination, with fields changed."""
    sound = {
        "dataset_id": DATASET,
        "token": TOKEN,
        "environment": "local",
        "base_url": url,
    }
    return Destination(**{**sound, **changes})


def line_to(url: str, *, seconds: float = 10.0) -> Line:
    """Return a line to a server of this test."""
    return Line(destination(url), deadline_seconds=seconds)


def no_answer(line: Line, body: bytes = BODY) -> NoAnswerError:
    """Post, and return the error; it must not say more than it may."""
    with pytest.raises(NoAnswerError) as caught:
        line.post(body)
    told = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in told
    assert caught.value.__cause__ is None
    assert "During handling" not in told, "a library's words stand in the traceback"
    return caught.value


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(datasets=[DATASET], tokens=[TOKEN]) as simulator:
        yield simulator


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MetaCapiHook]:
    """Return a maker of hooks whose Airflow connection is in the environment."""

    def connect(url: str | None = None, **changes: Any) -> MetaCapiHook:
        extra = {
            "dataset_id": DATASET,
            "environment": "local",
            **changes.pop("extra", {}),
        }
        given = {
            "conn_type": "meta_capi", "host": url, "password": TOKEN, "extra": extra,
            **changes,
        }  # fmt: skip
        monkeypatch.setenv("AIRFLOW_CONN_META_OF_TEST", json.dumps(given))
        return MetaCapiHook("meta_of_test")

    return connect


class TestTheToken:
    """The token goes into the Authorization header and nowhere else."""

    @pytest.mark.matrix("X2")
    def test_it_is_in_one_header_and_in_neither_the_url_nor_the_body(self) -> None:
        with Listener() as server:
            line = line_to(server.url)
            line.post(BODY)
            line.get(DATASET, "id,name")
        for request in server.heard:
            head, _, body = request.partition(b"\r\n\r\n")
            first, *headers = head.decode().split("\r\n")
            assert TOKEN not in first
            assert TOKEN.encode() not in body
            assert [h for h in headers if TOKEN in h] == [
                f"Authorization: Bearer {TOKEN}"
            ]

    @pytest.mark.matrix("H21", "X28")
    def test_the_second_server_of_a_redirect_never_hears_from_us(self) -> None:
        with Listener() as second:
            location = b"Location: " + second.url.encode() + b"/elsewhere"
            for status in (
                b"301 Moved",
                b"302 Found",
                b"307 Temporary",
                b"308 Permanent",
            ):
                redirect = answer(b"", location, status=status)

                def behave(
                    line: socket.socket, _: bytes, sent: bytes = redirect
                ) -> None:
                    line.sendall(sent)

                with Listener(behave) as first:
                    line = line_to(first.url)
                    assert isinstance(read(line.post(BODY), events=1), Stopped)
                    assert line.get(DATASET, "id").status == int(status[:3])
        assert second.connections == 0

    @pytest.mark.matrix("X28")
    def test_a_proxy_of_the_environment_is_not_used(
        self, sim: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Listener() as proxy:
            for name in (
                "HTTP_PROXY",
                "http_proxy",
                "HTTPS_PROXY",
                "ALL_PROXY",
                "all_proxy",
            ):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            assert line_to(sim.url).post(BODY).status == 200
        assert proxy.connections == 0

    @pytest.mark.matrix("X28")
    def test_a_netrc_does_not_replace_it(
        self, sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        assert line_to(sim.url).post(BODY).status == 200

    def test_a_cookie_that_a_server_sets_is_never_sent_back(self) -> None:
        def behave(line: socket.socket, _: bytes) -> None:
            line.sendall(answer(b"{}", b"Set-Cookie: tracked=1; Path=/"))

        with Listener(behave) as server:
            line = line_to(server.url)
            line.post(BODY)
            line.post(BODY)
        assert len(server.heard) == 2
        assert not [request for request in server.heard if b"cookie" in request.lower()]

    @pytest.mark.matrix("H20", "X28")
    def test_a_server_with_a_strangers_certificate_gets_nothing(
        self, tmp_path: Path
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_certificate(tmp_path))

        def wrap(line: socket.socket) -> socket.socket:
            return context.wrap_socket(line, server_side=True)

        with Listener(wrap=wrap) as server:
            line = line_to(server.url.replace("http:", "https:"))
            assert not no_answer(line).body_left
        assert server.connections == 1
        assert server.heard == []

    def test_no_log_line_and_no_repr_holds_it(
        self, sim: Simulator, caplog: pytest.LogCaptureFixture,
        connected: Callable[..., MetaCapiHook],
    ) -> None:  # fmt: skip
        caplog.set_level(logging.DEBUG)
        hook = connected(sim.url)
        sim.faults.add(
            Fault(kind=FaultKind.TOKEN_REVOKED),
            Fault(kind=FaultKind.HANG_UP_AFTER_READING),
        )
        hook.post(BODY)
        with pytest.raises(NoAnswerError):
            hook.post(BODY)
        hook.test_connection()
        assert "/events" in caplog.text, "urllib3 was not heard at DEBUG"
        shown = [
            repr(hook),
            repr(hook.destination()),
            repr(hook.line()),
            str(vars(hook)),
        ]
        assert TOKEN not in caplog.text + "".join(shown)

    @pytest.mark.parametrize("bad", ["two words", "line\nbreak", "ümlaut", "tab\there"])
    def test_one_that_cannot_stand_in_a_header_is_refused_unquoted(
        self, bad: str
    ) -> None:
        (fault,) = destination("http://127.0.0.1:1", token=f"EAAB{bad}").faults()
        assert "characters that tokens do not have" in fault
        assert "EAAB" not in fault


class TestNoAnswer:
    """Without a whole answer, it is known whether the body had left."""

    @pytest.mark.matrix("H20")
    def test_a_refused_connection_means_that_nothing_left(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        assert not no_answer(line_to(f"http://127.0.0.1:{port}")).body_left

    def test_a_hang_up_before_a_large_body_means_that_not_all_left(
        self, sim: Simulator
    ) -> None:
        sim.faults.add(Fault(kind=FaultKind.HANG_UP_BEFORE_READING))
        assert not no_answer(line_to(sim.url), LARGE).body_left

    @pytest.mark.matrix("H3")
    def test_a_hang_up_inside_a_large_body_means_that_not_all_left(
        self, sim: Simulator
    ) -> None:
        sim.faults.add(Fault(kind=FaultKind.HANG_UP_MID_BODY, after_bytes=100_000))
        assert not no_answer(line_to(sim.url), LARGE).body_left

    @pytest.mark.parametrize(
        "kind", [FaultKind.HANG_UP_AFTER_READING, FaultKind.HANG_UP_MID_BODY]
    )
    def test_a_hang_up_after_the_last_byte_leaves_it_open(
        self, sim: Simulator, kind: FaultKind
    ) -> None:
        # A short body is in the kernel's hands at once: nobody knows how far it came.
        sim.faults.add(Fault(kind=kind, after_bytes=10))
        assert no_answer(line_to(sim.url)).body_left

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(kind=FaultKind.WRONG_CONTENT_LENGTH, off_by=10),
            Fault(kind=FaultKind.CHUNKED_CUT),
        ],
        ids=lambda fault: fault.kind,
    )
    @pytest.mark.matrix("H6")
    def test_half_an_answer_is_none(self, sim: Simulator, fault: Fault) -> None:
        sim.faults.add(fault)
        assert no_answer(line_to(sim.url)).body_left
        assert sim.counts(DATASET).received == 1

    def test_the_next_request_goes_out_on_a_fresh_connection(
        self, sim: Simulator
    ) -> None:
        line = line_to(sim.url)
        sim.faults.add(Fault(kind=FaultKind.HANG_UP_AFTER_READING))
        no_answer(line)
        assert isinstance(read(line.post(BODY), events=1), Accepted)

    @pytest.mark.parametrize(
        "garbage", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 500]
    )
    def test_an_answer_that_is_not_http_is_none(self, garbage: bytes) -> None:
        def behave(line: socket.socket, _: bytes) -> None:
            line.sendall(garbage)
            line.shutdown(socket.SHUT_RDWR)

        with Listener(behave) as server:
            assert no_answer(line_to(server.url)).body_left


def watchers_since(before: set[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that have begun to watch deadlines."""
    new = set(threading.enumerate()) - before
    return [thread for thread in new if thread.name == "capi-deadlines"]


@pytest.mark.matrix("H19")
class TestTheDeadline:
    """A request ends in time, however the server spends it."""

    def assert_in_time(self, url: str, body: bytes = BODY) -> NoAnswerError:
        began = time.monotonic()
        error = no_answer(line_to(url, seconds=SHORT), body)
        assert time.monotonic() - began < SHORT + BUSY
        return error

    def test_a_server_that_never_answers_is_left(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.HANG))
        assert self.assert_in_time(sim.url).body_left

    def test_a_server_that_drips_its_answer_is_left(self, sim: Simulator) -> None:
        # Each byte comes well within a socket's time-out; all of them take minutes.
        sim.faults.add(Fault(kind=FaultKind.DRIP, seconds=0.05))
        assert self.assert_in_time(sim.url).body_left

    @pytest.mark.parametrize("length", [b"Content-Length: 9000\r\n", b""])
    def test_a_server_that_drips_only_the_body_is_left(self, length: bytes) -> None:
        def behave(line: socket.socket, _: bytes) -> None:
            line.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n{")
            for _second in range(100):
                line.sendall(b" ")
                time.sleep(0.05)

        with Listener(behave) as server:
            assert self.assert_in_time(server.url).body_left

    def test_a_server_that_does_not_read_is_left_with_the_body_unsent(
        self, sim: Simulator
    ) -> None:
        sim.faults.add(Fault(kind=FaultKind.NEVER_READ))
        assert not self.assert_in_time(sim.url, LARGE).body_left

    def test_a_server_that_sips_the_body_is_left_with_the_body_unsent(self) -> None:
        def sip(line: socket.socket) -> socket.socket:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            for _second in range(100):
                line.recv(1_000)
                time.sleep(0.05)
            return line

        with Listener(wrap=sip) as server:
            assert not self.assert_in_time(server.url, LARGE).body_left

    def test_a_slow_answer_within_it_counts(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.DELAY, seconds=0.3))
        assert line_to(sim.url, seconds=5).post(BODY).status == 200

    def test_the_connection_serves_on_when_an_old_deadline_passes(
        self, sim: Simulator
    ) -> None:
        line = line_to(sim.url, seconds=SHORT)
        assert line.post(BODY).status == 200
        time.sleep(SHORT - 0.15)
        # The first request's time is up in the middle of the second's.
        sim.faults.add(Fault(kind=FaultKind.DELAY, seconds=0.25))
        assert line.post(BODY).status == 200

    def test_one_thread_watches_over_many_requests(self, sim: Simulator) -> None:
        before = set(threading.enumerate())
        line = Line(
            destination(sim.url), requests_in_flight=3, deadline_seconds=2 * SHORT
        )
        for _ in range(3):
            assert line.post(BODY).status == 200
        [_] = watchers_since(before)
        # Those that follow have their own time, whoever else has ended his.
        sim.faults.add(Fault(kind=FaultKind.HANG, count=3))
        began = time.monotonic()
        with ThreadPoolExecutor(3) as pool:
            late = list(pool.map(no_answer, [line] * 3))
        assert [error.body_left for error in late] == [True] * 3
        assert SHORT < time.monotonic() - began < 2 * SHORT + BUSY

    def test_the_watcher_leaves_when_nothing_is_left_to_watch(
        self, sim: Simulator
    ) -> None:
        line = line_to(sim.url, seconds=SHORT)
        before = set(threading.enumerate())
        assert line.post(BODY).status == 200
        [watcher] = watchers_since(before)
        watcher.join(SHORT + BUSY)
        assert not watcher.is_alive()
        sim.faults.add(Fault(kind=FaultKind.HANG))
        assert no_answer(line).body_left

    def test_it_is_metas_own_unless_a_test_names_another(self) -> None:
        with Listener() as server:
            assert Line(destination(server.url))._deadlines.seconds == 30.0
        assert spec.REQUEST_DEADLINE_SECONDS == 30.0


@pytest.mark.matrix("H23")
class TestTheAnswersSize:
    """An answer is at most one MiB; a flood is broken off."""

    @pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
    def test_a_flood_is_broken_off(self, sim: Simulator, gzip: bool) -> None:
        sim.faults.add(Fault(kind=FaultKind.FLOOD, size=2_000_000_000, gzip=gzip))
        began = time.monotonic()
        assert no_answer(line_to(sim.url)).body_left
        assert time.monotonic() - began < 5

    @pytest.mark.parametrize(("size", "fits"), [(1_048_576, True), (1_048_577, False)])
    def test_the_limit_is_exact(self, size: int, fits: bool) -> None:
        def behave(line: socket.socket, _: bytes) -> None:
            line.sendall(answer(b" " * size))

        with Listener(behave) as server:
            line = line_to(server.url)
            if fits:
                assert len(line.post(BODY).body) == size
            else:
                assert no_answer(line).body_left


class TestConnections:
    """One connection serves many requests."""

    def test_a_connection_is_used_again(self) -> None:
        with Listener() as server:
            line = line_to(server.url)
            for _ in range(5):
                line.post(BODY)
        assert (len(server.heard), server.connections) == (5, 1)

    @pytest.mark.matrix("H22")
    def test_one_that_the_server_has_closed_meanwhile_is_replaced(
        self, sim: Simulator
    ) -> None:
        line = line_to(sim.url)
        sim.faults.add(Fault(kind=FaultKind.CLOSE_IDLE, seconds=0.0))
        assert line.post(BODY).status == 200
        time.sleep(0.2)
        assert line.post(BODY).status == 200

    def test_a_packed_answer_is_read_though_none_was_asked_for(self) -> None:
        import gzip

        packed = answer(
            gzip.compress(b'{"events_received":1}'), b"Content-Encoding: gzip"
        )
        with Listener(lambda line, _: line.sendall(packed)) as server:
            found = line_to(server.url).post(BODY)
        assert b"accept-encoding: identity" in server.heard[0].lower()
        assert isinstance(read(found, events=1), Accepted)


@pytest.mark.matrix("X27", "X29")
class TestTheConnectionsFaults:
    """All that is wrong with a connection is said at once, one sentence each."""

    def test_every_fault_has_its_sentence(
        self, connected: Callable[..., MetaCapiHook]
    ) -> None:
        hook = connected(
            "http://user@evil.example/",
            password="",
            extra={
                "dataset_id": "12 34", "environment": "staging", "graph_version": "26",
                "partner_agent": "9",
            },
        )  # fmt: skip
        with pytest.raises(ConfigurationError) as caught:
            hook.destination()
        told = str(caught.value)
        for part in (
            "'meta_of_test'", "no access token", "dataset_id", "graph_version",
            "environment", "partner_agent", "base URL",
        ):  # fmt: skip
            assert part in told
        assert told.count(".") >= 6
        assert "evil" not in told

    def test_a_number_is_read_as_its_digits(
        self, connected: Callable[..., MetaCapiHook]
    ) -> None:
        hook = connected(extra={"partner_agent": 9, "app_secret": 7})
        with pytest.raises(ConfigurationError, match="partner_agent"):
            hook.destination()
        found = Destination.of(
            host=5, port=None, schema=None, login=1234567, password=12345678,
            extra={"app_secret": 7},
        )  # fmt: skip
        assert (found.base_url, found.dataset_id) == ("https://5", "1234567")
        assert (found.token, found.app_secret) == ("12345678", "7")

    @pytest.mark.parametrize("environment", ["production", "test"])
    @pytest.mark.parametrize(
        "host",
        [
            "http://127.0.0.1:1", "https://graph.facebook.com.evil.example",
            "https://graph.facebook.com:8443", "http://graph.facebook.com",
            "https://graph.facebook.com/evil", "graph.facebook.com@evil.example",
        ],
    )  # fmt: skip
    def test_only_a_local_connection_may_name_another_address(
        self, connected: Callable[..., MetaCapiHook], host: str, environment: str
    ) -> None:
        hook = connected(host, extra={"environment": environment})
        with pytest.raises(ConfigurationError, match="base URL"):
            hook.post(BODY)

    @pytest.mark.parametrize(
        "host", [None, "", "graph.facebook.com", "https://graph.facebook.com/"]
    )
    def test_without_another_address_it_is_metas(
        self, connected: Callable[..., MetaCapiHook], host: str | None
    ) -> None:
        hook = connected(host, extra={"environment": "production"})
        assert (
            hook.destination().dataset_url
            == f"https://graph.facebook.com/v26.0/{DATASET}"
        )

    def test_host_schema_and_port_make_an_address(
        self, connected: Callable[..., MetaCapiHook]
    ) -> None:
        hook = connected("127.0.0.1", schema="http", port=8085)
        assert hook.destination().base_url == "http://127.0.0.1:8085"

    @pytest.mark.parametrize(
        "dataset_id",
        ["", "1234", "1" * 21, "12345/../6", "12345?x=1", "१२३४५६", "12345\n"],
    )
    @pytest.mark.matrix("X29")
    def test_a_dataset_id_is_digits_and_nothing_that_changes_the_path(
        self, dataset_id: str
    ) -> None:
        (fault,) = destination("http://127.0.0.1:1", dataset_id=dataset_id).faults()
        assert "dataset_id" in fault

    @pytest.mark.parametrize(
        "version", ["26", "v26", "v26.0/../..", "v26.0\n", "V26.0", "v٢٦.0"]
    )
    @pytest.mark.matrix("X29")
    def test_a_graph_version_is_one_and_nothing_that_changes_the_path(
        self, version: str
    ) -> None:
        (fault,) = destination("http://127.0.0.1:1", graph_version=version).faults()
        assert "graph_version" in fault


@pytest.mark.matrix("X30")
class TestTheTestButton:
    """Airflow's *Test* button tells yes, or what is wrong."""

    def test_a_sound_connection_is_told_with_its_dataset(
        self, sim: Simulator, connected: Callable[..., MetaCapiHook]
    ) -> None:
        good, told = connected(sim.url).test_connection()
        assert good
        assert told.startswith(f"This is NOT Meta but {sim.url}. Dataset {DATASET} ")

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (FaultKind.TOKEN_REVOKED, "token is missing, invalid, expired or revoked"),
            (FaultKind.PERMISSION, "lacks a permission"),
            (FaultKind.DATASET, "the dataset does not exist"),
            (FaultKind.STATUS, "does not answer properly just now"),
            (FaultKind.HTML, "not as the Graph API does"),
            (FaultKind.REDIRECT, "redirect"),
            (FaultKind.HANG_UP_AFTER_READING, "Check the network"),
        ],
    )
    def test_each_fault_has_a_sentence(
        self,
        sim: Simulator,
        connected: Callable[..., MetaCapiHook],
        fault: FaultKind,
        told: str,
    ) -> None:
        sim.faults.add(
            Fault(kind=fault, edge="dataset", location="http://127.0.0.1:1/")
        )
        good, sentence = connected(sim.url).test_connection()
        assert not good
        assert told in sentence
        assert TOKEN not in sentence

    def test_a_server_that_is_not_the_graph_api_is_told(
        self, connected: Callable[..., MetaCapiHook]
    ) -> None:
        with Listener(lambda line, _: line.sendall(answer(b'{"id": "1"}'))) as server:
            good, sentence = connected(server.url).test_connection()
        assert not good
        assert "not with the connection's dataset" in sentence

    def test_a_faulty_connection_is_told_without_a_request(
        self, sim: Simulator, connected: Callable[..., MetaCapiHook]
    ) -> None:
        good, sentence = connected(sim.url, password=None).test_connection()
        assert not good
        assert "no access token" in sentence
        assert sim.stats()["requests"] == 0


def _certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "stranger.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
