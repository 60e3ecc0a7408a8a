"""One conversion: search, its story, its payload; and the form that puts rows back.

What is searched for may be a person's. So it comes in the body of a POST, never in an
address, where access logs, histories and Airflow's own frame would keep it. Nothing is
changed by it, so that a forged request gains nothing.
"""
# No `from __future__ import annotations` here: FastAPI reads these annotations itself.

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.responses import Response

from capi_airflow.feed_files import home
from capi_airflow.page.flow import ReasonCode
from capi_airflow.page.guard import REPLAY_DAG, Reader, ReaderDep
from capi_airflow.page.view import now, page
from capi_airflow.stage import engine_of
from meta_capi import insight, tale
from meta_capi.answers import Erasure, Story
from meta_capi.errors import CapiError
from meta_capi.feed import Feed
from meta_capi.judged import Row, called, judged, names_of, stage_names
from meta_capi.lifecycle import State
from meta_capi.mask import shown
from meta_capi.source import Source

__all__ = ["router"]

router = APIRouter()

_MOST_BYTES: Final = 8_192
_MOST_CHARACTERS: Final = 400
_MOST_STORIES: Final = 20
_NO_DATASET: Final = "0"  # only event ids depend on it


async def form(request: Request) -> Mapping[str, str]:
    """Return a posted form's fields.

    Raises:
        HTTPException: it is longer than any of ours, or no form.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, "That is longer than anything asked for here.")
    try:
        fields = dict(
            parse_qsl(body.decode(), max_num_fields=10, keep_blank_values=True)
        )
    except ValueError:
        raise HTTPException(
            400, "The page does not understand what was sent."
        ) from None
    if any(len(text) > _MOST_CHARACTERS or "\0" in text for text in fields.values()):
        raise HTTPException(413, "That is longer than any key can be.")
    return fields


FormDep = Annotated[Mapping[str, str], Depends(form)]


@dataclass
class Told:
    """One conversion's story, ready to be shown."""

    title: str
    feed: str
    story: Story | None
    source: str
    rows: list[Row] = field(default_factory=list)
    next_step: str = ""

    @property
    def lines(self) -> list[str]:
        """What the ledger remembers."""
        if self.story is None:
            return ["Nothing: no run has read the row."]
        return tale.ledger_lines(self.story)


@router.get("/search")
def search(request: Request, who: ReaderDep) -> Response:
    """Show the search form."""
    return page(
        request, "search.html", key="", told=[], erasures=[], asked=False, notes=[]
    )


@router.post("/search")
def find(request: Request, given: FormDep, who: ReaderDep) -> Response:
    """Tell the stories of the conversions with a key, an event id or a lead id."""
    key = given.get("key", "").strip()
    wanted = given.get("feed") or None
    feeds = [who.expect(wanted)] if wanted else who.feeds
    told: list[Told] = []
    erasures: list[Erasure] = []
    notes: list[str] = []
    if key:
        told, erasures, notes = _stories(who, feeds, key)
    return page(
        request, "search.html", key=key, told=told[:_MOST_STORIES], erasures=erasures,
        asked=bool(key), notes=list(dict.fromkeys(notes)),
    )  # fmt: skip


@router.post("/preview")
def preview(request: Request, given: FormDep, who: ReaderDep) -> Response:
    """Show what would be sent of one row: masked fields, and the JSON."""
    feed = who.expect(given.get("feed", ""))
    known = who.house.feeds.get(feed)
    if known is None:
        raise HTTPException(
            404, "The feed's file is gone or wrong; see the first page."
        )
    key = given.get("key", "").strip()
    dataset = given.get("dataset", "")
    dataset_id = dataset if dataset.isascii() and dataset.isdigit() else _NO_DATASET
    rows: list[Row] = []
    for name in names_of(key):
        rows = rows or _rows(known, name, dataset_id, secrets.token_bytes(32))
    payloads = [list(shown(row.body, exact=False)) if row.body else [] for row in rows]
    return page(
        request, "preview.html", feed=feed, key=key, place=tale.place_of(known),
        rows=list(zip(rows, payloads, strict=True)), has_dataset=dataset_id != _NO_DATASET,
    )  # fmt: skip


@router.get("/replay")
def replay(
    request: Request, who: ReaderDep,
    feed: Annotated[str, Query(pattern="^[a-z][a-z0-9_]{0,62}$")],
    state: Annotated[State, Query()] = State.QUARANTINED, reason: ReasonCode = None,
) -> Response:  # fmt: skip
    """Show the form of the replay's DAG, filled in; Airflow's own API takes it."""
    return page(
        request, "replay.html", feed=who.expect(feed), state=state, reason=reason,
        dag_id=REPLAY_DAG, may_replay=who.may_replay,
        conf={
            "feed": feed, "states": [state.value], "reason": reason, "dry_run": True,
            "why": None, "keys": None, "start": None, "end": None,
        },
    )  # fmt: skip


def _stories(
    who: Reader, feeds: list[str], key: str
) -> tuple[list[Told], list[Erasure], list[str]]:
    told: list[Told] = []
    erasures: list[Erasure] = []
    notes: list[str] = []
    for feed in feeds:
        known = who.house.feeds.get(feed)
        names = names_of(key) + (stage_names(key, known) if known else [])
        try:
            ledger = who.house.ledger(feed)
            stories = insight.explain(ledger, names, feed)
            erasures += insight.erased(ledger, names, [feed])
            digest_key = ledger.digest_key()
        except CapiError as error:
            notes.append(f"{feed}: {error}")
            continue
        if not stories and known:
            found = _in_source(known, names, digest_key, notes)
            told += [found] if found else []
        told += [_told(known, story, digest_key) for story in stories]
    return told, erasures, notes


def _told(feed: Feed | None, story: Story, digest_key: bytes) -> Told:
    delivery = story.delivery
    one = Told(delivery.source_key, delivery.feed, story, "")
    if feed is None:
        one.source = "The feed's file is gone or wrong, so the row is not looked up."
    elif why := tale.unnamed(delivery.source_key, feed):
        one.source = why
    else:
        try:
            one.rows = _rows(feed, delivery.source_key, delivery.dataset_id, digest_key)
            one.source = tale.in_the_source(feed, one.rows)
        except CapiError as error:
            one.source = _unread(feed, error)
    one.next_step = tale.next_step(story, feed, one.rows)
    return one


def _in_source(
    feed: Feed, names: list[str], digest_key: bytes, notes: list[str]
) -> Told | None:
    """Return the story of a row that no run has read."""
    try:
        for name in names:
            if rows := _rows(feed, name, _NO_DATASET, digest_key):
                words = tale.in_the_source(feed, rows)
                return Told(
                    name, feed.feed, None, words, rows, tale.first_run(feed, rows)
                )
    except CapiError as error:
        notes.append(_unread(feed, error))
    return None


def _unread(feed: Feed, error: CapiError) -> str:
    return (
        f"{tale.place_of(feed)} was not read: the API server does not reach the warehouse "
        f"({error}) `meta-capi explain` tells it where it does."
    )


def _rows(feed: Feed, name: str, dataset_id: str, digest_key: bytes) -> list[Row]:
    """Return the source's rows with a key, judged by today's rules."""
    source = Source(engine_of(feed.connections.warehouse), feed, home() / "feeds")
    columns = called(source, name)
    if columns is None:
        return []
    return list(
        judged(columns, feed, now(), dataset_id=dataset_id, digest_key=digest_key)
    )
