"""The ledger's schema: made step by step, and never used by a program of another age.

What an old worker writes on a new schema, or a new one on an old, nobody has tried: so
either is refused before its first step.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import psycopg

from meta_capi.errors import SchemaError
from meta_capi.sql import migrations, queries

__all__ = ["expect", "migrate", "missing"]

Cursor = psycopg.Cursor[dict[str, Any]]

_LOCK: Final = 0x6361_7069  # "capi": one migration at a time


def migrate(cursor: Cursor, *, now: bool = False) -> list[str]:
    """Bring the schema up to date; return the names of the steps made.

    Raises:
        SchemaError: workers are at their desks, and it shall not be done `now`.
    """
    cursor.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
    done = _versions(cursor)
    made = [each for each in migrations() if each.version not in done]
    if made and done and not now:
        _refuse_while_they_work(cursor)
    for migration in made:
        cursor.execute(migration.text)
        cursor.execute(
            "insert into capi.migrations (version, name) values (%s, %s)",
            (migration.version, migration.name),
        )
    cursor.execute(
        "insert into capi.installation (digest_key) values (%s) on conflict do nothing",
        (secrets.token_bytes(32),),
    )
    return [migration.name for migration in made]


def missing(cursor: Cursor) -> list[str]:
    """Return the names of the steps the schema lacks; none means it is up to date."""
    done = _versions(cursor)
    return [each.name for each in migrations() if each.version not in done]


def expect(cursor: Cursor) -> None:
    """Refuse a schema that is behind this program, or ahead of it.

    Raises:
        SchemaError: says which of the two must be brought up to date.
    """
    done = _versions(cursor)
    if not done:
        raise SchemaError("The ledger has no schema; run `meta-capi migrate`.")
    if lacking := [each.name for each in migrations() if each.version not in done]:
        raise SchemaError(
            f"The ledger's schema is behind by {len(lacking)} step(s): "
            f"{', '.join(lacking)}. Run `meta-capi migrate`."
        )
    if ahead := done - {each.version for each in migrations()}:
        raise SchemaError(
            f"The ledger's schema has step {max(ahead)}, which this program does not "
            "know: a newer one made it. Bring this one up to date."
        )


def _refuse_while_they_work(cursor: Cursor) -> None:
    """Let workers end with the schema that they began with; no other sits down meanwhile."""
    cursor.execute("lock table capi.workers in share row exclusive mode")
    cursor.execute(queries("ledger")["at_their_desks"])
    found = cursor.fetchone() or {}
    if found["workers"]:
        raise SchemaError(
            f"{found['workers']} worker(s) are delivering just now; the schema was left as "
            "it is. Pause the DAGs, wait until their tasks have ended, and run this again "
            f"(the lease of one that died ends at {found['until']:%H:%M:%S %Z} at the "
            "latest); or say --now."
        )


def _versions(cursor: Cursor) -> set[int]:
    cursor.execute("select to_regclass('capi.migrations') is not null as made")
    row = cursor.fetchone()
    if not row or not row["made"]:
        return set()
    cursor.execute("select version from capi.migrations")
    return {each["version"] for each in cursor.fetchall()}
