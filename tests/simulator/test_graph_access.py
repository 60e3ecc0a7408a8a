"""Tokens: where they stand, what they open, in which order they are looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from tests.simulator.simulator_client import (
    DATASET,
    NOW,
    TOKEN,
    Reply,
    call,
    offline_purchase,
    send,
)

from graph_simulator import Simulator, Token

OTHER_DATASET = "9876543210"
EVENTS_PATH = f"/v26.0/{DATASET}/events"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def guarded() -> Iterator[Simulator]:
    """Two datasets, and tokens with everything that a token can lack."""
    tokens = [
        Token(value=TOKEN),
        Token(value="expired-token", expires_at=int(NOW) - 1),
        Token(value="revoked-token", revoked=True),
        Token(value="other-business", datasets=frozenset({OTHER_DATASET})),
        Token(value="pages-only", scopes=frozenset({"pages_read_engagement"})),
        Token(value="read-only", scopes=frozenset({"ads_read"})),
        Token(value="events-manager", scopes=frozenset({"read_ads_dataset_quality"})),
    ]
    with Simulator(
        tokens=tokens, datasets=[DATASET, OTHER_DATASET], now=lambda: NOW
    ) as simulator:
        yield simulator


def post(
    sim: Simulator,
    *,
    query: str | None = None,
    bearer: str | None = None,
    member: object = None,
    path: str = EVENTS_PATH,
) -> Reply:
    body: dict[str, object] = {"data": [offline_purchase()]}
    if member is not None:
        body["access_token"] = member
    headers = dict(JSON)
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    if query is not None:
        path = f"{path}?{urlencode({'access_token': query})}"
    return call(sim, "POST", path, json.dumps(body).encode(), headers)


def test_each_of_the_three_places_will_do(guarded: Simulator) -> None:
    assert post(guarded, query=TOKEN).status == 200
    assert post(guarded, bearer=TOKEN).status == 200
    assert post(guarded, member=TOKEN).status == 200
    assert post(guarded, query=TOKEN, bearer=TOKEN, member=TOKEN).status == 200


def test_two_different_tokens_are_one_too_many(guarded: Simulator) -> None:
    for reply in (
        post(guarded, query=TOKEN, bearer="events-manager"),
        post(guarded, bearer=TOKEN, member="events-manager"),
        post(guarded, query=TOKEN, member="events-manager"),
    ):
        assert (reply.status, reply.refusal) == (400, (100, None))


@pytest.mark.parametrize(
    ("bearer", "status", "refusal"),
    [
        (None, 400, (104, None)),
        ("short", 401, (190, None)),
        ("not a token at all", 401, (190, None)),
        ("unknown-token", 401, (190, None)),
        ("expired-token", 401, (190, 463)),
        ("revoked-token", 401, (190, 463)),
        ("other-business", 400, (100, 33)),
        ("pages-only", 403, (200, None)),
        ("read-only", 403, (200, None)),
        ("events-manager", 200, None),
    ],
)
def test_a_token_that_does_not_open_has_its_own_code(
    guarded: Simulator, bearer: str | None, status: int, refusal: object
) -> None:
    reply = post(guarded, bearer=bearer)
    assert reply.status == status
    if refusal is not None:
        assert reply.refusal == refusal
        assert guarded.counts(DATASET).received == 0


def test_a_token_that_is_no_text_is_malformed(guarded: Simulator) -> None:
    assert post(guarded, member=["x"]).refusal == (190, None)


def test_a_dataset_that_does_not_exist_is_no_object(guarded: Simulator) -> None:
    reply = post(guarded, bearer=TOKEN, path="/v26.0/5555555555/events")
    assert (reply.status, reply.refusal) == (400, (100, 33))


def test_without_configuration_every_well_shaped_token_is_good() -> None:
    with Simulator(now=lambda: NOW) as sim:
        assert post(sim, bearer="anything-goes").status == 200
        assert post(sim, bearer="short").refusal == (190, None)


class TestOrder:
    """Section 10.7: path, method, token, throttle, data, events."""

    def test_the_path_comes_before_the_method(self, sim: Simulator) -> None:
        assert call(sim, "GET", f"/{DATASET}/events").refusal == (2500, None)

    def test_a_malformed_id_comes_before_the_token(self, sim: Simulator) -> None:
        assert call(sim, "POST", "/v26.0/me/events").refusal == (100, 33)

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    def test_the_method_comes_before_the_token(
        self, sim: Simulator, method: str
    ) -> None:
        reply = call(sim, method, EVENTS_PATH)
        assert (reply.status, reply.refusal) == (400, (100, None))

    def test_the_token_comes_before_the_body(self, sim: Simulator) -> None:
        reply = call(sim, "POST", EVENTS_PATH, b"{broken", JSON)
        assert reply.refusal == (104, None)

    def test_the_body_comes_before_the_events(self, sim: Simulator) -> None:
        headers = {**JSON, "Authorization": f"Bearer {TOKEN}"}
        reply = call(sim, "POST", EVENTS_PATH, b"{broken", headers)
        assert reply.refusal == (100, None)


class TestEnvelope:
    """Section 10.2."""

    def test_a_refusal_has_every_member_that_was_seen(self, sim: Simulator) -> None:
        event = offline_purchase()
        event["user_data"]["em"] = ["plain"]
        reply = send(sim, offline_purchase(), event)
        error = reply.json["error"]
        assert reply.status == 400
        assert error["message"] == "Invalid parameter"
        assert error["type"] == "OAuthException"
        assert error["is_transient"] is False
        assert error["error_user_title"]
        assert "$['data'][1]['user_data']['em']" in error["error_user_msg"]
        assert error["error_data"] == {
            "blame_field_specs": [["data[1][user_data][em]"]]
        }
        assert error["fbtrace_id"] == reply.headers["x-fb-trace-id"]

    def test_error_data_may_be_text(self, observed: Simulator) -> None:
        error = send(observed, {}).json["error"]
        assert json.loads(error["error_data"]) == {
            "blame_field_specs": [["data[0][event_name]"]]
        }

    def test_other_subcodes_say_nothing_about_the_place(self, sim: Simulator) -> None:
        error = send(sim, offline_purchase(event_time=1)).json["error"]
        assert error["error_subcode"] == 2804003
        assert "error_data" not in error
        assert "$" not in error["error_user_msg"]

    def test_no_word_of_the_request_comes_back(self, sim: Simulator) -> None:
        event = offline_purchase(action_source="canary-1")
        event["user_data"]["em"] = ["canary-2"]
        assert b"canary" not in send(sim, event).body

    def test_every_answer_carries_usage_and_version(self, sim: Simulator) -> None:
        for reply in (send(sim, offline_purchase()), send(sim, {})):
            usage = json.loads(reply.headers["x-business-use-case-usage"])
            [[entry]] = usage.values()
            assert entry["estimated_time_to_regain_access"] == 0
            assert json.loads(reply.headers["x-app-usage"])["call_count"] < 75
            assert json.loads(reply.headers["x-ad-account-usage"])["acc_id_util_pct"]
            assert reply.headers["facebook-api-version"] == "v26.0"
