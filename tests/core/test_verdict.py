"""What Meta's answer means: every code of the reference, and every answer that is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import strategies
from tests.strategies import SETTINGS

from meta_capi.verdict import (
    Accepted,
    Answer,
    NotSent,
    Receipt,
    Refused,
    Stopped,
    Throttled,
    Unknown,
    Verdict,
    read,
)

DAY = 86_400.0


def answer(status: int, body: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, named, sent)


def error(
    code: object, subcode: object = None, /, *, status: int = 400, **more: Any
) -> Answer:
    """Meta's envelope, in the words of the token's owner."""
    members = {
        "message": "(#100) Ungültiger Parameter",
        "type": "OAuthException",
        "code": code,
        "error_subcode": subcode,
        "fbtrace_id": "AbC-1_2",
    }
    return answer(status, {"error": members | more})


def judged(given: Answer, events: int = 2) -> Verdict:
    return read(given, events=events)


@pytest.mark.matrix("H6", "H8", "H9")
class TestSuccess:
    """HTTP 200 with `events_received`, the number of events sent (reference, 10.1)."""

    def test_as_many_events_as_were_sent_are_accepted(self) -> None:
        given = answer(200, {"events_received": 2, "messages": [], "fbtrace_id": "AbC"})
        assert judged(given) == Accepted(
            Receipt(http_status=200, fbtrace_id="AbC", events_received=2, messages=0)
        )

    def test_an_answer_without_messages_is_one_too(self) -> None:
        assert isinstance(judged(answer(200, {"events_received": 2})), Accepted)

    def test_messages_are_counted_and_not_kept(self) -> None:
        given = answer(200, {"events_received": 2, "messages": ["jane@doe", "x"]})
        verdict = judged(given)
        assert isinstance(verdict, Accepted)
        assert verdict.receipt.messages == 2
        assert "jane" not in repr(verdict)

    @pytest.mark.parametrize("received", [0, 1, 3, -1, 10**30, -(10**30)])
    def test_another_number_of_events_is_in_doubt(self, received: int) -> None:
        verdict = judged(answer(200, {"events_received": received}))
        assert isinstance(verdict, Unknown)
        assert verdict.reason == "answer.count"
        # The ledger's column has 32 bits.
        fits = abs(received) < 2**31
        assert verdict.receipt.events_received == (received if fits else None)

    @pytest.mark.parametrize("body", [
        b'{"events_received":"2"}', b'{"events_received":null}', b"{}",
        b'{"events_received":NaN}', b'{"events_received":1e99}',
        b'{"events_received":2.0}', b'{"events_received":[2]}',
        b'{"events_received":2', b'{"events_rec', b"", b"2", b"null", b'"ok"', b"[]",
        b'[{"events_received":2}]', b'{"data":{"events_received":2}}',
        b"<html><body>Please sign in</body></html>", b"\xff\xfe\x00", b"\x00" * 9,
        b'{"error":"events_received"}', b'{"error":{}}', b'{"error":{"code":1}}',
        b"[" * 100_000, b'{"a":' * 50_000, b'{"events_received":' + b"9" * 5_000 + b"}",
    ])  # fmt: skip
    def test_an_answer_without_that_number_is_in_doubt(self, body: bytes) -> None:
        verdict = judged(answer(200, body))
        assert isinstance(verdict, Unknown)
        assert verdict.reason == "answer.unclear"

    def test_true_is_no_number_of_events(self) -> None:
        verdict = read(answer(200, b'{"events_received":true}'), events=1)
        assert isinstance(verdict, Unknown)

    @pytest.mark.parametrize("status", [201, 202, 204, 206, 400, 500, 502, 100, 0])
    def test_the_right_number_under_another_status_is_in_doubt(
        self, status: int
    ) -> None:
        verdict = judged(answer(status, {"events_received": 2}))
        assert isinstance(verdict, Unknown)

    def test_an_error_beside_the_right_number_is_an_error(self) -> None:
        body = {"events_received": 2, "error": {"code": 100, "error_subcode": 2804003}}
        assert isinstance(judged(answer(200, body)), Refused)


# Reference, 10.3: code 100. All are refusals of the data.
SUBCODES = [
    2804003, 2804004, 2804008, 2804009, 2804010, 2804016, 2804019, 2804023, 2804030,
    2804043, 2804050, 2804063, 2804064, 2804066, 2804069, 2804075, 2804079, 2804087,
    2804116, 2804118, 2804132, 2804133, 2804001, 2804007, 2804014, 2804017, 2804048,
    None, 1234567,
]  # fmt: skip

# Reference, 10.4, and reliability, 2.8: code, subcode, HTTP status, verdict.
CODES: list[tuple[int, int | None, int, type[Verdict]]] = [
    (100, 33, 400, Stopped), (100, 34, 404, Stopped),
    (100, 38, 400, Stopped), (100, 2044055, 400, Stopped),
    *((190, subcode, status, Stopped)
      for subcode in (None, 458, 459, 460, 463, 464, 467, 492)
      for status in (400, 401, 500)),
    (102, None, 400, Stopped), (102, None, 401, Stopped), (104, None, 400, Stopped),
    (10, None, 403, Stopped), (3, None, 400, Stopped), (3, None, 500, Stopped),
    (200, None, 403, Stopped), (250, None, 403, Stopped), (299, None, 403, Stopped),
    (294, None, 400, Stopped), (803, None, 404, Stopped), (803, None, 400, Stopped),
    (2500, None, 400, Stopped), (2635, None, 400, Stopped), (368, None, 400, Stopped),
    (368, None, 500, Stopped),
    (1, None, 500, Unknown), (1, None, 400, Unknown), (2, None, 503, Unknown),
    (2, None, 200, Unknown), (-1, None, 500, Unknown), (-3, 99, 400, Unknown),
    (5000, None, 500, Unknown), (5000, None, 400, Unknown), (21009, None, 400, Unknown),
    (506, None, 400, Refused), (987654, None, 400, Refused), (99, None, 422, Refused),
    (987654, None, 500, Unknown), (100, 2804003, 503, Unknown),
    *((code, None, status, Throttled)
      for code in (4, 17, 32, 341, 613, *range(80_000, 80_015))
      for status in (200, 400, 403, 429, 500)),
    (4, 1504022, 403, Throttled), (4, 1504039, 403, Throttled),
    (17, 2446079, 400, Throttled), (613, 1487742, 400, Throttled),
    (613, 5044001, 400, Throttled),
]  # fmt: skip


@pytest.mark.matrix("H13", "H14", "H18")
class TestErrors:
    """Codes decide; sentences are localised, and the status is a hint at most."""

    @pytest.mark.parametrize("subcode", SUBCODES)
    @pytest.mark.parametrize("status", [200, 400, 403])
    def test_every_subcode_of_an_invalid_parameter_is_a_refusal(
        self, subcode: int | None, status: int
    ) -> None:
        verdict = judged(error(100, subcode, status=status, is_transient=False))
        assert isinstance(verdict, Refused)
        assert verdict.reason == (
            "meta.100" if subcode is None else f"meta.100.{subcode}"
        )
        assert verdict.receipt == Receipt(
            http_status=status, code=100, subcode=subcode, fbtrace_id="AbC-1_2"
        )

    @pytest.mark.parametrize(("code", "subcode", "status", "kind"), CODES)
    def test_every_other_code_means_what_the_reference_says(
        self, code: int, subcode: int | None, status: int, kind: type[Verdict]
    ) -> None:
        verdict = judged(error(code, subcode, status=status))
        assert type(verdict) is kind
        assert verdict.receipt.code == code
        assert verdict.receipt.subcode == subcode

    def test_subcodes_of_the_dataset_are_read_beside_code_100_only(self) -> None:
        assert isinstance(judged(error(506, 33)), Refused)

    @pytest.mark.parametrize("code", [100, 506, 987654])
    def test_what_meta_calls_transient_is_in_doubt(self, code: int) -> None:
        assert isinstance(judged(error(code, is_transient=True)), Unknown)

    @pytest.mark.parametrize("word", ["true", 1, None, False, [True]])
    def test_only_true_is_transient(self, word: object) -> None:
        assert isinstance(judged(error(100, is_transient=word)), Refused)

    def test_a_transient_throttle_is_a_throttle_and_a_transient_stop_a_stop(
        self,
    ) -> None:
        assert isinstance(judged(error(4, is_transient=True)), Throttled)
        assert isinstance(judged(error(190, is_transient=True)), Stopped)

    @pytest.mark.parametrize(("code", "subcode", "kind"), [
        ("100", "2804003", Refused), ("190", None, Stopped), ("4", None, Throttled),
        ("-1", None, Unknown), ("", None, Unknown), ("OAuth", None, Unknown),
        (None, None, Unknown), (100.0, None, Unknown), (True, None, Unknown),
        ([100], None, Unknown), ({"code": 100}, None, Unknown), (10**30, None, Unknown),
        ("9" * 5_000, None, Unknown), (float("nan"), None, Unknown),
        (100, 10**30, Refused), (100, "x", Refused), (100, [33], Refused),
    ])  # fmt: skip
    def test_codes_of_odd_types_are_read_or_are_in_doubt(
        self, code: object, subcode: object, kind: type[Verdict]
    ) -> None:
        assert type(judged(error(code, subcode))) is kind

    @pytest.mark.parametrize("given", [
        {"error": [{"code": 190}]}, {"error": "190"}, {"error": None}, {"error": 190},
        {"error": {"error": {"code": 190}}}, [{"error": {"code": 190}}],
        {"Error": {"code": 190}},
    ])  # fmt: skip
    def test_an_error_in_another_place_is_in_doubt(self, given: object) -> None:
        assert isinstance(judged(answer(400, given)), Unknown)

    @pytest.mark.parametrize("trace", [
        "a b", "x" * 65, "", "jane@doe.example", 5, None, ["a"], "trace\n", "<b>", "é",
    ])  # fmt: skip
    def test_a_trace_that_is_none_is_not_kept(self, trace: object) -> None:
        verdict = judged(error(100, 2804003, fbtrace_id=trace))
        assert verdict.receipt.fbtrace_id is None


@pytest.mark.matrix("H7", "H21")
class TestAnswersThatAreNotMetas:
    """Reliability, 2.8 and 3.2: proxies, portals, gateways."""

    HTML = b"<html><h1>It works</h1></html>"

    @pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
    @pytest.mark.parametrize("body", [b"", HTML, b"{}"])
    def test_a_redirect_stops_the_run(self, status: int, body: bytes) -> None:
        verdict = judged(answer(status, body, location="http://elsewhere.example"))
        assert isinstance(verdict, Stopped)
        assert "elsewhere" not in repr(verdict)

    @pytest.mark.parametrize("status", [401, 403, 404, 405])
    def test_a_no_without_graph_error_stops_the_run(self, status: int) -> None:
        assert isinstance(judged(answer(status, self.HTML)), Stopped)
        assert isinstance(judged(answer(status, b"")), Stopped)

    @pytest.mark.parametrize(
        "status", [400, 408, 418, 422, 451, 500, 502, 503, 504, 520]
    )
    @pytest.mark.parametrize("body", [b"", HTML, b"{}", b'{"message":"no"}'])
    def test_any_other_status_without_graph_error_is_in_doubt(
        self, status: int, body: bytes
    ) -> None:
        assert isinstance(judged(answer(status, body)), Unknown)

    @pytest.mark.parametrize("status", [401, 403, 404, 405])
    def test_a_no_in_another_ones_json_is_in_doubt(self, status: int) -> None:
        assert isinstance(judged(answer(status, {"message": "denied"})), Unknown)

    def test_too_large_a_body_is_refused_so_that_it_is_split(self) -> None:
        verdict = judged(answer(413, self.HTML))
        assert isinstance(verdict, Refused)
        assert verdict.reason == "meta.413"
        assert verdict.blamed is None

    def test_too_many_requests_are_a_throttle_whatever_the_body(self) -> None:
        for body in (b"", self.HTML, b"{}", b'{"error":{"code":100}}'):
            assert isinstance(judged(answer(429, body)), Throttled)


def business(minutes: object) -> str:
    """A usage header, with the time that Meta names in minutes."""
    inner = {"type": "ads_management", "call_count": 35, "total_cputime": 40.9,
             "total_time": 62, "estimated_time_to_regain_access": minutes}  # fmt: skip
    return json.dumps({"1234567890": [inner]})


@pytest.mark.matrix("H10", "H11")
class TestThrottles:
    """Meta's own wait, in seconds, and never longer than a day."""

    @pytest.mark.parametrize(("minutes", "seconds"), [
        (0, None), (5, 300.0), (0.5, 30.0), (10**6, DAY), (10**400, DAY), (1e308, DAY),
        (-5, None), ("5", None), (None, None), (True, None), ([5], None),
        (float("nan"), None), (float("inf"), DAY), (float("-inf"), None),
    ])  # fmt: skip
    def test_the_wait_is_the_time_to_regain_access(
        self, minutes: object, seconds: float | None
    ) -> None:
        header = {"X-Business-Use-Case-Usage": business(minutes)}
        for each in (error(80_004), error(4, status=403), answer(429, b"")):
            verdict = judged(Answer(each.status, header, each.body))
            assert isinstance(verdict, Throttled)
            assert verdict.wait_seconds == seconds

    @pytest.mark.parametrize(("after", "seconds"), [
        ("120", 120.0), (" 7 ", 7.0), ("0", 0.0), ("31536000", DAY), ("9" * 40, None),
        ("Fri, 20 Nov 2026 18:40:00 GMT", None), ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("-5", None), ("1.5", None), ("soon", None), ("5, 10", None), ("", None),
    ])  # fmt: skip
    def test_the_wait_is_retry_after_where_that_is_seconds(
        self, after: str, seconds: float | None
    ) -> None:
        verdict = judged(Answer(429, {"Retry-After": after}, b""))
        assert isinstance(verdict, Throttled)
        assert verdict.wait_seconds == seconds

    def test_of_several_waits_the_longest_counts(self) -> None:
        two = json.dumps({"1": [{"estimated_time_to_regain_access": 1}],
                          "2": [{"estimated_time_to_regain_access": 3}]})  # fmt: skip
        for after, seconds in (("20", 180.0), ("200", 200.0)):
            headers = {"retry-after": after, "x-business-use-case-usage": two}
            verdict = judged(Answer(429, headers, b""))
            assert isinstance(verdict, Throttled)
            assert verdict.wait_seconds == seconds

    def test_without_a_word_of_meta_no_wait_is_named(self) -> None:
        verdict = judged(error(613))
        assert isinstance(verdict, Throttled)
        assert verdict.wait_seconds is None


