"""Several at once: workers, installations, and rows that change under their feet."""

from __future__ import annotations

import copy
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from tests.conftest import Database
from tests.faults import world_ledger as world
from tests.faults.world_ledger import (
    DELIVER,
    Shop,
    as_counted,
    ended,
    nothing_twice,
    start_program,
)
from tests.ledger.conftest import DATASET, Bench

from graph_simulator import Fault, FaultKind
from meta_capi.errors import NoAnswerError
from meta_capi.ledger import Ledger
from meta_capi.verdict import Answer

ledger, bench = world.ledger, world.bench


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Do the same in several threads, which begin in the same moment."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait(20)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.mark.matrix("C1")
def test_sixteen_workers_take_no_row_twice(bench: Bench, database: Database) -> None:
    """Each reads all 8,000 rows, in an order of its own."""
    engine = create_engine(database.url, pool_size=16, hide_parameters=True)
    bench.ledger = Ledger(engine, patience=60)
    now = int(time.time())
    slices = [
        bench.builder().build(bench.rows(*range(first, first + 500)), now)
        for first in range(0, 8_000, 500)
    ]
    desks = [bench.desk() for _ in range(16)]

    def take(number: int) -> Counter[str]:
        taken: Counter[str] = Counter()
        order = random.Random(number).sample(slices, len(slices))
        for built in order:
            claimed = desks[number].claim(
                copy.deepcopy(built), most_events=1_000, most_bytes=4_000_000
            )
            taken.update(e.source_key for b in claimed.batches for e in b.events)
        return taken

    shares = at_once(16, take)

    taken = sum(shares, Counter())
    assert taken == Counter({f"o-{number}": 1 for number in range(8_000)})
    assert bench.sql("select sum(events) from capi.batches") == [(8_000,)]
    assert sum(1 for share in shares if share) > 1
    engine.dispose()


@pytest.mark.matrix("C4")
def test_a_row_recorded_by_many_in_one_moment_is_one_row(bench: Bench) -> None:
    now = int(time.time())
    for round_ in range(10):
        desks = [bench.desk() for _ in range(6)]
        built = bench.builder().build(bench.rows(round_), now)

        found = at_once(
            6,
            lambda number, built=built, desks=desks: desks[number].claim(
                copy.deepcopy(built), most_events=10, most_bytes=10_000
            ),
        )

        assert sorted(len(claimed.batches) for claimed in found) == [0, 0, 0, 0, 0, 1]
        assert sum((claimed.standing for claimed in found), Counter()) == {
            ("claimed", None): 5
        }
    assert bench.sql("select count(*), sum(events) from capi.batches") == [(10, 10)]
    assert bench.states() == {"claimed": 10}


@pytest.mark.matrix("C5")
class TestARowThatChangesOnItsWay:
    @pytest.fixture
    def shop(self, bench: Bench) -> Shop:
        bench.tune(rows_per_slice=2, requests_in_flight=1)
        return Shop.open(bench, range(6))

    @staticmethod
    def paid(bodies: list[bytes]) -> dict[str, float]:
        """Return what Meta was told was paid, by order."""
        events = [event for body in bodies for event in json.loads(body)["data"]]
        orders = [event["custom_data"] for event in events]
        return {order["order_id"]: order["value"] for order in orders}

    def test_after_it_was_claimed_what_was_claimed_goes_out_and_the_change_is_noted(
        self, bench: Bench, shop: Shop
    ) -> None:
        bodies: list[bytes] = []

        def post(body: bytes) -> Answer:
            if not bodies:
                bench.sql("update shop.orders set amount = '99.00'")
            bodies.append(body)
            if len(bodies) == 1:
                raise NoAnswerError("No answer came.", body_left=True)
            return bench.post(body)

        tally = bench.deliver_each(shop.slices(rows_per_slice=6), post=post)

        assert as_counted(tally) == {"accepted": 6}
        assert bodies[0] == bodies[1], "a repeat must be the same bytes"
        assert set(self.paid(bodies).values()) == {12.5}
        assert bench.deliver_each(shop.slices()).requests == 0
        query = "select count(*) from capi.deliveries where changed_after_send"
        assert bench.sql(query) == [(6,)]

    def test_before_it_is_claimed_the_change_goes_out(
        self, bench: Bench, shop: Shop
    ) -> None:
        """Between plan and deliver: shards are bounds of keys, not rows."""
        source = shop.source()
        [shard] = source.shards(shop.interval, 1_000)
        bench.sql("update shop.orders set amount = '99.00' where order_id = 'o-1'")
        bench.sql("delete from shop.orders where order_id = 'o-2'")
        bench.sql("update shop.orders set consent = false where order_id = 'o-3'")

        bodies: list[bytes] = []

        def post(body: bytes) -> Answer:
            bodies.append(body)
            return bench.post(body)

        read = source.read(shop.interval, shard, 100)
        tally = bench.deliver_each((some.columns for some in read), post=post)

        assert as_counted(tally) == {"accepted": 4, "withheld": 1}
        assert self.paid(bodies) == {
            "o-0": 12.5, "o-1": 99.0, "o-4": 12.5, "o-5": 12.5,
        }  # fmt: skip

    def test_while_it_waits_and_then_is_gone_it_is_not_sent(
        self, bench: Bench, shop: Shop
    ) -> None:
        bench.deliver_each(shop.slices(), limit=0)
        bench.sql("update capi.deliveries set reason = 'not_sent'")
        bench.sql("delete from shop.orders where order_id <> 'o-1'")

        tally = bench.deliver_each(shop.due())

        assert as_counted(tally) == {"accepted": 1}
        assert bench.states() == {"accepted": 1, "pending": 5}


