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
from datetime import UTC, datetime
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
from tests.ledger.machine_books import Books
from tests.ledger.machine_orders import (
    PLACES,
    Orders,
    event_id_of,
    key_of,
    number_of,
)
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

from meta_capi.dispatch import Patience, Tally, deliver
from meta_capi.errors import LeaseLostError
from meta_capi.event import Builder
from meta_capi.ledger import ResendPolicy
from meta_capi.payload import Envelope

__all__ = ["Deliveries", "bound", "how_long"]

SOME = st.lists(st.sampled_from(PLACES), min_size=1, max_size=6, unique=True)
FATE = st.integers(0, 4)  # two of five requests are accepted
WHICH = st.integers(0, 2)
LIMIT = st.sampled_from([None, None, None, 1, 3])
SECONDS = st.sampled_from(
    [0, 20, 31, 61, 100, 100, 150, 150, 181, 181, 181, HOUR, 24 * HOUR, 48 * HOUR]
)
POINT = st.sampled_from(
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
        self.orders = Orders()
        self.books = Books(self.watch, self.clock, self.meta)
        self.gate: int | None = None
        self.watch.execute(_START_AFRESH)
        self.set_clock()

    def set_clock(self) -> None:
        with self.ledger.transaction() as cursor:
            _set_clock(cursor, self.clock)

    @initialize(
        resend=st.sampled_from([True, True, True, False]),
        most_events=st.sampled_from([2, 2, 6]),
        guilty=st.lists(st.sampled_from(PLACES), max_size=2, unique=True),
        troubles=st.lists(st.sampled_from(TROUBLES), min_size=3, max_size=3),
    )
    def a_walk_begins(
        self, resend: bool, most_events: int, guilty: list[int], troubles: list[str]
    ) -> None:
        self.fates = ["accept", "accept", *troubles]
        self.meta.guilty.update(map(event_id_of, guilty))
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

    def worker(
        self, numbers: list[int], *, gate: int | None, limit: int | None = None,
        line: Engine | None = None,
    ) -> Worker:  # fmt: skip
        columns = self.orders.columns(numbers, self.feed)
        withheld = self.orders.withheld.intersection(numbers)
        worker = Worker(
            self.happened, self.clock, self.meta.answer,
            frozenset(map(event_id_of, withheld))
            - frozenset(map(event_id_of, set(numbers) - withheld)),
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
                    today=self.orders.started.date(),
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

    def orders_of(self, places: list[int], *, new: bool = False) -> list[int]:
        """Return the orders in these places; after new ones came in, or not."""
        if new:
            for old, came in self.orders.renew(self.books.finished).items():
                if event_id_of(old) in self.meta.guilty:
                    self.meta.guilty.add(event_id_of(came))
        return [self.orders.numbers[place] for place in places]

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
            self.books.read |= set(map(key_of, numbers))
        if gate is not None:
            read = set(map(key_of, numbers))
            self.books.held = {
                key: by
                for key, by in self.books.held.items()
                if key not in read or by >= gate
            }

    def step(self, worker: Worker, fate: str) -> None:
        worker.go(fate)
        if worker.heard and worker.step in ("after_settle", "the end"):
            self.books.proven |= set() if worker.ledger.dead else {worker.heard}
            worker.heard = None
        if worker.ended:
            self.workers.remove(worker)
            self.books.broken += worker.failure is not None
            tally = worker.tally
            if tally is not None:
                assert tally.settled == tally.rows, "a row has no outcome, or two"

    @precondition(lambda self: len(self.workers) < 3)
    @rule(
        numbers=SOME, new=st.booleans(), limit=LIMIT, fate=FATE, then=FATE, to=POINT
    )  # fmt: skip
    def a_run_starts(
        self, numbers: list[int], new: bool, limit: int | None, fate: int, then: int,
        to: str,
    ) -> None:  # fmt: skip
        orders = self.orders_of(numbers, new=new)
        worker = self.hire(orders, gate=self.gate, limit=limit)
        self.go(worker, self.fates[fate], self.fates[then], to=to)

    @precondition(lambda self: len(self.workers) < 2)
    @rule(numbers=SOME, others=SOME, fate=FATE, to_its_end=st.booleans())
    def two_meet_in_a_claim(
        self, numbers: list[int], others: list[int], fate: int, to_its_end: bool
    ) -> None:
        """One has read its rows, or has compared them with the ledger, when another
        claims them."""
        with WatchedLedger(self.second_line, self.happened).transaction() as cursor:
            _set_clock(cursor, self.clock)
        mine = self.orders_of(numbers)
        first = self.worker(mine, gate=self.gate, line=self.second_line)
        first.ledger.pauses = first.stand
        first.ledger.pauses_after = "house" if len(numbers) % 2 else "compare"
        self.step(first, "accept")
        second = self.hire(self.orders_of(others), gate=self.gate)
        if to_its_end:
            self.go(second, self.fates[fate], to="the end")
        while first.step in ("inside the claim", "0.05"):
            self.step(first, "accept")
        first.ledger.moves_to(self.engine)
        self.has_read(first, mine, self.gate)

    @precondition(lambda self: self.workers)
    @rule(which=WHICH, fate=FATE, then=FATE, to=POINT, mishap=MISHAP)
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
        self.books.broken += 1

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

    @precondition(lambda self: self.books.doubt_since and len(self.workers) < 3)
    @rule(
        before=st.sampled_from([70, 25, 5, -1]),
        passes=st.sampled_from([0, 20, 31, 61, 100]),
        fate=FATE,
        to=POINT,
    )
    def a_window_closes(self, before: int, passes: int, fate: int, to: str) -> None:
        """Somebody takes what is in doubt a moment before its window closes, or after."""
        wait = (self.books.doubt_since or 0.0) + WINDOW - before - self.clock.now()
        self.clock.ahead += max(0.0, wait)
        self.set_clock()
        if keys := self.tend():
            worker = self.hire(keys, gate=None)
            self.clock.ahead += passes
            self.set_clock()
            self.go(worker, self.fates[fate], to=to)

    @rule(act=st.sampled_from(ACTS), place=st.sampled_from(PLACES))
    def somebody_acts(self, act: str, place: int) -> None:
        number = self.orders.numbers[place]
        match act.split():
            case ["gate", "holds"]:
                self.pass_gate([key_of(number)])
            case ["gate", "passes"]:
                self.pass_gate([])
            case ["replay", state]:
                self.replay(state)
            case ["consent"]:
                self.orders.withheld ^= {number}
            case ["Meta", "refuses"]:
                self.meta.guilty ^= {event_id_of(number)}
            case ["amount", amount]:
                self.orders.cost(amount)

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
        return [number_of(key) for key in keys]

    def pass_gate(self, bad: list[str]) -> None:
        self.gate = self.ledger.open_validation(self.run, "suite")
        rows = [(key, "gate.failed") for key in bad]
        self.ledger.quarantine(self.run, self.gate, rows, self.orders.started)
        self.books.read.update(bad)

    def replay(self, state: str) -> None:
        choice = {
            "states": [state], "reason": None, "keys": None, "start": None, "end": None,
        }  # fmt: skip
        ids = {
            row["source_key"]: row["event_id"]
            for row in self.books.look()["deliveries"]
        }
        for key in self.ledger.replay(self.run, choice):
            assert state not in ("accepted", "in_doubt"), f"{state} is replayed"
            self.books.held.pop(key, None)
            # A person's word: Meta has refused it alone, so what went before is void.
            self.meta.forget(ids[key])

    # --- what must be true after every step -----------------------------------------------

    @invariant()
    def the_ledger_says_the_truth(self) -> None:
        self.counts["steps"] += 1
        if self.happened.unseen:
            self.check()

    def check(self) -> None:
        self.happened.unseen = False
        self.books.check(self.workers)

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
        self.orders.mend()
        self.meta.guilty.clear()
        gate = self.ledger.open_validation(self.run, "suite")
        before = None
        while before != (before := self.states()):
            self.clock.ahead += HOUR + 1  # Meta asked to be left alone so long, at most
            self.set_clock()
            for numbers in (self.orders.numbers, self.tend()):
                if numbers:
                    self.go(self.hire(numbers, gate=gate), "accept", to="the end")
                self.check()
        self.books.nothing_is_owed()

    def states(self) -> dict[str, str]:
        return {
            row["source_key"]: row["state"] for row in self.books.look()["deliveries"]
        }


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
