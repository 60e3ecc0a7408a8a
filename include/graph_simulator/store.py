"""What arrived, what Meta keeps of it, and how often each event came.

The record is written before the answer is, so that a test can hold the sender's ledger
against it. With `keep_events`, for tests, whole events stay in memory, nowhere else.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from graph_simulator.journal import Journal
from graph_simulator.records import Arrival, Counts, Receipt, Received, Row
from graph_simulator.switches import Switches

# Event name, action source, partner agent.
Lane = tuple[str, str | None, str]
_lane_keys = attrgetter("event_name", "action_source", "keys")


@dataclass(slots=True)
class _Dataset:
    arrived: int = 0
    received: int = 0
    repeated_event_ids: int = 0
    repeated_offline: int = 0
    last_received: float | None = None
    names: dict[str, dict[str, tuple[Receipt, ...]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    # When each offline key (section 5) was first received.
    offline: dict[tuple[object, ...], float] = field(default_factory=dict)
    key_sets: dict[Lane, Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    events: list[dict[str, Any]] = field(default_factory=list)


class Store:
    """The simulator's memory. Every method may be called from any thread."""

    def __init__(
        self,
        switches: Switches,
        *,
        journal: Journal | None = None,
        keep_events: bool = False,
    ) -> None:
        self._switches = switches
        self.keeps_events = keep_events
        self._lock = threading.Lock()
        self._datasets: dict[str, _Dataset] = defaultdict(_Dataset)
        self._requests = 0
        self._journal: Journal | None = None
        if journal is not None:
            for line in journal.read():
                self._replay(line)
            self._journal = journal

    # --- writing --------------------------------------------------------------------

    def next_request(self) -> int:
        """Return this request's number, counted from 1."""
        with self._lock:
            self._requests += 1
            return self._requests

    def take(
        self,
        dataset: str,
        rows: Sequence[Row],
        receipt: Receipt,
        *,
        agent: str = "",
        events: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Record the events of a request that Meta took."""
        with self._lock:
            if self._journal is not None:
                self._journal.write_rows(dataset, rows, receipt, agent)
            held = self._datasets[dataset]
            held.arrived += len(rows)
            held.received += len(rows)
            held.last_received = receipt.at
            if self.keeps_events:
                held.events.extend(events)
            self._count(held, rows, receipt, agent)

    def arrive(
        self, dataset: str, arrivals: Sequence[Arrival], receipt: Receipt
    ) -> None:
        """Record the events of a request that was refused or lost."""
        with self._lock:
            if self._journal is not None:
                self._journal.write_arrivals(dataset, arrivals, receipt)
            held = self._datasets[dataset]
            held.arrived += len(arrivals)
            for name, event_id in arrivals:
                ids = held.names[name]
                ids[event_id] = (*ids.get(event_id, ()), receipt)

    def reset(self) -> None:
        """Forget everything; the journal says so in a line of its own."""
        with self._lock:
            if self._journal is not None:
                self._journal.write_reset()
            self._datasets.clear()
            self._requests = 0

    def close(self) -> None:
        """Close the journal; the memory can still be read."""
        with self._lock:
            if self._journal is not None:
                self._journal.close()
            self._journal = None

    def _count(
        self, held: _Dataset, rows: Sequence[Row], receipt: Receipt, agent: str
    ) -> None:
        for (name, source, keys), times in Counter(map(_lane_keys, rows)).items():
            held.key_sets[name, source, agent][keys] += times
        once = (receipt,)
        for name, event_id, time, source, order, item, _, fingerprint in rows:
            repeated = False
            if event_id is not None:
                ids = held.names[name]
                known = ids.get(event_id)
                if known is None:
                    ids[event_id] = once
                else:
                    ids[event_id] = (*known, receipt)
                    repeated = self._repeats(known, receipt.at, source)
                    held.repeated_event_ids += repeated
            # An old line of the journal has no fingerprint: nothing to compare with.
            if source == "physical_store" and (order or fingerprint):
                key = (time, name, item, order or fingerprint)
                first = held.offline.get(key)
                if first is None or receipt.at - first > self._switches.offline_window:
                    held.offline[key] = receipt.at
                elif not repeated:
                    held.repeated_offline += 1

    def _repeats(
        self, receipts: tuple[Receipt, ...], at: float, source: str | None
    ) -> bool:
        """Say whether an event comes again within 48 hours of its first receipt.

        The window is counted from the first one; what comes after it starts a new one.
        Messaging events are never de-duplicated (section 9).
        """
        if not self._switches.dedupe_server_server or source == "business_messaging":
            return False
        window = self._switches.event_id_window
        first: float | None = None
        for receipt in receipts:
            if receipt.processed and (first is None or receipt.at - first > window):
                first = receipt.at
        return first is not None and at - first <= window

    def _replay(self, line: dict[str, Any]) -> None:
        receipt = Receipt(
            at=line["at"],
            request=line["request"],
            processed=line["processed"],
            fault=line["fault"],
            code=line["code"],
        )
        self._requests = max(self._requests, receipt.request)
        if "rows" in line:
            rows = [Row(*row) for row in line["rows"]]
            self.take(line["dataset"], rows, receipt, agent=line["agent"])
        else:
            arrivals = [Arrival(*arrival) for arrival in line["arrivals"]]
            self.arrive(line["dataset"], arrivals, receipt)

    # --- reading --------------------------------------------------------------------

    @property
    def requests(self) -> int:
        """How many requests to an /events edge came in whole."""
        return self._requests

    def counts(self, dataset: str) -> Counts:
        """Return one dataset's numbers."""
        with self._lock:
            held = self._datasets.get(dataset) or _Dataset()
            return Counts(
                arrived=held.arrived,
                received=held.received,
                repeated_event_ids=held.repeated_event_ids,
                repeated_offline=held.repeated_offline,
            )

    def all_counts(self) -> Mapping[str, Counts]:
        """Return the numbers of every dataset that anything arrived for."""
        with self._lock:
            datasets = list(self._datasets)
        return {dataset: self.counts(dataset) for dataset in datasets}

    def arrived(
        self, dataset: str | None = None, event_name: str | None = None
    ) -> Iterator[Received]:
        """Yield each event that came at all, in the order of its first arrival."""
        with self._lock:
            found = [
                (held_dataset, name, list(ids.items()))
                for held_dataset, held in self._datasets.items()
                if dataset in (None, held_dataset)
                for name, ids in held.names.items()
                if event_name in (None, name)
            ]
        for held_dataset, name, items in found:
            for event_id, receipts in items:
                yield Received(
                    dataset=held_dataset,
                    event_name=name,
                    event_id=event_id,
                    receipts=receipts,
                )

    def events(self, dataset: str) -> list[dict[str, Any]]:
        """Return the events Meta took, whole; only with `keep_events`."""
        with self._lock:
            held = self._datasets.get(dataset)
            return list(held.events) if held else []

    def key_sets(self, dataset: str) -> Mapping[Lane, Counter[str]]:
        """Return how often each set of user_data keys came, by lane."""
        with self._lock:
            held = self._datasets.get(dataset) or _Dataset()
            return {lane: sets.copy() for lane, sets in held.key_sets.items()}

    def last_received(self, dataset: str) -> float | None:
        """Return when Meta last took an event, in Unix seconds."""
        with self._lock:
            held = self._datasets.get(dataset)
            return held.last_received if held else None
