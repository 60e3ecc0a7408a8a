"""Numbers and times in words: the terminal and the page say them alike."""

from __future__ import annotations

from datetime import datetime, timedelta

__all__ = ["ago", "moment", "number", "percent"]


def moment(at: datetime | None) -> str:
    """Return a moment to the minute; empty for none."""
    return f"{at:%Y-%m-%d %H:%M} {at.tzname() or ''}".rstrip() if at else ""


def ago(span: timedelta) -> str:
    """Return a span of time in one unit.

    >>> ago(timedelta(minutes=90)), ago(timedelta(days=3))
    ('90 minutes', '3 days')
    """
    seconds = max(int(span.total_seconds()), 0)
    for unit, size, least in (
        ("days", 86_400, 2),
        ("hours", 3_600, 2),
        ("minutes", 60, 2),
    ):
        if seconds >= size * least:
            return f"{seconds // size:,} {unit}"
    return f"{seconds:,} seconds"


def number(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun.

    >>> number(1, "row"), number(2000, "batch", "batches")
    ('1 row', '2,000 batches')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """Return a share in percent.

    >>> percent(0.123)
    '12.3%'
    """
    return f"{share:.1%}"
