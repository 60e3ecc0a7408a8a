"""The questions people ask the ledger: the page, the command line and the reports.

Nothing here writes. What comes back is in `answers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

from meta_capi.answers import (
    Attempt,
    BatchStep,
    Coverage,
    Day,
    Delivery,
    Erasure,
    Event,
    Expiring,
    Freshness,
    Gate,
    GateVerdict,
    ReasonCount,
    RunReport,
    RunSummary,
    Standing,
    Story,
)
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State
from meta_capi.sql import queries

__all__ = [
    "coverage", "days", "erased", "events", "expiring", "explain", "freshness",
    "interval_status", "reasons", "run", "run_report", "runs", "status",
]  # fmt: skip

_SQL: Final = queries("insight")


def status(ledger: Ledger, feed: str | None = None) -> list[Standing]:
    """Return where the deliveries are: of a feed, or of all."""
    return [Standing(**row) for row in _ask(ledger, "status", feed=feed)]


def interval_status(
    ledger: Ledger, feed: str, start: datetime, end: datetime, dataset_id: str | None
) -> dict[State, int]:
    """Return where the deliveries are whose rows became known in an interval."""
    rows = _ask(
        ledger,
        "interval_status",
        feed=feed,
        start=start,
        end=end,
        dataset_id=dataset_id,
    )
    return {State(row["state"]): row["deliveries"] for row in rows}


def reasons(
    ledger: Ledger, feed: str | None = None, most: int = 10
) -> list[ReasonCount]:
    """Return why deliveries are not at Meta, the most common reason first."""
    rows = _ask(ledger, "reasons", feed=feed, most=most)
    return [ReasonCount(**_stated(row)) for row in rows]


def events(
    ledger: Ledger,
    feed: str,
    state: State,
    *,
    reason: str | None = None,
    most: int = 20,
) -> list[Event]:
    """Return deliveries of a state, those that became known last first."""
    rows = _ask(ledger, "events", feed=feed, state=state, reason=reason, most=most)
    return [Event(**_stated(row)) for row in rows]


def expiring(ledger: Ledger, feed: str, before: datetime) -> list[Expiring]:
    """Return what is not at Meta and whose event is older than `before`."""
    rows = _ask(ledger, "expiring", feed=feed, before=before)
    return [Expiring(**_stated(row)) for row in rows]


def runs(ledger: Ledger, feed: str | None = None, most: int = 10) -> list[RunSummary]:
    """Return the latest runs, the latest first."""
    return [RunSummary(**row) for row in _ask(ledger, "runs", feed=feed, most=most)]


def run(ledger: Ledger, run_no: int) -> RunSummary | None:
    """Return a run by its number; None if the ledger knows no such run."""
    found = _ask(ledger, "run", run_no=run_no, run_id=None)
    return RunSummary(**found[0]) if found else None


def run_report(ledger: Ledger, run_id: str) -> RunReport | None:
    """Return a run and what the ledger has of it; None if it knows no such run."""
    found = _ask(ledger, "run", run_id=run_id, run_no=None)
    if not found:
        return None
    summary = RunSummary(**found[0])
    held = _ask(ledger, "run_deliveries", run_no=summary.run_no)
    gates = _ask(ledger, "run_validations", run_no=summary.run_no)
    return RunReport(
        run=summary,
        deliveries={(State(r["state"]), r["reason"]): r["deliveries"] for r in held},
        gates=[Gate(**row) for row in gates],
        **_ask(ledger, "run_batches", run_no=summary.run_no)[0],
    )


def explain(
    ledger: Ledger, names: Sequence[str], feed: str | None = None
) -> list[Story]:
    """Return the stories of the deliveries with one of these names.

    A name is a source key; the first may be an event id as well. Several feeds may
    know the same key, and several datasets the same conversion.
    """
    rows = _ask(
        ledger,
        "deliveries_called",
        feed=feed,
        source_keys=list(names),
        event_id=names[0] if names else None,
    )
    return [_story(ledger, Delivery(**_stated(row))) for row in rows]


def erased(ledger: Ledger, names: Sequence[str], feeds: Iterable[str]) -> list[Erasure]:
    """Return which of these source keys were erased from these feeds."""
    rows = _ask(ledger, "erased", feeds=list(feeds), source_keys=list(names))
    return [Erasure(**row) for row in rows]


def days(ledger: Ledger, feed: str, dataset_id: str, since: date) -> list[Day]:
    """Return a feed's days since one, the latest first."""
    rows = _ask(ledger, "days", feed=feed, dataset_id=dataset_id, since=since)
    return [Day(**row) for row in rows]


def coverage(ledger: Ledger, feed: str, dataset_id: str, since: date) -> list[Coverage]:
    """Return the match keys of the events accepted since a day, most common first."""
    rows = _ask(ledger, "coverage", feed=feed, dataset_id=dataset_id, since=since)
    return [Coverage(**row) for row in rows]


def freshness(
    ledger: Ledger, feed: str, dataset_id: str, since: date
) -> list[Freshness]:
    """Return how long accepted events took, day by day since one, the latest first."""
    rows = _ask(ledger, "freshness", feed=feed, dataset_id=dataset_id, since=since)
    return [Freshness(**row) for row in rows]


def _story(ledger: Ledger, delivery: Delivery) -> Story:
    # Of an old delivery that is still open, the run and the gate may be gone.
    run = next(iter(_ask(ledger, "run", run_no=delivery.run_no, run_id=None)), None)
    gates = _ask(
        ledger,
        "validation",
        validation_id=delivery.validation_id,
        reason=delivery.reason,
    )
    return Story(
        delivery=delivery,
        lineage=_lineage(ledger, delivery.batch_id),
        run=RunSummary(**run) if run else None,
        gate=GateVerdict(**gates[0]) if gates else None,
    )


def _lineage(ledger: Ledger, batch_id: int | None) -> list[BatchStep]:
    rows = _ask(ledger, "lineage", batch_id=batch_id)
    numbers = [row["batch_id"] for row in rows]
    made = [Attempt(**row) for row in _ask(ledger, "attempts", batch_ids=numbers)]
    return [
        BatchStep(
            **row | {"attempts": [a for a in made if a.batch_id == row["batch_id"]]}
        )
        for row in rows
    ]


def _stated(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "state": State(row["state"])}


def _ask(ledger: Ledger, question: str, **values: Any) -> list[dict[str, Any]]:
    return ledger.attempt(
        lambda cursor: cursor.execute(_SQL[question], values).fetchall()
    )
