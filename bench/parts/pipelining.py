"""Against a server that answers after 200 ms: how much of the waiting is made use of.

One worker keeps sixteen requests of a thousand events in flight, with the real desk and
ledger; its slices are built beforehand, so that claiming, sending and settling are what
is measured. The ideal is sixteen thousand events in each 200 ms, start and end included.
"""

from __future__ import annotations

from statistics import median
from typing import Any, Final
from uuid import uuid4

from bench.meter import Meter
from bench.parts import Sizes
from bench.party import BenchError, cpu_seconds
from bench.targets import figure
from bench.world import World

__all__ = ["pipelining"]

IN_FLIGHT: Final = 16
SECONDS: Final = 0.2
_SLICE: Final = 10_000


def pipelining(world: World, sizes: Sizes) -> dict[str, Any]:
    """Return the rates, and their share of the ideal."""
    # Whole rounds of sixteen requests: 320,000 events are twenty.
    rows = max(sizes.sizes(32 * _SLICE))
    turns = max(1, rows // _SLICE)
    sound = world.lot("sound", _SLICE, sound=True)
    runs = []
    for _ in range(sizes.repeat):
        with (
            world.answering(SECONDS) as server,
            world.ledger() as ledger,
            world.hands(1) as (hand,),
        ):
            job = {
                "shop": world.postgres.url(world.shop), "ledger": ledger,
                "lot": sound.to_json(), "graph": server.url, "token": server.token,
                "limits": {"requests_in_flight": IN_FLIGHT},
            }  # fmt: skip
            # Connections, prepared statements and imports are a process's, not a shard's.
            hand.ask(
                "pipeline", **job, run=f"bench/{uuid4().hex[:12]}", first=0, turns=1
            )
            before = server.processed()
            meter = Meter(
                {
                    "client": lambda: cpu_seconds(hand.pid),
                    "postgres": lambda: world.postgres_cpu,
                    "server": lambda: cpu_seconds(server.pid),
                }
            )
            with meter.lap("pipeline"):
                answer = hand.ask(
                    "pipeline",
                    **job,
                    run=f"bench/{uuid4().hex[:12]}",
                    first=1,
                    turns=turns,
                )
            counts = server.counts()
        if counts["processed"] - before != answer["accepted_now"]:
            raise BenchError("The server took another number than was accepted.")
        runs.append(_run(answer, counts, meter))
    shares = [run["share"] for run in runs]
    return {
        "in_flight": IN_FLIGHT,
        "answer_seconds": SECONDS,
        "runs": {"ours": runs},
        "figures": {
            "pipelining.share": figure("pipelining.share", median(shares), shares)
        },
    }


def _run(
    answer: dict[str, Any], counts: dict[str, int], meter: Meter
) -> dict[str, Any]:
    events, seconds = answer["accepted_now"], answer["deliver_seconds"]
    ideal = IN_FLIGHT * 1_000 / SECONDS
    return {
        "events": events,
        "requests": answer["requests"],
        "most_in_flight": counts["most_in_flight"],
        "seconds": round(seconds, 3),
        "events_per_second": round(events / seconds),
        "ideal_per_second": round(ideal),
        "share": round(events / seconds / ideal, 4),
        "cpu_seconds": meter.cpu_seconds,
        "peak_mb": answer["peak_mb"],
    }
