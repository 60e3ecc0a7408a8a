"""An event that may be at Meta: what a person says of it, and what nobody may forget."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from tests.ledger.conftest import DATASET, HOUR, Bench
from tests.ledger.scenes import ACT, REFUSAL, as_counted, doubtful

from graph_simulator import Fault, FaultKind
from meta_capi import insight
from meta_capi.dispatch import Patience
from meta_capi.errors import ConfigurationError, NoAnswerError
from meta_capi.people import Word, settle
from meta_capi.verdict import Answer


class TestDoubts:
    def test_received_is_accepted_for_ever(self, bench: Bench) -> None:
        doubtful(bench, 1, 2)

        done = settle(bench.ledger, bench.feed.feed, ["o-1"], Word.RECEIVED, ACT)

        assert (done.settled, done.others) == (1, Counter())
        assert bench.states() == {"accepted": 1, "in_doubt": 1}
        assert bench.reasons()["person.received"] == 1
        assert bench.deliver(bench.rows(1)).requests == 0
        again = settle(bench.ledger, bench.feed.feed, ["o-1"], Word.NOT_RECEIVED, ACT)
        assert again == (0, Counter(accepted=1))

    def test_not_received_is_owed_again_and_goes_out(self, bench: Bench) -> None:
        doubtful(bench, 1)
        bench.pass_time(60 * HOUR)
        assert bench.deliver(bench.rows(1)).requests == 0

        settle(bench.ledger, bench.feed.feed, ["o-1"], Word.NOT_RECEIVED, ACT)

        assert bench.sql(
            "select state::text, reason, doubt_since from capi.deliveries"
        ) == [("pending", "person.not_received", None)]
        assert bench.deliver(bench.rows(1)).accepted_now == 1

    def test_what_is_given_up_stays_in_doubt_and_is_never_sent(
        self, bench: Bench
    ) -> None:
        doubtful(bench, 1)

        settle(bench.ledger, bench.feed.feed, ["o-1"], Word.GIVE_UP, ACT)

        bench.pass_time(120)
        for rows in (bench.rows(1), bench.rows(1, amount="99"), bench.rows(1)):
            assert bench.deliver(rows).requests == 0
        bench.ledger.close_doubt(bench.feed.feed, DATASET, bench.policy)
        keys = bench.ledger.due_keys(bench.feed.feed, DATASET, bench.policy, limit=9)
        assert keys == []
        assert bench.reasons() == {"doubt.given_up": 1}
        [standing] = insight.status(bench.ledger)
        assert (standing.in_doubt, standing.open_doubts) == (1, 0)
        # A person may think better of it.
        settle(bench.ledger, bench.feed.feed, ["o-1"], Word.RECEIVED, ACT)
        assert bench.states() == {"accepted": 1}

    def test_each_word_is_written_down(self, bench: Bench) -> None:
        doubtful(bench, 1, 2, 3)
        for number, word in enumerate(Word, start=1):
            settle(bench.ledger, bench.feed.feed, [f"o-{number}"], word, ACT)

        query = (
            "select kind, deliveries, detail ->> 'as' from capi.acts order by act_no"
        )
        assert bench.sql(query) == [("settle", 1, str(word)) for word in Word]

    def test_in_several_datasets_one_must_be_named(self, bench: Bench) -> None:
        doubtful(bench, 1)
        other = "9876543210987654"
        bench.sql(
            "insert into capi.runs (run_id, feed, dataset_id, mode) values"
            " ('other', 'store_orders', %s, 'send')",
            other,
        )
        bench.sql(
            "insert into capi.deliveries (dataset_id, feed, source_key, state, reason,"
            " cursor_at, run_no, doubt_since) values (%s, 'store_orders', 'o-1',"
            " 'in_doubt', 'answer.none', now(), 1, now())",
            other,
        )
        feed = bench.feed.feed
        with pytest.raises(ConfigurationError, match="2 datasets; name one"):
            settle(bench.ledger, feed, ["o-1"], Word.RECEIVED, ACT)
        assert bench.states() == {"in_doubt": 2}

        settle(bench.ledger, feed, ["o-1"], Word.RECEIVED, ACT, dataset_id=other)

        query = "select dataset_id from capi.deliveries where state = 'accepted'"
        assert bench.sql(query) == [(other,)]


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
