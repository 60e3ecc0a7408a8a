"""Feeds made at random out of every word of the feed language, and rows for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import yaml
from tests.fuzz.values import Cell, Values

from meta_capi import spec
from meta_capi.feed import Feed, load_all, parse

SHIPPED: Final = Path(__file__).resolve().parents[2] / "include" / "feeds"
_PATTERNS: Final = ("timestamp", "timestamp", "epoch_seconds", "epoch_milliseconds",
                    "%d.%m.%Y %H:%M", "%Y%m%dT%H%M%S%z", "%m/%d/%Y %I:%M %p")  # fmt: skip
_ZONES: Final = ("UTC", "Europe/Zurich", "America/St_Johns", "Pacific/Kiritimati")
_SOURCES: Final = ("physical_store", "phone_call", "email", "chat", "other")


def shipped() -> list[Feed]:
    """Return the feeds of the project."""
    return list(load_all(SHIPPED).values())


def _alerts(chance: Random) -> dict[str, Any]:
    shares = ("quarantined_share", "refused_share", "unusual_share")
    counts = ("least_rows", "empty_days", "least_usual", "in_doubt", "expiring")
    times = (
        "in_doubt_after", "expiring_within", "token_expires_within",
        "graph_version_within", "remind_after",
    )  # fmt: skip
    return {
        **{name: chance.choice((None, 0.1, 1)) for name in shares},
        **{name: chance.choice((None, 1, 14)) for name in counts},
        **{name: chance.choice((None, "30m", "7d")) for name in times},
        "failures": chance.choice((None, False)),
    }


def document(chance: Random) -> dict[str, Any]:
    """Return a right feed as data: any option, on or off."""

    def maybe(value: Any) -> Any:
        return value if chance.random() < 0.5 else None

    crm = chance.random() < 0.35
    name = chance.choice(("Purchase", "Purchase", "Lead", 'Größe "XL" \\ 🎉'))
    won = chance.choice(("Converted", "Purchase", 'W"on ü'))
    sells = "Purchase" in ((won,) if crm else (name,))
    event = {
        "action_source": "system_generated" if crm else chance.choice(_SOURCES),
        "time": _moment(chance, "at"),
        "id": maybe("ident"),
        "name": None if crm else name,
        "stages": _stages(chance, won) if crm else None,
    }
    custom: dict[str, Any] = {
        **{name: maybe(_text(chance, name)) for name in spec.CUSTOM_DATA_TEXT_KEYS},
        "contents": maybe(chance.choice(("items", {"column": "items"}))),
        "properties": maybe({"shop": "p_shop", "num_Items9": {"column": "p_items"}}),
    }
    if sells or chance.random() < 0.6:
        default = chance.choice((None, "EUR", "JPY"))
        custom["currency"] = {
            "column": maybe("currency") if default else "currency", "default": default
        }  # fmt: skip
        custom["value"] = {"column": "amount", "decimal_mark": chance.choice(".,")}
        custom["net_revenue"] = maybe("net")
        custom["predicted_ltv"] = maybe({"column": "ltv", "decimal_mark": ","})
    hold = event["action_source"] == "physical_store" and not custom["order_id"]
    table = chance.random() < 0.7
    return _filled({
        "feed": "fuzzed_feed",
        "description": "A feed made by the fuzzer.",
        "owner": maybe("nobody"),
        "schedule": "5 * * * *",
        "start_date": "2026-01-01",
        "lookback": maybe(3),
        "catch_up": maybe(False),
        "alerts": _alerts(chance),
        "connections": maybe({"warehouse": "w", "ledger": "l", "meta": "m"}),
        "source": {
            "table": "shop.rows" if table else None,
            "sql": None if table else "rows.sql",
            "key": chance.choice((["key_1"], ["key_1"], ["key_1", "key_2"])),
            "cursor": {"column": "known_at", "timezone": maybe(chance.choice(_ZONES))},
        },
        "event": event,
        "user_data": _people(chance),
        "custom_data": custom,
        "consent": chance.choice((
            {"column": "agreed", "granted": [True, "granted", 7]},
            {"column": "agreed"},
            {"not_required_because": "The fuzzer has no customers."},
        )),
        "limited_data_use": maybe(
            {"column": "limited", "values": maybe([True, "ldu"]), "state": maybe("us_state")}
        ),
        "opt_out": maybe({"column": "opted_out", "values": maybe([True, "out"])}),
        "retention": maybe("100d"),
        "quality": maybe({
            "suite": "s", "max_quarantined_share": 0.5, "tolerated_rows": 0, "min_rows": 1,
        }),
        "window": maybe({"margin": chance.choice(("0s", "90m", "1d")), "days": maybe(3)}),
        "holding_period": maybe("2h"),
        "on_in_doubt": "hold" if hold else maybe("resend"),
        "limits": maybe({
            "events_per_request": 77, "bytes_per_request": 100_000, "requests_in_flight": 2,
            "rows_per_shard": 1_000, "rows_per_slice": 100, "requests_per_split": 8,
            "in_doubt_resends": 0,
        }),
    })  # fmt: skip


def made(chance: Random) -> Feed:
    """Return a feed that went through YAML, as every feed does."""
    return parse(yaml.safe_dump(document(chance), allow_unicode=True))


def _moment(chance: Random, column: str) -> dict[str, Any]:
    format_ = chance.choice(_PATTERNS)
    zone = chance.choice(_ZONES) if "%" in format_ or chance.random() < 0.5 else None
    return {"column": column, "format": format_, "timezone": zone}


def _stages(chance: Random, won: str) -> dict[str, Any]:
    return {
        "column": "stage",
        "map": {"new": "Initial Lead", "won": won},
        "ignore": ["lost"],
        "lead_created": _moment(chance, "made_at"),
        "crm": 'In-house "CRM" é',
    }


def _text(chance: Random, name: str) -> Any:
    constant = {"content_type": "product", "delivery_category": "in_store"}.get(
        name, "as é\n"
    )
    return chance.choice((f"t_{name}", {"column": f"t_{name}"}, {"constant": constant}))


def _people(chance: Random) -> dict[str, Any]:
    keys = [*spec.DIGESTED_KEYS, *spec.PLAIN_KEYS]
    chosen = {"em", *chance.sample(keys, chance.randrange(1, 12))}
    people: dict[str, Any] = {key: f"u_{key}" for key in keys if key in chosen}
    options: dict[str, Any] = {
        "country": {"column": chance.choice(("u_country", None)), "default": "CH"},
        "ph": {"column": "u_ph", "default_country": "US"},
        "db": {"column": "u_db", "format": "%d.%m.%Y"},
        "external_id": {
            "column": "u_external_id", "mode": chance.choice(("trimmed", "raw", "normalised"))
        },
    }  # fmt: skip
    return people | {
        key: part
        for key, part in options.items()
        if key in people and chance.random() < 0.6
    }


def _filled(data: Any) -> Any:
    """Leave out what was not chosen."""
    if not isinstance(data, dict):
        return data
    return {key: _filled(value) for key, value in data.items() if value is not None}


# --- rows -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a feed, and what the feed takes it for."""

    name: str
    role: str
    detail: Any = None


