"""The logs that people read in Airflow: of a good run, and of one that cannot go on."""

from __future__ import annotations

import json

import pytest
from tests.journeys.conftest import Demo

from meta_capi.catalogue import CATALOGUE

pytestmark = pytest.mark.slow

PURCHASES = "send_offline_purchases"


def lines(log: str) -> list[dict[str, str]]:
    """Return what our own tasks said; Airflow's lines are of the logger `task`."""
    told = [json.loads(line) for line in log.splitlines()]
    return [each for each in told if each["logger"].startswith("airflow.task")]


def first_run(demo: Demo) -> str:
    """Return the run with which the demo began."""
    runs = demo.runs(PURCHASES)
    return next(r["dag_run_id"] for r in runs if r["run_type"] == "manual")


def test_a_good_run_begins_with_what_and_ends_with_what_to_do(demo: Demo) -> None:
    run_id = first_run(demo)
    for task in ("preflight", "plan", "validate", "deliver", "report"):
        told = [each["event"] for each in lines(demo.log_of(PURCHASES, run_id, task))]
        assert [line.split()[0] for line in told[:6]] == [
            "Feed", "From", "To", "Interval", "Mode", "Started",
        ], task  # fmt: skip
        assert told[3].count(" UTC") == 2
        assert told[-1].startswith("Next: "), task
    assert any(line.startswith("accepted ") for line in told)
    linked = {line.partition("/capi/reasons#")[2] for line in told if "#" in line}
    assert len(linked & set(CATALOGUE)) == 3


def test_a_run_that_cannot_go_on_says_why_and_shows_no_traceback(demo: Demo) -> None:
    run_id = demo.trigger(PURCHASES, start=demo.whole["start"])
    assert demo.end_of(PURCHASES, run_id) == "failed"
    log = demo.log_of(PURCHASES, run_id)
    assert "error_detail" not in log, "that is a traceback"
    assert "Traceback" not in log
    told = [each["event"] for each in lines(log) if each["level"] == "error"]
    assert told[0] == (
        "The form has only one of the dates *From* and *Up to*; fill in both, or leave "
        "both empty."
    )
    assert told[1].startswith("fault.form: ")
    assert told[2].endswith("/capi/reasons#fault.form")
    assert told[-1].startswith("Next: Trigger the DAG again")
    path = f"/dags/{PURCHASES}/dagRuns/{run_id}/taskInstances"
    tasks = demo.airflow.ask("GET", path)["task_instances"]
    tries = {each["task_id"]: (each["state"], each["try_number"]) for each in tasks}
    assert tries["preflight"] == ("failed", 1), "trying again cannot help"
