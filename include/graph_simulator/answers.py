"""What goes back: Meta's two envelopes, and the headers around them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from graph_simulator.refusals import Refusal
from graph_simulator.switches import Profile

Headers = tuple[tuple[str, str], ...]

_BUSINESS: Final = "100000000000001"
# [choice] Nobody says which bucket a POST to /events fills; we show a quiet one.
_QUIET: Final = 3
_FULL: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer before it is sent."""

    status: int
    body: bytes
    headers: Headers = ()

    def with_headers(self, *headers: tuple[str, str]) -> Answer:
        """Return the answer with these instead of ours; a name may come twice."""
        named = {name.lower() for name, _ in headers}
        kept = [header for header in self.headers if header[0].lower() not in named]
        return replace(self, headers=(*kept, *headers))


def ok(content: Mapping[str, object], version: str) -> Answer:
    """Return a 200 with usage headers and a trace id."""
    return Answer(
        status=200,
        body=_json(content),
        headers=(*_graph_headers(new_trace(), version), *_usage_headers()),
    )


def taken(events_received: int, version: str) -> Answer:
    """Return Meta's receipt (10.1). `messages` was empty in every example found."""
    trace = new_trace()
    content = {
        "events_received": events_received,
        "messages": [],
        "fbtrace_id": trace,
    }
    return Answer(
        status=200,
        body=_json(content),
        headers=(*_graph_headers(trace, version), *_usage_headers()),
    )


def refused(refusal: Refusal, version: str, profile: Profile) -> Answer:
    """Return Meta's error envelope (10.2)."""
    trace = new_trace()
    error = refusal.error(trace, blame_as_text=profile is Profile.OBSERVED)
    return Answer(
        status=refusal.status,
        body=_json({"error": error}),
        headers=(*_graph_headers(trace, version), *_usage_headers(refusal.wait)),
    )


def page(status: int) -> Answer:
    """Return what a proxy or a captive portal answers."""
    body = b"<!DOCTYPE html><html><body><h1>Sorry, something went wrong.</h1></body>"
    return Answer(
        status=status,
        body=body,
        headers=(("content-type", "text/html; charset=utf-8"),),
    )


def new_trace() -> str:
    """Return an fbtrace_id."""
    return "A" + secrets.token_urlsafe(16)


def _graph_headers(trace: str, version: str) -> Headers:
    return (
        ("content-type", "application/json; charset=UTF-8"),
        ("facebook-api-version", version),
        ("x-fb-trace-id", trace),
    )


def _usage_headers(wait: object = None) -> Headers:
    """Return the three usage headers (10.6); full ones if Meta names a wait."""
    percent = _QUIET if wait is None else _FULL
    load = {"call_count": percent, "total_cputime": percent, "total_time": percent}
    tier = "standard_access"
    business = {
        "type": "ads_management",
        **load,
        "estimated_time_to_regain_access": 0 if wait is None else wait,
        "ads_api_access_tier": tier,
    }
    account = {
        "acc_id_util_pct": percent,
        "reset_time_duration": 0 if wait is None else 300,
        "ads_api_access_tier": tier,
    }
    return (
        ("x-app-usage", json.dumps(load)),
        ("x-business-use-case-usage", json.dumps({_BUSINESS: [business]})),
        ("x-ad-account-usage", json.dumps(account)),
    )


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content).encode()
