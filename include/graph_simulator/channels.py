"""What each action_source asks for beyond the common rules (reference 2.2 and 7)."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from graph_simulator.refusals import Refusal, bad_parameter, invalid
from graph_simulator.switches import Switches
from meta_capi.spec import Subcode

ACTION_SOURCES: Final = frozenset({
    "email", "website", "app", "phone_call", "chat", "physical_store",
    "system_generated", "business_messaging", "other",
})  # fmt: skip

# 7.1: a closed list; `Lead` and custom names are refused.
_MESSAGING_EVENTS: Final = frozenset({
    "Purchase", "LeadSubmitted", "InitiateCheckout", "AddToCart", "ViewContent",
    "OrderCreated", "OrderShipped", "OrderDelivered", "OrderCanceled",
    "OrderReturned", "CartAbandoned", "QualifiedLead", "RatingProvided",
    "ReviewProvided",
})  # fmt: skip
_MESSAGING_CHANNELS: Final = ("messenger", "whatsapp", "instagram")
_ARGUMENT_NOT_ALLOWED: Final = 2804064
# Opaque and long; invented values are refused live. [choice] the shape stands for that.
_click_to_whatsapp = re.compile(r"[A-Za-z0-9_-]{20,}").fullmatch

_EXTINFO_LENGTH: Final = 16
_EXTINFO_PLATFORMS: Final = ("a2", "i2")
_EXTINFO_OS_VERSION: Final = 4


def website_refusal(
    event: dict[str, object],
    user_data: dict[str, object],
    switches: Switches,
    notes: Counter[str],
) -> Refusal | None:
    """Ask for URL and user agent; live, an event without them got 200 (2.2)."""
    for holder, path in (
        (event, ("event_source_url",)),
        (user_data, ("user_data", "client_user_agent")),
    ):
        if holder.get(path[-1]):
            continue
        if switches.documented:
            return bad_parameter(f"A website event needs {path[-1]}.", *path)
        notes[f"website event without {path[-1]}"] += 1
    return None


def channel_refusal(
    source: str | None,
    event: dict[str, object],
    user_data: dict[str, object],
    switches: Switches,
    notes: Counter[str],
) -> Refusal | None:
    """Judge what only this action_source needs."""
    match source:
        case "app":
            return _app_refusal(event)
        case "business_messaging":
            return _messaging_refusal(event, user_data, switches)
        case "system_generated":
            _note_crm(event, user_data, notes)
    return None


def _app_refusal(event: dict[str, object]) -> Refusal | None:
    app_data = event.get("app_data")
    if not isinstance(app_data, dict):
        return bad_parameter("An app event needs app_data.", "app_data")
    tracking = app_data.get("advertiser_tracking_enabled")
    if tracking not in (0, 1, "0", "1"):
        return bad_parameter(
            "advertiser_tracking_enabled must be 0 or 1.",
            "app_data",
            "advertiser_tracking_enabled",
        )
    extinfo = app_data.get("extinfo")
    if (
        not isinstance(extinfo, list)
        or len(extinfo) != _EXTINFO_LENGTH
        or extinfo[0] not in _EXTINFO_PLATFORMS
        or not extinfo[_EXTINFO_OS_VERSION]
        or not all(type(item) in (str, int) for item in extinfo)
    ):
        return invalid(Subcode.APP_EXTINFO, "app_data", "extinfo")
    return None


def _messaging_refusal(
    event: dict[str, object], user_data: dict[str, object], switches: Switches
) -> Refusal | None:
    channel = event.get("messaging_channel")
    if not channel:
        return invalid(Subcode.MESSAGING_CHANNEL_MISSING, "messaging_channel")
    if channel not in _MESSAGING_CHANNELS:
        return bad_parameter("messaging_channel is unknown.", "messaging_channel")
    if event["event_name"] not in _MESSAGING_EVENTS:
        return invalid(Subcode.MESSAGING_EVENT_NAME, "event_name")
    match channel:
        case "messenger":
            return _messenger_refusal(user_data)
        case "whatsapp":
            return _whatsapp_refusal(user_data)
        case _:
            return _instagram_refusal(user_data, switches)


def _messenger_refusal(user_data: dict[str, object]) -> Refusal | None:
    if not user_data.get("page_id"):
        return invalid(Subcode.MESSAGING_PAGE_ID, "user_data", "page_id")
    if not user_data.get("page_scoped_user_id"):
        return bad_parameter(
            "messenger needs page_scoped_user_id.", "user_data", "page_scoped_user_id"
        )
    return None


def _whatsapp_refusal(user_data: dict[str, object]) -> Refusal | None:
    if not user_data.get("page_id") and not user_data.get(
        "whatsapp_business_account_id"
    ):
        return invalid(Subcode.MESSAGING_WHATSAPP_IDS, "user_data")
    if not _click_to_whatsapp(str(user_data.get("ctwa_clid", ""))):
        return invalid(Subcode.MESSAGING_CTWA_CLID, "user_data", "ctwa_clid")
    return None


def _instagram_refusal(
    user_data: dict[str, object], switches: Switches
) -> Refusal | None:
    if user_data.get("client_ip_address") or user_data.get("client_user_agent"):
        return invalid(_ARGUMENT_NOT_ALLOWED, "user_data")
    # The guide's sample has another name; live, only ig_account_id was accepted.
    account = user_data.get("ig_account_id") or (
        switches.documented and user_data.get("instagram_business_account_id")
    )
    if not account:
        return invalid(Subcode.MESSAGING_IG_ACCOUNT, "user_data", "ig_account_id")
    if not user_data.get("ig_sid"):
        return invalid(Subcode.MESSAGING_IG_SID, "user_data", "ig_sid")
    return None


def _note_crm(
    event: dict[str, object], user_data: dict[str, object], notes: Counter[str]
) -> None:
    """Count the leads that Meta accepts and then does not count (section 6)."""
    custom_data = event.get("custom_data")
    held = custom_data if isinstance(custom_data, dict) else {}
    if user_data.get("lead_id") and (
        held.get("event_source") != "crm" or not held.get("lead_event_source")
    ):
        notes["lead not counted as a Conversion Leads event"] += 1
