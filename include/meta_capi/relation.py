"""What a feed reads: its table, or its SQL file as a subquery, and what columns hold.

The database is asked for names and types; only `common_values` returns what is in rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from meta_capi.errors import SourceError
from meta_capi.feed import Feed
from meta_capi.privacy import matches
from meta_capi.warehouse import read_query

__all__ = [
    "Kind", "Relation", "Table", "common_values", "describe", "kind_of", "survey",
    "type_faults",
]  # fmt: skip

_ROWS_LOOKED_AT: Final = 100_000

Types = dict[str, TypeEngine[Any]]


class Kind(StrEnum):
    """What a column holds, as far as this project cares."""

    TEXT = "text"
    INTEGER = "whole numbers"
    NUMBER = "numbers"
    FLOAT = "floating-point numbers"
    BOOLEAN = "true and false"
    UUID = "uuids"
    MOMENT = "timestamps with a zone"
    LOCAL = "timestamps without a zone"
    DATE = "dates"
    OTHER = "something else"
    UNKNOWN = "nothing yet"

    @property
    def is_time(self) -> bool:
        """Whether intervals can be cut on such a column."""
        return self in (Kind.MOMENT, Kind.LOCAL, Kind.DATE)


_BY_PYTHON_TYPE: Final = {
    str: Kind.TEXT, int: Kind.INTEGER, Decimal: Kind.NUMBER, float: Kind.FLOAT,
    bool: Kind.BOOLEAN, UUID: Kind.UUID, date: Kind.DATE,
}  # fmt: skip
_BY_VALUE: Final[Mapping[type, TypeEngine[Any]]] = {
    str: sa.String(), int: sa.BigInteger(), Decimal: sa.Numeric(), float: sa.Double(),
    bool: sa.Boolean(), UUID: sa.Uuid(), date: sa.Date(),
}  # fmt: skip


def kind_of(type_: TypeEngine[Any]) -> Kind:
    """Return what a column of this type holds.

    >>> kind_of(sa.DateTime(timezone=True)).value
    'timestamps with a zone'
    >>> kind_of(sa.JSON()).value
    'something else'
    """
    if isinstance(type_, postgresql.DOMAIN):
        return kind_of(type_.data_type)
    if isinstance(type_, sa.types.NullType):
        return Kind.UNKNOWN
    if isinstance(type_, sa.DateTime):
        return Kind.MOMENT if type_.timezone else Kind.LOCAL
    # Of a type that SQLAlchemy knows no Python type for, `object`.
    return _BY_PYTHON_TYPE.get(type_.python_type, Kind.OTHER)


@dataclass(frozen=True, slots=True)
class Relation:
    """The rows of a feed before any filter: something to select from, and its types."""

    clause: sa.FromClause
    types: Mapping[str, TypeEngine[Any]]

    def column(self, name: str) -> sa.ColumnElement[Any]:
        """Return a column; the dialect quotes its name."""
        return self.clause.c[name]

    def kind(self, name: str) -> Kind:
        """Return what a column holds."""
        return kind_of(self.types[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as the database describes it."""

    name: str
    kinds: Mapping[str, Kind]
    """What its columns hold, in their order."""
    keys: tuple[tuple[str, ...], ...] = ()
    """What its constraints say is unique, the primary key first."""
    indexed: frozenset[str] = frozenset()
    """Columns that an index begins with."""


def survey(connection: sa.Connection, table: str) -> Table:
    """Ask the database what a table is made of, and whether it may be read.

    Raises:
        SourceError: there is no such table.
    """
    types = _table_types(connection, table)
    schema, _, name = table.rpartition(".")
    columns: list[sa.ColumnClause[Any]] = [sa.column(column) for column in types]
    source = sa.table(name, *columns, schema=schema or None)
    connection.execute(sa.select(*columns).select_from(source).where(sa.false()))
    keys, indexed = _keys(sa.inspect(connection), name, schema or None)
    kinds = {column: kind_of(type_) for column, type_ in types.items()}
    return Table(name=table, kinds=kinds, keys=keys, indexed=indexed)


