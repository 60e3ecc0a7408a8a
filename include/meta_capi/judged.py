"""Rows of the source, and what today's rules make of them.

What is told of a row is its fate and the shapes of its match keys. Of a customer who
gave no consent, no match key is read, here as little as in a run.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from meta_capi import match_keys
from meta_capi.built import Columns
from meta_capi.event import Builder
from meta_capi.feed import Feed
from meta_capi.lifecycle import State
from meta_capi.mask import shape
from meta_capi.names import joined_key, split_key
from meta_capi.normalise import Flaw, country, text_of
from meta_capi.source import Interval, Shard, Slice, Source

__all__ = [
    "KeyReading", "Row", "called", "judged", "names_of", "newest", "readings", "sent_words",
    "stage_names",
]  # fmt: skip

_EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
_DAYS: Final = (1, 3, 10, 62)
_MOST_TWINS: Final = 100


@dataclass(frozen=True, slots=True)
class KeyReading:
    """What becomes of one match key of one row."""

    key: str
    column: str
    """The column, or `(default)`."""
    raw: str
    """The value's shape."""
    normalised: str
    """The shape of what is digested or sent; empty if nothing is."""
    sent: tuple[str, ...]
    flaw: str | None
    """Why the key is left out: a code of the catalogue."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, judged by today's rules."""

    source_key: str
    state: State
    reason: str | None
    """None where the event would be sent."""
    cursor_at: datetime
    event_name: str | None
    event_id: str | None
    event_time: int | None
    body: bytes | None
    flaws: dict[str, int]
    """What is left out of the event, by reason."""
    keys: Sequence[KeyReading]
    """Empty where no match key may be read."""

    @property
    def is_sendable(self) -> bool:
        """Whether the event would be sent."""
        return self.reason is None and self.body is not None


def newest(source: Source, now: datetime, most: int) -> Columns | None:
    """Read some rows of the shortest time back that has any; None if there are none."""
    starts = [now - timedelta(days=days) for days in _DAYS]
    for start in (*starts, _EARLIEST):
        if found := _first_slice(source.read(Interval(start, now), Shard(), most)):
            return found
    return None


def called(source: Source, source_key: str) -> Columns | None:
    """Read the rows with a key, as the ledger writes it; None if there are none."""
    parts = split_key(source_key)
    if len(parts) != len(source.feed.source.key):
        return None
    return _first_slice(source.read_keys([parts], _MOST_TWINS))


def _first_slice(slices: Iterator[Slice]) -> Columns | None:
    """Return the first slice, and let the connection go."""
    found = next(slices, None)
    if isinstance(slices, Generator):
        slices.close()
    return found.columns if found else None


def names_of(text: str) -> list[str]:
    """Return what a person may mean by a key: the ledger's spelling, or the row's.

    >>> names_of("L|1")
    ['L|1', 'L%7C1']
    """
    return list(dict.fromkeys([text, joined_key([text])]))


def stage_names(text: str, feed: Feed) -> list[str]:
    """Return the keys of one lead's rows, where each stage has a row of its own."""
    stages, columns = feed.event.stages, feed.source.key
    if stages is None or len(columns) != 2 or stages.column not in columns:
        return []
    lead_first = columns[1] == stages.column
    known = [*stages.map, *stages.ignore]
    return [
        joined_key([text, stage] if lead_first else [stage, text]) for stage in known
    ]


def judged(
    columns: Columns, feed: Feed, now: datetime, *, dataset_id: str, digest_key: bytes
) -> Iterator[Row]:
    """Yield the rows of a slice, judged together: two with one key are duplicates."""
    builder = Builder(
        feed, dataset_id=dataset_id, digest_key=digest_key, today=now.date()
    )
    at = int(now.timestamp())
    built = builder.build(columns, at)
    for place, why in enumerate(built.reasons):
        one = {name: values[place : place + 1] for name, values in columns.items()}
        unread = why == "consent.not_given"
        yield Row(
            source_key=built.source_keys[place],
            state=built.states[place],
            reason=why,
            cursor_at=built.cursors[place],
            event_name=built.event_names[place],
            event_id=built.event_ids[place],
            event_time=built.event_times[place],
            body=built.bodies[place],
            # Asked again alone, because a slice's flaws are those of all its rows.
            flaws=dict(builder.build(one, at).flaws),
            keys=() if unread else readings(feed, _first(one), now.date()),
        )


def _first(one: Columns) -> dict[str, object]:
    return {name: values[0] for name, values in one.items()}


def readings(feed: Feed, row: dict[str, object], today: date) -> list[KeyReading]:
    """Return what becomes of each match key of a row."""
    code = _country(feed, row)
    found = []
    for key, match_key in match_keys.KEYS.items():
        part = feed.user_data.get(key)  # type: ignore[call-overload]
        if part is None:
            continue
        context = match_keys.Context(
            country=code.lower() if code else None,
            phone_country=part.default_country,
            birthday_format=part.format,
            external_id_mode=part.mode or "normalised",
            today=today,
        )
        raw = row[part.column] if part.column else None
        values, used = match_keys.read(key, raw, context), raw
        if values is None and part.default is not None:
            used = part.default
            values = match_keys.read(key, used, context)
        sent = values if isinstance(values, tuple) else ()
        found.append(
            KeyReading(
                key=key,
                column=part.column or "(default)",
                raw=shape(raw),
                normalised=_normal(match_key, used, context, len(sent)) if sent else "",
                sent=sent,
                flaw=values.value if isinstance(values, Flaw) else None,
            )
        )
    return found


def _country(feed: Feed, row: dict[str, object]) -> str | None:
    """Return the row's country by the event builder's rule."""
    part = feed.user_data.get("country")
    text = text_of(row[part.column]) if part and part.column else None
    if not isinstance(text, str) or not text.strip():
        return part.default if part else None
    code = country(text)
    if isinstance(code, Flaw):
        return None
    return code.upper() if code else part.default if part else None


def _normal(
    key: match_keys.MatchKey, raw: object, context: match_keys.Context, values: int
) -> str:
    """Return the shape of a value's normal form."""
    text = text_of(raw)
    if values > 1:
        return f"{values} values"
    if not isinstance(text, str):
        return ""
    if key.is_digested and isinstance(match_keys.prehashed(text), str):
        return "a digest already"
    if key.name == "db" and isinstance(raw, date):
        context = replace(context, birthday_format=None)
    parts = key.separators.split(text) if key.separators else [text]
    for each in parts:
        normal = key.rule(each.strip(), context) if each.strip() else None
        if isinstance(normal, str) and not isinstance(normal, Flaw):
            return shape(str(normal))
    return ""


def sent_words(reading: KeyReading, *, exact: bool = False) -> str:
    """Say what goes out of a match key: four characters of a digest, and no value."""
    if reading.flaw:
        return "left out"
    if not reading.sent:
        return "-"
    if not match_keys.KEYS[reading.key].is_digested:
        return "in clear"
    whole = exact and len(reading.sent) == 1
    return "see below" if whole else ", ".join(f"{each[:4]}…" for each in reading.sent)
