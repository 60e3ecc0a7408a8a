"""Airflow itself breaks in the middle of a delivery; the ledger stays true.

Airflow gives no mutual exclusion: in some of these stories two tries of one task are at
work at a time, and what Airflow shows says little about what was sent. The truth is what
Meta took.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from tests.journeys.airflow_faults import TOKEN, World, awaited, gone
from tests.journeys.airflow_feeds import DATASET, id_of
from tests.journeys.airflow_scenes import (
    FEEDS,
    HOUSE,
    LONG,
    TASKS,
    THOUGHT,
    Scene,
    meet,
    play,
)

from demo.postgres import Postgres
from graph_simulator import FaultKind, Simulator
from meta_capi.ledger import Ledger

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One Airflow for all of this."""
    with tempfile.TemporaryDirectory(prefix="capi-faults-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL does not run as root.
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        with (
            Postgres(folder / "ledger", durable=False) as ledger,
            Simulator(datasets=[DATASET], tokens=[TOKEN]) as simulator,
        ):
            ledger.create_database("faults")
            engine = create_engine(ledger.url("faults"), hide_parameters=True)
            Ledger(engine).migrate()
            engine.dispose()
            known = hour - timedelta(hours=3, minutes=30)
            world = World(folder, ledger, simulator, FEEDS, known)
            try:
                world.furnish()
                world.open()
                for feed in FEEDS.values():
                    world.arm(feed, FaultKind.DELAY, seconds=THOUGHT)
                yield world
            finally:
                world.close()


@pytest.fixture(scope="module")
def met_and_played(world: World) -> tuple[list[dict[str, Any]], dict[str, Scene]]:
    """Break tasks, each of a feed of its own, all at the same time."""
    with ThreadPoolExecutor(len(TASKS) + 1) as pool:
        meeting = pool.submit(meet, world)
        played = {
            name: pool.submit(play, world, name, strike, shards)
            for name, (strike, shards) in TASKS.items()
        }
        scenes = {name: future.result() for name, future in played.items()}
        return meeting.result(), scenes


@pytest.fixture(scope="module")
def meeting(met_and_played: tuple[list[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    """The runs that met."""
    return met_and_played[0]


@pytest.fixture(scope="module")
def scenes(met_and_played: tuple[Any, dict[str, Scene]]) -> dict[str, Scene]:
    """What became of the broken tasks."""
    return met_and_played[1]


@pytest.fixture(scope="module")
def house(world: World, scenes: dict[str, Scene]) -> dict[str, Scene]:
    """Break Airflow's own parts, one after the other."""
    return {name: play(world, name, strike) for name, strike in HOUSE.items()}


@pytest.fixture(scope="module")
def arrived_before(world: World, house: dict[str, Scene]) -> int:
    """Lose Airflow and all it knew in the middle of a run; begin anew with the ledger.

    Returns what Meta had got until then.
    """
    feed = FEEDS["forgotten"]
    world.trigger(feed)
    (task,) = world.caught(feed)
    world.lose()
    gone(task.process)
    before = world.arrived()
    world.open()
    return before


@pytest.fixture(scope="module")
def tended(world: World, arrived_before: int) -> None:
    """Mend Meta, let the leases end, and let `tend_deliveries` do its work."""
    world.armed.clear()
    world.simulator.faults.clear()
    world.pass_time(200)
    world.airflow.unpause("tend_deliveries")
    awaited(lambda: all(set(world.states(f)) == {"accepted"} for f in FEEDS.values()))


@pytest.mark.matrix("P3")
class TestTheSupervisorIsKilled:
    def test_the_kernel_tells_its_task_which_ends_in_order(
        self, world: World, scenes: dict[str, Scene]
    ) -> None:
        scene = scenes["bereft"]
        assert scene.begun == 0
        assert world.doubted(FEEDS["bereft"]) == 0
        assert scene.tasks["deliver[0]"] == ("success", 2)
        assert scene.states == {"accepted": LONG}

    def test_without_the_kernels_word_both_work_and_the_ledger_keeps_them_apart(
        self, world: World, scenes: dict[str, Scene]
    ) -> None:
        scene = scenes["orphaned"]
        assert scene.begun > 1
        assert scene.overlap is not None
        assert scene.overlap > 0
        assert scene.tasks["deliver[0]"] == ("success", 2)
        assert scene.states == {"accepted": LONG}
        assert world.sent_by_each(FEEDS["orphaned"]) == [LONG, 0]


class TestATaskIsEnded:
    @pytest.mark.matrix("P1")
    def test_by_sigkill_its_claims_wait_for_the_end_of_its_lease(
        self, scenes: dict[str, Scene]
    ) -> None:
        scene = scenes["killed"]
        assert scene.run == {"success"}
        assert scene.tasks["deliver[0]"] == ("success", 2)
        assert scene.states.keys() == {"accepted", "claimed"}

    @pytest.mark.matrix("P5")
    @pytest.mark.parametrize("name", ["terminated", "evicted"])
    def test_by_sigterm_it_leaves_no_doubt_and_the_retry_sends_the_rest(
        self, world: World, scenes: dict[str, Scene], name: str
    ) -> None:
        scene = scenes[name]
        assert scene.begun == 0
        assert scene.tasks["deliver[0]"] == ("success", 2)
        assert scene.states == {"accepted": 40}
        assert world.doubted(FEEDS[name]) == 0

    @pytest.mark.matrix("P6")
    def test_by_its_time_out_it_says_what_it_does_not_know(
        self, world: World, scenes: dict[str, Scene]
    ) -> None:
        scene = scenes["timed_out"]
        assert scene.tasks["deliver[0]"] == ("success", 2)
        assert world.doubted(FEEDS["timed_out"]) == 10
        repeated = [n for n in world.receipts(FEEDS["timed_out"]).values() if n > 1]
        assert len(repeated) <= 10


@pytest.mark.matrix("C3")
class TestATaskIsClearedWhileItRuns:
    @pytest.mark.parametrize("name", ["cleared", "cleared_whole", "cleared_shard"])
    def test_the_old_copy_gives_back_and_the_new_one_sends_the_rest_once(
        self, world: World, scenes: dict[str, Scene], name: str
    ) -> None:
        scene = scenes[name]
        assert scene.run == {"success"}
        assert scene.states == {"accepted": FEEDS[name].rows}
        assert set(world.receipts(FEEDS[name]).values()) == {1}

    def test_its_siblings_are_left_alone(self, scenes: dict[str, Scene]) -> None:
        tasks = scenes["cleared_shard"].tasks
        assert (tasks["deliver[0]"], tasks["deliver[1]"]) == (
            ("success", 1), ("success", 2),
        )  # fmt: skip


class TestAShardFails:
    def test_the_run_fails_and_the_others_outcomes_stand(
        self, scenes: dict[str, Scene]
    ) -> None:
        scene = scenes["failing_shard"]
        assert scene.run == {"failed"}
        assert scene.tasks["report"][0] == "upstream_failed"
        assert scene.tasks["deliver[0]"] == ("success", 1)
        assert scene.tasks["deliver[1]"] == ("failed", 1)
        assert scene.states["accepted"] >= 1_000
        assert scene.states["pending"] > 0
        assert scene.states.total() == FEEDS["failing_shard"].rows


@pytest.mark.matrix("C2")
class TestRunsMeet:
    def test_schedule_three_backfilled_intervals_and_a_hand_send_each_row_once(
        self, world: World, meeting: list[dict[str, Any]]
    ) -> None:
        kinds = Counter(run["run_type"] for run in meeting)
        assert kinds == {"scheduled": 1, "backfill": 3, "manual": 1}
        assert {run["state"] for run in meeting} == {"success"}
        feed = FEEDS["overlapping"]
        assert world.receipts(feed) == dict.fromkeys(feed.event_ids, 1)

    def test_they_did_meet(self, world: World, meeting: list[dict[str, Any]]) -> None:
        # Else the test before would prove nothing.
        assert world.most_at_once(FEEDS["overlapping"]) >= 2
        assert sum(sent > 0 for sent in world.sent_by_each(FEEDS["overlapping"])) >= 2
        rows = world.sql(
            "select (outcome ->> 'rows')::int from capi.runs where feed = 'overlapping'"
        )
        assert rows == [(600,)] * 5


class TestAirflowsOwnParts:
    @pytest.mark.parametrize(
        "name",
        [
            pytest.param("frozen", marks=pytest.mark.matrix("P11")),
            pytest.param("unscheduled", marks=pytest.mark.matrix("P10")),
        ],
    )
    def test_a_second_try_beside_the_first_sends_nothing_twice(
        self, world: World, house: dict[str, Scene], name: str
    ) -> None:
        scene, feed = house[name], FEEDS[name]
        assert scene.tasks["deliver[0]"][1] > 1
        assert scene.states.total() == feed.rows
        assert world.receipts(feed).total() - len(world.receipts(feed)) <= (
            world.doubted(feed)
        )

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param("restarted", marks=pytest.mark.matrix("P13")),
            pytest.param("removed", marks=pytest.mark.matrix("P12")),
        ],
    )
    def test_without_its_database_or_its_dag_file_a_task_delivers_to_the_end(
        self, house: dict[str, Scene], name: str
    ) -> None:
        scene = house[name]
        assert scene.run == {"success"}
        assert scene.states == {"accepted": FEEDS[name].rows}


@pytest.mark.matrix("P13")
@pytest.mark.usefixtures("tended")
class TestAirflowForgetsEverything:
    def test_the_ledger_alone_goes_on(self, world: World) -> None:
        assert world.states(FEEDS["forgotten"]) == {"accepted": 40}

    def test_what_it_runs_anew_sends_nothing(self, world: World) -> None:
        arrived = world.arrived()
        runs = {name: world.trigger(FEEDS[name]) for name in ("killed", "forgotten")}
        for name, run_id in runs.items():
            assert world.ended(FEEDS[name], run_id) == {"success"}
        assert world.arrived() == arrived


@pytest.mark.usefixtures("tended")
class TestTheBooks:
    @pytest.mark.parametrize("name", FEEDS)
    def test_every_row_is_accepted_and_every_repeat_explained(
        self, world: World, name: str
    ) -> None:
        feed = FEEDS[name]
        ledger = world.sql(
            "select source_key, event_id, state::text from capi.deliveries"
            " where feed = %s order by 1",
            name,
        )
        assert ledger == [(key, id_of(key), "accepted") for key in feed.keys]
        receipts = world.receipts(feed)
        assert receipts.keys() == feed.event_ids
        assert receipts.total() - feed.rows <= world.doubted(feed)
