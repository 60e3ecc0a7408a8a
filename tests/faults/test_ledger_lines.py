"""Lines to the ledger and to the warehouse that break, at every step."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from tests.faults import world_ledger as world
from tests.faults.world_ledger import (
    Proxy,
    Shop,
    as_counted,
    hang_up,
    nothing_twice,
)
from tests.ledger.conftest import HOUR, Bench

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Patience
from meta_capi.errors import LedgerError, SourceError
from meta_capi.ledger import Ledger
from meta_capi.verdict import Answer

ledger, bench = world.ledger, world.bench


@pytest.fixture
def proxy(bench: Bench) -> Iterator[Proxy]:
    """A line to the bench's database."""
    with Proxy(bench.dsn) as proxy:
        yield proxy


class Shot(Ledger):
    """A ledger whose server process is killed in every step, once: early, or at its end.

    A step killed early is made again at once; where its COMMIT was not heard, PostgreSQL
    is asked first.
    """

    dsn = ""
    early = True
    transactions = 0
    shots = 0

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        """Yield a cursor of a session that somebody may kill."""
        with super().transaction() as cursor:
            hit = self.transactions % (2 if self.early else 3) == 0
            self.transactions += 1
            if hit and self.early:
                self.shoot(cursor)
            yield cursor
            if hit and not self.early:
                self.shoot(cursor)

    def shoot(self, cursor: psycopg.Cursor[dict[str, Any]]) -> None:
        """Kill the session, and wait until it is gone."""
        self.shots += 1
        hang_up(self.dsn, cursor.connection.info.backend_pid)


def difficult(bench: Bench) -> dict[str, list[Any]]:
    """Return eight orders: one is refused, so that batches are split; one is withheld."""
    bench.tune(requests_in_flight=1, events_per_request=4)
    bench.simulator.faults.clear()
    bench.simulator.faults.add(
        Fault(
            kind=FaultKind.REFUSE_IF,
            count=None,
            subcode=2804019,
            event_ids=bench.event_ids(1),
        )
    )
    rows = bench.rows(*range(8))
    rows["consent"][7] = None
    return rows


ENDS = {"accepted": 6, "refused": 1, "withheld": 1}


@pytest.mark.matrix("D2")
class TestALineThatBreaksInEveryStep:
    """Whichever step it is, it is made once, and counted once."""

    @pytest.mark.parametrize("early", [True, False], ids=["early", "at-commit"])
    def test_by_a_killed_server_process(self, bench: Bench, early: bool) -> None:
        shot = bench.ledger = Shot(bench.ledger._engine, patience=10)
        shot.dsn, shot.early = bench.dsn, early

        tally = bench.deliver(difficult(bench))

        assert as_counted(tally) == ENDS == bench.states()
        nothing_twice(bench)
        assert shot.shots > 10

    @pytest.mark.parametrize(("fate", "period"), [("drop", 4), ("lose", 3)])
    def test_by_a_reset_before_or_after_the_commit(
        self, bench: Bench, proxy: Proxy, fate: str, period: int
    ) -> None:
        """A new line has a COMMIT of its own, and so has the question what became of one."""
        commits = itertools.count(-1)
        proxy.at_commit = lambda: None if next(commits) % period else fate
        engine = proxy.engine(pool_size=1, max_overflow=0)
        bench.ledger = Ledger(engine, patience=10)

        tally = bench.deliver(difficult(bench))

        assert as_counted(tally) == ENDS == bench.states()
        nothing_twice(bench)
        assert proxy.cuts > 10
        engine.dispose()


