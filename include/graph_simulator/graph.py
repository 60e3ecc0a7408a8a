"""The Graph API itself, without the sockets: a request goes in, an answer comes out.

The edges: POST /{dataset}/events, and, to read, GET /{dataset}, /dataset_quality and
/debug_token. What is accepted is in the store before the answer exists.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from graph_simulator import answers, edges, rules
from graph_simulator.access import Doorkeeper
from graph_simulator.answers import Answer
from graph_simulator.encodings import UnreadableError, decode, is_plain_json
from graph_simulator.faults import Visit
from graph_simulator.orderly import Batch, Sieve
from graph_simulator.records import Receipt, Row, arrivals_of, rows_of
from graph_simulator.refusals import Refusal, bad_request, unknown_path
from graph_simulator.store import Store
from graph_simulator.switches import Switches
from meta_capi import spec


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request, read to its end. Header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    accept_gzip: bool
    batch: Batch | None  # where the body is orderly

    @cached_property
    def _decoded(self) -> Mapping[str, Any] | Refusal:
        try:
            return decode(self.body, self.headers, accept_gzip=self.accept_gzip)
        except UnreadableError as error:
            return error.refusal

    @property
    def members(self) -> Mapping[str, Any]:
        """The body's members; none of a body that cannot be read."""
        return {} if isinstance(self._decoded, Refusal) else self._decoded

    @property
    def unreadable(self) -> Refusal | None:
        """Why the body has no members."""
        return self._decoded if isinstance(self._decoded, Refusal) else None

    @property
    def token_members(self) -> Mapping[str, Any]:
        """The members among which a token may stand."""
        return {"access_token": self.batch.access_token} if self.batch else self.members

    @property
    def event_ids(self) -> frozenset[str]:
        """The ids that can be read out of `data`, right or wrong as it is."""
        arrivals = arrivals_of(self.members.get("data"))
        return frozenset(arrival.event_id for arrival in arrivals)

    @property
    def size(self) -> int:
        """How many events it holds, right or wrong as they are."""
        if self.batch:
            return len(self.batch.rows)
        data = self.members.get("data")
        return len(data) if isinstance(data, list) else 0


def read_request(
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    accept_gzip: bool,
    sieve: Sieve,
) -> Request:
    """Take a request apart. A body that cannot be read is told later, in its turn."""
    path, _, query = target.partition("?")
    return Request(
        method=method,
        path=path,
        query=dict(parse_qsl(query)),
        headers=headers,
        body=body,
        accept_gzip=accept_gzip,
        batch=sieve.read(body) if is_plain_json(headers) else None,
    )


def edge_of(path: str) -> str:
    """Name the edge for faults and for the log; never what the path holds else."""
    match path.strip("/").split("/"):
        case [_, "dataset_quality" | "debug_token" as node]:
            return node
        case [_, _, "events"]:
            return "events"
        case [_, _]:
            return "dataset"
        case _:
            return "unknown"


