"""The story of one conversion in plain words: the terminal and the page tell it alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meta_capi import match_keys
from meta_capi.answers import Attempt, BatchStep, Erasure, Story
from meta_capi.catalogue import reason
from meta_capi.feed import Feed
from meta_capi.judged import Row
from meta_capi.lifecycle import State
from meta_capi.words import moment, number

__all__ = [
    "batch", "erased", "first_run", "in_the_source", "judgement", "ledger_lines",
    "next_step", "place_of", "request", "unnamed",
]  # fmt: skip

_NAMELESS: Final = ("nokey:", "long:", "personal:")
_MENDABLE: Final = (State.QUARANTINED, State.WITHHELD, State.EXPIRED)


def place_of(feed: Feed) -> str:
    """Return where the feed's rows are."""
    return str(feed.source.table or feed.source.sql)


def erased(erasure: Erasure) -> str:
    """Say that a conversion was erased."""
    return (
        f"{erasure.source_key} of feed {erasure.feed} was erased on "
        f"{moment(erasure.erased_at)}: it is not sent (again), and the ledger keeps "
        "nothing of it but a mark by which it knows the key."
    )


def unnamed(source_key: str, feed: Feed) -> str | None:
    """Say that a row cannot be found by its name; None if it can."""
    if not source_key.startswith(_NAMELESS):
        return None
    return (
        f"The row in {place_of(feed)} has no usable key, so it cannot be found by this "
        "name, which the ledger gave it."
    )


def in_the_source(feed: Feed, rows: Sequence[Row]) -> str:
    """Say what the source has of a key."""
    place = place_of(feed)
    if not rows:
        return f"No row of {place} has this key (any more)."
    known = f"known since {moment(max(row.cursor_at for row in rows))}"
    if len(rows) > 1:
        return f"{len(rows):,} rows of {place} have this key; {known}."
    return f"1 row of {place}, {known}."


def judgement(row: Row) -> str:
    """Say what today's rules make of a row."""
    if row.is_sendable:
        return (
            f"The event would be sent, as {row.event_name}, if the gate lets it pass."
        )
    entry = reason(str(row.reason))
    return f"It would be {row.state}: {row.reason}. {entry.meaning}"


def ledger_lines(story: Story) -> list[str]:
    """Say what the ledger remembers, one fact a line."""
    delivery = story.delivery
    since = moment(delivery.settled_at or delivery.recorded_at)
    lines = [f"{_state(delivery.state)} since {since}."]
    if delivery.reason:
        lines.append(f"{delivery.reason}: {reason(delivery.reason).meaning}")
    if delivery.event_name and delivery.event_id:
        at = f" of {moment(delivery.event_time)}" if delivery.event_time else ""
        lines.append(f"Event {delivery.event_name}{at}, id {delivery.event_id}.")
    if delivery.value is not None:
        lines.append(f"Value {delivery.value} {delivery.currency}.")
    if delivery.match_keys:
        keys = ", ".join(match_keys.names(delivery.match_keys))
        lines.append(f"Match keys: {keys}.")
    if delivery.doubt_since:
        lines.append(
            f"A request may have reached Meta at {moment(delivery.doubt_since)}; sent "
            f"again {number(delivery.resends, 'time')} since."
        )
    if delivery.not_before and delivery.state in (State.PENDING, State.IN_DOUBT):
        lines.append(f"Not to be sent before {moment(delivery.not_before)}.")
    if delivery.changed_after_send:
        lines.append("The row was changed after Meta had accepted the event.")
    if gate := story.gate:
        failed = ", ".join(gate.expectations) or "see the run's Data Docs"
        lines.append(
            f"Held by the gate {gate.suite} of {moment(gate.validated_at)}: {failed}."
        )
    if run := story.run:
        lines.append(f"Last touched by run {run.run_id} ({run.mode}, {run.state}).")
    return lines


def _state(state: State) -> str:
    words = {State.IN_DOUBT: "In doubt", State.CLAIMED: "On a worker's desk"}
    return words.get(state, state.capitalize())


def batch(step: BatchStep) -> str:
    """Say what became of a batch."""
    if step.reason == "split.inferred":
        why = " without asking: its siblings were accepted, so the guilty are in here"
    else:
        why = f", {step.reason}" if step.reason else ""
    size = number(step.events, "event")
    origin = f", cut from #{step.parent_id}" if step.parent_id else ""
    return f"#{step.batch_id}{origin}: {size}, {step.state.replace('_', ' ')}{why}"


def request(attempt: Attempt) -> str:
    """Say what Meta answered."""
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


def next_step(story: Story, feed: Feed | None, rows: Sequence[Row]) -> str:
    """Say what to do now, by the ledger and by the row as it is today."""
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


def first_run(feed: Feed, rows: Sequence[Row]) -> str:
    """Say when a row that no run has read will be sent."""
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
