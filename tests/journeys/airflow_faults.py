"""An Airflow to be broken, its Meta and its ledger, and the truth about them.

Airflow's metadata has a PostgreSQL of its own, which can be stopped without the ledger's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]  # as in demo.processes
import psycopg
from psycopg import sql
from tests.journeys.airflow_feeds import DATASET, Feed

from demo.airflow import Airflow
from demo.postgres import Postgres
from demo.processes import free_port, leftovers
from graph_simulator import Fault, FaultKind, Simulator

__all__ = ["TOKEN", "Task", "World", "awaited", "gone"]

ROOT: Final = Path(__file__).resolve().parents[2]
TOKEN: Final = "EAABofTheFaultsOfAirflow0123456789"
# The default, in seconds, after which Airflow gives up a task without a heartbeat.
HEARTBEAT_SECONDS: Final = 300
_PATIENCE: Final = 300.0
_POLICIES: Final = (
    "from tests.journeys.airflow_policies import dag_policy, task_policy\n"
)
_SETTINGS: Final = {
    "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'plugins'}:{ROOT}",
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
    # A scheduler on a busy machine takes itself for dead after the default of 30 seconds,
    # and gives up all that it runs (seen on 3.3.2).
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "600",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}


@dataclass(frozen=True)
class Task:
    """A delivering task at work: its process, and its worker in the ledger."""

    process: psutil.Process
    worker_id: int

    @property
    def supervisor(self) -> psutil.Process:
        """The process that started it and keeps it alive towards Airflow."""
        return self.process.parent()

    @property
    def alive(self) -> bool:
        """Whether it does anything yet."""
        return alive(self.process)


@dataclass
class World:
    """Airflow, Meta, warehouse and ledger."""

    folder: Path
    ledger: Postgres
    """The server of the warehouse and the ledger."""
    simulator: Simulator
    feeds: Mapping[str, Feed]
    known: datetime
    """When all rows became known."""
    armed: list[tuple[Feed, Fault]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # --- its parts --------------------------------------------------------------------

    @cached_property
    def metadata(self) -> Postgres:
        """The server of Airflow's own database."""
        return Postgres(self.folder / "metadata", free_port(), durable=False)

    @cached_property
    def airflow(self) -> Airflow:
        """Airflow, with little patience."""
        return Airflow(
            project=ROOT, folder=self.folder / "airflow", port=free_port(),
            database=self.metadata.url("airflow"), local_settings=_POLICIES,
            settings={
                **_SETTINGS, "META_CAPI_HOME": str(self.folder / "home"),
                "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            },
        )  # fmt: skip

    @property
    def dags(self) -> Path:
        """The folder of the DAG files."""
        return self.folder / "dags"

    def family(self, name: str) -> list[psutil.Process]:
        """Return the process of one of Airflow's programs, and all that it started."""
        note = (self.folder / "airflow" / "run" / f"{name}.pid").read_text()
        process = psutil.Process(json.loads(note)["pid"])
        return [process, *process.children(recursive=True)]

    def furnish(self) -> None:
        """Copy the project's DAG files; write the feeds, and make their tables."""
        shutil.copytree(ROOT / "dags", self.dags, ignore=shutil.ignore_patterns("__*"))
        self.sql("create schema shop")
        for feed in self.feeds.values():
            feed.write(self.folder / "home", self.known.year)
            self.sql(feed.table, self.known, self.known, feed.rows)

    def open(self) -> None:
        """Start Airflow on an empty database, and tell it what it needs to know."""
        self.metadata.start()
        self.metadata.create_database("airflow")

        def run(command: list[str], environment: Mapping[str, str]) -> None:
            subprocess.run(
                command, env=dict(environment), check=True, capture_output=True
            )

        self.airflow.start({}, run)
        self.airflow.wait(_PATIENCE)
        info = psycopg.conninfo.conninfo_to_dict(self.dsn)
        database = {
            "conn_type": "postgres", "host": info["host"], "port": int(str(info["port"])),
            "schema": info["dbname"], "login": info["user"], "password": info["password"],
        }  # fmt: skip
        self.airflow.connection("capi_warehouse", **database)
        self.airflow.connection("capi_ledger", **database)
        self.airflow.connection(
            "meta_capi_default", conn_type="meta_capi", host=self.simulator.url,
            port=urlsplit(self.simulator.url).port, login=DATASET, password=TOKEN,
            extra=json.dumps({"environment": "local"}),
        )  # fmt: skip
        self.airflow.pool("meta_capi", 16)
        dag_ids = [*(feed.dag_id for feed in self.feeds.values()), "tend_deliveries"]
        awaited(lambda: self.airflow.knows(dag_ids))

    def lose(self) -> None:
        """Kill all of Airflow, and lose its database."""
        for pid in leftovers(self.folder / "airflow"):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        self.metadata.drop_database("airflow")

    def close(self) -> None:
        """End all that was started; what a killed scheduler has left behind, too."""
        self.airflow.stop()
        for pid in leftovers(self.folder / "airflow"):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        self.metadata.stop()

    # --- runs -------------------------------------------------------------------------

    def trigger(self, feed: Feed) -> str:
        """Start a run of all a feed's rows by hand; return its id."""
        self.airflow.unpause(feed.dag_id)
        interval = {
            "start": (self.known - timedelta(hours=1)).isoformat(),
            "end": (self.known + timedelta(hours=1)).isoformat(),
        }
        return self.airflow.trigger(feed.dag_id, interval)

    def runs(self, feed: Feed) -> list[dict[str, Any]]:
        """Return a feed's runs, oldest first."""
        found = self.airflow.ask("GET", f"/dags/{feed.dag_id}/dagRuns?order_by=id")
        return list(found["dag_runs"])

    def tasks(self, feed: Feed, run_id: str) -> dict[str, tuple[str, int]]:
        """Return the state and the number of tries of a run's tasks, shard by shard."""
        path = f"/dags/{feed.dag_id}/dagRuns/{run_id}/taskInstances?limit=100"
        found = self.airflow.ask("GET", path)["task_instances"]
        return {
            each["task_id"] + (f"[{each['map_index']}]" if each["map_index"] >= 0 else ""):
            (str(each["state"]), int(each["try_number"]))
            for each in found
        }  # fmt: skip

    def run_states(self, feed: Feed, run_id: str = "%") -> set[str]:
        """Return the states of a feed's runs. Its own API would be asked too often."""
        query = "select state from dag_run where dag_id = %s and run_id like %s"
        return {state for (state,) in self.of_airflow(query, feed.dag_id, run_id)}

    def ended(self, feed: Feed, run_id: str = "%") -> set[str]:
        """Wait for the end of a run, or of all of a feed's; return how they ended."""
        over = {"success", "failed"}
        awaited(lambda: self.run_states(feed, run_id) <= over, f"{feed.name} over")
        return self.run_states(feed, run_id)

    def clear(self, feed: Feed, run_id: str, *task_ids: object) -> None:
        """Clear tasks, all of the run if none is named, as the UI does."""
        body = {
            "dry_run": False, "dag_run_id": run_id, "only_failed": False,
            "include_downstream": True, "reset_dag_runs": True,
            "task_ids": list(task_ids) or None,
        }  # fmt: skip
        self.airflow.ask("POST", f"/dags/{feed.dag_id}/clearTaskInstances", body)

    def log_of(self, feed: Feed, task_id: str) -> str:
        """Return the log of a feed's task, all its tries and shards."""
        logs = self.folder / "airflow" / "logs" / f"dag_id={feed.dag_id}"
        files = sorted(logs.glob(f"run_id=*/task_id={task_id}/**/*.log"))
        return "\n".join(file.read_text() for file in files)

    def five_minutes_pass(self, feed: Feed) -> None:
        """Let Airflow have heard nothing for so long of a feed's task, and notice.

        A heartbeat that was on its way may come after the first time.
        """
        awaited(
            lambda: not self.of_airflow(
                "update task_instance set last_heartbeat_at = now() - %s"
                " where dag_id = %s and state = 'running' and try_number = 1 returning 1",
                timedelta(seconds=HEARTBEAT_SECONDS), feed.dag_id,
            ),
            f"{feed.name} given up",
        )  # fmt: skip

    def of_airflow(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask or change Airflow's own database: its clock has no other handle."""
        with psycopg.connect(self.metadata.dsn("airflow")) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def deliver_is(self, feed: Feed, *states: str) -> bool:
        """Tell, without Airflow's help, whether a feed's task is in one of these states."""
        query = (
            "select state from task_instance where dag_id = %s and task_id = 'deliver'"
        )
        return all(each in states for (each,) in self.of_airflow(query, feed.dag_id))

    # --- Meta -------------------------------------------------------------------------

    def arm(self, feed: Feed, kind: FaultKind, **values: Any) -> None:
        """Let something go wrong with each of a feed's requests."""
        events = {"event_ids": feed.event_ids, **values}
        self.armed.append((feed, Fault(kind=kind, count=None, **events)))
        self.simulator.faults.add(self.armed[-1][1])

    def disarm(self, feed: Feed, kind: FaultKind) -> None:
        """Let it go right again."""
        with self._lock:
            self.armed = [
                (each, fault)
                for each, fault in self.armed
                if each != feed or fault.kind != kind
            ]
            self.simulator.faults.clear()
            self.simulator.faults.add(*(fault for _, fault in self.armed))

    def receipts(self, feed: Feed) -> Counter[str]:
        """Return how often Meta took each of the feed's events, by event id."""
        return Counter({
            each.event_id: each.processed
            for each in self.simulator.received(DATASET)
            if each.event_id in feed.event_ids
        })  # fmt: skip

    def arrived(self) -> int:
        """Return how many events came at all, with repeats and refused ones."""
        return self.simulator.counts(DATASET).arrived

    # --- the ledger -------------------------------------------------------------------

    @property
    def dsn(self) -> str:
        """The database of warehouse and ledger."""
        return self.ledger.dsn("faults")

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask or change the ledger."""
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def states(self, feed: Feed) -> Counter[str]:
        """Return the feed's deliveries by state."""
        return Counter(
            dict(
                self.sql(
                    "select state::text, count(*) from capi.deliveries"
                    " where feed = %s group by 1",
                    feed.name,
                )
            )
        )

    def at_work(self, feed: Feed, after: int = 0) -> list[Task]:
        """Return the feed's tasks that wait for Meta's answer, and have had one."""
        rows = self.sql(
            "select w.worker_id, w.pid from capi.workers w"
            " where w.feed = %s and w.ended_at is null and w.worker_id > %s"
            " and exists (select from capi.batches b"
            "   where b.worker_id = w.worker_id and b.state = 'sending')"
            " and exists (select from capi.batches b"
            "   where b.worker_id = w.worker_id and b.state = 'accepted')"
            " order by 1",
            feed.name, after,
        )  # fmt: skip
        return [Task(psutil.Process(pid), worker_id) for worker_id, pid in rows]

    def caught(self, feed: Feed, tasks: int = 1) -> list[Task]:
        """Wait until so many tasks of a feed are in the middle of their requests."""
        found: list[Task] = []

        def all_there() -> bool:
            assert "failed" not in self.run_states(feed), feed.name
            found[:] = self.at_work(feed)
            return len(found) == tasks

        awaited(all_there, f"{feed.name} in the middle")
        return found

    def next_started(self, feed: Feed, after: Sequence[Task]) -> datetime | None:
        """Return when the first worker of a feed sat down that came after some tasks."""
        ((moment,),) = self.sql(
            "select min(started_at) from capi.workers where feed = %s and worker_id > %s",
            feed.name, max(task.worker_id for task in after),
        )  # fmt: skip
        return moment if isinstance(moment, datetime) else None

    def begun(self, tasks: Sequence[Task], since: datetime) -> int:
        """Return how many requests some tasks began since a moment."""
        ((requests,),) = self.sql(
            "select count(*) from capi.attempts a join capi.batches b using (batch_id)"
            " where b.worker_id = any(%s) and a.started_at > %s",
            [task.worker_id for task in tasks], since,
        )  # fmt: skip
        return int(requests)

    def doubted(self, feed: Feed) -> int:
        """Return how many events went out in requests without an answer to trust."""
        ((events,),) = self.sql(
            "select coalesce(sum(b.events), 0) from capi.attempts a"
            " join capi.batches b using (batch_id)"
            " where b.feed = %s and a.outcome = 'unknown'",
            feed.name,
        )
        return int(events)

    def sent_by_each(self, feed: Feed) -> list[int]:
        """Return how many events each of a feed's workers has had accepted, in order."""
        rows = self.sql(
            "select coalesce(sum(b.events) filter (where b.state = 'accepted'), 0)"
            " from capi.workers w left join capi.batches b using (worker_id)"
            " where w.feed = %s group by w.worker_id order by w.worker_id",
            feed.name,
        )
        return [int(events) for (events,) in rows]

    def most_at_once(self, feed: Feed) -> int:
        """Return how many of a feed's workers were at their desks at the same time."""
        ((workers,),) = self.sql(
            "select max((select count(*) from capi.workers b where b.feed = a.feed"
            " and b.started_at <= a.started_at and b.ended_at > a.started_at))"
            " from capi.workers a where a.feed = %s",
            feed.name,
        )
        return int(workers)

    def pass_time(self, seconds: float) -> None:
        """Let the ledger's clock run ahead by so much, for every new connection."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("alter database faults set capi.clock_offset = {}").format(
                    sql.Literal(f"{seconds} seconds")
                )
            )


def awaited(claim: Callable[[], object], what: str = "it") -> None:
    """Wait until something is so."""
    end = time.monotonic() + _PATIENCE
    while not claim():
        assert time.monotonic() < end, f"{what}: not so after {_PATIENCE:.0f} seconds"
        time.sleep(0.4)


def alive(process: psutil.Process) -> bool:
    """Tell whether a process does anything yet."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def gone(process: psutil.Process) -> datetime:
    """Wait until a process has ended; return when that was."""
    awaited(lambda: not alive(process))
    return datetime.now(UTC)
