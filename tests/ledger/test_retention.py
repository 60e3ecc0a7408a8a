"""What is finished is removed when it is old enough; the reports stay as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.ledger.conftest import DATASET, Bench
from tests.ledger.scenes import at_every_end, sums

from meta_capi import insight
from meta_capi.errors import FeedError
from meta_capi.feed import parse
from meta_capi.retention import removable, retain


@pytest.mark.matrix("X39")
class TestRetention:
    def test_what_is_finished_goes_and_what_is_open_stays(self, bench: Bench) -> None:
        at_every_end(bench)
        before = bench.states()
        assert before == {
            "accepted": 39, "refused": 1, "withheld": 1, "quarantined": 2, "expired": 1,
            "in_doubt": 1, "pending": 1,
        }  # fmt: skip
        later = bench.started + bench.feed.retention + timedelta(days=2)
        assert not any(retain(bench.ledger, bench.feed, bench.started).values())
        bench.pass_time((later - bench.started).total_seconds())

        until, counted = removable(bench.ledger, bench.feed, later)
        removed = retain(bench.ledger, bench.feed, later, size=7)

        assert bench.started < until < later
        assert bench.states() == {"in_doubt": 1, "pending": 1}
        assert removed["deliveries"] == counted.total() == sum(before.values()) - 2
        # What the two that stay were sent in, and by whom, is still told.
        [story] = insight.explain(bench.ledger, ["o-60"])
        assert [step.state for step in story.lineage] == ["in_doubt"]
        assert bench.sql("select count(*) from capi.batches") == [(1,)]
        assert bench.sql("select count(*) from capi.workers") == [(1,)]
        assert bench.sql("select count(*) from capi.validations") == [(0,)]
        assert bench.sql("select count(*) from capi.runs") == [(2,)]

    def test_the_reports_say_the_same_before_and_after(self, bench: Bench) -> None:
        at_every_end(bench)
        before = sums(bench)
        later = bench.started + bench.feed.retention + timedelta(days=2)
        bench.pass_time((later - bench.started).total_seconds())

        retain(bench.ledger, bench.feed, later, size=7)

        assert sums(bench) == before

    def test_a_backfill_over_what_was_removed_sends_nothing_and_counts_nothing_twice(
        self, bench: Bench
    ) -> None:
        """At the shortest retention a feed may have, a moment after it is over."""
        least = bench.feed.longest_window + bench.feed.window.margin
        bench.feed = bench.feed.model_copy(update={"retention": least})
        rows = bench.rows(*range(30))
        bench.deliver(rows)
        later = bench.started + least + timedelta(days=1, hours=1)
        bench.pass_time((later - bench.started).total_seconds())
        assert retain(bench.ledger, bench.feed, later)["deliveries"] == 30
        before, requests = sums(bench), bench.receipts()

        tally = bench.deliver(rows, now=later.timestamp)

        assert dict(+tally.outcomes) == {"expired": 30}
        assert (tally.rows, tally.requests) == (30, 0)
        assert bench.receipts() == requests
        assert sums(bench) == before

    def test_no_feed_can_ask_for_less_than_metas_own_window(self, bench: Bench) -> None:
        text = bench.feed.model_dump_json(exclude_defaults=True)
        for given, told in (("1487h", "1494h"), ("1d", "1494h")):
            with pytest.raises(FeedError, match=f"retention: .*at least {told}"):
                parse(f'{text[:-1]},"retention":"{given}","window":{{"days":7}}}}')
        assert parse(f'{text[:-1]},"retention":"1494h"}}').retention.days == 62

    @pytest.mark.parametrize("fast", ["the machine's", "the ledger's"])
    def test_of_two_clocks_that_differ_the_earlier_is_believed(
        self, bench: Bench, fast: str
    ) -> None:
        bench.deliver(bench.rows(1))
        ahead = bench.feed.retention + timedelta(days=2)
        if fast == "the ledger's":
            bench.pass_time(ahead.total_seconds())
            now = datetime.now(UTC)
        else:
            now = datetime.now(UTC) + ahead

        assert not any(retain(bench.ledger, bench.feed, now).values())

    def test_the_rows_of_steps_go_after_a_day(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1))
        old = {step for (step,) in bench.sql("select step from capi.steps")}
        assert old
        retain(bench.ledger, bench.feed, bench.started)
        assert {step for (step,) in bench.sql("select step from capi.steps")} >= old

        bench.pass_time(timedelta(days=1, minutes=5).total_seconds())
        retain(bench.ledger, bench.feed, bench.started)

        left = {step for (step,) in bench.sql("select step from capi.steps")}
        assert not left & old

    def test_other_feeds_and_other_days_are_left_alone(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1))
        young = bench.started + bench.feed.retention - timedelta(days=5)
        bench.deliver(
            bench.rows(2, loaded_at=young, bought_at=bench.started - timedelta(hours=1))
        )
        bench.sql(
            "insert into capi.deliveries (dataset_id, feed, source_key, state, reason,"
            " cursor_at, run_no) values (%s, 'another', 'o-1', 'withheld', 'erased',"
            " %s, 1)",
            DATASET, bench.started - timedelta(days=9),
        )  # fmt: skip
        later = bench.started + bench.feed.retention + timedelta(days=2)
        bench.pass_time((later - bench.started).total_seconds())

        retain(bench.ledger, bench.feed, later)

        query = "select feed, source_key from capi.deliveries order by 1, 2"
        assert bench.sql(query) == [("another", "o-1"), ("store_orders", "o-2")]
