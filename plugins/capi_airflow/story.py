"""What a task's log says: a story a person reads, in numbers and catalogue words."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from textwrap import wrap
from typing import Any, Final

from meta_capi.catalogue import Effect, reason
from meta_capi.dispatch import Tally
from meta_capi.lifecycle import State

__all__ = ["OUTCOMES", "outcome_table", "progress", "reasons_table", "table"]

OUTCOMES: Final = (
    State.ACCEPTED, State.REFUSED, State.QUARANTINED, State.WITHHELD, State.EXPIRED,
    State.IN_DOUBT, State.PENDING,
)  # fmt: skip
_EVERY_SECONDS: Final = 5.0


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return lines of a table; numbers stand to the right.

    >>> table(["state", "rows"], [["accepted", 12]])
    ['state     rows', 'accepted    12']
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [list(head), *cells]
    ]


def outcome_table(outcomes: Mapping[str, int], rows: int) -> list[str]:
    """Return the outcomes of all rows, with shares."""
    known = [(str(state), outcomes.get(str(state), 0)) for state in OUTCOMES]
    names = {name for name, _ in known}
    known += [
        (name, count) for name, count in outcomes.items() if name not in names and count
    ]
    lines = table(
        ["outcome", "rows", "share"], [(n, c, _share(c, rows)) for n, c in known]
    )
    return [*lines, f"source rows {rows:,}; outcomes {sum(c for _, c in known):,}"]


def reasons_table(reasons: Mapping[str, int], most: int = 3) -> list[str]:
    """Return the most common reasons with the catalogue's words, in short lines."""
    lines = []
    for code, count in sorted(reasons.items(), key=lambda item: -item[1])[:most]:
        entry = reason(code)
        lines.append(f"{count:,} × {code} ({entry.effect})")
        for text in (entry.meaning, f"To do: {entry.action}"):
            lines += wrap(text, 90, initial_indent="    ", subsequent_indent="      ")
    return lines


def progress(
    log: logging.Logger,
    total: int | None,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Tally], None]:
    """Return a reporter that logs a line every few seconds: rate, outcomes, time left."""
    started = last = clock()

    def report(tally: Tally) -> None:
        nonlocal last
        now = clock()
        if now - last < _EVERY_SECONDS:
            return
        last = now
        rate = tally.settled / max(now - started, 0.001)
        left = max((total or tally.rows) - tally.settled, 0)
        eta = f", about {left / rate:,.0f} s left" if rate and total else ""
        # A task's log is a line to its supervisor. Where that is dead the line is broken,
        # and what is in flight has to land all the same.
        with suppress(OSError):
            log.info(
                "%s of %s rows, %s rows/s: %s accepted, %s refused, %s held, %s in flight%s.",
                f"{tally.settled:,}", f"{total:,}" if total else "?", f"{rate:,.0f}",
                f"{tally.outcomes[State.ACCEPTED]:,}",
                f"{tally.outcomes[State.REFUSED]:,}", f"{_held(tally):,}",
                f"{tally.rows - tally.settled:,}", eta,
            )  # fmt: skip

    return report


def _held(tally: Tally) -> int:
    return sum(
        tally.outcomes[state]
        for state in (State.QUARANTINED, State.WITHHELD, State.EXPIRED)
    )


def dropped_keys_lines(flaws: Mapping[str, int], most: int = 5) -> list[str]:
    """Return the match keys left out of events, most common first."""
    dropped = (Effect.KEY_DROPPED, Effect.QUARANTINED)
    known = [(n, reason(code)) for code, n in flaws.items()]
    found = [(n, entry) for n, entry in known if entry.effect in dropped]
    found.sort(key=lambda item: -item[0])
    return [f"{n:,} × {entry.code}: {entry.meaning}" for n, entry in found[:most]]


def _cell(value: object) -> str:
    return (
        f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)
    )


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").rstrip("%").strip().isdigit()


def _share(count: int, rows: int) -> str:
    return f"{count / rows:.1%}" if rows else "0.0%"


def merged(parts: Iterable[Mapping[str, Any]], name: str) -> dict[str, int]:
    """Add up one counter of several tallies."""
    total: dict[str, int] = {}
    for part in parts:
        for key, count in part[name].items():
            total[key] = total.get(key, 0) + count
    return total
