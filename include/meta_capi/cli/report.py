"""`plan`, `status` and `reasons`: counts, and what they mean."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import Final

from meta_capi import insight
from meta_capi.answers import Standing
from meta_capi.catalogue import CATALOGUE, EFFECTS, PAGE, anchor, reason
from meta_capi.cli.page import Page
from meta_capi.cli.wiring import Wiring
from meta_capi.errors import ConfigurationError
from meta_capi.feed import Feed
from meta_capi.ledger import Ledger
from meta_capi.lifecycle import State
from meta_capi.source import Interval
from meta_capi.words import ago, moment, number, percent

__all__ = ["plan", "read_time", "reasons", "status"]

_OUTCOMES: Final = (
    "accepted", "refused", "quarantined", "withheld", "expired", "in_doubt", "pending",
)  # fmt: skip
_SOON: Final = timedelta(hours=24)
_WEEK: Final = 7
_MONTH: Final = 30
_SHOWN: Final = 20


def plan(wiring: Wiring, page: Page) -> int:
    """Count an interval: in the source, and what the ledger has of it already."""
    options = wiring.options
    feed = wiring.feed(options.feed)
    end = read_time("--to", options.end) if options.end else wiring.now
    interval = Interval(read_time("--from", options.start), end)
    source, ledger = wiring.source(feed), wiring.ledger(feed)
    counts = source.count(interval, now=wiring.now)
    shards = source.shards(interval, feed.limits.rows_per_shard)
    held = insight.interval_status(
        ledger, feed.feed, interval.start, interval.end, wiring.dataset_id(feed)
    )
    page.say(
        f"{feed.feed}: rows that became known from {moment(interval.start)} up to "
        f"{moment(interval.end)}."
    )
    page.line()
    page.table(
        ["in the source", "rows"],
        [
            ("all", counts.rows),
            ("without a key", counts.without_key),
            ("without consent", counts.withheld),
            ("too old for Meta", _known(counts.too_old)),
            ("too old within 24 hours", _known(counts.expires_within_24h)),
            ("in the holding period", _known(counts.held_back)),
        ],
        indent=2,
    )
    page.say("The kinds overlap; each row's event decides when it is built.", 2)
    page.line()
    rows = [(str(state).replace("_", " "), held.get(state, 0)) for state in State]
    page.table(["in the ledger", "rows"], [row for row in rows if row[1]], indent=2)
    page.say(f"{number(sum(held.values()), 'delivery', 'deliveries')} in all.", 2)
    page.line()
    page.say(
        f"A run would read {number(counts.rows, 'row')} in "
        f"{number(len(shards), 'shard')}; what Meta has accepted is not sent again."
    )
    return 0


def _known(count: int | None) -> object:
    return "not known before reading" if count is None else count


def read_time(option: str, text: str) -> datetime:
    """Read a date or a moment; UTC where it names no zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    # In another zone, the first year's or the last one's may have no date at all.
    if at is None or not MINYEAR < at.year < MAXYEAR:
        raise ConfigurationError(
            f"{option} is not a time; write 2026-11-22 or 2026-11-22T06:00+00:00.",
            code="fault.form",
        )
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def status(wiring: Wiring, page: Page) -> int:
    """Show where the deliveries are; 1 if something needs a person."""
    options = wiring.options
    right, left_out = wiring.feeds(options.feed)
    feeds = {feed.feed: feed for feed in right}
    ledger = wiring.ledger(*feeds.values())
    if options.list:
        return _list(page, ledger, options.feed, State(options.list))
    found = insight.status(ledger, options.feed)
    if not found:
        page.say("The ledger has no deliveries yet.")
        return 1 if left_out else 0
    page.table(
        ["feed", *(name.replace("_", " ") for name in _OUTCOMES), "total"],
        [(s.feed, *(getattr(s, name) for name in _OUTCOMES), s.total) for s in found],
    )
    page.line()
    worries = [f"{name}: its file is wrong, so it does not run." for name in left_out]
    for each in found:
        worries += _worries(ledger, each, feeds, wiring.now)
    for worry in worries:
        page.item("LOOK", worry)
    if not worries:
        page.say("Nothing waits for a person.")
    page.line()
    _tell_runs(page, ledger, options.feed)
    _tell_reasons(page, ledger, options.feed)
    if options.feed:
        for each in found:
            _tell_days(page, ledger, each, wiring.now)
    return 1 if worries else 0


