"""What the ledger must say after every step, and the one question it is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from tests.ledger.machine_orders import event_id_of, is_old, number_of, twin_id_of
from tests.ledger.machine_world import MOST_RESENDS, WINDOW, Clock, Meta, Worker

from meta_capi.desk import COVER_SECONDS

__all__ = ["Books"]

NOT_AT_META = frozenset({"pending", "quarantined", "withheld", "expired"})

_LOOK = """
with tried as (
    select batch_id, count(*) as made, count(*) filter (where outcome = 'sending') as flying
    from capi.attempts group by batch_id
), held as (
    select batch_id, count(*) as claimed
    from capi.deliveries where state = 'claimed' group by batch_id
), batch as (
    select
        b.batch_id, b.state, b.events, b.attempts, w.ended_at is not null as ended,
        coalesce(made, 0) as made, coalesce(flying, 0) as flying,
        coalesce(claimed, 0) as claimed
    from capi.batches as b
    join capi.workers as w using (worker_id)
    left join tried using (batch_id)
    left join held using (batch_id)
), delivery as (
    select
        d.source_key, d.state, d.reason, d.event_id, d.doubt_since, d.resends, d.batch_id,
        d.validation_id,
        b.state as batch_state, b.doubt_since as batch_doubt, w.ended_at
    from capi.deliveries as d
    left join capi.batches as b using (batch_id)
    left join capi.workers as w using (worker_id)
)
select
    (select coalesce(json_agg(d), '[]') from delivery as d) as deliveries,
    (select coalesce(json_agg(b), '[]') from batch as b) as batches,
    (select count(*) from capi.attempts where outcome = 'unknown') as unknown,
    (
        select count(*)
        from capi.attempts as a
        join capi.batches as b using (batch_id)
        join capi.workers as w using (worker_id)
        where a.outcome = 'sending'
            and a.started_at + make_interval(secs => %(cover)s) > w.lease_until
    ) as uncovered,
    (
        select coalesce(json_agg(worker_id), '[]') from capi.workers
        where ended_at is not null or lease_until <= %(now)s
    ) as over,
    (
        select extract(epoch from min(doubt_since))::float from capi.deliveries
        where state = 'in_doubt' and doubt_since > %(window_began)s
    ) as doubt_since
"""


class Books:
    """The ledger, held to what Meta has, and to what it said before."""

    def __init__(
        self, watch: psycopg.Connection[dict[str, Any]], clock: Clock, meta: Meta
    ) -> None:
        self.read: set[str] = set()
        """Keys of rows that some worker or gate has read."""
        self.held: dict[str, int] = {}
        """Keys that a gate holds, and which gate."""
        self.finished: set[int] = set()
        """Numbers of orders that need nothing more."""
        self.doubt_since: float | None = None
        """Since when the oldest doubt lasts that may still be sent again."""
        self.proven: set[int] = set()
        """Batches whose acceptance their worker has settled."""
        self.broken = 0
        """Workers that did not end well."""
        self._over: set[int] = set()
        self._watch = watch
        self._clock = clock
        self._meta = meta

    def look(self) -> dict[str, Any]:
        """Return what the ledger says now."""
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        # The intent is dated a moment after the lease is looked at.
        values = {
            "now": now,
            "cover": COVER_SECONDS - 1,
            "window_began": now - timedelta(seconds=WINDOW),
        }
        return self._watch.execute(_LOOK, values).fetchone() or {}

    def check(self, workers: list[Worker]) -> None:
        """Look, and hold the ledger to the truth."""
        found = self.look()
        self.doubt_since = found["doubt_since"]
        deliveries = {row["source_key"]: row for row in found["deliveries"]}
        self._no_row_is_lost(deliveries)
        self._every_state_is_true(deliveries)
        self._every_batch_adds_up(found["batches"])
        assert found["uncovered"] == 0, "a request that its lease does not cover"
        assert self._over <= set(found["over"]), "an ended lease came back"
        self._over = set(found["over"])
        lost = sum(
            worker.desk is not None and worker.desk.worker_id in self._over
            for worker in workers
        )
        reasons = self._meta.unclear_answers + self.broken + lost
        assert found["unknown"] <= reasons, "a doubt about a clear answer"

    def _no_row_is_lost(self, deliveries: dict[str, dict[str, Any]]) -> None:
        assert self.read <= deliveries.keys(), "a row that was read is not there"
        for key in self.held:
            state = deliveries[key]["state"]
            assert state == "quarantined", f"{key} is {state}, and the gate held it"
        self.held = {
            key: row["validation_id"]
            for key, row in deliveries.items()
            if row["state"] == "quarantined" and row["validation_id"]
        }

    def _every_state_is_true(self, deliveries: dict[str, dict[str, Any]]) -> None:
        accepted = set()
        for key, row in deliveries.items():
            number = number_of(key)
            event_id = row["event_id"] if twin_id_of(number) else event_id_of(number)
            seen, state = self._meta.receipts.get(event_id or ""), row["state"]
            doubt = row["doubt_since"]
            assert row["resends"] <= MOST_RESENDS, f"{key} is sent again and again"
            if state == "accepted":
                accepted.add(row["event_id"])
                assert seen, f"{key} is accepted, and Meta never had it"
            elif state in NOT_AT_META:
                assert not doubt, f"{key} is {state}, and in doubt"
                others = row["event_id"] in self._meta.accepted | accepted
                assert not seen or others, f"{key} is {state}, and at Meta"
            elif state == "in_doubt":
                assert doubt, f"{key} is in doubt since never"
                proven = row["batch_id"] in self.proven
                assert not proven, f"{key} is in doubt, and Meta said yes"
            elif state == "refused":
                assert doubt or not seen, f"{key} is refused, and at Meta"
                alone = event_id in self._meta.refused_alone
                assert alone, f"{key} is refused, and Meta never refused it alone"
            else:
                assert row["batch_state"] in ("claimed", "sending"), key
                assert row["ended_at"] is None, f"{key} is on the desk of nobody"
                sure = row["batch_state"] == "claimed" and not row["batch_doubt"]
                assert doubt or not sure or not seen, f"{key} is claimed, and at Meta"
        assert accepted >= self._meta.accepted, "an acceptance was taken back"
        self._meta.accepted |= accepted
        self.finished = {
            number_of(key)
            for key, row in deliveries.items()
            if row["state"] in ("accepted", "expired", "refused")
            or row["reason"] in ("doubt.window_over", "doubt.held")
        }

    def _every_batch_adds_up(self, batches: list[dict[str, Any]]) -> None:
        for row in batches:
            live = row["state"] in ("claimed", "sending")
            assert row["claimed"] == (row["events"] if live else 0), row
            assert row["flying"] == (row["state"] == "sending"), row
            assert row["made"] == row["attempts"], row
            assert not (live and row["ended"]), row

    def nothing_is_owed(self) -> None:
        """Look once more, when all faults are over: what still waits, waits for a reason."""
        for row in self.look()["deliveries"]:
            key, state = row["source_key"], row["state"]
            assert state not in ("pending", "claimed"), f"{key} is {state} for ever"
            if state == "in_doubt":
                old, tried = is_old(number_of(key)), row["resends"] == MOST_RESENDS
                explained = old or tried or row["reason"].startswith("doubt.")
                assert explained, f"{key} is in doubt for ever ({row['reason']})"
