"""What a normaliser gives: the normal form, or what keeps a value out of it."""

from __future__ import annotations

from enum import Enum
from typing import NewType

__all__ = ["Flaw", "Normalised"]

Normalised = NewType("Normalised", str)
"""A text that went through its key's function here: the only thing that is digested."""


class Flaw(Enum):
    """Why a value cannot be sent. The values are codes of `catalogue.REASONS`."""

    EM_NOT_AN_ADDRESS = "em.not_an_address"
    PH_NO_COUNTRY_CODE = "ph.no_country_code"
    PH_NOT_A_NUMBER = "ph.not_a_number"
    NAME_NOTHING_LEFT = "name.nothing_left"
    DB_UNREADABLE = "db.unreadable"
    DB_OUT_OF_RANGE = "db.out_of_range"
    GE_UNKNOWN = "ge.unknown"
    CT_NOTHING_LEFT = "ct.nothing_left"
    ST_NOTHING_LEFT = "st.nothing_left"
    ZP_TOO_SHORT = "zp.too_short"
    COUNTRY_UNKNOWN = "country.unknown"
    EXTERNAL_ID_TOO_LONG = "external_id.too_long"
    LEAD_ID_DAMAGED = "lead_id.damaged"
    FB_LOGIN_ID_NOT_DIGITS = "fb_login_id.not_digits"
    FBC_MALFORMED = "fbc.malformed"
    FBP_MALFORMED = "fbp.malformed"
    IP_NOT_PUBLIC = "ip.not_public"
    USER_AGENT_UNREADABLE = "user_agent.unreadable"
    MADID_NOT_A_UUID = "madid.not_a_uuid"
    HASH_MD5 = "hash.md5"
    HASH_OF_NOTHING = "hash.of_nothing"
    CONTENT_TYPE_UNKNOWN = "content_type.unknown"
    DELIVERY_CATEGORY_UNKNOWN = "delivery_category.unknown"
    VALUE_SEVERAL = "value.several"
    VALUE_DAMAGED = "value.damaged"
    VALUE_TEXT_UNREADABLE = "value.text_unreadable"
    # Of amounts, currencies and moments: these quarantine the row.
    VALUE_UNREADABLE = "value.unreadable"
    VALUE_NEGATIVE = "value.negative"
    VALUE_NOT_FINITE = "value.not_finite"
    VALUE_TOO_LARGE = "value.too_large"
    CURRENCY_UNKNOWN = "currency.unknown"
    TIME_UNREADABLE = "time.unreadable"
    TIME_NO_ZONE = "time.no_zone"
    TIME_NOT_SECONDS = "time.not_seconds"
