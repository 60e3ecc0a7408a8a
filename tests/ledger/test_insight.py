"""The questions people ask the ledger, in a world in which everything happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from tests.ledger.small_world import DATASET, World, small_world

from demo.postgres import Postgres
from meta_capi import insight, match_keys
from meta_capi.answers import Story
from meta_capi.lifecycle import State
from meta_capi.names import event_id

FEED = "store_sales"


@pytest.fixture(scope="module")
def world(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Look, and touch nothing: every test of this module sees the same world."""
    with small_world(postgres, tmp_path_factory.mktemp("insight")) as made:
        yield made


def story_of(world: World, key: str) -> Story:
    [story] = insight.explain(world.ledger, [key], FEED)
    return story


def week(world: World) -> date:
    return world.now.date() - timedelta(days=7)


class TestViews:
    def test_the_outcomes_of_every_feed_add_up_to_its_deliveries(
        self, world: World
    ) -> None:
        rows = world.execute(
            "select feed, total, accepted + refused + quarantined + withheld + expired"
            " + in_doubt + pending from capi.reconciliation order by feed"
        )
        assert [feed for feed, _, _ in rows] == ["lead_stages", FEED]
        assert all(total == added for _, total, added in rows)

    def test_reconciliation_counts_what_the_table_holds(self, world: World) -> None:
        held = Counter(
            {
                State(state): count
                for state, count in world.execute(
                    "select state::text, count(*) from capi.deliveries"
                    " where feed = %s group by 1",
                    FEED,
                )
            }
        )
        [standing] = insight.status(world.ledger, FEED)
        assert standing.pending == held[State.PENDING] + held[State.CLAIMED] == 1
        for state in set(State) - {State.PENDING, State.CLAIMED}:
            assert getattr(standing, state) == held[state]
            assert held[state], f"the small world has no delivery that is {state}"

    def test_every_state_of_a_delivery_is_in_some_outcome(self, world: World) -> None:
        known = world.execute(
            "select unnest(enum_range(null::capi.delivery_state))::text"
        )
        assert {State(name) for (name,) in known} == set(State)

    def test_the_bits_of_the_match_keys_are_those_of_the_code(
        self, world: World
    ) -> None:
        for name, key in match_keys.KEYS.items():
            with psycopg.connect(world.url.replace("+psycopg", "")) as connection:
                connection.execute(
                    "update capi.deliveries set match_keys = %s"
                    " where state = 'accepted'",
                    [key.bit],
                )
                shares = connection.execute(
                    "select match_key, share from capi.match_key_coverage"
                    " where feed = %s",
                    [FEED],
                ).fetchall()
                connection.rollback()
            assert {match_key for match_key, _ in shares} == set(match_keys.KEYS)
            assert {match_key for match_key, share in shares if share} == {name}

    def test_coverage_is_the_share_of_the_accepted_events(self, world: World) -> None:
        found = {
            each.match_key: each
            for each in insight.coverage(world.ledger, FEED, DATASET, week(world))
        }
        # `nophone` is accepted without its telephone number.
        [standing] = insight.status(world.ledger, FEED)
        assert found["em"].share == 1
        assert found["ph"].with_key == standing.accepted - 1
        assert found["ph"].share == pytest.approx(1 - 1 / standing.accepted, abs=1e-3)
        assert "lead_id" not in found

    def test_the_accepted_value_is_summed_by_currency(self, world: World) -> None:
        [day] = insight.days(world.ledger, FEED, DATASET, week(world))
        [standing] = insight.status(world.ledger, FEED)
        for name in ("total", *set(State) - {State.CLAIMED}):
            assert getattr(day, name) == getattr(standing, name)
        # The row of `changed` says 99.90 since; Meta was told 12.50.
        assert (
            Decimal(str(day.accepted_value["USD"])) == Decimal("12.50") * day.accepted
        )

    def test_currencies_are_kept_apart_and_only_accepted_value_counts(
        self, world: World
    ) -> None:
        with psycopg.connect(world.url.replace("+psycopg", "")) as connection:
            connection.execute(
                "update capi.deliveries set currency = 'EUR', value = 7"
                " where source_key in ('ok-0', 'ok-1', 'refused')"
            )
            connection.execute(
                "update capi.deliveries set currency = null, value = null"
                " where source_key = 'ok-2'"
            )
            [[told]] = connection.execute(
                "select accepted_value from capi.daily_summary where feed = %s", [FEED]
            ).fetchall()
            connection.rollback()
        [day] = insight.days(world.ledger, FEED, DATASET, week(world))
        assert told == {"EUR": 14, "USD": 12.5 * (day.accepted - 3)}

    def test_freshness_runs_from_the_conversion_to_metas_yes(
        self, world: World
    ) -> None:
        [day] = insight.freshness(world.ledger, FEED, DATASET, week(world))
        assert timedelta(minutes=90) <= day.median_delay <= timedelta(minutes=100)
        assert (day.within_1_hour, day.within_2_hours, day.within_24_hours) == (0, 1, 1)

    def test_event_status_has_one_line_for_each_delivery(self, world: World) -> None:
        lines, deliveries = world.execute(
            "select (select count(*) from capi.event_status),"
            " (select count(*) from capi.deliveries)"
        )[0]
        assert lines == deliveries > 15

    def test_event_status_tells_metas_last_word_on_a_refused_event(
        self, world: World
    ) -> None:
        [event] = insight.events(world.ledger, FEED, State.REFUSED)
        assert event.source_key == "refused"
        assert (event.http_status, event.code, event.subcode) == (400, 100, 2804019)
        assert event.fbtrace_id
        assert event.attempts == 1
        assert event.reason == "meta.100.2804019"

    def test_every_view_says_what_it_is(self, world: World) -> None:
        rows = world.execute(
            "select relname, obj_description(oid, 'pg_class') from pg_class"
            " where relkind = 'v' and relnamespace = 'capi'::regnamespace"
        )
        assert {name for name, _ in rows} == {
            "event_status", "daily_summary", "match_key_coverage", "freshness",
            "reconciliation",
        }  # fmt: skip
        assert all(comment for _, comment in rows)


