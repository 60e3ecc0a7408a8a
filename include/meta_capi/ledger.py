"""What we promised, what we tried, what they said.

The only room that speaks SQL to the ledger, together with `desk` (one worker's part of
it). `steps` makes each of its steps whole, or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from meta_capi import schema
from meta_capi.errors import LedgerError, SchemaError
from meta_capi.names import occurrence_key
from meta_capi.sql import queries
from meta_capi.steps import Steps

__all__ = ["Ledger", "Rescued", "ResendPolicy", "Run"]

_SQL: Final = queries("ledger")
_SLICE: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of a feed: what every row it writes belongs to."""

    run_no: int
    feed: str
    dataset_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendPolicy:
    """What to do with events in doubt."""

    resend: bool
    window_seconds: int
    """How long after the first unanswered request a repeat is still recognised."""
    most_resends: int = 6


class Rescued(NamedTuple):
    """What was found on the desks of lost workers."""

    workers: int
    batches: int
    pending: int
    in_doubt: int


class Ledger(Steps):
    """The ledger behind one engine."""

    def run(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """Run one named query in a transaction of its own; return its rows."""

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> list[dict[str, Any]]:
            cursor.execute(_SQL[name], values)
            return cursor.fetchall() if cursor.description else []

        return self.attempt(step)

    # --- the schema -----------------------------------------------------------------

    def migrate(self, *, now: bool = False) -> list[str]:
        """Bring the schema up to date, when nobody works or `now`; return the steps made."""
        return self.persist(
            lambda cursor: schema.migrate(cursor, now=now), marked=False
        )

    def missing_migrations(self) -> list[str]:
        """Return the names of the steps the schema lacks; none means it is up to date."""
        return self.persist(schema.missing, marked=False)

    def digest_key(self) -> bytes:
        """Return the key of payload fingerprints."""
        rows = self.run("installation")
        if not rows:
            raise SchemaError("The ledger has no schema; run `meta-capi migrate`.")
        return bytes(rows[0]["digest_key"])

    def clock(self) -> datetime:
        """Return the ledger's time, by which leases run."""
        now: datetime = self.run("clock")[0]["clock"]
        return now

    # --- runs and gates -------------------------------------------------------------

    def open_run(
        self, run_id: str, *, feed: str, dataset_id: str, mode: str,
        interval: tuple[datetime, datetime] | None, plan: Mapping[str, Any],
    ) -> Run:  # fmt: skip
        """Record a planned run; the same run_id finds the same run."""
        start, end = interval or (None, None)
        rows = self.run(
            "open_run", run_id=run_id, feed=feed, dataset_id=dataset_id, mode=mode,
            interval_start=start, interval_end=end, plan=Jsonb(dict(plan)),
        )  # fmt: skip
        return Run(run_no=rows[0]["run_no"], feed=feed, dataset_id=dataset_id)

    def find_run(self, run_id: str) -> Run:
        """Return a planned run."""
        rows = self.run("find_run", run_id=run_id)
        if not rows:
            raise LedgerError(
                f"The ledger knows no run {run_id!r}; run the task `plan` again."
            )
        return Run(**rows[0])

    def close_run(self, run: Run, *, state: str, outcome: Mapping[str, Any]) -> None:
        """Record the run's last word: `reported`, `stopped` or `gap`."""
        self.run(
            "close_run", run_no=run.run_no, state=state, outcome=Jsonb(dict(outcome))
        )

    def open_validation(self, run: Run, suite: str) -> int:
        """Give a gate its number."""
        rows = self.run(
            "open_validation", run_no=run.run_no, feed=run.feed, suite=suite
        )
        number: int = rows[0]["validation_id"]
        return number

    def quarantine(
        self, run: Run, validation_id: int, rows: Iterable[tuple[str, str]],
        cursor_at: datetime,
    ) -> None:  # fmt: skip
        """Put rows that failed the gate in quarantine (edge i): source keys and reasons.

        Rows that share a key are told apart by their occurrence, so that each of them
        stands in the ledger. `cursor_at` holds until the worker reads the row itself.
        """
        seen: Counter[str] = Counter()
        stream = iter(rows)
        values = {
            "dataset_id": run.dataset_id,
            "feed": run.feed,
            "run_no": run.run_no,
            "validation_id": validation_id,
        }
        while some := list(islice(stream, _SLICE)):
            reasons: dict[str, str] = {}
            for key, reason in some:
                if reason == "key.duplicate":
                    seen[key] += 1
                reasons[occurrence_key(key, max(seen[key], 1))] = reason

            def step(
                cursor: psycopg.Cursor[dict[str, Any]], found: dict[str, str] = reasons
            ) -> None:
                cursor.execute(_SQL["make_incoming"])
                with cursor.copy(_SQL["copy_quarantine"]) as copy:
                    for ordinal, (key, reason) in enumerate(found.items()):
                        copy.write_row(
                            (ordinal, key, cursor_at, reason, "quarantined", 0)
                        )
                cursor.execute(_SQL["set_aside"], values)
                cursor.execute(_SQL["quarantine_by_gate"], values)

            self.attempt(step)

    def close_validation(
        self, validation_id: int, *, result: Mapping[str, Any], passed: bool,
        results: Sequence[Mapping[str, Any]],
    ) -> None:  # fmt: skip
        """Record the gate's verdict and each expectation's outcome."""
        values = {
            "validation_id": validation_id,
            "rows": result["rows"],
            "quarantined": result["quarantined"],
            "seconds": result["seconds"],
            "passed": passed,
            "result": Jsonb(dict(result)),
        }

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> None:
            for position, each in enumerate(results):
                row = {"validation_id": validation_id, "position": position, **each}
                cursor.execute(_SQL["add_validation_result"], row)
            cursor.execute(_SQL["close_validation"], values)

        self.attempt(step)

    def latest_validations(self, limit: int) -> list[dict[str, Any]]:
        """Return the latest gates' results, newest first."""
        return [row["result"] for row in self.run("latest_validations", limit=limit)]

    # --- tending --------------------------------------------------------------------

    def rescue(self) -> Rescued:
        """Clear the desks of workers whose lease is over (edges d and f)."""

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> Rescued:
            cursor.execute(_SQL["find_lost_workers"])
            lost = [row["worker_id"] for row in cursor.fetchall()]
            if not lost:
                return Rescued(0, 0, 0, 0)
            cursor.execute(_SQL["clear_desks"], {"worker_ids": lost})
            row = cursor.fetchone() or {}
            return Rescued(len(lost), row["batches"], row["pending"], row["in_doubt"])

        return self.attempt(step)

    def expire(self, feed: str, dataset_id: str, oldest: datetime) -> int:
        """Expire what waits and is older than Meta takes (edge j); return how many."""
        return len(self.run("expire", feed=feed, dataset_id=dataset_id, oldest=oldest))

    def close_doubt(self, feed: str, dataset_id: str, policy: ResendPolicy) -> None:
        """Say of doubts that no resend can settle why they stay."""
        self.run(
            "close_doubt", feed=feed, dataset_id=dataset_id, resend=policy.resend,
            resend_window=policy.window_seconds,
        )  # fmt: skip

    def due_keys(
        self, feed: str, dataset_id: str, policy: ResendPolicy, *, limit: int
    ) -> list[str]:
        """Return the keys of conversions that may go out now: doubts, then the oldest."""
        rows = self.run(
            "due_keys", feed=feed, dataset_id=dataset_id, resend=policy.resend,
            resend_window=policy.window_seconds, most_resends=policy.most_resends,
            limit=limit,
        )  # fmt: skip
        return [row["source_key"] for row in rows]

    def count_replay(self, run: Run, choice: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what a replay would put back: state, reason, deliveries."""
        return self.run(
            "count_replay", feed=run.feed, dataset_id=run.dataset_id, **choice
        )

    def replay(
        self, run: Run, choice: Mapping[str, Any], *, who: str = "somebody",
        why: str = "not said",
    ) -> list[str]:  # fmt: skip
        """Put back what a person chose (edge k); return the source keys.

        `choice` holds states, reason, keys, start and end; None means any. Rows that no
        key can find are left alone. Who did it and why is written down.
        """
        rows = self.run(
            "replay",
            feed=run.feed,
            dataset_id=run.dataset_id,
            run_no=run.run_no,
            who=who,
            why=why,
            **choice,
        )
        return [row["source_key"] for row in rows]
