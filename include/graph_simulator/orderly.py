"""The short path: batches that break no rule and raise no eyebrow, seen at a glance.

The full rules stay the truth. What passes here, they would pass, under every switch and
without a note; of anything else nothing is said here, and it goes the long way.

Of a thousand events ten thousand digests are the greater part, and one is as good as the
other: the rules are asked of what stands around them, once for each shape it takes.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Final, Literal

import msgspec

from graph_simulator.channels import ACTION_SOURCES
from graph_simulator.events import LDU_STATES
from graph_simulator.iso_4217 import CURRENCIES
from graph_simulator.match_keys import DIGESTED, user_data_refusal
from graph_simulator.records import Row, fingerprint_of
from graph_simulator.rules import MAX_EVENTS, is_partner_agent
from graph_simulator.switches import Profile, Switches
from meta_capi import spec

_KEYS: Final = DIGESTED | {"external_id", "lead_id"}
# What the others need beyond the common rules takes the long way.
_SOURCES: Final = ACTION_SOURCES - {"website", "app", "business_messaging"}
_EMPTY_DIGEST: Final = spec.EMPTY_STRING_SHA256.encode()
_MOST_SHAPES: Final = 10_000

Amount = Annotated[int, msgspec.Meta(ge=0)] | Annotated[float, msgspec.Meta(ge=0)]
Category = Literal["in_store", "curbside", "home_delivery"]


class _Item(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: Annotated[str, msgspec.Meta(min_length=1)]
    quantity: Amount
    item_price: Amount | None = None
    title: str | None = None
    description: str | None = None
    brand: str | None = None
    category: str | None = None
    delivery_category: Category | None = None


class _CustomData(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    value: Amount | None = None
    currency: str | None = None
    order_id: str | None = None
    item_number: str | None = None
    contents: list[_Item] | None = None
    content_category: str | None = None
    content_ids: list[str] | None = None
    content_name: str | None = None
    content_type: Literal["product", "product_group"] | None = None
    delivery_category: Category | None = None
    event_source: str | None = None
    lead_event_source: str | None = None
    net_revenue: Amount | None = None
    num_items: Annotated[int, msgspec.Meta(ge=0)] | None = None
    predicted_ltv: Amount | None = None
    search_string: str | None = None
    status: str | None = None


class _Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    event_name: str
    event_time: int
    event_id: str
    action_source: str
    user_data: msgspec.Raw
    custom_data: _CustomData | None = None
    opt_out: bool | None = None
    data_processing_options: list[str] | None = None
    data_processing_options_country: Literal[0, 1] | None = None
    data_processing_options_state: int | None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    data: Annotated[list[_Event], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]
    access_token: str | None = None
    appsecret_proof: str | None = None
    partner_agent: str | None = None
    namespace_id: str | None = None
    test_event_code: str | None = None
    upload_id: str | None = None
    upload_source: str | None = None
    upload_tag: str | None = None


_decode: Final = msgspec.json.Decoder(_Body).decode
_NO_CUSTOM_DATA: Final = _CustomData()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A request's events, of which nothing is left to judge but their times."""

    rows: list[Row]
    access_token: str | None
    partner_agent: str
    spans: dict[str, tuple[int, int]]  # by action_source: the first moment and the last

    def is_timely(self, now: float, switches: Switches) -> bool:
        """Say whether every event lies within the window of its action_source."""
        for source, (first, last) in self.spans.items():
            window = switches.window
            if source == "physical_store" and not switches.strict_seven_days:
                window = max(window, switches.physical_store_window)
            if first < now - window or last > now + switches.future_tolerance:
                return False
        return True


