"""Any order of steps, faults, deaths and clocks: does the ledger say the truth?

Real workers (`deliver`, with its desk, sender and splitter) on a real PostgreSQL. Each
stands still after every step of its own until the machine lets it go on, so that all of
them are interleaved as the machine likes; they are killed before, after and between
commits, lose the answers to commits, and sleep for days. What Meta processed, and when,
is kept aside: that is the truth the ledger is held to.

CAPI_MACHINE_EXAMPLES and CAPI_MACHINE_STEPS make it run longer.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, create_engine
from tests.conftest import Database
from tests.ledger.conftest import DATASET, FEED, HOUR

from meta_capi import names
from meta_capi.desk import Desk
from meta_capi.dispatch import Patience, Tally, deliver
from meta_capi.errors import CapiError, NoAnswerError
from meta_capi.event import Builder
from meta_capi.feed import parse
from meta_capi.ledger import Ledger, ResendPolicy, Run
from meta_capi.payload import Envelope
from meta_capi.verdict import Answer

EXAMPLES = int(os.environ.get("CAPI_MACHINE_EXAMPLES", "60"))
STEPS = int(os.environ.get("CAPI_MACHINE_STEPS", "40"))

ROWS = range(6)
TWINS = (4, 5)  # two conversions whose rows claim one event id
WINDOW = 48 * HOUR  # in which Meta drops a repeat; the policy keeps an hour off it
NOT_AT_META = frozenset({"pending", "quarantined", "withheld", "expired"})

feed = parse(FEED)
feed = feed.model_copy(
    update={
        "limits": feed.limits.model_copy(
            update={
                "events_per_request": 2,
                "requests_in_flight": 1,
                "requests_per_split": 5,
                "in_doubt_resends": 2,
            }
        )
    }
)


class Killed(BaseException):
    """The process is gone; nothing of it tidies up."""


@dataclass
class Clock:
    """The one time of all machines: the real one, run ahead."""

    ahead: float = 0.0

    def now(self) -> float:
        """Return the seconds since 1970."""
        return time.time() + self.ahead


class MortalLedger(Ledger):
    """A worker's ledger, which dies with it, before or after a commit of one's choice."""

    dead = False
    dies: str | None = None
    forgets = False

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        """Yield a cursor, to the living."""
        if self.dead:
            raise Killed
        with super().transaction() as cursor:
            yield cursor
            if self.dies == "before a commit":
                self.dead = True
                raise Killed
        if self.dies == "after a commit":
            self.dead = True
            raise Killed
        if self.forgets:
            self.forgets = False
            raise psycopg.OperationalError("the answer to COMMIT is lost")


class Worker:
    """A delivery in a thread of its own, which stands still after each of its steps."""

    def __init__(
        self, ledger: MortalLedger, begin: Callable[[Worker], Tally],
        post: Callable[[bytes, str], Answer],
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.desk: Desk | None = None
        self.step = "the door"
        self.fate = "accept"
        self.tally: Tally | None = None
        self.failure: BaseException | None = None
        self._post = post
        self._go, self._stood = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._live, args=(begin,), daemon=True)
        self._thread.start()

    def _live(self, begin: Callable[[Worker], Tally]) -> None:
        self._go.acquire()
        try:
            self.tally = begin(self)
        except (Killed, CapiError) as error:
            self.failure = error
        except BaseException as error:  # the machine fails with it
            self.failure = error
        self.step = "the end"
        self._stood.release()

    def stand(self, step: str | float) -> None:
        """Stand still until the machine says go; dies here if it has been killed."""
        self.step = str(step)
        self._stood.release()
        self._go.acquire()
        if self.ledger.dead:
            raise Killed

    def go(self, fate: str = "accept") -> None:
        """Take one step, meeting this fate if it is a request."""
        self.fate = fate
        self._go.release()
        assert self._stood.acquire(timeout=30), f"stuck after {self.step}"
        if self.failure and not isinstance(self.failure, Killed | CapiError):
            raise self.failure

    @property
    def ended(self) -> bool:
        """Whether there is nothing more of it."""
        return self.step == "the end"

    def post(self, body: bytes) -> Answer:
        """Send a request to the machine's Meta."""
        return self._post(body, self.fate)


