"""What is remembered of an event: never a match key's value, only which keys it had."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One accepted event."""

    event_name: str
    event_id: str | None
    event_time: int
    action_source: str | None
    order_id: str | None
    item_number: str | None
    keys: str  # the user_data keys, joined by commas
    # Of the customer parameters of an offline event without order_id; never journalled.
    fingerprint: bytes | None = None


class Arrival(NamedTuple):
    """One event that was refused or lost on the way."""

    event_name: str
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One arrival of a whole request. All its events share it."""

    at: float
    request: int
    processed: bool
    fault: str | None = None  # the fault's kind, if one was at work
    code: int | None = None  # what Meta refused the request with


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One event and all its arrivals, oldest first."""

    dataset: str
    event_name: str
    event_id: str
    receipts: tuple[Receipt, ...]

    @property
    def processed(self) -> int:
        """How often Meta took it, de-duplicated or not."""
        return sum(receipt.processed for receipt in self.receipts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """A dataset's numbers, as the Events Manager shows them."""

    arrived: int = 0  # in any whole request, refused and lost ones included
    received: int = 0  # in requests that Meta took
    repeated_event_ids: int = 0
    repeated_offline: int = 0

    @property
    def deduplicated(self) -> int:
        """Received, and dropped as repetitions."""
        return self.repeated_event_ids + self.repeated_offline

    @property
    def processed(self) -> int:
        """Received less de-duplicated."""
        return self.received - self.deduplicated


def rows_of(events: Iterable[dict[str, Any]]) -> list[Row]:
    """Return what is remembered of events that the rules have passed."""
    rows = []
    for event in events:
        custom_data = event.get("custom_data") or {}
        source = event.get("action_source")
        order_id = custom_data.get("order_id")
        user_data = event["user_data"]
        fingerprint = None
        if not order_id and source == "physical_store":
            fingerprint = fingerprint_of(user_data)
        rows.append(
            Row(
                event["event_name"],
                event.get("event_id"),
                int(event["event_time"]),
                source,
                order_id,
                custom_data.get("item_number"),
                ",".join(user_data),
                fingerprint,
            )
        )
    return rows


def fingerprint_of(user_data: dict[str, Any]) -> bytes:
    """Return what tells one customer of an offline event from another."""
    text = json.dumps(user_data, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def arrivals_of(data: object) -> list[Arrival]:
    """Return what can be named in a `data` that no rule has passed."""
    if not isinstance(data, list):
        return []
    named = (
        (event.get("event_name"), event.get("event_id"))
        for event in data
        if isinstance(event, dict)
    )
    return [
        Arrival(name, event_id)
        for name, event_id in named
        if isinstance(name, str) and isinstance(event_id, str)
    ]
