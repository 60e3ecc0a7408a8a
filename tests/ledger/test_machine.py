"""The state machine, as long as a test may take; `make machine` runs it for hours."""

from __future__ import annotations

from hypothesis.stateful import run_state_machine_as_test
from tests.conftest import Database
from tests.ledger.machine import bound, how_long


def test_nothing_is_lost_doubled_or_wrongly_believed_in_any_order(
    database: Database,
) -> None:
    with bound(database.url, database.dsn) as machine:
        run_state_machine_as_test(machine, settings=how_long(30, steps=100))
        assert machine.counts["steps"] > 1_000
