"""Our product's whole journey over one lot: plan, gate, deliver, report.

A run as Airflow would make it: a process for plan, gate and report, which serves many
runs, and so many fresh ones for the mapped shards. What they import, Great Expectations
among it, is there before the clock starts: Airflow forks its tasks from a process that
has it. (Part `airflow` measures what Airflow adds.)
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from bench.lots import Lot
from bench.meter import Meter
from bench.party import BenchError, Party, cpu_seconds
from bench.world import Server, World

__all__ = ["journey"]


def journey(
    world: World, which: Lot, graph: Server, ledger: str, *, workers: int,
    gate: bool = True, warm_up: Lot | None = None, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Send a lot; return what it took.

    Args:
        ledger: the ledger's database.
        workers: processes that deliver shards.
        gate: whether the suite is run.
        warm_up: a small lot that each worker delivers before the clock starts.
        more: what else the jobs are told: `limits`, `lean`, `profile`.
    """
    job = {
        "shop": world.postgres.url(world.shop), "ledger": ledger, "lot": which.to_json(),
        "graph": graph.url, "token": graph.token, "run": f"bench/{uuid4().hex[:12]}",
        **more,
    }  # fmt: skip
    lead = world.lead
    with world.hands(workers) as hands:
        if warm_up:
            _warm_up(hands, lead, job, warm_up)
        world.settle()
        meter = Meter(
            {
                "client": lambda: sum(cpu_seconds(each.pid) for each in (lead, *hands)),
                "postgres": lambda: world.postgres_cpu,
                "server": lambda: cpu_seconds(graph.pid),
            }
        )
        before = graph.processed()
        with meter.lap("plan"):
            plan = lead.ask("plan", **job)
        number = None
        if gate:
            with meter.lap("gate"):
                found = lead.ask("validate", **job)
            if found["faults"]:
                raise BenchError(f"The gate stopped the run: {found['faults']}")
            number = found["number"]
        with meter.lap("deliver"):
            tallies = _share_out(hands, plan["shards"], {**job, "validation": number})
        with meter.lap("report"):
            end = lead.ask("report", **job, counts=plan["counts"], tallies=tallies)
        processed = graph.processed() - before
    accepted = sum(tally["accepted_now"] for tally in tallies)
    if end["gap"] or processed != accepted:
        raise BenchError(f"{accepted} were accepted, and the server took {processed}.")
    deliver = meter.laps["deliver"]["cpu_seconds"]
    every = meter.cpu_seconds
    return {
        "packages": lead.packages,
        "rows": which.rows,
        "accepted": accepted,
        "requests": sum(tally["requests"] for tally in tallies),
        "bytes_per_event": round(sum(t["bytes_sent"] for t in tallies) / accepted),
        "shards": len(plan["shards"]),
        **meter.to_json(),
        "events_per_second": round(accepted / meter.seconds),
        "cost_us": _cost(every, which.rows),
        "deliver_cost_us": _cost(deliver, which.rows),
        "deliver_peak_mb": max(tally["peak_mb"] for tally in tallies),
        "stages": sum((Counter(tally["stages"]) for tally in tallies), Counter()),
    }


def _cost(cpu: Mapping[str, float], rows: int) -> float:
    """Return the CPU microseconds a row of client and PostgreSQL."""
    return round((cpu["client"] + cpu["postgres"]) / rows * 1e6, 2)


def _warm_up(
    hands: Sequence[Party], lead: Party, job: dict[str, Any], lot: Lot
) -> None:
    """Let each worker import and prepare what it does once in its life."""
    small = {**job, "lot": lot.to_json(), "run": f"{job['run']}/warm-up"}
    plan = lead.ask("plan", **small)
    for hand in hands:
        hand.ask("deliver", **small, shard=plan["shards"][0])


def _share_out(
    hands: Sequence[Party], shards: Sequence[Any], job: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Give each worker the next shard when it is free, as a pool of slots does."""
    waiting: SimpleQueue[Any] = SimpleQueue()
    for shard in shards:
        waiting.put(shard)
    tallies: list[dict[str, Any]] = []
    failures: list[Exception] = []

    def work(hand: Party) -> None:
        try:
            while not failures:
                tallies.append(hand.ask("deliver", **job, shard=waiting.get_nowait()))
        except Empty:
            return
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[hand]) for hand in hands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return tallies
