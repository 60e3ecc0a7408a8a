"""A feed file drafted from a table's columns, without a look at any row.

A guess is marked in the text, and what nobody can guess is marked as missing. Where a
wrong guess would send what must not be sent, the draft holds the rows back instead.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from meta_capi import spec
from meta_capi.column_names import currency_in, folded, is_in_cents, likeness
from meta_capi.feed.parts import Connections
from meta_capi.picking import MATCH_KEYS, TEXTS, Picks, is_usable
from meta_capi.relation import Kind
from meta_capi.suites import NOT_NULL, UNIQUE

__all__ = ["Draft", "Mark", "draft", "marks"]

_MARK: Final = re.compile(r"^(?: *|[^#]*  )# (?P<kind>guess|missing): (?P<text>.+)$")
_WORD: Final = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+")
# Words that YAML, of one version or the other, does not read as texts.
_YAML_WORDS: Final = frozenset({
    "true", "false", "null", "yes", "no", "on", "off", "y", "n",
})  # fmt: skip
_WIDTH: Final = 88
_MOST_LISTED: Final = 100
_DOUBTS: Final[Mapping[str, str]] = {
    "fn": "by its name; the first name alone, not the whole name?",
    "ln": "by its name; the last name alone, not the whole name?",
    "st": "by its name; a state or province, not the state of an order?",
    "external_id": "by its name; the same id that the Pixel sends?",
    "lead_id": "by its name; Meta's own 15 to 17 digits, not the CRM's number?",
    "client_ip_address": "by its name; the customer's address, not a server's?",
}
_PLACES: Final[Mapping[str, str]] = {
    "physical_store": "store shop pos filial kasse kassa kassen bon bons beleg receipt"
    " branch laden tienda magasin boutique winkel negozio loja caisse caja",
    "phone_call": "call phone anruf telefon hotline llamada appel chiamata",
    "system_generated": "lead crm deal opportunity subscription",
    "chat": "chat",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of a feed file at which a person has something to do."""

    line: int
    is_missing: bool
    text: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A feed file and its suite, as far as columns tell."""

    feed: str
    suite: str


def marks(text: str) -> list[Mark]:
    """Return what is still marked in a feed file."""
    return [
        Mark(number, found["kind"] == "missing", found["text"].strip())
        for number, line in enumerate(text.split("\n"), 1)
        if (found := _MARK.match(line))
    ]


def draft(
    name: str, picks: Picks, today: date, *, warehouse: str = Connections().warehouse
) -> Draft:
    """Draft a feed of this name, which sends from today on, and its suite."""
    sections = (
        _head(name, picks.table.name), _basics(name, picks.table.name, today, warehouse),
        _source(picks), _event(picks), _user_data(picks), _custom_data(picks),
        _consent(picks), _doubt(picks), _rest(picks),
    )  # fmt: skip
    texts = ("\n".join(lines) for lines in sections)
    return Draft("\n\n".join(filter(None, texts)) + "\n", _suite(name, picks))


# --- the file's sections ------------------------------------------------------------


def _head(name: str, table: str) -> Iterator[str]:
    yield "# yaml-language-server: $schema=feed.schema.json"
    yield "#"
    yield f"# Drafted by `meta-capi feed new` from the columns of {table}; no row was read."
    yield '# What says "guess" is one: check it, mend it, and take the comment out.'
    yield '# What says "missing" nobody can guess: write it, and take the comment out.'
    yield f"# `meta-capi check {name}` tells what is left."


def _basics(name: str, table: str, today: date, warehouse: str) -> Iterator[str]:
    yield f"feed: {name}"
    yield _guess(f"description: Conversions of {table}.", "say what they are")
    yield 'schedule: "5 * * * *"  # every hour, five minutes past, in UTC'
    yield f"start_date: {today}  # what became known before needs a backfill"
    yield "lookback: 2  # read two hours again, for rows committed late"
    if warehouse != Connections().warehouse:
        yield f"connections: {{warehouse: {json.dumps(warehouse)}}}"


def _source(picks: Picks) -> Iterator[str]:
    yield "source:"
    yield f"  table: {picks.table.name}"
    if picks.key:
        yield _guess(f"  key: [{', '.join(map(_yaml, picks.key))}]", picks.key_why)
    else:
        what = "no column names a row for ever; write one to four, as [order_no]"
        yield _missing("  ", "source.key", what, _odd(picks, "order_id", "key"))
    if picks.cursor is None:
        what = "no timestamp says when a row became known; write {column: loaded_at}"
        yield _missing("  ", "source.cursor", what, _odd(picks, "cursor", "created"))
        return
    yield "  cursor:"
    yield _guess(f"    column: {_yaml(picks.cursor)}", picks.cursor_why)
    if picks.cursor not in picks.table.indexed:
        yield "    # No index of this table begins with it: each run reads the whole table."
    if picks.table.kinds[picks.cursor] in (Kind.LOCAL, Kind.DATE):
        yield _guess(
            "    timezone: UTC", "it carries no zone; whose clock does it show?"
        )


def _event(picks: Picks) -> Iterator[str]:
    yield "event:"
    if "value" in picks.roles:
        yield _guess("  name: Purchase", "there is an amount")
    elif "lead_id" in picks.roles:
        yield _guess("  name: Lead", "there is a lead's id")
    else:
        yield _guess("  name: Other", "nothing says what; Purchase, Lead, Schedule, …?")
    place, why = _place(picks)
    yield _guess(f"  action_source: {place}", why)
    if column := picks.roles.get("event.id"):
        yield _guess(f"  id: {_yaml(column)}", "by its name; the Pixel's eventID?")
    if "lead_id" in picks.roles:
        for stage in picks.alike("stage"):
            yield f"  # {_shown(stage)} may be a CRM's stage: crm_leads.yaml maps such."
    column = picks.roles.get("event.time")
    if column is None:
        what = "no column says when it happened; write {column: sold_at}"
        yield _missing("  ", "event.time", what, _odd(picks, "event.time"))
        return
    yield "  time:"
    yield _guess(f"    column: {_yaml(column)}", "by its name; when it happened?")
    kind = picks.kind("event.time")
    if kind is Kind.INTEGER:
        thousandths = folded(column).endswith(("ms", "millis", "milliseconds"))
        unit = "epoch_milliseconds" if thousandths else "epoch_seconds"
        yield _guess(f"    format: {unit}", "whole numbers; seconds or milliseconds?")
    elif kind in TEXTS:
        why = 'text; ISO 8601 with a zone? Else as "%d.%m.%Y %H:%M", with a timezone'
        yield _guess("    format: timestamp", why)
    elif kind is not Kind.MOMENT:
        what = "it carries no zone; write one, as timezone: Europe/Zurich"
        yield _missing("    ", "event.time.timezone", what)


def _place(picks: Picks) -> tuple[str, str]:
    """Return where it happened, and why that is thought."""
    if "lead_id" in picks.roles:
        return "system_generated", "as all events of a CRM"
    # A schema is often called shop, whatever is in it.
    own = _words(picks.table.name.rpartition(".")[2])
    places = [place for place, hints in _PLACES.items() if _speaks_of(hints, own)]
    # A column tells as much of stores alone: many a table has a caller or a status.
    stores = _PLACES["physical_store"]
    if not places and any(
        _speaks_of(stores, _words(each)) for each in picks.table.kinds
    ):
        places = ["physical_store"]
    if not places:
        return (
            "other",
            "nothing says where; physical_store, phone_call, email, chat, …?",
        )
    more = "; Meta takes it for 62 days, all else for 7"
    return places[0], "by a name" + more * (places[0] == "physical_store")


def _speaks_of(hints: str, words: Iterable[str]) -> bool:
    """Tell whether one of the words is a hint, or a compound of a long one."""
    return any(
        word.startswith(hint) if len(hint) > 3 else word == hint
        for word in words
        for hint in hints.split()
    )


def _user_data(picks: Picks) -> Iterator[str]:
    found = {role: picks.roles[role] for role in MATCH_KEYS if role in picks.roles}
    if not found:
        what = "no column looks like a match key; write one, as {em: email}"
        yield _missing("", "user_data", what, _odd(picks, *MATCH_KEYS))
        return
    yield "user_data:"
    for role in MATCH_KEYS:
        if column := found.get(role):
            yield from _match_key(picks, role, column)
        elif odd := _odd(picks, role):
            yield _missing("  ", f"user_data.{role}", "or take this line out", odd)
    if any(found.keys() <= keys for keys in spec.TOO_BROAD_KEY_SETS):
        what = "Meta refuses these alone as too broad; write em or ph"
        yield _missing("  ", "user_data", what)


def _match_key(picks: Picks, role: str, column: str) -> Iterator[str]:
    yield _guess(f"  {role}: {_yaml(column)}", _DOUBTS.get(role, "by its name"))
    if role == "ph" and "country" not in picks.roles:
        what = (
            f"no country column; write ph: {{column: {column}, default_country: CH}}, or "
            "take this line out"
        )
        yield _missing("  ", "user_data.ph", what)
    if role == "db" and picks.kind("db") in TEXTS:
        what = f'text; write db: {{column: {column}, format: "%d.%m.%Y"}}'
        yield _missing("  ", "user_data.db", what)


def _custom_data(picks: Picks) -> Iterator[str]:
    if lines := [*_money(picks), *_order(picks)]:
        # With nothing but comments in it, the mapping would be empty, and a fault.
        is_empty = all(line.lstrip().startswith("#") for line in lines)
        yield "custom_data: {}" if is_empty else "custom_data:"
        yield from lines


def _money(picks: Picks) -> Iterator[str]:
    column = picks.roles.get("value")
    if column is None:
        if odd := _odd(picks, "value"):
            yield _missing("  ", "custom_data.value", "or take this line out", odd)
        return
    if picks.kind("value") in TEXTS:
        line = f'  value: {{column: {_yaml(column)}, decimal_mark: "."}}'
        yield _guess(line, 'text; with a decimal point, or with ","?')
    else:
        yield _guess(f"  value: {_yaml(column)}", "by its name; what was paid?")
    if is_in_cents(column):
        what = "the name says cents; divide by 100 in a view, and name that column"
        yield _missing("  ", "custom_data.value", what)
    if code := currency_in(column):
        yield _guess(f"  currency: {{default: {code}}}", "by the amount's name")
    elif named := picks.roles.get("currency"):
        yield _guess(f"  currency: {_yaml(named)}", "by its name; codes as EUR?")
    else:
        what = "no column names it; write it for XXX, as EUR"
        yield _missing("  currency: {default: XXX}  ", "custom_data.currency", what)


def _order(picks: Picks) -> Iterator[str]:
    if column := picks.roles.get("order_id"):
        yield _guess(f"  order_id: {_yaml(column)}", "by its name")
    elif _place(picks)[0] != "physical_store":
        return
    elif len(picks.key) == 1:
        yield _guess(f"  order_id: {_yaml(picks.key[0])}", "the key; Meta wants one")


def _doubt(picks: Picks) -> Iterator[str]:
    if (
        _place(picks)[0] == "physical_store"
        and len(picks.key) != 1
        and "order_id" not in picks.roles
    ):
        what = "Meta removes repeats in stores by it alone; write it, and take this out"
        odd = _odd(picks, "order_id")
        yield _missing("on_in_doubt: hold  ", "custom_data.order_id", what, odd)


def _consent(picks: Picks) -> Iterator[str]:
    what = (
        "no column says it; write the one with the customer's answer, or "
        "not_required_because"
    )
    if column := picks.roles.get("consent"):
        yield "consent:"
        yield _guess(f"  column: {_yaml(column)}", "by its name; does it cover Meta?")
        is_plain = picks.kind("consent") is Kind.BOOLEAN
        why = "" if is_plain else "means true, yes, y, on, 1; write your words, as [ja]"
        yield _guess("  granted: [true]", why)
    elif picks.key:
        yield "consent:"
        yield _missing("  ", "consent", what, _odd(picks, "consent"))
        yield "  # Until then every row is withheld: no row's key is these words."
        yield f"  column: {_yaml(picks.key[0])}"
        yield "  granted: [nobody has said yes]"
    else:
        yield _missing("", "consent", what, _odd(picks, "consent"))
    if column := picks.roles.get("limited_data_use"):
        yield ""
        yield "limited_data_use:"
        yield _guess(f"  column: {_yaml(column)}", "by its name")


def _rest(picks: Picks) -> Iterator[str]:
    """Yield what the draft does not use, and why."""
    used = {*picks.roles.values(), *picks.key, picks.cursor}
    left = {
        column: kind for column, kind in picks.table.kinds.items() if column not in used
    }
    remarks = {}
    for column in left:
        if likeness(column, "whole name"):
            remarks[column] = "the whole name? Split it in a view, as fn and ln."
        for role in MATCH_KEYS:
            if role not in picks.roles and is_usable(column) and likeness(column, role):
                remarks[column] = f"{role}? Make it text in a view."
    yield from (f"# {_shown(column)}: {remark}" for column, remark in remarks.items())
    rest = [column for column in left if column not in remarks]
    yield from _listed("Not used", filter(is_usable, rest))
    odd = (_shown(column) for column in rest if not is_usable(column))
    yield from _listed("Not used, because a feed cannot write such names", odd)


def _suite(name: str, picks: Picks) -> str:
    """Return what every feed expects: keys that are there and unique, and times."""
    rules = [_rule(NOT_NULL, "key.missing", column=each) for each in picks.key]
    if len(picks.key) == 1:
        rules.append(_rule(UNIQUE[0], "key.duplicate", column=picks.key[0]))
    elif picks.key:
        rules.append(_rule(UNIQUE[1], "key.duplicate", column_list=picks.key))
    if time := picks.roles.get("event.time"):
        rules.append(_rule(NOT_NULL, "time.missing", column=time))
    return json.dumps({"name": name, "expectations": rules}, indent=2) + "\n"


def _rule(type_: str, reason: str, **kwargs: object) -> dict[str, object]:
    return {
        "type": type_, "severity": "critical", "kwargs": kwargs,
        "meta": {"reason": reason},
    }  # fmt: skip


# --- lines --------------------------------------------------------------------------


def _guess(line: str, why: str) -> str:
    return f"{line}  # guess: {why}" if why else line


def _missing(before: str, path: str, what: str, odd: str | None = None) -> str:
    """Return the line of a missing part; `odd` would be it, had it a plain name."""
    meant = f"{odd} may be it: rename it in a view; " if odd else ""
    return f"{before}# missing: {path}: {meant}{what}"


def _odd(picks: Picks, *roles: str) -> str | None:
    """Return a column that would have a role, had it a name that a feed takes."""
    names = (
        name for role in roles for name in picks.alike(role) if not is_usable(name)
    )
    return next(map(_shown, names), None)


def _listed(what: str, names: Iterable[str]) -> Iterator[str]:
    listed = list(names)
    if more := listed[_MOST_LISTED:]:
        listed = [*listed[:_MOST_LISTED], f"and {len(more)} more"]
    if listed:
        yield from textwrap.wrap(
            f"{what}: {', '.join(listed)}.", _WIDTH, initial_indent="# ",
            subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip


def _words(name: str) -> list[str]:
    """Return the words of a name, as of store_sales and storeSales.

    >>> _words("pos.storeSales_DE")
    ['pos', 'store', 'sales', 'de']
    """
    return [folded(each) for each in _WORD.findall(name)]


def _yaml(name: str) -> str:
    return json.dumps(name) if name.lower() in _YAML_WORDS else name


def _shown(name: str) -> str:
    """Return a name as a comment can hold it, in quotes if it is no plain one."""
    if is_usable(name):
        return name
    printable = (sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)
    return f'"{"".join(printable)}"'
