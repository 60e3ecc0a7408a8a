"""An Airflow for these tests alone: its settings stand before its first import.

For the same reason what needs Airflow is imported by the fixtures.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

if TYPE_CHECKING:
    from tests.airflow.world import World
    from tests.conftest import Database

ROOT = Path(__file__).resolve().parents[2]


def _settle_airflow() -> None:
    if any(name == "airflow" or name.startswith("airflow.") for name in sys.modules):
        raise RuntimeError("Airflow was imported before its settings were made.")
    for name in [n for n in os.environ if n.startswith(("AIRFLOW", "_AIRFLOW"))]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="capi-airflow-tests-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ |= {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "META_CAPI_DATA_DOCS": f"{home}/data_docs",
        "GX_ANALYTICS_ENABLED": "False",
    }


_settle_airflow()


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Give `dag.test()` the metadata it wants, and our Variables a place."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def own_feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what users edit, to be changed; must be asked for before `world`."""
    for name in ("feeds", "expectations"):
        shutil.copytree(ROOT / "include" / name, tmp_path / name)
    monkeypatch.setenv("META_CAPI_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def world(
    database: Database, monkeypatch: pytest.MonkeyPatch, airflow_database: None
) -> Iterator[World]:
    """A small shop, a ledger, the local Graph API, and connections to them."""
    from tests.airflow.world import DATASET, TOKEN, World

    from demo.warehouse import load
    from graph_simulator import Simulator
    from meta_capi.ledger import Ledger

    until = datetime.now(UTC).replace(microsecond=0)
    load(database.dsn, until=until, scale=0.02)
    engine = sa.create_engine(database.url, hide_parameters=True)
    Ledger(engine).migrate()
    engine.dispose()
    with Simulator(datasets=[DATASET], tokens=[TOKEN]) as sim:
        world = World(sim, until, database.dsn)
        world.connect_all(monkeypatch, sim.url)
        yield world


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return what was written since the last time, without colours."""
    return lambda: re.sub(r"\x1b\[[0-9;]*m", "", "".join(capfd.readouterr()))
