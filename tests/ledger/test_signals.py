"""A signal ends the step that it strikes, and is hidden by nothing."""

from __future__ import annotations

import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from types import FrameType

import psycopg
import pytest
from tests.ledger.conftest import Bench
from tests.ledger.scenes import Cursor


class Terminated(BaseException):
    """As Airflow's AirflowTaskTimeout: raised by a signal, anywhere in the main thread."""


class TestASignal:
    """Airflow's time-outs break into whatever statement is running."""

    def test_a_signal_in_the_middle_of_a_statement_ends_the_step(
        self, bench: Bench
    ) -> None:
        def interrupt(_: int, __: FrameType | None) -> None:
            raise Terminated

        tries = 0

        def step(cursor: Cursor) -> None:
            nonlocal tries
            tries += 1
            cursor.execute("select pg_sleep(1.5)")

        before = signal.signal(signal.SIGUSR1, interrupt)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        try:
            with pytest.raises(Terminated):
                bench.ledger.attempt(step)
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)
        assert tries == 1

    def test_it_is_not_hidden_by_what_the_driver_says_of_it(self, bench: Bench) -> None:
        def step(_: Cursor) -> None:
            try:
                raise Terminated
            finally:
                raise psycopg.ProgrammingError

        with pytest.raises(Terminated):
            bench.ledger.attempt(step)

    def test_who_tidies_up_after_it_still_waits_for_the_database(
        self, bench: Bench
    ) -> None:
        tries = 0

        def step(cursor: Cursor) -> int:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise psycopg.OperationalError
            return tries

        try:
            raise Terminated
        except Terminated:
            assert bench.ledger.attempt(step) == 2

    def test_the_connection_it_broke_is_not_used_again(self, bench: Bench) -> None:
        def step(cursor: Cursor) -> None:
            cursor.connection.pgconn.send_query(b"select pg_sleep(0.2)")
            raise Terminated

        with pytest.raises(Terminated):
            bench.ledger.attempt(step)

        assert bench.ledger.clock() > datetime.now(UTC) - timedelta(minutes=1)
