"""Claim, build, post, judge, settle: the whole story.

A worker reads its rows in slices. Each slice is built into events, recorded and claimed
in one step; its batches go out, several at a time, and every answer is written down
before anything else is done about it. Rows, `post`, `now` and `wait` are handed in.

If the worker dies on any line here, the ledger says one of three things of a delivery,
and each is true: *pending* (nothing went out), *in doubt* (a request had begun), or
*accepted* (Meta said so).
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, assert_never

from meta_capi import verdict as judge
from meta_capi.desk import LEASE_SECONDS, Desk
from meta_capi.errors import CapiError, LeaseLostError, NoAnswerError, StoppedError
from meta_capi.event import Builder, Built, Columns
from meta_capi.feed import Limits
from meta_capi.lifecycle import State
from meta_capi.payload import Batch, Envelope, OwedEvent
from meta_capi.verdict import (
    Accepted,
    Answer,
    NotSent,
    Receipt,
    Refused,
    Stopped,
    Throttled,
    Unknown,
    Verdict,
)

__all__ = ["Patience", "Post", "Tally", "deliver", "rehearse"]

Post = Callable[[bytes], Answer]
Wait = Callable[[float], object]
"""Wait some seconds; may come back early when the worker is told to stop."""

_REPORT_SECONDS: Final = 5.0
# Single events asked about before a no to everything is believed.
_PROBES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a worker bears with Meta before it gives its batches back. Seconds."""

    tries: int = 4
    """Requests for one batch, throttles not counted."""
    first_pause: float = 1.0
    longest_wait: float = 300.0
    """A throttle that asks for more is left to a later run."""
    doubt_pause: float = 60.0
    """The rest before an event in doubt may go out again."""
    failures_in_a_row: int = 5
    """Batches without any answer, one after the other, after which the worker stops."""