@pytest.mark.matrix("D7")
class TestTheLedgerIsAwayAfterMetasYes:
    def deliver(self, bench: Bench, proxy: Proxy, back_after: float | None) -> Any:
        """Deliver; at Meta's yes the line breaks, for so many seconds or for good."""

        def post(body: bytes) -> Answer:
            answer = bench.post(body)
            proxy.away = True
            proxy.cut()
            if back_after is not None:
                threading.Timer(back_after, setattr, (proxy, "away", False)).start()
            return answer

        bench.ledger = Ledger(proxy.engine(), patience=0.4)
        desk = bench.desk(lease_seconds=3.0, cover_seconds=1.0)
        return bench.deliver(bench.rows(1, 2, 3), desk=desk, post=post)

    def test_shorter_than_the_lease_nothing_is_forgotten(
        self, bench: Bench, proxy: Proxy
    ) -> None:
        tally = self.deliver(bench, proxy, back_after=1.2)

        assert as_counted(tally) == {"accepted": 3} == bench.states()
        nothing_twice(bench)

    def test_longer_than_the_lease_the_events_are_in_doubt_and_sent_once_more(
        self, bench: Bench, proxy: Proxy
    ) -> None:
        away, bench.ledger = bench.ledger, bench.ledger
        with pytest.raises(LedgerError, match="nothing was half done"):
            self.deliver(bench, proxy, back_after=None)
        bench.ledger = away
        bench.pass_time(181)
        assert away.rescue().in_doubt == 3
        assert bench.reasons() == {"worker.lost": 3}

        tally = bench.deliver(bench.rows(1, 2, 3))

        assert as_counted(tally) == {"accepted": 3}
        assert set(bench.receipts().values()) == {2}
        assert bench.sql("select distinct resends from capi.deliveries") == [(1,)]


@pytest.mark.matrix("D11")
class TestTheWarehouseGoesAwayWhileItIsRead:
    @pytest.fixture
    def shop(self, bench: Bench) -> Shop:
        bench.tune(rows_per_slice=100)
        return Shop.open(bench, range(600))

    @pytest.mark.parametrize(
        ("how", "after"), [("killed", 1), ("reset", 0), ("closed", 4)]
    )
    def test_what_was_read_is_settled_and_the_rest_is_read_again(
        self, bench: Bench, shop: Shop, proxy: Proxy, how: str, after: int
    ) -> None:
        engine = proxy.engine()
        here: list[psycopg.Connection[Any]] = []
        sa.event.listen(engine, "connect", lambda line, _: here.append(line))

        def broken() -> Iterator[Mapping[str, Sequence[Any]]]:
            for number, columns in enumerate(shop.slices(shop.source(engine))):
                if number == after:
                    if how == "killed":
                        hang_up(bench.dsn, here[0].info.backend_pid)
                    elif how == "reset":
                        proxy.cut()
                    else:
                        here[0].pgconn.finish()
                yield columns

        with pytest.raises(SourceError, match=r"could not read shop\.orders"):
            bench.deliver_each(broken())
        # What was not yet on its way when the line broke waits for the next run.
        assert set(bench.states()) <= {"accepted", "pending"}
        assert sum(bench.states().values()) == (after + 1) * 100

        again = bench.deliver_each(shop.slices())

        assert as_counted(again) == {"accepted": 600}
        nothing_twice(bench)
        engine.dispose()


def test_a_row_read_while_the_ledger_is_away_is_read_again(
    bench: Bench, proxy: Proxy
) -> None:
    shop = Shop.open(bench, range(300))
    bench.patience = Patience(first_pause=0.0)
    away = bench.ledger
    bench.ledger = Ledger(proxy.engine(), patience=0.3)

    def ledger_goes() -> Iterator[Mapping[str, Sequence[Any]]]:
        for number, columns in enumerate(shop.slices(shop.source(away._engine))):
            if number == 1:
                proxy.away = True
                proxy.cut()
            yield columns

    with pytest.raises(LedgerError, match="nothing was half done"):
        bench.deliver_each(ledger_goes())
    bench.ledger = away
    bench.pass_time(HOUR)
    away.rescue()
    bench.pass_time(2 * HOUR)
    tally = bench.deliver_each(shop.slices())

    assert as_counted(tally) == {"accepted": 300}
    doubted = bench.sql("select count(*) from capi.deliveries where resends > 0")[0][0]
    assert sum((bench.receipts() - Counter(set(bench.receipts()))).values()) <= doubted
