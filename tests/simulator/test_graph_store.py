"""Counting and de-duplication (reference 9 and 5), and the journal under it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulator.simulator_client import (
    DATASET,
    EVENT_TIME,
    NOW,
    crm_stage,
    digest,
    offline_purchase,
    purchases,
    send,
    website_view,
    without,
)

from graph_simulator import Counts, Fault, FaultKind, Simulator, Switches
from graph_simulator.journal import Journal
from graph_simulator.records import Arrival, Receipt, Row, rows_of
from graph_simulator.store import Store

HOUR = 3_600


def take(store: Store, *events: dict[str, Any], at: float = NOW) -> Counts:
    receipt = Receipt(at=at, request=store.next_request(), processed=True)
    store.take(DATASET, rows_of(events), receipt)
    return store.counts(DATASET)


class TestEventIds:
    def test_the_same_name_and_id_count_once(self) -> None:
        store = Store(Switches())
        take(store, crm_stage())
        counts = take(store, crm_stage())
        assert (counts.received, counts.deduplicated, counts.processed) == (2, 1, 1)
        assert counts.repeated_event_ids == 1

    def test_in_one_request_too(self) -> None:
        assert take(Store(Switches()), crm_stage(), crm_stage()).deduplicated == 1

    def test_another_name_or_dataset_is_another_event(self) -> None:
        store = Store(Switches())
        take(store, crm_stage())
        assert take(store, crm_stage(event_name="Converted")).deduplicated == 0
        receipt = Receipt(at=NOW, request=3, processed=True)
        store.take("9876543210", rows_of([crm_stage()]), receipt)
        assert store.counts("9876543210").deduplicated == 0

    def test_the_window_is_48_hours_from_the_first_receipt(self) -> None:
        store = Store(Switches())
        take(store, crm_stage())
        assert take(store, crm_stage(), at=NOW + 47 * HOUR).deduplicated == 1
        assert take(store, crm_stage(), at=NOW + 48 * HOUR).deduplicated == 2
        # Not from the last one; and what comes after begins a new window.
        assert take(store, crm_stage(), at=NOW + 49 * HOUR).deduplicated == 2
        assert take(store, crm_stage(), at=NOW + 50 * HOUR).deduplicated == 3

    def test_what_was_lost_opens_no_window(self) -> None:
        store = Store(Switches())
        lost = Receipt(at=NOW, request=1, processed=False, fault="hang")
        event = crm_stage()
        store.arrive(DATASET, [Arrival(event["event_name"], event["event_id"])], lost)
        counts = take(store, event)
        assert (counts.arrived, counts.received, counts.processed) == (2, 1, 1)

    def test_the_switch_turns_it_off(self) -> None:
        store = Store(Switches(dedupe_server_server=False))
        take(store, crm_stage())
        assert take(store, crm_stage()).processed == 2

    def test_messages_are_never_deduplicated(self) -> None:
        store = Store(Switches())
        event = crm_stage(action_source="business_messaging")
        take(store, event)
        assert take(store, event).processed == 2

    def test_events_without_an_id_count_each(self) -> None:
        store = Store(Switches())
        event = without(website_view(), "event_id")
        assert take(store, event, event).processed == 2
        assert list(store.arrived()) == []


class TestOffline:
    """The first is kept, for 7 days, whatever event_id says."""

    def test_the_same_order_item_name_and_time_count_once(self) -> None:
        store = Store(Switches())
        take(store, offline_purchase(event_id="a"))
        counts = take(store, offline_purchase(event_id="b"))
        assert (counts.deduplicated, counts.repeated_offline) == (1, 1)

    def test_the_golden_file_twice_counts_once(self) -> None:
        store = Store(Switches(dedupe_server_server=False))
        take(store, offline_purchase())
        assert take(store, offline_purchase()).repeated_offline == 1

    @pytest.mark.parametrize(
        ("key", "value"),
        [("order_id", "10002"), ("item_number", "2")],
    )
    def test_another_order_or_item_is_another_event(self, key: str, value: str) -> None:
        store = Store(Switches())
        take(store, offline_purchase(event_id="a"))
        other = offline_purchase(event_id="b")
        other["custom_data"][key] = value
        assert take(store, other).deduplicated == 0

    def test_a_recomputed_event_time_is_another_event(self) -> None:
        store = Store(Switches())
        take(store, offline_purchase(event_id="a"))
        later = offline_purchase(event_id="b", event_time=EVENT_TIME + 1)
        assert take(store, later).deduplicated == 0

    def test_without_an_order_the_customer_parameters_decide(self) -> None:
        store = Store(Switches())

        def bare(event_id: str, who: str) -> dict[str, Any]:
            event = offline_purchase(event_id=event_id, user_data={"em": digest(who)})
            return without(event, "custom_data", "order_id")

        take(store, bare("a", "mary"))
        assert take(store, bare("b", "mary")).deduplicated == 1
        assert take(store, bare("c", "john")).deduplicated == 1

    def test_the_window_is_seven_days(self) -> None:
        store = Store(Switches())
        take(store, offline_purchase(event_id="a"))
        week = 7 * 24 * HOUR
        again = take(store, offline_purchase(event_id="b"), at=NOW + week)
        assert again.deduplicated == 1
        late = take(store, offline_purchase(event_id="c"), at=NOW + week + 1)
        assert late.deduplicated == 1

    def test_offline_does_not_meet_other_sources(self) -> None:
        store = Store(Switches())
        take(store, offline_purchase(event_id="a"))
        web = offline_purchase(event_id="b", action_source="website")
        assert take(store, web).deduplicated == 0


class TestRecord:
    def test_every_arrival_of_an_event_is_kept_in_order(self, sim: Simulator) -> None:
        sim.faults.add(
            Fault(kind=FaultKind.STATUS),
            Fault(kind=FaultKind.STATUS, processed=True),
        )
        for _ in range(3):
            send(sim, *purchases(1))
        [event] = sim.received()
        assert [(r.request, r.processed, r.fault) for r in event.receipts] == [
            (1, False, "status"),
            (2, True, "status"),
            (3, True, None),
        ]
        assert event.processed == 2
        assert {receipt.at for receipt in event.receipts} == {NOW}

    def test_a_refused_batch_arrived_and_was_not_received(self, sim: Simulator) -> None:
        send(sim, *purchases(2), offline_purchase(event_time=1))
        assert sim.received() == []
        assert [event.event_id for event in sim.arrived()] == [
            "order-0",
            "order-1",
            "ord-10001-1",
        ]
        assert sim.counts(DATASET) == Counts(arrived=3)
        assert sim.events(DATASET) == []

    def test_the_record_can_be_asked_by_dataset_and_name(self, sim: Simulator) -> None:
        send(sim, offline_purchase(), crm_stage())
        assert [e.event_id for e in sim.received(event_name="Purchase")] == [
            "ord-10001-1"
        ]
        assert len(sim.received(DATASET)) == 2
        assert sim.received("9876543210") == []

    def test_the_record_is_there_before_the_answer(self, sim: Simulator) -> None:
        """A client that has its answer finds its events, every time."""
        for n in range(50):
            send(sim, *purchases(1, first=n))
            assert sim.counts(DATASET).received == n + 1


class TestJournal:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "received.jsonl"

    @pytest.fixture
    def first(self, path: Path) -> Iterator[Simulator]:
        with Simulator(record=path, now=lambda: NOW) as simulator:
            yield simulator

    def test_counts_and_windows_survive_a_restart(
        self, first: Simulator, path: Path
    ) -> None:
        first.faults.add(Fault(kind=FaultKind.HTML))
        send(first, crm_stage(event_id="lost"))
        send(first, *purchases(3), crm_stage(), partner_agent="capi_airflow_1_0")
        send(first, crm_stage(event_id="bad", event_time=1))
        before = first.counts(DATASET)
        arrived = first.arrived()
        first.stop()
        with Simulator(record=path, now=lambda: NOW) as second:
            assert second.counts(DATASET) == before
            assert second.arrived() == arrived
            assert second.stats()["requests"] == 3
            send(second, *purchases(3), crm_stage())
            assert second.counts(DATASET).processed == before.processed == 4
            assert [r.request for r in second.received()[0].receipts] == [2, 4]

    def test_it_holds_keys_and_no_values(self, first: Simulator, path: Path) -> None:
        event = offline_purchase()
        event["user_data"]["client_ip_address"] = "8.8.8.8"
        bare = offline_purchase(event_id="bare")
        del bare["custom_data"]["order_id"]
        lead = crm_stage(event_id="lead")
        send(first, event, bare, lead, partner_agent="capi_airflow_1_0")
        text = path.read_text()
        assert "em,ph,fn,ln,ct,st,zp,country,client_ip_address" in text
        for value in (*event["user_data"].values(), 1234567890123456):
            for item in value if isinstance(value, list) else [value]:
                assert str(item) not in text
        [line] = map(json.loads, text.splitlines())
        assert {len(row) for row in line["rows"]} == {len(Row._fields) - 1}

    def test_it_is_written_before_the_answer(
        self, first: Simulator, path: Path
    ) -> None:
        first.faults.add(Fault(kind=FaultKind.HANG_UP_AFTER_READING, processed=True))
        with pytest.raises(ConnectionError):
            send(first, *purchases(1))
        assert json.loads(path.read_text())["processed"] is True

    def test_a_line_cut_short_is_left_out(self, first: Simulator, path: Path) -> None:
        send(first, *purchases(1))
        send(first, *purchases(1, first=1))
        first.stop()
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        with Simulator(record=path, now=lambda: NOW) as second:
            assert second.counts(DATASET).received == 1
            send(second, *purchases(1, first=2))
        with Simulator(record=path, now=lambda: NOW) as third:
            assert third.counts(DATASET).received == 2

    def test_a_reset_survives_too(self, first: Simulator, path: Path) -> None:
        send(first, *purchases(1))
        first.reset()
        assert first.counts(DATASET) == Counts()
        send(first, *purchases(2))
        first.stop()
        with Simulator(record=path) as second:
            assert second.counts(DATASET).received == 2

    moves = st.lists(
        st.tuples(
            st.booleans(),  # processed or lost
            st.lists(st.integers(0, 5), min_size=1, max_size=4),  # which events
            st.sampled_from([0, 1, 49 * HOUR, 8 * 24 * HOUR]),  # how much later
        ),
        max_size=12,
    )

    @given(moves=moves)
    def test_any_history_reads_back_as_it_was(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        moves: list[tuple[bool, list[int], int]],
    ) -> None:
        path = tmp_path_factory.mktemp("journal") / "j"
        journal = Journal(path)
        store = Store(Switches(), journal=journal)
        at = NOW
        for processed, which, later in moves:
            at += later
            receipt = Receipt(at=at, request=store.next_request(), processed=processed)
            events = [
                offline_purchase(event_id=f"e{n}", event_time=EVENT_TIME + n)
                for n in which
            ]
            if processed:
                store.take(DATASET, rows_of(events), receipt)
            else:
                arrivals = [Arrival("Purchase", f"e{n}") for n in which]
                store.arrive(DATASET, arrivals, receipt)
        journal.close()
        again = Journal(path)
        copy = Store(Switches(), journal=again)
        again.close()
        assert copy.counts(DATASET) == store.counts(DATASET)
        assert list(copy.arrived()) == list(store.arrived())
        assert copy.key_sets(DATASET) == store.key_sets(DATASET)
