"""A meter: wall time and everybody's CPU time, lap by lap."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Meter"]


@dataclass(slots=True)
class Meter:
    """Reads several CPU clocks at once.

    Args:
        clocks: a name for each party, and what returns its CPU seconds so far.
    """

    clocks: Mapping[str, Callable[[], float]]
    laps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        wall, before = time.perf_counter(), self._read()
        yield
        seconds, after = time.perf_counter() - wall, self._read()
        cpu = {who: round(after[who] - before[who], 3) for who in after}
        self.laps[name] = {"seconds": round(seconds, 3), "cpu_seconds": cpu}

    def _read(self) -> dict[str, float]:
        return {who: clock() for who, clock in self.clocks.items()}

    @property
    def seconds(self) -> float:
        """Wall time of all laps."""
        return round(sum(float(lap["seconds"]) for lap in self.laps.values()), 3)

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """CPU time of all laps, for each party."""
        return {
            who: round(sum(lap["cpu_seconds"][who] for lap in self.laps.values()), 3)
            for who in self.clocks
        }

    def to_json(self) -> dict[str, Any]:
        """Return the sums, each party's share of the CPU time spent, and the laps."""
        cpu = self.cpu_seconds
        spent = sum(cpu.values()) or 1.0
        return {
            "seconds": self.seconds,
            "cpu_seconds": cpu,
            "cpu_share": {who: round(each / spent, 3) for who, each in cpu.items()},
            "laps": self.laps,
        }
