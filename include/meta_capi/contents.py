"""What was bought, item by item: the JSON of a row's contents, or why it cannot go.

Meta refuses the whole request for one item without an id or a quantity (2804008).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from meta_capi import spec

__all__ = ["read_contents"]

# "Custom data": what an item may have. Anything else of the row stays at home.
_ITEM_KEYS: Final = (
    "id", "quantity", "item_price", "title", "description", "brand", "category",
    "delivery_category",
)  # fmt: skip
_LARGEST_ID: Final[int] = 10**spec.MAX_EVENT_ID_CHARACTERS


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
    clean = {key: item[key] for key in _ITEM_KEYS if item.get(key) is not None}
    return clean | {"id": str(item["id"])}


def _positive(value: object) -> bool:
    match value:
        case bool():
            return False
        case Decimal():
            return not value.is_nan() and value > 0  # a NaN cannot be compared
        case int() | float():
            return value > 0
    return False


def _number(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError
