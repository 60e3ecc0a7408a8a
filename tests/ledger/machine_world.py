"""The world of the state machine: its clock, its mortal workers, and what Meta really did.

A worker is a real delivery in a thread of its own. It stands still after each of its
steps until the machine lets it go on, so that nothing ever happens twice at a time and
any order can be played again.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import psycopg
from psycopg.rows import scalar_row
from sqlalchemy import Engine
from tests.ledger.conftest import FEED, HOUR

from meta_capi import spec
from meta_capi.built import Built
from meta_capi.claiming import Claimed
from meta_capi.desk import COVER_SECONDS, LEASE_SECONDS, Desk
from meta_capi.dispatch import Tally
from meta_capi.errors import CapiError, LeaseLostError, NoAnswerError, StoppedError
from meta_capi.feed import Feed, parse
from meta_capi.ledger import Ledger, ResendPolicy
from meta_capi.payload import Batch
from meta_capi.sql import queries
from meta_capi.verdict import Answer

WINDOW = 47 * HOUR  # in which we repeat: an hour less than Meta's
MOST_RESENDS = 2
_TAKE_NEW = queries("ledger")["take_new"]


def feed_of(most_events: int) -> Feed:
    """Return the feed, with requests of so many events."""
    feed = parse(FEED)
    limits = feed.limits.model_copy(
        update={
            "events_per_request": most_events,
            "requests_in_flight": 1,
            "requests_per_split": 2 * most_events + 1,
            "in_doubt_resends": MOST_RESENDS,
        }
    )
    return feed.model_copy(update={"limits": limits})


class Killed(BaseException):
    """The process is gone; nothing of it tidies up."""


class _RolledBackError(Exception):
    """As PostgreSQL does for the dead; an ordinary one spares the connection."""


@dataclass
class Clock:
    """The one time of all machines: the real one, run ahead."""

    ahead: float = 0.0

    def now(self) -> float:
        """Return the seconds since 1970."""
        return time.time() + self.ahead


@dataclass
class Happened:
    """What has happened: so many of each, and whether anything since the last look."""

    counts: Counter[str]
    unseen: bool = True

    def note(self, what: str, count: int = 1) -> None:
        """Count something that may have changed the ledger or Meta."""
        self.counts[what] += count
        self.unseen = True


class WatchedLedger(Ledger):
    """A ledger that says when it was touched."""

    def __init__(self, engine: Engine, happened: Happened, **more: Any) -> None:
        super().__init__(engine, patience=60, **more)
        self._happened = happened

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        """Yield a cursor."""
        self._happened.note("transactions")
        with super().transaction() as cursor:
            yield cursor


class MortalLedger(WatchedLedger):
    """A worker's ledger, which dies with it, before or after a commit of one's choice."""

    dead = False
    dies: str | None = None
    forgets = False
    pauses: Callable[[str], None] | None = None
    """Called once, in the middle of a claim, if nothing of it is locked by then."""
    pauses_after = "compare"

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        """Yield a cursor, to the living."""
        if self.dead:
            raise Killed
        try:
            with super().transaction() as cursor:
                yield cast(Any, _Paused(cursor, self)) if self.pauses else cursor
                if self.dies == "death before a commit":
                    raise _RolledBackError
        except _RolledBackError:
            self.dead = True
            raise Killed from None
        if self.dies == "death after a commit":
            self.dead = True
            raise Killed
        if self.forgets:
            self.forgets = False
            self._happened.note("lost commits")
            raise psycopg.OperationalError("the answer to COMMIT is lost")

    def moves_to(self, engine: Engine) -> None:
        """Speak over another line from now on."""
        self._engine = engine


class _Paused:
    """A cursor that stands still after one statement of a claim."""

    def __init__(
        self, cursor: psycopg.Cursor[dict[str, Any]], ledger: MortalLedger
    ) -> None:
        self._cursor = cursor
        self._ledger = ledger

    def execute(self, query: Any, *values: Any) -> psycopg.Cursor[dict[str, Any]]:
        done = self._cursor.execute(query, *values)
        ledger = self._ledger
        if query == _TAKE_NEW and done.rowcount < self._rows():
            ledger.pauses = None  # whoever wants the same rows waits for their locks
        elif query == queries("ledger")[ledger.pauses_after] and ledger.pauses:
            pause, ledger.pauses = ledger.pauses, None
            pause("inside the claim")
        return done

    def _rows(self) -> int:
        """Return how many rows the claim has in hand."""
        with self._cursor.connection.cursor(row_factory=scalar_row) as cursor:
            return int(cursor.execute("select count(*) from incoming").fetchone() or 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class MachineDesk(Desk):
    """A desk that remembers what it took, and which batch was begun last."""

    took = 0
    begun: int | None = None

    def claim(self, built: Built, **how: Any) -> Claimed:
        """Record a slice and take what may be sent."""
        claimed = super().claim(built, **how)
        self.took = len(claimed.batches)
        return claimed

    def begin(self, batch: Batch) -> int | None:
        """Write down that a request is about to leave."""
        self.begun = batch.batch_id
        return super().begin(batch)


class Worker:
    """A delivery in a thread of its own, which stands still after each of its steps."""

    def __init__(
        self, happened: Happened, clock: Clock, post: Callable[[bytes, str, float], Answer],
        withheld: frozenset[str],
    ) -> None:  # fmt: skip
        self.desk: MachineDesk | None = None
        self.step = "the door"
        self.fate = "accept"
        self.tally: Tally | None = None
        self.failure: BaseException | None = None
        self.heard: int | None = None  # the batch whose acceptance it has in hand
        self._happened = happened
        self._clock = clock
        self._hired_at = self._began_at = clock.now()
        self._wrong: AssertionError | None = None
        self._met: Counter[str] = Counter()
        self._post = post
        self._withheld = withheld
        self._go, self._stood = threading.Semaphore(0), threading.Semaphore(0)

    def start(self, ledger: MortalLedger, begin: Callable[[], Tally]) -> None:
        """Come to life, at the door."""
        self.ledger = ledger
        threading.Thread(target=self._live, args=(begin,), daemon=True).start()

    def _live(self, begin: Callable[[], Tally]) -> None:
        self._go.acquire()
        try:
            self.tally = begin()
        except BaseException as error:  # it is judged by the machine
            self.failure = error
        self.step = "the end"
        self._stood.release()

    def stand(self, step: str | float) -> None:
        """Stand still until the machine says go; dies here if it has been killed."""
        self.step = str(step)
        if step == "after_begin":
            self._began_at = self._clock.now()
        self._stood.release()
        self._go.acquire()
        if self.ledger.dead:
            raise Killed

    def go(self, fate: str = "accept") -> None:
        """Take one step, meeting this fate if it is a request."""
        self._happened.counts["worker steps"] += 1
        self.fate = fate
        self._go.release()
        assert self._stood.acquire(timeout=30), f"stuck after {self.step}"
        if self._wrong:
            raise self._wrong
        if self.failure:
            self._judge(self.failure)

    def _judge(self, failure: BaseException) -> None:
        """Let pass what a worker may end with, for a good reason."""
        match failure:
            case Killed():
                assert self.ledger.dead
            case LeaseLostError():
                age = self._clock.now() - self._hired_at
                assert age > LEASE_SECONDS - COVER_SECONDS - 1, "its lease was not over"
            case StoppedError():
                reason = self._met["stop"] or self._met["refused"] >= 7
                assert reason, "it stopped, and Meta did not say so"
            case CapiError() if type(failure) is CapiError:
                assert self._met["a fault of the program"], "it broke by itself"
            case _:
                raise failure

    @property
    def ended(self) -> bool:
        """Whether there is nothing more of it."""
        return self.step == "the end"

    def post(self, body: bytes) -> Answer:
        """Send a request to the machine's Meta."""
        self._met[self.fate] += 1
        self.heard = None
        try:
            ids = {each["event_id"] for each in json.loads(body)["data"]}
            assert self._withheld.isdisjoint(ids), "an event without consent is sent"
            age = self._clock.now() - self._began_at
            assert age < spec.REQUEST_DEADLINE_SECONDS + 1, "it was begun long ago"
            answer = self._post(body, self.fate, self._began_at)
        except AssertionError as error:
            self._wrong = error  # the worker would take it for a fault of its own
            raise
        self._met["refused"] += answer.status == 400
        if answer.status == 200 and self.fate == "accept" and self.desk:
            self.heard = self.desk.begun
        return answer


