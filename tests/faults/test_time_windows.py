"""Windows that end: while an event waits, flies or is in doubt, or the token is broken."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from tests.faults import world_ledger as world
from tests.faults.world_ledger import as_counted, nothing_twice
from tests.ledger.conftest import DATASET, FEED, HOUR, Bench

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Patience
from meta_capi.errors import StoppedError
from meta_capi.feed import parse
from meta_capi.verdict import Answer

ledger, bench = world.ledger, world.bench

DAY = 24 * HOUR
WEEK = timedelta(days=7)


@pytest.fixture
def calls(bench: Bench) -> Bench:
    """A feed of phone orders: Meta takes them for seven days."""
    bench.feed = parse(FEED.replace("physical_store", "phone_call"))
    assert bench.feed.longest_window == WEEK
    return bench


def aged(bench: Bench, seconds: dict[int, float]) -> dict[str, list[object]]:
    """Return orders of these ages, in seconds, by number."""
    rows = bench.rows(*seconds)
    now = datetime.now(UTC)
    rows["bought_at"] = [now - timedelta(seconds=age) for age in seconds.values()]
    return rows


def tend(bench: Bench, now: float | None = None) -> int:
    """Expire what is too old and say why doubts stay, as `tend_deliveries` does."""
    at = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    feed = bench.feed
    oldest = at - feed.longest_window + feed.window.margin
    expired = bench.ledger.expire(feed.feed, DATASET, oldest)
    bench.ledger.close_doubt(feed.feed, DATASET, bench.policy)
    return expired


@pytest.mark.matrix("T1")
class TestAWindowThatEnds:
    def test_while_the_event_waits_it_expires_and_its_neighbours_go_out(
        self, calls: Bench
    ) -> None:
        margin = calls.feed.window.margin.total_seconds()
        rows = aged(calls, {1: 7 * DAY - margin - 30, 2: HOUR, 3: DAY})
        calls.deliver(rows, limit=0)
        assert calls.states() == {"pending": 3}
        later = time.time() + 60

        assert tend(calls, later) == 1
        tally = calls.deliver(rows, now=lambda: later)

        assert as_counted(tally) == {"expired": 1, "accepted": 2}
        assert calls.reasons() == {"window.over": 1}
        nothing_twice(calls)

    def test_while_the_request_is_out_metas_word_stands(self, calls: Bench) -> None:
        margin = calls.feed.window.margin.total_seconds()
        rows = aged(calls, {1: 7 * DAY - margin - 30})

        def post(body: bytes) -> Answer:
            assert tend(calls, time.time() + HOUR) == 0
            return calls.post(body)

        assert as_counted(calls.deliver(rows, post=post)) == {"accepted": 1}
        assert tend(calls, time.time() + HOUR) == 0
        assert calls.states() == {"accepted": 1}

    def test_while_it_is_in_doubt_it_stays_in_doubt_and_is_not_called_expired(
        self, calls: Bench
    ) -> None:
        """Meta may have it: nobody may say that it was never sent, nor send it again."""
        margin = calls.feed.window.margin.total_seconds()
        rows = aged(calls, {1: 7 * DAY - margin - 30, 2: DAY})
        calls.simulator.faults.add(
            Fault(kind=FaultKind.STATUS, status=500, processed=True, count=4)
        )
        calls.deliver(rows)
        later = time.time() + 120
        calls.pass_time(120)

        assert tend(calls, later) == 0
        tally = calls.deliver(rows, now=lambda: later)

        assert as_counted(tally) == {"in_doubt": 1, "accepted": 1}
        assert dict(calls.sql("select source_key, state::text from capi.deliveries")) == {
            "o-1": "in_doubt", "o-2": "accepted",
        }  # fmt: skip


@pytest.mark.matrix("T2")
def test_after_a_token_was_broken_for_eight_days_exactly_the_late_ones_are_lost(
    calls: Bench,
) -> None:
    """Every clock begins eight days ago; the rows then come in for eight days."""
    margin = calls.feed.window.margin
    calls.simulator.faults.add(Fault(kind=FaultKind.TOKEN_REVOKED, count=None))
    ages = {number: 600.0 + number * 3 * HOUR for number in range(64)}
    rows = aged(calls, ages)
    attempts = 0
    for day in range(8, 0, -1):
        then = time.time() - day * DAY
        calls.pass_time(-day * DAY)
        known = [number for number, age in ages.items() if age > day * DAY - HOUR]
        some = {
            name: [values[number] for number in known] for name, values in rows.items()
        }
        tend(calls, then)
        if known:
            attempts += 1
            with pytest.raises(StoppedError, match="token"):
                calls.deliver(some, now=lambda then=then: then)
    assert attempts >= 7
    assert calls.receipts() == Counter()

    calls.pass_time(0)
    calls.simulator.faults.clear()
    tend(calls)
    tally = calls.deliver(rows)

    late = [n for n, age in ages.items() if age > (WEEK - margin).total_seconds()]
    assert 0 < len(late) < 64
    assert as_counted(tally) == {"expired": len(late), "accepted": 64 - len(late)}
    query = "select source_key from capi.deliveries where state = 'expired'"
    assert {key for (key,) in calls.sql(query)} == {f"o-{number}" for number in late}
    nothing_twice(calls)


@pytest.mark.matrix("T3")
class TestTheEdgeOfTheWindow:
    @pytest.mark.parametrize(
        ("hours", "minutes", "ends"),
        [(46, 59, "accepted"), (47, 1, "in_doubt"), (48, 1, "in_doubt")],
    )
    def test_a_doubt_is_sent_again_inside_and_held_outside(
        self, bench: Bench, hours: int, minutes: int, ends: str
    ) -> None:
        rows = bench.rows(1, 2)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.STATUS, status=500, processed=True, count=1)
        )
        bench.patience = Patience(first_pause=0.0, tries=1)
        bench.deliver(rows)
        bench.pass_time(hours * HOUR + minutes * 60)

        due = bench.ledger.due_keys(bench.feed.feed, DATASET, bench.policy, limit=10)
        tally = bench.deliver(rows)
        tend(bench)

        inside = ends == "accepted"
        assert as_counted(tally) == {ends: 2}
        assert sorted(due) == (["o-1", "o-2"] if inside else [])
        assert set(bench.receipts().values()) == {2 if inside else 1}
        assert bench.reasons() == ({} if inside else {"doubt.window_over": 2})

    def test_a_request_that_the_window_overtakes_does_not_begin(
        self, bench: Bench
    ) -> None:
        """Claimed at 46:59:50, its turn comes at 47:00:10."""
        rows = bench.rows(1, 2)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.STATUS, status=500, processed=True, count=1)
        )
        bench.patience = Patience(first_pause=0.0, tries=1)
        bench.deliver(rows)
        bench.pass_time(47 * HOUR - 10)

        def turn(step: str) -> None:
            if step == "after_claim":
                bench.pass_time(47 * HOUR + 10)

        tally = bench.deliver(rows, probe=turn)

        assert as_counted(tally) == {"in_doubt": 2}
        assert set(bench.receipts().values()) == {1}
