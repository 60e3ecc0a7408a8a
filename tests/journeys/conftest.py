"""The demo, started by its own command; every journey walks through the same one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # as in demo.processes
import psycopg
import pytest
import requests

from demo.__main__ import DATASET
from demo.airflow import Airflow
from demo.postgres import Postgres
from demo.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
TABLES = {
    "offline_purchases": "shop.offline_purchases",
    "phone_orders": "shop.phone_orders",
    "crm_leads": "shop.lead_stages",
}
# The others first; then nothing of what they did may hold a canary; then the end.
_ORDER = (
    "test_first_hour",
    "test_again",
    "test_lost_worker",
    "test_canary",
    "test_end",
)
_PATIENCE = 300.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the journeys in their order; leave all other tests where they are."""

    def place(item: pytest.Item) -> int:
        name = item.path.stem if item.path.parent == Path(__file__).parent else ""
        return _ORDER.index(name) if name in _ORDER else -1

    items.sort(key=place)


@dataclass
class Demo:
    """A running demo: its command, its databases, its Airflow and its Meta."""

    folder: Path
    ports: Mapping[str, int]
    first: subprocess.CompletedProcess[str] = field(init=False)
    """What the first `up` came to."""

    # --- the command ------------------------------------------------------------------

    def command(self, verb: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run `python -m demo`, as make does."""
        options = {
            "folder": self.folder, "scale": 0.05,
            **{f"{name}-port": port for name, port in self.ports.items()}, **changes,
        }  # fmt: skip
        words = [
            word for name, value in options.items() for word in (f"--{name}", value)
        ]
        return subprocess.run(
            [sys.executable, "-m", "demo", verb, *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "include")}, cwd=ROOT,
            capture_output=True, text=True, check=False, timeout=570,
        )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """Return the demo's programs, and whatever they have started."""
        notes = {
            path: json.loads(path.read_text())["pid"]
            for path in self.folder.rglob("run/*.pid")
        }
        postmaster = self.folder / "postgres" / "data" / "postmaster.pid"
        if postmaster.exists():
            notes[postmaster] = int(postmaster.read_text().split()[0])
        roots = [psutil.Process(pid) for pid in notes.values()]
        return [
            each for root in roots for each in (root, *root.children(recursive=True))
        ]

    # --- the databases ----------------------------------------------------------------

    @cached_property
    def postgres(self) -> Postgres:
        """The demo's PostgreSQL; asked only for addresses."""
        return Postgres(self.folder / "postgres", port=self.ports["db"])

    def sql(
        self, query: str, *values: Any, database: str = "warehouse"
    ) -> list[tuple[Any, ...]]:
        """Ask or change a database."""
        with psycopg.connect(self.postgres.dsn(database)) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    @cached_property
    def until(self) -> datetime:
        """No row of the sample became known after it."""
        moment: datetime = self.sql("select until from shop.sample_origin")[0][0]
        return moment

    @property
    def whole(self) -> dict[str, str]:
        """The form's dates for all rows there are."""
        start, end = self.until - timedelta(days=63), self.until + timedelta(seconds=1)
        return {"start": start.isoformat(), "end": end.isoformat()}

    def plant(self, table: str, like: str, **values: Any) -> None:
        """Add a row that is as another one, with some columns changed.

        `like` is a condition that finds the other.
        """
        self.sql(
            f"insert into {table} select (jsonb_populate_record(t, %s)).*"
            f" from {table} t where {like} limit 1",
            json.dumps(values, default=str),
        )

    def states(self, feed: str | None = None) -> dict[str, int]:
        """Return deliveries by state."""
        query = """
            select state::text, count(*) from capi.deliveries
            where feed = coalesce(%s, feed) group by 1
        """
        return dict(self.sql(query, feed))

    def accepted_ids(self) -> set[str]:
        """Return the event ids that the ledger holds as accepted."""
        rows = self.sql("select event_id from capi.deliveries where state = 'accepted'")
        return {event_id for (event_id,) in rows}

    def sent_by(self, dag_id: str, run_id: str) -> int:
        """Return how many events a run of a feed's DAG has had accepted."""
        ((sent,),) = self.sql(
            "select (outcome ->> 'accepted_now')::int from capi.runs where run_id = %s",
            f"{dag_id}/{run_id}",
        )
        return int(sent)

    # --- Meta -------------------------------------------------------------------------

    def meta(self, method: str, path: str, **options: Any) -> Any:
        """Ask the local Graph API itself."""
        url = f"http://127.0.0.1:{self.ports['graph']}/_simulator/{path}"
        answer = requests.request(method, url, timeout=30, **options)
        answer.raise_for_status()
        return answer.json()

    def received(self) -> dict[str, int]:
        """Return how often Meta took each event, by event_id."""
        found: dict[str, int] = {}
        offset: int | None = 0
        while offset is not None:
            query = {"dataset": DATASET, "ids": 1, "offset": offset, "limit": 5_000}
            page = self.meta("GET", "received", params=query)
            for event in page["events"]:
                taken = sum(receipt["processed"] for receipt in event["receipts"])
                if taken:
                    found[event["event_id"]] = taken
            offset = page["next_offset"]
        return found

    def arrived(self) -> int:
        """Return how many events came at all, with repeats and refused ones."""
        return int(self.meta("GET", "stats")["datasets"][DATASET]["arrived"])

    # --- Airflow ----------------------------------------------------------------------

    @cached_property
    def airflow(self) -> Airflow:
        """The demo's Airflow."""
        return Airflow(
            project=ROOT, folder=self.folder / "airflow", port=self.ports["ui"],
            database=self.postgres.url("airflow"),
        )  # fmt: skip

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a run by hand; return its id."""
        return self.airflow.trigger(dag_id, conf)

    def end_of(self, dag_id: str, run_id: str) -> str:
        """Wait for a run's end; return its state."""
        return self.airflow.finish(dag_id, run_id, _PATIENCE, lambda _: None)

    def run(self, dag_id: str, **conf: Any) -> str:
        """Run a DAG by hand to its end, which must be good; return the run's id."""
        run_id = self.trigger(dag_id, **conf)
        assert self.end_of(dag_id, run_id) == "success", (
            f"see {self.folder}/airflow/logs"
        )
        return run_id

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return a DAG's runs, oldest first."""
        found = self.airflow.ask("GET", f"/dags/{dag_id}/dagRuns?order_by=id")
        return list(found["dag_runs"])

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task and what follows it, as the UI does."""
        body = {
            "dry_run": False, "dag_run_id": run_id, "task_ids": [task_id],
            "only_failed": False, "include_downstream": True, "reset_dag_runs": True,
        }  # fmt: skip
        self.airflow.ask("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Airflow's command line, where the demo's programs run."""
        return subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=self.airflow.environment(os.environ), capture_output=True, text=True,
            check=False, timeout=_PATIENCE,
        )  # fmt: skip

    def log_of(self, dag_id: str, run_id: str, task_id: str = "*") -> str:
        """Return a task's log, all tries and shards of it; or a run's."""
        logs = (
            self.folder / "airflow" / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"
        )
        files = sorted(logs.glob(f"task_id={task_id}/**/*.log"))
        return "\n".join(file.read_text() for file in files)


def eventually(claim: Callable[[], object], seconds: float = _PATIENCE) -> bool:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end:
            return False
        time.sleep(0.25)
    return True


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """The demo after its first `up`; stopped at the end, whatever happened."""
    with tempfile.TemporaryDirectory(prefix="capi-journeys-") as name:
        folder = Path(name)
        # Else only root could enter it, and PostgreSQL does not run as root.
        folder.chmod(0o755)
        ports = {"ui": free_port(), "graph": free_port(), "db": free_port()}
        demo = Demo(folder / "demo", ports)
        try:
            demo.first = demo.command("up")
            yield demo
        finally:
            demo.command("down")
