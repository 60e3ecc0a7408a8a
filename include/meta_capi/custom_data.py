"""The columns of `custom_data` become JSON: amounts, texts, contents, CRM fields."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Final

from meta_capi import money, spec
from meta_capi.built import Built, Columns
from meta_capi.contents import read_contents
from meta_capi.feed import Amount, Feed, Text
from meta_capi.lifecycle import State
from meta_capi.normalise import Flaw, text_of

__all__ = ["custom_data"]

_UNKNOWN_WORDS: Final = {
    "content_type": Flaw.CONTENT_TYPE_UNKNOWN,
    "delivery_category": Flaw.DELIVERY_CATEGORY_UNKNOWN,
}


def custom_data(
    feed: Feed, columns: Columns, built: Built, alive: list[int]
) -> tuple[dict[int, str], list[int]]:
    """Return custom_data's JSON members by row, and the rows that have them."""
    parts: dict[int, list[str]] = {row: [] for row in alive}
    _amounts(feed, columns, built, parts)
    _texts(feed, columns, built, parts)
    _contents(feed, columns, built, parts)
    if stages := feed.event.stages:
        crm = (
            f'"event_source":"{spec.CRM_EVENT_SOURCE}",'
            f'"lead_event_source":{encode_basestring(stages.crm)}'
        )
        for members in parts.values():
            members.append(crm)
    kept = [row for row in alive if built.reasons[row] is None]
    return {row: ",".join(parts[row]) for row in kept}, kept


def _amounts(
    feed: Feed, columns: Columns, built: Built, parts: dict[int, list[str]]
) -> None:
    custom = feed.custom_data
    required = {
        name for name in feed.event_names if name in spec.EVENTS_REQUIRING_VALUE
    }
    if custom.currency is None:
        return
    amounts = {
        name: part
        for name in spec.CUSTOM_DATA_AMOUNT_KEYS
        if (part := getattr(custom, name)) is not None
    }
    for row, members in parts.items():
        must = built.event_names[row] in required
        code = _currency(feed, columns, row)
        if not isinstance(code, str):
            flaw = "currency.missing" if code is None else code.value
            if must:
                built.hold(row, State.QUARANTINED, flaw)
            else:
                built.flaws[flaw] += 1
            continue
        found = _row_amounts(columns, built, row, amounts, must, code)
        if found:
            members += [*found, f'"currency":"{code}"']
            built.currencies[row] = code


def _row_amounts(
    columns: Columns, built: Built, row: int, amounts: Mapping[str, Amount],
    must: bool, code: str,
) -> list[str]:  # fmt: skip
    found = []
    for name, part in amounts.items():
        amount = money.amount(columns[part.column][row], part.decimal_mark)
        if isinstance(amount, Decimal):
            text = money.wire(amount, code)
            found.append(f'"{name}":{text}')
            if name == "value":
                built.values[row] = text
            continue
        flaw = "value.missing" if amount is None else amount.value
        if must and name == "value":
            built.hold(row, State.QUARANTINED, flaw)
            return []
        if amount is not None:
            built.flaws[flaw] += 1
    return found


def _currency(feed: Feed, columns: Columns, row: int) -> str | Flaw | None:
    part = feed.custom_data.currency
    if part is None:
        return None
    code = money.currency(columns[part.column][row]) if part.column else None
    return part.default if code is None else code


def _texts(
    feed: Feed, columns: Columns, built: Built, parts: dict[int, list[str]]
) -> None:
    named: list[tuple[str, Text]] = [
        (name, part)
        for name in spec.CUSTOM_DATA_TEXT_KEYS
        if (part := getattr(feed.custom_data, name)) is not None
    ]
    named += [
        (name, Text(column=ref.column))
        for name, ref in feed.custom_data.properties.items()
    ]
    for name, part in named:
        label = f"{encode_basestring(name)}:"
        if part.constant is not None:
            member = label + encode_basestring(part.constant)
            for members in parts.values():
                members.append(member)
        elif part.column is not None:
            column, words = columns[part.column], spec.CUSTOM_DATA_WORDS.get(name)
            for row, members in parts.items():
                text = text_of(column[row])
                if isinstance(text, Flaw):
                    built.hold(row, State.QUARANTINED, "text.unreadable")
                elif text and (text := text.strip()):
                    if words is None or text in words:
                        members.append(label + encode_basestring(text))
                    elif built.reasons[row] is None:
                        built.flaws[_UNKNOWN_WORDS[name].value] += 1


def _contents(
    feed: Feed, columns: Columns, built: Built, parts: dict[int, list[str]]
) -> None:
    ref = feed.custom_data.contents
    if ref is None:
        return
    column = columns[ref.column]
    for row, members in parts.items():
        items, reason = read_contents(column[row])
        if reason:
            built.hold(row, State.QUARANTINED, reason)
        elif items:
            members.append(f'"contents":{items}')
