"""`preview` and `send-test`: what would go out, before it does."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, assert_never

from meta_capi.built import Columns
from meta_capi.catalogue import reason
from meta_capi.cli.page import Page
from meta_capi.cli.rows import tell_match_keys, tell_reason
from meta_capi.cli.wiring import Wiring
from meta_capi.dispatch import Post
from meta_capi.errors import ConfigurationError, NoAnswerError
from meta_capi.feed import Feed
from meta_capi.judged import Row, called, judged, names_of, newest
from meta_capi.mask import shown
from meta_capi.payload import Envelope, OwedEvent
from meta_capi.verdict import (
    Accepted,
    NotSent,
    Receipt,
    Refused,
    Stopped,
    Throttled,
    Unknown,
    Verdict,
    read,
)
from meta_capi.words import number

__all__ = ["preview", "send_test"]

# Event ids are made of the dataset; this one is no dataset of anyone's.
_NO_DATASET: Final = "0"
_MOST_TEST_EVENTS: Final = 10
_LOOKED_THROUGH: Final = 500


def preview(wiring: Wiring, page: Page) -> int:
    """Show the events of some rows, masked."""
    options = wiring.options
    feed = wiring.feed(options.feed)
    columns = _rows(wiring, feed, options.key, options.limit)
    if columns is None:
        what = "has this key" if options.key else "can be read"
        page.say(f"No row of {feed.source.table or feed.source.sql} {what}.")
        return 1
    dataset_id = wiring.dataset_id(feed)
    if dataset_id is None:
        page.say(
            "No dataset is named (META_CAPI_DATASET): the event_id shown is not the "
            "one that will be sent, unless the feed maps event.id."
        )
        page.line()
    rows = _judged(wiring, feed, columns, dataset_id or _NO_DATASET)
    for place, row in enumerate(rows, 1):
        _tell(page, row, f"row {place} of {len(rows)}", exact=options.exact)
    page.say(
        f"{number(len(rows), 'row')} read, "
        f"{sum(row.is_sendable for row in rows):,} would be sent. Nothing was sent."
    )
    return 0


def _rows(wiring: Wiring, feed: Feed, key: str | None, most: int) -> Columns | None:
    source = wiring.source(feed)
    if key is None:
        return newest(source, wiring.now, most)
    return next(filter(None, (called(source, name) for name in names_of(key))), None)


def _judged(
    wiring: Wiring, feed: Feed, columns: Columns, dataset_id: str
) -> Sequence[Row]:
    # No ledger is asked, so names made of a row's content get a key of the moment.
    key = secrets.token_bytes(32)
    return list(
        judged(columns, feed, wiring.now, dataset_id=dataset_id, digest_key=key)
    )


def _tell(page: Page, row: Row, place: str, *, exact: bool) -> None:
    page.line(f"{row.source_key}  ({place})")
    if row.is_sendable:
        page.say("would be sent", 2)
    elif row.reason:
        tell_reason(page, row.reason, f"would be {row.state}", 2)
    if row.keys:
        tell_match_keys(page, row, exact=exact)
    else:
        page.say("No match key is read: the customer gave no consent.", 2)
    if row.body:
        for line in shown(row.body, exact=exact):
            page.line(f"  {line}")
    page.line()


def send_test(wiring: Wiring, page: Page) -> int:
    """Send a few events with a test event code; the ledger is not told."""
    options = wiring.options
    feed = wiring.feed(options.feed)
    envelope = Envelope(test_event_code=options.code)
    if not 1 <= options.limit <= _MOST_TEST_EVENTS:
        raise ConfigurationError(
            f"A test sends 1 to {_MOST_TEST_EVENTS} events, not {options.limit}.",
            code="fault.form",
        )
    destination = wiring.destination(feed)
    dataset_id = destination.dataset_id
    if destination.environment == "production":
        raise ConfigurationError(
            f"Dataset {dataset_id} counts as production, and a test is never sent "
            "there: Meta uses test events for targeting and measurement. Name a test "
            "dataset, and say META_CAPI_ENVIRONMENT=test.",
            code="fault.form",
        )
    columns = _rows(wiring, feed, None, _LOOKED_THROUGH)
    rows = _judged(wiring, feed, columns, dataset_id) if columns else []
    chosen = [row for row in rows if row.is_sendable][: options.limit]
    if not chosen:
        page.say("No row read could be sent; `preview` tells why. Nothing was sent.")
        return 1
    page.say(
        "WARNING: Meta does not throw test events away. It uses these for targeting "
        f"and measurement in dataset {dataset_id} ({destination.environment}), as it "
        "uses all others."
    )
    page.say("The ledger is not told: a run will send these conversions again.")
    line = wiring.line(feed)
    events = [OwedEvent(row.source_key, row.body or b"") for row in chosen]
    return _send(page, envelope, events, line.post)


def _send(page: Page, envelope: Envelope, events: list[OwedEvent], post: Post) -> int:
    """Send all at once; if Meta refuses, each alone, to find the guilty."""
    answer = _ask(envelope, events, post)
    if isinstance(answer, Refused) and len(events) > 1:
        page.say("Meta refused the request; here is each event alone:")
        return max(
            _tell_answer(page, event.source_key, _ask(envelope, [event], post))
            for event in events
        )
    return _tell_answer(page, number(len(events), "event"), answer)


def _ask(envelope: Envelope, events: list[OwedEvent], post: Post) -> Verdict:
    try:
        return read(post(envelope.wrap(events)), events=len(events))
    except NoAnswerError as error:
        return Unknown(Receipt(), "answer.none") if error.body_left else NotSent()


def _tell_answer(page: Page, what: str, answer: Verdict) -> int:
    receipt = answer.receipt
    words = [f"HTTP {receipt.http_status}"] if receipt.http_status else []
    if receipt.code is not None:
        words.append(f"code {receipt.code}, subcode {receipt.subcode}")
    if receipt.fbtrace_id:
        words.append(f"trace {receipt.fbtrace_id}")
    numbers = f" ({', '.join(words)})" if words else ""
    match answer:
        case Accepted():
            page.say(f"{what}: Meta took it{numbers}.")
            return 0
        case Refused(reason=code):
            tell_reason(page, code, f"{what}: refused{numbers}")
        case Throttled():
            page.say(f"{what}: Meta asks to wait{numbers}. Nothing was taken.")
        case Stopped(sentence=sentence):
            page.say(f"{what}: {sentence}{numbers}. Nothing was taken.")
        case NotSent():
            page.say(f"{what}: did not reach Meta. Look at the network.")
        case Unknown(reason=code):
            page.say(f"{what}: nobody knows{numbers}. {reason(code).meaning}")
        case _:
            assert_never(answer)
    return 1
