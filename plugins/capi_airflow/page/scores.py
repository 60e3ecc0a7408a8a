"""Meta's own scores as the page shows them: of a feed's events, beside our own counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from capi_airflow.page import charts
from meta_capi.overview import Coverage
from meta_capi.score_book import Book, Line, Reading
from meta_capi.scores import EventScore, our_key

__all__ = ["Scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A match key, as Meta counts it and as we do: shares, of 1."""

    word: str
    metas: float | None
    ours: float | None
    gain: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What there is to show of one feed's dataset."""

    readings: Sequence[Reading]
    lines: Sequence[Line]
    others: int
    """Events of the dataset that are not the feed's. Their names are nobody's to show."""
    coverage: Coverage

    @classmethod
    def of(cls, book: Book, event_names: Sequence[str], coverage: Coverage) -> Self:
        """Choose from a dataset's book what is the feed's."""
        own = [line for line in book.lines if line.last.event_name in event_names]
        return cls(
            readings=book.readings, lines=own, others=len(book.lines) - len(own),
            coverage=coverage,
        )  # fmt: skip

    @property
    def chart(self) -> dict[str, Any] | None:
        """The scores by day."""
        return charts.scores(self.lines)

    def keys(self, line: Line) -> list[Key]:
        """Return the match keys of an event."""
        return [
            Key(
                word=key.match_key, metas=_share(key.coverage), ours=self._ours(key.match_key),
                gain=_share(key.gain),
            )
            for key in line.last.keys
        ]  # fmt: skip

    def _ours(self, word: str) -> float | None:
        name, accepted = our_key(word), self.coverage.accepted
        if name is None or not accepted:
            return None
        return self.coverage.with_key.get(name, 0) / accepted

    @staticmethod
    def parts(last: EventScore) -> list[str]:
        """Say what else Meta tells of an event."""
        return list(_parts(last))


def _parts(last: EventScore) -> Iterator[str]:
    for name, score in (
        ("match keys", last.match_key_score), ("frequency", last.frequency_score),
        ("freshness", last.freshness_score),
    ):  # fmt: skip
        if score is not None:
            yield f"{name} {score:g}"
    if last.event_coverage is not None:
        goal = f" (goal {last.coverage_goal:g} %)" if last.coverage_goal else ""
        yield f"covers {last.event_coverage:g} % of the Pixel's{goal}"
    if last.acr is not None:
        yield f"adds {last.acr:g} % to what Meta reports"
    if last.upload_frequency is not None:
        yield f"arrives {last.upload_frequency.replace('_', ' ')}"


def _share(percentage: float | None) -> float | None:
    return None if percentage is None else percentage / 100
