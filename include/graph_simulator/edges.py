"""The edges that are read: a dataset, its quality, and a token's health.

Numbers come from what was received. Scores that Meta alone can compute (how well a
match key matches) are [choice]: the share of events that carry each key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from graph_simulator.access import Doorkeeper, Token
from graph_simulator.refusals import (
    Refusal,
    bad_request,
    no_permission,
    no_such_object,
)
from graph_simulator.store import Store

_APP_ID: Final = "200000000000002"
# Section 11: the Dataset Quality API names match keys in words.
_WORDS: Final = {
    "em": "email",
    "ph": "phone",
    "client_ip_address": "ip_address",
    "client_user_agent": "user_agent",
    "fn": "first_name",
    "ln": "last_name",
    "ct": "city",
    "st": "state",
    "zp": "zip",
    "db": "date_of_birth",
    "ge": "gender",
}
_UNKNOWN_DATASET: Final = 2044055
_NO_PERMISSION: Final = 10
_GOAL_PERCENTAGE: Final = 75


def dataset(
    doorkeeper: Doorkeeper,
    store: Store,
    token: Token,
    dataset_id: str,
    query: Mapping[str, str],
) -> Mapping[str, object] | Refusal:
    """Answer GET /{dataset}?fields=... with `id` and what was asked for."""
    if not doorkeeper.opens(token, dataset_id):
        return no_such_object()
    counts = store.counts(dataset_id)
    fired = store.last_received(dataset_id)
    node: dict[str, object] = {
        "id": dataset_id,
        "name": f"Dataset {dataset_id}",
        "is_consolidated_container": True,
        "is_crm": any(
            source == "system_generated" for _, source, _ in store.key_sets(dataset_id)
        ),
        "is_unavailable": False,
        "last_fired_time": _graph_time(fired) if fired else None,
        "match_rate_approx": 0,
        "matched_entries": 0,
        "valid_entries": counts.processed,
    }
    names = _names(query.get("fields", "id,name"))
    if not names.keys() <= node.keys():
        return bad_request("Tried accessing a nonexisting field on node type AdsPixel")
    # Graph always sends the id, and leaves out what has no value.
    return {name: node[name] for name in {"id": "", **names} if node[name] is not None}


def debug_token(
    doorkeeper: Doorkeeper, query: Mapping[str, str], now: float
) -> Mapping[str, object] | Refusal:
    """Answer GET /debug_token?input_token=... (13)."""
    value = query.get("input_token")
    if not value:
        return bad_request("The parameter input_token is required.")
    token = doorkeeper.token_of(value)
    if token is None:
        why = {"code": 190, "message": "Invalid OAuth access token."}
        return {"data": {"is_valid": False, "scopes": [], "error": why}}
    data: dict[str, object] = {
        "app_id": _APP_ID,
        "type": "SYSTEM_USER",
        "application": "Conversions API",
        "data_access_expires_at": 0,
        "expires_at": token.expires_at,
        "is_valid": token.alive(now),
        "scopes": sorted(token.scopes),
        "granular_scopes": _granular(doorkeeper, token),
        "user_id": "300000000000003",
    }
    if not token.alive(now):
        data["error"] = {"code": 190, "subcode": 463, "message": "Session has expired"}
    return {"data": data}


def dataset_quality(
    doorkeeper: Doorkeeper, store: Store, token: Token, query: Mapping[str, str]
) -> Mapping[str, object] | Refusal:
    """Answer GET /dataset_quality?dataset_id=&fields=web{...}|offline{...} (11)."""
    dataset_id = query.get("dataset_id", "")
    if not doorkeeper.opens(token, dataset_id):
        return Refusal(code=_UNKNOWN_DATASET, message="The dataset does not exist.")
    if not doorkeeper.may_read_quality(token):
        return no_permission(_NO_PERMISSION)
    groups = _names(query.get("fields", "web"))
    if not groups.keys() <= {"web", "offline"}:
        return bad_request("Tried accessing a nonexisting field on node type Quality")
    agent = query.get("agent_name")
    answer: dict[str, object] = {}
    for group, inner in groups.items():
        item = _offline_item if group == "offline" else _web_item
        asked = _names(inner)
        answer[group] = [
            {name: value for name, value in full.items() if not asked or name in asked}
            for full in (
                item(name, sets)
                for name, sets in _by_name(store, dataset_id, group, agent).items()
            )
        ]
    return answer


def _by_name(
    store: Store, dataset_id: str, group: str, agent: str | None
) -> Mapping[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for (name, source, sent_by), sets in store.key_sets(dataset_id).items():
        # Match quality is for the web; all else but physical_store has no page.
        wanted = "physical_store" if group == "offline" else "website"
        if source == wanted and agent in (None, normalised_agent(sent_by)):
            found[name] = found.get(name, Counter()) + sets
    return found


def normalised_agent(partner_agent: str) -> str:
    """Return `name` of `name_major_minor`, in lower case."""
    return re.sub(r"(?:_\d+)+$", "", partner_agent).lower()


def _web_item(name: str, sets: Counter[str]) -> Mapping[str, object]:
    coverage = _coverage(sets)
    return {
        "event_name": name,
        "event_match_quality": {
            "composite_score": _score(coverage),
            "match_key_feedback": [
                {"identifier": word, "coverage": {"percentage": percentage}}
                for word, percentage in coverage.items()
            ],
            "diagnostics": [],
        },
        # No browser sends anything here, so nothing is covered.
        "event_coverage": {"percentage": 0.0, "goal_percentage": _GOAL_PERCENTAGE},
        "dedupe_key_feedback": [],
        "data_freshness": {"upload_frequency": "hourly"},
        "acr": {"percentage": 0.0},
    }


def _offline_item(name: str, sets: Counter[str]) -> Mapping[str, object]:
    coverage = _coverage(sets)
    score = _score(coverage)
    return {
        "event_name": name,
        "composite": {"score": score, "recommendation": ""},
        "match_key": {
            "score": score,
            "recommendation": "",
            "coverage": {
                "email": coverage.get("email", 0.0),
                "phone": coverage.get("phone", 0.0),
            },
        },
        "frequency": {"score": 10.0, "recommendation": ""},
        "freshness": {"score": 10.0, "recommendation": ""},
    }


def _coverage(sets: Counter[str]) -> Mapping[str, float]:
    """Return, in percent of the events, how many had each match key."""
    keys: Counter[str] = Counter()
    for joined, times in sets.items():
        for key in joined.split(","):
            keys[key] += times
    total = sets.total()
    return {
        _WORDS.get(key, key): round(100 * times / total, 1)
        for key, times in sorted(keys.items())
    }


def _score(coverage: Mapping[str, float]) -> float:
    """Return 0 to 10: two points for each match key that every event has. [choice]"""
    return round(min(10.0, sum(coverage.values()) / 50), 1)


def _granular(doorkeeper: Doorkeeper, token: Token) -> list[dict[str, object]]:
    targets = sorted(doorkeeper.datasets if token.datasets is None else token.datasets)
    scopes: list[dict[str, object]] = [{"scope": scope} for scope in token.scopes]
    scopes.sort(key=lambda scope: str(scope["scope"]))
    # Without target_ids a scope is good for everything the user can see.
    return [{**scope, "target_ids": targets} if targets else scope for scope in scopes]


def _names(fields: str) -> Mapping[str, str]:
    """Read `a,b{c,d}` into {"a": "", "b": "c,d"}, to any depth of braces."""
    found: dict[str, str] = {}
    depth, start = 0, 0
    for position, sign in enumerate(f"{fields},"):
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 0:
            name, _, inner = fields[start:position].strip().partition("{")
            if name:
                found[name.strip()] = inner.rstrip().removesuffix("}")
            start = position + 1
    return found


def _graph_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S%z")
