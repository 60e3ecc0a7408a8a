"""Alerts, from inside Airflow: looked for by tasks, told by channels, never in their way.

Whatever goes wrong here is a line in the log and nothing else: a task that has sent its
conversions does not fail because Slack is away. What could not be told stays in the
ledger, and is told with the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from airflow.sdk import BaseNotifier

from capi_airflow.aside import aside
from capi_airflow.channels import Channel, channels
from capi_airflow.ending import TaskEnded
from capi_airflow.links import page_of
from capi_airflow.postbox import UndeliveredError
from capi_airflow.stage import Stage, ledger_at
from meta_capi import alert_book
from meta_capi.alert_book import News
from meta_capi.alerts import Alert, Kind, judge
from meta_capi.errors import CapiError, FeedError
from meta_capi.feed import Feed
from meta_capi.feed.alerts import Alerts
from meta_capi.feed.parts import Connections
from meta_capi.ledger import Ledger

__all__ = ["TellFailure", "look_around", "try_out"]

_TEND: Final = "tend_deliveries"
_MOST_LETTERS: Final = 300


def look_around(log: Any, stage: Stage, over: Kind) -> None:
    """Judge the feed's figures after a task's work, and tell what is new.

    Args:
        over: the failure that this success is the end of.
    """
    with aside(log, "Alerts"):
        feed, destination = stage.feed, stage.hook.destination()
        outlook = alert_book.look(
            stage.ledger, feed, destination.dataset_id, datetime.now(UTC),
            graph_version=destination.graph_version,
            token_expires=destination.token_end,
        )  # fmt: skip
        judged = judge(outlook) | {over: None}
        for alert in filter(None, judged.values()):
            log.warning("%s: %s", alert.kind, alert.sentence)
        alert_book.note(stage.ledger, feed.feed, judged)
        _tell(log, stage.ledger, feed.feed, feed.alerts)


def try_out(log: Any, stage: Stage) -> None:
    """Say through every channel that this is a test."""
    with aside(log, "Alerts"):
        found = channels()
        if not found:
            log.info("No channel for alerts is configured; see docs/alerts.md.")
        news = News(
            alert_id=0, kind=Kind.RUN_FAILED, figure=0.0, raised_at=datetime.now(UTC),
            sentence="This is a test of the alerts; nothing has failed.",
        )  # fmt: skip
        for channel in found:
            _send(log, channel, stage.feed.feed, news)


class TellFailure(BaseNotifier):
    """Tells that a feed's task failed for good: an Airflow notifier, on failure."""

    def notify(self, context: Any) -> None:
        """Remember the failure and tell it, once until a run goes through."""
        with aside(self.log, "Alerts"):
            name = context["task"].feed
            stage = Stage(name, context)
            feed = _feed(stage)
            # A file that is wrong is believed in nothing, nor may it keep this quiet.
            alerts = feed.alerts if feed else Alerts()
            if not alerts.failures or stage.choices.mode != "send":
                return
            alert = _failure(context)
            try:
                ledger = stage.ledger if feed else ledger_at(Connections().ledger)
                alert_book.note(ledger, name, {alert.kind: alert})
                _tell(self.log, ledger, name, alerts)
            except CapiError:
                # It may be the ledger that failed. Airflow remembers the run before.
                if _failed_before(context):
                    raise
                for channel in channels():
                    _send(self.log, channel, name, _unremembered(alert))


def _feed(stage: Stage) -> Feed | None:
    try:
        return stage.feed
    except FeedError:
        return None


def _failure(context: Mapping[str, Any]) -> Alert:
    """Say which task failed; why, only where the words are our own."""
    dag_id, task_id = context["dag"].dag_id, context["task"].task_id
    kind = Kind.TENDING_FAILED if dag_id == _TEND else Kind.RUN_FAILED
    end = context.get("data_interval_end")
    run = f" of the run up to {end:%Y-%m-%d %H:%M} UTC" if end else ""
    error = context.get("exception")
    why = f" {error}" if isinstance(error, TaskEnded) else ""
    return Alert(kind, f"Task {task_id} of {dag_id}{run} failed.{why}"[:_MOST_LETTERS])


def _failed_before(context: Mapping[str, Any]) -> bool:
    previous = context["ti"].get_previous_ti()
    return previous is not None and previous.state == "failed"


def _unremembered(alert: Alert) -> News:
    return News(
        alert_id=0, kind=alert.kind, sentence=alert.sentence, figure=alert.figure,
        raised_at=datetime.now(UTC),
    )  # fmt: skip


def _tell(log: Any, ledger: Ledger, feed: str, alerts: Alerts) -> None:
    """Tell every channel what it has not been told yet."""
    for channel in channels():
        left = alert_book.take(ledger, feed, channel.name, alerts.remind_after)
        while left and _send(log, channel, feed, left[0]):
            alert_book.told(ledger, channel.name, left.pop(0))
        if left:
            alert_book.give_back(ledger, channel.name, left)


def _send(log: Any, channel: Channel, feed: str, news: News) -> bool:
    try:
        channel.send(alert_book.message(feed, news, page_of(feed)))
    except UndeliveredError as error:
        log.warning(
            "%s could not be told of %s: %s. It is tried again with the next look.",
            channel.name, news.kind, error,
        )  # fmt: skip
        return False
    log.info("%s was told: %s, %s.", channel.name, news.kind, news.state)
    return True
