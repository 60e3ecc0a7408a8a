"""The edges that are read: a dataset, its quality, a token's health."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.simulator.simulator_client import (
    DATASET,
    NOW,
    TOKEN,
    Reply,
    call,
    crm_stage,
    digest,
    offline_purchase,
    purchases,
    send,
    website_view,
)

from graph_simulator import Simulator, Token


def get(sim: Simulator, node: str, token: str = TOKEN, **query: str) -> Reply:
    return call(
        sim,
        "GET",
        f"/v26.0/{node}?{urlencode(query)}",
        headers={"Authorization": f"Bearer {token}"},
    )


class TestDataset:
    def test_the_fields_asked_for_come_and_the_id(self, sim: Simulator) -> None:
        reply = get(sim, DATASET, fields="name,is_consolidated_container,is_crm")
        assert reply.json == {
            "id": DATASET,
            "name": f"Dataset {DATASET}",
            "is_consolidated_container": True,
            "is_crm": False,
        }

    def test_it_was_last_fired_when_the_last_event_came(self, sim: Simulator) -> None:
        fields = "last_fired_time,is_crm,valid_entries"
        assert "last_fired_time" not in get(sim, DATASET, fields=fields).json
        send(sim, crm_stage())
        assert get(sim, DATASET, fields=fields).json == {
            "id": DATASET,
            "last_fired_time": "2026-11-20T19:40:00+0000",
            "is_crm": True,
            "valid_entries": 1,
        }

    def test_an_unknown_field_is_refused(self, sim: Simulator) -> None:
        assert get(sim, DATASET, fields="id,colour").refusal == (100, None)

    def test_a_dataset_that_is_not_shared_does_not_exist(self, sim: Simulator) -> None:
        assert get(sim, "5555555555").refusal == (100, 33)
        assert get(sim, "me").refusal == (100, 33)

    def test_reading_needs_a_token_and_get(self, sim: Simulator) -> None:
        assert get(sim, DATASET, token="unknown-token").refusal == (190, None)
        assert call(sim, "POST", f"/v26.0/{DATASET}").refusal == (100, None)

    def test_other_edges_are_unknown(self, sim: Simulator) -> None:
        assert get(sim, f"{DATASET}/stats").refusal == (2500, None)


class TestDebugToken:
    @pytest.fixture
    def guarded(self) -> Iterator[Simulator]:
        tokens = [
            Token(value=TOKEN),
            Token(value="one-dataset", datasets=frozenset({DATASET}), expires_at=2**31),
            Token(value="revoked-token", revoked=True),
        ]
        with Simulator(
            tokens=tokens, datasets=[DATASET, "9876543210"], now=lambda: NOW
        ) as sim:
            yield sim

    @staticmethod
    def debug(sim: Simulator, token: str) -> Any:
        return get(sim, "debug_token", input_token=token).json["data"]

    def test_a_good_token_names_its_scopes_and_datasets(
        self, guarded: Simulator
    ) -> None:
        data = self.debug(guarded, "one-dataset")
        assert data["is_valid"] is True
        assert data["type"] == "SYSTEM_USER"
        assert data["expires_at"] == 2**31
        assert data["scopes"] == ["ads_management", "ads_read"]
        assert data["granular_scopes"] == [
            {"scope": "ads_management", "target_ids": [DATASET]},
            {"scope": "ads_read", "target_ids": [DATASET]},
        ]

    def test_a_token_for_everything_names_every_dataset(
        self, guarded: Simulator
    ) -> None:
        scopes = self.debug(guarded, TOKEN)["granular_scopes"]
        assert scopes[0]["target_ids"] == [DATASET, "9876543210"]

    def test_a_bad_token_says_so(self, guarded: Simulator) -> None:
        revoked = self.debug(guarded, "revoked-token")
        assert revoked["is_valid"] is False
        assert revoked["error"]["subcode"] == 463
        unknown = self.debug(guarded, "unknown-token")
        assert unknown["is_valid"] is False
        assert unknown["error"]["code"] == 190

    def test_the_token_to_look_at_is_required(self, guarded: Simulator) -> None:
        assert get(guarded, "debug_token").refusal == (100, None)


class TestQuality:
    def test_web_events_show_the_share_of_each_match_key(self, sim: Simulator) -> None:
        with_email = website_view(event_id="view-2")
        with_email["user_data"]["em"] = digest("x")
        send(sim, website_view(), with_email, partner_agent="Capi_Airflow_1_0")
        fields = "web{event_name,event_match_quality{composite_score}}"
        for agent in ({}, {"agent_name": "capi_airflow"}):
            reply = get(
                sim, "dataset_quality", dataset_id=DATASET, fields=fields, **agent
            )
            [item] = reply.json["web"]
            assert item["event_name"] == "ViewContent"
            assert set(item) == {"event_name", "event_match_quality"}
            feedback = item["event_match_quality"]["match_key_feedback"]
            assert {"identifier": "email", "coverage": {"percentage": 50.0}} in feedback
        other = get(sim, "dataset_quality", dataset_id=DATASET, agent_name="other")
        assert other.json == {"web": []}

    def test_offline_events_have_a_shape_of_their_own(self, sim: Simulator) -> None:
        send(sim, *purchases(3), crm_stage())
        reply = get(
            sim,
            "dataset_quality",
            dataset_id=DATASET,
            fields="offline{event_name,composite,match_key,frequency,freshness}",
        )
        [item] = reply.json["offline"]
        assert item["event_name"] == "Purchase"
        assert item["match_key"]["coverage"] == {"email": 100.0, "phone": 100.0}
        assert 0 <= item["composite"]["score"] <= 10

    def test_both_groups_can_be_asked_at_once(self, sim: Simulator) -> None:
        send(sim, offline_purchase(), website_view())
        fields = "web{event_name},offline{event_name}"
        reply = get(sim, "dataset_quality", dataset_id=DATASET, fields=fields)
        assert reply.json == {
            "web": [{"event_name": "ViewContent"}],
            "offline": [{"event_name": "Purchase"}],
        }

    def test_what_cannot_be_read_has_its_own_code(self) -> None:
        pages_only = Token(value="pages-only", scopes=frozenset({"pages"}))
        with Simulator(tokens=[TOKEN, pages_only], datasets=[DATASET]) as sim:
            unknown = get(sim, "dataset_quality", dataset_id="5555555555")
            assert unknown.refusal == (2044055, None)
            denied = get(sim, "dataset_quality", "pages-only", dataset_id=DATASET)
            assert (denied.status, denied.refusal) == (403, (10, None))
            field = get(sim, "dataset_quality", dataset_id=DATASET, fields="app{x}")
            assert field.refusal == (100, None)
