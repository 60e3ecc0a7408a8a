"""A world of Airflow, warehouse, ledger and Meta whose rows and secrets are canaries.

What needs Airflow is imported by the fixtures.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import yaml
from tests.airflow_settings import ROOT
from tests.conftest import Database
from tests.security.canaries import Aviary

from demo.postgres import Postgres
from demo.warehouse import load
from graph_simulator import Simulator
from meta_capi.ledger import Ledger

if TYPE_CHECKING:
    from tests.airflow.world import World

FEED = "offline_purchases"
PURCHASES = "send_offline_purchases"
MOST_ROWS = 40


@dataclass
class Nest:
    """A world, and the canaries in it."""

    world: World
    aviary: Aviary
    home: Path
    """AIRFLOW_HOME: its logs and its metadata."""
    feeds: Path
    """META_CAPI_HOME: what users edit."""
    pages: Path
    """The Data Docs."""
    url: str = field(repr=False)
    """Of the warehouse and the ledger, for SQLAlchemy."""


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Make Airflow's metadata database."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def ledgers_password(postgres: Postgres) -> str:
    """The password in the connections, as Airflow and the drivers hear it."""
    (password,) = re.findall(r"://[^:]+:([^@]+)@", postgres.url("postgres"))
    return str(password)


@pytest.fixture
def nest(
    database: Database, monkeypatch: pytest.MonkeyPatch, airflow_database: None,
    ledgers_password: str, tmp_path: Path,
) -> Iterator[Nest]:  # fmt: skip
    """A world with forty purchases, each with every canary."""
    from tests.airflow.world import DATASET, World

    token = f"EAAB{secrets.token_urlsafe(36)}"
    aviary = Aviary.hatched(
        token=token,
        app_secret=secrets.token_hex(16),
        database_password=ledgers_password,
    )
    _write_feeds(tmp_path / "home")
    monkeypatch.setenv("META_CAPI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("META_CAPI_DATA_DOCS", str(tmp_path / "pages"))
    until = datetime.now(UTC).replace(microsecond=0)
    load(database.dsn, until=until, scale=0.002)
    engine = sa.create_engine(database.url, hide_parameters=True)
    Ledger(engine).migrate()
    engine.dispose()
    with Simulator(datasets=[DATASET], tokens=[token]) as sim:
        world = World(sim, until, database.dsn)
        world.connect_all(monkeypatch, sim.url)
        world.connect(
            monkeypatch, "meta_capi_default", conn_type="meta_capi", host=sim.url,
            login=DATASET, password=token,
            extra={"environment": "local", "app_secret": aviary["app secret"]},
        )  # fmt: skip
        plant(world, aviary)
        home = Path(sa.make_url(_metadata()).database or "").parent
        yield Nest(
            world, aviary, home, tmp_path / "home", tmp_path / "pages", database.url
        )


def plant(world: World, aviary: Aviary) -> None:
    """Keep some purchases, and put the canaries into each column that a feed reads."""
    world.sql(
        "delete from shop.offline_purchases where ctid not in"
        f" (select ctid from shop.offline_purchases order by order_id limit {MOST_ROWS})"
    )
    world.sql("alter table shop.offline_purchases add ip text, add agent text")
    world.sql(
        "update shop.offline_purchases set email = %s, phone = %s, first_name = %s,"
        " last_name = %s, city = %s, state = null, ip = %s, agent = %s,"
        " marketing_consent = true, country = 'US', amount = 12.5,"
        " loaded_at = %s, purchased_at = %s, currency = 'USD', customer_id = %s, items = null",
        *(aviary[name] for name in (
            "email", "phone", "first name", "last name", "city", "IP address",
            "user agent",
        )),
        world.until - timedelta(hours=30), world.until - timedelta(hours=31),
        aviary["address"],
    )  # fmt: skip


def _write_feeds(home: Path) -> None:
    """Copy what users edit; the purchases also have an address and a user agent."""
    (home / "feeds").mkdir(parents=True)
    (home / "expectations").mkdir()
    for path in (ROOT / "include" / "feeds").glob("*.yaml"):
        (home / "feeds" / path.name).write_text(path.read_text())
    for path in (ROOT / "include" / "expectations").glob("*.json"):
        (home / "expectations" / path.name).write_text(path.read_text())
    path = home / "feeds" / "offline_purchases.yaml"
    feed: dict[str, Any] = yaml.safe_load(path.read_text())
    feed["user_data"] |= {"client_ip_address": "ip", "client_user_agent": "agent"}
    feed["quality"] = {"max_quarantined_share": 1.0, "tolerated_rows": 0}
    path.write_text(yaml.safe_dump(feed, sort_keys=False))


def _metadata() -> str:
    from airflow.configuration import conf

    return str(conf.get("database", "sql_alchemy_conn"))
