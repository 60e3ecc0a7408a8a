"""Moments: what a database gives as the time of an event, in whole seconds since 1970.

No zone is guessed and no clock is read. Seconds are floored, so that an event is never
later than it was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timezone
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from meta_capi.normalise import Flaw, text_of

__all__ = ["each_epoch_seconds", "epoch_seconds"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = 86_400
# Other zones may give no offset.
_SURE_ZONES: Final = frozenset({timezone, ZoneInfo})
# The year 5138. Milliseconds since 1970 have been larger since March 1973.
_MOST_SECONDS: Final = 10**11
_UNITS: Final = {"epoch_seconds": 1, "epoch_milliseconds": 1_000}

# datetime.fromisoformat takes any sign between date and time, so it would read the
# milliseconds 1712103021230 as a day in October 1712.
_ISO: Final = re.compile(r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})(?:[T ][0-9].*)?")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?")


def epoch_seconds(
    value: object,
    *,
    format: str,  # noqa: A002 - the feed's own word
    zone: ZoneInfo | None,
) -> int | Flaw | None:
    """Return the moment in seconds since 1970, UTC, or None for nothing.

    `format` is the feed's: `timestamp`, `epoch_seconds`, `epoch_milliseconds`, or a
    `strptime` pattern. `zone` is that of values that carry none; a date is its first
    moment there. What a clock change repeats is the earlier of the two moments; what it
    leaves out is read with the offset before the change.

    >>> epoch_seconds("2026-11-20T12:00:00Z", format="timestamp", zone=None)
    1795176000
    >>> epoch_seconds("2026-11-20 12:00:00", format="timestamp", zone=None)
    <Flaw.TIME_NO_ZONE: 'time.no_zone'>
    """
    match value:
        case bool():
            return Flaw.TIME_UNREADABLE
        case datetime():  # the type says more than the format
            return _seconds(value, zone)
        case date():
            return _seconds(datetime(value.year, value.month, value.day), zone)  # noqa: DTZ001 - the zone is the caller's
        case int() | float() | Decimal():
            return _from_number(value, format)
    text = text_of(value)
    if text is None:
        return None
    if isinstance(text, Flaw):
        return Flaw.TIME_UNREADABLE
    return _from_text(text.strip(), format, zone)


def each_epoch_seconds(
    column: Sequence[object],
    *,
    format: str,  # noqa: A002
    zone: ZoneInfo | None,
) -> list[int | Flaw | None]:
    """Return `epoch_seconds` of every value; of most it is a subtraction."""
    return [
        (since := value - _EPOCH).days * _DAY + since.seconds
        if type(value) is datetime and type(value.tzinfo) in _SURE_ZONES
        else epoch_seconds(value, format=format, zone=zone)
        for value in column
    ]


def _from_text(text: str, format: str, zone: ZoneInfo | None) -> int | Flaw:  # noqa: A002
    if format in _UNITS:
        if not _NUMBER.fullmatch(text):
            return Flaw.TIME_UNREADABLE
        return _from_number(Decimal(text), format)
    is_iso = format == "timestamp"
    # %Z reads a zone's name and drops it: the hour would be another zone's.
    if "%Z" in format or (is_iso and not _ISO.fullmatch(text)):
        return Flaw.TIME_UNREADABLE
    try:
        moment = (
            datetime.fromisoformat(text) if is_iso else datetime.strptime(text, format)  # noqa: DTZ007 - as above
        )
    except ValueError:
        return Flaw.TIME_UNREADABLE
    return _seconds(moment, zone)


def _seconds(moment: datetime, zone: ZoneInfo | None) -> int | Flaw:
    if moment.utcoffset() is None:
        if zone is None:
            return Flaw.TIME_NO_ZONE
        moment = moment.replace(tzinfo=zone, fold=0)
    # Subtracting never leaves the years 1 to 9999, as converting to UTC would.
    since = moment - _EPOCH
    return since.days * _DAY + since.seconds


def _from_number(number: float | Decimal, format: str) -> int | Flaw:  # noqa: A002
    unit = _UNITS.get(format)
    if unit is None or not _is_finite(number):
        return Flaw.TIME_UNREADABLE
    # Fewer milliseconds would be before March 1973: they are seconds.
    least = _MOST_SECONDS if unit > 1 else 0
    if not least <= number <= _MOST_SECONDS * unit:
        return Flaw.TIME_NOT_SECONDS
    return math.floor(number) // unit


def _is_finite(number: float | Decimal) -> bool:
    match number:
        case int():  # math.isfinite cannot hold 10^400
            return True
        case Decimal():
            return number.is_finite()
    return math.isfinite(number)
