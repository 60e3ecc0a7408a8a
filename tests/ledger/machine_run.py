"""Run the state machine for a long time: `make machine`.

Every seed is one Hypothesis run of its own, and one line of `results.jsonl`; seeds that
stand there already are not run again. Each shard has a core and a PostgreSQL of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test
from tests.ledger.machine import Deliveries, bound, how_long

from demo.postgres import Postgres

WALK = 100  # steps of one example; some end early


def main() -> int:
    """Run all seeds that have no result yet; return 1 if any of all failed."""
    given = _arguments()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    done = {each["seed"] for each in _results(folder)}
    wanted = range(given.seeds) if given.seed is None else [given.seed]
    left = [each for each in wanted if each not in done or given.seed is not None]
    _end_in_order()
    context = multiprocessing.get_context("spawn")
    shards = [
        context.Process(
            target=_run_shard,
            args=(number, left[number :: given.shards], given.steps // given.seeds, folder),
            daemon=True,
        )
        for number in range(given.shards)
    ]  # fmt: skip
    for shard in shards:
        shard.start()
    for shard in shards:
        shard.join()
    results = _results(folder)
    summary = json.dumps(_summary(results), indent=2) + "\n"
    (folder / "summary.json").write_text(summary)
    sys.stdout.write(summary)
    failed = any(each["verdict"] != "passed" for each in results)
    return int(failed or any(shard.exitcode for shard in shards))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of all seeds")
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--seed", type=int, help="run this seed alone, and anew")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(".test/machine"))
    return parser.parse_args()


def _end_in_order() -> None:
    """Let SIGTERM end the shards, and each shard its PostgreSQL."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _run_shard(number: int, seeds: list[int], steps: int, folder: Path) -> None:
    _end_in_order()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if cores:
        # The two take turns: on one core the other's answer is there at once.
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    with tempfile.TemporaryDirectory(prefix="capi-machine-") as place:
        Path(place).chmod(0o755)  # else only root could enter it
        with Postgres(Path(place), durable=False) as server:
            for each in seeds:
                name = f"seed_{each}"
                server.create_database(name)
                with bound(server.url(name), server.dsn(name)) as machine:
                    result = _run_seed(machine, each, steps)
                server.drop_database(name)
                with (folder / "results.jsonl").open("a") as file:
                    file.write(json.dumps(result) + "\n")
                shown = {
                    key: result[key] for key in ("seed", "verdict", "steps", "seconds")
                }
                sys.stdout.write(json.dumps(shown) + "\n")
                sys.stdout.flush()


def _run_seed(machine: type[Deliveries], seed: int, steps: int) -> dict[str, Any]:
    began = time.monotonic()
    verdict, failure = "passed", None
    try:
        run_state_machine_as_test(
            seeded(seed)(machine), settings=how_long(-(-steps // WALK), steps=WALK)
        )
    except Exception as error:  # whatever it is, the seed failed
        verdict, failure = "failed", "".join(traceback.format_exception(error))
        sys.stderr.write(f"seed {seed} failed:\n{failure}")
    return {
        "seed": seed,
        "verdict": verdict,
        "seconds": round(time.monotonic() - began, 1),
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine.counts,
        **({"failure": failure} if failure else {}),
    }


def _results(folder: Path) -> list[dict[str, Any]]:
    """Return each seed's latest result."""
    file = folder / "results.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    latest = {each["seed"]: each for each in map(json.loads, lines)}
    return [latest[seed] for seed in sorted(latest)]


def _summary(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    failed = []
    for each in results:
        totals["seeds"] += 1
        totals.update(
            {
                key: value
                for key, value in each.items()
                if key != "seed" and isinstance(value, int | float)
            }
        )
        if each["verdict"] != "passed":
            failed.append(each["seed"])
    rounded = {key: round(value, 1) for key, value in totals.items()}
    rate = round(totals["steps"] / totals["seconds"]) if totals["seconds"] else 0
    return {**rounded, "steps_a_second_a_shard": rate, "failed": failed}


if __name__ == "__main__":
    sys.exit(main())
