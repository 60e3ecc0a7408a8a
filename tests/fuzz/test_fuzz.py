"""A short run of `make fuzz`; and that its judge sees what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, get_args

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from pydantic import BaseModel
from tests.conftest import Database
from tests.fuzz import feeds, identifiers
from tests.fuzz.judge import DATASET, SECRET, judge
from tests.fuzz.values import TODAY
from tests.fuzz.walk import Plan, summary, work

from meta_capi.built import Built, Columns
from meta_capi.catalogue import REASONS, Effect
from meta_capi.event import Builder
from meta_capi.feed import Feed
from meta_capi.lifecycle import State
from meta_capi.source import Shard, Source

PLAN = Plan(seed=20261120, rows=20_000, files=500, identifiers=1_000)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a short run found; two shards, one after the other."""
    folder = tmp_path_factory.mktemp("fuzz")
    for shard in range(2):
        work(PLAN, folder, shard, 2)
    return summary(PLAN, folder)


class TestAShortRun:
    @pytest.mark.matrix(
        "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S9", "S10", "S13", "X21", "X24"
    )
    def test_no_claim_fails_on_any_row_file_or_name(
        self, result: dict[str, Any]
    ) -> None:
        assert result["findings"] == []
        assert result["done"]
        counts = {name: result[name] for name in ("rows", "files", "identifiers")}
        assert counts == {"rows": 20_000, "files": 500, "identifiers": 1_000}

    def test_rows_came_to_every_end_that_building_has(
        self, result: dict[str, Any]
    ) -> None:
        held = (Effect.WITHHELD, Effect.QUARANTINED, Effect.EXPIRED)
        by_others = {
            "gate.failed", "stage.out_of_order", "split.budget", "erased", "row.gone",
        }  # fmt: skip
        rare = {"event.too_large", "event_id.taken"}  # one in ten thousand rows
        ends = {code for code, each in REASONS.items() if each.effect in held}
        assert ends - by_others - rare <= result["outcomes"].keys()
        assert result["events"] > 5_000
        assert result["known_digests"] > 20_000
        assert 0 < result["feeds"] < 250

    def test_every_word_of_the_feed_language_is_used(self) -> None:
        used = set().union(
            *(_paths(feeds.document(Random(seed))) for seed in range(300))
        )  # fmt: skip
        assert set(_words(Feed)) <= used


