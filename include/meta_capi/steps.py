"""A step at a database that goes away: it is made once, or not at all.

A COMMIT whose answer is lost stands, or does not. Each step that writes leaves a row of
its own in the same transaction, and that row is asked for. PostgreSQL's own answer
(`pg_xact_status`) is not enough: after a crash or a failover that lost the transaction,
its number is given again, to somebody else's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from meta_capi import schema
from meta_capi.errors import LedgerError, signal_behind
from meta_capi.sql import queries

__all__ = ["Steps"]

T = TypeVar("T")
Cursor = psycopg.Cursor[dict[str, Any]]
_SQL: Final = queries("steps")
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


class Steps:
    """Transactions at one engine, whose pool the threads of a worker share.

    Statements are psycopg's, because the ledger is PostgreSQL and nothing else.
    """

    def __init__(
        self, engine: Engine, *, patience: float = 30.0,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._patience = patience
        self._wait = wait
        self._schema_fits = False
        event.listen(engine, "connect", _set_bounds)

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
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
        self, step: Callable[[Cursor], T],
        *, patience: float | None = None,
    ) -> T:  # fmt: skip
        """Make a step in a transaction, again and again while the database is away.

        It is made once: where a connection broke at its COMMIT, the database is asked
        whether that stands. Gives up after the patience, in seconds (the ledger's own
        by default), with a LedgerError that quotes no driver message. No step is made on
        a schema that is not this program's.
        """

        def on_our_schema(cursor: Cursor) -> T:
            if not self._schema_fits:
                schema.expect(cursor)
                self._schema_fits = True
            return step(cursor)

        return self.persist(on_our_schema, patience=patience)

    def persist(
        self, step: Callable[[Cursor], T], *, patience: float | None = None,
        marked: bool = True,
    ) -> T:  # fmt: skip
        """Make a step as `attempt` does, whatever the schema.

        Args:
            marked: leave the row that is asked for; without it, a step whose COMMIT was
                not heard is made again.
        """
        give_up = time.monotonic() + (self._patience if patience is None else patience)
        pause, sentence = 0.05, ""
        unheard: tuple[UUID, T] | None = None  # of its COMMIT
        while True:
            try:
                if unheard is None:
                    with self.transaction() as cursor:
                        result = step(cursor)
                        mark = _mark(cursor) if marked else None
                        unheard = (mark, result) if mark else None
                    return result
                mark, result = unheard
                if self._stands(mark):
                    return result
                unheard = None
            except _PASSING as error:
                sentence = _sentence(error)
            except psycopg.Error as error:
                raise LedgerError(_sentence(error)) from None
            if time.monotonic() + pause > give_up:
                raise LedgerError(sentence)
            self._wait(pause)
            pause = min(pause * 2, 2.0)

    def _stands(self, mark: UUID) -> bool:
        """Return whether a step's COMMIT was made; if not, it cannot be any more."""
        with self.transaction() as cursor:
            cursor.execute(_SQL["stands"], {"step": mark})
            return bool((cursor.fetchone() or {})["stands"])


def _mark(cursor: Cursor) -> UUID | None:
    """Leave the step's row; None if the step wrote nothing."""
    cursor.execute(_SQL["mark"])
    mark: UUID | None = (cursor.fetchone() or {})["mark"]
    return mark


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
