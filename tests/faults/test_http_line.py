"""H1-H3, H19, H22-H26: what happens to the bytes on their way there and back."""

from __future__ import annotations

import gzip
import random
import socket
import time
import tracemalloc
from collections.abc import Callable

import pytest
from tests.airflow.listener import Listener, answer
from tests.faults import hostile
from tests.faults.books_http import (
    SHORT,
    calm,
    line_to,
    outcomes,
    send,
    the_books_agree,
)
from tests.faults.hostile import Proxy, ask
from tests.ledger.conftest import DATASET, HOUR, Bench

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Patience
from meta_capi.errors import NoAnswerError
from meta_capi.ledger import ResendPolicy

FEW = range(5)
MANY = range(1_000)
BUSY = 4.0  # what a busy machine may add to a deadline; the faults last minutes


class TestHangUps:
    @pytest.mark.matrix("H3")
    @pytest.mark.parametrize("seed", range(2))
    def test_a_reset_inside_the_body_proves_that_it_was_not_sent(
        self, bench: Bench, seed: int
    ) -> None:
        """A whole batch is longer than what both kernels hold of it."""
        dice = random.Random(seed)
        rows = bench.rows(*MANY)
        for _ in range(4):
            bench.simulator.faults.add(
                Fault(
                    kind=FaultKind.HANG_UP_MID_BODY,
                    after_bytes=dice.randrange(60_000),
                )
            )

        send(bench, rows)

        assert bench.states() == {"pending": 1_000}
        assert bench.reasons() == {"not_sent": 1_000}
        assert outcomes(bench) == {"not_sent": 4}
        assert calm(bench, rows) == {"accepted": 1_000}
        assert set(bench.receipts().values()) == {1}
        the_books_agree(bench, MANY, requests=5)

    @pytest.mark.matrix("H3")
    def test_a_reset_anywhere_never_loses_and_never_accepts(self, bench: Bench) -> None:
        """Near its end, nobody knows how much of a body was on its way."""
        dice = random.Random(33)
        rows = [bench.rows(*range(start, start + 100)) for start in range(0, 800, 100)]
        bench.patience = Patience(first_pause=0.0, tries=1, failures_in_a_row=99)
        for _ in rows:
            bench.simulator.faults.add(
                Fault(
                    kind=FaultKind.HANG_UP_MID_BODY, after_bytes=dice.randrange(28_000)
                )
            )

        send(bench, *rows)

        assert bench.states().keys() <= {"pending", "in_doubt"}
        assert bench.receipts().total() == 0
        assert calm(bench, *rows) == {"accepted": 800}
        the_books_agree(bench, range(800), requests=16)

    @pytest.mark.matrix("H3")
    def test_what_was_in_doubt_before_stays_so(self, bench: Bench) -> None:
        """Only acceptance ends a doubt; a proof about a later request does not."""
        rows = bench.rows(*MANY)
        faults = bench.simulator.faults
        faults.add(Fault(kind=FaultKind.HANG_UP_AFTER_READING, processed=True))
        faults.add(Fault(kind=FaultKind.HANG_UP_MID_BODY, after_bytes=9, count=3))

        send(bench, rows)

        assert outcomes(bench) == {"unknown": 1, "not_sent": 3}
        assert bench.states() == {"in_doubt": 1_000}
        the_books_agree(bench, MANY, requests=4)

    @pytest.mark.matrix("H22")
    def test_a_kept_connection_that_was_closed_is_replaced_before_anything_is_sent(
        self, bench: Bench
    ) -> None:
        bench.policy = ResendPolicy(resend=False, window_seconds=47 * HOUR)

        def close(line: socket.socket, request: bytes) -> None:
            # The answer waits for the end, and both come in one packet.
            line.sendall(ask(bench.simulator, request), socket.MSG_MORE)
            line.shutdown(socket.SHUT_WR)

        with Listener(close) as server:
            line = line_to(server.url, in_flight=1)
            for number in FEW:
                bench.deliver(bench.rows(number), post=line.post)

        assert bench.states() == {"accepted": 5}
        assert server.connections == 5
        the_books_agree(bench, FEW, requests=5)

    @pytest.mark.matrix("H22")
    @pytest.mark.parametrize("resend", [True, False])
    def test_one_closed_in_the_moment_of_its_use_is_in_doubt_and_never_asked_blindly(
        self, bench: Bench, resend: bool
    ) -> None:
        bench.policy = ResendPolicy(resend=resend, window_seconds=47 * HOUR)
        heard = []

        def first_only(line: socket.socket, request: bytes) -> None:
            heard.append(request)
            if len(heard) == 2:  # on the kept connection
                hostile.reset(line)
            else:
                line.sendall(ask(bench.simulator, request))

        with Listener(first_only) as server:
            line = line_to(server.url, in_flight=1)
            bench.deliver(bench.rows(1), post=line.post)
            bench.deliver(bench.rows(2), post=line.post)

        assert outcomes(bench)["unknown"] == 1
        assert len(heard) == (3 if resend else 2)
        states = {"accepted": 2} if resend else {"accepted": 1, "in_doubt": 1}
        assert bench.states() == states
        the_books_agree(bench, [1, 2], requests=3)


