"""Faults on demand: what goes wrong, when, and how often.

A fault is data; `sabotage.py` performs it. Each armed fault counts the requests of its
edge and draws from its own seeded generator, so a schedule is the same every time for
the same order of requests.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from random import Random
from typing import Any, Final

from graph_simulator.refusals import Refusal


class FaultKind(StrEnum):
    """What goes wrong. The first four strike before the body is read."""

    HANG_UP_BEFORE_READING = "hang_up_before_reading"  # reset after the head
    HANG_UP_MID_BODY = "hang_up_mid_body"  # reset after `after_bytes` of the body
    NEVER_READ = "never_read"  # as `hang`, with the body left in the socket
    EARLY_STATUS = "early_status"  # `status` before the body, then hang up

    HANG_UP_AFTER_READING = "hang_up_after_reading"  # reset instead of an answer
    HANG = "hang"  # no answer for `seconds` (0: ever), then reset
    STATUS = "status"  # `status` with Meta's words for it
    HTML = "html"  # `status` with a page
    EMPTY_BODY = "empty_body"
    REDIRECT = "redirect"  # `status` to `location`
    FLOOD = "flood"  # `size` bytes of spaces; `gzip` packs them
    ERROR_IS = "error_is"  # {"error": `value`}, whatever that is

    # Meta's own no, told instead of the rules' answer.
    ERROR = "error"  # `code`, `subcode`, `status`
    THROTTLE = "throttle"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105  the kind of a fault
    PERMISSION = "permission"
    DATASET = "dataset"
    REFUSE_IF = "refuse_if"  # only if the batch holds one of `event_ids`

    # The right answer, spoilt.
    DELAY = "delay"  # `seconds` before it; goes together with any other fault
    DRIP = "drip"  # byte by byte, `seconds` apart
    TRUNCATED_JSON = "truncated_json"
    WRONG_CONTENT_LENGTH = "wrong_content_length"  # off by `off_by`, then hang up
    CHUNKED_CUT = "chunked_cut"  # a chunked answer that stops in its middle
    RECEIVED_OFF_BY = "received_off_by"  # events_received + `off_by`
    RECEIVED_IS = "received_is"  # events_received is `value`
    RECEIVED_MISSING = "received_missing"
    MESSAGES = "messages"  # messages is `value`
    HEADERS = "headers"  # adds `headers`
    INTERIM = "interim"  # `size` answers 103 before the real one
    CLOSE_IDLE = "close_idle"  # hang up, unannounced, `seconds` after the answer
    TWICE = "twice"  # a proxy delivered the request twice


EARLY: Final = frozenset({
    FaultKind.HANG_UP_BEFORE_READING, FaultKind.HANG_UP_MID_BODY,
    FaultKind.NEVER_READ, FaultKind.EARLY_STATUS,
})  # fmt: skip
# The answer is lost or replaced, so `processed` has to be said; it is False by default.
REPLACING: Final = frozenset({
    FaultKind.HANG_UP_AFTER_READING, FaultKind.HANG, FaultKind.STATUS, FaultKind.HTML,
    FaultKind.EMPTY_BODY, FaultKind.REDIRECT, FaultKind.FLOOD, FaultKind.ERROR_IS,
})  # fmt: skip

# Section 10.4: code, subcode, HTTP status, words, transient.
_REFUSALS: Final[Mapping[FaultKind, tuple[int, int | None, int, str, bool]]] = {
    FaultKind.ERROR: (100, None, 400, "Invalid parameter", False),
    FaultKind.THROTTLE: (4, None, 403, "Application request limit reached", True),
    FaultKind.TOKEN_REVOKED: (190, 463, 401, "Session has expired", False),
    FaultKind.PERMISSION: (200, None, 403, "Permissions error", False),
    FaultKind.DATASET: (100, 33, 400, "Unsupported request", False),
    FaultKind.REFUSE_IF: (100, 2804019, 400, "Invalid parameter", False),
}
_WHOLE_NUMBERS: Final = frozenset({
    "count", "seed", "nth", "status", "code", "subcode", "off_by", "after_bytes",
    "size",
})  # fmt: skip
_STATUSES: Final[Mapping[FaultKind, int]] = {
    FaultKind.EARLY_STATUS: 413,
    FaultKind.STATUS: 500,
    FaultKind.HTML: 200,
    FaultKind.EMPTY_BODY: 200,
    FaultKind.REDIRECT: 307,
    FaultKind.FLOOD: 200,
    FaultKind.ERROR_IS: 400,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing to go wrong, and on which requests.

    It strikes `count` times (None: until removed), on requests of `edge` ("events",
    "dataset", "dataset_quality", "debug_token"), with `probability`; only on the `nth`
    of them since it was added; only if the batch holds one of `event_ids`.
    """

    kind: FaultKind
    count: int | None = 1
    probability: float = 1.0
    seed: int = 0
    nth: int | None = None
    event_ids: frozenset[str] = frozenset()
    edge: str = "events"

    processed: bool = False  # whether Meta keeps the events of an answer that is lost
    seconds: float = 0.0
    status: int | None = None
    code: int | None = None
    subcode: int | None = None
    message: str | None = None
    is_transient: bool | None = None
    wait_minutes: Any = None  # into x-business-use-case-usage; any JSON
    headers: tuple[tuple[str, str], ...] = ()
    value: Any = None
    off_by: int = -1
    after_bytes: int = 0
    size: int = 0
    gzip: bool = False
    location: str = ""

    def __post_init__(self) -> None:
        if self.kind in EARLY and self.event_ids:
            raise ValueError(
                f"{self.kind} strikes before the body is read; it cannot look for "
                "event_ids."
            )
        if self.kind is FaultKind.REFUSE_IF and not self.event_ids:
            raise ValueError("refuse_if needs event_ids.")

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Fault:
        """Read what was posted to `/_simulator/faults`.

        Raises:
            ValueError: a member is unknown or mistyped, or there is no such kind.
        """
        unknown = members.keys() - {known.name for known in fields(cls)}
        if unknown:
            raise ValueError(f"A fault has no {', '.join(sorted(unknown))}.")
        for name in _WHOLE_NUMBERS & members.keys():
            if not isinstance(members[name], int | None):
                raise ValueError(f"{name} must be a whole number.")
        given = dict(members)
        given["kind"] = FaultKind(given.get("kind", ""))
        if "event_ids" in given:
            given["event_ids"] = frozenset(given["event_ids"])
        if "headers" in given:
            given["headers"] = tuple(
                (str(name), str(value)) for name, value in given["headers"]
            )
        return cls(**given)

    @property
    def http_status(self) -> int:
        """The status that was set, else the kind's own."""
        return self.status or _STATUSES.get(self.kind, 200)

    def refusal(self) -> Refusal | None:
        """Return Meta's *no* for the kinds that are one."""
        if self.kind not in _REFUSALS:
            return None
        code, subcode, status, message, is_transient = _REFUSALS[self.kind]
        if self.code is not None and self.code != code:
            # Only code 4 was seen as 403 (10.4).
            code, subcode, status = self.code, None, 400
        return Refusal(
            code=code,
            subcode=subcode if self.subcode is None else self.subcode,
            status=self.status or status,
            message=self.message or message,
            is_transient=(
                is_transient if self.is_transient is None else self.is_transient
            ),
            wait=self.wait_minutes,
        )


