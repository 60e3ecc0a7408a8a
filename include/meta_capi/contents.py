"""What was bought, item by item: the JSON of a row's contents, or why it cannot go.

Meta refuses the whole request for one item without an id or a quantity (2804008).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeGuard

from meta_capi import spec
from meta_capi.money import amount

__all__ = ["read_contents"]

# "Custom data": what an item may have. Anything else of the row stays at home.
_ITEM_KEYS: Final = (
    "id", "quantity", "item_price", "title", "description", "brand", "category",
    "delivery_category",
)  # fmt: skip
_LARGEST_ID: Final[int] = 10**spec.MAX_EVENT_ID_CHARACTERS
# [choice] As of amounts: nobody bought a quadrillion of anything.
_TOO_LARGE: Final = 10**15


def read_contents(value: object) -> tuple[str, str | None]:
    """Return contents as JSON text, and the reason if they cannot be sent.

    Takes what a JSON column gives: text, or what the driver made of it.

    >>> read_contents('[{"id": 7, "quantity": 1, "colour": "red"}]')
    ('[{"id":"7","quantity":1}]', None)
    >>> read_contents('[{"id": 7}]')
    ('', 'contents.incomplete')
    """
    if isinstance(value, str | bytes):
        value = value.strip() or None
    try:
        items = json.loads(value) if isinstance(value, str | bytes) else value
        if items is None:
            return "", None
        if not isinstance(items, list):
            return "", "contents.unreadable"
        if not all(isinstance(item, dict) for item in items):
            return "", "contents.unreadable"
        if not all(_has_id(item) and _positive(item.get("quantity")) for item in items):
            return "", "contents.incomplete"
        text = json.dumps(
            [_clean_item(item) for item in items],
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
            default=_number,
        )
        text.encode()
    except (ValueError, TypeError, RecursionError):
        return "", "contents.unreadable"
    return (text if items else ""), None


def _has_id(item: Mapping[str, object]) -> bool:
    identity = item.get("id")
    if type(identity) is int:
        return abs(identity) < _LARGEST_ID
    return isinstance(identity, str) and bool(identity)


def _clean_item(item: Mapping[str, object]) -> dict[str, object]:
    """Return what goes out of an item; ValueError where a member has another form."""
    clean = {key: item[key] for key in _ITEM_KEYS if item.get(key) is not None}
    for key, member in clean.items():
        if key == "item_price":
            clean[key] = _price(member)
        elif key == "delivery_category":
            if not isinstance(member, str) or member not in spec.DELIVERY_CATEGORIES:
                raise ValueError
        elif isinstance(member, str):
            if "\0" in member:
                raise ValueError
        elif not _is_number(member):
            raise ValueError  # a list or an object could hold anything, unread
    return clean | {"id": str(item["id"])}


def _price(value: object) -> object:
    """Return a price as it came, or the number that a text means."""
    if isinstance(value, str):
        value = amount(value)
        if isinstance(value, Decimal):
            return float(value)
    if not _is_number(value) or not 0 <= value < _TOO_LARGE:
        raise ValueError
    return value


def _positive(value: object) -> bool:
    return _is_number(value) and 0 < value < _TOO_LARGE


def _is_number(value: object) -> TypeGuard[int | float | Decimal]:
    """Tell whether it is a number that can be compared: neither a NaN nor a bool."""
    match value:
        case bool():
            return False
        case Decimal():
            return not value.is_nan()
        case int() | float():
            return True
    return False


def _number(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError
