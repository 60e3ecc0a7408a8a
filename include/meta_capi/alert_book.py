"""The memory of alerts: told once, again after a while or when twice as bad, and once over.

The ledger keeps it, so that neither two workers nor a retry tell a thing twice. What could
not be delivered stays to be told; a worker that dies while telling may have told it, and
then it is told again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from meta_capi.alerts import ABOUT, HISTORY, About, Alert, Judged, Kind, Outlook
from meta_capi.feed import Feed
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State
from meta_capi.sql import queries
from meta_capi.words import ago, moment

__all__ = [
    "Message", "News", "give_back", "look", "message", "note", "open_alerts", "take", "told",
]  # fmt: skip

_SQL: Final = queries("alerts")
# Longer than any channel is given to answer.
_LEASE: Final = timedelta(minutes=5)
# What comes and goes is over when it stayed away so long.
_QUIET: Final = timedelta(hours=1)
_FAILURES: Final = frozenset({Kind.RUN_FAILED, Kind.TENDING_FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One thing that one channel has to be told."""

    alert_id: int
    kind: Kind
    sentence: str
    figure: float
    raised_at: datetime
    closed_at: datetime | None = None
    told_at: datetime | None = None

    @property
    def about(self) -> About:
        """What there is to know about its kind."""
        return ABOUT[self.kind]

    @property
    def state(self) -> str:
        """Whether it is new, is still so, or is over."""
        if self.closed_at:
            return "over"
        return "still" if self.told_at else "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a channel says, in words."""

    feed: str
    kind: Kind
    state: str
    severity: str
    subject: str
    text: str
    action: str
    link: str | None
    since: datetime
    key: str
    """The same for all that is said of one alert."""


def look(
    ledger: Ledger, feed: Feed, dataset_id: str, now: datetime, *, graph_version: str,
    token_expires: date | None,
) -> Outlook:  # fmt: skip
    """Return the feed's figures."""
    days: defaultdict[date, dict[State, int]] = defaultdict(dict)
    since = now - HISTORY
    where = {"feed": feed.feed, "dataset_id": dataset_id}
    for row in _ask(ledger, "days", since=since.date(), **where):
        days[row["day"]][State(row["state"])] = row["deliveries"]
    [read] = _ask(ledger, "read", since=since, **where)
    doubts = _ask(ledger, "in_doubt", before=now - feed.alerts.in_doubt_after, **where)
    # As tend_deliveries expires them.
    oldest = now - feed.longest_window + feed.window.margin
    waiting = _ask(
        ledger, "expiring", after=oldest, before=oldest + feed.alerts.expiring_within,
        **where,
    )  # fmt: skip
    return Outlook(
        feed=feed, now=now, days=days, **read, in_doubt=doubts[0]["deliveries"],
        expiring=waiting[0]["deliveries"], token_expires=token_expires,
        graph_version=graph_version,
    )  # fmt: skip


def note(ledger: Ledger, feed: str, judged: Judged) -> None:
    """Open what is new, see again what stands, close what has been fine for a while."""
    found = [judged[kind] for kind in sorted(judged)]
    fine = {kind for kind, alert in judged.items() if alert is None}

    def step(cursor: Any) -> None:
        for alert in filter(None, found):
            cursor.execute(_SQL["raise"], {"feed": feed, **_values(alert)})
        for kinds, quiet in (
            (fine & _FAILURES, timedelta(0)),
            (fine - _FAILURES, _QUIET),
        ):
            cursor.execute(
                _SQL["settle"], {"feed": feed, "kinds": sorted(kinds), "quiet": quiet}
            )

    ledger.attempt(step)


def take(
    ledger: Ledger, feed: str, channel: str, remind_after: timedelta
) -> list[News]:
    """Take what a channel has to be told; no other worker gets it meanwhile."""
    values = {
        "feed": feed, "channel": channel, "remind_after": remind_after, "lease": _LEASE,
    }  # fmt: skip

    def step(cursor: Any) -> list[dict[str, Any]]:
        cursor.execute(_SQL["list_tellings"], values)
        rows: list[dict[str, Any]] = cursor.execute(_SQL["take"], values).fetchall()
        return rows

    found = (News(**{**row, "kind": Kind(row["kind"])}) for row in ledger.attempt(step))
    return sorted(found, key=lambda news: (news.raised_at, news.alert_id))


def told(ledger: Ledger, channel: str, news: News) -> None:
    """Remember that a channel was told."""
    _do(
        ledger, "told", alert_id=news.alert_id, channel=channel, figure=news.figure,
        over=news.closed_at is not None,
    )  # fmt: skip


def give_back(ledger: Ledger, channel: str, news: list[News]) -> None:
    """Remember that a channel could not be told."""
    _do(ledger, "give_back", alert_ids=[n.alert_id for n in news], channel=channel)


def open_alerts(ledger: Ledger, feeds: Sequence[str]) -> dict[str, list[News]]:
    """Return what is open, oldest first; nothing for a feed where all is well."""
    found: defaultdict[str, list[News]] = defaultdict(list)
    for row in _ask(ledger, "open", feeds=list(feeds)):
        feed = row.pop("feed")
        found[feed].append(News(**{**row, "kind": Kind(row["kind"])}))
    return dict(found)


def message(feed: str, news: News, link: str | None) -> Message:
    """Say it in words: what, since when, what to do."""
    about = news.about
    if news.closed_at:
        lasted = ago(news.closed_at - news.raised_at)
        text = f"{about.over} It lasted {lasted}, since {moment(news.raised_at)}."
        action = ""
    elif news.told_at:
        text = f"{news.sentence} It is so since {moment(news.raised_at)}."
        action = about.action
    else:
        text, action = news.sentence, about.action
    name = news.kind.replace("_", " ")
    word = {"new": about.severity.value, "still": "still", "over": "over"}[news.state]
    return Message(
        feed=feed, kind=news.kind, state=news.state, severity=about.severity,
        subject=f"[{word}] {feed}: {name}", text=text, action=action, link=link,
        since=news.raised_at, key=f"{feed}/{news.kind}/{news.alert_id}",
    )  # fmt: skip


def _values(alert: Alert) -> Mapping[str, Any]:
    return {
        "kind": alert.kind, "sentence": alert.sentence, "figure": alert.figure,
    }  # fmt: skip


def _ask(ledger: Ledger, question: str, **values: Any) -> list[dict[str, Any]]:
    return ledger.attempt(
        lambda cursor: cursor.execute(_SQL[question], values).fetchall()
    )


def _do(ledger: Ledger, act: str, **values: Any) -> None:
    ledger.attempt(lambda cursor: cursor.execute(_SQL[act], values) and None)
