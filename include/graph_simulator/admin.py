"""What tests and the demo ask the simulator itself, under /_simulator/.

Only the machine it runs on may ask. Nothing here is Meta's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from ipaddress import ip_address
from itertools import islice
from typing import Final
from urllib.parse import parse_qsl

from graph_simulator.answers import Answer
from graph_simulator.faults import Fault, Faults
from graph_simulator.graph import Graph
from graph_simulator.records import Counts, Received

PREFIX: Final = "/_simulator/"
_PAGE_SIZE: Final = 1_000


def handle(
    graph: Graph, faults: Faults, method: str, target: str, body: bytes, client: str
) -> Answer:
    """Answer one request of the operator's."""
    if not ip_address(client).is_loopback:
        return _json(403, {"error": "Only the simulator's own machine may ask this."})
    path, _, query = target.partition("?")
    match method, path.removeprefix(PREFIX):
        case "GET", "health":
            return _json(200, {"status": "ok", "profile": graph.switches.profile})
        case "GET", "stats":
            return _json(200, stats(graph, faults))
        case "GET", "received":
            return _received(graph, dict(parse_qsl(query)))
        case "POST", "reset":
            graph.reset()
            return _json(200, {"status": "forgotten"})
        case "POST", "faults":
            return _arm(faults.add, body)
        case "PUT", "faults":
            return _arm(faults.replace, body)
        case "DELETE", "faults":
            faults.clear()
            return _json(200, {"status": "disarmed"})
        case _:
            return _json(404, {"error": "The simulator has no such page."})


def stats(graph: Graph, faults: Faults) -> dict[str, object]:
    """Return every number there is, as JSON."""
    return {
        "requests": graph.store.requests,
        "datasets": {
            dataset: _numbers(counts)
            for dataset, counts in graph.store.all_counts().items()
        },
        "refusals": graph.refusals(),
        "faults": faults.struck(),
        "notes": graph.notes(),
    }


def _arm(arm: Callable[..., None], body: bytes) -> Answer:
    """Arm one fault or a list of them; all or none."""
    try:
        posted = json.loads(body)
        wanted = posted if isinstance(posted, list) else [posted]
        arm(*[Fault.from_json(members) for members in wanted])
    except (AttributeError, TypeError, ValueError) as error:
        return _json(400, {"error": f"No fault was armed. {error}"})
    return _json(201, {"status": "armed", "faults": len(wanted)})


def _received(graph: Graph, query: Mapping[str, str]) -> Answer:
    """Count what arrived, by dataset and event name; with `ids=1`, page by page."""
    dataset, event_name = query.get("dataset"), query.get("event_name")
    try:
        offset = int(query.get("offset", 0))
        limit = int(query.get("limit", _PAGE_SIZE))
        if offset < 0 or limit < 1:
            raise ValueError("below range")
    except ValueError:
        return _json(400, {"error": "offset and limit must be whole numbers."})
    found = graph.store.arrived(dataset, event_name)
    if query.get("ids") == "1":
        events = [_event(item) for item in islice(found, offset, offset + limit)]
        following = offset + limit if len(events) == limit else None
        return _json(200, {"events": events, "next_offset": following})
    counts: dict[str, dict[str, int]] = {}
    for item in found:
        by_name = counts.setdefault(item.dataset, {})
        by_name[item.event_name] = by_name.get(item.event_name, 0) + bool(
            item.processed
        )
    return _json(200, {"distinct_events": counts})


def _event(item: Received) -> dict[str, object]:
    return {
        "dataset": item.dataset,
        "event_name": item.event_name,
        "event_id": item.event_id,
        "receipts": [asdict(receipt) for receipt in item.receipts],
    }


def _numbers(counts: Counts) -> dict[str, int]:
    return {
        **asdict(counts),
        "deduplicated": counts.deduplicated,
        "processed": counts.processed,
    }


def _json(status: int, content: Mapping[str, object]) -> Answer:
    return Answer(
        status=status,
        body=json.dumps(content).encode(),
        headers=(("content-type", "application/json"),),
    )
