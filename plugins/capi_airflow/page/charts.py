"""What the charts draw: labels and series, the same numbers as in the tables beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from meta_capi.lifecycle import State
from meta_capi.overview import FUNNEL, Figures, Traffic
from meta_capi.score_book import Line

__all__ = [
    "coverage", "days", "freshness", "funnel", "latency", "scores", "values",
]  # fmt: skip

_MOST_KEYS: Final = 8
_MOST_SCORE: Final = 10
_LINES: Final = ("within 1 hour", "within 2 hours", "within 24 hours")


def funnel(figures: Figures) -> dict[str, Any]:
    """Return where the rows of a span ended, as bars."""
    states = [State.ACCEPTED, *(each for each in FUNNEL if each is not State.ACCEPTED)]
    return {
        "kind": "bar",
        "across": True,
        "labels": [_words(state) for state in states],
        "series": [
            {
                "name": "conversions",
                "values": [figures.whole.states[state] for state in states],
                "tones": [state.value for state in states],
            }
        ],
    }


def days(figures: Figures) -> dict[str, Any]:
    """Return the states of each day, stacked."""
    shown = [
        state
        for state in (State.ACCEPTED, *FUNNEL[:-1])
        if figures.whole.states[state] or state is State.ACCEPTED
    ]
    return {
        "kind": "bar",
        "stacked": True,
        "labels": _labels(figures),
        "series": [
            {
                "name": _words(state),
                "tone": state.value,
                "values": [counts.states[state] for counts in figures.days.values()],
            }
            for state in shown
        ],
    }


def values(figures: Figures) -> dict[str, Any] | None:
    """Return the value that Meta accepted by day, in the currency of most events."""
    currency = figures.main_currency
    if currency is None:
        return None
    return {
        "kind": "bar",
        "labels": _labels(figures),
        "series": [
            {
                "name": currency,
                "tone": "line0",
                "values": [
                    float(counts.accepted_value.get(currency, 0))
                    for counts in figures.days.values()
                ],
            }
        ],
    }


def freshness(figures: Figures) -> dict[str, Any]:
    """Return how soon events were at Meta, by Meta's three lines."""
    shares = [each.shares() for each in figures.fresh_days.values()]
    return {
        "kind": "line",
        "percent": True,
        "labels": _labels(figures),
        "series": [
            {
                "name": name,
                "tone": f"line{place}",
                "values": [each[place] if each else None for each in shares],
            }
            for place, name in enumerate(_LINES)
        ],
    }


def coverage(figures: Figures) -> dict[str, Any]:
    """Return the share of accepted events with each match key, by day."""
    return {
        "kind": "line",
        "percent": True,
        "labels": _labels(figures),
        "series": [
            {
                "name": key,
                "tone": f"line{place}",
                "values": [each.share(key) for each in figures.covered_days.values()],
            }
            for place, key in enumerate(figures.coverage.keys[:_MOST_KEYS])
        ],
    }


def latency(lines: list[Traffic]) -> dict[str, Any]:
    """Return how long Meta took to answer, day by day."""
    return {
        "kind": "line",
        "unit": "s",
        "labels": [line.day.isoformat() for line in lines],
        "series": [
            {
                "name": "median",
                "tone": "line0",
                "values": [line.median_seconds for line in lines],
            },
            {
                "name": "95th percentile",
                "tone": "line1",
                "values": [line.p95_seconds for line in lines],
            },
        ],
    }


def scores(lines: Sequence[Line]) -> dict[str, Any] | None:
    """Return Meta's own scores by day; None where there is but one day."""
    days = sorted({day for line in lines for day in line.history})
    if len(days) < 2:
        return None
    return {
        "kind": "line",
        "most": _MOST_SCORE,
        "labels": [day.isoformat() for day in days],
        "series": [
            {
                "name": f"{line.last.event_name}, {line.surface}",
                "tone": f"line{place}",
                "values": [line.history.get(day) for day in days],
            }
            for place, line in enumerate(lines[:_MOST_KEYS])
        ],
    }


def _labels(figures: Figures) -> list[str]:
    return [day.isoformat() for day in figures.span.days]


def _words(state: State) -> str:
    return state.value.replace("_", " ")
