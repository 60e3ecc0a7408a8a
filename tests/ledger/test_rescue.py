"""A worker that sleeps, while its desk is cleared, or wakes up afterwards."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.ledger.conftest import Bench
from tests.ledger.scenes import REFUSAL, Cursor, as_counted

from meta_capi.desk import Desk
from meta_capi.errors import LeaseLostError
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State
from meta_capi.payload import Batch
from meta_capi.verdict import Answer, Receipt


def claim(bench: Bench, desk: Desk, *numbers: int) -> list[Batch]:
    built = bench.builder().build(
        bench.rows(*numbers), int(datetime.now(UTC).timestamp())
    )
    return desk.claim(built, most_events=1_000, most_bytes=4_000_000).batches


class Hesitant(Ledger):
    """A ledger whose next step waits before its COMMIT, as a process that is stopped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.armed = False
        self.waiting, self.go_on = threading.Event(), threading.Event()

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Yield a cursor; wait before the commit, once."""
        with super().transaction() as cursor:
            yield cursor
            if self.armed:
                self.armed = False
                self.waiting.set()
                assert self.go_on.wait(20)


class TestAStepBesideARescue:
    """A worker sleeps in the middle of a step, while its desk is cleared.

    What it then commits must not stand on a desk that nobody will clear again.
    """

    @pytest.fixture
    def hesitant(self, bench: Bench) -> Hesitant:
        return Hesitant(bench.ledger._engine, patience=3)

    def desk(self, bench: Bench, hesitant: Hesitant) -> Desk:
        return Desk(
            hesitant, bench.run(), policy=bench.policy, host="test", pid=os.getpid()
        ).arrive()

    def during(
        self, hesitant: Hesitant, step: Callable[[], Any], meanwhile: Callable[[], Any]
    ) -> list[BaseException | None]:
        """Run a step up to its commit; then another; return how both ended."""
        hesitant.armed = True
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(step)
            assert hesitant.waiting.wait(20)
            second = pool.submit(meanwhile)
            time.sleep(0.3)
            hesitant.go_on.set()
            return [first.exception(20), second.exception(20)]

    def test_a_claim_beside_a_rescue_stays_on_no_dead_desk(
        self, bench: Bench, hesitant: Hesitant
    ) -> None:
        desk = self.desk(bench, hesitant)

        def rescue() -> None:
            bench.pass_time(181)
            bench.ledger.rescue()

        self.during(hesitant, lambda: claim(bench, desk, 1, 2), rescue)
        # The process is killed here.
        bench.pass_time(181 * 2)
        bench.ledger.rescue()

        assert bench.states() == {"pending": 2}

    def test_a_worker_told_to_end_while_it_arrives_sits_at_no_desk(
        self, bench: Bench, hesitant: Hesitant
    ) -> None:
        """Its line was cut, and the COMMIT of its arrival is still at work."""
        desk = Desk(
            hesitant, bench.run(), policy=bench.policy, host="test", pid=os.getpid()
        )

        ends = self.during(hesitant, desk.arrive, desk.leave)

        assert ends == [None, None]
        assert bench.sql("select ended_how from capi.workers") == [("finished",)]

    def test_a_request_begun_while_its_worker_leaves_is_in_doubt_or_not_begun(
        self, bench: Bench, hesitant: Hesitant
    ) -> None:
        desk = self.desk(bench, hesitant)
        [batch] = claim(bench, desk, 1, 2)

        ends = self.during(hesitant, lambda: desk.begin(batch), desk.leave)

        assert ends == [None, None]
        assert bench.states() == {"in_doubt": 2}
        assert bench.sql("select outcome::text from capi.attempts") == [("unknown",)]
        with pytest.raises(LeaseLostError, match="rescued"):
            settle_accepted(desk, batch)
        assert bench.states() == {"accepted": 2}

    def test_a_sleeper_does_not_hold_up_the_rescue_of_others(
        self, bench: Bench, hesitant: Hesitant
    ) -> None:
        sleeper, dead = self.desk(bench, hesitant), bench.desk()
        [batch] = claim(bench, sleeper, 1)
        claim(bench, dead, 2)
        bench.pass_time(100)
        rescued: list[int] = []

        def rescue() -> None:
            bench.pass_time(181)
            rescued.append(bench.ledger.rescue().pending)
            assert not hesitant.go_on.is_set(), "the rescue waited for the sleeper"

        ends = self.during(hesitant, lambda: sleeper.begin(batch), rescue)

        assert ends == [None, None]
        assert rescued == [1]

    def test_nobody_may_sleep_in_a_step_for_ever(self, bench: Bench) -> None:
        with bench.ledger.transaction() as cursor:
            cursor.execute(
                "select name from pg_settings where setting <> '0' and name in"
                " ('idle_in_transaction_session_timeout', 'lock_timeout')"
            )
            assert len(cursor.fetchall()) == 2


def settle_accepted(desk: Desk, batch: Batch) -> None:
    desk.settle(
        batch, 1, outcome="accepted", receipt=Receipt(http_status=200),
        batch_state="accepted", delivery_state=State.ACCEPTED,
    )  # fmt: skip


class TestAWorkerThatStoodStill:
    """Stopped, swapped out, its machine suspended: for an hour, or for three days."""

    def test_it_sends_nothing_that_it_had_begun_long_ago(self, bench: Bench) -> None:
        clock = [time.time()]

        def stand_still(step: str) -> None:
            if step == "after_begin":
                clock[0] += 31

        tally = bench.deliver(bench.rows(1, 2), now=lambda: clock[0], probe=stand_still)

        assert as_counted(tally) == {"pending": 2}
        assert bench.reasons() == {"not_sent": 2}
        assert bench.receipts() == Counter()

    def test_after_its_lease_it_reads_no_more(self, bench: Bench) -> None:
        desk = bench.desk()
        read: list[int] = []

        def slices() -> Iterator[dict[str, list[Any]]]:
            for number in range(9):
                read.append(number)
                yield bench.rows(number)
                time.sleep(0.2)

        def stand_still(step: str) -> None:
            if step == "after_claim":
                bench.pass_time(181)
                bench.ledger.rescue()

        with pytest.raises(LeaseLostError):
            bench.deliver_each(slices(), desk=desk, probe=stand_still)

        assert len(read) <= 5, (
            "one is in hand, two are claimed, one is ahead, one begun"
        )


def test_every_attempt_without_an_answer_belongs_to_a_desk_that_is_taken(
    bench: Bench,
) -> None:
    """After a refusal came for a rescued batch, its attempt and its batch agree."""
    desk = bench.desk()

    def sleep_through_the_lease(_: bytes) -> Answer:
        bench.pass_time(181)
        bench.ledger.rescue()
        return Answer(400, {}, REFUSAL)

    with pytest.raises(LeaseLostError):
        bench.deliver(bench.rows(1), desk=desk, post=sleep_through_the_lease)

    assert Counter(bench.sql("select outcome::text from capi.attempts")) == {
        ("unknown",): 1
    }