@dataclass
class Meta:
    """What Meta really did: whom it refuses, and when it processed what."""

    clock: Clock
    guilty: set[str] = field(default_factory=set)
    receipts: dict[str, tuple[float, object]] = field(default_factory=dict)
    """Event ids it has: since when, and as what."""
    accepted: set[str] = field(default_factory=set)
    """Event ids the ledger has ever called accepted."""

    def answer(self, body: bytes, fate: str) -> Answer:
        """Answer one request, and judge whether it should have been made."""
        events = {each["event_id"]: each for each in json.loads(body)["data"]}
        ids = list(events)
        assert len(ids) == len(json.loads(body)["data"]), "an event stands there twice"
        assert self.accepted.isdisjoint(ids), "an accepted event is sent again"
        for each in ids:
            if each in self.receipts:
                first, event = self.receipts[each]
                late = self.clock.now() - first
                assert late <= WINDOW, f"a repeat after {late / HOUR:.1f} hours"
                assert events[each] == event, "a repeat that Meta cannot recognise"
        if fate == "not_sent":
            raise NoAnswerError("Connection refused.", body_left=False)
        if fate in ("throttle", "long throttle"):
            wait = {"throttle": "20", "long throttle": "3600"}[fate]
            return Answer(429, {"Retry-After": wait}, b"{}")
        if fate == "stop":
            return Answer(400, {}, b'{"error":{"code":190}}')
        bad = not self.guilty.isdisjoint(ids)
        if not bad and fate not in ("lost", "server error"):
            for each in ids:
                self.receipts.setdefault(each, (self.clock.now(), events[each]))
        if fate.startswith("lost"):
            raise NoAnswerError("No answer came.", body_left=True)
        if fate.startswith("server error"):
            return Answer(500, {}, b"")
        if bad:
            return Answer(400, {}, b'{"error":{"code":100,"error_subcode":2804019}}')
        received = len(ids) - (fate == "miscounted")
        return Answer(200, {}, json.dumps({"events_received": received}).encode())


FATES = st.sampled_from(
    ["accept"] * 6
    + [
        "lost", "lost, processed", "server error", "server error, processed",
        "miscounted", "not_sent", "throttle", "long throttle", "stop",
    ]
)  # fmt: skip
SOME_ROWS = st.lists(st.sampled_from(ROWS), min_size=1, max_size=6, unique=True)


