"""What a feed file may say: one declared stream of conversions.

A feed is YAML, written by a data engineer. Every fault in it is found at once, each with
its file, line and path, and with what to write instead. Nothing here reads a database.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from meta_capi import spec
from meta_capi.errors import FeedError
from meta_capi.spec import ActionSource

__all__ = ["Feed", "json_schema", "load", "load_all", "parse"]

_DURATION: Final = re.compile(r"^(\d{1,6})\s*([smhd])$")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    if isinstance(value, str) and (match := _DURATION.match(value.strip())):
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    if isinstance(value, timedelta):
        return value
    raise ValueError("is not a duration; write a number and a unit, as 30m, 6h or 7d")


def _zone(value: object) -> object:
    if isinstance(value, str) and value in available_timezones():
        return value
    raise ValueError("is not a time zone; write a name as Europe/Zurich or UTC")


def _shorthand(value: object) -> object:
    """`em: email_address` means `em: {column: email_address}`."""
    return {"column": value} if isinstance(value, str) else value


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(lambda value: f"{int(value.total_seconds())}s", return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern}),
]
Zone = Annotated[
    str,
    BeforeValidator(_zone),
    WithJsonSchema({"type": "string", "examples": ["UTC", "Europe/Zurich"]}),
]
# An identifier of the warehouse. Quoted by the dialect when used; this bound keeps
# anything that is not a name out of SQL in the first place.
ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$]{0,62}$")]
TableName = Annotated[
    str, Field(pattern=r"^(?:[A-Za-z_][A-Za-z0-9_$]{0,62}\.){0,2}[A-Za-z_][A-Za-z0-9_$]{0,62}$")
]
CountryCode = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
Scalar = str | bool | int


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Cursor(_Part):
    """The column that says when a row became known; intervals are cut on it."""

    column: ColumnName
    """A timestamp or date column; an index on it keeps runs fast."""
    timezone: Zone = "UTC"
    """The zone of values that carry none."""


class Source(_Part):
    """Where the conversions are."""

    table: TableName | None = None
    """A table or view, as `schema.table`."""
    sql: str | None = Field(default=None, pattern=r"^[\w./-]+\.sql$")
    """Or a file beside the feed, holding one `select`."""
    key: list[ColumnName] = Field(min_length=1, max_length=4)
    """The column or columns that name a row for ever. Never personal data."""
    cursor: Cursor

    @model_validator(mode="after")
    def _one_of_table_and_sql(self) -> Source:
        if (self.table is None) == (self.sql is None):
            raise ValueError("name either a table or a sql file, one of the two")
        return self


class Moment(_Part):
    """A column that holds a moment."""

    column: ColumnName
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
                f"format is neither one of {', '.join(words)} nor a pattern with %Y, %m, %d"
            )
        return self


class Stages(_Part):
    """CRM lead stages: each row of the source is one stage a lead reached."""

    column: ColumnName
    map: dict[str, Annotated[str, Field(min_length=1, max_length=50)]] = Field(min_length=1)
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


class EventPart(_Part):
    """What happened, when, and where."""

    name: str | None = Field(default=None, min_length=1, max_length=50)
    """The event name, one for all rows. CRM feeds name `stages` instead."""
    stages: Stages | None = None
    action_source: ActionSource
    time: Moment
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


class MatchKeyPart(_Part):
    """The column of one match key."""

    column: ColumnName | None = None
    default: CountryCode | None = None
    """`country` only: the country of rows that name none; it is sent as well."""
    default_country: CountryCode | None = None
    """`ph` only: the country of numbers written without a country code, where the row
    has no country."""
    format: str | None = Field(default=None, pattern="%")
    """`db` only: how the date is written, as `%d.%m.%Y`. Date columns need none."""
    mode: Literal["normalised", "trimmed", "raw"] | None = None
    """`external_id` only: how the Pixel treats the same id."""


MatchKeyField = Annotated[
    MatchKeyPart,
    BeforeValidator(_shorthand),
]

_KEY_OPTIONS: Final = {
    "country": {"default"},
    "ph": {"default_country"},
    "db": {"format"},
    "external_id": {"mode"},
}
_FRIENDLY_KEYS: Final = {
    "email": "em", "phone": "ph", "first_name": "fn", "last_name": "ln",
    "birthday": "db", "date_of_birth": "db", "gender": "ge", "city": "ct",
    "state": "st", "zip": "zp", "postcode": "zp", "postal_code": "zp",
    "click_id": "fbc", "browser_id": "fbp", "ip": "client_ip_address",
}  # fmt: skip
MatchKeyName = Literal[
    "em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country", "external_id",
    "client_ip_address", "client_user_agent", "fbc", "fbp", "subscription_id",
    "fb_login_id", "lead_id", "madid",
]  # fmt: skip


class Amount(_Part):
    """A column with an amount of money."""

    column: ColumnName
    decimal_mark: Literal[".", ","] = "."
    """How text writes decimals. Numeric columns need nothing."""


class Currency(_Part):
    """The currency of the row's amounts, as an ISO 4217 code."""

    column: ColumnName | None = None
    default: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")

    @model_validator(mode="after")
    def _column_or_default(self) -> Currency:
        if self.column is None and self.default is None:
            raise ValueError("name a column, a default, or both")
        return self


