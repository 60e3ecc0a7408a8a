"""A worker told to stop ends in order: what is out is waited for, the rest goes back."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ClassVar, Self, TypeVar

import pytest
from tests.ledger.conftest import Bench

from graph_simulator import Fault, FaultKind
from meta_capi.desk import Desk
from meta_capi.errors import LeaseLostError

pytestmark = pytest.mark.matrix("P5", "P6")
T = TypeVar("T")


class TimeIsUp(BaseException):
    """Raised in the main thread, as Airflow's time-out and our end on SIGTERM are."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[str], None]]:
    """A probe that interrupts the main thread soon after the first request has begun."""

    def ring(_: int, __: FrameType | None) -> None:
        raise TimeIsUp

    def probe(step: str) -> None:
        if step == "after_begin" and not begun:
            begun.append(step)
            signal.setitimer(signal.ITIMER_REAL, 0.3)

    begun: list[str] = []
    before = signal.signal(signal.SIGALRM, ring)
    yield probe
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("batches", [1, 6], ids=["waiting for answers", "handing over"])
def test_a_signal_leaves_no_doubt_and_nothing_claimed(
    bench: Bench, interrupt: Callable[[str], None], batches: int
) -> None:
    bench.tune(events_per_request=1, requests_in_flight=1)
    bench.simulator.faults.add(Fault(kind=FaultKind.DELAY, seconds=1.2, count=None))
    with pytest.raises(TimeIsUp):
        bench.deliver(bench.rows(*range(batches)), probe=interrupt)
    waiting = {"pending": batches - 1} if batches > 1 else {}
    assert bench.states() == {"accepted": 1, **waiting}
    outcomes = bench.sql("select distinct outcome::text from capi.attempts")
    assert outcomes == [("accepted",)]


class Struck(Desk):
    """A desk whose worker is told to end in the middle of a step, once."""

    step: ClassVar[str]
    after: ClassVar[bool]
    told = 0

    def arrive(self) -> Self:
        """Sit down."""
        return self._struck("arrive", super().arrive)

    def leave(self) -> Counter[str]:
        """Get up."""
        return self._struck("leave", super().leave)

    def _struck(self, name: str, make: Callable[[], T]) -> T:
        strikes = name == self.step and not self.told
        self.told += strikes
        if strikes and not self.after:
            raise SystemExit(143)
        made = make()
        if strikes:
            raise SystemExit(143)
        return made


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["arrive", "leave"])
def test_a_worker_told_to_end_in_the_middle_of_a_step_leaves_its_desk(
    bench: Bench, step: str, after: bool
) -> None:
    kind = type("StruckHere", (Struck,), {"step": step, "after": after})
    desk = kind(bench.ledger, bench.run(), policy=bench.policy, host="test", pid=1)

    with pytest.raises(SystemExit):
        bench.deliver(bench.rows(*range(5)), desk=desk)

    at_desks = "select count(*) from capi.workers where ended_at is null"
    assert (desk.told, bench.sql(at_desks)) == (1, [(0,)])
    assert bench.states() == ({"accepted": 5} if step == "leave" else {})


def test_a_worker_that_has_left_writes_nothing_down_whatever_it_would_hold(
    bench: Bench,
) -> None:
    """A claim may come from the lock that it waited for after its worker has gone."""
    desk = bench.desk()
    columns = bench.rows(1, 2, consent=False)
    built = bench.builder().build(columns, int(bench.started.timestamp()))
    desk.leave()
    with pytest.raises(LeaseLostError):
        desk.claim(built, most_events=1_000, most_bytes=4_000_000)
    assert bench.states() == {}
