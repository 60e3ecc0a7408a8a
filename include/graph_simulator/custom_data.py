"""What Meta's rules ask of `custom_data` (reference, section 4)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Final

from graph_simulator.iso_4217 import CURRENCIES
from graph_simulator.refusals import Refusal, bad_parameter, invalid
from graph_simulator.switches import Switches
from meta_capi.spec import Subcode

# One note says that address keys in the clear bring 2804016 (10.3, low trust).
_CUSTOMER_KEYS: Final = frozenset({
    "em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "email", "phone",
})  # fmt: skip
_CUSTOMER_INFORMATION: Final = 2804016
_DELIVERY_CATEGORIES: Final = ("in_store", "curbside", "home_delivery")
# The guide's own sample sends "142.52" as text (1.3).
_amount = re.compile(r"[+-]?\d+(?:\.\d+)?").fullmatch


def custom_data_refusal(
    event_name: str,
    custom_data: dict[str, object],
    switches: Switches,
    notes: Counter[str],
) -> Refusal | None:
    """Judge one custom_data: money first, then contents, then the other members."""
    value = custom_data.get("value")
    currency = custom_data.get("currency")
    if event_name == "Purchase":
        if value is None or value == "":
            return invalid(Subcode.NO_VALUE, "custom_data", "value")
        if not currency:
            return invalid(Subcode.NO_CURRENCY, "custom_data", "currency")
    elif value is not None and not currency and switches.value_needs_currency:
        return invalid(Subcode.VALUE_WITHOUT_CURRENCY, "custom_data", "currency")
    if value is not None and not _is_amount(value):
        return _bad("value", "must be a finite number, not below zero")
    # Lower case was accepted live; what is not in ISO 4217 is unknown, so refused.
    if currency is not None and (
        not isinstance(currency, str) or currency.upper() not in CURRENCIES
    ):
        return _bad("currency", "must be an ISO 4217 code")
    if "contents" in custom_data:
        refusal = _contents_refusal(custom_data["contents"], switches, notes)
        if refusal is not None:
            return refusal
    if switches.documented and not _CUSTOMER_KEYS.isdisjoint(custom_data):
        return invalid(_CUSTOMER_INFORMATION, "custom_data")
    for key, member in custom_data.items():
        rule = _MEMBERS.get(key)
        if rule is not None and member is not None and not rule[0](member):
            return _bad(key, rule[1])
    return None


def _is_amount(value: object) -> bool:
    # Exact types: true and false are numbers to Python, not to Meta.
    if type(value) is int:
        return value >= 0
    if type(value) is str and _amount(value):
        value = float(value)
    return type(value) is float and value >= 0 and isfinite(value)


def _contents_refusal(
    contents: object, switches: Switches, notes: Counter[str]
) -> Refusal | None:
    if contents is None:
        return None
    path = ("custom_data", "contents")
    if not isinstance(contents, list):
        return invalid(Subcode.CONTENTS, *path)
    for index, item in enumerate(contents):
        if not isinstance(item, dict) or item.get("id") in (None, ""):
            return invalid(Subcode.CONTENTS, *path, index)
        if item.get("quantity") is None:
            if switches.documented:
                return invalid(Subcode.CONTENTS, *path, index, "quantity")
            notes["contents without quantity"] += 1
        category = item.get("delivery_category")
        if category is not None and category not in _DELIVERY_CATEGORIES:
            return bad_parameter(
                "delivery_category is unknown.", *path, index, "delivery_category"
            )
        for amount in ("item_price", "quantity"):
            if item.get(amount) is not None and not _is_amount(item[amount]):
                return bad_parameter(
                    f"{amount} must be a number.", *path, index, amount
                )
    return None


def _is_text(member: object) -> bool:
    return type(member) is str


_TEXT: Final = (_is_text, "must be text")
_AMOUNT: Final = (_is_amount, "must be a finite number, not below zero")
# `value` and `currency` are judged before these.
_MEMBERS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "content_name": _TEXT,
    "content_category": _TEXT,
    "order_id": _TEXT,
    "item_number": _TEXT,
    "search_string": _TEXT,
    "status": _TEXT,
    "lead_event_source": _TEXT,
    "event_source": _TEXT,
    "product_catalog_id": _TEXT,
    "net_revenue": _AMOUNT,
    "predicted_ltv": _AMOUNT,
    "content_ids": (lambda member: isinstance(member, list), "must be a list"),
    "store_data": (lambda member: isinstance(member, dict), "must be an object"),
    "num_items": (
        lambda member: type(member) is int and member >= 0,
        "must be a whole number",
    ),
    "content_type": (
        lambda member: member in ("product", "product_group"),
        "must be product or product_group",
    ),
    "delivery_category": (
        lambda member: member in _DELIVERY_CATEGORIES,
        "must be in_store, curbside or home_delivery",
    ),
}


def _bad(key: str, what: str) -> Refusal:
    return bad_parameter(f"{key} {what}.", "custom_data", key)
