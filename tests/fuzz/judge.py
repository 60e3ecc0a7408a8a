"""What must be true of every slice of rows, whatever is in it."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, Final

from tests.fuzz.feeds import Rows
from tests.fuzz.values import NOW, TODAY, digest
from tests.oracle import Oracle

from graph_simulator.events import first_refusal
from graph_simulator.rules import body_refusal
from graph_simulator.switches import Switches
from meta_capi import spec
from meta_capi.built import Built
from meta_capi.catalogue import REASONS, Effect
from meta_capi.event import Builder
from meta_capi.feed import Feed
from meta_capi.lifecycle import State
from meta_capi.payload import Envelope, OwedEvent, cut

__all__ = ["DATASET", "Finding", "judge"]

DATASET: Final = "1234567890123456"
SECRET: Final = bytes(range(32))
_DIGEST: Final = re.compile(spec.DIGEST_PATTERN)
_NOTHING: Final = digest("")
_MEMBERS: Final = {
    "event_name", "event_time", "event_id", "action_source", "user_data", "custom_data",
    "data_processing_options", "data_processing_options_country",
    "data_processing_options_state", "opt_out",
}  # fmt: skip
_ITEM: Final = {
    "id", "quantity", "item_price", "title", "description", "brand", "category",
    "delivery_category",
}  # fmt: skip
# Of rows that share a key or an id, which is held depends on their order.
_SHARED: Final = ("key.duplicate", "event_id.taken")


Make = Callable[[Feed], Builder]


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim that did not hold. Its text names shapes, never a value."""

    claim: str
    detail: str = ""
    row: int | None = None


@dataclass(slots=True)
class Judgement:
    """What came of a slice."""

    outcomes: Counter[str] = field(default_factory=Counter)
    flaws: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    events: int = 0
    batches: int = 0
    known_digests: int = 0


