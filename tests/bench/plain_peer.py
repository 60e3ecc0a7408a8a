"""A peer for the tests: the sender that one writes in an afternoon, which needs nothing."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import requests
from bench.jobs import serve
from psycopg import sql

Job = Mapping[str, Any]


def _events(job: Job) -> Iterator[dict[str, Any]]:
    query = sql.SQL("select order_id, purchased_at, email, phone from {}").format(
        sql.Identifier(*job["lot"]["table"].split("."))
    )
    with psycopg.connect(job["shop"]) as database:
        for key, at, *known in database.execute(query):
            text = (known[0] or known[1] or key).strip().lower()
            yield {
                "event_name": "Purchase", "event_id": key, "event_time": int(at.timestamp()),
                "action_source": "physical_store",
                "custom_data": {"order_id": key, "value": 1.0, "currency": "EUR"},
                "user_data": {"em": [hashlib.sha256(text.encode()).hexdigest()]},
            }  # fmt: skip


def check(job: Job) -> Job:
    """Find no fault with anything."""
    return {"keys": [], "why": {}}


def build(job: Job) -> Job:
    """Make one body of all events."""
    cpu = time.process_time()
    events = list(_events(job))
    body = json.dumps({"data": events})
    cpu = time.process_time() - cpu
    return {"events": len(events), "build_seconds": cpu, "bytes": len(body)}


def send(job: Job) -> Job:
    """Post a thousand events at a time."""
    sent = 0
    url = f"{job['graph']}/{job['version']}/{job['dataset']}/events"
    bearer = {"Authorization": f"Bearer {job['token']}"}
    events = list(_events(job))
    for start in range(0, len(events), 1_000):
        some = events[start : start + 1_000]
        answer = requests.post(url, json={"data": some}, headers=bearer, timeout=30)
        sent += answer.json().get("events_received", 0)
    return {"sent": sent, "failed": {}}


if __name__ == "__main__":
    serve({"check": check, "build": build, "send": send}, ("requests",))
