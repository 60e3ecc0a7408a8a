"""A warehouse, a ledger and a Meta in which one conversion of every fate has happened.

Everything is real: PostgreSQL, the core's delivery, the line, the local Graph API. Each
row carries canaries, which no output may show.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from capi_airflow.transport import Destination, Line
from demo.postgres import Postgres
from graph_simulator import Fault, FaultKind, Simulator
from meta_capi import dispatch
from meta_capi.desk import Desk
from meta_capi.event import Builder
from meta_capi.feed import load
from meta_capi.ledger import Ledger, ResendPolicy, Run
from meta_capi.names import event_id
from meta_capi.payload import Envelope
from meta_capi.source import Interval, Shard, Source

__all__ = ["CANARIES", "DATASET", "TOKEN", "World", "small_world"]

DATASET: Final = "1234567890"
TOKEN: Final = "EAABcanaryTokenOfTheTests0123456789"
MAIL: Final = "kanarie.vogel@nest.example"
PHONE: Final = "(650) 555-0142"
# In the case and the spelling of the rows, in normal form, and digested.
CANARIES: Final = (
    "kanarie", "vogel", "nest.example", "555-0142", "5550142", "Zwitscher", "zwitscher",
    "Gelbfeder", "gelbfeder", "1987-06-05", "19870605", "81.2.69.160", "Zaunkönig",
    TOKEN, hashlib.sha256(MAIL.encode()).hexdigest(),
    hashlib.sha256(b"16505550142").hexdigest(),
)  # fmt: skip

_SALES: Final = """
feed: store_sales
description: Sales of a small world.
schedule: "0 * * * *"
start_date: 2026-01-01
source: {table: shop.sales, key: [order_id], cursor: {column: loaded_at}}
event: {name: Purchase, action_source: physical_store, time: {column: sold_at}}
user_data:
  em: email
  ph: phone
  fn: first_name
  ln: last_name
  db: birthday
  ge: gender
  country: {column: country, default: US}
  client_ip_address: ip
custom_data:
  value: amount
  currency: {default: USD}
  order_id: order_id
  content_name: note
  contents: items
consent: {column: consent, granted: [true]}
on_in_doubt: hold
limits: {events_per_request: 20, requests_in_flight: 1}
"""
_STAGES: Final = """
feed: lead_stages
description: Stages of a small world.
schedule: "0 * * * *"
start_date: 2026-01-01
source: {table: shop.stages, key: [lead, stage], cursor: {column: loaded_at}}
event:
  stages:
    column: stage
    map: {new: Initial Lead, won: Converted}
    lead_created: {column: made_at}
    crm: Small CRM
  action_source: system_generated
  time: {column: reached_at}