class TestStories:
    def test_an_accepted_event_names_the_batch_and_metas_answer(
        self, world: World
    ) -> None:
        story = story_of(world, "ok-0")
        assert story.delivery.state is State.ACCEPTED
        assert story.lineage[-1].state == "accepted"
        last = story.lineage[-1].attempts[-1]
        assert (last.outcome, last.http_status) == ("accepted", 200)
        assert last.events_received == story.lineage[-1].events
        assert story.run
        assert story.run.run_id == "send_store_sales/first"

    def test_the_lineage_of_a_refused_event_leads_from_the_root_to_itself_alone(
        self, world: World
    ) -> None:
        story = story_of(world, "refused")
        sizes = [step.events for step in story.lineage]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == 1
        assert len(sizes) > 2
        assert [step.depth for step in story.lineage] == list(range(len(sizes)))
        assert [step.state for step in story.lineage[:-1]] == ["split"] * (
            len(sizes) - 1
        )
        assert story.lineage[0].parent_id is None
        for parent, child in zip(story.lineage, story.lineage[1:], strict=False):
            assert child.parent_id == parent.batch_id

    def test_a_row_that_the_gate_held_names_the_gate_and_the_expectation(
        self, world: World
    ) -> None:
        story = story_of(world, "gated")
        assert story.gate is not None
        assert story.gate.suite == FEED
        assert story.gate.expectations == ["expect_column_values_to_be_between"]
        assert story.lineage == []

    @pytest.mark.parametrize(
        ("key", "state", "reason"),
        [
            ("negative", State.QUARANTINED, "value.negative"),
            ("unconsented", State.WITHHELD, "consent.not_given"),
            ("broad", State.WITHHELD, "match_keys.too_broad"),
            ("ancient", State.EXPIRED, "window.over"),
            ("waiting", State.PENDING, "limit"),
            ("gated", State.QUARANTINED, "gate.failed"),
        ],
    )
    def test_a_held_delivery_tells_its_reason(
        self, world: World, key: str, state: State, reason: str
    ) -> None:
        delivery = story_of(world, key).delivery
        assert (delivery.state, delivery.reason) == (state, reason)

    def test_a_request_without_answer_leaves_a_doubt_with_its_beginning(
        self, world: World
    ) -> None:
        story = story_of(world, "doubtful")
        assert story.delivery.state is State.IN_DOUBT
        assert story.delivery.doubt_since is not None
        assert story.lineage[-1].attempts[-1].outcome == "unknown"

    def test_a_row_changed_after_acceptance_is_marked_and_stays_accepted(
        self, world: World
    ) -> None:
        delivery = story_of(world, "changed").delivery
        assert delivery.state is State.ACCEPTED
        assert delivery.changed_after_send
        assert not story_of(world, "ok-1").delivery.changed_after_send

    def test_a_delivery_is_found_by_its_event_id_too(self, world: World) -> None:
        name = event_id(DATASET, "Purchase", "ok-3")
        [story] = insight.explain(world.ledger, [name])
        assert story.delivery.source_key == "ok-3"

    def test_a_key_that_nobody_knows_has_no_story(self, world: World) -> None:
        assert insight.explain(world.ledger, ["nobody"]) == []
        assert insight.explain(world.ledger, ["ok-1"], "lead_stages") == []
        assert insight.explain(world.ledger, []) == []


