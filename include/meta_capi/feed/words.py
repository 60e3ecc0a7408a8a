"""The words a feed is written with: names, durations, days, schedules.

Each refuses what it is not with a sentence that says what to write instead.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated, Final
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from meta_capi import money
from meta_capi.data import records
from meta_capi.feed.cron import cron
from meta_capi.normalise import REGIONS, country

__all__ = [
    "FEED_NAME", "ColumnName", "CountryCode", "Cron", "CurrencyCode", "Day", "DayPattern",
    "Duration", "EventName", "PhoneCountry", "PropertyName", "Scalar", "TableName", "Zone",
    "readable_pattern",
]  # fmt: skip

FEED_NAME: Final = r"[a-z][a-z0-9_]{2,47}"
_DURATION: Final = re.compile(r"^(\d{1,6})\s*([smhd])$")
# So long before any moment that we meet there is another, in Python and in PostgreSQL.
_CENTURY: Final = timedelta(days=36_525)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_CRON_SIGNS: Final = r"^\s*[0-9A-Za-z*/,-]+(\s+[0-9A-Za-z*/,-]+){4}\s*$"
_COUNTRIES: Final = frozenset(row["alpha2"] for row in records("countries"))

_ANY_MOMENT: Final = datetime(2026, 1, 31, 13, 59, 58, 123456, tzinfo=UTC)


def _duration(value: object) -> object:
    if isinstance(value, str) and (match := _DURATION.match(value.strip())):
        value = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if isinstance(value, timedelta):
        if value > _CENTURY:
            raise ValueError("is longer than a hundred years; write a shorter one")
        return value
    raise ValueError("is not a duration; write a number and a unit, as 30m, 6h or 7d")


def _zone(value: object) -> object:
    if isinstance(value, str) and value in available_timezones():
        return value
    raise ValueError("is not a time zone; write a name as Europe/Zurich or UTC")


def _day(value: object) -> object:
    """Take a date; 20260131 alone would be read as seconds since 1970."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return datetime.strptime(value, "%Y-%m-%d").date()  # noqa: DTZ007  # a day
        except ValueError:
            pass
    raise ValueError("is not a date; write it as 2026-01-31")


def _cron(value: object) -> object:
    return cron(value if isinstance(value, str) else "")


def _country(value: object, *, codes: frozenset[str], what: str) -> object:
    meant = "write two letters, as CH"
    if isinstance(value, str):
        if value in codes:
            return value
        code = country(value)
        if isinstance(code, str) and code.upper() in codes:
            meant = f"did you mean {code.upper()}?"
    raise ValueError(f"is no {what}; {meant}")


def _currency(value: object) -> object:
    known = money.currency(value) if isinstance(value, str) else None
    if isinstance(known, str) and known == value:
        return value
    meant = f"did you mean {known}?" if isinstance(known, str) else "write one, as EUR"
    raise ValueError(f"is not an ISO 4217 code in use; {meant}")


def _scalar(value: object) -> object:
    if isinstance(value, str | bool | int):
        return value
    raise ValueError("is neither a text nor a whole number nor true or false")


def readable_pattern(value: str) -> str:
    """Take a `strptime` pattern that reads again the day that it writes."""
    try:
        day = datetime.strptime(_ANY_MOMENT.strftime(value), value).date()  # noqa: DTZ007  # a day
    except (ValueError, re.error):  # %d twice is a broken regular expression
        day = None
    if day != _ANY_MOMENT.date():
        raise ValueError(
            "is no pattern of a whole day; write day, month and year once, as %d.%m.%Y"
        )
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(lambda value: f"{int(value.total_seconds())}s", return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": _DURATION.pattern, "examples": ["30m", "6h"]}
    ),
]
DayPattern = Annotated[str, Field(pattern="%"), AfterValidator(readable_pattern)]
Zone = Annotated[
    str,
    BeforeValidator(_zone),
    WithJsonSchema({"type": "string", "examples": ["UTC", "Europe/Zurich"]}),
]
Day = Annotated[date, BeforeValidator(_day)]
Cron = Annotated[
    str,
    BeforeValidator(_cron),
    WithJsonSchema({"type": "string", "pattern": _CRON_SIGNS}),
]
Scalar = Annotated[str | bool | int, BeforeValidator(_scalar)]

# An identifier of the warehouse. Quoted by the dialect when used; this bound keeps
# anything that is not a name out of SQL in the first place.
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_$]{0,62}"
ColumnName = Annotated[str, Field(pattern=rf"^{_NAME}$")]
TableName = Annotated[str, Field(pattern=rf"^(?:{_NAME}\.){{0,2}}{_NAME}$")]
_TWO_LETTERS: Final = WithJsonSchema({"type": "string", "pattern": "^[A-Z]{2}$"})
CountryCode = Annotated[
    str,
    BeforeValidator(
        partial(_country, codes=_COUNTRIES, what="country's code of ISO 3166-1")
    ),
    _TWO_LETTERS,
]
PhoneCountry = Annotated[
    str,
    BeforeValidator(partial(_country, codes=REGIONS, what="country with telephones")),
    _TWO_LETTERS,
]
CurrencyCode = Annotated[
    str,
    BeforeValidator(_currency),
    WithJsonSchema({"type": "string", "pattern": "^[A-Z]{3}$"}),
]
# Blank names are refused by Meta.
EventName = Annotated[str, Field(pattern=r"\S", max_length=50)]
PropertyName = Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,49}$")]
