"""H20, H21, X2, X28, X29: whoever is not Meta hears no token and no event."""

from __future__ import annotations

import re
import socket
import ssl
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.airflow.listener import Listener, answer
from tests.faults.books_http import (
    TOKEN,
    calm,
    line_to,
    outcomes,
    send,
    the_books_agree,
)
from tests.faults.hostile import Authority, ask
from tests.ledger.conftest import DATASET, Bench
from tests.strategies import SETTINGS

from capi_airflow.transport import Destination, Line
from meta_capi import spec
from meta_capi.errors import NoAnswerError, StoppedError

FEW = range(5)
SOUND = Destination(dataset_id=DATASET, token=TOKEN)
PROXIES = (
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy",
)  # fmt: skip


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Meta(Listener):
    """The simulator behind TLS; keeps every byte that a client sent past the TLS."""

    def __init__(self, bench: Bench, context: ssl.SSLContext) -> None:
        self.plain: list[bytes] = []

        def wrap(line: socket.socket) -> socket.socket:
            self.plain.append(line.recv(5, socket.MSG_PEEK))
            return context.wrap_socket(line, server_side=True)

        super().__init__(
            lambda line, request: line.sendall(ask(bench.simulator, request)), wrap=wrap
        )

    @property
    def address(self) -> str:
        """Its base URL."""
        return self.url.replace("http:", "https:")


def trusting(address: str, authority: Authority) -> Line:
    """Return a line that believes the authority's certificates too."""
    line = line_to(address)
    line.session.verify = str(authority.pem)
    return line


