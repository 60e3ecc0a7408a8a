"""One shard: a zygote with a PostgreSQL and a Meta of its own, and its share of trials.

Each trial is drawn from a seed of its own and leaves one line of JSON. A trial whose line
is there is not played again.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be played, in all shards together."""

    seed: int
    kills: int
    failpoints: int
    restarts: int
    sleeps: int
    naive: int
    others: int
    shards: int


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the trials that a shard has written down; half a line is none."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [
        json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"
    ]


def play_shard(order: Order, folder: Path, shard: int, only: str | None) -> None:
    """Play a shard's trials, or only one."""
    place = Path(tempfile.mkdtemp(prefix=f"capi-faults-{shard}-"))
    place.chmod(0o755)  # PostgreSQL does not run as root, and has to get in
    _settle_airflow(place)
    # Airflow's settings must stand before its first import.
    from tests.faults import worker
    from tests.faults.trials import KINDS, Stage
    from tests.faults.world import World

    results = folder / f"shard-{shard}.jsonl"
    _mend(results)
    done = {line["trial"]: line for line in lines(results)}
    worker.warm()
    try:
        with World(place) as world:
            stage = Stage(world)
            if only is not None:
                trials: Iterator[tuple[str, int]] = iter([_named(only)])
            else:
                trials = _trials(order, shard, done)
            for kind, number in trials:
                name = f"{kind}:{number}"
                seed = f"{order.seed}:{name}"
                began = time.monotonic()
                found = KINDS[kind](stage, Random(seed))
                line = {"trial": name, "kind": kind, "seed": seed, **found}
                line["seconds"] = round(time.monotonic() - began, 3)
                done[name] = line
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                if line["violations"]:
                    # The words of the workers of a trial that went wrong.
                    shutil.copy(world.log, folder / f"{name.replace(':', '-')}.log")
                world.log.write_bytes(b"")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _named(name: str) -> tuple[str, int]:
    kind, _, number = name.rpartition(":")
    return kind.rpartition(":")[2], int(number)


def _trials(
    order: Order, shard: int, done: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, int]]:
    """Yield what is not yet done: the counted kinds evenly mixed, then kills."""
    counts = {f"W{number}": order.failpoints for number in range(14)}
    counts |= {
        "restart": order.restarts,
        "sleep": order.sleeps,
        "naive": order.naive,
        **dict.fromkeys(
            ("sigterm", "power cut", "short lease", "repeats"), order.others
        ),
    }
    for number in range(shard, max(counts.values()), order.shards):
        for kind, count in counts.items():
            if number < count and f"{kind}:{number}" not in done:
                yield kind, number
    share = order.kills // order.shards + (shard < order.kills % order.shards)
    killed = _killed(done)
    number = shard
    while killed() < share:
        if f"kills:{number}" not in done:
            yield "kills", number
        number += order.shards


def _killed(done: dict[str, dict[str, Any]]) -> Callable[[], int]:
    return lambda: sum(
        line["kills"] for line in done.values() if line["kind"] == "kills"
    )


def _mend(path: Path) -> None:
    """Cut off the line that a harness was killed at."""
    if path.exists():
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def _settle_airflow(place: Path) -> None:
    """Give the workers an Airflow without a metadata database."""
    for name in [n for n in os.environ if n.startswith(("AIRFLOW", "_AIRFLOW"))]:
        del os.environ[name]
    home = place / "airflow"
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
