"""Is the sample warehouse like life, dirty in every way, and the same every time?"""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import phonenumbers
import psycopg
import pytest
from psycopg import sql

from demo.faults import DUPLICATE, FAULTS
from demo.people import person
from demo.sample import COLUMNS, KEYS, generate
from demo.warehouse import load
from meta_capi import feed as feeds
from meta_capi.catalogue import REASONS
from meta_capi.event import Builder
from meta_capi.feed import Feed

if TYPE_CHECKING:
    from demo.postgres import Postgres

ROOT = Path(__file__).parents[2]
FEEDS = feeds.load_all(ROOT / "include/feeds")
UNTIL = datetime(2026, 11, 22, 6, tzinfo=UTC)
SEED = 7


@pytest.fixture(scope="module")
def warehouse(postgres: Postgres) -> Iterator[psycopg.Connection]:
    postgres.create_database("sample")
    load(postgres.dsn("sample"), seed=SEED, until=UNTIL)
    with psycopg.connect(postgres.dsn("sample"), autocommit=True) as connection:
        yield connection
    postgres.drop_database("sample")


@pytest.fixture(scope="module")
def sample() -> dict[str, list[dict[str, str | None]]]:
    rows = defaultdict(list)
    for table, row in generate(seed=SEED, until=UNTIL):
        rows[table].append(dict(zip(COLUMNS[table], row, strict=True)))
    return rows


def table_of(feed: Feed) -> str:
    assert feed.source.table is not None
    return feed.source.table.removeprefix("shop.")


def test_the_same_seed_and_moment_make_the_same_rows() -> None:
    first, second = (list(generate(seed=3, until=UNTIL, scale=0.02)) for _ in range(2))
    assert first == second
    assert first != list(generate(seed=4, until=UNTIL, scale=0.02))


def test_the_rows_do_not_depend_on_the_python_process() -> None:
    """Hash seeds and locales differ between machines; the sample must not."""
    script = (
        "import hashlib; from datetime import datetime, UTC\n"
        "from demo.sample import generate\n"
        "until = datetime(2026, 11, 22, 6, tzinfo=UTC)\n"
        "rows = generate(seed=3, until=until, scale=0.02)\n"
        "print(hashlib.sha256(repr(list(rows)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={
                "PYTHONPATH": str(ROOT / "include"),
                "PYTHONHASHSEED": seed,
                "LC_ALL": "C",
            },
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_it_is_as_large_as_promised(warehouse: psycopg.Connection) -> None:
    counts = {}
    for table in ("offline_purchases", "phone_orders"):
        query = sql.SQL("select count(*) from {}").format(sql.Identifier("shop", table))
        ((counts[table],),) = warehouse.execute(query)
    assert counts["offline_purchases"] >= 24_000
    assert counts["phone_orders"] >= 6_000
    assert sum(counts.values()) >= 30_000
    leads = warehouse.execute("select count(distinct lead_key) from shop.lead_stages")
    assert leads.fetchone() == (5_000,)


def test_it_has_many_countries_and_currencies(warehouse: psycopg.Connection) -> None:
    ((countries, currencies),) = warehouse.execute(
        "select array_agg(distinct country), array_agg(distinct currency)"
        " from shop.offline_purchases"
    )
    assert {"US", "GB", "DE", "CH", "FR", "CA", "IT", "JP", "KR", "TR", "GR"} <= {
        *countries
    }
    assert {"USD", "EUR", "GBP", "CHF", "CAD", "JPY", "KRW", "TRY", "KWD"} <= {
        *currencies
    }


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
def test_each_feed_finds_its_columns(feed: Feed, warehouse: psycopg.Connection) -> None:
    found = warehouse.execute(
        "select column_name from information_schema.columns"
        " where table_schema = 'shop' and table_name = %s",
        [table_of(feed)],
    )
    assert set(feed.columns) <= {name for (name,) in found}


def test_rows_become_known_in_sixty_days_and_before_the_last_moment(
    warehouse: psycopg.Connection,
) -> None:
    for feed in FEEDS.values():
        query = sql.SQL("select min({0}), max({0}) from {1}").format(
            sql.Identifier(feed.source.cursor.column),
            sql.Identifier("shop", table_of(feed)),
        )
        ((first, last),) = warehouse.execute(query)
        assert UNTIL - timedelta(days=60) <= first < UNTIL - timedelta(days=55)
        assert UNTIL - timedelta(hours=2) < last < UNTIL


def test_recent_days_have_more_rows(warehouse: psycopg.Connection) -> None:
    ((recent, old),) = warehouse.execute(
        "select count(*) filter (where loaded_at >= %(until)s - interval '10 days'),"
        " count(*) filter (where loaded_at < %(until)s - interval '50 days')"
        " from shop.offline_purchases",
        {"until": UNTIL},
    )
    assert recent > 2 * old > 0


