"""A ledger that cannot be trusted with a step: it is asked again, or refused; never guessed."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from tests.conftest import Database
from tests.faults import world_ledger as world
from tests.faults.world_ledger import (
    as_counted,
    hang_up,
    nothing_twice,
    other_session,
    setting,
)
from tests.ledger.conftest import Bench

from capi_airflow.stage import engine_of
from meta_capi.dispatch import Tally
from meta_capi.errors import ConfigurationError, LedgerError
from meta_capi.ledger import Ledger
from meta_capi.sql import migrations
from meta_capi.verdict import Answer

ledger, bench = world.ledger, world.bench


# Who holds what, and what of the worker's own sessions makes it an error.
OBSTACLES = {
    "lock": ("lock table capi.deliveries", {"lock_timeout": "400ms"}),
    "statement": ("lock table capi.workers", {"statement_timeout": "400ms"}),
    "row": (
        "select from capi.deliveries where source_key = 'o-2' for update",
        {"lock_timeout": "400ms"},
    ),
}


def impatient(bench: Bench, **settings: str) -> None:
    """Set something for every session of the worker's."""

    def settle(connection: psycopg.Connection[Any], _: object) -> None:
        for name, value in settings.items():
            connection.execute("select set_config(%s, %s, false)", (name, value))
        connection.commit()

    sa.event.listen(bench.ledger._engine, "connect", settle)
    bench.ledger._engine.dispose()


