"""Clocks that jump or disagree, days of other lengths, rows that come late."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from tests.airflow.world import DATASET, Messages, World
from tests.faults import world_ledger as world
from tests.faults.world_ledger import Shop, as_counted, nothing_twice
from tests.ledger.conftest import HOUR, Bench

from capi_airflow.stage import Stage
from meta_capi import insight
from meta_capi.errors import ConfigurationError, LeaseLostError
from meta_capi.source import Interval, Shard

ledger, bench = world.ledger, world.bench

FEED = "offline_purchases"
DAY = 24 * HOUR
NIGHTS = {
    "leap day": datetime(2028, 2, 28, 12, tzinfo=UTC),
    "clocks forward": datetime(2026, 3, 28, 12, tzinfo=UTC),
    "clocks back": datetime(2026, 10, 24, 12, tzinfo=UTC),
    "new year": datetime(2026, 12, 31, 0, tzinfo=UTC),
}


@pytest.fixture
def stage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A task's view of its run, on the bench's ledger and simulator."""
    around = World(bench.simulator, bench.started, bench.dsn)
    around.connect_all(monkeypatch, bench.simulator.url)
    context = {
        "params": {}, "dag": SimpleNamespace(dag_id=f"send_{FEED}"),
        "run_id": "scheduled__1", "ti": Messages(),
    }  # fmt: skip
    return Stage(FEED, context)


@pytest.mark.matrix("D9")
class TestClocksThatDisagree:
    @pytest.mark.parametrize("skew", [-2 * DAY, -600, 301, 600, 2 * DAY])
    def test_by_more_than_five_minutes_nothing_is_claimed_or_sent(
        self, bench: Bench, stage: Stage, skew: int
    ) -> None:
        bench.pass_time(skew)
        run = stage.open_run("send", {})

        with pytest.raises(ConfigurationError, match=r"differ by \d+ seconds; nothing"):
            stage.desk(run, None)

        assert bench.sql("select count(*) from capi.workers") == [(0,)]
        assert bench.sql("select count(*) from capi.batches") == [(0,)]

    @pytest.mark.parametrize("skew", [-280, 280])
    def test_by_less_the_worker_sits_down_and_is_not_taken_for_lost(
        self, bench: Bench, stage: Stage, skew: int
    ) -> None:
        """Its lease is 180 seconds, by the ledger's clock alone."""
        bench.pass_time(skew)
        run = stage.open_run("send", {})

        desk = stage.desk(run, None).arrive()

        assert bench.ledger.rescue().workers == 0
        desk.renew()
        bench.pass_time(skew + 181)
        assert bench.ledger.rescue().workers == 1
        with pytest.raises(LeaseLostError):
            desk.renew()


@pytest.mark.matrix("T4")
class TestAClockThatJumpsDuringARun:
    def rows(self, bench: Bench) -> list[dict[str, list[Any]]]:
        bench.tune(requests_in_flight=1)
        return [bench.rows(*range(first, first + 5)) for first in (0, 5, 10)]

    @pytest.mark.parametrize("jump", [-HOUR, HOUR])
    def test_the_workers(self, bench: Bench, jump: int) -> None:
        jumped = 0

        def probe(here: str) -> None:
            nonlocal jumped
            if here == "after_begin":
                jumped = jump

        tally = bench.deliver(
            *self.rows(bench), now=lambda: time.time() + jumped, probe=probe
        )

        assert as_counted(tally) == {"accepted": 15}
        nothing_twice(bench)

    @pytest.mark.parametrize("step", ["after_claim", "after_begin", "after_answer"])
    @pytest.mark.parametrize("jump", [-HOUR, HOUR])
    def test_the_ledgers(self, bench: Bench, step: str, jump: int) -> None:
        """An hour ahead ends every lease: another worker's rescue comes at once."""
        slices = self.rows(bench)
        jumped = False

        def probe(here: str) -> None:
            nonlocal jumped
            if here == step and not jumped:
                jumped = True
                bench.pass_time(jump)
                bench.ledger.rescue()

        with suppress(LeaseLostError):
            bench.deliver(*slices, probe=probe)
        doubted = bench.states().get("in_doubt", 0)
        bench.pass_time(jump + 400)
        bench.ledger.rescue()
        tally = bench.deliver(*slices)

        assert jumped
        assert as_counted(tally) == {"accepted": 15}
        assert len(bench.receipts()) == 15
        assert bench.receipts().total() - 15 <= doubted


