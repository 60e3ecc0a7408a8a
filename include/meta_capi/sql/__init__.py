"""The SQL of the house, in files. A query is found by the name above it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["Migration", "migrations", "queries"]

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


class Migration(NamedTuple):
    """One numbered step of the schema."""

    version: int
    name: str
    text: str


@cache
def queries(file: str) -> Mapping[str, str]:
    """Return the named queries of `<file>.sql`.

    >>> "claim" in queries("ledger")
    True
    """
    text = files(__package__).joinpath(f"{file}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return MappingProxyType(
        dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    )


@cache
def migrations() -> tuple[Migration, ...]:
    """Return the schema's steps, oldest first."""
    found = []
    for entry in files(__package__).joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name):
            found.append(
                Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8"))
            )
    return tuple(sorted(found))
