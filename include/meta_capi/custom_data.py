"""The columns of `custom_data` become JSON: amounts, texts, contents, CRM fields."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Final, Literal

from meta_capi import money, spec
from meta_capi.contents import read_contents
from meta_capi.feed import Amount, Feed, Text
from meta_capi.lifecycle import State
from meta_capi.normalise import Flaw, is_plain, text_of
from meta_capi.rows import Rows, Verdict, each

__all__ = ["CustomData"]

_UNKNOWN_WORDS: Final = {
    "content_type": Flaw.CONTENT_TYPE_UNKNOWN,
    "delivery_category": Flaw.DELIVERY_CATEGORY_UNKNOWN,
}
_UNREADABLE: Final[Verdict] = (State.QUARANTINED, "text.unreadable")


class CustomData:
    """What is said of the purchase or the lead, for one feed."""

    def __init__(self, feed: Feed) -> None:
        custom = feed.custom_data
        self._currency = custom.currency
        self._priced = spec.EVENTS_REQUIRING_VALUE.intersection(feed.event_names)
        self._amounts: dict[str, Amount] = {
            name: part
            for name in spec.CUSTOM_DATA_AMOUNT_KEYS
            if (part := getattr(custom, name)) is not None
        }
        self._texts: dict[str, Text] = {
            name: part
            for name in spec.CUSTOM_DATA_TEXT_KEYS
            if (part := getattr(custom, name)) is not None
        } | {name: Text(column=ref.column) for name, ref in custom.properties.items()}
        self._contents = custom.contents.column if custom.contents else None
        self._crm = feed.event.stages.crm if feed.event.stages else None
        self._known: dict[object, str | Flaw | None] = {}

    def members(self, rows: Rows) -> list[str]:
        """Return custom_data's JSON members, with a leading comma, of the rows it keeps.

        A row is held for its first fault.
        """
        held: list[Verdict | None] = [None] * len(rows)
        columns: list[Sequence[str]] = []
        if self._currency is not None:
            columns.append(self._read_amounts(rows, held))
        for name, part in self._texts.items():
            columns.append(_read_texts(name, part, rows, held))
        if self._contents is not None:
            columns.append(_read_items(rows.column(self._contents), held))
        if self._crm is not None:
            source, crm = map(encode_basestring, (spec.CRM_EVENT_SOURCE, self._crm))
            member = f',"event_source":{source},"lead_event_source":{crm}'
            columns.append([member] * len(rows))
        members = (
            list(map("".join, zip(*columns, strict=True)))
            if columns
            else [""] * len(rows)
        )
        return rows.hold(held).of(members)

    # --- amounts --------------------------------------------------------------------

    def _read_amounts(self, rows: Rows, held: list[Verdict | None]) -> list[str]:
        columns = [
            (name, rows.column(part.column), part.decimal_mark)
            for name, part in self._amounts.items()
        ]
        built, names = rows.built, rows.of(rows.built.event_names)
        members = [""] * len(rows)
        for i, code in enumerate(self._codes(rows)):
            must = names[i] in self._priced
            if type(code) is not str:
                flaw = code.value if isinstance(code, Flaw) else "currency.missing"
                if must:
                    held[i] = held[i] or (State.QUARANTINED, flaw)
                else:
                    built.flaws[flaw] += 1
                continue
            found = ""
            for name, column, mark in columns:
                text = _wire(column[i], mark, code)
                if isinstance(text, str):
                    found += f',"{name}":{text}'
                    if name == "value":
                        built.values[rows.places[i]] = text
                elif must and name == "value":
                    flaw = text.value if text else "value.missing"
                    held[i] = held[i] or (State.QUARANTINED, flaw)
                    found = ""
                    break
                elif text is not None:
                    built.flaws[text.value] += 1
            if found:
                built.currencies[rows.places[i]] = code
                members[i] = f'{found},"currency":"{code}"'
        return members

    def _codes(self, rows: Rows) -> list[str | Flaw | None]:
        """Return each row's currency; the feed's where the row names none."""
        part = self._currency
        if part is None or part.column is None:
            return [part.default if part else None] * len(rows)
        codes = each(rows.column(part.column), money.currency, self._known)
        if part.default is None:
            return codes
        return [part.default if code is None else code for code in codes]


def _wire(value: object, mark: Literal[".", ","], code: str) -> str | Flaw | None:
    """Return an amount's JSON text, or its flaw, or None where there is none."""
    if plain := money.quick(value, code):
        return plain
    amount = money.amount(value, mark)
    return money.wire(amount, code) if isinstance(amount, Decimal) else amount


def _read_texts(
    name: str, part: Text, rows: Rows, held: list[Verdict | None]
) -> Sequence[str]:
    label = f",{encode_basestring(name)}:"
    if part.constant is not None:
        return [label + encode_basestring(part.constant)] * len(rows)
    column: Sequence[object] = (
        rows.column(part.column) if part.column else [None] * len(rows)
    )
    words = spec.CUSTOM_DATA_WORDS.get(name)
    members = []
    for i, value in enumerate(column):
        if words is None and type(value) is str and is_plain(value):
            members.append(f'{label}"{value}"')
            continue
        text = text_of(value)
        if isinstance(text, Flaw):
            held[i] = held[i] or _UNREADABLE
        trimmed = text.strip() if isinstance(text, str) else ""
        if words is not None and trimmed and trimmed not in words:
            if held[i] is None:
                rows.built.flaws[_UNKNOWN_WORDS[name].value] += 1
            trimmed = ""
        members.append(label + encode_basestring(trimmed) if trimmed else "")
    return members


def _read_items(column: Sequence[object], held: list[Verdict | None]) -> Sequence[str]:
    members = []
    for i, value in enumerate(column):
        items, reason = read_contents(value)
        if reason:
            held[i] = held[i] or (State.QUARANTINED, reason)
        members.append(f',"contents":{items}' if items else "")
    return members
