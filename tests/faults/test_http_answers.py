"""H1-H18 but the splits: what Meta answers, and what the ledger makes of it."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import product
from typing import Any

import pytest
from tests.faults.books_http import (
    calm,
    line_to,
    outcomes,
    send,
    the_books_agree,
)
from tests.ledger.conftest import DATASET, Bench

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Patience
from meta_capi.errors import StoppedError
from meta_capi.ledger import ResendPolicy

FEW = range(5)
DAY = 86_401


def strike(bench: Bench, kind: FaultKind, **details: Any) -> None:
    """Arm a fault until the calm."""
    details.setdefault("count", None)
    bench.simulator.faults.add(Fault(kind=kind, **details))


class TestNoAnswerToTrust:
    """Whether Meta processed it is unknown: in doubt, sent again, never believed."""

    @pytest.mark.matrix("H1", "H2", "H4", "H6", "H7")
    @pytest.mark.parametrize("fault", [
        {"kind": FaultKind.HANG_UP_AFTER_READING, "processed": True},
        {"kind": FaultKind.HANG_UP_AFTER_READING, "processed": False},
        {"kind": FaultKind.STATUS, "status": 500, "processed": True},
        {"kind": FaultKind.STATUS, "status": 500, "processed": False},
        {"kind": FaultKind.STATUS, "status": 503, "processed": True},
        {"kind": FaultKind.HTML, "status": 502, "processed": True},
        {"kind": FaultKind.HTML, "status": 200, "processed": False},
        {"kind": FaultKind.EMPTY_BODY, "status": 200, "processed": False},
        {"kind": FaultKind.TRUNCATED_JSON},
        {"kind": FaultKind.WRONG_CONTENT_LENGTH, "off_by": 10},
        {"kind": FaultKind.WRONG_CONTENT_LENGTH, "off_by": -10},
        {"kind": FaultKind.CHUNKED_CUT},
    ], ids=lambda fault: "-".join(map(str, fault.values())))  # fmt: skip
    def test_it_is_in_doubt_and_then_sent_again(
        self, bench: Bench, fault: dict[str, Any]
    ) -> None:
        strike(bench, **fault)
        rows = bench.rows(*FEW)

        send(bench, rows)

        assert bench.states() == {"in_doubt": 5}
        assert outcomes(bench) == {"unknown": 4}
        assert calm(bench, rows) == {"accepted": 5}
        assert bench.simulator.counts(DATASET).processed == 5
        the_books_agree(bench, FEW, requests=5)

    @pytest.mark.matrix("H8")
    def test_another_count_than_that_of_the_events_is_believed_by_nobody(
        self, bench: Bench
    ) -> None:
        bench.patience = Patience(first_pause=0.0, tries=1)
        counts = [
            0, 2, -1, "1", "n", None, float("nan"), float("inf"), 1e99, 1.0, True, [1],
            {"1": 1}, 10**400, ...,
        ]  # fmt: skip
        rows = [bench.rows(number) for number in range(len(counts))]
        for each, count in zip(rows, counts, strict=True):
            missing = count is ...
            kind = FaultKind.RECEIVED_MISSING if missing else FaultKind.RECEIVED_IS
            strike(bench, kind, value=None if missing else count)
            send(bench, each)
            bench.simulator.faults.clear()

        assert bench.states() == {"in_doubt": len(counts)}
        # Whole numbers that Python can write are counts, and wrong ones.
        assert bench.reasons() == {"answer.count": 4, "answer.unclear": 11}
        assert calm(bench, *rows) == {"accepted": len(counts)}
        assert bench.simulator.counts(DATASET).processed == len(counts)
        the_books_agree(bench, range(len(counts)), requests=2 * len(counts))

    @pytest.mark.matrix("H5")
    def test_a_black_out_beyond_the_window_ends_in_doubt_and_no_repeat(
        self, bench: Bench
    ) -> None:
        """By the real clock: a window of a second, of Meta's two."""
        bench.policy = ResendPolicy(resend=True, window_seconds=1, most_resends=99)
        bench.patience = Patience(first_pause=0.0, doubt_pause=0.0, tries=2)
        strike(bench, FaultKind.STATUS, status=500, processed=True)
        rows, meta = bench.rows(*FEW), bench.simulator
        for _ in range(3):
            send(bench, rows)
        assert meta.graph.store.requests == 6, "it is sent again inside the window"
        # The last worker would ask on and on, and the window closes meanwhile.
        bench.patience = Patience(first_pause=0.0, doubt_pause=0.0, tries=900)
        send(bench, rows)
        sent = meta.graph.store.requests
        assert 6 < sent < 906

        meta.faults.clear()
        send(bench, rows)
        bench.ledger.close_doubt(bench.feed.feed, DATASET, bench.policy)
        send(bench, rows)

        assert meta.graph.store.requests == sent
        assert bench.states() == {"in_doubt": 5}
        assert bench.reasons() == {"doubt.window_over": 5}
        the_books_agree(bench, FEW, requests=sent, window=2)


