"""Every fault as a client's socket sees it, and what Meta kept of the request."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import struct
import threading
import time
from typing import Any

import pytest
from tests.simulator.simulator_client import (
    DATASET,
    TOKEN,
    Reply,
    call,
    eventually,
    exchange,
    offline_purchase,
    purchases,
    send,
)

from graph_simulator import Fault, FaultKind, Simulator


def shaken(sim: Simulator, kind: FaultKind, *, events: int = 2, **how: Any) -> Reply:
    """Arm one fault and send events into it."""
    sim.faults.add(Fault(kind=kind, **how))
    return send(sim, *purchases(events))


def raw(sim: Simulator, *, body: bytes | None = None) -> socket.socket:
    """Open a socket and send one request of two events by hand."""
    if body is None:
        body = json.dumps({"data": purchases(2)}).encode()
    connection = socket.create_connection(("127.0.0.1", sim.port), timeout=5)
    connection.sendall(
        f"POST /v26.0/{DATASET}/events HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
    )
    connection.sendall(body)
    return connection


def assert_kept(sim: Simulator, fault: FaultKind, processed: bool, n: int = 2) -> None:
    """Hold the record against what the fault says it did."""
    assert eventually(lambda: sim.counts(DATASET).arrived == n)
    assert sim.counts(DATASET).received == (n if processed else 0)
    receipts = [receipt for event in sim.arrived() for receipt in event.receipts]
    assert {(receipt.processed, receipt.fault) for receipt in receipts} == {
        (processed, fault)
    }


BOTH = pytest.mark.parametrize("processed", [False, True])


class TestHangingUp:
    """H1-H3, H19, H22, H25."""

    @BOTH
    def test_a_reset_instead_of_an_answer(
        self, sim: Simulator, processed: bool
    ) -> None:
        kind = FaultKind.HANG_UP_AFTER_READING
        with pytest.raises(ConnectionResetError):
            shaken(sim, kind, processed=processed)
        assert_kept(sim, kind, processed)

    def test_a_reset_before_the_body_is_read(self, sim: Simulator) -> None:
        with pytest.raises(ConnectionError):
            shaken(sim, FaultKind.HANG_UP_BEFORE_READING, events=500)
        assert sim.counts(DATASET).arrived == 0

    def test_a_reset_in_the_middle_of_the_body(self, sim: Simulator) -> None:
        with pytest.raises(ConnectionError):
            shaken(sim, FaultKind.HANG_UP_MID_BODY, events=500, after_bytes=1_000)
        assert sim.counts(DATASET).arrived == 0

    @BOTH
    def test_no_answer_at_all(self, sim: Simulator, processed: bool) -> None:
        sim.faults.add(Fault(kind=FaultKind.HANG, processed=processed))
        connection = raw(sim)
        assert_kept(sim, FaultKind.HANG, processed)
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.close()

    def test_a_hang_ends_when_the_client_breaks_off(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.HANG))
        before = threading.active_count()
        connection = raw(sim)
        assert_kept(sim, FaultKind.HANG, processed=False)
        linger = struct.pack("ii", 1, 0)  # close() sends a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()
        assert eventually(lambda: threading.active_count() <= before)

    def test_a_hang_ends_when_its_time_is_over(self, sim: Simulator) -> None:
        with pytest.raises(ConnectionResetError):
            shaken(sim, FaultKind.HANG, seconds=0.05)

    def test_a_body_that_is_never_read(self, sim: Simulator) -> None:
        with pytest.raises(ConnectionError):
            shaken(sim, FaultKind.NEVER_READ, events=500, seconds=0.05)
        assert sim.counts(DATASET).arrived == 0

    def test_a_status_before_the_body_ends(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.EARLY_STATUS, status=413))
        with raw(sim) as connection:
            assert connection.recv(64).startswith(b"HTTP/1.1 413 ")
        assert sim.counts(DATASET).arrived == 0

    def test_an_idle_connection_is_closed_unannounced(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.CLOSE_IDLE))
        connection = http.client.HTTPConnection("127.0.0.1", sim.port, timeout=5)
        connection.request("GET", "/_simulator/health")
        assert connection.getresponse().read()
        body = json.dumps({"data": purchases(1), "access_token": TOKEN})
        head = {"Content-Type": "application/json"}
        connection.request("POST", f"/v26.0/{DATASET}/events", body, head)
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["connection"] is None
        response.read()
        time.sleep(0.05)
        connection.auto_open = 0  # http.client would quietly open another one
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            exchange(connection, "POST", f"/v26.0/{DATASET}/events", body, head)
        assert sim.counts(DATASET).received == 1

    def test_a_stop_ends_a_delay_without_an_answer(self) -> None:
        with Simulator() as sim:
            sim.faults.add(Fault(kind=FaultKind.DELAY, seconds=600))
            connection = raw(sim)
            time.sleep(0.05)
        with contextlib.suppress(ConnectionResetError):  # as good an end
            assert connection.recv(1) == b""
        connection.close()
        assert sim.counts(DATASET).arrived == 0

    def test_a_stop_wakes_whoever_waits(self) -> None:
        with Simulator() as sim:
            sim.faults.add(Fault(kind=FaultKind.HANG))
            connection = raw(sim)
            assert eventually(lambda: sim.counts(DATASET).arrived == 2)
        with contextlib.suppress(ConnectionResetError):  # as good an end
            assert connection.recv(1) == b""
        connection.close()


class TestReplacedAnswers:
    """H4, H7, H18, H21, H23."""

    @BOTH
    @pytest.mark.parametrize(("status", "code"), [(500, 1), (503, 2), (502, 1)])
    def test_metas_own_fault(
        self, sim: Simulator, status: int, code: int, processed: bool
    ) -> None:
        reply = shaken(sim, FaultKind.STATUS, status=status, processed=processed)
        assert reply.status == status
        assert reply.refusal == (code, None)
        assert reply.json["error"]["is_transient"] is True
        assert_kept(sim, FaultKind.STATUS, processed)

    @BOTH
    @pytest.mark.parametrize("status", [200, 502])
    def test_a_page_instead_of_json(
        self, sim: Simulator, status: int, processed: bool
    ) -> None:
        reply = shaken(sim, FaultKind.HTML, status=status, processed=processed)
        assert reply.status == status
        assert reply.headers["content-type"].startswith("text/html")
        assert reply.body.startswith(b"<!DOCTYPE html>")
        assert_kept(sim, FaultKind.HTML, processed)

    @BOTH
    def test_an_empty_body(self, sim: Simulator, processed: bool) -> None:
        reply = shaken(sim, FaultKind.EMPTY_BODY, processed=processed)
        assert (reply.status, reply.body) == (200, b"")
        assert_kept(sim, FaultKind.EMPTY_BODY, processed)

    def test_an_edge_that_is_read_can_fail_as_well(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.HTML, status=502, edge="debug_token"))
        assert call(sim, "GET", "/v26.0/debug_token").status == 502
        assert sim.stats()["requests"] == 0

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_a_redirect(self, sim: Simulator, status: int) -> None:
        url = "http://127.0.0.1:9/elsewhere"
        reply = shaken(sim, FaultKind.REDIRECT, status=status, location=url)
        assert (reply.status, reply.headers["location"]) == (status, url)
        assert_kept(sim, FaultKind.REDIRECT, processed=False)

    @pytest.mark.parametrize(
        "error", ["no", ["x"], None, {"code": "190"}, {"error": {"code": 190}}, {}]
    )
    def test_an_error_of_any_shape(self, sim: Simulator, error: object) -> None:
        reply = shaken(sim, FaultKind.ERROR_IS, value=error, status=400)
        assert reply.json == {"error": error}

    def test_more_than_anyone_reads(self, sim: Simulator) -> None:
        reply = shaken(sim, FaultKind.FLOOD, size=3_000_000)
        assert len(reply.body) >= 3_000_000

    def test_more_than_anyone_unpacks(self, sim: Simulator) -> None:
        reply = shaken(sim, FaultKind.FLOOD, size=20_000_000, gzip=True)
        assert reply.headers["content-encoding"] == "gzip"
        assert len(reply.body) < 100_000
        assert len(gzip.decompress(reply.body)) >= 20_000_000

    def test_a_flood_ends_when_the_client_goes(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.FLOOD, size=10**12))
        before = threading.active_count()
        connection = raw(sim)
        assert connection.recv(1_000)
        connection.close()
        assert eventually(lambda: threading.active_count() <= before)


class TestMetasNo:
    """H10, H13, H14, H18: told after a good token, instead of the rules' answer."""

    @pytest.mark.parametrize(
        ("fault", "status", "refusal"),
        [
            (Fault(kind=FaultKind.THROTTLE), 403, (4, None)),
            (Fault(kind=FaultKind.THROTTLE, code=17), 400, (17, None)),
            (Fault(kind=FaultKind.THROTTLE, code=613, status=429), 429, (613, None)),
            (
                Fault(kind=FaultKind.THROTTLE, code=80004, subcode=2446079),
                400,
                (80004, 2446079),
            ),
            (Fault(kind=FaultKind.THROTTLE, status=500), 500, (4, None)),
            (Fault(kind=FaultKind.TOKEN_REVOKED), 401, (190, 463)),
            (Fault(kind=FaultKind.TOKEN_REVOKED, status=500), 500, (190, 463)),
            (Fault(kind=FaultKind.TOKEN_REVOKED, subcode=460), 401, (190, 460)),
            (Fault(kind=FaultKind.PERMISSION), 403, (200, None)),
            (Fault(kind=FaultKind.DATASET), 400, (100, 33)),
            (Fault(kind=FaultKind.ERROR, code=987654), 400, (987654, None)),
            (Fault(kind=FaultKind.ERROR, subcode=2804003), 400, (100, 2804003)),
        ],
        ids=lambda value: value.kind if isinstance(value, Fault) else None,
    )
    def test_each_no_has_its_code(
        self, sim: Simulator, fault: Fault, status: int, refusal: object
    ) -> None:
        sim.faults.add(fault)
        reply = send(sim, *purchases(2))
        assert (reply.status, reply.refusal) == (status, refusal)
        assert sim.counts(DATASET).received == 0
        [receipt] = sim.arrived()[0].receipts
        assert (receipt.fault, receipt.code) == (fault.kind, reply.refusal[0])
        assert send(sim, *purchases(2)).status == 200

    @pytest.mark.parametrize("wait", [0, 5, 1_000_000, -1, "soon"])
    def test_the_wait_stands_in_the_usage_header(
        self, sim: Simulator, wait: object
    ) -> None:
        reply = shaken(sim, FaultKind.THROTTLE, wait_minutes=wait)
        usage = json.loads(reply.headers["x-business-use-case-usage"])
        [[entry]] = usage.values()
        assert entry["estimated_time_to_regain_access"] == wait
        assert entry["call_count"] == 100

    def test_a_bad_token_comes_before_the_throttle(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.THROTTLE))
        reply = call(sim, "POST", f"/v26.0/{DATASET}/events", b"{}")
        assert reply.refusal == (104, None)

    def test_other_edges_can_be_throttled_alone(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.THROTTLE, edge="dataset"))
        assert send(sim, *purchases(1)).status == 200
        path = f"/v26.0/{DATASET}?access_token={TOKEN}"
        assert call(sim, "GET", path).refusal == (4, None)
        assert call(sim, "GET", path).status == 200


