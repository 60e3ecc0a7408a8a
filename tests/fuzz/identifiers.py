"""Identifiers that try to break out: what the feed refuses, and what is quoted anyway.

The feed language lets plain names in and nothing else. Behind it every name is quoted by
the dialect; here names get there as if the first bar did not exist.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.dialects import postgresql
from tests.fuzz.judge import Finding
from tests.fuzz.values import INJECTIONS, SCRIPTS

from meta_capi.conditions import Interval, countable, readable, within
from meta_capi.feed import Feed, parse
from meta_capi.feed.words import ColumnName, TableName
from meta_capi.relation import Relation

__all__ = ["findings", "identifier", "renamed", "statement"]

NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)
DAY: Final = Interval(datetime(2026, 11, 19, tzinfo=UTC), NOW)
_DIALECT: Final = postgresql.dialect()
_COLUMN: Final = TypeAdapter[Any](ColumnName)
_TABLE: Final = TypeAdapter[Any](TableName)
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")
# As PostgreSQL reads: all beyond ASCII is a letter, and may stand without quotes.
_TOKENS: Final = re.compile(
    r"""(?P<quoted>"(?:[^"]|"")*")|(?P<text>'(?:[^']|'')*')|(?P<bound>%\([^)]*\)s)"""
    r"""|(?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)|(?P<number>\d+)|(?P<space>\s+)"""
    r"""|(?P<sign>::|>=|<=|!=|<>|[=<>(),.*+-])"""
)
_ALPHABET: Final = (
    "\"'`;:%.$()[]{}\\-/* \n\t\0\x1b=@#!?|&^~<>," + string.ascii_letters + "0_é名\u202e"
)
_FEED: Final = parse("""
feed: named
description: A feed whose names are replaced.
schedule: "0 * * * *"
start_date: 2026-01-01
source: {table: shop.sales, key: [id], cursor: {column: known_at}}
event: {name: Lead, action_source: phone_call, time: {column: sold_at}}
user_data: {em: email}
consent: {column: consent}
""")


def identifier(chance: Random) -> str:
    """Return a name that nobody would give a column."""
    kind = chance.random()
    if kind < 0.3:
        return chance.choice((*INJECTIONS, *SCRIPTS))
    if kind < 0.6:
        size = chance.choice((1, 2, 5, 20, 64, 300))
        return "".join(chance.choices(_ALPHABET, k=size))
    name = "".join(chance.choices(string.ascii_letters + "_", k=8))
    place = chance.randrange(9)
    evil = chance.choice(("\"", "'", '";drop table x;--', "%s", "%(x)s", ":x", "--", "/*", "\n",
                          '" or ""="', ".", "\\", "$$", "\0", "", "", "$"))  # fmt: skip
    return name[:place] + evil + name[place:]


def findings(chance: Random) -> Iterator[Finding]:
    """Take one hostile name through the feed's bar, and through the statements."""
    name = identifier(chance)
    for kind, adapter in (("column", _COLUMN), ("table", _TABLE)):
        try:
            adapter.validate_python(name)
        except ValidationError:
            continue
        parts = name.split(".") if kind == "table" else [name]
        if not all(map(_PLAIN.fullmatch, parts)) or len(parts) > 3:
            yield Finding("a plain name or no name", kind)
    if not name.strip() or "\0" in name:
        return  # no database has it
    feed, relation = renamed(name, chance)
    compiled = statement(feed, relation).compile(
        dialect=_DIALECT, compile_kwargs={"render_postcompile": True}
    )
    if fault := _breaks_out(str(compiled), name):
        yield Finding("quoted by the dialect", fault)


def renamed(name: str, chance: Random) -> tuple[Feed, Relation]:
    """Return a feed and its relation with one name replaced, past every check."""
    place = chance.choice(
        ("table", "schema", "key", "cursor", "time", "email", "consent")
    )
    names = {"key": "id", "cursor": "known_at", "time": "sold_at", "email": "email",
             "consent": "consent", "table": "sales", "schema": "shop"} | {place: name}  # fmt: skip
    feed = _FEED.model_copy(deep=True)
    for part, field, value in (
        (feed.source, "table", f"{names['schema']}.{names['table']}"),
        (feed.source, "key", [names["key"]]),
        (feed.source.cursor, "column", names["cursor"]),
        (feed.event.time, "column", names["time"]),
        (feed.user_data["em"], "column", names["email"]),
        (feed.consent, "column", names["consent"]),
    ):
        part.__dict__[field] = value
    moment = sa.DateTime(timezone=True)
    types: dict[str, Any] = {
        names["key"]: sa.Text(), names["cursor"]: moment, names["time"]: moment,
        names["email"]: sa.Text(), names["consent"]: sa.Text(),
    }  # fmt: skip
    columns = [sa.column(each, type_) for each, type_ in types.items()]
    clause = sa.table(names["table"], *columns, schema=names["schema"])
    return feed, Relation(clause, types)


def statement(feed: Feed, relation: Relation) -> sa.Select[Any]:
    """Return one statement in which every name stands in every way."""
    tests = countable(feed, relation, NOW).values()
    return sa.select(
        *(readable(relation, name) for name in feed.columns),
        *(sa.case((test, 1)) for test in tests if test is not None),
    ).where(within(feed, relation, DAY))


def _breaks_out(sql: str, name: str) -> str | None:
    """Return what of a statement is no token of ours; the name may only stand quoted."""
    place, spoken = 0, set()
    while place < len(sql):
        token = _TOKENS.match(sql, place)
        if token is None:
            return "a sign that no statement of ours has"
        if token["quoted"]:
            spoken.add(token["quoted"][1:-1].replace('""', '"').replace("%%", "%"))
        elif token["word"]:
            spoken.add(token["word"])
        place = token.end()
    return None if name in spoken else "the name is not there as one token"
