"""A ledger put back from a copy: what may have gone out since then is in doubt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.ledger.conftest import DATASET, HOUR, Bench
from tests.ledger.copies import copied, put_copy_back
from tests.ledger.scenes import ACT

from graph_simulator import Fault, FaultKind
from meta_capi.errors import ConfigurationError, LedgerError
from meta_capi.ledger import ResendPolicy
from meta_capi.people import put_back, read_mark, take_mark


@pytest.mark.matrix("P14")
class TestACopyPutBack:
    def test_the_mark_of_an_older_copy_is_behind(self, bench: Bench) -> None:
        copy, first = copied(bench.dsn), take_mark(bench.ledger)
        second = take_mark(bench.ledger)
        assert (first.ledger_id, True) == (second.ledger_id, first.at < second.at)
        assert read_mark(bench.ledger) == second
        bench.pass_time(-HOUR)
        assert take_mark(bench.ledger).at > second.at, "a mark never goes back"

        put_copy_back(bench.dsn, copy)

        assert read_mark(bench.ledger).at < first.at
        bench.pass_time(0)
        put_back(bench.ledger, bench.started - timedelta(hours=1), ACT)
        assert read_mark(bench.ledger).at > second.at

    def test_what_may_have_gone_out_since_the_copy_is_in_doubt(
        self, bench: Bench
    ) -> None:
        """Sent since: what waited, what was refused or withheld, and what was unknown."""
        refusal = Fault(
            kind=FaultKind.REFUSE_IF, count=None, event_ids=bench.event_ids(3)
        )
        bench.simulator.faults.add(refusal)
        bench.deliver(bench.rows(1, 3), bench.rows(2, 8, consent=False))
        bench.deliver(bench.rows(4), limit=0)
        copy, since = copied(bench.dsn), bench.ledger.clock()
        bench.simulator.faults.clear()
        later = [
            bench.rows(1, 2, 4), bench.rows(3, amount="13"), bench.rows(5),
            bench.rows(8, consent=False),
        ]  # fmt: skip
        bench.deliver(*later)
        sent = bench.receipts()
        assert set(sent) == set(bench.event_ids(1, 2, 3, 4, 5))
        put_copy_back(bench.dsn, copy)

        assert put_back(bench.ledger, since, ACT) == 1  # the one that waited
        bench.policy = ResendPolicy(resend=False, window_seconds=47 * HOUR)
        tally = bench.deliver(*later)

        assert tally.requests == 0
        assert bench.receipts() == sent
        assert dict(+tally.outcomes) == {"accepted": 1, "withheld": 1, "in_doubt": 4}
        assert tally.reasons["ledger.restored"] == 4
        assert bench.sql(
            "select distinct doubt_since from capi.deliveries where state = 'in_doubt'"
        ) == [(since,)]
        # What becomes known from now on is sent as ever.
        fresh = bench.rows(6, loaded_at=datetime.now(UTC) + timedelta(seconds=1))
        assert bench.deliver(fresh).accepted_now == 1

    def test_inside_metas_window_a_feed_that_resends_settles_it_by_itself(
        self, bench: Bench
    ) -> None:
        copy, since = copied(bench.dsn), bench.ledger.clock()
        bench.deliver(bench.rows(1, 2))
        put_copy_back(bench.dsn, copy)
        put_back(bench.ledger, since, ACT)

        tally = bench.deliver(bench.rows(1, 2))

        assert tally.accepted_now == 2
        # Meta knows each of them by its event_id, and counts it once.
        assert bench.simulator.graph.store.counts(DATASET).processed == 2
        assert bench.sql("select distinct resends from capi.deliveries") == [(1,)]

    def test_a_worker_from_before_writes_nothing_any_more(self, bench: Bench) -> None:
        """Its number, which the copy would have given out once more, is passed over."""
        desk, run = bench.desk(), bench.run()
        copy, since = copied(bench.dsn), bench.ledger.clock()
        sleeper = bench.desk(run)
        put_copy_back(bench.dsn, copy)
        put_back(bench.ledger, since, ACT)

        assert bench.desk(run).worker_id > sleeper.worker_id + 1_000
        for old in (desk, sleeper):
            with pytest.raises(LedgerError, match="lease is over"):
                old.renew()

    def test_of_two_conversions_with_one_event_only_one_is_in_doubt(
        self, bench: Bench
    ) -> None:
        """The other is held, as it would be in a ledger that was never put back."""
        bench.deliver(bench.rows(1, event_id="mine"))
        put_back(bench.ledger, bench.started, ACT)
        bench.policy = ResendPolicy(resend=False, window_seconds=47 * HOUR)

        bench.deliver(bench.rows(2, event_id="mine"), bench.rows(3, 4, event_id="ours"))

        assert bench.states() == {"accepted": 1, "in_doubt": 1, "quarantined": 2}
        assert bench.reasons() == {"ledger.restored": 1, "event_id.taken": 2}

    def test_what_was_on_a_desk_when_it_was_copied_is_in_doubt(
        self, bench: Bench
    ) -> None:
        copies: list[dict[str, list[str]]] = []

        def copy_at(step: str) -> None:
            if step in ("after_claim", "after_begin"):
                copies.append(copied(bench.dsn))

        bench.deliver(bench.rows(1), probe=copy_at)
        for copy in copies:
            put_copy_back(bench.dsn, copy)
            assert bench.states() == {"claimed": 1}

            assert put_back(bench.ledger, bench.started, ACT) == 1

            assert bench.reasons() == {"ledger.restored": 1}
            assert bench.sql(
                "select state::text from capi.batches union all"
                " select outcome::text from capi.attempts"
            ) in ([("in_doubt",)], [("in_doubt",), ("unknown",)])

    def test_a_copy_from_the_future_is_refused(self, bench: Bench) -> None:
        with pytest.raises(ConfigurationError, match="not past; nothing was done"):
            put_back(bench.ledger, datetime.now(UTC) + timedelta(hours=1), ACT)
        assert bench.sql("select count(*) from capi.acts") == [(0,)]
