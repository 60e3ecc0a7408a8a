"""What holds for the whole schema, whichever database it is made in."""

from __future__ import annotations

import psycopg
from tests.ledger.conftest import Bench

TEXTS = """
    select
        c.oid::regclass::text || '.' || a.attname as name,
        l.collname = 'C' as bytewise
    from pg_attribute as a
    join pg_class as c on c.oid = a.attrelid
    join pg_collation as l on l.oid = a.attcollation
    where a.attcollation <> 0 and a.attnum > 0 and not a.attisdropped
        and (
            c.relnamespace = 'capi'::regnamespace and c.relkind = 'r'
            or c.oid = to_regclass('pg_temp.incoming')
        )
"""


def test_every_text_of_the_ledger_is_compared_byte_by_byte(bench: Bench) -> None:
    """So that no upgrade of a system's library can change the order under an index."""
    with psycopg.connect(bench.dsn) as connection:
        connection.execute("select capi.make_incoming()")
        texts = dict(connection.execute(TEXTS).fetchall())

    assert {"capi.deliveries.source_key", "incoming.source_key"} <= texts.keys()
    assert [name for name, bytewise in texts.items() if not bytewise] == []
