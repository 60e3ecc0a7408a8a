"""Deliveries over the real line, and the check that all books agree (I1-I8).

The books are three: the source's rows, the ledger, and the simulator's own record, which
is written before it answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from tests.ledger.conftest import DATASET, HOUR, Bench

from capi_airflow.transport import Destination, Line
from meta_capi.dispatch import Tally

TOKEN = "EAABtest"  # the bench's simulator knows it
SHORT = 0.4  # a deadline in seconds that a test can wait for
LEASE_AND_REST = 181 + 61


def line_to(
    url: str, *, seconds: float = 10.0, token: str = TOKEN, in_flight: int = 4
) -> Line:
    """Return the product's own line to a server of this test."""
    there = Destination(
        dataset_id=DATASET, token=token, environment="local", base_url=url
    )
    return Line(there, requests_in_flight=in_flight, deadline_seconds=seconds)


def send(bench: Bench, *slices: Any, line: Line | None = None, **options: Any) -> Tally:
    """Deliver slices over a line, by default a sound one; every row has an outcome."""
    line = line or line_to(bench.simulator.url)
    with line.session:
        tally = bench.deliver(*slices, post=line.post, **options)
    assert tally.settled == tally.rows, "a row has no outcome, or two"
    return tally


def calm(bench: Bench, *slices: Any, after: float = LEASE_AND_REST) -> dict[str, int]:
    """Let the faults stop and a lease and a rest go by; deliver again (I5).

    Returns the deliveries by state.
    """
    bench.simulator.faults.clear()
    bench.pass_time(after)
    bench.ledger.rescue()
    send(bench, *slices)
    states = bench.states()
    assert not states.keys() & {"pending", "claimed"}, states
    return states


def outcomes(bench: Bench) -> dict[str, int]:
    """Return the requests by what became of them."""
    return dict(
        bench.sql("select outcome::text, count(*) from capi.attempts group by 1")
    )


def the_books_agree(
    bench: Bench,
    numbers: Iterable[int],
    *,
    requests: int,
    guilty: Collection[int] = (),
    window: float = 48 * HOUR,
    repeated_on_the_way: int = 0,
) -> None:
    """Compare source, ledger and Meta, event by event.

    Args:
        numbers: the source's rows.
        requests: what all of it may have cost at most (I8).
        guilty: the rows that Meta refuses.
        window: how far apart, in seconds, Meta may get one event twice (I3).
        repeated_on_the_way: whole requests that somebody else delivered again.
    """
    rows = bench.sql("""
        select source_key, event_id, state::text, doubt_since is not null
        from capi.deliveries
    """)
    assert sorted(row[0] for row in rows) == sorted(f"o-{n}" for n in numbers), "I1"
    receipts = {
        each.event_id: [receipt.at for receipt in each.receipts if receipt.processed]
        for each in bench.simulator.arrived(DATASET)
    }
    victims = {f"o-{n}" for n in guilty}
    for key, event_id, state, in_doubt in rows:
        times = receipts.pop(event_id, [])
        if state == "accepted":
            assert times, f"I2: {key} is accepted, and Meta never had it"
        elif not in_doubt:
            assert not times, f"I2: {key} is surely not at Meta, and it is there"
        assert not times or max(times) - min(times) <= window, f"I3: {key}"
        if state in ("refused", "quarantined", "withheld", "expired"):
            assert key in victims, f"I7: {key} is an innocent victim: {state}"
    assert not any(receipts.values()), "Meta has events of no row"

    unexplained = f"I4: {bench.receipts().total()} receipts, {outcomes(bench)}"
    [(most,)] = bench.sql("""
        select coalesce(sum(b.events), 0)
        from capi.attempts a join capi.batches b using (batch_id)
        where a.outcome = 'unknown'
    """)
    extra = sum(count - 1 for count in bench.receipts().values())
    assert extra <= most + repeated_on_the_way * len(rows), unexplained

    made = bench.sql("select outcome::text, finished_at is null from capi.attempts")
    assert len(made) <= requests, f"I8: {len(made)} requests"
    assert not any(is_open for _, is_open in made), "a request has no end"
    heard = bench.simulator.graph.store.requests
    assert heard <= len(made) + repeated_on_the_way, "a request without an intent"
