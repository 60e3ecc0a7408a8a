"""What is finished leaves the ledger when its time is over; its counts stay.

Nothing goes that could be sent again: an event is removed only when it is older than Meta
would take it by any rule (the feed's `retention` cannot be shorter), so a backfill that
reads its row again finds it expired. What waits or is in doubt stays, however old.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, Final

from meta_capi.feed import Feed
from meta_capi.ledger import Ledger
from meta_capi.sql import queries

__all__ = ["removable", "retain"]

_SQL: Final = queries("upkeep")
# A step locks what it removes; others wait for no more than that.
_STEP: Final = 5_000
_STEPS: Final = 20


def removable(
    ledger: Ledger, feed: Feed, now: datetime
) -> tuple[datetime, Counter[str]]:
    """Return from when on all is kept, and the deliveries before it, by state."""
    until = _until(ledger, feed, now)
    rows = _ask(ledger, "retain_count", feed=feed.feed, until=until)
    return until, Counter({row["state"]: row["deliveries"] for row in rows})


def retain(
    ledger: Ledger, feed: Feed, now: datetime, *, steps: int = _STEPS, size: int = _STEP
) -> Counter[str]:
    """Remove what is finished and old, in short steps; return how many of each kind.

    Does so many steps of a kind at most; the next call goes on.
    """
    values = {"feed": feed.feed, "until": _until(ledger, feed, now), "most": size}
    removed: Counter[str] = Counter()
    _ask(ledger, "retain_steps", most=size)
    for kind in ("deliveries", "batches", "workers", "validations", "scores", "runs"):
        for _ in range(steps):
            rows = _ask(ledger, f"retain_{kind}", **values)
            gone = sum(row.get("removed", 1) for row in rows)
            removed[kind] += gone
            if gone < size:
                break
        else:
            return removed  # what refers to the rest is not gone yet
    return removed


def _until(ledger: Ledger, feed: Feed, now: datetime) -> datetime:
    kept = feed.retention.total_seconds()
    rows = _ask(ledger, "retain_until", now=now, kept=kept)
    until: datetime = rows[0]["until"]
    return until


def _ask(ledger: Ledger, question: str, **values: Any) -> list[dict[str, Any]]:
    return ledger.attempt(
        lambda cursor: cursor.execute(_SQL[question], values).fetchall()
    )
