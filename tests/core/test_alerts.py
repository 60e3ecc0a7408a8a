"""What deserves attention: the rules by which a feed's figures become alerts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_capi import spec
from meta_capi.alerts import ABOUT, Alert, Kind, Outlook, Severity, judge
from meta_capi.feed import Feed, parse
from meta_capi.feed.alerts import Alerts
from meta_capi.lifecycle import State

NOW = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)
TODAY = NOW.date()
YESTERDAY = TODAY - timedelta(days=1)
FEED = """
feed: store_orders
description: Store orders for the tests of alerts.
schedule: "0 5 * * *"
start_date: 2026-01-01
source: {table: shop.orders, key: [order_id], cursor: {column: loaded_at}}
event: {name: Purchase, action_source: physical_store, time: {column: bought_at}}
user_data: {em: email}
custom_data: {value: amount, currency: {default: EUR}, order_id: order_id}
consent: {column: consent}
"""


PLAIN = parse(FEED)
PATIENT = settings(deadline=None)


def feed(**alerts: Any) -> Feed:
    """Return the feed with other thresholds."""
    return PLAIN.model_copy(update={"alerts": Alerts(**alerts)})


def steady(rows: int, days: int = 40) -> dict[date, dict[State, int]]:
    """Return days with the same count each, yesterday the last whole one."""
    return {
        TODAY - timedelta(days=back): {State.ACCEPTED: rows} for back in range(days)
    }


def outlook(**changes: Any) -> Outlook:
    """Return a feed with which all is well."""
    fine: dict[str, Any] = {
        "feed": PLAIN, "now": NOW, "days": steady(300),
        "read_from": NOW - timedelta(days=40), "read_until": NOW.replace(hour=5, minute=0),
        "in_doubt": 0, "expiring": 0, "token_expires": None,
        "graph_version": spec.DEFAULT_GRAPH_VERSION,
    }  # fmt: skip
    return Outlook(**fine | changes)


def raised(view: Outlook) -> dict[Kind, Alert]:
    """Return what is told."""
    return {kind: alert for kind, alert in judge(view).items() if alert}


def test_a_feed_with_which_all_is_well_is_not_told_of_and_says_so_of_every_kind() -> (
    None
):
    assert raised(outlook()) == {}
    assert set(judge(outlook())) == set(Kind) - {Kind.RUN_FAILED, Kind.TENDING_FAILED}


class TestShares:
    @PATIENT
    @given(
        total=st.integers(0, 5_000), held=st.integers(0, 5_000),
        limit=st.floats(0, 1), least=st.integers(1, 200),
    )  # fmt: skip
    def test_a_share_is_told_above_its_threshold_where_there_are_enough_rows(
        self, total: int, held: int, limit: float, least: int
    ) -> None:
        held = min(held, total)
        for kind, state, name in (
            (Kind.QUARANTINED, State.QUARANTINED, "quarantined_share"),
            (Kind.REFUSED, State.REFUSED, "refused_share"),
        ):
            days = {TODAY: {State.ACCEPTED: total - held, state: held}}
            view = outlook(
                feed=feed(**{name: limit, "least_rows": least}), days=days,
                read_until=None,
            )  # fmt: skip
            expected = total >= least and total > 0 and held / total > limit
            assert (kind in raised(view)) == expected

    def test_today_and_yesterday_are_judged_together_and_no_day_before(self) -> None:
        bad = {State.QUARANTINED: 40}
        for back, told in ((0, True), (1, True), (2, False)):
            days = steady(100) | {TODAY - timedelta(days=back): bad}
            assert (Kind.QUARANTINED in raised(outlook(days=days))) == told

    def test_the_sentence_says_how_many_of_how_many_and_from_when_on(self) -> None:
        days = {TODAY: {State.ACCEPTED: 88, State.QUARANTINED: 12}}
        found = raised(outlook(days=days, read_until=None))[Kind.QUARANTINED]
        assert found.sentence == (
            "12.0% of the rows of today and yesterday are in quarantine: 12 of 100. "
            "Told above 5.0%."
        )
        assert found.figure == pytest.approx(0.12)


class TestTheCount:
    @PATIENT
    @given(
        usual=st.integers(1, 10_000), found=st.integers(1, 50_000),
        off=st.floats(0.1, 10), least=st.integers(1, 10_000),
    )  # fmt: skip
    def test_a_day_is_told_where_it_is_too_far_from_the_usual_count(
        self, usual: int, found: int, off: float, least: int
    ) -> None:
        days = steady(usual) | {YESTERDAY: {State.ACCEPTED: found}}
        view = outlook(feed=feed(unusual_share=off, least_usual=least), days=days)
        expected = usual >= least and abs(found - usual) / usual > off
        assert (Kind.UNUSUAL_COUNT in raised(view)) == expected

    def test_a_day_is_compared_with_its_own_day_of_the_week(self) -> None:
        days = steady(100)
        for back in (8, 15, 22, 29):
            days[TODAY - timedelta(days=back)] = {State.ACCEPTED: 1_000}
        found = raised(outlook(days=days))[Kind.UNUSUAL_COUNT]
        assert found.sentence == (
            "100 rows became known on Saturday, 2026-11-21; about 1,000 are usual (the "
            "median of 4 such days). Told where it is more than 50.0% off."
        )
        days[YESTERDAY] = {State.ACCEPTED: 990}
        assert raised(outlook(days=days)) == {}

    def test_one_odd_week_does_not_make_it_unusual(self) -> None:
        days = steady(300) | {YESTERDAY - timedelta(weeks=2): {State.ACCEPTED: 9_000}}
        assert raised(outlook(days=days)) == {}

    def test_a_young_feed_is_not_judged(self) -> None:
        days = steady(300, days=21) | {YESTERDAY: {State.ACCEPTED: 1}}
        view = outlook(days=days, read_from=NOW - timedelta(days=20))
        assert raised(view) == {}

    def test_a_day_that_was_not_read_to_its_end_is_not_judged(self) -> None:
        days = steady(300) | {YESTERDAY: {State.ACCEPTED: 3}}
        late = NOW.replace(hour=5) - timedelta(days=1)
        assert raised(outlook(days=days, read_until=late)) == {}
        for gone in (None, NOW - timedelta(days=4)):
            told = judge(outlook(days=days, read_until=gone))
            assert {Kind.UNUSUAL_COUNT, Kind.EMPTY_SOURCE}.isdisjoint(told)


class TestAnEmptySource:
    def emptied(self, days: int) -> dict[date, dict[State, int]]:
        """Return a steady source that has gone quiet for some whole days."""
        quiet = {TODAY - timedelta(days=back) for back in range(days + 1)}
        return {day: at for day, at in steady(10).items() if day not in quiet}

    @pytest.mark.parametrize(("days", "told"), [(1, False), (2, True), (5, True)])
    def test_it_is_told_after_so_many_whole_days(self, days: int, told: bool) -> None:
        view = outlook(days=self.emptied(days))
        assert (Kind.EMPTY_SOURCE in raised(view)) == told

    def test_days_of_the_week_on_which_nothing_comes_do_not_count(self) -> None:
        monday = datetime(2026, 11, 23, 9, tzinfo=UTC)
        days = {
            day: {State.ACCEPTED: 100}
            for back in range(1, 41)
            if (day := monday.date() - timedelta(days=back)).weekday() < 5
        }
        view = outlook(
            now=monday, days=days, read_until=monday.replace(hour=5),
            read_from=monday - timedelta(days=40),
        )  # fmt: skip
        assert raised(view) == {}

    def test_a_new_feed_that_reads_nothing_is_told_of(self) -> None:
        found = raised(outlook(days={}, read_from=NOW - timedelta(days=3)))
        assert found[Kind.EMPTY_SOURCE].sentence == (
            "The source was read, and no row became known in 2 whole days, 2026-11-20 to "
            "2026-11-21."
        )

    def test_a_feed_that_began_yesterday_is_not(self) -> None:
        assert raised(outlook(days={}, read_from=NOW - timedelta(days=1))) == {}

    def test_it_is_not_told_twice_as_an_unusual_count(self) -> None:
        judged = judge(outlook(days=self.emptied(3) | steady(0, days=4)))
        assert judged[Kind.EMPTY_SOURCE]
        assert Kind.UNUSUAL_COUNT not in judged


class TestTheRest:
    @PATIENT
    @given(found=st.integers(0, 10**7), limit=st.integers(0, 10**7))
    def test_doubts_and_what_expires_are_told_above_their_thresholds(
        self, found: int, limit: int
    ) -> None:
        view = outlook(
            feed=feed(in_doubt=limit, expiring=limit), in_doubt=found, expiring=found
        )
        expected = {Kind.IN_DOUBT, Kind.EXPIRING} if found > limit else set()
        assert set(raised(view)) == expected

    @PATIENT
    @given(days=st.integers(-1_000, 1_000), within=st.integers(0, 365))
    def test_a_token_is_told_of_so_long_before_its_end(
        self, days: int, within: int
    ) -> None:
        end = TODAY + timedelta(days=days)
        view = outlook(feed=feed(token_expires_within=f"{within}d"), token_expires=end)
        assert (Kind.TOKEN in raised(view)) == (days <= within)

    @pytest.mark.parametrize(
        ("version", "day", "told"),
        [
            ("v24.0", "2027-07-09", False), ("v24.0", "2027-07-10", True),
            ("v24.0", "2029-01-01", True), ("v26.0", "2026-11-22", False),
            ("v26.0", "2028-06-01", True), ("v19.0", "2026-11-22", True),
            ("v27.0", "2036-01-01", False),
        ],
    )  # fmt: skip
    def test_a_graph_version_is_told_of_before_its_two_years_end(
        self, version: str, day: str, told: bool
    ) -> None:
        now = datetime.fromisoformat(f"{day}T12:00:00+00:00")
        view = outlook(now=now, graph_version=version, read_until=None)
        assert (Kind.GRAPH_VERSION in raised(view)) == told

    def test_what_is_turned_off_is_fine(self) -> None:
        off = dict.fromkeys(
            ("quarantined_share", "refused_share", "empty_days", "unusual_share",
             "in_doubt", "expiring")
        )  # fmt: skip
        bad = {TODAY: {State.QUARANTINED: 500, State.REFUSED: 500}}
        view = outlook(feed=feed(**off), days=bad, in_doubt=9, expiring=9)
        assert set(judge(view).values()) == {None}


def test_every_version_that_is_known_has_its_day_and_the_newest_is_the_programs() -> (
    None
):
    released = spec.GRAPH_VERSION_RELEASED
    assert max(released) == spec.NEWEST_GRAPH_VERSION
    assert sorted(released.values()) == list(released.values())
    assert list(released) == sorted(released)


def test_every_kind_says_what_it_means_and_names_its_settings() -> None:
    assert set(ABOUT) == set(Kind)
    settings = [name for about in ABOUT.values() for name in about.settings]
    assert set(settings) == set(Alerts.model_fields) - {"remind_after"}
    for about in ABOUT.values():
        assert isinstance(about.severity, Severity)
        assert all((about.when, about.action, about.over, about.anchor))
