"""The forms in which real clients send (reference 1.3), through a real socket."""

from __future__ import annotations

import gzip
import json
from urllib.parse import urlencode

import pytest
from tests.simulator.simulator_client import (
    DATASET,
    NOW,
    TOKEN,
    Reply,
    call,
    crm_stage,
    offline_purchase,
    send,
)

from graph_simulator import Simulator, Switches

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


def post(sim: Simulator, body: bytes, content_type: str, **headers: str) -> Reply:
    return call(
        sim,
        "POST",
        f"/v26.0/{DATASET}/events",
        body,
        {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": content_type,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
    )


def assert_taken(sim: Simulator, reply: Reply, number: int = 2) -> None:
    assert reply.status == 200, reply.body
    assert reply.json["events_received"] == number
    assert reply.json["messages"] == []
    assert reply.json["fbtrace_id"]
    assert sim.events(DATASET) == EVENTS[:number]


EVENTS = [offline_purchase(), crm_stage()]


def test_e1_json_with_objects(sim: Simulator) -> None:
    body = json.dumps({"data": EVENTS}).encode()
    assert_taken(sim, post(sim, body, "application/json; charset=utf-8"))


def test_e1_json_with_texts_as_the_reference_page_declares_them(
    sim: Simulator,
) -> None:
    body = json.dumps({"data": [json.dumps(event) for event in EVENTS]}).encode()
    assert_taken(sim, post(sim, body, JSON))


def test_e2_a_form_with_json_texts_as_the_python_sdk_sends_it(sim: Simulator) -> None:
    data = json.dumps([json.dumps(event) for event in EVENTS])
    body = urlencode({"data": data, "partner_agent": "capi_airflow_1_0"}).encode()
    assert_taken(sim, post(sim, body, FORM))


def test_e3_a_form_with_objects(sim: Simulator) -> None:
    body = urlencode({"data": json.dumps(EVENTS), "access_token": TOKEN}).encode()
    assert_taken(sim, post(sim, body, FORM))


def test_e4_multipart_as_curl_sends_it(sim: Simulator) -> None:
    parts = [
        f"--xyz\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n"
        for name, value in (
            ('"other"; filename="x"', "ignored"),
            ('"data"', json.dumps(EVENTS)),
            ('"access_token"', TOKEN),
        )
    ]
    parts.append("--xyz\r\n\r\na part without a name\r\n")
    body = ("".join(parts) + "--xyz--\r\n").encode()
    assert_taken(sim, post(sim, body, 'multipart/form-data; boundary="xyz"'))


def test_other_scripts_arrive_as_they_were_sent(sim: Simulator) -> None:
    event = crm_stage(event_name="Qualifié 정")
    body = json.dumps({"data": [event]}, ensure_ascii=False).encode()
    assert post(sim, body, JSON).status == 200
    assert sim.events(DATASET)[0]["event_name"] == "Qualifié 정"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"data": [', JSON),
        (b"[]", JSON),
        (b'{"data": NaN}', JSON),
        (b'{"data": "\xff"}', JSON),
        (b"[" * 200_000, JSON),
        (b'{"data": ' + b"9" * 5_000 + b"}", JSON),
        (b"data=%ff", FORM),
        (b"x", "multipart/form-data"),
        (b"<events/>", "application/xml"),
    ],
    ids=range(9),
)
def test_what_cannot_be_read_is_refused_whole(
    sim: Simulator, body: bytes, content_type: str
) -> None:
    reply = post(sim, body, content_type)
    assert (reply.status, reply.refusal) == (400, (100, None))
    assert sim.counts(DATASET).received == 0


def test_a_text_that_is_no_event_is_refused_in_its_place(sim: Simulator) -> None:
    body = json.dumps({"data": [json.dumps(EVENTS[0]), "not json"]}).encode()
    reply = post(sim, body, JSON)
    assert reply.refusal == (100, 2804019)
    blame = reply.json["error"]["error_data"]["blame_field_specs"]
    assert blame == [["data[1]"]]


def test_an_empty_body_has_no_data(sim: Simulator) -> None:
    assert post(sim, b"", JSON).refusal == (100, 2804019)


def test_gzip_is_unknown_unless_switched_on(sim: Simulator) -> None:
    body = gzip.compress(json.dumps({"data": EVENTS}).encode())
    reply = post(sim, body, JSON, Content_Encoding="gzip")
    assert (reply.status, reply.refusal) == (400, (100, None))
    with Simulator(
        switches=Switches(accept_gzip=True), now=lambda: NOW, keep_events=True
    ) as unpacking:
        assert_taken(unpacking, post(unpacking, body, JSON, Content_Encoding="gzip"))
        broken = post(unpacking, body[:50], JSON, Content_Encoding="gzip")
        assert broken.refusal == (100, None)


def test_the_receipt_counts_the_events_of_the_request(sim: Simulator) -> None:
    assert send(sim, *EVENTS).json["events_received"] == 2
