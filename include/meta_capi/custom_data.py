"""The columns of `custom_data` become JSON: amounts, texts, contents, CRM fields."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Final, Literal

from meta_capi import money, plain, spec
from meta_capi.contents import read_contents
from meta_capi.feed import Amount, Feed, Text
from meta_capi.lifecycle import State
from meta_capi.normalise import Flaw, text_of
from meta_capi.rows import Memory, Rows, Verdict

__all__ = ["CustomData"]

_UNKNOWN_WORDS: Final = {
    "content_type": Flaw.CONTENT_TYPE_UNKNOWN,
    "delivery_category": Flaw.DELIVERY_CATEGORY_UNKNOWN,
}
_Found = str | Flaw | None
"""An amount's JSON text, or its flaw, or None where there is none."""

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
        self._codes = Memory(money.currency)

    def members(self, rows: Rows) -> Sequence[str]:
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
        built, codes = rows.built, self._read_codes(rows)
        found = {
            name: _wires(rows.column(part.column), part.decimal_mark, codes)
            for name, part in self._amounts.items()
        }
        self._judge_gaps(rows, codes, found, held)
        columns = [
            [f',"{name}":{text}' if text else "" for text in texts]
            for name, texts in found.items()
        ] or [[""] * len(rows)]
        paid = list(map("".join, zip(*columns, strict=True)))
        if "value" in found:
            rows.put(built.values, [str(text) or None for text in found["value"]])
        rows.put(
            built.currencies,
            [str(code) if one else None for code, one in zip(codes, paid, strict=True)],
        )
        return [
            f'{one},"currency":"{code}"' if one else ""
            for code, one in zip(codes, paid, strict=True)
        ]

    def _judge_gaps(
        self,
        rows: Rows,
        codes: list[_Found],
        found: dict[str, list[_Found]],
        held: list[Verdict | None],
    ) -> None:
        """Hold or count the rows that lack an amount; leave an empty text there."""
        names = rows.of(rows.built.event_names)
        for i in sorted(set().union(*map(_gaps, (codes, *found.values())))):
            texts = [column[i] for column in found.values()]
            must = names[i] in self._priced
            if type(codes[i]) is not str:
                reasons = [_reason(codes[i], "currency.missing")]
            elif must and "value" in found and type(found["value"][i]) is not str:
                reasons = [_reason(found["value"][i], "value.missing")]
            else:
                must = False
                reasons = [text.value for text in texts if isinstance(text, Flaw)]
            if must:
                held[i] = held[i] or (State.QUARANTINED, reasons[0])
            else:
                rows.built.flaws.update(reasons)
            for column, text in zip(found.values(), texts, strict=True):
                column[i] = text if type(text) is str and not must else ""

    def _read_codes(self, rows: Rows) -> list[_Found]:
        """Return each row's currency; the feed's where the row names none."""
        part = self._currency
        if part is None or part.column is None:
            return [part.default if part else None] * len(rows)
        codes = self._codes.of(rows.column(part.column))
        if part.default is None:
            return codes
        return [part.default if code is None else code for code in codes]


def _wires(
    column: Sequence[object], mark: Literal[".", ","], codes: list[_Found]
) -> list[_Found]:
    """Write every amount; of a row without a currency, none."""
    return [
        short if short and code in money.WITH_CENTS else _wire(value, mark, code)
        for short, value, code in zip(plain.amounts(column), column, codes, strict=True)
    ]


def _wire(value: object, mark: Literal[".", ","], code: _Found) -> _Found:
    if type(code) is not str:
        return None
    amount = money.amount(value, mark)
    return money.wire(amount, code) if isinstance(amount, Decimal) else amount


def _gaps(column: Sequence[object]) -> list[int]:
    return [i for i, text in enumerate(column) if type(text) is not str]


def _reason(flaw: object, missing: str) -> str:
    return flaw.value if isinstance(flaw, Flaw) else missing


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
    found = plain.ids(column) if words is None else [""] * len(column)
    members = [f'{label}"{text}"' if text else "" for text in found]
    for i, value in enumerate(column):
        if members[i] or value is None:
            continue
        text = text_of(value)
        if isinstance(text, Flaw):
            held[i] = held[i] or _UNREADABLE
        trimmed = text.strip() if isinstance(text, str) else ""
        if words is not None and trimmed and trimmed not in words:
            if held[i] is None:
                rows.built.flaws[_UNKNOWN_WORDS[name].value] += 1
            trimmed = ""
        members[i] = label + encode_basestring(trimmed) if trimmed else ""
    return members


def _read_items(column: Sequence[object], held: list[Verdict | None]) -> Sequence[str]:
    found = plain.contents(column)
    for i, items in enumerate(found):
        if items:
            continue
        found[i], reason = read_contents(column[i])
        if reason:
            held[i] = held[i] or (State.QUARANTINED, reason)
    return [f',"contents":{items}' if items else "" for items in found]