class TestRefuseIf:
    """H15: refusals that follow the content, for splitting."""

    def test_only_batches_with_a_marked_event_are_refused(self, sim: Simulator) -> None:
        marked = frozenset({"order-3", "order-7"})
        sim.faults.add(
            Fault(
                kind=FaultKind.REFUSE_IF, event_ids=marked, count=None, subcode=2804003
            )
        )
        assert send(sim, *purchases(10)).refusal == (100, 2804003)
        assert send(sim, *purchases(3)).status == 200
        assert send(sim, *purchases(1, first=3)).refusal == (100, 2804003)
        assert send(sim, *purchases(3, first=4)).status == 200
        assert {event.event_id for event in sim.received()}.isdisjoint(marked)

    def test_it_strikes_together_with_another_fault(self, sim: Simulator) -> None:
        sim.faults.add(
            Fault(kind=FaultKind.REFUSE_IF, event_ids=frozenset({"order-0"})),
            Fault(kind=FaultKind.STATUS, processed=True),
        )
        assert send(sim, *purchases(2)).status == 500
        assert sim.counts(DATASET).received == 0


class TestSpoiltAnswers:
    """H6, H8, H9, H11, H12, H19, H24-H26. Meta took the events all the same."""

    def test_json_that_breaks_off(self, sim: Simulator) -> None:
        reply = shaken(sim, FaultKind.TRUNCATED_JSON)
        assert reply.status == 200
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            reply.json  # noqa: B018
        assert_kept(sim, FaultKind.TRUNCATED_JSON, processed=True)

    def test_a_content_length_that_promises_more(self, sim: Simulator) -> None:
        with pytest.raises(http.client.IncompleteRead):
            shaken(sim, FaultKind.WRONG_CONTENT_LENGTH, off_by=64)
        assert_kept(sim, FaultKind.WRONG_CONTENT_LENGTH, processed=True)

    def test_a_content_length_that_promises_less(self, sim: Simulator) -> None:
        reply = shaken(sim, FaultKind.WRONG_CONTENT_LENGTH, off_by=-10)
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            reply.json  # noqa: B018

    def test_chunks_that_break_off(self, sim: Simulator) -> None:
        with pytest.raises(http.client.IncompleteRead):
            shaken(sim, FaultKind.CHUNKED_CUT)
        assert_kept(sim, FaultKind.CHUNKED_CUT, processed=True)

    @pytest.mark.parametrize(("off_by", "told"), [(-1, 1), (-2, 0), (5, 7)])
    def test_events_received_is_off(
        self, sim: Simulator, off_by: int, told: int
    ) -> None:
        reply = shaken(sim, FaultKind.RECEIVED_OFF_BY, off_by=off_by)
        assert reply.json["events_received"] == told
        assert_kept(sim, FaultKind.RECEIVED_OFF_BY, processed=True)

    @pytest.mark.parametrize("told", ["2", None, 1e99, [2], True])
    def test_events_received_is_no_number(self, sim: Simulator, told: object) -> None:
        reply = shaken(sim, FaultKind.RECEIVED_IS, value=told)
        assert reply.json["events_received"] == told

    def test_events_received_is_not_a_number(self, sim: Simulator) -> None:
        reply = shaken(sim, FaultKind.RECEIVED_IS, value=float("nan"))
        assert b'"events_received": NaN' in reply.body

    def test_events_received_is_missing(self, sim: Simulator) -> None:
        reply = shaken(sim, FaultKind.RECEIVED_MISSING)
        assert "events_received" not in reply.json
        assert_kept(sim, FaultKind.RECEIVED_MISSING, processed=True)

    def test_messages_are_not_empty(self, sim: Simulator) -> None:
        reply = shaken(sim, FaultKind.MESSAGES, value=["Something is odd."])
        assert reply.json["messages"] == ["Something is odd."]
        assert reply.json["events_received"] == 2

    def test_a_refusal_keeps_its_shape_under_a_spoilt_receipt(
        self, sim: Simulator
    ) -> None:
        sim.faults.add(Fault(kind=FaultKind.RECEIVED_MISSING))
        assert send(sim, offline_purchase(event_time=1)).refusal == (100, 2804003)

    def test_headers_of_any_kind(self, sim: Simulator) -> None:
        reply = shaken(
            sim,
            FaultKind.HEADERS,
            headers=(
                ("Retry-After", "120"),
                ("Retry-After", "yesterday"),
                ("X-App-Usage", "{broken"),
            ),
        )
        assert reply.headers.get_all("retry-after") == ["120", "yesterday"]
        assert reply.headers.get_all("x-app-usage") == ["{broken"]
        assert reply.status == 200

    def test_headers_go_with_a_no_as_well(self, sim: Simulator) -> None:
        reply = shaken(sim, FaultKind.THROTTLE, headers=(("Retry-After", "3"),))
        assert (reply.refusal, reply.headers["retry-after"]) == ((4, None), "3")

    def test_a_delay_comes_before_the_answer(self, sim: Simulator) -> None:
        began = time.monotonic()
        assert shaken(sim, FaultKind.DELAY, seconds=0.1).status == 200
        assert time.monotonic() - began >= 0.1

    def test_a_client_that_goes_meanwhile_takes_nothing_back(
        self, sim: Simulator
    ) -> None:
        sim.faults.add(Fault(kind=FaultKind.DELAY, seconds=60))
        raw(sim).close()
        assert eventually(lambda: sim.counts(DATASET).processed == 2)

    def test_a_delay_goes_together_with_another_fault(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.DELAY, seconds=0.1))
        began = time.monotonic()
        assert shaken(sim, FaultKind.STATUS).status == 500
        assert time.monotonic() - began >= 0.1

    def test_an_answer_byte_by_byte(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.DRIP, seconds=0.001))
        with raw(sim) as connection:
            assert len(connection.recv(1_000)) < 20
        sim.faults.add(Fault(kind=FaultKind.DRIP, seconds=0.0001))
        assert send(sim, *purchases(2)).json["events_received"] == 2

    def test_interim_answers_before_the_real_one(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.INTERIM, size=20))
        with raw(sim) as connection:
            answer = b""
            while b"events_received" not in answer:
                answer += connection.recv(65_536)
        assert answer.count(b"HTTP/1.1 103 ") == 20
        assert answer.count(b"HTTP/1.1 200 ") == 1

    def test_a_proxy_that_delivers_twice(self, sim: Simulator) -> None:
        assert shaken(sim, FaultKind.TWICE).json["events_received"] == 2
        first, second = sim.received()[0].receipts
        assert (first.fault, second.fault) == (None, FaultKind.TWICE)
        assert sim.counts(DATASET).received == 4
        assert sim.counts(DATASET).processed == 2


