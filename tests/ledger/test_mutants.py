"""Does the state machine find a broken protocol? Every mutant of it is let loose once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test
from tests.ledger.machine import Deliveries, bound, how_long
from tests.ledger.mutants import MUTANTS, STEPS, WALKS, Mutant

from demo.postgres import Postgres


@pytest.fixture(scope="module")
def machine(postgres: Postgres) -> Iterator[type[Deliveries]]:
    """One machine for all mutants: each leaves the protocol as it was."""
    name = "test_mutants"
    postgres.create_database(name)
    with bound(postgres.url(name), postgres.dsn(name)) as machine:
        yield machine
    postgres.drop_database(name)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_broken_protocol_is_found_out(
    machine: type[Deliveries], mutant: Mutant
) -> None:
    # Any error: a truth of the machine fails, or the database refuses the step.
    with (
        mutant.at_large(machine.watch),
        pytest.raises(Exception, match=mutant.found_by),
    ):
        run_state_machine_as_test(
            seed(mutant.seed)(machine),
            settings=how_long(WALKS, steps=STEPS, shrink=False),
        )


def test_what_was_broken_is_mended_again(machine: type[Deliveries]) -> None:
    for mutant in MUTANTS:
        with mutant.at_large(machine.watch):
            pass
    run_state_machine_as_test(machine, settings=how_long(3, steps=STEPS))
