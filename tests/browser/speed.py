"""How long the pages take over a big ledger: `python -m tests.browser.speed --rows 10000000`.

A ledger of sixty days and three feeds is filled by one INSERT, its triggers asleep; then
each page is asked for in this process, sign-in left out, and its time printed: on the
clock, and the processors', which other programs on the machine do not lengthen. So are
the figures that alerts are judged by.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # as in demo.processes
import psycopg
from sqlalchemy import create_engine

from demo.postgres import Postgres
from meta_capi.alert_book import look
from meta_capi.feed import Feed, load
from meta_capi.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
DATASET = "1234567890123456"
FEEDS = ("crm_leads", "offline_purchases", "phone_orders")
RUNS = """
insert into capi.runs (run_id, feed, dataset_id, mode, state)
select 'send_' || f || '/r' || n, f, %s, 'send', 'reported'
from unnest(%s::text[]) f, generate_series(1, 200) n;
"""
FILL = """
insert into capi.deliveries (
    dataset_id, feed, source_key, event_name, event_id, state, reason, event_time,
    cursor_at, batch_id, run_no, match_keys, digest, value, currency, not_before, settled_at
)
select
    %(dataset)s, (%(feeds)s::text[])[1 + n %% 3], 'K-' || n, 'Purchase',
    md5(n::text), s.state::capi.delivery_state, s.reason, c.at - interval '3 hours', c.at,
    case when s.state in ('accepted', 'refused') then n / 1000 + 1 end, 1 + n %% 600,
    (array[1055, 1054, 31, 1023, 2047, 5, 1])[1 + n %% 7], '\\x00112233445566778899aabbccddeeff',
    case when s.state = 'accepted' then (n %% 20000) / 100.0 end,
    (array['EUR', 'USD', 'CHF'])[1 + n %% 3], null, c.at + interval '20 minutes'
from generate_series(1, %(rows)s) n
cross join lateral (
    select %(now)s - (n * 86400.0 * 60 / %(rows)s) * interval '1 second' as at
) c
cross join lateral (
    select
        case
            when n %% 100 < 94 then 'accepted' when n %% 100 < 96 then 'quarantined'
            when n %% 100 < 98 then 'withheld' when n %% 100 < 99 then 'expired'
            else 'refused'
        end as state,
        case
            when n %% 100 < 94 then null
            when n %% 100 < 96 then
                (array['currency.unknown', 'time.missing', 'value.missing'])[1 + n / 7 %% 3]
            when n %% 100 < 98 then 'consent.not_given' when n %% 100 < 99 then 'window.over'
            else 'meta.100.2804019'
        end as reason
) s;
"""
INDEXES = """
select c.relname, pg_get_constraintdef(k.oid), pg_get_indexdef(i.indexrelid)
from pg_index i
join pg_class c on c.oid = i.indexrelid
left join pg_constraint k on k.conindid = i.indexrelid
where i.indrelid = 'capi.deliveries'::regclass
"""
REST = """
insert into capi.workers (run_no, feed, dataset_id, host, pid, lease_until)
select run_no, feed, dataset_id, 'h', 1, now() from capi.runs;
insert into capi.batches (
    batch_id, root_id, worker_id, run_no, feed, dataset_id, events, bytes, state, settled_at
)
select n, n, 1 + n % 600, 1 + n % 600, r.feed, r.dataset_id, 1000, 900000, 'accepted', now()
from generate_series(1, (select max(batch_id) from capi.deliveries)) n
join capi.runs r on r.run_no = 1 + n % 600;
insert into capi.attempts (batch_id, seq, outcome, started_at, finished_at, http_status)
select batch_id, 1, 'accepted', now() - batch_id * interval '500 seconds',
    now() - batch_id * interval '500 seconds' + interval '300 ms', 200
from capi.batches;
"""


def main() -> None:
    """Fill a ledger and time the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="capi-page-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Postgres(folder, durable=False) as server:
            server.create_database("big")
            Ledger(create_engine(server.url("big"))).migrate()
            with psycopg.connect(server.dsn("big"), autocommit=True) as connection:
                _fill(connection, options.rows)
                _time_all(connection, server.dsn("big"), options.repeats)


