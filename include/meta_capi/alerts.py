"""What deserves a person's attention: from a feed's figures to alerts.

Nothing here is read, remembered or sent. A sentence quotes what we made (names, counts,
days) and nothing of a row.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Final

from meta_capi import spec
from meta_capi.feed import Feed
from meta_capi.lifecycle import State
from meta_capi.words import number, percent

__all__ = ["ABOUT", "HISTORY", "About", "Alert", "Kind", "Outlook", "Severity", "judge"]

HISTORY: Final = timedelta(days=40)
"""How far back the figures reach: four weeks before any day that may be judged."""
_WEEKS: Final = 4
_FEWEST_WEEKS: Final = 3
# A day is judged for so long after it ended; then nobody reads the source any more, and
# failed runs have been told of.
_STALE: Final = timedelta(days=3)


class Severity(StrEnum):
    """How soon somebody should look."""

    CRITICAL = "critical"
    WARNING = "warning"


class Kind(StrEnum):
    """What is told of: one open alert a feed and kind."""

    RUN_FAILED = "run_failed"
    TENDING_FAILED = "tending_failed"
    EMPTY_SOURCE = "empty_source"
    UNUSUAL_COUNT = "unusual_count"
    QUARANTINED = "quarantined_share"
    REFUSED = "refused_share"
    IN_DOUBT = "in_doubt"
    EXPIRING = "expiring"
    TOKEN = "token_expiring"  # noqa: S105  # a kind's name
    GRAPH_VERSION = "graph_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What there is to know about a kind of alert."""

    severity: Severity
    when: str
    action: str
    over: str
    """What is said when it is over."""
    settings: tuple[str, ...]
    """The words of the feed file that decide, under `alerts`."""
    anchor: str | None = None
    """Where the runbook goes on."""


