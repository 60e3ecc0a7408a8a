"""The memory of alerts, in a real PostgreSQL: told once, again, and once that it is over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from tests.ledger.conftest import DATASET, HOUR, Bench

from graph_simulator import Fault, FaultKind
from meta_capi import alert_book, overview
from meta_capi.alert_book import News
from meta_capi.alerts import Alert, Judged, Kind, Outlook, judge
from meta_capi.lifecycle import State

FEED, DAY = "store_orders", timedelta(days=1)
FAILED = Alert(Kind.RUN_FAILED, "Task deliver of send_store_orders failed.")


def held(figure: float = 0.1) -> Judged:
    """Return a share that is too high."""
    alert = Alert(Kind.QUARANTINED, f"{figure:.0%} are in quarantine.", figure)
    return {Kind.QUARANTINED: alert}


FINE: Judged = {Kind.QUARANTINED: None}


def take(bench: Bench, channel: str = "slack") -> list[News]:
    """Take the news of a channel."""
    return alert_book.take(bench.ledger, FEED, channel, DAY)


def tell(bench: Bench, channel: str = "slack") -> list[tuple[Kind, str]]:
    """Tell a channel everything; return what it heard."""
    heard = take(bench, channel)
    for news in heard:
        alert_book.told(bench.ledger, channel, news)
    return [(news.kind, news.state) for news in heard]


def note(bench: Bench, judged: Judged) -> None:
    """Write down what was judged."""
    alert_book.note(bench.ledger, FEED, judged)


class TestAnAlertIsTold:
    def test_once_when_it_begins_however_often_it_is_seen(self, bench: Bench) -> None:
        for expected in ([(Kind.QUARANTINED, "new")], [], []):
            note(bench, held())
            assert tell(bench) == expected
        assert len(alert_book.open_alerts(bench.ledger, [FEED])[FEED]) == 1

    def test_to_each_channel_for_itself(self, bench: Bench) -> None:
        note(bench, held())
        assert (
            tell(bench, "slack") == tell(bench, "email") == [(Kind.QUARANTINED, "new")]
        )
        assert tell(bench, "slack") == tell(bench, "email") == []

    def test_again_after_a_day_and_not_before(self, bench: Bench) -> None:
        note(bench, held())
        tell(bench)
        bench.pass_time(23 * HOUR)
        note(bench, held())
        assert tell(bench) == []
        bench.pass_time(24 * HOUR + 1)
        assert tell(bench) == [(Kind.QUARANTINED, "still")]
        assert tell(bench) == []

    def test_again_when_it_is_twice_as_bad(self, bench: Bench) -> None:
        heard = []
        for figure in (0.1, 0.19, 0.2, 0.39, 0.5):
            note(bench, held(figure))
            heard += [(figure, state) for _, state in tell(bench)]
        assert heard == [(0.1, "new"), (0.2, "still"), (0.5, "still")]

    def test_one_without_a_figure_does_not_get_worse(self, bench: Bench) -> None:
        for _ in range(3):
            note(bench, {Kind.RUN_FAILED: FAILED})
        assert tell(bench) == [(Kind.RUN_FAILED, "new")]
        note(bench, {Kind.RUN_FAILED: FAILED})
        assert tell(bench) == []


class TestAnAlertIsOver:
    def test_after_an_hour_of_quiet_and_it_is_told_once(self, bench: Bench) -> None:
        note(bench, held())
        tell(bench)
        note(bench, FINE)
        assert tell(bench) == []
        bench.pass_time(HOUR + 1)
        note(bench, FINE)
        assert tell(bench) == [(Kind.QUARANTINED, "over")]
        assert tell(bench) == []
        assert alert_book.open_alerts(bench.ledger, [FEED]) == {}

    def test_what_swings_about_a_threshold_is_one_alert(self, bench: Bench) -> None:
        heard = []
        for minutes in range(0, 240, 30):
            bench.pass_time(minutes * 60)
            note(bench, held() if minutes % 60 else FINE)
            heard += tell(bench)
        assert heard == [(Kind.QUARANTINED, "new")]

    def test_a_failure_is_over_at_once(self, bench: Bench) -> None:
        note(bench, {Kind.RUN_FAILED: FAILED})
        tell(bench)
        note(bench, {Kind.RUN_FAILED: None})
        assert tell(bench) == [(Kind.RUN_FAILED, "over")]

    def test_what_nobody_was_told_of_is_not_said_to_be_over(self, bench: Bench) -> None:
        note(bench, {Kind.RUN_FAILED: FAILED})
        note(bench, {Kind.RUN_FAILED: None})
        assert tell(bench) == []

    def test_the_next_time_is_another_alert(self, bench: Bench) -> None:
        heard = []
        for found in (FAILED, None, FAILED, None):
            note(bench, {Kind.RUN_FAILED: found})
            heard += [state for _, state in tell(bench)]
        assert heard == ["new", "over", "new", "over"]

    def test_what_was_not_judged_neither_begins_nor_ends(self, bench: Bench) -> None:
        note(bench, held())
        tell(bench)
        bench.pass_time(2 * HOUR)
        note(bench, {Kind.REFUSED: None})
        [standing] = alert_book.open_alerts(bench.ledger, [FEED])[FEED]
        assert standing.kind is Kind.QUARANTINED


class TestTwoAtOnce:
    def test_eight_who_see_one_fault_raise_one_alert_and_tell_it_once(
        self, bench: Bench
    ) -> None:
        def look(_: int) -> list[tuple[Kind, str]]:
            note(bench, held() | {Kind.RUN_FAILED: FAILED})
            return tell(bench)

        with ThreadPoolExecutor(8) as pool:
            heard = [each for found in pool.map(look, range(24)) for each in found]
        assert sorted(heard) == [(Kind.QUARANTINED, "new"), (Kind.RUN_FAILED, "new")]
        assert bench.sql("select count(*) from capi.alerts") == [(2,)]

    def test_what_one_is_telling_no_other_gets(self, bench: Bench) -> None:
        note(bench, held())
        [news] = take(bench)
        assert take(bench) == []
        alert_book.give_back(bench.ledger, "slack", [news])
        assert [each.alert_id for each in take(bench)] == [news.alert_id]

    def test_one_that_dies_while_telling_does_not_silence_it(
        self, bench: Bench
    ) -> None:
        note(bench, held())
        assert take(bench)
        bench.pass_time(301)
        assert tell(bench) == [(Kind.QUARANTINED, "new")]

    def test_one_that_ends_while_it_is_told_is_told_to_be_over(
        self, bench: Bench
    ) -> None:
        note(bench, {Kind.RUN_FAILED: FAILED})
        [news] = take(bench)
        note(bench, {Kind.RUN_FAILED: None})
        alert_book.told(bench.ledger, "slack", news)
        assert tell(bench) == [(Kind.RUN_FAILED, "over")]


class TestTheFigures:
    def look(self, bench: Bench) -> Outlook:
        """Look at the feed as the tasks do."""
        overview.count_days(bench.ledger)
        return alert_book.look(
            bench.ledger, bench.feed, DATASET, datetime.now(UTC), graph_version="v26.0",
            token_expires=None,
        )  # fmt: skip

    def test_they_are_those_of_the_ledger(self, bench: Bench) -> None:
        old = bench.started - bench.feed.longest_window + timedelta(hours=10)
        bench.deliver(bench.rows(*range(10)), bench.rows(10, 11, amount="nothing"))
        bench.deliver(bench.rows(12, amount="nothing", bought_at=old))
        found = self.look(bench)
        day = (bench.started - timedelta(minutes=5)).date()
        assert found.days == {day: {State.ACCEPTED: 10, State.QUARANTINED: 3}}
        assert (found.expiring, found.in_doubt) == (1, 0)
        assert (found.read_from, found.read_until) == (None, None)

    def test_the_source_was_read_as_far_as_runs_were_reported(
        self, bench: Bench
    ) -> None:
        start = datetime.now(UTC).replace(microsecond=0) - 2 * DAY
        for number, state in enumerate(("reported", "reported", "gap")):
            run = bench.ledger.open_run(
                f"read/{number}", feed=FEED, dataset_id=DATASET, mode="send", plan={},
                interval=(start + number * DAY / 2, start + (number + 1) * DAY / 2),
            )  # fmt: skip
            bench.ledger.close_run(run, state=state, outcome={})
        found = self.look(bench)
        assert (found.read_from, found.read_until) == (start, start + DAY)

    @pytest.mark.parametrize(("minutes", "told"), [(30, False), (90, True)])
    def test_doubts_are_told_when_they_last(
        self, bench: Bench, minutes: int, told: bool
    ) -> None:
        bench.simulator.faults.add(
            Fault(kind=FaultKind.HANG_UP_AFTER_READING, count=None)
        )
        bench.deliver(bench.rows(1, 2, 3))
        assert bench.states() == {"in_doubt": 3}
        bench.sql(
            "update capi.deliveries set doubt_since = doubt_since - %s * interval '1 minute'",
            minutes,
        )  # fmt: skip
        alert = judge(self.look(bench))[Kind.IN_DOUBT]
        assert bool(alert) == told
        if alert:
            assert alert.figure == 3


def test_a_message_says_what_since_when_and_what_to_do(bench: Bench) -> None:
    note(bench, held())
    [news] = take(bench)
    said = alert_book.message(FEED, news, "https://airflow.example/feed")
    assert said.subject == "[warning] store_orders: quarantined share"
    assert said.text == "10% are in quarantine."
    assert said.action.startswith("Look at the most common reasons")
    alert_book.told(bench.ledger, "slack", news)
    bench.pass_time(2 * HOUR)
    note(bench, FINE)
    bench.pass_time(3 * HOUR + 5)
    note(bench, FINE)
    [news] = take(bench)
    over = alert_book.message(FEED, news, None)
    assert over.subject == "[over] store_orders: quarantined share"
    assert over.text.startswith("The share in quarantine is back to normal. It lasted")
    assert (over.key, over.action) == (said.key, "")