class TestCounts:
    def test_reasons_come_with_the_most_common_first(self, world: World) -> None:
        found = insight.reasons(world.ledger, FEED)
        counts = [each.deliveries for each in found]
        assert counts == sorted(counts, reverse=True)
        assert {each.reason for each in found} >= {
            "value.negative", "consent.not_given", "window.over", "limit",
            "meta.100.2804019", "gate.failed",
        }  # fmt: skip
        assert len(insight.reasons(world.ledger, FEED, most=2)) == 2

    def test_an_accepted_delivery_has_no_reason(self, world: World) -> None:
        assert State.ACCEPTED not in {r.state for r in insight.reasons(world.ledger)}

    def test_only_what_is_not_at_meta_expires(self, world: World) -> None:
        found = {e.state: e for e in insight.expiring(world.ledger, FEED, world.now)}
        # Quarantined by the gate: nobody knows its event time.
        assert set(found) == {State.PENDING, State.QUARANTINED}
        assert found[State.PENDING].deliveries == 1
        assert insight.expiring(world.ledger, FEED, world.now - timedelta(days=2)) == []

    def test_a_run_reports_the_deliveries_it_touched_last(self, world: World) -> None:
        report = insight.run_report(world.ledger, "send_store_sales/first")
        assert report is not None
        assert report.run.state == "reported"
        assert report.deliveries[State.REFUSED, "meta.100.2804019"] == 1
        assert report.splits >= 3
        assert report.requests > report.splits
        assert [gate.suite for gate in report.gates] == [FEED]

    def test_an_unknown_run_has_no_report(self, world: World) -> None:
        assert insight.run_report(world.ledger, "send_nothing/never") is None

    def test_runs_come_with_the_latest_first(self, world: World) -> None:
        found = insight.runs(world.ledger)
        assert [each.run_no for each in found] == sorted(
            (each.run_no for each in found), reverse=True
        )
        assert {each.feed for each in insight.runs(world.ledger, FEED)} == {FEED}

    def test_an_interval_counts_by_when_rows_became_known(self, world: World) -> None:
        [standing] = insight.status(world.ledger, FEED)
        day = timedelta(days=1)
        held = insight.interval_status(
            world.ledger, FEED, world.now - day, world.now, DATASET
        )
        assert sum(held.values()) == standing.total
        before = datetime(2020, 1, 1, tzinfo=UTC)
        assert not insight.interval_status(
            world.ledger, FEED, before, before + day, DATASET
        )
        assert not insight.interval_status(
            world.ledger, FEED, world.now - day, world.now, "555555"
        )
