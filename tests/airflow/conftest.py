"""What the tests of Airflow may ask for. What needs Airflow is imported by the fixtures."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from tests.airflow_settings import ROOT

if TYPE_CHECKING:
    from tests.airflow.world import World
    from tests.conftest import Database


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
