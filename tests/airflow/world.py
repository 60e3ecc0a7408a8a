"""A warehouse, a ledger and a Meta behind Airflow connections, for DAGs to run in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.variable import Variable
from airflow.sdk import DAG

from graph_simulator import Simulator

DATASET = "1234567890123456"
TOKEN = "EAABcanaryOfTheTasks0123456789"
DAGS = Path(__file__).resolve().parents[2] / "dags"
TABLES = {
    "offline_purchases": "shop.offline_purchases",
    "phone_orders": "shop.phone_orders",
    "crm_leads": "shop.lead_stages",
}


def read_folder() -> dict[str, DAG]:
    """Read the DAG folder."""
    return dict(DagBag(str(DAGS)).dags)


def tune(home: Path, line: str) -> None:
    """Add a line to the feed of purchases."""
    path = home / "feeds" / "offline_purchases.yaml"
    path.write_text(f"{path.read_text()}\n{line}\n")


@dataclass
class Messages:
    """The part of a task instance that an operator uses: what it pushes, kept."""

    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.pushed[key] = value


@dataclass
class World:
    """Everything that a DAG run meets."""

    sim: Simulator
    until: datetime
    """No row became known after it."""
    dsn: str = field(repr=False)
    is_new: bool = True

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask or change the warehouse or the ledger."""
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    @property
    def whole(self) -> dict[str, str]:
        """The form's dates for all rows there are."""
        return {
            "start": (self.until - timedelta(days=63)).isoformat(),
            "end": (self.until + timedelta(seconds=1)).isoformat(),
        }

    def run(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, **deliver: Any
    ) -> dict[str, str]:
        """Run a DAG in this process; return its tasks' states, the run's as `dag`.

        Args:
            deliver: what is said of the task `deliver` beside what its DAG file says.
        """
        given = self.whole if conf is None else dict(conf)
        # A DAG object keeps the params of its first run; a real task reads its own.
        if self.is_new:
            # The Airflow of these tests is one, and each world has a ledger of its own.
            Variable.delete("capi_ledger_mark")
            self.is_new = False
        dag = read_folder()[dag_id]
        if deliver:
            dag.get_task("deliver").partial_kwargs.update(deliver)
        run = dag.test(logical_date=None, run_conf=given)
        states = {each.task_id: str(each.state) for each in run.get_task_instances()}
        return {**states, "dag": str(run.state)}

    def context(self, dag_id: str, run_id: str, **params: Any) -> dict[str, Any]:
        """Return what a task is given, as far as our operators look at it."""
        dag = read_folder()[dag_id]
        form = dict.fromkeys(dag.params)
        return {
            "params": {**form, **self.whole, **params}, "dag": dag, "run_id": run_id,
            "ti": Messages(),
        }  # fmt: skip

    def rows(self, feed: str) -> int:
        """Return how many rows a feed's table has."""
        return int(self.sql(f"select count(*) from {TABLES[feed]}")[0][0])

    def states(self, feed: str | None = None) -> Counter[str]:
        """Return deliveries by state."""
        query = """
            select state::text, count(*) from capi.deliveries
            where feed = coalesce(%s, feed) group by 1
        """
        return Counter(dict(self.sql(query, feed)))

    def fingerprint(self) -> str:
        """Return one text that changes with any delivery."""
        query = """
            select md5(string_agg(d::text, '|' order by d::text)) from capi.deliveries d
        """
        return str(self.sql(query)[0][0])

    @property
    def requests(self) -> int:
        """Requests to Meta for which events came."""
        return sum(
            len({receipt.request for receipt in each.receipts})
            for each in self.sim.arrived(DATASET)
        )

    def processed_twice(self) -> list[str]:
        """Return the events that Meta processed more than once."""
        return [e.event_id for e in self.sim.received(DATASET) if e.processed > 1]

    def connect(self, patch: pytest.MonkeyPatch, name: str, **values: Any) -> None:
        """Define an Airflow connection."""
        patch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(values))

    def connect_database(self, patch: pytest.MonkeyPatch, name: str) -> None:
        """Define an Airflow connection to the database of this world."""
        info = psycopg.conninfo.conninfo_to_dict(self.dsn)
        self.connect(
            patch, name, conn_type="postgres", host=info["host"],
            port=int(info["port"]), schema=info["dbname"], login=info["user"],
            password=info["password"],
        )  # fmt: skip

    def connect_all(
        self, patch: pytest.MonkeyPatch, meta_url: str, **extra: Any
    ) -> None:
        """Define the three connections of the shipped feeds."""
        self.connect_database(patch, "capi_warehouse")
        self.connect_database(patch, "capi_ledger")
        self.connect(
            patch, "meta_capi_default", conn_type="meta_capi", host=meta_url,
            password=TOKEN, extra={"dataset_id": DATASET, "environment": "local", **extra},
        )  # fmt: skip