class Text(_Part):
    """A text of custom_data: from a column, or the same for all rows."""

    column: ColumnName | None = None
    constant: str | None = None

    @model_validator(mode="after")
    def _one_of_column_and_constant(self) -> Text:
        if (self.column is None) == (self.constant is None):
            raise ValueError("name either a column or a constant, one of the two")
        return self


class ColumnRef(_Part):
    """A column."""

    column: ColumnName


TextField = Annotated[Text, BeforeValidator(_shorthand)]
AmountField = Annotated[Amount, BeforeValidator(_shorthand)]
CurrencyField = Annotated[Currency, BeforeValidator(_shorthand)]
ColumnField = Annotated[ColumnRef, BeforeValidator(_shorthand)]


class CustomData(_Part):
    """What was bought, and for how much."""

    value: AmountField | None = None
    currency: CurrencyField | None = None
    net_revenue: AmountField | None = None
    predicted_ltv: AmountField | None = None
    order_id: TextField | None = None
    item_number: TextField | None = None
    content_name: TextField | None = None
    content_category: TextField | None = None
    content_type: TextField | None = None
    delivery_category: TextField | None = None
    search_string: TextField | None = None
    status: TextField | None = None
    product_catalog_id: TextField | None = None
    contents: ColumnField | None = None
    """A JSON column: a list of objects with `id`, `quantity` and, if known,
    `item_price`."""
    properties: dict[Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,49}$")], ColumnField] = {}
    """Custom properties: name at Meta to column."""

    @model_validator(mode="after")
    def _amounts_need_a_currency(self) -> CustomData:
        if self.currency is None and (self.value or self.net_revenue or self.predicted_ltv):
            raise ValueError("an amount needs a currency; add currency: {default: EUR} or a column")
        if taken := sorted(set(self.properties) & set(CustomData.model_fields)):
            raise ValueError(f"{', '.join(taken)} is Meta's own name; use the field of that name")
        return self


class Flag(_Part):
    """A column and the values that mean yes."""

    column: ColumnName
    values: list[Scalar] = Field(default=[True], min_length=1)


class Consent(_Part):
    """The customer's permission to send the conversion to Meta."""

    column: ColumnName | None = None
    granted: list[Scalar] = Field(default=[True], min_length=1)
    """Values that mean yes, blind to case; `true` stands for true, t, yes, y, on and 1.
    Everything else, empty included, is withheld."""
    not_required_because: str | None = Field(default=None, min_length=10)
    """Instead of a column: why this feed needs no consent column."""

    @model_validator(mode="after")
    def _column_or_reason(self) -> Consent:
        if (self.column is None) == (self.not_required_because is None):
            raise ValueError("name a column, or say not_required_because, one of the two")
        return self


class LimitedDataUse(_Part):
    """Limited data use, the privacy switch of some US states."""

    column: ColumnName
    values: list[Scalar] = Field(default=[True], min_length=1)
    state: ColumnName | None = None
    """The column with the customer's US state."""


class Quality(_Part):
    """The quality gate."""

    suite: str | None = Field(default=None, pattern=r"^[a-z0-9_]+$")
    """The suite in `include/expectations/`; the feed's name if not said."""
    max_quarantined_share: float = Field(default=0.10, ge=0, le=1)
    """Above this share of the interval's rows the run stops before anything is sent."""
    min_rows: int = Field(default=0, ge=0)
    """Fewer rows in an interval stop the run."""