class TestMessages:
    @pytest.mark.matrix("H9")
    def test_messages_beside_the_right_count_are_counted_and_not_kept(
        self, bench: Bench
    ) -> None:
        told = ["buyer3@shop.example looks odd", {"em": "buyer4@shop.example"}]
        strike(bench, FaultKind.MESSAGES, value=told)

        send(bench, bench.rows(*FEW))

        assert bench.states() == {"accepted": 5}
        [(messages, row)] = bench.sql("select messages, a::text from capi.attempts a")
        assert messages == 2
        assert "buyer" not in row
        the_books_agree(bench, FEW, requests=1)


def until(seconds: float) -> str:
    """Return an HTTP date so far ahead."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


class TestThrottles:
    """Meta's *later* proves that nothing was processed, and is obeyed within bounds."""

    WAITS = (None, 0, 5, 10**6, -7, "soon", [3], 1e308)

    @pytest.mark.matrix("H10")
    def test_every_code_under_every_status_is_a_throttle_and_costs_no_row(
        self, bench: Bench
    ) -> None:
        cases = list(
            zip(
                [*product((4, 17, 32, 613, 80004), (400, 403, 429, 500))] * 2,
                self.WAITS * 5,
                strict=True,
            )
        )
        named = {5: 300, 10**6: 86_400, 1e308: 86_400}
        rows = [bench.rows(number) for number in range(len(cases))]
        for each, ((code, status), wait) in zip(rows, cases, strict=True):
            strike(
                bench, FaultKind.THROTTLE, count=1, code=code, status=status,
                wait_minutes=wait,
            )  # fmt: skip
            bench.waits.clear()
            send(bench, each)
            said = bench.sql("""
                select outcome::text, code, http_status, wait_seconds from capi.attempts
                order by batch_id desc, seq limit 1
            """)
            expected = named.get(wait, 0) if isinstance(wait, int | float) else 0
            assert said == [("throttled", code, status, expected)]
            assert sum(bench.waits) <= bench.patience.longest_wait

        assert bench.states() == {"accepted": 30, "pending": 10}
        assert bench.reasons() == {"throttled": 10}, "a day is left to a later run"
        assert calm(bench, *rows, after=DAY) == {"accepted": 40}
        assert set(bench.receipts().values()) == {1}
        the_books_agree(bench, range(40), requests=2 * 40)

    @pytest.mark.matrix("H10")
    def test_meta_that_asks_for_ever_to_wait_is_left_for_a_later_run(
        self, bench: Bench
    ) -> None:
        strike(bench, FaultKind.THROTTLE)
        rows = bench.rows(*FEW)

        send(bench, rows)

        assert bench.states() == {"pending": 5}
        assert bench.reasons() == {"throttled": 5}
        assert sum(bench.waits) <= bench.patience.longest_wait
        the_books_agree(bench, FEW, requests=12)
        assert calm(bench, rows) == {"accepted": 5}
        the_books_agree(bench, FEW, requests=13)

    @pytest.mark.matrix("H11")
    def test_retry_after_is_obeyed_where_it_makes_sense_and_is_bounded(
        self, bench: Bench
    ) -> None:
        forms = [
            (["120"], 120, 120), (["0"], 0, 0), ([until(200)], 100, 200),
            ([until(-3_600)], 0, 0), ([str(365 * 86_400)], 86_400, 86_400),
            ([until(365 * 86_400)], 86_400, 86_400), (["garbage"], 0, 0), (["-9"], 0, 0),
            (["9" * 60], 0, 0), (["5", "250"], 0, 250), (["\x01\xff"], 0, 0),
            (["Thu, 99 Foo 2026"], 0, 0), ([""], 0, 0), ([until(60), "x"], 0, 60),
        ]  # fmt: skip
        rows = [bench.rows(number) for number in range(len(forms))]
        for each, (values, least, most) in zip(rows, forms, strict=True):
            headers = tuple(("retry-after", value) for value in values)
            strike(bench, FaultKind.THROTTLE, count=1, headers=headers)
            bench.waits.clear()
            send(bench, each)
            [(waited,)] = bench.sql("""
                select wait_seconds from capi.attempts where outcome = 'throttled'
                order by started_at desc limit 1
            """)
            assert least <= waited <= most, values
            assert sum(bench.waits) <= bench.patience.longest_wait

        assert bench.states() == {"accepted": len(forms) - 2, "pending": 2}
        assert calm(bench, *rows, after=DAY) == {"accepted": len(forms)}
        assert set(bench.receipts().values()) == {1}
        the_books_agree(bench, range(len(forms)), requests=2 * len(forms))


