"""The short paths: the plain values of a whole column, read at once.

Most values of most tables are plain: an address of ASCII letters, a number with its
calling code, a price of two decimals. Here one regular expression reads a column of
them. Where a short path says nothing, the rule itself is asked; where it says something,
the rule would say the same (tests/core/test_short_paths.py holds every path against its
rule).

Most functions take a column and return a list as long: what the rule gives for a plain
value, and an empty text for every other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Final

from meta_capi.normalise import phones

__all__ = ["addresses", "amounts", "birthday", "contents", "ids", "phone_numbers"]

# `text_of` takes no longer text.
_LONGEST: Final = 2_000


def _lines(texts: Iterable[str]) -> str:
    """Return texts, each with a line's end behind it; none may have one of its own."""
    return "\n".join([*texts, ""])


def _texts(column: Sequence[object]) -> str:
    """Return a column's texts as lines; for every other value there is an empty one."""
    texts = [
        value if type(value) is str and len(value) <= _LONGEST else ""
        for value in column
    ]
    lines = _lines(texts)
    if lines.count("\n") > len(texts):
        lines = _lines("" if "\n" in text else text for text in texts)
    return lines


def _in_lines(pattern: str) -> re.Pattern[str]:
    """Return what finds the group of a pattern in every line, or an empty text."""
    return re.compile(rf"(?:{pattern}|.*)\n")


_ADDRESS: Final = _in_lines(
    r" *([A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}) *"
)


def addresses(column: Sequence[object]) -> list[str]:
    """Read e-mail addresses as `normalise.email` does.

    >>> addresses(["Jane@Shop.example ", "jane@localhost", None])
    ['jane@shop.example', '', '']
    """
    return [address.lower() for address in _ADDRESS.findall(_texts(column))]


def phone_numbers(column: Sequence[object], regions: Sequence[str | None]) -> list[str]:
    """Read numbers as `normalise.phone` does, given each one's country, in capitals.

    >>> phone_numbers(["+1 (650) 555-1212", "079 123 45 67", "?"], [None, "CH", None])
    ['16505551212', '41791234567', '']
    """
    numbers = phones.compacted(_texts(column)).split("\n")[:-1]
    return list(map(phones.by_plan, numbers, regions))


_FIRST_BIRTHDAY: Final = date(1900, 1, 1)


def birthday(value: object, today: date) -> str:
    """Read one date as `normalise.birthday` does.

    >>> birthday(date(1997, 2, 16), today=date(2026, 11, 20))
    '19970216'
    """
    if type(value) is date and _FIRST_BIRTHDAY <= value <= today:
        return value.isoformat().replace("-", "")
    return ""


# At least one digit, so that no word for nothing is among them; nothing that would be
# trimmed, escaped, or taken for a digest or for a number that lost digits.
_ID: Final = _in_lines(r"(?=.{1,60}\n)([A-Za-z_.:-]*[0-9][0-9A-Za-z_.:-]*)")


def ids(column: Sequence[object]) -> list[str]:
    """Find the texts that `text_of`, `strip` and JSON leave as they are.

    >>> ids(["ord-1", " ord-1", "Zoë-1", "NaN", 1])
    ['ord-1', '', '', '', '']
    """
    return _ID.findall(_texts(column))


# At most two decimals that count; the zeros after them do not.
_AMOUNT: Final = _in_lines(
    r"((?:0|[1-9][0-9]{0,14})(?![0-9])(?:\.[0-9]?[1-9](?=0*\n))?)(?:\.0*)?0*"
)


def amounts(column: Sequence[object]) -> list[str]:
    """Write decimals and floats as `money.wire` does where a currency has cents.

    >>> amounts([Decimal("142.520"), Decimal("142.525"), 7.0, -1.5])
    ['142.52', '', '7', '']
    """
    numbers = (
        str(number) if type(number) is Decimal or type(number) is float else ""
        for number in column
    )
    return _AMOUNT.findall(_lines(numbers))


# A fraction of at most four digits is written by JSON's reader as it was, but for the
# zeros at its end.
_ITEM: Final = (
    r'\{"id": ?"[0-9A-Za-z_./-]{1,64}", ?"quantity": ?[1-9][0-9]{0,8}'
    r'(?:, ?"item_price": ?(?:0|[1-9][0-9]{0,9})(?:\.[0-9]{1,4})?)?\}'
)
_ITEMS: Final = _in_lines(rf"(\[{_ITEM}(?:, ?{_ITEM})*\])")
_ZEROS: Final = re.compile(r"(\.[0-9]+?)0+\}")


def contents(column: Sequence[object]) -> list[str]:
    """Write items as `read_contents` does.

    >>> contents(['[{"id": "a-7", "quantity": 1, "item_price": 7.50}]', "[]"])
    ['[{"id":"a-7","quantity":1,"item_price":7.5}]', '']
    """
    lines = _lines(_ITEMS.findall(_texts(column))).replace(" ", "")
    return _ZEROS.sub(r"\1}", lines).split("\n")[:-1]
