"""What breaks in Airflow, and how: each fault strikes in the middle of a delivery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.journeys.airflow_faults import Task, World, awaited, gone
from tests.journeys.airflow_feeds import Feed, id_of

from graph_simulator import FaultKind

__all__ = ["FEEDS", "HOUSE", "LONG", "TASKS", "THOUGHT", "Scene", "meet", "play"]

# More than Airflow can need, on a busy machine, to begin a second try.
LONG: Final = 900
FEEDS: Final = {
    feed.name: feed
    for feed in (
        Feed("bereft", LONG),
        Feed("orphaned", LONG),
        Feed("killed"),
        Feed("terminated"),
        Feed("evicted"),
        Feed("timed_out"),
        Feed("cleared"),
        Feed("cleared_whole"),
        Feed("cleared_shard", 2_000, batch=25),
        Feed("failing_shard", 2_000, batch=25),
        Feed("overlapping", 600, batch=50, slice=100, schedule="0 * * * *"),
        Feed("frozen", LONG),
        Feed("unscheduled", LONG),
        Feed("restarted"),
        Feed("removed"),
        Feed("forgotten"),
    )
}
# For so many seconds Meta thinks about each request.
THOUGHT: Final = 2.0


@dataclass(frozen=True)
class Scene:
    """What a fault led to, before anybody tended anything."""

    run: set[str]
    """How the run ended."""
    tasks: dict[str, tuple[str, int]]
    """State and tries."""
    states: Counter[str]
    """Deliveries, at the end of both the run and the old processes."""
    alone: float
    """Seconds that the old processes lived on."""
    overlap: float | None
    """Seconds that they lived beside the next one; below zero: they were gone before."""
    begun: int
    """Requests that they began two seconds after the fault, or later."""


Strike = Callable[[World, Feed, str, list[Task]], object]


def play(world: World, name: str, strike: Strike, shards: int = 1) -> Scene:
    """Run a feed, strike in the middle of its requests, and wait for the end."""
    feed = FEEDS[name]
    run_id = world.trigger(feed)
    caught = world.caught(feed, shards)
    struck = datetime.now(UTC)
    strike(world, feed, run_id, caught)
    awaited(
        lambda: not all(t.alive for t in caught) or world.next_started(feed, caught)
    )
    world.disarm(feed, FaultKind.DELAY)
    ended = max(gone(task.process) for task in caught)
    run = world.ended(feed, run_id)
    following = world.next_started(feed, caught)
    return Scene(
        run, world.tasks(feed, run_id), world.states(feed),
        (ended - struck).total_seconds(),
        (ended - following).total_seconds() if following else None,
        world.begun(caught, struck + timedelta(seconds=2)),
    )  # fmt: skip


def clear(*task_ids: object) -> Strike:
    """Clear tasks of the run; all of it, if none is named."""
    return lambda world, feed, run_id, _: world.clear(feed, run_id, *task_ids)


def bereave(world: World, feed: Feed, _: str, caught: list[Task]) -> None:
    """Kill a task's supervisor; five minutes later Airflow misses the heartbeats."""
    caught[0].supervisor.kill()
    if feed.name == "bereft":
        gone(caught[0].process)
    world.five_minutes_pass(feed)


def hang(world: World, feed: Feed, _: str, caught: list[Task]) -> None:
    """Let Meta take what comes, and answer nothing, until the task has ended."""
    world.arm(feed, FaultKind.HANG, processed=True, seconds=60)
    gone(caught[0].process)
    world.disarm(feed, FaultKind.HANG)


def revoke(world: World, feed: Feed, *_: object) -> None:
    """Let Meta refuse the token, but for one of the shards."""
    ids = frozenset(map(id_of, feed.keys[1_000:]))
    world.arm(feed, FaultKind.TOKEN_REVOKED, event_ids=ids)


def freeze(world: World, feed: Feed, *_: object) -> None:
    """Stop the API server until Airflow has given the task up and queued it again."""
    family = world.family("api-server")
    for process in family:
        process.suspend()
    try:
        world.five_minutes_pass(feed)
        awaited(lambda: world.deliver_is(feed, "queued"))
    finally:
        for process in family:
            process.resume()


def unschedule(world: World, *_: object) -> None:
    """Kill the scheduler, and start it again when it is known to be dead."""
    scheduler = world.family("scheduler")[0]
    scheduler.kill()
    gone(scheduler)
    world.of_airflow(
        "update job set latest_heartbeat = latest_heartbeat - interval '1h'"
        " where job_type = 'SchedulerJob'"
    )
    world.airflow.resume({})


def restart(world: World, *_: object) -> None:
    """Restart Airflow's database; and what has ended of that, as compose does."""
    world.metadata.stop()
    world.metadata.start()
    world.airflow.resume({})


def remove(world: World, feed: Feed, *_: object) -> None:
    """Take the DAG file away until the task has delivered."""
    file, away = world.dags / "send_conversions.py", world.folder / "away.py"
    file.rename(away)
    awaited(lambda: world.deliver_is(feed, "success"))
    away.rename(file)


TASKS: Final[dict[str, tuple[Strike, int]]] = {
    "bereft": (bereave, 1),
    "orphaned": (bereave, 1),
    "killed": (lambda *given: given[3][0].process.kill(), 1),
    "terminated": (lambda *given: given[3][0].process.terminate(), 1),
    "evicted": (lambda *given: given[3][0].supervisor.terminate(), 1),
    "timed_out": (hang, 1),
    "cleared": (clear("deliver"), 1),
    "cleared_whole": (clear(), 1),
    "cleared_shard": (clear(["deliver", 1]), 2),
    "failing_shard": (revoke, 2),
}
HOUSE: Final[dict[str, Strike]] = {
    "frozen": freeze, "unscheduled": unschedule, "restarted": restart,
    "removed": remove,
}  # fmt: skip


def meet(world: World) -> list[dict[str, Any]]:
    """Let schedule, three backfilled intervals and a hand meet over the same rows.

    Airflow takes one backfill of a DAG at a time. Meta answers late until all are there.
    """
    feed = FEEDS["overlapping"]
    world.arm(feed, FaultKind.DELAY, seconds=10)
    world.trigger(feed)
    hour = world.known - timedelta(minutes=30)
    body = {
        "dag_id": feed.dag_id, "from_date": hour.isoformat(),
        "to_date": (hour + timedelta(hours=2)).isoformat(), "max_active_runs": 3,
        "reprocess_behavior": "none", "run_backwards": False, "dag_run_conf": {},
    }  # fmt: skip
    world.airflow.ask("POST", "/backfills", body)
    awaited(lambda: len(world.sent_by_each(feed)) == 5)
    world.disarm(feed, FaultKind.DELAY)
    world.ended(feed)
    return world.runs(feed)
