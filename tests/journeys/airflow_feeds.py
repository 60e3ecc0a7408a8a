"""Feeds to be broken: one for each fault, so that all fit into one start of Airflow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from meta_capi.names import event_id

__all__ = ["DATASET", "Feed", "id_of"]

DATASET: Final = "1234567890123456"
_FEED: Final = """
feed: {name}
description: Orders for one fault.
schedule: "{schedule}"
start_date: {start}
lookback: 6
source: {{table: shop.{name}, key: [order_id], cursor: {{column: loaded_at}}}}
event: {{name: Purchase, action_source: physical_store, time: {{column: bought_at}}}}
user_data: {{em: email}}
custom_data: {{value: amount, currency: {{default: EUR}}, order_id: order_id}}
consent: {{not_required_because: Nobody is real here.}}
limits:
  {{events_per_request: {batch}, requests_in_flight: 1, rows_per_shard: 1000,
    rows_per_slice: {slice}}}
"""
_EXPECTATION: Final = {
    "type": "expect_column_values_to_not_be_null",
    "severity": "critical",
    "kwargs": {"column": "order_id"},
    "meta": {"reason": "key.missing"},
}
_TABLE: Final = """
create table shop.{name} as
select '{name}-' || to_char(n, 'FM0000') as order_id, %s::timestamptz as loaded_at,
    %s::timestamptz - interval '1 hour' as bought_at,
    '{name}' || n || '@shop.example' as email, '12.50' as amount
from generate_series(1, %s) as n;
"""


@dataclass(frozen=True)
class Feed:
    """A feed: one fault's conversions."""

    name: str
    rows: int = 40
    batch: int = 10
    slice: int = 1_000
    schedule: str = "0 0 1 1 *"
    """Its first interval ends with the year: no run but ours."""

    @property
    def dag_id(self) -> str:
        """Its DAG."""
        return f"send_{self.name}"

    @property
    def keys(self) -> list[str]:
        """The source keys of its rows."""
        return [f"{self.name}-{number:04}" for number in range(1, self.rows + 1)]

    @cached_property
    def event_ids(self) -> frozenset[str]:
        """The ids of its events."""
        return frozenset(map(id_of, self.keys))

    @property
    def table(self) -> str:
        """The statement that makes its table; takes a moment, twice, and how many rows."""
        return _TABLE.format(name=self.name)

    def write(self, home: Path, year: int) -> None:
        """Write its file and its suite."""
        text = _FEED.format(
            name=self.name, batch=self.batch, slice=self.slice, schedule=self.schedule,
            start=f"{year}-01-01",
        )  # fmt: skip
        suite = json.dumps({"name": self.name, "expectations": [_EXPECTATION]})
        for path, content in (
            (home / "feeds" / f"{self.name}.yaml", text),
            (home / "expectations" / f"{self.name}.json", suite),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)


def id_of(key: str) -> str:
    """Return the event id of a source key."""
    return event_id(DATASET, "Purchase", key)
