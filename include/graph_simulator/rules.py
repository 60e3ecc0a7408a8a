"""A request against Meta's rules, in the order of our reference's section 10.7.

Path, method, token, throttle, `data`, then each event. The first thing wrong decides,
the whole request is refused, and nothing of it is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from graph_simulator.events import first_refusal
from graph_simulator.refusals import (
    Refusal,
    bad_parameter,
    dead_version,
    no_such_object,
    unknown_path,
)
from graph_simulator.switches import Switches
from meta_capi import spec

_version = re.compile(r"v(\d{1,3})\.(\d{1,2})").fullmatch
_dataset = re.compile(r"[0-9]{5,20}").fullmatch
# 13: fewer than 23 characters, at least two letters.
_partner_agent = re.compile(
    r"(?=(?:[^A-Za-z]*[A-Za-z]){2})[A-Za-z0-9._-]{2,22}"
).fullmatch
_TEXTS: Final = (
    "test_event_code", "namespace_id", "upload_id", "upload_tag", "upload_source",
)  # fmt: skip
_KNOWN: Final = frozenset({
    *_TEXTS, "data", "access_token", "partner_agent", "progress", "platforms", "trace",
    "appsecret_proof",
})  # fmt: skip
MAX_EVENTS: Final = 1_000


def is_partner_agent(text: str) -> bool:
    """Say whether Meta takes it as the name of who sends."""
    return _partner_agent(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a path names: `node` is a dataset or a word, `edge` what hangs on it."""

    version: str
    node: str
    edge: str = ""


def place_of(path: str) -> Place | Refusal:
    """Read `/{version}/{node}[/{edge}]`. Unversioned calls are invalid (1.1)."""
    steps = path.strip("/").split("/")
    match = _version(steps[0])
    if match is None or len(steps) not in (2, 3):
        return unknown_path()
    version = (int(match[1]), int(match[2]))
    if version < spec.OLDEST_GRAPH_VERSION:
        return dead_version()
    if version > spec.NEWEST_GRAPH_VERSION or version[1] != 0:
        return unknown_path("Unknown API version")
    return Place(
        version=steps[0], node=steps[1], edge=steps[2] if len(steps) == 3 else ""
    )


def dataset_of(place: Place) -> str | Refusal:
    """Return the dataset that the path names; anything but an id is no object."""
    return place.node if _dataset(place.node) else no_such_object()


def body_refusal(
    members: Mapping[str, object],
    now: float,
    switches: Switches,
    notes: Counter[str],
) -> Refusal | None:
    """Judge `data`, each of its events, and its siblings. `notes` counts warnings.

    What Meta answers to a missing, empty or too long `data` is unknown. [choice]
    """
    data = members.get("data")
    if not isinstance(data, list):
        return bad_parameter("data must be an array of events.", "data")
    if not data:
        return bad_parameter("data must not be empty.", "data")
    if len(data) > MAX_EVENTS:
        return bad_parameter("data must hold at most 1,000 events.", "data")
    refusal = first_refusal(data, now, switches, notes)
    if refusal is not None:
        return refusal
    agent = members.get("partner_agent")
    if agent is not None and not (isinstance(agent, str) and is_partner_agent(agent)):
        return bad_parameter(
            "partner_agent must have fewer than 23 characters and two letters.",
            "partner_agent",
        )
    for name in _TEXTS:
        if not isinstance(members.get(name), str | None):
            return bad_parameter(f"{name} must be text.", name)
    if not members.keys() <= _KNOWN:
        notes["unknown request parameter"] += 1
    return None