@dataclass(slots=True)
class Tally:
    """What became of the rows read so far. Sums up to `rows` when all is settled."""

    rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Rows by state. A row accepted by an earlier run counts as accepted."""
    reasons: Counter[str] = field(default_factory=Counter)
    flaws: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    accepted_now: int = 0
    splits: int = 0
    bytes_sent: int = 0

    def settle(self, state: State | str, count: int, reason: str | None = None) -> None:
        """Count rows that reached a state."""
        self.outcomes[str(state)] += count
        if reason and count:
            self.reasons[reason] += count

    @property
    def settled(self) -> int:
        """Rows that have an outcome."""
        return self.outcomes.total()


def rehearse(slices: Iterable[Columns], builder: Builder, now: Callable[[], float]) -> Tally:
    """Build everything and send nothing: a dry run has no way to post."""
    tally = Tally()
    for columns in slices:
        built = builder.build(columns, int(now()))
        tally.rows += len(built)
        tally.flaws.update(built.flaws)
        tally.bytes_sent += sum(len(body) for body in built.bodies if body)
        for state, reason in zip(built.states, built.reasons, strict=True):
            tally.settle("would be sent" if reason is None else state, 1, reason)
    return tally


def deliver(
    slices: Iterable[Columns],
    *,
    builder: Builder,
    desk: Desk,
    post: Post,
    envelope: Envelope,
    limits: Limits,
    now: Callable[[], float],
    wait: Wait,
    report: Callable[[Tally], None],
    limit: int | None = None,
    patience: Patience | None = None,
    lease_seconds: float = LEASE_SECONDS,
    probe: Callable[[str], None] = lambda _: None,
) -> Tally:
    """Deliver the rows of one shard.

    Args:
        slices: the rows, in columns.
        post: sends one body; raises NoAnswerError where no answer came.
        limit: send at most this many events; the rest stay pending.
        report: told of the tally every few seconds.
        probe: told the name of each step as it is made; tests use it to die there.

    Returns:
        The tally; every row read has an outcome.

    Raises:
        StoppedError: Meta takes nothing from this token or dataset.
        LeaseLostError: another process has taken over what this worker held.
    """
    tally = Tally()
    line = _Line(desk, post, envelope, limits, wait, tally, patience or Patience(), probe)
    try:
        with _lease_kept(desk, line, lease_seconds / 6), line.open(report):
            room = limit
            for columns in slices:
                built = builder.build(columns, int(now()))
                sendable = len(built.sendable)
                line.hold_back(built, room)
                claimed = desk.claim(
                    built,
                    most_events=limits.events_per_request,
                    most_bytes=limits.bytes_per_request,
                )
                probe("after_claim")
                line.note(built, claimed.standing)
                for batch in claimed.batches:
                    line.send(batch)
                if room is not None:
                    room -= min(room, sendable)
    finally:
        left = desk.leave()
        tally.settle(State.PENDING, left["pending"], "worker.released")
        tally.settle(State.IN_DOUBT, left["in_doubt"], "worker.lost")
    if line.failure:
        raise line.failure
    return tally


@contextmanager
def _lease_kept(desk: Desk, line: _Line, every: float) -> Iterator[None]:
    """Renew the lease beside the work; a lost lease ends the work."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(every):
            try:
                desk.renew()
            except CapiError as error:
                line.fail(error)
                return

    keeper = threading.Thread(target=keep, name="capi-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


@dataclass(slots=True)
class _Siblings:
    """The parts of one split batch: if all but one were accepted, that one is guilty."""

    parts: int
    accepted: int = 0

    @property
    def leave_one_guilty(self) -> bool:
        return self.accepted == self.parts - 1


_Queue = deque[tuple[Batch, _Siblings | None]]


class _Line:
    """The requests in flight, and what their answers lead to."""

    def __init__(
        self, desk: Desk, post: Post, envelope: Envelope, limits: Limits, wait: Wait,
        tally: Tally, patience: Patience, probe: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._desk = desk
        self._post = post
        self._envelope = envelope
        self._limits = limits
        self._wait = wait
        self._tally = tally
        self._patience = patience
        self._probe = probe
        self._lock = threading.Lock()
        self._gate = threading.Lock()  # held while Meta asks everyone to wait
        self._room = threading.Semaphore(2 * limits.requests_in_flight)
        self._pool = ThreadPoolExecutor(limits.requests_in_flight, "capi-send")
        self._flying: set[Future[None]] = set()
        self._report: Callable[[Tally], None] = lambda _: None
        self._unanswered = 0
        self.halted: str | None = None
        self.failure: CapiError | None = None

    # --- the worker's side ----------------------------------------------------------

    @contextmanager
    def open(self, report: Callable[[Tally], None]) -> Iterator[None]:
        """Take batches until the end of the block, then let the last ones land."""
        self._report = report
        try:
            yield
            while self._flying:
                _, self._flying = wait_for(self._flying, timeout=_REPORT_SECONDS)
                report(self._tally)
        except BaseException:
            self.halt("worker.released")
            raise
        finally:
            self._pool.shutdown(wait=True)
            report(self._tally)

    def hold_back(self, built: Built, room: int | None) -> None:
        """Keep rows pending that may not go out: beyond the limit, or after a halt."""
        reason = self.halted
        rows = built.sendable if reason else built.sendable[room:] if room is not None else []
        for row in rows:
            built.hold(row, State.PENDING, reason or "limit")

    def note(self, built: Built, standing: Counter[tuple[str, str | None]]) -> None:
        """Count a slice and the rows of it that are not to be sent."""
        with self._lock:
            self._tally.rows += len(built)
            self._tally.flaws.update(built.flaws)
            for (state, reason), count in standing.items():
                # Another worker's claim is that worker's to settle.
                shown = State.PENDING if state == State.CLAIMED else state
                self._tally.settle(shown, count, None if state == State.ACCEPTED else reason)
        self._report(self._tally)

    def send(self, batch: Batch) -> None:
        """Hand a batch to a sender; blocks while enough are in flight."""
        while not self._room.acquire(timeout=_REPORT_SECONDS):
            self._report(self._tally)
        future = self._pool.submit(self._deliver, batch)
        self._flying = {each for each in self._flying if not each.done()} | {future}

    def halt(self, reason: str) -> None:
        """Begin nothing more; what has begun is ended properly."""
        with self._lock:
            self.halted = self.halted or reason

    def fail(self, error: CapiError) -> None:
        """Halt, and let the worker end with this error."""
        with self._lock:
            self.failure = self.failure or error
        self.halt("worker.released" if isinstance(error, LeaseLostError) else "stopped")

    # --- one batch --------------------------------------------------------------------

    def _deliver(self, batch: Batch) -> None:
        try:
            self._deliver_until_settled(batch)
        except CapiError as error:
            self.fail(error)
        finally:
            self._room.release()

    def _deliver_until_settled(self, root: Batch) -> None:
        """Send a batch; while Meta refuses, split it until the guilty stand alone.

        Breadth first, so that a no to everything shows after seven requests.
        """
        queue: _Queue = deque([(root, None)])
        refusals: list[Refused] = []
        used = 0
        while queue:
            batch, siblings = queue.popleft()
            if used >= self._limits.requests_per_split:
                self._give_up([batch, *(each for each, _ in queue)])
                return
            if siblings and siblings.leave_one_guilty and len(batch) > 1:
                parts, reason = _halves(batch.events), "split.inferred"
            else:
                used += 1
                verdict = self._send(batch)
                if isinstance(verdict, Accepted) and siblings:
                    siblings.accepted += 1
                if not isinstance(verdict, Refused) or len(batch) == 1:
                    continue
                refusals.append(verdict)
                if used == len(refusals) == 7 and self._nothing_but(verdict, refusals):
                    queue.appendleft((batch, None))
                    queue = self._without_a_no_to_everything(queue, verdict)
                    used += _PROBES
                    continue
                parts, reason = _parts(batch, verdict.blamed), verdict.reason
            children = self._split(batch, parts, reason)
            family = _Siblings(len(children))
            queue.extend((child, family) for child in children)

    def _split(
        self, batch: Batch, parts: list[tuple[OwedEvent, ...]], reason: str
    ) -> list[Batch]:
        children = self._desk.split(batch, parts, reason)
        self._probe("after_split")
        with self._lock:
            self._tally.splits += 1
        return children

    def _send(self, batch: Batch, *, blame: bool = True) -> Verdict | None:
        """Send one batch and settle the answer. None: it was given back unsent.

        A refused batch of several events is left on the desk, to be split; so is a
        single event that is not to be blamed yet.
        """
        body = self._envelope.wrap(batch.events)
        tries = throttles = 0
        while True:
            if self.halted:
                return self._give_back(batch, self.halted)
            with self._gate:
                pass
            seq = self._desk.begin(batch)
            self._probe("after_begin")
            verdict = self._ask(body, len(batch))
            self._probe("after_answer")
            with self._lock:
                self._tally.requests += 1
                self._tally.bytes_sent += len(body)
            match verdict:
                case Accepted():
                    return self._accepted(batch, seq, verdict)
                case Refused():
                    return self._refused(batch, seq, verdict, blame)
                case Stopped():
                    return self._stopped(batch, seq, verdict)
                case Throttled():
                    throttles += 1
                    self._throttled(batch, seq, verdict, throttles)
                case NotSent() | Unknown():
                    tries += 1
                    if self._unanswered_for_good(batch, seq, verdict, tries):
                        return verdict
                case _:
                    assert_never(verdict)

    def _ask(self, body: bytes, events: int) -> Verdict:
        try:
            return judge.read(self._post(body), events=events)
        except NoAnswerError as error:
            return Unknown(Receipt(), "answer.none") if error.body_left else NotSent()

    # --- what an answer leads to --------------------------------------------------------

    def _accepted(self, batch: Batch, seq: int, verdict: Accepted) -> Verdict:
        self._desk.settle(
            batch, seq, outcome="accepted", receipt=verdict.receipt, batch_state="accepted",
            delivery_state=State.ACCEPTED,
        )  # fmt: skip
        self._probe("after_settle")
        with self._lock:
            self._unanswered = 0
            self._tally.accepted_now += len(batch)
            self._tally.settle(State.ACCEPTED, len(batch))
        return verdict

    def _refused(self, batch: Batch, seq: int, verdict: Refused, blame: bool) -> Verdict:
        alone = len(batch) == 1 and blame
        self._desk.settle(
            batch, seq, outcome="refused", receipt=verdict.receipt,
            batch_state="refused" if alone else "claimed",
            delivery_state=State.REFUSED if alone else None, reason=verdict.reason,
        )  # fmt: skip
        self._probe("after_settle")
        with self._lock:
            self._unanswered = 0
            if alone:
                self._tally.settle(State.REFUSED, 1, verdict.reason)
        return verdict

    def _stopped(self, batch: Batch, seq: int, verdict: Stopped) -> Verdict:
        self._settle_back(batch, seq, "stopped", verdict.receipt, "stopped")
        self.fail(_stopped_error(verdict))
        return verdict

    def _throttled(self, batch: Batch, seq: int, verdict: Throttled, times: int) -> None:
        seconds = verdict.wait_seconds or min(60.0, self._patience.first_pause * 2**times)
        self._desk.settle(
            batch, seq, outcome="throttled", receipt=verdict.receipt, batch_state="claimed",
            delivery_state=None, wait_seconds=seconds,
        )  # fmt: skip
        if seconds > self._patience.longest_wait or times > 20:
            self.halt("throttled")
            return
        with self._gate:
            self._wait(seconds)

    def _unanswered_for_good(
        self, batch: Batch, seq: int, verdict: NotSent | Unknown, tries: int
    ) -> bool:
        """Settle a request without a usable answer; True if it is not tried again."""
        proven = isinstance(verdict, NotSent)
        again = tries < self._patience.tries and (proven or self._desk.resends)
        outcome = "not_sent" if proven else "unknown"
        reason = "not_sent" if isinstance(verdict, NotSent) else verdict.reason
        if again:
            self._desk.settle(
                batch, seq, outcome=outcome, receipt=verdict.receipt, delivery_state=None,
                batch_state="claimed" if proven else "sending", reason=reason,
            )  # fmt: skip
            self._wait(self._patience.first_pause * 2 ** (tries - 1))
            return False
        if proven:
            self._settle_back(batch, seq, outcome, verdict.receipt, reason)
        else:
            settled = self._desk.settle(
                batch, seq, outcome=outcome, receipt=verdict.receipt, batch_state="in_doubt",
                delivery_state=State.IN_DOUBT, reason=reason,
                pause_seconds=self._patience.doubt_pause,
            )  # fmt: skip
            with self._lock:
                self._tally.settle(State.IN_DOUBT, settled.moved, reason)
        self._probe("after_settle")
        with self._lock:
            self._unanswered += 1
            too_many = self._unanswered >= self._patience.failures_in_a_row
        if too_many:
            self.halt("not_sent")
        return True

    def _settle_back(
        self, batch: Batch, seq: int, outcome: str, receipt: Receipt, reason: str
    ) -> None:
        """Settle a request that provably was not processed: the deliveries are owed again."""
        settled = self._desk.settle(
            batch, seq, outcome=outcome, receipt=receipt, batch_state="released",
            delivery_state=State.PENDING, reason=reason,
        )  # fmt: skip
        with self._lock:
            self._tally.settle(State.PENDING, settled.moved - settled.in_doubt, reason)
            self._tally.settle(State.IN_DOUBT, settled.in_doubt, "answer.unclear")

    def _give_back(self, batch: Batch, reason: str) -> None:
        if isinstance(self.failure, LeaseLostError):
            return  # what this desk held is the rescue's
        self._count(self._desk.release([batch], reason=reason), reason)

    def _give_up(self, batches: list[Batch]) -> None:
        """Quarantine what the requests allowed for one split did not suffice to clear."""
        moved = self._desk.release(batches, reason="split.budget", state=State.QUARANTINED)
        self._count(moved, "split.budget")

    def _count(self, moved: Counter[str], reason: str) -> None:
        with self._lock:
            for state, count in moved.items():
                self._tally.settle(state, count, reason)

    # --- a no to everything ---------------------------------------------------------------

    def _nothing_but(self, verdict: Refused, refusals: list[Refused]) -> bool:
        """Tell whether Meta has said nothing to this worker but this one no."""
        with self._lock:
            nothing_accepted = self._tally.accepted_now == 0
        return nothing_accepted and {each.reason for each in refusals} == {verdict.reason}

    def _without_a_no_to_everything(self, queue: _Queue, no: Refused) -> _Queue:
        """Ask about single events from all over the batch before any event is blamed.

        A batch, its halves and its quarters were refused alike. Either there is a guilty
        event in every quarter, and some of the others are taken; or no event is to
        blame, and Meta takes none: then the worker stops, and blames nobody.

        Returns:
            What is left to send; nothing after a stop.
        """
        left: _Queue = deque()
        verdicts: list[Verdict | None] = []
        refused: list[Batch] = []
        for number, (batch, siblings) in enumerate(queue):
            if number % 2 or len(verdicts) == _PROBES or len(batch) == 1:
                left.append((batch, siblings))
                continue
            middle = len(batch) // 2
            one = batch.events[middle : middle + 1]
            others = batch.events[:middle] + batch.events[middle + 1 :]
            probe, remainder = self._split(batch, [one, others], no.reason)
            left.append((remainder, None))
            verdicts.append(self._send(probe, blame=False))
            if isinstance(verdicts[-1], Refused):
                refused.append(probe)
        left.extend((probe, None) for probe in refused)
        if len(refused) < len(verdicts):
            return left
        self._count(self._desk.release([batch for batch, _ in left], reason="stopped"), "stopped")
        self.fail(
            StoppedError(
                f"Meta refuses every part of a batch with {_codes(no.receipt)}, single events "
                "too, and has accepted nothing from this worker. That is not one bad event: "
                "look at the feed's mapping and at the dataset. All rows stay pending."
            )
        )
        return deque()


def _halves(events: tuple[OwedEvent, ...]) -> list[tuple[OwedEvent, ...]]:
    middle = len(events) // 2
    return [events[:middle], events[middle:]]


def _parts(batch: Batch, blamed: int | None) -> list[tuple[OwedEvent, ...]]:
    """Cut in halves, or take out the event that Meta's answer points at.

    Only the first answer's word is taken: where it is wrong, halving goes on.
    """
    events = batch.events
    if blamed is None or batch.depth > 0 or blamed >= len(events):
        return _halves(events)
    return [events[blamed : blamed + 1], events[:blamed] + events[blamed + 1 :]]


def _codes(receipt: Receipt) -> str:
    subcode = f", subcode {receipt.subcode}" if receipt.subcode else ""
    trace = f", trace {receipt.fbtrace_id}" if receipt.fbtrace_id else ""
    return f"code {receipt.code}{subcode}{trace}"


def _stopped_error(verdict: Stopped) -> StoppedError:
    receipt = verdict.receipt
    says = _codes(receipt) if receipt.code is not None else f"HTTP {receipt.http_status}"
    return StoppedError(
        f"Meta stopped the run: {verdict.sentence} ({says}). No event is to blame; all rows "
        "stay pending. Mend the connection, then run again."
    )
