"""A slice of rows meets the ledger: recorded, compared, cut into batches, taken.

All of it happens in one transaction, with a handful of statements however many rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from meta_capi.built import Built
from meta_capi.errors import LeaseLostError
from meta_capi.ledger import ResendPolicy, Run
from meta_capi.lifecycle import State
from meta_capi.payload import Batch, OwedEvent, cut
from meta_capi.sql import queries

__all__ = ["Claim", "Claimed", "next_numbers"]

_SQL: Final = queries("ledger")
Cursor = psycopg.Cursor[dict[str, Any]]


@dataclass(slots=True)
class Claimed:
    """What became of a slice: batches for this worker, and where the other rows stand."""

    batches: list[Batch] = field(default_factory=list)
    standing: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    """Rows not claimed, by state and reason."""


class Claim:
    """One transaction of one worker."""

    def __init__(
        self, cursor: Cursor, run: Run, policy: ResendPolicy, *, worker_id: int,
        validation_id: int | None,
    ) -> None:  # fmt: skip
        self._cursor = cursor
        self._run = run
        self._policy = policy
        self._worker_id = worker_id
        self._validation_id = validation_id

    def take(self, built: Built, *, most_events: int, most_bytes: int) -> Claimed:
        """Record the slice, cut batches from what may be sent, and take them."""
        claimed, cursor = Claimed(), self._cursor
        cursor.execute(_SQL["make_incoming"])
        _copy(cursor, built)
        cursor.execute(_SQL["describe_incoming"])
        cursor.execute(_SQL["find_taken"], self._values())
        if taken := [row["ordinal"] for row in cursor.fetchall()]:
            _free_taken(cursor, built, taken)
        cursor.execute(_SQL["compare"], self._values())
        kept = {
            row["ordinal"]: (row["state"], row["reason"]) for row in cursor.fetchall()
        }
        if kept:
            cursor.execute(_SQL["touch"], self._values(ordinals=list(kept)))
            claimed.standing.update(kept.values())
        held = [
            row
            for row, reason in enumerate(built.reasons)
            if reason is not None and row not in kept
        ]
        if held:
            cursor.execute(_SQL["hold"], self._values(ordinals=held))
            claimed.standing.update(
                (built.states[row].value, built.reasons[row]) for row in held
            )
        rows = [row for row in built.sendable if row not in kept]
        if rows:
            claimed.batches = self._batches(built, rows, most_events, most_bytes)
            lost = len(rows) - sum(map(len, claimed.batches))
            if lost:
                claimed.standing[State.CLAIMED.value, None] += lost
        return claimed

    def _batches(
        self, built: Built, rows: list[int], most_events: int, most_bytes: int
    ) -> list[Batch]:
        owed = [
            OwedEvent(built.source_keys[row], built.bodies[row] or b"") for row in rows
        ]
        sizes = [len(event.body) for event in owed]
        ranges = list(cut(sizes, most_events=most_events, most_bytes=most_bytes))
        numbers = next_numbers(self._cursor, len(ranges))
        batches = [
            Batch(number, number, 0, tuple(owed[span.start : span.stop]))
            for number, span in zip(numbers, ranges, strict=True)
        ]
        self._open(batches)
        self._cursor.execute(
            _SQL["claim"],
            self._values(
                ordinals=rows,
                batch_ids=[
                    number
                    for number, span in zip(numbers, ranges, strict=True)
                    for _ in span
                ],
            ),
        )
        got = {row["source_key"] for row in self._cursor.fetchall()}
        return batches if len(got) == len(rows) else self._shrink(batches, got)

    def _open(self, batches: Sequence[Batch]) -> None:
        self._cursor.execute(
            _SQL["open_batches"],
            {
                "worker_id": self._worker_id,
                "batch_ids": [batch.batch_id for batch in batches],
                "events": [len(batch) for batch in batches],
                "bytes": [batch.size for batch in batches],
            },
        )
        if len(self._cursor.fetchall()) != len(batches):
            raise LeaseLostError(
                "This worker's lease is over; it claims nothing more. It stops here."
            )

    def _shrink(self, batches: Sequence[Batch], got: set[str]) -> list[Batch]:
        """Leave out what another worker took between the comparison and the claim."""
        kept = []
        for batch in batches:
            events = tuple(event for event in batch.events if event.source_key in got)
            small = Batch(batch.batch_id, batch.root_id, batch.depth, events)
            if not events:
                self._cursor.execute(_SQL["drop_batch"], {"batch_id": batch.batch_id})
                continue
            if len(events) < len(batch):
                self._cursor.execute(
                    _SQL["shrink_batch"],
                    {
                        "batch_id": small.batch_id,
                        "events": len(small),
                        "bytes": small.size,
                    },
                )
            kept.append(small)
        return kept

    def _values(self, **more: Any) -> dict[str, Any]:
        return {
            "dataset_id": self._run.dataset_id,
            "feed": self._run.feed,
            "run_no": self._run.run_no,
            "validation_id": self._validation_id,
            "resend": self._policy.resend,
            "resend_window": self._policy.window_seconds,
            "most_resends": self._policy.most_resends,
            **more,
        }


def next_numbers(cursor: Cursor, count: int) -> list[int]:
    """Return numbers for new batches; a number is never given twice."""
    cursor.execute(_SQL["next_batch_numbers"], {"count": count})
    return [row["nextval"] for row in cursor.fetchall()]


def _copy(cursor: Cursor, built: Built) -> None:
    with cursor.copy(_SQL["copy_incoming"]) as copy:
        for row in range(len(built)):
            at, later = built.event_times[row], built.not_before[row]
            copy.write_row(
                (
                    row,
                    built.source_keys[row],
                    built.event_names[row],
                    built.event_ids[row],
                    None if at is None else datetime.fromtimestamp(at, UTC),
                    built.cursors[row],
                    built.states[row].value,
                    built.reasons[row],
                    built.masks[row],
                    built.digests[row],
                    built.values[row],
                    built.currencies[row],
                    None if later is None else datetime.fromtimestamp(later, UTC),
                )
            )


def _free_taken(cursor: Cursor, built: Built, rows: Sequence[int]) -> None:
    """Quarantine rows whose event_id is another conversion's; they keep no event_id."""
    for row in rows:
        built.hold(row, State.QUARANTINED, "event_id.taken")
        built.event_ids[row] = None
    cursor.execute(_SQL["free_taken"], {"ordinals": list(rows)})
