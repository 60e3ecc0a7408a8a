"""A limited run sends so many; the rest waits."""

from __future__ import annotations

from tests.ledger.conftest import DATASET, Bench
from tests.ledger.scenes import as_counted

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Patience


class TestLimits:
    def test_each_limited_run_sends_so_many_more(self, bench: Bench) -> None:
        rows = bench.rows(*range(10))

        tallies = [bench.deliver(rows, limit=4) for _ in range(3)]

        assert [tally.accepted_now for tally in tallies] == [4, 4, 2]
        assert all(tally.settled == tally.rows for tally in tallies)

    def test_what_a_person_held_back_is_not_due(self, bench: Bench) -> None:
        """A try with five events is no order to send the rest ten minutes later."""
        bench.deliver(bench.rows(*range(10)), limit=5)

        assert bench.ledger.due_keys(
            bench.feed.feed, DATASET, bench.policy, limit=100
        ) == []  # fmt: skip
        assert as_counted(bench.deliver(bench.rows(*range(10)))) == {"accepted": 10}

    def test_a_doubt_beyond_the_limit_stays_a_doubt(self, bench: Bench) -> None:
        bench.patience = Patience(first_pause=0.0, tries=1, doubt_pause=0.0)
        bench.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=500, count=1))
        bench.deliver(bench.rows(1, 2))

        tally = bench.deliver(bench.rows(0, 1, 2), limit=1)

        assert as_counted(tally) == {"accepted": 1, "in_doubt": 2}
        assert bench.states() == {"accepted": 1, "in_doubt": 2}
