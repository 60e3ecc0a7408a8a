"""Claim, build, post, judge, settle: the whole story.

A worker reads its rows in slices. Each slice is built into events while those before it
are recorded and claimed, each in one step, two at a time; their batches go out, several at
a time, and every answer is written down before anything else is done about it. Rows,
`post` and `now` are handed in.

If the worker dies on any line here, the ledger says one of three things of a delivery,
and each is true: *pending* (nothing went out), *in doubt* (a request had begun), or
*accepted* (Meta said so).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from typing import Final, Self

from meta_capi.ahead import Ahead
from meta_capi.built import Built, Columns
from meta_capi.claiming import Claimed
from meta_capi.desk import LEASE_SECONDS, Desk
from meta_capi.errors import CapiError, LeaseLostError
from meta_capi.event import Builder
from meta_capi.feed import Limits
from meta_capi.lifecycle import State
from meta_capi.payload import Batch, Envelope
from meta_capi.sending import Patience, Post, Sender, Wait
from meta_capi.splitting import Splitter
from meta_capi.tally import WOULD_BE_SENT, Tally

__all__ = ["Patience", "Post", "Tally", "deliver", "rehearse"]

_REPORT_SECONDS: Final = 5.0
# Nearly all of a claim is PostgreSQL's time, and requests wait for it. A third at a time
# sends no more (docs/performance.md).
_CLAIMS_AT_A_TIME: Final = 2


def rehearse(
    slices: Iterable[Columns],
    builder: Builder,
    now: Callable[[], float],
    report: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Build everything and send nothing: a dry run has no way to post."""
    tally = Tally()
    for columns in slices:
        built = builder.build(columns, int(now()))
        tally.rows += len(built)
        tally.flaws.update(built.flaws)
        tally.bytes_sent += sum(len(body) for body in built.bodies if body)
        for state, reason in zip(built.states, built.reasons, strict=True):
            tally.settle(WOULD_BE_SENT if reason is None else state, 1, reason)
        report(tally)
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
    report: Callable[[Tally], None],
    limit: int | None = None,
    wait: Wait | None = None,
    patience: Patience | None = None,
    lease_seconds: float = LEASE_SECONDS,
    probe: Callable[[str], None] = lambda _: None,
) -> Tally:
    """Deliver the rows of one shard.

    Args:
        slices: the rows, in columns; read by a thread, which closes what can be closed.
        post: sends one body; raises NoAnswerError where no answer came.
        limit: send at most this many events; the rest stay pending.
        report: told of the tally every few seconds.
        probe: told the name of each step as it is made, and of a claim when its batches
            are about to go out; tests use it to die there.

    Returns:
        The tally; every row read has an outcome.

    Raises:
        StoppedError: Meta takes nothing from this token or dataset.
        LeaseLostError: another process has taken over what this worker held.
    """
    tally = Tally()
    sender = Sender(
        desk, post, envelope, tally, patience or Patience(), now, wait, probe,
        limits.requests_in_flight,
    )  # fmt: skip
    splitter = Splitter(sender, desk, tally, limits.requests_per_split, probe)
    flight = _Flight(sender, splitter, tally, limits.requests_in_flight, report)
    try:
        desk.arrive()
        try:
            reading = Ahead(_built(slices, builder, now), name="capi-read")
            # Each claim of a limited run must know how many the one before it took.
            claimers = 1 if limit is not None else _CLAIMS_AT_A_TIME
            claims = Ahead(
                *(
                    _claimed(reading, desk, sender, tally, limits, limit)
                    for _ in range(claimers)
                ),
                name="capi-claim",
                # Whoever ends later than that finds that the worker has left.
                patience=2.0,
            )
            with _lease_kept(desk, sender, lease_seconds / 6), reading, claims, flight:
                try:
                    for batches in claims:
                        probe("after_claim")
                        for batch in batches:
                            flight.send(batch)
                        report(tally)
                finally:
                    reading.stop()  # who claims may wait for rows that never come
        finally:
            left = desk.leave()
            tally.settle(State.PENDING, left["pending"], "worker.released")
            tally.settle(State.IN_DOUBT, left["in_doubt"], "worker.lost")
            report(tally)
    except Exception:
        raise
    except BaseException:
        desk.leave()  # the signal may have struck the arrival, or the leaving itself
        raise
    if sender.failure:
        raise sender.failure
    return tally


