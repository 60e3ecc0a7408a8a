"""A worker told to stop ends in order: what is out is waited for, the rest goes back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from tests.ledger.conftest import Bench

from graph_simulator import Fault, FaultKind

pytestmark = pytest.mark.matrix("P5", "P6")


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
