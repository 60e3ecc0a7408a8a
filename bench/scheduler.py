"""A real Airflow around our DAG and a trivial one, as the demo runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any, Final

from sqlalchemy import make_url

from bench.lots import Lot
from bench.party import ROOT, BenchError
from bench.world import DATASET, Server, World
from demo.airflow import Airflow
from demo.processes import DemoError, free_port, wait_until

__all__ = ["OURS", "TRIVIAL", "Runs", "scheduler"]

OURS: Final = "send_offline_purchases"
TRIVIAL: Final = "trivial"
_PATIENCE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Runs:
    """Starts runs and tells how long they took."""

    airflow: Airflow

    def time(self, dag_id: str, conf: Mapping[str, Any]) -> dict[str, Any]:
        """Run a DAG to its end; return the run's seconds and its mapped tasks'."""
        run = self.airflow.trigger(dag_id, conf)
        state = self.airflow.finish(dag_id, run, _PATIENCE, lambda _: None)
        if state != "success":
            raise BenchError(f"A run of {dag_id} ended as {state}.")
        path = f"/dags/{dag_id}/dagRuns/{run}"
        tasks = self.airflow.ask("GET", f"{path}/taskInstances?limit=1000")
        tasks = tasks["task_instances"]
        shards = [each["duration"] for each in tasks if each["map_index"] >= 0]
        return {
            "seconds": _between(
                self.airflow.ask("GET", path), "start_date", "end_date"
            ),
            "tasks": len(tasks),
            "shards": len(shards),
            "seconds_in_a_shard": round(mean(shards), 3),
            "seconds_in_tasks": round(sum(each["duration"] for each in tasks), 3),
        }


def _between(thing: Mapping[str, str], first: str, last: str) -> float:
    moments = [datetime.fromisoformat(thing[name]) for name in (first, last)]
    return round((moments[1] - moments[0]).total_seconds(), 3)


@contextmanager
def scheduler(
    world: World, which: Lot, graph: Server, ledger: str, *, rows_per_shard: int
) -> Iterator[Runs]:
    """Run Airflow over one lot: LocalExecutor, scheduler, DAG processor, API server."""
    folder = world.folder / "scheduler"
    shutil.rmtree(folder, ignore_errors=True)
    _lay_out(folder, which, rows_per_shard)
    world.postgres.drop_database("airflow")
    world.postgres.create_database("airflow")
    airflow = Airflow(
        project=ROOT, folder=folder / "airflow", port=free_port(),
        database=world.postgres.url("airflow"),
        settings={
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "META_CAPI_HOME": str(folder / "home"),
        },
    )  # fmt: skip
    try:
        airflow.start(os.environ, _quietly(folder / "setup.log"))
        airflow.wait(300)
        _connect(airflow, world, graph, ledger)
        wait_until(
            lambda: airflow.knows([OURS, TRIVIAL]), "Reading the DAGs", 180,
            airflow.programs,
        )  # fmt: skip
        for dag_id in (OURS, TRIVIAL):
            airflow.unpause(dag_id)
        yield Runs(airflow)
    except DemoError as error:
        raise BenchError(str(error)) from error
    finally:
        airflow.stop()


def _lay_out(folder: Path, which: Lot, rows_per_shard: int) -> None:
    """Make a DAG folder, and a home with one feed and its suite."""
    for part in ("dags", "home/feeds", "home/expectations"):
        (folder / part).mkdir(parents=True)
    for dag in (
        ROOT / "dags" / "send_conversions.py",
        ROOT / "bench" / "trivial_dag.py",
    ):
        shutil.copy(dag, folder / "dags")
    include, name = ROOT / "include", "offline_purchases"
    shutil.copy(include / "expectations" / f"{name}.json", folder / "home/expectations")
    feed = (include / "feeds" / f"{name}.yaml").read_text(encoding="utf-8")
    feed = feed.replace("table: shop.offline_purchases", f"table: {which.table}")
    # A run by the clock in the middle would be measured too.
    feed = feed.replace('schedule: "5 * * * *"', 'schedule: "0 0 1 1 *"')
    feed += f"\nlimits:\n  rows_per_shard: {rows_per_shard}\n"
    (folder / "home" / "feeds" / f"{name}.yaml").write_text(feed, encoding="utf-8")


def _connect(airflow: Airflow, world: World, graph: Server, ledger: str) -> None:
    for conn_id, url in (
        ("capi_warehouse", make_url(world.postgres.url(world.shop))),
        ("capi_ledger", make_url(ledger)),
    ):
        airflow.connection(
            conn_id, conn_type="postgres", host=url.host, port=url.port,
            schema=url.database, login=url.username, password=url.password,
        )  # fmt: skip
    airflow.connection(
        "meta_capi_default", conn_type="meta_capi", host=graph.url,
        port=make_url(graph.url).port, login=DATASET, password=graph.token,
        extra=json.dumps({"environment": "local"}),
    )  # fmt: skip
    airflow.pool("meta_capi", 4)


def _quietly(log: Path) -> Any:
    def run(command: list[str], environment: Mapping[str, str]) -> None:
        with log.open("ab") as words:
            code = subprocess.run(
                command, env=dict(environment), stdout=words, stderr=words, check=False
            ).returncode
        if code:
            raise BenchError(f"{' '.join(command[2:])} failed; see {log}.")

    return run
