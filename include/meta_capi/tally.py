"""What became of the rows so far: counts, and nothing else of a row."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from meta_capi.lifecycle import State

__all__ = ["WOULD_BE_SENT", "Tally"]

WOULD_BE_SENT: Final = "would be sent"
"""What a dry run calls an event that nothing holds back."""


@dataclass(slots=True)
class Tally:
    """What became of the rows read so far. Sums up to `rows` when all is settled."""

    rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Rows by state. A row accepted by an earlier run counts as accepted."""
    reasons: Counter[str] = field(default_factory=Counter)
    flaws: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    accepted_now: int = 0
    splits: int = 0
    bytes_sent: int = 0
    waits: int = 0
    """How often Meta asked to wait."""
    wait_seconds: float = 0.0
    """What it asked for, in all."""
    _lock: threading.Lock = field(
        default_factory=threading.Lock, repr=False, compare=False
    )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Change several counts as one."""
        with self._lock:
            yield

    def settle(self, state: State | str, count: int, reason: str | None = None) -> None:
        """Count rows that reached a state."""
        self.outcomes[str(state)] += count
        if reason and count:
            self.reasons[reason] += count

    def settle_all(self, moved: Mapping[str, int], reason: str) -> None:
        """Count rows by the states they moved to; a doubt has its own reason."""
        with self._lock:
            for state, count in moved.items():
                doubt = state == State.IN_DOUBT
                self.settle(state, count, "answer.unclear" if doubt else reason)

    @property
    def settled(self) -> int:
        """Rows that have an outcome."""
        return self.outcomes.total()

    def to_json(self) -> dict[str, float | dict[str, int]]:
        """Return plain counts."""
        return {
            "rows": self.rows,
            "outcomes": dict(self.outcomes),
            "reasons": dict(self.reasons),
            "flaws": dict(self.flaws),
            "requests": self.requests,
            "accepted_now": self.accepted_now,
            "splits": self.splits,
            "bytes_sent": self.bytes_sent,
            "waits": self.waits,
            "wait_seconds": self.wait_seconds,
        }
