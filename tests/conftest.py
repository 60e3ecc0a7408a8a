"""What every test may ask for: a real PostgreSQL; and what none may do: go outside."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests import airflow_settings

from demo.postgres import Postgres


def pytest_configure() -> None:
    """Let no test, whichever is asked for, find an Airflow with other settings.

    The conftest of a folder that is asked for is imported before this; so none may
    import Airflow (tests/test_alone.py).
    """
    airflow_settings.settle()


@dataclass(frozen=True, slots=True)
class Database:
    """One empty database of the test session's PostgreSQL."""

    name: str
    url: str = field(repr=False)
    """For SQLAlchemy."""
    dsn: str = field(repr=False)
    """For psycopg."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for this pytest process."""
    with tempfile.TemporaryDirectory(prefix="capi-tests-") as folder:
        # Else only root could enter it, and PostgreSQL does not run as root.
        Path(folder).chmod(0o755)
        with Postgres(Path(folder), durable=False) as server:
            yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """A fresh, empty database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    postgres.create_database(name)
    yield Database(name, postgres.url(name), postgres.dsn(name))
    postgres.drop_database(name)


@pytest.fixture(scope="session", autouse=True)
def no_way_out() -> Iterator[None]:
    """Let sockets connect to this machine only."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        yield


def _guarded(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _local(address[0]):
            raise RuntimeError(
                "A test tried to reach another machine. Use the local Graph API or the "
                "`database` fixture."
            )
        return connect(self, address)

    return guarded


def _local(host: str | bytes) -> bool:
    name = os.fsdecode(host)
    if name in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
