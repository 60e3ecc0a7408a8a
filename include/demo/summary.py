"""The demo's last words: what became of every row, from the ledger and from Meta."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import psycopg
import requests

from meta_capi.catalogue import reason
from meta_capi.feed import Feed
from meta_capi.ledger import Ledger

__all__ = ["lines"]

_STATES: Final = (
    "accepted", "refused", "quarantined", "withheld", "expired", "in_doubt", "pending",
)  # fmt: skip
_COUNTS: Final = """
    select feed, case state when 'claimed' then 'pending' else state::text end, count(*)
    from capi.deliveries group by 1, 2
"""
_EXAMPLES: Final = """
    select distinct on (state) feed, source_key, state::text, reason
    from capi.deliveries
    where feed = 'offline_purchases' and state in ('accepted', 'quarantined', 'refused')
    order by state, source_key
"""


def lines(
    ledger: Ledger, dsn: str, graph_url: str, dataset_id: str, feeds: Sequence[Feed]
) -> list[str]:
    """Return the summary's lines."""
    with psycopg.connect(dsn) as connection:
        counts = {
            (feed, state): count for feed, state, count in connection.execute(_COUNTS)
        }
        sources = {
            feed.feed: _rows(connection, feed) for feed in feeds if feed.source.table
        }
        examples = list(connection.execute(_EXAMPLES))
    out = [_row("feed", ["source rows", *_STATES, "sum"])]
    for feed in feeds:
        found = [counts.get((feed.feed, state), 0) for state in _STATES]
        out.append(_row(feed.feed, [sources.get(feed.feed, 0), *found, sum(found)]))
    accepted = sum(count for (_, state), count in counts.items() if state == "accepted")
    received = requests.get(
        f"{graph_url}/_simulator/received", params={"dataset": dataset_id}, timeout=30
    ).json()
    out += [
        "",
        f"Accepted in the ledger: {accepted:,}. "
        f"Received by the Graph API: {_received(received):,}.",
        "",
    ]
    out += ["Three rows and their fate:"]
    for feed, key, state, code in examples:
        why = f" ({code}: {reason(code).meaning})" if code else ""
        out.append(f"  {feed} {key}: {state}{why}")
    return out


def _rows(connection: psycopg.Connection, feed: Feed) -> int:
    table = psycopg.sql.Identifier(*str(feed.source.table).split("."))
    row = connection.execute(
        psycopg.sql.SQL("select count(*) from {}").format(table)
    ).fetchone()
    return int(row[0]) if row else 0


def _received(answer: dict[str, dict[str, dict[str, int]]]) -> int:
    return sum(sum(names.values()) for names in answer["distinct_events"].values())


def _row(name: str, cells: Iterable[object]) -> str:
    texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
    return f"{name:<18}" + "".join(f"{text:>12}" for text in texts)
