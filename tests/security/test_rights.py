"""Each part works with the least of rights, and a feed's own SQL can only read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from tests.conftest import Database
from tests.house_rules import ROOT

from demo.postgres import Postgres
from meta_capi.errors import SourceError
from meta_capi.feed import parse
from meta_capi.ledger import Ledger
from meta_capi.source import Interval, Shard, Source

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = Interval(START, START + timedelta(days=1))
ROLES = ("capi_reader", "capi_sender", "capi_viewer")
FEED = """
feed: sales
description: Sales of a shop, for these tests.
schedule: "0 3 * * *"
start_date: 2026-01-01
source: {sql: sales.sql, key: [id], cursor: {column: known_at}}
event: {name: Lead, action_source: phone_call, time: {column: sold_at, timezone: UTC}}
user_data: {em: email}
consent: {column: consent, granted: ["yes"]}
"""


def grants() -> str:
    """Return the statement that docs/security.md tells."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    return str(block)


@pytest.fixture
def made(postgres: Postgres, database: Database) -> Iterator[Database]:
    """A warehouse and a ledger with the roles that the page tells."""
    engine = sa.create_engine(database.url, hide_parameters=True)
    Ledger(engine).migrate()
    engine.dispose()
    with psycopg.connect(database.dsn) as owner:
        owner.execute(
            "create schema shop; create table shop.sales (id text, known_at timestamptz,"
            " sold_at timestamptz, email text, consent text);"
            " create sequence shop.numbers; create table shop.hidden (email text);"
            " insert into shop.sales values ('a', '2026-03-02', '2026-03-02', 'x', 'yes')"
        )
        owner.execute(grants())
        for role in ROLES:
            owner.execute(f"alter role {role} login password 'of-the-tests'")
    yield database
    with psycopg.connect(database.dsn) as owner:
        owner.execute(f"drop owned by {', '.join(ROLES)}")
        owner.execute(f"drop role {', '.join(ROLES)}")


def as_role(made: Database, role: str) -> str:
    """Return the database's address for a role."""
    parts = psycopg.conninfo.conninfo_to_dict(made.dsn)
    return psycopg.conninfo.make_conninfo(
        **{**parts, "user": role, "password": "of-the-tests"}
    )


def allowed(dsn: str, *statements: str) -> list[str]:
    """Return the statements that the role may do after all."""
    done = []
    for statement in statements:
        try:
            with psycopg.connect(dsn) as connection:
                connection.execute("set default_transaction_read_only = off")
                connection.commit()
                connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            continue
        done.append(statement)
    return done


@pytest.mark.matrix("X42")
class TestTheRoles:
    def test_the_reader_reads_the_feeds_tables_and_can_do_nothing_else(
        self, made: Database
    ) -> None:
        dsn = as_role(made, "capi_reader")
        with psycopg.connect(dsn) as connection:
            assert connection.execute("select id from shop.sales").fetchall() == [
                ("a",)
            ]
            for setting in ("default_transaction_read_only", "statement_timeout"):
                row = connection.execute(f"show {setting}").fetchone()
                assert row is not None
                assert row[0] not in ("off", "0")
        assert allowed(
            dsn, "insert into shop.sales values ('b')", "update shop.sales set id = 'b'",
            "delete from shop.sales", "truncate shop.sales", "drop table shop.sales",
            "create table shop.mine (a int)", "select nextval('shop.numbers')",
            "select * from capi.deliveries", "select pg_read_file('/etc/passwd')",
            "copy shop.sales to program 'true'", "copy shop.sales from '/etc/passwd'",
            "select lo_import('/etc/passwd')", "create extension dblink",
        ) == []  # fmt: skip

    def test_the_sender_sees_no_customer_and_unwrites_nothing_that_people_did(
        self, made: Database
    ) -> None:
        dsn = as_role(made, "capi_sender")
        with psycopg.connect(dsn) as connection:
            connection.execute("select count(*) from capi.deliveries")
        assert allowed(
            dsn, "select * from shop.sales", "update capi.acts set why = 'x'",
            "delete from capi.acts", "delete from capi.erased",
            "delete from capi.installation", "truncate capi.deliveries",
            "drop table capi.deliveries", "alter table capi.acts disable trigger all",
            "create table capi.mine (a int)", "drop trigger written_once on capi.acts",
        ) == []  # fmt: skip

    def test_the_viewer_sees_views_and_neither_the_key_nor_a_table(
        self, made: Database
    ) -> None:
        dsn = as_role(made, "capi_viewer")
        with psycopg.connect(made.dsn) as owner:
            views = owner.execute(
                "select viewname from pg_views where schemaname = 'capi'"
            ).fetchall()
            tables = owner.execute(
                "select tablename from pg_tables where schemaname = 'capi'"
            ).fetchall()
        with psycopg.connect(dsn) as connection:
            for (view,) in views:
                connection.execute(f"select * from capi.{view}")
        assert len(views) >= 5
        assert allowed(
            dsn, "select * from shop.sales",
            *(f"select * from capi.{table}" for (table,) in tables),
            *(f"insert into capi.{table} default values" for (table,) in tables),
        ) == []  # fmt: skip


