"""How long the rest takes: never nonsense, and honest where nobody can say."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capi_airflow.pace import Pace, Progress, seconds_left, time_left
from meta_capi.lifecycle import State
from meta_capi.tally import Tally

DAY = 86_400
rows = st.integers(0, 10**9)
spans = st.floats(0, 10**6)


def longest(seconds: float | None) -> float:
    """Return a time as a number; unknown is longer than any."""
    return DAY + 1 if seconds is None else seconds


class TestSecondsLeft:
    @given(rows, rows, spans)
    def test_it_is_a_time_of_a_day_at_most_or_unknown(
        self, remaining: int, done: int, seconds: float
    ) -> None:
        left = seconds_left(remaining, done, seconds)
        assert left is None or 0 <= left <= DAY
        assert re.fullmatch(
            r"time left unknown|about [\d,]+ (seconds|minutes|hours) left",
            time_left(left),
        )

    @given(rows, rows, spans, rows, rows, spans)
    def test_more_to_do_takes_no_shorter_and_a_better_pace_no_longer(
        self, remaining: int, done: int, seconds: float, more: int, better: int,
        slower: float,
    ) -> None:  # fmt: skip
        left = longest(seconds_left(remaining, done, seconds))
        assert longest(seconds_left(remaining + more, done, seconds)) >= left
        if seconds > 0:
            assert longest(seconds_left(remaining, done + better, seconds)) <= left
            assert longest(seconds_left(remaining, done, seconds + slower)) >= left

    @given(rows, st.floats(0, DAY))
    def test_who_has_done_nothing_promises_nothing(
        self, remaining: int, seconds: float
    ) -> None:
        left = seconds_left(remaining, 0, seconds)
        assert left == (None if remaining else 0.0)

    @given(st.integers(1, 10**6), st.floats(0.1, 1_000), st.integers(2, 50))
    def test_a_steady_pace_is_foretold(
        self, rate: int, seconds: float, times: int
    ) -> None:
        left = seconds_left(rate * times, rate, seconds)
        wanted = seconds * times
        assert left == (pytest.approx(wanted) if wanted <= DAY else None)


class TestPace:
    @given(
        st.lists(st.tuples(st.floats(0, 600), st.integers(0, 10**6)), max_size=30), rows
    )
    def test_whatever_happens_it_says_something_sane(
        self, steps: list[tuple[float, int]], remaining: int
    ) -> None:
        pace, now, settled = Pace(0.0), 0.0, 0
        for seconds, more in steps:
            now, settled = now + seconds, settled + more
            pace.mark(now, settled)
            left = pace.left(remaining)
            assert pace.rate >= 0
            assert left is None or 0 <= left <= DAY

    def test_a_wait_shows_within_a_minute(self) -> None:
        pace = Pace(0.0)
        for second in range(0, 301, 5):
            pace.mark(second, 100 * second)
        assert pace.left(1_000) == pytest.approx(10)
        for second in range(305, 366, 5):
            pace.mark(second, 30_000)
        assert pace.left(1_000) is None


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock(caplog: pytest.LogCaptureFixture) -> Clock:
    caplog.set_level(logging.INFO)
    return Clock()


class TestProgress:
    def test_it_is_told_every_few_seconds_and_not_more_often(
        self, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        progress = Progress(logging.getLogger("progress"), 1_000, clock)
        for second in range(61):
            clock.at = second
            progress(Tally(rows=1))
        assert len(caplog.messages) == 12

    def test_it_tells_rate_outcomes_and_time_left(
        self, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        progress = Progress(logging.getLogger("progress"), 10_000, clock)
        clock.at = 10.0
        tally = Tally(rows=5_000)
        tally.settle(State.ACCEPTED, 3_900)
        tally.settle(State.WITHHELD, 100)
        progress(tally)
        assert caplog.messages == [
            "4,000 of 10,000 rows (40.0%), 400 rows/s, about 15 seconds left: "
            "3,900 accepted, 0 refused, 100 held, 1,000 in flight."
        ]

    def test_while_meta_lets_wait_it_says_so_and_promises_no_end(
        self, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        progress = Progress(logging.getLogger("progress"), 100, clock)
        clock.at = 10.0
        progress(Tally(rows=5, waits=1, wait_seconds=60))
        (line,) = caplog.messages
        assert "time left unknown" in line
        assert line.endswith("; Meta asked to wait 1 time, 60 s in all.")

    def test_more_rows_than_were_counted_are_all_of_them(
        self, caplog: pytest.LogCaptureFixture, clock: Clock
    ) -> None:
        progress = Progress(logging.getLogger("progress"), 3, clock)
        clock.at = 10.0
        tally = Tally(rows=5)
        tally.settle(State.ACCEPTED, 5)
        progress(tally)
        assert caplog.messages[0].startswith("5 of 5 rows (100.0%), ")