@pytest.mark.matrix("C7")
def test_two_installations_on_one_ledger_send_each_conversion_once(
    bench: Bench, tmp_path: Path
) -> None:
    """Each knows nothing of the other: another AIRFLOW_HOME, another pool, other runs."""
    bench.tune(rows_per_slice=50, events_per_request=25, requests_in_flight=2)
    shop = Shop.open(bench, range(1_500))
    homes = [
        start_program(
            DELIVER, shop.described(host=name), AIRFLOW_HOME=str(tmp_path / name)
        )
        for name in ("one", "two")
    ]
    tallies = [ended(home) for home in homes]

    assert bench.states() == {"accepted": 1_500}
    nothing_twice(bench)
    assert sum(tally["accepted_now"] for tally in tallies) == 1_500
    assert all(tally["rows"] == 1_500 for tally in tallies)
    assert bench.sql("select count(distinct host) from capi.workers") == [(2,)]


@pytest.mark.matrix("C8")
class TestAfterAnOutage:
    """Everything waits, and goes out in order of what is lost first, at a bounded pace."""

    @pytest.fixture
    def shop(self, bench: Bench) -> Shop:
        bench.tune(events_per_request=50, requests_in_flight=3)
        shop = Shop.open(bench, range(2_000))
        bench.sql(
            "update shop.orders set bought_at = now() - interval '1 minute'"
            " * mod(substr(order_id, 3)::integer * 7919, 2000)"
        )

        def away(_: bytes) -> Answer:
            raise NoAnswerError("Connection refused.", body_left=False)

        bench.deliver_each(shop.slices(rows_per_slice=2_000), post=away)
        assert bench.states() == {"pending": 2_000}
        return shop

    def test_no_more_requests_are_out_than_were_allowed(
        self, bench: Bench, shop: Shop
    ) -> None:
        out: list[int] = [0]
        most = 0
        lock = threading.Lock()

        def post(body: bytes) -> Answer:
            nonlocal most
            with lock:
                out[0] += 1
                most = max(most, out[0])
            try:
                time.sleep(0.01)
                return bench.post(body)
            finally:
                with lock:
                    out[0] -= 1

        tally = bench.deliver_each(shop.due(), post=post)

        assert as_counted(tally) == {"accepted": 2_000}
        assert most == 3
        nothing_twice(bench)

    def test_the_oldest_go_out_first(self, bench: Bench, shop: Shop) -> None:
        tally = bench.deliver_each(shop.due(limit=500))

        assert as_counted(tally) == {"accepted": 500}
        [(youngest_sent, oldest_left)] = bench.sql(
            "select min(event_time) filter (where state = 'pending'),"
            " max(event_time) filter (where state = 'accepted') from capi.deliveries"
        )
        assert youngest_sent > oldest_left

    def test_what_is_in_doubt_goes_before_what_merely_waits(
        self, bench: Bench, shop: Shop
    ) -> None:
        """Its window is the shorter one: hours, where Meta takes an event for days."""
        bench.simulator.faults.add(
            Fault(kind=FaultKind.STATUS, status=500, processed=True, count=4)
        )
        bench.deliver(bench.rows(5_000))
        shop.add([5_000])
        bench.pass_time(61)
        keys = bench.ledger.due_keys(bench.feed.feed, DATASET, bench.policy, limit=1)
        assert keys == ["o-5000"]
