"""What the tasks of one run share: its feed, its connections, its name and its interval.

Everything is opened when a task asks for it, never when a DAG file is parsed.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import NoSuchModuleError

from capi_airflow import mark
from capi_airflow.feed_files import home
from capi_airflow.hook import MetaCapiHook, connection_of
from capi_airflow.links import catalogue_address
from meta_capi import coverage, spec
from meta_capi.desk import Desk
from meta_capi.errors import ConfigurationError
from meta_capi.event import Builder
from meta_capi.feed import Feed, load
from meta_capi.ledger import Ledger, ResendPolicy, Run
from meta_capi.payload import Envelope
from meta_capi.source import Interval, Source
from meta_capi.spec import ActionSource

__all__ = ["Choices", "Stage", "ledger_at"]

_log = logging.getLogger(__name__)
# A warehouse or a ledger whose machine is gone is noticed after a minute, not after hours.
_KEEP_ALIVE: Final = {
    "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}  # fmt: skip
# The window is measured from the first request that may have arrived; this share of it is
# left for skewed clocks, slow requests and late tasks: an hour of 48, half a day of seven.
_DOUBT_MARGINS: Final = {48 * 3_600: 3_600, 7 * 86_400: 43_200}
_SKEW_WARNING: Final = timedelta(seconds=30)
_SCHEDULED: Final = "scheduled"  # airflow.utils.types.DagRunType
_STARTED: Final = {
    _SCHEDULED: "by the schedule", "manual": "by hand", "backfill": "by a backfill",
    "asset_triggered": "by an asset",
}  # fmt: skip
_SKEW_LIMIT: Final = timedelta(minutes=5)


def engine_of(conn_id: str, *, lines: int = 4) -> Engine:
    """Return an engine for an Airflow connection; its errors quote no parameters.

    Args:
        lines: connections to the database at a time, at most.
    """
    connection = connection_of(conn_id)
    try:
        url = getattr(connection.get_hook(), "sqlalchemy_url", None)
    except Exception:  # Airflow's for a type that no provider knows; or its own fault
        url = None
    if url is None:
        raise ConfigurationError(
            f"Connection {conn_id!r} is of type {connection.conn_type!r}, which is no "
            "database that SQLAlchemy reaches from here; the ledger must be PostgreSQL.",
            code="fault.connection",
        )
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        return create_engine(
            url,
            hide_parameters=True,
            # As few as do are opened, and they stay: what a pool lends beyond its size it
            # closes after each use, and the next has to log in, and plan, anew.
            pool_size=lines,
            max_overflow=0,
            pool_use_lifo=True,
            pool_pre_ping=True,
            connect_args=_KEEP_ALIVE if url.drivername == "postgresql+psycopg" else {},
        )
    except (NoSuchModuleError, ImportError) as error:
        what = (
            f"the driver {error.name}"
            if isinstance(error, ImportError)
            else f"SQLAlchemy's dialect {url.drivername}"
        )
        raise ConfigurationError(
            f"Connection {conn_id!r} needs {what}, which is not installed here; nothing "
            "was read. Install its package wherever Airflow's tasks run; the connection's "
            "provider names it.",
            code="fault.connection",
        ) from None


def ledger_of(feed: Feed, *, lines: int = 4) -> Ledger:
    """Return the feed's ledger."""
    return ledger_at(feed.connections.ledger, lines=lines)


