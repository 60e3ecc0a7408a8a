"""Hostile rows on the whole way: source table, reader, builder, request, ledger.

Each class stands among sound rows, which must arrive as if they were alone.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.conftest import Database
from tests.fuzz.values import INJECTIONS
from tests.ledger.conftest import DATASET, Bench

from meta_capi.event import Builder
from meta_capi.feed import parse
from meta_capi.names import event_id
from meta_capi.source import Interval, Shard, Source
from meta_capi.tally import Tally
from meta_capi.verdict import Answer

FEED = """
feed: hostile_orders
description: Orders whose rows mean harm.
schedule: "0 * * * *"
start_date: 2026-01-01
source: {table: shop.orders, key: [order_id], cursor: {column: loaded_at}}
event: {name: Purchase, action_source: physical_store, time: {column: bought_at}, id: event_id}
user_data:
  em: email
  ph: {column: phone, default_country: CH}
  fn: first_name
  ln: last_name
  external_id: customer_id
custom_data:
  value: amount
  currency: {default: EUR}
  order_id: order_id
  content_name: note
  contents: items
consent: {column: consent}
window: {margin: 0s}
"""
TYPES = {
    "order_id": "text", "loaded_at": "timestamptz", "bought_at": "timestamptz",
    "event_id": "text", "email": "text", "phone": "text", "first_name": "text",
    "last_name": "text", "customer_id": "text", "amount": "text", "note": "text",
    "items": "json", "consent": "text",
}  # fmt: skip
SOUND_ROWS = 3
NOW = datetime.now(UTC).replace(microsecond=0)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


NOTHING = digest("")


@dataclass
class Way:
    """A source table, and everything behind it."""

    bench: Bench
    engine: sa.Engine
    types: dict[str, str] = field(default_factory=TYPES.copy)
    posted: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """The events of all requests, as they left."""

    @property
    def source(self) -> Source:
        return Source(self.engine, self.bench.feed, Path())

    @property
    def interval(self) -> Interval:
        return Interval(NOW - timedelta(days=1), NOW + timedelta(days=1))

    def execute(self, statement: str, rows: list[dict[str, Any]] | None = None) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), rows)

    def fill(self, *rows: dict[str, Any], **types: str) -> None:
        """Make the table, with sound rows before and behind these."""
        self.types |= types
        columns = ", ".join(f"{name} {kind}" for name, kind in self.types.items())
        self.execute(f"create schema shop; create table shop.orders ({columns})")
        sound = [self.row(number) for number in range(SOUND_ROWS)]
        hostile = [self.row(100 + number, **row) for number, row in enumerate(rows)]
        names = ", ".join(self.types)
        # Typed by the column, whatever Python's type is.
        casts = ", ".join(
            f"cast(:{name} as {kind})" for name, kind in self.types.items()
        )
        every = [*sound[:1], *hostile, *sound[1:]]
        self.execute(f"insert into shop.orders ({names}) values ({casts})", every)

    def row(self, number: int, **changes: Any) -> dict[str, Any]:
        """Return a sound row, with some of its columns changed."""
        numbered = (
            "int" in self.types["order_id"] or self.types["order_id"] == "numeric"
        )
        return {
            "order_id": number if numbered else f"o-{number}",
            "loaded_at": NOW - timedelta(minutes=5),
            "bought_at": NOW - timedelta(hours=1, seconds=number),
            "event_id": None, "email": f"buyer{number}@shop.example", "phone": None,
            "first_name": None, "last_name": None, "customer_id": f"c{number}",
            "amount": "12.50", "note": None, "items": None, "consent": "yes",
        } | changes  # fmt: skip

    def deliver(self, **options: Any) -> Tally:
        """Read the table and deliver it, as the `deliver` task does."""

        def post(body: bytes) -> Answer:
            self.posted += json.loads(body)["data"]
            return self.bench.post(body)

        slices = self.source.read(self.interval, Shard(), 10_000)
        return self.bench.deliver_each(
            (each.columns for each in slices), post=post, **options
        )

    def fates(self) -> dict[str, str]:
        """Return by source key the reason of what is held, the state of what is not."""
        rows = self.bench.sql(
            "select source_key, coalesce(reason, state::text) from capi.deliveries"
        )
        return {str(key): str(fate) for key, fate in rows}

    def event(self, key: str) -> dict[str, Any]:
        """Return the event of a conversion as it left."""
        name = event_id(DATASET, "Purchase", key)
        (event,) = [each for each in self.posted if each["event_id"] == name]
        return event


@pytest.fixture
def way(bench: Bench, database: Database) -> Iterator[Way]:
    bench.feed = parse(FEED)
    engine = sa.create_engine(database.url, hide_parameters=True)
    yield Way(bench, engine)
    engine.dispose()


def check(way: Way, *fates: str) -> None:
    """Deliver; the rows came to these ends, and the sound ones arrived, each once."""
    tally = way.deliver()
    found = way.fates()
    sound = {f"o-{number}" for number in range(SOUND_ROWS)}
    if "o-0" not in found:
        sound = {str(number) for number in range(SOUND_ROWS)}
    assert {key: found.pop(key) for key in sound} == dict.fromkeys(sound, "accepted")
    assert Counter(found.values()) == Counter(fates)
    accepted = {key for key, fate in way.fates().items() if fate == "accepted"}
    assert way.bench.receipts() == {
        event_id(DATASET, "Purchase", key): 1 for key in accepted
    }
    assert (tally.settled, tally.splits) == (tally.rows, 0)


class TestTexts:
    @pytest.mark.matrix("S1")
    def test_ten_megabytes_cost_the_field_or_the_row_that_needs_it(
        self, way: Way
    ) -> None:
        huge = "x" * 10**7
        item = {"id": "a", "quantity": 1, "title": huge}
        way.fill(
            {"first_name": huge}, {"email": f"{huge}@shop.example"},
            {"order_id": "9" * 10**6}, {"note": huge}, {"items": json.dumps([item])},
            {"email": huge, "customer_id": huge},
        )  # fmt: skip
        check(
            way, "accepted", "accepted", "text.unreadable", "text.unreadable",
            "event.too_large", "match_keys.none",
        )  # fmt: skip
        assert "fn" not in way.event("o-100")["user_data"]
        assert way.event("o-101")["user_data"] == {"external_id": [digest("c101")]}

    @pytest.mark.matrix("S2")
    def test_what_cannot_be_seen_changes_no_digest_and_stops_no_row(
        self, way: Way
    ) -> None:
        way.fill(
            {"email": "\ufeffjane@\u200bshop.example\u00ad"},
            {"first_name": "z" + "\u0301" * 1_000},
            {"items": '[{"id": "a", "quantity": 1, "title": "a\\u0000b"}]'},
            {"items": '[{"id": "\\ud800", "quantity": 1}]'},
            {"email": "\x85jane\x01@shop.example"},
            {"note": "\u2028\x7f"},
        )
        check(
            way, "accepted", "accepted", "contents.unreadable", "contents.unreadable",
            "accepted", "accepted",
        )  # fmt: skip
        assert way.event("o-100")["user_data"]["em"] == [digest("jane@shop.example")]
        assert "em" not in way.event("o-104")["user_data"]

    @pytest.mark.matrix("S2")
    def test_bytes_that_are_no_text_are_a_flaw_of_their_row(self, way: Way) -> None:
        names = [b"Mary", b"\xff\xfe", b"caf\xe9", b"a\0b", b""]
        way.fill(*({"first_name": name} for name in names), first_name="bytea")
        check(way, *["accepted"] * len(names))
        sent = [way.event(f"o-{100 + n}")["user_data"].get("fn") for n in range(5)]
        assert sent == [[digest("mary")], None, None, None, None]

    @pytest.mark.matrix("S3")
    def test_every_script_is_hashed_in_its_composed_lower_case(self, way: Way) -> None:
        names = {
            "محمد": "محمد", "דָּוִד": "דָּוִד", "สมชาย": "สมชาย", "王 小明": "王小明", "김철수": "김철수",
            unicodedata.normalize("NFD", "김철수"): "김철수", "ДМИТРИЙ": "дмитрий",
            "Ελένη": "ελένη", "IŞIK": "işik", "ISTANBUL": "istanbul", "ırmak": "ırmak",
            "Straße": "straße", "STRAẞE": "straße", "\u202eevil\u202c": "evil",
            "Zoe\u0308": "zoë", "🧑‍🚀": None, "O\u2019Brien-Ruiz": "obrienruiz",
        }  # fmt: skip
        way.fill(*({"first_name": name} for name in names))
        check(way, *["accepted"] * len(names))
        sent = [
            way.event(f"o-{100 + n}")["user_data"].get("fn") for n in range(len(names))
        ]
        assert sent == [
            [digest(unicodedata.normalize("NFC", name))] if name else None
            for name in names.values()
        ]

    @pytest.mark.matrix("S7")
    def test_what_would_be_code_elsewhere_is_data_here(
        self, way: Way, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        rows = [
            {"first_name": text, "order_id": f"{n} {text}", "note": text}
            for n, text in enumerate(INJECTIONS)
        ]
        way.fill(*rows)
        check(way, *["accepted"] * len(rows))
        for row in rows:
            key = row["order_id"].strip()
            assert way.event(_escaped(key))["custom_data"]["order_id"] == key
        assert not any("forged" in each.getMessage() for each in caplog.records)
        count = "select count(*) from shop.orders"
        assert way.bench.sql(count) == [(SOUND_ROWS + len(rows),)]

    @pytest.mark.matrix("S10")
    def test_a_digest_is_taken_as_it_is_and_nothing_has_none(self, way: Way) -> None:
        ready = digest("jane@shop.example")
        way.fill(
            {"email": ready}, {"email": ready.upper()}, {"email": digest(ready)},
            {"email": hashlib.md5(b"jane").hexdigest()}, {"email": NOTHING},
            {"email": NOTHING.upper(), "customer_id": NOTHING},
        )  # fmt: skip
        check(way, *["accepted"] * 5, "match_keys.none")
        sent = [way.event(f"o-{100 + n}")["user_data"].get("em") for n in range(5)]
        assert sent == [[ready], [ready], [digest(ready)], None, None]
        assert NOTHING not in json.dumps(way.posted)

    @pytest.mark.matrix("S13")
    def test_a_number_is_one_number_in_every_notation(self, way: Way) -> None:
        phones = [
            "+1 (650) 555-1212", "001 650 555 1212", "+1 650 555 1212 ext. 9",
            "＋１６５０５５５１２１２", "+١٦٥٠٥٥٥١٢١٢", "tel:+1.650.555.1212", "16505551212.0",
        ]  # fmt: skip
        others = ["+1 800 FLOWERS", "call me", "+" * 50, "0"]
        way.fill(*({"phone": phone} for phone in phones + others))
        check(way, *["accepted"] * len(phones + others))
        sent = [
            way.event(f"o-{100 + n}")["user_data"].get("ph") for n in range(len(phones))
        ]
        assert sent == [[digest("16505551212")]] * len(phones)
        assert not any(
            "ph" in way.event(f"o-{100 + len(phones) + n}")["user_data"]
            for n in range(4)
        )


def _escaped(key: str) -> str:
    return key.replace("%", "%25").replace("|", "%7C").replace("#dup", "%23dup")


class TestNumbers:
    @pytest.mark.matrix("S4")
    @pytest.mark.parametrize(
        ("kind", "amounts"),
        [
            ("text", {
                "NaN": "value.not_finite", "-Infinity": "value.not_finite",
                "1e308": "value.unreadable", "12,50": "value.unreadable",
                "1.234,56": "value.unreadable", "-0.0": 0, "1,234.56": 1234.56,
                "9" * 40: "value.too_large", "-5": "value.negative", "": "value.missing",
            }),
            ("numeric", {
                Decimal("NaN"): "value.not_finite", Decimal("Infinity"): "value.not_finite",
                Decimal(10**40): "value.too_large", Decimal("1E-400"): 0,
                Decimal("12.345"): 12.34, Decimal("-1"): "value.negative", None: "value.missing",
            }),
            ("float8", {
                float("nan"): "value.not_finite", float("inf"): "value.not_finite",
                1e308: "value.too_large", -0.0: 0, 0.1: 0.1, 5e-324: 0,
            }),
        ],
    )  # fmt: skip
    def test_an_amount_is_exact_or_has_a_reason(
        self, way: Way, kind: str, amounts: dict[Any, Any]
    ) -> None:
        way.fill(*({"amount": amount} for amount in amounts), amount=kind)
        wanted = list(amounts.values())
        check(way, *(each if isinstance(each, str) else "accepted" for each in wanted))
        for number, each in enumerate(wanted, 100):
            if not isinstance(each, str):
                assert way.event(f"o-{number}")["custom_data"]["value"] == each

    @pytest.mark.matrix("S5")
    @pytest.mark.parametrize(
        ("kind", "keys"),
        [
            ("text", ["9223372036854775808", "9007199254740993", "007", "7", "1e5", "1E400"]),
            ("numeric", [Decimal(2**63), Decimal(2**53 + 1), Decimal(10**30)]),
            ("bigint", [2**63 - 1, 2**53 + 1, -7]),
        ],
    )  # fmt: skip
    def test_an_id_keeps_each_digit(self, way: Way, kind: str, keys: list[Any]) -> None:
        way.fill(*({"order_id": key} for key in keys), order_id=kind)
        check(way, *["accepted"] * len(keys))
        for key in keys:
            assert way.event(str(key))["custom_data"]["order_id"] == str(key)


class TestTimes:
    @pytest.mark.matrix("S6")
    def test_a_time_nobody_can_have_meant_is_held(self, way: Way) -> None:
        times: dict[Any, str] = {
            "infinity": "time.missing", "-infinity": "time.missing", None: "time.missing",
            "0001-01-01 00:00:00+14": "time.missing", "9999-12-31 23:59:59-14": "time.missing",
            "1969-12-31 23:59:59+00": "window.over",
            NOW - timedelta(days=62, seconds=1): "window.over",
            NOW + timedelta(hours=2): "time.in_future",
            NOW - timedelta(days=61): "accepted",
        }  # fmt: skip
        way.fill(*({"bought_at": at} for at in times))
        check(way, *times.values())
        moment = int((NOW - timedelta(days=61)).timestamp())
        assert way.event("o-108")["event_time"] == moment

    @pytest.mark.matrix("S6")
    def test_text_without_a_zone_is_held_and_another_zone_is_the_same_second(
        self, way: Way
    ) -> None:
        at = (NOW - timedelta(hours=3)).isoformat()
        east = datetime.fromisoformat(at).astimezone(UTC) + timedelta(hours=14)
        times = {
            at[:19]: "time.no_zone", f"{east:%Y-%m-%dT%H:%M:%S}+14:00": "accepted",
            "2026-02-29T12:00:00Z": "time.unreadable", "1712103021230": "time.unreadable",
            "9999-12-31T23:59:59-14:00": "time.in_future",
        }  # fmt: skip
        way.fill(*({"bought_at": text} for text in times), bought_at="text")
        check(way, *times.values())
        moment = int((NOW - timedelta(hours=3)).timestamp())
        assert way.event("o-101")["event_time"] == moment


class TestKeys:
    @pytest.mark.matrix("S8")
    def test_rows_of_one_key_are_all_held_and_counted(self, way: Way) -> None:
        way.fill(
            *[{"order_id": "same", "email": "jane@shop.example"}] * 1_000,
            {"order_id": "twice", "amount": "1"}, {"order_id": " twice ", "amount": "2"},
            {"order_id": "Case"}, {"order_id": "case"},
        )  # fmt: skip
        check(way, *["key.duplicate"] * 1_002, "accepted", "accepted")

    @pytest.mark.matrix("S9")
    def test_a_row_of_nothing_is_held_for_the_first_thing_it_lacks(
        self, way: Way
    ) -> None:
        nothing = dict.fromkeys(TYPES, None) | {"loaded_at": NOW}
        agreed = nothing | {"order_id": "a", "consent": "yes"}
        way.fill(
            nothing, nothing, nothing | {"order_id": "no"}, agreed,
            agreed | {"order_id": "b", "bought_at": NOW},
            agreed | {"order_id": "c", "bought_at": NOW, "amount": "1"},
            {"order_id": ""}, {"order_id": "null"}, {"email": "N/A", "customer_id": "null"},
        )  # fmt: skip
        check(
            way, "key.missing", "key.missing", "consent.not_given", "time.missing",
            "value.missing", "match_keys.none", "key.missing", "key.missing",
            "match_keys.none",
        )  # fmt: skip

    @pytest.mark.matrix("S11")
    @pytest.mark.parametrize("rows", [0, 1, 999, 1_000, 1_001])
    def test_batches_end_where_meta_wants_them_to(self, way: Way, rows: int) -> None:
        way.fill(*[{}] * (max(rows, SOUND_ROWS) - SOUND_ROWS))
        way.execute(f"delete from shop.orders where ctid in (select ctid from shop.orders "
                    f"limit {max(0, SOUND_ROWS - rows)})")  # fmt: skip
        tally = way.deliver()
        assert (tally.accepted_now, tally.requests) == (rows, -(-rows // 1_000))
        assert way.bench.receipts().total() == rows

    @pytest.mark.matrix("S15")
    def test_an_address_as_a_key_is_written_nowhere(
        self, way: Way, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        way.fill(
            {"order_id": "Jane.Doe@qxz.example"}, {"order_id": " jane.doe@qxz.example "},
            {"event_id": "jane.doe@qxz.example"}, {"order_id": "order@7"},
        )  # fmt: skip
        check(way, "key.personal", "key.personal", "event_id.personal", "accepted")
        tables = way.bench.sql(
            "select table_name from information_schema.tables where table_schema = 'capi'"
        )
        for (table,) in tables:
            rows = way.bench.sql(f"select t::text from capi.{table} t")
            assert "qxz" not in repr(rows).lower(), table
        assert "qxz" not in caplog.text.lower()
        assert "qxz" not in json.dumps(way.posted).lower()

    @pytest.mark.matrix("S15")
    def test_an_address_has_the_same_name_when_it_is_read_again(self, way: Way) -> None:
        way.fill({"order_id": "jane@shop.example"})
        way.deliver()
        first = way.fates()
        way.deliver()
        assert way.fates() == first


class TestBatches:
    @pytest.mark.matrix("S12")
    def test_one_event_a_second_too_old_poisons_no_batch(self, way: Way) -> None:
        way.fill(
            *[{}] * (999 - SOUND_ROWS),
            {"bought_at": NOW - timedelta(days=62, seconds=1)},
        )
        tally = way.deliver()
        assert (tally.accepted_now, tally.requests, tally.splits) == (999, 1, 0)
        assert way.bench.reasons() == {"window.over": 1}


class TestConsent:
    @pytest.mark.matrix("S14", "X41")
    def test_what_is_withdrawn_between_plan_and_request_is_not_sent(
        self, way: Way
    ) -> None:
        way.fill({}, {})
        (shard,) = way.source.shards(way.interval, 250_000)
        assert shard.rows == SOUND_ROWS + 2
        way.execute("update shop.orders set consent = 'no' where order_id = 'o-100'")
        check(way, "consent.not_given", "accepted")

    @pytest.mark.matrix("S14", "X41")
    def test_what_is_withdrawn_while_it_waits_is_not_sent(self, way: Way) -> None:
        way.fill({}, {})
        way.deliver(limit=0)
        assert Counter(way.fates().values()) == {"limit": SOUND_ROWS + 2}
        way.execute("update shop.orders set consent = null where order_id = 'o-101'")
        check(way, "accepted", "consent.not_given")


@pytest.mark.matrix("S2")
def test_what_no_postgresql_holds_reaches_neither_the_ledger_nor_the_wire(
    bench: Bench,
) -> None:
    """Other warehouses give NUL, half surrogate pairs and bytes: each row is built."""
    evils = ["\0", "a\0b", "\ud800", "a\udfffb", b"\xff", b"\xc3\x28"]
    columns = bench.rows(*range(5 * len(evils)))
    for start, evil in enumerate(evils):
        for place, name in enumerate(("order_id", "event_id", "email", "amount")):
            columns[name][5 * start + place] = evil
    tally = bench.deliver(columns)
    each = {"text.unreadable": 2, "match_keys.none": 1, "value.unreadable": 1}
    assert tally.rows == 5 * len(evils)
    assert bench.reasons() == {reason: n * len(evils) for reason, n in each.items()}
    assert bench.receipts().total() == len(evils)


@pytest.mark.matrix("S1")
def test_an_enormous_row_takes_no_more_memory_than_it_is(bench: Bench) -> None:
    columns = bench.rows(*range(50))
    huge = "x" * 10**7
    for name in ("order_id", "event_id", "email", "amount"):
        columns[name][7] = huge
    built = Builder(
        bench.feed, dataset_id=DATASET, digest_key=bytes(32), today=date(2026, 11, 20)
    ).build(columns, int(NOW.timestamp()))
    assert sum(len(body) for body in built.bodies if body) < 50_000
    assert max(map(len, built.source_keys)) < 100
