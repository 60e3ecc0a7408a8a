"""The part of a feed that says what people are told of."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from meta_capi.feed.parts import Part
from meta_capi.feed.words import Duration

__all__ = ["Alerts"]


class Alerts(Part):
    """What people are told of, if Airflow names a channel to tell it by."""

    failures: bool = True
    """Failed runs of the feed, and failed tending."""
    quarantined_share: float | None = Field(default=0.05, ge=0, le=1)
    """More than this share in quarantine, of the rows that became known today and
    yesterday. `null` here, or below, means never."""
    refused_share: float | None = Field(default=0.01, ge=0, le=1)
    """More than this share of them refused by Meta."""
    least_rows: int = Field(default=20, ge=1)
    """Shares are judged from so many rows on."""
    empty_days: int | None = Field(default=2, ge=1, le=14)
    """No row on so many whole days, although the source was read; days of the week on
    which there usually is none do not count."""
    unusual_share: float | None = Field(default=0.5, ge=0.1, le=10)
    """The last whole day is this far from the usual count, up or down: the median of the
    same day of the last four weeks, where at least three of them are known."""
    least_usual: int = Field(default=50, ge=1)
    """The count is judged where so many rows are usual."""
    in_doubt: int | None = Field(default=0, ge=0)
    """More than so many events in doubt."""
    in_doubt_after: Duration = timedelta(hours=1)
    """For so long; before, `tend_deliveries` may settle it by itself."""
    expiring: int | None = Field(default=0, ge=0)
    """More than so many deliveries that Meta soon takes no more."""
    expiring_within: Duration = timedelta(hours=24)
    """How soon."""
    token_expires_within: Duration = timedelta(days=14)
    """How long before the connection's *Token expires* to tell of it."""
    graph_version_within: Duration = timedelta(days=90)
    """How long before the end of the two years for which Meta promises a version."""
    remind_after: Duration = timedelta(hours=24)
    """Tell again of what is not over."""
