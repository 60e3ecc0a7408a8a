"""What is put back is sent, or expires when nobody can read it any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.ledger.conftest import DATASET, Bench
from tests.ledger.scenes import everything


class TestReplays:
    def test_a_row_that_no_key_can_find_is_not_put_back(self, bench: Bench) -> None:
        """It would be pending for ever: nobody can read it again."""
        rows = bench.rows(1, 1, 2, 3, 4)
        rows["order_id"][2:] = [None, "k" * 200, "jane@shop.example"]
        bench.deliver(rows)
        assert bench.states() == {"quarantined": 5}

        keys = bench.ledger.replay(bench.run(), everything("quarantined"))

        assert keys == ["o-1"]
        assert bench.states() == {"quarantined": 4, "pending": 1}
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
