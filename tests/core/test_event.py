"""A row becomes an event, or is held with a reason; the oracle says which."""

from __future__ import annotations

import gc
import json
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests import strategies
from tests.oracle import NAMESPACE, Fate, Oracle
from tests.strategies import SETTINGS
from tests.vectors import TODAY

from meta_capi import names, spec
from meta_capi.built import Built
from meta_capi.catalogue import REASONS, Effect
from meta_capi.data import records
from meta_capi.event import Builder
from meta_capi.feed import Feed
from meta_capi.lifecycle import State
from meta_capi.payload import Envelope, OwedEvent

NOW = 1_795_200_000  # 2026-11-20 18:40 UTC, as in our reference's golden payloads
DATASET = "1234567890"
SECRET = bytes(range(32))
DAY = 86_400

Columns = dict[str, list[Any]]


def builder(feed: Feed) -> Builder:
    return Builder(feed, dataset_id=DATASET, digest_key=SECRET, today=TODAY)


def oracle(feed: Feed) -> Oracle:
    return Oracle(feed, DATASET, SECRET, TODAY)


def fates(built: Built) -> list[Fate]:
    """Turn columns into rows."""
    return [
        Fate(
            source_key=built.source_keys[row],
            cursor=built.cursors[row],
            event_name=built.event_names[row],
            state=built.states[row].value,
            reason=built.reasons[row],
            event_id=built.event_ids[row],
            event_time=built.event_times[row],
            not_before=built.not_before[row],
            mask=built.masks[row],
            value=built.values[row],
            currency=built.currencies[row],
            body=built.bodies[row],
            digest=built.digests[row],
        )
        for row in range(len(built))
    ]


# --- feeds and rows -------------------------------------------------------------------


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


_RECENT = {
    "timestamp": [
        at(NOW - 10_000), at(NOW - 20_000), at(NOW), at(NOW - 9_000).isoformat(),
        "2026-11-20T12:00:00+01:00",
        at(NOW - 8_000).astimezone(timezone(timedelta(hours=14))),
    ],
    "epoch_seconds": [NOW - 10_000, str(NOW - 9_000), Decimal(NOW), NOW - 8_000.5],
    "epoch_milliseconds": [(NOW - 10_000) * 1_000, f"{NOW - 9_000}500"],
}  # fmt: skip
_TIMES = [
    "2026-11-20 12:00:00", datetime(2026, 11, 20, 12), date(2026, 11, 20),  # noqa: DTZ001
    at(NOW - 3_600), at(NOW - 2 * 3_600), at(NOW - 2 * 3_600 + 1),
    at(NOW + 60), at(NOW + 61), at(NOW - DAY + 6 * 3_600), at(NOW - DAY - 1),
    at(NOW - 7 * DAY), at(NOW - 7 * DAY - 1), at(NOW - 60 * DAY), at(NOW - 63 * DAY),
    datetime(9999, 12, 31, 23, 59, 59), datetime.max.replace(tzinfo=UTC),  # noqa: DTZ001
    datetime(1, 1, 1), "0001-01-01T00:00:00+14:00", "2026-03-29T02:30:00",  # noqa: DTZ001
    NOW - 60, NOW * 1_000, float(NOW - 60), 10**400, float("nan"), "20.11.2026 12:00",
    "yesterday", "", None, True, "\ud800", b"\xff",
]  # fmt: skip
_KEYS = [
    "a", "b", " b ", "c", "d", "e", 1, 1.0, True, "1", "a|b", "a%7Cb", "a#dup2", "Zürich",
    "", None, "NULL", "x" * 128, "x" * 129, "x" * 3_000, "\0", "\ud800", 10**5_000,
    Decimal("7.50"), uuid.UUID(int=7),
]  # fmt: skip
_FLAGS = [
    True, True, "yes", "Yes ", "1", 1, 1.0, Decimal(1), "granted", False, "no", 0, "none",
    None, "", b"yes", float("nan"), "\ud800", 10**5_000,
]  # fmt: skip
_COUNTRIES = [
    "us", "DE", "Schweiz", "Switzerland", " ch ", "NULL", "", None, "Narnia", 756,
    "de;at", object(), "\0", b"gb", "ab" * 32,
]  # fmt: skip
_AMOUNTS = [
    "12.50", 12, 12.5, Decimal("0.005"), "0", Decimal("123456789012345.678"), 1e14,
    "12,50", "-1", -1, "", None, True, float("nan"), float("inf"), Decimal("NaN"),
    "Infinity", 10**400, 10**5_000, "1e3", "$5", b"7",
]  # fmt: skip
_CURRENCIES = ["USD", "eur", "JPY", "KWD", "CLF", "", None, "$", "XXX", 978, b"CHF"]
_CONTENTS = [
    '[{"id":"sku-1","quantity":1,"item_price":142.52}]',
    [{"id": 7, "quantity": Decimal("1.50"), "title": "Ünï \0 \"quoted\"", "x": 1}],
    [{"id": "a", "quantity": 2}, {"id": "b", "quantity": 1, "brand": None}],
    b'[{"id":"bytes","quantity":3}]', "[]", "null", " ", "", None, "x", "{}", "[1]", 5,
    "\xff", b"\xff", '[{"id":"","quantity":1}]', '[{"quantity":1}]', '[{"id":"a"}]',
    '[{"id":1.5,"quantity":1}]', '[{"id":true,"quantity":1}]', '[{"id":"a","quantity":0}]',
    '[{"id":["a"],"quantity":1}]', '[{"id":"a","quantity":NaN}]',
    '[{"id":"a","quantity":Infinity}]', '[{"id":"a","quantity":true}]',
    '[{"id":"a","quantity":1,"title":"\\ud800"}]', "[" * 100_000,
    [{"id": "a", "quantity": Decimal("NaN")}], [{"id": 10**5_000, "quantity": 1}],
    [{"id": "a", "quantity": 1, "title": object()}],
    [{"id": "a", "quantity": 1, "title": "x" * 70_000}], '[{"id":"a","quantity":"2"}]',
]  # fmt: skip
_TEXTS = [
    "10001",
    " 7 ",
    'a "b"\\ \n\u2028é',
    5,
    5.0,
    "",
    None,
    "\0",
    "x" * 2_001,
    1e17,
]
_STAGES = ["new", "won", " new", "lost", "", None, "other", 1, "\0"]
_STATES = ["CA", "ca", "California", "Texas", "NY", "", None, 7, "\0"]
_PEOPLE: dict[str, list[Any]] = {
    "em": ["mary@example.com", " Mary@Example.com", "a@b.co;c@d.co", "jane@localhost",
           "ab" * 32, "AB" * 32 + ".AQQCAQMC", "ab" * 16, spec.EMPTY_STRING_SHA256],
    "ph": ["+1 650 555 1212", "(650)555-1212", 16505551212.0, "079 123 45 67", 41791234567,
           "+41 79 123 45 67 ext 9", "1.6505551212E+10"],
    "fn": ["Mary", "정", "Vale\u0301ry", "Valéry", "--", "İ"],
    "ln": ["O'Brien", "MÜLLER", "MU\u0308LLER", " "],
    "db": ["1997-02-16", date(1997, 2, 16), datetime(1997, 2, 16), "16.02.1997",  # noqa: DTZ001
           19970216, "1997-02-31", date(2030, 1, 1)],
    "ge": ["f", "Male", "x", 1],
    "ct": ["New York", "São Paulo", "123"],
    "st": ["California", "CA", "Bayern", "12"],
    "zp": ["10001-1234", 10001, 10001.0, "8001", "M1 1AE", "1"],
    "external_id": ["User 42", "a;b", 42, 42.0, True, "x" * 513, uuid.UUID(int=9)],
    "client_ip_address": ["168.212.226.204", "2001:db8::1", "10.0.0.1"],
    "client_user_agent": ["Mozilla/5.0 (X11)", 'a"b\\c', "a\x07"],
    "fbc": ["fb.1.1554763741205.AbCdEfGhIj", "AbC"],
    "fbp": ["fb.1.1596403881668.1116446470", "1116446470"],
    "subscription_id": ["sub_1", "ü\"", "a\x07"],
    "fb_login_id": ["10158000000000000", 10158000000000000, "1e16", 0],
    "lead_id": ["1234567890123456", 1234567890123456, 1.2345678901234567e16, "0" * 16],
    "madid": ["38400000-8CF0-11BD-B23E-10B96E40000D", uuid.UUID(int=0), "x"],
}  # fmt: skip


