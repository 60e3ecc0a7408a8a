"""A row becomes an event, or is held with a reason.

Rows come as columns, and the rules of `normalise`, `money` and `moments` are asked
once for each value that repeats. A check that fails takes its row out of the slice
before the next one is asked: of a customer who gave no consent, no match key is ever
read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from json.encoder import encode_basestring
from typing import Final
from zoneinfo import ZoneInfo

from meta_capi import moments, spec
from meta_capi.built import Built, Columns
from meta_capi.custom_data import CustomData
from meta_capi.feed import Feed, Moment
from meta_capi.lifecycle import State
from meta_capi.names import (
    clean_text,
    event_ids,
    holds_address,
    keys_of,
    occurrence_key,
)
from meta_capi.normalise import Flaw, text_of
from meta_capi.privacy import Privacy
from meta_capi.rows import Memory, Rows, Verdict
from meta_capi.user_data import UserData

__all__ = ["Builder"]

_IN_FUTURE: Final[Verdict] = (State.QUARANTINED, "time.in_future")
_TOO_OLD: Final[Verdict] = (State.EXPIRED, "window.over")
_HOLDING: Final[Verdict] = (State.PENDING, "holding")
_BEFORE_LEAD: Final[Verdict] = (State.QUARANTINED, "stage.before_lead")
_TOO_LARGE: Final[Verdict] = (State.QUARANTINED, "event.too_large")
_FIRST_SECOND: Final = int(datetime.min.replace(tzinfo=UTC).timestamp())


class Builder:
    """Builds the events of one feed. Keeps what it learnt of repeated values.

    Args:
        feed: the feed.
        dataset_id: the dataset the events go to; part of every event_id.
        digest_key: 32 bytes that key the fingerprints of payloads.
        today: the latest birthday believed.
    """

    def __init__(
        self, feed: Feed, *, dataset_id: str, digest_key: bytes, today: date
    ) -> None:
        self._feed = feed
        self._dataset_id = dataset_id
        self._fingerprints = hashlib.blake2b(key=digest_key, digest_size=16)
        self._privacy = Privacy(feed)
        self._users = UserData(feed, today)
        self._customs = CustomData(feed)
        self._keyless: Counter[str] = Counter()
        self._stages = Memory(self._stage)
        self._heads = {
            name: f'{{"event_name":{encode_basestring(name)},"event_time":'
            for name in feed.event_names
        }
        self._source = f',"action_source":"{feed.event.action_source}"'
        self._window = int(feed.longest_window.total_seconds())
        self._margin = int(feed.window.margin.total_seconds())
        self._holding = int(feed.holding_period.total_seconds())

    def build(self, columns: Columns, now: int) -> Built:
        """Build one slice. `now` is in seconds since 1970."""
        built = self._named(columns)
        rows = Rows(columns, built)
        self._keep_keyed(rows)
        self._privacy.keep_consented(rows)
        self._keep_staged(rows)
        self._keep_timely(rows, now)
        self._keep_identified(rows)
        customs = self._customs.members(rows)
        users, kept = self._users.members(rows)
        self._assemble(rows, kept.of(customs), users)
        return built

    # --- what the row is called ---------------------------------------------------

    def _named(self, columns: Columns) -> Built:
        keys = keys_of([columns[name] for name in self._feed.source.key])
        count = len(keys)
        zone = self._feed.cursor_zone
        return Built(
            source_keys=keys,
            cursors=[
                at if type(at) is datetime and at.tzinfo else _aware(at, zone)
                for at in columns[self._feed.source.cursor.column]
            ],
            event_names=[self._feed.event.name] * count,
            event_ids=[None] * count,
            event_times=[None] * count,
            states=[State.PENDING] * count,
            reasons=[None] * count,
            masks=[0] * count,
            bodies=[None] * count,
            digests=[None] * count,
            values=[None] * count,
            currencies=[None] * count,
            not_before=[None] * count,
        )

    def _keep_keyed(self, rows: Rows) -> None:
        keys = rows.built.source_keys
        odd = _odd(keys)
        if not odd:
            return
        seen: Counter[str] = Counter()
        held: list[Verdict | None] = [None] * len(keys)
        for row, key in enumerate(keys):
            if key not in odd:
                continue
            seen[key] += 1
            if not key:
                name, reason = (
                    self._name_for_nameless(rows, row),
                    self._key_flaw(rows, row),
                )
            elif len(key) > spec.MAX_EVENT_ID_CHARACTERS:
                name = f"long:{self._fingerprint(key.encode()).hex()}"
                name, reason = occurrence_key(name, seen[key]), "key.too_long"
            elif holds_address(key):
                name = f"personal:{self._fingerprint(key.encode()).hex()}"
                name, reason = occurrence_key(name, seen[key]), "key.personal"
            else:
                name, reason = occurrence_key(key, seen[key]), "key.duplicate"
            keys[row], held[row] = name, (State.QUARANTINED, reason)
        rows.hold(held)

    def _key_flaw(self, rows: Rows, row: int) -> str:
        texts = [text_of(rows.column(name)[row]) for name in self._feed.source.key]
        return "key.missing" if None in texts else "text.unreadable"

    def _name_for_nameless(self, rows: Rows, row: int) -> str:
        """Name a row without a key by its content, to know it when it is read again."""
        content = repr([text_of(rows.column(name)[row]) for name in self._feed.columns])
        name = f"nokey:{self._fingerprint(content.encode()).hex()}"
        self._keyless[name] += 1
        return occurrence_key(name, self._keyless[name])

    def _fingerprint(self, content: bytes) -> bytes:
        fingerprint = self._fingerprints.copy()
        fingerprint.update(content)
        return fingerprint.digest()

    # --- whether it may go out ----------------------------------------------------

    def _keep_staged(self, rows: Rows) -> None:
        stages = self._feed.event.stages
        if stages is None:
            return
        found = self._stages.of(rows.column(stages.column))
        names = [name if type(name) is str else None for name in found]
        rows.put(rows.built.event_names, names)
        rows.hold([name if type(name) is tuple else None for name in found])

    def _stage(self, value: object) -> str | Verdict:
        stages = self._feed.event.stages
        stage = clean_text(value)
        if stages and stage and (name := stages.map.get(stage)):
            return name
        if stages and stage in stages.ignore:
            return State.WITHHELD, "stage.ignored"
        return State.QUARANTINED, "stage.unknown" if stage else "stage.missing"

    def _keep_timely(self, rows: Rows, now: int) -> None:
        built, holding = rows.built, self._holding
        times = _read_moments(self._feed.event.time, rows)
        future = now + spec.FUTURE_TOLERANCE_SECONDS
        oldest = now - self._window + self._margin
        latest = now - holding if holding else future
        # What no datetime can name is older than any window; the ledger has no time of it.
        rows.put(
            built.event_times,
            [
                at if type(at) is int and _FIRST_SECOND <= at <= future else None
                for at in times
            ],
        )
        verdicts = [
            None
            if type(at) is int and oldest <= at <= latest
            else _judge_time(at, oldest, future)
            for at in times
        ]
        if holding:
            rows.put(
                built.not_before,
                [
                    at + holding if verdict is _HOLDING and type(at) is int else None
                    for at, verdict in zip(times, verdicts, strict=True)
                ],
            )
        rows.hold(verdicts)
        self._keep_after_lead(rows)

    def _keep_after_lead(self, rows: Rows) -> None:
        stages = self._feed.event.stages
        if stages is None:
            return
        times = rows.of(rows.built.event_times)
        # A creation that nobody knows cannot be later than the stage.
        rows.hold(
            [
                _BEFORE_LEAD
                if type(created) is int and at is not None and at < created
                else None
                for created, at in zip(
                    _read_moments(stages.lead_created, rows), times, strict=True
                )
            ]
        )

    def _keep_identified(self, rows: Rows) -> None:
        built, given = rows.built, self._feed.event.id
        made = event_ids(
            self._dataset_id, rows.of(built.event_names), rows.of(built.source_keys)
        )
        if given is None:
            rows.put(built.event_ids, made)
            return
        held: list[Verdict | None] = []
        taken: set[tuple[str | None, str]] = set()
        for place, value, other in zip(
            rows.places, rows.column(given), made, strict=True
        ):
            own = text_of(value)
            identity = own.strip() if isinstance(own, str) else other
            name = (built.event_names[place], identity)
            if isinstance(own, Flaw):
                held.append((State.QUARANTINED, "text.unreadable"))
            elif len(identity) > spec.MAX_EVENT_ID_CHARACTERS:
                held.append((State.QUARANTINED, "event_id.too_long"))
            elif holds_address(identity):
                held.append((State.QUARANTINED, "event_id.personal"))
            elif name in taken:
                held.append((State.QUARANTINED, "event_id.taken"))
            else:
                taken.add(name)
                built.event_ids[place] = identity
                held.append(None)
        rows.hold(held)

    # --- the event --------------------------------------------------------------------

    def _assemble(
        self, rows: Rows, customs: Sequence[str], users: Sequence[str]
    ) -> None:
        built, source = rows.built, self._source
        bodies: Sequence[bytes] = [
            (
                f'{head}{at},"event_id":{identity}{source}{extra}'
                f',"user_data":{{{user[1:]}}}'
                + (f',"custom_data":{{{custom[1:]}}}}}' if custom else "}")
            ).encode()
            for head, at, identity, extra, user, custom in zip(
                # These rows have a name and an id.
                map(self._heads.__getitem__, rows.of(built.event_names)),  # type: ignore[arg-type]
                rows.of(built.event_times),
                map(encode_basestring, rows.of(built.event_ids)),  # type: ignore[arg-type]
                self._privacy.members(rows),
                users,
                customs,
                strict=True,
            )
        ]
        if max(map(len, bodies), default=0) > spec.MAX_BYTES_PER_EVENT:
            held = [
                _TOO_LARGE if len(body) > spec.MAX_BYTES_PER_EVENT else None
                for body in bodies
            ]
            bodies = rows.hold(held).of(bodies)
        rows.put(built.bodies, bodies)
        rows.put(built.digests, map(self._fingerprint, bodies))


def _odd(keys: list[str]) -> set[str]:
    """Return the keys that no row of its own can have."""
    odd: set[str] = set()
    if len(set(keys)) < len(keys):
        odd |= {key for key, count in Counter(keys).items() if count > 1}
    if "" in keys:
        odd.add("")
    if max(map(len, keys), default=0) > spec.MAX_EVENT_ID_CHARACTERS:
        odd |= {key for key in keys if len(key) > spec.MAX_EVENT_ID_CHARACTERS}
    if any("@" in key for key in keys):
        odd |= set(filter(holds_address, keys))
    return odd


def _judge_time(at: int | Flaw | None, oldest: int, future: int) -> Verdict:
    if type(at) is not int:
        reason = at.value if isinstance(at, Flaw) else "time.missing"
        return State.QUARANTINED, reason
    if at > future:
        return _IN_FUTURE
    return _TOO_OLD if at < oldest else _HOLDING


def _read_moments(part: Moment, rows: Rows) -> list[int | Flaw | None]:
    zone = ZoneInfo(part.timezone) if part.timezone else None
    column = rows.column(part.column)
    return moments.each_epoch_seconds(column, format=part.format, zone=zone)


def _aware(value: object, zone: ZoneInfo) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=zone)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=zone)
    return datetime.min.replace(tzinfo=UTC)
