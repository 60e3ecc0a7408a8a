"""A COMMIT that stands, and whose answer is lost, is neither made nor counted twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from tests.ledger.conftest import Bench
from tests.ledger.scenes import Cursor, as_counted, everything, refuse

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Patience
from meta_capi.ledger import Ledger


class Forgetful(Ledger):
    """A ledger whose line breaks after one COMMIT: it stands, and nobody hears of it."""

    commits = 0
    forgotten: int | None = None

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Yield a cursor; lose the answer to the chosen commit."""
        with super().transaction() as cursor:
            yield cursor
        self.commits += 1
        if self.commits == self.forgotten:
            raise psycopg.OperationalError("the connection is lost")


class TestALostCommit:
    """PostgreSQL committed, and the answer never came: 1 of 92 in our study's restarts.

    Asked again, a step that already stands must not be made twice, nor be counted twice
    or not at all.
    """

    @pytest.fixture
    def forgetful(self, bench: Bench) -> Forgetful:
        bench.ledger = Forgetful(bench.ledger._engine, patience=3)
        return bench.ledger

    @pytest.mark.matrix("D2")
    def test_whichever_commit_is_lost_the_tally_is_the_ledgers(
        self, bench: Bench, forgetful: Forgetful
    ) -> None:
        bench.tune(requests_in_flight=1, events_per_request=4)
        bench.patience = Patience(first_pause=0.0, tries=1)
        seen = 0
        for nth in range(1, 40):
            numbers = range(nth * 100, nth * 100 + 12)
            refuse(bench, numbers[1])
            rows = bench.rows(*numbers)
            rows["consent"][11] = None
            forgetful.commits, forgetful.forgotten = 0, nth

            tally = bench.deliver(rows)

            assert as_counted(tally) == {"accepted": 10, "refused": 1, "withheld": 1}, (
                f"commit {nth}"
            )
            seen = forgetful.commits
            if seen < nth:
                break
        assert seen < 40, "the loop did not come to the last commit"
        assert set(bench.receipts().values()) == {1}

    def test_what_was_given_back_is_counted(
        self, bench: Bench, forgetful: Forgetful
    ) -> None:
        bench.tune(requests_in_flight=1, events_per_request=2)
        for nth in range(4, 12):
            bench.simulator.faults.clear()
            bench.simulator.faults.add(
                Fault(kind=FaultKind.THROTTLE, count=1, wait_minutes=60)
            )
            forgetful.commits, forgetful.forgotten = 0, nth

            tally = bench.deliver(bench.rows(*range(nth * 100, nth * 100 + 8)))

            assert as_counted(tally) == {"pending": 8}, f"commit {nth}"

    def test_a_replay_knows_what_it_put_back(
        self, bench: Bench, forgetful: Forgetful
    ) -> None:
        bench.deliver(bench.rows(1, 2, amount="-1"))
        run = bench.run()
        forgetful.commits, forgetful.forgotten = 0, 1

        keys = bench.ledger.replay(run, everything("quarantined"))

        assert sorted(keys) == ["o-1", "o-2"]
