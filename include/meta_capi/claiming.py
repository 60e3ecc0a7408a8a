"""A slice of rows meets the ledger: recorded, compared, cut into batches, taken.

All of it happens in one transaction, with a handful of statements however many rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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

    def take(
        self, built: Built, *, most_events: int, most_bytes: int, limit: int | None
    ) -> Claimed:
        """Record the slice, cut batches from what may be sent, and take them."""
        claimed, cursor = Claimed(), self._cursor
        cursor.execute(_SQL["make_incoming"])
        _copy(cursor, built)
        cursor.execute(_SQL["describe_incoming"])
        kept = self._set_aside()
        cursor.execute(_SQL["find_taken"], self._values())
        if taken := [row["ordinal"] for row in cursor.fetchall()]:
            _free_taken(cursor, built, taken)
        cursor.execute(_SQL["suspect"], self._values())
        cursor.execute(_SQL["compare"], self._values())
        kept |= {
            row["ordinal"]: (row["state"], row["reason"]) for row in cursor.fetchall()
        }
        if kept:
            cursor.execute(_SQL["touch"], self._values(ordinals=list(kept)))
            claimed.standing.update(kept.values())
        rows = [row for row in built.sendable if row not in kept]
        if limit is not None and len(rows) > limit:
            _keep_back(cursor, built, rows[limit:])
            rows = rows[:limit]
        held = [
            row
            for row, reason in enumerate(built.reasons)
            if reason is not None and row not in kept
        ]
        if held:
            cursor.execute(_SQL["hold"], self._values(ordinals=held))
        lost: list[int] = []
        if rows:
            claimed.batches, lost = self._batches(built, rows, most_events, most_bytes)
        if apart := held + lost:
            cursor.execute(_SQL["standing"], self._values(ordinals=apart))
            for row in cursor.fetchall():
                claimed.standing[row["state"], row["reason"]] += row["rows"]
        return claimed

    def _set_aside(self) -> dict[int, tuple[str, str]]:
        """Return how the rows stand of which the ledger keeps nothing."""
        self._cursor.execute(_SQL["set_aside"], self._values())
        rows = self._cursor.fetchall()
        if keys := [row["source_key"] for row in rows if row["reason"] == "erased"]:
            self._cursor.execute(_SQL["forget"], self._values(keys=keys))
        return {row["ordinal"]: (row["state"], row["reason"]) for row in rows}

    def _batches(
        self, built: Built, rows: list[int], most_events: int, most_bytes: int
    ) -> tuple[list[Batch], list[int]]:
        """Return the batches, and the rows that another worker took meanwhile."""
        owed = [
            OwedEvent(built.source_keys[row], built.bodies[row] or b"") for row in rows
        ]
        sizes = [len(event.body) for event in owed]
        ranges = list(cut(sizes, most_events=most_events, most_bytes=most_bytes))
        numbers = next_numbers(self._cursor, len(ranges))
        cuts = list(zip(numbers, ranges, strict=True))
        batch_ids = [number for number, span in cuts for _ in span]
        self._cursor.execute(
            _SQL["claim"], self._values(ordinals=rows, batch_ids=batch_ids)
        )
        got = {row["source_key"]: row["doubt_since"] for row in self._cursor.fetchall()}
        batches = []
        for number, span in cuts:
            taken = [
                event
                for event in owed[span.start : span.stop]
                if event.source_key in got
            ]
            if taken:
                batches.append(Batch(number, number, 0, tuple(taken)))
        self._open(batches, got)
        return batches, [row for row in rows if built.source_keys[row] not in got]

    def _open(
        self, batches: Sequence[Batch], doubts: Mapping[str, datetime | None]
    ) -> None:
        """Put the batches on the desk; `doubts` says since when each key is in doubt."""
        since = [
            min(
                filter(None, (doubts[event.source_key] for event in batch.events)),
                default=None,
            )
            for batch in batches
        ]
        self._cursor.execute(
            _SQL["open_batches"],
            {
                "worker_id": self._worker_id,
                "resend_window": self._policy.window_seconds,
                "batch_ids": [batch.batch_id for batch in batches],
                "events": [len(batch) for batch in batches],
                "bytes": [batch.size for batch in batches],
                "doubts": since,
            },
        )
        if len(self._cursor.fetchall()) != len(batches):
            raise LeaseLostError(
                "This worker's lease is over; it claims nothing more. It stops here."
            )

    def _values(self, **more: Any) -> dict[str, Any]:
        return {
            "dataset_id": self._run.dataset_id,
            "feed": self._run.feed,
            "run_no": self._run.run_no,
            "worker_id": self._worker_id,
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


def _keep_back(cursor: Cursor, built: Built, rows: Sequence[int]) -> None:
    """Leave rows pending that are beyond the run's limit."""
    for row in rows:
        built.hold(row, State.PENDING, "limit")
    cursor.execute(_SQL["keep_back"], {"ordinals": list(rows), "reason": "limit"})


def _free_taken(cursor: Cursor, built: Built, rows: Sequence[int]) -> None:
    """Quarantine rows whose event_id is another conversion's; they keep no event_id."""
    for row in rows:
        built.hold(row, State.QUARANTINED, "event_id.taken")
        built.event_ids[row] = None
    cursor.execute(_SQL["free_taken"], {"ordinals": list(rows)})
