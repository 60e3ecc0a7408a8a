"""A crash of the ledger's server that takes a COMMIT with it."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import sqlalchemy as sa
from tests.faults.world import free_port

from demo.postgres import Postgres
from meta_capi.ledger import Ledger, Run

pytestmark = [pytest.mark.slow, pytest.mark.matrix("D1", "D2")]


class Struck(Ledger):
    """A ledger whose server is struck once, between a step's last word and its COMMIT."""

    strike: Callable[[psycopg.Connection[Any], int], None] | None = None

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        """Yield a cursor; if the step wrote, strike."""
        with super().transaction() as cursor:
            yield cursor
            if self.strike:
                cursor.execute(
                    "select pg_current_xact_id_if_assigned()::text as number"
                )
                number = (cursor.fetchone() or {})["number"]
                if number:
                    strike, self.strike = self.strike, None
                    strike(cursor.connection, int(number))


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server that writes nothing down before a COMMIT asks it to."""
    with tempfile.TemporaryDirectory(prefix="capi-crash-") as folder:
        # Else only root could enter it, and PostgreSQL does not run as root.
        Path(folder).chmod(0o755)
        patient = {"wal_writer_delay": "10s"}
        # Named, so that it is where it was when it is started again.
        with Postgres(
            Path(folder), port=free_port(), durable=False, settings=patient
        ) as server:
            server.create_database("ledger")
            with psycopg.connect(server.dsn("ledger"), autocommit=True) as connection:
                connection.execute("alter database ledger set synchronous_commit = on")
            yield server


def crash(server: Postgres) -> None:
    """Stop the server at once, as a crash does, and start it again."""
    text = (server.folder / "data" / "postmaster.pid").read_text()
    process = psutil.Process(int(text.split()[0]))
    process.send_signal(signal.SIGQUIT)
    process.wait(30)
    server.start()


@contextmanager
def struck(
    server: Postgres, strike: Callable[[psycopg.Connection[Any], int], None]
) -> Iterator[Struck]:
    """Return a ledger that will be struck in its next step that writes."""
    engine = sa.create_engine(server.url("ledger"), hide_parameters=True)
    ledger = Struck(engine, patience=20)
    ledger.migrate()
    ledger.strike = strike
    yield ledger
    engine.dispose()


def plan(ledger: Ledger) -> Run:
    """Make a step that writes."""
    return ledger.open_run(
        "send/1", feed="sales", dataset_id="1", mode="send", interval=None, plan={}
    )


def test_a_step_lost_with_its_number_is_made_again_though_another_got_the_number(
    server: Postgres,
) -> None:
    """PostgreSQL gives a number again of which a crash left no trace."""

    def strike(_: psycopg.Connection[Any], number: int) -> None:
        crash(server)
        with psycopg.connect(server.dsn("ledger"), autocommit=True) as connection:
            given = 0
            while given < number:
                [(given,)] = connection.execute(
                    "select pg_current_xact_id()::text::bigint"
                ).fetchall()
            assert given == number, "the number was not given again"

    with struck(server, strike) as ledger:
        run = plan(ledger)
        assert ledger.strike is None
        assert ledger.find_run("send/1") == run


def test_a_step_whose_commit_came_before_the_crash_is_not_made_again(
    server: Postgres,
) -> None:
    def strike(connection: psycopg.Connection[Any], _: int) -> None:
        connection.pgconn.exec_(b"COMMIT AND CHAIN")
        crash(server)

    steps = 0

    def step(cursor: psycopg.Cursor[dict[str, Any]]) -> int:
        nonlocal steps
        steps += 1
        cursor.execute(
            "insert into capi.acts (kind, who, why, deliveries)"
            " values ('settle', 'a test', 'a crash', 0)"
        )
        return steps

    with struck(server, strike) as ledger:
        assert ledger.attempt(step) == 1
        assert ledger.strike is None
