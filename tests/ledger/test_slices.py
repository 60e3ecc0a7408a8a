"""A slice is read and built ahead, two are claimed at a time, and all leave in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import pytest
from tests.ledger.conftest import Bench
from tests.ledger.scenes import as_counted

from meta_capi.dispatch import Tally
from meta_capi.errors import LedgerError, SourceError


def test_a_slice_is_read_while_the_one_before_it_is_on_its_way(
    bench: Bench,
) -> None:
    read_on = threading.Event()

    def slices() -> Iterator[Mapping[str, Any]]:
        yield bench.rows(*range(100))
        read_on.set()
        yield bench.rows(*range(100, 200))

    def probe(step: str) -> None:
        assert step != "after_claim" or read_on.wait(30)

    assert as_counted(bench.deliver_each(slices(), probe=probe)) == {"accepted": 200}


def test_two_slices_are_claimed_at_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, meet = bench.desk(), threading.Barrier(2)
    claim = desk.claim

    def together(*built: Any, **limits: Any) -> Any:
        meet.wait(30)
        return claim(*built, **limits)

    monkeypatch.setattr(desk, "claim", together)
    slices = (bench.rows(*range(at, at + 100)) for at in range(0, 400, 100))
    assert as_counted(bench.deliver_each(slices, desk=desk)) == {"accepted": 400}


def test_what_was_read_before_the_warehouse_failed_is_delivered(
    bench: Bench,
) -> None:
    def slices() -> Iterator[Mapping[str, Any]]:
        yield bench.rows(*range(100))
        raise SourceError("The warehouse is gone.")

    with pytest.raises(SourceError, match="is gone"):
        bench.deliver_each(slices())
    assert bench.states() == {"accepted": 100}


def test_a_warehouse_that_hangs_keeps_nobody_from_leaving(
    bench: Bench,
) -> None:
    """A worker told to end while the next rows do not come leaves in order."""
    hangs = threading.Event()

    def slices() -> Iterator[Mapping[str, Any]]:
        yield bench.rows(*range(100))
        hangs.wait()

    def probe(step: str) -> None:
        if step == "after_claim":
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        bench.deliver_each(slices(), probe=probe)
    hangs.set()
    assert bench.states() == {"pending": 100}
    assert bench.sql("select count(*) from capi.workers where ended_at is null") == [
        (0,)
    ]


def test_what_was_claimed_ahead_of_a_worker_told_to_end_is_in_its_tally(
    bench: Bench,
) -> None:
    told: list[Tally] = []

    def probe(step: str) -> None:
        if step == "after_claim":
            # One in hand, and two ahead.
            for _ in range(3_000):
                if bench.states() == {"claimed": 300}:
                    break
                time.sleep(0.01)
            raise SystemExit(143)

    slices = (bench.rows(*range(at, at + 100)) for at in range(0, 600, 100))
    with pytest.raises(SystemExit):
        bench.deliver_each(slices, probe=probe, report=told.append)
    assert told[-1].rows == 300
    assert as_counted(told[-1]) == bench.states() == {"pending": 300}


def test_a_claim_that_fails_is_told_while_the_warehouse_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, overslept = threading.Event(), threading.Event()

    def slices() -> Iterator[Mapping[str, Any]]:
        yield bench.rows(1)
        if not hangs.wait(60):
            overslept.set()

    def full(*_: Any, **__: Any) -> None:
        raise LedgerError("There is no room.")

    desk = bench.desk()
    monkeypatch.setattr(desk, "claim", full)
    with pytest.raises(LedgerError, match="no room"):
        bench.deliver_each(slices(), desk=desk)
    assert not overslept.is_set()
    hangs.set()


def test_overlapping_slices_send_each_conversion_once(bench: Bench) -> None:
    tally = bench.deliver(bench.rows(*range(800)), bench.rows(*range(400, 1_200)))

    assert tally.rows == 1_600
    assert set(bench.receipts().values()) == {1}
    assert len(bench.receipts()) == 1_200


@pytest.mark.parametrize("seed", range(4))
def test_slices_claimed_at_a_time_that_share_keys_and_events_send_each_once(
    bench: Bench, seed: int
) -> None:
    chance, slices = Random(seed), []
    for _ in range(8):
        numbers = chance.sample(range(60), 30)
        rows = bench.rows(*numbers)
        # Every fourth conversion names the event of another one.
        rows["event_id"] = [f"event-{number % 45}" for number in numbers]
        slices.append(rows)

    tally = bench.deliver(*slices)

    assert tally.rows == tally.settled == 240
    assert set(bench.receipts().values()) == {1}
    states = bench.states()
    assert states.keys() == {"accepted", "quarantined"}
    assert states["accepted"] == len(bench.receipts())
