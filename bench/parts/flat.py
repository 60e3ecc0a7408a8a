"""Is a million as cheap for each as ten thousand? Cost per event, and peak memory.

Our whole journey over lots of growing sizes with one ledger, whose rows stay. Cost is
the CPU time of the client and of PostgreSQL while shards are delivered. Each worker has
delivered a thousand rows before: imports and first connections are a process's price,
not an event's. The server only counts, for the local Graph API remembers what it took.
"""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from bench.journey import journey
from bench.lots import short
from bench.parts import Sizes
from bench.targets import figure
from bench.world import World

__all__ = ["flat"]

_WARM_UP: Final = 1_000


def flat(world: World, sizes: Sizes) -> dict[str, Any]:
    """Return cost and memory at each size."""
    runs: dict[str, list[dict[str, Any]]] = {}
    warm_up = world.lot("dirty", _WARM_UP)
    with world.ledger() as ledger, world.answering(0.0) as server:
        for rows in sizes.sizes(10_000, 100_000, 1_000_000):
            # A small lot is over too soon to be measured once; a large one measures itself.
            for turn in range(max(1, min(sizes.repeat, 1_000_000 // rows))):
                # With keys of its own, so that the ledger grows.
                prefix = f"{short(rows)}/{turn}/"
                which = world.lot(f"flat_{turn}", rows, prefix=prefix)
                run = journey(
                    world,
                    which,
                    server,
                    ledger,
                    workers=sizes.workers,
                    warm_up=warm_up,
                )
                runs.setdefault(short(rows), []).append(run)
    costs = {
        size: median(run["deliver_cost_us"] for run in each)
        for size, each in runs.items()
    }
    peaks = {
        size: max(run["deliver_peak_mb"] for run in each) for size, each in runs.items()
    }
    return {
        "runs": runs,
        "cost_us": costs,
        "whole_cost_us": {
            size: median(run["cost_us"] for run in each) for size, each in runs.items()
        },
        "peak_mb": peaks,
        "figures": {
            "flat.spread": figure(
                "flat.spread", max(costs.values()) / min(costs.values()) - 1
            ),
            "flat.peak": figure("flat.peak", max(peaks.values())),
            "flat.peak_growth": figure(
                "flat.peak_growth", max(peaks.values()) / min(peaks.values()) - 1
            ),
        },
    }
