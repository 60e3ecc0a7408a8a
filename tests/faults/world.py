"""What the workers meet: a warehouse and a ledger in PostgreSQL, and a Meta.

Each is a real process of its own, which can be killed and started again. The clock of
the ledger and of Meta can be moved; no other time is touched.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import SystemRandom
from typing import Any, Final, Self

import psutil  # type: ignore[import-untyped]
import psycopg
import sqlalchemy as sa
from psycopg import sql
from tests.faults.local_meta import CLOCK

from demo.postgres import Postgres
from meta_capi.ledger import Ledger
from meta_capi.names import event_id

ROOT: Final = Path(__file__).resolve().parents[2]
TOKEN: Final = "EAABtokenOfTheHarness0123456789"
DATABASE: Final = "faults"
_PATIENCE: Final = 60.0
_FEED: Final = """
feed: orders
description: Orders of the kill harness.
schedule: "0 * * * *"
start_date: 2026-01-01
source: {{table: shop.orders, key: [order_id], cursor: {{column: loaded_at}}}}
event: {{name: Purchase, action_source: {action_source}, time: {{column: bought_at}}}}
user_data: {{em: email}}
custom_data: {{value: amount, currency: {{default: EUR}}, order_id: order_id}}
consent: {{column: consent}}
on_in_doubt: {policy}
limits: {limits}
"""
_SHOP: Final = """
create schema shop;
create table shop.orders (
    order_id text primary key, loaded_at timestamptz not null,
    bought_at timestamptz not null, email text, amount text, consent boolean
);
create index on shop.orders (loaded_at);
-- The harness's own eye: which batches each event was ever in.
create schema harness;
create table harness.moves (
    dataset_id text, source_key text, batch_id bigint,
    primary key (dataset_id, source_key, batch_id)
);
create function harness.note() returns trigger language plpgsql as $$
begin
    insert into harness.moves values (new.dataset_id, new.source_key, new.batch_id)
    on conflict do nothing;
    return null;
end $$;
create trigger note after insert or update on capi.deliveries
for each row when (new.state = 'claimed') execute function harness.note();
-- What the naive sender knows.
create table harness.sent (dataset_id text, order_id text, primary key (dataset_id, order_id));
"""
# What a row is made of decides what must become of it.
FATES: Final[Mapping[str, Mapping[str, Any]]] = {
    "good": {},
    "bad": {},  # Meta refuses it
    "withheld": {"consent": False},
    "expired": {"age": timedelta(days=70)},
    "quarantined": {"amount": "-5"},
}


@dataclass(frozen=True, slots=True)
class Order:
    """A row of the source, and what must become of it."""

    key: str
    fate: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """One arrival of an event at Meta, from Meta's own record."""

    at: float
    request: int
    processed: bool


@dataclass
class Shop:
    """One trial's rows, feed and dataset."""

    world: World = field(repr=False)
    dataset: str
    policy: str
    orders: Sequence[Order] = field(repr=False)
    since: datetime
    record_at: int
    """Where this trial begins in Meta's record."""

    def interval(self, first: float = 0.0, last: float = 1.0) -> tuple[str, str]:
        """Return a part of the hour in which the rows became known, as a form has it."""
        start = self.since + timedelta(hours=first)
        end = self.since + timedelta(hours=last)
        return start.isoformat(), end.isoformat()

    def states(self) -> dict[str, int]:
        """Return deliveries by state."""
        found = self.world.sql(
            "select state::text, count(*) from capi.deliveries where dataset_id = %s"
            " group by 1",
            self.dataset,
        )
        return dict(found)

    def receipts(self) -> dict[str, list[Receipt]]:
        """Return what arrived at Meta, by event id."""
        return self.world.receipts(self.dataset, self.record_at)

    def requests(self) -> int:
        """Return how many requests arrived whole."""
        return len({r.request for each in self.receipts().values() for r in each})


