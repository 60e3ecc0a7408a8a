"""One pass over an interval's rows: how many meet each condition, and which are bad.

The good rows come back as one line of counts, the bad ones by their keys; so a million
rows are looked at once, in the warehouse, and hardly any leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from meta_capi.conditions import Condition, Interval, within
from meta_capi.relation import Relation
from meta_capi.source import Source
from meta_capi.warehouse import reading

__all__ = ["Group", "Key", "Sweep", "repeated"]

Key = tuple[object, ...]

_ROWS_PER_FETCH: Final = 5_000


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are alike: all good ones are one group, bad ones share a key."""

    rows: int
    key: Key
    """As the driver gives it; of no meaning where no mark is set."""
    marks: tuple[int, ...]
    """For each condition on bad rows, 1 where these rows meet it."""
    counts: tuple[int, ...]
    """For each other condition, how many of these rows meet it."""


class Sweep:
    """An interval's rows, and the statements that look at them.

    Args:
        source: the feed's rows.
        relation: what they hold.
        interval: which of them.
    """

    def __init__(self, source: Source, relation: Relation, interval: Interval) -> None:
        self._engine, self._name = source.engine, source.name
        self._keys = [relation.column(name) for name in source.feed.source.key]
        columns = [relation.column(name) for name in source.feed.columns]
        self.batch = sa.select(*columns).where(within(source.feed, relation, interval))

    def any_rows(self) -> bool:
        """Tell whether there is a row at all."""
        one = self.batch.with_only_columns(sa.literal(1), maintain_column_froms=True)
        return self._number(one.limit(1)) == 1

    def groups(
        self, bad: Sequence[Condition], counted: Sequence[Condition]
    ) -> Iterator[Group]:
        """Look at every row once; yield the groups, a bounded number at a time."""
        marks = [_flag(test, f"mark{n}") for n, test in enumerate(bad)]
        counts = [_flag(test, f"met{n}") for n, test in enumerate(counted)]
        judged = self._select(self.batch, *marks, *counts).subquery("judged")
        marked = [judged.c[mark.name] for mark in marks]
        is_bad = sa.or_(sa.false(), *(mark == 1 for mark in marked))
        keys = [sa.case((is_bad, judged.c[key.name])) for key in self._keys]
        # Without a condition on bad rows there is one group, an empty interval's too.
        places = [*keys, *marked] if marked else []
        sums = [sa.func.sum(judged.c[count.name]) for count in counts]
        statement = sa.select(sa.func.count(), *places, *sums).select_from(judged)
        statement = statement.group_by(*places)
        ends = 1 + len(places) - len(marked), 1 + len(places)
        for row in self._stream(statement, "judge the rows"):
            yield Group(
                rows=row[0],
                key=tuple(row[1 : ends[0]]),
                marks=tuple(row[ends[0] : ends[1]]),
                counts=tuple(int(count or 0) for count in row[ends[1] :]),
            )

    def named(self, query: str) -> sa.Select[Any]:
        """Return the statement for the keys that a query on {batch} names."""
        text = query.format(batch="conversions").replace(":", r"\:")
        columns = [sa.column(key.name, key.type) for key in self._keys]
        batch = self.batch.cte("conversions")
        # PostgreSQL would write a batch that is named twice to disk, with all columns.
        batch = batch.prefix_with("NOT MATERIALIZED", dialect="postgresql")
        found = sa.text(text).columns(*columns).add_cte(batch).subquery("found")
        return sa.select(*found.c)

    def keys(self, statement: sa.Select[Any]) -> Iterator[Key]:
        """Yield a statement's keys, a bounded number at a time."""
        yield from map(tuple, self._stream(statement, "read bad keys"))

    def count(self, statement: sa.Select[Any]) -> int:
        """Count a statement's rows."""
        return self._number(
            sa.select(sa.func.count()).select_from(statement.subquery())
        )

    def rows_with_key(
        self, bad: Sequence[Condition], named: Sequence[sa.Select[Any]]
    ) -> int:
        """Count the rows whose key a bad or a named row has, each once."""
        row, none = sa.literal(1).label("is_row"), sa.literal(0).label("is_row")
        is_bad = _flag(sa.or_(sa.false(), *bad), "is_bad")
        every = sa.union_all(
            self._select(self.batch, row, is_bad),
            *(self._select(one, none, sa.literal(1).label("is_bad")) for one in named),
        ).subquery("every")
        by_key = (
            sa.select(sa.func.sum(every.c.is_row).label("rows"))
            .group_by(*(every.c[key.name] for key in self._keys))
            .having(sa.func.sum(every.c.is_bad) > 0)
        ).subquery("by_key")
        return self._number(sa.select(sa.func.sum(by_key.c.rows)))

    def _select(self, rows: sa.Select[Any], *more: Any) -> sa.Select[Any]:
        keys = [sa.column(key.name, key.type) for key in self._keys]
        return sa.select(*keys, *more).select_from(rows.subquery())

    def _stream(self, statement: sa.Select[Any], doing: str) -> Iterator[sa.Row[Any]]:
        options = {"stream_results": True, "max_row_buffer": _ROWS_PER_FETCH}
        with (
            reading(self._engine, f"{doing} of {self._name}") as connection,
            connection.execute(statement.execution_options(**options)) as result,
        ):
            while some := result.fetchmany(_ROWS_PER_FETCH):
                yield from some

    def _number(self, statement: sa.Select[Any]) -> int:
        with reading(self._engine, f"count rows of {self._name}") as connection:
            return int(connection.scalar(statement) or 0)


def repeated(columns: Sequence[str], among: Condition) -> Condition:
    """Return the test *another row has these values too*; empty ones repeat nothing."""
    same: list[sa.ColumnElement[Any]] = [sa.column(name) for name in columns]
    times = sa.func.count(sa.case((among, 1))).over(partition_by=same)
    return sa.and_(among, *(column.is_not(None) for column in same), times > 1)


def _flag(test: Condition, name: str) -> sa.Label[int]:
    return sa.case((test, 1), else_=0).label(name)