# What may become of a request, besides that it is accepted.
TROUBLES = (
    "lost", "lost, processed", "lost, processed", "server error",
    "server error, processed", "a page", "a page, processed", "miscounted",
    "miscounted, processed", "not_sent", "throttle", "long throttle", "stop",
    "a fault of the program",
)  # fmt: skip
# Whether Meta has processed it, nobody on our side can tell.
_UNCLEAR = ("lost", "server error", "a page", "miscounted", "a fault")


@dataclass
class Meta:
    """What Meta really did: whom it refuses, and when it processed what."""

    clock: Clock
    happened: Happened
    policy: ResendPolicy | None = None
    guilty: set[str] = field(default_factory=set)
    receipts: dict[str, tuple[float, object]] = field(default_factory=dict)
    """Event ids it has: since when, and as what."""
    refused_alone: set[str] = field(default_factory=set)
    unclear: set[str] = field(default_factory=set)
    """Event ids in requests that nobody got a trustworthy answer to."""
    unclear_answers: int = 0
    accepted: set[str] = field(default_factory=set)
    """Event ids the ledger has ever called accepted."""

    def answer(self, body: bytes, fate: str, begun: float) -> Answer:
        """Answer one request, and judge whether it should have been made."""
        events = {each["event_id"]: each for each in json.loads(body)["data"]}
        ids = list(events)
        assert len(ids) == len(json.loads(body)["data"]), "an event stands there twice"
        self._judge(events, begun)
        self.happened.note("requests")
        if fate == "not_sent":
            raise NoAnswerError("Connection refused.", body_left=False)
        if fate in ("throttle", "long throttle"):
            wait = {"throttle": "20", "long throttle": "3600"}[fate]
            return Answer(429, {"Retry-After": wait}, b"{}")
        if fate == "stop":
            return Answer(400, {}, b'{"error":{"code":190}}')
        bad = not self.guilty.isdisjoint(ids)
        if fate.startswith(_UNCLEAR):
            self.happened.note("unclear answers")
            self.unclear_answers += 1
            self.unclear.update(ids)
            if not bad:
                self._process(events, ids[:-1] if fate == "miscounted" else ids, fate)
            return self._unclear(fate, len(ids))
        if bad:
            self.happened.note("refusals")
            self.refused_alone.update(ids if len(ids) == 1 else ())
            return Answer(400, {}, b'{"error":{"code":100,"error_subcode":2804019}}')
        self._process(events, ids, "processed")
        return Answer(200, {}, b'{"events_received":%d}' % len(ids))

    def _judge(self, events: dict[str, object], begun: float) -> None:
        assert self.policy
        assert self.accepted.isdisjoint(events), "an accepted event is sent again"
        again = (self.unclear | self.receipts.keys()) & events.keys()
        assert self.policy.resend or not again, "a repeat, and the feed holds"
        self.happened.note("repeats", len(again))
        for each in self.receipts.keys() & events.keys():
            first, event = self.receipts[each]
            assert events[each] == event, "a repeat that Meta cannot recognise"
            late = begun - first
            most = self.policy.window_seconds + 1  # begun a moment before it is seen
            assert late <= most, f"a repeat after {late / HOUR:.2f} hours"

    def _process(self, events: dict[str, Any], ids: list[str], fate: str) -> None:
        if fate.endswith(("processed", "miscounted", "program")):
            for each in ids:
                self.receipts.setdefault(each, (self.clock.now(), events[each]))

    def _unclear(self, fate: str, events: int) -> Answer:
        match fate.split(",")[0]:
            case "lost":
                raise NoAnswerError("No answer came.", body_left=True)
            case "server error":
                return Answer(500, {}, b"")
            case "a page":
                return Answer(200, {}, b"<html>Sign in.</html>")
            case "miscounted":
                return Answer(200, {}, b'{"events_received":%d}' % (events - 1))
            case _:
                raise RuntimeError("this program has a fault")

    def forget(self, event_id: str) -> None:
        """A person has taken the word of a refusal: what went before is void."""
        self.receipts.pop(event_id, None)
        self.unclear.discard(event_id)