class Window(_Part):
    """How long Meta takes an event."""

    margin: Duration = timedelta(hours=6)
    """Events within this time of Meta's limit are not sent, so that no retry ages out."""
    days: int | None = Field(default=None, ge=1, le=62)
    """A shorter limit than Meta's for this action_source."""


class Limits(_Part):
    """Sizes."""

    events_per_request: int = Field(default=spec.MAX_EVENTS_PER_REQUEST, ge=1, le=1_000)
    bytes_per_request: int = Field(
        default=spec.MAX_BYTES_PER_REQUEST, ge=100_000, le=spec.MAX_BYTES_PER_REQUEST
    )
    requests_in_flight: int = Field(default=8, ge=1, le=64)
    rows_per_shard: int = Field(default=250_000, ge=1_000)
    rows_per_slice: int = Field(default=10_000, ge=100, le=50_000)
    requests_per_split: int = Field(default=128, ge=8)
    """Requests spent on finding the refused events of one batch."""
    in_doubt_resends: int = Field(default=6, ge=0, le=20)


class Connections(_Part):
    """Airflow connections."""

    warehouse: str = "capi_warehouse"
    ledger: str = "capi_ledger"
    meta: str = "meta_capi_default"


class Feed(_Part):
    """One declared stream of conversions."""

    feed: str = Field(pattern=r"^[a-z][a-z0-9_]{2,47}$")
    """The feed's name; the file has the same. The DAG is `send_<name>`."""
    description: str = Field(min_length=10)
    owner: str = "marketing-data"
    schedule: str = Field(min_length=9)
    """A cron expression in UTC."""
    start_date: date
    lookback: int = Field(default=0, ge=0, le=500)
    """Read this many earlier intervals again, for rows that arrive late."""
    connections: Connections = Connections()
    source: Source
    event: EventPart
    user_data: dict[MatchKeyName, MatchKeyField] = Field(min_length=1)
    custom_data: CustomData = CustomData()
    consent: Consent
    limited_data_use: LimitedDataUse | None = None
    opt_out: Flag | None = None
    """Rows whose event is measured, but not used to optimise delivery."""
    quality: Quality = Quality()
    window: Window = Window()
    holding_period: Duration = timedelta(0)
    """Wait this long after the conversion, for cancellations."""
    on_in_doubt: Literal["resend", "hold"] = "resend"
    """What to do with events whose request got no trustworthy answer."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _parts_fit(self) -> Feed:
        faults = [*self._match_key_faults(), *self._event_faults()]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _match_key_faults(self) -> Iterator[str]:
        for key, part in self.user_data.items():
            allowed = _KEY_OPTIONS.get(key, set())
            given = {
                name for name in ("default", "default_country", "format", "mode")
                if getattr(part, name) is not None
            }  # fmt: skip
            if wrong := sorted(given - allowed):
                yield f"user_data.{key} knows no {', '.join(wrong)}"
            if part.column is None and not (key == "country" and part.default):
                yield f"user_data.{key} names no column"
        if set(self.user_data) <= {"country"}:
            yield "user_data names no match key but country, which Meta refuses as too broad"

    def _event_faults(self) -> Iterator[str]:
        custom = self.custom_data
        if self.event.name in spec.EVENTS_REQUIRING_VALUE and (
            custom.value is None or custom.currency is None
        ):
            yield f"{self.event.name} needs custom_data.value and custom_data.currency"
        if self.holding_period >= self.longest_window - self.window.margin:
            yield "holding_period is as long as the time in which Meta takes the event"
        if self.window.margin >= self.longest_window:
            yield "window.margin is as long as the window"
        if (
            self.event.action_source is ActionSource.PHYSICAL_STORE
            and self.on_in_doubt == "resend"
            and custom.order_id is None
        ):
            yield (
                "Meta removes a repeated store event by its order_id; map "
                "custom_data.order_id, or set on_in_doubt: hold"
            )

    @property
    def longest_window(self) -> timedelta:
        """How old an event of this feed may be when Meta gets it."""
        window = timedelta(seconds=spec.window_seconds(self.event.action_source))
        return min(window, timedelta(days=self.window.days)) if self.window.days else window

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
        return tuple(dict.fromkeys(stages.map.values())) if stages else (str(self.event.name),)

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


def load(path: Path) -> Feed:
    """Read one feed file.

    Raises:
        FeedError: with every fault of the file, as `file:line: path: what to write`.
    """
    feed = parse(path.read_text(encoding="utf-8"), name=path.name)
    if feed.feed != path.stem:
        raise FeedError([f"{path.name}:1: feed: is {feed.feed!r}; the file's name says {path.stem!r}"])
    return feed


def load_all(folder: Path) -> dict[str, Feed]:
    """Read every `*.yaml` of a folder; raise one FeedError with all faults of all files."""
    feeds: dict[str, Feed] = {}
    faults: list[str] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            feed = load(path)
        except FeedError as error:
            faults += error.faults
        else:
            feeds[feed.feed] = feed
    if faults:
        raise FeedError(faults)
    return feeds


def parse(text: str, *, name: str = "feed") -> Feed:
    """Read a feed from YAML text; `name` stands in the messages."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or "cannot be read"
        raise FeedError([f"{name}:{line}: is not YAML: {problem}"]) from None
    if not isinstance(node, yaml.MappingNode):
        raise FeedError([f"{name}:1: holds no mapping; start with `feed: <name>`"])
    lines: dict[tuple[str, ...], int] = {}
    faults = [f"{name}:{line}: {fault}" for line, fault in _walk(node, (), lines)]
    if faults:
        raise FeedError(faults)
    data = yaml.safe_load(text)
    try:
        return Feed.model_validate(data)
    except ValidationError as error:
        raise FeedError(sorted(_faults(error, name, lines), key=_line_of)) from None


