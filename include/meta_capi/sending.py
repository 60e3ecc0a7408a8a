"""One batch goes out, and its answer is settled before anything else is done about it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from meta_capi import spec
from meta_capi import verdict as judge
from meta_capi.desk import Desk
from meta_capi.errors import CapiError, LeaseLostError, NoAnswerError, StoppedError
from meta_capi.lifecycle import State
from meta_capi.payload import Batch, Envelope
from meta_capi.tally import Tally
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

__all__ = ["Patience", "Post", "Sender", "Wait", "codes_of"]

Post = Callable[[bytes], Answer]
Wait = Callable[[float], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a worker bears with Meta before it gives its batches back. Seconds."""

    tries: int = 4
    """Requests for one batch, throttles not counted."""
    first_pause: float = 1.0
    longest_wait: float = 300.0
    """Throttles that ask one batch for more, in all, are left to a later run."""
    doubt_pause: float = 60.0
    """The rest before an event in doubt may go out again."""
    failures_in_a_row: int = 5
    """Batches without any answer, one after the other, after which the worker stops."""


class Sender:
    """Sends batches of one desk, from several threads; knows when to stop.

    Args:
        post: sends one body; raises NoAnswerError where no answer came.
        now: the seconds since 1970, by the clock on the wall.
        wait: waits some seconds, and comes back early after a halt; None for the
            sender's own.
        probe: told the name of each step as it is made.
        in_flight: the most requests that are out at a time.
    """

    def __init__(
        self, desk: Desk, post: Post, envelope: Envelope, tally: Tally,
        patience: Patience, now: Callable[[], float], wait: Wait | None,
        probe: Callable[[str], None], in_flight: int,
    ) -> None:  # fmt: skip
        self._desk = desk
        self._post = post
        self._envelope = envelope
        self._tally = tally
        self._patience = patience
        self._now = now
        self._probe = probe
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait
        self._gate = threading.Lock()  # held while Meta asks everyone to wait
        # A place for each request that may be out.
        self._slots = threading.Semaphore(in_flight)
        self._unanswered = 0
        self.halted: str | None = None
        self.failure: CapiError | None = None

    def halt(self, reason: str) -> None:
        """Begin nothing more; what has begun is ended properly."""
        with self._tally.locked():
            self.halted = self.halted or reason
        self._stopping.set()

    def fail(self, error: CapiError) -> None:
        """Halt, and let the worker end with this error."""
        with self._tally.locked():
            self.failure = self.failure or error
        self.halt("worker.released" if isinstance(error, LeaseLostError) else "stopped")

    def send(self, batch: Batch, *, blame: bool = True) -> Verdict | None:
        """Send one batch and settle the answer. None: it was given back unsent.

        A refused batch of several events is left on the desk, to be split; so is a
        single event that is not to be blamed yet.
        """
        body = self._envelope.wrap(batch.events)
        tries, waited = 0, 0.0
        while True:
            with self._slots:
                with self._gate:
                    pass
                if self.halted:
                    self.give_back([batch], self.halted)
                    return None
                begun = self._now()
                seq = self._desk.begin(batch)
                if seq is None:  # Meta would not know the repeat any more
                    self.give_back([batch], "not_sent")
                    return None
                self._probe("after_begin")
                verdict = self._ask(body, len(batch), begun)
                self._probe("after_answer")
                with self._tally.locked():
                    self._tally.requests += 1
                    self._tally.bytes_sent += len(body)
                match verdict:
                    case Stopped():
                        return self._stopped(batch, seq, verdict)
                    case Throttled():
                        waited += self._throttled(batch, seq, verdict, waited)
                        continue
                    case NotSent() | Unknown():
                        tries += 1
                        if self._unanswered_for_good(batch, seq, verdict, tries):
                            return verdict
                        continue
            # What Meta said of these events alone is settled while the next are out.
            match verdict:
                case Accepted():
                    return self._accepted(batch, seq, verdict)
                case Refused():
                    return self._refused(batch, seq, verdict, blame)
                case _:
                    assert_never(verdict)

    def _ask(self, body: bytes, events: int, begun: float) -> Verdict:
        if self._now() - begun > spec.REQUEST_DEADLINE_SECONDS:
            # This process stood still: the lease may be over, and Meta's window too.
            return NotSent()
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
        with self._tally.locked():
            self._unanswered = 0
            self._tally.accepted_now += len(batch)
            self._tally.settle(State.ACCEPTED, len(batch))
        return verdict

    def _refused(
        self, batch: Batch, seq: int, verdict: Refused, blame: bool
    ) -> Verdict:
        alone = len(batch) == 1 and blame
        self._desk.settle(
            batch, seq, outcome="refused", receipt=verdict.receipt,
            batch_state="refused" if alone else "claimed",
            delivery_state=State.REFUSED if alone else None, reason=verdict.reason,
        )  # fmt: skip
        self._probe("after_settle")
        with self._tally.locked():
            self._unanswered = 0
            if alone:
                self._tally.settle(State.REFUSED, 1, verdict.reason)
        return verdict

    def _stopped(self, batch: Batch, seq: int, verdict: Stopped) -> Verdict:
        self._settle_back(batch, seq, "stopped", verdict.receipt, "stopped")
        self.fail(_stopped_error(verdict))
        return verdict

    def _throttled(
        self, batch: Batch, seq: int, verdict: Throttled, waited: float
    ) -> float:
        """Wait as Meta asks, in all no longer than the worker's patience; return how long.

        The patience also bounds how far a batch in doubt can drift beyond the moment at
        which it was found to be inside Meta's window.
        """
        seconds = verdict.wait_seconds or max(
            self._patience.first_pause, min(60.0, waited)
        )
        self._desk.settle(
            batch, seq, outcome="throttled", receipt=verdict.receipt, batch_state="claimed",
            delivery_state=None, wait_seconds=seconds,
        )  # fmt: skip
        with self._tally.locked():
            self._tally.waits += 1
            self._tally.wait_seconds += seconds
        if waited + seconds > self._patience.longest_wait:
            self.halt("throttled")
        else:
            with self._gate:
                self._wait(seconds)
        return max(seconds, 1.0)

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
                batch, seq, outcome=outcome, receipt=verdict.receipt, batch_state="claimed",
                delivery_state=None, reason=reason,
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
            with self._tally.locked():
                self._tally.settle(State.IN_DOUBT, settled.moved, reason)
        self._probe("after_settle")
        with self._tally.locked():
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
        with self._tally.locked():
            self._tally.settle(State.PENDING, settled.moved - settled.in_doubt, reason)
            self._tally.settle(State.IN_DOUBT, settled.in_doubt, "answer.unclear")

    def give_back(self, batches: list[Batch], reason: str) -> None:
        """Give batches back of which nothing is out (edge d)."""
        if isinstance(self.failure, LeaseLostError):
            return  # what this desk held is the rescue's
        self._tally.settle_all(self._desk.release(batches, reason=reason), reason)

    def give_up(self, batches: list[Batch]) -> None:
        """Quarantine what the requests allowed for one split did not suffice to clear."""
        moved = self._desk.release(
            batches, reason="split.budget", state=State.QUARANTINED
        )
        self._tally.settle_all(moved, "split.budget")


def codes_of(receipt: Receipt) -> str:
    """Return Meta's numbers, for a sentence."""
    subcode = f", subcode {receipt.subcode}" if receipt.subcode else ""
    trace = f", trace {receipt.fbtrace_id}" if receipt.fbtrace_id else ""
    return f"code {receipt.code}{subcode}{trace}"


def _stopped_error(verdict: Stopped) -> StoppedError:
    receipt = verdict.receipt
    says = (
        codes_of(receipt) if receipt.code is not None else f"HTTP {receipt.http_status}"
    )
    return StoppedError(
        f"Meta stopped the run: {verdict.sentence} ({says}). No event is to blame; all rows "
        "stay pending. Mend the connection, then run again.",
        code=verdict.reason,
    )