def _worries(
    ledger: Ledger, standing: Standing, feeds: dict[str, Feed], now: datetime
) -> Sequence[str]:
    name, worries = standing.feed, []
    if standing.oldest_doubt:
        age = ago(now - standing.oldest_doubt)
        worries.append(
            f"{name}: {number(standing.open_doubts, 'event')} in doubt, the oldest for "
            f"{age}; see `meta-capi status {name} --list in_doubt`."
        )
    if feed := feeds.get(name):
        limit = now - feed.longest_window + feed.window.margin
        for each in insight.expiring(ledger, name, limit + _SOON):
            worries.append(
                f"{name}: {number(each.deliveries, 'event')} {each.state}, too old for "
                f"Meta within 24 hours or already."
            )
    if standing.oldest_pending and (waits := now - standing.oldest_pending) > _SOON:
        worries.append(
            f"{name}: {number(standing.pending, 'event')} pending, the oldest happened "
            f"{ago(waits)} ago."
        )
    last = insight.runs(ledger, name, most=1)
    if last and last[0].state in ("gap", "stopped"):
        words = {"gap": "its outcomes do not add up", "stopped": "the gate stopped it"}
        worries.append(f"{name}: run {last[0].run_id}: {words[last[0].state]}.")
    return worries


def _tell_runs(page: Page, ledger: Ledger, feed: str | None) -> None:
    page.table(
        ["latest runs", "mode", "state", "planned", "up to"],
        [
            (run.run_id, run.mode, run.state, run.planned_at, run.interval_end)
            for run in insight.runs(ledger, feed, most=5)
        ],
    )
    page.line()


def _tell_reasons(page: Page, ledger: Ledger, feed: str | None) -> None:
    found = insight.reasons(ledger, feed, most=8)
    if not found:
        return
    page.table(
        ["feed", "state", "why it is not at Meta", "events", "latest"],
        [
            (r.feed, str(r.state).replace("_", " "), r.reason, r.deliveries, r.latest)
            for r in found
        ],
    )
    page.say(
        f"`meta-capi reasons CODE`, or {PAGE}#CODE, tells what a reason means and what "
        "to do."
    )
    page.line()


def _tell_days(page: Page, ledger: Ledger, standing: Standing, now: datetime) -> None:
    feed, dataset_id = standing.feed, standing.dataset_id
    week, month = (now.date() - timedelta(days=days) for days in (_WEEK, _MONTH))
    fresh = {f.day: f for f in insight.freshness(ledger, feed, dataset_id, week)}
    page.table(
        ["day", "rows", "accepted", "accepted value", "median delay", "within 1 hour"],
        [
            (
                str(day.day),
                day.total,
                day.accepted,
                ", ".join(f"{v:,.2f} {c}" for c, v in day.accepted_value.items()),
                ago(fresh[day.day].median_delay) if day.day in fresh else None,
                percent(fresh[day.day].within_1_hour) if day.day in fresh else None,
            )
            for day in insight.days(ledger, feed, dataset_id, week)
        ],
    )
    page.line()
    page.table(
        ["match key", f"accepted events with it in {_MONTH} days", "share"],
        [
            (each.match_key, each.with_key, percent(each.share))
            for each in insight.coverage(ledger, feed, dataset_id, month)
        ],
    )


def _list(page: Page, ledger: Ledger, feed: str | None, state: State) -> int:
    """List deliveries of one state, the latest first."""
    if feed is None:
        raise ConfigurationError(
            "--list needs a feed; write `status FEED --list STATE`.",
            code="fault.form",
        )
    found = insight.events(ledger, feed, state, most=_SHOWN)
    if not found:
        page.say(f"No delivery of {feed} is {state}.")
        return 0
    page.table(
        ["key", "reason", "event time", "code", "subcode", "trace"],
        [
            (
                each.source_key,
                each.reason,
                each.event_time,
                _code(each.code),
                _code(each.subcode),
                each.fbtrace_id,
            )
            for each in found
        ],
    )
    page.say(f"The latest {_SHOWN} at most. `meta-capi explain KEY` tells a story.")
    return 0


def _code(number: int | None) -> str | None:
    return None if number is None else str(number)


def reasons(wiring: Wiring, page: Page) -> int:
    """Show the catalogue, or one entry of it."""
    code = wiring.options.code
    if code is None:
        for effect, words in EFFECTS.items():
            codes = [c for c, entry in CATALOGUE.items() if entry.effect is effect]
            page.say(f"{effect}: {words}")
            for each in codes:
                page.line(f"  {each}")
        page.say("meta.<code>.<subcode> is Meta's own no. `reasons CODE` tells more.")
        return 0
    if code not in CATALOGUE and not code.startswith("meta."):
        close = difflib.get_close_matches(code, CATALOGUE, n=1)
        meant = f" Did you mean {close[0]}?" if close else " `reasons` lists all."
        raise ConfigurationError(
            f"The catalogue has no reason {code!r}.{meant}", code="fault.form"
        )
    entry = reason(code)
    page.item("Code", entry.code)
    page.item("Effect", entry.effect)
    page.item("Meaning", entry.meaning)
    page.item("What to do", entry.action)
    page.item("Page", f"{PAGE}#{anchor(code)}")
    return 0
