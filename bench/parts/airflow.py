"""What Airflow adds, and what we add to Airflow.

How long the DAG files take to parse; an empty run beside one of a DAG that does nothing,
with as many tasks, under a real scheduler with LocalExecutor; and what one more mapped
shard costs, of ours with a thousand rows each, and of tasks that do nothing.
"""

from __future__ import annotations

import sys
from statistics import median
from typing import Any, Final

from bench.parts import Sizes
from bench.party import ROOT, Party
from bench.scheduler import OURS, TRIVIAL, scheduler
from bench.targets import figure
from bench.world import World

__all__ = ["airflow", "parsing"]

_PARSE: Final = (sys.executable, "-m", "bench.parse")
_PER_SHARD: Final = 1_000
# Nothing became known in this hour.
_EMPTY: Final = {
    "start": "2026-01-01T00:00:00+00:00",
    "end": "2026-01-01T01:00:00+00:00",
}


def airflow(world: World, sizes: Sizes) -> dict[str, Any]:
    """Return parse times, runs, and the price of a shard."""
    files, parses = parsing(world, sizes)
    rows = min(sizes.sizes(20_000))
    which = world.lot("sound", rows, sound=True)
    whole = {"start": which.start.isoformat(), "end": which.end.isoformat()}
    runs: dict[str, list[dict[str, Any]]] = {}
    with (
        world.graph_api() as graph,
        world.ledger() as ledger,
        scheduler(world, which, graph, ledger, rows_per_shard=_PER_SHARD) as scheduled,
    ):
        # The first run of each finds caches cold.
        for _ in range(sizes.repeat + 1):
            for name, conf in ((OURS, _EMPTY), (TRIVIAL, {"shards": 1})):
                runs.setdefault(f"{name}, empty", []).append(scheduled.time(name, conf))
        ours = scheduled.time(OURS, whole)
        shards = ours["shards"]
        runs[f"{OURS}, {shards} shards"] = [ours]
        trivial = scheduled.time(TRIVIAL, {"shards": shards})
        runs[f"{TRIVIAL}, {shards} shards"] = [trivial]
    mine, theirs = (
        [run["seconds"] for run in runs[f"{name}, empty"][1:]]
        for name in (OURS, TRIVIAL)
    )
    ratios = [ours / trivial for ours, trivial in zip(mine, theirs, strict=True)]
    return {
        "files": files,
        "runs": runs,
        "seconds_per_shard": {
            OURS: round((ours["seconds"] - median(mine)) / (shards - 1), 3),
            TRIVIAL: round((trivial["seconds"] - median(theirs)) / (shards - 1), 3),
        },
        "rows_per_shard": _PER_SHARD,
        "figures": {
            "airflow.parse": figure("airflow.parse", median(parses), parses),
            "airflow.empty": figure("airflow.empty", median(ratios), ratios),
        },
    }


def parsing(world: World, sizes: Sizes) -> tuple[dict[str, float], list[float]]:
    """Return the seconds of each file, and the sums of each repetition."""
    files = [str(path) for path in sorted((ROOT / "dags").glob("*.py"))]
    found: list[dict[str, float]] = []
    for _ in range(sizes.repeat):
        # A process for each: the processor forks one for every file it reads.
        with Party(_PARSE, world.folder / "parse.log") as reader:
            found.append(reader.ask("parse", files=files)["files"])
    each = {name: median(one[name] for one in found) for name in found[0]}
    return each, [round(sum(one.values()), 3) for one in found]
