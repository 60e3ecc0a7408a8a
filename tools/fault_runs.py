"""The page of the long runs: what the harnesses found, from their own summaries.

`make faults`, `make machine` and `make fuzz` each leave a summary.json in their folder;
kept as docs/measured/faults.json, machine.json and fuzz.json it is what this page says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

__all__ = ["fault_runs"]

MEASURED: Final = Path(__file__).resolve().parent.parent / "docs" / "measured"

_HEAD = """\
# What the long runs found

Generated from `docs/measured/` by `make docs`; every figure is a harness's own.
What is promised is told in [reliability](reliability.md), and what each fault is in
[the fault matrix](fault-matrix.md)."""
_KILLS = """\
## Workers killed: `make faults`

The real operator sends a shop's orders to the local Graph API, and dies: at a random
moment, or in one named window of the protocol (W0 to W13). The next attempt and
`tend_deliveries` clear up, and then Meta's own record and the ledger are compared event
by event. *Doubled, explained* are events that Meta processed again after a request of
which nobody knew; they went out unchanged, inside the window. *Naive* is the sender that
most people write first: select what is unsent, post it, mark it."""
_COLUMNS: Final = {
    "trials": "trials", "kills": "kills", "events": "events", "requests": "requests",
    "lost": "lost", "unexplained": "doubled, unexplained", "doubled": "doubled, explained",
    "resolved": "doubts resolved", "in_doubt": "in doubt at the end",
    "in_doubt_received": "of them at Meta",
}  # fmt: skip
_MACHINE = """\
## Steps of the state machine: `make machine`

Hypothesis leads several workers, clocks, answers and deaths in any order on a real
PostgreSQL, and compares the ledger with what Meta took after every step."""
_FUZZ = """\
## Hostile rows: `make fuzz`

Random and hostile rows, feed files and names; every row must become an event that the
local Graph API takes, or be held with a reason, and nothing of it may show."""


def fault_runs() -> str:
    """Return the page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _HEAD.splitlines()
    yield from ("", *_KILLS.splitlines(), "")
    yield from _killed(_read("faults"))
    yield from ("", *_MACHINE.splitlines(), "")
    yield from _figures(_read("machine"))
    yield from ("", *_FUZZ.splitlines(), "")
    yield from _figures(_read("fuzz"))


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text("utf-8"))
    return found


def _killed(found: dict[str, Any]) -> Iterator[str]:
    yield "| | " + " | ".join(_COLUMNS.values()) + " |"
    yield "| --- |" + " ---: |" * len(_COLUMNS)
    for kind, sums in [
        *found["kinds"].items(),
        ("all but naive", found["all of ours"]),
    ]:
        cells = (f"{sums[name]:,}" for name in _COLUMNS)
        yield f"| {kind} | " + " | ".join(cells) + " |"
    yield ""
    yield "Trials that did not go as they should:"
    yield ""
    for each in found["violations"]:
        yield f"- `{each['seed']}`: {each['what'][0]}"
    if not found["violations"]:
        yield "- none"
    for note in found.get("notes", []):
        yield from ("", note)


def _figures(found: dict[str, Any]) -> Iterator[str]:
    notes = found.pop("notes", [])
    yield from notes
    if not found:
        return
    if notes:
        yield ""
    yield "| | |"
    yield "| --- | ---: |"
    for name, value in found.items():
        if isinstance(value, dict):
            for part, number in value.items():
                yield f"| {name}: {part} | {_told(number)} |"
        else:
            yield f"| {name.replace('_', ' ')} | {_told(value)} |"


def _told(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else str(value)
    )