def _built(
    slices: Iterable[Columns], builder: Builder, now: Callable[[], float]
) -> Generator[Built, None, None]:
    """Read and build, slice by slice; nothing of it is anybody's until it is claimed."""
    try:
        for columns in slices:
            yield builder.build(columns, int(now()))
    finally:
        if isinstance(slices, Generator):
            slices.close()


def _claimed(
    reading: Ahead[Built], desk: Desk, sender: Sender, tally: Tally, limits: Limits,
    limit: int | None,
) -> Generator[list[Batch], None, None]:  # fmt: skip
    """Record and claim, slice by slice; whoever else takes slices gets others."""
    room = limit
    for built in reading:
        if isinstance(sender.failure, LeaseLostError):
            reading.stop()  # nothing this worker writes is its to write
            return
        if sender.halted:
            _hold_back(built, sender.halted)
        try:
            claimed = desk.claim(
                built,
                most_events=limits.events_per_request,
                most_bytes=limits.bytes_per_request,
                limit=room,
            )
        except Exception:
            reading.stop()  # else it is heard of only when the next rows have come
            raise
        if room is not None:
            room -= sum(map(len, claimed.batches))
        _note(tally, built, claimed)
        yield claimed.batches


@contextmanager
def _lease_kept(desk: Desk, sender: Sender, every: float) -> Iterator[None]:
    """Renew the lease beside the work; a lost lease ends the work."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(every):
            try:
                desk.renew()
            except CapiError as error:
                sender.fail(error)
                return

    keeper = threading.Thread(target=keep, name="capi-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


class _Flight:
    """The batches in flight: so many at a time, and no end before the last has landed."""

    def __init__(
        self, sender: Sender, splitter: Splitter, tally: Tally, in_flight: int,
        report: Callable[[Tally], None],
    ) -> None:  # fmt: skip
        self._sender = sender
        self._splitter = splitter
        self._tally = tally
        self._report = report
        self._room = threading.Semaphore(2 * in_flight)
        # Beside those that wait for an answer, some settle one.
        self._pool = ThreadPoolExecutor(in_flight + in_flight // 2, "capi-send")
        self._flying: set[Future[None]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                self._sender.halt("worker.released")
            self._land()
        except BaseException:
            # A signal found this thread waiting, where it nearly always is. The answers
            # are still waited for, unless there comes a second one.
            self._sender.halt("worker.released")
            self._land()
            raise

    def _land(self) -> None:
        while self._flying:
            self._flying = wait_for(self._flying, _REPORT_SECONDS).not_done
            self._report(self._tally)
        self._pool.shutdown(wait=True)

    def send(self, batch: Batch) -> None:
        """Hand a batch over; blocks while enough are in flight."""
        while not self._room.acquire(timeout=_REPORT_SECONDS):
            self._report(self._tally)
        future = self._pool.submit(self._deliver, batch)
        self._flying = {each for each in self._flying if not each.done()} | {future}

    def _deliver(self, batch: Batch) -> None:
        try:
            self._splitter.deliver(batch)
        except CapiError as error:
            self._sender.fail(error)
        except Exception as error:
            self._sender.fail(
                CapiError(
                    f"Batch {batch.batch_id} met a fault of this program "
                    f"({type(error).__name__}); what it held is pending or in doubt."
                )
            )
        finally:
            self._room.release()


def _hold_back(built: Built, halted: str) -> None:
    """Keep all rows pending that might go out."""
    for row in built.sendable:
        built.hold(row, State.PENDING, halted)


def _note(tally: Tally, built: Built, claimed: Claimed) -> None:
    """Count a slice, and the rows of it that are not to be sent."""
    with tally.locked():
        tally.rows += len(built)
        tally.flaws.update(built.flaws)
        for (state, reason), count in claimed.standing.items():
            # Another claim is that one's to settle.
            shown = State.PENDING if state == State.CLAIMED else state
            tally.settle(shown, count, None if state == State.ACCEPTED else reason)
