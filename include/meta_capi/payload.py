"""Events become batches, batches become bytes; the same events, the same bytes.

A batch is cut by count and by bytes. What stands around the events (partner agent, test
code, upload tag) is fixed for a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from meta_capi import spec
from meta_capi.errors import ConfigurationError

__all__ = ["Batch", "Envelope", "OwedEvent", "cut"]

_AGENT: Final = re.compile(spec.PARTNER_AGENT_PATTERN)
_TEST_CODE: Final = re.compile(r"[A-Za-z0-9_-]{4,40}")


class OwedEvent(NamedTuple):
    """An event on a worker's desk: the conversion's key and the event's bytes."""

    source_key: str
    body: bytes

    def __repr__(self) -> str:
        return f"OwedEvent({self.source_key!r})"


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that go out in one request."""

    batch_id: int
    root_id: int
    depth: int
    events: tuple[OwedEvent, ...]

    def __len__(self) -> int:
        return len(self.events)

    @property
    def size(self) -> int:
        """The events' bytes, with the commas between them."""
        return sum(len(body) for _, body in self.events) + len(self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What stands around the events of every request of a run."""

    partner_agent: str | None = None
    test_event_code: str | None = None
    upload_tag: str | None = None

    def __post_init__(self) -> None:
        if self.partner_agent and not _AGENT.fullmatch(self.partner_agent):
            raise ConfigurationError(
                "The partner agent must have 2 to 22 characters, of letters, digits "
                "and . _ -, at least two letters among them.",
                code="fault.connection",
            )
        code = self.test_event_code
        # Without any, what was meant as a test would count as the real thing.
        if code is not None and not _TEST_CODE.fullmatch(code):
            raise ConfigurationError(
                "The test event code is empty, or has characters that Meta's codes do "
                "not have; copy it from Events Manager, as TEST12345.",
                code="fault.form",
            )

    def wrap(self, events: Sequence[OwedEvent]) -> bytes:
        """Return the request's body.

        >>> Envelope(upload_tag="t").wrap([OwedEvent("ord-1", b"{}")])
        b'{"data":[{}],"upload_tag":"t"}'
        """
        members = {
            "partner_agent": self.partner_agent,
            "test_event_code": self.test_event_code,
            "upload_tag": self.upload_tag,
        }
        tail = "".join(
            f',"{name}":{json.dumps(text)}' for name, text in members.items() if text
        )
        data = b",".join([event.body for event in events])
        return b'{"data":[' + data + b"]" + tail.encode() + b"}"


def cut(sizes: Sequence[int], *, most_events: int, most_bytes: int) -> Iterator[range]:
    """Cut a row of events, given by their bytes, into ranges that fit a request.

    >>> list(cut([10, 10, 10], most_events=2, most_bytes=100))
    [range(0, 2), range(2, 3)]
    >>> list(cut([60, 60], most_events=9, most_bytes=100))
    [range(0, 1), range(1, 2)]
    """
    start = total = 0
    for index, size in enumerate(sizes):
        if index - start >= most_events or (
            index > start and total + size + 1 > most_bytes
        ):
            yield range(start, index)
            start, total = index, 0
        total += size + 1
    if start < len(sizes):
        yield range(start, len(sizes))