@pytest.mark.matrix("H12")
class TestUsage:
    @pytest.mark.parametrize(("name", "value", "percent"), [
        ("x-app-usage", '{"call_count":82,"total_time":40,"total_cputime":35}', 82),
        ("X-App-Usage", '{"call_count":1,"total_time":2,"total_cputime":94.9}', 94),
        ("x-business-use-case-usage", business(0), 62),
        ("x-ad-account-usage", '{"acc_id_util_pct":78,"reset_time_duration":30}', 78),
        ("x-app-usage", '{"call_count":100}', 100), ("x-app-usage", "{}", None),
        ("x-app-usage", '{"call_count":1e99}', 1_000), ("x-app-usage", "{", None),
        ("x-app-usage", '{"call_count":' + "9" * 400 + "}", 1_000),
        ("x-app-usage", '{"call_count":-1}', None), ("x-app-usage", "82", None),
        ("x-app-usage", '{"call_count":true}', None), ("x-app-usage", "\ud800", None),
        ("x-app-usage", '{"call_count":NaN}', None), ("x-page-usage", "{}", None),
        ("x-app-usage", '{"call_count":"82"}', None),
        ("x-app-usage", " " * 1_000_000 + '{"call_count":82}', None),
        ("x-app-usage", "[" * 800 + "]" * 800, None),
        ("x-app-usage", "[" * 19_000, None),
    ])  # fmt: skip
    def test_the_highest_use_is_kept_in_percent(
        self, name: str, value: str, percent: int | None
    ) -> None:
        for status, body in ((200, b'{"events_received":2}'), (400, b""), (302, b"")):
            verdict = judged(Answer(status, {name: value}, body))
            assert verdict.receipt.usage_percent == percent


