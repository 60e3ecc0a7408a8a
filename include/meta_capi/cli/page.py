"""Plain text on a terminal, in lines of at most 96 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, TextIO

from meta_capi.words import moment

__all__ = ["Page"]

_WIDTH: Final = 96
_LABEL: Final = 11
_GAP: Final = 2


class Page:
    """Where a command writes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def line(self, text: str = "") -> None:
        """Write one line as it is; what could steer a terminal becomes a mark."""
        safe = "".join(each if each.isprintable() else "\ufffd" for each in text)
        self._out.write(f"{safe.rstrip()}\n")

    def say(self, text: str, indent: int = 0) -> None:
        """Write a paragraph."""
        self._wrapped(text, " " * indent, " " * indent)

    def item(self, label: str, text: str) -> None:
        """Write a paragraph with a label on its left."""
        self._wrapped(text, label.ljust(_LABEL), " " * _LABEL)

    def more(self, text: str, indent: int = 0) -> None:
        """Write a paragraph below an item's text."""
        self.say(text, _LABEL + indent)

    def table(
        self, head: Sequence[str], rows: Iterable[Sequence[object]], indent: int = 0
    ) -> None:
        """Write a table; numbers stand to the right, and long texts are cut."""
        cells = [[_cell(value) for value in row] for row in rows]
        values = [list(column) for column in zip(*cells, strict=True)] or [
            [] for _ in head
        ]
        numeric = [bool(col) and all(map(_is_number, col)) for col in values]
        widths = [
            max(map(len, [title, *column]))
            for title, column in zip(head, values, strict=True)
        ]
        room = _WIDTH - indent - _GAP * (len(head) - 1)
        while sum(widths) > room and max(widths) > 8:
            widths[widths.index(max(widths))] -= 1
        for row in [list(head), *cells]:
            parts = [
                _cut(cell, width).rjust(width)
                if right
                else _cut(cell, width).ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            ]
            self.line(" " * indent + (" " * _GAP).join(parts))

    def _wrapped(self, text: str, first: str, rest: str) -> None:
        lines = textwrap.wrap(
            text, _WIDTH, initial_indent=first, subsequent_indent=rest,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        for each in lines or [first]:
            self.line(each)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return moment(value) if isinstance(value, datetime) else str(value)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _is_number(cell: str) -> bool:
    return not cell.strip("0123456789,.%-")
