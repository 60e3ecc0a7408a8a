"""What we promised, what we tried, what they said.

The only room that speaks SQL to the ledger, together with `desk` (one worker's part of
it). Connections come from a SQLAlchemy engine, whose pool is shared by the threads of a
worker; statements are psycopg's, because the ledger is PostgreSQL and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from meta_capi import schema
from meta_capi.errors import LedgerError, SchemaError, signal_behind
from meta_capi.names import occurrence_key
from meta_capi.sql import queries

__all__ = ["Ledger", "Rescued", "ResendPolicy", "Run"]

T = TypeVar("T")
_SQL: Final = queries("ledger")
# Restarts, dropped connections, a full pool, locks, deadlocks, a primary that became a
# standby, a step in which this process stood still, another worker's row: the transaction
# did not happen, or happened wholly.
_PASSING: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.UniqueViolation,
    SQLAlchemyError,
)
_KNOWN_STATES: Final = {
    "25006": "it is read-only, a standby or set so; point connections.ledger at the primary",
    "40001": "other sessions wrote the same rows all the time",
    "40P01": "other sessions locked the same rows all the time",
    "53100": "its disk is full",
    "55P03": "another session holds a lock",
    "57014": "the statement was cancelled, or took longer than the ledger allows",
}
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


class Ledger:
    """The ledger behind one engine."""

    def __init__(
        self, engine: Engine, *, patience: float = 30.0,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._patience = patience
        self._wait = wait
        self._schema_fits = False
        event.listen(engine, "connect", _set_bounds)

    # --- plumbing -------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        """Yield a cursor; commit at the end, roll back on any exception."""
        before = sys.exception()
        proxy = self._engine.raw_connection()
        connection = proxy.driver_connection
        try:
            if not isinstance(connection, psycopg.Connection):
                raise LedgerError(
                    "The ledger's connection is not PostgreSQL by psycopg 3; point "
                    "connections.ledger at a PostgreSQL database."
                )
            with connection.cursor(row_factory=dict_row) as cursor:
                yield cursor
            connection.commit()
        except BaseException as error:
            # The pool rolls back; it cannot on a dead line, nor after a signal, which the
            # driver's failure to tidy up must not hide. A standby's line is of no use.
            dead = isinstance(connection, psycopg.Connection) and connection.closed
            astray = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
            signal = signal_behind(error, before)
            if dead or astray or signal:
                proxy.invalidate()
            raise signal or error from None
        finally:
            proxy.close()

    def attempt(
        self, step: Callable[[psycopg.Cursor[dict[str, Any]]], T],
        *, patience: float | None = None,
    ) -> T:  # fmt: skip
        """Make a step in a transaction, again and again while the database is away.

        It is made once: where a connection broke at its COMMIT, PostgreSQL is asked
        whether that stands. Gives up after the patience, in seconds (the ledger's own
        by default), with a LedgerError that quotes no driver message. No step is made on
        a schema that is not this program's.
        """

        def on_our_schema(cursor: psycopg.Cursor[dict[str, Any]]) -> T:
            if not self._schema_fits:
                schema.expect(cursor)
                self._schema_fits = True
            return step(cursor)

        return self._persist(on_our_schema, patience=patience)

    def _persist(
        self, step: Callable[[psycopg.Cursor[dict[str, Any]]], T],
        *, patience: float | None = None,
    ) -> T:  # fmt: skip
        """Make a step as `attempt` does, whatever the schema."""
        give_up = time.monotonic() + (self._patience if patience is None else patience)
        pause, sentence = 0.05, ""
        unheard: tuple[str, T] | None = None  # of its COMMIT
        while True:
            try:
                if unheard is None:
                    with self.transaction() as cursor:
                        result = step(cursor)
                        cursor.execute(_SQL["own_transaction"])
                        number = (cursor.fetchone() or {})["number"]
                        unheard = (number, result) if number else None
                    return result
                number, result = unheard
                outcome = self._outcome_of(number)
                if outcome == "committed":
                    return result
                if outcome == "aborted":
                    unheard = None
            except _PASSING as error:
                sentence = _sentence(error)
            except psycopg.Error as error:
                raise LedgerError(_sentence(error)) from None
            if time.monotonic() + pause > give_up:
                raise LedgerError(sentence)
            self._wait(pause)
            pause = min(pause * 2, 2.0)

    def _outcome_of(self, transaction: str) -> str:
        """Return what became of a transaction: committed, aborted, or in progress."""
        with self.transaction() as cursor:
            cursor.execute(_SQL["outcome_of"], {"number": transaction})
            return str((cursor.fetchone() or {})["outcome"])

    def run(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """Run one named query in a transaction of its own; return its rows."""

        def step(cursor: psycopg.Cursor[dict[str, Any]]) -> list[dict[str, Any]]:
            cursor.execute(_SQL[name], values)
            return cursor.fetchall() if cursor.description else []

        return self.attempt(step)

    # --- the schema -----------------------------------------------------------------

    def migrate(self, *, now: bool = False) -> list[str]:
        """Bring the schema up to date, when nobody works or `now`; return the steps made."""
        return self._persist(lambda cursor: schema.migrate(cursor, now=now))

    def missing_migrations(self) -> list[str]:
        """Return the names of the steps the schema lacks; none means it is up to date."""
        return self._persist(schema.missing)

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


def _set_bounds(connection: object, _: object) -> None:
    """Let no other worker wait for ever for one that sleeps in the middle of a step."""
    if isinstance(connection, psycopg.Connection):
        connection.execute(_SQL["set_bounds"])
        connection.commit()


def _sentence(error: psycopg.Error | SQLAlchemyError) -> str:
    """Say what happened by class and SQLSTATE; the driver's text may quote a row."""
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    state = f", SQLSTATE {sqlstate}" if sqlstate else ""
    name = type(error).__name__
    if sqlstate in ("3F000", "42P01"):
        return "The ledger has no schema, or an old one; run `meta-capi migrate`."
    known = f": {_KNOWN_STATES[sqlstate]}" if sqlstate in _KNOWN_STATES else ""
    return (
        f"The ledger's database did not take the step ({name}{state}){known}; nothing was "
        "half done."
    )
