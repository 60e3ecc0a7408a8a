"""A row becomes an event, or is held with a reason.

Rows come as columns, and the rules of `normalise`, `money` and `moments` are asked
once for each value that repeats. A check that fails takes its row out of the slice
before the next one is asked: of a customer who gave no consent, no match key is ever
read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from json.encoder import encode_basestring
from typing import Final
from zoneinfo import ZoneInfo

from meta_capi import moments, spec
from meta_capi.built import Built, Columns
from meta_capi.custom_data import custom_data
from meta_capi.feed import Feed, Moment
from meta_capi.lifecycle import State
from meta_capi.names import (
    clean_text,
    event_id,
    holds_address,
    key_of,
    occurrence_key,
)
from meta_capi.normalise import Flaw, text_of
from meta_capi.privacy import matches, privacy
from meta_capi.user_data import UserData

__all__ = ["Builder"]

_SENDABLE: Final = State.PENDING
# What no datetime can name is older than any window; the ledger keeps no time of it.
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
        self._digest_key = digest_key
        self._users = UserData(feed, today)
        self._keyless: Counter[str] = Counter()
        self._consent = matches(feed.consent.granted)
        self._prefixes = {name: _prefix(name) for name in feed.event_names}
        self._middle = f',"action_source":"{feed.event.action_source}"'
        self._window = int(feed.longest_window.total_seconds())
        self._margin = int(feed.window.margin.total_seconds())
        self._holding = int(feed.holding_period.total_seconds())

    def build(self, columns: Columns, now: int) -> Built:
        """Build one slice. `now` is in seconds since 1970."""
        built = self._named(columns)
        alive = list(range(len(built)))
        for check in (self._keep_keyed, self._keep_consented, self._keep_staged):
            alive = check(columns, built, alive)
        alive = self._keep_timely(columns, built, alive, now)
        alive = self._keep_identified(columns, built, alive)
        custom, alive = custom_data(self._feed, columns, built, alive)
        users, alive = self._users.members(columns, built, alive)
        self._assemble(columns, built, alive, custom, users)
        return built

    # --- what the row is called ---------------------------------------------------

    def _named(self, columns: Columns) -> Built:
        keys = self._source_keys(columns)
        rows = len(keys)
        return Built(
            source_keys=keys,
            cursors=[
                _aware(at, self._feed.cursor_zone)
                for at in columns[self._feed.source.cursor.column]
            ],
            event_names=[self._feed.event.name] * rows,
            event_ids=[None] * rows,
            event_times=[None] * rows,
            states=[_SENDABLE] * rows,
            reasons=[None] * rows,
            masks=[0] * rows,
            bodies=[None] * rows,
            digests=[None] * rows,
            values=[None] * rows,
            currencies=[None] * rows,
            not_before=[None] * rows,
        )

    def _source_keys(self, columns: Columns) -> list[str]:
        return [
            key_of(parts)
            for parts in zip(
                *(columns[name] for name in self._feed.source.key), strict=True
            )
        ]

    def _keep_keyed(
        self, columns: Columns, built: Built, alive: list[int]
    ) -> list[int]:
        keys = built.source_keys
        if (
            "" not in keys
            and len(set(keys)) == len(keys)
            and max(map(len, keys), default=0) <= spec.MAX_EVENT_ID_CHARACTERS
            and not any("@" in key for key in keys)
        ):
            return alive
        times = Counter(keys)
        seen: Counter[str] = Counter()
        kept = []
        for row in alive:
            key = keys[row]
            seen[key] += 1
            if not key:
                keys[row] = self._name_for_nameless(columns, row)
                built.hold(row, State.QUARANTINED, self._key_flaw(columns, row))
            elif len(key) > spec.MAX_EVENT_ID_CHARACTERS:
                name = f"long:{self._fingerprint(key.encode()).hex()}"
                keys[row] = occurrence_key(name, seen[key])
                built.hold(row, State.QUARANTINED, "key.too_long")
            elif holds_address(key):
                name = f"personal:{self._fingerprint(key.encode()).hex()}"
                keys[row] = occurrence_key(name, seen[key])
                built.hold(row, State.QUARANTINED, "key.personal")
            elif times[key] > 1:
                keys[row] = occurrence_key(key, seen[key])
                built.hold(row, State.QUARANTINED, "key.duplicate")
            else:
                kept.append(row)
        return kept

    def _key_flaw(self, columns: Columns, row: int) -> str:
        texts = [text_of(columns[name][row]) for name in self._feed.source.key]
        return "key.missing" if None in texts else "text.unreadable"

    def _name_for_nameless(self, columns: Columns, row: int) -> str:
        """Name a row without a key by its content, to know it when it is read again."""
        content = repr([text_of(columns[name][row]) for name in self._feed.columns])
        name = f"nokey:{self._fingerprint(content.encode()).hex()}"
        self._keyless[name] += 1
        return occurrence_key(name, self._keyless[name])

    def _fingerprint(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, key=self._digest_key, digest_size=16).digest()

    # --- whether it may go out ----------------------------------------------------

    def _keep_consented(
        self, columns: Columns, built: Built, alive: list[int]
    ) -> list[int]:
        name = self._feed.consent.column
        if name is None:
            return alive
        return _keep(
            built,
            alive,
            columns[name],
            self._consent,
            State.WITHHELD,
            "consent.not_given",
        )

    def _keep_staged(
        self, columns: Columns, built: Built, alive: list[int]
    ) -> list[int]:
        stages = self._feed.event.stages
        if stages is None:
            return alive
        kept = []
        ignored = set(stages.ignore)
        column = columns[stages.column]
        for row in alive:
            stage = clean_text(column[row])
            if name := stages.map.get(stage) if stage else None:
                built.event_names[row] = name
                kept.append(row)
            elif stage in ignored:
                built.hold(row, State.WITHHELD, "stage.ignored")
            else:
                built.hold(
                    row,
                    State.QUARANTINED,
                    "stage.unknown" if stage else "stage.missing",
                )
        return kept

    def _keep_timely(
        self, columns: Columns, built: Built, alive: list[int], now: int
    ) -> list[int]:
        latest = now + spec.FUTURE_TOLERANCE_SECONDS
        oldest = now - self._window + self._margin
        kept = []
        read = _moment_reader(self._feed.event.time)
        column = columns[self._feed.event.time.column]
        for row in alive:
            at = read(column[row])
            if not isinstance(at, int):
                built.hold(
                    row, State.QUARANTINED, "time.missing" if at is None else at.value
                )
                continue
            if at > latest:
                built.hold(row, State.QUARANTINED, "time.in_future")
                continue
            built.event_times[row] = at if at >= _FIRST_SECOND else None
            if at < oldest:
                built.hold(row, State.EXPIRED, "window.over")
            elif self._holding and at + self._holding > now:
                built.hold(row, State.PENDING, "holding")
                built.not_before[row] = at + self._holding
            else:
                kept.append(row)
        return self._keep_after_lead(columns, built, kept)

    def _keep_after_lead(
        self, columns: Columns, built: Built, alive: list[int]
    ) -> list[int]:
        stages = self._feed.event.stages
        if stages is None:
            return alive
        read = _moment_reader(stages.lead_created)
        column = columns[stages.lead_created.column]
        kept = []
        for row in alive:
            created, at = read(column[row]), built.event_times[row]
            # A creation that nobody knows cannot be later than the stage.
            if isinstance(created, int) and at is not None and at < created:
                built.hold(row, State.QUARANTINED, "stage.before_lead")
            else:
                kept.append(row)
        return kept

    def _keep_identified(
        self, columns: Columns, built: Built, alive: list[int]
    ) -> list[int]:
        given = self._feed.event.id
        kept: list[int] = []
        taken: set[tuple[str | None, str]] = set()
        for row in alive:
            name = built.event_names[row]
            own = text_of(columns[given][row]) if given else None
            if isinstance(own, Flaw):
                built.hold(row, State.QUARANTINED, "text.unreadable")
                continue
            identity = own.strip() if own else self._made_id(built, row)
            if len(identity) > spec.MAX_EVENT_ID_CHARACTERS:
                built.hold(row, State.QUARANTINED, "event_id.too_long")
            elif holds_address(identity):
                built.hold(row, State.QUARANTINED, "event_id.personal")
            elif (name, identity) in taken:
                built.hold(row, State.QUARANTINED, "event_id.taken")
            else:
                taken.add((name, identity))
                built.event_ids[row] = identity
                kept.append(row)
        return kept

    def _made_id(self, built: Built, row: int) -> str:
        name, key = str(built.event_names[row]), built.source_keys[row]
        return event_id(self._dataset_id, name, key)

    # --- the event --------------------------------------------------------------------

    def _assemble(
        self, columns: Columns, built: Built, alive: list[int], custom: dict[int, str],
        users: list[str],
    ) -> None:  # fmt: skip
        extras = privacy(self._feed, columns, built, alive)
        for row, members, extra in zip(alive, users, extras, strict=True):
            data = custom[row]
            text = (
                f"{self._prefixes[str(built.event_names[row])]}{built.event_times[row]}"
                f',"event_id":{encode_basestring(str(built.event_ids[row]))}{self._middle}{extra}'
                f',"user_data":{{{members}}}'
                f'{f""","custom_data":{{{data}}}""" if data else ""}}}'
            )
            body = text.encode()
            if len(body) > spec.MAX_BYTES_PER_EVENT:
                built.hold(row, State.QUARANTINED, "event.too_large")
                continue
            built.bodies[row] = body
            built.digests[row] = self._fingerprint(body)


def _prefix(name: str) -> str:
    return f'{{"event_name":{encode_basestring(name)},"event_time":'


def _keep(
    built: Built, alive: list[int], column: Sequence[object],
    good: Callable[[object], bool], state: State, reason: str,
) -> list[int]:  # fmt: skip
    kept = []
    for row in alive:
        if good(column[row]):
            kept.append(row)
        else:
            built.hold(row, state, reason)
    return kept


def _moment_reader(part: Moment) -> Callable[[object], int | Flaw | None]:
    zone = ZoneInfo(part.timezone) if part.timezone else None
    return lambda value: moments.epoch_seconds(value, format=part.format, zone=zone)


def _aware(value: object, zone: ZoneInfo) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=zone)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=zone)
    return datetime.min.replace(tzinfo=UTC)
