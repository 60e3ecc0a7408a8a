"""A feed's schedule and the library that Airflow reads it with say the same."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from airflow.sdk import CronDataIntervalTimetable
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.timetables.base import TimeRestriction
from croniter import CroniterBadCronError, CroniterBadDateError, croniter
from hypothesis import example, given
from hypothesis import strategies as st
from pendulum import instance

from capi_airflow.feed_files import home, schedulable
from meta_capi.errors import FeedError
from meta_capi.feed import load
from meta_capi.feed.cron import cron

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BOUNDS = (
    (0, 59, ""),
    (0, 23, ""),
    (1, 31, ""),
    (1, 12, "jan feb DEC"),
    (0, 7, "mon Sat"),
)


@st.composite
def fields(draw: st.DrawFn, low: int, high: int, names: str) -> str:
    """One field, a little out of bounds at times."""
    numbers = st.integers(max(0, low - 1), high + 1).map(str)
    value = st.one_of(numbers, st.sampled_from([*names.split(), str(high), "x"]))
    steps = st.sampled_from(["", "", "/2", "/07", "/90", "/0"])
    bounds = st.lists(st.integers(low, high), min_size=2, max_size=2, unique=True)
    ranges = bounds.map(lambda pair: "-".join(map(str, sorted(pair))))
    around = bounds.map(lambda pair: "-".join(map(str, sorted(pair, reverse=True))))
    term = st.one_of(
        value, st.tuples(st.one_of(value, ranges, st.just("*")), steps).map("".join),
        around,
    )  # fmt: skip
    if draw(st.booleans()):
        return "*"
    terms = draw(st.lists(term, min_size=1, max_size=3))
    return ",".join(each for each in terms if each != "*") or "*"


EXPRESSIONS = st.tuples(*(fields(*bounds) for bounds in BOUNDS)).map(" ".join)


def comes(expression: str) -> bool:
    """Whether Airflow's library takes it, and finds a next time."""
    try:
        croniter(expression, NOW).get_next()
    except (CroniterBadCronError, CroniterBadDateError):
        return False
    return True


def taken(expression: str) -> bool:
    try:
        cron(expression)
    except ValueError:
        return False
    return True


@given(EXPRESSIONS)
@example("61 * * * *")
@example("a b c d e")
@example("0 0 31 2 *")
@example("0 0 29 2 *")
@example("0 0 31 2 mon")
@example("0 0 31 2 */1")
@example("0 0 30/1 feb *")
@example("0 0 31 4,jun,9 *")
@example("*/100 22-5 * NOV-feb fri-Mon")
@example("0 0 * * 0-7")
@example("0 0 * * 7/2")
@example("0 0 0 * *")
@example("0 0 * * 8")
def test_a_feed_takes_exactly_the_schedules_that_airflow_finds_a_next_run_for(
    expression: str,
) -> None:
    assert taken(expression) == comes(expression)


@given(EXPRESSIONS.filter(taken))
def test_whatever_a_feed_takes_airflows_scheduler_finds_a_run_for(
    expression: str,
) -> None:
    ours = CronDataIntervalTimetable(cron(expression), timezone="UTC")
    ours.validate()
    theirs = coerce_to_core_timetable(ours)
    theirs.validate()
    run = theirs.next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(instance(NOW), None, catchup=True),
    )
    assert run is not None
    assert run.data_interval.start < run.data_interval.end


@pytest.mark.parametrize(
    "expression",
    ["@hourly", "5-5 * * * *", "0 22-5/3 * * *", "*,5 * * * *", "R * * * *", "0 0 ? * *",
     "0 0 L * *", "0 0 * * 1#2", "0 0 15W * *", "* * * * * *", "0,, * * * *", "٣ * * * *",
     "0 0 * * mon-", "-1 * * * *", ""],
)  # fmt: skip
def test_what_the_library_reads_otherwise_than_a_person_is_refused(
    expression: str,
) -> None:
    assert not taken(expression)


def test_a_schedule_that_this_airflow_refuses_breaks_its_feed_alone() -> None:
    feed = load(home() / "feeds" / "phone_orders.yaml")
    assert schedulable(feed) is feed
    with pytest.raises(FeedError, match=r"^phone_orders\.yaml:1: schedule: .*61"):
        schedulable(feed.model_copy(update={"schedule": "61 * * * *"}))