class TestBlame:
    """Only 2804019 says which event is guilty; a hint, verified by sending it alone."""

    @pytest.mark.parametrize(("members", "blamed"), [
        ({"message": "Invalid parameter: $['data'][17]['user_data']"}, 17),
        ({"message": "data[3].event_time is missing"}, 3),
        ({"message": "$['data'][0]['user_data']['em'][1]"}, 0),
        ({"error_data": {"blame_field_specs": [["data", 12, "event_time"]]}}, 12),
        ({"error_data": '{"blame_field_specs":[["data[999]"]]}'}, 999),
        ({"error_data": {"blame_field_specs": [["data", "4", "value"]]}}, 4),
        ({"message": "Invalid parameter"}, None), ({"message": None}, None),
        ({"message": ["data[3]"]}, None), ({"error_data": None}, None),
        ({"message": "data[123456]"}, None), ({"message": "metadata of 7"}, None),
    ])  # fmt: skip
    def test_the_position_is_found_where_meta_names_it(
        self, members: dict[str, Any], blamed: int | None
    ) -> None:
        verdict = judged(error(100, 2804019, **members))
        assert isinstance(verdict, Refused)
        assert verdict.blamed == blamed

    def test_blame_too_deep_to_write_down_is_none(self) -> None:
        """Near the interpreter's limit JSON can be read and not be written."""
        for depth in range(600, 1_100):
            deep = b"[" * depth + b"]" * depth
            body = b'{"error":{"code":100,"error_data":' + deep + b"}}"
            verdict = judged(answer(400, body))
            assert isinstance(verdict, Unknown) or verdict == Refused(
                Receipt(http_status=400, code=100)
            )


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from([1, 2, 4, 33, 100, 190, 2804003, 10**400, "100", 80_004]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([
            "error", "code", "error_subcode", "events_received", "messages", "message",
            "fbtrace_id", "is_transient", "error_data", "call_count", "data",
            "estimated_time_to_regain_access",
        ]) | st.text(max_size=3), inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
_BODIES = (
    st.binary(max_size=80)
    | _JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"error": _JSON}).map(lambda e: json.dumps(e).encode())
    | st.fixed_dictionaries({"events_received": st.integers(0, 3)}).map(
        lambda value: json.dumps(value).encode()
    )
)
_HEADERS = st.dictionaries(
    st.sampled_from([
        "x-app-usage", "X-Business-Use-Case-Usage", "x-ad-account-usage", "Retry-After",
        "content-type",
    ]),
    strategies.hostile_texts | _JSON.map(json.dumps) | st.integers().map(str),
)  # fmt: skip
_STATUSES = st.sampled_from([200, 200, 400, 429, 500]) | st.integers(-1, 1_000)


