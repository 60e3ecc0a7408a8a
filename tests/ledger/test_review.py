"""Does the promise hold in the corners: lost commits, sleepers, signals, late answers?

Each class names the accident; its docstring says what would happen.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from tests.conftest import Database
from tests.ledger.conftest import DATASET, HOUR, Bench

from graph_simulator import Fault, FaultKind
from meta_capi.desk import Desk
from meta_capi.dispatch import Patience, Tally
from meta_capi.errors import LeaseLostError, NoAnswerError, StoppedError
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State
from meta_capi.payload import Batch
from meta_capi.verdict import Answer, Receipt

Cursor = psycopg.Cursor[dict[str, Any]]
REFUSAL = b'{"error":{"code":100,"error_subcode":2804019}}'


def refuse(bench: Bench, *numbers: int) -> None:
    bench.simulator.faults.add(
        Fault(
            kind=FaultKind.REFUSE_IF,
            count=None,
            event_ids=bench.event_ids(*numbers),
            subcode=2804019,
        )
    )


def as_counted(tally: Tally) -> dict[str, int]:
    assert tally.settled == tally.rows, "a row has no outcome, or two"
    return {state: count for state, count in tally.outcomes.items() if count}


def claim(bench: Bench, desk: Desk, *numbers: int) -> list[Batch]:
    built = bench.builder().build(
        bench.rows(*numbers), int(datetime.now(UTC).timestamp())
    )
    return desk.claim(built, most_events=1_000, most_bytes=4_000_000).batches


class Forgetful(Ledger):
    """A ledger whose line breaks after one COMMIT: it stands, and nobody hears of it."""

    commits = 0
    forgotten: int | None = None

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Yield a cursor; lose the answer to the chosen commit."""
        with super().transaction() as cursor:
            yield cursor
        self.commits += 1
        if self.commits == self.forgotten:
            raise psycopg.OperationalError("the connection is lost")


class TestALostCommit:
    """PostgreSQL committed, and the answer never came: 1 of 92 in our study's restarts.

    Asked again, a step that already stands must not be made twice, nor be counted twice
    or not at all.
    """

    @pytest.fixture
    def forgetful(self, bench: Bench) -> Forgetful:
        bench.ledger = Forgetful(bench.ledger._engine, patience=3)
        return bench.ledger

    @pytest.mark.matrix("D2")
    def test_whichever_commit_is_lost_the_tally_is_the_ledgers(
        self, bench: Bench, forgetful: Forgetful
    ) -> None:
        bench.tune(requests_in_flight=1, events_per_request=4)
        bench.patience = Patience(first_pause=0.0, tries=1)
        seen = 0
        for nth in range(1, 40):
            numbers = range(nth * 100, nth * 100 + 12)
            refuse(bench, numbers[1])
            rows = bench.rows(*numbers)
            rows["consent"][11] = None
            forgetful.commits, forgetful.forgotten = 0, nth

            tally = bench.deliver(rows)

            assert as_counted(tally) == {"accepted": 10, "refused": 1, "withheld": 1}, (
                f"commit {nth}"
            )
            seen = forgetful.commits
            if seen < nth:
                break
        assert seen < 40, "the loop did not come to the last commit"
        assert set(bench.receipts().values()) == {1}

    def test_what_was_given_back_is_counted(
        self, bench: Bench, forgetful: Forgetful
    ) -> None:
        bench.tune(requests_in_flight=1, events_per_request=2)
        for nth in range(4, 12):
            bench.simulator.faults.clear()
            bench.simulator.faults.add(
                Fault(kind=FaultKind.THROTTLE, count=1, wait_minutes=60)
            )
            forgetful.commits, forgetful.forgotten = 0, nth

            tally = bench.deliver(bench.rows(*range(nth * 100, nth * 100 + 8)))

            assert as_counted(tally) == {"pending": 8}, f"commit {nth}"

    def test_a_replay_knows_what_it_put_back(
        self, bench: Bench, forgetful: Forgetful
    ) -> None:
        bench.deliver(bench.rows(1, 2, amount="-1"))
        run = bench.run()
        forgetful.commits, forgetful.forgotten = 0, 1

        keys = bench.ledger.replay(run, everything("quarantined"))

        assert sorted(keys) == ["o-1", "o-2"]


def everything(*states: str) -> dict[str, Any]:
    return {
        "states": list(states),
        "reason": None,
        "keys": None,
        "start": None,
        "end": None,
    }


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