@pytest.mark.parametrize("table", KEYS)
def test_three_to_five_rows_of_a_hundred_are_spoilt(
    table: str, sample: dict[str, list[dict[str, str | None]]]
) -> None:
    spoilt = [row for row in sample["sample_faults"] if row["table_name"] == table]
    assert 0.03 <= len(spoilt) / len(sample[table]) <= 0.05


@pytest.mark.parametrize("table", KEYS)
def test_every_kind_of_fault_can_be_looked_up(
    table: str, sample: dict[str, list[dict[str, str | None]]]
) -> None:
    keys = {"|".join(str(row[key]) for key in KEYS[table]) for row in sample[table]}
    found = Counter(
        row["fault"] for row in sample["sample_faults"] if row["table_name"] == table
    )
    assert set(found) == {fault.name for fault in FAULTS[table]}
    assert min(found.values()) >= 5
    assert {
        row["row_key"] for row in sample["sample_faults"] if row["table_name"] == table
    } <= keys


def test_the_faults_end_with_reasons_of_the_catalogue() -> None:
    reasons = {fault.reason for faults in FAULTS.values() for fault in faults}
    assert reasons - {None} <= set(REASONS)


# The builder sees one row: a duplicate needs two, the order of stages the whole lead.
NEEDS_MORE_THAN_ITS_ROW = {DUPLICATE, "stages_out_of_order"}
# What holds a row back before its fault is looked at.
EARLIER = {"window.over", "holding", "stage.ignored"}


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
def test_every_fault_ends_as_it_says(feed: Feed, warehouse: psycopg.Connection) -> None:
    """Each spoilt row is held for the reason said, or goes out without the key."""
    table = table_of(feed)
    builder = Builder(
        feed, dataset_id="1234567890", digest_key=bytes(32), today=UNTIL.date()
    )
    outcomes = defaultdict(set)
    for fault, row in spoilt_rows(warehouse, feed):
        columns = dict(zip(feed.columns, ([value] for value in row), strict=True))
        built = builder.build(columns, int(UNTIL.timestamp()))
        flaws = [flaw for flaw in built.flaws if not flaw.startswith("ldu.")]
        held = built.reasons[0]
        outcomes[fault].add(held or (flaws[0] if flaws else None))
    for fault in FAULTS[table]:
        if fault.name not in NEEDS_MORE_THAN_ITS_ROW:
            found = outcomes[fault.name]
            assert found - (EARLIER - {fault.reason}) == {fault.reason}, fault.name


def spoilt_rows(
    warehouse: psycopg.Connection, feed: Feed
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    table = table_of(feed)
    query = sql.SQL(
        "select fault, {columns} from {table} join shop.sample_faults"
        " on table_name = {name} and row_key = concat_ws('|', {key}) order by row_key"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, feed.columns)),
        table=sql.Identifier("shop", table),
        name=sql.Literal(table),
        key=sql.SQL(", ").join(map(sql.Identifier, feed.source.key)),
    )
    for fault, *row in warehouse.execute(query):
        yield fault, tuple(row)


def test_customers_are_fictional_and_their_numbers_possible() -> None:
    for number in range(3_000):
        who = person(number, SEED)
        domain = who.email.lower().rpartition("@")[2]
        assert domain.rpartition(".")[2] == "example" or domain in (
            "example.com",
            "example.org",
            "example.net",
        )
        for text, region in ((who.phone, "CH"), (who.national_phone, who.country)):
            parsed = phonenumbers.parse(text.replace("(0)", ""), region)
            assert phonenumbers.is_possible_number(parsed)


def test_loading_again_changes_nothing_until_it_is_asked_to(
    postgres: Postgres,
) -> None:
    postgres.create_database("again")
    dsn = postgres.dsn("again")
    first = load(dsn, seed=1, until=UNTIL, scale=0.01)
    assert load(dsn, seed=2, until=UNTIL + timedelta(days=1), scale=0.02) == first
    assert load(dsn, seed=2, until=UNTIL, scale=0.02, replace=True) != first
    with psycopg.connect(dsn) as connection:
        origin = connection.execute("select seed, until, scale from shop.sample_origin")
        assert origin.fetchall() == [(2, UNTIL, 0.02)]
    postgres.drop_database("again")


def test_the_command_line_loads_and_counts(postgres: Postgres) -> None:
    postgres.create_database("by_hand")
    command = [
        sys.executable, "-m", "demo.warehouse", "load", "--scale", "0.01",
        "--until", "2026-11-22T06:00+00:00", "--dsn", postgres.dsn("by_hand"),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT / "include"), "PYTHONUTF8": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "shop.offline_purchases" in done.stdout
    postgres.drop_database("by_hand")


def test_memory_does_not_grow_with_the_rows() -> None:
    peaks = []
    for scale in (0.4, 1.0):
        tracemalloc.start()
        for _ in generate(seed=SEED, until=UNTIL, scale=scale):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 100_000