def columns_of(feed: Feed) -> list[Column]:
    """Return the columns of a feed, each by its first role."""
    known: dict[str, Column] = {}
    for column in _roles(feed):
        known.setdefault(column.name, column)
    return [known[name] for name in feed.columns]


def _roles(feed: Feed) -> Iterator[Column]:
    yield from (Column(name, "key") for name in feed.source.key)
    yield Column(feed.source.cursor.column, "cursor")
    yield Column(feed.event.time.column, "time", feed.event.time)
    if feed.event.id:
        yield Column(feed.event.id, "ident")
    if stages := feed.event.stages:
        yield Column(stages.column, "stage", [*stages.map, *stages.map, *stages.ignore])
        yield Column(stages.lead_created.column, "created", stages.lead_created)
    for key, part in feed.user_data.items():
        if part.column:
            yield Column(part.column, f"user:{key}", part.format or part.mode)
    custom = feed.custom_data
    for name in spec.CUSTOM_DATA_AMOUNT_KEYS:
        if amount := getattr(custom, name):
            yield Column(amount.column, "amount", amount.decimal_mark)
    if custom.currency and custom.currency.column:
        yield Column(custom.currency.column, "currency")
    for name in spec.CUSTOM_DATA_TEXT_KEYS:
        if (text := getattr(custom, name)) and text.column:
            yield Column(text.column, f"text:{name}")
    if custom.contents:
        yield Column(custom.contents.column, "contents")
    for ref in custom.properties.values():
        yield Column(ref.column, "text:property")
    for part in (feed.consent, feed.limited_data_use, feed.opt_out):
        if part and part.column:
            yield Column(part.column, "consent" if part is feed.consent else "flag")
    if feed.limited_data_use and feed.limited_data_use.state:
        yield Column(feed.limited_data_use.state, "state")


