"""A slice of rows meets the ledger: cut into batches, recorded, taken.

All of it happens in one transaction, with a handful of statements however many rows. Most
rows are new to the ledger: they are put on the desk as they come. If any is not, the rest
of the slice is compared with what the ledger says of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg

from meta_capi.built import Built
from meta_capi.errors import LeaseLostError
from meta_capi.incoming import copy_text
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


class _Cut(NamedTuple):
    """Rows that shall go out in one request."""

    number: int
    rows: Sequence[int]


class Claim:
    """One transaction of one worker."""

    def __init__(
        self, cursor: Cursor, run: Run, policy: ResendPolicy, *, worker_id: int,
        validation_id: int | None, most_events: int, most_bytes: int,
    ) -> None:  # fmt: skip
        self._cursor = cursor
        self._run = run
        self._policy = policy
        self._worker_id = worker_id
        self._validation_id = validation_id
        self._most_events = most_events
        self._most_bytes = most_bytes

    def take(self, built: Built, *, limit: int | None) -> Claimed:
        """Record the slice, cut batches from what may be sent, and take them."""
        cuts = self._cut(built, built.sendable) if limit is None else []
        self._cursor.execute(_SQL["make_incoming"])
        with self._cursor.copy(_SQL["copy_incoming"]) as copy:
            copy.write(copy_text(built, _numbers(cuts, len(built))))
        aside = self._set_aside()
        every = list(range(len(built)))
        known = self._take_new() if limit is None else _but(every, aside)
        new = set(every).difference(known, aside)
        claimed = Claimed(_batches(built, cuts, new), Counter(aside.values()))
        claimed.standing.update(_held(built, new.intersection(built.held)))
        doubts = self._take_known(built, claimed, known, limit) if known else {}
        self._open(claimed.batches, doubts)
        return claimed

    def _set_aside(self) -> dict[int, tuple[str, str]]:
        """Return how the rows stand of which the ledger keeps nothing."""
        cursor = self._cursor
        house = cursor.execute(_SQL["house"]).fetchone() or {}
        aside = {}
        if house["erased"] or house["removed"]:
            rows = cursor.execute(_SQL["set_aside"], self._values()).fetchall()
            if keys := [row["source_key"] for row in rows if row["reason"] == "erased"]:
                cursor.execute(_SQL["forget"], self._values(keys=keys))
            aside = {row["ordinal"]: (row["state"], row["reason"]) for row in rows}
        if house["restored"]:
            cursor.execute(_SQL["suspect"], self._values())
        return aside

    def _take_new(self) -> list[int]:
        """Record, and put on the desk, what is new to the ledger; return what is not."""
        rows = self._cursor.execute(_SQL["take_new"], self._values()).fetchall()
        return [row["ordinal"] for row in rows]

    def _take_known(
        self, built: Built, claimed: Claimed, known: Sequence[int], limit: int | None
    ) -> dict[str, datetime | None]:
        """Compare rows with what the ledger says of them, and take what it may.

        Returns:
            As `_take`.
        """
        cursor = self._cursor
        cursor.execute(_SQL["find_taken"], self._values(ordinals=known))
        if taken := [row["ordinal"] for row in cursor.fetchall()]:
            _free_taken(cursor, built, taken)
        kept = self._compare(known)
        claimed.standing.update(kept.values())
        rest = set(known).difference(kept)
        rows = [row for row in built.sendable if row in rest]
        if limit is not None and len(rows) > limit:
            _keep_back(cursor, built, rows[limit:])
            rows = rows[:limit]
        held = [row for row in built.held if row in rest]
        if held:
            cursor.execute(_SQL["hold"], self._values(ordinals=held))
        cuts = self._cut(built, rows)
        doubts = self._take(built, cuts)
        got = {row for row in rows if built.source_keys[row] in doubts}
        claimed.batches += _batches(built, cuts, got)
        if apart := [*held, *_but(rows, got)]:
            cursor.execute(_SQL["standing"], self._values(ordinals=apart))
            for row in cursor.fetchall():
                claimed.standing[row["state"], row["reason"]] += row["rows"]
        return doubts

    def _compare(self, known: Sequence[int]) -> dict[int, tuple[str, str | None]]:
        """Return the rows that stay as the ledger has them, and how they stand."""
        values = self._values(ordinals=known)
        rows = self._cursor.execute(_SQL["compare"], values).fetchall()
        kept = {row["ordinal"]: (row["state"], row["reason"]) for row in rows}
        if news := [row["ordinal"] for row in rows if row["has_news"]]:
            self._cursor.execute(_SQL["touch"], self._values(ordinals=news))
        return kept

    def _take(self, built: Built, cuts: Sequence[_Cut]) -> dict[str, datetime | None]:
        """Take rows that the ledger knows.

        Returns:
            The keys taken, and since when each is in doubt. What another claim took
            meanwhile is missing.
        """
        if not cuts:
            return {}
        ordinals = [row for cut in cuts for row in cut.rows]
        batch_ids = [cut.number for cut in cuts for _ in cut.rows]
        values = self._values(ordinals=ordinals, batch_ids=batch_ids)
        rows = self._cursor.execute(_SQL["claim"], values).fetchall()
        return {row["source_key"]: row["doubt_since"] for row in rows}

    def _cut(self, built: Built, rows: Sequence[int]) -> list[_Cut]:
        """Cut rows into batches, and give them numbers."""
        sizes = [len(built.bodies[row] or b"") for row in rows]
        ranges = list(
            cut(sizes, most_events=self._most_events, most_bytes=self._most_bytes)
        )
        numbers = next_numbers(self._cursor, len(ranges)) if ranges else []
        return [
            _Cut(number, rows[span.start : span.stop])
            for number, span in zip(numbers, ranges, strict=True)
        ]

    def _open(
        self, batches: Sequence[Batch], doubts: Mapping[str, datetime | None]
    ) -> None:
        """Put the batches on the desk; `doubts` says since when each key is in doubt.

        Without batches, too, nothing is written that is not this worker's to write.
        """
        since = [
            min(
                filter(None, (doubts.get(event.source_key) for event in batch.events)),
                default=None,
            )
            if doubts
            else None
            for batch in batches
        ]
        values = {
            "worker_id": self._worker_id,
            "resend_window": self._policy.window_seconds,
            "batch_ids": [batch.batch_id for batch in batches],
            "events": [len(batch) for batch in batches],
            "bytes": [batch.size for batch in batches],
            "doubts": since,
        }
        question = "open_batches" if batches else "sits"
        rows = self._cursor.execute(_SQL[question], values).fetchall()
        if len(rows) != max(1, len(batches)):
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


def _but(rows: Sequence[int], others: Collection[int]) -> Sequence[int]:
    return [row for row in rows if row not in others] if others else rows


def _held(built: Built, rows: Collection[int]) -> list[tuple[str, str | None]]:
    return [(built.states[row].value, built.reasons[row]) for row in rows]


def _numbers(cuts: Sequence[_Cut], rows: int) -> list[int | None]:
    """Return the batch of every row of the slice, if it has one."""
    numbers: list[int | None] = [None] * rows
    for cut_ in cuts:
        for row in cut_.rows:
            numbers[row] = cut_.number
    return numbers


def _batches(built: Built, cuts: Sequence[_Cut], taken: Collection[int]) -> list[Batch]:
    """Return batches of the rows taken; there is none without rows."""
    batches = []
    for number, rows in cuts:
        if got := [row for row in rows if row in taken]:
            keys = [built.source_keys[row] for row in got]
            bodies = [built.bodies[row] or b"" for row in got]
            events = tuple(map(OwedEvent, keys, bodies))
            batches.append(Batch(number, number, 0, events))
    return batches


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
