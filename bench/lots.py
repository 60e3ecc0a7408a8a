"""Lots: tables of so many purchases, made in the database from the demo's sample."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from demo.warehouse import load

__all__ = ["Lot", "lot", "short", "statement"]

_SQL: Final = Path(__file__).parent / "sql"
_SPAN: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Lot:
    """A table with purchases, and the interval in which all of them became known."""

    table: str
    rows: int
    start: datetime
    end: datetime

    def to_json(self) -> dict[str, Any]:
        """Return what a job says of it."""
        start, end = self.start.isoformat(), self.end.isoformat()
        return {"table": self.table, "rows": self.rows, "start": start, "end": end}


def lot(
    dsn: str, name: str, rows: int, *, seed: int, scale: float = 1.0,
    sound: bool = False, prefix: str = "",
) -> Lot:  # fmt: skip
    """Make a lot, unless it is there; the sample is made first.

    Args:
        dsn: the shop's database.
        name: the table's name in the schema `bench`.
        rows: how many.
        seed: of the sample.
        scale: of the sample, if it is not there yet; 1 is 25,000 purchases.
        sound: leave out the rows that the sample spoilt on purpose.
        prefix: of every order's id.
    """
    until = datetime.now(UTC).replace(microsecond=0)
    load(dsn, seed=seed, until=until, scale=scale)
    table = sql.Identifier("bench", name)
    with psycopg.connect(dsn) as database:
        database.execute("create schema if not exists bench")
        (there,) = _one(database, sql.SQL("select to_regclass(%s)"), f"bench.{name}")
        if there is None:
            database.execute(
                statement("lot", lot=table, rows=rows, sound=sound, prefix=prefix)
            )
        (until,) = _one(database, sql.SQL("select until from shop.sample_origin"))
        counted = sql.SQL("select count(*) from {}").format(table)
        (found,) = _one(database, counted)
    with psycopg.connect(dsn, autocommit=True) as database:
        # Hint bits are somebody's work too: done here, not in the first party's time.
        database.execute(sql.SQL("vacuum analyze {}").format(table))
    return Lot(f"bench.{name}", found, until - _SPAN, until + timedelta(seconds=1))


def short(rows: int) -> str:
    """Return a number of rows as one says it.

    >>> short(10_000), short(1_000_000), short(1_234)
    ('10k', '1m', '1234')
    """
    for unit, size in (("m", 1_000_000), ("k", 1_000)):
        if rows >= size and rows % size == 0:
            return f"{rows // size}{unit}"
    return str(rows)


def statement(name: str, **parts: Any) -> sql.Composed:
    """Return a statement of `bench/sql`, with its names and values."""
    text = (_SQL / f"{name}.sql").read_text(encoding="utf-8")
    return sql.SQL(text).format(**parts)


def _one(
    database: psycopg.Connection, query: sql.SQL | sql.Composed, *values: Any
) -> Any:
    row = database.execute(query, values or None).fetchone()
    assert row is not None
    return row
