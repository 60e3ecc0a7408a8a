"""The parts of a feed, each with the rules that can be held inside of it.

The texts below fields are what editors show and what the feed reference is made from.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from meta_capi import spec
from meta_capi.feed.words import (
    ColumnName,
    CountryCode,
    CurrencyCode,
    DayPattern,
    Duration,
    EventName,
    PhoneCountry,
    PropertyName,
    Scalar,
    TableName,
    Zone,
    readable_pattern,
)
from meta_capi.spec import ActionSource

__all__ = [
    "Amount", "ColumnRef", "Connections", "Consent", "Currency", "Cursor", "CustomData",
    "EventPart", "Flag", "LimitedDataUse", "Limits", "MatchKeyField", "MatchKeyName",
    "MatchKeyPart", "Moment", "Part", "Quality", "Source", "Stages", "Text", "Window",
]  # fmt: skip


def _shorthand(value: object) -> object:
    """`em: email_address` means `em: {column: email_address}`."""
    return {"column": value} if isinstance(value, str) else value


class Part(BaseModel):
    """What all parts have in common: nothing unknown in them, nothing changed later."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class Cursor(Part):
    """The column that says when a row became known; intervals are cut on it."""

    column: ColumnName
    """A timestamp or date column; an index on it keeps runs fast. Of a date, each run
    reads the whole days that its interval touches."""
    timezone: Zone = "UTC"
    """The zone of values that carry none."""


class Source(Part):
    """Where the conversions are."""

    table: TableName | None = None
    """A table or view, as `schema.table`."""
    sql: str | None = Field(default=None, pattern=r"^[\w./-]+\.sql$")
    """Or a file beside the feed, holding one `select`."""
    key: list[ColumnName] = Field(min_length=1, max_length=4)
    """The column or columns that name a row for ever. Never personal data."""
    cursor: Cursor
    """When a row became known."""

    @model_validator(mode="after")
    def _one_of_table_and_sql(self) -> Source:
        if (self.table is None) == (self.sql is None):
            raise ValueError("name either a table or a sql file, one of the two")
        return self


class Moment(Part):
    """A column that holds a moment."""

    column: ColumnName
    """The column with the moment."""
    format: str = "timestamp"
    """`timestamp` (a timestamp column, or ISO 8601 text), `epoch_seconds`,
    `epoch_milliseconds`, or a pattern as `%d.%m.%Y %H:%M`."""
    timezone: Zone | None = None
    """The zone of values that carry none. Without it, such rows are quarantined."""

    @model_validator(mode="after")
    def _known_format(self) -> Moment:
        words = ("timestamp", "epoch_seconds", "epoch_milliseconds")
        if self.format not in words and "%" not in self.format:
            raise ValueError(
                f"format is neither one of {', '.join(words)} nor a pattern with %Y, "
                "%m and %d"
            )
        if self.format not in words:
            readable_pattern(self.format)
        return self


class Stages(Part):
    """CRM lead stages: each row of the source is one stage a lead reached."""

    column: ColumnName
    """The column with the stage's name in the CRM."""
    map: dict[str, EventName] = Field(min_length=1)
    """Stage in the CRM to event name at Meta, in the order of the funnel."""
    ignore: list[str] = []
    """Stages that are never sent."""
    lead_created: Moment
    """When the lead was made. A stage before it is quarantined."""
    crm: str = Field(min_length=1)
    """The CRM's name, sent as `lead_event_source`. Without it Meta does not count the
    event as a Conversion Leads event."""

    @model_validator(mode="after")
    def _stages_are_mapped_or_ignored(self) -> Stages:
        if both := sorted(set(self.map) & set(self.ignore)):
            raise ValueError(f"{', '.join(both)} stands both in map and in ignore")
        return self


class EventPart(Part):
    """What happened, when, and where."""

    name: EventName | None = None
    """The event name, one for all rows. CRM feeds name `stages` instead."""
    stages: Stages | None = None
    """CRM feeds: how stages become events."""
    action_source: ActionSource
    """Where it happened. What happens on a website, in an app or in a message is not sent
    from a warehouse by this project."""
    time: Moment
    """When it happened; not when it was loaded or sent."""
    id: ColumnName | None = None
    """The column with the Pixel's eventID, if the website sends the same conversion.
    Without it the event_id is made from the dataset, the event name and the key."""

    @model_validator(mode="after")
    def _one_of_name_and_stages(self) -> EventPart:
        if (self.name is None) == (self.stages is None):
            raise ValueError("name either an event name or stages, one of the two")
        if self.stages and self.action_source is not ActionSource.SYSTEM_GENERATED:
            raise ValueError("stages need action_source: system_generated")
        if self.action_source in (
            ActionSource.APP,
            ActionSource.WEBSITE,
            ActionSource.BUSINESS_MESSAGING,
        ):
            raise ValueError(
                f"{self.action_source} events are not sent from a warehouse by this "
                "project; use physical_store, phone_call, chat, email, "
                "system_generated or other"
            )
        return self


