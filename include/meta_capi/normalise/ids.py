"""The names that systems give: ids, cookies, addresses of devices."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Final, Literal

from meta_capi.normalise.flaw import Flaw, Normalised
from meta_capi.normalise.text import prepared
from meta_capi.spec import LEAD_ID_PATTERN

__all__ = [
    "ExternalIdMode", "browser_id", "click_id", "external_id", "fb_login_id",
    "ip_address", "lead_id", "madid", "subscription_id", "user_agent",
]  # fmt: skip

ExternalIdMode = Literal["normalised", "trimmed", "raw"]

_LONGEST_EXTERNAL_ID: Final = 512
# What Meta's parameter builder hangs on its values (capi-param-builder 1.3.2,
# model/Constants.js): a dot and 2 or 8 characters.
_APPENDIX: Final = r"(?:\.(?:AQ|Ag|Aw|BA|BQ|Bg|[A-Za-z0-9_-]{8}))"
_FBC: Final = re.compile(rf"fb\.[0-9]{{1,2}}\.[0-9]{{13}}\.[A-Za-z0-9_-]+{_APPENDIX}?")
_FBP: Final = re.compile(rf"fb\.[0-9]{{1,2}}\.[0-9]{{13}}\.[0-9]+{_APPENDIX}?")
_AFTER_ADDRESS: Final = re.compile(rf"{_APPENDIX}\Z")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WHOLE_NUMBER: Final = re.compile(r"[1-9][0-9]{0,18}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def external_id(text: str, mode: ExternalIdMode) -> Normalised | Flaw | None:
    """Return the advertiser's own id in the form that the Pixel gives it.

    `normalised`: lower-case, without white space; `trimmed`: as is between the ends;
    `raw`: untouched.

    >>> external_id("User 42", "normalised")
    'user42'
    >>> external_id("9" * 513, "raw")
    <Flaw.EXTERNAL_ID_TOO_LONG: 'external_id.too_long'>
    """
    shown = prepared(text)
    if not shown:
        return None
    if mode == "raw":
        shown = text
    elif mode == "normalised":
        shown = unicodedata.normalize("NFC", "".join(shown.lower().split()))
    if len(shown) > _LONGEST_EXTERNAL_ID:
        return Flaw.EXTERNAL_ID_TOO_LONG
    return Normalised(shown)


# Not ipaddress.is_global: that leaves out the documentation ranges, and Meta's own
# example of an address is in one (2001:db8::/32).
_NOT_PUBLIC: Final = tuple(map(ipaddress.ip_network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
    "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
    "::/127", "fc00::/7", "fe80::/10", "ff00::/8",
)))  # fmt: skip


def ip_address(text: str) -> Normalised | Flaw | None:
    """Return a public IPv4 or IPv6 address as it is, appendix included.

    >>> ip_address("168.212.226.204")
    '168.212.226.204'
    >>> ip_address("1.2.3.4:443")
    <Flaw.IP_NOT_PUBLIC: 'ip.not_public'>
    """
    text = text.strip()
    if not text:
        return None
    address = _address(text) or _address(_AFTER_ADDRESS.sub("", text))
    if address is None or any(address in network for network in _NOT_PUBLIC):
        return Flaw.IP_NOT_PUBLIC
    return Normalised(text)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def user_agent(text: str) -> Normalised | Flaw | None:
    """Return the browser's own words, trimmed and otherwise untouched.

    >>> user_agent("Mozilla/5.0 (X11; Linux x86_64)")
    'Mozilla/5.0 (X11; Linux x86_64)'
    >>> user_agent("Mozilla\\x00")
    <Flaw.USER_AGENT_UNREADABLE: 'user_agent.unreadable'>
    """
    text = text.strip()
    if not text:
        return None
    return Flaw.USER_AGENT_UNREADABLE if _CONTROL.search(text) else Normalised(text)


def click_id(text: str) -> Normalised | Flaw | None:
    """Return the value of the _fbc cookie, case and appendix included.

    >>> click_id("fb.1.1554763741205.AbCdEfGhIj")
    'fb.1.1554763741205.AbCdEfGhIj'
    >>> click_id("AbCdEfGhIj")
    <Flaw.FBC_MALFORMED: 'fbc.malformed'>
    """
    return _matching(text.strip(), _FBC, Flaw.FBC_MALFORMED)


def browser_id(text: str) -> Normalised | Flaw | None:
    """Return the value of the _fbp cookie, appendix included.

    >>> browser_id("fb.1.1596403881668.1116446470")
    'fb.1.1596403881668.1116446470'
    >>> browser_id("1116446470")
    <Flaw.FBP_MALFORMED: 'fbp.malformed'>
    """
    return _matching(text.strip(), _FBP, Flaw.FBP_MALFORMED)


def lead_id(text: str) -> Normalised | Flaw | None:
    """Return the 15 to 17 digits that Meta gave the lead.

    >>> lead_id("1234567890123456")
    '1234567890123456'
    >>> lead_id("1234567890123456.0")
    <Flaw.LEAD_ID_DAMAGED: 'lead_id.damaged'>
    """
    text = text.strip()
    if text.startswith("0"):
        return Flaw.LEAD_ID_DAMAGED  # no JSON integer begins with a zero
    return _matching(text, re.compile(LEAD_ID_PATTERN), Flaw.LEAD_ID_DAMAGED)


def fb_login_id(text: str) -> Normalised | Flaw | None:
    """Return the app-scoped user id, a whole number.

    >>> fb_login_id("10158000000000000")
    '10158000000000000'
    >>> fb_login_id("1e16")
    <Flaw.FB_LOGIN_ID_NOT_DIGITS: 'fb_login_id.not_digits'>
    """
    return _matching(text.strip(), _WHOLE_NUMBER, Flaw.FB_LOGIN_ID_NOT_DIGITS)


def madid(text: str) -> Normalised | Flaw | None:
    """Return the advertising id of a telephone: a UUID in lower case, not all zeros.

    >>> madid("38400000-8CF0-11BD-B23E-10B96E40000D")
    '38400000-8cf0-11bd-b23e-10b96e40000d'
    >>> madid("00000000-0000-0000-0000-000000000000")
    <Flaw.MADID_NOT_A_UUID: 'madid.not_a_uuid'>
    """
    text = text.strip().lower()
    if text and not text.strip("0-"):
        return Flaw.MADID_NOT_A_UUID  # all zeros: tracking is switched off
    return _matching(text, _UUID, Flaw.MADID_NOT_A_UUID)


def subscription_id(text: str) -> Normalised | Flaw | None:
    """Return the subscription's id, trimmed.

    >>> subscription_id(" sub_1")
    'sub_1'
    >>> subscription_id("sub\\x00")
    <Flaw.VALUE_TEXT_UNREADABLE: 'value.text_unreadable'>
    """
    text = text.strip()
    if not text:
        return None
    return Flaw.VALUE_TEXT_UNREADABLE if _CONTROL.search(text) else Normalised(text)


def _matching(
    text: str, pattern: re.Pattern[str], flaw: Flaw
) -> Normalised | Flaw | None:
    if not text:
        return None
    return Normalised(text) if pattern.fullmatch(text) else flaw