class World:
    """One shard's PostgreSQL and Meta, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record.jsonl"
        self._clock = folder / "clock"
        self.home = folder / "home"
        self.log = folder / "workers.log"
        self.ahead = 0.0
        self._trials = 0
        self._meta_port = free_port()
        self._meta: subprocess.Popen[str] | None = None
        # Named, so that a server that is started again is where it was.
        self.postgres = Postgres(folder / "postgres", port=free_port(), durable=False)

    # --- coming and going ----------------------------------------------------------

    def __enter__(self) -> Self:
        (self.home / "feeds").mkdir(parents=True, exist_ok=True)
        self._clock.write_bytes(CLOCK.pack(0.0))
        self.postgres.start()
        try:
            self._furnish()
            self.start_meta()
        except BaseException:
            self.postgres.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_meta()
        self.postgres.stop()

    def _furnish(self) -> None:
        self.postgres.create_database(DATABASE)
        info = psycopg.conninfo.conninfo_to_dict(self.dsn)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            # An immediate stop must lose no commit. The server is not durable against a
            # power cut of the machine, which nobody plays here.
            connection.execute("alter database faults set synchronous_commit = on")
            # Thousands of workers sign in.
            connection.execute("set scram_iterations = 1")
            connection.execute(
                sql.SQL("alter role {} password {}").format(
                    sql.Identifier(str(info["user"])), sql.Literal(info["password"])
                )
            )
        engine = sa.create_engine(self.postgres.url(DATABASE), hide_parameters=True)
        Ledger(engine).migrate()
        engine.dispose()
        self.sql(_SHOP)

    def start_meta(self, *, counts_repeats: bool = False) -> None:
        """Start the local Graph API; it finds its record.

        Args:
            counts_repeats: let it count a server event as often as it comes.
        """
        command = [
            sys.executable, "-m", "tests.faults.local_meta", "--port",
            str(self._meta_port), "--record", str(self.record), "--clock",
            str(self._clock),
        ]  # fmt: skip
        if counts_repeats:
            command.append("--counts-repeats")
        with (self.folder / "meta.log").open("a") as log:
            self._meta = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'include'}:{ROOT}"},
            )  # fmt: skip
        assert self._meta.stdout is not None
        if self._meta.stdout.readline() != "ready\n":
            raise RuntimeError(f"The local Meta does not start; see {self.folder}.")

    def kill_meta(self) -> None:
        """Kill the local Graph API; its record stays."""
        if self._meta is not None:
            self._meta.kill()
            self._meta.communicate()
            self._meta = None

    def strike_database(self) -> None:
        """Stop PostgreSQL as `pg_ctl stop -m immediate` does."""
        text = (self.postgres.folder / "data" / "postmaster.pid").read_text()
        server = psutil.Process(int(text.split()[0]))
        server.send_signal(signal.SIGQUIT)
        server.wait(_PATIENCE)

    def restore_database(self) -> None:
        """Start PostgreSQL, which recovers from its crash."""
        self.postgres.start()

    # --- the ledger -----------------------------------------------------------------

    @property
    def dsn(self) -> str:
        """The address that psycopg takes."""
        return self.postgres.dsn(DATABASE)

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask or change the database, on a connection that does not stay."""
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def jump(self, seconds: float) -> None:
        """Let time pass at the ledger and at Meta, for every new connection."""
        self._set_ahead(self.ahead + seconds)

    def _set_ahead(self, seconds: float) -> None:
        self.ahead = seconds
        self.sql(f"alter database faults set capi.clock_offset = '{seconds} seconds'")
        # In place: Meta has the file in its memory.
        with self._clock.open("r+b") as file:
            file.write(CLOCK.pack(seconds))

    # --- Meta -------------------------------------------------------------------------

    @property
    def meta_url(self) -> str:
        """Where the local Graph API listens."""
        return f"http://127.0.0.1:{self._meta_port}"

    def ask_meta(self, method: str, page: str, content: object = None) -> Any:
        """Ask the local Graph API itself for something; return what it tells."""
        connection = http.client.HTTPConnection("127.0.0.1", self._meta_port)
        connection.request(method, f"/_simulator/{page}", json.dumps(content))
        answer = connection.getresponse()
        told = answer.read()
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"The local Meta refuses {page}: {told!r}")
        return json.loads(told)

    def counted(self, dataset: str) -> int:
        """Return how many events Meta counts, after its own de-duplication."""
        datasets = self.ask_meta("GET", "stats")["datasets"]
        return int(datasets.get(dataset, {}).get("processed", 0))

    def await_quiet(self) -> None:
        """Wait until Meta has nothing in hand, from the dead neither."""
        assert self._meta is not None
        meta = psutil.Process(self._meta.pid)
        end = time.monotonic() + _PATIENCE
        while any(c.status != "LISTEN" for c in meta.net_connections("tcp")):
            if time.monotonic() > end:
                raise RuntimeError("The local Meta does not come to rest.")
            time.sleep(0.003)

    def recorded(self) -> int:
        """Return how long Meta's record is, in bytes."""
        return _size(self.record)

    def receipts(self, dataset: str, since: int) -> dict[str, list[Receipt]]:
        """Return what arrived for a dataset, from the record that Meta writes first."""
        found: dict[str, list[Receipt]] = {}
        for entry in _lines(self.record, since):
            if entry.get("dataset") != dataset:
                continue
            receipt = Receipt(entry["at"], entry["request"], entry["processed"])
            for _, name, *_ in entry.get("rows") or entry["arrivals"]:
                found.setdefault(name, []).append(receipt)
        return found

    # --- trials -------------------------------------------------------------------------

    def open_shop(
        self, fates: Sequence[str], *, policy: str = "resend",
        action_source: str = "physical_store", **limits: int,
    ) -> Shop:  # fmt: skip
        """Give a trial its rows, its feed and a dataset of its own."""
        self._trials += 1
        self._set_ahead(0.0)
        self.ask_meta("POST", "reset")
        dataset = str(10**15 + time.time_ns() // 1_000 % 10**14)
        since = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
        orders = []
        rows = []
        for number, fate in enumerate(fates):
            key = f"o-{self._trials}-{number:04}"
            orders.append(Order(key, fate, event_id(dataset, "Purchase", key)))
            special = dict(FATES[fate])
            rows.append(
                (
                    key, since + timedelta(hours=1) * ((number + 0.5) / len(fates)),
                    since - special.pop("age", timedelta(hours=1)),
                    f"buyer{number}@shop.example", special.get("amount", "12.50"),
                    special.get("consent", True),
                )
            )  # fmt: skip
        with psycopg.connect(self.dsn) as connection, connection.cursor() as cursor:
            cursor.execute("truncate shop.orders, harness.moves, harness.sent")
            with cursor.copy("copy shop.orders from stdin") as copy:
                for row in rows:
                    copy.write_row(row)
        feed = _FEED.format(
            policy=policy,
            action_source=action_source,
            limits=json.dumps({"in_doubt_resends": 20, **limits}),
        )
        (self.home / "feeds" / "orders.yaml").write_text(feed, encoding="utf-8")
        self.disarm(orders)
        return Shop(self, dataset, policy, orders, since, self.recorded())

    def arm(self, *faults: Mapping[str, Any]) -> None:
        """Let things go wrong at Meta."""
        self.ask_meta("POST", "faults", faults)

    def disarm(self, orders: Sequence[Order]) -> None:
        """Let nothing go wrong any more, but that Meta refuses what is bad."""
        bad = [order.event_id for order in orders if order.fate == "bad"]
        refused = {"kind": "refuse_if", "event_ids": bad, "count": None}
        # At once: the request of a worker that was killed may still be on its way.
        self.ask_meta("PUT", "faults", [refused] if bad else [])

    def environ(self, dataset: str, *, meta_port: int | None = None) -> dict[str, str]:
        """Return what a worker finds in its environment."""
        info = psycopg.conninfo.conninfo_to_dict(self.dsn)
        database = {
            "conn_type": "postgres", "host": info["host"], "port": int(info["port"]),
            "schema": info["dbname"], "login": info["user"],
            "password": info["password"],
        }  # fmt: skip
        meta = {
            "conn_type": "meta_capi", "password": TOKEN,
            "host": f"http://127.0.0.1:{meta_port}" if meta_port else self.meta_url,
            "extra": {"dataset_id": dataset, "environment": "local"},
        }  # fmt: skip
        return {
            "META_CAPI_HOME": str(self.home),
            "AIRFLOW_CONN_CAPI_WAREHOUSE": json.dumps(database),
            "AIRFLOW_CONN_CAPI_LEDGER": json.dumps(database),
            "AIRFLOW_CONN_META_CAPI_DEFAULT": json.dumps(meta),
        }


def _lines(record: Path, since: int) -> Iterator[dict[str, Any]]:
    with suppress(FileNotFoundError), record.open("rb") as file:
        file.seek(since)
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def free_port() -> int:
    """Find a port that is not lent to clients: a server comes back to it."""
    while True:
        port = SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
