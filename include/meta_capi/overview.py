"""What the Conversions page counts: funnels, days, freshness and match keys of a span.

The counts come from the ledger's roll-up by day, which is exact; only where more days are
changing than a page has time for, it shows them as they were last counted, and says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from meta_capi import match_keys
from meta_capi.answers import Expiring, Gate
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State
from meta_capi.sql import queries

__all__ = [
    "FUNNEL", "Counts", "Coverage", "Figures", "Freshness", "GateLine", "Held", "Line",
    "Span", "Traffic", "ask", "count_days", "expiring", "figures", "gates", "held", "known_feeds",
    "listed", "traffic",
]  # fmt: skip

_SQL: Final = queries("page")
# A day of a hundred thousand deliveries takes about a twentieth of a second to count.
_MOST_DAYS_COUNTED_NOW: Final = 10

FUNNEL: Final = (
    State.WITHHELD, State.QUARANTINED, State.EXPIRED, State.REFUSED, State.IN_DOUBT,
    State.PENDING, State.ACCEPTED,
)  # fmt: skip
"""The ways of a row, in the order in which it may leave the flow."""


class Span(NamedTuple):
    """Whole UTC days, both ends included."""

    since: date
    until: date

    @classmethod
    def back(cls, days: int, today: date) -> Span:
        """Return the last days, with today."""
        return cls(today - timedelta(days=days - 1), today)

    @property
    def days(self) -> list[date]:
        """Every day."""
        length = (self.until - self.since).days + 1
        return [self.since + timedelta(days=each) for each in range(length)]


@dataclass(slots=True)
class Counts:
    """Deliveries by state, and their value by currency."""

    states: dict[State, int] = field(default_factory=lambda: dict.fromkeys(FUNNEL, 0))
    accepted_value: defaultdict[str, Decimal] = field(
        default_factory=lambda: defaultdict(Decimal)
    )
    accepted_in: Counter[str] = field(default_factory=Counter)
    """Accepted deliveries with a value, by currency."""

    @property
    def total(self) -> int:
        """All rows that were read."""
        return sum(self.states.values())

    @property
    def accepted_share(self) -> float | None:
        """Of all rows, those that Meta has; None where there are none."""
        return self.states[State.ACCEPTED] / self.total if self.total else None

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of the roll-up."""
        state = State(row["state"])
        # On a worker's desk: it is on its way.
        state = State.PENDING if state is State.CLAIMED else state
        self.states[state] += row["deliveries"]
        if state is State.ACCEPTED and row["currency"] and row["value"] is not None:
            self.accepted_value[row["currency"]] += row["value"]
            self.accepted_in[row["currency"]] += row["deliveries"]


@dataclass(slots=True)
class Freshness:
    """How soon accepted events were at Meta."""

    timed: int = 0
    within_1_hour: int = 0
    within_2_hours: int = 0
    within_24_hours: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of the roll-up."""
        self.timed += row["timed"]
        self.within_1_hour += row["within_1_hour"]
        self.within_2_hours += row["within_2_hours"]
        self.within_24_hours += row["within_24_hours"]

    def shares(self) -> tuple[float, float, float] | None:
        """Return the shares within 1, 2 and 24 hours; None where there is nothing."""
        if not self.timed:
            return None
        lines = (self.within_1_hour, self.within_2_hours, self.within_24_hours)
        one, two, day = (line / self.timed for line in lines)
        return one, two, day


@dataclass(slots=True)
class Coverage:
    """How many accepted events had each match key."""

    accepted: int = 0
    with_key: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of the roll-up."""
        if row["state"] == State.ACCEPTED and row["match_keys"]:
            self.accepted += row["deliveries"]
            for name in match_keys.names(row["match_keys"]):
                self.with_key[name] += row["deliveries"]

    def share(self, key: str) -> float | None:
        """Return the share with a key; None where nothing was accepted."""
        return self.with_key[key] / self.accepted if self.accepted else None

    @property
    def keys(self) -> list[str]:
        """The keys ever seen, the most common first."""
        return sorted(self.with_key, key=lambda key: (-self.with_key[key], key))


@dataclass(slots=True)
class Figures:
    """One feed's span to one dataset, whole and day by day."""

    feed: str
    dataset_id: str
    span: Span
    whole: Counts = field(default_factory=Counts)
    days: dict[date, Counts] = field(default_factory=dict)
    freshness: Freshness = field(default_factory=Freshness)
    fresh_days: dict[date, Freshness] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    covered_days: dict[date, Coverage] = field(default_factory=dict)
    reasons: defaultdict[tuple[State, str], int] = field(
        default_factory=lambda: defaultdict(int)
    )
    changing: int = 0
    """Days that are shown as they were last counted, because too many are changing."""
    counted_at: datetime | None = None
    """When the oldest of these was counted."""

    def __post_init__(self) -> None:
        self.days = {day: Counts() for day in self.span.days}
        self.fresh_days = {day: Freshness() for day in self.span.days}
        self.covered_days = {day: Coverage() for day in self.span.days}

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row of the roll-up."""
        day = row["day"]
        for each in (
            self.whole, self.days[day], self.freshness, self.fresh_days[day],
            self.coverage, self.covered_days[day],
        ):  # fmt: skip
            each.add(row)
        if row["reason"]:
            self.reasons[State(row["state"]), row["reason"]] += row["deliveries"]

    @property
    def main_currency(self) -> str | None:
        """The currency of most accepted events; amounts of several cannot be added."""
        found = self.whole.accepted_in.most_common(1)
        return found[0][0] if found else None

    def most_common_reasons(self) -> list[tuple[State, str, int]]:
        """Return why deliveries are not at Meta, the most common reason first."""
        held = [
            (state, code, count)
            for (state, code), count in self.reasons.items()
            if state is not State.ACCEPTED
        ]
        return sorted(held, key=lambda each: (-each[2], each[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One day's requests to Meta."""

    day: date
    requests: int
    throttled: int
    refused: int
    unknown: int
    waited: int
    """Seconds that Meta asked to wait, in all."""
    usage_percent: int | None
    """The highest that Meta said of its own limit."""
    median_seconds: float | None
    p95_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLine(Gate):
    """A gate in a list, with its run."""

    run_no: int
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How many deliveries a reason keeps from Meta."""

    state: State
    reason: str | None
    deliveries: int
    earliest: date
    latest: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One delivery in a list."""

    dataset_id: str
    feed: str
    source_key: str
    state: State
    reason: str | None
    event_name: str | None
    event_time: datetime | None
    cursor_at: datetime
    batch_id: int | None
    value: Decimal | None
    currency: str | None


