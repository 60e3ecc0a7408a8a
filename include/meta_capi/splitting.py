"""A refused batch is split until the guilty events stand alone.

"One invalid event rejects the whole request": nothing of a refused batch was processed,
so its parts may go out at once. Each guilty event gets an answer of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meta_capi.desk import Desk
from meta_capi.errors import StoppedError
from meta_capi.payload import Batch, OwedEvent
from meta_capi.sending import Sender, codes_of
from meta_capi.tally import Tally
from meta_capi.verdict import Accepted, Refused, Verdict

__all__ = ["Splitter"]

# A batch, its halves and its quarters: so many alike noes raise a suspicion.
_SUSPICIOUS: Final = 7
# Single events asked about before a no to everything is believed.
_PROBES: Final = 4
# Of so few events each is asked about: what is left over after a death, or replayed, may be
# guilty for the most part, and the innocent among them would wait for ever.
_FEW: Final = 50


@dataclass(slots=True)
class _Siblings:
    """The parts of one split batch: if all but one were accepted, that one is guilty.

    A batch that was too large has none: there need not be anyone guilty.
    """

    parts: int
    accepted: int = 0

    @property
    def leave_one_guilty(self) -> bool:
        return self.accepted == self.parts - 1


_Queue = deque[tuple[Batch, _Siblings | None]]


class Splitter:
    """Delivers batches whole, or in the parts that Meta takes.

    Args:
        most_requests: spent on one batch; what is not found by then is quarantined.
    """

    def __init__(
        self, sender: Sender, desk: Desk, tally: Tally, most_requests: int,
        probe: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._sender = sender
        self._desk = desk
        self._tally = tally
        self._most_requests = most_requests
        self._probe = probe

    def deliver(self, root: Batch) -> None:
        """Send a batch; while Meta refuses, split it until the guilty stand alone.

        Breadth first, so that a no to everything shows after seven requests.
        """
        queue: _Queue = deque([(root, None)])
        refusals: list[Refused] = []
        used, suspected = 0, False
        while queue:
            batch, siblings = queue.popleft()
            if self._sender.halted:  # what is not asked costs nothing of the budget
                rest = [batch, *(each for each, _ in queue)]
                self._sender.give_back(rest, self._sender.halted)
                return
            if used >= self._most_requests:
                self._sender.give_up([batch, *(each for each, _ in queue)])
                return
            if siblings and siblings.leave_one_guilty and len(batch) > 1:
                parts, reason = _halves(batch.events), "split.inferred"
                by_size = False
            else:
                used += 1
                verdict = self._sender.send(batch)
                if isinstance(verdict, Accepted) and siblings:
                    siblings.accepted += 1
                if not isinstance(verdict, Refused):
                    continue
                refusals.append(verdict)
                if len(batch) == 1:
                    continue
                if (
                    not suspected
                    and used == len(refusals) >= _SUSPICIOUS
                    and self._nothing_but(verdict, refusals)
                ):
                    suspected = True
                    alone = None if verdict.too_large else _Siblings(1)
                    queue.appendleft((batch, alone))
                    queue, asked = self._without_a_no_to_everything(queue, verdict)
                    used += asked
                    continue
                parts, reason = _parts(batch, verdict.blamed), verdict.reason
                by_size = verdict.too_large
            children = self._split(batch, parts, reason)
            family = None if by_size else _Siblings(len(children))
            queue.extend((child, family) for child in children)

    def _split(
        self, batch: Batch, parts: list[tuple[OwedEvent, ...]], reason: str
    ) -> list[Batch]:
        children = self._desk.split(batch, parts, reason)
        self._probe("after_split")
        with self._tally.locked():
            self._tally.splits += 1
        return children

    def _nothing_but(self, verdict: Refused, refusals: list[Refused]) -> bool:
        """Tell whether Meta has said nothing to this worker but this one no."""
        with self._tally.locked():
            nothing_accepted = self._tally.accepted_now == 0
        return nothing_accepted and {each.reason for each in refusals} == {
            verdict.reason
        }

    def _without_a_no_to_everything(
        self, queue: _Queue, no: Refused
    ) -> tuple[_Queue, int]:
        """Ask about single events from all over the batch before any event is blamed.

        A batch, its halves and its quarters were refused alike. Either there is a guilty
        event in every quarter, and some of the others are taken; or no event is to
        blame, and Meta takes none: then the worker stops, and blames nobody.

        Returns:
            What is left to send, nothing after a stop; and the requests this took.
        """
        left: _Queue = deque()
        verdicts: list[Verdict | None] = []
        refused: list[Batch] = []
        few = sum(len(batch) for batch, _ in queue) <= _FEW
        for number, (batch, siblings) in enumerate(queue):
            if few:
                for probe in self._singles(batch, no.reason):
                    verdicts.append(self._sender.send(probe, blame=False))
                    if isinstance(verdicts[-1], Refused):
                        refused.append(probe)
                continue
            if number % 2 or len(verdicts) == _PROBES or len(batch) == 1:
                left.append((batch, siblings))
                continue
            middle = len(batch) // 2
            one = batch.events[middle : middle + 1]
            others = batch.events[:middle] + batch.events[middle + 1 :]
            probe, remainder = self._split(batch, [one, others], no.reason)
            left.append((remainder, siblings))
            verdicts.append(self._sender.send(probe, blame=False))
            if siblings:
                siblings.parts += 1
                siblings.accepted += isinstance(verdicts[-1], Accepted)
            if isinstance(verdicts[-1], Refused):
                refused.append(probe)
        left.extend((probe, None) for probe in refused)
        if len(refused) < len(verdicts):
            return left, len(verdicts)
        self._sender.give_back([batch for batch, _ in left], "stopped")
        self._sender.fail(
            StoppedError(
                f"Meta refuses every part of a batch with {codes_of(no.receipt)}, single events "
                "too, and has accepted nothing from this worker. That is not one bad event: "
                "look at the feed's mapping and at the dataset. All rows stay pending."
            )
        )
        return deque(), len(verdicts)

    def _singles(self, batch: Batch, reason: str) -> list[Batch]:
        """Return a batch's events as batches of one."""
        if len(batch) == 1:
            return [batch]
        return self._split(batch, [(event,) for event in batch.events], reason)


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
