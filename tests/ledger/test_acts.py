"""What a person does is written down for ever, with a reason."""

from __future__ import annotations

import psycopg
import pytest
from tests.ledger.conftest import Bench
from tests.ledger.scenes import ACT

from meta_capi.errors import ConfigurationError
from meta_capi.people import Act, erase


@pytest.mark.matrix("X37")
class TestActs:
    @pytest.mark.parametrize(
        "change",
        [
            "update capi.acts set why = 'another'",
            "delete from capi.acts",
            "truncate capi.acts",
        ],
    )
    def test_an_act_is_never_changed_nor_removed_not_even_by_the_owner(
        self, bench: Bench, change: str
    ) -> None:
        erase(bench.ledger, bench.feed.feed, ["o-1"], ACT)
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="once"):
            bench.sql(change)
        assert bench.sql("select why from capi.acts") == [("ticket 4711",)]

    def test_a_replay_is_written_down_with_what_was_chosen(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1, consent=False))
        choice = {
            "states": ["withheld"], "reason": "consent.not_given", "keys": ["o-1", "o-2"],
            "start": None, "end": None,
        }  # fmt: skip
        keys = bench.ledger.replay(bench.run(), choice, who="airflow:ann", why="agreed")

        assert keys == ["o-1"]
        assert bench.sql(
            "select kind, who, feed, why, deliveries, detail ->> 'reason',"
            " (detail ->> 'keys')::int from capi.acts"
        ) == [
            (
                "replay",
                "airflow:ann",
                "store_orders",
                "agreed",
                1,
                "consent.not_given",
                2,
            )
        ]

    @pytest.mark.matrix("T8")
    def test_a_replay_never_touches_what_meta_accepted(self, bench: Bench) -> None:
        """Whatever is asked for; there is no way to force it."""
        bench.deliver(bench.rows(1, 2))
        before = bench.sql("select d::text from capi.deliveries as d order by 1")
        choice = {
            "states": ["accepted", "quarantined", "refused", "withheld", "expired"],
            "reason": None, "keys": None, "start": None, "end": None,
        }  # fmt: skip

        assert bench.ledger.count_replay(bench.run(), choice) == []
        assert bench.ledger.replay(bench.run(), choice) == []
        assert (
            bench.sql("select d::text from capi.deliveries as d order by 1") == before
        )
        assert bench.deliver(bench.rows(1, 2)).requests == 0

    @pytest.mark.parametrize("why", ["", "  ", "two\nlines", "x" * 501, "\x1b[31m"])
    def test_an_act_without_a_reason_is_refused(self, why: str) -> None:
        with pytest.raises(ConfigurationError, match="nothing was done"):
            Act("os:tester", why)
