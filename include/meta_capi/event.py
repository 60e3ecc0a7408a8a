"""A row becomes an event, or is held with a reason.

Rows come as columns, and the rules of `normalise`, `money` and `moments` are asked once
for each value that repeats. A check that fails takes its row out of the slice before the
next one is asked: of a customer who gave no consent, no match key is ever read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any, Final
from zoneinfo import ZoneInfo

from meta_capi import match_keys, moments, money, spec
from meta_capi.feed import Amount, Feed, Flag, Moment, Text
from meta_capi.lifecycle import State
from meta_capi.normalise import Flaw, country, state, text_of

__all__ = ["Builder", "Built", "Columns", "event_id", "joined_key", "key_of", "split_key"]

Columns = Mapping[str, Sequence[object]]
"""A slice of rows: column name to values, all of one length."""

# Our own namespace for UUIDv5 event ids. Changing it would make every event new to Meta.
_NAMESPACE: Final = bytes.fromhex("6f2b1c5e8d3a4f71b0c95e7a2d4c8f16")
_CACHE_ENTRIES: Final = 100_000
_CONTENT_KEYS: Final = (
    "id", "quantity", "item_price", "title", "description", "brand", "category",
    "delivery_category",
)  # fmt: skip
_SENDABLE: Final = State.PENDING


@dataclass(slots=True)
class Built:
    """A slice after building: one entry a row in every list.

    A row is to be sent where `states` is pending and `reasons` is None; its event's bytes
    are in `bodies`. Every other row is held: `reasons` says why.
    """

    source_keys: list[str]
    cursors: list[datetime]
    event_names: list[str | None]
    event_ids: list[str | None]
    event_times: list[int | None]
    states: list[State]
    reasons: list[str | None]
    masks: list[int]
    bodies: list[bytes | None]
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
        """Take a row out of what is to be sent."""
        self.states[row], self.reasons[row], self.bodies[row] = state, reason, None


def joined_key(parts: Iterable[str]) -> str:
    """Return one text for a key of several columns; different keys, different texts.

    >>> joined_key(["L-1", "mql"])
    'L-1|mql'
    >>> joined_key(["a|b"]) == joined_key(["a", "b"])
    False
    """
    return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in parts)


def key_of(values: Iterable[object]) -> str:
    """Return the source key of a row's key values; empty if a part is empty.

    >>> key_of([7, "mql"]), key_of([None, "mql"])
    ('7|mql', '')
    """
    parts = [_key_text(value) for value in values]
    return "" if None in parts else joined_key(part for part in parts if part is not None)


def split_key(text: str) -> list[str]:
    """Undo `joined_key`, and forget which occurrence the row was.

    >>> split_key(joined_key(["a|b", "c"]))
    ['a|b', 'c']
    >>> split_key("ord-1#dup2")
    ['ord-1']
    """
    plain = re.sub(r"#dup\d+$", "", text)
    return [part.replace("%7C", "|").replace("%25", "%") for part in plain.split("|")]


def event_id(dataset_id: str, event_name: str, source_key: str) -> str:
    """Return the event's UUIDv5: the same conversion, the same id, for ever.

    Nothing else goes in: no amount, no time, no run. A corrected row is not a new event.

    >>> event_id("1234567890", "Purchase", "ord-1")
    '24d4ffbd-7bc5-5c2b-b6bf-0a4b9d2b6b44'
    """
    name = f"{dataset_id}\n{event_name}\n{source_key}".encode()
    digits = hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


class Builder:
    """Builds the events of one feed. Keeps what it learnt of repeated values.

    Args:
        feed: the feed.
        dataset_id: the dataset the events go to; part of every event_id.
        digest_key: 32 bytes that key the fingerprints of payloads.
        today: the latest birthday believed.
    """

    def __init__(self, feed: Feed, *, dataset_id: str, digest_key: bytes, today: date) -> None:
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
            cursors=[_aware(at, self._feed.cursor_zone) for at in columns[self._feed.source.cursor.column]],
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
        return [key_of(parts) for parts in zip(*(columns[name] for name in self._feed.source.key), strict=True)]

    def _keep_keyed(self, columns: Columns, built: Built, alive: list[int]) -> list[int]:
        keys = built.source_keys
        if "" not in keys and len(set(keys)) == len(keys) and max(map(len, keys), default=0) <= spec.MAX_EVENT_ID_CHARACTERS:
            return alive
        times = Counter(keys)
        seen: Counter[str] = Counter()
        kept = []
        for row in alive:
            key = keys[row]
            seen[key] += 1
            if not key:
                keys[row] = self._name_for_nameless(columns, row)
                built.hold(row, State.QUARANTINED, "key.missing")
            elif len(key) > spec.MAX_EVENT_ID_CHARACTERS:
                keys[row] = f"long:{self._fingerprint(key.encode()).hex()}"
                built.hold(row, State.QUARANTINED, "key.too_long")
            elif times[key] > 1:
                keys[row] = occurrence_key(key, seen[key])
                built.hold(row, State.QUARANTINED, "key.duplicate")
            else:
                kept.append(row)
        return kept

    def _name_for_nameless(self, columns: Columns, row: int) -> str:
        """Name a row without a key by its content, so that reading it again finds it."""
        content = repr([columns[name][row] for name in self._feed.columns]).encode("utf-8", "replace")
        name = f"nokey:{self._fingerprint(content).hex()}"
        self._keyless[name] += 1
        return occurrence_key(name, self._keyless[name])

    def _fingerprint(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, key=self._digest_key, digest_size=16).digest()

    # --- whether it may go out ----------------------------------------------------

    def _keep_consented(self, columns: Columns, built: Built, alive: list[int]) -> list[int]:
        name = self._feed.consent.column
        if name is None:
            return alive
        return _keep(built, alive, columns[name], self._consent, State.WITHHELD, "consent.not_given")

    def _keep_staged(self, columns: Columns, built: Built, alive: list[int]) -> list[int]:
        stages = self._feed.event.stages
        if stages is None:
            return alive
        kept = []
        ignored = set(stages.ignore)
        column = columns[stages.column]
        for row in alive:
            stage = _clean_text(column[row])
            if name := stages.map.get(stage) if stage else None:
                built.event_names[row] = name
                kept.append(row)
            elif stage in ignored:
                built.hold(row, State.WITHHELD, "stage.ignored")
            else:
                built.hold(row, State.QUARANTINED, "stage.unknown" if stage else "stage.missing")
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
                built.hold(row, State.QUARANTINED, "time.missing" if at is None else at.value)
                continue
            if at > latest:
                built.hold(row, State.QUARANTINED, "time.in_future")
                continue
            built.event_times[row] = at
            if at < oldest:
                built.hold(row, State.EXPIRED, "window.over")
            elif self._holding and at + self._holding > now:
                built.hold(row, State.PENDING, "holding")
                built.not_before[row] = at + self._holding
            else:
                kept.append(row)
        return self._keep_after_lead(columns, built, kept)

    def _keep_after_lead(self, columns: Columns, built: Built, alive: list[int]) -> list[int]:
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

    def _keep_identified(self, columns: Columns, built: Built, alive: list[int]) -> list[int]:
        given = self._feed.event.id
        kept: list[int] = []
        taken: set[tuple[str | None, str]] = set()
        for row in alive:
            name = built.event_names[row]
            identity = _clean_text(columns[given][row]) if given else None
            if identity is None:
                identity = event_id(self._dataset_id, str(name), built.source_keys[row])
            if len(identity) > spec.MAX_EVENT_ID_CHARACTERS:
                built.hold(row, State.QUARANTINED, "event_id.too_long")
            elif (name, identity) in taken:
                built.hold(row, State.QUARANTINED, "event_id.taken")
            else:
                taken.add((name, identity))
                built.event_ids[row] = identity
                kept.append(row)
        return kept

    # --- custom_data ----------------------------------------------------------------

    def _custom_data(
        self, columns: Columns, built: Built, alive: list[int]
    ) -> tuple[dict[int, str], list[int]]:
        """Return the JSON members of custom_data by row, and the rows that have them."""
        parts: dict[int, list[str]] = {row: [] for row in alive}
        self._amounts(columns, built, parts)
        self._texts(columns, built, parts)
        self._contents(columns, built, parts)
        if stages := self._feed.event.stages:
            crm = f'"event_source":"{spec.CRM_EVENT_SOURCE}","lead_event_source":{encode_basestring(stages.crm)}'
            for members in parts.values():
                members.append(crm)
        kept = [row for row in alive if built.reasons[row] is None]
        return {row: ",".join(parts[row]) for row in kept}, kept

    def _amounts(self, columns: Columns, built: Built, parts: dict[int, list[str]]) -> None:
        custom = self._feed.custom_data
        required = {name for name in self._feed.event_names if name in spec.EVENTS_REQUIRING_VALUE}
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

    def _texts(self, columns: Columns, built: Built, parts: dict[int, list[str]]) -> None:
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

    def _contents(self, columns: Columns, built: Built, parts: dict[int, list[str]]) -> None:
        ref = self._feed.custom_data.contents
        if ref is None:
            return
        column = columns[ref.column]
        for row, members in parts.items():
            items, reason = _read_contents(column[row])
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
            text = raw if type(raw) is str else _clean_text(raw) or ""
            if text not in known:
                _bound(known)
                known[text] = _country_code(text, default)
            codes.append(known[text])
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

    def _fragment(self, key: str, raw: object, code: str | None) -> tuple[int, str] | str | None:
        """Return a match key's JSON member, or the flaw's code, or None if it is empty."""
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


def occurrence_key(key: str, number: int) -> str:
    """Name the nth row that has the same key; the first has the key itself.

    >>> occurrence_key("ord-1", 2)
    'ord-1#dup2'
    """
    return key if number == 1 else f"{key}#dup{number}"


def _prefix(name: str) -> str:
    return f'{{"event_name":{encode_basestring(name)},"event_time":'


def _ldu_state(raw: object) -> int | None:
    text = _clean_text(raw)
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
        return value is not None and str(value).strip().lower() in accepted

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


def _clean_text(value: object) -> str | None:
    text = text_of(value)
    return text.strip() or None if isinstance(text, str) else None


def _key_text(value: object) -> str | None:
    if type(value) is int:
        return str(value)
    return _clean_text(value)


def _country_code(text: str, default: str | None) -> str | None:
    code = country(text) if text.strip() else None
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


def _read_contents(value: object) -> tuple[str, str | None]:
    """Return contents as JSON text, and the reason if they cannot be sent."""
    if value is None or value == "":
        return "", None
    try:
        items = json.loads(value) if isinstance(value, str | bytes) else value
    except ValueError:
        return "", "contents.unreadable"
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return "", "contents.unreadable"
    clean = []
    for item in items:
        identity, quantity = item.get("id"), item.get("quantity")
        if isinstance(identity, bool | float) or identity in (None, "") or not _positive(quantity):
            return "", "contents.incomplete"
        entry = {key: item[key] for key in _CONTENT_KEYS if item.get(key) is not None}
        clean.append(entry | {"id": str(identity)})
    try:
        text = json.dumps(clean, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_number)
        text.encode()
    except (ValueError, TypeError):
        return "", "contents.unreadable"
    return (text if clean else ""), None


def _positive(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool) and value > 0


def _number(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError
