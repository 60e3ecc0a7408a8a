"""What the ledger answers to people: small values, which `insight` fills.

Keys, states, reasons and counts; never a customer's data, because the ledger has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from meta_capi.lifecycle import State

__all__ = [
    "Attempt", "BatchStep", "Coverage", "Day", "Delivery", "Erasure", "Event", "Expiring",
    "Freshness", "Gate", "GateVerdict", "ReasonCount", "RunReport", "RunSummary",
    "Standing", "Story",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the deliveries of one feed to one dataset are; the states add up."""

    dataset_id: str
    feed: str
    total: int
    accepted: int
    refused: int
    quarantined: int
    withheld: int
    expired: int
    in_doubt: int
    pending: int
    """Claimed ones included: they are on their way."""
    oldest_pending: datetime | None
    """The event time of the oldest that waits."""
    open_doubts: int
    """In doubt, and neither given up by a person nor erased."""
    oldest_doubt: datetime | None
    """Since when the oldest of these is in doubt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """How many deliveries a reason holds."""

    feed: str
    state: State
    reason: str
    deliveries: int
    latest: datetime
    """When the latest of their rows became known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of `capi.event_status`."""

    dataset_id: str
    feed: str
    source_key: str
    state: State
    reason: str | None
    event_name: str | None
    event_id: str | None
    event_time: datetime | None
    cursor_at: datetime
    batch_id: int | None
    http_status: int | None
    code: int | None
    subcode: int | None
    fbtrace_id: str | None
    attempts: int
    resends: int
    changed_after_send: bool
    value: Decimal | None
    currency: str | None
    recorded_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiring:
    """Deliveries of a state that Meta soon takes no more."""

    state: State
    deliveries: int
    oldest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run of a feed, as planned and as reported."""

    run_no: int
    run_id: str
    feed: str
    dataset_id: str
    mode: str
    state: str
    interval_start: datetime | None
    interval_end: datetime | None
    plan: Mapping[str, Any]
    outcome: Mapping[str, Any]
    planned_at: datetime
    reported_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One validation of a run."""

    validation_id: int
    suite: str
    rows: int | None
    quarantined: int | None
    passed: bool | None
    seconds: float | None
    validated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run, and what the ledger has of it."""

    run: RunSummary
    deliveries: Mapping[tuple[State, str | None], int]
    """Deliveries that this run was the last to touch, by state and reason."""
    batches: int
    splits: int
    requests: int
    gates: Sequence[Gate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One promise, as the ledger has it."""

    dataset_id: str
    feed: str
    source_key: str
    state: State
    reason: str | None
    event_name: str | None
    event_id: str | None
    event_time: datetime | None
    cursor_at: datetime
    batch_id: int | None
    run_no: int
    validation_id: int | None
    match_keys: int
    """The mask of `meta_capi.match_keys`."""
    value: Decimal | None
    currency: str | None
    not_before: datetime | None
    doubt_since: datetime | None
    resends: int
    changed_after_send: bool
    recorded_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request."""

    batch_id: int
    seq: int
    outcome: str
    started_at: datetime
    finished_at: datetime | None
    http_status: int | None
    code: int | None
    subcode: int | None
    fbtrace_id: str | None
    events_received: int | None
    messages: int | None
    wait_seconds: int | None
    usage_percent: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStep:
    """One batch on the way of a delivery."""

    batch_id: int
    parent_id: int | None
    depth: int
    run_no: int
    events: int
    bytes: int
    state: str
    reason: str | None
    attempts: Sequence[Attempt]
    doubt_since: datetime | None
    created_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """The gate that put a delivery in quarantine, and the expectations it failed."""

    validation_id: int
    suite: str
    validated_at: datetime
    expectations: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything the ledger knows of one delivery."""

    delivery: Delivery
    lineage: Sequence[BatchStep]
    """From the batch first cut down to the one it was in last; empty if unclaimed."""
    run: RunSummary | None
    """None where it is so long ago that the ledger has removed it."""
    gate: GateVerdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """A key that was erased; the ledger has a mark of it and nothing else."""

    feed: str
    source_key: str
    """As it was asked for."""
    erased_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day of a feed: deliveries by state, and what Meta accepted, by currency."""

    day: date
    total: int
    accepted: int
    refused: int
    quarantined: int
    withheld: int
    expired: int
    in_doubt: int
    pending: int
    accepted_value: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How many of the accepted events had a match key."""

    match_key: str
    with_key: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How long the accepted events of a day took from the conversion to Meta's yes."""

    day: date
    accepted: int
    median_delay: timedelta
    p95_delay: timedelta
    within_1_hour: float
    within_2_hours: float
    within_24_hours: float
