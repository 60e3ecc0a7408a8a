"""What Airflow's own task runner writes of our tasks: a story, and never a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.airflow.world import DATASET, World

from graph_simulator import Fault, FaultKind
from meta_capi.catalogue import CATALOGUE

PURCHASES = "send_offline_purchases"


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return what was written since the last time, without colours."""
    return lambda: re.sub(r"\x1b\[[0-9;]*m", "", "".join(capfd.readouterr()))


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