@dataclass(slots=True, eq=False)
class _Armed:
    fault: Fault
    left: int | None
    random: Random
    seen: int = 0
    struck: int = 0

    def calls(self) -> bool:
        """Count one request of the edge and say whether the fault is due on it."""
        self.seen += 1
        # Drawn always, so that `nth` and an early end leave the schedule as it is.
        due = self.random.random() < self.fault.probability
        return due and self.left != 0 and self.fault.nth in (None, self.seen)


class Visit:
    """One request on its way through the faults that are due on it."""

    def __init__(self, due: list[_Armed], lock: threading.Lock) -> None:
        self._due = due
        self._lock = lock

    def early(self) -> Fault | None:
        """Return the fault that strikes before the body is read."""
        return self._strike(lambda fault: fault.kind in EARLY)

    def delay(self, event_ids: Collection[str]) -> float:
        """Return how many seconds to wait: the sum of all delays."""
        seconds = 0.0
        while fault := self._strike(
            lambda fault: fault.kind is FaultKind.DELAY and _meets(fault, event_ids)
        ):
            seconds += fault.seconds
        return seconds

    def refuse_if(self, event_ids: Collection[str]) -> Refusal | None:
        """Return the content-driven refusal of a batch that breaks no rule."""
        fault = self._strike(
            lambda fault: fault.kind is FaultKind.REFUSE_IF and _meets(fault, event_ids)
        )
        return fault.refusal() if fault else None

    def late(self, event_ids: Collection[str]) -> Fault | None:
        """Return the first other fault, in the order in which they were added."""
        apart = EARLY | {FaultKind.DELAY, FaultKind.REFUSE_IF}
        return self._strike(
            lambda fault: fault.kind not in apart and _meets(fault, event_ids)
        )

    def looks_inside(self) -> bool:
        """Say whether any fault asks for the batch's event ids."""
        return any(armed.fault.event_ids for armed in self._due)

    def _strike(self, wanted: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            for armed in self._due:
                # Another request may have used it up meanwhile.
                if armed.left != 0 and wanted(armed.fault):
                    self._due.remove(armed)
                    armed.struck += 1
                    if armed.left is not None:
                        armed.left -= 1
                    return armed.fault
        return None


def _meets(fault: Fault, event_ids: Collection[str]) -> bool:
    return not fault.event_ids or not fault.event_ids.isdisjoint(event_ids)


def _armed(fault: Fault) -> _Armed:
    # A replayable schedule, not a secret.
    return _Armed(fault, fault.count, Random(fault.seed))  # noqa: S311


class Faults:
    """The faults that are armed. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []

    def add(self, *faults: Fault) -> None:
        """Arm faults; where several are due on one request, the first one strikes."""
        with self._lock:
            self._armed += map(_armed, faults)

    def replace(self, *faults: Fault) -> None:
        """Arm these faults alone; no request comes in between."""
        with self._lock:
            self._armed = [_armed(fault) for fault in faults]

    def clear(self) -> None:
        """Disarm all."""
        self.replace()

    def struck(self) -> Counter[str]:
        """Return how often each kind has struck since the last `clear`."""
        with self._lock:
            counts: Counter[str] = Counter()
            for armed in self._armed:
                counts[armed.fault.kind] += armed.struck
            return counts

    def visit(self, edge: str) -> Visit:
        """Count one request of an edge; return what is due on it."""
        if not self._armed:
            return Visit([], self._lock)
        with self._lock:
            due = [
                armed
                for armed in self._armed
                if armed.fault.edge == edge and armed.calls()
            ]
        return Visit(due, self._lock)