class Sieve:
    """Lets orderly batches through, and remembers the shapes of user_data it met."""

    def __init__(self) -> None:
        self.shapes: dict[bytes, _Shape] = {}

    def read(self, body: bytes) -> Batch | None:
        """Read the JSON of a request; None sends it the long way."""
        if _EMPTY_DIGEST in body:
            return None
        try:
            if not body.isascii():
                body.decode()  # what is skipped below is not looked at there
            read = _decode(body)
        except (ValueError, RecursionError):
            return None
        agent = read.partner_agent
        if agent is not None and not is_partner_agent(agent):
            return None
        rows: list[Row] = []
        times: dict[str, list[int]] = defaultdict(list)
        for event in read.data:
            user_data = bytes(event.user_data)
            keys = self._keys_of(user_data)
            custom_data = event.custom_data or _NO_CUSTOM_DATA
            if keys is None or not _is_orderly(event, custom_data, keys):
                return None
            source, order_id = event.action_source, custom_data.order_id
            times[source].append(event.event_time)
            rows.append(
                Row(
                    event.event_name,
                    event.event_id,
                    event.event_time,
                    source,
                    order_id,
                    custom_data.item_number,
                    keys,
                    None
                    if order_id or source != "physical_store"
                    else fingerprint_of(json.loads(user_data)),
                )
            )
        return Batch(
            rows=rows,
            access_token=read.access_token,
            partner_agent=agent or "",
            spans={source: (min(all_), max(all_)) for source, all_ in times.items()},
        )

    def _keys_of(self, user_data: bytes) -> str | None:
        """Return the keys of a sound user_data, joined by commas."""
        veiled = user_data.translate(_VEIL)
        shape = self.shapes.get(veiled)
        if shape is None or not shape.fits(user_data):
            if len(self.shapes) >= _MOST_SHAPES:
                self.shapes.clear()
            shape = self.shapes[veiled] = _Shape(user_data, veiled)
        return shape.keys if shape.fits(user_data) else None


def _is_orderly(event: _Event, custom_data: _CustomData, keys: str) -> bool:
    source, currency = event.action_source, custom_data.currency
    if source not in _SOURCES or not event.event_name.strip():
        return False
    if custom_data.value is None:
        if event.event_name == "Purchase":
            return False
    elif currency is None:
        return False
    if currency is not None and currency not in CURRENCIES:
        return False
    # A lead that Meta would take and not count raises an eyebrow.
    if (
        source == "system_generated"
        and "lead_id" in keys
        and (custom_data.event_source != "crm" or not custom_data.lead_event_source)
    ):
        return False
    return not event.data_processing_options or (
        event.data_processing_options == ["LDU"]
        and event.data_processing_options_country is not None
        and event.data_processing_options_state in LDU_STATES
    )


# Every hex digit becomes the first one; what else a veiled text shows is as it was.
_VEIL: Final = bytes.maketrans(b"0123456789abcdef", b"0" * 16)
_ANY: Final = ord("0")
_digests = re.compile(rb'(?<=")0{64}(?=[".])').finditer
_lead_ids = re.compile(rb"(?<=:)0{15,17}(?=[,}])").finditer


class _Shape:
    """A user_data but for its digests and its lead_id, and what the rules say of it."""

    def __init__(self, user_data: bytes, veiled: bytes) -> None:
        sample, frame = bytearray(user_data), bytearray(veiled)
        numbers = [slice(*match.span()) for match in _lead_ids(veiled)]
        for free in (*numbers, *(slice(*match.span()) for match in _digests(veiled))):
            sample[free] = frame[free] = b"1" * (free.stop - free.start)
        # Hex digits in the names of keys, and wherever else none is expected.
        self._frame_of = itemgetter(
            0, *(place for place, sign in enumerate(frame) if sign == _ANY)
        )
        self._frame = self._frame_of(user_data)
        self._number = numbers[0] if numbers else None
        self.keys = _sound_keys(sample.decode()) if len(numbers) < 2 else None

    def fits(self, user_data: bytes) -> bool:
        """Say whether a user_data that looks like it, veiled, is of this shape."""
        return self._frame_of(user_data) == self._frame and (
            self._number is None or user_data[self._number].isdigit()
        )


def _sound_keys(user_data: str) -> str | None:
    """Ask the rules; None where they refuse or note anything."""
    try:
        members = json.loads(user_data)
    except (ValueError, RecursionError):
        return None
    if type(members) is not dict or not members.keys() <= _KEYS:
        return None
    notes: Counter[str] = Counter()
    for profile in Profile:
        switches = Switches(profile=profile)
        if user_data_refusal(members, 0.0, switches, notes, digests_sound=False):
            return None
    return None if notes else ",".join(members)
