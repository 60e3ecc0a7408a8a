"""What Meta's rules ask of `user_data` (reference, section 3).

A digest is looked at in one sweep over the whole batch, because a thousand events hold
ten thousand of them. Only if that sweep finds anything odd is each value looked at in
its turn, to name the first one that is wrong.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Final

from graph_simulator.refusals import Refusal, bad_parameter, invalid
from graph_simulator.switches import Switches
from meta_capi import spec
from meta_capi.spec import Subcode

# 3.1: SHA-256 required. external_id is only recommended to be hashed.
DIGESTED: Final = frozenset(
    {"em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country"}
)
# Names that only older SDKs still write; hashed there.
LEGACY_DIGESTED: Final = frozenset({"f5first", "f5last", "fi", "dobd", "dobm", "doby"})
_MUST_BE_DIGESTS: Final = DIGESTED | LEGACY_DIGESTED
_INTEGERS: Final = frozenset({"lead_id", "fb_login_id"})
_TEXTS: Final = frozenset({
    "client_ip_address", "client_user_agent", "fbc", "fbp", "subscription_id",
    "anon_id", "madid", "page_id", "page_scoped_user_id", "ctwa_clid",
    "ig_account_id", "ig_sid", "whatsapp_business_account_id",
    "instagram_business_account_id", "app_user_id", "partner_id", "partner_name",
})  # fmt: skip
KNOWN: Final = _MUST_BE_DIGESTS | _INTEGERS | _TEXTS | {"external_id"}

# 3.7, since Graph v13: user_data inside any one of these sets is too broad.
_TOO_BROAD: Final = (
    frozenset({"ct", "country", "st", "zp", "ge", "client_user_agent"}),
    frozenset({"db", "client_user_agent"}),
    frozenset({"fn", "ge"}),
    frozenset({"ln", "ge"}),
)
_WEAK: Final = frozenset().union(*_TOO_BROAD)

# 3.6: a digest may carry the param builder's tail of 2 or 8 characters.
_digest = re.compile(
    r"[0-9a-f]{64}(?:\.(?:AQ|Ag|Aw|BA|BQ|Bg|[A-Za-z0-9_-]{8}))?"
).fullmatch
# 3.4, with the upper bound of what a cookie holds.
_click_or_browser_id = re.compile(
    r"fb\.\d{1,2}\.(\d{13})\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]{2}|\.[A-Za-z0-9_-]{8})?"
).fullmatch
_COOKIE_MILLISECONDS: Final = 90 * spec.DAY * 1_000
_lead_id = re.compile(r"[0-9]{15,17}").fullmatch
_HEX: Final = b"0123456789abcdef"


def digests_are_sound(events: Sequence[object]) -> bool:
    """Say whether every digest of the batch is one, beyond doubt.

    False means *look closer*, not *refuse*: a tail or an odd shape also gives False.
    """
    digests: list[str] = []
    try:
        for event in events:
            for key, value in event["user_data"].items():  # type: ignore[index]
                if key in _MUST_BE_DIGESTS:
                    if type(value) is list and value:
                        digests += value
                    else:
                        digests.append(value)
        joined = ",".join(digests)
    except (AttributeError, KeyError, TypeError):
        return False
    # Commas at every 65th place and nowhere else: each digest is 64 characters long.
    commas = "," * (len(digests) - 1)
    return (
        joined[64::65] == commas
        and len(joined) == 65 * len(digests) - bool(digests)
        and joined.isascii()
        and joined.encode().translate(None, _HEX) == commas.encode()
        and spec.EMPTY_STRING_SHA256 not in joined
    )


def user_data_refusal(
    user_data: dict[str, object],
    now: float,
    switches: Switches,
    notes: Counter[str],
    *,
    digests_sound: bool,
) -> Refusal | None:
    """Judge one user_data: enough keys first, then each key's form."""
    keys = user_data.keys()
    if digests_sound and keys <= _MUST_BE_DIGESTS and not keys <= _WEAK:
        return None  # the ordinary event: sound digests, and nothing else
    present = {
        key
        for key, value in user_data.items()
        if (value or value == 0) and value != [""] and value != [None]
    }
    if not present <= KNOWN:
        notes["unknown user_data key"] += 1
        present &= KNOWN
    # The empty set lies inside each of them: no customer parameters at all.
    if present <= _WEAK and any(present <= broad for broad in _TOO_BROAD):
        return invalid(Subcode.MATCH_KEYS, "user_data")
    for key in sorted(present - _MUST_BE_DIGESTS):
        refusal = _plain_refusal(key, user_data[key], now, switches, notes)
        if refusal is not None:
            return refusal
    if not digests_sound:
        for key in user_data:
            if key in _MUST_BE_DIGESTS and key in present:
                refusal = _digest_refusal(key, user_data[key], switches)
                if refusal is not None:
                    return refusal
    return None


def _digest_refusal(key: str, value: object, switches: Switches) -> Refusal | None:
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str):
            return bad_parameter(f"{key} must be text.", "user_data", key)
        if not switches.strict_hash:
            continue
        if not _digest(item):
            return bad_parameter(
                f"{key} must be a SHA-256 digest in lower-case hex.", "user_data", key
            )
        if item.startswith(spec.EMPTY_STRING_SHA256):
            return bad_parameter(
                f"{key} is the digest of the empty string.", "user_data", key
            )
    return None


def _plain_refusal(
    key: str, value: object, now: float, switches: Switches, notes: Counter[str]
) -> Refusal | None:
    if key == "external_id":
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in items):
            return bad_parameter("external_id must be text.", "user_data", key)
        return None
    if key in _INTEGERS:
        return _integer_refusal(key, value, switches)
    if not isinstance(value, str):
        return bad_parameter(f"{key} must be text.", "user_data", key)
    if key in ("fbc", "fbp"):
        match = _click_or_browser_id(value)
        if match is None:
            notes[f"malformed {key}"] += 1
        elif int(match[1]) < now * 1_000 - _COOKIE_MILLISECONDS:
            notes[f"{key} older than 90 days"] += 1
    elif key == "client_ip_address" and not _is_address(value):
        notes["malformed client_ip_address"] += 1
    return None


def _integer_refusal(key: str, value: object, switches: Switches) -> Refusal | None:
    """Refuse what is no integer; `observed` takes one that is written as text."""
    is_integer = type(value) is int or (
        not switches.documented
        and isinstance(value, str)
        and value.isascii()
        and value.isdigit()
    )
    if not is_integer:
        return bad_parameter(f"{key} must be an integer.", "user_data", key)
    if key == "lead_id" and not _lead_id(str(value)):
        return bad_parameter("lead_id must have 15 to 17 digits.", "user_data", key)
    return None


def _is_address(value: str) -> bool:
    family = socket.AF_INET6 if ":" in value else socket.AF_INET
    # The param builder glues its tail to the address (3.4).
    for candidate in (value, value.rpartition(".")[0]):
        try:
            socket.inet_pton(family, candidate)
        except (OSError, ValueError):
            continue
        return True
    return False
