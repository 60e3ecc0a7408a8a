"""A plain HTTP client and the golden payloads of our reference's section 16."""

from __future__ import annotations

import copy
import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from graph_simulator import Simulator

EVENT_TIME = 1795200000
NOW = EVENT_TIME + 3_600.0
DATASET = "1234567890"
TOKEN = "EAAB-good-token"

_OFFLINE_PURCHASE = {
    "event_name": "Purchase",
    "event_time": EVENT_TIME,
    "event_id": "ord-10001-1",
    "action_source": "physical_store",
    "user_data": {
        "em": ["f618787598b5ac2f3518007e7dc8b9b7bf0b6fb04048106d44e8a62511a55982"],
        "ph": ["e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176"],
        "fn": ["6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec"],
        "ln": ["b4cb6cb33fe4b865868de825023a1e2790dc12ac01ecc8d7c5afe8254071c8ba"],
        "ct": ["350c754ba4d38897693aa077ef43072a859d23f613443133fecbbd90a3512ca5"],
        "st": ["1b06e2003f8420d6fa42badd8f77ec0f706b976b7a48b13c567dc5a559681683"],
        "zp": ["e443169117a184f91186b401133b20be670c7c0896f9886075e5d9b81e9d076b"],
        "country": ["79adb2a2fce5c6ba215fe5f27f532d4e7edbac4b6a5e09e1ef3a08084a904621"],
    },
    "custom_data": {
        "value": 142.52,
        "currency": "USD",
        "order_id": "10001",
        "item_number": "1",
        "contents": [{"id": "sku-1", "quantity": 1, "item_price": 142.52}],
    },
}
_CRM_STAGE = {
    "event_name": "Marketing Qualified Lead",
    "event_time": EVENT_TIME,
    "event_id": "crm-1234567890123456-mql",
    "action_source": "system_generated",
    "user_data": {
        "lead_id": 1234567890123456,
        "em": ["f618787598b5ac2f3518007e7dc8b9b7bf0b6fb04048106d44e8a62511a55982"],
    },
    "custom_data": {"event_source": "crm", "lead_event_source": "In-house CRM"},
}


def digest(text: str) -> str:
    """Return the SHA-256 of a normal form."""
    return sha256(text.encode()).hexdigest()


def offline_purchase(**changes: Any) -> dict[str, Any]:
    """Return section 16's purchase, with event parameters replaced."""
    return {**copy.deepcopy(_OFFLINE_PURCHASE), **changes}


def crm_stage(**changes: Any) -> dict[str, Any]:
    """Return section 16's CRM stage, with event parameters replaced."""
    return {**copy.deepcopy(_CRM_STAGE), **changes}


def website_view(**changes: Any) -> dict[str, Any]:
    """Return a page view of a browser."""
    return {
        "event_name": "ViewContent",
        "event_time": EVENT_TIME,
        "event_id": "view-1",
        "action_source": "website",
        "event_source_url": "https://shop.example/p",
        "user_data": {
            "client_user_agent": "Mozilla/5.0",
            "client_ip_address": "168.212.226.204",
        },
        **changes,
    }


def purchases(number: int, *, first: int = 0) -> list[dict[str, Any]]:
    """Return different purchases, `order-<n>` each."""
    events = []
    for n in range(first, first + number):
        event = offline_purchase(event_id=f"order-{n}")
        event["custom_data"]["order_id"] = str(n)
        events.append(event)
    return events


def without(event: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return the event without one member."""
    *way, last = path
    holder = event
    for step in way:
        holder = holder[step]
    del holder[last]
    return event


@dataclass(frozen=True)
class Reply:
    """An answer as a client sees it."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body, read as JSON."""
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, int | None]:
        """Return the code and the subcode of the error."""
        error = self.json["error"]
        return error["code"], error.get("error_subcode")


def call(
    sim: Simulator,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 5.0,
) -> Reply:
    """Send one request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", sim.port, timeout=timeout)
    try:
        connection.request(method, path, body or None, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def send(sim: Simulator, *events: Any, dataset: str = DATASET, **members: Any) -> Reply:
    """POST events as JSON, with a good token in the header."""
    return call(
        sim,
        "POST",
        f"/v26.0/{dataset}/events",
        json.dumps({"data": list(events), **members}).encode(),
        {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, *rest: Any
) -> http.client.HTTPResponse:
    """Send a request on an open connection and return the head of its answer."""
    connection.request(method, path, *rest)
    return connection.getresponse()


def eventually(claim: Callable[[], bool]) -> bool:
    """Wait for what the server does after its answer, 2 s at most."""
    deadline = time.monotonic() + 2
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.01)
    return claim()
