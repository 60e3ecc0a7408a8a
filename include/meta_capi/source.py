"""The interval's rows, in bounded chunks, from any SQLAlchemy warehouse.

Selects the feed's columns and nothing else, binds every value, and leaves comparing
keys to the database, whose collation alone knows their order. It never writes, never
holds more than a slice, and never lets a driver's words out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import reduce
from math import ceil
from pathlib import Path
from typing import Any, Final, Self
from uuid import UUID

import sqlalchemy as sa

from meta_capi.conditions import Condition, Interval, countable, readable, within
from meta_capi.errors import SourceError
from meta_capi.feed import Feed
from meta_capi.relation import Kind, Relation, describe, type_faults
from meta_capi.warehouse import reading

__all__ = ["Counts", "Interval", "Shard", "Slice", "Source"]

_KEYS_PER_STATEMENT: Final = 1_000
_KEY_READERS: Final[Mapping[Kind, Callable[[str], Any]]] = {
    Kind.INTEGER: int, Kind.NUMBER: Decimal, Kind.UUID: UUID,
    Kind.MOMENT: datetime.fromisoformat, Kind.LOCAL: datetime.fromisoformat,
    Kind.DATE: date.fromisoformat,
}  # fmt: skip

# A key is known without what stands around it; these, and spaces, SQL can take away.
_BLANKS: Final = ("\t", "\n", "\r", "\N{NO-BREAK SPACE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What an interval holds. The kinds overlap; the event builder decides each row.

    None where SQL cannot know, because the event time is no timestamp there.
    """

    rows: int
    without_key: int
    withheld: int
    too_old: int | None
    expires_within_24h: int | None
    held_back: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A range of the first key column: from `low`, below `high`; None is open.

    The bounds are keys as text, so that a shard can travel as JSON.
    """

    low: str | None = None
    high: str | None = None
    with_null: bool = True
    """Whether the rows without a first key belong here."""
    rows: int = 0
    """How many rows it had when it was cut."""

    def to_json(self) -> dict[str, str | int | bool | None]:
        """Return what `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a shard that travelled."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows as columns: name to values, all of one length."""

    columns: Mapping[str, Sequence[object]]
    rows: int


class Source:
    """A feed's rows in its warehouse.

    Args:
        engine: made with `hide_parameters=True`.
        feed: the feed.
        sql_folder: where the feed's SQL file is, if it names one.
    """

    def __init__(self, engine: sa.Engine, feed: Feed, sql_folder: Path) -> None:
        self.engine = engine
        self.feed = feed
        self._sql_folder = sql_folder
        self._relation: Relation | None = None

    @property
    def name(self) -> str:
        """The table or the SQL file, as the feed names it."""
        return str(self.feed.source.table or self.feed.source.sql)

    def faults(self) -> list[str]:
        """Return what is wrong with the source, a sentence each; empty if fine."""
        try:
            with reading(self.engine, f"describe {self.name}") as connection:
                relation = self.relation(connection)
                # Names and types are told to everyone; rows are not.
                columns = [relation.column(name) for name in relation.types]
                connection.execute(sa.select(*columns).where(sa.false()))
        except SourceError as error:
            return str(error).splitlines()
        return list(type_faults(relation, self.feed))

    def relation(self, connection: sa.Connection) -> Relation:
        """Return the feed's columns and their types; the database is asked once."""
        if self._relation is None:
            self._relation = describe(connection, self.feed, self._sql_folder)
        return self._relation

    def count(self, interval: Interval, *, now: datetime) -> Counts:
        """Count the interval's rows of each kind, in one statement."""
        with reading(self.engine, f"count {self.name}") as connection:
            relation = self.relation(connection)
            tests = countable(self.feed, relation, now)
            known = {name: test for name, test in tests.items() if test is not None}
            counts = [sa.func.count(sa.case((test, 1))) for test in known.values()]
            statement = sa.select(sa.func.count(), *counts).where(
                within(self.feed, relation, interval)
            )
            rows, *found = connection.execute(statement).one()
        counted = dict(zip(known, found, strict=True))
        return Counts(
            rows=rows,
            without_key=counted["without_key"],
            withheld=counted["withheld"],
            too_old=counted.get("too_old"),
            expires_within_24h=counted.get("expires_within_24h"),
            held_back=counted.get("held_back"),
        )

    def shards(self, interval: Interval, rows_per_shard: int) -> list[Shard]:
        """Cut the interval into equal shards, in a sorted pass at most.

        They have about `rows_per_shard` rows or fewer, so that none is left over for
        the last worker. Equal keys stay together, so a key with many rows makes a
        larger shard. A row that arrives later belongs to exactly one shard too: the
        outer ends are open.
        """
        with reading(self.engine, f"cut {self.name} into shards") as connection:
            relation = self.relation(connection)
            inside = within(self.feed, relation, interval)
            key = readable(relation, self.feed.source.key[0])
            total, keyed = connection.execute(
                sa.select(sa.func.count(), sa.func.count(key)).where(inside)
            ).one()
            if keyed <= rows_per_shard:  # no sorting for what one shard holds
                return [Shard(rows=total)] if total else []
            size = ceil(keyed / ceil(keyed / rows_per_shard))
            firsts = connection.execute(_firsts(key, inside, size)).all()
        lows = [None, *(str(first.key) for first in firsts[1:])]
        # A rank is the number of rows below it, and one.
        starts = [keyed - total, *(first.rank - 1 for first in firsts[1:]), keyed]
        return [
            Shard(low=low, high=high, with_null=low is None, rows=end - start)
            for low, high, start, end in zip(
                lows, [*lows[1:], None], starts, starts[1:], strict=False
            )
        ]

    def read(
        self, interval: Interval, shard: Shard, rows_per_slice: int
    ) -> Generator[Slice, None, None]:
        """Stream a shard's rows; memory holds a slice, however many rows there are."""
        with reading(self.engine, f"read {self.name}") as connection:
            relation = self.relation(connection)
            chosen = sa.and_(
                within(self.feed, relation, interval), self._inside(relation, shard)
            )
            yield from self._slices(connection, relation, chosen, rows_per_slice)

    def read_keys(
        self, keys: Sequence[Sequence[str | None]], rows_per_slice: int
    ) -> Generator[Slice, None, None]:
        """Stream the rows with these keys, whatever their interval: for replays.

        Args:
            keys: one text for each key column. A key that cannot be a value of its
                column, has an empty part, or has the parts of another feed file, has
                no row.
            rows_per_slice: the most rows of a slice.
        """
        with reading(self.engine, f"read keys of {self.name}") as connection:
            relation = self.relation(connection)
            columns = [relation.column(name) for name in self.feed.source.key]
            for keyed in self._keyed(relation, columns, keys):
                yield from self._slices(connection, relation, keyed, rows_per_slice)

    def read_padded(
        self, keys: Sequence[Sequence[str | None]], interval: Interval,
        rows_per_slice: int,
    ) -> Generator[Slice, None, None]:  # fmt: skip
        """Stream an interval's rows that have these keys with white space around them.

        No index helps but the cursor's, so this is for what `read_keys` did not find.
        """
        with reading(self.engine, f"look for padded keys in {self.name}") as connection:
            relation = self.relation(connection)
            inside = within(self.feed, relation, interval)
            columns = [_bared(relation, name) for name in self.feed.source.key]
            for keyed in self._keyed(relation, columns, keys):
                chosen = sa.and_(inside, keyed)
                yield from self._slices(connection, relation, chosen, rows_per_slice)

    def _keyed(
        self, relation: Relation, columns: Sequence[sa.ColumnElement[Any]],
        keys: Sequence[Sequence[str | None]],
    ) -> Iterator[Condition]:  # fmt: skip
        kinds = [relation.kind(name) for name in self.feed.source.key]
        for start in range(0, len(keys), _KEYS_PER_STATEMENT):
            values = [
                tuple(map(_value, kinds, key))
                for key in keys[start : start + _KEYS_PER_STATEMENT]
                if len(key) == len(kinds)
            ]
            yield sa.tuple_(*columns).in_([key for key in values if None not in key])

    def _slices(
        self,
        connection: sa.Connection,
        relation: Relation,
        chosen: Condition,
        size: int,
    ) -> Iterator[Slice]:
        names = self.feed.columns
        columns = [readable(relation, name) for name in names]
        options = {"stream_results": True, "max_row_buffer": size}
        statement = sa.select(*columns).where(chosen).execution_options(**options)
        with connection.execute(statement) as result:
            while rows := result.fetchmany(size):
                values = dict(zip(names, zip(*rows, strict=True), strict=True))
                yield Slice(self._zoned(relation, values), len(rows))

    def _zoned(
        self, relation: Relation, values: dict[str, tuple[object, ...]]
    ) -> Mapping[str, Sequence[object]]:
        """Give the cursor's values their zone; the event's time has its own rule."""
        name = self.feed.source.cursor.column
        if relation.kind(name) is Kind.LOCAL and name != self.feed.event.time.column:
            zone = self.feed.cursor_zone
            values[name] = tuple(
                value.replace(tzinfo=zone) if isinstance(value, datetime) else value
                for value in values[name]
            )
        return values

    def _inside(self, relation: Relation, shard: Shard) -> Condition:
        name = self.feed.source.key[0]
        column, kind = relation.column(name), relation.kind(name)
        low, high = _value(kind, shard.low), _value(kind, shard.high)
        if (low is None, high is None) != (shard.low is None, shard.high is None):
            raise SourceError(
                f"The shard was cut when {name} held another type; run the plan again."
            )
        tests: list[Condition] = []
        if low is not None:
            tests.append(column >= sa.literal(low, column.type))
        if high is not None:
            tests.append(column < sa.literal(high, column.type))
        keyed = sa.and_(*tests) if tests else column.is_not(None)
        return sa.or_(column.is_(None), keyed) if shard.with_null else keyed


def _bared(relation: Relation, name: str) -> sa.ColumnElement[Any]:
    """Return a key column without the white space around its texts."""
    column = relation.column(name)
    if relation.kind(name) is not Kind.TEXT:
        return column
    spaced = reduce(
        lambda text, blank: sa.func.replace(text, blank, " "), _BLANKS, column
    )
    return sa.func.trim(spaced, type_=column.type)


def _firsts(key: sa.ColumnElement[Any], inside: Condition, size: int) -> sa.Select[Any]:
    """Return the statement for each shard's first key, with its rank among the rows."""
    rank = sa.func.rank().over(order_by=key).label("rank")
    ranked = (
        sa.select(key.label("key"), rank).where(inside, key.is_not(None)).subquery()
    )
    part = (ranked.c.rank - 1) // size
    before = sa.func.lag(part).over(order_by=ranked.c.key)
    parts = sa.select(
        ranked.c.key, ranked.c.rank, part.label("part"), before.label("before")
    ).subquery()
    first = sa.or_(parts.c.before.is_(None), parts.c.before != parts.c.part)
    return sa.select(parts.c.key, parts.c.rank).where(first).order_by(parts.c.rank)


def _value(kind: Kind, text: str | None) -> Any:
    """Return a key's text as a value of its column, or None if it cannot be one."""
    if text is None:
        return None
    try:
        return _KEY_READERS.get(kind, str)(text)
    except (ValueError, InvalidOperation):
        return None