@pytest.mark.matrix("T4")
class TestDaysOfOtherLengths:
    @pytest.mark.parametrize("cron", ["5 * * * *", "0 3 * * *"])
    def test_the_runs_intervals_have_every_row_once(
        self, bench: Bench, cron: str
    ) -> None:
        """The intervals are Airflow's own, for the DAG's timetable and its zone, UTC."""
        shop = Shop.open(bench, range(48 * 4))
        source = shop.source()
        for night, begin in NIGHTS.items():
            bench.sql(
                "update shop.orders set loaded_at = %s"
                " + substr(order_id, 3)::integer * interval '15 minutes'",
                begin,
            )
            found: Counter[Any] = Counter()
            for interval in self.intervals(cron, begin - timedelta(hours=27)):
                for some in source.read(interval, Shard(), 1_000):
                    found.update(some.columns["order_id"])
                if interval.end > begin + timedelta(hours=48):
                    break
            assert found == Counter(f"o-{n}" for n in range(48 * 4)), night

    def intervals(self, cron: str, earliest: datetime) -> Iterator[Interval]:
        """Yield the data intervals of a schedule, as the scheduler makes them."""
        # Only now: this import must not come before Airflow's settings.
        from airflow.sdk.timezone import coerce_datetime
        from airflow.timetables.base import TimeRestriction
        from airflow.timetables.interval import CronDataIntervalTimetable

        timetable = CronDataIntervalTimetable(cron, timezone="UTC")
        restriction = TimeRestriction(
            earliest=coerce_datetime(earliest), latest=None, catchup=True
        )
        last = None
        while True:
            info = timetable.next_dagrun_info(
                last_automated_data_interval=last, restriction=restriction
            )
            assert info
            last = info.data_interval
            yield Interval(last.start, last.end)


@pytest.mark.matrix("T5")
class TestARowThatComesLate:
    """Its transaction began at 10:10, and commits long after the run of 11:00 read."""

    @pytest.fixture
    def shop(self, bench: Bench) -> Shop:
        shop = Shop.open(bench, range(10))
        bench.sql("update shop.orders set loaded_at = %s", self.hour(bench, 10, 5))
        return shop

    def hour(self, bench: Bench, hour: int, minute: int = 0) -> datetime:
        day = bench.started.replace(hour=0, minute=0, second=0, microsecond=0)
        return day - timedelta(days=1) + timedelta(hours=hour, minutes=minute)

    def run(self, bench: Bench, shop: Shop, hour: int, lookback: int = 0) -> int:
        """Run the interval that ends at this hour; return how many were accepted now."""
        interval = Interval(
            self.hour(bench, hour - 1 - lookback), self.hour(bench, hour)
        )
        return bench.deliver_each(shop.slices(interval=interval)).accepted_now

    def test_lookback_finds_it_and_sends_nothing_twice(
        self, bench: Bench, shop: Shop
    ) -> None:
        with psycopg.connect(bench.dsn) as late:
            late.execute(
                "insert into shop.orders select 'late', %s, bought_at, event_id, email,"
                " amount, consent from shop.orders limit 1",
                (self.hour(bench, 10, 10),),
            )
            assert self.run(bench, shop, 11, lookback=2) == 10
            assert self.run(bench, shop, 12, lookback=2) == 0
            late.commit()
        assert self.run(bench, shop, 13, lookback=2) == 1
        assert self.run(bench, shop, 14, lookback=2) == 0
        assert bench.states() == {"accepted": 11}
        nothing_twice(bench)

    def test_without_lookback_the_counts_differ_and_running_again_finds_it(
        self, bench: Bench, shop: Shop
    ) -> None:
        """`meta-capi plan` shows both counts, of any interval."""
        assert self.run(bench, shop, 11) == 10
        bench.sql(
            "insert into shop.orders select 'late', %s, bought_at, event_id, email,"
            " amount, consent from shop.orders limit 1",
            self.hour(bench, 10, 10),
        )
        assert self.run(bench, shop, 12) == 0
        assert self.counts(bench, shop) == (11, 10)

        assert self.run(bench, shop, 11) == 1
        assert self.counts(bench, shop) == (11, 11)
        nothing_twice(bench)

    def counts(self, bench: Bench, shop: Shop) -> tuple[int, int]:
        """Return how many rows the source and the ledger have of the hour."""
        start, end = self.hour(bench, 10), self.hour(bench, 11)
        in_source = shop.source().count(Interval(start, end), now=bench.started).rows
        in_ledger = insight.interval_status(
            bench.ledger, bench.feed.feed, start, end, DATASET
        )
        return in_source, sum(in_ledger.values())


@pytest.mark.matrix("T5")
@pytest.mark.parametrize("lookback", [0, 2, 24])
def test_a_feeds_lookback_is_the_intervals_before_its_own(
    stage: Stage, lookback: int
) -> None:
    stage.feed = stage.feed.model_copy(update={"lookback": lookback})
    start = datetime(2026, 3, 29, 1, tzinfo=UTC)
    end = start + timedelta(hours=1)
    stage.context = {
        **stage.context, "data_interval_start": start, "data_interval_end": end,
    }  # fmt: skip

    assert stage.own_interval == Interval(start - lookback * timedelta(hours=1), end)
