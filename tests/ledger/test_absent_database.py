"""While the ledger's database is away, what is known is held."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import create_engine
from tests.conftest import Database
from tests.ledger.conftest import Bench
from tests.ledger.scenes import Cursor, as_counted

from meta_capi.ledger import Ledger
from meta_capi.verdict import Answer


class TestAnAbsentDatabase:
    def test_a_full_pool_is_waited_for(self, database: Database, bench: Bench) -> None:
        engine = create_engine(
            database.url, pool_size=1, max_overflow=0, pool_timeout=0.1
        )
        ledger = Ledger(engine, patience=5)
        with ThreadPoolExecutor(1) as pool, ledger.transaction():
            asked = pool.submit(ledger.clock)
            time.sleep(0.5)
        assert asked.result(5) > datetime.now(UTC) - timedelta(minutes=1)
        engine.dispose()

    @pytest.mark.matrix("D7")
    def test_metas_yes_is_held_as_long_as_the_lease(self, bench: Bench) -> None:
        """A failover of the ledger's database takes longer than its patience."""

        class Away(Ledger):
            until = 0.0

            @contextmanager
            def transaction(self) -> Iterator[Cursor]:
                if time.monotonic() < self.until:
                    raise psycopg.OperationalError("the server is starting up")
                with super().transaction() as cursor:
                    yield cursor

        ledger = bench.ledger = Away(bench.ledger._engine, patience=0.5)

        def answer_and_lose_the_ledger(body: bytes) -> Answer:
            ledger.until = time.monotonic() + 1.5
            return bench.post(body)

        tally = bench.deliver(bench.rows(1), post=answer_and_lose_the_ledger)

        assert as_counted(tally) == {"accepted": 1}
