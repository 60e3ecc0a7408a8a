"""A customer's words, in Meta's normal form; or the flaw that keeps them out of it.

Every function here is pure: text in; out comes the normal form, a `Flaw` with its
reason, or None where there is nothing but white space. None of them digests, guesses or
raises. Rules are those of "Customer information parameters"; `[choice]` marks what Meta
leaves open, where its own two libraries disagree or do harm.
"""

from __future__ import annotations

from meta_capi.normalise.flaw import Flaw, Normalised
from meta_capi.normalise.ids import (
    ExternalIdMode,
    browser_id,
    click_id,
    external_id,
    fb_login_id,
    ip_address,
    lead_id,
    madid,
    subscription_id,
    user_agent,
)
from meta_capi.normalise.people import birthday, email, gender, name, phone
from meta_capi.normalise.phones import REGIONS
from meta_capi.normalise.places import city, country, postcode, state
from meta_capi.normalise.text import text_of

__all__ = [
    "REGIONS", "ExternalIdMode", "Flaw", "Normalised", "birthday", "browser_id",
    "city", "click_id", "country", "email", "external_id", "fb_login_id", "gender",
    "ip_address", "lead_id", "madid", "name", "phone", "postcode", "state",
    "subscription_id", "text_of", "user_agent",
]  # fmt: skip
