"""What the tasks owe the ledger: runs of their own, one dataset, an orderly end."""

from __future__ import annotations

import io
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from types import FrameType, SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.models.variable import Variable
from tests.airflow.world import DATASET, Messages, World
from tests.airflow_settings import ROOT
from tests.ledger.copies import copied, put_copy_back

from capi_airflow.ending import TaskEnded
from capi_airflow.operators import DeliverOperator, PlanOperator
from capi_airflow.stage import Stage
from capi_airflow.tending import ReplayOperator, TendOperator
from graph_simulator import Fault, FaultKind
from meta_capi.cli import main
from meta_capi.errors import ConfigurationError

FEED = "offline_purchases"


def context(world: World, dag_id: str) -> dict[str, Any]:
    """Return what a task of a DAG is given."""
    form = {**world.whole, "test_event_code": None}
    return {
        "params": dict(form),
        "dag": SimpleNamespace(dag_id=dag_id, params=form),
        "run_id": "scheduled__1",
        "ti": Messages(),
    }


def test_feeds_that_share_a_dag_run_have_runs_of_their_own(world: World) -> None:
    """Else the last feed's outcome stands for all of them."""
    given = context(world, "tend_deliveries")
    for feed in (FEED, "phone_orders"):
        stage = Stage(feed, given)
        run = stage.open_run("tend", {"due": 1})
        stage.ledger.close_run(run, state="reported", outcome={"feed": feed})

    assert world.sql(
        "select feed, outcome ->> 'feed' from capi.runs order by run_no"
    ) == [(FEED, FEED), ("phone_orders", "phone_orders")]