_LOADED = [at(NOW), datetime(2026, 11, 20, 3), date(2026, 11, 20)]  # noqa: DTZ001
# What a column holds in most rows, and what it holds in some.
_USUAL: dict[str, list[Any]] = {
    "stage": ["new", "won", " new "], "consent": [True, "yes"],
    "ident": [None, ""], "ldu": [True, False], "out": [False, "none"],
    "state": ["CA", "California", "tx"], "country": ["us", "DE", "Switzerland"],
    "amount": ["12.50", 12, 12.5, Decimal("0.005"), Decimal("123456789012345.678")],
    "currency": ["USD", "eur", "JPY", "KWD"], "contents": _CONTENTS[:4],
    "text": _TEXTS[:5], "loaded": _LOADED,
}  # fmt: skip
_ODD: dict[str, list[Any]] = {
    "key": _KEYS, "at": _TIMES, "made": _TIMES, "stage": _STAGES, "consent": _FLAGS,
    "ident": _KEYS, "ldu": _FLAGS, "out": _FLAGS, "state": _STATES,
    "country": _COUNTRIES, "amount": _AMOUNTS, "currency": _CURRENCIES,
    "contents": _CONTENTS, "text": _TEXTS,
}  # fmt: skip


def usual(feed: Feed, column: str, row: int) -> st.SearchStrategy[Any]:
    kind, _, rest = column.partition("_")
    if kind == "key":
        return st.just(f"{column}-{row}")
    if kind == "at":
        return st.sampled_from(_RECENT[feed.event.time.format])
    if kind == "made":
        return st.sampled_from([at(NOW - 30_000), None])
    return st.sampled_from(_USUAL[kind] if kind in _USUAL else _PEOPLE[rest])


def odd(column: str) -> st.SearchStrategy[Any]:
    kind, _, rest = column.partition("_")
    if kind == "loaded":
        return st.sampled_from(_LOADED)
    known = st.sampled_from(_ODD[kind] if kind in _ODD else _PEOPLE[rest])
    return st.none() | known | known | strategies.database_values


def _maybe(draw: st.DrawFn, value: Any) -> Any:
    return value if draw(st.booleans()) else None


@st.composite
def feeds(draw: st.DrawFn) -> Feed:
    """Any feed: every option, on and off."""
    pick = st.sampled_from
    crm = draw(st.booleans())
    source = draw(pick(["physical_store", "phone_call", "email", "other"]))
    moment = {
        "format": draw(
            pick(["timestamp"] * 5 + ["epoch_seconds", "epoch_milliseconds"])
        ),
        "timezone": draw(pick([None, "Europe/Zurich", "UTC"])),
    }
    event: dict[str, Any] = {
        "action_source": "system_generated" if crm else source,
        "time": {"column": "at", **moment},
        "id": draw(pick([None, None, "ident"])),
    }
    if crm:
        event["stages"] = {
            "column": "stage",
            "map": {"new": "Initial Lead", "won": draw(pick(["Purchase", 'W"on ü']))},
            "ignore": ["lost"],
            "lead_created": {"column": "made", **moment},
            "crm": 'In-house "CRM"',
        }
    else:
        event["name"] = draw(pick(["Purchase", "Purchase", "Lead", 'Größe "XL"']))
    keys = draw(st.lists(pick(sorted(_PEOPLE)), min_size=1, max_size=5, unique=True))
    keys += draw(pick([[], ["em"], ["ph"], ["lead_id"]]))
    people: dict[str, Any] = {key: {"column": f"u_{key}"} for key in keys}
    if draw(st.booleans()):
        people["country"] = {
            "column": draw(pick(["country", None])),
            "default": draw(pick(["US", "CH"])),
        }
    elif draw(st.booleans()):
        people["country"] = "country"
    if "ph" in people:
        people["ph"]["default_country"] = draw(pick([None, "CH"]))
    if "db" in people:
        people["db"]["format"] = draw(pick([None, "%d.%m.%Y"]))
    if "external_id" in people:
        people["external_id"]["mode"] = draw(pick([None, "trimmed", "raw"]))
    custom: dict[str, Any] = {"order_id": _maybe(draw, "text_order")}
    sold = "Purchase" in (event.get("name"), crm and event["stages"]["map"]["won"])
    if sold or draw(st.booleans()):
        default = draw(pick([None, "EUR"]))
        column = draw(pick(["currency", None])) if default else "currency"
        custom |= {
            "currency": {"column": column, "default": default},
            "value": {"column": "amount", "decimal_mark": draw(pick([".", ","]))},
            "net_revenue": _maybe(draw, "amount_net"),
        }
    custom |= {
        "content_name": _maybe(draw, "text_name"),
        "delivery_category": _maybe(draw, {"constant": "in_store"}),
        "contents": _maybe(draw, "contents"),
        "properties": draw(pick([{}, {"shop": "text_shop"}])),
    }
    consent: dict[str, Any] = {"not_required_because": "The tests say that none is."}
    if draw(st.booleans()):
        granted = draw(pick([[True], [True, "granted"], ["yes", 1, True]]))
        consent = {"column": "consent", "granted": granted}
    parts: dict[str, Any] = {
        "feed": "any_feed",
        "description": "A feed made by a test.",
        "schedule": "0 * * * *",
        "start_date": "2026-01-01",
        "source": {
            "table": "shop.rows",
            "key": draw(pick([["key_1"], ["key_1"], ["key_1", "key_2"]])),
            "cursor": {"column": "loaded", "timezone": draw(pick(["UTC", "Asia/Tokyo"]))},
        },
        "event": event,
        "user_data": people,
        "custom_data": custom,
        "consent": consent,
        "limited_data_use": _maybe(
            draw, {"column": "ldu", "state": draw(pick([None, "state"]))}
        ),
        "opt_out": _maybe(draw, {"column": "out", "values": [True, "none"]}),
        "window": {
            "margin": draw(pick(["0s", "6h"])),
            "days": draw(pick([None, 1])),
        },
        "holding_period": draw(pick(["0s", "0s", "2h"])),
        "on_in_doubt": "hold",
    }  # fmt: skip
    return Feed.model_validate(parts)


