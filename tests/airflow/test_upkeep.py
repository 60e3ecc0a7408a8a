"""What the tasks owe the ledger: runs of their own, one dataset, an orderly end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FrameType, SimpleNamespace
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from tests.airflow.world import DATASET, TOKEN, Messages, World
from tests.conftest import Database

from capi_airflow.operators import DeliverOperator, PlanOperator
from capi_airflow.stage import Stage
from demo.warehouse import load
from graph_simulator import Fault, FaultKind, Simulator
from meta_capi.errors import ConfigurationError
from meta_capi.ledger import Ledger

FEED = "offline_purchases"


@pytest.fixture
def world(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    until = datetime.now(UTC).replace(microsecond=0)
    load(database.dsn, until=until, scale=0.02)
    engine = sa.create_engine(database.url, hide_parameters=True)
    Ledger(engine).migrate()
    engine.dispose()
    with Simulator(datasets=[DATASET], tokens=[TOKEN]) as sim:
        world = World(sim, until, database.dsn)
        world.connect_all(monkeypatch, sim.url)
        yield world


def context(world: World, dag_id: str) -> dict[str, Any]:
    """Return what a task of a DAG is given."""
    return {
        "params": dict(world.whole),
        "dag": SimpleNamespace(dag_id=dag_id),
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

    with pytest.raises(Exception, match="test event code is refused"):
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
