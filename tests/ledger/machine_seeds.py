"""Look for the walks that find each mutant soon: `python -m tests.ledger.machine_seeds`.

Any change of the machine makes other walks of the same seeds. Then `test_mutants.py` says
which mutants are no longer found at once, and this, given their names, finds new seeds.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test
from tests.ledger.machine import Deliveries, bound, how_long
from tests.ledger.mutants import MUTANTS, STEPS, WALKS, Mutant

from demo.postgres import Postgres

SEEDS = range(1, 100)


def main(names: list[str]) -> None:
    """Print a seed for each mutant whose name begins so; for all where none is given."""
    with tempfile.TemporaryDirectory(prefix="capi-seeds-") as place:
        Path(place).chmod(0o755)  # else only root could enter it
        with Postgres(Path(place), durable=False) as server:
            server.create_database("seeds")
            with bound(server.url("seeds"), server.dsn("seeds")) as machine:
                for mutant in MUTANTS:
                    if not names or mutant.name.startswith(tuple(names)):
                        sys.stdout.write(f"{mutant.name}: {_seed(machine, mutant)}\n")
                        sys.stdout.flush()


def _seed(machine: type[Deliveries], mutant: Mutant) -> str:
    for seed in SEEDS:
        machine.counts.clear()
        with mutant.at_large(machine.watch):
            try:
                run_state_machine_as_test(
                    seeded(seed)(machine),
                    settings=how_long(WALKS, steps=STEPS, shrink=False),
                )
            except Exception as error:  # whatever it is, it is found out
                if re.search(mutant.found_by, str(error)):
                    return f"seed {seed}, after {machine.counts['steps']} steps"
    return "survives"


if __name__ == "__main__":
    main(sys.argv[1:])