def _keys(
    inspector: sa.Inspector, name: str, schema: str | None
) -> tuple[tuple[tuple[str, ...], ...], frozenset[str]]:
    """Return what is unique, and what an index begins with."""
    try:
        primary = inspector.get_pk_constraint(name, schema)["constrained_columns"]
        constraints = inspector.get_unique_constraints(name, schema)
        indexes = inspector.get_indexes(name, schema)
    except NotImplementedError:  # of a dialect whose database has no constraints
        return (), frozenset()
    unique = [tuple(each["column_names"]) for each in constraints]
    begins = [*primary[:1], *(each[0] for each in unique)]
    for index in indexes:
        named = tuple(column or "" for column in index["column_names"])
        begins += named[:1]
        partial = index.get("dialect_options", {}).get("postgresql_where")
        if index["unique"] and not partial and all(named):
            unique.append(named)
    keys = dict.fromkeys(each for each in (tuple(primary), *unique) if each)
    return tuple(keys), frozenset(begins) - {""}


def common_values(
    connection: sa.Connection, table: str, column: str, most: int
) -> list[tuple[object, int]]:
    """Return a column's commonest values, each with the number of its rows.

    Of a large table it looks at as many rows as take no time.
    """
    schema, _, name = table.rpartition(".")
    source = sa.table(name, sa.column(column), schema=schema or None)
    value = source.c[column].label("value")
    some = sa.select(value).where(value.is_not(None)).limit(_ROWS_LOOKED_AT).subquery()
    rows = sa.func.count()
    counted = sa.select(some.c.value, rows).group_by(some.c.value)
    found = connection.execute(counted.order_by(rows.desc()).limit(most))
    return [(value, count) for value, count in found]


def describe(connection: sa.Connection, feed: Feed, sql_folder: Path) -> Relation:
    """Ask the database for the feed's columns and their types.

    Raises:
        SourceError: no such table or columns; one line for each fault, all at once.
    """
    query = None
    if table := feed.source.table:
        types = _table_types(connection, table)
    else:
        query = _as_it_is(read_query(sql_folder, str(feed.source.sql)))
        types = _query_types(connection, query)
    missing = [
        f"{feed.source.table or feed.source.sql} has no column {name}"
        f"{_suggestion(name, types)}"
        for name in feed.columns
        if name not in types
    ]
    if missing:
        raise SourceError("\n".join(missing))
    columns = [sa.column(name, types[name]) for name in feed.columns]
    clause: sa.FromClause
    if query is None:
        schema, _, name = str(table).rpartition(".")
        clause = sa.table(name, *columns, schema=schema or None)
    else:
        clause = query.columns(*columns).subquery("source")
    chosen = {name: types[name] for name in feed.columns}
    if connection.dialect.name != "postgresql":
        _correct(chosen, connection, clause, feed.source.cursor.column)
    return Relation(clause, chosen)


def _as_it_is(query: str) -> sa.TextClause:
    """Keep the file's colons: they are casts and times, never parameters of ours."""
    return sa.text(query.replace(":", r"\:"))


def _table_types(connection: sa.Connection, table: str) -> Types:
    schema, _, name = table.rpartition(".")
    inspector = sa.inspect(connection)
    try:
        columns = inspector.get_columns(name, schema=schema or None)
    except sa.exc.NoSuchTableError:
        columns = []
    if columns:
        return {column["name"]: column["type"] for column in columns}
    known = [
        *inspector.get_table_names(schema=schema or None),
        *inspector.get_view_names(schema=schema or None),
    ]
    meant = _suggestion(name, known)
    if not schema and meant == ".":
        meant = _elsewhere(inspector, name)
    raise SourceError(f"The warehouse has no table {table}{meant}")


def _elsewhere(inspector: sa.Inspector, name: str) -> str:
    """Return a hint at the schema that has such a table."""
    for schema in inspector.get_schema_names():
        known = [*inspector.get_table_names(schema), *inspector.get_view_names(schema)]
        if name in known:
            return f"; write it with its schema, as {schema}.{name}."
    return "."