def test_a_run_goes_to_the_dataset_it_was_planned_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Meta has events in one dataset, and the ledger says another."""
    given = context(world, f"send_{FEED}")
    run = Stage(FEED, given).open_run("send", {})
    world.connect_all(monkeypatch, world.sim.url, dataset_id="9876543210987654")

    with pytest.raises(ConfigurationError, match="planned for dataset"):
        Stage(FEED, given).desk(run, None)

    assert world.sql("select count(*) from capi.workers") == [(0,)]


def test_a_worker_that_cannot_begin_does_not_look_like_a_lost_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = context(world, f"send_{FEED}")
    given["params"]["test_event_code"] = "TEST12345"
    Stage(FEED, given).open_run("test", {})
    world.connect_all(monkeypatch, "", environment="production")
    operator = DeliverOperator(task_id="deliver", feed=FEED, shard={})

    with pytest.raises(TaskEnded, match="test event code is refused"):
        operator.execute(given)

    assert world.sql("select count(*) from capi.workers") == [(0,)]


def test_sigterm_ends_a_delivery_and_leaves_nothing_on_its_desk(world: World) -> None:
    """Airflow only calls `on_kill`; a worker that went on would be killed, and lost."""
    given = context(world, f"send_{FEED}")
    [shard] = PlanOperator(task_id="plan", feed=FEED).execute(given)
    operator = DeliverOperator(task_id="deliver", feed=FEED, shard=shard)
    world.sim.faults.add(Fault(kind=FaultKind.DELAY, seconds=1.0, count=None))

    def on_term(_: int, __: FrameType | None) -> None:
        operator.on_kill()

    def terminate_during_the_first_request() -> None:
        query = "select count(*) from capi.attempts"
        with psycopg.connect(world.dsn, autocommit=True) as connection:
            while connection.execute(query).fetchone() == (0,):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, on_term)
    killer = threading.Thread(target=terminate_during_the_first_request)
    killer.start()
    try:
        with pytest.raises(SystemExit):
            operator.execute(given)
    finally:
        killer.join()
        signal.signal(signal.SIGTERM, before)

    assert world.sql("select ended_how from capi.workers") == [("finished",)]
    assert set(world.states()) <= {
        "accepted", "pending", "in_doubt", "quarantined", "withheld", "expired",
    }  # fmt: skip
    assert world.sql(
        "select count(*) from capi.batches where state in ('claimed', 'sending')"
    ) == [(0,)]


# --- a ledger that has forgotten --------------------------------------------------------

PURCHASES = f"send_{FEED}"
MARK = "capi_ledger_mark"


def restored(world: World, *options: str) -> int:
    """Run `meta-capi restored` for this ledger."""
    return main(
        ["restored", "--why", "the disk died", *options],
        environ={
            "META_CAPI_LEDGER": world.dsn,
            "META_CAPI_HOME": str(ROOT / "include"),
        },
        out=io.StringIO(),
    )


@pytest.mark.matrix("P14")
class TestALedgerThatHasForgotten:
    def test_one_put_back_from_a_copy_is_not_used_until_a_person_says_since_when(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        day = (world.until - timedelta(days=2)).isoformat()
        assert world.run("tend_deliveries", {})["dag"] == "success"
        since, copy = datetime.now(UTC), copied(world.dsn)
        assert world.run(PURCHASES, {**world.whole, "start": day})["dag"] == "success"
        sent = world.requests
        put_copy_back(world.dsn, copy)

        states = world.run(PURCHASES, {**world.whole, "start": day})
        assert (states["preflight"], states["dag"]) == ("failed", "failed")
        assert world.run("tend_deliveries", {})["dag"] == "failed"
        with monkeypatch.context() as patch:
            patch.setenv(f"AIRFLOW_VAR_{MARK.upper()}", Variable.get(MARK))
            with pytest.raises(ConfigurationError, match="put back from an older copy"):
                _ = Stage(FEED, {}).ledger
        assert world.requests == sent

        assert restored(world, "--since", since.isoformat()) == 0
        states = world.run(PURCHASES, {**world.whole, "start": day})
        assert states["dag"] == "success"
        # The feed says resend, and Meta's window is open: each repeat is one of a doubt.
        repeated = "select event_id from capi.deliveries where resends = 1"
        assert {(each,) for each in world.processed_twice()} == set(world.sql(repeated))
        assert world.states(FEED)["in_doubt"] == 0

    def test_another_ledger_is_not_used_unless_the_mark_is_deleted(
        self, world: World
    ) -> None:
        assert world.run("tend_deliveries", {})["dag"] == "success"
        world.sql("update capi.installation set ledger_id = gen_random_uuid()")

        assert world.run("tend_deliveries", {})["dag"] == "failed"

        Variable.delete(MARK)
        assert world.run("tend_deliveries", {})["dag"] == "success"

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"ledger": "x", "at": "soon"}'])
    def test_a_mark_that_somebody_has_edited_stops_everything_with_a_sentence(
        self, world: World, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setenv(f"AIRFLOW_VAR_{MARK.upper()}", text)
        with pytest.raises(ConfigurationError, match="is not as it was written"):
            _ = Stage(FEED, context(world, PURCHASES)).ledger


# --- tending ----------------------------------------------------------------------------


@pytest.mark.matrix("X39")
def test_tending_removes_what_is_old_and_looks_in_vain_once_an_hour(
    world: World,
) -> None:
    given = context(world, "tend_deliveries")
    stage = Stage(FEED, given)
    run = stage.open_run("tend", {})
    world.sql(
        "insert into capi.deliveries (dataset_id, feed, source_key, state, reason,"
        " cursor_at, run_no) values"
        " (%s, %s, 'gone-1', 'pending', 'replayed', now(), %s),"
        " (%s, %s, 'old-1', 'withheld', 'erased', now() - interval '800 days', %s)",
        DATASET, FEED, run.run_no, DATASET, FEED, run.run_no,
    )  # fmt: skip

    first, second = (
        TendOperator(task_id="tend", feed=FEED).execute(given) for _ in range(2)
    )

    assert first == {"expired": 0, "due": 1, "accepted": 0, "removed": 1}
    assert second == {"expired": 0, "due": 0, "removed": 0}
    assert world.sql("select source_key, reason from capi.deliveries") == [
        ("gone-1", "row.missing")
    ]
    assert world.requests == 0


def test_a_replay_that_nobody_gives_a_reason_for_changes_nothing(world: World) -> None:
    given = context(world, "replay_deliveries")
    given["params"] |= {
        "feed": FEED, "states": ["withheld"], "reason": None, "keys": None,
        "dry_run": False, "why": None,
    }  # fmt: skip
    given["dag"].params = given["params"]

    with pytest.raises(TaskEnded, match="Say why"):
        ReplayOperator(task_id="replay").execute(given)

    assert world.sql("select count(*) from capi.acts") == [(0,)]
