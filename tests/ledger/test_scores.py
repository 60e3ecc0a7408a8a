"""The memory of Meta's own scores, in a real PostgreSQL: one reading a day, by one worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from tests.ledger.conftest import DATASET, HOUR, Bench

from meta_capi import score_book
from meta_capi.overview import Span
from meta_capi.retention import retain
from meta_capi.score_book import Book
from meta_capi.scores import EventScore, KeyScore, ScoresError, Surface

DAY = 24 * HOUR
WEB, OFFLINE = Surface.WEB, Surface.OFFLINE


def take(bench: Bench, surface: Surface = WEB, *, now: bool = False) -> bool:
    """Take the reading."""
    return score_book.take(bench.ledger, DATASET, surface, now=now)


def keep(bench: Bench, *found: EventScore, surface: Surface = WEB) -> None:
    """Take the reading, whenever it is due, and keep what was read."""
    assert take(bench, surface, now=True)
    score_book.keep(bench.ledger, DATASET, surface, found)


def score(value: float | None, name: str = "Purchase", **keys: float) -> EventScore:
    """Return an event's score, with the coverage of keys."""
    return EventScore(
        event_name=name, score=value,
        keys=[KeyScore(match_key=key, coverage=share) for key, share in keys.items()],
    )  # fmt: skip


def book(bench: Bench, days: int = 30, ahead: int = 0) -> Book:
    """Return what is known of the dataset, some days later."""
    today = (datetime.now(UTC) + timedelta(days=ahead)).date()
    return score_book.standing(bench.ledger, [DATASET], Span.back(days, today))[DATASET]


class TestOneReadingADay:
    def test_of_many_workers_one_reads(self, bench: Bench) -> None:
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda _: take(bench), range(16)))
        assert sum(taken) == 1
        assert take(bench, OFFLINE), "the other surface is read for itself"

    def test_what_was_read_is_read_again_on_the_next_day(self, bench: Bench) -> None:
        keep(bench, score(5))
        assert not take(bench)
        bench.pass_time(DAY)
        assert take(bench)
        assert not take(bench)

    def test_where_meta_had_no_score_yet_it_is_asked_again_in_an_hour(
        self, bench: Bench
    ) -> None:
        keep(bench)
        bench.pass_time(HOUR - 60)
        assert not take(bench)
        bench.pass_time(HOUR + 60)
        assert take(bench)

    def test_a_worker_that_dies_with_it_is_followed_in_an_hour(
        self, bench: Bench
    ) -> None:
        assert take(bench)
        bench.pass_time(HOUR - 60)
        assert not take(bench)
        bench.pass_time(HOUR + 60)
        assert take(bench)

    @pytest.mark.parametrize(("for_now", "hours"), [(True, 1), (False, 24)])
    def test_what_may_pass_is_tried_sooner_than_a_no(
        self, bench: Bench, for_now: bool, hours: int
    ) -> None:
        assert take(bench)
        error = ScoresError("No.", code="meta.200", for_now=for_now)
        score_book.fail(bench.ledger, DATASET, WEB, error)
        bench.pass_time(hours * HOUR - 60)
        assert not take(bench)
        assert take(bench, now=True), "a person may ask at once"
        score_book.fail(bench.ledger, DATASET, WEB, error)
        bench.pass_time(2 * hours * HOUR)
        assert take(bench)

    def test_the_second_of_a_day_takes_the_firsts_place(self, bench: Bench) -> None:
        keep(bench, score(5, em=10), score(1, "Lead"))
        keep(bench, score(6, em=20, ph=30))
        [line] = book(bench).lines
        assert line.last.score == 6
        assert [(key.match_key, key.coverage) for key in line.last.keys] == [
            ("ph", 30), ("em", 20),
        ]  # fmt: skip


class TestWhatIsKnown:
    def test_is_nothing_of_a_dataset_that_was_never_read(self, bench: Bench) -> None:
        assert book(bench) == Book()

    def test_is_each_days_score_and_the_last_days_keys(self, bench: Bench) -> None:
        keep(bench, score(5, em=10), score(None, "Lead"))
        bench.pass_time(DAY)
        keep(bench, score(6.5, em=20))
        keep(bench, score(8, phone=50), surface=OFFLINE)
        found = book(bench, ahead=1)
        shown = [
            (x.surface, x.last.event_name, [*x.history.values()]) for x in found.lines
        ]
        assert shown == [
            (WEB, "Lead", [None]), (WEB, "Purchase", [5, 6.5]), (OFFLINE, "Purchase", [8]),
        ]  # fmt: skip
        assert found.lines[1].last.keys == [KeyScore(match_key="em", coverage=20)]
        assert [reading.surface for reading in found.readings] == [WEB, OFFLINE]

    def test_has_the_last_scores_even_if_they_are_older_than_the_span(
        self, bench: Bench
    ) -> None:
        keep(bench, score(5, em=10))
        [line] = book(bench, days=1, ahead=3).lines
        assert line.last == score(5, em=10)
        assert book(bench, days=1, ahead=-1).lines == [], "and none of the future"

    def test_is_why_it_fails_and_since_when_until_nobody_asks(
        self, bench: Bench
    ) -> None:
        keep(bench, score(5))
        for trouble in ("meta.200", "meta.190"):
            error = ScoresError("No.", code=trouble)
            score_book.fail(bench.ledger, DATASET, WEB, error)
            bench.pass_time(HOUR)
        [reading] = book(bench).readings
        assert reading.trouble == "meta.190"
        assert reading.trouble_since
        assert reading.trouble_since - datetime.now(UTC) < timedelta(minutes=1)
        bench.pass_time(3 * DAY)
        assert book(bench).readings == []
        assert [line.last.score for line in book(bench).lines] == [5]

    def test_leaves_the_ledger_when_the_feeds_time_is_over(self, bench: Bench) -> None:
        bench.run()
        keep(bench, score(5, em=10))
        bench.pass_time(10 * DAY)
        keep(bench, score(6, em=20))
        later = bench.started + bench.feed.retention + timedelta(days=5)
        bench.pass_time((later - bench.started).total_seconds())

        assert retain(bench.ledger, bench.feed, later)["scores"] == 1
        assert bench.sql("select score from capi.scores") == [(6,)]
        assert bench.sql("select coverage from capi.score_keys") == [(20,)]
