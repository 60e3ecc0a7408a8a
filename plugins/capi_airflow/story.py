"""What a task's log says: a story a person reads, in numbers and catalogue words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

from capi_airflow.links import catalogue_address, held_address
from meta_capi.catalogue import Effect, reason
from meta_capi.lifecycle import State
from meta_capi.tally import WOULD_BE_SENT
from meta_capi.words import number

__all__ = [
    "OUTCOMES", "dropped_keys_lines", "labelled", "merged", "next_lines", "outcome_table",
    "reasons_lines", "table",
]  # fmt: skip

OUTCOMES: Final = (
    State.ACCEPTED, State.REFUSED, State.QUARANTINED, State.WITHHELD, State.EXPIRED,
    State.IN_DOUBT, State.PENDING,
)  # fmt: skip
_STEPS: Final = {
    State.QUARANTINED: "{} held for a person: correct what the reasons say, then replay "
    "them with replay_deliveries.",
    State.REFUSED: "{} refused by Meta: correct the rows; the next run that reads them "
    "sends them.",
    State.EXPIRED: "{} too old for Meta: they cannot be sent any more.",
    State.IN_DOUBT: "{} in doubt: tend_deliveries sends them again where the feed says "
    "resend; else look them up in Events Manager, and use `meta-capi settle`.",
    State.PENDING: "{} still to be sent: the next run or tend_deliveries sends them.",
}
"""What to do about rows that are not at Meta; about withheld ones there is nothing."""


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
        ["outcome", "rows", "share"],
        [(name.replace("_", " "), n, _share(n, rows)) for name, n in known],
    )
    return [*lines, f"source rows {rows:,}; outcomes {sum(n for _, n in known):,}"]


def reasons_lines(reasons: Mapping[str, int], feed: str, most: int = 3) -> list[str]:
    """Return the most common reasons with the catalogue's words, in short lines."""
    lines = []
    for code, count in sorted(reasons.items(), key=lambda item: -item[1])[:most]:
        entry = reason(code)
        lines.append(f"{count:,} × {code} ({str(entry.effect).replace('_', ' ')})")
        for text in (entry.meaning, f"To do: {entry.action}"):
            lines += wrap(text, 90, initial_indent="    ", subsequent_indent="      ")
        # An address is not broken, or it would be no link.
        lines.append(f"    See {catalogue_address(code)}")
    if len(reasons) > most:
        rest = sum(reasons.values()) - sum(sorted(reasons.values())[-most:])
        lines.append(
            f"{rest:,} more for {number(len(reasons) - most, 'other reason')}."
        )
    if reasons:
        lines.append(
            f"Why one row was not sent: `meta-capi explain KEY --feed {feed}`, or *Find one "
            "conversion* on the Conversions page."
        )
    return lines


def next_lines(feed: str, outcomes: Mapping[str, int]) -> list[str]:
    """Return what a person does next, by the outcomes of a run."""
    if would := outcomes.get(WOULD_BE_SENT):
        return [
            f"Next: this was a dry run, and nothing was sent. Without *Dry run* "
            f"{number(would, 'event')} would go out, unless the ledger knows them already."
        ]
    lines = []
    for state, words in _STEPS.items():
        if not (count := outcomes.get(str(state), 0)):
            continue
        place = held_address(feed, state) or f"`meta-capi status {feed} --list {state}`"
        lines.append(f"Next: {words.format(f'{count:,}')} They are listed by {place}")
    return lines or ["Next: nothing. Whatever may go to Meta is there."]


def labelled(rows: Iterable[tuple[str, str | None]]) -> list[str]:
    """Return lines of a label and its text; what has no text has no line.

    >>> labelled([("Feed", "purchases"), ("Mode", None), ("Started", "by hand")])
    ['Feed     purchases', 'Started  by hand']
    """
    known = [(label, text) for label, text in rows if text]
    width = max((len(label) for label, _ in known), default=0)
    return [f"{label.ljust(width)}  {text}" for label, text in known]


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