def _line_of(fault: str) -> int:
    return int(fault.split(":", 2)[1])


def _walk(
    node: yaml.Node, path: tuple[str, ...], lines: dict[tuple[str, ...], int]
) -> Iterator[tuple[int, str]]:
    """Note every path's line; yield keys that stand twice, which YAML itself accepts."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:
                yield line, f"{'.'.join(inner)}: stands twice; keep one"
            lines[inner] = line
            yield from _walk(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _walk(value, (*path, str(index)), lines)


def _faults(
    error: ValidationError, name: str, lines: Mapping[tuple[str, ...], int]
) -> Iterator[str]:
    seen = set()
    for fault in error.errors(include_url=False, include_context=True):
        path = tuple(str(part) for part in fault["loc"] if part != "[key]")
        known = path
        while known and known not in lines:
            known = known[:-1]
        message = _advice(path, str(fault["type"]), str(fault["msg"]), fault.get("input"))
        line = f"{name}:{lines.get(known, 1)}: {'.'.join(path) or 'feed'}: {message}"
        if line not in seen:
            seen.add(line)
            yield line


def _advice(path: tuple[str, ...], kind: str, message: str, value: object) -> str:
    here = path[-1] if path else ""
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(here, _names_at(path[:-1]), n=1, cutoff=0.5)
        return f"is not known here{f'; did you mean {close[0]}?' if close else '; take it out'}"
    if kind == "literal_error" and path[:1] == ("user_data",) and len(path) == 2:
        keys = [*spec.DIGESTED_KEYS, *spec.PLAIN_KEYS]
        meant = _FRIENDLY_KEYS.get(here) or next(
            iter(difflib.get_close_matches(here, keys, n=1, cutoff=0.5)), None
        )
        advice = f"write {meant}" if meant else f"use one of {', '.join(keys)}"
        return f"is not a match key of Meta's; {advice}"
    if kind == "missing":
        return "is missing; add it"
    text = message.removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        text = f"{value!r} is not a name that can stand here (it must match {message.split(chr(39))[1]})"
    elif kind in ("enum", "literal_error"):
        text = f"{value!r} is not known; {message[0].lower()}{message[1:]}"
    elif kind != "value_error":
        text = f"{message[0].lower()}{message[1:]}"
    return text


def _names_at(path: tuple[str, ...]) -> list[str]:
    """Return the field names a model knows at a path, for suggestions."""
    model: type[BaseModel] | None = Feed
    for part in path:
        field = model.model_fields.get(part) if model else None
        model = _model_of(field.annotation) if field else None
    return list(model.model_fields) if model else []


def _model_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if found := _model_of(part):
            return found
    return None
