"""What is measured, and what it should be: issue 4, a figure a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

__all__ = ["TARGETS", "Target", "figure"]


@dataclass(frozen=True, slots=True)
class Target:
    """One figure: its name on the page, its bound, and on which side of it is good."""

    name: str
    bound: float
    unit: str = ""
    at_least: bool = True

    def met(self, value: float) -> bool:
        """Tell whether a value is good enough."""
        return value >= self.bound if self.at_least else value <= self.bound


def _most(name: str, bound: float, unit: str = "") -> Target:
    return Target(name, bound, unit, at_least=False)


TARGETS: Final[dict[str, Target]] = {
    "build.ratio": Target("Row to wire bytes, CPU: times facebook-business", 15, "x"),
    "end_to_end.1m_seconds": _most("1 M conversions, end to end", 20, "s"),
    "end_to_end.drt": Target("End to end, events/s: times drt-core as it comes", 10, "x"),
    "end_to_end.fast_drt": Target("The same: drt-core set for speed", 10, "x"),
    "end_to_end.sdk": Target("End to end, events/s: times the SDK with 16 threads", 15, "x"),
    "end_to_end.sdk_counting": Target(
        "The same rows to a server that only counts: times the SDK with 16 threads", 15, "x"
    ),
    "pipelining.share": Target("16 requests in flight at 200 ms: share of the ideal", 0.95),
    "flat.spread": _most("Cost per event: dearest size to cheapest, less one", 0.10),
    "flat.peak": _most("A deliver process's peak memory", 400, "MB"),
    "flat.peak_growth": _most("The same: largest over all sizes to smallest, less one", 0.10),
    "gate.ratio": _most("The quality gate: times one hand-written SQL pass", 1.3, "x"),
    "airflow.parse": _most("DAG files: parse time", 1.0, "s"),
    "airflow.empty": _most("An empty run: times a trivial DAG's", 1.5, "x"),
}  # fmt: skip


def figure(name: str, value: float, runs: Sequence[float] = ()) -> dict[str, Any]:
    """Return a figure beside its target; `runs` are the repetitions it comes of."""
    target = TARGETS[name]
    return {
        "name": target.name, "value": round(value, 3), "unit": target.unit,
        "target": target.bound, "at_least": target.at_least, "met": target.met(value),
        **({"runs": [round(run, 3) for run in runs], "median": round(median(runs), 3)}
           if runs else {}),
    }  # fmt: skip