@st.composite
def slices(draw: st.DrawFn, feed: Feed, most: int = 6) -> Columns:
    """Rows of such a feed, in columns: sound ones, of which some are spoilt."""
    rows = draw(st.integers(0, most))
    columns = {
        name: [draw(usual(feed, name, row)) for row in range(rows)]
        for name in feed.columns
    }
    spots = st.tuples(st.sampled_from(feed.columns), st.integers(0, max(0, rows - 1)))
    for name, row in draw(st.lists(spots, max_size=2 * rows)):
        columns[name][row] = draw(odd(name))
    return columns


class TestAgainstTheOracle:
    """The columns say of every row what the plain row-by-row builder says."""

    @SETTINGS
    @given(data=st.data())
    def test_columns_and_rows_agree_on_every_byte_and_reason(
        self, data: st.DataObject
    ) -> None:
        """With one Builder for all slices: what it remembers changes nothing."""
        feed = data.draw(feeds())
        fast, plain = builder(feed), oracle(feed)
        flaws: Counter[str] = Counter()
        for _ in range(data.draw(st.integers(1, 3))):
            columns = data.draw(slices(feed))
            for _ in range(2):
                built = fast.build(columns, NOW)
                flaws += built.flaws
                assert fates(built) == plain.fates(columns, NOW)
                assert flaws == plain.flaws
                check_that_every_row_has_one_fate(built)

    @SETTINGS
    @given(data=st.data())
    def test_where_rows_are_cut_into_slices_changes_no_event(
        self, data: st.DataObject
    ) -> None:
        feed = data.draw(feeds())
        columns = data.draw(slices(feed, most=8))
        rows = len(columns["loaded"])
        for name in [*feed.source.key, "ident"]:  # unique, as a source's keys are
            if name in columns:
                columns[name] = [f"{name}-{row}" for row in range(rows)]
        whole = fates(builder(feed).build(columns, NOW))
        fast, parts = builder(feed), []
        ends = [*sorted(data.draw(st.sets(st.integers(0, rows)))), rows]
        for start, end in zip([0, *ends], ends, strict=False):
            some = {name: cells[start:end] for name, cells in columns.items()}
            parts += fates(fast.build(some, NOW))
        assert parts == whole


def check_that_every_row_has_one_fate(built: Built) -> None:
    assert len(set(built.source_keys)) == len(built)
    sendable = set(built.sendable)
    for row, (reason, state, body) in enumerate(
        zip(built.reasons, built.states, built.bodies, strict=True)
    ):
        assert (reason is None) == (row in sendable) == (body is not None)
        if reason is None:
            assert state is State.PENDING
        else:
            assert REASONS[reason].effect.value == state.value
            assert set(reason) <= set("abcdefghijklmnopqrstuvwxyz_.")
        if body is not None:
            check_that_the_event_is_sound(built, row, body)
    assert set(built.flaws) <= set(REASONS)