user_data: {em: email, lead_id: lead_id}
consent: {not_required_because: The form of the lead ad itself asks.}
"""
_SUITE: Final = {
    "name": "store_sales",
    "expectations": [
        {
            "type": "expect_column_values_to_not_be_null",
            "severity": "critical",
            "kwargs": {"column": "order_id"},
            "meta": {"reason": "key.missing"},
        }
    ],
}
_TABLES: Final = """
create schema shop;
create table shop.sales (
    order_id text, loaded_at timestamptz, sold_at timestamptz, email text, phone text,
    first_name text, last_name text, birthday date, gender text, country text, ip text,
    amount text, note text, items jsonb, consent boolean
);
create table shop.stages (
    lead text, stage text, loaded_at timestamptz, made_at timestamptz,
    reached_at timestamptz, email text, lead_id text
);
"""
_FATES: Final = (
    *(f"ok-{n}" for n in range(10)), "changed", "refused", "negative", "unconsented",
    "ancient", "broad", "nophone",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """What the tests ask of it."""

    url: str = field(repr=False)
    home: Path
    engine: sa.Engine
    ledger: Ledger
    sim: Simulator
    now: datetime

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which the command line finds all of it."""
        plain = self.url.replace("postgresql+psycopg://", "postgresql://")
        return {
            "META_CAPI_WAREHOUSE": plain,
            "META_CAPI_LEDGER": plain,
            "META_CAPI_TOKEN": TOKEN,
            "META_CAPI_DATASET": DATASET,
            "META_CAPI_GRAPH_URL": self.sim.url,
            "META_CAPI_HOME": str(self.home),
        }

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement on the database."""
        dsn = self.url.replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(dsn) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def small_world(postgres: Postgres, folder: Path) -> Iterator[World]:
    """Make the world, let its runs happen, and take it down at the end."""
    _write_home(folder)
    database = f"world_{folder.name.replace('-', '_')}"
    postgres.create_database(database)
    engine = sa.create_engine(postgres.url(database), hide_parameters=True, pool_size=4)
    try:
        with Simulator(tokens=[TOKEN], datasets=[DATASET]) as sim:
            ledger = Ledger(engine, patience=5)
            ledger.migrate()
            world = World(
                postgres.url(database), folder, engine, ledger, sim, datetime.now(UTC)
            )
            _live(world)
            yield world
    finally:
        engine.dispose()
        postgres.drop_database(database)


def _write_home(folder: Path) -> None:
    for name, text in (("store_sales", _SALES), ("lead_stages", _STAGES)):
        path = folder / "feeds" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "expectations").mkdir(exist_ok=True)
    for name in ("store_sales", "lead_stages"):
        suite = _SUITE if name == "store_sales" else {"name": name, "expectations": []}
        path = folder / "expectations" / f"{name}.json"
        path.write_text(json.dumps(suite), encoding="utf-8")


def _live(world: World) -> None:
    """Let one conversion of every fate happen."""
    world.execute(_TABLES)
    for key in _FATES:
        _sell(world, key, **_OF_FATE.get(key, {}))
    world.execute(
        "insert into shop.stages values ('L|1', 'won', %s, %s, %s, %s,"
        " '12345678901234567')",
        _loaded_at(world), world.now - timedelta(days=1),
        world.now - timedelta(hours=1), MAIL,
    )  # fmt: skip
    refused = event_id(DATASET, "Purchase", "refused")
    world.sim.faults.add(
        Fault(kind=FaultKind.REFUSE_IF, count=None, event_ids=frozenset({refused}))
    )
    run = _deliver(world, "store_sales", "send_store_sales/first")
    _deliver(world, "lead_stages", "send_lead_stages/first")
    world.ledger.close_run(run, state="reported", outcome={"rows": len(_FATES)})

    _sell(world, "gated")
    number = world.ledger.open_validation(run, "store_sales")
    world.ledger.quarantine(run, number, [("gated", "gate.failed")], _loaded_at(world))
    world.execute(
        "insert into capi.validation_results values (%s, 0, "
        "'expect_column_values_to_be_between', 'amount', 'gate.failed', 'critical', "
        "'failed', 1, 0.05)",
        number,
    )

    _sell(world, "doubtful")
    lost = event_id(DATASET, "Purchase", "doubtful")
    world.sim.faults.add(
        Fault(kind=FaultKind.HANG_UP_AFTER_READING, event_ids=frozenset({lost}))
    )
    _deliver(world, "store_sales", "send_store_sales/doubt", "doubtful")

    _sell(world, "waiting")
    _deliver(world, "store_sales", "send_store_sales/limited", "waiting", limit=0)

    world.execute("update shop.sales set amount = '99.90' where order_id = 'changed'")
    _deliver(world, "store_sales", "send_store_sales/again", "changed")
    # No run has read these two.
    _sell(world, "unread")
    _sell(world, "twin")
    _sell(world, "twin")


def _loaded_at(world: World) -> datetime:
    """One moment for all of them: a day of the ledger is the day of this column."""
    return world.now - timedelta(minutes=30)


_OF_FATE: Final[Mapping[str, Mapping[str, Any]]] = {
    "negative": {"amount": "-5"},
    "unconsented": {"consent": False},
    "ancient": {"age": timedelta(days=70)},
    "broad": {
        "email": None, "phone": None, "first_name": None, "last_name": None,
        "birthday": None, "ip": None,
    },
    "nophone": {"phone": "Zwitscher"},
}  # fmt: skip


def _sell(world: World, key: str, **given: Any) -> None:
    row = {
        "order_id": key,
        "loaded_at": _loaded_at(world),
        "sold_at": world.now - given.pop("age", timedelta(minutes=90)),
        "email": f" {MAIL.title()} ",
        "phone": PHONE,
        "first_name": "Zwitscher",
        "last_name": "Gelbfeder",
        "birthday": "1987-06-05",
        "gender": "f",
        "country": "US",
        "ip": "81.2.69.160",
        "amount": "12.50",
        "note": "Zaunkönig",
        "items": [{"id": "sku-1", "quantity": 1, "title": "Zaunkönig"}],
        "consent": True,
    } | given
    names = sa.table("sales", *map(sa.column, row), schema="shop")
    with world.engine.begin() as connection:
        connection.execute(sa.insert(names).values(_typed(row)))


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    types = {"items": sa.dialects.postgresql.JSONB, "birthday": sa.Date}
    return {
        name: sa.cast(value, types[name]) if name in types else value
        for name, value in row.items()
    }


def _deliver(
    world: World, name: str, run_id: str, *keys: str, limit: int | None = None
) -> Run:
    """Deliver the feed's interval, or some keys of it, as the operator does."""
    feed = load(world.home / "feeds" / f"{name}.yaml")
    source = Source(world.engine, feed, world.home / "feeds")
    interval = Interval(world.now - timedelta(days=1), world.now)
    slices = (
        source.read_keys([[key] for key in keys], 100)
        if keys
        else source.read(interval, Shard(), 100)
    )
    run = world.ledger.open_run(
        run_id, feed=name, dataset_id=DATASET, mode="send",
        interval=(interval.start, interval.end), plan={},
    )  # fmt: skip
    destination = Destination(
        dataset_id=DATASET, token=TOKEN, environment="local", base_url=world.sim.url
    )
    dispatch.deliver(
        (rows.columns for rows in slices),
        builder=Builder(
            feed, dataset_id=DATASET, digest_key=world.ledger.digest_key(),
            today=world.now.date(),
        ),
        desk=Desk(
            world.ledger, run, host="tests", pid=1,
            policy=ResendPolicy(resend=False, window_seconds=3600),
        ),
        post=Line(destination).post, envelope=Envelope(), limits=feed.limits,
        now=lambda: world.now.timestamp(), wait=lambda _: None, report=lambda _: None,
        limit=limit,
    )  # fmt: skip
    return run