class TestSchedule:
    """When a fault strikes."""

    @staticmethod
    def statuses(sim: Simulator, number: int) -> list[int]:
        return [send(sim, *purchases(1, first=n)).status for n in range(number)]

    def test_a_fault_strikes_as_often_as_it_says(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.STATUS, count=2))
        assert self.statuses(sim, 4) == [500, 500, 200, 200]

    def test_a_fault_can_wait_for_the_nth_request(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.STATUS, nth=3))
        assert self.statuses(sim, 4) == [200, 200, 500, 200]

    def test_a_fault_can_wait_for_an_event(self, sim: Simulator) -> None:
        sim.faults.add(
            Fault(kind=FaultKind.STATUS, event_ids=frozenset({"order-2", "order-9"}))
        )
        assert self.statuses(sim, 4) == [200, 200, 500, 200]

    def test_without_a_count_it_strikes_until_removed(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.STATUS, count=None))
        assert self.statuses(sim, 3) == [500, 500, 500]
        sim.faults.clear()
        assert self.statuses(sim, 1) == [200]

    def test_the_first_one_added_strikes_first(self, sim: Simulator) -> None:
        sim.faults.add(
            Fault(kind=FaultKind.STATUS, status=503),
            Fault(kind=FaultKind.STATUS, status=502),
        )
        assert self.statuses(sim, 3) == [503, 502, 200]

    def test_one_seed_gives_one_schedule(self, sim: Simulator) -> None:
        schedules = []
        for seed in (7, 7, 8):
            sim.faults.clear()
            sim.faults.add(
                Fault(kind=FaultKind.STATUS, count=None, probability=0.5, seed=seed)
            )
            schedules.append(self.statuses(sim, 24))
        assert schedules[0] == schedules[1]
        assert schedules[0] != schedules[2]
        assert set(schedules[0]) == {200, 500}

    def test_what_cannot_be_is_refused_when_it_is_made(self) -> None:
        with pytest.raises(ValueError, match="before the body"):
            Fault(kind=FaultKind.HANG_UP_MID_BODY, event_ids=frozenset({"x"}))
        with pytest.raises(ValueError, match="needs event_ids"):
            Fault(kind=FaultKind.REFUSE_IF)


def test_every_kind_is_tried_in_this_file() -> None:
    with open(__file__, encoding="utf-8") as file:
        source = file.read()
    assert [kind for kind in FaultKind if f"FaultKind.{kind.name}" not in source] == []