def _paths(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield str(key)
            yield from _paths(value)


def _words(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for part in _parts(field.annotation):
            yield from _words(part)


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


class TestTheWalk:
    def test_a_run_that_was_killed_goes_on_where_it_stopped(
        self, tmp_path: Path
    ) -> None:
        plan = Plan(seed=5, rows=600, files=3, identifiers=3)
        work(plan, tmp_path, 0, 1)
        whole = summary(plan, tmp_path)
        (path,) = tmp_path.glob("*.jsonl")
        path.write_text(
            path.read_text("utf-8")[:-200], "utf-8"
        )  # in the middle of a line
        assert not summary(plan, tmp_path)["done"]
        work(plan, tmp_path, 0, 1)
        again = summary(plan, tmp_path)
        timed = ("rows_per_second", "slowest_file_seconds", "peak_megabytes")
        for found in (whole, again):
            for name in [
                *timed,
                *(each for each in found if each.startswith("seconds")),
            ]:
                found.pop(name)
        assert again == whole


# --- the judge ------------------------------------------------------------------------

Spoil = Callable[[Built, int], None]


@dataclass
class Broken:
    """A way to be wrong about one row, and the claim that must fail for it."""

    claim: str
    spoil: Spoil


def _body(old: bytes, new: bytes) -> Spoil:
    def spoil(built: Built, row: int) -> None:
        body = built.bodies[row] or b""
        assert old in body
        built.bodies[row] = body.replace(old, new, 1)

    return spoil


def _set(name: str, value: Any) -> Spoil:
    return lambda built, row: getattr(built, name).__setitem__(row, value)


def _uppercase(built: Built, row: int) -> None:
    body = (built.bodies[row] or b"").decode()
    digest = body.partition('"em":["')[2][:64]
    built.bodies[row] = body.replace(digest, digest.upper()).encode()


def _lose(built: Built, row: int) -> None:
    for name in ("bodies", "reasons", "states"):
        getattr(built, name).pop(row)


def _log(built: Built, row: int) -> None:
    logging.getLogger("anywhere").debug("built")


def _fail(built: Built, row: int) -> None:
    raise KeyError(row)


BROKEN = {
    "a letter of a digest in capitals": Broken(
        "a digest in lower-case hex", _uppercase
    ),
    "a row lost": Broken("one outcome a row", _lose),
    "a line of a log": Broken("nothing is logged", _log),
    "an exception": Broken("no exception", _fail),
    "no number": Broken(
        "strict JSON", _body(b'"event_time":', b'"event_time":NaN,"x":')
    ),
    "a member twice": Broken(
        "strict JSON", _body(b'"event_time":', b'"event_time":1,"event_time":')
    ),
    "bytes that are no text": Broken("strict JSON", _body(b"Purchase", b"Purch\xff")),
    "a member that Meta does not know": Broken(
        "known members", _body(b"{", b'{"email":"x",')
    ),
    "a time in milliseconds": Broken(
        "a time in the window", _body(b'"event_time":', b'"event_time":1000')
    ),
    "a reason with a body": Broken("a body or a reason", _set("reasons", "holding")),
    "a reason of nobody's": Broken(
        "a reason of the catalogue", _set("reasons", "x@y.z")
    ),
    "a key with NUL": Broken("the ledger can hold it", _set("source_keys", "a\0")),
    "another body": Broken(
        "as the oracle says", _body(b'"order_id":"', b'"order_id":"x')
    ),
    "an address in clear": Broken(
        "a digest in lower-case hex", _body(b'"em":["', b'"em":["jane@shop.example","')
    ),
    "the digest of nothing": Broken(
        "no digest of nothing",
        _body(
            b'"em":["',
            b'"em":["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","',
        ),
    ),
    "a digest of something else": Broken(
        "the digest known beforehand",
        _body(b'"em":["', b'"em":["' + b"0" * 64 + b'","'),
    ),
    "a currency of nowhere": Broken(
        "the simulator takes it", _body(b'"currency":"', b'"currency":"X')
    ),
}


class TestTheJudge:
    def rows(self) -> tuple[Feed, feeds.Rows]:
        (feed,) = [each for each in feeds.shipped() if each.feed == "offline_purchases"]
        return feed, feeds.rows(feed, Random("sound/1"), 60)

    def test_it_finds_nothing_wrong_with_the_builder(self) -> None:
        judgement = judge(*self.rows(), Random(1))
        assert judgement.findings == []
        assert judgement.events > 10

    @pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
    def test_it_sees_a_builder_that_is_wrong_about_one_row(
        self, broken: Broken
    ) -> None:
        class Wrong(Builder):
            def build(self, columns: Columns, now: int) -> Built:
                built = super().build(columns, now)
                row = next(
                    (
                        n
                        for n in built.sendable
                        if b'"em":["' in (built.bodies[n] or b"")
                    ),
                    None,
                )
                if row is not None:
                    broken.spoil(built, row)
                return built

        judgement = judge(*self.rows(), Random(1), lambda feed: Wrong(
            feed, dataset_id=DATASET, digest_key=SECRET, today=TODAY
        ))  # fmt: skip
        assert broken.claim in {each.claim for each in judgement.findings}

    def test_it_sees_a_trace_of_a_value(self) -> None:
        feed, _ = self.rows()
        hostile = feeds.rows(feed, Random("traces"), 400)

        class Chatty(Builder):
            def build(self, columns: Columns, now: int) -> Built:
                built = super().build(columns, now)
                for row, name in enumerate(columns["first_name"]):
                    if built.reasons[row] and isinstance(name, str):
                        built.reasons[row] = f"bad name {name}"
                return built

        judgement = judge(feed, hostile, Random(1), lambda feed: Chatty(
            feed, dataset_id=DATASET, digest_key=SECRET, today=TODAY
        ))  # fmt: skip
        assert "no trace in a repr or a reason" in {
            each.claim for each in judgement.findings
        }

    def test_it_sees_a_builder_that_remembers_the_order(self) -> None:
        class Ordered(Builder):
            def build(self, columns: Columns, now: int) -> Built:
                built = super().build(columns, now)
                for row in built.sendable[2:]:
                    built.hold(row, State.QUARANTINED, "value.missing")
                return built

        judgement = judge(*self.rows(), Random(1), lambda feed: Ordered(
            feed, dataset_id=DATASET, digest_key=SECRET, today=TODAY
        ))  # fmt: skip
        assert "any order: the same" in {each.claim for each in judgement.findings}


# --- names, on a real database --------------------------------------------------------


@pytest.mark.matrix("X21")
def test_no_name_breaks_out_of_a_statement_on_a_real_database(
    database: Database,
) -> None:
    """Names that no feed could have are read like any other."""
    chance = Random("names")
    engine = sa.create_engine(database.url, hide_parameters=True)
    read = 0
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("create table victim (x int); insert into victim values (1)")
        while read < 60:
            name = identifiers.identifier(chance)
            if not _can_be_named(name):
                continue
            feed, relation = identifiers.renamed(name, chance)
            if "." in relation.clause.name:  # is read as a schema's end, and not found
                continue
            _make(connection, relation, feed.source.key[0])
            source = Source(engine, feed, Path())
            (piece,) = source.read(identifiers.DAY, Shard(), 10)
            counts = source.count(identifiers.DAY, now=identifiers.NOW)
            assert piece.rows == counts.rows == 1
            read += 1
            schema = sql.Identifier(str(relation.clause.schema))  # type: ignore[attr-defined]
            connection.execute(sql.SQL("drop schema {} cascade").format(schema))
        assert connection.execute("select x from victim").fetchall() == [(1,)]
    engine.dispose()


def _can_be_named(name: str) -> bool:
    try:
        return "\0" not in name and 0 < len(name.encode()) < 64
    except UnicodeEncodeError:
        return False


_TIME = "timestamptz default '2026-11-19'"


def _make(connection: psycopg.Connection[Any], relation: Any, key: str) -> None:
    schema, table = (
        sql.Identifier(each) for each in (relation.clause.schema, relation.clause.name)
    )
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(
            sql.Identifier(name),
            sql.SQL(_TIME if isinstance(kind, sa.DateTime) else "text"),
        )
        for name, kind in relation.types.items()
    )  # fmt: skip
    connection.execute(sql.SQL("create schema {}").format(schema))
    connection.execute(
        sql.SQL("create table {}.{} ({})").format(schema, table, columns)
    )
    connection.execute(
        sql.SQL("insert into {}.{} ({}) values ('k')").format(
            schema, table, sql.Identifier(key)
        )
    )