class TestSlowness:
    """A request ends in time, however the server spends it."""

    def in_time(self, bench: Bench, url: str, *numbers: int) -> None:
        bench.patience = Patience(first_pause=0.0, tries=1)
        line = line_to(url, seconds=SHORT)
        longest = 0.0

        def post(body: bytes) -> object:
            nonlocal longest
            began = time.monotonic()
            try:
                return line.post(body)
            finally:
                longest = max(longest, time.monotonic() - began)

        bench.deliver(bench.rows(*numbers), post=post)  # type: ignore[arg-type]
        assert SHORT - 0.1 < longest < SHORT + BUSY

    @pytest.mark.matrix("H19")
    @pytest.mark.parametrize("fault", [
        {"kind": FaultKind.HANG, "processed": True}, {"kind": FaultKind.HANG},
        {"kind": FaultKind.DRIP, "seconds": 0.05},
        {"kind": FaultKind.DELAY, "seconds": 600.0},
    ], ids=str)  # fmt: skip
    def test_no_answer_in_time_is_in_doubt(
        self, bench: Bench, fault: dict[str, object]
    ) -> None:
        bench.simulator.faults.add(Fault(**fault))  # type: ignore[arg-type]

        self.in_time(bench, bench.simulator.url, *FEW)

        assert bench.states() == {"in_doubt": 5}
        assert calm(bench, bench.rows(*FEW)) == {"accepted": 5}
        the_books_agree(bench, FEW, requests=2)

    @pytest.mark.matrix("H19")
    def test_a_reader_that_does_not_read_got_nothing(self, bench: Bench) -> None:
        bench.simulator.faults.add(Fault(kind=FaultKind.NEVER_READ))

        self.in_time(bench, bench.simulator.url, *MANY)

        assert bench.states() == {"pending": 1_000}
        assert outcomes(bench) == {"not_sent": 1}
        assert calm(bench, bench.rows(*MANY)) == {"accepted": 1_000}
        assert set(bench.receipts().values()) == {1}
        the_books_agree(bench, MANY, requests=2)

    @pytest.mark.matrix("H19")
    def test_a_handshake_a_byte_at_a_time_got_nothing(self, bench: Bench) -> None:
        def drip(line: socket.socket) -> socket.socket:
            line.sendall(b"\x16\x03\x03\x40\x00")  # a record of TLS, and a long one
            while True:
                line.sendall(b"\x02")
                time.sleep(0.05)

        with Listener(wrap=drip) as server:
            self.in_time(bench, server.url.replace("http:", "https:"), *FEW)

        assert bench.states() == {"pending": 5}
        the_books_agree(bench, FEW, requests=1)


def endless(head: bytes, piece: bytes) -> Callable[[socket.socket, bytes], None]:
    """Return a behaviour: a head, and then the same piece for ever."""

    def behave(line: socket.socket, _: bytes) -> None:
        line.sendall(head)
        while True:
            line.sendall(piece)

    return behave


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PACKED = OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 10_000_000)


