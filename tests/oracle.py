"""The event builder once more: row by row, plain and slow, to be compared with.

Nothing is remembered from row to row but the keys of the slice. JSON comes from
`json.dumps`, event ids from `uuid.uuid5`. Only the scalar rules are the builder's own:
they have their own tests.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from meta_capi import match_keys, moments, money, normalise, spec
from meta_capi.feed import Feed
from meta_capi.match_keys import KEYS, Context
from meta_capi.normalise import Flaw

NAMESPACE = uuid.UUID("6f2b1c5e-8d3a-4f71-b0c9-5e7a2d4c8f16")
LONGEST_ID = 128
BROAD = spec.TOO_BROAD_KEY_SETS
ITEM_KEYS = (
    "id", "quantity", "item_price", "title", "description", "brand", "category",
    "delivery_category",
)  # fmt: skip
# Stands around a number that must go out as it is written, not as a float shows it.
EXACT = f"<{uuid.uuid4()}>"

Row = dict[str, object]


class Held(Exception):  # noqa: N818 - not an error: what becomes of most rows
    """The row does not go out."""

    def __init__(self, state: str, reason: str) -> None:
        self.state, self.reason = state, reason


@dataclass
class Fate:
    """What becomes of one row."""

    source_key: str
    cursor: datetime
    event_name: str | None
    state: str = "pending"
    reason: str | None = None
    event_id: str | None = None
    event_time: int | None = None
    not_before: int | None = None
    mask: int = 0
    value: str | None = None
    currency: str | None = None
    body: bytes | None = None
    digest: bytes | None = None


@dataclass
class Oracle:
    """Says of each row of a slice what must become of it."""

    feed: Feed
    dataset_id: str
    digest_key: bytes
    today: date
    flaws: Counter[str] = field(default_factory=Counter)
    """Of all slices so far."""
    nameless: Counter[str] = field(default_factory=Counter)

    def fates(self, columns: dict[str, list[Any]], now: int) -> list[Fate]:
        names = list(columns)
        rows = [
            dict(zip(names, cells, strict=True))
            for cells in zip(*columns.values(), strict=True)
        ]
        keys = [self.key(row) for row in rows]
        times, seen = Counter(keys), Counter[object]()
        taken: set[tuple[str | None, str]] = set()
        fates = []
        for row, key in zip(rows, keys, strict=True):
            seen[key] += 1
            cursor = in_zone(row[self.feed.source.cursor.column], self.feed.cursor_zone)
            fate = Fate("", cursor, self.feed.event.name)
            try:
                self.name(fate, row, key, times[key], seen[key])
                self.follow(fate, row, now, taken)
            except Held as held:
                fate.state, fate.reason = held.state, held.reason
            fates.append(fate)
        return fates

    # --- names ------------------------------------------------------------------------

    def key(self, row: Row) -> str | Flaw | None:
        parts = [normalise.text_of(row[name]) for name in self.feed.source.key]
        if None in parts:
            return None
        for part in parts:
            if isinstance(part, Flaw):
                return part
        marks = (("%", "%25"), ("|", "%7C"), ("#dup", "%23dup"))
        written = []
        for part in parts:
            text = str(part).strip()
            for mark, code in marks:
                text = text.replace(mark, code)
            written.append(text)
        return "|".join(written)

    def name(
        self, fate: Fate, row: Row, key: str | Flaw | None, times: int, seen: int
    ) -> None:
        if key is None or isinstance(key, Flaw):
            content = [normalise.text_of(row[name]) for name in self.feed.columns]
            name = f"nokey:{self.fingerprint(repr(content).encode()).hex()}"
            self.nameless[name] += 1
            fate.source_key = nth(name, self.nameless[name])
            missing = key is None
            raise Held("quarantined", "key.missing" if missing else "text.unreadable")
        if len(key) > LONGEST_ID:
            name = f"long:{self.fingerprint(key.encode()).hex()}"
            fate.source_key = nth(name, seen)
            raise Held("quarantined", "key.too_long")
        if is_personal(key):
            name = f"personal:{self.fingerprint(key.encode()).hex()}"
            fate.source_key = nth(name, seen)
            raise Held("quarantined", "key.personal")
        fate.source_key = nth(key, seen)
        if times > 1:
            raise Held("quarantined", "key.duplicate")

    def fingerprint(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, key=self.digest_key, digest_size=16).digest()

    # --- one row ----------------------------------------------------------------------

    def follow(
        self, fate: Fate, row: Row, now: int, taken: set[tuple[str | None, str]]
    ) -> None:
        feed = self.feed
        if feed.consent.column and not is_one_of(
            row[feed.consent.column], feed.consent.granted
        ):
            raise Held("withheld", "consent.not_given")
        self.stage(fate, row)
        self.time(fate, row, now)
        self.identity(fate, row, taken)
        custom = self.custom_data(fate, row)
        user = self.user_data(fate, row)
        event: dict[str, object] = {
            "event_name": fate.event_name,
            "event_time": fate.event_time,
            "event_id": fate.event_id,
            "action_source": feed.event.action_source.value,
        }
        event |= self.privacy(row)
        event["user_data"] = user
        if custom:
            event["custom_data"] = custom
        body = written(event)
        if len(body) > 64_000:
            raise Held("quarantined", "event.too_large")
        fate.body, fate.digest = body, self.fingerprint(body)

    def stage(self, fate: Fate, row: Row) -> None:
        stages = self.feed.event.stages
        if stages is None:
            return
        stage = clean(row[stages.column])
        if stage is None:
            raise Held("quarantined", "stage.missing")
        if stage in stages.ignore:
            raise Held("withheld", "stage.ignored")
        if stage not in stages.map:
            raise Held("quarantined", "stage.unknown")
        fate.event_name = stages.map[stage]

    def time(self, fate: Fate, row: Row, now: int) -> None:
        at = moment(row, self.feed.event.time)
        if at is None:
            raise Held("quarantined", "time.missing")
        if isinstance(at, Flaw):
            raise Held("quarantined", at.value)
        if at > now + 60:
            raise Held("quarantined", "time.in_future")
        # What no datetime can name is older than anything.
        fate.event_time = at if at >= -62_135_596_800 else None
        window = self.feed.longest_window - self.feed.window.margin
        if now - at > window.total_seconds():
            raise Held("expired", "window.over")
        rest = int(self.feed.holding_period.total_seconds())
        if rest and now - at < rest:
            fate.not_before = at + rest
            raise Held("pending", "holding")
        if stages := self.feed.event.stages:
            made = moment(row, stages.lead_created)
            if isinstance(made, int) and made > at:
                raise Held("quarantined", "stage.before_lead")

    def identity(
        self, fate: Fate, row: Row, taken: set[tuple[str | None, str]]
    ) -> None:
        column = self.feed.event.id
        given = normalise.text_of(row[column]) if column else None
        if isinstance(given, Flaw):
            raise Held("quarantined", "text.unreadable")
        if given is None:
            name = f"{self.dataset_id}\n{fate.event_name}\n{fate.source_key}"
            given = str(uuid.uuid5(NAMESPACE, name))
        given = given.strip()
        if len(given) > LONGEST_ID:
            raise Held("quarantined", "event_id.too_long")
        if is_personal(given):
            raise Held("quarantined", "event_id.personal")
        if (fate.event_name, given) in taken:
            raise Held("quarantined", "event_id.taken")
        taken.add((fate.event_name, given))
        fate.event_id = given

    # --- custom_data ------------------------------------------------------------------

    def custom_data(self, fate: Fate, row: Row) -> dict[str, object]:
        custom = self.feed.custom_data
        data = self.amounts(fate, row)
        texts = {name: getattr(custom, name) for name in spec.CUSTOM_DATA_TEXT_KEYS}
        for name, part in (texts | custom.properties).items():
            if part is None:
                continue
            if (constant := getattr(part, "constant", None)) is not None:
                data[name] = constant
                continue
            text = normalise.text_of(row[part.column])
            if isinstance(text, Flaw):
                raise Held("quarantined", "text.unreadable")
            if text is not None:
                data[name] = text.strip()
            words = spec.CUSTOM_DATA_WORDS.get(name)
            if words and data.get(name, words[0]) not in words:
                del data[name]
                self.flaws[f"{name}.unknown"] += 1
        if custom.contents and (items := contents(row[custom.contents.column])):
            data["contents"] = items
        if self.feed.event.stages:
            data["event_source"] = "crm"
            data["lead_event_source"] = self.feed.event.stages.crm
        return data

    def amounts(self, fate: Fate, row: Row) -> dict[str, object]:
        custom = self.feed.custom_data
        if custom.currency is None:
            return {}
        must = fate.event_name == "Purchase"
        code: str | Flaw | None = None
        if custom.currency.column:
            code = money.currency(row[custom.currency.column])
        code = custom.currency.default if code is None else code
        if not isinstance(code, str):
            reason = "currency.missing" if code is None else code.value
            if must:
                raise Held("quarantined", reason)
            self.flaws[reason] += 1
            return {}
        data: dict[str, object] = {}
        for name in ("value", "net_revenue", "predicted_ltv"):
            part = getattr(custom, name)
            if part is None:
                continue
            amount = money.amount(row[part.column], part.decimal_mark)
            if isinstance(amount, Decimal):
                sent = money.wire(amount, code)
                data[name] = EXACT + sent
                if name == "value":
                    fate.value = sent
            elif must and name == "value":
                reason = "value.missing" if amount is None else amount.value
                raise Held("quarantined", reason)
            elif amount is not None:
                self.flaws[amount.value] += 1
        if data:
            data["currency"] = fate.currency = code
        return data

    # --- user_data --------------------------------------------------------------------

    def user_data(self, fate: Fate, row: Row) -> dict[str, object]:
        context = Context(today=self.today, country=self.country(row))
        data: dict[str, object] = {}
        for key in [*spec.DIGESTED_KEYS, *spec.PLAIN_KEYS]:
            part = self.feed.user_data.get(key)  # type: ignore[call-overload]
            if part is None:
                continue
            context = Context(
                today=self.today,
                country=context.country,
                phone_country=part.default_country,
                birthday_format=part.format,
                external_id_mode=part.mode or "normalised",
            )
            raw = row[part.column] if part.column else None
            sent = match_keys.read(key, raw, context)
            if sent is None and part.default:
                sent = match_keys.read(key, part.default, context)
            if isinstance(sent, Flaw):
                self.flaws[sent.value] += 1
            elif sent and key in spec.INTEGER_KEYS:
                data[key] = int(sent[0])
            elif sent:
                data[key] = list(sent) if key in spec.LIST_KEYS else sent[0]
        fate.mask = sum(KEYS[key].bit for key in data)
        if not data:
            raise Held("withheld", "match_keys.none")
        if any(set(data) <= broad for broad in BROAD):
            raise Held("withheld", "match_keys.too_broad")
        return data

    def country(self, row: Row) -> str | None:
        """The country that telephones, states and postcodes of the row are read by."""
        part = self.feed.user_data.get("country")
        if part is None:
            return None
        text = normalise.text_of(row[part.column]) if part.column else None
        if isinstance(text, Flaw):
            return None
        code = normalise.country(text) if text is not None else None
        if code is None and part.default:
            return part.default.lower()
        return None if isinstance(code, Flaw) else code

    def privacy(self, row: Row) -> dict[str, object]:
        ldu, opt_out = self.feed.limited_data_use, self.feed.opt_out
        members: dict[str, object] = {}
        if ldu and is_one_of(row[ldu.column], ldu.values):
            text = clean(row[ldu.state]) if ldu.state else None
            state = normalise.state(text, "us") if text else None
            number = None
            if isinstance(state, str):
                number = spec.LDU_STATES.get(state.upper())
            if number is None:
                self.flaws["ldu.state_unknown"] += 1
            members = {
                "data_processing_options": ["LDU"],
                "data_processing_options_country": 1 if number else 0,
                "data_processing_options_state": number or 0,
            }
        if opt_out and is_one_of(row[opt_out.column], opt_out.values):
            members["opt_out"] = True
        return members


def nth(key: str, number: int) -> str:
    return key if number == 1 else f"{key}#dup{number}"


def is_personal(key: str) -> bool:
    return any(isinstance(normalise.email(part), str) for part in key.split("|"))


def in_zone(value: object, zone: ZoneInfo) -> datetime:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time.min)
    if not isinstance(value, datetime):
        return datetime.min.replace(tzinfo=UTC)
    return value if value.tzinfo else value.replace(tzinfo=zone)


def clean(value: object) -> str | None:
    text = normalise.text_of(value)
    return text.strip() if isinstance(text, str) else None


def is_one_of(value: object, meant: list[Any]) -> bool:
    # A word such as `none` can be an answer, so texts are taken as they are.
    text = value if isinstance(value, str) else normalise.text_of(value)
    if not isinstance(text, str):
        return False
    text = text.strip().lower()
    for word in meant:
        if word is True and text in ("true", "t", "yes", "y", "on", "1"):
            return True
        if word is False and text in ("false", "f", "no", "n", "off", "0"):
            return True
        if not isinstance(word, bool) and text == str(word).strip().lower():
            return True
    return False


def moment(row: Row, part: Any) -> int | Flaw | None:
    zone = ZoneInfo(part.timezone) if part.timezone else None
    return moments.epoch_seconds(row[part.column], format=part.format, zone=zone)


def contents(value: object) -> list[dict[str, object]]:
    if isinstance(value, bytes | str):
        if not value.strip():
            return []
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Held("quarantined", "contents.unreadable") from None
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Held("quarantined", "contents.unreadable")
    if not all(sound(each) for each in value):
        raise Held("quarantined", "contents.incomplete")
    items = []
    for each in value:
        item = {key: each[key] for key in ITEM_KEYS if each.get(key) is not None}
        for key in set(item) - {"id", "quantity"}:
            item[key] = member(key, item[key])
        items.append(item | {"id": str(item["id"])})
    try:
        written({"contents": items})
    except (ValueError, TypeError, RecursionError):
        raise Held("quarantined", "contents.unreadable") from None
    return items


def sound(item: dict[str, Any]) -> bool:
    identity, quantity = item.get("id"), item.get("quantity")
    if type(identity) not in (str, int) or identity == "":
        return False
    if type(identity) is int and abs(identity) >= 10**LONGEST_ID:
        return False
    return is_number(quantity) and 0 < quantity < 10**15


def member(key: str, value: Any) -> Any:
    """A price is an amount, the rest are texts or numbers."""
    if key == "item_price":
        if isinstance(value, str):
            amount = money.amount(value)
            value = float(amount) if isinstance(amount, Decimal) else None
        if is_number(value) and 0 <= value < 10**15:
            return value
    elif key == "delivery_category":
        if isinstance(value, str) and value in (
            "in_store",
            "curbside",
            "home_delivery",
        ):
            return value
    elif (isinstance(value, str) and "\0" not in value) or is_number(value):
        return value
    raise Held("quarantined", "contents.unreadable")


def is_number(value: object) -> bool:
    if isinstance(value, Decimal) and value.is_nan():
        return False
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def written(event: dict[str, object]) -> bytes:
    """JSON as it goes out; amounts as they are, not as a float shows them."""
    text = json.dumps(
        event, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=float
    )
    for part in text.split(f'"{EXACT}')[1:]:
        number = part.partition('"')[0]
        text = text.replace(f'"{EXACT}{number}"', number)
    return text.encode()
