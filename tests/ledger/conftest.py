"""A workbench: a real ledger, the real Graph API simulator, and rows to deliver."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import requests
from sqlalchemy import create_engine
from tests.conftest import Database

from graph_simulator import Simulator
from meta_capi.desk import Desk
from meta_capi.dispatch import Patience, Tally, deliver
from meta_capi.errors import NoAnswerError
from meta_capi.event import Builder
from meta_capi.feed import Feed, parse
from meta_capi.ledger import Ledger, ResendPolicy, Run
from meta_capi.names import event_id
from meta_capi.payload import Envelope
from meta_capi.verdict import Answer

DATASET = "1234567890123456"
FEED = """
feed: store_orders
description: Store orders for the tests of the ledger.
schedule: "0 * * * *"
start_date: 2026-01-01
source: {table: shop.orders, key: [order_id], cursor: {column: loaded_at}}
event: {name: Purchase, action_source: physical_store, time: {column: bought_at}, id: event_id}
user_data: {em: email}
custom_data: {value: amount, currency: {default: EUR}, order_id: order_id}
consent: {column: consent}
"""
HOUR = 3_600


@dataclass
class Bench:
    """Everything a delivery needs, with knobs."""

    ledger: Ledger
    simulator: Simulator
    dsn: str = field(repr=False)
    feed: Feed = field(default_factory=lambda: parse(FEED))
    policy: ResendPolicy = field(
        default_factory=lambda: ResendPolicy(resend=True, window_seconds=47 * HOUR)
    )
    patience: Patience = field(
        default_factory=lambda: Patience(first_pause=0.0, doubt_pause=60.0)
    )
    waits: list[float] = field(default_factory=list)
    runs: int = 0
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    """Rows are dated by it, so that the same order is the same row."""

    def rows(self, *numbers: int, **changes: Any) -> dict[str, list[Any]]:
        """Return sound orders with these numbers, as columns; `changes` sets columns."""
        now = self.started
        columns: dict[str, list[Any]] = {
            "order_id": [f"o-{number}" for number in numbers],
            "loaded_at": [now - timedelta(minutes=5)] * len(numbers),
            "bought_at": [
                now - timedelta(hours=1, seconds=number % 1_000) for number in numbers
            ],
            "event_id": [None] * len(numbers),
            "email": [f"buyer{number}@shop.example" for number in numbers],
            "amount": ["12.50"] * len(numbers),
            "consent": [True] * len(numbers),
        }
        for name, value in changes.items():
            columns[name] = [value] * len(numbers)
        return columns

    def event_ids(self, *numbers: int) -> frozenset[str]:
        """Return the event ids of orders."""
        return frozenset(
            event_id(DATASET, "Purchase", f"o-{number}") for number in numbers
        )

    def run(self) -> Run:
        """Record a new run."""
        self.runs += 1
        return self.ledger.open_run(
            f"test/{self.runs}", feed=self.feed.feed, dataset_id=DATASET, mode="send",
            interval=None, plan={},
        )  # fmt: skip

    def desk(self, run: Run | None = None, **changes: Any) -> Desk:
        """Sit down at the ledger."""
        return Desk(
            self.ledger, run or self.run(), policy=self.policy, host="test", pid=os.getpid(),
            **changes,
        ).arrive()  # fmt: skip

    def builder(self) -> Builder:
        """Return a fresh builder."""
        return Builder(
            self.feed, dataset_id=DATASET, digest_key=self.ledger.digest_key(),
            today=datetime.now(UTC).date(),
        )  # fmt: skip

    def post(self, body: bytes) -> Answer:
        """Send to the simulator, as the hook does; a short time-out keeps tests short."""
        try:
            response = requests.post(
                f"{self.simulator.url}/v26.0/{DATASET}/events", data=body, timeout=5,
                headers={"Authorization": "Bearer EAABtest", "Content-Type": "application/json"},
                allow_redirects=False,
            )  # fmt: skip
        except requests.exceptions.ConnectionError as error:
            refused = "refused" in str(error).lower()
            raise NoAnswerError("No answer came.", body_left=not refused) from None
        except requests.RequestException:
            raise NoAnswerError("No answer came.", body_left=True) from None
        return Answer(response.status_code, dict(response.headers), response.content)

    def deliver(
        self, *slices: Mapping[str, Sequence[Any]], desk: Desk | None = None,
        post: Callable[[bytes], Answer] | None = None,
        now: Callable[[], float] = time.time, **options: Any,
    ) -> Tally:  # fmt: skip
        """Deliver slices of rows."""
        return self.deliver_each(slices, desk=desk, post=post, now=now, **options)

    def deliver_each(
        self, slices: Iterable[Mapping[str, Sequence[Any]]], *, desk: Desk | None = None,
        post: Callable[[bytes], Answer] | None = None,
        now: Callable[[], float] = time.time,
        report: Callable[[Tally], None] = lambda _: None, **options: Any,
    ) -> Tally:  # fmt: skip
        """Deliver slices as they come."""
        return deliver(
            slices,
            builder=self.builder(),
            desk=desk or self.desk(),
            post=post or self.post,
            envelope=Envelope(),
            limits=self.feed.limits,
            now=now,
            wait=self.waits.append,
            report=report,
            patience=self.patience,
            **options,
        )

    def tune(self, **limits: Any) -> None:
        """Change the feed's limits."""
        self.feed = self.feed.model_copy(
            update={"limits": self.feed.limits.model_copy(update=limits)}
        )

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the ledger's database directly."""
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def states(self) -> dict[str, int]:
        """Return deliveries by state."""
        return dict(
            self.sql("select state::text, count(*) from capi.deliveries group by 1")
        )

    def reasons(self) -> dict[str, int]:
        """Return held deliveries by reason."""
        query = "select reason, count(*) from capi.deliveries where reason is not null group by 1"
        return dict(self.sql(query))

    def receipts(self) -> Counter[str]:
        """Return how often Meta processed each event, by event_id."""
        return Counter(
            {each.event_id: each.processed for each in self.simulator.received(DATASET)}
        )

    def pass_time(self, seconds: float) -> None:
        """Let the ledger's clock run ahead, for every new connection."""
        name = psycopg.conninfo.conninfo_to_dict(self.dsn)["dbname"]
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(
                psycopg.sql.SQL("alter database {} set capi.clock_offset = {}").format(
                    psycopg.sql.Identifier(str(name)),
                    psycopg.sql.Literal(f"{seconds} seconds"),
                )
            )
        self.ledger._engine.dispose()


@pytest.fixture
def ledger(database: Database) -> Iterator[Ledger]:
    """A ledger in a fresh database."""
    engine = create_engine(database.url, hide_parameters=True, pool_size=8)
    ledger = Ledger(engine, patience=3)
    ledger.migrate()
    yield ledger
    engine.dispose()


@pytest.fixture
def bench(ledger: Ledger, database: Database) -> Iterator[Bench]:
    """A workbench with a simulator of its own."""
    with Simulator(datasets=[DATASET], tokens=["EAABtest"]) as simulator:
        yield Bench(ledger, simulator, database.dsn)