class _Ear(logging.Handler):
    """Hears every log record of every logger."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.heard = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.heard += 1


def judge(
    feed: Feed, rows: Rows, chance: Random, make: Make | None = None
) -> Judgement:
    """Build a slice in every way and hold each claim against what comes out."""
    make = make or _builder
    judgement = Judgement()
    ear, root = _Ear(), logging.getLogger()
    root.addHandler(ear)
    before, root.level = root.level, logging.DEBUG
    try:
        built = make(feed).build(rows.columns, NOW)
    except Exception as error:
        judgement.findings.append(Finding("no exception", _place_of(error)))
        return judgement
    finally:
        root.removeHandler(ear)
        root.level = before
    found = judgement.findings
    if {len(getattr(built, name)) for name in built.__slots__ if name != "flaws"} != {
        len(rows.cells)
    }:
        found.append(Finding("one outcome a row"))
        return judgement
    for state, reason in zip(built.states, built.reasons, strict=True):
        judgement.outcomes[reason or f"{state} to be sent"] += 1
    judgement.flaws = built.flaws
    events = {row: body for row, body in enumerate(built.bodies) if body is not None}
    judgement.events = len(events)
    if ear.heard:
        found.append(Finding("nothing is logged", str(ear.heard)))
    found += _outcomes(built)
    found += _ledger_can_hold(built)
    for row, body in list(events.items()):
        try:
            event = strict(body)
        except ValueError as error:
            found.append(Finding("strict JSON", str(error)[:60], row))
            del events[row]
            continue
        for claim, detail in _event(feed, built, row, event):
            found.append(Finding(claim, detail, row))
        if len(body) > spec.MAX_BYTES_PER_EVENT:
            found.append(Finding("an event's size", str(len(body)), row))
    found += _no_trace(rows, built)
    found += _known(judgement, rows, events)
    found += _oracle(feed, rows, built)
    found += _again(make, rows, built, chance, feed)
    found += _batches(judgement, feed, list(events.values()), chance)
    return judgement


def _builder(feed: Feed) -> Builder:
    return Builder(feed, dataset_id=DATASET, digest_key=SECRET, today=TODAY)


def _place_of(error: BaseException) -> str:
    trace, place = error.__traceback__, ""
    while trace:
        code = trace.tb_frame.f_code
        place = (
            f"{code.co_filename.rpartition('/')[2]}:{code.co_name}:{trace.tb_lineno}"
        )
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"


# --- outcomes -------------------------------------------------------------------------


def _outcomes(built: Built) -> Iterator[Finding]:
    if len(set(built.source_keys)) != len(built):
        yield Finding("each row has a name of its own")
    for row, (state, reason) in enumerate(
        zip(built.states, built.reasons, strict=True)
    ):
        if (reason is None) != (built.bodies[row] is not None):
            yield Finding("a body or a reason", str(reason), row)
        if (reason is None) != (built.digests[row] is not None):
            yield Finding("a digest with a body", str(reason), row)
        if reason is None:
            if state is not State.PENDING or None in (
                built.event_ids[row], built.event_times[row], built.event_names[row]
            ):  # fmt: skip
                yield Finding("an event is named, dated and pending", str(state), row)
        elif reason not in REASONS or REASONS[reason].effect.value != state.value:
            yield Finding("a reason of the catalogue", f"{state} {reason}", row)
    for flaw in built.flaws:
        # A flaw of an amount quarantines where the event needs it; else it stays at home.
        effects = (Effect.KEY_DROPPED, Effect.QUARANTINED)
        if flaw not in REASONS or REASONS[flaw].effect not in effects:
            yield Finding("a flaw of the catalogue", flaw)


def _ledger_can_hold(built: Built) -> Iterator[Finding]:
    """PostgreSQL takes no NUL and no half surrogate pair; a bad row would stop a slice."""
    texts = (
        "source_keys",
        "event_names",
        "event_ids",
        "reasons",
        "values",
        "currencies",
    )
    for name in texts:
        for row, text in enumerate(getattr(built, name)):
            if text is not None and not _storable(text):
                yield Finding("the ledger can hold it", name, row)
    for row, key in enumerate(built.source_keys):
        if not key or len(key) > 2 * spec.MAX_EVENT_ID_CHARACTERS:
            yield Finding("a source key of a sane length", str(len(key)), row)
    for row, (at, later) in enumerate(
        zip(built.event_times, built.not_before, strict=True)
    ):
        for moment in (at, later):
            if moment is not None and not -62_135_596_800 <= moment <= 253_402_300_799:
                yield Finding("the ledger can hold it", "time", row)
    for row, cursor in enumerate(built.cursors):
        if not isinstance(cursor, datetime) or cursor.utcoffset() is None:
            yield Finding("a cursor with a zone", type(cursor).__name__, row)


def _storable(text: object) -> bool:
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- events ---------------------------------------------------------------------------


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a member stands twice")
    return dict(pairs)


def _constant(_: str) -> None:
    raise ValueError("a constant that JSON does not know")


def strict(body: bytes) -> Any:
    """Read JSON as its RFC has it: UTF-8, no NaN, each member once."""
    text = body.decode("utf-8")
    return json.loads(text, object_pairs_hook=_once, parse_constant=_constant)


def _event(
    feed: Feed, built: Built, row: int, event: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    if not event.keys() <= _MEMBERS:
        yield "known members", str(sorted(event.keys() - _MEMBERS))
    if (
        event["event_name"] not in feed.event_names
        or event["event_id"] != built.event_ids[row]
        or event["action_source"] != feed.event.action_source.value
    ):
        yield "the event is the row's", ""
    oldest = NOW - int((feed.longest_window - feed.window.margin).total_seconds())
    if (
        type(event["event_time"]) is not int
        or not oldest <= event["event_time"] <= NOW + 60
    ):
        yield "a time in the window", ""
    yield from _user_data(feed, event["user_data"])
    yield from _custom_data(feed, event.get("custom_data", {}))
    notes: Counter[str] = Counter()
    if refusal := first_refusal([event], NOW, Switches(), notes):
        yield "the simulator takes it", f"{refusal.explanation} {refusal.path[2:]}"
    # Custom properties and LDU of a state are ours; of match keys nothing may be odd.
    for note in notes:
        if note.startswith(("malformed", "unknown user_data", "event without")):
            yield "the simulator finds nothing odd", note


def _user_data(feed: Feed, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not data or not data.keys() <= set(feed.user_data):
        yield "match keys of the feed", str(sorted(data))
    external = feed.user_data.get("external_id")
    for key, value in data.items():
        if key in spec.INTEGER_KEYS:
            if type(value) is not int or not 0 < value < 10**19:
                yield "an integer match key", key
            continue
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, str) and each for each in values):
            yield "texts in a match key", key
        if len(set(values)) < len(values):
            yield "each value of a match key once", key
        if key == "external_id" and external and external.mode == "raw":
            continue
        if key in spec.DIGESTED_KEYS:
            if not all(_DIGEST.fullmatch(each) for each in values):
                yield "a digest in lower-case hex", key
            if any(each.startswith(_NOTHING) for each in values):
                yield "no digest of nothing", key


def _custom_data(feed: Feed, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    custom = feed.custom_data
    known = {
        *spec.CUSTOM_DATA_AMOUNT_KEYS, *spec.CUSTOM_DATA_TEXT_KEYS, "currency", "contents",
        "event_source", "lead_event_source", *custom.properties,
    }  # fmt: skip
    if not data.keys() <= known:
        yield "known custom data", str(sorted(data.keys() - known))
    for name in spec.CUSTOM_DATA_AMOUNT_KEYS:
        amount = data.get(name, 0)
        if type(amount) not in (int, float) or not 0 <= amount <= 10**15:
            yield "an amount within bounds", name
    for name in (*spec.CUSTOM_DATA_TEXT_KEYS, *custom.properties):
        if not isinstance(data.get(name, ""), str) or len(data.get(name, "")) > 2_000:
            yield "a text within bounds", name
    for item in data.get("contents", []):
        if not item.keys() <= _ITEM:
            yield "known item members", str(sorted(item))
        for name, member in item.items():
            if name in ("quantity", "item_price"):
                if type(member) not in (int, float) or not 0 <= member < 10**15:
                    yield "an item's number within bounds", name
            elif not isinstance(member, str) or "\0" in member:
                yield "an item's member is text", name


# --- what must be nowhere -------------------------------------------------------------


def _no_trace(rows: Rows, built: Built) -> Iterator[Finding]:
    shown = None
    for number, cells in enumerate(rows.cells):
        for name, cell in zip(rows.names, cells, strict=True):
            if cell.token is None:
                continue
            shown = shown or f"{built!r} {built.reasons} {built.flaws}".lower()
            if cell.token in shown:
                yield Finding("no trace in a repr or a reason", name, number)
            body = built.bodies[number]
            if body and cell.token in body.decode().lower():
                yield Finding("no trace in an event", name, number)


def _known(
    judgement: Judgement, rows: Rows, events: dict[int, bytes]
) -> Iterator[Finding]:
    """Compare with the digests that were known before the row was built."""
    keys = {
        place: column.role[5:]
        for place, column in enumerate(rows.of)
        if column.role.startswith("user:")
    }
    for row, body in events.items():
        data = json.loads(body)["user_data"]
        for place, key in keys.items():
            cell = rows.cells[row][place]
            if cell.wire is None:
                continue
            judgement.known_digests += 1
            if data.get(key) != [cell.wire]:
                yield Finding("the digest known beforehand", key, row)


# --- the oracle, and the same again ---------------------------------------------------


def _oracle(feed: Feed, rows: Rows, built: Built) -> Iterator[Finding]:
    oracle = Oracle(feed, DATASET, SECRET, TODAY)
    for row, fate in enumerate(oracle.fates(rows.columns, NOW)):
        ours = (
            built.source_keys[row], built.event_names[row], built.states[row].value,
            built.reasons[row], built.event_ids[row], built.event_times[row],
            built.not_before[row], built.masks[row], built.values[row],
            built.currencies[row], built.bodies[row], built.digests[row], built.cursors[row],
        )  # fmt: skip
        theirs = (
            fate.source_key, fate.event_name, fate.state, fate.reason, fate.event_id,
            fate.event_time, fate.not_before, fate.mask, fate.value, fate.currency,
            fate.body, fate.digest, fate.cursor,
        )  # fmt: skip
        if ours != theirs:
            places = [
                n
                for n, pair in enumerate(zip(ours, theirs, strict=True))
                if pair[0] != pair[1]
            ]
            yield Finding(
                "as the oracle says",
                f"{places} {built.reasons[row]} {fate.reason}",
                row,
            )
    if oracle.flaws != built.flaws:
        yield Finding(
            "the oracle's flaws",
            str((oracle.flaws - built.flaws) | (built.flaws - oracle.flaws)),
        )


def _again(
    make: Make, rows: Rows, built: Built, chance: Random, feed: Feed
) -> Iterator[Finding]:
    """Build the same rows anew, in another order, and some of them alone."""
    everything = range(len(rows.cells))
    builder = make(feed)
    yield from _same(
        "building twice", built, builder.build(rows.columns, NOW), everything
    )
    if not rows.cells:
        return
    order = chance.sample(everything, len(everything))
    other = builder.build(rows.only(order), NOW)
    unshared = _unshared(built)
    yield from _same("any order", built, other, order, unshared)
    fresh = make(feed)
    for row in chance.sample(everything, min(len(everything), 8)):
        alone = fresh.build(rows.only([row]), NOW)
        yield from _same("alone", built, alone, [row], unshared)


def _unshared(built: Built) -> Callable[[int], bool]:
    """Return the test *no other row of the slice has its key or its id*."""
    ids = Counter(zip(built.event_names, built.event_ids, strict=True))

    def test(row: int) -> bool:
        if built.reasons[row] in _SHARED or "#dup" in built.source_keys[row]:
            return False
        if built.source_keys[row].startswith(("nokey:", "long:", "personal:")):
            return False  # another of the same content may be named first
        identity = (built.event_names[row], built.event_ids[row])
        return identity[1] is None or (ids[identity] == 1 and not taken)

    taken = "event_id.taken" in built.reasons
    return test


def _same(
    claim: str, built: Built, other: Built, order: Sequence[int],
    matters: Callable[[int], bool] = lambda _: True,
) -> Iterator[Finding]:  # fmt: skip
    for place, row in enumerate(order):
        if matters(row) and (
            built.bodies[row], built.reasons[row], built.source_keys[row], built.digests[row]
        ) != (
            other.bodies[place], other.reasons[place], other.source_keys[place],
            other.digests[place],
        ):  # fmt: skip
            yield Finding(
                f"{claim}: the same",
                f"{built.reasons[row]} {other.reasons[place]}",
                row,
            )


# --- batches --------------------------------------------------------------------------


def _batches(
    judgement: Judgement, feed: Feed, bodies: list[bytes], chance: Random
) -> Iterator[Finding]:
    most_events = chance.choice((1, 7, 999, 1_000))
    most_bytes = chance.choice((2_000, 100_000, spec.MAX_BYTES_PER_REQUEST))
    spans = list(
        cut(
            [len(body) for body in bodies],
            most_events=most_events,
            most_bytes=most_bytes,
        )
    )
    judgement.batches = len(spans)
    if [row for span in spans for row in span] != list(range(len(bodies))):
        yield Finding("no event lost between batches")
    for span in spans:
        events = [OwedEvent(str(row), bodies[row]) for row in span]
        size = sum(len(event.body) + 1 for event in events)
        if len(events) > most_events or (size > most_bytes and len(events) > 1):
            yield Finding("a batch within its limits", f"{len(events)} {size}")
    if not spans:
        return
    whole = [OwedEvent("k", body) for body in bodies[:1_000]]
    request = strict(Envelope(partner_agent="capi_fuzz", upload_tag='a"b').wrap(whole))
    if refusal := body_refusal(request, NOW, Switches(), Counter()):
        yield Finding("the simulator takes the request", refusal.message)
