"""The feed as a whole: one declared stream of conversions, whose parts fit together."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from meta_capi import spec
from meta_capi.feed.alerts import Alerts
from meta_capi.feed.parts import (
    Connections,
    Consent,
    CustomData,
    EventPart,
    Flag,
    LimitedDataUse,
    Limits,
    MatchKeyField,
    MatchKeyName,
    Part,
    Quality,
    Source,
    Window,
)
from meta_capi.feed.words import FEED_NAME, Cron, Day, Duration
from meta_capi.spec import ActionSource

__all__ = ["Feed", "MisfitError", "json_schema"]

_KEY_OPTIONS: Final = {
    "country": {"default"},
    "ph": {"default_country"},
    "db": {"format"},
    "external_id": {"mode"},
}
# Columns that hold nothing but what a person is reached or called by.
_PERSONAL: Final[tuple[MatchKeyName, ...]] = ("em", "ph", "fn", "ln", "db")
Misfit = tuple[tuple[str, ...], str]
"""A path, and what is wrong there."""


class MisfitError(ValueError):
    """Parts, each right in itself, that do not fit together."""

    def __init__(self, faults: list[Misfit]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{'.'.join(path)} {text}" for path, text in faults))


class Feed(Part):
    """One declared stream of conversions."""

    feed: str = Field(pattern=rf"^{FEED_NAME}$")
    """The feed's name; the file has the same. The DAG is `send_<name>`."""
    description: str = Field(min_length=10)
    """One sentence about the stream, shown in the Airflow UI."""
    owner: str = "marketing-data"
    """Whom to ask; the DAG's owner."""
    schedule: Cron
    """A cron expression in UTC: how often to send, and how long an interval is."""
    start_date: Day
    """The first day that is scheduled. A backfill may go further back."""
    lookback: int = Field(default=0, ge=0, le=500)
    """Read this many earlier intervals again, for rows that arrive late."""
    catch_up: bool = True
    """Let a scheduled run read from where the runs before it left off: after a pause or an
    outage, nothing is left unread. No further back than Meta takes events."""
    connections: Connections = Connections()
    """The Airflow connections to use."""
    source: Source
    """Where the conversions are."""
    event: EventPart
    """What happened, when, and where."""
    user_data: dict[MatchKeyName, MatchKeyField] = Field(min_length=1)
    """Meta's match keys, each with the column that holds it."""
    custom_data: CustomData = CustomData()
    """What was bought, and for how much."""
    consent: Consent
    """The customer's permission; a feed must say something about it."""
    limited_data_use: LimitedDataUse | None = None
    """Which rows go out under limited data use."""
    opt_out: Flag | None = None
    """Rows whose event is measured, but not used to optimise delivery."""
    quality: Quality = Quality()
    """What the quality gate lets through."""
    window: Window = Window()
    """How long Meta takes an event of this feed."""
    holding_period: Duration = timedelta(0)
    """Wait this long after the conversion, for cancellations."""
    on_in_doubt: Literal["resend", "hold"] = "resend"
    """What to do with events whose request got no trustworthy answer."""
    retention: Duration = timedelta(days=760)
    """How long the ledger keeps what is finished: 25 months, to compare a year with another."""
    limits: Limits = Limits()
    """Sizes of requests and shards; the defaults suit most feeds."""
    alerts: Alerts = Alerts()
    """What people are told of."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Feed:
        faults = [
            *self._match_key_faults(), *self._event_faults(), *self._clear_faults()
        ]  # fmt: skip
        if faults:
            raise MisfitError(faults)
        return self

    def _match_key_faults(self) -> Iterator[Misfit]:
        for key, part in self.user_data.items():
            given = {
                name for name in ("default", "default_country", "format", "mode")
                if getattr(part, name) is not None
            }  # fmt: skip
            if wrong := sorted(given - _KEY_OPTIONS.get(key, set())):
                yield ("user_data", key), f"knows no {', '.join(wrong)}; take it out"
            if part.column is None and not (key == "country" and part.default):
                yield ("user_data", key), "names no column; add one"
        if set(self.user_data) <= {"country"}:
            yield (
                ("user_data",),
                "names no match key but country, which Meta refuses as too broad; add "
                "em or ph",
            )

    def _event_faults(self) -> Iterator[Misfit]:
        custom = self.custom_data
        priced = spec.EVENTS_REQUIRING_VALUE.intersection(self.event_names)
        for name in ("value", "currency"):
            if priced and getattr(custom, name) is None:
                yield (
                    ("custom_data", name),
                    f"is missing; Meta takes no {' or '.join(sorted(priced))} without",
                )
        if self.window.margin >= self.longest_window:
            yield ("window", "margin"), "is as long as the window; shorten it"
        elif self.holding_period >= self.longest_window - self.window.margin:
            yield (
                ("holding_period",),
                "is as long as Meta takes the event; shorten it",
            )
        # A backfill must find too old what the ledger has forgotten; the feed's own, shorter
        # window may be taken out tomorrow.
        metas = timedelta(seconds=spec.window_seconds(self.event.action_source))
        if self.retention < (least := metas + self.window.margin):
            hours = -(-least // timedelta(hours=1))
            yield (
                ("retention",),
                f"is shorter than Meta takes the event, and a backfill would send it "
                f"again; write at least {hours}h",
            )
        if (
            self.event.action_source is ActionSource.PHYSICAL_STORE
            and self.on_in_doubt == "resend"
            and custom.order_id is None
        ):
            yield (
                ("custom_data", "order_id"),
                "is missing; Meta removes a repeated store event by it. Map it, or set "
                "on_in_doubt: hold",
            )

    def _clear_faults(self) -> Iterator[Misfit]:
        """Yield where a person's column would stand in the ledger, or leave, in clear."""
        personal = {
            part.column: key
            for key in _PERSONAL
            if (part := self.user_data.get(key)) and part.column
        }
        custom = self.custom_data
        texts = {name: getattr(custom, name) for name in spec.CUSTOM_DATA_TEXT_KEYS}
        read: list[tuple[tuple[str, ...], str | None]] = [
            *((("source", "key"), name) for name in self.source.key),
            (("event", "id"), self.event.id),
            *(
                (("custom_data", name), part.column)
                for name, part in texts.items()
                if part
            ),
            *(
                (("custom_data", "properties", name), ref.column)
                for name, ref in custom.properties.items()
            ),
        ]
        for path, column in read:
            if column in personal:
                yield (
                    path,
                    f"reads {column}, which is {personal[column]}: it would be in clear "
                    "here; name another column",
                )

    @property
    def longest_window(self) -> timedelta:
        """How old an event of this feed may be when Meta gets it."""
        window = timedelta(seconds=spec.window_seconds(self.event.action_source))
        return (
            min(window, timedelta(days=self.window.days))
            if self.window.days
            else window
        )

    @property
    def dag_id(self) -> str:
        """The feed's DAG."""
        return f"send_{self.feed}"

    @property
    def suite(self) -> str:
        """The feed's expectation suite."""
        return self.quality.suite or self.feed

    @property
    def event_names(self) -> tuple[str, ...]:
        """Every event name this feed can send."""
        stages = self.event.stages
        return (
            tuple(dict.fromkeys(stages.map.values()))
            if stages
            else (str(self.event.name),)
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Every source column the feed reads, each once: keys and cursor first."""
        return tuple(dict.fromkeys(self._columns()))

    def _columns(self) -> Iterator[str]:
        yield from self.source.key
        yield self.source.cursor.column
        yield self.event.time.column
        if self.event.id:
            yield self.event.id
        if stages := self.event.stages:
            yield stages.column
            yield stages.lead_created.column
        for key in self.user_data.values():
            if key.column:
                yield key.column
        for name in CustomData.model_fields:
            part = getattr(self.custom_data, name)
            if column := getattr(part, "column", None):
                yield column
        for ref in self.custom_data.properties.values():
            yield ref.column
        if self.consent.column:
            yield self.consent.column
        if self.limited_data_use:
            yield self.limited_data_use.column
            if self.limited_data_use.state:
                yield self.limited_data_use.state
        if self.opt_out:
            yield self.opt_out.column

    @property
    def cursor_zone(self) -> ZoneInfo:
        """The zone of cursor values that carry none."""
        return ZoneInfo(self.source.cursor.timezone)


def json_schema() -> dict[str, Any]:
    """Return the feed's JSON schema, for editors."""
    schema = Feed.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    for short in ("MatchKeyPart", "Amount", "Text", "ColumnRef", "Currency"):
        part = schema["$defs"][short]
        schema["$defs"][short] = {"anyOf": [{"type": "string"}, part]}
    return schema
