"""A row becomes an event, or is held with a reason.

Rows come as columns, and the rules of `normalise`, `money` and `moments` are asked
once for each value that repeats. A check that fails takes its row out of the slice
before the next one is asked: of a customer who gave no consent, no match key is ever
read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any, Final
from zoneinfo import ZoneInfo

from meta_capi import match_keys, moments, money, spec
from meta_capi.contents import read_contents
from meta_capi.feed import Amount, Feed, Moment, Text
from meta_capi.lifecycle import State
from meta_capi.names import (
    clean_text,
    event_id,
    joined_key,
    key_of,
    occurrence_key,
    split_key,
)
from meta_capi.normalise import Flaw, country, state, text_of

__all__ = [
    "Builder", "Built", "Columns", "event_id", "joined_key", "key_of", "occurrence_key",
    "split_key",
]  # fmt: skip

Columns = Mapping[str, Sequence[object]]
"""A slice of rows: column name to values, all of one length."""

_CACHE_ENTRIES: Final = 100_000
_SENDABLE: Final = State.PENDING
# What no datetime can name is older than any window; the ledger keeps no time of it.
_FIRST_SECOND: Final = int(datetime.min.replace(tzinfo=UTC).timestamp())


@dataclass(slots=True)
class Built:
    """A slice after building: one entry a row in every list.

    A row is to be sent where `states` is pending and `reasons` is None; its event's
    bytes are in `bodies`. Every other row is held: `reasons` says why.
    """

    source_keys: list[str]
    cursors: list[datetime]
    event_names: list[str | None]
    event_ids: list[str | None]
    event_times: list[int | None]
    states: list[State]
    reasons: list[str | None]
    masks: list[int]
    bodies: list[bytes | None] = field(repr=False)
    digests: list[bytes | None]
    values: list[str | None]
    currencies: list[str | None]
    not_before: list[int | None]
    flaws: Counter[str] = field(default_factory=Counter)
    """Match keys and fields left out of events, by reason."""

    def __len__(self) -> int:
        return len(self.source_keys)

    @property
    def sendable(self) -> list[int]:
        """The positions of the rows to be sent."""
        return [i for i, reason in enumerate(self.reasons) if reason is None]

    def hold(self, row: int, state: State, reason: str) -> None:
        """Take a row out of what is to be sent; the first reason stands."""
        if self.reasons[row] is None:
            self.states[row], self.reasons[row] = state, reason
            self.bodies[row] = None


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
        self._today = today
        self._keyless: Counter[str] = Counter()
        self._countries: dict[str, str | None] = {}
        self._fragments: dict[str, dict[object, tuple[int, str] | str | None]] = {}
        self._consent = _matches(feed.consent.granted)
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
        custom, alive = self._custom_data(columns, built, alive)
        users, alive = self._user_data(columns, built, alive)
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

    # --- custom_data ----------------------------------------------------------------

    def _custom_data(
        self, columns: Columns, built: Built, alive: list[int]
    ) -> tuple[dict[int, str], list[int]]:
        """Return custom_data's JSON members by row, and the rows that have them."""
        parts: dict[int, list[str]] = {row: [] for row in alive}
        self._amounts(columns, built, parts)
        self._texts(columns, built, parts)
        self._contents(columns, built, parts)
        if stages := self._feed.event.stages:
            crm = (
                f'"event_source":"{spec.CRM_EVENT_SOURCE}",'
                f'"lead_event_source":{encode_basestring(stages.crm)}'
            )
            for members in parts.values():
                members.append(crm)
        kept = [row for row in alive if built.reasons[row] is None]
        return {row: ",".join(parts[row]) for row in kept}, kept

    def _amounts(
        self, columns: Columns, built: Built, parts: dict[int, list[str]]
    ) -> None:
        custom = self._feed.custom_data
        required = {
            name
            for name in self._feed.event_names
            if name in spec.EVENTS_REQUIRING_VALUE
        }
        if custom.currency is None:
            return
        amounts = {
            name: part
            for name in spec.CUSTOM_DATA_AMOUNT_KEYS
            if (part := getattr(custom, name)) is not None
        }
        for row, members in parts.items():
            must = built.event_names[row] in required
            code = self._currency(columns, row)
            if not isinstance(code, str):
                flaw = "currency.missing" if code is None else code.value
                if must:
                    built.hold(row, State.QUARANTINED, flaw)
                else:
                    built.flaws[flaw] += 1
                continue
            found = self._row_amounts(columns, built, row, amounts, must, code)
            if found:
                members += [*found, f'"currency":"{code}"']
                built.currencies[row] = code

    def _row_amounts(
        self, columns: Columns, built: Built, row: int, amounts: Mapping[str, Amount],
        must: bool, code: str,
    ) -> list[str]:  # fmt: skip
        found = []
        for name, part in amounts.items():
            amount = money.amount(columns[part.column][row], part.decimal_mark)
            if isinstance(amount, Decimal):
                text = money.wire(amount, code)
                found.append(f'"{name}":{text}')
                if name == "value":
                    built.values[row] = text
                continue
            flaw = "value.missing" if amount is None else amount.value
            if must and name == "value":
                built.hold(row, State.QUARANTINED, flaw)
                return []
            if amount is not None:
                built.flaws[flaw] += 1
        return found

    def _currency(self, columns: Columns, row: int) -> str | Flaw | None:
        part = self._feed.custom_data.currency
        if part is None:
            return None
        code = money.currency(columns[part.column][row]) if part.column else None
        return part.default if code is None else code

    def _texts(
        self, columns: Columns, built: Built, parts: dict[int, list[str]]
    ) -> None:
        named: list[tuple[str, Text]] = [
            (name, part)
            for name in spec.CUSTOM_DATA_TEXT_KEYS
            if (part := getattr(self._feed.custom_data, name)) is not None
        ]
        named += [
            (name, Text(column=ref.column))
            for name, ref in self._feed.custom_data.properties.items()
        ]
        for name, part in named:
            label = f"{encode_basestring(name)}:"
            if part.constant is not None:
                member = label + encode_basestring(part.constant)
                for members in parts.values():
                    members.append(member)
            elif part.column is not None:
                column = columns[part.column]
                for row, members in parts.items():
                    text = text_of(column[row])
                    if isinstance(text, Flaw):
                        built.hold(row, State.QUARANTINED, "text.unreadable")
                    elif text and (text := text.strip()):
                        members.append(label + encode_basestring(text))

    def _contents(
        self, columns: Columns, built: Built, parts: dict[int, list[str]]
    ) -> None:
        ref = self._feed.custom_data.contents
        if ref is None:
            return
        column = columns[ref.column]
        for row, members in parts.items():
            items, reason = read_contents(column[row])
            if reason:
                built.hold(row, State.QUARANTINED, reason)
            elif items:
                members.append(f'"contents":{items}')

    # --- user_data -------------------------------------------------------------------

    def _user_data(
        self, columns: Columns, built: Built, alive: list[int]
    ) -> tuple[list[str], list[int]]:
        """Return the JSON members of user_data of the kept rows, and those rows."""
        codes = self._country_codes(columns, alive)
        found: list[list[str]] = [[] for _ in alive]
        masks = [0] * len(alive)
        for key in match_keys.KEYS:
            if key in self._feed.user_data:
                self._read_key(key, columns, built, alive, codes, found, masks)
        kept, members = [], []
        for row, mask, texts in zip(alive, masks, found, strict=True):
            built.masks[row] = mask
            if not mask:
                built.hold(row, State.WITHHELD, "match_keys.none")
            elif match_keys.too_broad(mask):
                built.hold(row, State.WITHHELD, "match_keys.too_broad")
            else:
                kept.append(row)
                members.append(",".join(texts))
        return members, kept

    def _country_codes(self, columns: Columns, alive: list[int]) -> list[str | None]:
        """Return each row's country, which phones, states and postcodes are read by."""
        part = self._feed.user_data.get("country")
        default = part.default if part else None
        if part is None or part.column is None:
            return [default] * len(alive)
        column, known = columns[part.column], self._countries
        codes = []
        for row in alive:
            raw = column[row]
            if type(raw) is not str:
                codes.append(_country_code(raw, default))
                continue
            if raw not in known:
                _bound(known)
                known[raw] = _country_code(raw, default)
            codes.append(known[raw])
        return codes

    def _read_key(
        self, key: str, columns: Columns, built: Built, alive: list[int],
        codes: list[str | None], found: list[list[str]], masks: list[int],
    ) -> None:  # fmt: skip
        part = self._feed.user_data[key]  # type: ignore[index]
        column = columns[part.column] if part.column else [None] * len(built)
        cache = self._fragments.setdefault(key, {})
        by_country = key in ("ph", "st", "zp")
        bit = match_keys.KEYS[key].bit
        for place, row in enumerate(alive):
            raw = column[row]
            if raw is None and part.default is None:
                continue
            code = codes[place]
            # Only texts are looked up: 1, True and Decimal(1) are equal, and are not
            # the same text.
            name = (raw, code) if by_country else raw
            if type(raw) is str and name in cache:
                entry = cache[name]
            else:
                entry = self._fragment(key, raw, code)
                if type(raw) is str:
                    _bound(cache)
                    cache[name] = entry
            if type(entry) is tuple:
                masks[place] |= bit
                found[place].append(entry[1])
            elif entry is not None:
                built.flaws[str(entry)] += 1

    def _fragment(
        self, key: str, raw: object, code: str | None
    ) -> tuple[int, str] | str | None:
        """Return a match key's JSON member, or the flaw's code, or None for nothing."""
        part = self._feed.user_data[key]  # type: ignore[index]
        context = match_keys.Context(
            country=code.lower() if code else None,
            phone_country=part.default_country,
            birthday_format=part.format,
            external_id_mode=part.mode or "normalised",
            today=self._today,
        )
        values = match_keys.read(key, raw, context)
        if values is None and part.default is not None:
            values = match_keys.read(key, part.default, context)
        if isinstance(values, Flaw):
            return values.value
        return (1, match_keys.fragment(key, values)) if values else None

    # --- the event --------------------------------------------------------------------

    def _assemble(
        self, columns: Columns, built: Built, alive: list[int], custom: dict[int, str],
        users: list[str],
    ) -> None:  # fmt: skip
        privacy = self._privacy(columns, built, alive)
        for row, members, extra in zip(alive, users, privacy, strict=True):
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

    def _privacy(self, columns: Columns, built: Built, alive: list[int]) -> list[str]:
        """Return the members for opt_out and limited data use, with a leading comma."""
        ldu, opt_out = self._feed.limited_data_use, self._feed.opt_out
        out = [""] * len(alive)
        if ldu:
            flagged = _matches(ldu.values)
            for place, row in enumerate(alive):
                if flagged(columns[ldu.column][row]):
                    number = _ldu_state(columns[ldu.state][row]) if ldu.state else None
                    if number is None:
                        built.flaws["ldu.state_unknown"] += 1
                    out[place] = _ldu(number)
        if opt_out:
            flagged = _matches(opt_out.values)
            for place, row in enumerate(alive):
                if flagged(columns[opt_out.column][row]):
                    out[place] += ',"opt_out":true'
        return out