class TestAnyAnswer:
    @SETTINGS
    @given(status=_STATUSES, headers=_HEADERS, body=_BODIES, events=st.integers(1, 3))
    def test_has_a_verdict_and_only_the_exact_count_is_success(
        self, status: int, headers: dict[str, str], body: bytes, events: int
    ) -> None:
        verdict = read(Answer(status, headers, body), events=events)
        receipt = verdict.receipt
        for name in Receipt.__slots__:
            number = getattr(receipt, name)
            if name == "fbtrace_id":
                assert number is None or len(number) <= 64
            else:  # the ledger's columns are integers of 32 bits
                assert number is None or (type(number) is int and abs(number) < 2**31)
        if isinstance(verdict, Accepted):
            assert status == 200
            count = json.loads(body)["events_received"]
            assert type(count) is int
            assert count == events
        if isinstance(verdict, Throttled):
            assert verdict.wait_seconds is None or 0 <= verdict.wait_seconds <= DAY
        assert not isinstance(verdict, NotSent)

    @SETTINGS
    @given(
        status=_STATUSES,
        token=st.text("qxzj", min_size=12, max_size=16),
        place=st.sampled_from([
            "message", "error_user_title", "error_user_msg", "type", "error_data", "code",
            "error_subcode", "is_transient",
        ]),
        code=st.sampled_from([100, 190, 4, 1, None]),
    )  # fmt: skip
    def test_repeats_nothing_of_what_was_said(
        self, status: int, token: str, place: str, code: int | None
    ) -> None:
        said = f"data[1] {token}@pii.example"
        told = error(code, status=status, **{place: said})
        beside = answer(
            status, {"events_received": said, "messages": [said], "fbtrace_id": said}
        )
        page = answer(status, said.encode(), x_app_usage=said, retry_after=said)
        for each in (told, beside, page):
            assert token not in repr(judged(each))
            assert token not in repr(each)
