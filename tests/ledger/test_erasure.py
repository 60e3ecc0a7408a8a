"""A person's rows are found nowhere after an erasure, and nothing told of them before it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from tests.ledger.conftest import DATASET, Bench
from tests.ledger.scenes import ACT, doubtful, sums

from graph_simulator import Fault, FaultKind
from meta_capi.dispatch import Patience
from meta_capi.errors import ConfigurationError
from meta_capi.ledger import Ledger
from meta_capi.people import Act, Erased, erase
from meta_capi.retention import retain


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
