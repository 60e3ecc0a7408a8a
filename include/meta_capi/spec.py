"""Everything Meta told us about the Conversions API, with the place they said it.

Facts only: no function here decides anything. A line marked `[choice]` is ours, where
Meta says nothing. Pages are named as in Meta's developer documentation under
*Conversions API*, read in September 2026 unless another date stands beside them.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Final, NewType

DatasetId = NewType("DatasetId", str)
EventId = NewType("EventId", str)

# --- the request ------------------------------------------------------------------

GRAPH_HOST: Final = "https://graph.facebook.com"
# facebook-business 26.0.3, apiconfig.py.
DEFAULT_GRAPH_VERSION: Final = "v26.0"
GRAPH_VERSION_PATTERN: Final = r"^v\d{1,2}\.\d$"
DATASET_ID_PATTERN: Final = r"^\d{5,20}$"
OLDEST_GRAPH_VERSION: Final = (20, 0)  # [choice] what the simulator still answers
NEWEST_GRAPH_VERSION: Final = (26, 0)
# "Platform versioning": each version works for at least two years from its release. The
# days are of Meta's changelog; of v26.0 we know the day by which an SDK used it.
GRAPH_VERSION_YEARS: Final = 2
GRAPH_VERSION_RELEASED: Final = {
    (20, 0): date(2024, 5, 21), (21, 0): date(2024, 10, 2), (22, 0): date(2025, 1, 21),
    (23, 0): date(2025, 5, 29), (24, 0): date(2025, 10, 8), (25, 0): date(2026, 2, 18),
    (26, 0): date(2026, 8, 5),
}  # fmt: skip

# "Using the API": up to 1,000 events in `data`; one invalid event rejects them all.
MAX_EVENTS_PER_REQUEST: Final = 1_000
# [choice] Meta names no limit in bytes; a thousand ordinary events are 0.9 MB.
MAX_BYTES_PER_REQUEST: Final = 4_000_000
# [choice] An event larger than this is a broken row, not a conversion.
MAX_BYTES_PER_EVENT: Final = 64_000
# [choice] Section 2.4 of our reference: no limit is documented for event_id.
MAX_EVENT_ID_CHARACTERS: Final = 128

# Guide for platforms: fewer than 23 characters, at least two letters.
PARTNER_AGENT_PATTERN: Final = r"^(?=(?:.*[A-Za-z]){2})[A-Za-z0-9._-]{2,22}$"


class ActionSource(StrEnum):
    """Where the conversion happened ("Server event parameters")."""

    EMAIL = "email"
    WEBSITE = "website"
    APP = "app"
    PHONE_CALL = "phone_call"
    CHAT = "chat"
    PHYSICAL_STORE = "physical_store"
    SYSTEM_GENERATED = "system_generated"
    BUSINESS_MESSAGING = "business_messaging"
    OTHER = "other"


# --- time -------------------------------------------------------------------------

DAY: Final = 86_400
# "Server event parameters": event_time may be up to 7 days old; one older event fails
# the whole request.
WINDOW_SECONDS: Final = 7 * DAY
# "Offline events": 62 days for physical_store. The same paragraph prints the 7 days as
# well and does not say which wins; senders that ship it use 62.
PHYSICAL_STORE_WINDOW_SECONDS: Final = 62 * DAY
# Not documented. Field reports: a future time is refused with 2804004; others allow a
# minute.
FUTURE_TOLERANCE_SECONDS: Final = 60


def window_seconds(action_source: ActionSource) -> int:
    """Return how old, in seconds, an event of this source may be when Meta gets it.

    >>> window_seconds(ActionSource.PHYSICAL_STORE) // DAY
    62
    >>> window_seconds(ActionSource.PHONE_CALL) // DAY
    7
    """
    if action_source is ActionSource.PHYSICAL_STORE:
        return PHYSICAL_STORE_WINDOW_SECONDS
    return WINDOW_SECONDS


# "Deduplicate pixel and server events": same event_name + event_id within 48 hours of
# the first receipt. Documented between browser and server only.
EVENT_ID_DEDUPLICATION_SECONDS: Final = 48 * 3_600
# "Offline events": offline against offline, at most 7 days, by dataset, event_time,
# event_name, item_number and order_id (else the same customer parameters).
OFFLINE_DEDUPLICATION_SECONDS: Final = 7 * DAY

# --- user_data --------------------------------------------------------------------

# "Customer information parameters". The order is the order on the wire.
DIGESTED_KEYS: Final = (
    "em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country", "external_id",
)  # fmt: skip
PLAIN_KEYS: Final = (
    "client_ip_address", "client_user_agent", "fbc", "fbp", "subscription_id",
    "fb_login_id", "lead_id", "madid",
)  # fmt: skip
# Sent as JSON integers.
INTEGER_KEYS: Final = ("fb_login_id", "lead_id")
# "may be a string or a list of strings".
LIST_KEYS: Final = DIGESTED_KEYS

EMPTY_STRING_SHA256: Final = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)
# 64 hex characters, or those with the tail that Meta's parameter builder adds: a dot and
# 2 (old) or 8 base64url characters (capi-param-builder 1.3.2, model/Constants.js).
DIGEST_PATTERN: Final = r"^[0-9a-f]{64}(?:\.(?:AQ|Ag|Aw|BA|BQ|Bg|[A-Za-z0-9_-]{8}))?$"

# "Best practices", since Graph v13: an event whose keys all lie inside one of these
# sets is invalid.
TOO_BROAD_KEY_SETS: Final = (
    frozenset({"ct", "country", "st", "zp", "ge", "client_user_agent"}),
    frozenset({"db", "client_user_agent"}),
    frozenset({"fn", "ge"}),
    frozenset({"ln", "ge"}),
)

# "Payload specification" of Conversion Leads: 15 to 17 digits.
LEAD_ID_PATTERN: Final = r"^[0-9]{15,17}$"

# --- custom_data ------------------------------------------------------------------

STANDARD_EVENTS: Final = frozenset({
    "AddPaymentInfo", "AddToCart", "AddToWishlist", "CompleteRegistration", "Contact",
    "CustomizeProduct", "Donate", "FindLocation", "InitiateCheckout", "Lead", "Other",
    "PageView", "Purchase", "Schedule", "Search", "StartTrial", "SubmitApplication",
    "Subscribe", "ViewContent",
})  # fmt: skip
# "Custom data": required for Purchase; missing ones are refused with 2804009 / 2804010.
EVENTS_REQUIRING_VALUE: Final = frozenset({"Purchase"})
DELIVERY_CATEGORIES: Final = ("in_store", "curbside", "home_delivery")
CONTENT_TYPES: Final = ("product", "product_group")
CUSTOM_DATA_TEXT_KEYS: Final = (
    "order_id", "item_number", "content_name", "content_category", "content_type",
    "delivery_category", "search_string", "status", "product_catalog_id",
)  # fmt: skip
CUSTOM_DATA_WORDS: Final = {
    "content_type": CONTENT_TYPES, "delivery_category": DELIVERY_CATEGORIES,
}  # fmt: skip
# "Custom data": Meta's names that a feed has no word for, with a form of their own.
OTHER_CUSTOM_DATA_KEYS: Final = frozenset({
    "event_source", "lead_event_source", "num_items", "content_ids", "store_data",
})  # fmt: skip
# Refused inside custom_data with 2804016, by field reports: customers' data in clear.
REFUSED_CUSTOM_DATA_KEYS: Final = frozenset({
    "em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "email", "phone",
})  # fmt: skip
CUSTOM_DATA_AMOUNT_KEYS: Final = ("value", "net_revenue", "predicted_ltv")

# "Payload specification" of Conversion Leads: without both, an event is accepted but not
# counted as a Conversion Leads event.
CRM_EVENT_SOURCE: Final = "crm"

# --- limited data use ---------------------------------------------------------------

# "Data processing options": states by their USPS code, with Meta's number.
LDU_STATES: Final = {
    "CA": 1000, "CO": 1001, "CT": 1002, "FL": 1003, "OR": 1004, "TX": 1005, "MT": 1006,
    "DE": 1007, "NE": 1008, "NH": 1009, "NJ": 1010, "MN": 1011, "MD": 1012, "RI": 1013,
}  # fmt: skip
LDU_COUNTRY_USA: Final = 1
LDU_GEOLOCATE: Final = 0

# --- answers ------------------------------------------------------------------------

# "Rate limiting"; 341 and 32 from clients in production. Nothing was processed.
THROTTLE_CODES: Final = frozenset({4, 17, 32, 341, 613, *range(80_000, 80_015)})
# "Error reference": token, permission, capability, dataset. Nothing about the events.
TOKEN_CODES: Final = frozenset({102, 104, 190})
PERMISSION_CODES: Final = frozenset(
    {3, 10, 294, 803, *range(200, 294), *range(295, 300)}
)
BLOCKED_CODE: Final = 368
REQUEST_PATH_CODES: Final = frozenset({2500, 2635})
INVALID_PARAMETER_CODE: Final = 100
# 100 with one of these subcodes speaks of the dataset, not of the events. The last one
# is the Dataset Quality API's.
DATASET_SUBCODES: Final = frozenset({33, 34, 38, 2_044_055})
# "Error reference": 1 and 2 are Meta's own faults; negative codes and 5000 too; 21009
# comes as HTTP 400 and is transient all the same. Whether anything was processed is not
# said, so the outcome is unknown.
TRANSIENT_CODES: Final = frozenset({1, 2, 5_000, 21_009})


class Subcode:
    """The `error_subcode` values of code 100 whose meaning is known."""

    TOO_OLD: Final = 2804003
    IN_FUTURE: Final = 2804004
    CONTENTS: Final = 2804008
    NO_VALUE: Final = 2804009
    NO_CURRENCY: Final = 2804010
    CUSTOM_DATA: Final = 2804016
    PARAMETER: Final = 2804019
    VALUE_WITHOUT_CURRENCY: Final = 2804023
    LDU_CHOICE: Final = 2804030
    APP_EXTINFO: Final = 2804043
    MATCH_KEYS: Final = 2804050
    MESSAGING_CHANNEL_MISSING: Final = 2804063
    MESSAGING_ARGUMENT: Final = 2804064
    MESSAGING_EVENT_NAME: Final = 2804066
    MESSAGING_PAGE_ID: Final = 2804069
    MESSAGING_IG_SID: Final = 2804075
    MESSAGING_IG_ACCOUNT: Final = 2804079
    MESSAGING_CTWA_CLID: Final = 2804087
    MESSAGING_WHATSAPP_IDS: Final = 2804116
    MESSAGING_NOT_LINKED: Final = 2804118
    MESSAGING_NOT_LINKED_EITHER: Final = 2804132
    MESSAGING_NO_INSTAGRAM: Final = 2804133


# --- time-outs ----------------------------------------------------------------------

# Meta suggests 1.5 s, for single real-time events ("Support"). A batch of 1,000 that we
# give up on is in doubt, so we wait. [choice]
CONNECT_TIMEOUT_SECONDS: Final = 5.0
REQUEST_DEADLINE_SECONDS: Final = 30.0
