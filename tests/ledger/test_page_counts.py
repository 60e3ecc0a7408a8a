"""The roll-up that the page reads: exact after whatever happened, and never in the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.ledger.conftest import DATASET, Bench

from graph_simulator import Fault, FaultKind
from meta_capi import insight, overview, rundown
from meta_capi.lifecycle import State
from meta_capi.overview import Span

FEED = "store_orders"
COUNTED_NOW = """
    select dataset_id, feed, (cursor_at at time zone 'UTC')::date as day, state::text, reason,
        currency, case state when 'accepted' then match_keys else 0 end, count(*), sum(value)
    from capi.deliveries group by 1, 2, 3, 4, 5, 6, 7
"""
FIGURES = """
    select dataset_id, feed, day, state::text, reason, currency, match_keys, deliveries, value
    from capi.day_figures()
"""
KEPT = FIGURES.replace("day_figures()", "day_counts")


def rows(bench: Bench, query: str) -> list[tuple[Any, ...]]:
    return sorted(bench.sql(query), key=str)


def today(bench: Bench) -> datetime:
    return bench.started


def whole(bench: Bench) -> Span:
    day = today(bench).date()
    return Span(day - timedelta(days=80), day)


def a_busy_ledger(bench: Bench) -> None:
    """Deliver, refuse, hold and re-read conversions of several days."""
    bench.simulator.faults.add(
        Fault(kind=FaultKind.REFUSE_IF, count=None, event_ids=bench.event_ids(3))
    )
    long_ago = bench.started - timedelta(days=9)
    bench.deliver(bench.rows(*range(1, 12)))
    bench.deliver(bench.rows(20, 21, consent=False), bench.rows(30, amount="nothing"))
    bench.deliver(bench.rows(40, 41, loaded_at=long_ago))
    # Read again: the row became known anew, on another day.
    bench.deliver(bench.rows(40, loaded_at=bench.started - timedelta(days=2)))


class TestTheCountsAreExact:
    def test_before_and_after_the_days_are_counted(self, bench: Bench) -> None:
        a_busy_ledger(bench)
        truth = rows(bench, COUNTED_NOW)
        assert len({day for _, _, day, *_ in truth}) >= 3
        assert {row[3] for row in truth} >= {
            "accepted", "refused", "withheld", "quarantined",
        }  # fmt: skip
        assert rows(bench, FIGURES) == truth

        assert overview.count_days(bench.ledger) >= 3
        assert rows(bench, KEPT) == truth
        assert rows(bench, FIGURES) == truth
        assert overview.count_days(bench.ledger) == 0

    @pytest.mark.parametrize(
        "change",
        [
            "insert into capi.deliveries (dataset_id, feed, source_key, state, reason, cursor_at,"
            " run_no, not_before) select dataset_id, feed, 'new', 'withheld', 'consent.not_given',"
            " cursor_at - interval '30 days', run_no, null from capi.deliveries limit 1",
            "update capi.deliveries set value = value + 1 where source_key = 'o-1'",
            "update capi.deliveries set cursor_at = cursor_at - interval '3 days'"
            " where source_key in ('o-1', 'o-40')",
            "delete from capi.deliveries where source_key in ('o-2', 'o-41')",
            "select * from capi.forget('store_orders', array['o-2', 'o-20'])",
        ],
        ids=["insert", "update", "another day", "delete", "forget"],
    )
    def test_after_any_change_to_a_counted_ledger(
        self, bench: Bench, change: str
    ) -> None:
        a_busy_ledger(bench)
        overview.count_days(bench.ledger)
        before = rows(bench, FIGURES)
        bench.sql(change)
        truth = rows(bench, COUNTED_NOW)
        assert truth != before
        assert rows(bench, FIGURES) == truth
        overview.count_days(bench.ledger)
        assert rows(bench, KEPT) == truth

    def test_a_change_that_commits_while_days_are_counted_is_counted_later(
        self, bench: Bench
    ) -> None:
        a_busy_ledger(bench)
        with psycopg.connect(bench.dsn) as writer:
            writer.execute(
                "update capi.deliveries set value = 7 where source_key = 'o-1'"
            )
            overview.count_days(
                bench.ledger
            )  # It waits for nobody, and sees nothing of it.
            assert rows(bench, KEPT) == rows(bench, COUNTED_NOW)
        truth = rows(bench, COUNTED_NOW)
        assert rows(bench, KEPT) != truth
        assert rows(bench, FIGURES) == truth

    def test_two_who_count_at_a_time_count_once(self, bench: Bench) -> None:
        a_busy_ledger(bench)
        with psycopg.connect(bench.dsn) as first:
            first.execute("select capi.count_touched_days()")
            bench.sql("update capi.deliveries set value = 7 where source_key = 'o-1'")
            assert overview.count_days(bench.ledger) == 0
            assert rows(bench, FIGURES) == rows(bench, COUNTED_NOW)
        assert rows(bench, FIGURES) == rows(bench, COUNTED_NOW)
        assert overview.count_days(bench.ledger) == 1
        assert rows(bench, KEPT) == rows(bench, COUNTED_NOW)

    def test_workers_of_one_day_do_not_wait_for_each_others_marks(
        self, bench: Bench
    ) -> None:
        a_busy_ledger(bench)
        change = "update capi.deliveries set value = 9 where source_key = %s"
        with psycopg.connect(bench.dsn) as one, psycopg.connect(bench.dsn) as other:
            for each in (one, other):
                each.execute("set lock_timeout = '100ms'")
            one.execute(change, ("o-1",))
            other.execute(change, ("o-2",))


class TestWhatThePageCounts:
    def test_it_is_what_the_views_say(self, bench: Bench) -> None:
        a_busy_ledger(bench)
        span = whole(bench)
        (found,) = overview.figures(bench.ledger, [FEED], span, apart=True)
        (standing,) = insight.status(bench.ledger, FEED)
        assert {state.value: n for state, n in found.whole.states.items()} == {
            state: getattr(standing, state)
            for state in (
                "accepted", "refused", "quarantined", "withheld", "expired", "in_doubt",
                "pending",
            )
        }  # fmt: skip
        assert found.whole.total == standing.total
        coverage = insight.coverage(bench.ledger, FEED, DATASET, span.since)
        assert {c.match_key: c.share for c in coverage} == {
            key: found.coverage.share(key) for key in found.coverage.keys
        }
        for day in insight.freshness(bench.ledger, FEED, DATASET, span.since):
            assert found.fresh_days[day.day].shares() == pytest.approx(
                (day.within_1_hour, day.within_2_hours, day.within_24_hours), abs=1e-4
            )
        for line in insight.days(bench.ledger, FEED, DATASET, span.since):
            assert found.days[line.day].total == line.total
            assert line.accepted_value == {
                name: pytest.approx(float(value))
                for name, value in found.days[line.day].accepted_value.items()
            }
        assert {(state, code): n for state, code, n in found.most_common_reasons()} == {
            (each.state, each.reason): each.deliveries
            for each in insight.reasons(bench.ledger, FEED)
        }

    def test_what_was_removed_is_counted_still(self, bench: Bench) -> None:
        a_busy_ledger(bench)
        overview.count_days(bench.ledger)
        (before,) = overview.figures(bench.ledger, [FEED], whole(bench))
        bench.sql("select * from capi.forget('store_orders', array['o-2', 'o-20'])")
        (after,) = overview.figures(bench.ledger, [FEED], whole(bench))
        assert after.whole.states == before.whole.states

    def test_when_too_many_days_change_it_says_from_when_the_numbers_are(
        self, bench: Bench
    ) -> None:
        a_busy_ledger(bench)
        overview.count_days(bench.ledger)
        (before,) = overview.figures(bench.ledger, [FEED], whole(bench))
        for day in range(3, 23):
            bench.deliver(
                bench.rows(100 + day, loaded_at=bench.started - timedelta(days=day))
            )
        (found,) = overview.figures(bench.ledger, [FEED], whole(bench))
        assert found.changing == 20
        assert found.counted_at
        assert found.counted_at <= datetime.now(UTC)
        assert found.whole.states == before.whole.states
        overview.count_days(bench.ledger)
        (found,) = overview.figures(bench.ledger, [FEED], whole(bench))
        assert found.changing == 0
        assert found.whole.total == before.whole.total + 20

    def test_a_feed_that_was_never_counted_is_not_said_to_have_nothing(
        self, bench: Bench
    ) -> None:
        days = [bench.started - timedelta(days=day) for day in range(12)]
        for number, day in enumerate(days):
            bench.deliver(bench.rows(number, loaded_at=day))
        (found,) = overview.figures(bench.ledger, [FEED], whole(bench))
        assert (found.whole.total, found.changing) == (0, 12)
        overview.count_days(bench.ledger)
        (found,) = overview.figures(bench.ledger, [FEED], whole(bench))
        assert (found.whole.total, found.changing) == (12, 0)

    def test_what_expires_is_found_whether_or_not_it_was_counted(
        self, bench: Bench
    ) -> None:
        old = bench.started - timedelta(days=6)
        bench.deliver(
            bench.rows(1, 2, amount="nothing", bought_at=old),
            bench.rows(3, amount="nothing"),
        )
        span = old - timedelta(hours=2), old + timedelta(days=1)
        for _ in range(2):
            (found,) = overview.expiring(bench.ledger, FEED, *span)
            assert (found.state, found.deliveries) == (State.QUARANTINED, 2)
            assert overview.expiring(bench.ledger, FEED, span[1], span[1]) == []
            overview.count_days(bench.ledger)

    def test_a_rare_reason_is_found_far_back(self, bench: Bench) -> None:
        a_busy_ledger(bench)
        far = bench.started - timedelta(days=50)
        bench.deliver(bench.rows(77, amount="nothing", loaded_at=far))
        overview.count_days(bench.ledger)
        for _ in range(2):
            found = overview.listed(
                bench.ledger, FEED, None, state=State.QUARANTINED, reason=None, most=9
            )
            assert [line.source_key for line in found] == ["o-30", "o-77"]
            bench.sql("update capi.deliveries set value = 1 where source_key = 'o-1'")
        (held,) = [
            each
            for each in overview.held(bench.ledger, FEED)
            if each.state is State.QUARANTINED
        ]
        assert (held.deliveries, held.earliest) == (2, far.date())

    def test_a_refused_conversion_leads_to_its_tree(self, bench: Bench) -> None:
        a_busy_ledger(bench)
        ((batch_id,),) = bench.sql(
            "select batch_id from capi.deliveries where state = 'refused'"
        )
        found = rundown.family(bench.ledger, batch_id, 50)
        assert found
        assert found.size > 3
        assert found.root.state == "split"
        assert found.root.attempts[0].fbtrace_id
        assert [line.source_key for line in found.deliveries] == ["o-3"]
        run = rundown.rundown(bench.ledger, found.batch.run_no, 50)
        assert run
        assert [each["pieces"] for each in run.troubled] == [found.size - 1]
        (line,) = overview.traffic(
            bench.ledger, FEED, Span.back(1, today(bench).date())
        )
        assert line.refused >= 1
        assert line.requests > line.refused