class MatchKeyPart(Part):
    """The column of one match key."""

    column: ColumnName | None = None
    """The column with the key's value."""
    default: CountryCode | None = None
    """`country` only: the country of rows that name none; it is sent as well."""
    default_country: PhoneCountry | None = None
    """`ph` only: the country of numbers written without a country code, where the row
    has no country."""
    format: DayPattern | None = None
    """`db` only: how the date is written, as `%d.%m.%Y`. Date columns need none."""
    mode: Literal["normalised", "trimmed", "raw"] | None = None
    """`external_id` only: how the Pixel treats the same id."""


MatchKeyField = Annotated[
    MatchKeyPart,
    BeforeValidator(_shorthand),
]

MatchKeyName = Literal[
    "em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country", "external_id",
    "client_ip_address", "client_user_agent", "fbc", "fbp", "subscription_id",
    "fb_login_id", "lead_id", "madid",
]  # fmt: skip


class Amount(Part):
    """A column with an amount of money."""

    column: ColumnName
    """The column with the amount."""
    decimal_mark: Literal[".", ","] = "."
    """How text writes decimals. Numeric columns need nothing."""


class Currency(Part):
    """The currency of the row's amounts, as an ISO 4217 code."""

    column: ColumnName | None = None
    """The column with the code."""
    default: CurrencyCode | None = None
    """The code of rows that name none."""

    @model_validator(mode="after")
    def _column_or_default(self) -> Currency:
        if self.column is None and self.default is None:
            raise ValueError("name a column, a default, or both")
        return self


class Text(Part):
    """A text of custom_data: from a column, or the same for all rows."""

    column: ColumnName | None = None
    """The column with the text."""
    constant: str | None = None
    """The same text for every row."""

    @model_validator(mode="after")
    def _one_of_column_and_constant(self) -> Text:
        if (self.column is None) == (self.constant is None):
            raise ValueError("name either a column or a constant, one of the two")
        return self


class ColumnRef(Part):
    """A column."""

    column: ColumnName
    """The column's name."""


TextField = Annotated[Text, BeforeValidator(_shorthand)]
AmountField = Annotated[Amount, BeforeValidator(_shorthand)]
CurrencyField = Annotated[Currency, BeforeValidator(_shorthand)]
ColumnField = Annotated[ColumnRef, BeforeValidator(_shorthand)]


class CustomData(Part):
    """What was bought, and for how much."""

    value: AmountField | None = None
    """What was paid, or what it is worth. Meta takes no Purchase without."""
    currency: CurrencyField | None = None
    """The currency of all amounts of the row."""
    net_revenue: AmountField | None = None
    """What is left of the value after costs."""
    predicted_ltv: AmountField | None = None
    """What the customer is expected to spend over the years."""
    order_id: TextField | None = None
    """The order's number. Meta removes a repeated store event by it."""
    item_number: TextField | None = None
    """Tells apart events of one order, for Meta's removal of repeats."""
    content_name: TextField | None = None
    """The name of the product or page."""
    content_category: TextField | None = None
    """The category of the product or page."""
    content_type: TextField | None = None
    """`product` or `product_group`."""
    delivery_category: TextField | None = None
    """`in_store`, `curbside` or `home_delivery`."""
    search_string: TextField | None = None
    """What was searched for."""
    status: TextField | None = None
    """The status of a registration."""
    product_catalog_id: TextField | None = None
    """The product catalogue that the contents belong to."""
    contents: ColumnField | None = None
    """A JSON column: a list of objects with `id`, `quantity` and, if known,
    `item_price`."""
    properties: dict[PropertyName, ColumnField] = {}
    """Custom properties: name at Meta to column."""

    @model_validator(mode="after")
    def _amounts_need_a_currency(self) -> CustomData:
        amounts = (self.value, self.net_revenue, self.predicted_ltv)
        if self.currency is None and any(amounts):
            raise ValueError(
                "an amount needs a currency; add currency: {default: EUR} or a column"
            )
        ours = {*CustomData.model_fields, *spec.OTHER_CUSTOM_DATA_KEYS}
        if taken := sorted(ours & set(self.properties)):
            raise ValueError(
                f"{', '.join(taken)} is Meta's own name; use the feed's word for it"
            )
        if personal := sorted(spec.REFUSED_CUSTOM_DATA_KEYS & set(self.properties)):
            raise ValueError(
                f"{', '.join(personal)} is personal, and would leave in clear; it belongs "
                "in user_data"
            )
        for name, words in spec.CUSTOM_DATA_WORDS.items():
            text = getattr(self, name)
            if text and text.constant is not None and text.constant not in words:
                raise ValueError(f"{name} takes {' or '.join(words)} and nothing else")
        return self