def _prefix(name: str) -> str:
    return f'{{"event_name":{encode_basestring(name)},"event_time":'


def _ldu_state(raw: object) -> int | None:
    text = clean_text(raw)
    code = state(text, "us") if text else None
    return spec.LDU_STATES.get(code.upper()) if isinstance(code, str) else None


def _ldu(number: int | None) -> str:
    place = spec.LDU_GEOLOCATE if number is None else spec.LDU_COUNTRY_USA
    return (
        ',"data_processing_options":["LDU"]'
        f',"data_processing_options_country":{place}'
        f',"data_processing_options_state":{number or 0}'
    )


_YES: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_NO: Final = frozenset({"false", "f", "no", "n", "off", "0"})


def _matches(values: Sequence[object]) -> Callable[[object], bool]:
    """Return a test for *is one of these*, blind to case.

    YAML reads yes, on and true as one value, so that value stands for all such words.
    """
    accepted: set[str] = set()
    for value in values:
        if isinstance(value, bool):
            accepted |= _YES if value else _NO
        else:
            accepted.add(str(value).strip().lower())

    def matches(value: object) -> bool:
        # Texts as they are: `none` can be somebody's answer.
        text = value if isinstance(value, str) else text_of(value)
        return isinstance(text, str) and text.strip().lower() in accepted

    return matches


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


def _country_code(raw: object, default: str | None) -> str | None:
    """Return a row's country; the default only where the row names none."""
    text = text_of(raw)
    if isinstance(text, Flaw):
        return None
    code = country(text) if text else None
    if code is None:
        return default
    return None if isinstance(code, Flaw) else code.upper()


def _moment_reader(part: Moment) -> Callable[[object], int | Flaw | None]:
    zone = ZoneInfo(part.timezone) if part.timezone else None
    return lambda value: moments.epoch_seconds(value, format=part.format, zone=zone)


def _aware(value: object, zone: ZoneInfo) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=zone)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=zone)
    return datetime.min.replace(tzinfo=UTC)


def _bound(cache: dict[Any, Any]) -> None:
    """Forget everything when a cache is full: memory stays flat, whatever comes."""
    if len(cache) >= _CACHE_ENTRIES:
        cache.clear()
