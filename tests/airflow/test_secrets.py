"""At DEBUG, with every library talking, a run says nothing personal and no secret."""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
import sqlalchemy as sa
from airflow.sdk.exceptions import AirflowException
from airflow.utils.db import initdb
from tests.airflow.world import DATASET, TOKEN, World
from tests.conftest import Database

from capi_airflow.operators import PlanOperator
from demo.warehouse import load
from graph_simulator import Fault, FaultKind, Simulator
from meta_capi.ledger import Ledger

NORMAL = (
    "kanarie.vogel@nest.example", "16505550142", "zwitscherina", "gelbfederling",
    "vogelsangheim", "19870605",
)  # fmt: skip
CANARIES = (
    "kanarie", "zwitscher", "gelbfeder", "vogelsang", "555-0142", "5550142",
    "1987-06-05", "19870605", TOKEN.lower(),
    *(hashlib.sha256(text.encode()).hexdigest() for text in NORMAL),
)  # fmt: skip
FAULTS = (
    None, FaultKind.HANG_UP_AFTER_READING, FaultKind.TOKEN_REVOKED, FaultKind.HTML,
    FaultKind.ERROR, FaultKind.STATUS, FaultKind.TRUNCATED_JSON,
)  # fmt: skip


@pytest.fixture
def world(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    initdb()
    until = datetime.now(UTC).replace(microsecond=0)
    load(database.dsn, until=until, scale=0.002)
    engine = sa.create_engine(database.url, hide_parameters=True)
    Ledger(engine).migrate()
    engine.dispose()
    with Simulator(datasets=[DATASET], tokens=[TOKEN]) as sim:
        world = World(sim, until, database.dsn)
        world.connect_all(monkeypatch, sim.url)
        world.sql(
            "update shop.offline_purchases set email = 'Kanarie.Vogel@Nest.example',"
            " phone = '+1 (650) 555-0142', first_name = 'Zwitscherina',"
            " last_name = 'Gelbfederling', city = 'Vogelsangheim', birthday = '1987-06-05',"
            " items = case when order_id like '%%5' then '{\"kanarie\": 1}' else items end,"
            " currency = case when order_id like '%%6' then 'Kan' else currency end"
        )
        yield world


@pytest.fixture
def loud() -> Iterator[None]:
    """Let every logger say all that it has to say."""
    known = [
        logging.getLogger(),
        *map(logging.getLogger, logging.root.manager.loggerDict),
    ]
    before = [(each, each.level) for each in known]
    for each in known:
        each.setLevel(logging.DEBUG)
    yield
    for each, level in before:
        each.setLevel(level)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault or "none")
def test_no_canary_is_logged_or_raised(
    world: World, fault: FaultKind | None, loud: None,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    if fault:
        world.sim.faults.add(Fault(kind=fault, location="http://127.0.0.1:1/"))
    world.run("send_offline_purchases")
    said = "".join(capfd.readouterr()) + caplog.text
    assert "DEBUG" in said, "nothing was said at DEBUG"
    assert "urllib3" in said
    assert f"/{DATASET}/events" in said
    assert [n for n, canary in enumerate(CANARIES) if canary in said.lower()] == []


def test_no_canary_is_in_the_words_of_a_broken_warehouse(
    world: World, loud: None, capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    # PostgreSQL quotes the value that it cannot read as a number.
    world.sql("alter table shop.offline_purchases rename to kept")
    world.sql(
        "create view shop.offline_purchases as"
        " select * from shop.kept where last_name::integer > 0"
    )
    with pytest.raises(psycopg.Error, match="Gelbfederling"):
        world.sql("select * from shop.offline_purchases")
    plan = PlanOperator(task_id="plan", feed="offline_purchases")
    with pytest.raises(AirflowException) as caught:
        plan.execute(world.context("send_offline_purchases", "broken"))
    said = "".join(capfd.readouterr()) + caplog.text
    told = "".join(traceback.format_exception(caught.value))
    assert "offline_purchases" in str(caught.value)
    assert [n for n, canary in enumerate(CANARIES) if canary in said.lower()] == []
    assert [n for n, canary in enumerate(CANARIES) if canary in told.lower()] == []