class Deliveries(RuleBasedStateMachine):
    """Workers, a ledger, Meta and time."""

    engine: Engine
    digest_key: bytes

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.meta = Meta(self.clock)
        self.ledger = Ledger(self.engine, patience=5)
        self.workers: list[Worker] = []
        self.amounts = dict.fromkeys(ROWS, "12.50")
        self.consents = dict.fromkeys(ROWS, True)
        self.started = datetime.now(UTC)
        self.read: set[str] = set()
        self.runs = 0
        self.gate: int | None = None
        with self.ledger.transaction() as cursor:
            for table in (
                "deliveries", "attempts", "batches", "workers", "validations", "runs",
            ):  # fmt: skip
                cursor.execute(f"delete from capi.{table}")
        self.set_clock()

    def set_clock(self) -> None:
        with self.ledger.transaction() as cursor:
            cursor.execute(
                "select set_config('capi.clock_offset', %s, false)",
                [f"{self.clock.ahead} seconds"],
            )

    @initialize(resend=st.sampled_from([True, True, False]))
    def choose_policy(self, resend: bool) -> None:
        self.policy = ResendPolicy(
            resend=resend, window_seconds=47 * HOUR, most_resends=2
        )

    # --- workers ----------------------------------------------------------------------

    def run(self, mode: str = "send") -> Run:
        self.runs += 1
        return self.ledger.open_run(
            f"machine/{self.runs}", feed=feed.feed, dataset_id=DATASET, mode=mode,
            interval=None, plan={},
        )  # fmt: skip

    def columns(self, numbers: list[int]) -> dict[str, list[Any]]:
        at = self.started - timedelta(hours=1)
        return {
            "order_id": [f"o-{n}" for n in numbers],
            "loaded_at": [at] * len(numbers),
            "bought_at": [at] * len(numbers),
            "event_id": ["twin" if n in TWINS else None for n in numbers],
            "email": [f"buyer{n}@shop.example" for n in numbers],
            "amount": [self.amounts[n] for n in numbers],
            "consent": [self.consents[n] for n in numbers],
        }

    def hire(
        self, numbers: list[int], *, gate: int | None, limit: int | None = None
    ) -> Worker:
        columns, run = self.columns(numbers), self.run()

        def begin(worker: Worker) -> Tally:
            worker.desk = Desk(
                worker.ledger, run, policy=self.policy, host="machine", pid=1,
                validation_id=gate,
            )  # fmt: skip
            return deliver(
                [columns],
                builder=Builder(
                    feed, dataset_id=DATASET, digest_key=self.digest_key,
                    today=datetime.now(UTC).date(),
                ),
                desk=worker.desk,
                post=worker.post,
                envelope=Envelope(),
                limits=feed.limits,
                now=self.clock.now,
                report=lambda _: None,
                limit=limit,
                wait=worker.stand,
                patience=Patience(tries=2, doubt_pause=20),
                probe=worker.stand,
            )  # fmt: skip

        worker = Worker(MortalLedger(self.engine, patience=5), begin, self.meta.answer)
        self.workers.append(worker)
        self.step(worker, "accept")
        self.read |= {f"o-{n}" for n in numbers} if worker.step != "the end" else set()
        return worker

    def step(self, worker: Worker, fate: str) -> None:
        worker.go(fate)
        if worker.ended:
            self.workers.remove(worker)
            tally = worker.tally
            if tally is not None:
                assert tally.settled == tally.rows, "a row has no outcome, or two"

    @precondition(lambda self: len(self.workers) < 3)
    @rule(numbers=SOME_ROWS, limit=st.sampled_from([None, None, None, 1, 3]))
    def a_run_starts(self, numbers: list[int], limit: int | None) -> None:
        self.hire(numbers, gate=self.gate, limit=limit)

    @precondition(lambda self: len(self.workers) < 3)
    @rule(numbers=SOME_ROWS, fate=FATES)
    def a_run_goes_from_start_to_end(self, numbers: list[int], fate: str) -> None:
        worker = self.hire(numbers, gate=self.gate)
        while not worker.ended:
            self.step(worker, fate)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 2), fate=FATES, steps=st.sampled_from([1, 2, 3, 99]))
    def a_worker_goes_on(self, which: int, fate: str, steps: int) -> None:
        worker = self.workers[which % len(self.workers)]
        for _ in range(steps):
            if not worker.ended:
                self.step(worker, fate)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 2), fate=FATES)
    def a_commit_is_not_heard_of(self, which: int, fate: str) -> None:
        worker = self.workers[which % len(self.workers)]
        worker.ledger.forgets = True
        self.step(worker, fate)

    @precondition(lambda self: self.workers)
    @rule(
        which=st.integers(0, 2), fate=FATES,
        when=st.sampled_from(["now", "before a commit", "after a commit"]),
    )  # fmt: skip
    def a_worker_dies(self, which: int, fate: str, when: str) -> None:
        worker = self.workers[which % len(self.workers)]
        worker.ledger.dies = when
        worker.ledger.dead = when == "now"
        while not worker.ended:
            worker.go(fate)
        self.workers.remove(worker)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 2))
    def a_lease_is_renewed(self, which: int) -> None:
        worker = self.workers[which % len(self.workers)]
        try:
            if worker.desk:
                worker.desk.renew()
        except CapiError:
            pass  # it is over; the worker will hear of it at its next step

    # --- time, upkeep, people ----------------------------------------------------------

    @rule(seconds=st.sampled_from([31, 61, 100, 181, HOUR, 24 * HOUR, 48 * HOUR]))
    def time_passes(self, seconds: int) -> None:
        self.clock.ahead += seconds
        self.set_clock()

    @rule()
    def a_rescue(self) -> None:
        self.ledger.rescue()

    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def a_tending(self) -> None:
        if keys := self.tend():
            self.hire(keys, gate=None)

    def tend(self) -> list[int]:
        self.ledger.rescue()
        oldest = datetime.fromtimestamp(self.clock.now(), UTC) - feed.longest_window
        self.ledger.expire(feed.feed, DATASET, oldest + feed.window.margin)
        self.ledger.close_doubt(feed.feed, DATASET, self.policy)
        keys = self.ledger.due_keys(feed.feed, DATASET, self.policy, limit=100)
        return [int(key.removeprefix("o-")) for key in keys]

    @rule(numbers=st.lists(st.sampled_from(ROWS), max_size=3, unique=True))
    def a_gate(self, numbers: list[int]) -> None:
        run = self.run()
        self.gate = self.ledger.open_validation(run, "suite")
        bad = [(f"o-{n}", "gate.failed") for n in numbers]
        self.ledger.quarantine(run, self.gate, bad, self.started)
        self.read |= {key for key, _ in bad}

    @rule(state=st.sampled_from(["quarantined", "refused", "withheld", "expired"]))
    def a_replay(self, state: str) -> None:
        choice = {
            "states": [state], "reason": None, "keys": None, "start": None, "end": None,
        }  # fmt: skip
        for key in self.ledger.replay(self.run("replay"), choice):
            # A person's word: Meta has refused it alone, so what went before is void.
            self.meta.receipts.pop(self.event_ids.get(key, ""), None)

    @rule(
        number=st.sampled_from(ROWS), amount=st.sampled_from(["12.50", "13.00", "-1"])
    )
    def a_row_changes(self, number: int, amount: str) -> None:
        self.amounts[number] = amount

    @rule(number=st.sampled_from(ROWS))
    def a_customer_changes_mind(self, number: int) -> None:
        self.consents[number] = not self.consents[number]

    @rule(number=st.sampled_from(ROWS))
    def meta_changes_its_mind(self, number: int) -> None:
        self.meta.guilty ^= {self.event_id_of(number)}

    def event_id_of(self, number: int) -> str:
        if number in TWINS:
            return "twin"
        return names.event_id(DATASET, "Purchase", f"o-{number}")

    # --- what must be true after every step -----------------------------------------------

    @property
    def event_ids(self) -> dict[str, str]:
        return {key: row["event_id"] for key, row in self.deliveries().items()}

    def deliveries(self) -> dict[str, dict[str, Any]]:
        with self.ledger.transaction() as cursor:
            cursor.execute("""
                select
                    d.source_key, d.state::text, d.reason, d.event_id, d.doubt_since,
                    b.state::text as batch_state, b.doubt_since as batch_doubt,
                    w.ended_at
                from capi.deliveries as d
                left join capi.batches as b using (batch_id)
                left join capi.workers as w using (worker_id)
            """)
            return {row["source_key"]: row for row in cursor.fetchall()}

    @invariant()
    def the_ledger_says_the_truth(self) -> None:
        found = self.deliveries()
        assert self.read <= found.keys(), "a row that was read is not in the ledger"
        accepted = set()
        for key, row in found.items():
            number = int(key.removeprefix("o-"))
            event_id = row["event_id"] if number in TWINS else self.event_id_of(number)
            seen, state = self.meta.receipts.get(event_id or ""), row["state"]
            doubt = row["doubt_since"]
            if state == "accepted":
                accepted.add(row["event_id"])
                assert seen, f"{key} is accepted, and Meta never had it"
            elif state in NOT_AT_META:
                assert not doubt, f"{key} is {state}, and in doubt"
                others = row["event_id"] in self.meta.accepted | accepted
                assert not seen or others, f"{key} is {state}, and at Meta"
            elif state == "in_doubt":
                assert doubt, f"{key} is in doubt since never"
            elif state == "refused":
                assert doubt or not seen, f"{key} is refused, and at Meta"
            else:
                assert row["batch_state"] in ("claimed", "sending"), key
                assert row["ended_at"] is None, f"{key} is on the desk of nobody"
                sure = row["batch_state"] == "claimed" and not row["batch_doubt"]
                assert doubt or not sure or not seen, f"{key} is claimed, and at Meta"
        assert accepted >= self.meta.accepted, "an acceptance was taken back"
        self.meta.accepted |= accepted

    @invariant()
    def batches_attempts_and_deliveries_agree(self) -> None:
        with self.ledger.transaction() as cursor:
            cursor.execute("""
                select b.batch_id, b.state::text, b.events, b.attempts,
                    w.ended_at is not null as ended,
                    (select count(*) from capi.attempts a
                        where a.batch_id = b.batch_id) as made,
                    (select count(*) from capi.attempts a
                        where a.batch_id = b.batch_id and a.outcome = 'sending') as flying,
                    (select count(*) from capi.deliveries d
                        where d.batch_id = b.batch_id and d.state = 'claimed') as claimed
                from capi.batches b join capi.workers w using (worker_id)
            """)
            for row in cursor.fetchall():
                live = row["state"] in ("claimed", "sending")
                assert row["claimed"] == (row["events"] if live else 0), row
                assert row["flying"] == (row["state"] == "sending"), row
                assert row["made"] == row["attempts"], row
                assert not (live and row["ended"]), row

    # --- and when the faults are over --------------------------------------------------------

    def teardown(self) -> None:
        """Let everybody end, and Meta and the rows be sound: nothing may still be owed."""
        try:
            self.settle_down()
        finally:
            for worker in self.workers:
                worker.ledger.dead = True
                while not worker.ended:
                    worker.go()

    def settle_down(self) -> None:
        for worker in list(self.workers):
            while not worker.ended:
                self.step(worker, "accept")
        self.clock.ahead += 181
        self.set_clock()
        self.ledger.rescue()
        if not hasattr(self, "policy"):
            return
        self.amounts = dict.fromkeys(ROWS, "12.50")
        self.consents = dict.fromkeys(ROWS, True)
        self.meta.guilty.clear()
        gate = self.ledger.open_validation(self.run(), "suite")
        for _ in range(4):
            self.clock.ahead += 61
            self.set_clock()
            for numbers in (list(ROWS), self.tend()):
                worker = self.hire(numbers, gate=gate) if numbers else None
                while worker and not worker.ended:
                    self.step(worker, "accept")
                self.the_ledger_says_the_truth()
        self.batches_attempts_and_deliveries_agree()
        states = Counter(row["state"] for row in self.deliveries().values())
        assert not states["pending"], states
        assert not states["claimed"], states


@pytest.fixture
def machine(database: Database) -> Iterator[type[Deliveries]]:
    engine = create_engine(database.url, pool_size=1, max_overflow=0, pool_timeout=20)
    ledger = Ledger(engine)
    ledger.migrate()

    class Bound(Deliveries):
        pass

    Bound.engine, Bound.digest_key = engine, ledger.digest_key()
    yield Bound
    engine.dispose()


def test_nothing_is_lost_doubled_or_wrongly_believed_in_any_order(
    machine: type[Deliveries],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
