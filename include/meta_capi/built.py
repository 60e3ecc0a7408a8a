"""A slice of rows on its way to events, in columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from meta_capi.lifecycle import State

__all__ = ["Built", "Columns", "bound"]

Columns = Mapping[str, Sequence[object]]
"""A slice of rows: column name to values, all of one length."""

_CACHE_ENTRIES: Final = 100_000


@dataclass(slots=True)
class Built:
    """A slice after building: one entry a row in every list.

    A row is to be sent where `states` is pending and `reasons` is None; its event's
    bytes are in `bodies`. Every other row is held: `reasons` says why.
    """

    source_keys: list[str]
    cursors: list[datetime]
    event_names: list[str | None]
    event_ids: list[str | None]
    event_times: list[int | None]
    states: list[State]
    reasons: list[str | None]
    masks: list[int]
    bodies: list[bytes | None] = field(repr=False)
    digests: list[bytes | None]
    values: list[str | None]
    currencies: list[str | None]
    not_before: list[int | None]
    flaws: Counter[str] = field(default_factory=Counter)
    """Match keys and fields left out of events, by reason."""

    def __len__(self) -> int:
        return len(self.source_keys)

    @property
    def sendable(self) -> list[int]:
        """The positions of the rows to be sent."""
        return [i for i, reason in enumerate(self.reasons) if reason is None]

    @property
    def held(self) -> list[int]:
        """The positions of the rows that are not to be sent."""
        return [i for i, reason in enumerate(self.reasons) if reason is not None]

    def hold(self, row: int, state: State, reason: str) -> None:
        """Take a row out of what is to be sent; the first reason stands."""
        if self.reasons[row] is None:
            self.states[row], self.reasons[row] = state, reason
            self.bodies[row] = None


def bound(cache: dict[Any, Any]) -> None:
    """Forget everything when a cache is full: memory stays flat, whatever comes."""
    if len(cache) >= _CACHE_ENTRIES:
        cache.clear()
