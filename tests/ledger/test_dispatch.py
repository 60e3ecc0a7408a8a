"""Does the promise hold, when Meta, the line or the worker misbehaves?"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter

import pytest
from tests.ledger.conftest import DATASET, HOUR, Bench
from tests.ledger.scenes import as_counted, refuse

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Patience, Tally
from meta_capi.errors import (
    LeaseLostError,
    NoAnswerError,
    StoppedError,
)
from meta_capi.ledger import ResendPolicy
from meta_capi.verdict import Answer


class TestDelivering:
    def test_what_meta_took_is_what_the_ledger_says(self, bench: Bench) -> None:
        tally = bench.deliver(bench.rows(*range(2_500)))

        assert as_counted(tally) == {"accepted": 2_500}
        assert tally.requests == 3
        assert bench.states() == {"accepted": 2_500}
        assert bench.receipts() == Counter(bench.event_ids(*range(2_500)))

    def test_a_second_run_sends_nothing(self, bench: Bench) -> None:
        rows = bench.rows(*range(1_200))
        bench.deliver(rows)

        again = bench.deliver(rows)

        assert as_counted(again) == {"accepted": 1_200}
        assert (again.requests, again.accepted_now) == (0, 0)

    @pytest.mark.matrix("C1")
    def test_two_workers_on_the_same_rows_send_each_conversion_once(
        self, bench: Bench
    ) -> None:
        bench.tune(rows_per_slice=200)
        slices = [
            bench.rows(*range(start, start + 200)) for start in range(0, 3_000, 200)
        ]
        tallies: list[Tally] = []
        workers = [
            threading.Thread(target=lambda: tallies.append(bench.deliver(*slices)))
            for _ in range(4)
        ]

        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

        assert len(tallies) == 4
        assert bench.states() == {"accepted": 3_000}
        assert set(bench.receipts().values()) == {1}
        assert sum(tally.accepted_now for tally in tallies) == 3_000

    def test_a_limit_leaves_the_rest_pending(self, bench: Bench) -> None:
        tally = bench.deliver(
            bench.rows(*range(50)), bench.rows(*range(50, 100)), limit=60
        )

        assert as_counted(tally) == {"accepted": 60, "pending": 40}
        assert bench.reasons() == {"limit": 40}
        assert as_counted(bench.deliver(bench.rows(*range(100)))) == {"accepted": 100}


class TestRefusals:
    """ "One invalid event rejects the whole request": the guilty must be found."""

    @pytest.mark.parametrize("guilty", [0, 1, 499, 500, 998, 999])
    @pytest.mark.matrix("H15")
    def test_one_refused_event_of_a_thousand_is_found(
        self, bench: Bench, guilty: int
    ) -> None:
        refuse(bench, guilty)

        tally = bench.deliver(bench.rows(*range(1_000)))

        assert as_counted(tally) == {"accepted": 999, "refused": 1}
        assert bench.sql(
            "select source_key, reason from capi.deliveries where state = 'refused'"
        ) == [(f"o-{guilty}", "meta.100.2804019")]
        assert tally.requests <= 21
        assert set(bench.receipts().values()) == {1}

    def test_the_refused_event_has_its_own_answer(self, bench: Bench) -> None:
        refuse(bench, 7)

        bench.deliver(bench.rows(*range(64)))

        [(events, code, subcode, trace)] = bench.sql("""
            select b.events, a.code, a.subcode, a.fbtrace_id
            from capi.deliveries d join capi.batches b using (batch_id)
            join capi.attempts a using (batch_id) where d.state = 'refused'
        """)
        assert (events, code, subcode) == (1, 100, 2804019)
        assert trace

    @pytest.mark.matrix("H15")
    def test_many_refused_events_are_all_found(self, bench: Bench) -> None:
        guilty = range(0, 1_000, 100)
        refuse(bench, *guilty)

        tally = bench.deliver(bench.rows(*range(1_000)))

        assert as_counted(tally) == {"accepted": 990, "refused": 10}
        assert tally.requests <= bench.feed.limits.requests_per_split

    def test_a_batch_with_too_many_refused_is_given_up_within_its_budget(
        self, bench: Bench
    ) -> None:
        bench.tune(requests_per_split=20)
        refuse(bench, *range(0, 1_000, 7))

        tally = bench.deliver(bench.rows(*range(1_000)))

        assert tally.requests == 20
        assert as_counted(tally)["quarantined"] == bench.reasons()["split.budget"]
        assert tally.settled == 1_000

    def test_what_a_halted_worker_does_not_ask_costs_nothing_of_the_budget(
        self, bench: Bench
    ) -> None:
        bench.tune(requests_per_split=8, requests_in_flight=1)
        refuse(bench, *range(0, 1_000, 7))
        bench.simulator.faults.add(
            Fault(kind=FaultKind.THROTTLE, nth=6, count=None, wait_minutes=120)
        )

        tally = bench.deliver(bench.rows(*range(1_000)))

        assert tally.requests == 6
        assert bench.states() == {"pending": 1_000}

    @pytest.mark.matrix("H17")
    def test_a_no_to_everything_stops_after_eleven_requests_and_blames_nobody(
        self, bench: Bench
    ) -> None:
        refuse(bench, *range(1_000))

        with pytest.raises(StoppedError, match="not one bad event"):
            bench.deliver(bench.rows(*range(1_000)))

        assert bench.states() == {"pending": 1_000}
        assert bench.sql("select count(*) from capi.attempts") == [(11,)]

    def test_an_unchanged_refused_row_is_not_sent_again(self, bench: Bench) -> None:
        refuse(bench, 3)
        rows = bench.rows(*range(10))
        bench.deliver(rows)

        again = bench.deliver(rows)

        assert again.requests == 0
        assert as_counted(again) == {"accepted": 9, "refused": 1}

    def test_a_corrected_refused_row_is_sent(self, bench: Bench) -> None:
        refuse(bench, 3)
        rows = bench.rows(*range(10))
        bench.deliver(rows)
        bench.simulator.faults.clear()
        rows["amount"][3] = "13.00"

        again = bench.deliver(rows)

        assert as_counted(again) == {"accepted": 10}
        assert again.accepted_now == 1


class TestHeldRows:
    def test_a_mended_row_goes_out_with_the_next_run(self, bench: Bench) -> None:
        rows = bench.rows(*range(4))
        rows["amount"][0] = "-1"
        rows["consent"][1] = None
        rows["email"][2] = "nobody"
        first = bench.deliver(rows)
        assert as_counted(first) == {"accepted": 1, "quarantined": 1, "withheld": 2}
        assert bench.reasons() == {
            "value.negative": 1, "consent.not_given": 1, "match_keys.none": 1,
        }  # fmt: skip

        second = bench.deliver(bench.rows(*range(4)))

        assert as_counted(second) == {"accepted": 4}
        assert second.accepted_now == 3

    def test_an_accepted_row_that_turns_bad_stays_accepted(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1))

        tally = bench.deliver(bench.rows(1, amount="-1"))

        assert as_counted(tally) == {"accepted": 1}

    @pytest.mark.matrix("C5")
    def test_a_change_after_acceptance_is_noted_and_not_sent(
        self, bench: Bench
    ) -> None:
        bench.deliver(bench.rows(1, 2))
        changed = bench.rows(1, 2)
        changed["amount"][0] = "99.00"

        tally = bench.deliver(changed)

        assert tally.requests == 0
        assert bench.sql(
            "select source_key from capi.deliveries where changed_after_send"
        ) == [("o-1",)]

    def test_what_the_gate_quarantined_is_not_sent_by_its_run(
        self, bench: Bench
    ) -> None:
        run = bench.run()
        rows = bench.rows(1, 2)
        number = bench.ledger.open_validation(run, "suite")
        bench.ledger.quarantine(
            run, number, [("o-1", "gate.failed")], rows["loaded_at"][0]
        )

        first = bench.deliver(rows, desk=bench.desk(run, validation_id=number))
        number = bench.ledger.open_validation(run, "suite")
        later = bench.deliver(rows, desk=bench.desk(run, validation_id=number))

        assert as_counted(first) == {"accepted": 1, "quarantined": 1}
        assert as_counted(later) == {"accepted": 2}

    def test_a_run_respects_what_the_gate_of_an_overlapping_run_quarantined(
        self, bench: Bench
    ) -> None:
        rows = bench.rows(1)
        early, late = bench.run(), bench.run()
        first = bench.ledger.open_validation(early, "suite")
        second = bench.ledger.open_validation(late, "suite")
        at = rows["loaded_at"][0]
        bench.ledger.quarantine(late, second, [("o-1", "gate.failed")], at)
        bench.ledger.quarantine(early, first, [("o-1", "gate.failed")], at)

        for run, number in ((early, first), (late, second)):
            tally = bench.deliver(rows, desk=bench.desk(run, validation_id=number))
            assert as_counted(tally) == {"quarantined": 1}
        assert bench.receipts() == Counter()

    def test_one_of_several_rows_with_a_key_is_let_go_by_a_person_only(
        self, bench: Bench
    ) -> None:
        rows = bench.rows(1)
        at = rows["loaded_at"][0]
        wide, narrow = bench.run(), bench.run()
        number = bench.ledger.open_validation(wide, "suite")
        twice = [("o-1", "key.duplicate"), ("o-1", "key.duplicate")]
        bench.ledger.quarantine(wide, number, twice, at)
        later = bench.ledger.open_validation(narrow, "suite")

        tally = bench.deliver(rows, desk=bench.desk(narrow, validation_id=later))
        assert as_counted(tally) == {"quarantined": 1}

        choice = {
            "states": ["quarantined"], "reason": None, "keys": ["o-1"], "start": None,
            "end": None,
        }  # fmt: skip
        bench.ledger.replay(bench.run(), choice)
        assert as_counted(bench.deliver(rows)) == {"accepted": 1}

    @pytest.mark.matrix("S8")
    def test_rows_with_one_key_each_stand_in_the_ledger(self, bench: Bench) -> None:
        tally = bench.deliver(bench.rows(1, 2, 2, 2))

        assert as_counted(tally) == {"accepted": 1, "quarantined": 3}
        assert bench.sql("select count(*) from capi.deliveries") == [(4,)]
        assert bench.reasons() == {"key.duplicate": 3}

    def test_an_event_id_of_another_conversion_is_held(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1, event_id="web-1"))

        tally = bench.deliver(bench.rows(2, event_id="web-1"))

        assert as_counted(tally) == {"quarantined": 1}
        assert bench.reasons() == {"event_id.taken": 1}
        assert set(bench.receipts().values()) == {1}


class TestThrottles:
    @pytest.mark.matrix("H10")
    def test_meta_is_given_the_time_it_asks_for(self, bench: Bench) -> None:
        bench.simulator.faults.add(
            Fault(kind=FaultKind.THROTTLE, count=2, code=80004, wait_minutes=2)
        )

        tally = bench.deliver(bench.rows(*range(5)))

        assert as_counted(tally) == {"accepted": 5}
        assert bench.waits == [120.0, 120.0]

    def test_a_long_wait_is_left_to_a_later_run(self, bench: Bench) -> None:
        bench.tune(requests_in_flight=1)  # else the other slice may be out already
        bench.simulator.faults.add(
            Fault(kind=FaultKind.THROTTLE, count=1, wait_minutes=60)
        )

        tally = bench.deliver(bench.rows(*range(5)), bench.rows(*range(5, 9)))

        assert as_counted(tally) == {"pending": 9}
        assert bench.reasons() == {"throttled": 9}
        assert bench.waits == []
        assert as_counted(bench.deliver(bench.rows(*range(9)))) == {"pending": 9}
        assert not bench.ledger.due_keys(
            bench.feed.feed, DATASET, bench.policy, limit=10
        )
        bench.pass_time(61 * 60)
        assert as_counted(bench.deliver(bench.rows(*range(9)))) == {"accepted": 9}


class TestStops:
    @pytest.mark.matrix("H13")
    def test_a_revoked_token_blames_no_row(self, bench: Bench) -> None:
        bench.tune(requests_in_flight=1)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.TOKEN_REVOKED, nth=2, count=None)
        )
        slices = [bench.rows(*range(start, start + 10)) for start in range(0, 50, 10)]

        with pytest.raises(StoppedError, match="token"):
            bench.deliver(*slices)

        states = bench.states()
        assert states["accepted"] + states["pending"] == 50
        assert set(states) == {"accepted", "pending"}
        assert set(bench.reasons()) == {"stopped"}

    @pytest.mark.matrix("H14")
    def test_a_dataset_nobody_knows_costs_one_request(self, bench: Bench) -> None:
        bench.tune(requests_in_flight=1)
        bench.simulator.faults.add(Fault(kind=FaultKind.DATASET, count=None))

        with pytest.raises(StoppedError, match="dataset"):
            bench.deliver(bench.rows(*range(1_000)))

        assert bench.sql("select count(*) from capi.attempts") == [(1,)]


class TestNoAnswer:
    @pytest.mark.parametrize("processed", [True, False])
    @pytest.mark.matrix("H1", "H2")
    def test_a_lost_answer_is_asked_for_again_with_the_same_event_ids(
        self, bench: Bench, processed: bool
    ) -> None:
        bench.simulator.faults.add(
            Fault(kind=FaultKind.HANG_UP_AFTER_READING, processed=processed)
        )

        tally = bench.deliver(bench.rows(*range(20)))

        assert as_counted(tally) == {"accepted": 20}
        assert bench.simulator.counts(DATASET).processed == 20

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(kind=FaultKind.STATUS, status=500, processed=True, count=None),
            Fault(kind=FaultKind.STATUS, status=503, count=None),
            Fault(kind=FaultKind.HTML, status=200, count=None),
            Fault(kind=FaultKind.TRUNCATED_JSON, count=None),
            Fault(kind=FaultKind.RECEIVED_MISSING, count=None),
            Fault(kind=FaultKind.HANG_UP_AFTER_READING, processed=True, count=None),
        ],
        ids=lambda fault: f"{fault.kind}-{fault.status}",
    )
    @pytest.mark.matrix("H4", "H6", "H7")
    def test_without_a_trustworthy_answer_the_ledger_says_in_doubt(
        self, bench: Bench, fault: Fault
    ) -> None:
        bench.simulator.faults.add(fault)

        tally = bench.deliver(bench.rows(*range(5)))

        assert as_counted(tally) == {"in_doubt": 5}
        assert tally.requests == bench.patience.tries

    @pytest.mark.matrix("H8")
    def test_another_count_than_ours_is_no_acceptance(self, bench: Bench) -> None:
        bench.simulator.faults.add(
            Fault(kind=FaultKind.RECEIVED_OFF_BY, off_by=-1, count=None)
        )

        tally = bench.deliver(bench.rows(*range(5)))

        assert as_counted(tally) == {"in_doubt": 5}
        assert bench.reasons() == {"answer.count": 5}

    def test_a_feed_that_holds_asks_once(self, bench: Bench) -> None:
        bench.policy = ResendPolicy(resend=False, window_seconds=47 * HOUR)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.HANG_UP_AFTER_READING, processed=True)
        )

        tally = bench.deliver(bench.rows(*range(5)))

        assert as_counted(tally) == {"in_doubt": 5}
        assert tally.requests == 1
        assert set(bench.receipts().values()) == {1}

    def test_a_doubt_rests_and_is_then_sent_again(self, bench: Bench) -> None:
        rows = bench.rows(*range(5))
        bench.simulator.faults.add(
            Fault(kind=FaultKind.STATUS, status=500, processed=True, count=4)
        )
        bench.deliver(rows)
        assert as_counted(bench.deliver(rows)) == {"in_doubt": 5}

        bench.pass_time(61)
        tally = bench.deliver(rows)

        assert as_counted(tally) == {"accepted": 5}
        assert bench.sql("select distinct resends from capi.deliveries") == [(1,)]
        assert bench.simulator.counts(DATASET).processed == 5

    @pytest.mark.matrix("T3")
    def test_after_metas_window_a_doubt_is_never_sent_again(self, bench: Bench) -> None:
        rows = bench.rows(*range(5))
        bench.simulator.faults.add(
            Fault(kind=FaultKind.STATUS, status=500, processed=True, count=4)
        )
        bench.deliver(rows)

        bench.pass_time(47 * HOUR + 1)
        tally = bench.deliver(rows)
        bench.ledger.close_doubt(bench.feed.feed, DATASET, bench.policy)

        assert as_counted(tally) == {"in_doubt": 5}
        assert tally.requests == 0
        assert bench.reasons() == {"doubt.window_over": 5}

    @pytest.mark.matrix("C5")
    def test_a_changed_row_in_doubt_is_not_sent_again(self, bench: Bench) -> None:
        bench.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=500, count=4))
        bench.deliver(bench.rows(1))

        bench.pass_time(61)
        tally = bench.deliver(bench.rows(1, amount="1.00"))

        assert as_counted(tally) == {"in_doubt": 1}
        assert bench.reasons() == tally.reasons == {"doubt.row_changed": 1}
        assert tally.requests == 0

    def test_a_throttle_after_a_lost_answer_does_not_end_the_doubt(
        self, bench: Bench
    ) -> None:
        bench.tune(requests_in_flight=1)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.HANG_UP_AFTER_READING, processed=True, count=1)
        )
        bench.simulator.faults.add(
            Fault(kind=FaultKind.THROTTLE, nth=2, wait_minutes=60)
        )

        tally = bench.deliver(bench.rows(*range(5)))

        assert as_counted(tally) == {"in_doubt": 5}

    def test_what_provably_did_not_leave_is_pending(self, bench: Bench) -> None:
        def nobody_there(_: bytes) -> Answer:
            raise NoAnswerError("Connection refused.", body_left=False)

        tally = bench.deliver(bench.rows(*range(5)), post=nobody_there)

        assert as_counted(tally) == {"pending": 5}
        assert bench.reasons() == {"not_sent": 5}

    def test_a_dead_line_is_given_up_after_some_batches(self, bench: Bench) -> None:
        bench.tune(requests_in_flight=1)
        bench.patience = Patience(first_pause=0.0, tries=1, failures_in_a_row=3)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.HANG_UP_AFTER_READING, count=None)
        )
        slices = [bench.rows(*range(start, start + 10)) for start in range(0, 200, 10)]

        tally = bench.deliver(*slices)

        assert tally.requests == 3
        assert as_counted(tally) == {"in_doubt": 30, "pending": 170}


class TestLeases:
    def test_a_worker_whose_lease_is_over_sends_nothing(self, bench: Bench) -> None:
        desk = bench.desk()
        bench.pass_time(181)
        bench.ledger.rescue()

        with pytest.raises(LeaseLostError):
            bench.deliver(bench.rows(*range(5)), desk=desk)

        assert bench.receipts() == Counter()
        assert bench.states() == {}

    def test_no_request_begins_that_the_lease_does_not_cover(
        self, bench: Bench
    ) -> None:
        desk = bench.desk(lease_seconds=50, cover_seconds=60)

        with pytest.raises(LeaseLostError, match="no longer"):
            bench.deliver(bench.rows(*range(5)), desk=desk)

        assert bench.receipts() == Counter()
        assert bench.states() == {"pending": 5}

    def test_a_sleeper_that_wakes_after_its_rescue_cannot_settle(
        self, bench: Bench
    ) -> None:
        desk = bench.desk()

        def sleep_through_the_lease(body: bytes) -> Answer:
            bench.pass_time(181)
            bench.ledger.rescue()
            assert bench.states() == {"in_doubt": 5}
            return Answer(400, {}, b'{"error":{"code":100,"error_subcode":2804003}}')

        with pytest.raises(LeaseLostError, match="rescued"):
            bench.deliver(
                bench.rows(*range(5)), desk=desk, post=sleep_through_the_lease
            )

        assert bench.states() == {"in_doubt": 5}
        assert bench.reasons() == {"worker.lost": 5}

    def test_proof_of_acceptance_beats_a_lease(self, bench: Bench) -> None:
        desk = bench.desk()

        def sleep_through_the_lease(body: bytes) -> Answer:
            answer = bench.post(body)
            bench.pass_time(181)
            bench.ledger.rescue()
            return answer

        with pytest.raises(LeaseLostError, match="rescued"):
            bench.deliver(
                bench.rows(*range(5)), desk=desk, post=sleep_through_the_lease
            )

        assert bench.states() == {"accepted": 5}
        assert set(bench.receipts().values()) == {1}


class Killed(BaseException):
    """The process dies here."""


class TestDyingAnywhere:
    """If the worker dies on this line, what does the ledger say?"""

    STEPS = (
        "after_claim",
        "after_begin",
        "after_answer",
        "after_settle",
        "after_split",
    )

    @pytest.mark.parametrize("step", STEPS)
    def test_nothing_is_lost_and_nothing_unexplained_is_sent_twice(
        self, bench: Bench, step: str
    ) -> None:
        bench.tune(requests_in_flight=1, events_per_request=10)
        bench.simulator.faults.add(
            Fault(kind=FaultKind.REFUSE_IF, count=None, event_ids=bench.event_ids(13))
        )
        rows = bench.rows(*range(40))
        desk = bench.desk()
        # The dead do not tidy up.
        desk.leave = lambda: Counter()  # type: ignore[method-assign]
        desk.release = lambda *_, **__: Counter()  # type: ignore[method-assign]

        def die(here: str) -> None:
            if here == step:
                raise Killed

        with contextlib.suppress(Killed):
            bench.deliver(rows, desk=desk, probe=die)
        bench.pass_time(181)
        bench.ledger.rescue()
        assert set(bench.states()) <= {"pending", "in_doubt", "accepted", "refused"}
        doubted = bench.states().get("in_doubt", 0)
        bench.pass_time(181 + 61)
        tally = bench.deliver(rows)

        assert as_counted(tally) == {"accepted": 39, "refused": 1}
        assert len(bench.receipts()) == 39
        twice = sum(count - 1 for count in bench.receipts().values())
        assert twice <= doubted
        assert bench.simulator.counts(DATASET).processed == 39


def test_an_event_that_meta_points_at_is_tried_alone_first(bench: Bench) -> None:
    """Its answer to 2804019 carries a path such as $['data'][3]."""
    calls: list[int] = []

    def point_at_it(body: bytes) -> Answer:
        calls.append(body.count(b'"event_name"'))
        if b"bad-one" not in body:
            return bench.post(body)
        place = [b"bad-one" in part for part in body.split(b'{"event_name"')[1:]].index(
            True
        )
        message = f"Invalid parameter at $['data'][{place}]['user_data']"
        error = {"code": 100, "error_subcode": 2804019, "message": message}
        return Answer(400, {}, json.dumps({"error": error}).encode())

    rows = bench.rows(*range(100))
    rows["event_id"][37] = "bad-one"

    tally = bench.deliver(rows, post=point_at_it)

    assert as_counted(tally) == {"accepted": 99, "refused": 1}
    assert calls == [100, 1, 99]
    assert bench.sql("""
        select d.source_key from capi.deliveries d join capi.batches b using (batch_id)
        where b.events = 1
    """) == [("o-37",)]