class Terminated(BaseException):
    """As Airflow's AirflowTaskTimeout: raised by a signal, anywhere in the main thread."""


class TestASignal:
    """Airflow's time-outs break into whatever statement is running."""

    def test_a_signal_in_the_middle_of_a_statement_ends_the_step(
        self, bench: Bench
    ) -> None:
        def interrupt(_: int, __: FrameType | None) -> None:
            raise Terminated

        tries = 0

        def step(cursor: Cursor) -> None:
            nonlocal tries
            tries += 1
            cursor.execute("select pg_sleep(1.5)")

        before = signal.signal(signal.SIGUSR1, interrupt)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        try:
            with pytest.raises(Terminated):
                bench.ledger.attempt(step)
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)
        assert tries == 1

    def test_it_is_not_hidden_by_what_the_driver_says_of_it(self, bench: Bench) -> None:
        def step(_: Cursor) -> None:
            try:
                raise Terminated
            finally:
                raise psycopg.ProgrammingError

        with pytest.raises(Terminated):
            bench.ledger.attempt(step)

    def test_who_tidies_up_after_it_still_waits_for_the_database(
        self, bench: Bench
    ) -> None:
        tries = 0

        def step(cursor: Cursor) -> int:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise psycopg.OperationalError
            return tries

        try:
            raise Terminated
        except Terminated:
            assert bench.ledger.attempt(step) == 2

    def test_the_connection_it_broke_is_not_used_again(self, bench: Bench) -> None:
        def step(cursor: Cursor) -> None:
            cursor.connection.pgconn.send_query(b"select pg_sleep(0.2)")
            raise Terminated

        with pytest.raises(Terminated):
            bench.ledger.attempt(step)

        assert bench.ledger.clock() > datetime.now(UTC) - timedelta(minutes=1)


class TestAnAbsentDatabase:
    def test_a_full_pool_is_waited_for(self, database: Database, bench: Bench) -> None:
        engine = create_engine(
            database.url, pool_size=1, max_overflow=0, pool_timeout=0.1
        )
        ledger = Ledger(engine, patience=5)
        with ThreadPoolExecutor(1) as pool, ledger.transaction():
            asked = pool.submit(ledger.clock)
            time.sleep(0.5)
        assert asked.result(5) > datetime.now(UTC) - timedelta(minutes=1)
        engine.dispose()

    @pytest.mark.matrix("D7")
    def test_metas_yes_is_held_as_long_as_the_lease(self, bench: Bench) -> None:
        """A failover of the ledger's database takes longer than its patience."""

        class Away(Ledger):
            until = 0.0

            @contextmanager
            def transaction(self) -> Iterator[Cursor]:
                if time.monotonic() < self.until:
                    raise psycopg.OperationalError("the server is starting up")
                with super().transaction() as cursor:
                    yield cursor

        ledger = bench.ledger = Away(bench.ledger._engine, patience=0.5)

        def answer_and_lose_the_ledger(body: bytes) -> Answer:
            ledger.until = time.monotonic() + 1.5
            return bench.post(body)

        tally = bench.deliver(bench.rows(1), post=answer_and_lose_the_ledger)

        assert as_counted(tally) == {"accepted": 1}


class TestTwoGates:
    """Overlapping runs of a feed, each with a gate of its own, on the same bad row."""

    def gate(self, bench: Bench, *keys: str) -> int:
        run = bench.run()
        number = bench.ledger.open_validation(run, "suite")
        bad = [(key, "gate.failed") for key in keys]
        bench.ledger.quarantine(run, number, bad, datetime.now(UTC))
        return number

    def test_an_earlier_gates_run_does_not_send_what_a_later_gate_held(
        self, bench: Bench
    ) -> None:
        earlier, later = self.gate(bench, "o-1"), self.gate(bench, "o-1")
        rows = bench.rows(1, 2)

        for number in (earlier, later):
            tally = bench.deliver(rows, desk=bench.desk(validation_id=number))
            assert as_counted(tally) == {"accepted": 1, "quarantined": 1}

        passed = self.gate(bench)
        tally = bench.deliver(rows, desk=bench.desk(validation_id=passed))
        assert as_counted(tally) == {"accepted": 2}

    def test_nobody_without_a_gate_sends_what_a_gate_held(self, bench: Bench) -> None:
        """As tend_deliveries, whose key was due before the gate looked at the row."""
        self.gate(bench, "o-1")

        tally = bench.deliver(bench.rows(1))

        assert as_counted(tally) == {"quarantined": 1}

    def test_a_person_may_put_it_back(self, bench: Bench) -> None:
        self.gate(bench, "o-1")
        bench.ledger.replay(bench.run(), everything("quarantined"))

        assert as_counted(bench.deliver(bench.rows(1))) == {"accepted": 1}

    def test_a_limit_does_not_let_out_what_a_gate_held(self, bench: Bench) -> None:
        earlier, _ = self.gate(bench), self.gate(bench, "o-2")

        tally = bench.deliver(
            bench.rows(1, 2), desk=bench.desk(validation_id=earlier), limit=1
        )

        assert as_counted(tally) == {"accepted": 1, "quarantined": 1}
        assert bench.states() == {"accepted": 1, "quarantined": 1}


