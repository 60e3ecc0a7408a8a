"""How fast rows are settled, and how long the rest will take, if that can be said."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from capi_airflow.ending import Log
from meta_capi.lifecycle import State
from meta_capi.tally import Tally
from meta_capi.words import ago, number, percent

__all__ = ["Pace", "Progress", "seconds_left", "time_left"]

# What took longer would be a guess; a day is also the longest wait that Meta may ask.
_LONGEST: Final = 86_400.0
_WINDOW_SECONDS: Final = 60.0
_EVERY_SECONDS: Final = 5.0


def seconds_left(remaining: int, done: int, seconds: float) -> float | None:
    """Return how long the remaining rows take, if `done` took so many seconds.

    None where nobody can say: nothing was done, or it would take more than a day.

    >>> seconds_left(300, 100, 5.0), seconds_left(300, 0, 5.0)
    (15.0, None)
    """
    if remaining <= 0:
        return 0.0
    if done <= 0 or seconds <= 0:
        return None
    left = remaining * (seconds / done)
    return left if left <= _LONGEST else None


def time_left(seconds: float | None) -> str:
    """Say a time that is a guess, in steps of five seconds.

    >>> time_left(12.1), time_left(1_000), time_left(None)
    ('about 15 seconds left', 'about 16 minutes left', 'time left unknown')
    """
    if seconds is None:
        return "time left unknown"
    return f"about {ago(timedelta(seconds=5 * math.ceil(seconds / 5)))} left"


class Pace:
    """The rows settled in the last minute: waits asked by Meta show in it at once."""

    def __init__(self, now: float) -> None:
        self._marks = deque([(now, 0)])

    def mark(self, now: float, settled: int) -> None:
        """Note how many rows are settled."""
        self._marks.append((now, settled))
        while len(self._marks) > 2 and self._marks[1][0] <= now - _WINDOW_SECONDS:
            self._marks.popleft()

    @property
    def _last(self) -> tuple[int, float]:
        """Rows, and the seconds that they took."""
        (began, before), (now, settled) = self._marks[0], self._marks[-1]
        return settled - before, now - began

    @property
    def rate(self) -> float:
        """Rows in a second."""
        rows, seconds = self._last
        return rows / seconds if seconds > 0 else 0.0

    def left(self, remaining: int) -> float | None:
        """Return how many seconds the remaining rows take, or None."""
        return seconds_left(remaining, *self._last)


class Progress:
    """Writes a line every few seconds: rows, rate, outcomes, time left.

    Args:
        total: how many rows there were when they were counted.
    """

    def __init__(
        self, log: Log, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._total = total
        self._clock = clock
        self._began = self._last = clock()
        self._pace = Pace(self._began)
        self.tally = Tally()
        """As it was last reported."""

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._began

    def __call__(self, tally: Tally) -> None:
        """Report."""
        self.tally = tally
        now = self._clock()
        if now - self._last < _EVERY_SECONDS:
            return
        self._last = now
        settled = tally.settled
        self._pace.mark(now, settled)
        # A task's log is a line to its supervisor. Where that is dead the line is broken,
        # and what is in flight has to land all the same.
        with suppress(OSError):
            self._log.info("%s", self._line(tally, settled))

    def _line(self, tally: Tally, settled: int) -> str:
        total = max(self._total, tally.rows)
        share = percent(settled / total) if total else percent(1.0)
        held = (State.QUARANTINED, State.WITHHELD, State.EXPIRED)
        counts = (
            ("accepted", tally.outcomes[State.ACCEPTED]),
            ("refused", tally.outcomes[State.REFUSED]),
            ("held", sum(tally.outcomes[state] for state in held)),
            ("in flight", tally.rows - settled),
        )
        waits = (
            f"; Meta asked to wait {number(tally.waits, 'time')}, "
            f"{tally.wait_seconds:,.0f} s in all"
            if tally.waits
            else ""
        )
        return (
            f"{settled:,} of {total:,} rows ({share}), {self._pace.rate:,.0f} rows/s, "
            f"{time_left(self._pace.left(total - settled))}: "
            f"{', '.join(f'{count:,} {word}' for word, count in counts)}{waits}."
        )
