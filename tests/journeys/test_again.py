"""Whatever is run again sends nothing twice; what was corrected goes out once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial

import pytest
from tests.journeys.conftest import TABLES, Demo, eventually

from demo.__main__ import DATASET
from meta_capi.names import event_id

pytestmark = pytest.mark.slow
PURCHASES = "send_offline_purchases"


@contextmanager
def nothing_sent(demo: Demo) -> Iterator[None]:
    """Hold that Meta gets no event in here, not even one that it would drop."""
    before, states = demo.arrived(), demo.states()
    yield
    assert demo.arrived() == before
    assert demo.states() == states


class TestTheCommandAgain:
    def test_a_second_up_sends_nothing(self, demo: Demo) -> None:
        with nothing_sent(demo):
            again = demo.command("up")
        assert again.returncode == 0, again.stdout + again.stderr
        for feed in TABLES:
            runs = [r for r in demo.runs(f"send_{feed}") if r["run_type"] == "manual"]
            assert len(runs) >= 2
            assert demo.sent_by(f"send_{feed}", runs[-1]["dag_run_id"]) == 0

    def test_a_run_whose_deliver_is_cleared_sends_nothing(self, demo: Demo) -> None:
        run_id = demo.runs(PURCHASES)[-1]["dag_run_id"]
        with nothing_sent(demo):
            demo.clear(PURCHASES, run_id, "deliver")
            assert demo.end_of(PURCHASES, run_id) == "success"
        path = f"/dags/{PURCHASES}/dagRuns/{run_id}/taskInstances"
        tries = {
            task["task_id"]: task["try_number"]
            for task in demo.airflow.ask("GET", path)["task_instances"]
        }
        assert (tries["validate"], tries["deliver"], tries["report"]) == (1, 2, 2)


class TestABackfill:
    """Over intervals whose rows the first run has sent already."""

    def test_by_command_and_by_rest_it_succeeds_and_sends_nothing(
        self, demo: Demo
    ) -> None:
        leads = "send_crm_leads"
        purchases = clean_hour(demo, "shop.offline_purchases", "loaded_at", minute=5)
        stages = clean_hour(demo, "shop.lead_stages", "updated_at", minute=15)
        with nothing_sent(demo):
            done = demo.cli(
                "backfill", "create", "--dag-id", PURCHASES,
                "--from-date", purchases.isoformat(),
                "--to-date", (purchases + timedelta(hours=1)).isoformat(),
                "--max-active-runs", "2", "--reprocess-behavior", "none",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            body = {
                "dag_id": leads, "from_date": stages.isoformat(),
                "to_date": (stages + timedelta(hours=1)).isoformat(),
                "max_active_runs": 2, "reprocess_behavior": "none",
                "run_backwards": False, "dag_run_conf": {},
            }  # fmt: skip
            demo.airflow.ask("POST", "/backfills", body)
            for dag_id in (PURCHASES, leads):
                assert eventually(partial(self.ended, demo, dag_id))
        for dag_id in (PURCHASES, leads):
            assert [each["state"] for each in self.backfilled(demo, dag_id)] == [
                "success", "success",
            ]  # fmt: skip
            for run in self.backfilled(demo, dag_id):
                assert demo.sent_by(dag_id, run["dag_run_id"]) == 0

    def test_its_intervals_held_rows(self, demo: Demo) -> None:
        # Else the test before would prove nothing.
        rows = demo.sql(
            "select (outcome ->> 'rows')::int from capi.runs where run_id like %s",
            "%/backfill__%",
        )
        assert len(rows) == 4
        assert all(count > 0 for (count,) in rows)

    @staticmethod
    def backfilled(demo: Demo, dag_id: str) -> list[dict[str, str]]:
        return [run for run in demo.runs(dag_id) if run["run_type"] == "backfill"]

    def ended(self, demo: Demo, dag_id: str) -> bool:
        states = [run["state"] for run in self.backfilled(demo, dag_id)]
        return len(states) == 2 and set(states) <= {"success", "failed"}


class TestAReplay:
    def test_a_corrected_row_goes_out_and_no_other(self, demo: Demo) -> None:
        ((key,),) = demo.sql(
            "select source_key from capi.deliveries where feed = 'offline_purchases'"
            " and state = 'quarantined' and reason = 'currency.unknown' limit 1"
        )
        demo.sql(
            "update shop.offline_purchases set currency = 'EUR' where order_id = %s",
            key,
        )
        before = demo.received()
        demo.run(
            "replay_deliveries", feed="offline_purchases", reason="currency.unknown",
            why="the currency was corrected", dry_run=False,
        )  # fmt: skip
        after = demo.received()
        assert after.keys() - before.keys() == {event_id(DATASET, "Purchase", key)}
        assert {name: after[name] for name in before} == before
        assert after.keys() == demo.accepted_ids()


def clean_hour(demo: Demo, table: str, cursor: str, *, minute: int) -> datetime:
    """Return the start of two hours with sent rows, before them two hours alike.

    No row of them is spoilt: few rows with one bad one would stop at the gate.
    """
    key = "order_id" if "order" in table or "purchase" in table else "lead_key"
    query = f"""
        with spoilt as (
            select split_part(row_key, '|', 1) as key from shop.sample_faults
            where table_name = %s
        )
        select hour from generate_series(
            date_trunc('hour', %s::timestamptz) - interval '6 days',
            date_trunc('hour', %s::timestamptz) - interval '1 day', interval '1 hour'
        ) as hour
        where not exists (
            select from {table} join spoilt on {key} = spoilt.key
            where {cursor} >= hour - interval '3 hours'
                and {cursor} < hour + interval '4 hours'
        ) and exists (
            select from {table} where {cursor} >= hour and {cursor} < hour + interval '1 hour'
        )
        order by hour desc limit 1
    """
    ((hour,),) = demo.sql(query, table.removeprefix("shop."), demo.until, demo.until)
    start: datetime = hour
    return start + timedelta(minutes=minute)
