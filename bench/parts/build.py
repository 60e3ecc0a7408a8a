"""Row to wire bytes, per core: our builder and envelope against facebook-business.

The same rows with the same fields, in turns, each in a process of its own; CPU time of
the thread that builds, from rows in memory to the bodies that would go to the socket.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.parts import Sizes
from bench.party import OURS, Party
from bench.targets import figure
from bench.world import DATASET, GRAPH_VERSION, World

__all__ = ["build"]


def build(world: World, sizes: Sizes) -> dict[str, Any]:
    """Return microseconds and bytes an event, and what the SDK cannot build."""
    (rows, *_) = sizes.sizes(50_000)
    sound = world.lot("sound", rows, sound=True)
    dirty = world.lot("dirty", rows)
    job = {
        "lot": sound.to_json(), "graph": "http://127.0.0.1:9", "token": "EAABnowhere",
        "dataset": DATASET, "version": GRAPH_VERSION,
    }  # fmt: skip
    log = world.folder / "build.log"
    with Party(OURS, log) as ours, Party(sizes.peers["sdk"], log) as sdk:
        raised = sdk.ask("check", shop=world.dsn, lot=dirty.to_json())
        runs: dict[str, list[dict[str, Any]]] = {"ours": [], "sdk": []}
        for _ in range(sizes.repeat):
            mine = ours.ask("build", shop=world.postgres.url(world.shop), **job)
            runs["ours"].append(_run(mine))
            runs["sdk"].append(_run(sdk.ask("build", shop=world.dsn, **job)))
        packages = {"ours": ours.packages, "sdk": sdk.packages}
    ratios = [
        theirs["us_per_event"] / mine["us_per_event"]
        for mine, theirs in zip(runs["ours"], runs["sdk"], strict=True)
    ]
    return {
        "runs": runs,
        "packages": packages,
        "sdk_raises": {
            "rows": dirty.rows,
            "raised": len(raised["keys"]),
            "why": raised["why"],
        },
        "figures": {"build.ratio": figure("build.ratio", median(ratios), ratios)},
    }


def _run(answer: dict[str, Any]) -> dict[str, Any]:
    events = answer["events"]
    return {
        "events": events,
        "us_per_event": round(answer["build_seconds"] / events * 1e6, 3),
        "bytes_per_event": round(answer["bytes"] / events),
        "peak_mb": answer["peak_mb"],
    }