class TestUsage:
    @pytest.mark.matrix("H12")
    def test_usage_is_written_down_and_costs_no_answer(self, bench: Bench) -> None:
        """It does not slow the worker down: Meta's throttle codes do."""
        usages = [
            *((json.dumps({"call_count": each, "total_time": 1}), each)
              for each in (74, 75, 94, 95, 100)),
            ('{"call_count":1e999}', 1_000),
            # The other two headers of the simulator say 3 %.
            ('{"call_count":', 3), ("\x00\xff", 3), ("[" * 15_000, 3),
        ]  # fmt: skip
        for number, (usage, _) in enumerate(usages):
            headers = (("x-app-usage", usage),)
            strike(bench, FaultKind.HEADERS, count=1, headers=headers)
            send(bench, bench.rows(number))

        assert bench.states() == {"accepted": len(usages)}
        percents = bench.sql(
            "select usage_percent from capi.attempts order by batch_id"
        )
        assert percents == [(percent,) for _, percent in usages]
        assert bench.waits == []
        the_books_agree(bench, range(len(usages)), requests=len(usages))

    @pytest.mark.matrix("H12")
    @pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
    def test_headers_of_a_megabyte_make_no_answer_and_no_crash(
        self, bench: Bench, many: bool
    ) -> None:
        one = (("x-app-usage", "9" * 1_000_000),)
        headers = tuple((f"x-{n}", "9" * 2_000) for n in range(500)) if many else one
        strike(bench, FaultKind.HEADERS, headers=headers, count=1)

        send(bench, bench.rows(*FEW))

        assert bench.states() == {"accepted": 5}
        assert outcomes(bench) == {"unknown": 1, "accepted": 1}
        assert bench.simulator.counts(DATASET).processed == 5
        the_books_agree(bench, FEW, requests=2)


class TestStops:
    """A no to the token or the dataset: one request, nobody to blame."""

    @pytest.mark.matrix("H13")
    @pytest.mark.parametrize("status", [400, 401, 500])
    def test_a_revoked_token_costs_one_request_and_no_row(
        self, bench: Bench, status: int
    ) -> None:
        bench.tune(requests_in_flight=1)
        strike(bench, FaultKind.TOKEN_REVOKED, status=status)
        slices = [bench.rows(*range(start, start + 10)) for start in range(0, 50, 10)]

        with pytest.raises(StoppedError, match="token"):
            send(bench, *slices)

        the_books_agree(bench, range(50), requests=1)
        assert bench.states() == {"pending": 50}
        assert bench.receipts().total() == 0
        assert calm(bench, *slices) == {"accepted": 50}
        the_books_agree(bench, range(50), requests=1 + 5)

    @pytest.mark.matrix("H13")
    def test_after_the_token_is_replaced_everything_goes_out_once(
        self, bench: Bench
    ) -> None:
        rows = bench.rows(*FEW)
        old = line_to(bench.simulator.url, token="EAABrevoked")
        with pytest.raises(StoppedError, match="token"):
            send(bench, rows, line=old)

        send(bench, rows)

        assert bench.states() == {"accepted": 5}
        assert set(bench.receipts().values()) == {1}
        the_books_agree(bench, FEW, requests=2)

    @pytest.mark.matrix("H14")
    def test_a_dataset_out_of_reach_costs_one_request_and_no_split(
        self, bench: Bench
    ) -> None:
        bench.tune(requests_in_flight=1)
        strike(bench, FaultKind.DATASET)
        rows = bench.rows(*range(1_000))

        with pytest.raises(StoppedError, match="dataset"):
            send(bench, rows)

        the_books_agree(bench, range(1_000), requests=1)
        assert bench.sql("select count(*) from capi.batches") == [(1,)]
        assert bench.states() == {"pending": 1_000}


