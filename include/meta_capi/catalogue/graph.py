"""Meta's own codes, and what we do about them.

Where the meaning is from: "Error reference" and "Rate limiting" of Meta's documentation;
what stands there nowhere is said to be from field reports.
"""

from __future__ import annotations

from typing import Final

from meta_capi import spec
from meta_capi.catalogue.entry import Effect, Texts
from meta_capi.spec import Subcode

__all__ = ["TEXTS", "entry_of", "meta_code"]

_OTHER: Final = "meta.other"
_NEGATIVE: Final = "meta.negative"
_PERMISSION: Final = "meta.200"
_FIRST_PERMISSION, _LAST_PERMISSION = 200, 299

_ROW = "Correct the row; the changed row is sent by the next run that reads it."
_SUPPORT = f"{_ROW} Quote the batch's fbtrace_id to Meta's support."
_FEED = "Correct the feed or its columns, then run again."
_MESSAGING = (
    "This project sends no messaging events: look at event.action_source in the feed."
)
_RENEW = "Make a new token for a system user in Business settings, put it in the connection's password, then run again."
_PERMIT = "Give the token's user the dataset in Business settings, with the permission to manage it; then run again."
_DATASET = "Compare the connection's dataset_id with Events Manager, and give the token's user that dataset; then run again."
_WAIT = "Nothing; what is pending is sent by the next run or by tend_deliveries. If it comes often, lower limits.requests_in_flight or run less often."
_DOUBT = "Nothing; tend_deliveries sends it again inside Meta's deduplication window, if the feed says resend."


def _refused(subcode: int) -> str:
    return meta_code(spec.INVALID_PARAMETER_CODE, subcode)


def meta_code(code: int | None, subcode: int | None) -> str:
    """Return the catalogue's code of Meta's numbers.

    >>> meta_code(100, 2804003)
    'meta.100.2804003'
    >>> meta_code(100, None)
    'meta.100'
    """
    return ".".join(
        ["meta", *(str(part) for part in (code, subcode) if part is not None)]
    )


