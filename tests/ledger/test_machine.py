"""The state machine, as long as a test may take; `make machine` runs it for hours."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test
from tests.conftest import Database
from tests.ledger.machine import bound, how_long


@pytest.mark.matrix("P4", "C4", "C6", "T1", "T3", "T8")
def test_nothing_is_lost_doubled_or_wrongly_believed_in_any_order(
    database: Database,
) -> None:
    with bound(database.url, database.dsn) as machine:
        run_state_machine_as_test(machine, settings=how_long(30, steps=100))
        assert machine.counts["steps"] > 1_000


def test_the_sum_is_right_when_the_rescue_was_faster_than_a_release(
    database: Database,
) -> None:
    """A walk that Hypothesis found: the worker's sum once lacked the row it held."""
    with bound(database.url, database.dsn) as machine:
        walk = machine()
        walk.a_walk_begins(
            resend=True, most_events=2, guilty=[], troubles=["long throttle"]
        )
        walk.two_meet_in_a_claim(numbers=[0], others=[0], fate=0, to_its_end=False)
        walk.a_worker_goes_on(
            which=1,
            fate=2,
            then=0,
            to="after_answer",
            mishap="a lost answer to a commit",
        )
        walk.time_passes(seconds=181, then="a rescue")
        walk.a_worker_goes_on(which=1, fate=0, then=0, to="the end", mishap=None)
        walk.teardown()
