"""From PostgreSQL through gate, claim, POST, settle and report, to the local Graph API.

Ours at each size on rows with all the sample's dirt, every time with an empty ledger.
Beside the peers on fewer rows, without the dirt, for they would lose a thousand events
with each bad row; all send the same rows to the same server, in turns. And once more to a
server that only counts: what the local Graph API makes of each form of body is not
theirs to answer for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from bench.journey import journey
from bench.lots import Lot, short
from bench.meter import Meter
from bench.parts import Sizes
from bench.party import BenchError, Party, cpu_seconds
from bench.targets import figure
from bench.world import DATASET, GRAPH_VERSION, Server, World

__all__ = ["end_to_end"]

_MILLION: Final = 1_000_000
# What each of the peers is told; a name's first word is whose program it is.
_RIVALS: Final[dict[str, dict[str, Any]]] = {
    "drt, as it comes": {"fast": False},
    "drt, set for speed": {"fast": True},
    "sdk, 1 thread": {"threads": 1},
    "sdk, 16 threads": {"threads": 16},
}
_COMPARED: Final = {
    "drt": "drt, as it comes",
    "fast_drt": "drt, set for speed",
    "sdk": "sdk, 16 threads",
}
# It paces itself to a thousand events a second: five seconds say as much as fifty.
_PACED_ROWS: Final = 5_000


def end_to_end(world: World, sizes: Sizes) -> dict[str, Any]:
    """Return the runs of everybody, and the ratios of their rates."""
    record: dict[str, Any] = {
        "ours": {}, "same_rows": {}, "server_that_counts": {}, "figures": {},
    }  # fmt: skip
    with world.graph_api() as graph:
        for rows in sizes.sizes(100_000, _MILLION):
            which = world.lot("dirty", rows)
            record["ours"][short(rows)] = [
                _ours(world, which, graph, sizes) for _ in range(sizes.repeat)
            ]
        if sizes.peers:
            shared = world.lot("sound", sizes.peer_rows, sound=True)
            record["same_rows"] = _side_by_side(world, shared, graph, sizes)
    if sizes.peers:
        # The local Graph API reads some forms of a body faster than others.
        with world.answering(0.0) as server:
            record["server_that_counts"] = _side_by_side(world, shared, server, sizes)
    _compare(record)
    return record


def _ours(
    world: World, which: Lot, graph: Server, sizes: Sizes, **more: Any
) -> dict[str, Any]:
    graph.forget()
    with world.ledger() as ledger:
        return journey(world, which, graph, ledger, workers=sizes.workers, **more)


def _side_by_side(
    world: World, which: Lot, graph: Server, sizes: Sizes
) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {}
    for _ in range(sizes.repeat):
        runs.setdefault("ours", []).append(_ours(world, which, graph, sizes))
        few = _ours(world, which, graph, sizes, gate=False, lean=True)
        runs.setdefault("ours, drt's fields, no gate", []).append(few)
        for name, told in _RIVALS.items():
            if command := sizes.peers.get(name.split(",")[0]):
                run = _rival(world, which, graph, command, told)
                runs.setdefault(name, []).append(run)
    return runs


def _rival(
    world: World, which: Lot, graph: Server, command: Any, told: dict[str, Any]
) -> dict[str, Any]:
    graph.forget()
    rows = which.rows if told.get("fast", True) else min(which.rows, _PACED_ROWS)
    with Party(command, world.folder / "peers.log") as peer:
        peer.wait()
        world.settle()
        meter = Meter(
            {
                "client": lambda: cpu_seconds(peer.pid),
                "postgres": lambda: world.postgres_cpu,
                "server": lambda: cpu_seconds(graph.pid),
            }
        )
        with meter.lap("send"):
            answer = peer.ask(
                "send", shop=world.dsn, lot=which.to_json(), graph=graph.url,
                token=graph.token, dataset=DATASET, version=GRAPH_VERSION, rows=rows,
                **told,
            )  # fmt: skip
    processed = graph.processed()
    if processed != answer["sent"]:
        raise BenchError(f"A peer counts {answer['sent']} sent; {processed} arrived.")
    return {
        "rows": rows,
        "accepted": answer["sent"],
        "failed": answer["failed"],
        "packages": peer.packages,
        **meter.to_json(),
        "events_per_second": round(answer["sent"] / meter.seconds),
        "peak_mb": answer["peak_mb"],
    }


def _compare(record: dict[str, Any]) -> None:
    figures = record["figures"]
    if runs := record["ours"].get("1m"):
        seconds = [run["seconds"] for run in runs]
        figures["end_to_end.1m_seconds"] = figure(
            "end_to_end.1m_seconds", median(seconds), seconds
        )
    # Our rate at the largest size: at a few thousand rows the fixed costs of plan, gate
    # and report weigh more than in life.
    largest = list(record["ours"].values())[-1]
    ours = _rate(largest)
    for name, rival in _COMPARED.items():
        if runs := record["same_rows"].get(rival):
            figures[f"end_to_end.{name}"] = figure(
                f"end_to_end.{name}", ours / _rate(runs)
            )
    counting = record["server_that_counts"]
    if runs := counting.get(_COMPARED["sdk"]):
        figures["end_to_end.sdk_counting"] = figure(
            "end_to_end.sdk_counting", _rate(counting["ours"]) / _rate(runs)
        )


def _rate(runs: Sequence[Mapping[str, Any]]) -> float:
    return float(median(run["events_per_second"] for run in runs))
