"""A ledger copied and put back, as pg_dump and pg_restore do it."""

from __future__ import annotations

import psycopg

__all__ = ["copied", "put_copy_back"]


def copied(dsn: str) -> dict[str, list[str]]:
    """Copy the ledger's tables, as a dump does."""
    with psycopg.connect(dsn) as connection:
        names = connection.execute(
            "select tablename from pg_tables where schemaname = 'capi'"
        ).fetchall()
        return {
            name: [
                row
                for (row,) in connection.execute(
                    psycopg.sql.SQL("select row_to_json(t)::text from capi.{} as t").format(
                        psycopg.sql.Identifier(name)
                    )
                )
            ]
            for (name,) in names
        }  # fmt: skip


def put_copy_back(dsn: str, copy: dict[str, list[str]]) -> None:
    """Put the tables back as they were; the numbers given out since are given again."""
    with psycopg.connect(dsn) as connection:
        # As pg_restore does: no trigger runs, no reference is checked.
        connection.execute("set session_replication_role = replica")
        for name, rows in copy.items():
            table = psycopg.sql.Identifier(name)
            connection.execute(psycopg.sql.SQL("delete from capi.{}").format(table))
            statement = psycopg.sql.SQL(
                "insert into capi.{0} overriding system value"
                " select (json_populate_record(null::capi.{0}, %s::json)).*"
            ).format(table)
            for row in rows:
                connection.execute(statement, [row])
        connection.execute(
            "select setval('capi.batch_numbers', (select max(batch_id) from capi.batches)),"
            " setval(pg_get_serial_sequence('capi.workers', 'worker_id'),"
            " (select max(worker_id) from capi.workers))"
        )
