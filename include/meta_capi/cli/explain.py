"""`explain`: the whole story of one conversion, in plain words.

From the row in the warehouse over what the rules say of it today to what the ledger
remembers and what Meta answered; and what to do now.
"""

from __future__ import annotations

from collections.abc import Sequence

from meta_capi import insight, match_keys
from meta_capi.answers import Attempt, BatchStep, Story
from meta_capi.catalogue import reason
from meta_capi.cli.page import Page, moment, number
from meta_capi.cli.rows import (
    Row,
    called,
    judged,
    names_of,
    tell_match_keys,
)
from meta_capi.cli.wiring import Wiring
from meta_capi.errors import CapiError
from meta_capi.feed import Feed
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State

__all__ = ["explain"]

_NO_DATASET = "0"  # only event ids depend on it, and they are told from the ledger
_NAMELESS = ("nokey:", "long:")
_MENDABLE = (State.QUARANTINED, State.WITHHELD, State.EXPIRED)


def explain(wiring: Wiring, page: Page) -> int:
    """Tell the story of each conversion with a key, or with an event id."""
    options = wiring.options
    feeds = {feed.feed: feed for feed in wiring.feeds(options.feed)}
    ledger = wiring.ledger(*feeds.values())
    names = names_of(options.key)
    stories = insight.explain(ledger, names, options.feed)
    erasures = insight.erased(ledger, names, feeds)
    for erasure in erasures:
        page.say(
            f"{erasure.source_key} of feed {erasure.feed} was erased on "
            f"{moment(erasure.erased_at)}: it is not sent (again), and the ledger keeps "
            "nothing of it but a mark by which it knows the key."
        )
    for story in stories:
        _tell(wiring, page, ledger, story, feeds.get(story.delivery.feed))
    if stories or erasures:
        return int(any(s.delivery.state is not State.ACCEPTED for s in stories))
    return _tell_unread(wiring, page, ledger, names, list(feeds.values()))


def _tell(
    wiring: Wiring, page: Page, ledger: Ledger, story: Story, feed: Feed | None
) -> None:
    delivery = story.delivery
    page.line(
        f"{delivery.source_key} · feed {delivery.feed} · dataset {delivery.dataset_id}"
    )
    page.line()
    rows: Sequence[Row] = ()
    if feed is None:
        page.item("Source", "The feed's file is gone, so the row cannot be looked up.")
    else:
        rows = _tell_source(
            wiring, page, ledger, feed, delivery.source_key, delivery.dataset_id
        )
    _tell_ledger(page, story)
    for place, step in enumerate(story.lineage):
        page.item("" if place else "Batches", _batch(step))
        for attempt in step.attempts:
            page.more(_request(attempt), indent=3)
    page.item("Next", _next_step(story, feed, rows))
    page.line()


def _tell_source(
    wiring: Wiring,
    page: Page,
    ledger: Ledger,
    feed: Feed,
    source_key: str,
    dataset_id: str,
) -> Sequence[Row]:
    """Write what the source has, and what today's rules make of it."""
    place = feed.source.table or feed.source.sql
    if source_key.startswith(_NAMELESS):
        page.item(
            "Source",
            f"The row in {place} has no usable key, so it cannot be found by this "
            "name, which the ledger gave it.",
        )
        return ()
    try:
        columns = called(wiring.source(feed), source_key)
    except CapiError as error:
        page.item("Source", f"{place} was not read. {error}")
        return ()
    if columns is None:
        page.item("Source", f"No row of {place} has this key (any more).")
        return ()
    rows = list(
        judged(
            columns,
            feed,
            wiring.now,
            dataset_id=dataset_id,
            digest_key=ledger.digest_key(),
        )
    )
    known = f"known since {moment(max(row.cursor_at for row in rows))}"
    if len(rows) > 1:
        page.item("Source", f"{len(rows):,} rows of {place} have this key; {known}.")
    else:
        page.item("Source", f"1 row of {place}, {known}.")
    for row in rows[:2]:
        if row.keys:
            tell_match_keys(page, row)
    page.item("Rules now", _judgement(rows[0]))
    return rows


def _judgement(row: Row) -> str:
    if row.is_sendable:
        return (
            f"The event would be sent, as {row.event_name}, if the gate lets it pass."
        )
    entry = reason(str(row.reason))
    return f"It would be {row.state}: {row.reason}. {entry.meaning}"