def check_that_the_event_is_sound(built: Built, row: int, body: bytes) -> None:
    def no_constant(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    event = json.loads(body, parse_constant=no_constant)
    assert len(body) <= spec.MAX_BYTES_PER_EVENT
    assert event["event_id"] == built.event_ids[row]
    assert type(event["event_time"]) is int
    assert event["event_time"] <= NOW + 60
    assert event["user_data"]
    digested = [event["user_data"].get(key, []) for key in spec.DIGESTED_KEYS]
    for value in (value for values in digested for value in values):
        assert isinstance(value, str)
    custom = event.get("custom_data", {})
    if event["event_name"] == "Purchase":
        assert type(custom["value"]) in (int, float)
    if {"value", "net_revenue"} & set(custom):
        assert len(custom["currency"]) == 3


# --- a row that has everything --------------------------------------------------------


def store(**changes: Any) -> Feed:
    """Return a feed of store purchases, with some of its parts changed."""
    parts: dict[str, Any] = {
        "feed": "store",
        "description": "A feed made by a test.",
        "schedule": "0 * * * *",
        "start_date": "2026-01-01",
        "source": {
            "table": "shop.rows",
            "key": ["order"],
            "cursor": {"column": "loaded"},
        },
        "event": {
            "name": "Purchase",
            "action_source": "physical_store",
            "time": {"column": "at"},
            "id": "ident",
        },
        "user_data": {
            key: f"u_{key}"
            for key in ["em", "ph", "fn", "ln", "db", "ct", "zp", "country", "lead_id"]
        },
        "custom_data": {
            "value": "value",
            "currency": "currency",
            "order_id": "order",
            "contents": "contents",
            "content_type": "kind",
            "delivery_category": "how",
        },
        "consent": {"column": "consent"},
        "limited_data_use": {"column": "ldu", "state": "state"},
    }
    return Feed.model_validate(parts | changes)


SOUND: dict[str, Any] = {
    "order": "ord-1", "loaded": at(NOW), "at": at(NOW - 3_600), "ident": None,
    "u_em": "mary@example.com", "u_ph": None, "u_fn": None, "u_ln": None, "u_db": None,
    "u_ct": None, "u_zp": None, "u_country": None, "u_lead_id": None, "value": "12.50",
    "currency": "USD", "contents": None, "consent": True, "ldu": False, "state": None,
    "kind": None, "how": None, "stage": "new", "made": at(NOW - DAY),
}  # fmt: skip


def build(feed: Feed, *rows: dict[str, Any]) -> Built:
    """Build sound rows with changes, each under a key of its own unless it names one."""
    whole = [SOUND | {"order": f"ord-{n}"} | row for n, row in enumerate(rows)]
    columns = {name: [row[name] for row in whole] for name in feed.columns}
    built = builder(feed).build(columns, NOW)
    assert fates(built) == oracle(feed).fates(columns, NOW)
    check_that_every_row_has_one_fate(built)
    return built


def event_of(built: Built, row: int = 0) -> dict[str, Any]:
    body = built.bodies[row]
    assert body is not None, built.reasons[row]
    event: dict[str, Any] = json.loads(body)
    return event


STORE = store()
LEADS = store(
    event={
        "action_source": "system_generated",
        "time": {"column": "at"},
        "stages": {
            "column": "stage",
            "map": {"new": "Initial Lead", "won": "Converted"},
            "ignore": ["lost"],
            "lead_created": {"column": "made"},
            "crm": "In-house CRM",
        },
    }
)


def timed(**moment: str) -> Feed:
    event = {"name": "Lead", "action_source": "phone_call"}
    return store(event=event | {"time": {"column": "at"} | moment})


def item(**members: Any) -> str:
    return json.dumps([{"id": "a", "quantity": 1} | members])


HELD: list[tuple[str, Feed, dict[str, Any], str]] = [
    ("an empty key", STORE, {"order": None}, "key.missing"),
    ("a blank key", STORE, {"order": " \t"}, "key.missing"),
    ("a key with NUL", STORE, {"order": "a\0"}, "text.unreadable"),
    ("a key of 129 characters", STORE, {"order": "x" * 129}, "key.too_long"),
    ("a key of a million", STORE, {"order": "x" * 10**6}, "text.unreadable"),
    ("a key of 5,000 digits", STORE, {"order": 10**5_000}, "text.unreadable"),
    ("an id of 129 characters", STORE, {"ident": "x" * 129}, "event_id.too_long"),
    ("an address as the key", STORE, {"order": " Mary@Example.com"}, "key.personal"),
    ("an address as the id", STORE, {"ident": "mary@example.com"}, "event_id.personal"),
    ("an id with half a surrogate", STORE, {"ident": "\ud800"}, "text.unreadable"),
    ("an id that lost digits", STORE, {"ident": "1.23E+15"}, "text.unreadable"),
    ("no consent", STORE, {"consent": False}, "consent.not_given"),
    ("consent unknown", STORE, {"consent": None}, "consent.not_given"),
    ("consent that is no yes", STORE, {"consent": "perhaps"}, "consent.not_given"),
    ("no time", STORE, {"at": None}, "time.missing"),
    ("a time that is none", STORE, {"at": "soon"}, "time.unreadable"),
    ("a time without a zone", STORE, {"at": "2026-11-20 12:00"}, "time.no_zone"),
    ("a minute ahead", STORE, {"at": at(NOW + 61)}, "time.in_future"),
    ("milliseconds for seconds", timed(format="epoch_seconds"),
     {"at": (NOW - 60) * 1_000}, "time.not_seconds"),
    ("seconds for milliseconds", timed(format="epoch_milliseconds"),
     {"at": NOW - 60}, "time.not_seconds"),
    ("a number without a unit", STORE, {"at": NOW - 60}, "time.unreadable"),
    ("an hour before the window's end", timed(),
     {"at": at(NOW - 7 * DAY + 3_600)}, "window.over"),
    ("63 days in a store", STORE, {"at": at(NOW - 63 * DAY)}, "window.over"),
    ("before all calendars", STORE, {"at": "0001-01-01T00:00:00+14:00"}, "window.over"),
    ("still to rest", store(holding_period="2h"), {}, "holding"),
    ("no value", STORE, {"value": None}, "value.missing"),
    ("a negative value", STORE, {"value": -1}, "value.negative"),
    ("NaN", STORE, {"value": float("nan")}, "value.not_finite"),
    ("infinity", STORE, {"value": "Infinity"}, "value.not_finite"),
    ("a decimal comma", STORE, {"value": "12,50"}, "value.unreadable"),
    ("a sign of money", STORE, {"value": "$12.50"}, "value.unreadable"),
    ("16 digits", STORE, {"value": 10**15}, "value.too_large"),
    ("no currency", STORE, {"currency": ""}, "currency.missing"),
    ("a wrong currency", STORE, {"currency": "USX"}, "currency.unknown"),
    ("contents that are no JSON", STORE, {"contents": "a,b"}, "contents.unreadable"),
    ("contents that are no list", STORE, {"contents": "{}"}, "contents.unreadable"),
    ("contents of texts", STORE, {"contents": '["a"]'}, "contents.unreadable"),
    ("contents too deep to read", STORE, {"contents": "[" * 99_999},
     "contents.unreadable"),
    ("an item with an endless price", STORE,
     {"contents": '[{"id":"a","quantity":1,"item_price":Infinity}]'},
     "contents.unreadable"),
    ("an item with a price of words", STORE, {"contents": item(item_price="free")},
     "contents.unreadable"),
    ("an item with a negative price", STORE, {"contents": item(item_price=-1)},
     "contents.unreadable"),
    ("an item with an object for a title", STORE, {"contents": item(title={"a": "b"})},
     "contents.unreadable"),
    ("an item with NUL", STORE, {"contents": item(brand="a\0")}, "contents.unreadable"),
    ("an item brought by a drone", STORE, {"contents": item(delivery_category="drone")},
     "contents.unreadable"),
    ("an item too often", STORE, {"contents": item(quantity=10**15)},
     "contents.incomplete"),
    ("an item without id", STORE, {"contents": item(id=None)}, "contents.incomplete"),
    ("an item whose id is a list", STORE, {"contents": item(id=["a"])},
     "contents.incomplete"),
    ("an item without quantity", STORE, {"contents": item(quantity=None)},
     "contents.incomplete"),
    ("none of an item", STORE, {"contents": item(quantity=0)}, "contents.incomplete"),
    ("an item of no number", STORE,
     {"contents": [{"id": "a", "quantity": Decimal("NaN")}]}, "contents.incomplete"),
    ("too large an event in bytes", STORE, {"contents": item(title="é" * 33_000)},
     "event.too_large"),
    ("too large an event", STORE, {"contents": item(title="x" * 64_000)},
     "event.too_large"),
    ("no match key", STORE, {"u_em": None}, "match_keys.none"),
    ("no match key that can be read", STORE, {"u_em": "mary"}, "match_keys.none"),
    ("too broad a match", STORE, {"u_em": None, "u_ct": "Bern", "u_country": "ch"},
     "match_keys.too_broad"),
    ("no stage", LEADS, {"stage": " "}, "stage.missing"),
    ("an unknown stage", LEADS, {"stage": "New"}, "stage.unknown"),
    ("an ignored stage", LEADS, {"stage": "lost"}, "stage.ignored"),
    ("a stage before the lead", LEADS, {"made": at(NOW - 3_599)}, "stage.before_lead"),
]  # fmt: skip

DROPPED: list[tuple[str, dict[str, Any], str]] = [
    ("a number without country", {"u_ph": "079 123 45 67"}, "ph.no_country_code"),
    ("no number", {"u_ph": "call me"}, "ph.not_a_number"),
    ("no address", {"u_em": "jane@localhost", "u_ph": "+41791234567"},
     "em.not_an_address"),
    ("a name of signs", {"u_fn": "--"}, "name.nothing_left"),
    ("a birthday of another format", {"u_db": "16.02.1997"}, "db.unreadable"),
    ("a birthday to come", {"u_db": "2027-01-01"}, "db.out_of_range"),
    ("a city of digits", {"u_ct": "123"}, "ct.nothing_left"),
    ("a short US code", {"u_zp": "2134", "u_country": "us"}, "zp.too_short"),
    ("no country", {"u_country": "Narnia"}, "country.unknown"),
    ("MD5", {"u_fn": "ab" * 16}, "hash.md5"),
    ("the digest of nothing", {"u_fn": spec.EMPTY_STRING_SHA256}, "hash.of_nothing"),
    ("two names in one", {"u_ln": "Smith;Jones"}, "value.several"),
    ("a lead id that a float damaged", {"u_lead_id": 1.2345678901234567e16},
     "value.damaged"),
    ("a lead id that a sheet damaged", {"u_lead_id": "1.23457E+15"}, "value.damaged"),
    ("a lead id with a float's end", {"u_lead_id": "1234567890123456.0"},
     "lead_id.damaged"),
    ("a short lead id", {"u_lead_id": "12345"}, "lead_id.damaged"),
    ("a name with NUL", {"u_fn": "Ma\0ry"}, "value.text_unreadable"),
    ("a name of 10 MB", {"u_fn": "x" * 10**7}, "value.text_unreadable"),
    ("a word that is no content type", {"kind": "shoes"}, "content_type.unknown"),
    ("a delivery by drone", {"how": "drone"}, "delivery_category.unknown"),
    ("limited data use nowhere", {"ldu": True}, "ldu.state_unknown"),
    ("limited data use in New York", {"ldu": True, "state": "NY"}, "ldu.state_unknown"),
]  # fmt: skip


class TestEveryBadInputHasAReason:
    @pytest.mark.parametrize(
        ("feed", "row", "reason"),
        [pytest.param(*line, id=name) for name, *line in HELD],
    )
    def test_a_row_is_held_for_it(
        self, feed: Feed, row: dict[str, Any], reason: str
    ) -> None:
        built = build(feed, {}, row, {})
        fine = "holding" if feed.holding_period else None
        assert built.reasons == [fine, reason, fine]
        assert built.states[1].value == REASONS[reason].effect.value

    @pytest.mark.parametrize(
        ("row", "flaw"), [pytest.param(*line, id=name) for name, *line in DROPPED]
    )
    def test_a_match_key_or_field_stays_at_home_for_it(
        self, row: dict[str, Any], flaw: str
    ) -> None:
        built = build(STORE, {}, row)
        assert built.reasons == [None, None]
        assert built.flaws == {flaw: 1}
        assert REASONS[flaw].effect is Effect.KEY_DROPPED

    @pytest.mark.matrix("S8")
    def test_rows_that_share_a_key_are_all_held(self) -> None:
        same = {"order": "ord-7"}
        built = build(STORE, same, {}, same, {"order": " ord-7 "})
        assert built.reasons == ["key.duplicate", None, *["key.duplicate"] * 2]
        assert built.source_keys == ["ord-7", "ord-1", "ord-7#dup2", "ord-7#dup3"]

    def test_a_key_that_looks_like_a_second_occurrence_is_a_key_of_its_own(
        self,
    ) -> None:
        built = build(STORE, {"order": "a"}, {"order": "a"}, {"order": "a#dup2"})
        assert built.reasons == ["key.duplicate", "key.duplicate", None]
        assert names.split_key(built.source_keys[2]) == ["a#dup2"]
        assert names.split_key(built.source_keys[1]) == ["a"]

    def test_an_event_id_goes_to_the_first_row_that_has_it(self) -> None:
        built = build(STORE, {"ident": "px-1"}, {"ident": " px-1"}, {"ident": "px-2"})
        assert built.reasons == [None, "event_id.taken", None]
        assert built.event_ids == ["px-1", None, "px-2"]

    def test_one_event_id_serves_two_stages_of_a_lead(self) -> None:
        """Meta tells events apart by name and id."""
        feed = store(event=LEADS.event.model_dump(exclude_none=True) | {"id": "ident"})
        rows = [{"ident": "lead-1", "stage": stage} for stage in ("new", "won", "new")]
        assert build(feed, *rows).reasons == [None, None, "event_id.taken"]

    def test_rows_that_share_too_long_a_key_keep_names_of_their_own(self) -> None:
        same = {"order": "x" * 129}
        built = build(STORE, same, same, {"order": "y" * 129})
        assert built.reasons == ["key.too_long"] * 3
        first, second, other = built.source_keys
        assert second == f"{first}#dup2"
        assert other not in (first, second)

    def test_the_first_fault_is_the_reason(self) -> None:
        bad = {"value": "x", "contents": "x", "u_em": None, "at": at(NOW)}
        assert build(STORE, bad).reasons == ["value.unreadable"]
        assert build(STORE, bad | {"at": "x"}).reasons == ["time.unreadable"]

    @pytest.mark.matrix("X41")
    def test_of_a_customer_without_consent_no_match_key_is_read(self) -> None:
        built = build(STORE, {"consent": False, "u_fn": "--"})
        assert built.masks == [0]
        assert not built.flaws

    def test_every_reason_that_a_row_can_have_here_is_in_this_table(self) -> None:
        """What is left is said by the gate, by dispatch, or of keys tested elsewhere."""
        told = {line[-1] for line in HELD} | {"key.duplicate", "event_id.taken"}
        by_others = {
            "gate.failed", "stage.out_of_order", "split.budget", "erased", "row.gone",
        }  # fmt: skip
        held = (Effect.WITHHELD, Effect.QUARANTINED, Effect.EXPIRED)
        assert (
            told - {"holding"}
            == {code for code, each in REASONS.items() if each.effect in held}
            - by_others
        )


class TestWhatIsMended:
    """Not every odd value is a fault: these go out, and as these digests."""

    @pytest.mark.parametrize("number", ["+1 650 555 1212", "16505551212.0", 16505551212.0,
                                        "+1 (650) 555-1212 ext. 9", "1-650-555-1212"])  # fmt: skip
    def test_spellings_of_one_number_are_one_digest(self, number: Any) -> None:
        row = {"u_ph": number, "u_country": "US"}
        assert event_of(build(STORE, row))["user_data"]["ph"] == [
            "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176"
        ]

    @pytest.mark.matrix("S3")
    def test_composed_and_decomposed_letters_are_one_digest(self) -> None:
        built = build(STORE, {"u_ln": "MÜLLER"}, {"u_ln": " Mu\u0308ller "})
        first, second = event_of(built, 0), event_of(built, 1)
        assert first["user_data"]["ln"] == second["user_data"]["ln"]

    @pytest.mark.parametrize("tail", ["", ".AQ", ".AQQCAQMC"])
    def test_what_is_hashed_already_passes_untouched(self, tail: str) -> None:
        ready = (
            "f618787598b5ac2f3518007e7dc8b9b7bf0b6fb04048106d44e8a62511a55982" + tail
        )
        assert event_of(build(STORE, {"u_em": ready}))["user_data"]["em"] == [ready]

    def test_several_addresses_in_one_field_are_all_sent_once(self) -> None:
        row = {"u_em": "mary@example.com; x, MARY@example.com"}
        built = build(STORE, {}, row)
        assert event_of(built, 0)["user_data"] == event_of(built, 1)["user_data"]

    def test_a_time_without_zone_is_read_in_the_declared_one(self) -> None:
        row = {"at": "20.11.2026 12:00"}
        moment = {"format": "%d.%m.%Y %H:%M", "timezone": "Europe/Zurich"}
        built = build(timed(**moment), row)
        assert built.event_times == [1_795_172_400]

    @pytest.mark.parametrize(("value", "sent"), [
        ("0.10", b"0.1"), ("123456789012345.67", b"123456789012345.67"), (0, b"0"),
        (Decimal("1E+2"), b"100"), ("-0", b"0"),
    ])  # fmt: skip
    def test_an_amount_goes_out_as_exactly_that(self, value: Any, sent: bytes) -> None:
        body = build(STORE, {"value": value}).bodies[0]
        assert body is not None
        assert b'"value":' + sent + b',"currency":"USD"' in body

    @pytest.mark.parametrize("code", [row["code"] for row in records("currencies")])
    def test_every_currency_that_a_feed_takes_is_sent_in_either_spelling_of_an_amount(
        self, code: str
    ) -> None:
        money = {"value": "value", "currency": {"default": code}}
        feed = store(custom_data=money | {"order_id": "order"})
        built = build(feed, {"value": "1250"}, {"value": "1'250.00"})
        sent = [event_of(built, row)["custom_data"] for row in (0, 1)]
        assert [each.pop("order_id") for each in sent] == ["ord-0", "ord-1"]
        assert sent == [{"value": 1250, "currency": code}] * 2

    @pytest.mark.parametrize("empty", [None, "", " ", "null", "[]", b""])
    def test_no_contents_are_no_fault(self, empty: Any) -> None:
        event = event_of(build(STORE, {"contents": empty}))
        assert "contents" not in event["custom_data"]

    def test_a_row_that_names_no_country_has_the_feeds(self) -> None:
        """`NULL` names none; what cannot be read may name another one."""
        country = {"column": "u_country", "default": "CH"}
        feed = store(user_data=STORE.user_data | {"country": country})
        rows = [{"u_country": each, "u_ph": "079 123 45 67"}
                for each in (None, " ", "NULL", "Narnia", "\0")]  # fmt: skip
        built = build(feed, *rows)
        read = ["ph" in event_of(built, row)["user_data"] for row in range(5)]
        assert read == [True, True, True, False, False]

    def test_one_spelling_is_read_by_the_country_of_each_row(self) -> None:
        """What is remembered of `CA` in Canada is not said of it in Italy."""
        feed = store(user_data=STORE.user_data | {"st": {"column": "u_ct"}})
        places = [("Ontario", "CA", "2134"), ("Ontario", "US", "2134"),
                  ("Ontario", "AU", "2134")]  # fmt: skip
        built = build(feed, *(
            {"u_ct": state, "u_country": country, "u_zp": code, "u_ph": "020 7946 0958"}
            for state, country, code in places * 2
        ))  # fmt: skip
        sent = [event_of(built, row)["user_data"] for row in range(6)]
        assert sent[:3] == sent[3:]
        states = [each["st"] for each in sent[:3]]
        assert states[0] != states[1] == states[2]
        assert ["zp" in each for each in sent[:3]] == [True, False, True]

    def test_an_id_of_the_source_is_written_as_json(self) -> None:
        odd = 'px-"1"\\\n\u2028é'
        built = build(STORE, {"ident": odd})
        assert built.event_ids == [odd]
        assert event_of(built)["event_id"] == odd

    @pytest.mark.parametrize(("state", "triple"), [
        ("CA", [["LDU"], 1, 1000]), ("california", [["LDU"], 1, 1000]),
        ("tx", [["LDU"], 1, 1005]), ("NY", [["LDU"], 0, 0]), (None, [["LDU"], 0, 0]),
    ])  # fmt: skip
    @pytest.mark.parametrize("flag", [True, "Yes", 1, 1.0, b"true"])
    @pytest.mark.matrix("X41")
    def test_limited_data_use_names_the_state_by_metas_number(
        self, state: str | None, triple: list[Any], flag: Any
    ) -> None:
        event = event_of(build(STORE, {"ldu": flag, "state": state}))
        options = "data_processing_options"
        names = (options, f"{options}_country", f"{options}_state")
        assert [event[name] for name in names] == triple

    @pytest.mark.parametrize("flag", [False, None, "no", 0, "x"])
    def test_without_limited_data_use_nothing_is_said_of_it(self, flag: Any) -> None:
        event = event_of(build(STORE, {"ldu": flag, "state": "CA"}))
        assert not [name for name in event if name.startswith("data_processing")]

    def test_a_word_that_means_nothing_elsewhere_can_be_an_answer(self) -> None:
        feed = store(opt_out={"column": "ldu", "values": ["none"]})
        built = build(feed, {"ldu": "none"}, {"ldu": None})
        assert event_of(built, 0)["opt_out"] is True
        assert "opt_out" not in event_of(built, 1)


class TestBoundaries:
    """The second on which a rule turns."""

    @pytest.mark.parametrize(("age", "reason"), [
        (-61, "time.in_future"), (-60, None), (7 * DAY - 6 * 3_600, None),
        (7 * DAY - 6 * 3_600 + 1, "window.over"),
    ])  # fmt: skip
    def test_of_the_window(self, age: int, reason: str | None) -> None:
        assert build(timed(), {"at": at(NOW - age)}).reasons == [reason]

    def test_of_a_stores_window(self) -> None:
        edge = 62 * DAY - 6 * 3_600
        built = build(STORE, {"at": at(NOW - edge)}, {"at": at(NOW - edge - 1)})
        assert built.reasons == [None, "window.over"]

    @pytest.mark.parametrize(("age", "reason"), [(7_199, "holding"), (7_200, None)])
    def test_of_the_holding_period(self, age: int, reason: str | None) -> None:
        built = build(store(holding_period="2h"), {"at": at(NOW - age)})
        assert built.reasons == [reason]
        assert built.not_before == [NOW - age + 7_200 if reason else None]

    def test_of_the_lead(self) -> None:
        """A stage in the very second of the lead is no earlier stage."""
        moment = at(NOW - 3_600)
        built = build(LEADS, {"at": moment, "made": moment}, {"made": None})
        assert built.reasons == [None, None]

    def test_of_the_key_and_the_id(self) -> None:
        built = build(STORE, {"order": "x" * 128}, {"ident": "y" * 128})
        assert built.reasons == [None, None]

    def test_of_the_events_size(self) -> None:
        body = build(STORE, {"contents": item(title="")}).bodies[0]
        assert body is not None
        room = spec.MAX_BYTES_PER_EVENT - len(body)
        fits, bursts = item(title="x" * room), item(title="x" * (room + 1))
        built = build(STORE, {"contents": fits}, {"contents": bursts})
        assert built.reasons == [None, "event.too_large"]


class TestEventIds:
    @SETTINGS
    @given(
        dataset=st.text("0123456789", min_size=5, max_size=20), key=st.text(max_size=40)
    )
    def test_an_id_is_the_uuid_of_dataset_name_and_key(
        self, dataset: str, key: str
    ) -> None:
        key = key.encode(errors="replace").decode()
        name = f"{dataset}\nPurchase\n{key}"
        assert names.event_id(dataset, "Purchase", key) == str(
            uuid.uuid5(NAMESPACE, name)
        )

    def test_a_corrected_row_is_the_same_event(self) -> None:
        before = build(STORE, {"value": "12.50"})
        after = build(STORE, {"value": "11.00", "u_em": "mary@example.org"})
        assert before.event_ids == after.event_ids
        assert before.digests != after.digests

    @SETTINGS
    @given(
        st.lists(
            st.text("a|%#dup27C32 ", min_size=1, max_size=8), min_size=1, max_size=3
        )
    )
    def test_a_key_of_several_columns_is_found_again(self, parts: list[str]) -> None:
        joined = names.joined_key(parts)
        assert names.split_key(joined) == parts
        assert names.split_key(names.occurrence_key(joined, 2)) == parts

    @SETTINGS
    @given(
        st.lists(
            st.lists(st.text("a|%#dup2", max_size=6), min_size=1, max_size=3),
            max_size=4,
        )
    )
    def test_different_keys_have_different_names(self, keys: list[list[str]]) -> None:
        made = {
            names.occurrence_key(names.joined_key(key), number)
            for key in keys
            for number in (1, 2)
        }
        assert len(made) == 2 * len({tuple(key) for key in keys})


class TestNamelessRows:
    def test_a_row_without_key_has_the_same_name_when_it_is_read_again(self) -> None:
        rows = [{"order": None, "value": each} for each in (1, 2, 1)]
        first, second = build(STORE, *rows), build(STORE, *rows)
        assert first.source_keys == second.source_keys
        one, other, again = first.source_keys
        assert len({one, other, again}) == 3
        assert again == f"{one}#dup2"

    def test_the_name_tells_nothing_without_the_key_of_the_ledger(self) -> None:
        columns = {name: [SOUND[name]] for name in STORE.columns} | {"order": [None]}
        key, today = b"another key" * 2, TODAY
        other = Builder(STORE, dataset_id=DATASET, digest_key=key, today=today)
        mine, theirs = builder(STORE).build(columns, NOW), other.build(columns, NOW)
        assert mine.source_keys != theirs.source_keys


class TestFeedsThatCannotBeBuilt:
    """Meta refuses every event of them, so the feed itself is refused."""

    def test_a_stage_that_is_a_purchase_needs_a_value_and_a_currency(self) -> None:
        stages = LEADS.event.model_dump(exclude_none=True)
        stages["stages"]["map"]["won"] = "Purchase"
        with pytest.raises(ValidationError, match="Meta takes no Purchase without"):
            store(event=stages, custom_data={})

    @pytest.mark.parametrize("name", ["value", "event_source", "lead_event_source"])
    def test_no_property_takes_the_place_of_a_member(self, name: str) -> None:
        """Two members of one name: nobody knows which one a reader takes."""
        with pytest.raises(ValidationError, match="Meta's own name"):
            store(
                custom_data={"properties": {name: "u_em"}},
                event=LEADS.event.model_dump(),
            )


class TestPrivacy:
    """Nothing that a customer is known by leaves in the clear; nothing shows it here."""

    CLEAR = ("fbc", "fbp", "client_ip_address", "client_user_agent", "subscription_id",
             "fb_login_id", "lead_id", "madid")  # fmt: skip

    @pytest.mark.matrix("S2")
    @SETTINGS
    @given(data=st.data(), token=st.text("qxzj", min_size=12, max_size=16))
    def test_no_customers_words_are_in_an_event_a_reason_or_a_repr(
        self, data: st.DataObject, token: str
    ) -> None:
        shapes = [token, f"{token}@pii.example", f"+4179{token}", f" {token.upper()};x",
                  f"{token}\0", f"{token}\ud800", [token], {token: token}]  # fmt: skip
        people = {key: f"u_{key}" for key in spec.DIGESTED_KEYS}
        feed = store(user_data=people)
        row = {
            name: data.draw(st.sampled_from(shapes))
            for name in people.values()
        }  # fmt: skip
        row["u_zp"] = "8001"  # so that some event goes out
        row["u_external_id"] = f"{token}1"
        built = build(feed, row, row | {"order": None}, row | {"value": token})
        event_of(built)
        seen = [
            built.bodies,
            built.reasons,
            built.flaws,
            built.source_keys,
            repr(built),
        ]
        assert token not in repr(seen).lower()

    def test_digests_are_not_shown_either(self) -> None:
        built = build(STORE, {})
        (digest,) = event_of(built)["user_data"]["em"]
        assert digest not in repr(built)
        assert digest not in repr(OwedEvent("ord-1", built.bodies[0] or b""))


def largest_dict(thing: object) -> int:
    """Return the size of the largest dict that an object holds, at any depth."""
    left, seen, largest = [thing], {0}, 0
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType):
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            largest = max(largest, len(each))
        left += gc.get_referents(each)
    return largest