@pytest.mark.matrix("H23")
def test_an_answer_without_end_costs_neither_memory_nor_time(bench: Bench) -> None:
    floods = {
        "body": (OK + b"\r\n", b" " * 65_536),
        "long body": (OK + b"Content-Length: 10000000000\r\n\r\n", b" " * 65_536),
        "chunks": (CHUNKED, b"10000\r\n" + b" " * 65_536 + b"\r\n"),
        "one chunk": (CHUNKED + b"FFFFFFFFFF\r\n", b" " * 65_536),
        "chunk sizes": (CHUNKED, b"0" * 65_536),
        "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
        "bomb": (PACKED, gzip.compress(b" " * 10_000_000)),
        "headers": (OK, b"a: b\r\n" * 10_000),
        "one header": (OK + b"a: ", b"b" * 65_536),
        "status": (b"HTTP/1.1 200 ", b"O" * 65_536),
        "forerunners": (b"", b"HTTP/1.1 103 Wait\r\n\r\n" * 500),
    }
    bench.patience = Patience(first_pause=0.0, tries=1)
    tracemalloc.start()
    for number, (name, flood) in enumerate(floods.items()):
        with Listener(endless(*flood)) as server:
            line = line_to(server.url, seconds=SHORT)
            began = time.monotonic()
            with pytest.raises(NoAnswerError):
                line.post(b"{}")
            assert time.monotonic() - began < SHORT + BUSY, name
            send(bench, bench.rows(number), line=line)

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50_000_000
    assert bench.states() == {"in_doubt": len(floods)}
    the_books_agree(bench, range(len(floods)), requests=len(floods))


class TestForerunners:
    """1xx, and answers that come too early."""

    @pytest.mark.matrix("H25")
    def test_a_flood_of_them_before_the_answer_changes_nothing(
        self, bench: Bench
    ) -> None:
        kinds = [100, 102, 103, 150, 199]

        def behave(line: socket.socket, request: bytes) -> None:
            status = kinds[len(server.heard) % len(kinds)]
            line.sendall(b"HTTP/1.1 %d Wait\r\nA: b\r\n\r\n" % status * 90)
            line.sendall(ask(bench.simulator, request))

        with Listener(behave) as server:
            line = line_to(server.url, in_flight=1)
            bench.tune(requests_in_flight=1)
            send(bench, *(bench.rows(number) for number in FEW), line=line)

        assert bench.states() == {"accepted": 5}
        assert server.connections == 1
        the_books_agree(bench, FEW, requests=5)

    @pytest.mark.matrix("H25")
    def test_the_answer_after_one_is_not_taken_for_that_of_the_next_batch(
        self, bench: Bench
    ) -> None:
        """Else the refused batch would be accepted with the first one's yes."""
        bench.tune(requests_in_flight=1)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.REFUSE_IF, count=None, event_ids=bench.event_ids(1))
        )

        def behave(line: socket.socket, request: bytes) -> None:
            line.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            time.sleep(0.1)
            line.sendall(ask(bench.simulator, request))

        with Listener(behave) as server:
            line = line_to(server.url)
            send(bench, bench.rows(0), bench.rows(1), bench.rows(2), line=line)

        assert bench.states() == {"accepted": 2, "refused": 1}
        the_books_agree(bench, range(3), requests=3, guilty=[1])

    @pytest.mark.matrix("H25")
    def test_an_early_413_is_split_by_size(self, bench: Bench) -> None:
        """Nobody reads the whole body; its halves are taken."""
        most = 200_000

        def too_large(line: socket.socket) -> socket.socket:
            while head := hostile.read_head(line):
                length = int(head.lower().split(b"content-length:")[1].split()[0])
                if length > most:
                    line.sendall(answer(b"<html>", status=b"413 Content Too Large"))
                    line.close()
                    break
                body = b""
                while len(body) < length:
                    body += line.recv(65_536)
                line.sendall(ask(bench.simulator, head + body))
            return line

        with Listener(wrap=too_large) as server:
            send(bench, bench.rows(*MANY), line=line_to(server.url))

        assert bench.states() == {"accepted": 1_000}
        assert outcomes(bench) == {"refused": 1, "accepted": 2}
        the_books_agree(bench, MANY, requests=3)

    @pytest.mark.matrix("H25")
    def test_any_other_answer_to_half_a_request_proves_that_it_was_not_sent(
        self, bench: Bench
    ) -> None:
        """A yes to events that nobody has read is none."""
        answers = [200, 400, 408, 500, 503]
        bench.patience = Patience(first_pause=0.0, tries=len(answers))
        left = iter(answers)

        def early(line: socket.socket) -> socket.socket:
            hostile.read_head(line)
            told = b'{"events_received":1000}'
            line.sendall(answer(told, status=b"%d Early" % next(left)))
            line.close()
            return line

        with Listener(wrap=early) as server:
            send(bench, bench.rows(*MANY), line=line_to(server.url))

        said = bench.sql("select outcome::text, http_status from capi.attempts")
        assert said == [("not_sent", status) for status in answers]
        assert bench.states() == {"pending": 1_000}
        the_books_agree(bench, MANY, requests=len(answers))


