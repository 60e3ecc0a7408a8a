"""What Airflow's own task runner writes of our tasks: a story, and never a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.airflow.world import DATASET, World, tune

from graph_simulator import Fault, FaultKind
from meta_capi.catalogue import CATALOGUE

PURCHASES = "send_offline_purchases"


def test_a_run_tells_what_it_works_on_what_came_of_it_and_what_is_next(
    world: World, said: Callable[[], str]
) -> None:
    world.run(PURCHASES)
    log = said()
    for label, told in (
        ("Feed", "offline_purchases: Purchases in the stores"),
        ("From", "shop.offline_purchases, over connection capi_warehouse"),
        ("To", f"dataset {DATASET} on v"), ("Interval", "rows that became known from"),
        ("Mode", "send"), ("Started", "by hand"),
    ):  # fmt: skip
        assert len(re.findall(rf"\b{label} +{re.escape(told)}", log)) == 5, label
    assert log.count("accepted now, in") == 1
    assert log.count("source rows ") == 2
    linked = re.findall(r"docs/reasons\.md#([a-z0-9_.]+)", log)
    assert linked
    assert set(linked) <= set(CATALOGUE)
    assert re.search(r"Next: \d+ held for a person", log)
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("fault", "form", "entry", "task"),
    [
        (None, {"start": "2026-01-01T00:00:00+00:00"}, "fault.form", "preflight"),
        (FaultKind.TOKEN_REVOKED, {}, "meta.190.463", "deliver"),
    ],
)
def test_an_expected_fault_ends_in_sentences_without_a_traceback(
    world: World, said: Callable[[], str], fault: FaultKind | None,
    form: dict[str, str], entry: str, task: str,
) -> None:  # fmt: skip
    if fault:
        # The preflight asks for the dataset; the token is revoked after it.
        world.sim.faults.add(Fault(kind=fault, count=None))
    states = world.run(PURCHASES, form or None)
    assert states[task] == "failed"
    log = said()
    assert f"docs/reasons.md#{entry}" in log
    assert f"{entry}: {CATALOGUE[entry].meaning}" in log
    assert f"Next: {CATALOGUE[entry].action}" in log
    assert "Task exited" in log
    assert "Trying again cannot help before that is mended." in log
    assert "Traceback" not in log


@pytest.mark.matrix("P6")
def test_a_task_that_is_out_of_time_says_what_became_of_its_rows_and_is_tried_again(
    own_feeds: Path, world: World, said: Callable[[], str]
) -> None:
    tune(own_feeds, "limits: {events_per_request: 100, requests_in_flight: 1}")
    world.sim.faults.add(Fault(kind=FaultKind.DELAY, seconds=5.0, count=1))
    states = world.run(
        PURCHASES, execution_timeout=timedelta(seconds=3), retry_delay=timedelta(0)
    )
    log = said()
    # The request on its way was waited for; what waited behind it went back.
    first, _, again = log.partition("Task exited")
    assert re.search(r"accepted +100 ", first)
    assert re.search(r"\d+ × worker\.released \(pending\)", first)
    assert "within its execution_timeout of 3 seconds, so Airflow ended it." in first
    entry = CATALOGUE["fault.time_out"]
    for told in (entry.meaning, "docs/reasons.md#fault.time_out", entry.action):
        assert told in first, told
    assert "This was try 1 of 4." in first
    assert "Traceback" not in log

    assert "; try 2" in again
    assert states["dag"] == "success"
    assert world.states("offline_purchases").keys() == {
        "accepted", "quarantined", "withheld",
    }  # fmt: skip
    assert world.processed_twice() == []
    at_desks = "select count(*) from capi.workers where ended_at is null"
    assert world.sql(at_desks) == [(0,)]
