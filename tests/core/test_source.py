"""What the source promises: the interval's rows, each once, in bounded memory."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meta_capi.errors import ConfigurationError, SourceError
from meta_capi.feed import Feed, parse
from meta_capi.source import Interval, Shard, Source

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = Interval(START, START + timedelta(days=1))
NOW = START + timedelta(days=1)

FEED = """
feed: sales
description: Sales of a shop, for these tests.
schedule: "0 3 * * *"
start_date: 2026-01-01
source: {table: shop.sales, key: [id], cursor: {column: known_at}}
event: {name: Lead, action_source: phone_call, time: {column: sold_at, timezone: UTC}}
user_data: {em: email}
consent: {column: consent, granted: ["yes", true]}
"""


def feed(**changes: str) -> Feed:
    """The feed above, with some of its lines written anew."""
    lines = [
        line for line in FEED.strip().splitlines() if line.split(":")[0] not in changes
    ]
    return parse(
        "\n".join([*lines, *(f"{key}: {text}" for key, text in changes.items())])
    )


@pytest.fixture
def engine(database: Any) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database.url, hide_parameters=True)
    yield engine
    engine.dispose()


def execute(
    engine: sa.Engine, statement: str, rows: list[dict[str, Any]] | None = None
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(statement), rows)


def make_sales(
    engine: sa.Engine, key: str = "text", cursor: str = "timestamptz"
) -> None:
    execute(
        engine,
        f"""create schema shop; create table shop.sales (
            id {key}, known_at {cursor}, sold_at timestamptz, email text, consent text,
            secret text)""",
    )


def add(engine: sa.Engine, *rows: dict[str, Any]) -> None:
    usual = {"known_at": START, "sold_at": START, "email": None, "consent": "yes"}
    execute(
        engine,
        "insert into shop.sales (id, known_at, sold_at, email, consent) "
        "values (:id, :known_at, :sold_at, :email, :consent)",
        [usual | row for row in rows],
    )


def source(engine: sa.Engine, of: Feed | None = None, folder: Path = Path()) -> Source:
    return Source(engine, of or feed(), folder)


def flat(lists: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def ids(slices: Iterator[Any]) -> list[Any]:
    return [value for some in slices for value in some.columns["id"]]


class TestPreflight:
    def test_a_fitting_table_has_no_fault(self, engine: sa.Engine) -> None:
        make_sales(engine)
        assert source(engine).faults() == []

    def test_a_misspelt_table_is_named_with_the_one_meant(
        self, engine: sa.Engine
    ) -> None:
        make_sales(engine)
        other = feed(source="{table: shop.sale, key: [id], cursor: {column: known_at}}")
        assert source(engine, other).faults() == [
            "The warehouse has no table shop.sale; did you mean sales?"
        ]

    @pytest.mark.matrix("S9")
    def test_all_missing_columns_are_named_at_once(self, engine: sa.Engine) -> None:
        make_sales(engine)
        other = feed(
            user_data="{em: e_mail, ph: telephone}",
            consent="{column: consented, granted: [true]}",
        )
        faults = source(engine, other).faults()
        assert len(faults) == 3
        assert "no column e_mail; did you mean email?" in faults[0]
        assert "no column telephone" in faults[1]
        assert "no column consented; did you mean consent?" in faults[2]

    @pytest.mark.matrix("S9")
    def test_columns_of_the_wrong_type_are_named(self, engine: sa.Engine) -> None:
        execute(
            engine,
            "create schema shop; create table shop.sales (id double precision, "
            "known_at text, sold_at bigint, email text, consent text)",
        )
        faults = source(engine).faults()
        assert [fault.split(" holds ")[0] for fault in faults] == [
            "The cursor known_at of shop.sales",
            "The key id of shop.sales",
            "event.time sold_at of shop.sales",
        ]

    def test_a_time_without_any_zone_is_named(self, engine: sa.Engine) -> None:
        make_sales(engine)
        execute(engine, "alter table shop.sales alter sold_at type timestamp")
        other = feed(
            event="{name: Lead, action_source: phone_call, time: {column: sold_at}}"
        )
        assert source(engine, other).faults() == [
            "event.time sold_at of shop.sales carries no zone; "
            "declare event.time.timezone."
        ]

    def test_a_silent_server_is_one_sentence(self) -> None:
        engine = sa.create_engine(
            "postgresql+psycopg://who:canary-password@127.0.0.1:1/none",
            hide_parameters=True,
        )
        (fault,) = source(engine).faults()
        assert fault.startswith("The warehouse could not describe shop.sales (")
        assert "canary" not in fault

    def test_an_engine_that_shows_parameters_is_refused(self, database: Any) -> None:
        with pytest.raises(ConfigurationError, match="hide_parameters=True"):
            source(sa.create_engine(database.url)).count(DAY, now=NOW)


class TestSqlFile:
    @pytest.fixture
    def of(self) -> Feed:
        return feed(source="{sql: sales.sql, key: [id], cursor: {column: known_at}}")

    def test_a_query_is_read_as_a_table_is(
        self, engine: sa.Engine, of: Feed, tmp_path: Path
    ) -> None:
        make_sales(engine)
        add(
            engine, {"id": "a"}, {"id": "b"}, {"id": "b;"}, {"id": "c", "consent": "no"}
        )
        (tmp_path / "sales.sql").write_text(
            """-- Sales; of the shop's :day.
            with day as (select * from shop.sales where id <> 'b;' /* ; */)
            select id, known_at::timestamptz, sold_at, email as "email", consent,
              '12:30 :x %s' as "odd : % name"
            from day where known_at >= '2026-01-01 00:00:00'::timestamptz; -- the end
            """
        )
        read = source(engine, of, tmp_path)
        assert read.faults() == []
        assert read.count(DAY, now=NOW).rows == 3
        assert read.count(DAY, now=NOW).withheld == 1
        shards = read.shards(DAY, 1)
        assert [ids(read.read(DAY, shard, 10)) for shard in shards] == [
            ["a"],
            ["b"],
            ["c"],
        ]
        assert ids(read.read_keys([("c",)], 10)) == ["c"]

    @pytest.mark.matrix("X22")
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("select 1; drop table shop.sales", "several statements"),
            ("select 1; select 2;", "several statements"),
            ("delete from shop.sales", "does not begin with select or with"),
            ("", "does not begin with select or with"),
        ],
        ids=["select and drop", "two selects", "delete", "empty"],
    )
    def test_anything_but_one_select_is_refused(
        self, engine: sa.Engine, of: Feed, tmp_path: Path, text: str, fault: str
    ) -> None:
        (tmp_path / "sales.sql").write_text(text)
        (said,) = source(engine, of, tmp_path).faults()
        assert fault in said

    @pytest.mark.matrix("X22")
    def test_a_writing_query_changes_nothing(
        self, engine: sa.Engine, of: Feed, tmp_path: Path
    ) -> None:
        make_sales(engine)
        add(engine, {"id": "a"})
        execute(
            engine,
            "create function shop.wipe() returns setof shop.sales language sql "
            "as 'delete from shop.sales returning *'",
        )
        (tmp_path / "sales.sql").write_text("select * from shop.wipe()")
        with pytest.raises(SourceError, match="SQLSTATE 25006"):
            source(engine, of, tmp_path).count(DAY, now=NOW)
        with engine.connect() as connection:
            assert connection.scalar(sa.text("select count(*) from shop.sales")) == 1

    def test_a_file_outside_the_folder_is_not_opened(
        self, engine: sa.Engine, tmp_path: Path
    ) -> None:
        (tmp_path / "sales.sql").write_text("select 1")
        (tmp_path / "feeds").mkdir()
        other = feed(
            source="{sql: ../sales.sql, key: [id], cursor: {column: known_at}}"
        )
        (said,) = source(engine, other, tmp_path / "feeds").faults()
        assert "outside" in said

    def test_a_missing_file_is_a_sentence(
        self, engine: sa.Engine, of: Feed, tmp_path: Path
    ) -> None:
        (said,) = source(engine, of, tmp_path).faults()
        assert said == "sales.sql cannot be read; put it beside the feed, in UTF-8."


class TestInterval:
    def test_the_start_belongs_to_it_and_the_end_does_not(
        self, engine: sa.Engine
    ) -> None:
        make_sales(engine)
        moments = [DAY.start - timedelta(microseconds=1), DAY.start, DAY.end]
        add(engine, *({"id": str(n), "known_at": at} for n, at in enumerate(moments)))
        assert ids(source(engine).read(DAY, Shard(), 10)) == ["1"]

    def test_times_without_a_zone_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="no zone"):
            Interval(datetime(2026, 1, 1), datetime(2026, 1, 2))  # noqa: DTZ001

    def test_an_end_before_the_start_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="ends before"):
            Interval(DAY.end, DAY.start)

    def test_local_cursors_are_read_in_the_feeds_zone(self, engine: sa.Engine) -> None:
        make_sales(engine, cursor="timestamp")
        # Zurich's Monday is 23:00 UTC on Sunday to 23:00 UTC on Monday.
        add(
            engine,
            {"id": "sunday", "known_at": datetime(2026, 3, 1, 23, 59, 59)},  # noqa: DTZ001
            {"id": "monday", "known_at": datetime(2026, 3, 2)},  # noqa: DTZ001
            {"id": "tuesday", "known_at": datetime(2026, 3, 3)},  # noqa: DTZ001
        )
        of = feed(
            source="{table: shop.sales, key: [id], "
            "cursor: {column: known_at, timezone: Europe/Zurich}}"
        )
        monday = Interval(DAY.start - timedelta(hours=1), DAY.end - timedelta(hours=1))
        (read,) = source(engine, of).read(monday, Shard(), 10)
        assert list(read.columns["id"]) == ["monday"]
        assert read.columns["known_at"][0] == monday.start

    def test_dates_are_their_midnight(self, engine: sa.Engine) -> None:
        make_sales(engine, cursor="date")
        days = [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3)]
        add(engine, *({"id": str(day.day), "known_at": day} for day in days))
        read = source(engine)
        hours = [timedelta(hours=hour) for hour in range(0, 49, 7)]
        found = [
            ids(read.read(Interval(START + low, START + high), Shard(), 10))
            for low, high in pairwise(hours)
        ]
        # Seven hours each, from midnight on; the fourth crosses the next midnight.
        assert found == [["2"]] * 3 + [["2", "3"]] + [["3"]] * 2

    def test_a_row_that_gets_the_day_that_has_begun_is_read_later(
        self, engine: sa.Engine
    ) -> None:
        make_sales(engine, cursor="date")
        hours = [START + timedelta(hours=hour) for hour in range(25)]
        add(engine, {"id": "at three", "known_at": START.date()})
        later = [
            ids(source(engine).read(Interval(low, high), Shard(), 10))
            for low, high in pairwise(hours)
            if high > START + timedelta(hours=15)
        ]
        assert later == [["at three"]] * 9

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        start=st.sampled_from(
            [
                datetime(2026, 3, 28, 22, tzinfo=UTC),
                datetime(2026, 10, 24, 22, tzinfo=UTC),
            ]
        ),
        minutes=st.lists(st.integers(1, 180), min_size=6, max_size=30),
    )
    @pytest.mark.matrix("T4")
    def test_no_local_hour_is_lost_when_clocks_change(
        self, engine: sa.Engine, start: datetime, minutes: list[int]
    ) -> None:
        """In these nights Zurich's clocks skip an hour, or show one twice."""
        execute(engine, "drop schema if exists shop cascade")
        make_sales(engine, cursor="timestamp")
        steps = (timedelta(minutes=some) for some in minutes)
        edges = list(accumulate(steps, initial=start))
        zone = ZoneInfo("Europe/Zurich")
        first, last = (
            edge.astimezone(zone).replace(tzinfo=None) for edge in (start, edges[-1])
        )
        moments = [first + timedelta(minutes=n) for n in range(0, 60 * 24, 10)]
        wanted = {str(at): at for at in moments if at < last}
        add(engine, *({"id": name, "known_at": at} for name, at in wanted.items()))
        of = feed(
            source="{table: shop.sales, key: [id], "
            "cursor: {column: known_at, timezone: Europe/Zurich}}"
        )
        read = source(engine, of)
        found = [
            name
            for low, high in pairwise(edges)
            for name in ids(read.read(Interval(low, high), Shard(), 1000))
        ]
        assert set(found) == set(wanted)


