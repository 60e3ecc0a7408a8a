"""The feed's rules as SQL conditions: which rows are an interval's, which will be held.

They count and filter; the event builder decides. Moments are brought to what a column
holds, so that an index on the column is used and the session's time zone is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from meta_capi.errors import ConfigurationError, SourceError
from meta_capi.feed import Feed
from meta_capi.privacy import matches, words_of
from meta_capi.relation import Kind, Relation

__all__ = ["Condition", "Interval", "countable", "readable", "within"]

Condition = sa.ColumnElement[bool]

_SOON: Final = timedelta(hours=24)
# What Python's datetime can hold in any zone. PostgreSQL has 'infinity' and the year
# 294276, and its driver gives up the whole fetch at one of them.
_EARLIEST: Final = datetime(2, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9998, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Interval:
    """When rows became known: from `start`, up to but without `end`."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ConfigurationError(
                "An interval's times carry no zone; write them with one, as +00:00.",
                code="fault.interval",
            )
        if self.start >= self.end:
            raise ConfigurationError(
                "The interval ends before it begins; swap its two times.",
                code="fault.interval",
            )


def within(feed: Feed, relation: Relation, interval: Interval) -> Condition:
    """Test the cursor against the interval.

    Where clocks go back, an hour of local time stands for two: its rows are read with
    the later interval or with both. A date says only the day: until it is over, rows
    may still get it, so an interval has each day that it touches. None is lost; the
    ledger makes repeats harmless.
    """
    name = feed.source.cursor.column
    column, kind = relation.column(name), relation.kind(name)
    since = interval.start
    if kind is Kind.DATE:
        local = since.astimezone(feed.cursor_zone)
        since = datetime.combine(local, time.min, feed.cursor_zone)
    start = _bound(kind, since, feed.cursor_zone)
    end = _bound(kind, interval.end, feed.cursor_zone)
    if start is None or end is None:
        raise SourceError(
            f"The cursor {name} holds {kind.value}; name a timestamp or date column."
        )
    return sa.and_(column >= start, column < end)


def readable(relation: Relation, name: str) -> sa.ColumnElement[Any]:
    """Return a column as it is best read: JSON as its text, readable times only.

    The driver would parse JSON of rows that are then withheld, 7 us a row; the event
    builder parses what it sends.
    """
    column, kind = relation.column(name), relation.kind(name)
    if isinstance(column.type, sa.JSON):
        return sa.cast(column, sa.Text()).label(name)
    if not kind.is_time:
        return column
    low, high = _bound(kind, _EARLIEST, UTC), _bound(kind, _LATEST, UTC)
    return sa.case((sa.and_(column >= low, column < high), column)).label(name)


def countable(
    feed: Feed, relation: Relation, now: datetime
) -> dict[str, Condition | None]:
    """Return a test for each kind that `Counts` has; None where SQL cannot know."""
    oldest = now - feed.longest_window + feed.window.margin
    too_old = _before(feed, relation, oldest)
    soon = _before(feed, relation, oldest + _SOON)
    ripe = _before(feed, relation, now - feed.holding_period)
    return {
        "without_key": sa.or_(*(_is_empty(relation, name) for name in feed.source.key)),
        "withheld": _withheld(feed, relation),
        "too_old": too_old,
        "expires_within_24h": None
        if soon is None or too_old is None
        else sa.and_(soon, sa.not_(too_old)),
        "held_back": None
        if ripe is None
        else sa.and_(sa.literal(bool(feed.holding_period)), sa.not_(ripe)),
    }


def _bound(kind: Kind, moment: datetime, zone: tzinfo) -> sa.ColumnElement[Any] | None:
    """Return a moment to compare such a column with; None if it holds no times."""
    local = moment.astimezone(zone).replace(tzinfo=None)
    match kind:
        case Kind.MOMENT | Kind.UNKNOWN:
            return sa.literal(moment.astimezone(UTC), sa.DateTime(timezone=True))
        case Kind.LOCAL:
            return sa.literal(local, sa.DateTime())
        case Kind.DATE:
            # A date is its midnight: the first midnight that is not before the moment.
            later = timedelta(days=0 if local.time() == time.min else 1)
            return sa.literal(local.date() + later, sa.Date())
    return None


def _before(feed: Feed, relation: Relation, moment: datetime) -> Condition | None:
    """Return the test *the event is older than this*; None where SQL cannot know."""
    part = feed.event.time
    column, kind = relation.column(part.column), relation.kind(part.column)
    if part.format.startswith("epoch_") and kind in (Kind.INTEGER, Kind.NUMBER):
        unit = 1_000 if part.format == "epoch_milliseconds" else 1
        return column < int(moment.timestamp()) * unit
    if kind is not Kind.MOMENT and part.timezone is None:
        return None
    bound = _bound(kind, moment, ZoneInfo(part.timezone or "UTC"))
    return None if bound is None else column < bound


def _withheld(feed: Feed, relation: Relation) -> Condition:
    """Return the test *no consent*, by the event builder's rule: blind to case."""
    name = feed.consent.column
    if name is None:
        return sa.false()
    column = relation.column(name)
    if relation.kind(name) is Kind.BOOLEAN:
        # As text a dialect writes true, t or 1; so booleans are not compared as text.
        flags = filter(matches(feed.consent.granted), (True, False))
        given = sa.or_(sa.false(), *(column.is_(flag) for flag in flags))
    else:
        text = sa.func.lower(sa.func.trim(sa.cast(column, sa.String())))
        given = text.in_(sorted(words_of(feed.consent.granted)))
    return sa.or_(column.is_(None), sa.not_(given))


def _is_empty(relation: Relation, name: str) -> Condition:
    column = relation.column(name)
    if relation.kind(name) is not Kind.TEXT:
        return column.is_(None)
    return sa.or_(column.is_(None), sa.func.trim(column) == "")
