"""A schema is not changed under a worker, and none works on another's."""

from __future__ import annotations

import pytest
from tests.ledger.conftest import HOUR, Bench

from meta_capi.errors import LedgerError


def take_last_step_back(bench: Bench) -> None:
    """Let the schema lack its last step."""
    bench.sql("delete from capi.migrations where version = 3")
    bench.sql(
        "drop view capi.event_status, capi.daily_summary, capi.match_key_coverage,"
        " capi.freshness, capi.reconciliation"
    )


@pytest.mark.matrix("T10")
class TestUpgrading:
    def test_a_schema_is_not_changed_under_a_worker(self, bench: Bench) -> None:
        desk = bench.desk()
        take_last_step_back(bench)

        with pytest.raises(LedgerError, match=r"1 worker.*schema was left as it is"):
            bench.ledger.migrate()

        bench.sql("update capi.workers set ended_at = now(), ended_how = 'finished'")
        assert bench.ledger.migrate() == ["views"]
        desk.leave()

    def test_it_is_if_somebody_says_now_or_a_dead_workers_lease_is_over(
        self, bench: Bench
    ) -> None:
        bench.desk()
        take_last_step_back(bench)
        assert bench.ledger.migrate(now=True) == ["views"]

        take_last_step_back(bench)
        bench.pass_time(HOUR)
        assert bench.ledger.migrate() == ["views"]

    @pytest.mark.parametrize("step", ["behind", "ahead"])
    def test_nobody_sits_down_at_a_schema_of_another_age(
        self, bench: Bench, step: str
    ) -> None:
        """Not even who has looked at the schema before it was changed."""
        run = bench.run()
        if step == "behind":
            bench.sql(
                "delete from capi.migrations"
                " where version = (select max(version) from capi.migrations)"
            )
        else:
            bench.sql("insert into capi.migrations (version, name) values (999, 'new')")

        with pytest.raises(LedgerError, match="schema"):
            bench.desk(run)

        assert bench.sql("select count(*) from capi.workers") == [(0,)]
