"""The short path says what the full rules say, and leaves the same books behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulator.simulator_client import (
    DATASET,
    EVENT_TIME,
    NOW,
    TOKEN,
    crm_stage,
    digest,
    offline_purchase,
    purchases,
)

from graph_simulator import Profile, Switches
from graph_simulator.access import Doorkeeper
from graph_simulator.faults import Faults
from graph_simulator.graph import Graph, read_request
from graph_simulator.journal import Journal
from graph_simulator.orderly import Batch, Sieve
from graph_simulator.store import Store
from meta_capi import spec

DAY = 86_400


class LongWay(Sieve):
    """Sends every batch through the full rules."""

    def read(self, body: bytes) -> Batch | None:
        return None


class Side:
    """A Graph API without sockets, whose journal can be read."""

    def __init__(self, sieve: Sieve, switches: Switches, journal: Path) -> None:
        self._journal = journal
        self.store = Store(switches, journal=Journal(journal))
        self.graph = Graph(
            switches=switches,
            doorkeeper=Doorkeeper([TOKEN], [DATASET]),
            store=self.store,
            now=lambda: NOW,
        )
        self.graph.sieve = sieve

    def post(self, body: bytes) -> tuple[int, object]:
        """Return the status and the answer, without what is drawn by lot."""
        request = read_request(
            "POST",
            f"/v26.0/{DATASET}/events",
            {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"},
            body,
            accept_gzip=False,
            sieve=self.graph.sieve,
        )
        answer = self.graph.answer(request, Faults().visit("events"))
        told = json.loads(answer.body)
        told.get("error", told).pop("fbtrace_id")
        return answer.status, told

    def books(self) -> dict[str, object]:
        """Return all that is remembered, in its order."""
        return {
            "counts": self.store.counts(DATASET),
            "arrived": list(self.store.arrived()),
            "key sets": [
                (lane, list(sets.items()))
                for lane, sets in self.store.key_sets(DATASET).items()
            ],
            "last": self.store.last_received(DATASET),
            "notes": self.graph.notes(),
            "refusals": self.graph.refusals(),
            "journal": [
                json.loads(line) for line in self._journal.read_bytes().splitlines()
            ],
        }


@contextmanager
def both(switches: Switches) -> Iterator[tuple[Side, Side]]:
    with TemporaryDirectory() as place:
        sides = (
            Side(Sieve(), switches, Path(place, "short")),
            Side(LongWay(), switches, Path(place, "long")),
        )
        yield sides
        for side in sides:
            side.store.close()


def assert_one_verdict(switches: Switches, *bodies: bytes) -> None:
    with both(switches) as (short, full):
        for body in bodies:
            assert short.post(body) == full.post(body)
        assert short.books() == full.books()


def text(*events: object, **members: object) -> bytes:
    return json.dumps({"data": list(events), **members}, separators=(",", ":")).encode()


def chat_order() -> dict[str, Any]:
    """Return an event with every optional member of the short path."""
    return {
        "event_name": "Order fulfilled",
        "event_time": EVENT_TIME,
        "event_id": "chat-1",
        "action_source": "chat",
        "user_data": {
            "em": [digest("a"), digest("b")],
            "ph": f"{digest('c')}.AQYCAQIA",
            "external_id": [digest("d")],
        },
        "custom_data": {
            "value": 0, "currency": "EUR", "order_id": "Zażółć-1", "num_items": 2,
            "content_type": "product", "content_ids": ["a"], "status": "paid",
            "predicted_ltv": 1.5, "delivery_category": "curbside",
            "contents": [{"id": "a", "quantity": 2, "title": "Größe “L”"}],
        },
        "opt_out": False,
        "data_processing_options": ["LDU"],
        "data_processing_options_country": 0,
        "data_processing_options_state": 0,
    }  # fmt: skip


def walk_in() -> dict[str, Any]:
    """Return a sale without order number: its customer is its fingerprint."""
    sale = offline_purchase()
    del sale["custom_data"]["order_id"]
    return sale


MAKERS = (offline_purchase, crm_stage, chat_order, walk_in)

ODD: tuple[Any, ...] = (
    None, "", " ", "x", "0", "é", "\ud800", "crm", "Purchase", "USD", "usd", "XXX",
    "website", "app", "physical_store", "system_generated", "email", True, False, 0, 1,
    -1, -0.0, 1.5, 1e15, 10**14, 10**15, 10**16 + 7, 10**17, 10**30, float("inf"), [],
    [None], [""], ["LDU"], ["LDU", "LDU"], {}, {"id": "a"}, [{"id": "a", "quantity": 1}],
    [{"id": 7, "quantity": 1}], [{"id": "a", "quantity": -1}],
    digest("z"), [digest("z")], digest("z").upper(), digest("z")[:63], digest("z") + "a",
    digest("z") + ".AQ", digest("z") + ".A", spec.EMPTY_STRING_SHA256,
    [digest("y"), digest("z")], [digest("y"), None], '"' + digest("z"), "1" * 16,
    *(int(NOW) + off for off in (60, 61, -7 * DAY, -7 * DAY - 1, -62 * DAY)),
    int(NOW) - 62 * DAY - 1, str(EVENT_TIME),
)  # fmt: skip
NEW_KEYS = (
    "lead_id", "event_source_url", "opt_out", "colour", "em", "am", "f5first", "ge",
    "client_user_agent", "fbc", "external_id", "currency", "value", "order_id",
    "item_number", "partner_agent", "access_token", "test_event_code",
)  # fmt: skip

# Looks the same to whoever takes one hex digit for the other.
OTHER_HEX = str.maketrans("abcdef", "bcdefa")


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """Draw a body: orderly events, some members of which are no longer orderly."""
    events = draw(
        st.lists(st.sampled_from(MAKERS).map(lambda make: make()), max_size=4)
    )
    body: Any = {"data": events, "partner_agent": "meta_capi_1_0"}
    for _ in range(draw(st.integers(0, 3))):
        holder = draw(st.sampled_from(list(holders(body))))
        if isinstance(holder, list):
            holder.append(copy.deepcopy(draw(st.sampled_from(ODD))))
            continue
        key = draw(st.sampled_from([*holder, *NEW_KEYS]))
        if key in holder and draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return json.dumps(
        body,
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])),
    ).encode("utf-8", "surrogatepass")


def holders(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for member in value.values() if isinstance(value, dict) else value:
            yield from holders(member)


SWITCHES = st.builds(
    Switches,
    profile=st.sampled_from(Profile),
    strict_hash=st.booleans(),
    strict_seven_days=st.booleans(),
    value_needs_currency=st.booleans(),
)


def spoilt(event: dict[str, Any]) -> Iterator[bytes]:
    """Yield the event with a member that is odd, new, misnamed or gone, one at a time."""
    for holder in list(holders(event)):
        whole = holder.copy()
        named = isinstance(holder, dict)
        for key in list(holder) if named else range(len(holder)):
            for odd in ODD:
                holder[key] = odd
                yield text(event)
            holder[key] = whole[key]
            if named:
                holder[key.translate(OTHER_HEX)] = holder.pop(key)
                yield text(event)
                holder.clear()
                holder.update(whole)
            member = holder.pop(key)
            yield text(event)
            holder.insert(key, member) if not named else holder.update(whole)
        for key in [key for key in NEW_KEYS if named and key not in whole]:
            for odd in (None, "x", 10**15, [digest("new")]):
                holder[key] = odd
                yield text(event)
            del holder[key]


class TestOneVerdict:
    @pytest.mark.parametrize(
        ("make", "switches"),
        [
            (offline_purchase, Switches()),
            (offline_purchase, Switches(strict_seven_days=True, strict_hash=False)),
            (crm_stage, Switches()),
            (crm_stage, Switches(profile=Profile.OBSERVED)),
            (chat_order, Switches()),
            (chat_order, Switches(value_needs_currency=False)),
        ],
    )
    def test_each_member_may_be_odd(self, make: Any, switches: Switches) -> None:
        assert_one_verdict(switches, text(make()), *spoilt(make()))

    @given(first=batches(), second=batches(), switches=SWITCHES)
    def test_any_members_get_one_verdict_and_one_entry_in_the_books(
        self, first: bytes, second: bytes, switches: Switches
    ) -> None:
        assert_one_verdict(switches, first, second, first)

    @given(data=st.data(), make=st.sampled_from(MAKERS))
    def test_any_byte_may_be_another(self, data: st.DataObject, make: Any) -> None:
        body = bytearray(text(make(), make()))
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(body) - 1))
            body[place : place + data.draw(st.integers(0, 2))] = data.draw(
                st.sampled_from([b"", b'"', b"0", b"e", b"F", b",", b"\\", b"\xff"])
                | st.binary(max_size=2)
            )
        assert_one_verdict(Switches(), bytes(body))

    @pytest.mark.parametrize(
        ("piece", "instead"),
        [
            (b'"user_data":{', b'"user_data":{"em":"x"},"user_data":{'),
            (b'"user_data":{', b'"user_data":"\xff","user_data":{'),
            (b'"user_data":{', b'"user_data":{"lead_id":123456789012345e,'),
            (b'"user_data":{', b'"user_data":{"lead_id":12345678901234e1,'),
            (b'"em":[', b'"em":7,"em":['),
            (b'"em"', b'"\\u0065m"'),
            (b'"data":[', b'"data":[],"data":['),
            (b":1234567890123456", b": 1234567890123456"),
            (b":1234567890123456", b":12345678901234e1"),
            (b":1234567890123456", b":0234567890123456"),
            (b":1234567890123456", b":1234567890123456,"),
            (b":1234567890123456", b':1,"lead_id":1234567890123456'),
        ],
    )
    def test_other_spellings_get_one_verdict(
        self, piece: bytes, instead: bytes
    ) -> None:
        body = text(crm_stage())
        assert piece in body
        # The first request teaches the shape, the second one abuses it.
        assert_one_verdict(Switches(), body, body.replace(piece, instead))

    @pytest.mark.parametrize("number", [1_000, 1_001])
    def test_a_request_holds_a_thousand_events(self, number: int) -> None:
        body = text(*purchases(number))
        assert (Sieve().read(body) is None) is (number > 1_000)
        assert_one_verdict(Switches(), body, body)

    def test_each_member_beside_the_events_may_be_odd(self) -> None:
        members = ("partner_agent", "upload_tag", "trace", "colour", "data")
        odd = (*ODD, "meta_capi_1_0", "a" * 23, "12", "a1")
        bodies = [text(crm_stage(), **{m: value}) for m in members for value in odd]
        assert_one_verdict(Switches(), *bodies)

    def test_a_token_in_the_body_is_read_on_both_ways(self) -> None:
        for token in (TOKEN, "EAAB-another-token", "bad"):
            assert_one_verdict(Switches(), text(crm_stage(), access_token=token))


class TestSieve:
    @pytest.mark.parametrize("make", MAKERS)
    def test_orderly_events_take_the_short_path(self, make: Any) -> None:
        event = make()
        batch = Sieve().read(text(event, partner_agent="meta_capi_1_0"))
        assert batch is not None
        assert [row.event_id for row in batch.rows] == [event["event_id"]]

    def test_other_digests_of_one_shape_do_not_ask_the_rules_again(self) -> None:
        sieve = Sieve()
        for n in range(50):
            stage = crm_stage(user_data={"lead_id": 10**15 + n, "em": [digest(str(n))]})
            assert sieve.read(text(stage)) is not None
        assert len(sieve.shapes) == 1