TEXTS: Final[Texts] = {
    Effect.REFUSED: {
        "meta.100": ("An invalid parameter; the subcode, if there is one, is not in Meta's documentation.", _SUPPORT),
        _refused(Subcode.TOO_OLD): ("event_time is older than Meta takes.", "Nothing can be sent. Compare window in the feed with what Meta takes; run the feed more often."),
        _refused(Subcode.IN_FUTURE): ("event_time is in the future, or in milliseconds.", "Correct the row, or event.time in the feed; look at the clock of the warehouse."),
        _refused(Subcode.CONTENTS): ("contents is not a list of objects, or an item has no id.", _ROW),
        _refused(Subcode.NO_VALUE): ("A Purchase without value.", _ROW),
        _refused(Subcode.NO_CURRENCY): ("A Purchase without currency.", _ROW),
        _refused(Subcode.CUSTOM_DATA): ("custom_data is invalid; by a field report, it holds a customer's data in clear.", _FEED),
        _refused(Subcode.PARAMETER): ("A required member is missing or has the wrong type.", _SUPPORT),
        _refused(Subcode.VALUE_WITHOUT_CURRENCY): ("A value without currency.", _ROW),
        _refused(Subcode.LDU_CHOICE): ("A choice on limited data use is asked for (seen in 2020 only).", "Set limited_data_use in the feed."),
        _refused(Subcode.APP_EXTINFO): ("Invalid extended device info of an app event.", "This project sends no app events: look at event.action_source in the feed."),
        _refused(Subcode.MATCH_KEYS): ("No match key, or too broad a set of them.", "Map further columns (em, ph, external_id) in the feed."),
        _refused(Subcode.MESSAGING_CHANNEL_MISSING): ("messaging_channel is missing.", _MESSAGING),
        _refused(Subcode.MESSAGING_ARGUMENT): ("A member that messaging events may not have.", _MESSAGING),
        _refused(Subcode.MESSAGING_EVENT_NAME): ("The event name is not allowed for business messaging.", _MESSAGING),
        _refused(Subcode.MESSAGING_PAGE_ID): ("page_id is missing.", _MESSAGING),
        _refused(Subcode.MESSAGING_IG_SID): ("ig_sid is missing.", _MESSAGING),
        _refused(Subcode.MESSAGING_IG_ACCOUNT): ("ig_account_id is missing.", _MESSAGING),
        _refused(Subcode.MESSAGING_CTWA_CLID): ("ctwa_clid is invalid.", _MESSAGING),
        _refused(Subcode.MESSAGING_WHATSAPP_IDS): ("page_id or the WhatsApp account id is missing.", _MESSAGING),
        _refused(Subcode.MESSAGING_NOT_LINKED): ("The WhatsApp account is not linked to the dataset.", _MESSAGING),
        _refused(Subcode.MESSAGING_NOT_LINKED_EITHER): ("The WhatsApp account is not linked to the dataset.", _MESSAGING),
        _refused(Subcode.MESSAGING_NO_INSTAGRAM): ("The dataset has no Instagram account.", _MESSAGING),
        "meta.413": ("HTTP 413: the request was too large for Meta or for a proxy before it.", "Lower limits.bytes_per_request in the feed; an event that is refused alone has too many contents."),
        "meta.506": ("A duplicate post; not expected of this edge.", _SUPPORT),
        _OTHER: ("Meta refused this event; the code is not in Meta's public documentation.", _SUPPORT),
    },
    Effect.STOPPED: {
        "meta.3": ("Meta's app has no capability for this call.", _PERMIT),
        "meta.10": ("The app lacks the permission.", _PERMIT),
        "meta.100.33": ("The dataset does not exist, or the token may not see it.", _DATASET),
        "meta.100.34": ("The dataset does not exist, or the token may not see it (by a field report).", _DATASET),
        "meta.100.38": ("The dataset does not exist, or the token may not see it (by a field report).", _DATASET),
        "meta.100.2044055": ("The Dataset Quality API does not know the dataset.", _DATASET),
        "meta.102": ("The token's session is invalid.", _RENEW),
        "meta.104": ("The request has no token, or its proof by the app's secret is wrong.", "Look at the connection's password and app_secret; then run again."),
        "meta.190": ("The access token is invalid, expired or revoked.", _RENEW),
        "meta.190.458": ("The app was removed by the token's user.", _RENEW),
        "meta.190.459": ("The token's user has to pass a checkpoint of Facebook's first.", "Let the user sign in on facebook.com, or better, use a system user's token; then run again."),
        "meta.190.460": ("The token's user has changed the password.", _RENEW),
        "meta.190.463": ("The token has expired.", _RENEW),
        "meta.190.464": ("The token's user is not confirmed.", _RENEW),
        "meta.190.467": ("The token was revoked.", _RENEW),
        "meta.190.492": ("The token's user has lost the role that it was made with.", _RENEW),
        _PERMISSION: ("A permission is missing (codes 200 to 293 and 295 to 299).", _PERMIT),
        "meta.294": ("The permission ads_management is missing.", _PERMIT),
        "meta.368": ("Meta has blocked the token for a while, for what it takes for abuse.", "Wait some hours, and look at the account's standing in Business settings; then run again."),
        "meta.803": ("Meta does not know the dataset's id.", _DATASET),
        "meta.2500": ("Meta does not know the path.", "Look at graph_version and dataset_id in the connection; then run again."),
        "meta.2635": ("The Graph version is over.", "Raise graph_version in the connection; then run again."),
        "answer.redirect": ("The address answers with a redirect, which is never followed.", "Look at the connection's host and at proxies before it; then run again."),
        "answer.stranger": ("The address does not answer as the Graph API does.", "Look at the connection's host and at proxies before it; then run again."),
    },
    Effect.THROTTLED: {
        "meta.4": ("The app's limit of requests.", _WAIT),
        "meta.17": ("The user's limit of requests.", _WAIT),
        "meta.32": ("The page's limit of requests.", _WAIT),
        "meta.341": ("A limit of the app.", _WAIT),
        "meta.613": ("The ad account's limit of requests.", _WAIT),
        "meta.80000": ("A business use case's limit of requests (codes 80000 to 80014).", _WAIT),
    },
    Effect.IN_DOUBT: {
        "meta.1": ("An unknown error of Meta's.", _DOUBT),
        "meta.2": ("Meta's service was down for the moment.", _DOUBT),
        "meta.5000": ("An unknown error of Meta's.", _DOUBT),
        "meta.21009": ("Meta was not ready for the data; by its own word this passes.", _DOUBT),
        _NEGATIVE: ("An inner error of Meta's (codes below zero).", _DOUBT),
    },
}  # fmt: skip

_KNOWN: Final = {code for group in TEXTS.values() for code in group}


def entry_of(code: str) -> str:
    """Return the entry that speaks of one of Meta's codes.

    >>> entry_of("meta.190.463"), entry_of("meta.190.7"), entry_of("meta.231")
    ('meta.190.463', 'meta.190', 'meta.200')
    >>> entry_of("meta.-3"), entry_of("meta.77")
    ('meta.negative', 'meta.other')
    """
    number = code.split(".")[1] if "." in code else ""
    if code in _KNOWN:
        return code
    if (whole := f"meta.{number}") in _KNOWN:
        return whole
    if number.startswith("-"):
        return _NEGATIVE
    value = int(number) if number.isdecimal() and len(number) < 10 else 0
    if _FIRST_PERMISSION <= value <= _LAST_PERMISSION:
        return _PERMISSION
    if value in spec.THROTTLE_CODES:
        return "meta.80000"
    return _OTHER
