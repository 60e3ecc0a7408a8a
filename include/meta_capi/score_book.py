"""The memory of Meta's own scores: one reading a day of a dataset, kept by the ledger.

The ledger says who asks Meta, so that of two feeds with one dataset only one does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

from meta_capi.ledger import Ledger
from meta_capi.overview import Span, ask
from meta_capi.scores import EventScore, KeyScore, ScoresError, Surface
from meta_capi.sql import queries

__all__ = ["Book", "Line", "Reading", "fail", "keep", "standing", "take"]

_SQL: Final = queries("scores")
_FOR_NOW: Final = timedelta(hours=1)
_FOR_GOOD: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """When a surface of a dataset was read, and why it was not since."""

    surface: Surface
    read_at: datetime | None
    trouble: str | None
    """The catalogue's code."""
    trouble_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An event's scores: the last ones, and its score day by day."""

    surface: Surface
    day: date
    last: EventScore
    history: dict[date, float | None]


@dataclass(slots=True)
class Book:
    """What is known of one dataset."""

    readings: list[Reading] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


def take(ledger: Ledger, dataset_id: str, surface: Surface, *, now: bool) -> bool:
    """Take the reading of a surface; False if it is not due or somebody else has it.

    Args:
        now: take it even if it is not due.
    """
    values = {"dataset_id": dataset_id, "surface": surface, "now": now}
    return ledger.attempt(
        lambda cursor: cursor.execute(_SQL["take"], values).fetchone() is not None
    )


def keep(
    ledger: Ledger, dataset_id: str, surface: Surface, found: Sequence[EventScore]
) -> None:
    """Keep a reading; the second of a day takes the first one's place."""
    where = {"dataset_id": dataset_id, "surface": surface}

    def step(cursor: Any) -> None:
        cursor.execute(_SQL["forget_today"], where)
        for each in found:
            cursor.execute(_SQL["keep"], where | _values(each))
            cursor.execute(
                _SQL["keep_keys"], where | _keys(each) | {"event_name": each.event_name}
            )
        cursor.execute(_SQL["read"], {**where, "events": len(found)})

    ledger.attempt(step)


def fail(ledger: Ledger, dataset_id: str, surface: Surface, error: ScoresError) -> None:
    """Remember why a surface could not be read."""
    values = {
        "dataset_id": dataset_id, "surface": surface, "trouble": error.code,
        "pause": _FOR_NOW if error.for_now else _FOR_GOOD,
    }  # fmt: skip
    ledger.attempt(lambda cursor: cursor.execute(_SQL["fail"], values) and None)


def standing(ledger: Ledger, datasets: Iterable[str], span: Span) -> dict[str, Book]:
    """Return what is known of datasets; one that was never read has an empty book."""
    names = list(dict.fromkeys(datasets))
    values: dict[str, Any] = {"datasets": names, **span._asdict()}
    books = {name: Book() for name in names}
    for row in ask(ledger, "score_readings", datasets=names):
        row["surface"] = Surface(row["surface"])
        books[row.pop("dataset_id")].readings.append(Reading(**row))
    keys: defaultdict[_Name, list[KeyScore]] = defaultdict(list)
    for row in ask(ledger, "score_keys", **values):
        keys[_name(row)].append(KeyScore(**_only(row, KeyScore)))
    days: defaultdict[_Name, list[dict[str, Any]]] = defaultdict(list)
    for row in ask(ledger, "scores", **values):
        days[_name(row)].append(row)
    for name, rows in days.items():
        last = EventScore(**_only(rows[-1], EventScore), keys=keys[name])
        books[name.dataset_id].lines.append(
            Line(
                surface=Surface(name.surface), day=rows[-1]["day"], last=last,
                history={row["day"]: row["score"] for row in rows},
            )
        )  # fmt: skip
    return books


class _Name(NamedTuple):
    dataset_id: str
    surface: str
    event_name: str


def _name(row: Mapping[str, Any]) -> _Name:
    return _Name(row["dataset_id"], row["surface"], row["event_name"])


def _only(row: Mapping[str, Any], made: type) -> dict[str, Any]:
    """Return the columns that a thing is made of."""
    names = {each.name for each in fields(made)}
    return {name: value for name, value in row.items() if name in names}


def _keys(each: EventScore) -> dict[str, Any]:
    return {
        "match_keys": [key.match_key for key in each.keys],
        "coverages": [key.coverage for key in each.keys],
        "gains": [key.gain for key in each.keys],
    }


def _values(each: EventScore) -> dict[str, Any]:
    return {
        field.name: getattr(each, field.name)
        for field in fields(each) if field.name != "keys"
    }  # fmt: skip
