"""Which of a table's columns is what: guessed by names, types and constraints.

Nothing here knows how a feed is written, and nothing sees a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from meta_capi import spec
from meta_capi.column_names import likeness
from meta_capi.relation import Kind, Table

__all__ = [
    "MATCH_KEYS", "PERSONAL", "TEXTS", "Funnel", "Picks", "is_usable", "pick",
]  # fmt: skip

MATCH_KEYS: Final = (*spec.DIGESTED_KEYS, *spec.PLAIN_KEYS)
PERSONAL: Final = ("em", "ph", "fn", "ln", "db")
"""Match keys whose columns may stand in no clear text, so never in a key."""
TEXTS: Final = frozenset({Kind.TEXT, Kind.UNKNOWN})
_WHOLE: Final = TEXTS | {Kind.INTEGER}
_NAMES: Final = _WHOLE | {Kind.UUID}
_TIMES: Final = frozenset({Kind.MOMENT, Kind.LOCAL, Kind.DATE})
_KINDS: Final[Mapping[str, frozenset[Kind]]] = {
    "ph": _WHOLE, "zp": _WHOLE, "db": TEXTS | {Kind.DATE}, "external_id": _NAMES,
    "lead_id": _WHOLE, "fb_login_id": _WHOLE, "subscription_id": _NAMES,
    "madid": _NAMES, "event.id": _NAMES, "order_id": _NAMES,
    "key": _NAMES | {Kind.NUMBER}, "event.time": _WHOLE | _TIMES,
    "value": _WHOLE | {Kind.NUMBER, Kind.FLOAT}, "cursor": _TIMES, "created": _TIMES,
    "consent": _WHOLE | {Kind.BOOLEAN}, "limited_data_use": _WHOLE | {Kind.BOOLEAN},
}  # fmt: skip
_ROLES: Final = (
    *MATCH_KEYS, "event.id", "event.time", "cursor", "created", "value", "currency",
    "order_id", "key", "consent", "limited_data_use",
)  # fmt: skip
# An identifier as a feed takes it (feed/words.py).
_USABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")


def is_usable(name: str) -> bool:
    """Tell whether a column of this name can stand in a feed."""
    return bool(_USABLE.fullmatch(name))


@dataclass(frozen=True, slots=True)
class Funnel:
    """The stages that a CRM's column names, or why they are not told."""

    column: str
    map: tuple[tuple[str, str], ...] = ()
    """Stages with Meta's event, in the order in which leads reach them."""
    ignore: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    untold: int = 0
    """Values that one row alone has."""
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """Which column is what."""

    table: Table
    roles: Mapping[str, str]
    """Match keys and the parts of a feed, to the columns that look like them."""
    key: tuple[str, ...]
    key_why: str
    cursor: str | None
    cursor_why: str
    funnel: Funnel | None = None
    """What a column of stages says; None where there is none."""

    def kind(self, role: str) -> Kind:
        """Return what the role's column holds."""
        return self.table.kinds[self.roles[role]]

    def alike(self, role: str) -> Iterator[str]:
        """Yield the columns whose names speak of the role, whatever they hold."""
        return (each for each in self.table.kinds if likeness(each, role))


def pick(table: Table, *, key: Sequence[str] = (), cursor: str | None = None) -> Picks:
    """Guess what the columns are; `key` and `cursor` are what somebody said."""
    found = {role: column for role in _ROLES if (column := _likest(table, role))}
    if time := found.get("event.time") or found.get("created") or _only_time(table):
        found["event.time"] = time
    personal = {found[role] for role in PERSONAL if role in found}
    key_why = cursor_why = ""
    if not key:
        key, key_why = _key(table, found, personal)
    if not cursor:
        cursor, cursor_why = _cursor(table, found)
    if found.get("order_id") in personal:
        del found["order_id"]
    return Picks(
        table=table, roles=found, key=tuple(key), key_why=key_why, cursor=cursor,
        cursor_why=cursor_why,
    )  # fmt: skip


def _likest(table: Table, role: str) -> str | None:
    """Return the column whose name is likest a role, and whose type fits it."""
    alike = [
        (likest, place, column)
        for place, (column, kind) in enumerate(table.kinds.items())
        if is_usable(column)
        and kind in _KINDS.get(role, TEXTS)
        and (likest := likeness(column, role))
    ]
    return min(alike)[2] if alike else None


def _only_time(table: Table) -> str | None:
    """Return the only timestamp, birthdays and times of corrections apart."""
    times = [
        column
        for column, kind in table.kinds.items()
        if kind in _TIMES
        and is_usable(column)
        and not likeness(column, "db")
        and not likeness(column, "cursor")
    ]
    return times[0] if len(times) == 1 else None


def _key(
    table: Table, found: Mapping[str, str], personal: set[str]
) -> tuple[tuple[str, ...], str]:
    """Return what names a row, and why it is thought to."""

    def names_rows(column: str) -> bool:
        fits = table.kinds[column] in _KINDS["key"] | _TIMES
        return fits and is_usable(column) and column not in personal

    for columns in table.keys:
        if len(columns) <= 4 and all(map(names_rows, columns)):
            return columns, "the database keeps it unique"
    for role in ("order_id", "key"):
        if (column := found.get(role)) and names_rows(column):
            return (column,), "by its name; does it name a row for ever, and one only?"
    return (), ""


def _cursor(table: Table, found: Mapping[str, str]) -> tuple[str | None, str]:
    """Return what says when a row became known, and why it is thought to."""
    if column := found.get("cursor"):
        return column, "by its name; when the row became known?"
    if column := found.get("created"):
        return column, "when the row was made; no column says when it was corrected"
    column = found.get("event.time")
    if column and table.kinds[column] in _TIMES:
        return column, "only the event's time was found; rows that come late are missed"
    return None, ""
