"""What tests of several subjects say and do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
from tests.ledger.conftest import HOUR, Bench

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Tally
from meta_capi.ledger import ResendPolicy
from meta_capi.people import Act

ACT = Act("os:tester", "ticket 4711")
Cursor = psycopg.Cursor[dict[str, Any]]
REFUSAL = b'{"error":{"code":100,"error_subcode":2804019}}'


def doubtful(bench: Bench, *numbers: int) -> None:
    """Let these orders be in doubt."""
    bench.simulator.faults.add(Fault(kind=FaultKind.HANG_UP_AFTER_READING))
    bench.policy = ResendPolicy(resend=False, window_seconds=47 * HOUR)
    bench.deliver(bench.rows(*numbers))
    bench.policy = ResendPolicy(resend=True, window_seconds=47 * HOUR)


def at_every_end(bench: Bench) -> None:
    """Deliver orders of every kind, in several batches, one of them split."""
    bench.tune(events_per_request=10)
    refused = bench.event_ids(3)
    bench.simulator.faults.add(
        Fault(kind=FaultKind.REFUSE_IF, count=None, event_ids=refused)
    )
    bench.deliver(bench.rows(*range(40)))
    bench.deliver(bench.rows(50, consent=False), bench.rows(51, amount="-1"))
    bench.deliver(bench.rows(52, bought_at=bench.started - timedelta(days=70)))
    run = bench.run()
    gate = bench.ledger.open_validation(run, "suite")
    bench.ledger.quarantine(run, gate, [("o-53", "gate.failed")], bench.started)
    doubtful(bench, 60)
    bench.deliver(bench.rows(61), limit=0)


def sums(bench: Bench) -> tuple[Any, ...]:
    """Return what the reports say: by day, and in all."""
    days = "select * from capi.daily_summary order by day"
    return bench.sql(days), bench.sql("select * from capi.reconciliation")


def as_counted(tally: Tally) -> dict[str, int]:
    """Return a tally's outcomes; every row must have one (I1)."""
    assert tally.settled == tally.rows, "a row has no outcome, or two"
    return {state: count for state, count in tally.outcomes.items() if count}


def everything(*states: str) -> dict[str, Any]:
    return {
        "states": list(states),
        "reason": None,
        "keys": None,
        "start": None,
        "end": None,
    }


def refuse(bench: Bench, *numbers: int) -> None:
    """Let Meta refuse these conversions, whatever request they are in."""
    bench.simulator.faults.add(
        Fault(
            kind=FaultKind.REFUSE_IF,
            count=None,
            event_ids=bench.event_ids(*numbers),
            subcode=2804019,
        )
    )
