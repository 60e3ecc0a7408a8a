"""Batches lose nothing and fit; the same events are the same bytes."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import SETTINGS

from meta_capi.errors import ConfigurationError
from meta_capi.payload import Batch, Envelope, OwedEvent, cut

_EVENTS = st.lists(
    st.dictionaries(
        st.text(max_size=5), st.text(max_size=9) | st.integers(), max_size=3
    ),
    max_size=6,
).map(
    lambda events: [
        OwedEvent(f"ord-{n}", json.dumps(event).encode())
        for n, event in enumerate(events)
    ]
)


class TestCut:
    """Up to 1,000 events and our own limit of bytes in one request."""

    @SETTINGS
    @given(
        sizes=st.lists(st.integers(0, 120), max_size=60),
        most_events=st.integers(1, 12),
        most_bytes=st.integers(1, 300),
    )
    def test_every_event_is_in_one_batch_in_its_place_and_each_batch_fits(
        self, sizes: list[int], most_events: int, most_bytes: int
    ) -> None:
        ranges = list(cut(sizes, most_events=most_events, most_bytes=most_bytes))
        assert [row for part in ranges for row in part] == list(range(len(sizes)))
        for part in ranges:
            written = sum(sizes[row] + 1 for row in part)
            assert 1 <= len(part) <= most_events
            assert written <= most_bytes or len(part) == 1

    @SETTINGS
    @given(
        sizes=st.lists(st.integers(0, 120), max_size=60),
        most_events=st.integers(1, 12),
        most_bytes=st.integers(1, 300),
    )
    def test_no_batch_could_have_taken_the_event_after_it(
        self, sizes: list[int], most_events: int, most_bytes: int
    ) -> None:
        ranges = cut(sizes, most_events=most_events, most_bytes=most_bytes)
        for part, after in pairwise(ranges):
            with_next = [*part, after[0]]
            assert len(with_next) > most_events or (
                sum(sizes[row] + 1 for row in with_next) > most_bytes
            )

    @pytest.mark.matrix("S11")
    @pytest.mark.parametrize(("events", "batches"), [
        (0, []), (1, [1]), (999, [999]), (1_000, [1_000]), (1_001, [1_000, 1]),
        (2_500, [1_000, 1_000, 500]),
    ])  # fmt: skip
    def test_a_thousand_is_the_limit_and_not_one_less(
        self, events: int, batches: list[int]
    ) -> None:
        ranges = cut([900] * events, most_events=1_000, most_bytes=4_000_000)
        assert [len(part) for part in ranges] == batches

    def test_an_event_larger_than_a_request_goes_alone(self) -> None:
        ranges = list(cut([10, 500, 10], most_events=9, most_bytes=100))
        assert ranges == [range(1), range(1, 2), range(2, 3)]

    @SETTINGS
    @given(_EVENTS)
    def test_a_batchs_size_is_what_its_events_take_in_the_body(
        self, events: list[OwedEvent]
    ) -> None:
        batch = Batch(1, 1, 0, tuple(events))
        empty = len(Envelope().wrap([]))
        assert len(batch) == len(events)
        # One comma less than events.
        assert batch.size == len(Envelope().wrap(events)) - empty + bool(events)


class TestWrap:
    @SETTINGS
    @given(events=_EVENTS, tag=st.none() | st.text(st.characters(), max_size=9))
    def test_the_body_holds_the_events_as_they_are_and_what_stands_around_them(
        self, events: list[OwedEvent], tag: str | None
    ) -> None:
        envelope = Envelope(
            partner_agent="capi_airflow_1_0",
            test_event_code="TEST12345",
            upload_tag=tag,
        )
        body = envelope.wrap(events)
        around = {"partner_agent": "capi_airflow_1_0", "test_event_code": "TEST12345"}
        if tag:
            around["upload_tag"] = tag
        data = [json.loads(event.body) for event in events]
        assert json.loads(body) == {"data": data} | around
        assert b",".join(event.body for event in events) in body
        assert envelope.wrap(list(events)) == body

    def test_nothing_is_said_where_nothing_is_set(self) -> None:
        event = OwedEvent("ord-1", b'{"event_name":"Purchase"}')
        assert Envelope().wrap([event, event]) == (
            b'{"data":[{"event_name":"Purchase"},{"event_name":"Purchase"}]}'
        )
        assert Envelope(partner_agent="").wrap([]) == b'{"data":[]}'

    def test_the_bytes_of_an_event_are_in_no_repr(self) -> None:
        event = OwedEvent("ord-1", b'{"em":["f618787598b5"]}')
        assert "f618787598b5" not in repr(Batch(1, 1, 0, (event,)))
        assert "ord-1" in repr(event)


class TestEnvelope:
    """What a connection can say wrongly is said to the person, before anything is sent."""

    @pytest.mark.parametrize("agent", ["x1", "-" * 3, "a", "a" * 23, "é" * 4, "ab c",
                                       "capi\n", 'a"b', "12345"])  # fmt: skip
    def test_a_wrong_partner_agent_is_refused(self, agent: str) -> None:
        with pytest.raises(ConfigurationError, match="partner agent"):
            Envelope(partner_agent=agent)

    @pytest.mark.parametrize("agent", ["ab", "a" * 22, "capi_airflow_1.0", "1-a-b"])
    def test_a_right_partner_agent_is_taken(self, agent: str) -> None:
        assert Envelope(partner_agent=agent).partner_agent == agent

    @pytest.mark.parametrize(
        "code", ["", " ", "abc", "TEST 1", "TEST1\n", "x" * 41, 'T"EST', "Täst"]
    )
    def test_a_wrong_test_event_code_is_refused(self, code: str) -> None:
        with pytest.raises(ConfigurationError, match="test event code"):
            Envelope(test_event_code=code)