class TestOddErrors:
    """Whatever stands in `error` is classified; nothing is thrown, nothing is lost."""

    @pytest.mark.matrix("H18")
    @pytest.mark.parametrize("status", [200, 400, 500])
    def test_no_error_without_a_number_accuses_a_row(
        self, bench: Bench, status: int
    ) -> None:
        bench.patience = Patience(first_pause=0.0, tries=1)
        odd = [
            None, "190", 190, [], [{"code": 190}], {}, {"code": None}, {"code": "x"},
            {"code": [100]}, {"code": {"code": 100}}, {"code": 1e99}, {"code": True},
            {"code": float("nan")}, {"error": {"code": 190}}, {"code": -3},
            {"code": 100.0, "error_subcode": 33}, {"code": "9" * 5_000},
            {"message": {"code": 190}}, [[[]]],
        ]  # fmt: skip
        slices = []
        for number, value in enumerate(odd):
            strike(bench, FaultKind.ERROR_IS, status=status, value=value)
            slices.append(bench.rows(number))
            send(bench, slices[-1])
            bench.simulator.faults.clear()

        assert bench.states() == {"in_doubt": len(odd)}
        assert set(outcomes(bench)) == {"unknown"}
        assert calm(bench, *slices) == {"accepted": len(odd)}
        the_books_agree(bench, range(len(odd)), requests=2 * len(odd))

    @pytest.mark.matrix("H18")
    def test_a_code_in_digits_counts_and_an_unknown_one_is_a_no(
        self, bench: Bench
    ) -> None:
        odd = [
            ({"code": "190"}, "stopped"), ({"code": "4"}, "throttled"),
            ({"code": "100", "error_subcode": "33"}, "stopped"),
            ({"code": 987654}, "refused"), ({"code": "2"}, "unknown"),
            ({"code": 100, "error_subcode": 10**30}, "refused"),
            ({"code": 100, "error_subcode": []}, "refused"),
        ]  # fmt: skip
        rows = [bench.rows(2 * number, 2 * number + 1) for number in range(len(odd))]
        for each, (value, outcome) in zip(rows, odd, strict=True):
            strike(bench, FaultKind.ERROR_IS, value=value, count=1)
            stops = (
                pytest.raises(StoppedError) if outcome == "stopped" else nullcontext()
            )
            with stops:
                send(bench, each)
            [(first,)] = bench.sql("""
                select outcome::text from capi.attempts join capi.batches using (batch_id)
                where depth = 0 order by batch_id desc, seq limit 1
            """)
            assert first == outcome, value

        assert calm(bench, *rows) == {"accepted": 2 * len(odd)}
        assert set(bench.receipts().values()) == {1}
        the_books_agree(bench, range(2 * len(odd)), requests=3 * len(odd))


def test_an_innocent_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """No fault of this file makes anybody log a token, a row or a piece of an answer."""
    caplog.set_level("DEBUG", "urllib3")
    bad = (("garbage buyer1@shop.example", "EAABtest"), ("x", "y"))
    strike(bench, FaultKind.HEADERS, headers=bad, count=1)
    strike(bench, FaultKind.HANG_UP_AFTER_READING, count=1)

    send(bench, bench.rows(1), bench.rows(2))
    strike(bench, FaultKind.REDIRECT, location="http://x.example/?EAABtest")
    with pytest.raises(StoppedError):
        send(bench, bench.rows(3))

    assert "/events" in caplog.text, "urllib3 was not heard"
    assert not re.search(r"buyer|EAAB|x\.example", caplog.text)
