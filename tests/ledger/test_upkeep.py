"""The ledger at rest, and people's hands on it: retention, erasure, doubts, old copies."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.ledger.conftest import DATASET, HOUR, Bench
from tests.ledger.copies import copied, put_copy_back

from graph_simulator import Fault, FaultKind
from meta_capi import insight
from meta_capi.dispatch import Patience
from meta_capi.errors import ConfigurationError, FeedError, LedgerError
from meta_capi.feed import parse
from meta_capi.ledger import Ledger, ResendPolicy
from meta_capi.people import (
    Act,
    Erased,
    Word,
    erase,
    put_back,
    read_mark,
    settle,
    take_mark,
)
from meta_capi.retention import removable, retain

DAY = 24 * HOUR
ACT = Act("os:tester", "ticket 4711")


def everything(bench: Bench) -> str:
    """Return all that stands in the ledger, as text; bytes in hex."""
    with psycopg.connect(bench.dsn) as connection:
        tables = connection.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables"
            " where schemaname = 'capi'"
        ).fetchall()
        return "\n".join(
            str(connection.execute(f"select t::text from {name} as t").fetchall())
            for (name,) in tables
        )


def sums(bench: Bench) -> tuple[Any, ...]:
    """Return what the reports say: by day, and in all."""
    days = "select * from capi.daily_summary order by day"
    return bench.sql(days), bench.sql("select * from capi.reconciliation")


def doubtful(bench: Bench, *numbers: int) -> None:
    """Let these orders be in doubt."""
    bench.simulator.faults.add(Fault(kind=FaultKind.HANG_UP_AFTER_READING))
    bench.policy = ResendPolicy(resend=False, window_seconds=47 * HOUR)
    bench.deliver(bench.rows(*numbers))
    bench.policy = ResendPolicy(resend=True, window_seconds=47 * HOUR)


# --- retention ------------------------------------------------------------------------


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


@pytest.mark.matrix("X39")
class TestRetention:
    def test_what_is_finished_goes_and_what_is_open_stays(self, bench: Bench) -> None:
        at_every_end(bench)
        before = bench.states()
        assert before == {
            "accepted": 39, "refused": 1, "withheld": 1, "quarantined": 2, "expired": 1,
            "in_doubt": 1, "pending": 1,
        }  # fmt: skip
        later = bench.started + bench.feed.retention + timedelta(days=2)
        assert not any(retain(bench.ledger, bench.feed, bench.started).values())
        bench.pass_time((later - bench.started).total_seconds())

        until, counted = removable(bench.ledger, bench.feed, later)
        removed = retain(bench.ledger, bench.feed, later, size=7)

        assert bench.started < until < later
        assert bench.states() == {"in_doubt": 1, "pending": 1}
        assert removed["deliveries"] == counted.total() == sum(before.values()) - 2
        # What the two that stay were sent in, and by whom, is still told.
        [story] = insight.explain(bench.ledger, ["o-60"])
        assert [step.state for step in story.lineage] == ["in_doubt"]
        assert bench.sql("select count(*) from capi.batches") == [(1,)]
        assert bench.sql("select count(*) from capi.workers") == [(1,)]
        assert bench.sql("select count(*) from capi.validations") == [(0,)]
        assert bench.sql("select count(*) from capi.runs") == [(2,)]

    def test_the_reports_say_the_same_before_and_after(self, bench: Bench) -> None:
        at_every_end(bench)
        before = sums(bench)
        later = bench.started + bench.feed.retention + timedelta(days=2)
        bench.pass_time((later - bench.started).total_seconds())

        retain(bench.ledger, bench.feed, later, size=7)

        assert sums(bench) == before

    def test_a_backfill_over_what_was_removed_sends_nothing_and_counts_nothing_twice(
        self, bench: Bench
    ) -> None:
        """At the shortest retention a feed may have, a moment after it is over."""
        least = bench.feed.longest_window + bench.feed.window.margin
        bench.feed = bench.feed.model_copy(update={"retention": least})
        rows = bench.rows(*range(30))
        bench.deliver(rows)
        later = bench.started + least + timedelta(days=1, hours=1)
        bench.pass_time((later - bench.started).total_seconds())
        assert retain(bench.ledger, bench.feed, later)["deliveries"] == 30
        before, requests = sums(bench), bench.receipts()

        tally = bench.deliver(rows, now=later.timestamp)

        assert dict(+tally.outcomes) == {"expired": 30}
        assert (tally.rows, tally.requests) == (30, 0)
        assert bench.receipts() == requests
        assert sums(bench) == before

    def test_no_feed_can_ask_for_less_than_metas_own_window(self, bench: Bench) -> None:
        text = bench.feed.model_dump_json(exclude_defaults=True)
        for given, told in (("1487h", "1494h"), ("1d", "1494h")):
            with pytest.raises(FeedError, match=f"retention: .*at least {told}"):
                parse(f'{text[:-1]},"retention":"{given}","window":{{"days":7}}}}')
        assert parse(f'{text[:-1]},"retention":"1494h"}}').retention.days == 62

    @pytest.mark.parametrize("fast", ["the machine's", "the ledger's"])
    def test_of_two_clocks_that_differ_the_earlier_is_believed(
        self, bench: Bench, fast: str
    ) -> None:
        bench.deliver(bench.rows(1))
        ahead = bench.feed.retention + timedelta(days=2)
        if fast == "the ledger's":
            bench.pass_time(ahead.total_seconds())
            now = datetime.now(UTC)
        else:
            now = datetime.now(UTC) + ahead

        assert not any(retain(bench.ledger, bench.feed, now).values())

    def test_other_feeds_and_other_days_are_left_alone(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1))
        young = bench.started + bench.feed.retention - timedelta(days=5)
        bench.deliver(
            bench.rows(2, loaded_at=young, bought_at=bench.started - timedelta(hours=1))
        )
        bench.sql(
            "insert into capi.deliveries (dataset_id, feed, source_key, state, reason,"
            " cursor_at, run_no) values (%s, 'another', 'o-1', 'withheld', 'erased',"
            " %s, 1)",
            DATASET, bench.started - timedelta(days=9),
        )  # fmt: skip
        later = bench.started + bench.feed.retention + timedelta(days=2)
        bench.pass_time((later - bench.started).total_seconds())

        retain(bench.ledger, bench.feed, later)

        query = "select feed, source_key from capi.deliveries order by 1, 2"
        assert bench.sql(query) == [("another", "o-1"), ("store_orders", "o-2")]


# --- erasure --------------------------------------------------------------------------


@pytest.mark.matrix("X40")
class TestErasure:
    def test_nothing_by_which_it_could_be_found_stays_anywhere(
        self, bench: Bench
    ) -> None:
        bench.deliver(bench.rows(1, 2), bench.rows(3, consent=False))
        bench.deliver(bench.rows(4), limit=0)
        doubtful(bench, 5)
        kept = sums(bench)[1]
        digests = bench.sql(
            "select encode(digest, 'hex') from capi.deliveries"
            " where source_key <> 'o-2' and digest is not null"
        )
        gone = [f"o-{n}" for n in (1, 3, 4, 5)]
        needles = [
            *gone, *bench.event_ids(1, 3, 4, 5), *(digest for (digest,) in digests),
        ]  # fmt: skip
        assert len(digests) == 3
        assert all(needle in everything(bench) for needle in needles[:2])

        done = erase(bench.ledger, bench.feed.feed, gone, ACT)

        states = Counter(accepted=1, withheld=1, pending=1, in_doubt=1)
        assert done == Erased(states, new_marks=4, on_desks=0)
        assert [needle for needle in needles if needle in everything(bench)] == []
        assert bench.sql("select source_key from capi.deliveries") == [("o-2",)]
        # The counts stay; what was owed is owed no more.
        [(*_, total, accepted, _, _, withheld, _, in_doubt, pending)] = kept
        [now] = sums(bench)[1]
        assert now[2:] == (total, accepted, 0, 0, withheld + 1, 0, in_doubt, 0)
        assert pending == 1

    def test_a_row_that_is_read_again_is_neither_sent_nor_recorded(
        self, bench: Bench
    ) -> None:
        bench.deliver(bench.rows(1))
        erase(bench.ledger, bench.feed.feed, ["o-1", "o-2"], ACT)

        again = bench.deliver(bench.rows(1, 2, 3), bench.rows(1, amount="99"))

        assert dict(+again.outcomes) == {"withheld": 3, "accepted": 1}
        assert again.reasons == {"erased": 3}
        assert bench.receipts() == Counter(bench.event_ids(1, 3))
        run = bench.run()
        gate = bench.ledger.open_validation(run, "suite")
        bad = [("o-1", "gate.failed"), ("o-4", "gate.failed")]
        bench.ledger.quarantine(run, gate, bad, bench.started)
        query = "select source_key from capi.deliveries order by 1"
        assert bench.sql(query) == [("o-3",), ("o-4",)]

    def test_rows_that_share_the_key_go_with_it(self, bench: Bench) -> None:
        twins = bench.rows(*range(12))
        twins["order_id"] = ["o-1"] * 11 + ["o-12"]
        bench.deliver(twins)
        assert bench.states() == {"quarantined": 11, "accepted": 1}

        done = erase(bench.ledger, bench.feed.feed, ["o-1"], ACT)

        assert done.deliveries == Counter(quarantined=11)
        assert bench.sql("select source_key from capi.deliveries") == [("o-12",)]
        assert bench.deliver(twins).reasons == {"erased": 11}
        assert bench.states() == {"accepted": 1}

    def test_the_act_is_written_down_without_the_key(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1))
        erase(bench.ledger, bench.feed.feed, ["o-1", "o-9"], ACT)
        erase(bench.ledger, bench.feed.feed, ["o-1"], ACT)

        assert bench.sql(
            "select kind, who, role = current_user, feed, why, deliveries, detail"
            " from capi.acts order by act_no"
        ) == [
            ("erase", "os:tester", True, "store_orders", "ticket 4711", 1,
             {"keys": 2, "on_desks": 0, "states": {"accepted": 1}}),
            ("erase", "os:tester", True, "store_orders", "ticket 4711", 0,
             {"keys": 1, "on_desks": 0, "states": {}}),
        ]  # fmt: skip
        with pytest.raises(ConfigurationError, match="holds one of the keys"):
            erase(bench.ledger, "f", ["o-2"], Act("os:tester", "of o-2, by mail"))

    @pytest.mark.matrix("T9")
    def test_what_is_on_a_desk_is_left_until_it_is_settled(self, bench: Bench) -> None:
        claimed, erased = threading.Event(), threading.Event()

        def stand(step: str) -> None:
            if step == "after_claim":
                claimed.set()
                assert erased.wait(30)

        worker = threading.Thread(
            target=lambda: bench.deliver(bench.rows(1, 2), probe=stand)
        )
        worker.start()
        assert claimed.wait(30)
        try:
            done = erase(bench.ledger, bench.feed.feed, ["o-1"], ACT)
        finally:
            erased.set()
            worker.join()

        assert (done.deliveries.total(), done.on_desks) == (0, 1)
        assert bench.states() == {"accepted": 2}
        # The next worker that reads the row completes it; so would the same command.
        assert bench.deliver(bench.rows(1, 2)).reasons == {"erased": 1}
        assert bench.sql("select source_key from capi.deliveries") == [("o-2",)]
        assert set(bench.receipts().values()) == {1}

    @pytest.mark.matrix("T9")
    def test_no_conversion_slips_between_an_erasure_and_the_deliveries(
        self, bench: Bench
    ) -> None:
        """Four workers deliver while orders are erased and old ones removed."""
        bench.tune(events_per_request=20)
        slices = [bench.rows(*range(n, n + 20)) for n in range(0, 400, 20)]
        keys = [f"o-{n}" for n in range(0, 400, 7)]
        workers = [
            threading.Thread(target=lambda: bench.deliver(*slices)) for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        for key in keys:
            erase(bench.ledger, bench.feed.feed, [key], ACT)
            retain(bench.ledger, bench.feed, datetime.now(UTC))
        for worker in workers:
            worker.join()
        sent = bench.receipts()

        done = erase(bench.ledger, bench.feed.feed, keys, ACT)
        again = bench.deliver(*slices)

        assert (done.new_marks, done.on_desks) == (0, 0)
        assert not set(keys) & {
            key for (key,) in bench.sql("select source_key from capi.deliveries")
        }
        assert again.reasons == {"erased": len(keys)}
        assert bench.states() == {"accepted": 400 - len(keys)}
        assert bench.receipts() == sent
        assert set(sent.values()) == {1}

    @pytest.mark.matrix("T9")
    def test_an_erasure_waits_for_a_claim_that_has_looked_already(
        self, bench: Bench
    ) -> None:
        looked, go = threading.Event(), threading.Event()

        class Slow(Ledger):
            """Stands still before the commit of a claim."""

            @contextmanager
            def transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
                with super().transaction() as cursor:
                    yield cursor
                    if not looked.is_set():
                        looked.set()
                        assert go.wait(30)

        desk = bench.desk()
        desk._ledger = Slow(bench.ledger._engine)
        built = bench.builder().build(bench.rows(1), int(bench.started.timestamp()))
        claim = threading.Thread(
            target=lambda: desk.claim(built, most_events=9, most_bytes=100_000)
        )
        found: list[Erased] = []
        erasure = threading.Thread(
            target=lambda: found.append(
                erase(bench.ledger, bench.feed.feed, ["o-1"], ACT)
            )
        )
        claim.start()
        assert looked.wait(30)
        erasure.start()
        waits = "select 1 from pg_locks where locktype = 'advisory' and not granted"
        while erasure.is_alive() and not bench.sql(waits):
            pass
        go.set()
        claim.join()
        erasure.join()

        assert found == [Erased(Counter(), new_marks=1, on_desks=1)]

    def test_a_mark_tells_nothing_without_the_ledgers_own_key(
        self, bench: Bench
    ) -> None:
        erase(bench.ledger, bench.feed.feed, ["o-1"], ACT)
        [(mark,)] = bench.sql("select mark from capi.erased")
        query = "select capi.mark_of(%s, %s, %s)"
        key = bench.ledger.digest_key()

        assert bench.sql(query, key, "store_orders", "o-1") == [(mark,)]
        assert bench.sql(query, bytes(32), "store_orders", "o-1") != [(mark,)]
        assert bench.sql(query, key, "store_order", "o-1") != [(mark,)]

    def test_an_erasure_looks_its_keys_up_by_the_index(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1))
        bench.sql(
            "insert into capi.deliveries (dataset_id, feed, source_key, state, reason,"
            " cursor_at, run_no) select %s, %s, 'x-' || n, 'withheld', 'erased', now(), 1"
            " from generate_series(1, 50000) as n",
            DATASET, bench.feed.feed,
        )  # fmt: skip
        bench.sql("analyze capi.deliveries")
        rows = (
            "select seq_tup_read from pg_stat_user_tables where relname = 'deliveries'"
        )
        before = _settled_statistics(bench, rows)

        erase(bench.ledger, bench.feed.feed, ["o-1"], ACT)

        assert _settled_statistics(bench, rows) == before


def _settled_statistics(bench: Bench, query: str) -> Any:
    """Let every session hand in its counts, and read them."""
    bench.ledger._engine.dispose()
    with psycopg.connect(bench.dsn, autocommit=True) as connection:
        connection.execute("select pg_stat_force_next_flush()")
        return connection.execute(query.encode()).fetchone()


# --- what people did ------------------------------------------------------------------


@pytest.mark.matrix("X37")
class TestActs:
    @pytest.mark.parametrize(
        "change",
        [
            "update capi.acts set why = 'another'",
            "delete from capi.acts",
            "truncate capi.acts",
        ],
    )
    def test_an_act_is_never_changed_nor_removed_not_even_by_the_owner(
        self, bench: Bench, change: str
    ) -> None:
        erase(bench.ledger, bench.feed.feed, ["o-1"], ACT)
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="once"):
            bench.sql(change)
        assert bench.sql("select why from capi.acts") == [("ticket 4711",)]

    def test_a_replay_is_written_down_with_what_was_chosen(self, bench: Bench) -> None:
        bench.deliver(bench.rows(1, consent=False))
        choice = {
            "states": ["withheld"], "reason": "consent.not_given", "keys": ["o-1", "o-2"],
            "start": None, "end": None,
        }  # fmt: skip
        keys = bench.ledger.replay(bench.run(), choice, who="airflow:ann", why="agreed")

        assert keys == ["o-1"]
        assert bench.sql(
            "select kind, who, feed, why, deliveries, detail ->> 'reason',"
            " (detail ->> 'keys')::int from capi.acts"
        ) == [
            (
                "replay",
                "airflow:ann",
                "store_orders",
                "agreed",
                1,
                "consent.not_given",
                2,
            )
        ]

    @pytest.mark.matrix("T8")
    def test_a_replay_never_touches_what_meta_accepted(self, bench: Bench) -> None:
        """Whatever is asked for; there is no way to force it."""
        bench.deliver(bench.rows(1, 2))
        before = bench.sql("select d::text from capi.deliveries as d order by 1")
        choice = {
            "states": ["accepted", "quarantined", "refused", "withheld", "expired"],
            "reason": None, "keys": None, "start": None, "end": None,
        }  # fmt: skip

        assert bench.ledger.count_replay(bench.run(), choice) == []
        assert bench.ledger.replay(bench.run(), choice) == []
        assert (
            bench.sql("select d::text from capi.deliveries as d order by 1") == before
        )
        assert bench.deliver(bench.rows(1, 2)).requests == 0

    @pytest.mark.parametrize("why", ["", "  ", "two\nlines", "x" * 501, "\x1b[31m"])
    def test_an_act_without_a_reason_is_refused(self, why: str) -> None:
        with pytest.raises(ConfigurationError, match="nothing was done"):
            Act("os:tester", why)


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


# --- a copy put back ------------------------------------------------------------------


@pytest.mark.matrix("P14")
class TestACopyPutBack:
    def test_the_mark_of_an_older_copy_is_behind(self, bench: Bench) -> None:
        copy, first = copied(bench.dsn), take_mark(bench.ledger)
        second = take_mark(bench.ledger)
        assert (first.ledger_id, True) == (second.ledger_id, first.at < second.at)
        assert read_mark(bench.ledger) == second
        bench.pass_time(-HOUR)
        assert take_mark(bench.ledger).at > second.at, "a mark never goes back"

        put_copy_back(bench.dsn, copy)

        assert read_mark(bench.ledger).at < first.at
        bench.pass_time(0)
        put_back(bench.ledger, bench.started - timedelta(hours=1), ACT)
        assert read_mark(bench.ledger).at > second.at

    def test_what_may_have_gone_out_since_the_copy_is_in_doubt(
        self, bench: Bench
    ) -> None:
        """Sent since: what waited, what was refused or withheld, and what was unknown."""
        refusal = Fault(
            kind=FaultKind.REFUSE_IF, count=None, event_ids=bench.event_ids(3)
        )
        bench.simulator.faults.add(refusal)
        bench.deliver(bench.rows(1, 3), bench.rows(2, 8, consent=False))
        bench.deliver(bench.rows(4), limit=0)
        copy, since = copied(bench.dsn), bench.ledger.clock()
        bench.simulator.faults.clear()
        later = [
            bench.rows(1, 2, 4), bench.rows(3, amount="13"), bench.rows(5),
            bench.rows(8, consent=False),
        ]  # fmt: skip
        bench.deliver(*later)
        sent = bench.receipts()
        assert set(sent) == set(bench.event_ids(1, 2, 3, 4, 5))
        put_copy_back(bench.dsn, copy)

        assert put_back(bench.ledger, since, ACT) == 1  # the one that waited
        bench.policy = ResendPolicy(resend=False, window_seconds=47 * HOUR)
        tally = bench.deliver(*later)

        assert tally.requests == 0
        assert bench.receipts() == sent
        assert dict(+tally.outcomes) == {"accepted": 1, "withheld": 1, "in_doubt": 4}
        assert tally.reasons["ledger.restored"] == 4
        assert bench.sql(
            "select distinct doubt_since from capi.deliveries where state = 'in_doubt'"
        ) == [(since,)]
        # What becomes known from now on is sent as ever.
        fresh = bench.rows(6, loaded_at=datetime.now(UTC) + timedelta(seconds=1))
        assert bench.deliver(fresh).accepted_now == 1

    def test_inside_metas_window_a_feed_that_resends_settles_it_by_itself(
        self, bench: Bench
    ) -> None:
        copy, since = copied(bench.dsn), bench.ledger.clock()
        bench.deliver(bench.rows(1, 2))
        put_copy_back(bench.dsn, copy)
        put_back(bench.ledger, since, ACT)

        tally = bench.deliver(bench.rows(1, 2))

        assert tally.accepted_now == 2
        # Meta knows each of them by its event_id, and counts it once.
        assert bench.simulator.graph.store.counts(DATASET).processed == 2
        assert bench.sql("select distinct resends from capi.deliveries") == [(1,)]

    def test_a_worker_from_before_writes_nothing_any_more(self, bench: Bench) -> None:
        """Its number, which the copy would have given out once more, is passed over."""
        desk, run = bench.desk(), bench.run()
        copy, since = copied(bench.dsn), bench.ledger.clock()
        sleeper = bench.desk(run)
        put_copy_back(bench.dsn, copy)
        put_back(bench.ledger, since, ACT)

        assert bench.desk(run).worker_id > sleeper.worker_id + 1_000
        for old in (desk, sleeper):
            with pytest.raises(LedgerError, match="lease is over"):
                old.renew()

    def test_what_was_on_a_desk_when_it_was_copied_is_in_doubt(
        self, bench: Bench
    ) -> None:
        copies: list[dict[str, list[str]]] = []

        def copy_at(step: str) -> None:
            if step in ("after_claim", "after_begin"):
                copies.append(copied(bench.dsn))

        bench.deliver(bench.rows(1), probe=copy_at)
        for copy in copies:
            put_copy_back(bench.dsn, copy)
            assert bench.states() == {"claimed": 1}

            assert put_back(bench.ledger, bench.started, ACT) == 1

            assert bench.reasons() == {"ledger.restored": 1}
            assert bench.sql(
                "select state::text from capi.batches union all"
                " select outcome::text from capi.attempts"
            ) in ([("in_doubt",)], [("in_doubt",), ("unknown",)])

    def test_a_copy_from_the_future_is_refused(self, bench: Bench) -> None:
        with pytest.raises(ConfigurationError, match="not past; nothing was done"):
            put_back(bench.ledger, datetime.now(UTC) + timedelta(hours=1), ACT)
        assert bench.sql("select count(*) from capi.acts") == [(0,)]


# --- rows that cannot be read, upgrades, payloads ---------------------------------------


def test_a_pending_row_that_the_source_no_longer_has_expires_as_gone(
    bench: Bench,
) -> None:
    """A gate held it, so that no event time is known; then a person put it back."""
    run = bench.run()
    gate = bench.ledger.open_validation(run, "suite")
    bench.ledger.quarantine(run, gate, [("o-1", "gate.failed")], bench.started)
    choice = {
        "states": ["quarantined"], "reason": None, "keys": None, "start": None,
        "end": None,
    }  # fmt: skip
    feed = bench.feed
    bench.ledger.replay(bench.run(), choice)
    due = bench.ledger.due_keys(feed.feed, DATASET, bench.policy, limit=9)
    assert due == ["o-1"]

    assert bench.ledger.run("miss", feed=feed.feed, dataset_id=DATASET, keys=due)

    assert bench.reasons() == {"row.missing": 1}
    assert bench.ledger.due_keys(feed.feed, DATASET, bench.policy, limit=9) == []
    oldest = datetime.now(UTC) - feed.longest_window
    assert bench.ledger.expire(feed.feed, DATASET, oldest) == 0
    oldest = datetime.now(UTC) + timedelta(seconds=1)
    assert bench.ledger.expire(feed.feed, DATASET, oldest) == 1
    assert bench.sql("select state::text, reason from capi.deliveries") == [
        ("expired", "row.gone")
    ]


def take_last_step_back(bench: Bench) -> None:
    """Let the schema lack its last step."""
    bench.sql("delete from capi.migrations where version = 3")
    bench.sql(
        "drop view capi.event_status, capi.daily_summary, capi.match_key_coverage,"
        " capi.freshness, capi.reconciliation"
    )


@pytest.mark.matrix("T10")
class TestUpgrading:
    def test_a_schema_is_not_changed_under_a_worker(self, bench: Bench) -> None:
        desk = bench.desk()
        take_last_step_back(bench)

        with pytest.raises(LedgerError, match=r"1 worker.*schema was left as it is"):
            bench.ledger.migrate()

        bench.sql("update capi.workers set ended_at = now(), ended_how = 'finished'")
        assert bench.ledger.migrate() == ["views"]
        desk.leave()

    def test_it_is_if_somebody_says_now_or_a_dead_workers_lease_is_over(
        self, bench: Bench
    ) -> None:
        bench.desk()
        take_last_step_back(bench)
        assert bench.ledger.migrate(now=True) == ["views"]

        take_last_step_back(bench)
        bench.pass_time(HOUR)
        assert bench.ledger.migrate() == ["views"]

    @pytest.mark.parametrize("step", ["behind", "ahead"])
    def test_nobody_sits_down_at_a_schema_of_another_age(
        self, bench: Bench, step: str
    ) -> None:
        """Not even who has looked at the schema before it was changed."""
        run = bench.run()
        if step == "behind":
            bench.sql(
                "delete from capi.migrations"
                " where version = (select max(version) from capi.migrations)"
            )
        else:
            bench.sql("insert into capi.migrations (version, name) values (999, 'new')")

        with pytest.raises(LedgerError, match="schema"):
            bench.desk(run)

        assert bench.sql("select count(*) from capi.workers") == [(0,)]


@pytest.mark.matrix("X38")
def test_no_table_of_the_ledger_holds_an_event_or_a_customer(bench: Bench) -> None:
    """Neither in clear nor digested, whatever became of the event."""
    seen: list[str] = []

    def post(body: bytes) -> Any:
        seen.append(body.decode())
        return bench.post(body)

    rows = bench.rows(*range(20))
    bench.simulator.faults.add(
        Fault(kind=FaultKind.REFUSE_IF, count=None, event_ids=bench.event_ids(3))
    )
    bench.deliver(rows, post=post)
    bench.deliver(bench.rows(30), post=post, limit=0)
    bench.simulator.faults.add(Fault(kind=FaultKind.HANG_UP_AFTER_READING))
    bench.patience = Patience(first_pause=0.0, tries=1)
    bench.deliver(bench.rows(40, 41), bench.rows(42, consent=False), post=post)
    bench.deliver(bench.rows(50, amount="-1", email="o-51@shop.example"), post=post)
    erase(bench.ledger, bench.feed.feed, ["o-4"], ACT)
    assert set(bench.states()) == {
        "accepted", "refused", "pending", "in_doubt", "withheld", "quarantined",
    }  # fmt: skip

    held = everything(bench).lower()

    assert "o-5" in held, "the ledger can be searched"
    for number in (*range(20), 30, 40, 41, 42, 50):
        email = f"buyer{number}@shop.example"
        digest = hashlib.sha256(email.encode())
        assert email not in held
        assert digest.hexdigest() not in held
        assert base64.b64encode(digest.digest()).decode().lower() not in held
    bodies = [json.dumps(e["user_data"]) for b in seen for e in json.loads(b)["data"]]
    assert len(bodies) > 20
    for word in ("shop.example", "user_data", '"em"', "action_source", 'event_time":'):
        assert word not in held