class TestMemory:
    """What a builder remembers is bounded, and never wrong."""

    def test_values_beyond_the_memory_are_read_as_well(self) -> None:
        people = 101_000
        feed = store(user_data={"em": "u_em", "country": "u_country"})
        columns = {name: [SOUND[name]] * people for name in feed.columns}
        columns["order"] = [f"o-{n}" for n in range(people)]
        columns["u_em"] = [f"p{n % 100_500}@example.com" for n in range(people)]
        fast = builder(feed)
        bodies = fast.build(columns, NOW).bodies
        digests = [str(body).partition('"em":["')[2][:64] for body in bodies]
        assert len(set(digests)) == 100_500
        assert digests[100_500:] == digests[:500]
        assert largest_dict(fast) <= 100_000

    @pytest.mark.matrix("S1")
    def test_a_slice_of_enormous_texts_is_built(self) -> None:
        huge = "x" * 10**7
        for name in STORE.columns:
            if name != "loaded":
                assert len(build(STORE, {}, {name: huge}).sendable) >= 1

    def test_no_rows_are_no_events(self) -> None:
        built = builder(STORE).build({name: [] for name in STORE.columns}, NOW)
        assert len(built) == 0
        assert built.sendable == []


class TestGoldenPayloads:
    """Our reference, section 16."""

    def test_the_offline_purchase(self) -> None:
        feed = store(
            user_data={key: f"u_{key}" for key in
                       ["em", "ph", "fn", "ln", "ct", "st", "zp", "country"]},
            custom_data={
                "value": "value", "currency": "currency", "order_id": "order",
                "item_number": "item", "contents": "contents",
            },
            limited_data_use=None,
        )  # fmt: skip
        row = SOUND | {
            "order": 10001, "item": 1, "at": at(NOW), "ident": "ord-10001-1",
            "u_em": "mary.obrien@example.com", "u_ph": "+1 650 555 1212", "u_fn": "Mary",
            "u_ln": "O'Brien", "u_ct": "New York", "u_st": "NY", "u_zp": "10001",
            "u_country": "US", "value": Decimal("142.52"),
            "contents": [{"id": "sku-1", "quantity": 1, "item_price": 142.52}],
        }  # fmt: skip
        built = builder(feed).build({name: [row[name]] for name in feed.columns}, NOW)
        envelope = Envelope(
            partner_agent="capi_airflow_1_0", upload_tag="offline-2026-11-20"
        )
        body = envelope.wrap([OwedEvent("10001", built.bodies[0] or b"")])
        assert body.decode() == (
            '{"data":[{"event_name":"Purchase","event_time":1795200000,'
            '"event_id":"ord-10001-1","action_source":"physical_store","user_data":{'
            '"em":["f618787598b5ac2f3518007e7dc8b9b7bf0b6fb04048106d44e8a62511a55982"],'
            '"ph":["e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176"],'
            '"fn":["6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec"],'
            '"ln":["b4cb6cb33fe4b865868de825023a1e2790dc12ac01ecc8d7c5afe8254071c8ba"],'
            '"ct":["350c754ba4d38897693aa077ef43072a859d23f613443133fecbbd90a3512ca5"],'
            '"st":["1b06e2003f8420d6fa42badd8f77ec0f706b976b7a48b13c567dc5a559681683"],'
            '"zp":["e443169117a184f91186b401133b20be670c7c0896f9886075e5d9b81e9d076b"],'
            '"country":["79adb2a2fce5c6ba215fe5f27f532d4e7edbac4b6a5e09e1ef3a08084a904621"'
            ']},"custom_data":{"value":142.52,"currency":"USD","order_id":"10001",'
            '"item_number":"1","contents":[{"id":"sku-1","quantity":1,'
            '"item_price":142.52}]}}],"partner_agent":"capi_airflow_1_0",'
            '"upload_tag":"offline-2026-11-20"}'
        )

    def test_the_lead_stage(self) -> None:
        feed = store(
            event=LEADS.event.model_dump(exclude_none=True) | {
                "id": "ident",
                "stages": LEADS.event.stages.model_dump()
                | {"map": {"mql": "Marketing Qualified Lead"}},
            },
            user_data={"lead_id": "u_lead_id", "em": "u_em"},
            custom_data={},
            limited_data_use=None,
        )  # fmt: skip
        row = SOUND | {
            "at": at(NOW), "stage": "mql", "ident": "crm-1234567890123456-mql",
            "u_lead_id": "1234567890123456", "u_em": "mary.obrien@example.com",
        }  # fmt: skip
        built = builder(feed).build({name: [row[name]] for name in feed.columns}, NOW)
        assert event_of(built) == {
            "event_name": "Marketing Qualified Lead",
            "event_time": 1795200000,
            "event_id": "crm-1234567890123456-mql",
            "action_source": "system_generated",
            "user_data": {
                "lead_id": 1234567890123456,
                "em": [
                    "f618787598b5ac2f3518007e7dc8b9b7bf0b6fb04048106d44e8a62511a55982"
                ],
            },
            "custom_data": {"event_source": "crm", "lead_event_source": "In-house CRM"},
        }