@pytest.mark.matrix("D3")
class TestAnotherSessionIsInTheWay:
    @pytest.mark.parametrize("obstacle", OBSTACLES)
    def test_for_a_while_the_step_is_made_when_it_is_gone(
        self, bench: Bench, obstacle: str
    ) -> None:
        statement, settings = OBSTACLES[obstacle]
        bench.deliver(bench.rows(2, amount="-1"))
        impatient(bench, **settings)
        desk = bench.desk()
        with other_session(bench) as other:
            other.execute(statement)
            threading.Timer(1.0, other.rollback).start()
            tally = bench.deliver(bench.rows(1, 2, 3), desk=desk)

        assert as_counted(tally) == {"accepted": 3}
        nothing_twice(bench)

    @pytest.mark.parametrize("obstacle", OBSTACLES)
    def test_for_ever_the_run_ends_with_a_sentence_and_nothing_was_sent(
        self, bench: Bench, obstacle: str
    ) -> None:
        statement, settings = OBSTACLES[obstacle]
        bench.deliver(bench.rows(2, amount="-1"))
        impatient(bench, **settings)
        desk = bench.desk()
        bench.ledger._patience = 0.5
        begun = time.monotonic()

        with other_session(bench) as other:
            other.execute(statement)
            with pytest.raises(LedgerError, match=r"SQLSTATE 5\w+\): .*nothing was"):
                bench.deliver(bench.rows(1, 2, 3), desk=desk)

        assert time.monotonic() - begun < 5
        assert bench.receipts() == Counter()
        assert bench.states() == {"quarantined": 1}
        assert as_counted(bench.deliver(bench.rows(1, 2, 3))) == {"accepted": 3}

    def test_a_deadlock_is_lost_and_the_step_made_again(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1, 2, amount="-1"))
        impatient(bench, deadlock_timeout="2s")
        lock = "select from capi.deliveries where source_key = %s for update"
        before = deadlocks(bench)
        with other_session(bench) as other:
            # The worker is to be the one who notices.
            other.execute("set deadlock_timeout = '1min'")
            other.execute(lock, ("o-2",))

            def cross() -> None:
                waited_for(bench, other)
                other.execute(lock, ("o-1",))
                other.rollback()

            crossing = threading.Thread(target=cross)
            crossing.start()
            tally = bench.deliver(bench.rows(1, 2))
            crossing.join()

        assert as_counted(tally) == {"accepted": 2}
        assert deadlocks(bench) == before + 1
        nothing_twice(bench)

    def test_where_every_transaction_is_serialisable_workers_give_way_and_come_back(
        self, bench: Bench
    ) -> None:
        """A database's default may be stricter than PostgreSQL's: then some must fail."""
        setting(bench, "default_transaction_isolation", "serializable")
        bench.ledger = Watched(bench.ledger._engine, patience=20)
        slices = [bench.rows(*range(first, first + 25)) for first in range(0, 100, 25)]
        tallies: list[Tally] = []
        workers = [
            threading.Thread(target=lambda: tallies.append(bench.deliver(*slices)))
            for _ in range(3)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

        assert len(tallies) == 3
        assert bench.states() == {"accepted": 100}
        assert "40001" in bench.ledger.states
        nothing_twice(bench)

    def test_a_step_that_stood_still_too_long_is_made_again(self, bench: Bench) -> None:
        """PostgreSQL hangs up on a transaction in which a stopped process holds locks."""
        impatient(bench, idle_in_transaction_session_timeout="50ms")
        tries = 0

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> int:
            nonlocal tries
            tries += 1
            cursor.execute("select 1")
            if tries == 1:
                gone(bench, cursor.connection.info.backend_pid)
            cursor.execute("select 2")
            return tries

        assert bench.ledger.attempt(step) == 2


class Watched(Ledger):
    """A ledger that remembers what its steps failed of."""

    states: frozenset[str] = frozenset()

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        """Yield a cursor."""
        try:
            with super().transaction() as cursor:
                yield cursor
        except psycopg.Error as error:
            self.states |= {str(error.sqlstate)}
            raise


def until(reached: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def waited_for(bench: Bench, other: psycopg.Connection[Any]) -> None:
    """Wait until some session waits for another one."""
    query = "select exists (select from pg_stat_activity where %s = any(pg_blocking_pids(pid)))"
    until(lambda: bench.sql(query, other.info.backend_pid) == [(True,)])


def gone(bench: Bench, pid: int) -> None:
    """Wait until a session is no more."""
    query = "select exists (select from pg_stat_activity where pid = %s)"
    until(lambda: bench.sql(query, pid) == [(False,)])


def deadlocks(bench: Bench) -> int:
    """Return how many deadlocks the database has resolved."""
    query = "select deadlocks from pg_stat_database where datname = current_database()"
    bench.ledger._engine.dispose()  # a session tells its figures when it ends
    time.sleep(0.05)
    return int(bench.sql(query)[0][0])


@pytest.mark.matrix("D4")
class TestAReadOnlyLedger:
    """A standby, or a primary that was put to rest."""

    def test_nothing_is_sent(self, bench: Bench) -> None:
        desk = bench.desk()
        setting(bench, "default_transaction_read_only", "on")
        bench.ledger._patience = 0.3

        with pytest.raises(LedgerError, match="read-only, a standby or set so"):
            bench.deliver(bench.rows(1, 2), desk=desk)
        with pytest.raises(LedgerError, match="read-only, a standby or set so"):
            bench.run()

        assert bench.receipts() == Counter()
        assert bench.states() == {}

    def test_a_failover_after_metas_yes_loses_no_answer(self, bench: Bench) -> None:
        """The old primary answers on, read-only; soon the address means the new one."""
        bench.ledger._patience = 0.3

        def fail_over(on: bool) -> None:
            setting(bench, "default_transaction_read_only", "on" if on else None)
            hang_up(bench.dsn)

        def post(body: bytes) -> Answer:
            answer = bench.post(body)
            fail_over(True)
            threading.Timer(0.8, fail_over, (False,)).start()
            return answer

        tally = bench.deliver(bench.rows(1, 2), post=post)

        assert as_counted(tally) == {"accepted": 2} == bench.states()
        nothing_twice(bench)


@pytest.mark.matrix("D5", "D6")
class TestAnotherKindOfDatabase:
    """A file has no locks between machines: two workers would send the same rows."""

    @pytest.mark.parametrize("kind", ["duckdb", "sqlite", "mysql", "generic"])
    def test_a_connection_of_another_type_is_refused_in_a_sentence(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
    ) -> None:
        """No provider of theirs comes with this project."""
        file = tmp_path / "ledger.db"
        monkeypatch.setenv(
            "AIRFLOW_CONN_FILE", json.dumps({"conn_type": kind, "host": str(file)})
        )
        with pytest.raises(ConfigurationError, match="must be PostgreSQL") as caught:
            engine_of("file")
        assert caught.value.__cause__ is None
        assert not file.exists()

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "ledger.db"
        engine = sa.create_engine(f"sqlite:///{file}")
        for step in (Ledger(engine).migrate, Ledger(engine).rescue):
            with pytest.raises(LedgerError, match="is not PostgreSQL"):
                step()
        assert not file.exists() or file.read_bytes() == b""


@pytest.mark.matrix("D8")
class TestASchemaOfAnotherAge:
    def refused(self, bench: Bench, match: str) -> None:
        """Assert that a task that starts now stops before it claims or sends anything."""
        bench.ledger = Ledger(bench.ledger._engine, patience=1)
        for step in (
            bench.run,
            bench.ledger.rescue,
            lambda: bench.deliver(bench.rows(1)),
        ):
            with pytest.raises(LedgerError, match=match):
                step()
        assert bench.sql("select count(*) from capi.workers") == [(0,)]
        assert bench.receipts() == Counter()

    def test_a_new_program_stops_at_an_old_schema(self, bench: Bench) -> None:
        latest = migrations()[-1]
        bench.sql("delete from capi.migrations where version = %s", latest.version)

        self.refused(bench, f"behind by 1 .*{latest.name}.*meta-capi migrate")

    def test_an_old_program_stops_at_a_new_schema(self, bench: Bench) -> None:
        bench.sql("insert into capi.migrations (version, name) values (9000, 'later')")

        self.refused(bench, "step 9000.*does not know")
        assert bench.ledger.migrate() == []

    def test_without_a_schema_it_says_what_to_do(self, bench: Bench) -> None:
        bench.sql("drop schema capi cascade")
        bench.ledger = Ledger(bench.ledger._engine, patience=1)

        with pytest.raises(LedgerError, match="no schema; run `meta-capi migrate`"):
            bench.deliver(bench.rows(1))
        assert bench.receipts() == Counter()

    def test_a_migration_that_dies_halfway_leaves_nothing(
        self, database: Database
    ) -> None:
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            # The second step meets a server that dies.
            connection.execute(
                "create function die() returns event_trigger language plpgsql as $$"
                "begin perform pg_terminate_backend(pg_backend_pid()); "
                "perform pg_sleep(1); end $$"
            )
            connection.execute(
                "create event trigger die on ddl_command_start"
                " when tag in ('CREATE VIEW') execute function die()"
            )
            engine = sa.create_engine(database.url, hide_parameters=True)
            with pytest.raises(LedgerError, match="nothing was half done"):
                Ledger(engine, patience=0.3).migrate()
            assert connection.execute(
                "select count(*) from pg_namespace where nspname = 'capi'"
            ).fetchone() == (0,)

            connection.execute("drop event trigger die")
            assert Ledger(engine).migrate() == [each.name for each in migrations()]
            assert Ledger(engine).missing_migrations() == []
            engine.dispose()

    def test_two_that_migrate_at_once_make_each_step_once(
        self, database: Database
    ) -> None:
        engine = sa.create_engine(database.url, hide_parameters=True)
        made: list[list[str]] = []
        several = [
            threading.Thread(target=lambda: made.append(Ledger(engine).migrate()))
            for _ in range(4)
        ]
        for each in several:
            each.start()
        for each in several:
            each.join()

        assert sorted(map(len, made)) == [0, 0, 0, len(migrations())]
        engine.dispose()
