"""The parts of the benchmark: each a function from a world and sizes to a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Sizes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured, how often, and beside whom."""

    rows: Sequence[int] = ()
    """Instead of a part's own sizes."""
    peer_rows: int = 50_000
    """What the peers send, who are slow."""
    repeat: int = 3
    workers: int = 2
    """Processes that deliver."""
    peers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The command of each peer."""

    def sizes(self, *own: int) -> list[int]:
        """Return the sizes asked for, or the part's own; small ones first."""
        return sorted(self.rows or own)