def _fill(connection: psycopg.Connection[Any], rows: int) -> None:
    connection.execute("set session_replication_role = replica")
    # Indexes are made quicker at once than row by row.
    made = connection.execute(INDEXES).fetchall()
    for name, constraint, _ in made:
        connection.execute(
            f"alter table capi.deliveries drop constraint {name}"
            if constraint
            else f"drop index capi.{name}"
        )
    with _timed(f"{rows:,} deliveries inserted"):
        connection.execute(RUNS, (DATASET, list(FEEDS)))
        connection.execute(
            FILL,
            {
                "dataset": DATASET,
                "feeds": list(FEEDS),
                "rows": rows,
                "now": datetime.now(UTC),
            },
        )
        connection.execute(REST)
    with _timed("indexed"):
        for name, constraint, definition in made:
            connection.execute(
                f"alter table capi.deliveries add constraint {name} {constraint}"
                if constraint
                else definition
            )
    connection.execute("set session_replication_role = origin")
    with _timed("vacuumed and analysed"):
        connection.execute("vacuum analyze")
    with _timed("all days counted for the first time"):
        connection.execute(
            "insert into capi.touched_days select distinct dataset_id, feed,"
            " (cursor_at at time zone 'UTC')::date from capi.deliveries"
        )
        connection.execute("select capi.count_touched_days()")


def _time_all(connection: psycopg.Connection[Any], dsn: str, repeats: int) -> None:
    client = _client(dsn)
    today = datetime.now(UTC).date()
    pages: list[tuple[str, str, dict[str, str] | None]] = [
        ("first page, 30 days", "/", None),
        ("first page, 90 days", "/?days=90", None),
        ("one feed, 30 days", "/feeds/offline_purchases", None),
        ("one feed, 90 days", "/feeds/offline_purchases?days=90", None),
        ("one day", f"/feeds/offline_purchases/days/{today - timedelta(days=9)}", None),
        ("what is held", "/feeds/offline_purchases/held", None),
        (
            "one reason",
            "/feeds/offline_purchases/held?state=quarantined&reason=time.missing",
            None,
        ),
        ("one run", "/runs/7", None),
        ("one batch", "/batches/77", None),
        ("search by key", "/search", {"key": "K-4711"}),
    ]
    feed = load(ROOT / "include" / "feeds" / "offline_purchases.yaml")
    ledger = Ledger(create_engine(dsn.replace("postgresql:", "postgresql+psycopg:")))
    deeds: list[tuple[str, Callable[[], object]]] = [
        *((words, partial(_page, client, path, form)) for words, path, form in pages),
        ("figures for alerts", partial(_figures, ledger, feed)),
    ]
    for touched in (0, 3):
        if touched:
            connection.execute(
                "update capi.deliveries set resends = resends where (feed, source_key) in"
                " (('phone_orders', 'K-2'), ('offline_purchases', 'K-1'), ('crm_leads', 'K-3'))"
            )
        for words, deed in deeds:
            times, work = [], []
            for _ in range(repeats):
                begun, worked = time.perf_counter(), _cpu(connection)
                deed()
                times.append(time.perf_counter() - begun)
                work.append(_cpu(connection) - worked)
            _say(
                f"{touched} days changing  {words:<20} best {min(times):6.3f} s  "
                f"median {statistics.median(times):6.3f} s  CPU {min(work):6.3f} s"
            )


def _page(client: Any, path: str, form: dict[str, str] | None) -> None:
    answer = client.request("POST" if form else "GET", path, data=form)
    assert answer.status_code == 200, answer.text


def _figures(ledger: Ledger, feed: Feed) -> None:
    """Look at the feed as `tend_deliveries` does every ten minutes."""
    look(
        ledger, feed, DATASET, datetime.now(UTC), graph_version="v26.0",
        token_expires=None,
    )  # fmt: skip


def _cpu(connection: psycopg.Connection[Any]) -> float:
    """Return the processor time of this process and of the database's for it."""
    rows = connection.execute("select pid from pg_stat_activity where datname = 'big'")
    spent = [psutil.Process(pid).cpu_times() for (pid,) in rows]
    return time.process_time() + sum(each.user + each.system for each in spent)


def _client(dsn: str) -> Any:
    info = psycopg.conninfo.conninfo_to_dict(dsn)
    os.environ["AIRFLOW_CONN_CAPI_LEDGER"] = json.dumps({
        "conn_type": "postgres", "host": info["host"], "port": int(str(info["port"])),
        "schema": info["dbname"], "login": info["user"], "password": info["password"],
    })  # fmt: skip
    from fastapi.testclient import TestClient

    from capi_airflow.page.app import build
    from capi_airflow.page.guard import Reader, reader
    from capi_airflow.page.house import House, Ledgers

    class Everyone(Reader):
        """One who may see all feeds."""

        def _may_read(self, feed: str) -> bool:
            return True

        @property
        def may_replay(self) -> bool:
            return True

    ledgers = Ledgers()
    made = build(lambda: House(ledgers))
    made.dependency_overrides[reader] = lambda: Everyone(None, House(ledgers))  # type: ignore[arg-type]
    return TestClient(made)


@contextmanager
def _timed(words: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    _say(f"{words}: {time.perf_counter() - begun:.1f} s")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