class TestCounts:
    def test_every_kind_is_counted(self, engine: sa.Engine) -> None:
        make_sales(engine)
        hours = {"fresh": 1, "old": 24 * 7, "ageing": 24 * 6, "just": 24 * 6 + 17}
        add(
            engine,
            *(
                {"id": name, "sold_at": NOW - timedelta(hours=n)}
                for name, n in hours.items()
            ),
            {"id": None},
            {"id": "  "},
            {"id": "refused", "consent": "no"},
            {"id": "silent", "consent": None},
            {"id": "shouting", "consent": " YES "},
            {"id": "boolean text", "consent": "True"},
            {"id": "in short", "consent": "y"},
            {"id": "timeless", "sold_at": None},
            {"id": "elsewhen", "known_at": DAY.end},
        )
        counts = source(engine, feed(holding_period="2h")).count(DAY, now=NOW)
        assert counts.rows == 12
        assert counts.without_key == 2
        assert counts.withheld == 2
        assert counts.too_old == 1
        assert counts.expires_within_24h == 2
        assert counts.held_back == 1

    def test_nothing_is_held_back_without_a_holding_period(
        self, engine: sa.Engine
    ) -> None:
        make_sales(engine)
        add(engine, {"id": "future", "sold_at": NOW + timedelta(days=1)})
        assert source(engine).count(DAY, now=NOW).held_back == 0

    def test_epochs_are_counted_too(self, engine: sa.Engine) -> None:
        make_sales(engine)
        execute(
            engine,
            "alter table shop.sales alter sold_at type bigint "
            "using extract(epoch from sold_at)::bigint * 1000",
        )
        old = int((NOW - timedelta(days=8)).timestamp() * 1000)
        add(
            engine,
            {"id": "old", "sold_at": old},
            {"id": "new", "sold_at": old + 7 * 86_400_000},
        )
        of = feed(
            event="{name: Lead, action_source: phone_call, "
            "time: {column: sold_at, format: epoch_milliseconds}}"
        )
        assert source(engine, of).count(DAY, now=NOW).too_old == 1

    def test_times_as_text_are_not_guessed(self, engine: sa.Engine) -> None:
        make_sales(engine)
        execute(engine, "alter table shop.sales alter sold_at type text")
        of = feed(
            event="{name: Lead, action_source: phone_call, "
            "time: {column: sold_at, format: '%d.%m.%Y', timezone: UTC}}"
        )
        counts = source(engine, of).count(DAY, now=NOW)
        assert (counts.too_old, counts.expires_within_24h, counts.held_back) == (
            None,
        ) * 3

    @pytest.mark.parametrize(
        ("granted", "withheld"),
        [("[true]", 2), ("[false]", 2), ("[1]", 3), ("['x']", 3)],
    )
    def test_boolean_consent_follows_the_granted_values(
        self, engine: sa.Engine, granted: str, withheld: int
    ) -> None:
        make_sales(engine)
        execute(engine, "alter table shop.sales alter consent type boolean using true")
        add(
            engine,
            *({"id": str(flag), "consent": flag} for flag in (True, False, None)),
        )
        of = feed(consent=f"{{column: consent, granted: {granted}}}")
        assert source(engine, of).count(DAY, now=NOW).withheld == withheld
        is_told = bool(source(engine, of).faults())
        assert is_told == (withheld == 3), "only what no row can have is a fault"

    @pytest.mark.parametrize(
        ("part", "path"),
        [
            ("consent: {column: consent, granted: [yes, 'on']}", "consent.granted"),
            ("limited_data_use: {column: consent, values: [yes]}", "limited_data_use."),
            ("opt_out: {column: consent, values: [1]}", "opt_out.values"),
        ],
    )
    def test_words_that_no_boolean_column_can_hold_are_a_fault(
        self, engine: sa.Engine, part: str, path: str
    ) -> None:
        make_sales(engine)
        key, _, text = part.partition(": ")
        of = feed(**{"consent": "{column: consent, granted: [true]}", key: text})
        assert source(engine, of).faults() == []
        execute(engine, "alter table shop.sales alter consent type boolean using true")
        (fault,) = source(engine, of).faults()
        assert fault.startswith(path)
        assert "write [true] or [false]" in fault


