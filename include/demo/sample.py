"""Sixty days of a shop that never was: sales, calls, leads, and all their dirt.

The same seed and the same last moment make the same rows, on any machine. Rows are made
one by one, so that a million of them need no more memory than ten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

from demo.faults import DUPLICATE, FAULTS
from demo.people import person

__all__ = ["COLUMNS", "KEYS", "Row", "generate"]

Row = tuple[str | None, ...]
"""One row as text, the way `copy` takes it, in the order of `COLUMNS`."""

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "offline_purchases": (
        "order_id", "store_id", "store_country", "purchased_at", "loaded_at", "amount",
        "currency", "items", "email", "phone", "first_name", "last_name", "birthday",
        "gender", "city", "state", "postcode", "country", "customer_id",
        "marketing_consent", "limited_data_use",
    ),
    "phone_orders": (
        "order_id", "agent_id", "called_at", "loaded_at", "amount", "currency", "items",
        "email", "phone", "first_name", "last_name", "birthday", "city", "postcode",
        "country", "customer_id", "marketing_consent",
    ),
    "lead_stages": (
        "lead_key", "stage", "stage_at", "lead_created_at", "updated_at", "lead_id",
        "email", "phone", "first_name", "last_name", "country",
    ),
    "sample_faults": ("table_name", "row_key", "fault"),
}  # fmt: skip
KEYS: Final = {
    "offline_purchases": ("order_id",),
    "phone_orders": ("order_id",),
    "lead_stages": ("lead_key", "stage"),
}

_PURCHASES: Final = 25_000
_CALLS: Final = 6_500
_LEADS: Final = 5_000
_CUSTOMERS_PER_PURCHASE: Final = 0.6
_SPAN: Final = 60 * 86_400
_SPOILT: Final = 0.04
# Faults follow their rows after so many: small enough for memory, large for `copy`.
_BLOCK: Final = 10_000

_ZURICH: Final = ZoneInfo("Europe/Zurich")
_DECIMALS: Final = {"JPY": 0, "KRW": 0, "KWD": 3}
_LDU_STATES: Final = frozenset({"CA", "California", "TX", "OR"})
# Chance to reach the next stage, and how long that takes, in seconds.
_FUNNEL: Final = (
    ("contacted", 0.8, 2 * 86_400),
    ("qualified", 0.6, 4 * 86_400),
    ("opportunity", 0.6, 6 * 86_400),
    ("customer", 0.5, 9 * 86_400),
)

Draw = Callable[[], float]


def generate(
    *, seed: int, until: datetime, scale: float = 1.0
) -> Iterator[tuple[str, Row]]:
    """Yield every row of the sample with its table; nothing is dated `until` or later.

    Rows of one table come in long runs, each followed by its `sample_faults`. Scale 1
    is 25,000 purchases, 6,500 calls, and 5,000 leads with 13,000 stages.
    """
    end = int(until.timestamp())
    makers = (
        ("offline_purchases", _purchases, _PURCHASES),
        ("phone_orders", _calls, _CALLS),
        ("lead_stages", _stages, _LEADS),
    )
    for table, make, count in makers:
        draw = Random(f"{seed} {table}").random
        rows = make(seed, end, max(1, round(count * scale)), draw)
        yield from _with_faults(table, rows, draw)


def _with_faults(
    table: str, rows: Iterator[Row], draw: Draw
) -> Iterator[tuple[str, Row]]:
    columns, keys = COLUMNS[table], KEYS[table]
    waiting = deque(FAULTS[table])
    found: list[Row] = []
    for number, row in enumerate(rows, start=1):
        if draw() < _SPOILT:
            cells = dict(zip(columns, row, strict=True))
            fault = next(fault for fault in waiting if fault.applies(cells))
            waiting.remove(fault)
            waiting.append(fault)
            cells |= fault.change(cells)
            found.append((table, "|".join(str(cells[key]) for key in keys), fault.name))
            yield table, tuple(cells.values())
            if fault.name == DUPLICATE:
                yield table, row
        else:
            yield table, row
        if number % _BLOCK == 0:
            yield from (("sample_faults", each) for each in found)
            found.clear()
    yield from (("sample_faults", each) for each in found)


def _purchases(seed: int, end: int, count: int, draw: Draw) -> Iterator[Row]:
    customers = count * _CUSTOMERS_PER_PURCHASE
    for number, at in enumerate(_moments(end, count, 1.6, draw)):
        who = person(int(draw() * customers), seed)
        total, items = _basket(who.currency, draw)
        limited = who.state in _LDU_STATES and draw() < 0.3
        yield (
            f"S-{number:09d}", f"{who.country}-{int(draw() * 40):03d}", who.country,
            _utc(at), _utc(min(at + 120 + int(draw() * 5_400), end - 1)),
            total, who.currency, items, who.email, who.phone, who.first_name,
            who.last_name, who.birthday, who.gender, who.city, who.state, who.postcode,
            who.country, who.customer_id, "true", "true" if limited else "false",
        )  # fmt: skip


def _calls(seed: int, end: int, count: int, draw: Draw) -> Iterator[Row]:
    customers = count * _CUSTOMERS_PER_PURCHASE
    for number, at in enumerate(_moments(end, count, 4.0, draw)):
        who = person(int(draw() * customers), seed)
        total, items = _basket(who.currency, draw)
        call = datetime.fromtimestamp(at, _ZURICH)
        year, month, day = who.birthday.split("-")
        yield (
            f"P-{number:09d}", f"agent-{int(draw() * 12):02d}",
            f"{call:%d.%m.%Y %H:%M}",
            _utc(min(at + 120 + int(draw() * 1_800), end - 1)),
            _with_comma(total), who.currency, items, who.email, who.national_phone,
            who.first_name, who.last_name, f"{day}.{month}.{year}", who.city,
            who.postcode, None if who.country == "CH" else who.country,
            who.customer_id, "yes",
        )  # fmt: skip


def _stages(seed: int, end: int, count: int, draw: Draw) -> Iterator[Row]:
    for number, created in enumerate(_moments(end, count, 3.0, draw)):
        who = person(number, seed)
        lead_id = str(10**14 + int(draw() * (10**17 - 10**14)))
        for stage, at in _history(created, draw):
            if at >= end - 1:
                break
            yield (
                f"L-{number:08d}", stage, str(at), _utc(created),
                _utc(min(at + 30 + int(draw() * 600), end - 1)), lead_id, who.email,
                who.phone, who.first_name, who.last_name, who.country,
            )  # fmt: skip


def _history(created: int, draw: Draw) -> Iterator[tuple[str, int]]:
    at = created + 60 + int(draw() * 540)
    yield "new", at
    for stage, chance, seconds in _FUNNEL:
        at += 600 + int(draw() * seconds)
        if draw() > chance:
            yield "lost", at
            return
        yield stage, at


def _moments(end: int, count: int, lean: float, draw: Draw) -> Iterator[int]:
    """Yield ascending seconds within the span; more `lean` means more recent ones."""
    for number in range(count):
        age = _SPAN * (1 - (number + draw()) / count) ** lean
        yield min(int(end - age), end - 660)


def _basket(currency: str, draw: Draw) -> tuple[str, str]:
    """Return what a basket costs, and its items as JSON."""
    decimals = _DECIMALS.get(currency, 2)
    total = 0
    items = []
    for _ in range(1 + int(draw() * draw() * 4)):
        price = 100 + int(draw() * draw() * 30_000)
        quantity = 1 + int(draw() * draw() * 3)
        total += price * quantity
        items.append(
            f'{{"id": "SKU-{int(draw() * 5_000):05d}", "quantity": {quantity}, '
            f'"item_price": {_decimal(price, decimals)}}}'
        )
    return _decimal(total, decimals), f"[{', '.join(items)}]"


def _decimal(units: int, decimals: int) -> str:
    if not decimals:
        return str(units)
    whole, part = divmod(units, 10**decimals)
    return f"{whole}.{part:0{decimals}d}"


def _with_comma(amount: str) -> str:
    """Write an amount as in Zurich's exports: 1234.50 as 1.234,50."""
    whole, _, part = amount.partition(".")
    return f"{int(whole):,}".replace(",", ".") + f",{part}" if part else whole


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
