"""The books: what Meta processed, held against what the ledger says, event by event.

Meta's record is written before Meta answers; the source is the list of rows. Neither is
asked for the ledger's sake: they are the truth, and the ledger is what is on trial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.world import Order, Receipt, Shop

# What may become of a row whose request nobody heard the answer of.
_ENDS: Final = {
    "good": {"accepted", "in_doubt"},
    "bad": {"refused", "in_doubt"},
    "withheld": {"withheld"},
    "expired": {"expired"},
    "quarantined": {"quarantined"},
}
# Of each row, the requests that it was in: those that nobody heard an answer of, and those
# that were accepted. A yes that reached a worker after its rescue counts among the former:
# when the row was sent again, nobody had heard it.
_STANDING: Final = """
select d.source_key, d.state::text, d.reason,
    count(*) filter (
        where a.outcome = 'unknown' or (a.outcome = 'accepted' and b.settled_at >= w.ended_at)
    ) as unheard,
    count(*) filter (
        where a.outcome = 'accepted'
            and coalesce(b.settled_at < w.ended_at, w.ended_at is null)
    ) as accepted
from capi.deliveries d
left join harness.moves m on m.dataset_id = d.dataset_id and m.source_key = d.source_key
left join capi.attempts a on a.batch_id = m.batch_id
left join capi.batches b on b.batch_id = m.batch_id
left join capi.workers w on w.worker_id = b.worker_id
where d.dataset_id = %s
group by d.source_key, d.state, d.reason
"""
_OPEN: Final = """
select
    (select count(*) from capi.workers where ended_at is null),
    (select count(*) from capi.batches where state in ('claimed', 'sending')),
    (select count(*) from capi.attempts where outcome = 'sending')
"""


@dataclass
class Books:
    """One trial's figures, and what is wrong with them."""

    events: int = 0
    requests: int = 0
    lost: int = 0
    """Never processed, and in no state that says so."""
    false_accepted: int = 0
    doubled: int = 0
    """Processed more often than once, each time explained by an answer nobody heard."""
    unexplained: int = 0
    in_doubt: int = 0
    held: int = 0
    """Of those, by the feed's own choice."""
    window_over: int = 0
    in_doubt_received: int = 0
    """Of those, processed after all."""
    resolved: int = 0
    """Once in doubt, and accepted or refused in the end."""
    states: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Standing:
    state: str
    reason: str | None
    unheard: int
    accepted: int


def balance(shop: Shop, *, window: float | None = None) -> Books:
    """Close a trial's books, after the faults and the recovery.

    Args:
        window: the seconds within which all receipts of one event must lie.
    """
    shop.world.await_quiet()
    receipts = shop.receipts()
    found = {
        key: _Standing(*rest) for key, *rest in shop.world.sql(_STANDING, shop.dataset)
    }
    books = Books(requests=len({r.request for e in receipts.values() for r in e}))
    for order in shop.orders:
        _enter(books, order, found.pop(order.key, None), receipts, shop.policy, window)
    books.violations += [f"{key}: in the ledger, not in the source" for key in found]
    known = {order.event_id for order in shop.orders}
    books.violations += [
        "Meta has an event of no row" for e in receipts if e not in known
    ]
    for count, what in zip(
        shop.world.sql(_OPEN)[0], ("worker", "batch", "request"), strict=True
    ):
        if count:
            books.violations.append(f"{count} {what}(s) still open")
    return books


def _enter(
    books: Books, order: Order, standing: _Standing | None,
    receipts: dict[str, list[Receipt]], policy: str, window: float | None,
) -> None:  # fmt: skip
    processed = [r for r in receipts.get(order.event_id, ()) if r.processed]
    books.events += 1
    if standing is None:
        books.lost += 1
        books.violations.append(f"{order.key} ({order.fate}): no word of it")
        return
    books.states[standing.state] += 1
    if standing.unheard and standing.state in ("accepted", "refused"):
        books.resolved += 1
    if standing.state == "in_doubt":
        books.in_doubt += 1
        books.held += standing.reason == "doubt.held"
        books.window_over += standing.reason == "doubt.window_over"
        books.in_doubt_received += bool(processed)
    if standing.state == "accepted" and not processed:
        books.lost += 1
        books.false_accepted += 1
    if len(processed) > 1:
        explained = len(processed) <= standing.unheard + min(standing.accepted, 1)
        books.doubled += explained
        books.unexplained += not explained
    for fault in _faults(order, standing, processed, policy, window):
        books.violations.append(f"{order.key} ({order.fate}): {fault}")


def _faults(
    order: Order, standing: _Standing, processed: list[Receipt], policy: str,
    window: float | None,
) -> Iterator[str]:  # fmt: skip
    state = standing.state
    if state not in _ENDS[order.fate]:
        yield f"ends {state} ({standing.reason})"
    if state == "accepted" and not processed:
        yield "accepted, and never processed"
    if processed and order.fate != "good":
        yield "processed, and should not"
    if processed and state not in ("accepted", "in_doubt"):
        yield f"processed, and {state}"
    if len(processed) > standing.unheard + min(standing.accepted, 1):
        yield (
            f"processed {len(processed)} times; {standing.unheard} unheard requests and "
            f"{standing.accepted} accepted ones explain less"
        )
    if standing.accepted > 1:
        yield "accepted twice"
    if policy == "hold" and len(processed) > 1:
        yield "held, and processed twice"
    if state == "in_doubt" and not standing.unheard:
        yield "in doubt without an unheard request"
    if state == "in_doubt" and standing.reason not in (
        "doubt.held",
        "doubt.window_over",
    ):
        yield f"left in doubt ({standing.reason})"
    if window is not None and len(processed) > 1:
        spread = max(r.at for r in processed) - min(r.at for r in processed)
        if spread > window:
            yield f"processed again {spread:.1f} s later, outside the window"


def naive_balance(shop: Shop, sent: set[str]) -> Books:
    """Close the naive sender's books: what it marked as sent is all it says."""
    shop.world.await_quiet()
    receipts = shop.receipts()
    books = Books(requests=len({r.request for e in receipts.values() for r in e}))
    for order in shop.orders:
        if order.fate != "good":
            continue
        processed = sum(r.processed for r in receipts.get(order.event_id, ()))
        books.events += 1
        books.lost += not processed
        books.false_accepted += order.key in sent and not processed
        books.unexplained += processed > 1
    return books


def figures(books: Books) -> dict[str, Any]:
    """Return the books as JSON."""
    return {**vars(books), "states": dict(books.states)}
