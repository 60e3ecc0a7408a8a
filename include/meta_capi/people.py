"""What people do to the ledger by hand: erase, settle a doubt, put an old copy to use.

Each act is one transaction, and is written down for ever in `capi.acts`: who, when, why
and how many, never a key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from psycopg import Cursor
from psycopg.types.json import Jsonb

from meta_capi.errors import ConfigurationError, SchemaError
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State
from meta_capi.sql import queries

__all__ = [
    "Act", "Erased", "Mark", "Word", "erase", "put_back", "read_mark", "settle",
    "take_mark",
]  # fmt: skip

_SQL: Final = queries("upkeep")
_FORGET: Final = queries("ledger")["forget"]
_MOST_LETTERS: Final = 500
# More numbers than any ledger gives out between a copy and the day it is put back.
_LEAP: Final = 100_000

Step = Cursor[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something by hand, and why."""

    who: str
    why: str

    def __post_init__(self) -> None:
        if not self.why.strip():
            raise ConfigurationError(
                "Say why: it is written down with what is done, and nothing was done yet.",
                code="fault.form",
            )
        if len(self.why) > _MOST_LETTERS or not self.why.isprintable():
            raise ConfigurationError(
                f"The reason given is not one line of at most {_MOST_LETTERS} characters; "
                "nothing was done.",
                code="fault.form",
            )


class Word(StrEnum):
    """What a person says of an event in doubt."""

    RECEIVED = "received"
    NOT_RECEIVED = "not-received"
    GIVE_UP = "give-up"


_AFTER: Final = {
    Word.RECEIVED: (State.ACCEPTED, "person.received"),
    Word.NOT_RECEIVED: (State.PENDING, "person.not_received"),
    Word.GIVE_UP: (State.IN_DOUBT, "doubt.given_up"),
}


class Erased(NamedTuple):
    """What an erasure did."""

    deliveries: Counter[str]
    """Removed, by the state they were in."""
    new_marks: int
    """Conversions that were not erased before."""
    on_desks: int
    """On a worker's desk, and so still there; they are not claimed again."""


class Settled(NamedTuple):
    """What settling a doubt did."""

    settled: int
    others: Counter[str]
    """Deliveries with these keys that are not in doubt, by state."""


class Mark(NamedTuple):
    """A ledger's name, and how far it has come."""

    ledger_id: str
    at: datetime


def erase(ledger: Ledger, feed: str, keys: Sequence[str], act: Act) -> Erased:
    """Remove conversions by their keys, and let none of them be sent or recorded again.

    What is on a worker's desk stays until it is settled: erase it again then. A row of it
    that is read before does the same.
    """
    _refuse_keys_in(act, keys)
    values = {"feed": feed, "keys": list(keys)}

    def step(cursor: Step) -> Erased:
        cursor.execute(_SQL["hold_rows_alone"])
        cursor.execute(_SQL["mark_erased"], values)
        new_marks = len(cursor.fetchall())
        cursor.execute(_FORGET, values)
        gone = Counter({row["state"]: row["deliveries"] for row in cursor.fetchall()})
        cursor.execute(_SQL["count_standing"], values)
        left = sum(row["deliveries"] for row in cursor.fetchall())
        detail = {"keys": len(keys), "on_desks": left, "states": dict(gone)}
        _write(cursor, "erase", act, feed, gone.total(), detail)
        return Erased(gone, new_marks, left)

    return ledger.attempt(step)


def settle(
    ledger: Ledger, feed: str, keys: Sequence[str], word: Word, act: Act,
    *, dataset_id: str | None = None,
) -> Settled:  # fmt: skip
    """Let a person's word stand for Meta's answer, where there is none (edges c and k).

    Raises:
        ConfigurationError: the keys are in doubt in several datasets, and none is named.
    """
    _refuse_keys_in(act, keys)
    state, reason = _AFTER[word]
    values = {"feed": feed, "keys": list(keys), "state": state.value, "reason": reason}

    def step(cursor: Step) -> Settled:
        cursor.execute(_SQL["count_standing"], values)
        rows = [
            row for row in cursor.fetchall() if dataset_id in (None, row["dataset_id"])
        ]
        datasets = {row["dataset_id"] for row in rows if row["state"] == State.IN_DOUBT}
        if len(datasets) > 1:
            raise ConfigurationError(
                f"They are in doubt in {len(datasets)} datasets; name one with --dataset. "
                "Nothing was settled.",
                code="fault.form",
            )
        others: Counter[str] = Counter()
        for row in rows:
            if row["state"] != State.IN_DOUBT:
                others[row["state"]] += row["deliveries"]
        if not datasets:
            return Settled(0, others)
        [dataset] = datasets
        cursor.execute(_SQL["settle_doubt"], values | {"dataset_id": dataset})
        settled = len(cursor.fetchall())
        detail = {"dataset_id": dataset, "as": word.value, "keys": len(keys)}
        _write(cursor, "settle", act, feed, settled, detail)
        return Settled(settled, others)

    return ledger.attempt(step)


def put_back(ledger: Ledger, since: datetime, act: Act) -> int:
    """Put a ledger to use that was copied at `since` and put back now (edges f and l).

    What waited or was on a desk may have gone out since: it is in doubt. So is, from now
    on, whatever became known before now and is new to this ledger. Returns how many are in
    doubt at once.
    """

    def step(cursor: Step) -> int:
        cursor.execute(_SQL["clock"])
        if since >= (cursor.fetchone() or {})["clock"]:
            raise ConfigurationError(
                "The time of the copy is not past; nothing was done.",
                code="fault.form",
            )
        moved = 0
        for name in ("fence_all", "suspect_waiting"):
            cursor.execute(_SQL[name], {"since": since})
            moved += len(cursor.fetchall())
        cursor.execute(_SQL["note_restored"], {"since": since, "leap": _LEAP})
        _write(cursor, "restored", act, None, moved, {"since": since.isoformat()})
        return moved

    return ledger.attempt(step)


def read_mark(ledger: Ledger) -> Mark:
    """Return how far the ledger has come."""
    return _mark(ledger, "read_mark")


def take_mark(ledger: Ledger) -> Mark:
    """Let the ledger go one mark on, and return it, to be remembered elsewhere."""
    return _mark(ledger, "mark")


def _mark(ledger: Ledger, name: str) -> Mark:
    rows = ledger.attempt(lambda cursor: cursor.execute(_SQL[name]).fetchall())
    if not rows:
        raise SchemaError("The ledger has no schema; run `meta-capi migrate`.")
    return Mark(rows[0]["ledger_id"], rows[0]["marked_at"])


def _refuse_keys_in(act: Act, keys: Sequence[str]) -> None:
    if not keys:
        raise ConfigurationError(
            "No key is named; nothing was done.", code="fault.form"
        )
    if any("\0" in key for key in keys):
        raise ConfigurationError(
            "A key holds NUL, as none in the ledger does.", code="fault.form"
        )
    if any(re.search(rf"(?<!\w){re.escape(key)}(?!\w)", act.why) for key in keys):
        raise ConfigurationError(
            "The reason given holds one of the keys, and would be kept for ever; say it "
            "without. Nothing was done.",
            code="fault.form",
        )


def _write(
    cursor: Step, kind: str, act: Act, feed: str | None, deliveries: int,
    detail: dict[str, Any],
) -> None:  # fmt: skip
    values = {
        "kind": kind,
        "who": act.who,
        "feed": feed,
        "why": act.why.strip(),
        "deliveries": deliveries,
        "detail": Jsonb(detail),
    }
    cursor.execute(_SQL["write_act"], values)