class TestOnTheWay:
    @pytest.mark.matrix("H24")
    def test_what_a_proxy_delivers_twice_is_metas_repeat_and_not_ours(
        self, bench: Bench
    ) -> None:
        def twice(line: socket.socket, request: bytes) -> None:
            ask(bench.simulator, request)
            line.sendall(ask(bench.simulator, request))

        with Listener(twice) as proxy:
            send(bench, bench.rows(*FEW), line=line_to(proxy.url))

        assert bench.states() == {"accepted": 5}
        assert outcomes(bench) == {"accepted": 1}
        assert set(bench.receipts().values()) == {2}
        assert bench.simulator.counts(DATASET).deduplicated == 5
        the_books_agree(bench, FEW, requests=1, repeated_on_the_way=1)

    @pytest.mark.matrix("H24")
    def test_an_answer_that_comes_twice_is_no_answer_to_the_next_request(
        self, bench: Bench
    ) -> None:
        bench.tune(requests_in_flight=1)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.REFUSE_IF, count=None, event_ids=bench.event_ids(1))
        )

        def twice(line: socket.socket, request: bytes) -> None:
            line.sendall(2 * ask(bench.simulator, request))

        with Listener(twice) as proxy:
            line = line_to(proxy.url)
            send(bench, *(bench.rows(number) for number in range(3)), line=line)

        assert bench.states() == {"accepted": 2, "refused": 1}
        the_books_agree(bench, range(3), requests=3, guilty=[1])

    # toxiproxy's: latency (and jitter), bandwidth, slow_close, timeout, reset_peer,
    # slicer, limit_data; the eighth, a proxy that is down, is a refused connection (H20).
    @pytest.mark.matrix("H26")
    @pytest.mark.parametrize(("up", "down", "states"), [
        pytest.param(up, down, states, id=name) for name, up, down, states in (
            ("latency", hostile.latency(0.1), hostile.latency(0.1), {"accepted"}),
            ("jitter", hostile.latency(0.06, 0.05), hostile.latency(0.06, 0.05),
             {"accepted"}),
            ("bandwidth", hostile.clean, hostile.bandwidth(1_000), {"accepted"}),
            ("bandwidth-up", hostile.bandwidth(1_000), hostile.clean,
             {"pending", "in_doubt"}),
            ("slicer", hostile.slicer(7), hostile.slicer(1), {"accepted"}),
            ("slow-close", hostile.slow_close(1), hostile.slow_close(1), {"accepted"}),
            ("timeout-up", hostile.timeout, hostile.clean, {"in_doubt"}),
            ("timeout-down", hostile.clean, hostile.timeout, {"in_doubt"}),
            ("reset-up", hostile.reset_peer(900), hostile.clean, {"in_doubt"}),
            ("reset-down", hostile.clean, hostile.reset_peer(30), {"in_doubt"}),
            ("limit-up", hostile.limit_data(900), hostile.clean, {"in_doubt"}),
            ("limit-down", hostile.clean, hostile.limit_data(300), {"in_doubt"}),
        )
    ])  # fmt: skip
    def test_a_bad_line_costs_time_and_no_event(
        self, bench: Bench, up: hostile.Toxic, down: hostile.Toxic, states: set[str]
    ) -> None:
        bench.patience = Patience(first_pause=0.0, tries=1)
        rows = bench.rows(*range(20))

        seconds = 1.0 if "in_doubt" in states else 20.0

        with Proxy(bench.simulator.port, up=up, down=down) as proxy:
            send(bench, rows, line=line_to(proxy.url, seconds=seconds))

        assert bench.states().keys() <= states
        assert calm(bench, rows) == {"accepted": 20}
        assert bench.simulator.counts(DATASET).processed == 20
        the_books_agree(bench, range(20), requests=2)