def nobody() -> str:
    """Return an address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


class TestNobodyToTrust:
    def not_sent(self, bench: Bench, line: Line) -> None:
        rows = bench.rows(*FEW)
        send(bench, rows, line=line)

        assert bench.states() == {"pending": 5}
        assert bench.reasons() == {"not_sent": 5}
        assert outcomes(bench) == {"not_sent": 4}
        assert bench.receipts().total() == 0
        assert calm(bench, rows) == {"accepted": 5}
        the_books_agree(bench, FEW, requests=5)

    @pytest.mark.matrix("H20", "X28")
    def test_a_sound_certificate_is_believed(
        self, bench: Bench, authority: Authority
    ) -> None:
        """The control of what follows."""
        with Meta(bench, authority.server()) as meta:
            send(bench, bench.rows(*FEW), line=trusting(meta.address, authority))

        assert bench.states() == {"accepted": 5}
        the_books_agree(bench, FEW, requests=1)

    @pytest.mark.matrix("H20", "X28")
    @pytest.mark.parametrize("flaw", [
        {"days": (-9, -1)}, {"days": (1, 9)}, {"host": "graph.facebook.com"},
        {"own": True},
    ], ids=str)  # fmt: skip
    def test_a_flawed_certificate_gets_nothing(
        self, bench: Bench, authority: Authority, flaw: dict[str, Any]
    ) -> None:
        with Meta(bench, authority.server(**flaw)) as stranger:
            self.not_sent(bench, trusting(stranger.address, authority))

        assert stranger.heard == []
        # It knocks again with TLS, and never without.
        assert [first[0] for first in stranger.plain] == [0x16] * 4

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
    @pytest.mark.matrix("H20", "X28")
    @pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
    def test_a_tls_of_yesterday_gets_nothing(
        self, bench: Bench, authority: Authority, version: str
    ) -> None:
        context = authority.server()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[version]

        with Meta(bench, context) as stranger:
            self.not_sent(bench, trusting(stranger.address, authority))

        assert stranger.heard == []
        assert [first[0] for first in stranger.plain] == [0x16] * 4

    @pytest.mark.matrix("H20", "X28")
    def test_a_name_server_that_lies_gets_nothing(
        self, bench: Bench, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The real address, at this machine, with a stranger's word that it is Meta's."""
        with Meta(bench, authority.server("graph.facebook.com")) as stranger:
            here = (
                socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                ("127.0.0.1", stranger.port),
            )
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [here])
            line = Line(SOUND)
            with pytest.raises(NoAnswerError) as caught:
                line.post(b"{}")

        assert not caught.value.body_left
        assert stranger.heard == []
        assert stranger.plain[0][0] == 0x16

    @pytest.mark.matrix("H20", "H26")
    def test_a_refused_connection_proves_that_nothing_was_sent(
        self, bench: Bench
    ) -> None:
        self.not_sent(bench, line_to(nobody()))

    @pytest.mark.matrix("H20")
    def test_an_unknown_name_proves_that_nothing_was_sent(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line = line_to("http://graph.invalid")
        real = socket.getaddrinfo

        def lookup(host: Any, *args: Any, **options: Any) -> Any:
            if host == "graph.invalid":  # RFC 6761: such a name never exists
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return real(host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        self.not_sent(bench, line)

    @pytest.mark.matrix("H20")
    def test_plain_http_at_the_address_of_https_gets_nothing(
        self, bench: Bench
    ) -> None:
        heard = []

        def answer_at_once(line: socket.socket) -> socket.socket:
            heard.append(line.recv(65_536))
            line.sendall(answer(b"You speak TLS to a plain port", status=b"400 No"))
            line.close()
            return line

        with Listener(wrap=answer_at_once) as plain:
            self.not_sent(bench, line_to(plain.url.replace("http:", "https:")))

        assert [each[0] for each in heard] == [0x16] * 4


class TestElsewhere:
    TARGETS = (
        "http://127.0.0.1:{second}/v26.0/1/events", "https://127.0.0.1:{second}/",
        "//127.0.0.1:{second}/", f"/v26.0/{DATASET}/events",
    )  # fmt: skip

    @pytest.mark.matrix("H21", "X28")
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_to_another_or_to_itself_is_never_followed(
        self, bench: Bench, status: int
    ) -> None:
        bench.tune(requests_in_flight=1)
        for target in self.TARGETS:
            with Listener() as second:
                location = b"Location: " + target.format(second=second.port).encode()
                moved = answer(b"", location, status=b"%d Elsewhere" % status)
                first = Listener(lambda line, _, sent=moved: line.sendall(sent))
                with first, pytest.raises(StoppedError, match="redirect"):
                    send(bench, bench.rows(1), line=line_to(first.url))
            assert (len(first.heard), second.connections) == (1, 0)

        assert bench.states() == {"pending": 1}
        the_books_agree(bench, [1], requests=len(self.TARGETS))

    @pytest.mark.matrix("X28")
    def test_a_proxy_of_the_environment_is_not_asked(
        self, bench: Bench, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Listener() as proxy, Meta(bench, authority.server()) as meta:
            for name in PROXIES:
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv("NO_PROXY", "")
            monkeypatch.setenv("no_proxy", "")
            send(bench, bench.rows(1))
            send(bench, bench.rows(2), line=trusting(meta.address, authority))

        assert proxy.connections == 0
        assert bench.states() == {"accepted": 2}
        the_books_agree(bench, [1, 2], requests=2)

    @pytest.mark.matrix("X28")
    def test_an_authority_of_the_environment_is_not_believed(
        self, bench: Bench, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.setenv(name, str(authority.pem))
        with Meta(bench, authority.server()) as stranger:
            send(bench, bench.rows(1), line=line_to(stranger.address))

        assert stranger.heard == []
        assert bench.states() == {"pending": 1}


@pytest.mark.matrix("X2")
class TestTheToken:
    def test_it_stands_in_one_header_of_every_request_and_in_no_address(
        self, bench: Bench
    ) -> None:
        """Through a throttle, a lost answer, a split and the look at the dataset."""

        def refuse(line: socket.socket, request: bytes) -> None:
            told = [
                answer(b'{"error":{"code":4}}', status=b"403 No"), b"\x00",
                answer(b'{"error":{"code":100}}', status=b"400 No"),
            ]  # fmt: skip
            if len(server.heard) <= len(told):
                line.sendall(told[len(server.heard) - 1])
                line.shutdown(socket.SHUT_RDWR)
            else:
                line.sendall(ask(bench.simulator, request))

        with Listener(refuse) as server:
            line = line_to(server.url)
            send(bench, bench.rows(*FEW), line=line)
            line.dataset_faults("the dataset")

        assert bench.states() == {"accepted": 5}
        assert len(server.heard) > 5
        for request in server.heard:
            head, _, body = request.partition(b"\r\n\r\n")
            first, *headers = head.decode().split("\r\n")
            assert TOKEN not in first
            assert "access_token" not in first
            assert TOKEN.encode() not in body
            found = [header for header in headers if TOKEN in header]
            assert found == [f"Authorization: Bearer {TOKEN}"]

    def test_no_error_of_the_line_holds_it(self, bench: Bench) -> None:
        ways: list[Callable[[socket.socket, bytes], None]] = [
            lambda line, request: line.sendall(request),  # an echo
            lambda line, request: line.sendall(b"HTTP/1.1 200 " + request),
            lambda line, request: line.sendall(answer(request, b"Content-Encoding: gzip")),
            lambda line, request: line.shutdown(socket.SHUT_RDWR),
        ]  # fmt: skip
        for behave in ways:
            with Listener(behave) as server:
                line = line_to(server.url, seconds=1)
                try:
                    told = repr(line.post(b'{"data":[]}'))
                except NoAnswerError as error:
                    told = "".join(traceback.format_exception(error))
                assert TOKEN not in told + repr(line) + repr(vars(line))


class TestTheAddress:
    """What of an address comes from a connection has one form."""

    @pytest.mark.matrix("X29")
    @SETTINGS
    @given(
        st.from_regex(r"[0-9./?#%@:\\ \n-]{1,24}", fullmatch=True)
        | st.text(max_size=24)
        | st.integers(0, 10**25).map(str)
    )
    def test_a_dataset_id_is_digits_or_a_fault(self, text: str) -> None:
        found = replace(SOUND, dataset_id=text)
        assert bool(found.faults()) == (not re.fullmatch("[0-9]{5,20}", text))

    @pytest.mark.matrix("X29")
    @SETTINGS
    @given(
        st.from_regex(r"[vV]?[0-9./?#%@:\\ \n-]{1,9}", fullmatch=True)
        | st.text(max_size=9)
        | st.builds("v{}.{}".format, st.integers(0, 200), st.integers(0, 20))
    )
    def test_a_version_has_one_form_or_is_a_fault(self, text: str) -> None:
        found = replace(SOUND, graph_version=text)
        assert bool(found.faults()) == (not re.fullmatch("v[0-9]{1,2}[.][0-9]", text))

    @pytest.mark.matrix("X28", "X29")
    def test_without_another_word_it_is_metas_and_https(self) -> None:
        assert SOUND.dataset_url == f"{spec.GRAPH_HOST}/v26.0/{DATASET}"
        assert spec.GRAPH_HOST == "https://graph.facebook.com"
        line = Line(SOUND)
        assert line.session.verify is True
        assert line.session.trust_env is False