ABOUT: Final[Mapping[Kind, About]] = {
    Kind.RUN_FAILED: About(
        severity=Severity.CRITICAL,
        when="A run of the feed failed, after its retries.",
        action="Read the failed task's log; its last lines say what to do. Clearing the "
        "task sends nothing twice.",
        over="A run of the feed went through.",
        settings=("failures",),
        anchor="where-to-look-first",
    ),
    Kind.TENDING_FAILED: About(
        severity=Severity.CRITICAL,
        when="`tend_deliveries` failed for the feed, after its retry, or its file is wrong.",
        action="Read the log of the feed's task in tend_deliveries. What is pending stays "
        "pending meanwhile.",
        over="The feed was tended again.",
        settings=("failures",),
        anchor="where-to-look-first",
    ),
    Kind.EMPTY_SOURCE: About(
        severity=Severity.CRITICAL,
        when="The source was read, and no row became known on the last whole days.",
        action="Ask whoever loads the source, and look whether the feed's table and cursor "
        "are still the right ones.",
        over="Rows became known again.",
        settings=("empty_days",),
        anchor="late-rows",
    ),
    Kind.UNUSUAL_COUNT: About(
        severity=Severity.WARNING,
        when="The last whole day has far fewer or far more rows than is usual on that day "
        "of the week.",
        action="If it is no holiday and no sale, compare the source with what was loaded.",
        over="The last whole day has as many rows as is usual.",
        settings=("unusual_share", "least_usual"),
        anchor="late-rows",
    ),
    Kind.QUARANTINED: About(
        severity=Severity.WARNING,
        when="Too large a share of the rows of today and yesterday is in quarantine.",
        action="Look at the most common reasons on the Conversions page; correct the "
        "source, then replay.",
        over="The share in quarantine is back to normal.",
        settings=("quarantined_share", "least_rows"),
        anchor="quarantine",
    ),
    Kind.REFUSED: About(
        severity=Severity.WARNING,
        when="Meta refused too large a share of the rows of today and yesterday.",
        action="Look at the reasons on the Conversions page; each says what Meta wants.",
        over="The share that Meta refuses is back to normal.",
        settings=("refused_share", "least_rows"),
        anchor="refused",
    ),
    Kind.IN_DOUBT: About(
        severity=Severity.CRITICAL,
        when="Events have been in doubt for a while: Meta may have them, and nobody knows.",
        action="See `meta-capi status`; compare with Events Manager, then settle them.",
        over="No event is in doubt for long.",
        settings=("in_doubt", "in_doubt_after"),
        anchor="in-doubt",
    ),
    Kind.EXPIRING: About(
        severity=Severity.WARNING,
        when="Deliveries that are not at Meta will soon be too old for it.",
        action="Find out why they wait: correct and replay what is in quarantine.",
        over="Nothing is about to expire.",
        settings=("expiring", "expiring_within"),
        anchor="expired",
    ),
    Kind.TOKEN: About(
        severity=Severity.CRITICAL,
        when="The connection's *Token expires* is near, or past.",
        action="Make a new token in Events Manager or for the system user; put it and its "
        "day into the connection.",
        over="The token is good for longer.",
        settings=("token_expires_within",),
        anchor="meta-takes-nothing",
    ),
    Kind.GRAPH_VERSION: About(
        severity=Severity.WARNING,
        when="The two years for which Meta promises the connection's Graph version end "
        "soon, or have ended.",
        action="Bring this program up to date, or name a newer version in the connection; "
        "try it with a test dataset first.",
        over="The Graph version is young enough.",
        settings=("graph_version_within",),
        anchor="meta-takes-nothing",
    ),
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that somebody should look at."""

    kind: Kind
    sentence: str
    figure: float = 0.0
    """How bad it is; 0 where that says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The figures of a feed at a moment."""

    feed: Feed
    now: datetime
    days: Mapping[date, Mapping[State, int]]
    """Deliveries by the UTC day on which they became known."""
    read_from: datetime | None
    """From when on the source was read; None where it never was."""
    read_until: datetime | None
    in_doubt: int
    """In doubt for longer than the feed says."""
    expiring: int
    token_expires: date | None
    graph_version: str

    @property
    def today(self) -> date:
        """The UTC day."""
        return self.now.date()

    def count(self, day: date) -> int:
        """Return how many rows became known on a day."""
        return sum(self.days.get(day, {}).values())

    def was_read(self, day: date) -> bool:
        """Tell whether the source was read on, or before, a day."""
        return self.read_from is not None and self.read_from.date() <= day

    def usual(self, day: date) -> tuple[float, int] | None:
        """Return the usual count of such a day of the week, and of how many it is.

        None where too few of them are known.
        """
        before = [day - timedelta(weeks=week) for week in range(1, _WEEKS + 1)]
        counts = [
            self.count(each) for each in before if self.days.get(each) or self.was_read(each)
        ]  # fmt: skip
        return (median(counts), len(counts)) if len(counts) >= _FEWEST_WEEKS else None

    @property
    def last_whole_day(self) -> date | None:
        """The last day that was read to its end; None where that is long ago."""
        if self.read_until is None or self.read_until < self.now - _STALE:
            return None
        return min(self.read_until, self.now).date() - timedelta(days=1)


Judged = dict[Kind, Alert | None]


def judge(outlook: Outlook) -> Judged:
    """Return an alert, or None for what is fine, by kind.

    What the figures cannot tell is left out: it neither begins nor ends.
    """
    return dict(_judged(outlook))


def _judged(outlook: Outlook) -> Iterator[tuple[Kind, Alert | None]]:
    yield from _shares(outlook)
    yield from _counts(outlook)
    yield Kind.IN_DOUBT, _in_doubt(outlook)
    yield Kind.EXPIRING, _expiring(outlook)
    yield Kind.TOKEN, _token(outlook)
    yield Kind.GRAPH_VERSION, _graph_version(outlook)


def _shares(outlook: Outlook) -> Iterator[tuple[Kind, Alert | None]]:
    """Judge today's and yesterday's rows."""
    limits = outlook.feed.alerts
    days = [outlook.today, outlook.today - timedelta(days=1)]
    total = sum(map(outlook.count, days))
    for kind, state, limit, words in (
        (Kind.QUARANTINED, State.QUARANTINED, limits.quarantined_share, "in quarantine"),
        (Kind.REFUSED, State.REFUSED, limits.refused_share, "refused by Meta"),
    ):  # fmt: skip
        found = sum(outlook.days.get(day, {}).get(state, 0) for day in days)
        share = found / total if total else 0.0
        if limit is None or total < limits.least_rows or share <= limit:
            yield kind, None
        else:
            yield (
                kind,
                Alert(
                    kind,
                    f"{percent(share)} of the rows of today and yesterday are {words}: "
                    f"{found:,} of {total:,}. Told above {percent(limit)}.",
                    share,
                ),
            )


def _counts(outlook: Outlook) -> Iterator[tuple[Kind, Alert | None]]:
    """Judge the last whole day, and whether anything comes at all."""
    last = outlook.last_whole_day
    if last is None:
        return
    empty = _empty_source(outlook, last)
    yield Kind.EMPTY_SOURCE, empty
    if empty is None:
        yield Kind.UNUSUAL_COUNT, _unusual_count(outlook, last)


def _empty_source(outlook: Outlook, last: date) -> Alert | None:
    most = outlook.feed.alerts.empty_days
    if most is None:
        return None
    days = [last - timedelta(days=back) for back in range(most)]
    if any(map(outlook.count, days)) or not outlook.was_read(days[-1]):
        return None
    usual = [outlook.usual(day) for day in days]
    if all(each is not None and each[0] == 0 for each in usual):
        return None
    return Alert(
        Kind.EMPTY_SOURCE,
        f"The source was read, and no row became known in {number(most, 'whole day')}, "
        f"{days[-1]} to {last}.",
    )


def _unusual_count(outlook: Outlook, last: date) -> Alert | None:
    limits, usual = outlook.feed.alerts, outlook.usual(last)
    if limits.unusual_share is None or usual is None or usual[0] < limits.least_usual:
        return None
    expected, weeks = usual
    found = outlook.count(last)
    off = abs(found - expected) / expected
    if off <= limits.unusual_share:
        return None
    weekday = calendar.day_name[last.weekday()]
    return Alert(
        Kind.UNUSUAL_COUNT,
        f"{number(found, 'row')} became known on {weekday}, {last}; about "
        f"{expected:,.0f} are usual (the median of {weeks} such days). Told where it is "
        f"more than {percent(limits.unusual_share)} off.",
        off,
    )


def _in_doubt(outlook: Outlook) -> Alert | None:
    limit, found = outlook.feed.alerts.in_doubt, outlook.in_doubt
    if limit is None or found <= limit:
        return None
    return Alert(
        Kind.IN_DOUBT,
        f"{number(found, 'event')} in doubt: Meta may have them, and nobody knows.",
        found,
    )


def _expiring(outlook: Outlook) -> Alert | None:
    limit, found = outlook.feed.alerts.expiring, outlook.expiring
    if limit is None or found <= limit:
        return None
    hours = outlook.feed.alerts.expiring_within / timedelta(hours=1)
    return Alert(
        Kind.EXPIRING,
        f"{number(found, 'delivery', 'deliveries')} not at Meta will be too old for it "
        f"within {hours:g} hours.",
        found,
    )


def _token(outlook: Outlook) -> Alert | None:
    end = outlook.token_expires
    if end is None or end > outlook.today + outlook.feed.alerts.token_expires_within:
        return None
    past = end <= outlook.today
    return Alert(
        Kind.TOKEN,
        f"The access token {'expired' if past else 'expires'} on {end}, as the connection "
        f"{outlook.feed.connections.meta} says.",
        float(past),
    )


def _graph_version(outlook: Outlook) -> Alert | None:
    version = outlook.graph_version
    major, _, minor = version.removeprefix("v").partition(".")
    released = spec.GRAPH_VERSION_RELEASED
    found = int(major), int(minor)
    if found > max(released):  # newer than this program
        return None
    day = released.get(found, min(released.values()))
    # The 29th of February is no release day so far.
    end = day.replace(year=day.year + spec.GRAPH_VERSION_YEARS)
    if end > outlook.today + outlook.feed.alerts.graph_version_within:
        return None
    past = end <= outlook.today
    return Alert(
        Kind.GRAPH_VERSION,
        f"Graph {version} {'was' if past else 'is'} promised until {end}, at least, and "
        f"{spec.DEFAULT_GRAPH_VERSION} is what this program knows best.",
        float(past),
    )
