"""Any order of steps, faults, deaths and clocks: does the ledger say the truth?

Real workers (`deliver`, with its desk, sender and splitter) on a real PostgreSQL, all of
them interleaved as the machine likes; they are killed before, after and between commits,
lose the answers to commits, meet inside a claim, and sleep for days. What Meta processed,
and when, is kept aside: that is the truth the ledger is held to after every step.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from psycopg.rows import dict_row
from sqlalchemy import Engine, create_engine
from tests.ledger.conftest import DATASET, HOUR
from tests.ledger.machine_world import (
    MOST_RESENDS,
    TROUBLES,
    WINDOW,
    Clock,
    Happened,
    MachineDesk,
    Meta,
    MortalLedger,
    WatchedLedger,
    Worker,
    feed_of,
)

from meta_capi import names
from meta_capi.desk import COVER_SECONDS
from meta_capi.dispatch import Patience, Tally, deliver
from meta_capi.errors import LeaseLostError
from meta_capi.event import Builder
from meta_capi.ledger import ResendPolicy
from meta_capi.payload import Envelope

__all__ = ["Deliveries", "bound", "how_long"]

ROWS = range(6)  # an order's number is one of these, plus six for each one before it
OLD = 3  # it expires within a day
TWINS = (4, 5)  # two conversions whose rows claim one event id
NOT_AT_META = frozenset({"pending", "quarantined", "withheld", "expired"})

SOME_ROWS = st.lists(st.sampled_from(ROWS), min_size=1, max_size=6, unique=True)
FATE = st.integers(0, 4)  # two of five requests are accepted
WHICH = st.integers(0, 2)
LIMIT = st.sampled_from([None, None, None, 1, 3])
SECONDS = st.sampled_from(
    [0, 20, 31, 61, 100, 100, 150, 150, 181, 181, 181, HOUR, 24 * HOUR, 48 * HOUR]
)
PLACE = st.sampled_from(
    [
        "where it is",
        "one step",
        "after_begin",
        "after_answer",
        "after_settle",
        "the end",
    ]
)
MISHAP = st.sampled_from(
    [
        *[None] * 6,
        *["a lost answer to a commit"] * 2,
        *["death at once", "death before a commit", "death after a commit"],
    ]
)
THEN = st.sampled_from(["nothing", "leases are renewed", "a rescue", "a tending"])
ACTS = (
    "gate holds", "gate passes", "replay quarantined", "replay refused",
    "replay withheld", "replay accepted", "replay in_doubt", "consent",
    *["Meta refuses"] * 3, "amount 12.50", "amount 13.00", "amount -1",
)  # fmt: skip

_START_AFRESH = """
begin;
set local session_replication_role = replica;
delete from capi.deliveries; delete from capi.attempts; delete from capi.batches;
delete from capi.workers; delete from capi.validations; delete from capi.runs;
commit
"""
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


class _EveryRule:
    """In place of Hypothesis's choice of rules, which leaves half of them out of a walk.

    These rules need each other: a walk without runs, or without time, stands still.
    """

    def is_enabled(self, _: str) -> bool:
        return True


class Deliveries(RuleBasedStateMachine):
    """Workers, a ledger, Meta and time."""

    engine: ClassVar[Engine]
    second_line: ClassVar[Engine]
    watch: ClassVar[psycopg.Connection[dict[str, Any]]]
    """Sees what is committed, and takes no part."""
    digest_key: ClassVar[bytes]
    counts: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self._rules_strategy.enabled_rules_strategy = st.just(_EveryRule())
        self.happened = Happened(self.counts)
        self.clock = Clock()
        self.meta = Meta(self.clock, self.happened)
        self.ledger = WatchedLedger(self.engine, self.happened)
        self.workers: list[Worker] = []
        self.orders = list(ROWS)
        self.amounts: dict[int, str] = {}
        self.withheld: set[int] = set()
        self.finished: set[int] = set()
        self.started = datetime.now(UTC)
        self.read: set[str] = set()
        self.gate: int | None = None
        self.held: dict[str, int] = {}  # by which gate
        self.over: set[int] = set()  # workers whose lease has ended
        self.proven: set[int] = set()  # batches whose acceptance their worker settled
        self.broken = 0  # workers that did not end well
        self.doubt_since: float | None = None
        self.watch.execute(_START_AFRESH)
        self.set_clock()

    def set_clock(self) -> None:
        with self.ledger.transaction() as cursor:
            _set_clock(cursor, self.clock)

    @initialize(
        resend=st.sampled_from([True, True, True, False]),
        most_events=st.sampled_from([2, 2, 6]),
        guilty=st.lists(st.sampled_from(ROWS), max_size=2, unique=True),
        troubles=st.lists(st.sampled_from(TROUBLES), min_size=3, max_size=3),
    )
    def a_walk_begins(
        self, resend: bool, most_events: int, guilty: list[int], troubles: list[str]
    ) -> None:
        self.fates = ["accept", "accept", *troubles]
        self.meta.guilty.update(map(_event_id_of, guilty))
        self.counts["examples"] += 1
        self.feed = feed_of(most_events)
        self.policy = ResendPolicy(
            resend=resend, window_seconds=WINDOW, most_resends=MOST_RESENDS
        )
        self.meta.policy = self.policy
        self.run = self.ledger.open_run(
            "machine", feed=self.feed.feed, dataset_id=DATASET, mode="send",
            interval=None, plan={},
        )  # fmt: skip

    # --- workers ----------------------------------------------------------------------

    def columns(self, numbers: list[int]) -> dict[str, list[Any]]:
        at = self.started - timedelta(hours=1)
        old = self.started - self.feed.longest_window + timedelta(hours=24)
        return {
            "order_id": [f"o-{n}" for n in numbers],
            "loaded_at": [at] * len(numbers),
            "bought_at": [old if n % 6 == OLD else at for n in numbers],
            "event_id": [_twin_id_of(n) for n in numbers],
            "email": [f"buyer{n}@shop.example" for n in numbers],
            "amount": [self.amounts.get(n, "12.50") for n in numbers],
            "consent": [n not in self.withheld for n in numbers],
        }

    def worker(
        self, numbers: list[int], *, gate: int | None, limit: int | None = None,
        line: Engine | None = None,
    ) -> Worker:  # fmt: skip
        columns = self.columns(numbers)
        withheld = self.withheld.intersection(numbers)
        worker = Worker(
            self.happened, self.clock, self.meta.answer,
            frozenset(map(_event_id_of, withheld))
            - frozenset(map(_event_id_of, set(numbers) - withheld)),
        )  # fmt: skip
        ledger = MortalLedger(line or self.engine, self.happened, wait=worker.stand)

        def begin() -> Tally:
            worker.desk = MachineDesk(
                ledger, self.run, policy=self.policy, host="machine", pid=1,
                validation_id=gate,
            )  # fmt: skip
            return deliver(
                [columns],
                builder=Builder(
                    self.feed, dataset_id=DATASET, digest_key=self.digest_key,
                    today=self.started.date(),
                ),
                desk=worker.desk,
                post=worker.post,
                envelope=Envelope(),
                limits=self.feed.limits,
                now=self.clock.now,
                report=lambda _: None,
                limit=limit,
                wait=worker.stand,
                patience=Patience(tries=2, doubt_pause=20),
                probe=worker.stand,
            )  # fmt: skip

        worker.start(ledger, begin)
        self.workers.append(worker)
        return worker

    def orders_of(self, numbers: list[int], *, new: bool = False) -> list[int]:
        """Return the rows in these places; after new ones came for what is done, or not."""
        if new:
            for place, old in enumerate(self.orders):
                if not {old, _twin_of(old)}.isdisjoint(self.finished):
                    self.orders[place] = old + 6
                    if _event_id_of(old) in self.meta.guilty:
                        self.meta.guilty.add(_event_id_of(old + 6))
        return [self.orders[number] for number in numbers]

    def hire(
        self, numbers: list[int], *, gate: int | None, limit: int | None = None
    ) -> Worker:
        worker = self.worker(numbers, gate=gate, limit=limit)
        self.step(worker, "accept")
        self.has_read(worker, numbers, gate)
        if worker.desk and not worker.desk.took:
            self.go(worker, "accept", to="the end")
        return worker

    def go(self, worker: Worker, *fates: str, to: str) -> None:
        """Let a worker go on by one step, or until it stands there, or has ended.

        Its next request meets the first fate, all others the last.
        """
        fate, *others = fates
        while not worker.ended and to not in ("where it is", worker.step):
            self.step(worker, fate)
            if worker.step == "after_answer":
                fate = others[-1] if others else fate
            if to == "one step":
                return

    def has_read(self, worker: Worker, numbers: list[int], gate: int | None) -> None:
        if worker.failure is None:
            self.read |= {f"o-{n}" for n in numbers}
        if gate is not None:
            read = {f"o-{n}" for n in numbers}
            self.held = {
                key: by
                for key, by in self.held.items()
                if key not in read or by >= gate
            }

    def step(self, worker: Worker, fate: str) -> None:
        worker.go(fate)
        if worker.heard and worker.step in ("after_settle", "the end"):
            self.proven |= set() if worker.ledger.dead else {worker.heard}
            worker.heard = None
        if worker.ended:
            self.workers.remove(worker)
            self.broken += worker.failure is not None
            tally = worker.tally
            if tally is not None:
                assert tally.settled == tally.rows, "a row has no outcome, or two"

    @precondition(lambda self: len(self.workers) < 3)
    @rule(
        numbers=SOME_ROWS, new=st.booleans(), limit=LIMIT, fate=FATE, then=FATE, to=PLACE
    )  # fmt: skip
    def a_run_starts(
        self, numbers: list[int], new: bool, limit: int | None, fate: int, then: int,
        to: str,
    ) -> None:  # fmt: skip
        orders = self.orders_of(numbers, new=new)
        worker = self.hire(orders, gate=self.gate, limit=limit)
        self.go(worker, self.fates[fate], self.fates[then], to=to)

    @precondition(lambda self: len(self.workers) < 2)
    @rule(numbers=SOME_ROWS, others=SOME_ROWS, fate=FATE, to_its_end=st.booleans())
    def two_meet_in_a_claim(
        self, numbers: list[int], others: list[int], fate: int, to_its_end: bool
    ) -> None:
        """One has compared its rows with the ledger when another claims them."""
        with WatchedLedger(self.second_line, self.happened).transaction() as cursor:
            _set_clock(cursor, self.clock)
        mine = self.orders_of(numbers)
        first = self.worker(mine, gate=self.gate, line=self.second_line)
        first.ledger.pauses = first.stand
        self.step(first, "accept")
        second = self.hire(self.orders_of(others), gate=self.gate)
        if to_its_end:
            self.go(second, self.fates[fate], to="the end")
        while first.step in ("inside the claim", "0.05"):
            self.step(first, "accept")
        first.ledger.moves_to(self.engine)
        self.has_read(first, mine, self.gate)

    @precondition(lambda self: self.workers)
    @rule(which=WHICH, fate=FATE, then=FATE, to=PLACE, mishap=MISHAP)
    def a_worker_goes_on(
        self, which: int, fate: int, then: int, to: str, mishap: str | None
    ) -> None:
        worker = self.workers[which % len(self.workers)]
        self.go(worker, self.fates[fate], self.fates[then], to=to)
        if mishap and not worker.ended:
            self.meet(worker, self.fates[fate], mishap)

    def meet(self, worker: Worker, fate: str, mishap: str) -> None:
        if mishap == "a lost answer to a commit":
            worker.ledger.forgets = True
            self.step(worker, fate)
            worker.ledger.forgets = False
            return
        worker.ledger.dies = mishap
        worker.ledger.dead = mishap == "death at once"
        while not worker.ended:
            worker.go(fate)
        self.happened.note("deaths")
        self.workers.remove(worker)
        self.broken += 1

    # --- time, upkeep, people ----------------------------------------------------------

    @rule(seconds=SECONDS, then=THEN)
    def time_passes(self, seconds: int, then: str) -> None:
        self.clock.ahead += seconds
        self.set_clock()
        if then == "leases are renewed":
            self.renew()
        elif then == "a rescue":
            self.counts["rescued"] += self.ledger.rescue().workers
        elif then == "a tending" and (keys := self.tend()) and len(self.workers) < 3:
            self.hire(keys, gate=None)

    @precondition(lambda self: self.doubt_since and len(self.workers) < 3)
    @rule(
        before=st.sampled_from([70, 25, 5, -1]),
        passes=st.sampled_from([0, 20, 31, 61, 100]),
        fate=FATE,
        to=PLACE,
    )
    def a_window_closes(self, before: int, passes: int, fate: int, to: str) -> None:
        """Somebody takes what is in doubt a moment before its window closes, or after."""
        wait = (self.doubt_since or 0.0) + WINDOW - before - self.clock.now()
        self.clock.ahead += max(0.0, wait)
        self.set_clock()
        if keys := self.tend():
            worker = self.hire(keys, gate=None)
            self.clock.ahead += passes
            self.set_clock()
            self.go(worker, self.fates[fate], to=to)

    @rule(act=st.sampled_from(ACTS), place=st.sampled_from(ROWS))
    def somebody_acts(self, act: str, place: int) -> None:
        number = self.orders[place]
        match act.split():
            case ["gate", "holds"]:
                self.pass_gate([f"o-{number}"])
            case ["gate", "passes"]:
                self.pass_gate([])
            case ["replay", state]:
                self.replay(state)
            case ["consent"]:
                self.withheld ^= {number}
            case ["Meta", "refuses"]:
                self.meta.guilty ^= {_event_id_of(number)}
            case ["amount", amount]:
                self.amounts = dict.fromkeys(self.orders, amount)

    def renew(self) -> None:
        for worker in self.workers:
            try:
                if worker.desk:
                    worker.desk.renew()
            except LeaseLostError:
                pass  # the worker will hear of it at its next step

    def tend(self) -> list[int]:
        self.counts["rescued"] += self.ledger.rescue().workers
        feed, oldest = self.feed, datetime.fromtimestamp(self.clock.now(), UTC)
        oldest += feed.window.margin - feed.longest_window
        self.ledger.expire(feed.feed, DATASET, oldest)
        self.ledger.close_doubt(feed.feed, DATASET, self.policy)
        keys = self.ledger.due_keys(feed.feed, DATASET, self.policy, limit=100)
        return [int(key.removeprefix("o-")) for key in keys]

    def pass_gate(self, bad: list[str]) -> None:
        self.gate = self.ledger.open_validation(self.run, "suite")
        rows = [(key, "gate.failed") for key in bad]
        self.ledger.quarantine(self.run, self.gate, rows, self.started)
        self.read.update(bad)

    def replay(self, state: str) -> None:
        choice = {
            "states": [state], "reason": None, "keys": None, "start": None, "end": None,
        }  # fmt: skip
        ids = {row["source_key"]: row["event_id"] for row in self.look()["deliveries"]}
        for key in self.ledger.replay(self.run, choice):
            assert state not in ("accepted", "in_doubt"), f"{state} is replayed"
            self.held.pop(key, None)
            # A person's word: Meta has refused it alone, so what went before is void.
            self.meta.forget(ids[key])

    # --- what must be true after every step -----------------------------------------------

    def look(self) -> dict[str, Any]:
        """Return what the ledger says now."""
        now = datetime.fromtimestamp(self.clock.now(), UTC)
        # The intent is dated a moment after the lease is looked at.
        values = {
            "now": now,
            "cover": COVER_SECONDS - 1,
            "window_began": now - timedelta(seconds=WINDOW),
        }
        return self.watch.execute(_LOOK, values).fetchone() or {}

    @invariant()
    def the_ledger_says_the_truth(self) -> None:
        self.counts["steps"] += 1
        if self.happened.unseen:
            self.check()

    def check(self) -> None:
        self.happened.unseen = False
        found = self.look()
        self.doubt_since = found["doubt_since"]
        deliveries = {row["source_key"]: row for row in found["deliveries"]}
        self.no_row_is_lost(deliveries)
        self.every_state_is_true(deliveries)
        self.every_batch_adds_up(found["batches"])
        assert found["uncovered"] == 0, "a request that its lease does not cover"
        assert self.over <= set(found["over"]), "an ended lease came back"
        self.over = set(found["over"])
        lost = sum(
            worker.desk is not None and worker.desk.worker_id in self.over
            for worker in self.workers
        )
        reasons = self.meta.unclear_answers + self.broken + lost
        assert found["unknown"] <= reasons, "a doubt about a clear answer"

    def no_row_is_lost(self, deliveries: dict[str, dict[str, Any]]) -> None:
        assert self.read <= deliveries.keys(), "a row that was read is not there"
        for key in self.held:
            state = deliveries[key]["state"]
            assert state == "quarantined", f"{key} is {state}, and the gate held it"
        self.held = {
            key: row["validation_id"]
            for key, row in deliveries.items()
            if row["state"] == "quarantined" and row["validation_id"]
        }

    def every_state_is_true(self, deliveries: dict[str, dict[str, Any]]) -> None:
        accepted = set()
        for key, row in deliveries.items():
            number = int(key.removeprefix("o-"))
            event_id = row["event_id"] if _twin_id_of(number) else _event_id_of(number)
            seen, state = self.meta.receipts.get(event_id or ""), row["state"]
            doubt = row["doubt_since"]
            assert row["resends"] <= MOST_RESENDS, f"{key} is sent again and again"
            if state == "accepted":
                accepted.add(row["event_id"])
                assert seen, f"{key} is accepted, and Meta never had it"
            elif state in NOT_AT_META:
                assert not doubt, f"{key} is {state}, and in doubt"
                others = row["event_id"] in self.meta.accepted | accepted
                assert not seen or others, f"{key} is {state}, and at Meta"
            elif state == "in_doubt":
                assert doubt, f"{key} is in doubt since never"
                proven = row["batch_id"] in self.proven
                assert not proven, f"{key} is in doubt, and Meta said yes"
            elif state == "refused":
                assert doubt or not seen, f"{key} is refused, and at Meta"
                alone = event_id in self.meta.refused_alone
                assert alone, f"{key} is refused, and Meta never refused it alone"
            else:
                assert row["batch_state"] in ("claimed", "sending"), key
                assert row["ended_at"] is None, f"{key} is on the desk of nobody"
                sure = row["batch_state"] == "claimed" and not row["batch_doubt"]
                assert doubt or not sure or not seen, f"{key} is claimed, and at Meta"
        assert accepted >= self.meta.accepted, "an acceptance was taken back"
        self.meta.accepted |= accepted
        self.finished = {
            int(key.removeprefix("o-"))
            for key, row in deliveries.items()
            if row["state"] in ("accepted", "expired", "refused")
            or row["reason"] in ("doubt.window_over", "doubt.held")
        }

    def every_batch_adds_up(self, batches: list[dict[str, Any]]) -> None:
        for row in batches:
            live = row["state"] in ("claimed", "sending")
            assert row["claimed"] == (row["events"] if live else 0), row
            assert row["flying"] == (row["state"] == "sending"), row
            assert row["made"] == row["attempts"], row
            assert not (live and row["ended"]), row

    # --- and when the faults are over --------------------------------------------------------

    def teardown(self) -> None:
        """Let everybody end, and Meta and the rows be sound: nothing may still be owed."""
        try:
            if sys.exception() is None and self.meta.policy:
                self.settle_down()
        finally:
            for worker in self.workers:
                worker.ledger.dead = True
                while not worker.ended:
                    worker.go()

    def settle_down(self) -> None:
        for worker in list(self.workers):
            self.go(worker, "accept", to="the end")
        self.clock.ahead += 181
        self.set_clock()
        self.ledger.rescue()
        self.amounts.clear()
        self.withheld.clear()
        self.meta.guilty.clear()
        gate = self.ledger.open_validation(self.run, "suite")
        before = None
        while before != (before := self.states()):
            self.clock.ahead += HOUR + 1  # Meta asked to be left alone so long, at most
            self.set_clock()
            for numbers in (self.orders, self.tend()):
                if numbers:
                    self.go(self.hire(numbers, gate=gate), "accept", to="the end")
                self.check()
        states = Counter(self.states().values())
        assert not states["pending"], states
        assert not states["claimed"], states

    def states(self) -> dict[str, str]:
        return {row["source_key"]: row["state"] for row in self.look()["deliveries"]}


def _twin_of(number: int) -> int:
    return number + {TWINS[0]: 1, TWINS[1]: -1}.get(number % 6, 0)


def _twin_id_of(number: int) -> str | None:
    return f"twins {number // 6}" if number % 6 in TWINS else None


def _event_id_of(number: int) -> str:
    made = names.event_id(DATASET, "Purchase", f"o-{number}")
    return _twin_id_of(number) or made


def _set_clock(cursor: psycopg.Cursor[dict[str, Any]], clock: Clock) -> None:
    ahead = [f"{clock.ahead} seconds"]
    cursor.execute("select set_config('capi.clock_offset', %s, false)", ahead)


@contextmanager
def bound(url: str, dsn: str) -> Iterator[type[Deliveries]]:
    """Return the machine, bound to an empty database."""
    engines = [
        create_engine(url, pool_size=1, max_overflow=0, pool_timeout=20)
        for _ in range(2)
    ]
    ledger = WatchedLedger(engines[0], Happened(Counter()))
    ledger.migrate()

    class Bound(Deliveries):
        pass

    Bound.engine, Bound.second_line = engines
    Bound.digest_key, Bound.counts = ledger.digest_key(), Counter()
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as watch:
        Bound.watch = watch
        yield Bound
    for engine in engines:
        engine.dispose()


def how_long(examples: int, *, steps: int, shrink: bool = True) -> settings:
    """Return settings for so many walks of so many steps."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        print_blob=False,
        report_multiple_bugs=False,
    )
