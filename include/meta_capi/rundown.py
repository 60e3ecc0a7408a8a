"""What the page tells of a run and of a batch: requests, splits, gates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meta_capi import insight
from meta_capi.answers import Attempt, RunSummary
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State
from meta_capi.overview import Line, ask

__all__ = ["Branch", "Family", "Rundown", "family", "gate_feed", "run_no_of", "rundown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rundown:
    """One run."""

    run: RunSummary
    batches: Sequence[dict[str, Any]]
    """By state: batches, events, requests."""
    troubled: Sequence[dict[str, Any]]
    """First batches that were not simply accepted."""
    accepted: Sequence[dict[str, Any]]
    """The latest of those that were."""
    results: Sequence[dict[str, Any]]
    """What the gates found, by expectation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One batch of a family, with what was cut from it."""

    batch_id: int
    parent_id: int | None
    depth: int
    run_no: int
    feed: str
    dataset_id: str
    events: int
    bytes: int
    state: str
    reason: str | None
    doubt_since: datetime | None
    created_at: datetime
    settled_at: datetime | None
    attempts: Sequence[Attempt]
    parts: list[Branch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A batch, and the tree that it stands in."""

    batch: Branch
    root: Branch
    size: int
    deliveries: Sequence[Line]


def run_no_of(
    ledger: Ledger, dag_id: str, run_id: str, feeds: Sequence[str]
) -> int | None:
    """Return a run's number by its name in Airflow; None if the ledger has none."""
    name = f"{dag_id}/{run_id}"
    # A DAG for every feed has a run for each.
    names = [name, *(f"{name}/{feed}" for feed in feeds)]
    rows = ask(ledger, "run_named", run_ids=names)
    return rows[0]["run_no"] if rows else None


def rundown(ledger: Ledger, run_no: int, most: int) -> Rundown | None:
    """Return a run; None if the ledger knows no such run."""
    run = insight.run(ledger, run_no)
    if run is None:
        return None
    return Rundown(
        run=run,
        batches=ask(ledger, "run_batches", run_no=run_no),
        troubled=ask(ledger, "run_roots", run_no=run_no, most=most),
        accepted=ask(ledger, "run_accepted", run_no=run_no, most=most),
        results=ask(ledger, "run_results", run_no=run_no),
    )


def gate_feed(ledger: Ledger, validation_id: int) -> str | None:
    """Return whose gate it is; None if the ledger knows no such gate."""
    rows = ask(ledger, "validation_feed", validation_id=validation_id)
    return rows[0]["feed"] if rows else None


def family(ledger: Ledger, batch_id: int, most: int) -> Family | None:
    """Return a batch with its tree; None if the ledger knows no such batch."""
    rows = ask(ledger, "family", batch_id=batch_id)
    if not any(row["batch_id"] == batch_id for row in rows):
        return None
    made: defaultdict[int, list[Attempt]] = defaultdict(list)
    numbers = [row["batch_id"] for row in rows]
    for each in ask(ledger, "family_attempts", batch_ids=numbers):
        made[each["batch_id"]].append(Attempt(**each))
    branches: dict[int, Branch] = {}
    for row in rows:
        number = row["batch_id"]
        branch = Branch(**{**row, "attempts": made[number]}, parts=[])
        branches[number] = branch
        if branch.parent_id in branches:
            branches[branch.parent_id].parts.append(branch)
    lines = ask(ledger, "batch_deliveries", batch_id=batch_id, most=most)
    return Family(
        batch=branches[batch_id],
        root=branches[rows[0]["batch_id"]],
        size=len(branches),
        deliveries=[Line(**{**row, "state": State(row["state"])}) for row in lines],
    )