class TestADoubtIsNotForgotten:
    """An event that may be at Meta goes out again inside the window, or not at all."""

    def lose_the_first_answer(self, bench: Bench) -> Callable[[bytes], Answer]:
        """Have Meta take the first request without an answer, and refuse all others."""
        asked = 0

        def post(body: bytes) -> Answer:
            nonlocal asked
            asked += 1
            if asked == 1:
                bench.post(body)
                raise NoAnswerError("No answer came.", body_left=True)
            return Answer(400, {}, REFUSAL)

        return post

    def test_by_a_batch_given_up(self, bench: Bench) -> None:
        bench.tune(requests_in_flight=1, requests_per_split=2)
        rows = bench.rows(*range(8))
        bench.deliver(rows, post=self.lose_the_first_answer(bench))
        assert bench.states() == {"in_doubt": 8}

        bench.pass_time(48 * HOUR)
        again = bench.deliver(rows)

        assert again.requests == 0
        assert set(bench.receipts().values()) == {1}

    def test_by_a_refusal_and_a_changed_row(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1), post=self.lose_the_first_answer(bench))
        assert bench.states() == {"refused": 1}

        bench.pass_time(48 * HOUR)
        again = bench.deliver(bench.rows(1, amount="13.00"))

        assert again.requests == 0
        assert set(bench.receipts().values()) == {1}

    @pytest.mark.matrix("T3")
    def test_by_a_long_wait_between_claim_and_request(self, bench: Bench) -> None:
        """A queue, throttles: the window may close over a claimed batch."""
        bench.patience = Patience(first_pause=0.0, tries=1, doubt_pause=0.0)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.HANG_UP_AFTER_READING, processed=True, count=1)
        )
        rows = bench.rows(1, 2)
        bench.deliver(rows)
        bench.pass_time(46 * HOUR)
        desk = bench.desk(lease_seconds=100 * HOUR)
        rows = bench.rows(1, 2, 3)

        def wait_long(step: str) -> None:
            if step == "after_claim":
                bench.pass_time(47 * HOUR + 1)

        tally = bench.deliver(rows, desk=desk, probe=wait_long)

        assert as_counted(tally) == {"in_doubt": 2, "accepted": 1}
        assert tally.requests == 1  # for the new row alone
        assert as_counted(bench.deliver(rows)) == {"in_doubt": 2, "accepted": 1}

    def test_by_halting_before_the_next_try(self, bench: Bench) -> None:
        """Two threads: one waits to ask again, the other meets a long throttle."""
        bench.tune(requests_in_flight=2, events_per_request=2)
        throttled, asked = threading.Event(), threading.Event()

        def post(body: bytes) -> Answer:
            if b'"' + next(iter(bench.event_ids(0))).encode() + b'"' in body:
                asked.set()
                assert throttled.wait(10)
                time.sleep(0.3)
                raise NoAnswerError("No answer came.", body_left=True)
            assert asked.wait(10)
            throttled.set()
            headers = {"Retry-After": "3600"}
            return Answer(429, headers, b"{}")

        tally = bench.deliver(bench.rows(0, 1, 2, 3), post=post)

        assert as_counted(tally) == {"in_doubt": 2, "pending": 2}
        assert bench.reasons() == {"answer.unclear": 2, "throttled": 2}


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

        assert len(read) <= 2


