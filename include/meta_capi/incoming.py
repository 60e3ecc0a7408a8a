"""A slice of rows as PostgreSQL's COPY reads it: text, joined column by column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from meta_capi.built import Built

__all__ = ["copy_text"]

_NULL: Final = r"\N"
# https://www.postgresql.org/docs/current/sql-copy.html, text format.
_TO_ESCAPE: Final = re.compile(r"[\\\t\n\r]")
_ESCAPED: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def copy_text(built: Built, batch_ids: Sequence[int | None]) -> str:
    r"""Return the rows as lines, in the columns of the statement `copy_incoming`.

    Args:
        built: the slice.
        batch_ids: the batch each row was cut into, if any.
    """
    columns = (
        map(str, range(len(built))),
        _texts(built.source_keys),
        _texts(built.event_names),
        _texts(built.event_ids),
        _numbers(built.event_times),
        map(str, built.cursors),
        built.states,
        _texts(built.reasons),
        _numbers(batch_ids),
        map(str, built.masks),
        [_NULL if each is None else rf"\\x{each.hex()}" for each in built.digests],
        _texts(built.values),
        _texts(built.currencies),
        _numbers(built.not_before),
    )
    lines = map("\t".join, zip(*columns, strict=True))
    return "\n".join([*lines, ""])


def _numbers(column: Iterable[int | None]) -> list[str]:
    return [_NULL if each is None else str(each) for each in column]


def _texts(column: Sequence[str | None]) -> list[str]:
    texts = [_NULL if each is None else each for each in column]
    if _TO_ESCAPE.search("".join(filter(None, column))):
        texts = [_NULL if each is None else each.translate(_ESCAPED) for each in column]
    return texts