KEYS = {
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3),
    "integer": st.integers(-3, 60),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.decimals(-9, 9, places=2),
    "timestamptz": st.datetimes(
        datetime(2026, 3, 1),  # noqa: DTZ001
        datetime(2026, 4, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    "uuid": st.integers(0, 12).map(lambda n: uuid.UUID(int=n * 3**70)),
}


class TestShards:
    @pytest.mark.parametrize("key", list(KEYS))
    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data(), size=st.integers(1, 9))
    def test_shards_cover_every_row_exactly_once(
        self, engine: sa.Engine, key: str, data: st.DataObject, size: int
    ) -> None:
        keys = data.draw(st.lists(st.one_of(st.none(), KEYS[key]), max_size=40))
        late = data.draw(st.lists(st.one_of(st.none(), KEYS[key]), max_size=10))
        execute(engine, "drop schema if exists shop cascade")
        make_sales(engine, key)
        if keys:
            add(engine, *({"id": value} for value in keys))
        read = source(engine)
        shards = [
            Shard.from_json(json.loads(json.dumps(shard.to_json())))
            for shard in read.shards(DAY, size)
        ]
        found = [ids(read.read(DAY, shard, 100)) for shard in shards]
        assert Counter(flat(found)) == Counter(keys)
        assert [len(some) for some in found] == [shard.rows for shard in shards]
        most = Counter(value for value in keys if value is not None).most_common(1)
        nulls = keys.count(None)
        for number, shard in enumerate(shards):
            extra = nulls if number == 0 else 0
            assert shard.rows - extra <= size - 1 + (most[0][1] if most else 0)
        if shards and late:
            add(engine, *({"id": value} for value in late))
            found = [ids(read.read(DAY, shard, 100)) for shard in shards]
            assert Counter(flat(found)) == Counter([*keys, *late])

    @pytest.mark.parametrize(
        ("rows", "most", "sizes"),
        [(10, 10, [10]), (11, 10, [6, 5]), (24, 10, [8, 8, 8]), (25, 10, [9, 9, 7])],
    )
    def test_shards_are_of_one_size(
        self, engine: sa.Engine, rows: int, most: int, sizes: list[int]
    ) -> None:
        make_sales(engine)
        add(engine, *({"id": f"{number:02}"} for number in range(rows)))
        shards = source(engine).shards(DAY, most)
        assert [shard.rows for shard in shards] == sizes

    def test_the_order_of_keys_is_the_databases(self, engine: sa.Engine) -> None:
        """To citext `a` and `A` are one key, and both come before `B`."""
        execute(engine, "create extension citext")
        make_sales(engine, "citext")
        keys = ["a", "A", "B", "b", "c", "Z", "z", "-", "é", "É", "10", "9", ""]
        add(engine, *({"id": key} for key in keys))
        read = source(engine)
        shards = read.shards(DAY, 1)
        assert sorted(shard.rows for shard in shards) == [1] * 7 + [2] * 3
        found = flat(ids(read.read(DAY, shard, 9)) for shard in shards)
        assert sorted(found) == sorted(keys)

    def test_an_empty_interval_has_no_shards(self, engine: sa.Engine) -> None:
        make_sales(engine)
        assert source(engine).shards(DAY, 10) == []

    def test_rows_without_a_key_alone_make_one_shard(self, engine: sa.Engine) -> None:
        make_sales(engine)
        add(engine, {"id": None}, {"id": None})
        assert source(engine).shards(DAY, 1) == [Shard(rows=2)]

    def test_a_bound_of_another_type_is_refused(self, engine: sa.Engine) -> None:
        make_sales(engine, "bigint")
        with pytest.raises(SourceError, match="run the plan again"):
            list(source(engine).read(DAY, Shard(low="ord-1", with_null=False), 10))