class Graph:
    """Answers requests by Meta's rules and remembers what it took."""

    def __init__(
        self,
        *,
        switches: Switches,
        doorkeeper: Doorkeeper,
        store: Store,
        now: Callable[[], float],
    ) -> None:
        self.switches = switches
        self.doorkeeper = doorkeeper
        self.store = store
        self.now = now
        self.sieve = Sieve()
        self._lock = threading.Lock()
        self._notes: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()

    def answer(
        self,
        request: Request,
        visit: Visit,
        *,
        refusal: Refusal | None = None,
        fault: str | None = None,
    ) -> Answer:
        """Judge, keep, answer. `refusal` is what Meta says after a good token."""
        place = rules.place_of(request.path)
        if isinstance(place, Refusal):
            return self._refused(place, spec.DEFAULT_GRAPH_VERSION)
        if place.edge == "events":
            outcome = self._events(place, request, visit, refusal, fault)
        elif place.edge:
            outcome = unknown_path()
        else:
            outcome = refusal or self._read(place, request)
        if isinstance(outcome, Refusal):
            return self._refused(outcome, place.version)
        return outcome

    def lose(self, request: Request, fault: str) -> None:
        """Record a request that came in whole and of which Meta kept nothing."""
        place = rules.place_of(request.path)
        if isinstance(place, rules.Place) and place.edge == "events":
            self._arrive(place.node, request, self.now(), fault=fault)

    def reset(self) -> None:
        """Forget everything that came in."""
        self.store.reset()
        with self._lock:
            self._notes.clear()
            self._refusals.clear()

    def notes(self) -> Counter[str]:
        """Return what was accepted with a raised eyebrow, and how often."""
        with self._lock:
            return self._notes.copy()

    def refusals(self) -> Counter[str]:
        """Return how often each "code/subcode" was answered."""
        with self._lock:
            return self._refusals.copy()

    def _events(
        self,
        place: rules.Place,
        request: Request,
        visit: Visit,
        told: Refusal | None,
        fault: str | None,
    ) -> Answer | Refusal:
        dataset = rules.dataset_of(place)
        if isinstance(dataset, Refusal):
            return dataset
        if request.method != "POST":
            return bad_request("Unsupported method. This edge takes POST alone.")
        at = self.now()
        notes: Counter[str] = Counter()
        refusal = self._denied(dataset, request, at) or told
        batch = request.batch
        if batch and not batch.is_timely(at, self.switches):
            batch = None
        if refusal is None and batch is None:
            refusal = request.unreadable or rules.body_refusal(
                request.members, at, self.switches, notes
            )
        if refusal is None and visit.looks_inside():
            refusal = visit.refuse_if(request.event_ids)
        with self._lock:
            self._notes += notes
        if refusal is not None:
            self._arrive(dataset, request, at, fault=fault, code=refusal.code)
            return refusal
        receipt = Receipt(
            at=at, request=self.store.next_request(), processed=True, fault=fault
        )
        rows, agent = _kept_of(request, batch)
        events = request.members["data"] if self.store.keeps_events else ()
        self.store.take(dataset, rows, receipt, agent=agent, events=events)
        return answers.taken(len(rows), place.version)

    def _denied(self, dataset: str, request: Request, at: float) -> Refusal | None:
        token = self.doorkeeper.admit(
            request.query, request.headers, request.token_members, at
        )
        if isinstance(token, Refusal):
            return token
        return self.doorkeeper.sending_refusal(token, dataset)

    def _read(self, place: rules.Place, request: Request) -> Answer | Refusal:
        if request.method != "GET":
            return bad_request("Unsupported method. This edge takes GET alone.")
        at = self.now()
        token = self.doorkeeper.admit(request.query, request.headers, {}, at)
        if isinstance(token, Refusal):
            return token
        content: Mapping[str, object] | Refusal
        match place.node:
            case "debug_token":
                content = edges.debug_token(self.doorkeeper, request.query, at)
            case "dataset_quality":
                content = edges.dataset_quality(
                    self.doorkeeper, self.store, token, request.query
                )
            case _:
                dataset = rules.dataset_of(place)
                if isinstance(dataset, Refusal):
                    return dataset
                content = edges.dataset(
                    self.doorkeeper, self.store, token, dataset, request.query
                )
        if isinstance(content, Refusal):
            return content
        return answers.ok(content, place.version)

    def _arrive(
        self,
        dataset: str,
        request: Request,
        at: float,
        *,
        fault: str | None,
        code: int | None = None,
    ) -> None:
        receipt = Receipt(
            at=at,
            request=self.store.next_request(),
            processed=False,
            fault=fault,
            code=code,
        )
        self.store.arrive(dataset, arrivals_of(request.members.get("data")), receipt)

    def _refused(self, refusal: Refusal, version: str) -> Answer:
        with self._lock:
            self._refusals[f"{refusal.code}/{refusal.subcode or '-'}"] += 1
        return answers.refused(refusal, version, self.switches.profile)


def _kept_of(request: Request, batch: Batch | None) -> tuple[list[Row], str]:
    """Return what is remembered of a request that is taken: its events, its agent."""
    if batch:
        return batch.rows, batch.partner_agent
    members = request.members
    return rows_of(members["data"]), str(members.get("partner_agent") or "")
