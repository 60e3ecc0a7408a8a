"""A feed file drafted from a table's columns.

A guess is marked in the text, and what nobody can guess is marked as missing. Where a
wrong guess would send what must not be sent, the draft holds the rows back instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from meta_capi import spec
from meta_capi.column_names import currency_in, folded, is_in_cents, likeness
from meta_capi.draft_lines import guess, listed, missing, shown, yaml
from meta_capi.feed.parts import Connections
from meta_capi.picking import MATCH_KEYS, TEXTS, Funnel, Picks, is_usable
from meta_capi.places import place
from meta_capi.relation import Kind
from meta_capi.suites import NOT_NULL, UNIQUE
from meta_capi.words import number

__all__ = ["Draft", "draft"]

_DOUBTS: Final[Mapping[str, str]] = {
    "fn": "by its name; the first name alone, not the whole name?",
    "ln": "by its name; the last name alone, not the whole name?",
    "st": "by its name; a state or province, not the state of an order?",
    "external_id": "by its name; the same id that the Pixel sends?",
    "lead_id": "by its name; Meta's own 15 to 17 digits, not the CRM's number?",
    "client_ip_address": "by its name; the customer's address, not a server's?",
}
_CURRENCY: Final = "custom_data.currency.default"


@dataclass(frozen=True, slots=True)
class Draft:
    """A feed file and its suite, as far as columns tell."""

    feed: str
    suite: str


def draft(
    name: str, picks: Picks, today: date, *, warehouse: str = Connections().warehouse
) -> Draft:
    """Draft a feed of this name, which sends from today on, and its suite."""
    sections = (
        _head(name, picks), _basics(name, picks, today, warehouse),
        _source(picks), _event(picks), _user_data(picks), _custom_data(picks),
        _consent(picks), _doubt(picks), _rest(picks),
    )  # fmt: skip
    texts = ("\n".join(lines) for lines in sections)
    return Draft("\n\n".join(filter(None, texts)) + "\n", _suite(name, picks))


# --- the file's sections ------------------------------------------------------------


def _head(name: str, picks: Picks) -> Iterator[str]:
    yield "# yaml-language-server: $schema=feed.schema.json"
    yield "#"
    end = "" if picks.funnel else "; no row was read"
    table = picks.table.name
    yield f"# Drafted by `meta-capi feed new` from the columns of {table}{end}."
    if picks.funnel:
        yield f"# Of the rows only what stands in {picks.funnel.column} was read."
    yield '# What says "guess" is one: check it, mend it, and take the comment out.'
    yield '# What says "missing" nobody can guess: write it, and take the comment out.'
    yield f"# `meta-capi check {name}` tells what is left."


def _basics(name: str, picks: Picks, today: date, warehouse: str) -> Iterator[str]:
    yield f"feed: {name}"
    table = picks.table.name
    yield guess(f"description: Conversions of {table}.", "say what they are")
    daily = picks.cursor and picks.table.kinds[picks.cursor] is Kind.DATE
    if daily:  # each run of a day would read all of the day
        yield 'schedule: "5 3 * * *"  # every day at 3:05, in UTC'
    else:
        yield 'schedule: "5 * * * *"  # every hour, five minutes past, in UTC'
    yield f"start_date: {today}  # what became known before needs a backfill"
    again = "1  # read a day" if daily else "2  # read two hours"
    yield f"lookback: {again} again, for rows committed late"
    if warehouse != Connections().warehouse:
        yield f"connections: {{warehouse: {json.dumps(warehouse)}}}"


def _source(picks: Picks) -> Iterator[str]:
    yield "source:"
    yield f"  table: {picks.table.name}"
    if picks.key:
        yield guess(f"  key: [{', '.join(map(yaml, picks.key))}]", picks.key_why)
    else:
        what = "no column names a row for ever; write one to four, as [order_no]"
        yield missing("  ", "source.key", what, _odd(picks, "order_id", "key"))
    if picks.cursor is None:
        what = "no timestamp says when a row became known; write {column: loaded_at}"
        yield missing("  ", "source.cursor", what, _odd(picks, "cursor", "created"))
        return
    yield "  cursor:"
    yield guess(f"    column: {yaml(picks.cursor)}", picks.cursor_why)
    if picks.cursor not in picks.table.indexed:
        yield "    # No index of this table begins with it: each run reads the whole table."
    if picks.table.kinds[picks.cursor] in (Kind.LOCAL, Kind.DATE):
        yield guess(
            "    timezone: UTC", "it carries no zone; whose clock does it show?"
        )


def _event(picks: Picks) -> Iterator[str]:
    yield "event:"
    if picks.funnel and not picks.funnel.why_not:
        yield from _stages(picks, picks.funnel)
    elif "value" in picks.roles:
        yield guess("  name: Purchase", "there is an amount")
    elif "lead_id" in picks.roles:
        yield guess("  name: Lead", "there is a lead's id")
    else:
        yield guess("  name: Other", "nothing says what; Purchase, Lead, Schedule, …?")
    where, why = place(picks)
    yield guess(f"  action_source: {where}", why)
    if column := picks.roles.get("event.id"):
        yield guess(f"  id: {yaml(column)}", "by its name; the Pixel's eventID?")
    if picks.funnel and (why := picks.funnel.why_not):
        yield f"  # {picks.funnel.column} may be a CRM's stage, but {why}."
        yield "  # crm_leads.yaml maps such."
    elif place(picks)[0] == "system_generated" and (odd := _odd(picks, "stage")):
        yield f"  # {odd} may be a CRM's stage: rename it in a view."
    if column := picks.roles.get("event.time"):
        yield "  time:"
        yield guess(f"    column: {yaml(column)}", "by its name; when it happened?")
        yield from _format(picks, "event.time", "event.time", "    ")
    else:
        what = "no column says when it happened; write {column: sold_at}"
        yield missing("  ", "event.time", what, _odd(picks, "event.time"))


def _format(picks: Picks, role: str, path: str, before: str) -> Iterator[str]:
    """Yield how a column writes its moments, where its type does not tell."""
    kind = picks.kind(role)
    if kind is Kind.INTEGER:
        column = folded(picks.roles[role])
        thousandths = column.endswith(("ms", "millis", "milliseconds"))
        unit = "epoch_milliseconds" if thousandths else "epoch_seconds"
        yield guess(
            f"{before}format: {unit}", "whole numbers; seconds or milliseconds?"
        )
    elif kind in TEXTS:
        why = 'text; ISO 8601 with a zone? Else as "%d.%m.%Y %H:%M", with a timezone'
        yield guess(f"{before}format: timestamp", why)
    elif kind is not Kind.MOMENT:
        what = "it carries no zone; write one, as timezone: Europe/Zurich"
        yield missing(before, f"{path}.timezone", what)


def _stages(picks: Picks, funnel: Funnel) -> Iterator[str]:
    yield "  stages:"
    yield guess(f"    column: {yaml(funnel.column)}", "by its name and its few values")
    yield "    # In the order of the funnel. A stage in neither list is quarantined."
    yield "    map:"
    for stage, event in funnel.map:
        yield guess(f"      {yaml(stage)}: {event}", "by its words; and its place?")
    if funnel.ignore:
        names = ", ".join(map(yaml, funnel.ignore))
        yield guess(
            f"    ignore: [{names}]", "by their words; Meta need not know them?"
        )
    for stage in funnel.unknown:
        what = f"where does {yaml(stage)} belong, under map or ignore?"
        yield missing("    ", "event.stages", what)
    if funnel.untold:
        values = number(funnel.untold, "value of one row", "values of one row each")
        yield missing("    ", "event.stages", f"{values}, not told here: stages, too?")
    yield "    lead_created:"
    why = "by its name; when the lead was made?"
    yield guess(f"      column: {yaml(picks.roles['created'])}", why)
    yield from _format(picks, "created", "event.stages.lead_created", "      ")
    what = "the CRM's own name; Meta counts no lead's stage without one"
    yield missing("    crm: CRM  ", "event.stages.crm", what)


def _user_data(picks: Picks) -> Iterator[str]:
    found = {role: picks.roles[role] for role in MATCH_KEYS if role in picks.roles}
    if not found:
        what = "no column looks like a match key; write one, as {em: email}"
        yield missing("", "user_data", what, _odd(picks, *MATCH_KEYS))
        return
    yield "user_data:"
    for role in MATCH_KEYS:
        if column := found.get(role):
            yield from _match_key(picks, role, column)
        elif odd := _odd(picks, role):
            yield missing("  ", f"user_data.{role}", "or take this line out", odd)
    if any(found.keys() <= keys for keys in spec.TOO_BROAD_KEY_SETS):
        what = "Meta refuses these alone as too broad; write em or ph"
        yield missing("  ", "user_data", what)


def _match_key(picks: Picks, role: str, column: str) -> Iterator[str]:
    yield guess(f"  {role}: {yaml(column)}", _DOUBTS.get(role, "by its name"))
    if role == "ph" and "country" not in picks.roles:
        what = (
            f"no country column; write ph: {{column: {column}, default_country: CH}}, or "
            "take this line out"
        )
        yield missing("  ", "user_data.ph", what)
    if role == "db" and picks.kind("db") in TEXTS:
        what = f'text; write db: {{column: {column}, format: "%d.%m.%Y"}}'
        yield missing("  ", "user_data.db", what)


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
            yield missing("  ", "custom_data.value", "or take this line out", odd)
        return
    if picks.kind("value") in TEXTS:
        line = f'  value: {{column: {yaml(column)}, decimal_mark: "."}}'
        yield guess(line, 'text; with a decimal point, or with ","?')
    else:
        yield guess(f"  value: {yaml(column)}", "by its name; what was paid?")
    if is_in_cents(column):
        what = "the name says cents; divide by 100 in a view, and name that column"
        yield missing("  ", "custom_data.value", what)
    if code := currency_in(column):
        yield guess(f"  currency: {{default: {code}}}", "by the amount's name")
    elif named := picks.roles.get("currency"):
        yield guess(f"  currency: {yaml(named)}", "by its name; codes as EUR?")
    else:
        what = "no column names it; write it for XXX, as EUR"
        yield missing("  currency: {default: XXX}  ", _CURRENCY, what)


def _order(picks: Picks) -> Iterator[str]:
    if column := picks.roles.get("order_id"):
        yield guess(f"  order_id: {yaml(column)}", "by its name")
    elif place(picks)[0] != "physical_store":
        return
    elif len(picks.key) == 1:
        yield guess(f"  order_id: {yaml(picks.key[0])}", "the key; Meta wants one")


def _doubt(picks: Picks) -> Iterator[str]:
    if (
        place(picks)[0] == "physical_store"
        and len(picks.key) != 1
        and "order_id" not in picks.roles
    ):
        what = "Meta removes repeats in stores by it alone; write it, and take this out"
        odd = _odd(picks, "order_id")
        yield missing("on_in_doubt: hold  ", "custom_data.order_id", what, odd)


def _consent(picks: Picks) -> Iterator[str]:
    what = (
        "no column says it; write the one with the customer's answer, or "
        "not_required_because"
    )
    if column := picks.roles.get("consent"):
        yield "consent:"
        yield guess(f"  column: {yaml(column)}", "by its name; does it cover Meta?")
        is_plain = picks.kind("consent") is Kind.BOOLEAN
        why = "" if is_plain else "means true, yes, y, on, 1; write your words, as [ja]"
        yield guess("  granted: [true]", why)
    elif picks.key:
        yield "consent:"
        yield missing("  ", "consent", what, _odd(picks, "consent"))
        yield "  # Until then every row is withheld: no row's key is these words."
        yield f"  column: {yaml(picks.key[0])}"
        yield "  granted: [nobody has said yes]"
    else:
        yield missing("", "consent", what, _odd(picks, "consent"))
    if column := picks.roles.get("limited_data_use"):
        yield ""
        yield "limited_data_use:"
        yield guess(f"  column: {yaml(column)}", "by its name")


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
    yield from (f"# {shown(column)}: {remark}" for column, remark in remarks.items())
    rest = [column for column in left if column not in remarks]
    yield from listed("Not used", filter(is_usable, rest))
    odd = (shown(column) for column in rest if not is_usable(column))
    yield from listed(
        "Not used, for a feed cannot write such names; a view can rename", odd
    )


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


def _odd(picks: Picks, *roles: str) -> str | None:
    """Return a column that would have a role, had it a name that a feed takes."""
    names = (
        name for role in roles for name in picks.alike(role) if not is_usable(name)
    )
    return next(map(shown, names), None)
