"""What no run was planned for is read by the next scheduled one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from tests.airflow.world import DATASET, Messages, World
from tests.ledger.conftest import Bench

from capi_airflow.stage import Stage
from meta_capi.coverage import unread_since
from meta_capi.source import Interval

FEED = "offline_purchases"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LONG_AGO = NOON - timedelta(days=7)


def at(hour: float) -> datetime:
    """Return a moment, in hours before or after noon."""
    return NOON + timedelta(hours=hour)


def plan(bench: Bench, *runs: tuple[float, float], mode: str = "send") -> None:
    """Plan runs for intervals, in hours before or after noon."""
    for start, end in runs:
        bench.ledger.open_run(
            f"send/{mode}/{start}/{end}", feed=FEED, dataset_id=DATASET, mode=mode,
            interval=(at(start), at(end)), plan={},
        )  # fmt: skip


class TestUnreadSince:
    @pytest.mark.parametrize(
        ("runs", "since"),
        [
            pytest.param([], 0, id="the first run reads its own interval"),
            pytest.param([(-1, 0)], 0, id="the run before ends where this one begins"),
            pytest.param([(-9, -8)], -8, id="eight hours were left out"),
            pytest.param([(-9, -8), (-5, 0)], -8, id="a hole between runs"),
            pytest.param(
                [(-9, -8), (-7, -6), (-4, -3)], -8, id="the first of several holes"
            ),
            pytest.param([(-9, -3), (-4, 0)], 0, id="intervals that overlap"),
            pytest.param([(-9, -3), (2, 3)], -3, id="a later run fills no hole"),
            pytest.param([(-9, -3), (-2, 5)], -3, id="a run beyond this one's start"),
            pytest.param(
                [(-400, -399)], -168, id="no further back than is still of use"
            ),
            pytest.param([(-400, -100), (-90, 0)], -100, id="a hole within the floor"),
        ],
    )
    def test_is_the_first_moment_nobody_read(
        self, bench: Bench, runs: list[tuple[float, float]], since: float
    ) -> None:
        plan(bench, *runs)

        found = unread_since(
            bench.ledger, "send/now", feed=FEED, dataset_id=DATASET, start=NOON,
            floor=LONG_AGO,
        )  # fmt: skip

        assert found == at(since)

    def test_looks_at_no_other_feed_no_rehearsal_and_not_at_the_run_itself(
        self, bench: Bench
    ) -> None:
        plan(bench, (-9, -8))
        plan(bench, (-8, -4), mode="dry_run")
        bench.ledger.open_run(
            "other", feed="other", dataset_id=DATASET, mode="send",
            interval=(at(-8), at(0)), plan={},
        )  # fmt: skip
        bench.ledger.open_run(
            "send/now", feed=FEED, dataset_id=DATASET, mode="send",
            interval=(at(-8), at(1)), plan={},
        )  # fmt: skip

        found = unread_since(
            bench.ledger, "send/now", feed=FEED, dataset_id=DATASET, start=NOON,
            floor=LONG_AGO,
        )  # fmt: skip

        assert found == at(-8)

    def test_a_run_up_to_a_moment_to_come_has_not_read_what_comes_till_then(
        self, bench: Bench
    ) -> None:
        now = bench.ledger.clock()
        day = timedelta(days=1)
        for name, end in (("by hand", now + 30 * day), ("scheduled", now)):
            bench.ledger.open_run(
                name, feed=FEED, dataset_id=DATASET, mode="send",
                interval=(now - day, end), plan={},
            )  # fmt: skip

        found = unread_since(
            bench.ledger, "send/now", feed=FEED, dataset_id=DATASET, start=now + day,
            floor=now - 7 * day,
        )  # fmt: skip

        assert now <= found < now + timedelta(minutes=1)

    def test_a_floor_after_the_start_changes_nothing(self, bench: Bench) -> None:
        plan(bench, (-9, -8))

        found = unread_since(
            bench.ledger, "send/now", feed=FEED, dataset_id=DATASET, start=NOON,
            floor=at(3),
        )  # fmt: skip

        assert found == NOON


class TestTheNextRunAfterAPause:
    @pytest.fixture
    def stage(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Stage:
        World(bench.simulator, bench.started, bench.dsn).connect_all(
            monkeypatch, bench.simulator.url
        )
        plan(bench, (-9, -8))
        return Stage(
            FEED,
            {
                "params": {}, "dag": SimpleNamespace(dag_id=f"send_{FEED}"),
                "run_id": "scheduled__1", "ti": Messages(),
                "dag_run": SimpleNamespace(run_type="scheduled"),
                "data_interval_start": at(-1), "data_interval_end": at(0),
            },
        )  # fmt: skip

    def test_reads_what_the_missed_ones_would_have_read(self, stage: Stage) -> None:
        assert stage.choose_interval() == Interval(at(-10), at(0))

    def test_every_task_of_it_reads_the_interval_that_was_planned(
        self, stage: Stage
    ) -> None:
        stage.open_run("send", {}, stage.choose_interval())

        assert stage.interval == Interval(at(-10), at(0))

    def test_planned_again_it_reads_the_same(self, stage: Stage) -> None:
        stage.open_run("send", {}, stage.choose_interval())

        assert stage.choose_interval() == Interval(at(-10), at(0))

    @pytest.mark.parametrize("kind", ["backfill", "manual", "asset_triggered"])
    def test_other_runs_read_what_they_were_asked_for(
        self, stage: Stage, kind: str
    ) -> None:
        stage.context = {**stage.context, "dag_run": SimpleNamespace(run_type=kind)}

        assert stage.choose_interval() == Interval(at(-3), at(0))

    def test_a_feed_may_say_no(self, stage: Stage) -> None:
        stage.feed = stage.feed.model_copy(update={"catch_up": False})

        assert stage.choose_interval() == Interval(at(-3), at(0))
