"""How a drafted feed file is written: lines, and the marks at what a person must look at."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from meta_capi.picking import is_usable

__all__ = ["Mark", "guess", "listed", "marks", "missing", "shown", "yaml"]

_MARK: Final = re.compile(r"^(?: *|[^#]*  )# (?P<kind>guess|missing): (?P<text>.+)$")
# Words that YAML, of one version or the other, does not read as texts.
_YAML_WORDS: Final = frozenset({
    "true", "false", "null", "yes", "no", "on", "off", "y", "n",
})  # fmt: skip
_WIDTH: Final = 88
_MOST_LISTED: Final = 100


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of a feed file at which a person has something to do."""

    line: int
    is_missing: bool
    text: str


def marks(text: str) -> list[Mark]:
    """Return what is still marked in a feed file."""
    return [
        Mark(number, found["kind"] == "missing", found["text"].strip())
        for number, line in enumerate(text.split("\n"), 1)
        if (found := _MARK.match(line))
    ]


def guess(line: str, why: str) -> str:
    """Return a line with the mark of a guess; without a reason it is none."""
    return f"{line}  # guess: {why}" if why else line


def missing(before: str, path: str, what: str, odd: str | None = None) -> str:
    """Return the line of a missing part; `odd` would be it, had it a plain name."""
    meant = f"{odd} may be it: rename it in a view; " if odd else ""
    return f"{before}# missing: {path}: {meant}{what}"


def listed(what: str, names: Iterable[str]) -> Iterator[str]:
    """Yield names as a comment, if there are any."""
    named = list(names)
    if more := named[_MOST_LISTED:]:
        named = [*named[:_MOST_LISTED], f"and {len(more)} more"]
    if named:
        yield from textwrap.wrap(
            f"{what}: {', '.join(named)}.", _WIDTH, initial_indent="# ",
            subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip


def yaml(name: str) -> str:
    """Return a text as YAML takes it for one."""
    plain = is_usable(name) and name.lower() not in _YAML_WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)


def shown(name: str) -> str:
    """Return a name as a comment can hold it, in quotes if it is no plain one."""
    if is_usable(name):
        return name
    printable = (sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)
    return f'"{"".join(printable)}"'