class TestLimits:
    def test_each_limited_run_sends_so_many_more(self, bench: Bench) -> None:
        rows = bench.rows(*range(10))

        tallies = [bench.deliver(rows, limit=4) for _ in range(3)]

        assert [tally.accepted_now for tally in tallies] == [4, 4, 2]
        assert all(tally.settled == tally.rows for tally in tallies)

    def test_what_a_person_held_back_is_not_due(self, bench: Bench) -> None:
        """A try with five events is no order to send the rest ten minutes later."""
        bench.deliver(bench.rows(*range(10)), limit=5)

        assert bench.ledger.due_keys(
            bench.feed.feed, DATASET, bench.policy, limit=100
        ) == []  # fmt: skip
        assert as_counted(bench.deliver(bench.rows(*range(10)))) == {"accepted": 10}

    def test_a_doubt_beyond_the_limit_stays_a_doubt(self, bench: Bench) -> None:
        bench.patience = Patience(first_pause=0.0, tries=1, doubt_pause=0.0)
        bench.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=500, count=1))
        bench.deliver(bench.rows(1, 2))

        tally = bench.deliver(bench.rows(0, 1, 2), limit=1)

        assert as_counted(tally) == {"accepted": 1, "in_doubt": 2}
        assert bench.states() == {"accepted": 1, "in_doubt": 2}


class TestReplays:
    def test_a_row_that_no_key_can_find_is_not_put_back(self, bench: Bench) -> None:
        """It would be pending for ever: nobody can read it again."""
        rows = bench.rows(1, 1, 2, 3)
        rows["order_id"][2:] = [None, "k" * 200]
        bench.deliver(rows)
        assert bench.states() == {"quarantined": 4}

        keys = bench.ledger.replay(bench.run(), everything("quarantined"))

        assert keys == ["o-1"]
        assert bench.states() == {"quarantined": 3, "pending": 1}
        counted = bench.ledger.count_replay(bench.run(), everything("quarantined"))
        assert counted == []

    def test_a_replayed_row_that_is_gone_expires(self, bench: Bench) -> None:
        """What the gate held has no event time in the ledger."""
        run = bench.run()
        number = bench.ledger.open_validation(run, "suite")
        long_ago = datetime.now(UTC) - timedelta(days=70)
        bench.ledger.quarantine(run, number, [("gone", "gate.failed")], long_ago)
        bench.ledger.replay(run, everything("quarantined"))
        assert bench.states() == {"pending": 1}

        oldest = datetime.now(UTC) - timedelta(days=62)
        assert bench.ledger.expire(bench.feed.feed, DATASET, oldest) == 1


class TestANoToEverything:
    def test_a_finger_that_points_at_the_first_event_each_time_hides_nothing(
        self, bench: Bench
    ) -> None:
        """2804019 carries a path; a mapping that is wrong for all rows is not one row's
        fault."""
        bench.tune(requests_in_flight=1)
        asked = 0

        def point_at_the_first(_: bytes) -> Answer:
            nonlocal asked
            asked += 1
            message = "Invalid parameter at $['data'][0]['custom_data']"
            error = {"code": 100, "error_subcode": 2804019, "message": message}
            return Answer(400, {}, json.dumps({"error": error}).encode())

        with pytest.raises(StoppedError, match="not one bad event"):
            bench.deliver(bench.rows(*range(1_000)), post=point_at_the_first)

        assert asked <= 12
        assert bench.states() == {"pending": 999, "refused": 1}

    @pytest.mark.parametrize("count", [4, 9, 50])
    def test_of_a_few_left_over_the_innocent_go_out_whoever_stands_beside_them(
        self, bench: Bench, count: int
    ) -> None:
        """After a death, what is left may be guilty for the most part."""
        bench.tune(requests_in_flight=1)
        innocent = bench.event_ids(count // 2)
        asked = 0

        def take_one(body: bytes) -> Answer:
            nonlocal asked
            asked += 1
            ids = {each["event_id"] for each in json.loads(body)["data"]}
            if ids == innocent:
                return Answer(200, {}, b'{"events_received":1}')
            return Answer(400, {}, REFUSAL)

        bench.deliver(bench.rows(*range(count)), post=take_one)

        assert bench.states() == {"accepted": 1, "refused": count - 1}
        assert asked <= 128

    def test_of_a_few_that_are_all_refused_nobody_is_blamed(self, bench: Bench) -> None:
        with pytest.raises(StoppedError, match="not one bad event"):
            bench.deliver(
                bench.rows(*range(9)), post=lambda _: Answer(400, {}, REFUSAL)
            )

        assert bench.states() == {"pending": 9}


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
