"""A worker is killed while its request is out: nothing is lost, nothing counts twice."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from tests.journeys.conftest import Demo, eventually

from demo.__main__ import DATASET
from meta_capi.names import event_id

pytestmark = pytest.mark.slow
DAG_ID = "send_offline_purchases"
ORDERS = [f"LOST-{number:02}" for number in range(12)]
# Longer ago than any scheduled run looks back, so that these tests alone read the rows.
AGO = timedelta(days=9)


@dataclass
class Lost:
    """What a killed worker has left behind."""

    run_id: str
    received: dict[str, int]
    """What Meta had taken before."""
    worker_id: int


@pytest.fixture(scope="module")
def lost(demo: Demo) -> Lost:
    """Kill the process of a delivering task in the middle of its request."""
    known = demo.until - AGO
    for order in ORDERS:
        demo.plant(
            "shop.offline_purchases", "order_id not in"
            " (select row_key from shop.sample_faults) and marketing_consent",
            order_id=order, loaded_at=known, purchased_at=known - timedelta(hours=1),
        )  # fmt: skip
    before = demo.received()
    # Meta reads the request, and thinks: it will take the events, but nobody hears.
    slow = {"kind": "delay", "seconds": 60, "event_ids": list(map(id_of, ORDERS))}
    demo.meta("POST", "faults", json={**slow, "count": None})
    run_id = demo.trigger(
        DAG_ID, start=known.isoformat(), end=(known + timedelta(minutes=1)).isoformat()
    )
    assert eventually(lambda: sending(demo))
    ((worker_id, pid),) = sending(demo)
    (task,) = [each for each in demo.processes() if each.pid == pid]
    task.send_signal(signal.SIGKILL)
    assert eventually(lambda: state_of(demo, run_id) == "up_for_retry")
    return Lost(run_id, before, worker_id)


def id_of(order: str) -> str:
    """Return the event id of an order."""
    return event_id(DATASET, "Purchase", order)


def sending(demo: Demo) -> list[tuple[Any, ...]]:
    """Return worker and pid of the request that is out."""
    return demo.sql(
        "select distinct w.worker_id, w.pid from capi.workers w"
        " join capi.batches b using (worker_id)"
        " where w.ended_at is null and b.state = 'sending'"
    )


def states(demo: Demo) -> dict[str, int]:
    """Return the orders' deliveries by state."""
    return dict(
        demo.sql(
            "select state::text, count(*) from capi.deliveries"
            " where source_key = any(%s) group by 1",
            ORDERS,
        )
    )


def state_of(demo: Demo, run_id: str) -> str:
    """Return the state of the delivering task."""
    path = f"/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances"
    tasks = demo.airflow.ask("GET", path)["task_instances"]
    return next(str(t["state"]) for t in tasks if t["task_id"] == "deliver")


class TestALostWorker:
    def test_its_deliveries_stay_claimed_until_its_lease_is_over(
        self, demo: Demo, lost: Lost
    ) -> None:
        assert states(demo) == {"claimed": len(ORDERS)}
        demo.run("tend_deliveries")
        assert states(demo) == {"claimed": len(ORDERS)}

    def test_then_they_are_rescued_and_go_out_under_the_same_ids(
        self, demo: Demo, lost: Lost
    ) -> None:
        # Three minutes pass on the ledger's clock.
        demo.sql(
            "update capi.workers set lease_until = capi.clock() - interval '1 second'"
            " where worker_id = %s",
            lost.worker_id,
        )
        demo.meta("DELETE", "faults")
        tended = demo.run("tend_deliveries")
        assert "desks of 1 lost worker" in demo.log_of("tend_deliveries", tended)
        assert states(demo) == {"accepted": len(ORDERS)}
        assert demo.sql(
            "select ended_how from capi.workers where worker_id = %s", lost.worker_id
        ) == [("lost",)]
        new = demo.received().keys() - lost.received.keys()
        assert new == set(map(id_of, ORDERS))

    def test_meta_dropped_the_repeats(self, demo: Demo, lost: Lost) -> None:
        # Both requests came whole; by their ids Meta knew the second one's events.
        received = demo.received()
        assert {received[id_of(order)] for order in ORDERS} == {2}
        numbers = demo.meta("GET", "stats")["datasets"][DATASET]
        assert numbers["processed"] == len(received) == len(demo.accepted_ids())

    def test_the_run_goes_on_to_its_end_and_sends_nothing_more(
        self, demo: Demo, lost: Lost
    ) -> None:
        before = demo.arrived()
        demo.clear(DAG_ID, lost.run_id, "deliver")
        assert demo.end_of(DAG_ID, lost.run_id) == "success"
        assert demo.arrived() == before
        assert demo.sent_by(DAG_ID, lost.run_id) == 0
