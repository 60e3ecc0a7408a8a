"""Do the pages written by hand say what was measured?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.house_rules import ROOT

_FRACTIONS = {2: "half a second", 3: "a third of a second", 4: "a quarter of a second"}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def measured(name: str) -> Any:
    return json.loads(page(f"measured/{name}.json"))


def test_what_is_noted_of_the_windows_is_what_their_table_adds_up_to() -> None:
    found = measured("faults")
    windows = [trials for name, trials in found["kinds"].items() if name[0] == "W"]
    assert len(windows) == 14
    assert {each["trials"] for each in windows} == {100}
    assert (
        f"100 trials in each of fourteen windows, "
        f"{sum(each['kills'] for each in windows):,} of which ended in a death"
    ) in " ".join(found["notes"])


def test_what_an_event_is_said_to_take_spans_its_runs() -> None:
    runs = measured("bench")["parts"]["build"]["runs"]
    ours, theirs = (
        sorted(round(run["us_per_event"]) for run in runs[of]) for of in ("ours", "sdk")
    )
    told = f"{ours[0]} to {ours[-1]} µs here, {theirs[0]} to {theirs[-1]} there"
    assert told in page("performance.md")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("performance.md", "Airflow adds {} for each mapped task"),
        ("scaling.md", "A mapped task adds {} ✓"),
    ],
)
def test_what_a_mapped_task_is_said_to_add_is_what_one_more_shard_took(
    name: str, told: str
) -> None:
    shard = measured("bench")["parts"]["airflow"]["seconds_per_shard"]
    share = round(1 / shard["send_offline_purchases"])
    assert told.format(_FRACTIONS[share]) in page(name)