HOSTILE = {
    "two statements": "select * from shop.sales; drop table shop.sales",
    "two, the second in a comment's shadow": "select 1 /* ; */; drop table shop.sales --",
    "out of the subquery": "select * from shop.sales) as x; drop table shop.sales; --",
    "no select": "copy (select 1) to program 'touch {folder}/done'",
    "a block": "do $$ begin drop table shop.sales; end $$",
    "a writing CTE": "with gone as (delete from shop.sales returning *) select * from gone",
    "a nested one": (
        "select * from (with gone as (delete from shop.sales returning *)"
        " select * from gone) as gone"
    ),
    "a file of the server": "select s.*, pg_read_file('/etc/passwd') from shop.sales s",
    "a file to the server": "select s.*, lo_export(1, '{folder}/done') from shop.sales s",
    "a sequence": "select s.*, nextval('shop.numbers') from shop.sales s",
    "leave to write": (
        "select s.*, set_config('transaction_read_only', 'off', false) from shop.sales s"
    ),
    "another role": "select s.*, set_config('role', 'postgres', false) from shop.sales s",
    "the ledger": "select s.* from shop.sales s, capi.installation",
    "a table that was not granted": "select s.* from shop.sales s, shop.hidden",
    "into": "select * into shop.mine from shop.sales",
    "a lock": "select * from shop.sales for update",
}


@pytest.mark.matrix("X22")
class TestAFeedsOwnSql:
    """Its author is trusted to read; a slip, or a stolen file, must not do more."""

    @pytest.mark.parametrize("trick", HOSTILE)
    def test_it_is_one_reading_statement_or_none(
        self, trick: str, made: Database, tmp_path: Path
    ) -> None:
        with psycopg.connect(made.dsn) as owner:
            owner.execute("revoke all on shop.hidden from capi_reader")
            before = owner.execute("select count(*) from shop.sales").fetchone()
        query = HOSTILE[trick].format(folder=tmp_path)
        with pytest.raises(SourceError) as caught:
            rows_of(as_role(made, "capi_reader"), query, tmp_path)
        assert query[:20] not in str(caught.value)
        with psycopg.connect(made.dsn) as owner:
            after = owner.execute("select count(*) from shop.sales").fetchone()
            kept = owner.execute("select to_regclass('shop.mine')").fetchone()
        assert (after, kept) == (before, (None,))
        assert not (tmp_path / "done").exists()

    @pytest.mark.parametrize("trick", ["a writing CTE", "a sequence", "leave to write"])
    def test_even_of_an_owner_the_transaction_only_reads(
        self, trick: str, made: Database, tmp_path: Path
    ) -> None:
        with pytest.raises(SourceError):
            rows_of(made.dsn, HOSTILE[trick], tmp_path)

    def test_a_reading_one_is_read(self, made: Database, tmp_path: Path) -> None:
        query = "with s as (select * from shop.sales) select * from s -- ; all of it"
        assert rows_of(as_role(made, "capi_reader"), query, tmp_path) == 1


def rows_of(dsn: str, query: str, folder: Path) -> int:
    """Read a feed's SQL file as a run does."""
    (folder / "sales.sql").write_text(query)
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    url = sa.URL.create(
        "postgresql+psycopg", parts["user"], parts["password"], parts["host"],
        int(parts["port"]), parts["dbname"],
    )  # fmt: skip
    engine = sa.create_engine(url, hide_parameters=True)
    try:
        source = Source(engine, parse(FEED), folder)
        return sum(some.rows for some in source.read(DAY, Shard(), 100))
    finally:
        engine.dispose()
