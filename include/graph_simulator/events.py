"""One event against Meta's rules, in the order of our reference's section 10.7.

The first thing wrong decides. Nothing here is shared with the sender but the facts in
`spec`: this is a second reading of the same rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from graph_simulator.channels import (
    ACTION_SOURCES,
    channel_refusal,
    website_refusal,
)
from graph_simulator.custom_data import custom_data_refusal
from graph_simulator.match_keys import digests_are_sound, user_data_refusal
from graph_simulator.refusals import Refusal, bad_parameter, invalid
from graph_simulator.switches import Switches
from meta_capi.spec import Subcode

_ORDINARY: Final = frozenset({
    "event_name", "event_time", "event_id", "action_source", "user_data",
    "custom_data",
})  # fmt: skip
_TEXTS: Final = (
    "event_source_url", "referrer_url", "advanced_measurement_table",
)  # fmt: skip
_OBJECTS: Final = ("app_data", "original_event_data", "attribution_data")
_DATA_PROCESSING: Final = (
    "data_processing_options",
    "data_processing_options_country",
    "data_processing_options_state",
)
_KNOWN: Final = _ORDINARY | {
    *_TEXTS, *_OBJECTS, *_DATA_PROCESSING, "opt_out", "customer_segmentation",
    "messaging_channel",
}  # fmt: skip
_SEGMENTS: Final = (
    "new_customer_to_business", "new_customer_to_business_line",
    "new_customer_to_product_area", "new_customer_to_medium",
    "existing_customer_to_business", "existing_customer_to_business_line",
    "existing_customer_to_product_area", "existing_customer_to_medium",
    "customer_in_loyalty_program",
)  # fmt: skip
# Section 12: 1 is the USA, 0 lets Meta geolocate; states from California on.
_LDU_COUNTRIES: Final = (0, 1)
LDU_STATES: Final = (0, *range(1000, 1014))
_integer = re.compile(r"[0-9]{1,20}").fullmatch


def first_refusal(
    events: Sequence[object], now: float, switches: Switches, notes: Counter[str]
) -> Refusal | None:
    """Return why the first wrong event is wrong, or None. `notes` counts warnings."""
    digests_sound = digests_are_sound(events)
    for index, event in enumerate(events):
        refusal = _refusal(event, now, switches, notes, digests_sound=digests_sound)
        if refusal is not None:
            return refusal.within("data", index)
    return None


def _refusal(
    event: object,
    now: float,
    switches: Switches,
    notes: Counter[str],
    *,
    digests_sound: bool,
) -> Refusal | None:
    if type(event) is not dict:
        return bad_parameter("An event must be an object.")
    name = event.get("event_name")
    if type(name) is not str or not name.strip():
        return bad_parameter("event_name must be text.", "event_name")
    source = event.get("action_source")
    refusal = _time_refusal(event.get("event_time"), source, now, switches)
    if refusal is not None:
        return refusal
    if type(source) is not str or source not in ACTION_SOURCES:
        # Meta's own second sample has none (2.1).
        if source is not None or switches.documented:
            return bad_parameter("action_source is unknown.", "action_source")
        notes["event without action_source"] += 1
    user_data = event.get("user_data")
    if type(user_data) is not dict:
        return bad_parameter("user_data must be an object.", "user_data")
    refusal = user_data_refusal(
        user_data, now, switches, notes, digests_sound=digests_sound
    )
    if refusal is not None:
        return refusal
    if source == "website":
        refusal = website_refusal(event, user_data, switches, notes)
        if refusal is not None:
            return refusal
    custom_data = event.get("custom_data")
    if custom_data is None:
        custom_data = {}
    elif type(custom_data) is not dict:
        return bad_parameter("custom_data must be an object.", "custom_data")
    refusal = custom_data_refusal(name, custom_data, switches, notes)
    if refusal is None and source != "physical_store":
        refusal = channel_refusal(source, event, user_data, switches, notes)
    if refusal is not None:
        return refusal
    event_id = event.get("event_id")
    if event_id is None:
        notes["event without event_id"] += 1
    elif type(event_id) is not str:
        return bad_parameter("event_id must be text.", "event_id")
    if event.keys() <= _ORDINARY:
        return None
    if not event.keys() <= _KNOWN:
        notes["unknown event parameter"] += 1
    return _rare_refusal(event, user_data, switches)


def _time_refusal(
    event_time: object, source: object, now: float, switches: Switches
) -> Refusal | None:
    if type(event_time) is int:
        moment = event_time
    elif isinstance(event_time, str) and _integer(event_time):
        moment = int(event_time)
    else:
        return bad_parameter("event_time must be Unix seconds.", "event_time")
    # Compared, not subtracted: an integer of JSON may be too large for a float.
    if moment > now + switches.future_tolerance:
        return invalid(Subcode.IN_FUTURE, "event_time")
    if moment < now - switches.window and (
        source != "physical_store"
        or switches.strict_seven_days
        or moment < now - switches.physical_store_window
    ):
        return invalid(Subcode.TOO_OLD, "event_time")
    return None


def _rare_refusal(
    event: dict[str, object], user_data: dict[str, object], switches: Switches
) -> Refusal | None:
    for key in _TEXTS:
        if not isinstance(event.get(key, ""), str | None):
            return bad_parameter(f"{key} must be text.", key)
    for key in _OBJECTS:
        if not isinstance(event.get(key, {}), dict | None):
            return bad_parameter(f"{key} must be an object.", key)
    if not isinstance(event.get("opt_out"), bool | None):
        return bad_parameter("opt_out must be true or false.", "opt_out")
    if event.get("customer_segmentation") not in (None, *_SEGMENTS):
        return bad_parameter(
            "customer_segmentation is unknown.", "customer_segmentation"
        )
    return _limited_data_use_refusal(event, user_data, switches)


def _limited_data_use_refusal(
    event: dict[str, object], user_data: dict[str, object], switches: Switches
) -> Refusal | None:
    """Judge the three data_processing members together (section 12).

    The pages differ on a country without a state: one requires it, one geolocates.
    """
    options, country, state = (event.get(key) for key in _DATA_PROCESSING)
    if options is None or options == []:
        return None
    if options != ["LDU"]:
        return bad_parameter('Only ["LDU"] or [] is known.', _DATA_PROCESSING[0])
    if type(country) is not int or country not in _LDU_COUNTRIES:
        return bad_parameter("The country must be 0 or 1.", _DATA_PROCESSING[1])
    if state is None:
        if switches.documented or not user_data.get("client_ip_address"):
            return bad_parameter("LDU needs a state.", _DATA_PROCESSING[2])
    elif type(state) is not int or state not in LDU_STATES:
        return bad_parameter("The state is unknown.", _DATA_PROCESSING[2])
    return None