def _query_types(connection: sa.Connection, query: sa.TextClause) -> Types:
    """Return a query's columns, with their types where the database tells them free."""
    source = query.columns().subquery("source")
    nothing = sa.select(sa.text("*")).select_from(source).limit(0)
    cursor: Any = connection.execute(nothing).cursor
    codes = {str(entry[0]): entry[1] for entry in cursor.description}
    if connection.dialect.name != "postgresql":
        return dict.fromkeys(codes, sa.types.NULLTYPE)
    oid: sa.ColumnElement[int] = sa.column("oid", sa.Integer())
    named = sa.select(oid, sa.func.format_type(oid, sa.null()))
    named = named.select_from(sa.table("pg_type", schema="pg_catalog"))
    rows = connection.execute(named.where(oid.in_(set(codes.values()))))
    names = {row[0]: str(row[1]) for row in rows}
    return {column: _postgresql_type(names[code]) for column, code in codes.items()}


def _postgresql_type(name: str) -> TypeEngine[Any]:
    if name.startswith("timestamp"):
        return postgresql.TIMESTAMP(timezone=name.endswith("with time zone"))
    found = postgresql.dialect.ischema_names.get(name, sa.types.NullType)
    return sa.types.to_instance(found)


def _correct(
    types: Types, connection: sa.Connection, clause: sa.FromClause, cursor: str
) -> None:
    """Correct types by one row: only a value shows whether timestamps have a zone."""
    columns = [clause.c[name] for name in types]
    one = sa.select(*columns).where(clause.c[cursor].is_not(None)).limit(1)
    row = connection.execute(one).first()
    for name, value in zip(types, row or (), strict=False):
        if isinstance(value, datetime):
            types[name] = sa.DateTime(timezone=value.tzinfo is not None)
        elif kind_of(types[name]) is Kind.UNKNOWN and type(value) in _BY_VALUE:
            types[name] = _BY_VALUE[type(value)]


def _suggestion(name: str, known: Iterable[str]) -> str:
    by_folded = {entry.lower(): entry for entry in known}
    close = difflib.get_close_matches(name.lower(), list(by_folded), n=1, cutoff=0.6)
    return f"; did you mean {by_folded[close[0]]}?" if close else "."


def type_faults(relation: Relation, feed: Feed) -> Iterator[str]:
    """Yield a sentence for each column whose type the feed cannot use."""
    place = feed.source.table or feed.source.sql
    cursor = relation.kind(feed.source.cursor.column)
    if not cursor.is_time and cursor is not Kind.UNKNOWN:
        yield (
            f"The cursor {feed.source.cursor.column} of {place} holds {cursor.value}; "
            "name a timestamp or date column."
        )
    for name in feed.source.key:
        if (kind := relation.kind(name)) in (Kind.FLOAT, Kind.BOOLEAN, Kind.OTHER):
            yield (
                f"The key {name} of {place} holds {kind.value}, which cannot name a "
                "row; use text, whole numbers or uuids."
            )
    stages = feed.event.stages
    moments = [("event.time", feed.event.time)]
    if stages:
        moments.append(("event.stages.lead_created", stages.lead_created))
    for path, part in moments:
        kind = relation.kind(part.column)
        column = f"{path} {part.column} of {place}"
        epoch = part.format.startswith("epoch_")
        if kind in (Kind.INTEGER, Kind.NUMBER, Kind.FLOAT) and not epoch:
            yield (
                f"{column} holds {kind.value}; set its format to epoch_seconds or "
                "epoch_milliseconds."
            )
        elif kind.is_time and part.format != "timestamp":
            yield f"{column} holds {kind.value}; set its format to timestamp."
        elif kind in (Kind.LOCAL, Kind.DATE) and part.timezone is None:
            yield f"{column} carries no zone; declare {path}.timezone."
    for path, name, values in _answers(feed):
        # Words are compared as texts, so `yes` is no boolean's: no row would ever match.
        possible = matches(values)
        if relation.kind(name) is Kind.BOOLEAN and not (
            possible(True) or possible(False)
        ):
            yield (
                f"{path} cannot be in {name} of {place}, which holds true and false; "
                "write [true] or [false]."
            )


def _answers(feed: Feed) -> Iterator[tuple[str, str, Sequence[object]]]:
    """Yield what a feed compares with values it lists: the path, the column, the values."""
    if feed.consent.column:
        yield "consent.granted", feed.consent.column, feed.consent.granted
    if flag := feed.limited_data_use:
        yield "limited_data_use.values", flag.column, flag.values
    if feed.opt_out:
        yield "opt_out.values", feed.opt_out.column, feed.opt_out.values
