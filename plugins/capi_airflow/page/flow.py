"""The flow of the feeds: all of them, one of them, one of its days, and what is held."""
# No `from __future__ import annotations` here: FastAPI reads these annotations itself.

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request
from starlette.responses import Response

from capi_airflow.page import charts
from capi_airflow.page.guard import Reader, ReaderDep
from capi_airflow.page.house import House
from capi_airflow.page.scores import Scores
from capi_airflow.page.view import now, page
from meta_capi import alert_book, insight, overview, score_book
from meta_capi.alert_book import News
from meta_capi.answers import Expiring
from meta_capi.catalogue import CATALOGUE, EFFECTS
from meta_capi.errors import CapiError
from meta_capi.lifecycle import State
from meta_capi.overview import Figures, Span
from meta_capi.score_book import Book

__all__ = ["FeedName", "router"]

router = APIRouter()

FeedName = Annotated[str, Path(pattern="^[a-z][a-z0-9_]{0,62}$")]
ReasonCode = Annotated[
    str | None, Query(pattern="^[a-z_]+([.][a-z0-9_]+){1,2}$", max_length=80)
]
Days = Annotated[int, Query(ge=1, le=90)]
MOST_LISTED = 50


@router.get("/")
def flow(request: Request, who: ReaderDep, days: Days = 30) -> Response:
    """Show every feed's funnel, and what needs a person."""
    span = Span.back(days, now().date())
    found: list[Figures] = []
    alerts: dict[str, list[News]] = {}
    books: dict[str, Book] = {}
    for names in _by_ledger(who).values():
        try:
            ledger = who.house.ledger(names[0])
            figures = overview.figures(ledger, names, span)
            alerts |= alert_book.open_alerts(ledger, names)
            datasets = {each.dataset_id for each in figures}
            books |= score_book.standing(ledger, datasets, span)
            found += figures
        except CapiError as error:
            who.house.troubles.append(str(error))
    lines = [(each, charts.days(each)) for each in found]
    silent = [name for name in who.feeds if name not in {each.feed for each in found}]
    return page(
        request, "flow.html", house=who.house, lines=lines, days=days, span=span,
        silent=silent, alerts=alerts,
        scores=[_scores(who.house, each, books) for each in found],
        expiring={each.feed: _expiring(who.house, each.feed) for each in found},
        broken={name: why for name, why in who.house.broken.items() if name in who.feeds},
    )  # fmt: skip


@router.get("/feeds/{feed}")
def one_feed(
    request: Request, feed: FeedName, who: ReaderDep, days: Days = 30
) -> Response:
    """Show one feed: its funnel, its days, freshness, match keys, gates, requests, runs."""
    ledger = who.house.ledger(who.expect(feed))
    span = Span.back(days, now().date())
    traffic = overview.traffic(ledger, feed, span)
    found = overview.figures(ledger, [feed], span, apart=True)
    books = score_book.standing(ledger, {each.dataset_id for each in found}, span)
    return page(
        request, "feed.html", feed=feed, known=who.house.feeds.get(feed), days=days,
        span=span, dag_id=who.house.dag_id(feed),
        figures=[
            (
                each,
                {
                    "funnel": charts.funnel(each), "days": charts.days(each),
                    "values": charts.values(each), "freshness": charts.freshness(each),
                    "coverage": charts.coverage(each),
                },
                _scores(who.house, each, books),
            )
            for each in found
        ],
        alerts=alert_book.open_alerts(ledger, [feed]),
        expiring=_expiring(who.house, feed), traffic=traffic,
        latency=charts.latency(traffic), gates=overview.gates(ledger, feed, 8),
        runs=insight.runs(ledger, feed, 8),
    )  # fmt: skip


@router.get("/feeds/{feed}/days/{day}")
def one_day(
    request: Request, feed: FeedName, day: date, who: ReaderDep,
    state: State | None = None, reason: ReasonCode = None,
) -> Response:  # fmt: skip
    """Show one day of a feed, and the latest of its conversions."""
    ledger = who.house.ledger(who.expect(feed))
    today = now().date()
    if not date(2000, 1, 1) <= day <= today + timedelta(days=1):
        raise HTTPException(404, "The ledger knows no such day.")
    span = Span(day, day)
    return page(
        request, "day.html", feed=feed, day=day, dag_id=who.house.dag_id(feed),
        before=day - timedelta(days=1), after=day + timedelta(days=1) if day < today else None,
        figures=overview.figures(ledger, [feed], span, apart=True), state=state, reason=reason,
        listed=overview.listed(
            ledger, feed, span, state=state, reason=reason, most=MOST_LISTED
        ),
        most=MOST_LISTED,
    )  # fmt: skip


@router.get("/feeds/{feed}/held")
def held(
    request: Request, feed: FeedName, who: ReaderDep,
    state: Literal["quarantined", "refused", "withheld", "expired", "in_doubt", "pending"]
    | None = None,
    reason: ReasonCode = None,
) -> Response:  # fmt: skip
    """Show what is not at Meta, by reason, with what it means and what to do."""
    ledger = who.house.ledger(who.expect(feed))
    chosen = State(state) if state else None
    rows = overview.held(ledger, feed)
    listed = (
        overview.listed(
            ledger, feed, None, state=chosen, reason=reason, most=MOST_LISTED
        )
        if chosen
        else []
    )
    return page(
        request, "held.html", feed=feed, dag_id=who.house.dag_id(feed), rows=rows,
        state=chosen, reason=reason, listed=listed, most=MOST_LISTED,
        may_replay=who.may_replay,
        replayable={State.QUARANTINED, State.REFUSED, State.WITHHELD},
    )  # fmt: skip


@router.get("/reasons")
def reasons(request: Request, who: ReaderDep) -> Response:
    """Show the catalogue: reasons, Meta's codes and faults, and what to do."""
    sections = [
        (effect, words, [each for each in CATALOGUE.values() if each.effect is effect])
        for effect, words in EFFECTS.items()
    ]
    return page(request, "reasons.html", sections=sections)


def _scores(house: House, figures: Figures, books: Mapping[str, Book]) -> Scores:
    """Return what Meta says of the feed's own events."""
    known = house.feeds.get(figures.feed)
    return Scores.of(
        books[figures.dataset_id], known.event_names if known else (), figures.coverage
    )


def _by_ledger(who: Reader) -> dict[int, list[str]]:
    """Return the feeds that one ledger holds, ledger by ledger."""
    found: dict[int, list[str]] = {}
    for feed in who.feeds:
        try:
            found.setdefault(id(who.house.ledger(feed)), []).append(feed)
        except CapiError as error:
            who.house.troubles.append(str(error))
    return found


def _expiring(house: House, feed: str) -> list[Expiring]:
    """Return what Meta takes no more in 24 hours, unless it goes out before."""
    known = house.feeds.get(feed)
    if known is None:
        return []
    oldest = now() - known.longest_window + known.window.margin
    soon = oldest + timedelta(hours=24)
    return overview.expiring(house.ledger(feed), feed, oldest, soon)
