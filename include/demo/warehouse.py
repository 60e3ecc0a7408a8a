"""Fills a PostgreSQL database with the sample warehouse.

    python -m demo.warehouse load --dsn postgresql://… --seed 7 --scale 1

Uses `copy` and one transaction: afterwards everything is there, or nothing.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from demo.sample import COLUMNS, Row, generate

__all__ = ["load"]

SEED: Final = 7
_TABLES: Final = Path(__file__).with_suffix(".sql")


def load(
    dsn: str,
    *,
    seed: int = SEED,
    until: datetime,
    scale: float = 1.0,
    replace: bool = False,
) -> dict[str, int]:
    """Make the tables of schema `shop` and fill them; return the rows of each.

    A sample that is there is left as it is, whatever it was made from: making it anew
    would date the same orders differently. `replace` makes it anew.
    """
    with psycopg.connect(dsn) as connection:
        if not replace and _is_there(connection):
            return _counts(connection)
        connection.execute(_TABLES.read_text(encoding="utf-8"))
        counts = _copy(connection, generate(seed=seed, until=until, scale=scale))
        connection.execute(
            "insert into shop.sample_origin (seed, until, scale) values (%s, %s, %s)",
            [seed, until, scale],
        )
        connection.execute("analyze")
    return counts


def _is_there(connection: psycopg.Connection) -> bool:
    found = connection.execute("select to_regclass('shop.sample_origin') is not null")
    return found.fetchone() == (True,)


def _counts(connection: psycopg.Connection) -> dict[str, int]:
    counts = {}
    for table in COLUMNS:
        query = sql.SQL("select count(*) from {}").format(_name(table))
        ((counts[table],),) = connection.execute(query)
    return counts


def _copy(
    connection: psycopg.Connection, rows: Iterator[tuple[str, Row]]
) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for table, run in groupby(rows, key=itemgetter(0)):
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table]))
        command = sql.SQL("copy {} ({}) from stdin").format(_name(table), columns)
        with connection.cursor().copy(command) as copy:
            for _, row in run:
                copy.write_row(row)
                counts[table] += 1
    return dict(counts)


def _name(table: str) -> sql.Identifier:
    return sql.Identifier("shop", table)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.warehouse", description=__doc__
    )
    load_command = parser.add_subparsers(required=True).add_parser("load")
    load_command.add_argument("--dsn", required=True, help="postgresql://…")
    load_command.add_argument("--seed", type=int, default=SEED)
    load_command.add_argument(
        "--until",
        type=_moment,
        default=datetime.now(UTC).replace(microsecond=0),
        help="no row is dated later, as 2026-11-22T06:00+00:00 (now)",
    )
    load_command.add_argument("--scale", type=float, default=1.0)
    load_command.add_argument(
        "--replace", action="store_true", help="make a sample that is there anew"
    )
    asked = parser.parse_args()
    began = time.perf_counter()
    counts = load(
        asked.dsn,
        seed=asked.seed,
        until=asked.until,
        scale=asked.scale,
        replace=asked.replace,
    )
    for table, count in counts.items():
        print(f"shop.{table:<20}{count:>10,}")
    print(f"{sum(counts.values()):,} rows in {time.perf_counter() - began:.1f} s")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError("needs a zone, as +00:00")
    return moment


if __name__ == "__main__":
    main()
