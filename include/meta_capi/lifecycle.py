"""The states of a delivery and the lettered edges between them, and nothing else.

    a record    a conversion is owed to a dataset
    b claim     a worker takes it, under a lease, into a batch
    c accept    Meta took it
    d release   it provably did not go out, or Meta provably did not process it
    e refuse    Meta refused this very event, alone
    f doubt     it may have gone out, and there is no answer to trust
    g resend    it goes out again: same event_id, same bytes, inside Meta's window
    h withhold  we decided not to send it (no consent, no usable match key)
    i hold back a person has to look at it: it is in quarantine, with a reason
    j expire    Meta would no longer take it
    k replay    the row or the rule was mended, or a person put it back
    l suspect   the ledger was put back from an older copy: it may have gone out since

The letters stand in `sql/`, in the tests and in the runbook. `accepted` has no edge out:
a delivery that Meta accepted is never sent again. An edge that is not in the table below
is refused by the database itself (the triggers `only_lettered_beginnings` and
`only_lettered_edges`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["EDGES", "MOVES", "Edge", "State", "diagram"]


class State(StrEnum):
    """Where a delivery is. Reports count `claimed` as pending: it is on its way."""

    PENDING = "pending"
    CLAIMED = "claimed"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    QUARANTINED = "quarantined"
    WITHHELD = "withheld"
    EXPIRED = "expired"
    IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True)
class Edge:
    """One letter: a verb, where it starts (None: a new row) and where it leads."""

    letter: str
    verb: str
    starts: tuple[State | None, ...]
    leads: State


# What may be looked at afresh each time its row is read: nothing of it is at Meta.
_OPEN: Final = (State.PENDING, State.QUARANTINED, State.WITHHELD, State.EXPIRED)

EDGES: Final = (
    Edge("a", "record", (None, State.WITHHELD, State.EXPIRED), State.PENDING),
    Edge("b", "claim", (None, *_OPEN, State.REFUSED), State.CLAIMED),
    Edge("c", "accept", (State.CLAIMED, State.IN_DOUBT), State.ACCEPTED),
    Edge("d", "release", (State.CLAIMED,), State.PENDING),
    Edge("e", "refuse", (State.CLAIMED,), State.REFUSED),
    Edge("f", "doubt", (State.CLAIMED,), State.IN_DOUBT),
    Edge("g", "resend", (State.IN_DOUBT,), State.CLAIMED),
    Edge("h", "withhold", (None, *_OPEN), State.WITHHELD),
    Edge("i", "hold back", (None, *_OPEN, State.CLAIMED), State.QUARANTINED),
    Edge("j", "expire", (None, *_OPEN), State.EXPIRED),
    Edge("k", "replay", (State.QUARANTINED, State.REFUSED, State.IN_DOUBT), State.PENDING),
    Edge("l", "suspect", (None, *_OPEN, State.REFUSED), State.IN_DOUBT),
)  # fmt: skip

MOVES: Final = frozenset(
    (start, edge.leads)
    for edge in EDGES
    for start in edge.starts
    if start != edge.leads
)
"""Every allowed (from, to), a new row's `from` being None."""


def diagram() -> str:
    """Draw the table as a mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    for edge in EDGES:
        for start in edge.starts:
            if start != edge.leads:
                lines.append(
                    f"    {start or '[*]'} --> {edge.leads}: {edge.letter} {edge.verb}"
                )
    return "\n".join(lines) + "\n"
