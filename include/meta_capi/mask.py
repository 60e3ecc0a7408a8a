"""What may be shown: the shape of a customer's data, and what is no person's.

At most the first character of a text, and only of a text long enough not to be told by
it. A digest is as personal as what it was made from: a few of its characters are shown,
enough to tell two apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from meta_capi import match_keys, spec

__all__ = ["shape", "shown"]

_LEAST_FOR_FIRST_LETTER: Final = 4
_DIGEST_CHARACTERS: Final = 4
# Members of custom_data that are ids, codes and the feed's own words.
_PLAIN_MEMBERS: Final = frozenset({
    "brand", "category", "content_category", "content_type", "currency",
    "delivery_category", "event_source", "id", "item_number", "lead_event_source",
    "order_id", "product_catalog_id", "status",
})  # fmt: skip


def shape(value: object) -> str:
    """Describe a value without telling it.

    >>> shape("mary.jones@example.com")
    'm•••@••• (22 characters)'
    >>> shape("(650) 555-0142")
    '14 characters, 10 digits'
    >>> shape("US"), shape("  "), shape(None)
    ('2 characters', 'blank (2 characters)', 'empty')
    """
    match value:
        case None | "":
            return "empty"
        case bool():
            return "true or false"
        case int():
            return f"a whole number of {len(str(abs(value)))} digits"
        case float() | Decimal():
            return "a number"
        case datetime():
            return "a time"
        case date():
            return "a date"
        case str():
            return _text(value)
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
    return f"a value of type {type(value).__name__}"


def _text(text: str) -> str:
    size = "1 character" if len(text) == 1 else f"{len(text)} characters"
    core = text.strip()
    if not core:
        return f"blank ({size})"
    if isinstance(match_keys.prehashed(core), str) and len(core) >= 64:
        return "a SHA-256 digest"
    digits = sum(map(str.isdigit, core))
    if digits and not any(map(str.isalpha, core)):
        return f"{size}, {digits} digits"
    if len(core) < _LEAST_FOR_FIRST_LETTER or not core[0].isalpha():
        return size
    return f"{core[0]}•••{'@•••' if '@' in core else ''} ({size})"


def shown(body: bytes, *, exact: bool) -> Iterator[str]:
    """Yield the lines of an event's JSON, as it would be sent but for personal values.

    Args:
        body: the event's bytes.
        exact: show whole digests. Values that Meta gets in clear never are.
    """
    event = json.loads(body, parse_float=Decimal)
    event["user_data"] = {
        key: _match_key(key, value, exact) for key, value in event["user_data"].items()
    }
    if "custom_data" in event:
        event["custom_data"] = _business(event["custom_data"])
    yield from _lines(event)


def _match_key(key: str, value: Any, exact: bool) -> Any:
    if isinstance(value, list):
        return [_match_key(key, each, exact) for each in value]
    if key not in spec.DIGESTED_KEYS:
        return shape(str(value))
    return value if exact else f"{value[:_DIGEST_CHARACTERS]}…"


def _business(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _business(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_business(each, name) for each in value]
    if isinstance(value, str) and name not in _PLAIN_MEMBERS:
        return shape(value)
    return value


def _lines(
    value: Any, label: str = "", indent: str = "", end: str = ""
) -> Iterator[str]:
    """Write JSON by hand: its own writer would turn 12.50 into 12.5."""
    inner = indent + "  "
    if isinstance(value, dict):
        members = [(f"{json.dumps(key)}: ", each) for key, each in value.items()]
        opening, closing = "{", "}"
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        members = [("", each) for each in value]
        opening, closing = "[", "]"
    else:
        number = isinstance(value, Decimal)
        text = str(value) if number else json.dumps(value, ensure_ascii=False)
        yield f"{indent}{label}{text}{end}"
        return
    yield f"{indent}{label}{opening}"
    for place, (name, each) in enumerate(members, 1):
        yield from _lines(each, name, inner, "," if place < len(members) else "")
    yield f"{indent}{closing}{end}"
