"""Cron expressions that Airflow takes, and that come some day: five fields of numbers.

As croniter 6 reads them, which Airflow's timetables ask: names, lists, ranges, also over the
end, and steps. Its extensions for the last day or the second Tuesday of a month are left
out: Meta takes most events for seven days.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["cron"]

_TERM: Final = re.compile(
    r"(\*|[0-9]{1,3}|[a-z]+)(?:-([0-9]{1,3}|[a-z]+))?(?:/([0-9]{1,3}))?"
)
# The longest of each month; 29 February comes.
_LAST_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five: what it is called, and what may stand in it."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def values(self, text: str) -> set[int]:
        """Return what the field stands for."""
        if text == "*":
            return set(range(self.low, self.high + 1))
        return {value for term in text.split(",") for value in self._term(term)}

    def _term(self, term: str) -> list[int]:
        found = _TERM.fullmatch(term.lower())
        if found is None or (found[1] == "*" and (found[2] or not found[3])):
            raise ValueError(
                f"has {term!r} for its {self.name}; write *, numbers, ranges as 1-5, "
                "steps as */5, or a list of them"
            )
        first, last, step = found[1], found[2], int(found[3] or 1)
        if step == 0:
            raise ValueError(f"has a step of 0 for its {self.name}; write at least 1")
        low = self.low if first == "*" else self._number(first)
        if last is None:
            high = self.high if found[3] else low
            return list(range(low, high + 1, step))
        high = self._number(last)
        if low < high:
            return list(range(low, high + 1, step))
        # croniter reads 5-5 as every minute there is, and counts a step that goes over
        # the end in a way of its own.
        if low == high or found[3]:
            raise ValueError(
                f"has {term!r} for its {self.name}; write a range from less to more"
            )
        return [*range(low, self.high + 1), *range(self.low, high + 1)]

    def _number(self, text: str) -> int:
        if text in self.names:
            return self.low + self.names.index(text)
        if not text.isdecimal() or not self.low <= int(text) <= self.high:
            names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
            raise ValueError(
                f"has {text!r} for its {self.name}; write {self.low} to {self.high}{names}"
            )
        return int(text)


_MONTHS: Final = (
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
)  # fmt: skip
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _WEEKDAYS),  # Sunday is 0 and 7
)


def cron(text: str) -> str:
    """Return a cron expression, one space between its fields.

    Raises:
        ValueError: it is none, or it never comes; with what to write.
    """
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            "is not a cron expression; write five fields in quotes, as '5 * * * *' for "
            "every hour"
        )
    values = [field.values(part) for field, part in zip(_FIELDS, parts, strict=True)]
    _, _, days, months, _ = values
    # A weekday, where one is named, is another day on which it comes.
    if parts[4] == "*" and min(days) > max(_LAST_DAYS[month - 1] for month in months):
        raise ValueError(
            f"never comes: no such month has a day {min(days)}; name another day or month"
        )
    return " ".join(parts)