def ledger_at(conn_id: str, *, lines: int = 4) -> Ledger:
    """Return the ledger of an Airflow connection."""
    return Ledger(engine_of(conn_id, lines=lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the trigger form says."""

    dry_run: bool = False
    test_event_code: str | None = None
    limit: int | None = None
    start: datetime | None = None
    end: datetime | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Choices:
        """Read the run's params; Airflow has checked their types."""
        return cls(
            dry_run=bool(params.get("dry_run", False)),
            test_event_code=params.get("test_event_code") or None,
            limit=params.get("limit") or None,
            start=_moment(params.get("start")),
            end=_moment(params.get("end")),
        )

    @property
    def mode(self) -> str:
        """The run's mode in the ledger."""
        if self.dry_run:
            return "dry_run"
        return "test" if self.test_event_code else "send"


@dataclass(slots=False)
class Stage:
    """One task's view of its run."""

    feed_name: str
    context: Mapping[str, Any] = field(repr=False)

    @cached_property
    def feed(self) -> Feed:
        """The feed."""
        return load(home() / "feeds" / f"{self.feed_name}.yaml")

    @cached_property
    def choices(self) -> Choices:
        """The form."""
        return Choices.of(self.context["params"])

    @cached_property
    def run_id(self) -> str:
        """The run's name in the ledger; a DAG for every feed has a run for each."""
        dag_id = self.context["dag"].dag_id
        name = f"{dag_id}/{self.context['run_id']}"
        return name if dag_id == self.feed.dag_id else f"{name}/{self.feed.feed}"

    @cached_property
    def interval(self) -> Interval:
        """The interval that `plan` chose; its own, as long as it has not."""
        planned = coverage.planned_interval(self.ledger, self.run_id)
        return Interval(*planned) if planned else self.own_interval

    def choose_interval(self) -> Interval:
        """Return the run's own interval, and before it what no run has read."""
        own, run = self.own_interval, self.context.get("dag_run")
        scheduled = run is not None and run.run_type == _SCHEDULED
        if not (scheduled and self.feed.catch_up):
            return own
        start = self.context["data_interval_start"]
        unread = coverage.unread_since(
            self.ledger, self.run_id, feed=self.feed.feed,
            dataset_id=self.hook.destination().dataset_id, start=start,
            floor=own.end - self.feed.longest_window,
        )  # fmt: skip
        return Interval(own.start - (start - unread), own.end)

    @cached_property
    def own_interval(self) -> Interval:
        """The form's interval, else the run's, the lookback before it."""
        start, end = self.choices.start, self.choices.end
        if start and end:
            return Interval(start.astimezone(UTC), end.astimezone(UTC))
        if start or end:
            raise ConfigurationError(
                "The form has only one of the dates *From* and *Up to*; fill in both, or "
                "leave both empty.",
                code="fault.form",
            )
        start, end = (
            self.context.get("data_interval_start"),
            self.context.get("data_interval_end"),
        )
        if start is None or end is None:
            raise ConfigurationError(
                "This run has no data interval. Trigger it with *From* and *Up to* in the "
                "form, or with a logical date.",
                code="fault.interval",
            )
        return Interval(start - (end - start) * self.feed.lookback, end)

    @property
    def started(self) -> str:
        """Who or what has triggered this run, and which try of the task this is."""
        run, task = self.context.get("dag_run"), self.context.get("ti")
        user = getattr(run, "triggering_user_name", None)
        words = _STARTED.get(getattr(run, "run_type", "manual"), "by Airflow")
        words += f", by {user}" if user else ""
        tries = getattr(task, "try_number", 1)
        return f"{words}; try {tries}" if tries > 1 else words

    @cached_property
    def hook(self) -> MetaCapiHook:
        """Meta."""
        return MetaCapiHook(
            self.feed.connections.meta,
            requests_in_flight=self.feed.limits.requests_in_flight,
        )

    @cached_property
    def source(self) -> Source:
        """The warehouse's rows."""
        return Source(
            engine_of(self.feed.connections.warehouse), self.feed, home() / "feeds"
        )

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, which knows all that this Airflow has seen it know."""
        ledger = ledger_of(self.feed, lines=6)
        mark.expect(ledger, self.feed.connections.ledger)
        return ledger

    @cached_property
    def envelope(self) -> Envelope:
        """What stands around the events of every request."""
        destination = self.hook.destination()
        code = self.choices.test_event_code
        if code and destination.environment == "production":
            raise ConfigurationError(
                "A test event code is refused on a production connection: Meta uses such "
                "events for targeting and measurement. Use a test dataset's connection.",
                code="fault.form",
            )
        return Envelope(partner_agent=destination.partner_agent, test_event_code=code)

    @cached_property
    def policy(self) -> ResendPolicy:
        """What to do with events in doubt."""
        return resend_policy(self.feed)

    def builder(self, now: datetime) -> Builder:
        """Return a builder for the run's dataset."""
        return Builder(
            self.feed,
            dataset_id=self.hook.destination().dataset_id,
            digest_key=self.ledger.digest_key(),
            today=now.date(),
        )

    def open_run(
        self, mode: str, plan: Mapping[str, Any], interval: Interval | None = None
    ) -> Run:
        """Record the run; only a feed's own runs have an interval."""
        return self.ledger.open_run(
            self.run_id,
            feed=self.feed.feed,
            dataset_id=self.hook.destination().dataset_id,
            mode=mode,
            interval=(interval.start, interval.end) if interval else None,
            plan=plan,
        )

    def room(self, run: Run) -> int | None:
        """Return how many events the form's limit leaves to send; None: all.

        An earlier try of the task may have sent some.
        """
        if self.choices.limit is None:
            return None
        [sent] = self.ledger.run("sent_by_run", run_no=run.run_no)
        return max(0, self.choices.limit - int(sent["events"]))

    def remember_mark(self) -> None:
        """Let Airflow remember how far the ledger is."""
        mark.remember(self.ledger, self.feed.connections.ledger)

    def desk(self, run: Run, validation_id: int | None) -> Desk:
        """Return a place at the ledger, whose clock must agree with this machine's."""
        if run.dataset_id != self.hook.destination().dataset_id:
            raise ConfigurationError(
                f"The run was planned for dataset {run.dataset_id}, and the connection now "
                "names another; nothing was sent. Run the task `plan` again.",
                code="fault.dataset",
            )
        self.remember_mark()
        desk = Desk(
            self.ledger, run, policy=self.policy, host=socket.gethostname()[:64],
            pid=os.getpid(), validation_id=validation_id,
        )  # fmt: skip
        skew = abs(desk.given_at - datetime.now(UTC))
        if skew > _SKEW_LIMIT:
            raise ConfigurationError(
                f"This machine's clock and the ledger's differ by {int(skew.total_seconds())} "
                "seconds; nothing was sent. Set the clocks.",
                code="fault.clock",
            )
        if skew > _SKEW_WARNING:
            _log.warning(
                "This machine's clock and the ledger's differ by %d seconds. See %s",
                int(skew.total_seconds()),
                catalogue_address("warning.clock"),
            )
        return desk


def resend_policy(feed: Feed) -> ResendPolicy:
    """Return the feed's policy, with the window in which Meta drops a repeat."""
    offline = feed.event.action_source is ActionSource.PHYSICAL_STORE
    window = (
        spec.OFFLINE_DEDUPLICATION_SECONDS
        if offline
        else spec.EVENT_ID_DEDUPLICATION_SECONDS
    )
    return ResendPolicy(
        resend=feed.on_in_doubt == "resend",
        window_seconds=window - _DOUBT_MARGINS[window],
        most_resends=feed.limits.in_doubt_resends,
    )


def _moment(value: object) -> datetime | None:
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise ConfigurationError(
            "The form's times are written as 2026-11-22T06:00:00+00:00.",
            code="fault.form",
        ) from None
    if moment.tzinfo is None:
        raise ConfigurationError(
            "The form's times need a zone; add one, as +00:00.", code="fault.form"
        )
    # In another zone, the first year's or the last one's may have no date at all.
    if not MINYEAR < moment.year < MAXYEAR:
        raise ConfigurationError(
            f"The form's times lie in the years from {MINYEAR + 1} to {MAXYEAR - 1}; for "
            "all rows there are, fill in tomorrow as *Up to*.",
            code="fault.form",
        )
    return moment