def row(
    values: Values, columns: list[Column], feed: Feed, hostility: float
) -> list[Cell]:
    """Return a row; each of its values is hostile with this probability."""
    chance = values.chance
    cells = []
    for column in columns:
        if chance.random() >= hostility:
            cells.append(_sound(values, column, feed))
        elif (
            column.role[5:] in spec.DIGESTED_KEYS
            and column.detail != "raw"
            and (chance.random() < 0.3)
        ):
            cells.append(values.traced())
        else:
            cells.append(Cell(values.hostile(column.role)))
    return cells


def _sound(values: Values, column: Column, feed: Feed) -> Cell:
    chance, kind = values.chance, column.role.partition(":")[0]
    oldest = int((feed.longest_window - feed.window.margin).total_seconds())
    match kind:
        case "key" | "ident":
            return Cell(values.key())
        case "cursor":
            return Cell(values.cursor())
        case "time":
            return Cell(
                values.moment(column.detail.format, column.detail.timezone, oldest)
            )
        case "created":
            made = column.detail
            any_time = values.moment(made.format, made.timezone, oldest)
            return Cell(None if chance.random() < 0.7 else any_time)
        case "stage":
            return Cell(chance.choice(column.detail))
        case "user":
            if chance.random() < 0.1:
                return Cell(None)
            return values.person(column.role[5:], column.detail)
        case "amount":
            return Cell(values.amount(column.detail))
        case "currency":
            return Cell(values.currency())
        case "contents":
            return Cell(values.contents() if chance.random() < 0.8 else None)
        case "consent":
            return Cell(
                chance.choice((True, True, True, "yes", "Granted", 1, False, None))
            )
        case "flag":
            return Cell(
                chance.choice((False, False, True, "yes", "out", "ldu", None, 0))
            )
        case "state":
            return Cell(chance.choice(("CA", "california", " Texas", "NY", None)))
    name = column.role[5:]
    closed = {
        "content_type": spec.CONTENT_TYPES,
        "delivery_category": spec.DELIVERY_CATEGORIES,
    }
    return Cell(chance.choice(closed[name]) if name in closed else values.text())


@dataclass(frozen=True, slots=True)
class Rows:
    """A slice of rows, as the builder takes it, and what is known of its values."""

    of: list[Column]
    cells: list[list[Cell]]

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return [column.name for column in self.of]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The slice, in columns."""
        return self.only(range(len(self.cells)))

    def only(self, rows: Any) -> dict[str, list[Any]]:
        """Return some rows, in this order."""
        return {
            name: [self.cells[number][place].value for number in rows]
            for place, name in enumerate(self.names)
        }


def rows(feed: Feed, chance: Random, count: int) -> Rows:
    """Return so many rows: most sound, some spoilt, some hostile all over."""
    values, columns = Values(chance), columns_of(feed)
    cells = [
        row(values, columns, feed, chance.choices((0.0, 0.06, 0.9), (55, 37, 8))[0])
        for _ in range(count)
    ]
    for number, each in enumerate(cells):
        fate = chance.random()
        if fate < 0.01 and number:  # a repeated row, or a repeated key
            earlier = cells[chance.randrange(number)]
            cells[number] = list(earlier) if fate < 0.005 else [earlier[0], *each[1:]]
        elif fate < 0.0101:
            each[chance.randrange(len(each))] = Cell(values.huge())
    return Rows(columns, cells)
