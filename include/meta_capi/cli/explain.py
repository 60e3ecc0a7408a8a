"""`explain`: the whole story of one conversion, in plain words.

From the row in the warehouse over what the rules say of it today to what the ledger
remembers and what Meta answered; and what to do now.
"""

from __future__ import annotations

from collections.abc import Sequence

from meta_capi import insight, tale
from meta_capi.answers import Story
from meta_capi.catalogue import PAGE, anchor
from meta_capi.cli.page import Page
from meta_capi.cli.rows import tell_match_keys
from meta_capi.cli.wiring import Wiring
from meta_capi.errors import CapiError
from meta_capi.feed import Feed
from meta_capi.judged import Row, called, judged, names_of
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State

__all__ = ["explain"]

_NO_DATASET = "0"  # only event ids depend on it, and they are told from the ledger


def explain(wiring: Wiring, page: Page) -> int:
    """Tell the story of each conversion with a key, or with an event id."""
    options = wiring.options
    right, left_out = wiring.feeds(options.feed)
    feeds = {feed.feed: feed for feed in right}
    ledger = wiring.ledger(*feeds.values())
    names = names_of(options.key)
    stories = insight.explain(ledger, names, options.feed)
    erasures = insight.erased(ledger, names, [*feeds, *left_out])
    for erasure in erasures:
        page.say(tale.erased(erasure))
    for story in stories:
        _tell(wiring, page, ledger, story, feeds.get(story.delivery.feed))
    if stories or erasures:
        return int(any(s.delivery.state is not State.ACCEPTED for s in stories))
    return _tell_unread(wiring, page, ledger, names, right, left_out)


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
        page.item(
            "Source", "The feed's file is gone or wrong, so the row is not looked up."
        )
    else:
        rows = _tell_source(
            wiring, page, ledger, feed, delivery.source_key, delivery.dataset_id
        )
    first, *more = tale.ledger_lines(story)
    page.item("Ledger", first)
    for line in more:
        page.more(line)
    for place, step in enumerate(story.lineage):
        page.item("" if place else "Batches", tale.batch(step))
        for attempt in step.attempts:
            page.more(tale.request(attempt), indent=3)
    page.item("Next", tale.next_step(story, feed, rows))
    if delivery.reason:
        page.item("Page", f"{PAGE}#{anchor(delivery.reason)}")
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
    if why := tale.unnamed(source_key, feed):
        page.item("Source", why)
        return ()
    try:
        columns = called(wiring.source(feed), source_key)
    except CapiError as error:
        page.item("Source", f"{tale.place_of(feed)} was not read. {error}")
        return ()
    rows = (
        []
        if columns is None
        else list(
            judged(
                columns,
                feed,
                wiring.now,
                dataset_id=dataset_id,
                digest_key=ledger.digest_key(),
            )
        )
    )
    page.item("Source", tale.in_the_source(feed, rows))
    for row in rows[:2]:
        if row.keys:
            tell_match_keys(page, row)
    if rows:
        page.item("Rules now", tale.judgement(rows[0]))
    return rows


def _tell_unread(
    wiring: Wiring,
    page: Page,
    ledger: Ledger,
    names: Sequence[str],
    feeds: Sequence[Feed],
    left_out: Sequence[str],
) -> int:
    """The ledger knows no such key: look whether a source does."""
    unasked = [f"{name}: not looked up. Its file is wrong." for name in left_out]
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
            page.item("Next", tale.first_run(feed, rows))
            page.line()
            return 1
    page.say(
        f"Neither the ledger nor a source knows the key {names[0]!r} "
        f"({', '.join([*(feed.feed for feed in feeds), *left_out])}). Look at its "
        "spelling; the parts of a key of several columns are joined with |."
    )
    for each in unasked:
        page.say(each, 2)
    return 1