def count_days(ledger: Ledger) -> int:
    """Count the days that changed since they were counted; return how many they were."""

    def step(cursor: Any) -> int:
        row = cursor.execute(_SQL["count_touched_days"]).fetchone()
        return int(row["days"])

    return ledger.attempt(step)


def known_feeds(ledger: Ledger) -> list[str]:
    """Return the feeds that the ledger has heard of."""
    return [row["feed"] for row in ask(ledger, "feeds")]


def figures(
    ledger: Ledger, feeds: Iterable[str], span: Span, *, apart: bool = False
) -> list[Figures]:
    """Return the figures of some feeds, by feed and dataset.

    Args:
        apart: tell reasons and match keys apart, too.
    """
    names = list(feeds)
    values = {"feeds": names, "since": span.since, "until": span.until}
    touched = _touched(ledger, names, span.since)
    exact = sum(touched.values()) <= _MOST_DAYS_COUNTED_NOW
    found: dict[tuple[str, str], Figures] = {}
    for row in ask(ledger, "figures", exact=exact, apart=apart, **values):
        name = row["feed"], row["dataset_id"]
        if name not in found:
            found[name] = Figures(*name, span)
        found[name].add(row)
    if not exact:
        since = ask(ledger, "counted_at", **values)[0]["counted_at"]
        for name in touched:
            found.setdefault(name, Figures(*name, span))
        for name, each in found.items():
            each.changing, each.counted_at = touched.get(name, 0), since
    return list(found.values())


def expiring(
    ledger: Ledger, feed: str, after: datetime, before: datetime
) -> list[Expiring]:
    """Return what is not at Meta and happened in between; to the hour."""
    rows = ask(
        ledger, "expiring", feed=feed, after=after, before=before,
        exact=_few_changed(ledger, feed),
    )  # fmt: skip
    return [Expiring(**{**row, "state": State(row["state"])}) for row in rows]


def traffic(ledger: Ledger, feed: str, span: Span) -> list[Traffic]:
    """Return a feed's requests, day by day."""
    rows = ask(
        ledger, "traffic", feed=feed,
        since=datetime.combine(span.since, time.min, UTC),
        until=datetime.combine(span.until + timedelta(days=1), time.min, UTC),
    )  # fmt: skip
    found = []
    for row in rows:
        median, p95 = row.pop("seconds") or (None, None)
        found.append(Traffic(**row, median_seconds=median, p95_seconds=p95))
    return found


def gates(ledger: Ledger, feed: str, most: int = 10) -> list[GateLine]:
    """Return a feed's latest gates, the latest first."""
    return [GateLine(**row) for row in ask(ledger, "gates", feed=feed, most=most)]


def held(ledger: Ledger, feed: str) -> list[Held]:
    """Return why deliveries are not at Meta, of all time, the most common first."""
    rows = ask(ledger, "held", feed=feed, exact=_few_changed(ledger, feed))
    return [Held(**{**row, "state": State(row["state"])}) for row in rows]


def listed(
    ledger: Ledger, feed: str, span: Span | None, *, state: State | None,
    reason: str | None, most: int,
) -> list[Line]:  # fmt: skip
    """Return some deliveries of a feed, those that became known last first."""
    wanted = {"feed": feed, "state": state, "reason": reason, "most": most}
    since, until = span or (None, None)
    (bounds,) = ask(ledger, "listed_days", since=since, until=until, **wanted)
    if bounds["first"] is None:
        return []
    rows = ask(ledger, "listed", **bounds, **wanted)
    return [Line(**{**row, "state": State(row["state"])}) for row in rows]


def _few_changed(ledger: Ledger, feed: str) -> bool:
    """Tell whether a page has time to count what changed of a feed."""
    days = sum(_touched(ledger, [feed], date.min).values())
    return days <= _MOST_DAYS_COUNTED_NOW


def _touched(
    ledger: Ledger, feeds: Sequence[str], since: date
) -> dict[tuple[str, str], int]:
    """Return how many days changed since they were counted, by feed and dataset."""
    rows = ask(ledger, "touched", feeds=feeds, since=since)
    return {(row["feed"], row["dataset_id"]): row["days"] for row in rows}


def ask(ledger: Ledger, question: str, **values: Any) -> list[dict[str, Any]]:
    """Return the rows of one of the page's queries, in a transaction that only reads."""

    def step(cursor: Any) -> list[dict[str, Any]]:
        cursor.execute(_SQL["bounds"])
        rows: list[dict[str, Any]] = cursor.execute(_SQL[question], values).fetchall()
        return rows

    return ledger.attempt(step)
