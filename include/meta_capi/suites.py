"""What an expectation suite may say: rules about single rows, with a reason for each.

A suite is JSON in Great Expectations' own format. Expectations that bring values out of
the warehouse have no place in it; every fault of a suite is found at once, before
anything is asked. Nothing here imports Great Expectations or reads a database.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from string import Formatter
from typing import Any, Final

from meta_capi.catalogue import REASONS, Effect
from meta_capi.errors import FeedError
from meta_capi.feed import Feed

__all__ = [
    "CUSTOM_SQL",
    "NOT_NULL",
    "UNIQUE",
    "Rule",
    "Severity",
    "Suite",
    "load_suite",
]

CUSTOM_SQL: Final = "unexpected_rows_expectation"
NOT_NULL: Final = "expect_column_values_to_not_be_null"
UNIQUE: Final = (
    "expect_column_values_to_be_unique",
    "expect_compound_columns_to_be_unique",
)
# What each expectation that judges single rows calls its columns.
_COLUMNS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "expect_column_values_to_be_null": ("column",),
    NOT_NULL: ("column",),
    "expect_column_values_to_be_unique": ("column",),
    "expect_compound_columns_to_be_unique": ("column_list",),
    "expect_column_values_to_be_between": ("column",),
    "expect_column_values_to_be_in_set": ("column",),
    "expect_column_values_to_not_be_in_set": ("column",),
    "expect_column_values_to_match_regex": ("column",),
    "expect_column_values_to_not_match_regex": ("column",),
    "expect_column_value_lengths_to_be_between": ("column",),
    "expect_column_value_lengths_to_equal": ("column",),
    "expect_column_pair_values_to_be_equal": ("column_A", "column_B"),
    "expect_column_pair_values_a_to_be_greater_than_b": ("column_A", "column_B"),
    CUSTOM_SQL: (),
}
_WORDS_OF_RUNS: Final = ("result_format", "catch_exceptions", "include_config")


class Severity(StrEnum):
    """What a failed expectation does."""

    CRITICAL = "critical"
    """Its rows are quarantined."""
    WARNING = "warning"
    """Its rows are counted, and sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One expectation of a suite."""

    type: str
    kwargs: Mapping[str, Any]
    severity: Severity
    reason: str | None
    """The catalogue's code; a critical rule has one."""
    notes: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it speaks of; none for custom SQL."""
        return tuple(_columns(self.type, self.kwargs))

    @property
    def label(self) -> str:
        """Its name in messages: type and columns."""
        place = ", ".join(self.columns)
        return f"{self.type} on {place}" if place else f"{self.type} ({self.reason})"

    @property
    def mostly(self) -> float:
        """The share of rows that must meet it."""
        return float(self.kwargs.get("mostly", 1.0))


@dataclass(frozen=True, slots=True)
class Suite:
    """The expectations of one feed."""

    name: str
    rules: tuple[Rule, ...]


def load_suite(path: Path, feed: Feed) -> Suite:
    """Read a feed's suite.

    Raises:
        FeedError: with every fault of the file, one line each.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FeedError([
            f"{path.name}: does not exist in {path.parent}; `meta-capi feed new` writes one, "
            'and {"expectations": []} is one, too.'
        ]) from None  # fmt: skip
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise FeedError([f"{path.name}:{line}: is not JSON."]) from None
    entries = data.get("expectations") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise FeedError([f"{path.name}: has no list of expectations; add one."])
    faults = [
        f"{path.name}: expectation {place} ({entry.get('type')}): {fault}"
        for place, entry in enumerate(entries, 1)
        for fault in _faults(entry, feed)
    ]
    if faults:
        raise FeedError(faults)
    rules = tuple(
        Rule(
            type=entry["type"],
            kwargs=entry["kwargs"],
            severity=Severity(entry.get("severity", Severity.CRITICAL)),
            reason=entry.get("meta", {}).get("reason"),
            notes=entry.get("meta", {}).get("notes", ""),
        )
        for entry in entries
    )
    return Suite(str(data.get("name", path.stem)), rules)


def _columns(type_: str, kwargs: Mapping[str, Any]) -> Iterator[str]:
    for name in _COLUMNS_OF.get(type_, ()):
        value = kwargs.get(name, ())
        yield from (value,) if isinstance(value, str) else value


def _faults(entry: Mapping[str, Any], feed: Feed) -> Iterator[str]:
    type_, kwargs = str(entry.get("type")), entry.get("kwargs")
    if type_ not in _COLUMNS_OF:
        yield (
            "does not judge single rows, or brings values out of the warehouse; use "
            f"one of {', '.join(_COLUMNS_OF)}."
        )
        return
    if not isinstance(kwargs, dict):
        yield "has no kwargs; add them."
        return
    meta = entry.get("meta", {})
    if not isinstance(meta, dict):
        yield 'its meta is no mapping; write it as {"reason": "gate.failed"}.'
        return
    yield from _column_faults(type_, kwargs, feed)
    for word in _WORDS_OF_RUNS:
        if word in kwargs:
            yield f"{word} is not a suite's to choose; take it out."
    if type_ == CUSTOM_SQL:
        yield from _query_faults(kwargs.get("unexpected_rows_query"))
    if not _is_share(kwargs.get("mostly", 1)):
        yield "its mostly is no number from 0 to 1; write one, as 0.95."
    severity = entry.get("severity", Severity.CRITICAL)
    yield from _reason_faults(severity, meta.get("reason"), kwargs)


def _column_faults(type_: str, kwargs: Mapping[str, Any], feed: Feed) -> Iterator[str]:
    for name in _COLUMNS_OF[type_]:
        is_list = name == "column_list"
        columns = kwargs.get(name) if is_list else [kwargs.get(name)]
        if not (columns and isinstance(columns, list) and all(map(_is_text, columns))):
            kind = "a list of columns" if is_list else "the name of a column"
            yield f"its {name} is not {kind}; write it."
            continue
        for column in columns:
            if column not in feed.columns:
                close = difflib.get_close_matches(column, feed.columns, n=1)
                meant = f"; did you mean {close[0]}?" if close else "."
                yield f"the feed reads no column {column}{meant}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_share(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= 1
    )


def _reason_faults(
    severity: object, reason: object, kwargs: Mapping[str, Any]
) -> Iterator[str]:
    known = REASONS.get(str(reason))
    if severity not in list(Severity):
        yield "its severity is neither critical nor warning."
    if reason is not None and known is None:
        close = difflib.get_close_matches(str(reason), REASONS, n=1)
        meant = f"; did you mean {close[0]}?" if close else "."
        yield f"the catalogue has no reason {reason}{meant}"
    if severity != Severity.CRITICAL:
        return
    if reason is None:
        yield "is critical and has no meta.reason; name one of the catalogue's."
    elif known and known.effect is not Effect.QUARANTINED:
        yield f"the reason {reason} does not quarantine; choose one that does."
    if "mostly" in kwargs:
        yield (
            "is critical and has mostly: would its rows be sent or not? Make it a "
            "warning, or take mostly out."
        )


def _query_faults(query: object) -> Iterator[str]:
    if not isinstance(query, str):
        yield "has no unexpected_rows_query; add one."
        return
    try:
        fields = {
            field for _, field, _, _ in Formatter().parse(query) if field is not None
        }
    except ValueError:
        fields = set()
    if fields != {"batch"}:
        yield "its query must name {batch} and no other braces (double a regex's)."
    if not re.match(r"\s*(select|with)\b", query, re.IGNORECASE) or ";" in query:
        yield "its query must be one select, without a semicolon."