class Flag(Part):
    """A column and the values that mean yes."""

    column: ColumnName
    """The column with the flag."""
    values: list[Scalar] = Field(default=[True], min_length=1)
    """The values that mean yes."""


class Consent(Part):
    """The customer's permission to send the conversion to Meta."""

    column: ColumnName | None = None
    """The column with the customer's answer."""
    granted: list[Scalar] = Field(default=[True], min_length=1)
    """Values that mean yes, blind to case; `true` stands for true, t, yes, y, on and 1.
    Everything else, empty included, is withheld."""
    not_required_because: str | None = Field(default=None, min_length=10)
    """Instead of a column: why this feed needs no consent column."""

    @model_validator(mode="after")
    def _column_or_reason(self) -> Consent:
        if (self.column is None) == (self.not_required_because is None):
            raise ValueError(
                "name a column, or say not_required_because, one of the two"
            )
        return self


class LimitedDataUse(Part):
    """Limited data use, the privacy switch of some US states."""

    column: ColumnName
    """The column that says whether the row is under limited data use."""
    values: list[Scalar] = Field(default=[True], min_length=1)
    """The values that mean yes."""
    state: ColumnName | None = None
    """The column with the customer's US state."""


class Quality(Part):
    """The quality gate."""

    suite: str | None = Field(default=None, pattern=r"^[a-z0-9_]+$")
    """The suite in `include/expectations/`; the feed's name if not said."""
    max_quarantined_share: float = Field(default=0.10, ge=0, le=1)
    """Above this share of the interval's rows the run stops before anything is sent."""
    tolerated_rows: int = Field(default=5, ge=0)
    """So few quarantined rows never stop a run, whatever their share."""
    min_rows: int = Field(default=0, ge=0)
    """Fewer rows in an interval stop the run."""


class Window(Part):
    """How long Meta takes an event."""

    margin: Duration = timedelta(hours=6)
    """Events this close to Meta's limit are not sent, so that no retry ages out."""
    days: int | None = Field(default=None, ge=1, le=62)
    """A shorter limit than Meta's for this action_source."""


class Limits(Part):
    """Sizes."""

    events_per_request: int = Field(
        default=spec.MAX_EVENTS_PER_REQUEST, ge=1, le=spec.MAX_EVENTS_PER_REQUEST
    )
    """Events in one request, at most."""
    bytes_per_request: int = Field(
        default=spec.MAX_BYTES_PER_REQUEST, ge=100_000, le=spec.MAX_BYTES_PER_REQUEST
    )
    """Bytes of one request, at most."""
    requests_in_flight: int = Field(default=8, ge=1, le=64)
    """Requests of one shard that wait for an answer at the same time."""
    rows_per_shard: int = Field(default=100_000, ge=1_000)
    """Rows that one mapped `deliver` task sends, about; more rows make more tasks."""
    rows_per_slice: int = Field(default=10_000, ge=100, le=50_000)
    """Rows that are read and claimed in one step; some five steps are in memory."""
    requests_per_split: int = Field(default=128, ge=8)
    """Requests spent on finding the refused events of one batch."""
    in_doubt_resends: int = Field(default=6, ge=0, le=20)
    """How often a request without an answer is sent again."""


class Connections(Part):
    """Airflow connections."""

    warehouse: str = "capi_warehouse"
    """Where the source is; read only."""
    ledger: str = "capi_ledger"
    """The PostgreSQL that remembers what was sent."""
    meta: str = "meta_capi_default"
    """The token and the dataset."""