class TestReading:
    def test_only_the_feeds_columns_are_read(self, engine: sa.Engine) -> None:
        make_sales(engine)
        add(engine, {"id": "a"})
        (read,) = source(engine).read(DAY, Shard(), 10)
        assert list(read.columns) == ["id", "known_at", "sold_at", "email", "consent"]

    def test_slices_hold_no_more_rows_than_asked(self, engine: sa.Engine) -> None:
        make_sales(engine)
        add(engine, *({"id": str(n)} for n in range(25)))
        sizes = [some.rows for some in source(engine).read(DAY, Shard(), 10)]
        assert sizes == [10, 10, 5]

    @pytest.mark.matrix("S6")
    @pytest.mark.parametrize(
        "moment", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"]
    )
    def test_a_time_that_python_cannot_hold_is_empty_and_stops_nothing(
        self, engine: sa.Engine, moment: str
    ) -> None:
        make_sales(engine)
        add(engine, {"id": "a"}, {"id": "b"})
        execute(engine, f"update shop.sales set sold_at = '{moment}' where id = 'b'")
        (read,) = source(engine).read(DAY, Shard(), 10)
        assert dict(zip(read.columns["id"], read.columns["sold_at"], strict=True)) == {
            "a": START,
            "b": None,
        }

    @pytest.mark.matrix("S6")
    @pytest.mark.parametrize("moment", ["infinity", "20000-01-01", "0044-03-15 BC"])
    def test_such_a_time_in_a_key_is_an_empty_key_and_stops_nothing(
        self, engine: sa.Engine, moment: str
    ) -> None:
        make_sales(engine, "timestamptz")
        add(engine, *({"id": START + timedelta(hours=hour)} for hour in range(4)))
        execute(engine, f"update shop.sales set id = '{moment}' where id = '{START}'")
        read = source(engine)
        found = [ids(read.read(DAY, shard, 10)) for shard in read.shards(DAY, 2)]
        assert len(found) == 2
        assert Counter(flat(found)) == Counter(
            [None, *(START + timedelta(hours=hour) for hour in (1, 2, 3))]
        )

    @pytest.mark.parametrize("type_", ["json", "jsonb"])
    def test_json_comes_as_its_text(self, engine: sa.Engine, type_: str) -> None:
        make_sales(engine)
        execute(engine, f"alter table shop.sales alter email type {type_} using null")
        add(engine, {"id": "a", "email": '[{"id": "1.10"}]'}, {"id": "b"})
        (read,) = source(engine).read(DAY, Shard(), 10)
        assert read.columns["email"] == ('[{"id": "1.10"}]', None)

    @pytest.mark.matrix("X21")
    def test_odd_names_are_quoted(self, engine: sa.Engine) -> None:
        execute(
            engine,
            'create schema "Shop"; create table "Shop"."order" ("Select" text, "when" '
            'timestamptz, sold_at timestamptz, "E_mail$" text, consent text)',
        )
        execute(
            engine, f"""insert into "Shop"."order" values ('a', '{START}', '{START}')"""
        )
        of = feed(
            source='{table: Shop.order, key: [Select], cursor: {column: "when"}}',
            user_data="{em: E_mail$}",
        )
        read = source(engine, of)
        assert read.faults() == []
        assert read.count(DAY, now=NOW).rows == 1
        (found,) = read.read(DAY, Shard(), 10)
        assert found.columns["Select"] == ("a",)

    def test_a_driver_that_fails_on_a_row_says_nothing_of_it(
        self, engine: sa.Engine
    ) -> None:
        make_sales(engine)
        add(engine, {"id": "a", "email": "jane.canary@example.com"})
        execute(
            engine,
            "alter table shop.sales rename to raw; create view shop.sales as "
            "select id, known_at, sold_at, cast(email as integer)::text as email, "
            "consent from shop.raw",
        )
        with pytest.raises(SourceError) as caught:
            list(source(engine).read(DAY, Shard(), 10))
        assert "SQLSTATE 22P02" in str(caught.value)
        assert "canary" not in f"{caught.value!r}"
        assert caught.value.__suppress_context__

    def test_rows_are_not_logged_even_at_debug(
        self, database: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """SQLAlchemy logs each row that it fetches, where its logger is at DEBUG."""
        for logger in ("", "sqlalchemy", "sqlalchemy.engine"):
            caplog.set_level(logging.DEBUG, logger)
        engine = sa.create_engine(database.url, hide_parameters=True)
        make_sales(engine)
        add(engine, {"id": "a", "email": "jane.canary@example.com"})
        (read,) = source(engine).read(DAY, Shard(), 10)
        (again,) = source(engine).read_keys([("a",)], 10)
        assert read.columns["email"] == again.columns["email"]
        assert "canary" in read.columns["email"][0]
        assert "canary" not in caplog.text
        engine.dispose()

    def test_an_engine_that_echoes_is_refused(self, database: Any) -> None:
        engine = sa.create_engine(database.url, hide_parameters=True, echo=True)
        with pytest.raises(ConfigurationError, match="without echo"):
            source(engine).count(DAY, now=NOW)

    @pytest.mark.matrix("D11")
    def test_a_broken_connection_is_a_sentence(
        self, engine: sa.Engine, database: Any
    ) -> None:
        make_sales(engine)
        add(engine, *({"id": str(n)} for n in range(1000)))
        slices = source(engine).read(DAY, Shard(), 100)
        next(slices)
        with sa.create_engine(database.url).begin() as other:
            other.execute(
                sa.text(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid()"
                )
            )
        with pytest.raises(SourceError, match=r"could not read shop\.sales"):
            list(slices)

    def test_an_abandoned_read_gives_its_connection_back(
        self, engine: sa.Engine
    ) -> None:
        make_sales(engine)
        add(engine, *({"id": str(n)} for n in range(100)))
        slices = source(engine).read(DAY, Shard(), 10)
        next(slices)
        slices.close()  # type: ignore[attr-defined]
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


class TestReadingKeys:
    def test_the_named_rows_come_back_whatever_their_interval(
        self, engine: sa.Engine
    ) -> None:
        make_sales(engine, "bigint")
        add(
            engine,
            *({"id": n, "known_at": START + timedelta(days=n)} for n in range(3000)),
        )
        wanted = [(str(n),) for n in range(0, 3000, 2)]
        found = ids(source(engine).read_keys([*wanted, ("no number",), (None,)], 400))
        assert sorted(found) == list(range(0, 3000, 2))

    def test_composite_keys_are_matched_whole(self, engine: sa.Engine) -> None:
        make_sales(engine)
        add(engine, *({"id": k, "consent": e} for k in "ab" for e in ("x", "y")))
        of = feed(
            source="{table: shop.sales, key: [id, consent], cursor: {column: known_at}}"
        )
        found = [
            list(zip(some.columns["id"], some.columns["consent"], strict=True))
            for some in source(engine, of).read_keys([("a", "x"), ("b", "y")], 10)
        ]
        assert sorted(flat(found)) == [("a", "x"), ("b", "y")]

    def test_a_key_with_the_parts_of_another_feed_file_has_no_row(
        self, engine: sa.Engine
    ) -> None:
        make_sales(engine)
        add(engine, {"id": "a"})
        of = feed(
            source="{table: shop.sales, key: [id, consent], cursor: {column: known_at}}"
        )
        assert list(source(engine, of).read_keys([("a",)], 10)) == []

    def test_no_keys_are_no_rows(self, engine: sa.Engine) -> None:
        make_sales(engine)
        assert list(source(engine).read_keys([], 10)) == []
        assert list(source(engine).read_keys([(None,)], 10)) == []


class TestOtherDialects:
    """SQLite, for what a warehouse that is not PostgreSQL does differently."""

    @pytest.mark.parametrize("place", ["{table: sales", "{sql: sales.sql"])
    def test_a_plain_database_gives_the_same_rows(
        self, tmp_path: Path, place: str
    ) -> None:
        engine = sa.create_engine(
            f"sqlite:///{tmp_path / 'shop.db'}", hide_parameters=True
        )
        sales = sa.Table(
            "sales",
            sa.MetaData(),
            sa.Column("id", sa.Text),
            sa.Column("known_at", sa.DateTime),
            sa.Column("sold_at", sa.DateTime),
            sa.Column("amount", sa.Numeric(10, 2)),
            sa.Column("email", sa.Text),
            sa.Column("consent", sa.Text),
        )
        local = START.replace(tzinfo=None)
        with engine.begin() as connection:
            sales.create(connection)
            connection.execute(
                sales.insert(),
                [
                    {
                        "id": key,
                        "known_at": local,
                        "sold_at": local,
                        "amount": Decimal("1.5"),
                        "consent": "yes",
                    }
                    for key in ("a", "b", "b", None, "c")
                ],
            )
        (tmp_path / "sales.sql").write_text("select * from sales")
        of = feed(source=f"{place}, key: [id], cursor: {{column: known_at}}}}")
        read = source(engine, of, tmp_path)
        if "table" in place:
            assert read.faults() == []
            assert read.count(DAY, now=NOW).rows == 5
            shards = read.shards(DAY, 2)
            found = [ids(read.read(DAY, shard, 10)) for shard in shards]
            assert [sorted(map(str, some)) for some in found] == [
                ["None", "a", "b", "b"],
                ["c"],
            ]
        else:
            # A query of SQLite gives texts where its tables give times.
            assert "holds text" in read.faults()[0]
        engine.dispose()


READ_ALL = """
    import resource, sys
    from pathlib import Path
    import sqlalchemy as sa
    from meta_capi.feed import parse
    from meta_capi.source import Interval, Shard, Source
    from datetime import datetime, timedelta, UTC
    feed = parse(Path(sys.argv[2]).read_text())
    source = Source(sa.create_engine(sys.argv[1], hide_parameters=True), feed, Path())
    start = datetime(2026, 3, 2, tzinfo=UTC)
    days = Interval(start, start + timedelta(days=int(sys.argv[3])))
    rows = sum(some.rows for some in source.read(days, Shard(), 10_000))
    print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_stays_flat_however_many_rows_are_read(
    engine: sa.Engine, database: Any, tmp_path: Path
) -> None:
    """The whole result would be more than 100 MB."""
    make_sales(engine)
    execute(
        engine,
        "insert into shop.sales select 'ord-' || n, timestamptz '2026-03-02 00:00Z' "
        "+ n / 30000 * interval '1 day', now(), repeat(md5(n::text), 6), 'yes' "
        "from generate_series(0, 299999) n",
    )
    (tmp_path / "feed.yaml").write_text(FEED)

    def peak(days: int) -> tuple[int, int]:
        command = [sys.executable, "-c", textwrap.dedent(READ_ALL)]
        printed = subprocess.run(
            [*command, database.url, str(tmp_path / "feed.yaml"), str(days)],
            env={"PYTHONPATH": str(Path(__file__).parents[2] / "include")},
            capture_output=True,
            text=True,
            check=True,
        )
        rows, kilobytes = map(int, printed.stdout.split())
        return rows, kilobytes // 1024

    few, small = peak(1)
    many, large = peak(10)
    assert (few, many) == (30_000, 300_000)
    assert large - small < 30