def _tell_ledger(page: Page, story: Story) -> None:
    delivery = story.delivery
    since = moment(delivery.settled_at or delivery.recorded_at)
    page.item("Ledger", f"{_state(delivery.state)} since {since}.")
    if delivery.reason:
        page.more(f"{delivery.reason}: {reason(delivery.reason).meaning}")
    if delivery.event_name and delivery.event_id:
        at = f" of {moment(delivery.event_time)}" if delivery.event_time else ""
        page.more(f"Event {delivery.event_name}{at}, id {delivery.event_id}.")
    if delivery.value is not None:
        page.more(f"Value {delivery.value} {delivery.currency}.")
    if delivery.match_keys:
        page.more(f"Match keys: {', '.join(match_keys.names(delivery.match_keys))}.")
    if delivery.doubt_since:
        page.more(
            f"A request may have reached Meta at {moment(delivery.doubt_since)}; sent "
            f"again {number(delivery.resends, 'time')} since."
        )
    if delivery.not_before and delivery.state in (State.PENDING, State.IN_DOUBT):
        page.more(f"Not to be sent before {moment(delivery.not_before)}.")
    if delivery.changed_after_send:
        page.more("The row was changed after Meta had accepted the event.")
    if gate := story.gate:
        failed = ", ".join(gate.expectations) or "see the run's Data Docs"
        page.more(
            f"Held by the gate {gate.suite} of {moment(gate.validated_at)}: {failed}."
        )
    if run := story.run:
        page.more(f"Last touched by run {run.run_id} ({run.mode}, {run.state}).")


def _state(state: State) -> str:
    words = {State.IN_DOUBT: "In doubt", State.CLAIMED: "On a worker's desk"}
    return words.get(state, state.capitalize())


def _batch(step: BatchStep) -> str:
    if step.reason == "split.inferred":
        why = " without asking: its siblings were accepted, so the guilty are in here"
    else:
        why = f", {step.reason}" if step.reason else ""
    size = number(step.events, "event")
    origin = f", cut from #{step.parent_id}" if step.parent_id else ""
    return f"#{step.batch_id}{origin}: {size}, {step.state.replace('_', ' ')}{why}"


def _request(attempt: Attempt) -> str:
    outcome = attempt.outcome.replace("_", " ")
    words = [f"request {attempt.seq}, {moment(attempt.started_at)}: {outcome}"]
    if attempt.http_status is not None:
        words.append(f"HTTP {attempt.http_status}")
    if attempt.code is not None:
        words.append(f"code {attempt.code}")
    if attempt.subcode is not None:
        words.append(f"subcode {attempt.subcode}")
    if attempt.events_received is not None:
        words.append(f"Meta counted {number(attempt.events_received, 'event')}")
    if attempt.fbtrace_id:
        words.append(f"trace {attempt.fbtrace_id}")
    return ", ".join(words)


def _next_step(story: Story, feed: Feed | None, rows: Sequence[Row]) -> str:
    delivery = story.delivery
    if delivery.state is State.ACCEPTED:
        if delivery.changed_after_send:
            return (
                "Nothing is sent again: Meta knows no corrections, and would drop or "
                "count twice a second event."
            )
        return "Nothing: Meta has it."
    if delivery.state is State.CLAIMED:
        return (
            "Ask again in a few minutes. If the worker died, tend_deliveries clears "
            "its desk."
        )
    mended = len(rows) == 1 and rows[0].is_sendable
    if delivery.state in _MENDABLE and mended and not story.gate:
        return (
            "By today's rules the event would be sent: the row or the feed was mended. "
            "The next run that reads the row sends it, or run replay_deliveries."
        )
    if delivery.state is State.IN_DOUBT and feed and feed.on_in_doubt == "hold":
        return reason("doubt.held").action
    if delivery.reason:
        return reason(delivery.reason).action
    return "Nothing; the next run or tend_deliveries sends it."


def _tell_unread(
    wiring: Wiring,
    page: Page,
    ledger: Ledger,
    names: Sequence[str],
    feeds: Sequence[Feed],
) -> int:
    """The ledger knows no such key: look whether a source does."""
    unasked = []
    for feed in feeds:
        try:
            source = wiring.source(feed)
            known = [name for name in names if called(source, name) is not None]
        except CapiError as error:
            unasked.append(f"{feed.feed}: not looked up. {error}")
            continue
        for name in known:
            page.line(f"{name} · feed {feed.feed}")
            page.line()
            dataset_id = wiring.dataset_id(feed) or _NO_DATASET
            rows = _tell_source(wiring, page, ledger, feed, name, dataset_id)
            page.item("Ledger", "Nothing: no run has read the row.")
            page.item("Next", _first_run(feed, rows))
            page.line()
            return 1
    page.say(
        f"Neither the ledger nor a source knows the key {names[0]!r} "
        f"({', '.join(feed.feed for feed in feeds)}). Look at its spelling; the parts "
        "of a key of several columns are joined with |."
    )
    for each in unasked:
        page.say(each, 2)
    return 1


def _first_run(feed: Feed, rows: Sequence[Row]) -> str:
    at = max(row.cursor_at for row in rows)
    if at.date() < feed.start_date:
        return (
            f"The row became known before the feed's start_date {feed.start_date}; a "
            "backfill of that time sends it, if Meta still takes it."
        )
    return (
        f"Nothing, if it is new: {feed.dag_id} reads it with the interval that holds "
        f"{moment(at)}. If that run is over, the row came late: raise the feed's "
        "lookback, or run a backfill."
    )
