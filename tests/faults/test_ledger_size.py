"""A ledger that has grown old: what is finished costs what waits nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.faults import world_ledger as world
from tests.ledger.conftest import DATASET, HOUR, Bench

from graph_simulator import Fault, FaultKind

ledger, bench = world.ledger, world.bench

FINISHED = 200_000
FEW = 20_000


def grow_old(dsn: str, feed: str, finished: int) -> None:
    """Put deliveries into the ledger that Meta took long ago."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        # The edges of a life are not the question here.
        connection.execute("set session_replication_role = replica")
        connection.execute(
            """
            insert into capi.deliveries (
                dataset_id, feed, source_key, event_name, event_id, state, event_time,
                cursor_at, batch_id, run_no, digest, not_before, settled_at
            )
            select %s, %s, 'old-' || n, 'Purchase', 'c1.old' || n, 'accepted', moment,
                moment, -n / 1000, -n / 10000, '\\x00', null, moment
            from generate_series(1, %s) as n,
                lateral (select now() - interval '1 year' * n / %s as moment) as past
            """,
            (DATASET, feed, finished, finished),
        )
        connection.execute("vacuum analyze capi.deliveries")


@pytest.mark.matrix("D10")
class TestAnOldLedger:
    @pytest.fixture
    def old(self, bench: Bench) -> Bench:
        """A ledger with many finished deliveries, one refused, one in doubt, one waiting."""
        grow_old(bench.dsn, bench.feed.feed, FINISHED)
        return bench

    def test_no_statement_walks_through_what_is_finished(self, old: Bench) -> None:
        """Each is made often enough for PostgreSQL to plan it without its values."""
        with self.no_walk(old, "record, claim, begin, settle, split, leave"):
            for first in range(0, 240, 20):
                old.simulator.faults.clear()
                old.simulator.faults.add(
                    Fault(
                        kind=FaultKind.REFUSE_IF, count=None, subcode=2804019,
                        event_ids=old.event_ids(first),
                    )
                )  # fmt: skip
                rows = old.rows(*range(first, first + 20))
                rows["consent"][19] = None
                old.deliver(rows)
        with self.no_walk(old, "compare and touch"):
            old.deliver(old.rows(*range(240), amount="13.00"), limit=5)
        old.simulator.faults.clear()
        old.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=500, count=None))
        old.deliver(old.rows(500, 501))
        feed, oldest = old.feed.feed, datetime.now(UTC) - timedelta(days=62)
        for name, step in self.upkeep(old, feed, oldest):
            with self.no_walk(old, name):
                for _ in range(12):
                    step()
        desk = old.desk()
        built = old.builder().build(old.rows(600, 601), int(time.time()))
        [batch] = desk.claim(built, most_events=10, most_bytes=10_000).batches
        desk.begin(batch)
        old.pass_time(HOUR)
        with self.no_walk(old, "rescue"):
            assert old.ledger.rescue().in_doubt == 2

    @pytest.mark.parametrize(
        "known", ["another feed", None], ids=["of this feed", "of any"]
    )
    def test_nor_where_the_planner_has_no_statistics(
        self, bench: Bench, known: str | None
    ) -> None:
        """It then expects one delivery of the feed, and walking past one seems cheap."""
        bench.sql("alter table capi.deliveries set (autovacuum_enabled = off)")
        if known:
            grow_old(bench.dsn, known, 1000)
        for first in range(0, FEW, 2000):
            bench.deliver(bench.rows(*range(first, first + 2000)))
        with self.no_walk(bench, "compare and touch", most=5 * FEW // 10):
            for first in range(0, FEW, FEW // 10):
                again = range(first, first + FEW // 100)
                bench.deliver(bench.rows(*again, amount="13.00"))
        assert bench.sql(
            "select count(*) from capi.deliveries where changed_after_send"
        ) == [(FEW // 10,)]

    def upkeep(
        self, old: Bench, feed: str, oldest: datetime
    ) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Return what `tend_deliveries` asks of the ledger all day."""
        yield "rescue of nobody", old.ledger.rescue
        yield "expire", lambda: old.ledger.expire(feed, DATASET, oldest)
        yield (
            "close doubt",
            lambda: old.ledger.close_doubt(feed, DATASET, old.policy),
        )
        yield (
            "due keys",
            lambda: old.ledger.due_keys(feed, DATASET, old.policy, limit=1_000),
        )

    @contextmanager
    def no_walk(
        self, bench: Bench, name: str, most: int = FINISHED // 10
    ) -> Iterator[None]:
        """Assert that the deliveries are found by index only, and few of them looked at."""
        before = self.walks(bench)
        yield
        scans, looked_at = (
            after - at for after, at in zip(self.walks(bench), before, strict=True)
        )
        assert scans == 0, f"{name} reads all deliveries, one after the other"
        assert looked_at < most, f"{name} looks at {looked_at} deliveries"

    def walks(self, bench: Bench) -> tuple[int, int]:
        """Return PostgreSQL's own counts: whole-table scans, and rows fetched by index."""
        bench.ledger._engine.dispose()  # a session tells its figures when it ends
        sessions = (
            "select count(*) from pg_stat_activity where pid <> pg_backend_pid()"
            " and datname = current_database()"
        )
        while bench.sql(sessions) != [(0,)]:
            time.sleep(0.01)
        query = """
            select coalesce(sum(t.seq_scan), 0)::bigint, (
                select coalesce(sum(idx_tup_read), 0)::bigint
                from pg_stat_user_indexes where relname = 'deliveries'
            )
            from pg_stat_user_tables t where t.relname = 'deliveries'
        """
        [counts] = bench.sql(query)
        return counts[0], counts[1]
