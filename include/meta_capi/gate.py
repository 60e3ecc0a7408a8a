"""What the quality gate finds, and when it stops a run: values and one pure rule.

Counts, codes and keys only; no value of any other column has a place in these.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from meta_capi.feed import Feed

__all__ = ["BadRow", "GateResult", "Outcome", "Status", "verdict"]


class Status(StrEnum):
    """What became of one expectation."""

    PASSED = "passed"
    FAILED = "failed"
    COULD_NOT_BE_CHECKED = "could_not_be_checked"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row to quarantine: its key, as the driver gives it, and the reason."""

    key: tuple[object, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One expectation's result: counts, never a value of a row."""

    type: str
    column: str
    reason: str | None
    severity: str
    status: str
    unexpected: int | None
    """Rows that do not meet it; None if it could not be checked."""
    share: float | None
    """Of the interval's rows."""
    mostly: float
    """The share of rows that must meet it."""
    notes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One validation."""

    validation_id: str
    feed: str
    suite: str
    interval_start: str
    interval_end: str
    rows: int
    quarantined: int
    """Rows whose key failed a critical expectation, each once."""
    seconds: float
    expectations: tuple[Outcome, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data: for the ledger's table and for `data_docs`."""
        return asdict(self)


def verdict(result: GateResult, feed: Feed) -> list[str]:
    """Return why the run must stop before anything is sent; empty if it may go on."""
    faults = [
        f"{outcome.type} on {outcome.column or 'the rows'} could not be checked; does "
        "it fit the column's type? Nothing is sent unchecked."
        for outcome in result.expectations
        if outcome.status == Status.COULD_NOT_BE_CHECKED
    ]
    if result.rows < feed.quality.min_rows:
        faults.append(
            f"The interval has {result.rows:,} rows; {feed.feed} expects "
            f"{feed.quality.min_rows:,} or more (quality.min_rows)."
        )
    share = result.quarantined / result.rows if result.rows else 0.0
    if (
        result.quarantined > feed.quality.tolerated_rows
        and share > feed.quality.max_quarantined_share
    ):
        faults.append(
            f"{result.quarantined:,} of {result.rows:,} rows ({share:.1%}) failed a "
            f"critical expectation; {feed.feed} allows "
            f"{feed.quality.max_quarantined_share:.1%} (quality.max_quarantined_share)."
        )
    return faults
