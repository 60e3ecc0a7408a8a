"""Which moments runs were planned for, and which were left out.

Airflow does not make up for the runs it missed while it was down or a DAG was paused
(`catchup=False`: nobody wants a hundred runs at once). So the next run reads what they
would have read.
"""

from __future__ import annotations

from datetime import datetime

from meta_capi.ledger import Ledger

__all__ = ["planned_interval", "unread_since"]


def planned_interval(ledger: Ledger, run_id: str) -> tuple[datetime, datetime] | None:
    """Return the interval a run was planned for."""
    for row in ledger.run("planned_interval", run_id=run_id):
        if row["interval_start"]:
            return row["interval_start"], row["interval_end"]
    return None


def unread_since(
    ledger: Ledger, run_id: str, *, feed: str, dataset_id: str, start: datetime,
    floor: datetime,
) -> datetime:  # fmt: skip
    """Return the moment from which a run must read, so that nothing is left unread.

    Args:
        run_id: the run, which may have been planned before.
        start: the start of the run's own interval; returned where nothing is unread.
        floor: the earliest moment that is still of use.
    """
    rows = ledger.run(
        "unread_since", run_id=run_id, feed=feed, dataset_id=dataset_id, start=start,
        floor=floor,
    )  # fmt: skip
    since: datetime = rows[0]["since"] if rows else start
    return since
